//! `tinyfind export`: all that the index knows.

use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};

use super::globals::Globals;
use super::printer::Printer;
use super::{Outcome, open, units};
use crate::export::{ExportOptions, Vectors, export, export_to_file};

/// Write all that the index knows as JSON, a photo a line.
#[derive(Debug, Args)]
#[command(
    after_help = "The first line holds format (tinyfind-export), version, written_by, model (name,
fingerprint and sizes), generation, photos, captioned and failed. The others are
photos, by number.

JSON keys of a photo: path, doc (its number), hash (BLAKE3 of the file), file_bytes,
  caption, title, description, keywords, place, taken, taken_from, camera, lens, gps,
  format, width, height, picture_hash (64 bits, hexadecimal), and with `--vectors`
  vectors: base64 of little-endian 32-bit floats, row by row, or with
  `--vectors=arrays` a list of rows. What is unknown is null. `path_bytes` is there
  only where the path is not UTF-8, and holds its bytes.
JSON keys of a failure: path, failure.

`tinyfind import-captions` puts the captions back.

Examples:
  tinyfind export -o photos.jsonl
  tinyfind export | jq -r 'select(.caption) | [.path, .caption] | @tsv'

Exit codes: 0 something was written, 1 the index is empty, 2 an error."
)]
pub(crate) struct ExportArgs {
    /// File to write, whole or not at all; `-` for stdout
    #[arg(long, short, value_name = "FILE", default_value = "-", hide_default_value = true)]
    output: PathBuf,

    /// Write the image-text vectors as well, as base64 or arrays [default: base64]
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "base64", value_parser = vectors())]
    vectors: Option<Vectors>,

    /// Write the files that could not be indexed as well
    #[arg(long)]
    failures: bool,
}

fn vectors() -> impl clap::builder::TypedValueParser<Value = Vectors> {
    PossibleValuesParser::new(["base64", "arrays"]).map(|how| match how.as_str() {
        "arrays" => Vectors::Arrays,
        _ => Vectors::Base64,
    })
}

pub(crate) fn run(
    args: &ExportArgs,
    globals: &Globals,
    printer: &mut Printer,
) -> anyhow::Result<Outcome> {
    let reader = open::open_index(globals)?;
    let options = ExportOptions { vectors: args.vectors, failures: args.failures };
    let exported = if args.output == Path::new("-") {
        export(&reader, options, printer.stdout())?
    } else {
        export_to_file(&reader, options, &args.output)?
    };
    let photos = units::counted(exported.photos, "photo", "photos");
    let captioned = units::count(exported.captioned);
    let failures = units::counted(exported.failures, "failure", "failures");
    let failures = if args.failures { format!(", and {failures}") } else { String::new() };
    printer.note(&format!("exported {photos}, {captioned} with a caption{failures}"));
    let is_empty = exported.photos + exported.failures == 0;
    Ok(if is_empty { Outcome::Nothing } else { Outcome::Done })
}
