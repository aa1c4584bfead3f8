//! Access to the tensors of a bundle, read one by one when a part asks for them.

use std::{borrow::Cow, fmt::Display, sync::Arc};

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
}

/// A linear layer's weight as it lies in the file.
#[derive(Debug, Clone)]
pub enum Stored {
    /// `(rows, cols)` in the file's f32, f16 or bf16 on a CPU, in the compute type elsewhere.
    Dense(Tensor),
    /// `(rows, cols)` with `cols` padded with zeros to a multiple of [`ROW_MULTIPLE`].
    Quantized(Arc<QTensor>),
}

/// A table of `rows` vectors that stays in the file.
#[derive(Debug, Clone)]
pub struct RowTable {
    weights: Weights,
    tensor: TensorInfo,
}

impl Weights {
    pub(crate) fn new(bundle: Bundle, device: Device, dtype: DType) -> Self {
        Self { bundle, prefix: String::new(), device, dtype }
    }

    /// The weights below `name`, joined to the prefix by a dot.
    #[must_use]
    pub fn pp(&self, name: impl Display) -> Self {
        Self { prefix: self.full_name(name), ..self.clone() }
    }

    /// Whether there is a tensor `name` below the prefix.
    pub fn contains(&self, name: &str) -> bool {
        self.bundle.find(&self.full_name(name)).is_some()
    }

    /// Sizes of the tensor `name` as stored, rows of quantised weights with their padding.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
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
        let tensor = self.find(name)?;
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
        let tensor = self.find(name)?;
        if is_quantised(tensor.dtype) {
            return Err(self.error(tensor, "a quantised table cannot be read by rows"));
        }
        self.check(tensor, &[rows, dim])?;
        Ok(RowTable { weights: self.clone(), tensor: tensor.clone() })
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
        self.tensor.shape[0]
    }

    /// Whether the table holds no vectors.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Length of a vector.
    pub fn dim(&self) -> usize {
        self.tensor.shape[1]
    }

    /// The vectors at `ids`: `(ids.len(), dim)` in the compute type; reads only those rows.
    ///
    /// # Errors
    ///
    /// When an id lies beyond the table.
    pub fn gather(&self, ids: &[u32]) -> Result<Tensor> {
        let row = self.dim() * self.tensor.dtype.type_size();
        let data = self.weights.bundle.data(&self.tensor);
        let mut values = Vec::with_capacity(ids.len() * self.dim());
        for &id in ids {
            if id as usize >= self.len() {
                let what = format!("there is no row {id}, it has {}", self.len());
                return Err(self.weights.error(&self.tensor, what));
            }
            widen(self.tensor.dtype, &data[id as usize * row..][..row], &mut values);
        }
        Tensor::from_vec(values, (ids.len(), self.dim()), &self.weights.device)?
            .to_dtype(self.weights.dtype)
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
