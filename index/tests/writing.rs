//! What a writer does to the ledger, and what readers see of it.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic as they may")]

mod common;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use common::{features, hash, photo, problems, spec, stamp, stored};
use tinyfind_index::{
    Counts, Failure, Features, FileState, Filter, IndexReader, IndexWriter, Matrix, ModelSpec,
    OpenError, SearchError, WriteError,
};

fn open(dir: &Path) -> IndexWriter {
    IndexWriter::open(dir, &spec()).unwrap()
}

fn reader(dir: &Path) -> IndexReader {
    IndexReader::open(dir).unwrap()
}

#[test]
fn a_committed_photo_reads_back_as_added() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    let mut new = photo("/photos/a.jpg", 1);
    new.metadata.camera = Some("FUJIFILM X-T3".to_owned());
    new.metadata.gps = Some((47.37, 8.54));
    let doc = writer.add(new.clone(), features(1)).unwrap();
    writer.set_caption(doc, "a dog on a beach").unwrap();
    assert_eq!(writer.commit().unwrap(), 1);

    let reader = reader(dir.path());
    assert_eq!((reader.generation(), reader.spec()), (1, &spec()));
    assert_eq!(reader.counts(), Counts { photos: 1, captioned: 1, failed: 0 });
    let found = stored(&reader, "/photos/a.jpg");
    assert_eq!((found.doc, found.hash, &found.metadata), (doc, hash(1), &new.metadata));
    assert_eq!(found.caption.as_deref(), Some("a dog on a beach"));
    for (kept, given) in [
        (reader.embedding(doc).unwrap(), features(1).embedding),
        (reader.visual_tokens(doc).unwrap(), features(1).visual_tokens),
    ] {
        assert_eq!((kept.rows, kept.dim), (given.rows, given.dim));
        let worst = kept.values.iter().zip(&given.values).map(|(a, b)| (a - b).abs());
        assert!(worst.fold(0.0, f32::max) < 1.0 / 127.0);
    }
    assert_eq!(problems(dir.path()), [""; 0]);
}

#[test]
fn changes_are_seen_by_the_writer_at_once_and_by_readers_after_a_commit() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    writer.add(photo("/a", 1), features(1)).unwrap();
    assert!(writer.lookup("/a".as_ref()).unwrap().is_some());
    assert_eq!(writer.find_content(&hash(1)).unwrap().len(), 1);
    assert_eq!(writer.pending(), 1);
    assert_eq!(reader(dir.path()).counts(), Counts::default());
    writer.commit().unwrap();
    assert_eq!(writer.pending(), 0);
    assert_eq!(reader(dir.path()).counts().photos, 1);
}

#[test]
fn what_was_not_committed_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    writer.add(photo("/a", 1), features(1)).unwrap();
    writer.commit().unwrap();
    writer.add(photo("/b", 2), features(2)).unwrap();
    writer.remove("/a".as_ref()).unwrap();
    drop(writer);
    let writer = open(dir.path());
    assert!(writer.lookup("/a".as_ref()).unwrap().is_some());
    assert!(writer.lookup("/b".as_ref()).unwrap().is_none());
    drop(writer);
    assert_eq!(problems(dir.path()), [""; 0]);
}

#[test]
fn a_commit_of_nothing_keeps_the_generation() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    assert_eq!(writer.commit().unwrap(), 0);
    writer.fail("/a".as_ref(), stamp(1), "empty").unwrap();
    assert_eq!((writer.commit().unwrap(), writer.commit().unwrap()), (1, 1));
}

