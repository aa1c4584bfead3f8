//! The vector search beside libraries of others, on the same photos, threads and recall.
//!
//!     pip install numpy usearch hnswlib faiss-cpu
//!     RAYON_NUM_THREADS=1 cargo bench --bench index_vs [-- PHOTOS] [--rows] [--engines A,B]
//!
//! A photo has 32 vectors and scores by the nearest of them. The libraries keep one vector for each
//! item: they get the mean of the photo's vectors or, with `--rows`, all 32 as items of their own,
//! and propose candidates, which are then scored exactly, as ours are. For each library the fewest
//! candidates are looked for that bring the recall at 10 of the whole to 0.98; what the exact
//! scores of candidates cost is taken from an exact scan of ours. All searches run on one thread,
//! in turns.
//!
//! Then a search of a fresh process, beside one as rclip does it: every vector out of `SQLite`.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark is a program that prints"
)]

#[path = "../index/tests/common/mod.rs"]
mod common;

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use common::vectors::{DIM, Library, ROWS};
use common::{features_of, photo};
use rayon::prelude::*;
use tinyfind_index::{DocId, Features, Filter, IndexReader, IndexWriter, Matrix, ModelSpec};

const QUERIES: u64 = 50;
const ROUNDS: usize = 3;
const WANTED: f64 = 0.98;
const COUNTS: [usize; 10] = [50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [verb, dir] = &arguments[..]
        && verb == "--first-search"
    {
        return first_search(Path::new(dir));
    }
    // `cargo test --benches` builds and starts this too, without `--bench`.
    if !arguments.iter().any(|a| a == "--bench") {
        return;
    }
    let photos = arguments.iter().find_map(|a| a.parse().ok()).unwrap_or(100_000);
    let at = arguments.iter().position(|a| a == "--engines");
    let engines = at
        .map_or("usearch-f16,usearch-i8,hnswlib,faiss-hnsw,faiss-scan-i8", |at| &arguments[at + 1]);
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("index-vs");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    let library = Library::new(photos);
    println!("{photos} photos, {} thread", rayon::current_num_threads());
    let per_photo = if arguments.iter().any(|a| a == "--rows") { ROWS } else { 1 };
    fill(&dir, &library, photos, per_photo);
    let queries: Vec<Vec<f32>> = (0..QUERIES).map(|number| library.text_query(number)).collect();
    write_f32(&dir.join("queries.f32"), queries.iter().flatten());
    candidates(&dir, &queries, per_photo, &engines.split(',').collect::<Vec<_>>());
    fresh_processes(&dir, photos);
    fs::remove_dir_all(&dir).unwrap();
}

/// An index of the library, and for the others the mean vector of each photo, or all of them.
fn fill(dir: &Path, library: &Library, photos: u64, per_photo: usize) {
    let spec =
        ModelSpec { embedding_rows: ROWS, embedding_dim: DIM, token_rows: 1, ..common::spec() };
    let tokens = features_of(&ModelSpec { embedding_rows: 1, ..spec.clone() }, 1).visual_tokens;
    let mut writer = IndexWriter::open(&dir.join("index"), &spec).unwrap();
    let mut items = Vec::with_capacity(photos as usize * per_photo * DIM);
    for first in (0..photos).step_by(4096) {
        let numbers = first..photos.min(first + 4096);
        let embeddings: Vec<Matrix> =
            numbers.clone().into_par_iter().map(|number| library.embedding(number)).collect();
        for (number, embedding) in numbers.zip(embeddings) {
            if per_photo == ROWS {
                items.extend_from_slice(&embedding.values);
            } else {
                let mut mean = vec![0.0_f32; DIM];
                for (at, value) in embedding.values.iter().enumerate() {
                    mean[at % DIM] += value;
                }
                items.extend(common::unit(mean));
            }
            let features = Features { embedding, visual_tokens: tokens.clone() };
            writer.add(photo(format!("/photos/{number}.jpg"), number), features).unwrap();
        }
        writer.commit().unwrap();
    }
    write_f32(&dir.join("items.f32"), items.iter());
}

