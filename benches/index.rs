//! The index at 10,000, 100,000 and 1,000,000 photos: filling it, opening it, searching it.
//!
//!     cargo bench --bench index [-- PHOTOS ...] [-- --tokens ROWS] [-- --nano PHOTOS]
//!
//! Photos have 32 vectors of 256 like those of a library (`index/tests/common/vectors.rs` tells
//! how they are made), 32 visual tokens of 768 (`--tokens 1` spares the disk), a path, a date, a
//! camera and a caption. A million of them take 36 GB under `target/`. `--nano` draws scenes and
//! takes the vectors that the built-in model makes of them instead, and prints the recall of the
//! candidates against an exact scan.
//!
//! Searches of a fresh process are those of a program of its own that opens the index, looks for
//! one query and ends: once with the files in memory, and, where the system lets us empty its
//! file cache (Linux, as root), once without. Warm searches go through everything but the text
//! tower: the query is parsed, words and vectors are searched and fused, hits are read.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark is a program that prints"
)]

#[path = "../index/tests/common/mod.rs"]
mod common;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use candle_core::Device;
use common::vectors::{DIM, Library, ROWS};
use rayon::prelude::*;
use tinyfind::decode::DecodedImage;
use tinyfind::model::{TinyGptV, registry};
use tinyfind::search::{Pictures, Query, SearchOptions, Weights, search};
use tinyfind::similar::{Original, similar};
use tinyfind::train::scenes::{CaptionPlan, Scene, Split};
use tinyfind::vlm::{Question, Result as VlmResult, Vlm};
use tinyfind_index::{
    ContentHash, DocId, Features, FileStamp, Filter, IndexReader, IndexWriter, Matrix, ModelSpec,
    NewPhoto, PhotoMetadata, Taken, TakenSource,
};

/// Photos of a commit.
const BATCH: u64 = 512;
/// Photos a second of the full-size model on a GPU, as the goal for commits has it.
const MODEL_RATE: f64 = 400.0;
/// Searches that a figure stands on.
const SEARCHES: u64 = 200;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [verb, dir, number] = &arguments[..]
        && verb == "--first-search"
    {
        return first_search(Path::new(dir), number.parse().unwrap());
    }
    // `cargo test --benches` builds and starts this too, without `--bench`.
    if !arguments.iter().any(|a| a == "--bench") {
        return;
    }
    let value = |name: &str| {
        let at = arguments.iter().position(|a| a == name)?;
        arguments.get(at + 1)?.parse::<u64>().ok()
    };
    if let Some(photos) = value("--nano") {
        return nano(photos);
    }
    let tokens = value("--tokens");
    let mut sizes: Vec<u64> = arguments.iter().filter_map(|a| a.parse().ok()).collect();
    sizes.retain(|size| Some(*size) != tokens);
    if sizes.is_empty() {
        sizes = vec![10_000, 100_000, 1_000_000];
    }
    for photos in sizes {
        let dir = folder(&format!("index-{photos}"));
        println!("\n## {photos} photos");
        let library = Library::new(photos);
        fill(&dir, &library, photos, tokens.unwrap_or(32) as usize);
        fresh_process(&dir);
        warm(&dir, &library);
        fs::remove_dir_all(&dir).unwrap();
    }
}

/// An empty folder on the disk that builds are on.
fn folder(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&dir);
    dir
}

fn spec(tokens: usize) -> ModelSpec {
    ModelSpec {
        embedding_rows: ROWS,
        embedding_dim: DIM,
        token_rows: tokens,
        token_dim: 768,
        ..common::spec()
    }
}

