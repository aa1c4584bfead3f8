//! Damage as a writer meets it: to the catalogue, which only it reads, to the lock, and to all
//! the other files.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic as they may")]

mod common;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use common::model::{Model, every_kind_of_file};
use common::{copy, files_of, folder, spec};
use tinyfind_index::{IndexReader, IndexWriter, OpenError, WriteError, check};

/// Flips and cuts a file; most of the flips where there is something.
fn damages(whole: &[u8], flips: usize) -> Vec<(String, Vec<u8>)> {
    let len = whole.len();
    let mut damages: Vec<(String, Vec<u8>)> = [0, 1, len / 4, len / 2, len.saturating_sub(1)]
        .into_iter()
        .filter(|at| *at < len)
        .map(|at| (format!("cut at {at}"), whole[..at].to_vec()))
        .collect();
    let filled: Vec<usize> = (0..len).filter(|at| whole[*at] != 0).collect();
    let steps = (filled.len() / flips).max(1);
    let anywhere = (0..len).step_by((len / 8).max(1));
    for at in filled.into_iter().step_by(steps).chain(anywhere) {
        let mut flipped = whole.to_vec();
        flipped[at] ^= 1 << (at % 8);
        damages.push((format!("bit {} of byte {at}", at % 8), flipped));
    }
    damages
}

/// Flips a file of the catalogue, which no other test damages, and of the others.
const FLIPS: [usize; 2] = [150, 12];

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

/// Damages `file` of a copy of the index in `sound`, and has it checked, written and checked.
/// Returns how often it was refused, of how many times; and what was wrong.
fn damage(sound: &Path, file: &Path, model: &Model) -> (usize, usize, Vec<String>) {
    let inside = file.strip_prefix(sound).unwrap();
    let is_catalog = inside.starts_with("catalog");
    let damages = damages(&fs::read(file).unwrap(), FLIPS[usize::from(!is_catalog)]);
    let (tried, mut refused, mut wrong) = (damages.len(), 0, Vec::new());
    for (what, bytes) in damages {
        let dir = folder();
        copy(sound, dir.path());
        fs::write(dir.path().join(inside), bytes).unwrap();
        let done = catch_unwind(AssertUnwindSafe(|| {
            let is_found = !check(dir.path()).unwrap().is_sound();
            let done = work(dir.path(), model);
            let is_sound = check(dir.path()).unwrap().is_sound();
            (is_found, done, is_sound)
        }));
        let what = format!("{}: {what}", inside.display());
        match done {
            Err(panic) => wrong.push(format!("{what}: a panic: {}", text_of(&*panic))),
            Ok((is_found, Err((path, text)), _)) => {
                refused += 1;
                let part = dir.path().join(inside.components().next().unwrap());
                if !path.starts_with(part) || !is_found {
                    wrong.push(format!("{what}: found by the check: {is_found}, {text}"));
                }
            }
            // It was mended, or is of a record that the writer did not come across.
            Ok((is_found, Ok(()), is_sound)) if is_found || is_sound => {}
            Ok(_) => wrong.push(format!("{what}: found too late")),
        }
        if is_catalog && let Err(error) = IndexReader::open(dir.path()) {
            wrong.push(format!("{what}: no search: {error}"));
        }
    }
    (refused, tried, wrong)
}

#[test]
fn damage_is_refused_or_mended_or_does_not_matter() {
    let sound = folder();
    let model = every_kind_of_file(sound.path());
    let files = files_of(sound.path());
    let (mut refused, mut tried, mut wrong) = (0, 0, Vec::new());
    for file in &files {
        let found = damage(sound.path(), file, &model);
        (refused, tried) = (refused + found.0, tried + found.1);
        wrong.extend(found.2);
    }
    println!("{tried} damages to {} files, {refused} refused", files.len());
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
