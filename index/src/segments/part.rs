//! One of the two files of a segment: a head of 64 bytes, then records of equal size.

mod reader;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

pub(super) use reader::PartReader;

use super::{Gone, SLOTS_PER_SEGMENT, records_of, segments_of};
use crate::document::{ContentHash, Matrix};
use crate::error::{StoreError, StoreResult};
use crate::steps::{self, Step};
use crate::vectors::{dequantize, quantize, row_stride};

/// Bytes before the first record.
const HEAD_BYTES: usize = 64;
/// Records start at multiples of this: a cache line.
const RECORD_ALIGNMENT: usize = 64;
/// Bytes of a content hash.
const HASH_BYTES: usize = 32;
/// Bytes of BLAKE3 that a checksum keeps: enough against accidents, which is all it is for.
const CHECKSUM_BYTES: usize = 8;
/// Begins every file.
const MAGIC: &[u8; 8] = b"tinyfind";
/// Version of this layout.
const VERSION: u32 = 1;

/// Where things lie in a record: hash, scales, rows, zeros, checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    name: &'static str,
    rows: usize,
    dim: usize,
}

impl Layout {
    pub(super) fn new(name: &'static str, rows: usize, dim: usize) -> Self {
        Self { name, rows, dim }
    }

    fn rows_at(&self) -> usize {
        HASH_BYTES + 4 * self.rows
    }

    fn rows_end(&self) -> usize {
        self.rows_at() + self.rows * row_stride(self.dim)
    }

    fn record_bytes(&self) -> usize {
        (self.rows_end() + CHECKSUM_BYTES).next_multiple_of(RECORD_ALIGNMENT)
    }

    fn path(&self, folder: &Path, segment: u64) -> PathBuf {
        folder.join(format!("{segment}.{}.seg", self.name))
    }

    /// Number of the segment that a file of this layout holds.
    fn segment_of(&self, path: &Path) -> Option<u64> {
        let name = path.file_name()?.to_str()?;
        name.strip_suffix(".seg")?.strip_suffix(self.name)?.strip_suffix('.')?.parse().ok()
    }

    /// Where a slot's record starts in its file.
    fn offset(&self, slot: u64) -> usize {
        HEAD_BYTES + (slot % SLOTS_PER_SEGMENT) as usize * self.record_bytes()
    }

    /// How long a segment's file is when the index has `slots` records.
    fn file_bytes(&self, segment: u64, slots: u64) -> usize {
        HEAD_BYTES + records_of(segment, slots) as usize * self.record_bytes()
    }

    fn head(&self, segment: u64) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        head[..8].copy_from_slice(MAGIC);
        head[8..16].copy_from_slice(format!("{:8}", self.name).as_bytes());
        head[16..24].copy_from_slice(&segment.to_le_bytes());
        head[24..32].copy_from_slice(&(self.rows as u64).to_le_bytes());
        head[32..40].copy_from_slice(&(self.dim as u64).to_le_bytes());
        head[40..48].copy_from_slice(&(self.record_bytes() as u64).to_le_bytes());
        head[48..52].copy_from_slice(&VERSION.to_le_bytes());
        head[52..56].copy_from_slice(&(SLOTS_PER_SEGMENT as u32).to_le_bytes());
        let checksum = checksum(u64::MAX, &head[..HEAD_BYTES - CHECKSUM_BYTES]);
        head[HEAD_BYTES - CHECKSUM_BYTES..].copy_from_slice(&checksum);
        head
    }

    fn encode(&self, slot: u64, hash: &ContentHash, matrix: &Matrix) -> Vec<u8> {
        let mut record = vec![0; self.record_bytes()];
        record[..HASH_BYTES].copy_from_slice(&hash.0);
        let (front, back) = record.split_at_mut(self.rows_at());
        let scales = front[HASH_BYTES..].chunks_exact_mut(4);
        let rows = back.chunks_exact_mut(row_stride(self.dim));
        for (i, (scale, row)) in scales.zip(rows).enumerate() {
            scale.copy_from_slice(&quantize(matrix.row(i), row).to_le_bytes());
        }
        Self::seal(slot, &mut record);
        record
    }

    /// Gives a record the checksum of its slot.
    fn seal(slot: u64, record: &mut [u8]) {
        let (body, sum) = record.split_at_mut(record.len() - CHECKSUM_BYTES);
        sum.copy_from_slice(&checksum(slot, body));
    }

    fn decode(&self, record: &[u8]) -> (ContentHash, Matrix) {
        let mut hash = [0; HASH_BYTES];
        hash.copy_from_slice(&record[..HASH_BYTES]);
        let mut values = Vec::with_capacity(self.rows * self.dim);
        let (scales, rows) = self.scales_and_rows(record);
        let scales = scales.as_chunks::<4>().0;
        for (scale, row) in scales.iter().zip(rows.chunks_exact(row_stride(self.dim))) {
            dequantize(&row[..self.dim], f32::from_le_bytes(*scale), &mut values);
        }
        (ContentHash(hash), Matrix::new(self.rows, self.dim, values))
    }

    fn scales_and_rows<'a>(&self, record: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        (&record[HASH_BYTES..self.rows_at()], &record[self.rows_at()..self.rows_end()])
    }

    fn is_whole(slot: u64, record: &[u8]) -> bool {
        let (body, stored) = record.split_at(record.len() - CHECKSUM_BYTES);
        checksum(slot, body) == stored
    }
}

