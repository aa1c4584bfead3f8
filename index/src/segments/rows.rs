//! Scans that compare row with row.

use rayon::prelude::*;

use super::{SCAN_CHUNK, SegmentReader};
use crate::vectors::Query;

impl SegmentReader {
    /// The mean, over all rows, of the cosine between query `i` and row `i` of each record, in
    /// the order of `slots`. A query that is none counts as 0. Checksums are not looked at:
    /// callers verify the few records that matter. A slot without a record is like nothing.
    pub(crate) fn mean_cosines(&self, queries: &[Option<Query>], slots: &[u64]) -> Vec<f32> {
        let mut means = vec![0.0; slots.len()];
        slots.par_chunks(SCAN_CHUNK).zip(means.par_chunks_mut(SCAN_CHUNK)).for_each(
            |(slots, means)| {
                self.vectors.fetch(slots);
                for (slot, mean) in slots.iter().zip(means) {
                    let Some((scales, rows)) = self.vectors.scales_and_rows(*slot) else {
                        *mean = f32::NEG_INFINITY;
                        continue;
                    };
                    let stride = rows.len() / queries.len().max(1);
                    let records = scales.chunks_exact(4).zip(rows.chunks_exact(stride.max(1)));
                    let cosines = queries.iter().zip(records).map(|(query, (scale, row))| {
                        query.as_ref().map_or(0.0, |query| query.best_cosine(scale, row))
                    });
                    *mean = cosines.sum::<f32>() / queries.len().max(1) as f32;
                }
            },
        );
        means
    }
}
