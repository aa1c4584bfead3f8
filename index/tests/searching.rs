//! What searches find, and in which order.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic as they may")]

mod common;

use std::path::Path;

use common::{docs, features, noise, photo, spec, unit};
use tinyfind_index::{
    Circle, Clause, DocId, Filter, IndexReader, IndexWriter, Orientation, Pixels, SearchError,
    Taken, TakenSource, Term,
};

/// Path, caption, camera, second it was taken.
type Photo = (&'static str, &'static str, Option<&'static str>, Option<i64>);

const PHOTOS: [Photo; 6] = [
    ("/p/beach/IMG_0001.jpg", "A dog running on the sand", Some("FUJIFILM X-T3"), Some(100)),
    ("/p/beach/IMG_0002.jpg", "Two dogs and a red umbrella", Some("Canon EOS R5"), Some(300)),
    ("/p/city/Times Square.png", "A red car under an umbrella", None, Some(200)),
    ("/p/city/Zürich2019.jpg", "A tram in a street", Some("Fujifilm GFX"), None),
    ("/p/city/dog_show.jpg", "", Some("Apple iPhone 12"), Some(300)),
    ("/p/Urlaub/café.jpg", "Coffee on a table, dog", Some("FUJIFILM X-T3"), Some(-50)),
];

/// An index of `PHOTOS`, numbered in their order, over several commits; an empty caption is
/// none.
fn index() -> (tempfile::TempDir, IndexReader) {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = IndexWriter::open(dir.path(), &spec()).unwrap();
    for (content, (path, caption, camera, taken)) in (0..).zip(PHOTOS) {
        let mut new = photo(path, content);
        new.metadata.camera = camera.map(str::to_owned);
        new.metadata.taken = taken.map(|local_seconds| Taken {
            local_seconds,
            offset_minutes: None,
            source: TakenSource::Exif,
        });
        let doc = writer.add(new, features(content)).unwrap();
        if !caption.is_empty() {
            writer.set_caption(doc, caption).unwrap();
        }
        if content % 2 == 0 {
            writer.commit().unwrap();
        }
    }
    writer.fail("/p/dog/broken.jpg".as_ref(), common::stamp(1), "a dog ate it").unwrap();
    writer.commit().unwrap();
    let reader = IndexReader::open(dir.path()).unwrap();
    (dir, reader)
}

fn word(text: &str) -> Term {
    Term::Word(text.to_owned())
}

fn phrase(text: &str) -> Term {
    Term::Phrase(text.to_owned())
}

/// Best first, equal scores by number.
fn in_order(a: &(DocId, f32), b: &(DocId, f32)) -> bool {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)).is_lt()
}

fn require(clauses: &[Clause]) -> Filter {
    Filter { require: clauses.to_vec(), exclude: Vec::new() }
}

fn exclude(clauses: &[Clause]) -> Filter {
    Filter { require: Vec::new(), exclude: clauses.to_vec() }
}

/// Numbers of the photos that are found, ascending.
fn found(reader: &IndexReader, words: &[Term], filter: &Filter) -> Vec<u64> {
    let mut found: Vec<u64> =
        reader.by_words(words, filter, 100).unwrap().iter().map(|(doc, _)| doc.0).collect();
    found.sort_unstable();
    found
}

fn filtered(reader: &IndexReader, filter: &Filter) -> Vec<u64> {
    reader.by_filter(filter, 100).unwrap().iter().map(|doc| doc.0).collect()
}

#[test]
fn a_word_finds_its_forms_in_captions_and_names() {
    let (_dir, reader) = index();
    let all = Filter::default();
    assert_eq!(found(&reader, &[word("dog")], &all), [0, 1, 4, 5]);
    assert_eq!(found(&reader, &[word("RUN")], &all), [0]);
    assert_eq!(found(&reader, &[word("zurich")], &all), [3]);
    assert_eq!(found(&reader, &[word("Café")], &all), [5]);
    assert_eq!(found(&reader, &[word("2019")], &all), [3]);
    assert_eq!(found(&reader, &[word("IMG_0002")], &all), [1]);
    assert_eq!(found(&reader, &[word("tram"), word("sand")], &all), [0, 3]);
    assert_eq!(found(&reader, &[word("giraffe")], &all), [0; 0]);
    assert_eq!(found(&reader, &[word("!?")], &all), [0; 0]);
    assert_eq!(found(&reader, &[], &all), [0; 0]);
}

