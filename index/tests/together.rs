//! Readers beside a writer: each sees one generation, whatever happens meanwhile.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic as they may")]

mod common;

use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

use common::growing::{assert_grown, grow, open};
use common::{features, photo, spec};
use tinyfind_index::{Filter, IndexReader, IndexWriter, OpenError};

/// Names the folder of the index to the process that writes.
const FOLDER: &str = "TINYFIND_TOGETHER_TEST_FOLDER";

/// What the other process does there.
const TASK: &str = "TINYFIND_TOGETHER_TEST_TASK";

/// Commits until `enough`.
fn write(dir: &Path, mut enough: impl FnMut(u64) -> bool) {
    let (mut writer, mut generation) = open(dir, &spec()).unwrap();
    while !enough(generation) {
        generation = grow(&mut writer, &spec(), generation).unwrap();
    }
}

/// Photos of an index that is compacted again and again.
const KEPT: u64 = 12;

/// Gives half of the photos another content and the space of the old ones back, until `enough`.
fn compact(dir: &Path, mut enough: impl FnMut(u64) -> bool) {
    let (mut writer, mut generation) = open(dir, &spec()).unwrap();
    while !enough(generation) {
        // All of them to begin with, then those with an even and an odd number in turn.
        let (first, step) = if generation == 0 { (0, 1) } else { (generation / 2 % 2, 2) };
        for number in (first..KEPT).step_by(step) {
            let content = generation * KEPT + number;
            writer.add(photo(format!("/p/{number}.jpg"), content), features(content)).unwrap();
        }
        writer.commit().unwrap();
        let done = writer.compact(0.1, |_| true).unwrap();
        assert_eq!((done.found, done.segments), (u64::from(generation > 0), done.found));
        generation = writer.commit().unwrap();
    }
}

/// Compares all that `reader` says with what every generation of such an index holds.
fn assert_compacted(reader: &IndexReader) {
    let photos = if reader.generation() == 0 { 0 } else { KEPT };
    assert_eq!(reader.counts().photos, photos);
    let query = features(0).embedding.row(0).to_vec();
    let near = reader.by_vector(&query, &Filter::default(), usize::MAX).unwrap();
    assert_eq!(near.len() as u64, photos);
    // Each record is that of the content that the photo has.
    assert_eq!(reader.check().unwrap().problems, [""; 0]);
}

/// Opens readers until `enough` generations were seen, each of which `assert` looks at; the first
/// reader stays open.
fn read(dir: &Path, enough: u64, assert: fn(&IndexReader)) {
    let mut first: Option<IndexReader> = None;
    let (mut last, mut seen) = (0, 0);
    let started = Instant::now();
    while seen < enough {
        assert!(started.elapsed() < Duration::from_secs(60), "{seen} generations seen");
        match IndexReader::open(dir) {
            Ok(reader) => {
                assert(&reader);
                assert!(reader.generation() >= last, "a generation was taken back");
                seen += u64::from(reader.generation() > last);
                last = reader.generation();
                first.get_or_insert(reader);
            }
            // Before the writer has made it.
            Err(OpenError::Missing { .. }) if last == 0 => thread::sleep(Duration::from_millis(1)),
            Err(error) => panic!("{error}: {error:?}"),
        }
    }
    let first = first.unwrap();
    assert!(first.generation() < last);
    assert(&first);
    assert_eq!(IndexReader::open(dir).unwrap().check().unwrap().problems, [""; 0]);
}

#[test]
fn readers_see_whole_generations_while_a_thread_writes() {
    let dir = tempfile::tempdir().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| write(dir.path(), |_| done.load(Ordering::Relaxed)));
        let readers: Vec<_> =
            (0..2).map(|_| scope.spawn(|| read(dir.path(), 12, assert_grown))).collect();
        let results: Vec<_> = readers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        assert!(results.into_iter().all(|result| result.is_ok()));
    });
}

