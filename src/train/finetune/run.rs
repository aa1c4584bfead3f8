//! A run from its first picture to its result.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use super::{
    FineTuneError, Plan, Result, Validation, Watch,
    examples::Examples,
    task::Seen,
    tokens::{TokenCache, look_at, vision_dtype},
    write::{self, Made},
};
use crate::{
    model::bundle::{About, Source, Training},
    train::{Schedule, TrainError, Trainer, checkpoint, data::Data, peft::Peft},
};

/// Most often that the answers held out are looked at in a run.
const MOST_VALIDATIONS: u64 = 50;

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// It is done.
    Done(Box<Done>),
    /// It was stopped while the pictures were looked at.
    StoppedLooking,
    /// It was stopped before this step, of so many, and can be continued.
    Stopped {
        /// The next step.
        step: u64,
        /// Steps of the run.
        total: u64,
    },
}

/// What a run made.
#[derive(Debug)]
pub struct Done {
    /// The result.
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// What it says about itself.
    pub about: About,
    /// Steps of the run.
    pub steps: u64,
    /// Answers that were learned.
    pub examples: usize,
    /// Answers that were held out.
    pub held_out: usize,
    /// Records left out because their picture cannot be read.
    pub unreadable: usize,
    /// Loss of the last step; `None` where an earlier run did it.
    pub loss: Option<f32>,
    /// Mean loss over the answers held out, in nats a token.
    pub validation_loss: Option<f64>,
    /// Whether LoRA stands beside the weights.
    pub keeps_lora: bool,
}

impl Plan {
    /// Trains, or goes on where an equal run was stopped, and writes the result. `stop` set from
    /// elsewhere saves and stops after the step in flight.
    ///
    /// # Errors
    ///
    /// When a picture's tokens cannot be computed, a loss or gradient is not finite, or a file
    /// cannot be read or written; what was saved stays.
    pub fn run(&self, watch: &mut dyn Watch, stop: &AtomicBool) -> Result<Outcome> {
        let request = &self.request;
        let (saved, token_file) = (request.checkpoint(), request.token_file());
        if request.output.exists() && !saved.exists() && !request.restart {
            return Err(FineTuneError::Exists { path: request.output.clone() });
        }
        let Some(captioner) = &self.bundle.config().captioner else {
            let model = self.bundle.name().to_owned();
            return Err(FineTuneError::NoPart { model, part: "captioning" });
        };
        let model = format!("{} {:?}", self.bundle.fingerprint(), vision_dtype(&self.device));
        let mut cache = TokenCache::open(&token_file, &model, captioner.queries, captioner.hidden)?;
        let pictures = &self.pictures.paths;
        let looked = look_at(&mut cache, &self.bundle, &self.device, pictures, watch, stop)?;
        if looked.stopped {
            return Ok(Outcome::StoppedLooking);
        }
        let readable = |picture: u32| looked.slots[picture as usize].is_some();
        let (mut learn, mut held) = (self.learn.clone(), self.held.clone());
        let unreadable = learn.retain(readable) + held.retain(readable);
        if learn.list.is_empty() {
            return Err(FineTuneError::NoPictures);
        }

        let schedule = self.schedule(learn.list.len());
        let about = self.about(&schedule, &learn, &held);
        let mut trainer = Trainer::new(
            self.bundle.weights(&self.device, self.dtype),
            self.parameters()?,
            self.adam,
            schedule,
            self.shards,
        );
        if saved.exists() && !request.restart {
            trainer.step = checkpoint::load(&saved, &trainer.parameters, &about)?;
            watch.continued(trainer.step, schedule.total);
        }
        let task = self.learning(&learn, Seen::Cache { cache: &cache, slots: &looked.slots })?;
        let validate = |trainer: &Trainer, watch: &mut dyn Watch| -> Result<Option<f64>> {
            if held.list.is_empty() {
                return Ok(None);
            }
            let loss = task.mean_loss(trainer.weights(), &held)?;
            watch.validated(trainer.step, loss);
            Ok(Some(loss))
        };
        if trainer.step == 0 {
            validate(&trainer, watch)?;
        }
        let mut loss = None;
        let between = self.steps_between_validations(&schedule, learn.list.len());
        while trainer.step < schedule.total {
            let report = trainer.step(&task)?;
            watch.step(schedule.total, &report);
            loss = Some(report.loss);
            let stopped = stop.load(Ordering::Relaxed) && trainer.step < schedule.total;
            let last = trainer.step == schedule.total;
            if stopped || last || trainer.step.is_multiple_of(request.checkpoint_every.max(1)) {
                checkpoint::save(&saved, &trainer.parameters, trainer.step, &about)?;
            }
            if stopped {
                return Ok(Outcome::Stopped { step: trainer.step, total: schedule.total });
            }
            if trainer.step.is_multiple_of(between) && !last {
                validate(&trainer, watch)?;
            }
        }
        let validation_loss = validate(&trainer, watch)?;

        watch.writing();
        let made = Made {
            base: &self.bundle,
            name: &request.name,
            stage: self.wording.stage,
            peft: &self.peft,
            keep: self.keep,
            training: self.training(&schedule, learn.list.len(), validation_loss),
        };
        let about = write::write(&request.output, &made, &trainer.parameters)?;
        remove(&saved)?;
        if request.tokens.is_none() {
            remove(&token_file)?;
        }
        let io = |source| TrainError::Io { path: request.output.clone(), source };
        Ok(Outcome::Done(Box::new(Done {
            path: request.output.clone(),
            bytes: std::fs::metadata(&request.output).map_err(io)?.len(),
            about,
            steps: schedule.total,
            examples: learn.list.len(),
            held_out: held.list.len(),
            unreadable,
            loss,
            validation_loss,
            keeps_lora: self.keep,
        })))
    }

