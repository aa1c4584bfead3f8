//! TinyGPT-V as the jobs see it.

use candle_core::{Device, Tensor};
use tinyfind_index::{Features, Matrix, ModelSpec};

use super::{Language, ModelError, TinyGptV};
use crate::decode::DecodedImage;
use crate::model::config::image_size_of_stage;
use crate::model::prompt::{PromptIds, Template, caption_question, whole_sentences};
use crate::vlm::{Question, Result, Turn, Vlm, VlmError};

/// Tokens a caption may have: a sentence or two. A longer text finds little more.
const CAPTION_TOKENS: usize = 40;
/// Tokens an answer may have.
const ANSWER_TOKENS: usize = 128;

impl From<ModelError> for VlmError {
    fn from(error: ModelError) -> Self {
        Self::with_source(error.to_string(), error)
    }
}

impl From<candle_core::Error> for VlmError {
    fn from(error: candle_core::Error) -> Self {
        Self::with_source("the model could not compute this", error)
    }
}

impl Language {
    /// Ids of a question after a conversation; the oldest turns are left out until it fits.
    fn prompt(&self, history: &[Turn], question: &str) -> Result<PromptIds> {
        let room = self.phi().config().max_positions.saturating_sub(ANSWER_TOKENS + 64);
        let template = Template::of_stage(self.stage());
        for first in 0..=history.len() {
            let ids = self
                .tokenizer()
                .split(&template.render(&history[first..], question))
                .map_err(ModelError::from)?;
            if ids.left.len() + ids.right.len() < room {
                return Ok(ids);
            }
        }
        Err(VlmError::new(format!(
            "the question is longer than the model can read ({room} tokens)"
        )))
    }
}

impl TinyGptV {
    /// Probability, 0 to 1, that each statement is true of its photo: as
    /// [`Vlm::match_probability`], with a statement for each photo.
    ///
    /// # Errors
    ///
    /// When there are not as many statements as photos, or the language part cannot be loaded or
    /// does not fit.
    pub fn match_probabilities(
        &mut self,
        visual_tokens: &[&Matrix],
        statements: &[&str],
    ) -> Result<Vec<f32>> {
        if visual_tokens.is_empty() && statements.is_empty() {
            return Ok(Vec::new());
        }
        let tokens = stack(visual_tokens, self.device())?;
        Ok(self.language()?.match_probabilities(&tokens, statements)?)
    }
}

impl Vlm for TinyGptV {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn input_size(&self) -> u32 {
        let config = self.config();
        let captioner = config.captioner.as_ref().map(|c| c.image_size);
        let retrieval = config.retrieval.as_ref().map(|r| r.qformer.image_size);
        captioner.max(retrieval).unwrap_or_else(|| image_size_of_stage(config.stage)) as u32
    }

    fn embed_batch(&self) -> usize {
        if self.device().is_cpu() { 4 } else { 32 }
    }

    fn caption_batch(&self) -> usize {
        if self.device().is_cpu() { 16 } else { 64 }
    }

    fn embed_images(&mut self, images: &[DecodedImage]) -> Result<Vec<Features>> {
        if images.is_empty() {
            return Ok(Vec::new());
        }
        let encoding = self.encode_image(images)?;
        let embeddings = matrices(&self.image_features(&encoding)?)?;
        let tokens = matrices(&self.visual_tokens(&encoding)?)?;
        Ok(embeddings
            .into_iter()
            .zip(tokens)
            .map(|(embedding, visual_tokens)| Features { embedding, visual_tokens })
            .collect())
    }

    fn embed_queries(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.text_features(texts)?.to_vec2()?)
    }

    fn caption(&mut self, visual_tokens: &[&Matrix]) -> Result<Vec<String>> {
        if visual_tokens.is_empty() {
            return Ok(Vec::new());
        }
        let tokens = stack(visual_tokens, self.device())?;
        let language = self.language()?;
        let prompt = language.prompt(&[], caption_question(language.stage()))?;
        let prompts = vec![prompt; visual_tokens.len()];
        let texts = language.answer(&tokens, &prompts, &language.decoding(CAPTION_TOKENS))?;
        Ok(texts.iter().map(|text| whole_sentences(text).to_owned()).collect())
    }

    fn answer(&mut self, questions: &[Question<'_>]) -> Result<Vec<String>> {
        if questions.is_empty() {
            return Ok(Vec::new());
        }
        let tokens: Vec<&Matrix> = questions.iter().map(|q| q.visual_tokens).collect();
        let tokens = stack(&tokens, self.device())?;
        let language = self.language()?;
        let prompts = questions
            .iter()
            .map(|q| language.prompt(q.history, q.question))
            .collect::<Result<Vec<_>>>()?;
        Ok(language.answer(&tokens, &prompts, &language.decoding(ANSWER_TOKENS))?)
    }

    fn match_probability(
        &mut self,
        visual_tokens: &[&Matrix],
        statement: &str,
    ) -> Result<Vec<f32>> {
        if visual_tokens.is_empty() {
            return Ok(Vec::new());
        }
        let tokens = stack(visual_tokens, self.device())?;
        Ok(self.language()?.match_probability(&tokens, statement)?)
    }
}

/// `(n, rows, dim)` as `n` matrices.
fn matrices(tensor: &Tensor) -> candle_core::Result<Vec<Matrix>> {
    let (n, rows, dim) = tensor.dims3()?;
    (0..n).map(|i| Ok(Matrix::new(rows, dim, tensor.get(i)?.flatten_all()?.to_vec1()?))).collect()
}

/// Matrices of one shape as `(n, rows, dim)`.
fn stack(matrices: &[&Matrix], device: &Device) -> candle_core::Result<Tensor> {
    let tensors: Vec<Tensor> = matrices
        .iter()
        .map(|m| Tensor::from_slice(&m.values, (m.rows, m.dim), device))
        .collect::<candle_core::Result<_>>()?;
    Tensor::stack(&tensors, 0)
}