#[test]
fn a_phrase_finds_its_words_in_order_and_form() {
    let (_dir, reader) = index();
    let all = Filter::default();
    assert_eq!(found(&reader, &[phrase("red umbrella")], &all), [1]);
    assert_eq!(found(&reader, &[phrase("umbrella red")], &all), [0; 0]);
    assert_eq!(found(&reader, &[phrase("times square")], &all), [2]);
    assert_eq!(found(&reader, &[phrase("dog")], &all), [0, 4, 5]);
    // A phrase must match; a word beside it only ranks.
    assert_eq!(found(&reader, &[phrase("red"), word("dog")], &all), [1, 2]);
    assert_eq!(docs(&reader.by_words(&[phrase("red"), word("dog")], &all, 1).unwrap()), [DocId(1)]);
    assert_eq!(found(&reader, &[phrase("red"), phrase("car")], &all), [2]);
}

#[test]
fn better_matches_come_first_and_the_limit_only_cuts() {
    let (_dir, reader) = index();
    let all = Filter::default();
    let words = [word("red"), word("dog"), word("umbrella")];
    let many = reader.by_words(&words, &all, 100).unwrap();
    assert_eq!(many[0].0, DocId(1));
    assert!(many.is_sorted_by(in_order));
    assert!(many.iter().all(|(_, score)| *score > 0.0));
    for limit in 0..many.len() {
        assert_eq!(reader.by_words(&words, &all, limit).unwrap(), many[..limit]);
    }
}

#[test]
fn filters_of_words_paths_cameras_and_dates_hold() {
    let (_dir, reader) = index();
    let sorted = |filter: &Filter| {
        let mut found = filtered(&reader, filter);
        found.sort_unstable();
        found
    };
    let taken = |from, until| Clause::Taken { from, until };
    for (filter, expected) in [
        (Filter::default(), vec![0, 1, 2, 3, 4, 5]),
        (require(&[Clause::Term(word("dogs"))]), vec![0, 1, 4, 5]),
        (exclude(&[Clause::Term(word("dogs"))]), vec![2, 3]),
        (exclude(&[Clause::Term(phrase("dogs"))]), vec![0, 2, 3, 4, 5]),
        (exclude(&[Clause::Term(word("..."))]), vec![0, 1, 2, 3, 4, 5]),
        (require(&[Clause::Path("BEACH/img".to_owned())]), vec![0, 1]),
        (require(&[Clause::Path("/URLAUB/CAFÉ".to_owned())]), vec![5]),
        (exclude(&[Clause::Path(".jpg".to_owned())]), vec![2]),
        (require(&[Clause::Camera("fuji".to_owned())]), vec![0, 3, 5]),
        (require(&[Clause::Camera("fujifilm x-t3".to_owned())]), vec![0, 5]),
        (require(&[Clause::Camera("t3 FUJI".to_owned())]), vec![0, 5]),
        (require(&[Clause::Camera("film".to_owned())]), vec![]),
        (exclude(&[Clause::Camera("fuji".to_owned())]), vec![1, 2, 4]),
        (require(&[taken(Some(200), None)]), vec![1, 2, 4]),
        (require(&[taken(Some(100), Some(300))]), vec![0, 2]),
        (require(&[taken(None, Some(0))]), vec![5]),
        (require(&[taken(None, None)]), vec![0, 1, 2, 4, 5]),
        (exclude(&[taken(Some(200), None)]), vec![0, 3, 5]),
        (require(&[taken(Some(200), None), Clause::Path("beach".to_owned())]), vec![1]),
    ] {
        assert_eq!(sorted(&filter), expected, "{filter:?}");
    }
    let beach = require(&[Clause::Path("beach".to_owned())]);
    assert_eq!(found(&reader, &[word("dog")], &beach), [0, 1]);
}

