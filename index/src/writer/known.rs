//! What the catalogue says of photos, for those who write.

use super::IndexWriter;
use crate::catalog::PathEntry;
use crate::document::{DocId, PhotoMetadata};
use crate::error::WriteError;

impl IndexWriter {
    /// The caption that a photo, and every copy of it, has now; pending changes count.
    ///
    /// # Errors
    ///
    /// [`WriteError::UnknownDoc`] without such a photo; else when the catalogue cannot be read.
    pub fn caption(&self, doc: DocId) -> Result<Option<String>, WriteError> {
        let hash = self.content_of(doc)?;
        Ok(self.catalog.content_of_photo(&hash)?.caption)
    }

    /// What is kept of the header and the picture of a photo; pending changes count.
    ///
    /// # Errors
    ///
    /// [`WriteError::UnknownDoc`] without such a photo; else when the catalogue cannot be read.
    pub fn metadata(&self, doc: DocId) -> Result<PhotoMetadata, WriteError> {
        let path = self.catalog.path_of(doc)?.ok_or(WriteError::UnknownDoc { doc })?;
        match self.row(&path)?.entry {
            PathEntry::Photo { metadata, .. } => Ok(metadata),
            PathEntry::Failed { .. } => Err(WriteError::UnknownDoc { doc }),
        }
    }
}
