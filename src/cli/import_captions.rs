//! `tinyfind import-captions`: captions of an export back into the index.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use tinyfind_index::IndexWriter;

use super::globals::Globals;
use super::printer::Printer;
use super::report::hinted;
use super::{Outcome, folders, open, units};
use crate::export::{Fate, Match, RestoreError, RestoreOptions, Restored, restore};

/// Put captions of an export back into the index, without a model.
#[derive(Debug, Args)]
#[command(
    after_help = "A line gives its caption to the photos of the index with the same content (the
key `hash`), wherever they lie. Any file with an object a line that has the keys
hash and caption will do. A line that cannot be used is told with its number, and
the others are read all the same. `-v` names the photos that got no caption.

Examples:
  tinyfind index --no-caption ~/Photos && tinyfind import-captions photos.jsonl
  tinyfind export --index old | tinyfind import-captions - --index new

Exit codes: 0 captions were put back, or are there already; 1 no photo fits; 2 an
error, or a line that cannot be used."
)]
pub(crate) struct ImportCaptionsArgs {
    /// What `tinyfind export` wrote; `-` reads it from stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Find photos by path and length of the file, not by content: for files whose content was
    /// changed and whose picture was not
    #[arg(long)]
    by_path: bool,

    /// Replace captions that the index has and that are others
    #[arg(long)]
    overwrite: bool,

    /// Change nothing; say what would be done
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(
    args: &ImportCaptionsArgs,
    globals: &Globals,
    printer: &mut Printer,
) -> anyhow::Result<Outcome> {
    let folder = folders::index(globals)?;
    // Before the file: that there is no index is told first.
    let mut writer = IndexWriter::open_existing(&folder).map_err(open::explain_open)?;
    let mut lines: Box<dyn BufRead> = if args.file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let file = File::open(&args.file);
        let cannot = || format!("cannot read `{}`", args.file.display());
        Box::new(BufReader::new(file.with_context(cannot)?))
    };
    let model = writer.spec().name.clone();
    let by = if args.by_path { Match::Path } else { Match::Content };
    let options = RestoreOptions { by, overwrite: args.overwrite, dry_run: args.dry_run };
    let names_all = globals.verbose > 0;
    let restored = restore(&mut writer, &mut *lines, options, &mut |line, path, fate| {
        let path = path.map_or_else(|| "a photo".to_owned(), |it| format!("`{}`", it.display()));
        match fate {
            Fate::Bad(reason) => {
                printer.error(&anyhow::anyhow!("line {line} cannot be used: {reason}"));
            }
            Fate::Unmatched if names_all => {
                printer.note(&format!("line {line}: the index holds no {path}"));
            }
            Fate::Kept if names_all => {
                printer.note(&format!("line {line}: {path} has another caption"));
            }
            Fate::Unmatched | Fate::Kept | Fate::Set | Fate::Same => {}
        }
    })
    .map_err(explain)?;
    tell(&restored, args.dry_run, &model, printer);
    if restored.bad > 0 {
        return Ok(Outcome::Failed);
    }
    let is_there = restored.set + restored.same + restored.kept > 0;
    Ok(if is_there { Outcome::Done } else { Outcome::Nothing })
}

/// `error` with the next step.
fn explain(error: RestoreError) -> anyhow::Error {
    match error {
        RestoreError::NewerVersion { .. } => hinted(error, "update tinyfind"),
        error => error.into(),
    }
}

/// One line of numbers, and what to know of them.
fn tell(restored: &Restored, dry_run: bool, model: &str, printer: &mut Printer) {
    let mut parts = vec![format!(
        "{} {}",
        units::counted(restored.set, "caption", "captions"),
        if dry_run { "would be put back" } else { "put back" }
    )];
    for (count, what) in [
        (restored.same, "there already"),
        (restored.kept, "kept that are others"),
        (restored.unmatched, "of no photo of the index"),
        (restored.without, "not in the export"),
        (restored.bad, "in lines that cannot be used"),
    ] {
        if count > 0 {
            parts.push(format!("{} {what}", units::count(count)));
        }
    }
    printer.note(&parts.join(", "));
    if let Some(other) = restored.model.as_deref().filter(|it| *it != model && restored.set > 0) {
        printer.note(&format!("the captions are those of `{other}`; the index is of `{model}`"));
    }
    if restored.kept > 0 {
        printer.hint("`--overwrite` replaces the captions that are others");
    }
}
