//! Which segments were given back.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{SLOTS_PER_SEGMENT, records_of};

/// The segments whose files were deleted, or are about to be: nothing that counts is in them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gone(BTreeSet<u64>);

impl Gone {
    /// Whether every segment is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a segment.
    pub(crate) fn insert(&mut self, segment: u64) {
        self.0.insert(segment);
    }

    /// Whether a segment is gone.
    pub(crate) fn contains(&self, segment: u64) -> bool {
        self.0.contains(&segment)
    }

    /// Whether the segment of a slot is gone.
    pub(crate) fn holds(&self, slot: u64) -> bool {
        !self.0.is_empty() && self.contains(slot / SLOTS_PER_SEGMENT)
    }

    /// How many of the first `slots` slots have a record: those of segments that are there.
    pub(crate) fn records(&self, slots: u64) -> u64 {
        // A segment that was closed early counts whole: its slots were never given.
        let gone = self.0.iter().map(|segment| records_of(*segment, slots));
        slots.saturating_sub(gone.sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_gone_segments_have_no_record() {
        let mut gone = Gone::default();
        let slots = 3 * SLOTS_PER_SEGMENT + 2;
        assert_eq!(gone.records(slots), slots);
        gone.insert(1);
        gone.insert(1);
        assert_eq!(gone.records(slots), slots - SLOTS_PER_SEGMENT);
        let held: Vec<u64> = (0..slots).filter(|slot| gone.holds(*slot)).collect();
        assert_eq!(held, (SLOTS_PER_SEGMENT..2 * SLOTS_PER_SEGMENT).collect::<Vec<_>>());
        assert_eq!(serde_json::to_string(&gone).unwrap(), "[1]");
    }
}
