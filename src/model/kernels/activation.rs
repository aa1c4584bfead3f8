//! Bias and GELU right after a product: in place, or with gradients.

use std::sync::OnceLock;

use candle_core::{
    CpuStorage, CustomOp2, D, Device, Error, InplaceOp2, Layout, Result, Shape, Tensor,
};
use rayon::prelude::*;

use super::{
    SERIAL, differentiable, fusable,
    math::{dispatch, gelu_erf, gelu_erf_slope, gelu_tanh, gelu_tanh_slope},
    memory::{Blank, Held},
    values,
};

/// Rows whose sum one task takes.
const ROWS: usize = 256;

/// An activation function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// GELU with the exact normal distribution: the ViT and both Q-Formers.
    GeluErf,
    /// GELU with its tanh approximation, "`gelu_new`": Phi-2.
    GeluTanh,
}

impl Activation {
    /// The activation of `xs + bias`, in the shape of `xs`; `bias` has the length of its last
    /// dimension. On a CPU it is written over `xs`, which must be fresh: nobody else may hold it.
    ///
    /// # Errors
    ///
    /// When the shapes do not fit.
    pub fn of_fresh(self, xs: Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        if differentiable(&[Some(&xs), bias]) {
            let bias = match bias {
                Some(bias) => bias.contiguous()?,
                None => Tensor::zeros(xs.dim(D::Minus1)?, xs.dtype(), xs.device())?,
            };
            return xs.contiguous()?.apply_op2(&bias, Tracked::new(Some(self)));
        }
        let Some(bias) = bias.filter(|bias| fusable(&xs) && !bias.track_op()) else {
            return self.plain(&add_bias(xs, bias)?);
        };
        let op = match self {
            Self::GeluErf => BiasThen { name: "bias-gelu-erf", row: erf_row },
            Self::GeluTanh => BiasThen { name: "bias-gelu-tanh", row: tanh_row },
        };
        xs.inplace_op2(bias, &op)?;
        Ok(xs)
    }

    /// Adds `bias` to each row of `before` and writes the activation of that to `out`.
    pub(super) fn keeping(self, bias: &[f32], before: &mut [f32], out: &mut [f32]) {
        let row = match self {
            Self::GeluErf => erf_keeping,
            Self::GeluTanh => tanh_keeping,
        };
        let width = bias.len().max(1);
        let rows = before.chunks_exact_mut(width).zip(out.chunks_exact_mut(width));
        rows.for_each(|(before, out)| row(bias, before, out));
    }

    /// The gradient of what went into the activation, `before`, from that of its result.
    pub(super) fn backward(self, before: &[f32], grad: &[f32]) -> Vec<f32> {
        let slopes = match self {
            Self::GeluErf => erf_slopes,
            Self::GeluTanh => tanh_slopes,
        };
        let mut out = Blank::new(grad.len());
        let address = out.out();
        let chunks = before.par_chunks(SERIAL).zip(grad.par_chunks(SERIAL));
        chunks.enumerate().for_each(|(at, (before, grad))| {
            #[expect(unsafe_code, reason = "tasks write to different parts of one buffer")]
            // SAFETY: the chunk lies in the buffer and is this task's alone, which writes all of
            // it.
            slopes(before, grad, unsafe { address.part(at * SERIAL, grad.len()) });
        });
        #[expect(unsafe_code, reason = "see `Blank`")]
        // SAFETY: the chunks cover it.
        unsafe {
            out.written()
        }
    }

    /// The activation by candle's own operations.
    fn plain(self, xs: &Tensor) -> Result<Tensor> {
        match self {
            Self::GeluErf => xs.gelu_erf(),
            Self::GeluTanh => xs.gelu(),
        }
    }
}

/// `xs + bias`; on a CPU written over `xs`, which must be fresh: nobody else may hold it.
///
/// # Errors
///
/// When `bias` has not the length of the last dimension.
pub fn add_bias(xs: Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let Some(bias) = bias else { return Ok(xs) };
    if differentiable(&[Some(&xs), Some(bias)]) {
        return xs.contiguous()?.apply_op2(&bias.contiguous()?, Tracked::new(None));
    }
    if !fusable(&xs) || bias.track_op() {
        return xs.broadcast_add(bias);
    }
    xs.inplace_op2(bias, &BiasThen { name: "bias", row: bias_row })?;
    Ok(xs)
}

