//! The records of fixed size that hold what the model saw: image-text vectors and visual tokens.
//!
//! A *slot* is the number of a record, counted over all segments. Segment `n` holds the slots
//! from `n * SLOTS_PER_SEGMENT`, in two files with the same numbering, so that a scan over the
//! vectors does not touch the tokens. Records are written once and never change; a record
//! counts only when a commit names a slot beyond it. A segment whose living records were copied
//! behind the others is [`Gone`]. See `DESIGN.md` for the bytes.

mod gone;
mod part;
mod scan;

use std::ops::Range;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;

use crate::document::{ContentHash, Features, Matrix, ModelSpec};
use crate::error::StoreResult;
use crate::files;

pub(crate) use gone::Gone;
use part::{Layout, PartReader, PartWriter};

/// Records a segment: at 32 x 256 vectors and 32 x 768 tokens, files of 34 and 102 MB. Few in a
/// build of the tests within the crate, so that a few photos make several segments.
pub(crate) const SLOTS_PER_SEGMENT: u64 = if cfg!(test) { 16 } else { 4096 };

/// The segments of the first `slots` slots.
pub(crate) fn segments_of(slots: u64) -> Range<u64> {
    0..slots.div_ceil(SLOTS_PER_SEGMENT)
}

/// How many of the first `slots` slots are in a segment.
pub(crate) fn records_of(segment: u64, slots: u64) -> u64 {
    slots.saturating_sub(segment.saturating_mul(SLOTS_PER_SEGMENT)).min(SLOTS_PER_SEGMENT)
}

/// Folder of the segments of the index in `dir`.
pub(crate) fn folder(dir: &Path) -> PathBuf {
    dir.join("segments")
}

/// The two layouts of a model.
fn layouts(spec: &ModelSpec) -> (Layout, Layout) {
    (
        Layout::new("vectors", spec.embedding_rows, spec.embedding_dim),
        Layout::new("tokens", spec.token_rows, spec.token_dim),
    )
}

/// Appends records; the only one who writes to the folder.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    vectors: PartWriter,
    tokens: PartWriter,
}

impl SegmentWriter {
    /// Opens the segments of the index in `dir`, of which the first `slots` records are
    /// committed; drops whatever a killed writer left behind them. Segments that are `gone` are
    /// not looked at, whether they are there or not.
    pub(crate) fn open(dir: &Path, spec: &ModelSpec, slots: u64, gone: &Gone) -> StoreResult<Self> {
        let folder = folder(dir);
        files::make_folder(&folder)?;
        let (vectors, tokens) = layouts(spec);
        Ok(Self {
            vectors: PartWriter::open(&folder, vectors, slots, gone)?,
            tokens: PartWriter::open(&folder, tokens, slots, gone)?,
        })
    }

    /// Writes the record `slot`. Rows of the embedding are brought to unit length.
    pub(crate) fn write(
        &mut self,
        slot: u64,
        hash: &ContentHash,
        features: &Features,
    ) -> StoreResult<()> {
        self.vectors.write(slot, hash, &unit_rows(&features.embedding))?;
        self.tokens.write(slot, hash, &features.visual_tokens)
    }

    /// Checks both records of a slot, and that they are of the content `hash`; decodes nothing.
    pub(crate) fn verify(&self, slot: u64, hash: &ContentHash) -> StoreResult<()> {
        self.vectors.verify(slot, hash)?;
        self.tokens.verify(slot, hash)
    }

    /// Writes what the record `from` holds, the same bytes, as the record `to`.
    pub(crate) fn copy(&mut self, from: u64, to: u64) -> StoreResult<()> {
        self.vectors.copy(from, to)?;
        self.tokens.copy(from, to)
    }

    /// Deletes the files of the segments that are `gone`, as far as there are any; returns how
    /// many bytes that gave back.
    pub(crate) fn remove(&mut self, gone: &Gone) -> StoreResult<u64> {
        Ok(self.vectors.remove(gone)? + self.tokens.remove(gone)?)
    }

    /// Bytes that the two records of a content take.
    pub(crate) fn record_bytes(&self) -> u64 {
        self.vectors.record_bytes() + self.tokens.record_bytes()
    }

    /// The vectors of a record, committed or not, and the content they belong to.
    pub(crate) fn embedding(&self, slot: u64) -> StoreResult<(ContentHash, Matrix)> {
        self.vectors.read(slot)
    }

    /// The visual tokens of a record, committed or not.
    pub(crate) fn visual_tokens(&self, slot: u64) -> StoreResult<Matrix> {
        Ok(self.tokens.read(slot)?.1)
    }

