//! TinyGPT-V's own checkpoints, stages 1 to 4: what training changed.
//!
//! They hold the two projections, the weights (not the biases) of five kinds of norms, from
//! stage 2 on `LoRA`, and in the first upload of stage 4 a Q-Former that replaces BLIP-2's.

use std::collections::HashMap;
use std::sync::Arc;

use super::blip2::POSITION_IDS;
use super::checkpoint::{Checkpoint, TensorRef};
use super::error::{ImportError, Result};
use super::phi::{is_extra_norm, is_projection};
use super::recipe::{Claims, Merge, Plan, Recipe};
use super::vit::of_part;
use crate::model::bundle::{Role, TensorSpec};

/// What becomes of `LoRA`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct LoraUse {
    pub(super) rank: usize,
    pub(super) scale: f64,
    pub(super) keep: bool,
}

/// The checkpoint's names without their wrappers, so that one name means one tensor.
pub(super) struct StageNames {
    /// From the plain name to the one in the file.
    published: HashMap<String, String>,
    /// What stands before plain names of the language part.
    prefix: &'static str,
    lora_suffix: &'static str,
}

const LANGUAGE: &str = "llama_model.";
const PEFT: &str = "llama_model.base_model.model.";
const LORA_LAYERS: [&str; 2] = ["self_attn.query_key_value", "self_attn.dense"];

impl StageNames {
    pub(super) fn of(checkpoint: &Checkpoint) -> Result<Self> {
        let mut published = HashMap::new();
        for name in checkpoint.names() {
            if published.insert(plain_name(name), name.to_owned()).is_some() {
                let path = checkpoint.path().to_owned();
                let what = "appears under two names".to_owned();
                return Err(ImportError::Value { tensor: name.to_owned(), path, what });
            }
        }
        let has = |part: &str| checkpoint.names().any(|name| name.contains(part));
        let prefix = if has(PEFT) { PEFT } else { LANGUAGE };
        let lora_suffix = if has(".lora_A.default.") { ".default" } else { "" };
        Ok(Self { published, prefix, lora_suffix })
    }

    /// Whether it holds any `LoRA`.
    pub(super) fn has_lora(&self) -> bool {
        self.published.keys().any(|name| name.contains(".lora_"))
    }

    /// Whether it holds a Q-Former that replaces BLIP-2's.
    pub(super) fn has_qformer(&self) -> bool {
        let is_weight = |name: &String| name.starts_with("Qformer.") && name != POSITION_IDS;
        self.published.keys().any(is_weight) || self.published.contains_key("query_tokens")
    }

    /// The name in the file, or the one it would have there.
    pub(super) fn published(&self, plain: &str) -> String {
        if let Some(name) = self.published.get(plain) {
            return name.clone();
        }
        if is_projection(plain) || plain.starts_with("Qformer.") || plain == "query_tokens" {
            return plain.to_owned();
        }
        let (suffix, name) = (self.lora_suffix, plain.to_owned());
        let name = name.replace(".lora_A.", &format!(".lora_A{suffix}."));
        let name = name.replace(".lora_B.", &format!(".lora_B{suffix}."));
        format!("{}{name}", self.prefix)
    }
}

/// A name without `llama_model.`, without what peft wraps around it and with `LoRA` named as in
/// peft 0.2.
fn plain_name(name: &str) -> String {
    let Some(inner) = name.strip_prefix(PEFT).or_else(|| name.strip_prefix(LANGUAGE)) else {
        return name.to_owned();
    };
    inner
        .replace(".base_layer.", ".")
        .replace(".lora_A.default.", ".lora_A.")
        .replace(".lora_B.default.", ".lora_B.")
}

/// Adds what the checkpoint holds to a plan that has Phi-2 and BLIP-2 already.
///
/// `lora` is `None` for a checkpoint without it.
pub(super) fn plan(
    checkpoint: &Arc<Checkpoint>,
    names: &StageNames,
    lora: Option<LoraUse>,
    specs: &[TensorSpec],
    plan: &mut Plan,
) -> Result<()> {
    let mut claims = Claims::new(checkpoint);
    for (spec, plain) in of_part(specs, "language.") {
        if spec.role == Role::Lora {
            continue; // below, as merged ones have no spec
        }
        let name = names.published(plain);
        let required = is_projection(plain)
            || spec.role == Role::Norm
                && (is_extra_norm(plain)
                    || plain.ends_with("input_layernorm.weight")
                    || plain == "model.final_layernorm.weight");
        let found = if required {
            Some(claims.take(&name, &spec.shape)?)
        } else {
            // A checkpoint of the whole network replaces all of Phi-2.
            claims.take_if_there(&name, &spec.shape)?
        };
        if let Some(tensor) = found {
            plan.set(&spec.name, Recipe::Copy(tensor));
        }
    }
    if let Some(lora) = lora {
        for (spec, layer) in of_part(specs, "language.") {
            let Some(layer) = layer.strip_suffix(".weight") else { continue };
            if LORA_LAYERS.iter().any(|l| layer.ends_with(l)) {
                plan_lora(&mut claims, names, layer, &spec.shape, lora, plan)?;
            }
        }
    }
    if names.has_qformer() {
        for (spec, name) in of_part(specs, "captioner.") {
            // The norm over the ViT's output was never trained and stays BLIP-2's.
            if !name.starts_with("ln_vision.") {
                plan.set(&spec.name, Recipe::Copy(claims.take(name, &spec.shape)?));
            }
        }
    }
    claims.ignore(|name| name == POSITION_IDS);
    claims.finish()
}

fn plan_lora(
    claims: &mut Claims<'_>,
    names: &StageNames,
    layer: &str,
    shape: &[usize],
    lora: LoraUse,
    plan: &mut Plan,
) -> Result<()> {
    let mut take = |factor: &str, shape: &[usize]| -> Result<TensorRef> {
        claims.take(&names.published(&format!("{layer}.{factor}.weight")), shape)
    };
    let a = take("lora_A", &[lora.rank, shape[1]])?;
    let b = take("lora_B", &[shape[0], lora.rank])?;
    let target = format!("language.{layer}");
    if lora.keep {
        plan.set(format!("{target}.lora_A.weight"), Recipe::Copy(a));
        plan.set(format!("{target}.lora_B.weight"), Recipe::Copy(b));
    } else {
        let merge = Merge { a, b, rank: lora.rank, scale: lora.scale as f32 };
        plan.merge(format!("{target}.weight"), merge);
    }
    Ok(())
}
