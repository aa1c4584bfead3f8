//! Products with weights that are stored in half precision.
//!
//! Half products are slower than f32 ones on a CPU, so a few output columns at a time are
//! widened into a buffer that stays in the cache and multiplied there: the weights cross the
//! memory bus at half the size, and no second copy of them exists.
//!
//! Such weights, and quantised ones, are never trained themselves; gradients pass through them
//! to what lies before.

use std::{cell::RefCell, sync::Arc};

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, Device, Error, Layout, Module, Result, Shape, Storage,
    Tensor,
    quantized::{QMatMul, QTensor},
};
use half::{bf16, f16, slice::HalfFloatSliceExt};
use rayon::prelude::*;

use super::{
    memory::{Held, Out, add_product, product},
    values,
};

/// Numbers of a widened panel: 512 KiB, about what the second-level cache holds.
const PANEL: usize = 1 << 17;

/// `xs weight^T` on a CPU: `xs` f32 `(rows, inputs)`, `weight` f16 or bf16 `(outputs, inputs)`;
/// `(rows, outputs)` in f32.
///
/// # Errors
///
/// When the shapes or types do not fit.
pub fn half_product(xs: &Tensor, weight: &Tensor) -> Result<Tensor> {
    if xs.track_op() {
        return xs.contiguous()?.apply_op2(weight, HalfProduct);
    }
    xs.contiguous()?.apply_op2_no_bwd(weight, &HalfProduct)
}

/// `xs weight^T` with a quantised weight `(outputs, inputs)`: `xs` f32 `(rows, inputs)`;
/// `(rows, outputs)` in f32.
///
/// # Errors
///
/// When the shapes do not fit.
pub fn quantised_product(xs: &Tensor, weight: &QMatMul) -> Result<Tensor> {
    match weight {
        QMatMul::QTensor(weight) if xs.track_op() => {
            if xs.device().is_cpu() {
                return xs.contiguous()?.apply_op1(QuantisedProduct(weight.clone()));
            }
            xs.matmul(&weight.dequantize(xs.device())?.t()?)
        }
        _ => weight.forward(xs),
    }
}

/// A quantised product with a gradient, for which the weight becomes dense for a while.
struct QuantisedProduct(Arc<QTensor>);

impl CustomOp1 for QuantisedProduct {
    fn name(&self) -> &'static str {
        "quantised-product"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.0.cpu_fwd(xs, layout)
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        grad.matmul(&self.0.dequantize(grad.device())?).map(Some)
    }
}

struct HalfProduct;

impl CustomOp2 for HalfProduct {
    fn name(&self) -> &'static str {
        "half-product"
    }

    fn cpu_fwd(
        &self,
        xs: &CpuStorage,
        xs_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, inputs) = xs_layout.shape().dims2()?;
        let (outputs, weight_inputs) = weight_layout.shape().dims2()?;
        let op = self.name();
        let offsets = weight_layout.contiguous_offsets();
        let (Some((start, end)), true) = (offsets, inputs == weight_inputs) else {
            candle_core::bail!("{op}: {:?} by {:?}", xs_layout.dims(), weight_layout.dims());
        };
        let xs = values(xs, xs_layout, op)?;
        let out = match weight {
            CpuStorage::F16(weight) => run(xs, &weight[start..end], rows, inputs, outputs),
            CpuStorage::BF16(weight) => run(xs, &weight[start..end], rows, inputs, outputs),
            _ => candle_core::bail!("{op}: weights are f16 or bf16"),
        };
        Ok((CpuStorage::F32(out), Shape::from((rows, outputs))))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let op = self.name();
        if weight.track_op() {
            candle_core::bail!("{op}: weights in half precision are not trained");
        }
        let (rows, _) = xs.dims2()?;
        let grad = grad.contiguous()?;
        let held = Held::new(&grad, op)?;
        let (storage, layout) = weight.storage_and_layout();
        let (start, end) = layout.contiguous_offsets().ok_or(Error::RequiresContiguous { op })?;
        let sizes = (rows, weight.dim(1)?, weight.dim(0)?);
        let out = match &*storage {
            Storage::Cpu(CpuStorage::F16(weight)) => run_back(&held, &weight[start..end], sizes),
            Storage::Cpu(CpuStorage::BF16(weight)) => run_back(&held, &weight[start..end], sizes),
            _ => candle_core::bail!("{op}: weights are f16 or bf16"),
        };
        Ok((Some(Tensor::from_vec(out, xs.dims(), &Device::Cpu)?), None))
    }
}

/// A half-precision number.
trait Half: Copy + Sync {
    fn widen(narrow: &[Self], wide: &mut [f32]);
}

impl Half for f16 {
    fn widen(narrow: &[Self], wide: &mut [f32]) {
        narrow.convert_to_f32_slice(wide);
    }
}

impl Half for bf16 {
    fn widen(narrow: &[Self], wide: &mut [f32]) {
        for (wide, narrow) in wide.iter_mut().zip(narrow) {
            *wide = f32::from_bits(u32::from(narrow.to_bits()) << 16);
        }
    }
}

