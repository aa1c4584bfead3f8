//! TinyGPT-V: every activation, prompts, decoding, evaluation batches, losses.

use candle_core::{DType, Device, IndexOp, Module, Tensor};
use serde_json::Value;
use tinyfind::decode::{DecodedImage, resize_bicubic};
use tinyfind::model::bundle::Bundle;
use tinyfind::model::config::Config;
use tinyfind::model::eva_vit::EvaVit;
use tinyfind::model::generate::{
    Decoding, LanguageModel, Strategy, generate, sampling_probabilities,
};
use tinyfind::model::layers::Tap;
use tinyfind::model::phi::{Phi, Session, left_pad};
use tinyfind::model::pixels::pixel_values;
use tinyfind::model::projection::Projection;
use tinyfind::model::prompt::{PhiTokenizer, Template};
use tinyfind::model::qformer::QFormer;
use tinyfind::train::objectives::{Example, answers};

use crate::case::Case;
use crate::reference::{Computed, Report, relative_error};

/// The whole model of one stage.
pub(crate) struct Model {
    bundle: Bundle,
    config: Config,
    vit: EvaVit,
    qformer: QFormer,
    projection: Projection,
    phi: Phi,
    tokenizer: PhiTokenizer,
}

impl Model {
    pub(crate) fn load(bundle: &Bundle) -> Self {
        let config = bundle.config().clone();
        let w = bundle.weights(&Device::Cpu, DType::F32);
        let (vision, captioner, language) = (
            config.vision.as_ref().unwrap(),
            config.captioner.as_ref().unwrap(),
            config.language.as_ref().unwrap(),
        );
        Self {
            vit: EvaVit::load(vision, &w.pp("vit")).unwrap(),
            qformer: QFormer::load(captioner, vision.width, &w.pp("captioner")).unwrap(),
            projection: Projection::load(language, captioner.hidden, &w.pp("language")).unwrap(),
            phi: Phi::load(language, &w.pp("language")).unwrap(),
            tokenizer: PhiTokenizer::from_json(bundle.phi_tokenizer().unwrap()).unwrap(),
            bundle: bundle.clone(),
            config,
        }
    }

    fn size(&self) -> usize {
        self.config.captioner.as_ref().unwrap().image_size
    }

    /// Image tokens as embeddings `(pictures, queries, hidden)`.
    fn encode(&self, pictures: &[DecodedImage], tap: &mut Tap<'_>) -> Tensor {
        let pixels = pixel_values(pictures, self.size(), &Device::Cpu, DType::F32).unwrap();
        let vit = self.vit.forward_tapped(&pixels, tap).unwrap();
        let tokens = self.qformer.forward_image_tapped(&vit, tap).unwrap();
        self.projection.forward_tapped(&tokens, tap).unwrap()
    }

    /// A prompt with one picture `(queries, hidden)` in it: `(tokens, hidden)`.
    fn embed(&self, prompt: &str, picture: &Tensor) -> Tensor {
        let ids = self.tokenizer.split(prompt).unwrap();
        let embed = |ids: &[u32]| self.phi.embed(ids).unwrap();
        Tensor::cat(&[&embed(&ids.left), picture, &embed(&ids.right)], 0).unwrap()
    }
}

/// Runs one stage of a case and compares it with everything that the reference tells about it.
pub(crate) fn compare(case: &Case, stage: u8, bundle: &Bundle) -> Report {
    let mut report = Report::default();
    let model = Model::load(bundle);
    let (told, pictures) = (&case.meta[format!("stage{stage}")], case.pictures());
    report.equal("image_size", &Some(model.size() as u64), &told["image_size"].as_u64());

    let mut computed = Computed::default();
    picture_itself(case, stage, &model, &pictures[0], &mut computed);
    let image = {
        let mut see = |name: &str, tensor: &Tensor| computed.insert(name, tensor.clone());
        model.encode(&pictures[..1], &mut Tap::new(&mut see))
    };
    let both = model.encode(&pictures, &mut Tap::none());
    report.note("pictures in a batch", relative_error(&both.i(..1).unwrap(), &image).unwrap());
    let flipped = model.encode(&pictures[1..], &mut Tap::none());
    report.note("pictures in a batch", relative_error(&both.i(1..).unwrap(), &flipped).unwrap());

    demo(&told["demo"], stage, &model, &image.i(0).unwrap(), &mut computed, &mut report);
    // A case may lack a section; a tensor of one that is lacking fails as not computed.
    if told["eval"].is_object() {
        evaluation(&told["eval"], &model, &both, &mut computed, &mut report);
    }
    if told["train_forward"].is_object() {
        let told = &told["train_forward"];
        training(told, &model, &image.i(0).unwrap(), &mut computed, &mut report);
        let tokens = {
            let pixels = pixel_values(&pictures[..1], model.size(), &Device::Cpu, DType::F32);
            model.qformer.forward_image(&model.vit.forward(&pixels.unwrap()).unwrap()).unwrap()
        };
        objective(told, &model, &tokens, &mut report);
    }
    let file = case.path(&format!("activations_stage{stage}.safetensors"));
    report.compare_file(&file, &format!("stage{stage}."), &computed);
    report
}

