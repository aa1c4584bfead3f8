//! Two training steps against PyTorch, on a small model with random weights: losses, the
//! gradient of every trained tensor, and the weights after each of two steps of AdamW.
//!
//! `training/reference.py` wrote what is compared; it tells how.

#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

#[path = "training/case.rs"]
mod case;
#[path = "training/losses.rs"]
mod losses;
#[allow(dead_code, reason = "only the measure of an error is used here")]
#[path = "parity/reference.rs"]
mod reference;

use std::collections::BTreeMap;
use std::io::Write;

use candle_core::Tensor;
use case::{Lora, Reference, Tensors};
use losses::{Language, Retrieval};
use reference::relative_error;
use tinyfind::train::objectives::sampling_weights;
use tinyfind::train::peft::{Additions, Peft};
use tinyfind::train::stage::Stage;
use tinyfind::train::{Parameters, Schedule, Task, Trainer};

/// Of a loss, against its value.
const LOSS: f64 = 1e-5;
/// Of a gradient, against the greatest of its tensor.
const GRADIENT: f64 = 2e-5;
/// Of a weight after a step, against the greatest of its tensor.
const WEIGHT: f64 = 1e-4;
/// Of what a step changed in a weight, against the greatest change of its tensor. A first step
/// divides each gradient by itself, so the rounding of small ones shows here.
const MOVE: f64 = 3e-3;
/// A gradient below this is zero but for rounding: that of f64 on the other side.
const VANISHES: f64 = 1e-12;

/// The worst errors of a case, and those that are too great.
#[derive(Default)]
struct Errors {
    worst: BTreeMap<&'static str, (f64, String)>,
    failures: Vec<String>,
}

impl Errors {
    fn note(&mut self, kind: &'static str, name: &str, error: f64, most: f64) {
        let worst = self.worst.entry(kind).or_insert_with(|| (0.0, String::new()));
        if error > worst.0 || error.is_nan() {
            *worst = (error, name.to_owned());
        }
        if error > most || error.is_nan() {
            self.failures.push(format!("{kind} {name}: {error:.1e}, at most {most:.1e}"));
        }
    }

    fn loss(&mut self, name: &str, got: f64, expected: f64) {
        self.note("loss", name, (got / expected - 1.0).abs(), LOSS);
    }

    /// Prints the worst, past the capture of test output.
    fn finish(self, case: &str) {
        let worst = self.worst.iter().map(|(kind, (e, name))| format!("{kind} {e:.1e} ({name})"));
        let worst = worst.collect::<Vec<_>>().join(", ");
        let mut stderr = std::io::stderr();
        writeln!(stderr, "training {case}: {worst}").unwrap();
        assert!(self.failures.is_empty(), "{case}:\n{}", self.failures.join("\n"));
    }
}

fn greatest(xs: &Tensor) -> f64 {
    let greatest = xs.abs().unwrap().flatten_all().unwrap().max(0).unwrap();
    f64::from(greatest.to_scalar::<f32>().unwrap())
}

/// The values of `parameters` now.
fn values(parameters: &Parameters) -> BTreeMap<String, Tensor> {
    parameters.iter().map(|p| (p.name.clone(), p.var.as_tensor().copy().unwrap())).collect()
}