thread_local! {
    static WIDE: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

fn run<T: Half>(xs: &[f32], weight: &[T], rows: usize, inputs: usize, outputs: usize) -> Vec<f32> {
    let mut out = vec![0.0_f32; rows * outputs];
    if out.is_empty() || inputs == 0 {
        return out;
    }
    // Enough panels for every thread, each a multiple of the kernels' 16 columns.
    let threads = rayon::current_num_threads();
    let panel = (PANEL / inputs).clamp(16, 512).min(outputs.div_ceil(threads)).next_multiple_of(16);
    let address = Out::new(&mut out);
    weight.par_chunks(panel * inputs).enumerate().for_each(|(at, narrow)| {
        let columns = narrow.len() / inputs;
        WIDE.with_borrow_mut(|wide| {
            wide.resize(narrow.len().max(wide.len()), 0.0);
            let wide = &mut wide[..narrow.len()];
            T::widen(narrow, wide);
            #[expect(unsafe_code, reason = "gemm takes addresses")]
            // SAFETY: `xs` is `rows * inputs`, `wide` is `columns * inputs`, and the output has
            // `rows` rows of `outputs`, in which this panel's columns are this task's alone.
            unsafe {
                product(
                    (rows, columns, inputs),
                    (address.at(at * panel), outputs),
                    (xs.as_ptr(), inputs, 1),
                    (wide.as_ptr(), 1, inputs),
                    1.0,
                );
            }
        });
    });
    out
}

/// `grad weight`, `(rows, outputs)` by `(outputs, inputs)`: some columns of the weight in each
/// task, some rows of them at a time.
fn run_back<T: Half>(
    grad: &[f32],
    weight: &[T],
    (rows, inputs, outputs): (usize, usize, usize),
) -> Vec<f32> {
    let mut out = vec![0.0_f32; rows * inputs];
    if out.is_empty() || outputs == 0 {
        return out;
    }
    let columns = inputs.min(256);
    let panel = (PANEL / columns).min(outputs);
    let address = Out::new(&mut out);
    (0..inputs.div_ceil(columns)).into_par_iter().for_each(|block| {
        let first = block * columns;
        let columns = columns.min(inputs - first);
        WIDE.with_borrow_mut(|wide| {
            wide.resize((panel * columns).max(wide.len()), 0.0);
            for (at, narrow) in weight.chunks(panel * inputs).enumerate() {
                let narrow = narrow.chunks_exact(inputs);
                let n = narrow.len();
                for (wide, narrow) in wide.chunks_exact_mut(columns).zip(narrow) {
                    T::widen(&narrow[first..][..columns], wide);
                }
                #[expect(unsafe_code, reason = "gemm takes addresses")]
                // SAFETY: `grad` is `rows * outputs` with `n` columns from this panel's first on,
                // `wide` is `n * columns`, and the columns of the output are this task's alone.
                unsafe {
                    add_product(
                        (rows, columns, n),
                        (address.at(first), inputs),
                        (grad[at * panel..].as_ptr(), outputs, 1),
                        (wide.as_ptr(), columns, 1),
                        1.0,
                    );
                }
            }
        });
    });
    out
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Var, quantized::GgmlDType};

    use super::super::tests::{error, random};
    use super::*;

    #[test]
    fn half_weights_multiply_as_if_widened() -> Result<()> {
        for (rows, inputs, outputs) in [(1, 37, 50), (9, 300, 1027), (40, 8, 3)] {
            let xs = random(&[rows, inputs], 1)?;
            for dtype in [DType::F16, DType::BF16] {
                let weight = random(&[outputs, inputs], 2)?.to_dtype(dtype)?;
                let expected = xs.matmul(&weight.to_dtype(DType::F32)?.t()?)?;
                assert!(error(&half_product(&xs, &weight)?, &expected)? < 1e-6);
            }
        }
        Ok(())
    }

    #[test]
    fn gradients_pass_through_half_weights() -> Result<()> {
        for (rows, inputs, outputs) in [(1, 37, 50), (9, 300, 1027), (40, 8, 3)] {
            let (xs, grad) =
                (Var::from_tensor(&random(&[rows, inputs], 1)?)?, random(&[rows, outputs], 3)?);
            for dtype in [DType::F16, DType::BF16] {
                let weight = random(&[outputs, inputs], 2)?.to_dtype(dtype)?;
                let out = half_product(xs.as_tensor(), &weight)?;
                let gradients = (out * &grad)?.sum_all()?.backward()?;
                let expected = grad.matmul(&weight.to_dtype(DType::F32)?)?;
                assert!(error(gradients.get(&xs).unwrap(), &expected)? < 1e-6);
            }
        }
        Ok(())
    }

    #[test]
    fn gradients_pass_through_quantised_weights() -> Result<()> {
        let (xs, grad) = (Var::from_tensor(&random(&[5, 256], 1)?)?, random(&[5, 40], 3)?);
        let weight = QTensor::quantize(&random(&[40, 256], 2)?, GgmlDType::Q8_0)?;
        let dense = weight.dequantize(&Device::Cpu)?;
        let weight = QMatMul::from_qtensor(weight)?;
        let out = quantised_product(xs.as_tensor(), &weight)?;
        assert!(error(&out.detach(), &weight.forward(&xs.detach())?)? == 0.0);
        let gradients = (out * &grad)?.sum_all()?.backward()?;
        assert!(error(gradients.get(&xs).unwrap(), &grad.matmul(&dense)?)? < 1e-6);
        Ok(())
    }

    #[test]
    fn other_shapes_and_types_are_refused() -> Result<()> {
        let xs = random(&[2, 8], 1)?;
        assert!(half_product(&xs, &random(&[4, 8], 2)?).is_err());
        assert!(half_product(&xs, &random(&[4, 9], 2)?.to_dtype(DType::F16)?).is_err());
        Ok(())
    }
}
