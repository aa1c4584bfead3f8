//! How a stage changes the weights of the language model without training them: low-rank
//! additions beside frozen weights.
//!
//! What a layer does with them stands in [`model::layers`](crate::model::layers); here is which
//! layers get them, what they start as, and how they become part of the weights again.

use candle_core::{DType, Result, Tensor};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};

use crate::model::{
    config::LanguageConfig,
    layers::{Dropout, merged, row_lengths},
    weights::Weights,
};

/// A parameter-efficient way of training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Peft {
    /// No additions.
    None,
    /// LoRA (Hu et al., 2021): a weight becomes `W + alpha / rank B A`.
    Lora(Additions),
    /// `DoRA` (Liu et al., 2024): as LoRA, and each row then gets a length that is learned.
    Dora(Additions),
}

/// Sizes and places of low-rank additions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Additions {
    /// Rows of `A`.
    pub rank: usize,
    /// Strength: additions count `alpha / rank` times.
    pub alpha: f64,
    /// Part of an addition's inputs that is dropped in training, 0 to below 1.
    pub dropout: f64,
    /// Layers that get one.
    pub targets: Vec<Target>,
}

impl Default for Additions {
    /// The published ones: rank 64, alpha 16, dropout 0.05, on both layers of attention.
    fn default() -> Self {
        let targets = vec![Target::QueryKeyValue, Target::Dense];
        Self { rank: 64, alpha: 16.0, dropout: 0.05, targets }
    }
}

/// A linear layer of every block of the language model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// `self_attn.query_key_value`.
    QueryKeyValue,
    /// `self_attn.dense`.
    Dense,
    /// `mlp.fc1`.
    Fc1,
    /// `mlp.fc2`.
    Fc2,
}

impl Target {
    /// Every target.
    pub const ALL: [Self; 4] = [Self::QueryKeyValue, Self::Dense, Self::Fc1, Self::Fc2];

    /// The layer's name inside a block.
    pub fn name(self) -> &'static str {
        match self {
            Self::QueryKeyValue => "self_attn.query_key_value",
            Self::Dense => "self_attn.dense",
            Self::Fc1 => "mlp.fc1",
            Self::Fc2 => "mlp.fc2",
        }
    }

    /// Inputs and outputs of the layer.
    pub fn sizes(self, config: &LanguageConfig) -> (usize, usize) {
        match self {
            Self::QueryKeyValue => (config.hidden, 3 * config.hidden),
            Self::Dense => (config.hidden, config.hidden),
            Self::Fc1 => (config.hidden, config.intermediate),
            Self::Fc2 => (config.intermediate, config.hidden),
        }
    }
}

impl Peft {
    /// The additions, if there are any.
    pub fn additions(&self) -> Option<&Additions> {
        match self {
            Self::None => None,
            Self::Lora(additions) | Self::Dora(additions) => Some(additions),
        }
    }

    /// Whether a bundle can keep the additions beside the weights: as LoRA on the layers for
    /// which bundles have a place. Others are merged when a bundle is written.
    pub fn fits_beside(&self) -> bool {
        let placed = |target: &Target| matches!(target, Target::QueryKeyValue | Target::Dense);
        match self {
            Self::Lora(additions) => Target::ALL
                .into_iter()
                .all(|target| placed(&target) == additions.targets.contains(&target)),
            Self::None | Self::Dora(_) => false,
        }
    }

    /// The sizes by which [`Phi`](crate::model::phi::Phi) is read while it is trained this way.
    #[must_use]
    pub fn adapt(&self, config: &LanguageConfig) -> LanguageConfig {
        let mut adapted = config.clone();
        if let Some(additions) = self.additions() {
            adapted.lora_rank = Some(additions.rank);
            adapted.lora_scale = Some(additions.scale());
        }
        adapted
    }

    /// The dropout of a step, or none; `seed` must be another for every step and shard.
    pub fn dropout(&self, seed: u64) -> Option<Dropout> {
        let rate = self.additions()?.dropout;
        (rate > 0.0).then_some(Dropout { rate, seed })
    }

