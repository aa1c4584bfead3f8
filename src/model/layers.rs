//! Layers that the networks are made of.

mod finite;
mod peft;

use std::{fmt, sync::Arc};

use candle_core::{DType, Module, Result, Tensor, quantized::QMatMul};

use crate::model::{
    kernels::{self, Activation, add_bias, half_product, quantised_product},
    weights::{Stored, Weights},
};

pub use finite::first_not_finite;
use peft::LowRank;
pub use peft::{Dropout, merged, row_lengths};

/// What looks at named tensors.
type See<'a> = dyn FnMut(&str, &Tensor) + 'a;

/// An observer of the tensors inside a network, by name; costs nothing where there is none.
#[derive(Default)]
pub struct Tap<'a> {
    see: Option<&'a mut See<'a>>,
}

impl fmt::Debug for Tap<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap").field("on", &self.is_on()).finish()
    }
}

impl<'a> Tap<'a> {
    /// Shows every named tensor to `see`.
    pub fn new(see: &'a mut See<'a>) -> Self {
        Self { see: Some(see) }
    }

    /// Shows nothing to nobody.
    pub fn none() -> Self {
        Self::default()
    }

    /// Whether somebody looks.
    pub fn is_on(&self) -> bool {
        self.see.is_some()
    }

    /// Shows `tensor` under `name`, which is only put together if somebody looks.
    pub fn see(&mut self, name: impl fmt::Display, tensor: &Tensor) {
        if let Some(see) = &mut self.see {
            see(&name.to_string(), tensor);
        }
    }
}

/// `xs W^T + b`, with weights as they lie in the bundle.
///
/// On a CPU f16 and bf16 weights stay so in memory and are widened as they are used; on a GPU
/// everything is of one type, but for quantised weights.
#[derive(Debug, Clone)]
pub struct Linear {
    name: Arc<str>,
    weight: Weight,
    bias: Option<Tensor>,
    lora: Option<LowRank>,
    output: usize,
}

#[derive(Debug, Clone)]
enum Weight {
    /// `(output, input)` in the compute type.
    Dense(Tensor),
    /// `(output, input)` in f16 or bf16, on a CPU.
    Half(Tensor),
    /// `(output, input + padding)`.
    Quantized { product: QMatMul, padding: usize },
}

impl Linear {
    /// Reads `weight`, and `bias` if there is one.
    ///
    /// # Errors
    ///
    /// When a tensor is missing or of another shape.
    pub fn load(w: &Weights, input: usize, output: usize) -> Result<Self> {
        let bias = if w.contains("bias") { Some(w.get(output, "bias")?) } else { None };
        Self::load_with_bias(w, input, output, bias)
    }

    /// Reads `weight`; the bias is the caller's.
    ///
    /// # Errors
    ///
    /// When the tensor is missing or of another shape.
    pub fn load_with_bias(
        w: &Weights,
        input: usize,
        output: usize,
        bias: Option<Tensor>,
    ) -> Result<Self> {
        let weight = match w.stored(output, input, "weight")? {
            Stored::Dense(weight) if weight.dtype() == w.dtype() => Weight::Dense(weight),
            Stored::Dense(weight) if w.device().is_cpu() && w.dtype() == DType::F32 => {
                Weight::Half(weight)
            }
            Stored::Dense(weight) => Weight::Dense(weight.to_dtype(w.dtype())?),
            Stored::Quantized(weight) => {
                let padded = weight.shape().dims2()?.1;
                let product = QMatMul::from_arc(weight)?;
                if w.device().is_cpu() {
                    // candle rearranges a weight at its first product. Done here, the layers of a
                    // part, which are read side by side, are rearranged side by side too.
                    product.forward(&Tensor::zeros((1, padded), DType::F32, w.device())?)?;
                }
                Weight::Quantized { product, padding: padded - input }
            }
        };
        Ok(Self { name: w.prefix().into(), weight, bias, lora: None, output })
    }

    /// As [`Linear::load`], with `lora_A.weight` and `lora_B.weight` if there are any: `scale`
    /// is their factor, their rank is the number of rows of the first. With
    /// `lora_magnitude_vector` they are a `DoRA`, which needs a dense weight.
    ///
    /// # Errors
    ///
    /// When a tensor is missing or of another shape, the scale of a LoRA is not given, or the
    /// weight of a `DoRA` is quantised.
    pub fn load_with_lora(
        w: &Weights,
        input: usize,
        output: usize,
        scale: Option<f64>,
    ) -> Result<Self> {
        let mut linear = Self::load(w, input, output)?;
        linear.lora = LowRank::load(w, input, output, scale, || match &linear.weight {
            Weight::Dense(weight) | Weight::Half(weight) => Ok(weight.clone()),
            Weight::Quantized { .. } => candle_core::bail!("a DoRA needs a dense weight"),
        })?;
        Ok(linear)
    }

