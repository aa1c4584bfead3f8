//! Writing an index: changes are staged, then committed together.

mod commit;
mod compact;
mod known;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::catalog::{Catalog, PathEntry, PathRow};
use crate::coarse::CoarseWriter;
use crate::document::{
    ContentHash, Counts, DocId, Features, FileRecord, FileStamp, FileState, ModelSpec, NewPhoto,
};
use crate::error::{OpenError, StoreResult, WriteError};
use crate::files::{self, WriterLock};
use crate::manifest::{Manifest, WRITTEN_BY};
use crate::recovery::{Recovered, drop_other_epochs, recover};
use crate::segments::SegmentWriter;
use crate::text::TextWriter;

pub use compact::Compaction;

/// The one process that changes an index.
///
/// Changes are seen by this writer at once, and by everybody else, durably, after
/// [`IndexWriter::commit`]. What was not committed when the writer goes is lost.
///
/// ```
/// # use tinyfind_index::*;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let spec = ModelSpec {
/// #     name: "nano".into(), fingerprint: "0a".into(),
/// #     embedding_rows: 1, embedding_dim: 2, token_rows: 1, token_dim: 2,
/// # };
/// let mut writer = IndexWriter::open(folder.path(), &spec)?;
/// writer.fail("/photos/a.jpg".as_ref(), FileStamp { size: 0, mtime_ns: 0 }, "empty file")?;
/// assert_eq!(writer.pending(), 1);
/// assert_eq!(writer.commit()?, 1);
/// assert_eq!(writer.counts().failed, 1);
/// # Ok(())
/// # }
/// ```
pub struct IndexWriter {
    dir: PathBuf,
    spec: ModelSpec,
    catalog: Catalog,
    segments: SegmentWriter,
    coarse: Option<CoarseWriter>,
    text: TextWriter,
    text_epoch: u64,
    /// Paths whose text is behind the catalogue.
    changed: BTreeSet<PathBuf>,
    pending: usize,
    /// A commit failed half-way: the parts may disagree until the index is opened again.
    interrupted: bool,
    /// Last, so that everything is closed before another writer may begin.
    _lock: WriterLock,
}

impl IndexWriter {
    /// Opens the index in `dir` for writing, or makes an empty one for the model `spec`.
    ///
    /// Whatever a killed writer left half-done is finished or undone first; a text index that
    /// is damaged is written anew. An index that never held a photo becomes that of `spec`.
    ///
    /// # Errors
    ///
    /// [`OpenError::Locked`] while another writer has it open, [`OpenError::OtherModel`] and
    /// [`OpenError::NewerFormat`] for an index that is not this version's to change,
    /// [`OpenError::Corrupt`] when something is lost that nothing can restore.
    pub fn open(dir: &Path, spec: &ModelSpec) -> Result<Self, OpenError> {
        Self::open_with(dir, Some(spec), false)
    }

    /// Like [`IndexWriter::open`], for an index that is there, with the model that it names.
    ///
    /// # Errors
    ///
    /// [`OpenError::Missing`] without an index; else see [`IndexWriter::open`].
    pub fn open_existing(dir: &Path) -> Result<Self, OpenError> {
        Self::open_found(dir, false)
    }

    /// Like [`IndexWriter::open`], and writes manifest and text index anew from the catalogue
    /// even if they look whole.
    ///
    /// # Errors
    ///
    /// See [`IndexWriter::open`].
    pub fn rebuild(dir: &Path, spec: &ModelSpec) -> Result<Self, OpenError> {
        Self::open_with(dir, Some(spec), true)
    }

    /// Like [`IndexWriter::rebuild`], for an index that is there, with the model that it names.
    ///
    /// # Errors
    ///
    /// [`OpenError::Missing`] without an index; else see [`IndexWriter::open`].
    pub fn restore(dir: &Path) -> Result<Self, OpenError> {
        Self::open_found(dir, true)
    }

    fn open_found(dir: &Path, rebuild: bool) -> Result<Self, OpenError> {
        if !Manifest::path(dir).exists() && !Catalog::exists(dir) {
            return Err(OpenError::Missing { dir: dir.to_owned() });
        }
        Self::open_with(dir, None, rebuild)
    }

