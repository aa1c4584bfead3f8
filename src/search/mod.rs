//! The search: from a query to a ranking of photos.
//!
//! Words ([BM25](IndexReader::by_words)) and meaning ([cosine](IndexReader::by_vector)) each
//! make a list; reciprocal rank fusion makes one ranking of the two. The first [`CANDIDATES`] of
//! a list take part in the fusion, however few photos are asked for, so the best 5 are always
//! the first 5 of the best 50. Photos beyond follow by their rank in the one list or the other.

mod period;
pub mod query;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::PathBuf;

use tinyfind_index::{
    ContentHash, DocId, IndexReader, ModelSpec, PhotoMetadata, Term, reciprocal_rank_fusion,
};

pub use self::period::Period;
pub use self::query::{Query, QueryError};
use crate::vlm::{Vlm, VlmError};

/// How many photos of each list take part in the fusion.
pub const CANDIDATES: usize = 1000;

/// Constant of reciprocal rank fusion, as [`reciprocal_rank_fusion`] has it.
const FUSION_K: f32 = 60.0;

/// What to search for beside the query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SearchOptions {
    /// Most hits to return.
    pub top: usize,
    /// Lowest score to return, 0 to 1.
    pub min_score: f32,
}

/// A photo that a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// Place in the ranking; the best has 1.
    pub rank: usize,
    /// Number of the photo in the index.
    pub doc: DocId,
    /// 0 to 1: 1 is first in every list that was asked, first in one of two lists is 0.5, and
    /// rank 10 in both is 0.87. It tells places, not how well a photo fits: the best of a
    /// library without umbrellas still scores high for `umbrella`. Every hit of a query of
    /// fields only scores 1.
    pub score: f32,
    /// Where the photo lies.
    pub path: PathBuf,
    /// Hash of the content that was indexed.
    pub hash: ContentHash,
    /// What the model says it shows, once it has been captioned.
    pub caption: Option<String>,
    /// Byte ranges of the words of the caption that the query names, ascending, disjoint.
    pub highlights: Vec<Range<usize>>,
    /// Size, date, camera and place.
    pub metadata: PhotoMetadata,
    /// What each side made of it.
    pub scores: SourceScores,
}

/// Scores of a hit on each side; `None` where that side did not find it, or was not asked.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SourceScores {
    /// BM25 over caption and names: above 0, without bound.
    pub words: Option<f32>,
    /// Cosine of the query and the nearest of the photo's vectors: -1 to 1.
    pub meaning: Option<f32>,
}

