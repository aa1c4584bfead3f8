//! Image-grounded text generation (ITG): the next word of a text behind the queries.

use candle_core::{Module, Result, Tensor};

use super::entropy::{accuracy, cross_entropy};
use crate::model::{
    bundle::{Role, TensorSpec},
    config::RetrievalConfig,
    kernels::Activation,
    layers::{LayerNorm, Linear},
    qformer::{Queries, RetrievalQFormer},
    weights::Weights,
};

/// BERT's head over the vocabulary: `gelu(dense)`, norm, and a product with the word table
/// itself; LAVIS' `cls.predictions`.
///
/// Only training has it: a bundle holds no tensors of [`WordHead::tensors`].
#[derive(Debug)]
pub struct WordHead {
    dense: Linear,
    norm: LayerNorm,
    words: Linear,
}

impl WordHead {
    /// Reads `Qformer.cls.predictions.*` and the word table below `w` (`retrieval` in a bundle).
    ///
    /// # Errors
    ///
    /// When a tensor is missing or of another shape.
    pub fn load(config: &RetrievalConfig, w: &Weights) -> Result<Self> {
        let (hidden, vocabulary) = (config.qformer.hidden, config.vocabulary);
        let head = w.pp("Qformer.cls.predictions");
        let transform = head.pp("transform");
        let table = w.pp("Qformer.bert.embeddings.word_embeddings");
        let bias = head.get(vocabulary, "bias")?;
        Ok(Self {
            dense: Linear::load(&transform.pp("dense"), hidden, hidden)?,
            norm: LayerNorm::load(&transform.pp("LayerNorm"), hidden, config.qformer.eps)?,
            words: Linear::load_with_bias(&table, hidden, vocabulary, Some(bias))?,
        })
    }

    /// The tensors that only this head has, by their full names as if a bundle held them.
    pub fn tensors(config: &RetrievalConfig) -> Vec<TensorSpec> {
        let hidden = config.qformer.hidden;
        let tensors = [
            ("bias", vec![config.vocabulary], Role::Small),
            ("transform.LayerNorm.bias", vec![hidden], Role::Small),
            ("transform.LayerNorm.weight", vec![hidden], Role::Norm),
            ("transform.dense.bias", vec![hidden], Role::Small),
            ("transform.dense.weight", vec![hidden, hidden], Role::Linear),
        ];
        tensors
            .into_iter()
            .map(|(name, shape, role)| TensorSpec {
                name: format!("retrieval.Qformer.cls.predictions.{name}"),
                shape,
                role,
                optional: true,
            })
            .collect()
    }
}

impl Module for WordHead {
    /// States `(.., hidden)` to logits `(.., vocabulary)`.
    fn forward(&self, states: &Tensor) -> Result<Tensor> {
        let dense = self.dense.forward_then(states, Activation::GeluErf)?;
        self.words.forward(&self.norm.forward(&dense)?)
    }
}

/// What [`next_words`] gives.
#[derive(Debug, Clone)]
pub struct NextWords {
    /// Mean cross-entropy over all words.
    pub loss: Tensor,
    /// Part of the words that are foretold, 0 to 1.
    pub accuracy: f32,
    /// Words to foretell.
    pub words: usize,
}

impl NextWords {
    /// The numbers by name, for a report.
    ///
    /// # Errors
    ///
    /// When the device failed.
    pub fn parts(&self) -> Result<Vec<(&'static str, f32)>> {
        Ok(vec![("itg", self.loss.to_scalar()?), ("itg right", self.accuracy)])
    }
}

/// How well the words of texts are foretold from the queries of their pictures and the words
/// before them.
///
/// `ids[i]` is a text about picture `pictures[i]`, with `[CLS]`, in whose place `decode`
/// (`[DEC]`) is read, and `[SEP]`, which is the last word to foretell.
///
/// # Errors
///
/// When there is no such picture or a text has no word.
pub fn next_words(
    qformer: &RetrievalQFormer,
    head: &WordHead,
    queries: &Queries,
    pictures: &[u32],
    ids: &[Vec<u32>],
    decode: u32,
    smoothing: f64,
) -> Result<NextWords> {
    if ids.iter().any(|ids| ids.len() < 2) {
        candle_core::bail!("a text without words to foretell");
    }
    let read: Vec<Vec<u32>> = ids
        .iter()
        .map(|ids| std::iter::once(decode).chain(ids[1..ids.len() - 1].iter().copied()).collect())
        .collect();
    let states = qformer.read(queries, pictures, &read)?;
    let (texts, longest, hidden) = states.dims3()?;
    let places: Vec<u32> = (0_u32..)
        .zip(&read)
        .flat_map(|(row, read)| {
            let first = row * longest as u32;
            first..first + read.len() as u32
        })
        .collect();
    let targets: Vec<u32> = ids.iter().flat_map(|ids| ids[1..].iter().copied()).collect();
    let states = states.reshape((texts * longest, hidden))?;
    let states = if places.len() == texts * longest {
        states
    } else {
        states.index_select(&Tensor::new(places, states.device())?, 0)?
    };
    let logits = head.forward(&states)?;
    Ok(NextWords {
        loss: cross_entropy(&logits, &targets, smoothing)?,
        accuracy: accuracy(&logits, &targets)?,
        words: targets.len(),
    })
}
