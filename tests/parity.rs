//! This crate against the reference implementations, on small models with random weights in
//! the published file formats.
//!
//! Cases lie in `$TINYFIND_GOLDENS`, by default `tests/fixtures/goldens`; its README tells what
//! a case holds. Every tensor of every activation file is compared, in f32, at a relative error
//! of at most 1e-4 against the tensor's own scale; token ids must be identical.

#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

#[path = "parity/blip2.rs"]
mod blip2;
#[path = "parity/case.rs"]
mod case;
#[path = "parity/reference.rs"]
mod reference;
#[path = "parity/tinygptv.rs"]
mod tinygptv;

use std::fs;
use std::io::Write;

use blip2::Origin;
use candle_core::{IndexOp, Module};
use case::{Case, bundle, cases, goldens};
use reference::{Computed, Report};
use tinyfind::model::import::{ImportSources, Lora};
use tinyfind::model::prompt::PhiTokenizer;

/// Reports of the runs so far.
#[derive(Default)]
struct Runs {
    count: usize,
    failures: Vec<String>,
}

impl Runs {
    /// Prints the line of one run, past the capture of test output.
    fn add(&mut self, name: &str, report: Report) {
        let Report { compared, worst, worst_name, failures } = report;
        let verdict = if failures.is_empty() { "ok" } else { "FAILED" };
        let line = format!(
            "parity {name}: {verdict}, {compared} compared, worst {worst:.1e} ({worst_name})"
        );
        let mut stderr = std::io::stderr();
        writeln!(stderr, "{line}").unwrap();
        self.count += 1;
        self.failures.extend(failures.into_iter().map(|what| format!("{name}: {what}")));
    }

    fn finish(self) {
        assert!(self.failures.is_empty(), "\n{}", self.failures.join("\n"));
        assert!(self.count > 0, "no case in {}", goldens().display());
    }
}

#[test]
fn every_golden_case_matches_the_reference() {
    let mut runs = Runs::default();
    for case in cases() {
        let before = runs.count;
        language(&case, &mut runs);
        retrieval(&case, &mut runs);
        assert!(runs.count > before, "{} is no case this test knows", case.folder.display());
    }
    runs.finish();
}

/// Every stage with every checkpoint file and every layout of Phi-2, LoRA merged; the first of
/// each also with the LoRA kept beside the weights.
fn language(case: &Case, runs: &mut Runs) {
    let folder = tempfile::tempdir().unwrap();
    for stage in case.stages() {
        let (checkpoints, phis) = (case.checkpoints(stage), case.phi_folders());
        assert!(!checkpoints.is_empty(), "{}: no checkpoint of stage {stage}", case.name);
        for (at, checkpoint) in checkpoints.iter().enumerate() {
            for (layout, phi) in phis.iter().enumerate() {
                let sources = case.language_sources(stage, checkpoint, phi);
                for lora in [Lora::Merge, Lora::Keep] {
                    if lora == Lora::Keep && at + layout > 0 {
                        continue;
                    }
                    let report =
                        tinygptv::compare(case, stage, &bundle(&sources, lora, folder.path()));
                    let file = |path: &std::path::Path| {
                        path.file_name().unwrap().to_string_lossy().into_owned()
                    };
                    let name = format!("{} {} {} {lora:?}", case.name, file(checkpoint), file(phi));
                    runs.add(&name, report);
                }
            }
        }
    }
}

/// LAVIS' files, Hugging Face's, and one ViT for both halves where a case shares another's.
fn retrieval(case: &Case, runs: &mut Runs) {
    let folder = tempfile::tempdir().unwrap();
    for origin in [Origin::Lavis, Origin::HuggingFace] {
        let sources = origin.sources(case);
        if sources.retrieval.as_ref().is_some_and(|path| path.exists()) {
            let report =
                blip2::compare(case, origin, &bundle(&sources, Lora::Merge, folder.path()));
            runs.add(&format!("{} {}", case.name, origin.file()), report);
        }
    }
    let shared = case.meta["dims"]["shared"].as_str().map(|name| goldens().join(name));
    if let Some(other) = shared.filter(|path| path.join("meta.json").is_file()) {
        let other = Case::open(other);
        runs.add(&format!("{} with {}", case.name, other.name), one_vit(case, &other));
    }
}