#[test]
fn copies_share_features_and_caption() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    let first = writer.add(photo("/a", 1), features(1)).unwrap();
    let copy = writer.add_copy(photo("/b", 1), first).unwrap();
    let same = writer.add(photo("/c", 1), features(1)).unwrap();
    assert_eq!(writer.uncaptioned(10).unwrap().len(), 1);
    writer.set_caption(copy, "three of a kind").unwrap();
    assert_eq!(writer.counts(), Counts { photos: 3, captioned: 3, failed: 0 });
    assert!(writer.uncaptioned(10).unwrap().is_empty());
    let late = writer.add_copy(photo("/d", 1), same).unwrap();
    writer.commit().unwrap();

    let reader = reader(dir.path());
    for doc in [first, copy, same, late] {
        let photo = reader.photo(doc).unwrap().unwrap();
        assert_eq!(photo.caption.as_deref(), Some("three of a kind"));
        assert_eq!(reader.embedding(doc).unwrap(), reader.embedding(first).unwrap());
    }
    let report = reader.check().unwrap();
    assert_eq!((report.contents, report.unused_records, report.problems.len()), (1, 0, 0));
}

#[test]
fn a_copy_must_be_of_the_same_content() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    let first = writer.add(photo("/a", 1), features(1)).unwrap();
    let error = writer.add_copy(photo("/b", 2), first).unwrap_err();
    assert!(matches!(error, WriteError::OtherContent { .. }), "{error}");
    writer.remove("/a".as_ref()).unwrap();
    let error = writer.add_copy(photo("/b", 1), first).unwrap_err();
    assert!(matches!(error, WriteError::UnknownDoc { doc } if doc == first), "{error}");
}

#[test]
fn a_rename_keeps_number_features_and_caption() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    let doc = writer.add(photo("/old", 1), features(1)).unwrap();
    writer.set_caption(doc, "a boat").unwrap();
    let replaced = writer.add(photo("/new", 2), features(2)).unwrap();
    writer.commit().unwrap();
    writer.rename("/old".as_ref(), "/new".as_ref(), stamp(5)).unwrap();
    writer.commit().unwrap();

    assert_eq!(writer.lookup("/new".as_ref()).unwrap().unwrap().stamp, stamp(5));
    assert!(writer.lookup("/old".as_ref()).unwrap().is_none());
    assert!(writer.find_content(&hash(2)).unwrap().is_empty());
    assert_eq!(writer.counts(), Counts { photos: 1, captioned: 1, failed: 0 });
    let reader = reader(dir.path());
    assert_eq!(stored(&reader, "/new").doc, doc);
    assert_eq!(reader.find_path("/old".as_ref()).unwrap(), None);
    assert_eq!(reader.photo(replaced).unwrap(), None);
    assert_eq!(problems(dir.path()), [""; 0]);

    let error = writer.rename("/old".as_ref(), "/x".as_ref(), stamp(1)).unwrap_err();
    assert!(matches!(error, WriteError::UnknownPath { .. }), "{error}");
}

#[test]
fn a_number_is_never_given_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    let first = writer.add(photo("/a", 1), features(1)).unwrap();
    let second = writer.add(photo("/a", 2), features(2)).unwrap();
    writer.remove("/a".as_ref()).unwrap();
    writer.commit().unwrap();
    drop(writer);
    let third = open(dir.path()).add(photo("/a", 1), features(1)).unwrap();
    assert!(first < second && second < third);
}

#[test]
fn a_failure_takes_the_place_of_a_photo_and_a_photo_that_of_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    writer.add(photo("/a", 1), features(1)).unwrap();
    writer.fail("/b".as_ref(), stamp(1), "cut off").unwrap();
    writer.commit().unwrap();
    writer.fail("/a".as_ref(), stamp(2), "no such format").unwrap();
    writer.add(photo("/b", 2), features(2)).unwrap();
    writer.commit().unwrap();

    let record = writer.lookup("/a".as_ref()).unwrap().unwrap();
    assert_eq!(record.state, FileState::Failed { reason: "no such format".to_owned() });
    let reader = reader(dir.path());
    let failure = Failure { path: "/a".into(), reason: "no such format".to_owned() };
    assert_eq!(reader.failures().unwrap(), [failure]);
    assert_eq!(reader.find_path("/a".as_ref()).unwrap(), None);
    assert!(reader.find_path("/b".as_ref()).unwrap().is_some());
    assert_eq!(reader.counts(), Counts { photos: 1, captioned: 0, failed: 1 });
}

