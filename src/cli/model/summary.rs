//! What a bundle holds, in few words.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::bundle::{Bundle, tensors_of};
use crate::model::config::{Config, QFormerConfig};

/// A part of a model.
#[derive(Debug, Serialize)]
pub(super) struct Part {
    /// Prefix of its tensors.
    pub(super) name: &'static str,
    /// What it is and how large.
    pub(super) what: String,
    /// How most of its bytes are stored.
    pub(super) dtype: String,
    /// Its tensors in the file.
    pub(super) tensors: usize,
    /// Numbers in them, padding left out.
    pub(super) parameters: u64,
    /// Bytes of them in the file.
    pub(super) size_in_bytes: u64,
}

/// The parts of a bundle, in the order of the file.
pub(super) fn parts(bundle: &Bundle) -> Vec<Part> {
    let config = bundle.config();
    let specs = tensors_of(config);
    let described = descriptions(config).into_iter().map(|(name, what)| {
        let is_in = |tensor: &str| tensor.split('.').next() == Some(name);
        let mut bytes_by_dtype: BTreeMap<String, u64> = BTreeMap::new();
        let (mut tensors, mut size_in_bytes) = (0, 0);
        for tensor in bundle.tensors().filter(|tensor| is_in(&tensor.name)) {
            tensors += 1;
            size_in_bytes += tensor.size;
            *bytes_by_dtype.entry(dtype_name(tensor.dtype)).or_default() += tensor.size;
        }
        let most = bytes_by_dtype.into_iter().max_by_key(|(_, bytes)| *bytes);
        let dtype = most.map(|(dtype, _)| dtype).unwrap_or_default();
        let of_part = specs.iter().filter(|spec| is_in(&spec.name));
        let counts = of_part.map(|spec| spec.shape.iter().map(|&n| n as u64).product::<u64>());
        Part { name, what, dtype, tensors, parameters: counts.sum(), size_in_bytes }
    });
    described.collect()
}

/// The types of the parts, each once, in the order of the parts: `q8_0` or `q8_0, q4k`.
pub(super) fn dtypes(parts: &[Part]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for part in parts {
        if !names.contains(&part.dtype.as_str()) {
            names.push(&part.dtype);
        }
    }
    names.join(", ")
}

/// `f16`, `q8_0` and so on, as `--dtype` spells them.
pub(super) fn dtype_name(dtype: candle_core::quantized::GgmlDType) -> String {
    format!("{dtype:?}").to_ascii_lowercase()
}

fn descriptions(config: &Config) -> Vec<(&'static str, String)> {
    let qformer = |c: &QFormerConfig| {
        format!(
            "Q-Former, {} layers of width {}, {} queries, pictures of {} px",
            c.layers, c.hidden, c.queries, c.image_size
        )
    };
    let vision = config.vision.as_ref().map(|c| {
        (
            "vit",
            format!("EVA ViT, {} blocks of width {}, patches of {} px", c.depth, c.width, c.patch),
        )
    });
    let captioner = config.captioner.as_ref().map(|c| ("captioner", qformer(c)));
    let retrieval = config.retrieval.as_ref().map(|c| {
        let what = format!("{}, features of {}", qformer(&c.qformer), c.projection);
        ("retrieval", what)
    });
    let language = config.language.as_ref().map(|c| {
        let lora = match c.lora_rank {
            Some(rank) => format!(", LoRA of rank {rank} kept apart"),
            None => String::new(),
        };
        let what = format!("Phi-2, {} layers of width {}{lora}", c.layers, c.hidden);
        ("language", what)
    });
    [vision, captioner, retrieval, language].into_iter().flatten().collect()
}
