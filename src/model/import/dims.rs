//! Sizes that tensor shapes cannot tell.

use std::path::Path;

use serde::Deserialize;

use super::error::{ImportError, Result};
use crate::model::config::{LanguageConfig, QFormerConfig, VisionConfig};

/// Sizes of a model, by default those of the published one.
///
/// As JSON: `{"vit": {"dim", "depth", "heads"}, "qf": {"hidden", "layers", "heads", "inter"},
/// "phi": {"hidden", "layers", "heads", "inter"}, "mid", "lora": [r, alpha], "proj"}`; what is
/// left out keeps its default (but `proj`), other keys are ignored. Both Q-Formers have the sizes of
/// `qf`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct Dims {
    /// The ViT.
    pub vit: VitDims,
    /// The Q-Formers.
    pub qf: LayerDims,
    /// Phi-2.
    pub phi: PhiDims,
    /// Width between the two projections.
    pub mid: usize,
    /// Rank and alpha of `LoRA`: its factor is `alpha / rank`.
    pub lora: (usize, f64),
    /// Length of a retrieval feature; where a file of sizes leaves it out, the shape of the
    /// checkpoint's projection tells it.
    #[serde(default = "Option::default")]
    pub proj: Option<usize>,
}

/// Sizes of the ViT.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct VitDims {
    /// Width of a token.
    pub dim: usize,
    /// Blocks in use.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
}

/// Sizes of the Q-Formers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LayerDims {
    /// Width of a token.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Hidden width of the feed-forward part.
    pub inter: usize,
}

/// Sizes of Phi-2.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PhiDims {
    /// Width of a token.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Hidden width of the MLP.
    pub inter: usize,
}

impl Default for Dims {
    fn default() -> Self {
        let mid = LanguageConfig::phi2().projection_mid;
        let (vit, qf, phi) = (VitDims::default(), LayerDims::default(), PhiDims::default());
        Self { vit, qf, phi, mid, lora: (64, 16.0), proj: Some(256) }
    }
}

impl Default for VitDims {
    fn default() -> Self {
        let VisionConfig { width, depth, heads, .. } = VisionConfig::vit_g();
        Self { dim: width, depth, heads }
    }
}

impl Default for LayerDims {
    fn default() -> Self {
        let QFormerConfig { hidden, layers, heads, intermediate, .. } = QFormerConfig::blip2(224);
        Self { hidden, layers, heads, inter: intermediate }
    }
}

impl Default for PhiDims {
    fn default() -> Self {
        let LanguageConfig { hidden, layers, heads, intermediate, .. } = LanguageConfig::phi2();
        Self { hidden, layers, heads, inter: intermediate }
    }
}

impl Dims {
    /// Reads them from a JSON file, at its top or under the key `dims`.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or is not of that form.
    pub fn read(path: &Path) -> Result<Self> {
        let broken = |e: serde_json::Error| {
            ImportError::format(path, format!("these are no sizes of a model: {e}"))
        };
        let text = std::fs::read_to_string(path).map_err(|e| ImportError::io(path, e))?;
        let mut json: serde_json::Value = serde_json::from_str(&text).map_err(broken)?;
        if let Some(nested) = json.get_mut("dims") {
            json = nested.take();
        }
        serde_json::from_value(json).map_err(broken)
    }

    pub(super) fn vision(&self, train_size: usize) -> VisionConfig {
        let VitDims { dim, depth, heads } = self.vit;
        // LAVIS writes `int(dim * mlp_ratio)` with this ratio.
        let mlp = (dim as f64 * 4.3637) as usize;
        VisionConfig { width: dim, depth, heads, mlp, train_size, ..VisionConfig::vit_g() }
    }

    pub(super) fn qformer(&self, queries: usize, image_size: usize) -> QFormerConfig {
        let LayerDims { hidden, layers, heads, inter } = self.qf;
        QFormerConfig {
            hidden,
            layers,
            heads,
            intermediate: inter,
            queries,
            ..QFormerConfig::blip2(image_size)
        }
    }

    pub(super) fn language(&self, vocabulary: usize) -> LanguageConfig {
        let PhiDims { hidden, layers, heads, inter } = self.phi;
        // `partial_rotary_factor` of Phi-2, rounded down as the reference does.
        let rotary = (0.4 * (hidden / heads.max(1)) as f64) as usize;
        LanguageConfig {
            projection_mid: self.mid,
            vocabulary,
            hidden,
            layers,
            heads,
            intermediate: inter,
            rotary,
            ..LanguageConfig::phi2()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Dims> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), json).unwrap();
        Dims::read(file.path())
    }

    #[test]
    fn what_is_left_out_is_as_published() {
        assert_eq!(read("{}").unwrap(), Dims { proj: None, ..Dims::default() });
        let dims =
            read(r#"{"vit": {"dim": 64}, "lora": [8, 2], "seed": 1, "img": ["L"]}"#).unwrap();
        assert_eq!((dims.vit.dim, dims.vit.depth, dims.lora), (64, 39, (8, 2.0)));
    }

    #[test]
    fn sizes_may_stand_under_their_own_key() {
        assert_eq!(read(r#"{"case": "a1", "dims": {"mid": 96}}"#).unwrap().mid, 96);
    }

    #[test]
    fn derived_sizes_are_those_of_the_published_model() {
        let dims = Dims::default();
        assert_eq!(dims.vision(224), VisionConfig::vit_g());
        assert_eq!(dims.qformer(32, 224), QFormerConfig::blip2(224));
        assert_eq!(dims.language(51200), LanguageConfig::phi2());
    }

    #[test]
    fn a_file_of_another_form_is_refused_by_name() {
        let error = read(r#"{"vit": {"dim": "wide"}}"#).unwrap_err().to_string();
        assert!(error.contains("no sizes of a model"), "{error}");
    }
}