/// Does its task where one is named, else writes a little, so that it is a test as well.
#[test]
fn the_other_process_writes_whole_generations() {
    if let (Some(folder), Ok(task)) = (env::var_os(FOLDER), env::var(TASK)) {
        let dir = Path::new(&folder);
        return match task.as_str() {
            "read" => read(dir, 8, assert_grown),
            "read what is compacted" => read(dir, 8, assert_compacted),
            "write" => write(dir, |_| false),
            "compact" => compact(dir, |_| false),
            // Every generation by another writer, and every fourth in a text written anew.
            _ => loop {
                let (mut writer, generation) = open(dir, &spec()).unwrap();
                grow(&mut writer, &spec(), generation).unwrap();
                drop(writer);
                if generation % 4 == 3 {
                    drop(IndexWriter::restore(dir).unwrap());
                }
            },
        };
    }
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), |generation| generation == 4);
    let reader = IndexReader::open(dir.path()).unwrap();
    assert_eq!(reader.generation(), 4);
    assert_grown(&reader);
}

/// A process that is killed with the test.
struct OtherProcess(Child);

impl OtherProcess {
    fn start(task: &str, dir: &Path) -> Self {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "the_other_process_writes_whole_generations", "--nocapture"])
            .env(FOLDER, dir)
            .env(TASK, task)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }

    /// Waits for its end, which must be a good one.
    fn join(mut self) {
        let mut told = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        assert!(self.0.wait().unwrap().success(), "{told}");
    }
}

impl Drop for OtherProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn readers_see_whole_generations_while_another_process_writes() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = OtherProcess::start("write", dir.path());
    read(dir.path(), 12, assert_grown);
    let error = IndexWriter::open(dir.path(), &spec()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&format!("process {}", writer.0.id())), "{text}");

    // A killed writer blocks nobody.
    writer.0.kill().unwrap();
    writer.0.wait().unwrap();
    let writer = IndexWriter::open(dir.path(), &spec()).unwrap();
    drop(writer);
    assert_grown(&IndexReader::open(dir.path()).unwrap());
}

#[test]
fn readers_see_whole_generations_while_the_text_is_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), |generation| generation == 5);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut opened = 0;
            while !done.load(Ordering::Relaxed) || opened == 0 {
                let reader = IndexReader::open(dir.path()).unwrap();
                assert_eq!(reader.generation(), 5);
                assert_grown(&reader);
                opened += 1;
            }
        });
        for _ in 0..8 {
            drop(IndexWriter::rebuild(dir.path(), &spec()).unwrap());
        }
        done.store(true, Ordering::Relaxed);
        assert!(reader.join().is_ok());
    });
}

#[test]
fn readers_see_whole_generations_while_segments_are_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| compact(dir.path(), |_| done.load(Ordering::Relaxed)));
        let readers: Vec<_> =
            (0..2).map(|_| scope.spawn(|| read(dir.path(), 12, assert_compacted))).collect();
        let results: Vec<_> = readers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        assert!(results.into_iter().all(|result| result.is_ok()));
    });
    // In another process, and two more that read.
    let dir = tempfile::tempdir().unwrap();
    let writer = OtherProcess::start("compact", dir.path());
    let readers = [0, 1].map(|_| OtherProcess::start("read what is compacted", dir.path()));
    readers.into_iter().for_each(OtherProcess::join);
    drop(writer);
    assert!(tinyfind_index::check(dir.path()).unwrap().is_sound());
}

#[test]
fn several_processes_read_whole_generations_while_others_write_and_rebuild() {
    for task in ["write", "write and rebuild"] {
        let dir = tempfile::tempdir().unwrap();
        let writer = OtherProcess::start(task, dir.path());
        let readers: Vec<_> = (0..4).map(|_| OtherProcess::start("read", dir.path())).collect();
        for reader in readers {
            reader.join();
        }
        drop(writer);
        assert!(tinyfind_index::check(dir.path()).unwrap().is_sound());
    }
}
