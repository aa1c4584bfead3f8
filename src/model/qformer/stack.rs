//! The layers of a Q-Former.

use candle_core::{Module, Result, Tensor};
use rayon::prelude::*;

use crate::model::{
    config::QFormerConfig,
    kernels::{Activation, Visible, attention},
    layers::{LayerNorm, Linear, Tap},
    weights::Weights,
};

/// Keys and values `(rows, tokens, heads, head_dim)` of one attention.
#[derive(Debug, Clone)]
pub(super) struct KeysValues {
    keys: Tensor,
    values: Tensor,
}

impl KeysValues {
    /// The rows at `rows`, u32.
    pub(super) fn select(&self, rows: &Tensor) -> Result<Self> {
        Ok(Self {
            keys: self.keys.index_select(rows, 0)?,
            values: self.values.index_select(rows, 0)?,
        })
    }

    /// These tokens, then those of `later`.
    fn then(&self, later: &Self) -> Result<Self> {
        Ok(Self {
            keys: Tensor::cat(&[&self.keys, &later.keys], 1)?,
            values: Tensor::cat(&[&self.values, &later.values], 1)?,
        })
    }

    /// The same for a batch: one row serves all.
    fn for_rows(&self, batch: usize) -> Result<Self> {
        let (rows, tokens, heads, dim) = self.keys.dims4()?;
        if rows == batch {
            return Ok(self.clone());
        }
        let wide = |xs: &Tensor| xs.broadcast_as((batch, tokens, heads, dim));
        Ok(Self { keys: wide(&self.keys)?, values: wide(&self.values)? })
    }
}

/// What the queries of a pass look at.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Pictures<'a> {
    /// Nothing: a pass of text.
    #[default]
    None,
    /// Tokens `(batch, tokens, encoder_width)` or `(1, ..)`.
    Tokens(&'a Tensor),
    /// What [`Stack::see`] made of them, for each layer.
    Seen(&'a [Option<KeysValues>]),
}

/// What a pass through the layers is about.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pass<'a> {
    /// Leading tokens that are queries; the others are text.
    pub(super) queries: usize,
    /// What the queries look at.
    pub(super) pictures: Pictures<'a>,
    /// Who sees whom among the tokens.
    pub(super) visible: Visible<'a>,
    /// For each layer keys and values of tokens that stand before those of this pass.
    pub(super) before: Option<&'a [KeysValues]>,
}

/// The embedding norm and the layers.
#[derive(Debug)]
pub(super) struct Stack {
    norm: LayerNorm,
    pub(super) layers: Vec<Layer>,
}

impl Stack {
    /// Reads the query side if `encoder_width` is given, and the text side if `text`.
    pub(super) fn load(
        config: &QFormerConfig,
        w: &Weights,
        encoder_width: Option<usize>,
        text: bool,
    ) -> Result<Self> {
        let bert = w.pp("Qformer.bert");
        let layers = bert.pp("encoder.layer");
        Ok(Self {
            norm: LayerNorm::load(&bert.pp("embeddings.LayerNorm"), config.hidden, config.eps)?,
            layers: (0..config.layers)
                .into_par_iter()
                .map(|i| Layer::load(config, &layers.pp(i), i, encoder_width, text))
                .collect::<Result<_>>()?,
        })
    }

    /// Keys and values of every layer that looks at pictures, of their normed tokens
    /// `(pictures, tokens, encoder_width)`: for several passes over the same pictures.
    pub(super) fn see(&self, encoded: &Tensor) -> Result<Vec<Option<KeysValues>>> {
        let see = |layer: &Layer| layer.cross.as_ref().map(|cross| cross.project(encoded));
        self.layers.iter().map(|layer| see(layer).transpose()).collect()
    }

    /// `(batch, queries + text, hidden)` to the same shape.
    pub(super) fn forward(&self, xs: &Tensor, pass: Pass<'_>, tap: &mut Tap<'_>) -> Result<Tensor> {
        self.run(xs, pass, None, tap)
    }

    /// As [`Stack::forward`], adding the tokens' keys and values in each layer to `kept`.
    pub(super) fn forward_keeping(
        &self,
        xs: &Tensor,
        pass: Pass<'_>,
        kept: &mut Vec<KeysValues>,
        tap: &mut Tap<'_>,
    ) -> Result<Tensor> {
        self.run(xs, pass, Some(kept), tap)
    }

    fn run(
        &self,
        xs: &Tensor,
        pass: Pass<'_>,
        mut kept: Option<&mut Vec<KeysValues>>,
        tap: &mut Tap<'_>,
    ) -> Result<Tensor> {
        let mut xs = self.norm.forward(xs)?;
        tap.see("qformer.embeddings", &xs);
        for (i, layer) in self.layers.iter().enumerate() {
            let mut own = layer.attention.project(&xs)?;
            if let Some(kept) = &mut kept {
                kept.push(own.clone());
            }
            if let Some(before) = pass.before {
                own = before[i].then(&own)?;
            }
            xs = layer.forward(&xs, &own, pass, i, tap)?;
            tap.see(format_args!("qformer.layer{i}"), &xs);
        }
        tap.see("qformer.last_hidden", &xs);
        Ok(xs)
    }
}

/// One layer, with the sides that were asked for.
#[derive(Debug)]
pub(super) struct Layer {
    attention: Attention,
    pub(super) cross: Option<Attention>,
    pub(super) query: Option<FeedForward>,
    text: Option<FeedForward>,
}

