//! A writer killed at any moment: what it acknowledged is there, the rest is whole or absent.
//!
//! The test starts itself again as the writer and kills it with SIGKILL, as the system would.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic as they may")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{env, thread};

use common::model::{model_at, operations};
use common::{noise, spec};
use tinyfind_index::{IndexReader, IndexWriter};

/// Names the folder of the index to the process that is to be killed.
const FOLDER: &str = "TINYFIND_CRASH_TEST_FOLDER";

/// How many times a writer is killed.
const KILLS: usize = 15;

/// Commits until `limit`, and says so after each.
fn write(dir: &Path, limit: u64) {
    let mut writer = IndexWriter::open(dir, &spec()).unwrap();
    let mut generation = writer.commit().unwrap();
    let mut model = model_at(generation);
    while generation < limit {
        for operation in operations(generation + 1) {
            model.apply(&operation, Some(&mut writer));
        }
        generation = writer.commit().unwrap();
        let mut out = std::io::stdout();
        // A parent that no longer reads is about to kill this process.
        let _ = writeln!(out, "\ncommitted {generation}").and_then(|()| out.flush());
    }
}

/// Writes until killed when the folder is named, else a little, so that it is a test as well.
#[test]
fn the_writer_that_is_killed_writes_what_the_model_says() {
    if let Some(folder) = env::var_os(FOLDER) {
        return write(folder.as_ref(), u64::MAX);
    }
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 5);
    let reader = IndexReader::open(dir.path()).unwrap();
    assert_eq!(reader.generation(), 5);
    model_at(5).assert_read(&reader);
}

/// Starts a writer and kills it after `patience`; returns the last commit it acknowledged.
fn kill_a_writer(dir: &Path, patience: Duration) -> Option<u64> {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "the_writer_that_is_killed_writes_what_the_model_says", "--nocapture"])
        .env(FOLDER, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let acknowledged = thread::spawn(move || {
        let numbers = out.lines().map_while(Result::ok).filter_map(|line| {
            line.strip_prefix("committed ").and_then(|number| number.parse().ok())
        });
        numbers.last()
    });
    thread::sleep(patience);
    // SIGKILL on Unix.
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success(), "the writer ended by itself");
    acknowledged.join().unwrap()
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_half_written_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let mut last = 0;
    for (kill, random) in noise(seed, KILLS).into_iter().enumerate() {
        let patience = Duration::from_millis(250).mul_f32(0.1 + random.midpoint(1.0));
        let acknowledged = kill_a_writer(dir.path(), patience);
        last = acknowledged.unwrap_or(last);
        if acknowledged.is_none() && kill == 0 {
            // Killed before there was an index.
            IndexWriter::open(dir.path(), &spec()).unwrap();
        }

        // What a search sees before anybody has repaired anything.
        let reader = IndexReader::open(dir.path()).unwrap();
        let seen = reader.generation();
        assert!(seen == last || seen == last + 1, "{seen} after {last} (seed {seed})");
        model_at(seen).assert_read(&reader);

        let mut writer = IndexWriter::open(dir.path(), &spec()).unwrap();
        let generation = writer.commit().unwrap();
        assert!(generation == last || generation == last + 1, "seed {seed}");
        assert!(generation >= seen, "seed {seed}");
        last = generation;
        model_at(last).assert_written(&writer);
        model_at(last).assert_read(&IndexReader::open(dir.path()).unwrap());
        // The older reader still answers.
        model_at(seen).assert_read(&reader);
    }
    assert!(last > 0, "no writer lived long enough to commit");
}
