//! The search: from a query to a ranking of photos.
//!
//! Words ([BM25](IndexReader::by_words)) and meaning ([cosine](IndexReader::rank_by_vectors)) each
//! make a list; reciprocal rank fusion makes one ranking of the two. The first [`CANDIDATES`] of
//! a list take part in the fusion, however few photos are asked for, so the best 5 are always
//! the first 5 of the best 50. Photos beyond follow by their rank in the one list or the other.
//!
//! Of a query with several alternatives (`OR`) a photo has on each side the best score that one
//! of them gives it. Alternatives of fields only make a third list, newest first.
//!
//! Where words alone find nothing, words that no photo holds are taken for misspelt, and the
//! nearest ones of the index are looked for; the meaning stays that of the words as they were
//! written.

mod function_words;
mod fusion;
mod pictures;
pub mod query;
mod snippet;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;

use rayon::prelude::*;
use tinyfind_index::{
    Clause, ContentHash, DocId, Filter, IndexReader, ModelSpec, PhotoMetadata, Term,
};

use self::function_words::without;
use self::fusion::{Lists, Ranking, merge};
pub use self::fusion::{Placed, SourceScores, Weights};
pub use self::pictures::Pictures;
pub(crate) use self::pictures::{Named, find_named, look_at};
pub use self::query::{Period, Query, QueryError};
pub use self::snippet::{NoteKind, Snippet};
use crate::decode::DecodeError;
use crate::vlm::{Vlm, VlmError};

/// How many photos of each list take part in the fusion.
pub const CANDIDATES: usize = 1000;

/// How much words count that stand in for misspelt ones, beside words that were written.
const GUESSED: f32 = 0.25;

/// What to search for beside the query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SearchOptions {
    /// Most hits to return.
    pub top: usize,
    /// Lowest score to return, 0 to 1.
    pub min_score: f32,
    /// How much words and meaning count.
    pub weights: Weights,
}

