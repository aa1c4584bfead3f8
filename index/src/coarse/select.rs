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

/// What is looked for.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    /// The sum of the estimates over all of them counts.
    pub(crate) queries: Vec<CodedQuery>,
    /// The slots that may be proposed.
    pub(crate) allowed: &'a NumberSet,
}

impl CoarseReader {
    /// For each of `asks` the `count` slots with the best estimates, and the slots up to `end` that
    /// have no codes. `content` returns what is in a slot.
    ///
    /// The codes are read once for all of them: what takes long is to get them from memory.
    pub(crate) fn propose(
        &self,
        asks: &[Ask<'_>],
        content: &(impl Fn(u64) -> Option<ContentHash> + Sync),
        count: usize,
        end: u64,
    ) -> Vec<Proposals> {
        let kernel = scan::fastest();
        let none = || asks.iter().map(|_| Best::new(count)).collect::<Vec<_>>();
        let chunks = (0..self.chunks()).into_par_iter();
        let best = chunks.fold(none, |mut best, chunk| {
            let first = (chunk * CHUNK_SLOTS) as u64;
            let slots = first..first + CHUNK_SLOTS as u64;
            // Among those that nobody may have are the chunks of segments that are gone.
            let mut asked: Vec<(&Ask<'_>, &mut Best)> = asks
                .iter()
                .zip(&mut best)
                .filter(|(ask, _)| ask.allowed.has_any(slots.clone()))
                .collect();
            if asked.is_empty() {
                return best;
            }
            let Some(groups) = self.groups(chunk, content) else {
                for (_, best) in asked {
                    best.unknown.push(slots.clone());
                }
                return best;
            };
            for (slot, group) in (first..).step_by(GROUP_SLOTS).zip(groups) {
                for (ask, best) in &mut asked {
                    let allowed = ask.allowed.four(slot);
                    if allowed == 0 {
                        continue;
                    }
                    let mut scores = [0.0; GROUP_SLOTS];
                    for query in &ask.queries {
                        for (sum, score) in scores.iter_mut().zip(kernel(query, group)) {
                            *sum += score;
                        }
                    }
                    for (place, score) in (0_u64..).zip(scores) {
                        if score >= best.top.floor() && allowed >> place & 1 == 1 {
                            best.top.push(score, slot + place);
                        }
                    }
                }
            }
            best
        });
        let best = best.reduce(none, |some, others| {
            some.into_iter().zip(others).map(|(some, other)| some.merge(other)).collect()
        });
        let beyond = (self.chunks() * CHUNK_SLOTS) as u64..end;
        let proposals = best.into_iter().map(|Best { top, mut unknown }| {
            unknown.push(beyond.clone());
            Proposals { slots: top.numbers(), unknown }
        });
        proposals.collect()
    }
}

/// What one ask has found so far.
struct Best {
    top: Top,
    unknown: Vec<Range<u64>>,
}

impl Best {
    fn new(count: usize) -> Self {
        Self { top: Top::new(count), unknown: Vec::new() }
    }

    fn merge(mut self, other: Self) -> Self {
        self.unknown.extend(other.unknown);
        Self { top: self.top.merge(other.top), unknown: self.unknown }
    }
}
