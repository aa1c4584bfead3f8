//! Linear layers, and their gradients in products without transposed copies.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Device, Error, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{
    Activation,
    activation::{add_bias, add_to_rows, column_sums},
    differentiable,
    frozen::frozen_product,
    memory::{Blank, Held, product},
    values,
};

/// Numbers of a block of rows: 512 KiB, about half of a second-level cache.
const BLOCK: usize = 1 << 17;
/// Rows of a weight's gradient that one task computes.
const WEIGHT_ROWS: usize = 128;

/// The activation of `xs weight^T + bias`: `xs` is `(.., inputs)`, `weight` `(outputs, inputs)`,
/// `bias` `(outputs)`; the result is `(.., outputs)` and nobody else holds it.
///
/// # Errors
///
/// When the shapes do not fit.
pub fn linear(
    xs: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    then: Option<Activation>,
) -> Result<Tensor> {
    let dims = xs.dims();
    let (outputs, inputs) = weight.dims2()?;
    if dims.last() != Some(&inputs) || bias.is_some_and(|bias| bias.dims() != [outputs]) {
        let bias = bias.map(Tensor::dims);
        candle_core::bail!("linear: {dims:?} by {:?} and {bias:?}", weight.dims());
    }
    let operands = [Some(xs), Some(weight), bias];
    if differentiable(&operands) {
        let (xs, weight) = (xs.contiguous()?, weight.contiguous()?);
        let op = Linear { then, before: OnceLock::new() };
        return match bias {
            Some(bias) => xs.apply_op3(&weight, &bias.contiguous()?, op),
            None => xs.apply_op2(&weight, op),
        };
    }
    let rows = dims[..dims.len() - 1].iter().product::<usize>();
    let flat = xs.reshape((rows, inputs))?;
    let product = if flat.track_op() && !weight.track_op() {
        frozen_product(&flat, weight)?
    } else {
        flat.matmul(&weight.t()?)?
    };
    let product = product.reshape([&dims[..dims.len() - 1], &[outputs]].concat())?;
    match then {
        Some(activation) => activation.of_fresh(product, bias),
        None => add_bias(product, bias),
    }
}

struct Linear {
    then: Option<Activation>,
    /// What went into the activation, for its slope.
    before: OnceLock<Vec<f32>>,
}

/// Sizes of one product.
#[derive(Clone, Copy)]
struct Sizes {
    rows: usize,
    inputs: usize,
    outputs: usize,
}

impl Sizes {
    fn of(xs: &Shape, weight: &Shape) -> Result<Self> {
        let (outputs, inputs) = weight.dims2()?;
        let rows = xs.dims()[..xs.rank() - 1].iter().product();
        Ok(Self { rows, inputs, outputs })
    }

    /// Rows that one task computes, nearly the same for all.
    fn block(self) -> usize {
        let most = (BLOCK / self.inputs.max(self.outputs).max(1)).max(64);
        self.rows.div_ceil(self.rows.div_ceil(most).max(1)).max(1)
    }

    /// The blocks: their first rows and how many they have.
    fn blocks(self) -> impl IndexedParallelIterator<Item = (usize, usize)> {
        let block = self.block();
        let of = move |at: usize| (at * block, block.min(self.rows - at * block));
        (0..self.rows.div_ceil(block)).into_par_iter().map(of)
    }
}

impl Linear {
    fn forward(
        &self,
        xs: (&CpuStorage, &Layout),
        weight: (&CpuStorage, &Layout),
        bias: Option<(&CpuStorage, &Layout)>,
    ) -> Result<(CpuStorage, Shape)> {
        const OP: &str = "linear";
        let sizes = Sizes::of(xs.1.shape(), weight.1.shape())?;
        let mut shape = xs.1.dims().to_vec();
        let last = shape.len() - 1;
        shape[last] = sizes.outputs;
        let (xs, weight) = (values(xs.0, xs.1, OP)?, values(weight.0, weight.1, OP)?);
        let bias = bias.map(|(bias, layout)| values(bias, layout, OP)).transpose()?;
        let out = sizes.forward(xs, weight, bias, self.then, &self.before);
        Ok((CpuStorage::F32(out), Shape::from(shape)))
    }

