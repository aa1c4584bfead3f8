//! Gradients of attention: the weights are computed anew, so nothing is kept but the inputs.
//!
//! With `p = softmax(scale q k^T)` and the gradient `g` of `p v`, the values get `p^T g`, the
//! scores `s = scale p (g v^T - d)` with the sums `d` of each row of `p g v^T`, the queries
//! `s k` and the keys `s^T q`.

use std::{cell::RefCell, ops::Range};

use candle_core::{CpuStorage, CustomOp1, CustomOp3, Device, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{Fused, Packing, Task, Visible, blocks};
use crate::model::kernels::{
    math::{dispatch, dot},
    memory::{Blank, Held, Out, View, add_product, product},
    values,
};

/// An attention of which gradients are wanted, with a mask of its own.
pub(super) struct Tracked {
    scale: f32,
    causal: bool,
    hidden: Option<Vec<Range<usize>>>,
}

impl Tracked {
    pub(super) fn new(scale: f64, visible: Visible<'_>) -> Self {
        let hidden = visible.hidden.map(<[_]>::to_vec);
        Self { scale: scale as f32, causal: visible.causal, hidden }
    }

    fn fused(&self) -> Fused<'_> {
        let visible = Visible { causal: self.causal, hidden: self.hidden.as_deref() };
        Fused { scale: self.scale, visible }
    }
}

impl CustomOp3 for Tracked {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.fused().cpu_fwd(q, q_layout, k, k_layout, v, v_layout)
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let op = CustomOp3::name(self);
        let grad = grad.contiguous()?;
        let held = [Held::whole(q, op)?, Held::whole(k, op)?, Held::whole(v, op)?];
        let views = [
            View::new(&held[0], q.layout())?,
            View::new(&held[1], k.layout())?,
            View::new(&held[2], v.layout())?,
        ];
        let [mut to_q, mut to_k, mut to_v] = [q, k, v].map(|part| Blank::new(part.elem_count()));
        let targets = [
            Target::contiguous(to_q.out(), &views[0]),
            Target::contiguous(to_k.out(), &views[1]),
            Target::contiguous(to_v.out(), &views[2]),
        ];
        self.fused().backward(views, &Held::new(&grad, op)?, targets);
        #[expect(unsafe_code, reason = "see `Blank`")]
        // SAFETY: `backward` writes every gradient of each batch, token and head.
        let [to_q, to_k, to_v] = unsafe { [to_q.written(), to_k.written(), to_v.written()] };
        let tensor = |values, of: &Tensor| {
            of.track_op().then(|| Tensor::from_vec(values, of.dims(), &Device::Cpu)).transpose()
        };
        Ok((tensor(to_q, q)?, tensor(to_k, k)?, tensor(to_v, v)?))
    }
}

/// A self-attention whose queries, keys and values are one tensor.
pub(super) struct Packed {
    packing: Packing,
    attention: Tracked,
}

impl Packed {
    pub(super) fn new(packing: Packing, attention: Tracked) -> Self {
        Self { packing, attention }
    }

    /// Batch, tokens, heads and dimensions of a head.
    pub(super) fn sizes(&self, dims: &[usize]) -> Result<[usize; 4]> {
        match (self.packing, dims) {
            (Packing::Tokens, &[batch, tokens, 3, heads, dim])
            | (Packing::Heads, &[3, batch, heads, tokens, dim]) => Ok([batch, tokens, heads, dim]),
            _ => candle_core::bail!("{dims:?} are no queries, keys and values"),
        }
    }

    /// Where the three parts begin and the distances of their rows, tokens and heads.
    fn places(&self, [batch, tokens, heads, dim]: [usize; 4]) -> ([usize; 3], [usize; 3]) {
        let (width, part) = (heads * dim, batch * tokens * heads * dim);
        match self.packing {
            Packing::Tokens => ([0, width, 2 * width], [tokens * 3 * width, 3 * width, dim]),
            Packing::Heads => ([0, part, 2 * part], [tokens * width, dim, tokens * dim]),
        }
    }

