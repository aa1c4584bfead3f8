//! Photos by vectors: by one of a text or a picture, or by all those of another photo.

use super::{IndexReader, allowed::Allowed};
use crate::coarse::{Ask, CodedQuery};
use crate::document::{DocId, Matrix};
use crate::error::{SearchError, StoreResult};
use crate::nearest::{self, Nearest};
use crate::query::Filter;
use crate::segments::SegmentReader;
use crate::text::PhotoSlot;
use crate::vectors::Query;

impl IndexReader {
    /// The best `limit` photos that pass `filter` by the largest cosine between `query`, of any
    /// length but zero, and one of their image-text vectors.
    ///
    /// Scores lie in -1 to 1 and are exact for the stored int8 vectors, that is within 0.01 of
    /// the cosine of the originals. Best first, equal scores by ascending number.
    ///
    /// Where the vectors of the photos that pass have at most 67 MB (8,000 photos at 32 vectors
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
        let found = self.nearest_to(&[(self.sample(query)?, filter)], limit)?.concat();
        self.nearest().verify(&found)?;
        Ok(without_slots(found))
    }

    /// As [`IndexReader::by_vector`] for several vectors, each with its filter: a list for each.
    /// They share the time that it takes to get the codes from memory.
    ///
    /// Whether the records of the photos are whole is not looked at: this is for those who rank a
    /// thousand, show a few, and ask for these with [`IndexReader::verify`].
    ///
    /// # Errors
    ///
    /// See [`IndexReader::by_vector`]; damage of a record is none.
    pub fn rank_by_vectors(
        &self,
        asked: &[(Vec<f32>, Filter)],
        limit: usize,
    ) -> Result<Vec<Vec<(DocId, f32)>>, SearchError> {
        let samples: Result<Vec<(Sample<'_>, &Filter)>, SearchError> =
            asked.iter().map(|(query, filter)| Ok((self.sample(query)?, filter))).collect();
        let found = self.nearest_to(&samples?, limit)?;
        Ok(found.into_iter().map(without_slots).collect())
    }

    /// Verifies the record of a photo's image-text vectors.
    ///
    /// # Errors
    ///
    /// [`SearchError::UnknownDoc`] without such a photo, [`SearchError::Corrupt`] if its record
    /// is not what was written.
    pub fn verify(&self, doc: DocId) -> Result<(), SearchError> {
        Ok(self.segments.verify_embedding(self.slot(doc)?)?)
    }

    fn sample<'a>(&self, query: &'a [f32]) -> Result<Sample<'a>, SearchError> {
        let (expected, found) = (self.spec.embedding_dim, query.len());
        if expected != found {
            let model = self.spec.name.clone();
            return Err(SearchError::Dimension { model, expected, found });
        }
        let prepared = Query::new(query).ok_or(SearchError::NoDirection)?;
        Ok(Sample::Vector { prepared, vector: query })
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
        let prepared: Vec<Option<Query>> =
            (0..rows.rows).map(|row| Query::new(rows.row(row))).collect();
        if prepared.iter().all(Option::is_none) {
            return Err(SearchError::NoDirection);
        }
        let sample = Sample::Rows { prepared, rows };
        let found = self.nearest_to(&[(sample, filter)], limit)?.concat();
        self.nearest().verify(&found)?;
        Ok(without_slots(found))
    }

    /// For each sample the best `limit` photos that pass its filter; in a large collection the
    /// best of those that the codes propose.
    fn nearest_to(
        &self,
        samples: &[(Sample<'_>, &Filter)],
        limit: usize,
    ) -> Result<Vec<Vec<(PhotoSlot, f32)>>, SearchError> {
        let nearest = self.nearest();
        let exact = |sample: &Sample<'_>, photos: &[PhotoSlot]| {
            nearest::exact(|slots| sample.cosines(&self.segments, slots), photos, limit)
        };
        let mut found: Vec<Vec<(PhotoSlot, f32)>> = vec![Vec::new(); samples.len()];
        let mut coarse = None;
        // Places of those that ask the codes, with what they may find; none: everything.
        let mut asking: Vec<(usize, Option<Allowed>)> = Vec::new();
        for (at, (sample, filter)) in samples.iter().enumerate() {
            let passing = if filter.is_empty() { None } else { Some(self.text.passing(filter)?) };
            let count = passing.as_ref().map_or(self.counts().photos, |passing| passing.count());
            let codes = nearest.codes(count, limit);
            match (codes, passing) {
                (None, None) => found[at] = exact(sample, self.all_photos()?),
                (None, Some(passing)) => {
                    found[at] = exact(sample, &self.text.photos_of(&passing)?);
                }
                (Some(codes), passing) => {
                    coarse = Some(codes);
                    let photos = self.all_photos()?;
                    let allowed = passing.map(|passing| self.allowed(&passing, photos));
                    asking.push((at, allowed.transpose()?));
                }
            }
        }
        let Some(codes) = coarse else { return Ok(found) };
        let photos = self.all_photos()?;
        let all = &self.all_slots(photos).all;
        let asks: Vec<Ask<'_>> = asking
            .iter()
            .map(|(at, allowed)| Ask {
                queries: samples[*at].0.coded(),
                allowed: allowed.as_ref().map_or(all, |allowed| &allowed.slots),
            })
            .collect();
        let candidates = nearest.candidates(codes, &asks, photos);
        for ((at, allowed), mut candidates) in asking.iter().zip(candidates) {
            if let Some(allowed) = allowed {
                candidates.retain(|photo| allowed.holds(photo));
            }
            found[*at] = exact(&samples[*at].0, &candidates);
        }
        Ok(found)
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
}

/// What photos are compared with.
enum Sample<'a> {
    /// A text or a picture: the nearest row of a photo counts.
    Vector { prepared: Query, vector: &'a [f32] },
    /// Another photo: row is compared with row.
    Rows { prepared: Vec<Option<Query>>, rows: &'a Matrix },
}

impl Sample<'_> {
    /// The score of the photo in each of `slots`, in their order.
    fn cosines(&self, segments: &SegmentReader, slots: &[u64]) -> Vec<f32> {
        match self {
            Self::Vector { prepared, .. } => segments.best_cosines(prepared, slots),
            Self::Rows { prepared, .. } => segments.mean_cosines(prepared, slots),
        }
    }

    /// The queries over which the estimates are summed.
    fn coded(&self) -> Vec<CodedQuery> {
        match self {
            Self::Vector { vector, .. } => vec![CodedQuery::new(vector)],
            Self::Rows { rows, .. } => CodedQuery::of_rows(rows),
        }
    }
}

fn without_slots(found: Vec<(PhotoSlot, f32)>) -> Vec<(DocId, f32)> {
    found.into_iter().map(|(photo, score)| (photo.doc, score)).collect()
}
