//! The program: one file per verb, each `Args` and `run`, none with work of its own.
//!
//! A verb prints through `Printer` only (data on stdout, everything else on stderr) and
//! returns an `Outcome`, from which the exit code follows. An error travels up to [`main`],
//! which prints it with its causes and, where one is known, a `hint:` with the next step.

mod ask;
mod caption;
mod completions;
mod demo;
mod doctor;
mod duplicates;
mod eval;
mod exclusions;
mod export;
mod failures;
mod folders;
mod globals;
mod hits;
mod import_captions;
mod index;
mod last_search;
mod listing;
mod model;
mod open;
mod photos;
mod printer;
mod progress;
mod report;
mod search;
mod similar;
mod status;
mod train;
mod units;
mod upkeep;

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use self::globals::Globals;
use self::printer::Printer;

/// Find your photos by what they show, on your own machine.
#[derive(Debug, Parser)]
#[command(name = "tinyfind", version, max_term_width = 100, propagate_version = false)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// See tinyfind work, with an album that it draws itself
    Demo(demo::DemoArgs),
    /// Look at photos once, so that they can be found
    Index(index::IndexArgs),
    /// Find photos by what they show
    Search(search::SearchArgs),
    /// Find photos that look like another one
    Similar(similar::SimilarArgs),
    /// Ask about photos
    Ask(ask::AskArgs),
    /// Say what photos show
    Caption(caption::CaptionArgs),
    /// List photos that are there twice, and which to keep; deletes nothing
    #[command(visible_alias = "duplicates")]
    DuplicatesReport(duplicates::DuplicatesArgs),
    /// Write all that the index knows as JSON, a photo a line
    Export(export::ExportArgs),
    /// Put captions of an export back into the index, without a model
    ImportCaptions(import_captions::ImportCaptionsArgs),
    /// Show what the index holds and how far it has come
    Status(status::StatusArgs),
    /// List the files that could not be indexed, and why
    Failures(failures::FailuresArgs),
    /// Check the device, the model, the index and the disk, and say what to do next
    Doctor(doctor::DoctorArgs),
    /// Download, import, list and check models
    Model(model::ModelArgs),
    /// Train a model
    Train(Box<train::TrainArgs>),
    /// Measure how good a model is
    Eval(eval::EvalArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
}

/// How a command ended, where it did not end in an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It did what was asked, or found something: exit code 0.
    Done,
    /// There was nothing to find or to show: exit code 1.
    Nothing,
    /// Part of the work failed, and was reported: exit code 2, as for an error.
    Failed,
}

impl Outcome {
    /// The exit code that tells it to a shell.
    fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Nothing => 1,
            Self::Failed => 2,
        }
    }
}

/// Runs the program on the arguments of this process.
///
/// Returns 0 when something was done or found, 1 when nothing was, 2 when anything failed.
/// A reader that closes the pipe early (`| head`) has got what it wanted: that is 0.
pub fn main() -> ExitCode {
    ExitCode::from(run(std::env::args_os().collect()))
}

fn run(arguments: Vec<OsString>) -> u8 {
    let arguments = exclusions::mark(&Cli::command(), arguments);
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe is nothing to complain about to whoever closed it.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    report::start_log(&cli.globals);
    let mut printer = Printer::new(&cli.globals);
    let outcome = dispatch(&cli.command, &cli.globals, &mut printer);
    let flushed = printer.flush();
    if printer.pipe_closed() {
        return Outcome::Done.code();
    }
    match outcome.and_then(|outcome| flushed.map(|()| outcome).map_err(Into::into)) {
        Ok(outcome) => outcome.code(),
        Err(error) => {
            printer.error(&error);
            Outcome::Failed.code()
        }
    }
}

/// Runs a command line, beginning with the name of the program, as if it had been typed; but for
/// its flags of every command, in whose place `globals` are heeded.
fn run_line(
    line: Vec<OsString>,
    globals: &Globals,
    printer: &mut Printer,
) -> anyhow::Result<Outcome> {
    let line = exclusions::mark(&Cli::command(), line);
    let cli = Cli::try_parse_from(line)?;
    dispatch(&cli.command, globals, printer)
}

fn dispatch(
    command: &Command,
    globals: &Globals,
    printer: &mut Printer,
) -> anyhow::Result<Outcome> {
    match command {
        Command::Demo(args) => demo::run(args, globals, printer),
        Command::Index(args) => index::run(args, globals, printer),
        Command::Search(args) => search::run(args, globals, printer),
        Command::Similar(args) => similar::run(args, globals, printer),
        Command::Ask(args) => ask::run(args, globals, printer),
        Command::Caption(args) => caption::run(args, globals, printer),
        Command::DuplicatesReport(args) => duplicates::run(args, globals, printer),
        Command::Export(args) => export::run(args, globals, printer),
        Command::ImportCaptions(args) => import_captions::run(args, globals, printer),
        Command::Status(args) => status::run(args, globals, printer),
        Command::Failures(args) => failures::run(args, globals, printer),
        Command::Doctor(args) => doctor::run(args, globals, printer),
        Command::Model(args) => model::run(args, globals, printer),
        Command::Train(args) => train::run(args, globals, printer),
        Command::Eval(args) => eval::run(args, globals, printer),
        Command::Completions(args) => completions::run(args, &mut Cli::command(), printer),
    }
}

/// Reads a number of things to print.
fn positive(text: &str) -> Result<NonZeroUsize, &'static str> {
    text.parse().map_err(|_| "expected a number, 1 or more")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn outcomes_follow_grep() {
        assert_eq!(Outcome::Done.code(), 0);
        assert_eq!(Outcome::Nothing.code(), 1);
        assert_eq!(Outcome::Failed.code(), 2);
    }
}