    /// The three parts of contiguous `packed`.
    fn views<'a>(&self, packed: &'a [f32], sizes: [usize; 4]) -> [View<'a, f32>; 3] {
        let ([batch, tokens, heads, dim], (starts, strides)) = (sizes, self.places(sizes));
        // Parts of an empty tensor begin nowhere.
        let from = |start: usize| packed.get(start..).unwrap_or_default();
        starts.map(|start| View { data: from(start), batch, tokens, heads, dim, strides })
    }
}

impl CustomOp1 for Packed {
    fn name(&self) -> &'static str {
        "self-attention"
    }

    fn cpu_fwd(&self, packed: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let sizes = self.sizes(layout.dims())?;
        let [batch, tokens, heads, dim] = sizes;
        let [q, k, v] = self.views(values(packed, layout, self.name())?, sizes);
        let out = self.attention.fused().run(q, k, v);
        Ok((CpuStorage::F32(out), Shape::from((batch, tokens, heads * dim))))
    }

    fn bwd(&self, packed: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (op, sizes) = (self.name(), self.sizes(packed.dims())?);
        let grad = grad.contiguous()?;
        let held = Held::new(packed, op)?;
        let mut out = Blank::new(packed.elem_count());
        let (address, (starts, strides)) = (out.out(), self.places(sizes));
        let targets = starts.map(|start| Target { at: address.after(start), strides });
        let views = self.views(&held, sizes);
        self.attention.fused().backward(views, &Held::new(&grad, op)?, targets);
        #[expect(unsafe_code, reason = "see `Blank`")]
        // SAFETY: `backward` writes every gradient of each batch, token and head.
        let out = unsafe { out.written() };
        Tensor::from_vec(out, packed.dims(), &Device::Cpu).map(Some)
    }
}

/// Where gradients go: an address and the distances of rows, tokens and heads.
#[derive(Clone, Copy)]
struct Target {
    at: Out,
    strides: [usize; 3],
}

impl Target {
    /// For gradients of `part` one behind the other.
    fn contiguous(at: Out, part: &View<'_, f32>) -> Self {
        let width = part.heads * part.dim;
        Self { at, strides: [part.tokens * width, width, part.dim] }
    }

    /// The gradients of one head from the token `first` on, with the distance of tokens.
    fn head(&self, batch: usize, head: usize, first: usize) -> (*mut f32, usize) {
        let [by_batch, by_token, by_head] = self.strides;
        (self.at.at(batch * by_batch + head * by_head + first * by_token), by_token)
    }
}

thread_local! {
    /// Weights, and gradients of scores, of some queries.
    static SCRATCH: RefCell<(Vec<f32>, Vec<f32>)> = RefCell::default();
}

