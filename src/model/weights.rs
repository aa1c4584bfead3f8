//! Access to the tensors of a bundle, read one by one when a part asks for them.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fmt::Display,
    sync::{Arc, Mutex, PoisonError},
};

use candle_core::{
    DType, Device, Error, Result, Shape, Tensor,
    quantized::{GgmlDType, QStorage, QTensor},
};
use half::{bf16, f16};

use crate::model::bundle::{Bundle, ROW_MULTIPLE, TensorInfo, is_quantised};

/// The weights of a bundle below some prefix.
///
/// Nothing is read before it is asked for; every error names the tensor and the file.
#[derive(Debug, Clone)]
pub struct Weights {
    bundle: Bundle,
    prefix: String,
    device: Device,
    dtype: DType,
    training: Option<Arc<Training>>,
}

/// What stands before the file while a model is trained; see [`Weights::training`].
#[derive(Debug)]
struct Training {
    /// Tensors that are trained, by their full names, in f32.
    trained: BTreeMap<String, Tensor>,
    /// Tensors of the file that were read, by name and type, so that networks can be put
    /// together anew for every step.
    frozen: Mutex<HashMap<(String, Option<DType>), Tensor>>,
}

/// A linear layer's weight as it lies in the file.
#[derive(Debug, Clone)]
pub enum Stored {
    /// `(rows, cols)` in the file's f32, f16 or bf16 on a CPU, in the compute type elsewhere.
    Dense(Tensor),
    /// `(rows, cols)` with `cols` padded with zeros to a multiple of [`ROW_MULTIPLE`].
    Quantized(Arc<QTensor>),
}

/// A table of `rows` vectors that stays in the file, or one that is trained.
#[derive(Debug, Clone)]
pub struct RowTable {
    rows: usize,
    dim: usize,
    source: Rows,
}

#[derive(Debug, Clone)]
enum Rows {
    File { weights: Weights, tensor: TensorInfo },
    Trained(Tensor),
}

impl Weights {
    pub(crate) fn new(bundle: Bundle, device: Device, dtype: DType) -> Self {
        Self { bundle, prefix: String::new(), device, dtype, training: None }
    }

    /// The same weights with `trained` before them: tensors by their full names in the bundle,
    /// in f32 on [`Weights::device`], of which some may not be in the file at all (a LoRA, the
    /// auxiliary heads of a recipe).
    ///
    /// Networks read from the result track gradients where they use a trained tensor. A network
    /// may hold values computed from its tensors, so it is read anew after each update; tensors
    /// of the file are read once and then kept. Quantised ones become dense, f16 on a CPU.
    /// Tensors given before stay unless they are given again.
    #[must_use]
    pub fn training(self, trained: BTreeMap<String, Tensor>) -> Self {
        let mut all = self.training.as_ref().map_or_else(BTreeMap::new, |t| t.trained.clone());
        all.extend(trained);
        let training = Training { trained: all, frozen: Mutex::default() };
        Self { training: Some(Arc::new(training)), ..self }
    }

    /// The trained tensor `name`, if it is one.
    fn trained(&self, name: &str) -> Option<&Tensor> {
        self.training.as_ref()?.trained.get(&self.full_name(name))
    }

    /// The weights below `name`, joined to the prefix by a dot.
    #[must_use]
    pub fn pp(&self, name: impl Display) -> Self {
        Self { prefix: self.full_name(name), ..self.clone() }
    }

    /// Where the names begin, without a dot at the end: the full name of a layer.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether there is a tensor `name` below the prefix.
    pub fn contains(&self, name: &str) -> bool {
        self.trained(name).is_some() || self.bundle.find(&self.full_name(name)).is_some()
    }

