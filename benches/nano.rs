//! What TinyGPT-V's norms do and how its low-rank additions compare with others, on `nano`.
//!
//!     CANDLE_NUM_THREADS=1 cargo bench --bench nano -- norms --svg norms.svg
//!     CANDLE_NUM_THREADS=1 cargo bench --bench nano -- peft
//!
//! Every run of an experiment begins with the same weights and sees the same pictures in the
//! same order, so that the runs differ in what is compared alone. `--model BUNDLE` takes another
//! model of the same kind than the built-in one, `--steps N` other lengths.
//!
//! `norms` trains the language model from nothing on the visual tokens of the trained model, with
//! and without each of the three norms, at the rate of the recipe and at four times that.
//! `peft` teaches the trained model another way of writing captions: longer ones, in varied
//! wording, of which it saw none.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark is a program that prints"
)]

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use tinyfind::model::bundle::{Bundle, tensors_of};
use tinyfind::model::config::{Config, Norms};
use tinyfind::model::prompt::PhiTokenizer;
use tinyfind::model::registry;
use tinyfind::train::nano::init::start;
use tinyfind::train::nano::language::{Diet, LanguageTask};
use tinyfind::train::peft::{Additions, Target};
use tinyfind::train::{
    AdamW, Measure, Parameters, Peft, Schedule, Stage, TrainError, Trainer, measure,
};

const SHARDS: usize = 2;
const SEED: u64 = 7;
/// Number of the first picture: beyond those of the recipe.
const FIRST: u64 = 100_000_000;
/// Steps after the last one over which a run is measured.
const MEASURED: u64 = 32;
/// Steps that make a point of a curve.
const POINT: usize = 20;

fn main() {
    // `cargo test --benches` builds and starts this too, without `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|a| a == "--bench") {
        return;
    }
    let value = |name: &str| {
        let at = arguments.iter().position(|a| a == name)?;
        arguments.get(at + 1).cloned()
    };
    let steps = |default| value("--steps").map_or(default, |n| n.parse().unwrap());
    let named = value("--model").map(std::ffi::OsString::from);
    let name = named.as_deref().unwrap_or(registry::BUILT_IN.as_ref());
    let bundle = registry::resolve(Some(name)).unwrap().open().unwrap();
    match arguments.first().map(String::as_str) {
        Some("norms") => norms(&bundle, steps(500), value("--svg").map(PathBuf::from)),
        Some("peft") => peft(&bundle, steps(400)),
        _ => println!("name an experiment: `norms` or `peft`"),
    }
}

/// How a run went.
struct Ran {
    /// Mean losses of [`POINT`] steps each, up to the last finite one.
    curve: Vec<f32>,
    /// What the end makes of new pictures, or why there is no end.
    end: Result<Measure, String>,
    time: Duration,
}

fn run(bundle: &Bundle, task: &LanguageTask, parameters: Parameters, rate: f64, steps: u64) -> Ran {
    let weights = bundle.weights(&Device::Cpu, DType::F32);
    let adam = AdamW { beta2: 0.98, max_norm: Some(1.0), ..AdamW::default() };
    let schedule =
        Schedule { start: 0.0, peak: rate, end: 0.05 * rate, warmup: steps / 10, total: steps };
    let mut trainer = Trainer::new(weights, parameters, adam, schedule, SHARDS);
    let begun = Instant::now();
    let (mut losses, mut failed) = (Vec::new(), None);
    while trainer.step < steps {
        match trainer.step(task) {
            Ok(report) => losses.push(report.loss),
            Err(error @ (TrainError::Loss { .. } | TrainError::Gradient { .. })) => {
                failed = Some(error.to_string());
                break;
            }
            Err(error) => panic!("{error}"),
        }
    }
    let time = begun.elapsed();
    let mean = |part: &[f32]| part.iter().sum::<f32>() / part.len() as f32;
    let curve = losses.chunks(POINT).map(mean).collect();
    let measured = || {
        measure(task, trainer.weights(), steps..steps + MEASURED, SHARDS)
            .map_err(|error| error.to_string())
    };
    Ran { curve, end: failed.map_or_else(measured, Err), time }
}