#[test]
fn touching_changes_nothing_but_the_stamp() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    let doc = writer.add(photo("/a", 1), features(1)).unwrap();
    writer.commit().unwrap();
    writer.touch("/a".as_ref(), stamp(9)).unwrap();
    assert_eq!(writer.commit().unwrap(), 2);
    assert_eq!(writer.lookup("/a".as_ref()).unwrap().unwrap().stamp, stamp(9));
    assert_eq!(stored(&reader(dir.path()), "/a").doc, doc);
    let error = writer.touch("/b".as_ref(), stamp(9)).unwrap_err();
    assert!(matches!(error, WriteError::UnknownPath { .. }), "{error}");
}

#[test]
fn files_come_in_byte_order_and_keep_names_that_are_no_text() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    let odd = PathBuf::from(OsStr::from_bytes(b"/photos/caf\xe9.jpg"));
    let mut paths = vec![odd.clone(), "/photos/b".into(), "/photos/B".into(), "/photos".into()];
    for (content, path) in (0..).zip(&paths) {
        writer.add(photo(path, content), features(content)).unwrap();
    }
    writer.commit().unwrap();
    let listed: Vec<PathBuf> = writer.files().map(|entry| entry.unwrap().0).collect();
    paths.sort();
    assert_eq!(listed, paths);
    assert_eq!(stored(&reader(dir.path()), &odd).path, odd);
}

#[test]
fn uncaptioned_photos_come_oldest_first_with_their_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    let numbers: Vec<_> =
        (0..5).map(|i| writer.add(photo(format!("/{i}"), i), features(i)).unwrap()).collect();
    writer.commit().unwrap();
    writer.set_caption(numbers[1], "done").unwrap();
    writer.remove("/2".as_ref()).unwrap();
    let waiting = writer.uncaptioned(2).unwrap();
    assert_eq!(waiting.iter().map(|(doc, _)| *doc).collect::<Vec<_>>(), [numbers[0], numbers[3]]);
    let expected = features(3).visual_tokens;
    assert_eq!((waiting[1].1.rows, waiting[1].1.dim), (expected.rows, expected.dim));
    assert!((waiting[1].1.values[7] - expected.values[7]).abs() < 0.01);
    let error = writer.set_caption(tinyfind_index::DocId(99), "x").unwrap_err();
    assert!(matches!(error, WriteError::UnknownDoc { .. }), "{error}");
}

#[test]
fn features_that_the_model_does_not_make_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    let wide = Features { embedding: Matrix::new(3, 25, vec![0.1; 75]), ..features(1) };
    let error = writer.add(photo("/a", 1), wide).unwrap_err();
    assert!(error.to_string().contains("3 x 25") && error.to_string().contains("3 x 24"));
    let mut broken = features(1);
    broken.visual_tokens.values[3] = f32::NAN;
    let error = writer.add(photo("/a", 1), broken).unwrap_err();
    assert!(matches!(error, WriteError::NotFinite { .. }), "{error}");
    assert_eq!(writer.pending(), 0);
}

#[test]
fn a_place_that_is_no_number_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    let mut new = photo("/a", 1);
    new.metadata.gps = Some((f64::NAN, 8.0));
    writer.add(new, features(1)).unwrap();
    writer.commit().unwrap();
    assert_eq!(stored(&reader(dir.path()), "/a").metadata.gps, None);
}

#[test]
fn a_folder_without_an_index_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_owned(), dir.path().join("nowhere")] {
        let error = IndexReader::open(&path).unwrap_err();
        assert!(matches!(error, OpenError::Missing { .. }), "{error}");
    }
}

