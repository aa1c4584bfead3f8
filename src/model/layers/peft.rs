//! Low-rank additions to a weight: LoRA, and DoRA, which learns the length of each row apart.
//!
//! A layer holds them where tensors `lora_A.weight` and `lora_B.weight` stand beside its weight;
//! with `lora_magnitude_vector` it is DoRA. The weight itself stays as it is.

use candle_core::{D, DType, Device, Result, Tensor};

use crate::model::{kernels, weights::Weights};

/// Dropout of what goes into low-rank additions, in training only.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    /// Part of the inputs that become zero, 0 to below 1; the others grow by `1 / (1 - rate)`.
    pub rate: f64,
    /// Decides which: the same seed drops the same inputs of equally many rows. Every step needs
    /// another.
    pub seed: u64,
}

impl Dropout {
    /// The same dropout with a seed of its own for the part `part` of a network.
    #[must_use]
    pub fn of_part(self, part: u64) -> Self {
        Self { seed: mixed(self.seed ^ mixed(part)), ..self }
    }

    /// `xs` with some of its numbers dropped.
    ///
    /// # Errors
    ///
    /// When the rate is not one, or the device has no room.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        if self.rate == 0.0 {
            return Ok(xs.clone());
        }
        if !(0.0..1.0).contains(&self.rate) {
            candle_core::bail!("a dropout rate of {}", self.rate);
        }
        let kept = 1.0 / (1.0 - self.rate);
        let mask = match xs.device() {
            Device::Cpu => {
                let bound = (self.rate * 2.0_f64.powi(32)) as u32;
                let n = xs.elem_count();
                let start = mixed(self.seed);
                let values: Vec<f32> = (0..n.div_ceil(2) as u64)
                    .flat_map(|i| {
                        let bits = mixed(start.wrapping_add(i));
                        [bits as u32, (bits >> 32) as u32]
                    })
                    .take(n)
                    .map(|bits| if bits < bound { 0.0 } else { kept as f32 })
                    .collect();
                Tensor::from_vec(values, xs.shape(), xs.device())?
            }
            device => {
                device.set_seed(self.seed)?;
                let drawn = Tensor::rand(0.0_f32, 1.0, xs.shape(), device)?;
                (drawn.ge(self.rate)?.to_dtype(DType::F32)? * kept)?
            }
        };
        xs * mask.to_dtype(xs.dtype())?
    }
}