/// One bundle and one ViT pass for `retrieval` and for the 224 px stage of `language`.
fn one_vit(retrieval: &Case, language: &Case) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let stage = *language.stages().iter().find(|&&stage| stage < 4).unwrap();
    let checkpoint = &language.checkpoints(stage)[0];
    let phi = &language.phi_folders()[0];
    let mut dims = language.dims();
    dims.proj = retrieval.dims().proj;
    let of_retrieval = Origin::Lavis.sources(retrieval);
    let sources = ImportSources {
        retrieval: of_retrieval.retrieval,
        retrieval_vocab: of_retrieval.retrieval_vocab,
        dims,
        ..language.language_sources(stage, checkpoint, phi)
    };
    let bundle = bundle(&sources, Lora::Merge, folder.path());
    let (asks, finds) = (tinygptv::Model::load(&bundle), blip2::Model::load(&bundle));
    let vit = finds.vit.forward(&finds.pixels(retrieval)).unwrap();

    let mut report = Report::default();
    let expected = |case: &Case, file: &str, name: &str| {
        let file = case.path(file);
        candle_core::safetensors::load(file, vit.device()).unwrap()[name].clone()
    };
    let features = finds.qformer.image_features(&vit).unwrap();
    let name = "image_features";
    report.compare(name, &features, &expected(retrieval, Origin::Lavis.file(), name));
    let tokens = tinygptv::image_embeddings(&asks, &vit.i(..1).unwrap());
    let name = format!("stage{stage}.llama_proj2");
    let file = format!("activations_stage{stage}.safetensors");
    report.compare(&name, &tokens, &expected(language, &file, &name));
    report
}

#[test]
fn the_tokenizer_of_phi_2_gives_the_reference_ids() {
    let folder = goldens().join("tokenizer");
    if !folder.exists() && std::env::var_os("TINYFIND_GOLDENS").is_some() {
        return; // a folder of cases without it
    }
    let tokenizer =
        PhiTokenizer::from_json(&fs::read_to_string(folder.join("tokenizer.json")).unwrap());
    let tokenizer = tokenizer.unwrap();
    let cases: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join("cases.json")).unwrap()).unwrap();
    let cases = cases["cases"].as_array().unwrap();
    assert!(cases.len() > 30);
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(tokenizer.encode(text), ids, "{text:?}");
    }
}

/// The comparison itself must see a difference, a NaN and a tensor that nobody computed.
#[test]
fn a_wrong_missing_or_nan_tensor_fails_the_comparison() {
    let case = cases().into_iter().find(|case| !case.stages().is_empty()).unwrap();
    let stage = case.stages()[0];
    let file = case.path(&format!("activations_stage{stage}.safetensors"));
    let prefix = format!("stage{stage}.");
    let tensors = candle_core::safetensors::load(&file, &candle_core::Device::Cpu).unwrap();
    let with = |change: &dyn Fn(&candle_core::Tensor) -> candle_core::Tensor| {
        let mut computed = Computed::default();
        for (name, tensor) in &tensors {
            let changed = name.ends_with("llama_proj2");
            let tensor = if changed { change(tensor) } else { tensor.clone() };
            computed.insert(name.strip_prefix(&prefix).unwrap(), tensor);
        }
        let mut report = Report::default();
        report.compare_file(&file, &prefix, &computed);
        (report.failures.len(), report.compared)
    };
    assert_eq!(with(&|t| t.clone()), (0, tensors.len()));
    assert_eq!(with(&|t| (t * 1.001).unwrap()).0, 1);
    assert_eq!(with(&|t| (t * f64::NAN).unwrap()).0, 1);
    let mut report = Report::default();
    report.compare_file(&file, &prefix, &Computed::default());
    assert_eq!(report.failures.len(), tensors.len());
}
