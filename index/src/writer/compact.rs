//! Compaction: segments with few living records are emptied and given back.
//!
//! A content that loses its last photo leaves its record behind. As the cleaner of a
//! log-structured file system does (Rosenblum and Ousterhout, "The design and implementation of a
//! log-structured file system", 1992), what still lives in a segment is appended behind the last
//! record, and the files of the segment are deleted. Each segment is one ordinary commit, so
//! what is needed besides is the space of one segment, and a stop costs one segment's work.

#[cfg(test)]
mod tests;

use super::IndexWriter;
use crate::document::ContentHash;
use crate::error::{StoreError, StoreResult, WriteError};
use crate::segments::{records_of, segments_of};

/// What [`IndexWriter::compact`] has done so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compaction {
    /// Segments that had enough unused records when it began.
    pub found: u64,
    /// Segments that were given back.
    pub segments: u64,
    /// Contents whose records were copied for that.
    pub moved: u64,
    /// Bytes of the files that were deleted, less those of the copies.
    pub freed_bytes: u64,
    /// Segments that were left as they are because a record in them is damaged, one line each.
    pub problems: Vec<String>,
}

/// A segment to be emptied, and what lives in it, by slot.
struct Sparse {
    segment: u64,
    living: Vec<(u64, ContentHash)>,
}

impl IndexWriter {
    /// Gives back the space of contents that no photo holds any more: every segment of whose
    /// records at least the share `least`, of 0 to 1, is unused. Photos, numbers and captions stay
    /// what they are.
    ///
    /// Pending changes are committed first. Then each segment is one commit, before which `go_on`
    /// is asked with what is done so far; where it says no, the rest is left for another time.
    /// Readers that are open keep what they have, and with it the space, until they are closed.
    ///
    /// # Errors
    ///
    /// When a part cannot be written or a file cannot be deleted; see [`IndexWriter::commit`].
    pub fn compact(
        &mut self,
        least: f64,
        mut go_on: impl FnMut(&Compaction) -> bool,
    ) -> Result<Compaction, WriteError> {
        self.commit()?;
        let sparse = self.sparse_segments(least)?;
        let mut done = Compaction { found: sparse.len() as u64, ..Compaction::default() };
        for Sparse { segment, living } in sparse {
            if !go_on(&done) {
                break;
            }
            // Before anything is staged, which could not be taken back.
            match living.iter().try_for_each(|(slot, hash)| self.segments.verify(*slot, hash)) {
                Ok(()) => {}
                Err(StoreError::Corrupt { path, what, cure }) => {
                    let error = WriteError::Corrupt { path, what, cure };
                    done.problems.push(error.to_string());
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            self.interrupted = true;
            self.empty(segment, &living)?;
            self.publish()?;
            let freed = self.segments.remove(&self.catalog.state().gone)?;
            done.segments += 1;
            done.moved += living.len() as u64;
            let copied = living.len() as u64 * self.segments.record_bytes();
            done.freed_bytes += freed.saturating_sub(copied);
        }
        Ok(done)
    }

    /// The segments of whose records at least the share `least` is unused.
    fn sparse_segments(&self, least: f64) -> StoreResult<Vec<Sparse>> {
        if !self.may_have_sparse(least) {
            return Ok(Vec::new());
        }
        let slots = self.catalog.state().next_slot;
        let mut living = vec![0_u64; segments_of(slots).count()];
        for content in self.catalog.contents() {
            if let Some(count) = living.get_mut(segment_of(content?.0)) {
                *count += 1;
            }
        }
        let mut sparse: Vec<Sparse> = Vec::new();
        let mut place = vec![None; living.len()];
        for (segment, living) in segments_of(slots).zip(living) {
            let records = records_of(segment, slots);
            let unused = records.saturating_sub(living);
            if unused > 0
                && unused as f64 >= least * records as f64
                && !self.catalog.state().gone.contains(segment)
            {
                place[segment as usize] = Some(sparse.len());
                sparse.push(Sparse { segment, living: Vec::with_capacity(living as usize) });
            }
        }
        if !sparse.is_empty() {
            for content in self.catalog.contents() {
                let (slot, hash) = content?;
                if let Some(at) = place.get(segment_of(slot)).copied().flatten() {
                    sparse[at].living.push((slot, hash));
                }
            }
        }
        for sparse in &mut sparse {
            sparse.living.sort_unstable_by_key(|(slot, _)| *slot);
        }
        // The last one comes first: it may not be full, and the others would be copied into it,
        // and from there once more.
        if sparse.last().is_some_and(|last| segments_of(slots).end == last.segment + 1) {
            sparse.rotate_right(1);
        }
        Ok(sparse)
    }

    /// Whether a segment can have the share `least` of unused records. To find out which one has
    /// takes a walk over all contents, which an index with next to no gaps is spared.
    fn may_have_sparse(&self, least: f64) -> bool {
        let state = self.catalog.state();
        let Some(contents) = state.contents else { return true };
        let slots = state.next_slot;
        let sizes: Vec<u64> = segments_of(slots)
            .filter(|segment| !state.gone.contains(*segment))
            .map(|segment| records_of(segment, slots))
            .collect();
        let unused = sizes.iter().sum::<u64>().saturating_sub(contents);
        let smallest = sizes.into_iter().min().unwrap_or(0);
        unused > 0 && unused as f64 >= least * smallest as f64
    }

    /// Stages that what lives in a segment lies elsewhere, and that the segment is gone.
    fn empty(&mut self, segment: u64, living: &[(u64, ContentHash)]) -> StoreResult<()> {
        self.catalog.give_back(segment);
        for (from, hash) in living {
            let to = self.catalog.move_content(hash)?;
            self.segments.copy(*from, to)?;
            let holders = self.catalog.holders(hash)?;
            self.changed.extend(holders.into_iter().map(|(_, path)| path));
        }
        self.pending += 1;
        Ok(())
    }
}

/// Place of a slot's segment among all.
fn segment_of(slot: u64) -> usize {
    (slot / crate::segments::SLOTS_PER_SEGMENT) as usize
}