    /// What is trained, by full name, and what it starts as: the additions that the bundle
    /// behind `w` holds, or new ones, which change nothing before the first step: `A` is drawn
    /// evenly from `-1 / sqrt(inputs)` to `1 / sqrt(inputs)`, `B` is zero, the lengths of `DoRA`
    /// are those of the rows.
    ///
    /// `w` are the weights of the whole bundle, `config` the sizes of its language part.
    ///
    /// # Errors
    ///
    /// When the bundle holds additions of another kind, or a weight is missing.
    pub fn start(
        &self,
        config: &LanguageConfig,
        w: &Weights,
        seed: u64,
    ) -> Result<Vec<(String, Tensor)>> {
        let Some(additions) = self.additions() else { return Ok(Vec::new()) };
        let held = config.lora_rank.zip(config.lora_scale);
        if let Some((rank, scale)) = held
            && (!self.fits_beside() || rank != additions.rank || scale != additions.scale())
        {
            candle_core::bail!(
                "the bundle keeps a LoRA of rank {rank} and scale {scale} beside its weights: \
                 train that one on, or import the model with the LoRA merged"
            );
        }
        let mut random = StdRng::seed_from_u64(seed);
        let mut made = Vec::new();
        for layer in 0..config.layers {
            for target in Target::ALL.into_iter().filter(|t| additions.targets.contains(t)) {
                let (input, output) = target.sizes(config);
                let name = format!("language.model.layers.{layer}.{}", target.name());
                let w = w.pp(&name);
                let shapes =
                    [("lora_A", [additions.rank, input]), ("lora_B", [output, additions.rank])];
                for (part, shape) in shapes {
                    let value = match (held, part) {
                        (Some(_), _) => w.get_f32(&shape[..], &format!("{part}.weight"))?,
                        (None, "lora_A") => {
                            let bound = (input as f32).sqrt().recip();
                            let values: Vec<f32> = (0..shape[0] * shape[1])
                                .map(|_| random.random_range(-bound..bound))
                                .collect();
                            Tensor::from_vec(values, &shape[..], w.device())?
                        }
                        (None, _) => Tensor::zeros(&shape[..], DType::F32, w.device())?,
                    };
                    made.push((format!("{name}.{part}.weight"), value));
                }
                if matches!(self, Self::Dora(_)) {
                    let lengths = row_lengths(&w.get_f32((output, input), "weight")?)?;
                    made.push((format!("{name}.lora_magnitude_vector"), lengths));
                }
            }
        }
        Ok(made)
    }

    /// The tensor `name` of a bundle with the addition of its layer in it, f32; `None` where it
    /// is no weight with an addition. `w` gives the weight, `trained` the trained tensors.
    ///
    /// # Errors
    ///
    /// When a tensor is missing or of another shape.
    pub fn merged(
        &self,
        config: &LanguageConfig,
        w: &Weights,
        trained: impl Fn(&str) -> Option<Tensor>,
        name: &str,
    ) -> Result<Option<Tensor>> {
        let Some(additions) = self.additions() else { return Ok(None) };
        let target = name.strip_suffix(".weight").and_then(|layer| {
            let (_, inside) = layer.strip_prefix("language.model.layers.")?.split_once('.')?;
            let target = additions.targets.iter().find(|target| target.name() == inside)?;
            Some((layer, *target))
        });
        let Some((layer, target)) = target else { return Ok(None) };
        let (input, output) = target.sizes(config);
        let weight = match trained(name) {
            Some(weight) => weight,
            None => w.get_f32((output, input), name)?,
        };
        let part = |part: &str| {
            let name = format!("{layer}.{part}");
            trained(&name).ok_or_else(|| {
                candle_core::Error::msg(format!("`{name}` was not trained and cannot be merged"))
            })
        };
        let magnitude = match self {
            Self::Dora(_) => Some(part("lora_magnitude_vector")?),
            Self::None | Self::Lora(_) => None,
        };
        let (a, b) = (part("lora_A.weight")?, part("lora_B.weight")?);
        merged(&weight, &a, &b, magnitude.as_ref(), additions.scale()).map(Some)
    }
}

