//! Readers beside a writer: each sees one generation, whatever happens meanwhile.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic as they may")]

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

use common::{features, photo, spec, stamp};
use tinyfind_index::{Counts, DocId, Filter, IndexReader, IndexWriter, OpenError, Term};

/// Names the folder of the index to the process that writes.
const FOLDER: &str = "TINYFIND_TOGETHER_TEST_FOLDER";

/// Commits until `enough`: generation `g` holds `3 g` photos, the first `g` of them captioned,
/// and one failure, whose reason is new each time.
fn write(dir: &Path, mut enough: impl FnMut(u64) -> bool) {
    let mut writer = IndexWriter::open(dir, &spec()).unwrap();
    let mut generation = writer.commit().unwrap();
    while !enough(generation) {
        let next = generation + 1;
        for i in 0..3 {
            let content = 3 * generation + i;
            writer.add(photo(format!("/p/{content}.jpg"), content), features(content)).unwrap();
        }
        writer.set_caption(DocId(generation), &format!("caption {generation}")).unwrap();
        writer.fail("/broken".as_ref(), stamp(1), &format!("try {next}")).unwrap();
        generation = writer.commit().unwrap();
        assert_eq!(generation, next);
    }
}

/// Compares all that `reader` says with what its generation holds.
fn assert_whole(reader: &IndexReader) {
    let generation = reader.generation();
    let (photos, failed) = (3 * generation, u64::from(generation > 0));
    assert_eq!(reader.counts(), Counts { photos, captioned: generation, failed });
    assert_eq!(reader.by_filter(&Filter::default(), usize::MAX).unwrap().len() as u64, photos);
    let captions = [Term::Word("caption".to_owned())];
    let captioned = reader.by_words(&captions, &Filter::default(), usize::MAX).unwrap();
    assert_eq!(captioned.len() as u64, generation);
    let query = features(0).embedding.row(0).to_vec();
    let near = reader.by_vector(&query, &Filter::default(), usize::MAX).unwrap();
    assert_eq!(near.len() as u64, photos);
    if generation > 0 {
        assert_eq!(reader.failures().unwrap()[0].reason, format!("try {generation}"));
        let last = DocId(photos - 1);
        let expected = features(photos - 1).visual_tokens.values[0];
        assert!((reader.visual_tokens(last).unwrap().values[0] - expected).abs() < 0.01);
        assert_eq!(reader.photo(DocId(photos)).unwrap(), None);
    }
}

/// Opens readers until `enough` generations were seen; the first reader stays open.
fn read(dir: &Path, enough: u64) {
    let mut first: Option<IndexReader> = None;
    let (mut last, mut seen) = (0, 0);
    let started = Instant::now();
    while seen < enough {
        assert!(started.elapsed() < Duration::from_secs(60), "{seen} generations seen");
        match IndexReader::open(dir) {
            Ok(reader) => {
                assert_whole(&reader);
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
    assert_whole(&first);
    assert_eq!(IndexReader::open(dir).unwrap().check().unwrap().problems, [""; 0]);
}

#[test]
fn readers_see_whole_generations_while_a_thread_writes() {
    let dir = tempfile::tempdir().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| write(dir.path(), |_| done.load(Ordering::Relaxed)));
        let readers: Vec<_> = (0..2).map(|_| scope.spawn(|| read(dir.path(), 12))).collect();
        let results: Vec<_> = readers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        assert!(results.into_iter().all(|result| result.is_ok()));
    });
}

/// Writes until killed when the folder is named, else a little, so that it is a test as well.
#[test]
fn the_other_process_writes_whole_generations() {
    if let Some(folder) = env::var_os(FOLDER) {
        return write(folder.as_ref(), |_| false);
    }
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), |generation| generation == 4);
    let reader = IndexReader::open(dir.path()).unwrap();
    assert_eq!(reader.generation(), 4);
    assert_whole(&reader);
}

/// A process that is killed with the test.
struct OtherProcess(Child);

impl OtherProcess {
    fn write(dir: &Path) -> Self {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "the_other_process_writes_whole_generations"])
            .env(FOLDER, dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
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
    let mut writer = OtherProcess::write(dir.path());
    read(dir.path(), 12);
    let error = IndexWriter::open(dir.path(), &spec()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&format!("process {}", writer.0.id())), "{text}");

    // A killed writer blocks nobody.
    writer.0.kill().unwrap();
    writer.0.wait().unwrap();
    let writer = IndexWriter::open(dir.path(), &spec()).unwrap();
    drop(writer);
    assert_whole(&IndexReader::open(dir.path()).unwrap());
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
                assert_whole(&reader);
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
