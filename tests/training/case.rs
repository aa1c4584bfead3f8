//! What `reference.py` wrote: a model, and cases of two steps each.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use tempfile::TempDir;
use tinyfind::model::bundle::{About, Bundle, BundleWriter, WeightType, tensors_of};
use tinyfind::model::config::Config;
use tinyfind::model::weights::Weights;
use tinyfind::train::{AdamW, Parameters};

/// `cases.json`.
#[derive(Debug, Deserialize)]
pub(crate) struct Reference {
    pub(crate) config: Config,
    pub(crate) optimiser: Optimiser,
    pub(crate) smoothing: f64,
    pub(crate) lora: Lora,
    /// Id of `[DEC]`.
    pub(crate) dec: u32,
    /// Id of what stands before a prompt.
    pub(crate) bos: u32,
    pub(crate) cases: BTreeMap<String, Case>,
}

/// Settings of AdamW and the rates of the steps.
#[derive(Debug, Deserialize)]
pub(crate) struct Optimiser {
    betas: [f64; 2],
    eps: f64,
    weight_decay: f64,
    max_norm: f64,
    pub(crate) rates: [f64; 2],
}

/// Of a LoRA or DoRA.
#[derive(Debug, Deserialize)]
pub(crate) struct Lora {
    pub(crate) rank: usize,
    pub(crate) alpha: f64,
}

/// A batch and what two steps on it gave.
#[derive(Debug, Deserialize)]
pub(crate) struct Case {
    pub(crate) batch: serde_json::Value,
    pub(crate) steps: [Step; 2],
}

/// What a step gave.
#[derive(Debug, Deserialize)]
pub(crate) struct Step {
    pub(crate) losses: BTreeMap<String, f64>,
    /// Of all gradients before they are clipped.
    pub(crate) norm: f64,
}

impl Reference {
    pub(crate) fn open() -> Self {
        let text = std::fs::read_to_string(folder().join("cases.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) fn adam(&self) -> AdamW {
        let o = &self.optimiser;
        let [beta1, beta2] = o.betas;
        let (eps, weight_decay) = (o.eps, o.weight_decay);
        AdamW { beta1, beta2, eps, weight_decay, max_norm: Some(o.max_norm) }
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/training")
}

/// Tensors of one of the files.
#[derive(Debug)]
pub(crate) struct Tensors(HashMap<String, Tensor>);

impl Tensors {
    pub(crate) fn read(name: &str) -> Self {
        let path = folder().join(name).with_extension("safetensors");
        Self(candle_core::safetensors::load(path, &Device::Cpu).unwrap())
    }

    pub(crate) fn get(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("the file lacks `{name}`"))
    }

    /// The tensors below `prefix`, by the rest of their names.
    pub(crate) fn below(&self, prefix: &str) -> BTreeMap<&str, &Tensor> {
        let all = self.0.iter();
        all.filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?, tensor))).collect()
    }

    /// The tensors of `names` as they are here, to be trained.
    pub(crate) fn parameters<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Parameters {
        let mut parameters = Parameters::new();
        for name in names {
            parameters.insert(name, self.get(name), 1.0).unwrap();
        }
        parameters
    }
}

/// The model as a bundle in `folder`. It has no place for what only training knows; a tensor
/// that the reference has no use for is zero.
pub(crate) fn weights(config: &Config, start: &Tensors, folder: &TempDir) -> Weights {
    let path = folder.path().join("reference.gguf");
    let about = About {
        name: "reference".to_owned(),
        config: config.clone(),
        sources: Vec::new(),
        recipe: Vec::new(),
        training: Vec::new(),
        fingerprint: "reference".to_owned(),
        phi_tokenizer: None,
        bert_vocabulary: None,
        license: String::new(),
        licences: String::new(),
    };
    let specs = tensors_of(config);
    let mut writer = BundleWriter::create(&path, &about, &specs, WeightType::F32).unwrap();
    for spec in &specs {
        let values = if let Some(tensor) = start.0.get(&spec.name) {
            assert_eq!(tensor.dims(), spec.shape, "{}", spec.name);
            tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        } else {
            assert!(spec.name.starts_with("captioner."), "the file lacks `{}`", spec.name);
            vec![0.0; spec.shape.iter().product()]
        };
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        writer.write(&data).unwrap();
    }
    writer.finish().unwrap();
    Bundle::open(&path).unwrap().weights(&Device::Cpu, DType::F32)
}
