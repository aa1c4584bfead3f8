//! Attention straight from strided views, one head at a time.
//!
//! Scores of some queries at once stay in the cache: two small products around a
//! softmax in place. Nothing is transposed or copied, and the result is written as
//! `(batch, queries, heads * dim)`, ready for the next product.

mod backward;

use std::{cell::RefCell, ops::Range};

use candle_core::{CpuStorage, CustomOp3, D, DType, Device, Layout, Result, Shape, Tensor};
use half::{f16, slice::HalfFloatSliceExt};
use rayon::prelude::*;

use super::{
    differentiable, fusable,
    math::{dispatch, dot, exp_in_place, fma, max},
    memory::{Out, View, product},
};

use backward::{Packed, Tracked};

/// Scores that are held at once: 512 KiB, about half of a second-level cache.
const SCORES_AT_ONCE: usize = 1 << 17;

/// Which keys a query sees.
#[derive(Debug, Clone, Copy, Default)]
pub struct Visible<'a> {
    /// Each query sees the keys up to its own place, the last query all of them.
    pub causal: bool,
    /// Keys that no query of a row sees, one range for each row of the batch: padding.
    pub hidden: Option<&'a [Range<usize>]>,
}

/// `softmax(scale q k^T) v` for each head.
///
/// `q` is `(batch, queries, heads, dim)`, `k` and `v` are `(batch, keys, heads, dim)`, in any
/// memory order with the last dimension adjacent; on a CPU `k` and `v` may be f16. Returns
/// `(batch, queries, heads * dim)` in the type of `q`. A query that sees no key at all gets
/// zeros on a CPU and some finite numbers elsewhere.
///
/// # Errors
///
/// When the shapes do not fit.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    scale: f64,
    visible: Visible<'_>,
) -> Result<Tensor> {
    let (batch, queries, heads, dim) = q.dims4()?;
    let keys = k.dim(1)?;
    if k.dims() != [batch, keys, heads, dim] || v.dims() != k.dims() {
        candle_core::bail!("attention of {:?} to {:?} and {:?}", q.dims(), k.dims(), v.dims());
    }
    visible.check(batch, queries, keys)?;
    if differentiable(&[Some(q), Some(k), Some(v)]) {
        return q.apply_op3(k, v, Tracked::new(scale, visible));
    }
    if fusable(q) && !k.track_op() && !v.track_op() {
        q.apply_op3_no_bwd(k, v, &Fused { scale: scale as f32, visible })
    } else {
        plain(q, k, v, scale, visible)
    }
}

/// Queries, keys and values of a self-attention in one tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// `(batch, tokens, 3, heads, dim)`, as one product gives them.
    Tokens,
    /// `(3, batch, heads, tokens, dim)`, as [`split_heads`](super::split_heads) gives them.
    Heads,
}

impl Packing {
    /// The queries, keys or values of `packed`: `(batch, tokens, heads, dim)`.
    fn part(self, packed: &Tensor, i: usize) -> Result<Tensor> {
        match self {
            Self::Tokens => packed.narrow(2, i, 1)?.squeeze(2),
            Self::Heads => packed.narrow(0, i, 1)?.squeeze(0)?.transpose(1, 2),
        }
    }
}

/// As [`attention`] of the three parts of `packed` to each other: with gradients cheaper than
/// that of the parts, whose gradients would have to be put together again.
///
/// # Errors
///
/// When the shape is not that of the packing or `visible` does not fit.
pub fn self_attention(
    packed: &Tensor,
    packing: Packing,
    scale: f64,
    visible: Visible<'_>,
) -> Result<Tensor> {
    if differentiable(&[Some(packed)]) {
        let op = Packed::new(packing, Tracked::new(scale, visible));
        let [batch, tokens, _, _] = op.sizes(packed.dims())?;
        visible.check(batch, tokens, tokens)?;
        return packed.contiguous()?.apply_op1(op);
    }
    let part = |i| packing.part(packed, i);
    attention(&part(0)?, &part(1)?, &part(2)?, scale, visible)
}

