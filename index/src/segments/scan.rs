//! Scores of many records.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::SegmentReader;
use crate::vectors::Query;

/// Records that one task looks at: about half a megabyte.
const CHUNK: usize = 64;
/// Records after which a task looks at the clock.
const TIMED: usize = 4;
/// When these take longer, they come from the disk: in memory it is some 10 µs.
const SLOW: Duration = Duration::from_micros(100);
/// How many records ahead of the one that is compared the processor is asked for.
const AHEAD: usize = 2;

impl SegmentReader {
    /// The largest cosine between the query and the rows of each record, in the order of
    /// `slots`. Checksums are not looked at: callers verify the few records that matter. A slot
    /// without a record is like nothing.
    pub(crate) fn best_cosines(&self, query: &Query, slots: &[u64]) -> Vec<f32> {
        self.scores(slots, SLOW, |scales, rows| query.best_cosine(scales, rows))
    }

    /// The mean, over all rows, of the cosine between query `i` and row `i` of each record, in
    /// the order of `slots`. A query that is none counts as 0. Checksums are not looked at:
    /// callers verify the few records that matter. A slot without a record is like nothing.
    pub(crate) fn mean_cosines(&self, queries: &[Option<Query>], slots: &[u64]) -> Vec<f32> {
        let count = queries.len().max(1);
        self.scores(slots, SLOW, |scales, rows| {
            let stride = (rows.len() / count).max(1);
            let rows = scales.chunks_exact(4).zip(rows.chunks_exact(stride));
            let cosines = queries.iter().zip(rows).map(|(query, (scale, row))| {
                query.as_ref().map_or(0.0, |query| query.best_cosine(scale, row))
            });
            cosines.sum::<f32>() / count as f32
        })
    }

    /// What `score` makes of the scales and the rows of each record, in the order of `slots`.
    ///
    /// To ask the system for records costs as much time as to compare them where they are in
    /// memory, and saves most of it where they are not: it is asked once some took longer than
    /// `slow`.
    pub(super) fn scores(
        &self,
        slots: &[u64],
        slow: Duration,
        score: impl Fn(&[u8], &[u8]) -> f32 + Sync,
    ) -> Vec<f32> {
        let mut scores = vec![f32::NEG_INFINITY; slots.len()];
        let from_disk = AtomicBool::new(false);
        slots.par_chunks(CHUNK).zip(scores.par_chunks_mut(CHUNK)).for_each(|(slots, scores)| {
            let mut fetched = false;
            for (first, scores) in (0..).step_by(TIMED).zip(scores.chunks_mut(TIMED)) {
                let left = &slots[first..];
                if !fetched && from_disk.load(Ordering::Relaxed) {
                    self.vectors.fetch(left);
                    fetched = true;
                }
                let started = Instant::now();
                for (at, place) in scores.iter_mut().enumerate() {
                    self.prefetch(&left[at..]);
                    if let Some((scales, rows)) = self.vectors.scales_and_rows(left[at]) {
                        *place = score(scales, rows);
                    }
                }
                if started.elapsed() > slow {
                    from_disk.store(true, Ordering::Relaxed);
                }
            }
        });
        scores
    }

    /// Asks the processor for a record that is compared soon, unless it follows the ones before
    /// it, in which case the processor fetches it by itself.
    fn prefetch(&self, left: &[u64]) {
        if let Some(slot) = left.get(AHEAD)
            && *slot != left[0] + AHEAD as u64
            && let Some((_, rows)) = self.vectors.scales_and_rows(*slot)
        {
            prefetch(rows);
        }
    }
}

/// Asks the processor for what is read soon.
#[cfg(target_arch = "x86_64")]
fn prefetch(bytes: &[u8]) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    for line in bytes.chunks(64) {
        #[expect(unsafe_code, reason = "a prefetch takes a pointer")]
        // SAFETY: a prefetch is a hint; whatever the address, the program sees nothing of it.
        unsafe {
            _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast::<i8>());
        }
    }
}

/// Leaves it to the processor.
#[cfg(not(target_arch = "x86_64"))]
fn prefetch(_: &[u8]) {}