/// Bias and perhaps an activation, with gradients.
struct Tracked {
    then: Option<Activation>,
    /// What went into the activation, for its slope.
    before: OnceLock<Vec<f32>>,
}

impl Tracked {
    fn new(then: Option<Activation>) -> Self {
        Self { then, before: OnceLock::new() }
    }
}

impl CustomOp2 for Tracked {
    fn name(&self) -> &'static str {
        "bias-then"
    }

    fn cpu_fwd(
        &self,
        xs: &CpuStorage,
        xs_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let op = self.name();
        let (xs, bias) = (values(xs, xs_layout, op)?, values(bias, bias_layout, op)?);
        let width = checked_width(xs_layout, bias.len(), op)?;
        let mut out = xs.to_vec();
        let rows_at_once = (SERIAL / width).max(1);
        match self.then {
            None => out.par_chunks_mut(rows_at_once * width).for_each(|rows| {
                add_to_rows(bias, rows);
            }),
            Some(activation) => {
                let mut before = xs.to_vec();
                let chunks = before.par_chunks_mut(rows_at_once * width);
                chunks.zip(out.par_chunks_mut(rows_at_once * width)).for_each(|(before, out)| {
                    activation.keeping(bias, before, out);
                });
                // Empty before: an operation runs once.
                let _ = self.before.set(before);
            }
        }
        Ok((CpuStorage::F32(out), xs_layout.shape().clone()))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let mut grad = grad.contiguous()?;
        if let Some(activation) = self.then {
            let before = self.before.get().ok_or_else(|| Error::msg("bias-then has not run"))?;
            let inner = activation.backward(before, &Held::new(&grad, self.name())?);
            grad = Tensor::from_vec(inner, xs.dims(), &Device::Cpu)?;
        }
        let to_bias = if bias.track_op() {
            let sums = column_sums(&Held::new(&grad, self.name())?, bias.elem_count());
            Some(Tensor::from_vec(sums, bias.dims(), &Device::Cpu)?)
        } else {
            None
        };
        Ok((xs.track_op().then_some(grad), to_bias))
    }
}

/// Checks that the last dimension is as long as the bias.
fn checked_width(xs: &Layout, width: usize, op: &str) -> Result<usize> {
    if width == 0 || xs.dims().last() != Some(&width) {
        candle_core::bail!("{op}: {width} biases for {:?}", xs.dims());
    }
    Ok(width)
}

/// Adds `row` to each row of `rows`.
pub(super) fn add_to_rows(row: &[f32], rows: &mut [f32]) {
    rows.chunks_exact_mut(row.len().max(1)).for_each(|to| bias_row(to, row));
}

/// The sums of the columns of rows of `width`: of [`ROWS`] rows each, then of those sums.
pub(super) fn column_sums(xs: &[f32], width: usize) -> Vec<f32> {
    if width == 0 {
        return Vec::new();
    }
    let mut sums = vec![0.0; (xs.len() / width).div_ceil(ROWS).max(1) * width];
    sums.par_chunks_mut(width).zip(xs.par_chunks(ROWS * width)).for_each(|(sum, rows)| {
        rows.chunks_exact(width).for_each(|row| bias_row(sum, row));
    });
    let (total, rest) = sums.split_at_mut(width);
    rest.chunks_exact(width).for_each(|sum| bias_row(total, sum));
    sums.truncate(width);
    sums
}

/// Runs `row` over each row with the bias.
struct BiasThen {
    name: &'static str,
    row: fn(&mut [f32], &[f32]),
}

impl InplaceOp2 for BiasThen {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        xs: &mut CpuStorage,
        xs_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<()> {
        let bias = values(bias, bias_layout, self.name)?;
        let op = self.name;
        let (start, end) =
            xs_layout.contiguous_offsets().ok_or(candle_core::Error::RequiresContiguous { op })?;
        let CpuStorage::F32(xs) = xs else { candle_core::bail!("{op} takes f32") };
        let width = checked_width(xs_layout, bias.len(), op)?;
        let rows_at_once = (SERIAL / width).max(1);
        xs[start..end].par_chunks_mut(rows_at_once * width).for_each(|rows| {
            rows.chunks_exact_mut(width).for_each(|row| (self.row)(row, bias));
        });
        Ok(())
    }
}

#[inline(always)]
fn erf_body<const FMA: bool>(row: &mut [f32], bias: &[f32]) {
    row.iter_mut().zip(bias).for_each(|(x, b)| *x = gelu_erf::<FMA>(*x + b));
}