/// Runs the steps of case `name`, whose loss is `task`.
fn compare(name: &str, reference: &Reference, task: &impl Task) {
    let (case, tensors) = (&reference.cases[name], Tensors::read(name));
    let start = Tensors::read("weights");
    let folder = tempfile::tempdir().unwrap();
    let weights = case::weights(&reference.config, &start, &folder);
    let gradients = tensors.below("gradient/");
    let parameters = start.parameters(gradients.keys().copied());
    let mut errors = Errors::default();

    let trained = weights.clone().training(parameters.tensors());
    let loss = task.loss(&trained, 0, 0).unwrap();
    let got = parameters.gradients(&loss.total.backward().unwrap());
    for (parameter, got) in parameters.iter().zip(&got.0) {
        let name = parameter.name.as_str();
        let got = got.as_ref().unwrap_or_else(|| panic!("`{name}` has no gradient"));
        let expected = gradients[name];
        assert_eq!(got.dims(), expected.dims(), "{name}");
        if greatest(expected) < VANISHES {
            errors.note("zero", name, greatest(got) / case.steps[0].norm, 1e-6);
        } else {
            errors.note("gradient", name, relative_error(got, expected).unwrap(), GRADIENT);
        }
    }

    // From the first rate to the second in one step of warm-up.
    let [first, second] = reference.optimiser.rates;
    let schedule = Schedule { start: first, peak: second, end: second, warmup: 1, total: 2 };
    let adam = reference.adam();
    let mut before = values(&parameters);
    let mut expected_before: BTreeMap<String, Tensor> = before.clone();
    let mut trainer = Trainer::new(weights, parameters, adam, schedule, 1);
    for (i, step) in (1..).zip(&case.steps) {
        let report = trainer.step(task).unwrap();
        let total: f64 = step.losses.values().sum();
        errors.loss(&format!("total of step {i}"), f64::from(report.loss), total);
        for (part, expected) in &step.losses {
            let got = report.parts.iter().find(|(name, _)| name == part);
            let (_, got) = got.unwrap_or_else(|| panic!("no part `{part}`"));
            errors.loss(&format!("{part} of step {i}"), f64::from(*got), *expected);
        }
        errors.note("norm", &format!("step {i}"), (report.norm / step.norm - 1.0).abs(), LOSS);
        let expected = tensors.below(&format!("step{i}/"));
        let after = values(&trainer.parameters);
        for (name, after) in &after {
            let expected = expected[name.as_str()];
            let weight = relative_error(after, expected).unwrap();
            errors.note("weight", &format!("{name} after step {i}"), weight, WEIGHT);
            if greatest(gradients[name.as_str()]) >= VANISHES {
                let got = (after - &before[name]).unwrap();
                let expected = (expected - &expected_before[name]).unwrap();
                let moved = relative_error(&got, &expected).unwrap();
                errors.note("move", &format!("{name} in step {i}"), moved, MOVE);
            }
        }
        expected_before = expected.into_iter().map(|(n, t)| (n.to_owned(), t.clone())).collect();
        before = after;
    }
    errors.finish(name);
}

#[test]
fn blip_2_on_given_vit_features_trains_as_in_pytorch() {
    let reference = Reference::open();
    compare("retrieval", &reference, &Retrieval::new(&reference, "retrieval"));
}

#[test]
fn blip_2_with_its_vit_trains_as_in_pytorch() {
    let reference = Reference::open();
    compare("vision", &reference, &Retrieval::new(&reference, "vision"));
}

#[test]
fn hard_negatives_are_drawn_by_the_weights_of_pytorch() {
    let reference = Reference::open();
    let (start, folder) = (Tensors::read("weights"), tempfile::tempdir().unwrap());
    let weights = case::weights(&reference.config, &start, &folder);
    let temperature = weights.get(1, "retrieval.temp").unwrap().to_vec1::<f32>().unwrap()[0];
    for name in ["retrieval", "vision"] {
        let contrast = Retrieval::new(&reference, name).contrast(&weights).unwrap();
        let similarity = contrast.similarity.to_vec2::<f32>().unwrap();
        let (texts, images) = sampling_weights(&similarity, temperature, &|_, _| false);
        let tensors = Tensors::read(name);
        for (kind, got) in [("text_weights", texts), ("image_weights", images)] {
            let expected = tensors.get(kind).to_vec2::<f32>().unwrap();
            assert_eq!(got.len(), expected.len());
            for (got, expected) in got.iter().flatten().zip(expected.iter().flatten()) {
                assert!(
                    (got - f64::from(*expected)).abs() < 1e-5,
                    "{name} {kind}: {got} {expected}"
                );
            }
        }
    }
}

/// Compares a case of the language model, trained as `peft` has it.
fn language(name: &str, peft: impl Fn(Additions) -> Peft) {
    let reference = Reference::open();
    let Lora { rank, alpha } = reference.lora;
    let peft = peft(Additions { rank, alpha, dropout: 0.0, ..Additions::default() });
    let config = peft.adapt(reference.config.language.as_ref().unwrap());
    compare(name, &reference, &Language::new(&reference, name, config));
}

#[test]
fn the_whole_language_model_trains_as_in_pytorch() {
    language("language", |_| Peft::None);
}

#[test]
fn projections_and_norms_train_as_in_pytorch() {
    language("warm_up", |_| Peft::None);
}

#[test]
fn a_lora_trains_as_in_pytorch() {
    language("lora", Peft::Lora);
}

#[test]
fn a_dora_trains_as_in_pytorch() {
    language("dora", Peft::Dora);
}

#[test]
fn stages_train_what_the_cases_train() {
    let start = Tensors::read("weights");
    for (name, stage, without) in [
        ("vision", Stage::Retrieval, "language."),
        ("warm_up", Stage::WarmUp, ".lora_"),
        ("lora", Stage::Pretraining, ".lora_magnitude"),
        ("dora", Stage::Pretraining, "vit."),
    ] {
        let names = start.below("").into_keys();
        let trained: Vec<&str> =
            names.filter(|name| stage.trains(name) && !name.contains(without)).collect();
        let tensors = Tensors::read(name);
        assert_eq!(trained, tensors.below("gradient/").into_keys().collect::<Vec<_>>(), "{name}");
    }
}
