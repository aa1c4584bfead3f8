//! Phi-2 as TinyGPT-V has it: three extra norms a layer, perhaps a LoRA, embeddings as input.
//!
//! Source: transformers 4.36.2 `modeling_phi.py` with the changes of the TinyGPT-V repository.
//! A layer is `h = norm(x); x + rms(dense(attention(h))) + fc2(gelu(fc1(h)))`.

mod cache;
mod losses;
mod session;
#[cfg(test)]
mod tests;
mod whole;

use candle_core::{DType, Module, Result, Tensor};
use rayon::prelude::*;

use crate::model::{
    config::LanguageConfig,
    kernels::{Activation, HeadNorms, Heads, Rotary, Visible, attention, split_heads},
    layers::{Dropout, LayerNorm, Linear, RmsNorm, Tap},
    weights::{RowTable, Weights},
};

pub use cache::KvCache;
pub use session::Session;
pub use whole::Prefix;

/// The language model.
#[derive(Debug)]
pub struct Phi {
    config: LanguageConfig,
    words: RowTable,
    layers: Vec<Layer>,
    norm: LayerNorm,
    head: Linear,
    rotary: Rotary,
    cache_dtype: DType,
}

impl Phi {
    /// Reads `model.*` and `lm_head.*` below `w` (`language` in a bundle) but the token table,
    /// which stays in the file.
    ///
    /// # Errors
    ///
    /// When a tensor is missing or of another shape.
    pub fn load(config: &LanguageConfig, w: &Weights) -> Result<Self> {
        let (hidden, model) = (config.hidden, w.pp("model"));
        let below = model.pp("layers");
        let layers: Vec<Layer> = (0..config.layers)
            .into_par_iter()
            .map(|i| Layer::load(config, &below.pp(i)))
            .collect::<Result<_>>()?;
        // Beside quantised weights f16 is exact enough, and a batch's cache is large: 40 MB a
        // row for every 64 tokens in f32 at the published size.
        let half = w.device().is_cpu() && layers.iter().any(|layer| layer.qkv.is_quantised());
        Ok(Self {
            words: model.rows(config.vocabulary, hidden, "embed_tokens.weight")?,
            layers,
            cache_dtype: if half { DType::F16 } else { w.dtype() },
            norm: LayerNorm::load(&model.pp("final_layernorm"), hidden, config.eps)?,
            head: Linear::load(&w.pp("lm_head"), hidden, config.vocabulary)?,
            rotary: rotary(config, w, true)?,
            config: config.clone(),
        })
    }

    /// The same model with rotary tables in full precision instead of the f16 in which the
    /// published model holds them; `w` as for [`Phi::load`].
    ///
    /// # Errors
    ///
    /// When the device has no room.
    pub fn with_exact_rotary(mut self, w: &Weights) -> Result<Self> {
        self.rotary = rotary(&self.config, w, false)?;
        Ok(self)
    }

    /// The same model that drops some of what goes into each low-rank addition: for one step of
    /// training.
    #[must_use]
    pub fn with_dropout(mut self, dropout: Dropout) -> Self {
        for (i, layer) in (0_u64..).zip(&mut self.layers) {
            let linears = [&mut layer.qkv, &mut layer.dense, &mut layer.fc1, &mut layer.fc2];
            for (part, linear) in (4 * i..).zip(linears) {
                linear.set_dropout(dropout.of_part(part));
            }
        }
        self
    }

    /// Sizes of the model.
    pub fn config(&self) -> &LanguageConfig {
        &self.config
    }