    /// Sizes of the tensor `name` as stored, rows of quantised weights with their padding.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        if let Some(tensor) = self.trained(name) {
            return Some(tensor.dims());
        }
        self.bundle.find(&self.full_name(name)).map(|t| t.shape.as_slice())
    }

    /// Where tensors are put.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The type to compute in: f32 on a CPU; f32, f16 or bf16 elsewhere.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The tensor `name` in [`Weights::dtype`].
    ///
    /// # Errors
    ///
    /// When it is missing or has another shape.
    pub fn get(&self, shape: impl Into<Shape>, name: &str) -> Result<Tensor> {
        self.dense(&shape.into(), name, Some(self.dtype))
    }

    /// The tensor `name` in f32 whatever [`Weights::dtype`] is, as norms want it.
    ///
    /// # Errors
    ///
    /// When it is missing or has another shape.
    pub fn get_f32(&self, shape: impl Into<Shape>, name: &str) -> Result<Tensor> {
        self.dense(&shape.into(), name, Some(DType::F32))
    }

    /// A linear layer's weight of `rows` outputs and `cols` inputs as it lies in the file.
    ///
    /// # Errors
    ///
    /// When it is missing or has another shape.
    pub fn stored(&self, rows: usize, cols: usize, name: &str) -> Result<Stored> {
        if self.trained(name).is_some() {
            return self.get((rows, cols), name).map(Stored::Dense);
        }
        let tensor = self.find(name)?;
        if self.training.is_some() && is_quantised(tensor.dtype) {
            // Gradients pass through dense weights only.
            let dtype = if self.device.is_cpu() { DType::F16 } else { self.dtype };
            return self.dense(&Shape::from((rows, cols)), name, Some(dtype)).map(Stored::Dense);
        }
        if !is_quantised(tensor.dtype) {
            // A GPU multiplies in one type only, so there the weight is converted once.
            let dtype = (!self.device.is_cpu()).then_some(self.dtype);
            return self.dense(&Shape::from((rows, cols)), name, dtype).map(Stored::Dense);
        }
        self.quantised(tensor, rows, cols).map(|q| Stored::Quantized(Arc::new(q)))
    }

    /// The table `name` of `rows` vectors of length `dim`; reads nothing yet.
    ///
    /// # Errors
    ///
    /// When it is missing, quantised or of another shape.
    pub fn rows(&self, rows: usize, dim: usize, name: &str) -> Result<RowTable> {
        if self.trained(name).is_some() {
            let table = self.get((rows, dim), name)?;
            return Ok(RowTable { rows, dim, source: Rows::Trained(table) });
        }
        let tensor = self.find(name)?;
        if is_quantised(tensor.dtype) {
            return Err(self.error(tensor, "a quantised table cannot be read by rows"));
        }
        self.check(tensor, &[rows, dim])?;
        let source = Rows::File { weights: self.clone(), tensor: tensor.clone() };
        Ok(RowTable { rows, dim, source })
    }

    fn full_name(&self, name: impl Display) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }

    fn find(&self, name: &str) -> Result<&TensorInfo> {
        let name = self.full_name(name);
        self.bundle.find(&name).ok_or_else(|| {
            Error::msg(format!("tensor `{name}` is missing in `{}`", self.bundle.path().display()))
        })
    }

    fn error(&self, tensor: &TensorInfo, what: impl Display) -> Error {
        let path = self.bundle.path().display();
        Error::msg(format!("tensor `{}` of `{path}`: {what}", tensor.name))
    }

    fn check(&self, tensor: &TensorInfo, shape: &[usize]) -> Result<()> {
        if tensor.shape == shape {
            return Ok(());
        }
        let what = format!("its shape is {:?}, expected {shape:?}", tensor.shape);
        Err(self.error(tensor, what))
    }

    fn dense(&self, shape: &Shape, name: &str, dtype: Option<DType>) -> Result<Tensor> {
        let Some(training) = &self.training else {
            return self.read(shape, name, dtype);
        };
        let full_name = self.full_name(name);
        if let Some(tensor) = training.trained.get(&full_name) {
            if tensor.shape() != shape {
                candle_core::bail!(
                    "the trained tensor `{full_name}` has the shape {:?}, expected {shape:?}",
                    tensor.dims()
                );
            }
            return tensor.to_dtype(dtype.unwrap_or(self.dtype));
        }
        let key = (full_name, dtype);
        let known = || training.frozen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tensor) = known().get(&key)
            && tensor.shape() == shape
        {
            return Ok(tensor.clone());
        }
        let tensor = self.read(shape, name, dtype)?;
        known().insert(key, tensor.clone());
        Ok(tensor)
    }

    /// The tensor `name` of the file.
    fn read(&self, shape: &Shape, name: &str, dtype: Option<DType>) -> Result<Tensor> {
        let tensor = self.find(name)?;
        let read = if let (true, &[rows, cols]) = (is_quantised(tensor.dtype), shape.dims()) {
            let quantised = self.quantised(tensor, rows, cols)?;
            quantised.dequantize(&self.device)?.narrow(1, 0, cols)?.contiguous()?
        } else {
            self.check(tensor, shape.dims())?;
            let dtype = dense_dtype(tensor.dtype)
                .ok_or_else(|| self.error(tensor, "only matrices can be quantised"))?;
            self.bundle.fetch(tensor);
            let data = self.bundle.data(tensor);
            let read = Tensor::from_raw_buffer(data, dtype, shape.dims(), &self.device)?;
            self.bundle.release(tensor);
            read
        };
        dtype.map_or(Ok(read.clone()), |dtype| read.to_dtype(dtype))
    }

    fn quantised(&self, tensor: &TensorInfo, rows: usize, cols: usize) -> Result<QTensor> {
        let shape = (rows, cols.next_multiple_of(ROW_MULTIPLE));
        self.check(tensor, &[shape.0, shape.1])?;
        self.bundle.fetch(tensor);
        let data = Cow::Borrowed(self.bundle.data(tensor));
        let storage = QStorage::from_data(data, &self.device, tensor.dtype)?;
        self.bundle.release(tensor);
        QTensor::new(storage, shape)
    }
}

fn dense_dtype(dtype: GgmlDType) -> Option<DType> {
    match dtype {
        GgmlDType::F32 => Some(DType::F32),
        GgmlDType::F16 => Some(DType::F16),
        GgmlDType::BF16 => Some(DType::BF16),
        _ => None,
    }
}

