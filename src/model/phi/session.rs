//! Phi as what decodes.

use candle_core::{Result, Tensor};

use super::{KvCache, Phi, left_pad};
use crate::model::generate::LanguageModel;

/// A batch in the middle of decoding: the model and its cache.
#[derive(Debug)]
pub struct Session<'a> {
    phi: &'a Phi,
    prefix: Option<&'a KvCache>,
    cache: KvCache,
}

impl<'a> Session<'a> {
    /// A session without any rows yet.
    pub fn new(phi: &'a Phi) -> Self {
        Self { phi, prefix: None, cache: phi.cache(&[]) }
    }

    /// A session whose prompts all go on from `prefix`, a cache of one row without padding.
    ///
    /// # Errors
    ///
    /// When `prefix` is another cache.
    pub fn after(phi: &'a Phi, prefix: &'a KvCache) -> Result<Self> {
        Ok(Self { phi, prefix: Some(prefix), cache: prefix.fork(&[])? })
    }
}

impl LanguageModel for Session<'_> {
    fn prefill(&mut self, prompts: &[Tensor]) -> Result<Tensor> {
        let (embeds, padding) = left_pad(prompts)?;
        self.cache = match self.prefix {
            Some(prefix) => prefix.fork(&padding)?,
            None => self.phi.cache(&padding),
        };
        self.phi.next_logits(&embeds, &mut self.cache)
    }

    fn step(&mut self, ids: &[u32]) -> Result<Tensor> {
        let embeds = self.phi.embed(ids)?.unsqueeze(1)?;
        self.phi.next_logits(&embeds, &mut self.cache)
    }

    fn select(&mut self, rows: &[usize]) -> Result<()> {
        self.cache.select(rows)
    }
}