/// Covers the slot as well, so that a record in the wrong place is noticed.
fn checksum(slot: u64, body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&slot.to_le_bytes()).update(body);
    let mut checksum = [0; CHECKSUM_BYTES];
    checksum.copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM_BYTES]);
    checksum
}

/// A record whose checksum does not match.
fn damaged(path: &Path, slot: u64) -> StoreError {
    StoreError::lost(path, format_args!("the checksum of record {slot} does not match"))
}

/// Opens a file that the index cannot do without.
fn open_whole(path: &Path, layout: &Layout, segment: u64, bytes: usize) -> StoreResult<File> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(StoreError::lost(path, "it is missing"));
        }
        Err(error) => return Err(StoreError::io(path)(error)),
    };
    let found = file.metadata().map_err(StoreError::io(path))?.len();
    if found < bytes as u64 {
        return Err(StoreError::lost(path, format_args!("{found} of {bytes} bytes are there")));
    }
    let mut head = [0; HEAD_BYTES];
    file.read_exact_at(&mut head, 0).map_err(StoreError::io(path))?;
    if head != layout.head(segment) {
        return Err(StoreError::lost(path, "its head is not that of this model's segments"));
    }
    Ok(file)
}

/// Writes one file a segment.
#[derive(Debug)]
pub(super) struct PartWriter {
    folder: PathBuf,
    layout: Layout,
    /// The segment written last.
    current: Option<(u64, File)>,
    /// Earlier segments with records that are not durable yet.
    full: Vec<(u64, File)>,
    /// Whether `current` has records that are not durable yet.
    dirty: bool,
    /// Whether a file was made whose name is not durable yet.
    created: bool,
}

