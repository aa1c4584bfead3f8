//! A commit that stopped between two of its steps, each step by itself.
//!
//! The steps are segments, catalogue, text, manifest. A stop is played by putting back what
//! the later steps had written.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic as they may")]

mod common;

use std::fs;
use std::path::PathBuf;

use common::model::{Model, Operation};
use common::{copy, features, photo, spec};
use tinyfind_index::{IndexReader, IndexWriter};

/// An index after a first commit, with copies of its parts, and after further ones.
struct Stopped {
    dir: tempfile::TempDir,
    copies: tempfile::TempDir,
    /// After each commit; the empty index comes first.
    models: Vec<Model>,
}

impl Stopped {
    fn after(commits: &[&[Operation]]) -> Self {
        let (dir, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut models = vec![Model::default()];
        for (generation, operations) in (1..).zip(commits) {
            let mut writer = IndexWriter::open(dir.path(), &spec()).unwrap();
            let mut model = models[models.len() - 1].clone();
            for operation in *operations {
                model.apply(operation, Some(&mut writer));
            }
            assert_eq!(writer.commit().unwrap(), generation);
            drop(writer);
            models.push(model);
            let copies = copies.path().join(generation.to_string());
            fs::create_dir(&copies).unwrap();
            for part in ["text", "manifest.json"] {
                copy(&dir.path().join(part), &copies.join(part));
            }
        }
        Self { dir, copies, models }
    }

    /// Puts a part back to what it was after commit `generation`.
    fn put_back(&self, part: &str, generation: usize) {
        let copy_of_part = self.copies.path().join(generation.to_string()).join(part);
        copy(&copy_of_part, &self.dir.path().join(part));
    }

    fn assert_read(&self, generation: usize) {
        let reader = IndexReader::open(self.dir.path()).unwrap();
        assert_eq!(reader.generation(), generation as u64);
        self.models[generation].assert_read(&reader);
    }

    fn assert_recovered(&self, generation: usize) {
        let writer = IndexWriter::open(self.dir.path(), &spec()).unwrap();
        self.models[generation].assert_written(&writer);
        drop(writer);
        self.assert_read(generation);
    }

    fn text_epochs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir.path().join("text")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

const FIRST: &[Operation] = &[
    Operation::Add { path: 0, content: 0 },
    Operation::Add { path: 1, content: 1 },
    Operation::Add { path: 2, content: 2 },
    Operation::Caption { path: 2 },
];
const SECOND: &[Operation] = &[
    Operation::Caption { path: 1 },
    Operation::AddCopy { path: 5, of: 1 },
    Operation::Rename { from: 2, to: 7 },
    Operation::Remove { path: 0 },
    Operation::Fail { path: 3 },
];
const THIRD: &[Operation] = &[
    Operation::Add { path: 0, content: 3 },
    Operation::Touch { path: 7 },
    Operation::Remove { path: 3 },
];

#[test]
fn a_stop_before_the_manifest_keeps_the_new_generation() {
    let stopped = Stopped::after(&[FIRST, SECOND]);
    stopped.put_back("manifest.json", 1);
    stopped.assert_read(2);
    stopped.assert_recovered(2);
    let manifest = fs::read(stopped.dir.path().join("manifest.json")).unwrap();
    assert_eq!(manifest, fs::read(stopped.copies.path().join("2/manifest.json")).unwrap());
}

#[test]
fn a_stop_before_the_text_shows_the_old_generation_and_recovers_the_new() {
    let stopped = Stopped::after(&[FIRST, SECOND]);
    let epochs = stopped.text_epochs();
    stopped.put_back("manifest.json", 1);
    stopped.put_back("text", 1);
    stopped.assert_read(1);
    stopped.assert_recovered(2);
    assert_eq!(stopped.text_epochs(), epochs, "one commit is replayed, not all of them");
}

#[test]
fn a_text_further_behind_is_written_anew() {
    let stopped = Stopped::after(&[FIRST, SECOND, THIRD]);
    let epochs = stopped.text_epochs();
    stopped.put_back("text", 1);
    // The manifest names commits that the text lacks: a reader would miss them.
    let error = IndexReader::open(stopped.dir.path()).unwrap_err();
    assert!(error.to_string().contains("commit 1, the manifest names 3"), "{error}");
    stopped.assert_recovered(3);
    assert_ne!(stopped.text_epochs(), epochs);
}

#[test]
fn a_stop_before_the_catalogue_leaves_nothing() {
    let stopped = Stopped::after(&[FIRST]);
    let segments = stopped.dir.path().join("segments");
    let sizes = || -> Vec<u64> {
        ["0.vectors.seg", "0.tokens.seg"]
            .iter()
            .map(|name| fs::metadata(segments.join(name)).unwrap().len())
            .collect()
    };
    let before = sizes();
    let mut writer = IndexWriter::open(stopped.dir.path(), &spec()).unwrap();
    for content in 100..110 {
        writer.add(photo(format!("/new/{content}"), content), features(content)).unwrap();
    }
    assert!(sizes() > before, "records are written before the commit");
    drop(writer);
    stopped.assert_read(1);
    stopped.assert_recovered(1);
    assert_eq!(sizes(), before, "records that no commit names are cut off");
}

#[test]
fn files_of_a_stopped_commit_do_not_block_the_next() {
    // The second commit deletes one document of four, so it writes a file whose name the same
    // commit will need again.
    let first: Vec<Operation> = (0..4).map(|path| Operation::Add { path, content: path }).collect();
    let stopped = Stopped::after(&[&first, &[Operation::Caption { path: 1 }]]);
    let text = stopped.text_epochs().remove(0);
    let has = |extension: &str| {
        let mut entries = fs::read_dir(&text).unwrap();
        entries.any(|entry| entry.unwrap().path().extension().is_some_and(|e| e == extension))
    };
    assert!(has("del"));
    let before = stopped.copies.path().join("1/text").join(text.file_name().unwrap());
    fs::copy(before.join("meta.json"), text.join("meta.json")).unwrap();
    fs::write(text.join("meta.json.new"), "{").unwrap();
    stopped.put_back("manifest.json", 1);
    stopped.assert_read(1);
    stopped.assert_recovered(2);
    assert!(text.exists(), "one commit is replayed, not all of them");
    assert!(has("del") && !has("new"));
}

#[test]
fn a_stop_before_the_first_commit_leaves_nothing() {
    let stopped = Stopped::after(&[]);
    for _ in 0..2 {
        let mut writer = IndexWriter::open(stopped.dir.path(), &spec()).unwrap();
        let segments = stopped.dir.path().join("segments");
        assert_eq!(fs::read_dir(&segments).unwrap().count(), 0);
        writer.add(photo("/new", 1), features(1)).unwrap();
        drop(writer);
        assert_eq!(fs::read_dir(&segments).unwrap().count(), 2);
        stopped.assert_read(0);
    }
    stopped.assert_recovered(0);
}

#[test]
fn a_rebuild_that_stopped_is_no_obstacle() {
    let stopped = Stopped::after(&[FIRST, SECOND]);
    let next = stopped.dir.path().join("text/999");
    fs::create_dir(&next).unwrap();
    fs::write(next.join("meta.json"), "{").unwrap();
    stopped.assert_read(2);
    stopped.assert_recovered(2);
    assert_eq!(stopped.text_epochs().len(), 1);
    // Not even when it is all that is left to go by.
    fs::create_dir(&next).unwrap();
    fs::remove_file(stopped.dir.path().join("manifest.json")).unwrap();
    stopped.assert_recovered(2);
}
