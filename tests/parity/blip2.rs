//! BLIP-2 retrieval in LAVIS' and Hugging Face's files: features, ITC, ITM.

use candle_core::{D, DType, Device, IndexOp, Module, Tensor};
use tinyfind::model::bundle::Bundle;
use tinyfind::model::eva_vit::EvaVit;
use tinyfind::model::import::ImportSources;
use tinyfind::model::layers::Tap;
use tinyfind::model::pixels::pixel_values;
use tinyfind::model::prompt::BertTokenizer;
use tinyfind::model::qformer::{RetrievalQFormer, TextTower, itc};

use crate::case::Case;
use crate::reference::{Computed, Report, relative_error};
use crate::tinygptv::insert_rows;

/// Who published the files.
#[derive(Clone, Copy)]
pub(crate) enum Origin {
    Lavis,
    HuggingFace,
}

impl Origin {
    pub(crate) fn sources(self, case: &Case) -> ImportSources {
        let (vit, retrieval) = match self {
            Self::Lavis => (Some(case.path("eva_vit_g.pth")), "blip2_pretrained.pth"),
            Self::HuggingFace => (None, "hf"),
        };
        ImportSources {
            vit,
            retrieval: Some(case.path(retrieval)),
            retrieval_vocab: Some(case.path("bert/vocab.txt")),
            stage: 3,
            dims: case.dims(),
            ..ImportSources::default()
        }
    }

    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::Lavis => "activations_lavis.safetensors",
            Self::HuggingFace => "activations_hf.safetensors",
        }
    }
}

/// The retrieval half of a bundle.
pub(crate) struct Model {
    pub(crate) vit: EvaVit,
    pub(crate) qformer: RetrievalQFormer,
    text: TextTower,
    tokenizer: BertTokenizer,
    size: usize,
}

impl Model {
    pub(crate) fn load(bundle: &Bundle) -> Self {
        let w = bundle.weights(&Device::Cpu, DType::F32);
        let config = bundle.config();
        let (vision, retrieval) =
            (config.vision.as_ref().unwrap(), config.retrieval.as_ref().unwrap());
        let at = w.pp("retrieval");
        Self {
            vit: EvaVit::load(vision, &w.pp("vit")).unwrap(),
            qformer: RetrievalQFormer::load(retrieval, vision.width, &at).unwrap(),
            text: TextTower::load(retrieval, &at).unwrap(),
            tokenizer: BertTokenizer::from_vocab(bundle.bert_vocabulary().unwrap()).unwrap(),
            size: retrieval.qformer.image_size,
        }
    }

    /// Pixel values of the picture and its mirror image.
    pub(crate) fn pixels(&self, case: &Case) -> Tensor {
        pixel_values(&case.pictures(), self.size, &Device::Cpu, DType::F32).unwrap()
    }
}

/// Runs a case from one origin's files and compares it with that origin's activations.
pub(crate) fn compare(case: &Case, origin: Origin, bundle: &Bundle) -> Report {
    let mut report = Report::default();
    let model = Model::load(bundle);
    let (mut computed, pixels) = (Computed::default(), model.pixels(case));
    insert_rows(case, origin.file(), &pixels, &mut computed);
    let vit = model.vit.forward(&pixels).unwrap();
    let ids = tokens(case, &model, &mut computed, &mut report);
    images(&model, &vit, &mut computed, &mut report);
    texts(&model, &ids, &mut computed, &mut report);
    pairs(&model, &vit, &ids, &mut computed, &mut report);
    report.compare_file(&case.path(origin.file()), "", &computed);
    report
}

