//! Reading an index: one generation, from beginning to end.

mod allowed;
mod photos;
mod vectors;

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

use crate::coarse::CoarseReader;
use crate::document::{Counts, DocId, Failure, Matrix, ModelSpec, StoredPhoto};
use crate::error::{OpenError, SearchError, StoreError, StoreResult};
use crate::manifest::Manifest;
use crate::nearest::EXACT_BYTES;
use crate::query::{Filter, Term};
use crate::segments::{Gone, SegmentReader};
use crate::text::{self, PhotoSlot, Snapshot, TextReader};
use allowed::Slots;

/// How often the manifest is read again because a rebuilt text index has taken the place of
/// the one it named, or segments were given back.
const ATTEMPTS: usize = 8;

/// One generation of an index.
///
/// It stays what it is while a writer commits and merges; open another to see more. Any number
/// of readers, in any number of processes, may be open beside a writer.
pub struct IndexReader {
    spec: ModelSpec,
    text: TextReader,
    segments: SegmentReader,
    coarse: Option<CoarseReader>,
    exact_bytes: u64,
    /// Every photo by slot: what a search without a filter scans.
    photos: OnceLock<Vec<PhotoSlot>>,
    /// Their slots.
    slots: OnceLock<Slots>,
}

impl IndexReader {
    /// Opens the newest generation of the index in `dir`, at any moment of a writer's work.
    ///
    /// Touches only heads and directories of the files, so it takes milliseconds.
    ///
    /// # Errors
    ///
    /// [`OpenError::Missing`] without an index, [`OpenError::NewerFormat`] for one of a later
    /// version, [`OpenError::Corrupt`] when a file is not what was written.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        let mut manifest = Manifest::read(dir)?;
        let mut failed: Option<((u64, u64), OpenError)> = None;
        for _ in 0..ATTEMPTS {
            let epoch = manifest.text_epoch;
            let error = match TextReader::open(&text::folder(dir, epoch)) {
                Ok(text) => {
                    let moment = (epoch, text.snapshot().generation);
                    // The same generation lacks the same file twice: that is damage.
                    if let Some((_, error)) = failed.take_if(|(before, _)| *before == moment) {
                        return Err(error);
                    }
                    match Self::assemble(dir, &manifest, text) {
                        Ok(reader) => return Ok(reader),
                        Err(error) => {
                            failed = Some((moment, error));
                            None
                        }
                    }
                }
                Err(error) => Some(error),
            };
            let now = Manifest::read(dir)?;
            if let Some(error) = error
                && now.text_epoch == epoch
            {
                return Err(error.into());
            }
            manifest = now;
        }
        let path = Manifest::path(dir);
        let source = std::io::Error::other("the index is being rebuilt again and again");
        Err(OpenError::Io { path, source })
    }

    fn assemble(dir: &Path, manifest: &Manifest, text: TextReader) -> Result<Self, OpenError> {
        // The text is published before the manifest names it, and was opened after the
        // manifest was read: it may be ahead, never behind. Being whole in itself, it decides.
        let Snapshot { generation, slots, ref gone, .. } = *text.snapshot();
        if generation < manifest.generation {
            let folder = text::folder(dir, manifest.text_epoch);
            let named = manifest.generation;
            let what = format!("it is at commit {generation}, the manifest names {named}");
            return Err(StoreError::rewritable(&folder, what).into());
        }
        let segments = SegmentReader::open(dir, &manifest.model, slots, gone)?;
        let coarse = CoarseReader::open(dir, &manifest.model, slots);
        Ok(Self {
            spec: manifest.model.clone(),
            text,
            segments,
            coarse,
            exact_bytes: EXACT_BYTES,
            photos: OnceLock::new(),
            slots: OnceLock::new(),
        })
    }

    /// Sets up to how many bytes of vectors a search compares all of them, see
    /// [`IndexReader::by_vector`]: 0 for candidates only, `u64::MAX` for an exact answer always.
    pub fn compare_all_up_to(&mut self, bytes: u64) {
        self.exact_bytes = bytes;
    }

    /// The model that made the index.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// The model that the index is bound to: that of [`IndexReader::spec`], none before the first
    /// photo, when a writer with another model may go on with it.
    pub fn bound_to(&self) -> Option<&ModelSpec> {
        (self.text.snapshot().slots > 0).then_some(&self.spec)
    }

    /// Which commit this is; 0 for an index that has none.
    pub fn generation(&self) -> u64 {
        self.text.snapshot().generation
    }

    /// How much this generation holds.
    pub fn counts(&self) -> Counts {
        self.text.snapshot().counts
    }

    /// The best `limit` photos that pass `filter` by the words of their captions, paths and
    /// notes ([`PhotoMetadata::notes`](crate::PhotoMetadata::notes)).
    ///
    /// A photo counts if it holds every [`Term::Phrase`] and, where there is none, at least one
    /// [`Term::Word`]. Scores are BM25 over all three, above 0 and without an upper
    /// bound. Best first, equal scores by ascending number. Terms without a letter or digit are
    /// ignored; if none is left, nothing is found.
    ///
    /// # Errors
    ///
    /// When the text index cannot be read.
    pub fn by_words(
        &self,
        words: &[Term],
        filter: &Filter,
        limit: usize,
    ) -> Result<Vec<(DocId, f32)>, SearchError> {
        Ok(self.text.scored(words, filter, limit)?)
    }

    /// The word of captions, paths or notes that is spelt most like `word`: at most one letter
    /// added, lost, changed or swapped with its neighbour, two where `word` has six letters or
    /// more; of several the one that most photos hold. None where some photo holds `word` in any
    /// form, where nothing comes near, and for what is not one word of three letters or more.
    ///
    /// # Errors
    ///
    /// When the text index cannot be read.
    pub fn respell(&self, word: &str) -> Result<Option<String>, SearchError> {
        Ok(self.text.respell(word)?)
    }

    /// Segments that this generation does without.
    pub(crate) fn gone(&self) -> &Gone {
        &self.text.snapshot().gone
    }

    /// The `limit` newest photos that pass `filter`, newest first. Those without a date come
    /// last, equals by ascending number.
    ///
    /// # Errors
    ///
    /// When the text index cannot be read.
    pub fn by_filter(&self, filter: &Filter, limit: usize) -> Result<Vec<DocId>, SearchError> {
        let mut photos = self.text.newest(filter)?;
        photos.truncate(limit);
        Ok(photos)
    }

    /// All that a hit shows of a photo; none if this generation has no such photo.
    ///
    /// # Errors
    ///
    /// When the text index cannot be read.
    pub fn photo(&self, doc: DocId) -> Result<Option<StoredPhoto>, SearchError> {
        Ok(self.text.photo(doc)?)
    }

    /// The photo at exactly this path, if there is one.
    ///
    /// # Errors
    ///
    /// When the text index cannot be read.
    pub fn find_path(&self, path: &Path) -> Result<Option<DocId>, SearchError> {
        Ok(self.text.find_path(path)?)
    }

    /// Visual tokens of a photo, as exact as int8 with a scale a row keeps them.
    ///
    /// # Errors
    ///
    /// [`SearchError::UnknownDoc`] without such a photo, [`SearchError::Corrupt`] if its record
    /// is not what was written.
    pub fn visual_tokens(&self, doc: DocId) -> Result<Matrix, SearchError> {
        Ok(self.segments.visual_tokens(self.slot(doc)?)?.1)
    }

    /// Image-text vectors of a photo, as exact as int8 with a scale a row keeps them.
    ///
    /// # Errors
    ///
    /// [`SearchError::UnknownDoc`] without such a photo, [`SearchError::Corrupt`] if its record
    /// is not what was written.
    pub fn embedding(&self, doc: DocId) -> Result<Matrix, SearchError> {
        Ok(self.segments.embedding(self.slot(doc)?)?.1)
    }

    pub(crate) fn slot(&self, doc: DocId) -> Result<u64, SearchError> {
        self.text.slot(doc)?.ok_or(SearchError::UnknownDoc { doc })
    }

    /// Every file that could not be read, by path.
    ///
    /// # Errors
    ///
    /// When the text index cannot be read.
    pub fn failures(&self) -> Result<Vec<Failure>, SearchError> {
        Ok(self.text.failures()?)
    }

    /// Byte ranges of `text` that match one of `words`: any form of a [`Term::Word`], the whole
    /// of a [`Term::Phrase`]. Ascending, disjoint, on character borders.
    pub fn highlight(&self, words: &[Term], text: &str) -> Vec<Range<usize>> {
        TextReader::highlight(words, text)
    }

    /// Verifies every checksum and every reference from one part to another; reads the whole
    /// index.
    ///
    /// # Errors
    ///
    /// Only when a file cannot be read; what is wrong with those that can stands in the report.
    pub fn check(&self) -> Result<CheckReport, SearchError> {
        let mut report = CheckReport {
            generation: self.generation(),
            counts: self.counts(),
            contents: 0,
            unused_records: 0,
            problems: Vec::new(),
        };
        report.note(self.text.check_files())?;
        if let Some(coarse) = &self.coarse {
            report.note(coarse.check(|slot| self.segments.content(slot)))?;
        }
        if let Some(photos) = report.note(self.text.photos(&Filter::default()))? {
            self.check_photos(&photos, &mut report)?;
        }
        let failed = report.note(self.text.failures())?.map(|failures| failures.len() as u64);
        if failed.is_some_and(|failed| failed != report.counts.failed) {
            report.problems.push(format!("{failed:?} failures of {}", report.counts.failed));
        }
        Ok(report)
    }

    fn check_photos(&self, photos: &[PhotoSlot], report: &mut CheckReport) -> StoreResult<()> {
        let Snapshot { next_doc, counts, .. } = *self.text.snapshot();
        let mut problems = Vec::new();
        let (mut docs, mut paths, mut captioned) = (HashSet::new(), HashSet::new(), 0);
        let mut last = None;
        for PhotoSlot { slot, doc } in photos {
            if !docs.insert(doc) || doc.0 >= next_doc {
                problems.push(format!("the number {} was given twice or never", doc.0));
            }
            if last.replace(*slot) != Some(*slot) {
                report.contents += 1;
            }
            let Some(Some(photo)) = report.note(self.text.photo(*doc))? else {
                problems.push(format!("photo {} cannot be found by its number", doc.0));
                continue;
            };
            captioned += u64::from(photo.caption.is_some());
            if self.text.find_path(&photo.path)? != Some(*doc) || !paths.insert(photo.path) {
                problems.push(format!("photo {} cannot be found by its path", doc.0));
            }
            let records = [self.segments.embedding(*slot), self.segments.visual_tokens(*slot)];
            for record in records {
                if report.note(record)?.is_some_and(|(hash, _)| hash != photo.hash) {
                    problems.push(format!("record {slot} is not that of photo {}", doc.0));
                }
            }
        }
        if (photos.len() as u64, captioned) != (counts.photos, counts.captioned) {
            let found = photos.len();
            problems.push(format!("{found} photos, {captioned} captioned, of {counts:?}"));
        }
        report.unused_records = self.text.snapshot().records().saturating_sub(report.contents);
        report.problems.append(&mut problems);
        Ok(())
    }
}

impl std::fmt::Debug for IndexReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexReader")
            .field("spec", &self.spec)
            .field("snapshot", self.text.snapshot())
            .finish_non_exhaustive()
    }
}

/// What [`IndexReader::check`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// Which commit was checked.
    pub generation: u64,
    /// How much it holds.
    pub counts: Counts,
    /// Distinct contents of its photos.
    pub contents: u64,
    /// Records of the segments that no photo of this generation uses: space, not harm.
    pub unused_records: u64,
    /// What is wrong, one line each, naming the file; empty for a sound index.
    pub problems: Vec<String>,
}

impl CheckReport {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    /// Turns damage into a problem, and goes on.
    fn note<T>(&mut self, result: StoreResult<T>) -> StoreResult<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(StoreError::Corrupt { path, what, cure }) => {
                let problem = OpenError::Corrupt { path, what, cure }.to_string();
                // Copies share a record, and a damaged file shows in many places.
                if !self.problems.contains(&problem) {
                    self.problems.push(problem);
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_and_writers_may_go_to_other_threads() {
        fn sendable<T: Send>() {}
        fn shareable<T: Send + Sync>() {}
        shareable::<IndexReader>();
        sendable::<crate::IndexWriter>();
    }
}
