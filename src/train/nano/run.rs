//! A recipe on disk: stages one after the other, each of which ends in a file that the next one
//! starts from and can be interrupted anywhere.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use candle_core::{DType, Device, Tensor};

use crate::{
    model::{bundle::RecipeStage, weights::Weights},
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
    /// Pictures of a step.
    pub batch: usize,
}

impl<T> Stage<T> {
    /// What a bundle says of it.
    fn record(&self) -> RecipeStage {
        RecipeStage {
            name: self.name.to_owned(),
            steps: self.schedule.total,
            batch: self.batch,
            rate: self.schedule.peak,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// Where a recipe works.
#[derive(Debug)]
pub struct Run<'a> {
    /// The folder of its files.
    pub folder: PathBuf,
    /// Set from elsewhere when the run shall save and stop.
    pub stop: &'a AtomicBool,
}

/// What the stages so far made.
#[derive(Debug, Clone, Default)]
pub struct Trained {
    /// Every tensor that one of them trained, as the last one left it.
    pub tensors: BTreeMap<String, Tensor>,
    /// The stages, in their order.
    pub stages: Vec<RecipeStage>,
}

/// How a stage ended.
#[derive(Debug)]
pub enum Ended {
    /// It is done; what it and the stages before it made.
    Done(Trained),
    /// It was stopped and can be continued.
    Stopped,
}

impl Run<'_> {
    /// Keeps other runs out of the folder, until the file that is returned is closed.
    ///
    /// # Errors
    ///
    /// When another one is at work there or the file cannot be written.
    pub fn lock(&self) -> Result<File> {
        let path = self.folder.join("lock");
        let file = File::create(&path).map_err(|source| TrainError::Io { path, source })?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(TrainError::InUse { folder: self.folder.clone() }),
            Err(TryLockError::Error(source)) => {
                Err(TrainError::Io { path: self.folder.join("lock"), source })
            }
        }
    }

    /// The file in which a stage ends.
    pub fn file(&self, stage: &str) -> PathBuf {
        self.folder.join(format!("{stage}.safetensors"))
    }

    /// Runs or continues a stage that trains `parameters` before `weights`, or reads its result
    /// where it is done already. `known` is what earlier stages made.
    ///
    /// # Errors
    ///
    /// When a step fails, a file cannot be read or written, or the result is that of a stage with
    /// other settings.
    pub fn stage<T: Task>(
        &self,
        stage: &Stage<T>,
        weights: Weights,
        parameters: Parameters,
        known: &Trained,
        watch: &mut dyn Watch,
    ) -> Result<Ended> {
        let file = self.file(stage.name);
        let device = weights.device().clone();
        if file.exists() {
            let trained = read(&file, &device)?;
            let is_ours = |found: &RecipeStage| {
                let ours = stage.record();
                let version = ours.version.clone();
                RecipeStage { version, ..found.clone() } == ours
            };
            if !trained.stages.last().is_some_and(is_ours) {
                let by = trained.stages.last().map_or("an older version", |it| &it.version);
                let what =
                    format!("tinyfind {by} made it with other settings; name another folder");
                return Err(TrainError::Checkpoint { path: file, what });
            }
            watch.done(stage.name, &file);
            return Ok(Ended::Done(trained));
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
        all.tensors.extend(trainer.parameters.tensors());
        all.stages.push(stage.record());
        write(&file, &all)?;
        let removed = std::fs::remove_file(&running);
        if let Err(error) = removed
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(TrainError::Io { path: running, source: error });
        }
        let trained = read(&file, &device)?;
        let weights = trainer.weights().clone().training(trained.tensors.clone());
        let fresh = total..total + MEASURED;
        watch.measured(stage.name, &measure(&stage.task, &weights, fresh, stage.shards)?);
        watch.done(stage.name, &file);
        Ok(Ended::Done(trained))
    }
}

/// Header entry of the stages.
const STAGES: &str = "tinyfind.stages";

/// Reads what a finished stage left, tensors as f32.
///
/// # Errors
///
/// When the file cannot be read.
pub fn read(path: &Path, device: &Device) -> Result<Trained> {
    let bad = |what: String| TrainError::Checkpoint { path: path.to_owned(), what };
    let bytes =
        std::fs::read(path).map_err(|source| TrainError::Io { path: path.to_owned(), source })?;
    let (_, header) =
        safetensors::SafeTensors::read_metadata(&bytes).map_err(|e| bad(e.to_string()))?;
    let stages = header.metadata().as_ref().and_then(|about| about.get(STAGES));
    let stages = stages.map_or_else(|| Ok(Vec::new()), |json| serde_json::from_str(json));
    let stages = stages.map_err(|e| bad(format!("its stages cannot be understood: {e}")))?;
    let tensors = candle_core::safetensors::load_buffer(&bytes, device)?;
    let widened = tensors.into_iter().map(|(name, t)| Ok((name, t.to_dtype(DType::F32)?)));
    Ok(Trained { tensors: widened.collect::<Result<_>>()?, stages })
}

/// Writes what the stages so far made, tensors as f16, under a name of its own until it is
/// complete. The next stage starts from the file, so that it does not matter whether it follows
/// at once.
pub(super) fn write(path: &Path, trained: &Trained) -> Result<()> {
    let partial = path.with_extension("partial");
    let io = |source| TrainError::Io { path: partial.clone(), source };
    let half = |tensor: &Tensor| tensor.detach().to_device(&Device::Cpu)?.to_dtype(DType::F16);
    let tensors = trained.tensors.iter().map(|(name, tensor)| Ok((name.as_str(), half(tensor)?)));
    let tensors: BTreeMap<&str, Tensor> = tensors.collect::<Result<_>>()?;
    let stages = serde_json::to_string(&trained.stages).map_err(|e| io(e.into()))?;
    let about = HashMap::from([(STAGES.to_owned(), stages)]);
    let bytes =
        safetensors::serialize(&tensors, Some(about)).map_err(|e| io(std::io::Error::other(e)))?;
    std::fs::write(&partial, bytes).map_err(io)?;
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
        let adam = AdamW::default();
        let stage = Stage { name: "follow", task: Follow, adam, schedule, shards: 2, batch: 4 };
        let stop = AtomicBool::new(false);
        let mut watch = StopAfter(stop_after, &stop, Vec::new());
        let run = Run { folder: folder.to_owned(), stop: &stop };
        let trained = match run
            .stage(&stage, weights, parameters, &Trained::default(), &mut watch)
            .unwrap()
        {
            Ended::Done(trained) => {
                let [stage] = &trained.stages[..] else { panic!("{:?}", trained.stages) };
                assert_eq!((&*stage.name, stage.steps, stage.batch), ("follow", 30, 4));
                Some(trained.tensors["number"].to_vec1().unwrap())
            }
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