fn task(config: Config, bundle: &Bundle, diet: Diet, peft: Peft) -> LanguageTask {
    let tokenizer = PhiTokenizer::from_json(bundle.phi_tokenizer().unwrap()).unwrap();
    LanguageTask {
        config,
        peft,
        tokenizer,
        diet,
        queries: false,
        batch: 8,
        shards: SHARDS,
        first: FIRST,
    }
}

/// The language model from nothing, with and without norms.
fn norms(bundle: &Bundle, steps: u64, svg: Option<PathBuf>) {
    let on = Norms::default();
    let variants = [
        ("all three", on),
        ("no input norm", Norms { input: false, ..on }),
        ("no RMS norm after attention", Norms { post: false, ..on }),
        ("no query-key norm", Norms { query_key: false, ..on }),
        ("none", Norms { input: false, post: false, query_key: false }),
    ];
    println!("| norms | rate | loss after {steps} steps | caption | answer | colour | what |");
    println!("|---|---|---|---|---|---|---|");
    let mut curves = Vec::new();
    for rate in [1.5e-3, 6e-3] {
        for (name, norms) in variants {
            let mut config = bundle.config().clone();
            config.language.as_mut().unwrap().norms = norms;
            let mut parameters = Parameters::new();
            for spec in tensors_of(&config) {
                if spec.name.starts_with("language.") {
                    let value = start(&spec, 6, SEED, &Device::Cpu).unwrap();
                    parameters.insert(spec.name, &value, 1.0).unwrap();
                }
            }
            let diet = Diet { short: 1.0, questions: 6, ..Diet::CAPTIONS };
            let task = task(config, bundle, diet, Peft::None);
            let ran = run(bundle, &task, parameters, rate, steps);
            let end = match &ran.end {
                Ok(end) => format!(
                    "{:.3} | {:.3} | {:.3} | {:.1} % | {:.1} %",
                    end.loss,
                    part(end, "caption"),
                    part(end, "answer"),
                    part(end, "colour%"),
                    part(end, "what%")
                ),
                Err(why) => format!("{why} | | | |"),
            };
            println!("| {name} | {rate:.1e} | {end} |");
            curves.push((format!("{name}, {rate:.1e}"), ran.curve));
        }
    }
    if let Some(path) = svg {
        fs::write(path, drawing(&curves, steps)).unwrap();
    }
}

