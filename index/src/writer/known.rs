//! What the index says of photos, for those who write.

use std::path::PathBuf;

use super::IndexWriter;
use crate::catalog::PathEntry;
use crate::document::{ContentHash, DocId, Matrix, PhotoMetadata};
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

    /// Every photo of this content, by number.
    ///
    /// # Errors
    ///
    /// When the catalogue cannot be read.
    pub fn find_content(&self, hash: &ContentHash) -> Result<Vec<(DocId, PathBuf)>, WriteError> {
        Ok(self.catalog.holders(hash)?)
    }

    /// Up to `limit` contents without a caption, oldest first: a photo of each and its visual
    /// tokens. Copies are not repeated.
    ///
    /// # Errors
    ///
    /// When the catalogue or a segment cannot be read.
    pub fn uncaptioned(&self, limit: usize) -> Result<Vec<(DocId, Matrix)>, WriteError> {
        let mut found = Vec::new();
        for (slot, hash) in self.catalog.uncaptioned(limit)? {
            if let Some((doc, _)) = self.catalog.holders(&hash)?.into_iter().next() {
                found.push((doc, self.segments.visual_tokens(slot)?));
            }
        }
        Ok(found)
    }
}
