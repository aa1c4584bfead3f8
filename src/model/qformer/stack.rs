//! The layers of a Q-Former.

use std::ops::Range;

use candle_core::{Module, Result, Tensor};
use rayon::prelude::*;

use crate::model::{
    config::QFormerConfig,
    kernels::{Activation, Visible, attention},
    layers::{LayerNorm, Linear, Tap},
    weights::Weights,
};

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

    /// `(batch, queries + text, hidden)` to the same shape. `encoded` is what the queries look
    /// at, `(batch, tokens, encoder_width)` or `(1, ..)`; `hidden` the padding of each row, or
    /// nothing where there is none.
    pub(super) fn forward(
        &self,
        xs: &Tensor,
        queries: usize,
        encoded: Option<&Tensor>,
        hidden: &[Range<usize>],
        tap: &mut Tap<'_>,
    ) -> Result<Tensor> {
        let mut xs = self.norm.forward(xs)?;
        tap.see("qformer.embeddings", &xs);
        let padded = hidden.iter().any(|range| !range.is_empty());
        let visible = Visible { causal: false, hidden: padded.then_some(hidden) };
        for (i, layer) in self.layers.iter().enumerate() {
            xs = layer.forward(&xs, queries, encoded, visible, i, tap)?;
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

    fn forward(
        &self,
        xs: &Tensor,
        queries: usize,
        encoded: Option<&Tensor>,
        visible: Visible<'_>,
        i: usize,
        tap: &mut Tap<'_>,
    ) -> Result<Tensor> {
        let xs = self.attention.forward(xs, xs, visible)?;
        tap.see(format_args!("qformer.layer{i}.self"), &xs);
        let text = xs.dim(1)? - queries;
        let mut sides = Vec::with_capacity(2);
        if queries > 0 {
            let mut xs = xs.narrow(1, 0, queries)?.contiguous()?;
            if let (Some(cross), Some(encoded)) = (&self.cross, encoded) {
                xs = cross.forward(&xs, encoded, Visible::default())?;
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

    /// `xs` `(batch, tokens, hidden)` looking at `others` `(batch, others, width)` or
    /// `(1, ..)`; the shape of `xs`.
    fn forward(&self, xs: &Tensor, others: &Tensor, visible: Visible<'_>) -> Result<Tensor> {
        let (batch, _, hidden) = xs.dims3()?;
        let heads = |xs: Tensor| {
            let (rows, tokens, _) = xs.dims3()?;
            let xs = xs.reshape((rows, tokens, self.heads, hidden / self.heads))?;
            if rows == batch {
                Ok(xs)
            } else {
                xs.broadcast_as((batch, tokens, self.heads, hidden / self.heads))
            }
        };
        let query = heads(self.query.forward(xs)?)?;
        let (key, value) = (heads(self.key.forward(others)?)?, heads(self.value.forward(others)?)?);
        let mixed = attention(&query, &key, &value, self.scale, visible)?;
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
