//! The stages: what is trained in each, and the published numbers.
//!
//! | stage | what learns | what it learns from |
//! |---|---|---|
//! | 0 | ViT and retrieval Q-Former | pictures with captions: ITC, ITM, ITG |
//! | language | the language model alone | text |
//! | 1 warm-up | projections, weights of the norms | pictures with captions |
//! | 2 pre-training | as 1, and LoRA | the same |
//! | 3 instruction | as 2 | few, well-written captions |
//! | 4 multi-task | as 2 | questions of many kinds, at 448 px |
//!
//! Sources: TinyGPT-V (Yuan et al., 2023) and its `train_configs`; BLIP-2 (Li et al., 2023) for
//! stage 0. TinyGPT-V starts from Phi-2 and BLIP-2 as others trained them: the stages `0` and
//! `language` make that for a model of one's own.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{
    AdamW, Schedule,
    peft::{Additions, Peft},
};

/// A stage of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Stage 0: vision and retrieval.
    Retrieval,
    /// The language model on text.
    Language,
    /// Stage 1.
    WarmUp,
    /// Stage 2.
    Pretraining,
    /// Stage 3.
    Instruction,
    /// Stage 4.
    MultiTask,
}

/// How a stage was trained.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// The optimiser.
    pub adam: AdamW,
    /// The learning rates; one run over `schedule.total` steps.
    pub schedule: Schedule,
    /// Pictures (texts, for the language model) of a step.
    pub batch: usize,
    /// How many runs follow each other, each with the same schedule.
    pub runs: usize,
    /// What is trained beside frozen weights.
    pub peft: Peft,
}

impl Stage {
    /// Every stage, in the order in which they follow each other.
    pub const ALL: [Self; 6] = [
        Self::Retrieval,
        Self::Language,
        Self::WarmUp,
        Self::Pretraining,
        Self::Instruction,
        Self::MultiTask,
    ];

    /// The name that a person writes: `0`, `language`, `1` to `4`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Retrieval => "0",
            Self::Language => "language",
            Self::WarmUp => "1",
            Self::Pretraining => "2",
            Self::Instruction => "3",
            Self::MultiTask => "4",
        }
    }

    /// What the stage is, in a word or two.
    pub fn title(self) -> &'static str {
        match self {
            Self::Retrieval => "vision and retrieval",
            Self::Language => "language model",
            Self::WarmUp => "warm-up",
            Self::Pretraining => "pre-training",
            Self::Instruction => "instruction tuning",
            Self::MultiTask => "multi-task learning",
        }
    }

    /// The stage that a bundle's [`Config`](crate::model::config::Config) names after this one,
    /// 1 to 4; those of the parts that come before have none.
    pub fn number(self) -> Option<u8> {
        match self {
            Self::Retrieval | Self::Language => None,
            Self::WarmUp => Some(1),
            Self::Pretraining => Some(2),
            Self::Instruction => Some(3),
            Self::MultiTask => Some(4),
        }
    }

    /// Whether the tensor `name`, full as in a bundle, is trained.
    ///
    /// In stages 1 to 4 the norms learn their weights and not their biases, as published. What a
    /// stage's [`Peft`] adds is trained from stage 2 on.
    pub fn trains(self, name: &str) -> bool {
        let Some(inside) = name.strip_prefix("language.") else {
            let seen = name.starts_with("vit.") || name.starts_with("retrieval.");
            return self == Self::Retrieval && seen;
        };
        let projection = inside.starts_with("llama_proj");
        match self {
            Self::Retrieval => false,
            Self::Language => !projection && !inside.contains(".lora_"),
            Self::WarmUp => projection || is_norm_weight(inside),
            Self::Pretraining | Self::Instruction | Self::MultiTask => {
                projection || is_norm_weight(inside) || inside.contains(".lora_")
            }
        }
    }

    /// The published recipe.
    ///
    /// Stage 0 is that of BLIP-2's article for ViT-g, with the last rate of LAVIS' file, which
    /// the article does not give. Nobody published one for a language model this small; its
    /// numbers are those that tinyfind's own model is trained with. Stage 4 drew 1 to 3 pictures
    /// a step, by data set; its rate rises, as in the published file.
    pub fn published(self) -> Recipe {
        let rates = |peak, end, warmup, total| Schedule { start: 1e-6, peak, end, warmup, total };
        let adam = AdamW::default();
        let lora = || Peft::Lora(Additions::default());
        let recipe =
            |adam, schedule, batch, runs, peft| Recipe { adam, schedule, batch, runs, peft };
        match self {
            Self::Retrieval => {
                let adam = AdamW { beta2: 0.98, ..adam };
                recipe(adam, rates(1e-4, 1e-5, 2_000, 250_000), 1_680, 1, Peft::None)
            }
            Self::Language => {
                let adam = AdamW { beta2: 0.99, weight_decay: 0.02, max_norm: Some(1.0), ..adam };
                recipe(adam, rates(2e-3, 6e-5, 100, 4_000), 16, 1, Peft::None)
            }
            Self::WarmUp => recipe(adam, rates(1e-4, 8e-5, 1_000, 5_000), 64, 17, Peft::None),
            Self::Pretraining => recipe(adam, rates(1e-4, 8e-5, 5_000, 20_000), 64, 1, lora()),
            Self::Instruction => recipe(adam, rates(3e-5, 1e-5, 200, 1_000), 6, 1, lora()),
            Self::MultiTask => recipe(adam, rates(1e-5, 8e-5, 1_000, 50_000), 2, 1, lora()),
        }
    }
}

