//! The codes of the first stage: a cache that may be missing, short or damaged.

#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{features, photo, problems, spec};
use tinyfind_index::{Clause, DocId, Filter, IndexReader, IndexWriter};

/// Two whole chunks of codes, and photos behind them that have none yet.
const PHOTOS: u64 = 2500;

fn write(dir: &Path, contents: std::ops::Range<u64>) {
    let mut writer = IndexWriter::open(dir, &spec()).unwrap();
    for content in contents {
        writer
            .add(photo(format!("/{}/{content}.jpg", content % 3), content), features(content))
            .unwrap();
    }
    writer.commit().unwrap();
}

fn codes(dir: &Path) -> PathBuf {
    dir.join("coarse/codes")
}

/// Best photos of some queries: by candidates, and of all photos.
fn answers(dir: &Path, filter: &Filter) -> [Vec<Vec<(DocId, f32)>>; 2] {
    [0, u64::MAX].map(|bytes| {
        let mut reader = IndexReader::open(dir).unwrap();
        reader.compare_all_up_to(bytes);
        let queries = (0..20).map(|content| features(content * 101 + 3).embedding);
        queries.map(|query| reader.by_vector(query.row(1), filter, 10).unwrap()).collect()
    })
}

/// Part of the exact ten best that are found by candidates.
fn recall(dir: &Path) -> f64 {
    let [found, exact] = answers(dir, &Filter::default());
    let same = found.iter().zip(&exact).map(|(found, exact)| {
        exact.iter().filter(|(doc, _)| found.iter().any(|(other, _)| other == doc)).count()
    });
    same.sum::<usize>() as f64 / (10 * exact.len()) as f64
}

#[test]
fn codes_tell_near_photos_from_others_after_restarts_and_rebuilds() {
    let dir = tempfile::tempdir().unwrap();
    // Three times as many as are proposed, written by several writers.
    for part in 0..4 {
        write(dir.path(), part * 1700..(part + 1) * 1700);
    }
    let whole = fs::read(codes(dir.path())).unwrap();
    assert!(recall(dir.path()) >= 0.95, "{}", recall(dir.path()));
    drop(IndexWriter::rebuild(dir.path(), &spec()).unwrap());
    assert_eq!(fs::read(codes(dir.path())).unwrap(), whole);
    assert!(recall(dir.path()) >= 0.95);
}

/// For a collection with fewer photos than are proposed.
#[track_caller]
fn assert_complete(dir: &Path) {
    let path = |text: &str| vec![Clause::Path(text.to_owned())];
    let filters = [
        Filter::default(),
        Filter { require: path("/2/"), exclude: vec![] },
        Filter { require: vec![], exclude: path("/2/") },
        Filter { require: vec![], exclude: path("11") },
        Filter { require: path("/1"), exclude: path("7") },
    ];
    let each = filters.each_ref().map(|filter| {
        let [found, exact] = answers(dir, filter);
        // There are fewer photos than candidates: nothing may be missing.
        assert_eq!(found, exact);
        exact
    });
    // All filters at once, of which more are kept than that.
    let mut reader = IndexReader::open(dir).unwrap();
    reader.compare_all_up_to(0);
    for (number, content) in (0..20).map(|content| content * 101 + 3).enumerate() {
        let query = features(content).embedding.row(1).to_vec();
        let asked = filters.each_ref().map(|filter| (query.clone(), filter.clone()));
        let found = reader.rank_by_vectors(&asked, 10).unwrap();
        assert_eq!(found, each.each_ref().map(|exact| exact[number].clone()));
    }
}

#[test]
fn copies_that_do_not_pass_take_no_place_from_photos_that_do() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = IndexWriter::open(dir.path(), &spec()).unwrap();
    // More than are proposed, all like the query, and each twice.
    for content in 0..2500 {
        let mut near = features(content);
        let query = features(9999).embedding;
        near.embedding.values[..query.dim].copy_from_slice(query.row(0));
        let of = writer.add(photo(format!("/x/{content}.jpg"), content), near).unwrap();
        writer.add_copy(photo(format!("/x/copy {content}.jpg"), content), of).unwrap();
        if content % 100 == 0 {
            writer.add_copy(photo(format!("/y/copy {content}.jpg"), content), of).unwrap();
        }
    }
    for content in 3000..9000 {
        writer.add(photo(format!("/y/{content}.jpg"), content), features(content)).unwrap();
    }
    writer.commit().unwrap();
    drop(writer);
    let mut reader = IndexReader::open(dir.path()).unwrap();
    reader.compare_all_up_to(0);
    let filter = Filter { require: vec![], exclude: vec![Clause::Path("/x/".into())] };
    let query = features(9999).embedding;
    let found = reader.by_vector(query.row(0), &filter, 100).unwrap();
    assert_eq!(found.len(), 100);
    // Those are copies elsewhere of what does not pass.
    assert!(found[..25].iter().all(|(_, score)| *score > 0.99), "{:?}", found[24]);
    assert!(found[25].1 < 0.99);
    let path = |doc| reader.photo(doc).unwrap().unwrap().path;
    assert!(found.iter().all(|(doc, _)| path(*doc).starts_with("/y")));
}

