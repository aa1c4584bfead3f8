//! Photos that a query names, and vectors mixed of text and photos.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use tinyfind_index::{
    Clause, ContentHash, DocId, Filter, IndexReader, Matrix, SearchError, StoredPhoto,
};

use super::query::{Alternative, Part, Problem};
use super::{FindError, Query};
use crate::decode::decode_file;
use crate::vlm::{Vlm, VlmError};

/// Where the photos lie that a query names.
#[derive(Debug, Clone, Default)]
pub struct Pictures(HashMap<String, Picture>);

/// A photo that a query names.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Picture {
    /// The index has its vectors.
    Indexed(DocId),
    /// A file that the model must look at.
    File(PathBuf),
}

impl Pictures {
    /// Finds the photos of `query`: each is a file, or else the one photo of the index whose
    /// path ends with what was written. `as_crawled` gives the name that the crawl has for a
    /// path.
    ///
    /// # Errors
    ///
    /// [`FindError::Query`] where there is no such photo, or several.
    pub fn find(
        reader: &IndexReader,
        query: &Query,
        as_crawled: impl Fn(&Path) -> io::Result<PathBuf>,
    ) -> Result<Self, FindError> {
        let mut pictures = HashMap::new();
        for (name, part) in query.images() {
            let path = Path::new(name);
            let crawled = as_crawled(path).unwrap_or_else(|_| path.to_owned());
            let picture = match reader.find_path(&crawled)? {
                Some(doc) => Picture::Indexed(doc),
                None if path.is_file() => Picture::File(path.to_owned()),
                None => Picture::Indexed(named_in_query(reader, query, name, part)?),
            };
            pictures.insert(name.to_owned(), picture);
        }
        Ok(Self(pictures))
    }

    /// Whether the model must look at one of them.
    pub fn need_model(&self) -> bool {
        self.0.values().any(|picture| matches!(picture, Picture::File(_)))
    }

    fn get(&self, name: &str) -> Result<&Picture, FindError> {
        // Only whoever hands over the pictures of another query comes here.
        self.0.get(name).ok_or_else(|| FindError::UnknownPhoto { name: name.to_owned() })
    }
}

/// What the end of a path names.
pub(crate) enum Named {
    /// No photo.
    None,
    /// This one; of copies the first.
    One(Box<StoredPhoto>),
    /// Several, one of which has a path that ends like this.
    Several {
        /// A little more of its path.
        example: String,
    },
}

/// The photo of the index whose path ends with `name`.
pub(crate) fn find_named(reader: &IndexReader, name: &Path) -> Result<Named, SearchError> {
    /// More than one is too many; a few more may all be copies.
    const LOOKED_AT: usize = 20;
    let Some(end) = name.to_str() else { return Ok(Named::None) };
    let end = end.trim_start_matches("./").to_owned();
    let filter = Filter { require: vec![Clause::PathEnd(end)], exclude: Vec::new() };
    let mut found: Vec<StoredPhoto> = Vec::new();
    for doc in reader.by_filter(&filter, LOOKED_AT)? {
        found.extend(reader.photo(doc)?);
    }
    // Those of one second come in no order that a person knows.
    found.sort_by(|a, b| a.path.cmp(&b.path));
    let Some((first, rest)) = found.split_first() else { return Ok(Named::None) };
    if rest.iter().all(|photo| photo.hash == first.hash) {
        return Ok(Named::One(Box::new(found.swap_remove(0))));
    }
    let parts: Vec<_> = first.path.components().rev().collect();
    let written = name.components().count();
    let longer: PathBuf = parts.into_iter().take(written + 1).rev().collect();
    Ok(Named::Several { example: longer.display().to_string() })
}

/// The photo of the index that a part of a query means with the end of its path.
fn named_in_query(
    reader: &IndexReader,
    query: &Query,
    name: &str,
    part: &Part,
) -> Result<DocId, FindError> {
    let problem = match find_named(reader, Path::new(name))? {
        Named::One(photo) => return Ok(photo.doc),
        Named::None => Problem::NoSuchPhoto(name.to_owned()),
        Named::Several { example } => Problem::ManyPhotos { name: name.to_owned(), example },
    };
    Err(query.error(part.at.clone(), problem).into())
}

/// The vector that stands for an alternative: the sum of its text and its photos, each of unit
/// length, less the photos that are unlike it. A photo counts with the mean of its vectors.
/// `None` for an alternative without either, or with words only and no model.
pub(super) fn vector(
    reader: &IndexReader,
    mut vlm: Option<&mut dyn Vlm>,
    alternative: &Alternative,
    pictures: &Pictures,
) -> Result<Option<Vec<f32>>, FindError> {
    let has_images = alternative.images().next().is_some();
    let mut sum: Option<Vec<f32>> = None;
    if let Some(text) = alternative.text() {
        let Some(vlm) = vlm.as_deref_mut() else {
            return if has_images { Err(FindError::NoModel) } else { Ok(None) };
        };
        let vector = vlm.embed_queries(&[&text])?.pop();
        sum = Some(vector.ok_or_else(|| VlmError::new("the model gave no vector"))?);
    }
    for (name, part) in alternative.images() {
        let rows = match pictures.get(name)? {
            Picture::Indexed(doc) => reader.embedding(*doc)?,
            Picture::File(path) => look_at(path, vlm.as_deref_mut().ok_or(FindError::NoModel)?)?.1,
        };
        let sign = if part.exclude { -1.0 } else { 1.0 };
        let sum = sum.get_or_insert_with(|| vec![0.0; rows.dim]);
        for (value, mean) in sum.iter_mut().zip(mean_direction(&rows)) {
            *value += sign * mean;
        }
    }
    if sum.as_ref().is_some_and(|sum| norm(sum) < NOTHING) {
        return Err(FindError::Index(SearchError::NoDirection));
    }
    Ok(sum)
}

/// A sum of unit vectors that is shorter is what rounding leaves when they cancel out.
const NOTHING: f32 = 1e-4;

/// Content and vectors of a file that is not in the index.
pub(crate) fn look_at(path: &Path, vlm: &mut dyn Vlm) -> Result<(ContentHash, Matrix), FindError> {
    let decoded = decode_file(path, Some(vlm.input_size()))
        .map_err(|source| FindError::Picture { path: path.to_owned(), source })?;
    let features = vlm.embed_images(&[decoded.image])?.pop();
    let features = features.ok_or_else(|| VlmError::new("the model gave no vectors"))?;
    Ok((decoded.hash, features.embedding))
}

/// The mean of the rows, of unit length.
fn mean_direction(rows: &Matrix) -> Vec<f32> {
    let mut sum = vec![0.0; rows.dim];
    for row in 0..rows.rows {
        for (sum, value) in sum.iter_mut().zip(rows.row(row)) {
            *sum += value;
        }
    }
    let norm = norm(&sum).max(f32::MIN_POSITIVE);
    for value in &mut sum {
        *value /= norm;
    }
    sum
}

fn norm(vector: &[f32]) -> f32 {
    vector.iter().map(|value| value * value).sum::<f32>().sqrt()
}