impl Visible<'_> {
    /// Checks that the mask fits.
    fn check(&self, batch: usize, queries: usize, keys: usize) -> Result<()> {
        if self.causal && queries > keys {
            candle_core::bail!("causal attention of {queries} queries to {keys} keys");
        }
        if let Some(hidden) = self.hidden
            && (hidden.len() != batch || hidden.iter().any(|r| r.start > r.end || r.end > keys))
        {
            candle_core::bail!("attention to {batch} x {keys} keys without {hidden:?}");
        }
        Ok(())
    }

    /// Keys of the row `batch` that none of the queries sees, among the first `seen`.
    fn hidden(&self, batch: usize, seen: usize) -> Range<usize> {
        let hidden = self.hidden.map_or(0..0, |hidden| hidden[batch].clone());
        hidden.start.min(seen)..hidden.end.min(seen)
    }
}

/// Attention by candle's own operations.
fn plain(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64, visible: Visible<'_>) -> Result<Tensor> {
    let (batch, queries, heads, dim) = q.dims4()?;
    let keys = k.dim(1)?;
    let by_head = |xs: &Tensor| xs.transpose(1, 2)?.to_dtype(q.dtype())?.contiguous();
    let (q, k, v) = (by_head(&(q * scale)?)?, by_head(k)?, by_head(v)?);
    let mut scores = q.matmul(&k.t()?)?; // (batch, heads, queries, keys)
    if visible.hidden.is_some() || (visible.causal && queries > 1) {
        let mask = mask(batch, queries, keys, visible, q.dtype(), q.device())?;
        scores = scores.broadcast_add(&mask)?;
    }
    let weights = if scores.track_op() {
        candle_nn::ops::softmax(&scores, D::Minus1)?
    } else {
        candle_nn::ops::softmax_last_dim(&scores)?
    };
    weights.matmul(&v)?.transpose(1, 2)?.reshape((batch, queries, heads * dim))
}

/// `(batch, 1, queries, keys)`: zero where a key is seen, very negative elsewhere.
fn mask(
    batch: usize,
    queries: usize,
    keys: usize,
    visible: Visible<'_>,
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    let mut mask = vec![0.0_f32; batch * queries * keys];
    for (at, value) in mask.iter_mut().enumerate() {
        let (row, query, key) = (at / keys / queries, at / keys % queries, at % keys);
        let later = visible.causal && key + queries > query + keys;
        if later || visible.hidden.is_some_and(|hidden| hidden[row].contains(&key)) {
            *value = -60_000.0;
        }
    }
    Tensor::from_vec(mask, (batch, 1, queries, keys), device)?.to_dtype(dtype)
}

struct Fused<'a> {
    scale: f32,
    visible: Visible<'a>,
}

impl CustomOp3 for Fused<'_> {
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
        let q = View::new(q.as_slice::<f32>()?, q_layout)?;
        let shape = Shape::from((q.batch, q.tokens, q.heads * q.dim));
        let out = match (k, v) {
            (CpuStorage::F32(k), CpuStorage::F32(v)) => {
                self.run(q, View::new(k, k_layout)?, View::new(v, v_layout)?)
            }
            (CpuStorage::F16(k), CpuStorage::F16(v)) => {
                self.run(q, View::new(k, k_layout)?, View::new(v, v_layout)?)
            }
            _ => candle_core::bail!("attention takes keys and values in f32 or f16"),
        };
        Ok((CpuStorage::F32(out), shape))
    }
}

/// Keys and values as they are stored.
trait Stored: Copy + Send + Sync {
    /// The first `tokens` vectors of `data` as f32 and their distance, in `scratch` if they
    /// must be converted.
    fn widen<'a>(
        data: &'a [Self],
        tokens: usize,
        dim: usize,
        stride: usize,
        scratch: &'a mut Vec<f32>,
    ) -> (&'a [f32], usize);
}

impl Stored for f32 {
    fn widen<'a>(
        data: &'a [Self],
        _tokens: usize,
        _dim: usize,
        stride: usize,
        _scratch: &'a mut Vec<f32>,
    ) -> (&'a [f32], usize) {
        (data, stride)
    }
}

