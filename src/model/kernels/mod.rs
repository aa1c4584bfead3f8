//! Fused CPU operations on f32, and the same results from plain candle operations elsewhere.
//!
//! On a CPU a third of a network's time would go into what is not a matrix product: candle's
//! GELU alone takes twenty times what the vector units need. So activations, norms, attention
//! and products with half-precision weights have their own code here, written once as plain
//! loops and compiled three times: for AVX-512, for AVX2 with FMA, and for whatever the build
//! targets; the best one is chosen at run time.
//!
//! Every operation falls back to plain candle operations on a GPU, and on a CPU for tensors
//! that track gradients or are not f32. Both ways agree to about 1e-6.

#![expect(clippy::inline_always, reason = "code is compiled for the features of its caller")]

use candle_core::{CpuStorage, DType, Error, Layout, Result, Tensor};

mod activation;
mod attention;
mod heads;
mod math;
mod memory;
mod norm;
mod product;

pub use activation::{Activation, add_bias};
pub use attention::{Visible, attention};
pub use heads::{HeadNorms, Rotary, split_heads};
pub use norm::{layer_norm, rms_norm};
pub use product::half_product;

/// Below this many numbers a loop stays on one thread: handing out work would cost more.
const SERIAL: usize = 1 << 14;

/// Whether the fused operations apply to `xs`.
fn fusable(xs: &Tensor) -> bool {
    xs.device().is_cpu() && xs.dtype() == DType::F32 && !xs.track_op()
}

/// The f32 values of a contiguous tensor.
fn values<'a>(storage: &'a CpuStorage, layout: &Layout, op: &'static str) -> Result<&'a [f32]> {
    let (start, end) = layout.contiguous_offsets().ok_or(Error::RequiresContiguous { op })?;
    Ok(&storage.as_slice::<f32>()?[start..end])
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Result, Tensor};

    /// Normal numbers from a small generator of its own, the same on every machine.
    pub(super) fn random(shape: &[usize], seed: u64) -> Result<Tensor> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
        let mut uniform = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 40) as f32 / (1 << 24) as f32
        };
        let n = shape.iter().product();
        let data: Vec<f32> =
            (0..n).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect();
        Tensor::from_vec(data, shape, &Device::Cpu)
    }

    /// Greatest difference against the greatest magnitude of `right`.
    pub(super) fn error(left: &Tensor, right: &Tensor) -> Result<f32> {
        assert_eq!(left.dims(), right.dims());
        let difference = (left - right)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
        Ok(difference / right.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?)
    }
}
