//! A recipe on disk: stages one after the other, each of which ends in a file that the next one
//! starts from and can be interrupted anywhere.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use candle_core::{DType, Device, Tensor};

use crate::{
    model::weights::Weights,
    train::{
        AdamW, Measure, Parameters, Result, Schedule, StepReport, Task, TrainError, Trainer,
        checkpoint, measure,
    },
};

/// Steps between checkpoints of a running stage.
const CHECKPOINT_EVERY: u64 = 500;
/// Steps after the last one over which a stage is measured.
const MEASURED: u64 = 32;

/// What a run tells while it works.
pub trait Watch {
    /// A step of `stage`, of `total`, is done.
    fn step(&mut self, stage: &str, total: u64, report: &StepReport);
    /// What a stage that was done now makes of pictures after those that it learned from.
    fn measured(&mut self, stage: &str, measure: &Measure);
    /// A stage is done, now or in an earlier run.
    fn done(&mut self, stage: &str, file: &Path);
}

/// A stage of a recipe.
#[derive(Debug)]
pub struct Stage<T> {
    /// Its name, which names its files.
    pub name: &'static str,
    /// Its loss.
    pub task: T,
    /// Its optimiser.
    pub adam: AdamW,
    /// Its learning rates and length.
    pub schedule: Schedule,
    /// Parts of a batch that are computed side by side.
    pub shards: usize,
}

/// Where a recipe works.
#[derive(Debug)]
pub struct Run<'a> {
    /// The folder of its files.
    pub folder: PathBuf,
    /// Set from elsewhere when the run shall save and stop.
    pub stop: &'a AtomicBool,
}

/// How a stage ended.
#[derive(Debug)]
pub enum Ended {
    /// It is done; all tensors that it and the stages before it trained.
    Done(BTreeMap<String, Tensor>),
    /// It was stopped and can be continued.
    Stopped,
}

impl Run<'_> {
    /// The file in which a stage ends.
    pub fn file(&self, stage: &str) -> PathBuf {
        self.folder.join(format!("{stage}.safetensors"))
    }

    /// Runs or continues a stage that trains `parameters` before `weights`, or reads its result
    /// where it is done already. `known` is what earlier stages trained.
    ///
    /// # Errors
    ///
    /// When a step fails or a file cannot be read or written.
    pub fn stage<T: Task>(
        &self,
        stage: &Stage<T>,
        weights: Weights,
        parameters: Parameters,
        known: &BTreeMap<String, Tensor>,
        watch: &mut dyn Watch,
    ) -> Result<Ended> {
        let file = self.file(stage.name);
        let device = weights.device().clone();
        if file.exists() {
            watch.done(stage.name, &file);
            return read(&file, &device).map(Ended::Done);
        }
        let total = stage.schedule.total;
        let running = self.folder.join(format!("{}.running.safetensors", stage.name));
        let about =
            format!("{} {:?} {:?} {} shards", stage.name, stage.adam, stage.schedule, stage.shards);
        let mut trainer =
            Trainer::new(weights, parameters, stage.adam, stage.schedule, stage.shards);
        if running.exists() {
            trainer.step = checkpoint::load(&running, &trainer.parameters, &about)?;
        }
        while trainer.step < total {
            let report = trainer.step(&stage.task)?;
            watch.step(stage.name, total, &report);
            let stopped = self.stop.load(Ordering::Relaxed);
            if stopped || trainer.step.is_multiple_of(CHECKPOINT_EVERY) {
                checkpoint::save(&running, &trainer.parameters, trainer.step, &about)?;
            }
            if stopped {
                return Ok(Ended::Stopped);
            }
        }
        let mut all = known.clone();
        all.extend(trainer.parameters.tensors());
        write(&file, &all)?;
        let removed = std::fs::remove_file(&running);
        if let Err(error) = removed
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(TrainError::Io { path: running, source: error });
        }
        let trained = read(&file, &device)?;
        let weights = trainer.weights().clone().training(trained.clone());
        let fresh = total..total + MEASURED;
        watch.measured(stage.name, &measure(&stage.task, &weights, fresh, stage.shards)?);
        watch.done(stage.name, &file);
        Ok(Ended::Done(trained))
    }
}

