//! What Phi does between its fused product and attention: split, norm, rotate.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Device, Layout, Result, Shape, Tensor};
use half::f16;
use rayon::prelude::*;

use super::{
    Packing, SERIAL, Visible, attention, differentiable, fusable, layer_norm,
    math::{dispatch, fma},
    memory::{Blank, Held, Out},
    norm::{layer_norm_backward, layer_norm_body},
    self_attention, values,
};

/// Layer norms of queries and keys over the width of a head, shared by all heads.
#[derive(Debug, Clone)]
pub struct HeadNorms {
    query: (Tensor, Tensor),
    key: (Tensor, Tensor),
    eps: f64,
    /// Query weight, query bias, key weight, key bias, for the fused way.
    flat: Arc<[Vec<f32>; 4]>,
}

impl HeadNorms {
    /// Norms with a weight and a bias each.
    ///
    /// # Errors
    ///
    /// When one of them is no vector.
    pub fn new(query: (Tensor, Tensor), key: (Tensor, Tensor), eps: f64) -> Result<Self> {
        let flat = |xs: &Tensor| xs.to_dtype(DType::F32)?.to_vec1::<f32>();
        let flat = [flat(&query.0)?, flat(&query.1)?, flat(&key.0)?, flat(&key.1)?];
        Ok(Self { query, key, eps, flat: Arc::new(flat) })
    }
}

/// Tables of rotary position embedding, rotating the first dimensions of a head in halves.
#[derive(Debug, Clone)]
pub struct Rotary {
    /// Dimensions that are rotated.
    dims: usize,
    /// Cosines and sines, `dims / 2` for each position.
    cos: Arc<Vec<f32>>,
    sin: Arc<Vec<f32>>,
    device_cos: Tensor,
    device_sin: Tensor,
}

impl Rotary {
    /// Tables for `positions` places with frequencies `base^(-2i / dims)`.
    ///
    /// With `rounded` the tables are rounded to f16 and back, as those of the published model
    /// are: it was loaded in f16 and its tables with it.
    ///
    /// # Errors
    ///
    /// When the device refuses the tables.
    pub fn new(
        dims: usize,
        base: f64,
        positions: usize,
        rounded: bool,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let half = dims / 2;
        let table = |f: fn(f64) -> f64| -> Vec<f32> {
            (0..positions * half)
                .map(|at| {
                    let (position, i) = (at / half, at % half);
                    let frequency = 1.0 / (base as f32).powf((2 * i) as f32 / dims as f32);
                    let value = f(f64::from(position as f32 * frequency)) as f32;
                    if rounded { f16::from_f32(value).to_f32() } else { value }
                })
                .collect()
        };
        let (cos, sin) = (table(f64::cos), table(f64::sin));
        let on_device =
            |xs: &[f32]| Tensor::from_slice(xs, (positions, half), device)?.to_dtype(dtype);
        let (device_cos, device_sin) = (on_device(&cos)?, on_device(&sin)?);
        Ok(Self { dims, cos: Arc::new(cos), sin: Arc::new(sin), device_cos, device_sin })
    }

    /// Positions that the tables hold.
    pub fn positions(&self) -> usize {
        self.device_cos.dims()[0]
    }

    /// Cosines and sines of a position that the tables hold.
    fn at(&self, position: u32) -> (&[f32], &[f32]) {
        let half = self.dims / 2;
        let place = position as usize * half..(position as usize + 1) * half;
        (&self.cos[place.clone()], &self.sin[place])
    }

    /// Rotates `(batch, tokens, heads, dim)` by candle's own operations.
    fn plain(&self, xs: &Tensor, positions: &[u32]) -> Result<Tensor> {
        let (batch, tokens, _, dim) = xs.dims4()?;
        let half = self.dims / 2;
        let ids = Tensor::new(positions, xs.device())?;
        let table = |table: &Tensor| table.index_select(&ids, 0)?.reshape((batch, tokens, 1, half));
        let (cos, sin) = (table(&self.device_cos)?, table(&self.device_sin)?);
        let (a, b) = (xs.narrow(3, 0, half)?, xs.narrow(3, half, half)?);
        let turned_a = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let turned_b = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
        let rest = xs.narrow(3, self.dims, dim - self.dims)?;
        Tensor::cat(&[turned_a, turned_b, rest.contiguous()?], 3)
    }
}