/// A photo with what a camera says of it, and a caption of words some of which are frequent.
fn photo(number: u64) -> (NewPhoto, String) {
    let scene = Scene::generate(Split::Train, number % 20_000);
    let caption = CaptionPlan::full(&scene, number).render(&scene).text;
    let taken = Taken {
        local_seconds: 1_262_304_000 + number as i64 * 400,
        offset_minutes: None,
        source: TakenSource::Exif,
    };
    let metadata = PhotoMetadata {
        width: 4032,
        height: 3024,
        format: "jpeg".to_owned(),
        taken: Some(taken),
        camera: Some(
            ["FUJIFILM X-T3", "Apple iPhone 12", "NIKON D750"][number as usize % 3].to_owned(),
        ),
        ..PhotoMetadata::default()
    };
    let path = format!(
        "/home/me/Pictures/{}/trip {}/IMG_{number:07}.jpg",
        2010 + number / 80_000,
        number / 300
    );
    let hash = ContentHash::of(&number.to_le_bytes());
    let stamp = FileStamp { size: 4_000_000, mtime_ns: 1 };
    (NewPhoto { path: path.into(), stamp, hash, metadata }, caption)
}

fn fill(dir: &Path, library: &Library, photos: u64, tokens: usize) {
    let spec = spec(tokens);
    let visual_tokens =
        common::features_of(&ModelSpec { embedding_rows: 1, ..spec.clone() }, 1).visual_tokens;
    let mut writer = IndexWriter::open(dir, &spec).unwrap();
    let (mut adding, mut commits) = (Duration::ZERO, Vec::new());
    for first in (0..photos).step_by(BATCH as usize) {
        let numbers = first..photos.min(first + BATCH);
        let embeddings: Vec<Matrix> =
            numbers.clone().into_par_iter().map(|number| library.embedding(number)).collect();
        let prepared: Vec<(NewPhoto, String)> = numbers.map(photo).collect();
        let begun = Instant::now();
        for ((photo, caption), embedding) in prepared.into_iter().zip(embeddings) {
            let features = Features { embedding, visual_tokens: visual_tokens.clone() };
            let doc = writer.add(photo, features).unwrap();
            writer.set_caption(doc, &caption).unwrap();
        }
        adding += begun.elapsed();
        let begun = Instant::now();
        writer.commit().unwrap();
        commits.push(begun.elapsed());
    }
    let begun = Instant::now();
    drop(writer);
    let closing = begun.elapsed();
    let all = adding + commits.iter().sum::<Duration>() + closing;
    let share = commits.iter().sum::<Duration>().as_secs_f64() / (photos as f64 / MODEL_RATE);
    println!(
        "insert: {:.0} photos/s; adding {adding:.2?}, closing {closing:.2?}",
        photos as f64 / all.as_secs_f64()
    );
    println!(
        "commit of {BATCH} photos: {}; {:.1} % of the time of a model of {MODEL_RATE} photos/s",
        percentiles(&mut commits),
        100.0 * share
    );
    for part in ["", "segments", "coarse", "text", "catalog"] {
        println!("{:9} {:8.0} bytes a photo", part, bytes(&dir.join(part)) as f64 / photos as f64);
    }
}

fn bytes(path: &Path) -> u64 {
    let found = fs::metadata(path).unwrap();
    if !found.is_dir() {
        return found.len();
    }
    fs::read_dir(path).unwrap().map(|entry| bytes(&entry.unwrap().path())).sum()
}

fn percentiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part).round() as usize];
    format!("p50 {:.2?}, p99 {:.2?}", at(0.5), at(0.99))
}

/// What a program does that answers one query.
fn first_search(dir: &Path, number: u64) {
    let photos = IndexReader::open(dir).unwrap().counts().photos;
    let library = Library::new(photos);
    let mut model = Texts { spec: spec_of(dir), vector: library.text_query(number) };
    let before = read_from_disk();
    let begun = Instant::now();
    let reader = IndexReader::open(dir).unwrap();
    let opened = begun.elapsed();
    let begun = Instant::now();
    assert!(!ask(&reader, &mut model, "a red car on a beach").is_empty());
    let searched = begun.elapsed();
    let read = read_from_disk() - before;
    println!(
        "open {opened:.2?}, first search {searched:.2?}, {:.1} MB read from disk",
        read as f64 / 1e6
    );
}

