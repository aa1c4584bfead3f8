//! The losses of the cases, as the trainer is given them.

use candle_core::{Module, Tensor};
use serde::Deserialize;
use tinyfind::model::config::{Config, LanguageConfig};
use tinyfind::model::eva_vit::EvaVit;
use tinyfind::model::phi::Phi;
use tinyfind::model::projection::Projection;
use tinyfind::model::prompt::PromptIds;
use tinyfind::model::qformer::RetrievalQFormer;
use tinyfind::model::weights::Weights;
use tinyfind::train::objectives::{
    Contrast, Example, Negatives, Triples, WordHead, answers, contrastive, matching, next_words,
    temperature,
};
use tinyfind::train::{Result, ShardLoss, Task};

use crate::case::{Reference, Tensors};

/// BLIP-2's first stage on a batch whose negatives are given.
pub(crate) struct Retrieval {
    config: Config,
    batch: RetrievalBatch,
    dec: u32,
    smoothing: f64,
    inputs: Tensors,
}

/// Text `i` belongs to picture `i`.
#[derive(Deserialize)]
struct RetrievalBatch {
    texts: Vec<Vec<u32>>,
    /// A wrong picture for each text.
    negative_images: Vec<u32>,
    /// A wrong text for each picture.
    negative_texts: Vec<u32>,
}

impl Retrieval {
    pub(crate) fn new(reference: &Reference, case: &str) -> Self {
        Self {
            config: reference.config.clone(),
            batch: serde_json::from_value(reference.cases[case].batch.clone()).unwrap(),
            dec: reference.dec,
            smoothing: reference.smoothing,
            inputs: Tensors::read(case),
        }
    }

    fn qformer(&self, weights: &Weights) -> Result<RetrievalQFormer> {
        let width = self.config.vision.as_ref().unwrap().width;
        let config = self.config.retrieval.as_ref().unwrap();
        Ok(RetrievalQFormer::load(config, width, &weights.pp("retrieval"))?)
    }

    /// ViT tokens, given or of given pictures.
    fn vit(&self, weights: &Weights) -> Result<Tensor> {
        if let Some(vit) = self.inputs.below("input/").get("vit") {
            return Ok((*vit).clone());
        }
        let vit = EvaVit::load(self.config.vision.as_ref().unwrap(), &weights.pp("vit"))?;
        Ok(vit.forward(self.inputs.get("input/pixels"))?)
    }

    /// ITC, and with it what negatives are drawn from.
    pub(crate) fn contrast(&self, weights: &Weights) -> Result<Contrast> {
        let qformer = self.qformer(weights)?;
        let features = qformer.image_features(&self.vit(weights)?)?;
        let texts = qformer.text_features(&self.batch.texts)?;
        let temperature = temperature(&weights.pp("retrieval"))?;
        Ok(contrastive(&features, &texts, &temperature, self.smoothing)?)
    }
}

impl Task for Retrieval {
    fn loss(&self, weights: &Weights, _: u64, _: usize) -> Result<ShardLoss> {
        let (w, texts) = (weights.pp("retrieval"), &self.batch.texts);
        let qformer = self.qformer(weights)?;
        let head = WordHead::load(self.config.retrieval.as_ref().unwrap(), &w)?;
        let seen = qformer.see(&self.vit(weights)?)?;
        let queries = qformer.query(&seen)?;

        let features = qformer.project(&queries.hidden)?;
        let text_features = qformer.text_features(texts)?;
        let contrast = contrastive(&features, &text_features, &temperature(&w)?, self.smoothing)?;

        let given = |ids: &[u32]| ids.iter().copied().map(Some).collect();
        let triples = Triples::new(&Negatives {
            texts: given(&self.batch.negative_texts),
            pictures: given(&self.batch.negative_images),
        });
        let pairs = qformer.pairs(&seen, &triples.pictures, &triples.ids(texts)?)?;
        let matched = matching(&pairs, &triples.labels)?;

        let own: Vec<u32> = (0..texts.len() as u32).collect();
        let next = next_words(&qformer, &head, &queries, &own, texts, self.dec, self.smoothing)?;

        let total = ((&contrast.loss + &matched.loss)? + &next.loss)?;
        let parts = [contrast.parts()?, matched.parts()?, next.parts()?].concat();
        Ok(ShardLoss { total, parts })
    }
}

/// Answers of the language model about given visual tokens.
pub(crate) struct Language {
    config: LanguageConfig,
    width: usize,
    rows: Vec<Row>,
    bos: u32,
    inputs: Tensors,
}

#[derive(Deserialize)]
struct Row {
    picture: u32,
    left: Vec<u32>,
    right: Vec<u32>,
    answer: Vec<u32>,
}

impl Language {
    /// A case of a model of `config`.
    pub(crate) fn new(reference: &Reference, case: &str, config: LanguageConfig) -> Self {
        let rows = reference.cases[case].batch["rows"].clone();
        Self {
            config,
            width: reference.config.captioner.as_ref().unwrap().hidden,
            rows: serde_json::from_value(rows).unwrap(),
            bos: reference.bos,
            inputs: Tensors::read(case),
        }
    }
}

impl Task for Language {
    fn loss(&self, weights: &Weights, _: u64, _: usize) -> Result<ShardLoss> {
        let w = weights.pp("language");
        let phi = Phi::load(&self.config, &w)?;
        let projection = Projection::load(&self.config, self.width, &w)?;
        let prompts = self
            .rows
            .iter()
            .map(|row| PromptIds { left: row.left.clone(), right: row.right.clone() });
        let prompts: Vec<PromptIds> = prompts.collect();
        let examples = self.rows.iter().zip(&prompts).map(|(row, prompt)| Example {
            picture: row.picture,
            prompt,
            answer: &row.answer,
        });
        let examples: Vec<Example<'_>> = examples.collect();
        let made =
            answers(&phi, &projection, self.inputs.get("input/tokens"), &examples, Some(self.bos))?;
        let parts = made.parts()?;
        Ok(ShardLoss { total: made.loss, parts })
    }
}
