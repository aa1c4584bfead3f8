//! Which photos pass a filter.

use std::sync::{Arc, PoisonError};

use rayon::prelude::*;

use super::{PhotoSlot, TextReader};
use crate::document::DocId;
use crate::error::{StoreError, StoreResult};
use crate::query::Filter;
use crate::text::filter::{Bits, Segment};
use crate::text::guard;
use crate::text::schema::{DOC, SLOT};

/// Filters whose photos are kept: those of a query's alternatives, which are asked for by words and
/// by meaning.
const FILTERS_KEPT: usize = 4;

/// The photos that pass a filter.
#[derive(Debug)]
pub(crate) struct Passing(pub(super) Vec<Bits>);

impl Passing {
    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.0.iter().map(Bits::count).sum()
    }
}

impl TextReader {
    /// The photos that pass `filter`.
    pub(crate) fn passing(&self, filter: &Filter) -> StoreResult<Arc<Passing>> {
        // A query asks for words and for meaning, both with its filter, and at the same time: the
        // one waits for what the other finds out. Who holds the lock must not wait for the thread
        // pool: the thread that helps out there may come to this lock.
        let mut filters = self.filters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, passing)) = filters.iter().find(|(known, _)| known == filter) {
            return Ok(passing.clone());
        }
        let everything = self.everything()?;
        let passing = guard(&self.folder, || {
            let segments = self.segments().zip(everything);
            let sets = segments.map(|(segment, photos)| segment.passing(photos.clone(), filter));
            Ok(Arc::new(Passing(sets.collect::<tantivy::Result<_>>()?)))
        })?;
        if filters.len() == FILTERS_KEPT {
            filters.remove(0);
        }
        filters.push((filter.clone(), passing.clone()));
        Ok(passing)
    }

    /// Every photo, a set for each segment.
    pub(super) fn everything(&self) -> StoreResult<&[Bits]> {
        if let Some(everything) = self.everything.get() {
            return Ok(everything);
        }
        let sets = guard(&self.folder, || self.segments().map(Segment::photos).collect())?;
        Ok(self.everything.get_or_init(|| sets))
    }

    /// Calls `each` with every photo of `passing`.
    pub(crate) fn each_photo(
        &self,
        passing: &Passing,
        mut each: impl FnMut(PhotoSlot),
    ) -> StoreResult<()> {
        let mut beyond = None;
        guard(&self.folder, || {
            for (segment, passing) in self.searcher.segment_readers().iter().zip(&passing.0) {
                let columns = segment.fast_fields();
                let docs = columns.column_opt::<u64>(DOC)?;
                let slots = columns.column_opt::<u64>(SLOT)?;
                let (Some(docs), Some(slots)) = (docs, slots) else { continue };
                for id in passing.iter() {
                    let (Some(slot), Some(doc)) = (slots.first(id), docs.first(id)) else {
                        continue;
                    };
                    if self.snapshot.has_record(slot) {
                        each(PhotoSlot { slot, doc: DocId(doc) });
                    } else {
                        beyond = Some(slot);
                    }
                }
            }
            Ok(())
        })?;
        match beyond {
            None => Ok(()),
            Some(slot) => {
                let slots = self.snapshot.slots;
                let what = format!("it names slot {slot} of {slots}, which has no record");
                Err(StoreError::rewritable(&self.folder, what))
            }
        }
    }

    /// The photos that pass `filter`, by slot.
    pub(crate) fn photos(&self, filter: &Filter) -> StoreResult<Vec<PhotoSlot>> {
        if filter.is_empty() {
            return self.photos_of(&Passing(self.everything()?.to_vec()));
        }
        self.photos_of(&*self.passing(filter)?)
    }

    /// The photos of `passing`, by slot.
    pub(crate) fn photos_of(&self, passing: &Passing) -> StoreResult<Vec<PhotoSlot>> {
        let mut photos = Vec::with_capacity(passing.count() as usize);
        self.each_photo(passing, |photo| photos.push(photo))?;
        photos.par_sort_unstable();
        Ok(photos)
    }

    /// The photos that are not in `passing`.
    pub(crate) fn all_but(&self, passing: &Passing) -> StoreResult<Passing> {
        let mut others = self.everything()?.to_vec();
        for (others, passing) in others.iter_mut().zip(&passing.0) {
            others.retain(passing, false);
        }
        Ok(Passing(others))
    }
}
