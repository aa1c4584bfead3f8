//! AdamW with clipping.

use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    Result, TrainError,
    parameters::{Gradients, Parameter, Parameters},
};

/// AdamW (Loshchilov and Hutter, 2019), as in torch: decay is taken off before the step, the
/// means are corrected for their start at zero.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdamW {
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squares.
    pub beta2: f64,
    /// Added to the root of the mean of squares.
    pub eps: f64,
    /// Part of a weight that is lost at a step, times the learning rate.
    pub weight_decay: f64,
    /// Greatest norm of all gradients together; longer ones are shortened to it.
    pub max_norm: Option<f64>,
}

impl Default for AdamW {
    /// The published recipe: betas 0.9 and 0.999, weight decay 0.05, no clipping.
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.05, max_norm: None }
    }
}

impl AdamW {
    /// Moves `parameters` against `gradients` and returns the norm of these before clipping.
    /// `step` counts from 0; parameters without a gradient stay as they are.
    ///
    /// # Errors
    ///
    /// [`TrainError::Gradient`] with the first tensor whose gradient is not finite; then nothing
    /// was changed.
    pub fn step(
        &self,
        parameters: &Parameters,
        gradients: &Gradients,
        step: u64,
        rate: f64,
    ) -> Result<f64> {
        let pairs: Vec<(&Parameter, &Tensor)> = parameters
            .iter()
            .zip(&gradients.0)
            .filter_map(|(p, g)| g.as_ref().map(|g| (p, g)))
            .collect();
        let squares: Vec<f64> = pairs
            .par_iter()
            .map(|(_, gradient)| sum_of_squares(gradient))
            .collect::<candle_core::Result<_>>()?;
        if let Some(at) = squares.iter().position(|s| !s.is_finite()) {
            return Err(TrainError::Gradient { tensor: pairs[at].0.name.clone(), step });
        }
        let norm = squares.iter().sum::<f64>().sqrt();
        let clip = self.max_norm.map_or(1.0, |most| (most / (norm + 1e-6)).min(1.0));
        let update = Update {
            beta1: self.beta1 as f32,
            beta2: self.beta2 as f32,
            clip: clip as f32,
            correction1: 1.0 - self.beta1.powf(step as f64 + 1.0),
            correction2: 1.0 - self.beta2.powf(step as f64 + 1.0),
            eps: self.eps as f32,
        };
        pairs.par_iter().try_for_each(|(parameter, gradient)| -> Result<()> {
            let decay = if parameter.decay { self.weight_decay } else { 0.0 };
            update.apply(parameter, gradient, rate * parameter.rate, decay)
        })?;
        Ok(norm)
    }
}

/// Sum of squares in f64; of f32 values on a CPU without a copy.
fn sum_of_squares(gradient: &Tensor) -> candle_core::Result<f64> {
    let gradient = gradient.to_dtype(DType::F32)?.contiguous()?;
    if !gradient.device().is_cpu() {
        return Ok(f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?));
    }
    let (storage, layout) = gradient.storage_and_layout();
    let candle_core::Storage::Cpu(storage) = &*storage else {
        candle_core::bail!("a tensor on a CPU is stored elsewhere");
    };
    let values = contiguous(storage, layout)?;
    // Eight sums side by side keep the vector units busy; their order is fixed.
    let (chunks, rest) = values.as_chunks::<8>();
    let mut sums = [0.0_f64; 8];
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(*value) * f64::from(*value);
        }
    }
    let rest: f64 = rest.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
    Ok(sums.iter().sum::<f64>() + rest)
}

fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    let (start, end) = layout
        .contiguous_offsets()
        .ok_or(candle_core::Error::RequiresContiguous { op: "adamw" })?;
    Ok(&storage.as_slice::<f32>()?[start..end])
}

fn contiguous_mut<'a>(
    storage: &'a mut CpuStorage,
    layout: &Layout,
) -> candle_core::Result<&'a mut [f32]> {
    let (start, end) = layout
        .contiguous_offsets()
        .ok_or(candle_core::Error::RequiresContiguous { op: "adamw" })?;
    match storage {
        CpuStorage::F32(values) => Ok(&mut values[start..end]),
        _ => candle_core::bail!("parameters are f32"),
    }
}

/// Numbers of one step.
#[derive(Debug, Clone, Copy)]
struct Update {
    beta1: f32,
    beta2: f32,
    clip: f32,
    correction1: f64,
    correction2: f64,
    eps: f32,
}

impl Update {
    fn apply(&self, p: &Parameter, gradient: &Tensor, rate: f64, decay: f64) -> Result<()> {
        let gradient = gradient.to_dtype(DType::F32)?.flatten_all()?.contiguous()?;
        let keep = 1.0 - rate * decay;
        if p.moments.device().is_cpu() {
            p.moments.inplace_op2(&gradient, self)?;
            let step = Step {
                keep: keep as f32,
                rate: (rate / self.correction1) as f32,
                root: (self.correction2.sqrt().recip()) as f32,
                eps: self.eps,
            };
            p.var.as_tensor().inplace_op2(&p.moments, &step)?;
            return Ok(());
        }
        let gradient = (gradient * f64::from(self.clip))?;
        let (first, second) = (p.moments.get(0)?, p.moments.get(1)?);
        let (b1, b2) = (f64::from(self.beta1), f64::from(self.beta2));
        let first = ((first * b1)? + (&gradient * (1.0 - b1))?)?;
        let second = ((second * b2)? + (gradient.sqr()? * (1.0 - b2))?)?;
        p.moments.slice_set(&Tensor::stack(&[&first, &second], 0)?, 0, 0)?;
        let root = ((second / self.correction2)?.sqrt()? + f64::from(self.eps))?;
        let step = ((first / root)? * (rate / self.correction1))?.reshape(p.var.shape())?;
        p.var.set(&((p.var.as_tensor().detach() * keep)? - step)?)?;
        Ok(())
    }
}

