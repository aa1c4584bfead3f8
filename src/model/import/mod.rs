//! From the published files to one bundle.
//!
//! - `zip`, `pickle`, `torch`, `checkpoint`: what lies in a file, without running any of it and
//!   without reading more than is asked for;
//! - `vit`, `blip2`, `phi`, `stage`: whose tensor is whose, in every published layout;
//! - `recipe`, `encode`: how a bundle's tensor is made;
//! - [`random`]: bundles without published files.
//!
//! A tensor that is missing, misshapen or unknown is an error that names it and its file: the
//! reference loads with `strict=False`, and most reports of it talking nonsense come from
//! weights that were silently left out.

mod blip2;
mod checkpoint;
mod dims;
pub(crate) mod encode;
mod error;
mod parts;
mod phi;
mod pickle;
pub mod random;
mod recipe;
mod stage;
mod torch;
mod vit;
mod vocabulary;
mod zip;

use std::path::{Path, PathBuf};

pub use self::dims::{Dims, LayerDims, PhiDims, VitDims};
pub use self::error::ImportError;
use self::error::Result;
use self::parts::Parts;
use self::recipe::Plan;
use crate::model::bundle::{
    About, BUNDLE_VERSION, BundleWriter, Source, TensorSpec, WeightType, tensors_of,
};
use crate::model::config::Config;

/// Largest finite value of a 16-bit float; quantised weights have scales of that type.
const LARGEST_F16: f32 = 65504.0;

/// The published files to make a bundle of. Parts may be left out; the bundle lacks them then.
#[derive(Debug, Clone, Default)]
pub struct ImportSources {
    /// `eva_vit_g.pth`. May be left out where `retrieval` holds the same network.
    pub vit: Option<PathBuf>,
    /// `blip2_pretrained_flant5xxl.pth`, the captioning Q-Former.
    pub qformer: Option<PathBuf>,
    /// Folder (or weight file) of Phi-2 in any published layout; needs `qformer` and
    /// `checkpoint`.
    pub phi: Option<PathBuf>,
    /// `tokenizer.json` of Phi-2, or the folder of its tokenizer, where it is not beside the
    /// weights.
    pub phi_tokenizer: Option<PathBuf>,
    /// `TinyGPT-V_for_StageN.pth`.
    pub checkpoint: Option<PathBuf>,
    /// Which stage that is, 1 to 4; it decides the size of pictures.
    pub stage: u8,
    /// BLIP-2 for retrieval: LAVIS' `blip2_pretrained.pth`, or file or folder of Hugging Face's.
    pub retrieval: Option<PathBuf>,
    /// BERT's `vocab.txt`, where it is not in the folder `retrieval`.
    pub retrieval_vocab: Option<PathBuf>,
    /// Sizes that shapes cannot tell.
    pub dims: Dims,
}

/// What becomes of `LoRA`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lora {
    /// It is added to the weights, in f32.
    #[default]
    Merge,
    /// It stays beside them.
    Keep,
}

/// How to convert.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// How weights are stored.
    pub weight_type: WeightType,
    /// What becomes of `LoRA`.
    pub lora: Lora,
    /// Name to show; by default `tinygpt-v-stageN`.
    pub name: Option<String>,
}

/// How far an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportProgress<'a> {
    /// What is being done.
    pub step: ImportStep,
    /// File or tensor at hand.
    pub item: &'a str,
    /// Bytes done in this step.
    pub done: u64,
    /// Bytes of this step in all.
    pub total: u64,
}

/// The steps of an import, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportStep {
    /// Taking the sources' hashes.
    Hash,
    /// Converting and writing tensors.
    Write,
}

/// What an import made.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// What the bundle says about itself.
    pub about: About,
    /// Tensors written.
    pub tensors: usize,
    /// Length of the bundle in bytes.
    pub bytes: u64,
}