/// Bytes that the system fetched from a disk for this process; 0 where it does not say.
fn read_from_disk() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("read_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}

fn fresh_process(dir: &Path) {
    let run = |number: u64| {
        let mut child = Command::new(std::env::current_exe().unwrap());
        let output = child.arg("--first-search").arg(dir).arg(number.to_string()).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    run(0);
    for number in 1..4 {
        print!("fresh process, files in memory: {}", run(number));
    }
    let emptied = Command::new("sync").status().is_ok_and(|status| status.success())
        && fs::write("/proc/sys/vm/drop_caches", "1").is_ok();
    if emptied {
        print!("fresh process, nothing in memory: {}", run(4));
    }
}

/// A model that knows one vector for every text.
struct Texts {
    spec: ModelSpec,
    vector: Vec<f32>,
}

impl Vlm for Texts {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn input_size(&self) -> u32 {
        1
    }

    fn embed_images(&mut self, _: &[DecodedImage]) -> VlmResult<Vec<Features>> {
        unreachable!("no picture is looked at")
    }

    fn embed_queries(&mut self, texts: &[&str]) -> VlmResult<Vec<Vec<f32>>> {
        Ok(vec![self.vector.clone(); texts.len()])
    }

    fn caption(&mut self, _: &[&Matrix]) -> VlmResult<Vec<String>> {
        unreachable!("captions are there")
    }

    fn answer(&mut self, _: &[Question<'_>]) -> VlmResult<Vec<String>> {
        unreachable!("nothing is asked")
    }

    fn match_probability(&mut self, _: &[&Matrix], _: &str) -> VlmResult<Vec<f32>> {
        unreachable!("nothing is matched")
    }
}

fn spec_of(dir: &Path) -> ModelSpec {
    IndexReader::open(dir).unwrap().spec().clone()
}

fn ask(reader: &IndexReader, model: &mut Texts, query: &str) -> Vec<DocId> {
    let query: Query = query.parse().unwrap();
    let options = SearchOptions { top: 20, min_score: 0.0, weights: Weights::default() };
    let found = search(reader, Some(model), &query, &Pictures::default(), options).unwrap();
    found.hits.iter().map(|hit| hit.doc).collect()
}

fn warm(dir: &Path, library: &Library) {
    let reader = IndexReader::open(dir).unwrap();
    let mut model = Texts { spec: reader.spec().clone(), vector: library.text_query(0) };
    let all = Filter::default();
    let by_text = |reader: &IndexReader, number: u64| {
        reader.by_vector(&library.text_query(number), &all, 10).unwrap()
    };
    let by_photo = |reader: &IndexReader, number: u64| {
        reader.by_rows(&library.embedding(number * 97), &all, 10).unwrap()
    };
    println!("recall at 10 of the vectors: {:.4}", recall(dir, &reader, by_text, 50));
    println!("recall at 10 of similar photos: {:.4}", recall(dir, &reader, by_photo, 50));
    let mut times = Vec::new();
    for number in 0..SEARCHES {
        let query = library.text_query(number);
        let begun = Instant::now();
        reader.by_vector(&query, &all, 10).unwrap();
        times.push(begun.elapsed());
    }
    println!("{:44} {}", "vectors alone, best 10", percentiles(&mut times));
    let (mut exact, mut exactly) = (Vec::new(), IndexReader::open(dir).unwrap());
    exactly.compare_all_up_to(u64::MAX);
    for number in 0..6 {
        let query = library.text_query(number);
        let begun = Instant::now();
        exactly.by_vector(&query, &all, 10).unwrap();
        exact.push(begun.elapsed());
    }
    println!("{:44} {}", "vectors alone, every photo compared", percentiles(&mut exact));
    alike(&reader, library);
    for query in [
        "a red car on a beach",
        "a red car on a beach -dog",
        "a red car camera:fuji",
        "a red car after:2015 before:2016",
        "a red car \"IMG_0000123\"",
        "two yellow cups in a kitchen at night OR a green bird",
    ] {
        let mut times = Vec::new();
        ask(&reader, &mut model, query);
        for number in 0..SEARCHES {
            model.vector = library.text_query(number);
            let begun = Instant::now();
            ask(&reader, &mut model, query);
            times.push(begun.elapsed());
        }
        println!("{query:44} {}", percentiles(&mut times));
    }
}

/// `similar` for photos of the index, each one that a text finds first.
fn alike(reader: &IndexReader, library: &Library) {
    let (all, mut times) = (Filter::default(), Vec::new());
    for number in 0..SEARCHES {
        let (doc, _) = reader.by_vector(&library.text_query(number), &all, 1).unwrap()[0];
        let original = Original::Indexed(Box::new(reader.photo(doc).unwrap().unwrap()));
        let begun = Instant::now();
        assert_eq!(similar(reader, None, &original, &all, 20, -1.0).unwrap().len(), 20);
        times.push(begun.elapsed());
    }
    println!("{:44} {}", "similar to a photo of the index", percentiles(&mut times));
}

/// Part of the exact ten best that the ten found by `find` hold, over that many queries.
fn recall(
    dir: &Path,
    reader: &IndexReader,
    find: impl Fn(&IndexReader, u64) -> Vec<(DocId, f32)>,
    queries: u64,
) -> f64 {
    let mut found = 0;
    let mut exactly = IndexReader::open(dir).unwrap();
    exactly.compare_all_up_to(u64::MAX);
    for number in 0..queries {
        let exact = find(&exactly, number);
        let truth: HashSet<DocId> = exact.iter().map(|(doc, _)| *doc).collect();
        let fast = find(reader, number);
        found += fast.iter().filter(|(doc, _)| truth.contains(doc)).count();
    }
    found as f64 / (10 * queries) as f64
}

/// The same with what the built-in model makes of drawn scenes.
fn nano(photos: u64) {
    let named = registry::resolve(Some(registry::BUILT_IN.as_ref())).unwrap();
    let mut model = TinyGptV::of(named.open().unwrap(), &Device::Cpu);
    let dir = folder("index-nano");
    let mut writer = IndexWriter::open(&dir, Vlm::spec(&model)).unwrap();
    let side = model.input_size();
    for first in (0..photos).step_by(BATCH as usize) {
        let numbers = first..photos.min(first + BATCH);
        let images: Vec<DecodedImage> = numbers
            .clone()
            .into_par_iter()
            .map(|number| Scene::generate(Split::Test, number).draw(side, side))
            .collect();
        for (numbers, images) in numbers.collect::<Vec<_>>().chunks(32).zip(images.chunks(32)) {
            for (number, features) in numbers.iter().zip(model.embed_images(images).unwrap()) {
                writer.add(photo(*number).0, features).unwrap();
            }
        }
        writer.commit().unwrap();
    }
    drop(writer);
    let mut reader = IndexReader::open(&dir).unwrap();
    // They are few, and would all be compared.
    reader.compare_all_up_to(0);
    let mut query = |number: u64| {
        let scene = Scene::generate(Split::Test, number * 97 % photos);
        let text = CaptionPlan::full(&scene, number).render(&scene).text;
        model.embed_queries(&[&text]).unwrap().remove(0)
    };
    let queries: Vec<Vec<f32>> = (0..200).map(&mut query).collect();
    let all = Filter::default();
    let by_text = |reader: &IndexReader, number: u64| {
        reader.by_vector(&queries[number as usize], &all, 10).unwrap()
    };
    println!(
        "nano, {photos} drawn scenes, recall at 10: {:.4}",
        recall(&dir, &reader, by_text, 200)
    );
    fs::remove_dir_all(&dir).unwrap();
}
