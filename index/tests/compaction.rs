//! Space that comes back when photos go.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic as they may")]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use common::{features, files_of, photo, problems, spec};
use tinyfind_index::{Filter, IndexReader, IndexWriter, check};

/// Two segments of 4,096 records and some more.
const PHOTOS: u64 = 10_000;

/// Bytes that the files of the segments take on the disk.
fn used(dir: &Path) -> u64 {
    let files = files_of(&dir.join("segments"));
    files.iter().map(|file| fs::metadata(file).unwrap().blocks() * 512).sum()
}

/// Photos that remain, of those of the first segment few, of the second half, of the last most.
fn stays(content: u64) -> bool {
    match content {
        0..4096 => content.is_multiple_of(100),
        4096..8192 => content.is_multiple_of(2),
        _ => !content.is_multiple_of(5),
    }
}

#[test]
fn an_index_takes_as_much_room_as_what_is_left_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = IndexWriter::open(dir.path(), &spec()).unwrap();
    for content in 0..PHOTOS {
        writer.add(photo(format!("/{content}.jpg"), content), features(content)).unwrap();
    }
    writer.commit().unwrap();
    for content in (0..PHOTOS).filter(|content| !stays(*content)) {
        writer.remove(format!("/{content}.jpg").as_ref()).unwrap();
    }
    writer.commit().unwrap();
    let before = used(dir.path());

    let left: Vec<u64> = (0..PHOTOS).filter(|content| stays(*content)).collect();
    let share = left.len() as f64 / PHOTOS as f64;
    // Half of it is the least that a run by itself gives back, one in twenty what one asked for.
    let mut after = Vec::new();
    for least in [0.5, 0.05] {
        let done = writer.compact(least, |_| true).unwrap();
        let now = used(dir.path());
        let freed = after.last().unwrap_or(&before) - now;
        assert!(freed.abs_diff(done.freed_bytes) < 100_000, "{freed} {done:?}");
        after.push(now);
    }
    let [first, second] = after[..] else { panic!("{after:?}") };
    assert!(first < before * 6 / 10, "{first} of {before}");
    assert!(second as f64 <= before as f64 * share + 100_000.0, "{second} of {before}");

    let mut reader = IndexReader::open(dir.path()).unwrap();
    assert_eq!(reader.check().unwrap().unused_records, 0);
    for bytes in [0, u64::MAX] {
        reader.compare_all_up_to(bytes);
        for content in left.iter().copied().step_by(97) {
            let query = features(content).embedding;
            let found = reader.by_vector(query.row(2), &Filter::default(), 1).unwrap();
            let found = reader.photo(found[0].0).unwrap().unwrap();
            assert_eq!(found.path, Path::new(&format!("/{content}.jpg")));
        }
    }
    drop(writer);
    assert_eq!(problems(dir.path()), [""; 0]);
    assert_eq!(check(dir.path()).unwrap().problems, [""; 0]);
}