/// What a search found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// The photos, best first.
    pub hits: Vec<Hit>,
    /// Words that no photo holds, each with the one that was looked for in its place.
    pub respelt: Vec<(String, String)>,
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
    /// Pieces of title, description, keywords and place that hold words of the query.
    pub snippets: Vec<Snippet>,
    /// Size, date, camera, place and notes.
    pub metadata: PhotoMetadata,
    /// What each side made of it.
    pub scores: SourceScores,
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
    /// The query names a photo that cannot be found.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A photo that the query names cannot be looked at.
    #[error("`{}` {}", path.display(), source.reason())]
    Picture {
        /// Where it lies.
        path: PathBuf,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// The query names a photo that was not looked for.
    #[error("the photo `{name}` of the query was not looked for")]
    UnknownPhoto {
        /// As it stands in the query.
        name: String,
    },
    /// The query has photos, and nothing can compare them.
    #[error("photos of a query are compared by meaning, which needs the model")]
    NoModel,
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

/// The photos that answer `query` best, best first. `pictures` must be those of the query.
///
/// Without a model (`None`), or with a weight of 0 for meaning, words alone decide. A query of
/// fields only needs none; its hits come newest first. Up to 1,024 hits, the ranking does not
/// depend on `options.top`, which only cuts it; more are found by comparing every photo.
///
/// # Errors
///
/// When the model is not the one of the index, fails, or is needed and not there; or when the
/// index or a photo of the query cannot be read.
pub fn search(
    reader: &IndexReader,
    vlm: Option<&mut dyn Vlm>,
    query: &Query,
    pictures: &Pictures,
    options: SearchOptions,
) -> Result<Found, FindError> {
    let mut marked = without(query.marked());
    if query.is_filter() {
        let newest = reader.by_filter(&query.filter(), options.top)?;
        let ranked = newest.into_iter().map(|doc| (doc, 1.0));
        let hits = hits(reader, ranked, &HashMap::new(), &marked, options)?;
        return Ok(Found { hits, respelt: Vec::new() });
    }
    let limit = options.top.max(CANDIDATES);
    let weights = options.weights;
    let vectors =
        if weights.meaning > 0.0 { vectors(reader, vlm, query, pictures)? } else { Vec::new() };
    let asks_words = weights.words > 0.0 && query.has_words();
    let (words, meaning) = rayon::join(
        || asks_words.then(|| Words::find(reader, query, limit)).transpose(),
        || by_meaning(reader, &vectors, limit),
    );
    let mut lists = Lists { meaning: meaning?, weights, ..Lists::default() };
    let mut respelt = Vec::new();
    if let Some(words) = words? {
        // A guess does not outdo what the words that were written mean.
        if !words.respelt.is_empty() {
            lists.weights.words *= GUESSED;
        }
        marked.extend(words.respelt.iter().map(|(_, word)| Term::Word(word.clone())));
        lists.words = Some(words.ranking);
        respelt = words.respelt;
    }
    let only_fields = query.alternatives().iter().filter(|it| it.is_filter());
    let only_fields: Vec<Filter> = only_fields.map(query::Alternative::filter).collect();
    if !only_fields.is_empty() {
        let filter = Filter { require: vec![Clause::Any(only_fields)], exclude: Vec::new() };
        let newest = reader.by_filter(&filter, limit)?;
        lists.fields = Some(newest.into_iter().map(|doc| (doc, 1.0)).collect());
    }
    let mut ranked = lists.fused(CANDIDATES);
    ranked.truncate(options.top);
    let shown: Vec<DocId> = ranked.iter().map(|(doc, _)| *doc).collect();
    let scores = lists.scores(CANDIDATES, &shown);
    let hits = hits(reader, ranked.into_iter(), &scores, &marked, options)?;
    Ok(Found { hits, respelt })
}

/// What words alone find.
struct Words {
    ranking: Ranking,
    /// Words that no photo holds, each with the one that was looked for in its place.
    respelt: Vec<(String, String)>,
}

impl Words {
    /// The best by the words of `query` or, where they find nothing, by those spelt like them.
    fn find(reader: &IndexReader, query: &Query, limit: usize) -> Result<Self, FindError> {
        let mut asked: Vec<(Vec<Term>, Filter)> =
            query.alternatives().iter().map(|it| (without(it.terms()), it.filter())).collect();
        let mut ranking = by_words(reader, &asked, limit)?;
        let mut respelt = Vec::new();
        if ranking.is_empty() {
            respelt = respell(reader, &mut asked)?;
            if !respelt.is_empty() {
                ranking = by_words(reader, &asked, limit)?;
            }
            if ranking.is_empty() {
                respelt.clear();
            }
        }
        Ok(Self { ranking, respelt })
    }
}

/// The best by words of any of the alternatives, given as terms and filter.
fn by_words(
    reader: &IndexReader,
    asked: &[(Vec<Term>, Filter)],
    limit: usize,
) -> Result<Ranking, FindError> {
    let rankings = asked.par_iter().filter(|(terms, _)| !terms.is_empty());
    let rankings: Result<Vec<Ranking>, _> =
        rankings.map(|(terms, filter)| reader.by_words(terms, filter, limit)).collect();
    Ok(merge(rankings?, limit))
}

/// Replaces bare words that no photo holds by the nearest ones that some photo holds, and tells
/// which.
fn respell(
    reader: &IndexReader,
    asked: &mut [(Vec<Term>, Filter)],
) -> Result<Vec<(String, String)>, FindError> {
    let mut respelt: Vec<(String, String)> = Vec::new();
    for term in asked.iter_mut().flat_map(|(terms, _)| terms) {
        let Term::Word(word) = term else { continue };
        let Some(nearest) = reader.respell(word)? else { continue };
        let pair = (std::mem::replace(word, nearest.clone()), nearest);
        if !respelt.contains(&pair) {
            respelt.push(pair);
        }
    }
    Ok(respelt)
}

/// What the alternatives with words or photos are compared by, each with its filter; nothing where
/// the index holds no photo.
fn vectors(
    reader: &IndexReader,
    mut vlm: Option<&mut dyn Vlm>,
    query: &Query,
    pictures: &Pictures,
) -> Result<Vec<(Vec<f32>, Filter)>, FindError> {
    let Some(spec) = reader.bound_to() else { return Ok(Vec::new()) };
    if let Some(vlm) = &vlm {
        check_model(spec, vlm.spec())?;
    }
    let mut vectors = Vec::new();
    for alternative in query.alternatives() {
        let vlm = vlm.as_mut().map(|vlm| &mut **vlm as &mut dyn Vlm);
        if let Some(vector) = pictures::vector(reader, vlm, alternative, pictures)? {
            vectors.push((vector, alternative.filter()));
        }
    }
    Ok(vectors)
}

/// The best by any of `vectors`; `None` where there are none.
fn by_meaning(
    reader: &IndexReader,
    vectors: &[(Vec<f32>, Filter)],
    limit: usize,
) -> Result<Option<Ranking>, FindError> {
    if vectors.is_empty() {
        return Ok(None);
    }
    Ok(Some(merge(reader.rank_by_vectors(vectors, limit)?, limit)))
}

/// The head of a ranking with all that a hit shows.
pub(crate) fn hits(
    reader: &IndexReader,
    ranked: impl Iterator<Item = (DocId, f32)>,
    scores: &HashMap<DocId, SourceScores>,
    marked: &[Term],
    options: SearchOptions,
) -> Result<Vec<Hit>, FindError> {
    let good = ranked.take_while(|(_, score)| *score >= options.min_score).take(options.top);
    let good: Vec<(DocId, f32)> = good.collect();
    let hit = |(at, (doc, score)): (usize, (DocId, f32))| {
        let scores = scores.get(&doc).copied().unwrap_or_default();
        if scores.meaning.is_some() {
            // Of a ranking by meaning only what is shown has to be whole.
            reader.verify(doc)?;
        }
        let photo = reader.photo(doc)?.ok_or(tinyfind_index::SearchError::UnknownDoc { doc })?;
        let highlights = match &photo.caption {
            Some(caption) => reader.highlight(marked, caption),
            None => Vec::new(),
        };
        Ok(Hit {
            rank: at + 1,
            doc,
            score,
            path: photo.path,
            hash: photo.hash,
            caption: photo.caption,
            highlights,
            snippets: snippet::snippets(reader, marked, &photo.metadata),
            metadata: photo.metadata,
            scores,
        })
    };
    // Of several that cannot be read the best one is told, whichever thread came first.
    let hits: Vec<Result<Hit, FindError>> = good.into_par_iter().enumerate().map(hit).collect();
    hits.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::query::Problem;
    use super::testing::{BLUE, GREEN, Picture, RED, index};
    use super::*;
    use crate::vlm::FakeVlm;

    fn options(top: usize, min_score: f32) -> SearchOptions {
        SearchOptions { top, min_score, weights: Weights::default() }
    }

    /// Paths are what they are: no folder of a test has links.
    fn pictures(reader: &IndexReader, query: &Query) -> Result<Pictures, FindError> {
        Pictures::find(reader, query, |path| Ok(path.to_owned()))
    }

    fn found(reader: &IndexReader, query: &str, options: SearchOptions) -> Found {
        let mut vlm = FakeVlm::default();
        let query = query.parse().unwrap();
        let pictures = pictures(reader, &query).unwrap();
        search(reader, Some(&mut vlm), &query, &pictures, options).unwrap()
    }

    fn find(reader: &IndexReader, query: &str, top: usize, min_score: f32) -> Vec<Hit> {
        found(reader, query, options(top, min_score)).hits
    }

    fn without_model(reader: &IndexReader, query: &str, min_score: f32) -> Vec<Hit> {
        let query = query.parse().unwrap();
        search(reader, None, &query, &Pictures::default(), options(9, min_score)).unwrap().hits
    }

    /// Three pictures of one colour each, captioned with it.
    fn three(folder: &std::path::Path) -> IndexReader {
        let pictures = [("a", BLUE), ("b", RED), ("c", GREEN)]
            .map(|(name, color)| Picture::new(format!("/p/{name}.png"), color));
        index(folder, &pictures, true)
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
        let meaning = |hit: &Hit| hit.scores.meaning.unwrap();
        assert!(meaning(&hits[0]).score > meaning(&hits[1]).score);
        assert_eq!(meaning(&hits[1]).rank, 2);
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
        let (words, meaning) = (scores.words.unwrap(), scores.meaning.unwrap());
        assert!(words.score > 0.0 && meaning.score > 0.5, "{scores:?}");
        assert_eq!((words.rank, meaning.rank), (1, 1));
        assert!((words.share + meaning.share - hits[0].score).abs() < 1e-6);
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
        let hits = without_model(&reader, "camera:fuji -on:1970-01-08", 0.5);
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
        let hits = without_model(&reader, "red", 0.0);
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

    #[test]
    fn alternatives_find_what_each_of_them_finds() {
        let folder = tempfile::tempdir().unwrap();
        let reader = three(folder.path());
        let names = |query: &str, top| {
            let hits = find(&reader, query, top, 0.0);
            let mut names: Vec<String> = names(&hits).into_iter().map(str::to_owned).collect();
            names.sort();
            names
        };
        assert_eq!(names("red OR green", 2), ["b", "c"]);
        assert_eq!(names("red path:b OR green path:a OR blue path:a", 9), ["a", "b"]);
        assert_eq!(names("\"red picture\" OR name:c", 9), ["b", "c"]);
        assert_eq!(names("name:a OR name:c", 9), ["a", "c"]);
        let hits = find(&reader, "red path:b OR name:c", 9, 0.0);
        let fields = hits.iter().find(|hit| hit.scores.fields.is_some()).unwrap();
        assert_eq!((fields.scores.words, fields.scores.fields.unwrap().rank), (None, 1));
    }

    #[test]
    fn a_photo_of_the_query_draws_photos_like_it_and_pushes_others_away() {
        let folder = tempfile::tempdir().unwrap();
        let reader = three(folder.path());
        let first = |query: &str| find(&reader, query, 9, 0.0)[0].path.clone();
        assert_eq!(first("+b.png"), PathBuf::from("/p/b.png"));
        assert_eq!(first("+p/c.png"), PathBuf::from("/p/c.png"));
        let hits = find(&reader, "+a.png -b.png", 9, 0.0);
        assert_eq!((names(&hits)[0], names(&hits)[2]), ("a", "b"));
        assert!(hits.iter().all(|hit| hit.scores.words.is_none() && hit.scores.meaning.is_some()));
        assert!(
            find(&reader, "+b.png -path:b", 9, 0.0).iter().all(|hit| hit.path != first("+b.png"))
        );

        let file = folder.path().join("other.png");
        image::RgbImage::from_pixel(4, 4, image::Rgb(GREEN)).save(&file).unwrap();
        assert_eq!(first(&format!("+{}", file.display())), PathBuf::from("/p/c.png"));
        // A photo of the index needs no model, a word beside it does.
        let ask = |text: &str| {
            let query: Query = text.parse().unwrap();
            let pictures = pictures(&reader, &query).unwrap();
            search(&reader, None, &query, &pictures, options(9, 0.0)).map(|found| found.hits.len())
        };
        assert_eq!(ask("+a.png").unwrap(), 3);
        assert!(matches!(ask("red +a.png"), Err(FindError::NoModel)));
        assert!(matches!(ask("+a.png -a.png"), Err(FindError::Index(_))));
    }

    #[test]
    fn damage_of_a_photo_is_told_where_it_would_be_shown() {
        let folder = tempfile::tempdir().unwrap();
        drop(three(folder.path()));
        let file = folder.path().join("segments/0.vectors.seg");
        let mut bytes = std::fs::read(&file).unwrap();
        // The record of the last photo, the green one.
        let middle = bytes.len() - (bytes.len() - 64) / 6;
        bytes[middle] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        let reader = IndexReader::open(folder.path()).unwrap();
        let ask = |top| {
            let query: Query = "red".parse().unwrap();
            let mut vlm = FakeVlm::default();
            search(&reader, Some(&mut vlm), &query, &Pictures::default(), options(top, 0.0))
        };
        let seen = ask(1).unwrap();
        assert_eq!(names(&seen.hits), ["b"]);
        let error = ask(3).unwrap_err();
        assert!(matches!(&error, FindError::Index(tinyfind_index::SearchError::Corrupt { .. })));
    }

    #[test]
    fn a_photo_of_the_query_that_is_nowhere_or_in_several_places_is_marked() {
        let folder = tempfile::tempdir().unwrap();
        let photos = [("x", RED), ("y", BLUE)]
            .map(|(name, color)| Picture::new(format!("/p/{name}/a.png"), color));
        let reader = index(folder.path(), &photos, false);
        let problem = |text: &str| {
            let error = pictures(&reader, &text.parse().unwrap()).unwrap_err();
            let FindError::Query(error) = error else { panic!("{error}") };
            (error.problem.clone(), text[error.at].to_owned())
        };
        let missing = (Problem::NoSuchPhoto("b.png".to_owned()), "-b.png".to_owned());
        assert_eq!(problem("red -b.png"), missing);
        let (several, at) = problem("+a.png red");
        assert!(matches!(several, Problem::ManyPhotos { .. }) && at == "+a.png", "{several}");
        assert!(several.to_string().contains("/a.png`"), "{several}");
        assert!(pictures(&reader, &"+x/a.png".parse().unwrap()).is_ok());
    }

    #[test]
    fn a_misspelt_word_is_mended_where_words_find_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let reader = three(folder.path());
        let mended = found(&reader, "greem", options(9, 0.0));
        assert_eq!(mended.respelt, [("greem".to_owned(), "green".to_owned())]);
        assert_eq!(mended.hits.iter().filter(|hit| hit.scores.words.is_some()).count(), 1);
        let hit = mended.hits.iter().find(|hit| hit.scores.words.is_some()).unwrap();
        assert!(hit.path.ends_with("c.png") && !hit.highlights.is_empty(), "{hit:?}");
        // Another word finds something, nothing is near, or the filter alone is too narrow.
        for query in ["greem picture", "giraffes", "green path:nowhere", "greem path:nowhere"] {
            assert!(found(&reader, query, options(9, 0.0)).respelt.is_empty(), "{query}");
        }
    }

    #[test]
    fn words_of_notes_are_shown_where_they_stand() {
        let folder = tempfile::tempdir().unwrap();
        let mut picture = Picture::new("/p/a.png", RED);
        picture.description = Some("Grandmother's boats on Lake Garda");
        let reader = index(folder.path(), &[picture], true);
        let hit = find(&reader, "boat", 1, 0.0).remove(0);
        let [snippet] = hit.snippets.as_slice() else { panic!("{:?}", hit.snippets) };
        assert_eq!(snippet.from, NoteKind::Description);
        assert_eq!(&snippet.text[snippet.highlights[0].clone()], "boats");
        assert!(find(&reader, "red", 1, 0.0)[0].snippets.is_empty());
    }

    #[test]
    fn weights_decide_between_words_and_meaning() {
        let folder = tempfile::tempdir().unwrap();
        let pictures = [("red", BLUE), ("b", RED), ("c", GREEN)]
            .map(|(name, color)| Picture::new(format!("/p/{name}.png"), color));
        let reader = index(folder.path(), &pictures, false);
        let first = |words: f32, meaning: f32| {
            let weights = Weights { words, meaning };
            let options = SearchOptions { weights, ..options(9, 0.0) };
            names(&found(&reader, "red", options).hits)[0].to_owned()
        };
        assert_eq!(first(2.0, 0.5), "red");
        assert_eq!(first(0.0, 1.0), "b");
        assert_eq!(first(1.0, 0.0), "red");
    }
}
