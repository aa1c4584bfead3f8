//! The text index: captions, names, filter fields and what a hit shows, in tantivy.
//!
//! One document is one path. Every commit carries a [`Snapshot`] as its payload, so what
//! tantivy publishes in one step says itself which generation it is.

mod directory;
mod filter;
mod reader;
mod schema;
mod spelling;
mod words;
mod writer;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tantivy::TantivyError;
use tantivy::directory::error::OpenReadError;

use crate::document::Counts;
use crate::error::{StoreError, StoreResult};
use crate::segments::Gone;

pub(crate) use reader::{Passing, PhotoSlot, TextReader};
pub(crate) use schema::PhotoText;
pub(crate) use writer::TextWriter;

/// Folder of the text index of the index in `dir`; each rebuild takes the next `epoch`.
pub(crate) fn folder(dir: &Path, epoch: u64) -> PathBuf {
    dir.join("text").join(epoch.to_string())
}

/// What the payload of a commit says: all that a reader needs to know of a generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) generation: u64,
    /// Every slot a document names is below this, and durable.
    pub(crate) slots: u64,
    /// Segments in which no document names a slot: their files may be missing.
    #[serde(default, skip_serializing_if = "Gone::is_empty")]
    pub(crate) gone: Gone,
    /// Every `DocId` is below this.
    pub(crate) next_doc: u64,
    pub(crate) counts: Counts,
}

impl Snapshot {
    /// Documents of the text index: one a path.
    pub(crate) fn documents(&self) -> u64 {
        self.counts.photos + self.counts.failed
    }

    /// Whether a document may name this slot.
    pub(crate) fn has_record(&self, slot: u64) -> bool {
        slot < self.slots && !self.gone.holds(slot)
    }

    /// How many records the segments have.
    pub(crate) fn records(&self) -> u64 {
        self.gone.records(self.slots)
    }

    /// The payload: JSON, a line feed, and a checksum, because tantivy keeps none of it.
    fn to_payload(&self) -> serde_json::Result<String> {
        let json = serde_json::to_string(self)?;
        let checksum = blake3::hash(json.as_bytes()).to_hex();
        Ok(format!("{json}\n{checksum}"))
    }

    fn from_payload(payload: &str) -> Option<Self> {
        let (json, checksum) = payload.rsplit_once('\n')?;
        let is_whole = checksum == blake3::hash(json.as_bytes()).to_hex().as_str();
        is_whole.then(|| serde_json::from_str(json).ok()).flatten()
    }
}

/// Runs what reads files of tantivy in `folder`. Damage that no checksum was asked about may
/// end in a panic there: it becomes an error as well.
fn guard<T>(folder: &Path, work: impl FnOnce() -> tantivy::Result<T>) -> StoreResult<T> {
    catch_unwind(AssertUnwindSafe(work))
        .map_err(|_| StoreError::rewritable(folder, "tantivy cannot make sense of it"))?
        .map_err(|error| text_error(folder, &error))
}

/// Names the file in an error of tantivy as well as it is known.
fn text_error(folder: &Path, error: &TantivyError) -> StoreError {
    use std::io::ErrorKind::{InvalidData, NotFound, Other, UnexpectedEof};
    let io = |path: &Path, error: &std::io::Error| match error.kind() {
        InvalidData | NotFound | Other | UnexpectedEof => StoreError::rewritable(path, error),
        kind => StoreError::io(path)(std::io::Error::new(kind, error.to_string())),
    };
    match error {
        TantivyError::OpenReadError(OpenReadError::FileDoesNotExist(file)) => {
            StoreError::rewritable(&folder.join(file), "it is missing")
        }
        TantivyError::OpenReadError(OpenReadError::IoError { io_error, filepath }) => {
            io(&folder.join(filepath), io_error)
        }
        TantivyError::IoError(error) => io(folder, error),
        other => StoreError::rewritable(folder, other),
    }
}
