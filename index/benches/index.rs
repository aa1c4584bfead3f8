//! Times of the index at the sizes of BLIP-2 and TinyGPT-V: commits, opening, searches.
//!
//! `cargo bench -p tinyfind-index [-- PHOTOS]` prints one line a figure; PHOTOS (40000 unless
//! given) is the size of the collection that is scanned.

#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]
#![allow(clippy::print_stdout, reason = "its figures are its output")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{features_of, noise, photo, spec};
use tinyfind_index::{Clause, Filter, IndexReader, IndexWriter, ModelSpec, Term};

const WORDS: [&str; 24] = [
    "dog", "beach", "red", "umbrella", "street", "night", "woman", "child", "mountain", "snow",
    "boat", "river", "kitchen", "table", "flowers", "car", "running", "standing", "holding",
    "sunset", "people", "market", "window", "bridge",
];

fn full_size() -> ModelSpec {
    ModelSpec { embedding_rows: 32, embedding_dim: 256, token_rows: 32, token_dim: 768, ..spec() }
}

fn caption(content: u64) -> String {
    let picks = noise(content + 5, 9);
    let words: Vec<&str> =
        picks.iter().map(|v| WORDS[((v + 1.0) * 12.0) as usize % WORDS.len()]).collect();
    format!("a photo of {} in the {}", words[..5].join(" and "), words[5..].join(" "))
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{what:50} median {median:>10.2?}  worst {worst:>10.2?}");
}

fn repeat(what: &str, times: usize, mut work: impl FnMut()) {
    let mut measured: Vec<Duration> = (0..times)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    report(what, &mut measured);
}

/// Adds photos in batches as `tinyfind index` does, then captions in batches.
fn fill(dir: &Path, spec: &ModelSpec, photos: u64, batch: u64, print: bool) {
    let mut writer = IndexWriter::open(dir, spec).unwrap();
    let template = features_of(spec, 1);
    let (mut commits, mut captions) = (Vec::new(), Vec::new());
    for content in 0..photos {
        // One vector a photo of its own keeps the filling short.
        let mut features = template.clone();
        features.embedding.values[..spec.embedding_dim]
            .copy_from_slice(&noise(content + 1, spec.embedding_dim));
        let path = format!("/home/me/Pictures/{}/IMG_{content:05}.jpg", content / 500);
        writer.add(photo(path, content), features).unwrap();
        if (content + 1) % batch == 0 {
            let start = Instant::now();
            writer.commit().unwrap();
            commits.push(start.elapsed());
        }
    }
    writer.commit().unwrap();
    loop {
        let waiting = writer.uncaptioned(batch as usize).unwrap();
        if waiting.is_empty() {
            break;
        }
        for (doc, _) in waiting {
            writer.set_caption(doc, &caption(doc.0)).unwrap();
        }
        let start = Instant::now();
        writer.commit().unwrap();
        captions.push(start.elapsed());
    }
    if print {
        report(&format!("commit of {batch} photos"), &mut commits);
        report(&format!("commit of {batch} captions"), &mut captions);
    }
    let start = Instant::now();
    drop(writer);
    println!("{:50} {:?}", "closing the writer", start.elapsed());
}

fn search(dir: &Path, spec: &ModelSpec, photos: u64) {
    repeat(&format!("open a reader on {photos} photos"), 20, || {
        IndexReader::open(dir).unwrap();
    });
    let reader = IndexReader::open(dir).unwrap();
    let query = noise(99, spec.embedding_dim);
    let words = [Term::Word("dog".into()), Term::Word("beach".into())];
    let phrase = [Term::Phrase("red and umbrella".into())];
    let all = Filter::default();
    let folder = Filter { require: vec![Clause::Path("pictures/1/".into())], ..all.clone() };
    let no_dog =
        Filter { exclude: vec![Clause::Term(Term::Word("dog".into()))], ..Filter::default() };
    repeat("by_vector, first", 1, || drop(reader.by_vector(&query, &all, 50).unwrap()));
    repeat("by_vector", 20, || drop(reader.by_vector(&query, &all, 50).unwrap()));
    repeat("by_vector, a path", 20, || drop(reader.by_vector(&query, &folder, 50).unwrap()));
    repeat("by_vector, a word excluded", 20, || {
        drop(reader.by_vector(&query, &no_dog, 50).unwrap());
    });
    repeat("by_words, two words", 20, || drop(reader.by_words(&words, &all, 50).unwrap()));
    repeat("by_words, a phrase", 20, || drop(reader.by_words(&phrase, &all, 50).unwrap()));
    repeat("by_filter, a path", 20, || drop(reader.by_filter(&folder, 50).unwrap()));
    let hits = reader.by_words(&words, &all, 50).unwrap();
    repeat("photo of 50 hits", 20, || {
        for (doc, _) in &hits {
            reader.photo(*doc).unwrap();
        }
    });
    repeat("check", 1, || assert!(reader.check().unwrap().is_sound()));
}

fn main() {
    let photos = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(40_000);
    for batch in [16, 64] {
        println!("-- 1000 photos of full size, batches of {batch}");
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        fill(dir.path(), &full_size(), 1000, batch, true);
        repeat("open the writer again", 3, || {
            IndexWriter::open(dir.path(), &full_size()).unwrap();
        });
        search(dir.path(), &full_size(), 1000);
    }
    println!("-- {photos} photos, tokens of one row");
    // A scan touches no tokens: small ones spare the disk.
    let spec = ModelSpec { token_rows: 1, ..full_size() };
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fill(dir.path(), &spec, photos, photos.clamp(1, 2000), true);
    repeat("open the writer again", 3, || drop(IndexWriter::open(dir.path(), &spec).unwrap()));
    search(dir.path(), &spec, photos);
}
