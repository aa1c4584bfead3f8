//! Fine-tuning on one's own pictures: `tinyfind train --stage N`.
//!
//! ```text
//! data file -> records -> examples: prompt, picture, answer            data, examples
//! pictures -> frozen ViT and Q-Former -> visual tokens, in a file      tokens
//! tokens and examples -> projections, Phi-2 with LoRA -> loss          task
//! at the end: a bundle with what was learned, and where it came from   write
//! ```
//!
//! [`Plan::new`] reads the data and settles every number; [`Plan::run`] trains. A run writes a
//! checkpoint beside its result now and then and when it is stopped; the same request then goes
//! on from there and ends in the same bits.

mod check;
mod estimate;
mod examples;
mod plan;
mod run;
mod task;
mod tokens;
mod write;

use std::path::{Path, PathBuf};

use candle_core::DType;

pub use self::{
    estimate::{Footprint, Load, footprint},
    examples::Prompts,
    plan::{Plan, Time},
    run::{Done, Outcome},
};
use super::{
    Stage, StepReport, TrainError,
    data::{Bad, DataError, Layout},
    peft::Peft,
};
use crate::model::{bundle::BundleError, prompt::PromptError, registry::Location};

/// Why a fine-tuning cannot begin or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FineTuneError {
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// No record can be learned from in this stage.
    #[error("none of {count} records can be learned from; {first}")]
    Nothing {
        /// Records that could be read.
        count: usize,
        /// The first of them and what is wrong with it.
        first: Bad,
    },
    /// No picture can be read.
    #[error("none of the pictures can be read")]
    NoPictures,
    /// The stage has no recipe for one's own data.
    #[error("stage {0} cannot be followed with one's own data: use 1, 2, 3 or 4")]
    Stage(Stage),
    /// A number of the request cannot be.
    #[error("{what} cannot be {value}")]
    Number {
        /// What the number is.
        what: &'static str,
        /// The number.
        value: f64,
    },
    /// The model lacks a part.
    #[error("the model `{model}` has no {part} part and cannot be fine-tuned")]
    NoPart {
        /// Its name.
        model: String,
        /// What is missing.
        part: &'static str,
    },
    /// What was asked for cannot be stored beside these weights.
    #[error("{0}")]
    Adapter(String),
    /// A CPU computes in f32.
    #[error("{0:?} is no type to train in on this device")]
    Dtype(DType),
    /// The result is there already.
    #[error("`{}` is there already", path.display())]
    Exists {
        /// The result.
        path: PathBuf,
    },
    /// The result would take the place of something that the run reads.
    #[error("`{}` is read by this run and cannot be its result", path.display())]
    Overwrites {
        /// The result.
        path: PathBuf,
    },
    /// Two runs with one result.
    #[error("another run is using `{}`", path.display())]
    InUse {
        /// The file of visual tokens.
        path: PathBuf,
    },
    /// The file of visual tokens is something else.
    #[error("`{}` holds no visual tokens and is left alone", path.display())]
    NotTokens {
        /// That file.
        path: PathBuf,
    },
    /// A tokenizer in the bundle is damaged.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// Training stopped.
    #[error(transparent)]
    Train(#[from] TrainError),
}

impl From<BundleError> for FineTuneError {
    fn from(error: BundleError) -> Self {
        Self::Train(error.into())
    }
}

impl From<candle_core::Error> for FineTuneError {
    fn from(error: candle_core::Error) -> Self {
        Self::Train(error.into())
    }
}

/// Result of fine-tuning.
pub type Result<T> = std::result::Result<T, FineTuneError>;

/// What is not learned from, to see whether what is learned holds elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub enum Validation {
    /// About this part of the pictures, 0 to 1.
    Part(f64),
    /// All of another file.
    File(PathBuf),
}

/// How long to train.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Length {
    /// So often over the data.
    Epochs(f64),
    /// So many steps.
    Steps(u64),
}

/// What is asked for. `None` stands for what the stage has, or for what fits.
#[derive(Debug, Clone)]
pub struct Request {
    /// Bundle to begin with.
    pub model: Location,
    /// File, or folder in MiniGPT-4's layout.
    pub data: PathBuf,
    /// Its layout.
    pub layout: Option<Layout>,
    /// Folder of the pictures.
    pub images: Option<PathBuf>,
    /// What is held out.
    pub validation: Validation,
    /// The result.
    pub output: PathBuf,
    /// Its name.
    pub name: String,
    /// File of visual tokens that outlives the run.
    pub tokens: Option<PathBuf>,
    /// Recipe to follow: stages 1 to 4.
    pub stage: Stage,
    /// The words around a picture.
    pub prompts: Prompts,
    /// What is trained beside frozen weights.
    pub peft: Option<Peft>,
    /// Type to compute in.
    pub dtype: Option<DType>,
    /// Examples that are computed together.
    pub batch: Option<usize>,
    /// Batches of a step.
    pub accumulate: Option<usize>,
    /// How long.
    pub length: Option<Length>,
    /// Highest learning rate; the last one keeps its ratio to it.
    pub rate: Option<f64>,
    /// Steps in which the rate rises.
    pub warmup: Option<u64>,
    /// Weight decay.
    pub weight_decay: Option<f64>,
    /// Greatest norm of the gradients.
    pub clip: Option<f64>,
    /// What random choices begin with.
    pub seed: u64,
    /// Most tokens of an answer.
    pub answer_tokens: Option<usize>,
    /// Keep LoRA beside the weights.
    pub keep_lora: bool,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Begin anew, whatever checkpoint or result is there.
    pub restart: bool,
}

impl Request {
    /// A request with the defaults of `stage`.
    pub fn new(model: Location, data: PathBuf, stage: Stage, output: PathBuf) -> Self {
        let name = output.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Self {
            model,
            data,
            layout: None,
            images: None,
            validation: Validation::Part(0.05),
            output,
            name,
            tokens: None,
            stage,
            prompts: Prompts::Asked,
            peft: None,
            dtype: None,
            batch: None,
            accumulate: None,
            length: None,
            rate: None,
            warmup: None,
            weight_decay: None,
            clip: None,
            seed: 42,
            answer_tokens: None,
            keep_lora: false,
            checkpoint_every: 100,
            restart: false,
        }
    }

    /// The result's name with `.suffix` added.
    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.output.file_name().unwrap_or_default().to_owned();
        name.push(suffix);
        self.output.with_file_name(name)
    }

    /// The file from which a stopped run goes on.
    pub fn checkpoint(&self) -> PathBuf {
        self.beside(".checkpoint")
    }

    /// The file of visual tokens.
    pub fn token_file(&self) -> PathBuf {
        self.tokens.clone().unwrap_or_else(|| self.beside(".tokens"))
    }
}

/// What a run tells while it works.
pub trait Watch {
    /// So many of all pictures were looked at, now or by an earlier run.
    fn looked(&mut self, done: u64, total: u64);
    /// A picture cannot be read.
    fn bad_picture(&mut self, path: &Path, reason: &str);
    /// The run goes on from a checkpoint with `step` of `total`.
    fn continued(&mut self, step: u64, total: u64);
    /// A step, of `total`, is done.
    fn step(&mut self, total: u64, report: &StepReport);
    /// The mean loss over the answers held out, before step `step`.
    fn validated(&mut self, step: u64, loss: f64);
    /// The result is being written.
    fn writing(&mut self);
}