impl Stored for f16 {
    fn widen<'a>(
        data: &'a [Self],
        tokens: usize,
        dim: usize,
        stride: usize,
        scratch: &'a mut Vec<f32>,
    ) -> (&'a [f32], usize) {
        scratch.resize(tokens * dim, 0.0);
        if stride == dim {
            data[..tokens * dim].convert_to_f32_slice(scratch);
            return (scratch, dim);
        }
        for (wide, narrow) in scratch.chunks_exact_mut(dim).zip(data.chunks(stride)) {
            narrow[..dim].convert_to_f32_slice(wide);
        }
        (scratch, dim)
    }
}

/// Buffers of one thread.
#[derive(Default)]
struct Scratch {
    scores: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The scores of some queries of one head: where they are and which keys they see.
struct Task {
    /// First of the queries.
    first: usize,
    /// How many queries.
    count: usize,
    /// Keys that the last of them sees.
    keys: usize,
    /// Keys that none of them sees.
    hidden: Range<usize>,
}

/// How many blocks of queries there are, and how many queries a block has.
///
/// They are of nearly one size: 1,025 queries are nine of 114, not eight of 127 and a rest.
fn blocks(queries: usize, keys: usize) -> (usize, usize) {
    let blocks = queries.div_ceil((SCORES_AT_ONCE / keys).max(32));
    (blocks, queries.div_ceil(blocks))
}

impl Fused<'_> {
    fn run<T: Stored>(&self, q: View<'_, f32>, k: View<'_, T>, v: View<'_, T>) -> Vec<f32> {
        let (queries, keys) = (q.tokens, k.tokens);
        let mut out = vec![0.0_f32; q.batch * queries * q.heads * q.dim];
        if out.is_empty() || keys == 0 {
            return out;
        }
        let (blocks, block) = blocks(queries, keys);
        let width = q.heads * q.dim;
        let address = Out::new(&mut out);
        let one = |at: usize| {
            let (pair, first) = (at / blocks, at % blocks * block);
            let (batch, head) = (pair / q.heads, pair % q.heads);
            let count = block.min(queries.saturating_sub(first));
            if count == 0 {
                return;
            }
            let seen = if self.visible.causal { keys - queries + first + count } else { keys };
            let hidden = self.visible.hidden(batch, seen);
            let task = Task { first, count, keys: seen, hidden };
            let to = address.at((batch * queries + first) * width + head * q.dim);
            SCRATCH.with_borrow_mut(|scratch| {
                let Scratch { scores, keys, values } = scratch;
                let query = (q.head(batch, head, first), q.strides[1]);
                let key = T::widen(k.head(batch, head, 0), seen, q.dim, k.strides[1], keys);
                let value = T::widen(v.head(batch, head, 0), seen, q.dim, v.strides[1], values);
                scores.resize((count * seen).max(scores.len()), 0.0);
                let scores = &mut scores[..count * seen];
                if count == 1 {
                    self.single(&task, query.0, key, value, scores, q.dim, to);
                } else {
                    self.block(&task, queries, query, key, value, scores, q.dim, (to, width));
                }
            });
        };
        let tasks = q.batch * q.heads * blocks;
        let work = block * keys * q.dim;
        (0..tasks).into_par_iter().with_min_len((1 << 16) / work.max(1)).for_each(one);
        out
    }

    /// One query: dot products, no matrix product.
    #[expect(clippy::too_many_arguments, reason = "the operands of one product")]
    fn single(
        &self,
        task: &Task,
        query: &[f32],
        (keys, key_stride): (&[f32], usize),
        (values, value_stride): (&[f32], usize),
        scores: &mut [f32],
        dim: usize,
        to: *mut f32,
    ) {
        #[expect(unsafe_code, reason = "see `Out`")]
        // SAFETY: `to` begins `dim` numbers inside the output that this task alone writes.
        let out = unsafe { std::slice::from_raw_parts_mut(to, dim) };
        scores_of(&query[..dim], keys, key_stride, self.scale, scores);
        soften(scores, &task.hidden);
        mix(scores, values, value_stride, out);
    }