impl InplaceOp2 for Update {
    fn name(&self) -> &'static str {
        "adamw-moments"
    }

    /// `moments` `(2, n)` and the gradient `(n)`.
    fn cpu_fwd(
        &self,
        moments: &mut CpuStorage,
        moments_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> candle_core::Result<()> {
        let gradient = contiguous(gradient, gradient_layout)?;
        let moments = contiguous_mut(moments, moments_layout)?;
        let (first, second) = moments.split_at_mut(gradient.len());
        for ((first, second), g) in first.iter_mut().zip(second).zip(gradient) {
            let g = g * self.clip;
            *first = self.beta1 * *first + (1.0 - self.beta1) * g;
            *second = self.beta2 * *second + (1.0 - self.beta2) * g * g;
        }
        Ok(())
    }
}

/// The move of a parameter along its moments.
#[derive(Debug, Clone, Copy)]
struct Step {
    keep: f32,
    rate: f32,
    root: f32,
    eps: f32,
}

impl InplaceOp2 for Step {
    fn name(&self) -> &'static str {
        "adamw-step"
    }

    fn cpu_fwd(
        &self,
        value: &mut CpuStorage,
        value_layout: &Layout,
        moments: &CpuStorage,
        moments_layout: &Layout,
    ) -> candle_core::Result<()> {
        let moments = contiguous(moments, moments_layout)?;
        let value = contiguous_mut(value, value_layout)?;
        let (first, second) = moments.split_at(value.len());
        for ((value, first), second) in value.iter_mut().zip(first).zip(second) {
            let step = self.rate * first / (second.sqrt() * self.root + self.eps);
            *value = *value * self.keep - step;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn one(name: &str, values: &[f32], rank: usize) -> Parameters {
        let mut parameters = Parameters::new();
        let mut shape = vec![1; rank];
        shape[rank - 1] = values.len();
        let value = Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
        parameters.insert(name, &value, 1.0).unwrap();
        parameters
    }

    fn values(parameters: &Parameters) -> Vec<f32> {
        let first = parameters.iter().next().unwrap();
        first.var.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn gradient(values: &[f32]) -> Gradients {
        Gradients(vec![Some(Tensor::new(values, &Device::Cpu).unwrap())])
    }

    /// The same in f64, one number at a time, as the article writes it.
    fn reference(adam: AdamW, value: f64, gradients: &[f64], rate: f64, decay: f64) -> f64 {
        let (mut value, mut m, mut v) = (value, 0.0, 0.0);
        for (g, t) in gradients.iter().zip(1..) {
            value -= rate * decay * value;
            m = adam.beta1 * m + (1.0 - adam.beta1) * g;
            v = adam.beta2 * v + (1.0 - adam.beta2) * g * g;
            let (m, v): (f64, f64) =
                (m / (1.0 - adam.beta1.powi(t)), v / (1.0 - adam.beta2.powi(t)));
            value -= rate * m / (v.sqrt() + adam.eps);
        }
        value
    }

    #[test]
    fn steps_are_those_of_the_article() {
        let adam = AdamW::default();
        for (rank, decay) in [(1, 0.0), (2, 0.05)] {
            let parameters = one("w", &[1.0, -2.0], rank);
            for (step, g) in [(0, [0.5, 0.1]), (1, [0.2, -0.3]), (2, [-0.1, 0.4])] {
                adam.step(&parameters, &gradient(&g), step, 0.01).unwrap();
            }
            let got = values(&parameters);
            let expected = [
                reference(adam, 1.0, &[0.5, 0.2, -0.1], 0.01, decay),
                reference(adam, -2.0, &[0.1, -0.3, 0.4], 0.01, decay),
            ];
            for (got, expected) in got.iter().zip(expected) {
                assert!((f64::from(*got) - expected).abs() < 1e-6, "{got} {expected}");
            }
        }
    }

    #[test]
    fn long_gradients_are_shortened_together() {
        let adam = AdamW { max_norm: Some(1.0), ..AdamW::default() };
        let (clipped, small) = (one("w", &[1.0, 1.0], 1), one("w", &[1.0, 1.0], 1));
        let norm = adam.step(&clipped, &gradient(&[30.0, 40.0]), 0, 0.1).unwrap();
        assert!((norm - 50.0).abs() < 1e-6);
        adam.step(&small, &gradient(&[0.6, 0.8]), 0, 0.1).unwrap();
        let moments = |p: &Parameters| {
            p.iter().next().unwrap().moments.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        for (a, b) in moments(&clipped).iter().zip(moments(&small)) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
    }

    #[test]
    fn a_gradient_that_is_not_finite_is_named_and_changes_nothing() {
        let parameters = one("vit.blocks.3.mlp.fc1.weight", &[1.0, 2.0], 1);
        for bad in [f32::NAN, f32::INFINITY] {
            let error = AdamW::default().step(&parameters, &gradient(&[0.1, bad]), 7, 0.1);
            let text = error.unwrap_err().to_string();
            assert!(text.contains("vit.blocks.3.mlp.fc1.weight") && text.contains('7'), "{text}");
        }
        assert_eq!(values(&parameters), [1.0, 2.0]);
    }

    #[test]
    fn a_parameter_without_a_gradient_stays() {
        let parameters = one("w", &[1.0], 2);
        AdamW::default().step(&parameters, &Gradients(vec![None]), 0, 0.1).unwrap();
        assert_eq!(values(&parameters), [1.0]);
    }
}
