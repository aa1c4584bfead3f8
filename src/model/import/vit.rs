//! EVA ViT-g: `eva_vit_g.pth`, or the copy inside a BLIP-2 file.

use std::sync::Arc;

use super::checkpoint::Checkpoint;
use super::error::Result;
use super::recipe::{Claims, Plan, Recipe};
use crate::model::bundle::TensorSpec;
use crate::model::config::VisionConfig;

/// Plans the ViT from its own file.
///
/// Blocks behind the last one in use, the last norm and the classifier are left out, as BLIP-2
/// leaves them out.
pub(super) fn plan(
    checkpoint: &Arc<Checkpoint>,
    config: &VisionConfig,
    specs: &[TensorSpec],
    plan: &mut Plan,
) -> Result<()> {
    let mut claims = Claims::new(checkpoint);
    for (name, tensor) in take(&mut claims, config, specs, "")? {
        plan.set(name, tensor);
    }
    claims.ignore(|name| {
        matches!(name, "norm.weight" | "norm.bias" | "head.weight" | "head.bias")
            || is_unused_block(name, config.depth)
    });
    claims.finish()
}

/// Takes the ViT's tensors, by EVA's names behind `prefix`, and says what they are for.
pub(super) fn take(
    claims: &mut Claims<'_>,
    config: &VisionConfig,
    specs: &[TensorSpec],
    prefix: &str,
) -> Result<Vec<(String, Recipe)>> {
    let mut taken = Vec::new();
    for (spec, name) in of_part(specs, "vit.") {
        let shape = published_shape(spec, config);
        let tensor = claims.take(&format!("{prefix}{name}"), &shape)?;
        taken.push((spec.name.clone(), Recipe::Copy(tensor)));
    }
    Ok(taken)
}

/// Takes the ViT's tensors by the names of Hugging Face's `Blip2VisionModel`.
pub(super) fn take_hugging_face(
    claims: &mut Claims<'_>,
    config: &VisionConfig,
    specs: &[TensorSpec],
) -> Result<Vec<(String, Recipe)>> {
    let mut taken = Vec::new();
    for (spec, name) in of_part(specs, "vit.") {
        let third = match name.rsplit('.').next() {
            Some("q_bias") => Some(0),
            Some("v_bias") => Some(2),
            _ => None,
        };
        let name = format!("vision_model.{}", hugging_face_name(name));
        let recipe = if let Some(index) = third {
            let of = claims.take(&name, &[3 * config.width])?;
            Recipe::Third { of, index }
        } else {
            Recipe::Copy(claims.take(&name, &published_shape(spec, config))?)
        };
        taken.push((spec.name.clone(), recipe));
    }
    Ok(taken)
}

/// The specs of a part, with their names behind its prefix.
pub(super) fn of_part<'a>(
    specs: &'a [TensorSpec],
    prefix: &str,
) -> impl Iterator<Item = (&'a TensorSpec, &'a str)> {
    specs.iter().filter_map(move |spec| Some((spec, spec.name.strip_prefix(prefix)?)))
}

/// A bundle holds the patch embedding as a matrix, the files as a convolution's kernel.
fn published_shape(spec: &TensorSpec, config: &VisionConfig) -> Vec<usize> {
    if spec.name == "vit.patch_embed.proj.weight" {
        vec![config.width, 3, config.patch, config.patch]
    } else {
        spec.shape.clone()
    }
}

fn is_unused_block(name: &str, depth: usize) -> bool {
    let Some((index, rest)) = name.strip_prefix("blocks.").and_then(|n| n.split_once('.')) else {
        return false;
    };
    index.parse::<usize>().is_ok_and(|i| i >= depth)
        && ["norm1.", "norm2.", "attn.", "mlp."].iter().any(|layer| rest.starts_with(layer))
}

fn hugging_face_name(name: &str) -> String {
    let Some((index, rest)) = name.strip_prefix("blocks.").and_then(|n| n.split_once('.')) else {
        return match name {
            "cls_token" => "embeddings.class_embedding".to_owned(),
            "pos_embed" => "embeddings.position_embedding".to_owned(),
            _ => name.replace("patch_embed.proj", "embeddings.patch_embedding"),
        };
    };
    let rest = match rest {
        "attn.q_bias" | "attn.v_bias" => "self_attn.qkv.bias".to_owned(),
        _ => rest
            .replace("norm1", "layer_norm1")
            .replace("norm2", "layer_norm2")
            .replace("attn.proj", "self_attn.projection")
            .replace("attn.qkv", "self_attn.qkv"),
    };
    format!("encoder.layers.{index}.{rest}")
}
