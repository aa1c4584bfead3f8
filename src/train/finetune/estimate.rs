//! What training takes of memory.
//!
//! # The full model
//!
//! Stage 3 of TinyGPT-V at its published sizes on a GPU, in bf16, LoRA of rank 64, 2 answers
//! together (3 such batches a step), sequences of 240 tokens of which 160 are learned:
//!
//! | | numbers | bytes of each | GB |
//! |---|---|---|---|
//! | projections and Phi-2 without its token table, which stays in the file | 2,662.2 M | 2 | 5.32 |
//! | LoRA, projections, norm weights: values | 45.3 M | 4, and 2 as they are used | 0.27 |
//! | their gradients: a set for each batch of a step, and their sum | 45.3 M | 4 x 4 | 0.72 |
//! | means of `AdamW` | 45.3 M | 8 | 0.36 |
//! | what the backward pass needs of 32 layers, by token | 480 | 17.3 M | 8.30 |
//! | logits of the learned tokens, and what their loss needs | 16.4 M | 26 | 0.43 |
//! | a tenth for what lives shortly, and for the library's work space | | | 1.54 |
//! | **in all** | | | **16.9** |
//!
//! This is computed and not measured: what the operations keep was counted one by one, see
//! `bytes_per_token`.

use candle_core::DType;

use crate::model::{
    bundle::{WeightType, is_quantised, tensors_of},
    config::{Config, LanguageConfig},
};

/// What is computed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Numbers that are trained.
    pub trained: u64,
    /// Sequences of a batch.
    pub batch: usize,
    /// Batches of a step.
    pub shards: usize,
    /// Tokens of the longest sequence.
    pub tokens: usize,
    /// Learned tokens of the longest answer.
    pub learned: usize,
}

/// What training takes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Footprint {
    /// Weights that stay as they are.
    pub frozen: u64,
    /// Trained weights in f32, and in the type they are used in.
    pub trained: u64,
    /// Gradients: a set for each batch of a step and their sum.
    pub gradients: u64,
    /// Means of `AdamW`.
    pub moments: u64,
    /// What the backward pass needs of the forward pass.
    pub activations: u64,
    /// The vision part, which leaves before the rest comes.
    pub vision: u64,
}

impl Footprint {
    /// The most that is needed at a time, with a tenth for what lives shortly.
    pub fn total(&self) -> u64 {
        let training =
            self.frozen + self.trained + self.gradients + self.moments + self.activations;
        training.max(self.vision) / 10 * 11
    }
}

/// Where a model is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Whether that is a CPU.
    pub is_cpu: bool,
    /// The type that is computed in.
    pub dtype: DType,
    /// Batches of a step that are computed side by side.
    pub together: usize,
}

/// What it takes to train the language part of a model of `config`, the weights of which are
/// stored as `weight_type` has it.
pub fn footprint(config: &Config, weight_type: WeightType, load: Load, place: Place) -> Footprint {
    let size = place.dtype.size_in_bytes() as u64;
    let (mut frozen, mut vision) = (0, 0);
    for spec in tensors_of(config) {
        let count: u64 = spec.shape.iter().map(|&n| n as u64).product();
        let (stored, shape) = weight_type.storage(&spec);
        let as_stored = shape.iter().product::<usize>() / stored.block_size() * stored.type_size();
        match spec.name.split('.').next() {
            Some("vit" | "captioner") => {
                // On a GPU the frozen part computes in f16.
                vision += if place.is_cpu { as_stored as u64 } else { 2 * count };
            }
            Some("language") if !spec.name.ends_with("embed_tokens.weight") => {
                frozen += match place.is_cpu {
                    false => size * count,
                    // Gradients pass through dense weights only.
                    true if is_quantised(stored) => 2 * count,
                    true => as_stored as u64,
                };
            }
            _ => {}
        }
    }
    let used = if place.dtype == DType::F32 { 0 } else { size };
    let rows = (load.batch * place.together.clamp(1, load.shards.max(1))) as u64;
    let (layers, logits) = config.language.as_ref().map_or((0, 0), |language| {
        let tokens = rows * load.tokens as u64 * language.layers as u64;
        let learned = rows * (load.learned * language.vocabulary) as u64;
        (tokens * bytes_per_token(language, load.tokens, place.dtype), learned * (size + 24))
    });
    let sets = if load.shards > 1 { load.shards as u64 + 1 } else { 1 };
    Footprint {
        frozen,
        trained: load.trained * (4 + used),
        gradients: load.trained * 4 * sets,
        moments: load.trained * 8,
        activations: layers + logits,
        vision,
    }
}

