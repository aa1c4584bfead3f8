//! `tinyfind model`: bundles of weights.

mod bar;
mod import;
mod info;
mod list;
mod pull;
mod summary;
mod verify;

use std::ffi::OsStr;

use clap::{Args, Subcommand};

use super::Outcome;
use super::globals::Globals;
use super::printer::Printer;
use crate::model::bundle::Bundle;
use crate::model::registry;

/// Download, import, list and check models.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    #[command(subcommand)]
    command: ModelCommand,
}

#[derive(Debug, Subcommand)]
enum ModelCommand {
    /// Download the published files of a model and install it
    Pull(pull::PullArgs),
    /// Make a bundle of published files on disk
    Import(import::ImportArgs),
    /// List the installed models
    List(list::ListArgs),
    /// Show what a bundle holds and what it was made from
    Info(info::InfoArgs),
    /// Read every tensor of a bundle and check it
    Verify(verify::VerifyArgs),
}

pub(crate) fn run(
    args: &ModelArgs,
    globals: &Globals,
    printer: &mut Printer,
) -> anyhow::Result<Outcome> {
    match &args.command {
        ModelCommand::Pull(args) => pull::run(args, globals, printer),
        ModelCommand::Import(args) => import::run(args, globals, printer),
        ModelCommand::List(args) => list::run(args, printer),
        ModelCommand::Info(args) => info::run(args, globals, printer),
        ModelCommand::Verify(args) => verify::run(args, globals, printer),
    }
}

/// Opens the bundle that a command names, else that of `--model`, else the default one.
fn open(named: Option<&OsStr>, globals: &Globals) -> anyhow::Result<Bundle> {
    Ok(registry::resolve(named.or(globals.model.as_deref()))?.open()?)
}
