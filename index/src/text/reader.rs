//! Reading one generation of the text index.

mod cameras;
mod passing;

use std::ffi::OsString;
use std::ops::Range;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use tantivy::directory::{Directory, META_LOCK};
use tantivy::index::SegmentComponent;
use tantivy::query::EnableScoring;
use tantivy::schema::{IndexRecordOption, Value};
use tantivy::{
    DocAddress, DocSet, Index, IndexMeta, IndexReader, ReloadPolicy, Searcher, TERMINATED,
    TantivyDocument, Term as IndexTerm,
};

use super::directory::TextDirectory;
use super::filter::{self, Bits, Segment};
use super::schema::{DOC, Details, Fields, SLOT, TAKEN};
use super::{Snapshot, guard, spelling, words};
use crate::document::{DocId, Failure, StoredPhoto};
use crate::error::{StoreError, StoreResult};
use crate::query::{Filter, Term};
use crate::top::Top;
pub(crate) use passing::Passing;

/// How often opening is tried again while a writer commits: each try takes milliseconds, and
/// so does each commit.
const ATTEMPTS: usize = 200;
/// How long to wait in between.
const PAUSE: Duration = Duration::from_millis(5);
/// Up to so many bytes, the text of some 50,000 photos, are verified whenever the index is
/// opened: a few milliseconds. Beyond, damage shows when the reader meets it, or in a check.
const VERIFIED_ON_OPEN_BYTES: u64 = 32 << 20;
/// Blocks of stored fields kept unpacked, a segment: a page of hits needs few.
const STORE_CACHE_BLOCKS: usize = 8;

/// Photos that a ranking by words finds at least, however few are asked for.
const LEAST_RANKED: usize = 1024;

/// Part of the lowest score that counts below which whole blocks are passed over.
const SLACK: f32 = 0.75;

/// The files that every segment has.
const COMPONENTS: [SegmentComponent; 6] = [
    SegmentComponent::Terms,
    SegmentComponent::Postings,
    SegmentComponent::Positions,
    SegmentComponent::FastFields,
    SegmentComponent::FieldNorms,
    SegmentComponent::Store,
];

/// A photo and the record of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PhotoSlot {
    pub(crate) slot: u64,
    pub(crate) doc: DocId,
}

/// One generation of the text index.
pub(crate) struct TextReader {
    searcher: Searcher,
    fields: Fields,
    folder: PathBuf,
    snapshot: Snapshot,
    everything: OnceLock<Vec<Bits>>,
    /// What passes the filters that were asked for last.
    filters: Mutex<Vec<(Filter, Arc<Passing>)>>,
}

impl TextReader {
    /// Opens the newest generation in `folder`, whatever a writer does meanwhile.
    pub(crate) fn open(folder: &Path) -> StoreResult<Self> {
        let index = open_index(folder, None)?;
        let fields = Fields::schema().1;
        for _ in 0..ATTEMPTS {
            let before = guard(folder, || index.load_metas())?;
            check_files(folder, &index, VERIFIED_ON_OPEN_BYTES)?;
            let searcher = guard(folder, || {
                let reader: IndexReader = index
                    .reader_builder()
                    .reload_policy(ReloadPolicy::Manual)
                    .doc_store_cache_num_blocks(STORE_CACHE_BLOCKS)
                    .try_into()?;
                Ok(reader.searcher())
            })?;
            let after = guard(folder, || index.load_metas())?;
            // A merge in between changes the files, not what they say; only a commit does.
            if before.payload == after.payload {
                let snapshot = snapshot_of(folder, &after)?;
                let (found, expected) = (searcher.num_docs(), snapshot.documents());
                if found != expected {
                    let what = format!("it holds {found} documents of {expected}");
                    return Err(StoreError::rewritable(folder, what));
                }
                return Ok(Self {
                    searcher,
                    fields,
                    folder: folder.to_owned(),
                    snapshot,
                    everything: OnceLock::new(),
                    filters: Mutex::new(Vec::new()),
                });
            }
            thread::sleep(PAUSE);
        }
        let busy = std::io::Error::other("the index is being committed without a pause");
        Err(StoreError::io(folder)(busy))
    }

