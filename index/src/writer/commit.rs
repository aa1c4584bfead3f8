//! A commit. The order of its steps is the protocol: see `DESIGN.md` before touching it.

use std::panic::resume_unwind;
use std::thread;

use super::IndexWriter;
use crate::document::{ContentHash, Matrix};
use crate::error::{OpenError, StoreResult, WriteError};
use crate::recovery::{snapshot, stage_text};
use crate::segments::{Gone, SegmentWriter};

impl IndexWriter {
    /// Makes a generation of what is staged.
    pub(super) fn publish(&mut self) -> Result<(), WriteError> {
        self.interrupted = true;
        let Self { segments, text, catalog, changed, coarse, .. } = self;
        // What the disk and what the processor has to do go on at the same time.
        let (synced, staged) = thread::scope(|scope| {
            let synced = scope.spawn(|| segments.sync());
            let staged = stage_text(text, catalog, changed.iter());
            (synced.join().unwrap_or_else(|panic| resume_unwind(panic)), staged)
        });
        synced?;
        staged?;
        // The files of the text are written beside the catalogue, and published after it; the codes
        // are made meanwhile, and written when all is done.
        let (segments, coarse) = (&*segments, coarse.as_ref());
        let (slots, gone) = (catalog.state().next_slot, catalog.state().gone.clone());
        let codes = thread::scope(|scope| {
            let read = |slot| vectors_of(segments, &gone, slot);
            let codes = scope.spawn(move || coarse.map(|it| it.prepare(slots, &read)));
            let text = scope.spawn(|| text.prepare());
            let applied = catalog.apply(changed.iter());
            let text = text.join().unwrap_or_else(|panic| resume_unwind(panic));
            applied?;
            text?.publish(&snapshot(catalog))?;
            StoreResult::Ok(codes.join().unwrap_or_else(|panic| resume_unwind(panic)))
        })?;
        self.manifest().write(&self.dir)?;
        self.changed.clear();
        self.pending = 0;
        self.interrupted = false;
        // What could not be read is read again, and told.
        self.extend_codes(codes.and_then(Result::ok).unwrap_or_default());
        Ok(())
    }

    /// Brings the codes to what is committed. They are a cache: without them a search takes
    /// longer, and the next commit tries again.
    pub(super) fn extend_codes(&mut self, prepared: Vec<Vec<u8>>) {
        let slots = self.catalog.state().next_slot;
        let Some(coarse) = &mut self.coarse else { return };
        let (segments, gone) = (&self.segments, &self.catalog.state().gone);
        if let Err(error) = coarse.extend(slots, prepared, &|slot| vectors_of(segments, gone, slot))
        {
            let error = OpenError::from(error);
            tracing::warn!("the codes of the vector search were not written: {error}");
        }
    }
}

/// The content and the vectors of a slot; none where its segment is gone.
fn vectors_of(
    segments: &SegmentWriter,
    gone: &Gone,
    slot: u64,
) -> StoreResult<Option<(ContentHash, Matrix)>> {
    if gone.holds(slot) { Ok(None) } else { segments.embedding(slot).map(Some) }
}