    /// Makes every record written so far durable.
    pub(crate) fn sync(&mut self) -> StoreResult<()> {
        // Both wait for the same journal commit of the file system, and not on a thread of the
        // pool, which computes.
        let (vectors, tokens) = thread::scope(|scope| {
            let vectors = scope.spawn(|| self.vectors.sync());
            let tokens = self.tokens.sync();
            (vectors.join().unwrap_or_else(|panic| resume_unwind(panic)), tokens)
        });
        let created = vectors? | tokens?;
        if created { files::sync_folder(self.vectors.folder()) } else { Ok(()) }
    }
}

/// The committed records of one generation, mapped into memory and read when touched.
#[derive(Debug)]
pub(crate) struct SegmentReader {
    vectors: PartReader,
    tokens: PartReader,
}

impl SegmentReader {
    /// Maps the first `slots` records of the index in `dir` but those of segments that are
    /// `gone`; reads only the files' heads.
    pub(crate) fn open(dir: &Path, spec: &ModelSpec, slots: u64, gone: &Gone) -> StoreResult<Self> {
        let folder = folder(dir);
        let (vectors, tokens) = layouts(spec);
        Ok(Self {
            vectors: PartReader::open(&folder, vectors, slots, gone)?,
            tokens: PartReader::open(&folder, tokens, slots, gone)?,
        })
    }

    /// The vectors of a record, and the content they belong to.
    pub(crate) fn embedding(&self, slot: u64) -> StoreResult<(ContentHash, Matrix)> {
        self.vectors.read(slot)
    }

    /// The visual tokens of a record, and the content they belong to.
    pub(crate) fn visual_tokens(&self, slot: u64) -> StoreResult<(ContentHash, Matrix)> {
        self.tokens.read(slot)
    }

    /// The content that the vectors of a record say they belong to, unverified; none where this
    /// generation has no such record.
    pub(crate) fn content(&self, slot: u64) -> Option<ContentHash> {
        self.vectors.content(slot)
    }

    /// Bytes that the vectors of a record take.
    pub(crate) fn embedding_bytes(&self) -> u64 {
        self.vectors.record_bytes()
    }

    /// Checks a record of vectors without decoding it.
    pub(crate) fn verify_embedding(&self, slot: u64) -> StoreResult<()> {
        self.vectors.verified(slot).map(|_| ())
    }
}

/// A set of slots, or of other numbers below a known one.
#[derive(Debug, Clone)]
pub(crate) struct NumberSet(Vec<u64>);

impl NumberSet {
    /// None of the numbers below `end`.
    pub(crate) fn new(end: u64) -> Self {
        Self(vec![0; end.div_ceil(64) as usize])
    }

    /// Adds a number; one that is not below the end is left out.
    pub(crate) fn insert(&mut self, number: u64) {
        if let Some(word) = self.0.get_mut((number / 64) as usize) {
            *word |= 1 << (number % 64);
        }
    }

    /// Takes a number away.
    pub(crate) fn remove(&mut self, number: u64) {
        if let Some(word) = self.0.get_mut((number / 64) as usize) {
            *word &= !(1 << (number % 64));
        }
    }

