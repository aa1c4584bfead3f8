//! The first stage of a vector search in a large collection: short codes of every photo, read
//! from one packed file, propose candidates, and their exact scores decide.
//!
//! An exact search reads every vector of every photo, 8 KB each at 32 vectors of 256. Here
//! [`REPRESENTATIVES`] vectors stand for a photo, each with one bit for each of 256 dimensions or
//! more: 272 bytes. They cost some recall, which rescoring a few thousand candidates wins back. See
//! `DESIGN.md` for the bytes.
//!
//! The file holds whole chunks of [`CHUNK_SLOTS`] slots, appended as slots are committed, and is
//! never changed behind a reader's back. Slots after the last whole chunk, and those of a chunk
//! that is missing or damaged, are scanned exactly: this is a cache, and never decides what is
//! found, only how fast.

mod codes;
mod file;
mod representatives;
mod scan;
mod select;

pub(crate) use codes::CodedQuery;
pub(crate) use file::{CoarseReader, CoarseWriter};
pub(crate) use select::Ask;

use crate::segments::SLOTS_PER_SEGMENT;

/// Vectors that stand for a photo.
pub(crate) const REPRESENTATIVES: usize = 8;
/// Photos whose codes lie interleaved, so that one step of the scan compares all of them.
pub(crate) const GROUP_SLOTS: usize = 4;
/// Codes of a group: as many as a vector register has bytes.
pub(crate) const LANES: usize = REPRESENTATIVES * GROUP_SLOTS;
/// Slots that become codes together, and are verified together; all of one segment. Few in a build
/// of the tests within the crate, as for segments.
pub(crate) const CHUNK_SLOTS: usize = if cfg!(test) { 16 } else { 1024 };

const _: () =
    assert!(SLOTS_PER_SEGMENT.is_multiple_of(CHUNK_SLOTS as u64), "a chunk has one segment");