/// Why a search has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// The index was made by another model than the one that is to read the query.
    #[error(
        "the index was made by the model `{}` ({}), not by `{}` ({})",
        index.name, short(&index.fingerprint), model.name, short(&model.fingerprint)
    )]
    OtherModel {
        /// Model of the index.
        index: Box<ModelSpec>,
        /// Model at hand.
        model: Box<ModelSpec>,
    },
    /// The model could not read the query.
    #[error("the model could not read the query")]
    Model(#[from] VlmError),
    /// The index could not be read.
    #[error("the index could not be searched")]
    Index(#[from] tinyfind_index::SearchError),
}

/// The head of a fingerprint: enough for a person to tell two models apart.
fn short(fingerprint: &str) -> &str {
    fingerprint.get(..12).unwrap_or(fingerprint)
}

/// Whether `model` may read what `index` was made with.
///
/// # Errors
///
/// [`FindError::OtherModel`] when they are not the same.
pub fn check_model(index: &ModelSpec, model: &ModelSpec) -> Result<(), FindError> {
    let same = |spec: &ModelSpec| {
        let rows = (spec.embedding_rows, spec.embedding_dim, spec.token_rows, spec.token_dim);
        (spec.fingerprint.clone(), rows)
    };
    if same(index) == same(model) {
        return Ok(());
    }
    Err(FindError::OtherModel { index: Box::new(index.clone()), model: Box::new(model.clone()) })
}

/// The photos that answer `query` best, best first.
///
/// Without a model (`None`) words alone decide. A query of fields only needs none; its hits
/// come newest first. The ranking does not depend on `options.top`, which only cuts it.
///
/// # Errors
///
/// When the model is not the one of the index or fails, or when the index cannot be read.
pub fn search(
    reader: &IndexReader,
    vlm: Option<&mut dyn Vlm>,
    query: &Query,
    options: SearchOptions,
) -> Result<Vec<Hit>, FindError> {
    let (filter, terms) = (query.filter(), query.terms());
    let Some(text) = query.text() else {
        let newest = reader.by_filter(&filter, options.top)?;
        let ranked = newest.into_iter().map(|doc| (doc, 1.0));
        return hits(reader, ranked, &HashMap::new(), &terms, options);
    };
    let limit = options.top.max(CANDIDATES);
    let words = reader.by_words(&terms, &filter, limit)?;
    let meaning = match vlm {
        None => None,
        Some(vlm) => {
            check_model(reader.spec(), vlm.spec())?;
            let vector = vlm.embed_queries(&[&text])?.pop();
            let vector = vector.ok_or_else(|| VlmError::new("the model gave no vector"))?;
            Some(reader.by_vector(&vector, &filter, limit)?)
        }
    };
    let lists = Lists { words, meaning };
    hits(reader, lists.fused().into_iter(), &lists.scores(), &terms, options)
}

/// What each side found, best first.
#[derive(Debug)]
struct Lists {
    words: Vec<(DocId, f32)>,
    /// `None` where the model was not asked.
    meaning: Option<Vec<(DocId, f32)>>,
}

impl Lists {
    fn fused(&self) -> Vec<(DocId, f32)> {
        let docs = |list: &[(DocId, f32)]| list.iter().map(|(doc, _)| *doc).collect::<Vec<_>>();
        let mut lists = vec![docs(&self.words)];
        lists.extend(self.meaning.as_deref().map(docs));
        fuse(&lists, CANDIDATES)
    }

    /// What each side made of every photo that either of them found.
    fn scores(&self) -> HashMap<DocId, SourceScores> {
        let mut scores: HashMap<DocId, SourceScores> = HashMap::new();
        for (doc, score) in &self.words {
            scores.entry(*doc).or_default().words = Some(*score);
        }
        for (doc, score) in self.meaning.iter().flatten() {
            scores.entry(*doc).or_default().meaning = Some(*score);
        }
        scores
    }
}

/// One ranking of several, with scores from 0 to 1: the first `depth` of each list are fused,
/// what stands below follows by its best rank, and scores less than anything fused.
fn fuse(lists: &[Vec<DocId>], depth: usize) -> Vec<(DocId, f32)> {
    let heads: Vec<(f32, &[DocId])> =
        lists.iter().map(|list| (1.0, &list[..list.len().min(depth)])).collect();
    let mut ranked = reciprocal_rank_fusion(&heads);
    let mut seen: HashSet<DocId> = ranked.iter().map(|(doc, _)| *doc).collect();
    let longest = lists.iter().map(Vec::len).max().unwrap_or(0);
    for place in depth..longest {
        let mut here: Vec<DocId> =
            lists.iter().filter_map(|list| list.get(place)).copied().collect();
        here.sort_unstable();
        here.retain(|doc| seen.insert(*doc));
        let score = 1.0 / (FUSION_K + 1.0 + place as f32);
        ranked.extend(here.into_iter().map(|doc| (doc, score)));
    }
    let best = lists.len() as f32 / (FUSION_K + 1.0);
    for (_, score) in &mut ranked {
        *score = (*score / best).min(1.0);
    }
    ranked
}

/// The head of a ranking with all that a hit shows.
fn hits(
    reader: &IndexReader,
    ranked: impl Iterator<Item = (DocId, f32)>,
    scores: &HashMap<DocId, SourceScores>,
    terms: &[Term],
    options: SearchOptions,
) -> Result<Vec<Hit>, FindError> {
    let good = ranked.take_while(|(_, score)| *score >= options.min_score).take(options.top);
    let mut hits = Vec::new();
    for (doc, score) in good {
        let photo = reader.photo(doc)?.ok_or(tinyfind_index::SearchError::UnknownDoc { doc })?;
        let highlights = match &photo.caption {
            Some(caption) => reader.highlight(terms, caption),
            None => Vec::new(),
        };
        hits.push(Hit {
            rank: hits.len() + 1,
            doc,
            score,
            path: photo.path,
            hash: photo.hash,
            caption: photo.caption,
            highlights,
            metadata: photo.metadata,
            scores: scores.get(&doc).copied().unwrap_or_default(),
        });
    }
    Ok(hits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::testing::{BLUE, GREEN, Picture, RED, index};
    use super::*;
    use crate::vlm::FakeVlm;

    fn find(reader: &IndexReader, query: &str, top: usize, min_score: f32) -> Vec<Hit> {
        let mut vlm = FakeVlm::default();
        let query = query.parse().unwrap();
        search(reader, Some(&mut vlm), &query, SearchOptions { top, min_score }).unwrap()
    }

    fn names(hits: &[Hit]) -> Vec<&str> {
        hits.iter().map(|hit| hit.path.file_stem().unwrap().to_str().unwrap()).collect()
    }

    #[test]
    fn a_photo_is_found_by_meaning_before_it_has_a_caption() {
        let folder = tempfile::tempdir().unwrap();
        let pictures = [("a", BLUE), ("b", RED), ("c", GREEN)]
            .map(|(name, color)| Picture::new(format!("/p/{name}.png"), color));
        let reader = index(folder.path(), &pictures, false);
        let hits = find(&reader, "red", 3, 0.0);
        assert_eq!(names(&hits)[0], "b");
        assert_eq!((hits[0].rank, hits[0].caption.as_deref()), (1, None));
        assert_eq!(hits[0].scores.words, None);
        assert!(hits[0].scores.meaning > hits[1].scores.meaning);
        assert!((hits[0].score - 0.5).abs() < 1e-6, "first in one list of two");
    }

    #[test]
    fn words_and_meaning_together_score_one_and_the_words_are_marked() {
        let folder = tempfile::tempdir().unwrap();
        let pictures = [("a", BLUE), ("b", RED)]
            .map(|(name, color)| Picture::new(format!("/p/{name}.png"), color));
        let reader = index(folder.path(), &pictures, true);
        let hits = find(&reader, "red", 1, 0.0);
        assert_eq!(names(&hits), ["b"]);
        assert!(hits[0].score > 0.999, "{}", hits[0].score);
        let caption = hits[0].caption.as_deref().unwrap();
        let marked: Vec<&str> = hits[0].highlights.iter().map(|at| &caption[at.clone()]).collect();
        assert_eq!(marked, ["red"], "in {caption}");
        let scores = hits[0].scores;
        assert!(scores.words > Some(0.0) && scores.meaning > Some(0.5), "{scores:?}");
    }

    #[test]
    fn fields_and_exclusions_narrow_both_lists() {
        let folder = tempfile::tempdir().unwrap();
        let mut pictures: Vec<Picture> = [("sea/a", BLUE), ("sea/b", RED), ("city/c", RED)]
            .map(|(name, color)| Picture::new(format!("/p/{name}.png"), color))
            .into();
        (pictures[2].camera, pictures[2].day) = ("Nikon D80", 365);
        let reader = index(folder.path(), &pictures, true);
        let found = |query| find(&reader, query, 10, 0.0);
        assert_eq!(names(&found("red path:SEA -blue")), ["b"]);
        assert_eq!(names(&found("picture -path:sea")), ["c"]);
        assert_eq!(names(&found("picture camera:nikon")), ["c"]);
        assert_eq!(names(&found("picture before:1971 \"red picture\"")), ["b"]);
        assert!(found("\"picture red\"").is_empty());
    }

    #[test]
    fn a_query_of_fields_lists_the_newest_first_and_asks_no_model() {
        let folder = tempfile::tempdir().unwrap();
        let mut pictures: Vec<Picture> =
            ["a", "b", "c"].map(|name| Picture::new(format!("/p/{name}.png"), RED)).into();
        (pictures[0].day, pictures[1].day, pictures[2].day) = (5, 9, 7);
        let reader = index(folder.path(), &pictures, false);
        let query = "camera:fuji -on:1970-01-08".parse().unwrap();
        let hits = search(&reader, None, &query, SearchOptions { top: 9, min_score: 0.5 }).unwrap();
        assert_eq!(names(&hits), ["b", "a"]);
        assert!(hits.iter().all(|hit| hit.score > 0.999));
    }

    #[test]
    fn the_best_five_are_the_head_of_the_best_fifty() {
        let folder = tempfile::tempdir().unwrap();
        let shade = |i: u8| [i.wrapping_mul(37), i.wrapping_mul(91), i.wrapping_mul(53)];
        let pictures: Vec<Picture> = (0..60_u8)
            .map(|i| {
                Picture::new(format!("/p/{i}-{}.png", ["red", "sea"][i as usize % 2]), shade(i))
            })
            .collect();
        let reader = index(folder.path(), &pictures, true);
        for query in ["red", "a blue picture by the sea", "path:red green -sea"] {
            let fifty = find(&reader, query, 50, 0.0);
            assert!(fifty.len() >= 30, "{query}: {}", fifty.len());
            for top in [1, 5, 17] {
                assert_eq!(find(&reader, query, top, 0.0), fifty[..top], "{query}");
            }
        }
    }

    #[test]
    fn min_score_cuts_the_ranking_where_it_falls_below() {
        let folder = tempfile::tempdir().unwrap();
        let pictures = [("a", BLUE), ("b", RED), ("c", GREEN)]
            .map(|(name, color)| Picture::new(format!("/p/{name}.png"), color));
        let reader = index(folder.path(), &pictures, true);
        assert_eq!(find(&reader, "red", 10, 0.0).len(), 3);
        assert_eq!(names(&find(&reader, "red", 10, 0.9)), ["b"]);
    }

    #[test]
    fn without_a_model_words_alone_decide() {
        let folder = tempfile::tempdir().unwrap();
        let pictures = [("red", BLUE), ("b", RED), ("c", GREEN)]
            .map(|(name, color)| Picture::new(format!("/p/{name}.png"), color));
        let reader = index(folder.path(), &pictures, true);
        let query = "red".parse().unwrap();
        let hits = search(&reader, None, &query, SearchOptions { top: 9, min_score: 0.0 }).unwrap();
        assert_eq!(hits.len(), 2, "caption and file name: {hits:?}");
        assert!(hits[0].score > 0.999, "{}", hits[0].score);
        assert!(hits.iter().all(|hit| hit.scores.meaning.is_none()));
    }

    #[test]
    fn an_index_of_another_model_is_refused_with_both_names() {
        let folder = tempfile::tempdir().unwrap();
        let reader = index(folder.path(), &[Picture::new("/p/a.png", RED)], true);
        let mut other = reader.spec().clone();
        other.name = "other".to_owned();
        check_model(reader.spec(), &other).unwrap();
        other.fingerprint = "0123456789abcdef".to_owned();
        let error = check_model(reader.spec(), &other).unwrap_err().to_string();
        assert!(error.contains("`fake`") && error.contains("`other` (0123456789ab)"), "{error}");
    }

    fn docs(numbers: &[u64]) -> Vec<DocId> {
        numbers.iter().copied().map(DocId).collect()
    }

    #[test]
    fn first_in_every_list_scores_one() {
        let both = fuse(&[docs(&[7, 1]), docs(&[7, 2])], CANDIDATES);
        assert_eq!(both[0], (DocId(7), 1.0));
        let single = fuse(&[docs(&[7, 1])], CANDIDATES);
        assert_eq!(single[0], (DocId(7), 1.0));
        let one_of_two = fuse(&[docs(&[7]), docs(&[])], CANDIDATES);
        assert!((one_of_two[0].1 - 0.5).abs() < 1e-6);
    }

    #[test]
    fn tenth_in_both_scores_as_documented() {
        let list: Vec<DocId> = (0..20).map(DocId).collect();
        let ranked = fuse(&[list.clone(), list], CANDIDATES);
        assert!((ranked[9].1 - 0.87).abs() < 0.005, "{}", ranked[9].1);
    }

    #[test]
    fn no_lists_rank_nothing() {
        assert!(fuse(&[docs(&[]), docs(&[])], 3).is_empty());
    }

    fn list() -> impl Strategy<Value = Vec<DocId>> {
        let all: Vec<u64> = (0..30).collect();
        proptest::sample::subsequence(all, 0..30)
            .prop_shuffle()
            .prop_map(|numbers| numbers.into_iter().map(DocId).collect())
    }

    proptest! {
        #[test]
        fn a_shorter_answer_is_the_head_of_a_longer_one(
            words in list(), meaning in list(), depth in 1_usize..10, top in 0_usize..30,
        ) {
            let cut = |limit: usize| {
                let limit = limit.max(depth);
                let head = |list: &[DocId]| list[..list.len().min(limit)].to_vec();
                fuse(&[head(&words), head(&meaning)], depth)
            };
            let (short, long) = (cut(top), cut(1000));
            let n = top.min(long.len());
            prop_assert!(short.len() >= n);
            prop_assert_eq!(&short[..n], &long[..n]);
        }

        #[test]
        fn scores_fall_and_lie_between_zero_and_one(
            words in list(), meaning in list(), depth in 1_usize..10,
        ) {
            let ranked = fuse(&[words, meaning], depth);
            prop_assert!(ranked.iter().all(|(_, score)| (0.0..=1.0).contains(score)));
            prop_assert!(ranked.windows(2).all(|pair| pair[0].1 >= pair[1].1));
            let distinct: HashSet<DocId> = ranked.iter().map(|(doc, _)| *doc).collect();
            prop_assert_eq!(distinct.len(), ranked.len());
        }
    }
}
