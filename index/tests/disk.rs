//! A disk that is full, a file that may not grow, a folder that may not be written: an error that
//! names the file, an index that can be searched, and a run that goes on once there is room.
//!
//! The test starts itself again in a place like that.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic as they may")]
#![allow(clippy::print_stdout, reason = "a helper of tests may print as they may")]

mod common;

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

use common::growing::{assert_grown, grow, open};
use common::spec;
use tinyfind_index::{CatalogCheck, IndexReader, IndexWriter, ModelSpec, OpenError, check};

/// Names the folder to the process that meets the end of the disk.
const FOLDER: &str = "TINYFIND_DISK_TEST_FOLDER";
/// What it does there.
const TASK: &str = "TINYFIND_DISK_TEST_TASK";

/// Bytes that are made free again.
const BALLAST: u64 = 3 << 20;

/// A model with records of 33 kB, which soon fill a disk.
fn wide() -> ModelSpec {
    ModelSpec { embedding_rows: 32, embedding_dim: 256, token_rows: 32, token_dim: 768, ..spec() }
}

/// Does its task where one is named, else fills nothing, so that it is a test as well.
#[test]
fn the_other_process_does_its_task() {
    let task = env::var(TASK).unwrap_or_default();
    let dir = env::var_os(FOLDER).map(PathBuf::from).unwrap_or_default();
    match task.as_str() {
        "fill" => drop(fill(&dir)),
        "fill and make room" => fill_and_make_room(&dir),
        "only look" => only_look(&dir),
        _ => {
            let dir = tempfile::tempdir().unwrap();
            let (mut writer, generation) = open(dir.path(), &wide()).unwrap();
            grow(&mut writer, &wide(), generation).unwrap();
            assert_grown(&IndexReader::open(dir.path()).unwrap());
        }
    }
}

/// What keeps an error from being one of a full disk that a person can mend.
fn complaint(dir: &Path, error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut chain = std::iter::successors(Some(error), |error| error.source());
    let full = [ErrorKind::StorageFull, ErrorKind::FileTooLarge, ErrorKind::QuotaExceeded];
    let is_full = chain.any(|error| {
        let io = error.downcast_ref::<std::io::Error>();
        io.is_some_and(|error| full.contains(&error.kind()))
    });
    let names_folder = error.to_string().contains(&*dir.to_string_lossy());
    (!is_full || !names_folder).then(|| format!("{error}: {error:?}"))
}

/// Commits until the disk is full; returns the last commit that was acknowledged.
fn fill(dir: &Path) -> Option<u64> {
    let mut acknowledged = None;
    let opened = open(dir, &wide());
    let complaint = match opened {
        Err(error) => complaint(dir, &error),
        Ok((mut writer, generation)) => {
            acknowledged = Some(generation);
            loop {
                match grow(&mut writer, &wide(), acknowledged.unwrap_or(0)) {
                    Ok(generation) => acknowledged = Some(generation),
                    Err(error) => break complaint(dir, &error),
                }
                assert!(acknowledged < Some(400), "the disk is never full");
            }
        }
    };
    assert_eq!(complaint, None, "after {acknowledged:?}");
    assert_searchable(dir, acknowledged);
    println!("full after {acknowledged:?}");
    acknowledged
}

/// Sees what was acknowledged, or one commit more.
fn assert_searchable(dir: &Path, acknowledged: Option<u64>) {
    match IndexReader::open(dir) {
        Ok(reader) => {
            let least = acknowledged.unwrap_or(0);
            assert!((least..=least + 1).contains(&reader.generation()), "{acknowledged:?}");
            assert_grown(&reader);
            assert_eq!(reader.check().unwrap().problems, [""; 0]);
        }
        Err(OpenError::Missing { .. }) if acknowledged.is_none() => {}
        Err(error) => panic!("{error} ({error:?})"),
    }
}

/// Goes on where a full disk stopped a run.
fn go_on(dir: &Path, acknowledged: Option<u64>) {
    let (mut writer, generation) = open(dir, &wide()).unwrap();
    let least = acknowledged.unwrap_or(0);
    assert!((least..=least + 1).contains(&generation), "{generation} after {acknowledged:?}");
    grow(&mut writer, &wide(), generation).unwrap();
    drop(writer);
    assert_searchable(dir, Some(generation + 1));
    let checked = check(dir).unwrap();
    assert_eq!(checked.problems, [""; 0]);
    assert!(matches!(checked.catalog, CatalogCheck::Checked { .. }));
}

fn fill_and_make_room(dir: &Path) {
    let (index, ballast) = (dir.join("index"), dir.join("ballast"));
    fs::write(&ballast, vec![1; BALLAST as usize]).unwrap();
    let acknowledged = fill(&index);
    // Nor does another try do harm.
    let again = open(&index, &wide()).map(|(mut writer, generation)| {
        grow(&mut writer, &wide(), generation).map_err(|error| complaint(&index, &error))
    });
    match again {
        Ok(Ok(generation)) => assert_searchable(&index, Some(generation)),
        Ok(Err(complaint)) => assert_eq!(complaint, None),
        Err(error) => assert_eq!(complaint(&index, &error), None),
    }
    fs::remove_file(ballast).unwrap();
    let now = IndexReader::open(&index).map_or(acknowledged, |reader| Some(reader.generation()));
    go_on(&index, now.max(acknowledged));
}

