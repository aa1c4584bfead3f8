//! Writing the text index.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tantivy::directory::{Directory, META_LOCK};
use tantivy::indexer::{IndexWriterOptions, LogMergePolicy, PreparedCommit};
use tantivy::{Index, IndexWriter, Term};

use super::directory::{DRAFT_SUFFIX, META_FILE, TextDirectory};
use super::reader::{check_files, open_index, snapshot_of};
use super::schema::{Fields, PhotoText};
use super::{Snapshot, guard, text_error};
use crate::error::{StoreError, StoreResult};
use crate::files;
use crate::steps::{self, Step};

/// Memory for documents that are not written yet: a batch of photos needs far less, and
/// tantivy asks for 15 MB at least.
const MEMORY_BUDGET_IN_BYTES: usize = 20_000_000;
/// So many segments of like size are merged: few, for a search opens every one of them.
const SEGMENTS_TO_MERGE: usize = 6;
/// Segments of fewer documents count as of like size.
const SMALL_SEGMENT_DOCUMENTS: u32 = 500;
/// A segment with more of its documents deleted is rewritten.
const DELETED_SHARE: f32 = 0.4;

/// Writes the text index; the only one who does.
pub(crate) struct TextWriter {
    /// Taken when dropped.
    writer: Option<IndexWriter>,
    fields: Fields,
    folder: PathBuf,
    /// Of the writer as well: it tells which file could not be written.
    directory: TextDirectory,
}

impl TextWriter {
    /// Makes an empty text index in `folder`, in the place of whatever is there.
    pub(crate) fn create(folder: &Path) -> StoreResult<Self> {
        if folder.exists() {
            let remove = || fs::remove_dir_all(folder);
            steps::take(Step::Remove, folder, remove).map_err(StoreError::io(folder))?;
        }
        files::make_folder(folder)?;
        let (schema, _) = Fields::schema();
        let directory = guard(folder, || Ok(TextDirectory::open(folder)?))?;
        let made = guard(folder, || {
            let settings = tantivy::IndexSettings {
                docstore_compress_dedicated_thread: false,
                ..Default::default()
            };
            let directory = directory.clone();
            Index::builder().schema(schema).settings(settings).open_or_create(directory)
        });
        let index = explain(&directory, made)?;
        Self::start(folder, &index, directory)
    }

    /// Opens the text index in `folder`; tells which generation it holds.
    ///
    /// # Errors
    ///
    /// When a file is missing or damaged: everything can be written anew then.
    pub(crate) fn open(folder: &Path) -> StoreResult<(Self, Snapshot)> {
        if !folder.is_dir() {
            return Err(StoreError::rewritable(folder, "it is missing"));
        }
        let directory = guard(folder, || Ok(TextDirectory::open(folder)?))?;
        let index = open_index(folder, Some(&directory))?;
        check_files(folder, &index, u64::MAX)?;
        let metas = guard(folder, || index.load_metas())?;
        let snapshot = snapshot_of(folder, &metas)?;
        let found: u64 = metas.segments.iter().map(|segment| u64::from(segment.num_docs())).sum();
        if found != snapshot.documents() {
            let what = format!("it holds {found} documents of {}", snapshot.documents());
            return Err(StoreError::rewritable(folder, what));
        }
        remove_leftovers(folder, &index)?;
        let writer = Self::start(folder, &index, directory)?;
        Ok((writer, snapshot))
    }

    fn start(folder: &Path, index: &Index, directory: TextDirectory) -> StoreResult<Self> {
        Fields::register_analyzers(index);
        let options = IndexWriterOptions::builder()
            .memory_budget_per_thread(MEMORY_BUDGET_IN_BYTES)
            .num_worker_threads(1)
            .num_merge_threads(1)
            .build();
        let writer = guard(folder, || index.writer_with_options(options));
        let writer: IndexWriter = explain(&directory, writer)?;
        // tantivy gives the first operation the stamp of the last commit. A merge that begins
        // meanwhile would take a removal of that stamp for a committed one and publish it.
        guard(folder, || writer.run(std::iter::empty()))?;
        let mut policy = LogMergePolicy::default();
        policy.set_min_num_segments(SEGMENTS_TO_MERGE);
        policy.set_min_layer_size(SMALL_SEGMENT_DOCUMENTS);
        policy.set_del_docs_ratio_before_merge(DELETED_SHARE);
        writer.set_merge_policy(Box::new(policy));
        let fields = Fields::schema().1;
        Ok(Self { writer: Some(writer), fields, folder: folder.to_owned(), directory })
    }

    fn writer(&mut self) -> StoreResult<&mut IndexWriter> {
        let closed = StoreError::rewritable(&self.folder, "its writer is closed");
        self.writer.as_mut().ok_or(closed)
    }

    /// Drops what the index says of a path; what is added for it afterwards stays.
    pub(crate) fn remove(&mut self, path: &Path) -> StoreResult<()> {
        let term = Term::from_field_bytes(self.fields.path, path.as_os_str().as_bytes());
        self.writer()?.delete_term(term);
        Ok(())
    }

    /// Adds what a photo says; its path must not be there.
    pub(crate) fn add_photo(&mut self, path: &Path, photo: &PhotoText<'_>) -> StoreResult<()> {
        self.add(self.fields.photo(path, photo))
    }

