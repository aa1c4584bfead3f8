//! How each tensor of a bundle is made from tensors of the published files.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use rayon::prelude::*;

use super::checkpoint::{Checkpoint, TensorRef};
use super::error::{ImportError, Result};

/// Where the values of a tensor come from.
#[derive(Debug, Clone)]
pub(super) enum Recipe {
    /// One tensor as it is; only its shape may be written differently.
    Copy(TensorRef),
    /// Rows `[head][q|k|v][head_dim]` from three tensors with rows `[head][head_dim]`.
    FuseHeads { parts: [TensorRef; 3], heads: usize },
    /// Rows `[head][q|k|v][head_dim]` from one tensor with rows `[q|k|v][head][head_dim]`.
    RegroupHeads { fused: TensorRef, heads: usize },
    /// The first (0) or last (2) third of a `[q, k, v]` bias whose middle must be zero.
    Third { of: TensorRef, index: usize },
    /// The same value everywhere.
    Fill(f32),
}

/// A low-rank addition `scale * B A` to a weight.
#[derive(Debug, Clone)]
pub(super) struct Merge {
    /// `(rank, inputs)`.
    pub(super) a: TensorRef,
    /// `(outputs, rank)`.
    pub(super) b: TensorRef,
    pub(super) rank: usize,
    pub(super) scale: f32,
}

/// The recipe of every tensor so far, by its name in the bundle.
#[derive(Debug, Default)]
pub(super) struct Plan {
    recipes: HashMap<String, Recipe>,
    merges: HashMap<String, Merge>,
}

impl Plan {
    /// Sets or replaces the recipe of `target`.
    pub(super) fn set(&mut self, target: impl Into<String>, recipe: Recipe) {
        self.recipes.insert(target.into(), recipe);
    }

    /// Adds a low-rank product to whatever `target` is made of.
    pub(super) fn merge(&mut self, target: impl Into<String>, merge: Merge) {
        self.merges.insert(target.into(), merge);
    }

    pub(super) fn contains(&self, target: &str) -> bool {
        self.recipes.contains_key(target)
    }

    /// The values of `target`, of `count` elements in all; `None` where there is no recipe.
    pub(super) fn make(&self, target: &str, count: usize) -> Option<Result<Vec<f32>>> {
        let recipe = self.recipes.get(target)?;
        let values = recipe.make(count);
        Some(match self.merges.get(target) {
            Some(merge) => values.and_then(|values| merge.apply(values)),
            None => values,
        })
    }
}

impl Recipe {
    fn make(&self, count: usize) -> Result<Vec<f32>> {
        match self {
            Self::Copy(tensor) => tensor.read(),
            Self::Fill(value) => Ok(vec![*value; count]),
            Self::FuseHeads { parts: [q, k, v], heads } => {
                let (q, k, v) = (q.read()?, k.read()?, v.read()?);
                let block = (q.len() / heads).max(1);
                let mut fused = Vec::with_capacity(3 * q.len());
                let of_head = q.chunks(block).zip(k.chunks(block)).zip(v.chunks(block));
                for ((q, k), v) in of_head {
                    fused.extend_from_slice(q);
                    fused.extend_from_slice(k);
                    fused.extend_from_slice(v);
                }
                Ok(fused)
            }
            Self::RegroupHeads { fused, heads } => {
                let values = fused.read()?;
                let block = (values.len() / (3 * heads)).max(1);
                let blocks: Vec<&[f32]> = values.chunks(block).collect();
                let order = (0..*heads).flat_map(|head| (0..3).map(move |part| (part, head)));
                Ok(order.flat_map(|(part, head)| blocks[part * heads + head]).copied().collect())
            }
            Self::Third { of, index } => {
                let values = of.read()?;
                let third = values.len() / 3;
                if values[third..2 * third].iter().any(|&v| v != 0.0) {
                    return Err(of.error("has a bias for keys, which this network cannot have"));
                }
                Ok(values[index * third..(index + 1) * third].to_vec())
            }
        }
    }
}

impl Merge {
    /// `weight + scale * B A` in f32.
    fn apply(&self, mut weight: Vec<f32>) -> Result<Vec<f32>> {
        let (a, b) = (self.a.read()?, self.b.read()?);
        let inputs = a.len() / self.rank;
        let rows = weight.par_chunks_mut(inputs).zip(b.par_chunks(self.rank));
        rows.for_each(|(row, factors)| {
            let mut sum = vec![0.0; inputs];
            for (factor, direction) in factors.iter().zip(a.chunks(inputs)) {
                for (s, d) in sum.iter_mut().zip(direction) {
                    *s += factor * d;
                }
            }
            for (w, s) in row.iter_mut().zip(sum) {
                *w += self.scale * s;
            }
        });
        Ok(weight)
    }
}

/// The tensors of a checkpoint that no part has taken yet.
pub(super) struct Claims<'a> {
    checkpoint: &'a Arc<Checkpoint>,
    left: BTreeSet<&'a str>,
}

impl<'a> Claims<'a> {
    pub(super) fn new(checkpoint: &'a Arc<Checkpoint>) -> Self {
        Self { checkpoint, left: checkpoint.names().collect() }
    }

    /// Takes the tensor `name`, which must be there with this shape.
    pub(super) fn take(&mut self, name: &str, shape: &[usize]) -> Result<TensorRef> {
        self.left.remove(name);
        let tensor = TensorRef::new(self.checkpoint, name);
        tensor.check(shape)?;
        Ok(tensor)
    }

    /// Takes the tensor `name` where it is there; it must then have this shape.
    pub(super) fn take_if_there(
        &mut self,
        name: &str,
        shape: &[usize],
    ) -> Result<Option<TensorRef>> {
        if self.checkpoint.contains(name) { self.take(name, shape).map(Some) } else { Ok(None) }
    }

    /// Leaves out, knowingly, every tensor whose name `known` accepts.
    pub(super) fn ignore(&mut self, known: impl Fn(&str) -> bool) {
        self.left.retain(|name| !known(name));
    }

    /// Checks that nothing is left that no part knows.
    pub(super) fn finish(self) -> Result<()> {
        let Some(name) = self.left.first() else { return Ok(()) };
        let path = self.checkpoint.file_of(name).to_owned();
        Err(ImportError::Extra { tensor: (*name).to_owned(), path })
    }
}