#[test]
fn candidates_and_photos_behind_the_last_chunk_are_found() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 0..1000);
    assert_complete(dir.path());
    write(dir.path(), 1000..PHOTOS);
    let length = fs::metadata(codes(dir.path())).unwrap().len();
    assert_complete(dir.path());
    write(dir.path(), PHOTOS..PHOTOS + 600);
    assert!(fs::metadata(codes(dir.path())).unwrap().len() > length);
    assert_complete(dir.path());
    assert_eq!(problems(dir.path()), Vec::<String>::new());
}

#[test]
fn a_reader_keeps_its_codes_while_others_are_written() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 0..PHOTOS);
    let mut reader = IndexReader::open(dir.path()).unwrap();
    reader.compare_all_up_to(0);
    let query = features(5).embedding;
    let ask = || reader.by_vector(query.row(0), &Filter::default(), 10).unwrap();
    let before = ask();
    drop(IndexWriter::rebuild(dir.path(), &spec()).unwrap());
    write(dir.path(), PHOTOS..2 * PHOTOS);
    assert_eq!(ask(), before);
    assert_complete(dir.path());
}

#[test]
fn without_codes_everything_is_compared_and_the_next_writer_makes_them() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 0..PHOTOS);
    let whole = fs::read(codes(dir.path())).unwrap();
    fs::remove_dir_all(dir.path().join("coarse")).unwrap();
    assert_complete(dir.path());
    drop(IndexWriter::open(dir.path(), &spec()).unwrap());
    assert_eq!(fs::read(codes(dir.path())).unwrap(), whole, "the same photos have the same codes");
    assert_complete(dir.path());
}

#[test]
fn damage_costs_time_and_is_found_and_mended() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 0..PHOTOS);
    let whole = fs::read(codes(dir.path())).unwrap();
    let chunk = (whole.len() - 64) / 2;
    for at in [0, 20, 63, 64, 64 + chunk / 2, 63 + chunk, 64 + chunk, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 16;
        fs::write(codes(dir.path()), &damaged).unwrap();
        assert_complete(dir.path());
        if at >= 64 {
            let problems = problems(dir.path());
            assert!(problems.len() == 1 && problems[0].contains("coarse/codes"), "{problems:?}");
            assert!(problems[0].contains("--rebuild"), "{problems:?}");
        }
        drop(IndexWriter::rebuild(dir.path(), &spec()).unwrap());
        assert_eq!(fs::read(codes(dir.path())).unwrap(), whole, "byte {at}");
    }
}

#[test]
fn codes_of_an_index_that_lay_there_before_are_not_taken_for_its_own() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(dir.path(), 0..PHOTOS);
    write(other.path(), 3 * PHOTOS..4 * PHOTOS);
    let foreign = fs::read(codes(other.path())).unwrap();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }
    fs::create_dir(dir.path().join("coarse")).unwrap();
    fs::write(codes(dir.path()), &foreign).unwrap();
    write(dir.path(), 0..PHOTOS);
    assert_ne!(fs::read(codes(dir.path())).unwrap(), foreign);
    assert_complete(dir.path());
}

#[test]
fn codes_of_another_index_of_the_same_sizes_cost_no_answer() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // More photos with codes than are proposed. The other index lacks one of them, so that all
    // behind it lie elsewhere.
    let photos = 3 * 1700;
    write(dir.path(), 0..photos);
    write(other.path(), 0..300);
    write(other.path(), 301..photos + 1);
    let own = fs::read(codes(dir.path())).unwrap();
    let foreign = fs::read(codes(other.path())).unwrap();
    assert_eq!(own.len(), foreign.len());
    fs::write(codes(dir.path()), &foreign).unwrap();
    assert_complete(dir.path());
    let found = problems(dir.path());
    assert!(found.len() == 1 && found[0].contains("coarse/codes"), "{found:?}");
    assert!(found[0].contains("of other photos"), "{found:?}");
    // One chunk among its own.
    let chunk = (own.len() - 64) / 4;
    let mut mixed = own.clone();
    mixed[64 + chunk..64 + 2 * chunk].copy_from_slice(&foreign[64 + chunk..64 + 2 * chunk]);
    fs::write(codes(dir.path()), &mixed).unwrap();
    assert_eq!(problems(dir.path()).len(), 1);
    assert!(recall(dir.path()) >= 0.95, "{}", recall(dir.path()));
    // The next writer takes neither for its own.
    for bytes in [foreign, mixed] {
        fs::write(codes(dir.path()), bytes).unwrap();
        drop(IndexWriter::open(dir.path(), &spec()).unwrap());
        assert_eq!(fs::read(codes(dir.path())).unwrap(), own);
    }
}

#[test]
fn a_file_of_any_length_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 0..PHOTOS);
    let whole = fs::read(codes(dir.path())).unwrap();
    let chunk = (whole.len() - 64) / 2;
    for length in [0, 1, 63, 64, 65, 64 + chunk - 1, 64 + chunk, whole.len() - 1] {
        fs::write(codes(dir.path()), &whole[..length]).unwrap();
        assert_complete(dir.path());
        drop(IndexWriter::open(dir.path(), &spec()).unwrap());
        assert_eq!(fs::read(codes(dir.path())).unwrap(), whole, "{length} bytes");
    }
}
