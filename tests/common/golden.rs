//! A small complete bundle with random weights, made of two golden cases that share one ViT:
//! `a3` (TinyGPT-V) and `b3` (BLIP-2 retrieval).

#![allow(dead_code, reason = "each test binary uses what it needs")]
#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tinyfind::model::bundle::WeightType;
use tinyfind::model::import::{ImportOptions, ImportSources, Lora, import};

/// Folder of the golden cases.
pub(crate) fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/goldens")
}

/// The `dims` of a case.
pub(crate) fn dims_of(case: &str) -> serde_json::Value {
    let text = std::fs::read_to_string(goldens().join(case).join("meta.json")).unwrap();
    serde_json::from_str::<serde_json::Value>(&text).unwrap()["dims"].clone()
}

/// Where the published files of both cases lie, for a training stage.
pub(crate) fn sources(stage: u8) -> ImportSources {
    let (a, b) = (goldens().join("a3"), goldens().join("b3"));
    ImportSources {
        vit: Some(a.join("eva_vit_g.pth")),
        qformer: Some(a.join("blip2_pretrained_flant5xxl.pth")),
        phi: Some(a.join("phi-2")),
        phi_tokenizer: None,
        checkpoint: Some(a.join(format!("TinyGPT-V_for_Stage{stage}.pth"))),
        stage,
        retrieval: Some(b.join("blip2_pretrained.pth")),
        retrieval_vocab: Some(b.join("bert/vocab.txt")),
        dims: serde_json::from_value(dims_of("a3")).unwrap(),
    }
}

/// Path of the bundle; imported on the first call of a test run, into cargo's folder for that.
pub(crate) fn bundle(stage: u8, weight_type: WeightType) -> PathBuf {
    static IMPORTING: Mutex<()> = Mutex::new(());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(folder).unwrap();
    // Test binaries run side by side: each imports for itself, and its tests one at a time.

    let _one = IMPORTING.lock().unwrap_or_else(PoisonError::into_inner);
    let path = folder.join(format!("golden-{}-{stage}-{weight_type}.gguf", std::process::id()));
    if !path.exists() {
        let options = ImportOptions { weight_type, lora: Lora::Merge, name: None };
        import(&sources(stage), &options, &path, &mut |_| ()).unwrap();
    }
    path
}
