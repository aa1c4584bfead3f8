//! tinyfind: semantic search for photo folders on your own machine.
//!
//! The crate is built in floors; imports point downwards only (`tests/tidy.rs` checks it):
//!
//! - floor 4, the program: [`cli`];
//! - floor 3, the jobs: [`indexer`], [`search`], [`ask`];
//! - floor 2, the model: [`model`] implements [`vlm::Vlm`] with TinyGPT-V on candle;
//! - floor 1, files and the contract with a model: [`crawl`], [`decode`], [`vlm`];
//! - floor 0, the crate [`tinyfind_index`]: catalogue, text and vectors.

pub mod crawl;
pub mod decode;
pub mod vlm;

pub mod model;

pub mod ask;
pub mod indexer;
pub mod search;

pub mod cli;