/// Reads the tensors of a finished stage as f32.
///
/// # Errors
///
/// When the file cannot be read.
pub fn read(path: &Path, device: &Device) -> Result<BTreeMap<String, Tensor>> {
    let tensors = candle_core::safetensors::load(path, device)?;
    let widened = tensors.into_iter().map(|(name, t)| Ok((name, t.to_dtype(DType::F32)?)));
    widened.collect()
}

/// Writes the tensors of a finished stage as f16, under a name of their own until they are
/// complete. The next stage starts from the file, so that it does not matter whether it follows
/// at once.
fn write(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let partial = path.with_extension("partial");
    let half = |tensor: &Tensor| tensor.detach().to_device(&Device::Cpu)?.to_dtype(DType::F16);
    let tensors = tensors.iter().map(|(name, tensor)| Ok((name.as_str(), half(tensor)?)));
    let tensors: HashMap<&str, Tensor> = tensors.collect::<Result<_>>()?;
    candle_core::safetensors::save(&tensors, &partial)?;
    // On the disk before it has its name: the stage's own checkpoint goes away then.
    checkpoint::put_in_place(&partial, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{
            bundle::{Bundle, WeightType, tests::small_config},
            import::random::{Tokenizers, write_random},
        },
        train::ShardLoss,
    };

    /// Draws a number to the step's own, which changes from step to step.
    struct Follow;

    impl Task for Follow {
        fn loss(&self, weights: &Weights, step: u64, shard: usize) -> Result<ShardLoss> {
            let wanted = (step as f64 * 0.3 + shard as f64).sin();
            let total = (weights.get(1, "number")? - wanted)?.sqr()?.sum_all()?;
            Ok(ShardLoss { total, parts: Vec::new() })
        }
    }

    /// Stops a run after some steps.
    struct StopAfter<'a>(u64, &'a AtomicBool, Vec<String>);

    impl Watch for StopAfter<'_> {
        fn step(&mut self, _: &str, _: u64, report: &StepReport) {
            self.1.store(report.step + 1 == self.0, Ordering::Relaxed);
        }

        fn measured(&mut self, stage: &str, measure: &Measure) {
            assert!(measure.loss > 0.0 && measure.loss < 4.0, "{measure:?}");
            self.2.push(format!("{stage} measured"));
        }

        fn done(&mut self, stage: &str, _: &Path) {
            self.2.push(stage.to_owned());
        }
    }

    fn run(folder: &Path, stop_after: u64) -> (Option<Vec<f32>>, Vec<String>) {
        let path = folder.join("base.gguf");
        write_random(&small_config(), WeightType::F32, 5, &path, Tokenizers::default()).unwrap();
        let weights = Bundle::open(&path).unwrap().weights(&Device::Cpu, DType::F32);
        let mut parameters = Parameters::new();
        let start = Tensor::new(&[0.5_f32], &Device::Cpu).unwrap();
        parameters.insert("number", &start, 1.0).unwrap();
        let schedule = Schedule { start: 0.1, peak: 0.1, end: 0.01, warmup: 0, total: 30 };
        let stage =
            Stage { name: "follow", task: Follow, adam: AdamW::default(), schedule, shards: 2 };
        let stop = AtomicBool::new(false);
        let mut watch = StopAfter(stop_after, &stop, Vec::new());
        let run = Run { folder: folder.to_owned(), stop: &stop };
        let trained =
            match run.stage(&stage, weights, parameters, &BTreeMap::new(), &mut watch).unwrap() {
                Ended::Done(trained) => Some(trained["number"].to_vec1().unwrap()),
                Ended::Stopped => None,
            };
        (trained, watch.2)
    }

    #[test]
    fn a_stage_that_was_stopped_ends_with_the_same_bits() {
        let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (expected, done) = run(whole.path(), 99);
        assert_eq!(done, ["follow measured", "follow"]);
        assert_eq!(run(cut.path(), 7), (None, vec![]));
        assert_eq!(run(cut.path(), 19), (None, vec![]));
        let (got, _) = run(cut.path(), 99);
        assert!(got.is_some() && got == expected, "{got:?} {expected:?}");
        // Once more: it is done already, and nothing of the run is left but its result.
        assert_eq!(run(cut.path(), 1), (got, vec!["follow".to_owned()]));
        let left = std::fs::read_dir(cut.path()).unwrap().count();
        assert_eq!(left, 2, "base.gguf and follow.safetensors");
    }
}