    fn open_with(dir: &Path, spec: Option<&ModelSpec>, rebuild: bool) -> Result<Self, OpenError> {
        files::make_folder(dir)?;
        let lock = WriterLock::take(dir)?;
        let Recovered { spec, manifest, catalog, segments, text, text_epoch } =
            recover(dir, spec, rebuild)?;
        let slots = catalog.state().next_slot;
        let content = |slot| {
            let has_record = !catalog.state().gone.holds(slot);
            has_record.then(|| segments.embedding(slot).ok()).flatten().map(|(hash, _)| hash)
        };
        let coarse = CoarseWriter::open(dir, &spec, slots, rebuild, content);
        let coarse = coarse.map_err(OpenError::from);
        let coarse = coarse
            .inspect_err(|error| tracing::warn!("the vector search goes without codes: {error}"));
        let mut writer = Self {
            dir: dir.to_owned(),
            spec,
            catalog,
            segments,
            coarse: coarse.ok(),
            text,
            text_epoch,
            changed: BTreeSet::new(),
            pending: 0,
            interrupted: false,
            _lock: lock,
        };
        let current = writer.manifest();
        if manifest.as_ref() != Some(&current) {
            current.write(dir)?;
        }
        // Only now does no generation that a reader may open need them.
        writer.segments.remove(&writer.catalog.state().gone)?;
        drop_other_epochs(dir, text_epoch)?;
        writer.extend_codes(Vec::new());
        Ok(writer)
    }

    /// The model of the index.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// What the index knows of a path.
    ///
    /// # Errors
    ///
    /// When the catalogue cannot be read.
    pub fn lookup(&self, path: &Path) -> Result<Option<FileRecord>, WriteError> {
        let row = self.catalog.path(path)?;
        Ok(row.map(|row| self.record(row)).transpose()?)
    }