/// Ids of the texts, alone and padded to the longest that the reference allows.
fn tokens(
    case: &Case,
    model: &Model,
    computed: &mut Computed,
    report: &mut Report,
) -> Vec<Vec<u32>> {
    let most = usize::try_from(case.meta["max_txt_len"].as_u64().unwrap()).unwrap();
    let texts = case.meta["texts"].as_array().unwrap();
    let ids: Vec<Vec<u32>> =
        texts.iter().map(|text| model.tokenizer.encode(text.as_str().unwrap(), most)).collect();
    let expected: Vec<Vec<u32>> = serde_json::from_value(case.meta["input_ids"].clone()).unwrap();
    report.equal("input_ids", &ids, &expected);
    let shape = (ids.len(), most);
    let (mut padded, mut mask) =
        (vec![i64::from(model.tokenizer.pad()); shape.0 * most], vec![0_i64; shape.0 * most]);
    for (row, ids) in ids.iter().enumerate() {
        for (at, &id) in ids.iter().enumerate() {
            padded[row * most + at] = i64::from(id);
            mask[row * most + at] = 1;
        }
    }
    computed.insert("padded_input_ids", Tensor::from_vec(padded, shape, &Device::Cpu).unwrap());
    computed.insert("padded_attention_mask", Tensor::from_vec(mask, shape, &Device::Cpu).unwrap());
    ids
}

fn images(model: &Model, vit: &Tensor, computed: &mut Computed, report: &mut Report) {
    computed.insert("vit.out", vit.clone());
    let queries = {
        let mut see = |name: &str, tensor: &Tensor| computed.insert(name, tensor.clone());
        model.qformer.forward_image_tapped(vit, &mut Tap::new(&mut see)).unwrap()
    };
    computed.insert("qformer.image_last_hidden", queries.clone());
    let features = model.qformer.image_features(vit).unwrap();
    for row in 0..vit.dim(0).unwrap() {
        let alone = model.qformer.image_features(&vit.i(row..=row).unwrap()).unwrap();
        let together = features.i(row..=row).unwrap();
        report.note("pictures in a batch", relative_error(&together, &alone).unwrap());
        computed.insert(format!("image_features_{row}"), alone);
    }
    computed.insert("image_features", features);
}

fn texts(model: &Model, ids: &[Vec<u32>], computed: &mut Computed, report: &mut Report) {
    let mut features = Vec::new();
    for (row, ids) in ids.iter().enumerate() {
        let ids = std::slice::from_ref(ids);
        let name = format!("qformer.text{row}_last_hidden");
        let mut see = |seen: &str, tensor: &Tensor| {
            if seen == "qformer.last_hidden" {
                computed.insert(name.clone(), tensor.clone());
            }
        };
        let alone = model.text.text_features_tapped(ids, &mut Tap::new(&mut see)).unwrap();
        computed.insert(format!("text_features_{row}"), alone.clone());
        let both_sides = model.qformer.text_features(ids).unwrap();
        report.note("text tower", relative_error(&both_sides, &alone).unwrap());
        features.push(alone);
    }
    computed.insert("text_features", Tensor::cat(&features, 0).unwrap());
    computed.insert("text_features_padded", model.text.text_features(ids).unwrap());
}

fn pairs(
    model: &Model,
    vit: &Tensor,
    ids: &[Vec<u32>],
    computed: &mut Computed,
    report: &mut Report,
) {
    let image = model.qformer.image_features(vit).unwrap();
    computed.insert("itc", itc(&image, &model.text.text_features(ids).unwrap()).unwrap());
    let mut rows = Vec::new();
    for row in 0..vit.dim(0).unwrap() {
        let picture = vit.i(row..=row).unwrap();
        let together = model.qformer.itm(&picture, ids).unwrap();
        let mut alone = Vec::new();
        for (column, ids) in ids.iter().enumerate() {
            let name = format!("qformer.itm_last_hidden_img{row}_text{column}");
            let mut see = |seen: &str, tensor: &Tensor| {
                if seen == "qformer.last_hidden" {
                    computed.insert(name.clone(), tensor.clone());
                }
            };
            let ids = std::slice::from_ref(ids);
            alone.push(model.qformer.itm_tapped(&picture, ids, &mut Tap::new(&mut see)).unwrap());
        }
        let alone = Tensor::cat(&alone, 0).unwrap();
        report.note("pairs in a batch", relative_error(&together, &alone).unwrap());
        let logit = alone.i((.., 1)).unwrap().contiguous().unwrap();
        computed.insert(format!("retrieval_itm_logit1_mean_img{row}"), logit);
        rows.push(alone);
    }
    let logits = Tensor::stack(&rows, 0).unwrap();
    let match_probability = candle_nn::ops::softmax(&logits, D::Minus1).unwrap();
    computed.insert("itm_prob_match", match_probability.i((.., .., 1)).unwrap());
    computed.insert("itm_logits", logits);
}
