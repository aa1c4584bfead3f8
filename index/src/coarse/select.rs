//! The photos whose codes are most like a query.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

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
        // What one thread has found spares the others.
        let floors: Vec<Floor> = asks.iter().map(|_| Floor::default()).collect();
        let chunks = (0..self.chunks()).into_par_iter();
        let best = chunks.fold(none, |mut best, chunk| {
            let first = (chunk * CHUNK_SLOTS) as u64;
            let slots = first..first + CHUNK_SLOTS as u64;
            // Among those that nobody may have are the chunks of segments that are gone.
            let asked = asks.iter().zip(&mut best).zip(&floors);
            let mut asked: Vec<_> =
                asked.filter(|((ask, _), _)| ask.allowed.has_any(slots.clone())).collect();
            if asked.is_empty() {
                return best;
            }
            let Some(groups) = self.groups(chunk, content) else {
                for ((_, best), _) in asked {
                    best.unknown.push(slots.clone());
                }
                return best;
            };
            for ((_, best), floor) in &mut asked {
                best.top.raise(floor.get());
            }
            for (slot, group) in (first..).step_by(GROUP_SLOTS).zip(groups) {
                for ((ask, best), _) in &mut asked {
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
            for ((_, best), floor) in asked {
                floor.raise(best.top.floor());
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

/// What all threads know of the estimates of an ask: none below it is among the best.
struct Floor(AtomicU32);

impl Default for Floor {
    fn default() -> Self {
        Self(AtomicU32::new(f32::NEG_INFINITY.to_bits()))
    }
}

impl Floor {
    fn get(&self) -> f32 {
        f32::from_bits(self.0.load(Ordering::Relaxed))
    }

    fn raise(&self, floor: f32) {
        let raised = |bits| (f32::from_bits(bits) < floor).then_some(floor.to_bits());
        // That others were higher is no failure.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, raised);
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
