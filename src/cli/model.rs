//! `tinyfind model`: bundles of weights.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::globals::Globals;
use super::printer::Printer;
use super::{Outcome, folders, open};

/// Download, import, list and check models.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    #[command(subcommand)]
    command: ModelCommand,
}

#[derive(Debug, Subcommand)]
enum ModelCommand {
    /// List the bundles in the models folder
    List,
}

pub(crate) fn run(
    args: &ModelArgs,
    _globals: &Globals,
    printer: &mut Printer,
) -> anyhow::Result<Outcome> {
    match args.command {
        ModelCommand::List => list(printer),
    }
}

fn list(printer: &mut Printer) -> anyhow::Result<Outcome> {
    let bundles: Vec<PathBuf> = open::bundles_in(&folders::models()?)?;
    for bundle in &bundles {
        printer.path(bundle)?;
        writeln!(printer.stdout())?;
    }
    Ok(if bundles.is_empty() { Outcome::Nothing } else { Outcome::Done })
}
