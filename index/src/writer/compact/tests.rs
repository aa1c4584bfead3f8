//! Compaction in segments of few records: what lives stays, and the space comes back.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::Compaction;
use crate::common::model::{ANY, assert_kept, operation};
use crate::common::{features, files_of, folder, hash, photo, problems, spec};
use crate::segments::SLOTS_PER_SEGMENT;
use crate::{
    Clause, DocId, Filter, IndexReader, IndexWriter, Matrix, OpenError, WriteError, check,
};

/// So many segments are full, and one more holds a few.
const FULL: u64 = 3;
const PHOTOS: u64 = FULL * SLOTS_PER_SEGMENT + 5;

fn path_of(content: u64) -> PathBuf {
    format!("/p/{content}.jpg").into()
}

/// An index of [`PHOTOS`] photos of which those remain for which `stays` holds.
fn index(dir: &Path, stays: impl Fn(u64) -> bool) -> IndexWriter {
    let mut writer = IndexWriter::open(dir, &spec()).unwrap();
    for content in 0..PHOTOS {
        writer.add(photo(path_of(content), content), features(content)).unwrap();
    }
    writer.commit().unwrap();
    for content in (0..PHOTOS).filter(|content| !stays(*content)) {
        writer.remove(&path_of(content)).unwrap();
    }
    writer.commit().unwrap();
    writer
}

/// Numbers of the segments whose files are there: both or none of each.
fn segments(dir: &Path) -> Vec<u64> {
    let mut numbers = Vec::new();
    for file in files_of(&dir.join("segments")) {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        if let Some(number) = name.strip_suffix(".vectors.seg") {
            assert!(file.with_file_name(format!("{number}.tokens.seg")).exists());
            numbers.push(number.parse().unwrap());
        }
    }
    assert_eq!(files_of(&dir.join("segments")).len(), 2 * numbers.len());
    numbers.sort_unstable();
    numbers
}

/// All that is kept of each photo, by number.
fn kept(dir: &Path) -> Vec<(DocId, PathBuf, Matrix, Matrix)> {
    let reader = IndexReader::open(dir).unwrap();
    let photos = reader.photos(&Filter::default()).unwrap();
    photos
        .map(|photo| {
            let photo = photo.unwrap();
            let doc = photo.doc;
            let rows = (reader.embedding(doc).unwrap(), reader.visual_tokens(doc).unwrap());
            (doc, photo.path, rows.0, rows.1)
        })
        .collect()
}

fn unused(dir: &Path) -> u64 {
    IndexReader::open(dir).unwrap().check().unwrap().unused_records
}

fn assert_sound(dir: &Path) {
    assert_eq!(check(dir).unwrap().problems, [""; 0]);
}

#[test]
fn what_lives_is_copied_bit_by_bit_and_keeps_its_number() {
    let dir = folder();
    // Of each segment every fourth remains, and all of the last but one.
    let stays = |content| content % 4 == 1 || content / SLOTS_PER_SEGMENT == FULL - 1;
    let mut writer = index(dir.path(), stays);
    let before = kept(dir.path());
    let bytes = || -> u64 {
        let files = files_of(&dir.path().join("segments"));
        files.iter().map(|file| fs::metadata(file).unwrap().len()).sum()
    };
    let had = bytes();
    let done = writer.compact(0.5, |_| true).unwrap();
    assert_eq!((done.found, done.segments, done.problems.len()), (3, 3, 0));
    assert_eq!(done.moved, 2 * SLOTS_PER_SEGMENT / 4 + 1);
    // Three segments went and one came.
    assert_eq!(segments(dir.path()), [FULL - 1, FULL + 1]);
    assert_eq!(done.freed_bytes - (had - bytes()), 2 * 64);
    assert_eq!(kept(dir.path()), before);
    assert_eq!(unused(dir.path()), 0);
    drop(writer);
    assert_sound(dir.path());
    drop(IndexWriter::restore(dir.path()).unwrap());
    assert_eq!(kept(dir.path()), before);
    assert_sound(dir.path());
}

#[test]
fn an_empty_segment_is_given_back_without_a_copy() {
    let dir = folder();
    let mut writer = index(dir.path(), |content| content / SLOTS_PER_SEGMENT == 1);
    let done = writer.compact(1.0, |_| true).unwrap();
    assert_eq!((done.found, done.segments, done.moved), (3, 3, 0));
    assert_eq!(segments(dir.path()), [1]);
    // The next photo begins a segment, though the last one was not full.
    let new = writer.add(photo("/new", 999), features(999)).unwrap();
    writer.commit().unwrap();
    assert_eq!(segments(dir.path()), [1, FULL + 1]);
    let reader = IndexReader::open(dir.path()).unwrap();
    assert_eq!(reader.slot(new).unwrap(), (FULL + 1) * SLOTS_PER_SEGMENT);
    drop(writer);
    assert_sound(dir.path());
}