/// Whether `inside` the language part is the weight of a norm.
fn is_norm_weight(inside: &str) -> bool {
    inside.starts_with("model.") && inside.ends_with("layernorm.weight")
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Stage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|stage| stage.name().eq_ignore_ascii_case(text));
        known.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("`{text}` is not a stage; known are {names}")
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::*;
    use crate::model::{
        bundle::{tensors_of, tests::small_config},
        config::{Config, LanguageConfig, QFormerConfig, VisionConfig},
    };

    /// Sizes of the published model, with its LoRA beside the weights.
    fn published() -> Config {
        Config {
            vision: Some(VisionConfig::vit_g()),
            captioner: Some(QFormerConfig::blip2(224)),
            retrieval: None,
            language: Some(LanguageConfig {
                lora_scale: Some(0.25),
                lora_rank: Some(64),
                ..LanguageConfig::phi2()
            }),
            stage: 3,
        }
    }

    fn trained(stage: Stage, config: &Config) -> BTreeSet<String> {
        let names = tensors_of(config).into_iter().map(|spec| spec.name);
        names.filter(|name| stage.trains(name)).collect()
    }

    /// Names that a published checkpoint holds, as a bundle calls them.
    fn in_checkpoint(file: &str) -> BTreeSet<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/goldens/manifest_fullsize.json");
        let manifest: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let tensors = manifest[file]["tensors"].as_array().unwrap();
        let names = tensors.iter().map(|tensor| tensor[0].as_str().unwrap());
        names
            .filter(|name| !name.starts_with("Qformer"))
            .map(|name| {
                let inside = ["llama_model.base_model.model.", "llama_model."]
                    .iter()
                    .find_map(|prefix| name.strip_prefix(prefix));
                format!("language.{}", inside.unwrap_or(name))
            })
            .collect()
    }

    #[test]
    fn stages_train_what_the_published_checkpoints_hold() {
        let config = published();
        for (stage, file) in [
            (Stage::WarmUp, "TinyGPT-V_for_Stage1.pth"),
            (Stage::Instruction, "TinyGPT-V_for_Stage3.pth"),
        ] {
            let expected = in_checkpoint(file);
            assert!(expected.len() > 100);
            assert_eq!(trained(stage, &config), expected);
        }
        for stage in [Stage::Pretraining, Stage::MultiTask] {
            assert_eq!(trained(stage, &config), trained(Stage::Instruction, &config));
        }
    }

    #[test]
    fn the_first_stages_train_whole_parts() {
        let config = small_config();
        let seen = trained(Stage::Retrieval, &config);
        assert!(seen.contains("vit.cls_token") && seen.contains("retrieval.temp"));
        let of_part = |name: &String| name.starts_with("vit.") || name.starts_with("retrieval.");
        assert!(seen.iter().all(of_part));
        assert_eq!(seen.len(), tensors_of(&config).iter().filter(|t| of_part(&t.name)).count());
        assert!(Stage::Retrieval.trains("retrieval.Qformer.cls.predictions.bias"));

        let spoken = trained(Stage::Language, &config);
        assert!(spoken.contains("language.lm_head.bias"));
        assert!(spoken.contains("language.model.embed_tokens.weight"));
        assert!(!spoken.iter().any(|name| name.contains("llama_proj")));
        assert!(!Stage::Language.trains("captioner.query_tokens"));
    }

    #[test]
    fn the_published_rates_are_those_of_the_files() {
        let third = Stage::Instruction.published();
        assert_eq!((third.batch, third.schedule.total, third.schedule.warmup), (6, 1_000, 200));
        assert!((third.schedule.rate(0) - 1e-6).abs() < 1e-12);
        assert!((third.schedule.rate(1_000) - 1e-5).abs() < 1e-12);
        assert_eq!((third.adam.beta1, third.adam.beta2), (0.9, 0.999));
        assert_eq!((third.adam.weight_decay, third.adam.max_norm), (0.05, None));
        let fourth = Stage::MultiTask.published().schedule;
        assert!(fourth.rate(50_000) > fourth.rate(1_000));
        assert_eq!(Stage::WarmUp.published().peft, Peft::None);
        assert_eq!(Stage::Pretraining.published().peft, Peft::Lora(Additions::default()));
    }

    #[test]
    fn stages_are_found_by_their_names() {
        for stage in Stage::ALL {
            assert_eq!(stage.to_string().parse(), Ok(stage));
            assert_eq!(stage.number().map_or(0, usize::from) > 0, stage >= Stage::WarmUp);
        }
        assert!("5".parse::<Stage>().unwrap_err().contains("language"));
    }
}
