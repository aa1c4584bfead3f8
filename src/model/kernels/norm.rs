//! Layer norm and RMS norm over the last dimension.
//!
//! The variance is taken in a second pass around the mean: candle's single pass loses digits
//! where the mean is large against the spread.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Device, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{
    SERIAL, differentiable, fusable,
    math::{dispatch, dot, fma, sum_of},
    memory::{Blank, Held},
    values,
};

/// Rows whose share of a weight's gradient one task sums.
const ROWS: usize = 128;

/// `(xs - mean) / sqrt(variance + eps) * weight + bias` over the last dimension of `xs`.
///
/// # Errors
///
/// When the shapes do not fit.
pub fn layer_norm(xs: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    if differentiable(&[Some(xs), Some(weight), Some(bias)]) {
        let (xs, op) = (xs.contiguous()?, LayerNorm { eps: eps as f32 });
        return xs.apply_op3(&weight.contiguous()?, &bias.contiguous()?, op);
    }
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
    if differentiable(&[Some(xs), Some(weight)]) {
        let op = RmsNorm { eps: eps as f32 };
        return xs.contiguous()?.apply_op2(&weight.contiguous()?, op);
    }
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

/// Runs `row` over each row of `xs` and of `grad` with the gradient of the row and sums of the
/// numbers that the parameters get from it, as many for a column as there are parameters.
///
/// Returns the gradient of `xs` and the parameters' sums, one after the other.
pub(super) fn backward_by_rows<const PARAMETERS: usize>(
    xs: &[f32],
    grad: &[f32],
    width: usize,
    row: impl Fn(&[f32], &[f32], &mut [f32], [&mut [f32]; PARAMETERS]) + Sync,
) -> (Vec<f32>, Vec<f32>) {
    let (rows, all) = (xs.len() / width, PARAMETERS * width);
    let mut out = Blank::new(xs.len());
    let address = out.out();
    let mut sums = vec![0.0; rows.div_ceil(ROWS).max(1) * all];
    let chunks = xs.par_chunks(ROWS * width).zip(grad.par_chunks(ROWS * width));
    sums.par_chunks_mut(all).zip(chunks).enumerate().for_each(|(at, (sums, (xs, grad)))| {
        #[expect(unsafe_code, reason = "tasks write to different rows")]
        // SAFETY: the rows lie in the buffer and are this task's alone; `row` writes each.
        let out = unsafe { address.part(at * ROWS * width, xs.len()) };
        let mut sums = sums.chunks_exact_mut(width);
        let mut sums: [&mut [f32]; PARAMETERS] =
            std::array::from_fn(|_| sums.next().unwrap_or_default());
        let inputs = xs.chunks_exact(width).zip(grad.chunks_exact(width));
        for ((xs, grad), out) in inputs.zip(out.chunks_exact_mut(width)) {
            row(xs, grad, out, sums.each_mut().map(|sum| &mut **sum));
        }
    });
    let (total, rest) = sums.split_at_mut(all);
    for sum in rest.chunks_exact(all) {
        total.iter_mut().zip(sum).for_each(|(total, sum)| *total += sum);
    }
    sums.truncate(all);
    #[expect(unsafe_code, reason = "see `Blank`")]
    // SAFETY: the chunks cover every row.
    unsafe {
        (out.written(), sums)
    }
}

/// Checks that the last dimension is as long as the `weight`.
fn width(xs: &Layout, weight: &[f32], op: &str) -> Result<usize> {
    match xs.dims().last() {
        Some(&width) if width == weight.len() && width > 0 => Ok(width),
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

    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (op, grad) = (CustomOp3::name(self), grad.contiguous()?);
        let (values, weights) = (Held::new(xs, op)?, Held::new(weight, op)?);
        let width = weights.len();
        let backward = |xs: &[f32], grad: &[f32], out: &mut [f32], [w, b]: [&mut [f32]; 2]| {
            layer_norm_backward(xs, &weights, self.eps, grad, out, w, b);
        };
        let (to_xs, sums) = backward_by_rows(&values, &Held::new(&grad, op)?, width, backward);
        let vector = |of: &Tensor, sums: &[f32]| {
            of.track_op().then(|| Tensor::from_slice(sums, width, &Device::Cpu)).transpose()
        };
        let (to_weight, to_bias) = (vector(weight, &sums[..width])?, vector(bias, &sums[width..])?);
        let to_xs = xs.track_op().then(|| Tensor::from_vec(to_xs, xs.dims(), &Device::Cpu));
        Ok((to_xs.transpose()?, to_weight, to_bias))
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

    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (op, grad) = (CustomOp2::name(self), grad.contiguous()?);
        let (values, weights) = (Held::new(xs, op)?, Held::new(weight, op)?);
        let backward = |xs: &[f32], grad: &[f32], out: &mut [f32], [w]: [&mut [f32]; 1]| {
            rms_norm_backward(xs, &weights, self.eps, grad, out, w);
        };
        let (to_xs, sums) =
            backward_by_rows(&values, &Held::new(&grad, op)?, weights.len(), backward);
        let to_xs = xs.track_op().then(|| Tensor::from_vec(to_xs, xs.dims(), &Device::Cpu));
        let to_weight =
            weight.track_op().then(|| Tensor::from_vec(sums, weight.dims(), &Device::Cpu));
        Ok((to_xs.transpose()?, to_weight.transpose()?))
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

/// With `n = (x - mean) s` and `g = grad w`: `s (g - mean(g) - n mean(g n))`; the weight gets
/// `grad n`, the bias `grad`.
#[inline(always)]
fn layer_norm_backward_body<const FMA: bool>(
    xs: &[f32],
    weight: &[f32],
    eps: f32,
    grad: &[f32],
    out: &mut [f32],
    to_weight: &mut [f32],
    to_bias: &mut [f32],
) {
    let n = xs.len() as f32;
    let mean = sum_of::<FMA>(xs, |x| x) / n;
    let variance = sum_of::<FMA>(xs, |x| (x - mean) * (x - mean)) / n;
    let scale = 1.0 / (variance + eps).sqrt();
    for ((((out, x), grad), w), b) in
        out.iter_mut().zip(xs).zip(grad).zip(to_weight.iter_mut()).zip(to_bias.iter_mut())
    {
        *out = (x - mean) * scale * grad;
        *w += *out;
        *b += grad;
    }
    let (mean_grad, along) = (dot::<FMA>(grad, weight) / n, dot::<FMA>(out, weight) / n);
    for (((out, x), grad), w) in out.iter_mut().zip(xs).zip(grad).zip(weight) {
        *out = scale * (fma::<FMA>(*grad, *w, -mean_grad) - (x - mean) * scale * along);
    }
}

/// With `n = x s` and `g = grad w`: `s (g - n mean(g n))`; the weight gets `grad n`.
#[inline(always)]
fn rms_norm_backward_body<const FMA: bool>(
    xs: &[f32],
    weight: &[f32],
    eps: f32,
    grad: &[f32],
    out: &mut [f32],
    to_weight: &mut [f32],
) {
    let n = xs.len() as f32;
    let scale = 1.0 / (sum_of::<FMA>(xs, |x| x * x) / n + eps).sqrt();
    for (((out, x), grad), w) in out.iter_mut().zip(xs).zip(grad).zip(to_weight.iter_mut()) {
        *out = x * scale * grad;
        *w += *out;
    }
    let along = dot::<FMA>(out, weight) / n;
    for (((out, x), grad), w) in out.iter_mut().zip(xs).zip(grad).zip(weight) {
        *out = scale * fma::<FMA>(*grad, *w, -(x * scale * along));
    }
}

dispatch!(
    fn layer_norm_row(xs: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]),
    layer_norm_body
);
dispatch!(fn rms_norm_row(xs: &[f32], weight: &[f32], eps: f32, out: &mut [f32]), rms_norm_body);
dispatch!(
    pub(super) fn layer_norm_backward(
        xs: &[f32],
        weight: &[f32],
        eps: f32,
        grad: &[f32],
        out: &mut [f32],
        to_weight: &mut [f32],
        to_bias: &mut [f32],
    ),
    layer_norm_backward_body
);
dispatch!(
    fn rms_norm_backward(
        xs: &[f32],
        weight: &[f32],
        eps: f32,
        grad: &[f32],
        out: &mut [f32],
        to_weight: &mut [f32],
    ),
    rms_norm_backward_body
);

#[cfg(test)]
mod tests {
    use super::super::tests::{equal_differences, equal_plain, error, random};
    use super::*;

    #[test]
    fn gradients_equal_differences() -> Result<()> {
        let inputs = [random(&[3, 2, 7], 1)?, random(&[7], 2)?, random(&[7], 3)?];
        equal_differences(&inputs, &|xs| layer_norm(&xs[0], &xs[1], &xs[2], 1e-5))?;
        equal_differences(&inputs[..2], &|xs| rms_norm(&xs[0], &xs[1], 1e-5))
    }

    #[test]
    fn gradients_equal_those_of_plain_operations() -> Result<()> {
        for (rows, width) in [(1, 40), (500, 130), (3, 4)] {
            let inputs =
                [random(&[rows, 1, width], 1)?, random(&[width], 2)?, random(&[width], 3)?];
            equal_plain(&inputs, &|xs| layer_norm(&xs[0], &xs[1], &xs[2], 1e-5))?;
            equal_plain(&inputs[..2], &|xs| rms_norm(&xs[0], &xs[1], 1e-6))?;
        }
        let inputs = [random(&[20, 6], 1)?, random(&[20], 2)?, random(&[20], 3)?];
        equal_plain(&inputs, &|xs| layer_norm(&xs[0].t()?, &xs[1], &xs[2], 1e-5))
    }

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