#[test]
fn an_index_that_lost_all_gives_all_back() {
    let dir = folder();
    let mut writer = index(dir.path(), |_| false);
    writer.compact(0.5, |_| true).unwrap();
    assert_eq!(segments(dir.path()), [0; 0]);
    assert_eq!(unused(dir.path()), 0);
    drop(writer);
    let mut writer = IndexWriter::open(dir.path(), &spec()).unwrap();
    writer.add(photo("/new", 1), features(1)).unwrap();
    writer.commit().unwrap();
    drop(writer);
    assert_sound(dir.path());
}

#[test]
fn segments_below_the_share_are_left_as_they_are() {
    let dir = folder();
    let mut writer = index(dir.path(), |content| content % 4 != 1);
    let generation = writer.commit().unwrap();
    for least in [0.5, f64::NAN, f64::INFINITY] {
        assert_eq!(writer.compact(least, |_| true).unwrap(), Compaction::default());
    }
    assert_eq!(writer.commit().unwrap(), generation);
    assert_eq!(writer.compact(0.25, |_| true).unwrap().segments, FULL);
    // Whatever is asked, a segment in full use is not copied.
    writer.compact(ANY, |_| true).unwrap();
    assert_eq!(writer.compact(0.0, |_| true).unwrap(), Compaction::default());
    assert_eq!(unused(dir.path()), 0);
}

#[test]
fn pending_changes_are_committed_first() {
    let dir = folder();
    let mut writer = index(dir.path(), |_| true);
    writer.remove(&path_of(0)).unwrap();
    writer.add(photo("/new", 500), features(500)).unwrap();
    assert_eq!(writer.compact(ANY, |_| true).unwrap().segments, 1);
    assert_eq!(writer.pending(), 0);
    assert_eq!(IndexReader::open(dir.path()).unwrap().counts().photos, PHOTOS);
    drop(writer);
    assert_sound(dir.path());
}

#[test]
fn a_stop_ends_between_two_segments_and_the_next_call_goes_on() {
    let dir = folder();
    let mut writer = index(dir.path(), |content| content % 2 == 0);
    let before = kept(dir.path());
    let mut seen = Vec::new();
    let done = writer.compact(ANY, |done| {
        seen.push((done.found, done.segments));
        done.segments < 2
    });
    assert_eq!(seen, [(4, 0), (4, 1), (4, 2)]);
    assert_eq!(done.unwrap().segments, 2);
    assert_eq!(kept(dir.path()), before);
    drop(writer);
    assert_sound(dir.path());
    let mut writer = IndexWriter::open(dir.path(), &spec()).unwrap();
    assert_eq!(writer.compact(ANY, |_| true).unwrap().segments, 2);
    assert_eq!(kept(dir.path()), before);
    assert_eq!(unused(dir.path()), 0);
}

#[test]
fn the_oldest_still_waits_first_for_its_caption() {
    let dir = folder();
    let mut writer =
        index(dir.path(), |content| content % 4 == 0 || content / SLOTS_PER_SEGMENT == 1);
    let order = |writer: &IndexWriter| -> Vec<DocId> {
        writer.uncaptioned(usize::MAX).unwrap().into_iter().map(|(doc, _)| doc).collect()
    };
    let before = order(&writer);
    assert!(before.is_sorted());
    writer.compact(0.5, |_| true).unwrap();
    assert_eq!(order(&writer), before);
    // Moved once more, captioned and removed, none is left in the list.
    writer.remove(&path_of(4)).unwrap();
    writer.compact(ANY, |_| true).unwrap();
    for doc in order(&writer) {
        writer.set_caption(doc, "a boat").unwrap();
    }
    assert_eq!(order(&writer), []);
    writer.commit().unwrap();
    drop(writer);
    assert_sound(dir.path());
}

#[test]
fn a_segment_with_a_damaged_record_is_left_as_it_is() {
    let dir = folder();
    let mut writer = index(dir.path(), |content| content % 2 == 0);
    let file = dir.path().join("segments/1.tokens.seg");
    let whole = fs::read(&file).unwrap();
    let mut damaged = whole.clone();
    damaged[70] ^= 1;
    fs::write(&file, &damaged).unwrap();
    let done = writer.compact(0.5, |_| true).unwrap();
    assert_eq!((done.found, done.segments, done.problems.len()), (3, 2, 1));
    assert!(done.problems[0].contains("1.tokens.seg"), "{:?}", done.problems);
    // The writer goes on, and so does the compaction once the record is whole.
    fs::write(&file, &whole).unwrap();
    assert_eq!(writer.compact(0.5, |_| true).unwrap().segments, 1);
    drop(writer);
    assert_sound(dir.path());
}

