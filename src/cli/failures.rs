//! `tinyfind failures`: the files that could not be read, and why.

use clap::Args;
use serde::Serialize;

use super::globals::Globals;
use super::hits::{JsonPath, print_json};
use super::printer::{FAINT, Printer};
use super::{Outcome, open};

/// List the files that could not be indexed, and why.
#[derive(Debug, Args)]
#[command(after_help = "A file is tried again when it changes, or by \
`tinyfind index --retry-failed FOLDER`.

JSON keys: path, reason (and path_bytes where the path is not UTF-8).
Exit codes: 0 there are such files, 1 there are none, 2 an error.")]
pub(crate) struct FailuresArgs {
    /// Print one JSON object a line
    #[arg(long, conflicts_with = "null")]
    json: bool,

    /// Print paths only, each ended by a NUL byte: for `xargs -0`
    #[arg(long, short = '0')]
    null: bool,
}

#[derive(Debug, Serialize)]
struct JsonFailure<'a> {
    #[serde(flatten)]
    path: JsonPath,
    reason: &'a str,
}

pub(crate) fn run(
    args: &FailuresArgs,
    globals: &Globals,
    printer: &mut Printer,
) -> anyhow::Result<Outcome> {
    let failures = open::open_index(globals)?.failures()?;
    for failure in &failures {
        if args.json {
            let path = failure.path.as_path().into();
            print_json(printer, &JsonFailure { path, reason: &failure.reason })?;
        } else if args.null {
            printer.raw_path(&failure.path)?;
            printer.stdout().write_all(b"\0")?;
        } else {
            printer.path(&failure.path)?;
            let reason = printer.paint(FAINT, &failure.reason);
            writeln!(printer.stdout(), "\n   {reason}")?;
        }
    }
    if failures.is_empty() {
        printer.note("every photo could be read");
        return Ok(Outcome::Nothing);
    }
    Ok(Outcome::Done)
}
