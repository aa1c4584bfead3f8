//! The file of codes: a head of 64 bytes, then whole chunks, each with a checksum.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

use memmap2::{Mmap, MmapOptions};
use rayon::prelude::*;

use super::codes::{Rotation, encode, group_bytes};
use super::{CHUNK_SLOTS, GROUP_SLOTS, REPRESENTATIVES};
use crate::document::{ContentHash, Matrix, ModelSpec};
use crate::error::{StoreError, StoreResult};
use crate::files;
use crate::steps::{self, Step};

/// Bytes before the first chunk.
const HEAD_BYTES: usize = 64;
/// Bytes after the codes of a chunk: the content of its last slot, zeros, then the checksum, so
/// that chunks stay aligned.
const TAIL_BYTES: usize = 64;
/// Bytes of BLAKE3 that a checksum keeps, as in segments.
const CHECKSUM_BYTES: usize = 8;
/// Version of this layout, of the rotation and of the choice of representatives.
const VERSION: u32 = 3;
/// Chunks that are made durable together: half a second of work, 4 MB.
const CHUNKS_AT_ONCE: usize = 16;

/// Returns the content and the vectors of a slot; none for one that has no record.
pub(crate) trait ReadVectors:
    Fn(u64) -> StoreResult<Option<(ContentHash, Matrix)>> + Sync
{
}

impl<F: Fn(u64) -> StoreResult<Option<(ContentHash, Matrix)>> + Sync> ReadVectors for F {}

/// Where the codes of the index in `dir` lie.
fn path(dir: &Path) -> PathBuf {
    dir.join("coarse").join("codes")
}

/// What the sizes of a model make of the file.
#[derive(Debug, Clone, Copy)]
struct Layout {
    rows: usize,
    dim: usize,
}

impl Layout {
    fn of(spec: &ModelSpec) -> Self {
        Self { rows: spec.embedding_rows, dim: spec.embedding_dim }
    }

    fn codes_bytes(self) -> usize {
        CHUNK_SLOTS / GROUP_SLOTS * group_bytes(self.dim)
    }

    fn chunk_bytes(self) -> usize {
        (self.codes_bytes() + TAIL_BYTES).next_multiple_of(64)
    }

    fn offset(self, chunk: usize) -> usize {
        HEAD_BYTES + chunk * self.chunk_bytes()
    }

    fn head(self) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        head[..16].copy_from_slice(b"tinyfindcodes   ");
        let sizes = [self.rows, self.dim, REPRESENTATIVES, CHUNK_SLOTS];
        for (at, size) in sizes.into_iter().enumerate() {
            head[16 + 8 * at..24 + 8 * at].copy_from_slice(&(size as u64).to_le_bytes());
        }
        head[48..52].copy_from_slice(&VERSION.to_le_bytes());
        let sum = checksum(u64::MAX, &head[..HEAD_BYTES - CHECKSUM_BYTES]);
        head[HEAD_BYTES - CHECKSUM_BYTES..].copy_from_slice(&sum);
        head
    }

    /// Where the content of the last slot stands in a chunk.
    fn content_at(self) -> Range<usize> {
        self.codes_bytes()..self.codes_bytes() + 32
    }

    /// Whether a chunk is of the slots whose last one holds `content`. Contents lie in the order in
    /// which they came, so of all slots the last one tells most: one more or less anywhere before
    /// it, and it is another's.
    fn is_of(self, bytes: &[u8], content: Option<ContentHash>) -> bool {
        content.is_some_and(|content| bytes[self.content_at()] == content.0)
    }

    /// Codes of a chunk of photos, whose contents and vectors `read` returns by slot; none for a
    /// slot that has no record.
    fn encode(self, chunk: usize, read: &(impl ReadVectors + ?Sized)) -> StoreResult<Vec<u8>> {
        let mut bytes = vec![0; self.chunk_bytes()];
        if let Ok(Some((content, _))) = read(last_slot(chunk)) {
            bytes[self.content_at()].copy_from_slice(&content.0);
        }
        let rotation = Rotation::new(self.dim);
        let groups = bytes[..self.codes_bytes()].par_chunks_exact_mut(group_bytes(self.dim));
        groups.enumerate().try_for_each(|(number, group)| {
            for place in 0..GROUP_SLOTS {
                let slot = chunk * CHUNK_SLOTS + number * GROUP_SLOTS + place;
                match read(slot as u64) {
                    Ok(Some((_, vectors))) => {
                        encode(&rotation, &vectors.values, self.dim, place, group);
                    }
                    // Codes of zeros are like nothing. A search cannot return the photo anyway,
                    // and those behind it need their codes.
                    Ok(None) | Err(StoreError::Corrupt { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })?;
        let end = bytes.len() - CHECKSUM_BYTES;
        let sum = checksum(chunk as u64, &bytes[..end]);
        bytes[end..].copy_from_slice(&sum);
        Ok(bytes)
    }
}

/// The slot whose content tells of whose index a chunk is.
fn last_slot(chunk: usize) -> u64 {
    ((chunk + 1) * CHUNK_SLOTS - 1) as u64
}

/// Covers the number of the chunk, so that one in a wrong place is noticed.
fn checksum(chunk: u64, body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&chunk.to_le_bytes()).update(body);
    let mut checksum = [0; CHECKSUM_BYTES];
    checksum.copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM_BYTES]);
    checksum
}

