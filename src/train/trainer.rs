//! The step that every stage repeats.

use std::ops::Range;

use candle_core::Tensor;

use super::{AdamW, Gradients, Parameters, Result, Schedule, TrainError, Workers};
use crate::model::{layers::first_not_finite, weights::Weights};

/// What a stage trains for: the loss of one shard of the batch of a step.
pub trait Task: Sync {
    /// The loss of shard `shard` at step `step`, with networks read from `weights`.
    ///
    /// It depends on its arguments alone, so that a run can be continued anywhere.
    ///
    /// # Errors
    ///
    /// When a tensor does not fit or the data cannot be read.
    fn loss(&self, weights: &Weights, step: u64, shard: usize) -> Result<ShardLoss>;
}

/// The loss of one shard.
#[derive(Debug)]
pub struct ShardLoss {
    /// What is minimised: a scalar that tracks gradients.
    pub total: Tensor,
    /// Its parts and other numbers worth showing, by name, in an order that does not change.
    pub parts: Vec<(&'static str, f32)>,
}

/// What a step did.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// Number of the step, from 0.
    pub step: u64,
    /// Mean loss of the shards.
    pub loss: f32,
    /// Means of the parts over the shards that report them.
    pub parts: Vec<(&'static str, f32)>,
    /// Norm of the gradients before clipping.
    pub norm: f64,
    /// Learning rate.
    pub rate: f64,
}

/// Repeats a step.
#[derive(Debug)]
pub struct Trainer {
    /// What is trained.
    pub parameters: Parameters,
    /// The next step.
    pub step: u64,
    adam: AdamW,
    schedule: Schedule,
    weights: Weights,
    shards: usize,
    workers: Workers,
}

impl Trainer {
    /// A trainer at step 0 of `parameters` before those of `weights`, with `shards` shards.
    pub fn new(
        weights: Weights,
        parameters: Parameters,
        adam: AdamW,
        schedule: Schedule,
        shards: usize,
    ) -> Self {
        let weights = weights.training(parameters.tensors());
        // A GPU works on one shard with all it has, and has room for the tensors of one.
        let workers = Workers::new(if weights.device().is_cpu() { shards } else { 1 });
        Self { parameters, step: 0, adam, schedule, weights, shards, workers }
    }

    /// The weights with the parameters before them, as they are now.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The learning rates.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Threads that can also be used between steps.
    pub fn workers(&self) -> &Workers {
        &self.workers
    }