    /// Writes what some queries give of their attention to each key into `scores`.
    fn weights(
        &self,
        task: &Task,
        (query, query_stride): (&[f32], usize),
        (keys, key_stride): (&[f32], usize),
        scores: &mut [f32],
        dim: usize,
    ) {
        let (m, n) = (task.count, task.keys);
        assert!(query.len() >= (m - 1) * query_stride + dim, "queries lie in their buffer");
        assert!(keys.len() >= (n - 1) * key_stride + dim, "keys lie in their buffer");
        assert!(scores.len() == m * n, "scores have their buffer");
        #[expect(unsafe_code, reason = "gemm takes addresses")]
        // SAFETY: the operands and scores lie in their buffers as asserted.
        unsafe {
            product(
                (m, n, dim),
                (scores.as_mut_ptr(), n),
                (query.as_ptr(), query_stride, 1),
                (keys.as_ptr(), 1, key_stride),
                self.scale,
            );
        }
        for (row, scores) in scores.chunks_exact_mut(n).enumerate() {
            // How many keys this query does not see although the last of the block does.
            let later = if self.visible.causal { m - 1 - row } else { 0 };
            let (seen, unseen) = scores.split_at_mut(n - later);
            unseen.fill(0.0);
            let hidden = task.hidden.start.min(seen.len())..task.hidden.end.min(seen.len());
            soften(seen, &hidden);
        }
    }

    /// Some queries: two products around a softmax of each row.
    #[expect(clippy::too_many_arguments, reason = "the operands of two products")]
    fn block(
        &self,
        task: &Task,
        queries: usize,
        (query, query_stride): (&[f32], usize),
        (keys, key_stride): (&[f32], usize),
        (values, value_stride): (&[f32], usize),
        scores: &mut [f32],
        dim: usize,
        (to, to_stride): (*mut f32, usize),
    ) {
        let (m, n) = (task.count, task.keys);
        self.weights(task, (query, query_stride), (keys, key_stride), scores, dim);
        assert!(values.len() >= (n - 1) * value_stride + dim, "values lie in their buffer");
        debug_assert!(task.first + m <= queries);
        #[expect(unsafe_code, reason = "gemm takes addresses")]
        // SAFETY: the operands lie in their buffers as asserted; `to` begins `m` rows of `dim` that this task alone writes.
        unsafe {
            product(
                (m, dim, n),
                (to, to_stride),
                (scores.as_ptr(), n, 1),
                (values.as_ptr(), value_stride, 1),
                1.0,
            );
        }
    }
}

#[inline(always)]
fn scores_body<const FMA: bool>(
    query: &[f32],
    keys: &[f32],
    stride: usize,
    scale: f32,
    scores: &mut [f32],
) {
    for (score, key) in scores.iter_mut().zip(keys.chunks(stride)) {
        *score = scale * dot::<FMA>(query, &key[..query.len()]);
    }
}

/// Softmax in place; the `hidden` scores become zero.
#[inline(always)]
fn soften_body<const FMA: bool>(scores: &mut [f32], hidden: &Range<usize>) {
    let top = max(&scores[..hidden.start]).max(max(&scores[hidden.end..]));
    let sum = exp_in_place::<FMA>(&mut scores[..hidden.start], top)
        + exp_in_place::<FMA>(&mut scores[hidden.end..], top);
    scores[hidden.clone()].fill(0.0);
    if sum > 0.0 {
        let scale = 1.0 / sum;
        for x in scores.iter_mut() {
            *x *= scale;
        }
    }
}

#[inline(always)]
fn mix_body<const FMA: bool>(weights: &[f32], values: &[f32], stride: usize, out: &mut [f32]) {
    for (&weight, value) in weights.iter().zip(values.chunks(stride)) {
        for (out, v) in out.iter_mut().zip(value) {
            *out = fma::<FMA>(weight, *v, *out);
        }
    }
}

dispatch!(
    fn scores_of(query: &[f32], keys: &[f32], stride: usize, scale: f32, scores: &mut [f32]),
    scores_body
);
dispatch!(fn soften(scores: &mut [f32], hidden: &Range<usize>), soften_body);
dispatch!(fn mix(weights: &[f32], values: &[f32], stride: usize, out: &mut [f32]), mix_body);

