//! Looks at every byte of a bundle.

use std::{borrow::Cow, collections::HashSet};

use candle_core::{
    Device,
    quantized::{GgmlDType, QStorage, QTensor},
};
use half::{bf16, f16};
use rayon::prelude::*;

use super::{Bundle, BundleError, TensorInfo, is_quantised, tensors_of};

/// What [`Bundle::verify`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// Tensors looked at.
    pub tensors: usize,
    /// Bytes of their data.
    pub bytes: u64,
    /// The broken ones, in the order of the file; empty for a sound bundle.
    pub bad: Vec<BadTensor>,
}

/// A tensor that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadTensor {
    /// Its full name.
    pub name: String,
    /// What is wrong with it.
    pub what: String,
}

/// Elements looked at together.
const CHUNK: usize = 1 << 18;

impl Bundle {
    /// Reads all data and compares it with the hashes taken when it was written; also names
    /// tensors that hold infinities or NaN, and tensors that the configuration does not know.
    ///
    /// # Errors
    ///
    /// When the bundle has no hashes to compare with.
    pub fn verify(&self) -> Result<Verification, BundleError> {
        let Some(hashes) = &self.inner.hashes else {
            let what = "it has no hashes of its tensors".to_owned();
            return Err(BundleError::Corrupt { path: self.path().to_owned(), what });
        };
        let known: HashSet<String> =
            tensors_of(self.config()).into_iter().map(|spec| spec.name).collect();
        let mut bad = Vec::new();
        let mut bytes = 0;
        for (tensor, hash) in self.inner.tensors.iter().zip(hashes) {
            let data = self.data(tensor);
            bytes += tensor.size;
            let mut report = |what: &str| {
                bad.push(BadTensor { name: tensor.name.clone(), what: what.to_owned() });
            };
            if blake3::hash(data) != *hash {
                report("its data is not what was written");
            } else if !is_finite(tensor, data) {
                report("it holds values that are not finite");
            } else if !known.contains(&tensor.name) {
                report("no part of the model has such a tensor");
            }
            self.release(tensor);
        }
        Ok(Verification { tensors: self.inner.tensors.len(), bytes, bad })
    }
}

fn is_finite(tensor: &TensorInfo, data: &[u8]) -> bool {
    let dtype = tensor.dtype;
    let chunk = CHUNK / dtype.block_size() * dtype.type_size();
    data.par_chunks(chunk).all(|data| match dtype {
        GgmlDType::F32 => {
            let (values, _) = data.as_chunks::<4>();
            values.iter().all(|&b| f32::from_le_bytes(b).is_finite())
        }
        GgmlDType::F16 => {
            let (values, _) = data.as_chunks::<2>();
            values.iter().all(|&b| f16::from_le_bytes(b).is_finite())
        }
        GgmlDType::BF16 => {
            let (values, _) = data.as_chunks::<2>();
            values.iter().all(|&b| bf16::from_le_bytes(b).is_finite())
        }
        _ => {
            debug_assert!(is_quantised(dtype), "{dtype:?}");
            let elements = data.len() / dtype.type_size() * dtype.block_size();
            let widened = QStorage::from_data(Cow::Borrowed(data), &Device::Cpu, dtype)
                .and_then(|storage| QTensor::new(storage, elements)?.dequantize(&Device::Cpu))
                .and_then(|values| values.to_vec1::<f32>());
            widened.is_ok_and(|values| values.iter().all(|v| v.is_finite()))
        }
    })
}
