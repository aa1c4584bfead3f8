//! The keys and values of a batch.

use std::ops::Range;

use candle_core::{DType, Result, Tensor};

/// Tokens by which a full cache grows at least.
const GROWTH: usize = 64;

/// Keys and values of the tokens so far.
///
/// Made by [`Phi::cache`](super::Phi::cache) for a batch of rows of which each begins with some padding. Memory is
/// taken in steps as the sequence grows. It cannot be cloned, because its tensors are written in
/// place; see [`KvCache::fork`].
#[derive(Debug)]
pub struct KvCache {
    pub(super) layers: Vec<LayerCache>,
    /// For each row the places that nobody looks at.
    pub(super) hidden: Vec<Range<usize>>,
    pub(super) len: usize,
    dtype: DType,
}

/// Keys and values `(rows, heads, capacity, head_dim)` of one layer.
#[derive(Debug, Default)]
pub(super) struct LayerCache {
    held: Option<(Tensor, Tensor)>,
}

impl KvCache {
    /// An empty cache of `layers` layers for rows that begin with so much padding, in `dtype`.
    pub(super) fn new(layers: usize, padding: &[usize], dtype: DType) -> Self {
        Self {
            layers: (0..layers).map(|_| LayerCache::default()).collect(),
            hidden: padding.iter().map(|&n| 0..n).collect(),
            len: 0,
            dtype,
        }
    }

    /// Whether some row holds padding.
    pub(super) fn is_padded(&self) -> bool {
        self.hidden.iter().any(|range| !range.is_empty())
    }

    /// Rows of the batch.
    pub fn rows(&self) -> usize {
        self.hidden.len()
    }

    /// Tokens held for each row, padding included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no tokens.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Keeps the rows at `rows`, in that order; a row may be kept several times.
    ///
    /// # Errors
    ///
    /// When there is no such row.
    pub fn select(&mut self, rows: &[usize]) -> Result<()> {
        if rows.iter().any(|&row| row >= self.rows()) {
            candle_core::bail!("rows {rows:?} of a cache of {}", self.rows());
        }
        if rows.iter().copied().eq(0..self.rows()) {
            return Ok(());
        }
        let ids: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
        for layer in &mut self.layers {
            if let Some((keys, values)) = &mut layer.held {
                let ids = Tensor::new(ids.as_slice(), keys.device())?;
                *keys = keys.index_select(&ids, 0)?;
                *values = values.index_select(&ids, 0)?;
            }
        }
        self.hidden = rows.iter().map(|&row| self.hidden[row].clone()).collect();
        Ok(())
    }

    /// A batch that goes on from a prefix: a row for each number in `padding`, which begins
    /// with the tokens of this cache's only row and then with that much padding.
    ///
    /// # Errors
    ///
    /// When this cache holds several rows, or padding of its own.
    pub fn fork(&self, padding: &[usize]) -> Result<Self> {
        if self.rows() != 1 || !self.hidden[0].is_empty() {
            candle_core::bail!("a prefix is one row without padding");
        }
        let repeated = |xs: &Tensor| {
            let (_, heads, capacity, dim) = xs.dims4()?;
            // Its own memory in any case: a batch writes behind the prefix.
            xs.broadcast_as((padding.len(), heads, capacity, dim))?.force_contiguous()
        };
        let layers = self.layers.iter().map(|layer| {
            let held = layer.held.as_ref();
            let held: Option<Result<_>> =
                held.map(|(keys, values)| Ok((repeated(keys)?, repeated(values)?)));
            Ok(LayerCache { held: held.transpose()? })
        });
        Ok(Self {
            layers: layers.collect::<Result<_>>()?,
            hidden: padding.iter().map(|&n| self.len..self.len + n).collect(),
            len: self.len,
            dtype: self.dtype,
        })
    }

    /// Positions of the next `tokens` tokens, row by row: places before them that count;
    /// padding has position 1.
    pub(super) fn positions(&self, tokens: usize) -> Vec<u32> {
        let places = self.len..self.len + tokens;
        let position = |hidden: &Range<usize>, place: usize| match place {
            _ if hidden.contains(&place) => 1,
            _ if place < hidden.start => place,
            _ => place - hidden.len(),
        };
        self.hidden
            .iter()
            .flat_map(|hidden| places.clone().map(move |place| position(hidden, place) as u32))
            .collect()
    }

    /// Adds keys and values `(rows, heads, tokens, head_dim)` to a layer and returns all it
    /// then holds, `(rows, tokens so far, heads, head_dim)`.
    pub(super) fn append(
        &mut self,
        layer: usize,
        keys: &Tensor,
        values: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let (rows, heads, tokens, dim) = keys.dims4()?;
        let len = self.len + tokens;
        let held = self.layers[layer].held.take();
        let (old_keys, old_values) = match held {
            Some(held) if held.0.dim(2)? >= len => held,
            held => {
                let capacity = len.max(self.len + GROWTH).next_multiple_of(16);
                let grow = |old: Option<&Tensor>| -> Result<Tensor> {
                    let shape = (rows, heads, capacity, dim);
                    let new = Tensor::zeros(shape, self.dtype, keys.device())?;
                    if let Some(old) = old {
                        new.slice_set(&old.narrow(2, 0, self.len)?.contiguous()?, 2, 0)?;
                    }
                    Ok(new)
                };
                let (old_keys, old_values) = held.unzip();
                (grow(old_keys.as_ref())?, grow(old_values.as_ref())?)
            }
        };
        old_keys.slice_set(&keys.to_dtype(self.dtype)?, 2, self.len)?;
        old_values.slice_set(&values.to_dtype(self.dtype)?, 2, self.len)?;
        let all = |xs: &Tensor| xs.narrow(2, 0, len)?.transpose(1, 2);
        let views = (all(&old_keys)?, all(&old_values)?);
        self.layers[layer].held = Some((old_keys, old_values));
        Ok(views)
    }
}
