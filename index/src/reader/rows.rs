//! Photos by all the vectors of another one.

use super::IndexReader;
use crate::document::{DocId, Matrix};
use crate::error::SearchError;
use crate::nearest::best;
use crate::query::Filter;
use crate::text::PhotoSlot;
use crate::vectors::Query;

impl IndexReader {
    /// The best `limit` photos that pass `filter` by the mean, over all rows, of the cosine
    /// between row `i` of `rows` and row `i` of the photo: the image-text vectors of another
    /// photo, of the same model, are what to give.
    ///
    /// It is the cosine of all rows written one behind the other, so it is symmetric, lies in -1
    /// to 1, is 1 for photos that are alike in every row, and `sqrt(2 - 2 cosine)` is a distance.
    /// Rows of zeros count as 0. Scores are exact for the stored int8 vectors, that is within
    /// 0.01 of those of the originals. Best first, equal scores by ascending number.
    ///
    /// # Errors
    ///
    /// [`SearchError::Dimension`] for rows of another shape than the model's,
    /// [`SearchError::NoDirection`] where all are zero; else when a file cannot be read or one of
    /// the photos found is damaged.
    pub fn by_rows(
        &self,
        rows: &Matrix,
        filter: &Filter,
        limit: usize,
    ) -> Result<Vec<(DocId, f32)>, SearchError> {
        let spec = &self.spec;
        if (rows.rows, rows.dim) != (spec.embedding_rows, spec.embedding_dim) {
            let same_dim = rows.dim == spec.embedding_dim;
            let count = |rows: usize, dim: usize| if same_dim { rows * dim } else { dim };
            return Err(SearchError::Dimension {
                model: spec.name.clone(),
                expected: count(spec.embedding_rows, spec.embedding_dim),
                found: count(rows.rows, rows.dim),
            });
        }
        let queries: Vec<Option<Query>> =
            (0..rows.rows).map(|row| Query::new(rows.row(row))).collect();
        if queries.iter().all(Option::is_none) {
            return Err(SearchError::NoDirection);
        }
        let passing;
        let photos: &[PhotoSlot] = if filter.is_empty() {
            self.all_photos()?
        } else {
            passing = self.text.photos(filter)?;
            &passing
        };
        // They come by slot, so copies stand side by side and are compared once.
        let mut slots: Vec<u64> = photos.iter().map(|photo| photo.slot).collect();
        slots.dedup();
        let cosines = self.segments.mean_cosines(&queries, &slots);
        let scored = photos.iter().map(|photo| {
            let at = slots.partition_point(|slot| *slot < photo.slot);
            (*photo, cosines[at])
        });
        let found = best(scored.collect(), limit, |(photo, score)| (photo.doc, *score));
        for (photo, _) in &found {
            self.segments.verify_embedding(photo.slot)?;
        }
        Ok(found.into_iter().map(|(photo, score)| (photo.doc, score)).collect())
    }
}