#[test]
fn cameras_are_counted_those_of_most_photos_first() {
    let (dir, reader) = index();
    let counted = |reader: &IndexReader| -> Vec<(String, u64)> { reader.cameras().unwrap() };
    let expected = |cameras: &[(&str, u64)]| -> Vec<(String, u64)> {
        cameras.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    };
    let all =
        [("FUJIFILM X-T3", 2), ("Apple iPhone 12", 1), ("Canon EOS R5", 1), ("Fujifilm GFX", 1)];
    assert_eq!(counted(&reader), expected(&all));
    let mut writer = IndexWriter::open(dir.path(), &spec()).unwrap();
    for (path, ..) in [PHOTOS[0], PHOTOS[1], PHOTOS[5]] {
        writer.remove(path.as_ref()).unwrap();
    }
    writer.commit().unwrap();
    let reader = IndexReader::open(dir.path()).unwrap();
    assert_eq!(counted(&reader), expected(&[all[1], all[3]]));
}

#[test]
fn a_query_of_filters_only_gives_the_newest_first() {
    let (_dir, reader) = index();
    assert_eq!(filtered(&reader, &Filter::default()), [1, 4, 2, 0, 5, 3]);
    let two = reader.by_filter(&Filter::default(), 2).unwrap();
    assert_eq!(two, [DocId(1), DocId(4)]);
}

/// Photos with metadata of every kind; what is odd lies in Paris, stands and is a PNG.
fn annotated(dir: &Path) -> IndexReader {
    let mut writer = IndexWriter::open(dir, &spec()).unwrap();
    for content in 0..4_u64 {
        let mut new = photo(
            format!("/p/{}/IMG_{content}.jpg", ["sea", "city"][content as usize % 2]),
            content,
        );
        let is_odd = content % 2 == 1;
        let metadata = &mut new.metadata;
        (metadata.width, metadata.height) = if is_odd { (3000, 4000) } else { (6000, 4000) };
        metadata.format = String::from(if is_odd { "png" } else { "jpeg" });
        metadata.lens = is_odd.then(|| "XF35mmF1.4 R".to_owned());
        metadata.gps = match content {
            0 => Some((51.5074, -0.1278)),
            2 => None,
            _ => Some((48.8566, 2.3522)),
        };
        if is_odd {
            metadata.title = Some("Grandmother's boats".to_owned());
            metadata.description = Some("Painted in spring".to_owned());
            metadata.keywords = vec!["rowing boat".to_owned(), "Aunt Mary".to_owned()];
            metadata.place = Some("Paris, France".to_owned());
        }
        let doc = writer.add(new, features(content)).unwrap();
        let caption = ["a beach", "a bridge", "a dog on a beach", "two bridges and a dog"];
        writer.set_caption(doc, caption[content as usize]).unwrap();
    }
    writer.commit().unwrap();
    IndexReader::open(dir).unwrap()
}

fn all_that_pass(reader: &IndexReader, clause: Clause) -> Vec<u64> {
    let mut found = filtered(reader, &require(&[clause]));
    found.sort_unstable();
    found
}

#[test]
fn what_people_wrote_into_a_photo_is_found_by_words_and_in_quotes() {
    let dir = tempfile::tempdir().unwrap();
    let reader = annotated(dir.path());
    let all = Filter::default();
    for text in ["boat", "painting", "mary", "PARIS", "grandmothers"] {
        assert_eq!(found(&reader, &[word(text)], &all), [1, 3], "{text}");
    }
    for text in ["rowing boat", "aunt mary", "painted in spring", "paris france"] {
        assert_eq!(found(&reader, &[phrase(text)], &all), [1, 3], "{text}");
    }
    // A phrase does not go on from one keyword to the next, nor does another form count.
    for text in ["boat aunt", "boats painted", "paint"] {
        assert_eq!(found(&reader, &[phrase(text)], &all), [0; 0], "{text}");
    }
}

#[test]
fn filters_of_sizes_formats_lenses_and_places_hold() {
    let dir = tempfile::tempdir().unwrap();
    let reader = annotated(dir.path());
    let pass = |clause| all_that_pass(&reader, clause);
    assert_eq!(pass(Clause::Width(Pixels { least: 4001, most: u32::MAX })), [0, 2]);
    assert_eq!(pass(Clause::Width(Pixels { least: 0, most: 3000 })), [1, 3]);
    assert_eq!(pass(Clause::Height(Pixels { least: 4000, most: 4000 })), [0, 1, 2, 3]);
    assert_eq!(pass(Clause::Height(Pixels { least: 5, most: 4 })), [0; 0]);
    assert_eq!(pass(Clause::Orientation(Orientation::Portrait)), [1, 3]);
    assert_eq!(pass(Clause::Orientation(Orientation::Landscape)), [0, 2]);
    assert_eq!(pass(Clause::Orientation(Orientation::Square)), [0; 0]);
    assert_eq!(pass(Clause::Format("png".to_owned())), [1, 3]);
    assert_eq!(pass(Clause::Format("pn".to_owned())), [0; 0]);
    assert_eq!(pass(Clause::Lens("35mm".to_owned())), [1, 3]);
    assert_eq!(pass(Clause::Lens("50mm".to_owned())), [0; 0]);
    let near = |latitude, longitude, radius_in_metres| {
        pass(Clause::Near(Circle { latitude, longitude, radius_in_metres }))
    };
    assert_eq!(near(51.5, -0.12, 5_000.0), [0]);
    assert_eq!(near(51.5, -0.12, 500.0), [0; 0]);
    assert_eq!(near(50.0, 1.0, 300_000.0), [0, 1, 3]);
}

