//! Which photos a search among candidates may find.

use super::IndexReader;
use crate::error::StoreResult;
use crate::segments::NumberSet;
use crate::text::{Passing, PhotoSlot};

/// The slots of a generation.
#[derive(Debug)]
pub(super) struct Slots {
    /// Those of every photo.
    pub(super) all: NumberSet,
    /// Those of several.
    shared: NumberSet,
}

/// The photos that pass a filter.
#[derive(Debug)]
pub(super) struct Allowed {
    /// Where at least one of them lies.
    pub(super) slots: NumberSet,
    /// Their numbers, or those of all others.
    docs: NumberSet,
    /// Whether `docs` are the others.
    all_but: bool,
}

impl Allowed {
    /// Whether a photo in one of the slots passes: of copies, which share one, some may pass and
    /// others not.
    pub(super) fn holds(&self, photo: &PhotoSlot) -> bool {
        self.docs.contains(photo.doc.0) != self.all_but
    }
}

impl IndexReader {
    /// The slots of `photos`, which are all photos.
    pub(super) fn all_slots(&self, photos: &[PhotoSlot]) -> &Slots {
        self.slots.get_or_init(|| {
            let none = NumberSet::new(self.text.snapshot().slots);
            let mut slots = Slots { all: none.clone(), shared: none };
            for photo in photos {
                let is_known = slots.all.contains(photo.slot);
                if is_known { &mut slots.shared } else { &mut slots.all }.insert(photo.slot);
            }
            slots
        })
    }

    /// The photos of `passing`, of all `photos`, which come by slot. Those are gone through or,
    /// where they are fewer, those that do not pass.
    pub(super) fn allowed(&self, passing: &Passing, photos: &[PhotoSlot]) -> StoreResult<Allowed> {
        let snapshot = self.text.snapshot();
        let mut docs = NumberSet::new(snapshot.next_doc);
        if 2 * passing.count() <= photos.len() as u64 {
            let mut slots = NumberSet::new(snapshot.slots);
            self.text.each_photo(passing, |photo| {
                slots.insert(photo.slot);
                docs.insert(photo.doc.0);
            })?;
            return Ok(Allowed { slots, docs, all_but: false });
        }
        let all = self.all_slots(photos);
        let (mut slots, mut shared) = (all.all.clone(), Vec::new());
        self.text.each_photo(&self.text.all_but(passing)?, |photo| {
            if all.shared.contains(photo.slot) {
                shared.push(photo.slot);
            } else {
                slots.remove(photo.slot);
            }
            docs.insert(photo.doc.0);
        })?;
        shared.sort_unstable();
        shared.dedup();
        for slot in shared {
            let first = photos.partition_point(|photo| photo.slot < slot);
            let mut copies = photos[first..].iter().take_while(|photo| photo.slot == slot);
            if copies.all(|photo| docs.contains(photo.doc.0)) {
                slots.remove(slot);
            }
        }
        Ok(Allowed { slots, docs, all_but: true })
    }
}
