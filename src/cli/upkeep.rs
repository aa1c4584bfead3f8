//! `tinyfind index --check`, `--compact` and `--rebuild`: the index without its photos and its
//! model.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use tinyfind_index::{CatalogCheck, CheckReport, Compaction, IndexCheck, IndexWriter};

use super::globals::Globals;
use super::hits::print_json;
use super::index::cancel_on_signal;
use super::printer::{BAD, GOOD, Printer};
use super::progress::Progress;
use super::{Outcome, open, units};

/// Share of unused records from which on a run gives a segment back by itself: what goes is no
/// less than what has to be copied for it.
pub(super) const BY_ITSELF: f64 = 0.5;

/// The same where a person asks for it: less is not worth the copies.
const ASKED_FOR: f64 = 0.05;

/// Work that takes no longer needs no progress.
const SHORT: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize)]
struct JsonCheck<'a> {
    index: &'a str,
    sound: bool,
    generation: Option<u64>,
    photos: Option<u64>,
    captioned: Option<u64>,
    failed: Option<u64>,
    contents: Option<u64>,
    unused_records: Option<u64>,
    catalog: JsonCatalog<'a>,
    problems: &'a [String],
}

#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum JsonCatalog<'a> {
    Checked { paths: u64, contents: u64, is_ahead: bool },
    Damaged,
    Skipped { reason: &'a str },
}

/// Verifies the index in `folder`, and says what was looked at.
pub(super) fn check(
    folder: &Path,
    as_json: bool,
    printer: &mut Printer,
) -> anyhow::Result<Outcome> {
    let checked = tinyfind_index::check(folder).map_err(open::explain_open)?;
    if as_json {
        print_check_as_json(folder, &checked, printer)?;
    } else {
        print_check(&checked, printer)?;
    }
    Ok(if checked.is_sound() { Outcome::Done } else { Outcome::Failed })
}

fn print_check_as_json(
    folder: &Path,
    checked: &IndexCheck,
    printer: &mut Printer,
) -> std::io::Result<()> {
    let seen = checked.seen.as_ref();
    let catalog = match &checked.catalog {
        CatalogCheck::Checked { paths, contents, is_ahead } => {
            JsonCatalog::Checked { paths: *paths, contents: *contents, is_ahead: *is_ahead }
        }
        CatalogCheck::Skipped { reason } => JsonCatalog::Skipped { reason },
        _ => JsonCatalog::Damaged,
    };
    let line = JsonCheck {
        index: &folder.to_string_lossy(),
        sound: checked.is_sound(),
        generation: seen.map(|seen| seen.generation),
        photos: seen.map(|seen| seen.counts.photos),
        captioned: seen.map(|seen| seen.counts.captioned),
        failed: seen.map(|seen| seen.counts.failed),
        contents: seen.map(|seen| seen.contents),
        unused_records: seen.map(|seen| seen.unused_records),
        catalog,
        problems: &checked.problems,
    };
    print_json(printer, &line)
}

fn print_check(checked: &IndexCheck, printer: &mut Printer) -> std::io::Result<()> {
    if let Some(CheckReport { generation, counts, contents, unused_records, .. }) = &checked.seen {
        let photos = units::counted(counts.photos, "photo", "photos");
        let failed = units::counted(counts.failed, "failed file", "failed files");
        let captioned = units::count(counts.captioned);
        let out = printer.stdout();
        writeln!(
            out,
            "text       {photos}, {captioned} captioned, {failed} (generation {generation})"
        )?;
        let records = units::counted(contents + unused_records, "record", "records");
        let unused = units::count(*unused_records);
        writeln!(out, "segments   {records}, {unused} of them of photos that are gone")?;
    }
    let catalog = match &checked.catalog {
        CatalogCheck::Checked { paths, contents, is_ahead } => {
            let paths = units::counted(*paths, "path", "paths");
            let contents = units::counted(*contents, "content", "contents");
            let ahead = ", one commit ahead of the text: the next `tinyfind index` finishes it";
            format!("{paths}, {contents}{}", if *is_ahead { ahead } else { "" })
        }
        CatalogCheck::Skipped { reason } => format!("was not looked at: {reason}"),
        _ => "cannot be read".to_owned(),
    };
    writeln!(printer.stdout(), "catalogue  {catalog}")?;
    for problem in &checked.problems {
        let label = printer.paint(BAD, "problem");
        writeln!(printer.stdout(), "{label}    {problem}")?;
    }
    let verdict = if checked.is_sound() {
        let label = printer.paint(GOOD, "sound");
        format!("{label}      every checksum and every reference that was looked at holds")
    } else {
        let problems = units::counted(checked.problems.len() as u64, "problem", "problems");
        format!("{}    {problems}", printer.paint(BAD, "damaged"))
    };
    writeln!(printer.stdout(), "{verdict}")
}

/// Writes the text of the index in `folder` anew.
pub(super) fn rebuild(folder: &Path, printer: &mut Printer) -> anyhow::Result<Outcome> {
    let begun = Instant::now();
    let counts = IndexWriter::restore(folder).map_err(open::explain_open)?.counts();
    let photos = units::counted(counts.photos, "photo", "photos");
    let time = units::duration(begun.elapsed());
    printer.note(&format!("the text of {photos} was written anew in {time}"));
    Ok(Outcome::Done)
}

#[derive(Debug, Serialize)]
struct JsonCompaction<'a> {
    index: &'a str,
    complete: bool,
    segments: u64,
    moved: u64,
    freed_bytes: u64,
    problems: &'a [String],
}

/// Gives back what the index in `folder` keeps of photos that left it.
pub(super) fn compact(
    folder: &Path,
    as_json: bool,
    globals: &Globals,
    printer: &mut Printer,
) -> anyhow::Result<Outcome> {
    let mut writer = IndexWriter::open_existing(folder).map_err(open::explain_open)?;
    let mut progress = Progress::new(globals);
    let cancel = cancel_on_signal(progress.speaker().clone())?;
    let done = give_back(&mut writer, ASKED_FOR, &mut progress, &cancel, printer)?;
    let complete = is_complete(&done);
    if as_json {
        let line = JsonCompaction {
            index: &folder.to_string_lossy(),
            complete,
            segments: done.segments,
            moved: done.moved,
            freed_bytes: done.freed_bytes,
            problems: &done.problems,
        };
        print_json(printer, &line)?;
    } else if done.found == 0 {
        printer.note("there is next to nothing to give back");
    } else if !complete && done.problems.is_empty() {
        printer.hint("stopped; run the same command again to go on from here");
    }
    Ok(if complete { Outcome::Done } else { Outcome::Failed })
}

fn is_complete(done: &Compaction) -> bool {
    done.segments == done.found
}

/// Gives back every segment of whose records at least the share `least` is unused, until
/// `cancel`, and says what that gave.
pub(super) fn give_back(
    writer: &mut IndexWriter,
    least: f64,
    progress: &mut Progress,
    cancel: &AtomicBool,
    printer: &mut Printer,
) -> anyhow::Result<Compaction> {
    const NAME: &str = "compacting";
    let begun = Instant::now();
    let done = writer.compact(least, |done| {
        if begun.elapsed() >= SHORT && !progress.is_at(NAME) {
            progress.begin(NAME, Some(done.found));
        }
        progress.at(done.segments);
        !cancel.load(Ordering::Relaxed)
    })?;
    progress.at(done.segments);
    progress.end();
    for problem in &done.problems {
        printer.warn(problem);
    }
    if done.segments > 0 {
        let freed = units::bytes(done.freed_bytes);
        printer.note(&format!("gave back {freed} of photos that left the index"));
    }
    Ok(done)
}
