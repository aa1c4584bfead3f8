//! What a run trains: named tensors with the state of their optimiser.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var, backprop::GradStore};

use super::Result;

/// One trained tensor, in f32.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Full name, as in a bundle.
    pub name: String,
    /// Its value.
    pub var: Var,
    /// AdamW's running means of the gradient and of its square: `(2, elements)`.
    pub moments: Tensor,
    /// Whether weight decay applies.
    pub decay: bool,
    /// Factor of the learning rate.
    pub rate: f64,
}

/// The trained tensors of a run, by name.
#[derive(Debug, Clone, Default)]
pub struct Parameters {
    list: Vec<Parameter>,
}

impl Parameters {
    /// No parameters yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tensor that starts as `value` and whose learning rate is that of the schedule
    /// times `rate`; replaces one of the same name. Weight decay applies as in LAVIS: not to
    /// vectors, nor to names with `bias`, `ln` or `bn`.
    ///
    /// # Errors
    ///
    /// When the device has no room.
    pub fn insert(&mut self, name: impl Into<String>, value: &Tensor, rate: f64) -> Result<()> {
        let name = name.into();
        let value = value.detach().to_dtype(DType::F32)?.contiguous()?;
        let decay = value.rank() >= 2 && !["bias", "ln", "bn"].iter().any(|s| name.contains(s));
        let moments = Tensor::zeros((2, value.elem_count()), DType::F32, value.device())?;
        let var = Var::from_tensor(&value.copy()?)?;
        let parameter = Parameter { name, var, moments, decay, rate };
        match self.list.binary_search_by(|p| p.name.cmp(&parameter.name)) {
            Ok(at) => self.list[at] = parameter,
            Err(at) => self.list.insert(at, parameter),
        }
        Ok(())
    }

    /// The parameters, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = &Parameter> {
        self.list.iter()
    }

    /// The parameter `name`.
    pub fn get(&self, name: &str) -> Option<&Parameter> {
        self.list.binary_search_by(|p| p.name.as_str().cmp(name)).ok().map(|at| &self.list[at])
    }

    /// Tensors in the list.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether nothing is trained.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Numbers in all tensors.
    pub fn elements(&self) -> usize {
        self.list.iter().map(|p| p.var.elem_count()).sum()
    }

    /// Keeps the parameters whose names `wanted` accepts.
    pub fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        self.list.retain(|p| wanted(&p.name));
    }

    /// The tensors by name, for [`Weights::training`](crate::model::weights::Weights::training):
    /// they show every later update.
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        self.list.iter().map(|p| (p.name.clone(), p.var.as_tensor().clone())).collect()
    }

    /// Where the parameters lie; the CPU when there are none.
    pub fn device(&self) -> Device {
        self.list.first().map_or(Device::Cpu, |p| p.var.device().clone())
    }

    /// The gradients of these parameters in `store`.
    pub fn gradients(&self, store: &GradStore) -> Gradients {
        Gradients(self.list.iter().map(|p| store.get(p.var.as_tensor()).cloned()).collect())
    }
}

/// A gradient for each of some [`Parameters`], in their order; `None` where the loss does not
/// depend on the parameter.
#[derive(Debug, Clone)]
pub struct Gradients(pub Vec<Option<Tensor>>);

impl Gradients {
    /// The mean of the gradients of several shards, summed in their order.
    ///
    /// # Errors
    ///
    /// When shapes differ.
    ///
    /// # Panics
    ///
    /// When they are not gradients of the same parameters.
    pub fn mean(shards: Vec<Self>) -> Result<Self> {
        let n = shards.len();
        let mut shards = shards.into_iter();
        let Some(mut sum) = shards.next() else { return Ok(Self(Vec::new())) };
        for shard in shards {
            assert_eq!(shard.0.len(), sum.0.len(), "gradients of the same parameters");
            for (sum, more) in sum.0.iter_mut().zip(shard.0) {
                *sum = match (sum.take(), more) {
                    (Some(sum), Some(more)) => Some((sum + more)?),
                    (sum, more) => sum.or(more),
                };
            }
        }
        if n > 1 {
            for gradient in sum.0.iter_mut().flatten() {
                *gradient = (&*gradient / n as f64)?;
            }
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters() -> Parameters {
        let mut parameters = Parameters::new();
        let ones = |shape: &[usize]| Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap();
        parameters.insert("b.weight", &ones(&[2, 3]), 1.0).unwrap();
        parameters.insert("a.weight", &ones(&[3]), 1.0).unwrap();
        parameters.insert("a.bias", &ones(&[1, 3]), 0.5).unwrap();
        parameters
    }

    #[test]
    fn parameters_stand_in_the_order_of_their_names_and_matrices_decay() {
        let parameters = parameters();
        let seen: Vec<_> = parameters.iter().map(|p| (p.name.as_str(), p.decay)).collect();
        assert_eq!(seen, [("a.bias", false), ("a.weight", false), ("b.weight", true)]);
        assert_eq!((parameters.len(), parameters.elements()), (3, 12));
        assert!(parameters.get("b.weight").is_some() && parameters.get("c").is_none());
    }

    #[test]
    fn the_mean_of_shards_is_the_gradient_of_the_mean_loss() {
        let parameters = parameters();
        let b = parameters.get("b.weight").unwrap().var.as_tensor();
        let a = parameters.get("a.weight").unwrap().var.as_tensor();
        let first = (b.sum_all().unwrap() * 2.0).unwrap();
        let second = (b.sum_all().unwrap() + (a.sum_all().unwrap() * 4.0).unwrap()).unwrap();
        let shards =
            [&first, &second].map(|loss| parameters.gradients(&loss.backward().unwrap())).to_vec();
        let mean = Gradients::mean(shards).unwrap();
        assert!(mean.0[0].is_none());
        let value = |i: usize| mean.0[i].as_ref().unwrap().flatten_all().unwrap();
        assert_eq!(value(1).to_vec1::<f32>().unwrap(), [2.0; 3]);
        assert_eq!(value(2).to_vec1::<f32>().unwrap(), [1.5; 6]);
    }
}
