//! One photo after the other, for those who want them all.

use super::IndexReader;
use crate::document::{DocId, StoredPhoto};
use crate::error::SearchError;
use crate::query::Filter;

impl IndexReader {
    /// The cameras of all photos, each with how many photos it took; most first, equals by name. A
    /// text index of an earlier version says nothing of them until a writer opens it.
    ///
    /// # Errors
    ///
    /// When the text index cannot be read.
    pub fn cameras(&self) -> Result<Vec<(String, u64)>, SearchError> {
        Ok(self.text.cameras()?)
    }

    /// Every photo that passes `filter`, by ascending number. Each is read when it is asked for,
    /// so that a walk over a large collection holds its numbers in memory and no more.
    ///
    /// # Errors
    ///
    /// When the filter cannot be answered; each item by itself when the text index cannot be
    /// read.
    ///
    /// ```
    /// # use tinyfind_index::*;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let spec = ModelSpec {
    /// #     name: "nano".into(), fingerprint: "0a".into(),
    /// #     embedding_rows: 1, embedding_dim: 2, token_rows: 1, token_dim: 2,
    /// # };
    /// # IndexWriter::open(folder.path(), &spec)?;
    /// let reader = IndexReader::open(folder.path())?;
    /// for photo in reader.photos(&Filter::default())? {
    ///     println!("{}", photo?.path.display());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn photos<'a>(
        &'a self,
        filter: &Filter,
    ) -> Result<impl Iterator<Item = Result<StoredPhoto, SearchError>> + use<'a>, SearchError> {
        let mut docs: Vec<DocId> =
            self.text.photos(filter)?.into_iter().map(|photo| photo.doc).collect();
        docs.sort_unstable();
        Ok(docs.into_iter().map(|doc| self.text.photo(doc)?.ok_or(SearchError::UnknownDoc { doc })))
    }
}
