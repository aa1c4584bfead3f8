//! Sizes of the network: one [`Config`] for TinyGPT-V, its test cases and its small relatives.
//!
//! What tensor shapes cannot tell (heads, LoRA scale, epsilons) stands here; everything in a
//! bundle is checked against it when it is read.

use serde::{Deserialize, Serialize};

/// Sizes of every part of a model; `None` for a part that a bundle does not hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// EVA ViT, shared by both Q-Formers.
    pub vision: Option<VisionConfig>,
    /// Captioning Q-Former and its `ln_vision`.
    pub captioner: Option<QFormerConfig>,
    /// Retrieval Q-Former with its text side.
    pub retrieval: Option<RetrievalConfig>,
    /// The two projections and Phi-2.
    pub language: Option<LanguageConfig>,
    /// Training stage of the TinyGPT-V checkpoint, 1 to 4.
    pub stage: u8,
}

/// EVA ViT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VisionConfig {
    /// Width of a token.
    pub width: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Hidden width of the MLP: `int(width * 4.3637)`.
    pub mlp: usize,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Side in pixels of the pictures that `pos_embed` was trained for.
    pub train_size: usize,
    /// Epsilon of the block norms.
    pub eps: f64,
}

/// A Q-Former as TinyGPT-V uses it: queries only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QFormerConfig {
    /// Width of a token.
    pub hidden: usize,
    /// Layers; the even ones look at the picture.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Hidden width of the feed-forward part.
    pub intermediate: usize,
    /// Learned queries.
    pub queries: usize,
    /// Side in pixels of the pictures this Q-Former is fed: 224, or 448 for stage 4.
    pub image_size: usize,
    /// Epsilon of the norms.
    pub eps: f64,
    /// Epsilon of the norm over the ViT's output.
    pub ln_vision_eps: f64,
}

/// The retrieval Q-Former.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetrievalConfig {
    /// Its image side.
    pub qformer: QFormerConfig,
    /// Rows of the word table, `[DEC]` included.
    pub vocabulary: usize,
    /// Rows of the position table.
    pub positions: usize,
    /// Length of an image or text feature.
    pub projection: usize,
    /// Most tokens of a text, `[CLS]` and `[SEP]` included.
    pub max_text: usize,
}

/// The two projections and Phi-2 with its extra norms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LanguageConfig {
    /// Width between the two projections.
    pub projection_mid: usize,
    /// Rows of the token table and of the head.
    pub vocabulary: usize,
    /// Width of a token.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Hidden width of the MLP.
    pub intermediate: usize,
    /// Rotated dimensions of a head: `int(0.4 * head_dim)`.
    pub rotary: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Longest sequence.
    pub max_positions: usize,
    /// Epsilon of the layer norms.
    pub eps: f64,
    /// Epsilon of the RMS norm after attention.
    pub rms_eps: f64,
    /// Where LoRA is kept beside the weights: its factor `alpha / r`.
    pub lora_scale: Option<f64>,
    /// Where LoRA is kept beside the weights: its rank `r`.
    #[serde(default)]
    pub lora_rank: Option<usize>,
    /// Which norms a layer has.
    #[serde(default)]
    pub norms: Norms,
}

/// The three normalisations of a language layer that TinyGPT-V's article names. All are there
/// but in experiments that show what each is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Norms {
    /// Layer norm of what attention and MLP read.
    pub input: bool,
    /// RMS norm of what attention gives.
    pub post: bool,
    /// Layer norms of queries and keys over the width of a head.
    pub query_key: bool,
}

impl Default for Norms {
    fn default() -> Self {
        Self { input: true, post: true, query_key: true }
    }
}

/// Longest side of a picture that a model may ask for, in pixels.
const MOST_PIXELS: usize = 4096;
/// Longest sequence that a model may ask for, in tokens.
const MOST_POSITIONS: usize = 65_536;