#[inline(always)]
fn tanh_body<const FMA: bool>(row: &mut [f32], bias: &[f32]) {
    row.iter_mut().zip(bias).for_each(|(x, b)| *x = gelu_tanh::<FMA>(*x + b));
}

#[inline(always)]
fn bias_body<const FMA: bool>(row: &mut [f32], bias: &[f32]) {
    row.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
}

dispatch!(fn erf_row(row: &mut [f32], bias: &[f32]), erf_body);
dispatch!(fn tanh_row(row: &mut [f32], bias: &[f32]), tanh_body);
dispatch!(fn bias_row(row: &mut [f32], bias: &[f32]), bias_body);

#[inline(always)]
fn erf_keeping_body<const FMA: bool>(bias: &[f32], before: &mut [f32], out: &mut [f32]) {
    for ((out, before), b) in out.iter_mut().zip(before).zip(bias) {
        *before += b;
        *out = gelu_erf::<FMA>(*before);
    }
}

#[inline(always)]
fn tanh_keeping_body<const FMA: bool>(bias: &[f32], before: &mut [f32], out: &mut [f32]) {
    for ((out, before), b) in out.iter_mut().zip(before).zip(bias) {
        *before += b;
        *out = gelu_tanh::<FMA>(*before);
    }
}

#[inline(always)]
fn erf_slopes_body<const FMA: bool>(before: &[f32], grad: &[f32], out: &mut [f32]) {
    for ((out, x), grad) in out.iter_mut().zip(before).zip(grad) {
        *out = grad * gelu_erf_slope::<FMA>(*x);
    }
}

#[inline(always)]
fn tanh_slopes_body<const FMA: bool>(before: &[f32], grad: &[f32], out: &mut [f32]) {
    for ((out, x), grad) in out.iter_mut().zip(before).zip(grad) {
        *out = grad * gelu_tanh_slope::<FMA>(*x);
    }
}

dispatch!(fn erf_keeping(bias: &[f32], before: &mut [f32], out: &mut [f32]), erf_keeping_body);
dispatch!(fn tanh_keeping(bias: &[f32], before: &mut [f32], out: &mut [f32]), tanh_keeping_body);
dispatch!(fn erf_slopes(before: &[f32], grad: &[f32], out: &mut [f32]), erf_slopes_body);
dispatch!(fn tanh_slopes(before: &[f32], grad: &[f32], out: &mut [f32]), tanh_slopes_body);

#[cfg(test)]
mod tests {
    use super::super::tests::{equal_differences, equal_plain, error, random};
    use super::*;

    #[test]
    fn gradients_equal_differences_and_those_of_plain_operations() -> Result<()> {
        let small = [random(&[2, 3, 5], 1)?, random(&[5], 2)?];
        let large = [random(&[600, 70], 1)?, random(&[70], 2)?];
        for activation in [Activation::GeluErf, Activation::GeluTanh] {
            let of = |xs: &[Tensor]| activation.of_fresh(xs[0].copy()?, xs.get(1));
            for inputs in [&small[..], &small[..1]] {
                equal_differences(inputs, &of)?;
            }
            for inputs in [&large[..], &large[..1]] {
                equal_plain(inputs, &of)?;
            }
        }
        let of = |xs: &[Tensor]| add_bias(xs[0].copy()?, xs.get(1));
        equal_differences(&small, &of)?;
        equal_plain(&large, &of)
    }

    #[test]
    fn fused_activations_equal_the_plain_ones() -> Result<()> {
        let (xs, bias) = (random(&[3, 50, 431], 1)?, random(&[431], 2)?);
        for activation in [Activation::GeluErf, Activation::GeluTanh] {
            let plain = activation.plain(&xs.broadcast_add(&bias)?)?;
            let fused = activation.of_fresh(xs.copy()?, Some(&bias))?;
            assert!(error(&fused, &plain)? < 1e-6);
        }
        assert!(error(&add_bias(xs.copy()?, Some(&bias))?, &xs.broadcast_add(&bias)?)? == 0.0);
        Ok(())
    }

    #[test]
    fn a_bias_of_another_length_is_refused() -> Result<()> {
        let (xs, bias) = (random(&[4, 6], 1)?, random(&[8], 2)?);
        assert!(add_bias(xs, Some(&bias)).is_err());
        Ok(())
    }
}
