//! For tests: gradients against central finite differences.

use std::{collections::BTreeMap, path::Path};

use candle_core::{DType, Device, Result, Tensor, Var};

use crate::model::{
    bundle::{Bundle, WeightType},
    config::Config,
    import::random::{Tokenizers, write_random},
    kernels::with_plain_gradients,
    weights::Weights,
};

/// A random model of which some tensors are trained.
pub(crate) struct Trained {
    plain: Weights,
    vars: BTreeMap<String, Var>,
}

impl Trained {
    /// A random model of `config` in f32 that trains the tensors whose names `wanted` accepts.
    pub(crate) fn random(config: &Config, wanted: impl Fn(&str) -> bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("random.gguf");
        write_random(config, WeightType::F32, 11, Path::new(&path), Tokenizers::default()).unwrap();
        let bundle = Bundle::open(&path).unwrap();
        let plain = bundle.weights(&Device::Cpu, DType::F32);
        let mut made = Self { plain: plain.clone(), vars: BTreeMap::new() };
        for tensor in bundle.tensors().filter(|t| wanted(&t.name)) {
            made.insert(&tensor.name, &plain.get(tensor.shape.as_slice(), &tensor.name).unwrap());
        }
        made
    }

    /// Trains `name` too, from `value` on.
    pub(crate) fn insert(&mut self, name: &str, value: &Tensor) {
        self.vars.insert(name.to_owned(), Var::from_tensor(value).unwrap());
    }

    /// Trains `name` of this shape too, from reproducible numbers of about `scale` on.
    pub(crate) fn insert_random(&mut self, name: &str, shape: &[usize], scale: f32) {
        let n: usize = shape.iter().product();
        let seed = name.bytes().fold(0_u32, |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
        self.insert(name, &numbers(n, seed, scale).reshape(shape).unwrap());
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.vars.keys().map(String::as_str).collect()
    }

    pub(crate) fn get(&self, name: &str) -> &Var {
        &self.vars[name]
    }

    /// The weights as networks read them.
    pub(crate) fn weights(&self) -> Weights {
        let tensors = self.vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone()));
        self.plain.clone().training(tensors.collect())
    }

    /// Compares the gradient of `loss` to every trained tensor with finite differences, along
    /// the gradient, along its signs and along some other direction.
    pub(crate) fn check(&self, loss: impl Fn(&Weights) -> Result<Tensor>) {
        let value = |w: &Weights| f64::from(loss(w).unwrap().to_scalar::<f32>().unwrap());
        let gradients = loss(&self.weights()).unwrap().backward().unwrap();
        for (seed, (name, var)) in (1_u32..).zip(&self.vars) {
            let gradient = gradients.get(var).unwrap_or_else(|| panic!("`{name}` has no gradient"));
            let gradient = gradient.detach();
            assert_eq!(gradient.dims(), var.dims(), "{name}");
            let length = dot(&gradient, &gradient).sqrt();
            let start = var.as_tensor().copy().unwrap().detach();
            let other = numbers(var.elem_count(), seed, 1.0).reshape(var.dims()).unwrap();
            let other = (unit(&other) + unit(&gradient)).unwrap();
            for direction in [gradient.clone(), gradient.sign().unwrap(), other] {
                let direction = unit(&direction);
                // Far enough to stand out of the rounding of f32, near enough to stay linear.
                let room =
                    0.02 * dot(&start, &start).sqrt().max((var.elem_count() as f64).sqrt() / 20.0);
                let step = (2e-3 / length.max(1e-9)).min(room);
                let at = |step: f64| {
                    var.set(&(&start + (&direction * step).unwrap()).unwrap()).unwrap();
                    value(&self.weights())
                };
                let difference = (at(step) - at(-step)) / (2.0 * step);
                var.set(&start).unwrap();
                let expected = dot(&gradient, &direction);
                let off = (difference - expected).abs();
                assert!(
                    off <= 0.01 * expected.abs() + 2e-6 / step,
                    "`{name}`: gradient {expected}, difference {difference} at a step of {step}"
                );
            }
        }
    }
}

