//! Captions from an export back into an index.

use std::io::{self, BufRead, Read as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tinyfind_index::{ContentHash, DocId, FileState, IndexWriter, WriteError};

use super::{FORMAT, Header, VERSION};
use crate::json::JsonPath;

/// How a line of an export finds its photo.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Match {
    /// By the hash of the content, wherever it lies.
    #[default]
    Content,
    /// By path and length of the file, for files whose content was changed since and whose
    /// picture was not.
    Path,
}

/// How captions are put back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RestoreOptions {
    /// How photos are found.
    pub by: Match,
    /// Replaces captions that the index has and that are others.
    pub overwrite: bool,
    /// Changes nothing, and tells what would be changed.
    pub dry_run: bool,
}

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate<'a> {
    /// The photo has the caption now.
    Set,
    /// It had that caption already.
    Same,
    /// It has another caption, which was kept.
    Kept,
    /// No photo of the index fits.
    Unmatched,
    /// The line cannot be used, for this reason.
    Bad(&'a str),
}

/// What was done, in lines of the export.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    /// Lines whose caption was set, or would be.
    pub set: u64,
    /// Lines whose caption the photo had already.
    pub same: u64,
    /// Lines whose photo has another caption, which was kept.
    pub kept: u64,
    /// Lines that fit no photo.
    pub unmatched: u64,
    /// Photos without a caption to put back.
    pub without: u64,
    /// Lines that cannot be used.
    pub bad: u64,
    /// Name of the model that wrote the captions, where the first line tells it.
    pub model: Option<String>,
}

/// Why captions could not be put back. Those of earlier batches are in the index.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The lines could not be read.
    #[error("the export cannot be read")]
    Read(#[from] io::Error),
    /// The export was written by a later version.
    #[error(
        "the export was written by {written_by} in version {found}; this reads up to {VERSION}"
    )]
    NewerVersion {
        /// Program that wrote it.
        written_by: String,
        /// Its version.
        found: u32,
    },
    /// The index could not be written.
    #[error("the index could not be written")]
    Index(#[from] WriteError),
}

/// The longest line that is read, in bytes: vectors written as numbers take a tenth of it.
const LONGEST_LINE: u64 = 4 << 20;

/// A commit is due after so many captions, or after so long.
const CAPTIONS_A_COMMIT: usize = 2048;
/// See [`CAPTIONS_A_COMMIT`].
const COMMIT_EVERY: Duration = Duration::from_secs(5);

/// What is read of a line; other keys do not matter.
#[derive(Debug, Deserialize)]
struct Line {
    #[serde(flatten)]
    path: Option<JsonPath>,
    hash: Option<String>,
    file_bytes: Option<u64>,
    caption: Option<String>,
    failure: Option<String>,
    format: Option<String>,
}

/// Sets the captions of the lines of an export. `tell` is told what became of each line that has
/// one, with its number, from 1, and the path in it.
///
/// A line that cannot be used is told and counted, and does not stop the others. Captions are
/// committed in batches, so a run that is stopped has done what it had told some seconds before,
/// and the same run again does the rest.
///
/// # Errors
///
/// When the lines cannot be read, come from a later version, or the index fails.
pub fn restore(
    writer: &mut IndexWriter,
    lines: &mut dyn BufRead,
    options: RestoreOptions,
    tell: &mut dyn FnMut(u64, Option<PathBuf>, Fate<'_>),
) -> Result<Restored, RestoreError> {
    let mut restored = Restored::default();
    let mut committed = Instant::now();
    let mut number = 0;
    let mut bytes = Vec::new();
    while let Some(line) = next_line(lines, &mut bytes)? {
        number += 1;
        if line.trim_ascii().is_empty() {
            continue;
        }
        if number == 1
            && let Some(model) = model_of_header(line)?
        {
            restored.model = Some(model);
            continue;
        }
        let line = match read(line) {
            Ok(line) => line,
            Err(reason) => {
                restored.bad += 1;
                tell(number, None, Fate::Bad(&reason));
                continue;
            }
        };
        if line.failure.is_some() {
            continue;
        }
        let path = line.path.clone().map(PathBuf::from);
        let caption = line.caption.as_deref().filter(|caption| !caption.trim().is_empty());
        let Some(caption) = caption else {
            restored.without += 1;
            continue;
        };
        let fate = match find(writer, &line, path.as_ref(), options.by) {
            Ok(Some(doc)) => set(writer, doc, caption, options.overwrite)?,
            Ok(None) => Fate::Unmatched,
            Err(Unfit::Reason(reason)) => Fate::Bad(reason),
            Err(Unfit::Index(error)) => return Err(error.into()),
        };
        let count = match fate {
            Fate::Set => &mut restored.set,
            Fate::Same => &mut restored.same,
            Fate::Kept => &mut restored.kept,
            Fate::Unmatched => &mut restored.unmatched,
            Fate::Bad(_) => &mut restored.bad,
        };
        *count += 1;
        tell(number, path, fate);
        let is_due = writer.pending() >= CAPTIONS_A_COMMIT || committed.elapsed() >= COMMIT_EVERY;
        if is_due && !options.dry_run {
            writer.commit()?;
            committed = Instant::now();
        }
    }
    if !options.dry_run {
        writer.commit()?;
    }
    Ok(restored)
}

/// The next line without its end, cut off where it is too long; `None` behind the last one.
fn next_line<'a>(lines: &mut dyn BufRead, bytes: &'a mut Vec<u8>) -> io::Result<Option<&'a [u8]>> {
    bytes.clear();
    if (&mut *lines).take(LONGEST_LINE + 1).read_until(b'\n', bytes)? == 0 {
        return Ok(None);
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    } else if bytes.len() as u64 > LONGEST_LINE {
        skip_to_line_end(lines)?;
    }
    Ok(Some(bytes))
}