fn write_f32<'a>(path: &Path, values: impl Iterator<Item = &'a f32>) {
    fs::write(path, values.flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
}

/// The Python program that has the other libraries.
struct Others {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    dir: PathBuf,
}

impl Others {
    fn start(dir: &Path) -> Self {
        let mut command = python();
        command.arg("serve").arg(dir).arg(DIM.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output, dir: dir.to_owned() }
    }

    fn ask(&mut self, line: &str) -> Vec<f64> {
        writeln!(self.input, "{line}").unwrap();
        let mut answer = String::new();
        assert!(self.output.read_line(&mut answer).unwrap() > 0, "`{line}` was not answered");
        answer.split_whitespace().map(|number| number.parse().unwrap()).collect()
    }

    /// Milliseconds a query, and what was found for each.
    fn search(&mut self, engine: &str, count: usize) -> (f64, Vec<Vec<u64>>) {
        let seconds = self.ask(&format!("search {engine} {count}"))[0];
        let bytes = fs::read(self.dir.join("found.u32")).unwrap();
        let numbers = bytes.as_chunks::<4>().0.iter().map(|b| u64::from(u32::from_le_bytes(*b)));
        let numbers: Vec<u64> = numbers.collect();
        (1e3 * seconds / QUERIES as f64, numbers.chunks(count).map(<[u64]>::to_vec).collect())
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn python() -> Command {
    let mut command = Command::new("python3");
    command.arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/index_vs.py"));
    command
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Our search, milliseconds a query.
fn ours(reader: &IndexReader, queries: &[Vec<f32>]) -> f64 {
    let begun = Instant::now();
    for query in queries {
        reader.by_vector(query, &Filter::default(), 10).unwrap();
    }
    1e3 * begun.elapsed().as_secs_f64() / queries.len() as f64
}

fn candidates(dir: &Path, queries: &[Vec<f32>], per_photo: usize, engines: &[&str]) {
    let mut reader = IndexReader::open(&dir.join("index")).unwrap();
    let mut exactly = IndexReader::open(&dir.join("index")).unwrap();
    exactly.compare_all_up_to(u64::MAX);
    reader.compare_all_up_to(0);
    let begun = Instant::now();
    let truth: Vec<HashSet<u64>> = queries
        .iter()
        .map(|query| exactly.by_vector(query, &Filter::default(), 10).unwrap())
        .map(|best| best.iter().map(|(DocId(doc), _)| *doc).collect())
        .collect();
    let photos = reader.counts().photos as f64;
    let scan = 1e3 * begun.elapsed().as_secs_f64() / queries.len() as f64;
    let rescoring = scan / photos;
    println!("exact scan of everything: {scan:.1} ms; {:.2} us a photo", 1e3 * rescoring);
    let mut found = 0;
    for (query, truth) in queries.iter().zip(&truth) {
        let best = reader.by_vector(query, &Filter::default(), 10).unwrap();
        found += best.iter().filter(|(DocId(doc), _)| truth.contains(doc)).count();
    }
    println!(
        "tinyfind: recall {:.4}, {:.2} ms",
        found as f64 / (10.0 * truth.len() as f64),
        ours(&reader, queries)
    );

    let mut others = Others::start(dir);
    let mut chosen = Vec::new();
    for engine in engines {
        let built = others.ask(&format!("build {engine}"));
        println!("{engine}: built in {:.1} s, {:.0} MB", built[0], built[1]);
        let mut last = None;
        for count in COUNTS.into_iter().filter(|count| *count as f64 <= photos / 2.0) {
            let (searching, found) = others.search(engine, count);
            let photos_of = |found: &Vec<u64>| -> HashSet<u64> {
                found.iter().map(|item| item / per_photo as u64).collect()
            };
            let proposed: Vec<HashSet<u64>> = found.iter().map(photos_of).collect();
            let hits: usize =
                proposed.iter().zip(&truth).map(|(it, truth)| it.intersection(truth).count()).sum();
            let distinct: usize = proposed.iter().map(HashSet::len).sum();
            let distinct = distinct as f64 / truth.len() as f64;
            let recall = hits as f64 / (10.0 * truth.len() as f64);
            let scoring = rescoring * distinct;
            println!(
                "  {count:6} candidates: recall {recall:.4}, {searching:.2} + {scoring:.2} ms"
            );
            // One that never gets there is timed with the most candidates that were tried.
            last = Some((*engine, count, scoring, recall));
            if recall >= WANTED {
                break;
            }
        }
        chosen.extend(last);
    }
    let (mut own, mut theirs) = (Vec::new(), vec![Vec::new(); chosen.len()]);
    for _ in 0..ROUNDS {
        own.push(ours(&reader, queries));
        for ((engine, count, scoring, _), times) in chosen.iter().zip(&mut theirs) {
            times.push(others.search(engine, *count).0 + scoring);
        }
    }
    println!(
        "in turns, {ROUNDS} rounds, ms a query with exact scores: tinyfind {:.2}",
        median(&mut own.clone())
    );
    for ((engine, count, _, recall), times) in chosen.iter().zip(&mut theirs) {
        let mut ratios: Vec<f64> = times.iter().zip(&own).map(|(other, own)| other / own).collect();
        println!(
            "{engine}, {count} candidates, recall {recall:.4}: {:.2}, {:.2} times tinyfind",
            median(times),
            median(&mut ratios)
        );
    }
}

/// What a program does that answers one query by its vector.
fn first_search(dir: &Path) {
    let query = fs::read(dir.join("queries.f32")).unwrap();
    let query: Vec<f32> =
        query.as_chunks::<4>().0[..DIM].iter().map(|b| f32::from_le_bytes(*b)).collect();
    let begun = Instant::now();
    let reader = IndexReader::open(&dir.join("index")).unwrap();
    assert_eq!(reader.by_vector(&query, &Filter::default(), 10).unwrap().len(), 10);
    println!("{}", begun.elapsed().as_secs_f64());
}

fn fresh_processes(dir: &Path, photos: u64) {
    assert!(python().arg("fill").arg(dir).arg(photos.to_string()).status().unwrap().success());
    let run = |command: &mut Command| -> (f64, f64) {
        let begun = Instant::now();
        let output = command.stderr(Stdio::inherit()).output().unwrap();
        let whole: Duration = begun.elapsed();
        let text = String::from_utf8(output.stdout).unwrap();
        (whole.as_secs_f64(), text.trim().parse().unwrap())
    };
    let (mut own, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..=ROUNDS {
        let mut program = Command::new(std::env::current_exe().unwrap());
        own.push(run(program.arg("--first-search").arg(dir)));
        theirs.push(run(python().arg("rclip").arg(dir)));
    }
    // The first ones brought the files into memory.
    let (own, theirs) = (&own[1..], &theirs[1..]);
    let middle = |times: &[(f64, f64)], of: fn(&(f64, f64)) -> f64| {
        median(&mut times.iter().map(of).collect::<Vec<_>>())
    };
    let mut ratios: Vec<f64> = own.iter().zip(theirs).map(|(own, other)| other.0 / own.0).collect();
    println!(
        "a search of a fresh process (the search alone): tinyfind {:.3} s ({:.3}), as rclip {:.3} s ({:.3}); {:.1} times",
        middle(own, |t| t.0),
        middle(own, |t| t.1),
        middle(theirs, |t| t.0),
        middle(theirs, |t| t.1),
        median(&mut ratios)
    );
}