/// The trained model, taught other captions.
fn peft(bundle: &Bundle, steps: u64) {
    let diet = Diet { long_captions: true, ..Diet::CAPTIONS };
    let language = bundle.config().language.clone().unwrap();
    let weights = bundle.weights(&Device::Cpu, DType::F32);
    let additions = |rank| Additions {
        rank,
        alpha: rank as f64 / 4.0,
        dropout: 0.05,
        targets: vec![Target::QueryKeyValue, Target::Dense],
    };
    let mut ways = vec![("norms and projections".to_owned(), Stage::WarmUp, Peft::None)];
    for rank in [4, 16, 64] {
        let lora = Peft::Lora(additions(rank));
        ways.push((format!("LoRA, rank {rank}"), Stage::Pretraining, lora));
        let dora = Peft::Dora(additions(rank));
        ways.push((format!("DoRA, rank {rank}"), Stage::Pretraining, dora));
    }
    ways.push(("all weights".to_owned(), Stage::Language, Peft::None));
    let before = task(bundle.config().clone(), bundle, diet, Peft::None);
    let before = measure(&before, &weights, steps..steps + MEASURED, SHARDS).unwrap();
    println!(
        "| way | weights that learn | loss after {steps} steps | whole captions | ms a step |"
    );
    println!("|---|---|---|---|---|");
    println!("| before | | {:.3} | {:.1} % | |", before.loss, part(&before, "exact%"));
    for (name, stage, peft) in ways {
        for rate in [5e-4, 2e-3] {
            let mut config = bundle.config().clone();
            let mut parameters = Parameters::new();
            for spec in tensors_of(&config).iter().filter(|spec| stage.trains(&spec.name)) {
                let value = weights.get_f32(spec.shape.as_slice(), &spec.name).unwrap();
                parameters.insert(spec.name.clone(), &value, 1.0).unwrap();
            }
            for (name, value) in peft.start(&language, &weights, SEED).unwrap() {
                parameters.insert(name, &value, 1.0).unwrap();
            }
            let learned: usize =
                parameters.iter().map(|p| Tensor::elem_count(p.var.as_tensor())).sum();
            config.language = Some(peft.adapt(&language));
            let task = task(config, bundle, diet, peft.clone());
            let ran = run(bundle, &task, parameters, rate, steps);
            let end = match &ran.end {
                Ok(end) => format!("{:.3} | {:.1} %", end.loss, part(end, "exact%")),
                Err(why) => format!("{why} |"),
            };
            let step = 1e3 * ran.time.as_secs_f64() / steps as f64;
            println!("| {name}, rate {rate:.0e} | {learned} | {end} | {step:.0} |");
        }
    }
}

fn part(measure: &Measure, name: &str) -> f32 {
    measure.parts.iter().find(|(known, _)| *known == name).map_or(f32::NAN, |(_, value)| *value)
}

/// Curves over the steps, with a logarithmic scale of losses.
fn drawing(curves: &[(String, Vec<f32>)], steps: u64) -> String {
    const COLOURS: [&str; 5] = ["#1b6ca8", "#d1495b", "#2e933c", "#e09f3e", "#6a4c93"];
    let (width, height, left, top) = (640.0, 320.0, 60.0, 20.0);
    let all = || curves.iter().flat_map(|(_, curve)| curve).copied().filter(|v| *v > 0.0);
    let (least, most) = (all().fold(f32::MAX, f32::min), all().fold(f32::MIN, f32::max));
    let (low, high) = (least.ln(), most.ln().max(least.ln() + 1e-3));
    let x = |point: usize| left + width * (((point as f64 + 0.5) * POINT as f64) / steps as f64);
    let y = |loss: f32| top + height * f64::from((high - loss.ln()) / (high - low));
    let mut svg = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 960 400\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"960\" height=\"400\" \
         fill=\"#fff\"/>\n"
        .to_owned();
    for loss in [0.2_f32, 0.5, 1.0, 2.0, 5.0, 10.0] {
        if loss >= least && loss <= most {
            let at = y(loss);
            let _ = writeln!(
                svg,
                "<line x1=\"{left}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{loss}</text>",
                left + width,
                left - 6.0,
                at + 4.0
            );
        }
    }
    for (number, (name, curve)) in curves.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let dash = if number < COLOURS.len() { "" } else { " stroke-dasharray=\"5 3\"" };
        let points: Vec<String> = curve
            .iter()
            .enumerate()
            .filter(|(_, loss)| **loss > 0.0)
            .map(|(point, &loss)| format!("{:.1},{:.1}", x(point), y(loss)))
            .collect();
        let at = top + 16.0 * (number as f64 + 1.0);
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"{dash} points=\"{}\"/>\
             <line x1=\"712\" x2=\"736\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" \
             stroke-width=\"2\"{dash}/><text x=\"742\" y=\"{at:.1}\">{name}</text>",
            points.join(" "),
            at - 4.0,
            at - 4.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"372\" text-anchor=\"middle\">steps (0 to {steps}); loss, logarithmic, \
         mean of {POINT} steps</text>\n</svg>",
        left + width / 2.0
    );
    svg
}
