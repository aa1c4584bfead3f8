//! A case folder: published-format files of a small model, and what it says about itself.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tinyfind::decode::{DecodedImage, decode_file};
use tinyfind::model::bundle::{Bundle, WeightType};
use tinyfind::model::import::{Dims, ImportOptions, ImportSources, Lora, import};

pub(crate) struct Case {
    pub(crate) folder: PathBuf,
    pub(crate) name: String,
    pub(crate) meta: Value,
}

/// Every folder with a `meta.json` below `$TINYFIND_GOLDENS`, by default the cases of the
/// repository.
pub(crate) fn cases() -> Vec<Case> {
    let root = goldens();
    let mut folders: Vec<PathBuf> = fs::read_dir(&root)
        .unwrap_or_else(|e| panic!("{}: {e}", root.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("meta.json").is_file())
        .collect();
    folders.sort();
    folders.into_iter().map(Case::open).collect()
}

pub(crate) fn goldens() -> PathBuf {
    std::env::var_os("TINYFIND_GOLDENS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/goldens"),
        PathBuf::from,
    )
}

impl Case {
    pub(crate) fn open(folder: PathBuf) -> Self {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let meta = fs::read(folder.join("meta.json")).unwrap();
        Self { folder, name, meta: serde_json::from_slice(&meta).unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Stages that the case tells about, ascending.
    pub(crate) fn stages(&self) -> Vec<u8> {
        let keys = self.meta.as_object().unwrap().keys();
        let mut stages: Vec<u8> =
            keys.filter_map(|key| key.strip_prefix("stage")?.parse().ok()).collect();
        stages.sort_unstable();
        stages
    }

    /// Checkpoint files of a stage: the published name and any other of that stage.
    pub(crate) fn checkpoints(&self, stage: u8) -> Vec<PathBuf> {
        let published = format!("TinyGPT-V_for_Stage{stage}.pth");
        let other = format!("stage{stage}_");
        self.files(|name| name == published || (name.starts_with(&other) && is_pth(name)))
    }

    /// Folders of Phi-2 in whatever layout; the first holds the tokenizer.
    pub(crate) fn phi_folders(&self) -> Vec<PathBuf> {
        self.files(|name| name == "phi-2" || name.starts_with("phi-2-"))
    }

    /// Files of the folder whose names are as wanted, by name.
    fn files(&self, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().path());
        let mut found: Vec<PathBuf> =
            entries.filter(|p| wanted(&p.file_name().unwrap().to_string_lossy())).collect();
        found.sort();
        found
    }

    pub(crate) fn dims(&self) -> Dims {
        serde_json::from_value(self.meta["dims"].clone()).unwrap()
    }

    /// The picture, and the same flipped left to right.
    pub(crate) fn pictures(&self) -> [DecodedImage; 2] {
        let image = decode_file(&self.path("image.png"), None).unwrap().image;
        let row = image.width as usize * 3;
        let flipped = image.rgb.chunks_exact(row).flat_map(|row| {
            row.as_chunks::<3>().0.iter().rev().flatten().copied().collect::<Vec<u8>>()
        });
        let flipped = DecodedImage { rgb: flipped.collect(), ..image.clone() };
        [image, flipped]
    }

    /// Where the sources of a TinyGPT-V model of this case lie.
    pub(crate) fn language_sources(
        &self,
        stage: u8,
        checkpoint: &Path,
        phi: &Path,
    ) -> ImportSources {
        ImportSources {
            vit: Some(self.path("eva_vit_g.pth")),
            qformer: Some(self.path("blip2_pretrained_flant5xxl.pth")),
            phi: Some(phi.to_owned()),
            phi_tokenizer: Some(self.path("phi-2")),
            checkpoint: Some(checkpoint.to_owned()),
            stage,
            dims: self.dims(),
            ..ImportSources::default()
        }
    }
}

fn is_pth(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "pth")
}

/// Imports as `tinyfind model import --dtype f32` does, and opens the bundle.
pub(crate) fn bundle(sources: &ImportSources, lora: Lora, folder: &Path) -> Bundle {
    let output = folder.join("bundle.gguf");
    let options = ImportOptions { weight_type: WeightType::F32, lora, name: None };
    import(sources, &options, &output, &mut |_| {})
        .unwrap_or_else(|e| panic!("{sources:?}: {e:?}"));
    Bundle::open(&output).unwrap()
}