    /// Drops some of what goes into a low-rank addition; does nothing where there is none.
    pub fn set_dropout(&mut self, dropout: Dropout) {
        if let Some(lora) = &mut self.lora {
            lora.set_dropout(dropout);
        }
    }

    /// Whether the weight is quantised.
    pub fn is_quantised(&self) -> bool {
        matches!(self.weight, Weight::Quantized { .. })
    }

    /// The activation of what [`Module::forward`] gives.
    ///
    /// # Errors
    ///
    /// When `xs` does not end in the layer's input width.
    pub fn forward_then(&self, xs: &Tensor, activation: Activation) -> Result<Tensor> {
        if let (Weight::Dense(weight), None) = (&self.weight, &self.lora) {
            let out = kernels::linear(xs, weight, self.bias.as_ref(), Some(activation));
            return finite::seen(&self.name, out);
        }
        let out = activation.of_fresh(self.product(xs)?, self.bias.as_ref());
        finite::seen(&self.name, out)
    }

    /// `xs W^T` with the LoRA but without the bias: a fresh tensor.
    fn product(&self, xs: &Tensor) -> Result<Tensor> {
        let dims = xs.dims();
        let (Some(&input), rows) = (dims.last(), dims.iter().rev().skip(1).product::<usize>())
        else {
            candle_core::bail!("a linear layer needs at least one dimension");
        };
        let flat = xs.reshape((rows, input))?;
        let mut out = match &self.weight {
            Weight::Dense(weight) => kernels::linear(&flat, weight, None, None)?,
            Weight::Half(weight) => half_product(&flat, weight)?,
            Weight::Quantized { product, padding } => {
                let padded = if *padding == 0 {
                    flat.contiguous()?
                } else {
                    flat.pad_with_zeros(1, 0, *padding)?
                };
                quantised_product(&padded.to_dtype(DType::F32)?, product)?.to_dtype(xs.dtype())?
            }
        };
        if let Some(lora) = &self.lora {
            out = lora.add_to(out, &flat)?;
        }
        let mut shape = dims.to_vec();
        shape[dims.len() - 1] = self.output;
        out.reshape(shape)
    }
}

impl Module for Linear {
    /// `(.., input)` to `(.., output)`.
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        if let (Weight::Dense(weight), None) = (&self.weight, &self.lora) {
            return finite::seen(&self.name, kernels::linear(xs, weight, self.bias.as_ref(), None));
        }
        finite::seen(&self.name, add_bias(self.product(xs)?, self.bias.as_ref()))
    }
}

/// Layer norm over the last dimension, with weight and bias; sums in f32.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    name: Arc<str>,
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// Reads `weight` and `bias`.
    ///
    /// # Errors
    ///
    /// When one is missing or of another shape.
    pub fn load(w: &Weights, width: usize, eps: f64) -> Result<Self> {
        let (weight, bias) = (w.get(width, "weight")?, w.get(width, "bias")?);
        Ok(Self { name: w.prefix().into(), weight, bias, eps })
    }

    /// Weight and bias.
    pub fn parameters(&self) -> (Tensor, Tensor) {
        (self.weight.clone(), self.bias.clone())
    }
}

impl Module for LayerNorm {
    /// The shape stays.
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        finite::seen(&self.name, kernels::layer_norm(xs, &self.weight, &self.bias, self.eps))
    }
}

/// RMS norm over the last dimension, with a weight; sums in f32.
#[derive(Debug, Clone)]
pub struct RmsNorm {
    name: Arc<str>,
    weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    /// Reads `weight`.
    ///
    /// # Errors
    ///
    /// When it is missing or of another shape.
    pub fn load(w: &Weights, width: usize, eps: f64) -> Result<Self> {
        Ok(Self { name: w.prefix().into(), weight: w.get(width, "weight")?, eps })
    }
}