    /// Which generation this is.
    pub(crate) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        let (searcher, fields) = (&self.searcher, &self.fields);
        searcher.segment_readers().iter().map(move |reader| Segment { searcher, reader, fields })
    }

    /// The photos that pass `filter`, newest first; those without a date come last, equals by
    /// ascending number.
    pub(crate) fn newest(&self, filter: &Filter) -> StoreResult<Vec<DocId>> {
        let passing = self.passing(filter)?;
        let mut dated: Vec<(Option<i64>, DocId)> = Vec::new();
        guard(&self.folder, || {
            for (segment, passing) in self.searcher.segment_readers().iter().zip(&passing.0) {
                let columns = segment.fast_fields();
                let Some(docs) = columns.column_opt::<u64>(DOC)? else { continue };
                let times = columns.column_opt::<i64>(TAKEN)?;
                dated.extend(passing.iter().filter_map(|id| {
                    let time = times.as_ref().and_then(|times| times.first(id));
                    Some((time, DocId(docs.first(id)?)))
                }));
            }
            Ok(())
        })?;
        dated.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        Ok(dated.into_iter().map(|(_, doc)| doc).collect())
    }

    /// The best `limit` photos that pass `filter` and match `terms`, with their scores; best first,
    /// equal scores by ascending number.
    pub(crate) fn scored(
        &self,
        terms: &[Term],
        filter: &Filter,
        limit: usize,
    ) -> StoreResult<Vec<(DocId, f32)>> {
        let Some(query) = filter::any_of(&self.fields, terms) else { return Ok(Vec::new()) };
        let passing = if filter.is_empty() { None } else { Some(self.passing(filter)?) };
        // Fewer are not looked for: so the best five are the first of the best fifty to the last
        // bit, though sums are made in an order that depends on how many are wanted.
        let mut best = Top::new(limit.max(LEAST_RANKED));
        guard(&self.folder, || {
            let weight = query.weight(EnableScoring::enabled_from_searcher(&self.searcher))?;
            for (ord, segment) in self.searcher.segment_readers().iter().enumerate() {
                let Some(docs) = segment.fast_fields().column_opt::<u64>(DOC)? else { continue };
                let passes = |id| match &passing {
                    Some(passing) => passing.0[ord].contains(id),
                    None => !segment.is_deleted(id),
                };
                // Documents are passed over that can have no score above the threshold. One with the
                // same score as the worst may have a lower number; and what tantivy takes for the
                // best of a block is reckoned with the mean length of its segment, not of all.
                let threshold = |best: &Top| (best.floor() * SLACK).max(f32::MIN).next_down();
                weight.for_each_pruning(threshold(&best), segment, &mut |id, score| {
                    if score >= best.floor()
                        && let Some(doc) = docs.first(id).filter(|_| passes(id))
                    {
                        best.push(score, doc);
                    }
                    threshold(&best)
                })?;
            }
            Ok(())
        })?;
        let best = best.sorted().into_iter().take(limit);
        Ok(best.map(|(score, doc)| (DocId(doc), score)).collect())
    }

    /// The word of the index that is spelt most like `word`, see [`spelling`].
    pub(crate) fn respell(&self, word: &str) -> StoreResult<Option<String>> {
        guard(&self.folder, || spelling::respell(&self.searcher, &self.fields, word))
    }

    /// The only living document that has `term`.
    fn address(&self, term: &IndexTerm) -> StoreResult<Option<DocAddress>> {
        guard(&self.folder, || {
            for (ord, segment) in (0_u32..).zip(self.searcher.segment_readers()) {
                let inverted = segment.inverted_index(term.field())?;
                let postings = inverted.read_postings(term, IndexRecordOption::Basic)?;
                let Some(mut postings) = postings else { continue };
                while postings.doc() != TERMINATED {
                    if !segment.is_deleted(postings.doc()) {
                        return Ok(Some(DocAddress::new(ord, postings.doc())));
                    }
                    postings.advance();
                }
            }
            Ok(None)
        })
    }

    fn address_of(&self, doc: DocId) -> StoreResult<Option<DocAddress>> {
        self.address(&IndexTerm::from_field_u64(self.fields.doc, doc.0))
    }

    fn number(&self, address: DocAddress, column: &str) -> StoreResult<Option<u64>> {
        let segment = self.searcher.segment_reader(address.segment_ord);
        let column = guard(&self.folder, || segment.fast_fields().column_opt::<u64>(column))?;
        Ok(column.and_then(|column| column.first(address.doc_id)))
    }

    /// The record of a photo's content.
    pub(crate) fn slot(&self, doc: DocId) -> StoreResult<Option<u64>> {
        self.address_of(doc)?.map_or(Ok(None), |address| self.number(address, SLOT))
    }

    /// The photo at a path.
    pub(crate) fn find_path(&self, path: &Path) -> StoreResult<Option<DocId>> {
        let term = IndexTerm::from_field_bytes(self.fields.path, path.as_os_str().as_bytes());
        let Some(address) = self.address(&term)? else { return Ok(None) };
        Ok(self.number(address, DOC)?.map(DocId))
    }

    /// What a document keeps: path, details, caption.
    fn stored(&self, address: DocAddress) -> StoreResult<(PathBuf, Details, Option<String>)> {
        let document: TantivyDocument = guard(&self.folder, || self.searcher.doc(address))?;
        let damaged = |what: &str| StoreError::rewritable(&self.folder, what);
        let path = document.get_first(self.fields.path).and_then(|value| value.as_bytes());
        let path = path.ok_or_else(|| damaged("a document has no path"))?;
        let details = document.get_first(self.fields.details).and_then(|value| value.as_str());
        let details = details.ok_or_else(|| damaged("a document has no details"))?;
        let details = serde_json::from_str(details).map_err(|error| damaged(&error.to_string()))?;
        let caption = document.get_first(self.fields.caption_stem).and_then(|value| value.as_str());
        let path = PathBuf::from(OsString::from_vec(path.to_vec()));
        Ok((path, details, caption.map(str::to_owned)))
    }

    /// All that is stored of a photo.
    pub(crate) fn photo(&self, doc: DocId) -> StoreResult<Option<StoredPhoto>> {
        let Some(address) = self.address_of(doc)? else { return Ok(None) };
        match self.stored(address)? {
            (path, Details::Photo { hash, metadata }, caption) => {
                Ok(Some(StoredPhoto { doc, path, hash, metadata, caption }))
            }
            (_, Details::Failed { .. }, _) => {
                let what = format!("photo {} is a failure", doc.0);
                Err(StoreError::rewritable(&self.folder, what))
            }
        }
    }

    /// Every file that could not be read, by path.
    pub(crate) fn failures(&self) -> StoreResult<Vec<Failure>> {
        let mut failures = Vec::new();
        for (ord, segment) in (0_u32..).zip(self.searcher.segment_readers()) {
            let docs = guard(&self.folder, || segment.fast_fields().column_opt::<u64>(DOC))?;
            for id in segment.doc_ids_alive() {
                if docs.as_ref().is_some_and(|docs| docs.first(id).is_some()) {
                    continue;
                }
                let (path, details, _) = self.stored(DocAddress::new(ord, id))?;
                if let Details::Failed { reason } = details {
                    failures.push(Failure { path, reason });
                }
            }
        }
        failures.sort_unstable_by(|a, b| a.path.as_os_str().cmp(b.path.as_os_str()));
        Ok(failures)
    }

    /// Byte ranges of `text` that match one of `terms`, ascending and disjoint.
    pub(crate) fn highlight(terms: &[Term], text: &str) -> Vec<Range<usize>> {
        words::highlight(terms, text)
    }

    /// Verifies the checksum of every file.
    pub(crate) fn check_files(&self) -> StoreResult<()> {
        check_files(&self.folder, self.searcher.index(), u64::MAX)
    }
}

