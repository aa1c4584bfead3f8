//! One of the two files of every segment, mapped into memory.

use std::path::{Path, PathBuf};

use memmap2::{Advice, Mmap, MmapOptions};

use super::{Layout, damaged, open_whole};
use crate::document::{ContentHash, Matrix};
use crate::error::{StoreError, StoreResult};
use crate::segments::{Gone, SLOTS_PER_SEGMENT, segments_of};

/// Reads one file a segment, mapped into memory.
#[derive(Debug)]
pub(in crate::segments) struct PartReader {
    folder: PathBuf,
    layout: Layout,
    slots: u64,
    /// By number of the segment; none for one that is gone.
    maps: Vec<Option<Mmap>>,
}

impl PartReader {
    /// See [`SegmentReader::open`](crate::segments::SegmentReader::open).
    pub(in crate::segments) fn open(
        folder: &Path,
        layout: Layout,
        slots: u64,
        gone: &Gone,
    ) -> StoreResult<Self> {
        let mut maps = Vec::new();
        for segment in segments_of(slots) {
            if gone.contains(segment) {
                maps.push(None);
                continue;
            }
            let path = layout.path(folder, segment);
            let bytes = layout.file_bytes(segment, slots);
            let file = open_whole(&path, &layout, segment, bytes)?;
            #[expect(unsafe_code, reason = "a file is mapped into memory")]
            // SAFETY: the map ends where this generation ends. Writers only append behind it,
            // and recovery cuts nothing that a generation holds, so the mapped bytes neither
            // change nor vanish while this crate is the only one to touch the folder. A file that
            // is deleted keeps its bytes as long as it is mapped.
            let map = unsafe { MmapOptions::new().len(bytes).map(&file) };
            let map = map.map_err(StoreError::io(&path))?;
            // Records are read here and there; the system would read their neighbours as well.
            let _ = map.advise(Advice::Random);
            maps.push(Some(map));
        }
        Ok(Self { folder: folder.to_owned(), layout, slots, maps })
    }

    /// Bytes of a record.
    pub(in crate::segments) fn record_bytes(&self) -> u64 {
        self.layout.record_bytes() as u64
    }

    /// The segment of a slot; none where that is gone or not of this generation.
    fn map(&self, slot: u64) -> Option<&Mmap> {
        self.maps.get((slot / SLOTS_PER_SEGMENT) as usize)?.as_ref()
    }

    /// The record `slot`; none where this generation has none.
    fn record(&self, slot: u64) -> Option<&[u8]> {
        let at = self.layout.offset(slot);
        self.map(slot)?.get(at..at + self.layout.record_bytes())
    }

    /// The content that a record names, unverified; none where this generation has none.
    pub(in crate::segments) fn content(&self, slot: u64) -> Option<ContentHash> {
        self.record(slot)?.first_chunk().copied().map(ContentHash)
    }

    /// Lets the system fetch records that are read next.
    pub(in crate::segments) fn fetch(&self, slots: &[u64]) {
        let follows = |slot: &u64, next: &u64| {
            *next == slot + 1 && slot / SLOTS_PER_SEGMENT == next / SLOTS_PER_SEGMENT
        };
        for run in slots.chunk_by(follows) {
            let (Some(map), at) = (self.map(run[0]), self.layout.offset(run[0])) else { continue };
            let end = map.len().min(at + run.len() * self.layout.record_bytes());
            if at < end {
                // Without it they come one page after the other.
                let _ = map.advise_range(Advice::WillNeed, at, end - at);
            }
        }
    }

    /// The scales and the rows of a record; none where this generation has none.
    pub(in crate::segments) fn scales_and_rows(&self, slot: u64) -> Option<(&[u8], &[u8])> {
        self.record(slot).map(|record| self.layout.scales_and_rows(record))
    }

    /// The record `slot`, its checksum verified.
    pub(in crate::segments) fn verified(&self, slot: u64) -> StoreResult<&[u8]> {
        let path = self.layout.path(&self.folder, slot / SLOTS_PER_SEGMENT);
        let Some(record) = self.record(slot) else {
            let slots = self.slots;
            let what = format_args!("record {slot} of {slots} is asked for, which is not there");
            return Err(StoreError::lost(&path, what));
        };
        if Layout::is_whole(slot, record) { Ok(record) } else { Err(damaged(&path, slot)) }
    }

    /// The content and the values of the record `slot`.
    pub(in crate::segments) fn read(&self, slot: u64) -> StoreResult<(ContentHash, Matrix)> {
        Ok(self.layout.decode(self.verified(slot)?))
    }
}
