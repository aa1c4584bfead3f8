//! Whole sequences at once, through which gradients pass: what training runs.
//!
//! A [`KvCache`](super::KvCache) is written in place, which no gradient survives. Padding stands
//! on the right here: nobody looks ahead, so it needs no mask.

use candle_core::{Module, Result, Tensor};

use super::{Layer, Phi};
use crate::model::{
    kernels::{Heads, Rotary, Visible, attention},
    layers::Tap,
};

/// Keys and values `(rows, heads, tokens, head_dim)` of sequences that others go on from, layer
/// by layer.
#[derive(Debug, Clone)]
pub struct Prefix {
    layers: Vec<(Tensor, Tensor)>,
    rows: usize,
    tokens: usize,
}

impl Prefix {
    /// How many sequences.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Tokens of each.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The sequences at `rows`; a sequence may be taken several times.
    fn select(&self, rows: &[u32]) -> Result<Option<Vec<(Tensor, Tensor)>>> {
        if rows.iter().any(|&row| row as usize >= self.rows) {
            candle_core::bail!("rows {rows:?} of a prefix of {}", self.rows);
        }
        let Some((first, _)) = self.layers.first() else { return Ok(None) };
        if rows.len() == self.rows && rows.iter().copied().eq(0..self.rows as u32) {
            return Ok(None);
        }
        let rows = Tensor::new(rows, first.device())?;
        let select = |(keys, values): &(Tensor, Tensor)| {
            Ok((keys.index_select(&rows, 0)?, values.index_select(&rows, 0)?))
        };
        self.layers.iter().map(select).collect::<Result<_>>().map(Some)
    }
}

impl Phi {
    /// The residual stream `(rows, tokens, hidden)` of whole sequences, embeddings of that shape,
    /// for [`Phi::logits`]. Shorter sequences are padded on the right with anything.
    ///
    /// # Errors
    ///
    /// When the sequences are longer than the model's `max_positions`.
    pub fn forward_whole(&self, embeds: &Tensor) -> Result<Tensor> {
        self.run_whole(embeds, 0, None, None)
    }

    /// As [`Phi::forward_whole`], also keeping what sequences that go on from these need. All of
    /// them are as long as the batch.
    ///
    /// # Errors
    ///
    /// As [`Phi::forward_whole`].
    pub fn forward_prefix(&self, embeds: &Tensor) -> Result<(Tensor, Prefix)> {
        let (rows, tokens, _) = embeds.dims3()?;
        let mut layers = Vec::with_capacity(self.layers.len());
        let xs = self.run_whole(embeds, 0, None, Some(&mut layers))?;
        Ok((xs, Prefix { layers, rows, tokens }))
    }

    /// As [`Phi::forward_whole`], for sequences of which row `i` goes on from row `rows[i]` of
    /// `prefix`: what is common to several sequences is run once.
    ///
    /// # Errors
    ///
    /// When there are not as many `rows` as sequences, there is no such row, or a sequence grows
    /// longer than the model's `max_positions`.
    pub fn forward_after(&self, prefix: &Prefix, rows: &[u32], embeds: &Tensor) -> Result<Tensor> {
        if rows.len() != embeds.dim(0)? {
            candle_core::bail!("{} rows for {:?}", rows.len(), embeds.dims());
        }
        let selected = prefix.select(rows)?;
        let before = selected.as_ref().unwrap_or(&prefix.layers);
        self.run_whole(embeds, prefix.tokens, Some(before), None)
    }

    fn run_whole(
        &self,
        embeds: &Tensor,
        first: usize,
        before: Option<&[(Tensor, Tensor)]>,
        mut kept: Option<&mut Vec<(Tensor, Tensor)>>,
    ) -> Result<Tensor> {
        let (rows, tokens, _) = embeds.dims3()?;
        let places = first as u32..(first + tokens) as u32;
        let positions: Vec<u32> = (0..rows).flat_map(|_| places.clone()).collect();
        let mut xs = embeds.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            let before = before.map(|layers| &layers[i]);
            let own;
            (xs, own) = layer.forward_whole(&xs, &self.rotary, &positions, before, i)?;
            if let Some(kept) = &mut kept {
                kept.push(own);
            }
        }
        Ok(xs)
    }
}

impl Layer {
    /// `(rows, tokens, hidden)` to the same shape, and the keys and values of these tokens.
    fn forward_whole(
        &self,
        xs: &Tensor,
        rotary: &Rotary,
        positions: &[u32],
        before: Option<&(Tensor, Tensor)>,
        i: usize,
    ) -> Result<(Tensor, (Tensor, Tensor))> {
        let normed = self.input(xs)?;
        let qkv = self.qkv.forward(&normed)?;
        let heads = self.split(&qkv, Some(rotary), positions)?;
        let visible = Visible { causal: true, hidden: None };
        let mixed = match before {
            None => heads.attend(self.scale, visible)?,
            Some((keys, values)) => {
                let join =
                    |old: &Tensor, new: &Tensor| Tensor::cat(&[old, new], 2)?.transpose(1, 2);
                let (keys, values) = (join(keys, &heads.k)?, join(values, &heads.v)?);
                attention(&heads.q.transpose(1, 2)?, &keys, &values, self.scale, visible)?
            }
        };
        let Heads { k, v, .. } = heads;
        Ok((self.finish(xs, &normed, &mixed, i, &mut Tap::none())?, (k, v)))
    }
}