impl PartWriter {
    /// See [`SegmentWriter::open`](super::SegmentWriter::open).
    pub(super) fn open(
        folder: &Path,
        layout: Layout,
        slots: u64,
        gone: &Gone,
    ) -> StoreResult<Self> {
        for entry in fs::read_dir(folder).map_err(StoreError::io(folder))? {
            let path = entry.map_err(StoreError::io(folder))?.path();
            let Some(segment) = layout.segment_of(&path) else { continue };
            if segment * SLOTS_PER_SEGMENT >= slots {
                let remove = || fs::remove_file(&path);
                steps::take(Step::Remove, &path, remove).map_err(StoreError::io(&path))?;
            }
        }
        for segment in segments_of(slots).filter(|segment| !gone.contains(*segment)) {
            let path = layout.path(folder, segment);
            let bytes = layout.file_bytes(segment, slots);
            let file = open_whole(&path, &layout, segment, bytes)?;
            if file.metadata().map_err(StoreError::io(&path))?.len() > bytes as u64 {
                let file = OpenOptions::new().write(true).open(&path);
                let cut = || file.and_then(|file| file.set_len(bytes as u64));
                steps::take(Step::Cut, &path, cut).map_err(StoreError::io(&path))?;
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            layout,
            current: None,
            full: Vec::new(),
            dirty: false,
            created: false,
        })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes the record `slot`.
    pub(super) fn write(
        &mut self,
        slot: u64,
        hash: &ContentHash,
        matrix: &Matrix,
    ) -> StoreResult<()> {
        self.put(slot, &self.layout.encode(slot, hash, matrix))
    }

    /// See [`SegmentWriter::copy`](super::SegmentWriter::copy).
    pub(super) fn copy(&mut self, from: u64, to: u64) -> StoreResult<()> {
        let mut record = self.verified(from)?;
        Layout::seal(to, &mut record);
        self.put(to, &record)
    }

    fn put(&mut self, slot: u64, record: &[u8]) -> StoreResult<()> {
        let segment = slot / SLOTS_PER_SEGMENT;
        let path = self.layout.path(&self.folder, segment);
        if self.current.as_ref().is_none_or(|(number, _)| *number != segment) {
            let file = self.file_for_writing(&path, segment)?;
            let before = self.current.replace((segment, file));
            self.full.extend(before.filter(|_| self.dirty));
        }
        if let Some((_, file)) = &self.current {
            self.dirty = true;
            let offset = self.layout.offset(slot);
            let write = |bytes: &[u8], at| file.write_all_at(bytes, (offset + at) as u64);
            steps::write(&path, record, write).map_err(StoreError::io(&path))?;
        }
        Ok(())
    }

    fn file_for_writing(&mut self, path: &Path, segment: u64) -> StoreResult<File> {
        let open = || -> io::Result<(File, bool)> {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            let file = steps::take(Step::Create, path, || options.open(path))?;
            let is_new = file.metadata()?.len() == 0;
            if is_new {
                let write = |bytes: &[u8], at| file.write_all_at(bytes, at as u64);
                steps::write(path, &self.layout.head(segment), write)?;
            }
            Ok((file, is_new))
        };
        let (file, is_new) = open().map_err(StoreError::io(path))?;
        self.created |= is_new;
        Ok(file)
    }

    /// Reads a record back, its checksum verified.
    fn verified(&self, slot: u64) -> StoreResult<Vec<u8>> {
        let path = self.layout.path(&self.folder, slot / SLOTS_PER_SEGMENT);
        let mut record = vec![0; self.layout.record_bytes()];
        File::open(&path)
            .and_then(|file| file.read_exact_at(&mut record, self.layout.offset(slot) as u64))
            .map_err(StoreError::io(&path))?;
        if Layout::is_whole(slot, &record) { Ok(record) } else { Err(damaged(&path, slot)) }
    }

    /// Reads a record back.
    pub(super) fn read(&self, slot: u64) -> StoreResult<(ContentHash, Matrix)> {
        Ok(self.layout.decode(&self.verified(slot)?))
    }

    /// See [`SegmentWriter::verify`](super::SegmentWriter::verify).
    pub(super) fn verify(&self, slot: u64, hash: &ContentHash) -> StoreResult<()> {
        if self.verified(slot)?[..HASH_BYTES] == hash.0 {
            return Ok(());
        }
        let path = self.layout.path(&self.folder, slot / SLOTS_PER_SEGMENT);
        Err(StoreError::lost(&path, format_args!("record {slot} is of another content")))
    }

    /// Bytes of a record.
    pub(super) fn record_bytes(&self) -> u64 {
        self.layout.record_bytes() as u64
    }

    /// See [`SegmentWriter::remove`](super::SegmentWriter::remove).
    pub(super) fn remove(&mut self, gone: &Gone) -> StoreResult<u64> {
        // A file that is open keeps its place on the disk.
        self.current.take_if(|(segment, _)| gone.contains(*segment));
        let mut freed = 0;
        for entry in fs::read_dir(&self.folder).map_err(StoreError::io(&self.folder))? {
            let path = entry.map_err(StoreError::io(&self.folder))?.path();
            if self.layout.segment_of(&path).is_some_and(|segment| gone.contains(segment)) {
                let bytes = fs::metadata(&path).map_err(StoreError::io(&path))?.len();
                let remove = || fs::remove_file(&path);
                steps::take(Step::Remove, &path, remove).map_err(StoreError::io(&path))?;
                freed += bytes;
            }
        }
        Ok(freed)
    }

    /// Makes every record durable; tells whether the folder must be made durable as well.
    pub(super) fn sync(&mut self) -> StoreResult<bool> {
        let current = self.current.as_ref().filter(|_| self.dirty);
        for (segment, file) in self.full.iter().chain(current) {
            let path = self.layout.path(&self.folder, *segment);
            let sync = || file.sync_data();
            steps::take(Step::SyncFile, &path, sync).map_err(StoreError::io(&path))?;
        }
        self.full.clear();
        self.dirty = false;
        Ok(std::mem::take(&mut self.created))
    }
}