#[test]
fn captions_names_and_ends_of_paths_are_looked_at_alone() {
    let dir = tempfile::tempdir().unwrap();
    let reader = annotated(dir.path());
    let pass = |clause| all_that_pass(&reader, clause);
    assert_eq!(pass(Clause::Caption(word("bridge"))), [1, 3]);
    assert_eq!(pass(Clause::Caption(phrase("bridge"))), [1]);
    assert_eq!(pass(Clause::Caption(word("boat"))), [0; 0]);
    assert_eq!(pass(Clause::Caption(word("?"))), [0, 1, 2, 3]);
    assert_eq!(pass(Clause::Name("img_2".to_owned())), [2]);
    assert_eq!(pass(Clause::Name("sea".to_owned())), [0; 0]);
    assert_eq!(pass(Clause::PathEnd("IMG_2.jpg".to_owned())), [2]);
    assert_eq!(pass(Clause::PathEnd("sea/IMG_2.jpg".to_owned())), [2]);
    for text in ["G_2.jpg", "img_2.jpg", "city/IMG_2.jpg", "ea/IMG_2.jpg"] {
        assert_eq!(pass(Clause::PathEnd(text.to_owned())), [0; 0], "{text}");
    }
}

#[test]
fn any_of_several_filters_lets_a_photo_through() {
    let dir = tempfile::tempdir().unwrap();
    let reader = annotated(dir.path());
    let any = |filters: &[Filter]| all_that_pass(&reader, Clause::Any(filters.to_vec()));
    let dog = require(&[Clause::Caption(word("dog"))]);
    let no_png = exclude(&[Clause::Format("png".to_owned())]);
    assert_eq!(any(&[dog.clone(), no_png.clone()]), [0, 2, 3]);
    assert_eq!(any(std::slice::from_ref(&dog)), [2, 3]);
    assert_eq!(any(&[]), [0; 0]);
    let both = require(&[Clause::Any(vec![dog]), Clause::Any(vec![no_png])]);
    assert_eq!(filtered(&reader, &both), [2]);
}

#[test]
fn a_misspelt_word_is_the_nearest_one_that_some_photo_holds() {
    let dir = tempfile::tempdir().unwrap();
    let reader = annotated(dir.path());
    let respelt = |word: &str| reader.respell(word).unwrap();
    assert_eq!(respelt("bech").as_deref(), Some("beach"));
    assert_eq!(respelt("BAECH").as_deref(), Some("beach"));
    assert_eq!(respelt("bridgge").as_deref(), Some("bridge"));
    assert_eq!(respelt("pariss").as_deref(), Some("paris"));
    for word in ["beach", "beaches", "dg", "zebra", "IMG_2", "", "?", "two words"] {
        assert_eq!(respelt(word), None, "{word}");
    }
    drop(reader);
    let mut writer = IndexWriter::open(dir.path(), &spec()).unwrap();
    for path in ["/p/sea/IMG_0.jpg", "/p/sea/IMG_2.jpg"] {
        writer.remove(path.as_ref()).unwrap();
    }
    writer.commit().unwrap();
    assert_eq!(IndexReader::open(dir.path()).unwrap().respell("bech").unwrap(), None);
}