/// The resized picture, some of its rows, and the resized position table.
fn picture_itself(
    case: &Case,
    stage: u8,
    model: &Model,
    picture: &DecodedImage,
    computed: &mut Computed,
) {
    let side = model.size();
    let resized = resize_bicubic(picture, side as u32, side as u32);
    let bytes = Tensor::from_vec(resized.rgb, (side, side, 3), &Device::Cpu).unwrap();
    computed.insert("image_u8_hwc", bytes);
    let pixels =
        pixel_values(std::slice::from_ref(picture), side, &Device::Cpu, DType::F32).unwrap();
    insert_rows(case, &format!("activations_stage{stage}.safetensors"), &pixels, computed);
    computed.insert("vit.pos_embed_interpolated", model.vit.positions(side).unwrap());
}

/// Fills every `image_norm_rows_A_B_..` of a file with those rows of the pixel values.
pub(crate) fn insert_rows(case: &Case, file: &str, pixels: &Tensor, computed: &mut Computed) {
    let names = candle_core::safetensors::load(case.path(file), &Device::Cpu).unwrap();
    for name in names.keys() {
        let Some((_, rows)) = name.split_once("image_norm_rows_") else { continue };
        let rows: Vec<u32> = rows.split('_').map(|row| row.parse().unwrap()).collect();
        let ids = Tensor::new(rows, &Device::Cpu).unwrap();
        let name = &name[name.find("image_norm_rows_").unwrap()..];
        computed.insert(name, pixels.index_select(&ids, 2).unwrap());
    }
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn number(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

/// A text with its runs of white space made one space: the reference's slow tokenizer puts spaces
/// around tokens that are white space themselves.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A token id that may be written as a number or inside words.
fn token(value: &Value) -> u32 {
    let text = value.to_string();
    let digits = |c: char| c.is_ascii_digit();
    text.rsplit(|c| !digits(c)).find(|part| !part.is_empty()).unwrap().parse().unwrap()
}

/// Decodes one prompt.
fn decode(model: &Model, prompt: &Tensor, decoding: &Decoding) -> Vec<u32> {
    let prompts = std::slice::from_ref(prompt);
    generate(&mut Session::new(&model.phi), prompts, decoding, &mut |_, _| false).unwrap().remove(0)
}

/// The prompt of the demo, through Phi with all its activations, and every way of decoding.
fn demo(
    told: &Value,
    stage: u8,
    model: &Model,
    image: &Tensor,
    computed: &mut Computed,
    report: &mut Report,
) {
    let prompt = told["prompt"].as_str().unwrap();
    let rendered = Template::of_stage(stage).render(&[], told["question"].as_str().unwrap());
    report.equal("demo prompt", &rendered.as_str(), &prompt);
    let split = model.tokenizer.split(prompt).unwrap();
    report.equal("ids left", &split.left, &ids(&told["seg_ids"][0]));
    report.equal("ids right", &split.right, &ids(&told["seg_ids"][1]));

    let embeds = model.embed(prompt, image);
    let batch = embeds.unsqueeze(0).unwrap();
    computed.insert("demo.embeds", batch.clone());
    let logits = {
        let mut see =
            |name: &str, tensor: &Tensor| computed.insert(format!("demo.{name}"), tensor.clone());
        let mut tap = Tap::new(&mut see);
        let xs = model.phi.forward_tapped(&batch, &mut model.phi.cache(&[0]), &mut tap).unwrap();
        model.phi.logits_tapped(&xs, &mut tap).unwrap()
    };
    let last = logits.i((0, batch.dim(1).unwrap() - 1)).unwrap().to_vec1::<f32>().unwrap();
    exact_rotary(model, &batch, computed);

    let kwargs = &told["kwargs"];
    let penalized = Some(token(&kwargs["bos_token_id"]));
    for temperature in [0.6, 1.0] {
        let strategy = Strategy::Sample { temperature, top_k: 50, top_p: 0.9, seed: 0 };
        let decoding = Decoding {
            strategy,
            repetition_penalty: kwargs["repetition_penalty"].as_f64().unwrap() as f32,
            penalized_from_start: penalized,
            ..Decoding::greedy(1, vec![])
        };
        let p = sampling_probabilities(&last, &[], &decoding);
        let p = Tensor::new(p, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        computed.insert(format!("demo.sample_probs_step0_t{temperature:.1}"), p);
    }

    for (name, told) in told.as_object().unwrap() {
        let most = told.get("max_new_tokens").unwrap_or(&kwargs["max_new_tokens"]);
        let end_of_answer = vec![token(&kwargs["eos_token_id"])];
        let greedy = Decoding::greedy(number(most), end_of_answer);
        let (decoding, expected) = match name.as_str() {
            "question" | "prompt" | "seg_ids" | "kwargs" => continue,
            "greedy" | "greedy_stop_on_token" => {
                let stop_tokens = vec![token(&told["eos_token_id"])];
                (Decoding { stop_tokens, ..greedy }, ids(&told["ids"]))
            }
            _ if name.starts_with("greedy_rep") => {
                let penalty = name.split('_').nth(1).unwrap().trim_start_matches("rep");
                let repetition_penalty = penalty.parse().unwrap();
                let penalized_from_start = penalized;
                (Decoding { repetition_penalty, penalized_from_start, ..greedy }, ids(&told["ids"]))
            }
            _ if name.starts_with("beam") => {
                let part = |word: &str| {
                    name.split('_').find_map(|part| part.strip_prefix(word)?.parse().ok()).unwrap()
                };
                let strategy = Strategy::Beam { beams: part("beam"), length_penalty: 1.0 };
                let max_new_tokens = part("max");
                (Decoding { strategy, max_new_tokens, ..greedy }, ids(&told["ids"]))
            }
            _ => {
                report.fail(format!("`demo.{name}` is not compared"));
                continue;
            }
        };
        let got = decode(model, &embeds, &decoding);
        report.equal(&format!("demo.{name}"), &got, &expected);
        if let Some(text) = told.get("text").and_then(Value::as_str) {
            report.equal(
                &format!("demo.{name} text"),
                &model.tokenizer.decode(&got).as_str(),
                &text,
            );
        }
        if name == "greedy" {
            step_logits(model, &embeds, &expected, computed);
        }
    }
}

/// The last logits with rotary tables in full precision.
fn exact_rotary(model: &Model, batch: &Tensor, computed: &mut Computed) {
    let w = model.bundle.weights(&Device::Cpu, DType::F32).pp("language");
    let phi = Phi::load(model.phi.config(), &w).unwrap().with_exact_rotary(&w).unwrap();
    let logits = phi.next_logits(batch, &mut phi.cache(&[0])).unwrap();
    computed.insert("demo.last_logits_rope_f32", logits);
}

/// The logits that chose each greedy token.
fn step_logits(model: &Model, prompt: &Tensor, ids: &[u32], computed: &mut Computed) {
    let mut session = Session::new(&model.phi);
    let mut rows = vec![session.prefill(std::slice::from_ref(prompt)).unwrap()];
    for &id in &ids[..ids.len() - 1] {
        rows.push(session.step(&[id]).unwrap());
    }
    computed.insert("demo.greedy_step_logits", Tensor::cat(&rows, 0).unwrap());
}

/// The evaluation script's batch: one question about each picture, left padded.
fn evaluation(
    told: &Value,
    model: &Model,
    pictures: &Tensor,
    computed: &mut Computed,
    report: &mut Report,
) {
    /// `PhiConfig`'s default, which the evaluation never overrides.
    const STOP: u32 = 2;
    let texts = |name: &str| -> Vec<String> {
        told[name].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect()
    };
    let (questions, prompts, answers) = (texts("questions"), texts("prompts"), texts("answers"));
    let rendered: Vec<String> =
        questions.iter().map(|q| Template::Evaluation.render(&[], q)).collect();
    report.equal("eval prompts", &rendered, &prompts);

    let embeds: Vec<Tensor> = prompts
        .iter()
        .enumerate()
        .map(|(row, prompt)| model.embed(prompt, &pictures.i(row).unwrap()))
        .collect();
    let (batch, padding) = left_pad(&embeds).unwrap();
    let tokens = batch.dim(1).unwrap();
    let mask: Vec<i64> =
        padding.iter().flat_map(|&n| (0..tokens).map(move |at| i64::from(at >= n))).collect();
    let mask = Tensor::from_vec(mask, (padding.len(), tokens), &Device::Cpu).unwrap();
    computed.insert("eval.embeds", batch);
    computed.insert("eval.attention_mask", mask);

    let decoding = Decoding::greedy(20, vec![STOP]);
    let mut session = Session::new(&model.phi);
    let got = generate(&mut session, &embeds, &decoding, &mut |_, _| false).unwrap();
    for (row, expected) in told["ids"].as_array().unwrap().iter().enumerate() {
        // A row that ended is padded until the longest has.
        let mut expected = ids(expected);
        if let Some(end) = expected.iter().position(|&id| id == STOP) {
            expected.truncate(end + 1);
        }
        report.equal(&format!("eval.ids[{row}]"), &got[row], &expected);
        let alone = decode(model, &embeds[row], &decoding);
        report.equal(&format!("eval.ids[{row}] alone"), &alone, &expected);
        let text = words(&model.tokenizer.decode(&got[row]));
        report.equal(&format!("eval.answers[{row}]"), &text, &words(&answers[row]));
    }
}

/// The training loss of each answer, and the ranking of options by it.
fn training(
    told: &Value,
    model: &Model,
    image: &Tensor,
    computed: &mut Computed,
    report: &mut Report,
) {
    let prompt = model.embed(told["instruction"].as_str().unwrap(), image);
    computed.insert("train.cond_embeds", prompt.unsqueeze(0).unwrap());
    let bos = model.phi.embed(&[model.tokenizer.end_of_text()]).unwrap();
    let prompt = Tensor::cat(&[bos, prompt], 0).unwrap();
    let end = told["end_sym"].as_str().unwrap();
    let options = |answers: &[&str]| -> Vec<Vec<u32>> {
        answers.iter().map(|answer| model.tokenizer.encode(&format!("{answer}{end}"))).collect()
    };
    let answers: Vec<&str> =
        told["answers"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
    let together = options(&answers);
    report.equal("regress_ids", &together[0], &ids(&told["regress_ids"]));
    let losses = model.phi.option_losses(&prompt, &together).unwrap();
    let expected: Vec<f64> =
        told["losses"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    report.near("losses", &losses, &expected);
    // `multi_select` ranks options that the cases do not name; the answers can be ranked.
    let losses: Vec<f64> = losses.into_iter().map(f64::from).collect();
    report.equal("ranking of the answers", &ranking(&losses), &ranking(&expected));
    for (row, option) in together.iter().enumerate() {
        let alone = model.phi.option_losses(&prompt, std::slice::from_ref(option)).unwrap();
        report.near("a loss alone", &alone, &expected[row..=row]);
    }
}

/// The same losses by what is minimised in training, of visual tokens `(1, queries, width)`.
fn objective(told: &Value, model: &Model, tokens: &Tensor, report: &mut Report) {
    let prompt = model.tokenizer.split(told["instruction"].as_str().unwrap()).unwrap();
    let end = told["end_sym"].as_str().unwrap();
    let bos = Some(model.tokenizer.end_of_text());
    let learned: Vec<Vec<u32>> = told["answers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|answer| model.tokenizer.encode(&format!("{}{end}", answer.as_str().unwrap())))
        .collect();
    let examples: Vec<Example<'_>> =
        learned.iter().map(|answer| Example { picture: 0, prompt: &prompt, answer }).collect();
    let loss = |examples: &[Example<'_>]| {
        let made = answers(&model.phi, &model.projection, tokens, examples, bos).unwrap();
        made.loss.to_scalar::<f32>().unwrap()
    };
    let expected: Vec<f64> =
        told["losses"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    let apart: Vec<f32> = examples.iter().map(|e| loss(std::slice::from_ref(e))).collect();
    report.near("objectives", &apart, &expected);
    // Together each token counts once.
    let tokens: Vec<f64> = learned.iter().map(|answer| answer.len() as f64).collect();
    let sum: f64 = expected.iter().zip(&tokens).map(|(loss, n)| loss * n).sum();
    let mean = sum / tokens.iter().sum::<f64>();
    report.near("objective of all answers", &[loss(&examples)], &[mean]);
}

/// Options by their losses, the least first.
fn ranking(losses: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..losses.len()).collect();
    order.sort_by(|&a, &b| losses[a].total_cmp(&losses[b]));
    order
}

/// What Phi sees of pictures whose ViT tokens are `vit`.
pub(crate) fn image_embeddings(model: &Model, vit: &Tensor) -> Tensor {
    model.projection.forward(&model.qformer.forward_image(vit).unwrap()).unwrap()
}