impl Trained {
    /// Compares the gradients of `loss` to all trained tensors, by the fused operations, with
    /// those by candle's own.
    fn check_fused(&self, loss: impl Fn(&Weights) -> Result<Tensor>) {
        let gradients = || loss(&self.weights()).unwrap().backward().unwrap();
        let (fused, plain) = (gradients(), with_plain_gradients(gradients));
        for (name, var) in &self.vars {
            let (Some(fused), Some(plain)) = (fused.get(var), plain.get(var)) else {
                panic!("`{name}` has no gradient");
            };
            let difference = (fused - plain).unwrap();
            let (off, size) = (dot(&difference, &difference).sqrt(), dot(plain, plain).sqrt());
            // The gradient of a key's bias is nothing but rounding.
            assert!(off <= 2e-4 * size + 1e-5, "`{name}`: off by {off} of {size}");
        }
    }
}

/// `n` numbers between `-2 scale` and `2 scale`, the same on every machine.
pub(crate) fn numbers(n: usize, seed: u32, scale: f32) -> Tensor {
    let values: Vec<f32> = (0..n as u32)
        .map(|i| {
            let mixed = (i.wrapping_add(seed.wrapping_mul(7919))).wrapping_mul(2_654_435_761);
            let mixed = (mixed ^ (mixed >> 15)).wrapping_mul(2_246_822_519);
            ((mixed >> 8) as f32 / (1 << 22) as f32 - 2.0) * scale
        })
        .collect();
    Tensor::from_vec(values, n, &Device::Cpu).unwrap()
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    let product = (a.to_dtype(DType::F64).unwrap() * b.to_dtype(DType::F64).unwrap()).unwrap();
    product.sum_all().unwrap().to_scalar::<f64>().unwrap()
}

fn unit(xs: &Tensor) -> Tensor {
    (xs / dot(xs, xs).sqrt().max(1e-30)).unwrap()
}

mod tests {
    use candle_core::Module;

    use super::*;
    use crate::model::{
        bundle::tests::small_config, eva_vit::EvaVit, phi::Phi, qformer::RetrievalQFormer,
    };

    /// A loss to which every number counts differently.
    fn weighed(xs: &Tensor) -> Result<Tensor> {
        let weights = numbers(xs.elem_count(), 5, 1.0).reshape(xs.dims())?;
        (xs * weights)?.sum_all()
    }

    #[test]
    fn the_vit_has_the_gradients_of_plain_operations() {
        let config = small_config();
        let vision = config.vision.clone().unwrap();
        let trained = Trained::random(&config, |name| name.starts_with("vit."));
        let pixels = numbers(2 * 3 * 56 * 56, 1, 0.5).reshape((2, 3, 56, 56)).unwrap();
        // The position table is resized outside the graph for other sizes than its own.
        let trained = Trained {
            vars: trained.vars.into_iter().filter(|(name, _)| name != "vit.pos_embed").collect(),
            ..trained
        };
        trained.check_fused(|w| weighed(&EvaVit::load(&vision, &w.pp("vit"))?.forward(&pixels)?));
    }

    #[test]
    fn image_text_matching_has_the_gradients_of_plain_operations() {
        let config = small_config();
        let (retrieval, width) =
            (config.retrieval.clone().unwrap(), config.vision.clone().unwrap().width);
        let trained = Trained::random(&config, |name| {
            ["Qformer.bert.", "ln_vision.", "query_tokens", "itm_head."]
                .iter()
                .any(|part| name.strip_prefix("retrieval.").is_some_and(|n| n.starts_with(part)))
        });
        let tokens = numbers(2 * 17 * width, 2, 1.0).reshape((2, 17, width)).unwrap();
        let texts = [vec![2, 5, 3], vec![2, 9, 8, 7, 40, 3]];
        trained.check_fused(|w| {
            let qformer = RetrievalQFormer::load(&retrieval, width, &w.pp("retrieval"))?;
            let seen = qformer.see(&tokens)?;
            let pairs = qformer.pairs(&seen, &[0, 1], &texts)?;
            let text = pairs.text.narrow(1, 0, 3)?;
            weighed(&pairs.logits)? + weighed(&pairs.queries)? + weighed(&text)?
        });
    }

    #[test]
    fn phi_has_the_gradients_of_plain_operations() {
        let config = small_config();
        let language = config.language.clone().unwrap();
        let trained = Trained::random(&config, |name| {
            name.starts_with("language.model.") || name.starts_with("language.lm_head.")
        });
        let ids: Vec<u32> = (0..14).map(|i| i * 29 % 300).collect();
        trained.check_fused(|w| {
            let phi = Phi::load(&language, &w.pp("language"))?;
            let embeds = phi.embed(&ids)?.reshape((2, 7, ()))?;
            weighed(&phi.logits(&phi.forward_whole(&embeds)?)?)
        });
    }
}
