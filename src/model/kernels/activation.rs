//! Bias and GELU in place, right after a product.

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor};
use rayon::prelude::*;

use super::{
    SERIAL, fusable,
    math::{dispatch, gelu_erf, gelu_tanh},
    values,
};

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
    if !fusable(&xs) || bias.track_op() {
        return xs.broadcast_add(bias);
    }
    xs.inplace_op2(bias, &BiasThen { name: "bias", row: bias_row })?;
    Ok(xs)
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
        let width = bias.len();
        if xs_layout.dims().last() != Some(&width) {
            candle_core::bail!("{op}: {width} biases for {:?}", xs_layout.dims());
        }
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

#[cfg(test)]
mod tests {
    use super::super::tests::{error, random};
    use super::*;

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