    /// Every epoch, but not more than so often in a run.
    fn steps_between_validations(&self, schedule: &Schedule, examples: usize) -> u64 {
        let epoch = examples.div_ceil(self.batch * self.shards) as u64;
        epoch.max(schedule.total.div_ceil(MOST_VALIDATIONS))
    }

    /// Everything that decides on the bits of a run, by which its checkpoint knows it.
    fn about(&self, schedule: &Schedule, learn: &Examples, held: &Examples) -> String {
        let lists = format!("{:?} {:?}", learn.list, held.list);
        format!(
            "fine-tuning, tinyfind {}\nmodel {}\nstage {} {:?} {:?}\n{:?}\n{:?} {:?}\n{} x {}, \
             {:?} on {}\nseed {}, answers of {}\ndata {}\nexamples {}",
            env!("CARGO_PKG_VERSION"),
            self.bundle.fingerprint(),
            self.request.stage,
            self.request.prompts,
            self.peft,
            self.request.validation,
            self.adam,
            schedule,
            self.batch,
            self.shards,
            self.dtype,
            if self.device.is_cpu() { "a CPU" } else { "a GPU" },
            self.request.seed,
            self.wording.room.answer,
            self.data.blake3,
            blake3::hash(lists.as_bytes()),
        )
    }

    /// What the result says about this run.
    fn training(&self, schedule: &Schedule, examples: usize, loss: Option<f64>) -> Training {
        let Data { path, size, blake3, .. } = &self.data;
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let rest = "projections and norms";
        let method = match &self.peft {
            Peft::None => rest.to_owned(),
            Peft::Lora(additions) => format!("LoRA of rank {}, {rest}", additions.rank),
            Peft::Dora(additions) => format!("DoRA of rank {}, {rest}", additions.rank),
        };
        Training {
            base: self.bundle.name().to_owned(),
            base_fingerprint: self.bundle.fingerprint().to_owned(),
            stage: self.wording.stage,
            method,
            data: Source { role: "data".to_owned(), file, size: *size, blake3: blake3.clone() },
            examples,
            steps: schedule.total,
            batch: self.batch * self.shards,
            rate: schedule.peak,
            seed: self.request.seed,
            validation_loss: loss,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Whether there is a checkpoint to go on from.
    pub fn is_begun(&self) -> bool {
        self.request.checkpoint().exists() && !self.request.restart
    }

    /// The file that is held out, where there is one.
    pub fn validation_file(&self) -> Option<&Path> {
        match &self.request.validation {
            Validation::File(path) => Some(path),
            Validation::Part(_) => None,
        }
    }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(TrainError::Io { path: path.to_owned(), source }.into())
        }
        _ => Ok(()),
    }
}