    /// Every path that the index knows, in byte order.
    ///
    /// # Errors
    ///
    /// Each item fails by itself when the catalogue cannot be read.
    pub fn files(&self) -> impl Iterator<Item = Result<(PathBuf, FileRecord), WriteError>> + '_ {
        self.catalog.paths().map(|entry| {
            let (path, row) = entry?;
            Ok((path, self.record(row)?))
        })
    }

    fn record(&self, row: PathRow) -> StoreResult<FileRecord> {
        let state = match row.entry {
            PathEntry::Photo { doc, hash, .. } => {
                let captioned = self.catalog.content_of_photo(&hash)?.caption.is_some();
                FileState::Indexed { doc, hash, captioned }
            }
            PathEntry::Failed { reason } => FileState::Failed { reason },
        };
        Ok(FileRecord { stamp: row.stamp, state })
    }

    /// Adds a photo in the place of whatever its path held, and returns its new number.
    ///
    /// Where the index holds the content already, the new photo shares its features and its
    /// caption, as with [`IndexWriter::add_copy`], and `features` are not stored.
    ///
    /// # Errors
    ///
    /// [`WriteError::Shape`] and [`WriteError::NotFinite`] for features that the model of this
    /// index does not make; else when the catalogue or a segment fails.
    #[expect(clippy::needless_pass_by_value, reason = "features are handed over and done with")]
    pub fn add(&mut self, photo: NewPhoto, features: Features) -> Result<DocId, WriteError> {
        self.check_usable()?;
        check_features(&photo.path, &features, &self.spec)?;
        if self.catalog.content(&photo.hash)?.is_none() {
            let slot = self.catalog.new_content(&photo.hash)?;
            self.segments.write(slot, &photo.hash, &features)?;
        }
        self.place(photo)
    }

    /// Adds a photo of the same content as photo `of` in the place of whatever its path held,
    /// and returns its new number. Both share features and caption.
    ///
    /// # Errors
    ///
    /// [`WriteError::UnknownDoc`] without a photo `of`, [`WriteError::OtherContent`] when the
    /// hashes differ; else when the catalogue fails.
    pub fn add_copy(&mut self, photo: NewPhoto, of: DocId) -> Result<DocId, WriteError> {
        self.check_usable()?;
        if self.content_of(of)? != photo.hash {
            return Err(WriteError::OtherContent { path: photo.path, of });
        }
        self.place(photo)
    }

    /// Adds a photo whose content is there.
    fn place(&mut self, photo: NewPhoto) -> Result<DocId, WriteError> {
        let NewPhoto { path, stamp, hash, mut metadata } = photo;
        // What is not a number is not a place, and JSON could not keep it.
        metadata.gps = metadata.gps.filter(|(lat, lon)| lat.is_finite() && lon.is_finite());
        let doc = self.catalog.new_doc();
        let row = PathRow { stamp, entry: PathEntry::Photo { doc, hash, metadata } };
        self.catalog.set_path(&path, &row)?;
        self.changed.insert(path);
        self.pending += 1;
        Ok(doc)
    }

    /// Moves what `from` holds, number and caption included, to `to`, in the place of what
    /// that one held.
    ///
    /// # Errors
    ///
    /// [`WriteError::UnknownPath`] when the index holds no `from`; else when the catalogue
    /// fails.
    pub fn rename(&mut self, from: &Path, to: &Path, stamp: FileStamp) -> Result<(), WriteError> {
        self.check_usable()?;
        let row = self.row(from)?;
        if from == to {
            return self.touch(from, stamp);
        }
        self.catalog.rename(from, to, &PathRow { stamp, ..row })?;
        self.changed.extend([from.to_owned(), to.to_owned()]);
        self.pending += 1;
        Ok(())
    }

    /// Gives a path another stamp; what it holds stays.
    ///
    /// # Errors
    ///
    /// [`WriteError::UnknownPath`] when the index holds no `path`; else when the catalogue
    /// fails.
    pub fn touch(&mut self, path: &Path, stamp: FileStamp) -> Result<(), WriteError> {
        self.check_usable()?;
        let row = self.row(path)?;
        self.catalog.set_path(path, &PathRow { stamp, ..row })?;
        self.pending += 1;
        Ok(())
    }

    /// Forgets a path; one that the index does not hold is no error.
    ///
    /// # Errors
    ///
    /// When the catalogue fails.
    pub fn remove(&mut self, path: &Path) -> Result<(), WriteError> {
        self.check_usable()?;
        if self.catalog.remove_path(path)? {
            self.changed.insert(path.to_owned());
            self.pending += 1;
        }
        Ok(())
    }

    /// Notes that a path could not be read, in the place of whatever it held.
    ///
    /// # Errors
    ///
    /// When the catalogue fails.
    pub fn fail(&mut self, path: &Path, stamp: FileStamp, reason: &str) -> Result<(), WriteError> {
        self.check_usable()?;
        let row = PathRow { stamp, entry: PathEntry::Failed { reason: reason.to_owned() } };
        self.catalog.set_path(path, &row)?;
        self.changed.insert(path.to_owned());
        self.pending += 1;
        Ok(())
    }

    /// Gives a photo, and every copy of it, its caption.
    ///
    /// # Errors
    ///
    /// [`WriteError::UnknownDoc`] without such a photo; else when the catalogue fails.
    pub fn set_caption(&mut self, doc: DocId, caption: &str) -> Result<(), WriteError> {
        self.check_usable()?;
        let hash = self.content_of(doc)?;
        self.catalog.set_caption(&hash, caption)?;
        let holders = self.catalog.holders(&hash)?;
        self.changed.extend(holders.into_iter().map(|(_, path)| path));
        self.pending += 1;
        Ok(())
    }

    /// Changes that are not committed yet.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// How much the index holds, pending changes included.
    pub fn counts(&self) -> Counts {
        self.catalog.state().counts
    }

    /// Makes every change so far durable and visible to readers, all or nothing, and returns
    /// the number of the generation: one more than before, or the same if nothing changed.
    ///
    /// # Errors
    ///
    /// When a part cannot be written. The changes may or may not have been made then; the
    /// writer refuses further work, and opening the index again finds a whole generation.
    pub fn commit(&mut self) -> Result<u64, WriteError> {
        self.check_usable()?;
        if self.pending > 0 {
            self.publish()?;
        }
        Ok(self.catalog.state().generation)
    }

    fn check_usable(&self) -> Result<(), WriteError> {
        if self.interrupted { Err(WriteError::Interrupted) } else { Ok(()) }
    }

    fn row(&self, path: &Path) -> Result<PathRow, WriteError> {
        let row = self.catalog.path(path)?;
        row.ok_or_else(|| WriteError::UnknownPath { path: path.to_owned() })
    }

    fn content_of(&self, doc: DocId) -> Result<ContentHash, WriteError> {
        let path = self.catalog.path_of(doc)?.ok_or(WriteError::UnknownDoc { doc })?;
        match self.row(&path)?.entry {
            PathEntry::Photo { hash, .. } => Ok(hash),
            PathEntry::Failed { .. } => Err(WriteError::UnknownDoc { doc }),
        }
    }

    /// The manifest of what is committed.
    fn manifest(&self) -> Manifest {
        Manifest {
            format: self.catalog.state().format,
            written_by: WRITTEN_BY.to_owned(),
            generation: self.catalog.state().generation,
            model: self.spec.clone(),
            text_epoch: self.text_epoch,
        }
    }
}

impl std::fmt::Debug for IndexWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexWriter")
            .field("dir", &self.dir)
            .field("generation", &self.catalog.state().generation)
            .field("pending", &self.pending)
            .finish_non_exhaustive()
    }
}

/// Refuses features that a scan could not compare.
fn check_features(path: &Path, features: &Features, spec: &ModelSpec) -> Result<(), WriteError> {
    let parts = [
        ("image-text vectors", &features.embedding, (spec.embedding_rows, spec.embedding_dim)),
        ("visual tokens", &features.visual_tokens, (spec.token_rows, spec.token_dim)),
    ];
    for (what, matrix, expected) in parts {
        let found = (matrix.rows, matrix.dim);
        if found != expected || matrix.values.len() != matrix.rows * matrix.dim {
            return Err(WriteError::Shape { path: path.to_owned(), what, expected, found });
        }
        // Without a way out in between the compiler looks at many at once.
        if !matrix.values.iter().fold(true, |all, value| all & value.is_finite()) {
            return Err(WriteError::NotFinite { path: path.to_owned(), what });
        }
    }
    Ok(())
}