#[test]
fn an_index_of_another_model_is_refused_with_both_names() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    writer.add(photo("/a", 1), features(1)).unwrap();
    writer.commit().unwrap();
    drop(writer);
    let mut other = spec();
    other.name = "tinygpt-v-stage3".to_owned();
    other.fingerprint = "ffee".to_owned();
    let error = IndexWriter::open(dir.path(), &other).unwrap_err();
    assert!(matches!(error, OpenError::OtherModel { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("`nano`") && text.contains("`tinygpt-v-stage3`"), "{text}");
    let renamed = ModelSpec { name: "nano again".to_owned(), ..spec() };
    IndexWriter::open(dir.path(), &renamed).unwrap();
}

#[test]
fn an_index_that_never_held_a_photo_becomes_that_of_any_model() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    writer.fail(Path::new("/broken"), stamp(1), "it ends too early").unwrap();
    writer.commit().unwrap();
    writer.add(photo("/a", 1), features(1)).unwrap();
    drop(writer);
    assert_eq!(reader(dir.path()).bound_to(), None);
    let other = ModelSpec {
        name: "tinygpt-v-stage3".to_owned(),
        fingerprint: "ffee".to_owned(),
        embedding_rows: 4,
        token_dim: 8,
        ..spec()
    };
    let texts = || -> Vec<_> {
        let entries = std::fs::read_dir(dir.path().join("text")).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    };
    let before = texts();
    drop(IndexWriter::open(dir.path(), &other).unwrap());
    assert_eq!(*reader(dir.path()).spec(), other);
    // Whoever still has the old manifest does not take the new text for that of the old model.
    assert!(texts().len() == 1 && texts() != before, "{:?}", texts());
    let moved = texts();
    drop(IndexWriter::open(dir.path(), &other).unwrap());
    assert_eq!(texts(), moved, "which happens once");
    let mut writer = IndexWriter::open_existing(dir.path()).unwrap();
    writer.add(photo("/a", 1), common::features_of(&other, 1)).unwrap();
    writer.commit().unwrap();
    assert_eq!((writer.counts().photos, writer.counts().failed), (1, 1));
    drop(writer);
    assert_eq!(reader(dir.path()).bound_to(), Some(&other));
    assert_eq!(common::problems(dir.path()), [""; 0]);
    let error = IndexWriter::open(dir.path(), &spec()).unwrap_err();
    assert!(matches!(error, OpenError::OtherModel { .. }), "{error}");
}

#[test]
fn a_second_writer_is_refused_with_the_holder_and_not_after_the_first_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let error = IndexWriter::open(dir.path(), &spec()).unwrap_err();
    match &error {
        OpenError::Locked { holder, .. } => {
            assert_eq!(*holder, format!("process {}", std::process::id()));
        }
        other => panic!("{other}"),
    }
    drop(first);
    open(dir.path());
}

#[test]
fn an_empty_index_answers_with_nothing() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let reader = reader(dir.path());
    let all = Filter::default();
    let query = features(1).embedding.row(0).to_vec();
    assert!(reader.by_vector(&query, &all, 5).unwrap().is_empty());
    let words = [tinyfind_index::Term::Word("dog".to_owned())];
    assert!(reader.by_words(&words, &all, 5).unwrap().is_empty());
    assert!(reader.by_filter(&all, 5).unwrap().is_empty());
    assert!(reader.failures().unwrap().is_empty());
    let nobody = tinyfind_index::DocId(0);
    assert_eq!(reader.photo(nobody).unwrap(), None);
    assert!(matches!(reader.embedding(nobody), Err(SearchError::UnknownDoc { .. })));
    assert!(reader.check().unwrap().is_sound());
}

#[test]
fn a_writer_reads_captions_and_metadata_back_before_they_are_committed() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    let mut new = photo("/photos/a.jpg", 1);
    new.metadata.file_bytes = Some(7);
    let doc = writer.add(new.clone(), features(1)).unwrap();
    assert_eq!(writer.caption(doc).unwrap(), None);
    assert_eq!(writer.metadata(doc).unwrap(), new.metadata);
    let copy = writer.add_copy(photo("/photos/b.jpg", 1), doc).unwrap();
    writer.set_caption(copy, "a dog").unwrap();
    assert_eq!(writer.caption(doc).unwrap().as_deref(), Some("a dog"));
    writer.remove("/photos/a.jpg".as_ref()).unwrap();
    assert!(matches!(writer.caption(doc), Err(WriteError::UnknownDoc { .. })));
    assert!(matches!(writer.metadata(doc), Err(WriteError::UnknownDoc { .. })));
    assert_eq!(writer.caption(copy).unwrap().as_deref(), Some("a dog"));
}
