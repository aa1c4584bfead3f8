//! Flags that say which photos are printed and how, for every verb that finds photos.

use std::io;
use std::num::NonZeroUsize;
use std::path::Path;

use clap::Args;

use super::hits::{print_hits, print_hits_as_json};
use super::positive;
use super::printer::Printer;
use crate::search::Hit;

/// Which of the photos found are printed, and how.
#[derive(Debug, Args)]
pub(crate) struct HitArgs {
    /// How many photos to print at most
    #[arg(long, short, value_name = "N", default_value = "10", value_parser = positive)]
    pub(crate) top: NonZeroUsize,

    #[command(flatten)]
    pub(crate) listing: Listing,

    /// Leave out photos that score less, 0 to 1
    #[arg(long, value_name = "SCORE", default_value = "0", hide_default_value = true)]
    #[arg(value_parser = score, allow_negative_numbers = true)]
    pub(crate) min_score: f32,
}

/// How photos are printed.
#[derive(Debug, Args)]
pub(crate) struct Listing {
    /// Print paths only, one a line
    #[arg(long, short = 'f')]
    filepath_only: bool,

    /// Print paths only, each ended by a NUL byte: for `xargs -0`
    #[arg(long, short = '0')]
    null: bool,

    /// Print one JSON object a line
    #[arg(long, conflicts_with_all = ["filepath_only", "null"])]
    json: bool,
}

/// What the flags mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// For a person.
    Text,
    /// A JSON object a line.
    Json,
    /// Paths, each ended by this byte.
    Paths(u8),
}

impl Listing {
    pub(crate) fn form(&self) -> Form {
        match (self.json, self.null, self.filepath_only) {
            (true, _, _) => Form::Json,
            (false, true, _) => Form::Paths(b'\0'),
            (false, false, true) => Form::Paths(b'\n'),
            (false, false, false) => Form::Text,
        }
    }

    /// Prints hits, and how their scores came about if `explain`.
    pub(crate) fn print(
        &self,
        printer: &mut Printer,
        hits: &[Hit],
        explain: bool,
    ) -> io::Result<()> {
        match self.form() {
            Form::Text => print_hits(printer, hits, explain),
            Form::Json => print_hits_as_json(printer, hits, explain),
            Form::Paths(end) => hits.iter().try_for_each(|hit| print_path(printer, &hit.path, end)),
        }
    }
}

/// A path, byte for byte, and the byte that ends it.
pub(crate) fn print_path(printer: &mut Printer, path: &Path, end: u8) -> io::Result<()> {
    printer.raw_path(path)?;
    printer.stdout().write_all(&[end])
}

/// Reads a score.
pub(crate) fn score(text: &str) -> Result<f32, &'static str> {
    match text.parse() {
        Ok(score) if (0.0..=1.0).contains(&score) => Ok(score),
        _ => Err("a score is a number from 0 to 1"),
    }
}