#[cfg(test)]
mod tests {
    use super::super::tests::{equal_differences, equal_plain, error, random};
    use super::*;

    /// Masks for a batch of two with five keys or more.
    fn masks() -> [(bool, Option<Vec<Range<usize>>>); 5] {
        [
            (false, None),
            (true, None),
            (false, Some(vec![0..2, 3..5])),
            (true, Some(vec![1..3, 0..0])),
            // The first queries of the first row see no key at all.
            (true, Some(vec![0..3, 2..2])),
        ]
    }

    #[test]
    fn gradients_equal_differences() -> Result<()> {
        let packed = [random(&[2, 5, 3, 2, 4], 1)?];
        let inputs = [3, 5, 5].map(|tokens| random(&[2, tokens, 2, 4], tokens as u64));
        let inputs = inputs.into_iter().collect::<Result<Vec<_>>>()?;
        for (causal, hidden) in masks() {
            let visible = Visible { causal, hidden: hidden.as_deref() };
            equal_differences(&inputs, &|xs| attention(&xs[0], &xs[1], &xs[2], 0.4, visible))?;
            let of = |xs: &[Tensor]| self_attention(&xs[0], Packing::Tokens, 0.4, visible);
            equal_differences(&packed, &of)?;
        }
        Ok(())
    }

    #[test]
    fn gradients_equal_those_of_plain_operations() -> Result<()> {
        for (queries, keys) in [(1, 6), (7, 7), (16, 65), (400, 420)] {
            let sizes =
                [queries, keys, keys].map(|tokens| random(&[2, tokens, 3, 20], tokens as u64));
            let inputs = sizes.into_iter().collect::<Result<Vec<_>>>()?;
            for (causal, hidden) in &masks()[..4] {
                let visible = Visible { causal: *causal, hidden: hidden.as_deref() };
                equal_plain(&inputs, &|xs| attention(&xs[0], &xs[1], &xs[2], 0.2, visible))?;
            }
        }
        Ok(())
    }

    #[test]
    fn packed_gradients_equal_those_of_plain_operations() -> Result<()> {
        let visible = Visible { causal: true, hidden: Some(&[0..0, 1..3]) };
        for tokens in [1, 6, 65, 500] {
            let inputs = [random(&[2, tokens, 3, 3, 20], 1)?];
            let of = |packing| move |xs: &[Tensor]| self_attention(&xs[0], packing, 0.2, visible);
            let hidden = if tokens > 3 { visible } else { Visible::default() };
            equal_plain(&inputs, &|xs| self_attention(&xs[0], Packing::Tokens, 0.2, hidden))?;
            if tokens > 3 {
                let inputs = [inputs[0].permute((2, 0, 3, 1, 4))?.contiguous()?];
                equal_plain(&inputs, &of(Packing::Heads))?;
            }
        }
        Ok(())
    }

    #[test]
    fn views_of_one_tensor_and_of_one_picture_for_all_have_gradients() -> Result<()> {
        let inputs = [random(&[3, 5, 2, 2, 8], 1)?, random(&[1, 9, 2, 2, 8], 2)?];
        equal_plain(&inputs, &|xs| {
            let query = xs[0].narrow(2, 1, 1)?.squeeze(2)?;
            let part = |i| xs[1].narrow(2, i, 1)?.squeeze(2)?.broadcast_as((3, 9, 2, 8));
            attention(&query, &part(0)?, &part(1)?, 0.3, Visible::default())
        })
    }

    #[test]
    fn without_keys_every_gradient_is_zero() -> Result<()> {
        let query = candle_core::Var::from_tensor(&random(&[2, 3, 2, 4], 1)?)?;
        let none = random(&[2, 0, 2, 4], 2)?;
        let out = attention(query.as_tensor(), &none, &none, 1.0, Visible::default())?;
        let gradients = out.sum_all()?.backward()?;
        let sum = gradients.get(&query).map(|xs| xs.abs()?.sum_all()?.to_scalar::<f32>());
        assert_eq!(sum.transpose()?, Some(0.0));
        Ok(())
    }

