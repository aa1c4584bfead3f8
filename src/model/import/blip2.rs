//! The two Q-Formers: `blip2_pretrained_flant5xxl.pth` for captions, and for retrieval
//! `blip2_pretrained.pth` of LAVIS or Hugging Face's `Blip2ForImageTextRetrieval`.

use std::sync::Arc;

use super::checkpoint::Checkpoint;
use super::error::{ImportError, Result};
use super::recipe::{Claims, Plan, Recipe};
use super::vit::{self, of_part};
use crate::model::bundle::TensorSpec;
use crate::model::config::VisionConfig;

/// A buffer, `0, 1, 2, ..`, that the reference saves with its weights.
pub(super) const POSITION_IDS: &str = "Qformer.bert.embeddings.position_ids";

/// Who wrote a retrieval file, which decides its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RetrievalLayout {
    Lavis,
    HuggingFace,
}

impl RetrievalLayout {
    /// Tells the two by how they name the Q-Former.
    pub(super) fn of(checkpoint: &Checkpoint) -> Result<Self> {
        for (layout, prefix) in [(Self::Lavis, "Qformer."), (Self::HuggingFace, "qformer.")] {
            if checkpoint.names().any(|name| name.starts_with(prefix)) {
                return Ok(layout);
            }
        }
        let what = "it is no BLIP-2 model: it has neither `Qformer.*` (LAVIS) nor `qformer.*` \
                    (Hugging Face)";
        Err(ImportError::format(checkpoint.path(), what))
    }

    /// Whether the file holds a ViT.
    pub(super) fn holds_vit(self, checkpoint: &Checkpoint) -> bool {
        let inside = match self {
            Self::Lavis => ["visual_encoder.", "visual_encoder."],
            Self::HuggingFace => ["vision_model.embeddings.", "vision_model.encoder."],
        };
        checkpoint.names().any(|name| inside.iter().any(|prefix| name.starts_with(prefix)))
    }

    /// Name of its table of words.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Lavis => "Qformer.bert.embeddings.word_embeddings.weight",
            Self::HuggingFace => "embeddings.word_embeddings.weight",
        }
    }

    /// Name of its table of positions.
    pub(super) fn positions(self) -> &'static str {
        match self {
            Self::Lavis => "Qformer.bert.embeddings.position_embeddings.weight",
            Self::HuggingFace => "embeddings.position_embeddings.weight",
        }
    }

    /// Name of the weight that gives text features.
    pub(super) fn text_projection(self, checkpoint: &Checkpoint) -> String {
        match self {
            Self::Lavis => "text_proj.weight".to_owned(),
            Self::HuggingFace => hugging_face_name("text_proj.weight", checkpoint),
        }
    }

    /// Name of the positions of the ViT inside.
    pub(super) fn vit_positions(self) -> &'static str {
        match self {
            Self::Lavis => "visual_encoder.pos_embed",
            Self::HuggingFace => "vision_model.embeddings.position_embedding",
        }
    }

    /// Epsilon of the norm over the ViT's output: the two differ in nothing else.
    pub(super) fn ln_vision_eps(self) -> f64 {
        match self {
            Self::Lavis => 1e-5,
            Self::HuggingFace => 1e-6,
        }
    }
}

/// Plans the captioning Q-Former; the projection to T5 is left out.
pub(super) fn plan_captioner(
    checkpoint: &Arc<Checkpoint>,
    specs: &[TensorSpec],
    plan: &mut Plan,
) -> Result<()> {
    let mut claims = Claims::new(checkpoint);
    for (spec, name) in of_part(specs, "captioner.") {
        plan.set(&spec.name, Recipe::Copy(claims.take(name, &spec.shape)?));
    }
    claims.ignore(|name| matches!(name, POSITION_IDS | "t5_proj.weight" | "t5_proj.bias"));
    claims.finish()
}

/// Plans the retrieval Q-Former, and the ViT from the same file unless it has a recipe; then
/// the file's own is only checked for its shapes.
pub(super) fn plan_retrieval(
    checkpoint: &Arc<Checkpoint>,
    layout: RetrievalLayout,
    vision: &VisionConfig,
    specs: &[TensorSpec],
    plan: &mut Plan,
) -> Result<()> {
    let mut claims = Claims::new(checkpoint);
    for (spec, name) in of_part(specs, "retrieval.") {
        let tensor = match (name, layout) {
            // A scalar in the file; it only divided the loss in training.
            ("temp", RetrievalLayout::Lavis) => claims.take_if_there(name, &[])?,
            ("temp", RetrievalLayout::HuggingFace) => None,
            (_, RetrievalLayout::Lavis) => Some(claims.take(name, &spec.shape)?),
            (_, RetrievalLayout::HuggingFace) => {
                let name = hugging_face_name(name, checkpoint);
                Some(claims.take(&name, &spec.shape)?)
            }
        };
        if let Some(tensor) = tensor {
            plan.set(&spec.name, Recipe::Copy(tensor));
        }
    }
    if layout.holds_vit(checkpoint) {
        let own = match layout {
            RetrievalLayout::Lavis => vit::take(&mut claims, vision, specs, "visual_encoder.")?,
            RetrievalLayout::HuggingFace => vit::take_hugging_face(&mut claims, vision, specs)?,
        };
        for (target, recipe) in own {
            if !plan.contains(&target) {
                plan.set(target, recipe);
            }
        }
    }
    // Heads for predicting words, and buffers.
    claims.ignore(|name| match layout {
        RetrievalLayout::Lavis => {
            name == POSITION_IDS || name.starts_with("Qformer.cls.predictions.")
        }
        RetrievalLayout::HuggingFace => name == "embeddings.position_ids",
    });
    claims.finish()
}

fn hugging_face_name(name: &str, checkpoint: &Checkpoint) -> String {
    if let Some(rest) = name.strip_prefix("ln_vision.") {
        return format!("vision_model.post_layernorm.{rest}");
    }
    if let Some(rest) = name.strip_prefix("Qformer.bert.embeddings.") {
        return match rest.strip_prefix("LayerNorm.") {
            Some(rest) => format!("qformer.layernorm.{rest}"),
            None => format!("embeddings.{rest}"),
        };
    }
    if let Some(rest) = name.strip_prefix("Qformer.bert.") {
        return format!("qformer.{}", rest.replace("attention.self.", "attention.attention."));
    }
    for side in ["vision", "text"] {
        if let Some(rest) = name.strip_prefix(&format!("{side}_proj.")) {
            // The first upload kept LAVIS' names.
            let first = checkpoint.contains(&format!("{side}_proj.weight"));
            let suffix = if first { "proj" } else { "projection" };
            return format!("{side}_{suffix}.{rest}");
        }
    }
    name.to_owned()
}