/// Opens what tantivy has in `folder`, to be extended through `directory` where one is given, else
/// to be read.
pub(super) fn open_index(folder: &Path, directory: Option<&TextDirectory>) -> StoreResult<Index> {
    if !folder.is_dir() {
        return Err(StoreError::rewritable(folder, "it is missing"));
    }
    let index = guard(folder, || match directory {
        Some(directory) => Index::open(directory.clone()),
        None => Index::open(TextDirectory::open(folder)?),
    })?;
    let is_known = match directory {
        Some(_) => index.schema() == Fields::schema().0,
        None => Fields::can_read(&index.schema()),
    };
    if !is_known {
        return Err(StoreError::rewritable(folder, "its fields are not those of this format"));
    }
    Fields::register_analyzers(&index);
    Ok(index)
}

/// What the last commit says of itself.
pub(super) fn snapshot_of(folder: &Path, metas: &IndexMeta) -> StoreResult<Snapshot> {
    let snapshot = metas.payload.as_deref().and_then(Snapshot::from_payload);
    snapshot.ok_or_else(|| {
        let what = "its last commit does not say which generation it is";
        StoreError::rewritable(&folder.join("meta.json"), what)
    })
}

/// Verifies the checksum of every file of the last commit, if together they have at most
/// `limit` bytes.
pub(super) fn check_files(folder: &Path, index: &Index, limit: u64) -> StoreResult<()> {
    // While the lock is held, no file of the last commit goes away.
    let lock = index.directory().acquire_lock(&META_LOCK);
    let lock = lock.map_err(|error| StoreError::rewritable(folder, error))?;
    let metas = guard(folder, || index.load_metas())?;
    let mut bytes = 0;
    let mut files = Vec::new();
    for segment in &metas.segments {
        let deletes = segment.has_deletes().then_some(SegmentComponent::Delete);
        for component in COMPONENTS.into_iter().chain(deletes) {
            let file = segment.relative_path(component);
            // tantivy takes some files that are missing for empty.
            let found = std::fs::metadata(folder.join(&file));
            let found =
                found.map_err(|_| StoreError::rewritable(&folder.join(&file), "it is missing"))?;
            bytes += found.len();
            files.push(file);
        }
    }
    if bytes > limit {
        return Ok(());
    }
    for file in files {
        let is_whole = guard(folder, || Ok(index.directory().validate_checksum(&file)?))?;
        if !is_whole {
            return Err(StoreError::rewritable(&folder.join(file), "its checksum does not match"));
        }
    }
    drop(lock);
    Ok(())
}