impl RowTable {
    /// Vectors in the table.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether the table holds no vectors.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Length of a vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The vectors at `ids`: `(ids.len(), dim)` in the compute type; reads only those rows.
    ///
    /// # Errors
    ///
    /// When an id lies beyond the table.
    pub fn gather(&self, ids: &[u32]) -> Result<Tensor> {
        let beyond = ids.iter().find(|&&id| id as usize >= self.rows);
        let (weights, tensor) = match (&self.source, beyond) {
            (Rows::File { weights, tensor }, None) => (weights, tensor),
            (Rows::Trained(table), None) => {
                return table.index_select(&Tensor::new(ids, table.device())?, 0);
            }
            (Rows::File { weights, tensor }, Some(id)) => {
                let what = format!("there is no row {id}, it has {}", self.rows);
                return Err(weights.error(tensor, what));
            }
            (Rows::Trained(_), Some(id)) => {
                candle_core::bail!("there is no row {id} in a trained table of {}", self.rows)
            }
        };
        let row = self.dim * tensor.dtype.type_size();
        let data = weights.bundle.data(tensor);
        let mut values = Vec::with_capacity(ids.len() * self.dim);
        for &id in ids {
            widen(tensor.dtype, &data[id as usize * row..][..row], &mut values);
        }
        Tensor::from_vec(values, (ids.len(), self.dim), &weights.device)?.to_dtype(weights.dtype)
    }
}

/// Appends dense values as f32.
fn widen(dtype: GgmlDType, data: &[u8], out: &mut Vec<f32>) {
    match dtype {
        GgmlDType::F16 => {
            out.extend(data.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()));
        }
        GgmlDType::BF16 => {
            out.extend(data.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()));
        }
        _ => out.extend(data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b))),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Module, Var};

    use super::*;
    use crate::model::{
        bundle::{WeightType, tests::small_config},
        import::random::{Tokenizers, write_random},
        layers::Linear,
    };

    fn weights(weight_type: WeightType) -> Weights {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("random.gguf");
        write_random(&small_config(), weight_type, 5, &path, Tokenizers::default()).unwrap();
        Bundle::open(&path).unwrap().weights(&Device::Cpu, DType::F32)
    }

    fn ones(shape: (usize, usize)) -> Var {
        Var::ones(shape, DType::F32, &Device::Cpu).unwrap()
    }

    #[test]
    fn a_trained_tensor_stands_before_the_files_and_gets_a_gradient() {
        let name = "language.llama_proj.weight";
        let plain = weights(WeightType::F32);
        let shape = plain.shape(name).unwrap().to_vec();
        let var = ones((shape[0], shape[1]));
        let trained = BTreeMap::from([(name.to_owned(), var.as_tensor().clone())]);
        let w = plain.training(trained).pp("language");
        let xs = ones((2, shape[1]));
        let before = Linear::load(&w.pp("llama_proj"), shape[1], shape[0]).unwrap();
        let before = before.forward(&xs).unwrap();
        assert!(before.backward().unwrap().get(&var).is_some());
        var.set(&var.zeros_like().unwrap()).unwrap();
        let after = Linear::load(&w.pp("llama_proj"), shape[1], shape[0]).unwrap();
        let moved = (before - after.forward(&xs).unwrap()).unwrap();
        let moved = moved.mean_all().unwrap().to_scalar::<f32>().unwrap();
        assert!((moved - shape[1] as f32).abs() < 1e-3, "{moved}");
    }

    #[test]
    fn tensors_that_no_file_holds_can_be_trained() {
        let var = ones((3, 4));
        let trained = BTreeMap::from([("auxiliary.table".to_owned(), var.as_tensor().clone())]);
        let w = weights(WeightType::F32).training(trained).pp("auxiliary");
        assert!(w.contains("table") && !w.contains("other"));
        assert_eq!(w.shape("table"), Some(&[3, 4][..]));
        let rows = w.rows(3, 4, "table").unwrap();
        let gradients = rows.gather(&[2, 0, 2]).unwrap().backward().unwrap();
        let gradient = gradients.get(&var).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(gradient, [[1.0; 4], [0.0; 4], [2.0; 4]]);
        assert!(rows.gather(&[3]).is_err());
        assert!(w.get((4, 3), "table").is_err());
    }

    #[test]
    fn a_frozen_quantised_weight_becomes_dense() {
        let name = "language.model.layers.0.mlp.fc2.weight";
        let plain = weights(WeightType::Q8_0);
        let expected = plain.get((96, 200), name).unwrap();
        let w = plain.training(BTreeMap::new());
        for _ in 0..2 {
            let Stored::Dense(dense) = w.stored(96, 200, name).unwrap() else {
                panic!("still quantised");
            };
            assert_eq!(dense.dtype(), DType::F16);
            let off = (dense.to_dtype(DType::F32).unwrap() - &expected).unwrap().abs().unwrap();
            assert!(off.flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap() < 1e-3);
        }
    }
}
