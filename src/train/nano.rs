//! The recipe of `nano`: TinyGPT-V's architecture in small, taught drawn scenes.
//!
//! Its stages are those of the full model with more before them: the vision tower alone, then
//! the retrieval Q-Former (BLIP-2 stage 1) in two halves, then the language model. Losses that a
//! stage adds to the published ones are auxiliary: their heads live in the run, under
//! `auxiliary.`, and not in the bundle.
//!
//! The result is compiled into the program: `src/model/registry/nano.gguf`.

pub mod assignment;
pub mod claims;
pub mod config;
pub mod heads;
pub mod init;
pub mod language;
pub mod matching;
pub mod pictures;
pub mod queries;

pub mod recipe;
pub mod run;
pub mod set;
pub mod tokens;
pub mod vision;
pub mod words;