#[test]
fn an_open_reader_keeps_its_generation() {
    let dir = folder();
    let mut writer = index(dir.path(), |content| content % 3 == 0);
    let mut reader = IndexReader::open(dir.path()).unwrap();
    let (generation, photos) = (reader.generation(), reader.counts().photos);
    writer.compact(ANY, |_| true).unwrap();
    assert!(writer.commit().unwrap() > generation);
    for bytes in [0, u64::MAX] {
        reader.compare_all_up_to(bytes);
        let query = features(3).embedding;
        let found = reader.by_vector(query.row(0), &Filter::default(), 10).unwrap();
        assert_eq!(reader.photo(found[0].0).unwrap().unwrap().hash, hash(3));
    }
    assert_eq!((reader.generation(), reader.counts().photos), (generation, photos));
    assert_eq!(reader.check().unwrap().problems, [""; 0]);
}

#[test]
fn files_that_were_not_deleted_are_by_the_next_writer() {
    let dir = folder();
    let mut writer = index(dir.path(), |content| content % 2 == 0);
    let old = fs::read(dir.path().join("segments/0.vectors.seg")).unwrap();
    writer.compact(ANY, |_| true).unwrap();
    drop(writer);
    fs::write(dir.path().join("segments/0.vectors.seg"), &old[..100]).unwrap();
    fs::write(dir.path().join("segments/2.tokens.seg"), "").unwrap();
    // Nobody looks at them, and they are no damage.
    assert_sound(dir.path());
    let writer = IndexWriter::open(dir.path(), &spec()).unwrap();
    assert_eq!(segments(dir.path()), [FULL + 1, FULL + 2]);
    drop(writer);
}

#[test]
fn a_segment_that_is_missing_but_not_gone_is_an_error() {
    let dir = folder();
    let mut writer = index(dir.path(), |content| content % 2 == 0);
    writer.compact(0.5, |done| done.segments == 0).unwrap();
    drop(writer);
    let left = segments(dir.path());
    fs::remove_file(dir.path().join(format!("segments/{}.tokens.seg", left[1]))).unwrap();
    for error in [
        IndexReader::open(dir.path()).unwrap_err(),
        IndexWriter::open(dir.path(), &spec()).unwrap_err(),
    ] {
        assert!(matches!(error, OpenError::Corrupt { .. }), "{error:?}");
        assert!(error.to_string().contains("it is missing"), "{error}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_told_and_the_writer_goes_on() {
    let dir = folder();
    let mut writer = index(dir.path(), |content| content % 2 == 0);
    let file = dir.path().join("segments/0.vectors.seg");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let error = writer.compact(ANY, |_| true).unwrap_err();
    assert!(matches!(error, WriteError::Io { .. }), "{error:?}");
    writer.add(photo("/new", 700), features(700)).unwrap();
    writer.commit().unwrap();
}

/// Best photos of some queries: by candidates, and of all photos.
fn answers(dir: &Path, filter: &Filter) -> [Vec<Vec<(DocId, f32)>>; 2] {
    [0, u64::MAX].map(|bytes| {
        let mut reader = IndexReader::open(dir).unwrap();
        reader.compare_all_up_to(bytes);
        let queries = (0..PHOTOS).map(|content| features(content).embedding);
        queries.map(|query| reader.by_vector(query.row(1), filter, 5).unwrap()).collect()
    })
}

#[test]
fn codes_say_nothing_of_segments_that_are_gone() {
    let dir = folder();
    let mut writer =
        index(dir.path(), |content| content % 2 == 0 && content / SLOTS_PER_SEGMENT != 1);
    let filter = Filter { require: vec![Clause::Path("/p/3".into())], exclude: vec![] };
    let before = answers(dir.path(), &Filter::default());
    writer.compact(ANY, |_| true).unwrap();
    assert_eq!(answers(dir.path(), &Filter::default()), before);
    for content in 200..200 + 2 * SLOTS_PER_SEGMENT {
        writer.add(photo(path_of(content), content), features(content)).unwrap();
    }
    writer.commit().unwrap();
    drop(writer);
    // Once more from nothing.
    for _ in 0..2 {
        for filter in [&Filter::default(), &filter] {
            let [found, exact] = answers(dir.path(), filter);
            assert_eq!(found, exact);
        }
        assert_eq!(problems(dir.path()), [""; 0]);
        drop(IndexWriter::rebuild(dir.path(), &spec()).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(20) })]

    #[test]
    fn an_index_of_small_segments_holds_what_the_operations_say(
        operations in prop::collection::vec(operation(), 1..80)
    ) {
        let dir = folder();
        assert_kept(dir.path(), &operations);
    }
}