    /// Gradients of those of `xs`, `weight` and the bias that are `wanted`.
    fn backward(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        wanted: [bool; 3],
        grad: &Tensor,
    ) -> Result<[Option<Tensor>; 3]> {
        const OP: &str = "gradient of linear";
        let sizes = Sizes::of(xs.shape(), weight.shape())?;
        let grad = grad.contiguous()?;
        let (held_xs, held_weight, grad) =
            (Held::new(xs, OP)?, Held::new(weight, OP)?, Held::new(&grad, OP)?);
        let inner = match self.then {
            Some(activation) => {
                let before = self.before.get().ok_or_else(|| Error::msg("linear has not run"))?;
                Some(activation.backward(before, &grad))
            }
            None => None,
        };
        let grad = inner.as_deref().unwrap_or(&grad);
        let tensor =
            |values: Vec<f32>, shape: &[usize]| Tensor::from_vec(values, shape, &Device::Cpu);
        let [to_xs, to_weight, to_bias] = wanted;
        Ok([
            to_xs.then(|| tensor(sizes.to_xs(&held_weight, grad), xs.dims())).transpose()?,
            to_weight
                .then(|| tensor(sizes.to_weight(&held_xs, grad), weight.dims()))
                .transpose()?,
            to_bias
                .then(|| tensor(column_sums(grad, sizes.outputs), &[sizes.outputs]))
                .transpose()?,
        ])
    }
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
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
        self.forward((xs, xs_layout), (weight, weight_layout), Some((bias, bias_layout)))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let wanted = [xs.track_op(), weight.track_op(), bias.track_op()];
        self.backward(xs, weight, wanted, grad).map(|[xs, weight, bias]| (xs, weight, bias))
    }
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        xs: &CpuStorage,
        xs_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.forward((xs, xs_layout), (weight, weight_layout), None)
    }

    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let wanted = [xs.track_op(), weight.track_op(), false];
        self.backward(xs, weight, wanted, grad).map(|[xs, weight, _]| (xs, weight))
    }
}

impl Sizes {
    fn forward(
        self,
        xs: &[f32],
        weight: &[f32],
        bias: Option<&[f32]>,
        then: Option<Activation>,
        before: &OnceLock<Vec<f32>>,
    ) -> Vec<f32> {
        let Self { inputs, outputs, .. } = self;
        let len = self.rows * outputs;
        let none = vec![0.0; if bias.is_none() && then.is_some() { outputs } else { 0 }];
        let shift = bias.unwrap_or(&none);
        let (mut kept, mut out) =
            (Blank::new(if then.is_some() { len } else { 0 }), Blank::new(len));
        let (kept_at, out_at) = (kept.out(), out.out());
        self.blocks().for_each(|(first, rows)| {
            let (at, len) = (first * outputs, rows * outputs);
            let sums = if then.is_some() { kept_at } else { out_at };
            #[expect(unsafe_code, reason = "tasks write to different rows")]
            // SAFETY: the block lies inside both buffers and is this task's alone; the product
            // writes all of one before it is read, the activation all of the other.
            unsafe {
                product(
                    (rows, outputs, inputs),
                    (sums.at(at), outputs),
                    (xs[first * inputs..].as_ptr(), inputs, 1),
                    (weight.as_ptr(), 1, inputs),
                    1.0,
                );
                if let Some(activation) = then {
                    activation.keeping(shift, kept_at.part(at, len), out_at.part(at, len));
                } else if bias.is_some() {
                    add_to_rows(shift, out_at.part(at, len));
                }
            }
        });
        #[expect(unsafe_code, reason = "see `Blank`")]
        // SAFETY: the blocks cover every row.
        unsafe {
            if then.is_some() {
                // Empty before: an operation runs once.
                let _ = before.set(kept.written());
            }
            out.written()
        }
    }

    /// `grad weight`: the gradient of the input.
    fn to_xs(self, weight: &[f32], grad: &[f32]) -> Vec<f32> {
        let Self { rows, inputs, outputs } = self;
        let mut out = Blank::new(rows * inputs);
        let address = out.out();
        self.blocks().for_each(|(first, rows)| {
            #[expect(unsafe_code, reason = "gemm takes addresses")]
            // SAFETY: `rows` rows of `outputs` and of `inputs`, which are this task's alone, and
            // the whole weight.
            unsafe {
                product(
                    (rows, inputs, outputs),
                    (address.at(first * inputs), inputs),
                    (grad[first * outputs..].as_ptr(), outputs, 1),
                    (weight.as_ptr(), inputs, 1),
                    1.0,
                );
            }
        });
        #[expect(unsafe_code, reason = "see `Blank`")]
        // SAFETY: the blocks cover every row.
        unsafe {
            out.written()
        }
    }

