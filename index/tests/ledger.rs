//! Damage to what only a writer reads: the files of the catalogue, and the lock.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic as they may")]

mod common;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use common::model::{Model, every_kind_of_file};
use common::{copy, files_of, folder, spec};
use tinyfind_index::{CatalogCheck, IndexReader, IndexWriter, OpenError, WriteError, check};

/// Flips and cuts a file; most of the flips where there is something.
fn damages(whole: &[u8]) -> Vec<(String, Vec<u8>)> {
    let len = whole.len();
    let mut damages: Vec<(String, Vec<u8>)> = [0, 1, len / 4, len / 2, len.saturating_sub(1)]
        .into_iter()
        .map(|at| (format!("cut at {at}"), whole[..at].to_vec()))
        .collect();
    let filled: Vec<usize> = (0..len).filter(|at| whole[*at] != 0).collect();
    let steps = (filled.len() / FLIPS).max(1);
    let anywhere = (0..len).step_by((len / 8).max(1));
    for at in filled.into_iter().step_by(steps).chain(anywhere) {
        let mut flipped = whole.to_vec();
        flipped[at] ^= 1 << (at % 8);
        damages.push((format!("bit {} of byte {at}", at % 8), flipped));
    }
    damages
}

/// Flips a file.
const FLIPS: usize = 150;

/// What came of opening a damaged index for writing and doing all that a run does.
fn work(dir: &Path, model: &Model) -> Result<(), (PathBuf, String)> {
    let open_error = |error: OpenError| match &error {
        OpenError::Corrupt { path, .. } | OpenError::Io { path, .. } => {
            (path.clone(), error.to_string())
        }
        other => panic!("{other:?}"),
    };
    let write_error = |error: WriteError| match &error {
        WriteError::Corrupt { path, .. } | WriteError::Io { path, .. } => {
            (path.clone(), error.to_string())
        }
        other => panic!("{other:?}"),
    };
    let mut writer = IndexWriter::open(dir, &spec()).map_err(open_error)?;
    for entry in writer.files() {
        entry.map_err(write_error)?;
    }
    writer.uncaptioned(10).map_err(write_error)?;
    // Nothing is missing and nothing is other than it was.
    model.assert_written(&writer);
    let photo = common::photo("/new.jpg", 77);
    writer.add(photo, common::features(77)).map_err(write_error)?;
    writer.commit().map_err(write_error)?;
    Ok(())
}

#[test]
fn a_damaged_catalogue_gives_an_error_or_does_not_matter() {
    let sound = folder();
    let model = every_kind_of_file(sound.path());
    let (mut tried, mut refused, mut wrong) = (0, 0, Vec::new());
    for file in files_of(&sound.path().join("catalog")) {
        let inside = file.strip_prefix(sound.path()).unwrap();
        for (what, bytes) in damages(&fs::read(&file).unwrap()) {
            let dir = folder();
            copy(sound.path(), dir.path());
            fs::write(dir.path().join(inside), bytes).unwrap();
            let what = format!("{}: {what}", inside.display());
            tried += 1;
            let done = catch_unwind(AssertUnwindSafe(|| {
                let checked = check(dir.path()).unwrap();
                let is_found = checked.catalog == CatalogCheck::Damaged || !checked.is_sound();
                (is_found, work(dir.path(), &model))
            }));
            match done {
                Ok((is_found, Err((path, text)))) => {
                    refused += 1;
                    if !path.starts_with(dir.path().join("catalog")) || !is_found {
                        wrong.push(format!("{what}: found by the check: {is_found}, {text}"));
                    }
                }
                Ok((_, Ok(()))) => {}
                Err(panic) => wrong.push(format!("{what}: a panic: {:?}", text_of(&*panic))),
            }
            // Whatever became of the writer, searches go on.
            if let Err(error) = IndexReader::open(dir.path()) {
                wrong.push(format!("{what}: no search: {error}"));
            }
        }
    }
    println!("{tried} damages, {refused} refused");
    assert!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(refused > 20, "{refused} of {tried} were refused");
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

#[test]
fn whatever_the_lock_holds_is_no_obstacle() {
    let dir = folder();
    let model = every_kind_of_file(dir.path());
    for content in [&b""[..], b"process 1", b"\xff\xfe\x00", &[b'x'; 5000]] {
        fs::write(dir.path().join("lock"), content).unwrap();
        assert!(check(dir.path()).unwrap().is_sound());
        model.assert_written(&IndexWriter::open(dir.path(), &spec()).unwrap());
    }
    fs::remove_file(dir.path().join("lock")).unwrap();
    model.assert_written(&IndexWriter::open(dir.path(), &spec()).unwrap());
    // A folder in its place cannot be locked.
    fs::remove_file(dir.path().join("lock")).unwrap();
    fs::create_dir(dir.path().join("lock")).unwrap();
    let error = IndexWriter::open(dir.path(), &spec()).unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
    assert!(error.to_string().contains("/lock`"), "{error}");
}
