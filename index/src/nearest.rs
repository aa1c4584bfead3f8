//! The photos nearest to a query: an exact scan, or candidates from codes and their exact scores.

use std::collections::BTreeSet;

use crate::coarse::{CoarseReader, CodedQuery};
use crate::document::DocId;
use crate::error::StoreResult;
use crate::segments::{SegmentReader, SlotSet};
use crate::text::PhotoSlot;
use crate::vectors::Query;

/// Up to so many bytes of vectors are compared one by one: 40,000 photos with 32 vectors of 256,
/// which takes two quiet cores about 20 ms.
pub(crate) const EXACT_BYTES: u64 = 40_000 * 8384;
/// Photos whose exact scores decide in a larger collection.
const CANDIDATES: usize = 4096;
/// Up to so many photos are asked of the candidates; more come from an exact scan.
const MOST_OF_CANDIDATES: usize = CANDIDATES / 4;

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
    /// The best `limit` of `photos`, which come by slot, by the largest cosine between the query
    /// and one of their vectors; best first, equal scores by ascending number. Scores are exact;
    /// in a large collection one of the best may be missing.
    pub(crate) fn find(
        &self,
        vector: &[f32],
        query: &Query,
        photos: &[PhotoSlot],
        limit: usize,
    ) -> StoreResult<Vec<(DocId, f32)>> {
        match self.coarse {
            Some(coarse) if limit <= MOST_OF_CANDIDATES && self.is_large(photos) => {
                let candidates = self.candidates(coarse, vector, photos);
                self.exact(query, &candidates, limit)
            }
            _ => self.exact(query, photos, limit),
        }
    }

    fn is_large(&self, photos: &[PhotoSlot]) -> bool {
        photos.len() as u64 * self.segments.embedding_bytes() > self.exact_bytes
    }

    /// Those of `photos` that the codes propose or say nothing of, by slot.
    fn candidates(
        &self,
        coarse: &CoarseReader,
        vector: &[f32],
        photos: &[PhotoSlot],
    ) -> Vec<PhotoSlot> {
        let mut allowed = SlotSet::new(self.slots);
        for photo in photos {
            allowed.insert(photo.slot);
        }
        let proposed = coarse.propose(&CodedQuery::new(vector), &allowed, CANDIDATES, self.slots);
        let mut candidates = Vec::with_capacity(CANDIDATES);
        let mut slots = proposed.slots;
        slots.sort_unstable();
        for slot in slots {
            let first = photos.partition_point(|photo| photo.slot < slot);
            // Copies share a slot.
            candidates.extend(photos[first..].iter().take_while(|photo| photo.slot == slot));
        }
        for range in proposed.unknown {
            let first = photos.partition_point(|photo| photo.slot < range.start);
            candidates.extend(photos[first..].iter().take_while(|photo| photo.slot < range.end));
        }
        candidates.sort_unstable();
        candidates
    }

    /// `photos` come by slot, so copies stand side by side and are compared once.
    fn exact(
        &self,
        query: &Query,
        photos: &[PhotoSlot],
        limit: usize,
    ) -> StoreResult<Vec<(DocId, f32)>> {
        let mut slots: Vec<u64> = photos.iter().map(|photo| photo.slot).collect();
        slots.dedup();
        let cosines = self.segments.best_cosines(query, &slots);
        let mut scored = Vec::with_capacity(photos.len());
        let mut at = 0;
        for photo in photos {
            if slots[at] != photo.slot {
                at += 1;
            }
            scored.push((*photo, cosines[at]));
        }
        let found = best(scored, limit, |(photo, score)| (photo.doc, *score));
        let verify: BTreeSet<u64> = found.iter().map(|(photo, _)| photo.slot).collect();
        for slot in verify {
            self.segments.verify_embedding(slot)?;
        }
        Ok(found.into_iter().map(|(photo, score)| (photo.doc, score)).collect())
    }
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
