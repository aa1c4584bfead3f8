//! The photos whose codes are most like a query.

use std::ops::Range;

use rayon::prelude::*;

use super::{CHUNK_SLOTS, CoarseReader, CodedQuery, GROUP_SLOTS, scan};
use crate::segments::NumberSet;

/// What the first stage proposes.
#[derive(Debug, Default)]
pub(crate) struct Proposals {
    /// The slots with the best estimates, in no order.
    pub(crate) slots: Vec<u64>,
    /// Slots that the codes say nothing of: they have to be scanned.
    pub(crate) unknown: Vec<Range<u64>>,
}

impl CoarseReader {
    /// The `count` slots of `allowed` with the best estimates, and the slots up to `end` that
    /// have no codes.
    pub(crate) fn propose(
        &self,
        query: &CodedQuery,
        allowed: &NumberSet,
        count: usize,
        end: u64,
    ) -> Proposals {
        let kernel = scan::fastest();
        let mut best = (0..self.chunks())
            .into_par_iter()
            .fold(
                || Best::new(count),
                |mut best, chunk| {
                    let first = (chunk * CHUNK_SLOTS) as u64;
                    let Some(groups) = self.groups(chunk) else {
                        best.unknown.push(first..first + CHUNK_SLOTS as u64);
                        return best;
                    };
                    for (slot, group) in (first..).step_by(GROUP_SLOTS).zip(groups) {
                        let allowed = allowed.four(slot);
                        if allowed == 0 {
                            continue;
                        }
                        for (place, score) in (0_u64..).zip(kernel(query, group)) {
                            if score >= best.floor && allowed >> place & 1 == 1 {
                                best.push(score, slot + place);
                            }
                        }
                    }
                    best
                },
            )
            .reduce(|| Best::new(count), Best::merge);
        let mut proposals = Proposals { slots: best.slots(), unknown: best.unknown };
        proposals.unknown.push((self.chunks() * CHUNK_SLOTS) as u64..end);
        proposals
    }
}

/// The best few of many, of equal ones those with the lower slots.
#[derive(Debug)]
struct Best {
    count: usize,
    /// Nothing below this is among the best.
    floor: f32,
    kept: Vec<(f32, u64)>,
    unknown: Vec<Range<u64>>,
}

impl Best {
    fn new(count: usize) -> Self {
        let kept = Vec::with_capacity(2 * count);
        Self { count: count.max(1), floor: f32::NEG_INFINITY, kept, unknown: Vec::new() }
    }

    fn push(&mut self, score: f32, slot: u64) {
        self.kept.push((score, slot));
        if self.kept.len() >= 2 * self.count {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.kept.len() > self.count {
            let order = |a: &(f32, u64), b: &(f32, u64)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
            let (_, last, _) = self.kept.select_nth_unstable_by(self.count - 1, order);
            self.floor = last.0;
            self.kept.truncate(self.count);
        }
    }

    fn merge(mut self, other: Self) -> Self {
        self.kept.extend(other.kept);
        self.cut();
        self.unknown.extend(other.unknown);
        self
    }

    fn slots(&mut self) -> Vec<u64> {
        self.cut();
        self.kept.iter().map(|(_, slot)| *slot).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_do_not_depend_on_how_they_are_divided() {
        let scored: Vec<(f32, u64)> = (0..5000_u64).map(|i| ((i * 37 % 101) as f32, i)).collect();
        let of = |parts: usize| {
            let parts = scored.chunks(scored.len() / parts).map(|part| {
                let mut best = Best::new(70);
                for (score, slot) in part {
                    if *score >= best.floor {
                        best.push(*score, *slot);
                    }
                }
                best
            });
            let mut slots = parts.reduce(Best::merge).unwrap().slots();
            slots.sort_unstable();
            slots
        };
        let whole = of(1);
        assert_eq!(whole.len(), 70);
        assert_eq!(of(7), whole);
        assert_eq!(of(50), whole);
        let mut sorted = scored.clone();
        sorted.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut expected: Vec<u64> = sorted[..70].iter().map(|(_, slot)| *slot).collect();
        expected.sort_unstable();
        assert_eq!(whole, expected);
    }
}
