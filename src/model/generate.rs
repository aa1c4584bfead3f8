//! Decoding: from logits to token ids, for a batch of prompts. Knows ids, not text.
//!
//! Processors and warpers come in the order of the reference (transformers 4.36.2): repetition
//! penalty, least length, then for sampling temperature, top-k, top-p.

mod beam;
mod sampling;

use candle_core::{Result, Tensor};
use rand::SeedableRng;
use rand::rngs::StdRng;

pub use sampling::{cross_entropy, sampling_probabilities};

/// A language model during decoding: its rows are the sequences of one batch.
pub trait LanguageModel {
    /// Reads the prompts, each `(tokens, hidden)`, as one left-padded batch.
    ///
    /// Returns the logits `(batch, vocabulary)`, f32, of each row's next token.
    ///
    /// # Errors
    ///
    /// When the device has no room or a prompt is longer than the model can read.
    fn prefill(&mut self, prompts: &[Tensor]) -> Result<Tensor>;

    /// Appends one token to each row; returns the logits `(batch, vocabulary)`, f32, of the next.
    ///
    /// # Errors
    ///
    /// When the device has no room or the sequence grows too long.
    fn step(&mut self, ids: &[u32]) -> Result<Tensor>;

    /// Keeps the rows `rows`, in that order; a row may be repeated or left out.
    ///
    /// # Errors
    ///
    /// When the device has no room.
    fn select(&mut self, rows: &[usize]) -> Result<()>;
}

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Strategy {
    /// The likeliest token; the lower id of two equals.
    Greedy,
    /// A token drawn from the distribution, reproducibly.
    Sample {
        /// Divides the logits; above 0.
        temperature: f32,
        /// Keeps the likeliest tokens, this many; 0 keeps all.
        top_k: usize,
        /// Keeps the likeliest tokens that together reach this probability; 1 keeps all.
        top_p: f32,
        /// Every row draws from a generator of its own with this seed, so that a photo's answer
        /// does not depend on the batch it is in.
        seed: u64,
    },
    /// The best of several sequences grown together.
    Beam {
        /// How many; at least 1.
        beams: usize,
        /// A hypothesis of `n` tokens scores its log-probability / `n^length_penalty`.
        length_penalty: f32,
    },
}

/// How a batch is decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoding {
    /// How the next token is chosen.
    pub strategy: Strategy,
    /// At most this many tokens a row.
    pub max_new_tokens: usize,
    /// Stop tokens are barred until a row has this many.
    pub min_new_tokens: usize,
    /// Divides positive and multiplies negative logits of tokens a row already holds; 1 is off.
    pub repetition_penalty: f32,
    /// A token that counts as present in every row from the start for the penalty: the reference
    /// has `<|endoftext|>` there.
    pub penalized_from_start: Option<u32>,
    /// Tokens that end a row; the one that did is its last.
    pub stop_tokens: Vec<u32>,
}

impl Decoding {
    /// Greedy decoding of at most `max_new_tokens`, nothing penalised.
    pub fn greedy(max_new_tokens: usize, stop_tokens: Vec<u32>) -> Self {
        Self {
            strategy: Strategy::Greedy,
            max_new_tokens,
            min_new_tokens: 0,
            repetition_penalty: 1.0,
            penalized_from_start: None,
            stop_tokens,
        }
    }

    /// Applies repetition penalty and least length to the scores of a row that holds `row`.
    fn process(&self, scores: &mut [f32], row: &[u32]) {
        if self.repetition_penalty != 1.0 {
            sampling::penalize(scores, row, self.penalized_from_start, self.repetition_penalty);
        }
        if row.len() < self.min_new_tokens {
            for &stop in &self.stop_tokens {
                if let Some(score) = scores.get_mut(stop as usize) {
                    *score = f32::NEG_INFINITY;
                }
            }
        }
    }
}

/// Decodes `prompts`, each `(tokens, hidden)`, as one batch.
///
/// `is_finished(row, ids)` may end a row early, for stops that are text; it is asked after every
/// token. A row that ended leaves the batch at once, so that a long one does not hold others up.
///
/// Returns the new ids of each row, the stop token included where there was one.
///
/// # Errors
///
/// Those of the model.
pub fn generate(
    model: &mut dyn LanguageModel,
    prompts: &[Tensor],
    decoding: &Decoding,
    is_finished: &mut dyn FnMut(usize, &[u32]) -> bool,
) -> Result<Vec<Vec<u32>>> {
    if prompts.is_empty() || decoding.max_new_tokens == 0 {
        return Ok(vec![Vec::new(); prompts.len()]);
    }
    if let Strategy::Beam { beams, length_penalty } = decoding.strategy {
        // A prompt's beams are a batch of their own.
        return prompts
            .iter()
            .enumerate()
            .map(|(row, prompt)| {
                let mut finished = |ids: &[u32]| is_finished(row, ids);
                let prompt = std::slice::from_ref(prompt);
                beam::search(model, prompt, decoding, beams.max(1), length_penalty, &mut finished)
            })
            .collect();
    }
    let mut rows = vec![Vec::new(); prompts.len()];
    let mut random = match decoding.strategy {
        Strategy::Sample { seed, .. } => vec![StdRng::seed_from_u64(seed); prompts.len()],
        _ => Vec::new(),
    };
    // Indices of the rows still in the batch, in the order of the model's rows.
    let mut active: Vec<usize> = (0..prompts.len()).collect();
    let mut logits = model.prefill(prompts)?;
    loop {
        let mut next = Vec::with_capacity(active.len());
        for (&row, mut scores) in active.iter().zip(logits.to_vec2::<f32>()?) {
            decoding.process(&mut scores, &rows[row]);
            let id = match decoding.strategy {
                Strategy::Sample { temperature, top_k, top_p, .. } => {
                    sampling::warp(&mut scores, temperature, top_k, top_p);
                    sampling::draw(&scores, &mut random[row])
                }
                _ => sampling::argmax(&scores),
            };
            rows[row].push(id);
            next.push(id);
        }
        let goes_on: Vec<usize> = (0..active.len())
            .filter(|&i| {
                let ids = &rows[active[i]];
                ids.len() < decoding.max_new_tokens
                    && !decoding.stop_tokens.contains(&next[i])
                    && !is_finished(active[i], ids)
            })
            .collect();
        if goes_on.is_empty() {
            return Ok(rows);
        }
        if goes_on.len() < active.len() {
            model.select(&goes_on)?;
            active = goes_on.iter().map(|&i| active[i]).collect();
            next = goes_on.iter().map(|&i| next[i]).collect();
        }
        logits = model.step(&next)?;
    }
}

/// Probabilities `[prompt][token]` of the token after each prompt.
///
/// # Errors
///
/// Those of the model.
pub fn next_probabilities(
    model: &mut dyn LanguageModel,
    prompts: &[Tensor],
) -> Result<Vec<Vec<f64>>> {
    let logits = model.prefill(prompts)?.to_vec2::<f32>()?;
    Ok(logits.iter().map(|row| sampling::softmax(row)).collect())
}

#[cfg(test)]
mod tests;