/// A number made of `x` in which every bit depends on all of `x` (Splitmix64; Steele, Lea and
/// Flood, OOPSLA 2014).
fn mixed(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The addition `scale B A` (Hu et al., LoRA, 2021) of one layer, perhaps with the factors of its
/// rows (Liu et al., DoRA, 2024).
#[derive(Debug, Clone)]
pub(super) struct LowRank {
    /// `(rank, input)`.
    a: Tensor,
    /// `(output, rank)`, times the scale.
    b: Tensor,
    /// `(output)`: learned length over present length of each row.
    gain: Option<Tensor>,
    dropout: Option<Dropout>,
}

impl LowRank {
    /// Reads the tensors beside a weight, if there are any; `weight` gives the weight itself,
    /// `(output, input)` in any float type.
    pub(super) fn load(
        w: &Weights,
        input: usize,
        output: usize,
        scale: Option<f64>,
        weight: impl FnOnce() -> Result<Tensor>,
    ) -> Result<Option<Self>> {
        let Some(&[rank, _]) = w.shape("lora_A.weight") else { return Ok(None) };
        let Some(scale) = scale else {
            candle_core::bail!("the bundle holds a LoRA but not its scale");
        };
        let a = w.get((rank, input), "lora_A.weight")?;
        let b = (w.get((output, rank), "lora_B.weight")? * scale)?;
        let gain = if w.contains("lora_magnitude_vector") {
            let magnitude = w.get_f32(output, "lora_magnitude_vector")?;
            Some(gain(&sum(&weight()?, &a, &b)?, &magnitude)?.to_dtype(w.dtype())?)
        } else {
            None
        };
        Ok(Some(Self { a, b, gain, dropout: None }))
    }

    pub(super) fn set_dropout(&mut self, dropout: Dropout) {
        self.dropout = (dropout.rate > 0.0).then_some(dropout);
    }

    /// Adds to `product` `(rows, output)`, which the weight alone makes of `xs` `(rows, input)`.
    pub(super) fn add_to(&self, product: Tensor, xs: &Tensor) -> Result<Tensor> {
        let dropped = self.dropout.map(|dropout| {
            // Parts of a batch that are run apart drop different inputs.
            dropout.of_part(xs.dim(0)? as u64).forward(xs)
        });
        let dropped = dropped.transpose()?;
        let xs = dropped.as_ref().unwrap_or(xs);
        let inner = kernels::linear(xs, &self.a, None, None)?;
        let sum = (product + kernels::linear(&inner, &self.b, None, None)?)?;
        match &self.gain {
            Some(gain) => sum.broadcast_mul(gain),
            None => Ok(sum),
        }
    }
}

/// The weight `(output, input)` with its addition in it, f32: `weight + scale B A` with `a`
/// `(rank, input)` and `b` `(output, rank)`; for DoRA each row then has the length `magnitude`
/// `(output)` says.
///
/// # Errors
///
/// When the shapes do not fit.
pub fn merged(
    weight: &Tensor,
    a: &Tensor,
    b: &Tensor,
    magnitude: Option<&Tensor>,
    scale: f64,
) -> Result<Tensor> {
    let sum = sum(weight, &a.detach(), &(b.detach() * scale)?)?;
    match magnitude {
        Some(magnitude) => {
            let gain = gain(&sum, &magnitude.detach().to_dtype(DType::F32)?)?;
            sum.broadcast_mul(&gain.unsqueeze(1)?)
        }
        None => Ok(sum),
    }
}

/// The length of each row of a weight `(output, input)`: `(output)`, f32; what the magnitudes of
/// DoRA start as.
///
/// # Errors
///
/// When `weight` is no matrix.
pub fn row_lengths(weight: &Tensor) -> Result<Tensor> {
    weight.detach().to_dtype(DType::F32)?.sqr()?.sum(D::Minus1)?.sqrt()
}

/// `weight + b a` in f32, through which no gradient passes.
fn sum(weight: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let wide = |xs: &Tensor| xs.detach().to_dtype(DType::F32);
    wide(weight)? + wide(b)?.matmul(&wide(a)?)?
}

/// The factor of each row that gives it the length `magnitude`. Gradients pass through that
/// alone: the present length counts as a constant (section 4.3 of the article), which halves the
/// memory and hardly changes what is learned.
fn gain(sum: &Tensor, magnitude: &Tensor) -> Result<Tensor> {
    magnitude / row_lengths(sum)?.maximum(f64::from(f32::MIN_POSITIVE))?
}

#[cfg(test)]
mod tests {
    use candle_core::Module;

    use super::*;
    use crate::model::{
        bundle::tests::small_config,
        gradcheck::{Trained, numbers},
        layers::Linear,
    };

    const NAME: &str = "language.model.layers.0.self_attn.dense";
    const WIDTH: usize = 96;

    fn full(name: &str) -> String {
        format!("{NAME}.{name}")
    }

    fn trained(dora: bool) -> Trained {
        let mut trained = Trained::random(&small_config(), |_| false);
        trained.insert_random(&full("lora_A.weight"), &[4, WIDTH], 0.1);
        trained.insert_random(&full("lora_B.weight"), &[WIDTH, 4], 0.1);
        if dora {
            trained.insert_random(&full("lora_magnitude_vector"), &[WIDTH], 0.5);
        }
        trained
    }

    fn load(w: &Weights) -> Linear {
        Linear::load_with_lora(&w.pp(NAME), WIDTH, WIDTH, Some(0.5)).unwrap()
    }

    fn xs() -> Tensor {
        numbers(5 * WIDTH, 9, 0.5).reshape((1, 5, WIDTH)).unwrap()
    }

    fn off(left: &Tensor, right: &Tensor) -> f32 {
        let difference = (left - right).unwrap().abs().unwrap().flatten_all().unwrap();
        difference.max(0).unwrap().to_scalar::<f32>().unwrap()
    }

    /// A scalar of an output, every number of which counts differently.
    fn some_loss(out: &Tensor) -> Result<Tensor> {
        let factors = numbers(out.elem_count(), 4, 1.0).reshape(out.shape())?;
        ((out * factors)? + (out.sqr()? * 0.3)?)?.mean_all()
    }

    #[test]
    fn gradients_of_lora_agree_with_finite_differences() {
        trained(false).check(|w| some_loss(&load(w).forward(&xs())?));
    }

    /// The present lengths are constants for the gradient, so the differences are taken of a
    /// layer, written out here, that has those of the start.
    #[test]
    fn gradients_of_dora_agree_with_finite_differences_at_constant_lengths() {
        let trained = trained(true);
        let parts = |w: &Weights| {
            let w = w.pp(NAME);
            let get = |shape: (usize, usize), name| w.get(shape, name).unwrap();
            (
                get((WIDTH, WIDTH), "weight"),
                get((4, WIDTH), "lora_A.weight"),
                (get((WIDTH, 4), "lora_B.weight") * 0.5).unwrap(),
                w.get(WIDTH, "lora_magnitude_vector").unwrap(),
                w.get(WIDTH, "bias").unwrap(),
            )
        };
        let (weight, a, b, ..) = parts(&trained.weights());
        let lengths = row_lengths(&(weight + b.matmul(&a).unwrap()).unwrap()).unwrap();
        let constant = |w: &Weights| {
            let (weight, a, b, magnitude, bias) = parts(w);
            let weight = (weight + b.matmul(&a)?)?;
            let weight = weight.broadcast_mul(&(magnitude / &lengths)?.unsqueeze(1)?)?;
            let out = xs().squeeze(0)?.matmul(&weight.t()?)?.broadcast_add(&bias)?;
            some_loss(&out.unsqueeze(0)?)
        };
        trained.check(constant);
        let w = trained.weights();
        let own = some_loss(&load(&w).forward(&xs()).unwrap()).unwrap();
        assert!(off(&own, &constant(&w).unwrap()) < 1e-5);
        let (own, constant) = (own.backward().unwrap(), constant(&w).unwrap().backward().unwrap());
        for name in trained.names() {
            let (own, constant) = (own.get(trained.get(name)), constant.get(trained.get(name)));
            assert!(off(own.unwrap(), constant.unwrap()) < 1e-6, "{name}");
        }
    }

    #[test]
    fn a_merged_weight_gives_what_the_addition_gives() {
        for dora in [false, true] {
            let w = trained(dora).weights();
            let expected = load(&w).forward(&xs()).unwrap();
            let w = w.pp(NAME);
            let magnitude = dora.then(|| w.get(WIDTH, "lora_magnitude_vector").unwrap());
            let weight = merged(
                &w.get((WIDTH, WIDTH), "weight").unwrap(),
                &w.get((4, WIDTH), "lora_A.weight").unwrap(),
                &w.get((WIDTH, 4), "lora_B.weight").unwrap(),
                magnitude.as_ref(),
                0.5,
            )
            .unwrap();
            assert!(!weight.track_op());
            if let Some(magnitude) = magnitude {
                let lengths = row_lengths(&weight).unwrap();
                assert!(off(&lengths, &magnitude.abs().unwrap()) < 1e-5);
            }
            let bias = w.get(WIDTH, "bias").unwrap();
            let got = xs().squeeze(0).unwrap().matmul(&weight.t().unwrap()).unwrap();
            let got = got.broadcast_add(&bias).unwrap().unsqueeze(0).unwrap();
            assert!(off(&got, &expected) < 1e-5);
        }
    }

    #[test]
    fn dora_starts_as_the_weight_itself() {
        let mut trained = trained(true);
        let w = trained.weights().pp(NAME);
        trained.insert(
            &full("lora_B.weight"),
            &numbers(WIDTH * 4, 1, 0.0).reshape((WIDTH, 4)).unwrap(),
        );
        let lengths = row_lengths(&w.get((WIDTH, WIDTH), "weight").unwrap()).unwrap();
        trained.insert(&full("lora_magnitude_vector"), &lengths);
        let plain = Linear::load(&w, WIDTH, WIDTH).unwrap().forward(&xs()).unwrap();
        assert!(off(&load(&trained.weights()).forward(&xs()).unwrap(), &plain) < 1e-5);
    }

    #[test]
    fn dropout_keeps_the_mean_and_follows_its_seed() {
        let dropout = Dropout { rate: 0.25, seed: 3 };
        let ones = Tensor::ones((100, 301), DType::F32, &Device::Cpu).unwrap();
        let made = dropout.forward(&ones).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let dropped = made.iter().filter(|&&x| x == 0.0).count() as f32 / made.len() as f32;
        assert!((dropped - 0.25).abs() < 0.01, "{dropped}");
        assert!(made.iter().all(|&x| x == 0.0 || (x - 4.0 / 3.0).abs() < 1e-6));
        let again = |dropout: Dropout| {
            dropout.forward(&ones).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        assert!(again(dropout) == made);
        assert!(again(dropout.of_part(1)) != made);
        assert!(again(dropout.of_part(1)) != again(dropout.of_part(2)));
        assert!(Dropout { rate: 1.0, seed: 3 }.forward(&ones).is_err());
    }

    #[test]
    fn dropout_touches_the_addition_alone() {
        let w = trained(false).weights();
        let whole = load(&w).forward(&xs()).unwrap();
        let mut linear = load(&w);
        linear.set_dropout(Dropout { rate: 0.5, seed: 1 });
        let dropped = linear.forward(&xs()).unwrap();
        assert!(off(&dropped, &whole) > 1e-3);
        assert!(off(&linear.forward(&xs()).unwrap(), &dropped) == 0.0);
        let plain = Linear::load(&w.pp(NAME), WIDTH, WIDTH).unwrap();
        let plain_out = plain.forward(&xs()).unwrap();
        let mut other = plain;
        other.set_dropout(Dropout { rate: 0.5, seed: 1 });
        assert!(off(&other.forward(&xs()).unwrap(), &plain_out) == 0.0);
        // Over many seeds the mean is what no dropout gives.
        let mut sum = whole.zeros_like().unwrap();
        for seed in 0..400 {
            linear.set_dropout(Dropout { rate: 0.5, seed });
            sum = (sum + linear.forward(&xs()).unwrap()).unwrap();
        }
        let mean = (sum / 400.0).unwrap();
        assert!(off(&mean, &whole) < 0.3 * off(&dropped, &whole));
    }
}