/// Makes a bundle at `output` of published files.
///
/// The bundle appears there only when it is complete and on the disk. Memory stays at the
/// largest tensor in f32 and its stored form. All checks of names and shapes come first, before
/// anything is hashed or written.
///
/// # Errors
///
/// When files do not belong together, cannot be read, or hold anything but exactly the tensors
/// of the model; then nothing is written.
pub fn import(
    sources: &ImportSources,
    options: &ImportOptions,
    output: &Path,
    progress: &mut dyn FnMut(ImportProgress<'_>),
) -> Result<Summary> {
    let parts = Parts::open(sources)?;
    let config = parts.config(sources, options)?;
    config.check().map_err(ImportError::sources)?;
    let mut specs = tensors_of(&config);
    let plan = parts.plan(sources, options, &config, &specs)?;
    specs.retain(|spec| !spec.optional || plan.contains(&spec.name));
    let vocabularies = parts::vocabularies(sources, &config)?;

    let hashed = parts.hash(&vocabularies, progress)?;
    let default_name = match config.language {
        Some(_) => format!("tinygpt-v-stage{}", config.stage),
        None if config.retrieval.is_some() => "blip2-retrieval".to_owned(),
        None => "vision".to_owned(),
    };
    let about = About {
        name: options.name.clone().unwrap_or(default_name),
        fingerprint: fingerprint(&hashed, options, &config),
        config,
        sources: hashed,
        recipe: Vec::new(),
        training: Vec::new(),
        phi_tokenizer: vocabularies.phi.map(|v| v.text),
        bert_vocabulary: vocabularies.bert.map(|v| v.text),
        license: "MIT AND BSD-3-Clause AND Apache-2.0".to_owned(),
        licences: include_str!("licences.txt").to_owned(),
    };
    write(&plan, &specs, &about, options.weight_type, output, progress)?;
    let bytes = std::fs::metadata(output).map_err(|e| ImportError::io(output, e))?.len();
    Ok(Summary { about, tensors: specs.len(), bytes })
}

fn fingerprint(sources: &[Source], options: &ImportOptions, config: &Config) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut add = |text: &str| {
        hasher.update(text.as_bytes());
        hasher.update(b"\n");
    };
    add(&BUNDLE_VERSION.to_string());
    add(options.weight_type.name());
    add(&format!("{:?}", options.lora));
    add(&format!("{config:?}"));
    for source in sources {
        add(&source.role);
        add(&source.blake3);
    }
    hasher.finalize().to_hex().to_string()
}

fn write(
    plan: &Plan,
    specs: &[TensorSpec],
    about: &About,
    weight_type: WeightType,
    output: &Path,
    progress: &mut dyn FnMut(ImportProgress<'_>),
) -> Result<()> {
    let mut writer = BundleWriter::create(output, about, specs, weight_type)?;
    let count = |spec: &TensorSpec| spec.shape.iter().product::<usize>();
    let total = specs.iter().map(|spec| 4 * count(spec) as u64).sum();
    let mut done = 0;
    for spec in specs {
        progress(ImportProgress { step: ImportStep::Write, item: &spec.name, done, total });
        let broken = |what: String| {
            let (tensor, path) = (spec.name.clone(), output.to_owned());
            ImportError::Value { tensor, path, what }
        };
        let values = plan.make(&spec.name, count(spec));
        let values = values.ok_or_else(|| broken("comes from none of the files".to_owned()))??;
        if values.len() != count(spec) {
            return Err(broken(format!("would have {} values", values.len())));
        }
        let exact = matches!(weight_type, WeightType::F32 | WeightType::Bf16);
        if !exact && values.iter().any(|v| v.abs() > LARGEST_F16) {
            return Err(broken(format!("is too large for {weight_type}: use bf16 or f32")));
        }
        let (dtype, shape) = weight_type.storage(spec);
        let cols = spec.shape.last().copied().unwrap_or(1);
        let padded = shape.last().copied().unwrap_or(1);
        let data = encode::encode(&values, cols, padded, dtype);
        writer.write(&data.map_err(|e| broken(format!("cannot be stored: {e}")))?)?;
        done += 4 * count(spec) as u64;
    }
    writer.finish()?;
    progress(ImportProgress { step: ImportStep::Write, item: "", done, total });
    Ok(())
}