/// Finds, checks and refuses to write.
fn only_look(dir: &Path) {
    let reader = IndexReader::open(dir).unwrap();
    assert_eq!(reader.generation(), 3);
    assert_grown(&reader);
    let checked = check(dir).unwrap();
    assert_eq!(checked.problems, [""; 0]);
    let CatalogCheck::Skipped { reason } = checked.catalog else { panic!("{checked:?}") };
    assert!(reason.contains("nothing may be written"), "{reason}");
    for error in
        [IndexWriter::open(dir, &wide()).unwrap_err(), IndexWriter::restore(dir).unwrap_err()]
    {
        assert!(matches!(error, OpenError::Io { .. }), "{error:?}");
        assert!(error.to_string().contains(&*dir.to_string_lossy()), "{error}");
    }
}

/// Runs `task` in `dir` below `shell`, which goes on with `"$@"`.
fn run(shell: &[&str], script: &str, task: &str, dir: &Path) -> Output {
    let mut words = shell.iter();
    Command::new(words.next().unwrap())
        .args(words)
        .args(["sh", "-c", script, "sh"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", "the_other_process_does_its_task", "--nocapture"])
        .env(TASK, task)
        .env(FOLDER, dir)
        .output()
        .unwrap()
}

/// How this user can mount something that goes with its process, if at all.
fn mounting() -> Option<&'static [&'static str]> {
    let ways: [&'static [&'static str]; 2] = [&["unshare", "-m"], &["unshare", "-r", "-m"]];
    let dir = tempfile::tempdir().unwrap();
    ways.into_iter().find(|way| {
        let mut command = Command::new(way[0]);
        command.args(&way[1..]).args(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs"]);
        command.arg(dir.path()).output().is_ok_and(|output| output.status.success())
    })
}

fn assert_done(output: &Output, what: &str) {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{what}:\n{out}\n{err}");
    for line in out.lines().filter(|line| line.starts_with("full after")) {
        println!("{what}: {line}");
    }
}

#[test]
fn a_full_disk_is_told_and_loses_nothing() {
    let Some(mounting) = mounting() else {
        println!("not tested: a small disk of its own, which this user may not mount");
        return;
    };
    for size in (100..2600).step_by(180) {
        let dir = tempfile::tempdir().unwrap();
        let bytes = (size << 10) + BALLAST;
        let script = format!("mount -t tmpfs -o size={bytes} tmpfs \"${FOLDER}\" && exec \"$@\"");
        let output = run(mounting, &script, "fill and make room", dir.path());
        assert_done(&output, &format!("{size} kB"));
    }
}

#[test]
fn a_file_that_may_not_grow_is_told_and_loses_nothing() {
    // Needs no rights: a limit of the process, in blocks of 512 bytes.
    for blocks in [0, 1, 8, 40, 200, 500, 1030, 1500, 2060, 3000] {
        let dir = tempfile::tempdir().unwrap();
        let index = dir.path().join("index");
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
        let output = run(&["env"], &script, "fill", &index);
        assert_done(&output, &format!("{blocks} blocks"));
        let out = String::from_utf8_lossy(&output.stdout);
        let (_, acknowledged) = out.split_once("full after ").unwrap();
        let number = acknowledged.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
        go_on(&index, number.map(|(number, _)| number.parse().unwrap()));
    }
}

#[test]
fn a_folder_that_may_only_be_read_is_searched_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut generation) = open(dir.path(), &wide()).unwrap();
    while generation < 3 {
        generation = grow(&mut writer, &wide(), generation).unwrap();
    }
    drop(writer);
    let set = |mode| {
        let folders = ["", "text", "text/1", "segments", "catalog"];
        for folder in folders.map(|folder| dir.path().join(folder)) {
            fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
        }
        for file in common::files_of(dir.path()) {
            fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    set(0o555);
    let may_write = fs::write(dir.path().join("probe"), "").is_ok();
    if may_write {
        fs::remove_file(dir.path().join("probe")).unwrap();
        // Nothing is forbidden to an administrator but by the disk.
        match mounting() {
            Some(mounting) => {
                let script = format!(
                    "mount --bind \"${FOLDER}\" \"${FOLDER}\" && \
                     mount -o remount,bind,ro \"${FOLDER}\" && exec \"$@\""
                );
                let output = run(mounting, &script, "only look", dir.path());
                assert_done(&output, "a disk that may only be read");
            }
            None => println!("not tested: a disk that may only be read, for want of rights"),
        }
    } else {
        only_look(dir.path());
    }
    set(0o755);
}