fn skip_to_line_end(lines: &mut dyn BufRead) -> io::Result<()> {
    loop {
        let buffer = lines.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let (length, is_end) = end.map_or((buffer.len(), buffer.is_empty()), |at| (at + 1, true));
        lines.consume(length);
        if is_end {
            return Ok(());
        }
    }
}

/// The model that a header names; `None` where the first line is none.
fn model_of_header(line: &[u8]) -> Result<Option<String>, RestoreError> {
    /// What every version has.
    #[derive(Deserialize)]
    struct AnyHeader {
        format: String,
        version: u32,
        written_by: Option<String>,
    }
    let Ok(any) = serde_json::from_slice::<AnyHeader>(line) else { return Ok(None) };
    if any.format != FORMAT {
        return Ok(None);
    }
    if any.version > VERSION {
        let written_by = any.written_by.unwrap_or_else(|| "another program".to_owned());
        return Err(RestoreError::NewerVersion { written_by, found: any.version });
    }
    let header: Option<Header> = serde_json::from_slice(line).ok();
    Ok(Some(header.map_or_else(|| "unknown".to_owned(), |header| header.model.name)))
}

/// A line, or what is wrong with it.
fn read(line: &[u8]) -> Result<Line, String> {
    if line.len() as u64 > LONGEST_LINE {
        return Err(format!("it is longer than {} MiB", LONGEST_LINE >> 20));
    }
    let parsed: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    if parsed.format.as_deref() == Some(FORMAT) {
        return Err("a header stands in the first line only".to_owned());
    }
    Ok(parsed)
}

/// Why no photo can be looked for.
enum Unfit {
    Reason(&'static str),
    Index(WriteError),
}

impl From<WriteError> for Unfit {
    fn from(error: WriteError) -> Self {
        Self::Index(error)
    }
}

/// The photo that a line is about.
fn find(
    writer: &IndexWriter,
    line: &Line,
    path: Option<&PathBuf>,
    by: Match,
) -> Result<Option<DocId>, Unfit> {
    match by {
        Match::Content => {
            let hash = line.hash.as_deref().ok_or(Unfit::Reason("it has no `hash`"))?;
            let hash = ContentHash::from_hex(hash);
            let hash = hash.ok_or(Unfit::Reason("its `hash` is not 64 hexadecimal digits"))?;
            Ok(writer.find_content(&hash)?.into_iter().map(|(doc, _)| doc).min())
        }
        Match::Path => {
            let path = path.ok_or(Unfit::Reason("it has no `path`"))?;
            let size = line.file_bytes.ok_or(Unfit::Reason("it has no `file_bytes`"))?;
            let record = writer.lookup(path)?.filter(|record| record.stamp.size == size);
            Ok(record.and_then(|record| match record.state {
                FileState::Indexed { doc, .. } => Some(doc),
                FileState::Failed { .. } => None,
            }))
        }
    }
}

/// Gives a photo its caption.
fn set(
    writer: &mut IndexWriter,
    doc: DocId,
    caption: &str,
    overwrite: bool,
) -> Result<Fate<'static>, WriteError> {
    match writer.caption(doc)? {
        Some(own) if own == caption => return Ok(Fate::Same),
        Some(_) if !overwrite => return Ok(Fate::Kept),
        _ => writer.set_caption(doc, caption)?,
    }
    Ok(Fate::Set)
}