#[test]
fn a_rebuilt_text_holds_all_metadata() {
    let dir = tempfile::tempdir().unwrap();
    let before: Vec<_> = {
        let reader = annotated(dir.path());
        (0..4).map(|doc| reader.photo(DocId(doc)).unwrap()).collect()
    };
    assert_eq!(before[1].as_ref().unwrap().metadata.keywords, ["rowing boat", "Aunt Mary"]);
    drop(IndexWriter::rebuild(dir.path(), &spec()).unwrap());
    let reader = IndexReader::open(dir.path()).unwrap();
    let after: Vec<_> = (0..4).map(|doc| reader.photo(DocId(doc)).unwrap()).collect();
    assert_eq!(before, after);
    assert_eq!(found(&reader, &[word("boat")], &Filter::default()), [1, 3]);
    let london = Circle { latitude: 51.5, longitude: -0.1, radius_in_metres: 9e3 };
    assert_eq!(all_that_pass(&reader, Clause::Near(london)), [0]);
}

/// An index of `count` photos in which photo `i` has content `i`.
fn many(dir: &Path, count: u64) -> IndexReader {
    let mut writer = IndexWriter::open(dir, &spec()).unwrap();
    for content in 0..count {
        let path = format!("/p/{}/{content}.jpg", content % 10);
        writer.add(photo(path, content), features(content)).unwrap();
        if content % 100 == 7 {
            writer.commit().unwrap();
        }
    }
    writer.commit().unwrap();
    IndexReader::open(dir).unwrap()
}

/// The largest cosine of each photo, computed from the originals.
fn cosines(query: &[f32], count: u64) -> Vec<(DocId, f32)> {
    let query = unit(query.to_vec());
    (0..count)
        .map(|content| {
            let rows = features(content).embedding;
            let cosine =
                |row: usize| -> f32 { rows.row(row).iter().zip(&query).map(|(a, b)| a * b).sum() };
            let best = (0..rows.rows).map(cosine).fold(-1.0, f32::max);
            (DocId(content), best)
        })
        .collect()
}

#[test]
fn scores_of_vectors_are_cosines_best_first() {
    let dir = tempfile::tempdir().unwrap();
    let reader = many(dir.path(), 700);
    for seed in 0..5 {
        // Any length of the query gives the same.
        let query: Vec<f32> = noise(seed + 9000, 24).iter().map(|v| v * 17.0).collect();
        let expected = cosines(&query, 700);
        let found = reader.by_vector(&query, &Filter::default(), 700).unwrap();
        assert_eq!(found.len(), 700);
        assert!(found.is_sorted_by(in_order));
        for (doc, score) in &found {
            let (_, cosine) = expected[doc.0 as usize];
            assert!((score - cosine).abs() < 1e-2, "{score} against {cosine}");
        }
        for limit in [0, 1, 5, 50] {
            assert_eq!(
                reader.by_vector(&query, &Filter::default(), limit).unwrap(),
                found[..limit]
            );
        }
    }
}

#[test]
fn a_filter_is_part_of_the_scan_so_that_all_that_exist_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let reader = many(dir.path(), 700);
    let query = noise(77, 24);
    let all = reader.by_vector(&query, &Filter::default(), 700).unwrap();
    for filter in [
        require(&[Clause::Path("/p/3/".to_owned())]),
        exclude(&(0..9).map(|i| Clause::Path(format!("/p/{i}/"))).collect::<Vec<_>>()),
        require(&[Clause::Term(word("699"))]),
        require(&[Clause::Term(word("nothing"))]),
    ] {
        let allowed = reader.by_filter(&filter, 1000).unwrap();
        let expected: Vec<_> =
            all.iter().filter(|(doc, _)| allowed.contains(doc)).copied().collect();
        assert_eq!(reader.by_vector(&query, &filter, 1000).unwrap(), expected);
        assert_eq!(
            reader.by_vector(&query, &filter, 5).unwrap(),
            expected[..expected.len().min(5)]
        );
    }
}

#[test]
fn copies_score_alike_and_come_by_number() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = IndexWriter::open(dir.path(), &spec()).unwrap();
    let first = writer.add(photo("/z", 1), features(1)).unwrap();
    let other = writer.add(photo("/m", 2), features(2)).unwrap();
    let copy = writer.add_copy(photo("/a", 1), first).unwrap();
    writer.commit().unwrap();
    let reader = IndexReader::open(dir.path()).unwrap();
    let query = features(1).embedding.row(2).to_vec();
    let found = reader.by_vector(&query, &Filter::default(), 10).unwrap();
    assert_eq!(docs(&found), [first, copy, other]);
    assert_eq!(found[0].1.to_bits(), found[1].1.to_bits());
    assert!(found[0].1 > 0.99);
}

