//! The program as a person meets it: exit codes, stdout and stderr of the real binary.

#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

#[path = "cli/demo.rs"]
mod demo;
#[path = "cli/env.rs"]
mod env;
#[path = "cli/evaluation.rs"]
mod evaluation;
#[path = "cli/export.rs"]
mod export;
#[allow(unreachable_pub, reason = "shared by test binaries")]
#[path = "common/golden.rs"]
mod golden;
#[path = "cli/journey.rs"]
mod journey;
#[path = "cli/likeness.rs"]
mod likeness;
#[path = "cli/nano.rs"]
mod nano;
#[path = "cli/queries.rs"]
mod queries;
#[path = "cli/upkeep.rs"]
mod upkeep;
#[path = "cli/usage.rs"]
mod usage;
