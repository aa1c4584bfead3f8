//! Phi-2 in its three published layouts.

use std::sync::Arc;

use super::checkpoint::Checkpoint;
use super::error::{ImportError, Result};
use super::recipe::{Claims, Plan, Recipe};
use super::vit::of_part;
use crate::model::bundle::{Role, TensorSpec};
use crate::model::config::LanguageConfig;

/// How the files name and order what attention reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PhiLayout {
    /// `query_key_value`, rows `[head][q|k|v][head_dim]`: what TinyGPT-V was trained with.
    Fused,
    /// `q_proj`, `k_proj`, `v_proj`: microsoft/phi-2 since January 2024.
    Split,
    /// `Wqkv`, rows `[q|k|v][head][head_dim]`: microsoft/phi-2 before.
    Msft,
}

impl PhiLayout {
    /// Tells the layouts by how they name what attention reads.
    pub(super) fn of(checkpoint: &Checkpoint) -> Result<Self> {
        for (layout, part) in
            [(Self::Fused, ".query_key_value."), (Self::Split, ".q_proj."), (Self::Msft, ".Wqkv.")]
        {
            if checkpoint.names().any(|name| name.contains(part)) {
                return Ok(layout);
            }
        }
        let what = "it is no Phi-2 in a known layout: its layers have none of `query_key_value`, \
                    `q_proj` and `Wqkv`";
        Err(ImportError::format(checkpoint.path(), what))
    }

    /// Name of the token table.
    pub(super) fn tokens(self) -> &'static str {
        match self {
            Self::Fused | Self::Split => "model.embed_tokens.weight",
            Self::Msft => "transformer.embd.wte.weight",
        }
    }
}

/// Plans the language part without its projections and `LoRA`: the norms that Phi-2 does not
/// have begin as ones and zeros.
pub(super) fn plan(
    checkpoint: &Arc<Checkpoint>,
    layout: PhiLayout,
    config: &LanguageConfig,
    specs: &[TensorSpec],
    plan: &mut Plan,
) -> Result<()> {
    let mut claims = Claims::new(checkpoint);
    for (spec, name) in of_part(specs, "language.") {
        if spec.role == Role::Lora || is_projection(name) {
            continue;
        }
        let recipe = if is_extra_norm(name) {
            match claims.take_if_there(name, &spec.shape)? {
                Some(tensor) => Recipe::Copy(tensor),
                None => Recipe::Fill(if spec.role == Role::Norm { 1.0 } else { 0.0 }),
            }
        } else if layout == PhiLayout::Split && name.contains("query_key_value") {
            let mut shape = spec.shape.clone();
            shape[0] = config.hidden;
            let mut part = |letter: char| {
                let name = name.replace("query_key_value", &format!("{letter}_proj"));
                claims.take(&name, &shape)
            };
            let parts = [part('q')?, part('k')?, part('v')?];
            Recipe::FuseHeads { parts, heads: config.heads }
        } else if layout == PhiLayout::Msft {
            let tensor = claims.take(&msft_name(name), &spec.shape)?;
            if name.contains("query_key_value") {
                Recipe::RegroupHeads { fused: tensor, heads: config.heads }
            } else {
                Recipe::Copy(tensor)
            }
        } else {
            Recipe::Copy(claims.take(name, &spec.shape)?)
        };
        plan.set(&spec.name, recipe);
    }
    // A buffer that follows from the configuration; some versions saved it.
    claims.ignore(|name| name.ends_with(".rotary_emb.inv_freq"));
    claims.finish()
}

/// Whether a checkpoint, not Phi-2, holds it: between the Q-Former and the language model.
pub(super) fn is_projection(name: &str) -> bool {
    name.starts_with("llama_proj.") || name.starts_with("llama_proj2.")
}

/// Whether it belongs to one of the norms that TinyGPT-V added.
pub(super) fn is_extra_norm(name: &str) -> bool {
    ["q_layernorm.", "k_layernorm.", "post_layernorm."].iter().any(|norm| name.contains(norm))
}

fn msft_name(name: &str) -> String {
    if let Some((index, rest)) = name.strip_prefix("model.layers.").and_then(|n| n.split_once('.'))
    {
        let rest = rest
            .replace("input_layernorm", "ln")
            .replace("self_attn.query_key_value", "mixer.Wqkv")
            .replace("self_attn.dense", "mixer.out_proj");
        return format!("transformer.h.{index}.{rest}");
    }
    match name {
        "model.embed_tokens.weight" => "transformer.embd.wte.weight".to_owned(),
        _ => name
            .replace("model.final_layernorm", "lm_head.ln")
            .replace("lm_head.weight", "lm_head.linear.weight")
            .replace("lm_head.bias", "lm_head.linear.bias"),
    }
}
