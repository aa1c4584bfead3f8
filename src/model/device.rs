//! Which device a model runs on: the one file that knows about back ends.

use std::fmt;
use std::str::FromStr;

use candle_core::{DType, Device};

/// What a person asks for with `--device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The first GPU this build can use, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// An NVIDIA GPU by its number.
    Cuda(usize),
}

/// Why a device cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The word is no device.
    #[error("`{0}` is no device: use auto, cpu, cuda or cuda:N")]
    Unknown(String),
    /// The program was built without it.
    #[error("this tinyfind was built without CUDA; build it with `--features cuda`")]
    NotBuilt,
    /// The driver refused.
    #[error("GPU {number} cannot be used")]
    Refused {
        /// Its number.
        number: usize,
        /// What the driver said.
        source: candle_core::Error,
    },
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(word: &str) -> Result<Self, DeviceError> {
        match word {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => word
                .strip_prefix("cuda:")
                .and_then(|number| number.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| DeviceError::Unknown(word.to_owned())),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl DeviceChoice {
    /// Opens the device.
    ///
    /// # Errors
    ///
    /// When a GPU was asked for by name and cannot be used; `auto` falls back to the CPU.
    pub fn open(self) -> Result<Device, DeviceError> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(number) => cuda(number),
            Self::Auto => Ok(cuda(0).unwrap_or(Device::Cpu)),
        }
    }
}

/// Type that activations have on `device` for weights stored as `stored`.
///
/// On a CPU always f32: half products are slower there than f32 (they are storage only).
pub fn compute_dtype(device: &Device, stored: DType) -> DType {
    match stored {
        DType::F16 | DType::BF16 if !device.is_cpu() => stored,
        _ => DType::F32,
    }
}

#[cfg(feature = "cuda")]
fn cuda(number: usize) -> Result<Device, DeviceError> {
    Device::new_cuda(number).map_err(|source| DeviceError::Refused { number, source })
}

#[cfg(not(feature = "cuda"))]
fn cuda(_number: usize) -> Result<Device, DeviceError> {
    Err(DeviceError::NotBuilt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_printed_reads_as_itself() {
        for choice in [DeviceChoice::Auto, DeviceChoice::Cpu, DeviceChoice::Cuda(3)] {
            assert_eq!(choice.to_string().parse::<DeviceChoice>().unwrap(), choice);
        }
    }

    #[test]
    fn an_unknown_device_is_named() {
        let error = "tpu".parse::<DeviceChoice>().unwrap_err().to_string();
        assert!(error.contains("tpu") && error.contains("cuda:N"), "{error}");
    }

    #[test]
    fn half_weights_compute_in_f32_on_a_cpu() {
        assert_eq!(compute_dtype(&Device::Cpu, DType::F16), DType::F32);
    }
}