impl Module for RmsNorm {
    /// The shape stays.
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        finite::seen(&self.name, kernels::rms_norm(xs, &self.weight, self.eps))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, IndexOp};

    use super::*;
    use crate::model::{
        bundle::{Bundle, WeightType, tests::small_config},
        config::{Config, LanguageConfig},
        import::random::{Tokenizers, write_random},
    };

    fn weights(config: &Config, weight_type: WeightType) -> Weights {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("random.gguf");
        write_random(config, weight_type, 9, &path, Tokenizers::default()).unwrap();
        Bundle::open(&path).unwrap().weights(&Device::Cpu, DType::F32).pp("language.model.layers.0")
    }

    fn xs(width: usize) -> Tensor {
        let values: Vec<f32> = (0..5 * width).map(|i| (i as f32 * 0.7).sin()).collect();
        Tensor::from_vec(values, (1, 5, width), &Device::Cpu).unwrap()
    }

    fn off(left: &Tensor, right: &Tensor) -> f32 {
        let difference = (left - right).unwrap().abs().unwrap().flatten_all().unwrap();
        difference.max(0).unwrap().to_scalar::<f32>().unwrap()
    }

    #[test]
    fn every_way_of_storing_a_weight_gives_nearly_the_same() {
        let config = small_config();
        let load =
            |weight_type| Linear::load(&weights(&config, weight_type).pp("mlp.fc2"), 200, 96);
        let exact = load(WeightType::F32).unwrap().forward(&xs(200)).unwrap();
        assert_eq!(exact.dims(), [1, 5, 96]);
        for (weight_type, most) in
            [(WeightType::F16, 2e-3), (WeightType::Bf16, 2e-2), (WeightType::Q8_0, 3e-2)]
        {
            let linear = load(weight_type).unwrap();
            assert_eq!(linear.is_quantised(), weight_type == WeightType::Q8_0);
            let got = linear.forward(&xs(200)).unwrap();
            assert!(off(&got, &exact) < most, "{weight_type}: {}", off(&got, &exact));
            let alone = linear.forward(&xs(200).i((.., 2..3)).unwrap()).unwrap();
            assert!(off(&alone, &got.i((.., 2..3)).unwrap()) < 1e-4, "{weight_type}");
        }
    }

    #[test]
    fn a_lora_beside_the_weight_gives_what_the_merged_weight_gives() {
        let mut config = small_config();
        let language = config.language.take().unwrap();
        let lora = LanguageConfig { lora_rank: Some(4), lora_scale: Some(0.25), ..language };
        config.language = Some(lora);
        let w = weights(&config, WeightType::F32).pp("self_attn.dense");
        let linear = Linear::load_with_lora(&w, 96, 96, Some(0.25)).unwrap();
        let get = |shape, name| w.get(shape, name).unwrap();
        let added = get((96, 4), "lora_B.weight").matmul(&get((4, 96), "lora_A.weight")).unwrap();
        let merged = (get((96, 96), "weight") + (added * 0.25).unwrap()).unwrap();
        let bias = w.get(96, "bias").unwrap();
        let expected = xs(96).squeeze(0).unwrap().matmul(&merged.t().unwrap()).unwrap();
        let expected = expected.broadcast_add(&bias).unwrap().unsqueeze(0).unwrap();
        assert!(off(&linear.forward(&xs(96)).unwrap(), &expected) < 1e-5);
        let plain = Linear::load(&w, 96, 96).unwrap().forward(&xs(96)).unwrap();
        assert!(off(&plain, &expected) > 1e-3);
        assert!(Linear::load_with_lora(&w, 96, 96, None).is_err());
    }

    #[test]
    fn the_first_layer_that_is_not_finite_is_named() {
        let config = small_config();
        let w = weights(&config, WeightType::F32);
        let norm = LayerNorm::load(&w.pp("input_layernorm"), 96, 1e-5).unwrap();
        let linear = Linear::load(&w.pp("self_attn.dense"), 96, 96).unwrap();
        let through = |xs: Tensor| {
            first_not_finite(|| linear.forward(&(norm.forward(&xs)? * f64::INFINITY)?))
        };
        let named = through(xs(96)).unwrap();
        assert!(named.ends_with("layers.0.self_attn.dense"), "{named}");
        let named = through((xs(96) * f64::NAN).unwrap()).unwrap();
        assert!(named.ends_with("layers.0.input_layernorm"), "{named}");
        assert_eq!(first_not_finite(|| linear.forward(&xs(96))), None);
    }

    #[test]
    fn an_observer_sees_names_and_nobody_costs_none() {
        let mut seen = Vec::new();
        let mut see = |name: &str, _: &Tensor| seen.push(name.to_owned());
        let mut tap = Tap::new(&mut see);
        assert!(tap.is_on());
        tap.see(format_args!("layer{}", 3), &xs(2));
        Tap::none().see("unseen", &xs(2));
        assert_eq!(seen, ["layer3"]);
    }
}