    /// Embeddings `(ids, hidden)` of tokens.
    ///
    /// # Errors
    ///
    /// When an id lies beyond the vocabulary.
    pub fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        self.words.gather(ids)
    }

    /// Runs embeddings `(rows, tokens, hidden)` behind what `cache` holds and adds them to it.
    ///
    /// Returns the residual stream `(rows, tokens, hidden)` for [`Phi::logits`].
    ///
    /// # Errors
    ///
    /// When the rows are not those of the cache or the sequence grows longer than the model's
    /// `max_positions`.
    pub fn forward(&self, embeds: &Tensor, cache: &mut KvCache) -> Result<Tensor> {
        self.forward_tapped(embeds, cache, &mut Tap::none())
    }

    /// As [`Phi::forward`], showing `phi.layer0.{input_layernorm,qkv,q_layernorm,k_layernorm,
    /// dense,post_layernorm,mlp}` and so on, `phi.layer0` and so on.
    ///
    /// # Errors
    ///
    /// As [`Phi::forward`].
    pub fn forward_tapped(
        &self,
        embeds: &Tensor,
        cache: &mut KvCache,
        tap: &mut Tap<'_>,
    ) -> Result<Tensor> {
        let (rows, tokens, _) = embeds.dims3()?;
        if rows != cache.rows() || self.layers.len() != cache.layers.len() {
            candle_core::bail!(
                "{rows} rows through {} layers with a cache of {} rows and {} layers",
                self.layers.len(),
                cache.rows(),
                cache.layers.len()
            );
        }
        let positions = cache.positions(tokens);
        let mut xs = embeds.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            xs = layer.forward(&xs, &self.rotary, &positions, cache, i, tap)?;
            tap.see(format_args!("phi.layer{i}"), &xs);
        }
        cache.len += tokens;
        Ok(xs)
    }

    /// Logits `(.., vocabulary)` in f32 of the residual stream `(.., hidden)`.
    ///
    /// # Errors
    ///
    /// When `xs` is of another width.
    pub fn logits(&self, xs: &Tensor) -> Result<Tensor> {
        self.logits_tapped(xs, &mut Tap::none())
    }

    /// As [`Phi::logits`], showing `phi.final_layernorm` and `phi.logits`.
    ///
    /// # Errors
    ///
    /// As [`Phi::logits`].
    pub fn logits_tapped(&self, xs: &Tensor, tap: &mut Tap<'_>) -> Result<Tensor> {
        let normed = self.norm.forward(xs)?;
        tap.see("phi.final_layernorm", &normed);
        let logits = self.head.forward(&normed)?.to_dtype(DType::F32)?;
        tap.see("phi.logits", &logits);
        Ok(logits)
    }

    /// Logits `(rows, vocabulary)` of the token after the last, for embeddings
    /// `(rows, tokens, hidden)` behind what `cache` holds.
    ///
    /// # Errors
    ///
    /// As [`Phi::forward`].
    pub fn next_logits(&self, embeds: &Tensor, cache: &mut KvCache) -> Result<Tensor> {
        let xs = self.forward(embeds, cache)?;
        self.logits(&xs.narrow(1, xs.dim(1)? - 1, 1)?.squeeze(1)?)
    }

    /// An empty cache for this model; see [`KvCache`].
    pub fn cache(&self, padding: &[usize]) -> KvCache {
        KvCache::new(self.layers.len(), padding, self.cache_dtype)
    }
}

fn rotary(config: &LanguageConfig, w: &Weights, rounded: bool) -> Result<Rotary> {
    let (dims, base, positions) = (config.rotary, config.rope_theta, config.max_positions);
    Rotary::new(dims, base, positions, rounded, w.dtype(), w.device())
}

/// Joins prompts `(tokens, hidden)` of different lengths to one batch `(rows, longest, hidden)`,
/// the shorter ones behind zeros; also how many zeros each row has, for [`Phi::cache`].
///
/// # Errors
///
/// When there is no prompt or they differ in width.
pub fn left_pad(prompts: &[Tensor]) -> Result<(Tensor, Vec<usize>)> {
    let lengths = prompts.iter().map(|p| p.dim(0)).collect::<Result<Vec<_>>>()?;
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let padding: Vec<usize> = lengths.iter().map(|n| longest - n).collect();
    let rows = prompts.iter().zip(&padding).map(|(prompt, &n)| {
        if n == 0 { prompt.contiguous() } else { prompt.contiguous()?.pad_with_zeros(0, n, 0) }
    });
    Ok((Tensor::stack(&rows.collect::<Result<Vec<_>>>()?, 0)?, padding))
}

/// One layer: attention and MLP side by side behind one norm.
#[derive(Debug)]
struct Layer {
    /// Norms are there as [`LanguageConfig::norms`] says.
    norm: Option<LayerNorm>,
    qkv: Linear,
    head_norms: Option<HeadNorms>,
    dense: Linear,
    post_norm: Option<RmsNorm>,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
    scale: f64,
}