    /// One step.
    ///
    /// # Errors
    ///
    /// When the task fails or a loss or gradient is not finite; the parameters are then those
    /// before the step.
    pub fn step(&mut self, task: &impl Task) -> Result<StepReport> {
        let step = self.step;
        let (losses, gradients): (Vec<_>, Vec<_>) = self
            .workers
            .run(self.shards, |shard| {
                let ShardLoss { total, parts } = task.loss(&self.weights, step, shard)?;
                let value = total.to_scalar::<f32>()?;
                if !value.is_finite() {
                    let bad = parts.iter().find(|(_, value)| !value.is_finite());
                    let loss = bad.map_or("loss", |(name, _)| name).to_owned();
                    let layer = first_not_finite(|| task.loss(&self.weights, step, shard));
                    return Err(TrainError::Loss { loss, value, layer, step });
                }
                let gradients = self.parameters.gradients(&total.backward()?);
                Ok(((value, parts), gradients))
            })?
            .into_iter()
            .unzip();
        let rate = self.schedule.rate(step);
        let gradients = Gradients::mean(gradients)?;
        let norm = self.adam.step(&self.parameters, &gradients, step, rate)?;
        self.step += 1;
        let loss = losses.iter().map(|(value, _)| value).sum::<f32>() / losses.len().max(1) as f32;
        let parts = mean_parts(losses.into_iter().map(|(_, parts)| parts));
        Ok(StepReport { step, loss, parts, norm, rate })
    }
}

/// What a task said of weights that stayed as they are.
#[derive(Debug, Clone, PartialEq)]
pub struct Measure {
    /// Mean loss.
    pub loss: f32,
    /// Means of the parts over the shards that report them.
    pub parts: Vec<(&'static str, f32)>,
}

/// The losses of `task` over `steps` with `shards` shards each, without learning anything.
///
/// # Errors
///
/// When the task fails.
pub fn measure(
    task: &impl Task,
    weights: &Weights,
    steps: Range<u64>,
    shards: usize,
) -> Result<Measure> {
    let workers = Workers::new(if weights.device().is_cpu() { shards } else { 1 });
    let mut all = Vec::new();
    for step in steps {
        all.extend(workers.run(shards, |shard| {
            let ShardLoss { total, parts } = task.loss(weights, step, shard)?;
            Ok((total.to_scalar::<f32>()?, parts))
        })?);
    }
    let loss = all.iter().map(|(value, _)| value).sum::<f32>() / all.len().max(1) as f32;
    Ok(Measure { loss, parts: mean_parts(all.into_iter().map(|(_, parts)| parts)) })
}

/// Means by name, in the order of first appearance.
fn mean_parts(shards: impl Iterator<Item = Vec<(&'static str, f32)>>) -> Vec<(&'static str, f32)> {
    let mut sums: Vec<(&'static str, f32, f32)> = Vec::new();
    for (name, value) in shards.flatten() {
        match sums.iter_mut().find(|(known, ..)| *known == name) {
            Some((_, sum, n)) => (*sum, *n) = (*sum + value, *n + 1.0),
            None => sums.push((name, value, 1.0)),
        }
    }
    sums.into_iter().map(|(name, sum, n)| (name, sum / n)).collect()
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::{
        model::{
            bundle::{Bundle, WeightType, tests::small_config},
            import::random::{Tokenizers, write_random},
            layers::Linear,
        },
        train::checkpoint,
    };
    use candle_core::Module;

    /// Fits a linear layer to another one on inputs that the step and shard decide.
    struct Fit;

    impl Task for Fit {
        fn loss(&self, weights: &Weights, step: u64, shard: usize) -> Result<ShardLoss> {
            let value = |i: usize| ((i + 7 * shard) as f32 + step as f32 * 0.37).sin();
            let xs = Tensor::from_iter((0..8 * 64).map(value), &Device::Cpu)?.reshape((8, 64))?;
            let layer = Linear::load(&weights.pp("fit"), 64, 32)?;
            let total = (layer.forward(&xs)? - xs.narrow(1, 0, 32)?)?.sqr()?.mean_all()?;
            let parts = vec![("square", total.to_scalar::<f32>()?)];
            Ok(ShardLoss { total, parts })
        }
    }

    fn trainer(start: f32) -> Trainer {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("random.gguf");
        write_random(&small_config(), WeightType::F32, 5, &path, Tokenizers::default()).unwrap();
        let weights = Bundle::open(&path).unwrap().weights(&Device::Cpu, DType::F32);
        let mut parameters = Parameters::new();
        let values = Tensor::full(start, (32, 64), &Device::Cpu).unwrap();
        parameters.insert("fit.weight", &values, 1.0).unwrap();
        let bias = Tensor::zeros(32, DType::F32, &Device::Cpu).unwrap();
        parameters.insert("fit.bias", &bias, 1.0).unwrap();
        let schedule = Schedule { start: 0.0, peak: 0.01, end: 0.001, warmup: 5, total: 60 };
        Trainer::new(weights, parameters, AdamW::default(), schedule, 3)
    }

    fn bits(trainer: &Trainer) -> Vec<u32> {
        let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let all = trainer.parameters.iter().flat_map(|p| {
            values(p.var.as_tensor()).into_iter().chain(values(&p.moments)).collect::<Vec<_>>()
        });
        all.map(f32::to_bits).collect()
    }

    #[test]
    fn a_run_learns_and_reports_its_parts() {
        let mut trainer = trainer(0.01);
        let first = trainer.step(&Fit).unwrap();
        assert_eq!(first.parts, [("square", first.loss)]);
        let last = (1..60).map(|_| trainer.step(&Fit).unwrap()).last().unwrap();
        assert!(last.loss < 0.5 * first.loss, "{} {}", first.loss, last.loss);
        assert_eq!((last.step, trainer.step), (59, 60));
    }

    #[test]
    fn a_run_continued_from_a_checkpoint_has_the_same_bits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.safetensors");
        let mut whole = trainer(0.01);
        for _ in 0..20 {
            whole.step(&Fit).unwrap();
        }
        let mut cut = trainer(0.01);
        for _ in 0..9 {
            cut.step(&Fit).unwrap();
        }
        checkpoint::save(&path, &cut.parameters, cut.step, "fit").unwrap();
        let mut continued = trainer(0.5);
        continued.step = checkpoint::load(&path, &continued.parameters, "fit").unwrap();
        assert_eq!(continued.step, 9);
        for _ in 9..20 {
            continued.step(&Fit).unwrap();
        }
        assert_eq!(bits(&whole), bits(&continued));
        let other = checkpoint::load(&path, &continued.parameters, "other").unwrap_err();
        assert!(other.to_string().contains("other settings"), "{other}");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.truncate(bytes.len() / 2);
        std::fs::write(&path, bytes).unwrap();
        assert!(checkpoint::load(&path, &continued.parameters, "fit").is_err());
    }

    #[test]
    fn a_loss_that_is_not_finite_stops_the_run_before_the_parameters_change() {
        let mut trainer = trainer(f32::INFINITY);
        let before = bits(&trainer);
        let error = trainer.step(&Fit).unwrap_err();
        assert!(matches!(error, TrainError::Loss { ref loss, .. } if loss == "square"), "{error}");
        assert!(error.to_string().contains("first in `fit`"), "{error}");
        assert_eq!(bits(&trainer), before);
    }
}
