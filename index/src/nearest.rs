//! The photos nearest to a query: an exact scan, or candidates from codes and their exact scores.

use std::ops::Range;

use rayon::prelude::*;

use crate::coarse::{Ask, CoarseReader};
use crate::document::DocId;
use crate::error::StoreResult;
use crate::segments::SegmentReader;
use crate::text::PhotoSlot;

/// Up to so many bytes of vectors are compared one by one: 8,000 photos with 32 vectors of 256. From
/// there on candidates take less time (`benches/index.rs`).
pub(crate) const EXACT_BYTES: u64 = 8_000 * 8384;
/// Photos whose exact scores decide in a larger collection.
const CANDIDATES: usize = 2048;
/// Up to so many photos are asked of the candidates; more come from an exact scan.
const MOST_OF_CANDIDATES: usize = CANDIDATES / 2;

/// Where vectors are searched.
#[derive(Debug)]
pub(crate) struct Nearest<'a> {
    pub(crate) segments: &'a SegmentReader,
    pub(crate) coarse: Option<&'a CoarseReader>,
    /// Slots of the generation.
    pub(crate) slots: u64,
    /// Bytes of vectors up to which all are compared.
    pub(crate) exact_bytes: u64,
}

impl Nearest<'_> {
    /// The codes to be searched first, where so many photos are too many to be compared one by
    /// one and the best `limit` of them are few.
    pub(crate) fn codes(&self, photos: u64, limit: usize) -> Option<&CoarseReader> {
        let bytes = photos.saturating_mul(self.segments.embedding_bytes());
        self.coarse.filter(|_| limit <= MOST_OF_CANDIDATES && bytes > self.exact_bytes)
    }

    /// For each of `asks` those of `photos`, which come by slot, that lie in an allowed slot which
    /// `codes` propose or say nothing of; by slot.
    pub(crate) fn candidates(
        &self,
        codes: &CoarseReader,
        asks: &[Ask<'_>],
        photos: &[PhotoSlot],
    ) -> Vec<Vec<PhotoSlot>> {
        let content = |slot| self.segments.content(slot);
        let proposed = codes.propose(asks, &content, CANDIDATES, self.slots);
        let candidates = asks.iter().zip(proposed).map(|(ask, proposed)| {
            let mut candidates = Vec::with_capacity(CANDIDATES);
            let mut take = |slots: Range<u64>| {
                let first = photos.partition_point(|photo| photo.slot < slots.start);
                // Copies share a slot.
                let within = photos[first..].iter().take_while(|photo| photo.slot < slots.end);
                candidates.extend(within.filter(|photo| ask.allowed.contains(photo.slot)));
            };
            proposed.slots.into_iter().for_each(|slot| take(slot..slot + 1));
            proposed.unknown.into_iter().for_each(&mut take);
            candidates.sort_unstable();
            candidates
        });
        candidates.collect()
    }

    /// Verifies the records of what was found.
    pub(crate) fn verify(&self, found: &[(PhotoSlot, f32)]) -> StoreResult<()> {
        let mut slots: Vec<u64> = found.iter().map(|(photo, _)| photo.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        slots.par_iter().try_for_each(|slot| self.segments.verify_embedding(*slot))
    }
}

/// The best `limit` of `photos` by what `cosines` returns for slots, in their order; best
/// first, equal scores by ascending number.
///
/// `photos` come by slot, so copies stand side by side and are compared once. Checksums are
/// not looked at.
pub(crate) fn exact(
    cosines: impl Fn(&[u64]) -> Vec<f32>,
    photos: &[PhotoSlot],
    limit: usize,
) -> Vec<(PhotoSlot, f32)> {
    let mut slots: Vec<u64> = photos.iter().map(|photo| photo.slot).collect();
    slots.dedup();
    let cosines = cosines(&slots);
    let mut scored = Vec::with_capacity(photos.len());
    let mut at = 0;
    for photo in photos {
        if slots[at] != photo.slot {
            at += 1;
        }
        scored.push((*photo, cosines[at]));
    }
    best(scored, limit, |(photo, score)| (photo.doc, *score))
}

/// The `limit` best, best first, equal scores by ascending number.
pub(crate) fn best<T>(
    mut scored: Vec<T>,
    limit: usize,
    rank: impl Fn(&T) -> (DocId, f32),
) -> Vec<T> {
    let order = |a: &T, b: &T| {
        let ((a, a_score), (b, b_score)) = (rank(a), rank(b));
        b_score.total_cmp(&a_score).then(a.cmp(&b))
    };
    if limit < scored.len() && limit > 0 {
        scored.select_nth_unstable_by(limit - 1, &order);
    }
    scored.truncate(limit);
    scored.sort_unstable_by(order);
    scored
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_five_are_the_head_of_the_best_fifty() {
        let scored: Vec<(DocId, f32)> =
            (0..200_u64).map(|i| (DocId(i), ((i * 37) % 11) as f32)).collect();
        let fifty = best(scored.clone(), 50, |hit| *hit);
        assert_eq!(best(scored.clone(), 5, |hit| *hit), fifty[..5]);
        assert_eq!(fifty[0], (DocId(8), 10.0));
        assert!(best(scored, 0, |hit| *hit).is_empty());
    }
}