fn is_whole(chunk: usize, bytes: &[u8]) -> bool {
    let (body, stored) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
    checksum(chunk as u64, body) == stored
}

/// How many whole chunks a file has whose head is right; `None` for any other file.
fn chunks_of(file: &File, layout: Layout) -> io::Result<Option<usize>> {
    let mut head = [0; HEAD_BYTES];
    let length = file.metadata()?.len() as usize;
    if length < HEAD_BYTES {
        return Ok(None);
    }
    file.read_exact_at(&mut head, 0)?;
    let is_ours = head == layout.head();
    Ok(is_ours.then(|| (length - HEAD_BYTES) / layout.chunk_bytes()))
}

/// Appends chunks; belongs to the one who writes the index.
#[derive(Debug)]
pub(crate) struct CoarseWriter {
    path: PathBuf,
    layout: Layout,
    chunks: usize,
    file: File,
}

impl CoarseWriter {
    /// Opens the codes of the index in `dir`, of which the first `slots` slots are committed, or
    /// begins them; with `anew` what is there is thrown away. A file of other sizes or contents, a
    /// damaged one or one that goes on behind the slots is begun anew: readers that have it mapped
    /// keep it. `content` returns what is in a slot, none for one that has no record.
    pub(crate) fn open(
        dir: &Path,
        spec: &ModelSpec,
        slots: u64,
        anew: bool,
        content: impl Fn(u64) -> Option<ContentHash>,
    ) -> StoreResult<Self> {
        let (path, layout) = (path(dir), Layout::of(spec));
        files::make_folder(&dir.join("coarse"))?;
        let open = || -> io::Result<(File, usize)> {
            if !anew && let Ok(file) = OpenOptions::new().read(true).write(true).open(&path) {
                let chunks = chunks_of(&file, layout)?;
                // More codes than slots are those of an index that lay here before.
                if let Some(chunks) = chunks.filter(|it| *it <= slots as usize / CHUNK_SLOTS) {
                    // A loss of power may have cost those their bytes that were written last.
                    let mut bytes = vec![0; layout.chunk_bytes()];
                    let mut whole = true;
                    for chunk in chunks.saturating_sub(CHUNKS_AT_ONCE)..chunks {
                        file.read_exact_at(&mut bytes, layout.offset(chunk) as u64)?;
                        // Of slots that have gone nobody asks.
                        let content = content(last_slot(chunk));
                        let is_ours = content.is_none() || layout.is_of(&bytes, content);
                        whole &= is_whole(chunk, &bytes) && is_ours;
                    }
                    if whole {
                        return Ok((file, chunks));
                    }
                }
            }
            match steps::take(Step::Remove, &path, || fs::remove_file(&path)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true);
            let file = steps::take(Step::Create, &path, || options.open(&path))?;
            let write = |bytes: &[u8], at: usize| file.write_all_at(bytes, at as u64);
            steps::write(&path, &layout.head(), write)?;
            Ok((file, 0))
        };
        let (file, chunks) = open().map_err(StoreError::io(&path))?;
        Ok(Self { path, layout, chunks, file })
    }

    /// The next chunks, as [`CoarseWriter::extend`] makes them, as far as `slots` slots fill them;
    /// few of them, and nothing is written.
    ///
    /// # Errors
    ///
    /// When `read` fails.
    pub(crate) fn prepare(
        &self,
        slots: u64,
        read: &(impl ReadVectors + ?Sized),
    ) -> StoreResult<Vec<Vec<u8>>> {
        let chunks = self.chunks..slots as usize / CHUNK_SLOTS;
        chunks.take(CHUNKS_AT_ONCE).map(|chunk| self.layout.encode(chunk, read)).collect()
    }

    /// Brings the codes to the first `slots` slots, all of them committed, as far as those fill
    /// chunks. `read` returns the content and the vectors of a slot, none for one that has no
    /// record. The next chunks may be `prepared`.
    pub(crate) fn extend(
        &mut self,
        slots: u64,
        prepared: Vec<Vec<u8>>,
        read: &(impl ReadVectors + ?Sized),
    ) -> StoreResult<()> {
        let mut prepared = prepared.into_iter();
        let wanted = slots as usize / CHUNK_SLOTS;
        if self.chunks < wanted {
            self.cut().map_err(StoreError::io(&self.path))?;
        }
        while self.chunks < wanted {
            let end = wanted.min(self.chunks + CHUNKS_AT_ONCE);
            for chunk in self.chunks..end {
                let bytes = prepared.next().map_or_else(|| self.layout.encode(chunk, read), Ok)?;
                // Of a segment that is gone all codes are zeros: not written, they take no space.
                let codes = self.layout.codes_bytes();
                let skipped = if bytes[..codes].iter().all(|byte| *byte == 0) { codes } else { 0 };
                let (bytes, offset) = (&bytes[skipped..], self.layout.offset(chunk) + skipped);
                let write =
                    |bytes: &[u8], at: usize| self.file.write_all_at(bytes, (offset + at) as u64);
                steps::write(&self.path, bytes, write).map_err(StoreError::io(&self.path))?;
            }
            steps::take(Step::SyncFile, &self.path, || self.file.sync_data())
                .map_err(StoreError::io(&self.path))?;
            self.chunks = end;
        }
        Ok(())
    }

