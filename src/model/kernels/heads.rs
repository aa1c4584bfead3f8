//! What Phi does between its fused product and attention: split, norm, rotate.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Result, Shape, Tensor};
use half::f16;
use rayon::prelude::*;

use super::{
    SERIAL, fusable, layer_norm,
    math::{dispatch, fma},
    norm::layer_norm_body,
    values,
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

/// Splits `(batch, tokens, heads * 3 * dim)`, whose last dimension lies `[head][q|k|v][dim]`,
/// into queries and keys, normed and then rotated, and values.
///
/// `positions` holds the place of each token, `batch * tokens` in all; without `rotary` nothing
/// is rotated. Returns `[q, k, v]`, each a contiguous `(batch, heads, tokens, dim)`.
///
/// # Errors
///
/// When the shapes do not fit or a position lies beyond the tables.
pub fn split_heads(
    qkv: &Tensor,
    heads: usize,
    norms: &HeadNorms,
    rotary: Option<&Rotary>,
    positions: &[u32],
) -> Result<[Tensor; 3]> {
    let (batch, tokens, width) = qkv.dims3()?;
    let dim = width / heads / 3;
    if width != heads * 3 * dim || dim != norms.flat[0].len() || positions.len() != batch * tokens {
        candle_core::bail!("splitting {:?} for {heads} heads of {dim}", qkv.dims());
    }
    if let Some(rotary) = rotary
        && let Some(&far) = positions.iter().find(|&&p| p as usize >= rotary.positions())
    {
        candle_core::bail!("position {far} is beyond the {} of the model", rotary.positions());
    }
    if fusable(qkv) {
        let split = Split { heads, dim, norms, rotary, positions };
        let parts = qkv.contiguous()?.apply_op1_no_bwd(&split)?;
        let part = |i| parts.narrow(0, i, 1)?.squeeze(0);
        return Ok([part(0)?, part(1)?, part(2)?]);
    }
    let qkv = qkv.reshape((batch, tokens, heads, 3, dim))?;
    let part = |i| qkv.narrow(3, i, 1)?.squeeze(3)?.contiguous();
    let turned = |xs: Tensor| rotary.map_or(Ok(xs.clone()), |rotary| rotary.plain(&xs, positions));
    let q = turned(layer_norm(&part(0)?, &norms.query.0, &norms.query.1, norms.eps)?)?;
    let k = turned(layer_norm(&part(1)?, &norms.key.0, &norms.key.1, norms.eps)?)?;
    let by_head = |xs: &Tensor| xs.transpose(1, 2)?.contiguous();
    Ok([by_head(&q)?, by_head(&k)?, by_head(&part(2)?)?])
}

struct Split<'a> {
    heads: usize,
    dim: usize,
    norms: &'a HeadNorms,
    rotary: Option<&'a Rotary>,
    positions: &'a [u32],
}

impl CustomOp1 for Split<'_> {
    fn name(&self) -> &'static str {
        "split-heads"
    }

    fn cpu_fwd(&self, qkv: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, tokens, width) = layout.shape().dims3()?;
        let (heads, dim) = (self.heads, self.dim);
        let qkv = values(qkv, layout, self.name())?;
        let mut out = vec![0.0_f32; qkv.len()];
        let (queries, rest) = out.split_at_mut(qkv.len() / 3);
        let (keys, values) = rest.split_at_mut(qkv.len() / 3);
        let [q_weight, q_bias, k_weight, k_bias] = &*self.norms.flat;
        let eps = self.norms.eps as f32;
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
                    let half = rotary.dims / 2;
                    let place = self.positions[at] as usize * half..;
                    let (cos, sin) =
                        (&rotary.cos[place.clone()][..half], &rotary.sin[place][..half]);
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
dispatch!(fn rotate(xs: &mut [f32], cos: &[f32], sin: &[f32]), rotate_body);

#[cfg(test)]
mod tests {
    use super::super::tests::{error, random};
    use super::*;

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
            let fused = split_heads(&qkv, 3, &norms, rotary, &positions)?;
            // A tensor that tracks gradients takes the plain way.
            let tracked = candle_core::Var::from_tensor(&qkv)?;
            let plain = split_heads(tracked.as_tensor(), 3, &norms, rotary, &positions)?;
            for (fused, plain) in fused.iter().zip(&plain) {
                assert_eq!(fused.dims(), [2, 3, 7, 20]);
                assert!(error(fused, &plain.detach())? < 1e-6);
            }
        }
        Ok(())
    }

    #[test]
    fn position_zero_turns_nothing() -> Result<()> {
        let qkv = random(&[1, 2, 3 * 20], 1)?;
        let (norms, rotary) = (norms()?, rotary(false)?);
        let still = split_heads(&qkv, 1, &norms, None, &[0, 0])?;
        let turned = split_heads(&qkv, 1, &norms, Some(&rotary), &[0, 0])?;
        assert!(error(&still[0], &turned[0])? == 0.0);
        let turned = split_heads(&qkv, 1, &norms, Some(&rotary), &[0, 9])?;
        assert!(error(&still[0], &turned[0])? > 0.1);
        Ok(())
    }

    #[test]
    fn a_position_beyond_the_tables_is_refused() -> Result<()> {
        let qkv = random(&[1, 1, 3 * 20], 1)?;
        let refused = split_heads(&qkv, 1, &norms()?, Some(&rotary(true)?), &[64]);
        assert!(refused.unwrap_err().to_string().contains("position 64"));
        Ok(())
    }
}
