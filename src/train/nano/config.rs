//! Sizes of `nano`.

use crate::model::config::{
    Config, LanguageConfig, Norms, QFormerConfig, RetrievalConfig, VisionConfig,
};

/// Side of a picture in pixels.
pub const IMAGE_SIZE: usize = 112;

/// The configuration of `nano` for a WordPiece vocabulary of `words` and a BPE vocabulary of
/// `tokens`.
///
/// Its checkpoint counts as stage 4: the short `[INST]` template fits its short sentences. The
/// Q-Formers are narrow and deep: a word has to find its thing, and what was found has to be
/// compared with the next word, each a layer after the last look at the picture.
pub fn nano(words: usize, tokens: usize) -> Config {
    let qformer = QFormerConfig {
        hidden: 128,
        layers: 6,
        heads: 4,
        intermediate: 256,
        queries: 16,
        image_size: IMAGE_SIZE,
        eps: 1e-12,
        ln_vision_eps: 1e-5,
    };
    Config {
        vision: Some(VisionConfig {
            width: 128,
            depth: 5,
            heads: 4,
            mlp: 512,
            patch: 14,
            train_size: IMAGE_SIZE,
            eps: 1e-6,
        }),
        captioner: Some(qformer.clone()),
        retrieval: Some(RetrievalConfig {
            qformer,
            vocabulary: words,
            positions: 64,
            projection: 64,
            max_text: 64,
        }),
        language: Some(LanguageConfig {
            projection_mid: 256,
            vocabulary: tokens,
            hidden: 128,
            layers: 6,
            heads: 4,
            intermediate: 512,
            rotary: 12,
            rope_theta: 10_000.0,
            max_positions: 512,
            eps: 1e-5,
            rms_eps: 1e-6,
            lora_scale: None,
            lora_rank: None,
            norms: Norms::default(),
        }),
        stage: 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::bundle::tensors_of;

    #[test]
    fn nano_is_sound_and_has_fewer_than_6_million_weights() {
        let config = nano(400, 800);
        config.check().unwrap();
        let sizes = tensors_of(&config).into_iter().map(|t| t.shape.iter().product::<usize>());
        let weights: usize = sizes.sum();
        assert!((4_000_000..6_000_000).contains(&weights), "{weights}");
    }
}