impl Additions {
    /// How many times an addition counts.
    pub fn scale(&self) -> f64 {
        self.alpha / self.rank as f64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{bundle::tests::small_config, gradcheck::Trained, phi::Phi};

    fn additions(targets: &[Target]) -> Additions {
        Additions { rank: 4, alpha: 2.0, dropout: 0.0, targets: targets.to_vec() }
    }

    fn states(config: &LanguageConfig, w: &Weights) -> Tensor {
        let phi = Phi::load(config, &w.pp("language")).unwrap();
        phi.forward_whole(&phi.embed(&[3, 7, 5]).unwrap().unsqueeze(0).unwrap()).unwrap()
    }

    fn off(left: &Tensor, right: &Tensor) -> f32 {
        let most = |xs: &Tensor| xs.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>();
        most(&(left - right).unwrap()).unwrap() / most(right).unwrap()
    }

    #[test]
    fn the_published_additions_are_the_default() {
        let published = Additions::default();
        assert_eq!(published.scale(), 0.25);
        assert!(Peft::Lora(published.clone()).fits_beside());
        assert!(!Peft::Dora(published.clone()).fits_beside());
        assert!(
            !Peft::Lora(Additions { targets: Target::ALL.to_vec(), ..published }).fits_beside()
        );
    }

    #[test]
    fn new_additions_change_nothing_and_merge_to_what_they_do() {
        let config = small_config().language.unwrap();
        let plain = Trained::random(&small_config(), |_| false).weights();
        let before = states(&config, &plain);
        for peft in [
            Peft::Lora(additions(&[Target::QueryKeyValue, Target::Dense])),
            Peft::Lora(additions(&Target::ALL)),
            Peft::Dora(additions(&[Target::Dense, Target::Fc2])),
        ] {
            let adapted = peft.adapt(&config);
            let start = peft.start(&config, &plain, 1).unwrap();
            let trained: BTreeMap<String, Tensor> = start.into_iter().collect();
            assert!(
                off(&states(&adapted, &plain.clone().training(trained.clone())), &before) < 1e-5
            );

            let moved: BTreeMap<String, Tensor> = trained
                .iter()
                .map(|(name, value)| (name.clone(), (value + 0.02).unwrap()))
                .collect();
            let expected = states(&adapted, &plain.clone().training(moved.clone()));
            assert!(off(&expected, &before) > 1e-3);
            let find = |name: &str| moved.get(name).cloned();
            let mut merged = BTreeMap::new();
            for layer in 0..config.layers {
                for target in Target::ALL {
                    let name = format!("language.model.layers.{layer}.{}.weight", target.name());
                    let weight = peft.merged(&config, &plain, find, &name).unwrap();
                    let targets = &peft.additions().unwrap().targets;
                    assert_eq!(weight.is_some(), targets.contains(&target), "{name}");
                    merged.extend(weight.map(|weight| (name, weight)));
                }
            }
            assert!(off(&states(&config, &plain.clone().training(merged)), &expected) < 1e-5);
        }
    }

    #[test]
    fn a_lora_kept_beside_the_weights_is_trained_on() {
        let mut whole = small_config();
        if let Some(language) = &mut whole.language {
            (language.lora_rank, language.lora_scale) = (Some(4), Some(0.5));
        }
        let config = whole.language.clone().unwrap();
        let w = Trained::random(&whole, |_| false).weights();
        let targets = [Target::QueryKeyValue, Target::Dense];
        let start = Peft::Lora(additions(&targets)).start(&config, &w, 1).unwrap();
        assert_eq!(start.len(), 2 * 2 * 2);
        for (name, value) in &start {
            assert!(off(value, &w.get(value.dims(), name).unwrap()) == 0.0);
        }
        for other in [
            Peft::Dora(additions(&targets)),
            Peft::Lora(additions(&[Target::Dense])),
            Peft::Lora(Additions { rank: 8, ..additions(&targets) }),
            Peft::Lora(Additions { alpha: 4.0, ..additions(&targets) }),
        ] {
            let error = other.start(&config, &w, 1).unwrap_err().to_string();
            assert!(error.contains("rank 4"), "{error}");
        }
        assert!(Peft::None.start(&config, &w, 1).unwrap().is_empty());
    }

    #[test]
    fn the_seed_decides_what_additions_start_as() {
        let config = small_config().language.unwrap();
        let w = Trained::random(&small_config(), |_| false).weights();
        let peft = Peft::Lora(additions(&[Target::Dense]));
        let first = |seed| {
            let (name, value) = peft.start(&config, &w, seed).unwrap().swap_remove(0);
            assert_eq!(name, "language.model.layers.0.self_attn.dense.lora_A.weight");
            value.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        assert!(first(1) == first(1) && first(1) != first(2));
        let bound = 1.0 / 96.0_f32.sqrt();
        assert!(first(1).iter().all(|x| x.abs() <= bound));
        assert!(first(1).iter().any(|x| x.abs() > 0.9 * bound));
    }

    #[test]
    fn dropout_is_there_where_it_is_asked_for() {
        let peft = Peft::Lora(Additions::default());
        assert_eq!(peft.dropout(7), Some(Dropout { rate: 0.05, seed: 7 }));
        assert_eq!(Peft::Lora(additions(&Target::ALL)).dropout(7), None);
        assert_eq!(Peft::None.dropout(7), None);
    }
}
