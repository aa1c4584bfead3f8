//! The full-size model on this machine: what its parts cost, and the program as a whole.
//!
//!     cargo bench --bench full_size [-- q8_0 | f16 | q4k ...] [-- --photos DIR] [-- --parts]
//!
//! First writes bundles of the published sizes with random weights (so captions are noise, and
//! always as long as they may be) under `target/full-size/`, in f16 and `q8_0` unless types are
//! named. Then, for each: milliseconds a photo of every part, in this process; and the program
//! over the photos of `tests/fixtures/photos` (or `DIR`): photos a minute by phase, peak memory,
//! and the time and memory of a search over 1,000 photos.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark is a program that prints"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use candle_core::Device;
use tinyfind::decode::DecodedImage;
use tinyfind::model::TinyGptV;
use tinyfind::model::bundle::WeightType;
use tinyfind::model::config::{
    Config, LanguageConfig, QFormerConfig, RetrievalConfig, VisionConfig,
};
use tinyfind::model::import::random::{Tokenizers, write_random};
use tinyfind::vlm::Vlm;
use tinyfind_index::{
    ContentHash, Features, FileStamp, IndexWriter, Matrix, ModelSpec, NewPhoto, PhotoMetadata,
};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` builds and starts this too, without `--bench`.
    if !arguments.iter().any(|a| a == "--bench") {
        return;
    }
    let photos = arguments.iter().position(|a| a == "--photos").map(|at| &arguments[at + 1]);
    let photos = photos.map_or(repository().join("tests/fixtures/photos"), PathBuf::from);
    let mut types: Vec<WeightType> = arguments.iter().filter_map(|a| a.parse().ok()).collect();
    if types.is_empty() {
        types = vec![WeightType::F16, WeightType::Q8_0];
    }
    let folder = repository().join("target/full-size");
    fs::create_dir_all(&folder).unwrap();
    for weight_type in types {
        let bundle = folder.join(format!("{weight_type}.gguf"));
        write_bundle(&bundle, weight_type);
        println!("\n## {weight_type}, {:.2} GB", size(&bundle) as f64 / 1e9);
        parts(&bundle);
        if !arguments.iter().any(|a| a == "--parts") {
            program(&bundle, &photos, &folder);
            search(&bundle, &folder);
        }
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

/// The published model of stage 3 with LAVIS' retrieval side.
fn config() -> Config {
    Config {
        vision: Some(VisionConfig::vit_g()),
        captioner: Some(QFormerConfig::blip2(224)),
        retrieval: Some(RetrievalConfig {
            qformer: QFormerConfig::blip2(224),
            vocabulary: 30523,
            positions: 512,
            projection: 256,
            max_text: 32,
        }),
        language: Some(LanguageConfig::phi2()),
        stage: 3,
    }
}

fn write_bundle(path: &Path, weight_type: WeightType) {
    if path.exists() {
        return;
    }
    let phi = repository().join("tests/fixtures/goldens/tokenizer/tokenizer.json");
    let phi = fs::read_to_string(phi).unwrap();
    // BERT's own vocabulary is not part of this repository; its size is what matters here.
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "on", "the", "beach"];
    let bert: Vec<String> = special
        .map(str::to_owned)
        .into_iter()
        .chain((10..30523).map(|i| format!("word{i}")))
        .collect();
    let start = Instant::now();
    let tokenizers = Tokenizers { phi: Some(&phi), bert: Some(&bert.join("\n")) };
    write_random(&config(), weight_type, 1, path, tokenizers).unwrap();
    println!("wrote {} in {:.0} s", path.display(), start.elapsed().as_secs_f64());
}

/// Wall time of `work`, the least of `times`, in milliseconds.
fn least(times: usize, mut work: impl FnMut()) -> f64 {
    let runs = (0..times).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed()
    });
    runs.min().unwrap_or(Duration::ZERO).as_secs_f64() * 1e3
}

/// Each part in this process.
fn parts(bundle: &Path) {
    let mut model = TinyGptV::open(bundle, &Device::Cpu).unwrap();
    let row = |what: &str, ms: f64| println!("{what:<58}{ms:>10.0} ms");

    row(
        "text side: load and first query",
        least(1, || drop(model.embed_queries(&["a dog"]).unwrap())),
    );
    row(
        "text side: query",
        least(5, || drop(model.embed_queries(&["a dog on the beach"]).unwrap())),
    );

    let picture = |seed: u32| DecodedImage {
        width: 224,
        height: 224,
        rgb: (0..224 * 224 * 3_u32).map(|i| (i.wrapping_mul(seed) >> 7) as u8).collect(),
    };
    let pictures: Vec<DecodedImage> = (1..5).map(|i| picture(i * 2_654_435)).collect();
    row(
        "vision: load and first photo",
        least(1, || drop(model.embed_images(&pictures[..1]).unwrap())),
    );
    row("vision: a photo, alone", least(2, || drop(model.embed_images(&pictures[..1]).unwrap())));
    row(
        "vision: a photo, in a batch of 4",
        least(2, || drop(model.embed_images(&pictures).unwrap())) / 4.0,
    );

    let features = model.embed_images(&pictures[..1]).unwrap().remove(0);
    let tokens = |n: usize| vec![&features.visual_tokens; n];
    row("language: load and first caption", least(1, || drop(model.caption(&tokens(1)).unwrap())));
    row("language: a caption, alone", least(1, || drop(model.caption(&tokens(1)).unwrap())));
    for batch in [4, 16] {
        let ms = least(1, || drop(model.caption(&tokens(batch)).unwrap())) / batch as f64;
        row(&format!("language: a caption, in a batch of {batch}"), ms);
    }
    row(
        "language: match probability, in a batch of 16",
        least(1, || drop(model.match_probability(&tokens(16), "a dog").unwrap())) / 16.0,
    );
}

/// What a run of the program took.
struct Run {
    seconds: f64,
    peak_mb: f64,
    stdout: String,
    code: Option<i32>,
}

/// Runs `tinyfind`, with its peak resident memory as the kernel counts it.
fn tinyfind(arguments: &[&str]) -> Run {
    let start = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tinyfind"))
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let mut peak_mb = 0.0;
    let code = loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        if let Some(kb) =
            peak.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok())
        {
            peak_mb = kb / 1e3;
        }
        if let Some(ended) = child.try_wait().unwrap() {
            break ended.code();
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let seconds = start.elapsed().as_secs_f64();
    let mut stdout = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut stdout).unwrap();
    Run { seconds, peak_mb, stdout, code }
}

/// The program over real photos, phase by phase.
fn program(bundle: &Path, photos: &Path, folder: &Path) {
    let index = folder.join("index");
    let _ = fs::remove_dir_all(&index);
    let (model, index) = (bundle.to_str().unwrap(), index.to_str().unwrap());
    let flags = ["--model", model, "--index", index];
    let call = |rest: &[&str]| tinyfind(&[&flags[..], rest].concat());

    let embed = call(&["index", "--no-caption", photos.to_str().unwrap()]);
    let status: serde_json::Value =
        serde_json::from_str(&call(&["status", "--json"]).stdout).unwrap_or_default();
    let n = status["photos"].as_f64().unwrap_or(0.0);
    println!("photos indexed: {n}, could not be read: {}", status["failed"]);
    let print = |what: &str, run: &Run, photos: f64| {
        println!(
            "{what:<46}{:>8.1} s  {:>7.2} photos/min  peak {:>6.0} MB  exit {:?}",
            run.seconds,
            photos / run.seconds * 60.0,
            run.peak_mb,
            run.code
        );
    };
    print("index, phase embed (whole process)", &embed, n);
    let caption = call(&["index", photos.to_str().unwrap()]);
    print("index, phase caption (whole process)", &caption, n);
    print("index again, nothing changed", &call(&["index", photos.to_str().unwrap()]), n);
}

/// A search in a fresh process over 1,000 photos.
fn search(bundle: &Path, folder: &Path) {
    let index = folder.join("index-1000");
    let _ = fs::remove_dir_all(&index);
    let spec = TinyGptV::open(bundle, &Device::Cpu).unwrap().spec().clone();
    thousand(&index, &spec);
    let (model, index) = (bundle.to_str().unwrap(), index.to_str().unwrap());
    let mut runs: Vec<Run> = (0..7)
        .map(|_| tinyfind(&["--model", model, "--index", index, "search", "a dog on the beach"]))
        .collect();
    let first = runs.remove(0);
    runs.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let median = &runs[runs.len() / 2];
    println!(
        "search, 1,000 photos, fresh process: first {:.2} s, then median {:.2} s ({:.2} to {:.2}); \
         peak {:.0} MB; exit {:?}",
        first.seconds,
        median.seconds,
        runs[0].seconds,
        runs[runs.len() - 1].seconds,
        median.peak_mb,
        median.code
    );
}

/// An index of 1,000 photos with made-up vectors and captions.
fn thousand(index: &Path, spec: &ModelSpec) {
    let words = ["dog", "beach", "red", "car", "tree", "house", "river", "night", "child", "boat"];
    let mut random = 1_u64;
    let mut next = || {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 40) as f32 / 16_777_216.0 - 0.5
    };
    let mut writer = IndexWriter::open(index, spec).unwrap();
    for photo in 0..1000_usize {
        let mut unit = Vec::new();
        for _ in 0..spec.embedding_rows {
            let row: Vec<f32> = (0..spec.embedding_dim).map(|_| next()).collect();
            let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            unit.extend(row.iter().map(|x| x / length));
        }
        let tokens = (0..spec.token_rows * spec.token_dim).map(|_| next()).collect();
        let features = Features {
            embedding: Matrix::new(spec.embedding_rows, spec.embedding_dim, unit),
            visual_tokens: Matrix::new(spec.token_rows, spec.token_dim, tokens),
        };
        let made = NewPhoto {
            path: format!("/photos/{}/IMG_{photo:04}.jpg", 2000 + photo % 20).into(),
            stamp: FileStamp { size: photo as u64, mtime_ns: 0 },
            hash: ContentHash::of(&photo.to_le_bytes()),
            metadata: PhotoMetadata { width: 4000, height: 3000, ..PhotoMetadata::default() },
        };
        let doc = writer.add(made, features).unwrap();
        let caption: Vec<&str> = (0..8).map(|i| words[(photo * 7 + i * 3) % words.len()]).collect();
        writer.set_caption(doc, &caption.join(" ")).unwrap();
        if photo % 64 == 63 {
            writer.commit().unwrap();
        }
    }
    writer.commit().unwrap();
}