impl Config {
    /// Checks that the sizes fit each other and are such that nothing computed from them
    /// overflows; configurations come from files.
    ///
    /// # Errors
    ///
    /// A sentence that names the first size that cannot be.
    pub fn check(&self) -> Result<(), String> {
        if let Some(c) = &self.vision {
            sizes(&[
                ("vision width", c.width),
                ("vision mlp", c.mlp),
                ("patch", c.patch),
                ("train size", c.train_size),
            ])?;
            positive("vision epsilon", &[c.eps])?;
            layers("vision depth", c.depth)?;
            heads("vision", c.width, c.heads)?;
            if !c.train_size.is_multiple_of(c.patch) {
                return Err(format!("{} px are no whole number of patches", c.train_size));
            }
        }
        let qformers = [self.captioner.as_ref(), self.retrieval.as_ref().map(|r| &r.qformer)];
        for c in qformers.into_iter().flatten() {
            sizes(&[
                ("Q-Former hidden", c.hidden),
                ("Q-Former intermediate", c.intermediate),
                ("queries", c.queries),
                ("image size", c.image_size),
            ])?;
            layers("Q-Former layers", c.layers)?;
            heads("Q-Former", c.hidden, c.heads)?;
            positive("Q-Former epsilons", &[c.eps, c.ln_vision_eps])?;
            let Some(vision) = &self.vision else {
                return Err("a Q-Former needs a vision part".to_owned());
            };
            if c.image_size > MOST_PIXELS || !c.image_size.is_multiple_of(vision.patch) {
                return Err(format!(
                    "pictures of {} px: at most {MOST_PIXELS}, a multiple of {}",
                    c.image_size, vision.patch
                ));
            }
        }
        if let Some(c) = &self.retrieval {
            sizes(&[
                ("vocabulary", c.vocabulary),
                ("positions", c.positions),
                ("projection", c.projection),
                ("longest text", c.max_text),
            ])?;
            if c.max_text < 2 || c.max_text > c.positions {
                return Err(format!("texts of {} tokens: 2 to {}", c.max_text, c.positions));
            }
        }
        if let Some(c) = &self.language {
            sizes(&[
                ("projection_mid", c.projection_mid),
                ("vocabulary", c.vocabulary),
                ("language hidden", c.hidden),
                ("language intermediate", c.intermediate),
                ("positions", c.max_positions),
            ])?;
            positive("language epsilons", &[c.eps, c.rms_eps, c.rope_theta])?;
            if c.max_positions > MOST_POSITIONS {
                return Err(format!("{} positions: at most {MOST_POSITIONS}", c.max_positions));
            }
            layers("language layers", c.layers)?;
            heads("language", c.hidden, c.heads)?;
            if c.rotary > c.head_dim() || c.rotary % 2 == 1 {
                return Err(format!("{} of {} dimensions cannot turn", c.rotary, c.head_dim()));
            }
            if let Some(rank) = c.lora_rank {
                sizes(&[("LoRA rank", rank)])?;
            }
            if c.lora_rank.is_some() != c.lora_scale.is_some() {
                return Err("LoRA needs a rank and a scale".to_owned());
            }
            if self.captioner.is_none() {
                return Err("a language part needs a captioner".to_owned());
            }
        }
        if !(1..=4).contains(&self.stage) {
            return Err(format!("stage {} is not one of 1 to 4", self.stage));
        }
        Ok(())
    }
}

/// Checks numbers that are divided by or under a root.
fn positive(what: &str, values: &[f64]) -> Result<(), String> {
    match values.iter().find(|value| !(value.is_finite() && **value > 0.0)) {
        Some(value) => Err(format!("{what} cannot be {value}")),
        None => Ok(()),
    }
}

/// Every size lies in `1..=2^24`, so that products of two fit well into 64 bits.
fn sizes(named: &[(&str, usize)]) -> Result<(), String> {
    match named.iter().find(|(_, n)| !(1..=1 << 24).contains(n)) {
        Some((name, n)) => Err(format!("{name} of {n} cannot be")),
        None => Ok(()),
    }
}

fn layers(name: &str, n: usize) -> Result<(), String> {
    if n <= 1024 { Ok(()) } else { Err(format!("{name} of {n} cannot be")) }
}

fn heads(name: &str, width: usize, heads: usize) -> Result<(), String> {
    if heads > 0 && width.is_multiple_of(heads) {
        return Ok(());
    }
    Err(format!("{name} width {width} does not divide into {heads} heads"))
}

impl VisionConfig {
    /// Width of an attention head.
    pub fn head_dim(&self) -> usize {
        self.width / self.heads
    }

    /// Tokens of a square picture with sides of `size` pixels: the class token and the patches.
    pub fn tokens(&self, size: usize) -> usize {
        1 + (size / self.patch).pow(2)
    }

    /// EVA-CLIP ViT-g/14 as published: 39 of its blocks are used.
    pub fn vit_g() -> Self {
        Self { width: 1408, depth: 39, heads: 16, mlp: 6144, patch: 14, train_size: 224, eps: 1e-6 }
    }
}

impl QFormerConfig {
    /// BLIP-2's Q-Former as published, for pictures of `image_size` pixels.
    pub fn blip2(image_size: usize) -> Self {
        Self {
            hidden: 768,
            layers: 12,
            heads: 12,
            intermediate: 3072,
            queries: 32,
            image_size,
            eps: 1e-12,
            ln_vision_eps: 1e-5,
        }
    }

    /// Width of an attention head.
    pub fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }

    /// Whether layer `i` looks at the picture.
    pub fn has_cross_attention(i: usize) -> bool {
        i.is_multiple_of(2)
    }
}

impl LanguageConfig {
    /// Width of an attention head.
    pub fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }

    /// Phi-2 as published.
    pub fn phi2() -> Self {
        Self {
            projection_mid: 4096,
            vocabulary: 51200,
            hidden: 2560,
            layers: 32,
            heads: 32,
            intermediate: 10240,
            rotary: 32,
            rope_theta: 10000.0,
            max_positions: 2048,
            eps: 1e-5,
            rms_eps: 1e-6,
            lora_scale: None,
            lora_rank: None,
            norms: Norms::default(),
        }
    }
}

/// Side in pixels of the pictures that a TinyGPT-V stage looks at.
pub fn image_size_of_stage(stage: u8) -> usize {
    if stage == 4 { 448 } else { 224 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_written_before_norms_could_be_left_out_has_them_all() {
        let mut json = serde_json::to_value(LanguageConfig::phi2()).unwrap();
        json.as_object_mut().unwrap().remove("norms").unwrap();
        let read: LanguageConfig = serde_json::from_value(json).unwrap();
        assert_eq!(read, LanguageConfig::phi2());
        assert!(read.norms.input && read.norms.post && read.norms.query_key);
    }
}