impl Layer {
    fn load(
        config: &QFormerConfig,
        w: &Weights,
        i: usize,
        encoder_width: Option<usize>,
        text: bool,
    ) -> Result<Self> {
        let cross = encoder_width.filter(|_| QFormerConfig::has_cross_attention(i));
        Ok(Self {
            attention: Attention::load(config, config.hidden, &w.pp("attention"))?,
            cross: cross
                .map(|width| Attention::load(config, width, &w.pp("crossattention")))
                .transpose()?,
            query: encoder_width
                .map(|_| FeedForward::load(config, w, "intermediate_query", "output_query"))
                .transpose()?,
            text: text
                .then(|| FeedForward::load(config, w, "intermediate", "output"))
                .transpose()?,
        })
    }

    /// `own` are the keys and values that `xs` looks at.
    fn forward(
        &self,
        xs: &Tensor,
        own: &KeysValues,
        pass: Pass<'_>,
        i: usize,
        tap: &mut Tap<'_>,
    ) -> Result<Tensor> {
        let xs = self.attention.forward(xs, own, pass.visible)?;
        tap.see(format_args!("qformer.layer{i}.self"), &xs);
        let queries = pass.queries;
        let text = xs.dim(1)? - queries;
        let mut sides = Vec::with_capacity(2);
        if queries > 0 {
            let mut xs = xs.narrow(1, 0, queries)?.contiguous()?;
            if let Some(cross) = &self.cross {
                let projected;
                let others = match pass.pictures {
                    Pictures::None => candle_core::bail!("queries without a picture"),
                    Pictures::Tokens(tokens) => {
                        projected = cross.project(tokens)?;
                        &projected
                    }
                    Pictures::Seen(layers) => match layers.get(i) {
                        Some(Some(seen)) => seen,
                        _ => candle_core::bail!("layer {i} has not seen the pictures"),
                    },
                };
                xs = cross.forward(&xs, others, Visible::default())?;
                tap.see(format_args!("qformer.layer{i}.cross"), &xs);
            }
            sides.push(side(self.query.as_ref(), "query")?.forward(&xs)?);
        }
        if text > 0 {
            let xs = xs.narrow(1, queries, text)?.contiguous()?;
            sides.push(side(self.text.as_ref(), "text")?.forward(&xs)?);
        }
        if sides.len() == 1 { Ok(sides.remove(0)) } else { Tensor::cat(&sides, 1) }
    }
}

/// The feed-forward part of a side, which must have been read.
fn side<'a>(side: Option<&'a FeedForward>, name: &str) -> Result<&'a FeedForward> {
    side.ok_or_else(|| candle_core::Error::msg(format!("the {name} side was not loaded")))
}

/// Multi-head attention with its output layer, residual and norm.
#[derive(Debug)]
pub(super) struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    dense: Linear,
    norm: LayerNorm,
    heads: usize,
    scale: f64,
}

impl Attention {
    fn load(config: &QFormerConfig, key_width: usize, w: &Weights) -> Result<Self> {
        let hidden = config.hidden;
        let (own, output) = (w.pp("self"), w.pp("output"));
        Ok(Self {
            query: Linear::load(&own.pp("query"), hidden, hidden)?,
            key: Linear::load(&own.pp("key"), key_width, hidden)?,
            value: Linear::load(&own.pp("value"), key_width, hidden)?,
            dense: Linear::load(&output.pp("dense"), hidden, hidden)?,
            norm: LayerNorm::load(&output.pp("LayerNorm"), hidden, config.eps)?,
            heads: config.heads,
            scale: (config.head_dim() as f64).powf(-0.5),
        })
    }

    /// Keys and values of `others` `(rows, tokens, width)`.
    fn project(&self, others: &Tensor) -> Result<KeysValues> {
        let (rows, tokens, _) = others.dims3()?;
        let heads = |xs: Tensor| xs.reshape((rows, tokens, self.heads, ()));
        Ok(KeysValues {
            keys: heads(self.key.forward(others)?)?,
            values: heads(self.value.forward(others)?)?,
        })
    }

    /// `xs` `(batch, tokens, hidden)` looking at `others`, of as many rows or of one; the shape
    /// of `xs`.
    fn forward(&self, xs: &Tensor, others: &KeysValues, visible: Visible<'_>) -> Result<Tensor> {
        let (batch, tokens, _) = xs.dims3()?;
        let query = self.query.forward(xs)?.reshape((batch, tokens, self.heads, ()))?;
        let others = others.for_rows(batch)?;
        let mixed = attention(&query, &others.keys, &others.values, self.scale, visible)?;
        self.norm.forward(&(self.dense.forward(&mixed)? + xs)?)
    }
}

/// Feed-forward part with its residual and norm.
#[derive(Debug)]
pub(super) struct FeedForward {
    inner: Linear,
    outer: Linear,
    norm: LayerNorm,
}

impl FeedForward {
    fn load(config: &QFormerConfig, w: &Weights, inner: &str, outer: &str) -> Result<Self> {
        let (hidden, intermediate) = (config.hidden, config.intermediate);
        let outer = w.pp(outer);
        Ok(Self {
            inner: Linear::load(&w.pp(inner).pp("dense"), hidden, intermediate)?,
            outer: Linear::load(&outer.pp("dense"), intermediate, hidden)?,
            norm: LayerNorm::load(&outer.pp("LayerNorm"), hidden, config.eps)?,
        })
    }
}

impl Module for FeedForward {
    /// `(batch, tokens, hidden)` to the same shape.
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let inner = self.inner.forward_then(xs, Activation::GeluErf)?;
        self.norm.forward(&(self.outer.forward(&inner)? + xs)?)
    }
}