/// What [`split_heads`] gives: each is `(batch, heads, tokens, dim)` and contiguous.
#[derive(Debug, Clone)]
pub struct Heads {
    /// Queries, normed and rotated.
    pub q: Tensor,
    /// Keys, normed and rotated.
    pub k: Tensor,
    /// Values.
    pub v: Tensor,
    /// All three in one, where gradients are wanted.
    packed: Option<Tensor>,
}

impl Heads {
    fn of(packed: Tensor, keep: bool) -> Result<Self> {
        let part = |i| packed.narrow(0, i, 1)?.squeeze(0);
        let (q, k, v) = (part(0)?, part(1)?, part(2)?);
        Ok(Self { q, k, v, packed: keep.then_some(packed) })
    }

    /// [`attention()`] of these tokens to each other.
    ///
    /// # Errors
    ///
    /// When `visible` does not fit.
    pub fn attend(&self, scale: f64, visible: Visible<'_>) -> Result<Tensor> {
        if let Some(packed) = &self.packed {
            return self_attention(packed, Packing::Heads, scale, visible);
        }
        let by_token = |xs: &Tensor| xs.transpose(1, 2);
        attention(&by_token(&self.q)?, &by_token(&self.k)?, &by_token(&self.v)?, scale, visible)
    }
}

/// Splits `(batch, tokens, heads * 3 * dim)`, whose last dimension lies `[head][q|k|v][dim]`,
/// into queries and keys, normed and then rotated, and values.
///
/// `positions` holds the place of each token, `batch * tokens` in all; without `norms` nothing is
/// normed, without `rotary` nothing is rotated.
///
/// # Errors
///
/// When the shapes do not fit or a position lies beyond the tables.
pub fn split_heads(
    qkv: &Tensor,
    heads: usize,
    norms: Option<&HeadNorms>,
    rotary: Option<&Rotary>,
    positions: &[u32],
) -> Result<Heads> {
    let (batch, tokens, width) = qkv.dims3()?;
    let dim = width / heads / 3;
    let normed = norms.is_none_or(|norms| norms.flat[0].len() == dim);
    if width != heads * 3 * dim || !normed || positions.len() != batch * tokens {
        candle_core::bail!("splitting {:?} for {heads} heads of {dim}", qkv.dims());
    }
    if let Some(rotary) = rotary
        && let Some(&far) = positions.iter().find(|&&p| p as usize >= rotary.positions())
    {
        candle_core::bail!("position {far} is beyond the {} of the model", rotary.positions());
    }
    if let Some(norms) = norms {
        let parameters = [&norms.query.0, &norms.query.1, &norms.key.0, &norms.key.1];
        let eps = norms.eps as f32;
        let [a, b, c, d] = parameters.map(Some);
        if differentiable(&[Some(qkv), a, b, c, d]) {
            let (rotary, positions) = (rotary.cloned(), positions.to_vec());
            let split = TrackedSplit { heads, eps, rotary, positions };
            // One tensor, since an operation has three inputs at most.
            let parameters = Tensor::cat(&parameters, 0)?;
            return Heads::of(qkv.contiguous()?.apply_op2(&parameters, split)?, true);
        }
        if fusable(qkv) && parameters.iter().all(|xs| !xs.track_op()) {
            let parameters = norms.flat.each_ref().map(Vec::as_slice);
            let split = Split { heads, eps, parameters, rotary, positions };
            return Heads::of(qkv.contiguous()?.apply_op1_no_bwd(&split)?, false);
        }
    }
    let qkv = qkv.reshape((batch, tokens, heads, 3, dim))?;
    let part = |i| qkv.narrow(3, i, 1)?.squeeze(3)?.contiguous();
    let (mut q, mut k) = (part(0)?, part(1)?);
    if let Some(norms) = norms {
        q = layer_norm(&q, &norms.query.0, &norms.query.1, norms.eps)?;
        k = layer_norm(&k, &norms.key.0, &norms.key.1, norms.eps)?;
    }
    if let Some(rotary) = rotary {
        (q, k) = (rotary.plain(&q, positions)?, rotary.plain(&k, positions)?);
    }
    let by_head = |xs: &Tensor| xs.transpose(1, 2)?.contiguous();
    Ok(Heads { q: by_head(&q)?, k: by_head(&k)?, v: by_head(&part(2)?)?, packed: None })
}

struct Split<'a> {
    heads: usize,
    eps: f32,
    /// As [`HeadNorms::flat`].
    parameters: [&'a [f32]; 4],
    rotary: Option<&'a Rotary>,
    positions: &'a [u32],
}

