//! Fused CPU operations on f32, and the same results from plain candle operations elsewhere.
//!
//! On a CPU a third of a network's time would go into what is not a matrix product: candle's
//! GELU alone takes twenty times what the vector units need. So activations, norms, attention
//! and products with half-precision weights have their own code here, written once as plain
//! loops and compiled three times: for AVX-512, for AVX2 with FMA, and for whatever the build
//! targets; the best one is chosen at run time.
//!
//! Where gradients are wanted the same operations run with a backward pass of their own, which
//! keeps nothing but inputs (and what went into an activation) and computes the rest anew.
//! Sums are taken in an order that depends on the sizes alone, so results are the same on any
//! number of threads.
//!
//! Every operation falls back to plain candle operations on a GPU, and on a CPU for tensors
//! that are not f32. Both ways agree to about 1e-6.

#![expect(clippy::inline_always, reason = "code is compiled for the features of its caller")]

use std::cell::Cell;

use candle_core::{CpuStorage, DType, Error, Layout, Result, Tensor};

mod activation;
mod attention;
mod frozen;
mod heads;
mod linear;
mod math;
mod memory;
mod norm;
mod product;
#[cfg(target_arch = "x86_64")]
mod tile;

pub use activation::{Activation, add_bias};
pub use attention::{Packing, Visible, attention, self_attention};
pub use heads::{HeadNorms, Heads, Rotary, split_heads};
pub use linear::linear;
pub use norm::{layer_norm, rms_norm};
pub use product::{half_product, quantised_product};

/// Below this many numbers a loop stays on one thread: handing out work would cost more.
const SERIAL: usize = 1 << 14;

/// Whether the fused operations apply to `xs`.
fn fusable(xs: &Tensor) -> bool {
    xs.device().is_cpu() && xs.dtype() == DType::F32 && !xs.track_op()
}

thread_local! {
    static PLAIN: Cell<bool> = const { Cell::new(false) };
}

/// What `work` gives when operations on tensors that track gradients are candle's own: for
/// comparing both ways. It holds for this thread alone.
pub fn with_plain_gradients<T>(work: impl FnOnce() -> T) -> T {
    /// Sets it back, whatever `work` does.
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            PLAIN.set(self.0);
        }
    }
    let _before = Before(PLAIN.replace(true));
    work()
}

/// Whether an operation on `operands`, as far as there are such, is to run in its fused form
/// with gradients.
fn differentiable(operands: &[Option<&Tensor>]) -> bool {
    let mut operands = operands.iter().flatten();
    operands.clone().any(|xs| xs.track_op())
        && operands.all(|xs| xs.device().is_cpu() && xs.dtype() == DType::F32)
        && !PLAIN.get()
}

/// The f32 values of a contiguous tensor.
fn values<'a>(storage: &'a CpuStorage, layout: &Layout, op: &'static str) -> Result<&'a [f32]> {
    let (start, end) = layout.contiguous_offsets().ok_or(Error::RequiresContiguous { op })?;
    Ok(&storage.as_slice::<f32>()?[start..end])
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Result, Tensor, Var};

    use super::with_plain_gradients;

    /// What is differentiated: a tensor of some inputs.
    type Of<'a> = &'a dyn Fn(&[Tensor]) -> Result<Tensor>;

    /// The gradients of the inputs for a given gradient of the result.
    fn gradients(inputs: &[Tensor], grad: &Tensor, of: Of<'_>) -> Result<Vec<Tensor>> {
        let vars = inputs.iter().map(Var::from_tensor).collect::<Result<Vec<_>>>()?;
        let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
        let mut gradients = (of(&tensors)? * grad)?.sum_all()?.backward()?;
        let gradient = |var: &Var| match gradients.remove(var) {
            Some(gradient) => Ok(gradient),
            None => candle_core::bail!("no gradient"),
        };
        vars.iter().map(gradient).collect()
    }

    /// Checks that the fused gradients of all inputs are those of candle's own operations.
    pub(super) fn equal_plain(inputs: &[Tensor], of: Of<'_>) -> Result<()> {
        let grad = random(of(inputs)?.dims(), 99)?;
        let fused = gradients(inputs, &grad, of)?;
        let plain = with_plain_gradients(|| gradients(inputs, &grad, of))?;
        for (i, (fused, plain)) in fused.iter().zip(&plain).enumerate() {
            if fused.elem_count() > 0 {
                let error = error(fused, plain)?;
                assert!(error < 2e-5, "input {i} {:?}: {error}", fused.dims());
            }
        }
        Ok(())
    }

    /// Checks that the gradients of all inputs are those of central differences: of each input
    /// along some random directions.
    pub(super) fn equal_differences(inputs: &[Tensor], of: Of<'_>) -> Result<()> {
        const STEP: f64 = 4e-3;
        let grad = random(of(inputs)?.dims(), 98)?;
        let product = |a: &Tensor, b: &Tensor| -> Result<f64> {
            let numbers = |xs: &Tensor| xs.flatten_all()?.to_vec1::<f32>();
            let (a, b) = (numbers(a)?, numbers(b)?);
            Ok(a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum())
        };
        let gradients = gradients(inputs, &grad, of)?;
        for (i, gradient) in gradients.iter().enumerate() {
            for seed in 0..8 {
                let direction = random(inputs[i].dims(), 1000 + seed)?;
                let at = |step: f64| {
                    let mut moved = inputs.to_vec();
                    moved[i] = (&inputs[i] + (&direction * step)?)?;
                    product(&of(&moved)?, &grad)
                };
                let expected = (at(STEP)? - at(-STEP)?) / (2.0 * STEP);
                let got = product(gradient, &direction)?;
                // A slope along a direction is of the size of the whole gradient.
                let size = product(gradient, gradient)?.sqrt().max(1e-3);
                let off = (got - expected).abs() / size;
                assert!(off < 2e-3, "input {i}: {got} for {expected}, gradient of {size}");
            }
        }
        Ok(())
    }

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
