//! The language part: from visual tokens and words to words.

use std::sync::Mutex;

use candle_core::{Module, Result, Tensor};

use super::ModelResult;
use crate::model::config::Config;
use crate::model::generate::{Decoding, Strategy, generate, next_probabilities};
use crate::model::phi::{KvCache, Phi, Session};
use crate::model::projection::Projection;
use crate::model::prompt::{END_OF_ANSWER, PhiTokenizer, PromptIds, Template, clean_answer};
use crate::model::weights::Weights;

/// Projections, tokenizer and Phi-2.
#[derive(Debug)]
pub struct Language {
    tokenizer: PhiTokenizer,
    projection: Projection,
    phi: Phi,
    stage: u8,
    /// Keys and values of the text before the picture that was used last: captions of a whole
    /// library share it.
    prefix: Mutex<Option<(Vec<u32>, KvCache)>>,
}

impl Language {
    /// Reads the language part of `config` below `w`, for visual tokens of `token_width`; `None`
    /// where the configuration has no such part.
    ///
    /// # Errors
    ///
    /// When a tensor is missing or the tokenizer is damaged.
    pub fn load(
        config: &Config,
        token_width: usize,
        tokenizer: &str,
        w: &Weights,
    ) -> ModelResult<Option<Self>> {
        let Some(language) = &config.language else { return Ok(None) };
        Ok(Some(Self {
            tokenizer: PhiTokenizer::from_json(tokenizer)?,
            projection: Projection::load(language, token_width, w)?,
            phi: Phi::load(language, w)?,
            stage: config.stage,
            prefix: Mutex::new(None),
        }))
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &PhiTokenizer {
        &self.tokenizer
    }

    /// The language model itself.
    pub fn phi(&self) -> &Phi {
        &self.phi
    }

    /// Training stage of the checkpoint, which decides on the template of prompts.
    pub fn stage(&self) -> u8 {
        self.stage
    }

    /// What the demos decode with, made reproducible: greedy, repeated tokens made a little less
    /// likely (1.05), stopped by `###`; at most `max_new_tokens`.
    pub fn decoding(&self, max_new_tokens: usize) -> Decoding {
        Decoding {
            strategy: Strategy::Greedy,
            max_new_tokens,
            min_new_tokens: 0,
            repetition_penalty: 1.05,
            penalized_from_start: Some(self.tokenizer.end_of_text()),
            stop_tokens: self.stop_tokens(),
        }
    }

    fn stop_tokens(&self) -> Vec<u32> {
        let end = self.tokenizer.end_of_text();
        self.tokenizer.end_of_answer().into_iter().chain([end]).collect()
    }

    /// Embeddings `(tokens, hidden)` of a prompt around the picture of `visual_tokens`
    /// `(32, 768)`.
    ///
    /// # Errors
    ///
    /// When the shapes do not fit.
    pub fn embed_prompt(&self, visual_tokens: &Tensor, prompt: &PromptIds) -> Result<Tensor> {
        let image = self.project(visual_tokens)?;
        Tensor::cat(&[&self.phi.embed(&prompt.left)?, &image, &self.phi.embed(&prompt.right)?], 0)
    }

    fn project(&self, visual_tokens: &Tensor) -> Result<Tensor> {
        self.projection.forward(&visual_tokens.unsqueeze(0)?)?.squeeze(0)
    }

    /// New token ids after each prompt, one for each picture of `visual_tokens`
    /// `(pictures, 32, 768)`, decoded as one batch; ends at the text `###` as well.
    ///
    /// The text that all prompts begin with is read once, not once a picture.
    ///
    /// # Errors
    ///
    /// When there are not as many prompts as pictures, or one is too long.
    pub fn generate(
        &self,
        visual_tokens: &Tensor,
        prompts: &[PromptIds],
        decoding: &Decoding,
    ) -> Result<Vec<Vec<u32>>> {
        let mut ends = |_: usize, ids: &[u32]| {
            // `###` can come in pieces; only the last few tokens can hold its end.
            let tail = &ids[ids.len().saturating_sub(END_OF_ANSWER.len())..];
            self.tokenizer.decode(tail).contains(END_OF_ANSWER)
        };
        self.with_session(visual_tokens, prompts, |session, embeds| {
            generate(session, embeds, decoding, &mut ends)
        })
    }

    /// As [`Self::generate`], with the answers as text: up to `###`, without the role.
    ///
    /// # Errors
    ///
    /// As [`Self::generate`].
    pub fn answer(
        &self,
        visual_tokens: &Tensor,
        prompts: &[PromptIds],
        decoding: &Decoding,
    ) -> Result<Vec<String>> {
        let ids = self.generate(visual_tokens, prompts, decoding)?;
        Ok(ids.iter().map(|ids| clean_answer(&self.tokenizer.decode(ids))).collect())
    }

    /// Probability, 0 to 1, that `statement` is true of each picture of `visual_tokens`
    /// `(pictures, 32, 768)`: what the model gives `true` against `false` when it is asked as in
    /// the VSR evaluation.
    ///
    /// # Errors
    ///
    /// When the statement is too long.
    pub fn match_probability(
        &self,
        visual_tokens: &Tensor,
        statement: &str,
    ) -> ModelResult<Vec<f32>> {
        self.match_probabilities(visual_tokens, &vec![statement; visual_tokens.dim(0)?])
    }

    /// As [`Self::match_probability`], with a statement for each picture.
    ///
    /// # Errors
    ///
    /// When there are not as many statements as pictures, or one is too long.
    pub fn match_probabilities(
        &self,
        visual_tokens: &Tensor,
        statements: &[&str],
    ) -> ModelResult<Vec<f32>> {
        let prompts = statements
            .iter()
            .map(|statement| {
                let question = format!(
                    "[vqa] Based on the image, is this statement true or false? {statement}"
                );
                self.tokenizer.split(&Template::Evaluation.render(&[], &question))
            })
            .collect::<std::result::Result<Vec<PromptIds>, _>>()?;
        let rows = self.with_session(visual_tokens, &prompts, |session, embeds| {
            next_probabilities(session, embeds)
        })?;
        let first = |words: [&str; 4]| -> Vec<u32> {
            let mut ids: Vec<u32> =
                words.iter().filter_map(|w| self.tokenizer.encode(w).first().copied()).collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        let (mut yes, mut no) = (
            first(["true", " true", "True", " True"]),
            first(["false", " false", "False", " False"]),
        );
        // A small vocabulary may begin both words with one token, which then tells nothing.
        let shared: Vec<u32> = yes.iter().copied().filter(|id| no.contains(id)).collect();
        yes.retain(|id| !shared.contains(id));
        no.retain(|id| !shared.contains(id));
        let sum = |row: &[f64], ids: &[u32]| -> f64 {
            ids.iter().filter_map(|&id| row.get(id as usize)).sum()
        };
        Ok(rows
            .iter()
            .map(|row| {
                let (yes, no) = (sum(row, &yes), sum(row, &no));
                if yes + no > 0.0 { (yes / (yes + no)) as f32 } else { 0.5 }
            })
            .collect())
    }

    /// Loss of each option as the answer to `prompt` about one picture `(32, 768)`: mean
    /// cross entropy in nats over the tokens of `option + end`, BOS before the prompt, as in
    /// training. The evaluation ranks options by it, least first.
    ///
    /// # Errors
    ///
    /// When the prompt lacks the picture or a sequence is too long.
    pub fn option_losses(
        &self,
        visual_tokens: &Tensor,
        prompt: &str,
        options: &[&str],
        end: &str,
    ) -> ModelResult<Vec<f32>> {
        let ids = self.tokenizer.split(prompt)?;
        let bos = self.phi.embed(&[self.tokenizer.end_of_text()])?;
        let condition = Tensor::cat(&[&bos, &self.embed_prompt(visual_tokens, &ids)?], 0)?;
        let answers: Vec<Vec<u32>> =
            options.iter().map(|option| self.tokenizer.encode(&format!("{option}{end}"))).collect();
        Ok(self.phi.option_losses(&condition, &answers)?)
    }

    /// Runs `work` on a session and the prompts' embeddings, less the text before the picture
    /// where all prompts begin with the same.
    fn with_session<T>(
        &self,
        visual_tokens: &Tensor,
        prompts: &[PromptIds],
        work: impl FnOnce(&mut Session<'_>, &[Tensor]) -> Result<T>,
    ) -> Result<T> {
        if visual_tokens.dim(0)? != prompts.len() {
            candle_core::bail!("{} prompts for {} pictures", prompts.len(), visual_tokens.dim(0)?);
        }
        let shared = prompts.first().map(|p| &p.left);
        let shared =
            shared.filter(|left| !left.is_empty() && prompts.iter().all(|p| p.left == **left));
        let mut embeds = Vec::with_capacity(prompts.len());
        for (row, prompt) in prompts.iter().enumerate() {
            let tokens = visual_tokens.get(row)?;
            embeds.push(match shared {
                Some(_) => {
                    Tensor::cat(&[&self.project(&tokens)?, &self.phi.embed(&prompt.right)?], 0)?
                }
                None => self.embed_prompt(&tokens, prompt)?,
            });
        }
        let Some(left) = shared else {
            return work(&mut Session::new(&self.phi), &embeds);
        };
        let mut prefix = self.prefix.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if prefix.as_ref().is_none_or(|(ids, _)| ids != left) {
            let mut cache = self.phi.cache(&[0]);
            self.phi.forward(&self.phi.embed(left)?.unsqueeze(0)?, &mut cache)?;
            *prefix = Some((left.clone(), cache));
        }
        match prefix.as_ref() {
            Some((_, cache)) => work(&mut Session::after(&self.phi, cache)?, &embeds),
            None => work(&mut Session::new(&self.phi), &embeds),
        }
    }
}
