//! Layer norm and RMS norm over the last dimension.
//!
//! The variance is taken in a second pass around the mean: candle's single pass loses digits
//! where the mean is large against the spread.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{
    SERIAL, fusable,
    math::{dispatch, fma, sum_of},
    values,
};

/// `(xs - mean) / sqrt(variance + eps) * weight + bias` over the last dimension of `xs`.
///
/// # Errors
///
/// When the shapes do not fit.
pub fn layer_norm(xs: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    if fusable(xs) && !weight.track_op() && !bias.track_op() {
        return xs.contiguous()?.apply_op3_no_bwd(weight, bias, &LayerNorm { eps: eps as f32 });
    }
    if xs.track_op() || weight.track_op() || bias.track_op() {
        return candle_nn::ops::layer_norm_slow(xs, weight, bias, eps as f32);
    }
    candle_nn::ops::layer_norm(&xs.contiguous()?, weight, bias, eps as f32)
}

/// `xs / sqrt(mean(xs^2) + eps) * weight` over the last dimension of `xs`.
///
/// # Errors
///
/// When the shapes do not fit.
pub fn rms_norm(xs: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    if fusable(xs) && !weight.track_op() {
        return xs.contiguous()?.apply_op2_no_bwd(weight, &RmsNorm { eps: eps as f32 });
    }
    if xs.track_op() || weight.track_op() {
        return candle_nn::ops::rms_norm_slow(xs, weight, eps as f32);
    }
    candle_nn::ops::rms_norm(&xs.contiguous()?, weight, eps as f32)
}

struct LayerNorm {
    eps: f32,
}

struct RmsNorm {
    eps: f32,
}

/// Runs `row` over each row of `xs`, in parallel where there are enough.
fn by_rows(xs: &[f32], width: usize, row: impl Fn(&[f32], &mut [f32]) + Sync) -> Vec<f32> {
    let mut out = vec![0.0; xs.len()];
    let size = (SERIAL / width).max(1) * width;
    out.par_chunks_mut(size).zip(xs.par_chunks(size)).for_each(|(out, xs)| {
        out.chunks_exact_mut(width).zip(xs.chunks_exact(width)).for_each(|(out, xs)| row(xs, out));
    });
    out
}

/// Checks that the last dimension is as long as the `weight`.
fn width(xs: &Layout, weight: &[f32], op: &str) -> Result<usize> {
    match xs.dims().last() {
        Some(&width) if width == weight.len() => Ok(width),
        _ => candle_core::bail!("{op}: {} weights for {:?}", weight.len(), xs.dims()),
    }
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        xs: &CpuStorage,
        xs_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let op = self.name();
        let xs = values(xs, xs_layout, op)?;
        let (weight, bias) = (values(weight, weight_layout, op)?, values(bias, bias_layout, op)?);
        let width = width(xs_layout, weight, op)?;
        if bias.len() != width {
            candle_core::bail!("{op}: {} biases for {width} weights", bias.len());
        }
        let out = by_rows(xs, width, |xs, out| layer_norm_row(xs, weight, bias, self.eps, out));
        Ok((CpuStorage::F32(out), xs_layout.shape().clone()))
    }
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        xs: &CpuStorage,
        xs_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let op = self.name();
        let (xs, weight) = (values(xs, xs_layout, op)?, values(weight, weight_layout, op)?);
        let width = width(xs_layout, weight, op)?;
        let out = by_rows(xs, width, |xs, out| rms_norm_row(xs, weight, self.eps, out));
        Ok((CpuStorage::F32(out), xs_layout.shape().clone()))
    }
}

#[inline(always)]
pub(super) fn layer_norm_body<const FMA: bool>(
    xs: &[f32],
    weight: &[f32],
    bias: &[f32],
    eps: f32,
    out: &mut [f32],
) {
    let n = xs.len() as f32;
    let mean = sum_of::<FMA>(xs, |x| x) / n;
    let variance = sum_of::<FMA>(xs, |x| (x - mean) * (x - mean)) / n;
    let scale = 1.0 / (variance + eps).sqrt();
    for (((out, x), w), b) in out.iter_mut().zip(xs).zip(weight).zip(bias) {
        *out = fma::<FMA>((x - mean) * scale, *w, *b);
    }
}

#[inline(always)]
fn rms_norm_body<const FMA: bool>(xs: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let scale = 1.0 / (sum_of::<FMA>(xs, |x| x * x) / xs.len() as f32 + eps).sqrt();
    for ((out, x), w) in out.iter_mut().zip(xs).zip(weight) {
        *out = x * scale * w;
    }
}

dispatch!(
    fn layer_norm_row(xs: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]),
    layer_norm_body
);
dispatch!(fn rms_norm_row(xs: &[f32], weight: &[f32], eps: f32, out: &mut [f32]), rms_norm_body);

#[cfg(test)]
mod tests {
    use super::super::tests::{error, random};
    use super::*;

    #[test]
    fn fused_norms_equal_the_plain_ones() -> Result<()> {
        let (xs, w, b) = (random(&[7, 11, 123], 1)?, random(&[123], 2)?, random(&[123], 3)?);
        let plain = candle_nn::ops::layer_norm_slow(&xs, &w, &b, 1e-5)?;
        assert!(error(&layer_norm(&xs, &w, &b, 1e-5)?, &plain)? < 1e-6);
        let plain = candle_nn::ops::rms_norm_slow(&xs, &w, 1e-6)?;
        assert!(error(&rms_norm(&xs, &w, 1e-6)?, &plain)? < 1e-6);
        Ok(())
    }

    #[test]
    fn a_large_mean_does_not_spoil_the_variance() -> Result<()> {
        let (xs, one) = (
            random(&[4, 640], 1)?,
            Tensor::ones(640, candle_core::DType::F32, &candle_core::Device::Cpu)?,
        );
        let zero = one.zeros_like()?;
        let shifted = layer_norm(&(&xs + 1024.0)?, &one, &zero, 1e-6)?;
        assert!(error(&shifted, &layer_norm(&xs, &one, &zero, 1e-6)?)? < 1e-4);
        Ok(())
    }

    #[test]
    fn a_transposed_input_is_normed_along_its_own_last_dimension() -> Result<()> {
        let xs = random(&[5, 8], 4)?.t()?;
        let (w, b) = (random(&[5], 5)?, random(&[5], 6)?);
        let got = layer_norm(&xs, &w, &b, 1e-5)?;
        assert!(error(&got, &layer_norm(&xs.contiguous()?, &w, &b, 1e-5)?)? == 0.0);
        Ok(())
    }
}
