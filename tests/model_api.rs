//! The whole model behind its public API, on a bundle of two golden cases: what it computes
//! equals what the reference computed, and a batch equals its photos one by one.

#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

#[path = "common/golden.rs"]
mod golden;

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use serde_json::Value;
use tinyfind::decode::DecodedImage;
use tinyfind::model::TinyGptV;
use tinyfind::model::bundle::WeightType;
use tinyfind::model::generate::Decoding;
use tinyfind::vlm::{Question, Turn, Vlm};

const TEXTS: [&str; 4] = [
    "a red dog on the grass",
    "two cats sleeping on a sofa, near the window!",
    "the number 42",
    "unbelievable unbelievable unbelievable unbelievable unbelievable unbelievable unbelievable \
     unbelievable unbelievable unbelievable unbelievable unbelievable unbelievable unbelievable \
     end",
];

fn model(stage: u8) -> TinyGptV {
    TinyGptV::open(&golden::bundle(stage, WeightType::F32), &Device::Cpu).unwrap()
}

fn reference(file: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(golden::goldens().join(file), &Device::Cpu).unwrap()
}

fn meta(case: &str) -> Value {
    let text = std::fs::read_to_string(golden::goldens().join(case).join("meta.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The case's picture and the same flipped left-right.
fn pictures() -> [DecodedImage; 2] {
    let image = image::open(golden::goldens().join("a3/image.png")).unwrap().to_rgb8();
    let flipped = image::imageops::flip_horizontal(&image);
    [image, flipped].map(|image| DecodedImage {
        width: image.width(),
        height: image.height(),
        rgb: image.into_raw(),
    })
}

/// Greatest difference over the greatest value of the reference.
fn error(ours: &Tensor, theirs: &Tensor) -> f32 {
    assert_eq!(ours.dims(), theirs.dims());
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (ours, theirs) = (flat(ours), flat(theirs));
    let scale = theirs.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
    ours.iter().zip(&theirs).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs())) / scale
}

#[test]
fn one_pass_of_the_vit_feeds_both_sides_and_equals_the_reference() {
    let mut model = model(3);
    let (tinygptv, blip2) = (
        reference("a3/activations_stage3.safetensors"),
        reference("b3/activations_lavis.safetensors"),
    );
    let encoding = model.encode_image(&pictures()).unwrap();
    let features = model.image_features(&encoding).unwrap();
    assert!(error(&features, &blip2["image_features"]) < 1e-4);
    let tokens = model.visual_tokens(&encoding).unwrap();
    let first = tokens.narrow(0, 0, 1).unwrap();
    assert!(error(&first, &tinygptv["stage3.qformer.layer5"]) < 1e-4);

    let texts = model.text_features(&TEXTS).unwrap();
    assert!(error(&texts, &blip2["text_features"]) < 1e-4);
    assert!(error(&model.itc(&features, &texts).unwrap(), &blip2["itc"]) < 1e-4);
    assert!(error(&model.itm(&encoding, &TEXTS).unwrap(), &blip2["itm_logits"]) < 1e-4);
}

#[test]
fn the_language_part_generates_what_the_reference_generates() {
    for stage in [3, 4] {
        let mut model = model(stage);
        let meta = &meta("a3")[format!("stage{stage}")];
        let encoding = model.encode_image(&pictures()[..1]).unwrap();
        let tokens = model.visual_tokens(&encoding).unwrap();
        let language = model.language().unwrap();
        let prompt = language.tokenizer().split(meta["demo"]["prompt"].as_str().unwrap()).unwrap();
        let ids = language.generate(&tokens, &[prompt], &Decoding::greedy(24, vec![2])).unwrap();
        assert_eq!(serde_json::json!(ids[0]), meta["demo"]["greedy"]["ids"]);
    }
}

#[test]
fn option_losses_equal_the_training_losses() {
    let mut model = model(3);
    let meta = &meta("a3")["stage3"]["train_forward"];
    let encoding = model.encode_image(&pictures()[..1]).unwrap();
    let tokens = model.visual_tokens(&encoding).unwrap().get(0).unwrap();
    let options: Vec<&str> =
        meta["answers"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
    let losses = model
        .language()
        .unwrap()
        .option_losses(
            &tokens,
            meta["instruction"].as_str().unwrap(),
            &options,
            meta["end_sym"].as_str().unwrap(),
        )
        .unwrap();
    for (ours, theirs) in losses.iter().zip(meta["losses"].as_array().unwrap()) {
        let theirs = theirs.as_f64().unwrap() as f32;
        assert!((ours - theirs).abs() / theirs < 1e-4, "{ours} {theirs}");
    }
}

#[test]
fn a_batch_equals_its_photos_one_by_one() {
    let mut model = model(3);
    let pictures = pictures();
    let batch = model.embed_images(&pictures).unwrap();
    for (picture, features) in pictures.iter().zip(&batch) {
        let alone = &model.embed_images(std::slice::from_ref(picture)).unwrap()[0];
        let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(close(&alone.embedding.values, &features.embedding.values));
        assert!(close(&alone.visual_tokens.values, &features.visual_tokens.values));
    }
    let tokens: Vec<_> = batch.iter().map(|f| &f.visual_tokens).collect();
    let captions = model.caption(&tokens).unwrap();
    for (tokens, caption) in tokens.iter().zip(&captions) {
        assert_eq!(&model.caption(&[tokens]).unwrap()[0], caption);
    }
}

#[test]
fn questions_of_different_length_and_history_are_answered_as_if_alone() {
    let mut model = model(4);
    let features = model.embed_images(&pictures()).unwrap();
    let history = [Turn { question: "what is it?".into(), answer: "a dog".into() }];
    let questions = [
        Question { visual_tokens: &features[0].visual_tokens, history: &[], question: "why?" },
        Question {
            visual_tokens: &features[1].visual_tokens,
            history: &history,
            question: "what color is the dog on the left of the sofa?",
        },
    ];
    let together = model.answer(&questions).unwrap();
    for (question, answer) in questions.iter().zip(&together) {
        assert_eq!(&model.answer(&[*question]).unwrap()[0], answer);
    }
}

#[test]
fn a_match_probability_lies_between_zero_and_one() {
    let mut model = model(3);
    let features = model.embed_images(&pictures()).unwrap();
    let tokens: Vec<_> = features.iter().map(|f| &f.visual_tokens).collect();
    let both = model.match_probability(&tokens, "the dog is red").unwrap();
    assert!(both.iter().all(|p| (0.0..=1.0).contains(p)), "{both:?}");
    let alone = model.match_probability(&tokens[1..], "the dog is red").unwrap();
    assert!((alone[0] - both[1]).abs() < 1e-4);
}

#[test]
fn statements_are_judged_together_as_alone() {
    let mut model = model(3);
    let features = model.embed_images(&pictures()).unwrap();
    let tokens: Vec<_> = features.iter().map(|f| &f.visual_tokens).collect();
    // Of different lengths, so that one is padded.
    let statements = ["the dog is red", "two cats sleep on a sofa, near the window"];
    let both = model.match_probabilities(&tokens, &statements).unwrap();
    for (at, statement) in statements.iter().enumerate() {
        let alone = model.match_probability(&tokens[at..=at], statement).unwrap();
        assert!((alone[0] - both[at]).abs() < 1e-4, "{statement}: {alone:?} {both:?}");
    }
    assert!(model.match_probabilities(&tokens, &statements[..1]).is_err());
}

#[test]
fn quantised_weights_change_little() {
    let mut exact = model(3);
    let bundle = golden::bundle(3, WeightType::Q8_0);
    let mut quantised = TinyGptV::open(&bundle, &Device::Cpu).unwrap();
    let (a, b) = (
        exact.embed_images(&pictures()).unwrap().remove(0),
        quantised.embed_images(&pictures()).unwrap().remove(0),
    );
    for row in 0..a.embedding.rows {
        let cosine: f32 =
            a.embedding.row(row).iter().zip(b.embedding.row(row)).map(|(x, y)| x * y).sum();
        assert!(cosine > 0.98, "row {row}: {cosine}");
    }
}