impl CustomOp1 for Split<'_> {
    fn name(&self) -> &'static str {
        "split-heads"
    }

    fn cpu_fwd(&self, qkv: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, tokens, width) = layout.shape().dims3()?;
        let (heads, dim) = (self.heads, width / self.heads / 3);
        let qkv = values(qkv, layout, self.name())?;
        let mut out = vec![0.0_f32; qkv.len()];
        let (queries, rest) = out.split_at_mut(qkv.len() / 3);
        let (keys, values) = rest.split_at_mut(qkv.len() / 3);
        let [q_weight, q_bias, k_weight, k_bias] = self.parameters;
        let eps = self.eps;
        let one_head = |pair: usize, q: &mut [f32], k: &mut [f32], v: &mut [f32]| {
            let (row, head) = (pair / heads, pair % heads);
            let out =
                q.chunks_exact_mut(dim).zip(k.chunks_exact_mut(dim)).zip(v.chunks_exact_mut(dim));
            for (token, ((q, k), v)) in out.enumerate() {
                let at = row * tokens + token;
                let from = &qkv[at * width + head * 3 * dim..][..3 * dim];
                norm(&from[..dim], q_weight, q_bias, eps, q);
                norm(&from[dim..2 * dim], k_weight, k_bias, eps, k);
                v.copy_from_slice(&from[2 * dim..]);
                if let Some(rotary) = self.rotary {
                    let (cos, sin) = rotary.at(self.positions[at]);
                    rotate(&mut q[..rotary.dims], cos, sin);
                    rotate(&mut k[..rotary.dims], cos, sin);
                }
            }
        };
        let size = tokens * dim;
        if size > 0 {
            queries
                .par_chunks_mut(size)
                .zip(keys.par_chunks_mut(size))
                .zip(values.par_chunks_mut(size))
                .enumerate()
                .with_min_len((SERIAL / 3 / size).max(1))
                .for_each(|(pair, ((q, k), v))| one_head(pair, q, k, v));
        }
        Ok((CpuStorage::F32(out), Shape::from((3, batch, heads, tokens, dim))))
    }
}

/// [`Split`] where gradients are wanted; its second input are the parameters of
/// [`HeadNorms::flat`] one behind the other.
struct TrackedSplit {
    heads: usize,
    eps: f32,
    rotary: Option<Rotary>,
    positions: Vec<u32>,
}

impl TrackedSplit {
    /// Four vectors of `dim` numbers.
    fn four(parameters: &[f32]) -> [&[f32]; 4] {
        let dim = parameters.len() / 4;
        std::array::from_fn(|i| &parameters[i * dim..][..dim])
    }

    /// The gradients of `tokens` rows of one batch and head: reads those of `[q, k, v]`, writes
    /// those of the product's `[q|k|v]` to `out`, `width` apart, and adds those of the
    /// parameters to `sums`.
    fn backward_of_head(
        &self,
        parameters: [&[f32]; 4],
        qkv: &[f32],
        grads: [&[f32]; 3],
        positions: &[u32],
        (out, width): (Out, usize),
        sums: &mut [f32],
    ) {
        let dim = parameters[0].len();
        let mut turned = vec![0.0; dim];
        let (q_sums, k_sums) = sums.split_at_mut(2 * dim);
        let [q_weight, _, k_weight, _] = parameters;
        for (token, &position) in positions.iter().enumerate() {
            let from = &qkv[token * width..][..3 * dim];
            #[expect(unsafe_code, reason = "tasks write to different heads")]
            // SAFETY: the numbers of this token and head lie in the buffer and are this task's
            // alone; all three parts are written.
            let out = unsafe { out.part(token * width, 3 * dim) };
            let (out_qk, out_v) = out.split_at_mut(2 * dim);
            let sides = [(q_weight, &mut *q_sums), (k_weight, &mut *k_sums)];
            for (i, (weight, sums)) in sides.into_iter().enumerate() {
                turned.copy_from_slice(&grads[i][token * dim..][..dim]);
                if let Some(rotary) = &self.rotary {
                    let (cos, sin) = rotary.at(position);
                    rotate_back(&mut turned[..rotary.dims], cos, sin);
                }
                let (to_weight, to_bias) = sums.split_at_mut(dim);
                let (xs, out) = (&from[i * dim..][..dim], &mut out_qk[i * dim..][..dim]);
                layer_norm_backward(xs, weight, self.eps, &turned, out, to_weight, to_bias);
            }
            out_v.copy_from_slice(&grads[2][token * dim..][..dim]);
        }
    }
}