    /// Cuts off what a write that failed left behind the last whole chunk.
    fn cut(&self) -> io::Result<()> {
        let end = self.layout.offset(self.chunks) as u64;
        if self.file.metadata()?.len() > end {
            steps::take(Step::Cut, &self.path, || self.file.set_len(end))?;
        }
        Ok(())
    }
}

/// The codes of one generation, mapped into memory.
#[derive(Debug)]
pub(crate) struct CoarseReader {
    path: PathBuf,
    layout: Layout,
    map: Mmap,
    /// What is known of each chunk: [`UNKNOWN`], [`WHOLE`] or [`DAMAGED`].
    states: Vec<AtomicU8>,
}

const UNKNOWN: u8 = 0;
const WHOLE: u8 = 1;
const DAMAGED: u8 = 2;

impl CoarseReader {
    /// Maps the codes of the first `slots` slots of the index in `dir`, as far as there are any;
    /// reads only the head.
    pub(crate) fn open(dir: &Path, spec: &ModelSpec, slots: u64) -> Option<Self> {
        let (path, layout) = (path(dir), Layout::of(spec));
        let file = File::open(&path).ok()?;
        let chunks = chunks_of(&file, layout).ok()??.min(slots as usize / CHUNK_SLOTS);
        if chunks == 0 {
            return None;
        }
        #[expect(unsafe_code, reason = "a file is mapped into memory")]
        // SAFETY: the map ends with the last whole chunk. Writers only append behind it, or
        // begin another file, so the mapped bytes neither change nor vanish while this crate is
        // the only one to touch the folder.
        let map = unsafe { MmapOptions::new().len(layout.offset(chunks)).map(&file) };
        let states = (0..chunks).map(|_| AtomicU8::new(UNKNOWN)).collect();
        Some(Self { path, layout, map: map.ok()?, states })
    }

    /// Number of chunks.
    pub(super) fn chunks(&self) -> usize {
        self.states.len()
    }

    /// The groups of a chunk; none where it is damaged or of other contents, which is said once.
    /// `content` returns what is in a slot.
    pub(super) fn groups(
        &self,
        chunk: usize,
        content: &impl Fn(u64) -> Option<ContentHash>,
    ) -> Option<std::slice::ChunksExact<'_, u8>> {
        let bytes = self.bytes(chunk);
        let state = &self.states[chunk];
        if state.load(Ordering::Relaxed) == UNKNOWN {
            let is_ours = self.layout.is_of(bytes, content(last_slot(chunk)));
            let whole = is_whole(chunk, bytes) && is_ours;
            if !whole {
                tracing::warn!(
                    "`{}` is damaged or of another index, the search goes without a part of it; \
                     `tinyfind index --rebuild` writes it anew",
                    self.path.display()
                );
            }
            state.store(if whole { WHOLE } else { DAMAGED }, Ordering::Relaxed);
        }
        let is_whole = state.load(Ordering::Relaxed) == WHOLE;
        let codes = &bytes[..self.layout.codes_bytes()];
        is_whole.then(|| codes.chunks_exact(group_bytes(self.layout.dim)))
    }

    fn bytes(&self, chunk: usize) -> &[u8] {
        &self.map[self.layout.offset(chunk)..self.layout.offset(chunk + 1)]
    }

    /// Verifies every chunk. `content` returns what is in a slot, none for one that has no record.
    ///
    /// # Errors
    ///
    /// When one is damaged or of other contents.
    pub(crate) fn check(
        &self,
        content: impl Fn(u64) -> Option<ContentHash> + Sync,
    ) -> StoreResult<()> {
        let is_damaged = |chunk: &usize| !is_whole(*chunk, self.bytes(*chunk));
        if let Some(chunk) = (0..self.chunks()).into_par_iter().find_first(is_damaged) {
            let what = format_args!("the checksum of chunk {chunk} does not match");
            return Err(StoreError::rewritable(&self.path, what));
        }
        let is_foreign = |chunk: &usize| {
            let content = content(last_slot(*chunk));
            content.is_some() && !self.layout.is_of(self.bytes(*chunk), content)
        };
        match (0..self.chunks()).find(is_foreign) {
            None => Ok(()),
            Some(chunk) => {
                let what = format_args!("chunk {chunk} is of other photos");
                Err(StoreError::rewritable(&self.path, what))
            }
        }
    }
}