#[test]
fn a_query_that_cannot_be_compared_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let reader = many(dir.path(), 8);
    let all = Filter::default();
    let error = reader.by_vector(&[1.0; 23], &all, 5).unwrap_err();
    assert_eq!(error.to_string(), "the query has 23 dimensions, `nano` has 24");
    for query in [[0.0; 24], [f32::NAN; 24], [f32::INFINITY; 24]] {
        let error = reader.by_vector(&query, &all, 5).unwrap_err();
        assert!(matches!(error, SearchError::NoDirection), "{error}");
    }
}

#[test]
fn highlight_marks_what_a_search_found() {
    let (_dir, reader) = index();
    let words = [word("dog"), phrase("red umbrella")];
    let text = "Two dogs and a red umbrella";
    let ranges = reader.highlight(&words, text);
    let marked: Vec<&str> = ranges.into_iter().map(|range| &text[range]).collect();
    assert_eq!(marked, ["dogs", "red umbrella"]);
}

#[test]
fn photos_come_by_number_one_after_the_other() {
    let (_dir, reader) = index();
    let numbers = |filter: &Filter| -> Vec<u64> {
        reader.photos(filter).unwrap().map(|photo| photo.unwrap().doc.0).collect()
    };
    assert_eq!(numbers(&Filter::default()), [0, 1, 2, 3, 4, 5]);
    let city = Filter { require: vec![Clause::Path("city".into())], exclude: Vec::new() };
    assert_eq!(numbers(&city), [2, 3, 4]);
    let first = reader.photos(&city).unwrap().next().unwrap().unwrap();
    assert_eq!(Some(first), reader.photo(DocId(2)).unwrap());
}

#[test]
fn photos_are_ranked_row_by_row() {
    let (_dir, reader) = index();
    let own = reader.embedding(DocId(3)).unwrap();
    let all = reader.by_rows(&own, &Filter::default(), 9).unwrap();
    assert_eq!((all[0].0, all.len()), (DocId(3), 6));
    assert!((all[0].1 - 1.0).abs() < 0.01, "{all:?}");
    for (doc, score) in &all {
        let other = reader.embedding(*doc).unwrap();
        let cosine = |row: usize| -> f32 {
            unit(own.row(row).to_vec()).iter().zip(other.row(row)).map(|(a, b)| a * b).sum()
        };
        let mean = (0..own.rows).map(cosine).sum::<f32>() / own.rows as f32;
        assert!((mean - score).abs() < 0.01, "{doc:?}: {score}, not {mean}");
        // What the one has of the other, the other has of the one.
        let back = reader.by_rows(&other, &Filter::default(), 9).unwrap();
        let back = back.iter().find(|(doc, _)| *doc == DocId(3)).unwrap().1;
        assert!((back - score).abs() < 0.01, "{doc:?}: {score} and {back}");
    }
    assert_eq!(reader.by_rows(&own, &Filter::default(), 2).unwrap(), all[..2]);
    let city = Filter { require: vec![Clause::Path("city".into())], exclude: Vec::new() };
    let expected: Vec<DocId> =
        docs(&all).into_iter().filter(|doc| (2..=4).contains(&doc.0)).collect();
    assert_eq!(docs(&reader.by_rows(&own, &city, 9).unwrap()), expected);
}

#[test]
fn rows_that_cannot_be_compared_are_refused() {
    let (_dir, reader) = index();
    let spec = spec();
    let all = Filter::default();
    let ask = |rows, dim, value| {
        let values = vec![value; rows * dim];
        reader.by_rows(&tinyfind_index::Matrix::new(rows, dim, values), &all, 9).unwrap_err()
    };
    let (rows, dim) = (spec.embedding_rows, spec.embedding_dim);
    let wrong = |error| match error {
        SearchError::Dimension { expected, found, .. } => (expected, found),
        error => panic!("{error}"),
    };
    assert_eq!(wrong(ask(rows, dim + 1, 1.0)), (dim, dim + 1));
    assert_eq!(wrong(ask(rows + 1, dim, 1.0)), (rows * dim, (rows + 1) * dim));
    assert!(matches!(ask(rows, dim, 0.0), SearchError::NoDirection));
}
