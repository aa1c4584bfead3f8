//! The photos whose codes are most like a query.

use std::ops::Range;

use rayon::prelude::*;

use super::{CHUNK_SLOTS, CoarseReader, CodedQuery, GROUP_SLOTS, scan};
use crate::document::ContentHash;
use crate::segments::NumberSet;
use crate::top::Top;

/// What the first stage proposes.
#[derive(Debug, Default)]
pub(crate) struct Proposals {
    /// The slots with the best estimates, in no order.
    pub(crate) slots: Vec<u64>,
    /// Slots that the codes say nothing of: they have to be scanned.
    pub(crate) unknown: Vec<Range<u64>>,
}

impl CoarseReader {
    /// The `count` slots of `allowed` with the best sums of estimates over `queries`, and the slots up to `end` that
    /// have no codes. `content` returns what is in a slot.
    pub(crate) fn propose(
        &self,
        queries: &[CodedQuery],
        allowed: &NumberSet,
        content: &(impl Fn(u64) -> Option<ContentHash> + Sync),
        count: usize,
        end: u64,
    ) -> Proposals {
        let kernel = scan::fastest();
        let (best, mut unknown): (Top, Vec<Range<u64>>) = (0..self.chunks())
            .into_par_iter()
            .fold(
                || (Top::new(count), Vec::new()),
                |(mut best, mut unknown), chunk| {
                    let first = (chunk * CHUNK_SLOTS) as u64;
                    // Among these are the chunks of segments that are gone.
                    if !allowed.has_any(first..first + CHUNK_SLOTS as u64) {
                        return (best, unknown);
                    }
                    let Some(groups) = self.groups(chunk, content) else {
                        unknown.push(first..first + CHUNK_SLOTS as u64);
                        return (best, unknown);
                    };
                    for (slot, group) in (first..).step_by(GROUP_SLOTS).zip(groups) {
                        let allowed = allowed.four(slot);
                        if allowed == 0 {
                            continue;
                        }
                        let mut scores = [0.0; GROUP_SLOTS];
                        for query in queries {
                            for (sum, score) in scores.iter_mut().zip(kernel(query, group)) {
                                *sum += score;
                            }
                        }
                        for (place, score) in (0_u64..).zip(scores) {
                            if score >= best.floor() && allowed >> place & 1 == 1 {
                                best.push(score, slot + place);
                            }
                        }
                    }
                    (best, unknown)
                },
            )
            .reduce(
                || (Top::new(count), Vec::new()),
                |(best, mut unknown), (other, others)| {
                    unknown.extend(others);
                    (best.merge(other), unknown)
                },
            );
        unknown.push((self.chunks() * CHUNK_SLOTS) as u64..end);
        Proposals { slots: best.numbers(), unknown }
    }
}
