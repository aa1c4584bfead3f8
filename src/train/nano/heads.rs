//! Heads that exist in training only.

use candle_core::{Device, Result, Tensor};

use super::init::normal;
use crate::train::{
    Parameters,
    objectives::{self, IGNORED},
};

/// A tensor group of an auxiliary head.
#[derive(Debug, Clone)]
pub struct HeadSpec {
    name: String,
    kind: Layer,
}

#[derive(Debug, Clone, Copy)]
enum Layer {
    Norm(usize),
    Linear { input: usize, output: usize },
}

impl HeadSpec {
    /// A layer norm.
    pub fn norm(prefix: &str, name: &str, width: usize) -> Self {
        Self { name: format!("{prefix}.{name}"), kind: Layer::Norm(width) }
    }

    /// A linear layer with a bias.
    pub fn linear(prefix: &str, name: &str, input: usize, output: usize) -> Self {
        Self { name: format!("{prefix}.{name}"), kind: Layer::Linear { input, output } }
    }

    /// Adds its tensors with their starting values.
    ///
    /// # Errors
    ///
    /// When the device has no room.
    pub fn add(
        &self,
        parameters: &mut Parameters,
        seed: u64,
        device: &Device,
    ) -> crate::train::Result<()> {
        let mut put = |end: &str, value: &Tensor| {
            parameters.insert(format!("{}{end}", self.name), value, 1.0)
        };
        let zeros = |n: usize| Tensor::zeros(n, candle_core::DType::F32, device);
        match self.kind {
            Layer::Norm(width) => {
                put(".weight", &Tensor::ones(width, candle_core::DType::F32, device)?)?;
                put(".bias", &zeros(width)?)
            }
            Layer::Linear { input, output } => {
                let name = format!("{}.weight", self.name);
                let deviation = (input as f32).sqrt().recip();
                put(".weight", &normal(&name, &[output, input], deviation, seed, device)?)?;
                put(".bias", &zeros(output)?)
            }
        }
    }
}

/// As [`objectives::cross_entropy`], but zero where no row has a target.
///
/// # Errors
///
/// When there are not as many targets as rows.
pub fn cross_entropy(logits: &Tensor, targets: &[u32]) -> Result<Tensor> {
    if targets.iter().all(|&target| target == IGNORED) {
        return logits.sum_all()? * 0.0;
    }
    objectives::cross_entropy(logits, targets, 0.0)
}

/// Percentage of the rows with a target whose greatest logit is that of the target; 0 where
/// none has one.
///
/// # Errors
///
/// When there are not as many targets as rows.
pub fn hits(logits: &Tensor, targets: &[u32]) -> Result<f32> {
    if targets.iter().all(|&target| target == IGNORED) {
        return Ok(0.0);
    }
    Ok(100.0 * objectives::accuracy(logits, targets)?)
}
