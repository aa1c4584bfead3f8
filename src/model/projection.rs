//! The two projections that carry visual tokens into Phi-2.
//!
//! Source: TinyGPT-V `mini_gpt4.py`, `llama_proj` and `llama_proj2`; nothing lies between them.

use candle_core::{DType, Module, Result, Tensor};

use crate::model::{
    config::LanguageConfig,
    layers::{Linear, Tap},
    weights::Weights,
};

/// `llama_proj`, then `llama_proj2`.
#[derive(Debug, Clone)]
pub struct Projection {
    first: Linear,
    second: Linear,
    dtype: DType,
}

impl Projection {
    /// Reads `llama_proj.*` and `llama_proj2.*` below `w` (`language` in a bundle), for visual
    /// tokens of width `token_width`.
    ///
    /// # Errors
    ///
    /// When a tensor is missing or of another shape.
    pub fn load(config: &LanguageConfig, token_width: usize, w: &Weights) -> Result<Self> {
        let mid = config.projection_mid;
        Ok(Self {
            first: Linear::load(&w.pp("llama_proj"), token_width, mid)?,
            second: Linear::load(&w.pp("llama_proj2"), mid, config.hidden)?,
            dtype: w.dtype(),
        })
    }

    /// As [`Module::forward`], showing `llama_proj` and `llama_proj2`.
    ///
    /// # Errors
    ///
    /// When `tokens` are of another width.
    pub fn forward_tapped(&self, tokens: &Tensor, tap: &mut Tap<'_>) -> Result<Tensor> {
        // Stored tokens are f32 whatever the model computes in.
        let mid = self.first.forward(&tokens.to_dtype(self.dtype)?)?;
        tap.see("llama_proj", &mid);
        let out = self.second.forward(&mid)?;
        tap.see("llama_proj2", &out);
        Ok(out)
    }
}

impl Module for Projection {
    /// Visual tokens `(batch, queries, width)` to embeddings `(batch, queries, hidden)`.
    fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        self.forward_tapped(tokens, &mut Tap::none())
    }
}