    /// `grad^T xs`: the gradient of the weight.
    fn to_weight(self, xs: &[f32], grad: &[f32]) -> Vec<f32> {
        let Self { rows, inputs, outputs } = self;
        let mut out = Blank::new(outputs * inputs);
        let address = out.out();
        (0..outputs.div_ceil(WEIGHT_ROWS)).into_par_iter().for_each(|block| {
            let first = block * WEIGHT_ROWS;
            #[expect(unsafe_code, reason = "gemm takes addresses")]
            // SAFETY: columns of the gradient and rows of the weight that exist, the latter this
            // task's alone.
            unsafe {
                product(
                    (WEIGHT_ROWS.min(outputs - first), inputs, rows),
                    (address.at(first * inputs), inputs),
                    (grad.as_ptr().wrapping_add(first), 1, outputs),
                    (xs.as_ptr(), inputs, 1),
                    1.0,
                );
            }
        });
        #[expect(unsafe_code, reason = "see `Blank`")]
        // SAFETY: the blocks cover every row of the weight.
        unsafe {
            out.written()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{equal_differences, equal_plain, error, random};
    use super::super::with_plain_gradients;
    use super::*;

    const EVERY: [Option<Activation>; 3] =
        [None, Some(Activation::GeluErf), Some(Activation::GeluTanh)];

    fn of(xs: &[Tensor], then: Option<Activation>) -> Result<Tensor> {
        linear(&xs[0], &xs[1], xs.get(2), then)
    }

    #[test]
    fn gradients_equal_differences() -> Result<()> {
        let inputs = [random(&[3, 2, 5], 1)?, random(&[4, 5], 2)?, random(&[4], 3)?];
        for then in EVERY {
            equal_differences(&inputs, &|xs| of(xs, then))?;
            equal_differences(&inputs[..2], &|xs| of(xs, then))?;
        }
        Ok(())
    }

    #[test]
    fn gradients_equal_those_of_plain_operations() -> Result<()> {
        for (rows, inputs, outputs) in [(1, 7, 9), (5, 1, 1), (700, 130, 260)] {
            let tensors = [
                random(&[rows, 1, inputs], 1)?,
                random(&[outputs, inputs], 2)?,
                random(&[outputs], 3)?,
            ];
            for then in EVERY {
                equal_plain(&tensors, &|xs| of(xs, then))?;
                equal_plain(&tensors[..2], &|xs| of(xs, then))?;
            }
        }
        Ok(())
    }

    #[test]
    fn strided_inputs_have_gradients() -> Result<()> {
        let inputs = [random(&[6, 3, 8], 1)?, random(&[6, 4], 2)?, random(&[4], 3)?];
        equal_plain(&inputs, &|xs| {
            let rows = xs[0].transpose(0, 1)?.narrow(2, 1, 6)?;
            linear(&rows, &xs[1].t()?, Some(&xs[2]), Some(Activation::GeluErf))
        })
    }

    #[test]
    fn only_what_is_trained_gets_a_gradient() -> Result<()> {
        let (xs, weight) = (random(&[4, 3], 1)?, random(&[2, 3], 2)?);
        let bias = candle_core::Var::from_tensor(&random(&[2], 3)?)?;
        let out = linear(&xs, &weight, Some(bias.as_tensor()), None)?;
        let gradients = out.sum_all()?.backward()?;
        let sums = gradients.get(&bias).map(Tensor::to_vec1::<f32>).transpose()?;
        assert_eq!(sums, Some(vec![4.0, 4.0]));
        assert!(gradients.get(&xs).is_none() && gradients.get(&weight).is_none());
        Ok(())
    }

    #[test]
    fn without_rows_gradients_are_zero() -> Result<()> {
        let weight = candle_core::Var::from_tensor(&random(&[2, 3], 2)?)?;
        let out = linear(&random(&[0, 3], 1)?, weight.as_tensor(), None, None)?;
        assert_eq!(out.dims(), [0, 2]);
        let gradients = out.sum_all()?.backward()?;
        let gradient = gradients.get(&weight).map(Tensor::to_vec2::<f32>).transpose()?;
        assert_eq!(gradient, Some(vec![vec![0.0; 3]; 2]));
        Ok(())
    }

    #[test]
    fn results_are_the_same_on_any_number_of_threads() -> Result<()> {
        let xs = candle_core::Var::from_tensor(&random(&[900, 140], 1)?)?;
        let (weight, bias) = (random(&[300, 140], 2)?, random(&[300], 3)?);
        let weight = candle_core::Var::from_tensor(&weight)?;
        let bias = candle_core::Var::from_tensor(&bias)?;
        let run = || -> Result<Vec<Vec<f32>>> {
            let activation = Some(Activation::GeluErf);
            let out = linear(&xs, &weight, Some(bias.as_tensor()), activation)?;
            let gradients = out.sqr()?.sum_all()?.backward()?;
            let vars = [&xs, &weight, &bias];
            vars.iter().map(|var| gradients.get(var).unwrap().flatten_all()?.to_vec1()).collect()
        };
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (one, three) = (pool(1).install(run)?, pool(3).install(run)?);
        assert_eq!(one, three);
        Ok(())
    }

    #[test]
    fn the_tracked_result_is_that_of_inference() -> Result<()> {
        let (xs, weight, bias) = (random(&[9, 6], 1)?, random(&[5, 6], 2)?, random(&[5], 3)?);
        let tracked = candle_core::Var::from_tensor(&xs)?;
        for then in EVERY {
            let expected = linear(&xs, &weight, Some(&bias), then)?;
            let run = || linear(tracked.as_tensor(), &weight, Some(&bias), then);
            assert!(error(&run()?.detach(), &expected)? < 1e-6);
            assert!(error(&with_plain_gradients(run)?.detach(), &expected)? < 2e-6);
        }
        Ok(())
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() -> Result<()> {
        let (xs, weight) = (random(&[2, 3], 1)?, random(&[4, 3], 2)?);
        assert!(linear(&random(&[2, 4], 1)?, &weight, None, None).is_err());
        assert!(linear(&xs, &weight, Some(&random(&[3], 1)?), None).is_err());
        Ok(())
    }
}