impl CustomOp2 for TrackedSplit {
    fn name(&self) -> &'static str {
        "split-heads"
    }

    fn cpu_fwd(
        &self,
        qkv: &CpuStorage,
        qkv_layout: &Layout,
        parameters: &CpuStorage,
        parameters_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let parameters = Self::four(values(parameters, parameters_layout, self.name())?);
        let Self { heads, eps, rotary, positions } = self;
        let rotary = rotary.as_ref();
        Split { heads: *heads, eps: *eps, parameters, rotary, positions }.cpu_fwd(qkv, qkv_layout)
    }

    fn bwd(
        &self,
        qkv: &Tensor,
        parameters: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (op, heads) = (self.name(), self.heads);
        let (batch, tokens, width) = qkv.dims3()?;
        let dim = width / heads / 3;
        let grad = grad.contiguous()?;
        let (held, flat, grad) =
            (Held::new(qkv, op)?, Held::new(parameters, op)?, Held::new(&grad, op)?);
        let four = Self::four(&flat);
        let mut out = Blank::new(held.len());
        let address = out.out();
        let size = tokens * dim;
        let mut sums = vec![0.0; (batch * heads).max(1) * 4 * dim];
        sums.par_chunks_exact_mut(4 * dim)
            .take(batch * heads)
            .enumerate()
            .with_min_len((SERIAL / 3 / size.max(1)).max(1))
            .for_each(|(pair, sums)| {
                let (row, head) = (pair / heads, pair % heads);
                let at = row * tokens * width + head * 3 * dim;
                let part = |i: usize| &grad[(i * batch * heads + pair) * size..][..size];
                let positions = &self.positions[row * tokens..][..tokens];
                let (qkv, grads) =
                    (held.get(at..).unwrap_or_default(), [part(0), part(1), part(2)]);
                let out = (address.after(at), width);
                self.backward_of_head(four, qkv, grads, positions, out, sums);
            });
        let (total, rest) = sums.split_at_mut(4 * dim);
        for sum in rest.chunks_exact(4 * dim) {
            total.iter_mut().zip(sum).for_each(|(total, sum)| *total += sum);
        }
        sums.truncate(4 * dim);
        #[expect(unsafe_code, reason = "see `Blank`")]
        // SAFETY: the heads cover every token, each with its three parts.
        let out = unsafe { out.written() };
        let to_qkv = qkv.track_op().then(|| Tensor::from_vec(out, qkv.dims(), &Device::Cpu));
        let to_parameters =
            parameters.track_op().then(|| Tensor::from_vec(sums, parameters.dims(), &Device::Cpu));
        Ok((to_qkv.transpose()?, to_parameters.transpose()?))
    }
}

#[inline(always)]
fn rotate_body<const FMA: bool>(xs: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (a, b) = xs.split_at_mut(cos.len());
    for (((a, b), cos), sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
        let (x, y) = (*a, *b);
        *a = fma::<FMA>(x, *cos, -(y * sin));
        *b = fma::<FMA>(y, *cos, x * sin);
    }
}

dispatch!(
    fn norm(xs: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]),
    layer_norm_body
);
/// Undoes [`rotate_body`].
#[inline(always)]
fn rotate_back_body<const FMA: bool>(xs: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (a, b) = xs.split_at_mut(cos.len());
    for (((a, b), cos), sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
        let (x, y) = (*a, *b);
        *a = fma::<FMA>(x, *cos, y * sin);
        *b = fma::<FMA>(y, *cos, -(x * sin));
    }
}

dispatch!(fn rotate_back(xs: &mut [f32], cos: &[f32], sin: &[f32]), rotate_back_body);
dispatch!(fn rotate(xs: &mut [f32], cos: &[f32], sin: &[f32]), rotate_body);

#[cfg(test)]
mod tests {
    use super::super::tests::{equal_differences, equal_plain, error, random};
    use super::super::with_plain_gradients;
    use super::*;

