//! Training: the recipe of TinyGPT-V and of BLIP-2's first stage, and the drawn scenes that
//! tinyfind's own small model learns from.
//!
//! A [`Trainer`] holds the [`Parameters`] that a stage trains and repeats one step: a [`Task`]
//! computes the loss of each shard of the batch, the gradients are summed in the order of the
//! shards, [`AdamW`] moves the parameters. Shards run side by side, one thread each; their number
//! belongs to the recipe and not to the machine, so a run gives the same bits everywhere and
//! continues from a [`checkpoint`] with the same bits.

pub mod adamw;
pub mod checkpoint;
pub mod data;
mod error;
pub mod finetune;
pub mod nano;
pub mod objectives;
pub mod parameters;
pub mod peft;
pub mod scenes;
pub mod schedule;
pub mod stage;
pub mod texts;
mod trainer;
mod workers;

pub use adamw::AdamW;
pub use error::{Result, TrainError};
pub use parameters::{Gradients, Parameters};
pub use peft::Peft;
pub use schedule::Schedule;
pub use stage::Stage;
pub use trainer::{Measure, ShardLoss, StepReport, Task, Trainer, measure};
pub use workers::Workers;