    /// Adds a file that could not be read; its path must not be there.
    pub(crate) fn add_failure(&mut self, path: &Path, reason: &str) -> StoreResult<()> {
        self.add(self.fields.failure(path, reason))
    }

    fn add(&mut self, document: serde_json::Result<tantivy::TantivyDocument>) -> StoreResult<()> {
        let folder = self.folder.clone();
        let document = document.map_err(|error| StoreError::io(&folder)(error.into()))?;
        let added = self.writer()?.add_document(document);
        let added = added.map(|_| ()).map_err(|error| text_error(&folder, &error));
        explain(&self.directory, added)
    }

    /// Writes the files of everything added; nobody sees them before they are published, and only
    /// then are documents marked that were removed.
    pub(crate) fn prepare(&mut self) -> StoreResult<PreparedText<'_>> {
        let (folder, directory) = (self.folder.clone(), self.directory.clone());
        let writer = self.writer()?;
        let prepared = explain(&directory, guard(&folder, || writer.prepare_commit()))?;
        Ok(PreparedText { prepared, folder, directory })
    }

    /// Publishes everything added and removed as the generation of `snapshot`, durably.
    pub(crate) fn commit(&mut self, snapshot: &Snapshot) -> StoreResult<()> {
        self.prepare()?.publish(snapshot)
    }
}

/// Files of documents that no commit names yet.
pub(crate) struct PreparedText<'a> {
    prepared: PreparedCommit<'a>,
    folder: PathBuf,
    directory: TextDirectory,
}

impl PreparedText<'_> {
    /// Publishes them, and what was removed, as the generation of `snapshot`, durably.
    pub(crate) fn publish(self, snapshot: &Snapshot) -> StoreResult<()> {
        let Self { mut prepared, folder, directory } = self;
        let payload = snapshot.to_payload();
        let payload = payload.map_err(|error| StoreError::io(&folder)(error.into()))?;
        let committed = guard(&folder, || {
            prepared.set_payload(&payload);
            prepared.commit()
        });
        explain(&directory, committed.map(|_| ()))
    }
}

/// Puts the file that could not be written in the place of what tantivy makes of it: a full disk
/// is no damage.
fn explain<T>(directory: &TextDirectory, result: StoreResult<T>) -> StoreResult<T> {
    result.map_err(|error| match directory.take_failure() {
        Some((path, source)) => StoreError::Io { path, source },
        None => error,
    })
}

impl Drop for TextWriter {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take()
            && let Err(error) = writer.wait_merging_threads()
        {
            // What a merge leaves undone, the next one does.
            tracing::warn!("a merge of `{}` failed: {error}", self.folder.display());
        }
    }
}

/// Removes what a killed writer left in `folder` besides its last commit. A commit that is
/// tried again takes the same names, so a leftover would block it.
fn remove_leftovers(folder: &Path, index: &Index) -> StoreResult<()> {
    // While the lock is held, no reader is between the names and the files of a commit.
    let lock = index.directory().acquire_lock(&META_LOCK);
    let lock = lock.map_err(|error| StoreError::rewritable(folder, error))?;
    let metas = guard(folder, || index.load_metas())?;
    let mut kept = metas.list_segment_files();
    kept.insert(PathBuf::from(META_FILE));
    for entry in fs::read_dir(folder).map_err(StoreError::io(folder))? {
        let entry = entry.map_err(StoreError::io(folder))?;
        let name = PathBuf::from(entry.file_name());
        // tantivy's locks begin with a dot.
        let is_draft = name.as_os_str().as_bytes().ends_with(DRAFT_SUFFIX.as_bytes());
        let is_hidden = name.as_os_str().as_bytes().starts_with(b".");
        if is_draft || !is_hidden && !kept.contains(&name) {
            let path = entry.path();
            let remove = || fs::remove_file(&path);
            steps::take(Step::Remove, &path, remove).map_err(StoreError::io(&path))?;
        }
    }
    drop(lock);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::model::every_kind_of_file;
    use crate::common::spec;
    use crate::{IndexReader, IndexWriter, text};

    #[test]
    fn a_text_with_too_few_documents_is_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let model = every_kind_of_file(dir.path());
        let (mut writer, snapshot) = TextWriter::open(&text::folder(dir.path(), 1)).unwrap();
        writer.remove(&crate::common::model::path(1)).unwrap();
        writer.commit(&snapshot).unwrap();
        drop(writer);
        let error = IndexReader::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("documents of"), "{error}");
        drop(IndexWriter::open(dir.path(), &spec()).unwrap());
        model.assert_read(&IndexReader::open(dir.path()).unwrap());
    }

    #[test]
    fn the_first_operation_comes_after_the_last_commit() {
        let dir = tempfile::tempdir().unwrap();
        every_kind_of_file(dir.path());
        let (mut writer, _) = TextWriter::open(&text::folder(dir.path(), 1)).unwrap();
        let writer = writer.writer().unwrap();
        let committed = writer.commit_opstamp();
        let term = Term::from_field_bytes(Fields::schema().1.path, b"/nowhere");
        assert!(writer.delete_term(term) > committed);
    }
}