impl Fused<'_> {
    /// Writes the gradients of queries, keys and values, all of them, to `targets`.
    fn backward(&self, views: [View<'_, f32>; 3], grad: &[f32], targets: [Target; 3]) {
        let [q, k, v] = &views;
        let work = q.tokens * k.tokens * q.dim;
        (0..q.batch * q.heads).into_par_iter().with_min_len((1 << 15) / work.max(1)).for_each(
            |pair| {
                let (batch, head) = (pair / q.heads, pair % q.heads);
                self.backward_of_head([q, k, v], grad, targets, batch, head);
            },
        );
    }

    fn backward_of_head(
        &self,
        [q, k, v]: [&View<'_, f32>; 3],
        grad: &[f32],
        [to_q, to_k, to_v]: [Target; 3],
        batch: usize,
        head: usize,
    ) {
        let (queries, keys, dim, width) = (q.tokens, k.tokens, q.dim, q.heads * q.dim);
        if queries == 0 || keys == 0 || dim == 0 {
            zero(to_q.head(batch, head, 0), queries, dim);
            zero(to_k.head(batch, head, 0), keys, dim);
            zero(to_v.head(batch, head, 0), keys, dim);
            return;
        }
        let (blocks, block) = blocks(queries, keys);
        if blocks > 1 {
            zero(to_k.head(batch, head, 0), keys, dim);
            zero(to_v.head(batch, head, 0), keys, dim);
        }
        let (key, value) = (k.head(batch, head, 0), v.head(batch, head, 0));
        SCRATCH.with_borrow_mut(|(weights, scores)| {
            for first in (0..queries).step_by(block) {
                let count = block.min(queries - first);
                let seen = if self.visible.causal { keys - queries + first + count } else { keys };
                let hidden = self.visible.hidden(batch, seen);
                let n = count * seen;
                weights.resize(n.max(weights.len()), 0.0);
                scores.resize(n.max(scores.len()), 0.0);
                let (weights, scores) = (&mut weights[..n], &mut scores[..n]);
                let query = q.head(batch, head, first);
                let task = Task { first, count, keys: seen, hidden };
                self.weights(&task, (query, q.strides[1]), (key, k.strides[1]), weights, dim);
                let grad = &grad[(batch * queries + first) * width + head * dim..];
                assert!(grad.len() >= (count - 1) * width + dim, "gradients lie in their buffer");
                assert!(value.len() >= (seen - 1) * v.strides[1] + dim, "values do");
                // The only block of queries writes, one of several adds.
                let keep = if blocks > 1 { add_product } else { product };
                let (grad, key, value) = (grad.as_ptr(), key.as_ptr(), value.as_ptr());
                let (weights_at, scores_at) = (weights.as_ptr(), scores.as_mut_ptr());
                #[expect(unsafe_code, reason = "gemm takes addresses")]
                // SAFETY: the operands lie in their buffers as asserted here and by `weights`;
                // the targets hold `count` queries and `seen` keys of this head, which are this
                // task's alone.
                unsafe {
                    let to_value = to_v.head(batch, head, 0);
                    keep(
                        (seen, dim, count),
                        to_value,
                        (weights_at, 1, seen),
                        (grad, width, 1),
                        1.0,
                    );
                    let by_value = (value, 1, v.strides[1]);
                    product((count, seen, dim), (scores_at, seen), (grad, width, 1), by_value, 1.0);
                }
                let rows = weights.chunks_exact(seen).zip(scores.chunks_exact_mut(seen));
                rows.for_each(|(weights, scores)| to_scores(weights, self.scale, scores));
                let scores = scores.as_ptr();
                #[expect(unsafe_code, reason = "gemm takes addresses")]
                // SAFETY: as above.
                unsafe {
                    let (to_query, to_key) =
                        (to_q.head(batch, head, first), to_k.head(batch, head, 0));
                    let by_key = (key, k.strides[1], 1);
                    product((count, dim, seen), to_query, (scores, seen, 1), by_key, 1.0);
                    let by_query = (query.as_ptr(), q.strides[1], 1);
                    keep((seen, dim, count), to_key, (scores, 1, seen), by_query, 1.0);
                }
            }
        });
    }
}

/// Zeros for the gradients of `tokens` tokens of one head.
fn zero((to, stride): (*mut f32, usize), tokens: usize, dim: usize) {
    for token in 0..tokens {
        #[expect(unsafe_code, reason = "see `Out`")]
        // SAFETY: the tokens of a head lie in the target and are one task's alone.
        unsafe {
            std::slice::from_raw_parts_mut(to.wrapping_add(token * stride), dim).fill(0.0);
        }
    }
}

/// Turns gradients of weights into those of the scores behind the scale.
#[inline(always)]
fn to_scores_body<const FMA: bool>(weights: &[f32], scale: f32, scores: &mut [f32]) {
    let sum = dot::<FMA>(weights, scores);
    for (score, weight) in scores.iter_mut().zip(weights) {
        *score = scale * weight * (*score - sum);
    }
}

dispatch!(fn to_scores(weights: &[f32], scale: f32, scores: &mut [f32]), to_scores_body);
