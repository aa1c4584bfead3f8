//! Products with weights that are not trained, where candle's own operations run.
//!
//! candle's product computes the gradient of both factors and keeps that of an untracked one to
//! the end: for the frozen weights of the full model that is half as much work again and 5 GB.

use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, Error, Layout, Result, Shape, Storage, Tensor,
    backend::BackendStorage,
};

/// `xs weight^T`, with a gradient for `xs` `(rows, inputs)` alone; `weight` is
/// `(outputs, inputs)` of the same type on the same device.
///
/// # Errors
///
/// When shapes, types or devices differ.
pub(super) fn frozen_product(xs: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let ((_, inputs), (_, expected)) = (xs.dims2()?, weight.dims2()?);
    if inputs != expected || xs.dtype() != weight.dtype() {
        candle_core::bail!(
            "a product of {:?} {:?} with a weight {:?} {:?}",
            xs.dims(),
            xs.dtype(),
            weight.dims(),
            weight.dtype()
        );
    }
    xs.contiguous()?.apply_op1(Frozen { weight: weight.detach() })
}

/// The weight `(outputs, inputs)`.
struct Frozen {
    weight: Tensor,
}

impl Frozen {
    /// The product of a storage with the weight's, which `own` finds in it.
    fn product<S: BackendStorage>(
        &self,
        xs: &S,
        layout: &Layout,
        own: impl Fn(&Storage) -> Option<&S>,
    ) -> Result<(S, Shape)> {
        let ((rows, inputs), outputs) = (layout.shape().dims2()?, self.weight.dim(0)?);
        let turned = self.weight.t()?;
        let (storage, weight_layout) = turned.storage_and_layout();
        let weight = own(&storage)
            .ok_or_else(|| Error::msg("a weight lies on another device than its input"))?;
        let out = xs.matmul(weight, (1, rows, outputs, inputs), layout, weight_layout)?;
        Ok((out, Shape::from((rows, outputs))))
    }
}

impl CustomOp1 for Frozen {
    fn name(&self) -> &'static str {
        "frozen-product"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.product(xs, layout, |storage| match storage {
            Storage::Cpu(storage) => Some(storage),
            _ => None,
        })
    }

    fn cuda_fwd(&self, xs: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        self.product(xs, layout, |storage| match storage {
            Storage::Cuda(storage) => Some(storage),
            _ => None,
        })
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        grad.contiguous()?.matmul(&self.weight).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};

    use super::*;

    fn waves(rows: usize, cols: usize, dtype: DType) -> Tensor {
        let values = (0..rows * cols).map(|i| (i as f32 * 0.37).sin());
        let flat = Tensor::from_iter(values, &Device::Cpu).unwrap();
        flat.reshape((rows, cols)).unwrap().to_dtype(dtype).unwrap()
    }

    #[test]
    fn only_the_input_gets_a_gradient_and_that_of_the_plain_product() {
        for dtype in [DType::F32, DType::F64] {
            let xs = Var::from_tensor(&waves(5, 7, dtype)).unwrap();
            let weight = waves(3, 7, dtype);
            let plain = xs.matmul(&weight.t().unwrap()).unwrap();
            let frozen = frozen_product(xs.as_tensor(), &weight).unwrap();
            let gradient = |out: &Tensor| {
                let gradients = out.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                let of_weight = gradients.get_ids().count();
                (gradients.get(&xs).unwrap().to_dtype(DType::F64).unwrap(), of_weight)
            };
            let ((a, kept), (b, plainly)) = (gradient(&frozen), gradient(&plain));
            let off = |a: &Tensor, b: &Tensor| {
                let off = (a - b).unwrap().abs().unwrap().max_all().unwrap();
                off.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap()
            };
            assert!(off(&frozen, &plain) < 1e-5 && off(&a, &b) < 1e-5);
            assert!(kept < plainly, "{kept} gradients kept, {plainly} by a plain product");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let xs = waves(2, 7, DType::F32);
        assert!(frozen_product(&xs, &waves(3, 6, DType::F32)).is_err());
        assert!(frozen_product(&xs, &waves(3, 7, DType::F64)).is_err());
    }
}