/// Bytes that one layer keeps of one token of a sequence of `tokens` for its backward pass, on a
/// GPU: the results of plain operations, each of which the next one needs.
///
/// With `h` the width of the model, `i` that of the MLP, `t` the tokens and `n` the heads, and
/// sizes for bf16 (f32 is twice that but for the norms, which are computed in f32 anyway):
///
/// | | bytes |
/// |---|---|
/// | norm: f32 copy, centred, squared, scaled (4 h each), cast, weight, bias (2 h each) | 22 h |
/// | qkv: product and bias (6 h each); LoRA: dropped input with mask (4 h), product and sum (6 h each) | 28 h |
/// | heads: q, k, v apart (2 h each), norms of q and k (22 h each), turned (4.4 h each), scaled q | 61 h |
/// | attention: q, k, v by head (6 h); scores, masked, shifted, raised, divided (2 n t each); mixed, joined | 10 h + 10 n t |
/// | dense: product, bias, product and sum of the LoRA (2 h each), dropped input (4 h) | 12 h |
/// | norm after it: f32 copy, squared, scaled (4 h each), cast, weight (2 h each) | 16 h |
/// | MLP: product, bias, activation (2 i each); product and bias (2 h each) | 4 h + 6 i |
/// | sums of the residual stream | 4 h |
fn bytes_per_token(language: &LanguageConfig, tokens: usize, dtype: DType) -> u64 {
    let (h, i) = (language.hidden as u64, language.intermediate as u64);
    let scores = language.heads as u64 * tokens as u64;
    let half = 157 * h + 6 * i + 10 * scores;
    if dtype == DType::F32 {
        // What the norms keep in f32 (16 h thrice and 12 h) is not doubled, and is no copy.
        2 * half - 76 * h
    } else {
        half
    }
}

/// Free memory of this machine in bytes, where the system tells.
pub(super) fn free_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::config::{QFormerConfig, VisionConfig},
        train::{Stage, peft::Peft},
    };

    fn published() -> Config {
        Config {
            vision: Some(VisionConfig::vit_g()),
            captioner: Some(QFormerConfig::blip2(224)),
            retrieval: None,
            language: Some(LanguageConfig::phi2()),
            stage: 3,
        }
    }

    fn near(value: u64, gigabytes: f64) {
        assert!((value as f64 / 1e9 - gigabytes).abs() < 0.006, "{value} is not {gigabytes} GB");
    }

    #[test]
    fn stage_3_of_the_full_model_fits_24_gb() {
        let config = published();
        let recipe = Stage::Instruction.published();
        let trained = super::super::check::trained(&config, Stage::Instruction, &recipe.peft);
        // LoRA, projections and norm weights, as published.
        assert_eq!(trained, 31_457_280 + 13_638_144 + 171_520);
        let load = Load { trained, batch: 2, shards: 3, tokens: 240, learned: 160 };
        let place = Place { is_cpu: false, dtype: DType::BF16, together: 1 };
        let f = footprint(&config, WeightType::F16, load, place);
        near(f.frozen, 5.32);
        near(f.trained, 0.27);
        near(f.gradients, 0.72);
        near(f.moments, 0.36);
        near(f.activations, 8.72);
        near(f.vision, 2.18);
        near(f.total(), 16.95);
        assert!(f.total() < 24_000_000_000);
        assert!(matches!(recipe.peft, Peft::Lora(_)) && recipe.batch == load.batch * load.shards);
    }

    #[test]
    fn a_cpu_keeps_weights_as_they_are_stored_and_widens_quantised_ones_to_16_bits() {
        let config = published();
        let load = Load { trained: 0, batch: 1, shards: 4, tokens: 1, learned: 1 };
        let place = |together| Place { is_cpu: true, dtype: DType::F32, together };
        let frozen = |weight_type| footprint(&config, weight_type, load, place(1)).frozen;
        assert!(frozen(WeightType::F32) > 2 * frozen(WeightType::F16) - 10_000_000);
        assert!(frozen(WeightType::Q8_0).abs_diff(frozen(WeightType::F16)) < 10_000_000);
        let one = footprint(&config, WeightType::F16, load, place(1)).activations;
        assert_eq!(footprint(&config, WeightType::F16, load, place(2)).activations, 2 * one);
        assert_eq!(footprint(&config, WeightType::F16, load, place(9)).activations, 4 * one);
    }

    #[test]
    fn the_vision_part_counts_where_it_is_the_larger() {
        let f = Footprint {
            frozen: 10,
            trained: 10,
            gradients: 10,
            moments: 10,
            activations: 10,
            vision: 100,
        };
        assert_eq!(f.total(), 110);
        assert_eq!(Footprint { activations: 1000, ..f }.total(), 1144);
    }
}