    fn agree(q: &Tensor, k: &Tensor, v: &Tensor, visible: Visible<'_>) -> Result<()> {
        let fused = attention(q, k, v, 0.3, visible)?;
        let plain = plain(q, k, v, 0.3, visible)?;
        assert!(error(&fused, &plain)? < 2e-6, "{visible:?}: {}", error(&fused, &plain)?);
        Ok(())
    }

    /// Queries, keys and values as they lie behind one product: `(batch, tokens, 3, heads, dim)`.
    fn from_one_product(tokens: usize) -> Result<[Tensor; 3]> {
        let qkv = random(&[2, tokens, 3, 3, 24], 1)?;
        let part = |i| qkv.narrow(2, i, 1)?.squeeze(2);
        Ok([part(0)?, part(1)?, part(2)?])
    }

    #[test]
    fn strided_heads_give_what_plain_operations_give() -> Result<()> {
        for tokens in [1, 2, 32, 200] {
            let [q, k, v] = from_one_product(tokens)?;
            agree(&q, &k, &v, Visible::default())?;
            agree(&q, &k, &v, Visible { causal: true, hidden: None })?;
        }
        Ok(())
    }

    #[test]
    fn hidden_keys_do_not_count() -> Result<()> {
        let [q, k, v] = from_one_product(130)?;
        agree(&q, &k, &v, Visible { causal: false, hidden: Some(&[0..7, 100..130]) })?;
        // Behind a cache: fewer queries than keys, a hole between a prefix and the rest.
        let late = q.narrow(1, 110, 20)?;
        agree(&late, &k, &v, Visible { causal: true, hidden: Some(&[20..55, 0..0]) })?;
        let last = q.narrow(1, 129, 1)?;
        agree(&last, &k, &v, Visible { causal: true, hidden: Some(&[0..3, 9..40]) })
    }

    #[test]
    fn a_query_without_keys_gets_zeros() -> Result<()> {
        let [q, k, v] = from_one_product(5)?;
        let visible = Visible { causal: true, hidden: Some(&[0..2, 0..0]) };
        let out = attention(&q, &k, &v, 1.0, visible)?;
        let first = out.narrow(0, 0, 1)?.narrow(1, 0, 2)?.abs()?.sum_all()?;
        assert!(first.to_scalar::<f32>()? < f32::MIN_POSITIVE);
        Ok(())
    }

    #[test]
    fn keys_and_values_may_be_f16() -> Result<()> {
        for tokens in [1, 40] {
            let q = random(&[2, tokens, 3, 24], 1)?;
            let [_, k, v] = from_one_product(40)?;
            let half = |xs: Tensor, strided: bool| {
                let xs = xs.to_dtype(DType::F16)?;
                // As a cache holds them: heads before tokens.
                if strided { Ok(xs) } else { xs.transpose(1, 2)?.contiguous()?.transpose(1, 2) }
            };
            let (k, v) = (half(k, true)?, half(v, false)?);
            let wide = |xs: &Tensor| xs.to_dtype(DType::F32);
            let visible = Visible { causal: true, hidden: Some(&[0..3, 0..0]) };
            let got = attention(&q, &k, &v, 0.2, visible)?;
            let expected = attention(&q, &wide(&k)?, &wide(&v)?, 0.2, visible)?;
            assert!(error(&got, &expected)? < 1e-6);
        }
        Ok(())
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() -> Result<()> {
        let [q, k, v] = from_one_product(8)?;
        let short = k.narrow(1, 0, 4)?;
        assert!(attention(&q, &short, &v, 1.0, Visible::default()).is_err());
        let causal = Visible { causal: true, hidden: None };
        assert!(attention(&q, &short, &v.narrow(1, 0, 4)?, 1.0, causal).is_err());
        let beyond = Visible { causal: false, hidden: Some(&[0..9, 0..0]) };
        assert!(attention(&q, &k, &v, 1.0, beyond).is_err());
        Ok(())
    }
}
