//! `check` finds what is wrong, changes nothing, and `restore` needs neither model nor photos.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic as they may")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::model::{Model, Operation, every_kind_of_file};
use common::{copy, features, files_of, photo, spec};
use tinyfind_index::{CatalogCheck, IndexReader, IndexWriter, OpenError, check};

/// The files of text, segments and manifest with what is in them.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = files_of(&dir.join("text"));
    files.extend(files_of(&dir.join("segments")));
    files.push(dir.join("manifest.json"));
    files.into_iter().map(|file| (file.clone(), fs::read(file).unwrap())).collect()
}

#[test]
fn a_sound_index_is_checked_to_its_end_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let model = every_kind_of_file(dir.path());
    let before = contents(dir.path());
    let checked = check(dir.path()).unwrap();
    assert_eq!(checked.problems, [""; 0]);
    let seen = checked.seen.unwrap();
    assert_eq!((seen.generation, seen.counts.photos, seen.contents), (2, 4, 3));
    let expected = CatalogCheck::Checked { paths: 5, contents: 3, is_ahead: false };
    assert_eq!(checked.catalog, expected);
    assert_eq!(contents(dir.path()), before);
    model.assert_written(&IndexWriter::open(dir.path(), &spec()).unwrap());
}

#[test]
fn an_empty_index_is_sound_and_none_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_owned(), dir.path().join("nowhere")] {
        assert!(matches!(check(&path).unwrap_err(), OpenError::Missing { .. }));
        assert!(matches!(IndexWriter::restore(&path).unwrap_err(), OpenError::Missing { .. }));
        assert!(!path.join("lock").exists(), "looking for an index makes nothing");
    }
    drop(IndexWriter::open(dir.path(), &spec()).unwrap());
    assert!(check(dir.path()).unwrap().is_sound());
}

#[test]
fn beside_a_writer_the_catalogue_is_left_out_and_the_writer_named() {
    let dir = tempfile::tempdir().unwrap();
    every_kind_of_file(dir.path());
    let writer = IndexWriter::open(dir.path(), &spec()).unwrap();
    let checked = check(dir.path()).unwrap();
    assert!(checked.is_sound() && checked.seen.is_some());
    let CatalogCheck::Skipped { reason } = checked.catalog else { panic!("{checked:?}") };
    assert!(reason.contains(&format!("process {}", std::process::id())), "{reason}");
    drop(writer);
}

#[test]
fn a_commit_that_a_killed_writer_left_is_sound_and_told() {
    let (dir, before) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    every_kind_of_file(dir.path());
    copy(&dir.path().join("text"), &before.path().join("text"));
    let mut writer = IndexWriter::open(dir.path(), &spec()).unwrap();
    writer.add(photo("/new", 9), features(9)).unwrap();
    writer.commit().unwrap();
    drop(writer);
    // As if killed before the text: the manifest is put back with it.
    copy(&before.path().join("text"), &dir.path().join("text"));
    let manifest = dir.path().join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    let (body, _) = text.rsplit_once(",\n  \"checksum\"").unwrap();
    let body = body.replace("\"generation\": 3", "\"generation\": 2");
    let checksum = blake3::hash(body.as_bytes()).to_hex();
    fs::write(&manifest, format!("{body},\n  \"checksum\": \"{checksum}\"\n}}\n")).unwrap();
    let checked = check(dir.path()).unwrap();
    assert!(checked.is_sound(), "{:?}", checked.problems);
    assert!(matches!(checked.catalog, CatalogCheck::Checked { is_ahead: true, .. }));
    drop(IndexWriter::open(dir.path(), &spec()).unwrap());
    let checked = check(dir.path()).unwrap();
    assert!(matches!(checked.catalog, CatalogCheck::Checked { is_ahead: false, paths: 6, .. }));
}

#[test]
fn a_text_that_says_otherwise_than_the_catalogue_is_found_and_mended() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let operations = [
        Operation::Add { path: 0, content: 0 },
        Operation::Add { path: 1, content: 1 },
        Operation::Fail { path: 2 },
    ];
    for (dir, more) in [(ours.path(), 3), (theirs.path(), 4)] {
        let mut writer = IndexWriter::open(dir, &spec()).unwrap();
        let mut model = Model::default();
        for operation in operations.iter().chain([&Operation::Fail { path: more }]) {
            model.apply(operation, Some(&mut writer));
        }
        let doc = writer.lookup(&common::model::path(1)).unwrap().unwrap();
        let tinyfind_index::FileState::Indexed { doc, .. } = doc.state else { panic!() };
        writer.set_caption(doc, &format!("caption {more}")).unwrap();
        writer.commit().unwrap();
    }
    // Whole in itself, and of the same generation.
    copy(&theirs.path().join("text"), &ours.path().join("text"));
    assert!(IndexReader::open(ours.path()).unwrap().check().unwrap().is_sound());
    let problems = check(ours.path()).unwrap().problems;
    // The caption, and both failures.
    assert_eq!(problems.len(), 3, "{problems:#?}");
    for problem in &problems {
        assert!(problem.contains("/text`") && problem.contains("--rebuild"), "{problem}");
    }
    drop(IndexWriter::restore(ours.path()).unwrap());
    assert_eq!(check(ours.path()).unwrap().problems, [""; 0]);
}

#[test]
fn restoring_needs_no_model_and_goes_on_where_text_and_manifest_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let model = every_kind_of_file(dir.path());
    let restore = |what: &str| {
        let writer = IndexWriter::restore(dir.path()).unwrap();
        model.assert_written(&writer);
        drop(writer);
        let reader = IndexReader::open(dir.path()).unwrap();
        assert_eq!(reader.spec(), &spec(), "{what}");
        model.assert_read(&reader);
        assert!(check(dir.path()).unwrap().is_sound(), "{what}");
    };
    restore("a sound index");
    fs::remove_dir_all(dir.path().join("text")).unwrap();
    assert!(!check(dir.path()).unwrap().is_sound());
    restore("no text");
    fs::remove_file(dir.path().join("manifest.json")).unwrap();
    assert!(!check(dir.path()).unwrap().is_sound());
    restore("no manifest");
    fs::write(dir.path().join("manifest.json"), "{}").unwrap();
    fs::write(dir.path().join("text/7"), "no folder").unwrap();
    restore("a broken manifest");
}
