//! The scenes that `nano` learns from: what they cost, and what they look like.
//!
//!     cargo bench --bench scenes [-- --sheet FILE.png] [-- --split test | combinations | style]
//!
//! Prints microseconds a scene on one core for each part. With `--sheet`, writes the first sixty
//! scenes of the split at 112 pixels, ten in a row, and prints their captions.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark is a program that prints"
)]

use std::hint::black_box;
use std::time::Instant;

use image::{RgbImage, imageops};
use tinyfind::train::scenes::{CaptionPlan, Scene, Split, Style, corpus_words, edits, questions};

/// Pixels along one side of a picture.
const SIDE: u32 = 112;
/// Scenes that are timed.
const SCENES: u64 = 2_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` builds and starts this too, without `--bench`.
    if !arguments.iter().any(|a| a == "--bench") {
        return;
    }
    let value = |flag: &str| {
        let at = arguments.iter().position(|a| a == flag)?;
        arguments.get(at + 1).map(String::as_str)
    };
    let split = match value("--split") {
        Some("test") => Split::Test,
        Some("combinations") => Split::Combinations,
        Some("style") => Split::Style,
        _ => Split::Train,
    };
    let numbers: Vec<u64> = (0..SCENES).collect();
    time("generate", &numbers, |&index| Scene::generate(split, index));
    let scenes: Vec<Scene> = numbers.iter().map(|&it| Scene::generate(split, it)).collect();
    for &style in Style::ALL {
        let of: Vec<&Scene> = scenes.iter().filter(|scene| scene.style == style).collect();
        time(&format!("draw, {}", style.name()), &of, |scene| scene.draw(SIDE, SIDE));
    }
    time("owners of 8 x 8 cells", &scenes, |scene| scene.owners(8));
    time("a full caption and its edits", &scenes, |scene| {
        let plan = CaptionPlan::full(scene, 1);
        (plan.render(scene), edits(scene, &plan, 1))
    });
    time("questions", &scenes, |scene| questions(scene, 1));
    println!("{} words", corpus_words().len());
    if let Some(path) = value("--sheet") {
        sheet(&scenes[..60]).save(path).unwrap();
        for (scene, number) in scenes[..60].iter().zip(0..) {
            println!("{number:2} {}", CaptionPlan::canonical(scene).render(scene).text);
        }
    }
}

/// Prints what `work` costs for each of the items.
fn time<T, R>(name: &str, items: &[T], work: impl Fn(&T) -> R) {
    if items.is_empty() {
        return;
    }
    let start = Instant::now();
    for item in items {
        black_box(work(item));
    }
    println!("{:8.1} us  {name}", start.elapsed().as_secs_f64() * 1e6 / items.len() as f64);
}

/// Pictures of the scenes, ten in a row.
fn sheet(scenes: &[Scene]) -> RgbImage {
    let rows = scenes.len().div_ceil(10) as u32;
    let mut sheet = RgbImage::new(10 * SIDE, rows * SIDE);
    for (scene, number) in scenes.iter().zip(0_u32..) {
        let picture = RgbImage::from_raw(SIDE, SIDE, scene.draw(SIDE, SIDE).rgb).unwrap();
        let (x, y) = (i64::from(number % 10 * SIDE), i64::from(number / 10 * SIDE));
        imageops::replace(&mut sheet, &picture, x, y);
    }
    sheet
}