    /// Whether a number was added.
    pub(crate) fn contains(&self, number: u64) -> bool {
        self.0.get((number / 64) as usize).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// Whether one of `numbers` was added, which begin and end with a multiple of four.
    pub(crate) fn has_any(&self, numbers: Range<u64>) -> bool {
        numbers.step_by(4).any(|number| self.four(number) != 0)
    }

    /// Which of the four numbers from `number` on, a multiple of four, were added: bit by bit.
    pub(crate) fn four(&self, number: u64) -> u64 {
        self.0.get((number / 64) as usize).map_or(0, |word| word >> (number % 64) & 15)
    }
}

/// `matrix` with every row divided by its length; rows of zeros stay.
pub(crate) fn unit_rows(matrix: &Matrix) -> Matrix {
    let mut values = matrix.values.clone();
    for row in values.chunks_exact_mut(matrix.dim.max(1)) {
        let norm = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt() as f32;
        if norm.is_normal() {
            for value in row {
                *value /= norm;
            }
        }
    }
    Matrix::new(matrix.rows, matrix.dim, values)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::vectors::Query;

    fn spec() -> ModelSpec {
        ModelSpec {
            name: "tiny".to_owned(),
            fingerprint: "00".to_owned(),
            embedding_rows: 2,
            embedding_dim: 3,
            token_rows: 1,
            token_dim: 5,
        }
    }

    fn hash(slot: u64) -> ContentHash {
        ContentHash::of(&slot.to_le_bytes())
    }

    /// Features whose first vector points a little further round with each slot.
    fn features(slot: u64) -> Features {
        let angle = slot as f32 / 10_000.0;
        Features {
            embedding: Matrix::new(2, 3, vec![angle.cos(), angle.sin(), 0.0, 0.0, 0.0, -2.0]),
            visual_tokens: Matrix::new(1, 5, vec![slot as f32; 5]),
        }
    }

    fn fill(dir: &Path, slots: std::ops::Range<u64>) -> SegmentWriter {
        let mut writer = SegmentWriter::open(dir, &spec(), slots.start, &Gone::default()).unwrap();
        for slot in slots {
            writer.write(slot, &hash(slot), &features(slot)).unwrap();
        }
        writer.sync().unwrap();
        writer
    }

    #[test]
    fn records_go_on_in_the_next_segment() {
        let dir = tempfile::tempdir().unwrap();
        let slots = SLOTS_PER_SEGMENT + 5;
        let writer = fill(dir.path(), 0..slots);
        let reader = SegmentReader::open(dir.path(), &spec(), slots, &Gone::default()).unwrap();
        for slot in [0, 1, SLOTS_PER_SEGMENT - 1, SLOTS_PER_SEGMENT, slots - 1] {
            let (found, tokens) = reader.visual_tokens(slot).unwrap();
            assert_eq!(found, hash(slot));
            assert!((tokens.values[4] - slot as f32).abs() <= slot as f32 / 127.0);
            assert_eq!(writer.visual_tokens(slot).unwrap(), tokens);
            let (found, vectors) = reader.embedding(slot).unwrap();
            assert_eq!(found, hash(slot));
            assert_eq!(vectors.row(1), [0.0, 0.0, -1.0], "rows are brought to unit length");
        }
        assert!(reader.embedding(slots).is_err());
        let query = Query::new(&[1.0, 0.0, 0.0]).unwrap();
        let all: Vec<u64> = (0..slots).collect();
        for (slot, score) in all.iter().zip(reader.best_cosines(&query, &all)) {
            let cosine = (*slot as f32 / 10_000.0).cos();
            assert!((score - cosine).abs() < 1e-2, "slot {slot}: {score} against {cosine}");
        }
    }

    #[test]
    fn scores_do_not_depend_on_where_records_lie_or_come_from() {
        let dir = tempfile::tempdir().unwrap();
        let slots = 20 * SLOTS_PER_SEGMENT + 5;
        drop(fill(dir.path(), 0..slots));
        let mut gone = Gone::default();
        gone.insert(3);
        let reader = SegmentReader::open(dir.path(), &spec(), slots, &gone).unwrap();
        let query = Query::new(&[0.2, 1.0, 0.0]).unwrap();
        let score = |slot: u64| reader.best_cosines(&query, &[slot])[0];
        for step in [1, 2, 7] {
            // The last ones are not there.
            let some: Vec<u64> = (0..slots + 30).step_by(step).collect();
            let found = reader.best_cosines(&query, &some);
            let best = |scales: &[u8], rows: &[u8]| query.best_cosine(scales, rows);
            // As if all came from the disk, and as if none did.
            for slow in [Duration::ZERO, Duration::MAX] {
                assert_eq!(reader.scores(&some, slow, best), found);
            }
            for (slot, found) in some.iter().zip(found) {
                assert_eq!(found.to_bits(), score(*slot).to_bits(), "slot {slot}");
                let there = *slot < slots && slot / SLOTS_PER_SEGMENT != 3;
                assert_eq!(there, found > f32::NEG_INFINITY, "slot {slot}");
            }
        }
    }

    #[test]
    fn what_no_commit_names_is_cut_off_and_written_over() {
        let dir = tempfile::tempdir().unwrap();
        drop(fill(dir.path(), 0..SLOTS_PER_SEGMENT + 5));
        let committed = SLOTS_PER_SEGMENT - 1;
        let reader = SegmentReader::open(dir.path(), &spec(), committed, &Gone::default()).unwrap();
        let mut writer =
            SegmentWriter::open(dir.path(), &spec(), committed, &Gone::default()).unwrap();
        assert_eq!(std::fs::read_dir(folder(dir.path())).unwrap().count(), 2);
        assert!(SegmentReader::open(dir.path(), &spec(), committed + 1, &Gone::default()).is_err());
        for slot in committed..committed + 3 {
            writer.write(slot, &hash(slot + 1000), &features(slot)).unwrap();
        }
        writer.sync().unwrap();
        let reopened =
            SegmentReader::open(dir.path(), &spec(), committed + 3, &Gone::default()).unwrap();
        assert_eq!(reopened.embedding(committed).unwrap().0, hash(committed + 1000));
        assert_eq!(reopened.embedding(committed + 2).unwrap().0, hash(committed + 1002));
        assert_eq!(reader.embedding(committed - 1).unwrap().0, hash(committed - 1));
    }

    #[test]
    fn segments_of_another_shape_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(fill(dir.path(), 0..1));
        let other = ModelSpec { token_dim: 6, ..spec() };
        assert!(SegmentReader::open(dir.path(), &other, 1, &Gone::default()).is_err());
        assert!(SegmentWriter::open(dir.path(), &other, 1, &Gone::default()).is_err());
    }
}
