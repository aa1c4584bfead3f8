//! Photos by vectors: by one of a text or a picture, or by all those of another photo.

use super::IndexReader;
use crate::coarse::CodedQuery;
use crate::document::{DocId, Matrix};
use crate::error::{SearchError, StoreResult};
use crate::nearest::Nearest;
use crate::query::Filter;
use crate::segments::NumberSet;
use crate::text::PhotoSlot;
use crate::vectors::Query;

impl IndexReader {
    /// The best `limit` photos that pass `filter` by the largest cosine between `query`, of any
    /// length but zero, and one of their image-text vectors.
    ///
    /// Scores lie in -1 to 1 and are exact for the stored int8 vectors, that is within 0.01 of
    /// the cosine of the originals. Best first, equal scores by ascending number.
    ///
    /// Where the vectors of the photos that pass have at most 134 MB (16,000 photos at 32 vectors
    /// of 256; [`IndexReader::compare_all_up_to`] sets another limit), or more than 1,024 photos
    /// are asked for, every one of them is compared. Else short codes of each photo propose
    /// candidates whose exact scores decide: of the ten best, fewer than one in fifty is missed on
    /// average, and `limit` photos are returned where so many pass.
    ///
    /// # Errors
    ///
    /// [`SearchError::Dimension`] and [`SearchError::NoDirection`] for a query that cannot be
    /// compared; else when a file cannot be read or one of the photos found is damaged.
    pub fn by_vector(
        &self,
        query: &[f32],
        filter: &Filter,
        limit: usize,
    ) -> Result<Vec<(DocId, f32)>, SearchError> {
        let (expected, found) = (self.spec.embedding_dim, query.len());
        if expected != found {
            let model = self.spec.name.clone();
            return Err(SearchError::Dimension { model, expected, found });
        }
        let prepared = Query::new(query).ok_or(SearchError::NoDirection)?;
        let cosines = |slots: &[u64]| self.segments.best_cosines(&prepared, slots);
        self.best_of(cosines, || vec![CodedQuery::new(query)], filter, limit)
    }

    /// The best `limit` photos that pass `filter` by the mean, over all rows, of the cosine
    /// between row `i` of `rows` and row `i` of the photo: the image-text vectors of another
    /// photo, of the same model, are what to give.
    ///
    /// It is the cosine of all rows written one behind the other, so it is symmetric, lies in -1
    /// to 1, is 1 for photos that are alike in every row, and `sqrt(2 - 2 cosine)` is a distance.
    /// Rows of zeros count as 0. Scores are exact for the stored int8 vectors, that is within
    /// 0.01 of those of the originals. Best first, equal scores by ascending number. In a large
    /// collection codes propose candidates, as in [`IndexReader::by_vector`].
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
        let cosines = |slots: &[u64]| self.segments.mean_cosines(&queries, slots);
        self.best_of(cosines, || CodedQuery::of_rows(rows), filter, limit)
    }

    /// The best `limit` photos that pass `filter` by what `cosines` returns for their slots; in a
    /// large collection of those that the codes propose for `coded`.
    fn best_of(
        &self,
        cosines: impl Fn(&[u64]) -> Vec<f32>,
        coded: impl FnOnce() -> Vec<CodedQuery>,
        filter: &Filter,
        limit: usize,
    ) -> Result<Vec<(DocId, f32)>, SearchError> {
        let nearest = self.nearest();
        let passing = if filter.is_empty() { None } else { Some(self.text.passing(filter)?) };
        let count = passing.as_ref().map_or(self.counts().photos, |passing| passing.count());
        let Some(codes) = nearest.codes(count, limit) else {
            return Ok(match passing {
                None => nearest.exact(cosines, self.all_photos()?, limit)?,
                Some(passing) => nearest.exact(cosines, &self.text.photos_of(&passing)?, limit)?,
            });
        };
        let (photos, coded) = (self.all_photos()?, coded());
        let candidates = match passing {
            None => nearest.candidates(codes, &coded, self.all_slots(photos), photos),
            Some(passing) => {
                let (slots, docs) = self.text.sets_of(&passing)?;
                let mut candidates = nearest.candidates(codes, &coded, &slots, photos);
                // Of copies, which share a slot, some may pass and others not.
                candidates.retain(|photo| docs.contains(photo.doc.0));
                candidates
            }
        };
        Ok(nearest.exact(cosines, &candidates, limit)?)
    }

    fn nearest(&self) -> Nearest<'_> {
        let slots = self.text.snapshot().slots;
        let (segments, coarse) = (&self.segments, self.coarse.as_ref());
        Nearest { segments, coarse, slots, exact_bytes: self.exact_bytes }
    }

    fn all_photos(&self) -> StoreResult<&[PhotoSlot]> {
        if let Some(photos) = self.photos.get() {
            return Ok(photos);
        }
        let photos = self.text.photos(&Filter::default())?;
        Ok(self.photos.get_or_init(|| photos))
    }

    fn all_slots(&self, photos: &[PhotoSlot]) -> &NumberSet {
        self.slots.get_or_init(|| {
            let mut slots = NumberSet::new(self.text.snapshot().slots);
            for photo in photos {
                slots.insert(photo.slot);
            }
            slots
        })
    }
}
