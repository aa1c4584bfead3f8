//! The caption phase: words for photos that have none, from their stored visual tokens.

use tinyfind_index::Matrix;

use super::{IndexError, Phase, Run};
use crate::vlm::{Vlm, VlmError};

impl Run<'_> {
    /// Captions every content of the index that has no caption, oldest first.
    pub(super) fn caption(&mut self, vlm: &mut dyn Vlm) -> Result<(), IndexError> {
        let counts = self.writer.counts();
        let total = counts.photos.saturating_sub(counts.captioned);
        if total == 0 {
            return Ok(());
        }
        self.reporter.phase_started(Phase::Caption, total);
        let result = self.caption_all(vlm);
        self.reporter.phase_ended(Phase::Caption);
        result
    }

    fn caption_all(&mut self, vlm: &mut dyn Vlm) -> Result<(), IndexError> {
        loop {
            let photos = self.writer.uncaptioned(vlm.caption_batch().max(1))?;
            if photos.is_empty() {
                break;
            }
            if self.is_cancelled() {
                self.summary.interrupted = true;
                break;
            }
            let tokens: Vec<&Matrix> = photos.iter().map(|(_, tokens)| tokens).collect();
            let captions = match vlm.caption(&tokens) {
                Ok(captions) if captions.len() == photos.len() => captions,
                Ok(captions) => {
                    let (got, wanted) = (captions.len(), photos.len());
                    let text = format!("the model gave {got} captions for {wanted} photos");
                    return Err(self.model_failed(VlmError::new(text)));
                }
                Err(error) => return Err(self.model_failed(error)),
            };
            let before = self.writer.counts().captioned;
            for ((photo, _), caption) in photos.iter().zip(&captions) {
                self.writer.set_caption(*photo, caption)?;
            }
            // Copies are captioned with their original.
            let done = self.writer.counts().captioned - before;
            self.summary.captioned += done;
            self.reporter.advanced(Phase::Caption, done);
            self.commit_if_due()?;
        }
        self.commit()
    }
}