impl Layer {
    fn load(config: &LanguageConfig, w: &Weights) -> Result<Self> {
        let (hidden, dim) = (config.hidden, config.head_dim());
        let (own, mlp) = (w.pp("self_attn"), w.pp("mlp"));
        let inner = config.intermediate;
        let lora = |w: Weights, input, output| {
            Linear::load_with_lora(&w, input, output, config.lora_scale)
        };
        let head_norm =
            |name| LayerNorm::load(&own.pp(name), dim, config.eps).map(|norm| norm.parameters());
        let head_norms =
            || HeadNorms::new(head_norm("q_layernorm")?, head_norm("k_layernorm")?, config.eps);
        let norm = || LayerNorm::load(&w.pp("input_layernorm"), hidden, config.eps);
        let post_norm = || RmsNorm::load(&w.pp("post_layernorm"), hidden, config.rms_eps);
        let norms = config.norms;
        Ok(Self {
            norm: norms.input.then(norm).transpose()?,
            qkv: lora(own.pp("query_key_value"), hidden, 3 * hidden)?,
            head_norms: norms.query_key.then(head_norms).transpose()?,
            dense: lora(own.pp("dense"), hidden, hidden)?,
            post_norm: norms.post.then(post_norm).transpose()?,
            fc1: lora(mlp.pp("fc1"), hidden, inner)?,
            fc2: lora(mlp.pp("fc2"), inner, hidden)?,
            heads: config.heads,
            scale: (dim as f64).powf(-0.5),
        })
    }

    /// `(rows, tokens, hidden)` to the same shape.
    fn forward(
        &self,
        xs: &Tensor,
        rotary: &Rotary,
        positions: &[u32],
        cache: &mut KvCache,
        i: usize,
        tap: &mut Tap<'_>,
    ) -> Result<Tensor> {
        let normed = self.input(xs)?;
        tap.see(format_args!("phi.layer{i}.input_layernorm"), &normed);
        let qkv = self.qkv.forward(&normed)?;
        if tap.is_on() {
            self.show_heads(&qkv, positions, i, tap)?;
        }
        let Heads { q, k, v, .. } = self.split(&qkv, Some(rotary), positions)?;
        let (k, v) = cache.append(i, &k, &v)?;
        let hidden = cache.is_padded().then_some(&*cache.hidden);
        let visible = Visible { causal: true, hidden };
        let mixed = attention(&q.transpose(1, 2)?, &k, &v, self.scale, visible)?;
        self.finish(xs, &normed, &mixed, i, tap)
    }

    /// What attention and MLP read.
    fn input(&self, xs: &Tensor) -> Result<Tensor> {
        self.norm.as_ref().map_or_else(|| Ok(xs.clone()), |norm| norm.forward(xs))
    }

    fn split(&self, qkv: &Tensor, rotary: Option<&Rotary>, positions: &[u32]) -> Result<Heads> {
        split_heads(qkv, self.heads, self.head_norms.as_ref(), rotary, positions)
    }

    /// What follows attention, whose heads are `mixed`: `(rows, tokens, hidden)`.
    fn finish(
        &self,
        xs: &Tensor,
        normed: &Tensor,
        mixed: &Tensor,
        i: usize,
        tap: &mut Tap<'_>,
    ) -> Result<Tensor> {
        let attended = self.dense.forward(mixed)?;
        tap.see(format_args!("phi.layer{i}.dense"), &attended);
        let attended = match &self.post_norm {
            Some(norm) => norm.forward(&attended)?,
            None => attended,
        };
        tap.see(format_args!("phi.layer{i}.post_layernorm"), &attended);
        let mlp = self.fc2.forward(&self.fc1.forward_then(normed, Activation::GeluTanh)?)?;
        tap.see(format_args!("phi.layer{i}.mlp"), &mlp);
        (attended + mlp)? + xs
    }

    /// Shows the product and its normed queries and keys, `(rows, tokens, heads, head_dim)`,
    /// before they are turned.
    fn show_heads(
        &self,
        qkv: &Tensor,
        positions: &[u32],
        i: usize,
        tap: &mut Tap<'_>,
    ) -> Result<()> {
        tap.see(format_args!("phi.layer{i}.qkv"), qkv);
        let Heads { q, k, .. } = self.split(qkv, None, positions)?;
        tap.see(format_args!("phi.layer{i}.q_layernorm"), &q.transpose(1, 2)?);
        tap.see(format_args!("phi.layer{i}.k_layernorm"), &k.transpose(1, 2)?);
        Ok(())
    }
}