    #[test]
    fn gradients_equal_differences_and_those_of_plain_operations() -> Result<()> {
        let positions: Vec<u32> = (0..14).map(|i| i * 5 % 23).collect();
        let rotary = rotary(false)?;
        let mut inputs = vec![random(&[2, 7, 3 * 3 * 20], 1)?];
        for seed in 2..6 {
            inputs.push(random(&[20], seed)?);
        }
        for rotary in [None, Some(&rotary)] {
            let split = |xs: &[Tensor]| {
                let norm = |i: usize| (xs[i].clone(), xs[i + 1].clone());
                let norms = HeadNorms::new(norm(1), norm(3), 1e-5)?;
                split_heads(&xs[0], 3, Some(&norms), rotary, &positions)
            };
            let parts = |xs: &[Tensor]| {
                let Heads { q, k, v, .. } = split(xs)?;
                Tensor::cat(&[q, k, v], 3)
            };
            equal_differences(&inputs, &parts)?;
            equal_plain(&inputs, &parts)?;
            let visible = Visible { causal: true, hidden: None };
            if rotary.is_some() {
                // Unturned, the bias of the keys adds the same to all scores of a query.
                equal_plain(&inputs, &|xs| split(xs)?.attend(0.3, visible))?;
            }
        }
        Ok(())
    }

    fn norms() -> Result<HeadNorms> {
        let pair =
            |seed| Ok::<_, candle_core::Error>((random(&[20], seed)?, random(&[20], seed + 1)?));
        HeadNorms::new(pair(10)?, pair(20)?, 1e-5)
    }

    fn rotary(rounded: bool) -> Result<Rotary> {
        Rotary::new(8, 10_000.0, 64, rounded, DType::F32, &Device::Cpu)
    }

    #[test]
    fn the_fused_way_equals_the_plain_one() -> Result<()> {
        let qkv = random(&[2, 7, 3 * 3 * 20], 1)?;
        let (norms, rotary) = (norms()?, rotary(true)?);
        let positions: Vec<u32> = (0..14).map(|i| i * 5 % 23).collect();
        for rotary in [None, Some(&rotary)] {
            let fused = split_heads(&qkv, 3, Some(&norms), rotary, &positions)?;
            let tracked = candle_core::Var::from_tensor(&qkv)?;
            let split = || split_heads(tracked.as_tensor(), 3, Some(&norms), rotary, &positions);
            let (tracked, plain) = (split()?, with_plain_gradients(split)?);
            for other in [tracked, plain] {
                for (one, other) in [(&fused.q, other.q), (&fused.k, other.k), (&fused.v, other.v)]
                {
                    assert_eq!(one.dims(), [2, 3, 7, 20]);
                    assert!(error(one, &other.detach())? < 1e-6);
                }
            }
        }
        Ok(())
    }

    #[test]
    fn position_zero_turns_nothing() -> Result<()> {
        let qkv = random(&[1, 2, 3 * 20], 1)?;
        let (norms, rotary) = (norms()?, rotary(false)?);
        let still = split_heads(&qkv, 1, Some(&norms), None, &[0, 0])?;
        let turned = split_heads(&qkv, 1, Some(&norms), Some(&rotary), &[0, 0])?;
        assert!(error(&still.q, &turned.q)? == 0.0);
        let turned = split_heads(&qkv, 1, Some(&norms), Some(&rotary), &[0, 9])?;
        assert!(error(&still.q, &turned.q)? > 0.1);
        Ok(())
    }

    #[test]
    fn without_norms_only_the_rotation_is_left() -> Result<()> {
        let qkv = random(&[1, 2, 3 * 20], 1)?;
        let plain = split_heads(&qkv, 1, None, None, &[0, 0])?;
        for (i, got) in [(0, &plain.q), (1, &plain.k), (2, &plain.v)] {
            assert!(error(&got.squeeze(1)?, &qkv.narrow(2, i * 20, 20)?)? == 0.0);
        }
        let turned = split_heads(&qkv, 1, None, Some(&rotary(false)?), &[0, 9])?;
        let length = |xs: &Tensor| xs.sqr()?.sum(3);
        assert!(error(&length(&turned.q)?, &length(&plain.q)?)? < 1e-6);
        assert!(error(&turned.q, &plain.q)? > 0.1);
        Ok(())
    }

    #[test]
    fn a_position_beyond_the_tables_is_refused() -> Result<()> {
        let qkv = random(&[1, 1, 3 * 20], 1)?;
        let refused = split_heads(&qkv, 1, Some(&norms()?), Some(&rotary(true)?), &[64]);
        assert!(refused.unwrap_err().to_string().contains("position 64"));
        Ok(())
    }
}
