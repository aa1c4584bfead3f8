//! `tinyfind status`: what the index holds.

use std::path::Path;

use clap::Args;
use serde::Serialize;
use tinyfind_index::{IndexReader, OpenError};

use super::globals::Globals;
use super::hits::print_json;
use super::printer::{FAINT, Printer};
use super::{Outcome, folders, open, units};

/// Show what the index holds and how far it has come.
#[derive(Debug, Args)]
#[command(after_help = "JSON keys: index, generation, photos, captioned, failed, bytes, \
model (name, fingerprint).
Exit codes: 0 there is an index, 1 there is none yet, 2 an error.")]
pub(crate) struct StatusArgs {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct JsonStatus<'a> {
    index: &'a str,
    generation: u64,
    photos: u64,
    captioned: u64,
    failed: u64,
    bytes: u64,
    /// None before the first photo.
    model: Option<JsonModel<'a>>,
}

#[derive(Debug, Serialize)]
struct JsonModel<'a> {
    name: &'a str,
    fingerprint: &'a str,
}

pub(crate) fn run(
    args: &StatusArgs,
    globals: &Globals,
    printer: &mut Printer,
) -> anyhow::Result<Outcome> {
    let folder = folders::index(globals)?;
    let reader = match IndexReader::open(&folder) {
        Err(OpenError::Missing { .. }) => {
            printer.note(&format!("there is no index in `{}` yet", folder.display()));
            printer.hint("index your photos: `tinyfind index FOLDER`");
            return Ok(Outcome::Nothing);
        }
        reader => reader.map_err(open::explain_open)?,
    };
    if args.json {
        print_status_as_json(&folder, &reader, printer)?;
    } else {
        print_status(&folder, &reader, printer)?;
    }
    Ok(Outcome::Done)
}

fn print_status_as_json(
    folder: &Path,
    reader: &IndexReader,
    printer: &mut Printer,
) -> anyhow::Result<()> {
    let counts = reader.counts();
    let status = JsonStatus {
        index: &folder.to_string_lossy(),
        generation: reader.generation(),
        photos: counts.photos,
        captioned: counts.captioned,
        failed: counts.failed,
        bytes: size_on_disk(folder),
        model: reader
            .bound_to()
            .map(|spec| JsonModel { name: &spec.name, fingerprint: &spec.fingerprint }),
    };
    Ok(print_json(printer, &status)?)
}

fn print_status(folder: &Path, reader: &IndexReader, printer: &mut Printer) -> anyhow::Result<()> {
    let (counts, spec) = (reader.counts(), reader.spec());
    let size = units::bytes(size_on_disk(folder));
    let place = format!("(generation {}, {size})", reader.generation());
    write!(printer.stdout(), "index     ")?;
    printer.path(folder)?;
    let place = printer.paint(FAINT, &place);
    let fingerprint: String = spec.fingerprint.chars().take(12).collect();
    let fingerprint = printer.paint(FAINT, &format!("({fingerprint})"));
    let waiting = counts.photos.saturating_sub(counts.captioned);
    let stdout = printer.stdout();
    writeln!(stdout, " {place}")?;
    if reader.bound_to().is_some() {
        writeln!(stdout, "model     {} {fingerprint}", spec.name)?;
    } else {
        writeln!(stdout, "model     that of the first photo")?;
    }
    writeln!(stdout, "embedded  {}", units::counted(counts.photos, "photo", "photos"))?;
    writeln!(
        stdout,
        "captioned {} of {} ({})",
        units::count(counts.captioned),
        units::count(counts.photos),
        units::percent(counts.captioned, counts.photos)
    )?;
    writeln!(stdout, "failed    {}", units::counted(counts.failed, "file", "files"))?;
    if waiting > 0 {
        printer.hint("`tinyfind index FOLDER` writes the captions that are missing");
    }
    if counts.failed > 0 {
        printer.hint("`tinyfind failures` tells which files failed, and why");
    }
    Ok(())
}

/// Bytes of all files below `folder`; what cannot be read, because a writer has just removed
/// it, counts nothing.
fn size_on_disk(folder: &Path) -> u64 {
    let files = walkdir::WalkDir::new(folder).into_iter().filter_map(Result::ok);
    let sizes = files.filter_map(|entry| entry.metadata().ok()).filter(std::fs::Metadata::is_file);
    sizes.map(|metadata| metadata.len()).sum()
}
