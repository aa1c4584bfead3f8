//! A run on disk, from which it continues with the same bits.
//!
//! One safetensors file: each parameter under its name, its moments under `moments/NAME`, and
//! in the header the step and what the run is. It is written beside the old one and then takes
//! its name, so that a kill leaves one of the two.

use std::{collections::HashMap, fs::File, io::Write, path::Path};

use candle_core::Device;

use super::{Parameters, Result, TrainError};

/// Prefix of the optimiser's state.
const MOMENTS: &str = "moments/";
/// Header entries.
const STEP: &str = "tinyfind.step";
const RUN: &str = "tinyfind.run";

/// Writes `parameters` and the next `step` of a run described by `run`.
///
/// # Errors
///
/// When the file cannot be written; the one that was there then stays.
pub fn save(path: &Path, parameters: &Parameters, step: u64, run: &str) -> Result<()> {
    let io = |source| TrainError::Io { path: path.to_owned(), source };
    let mut data = Vec::with_capacity(2 * parameters.len());
    for p in parameters.iter() {
        data.push((p.name.clone(), p.var.as_tensor().to_device(&Device::Cpu)?));
        data.push((format!("{MOMENTS}{}", p.name), p.moments.to_device(&Device::Cpu)?));
    }
    let about =
        HashMap::from([(STEP.to_owned(), step.to_string()), (RUN.to_owned(), run.to_owned())]);
    let bytes = safetensors::serialize(data.iter().map(|(n, t)| (n.as_str(), t)), Some(about))
        .map_err(|e| io(std::io::Error::other(e)))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = path.with_file_name(name);
    let mut file = File::create(&partial).map_err(io)?;
    file.write_all(&bytes).map_err(io)?;
    put_in_place(&partial, path)
}

/// Gives the complete file `partial` the name `path`, both on the disk when this returns.
pub(super) fn put_in_place(partial: &Path, path: &Path) -> Result<()> {
    let io = |source| TrainError::Io { path: path.to_owned(), source };
    File::open(partial).and_then(|file| file.sync_all()).map_err(io)?;
    std::fs::rename(partial, path).map_err(io)?;
    if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
        File::open(folder).and_then(|f| f.sync_all()).map_err(io)?;
    }
    Ok(())
}

/// Reads what [`save`] wrote into `parameters`, which must be those of the same `run`; returns
/// the next step.
///
/// # Errors
///
/// When the file is damaged or belongs to another run; the parameters may then be partly read.
pub fn load(path: &Path, parameters: &Parameters, run: &str) -> Result<u64> {
    let bad = |what: String| TrainError::Checkpoint { path: path.to_owned(), what };
    let bytes =
        std::fs::read(path).map_err(|source| TrainError::Io { path: path.to_owned(), source })?;
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes)
        .map_err(|e| bad(format!("it is no safetensors file ({e})")))?;
    let about = header.metadata().as_ref();
    let entry = |key: &str| about.and_then(|about| about.get(key)).map(String::as_str);
    if entry(RUN) != Some(run) {
        return Err(bad("it was written by a run with other settings".to_owned()));
    }
    let step = entry(STEP).and_then(|step| step.parse().ok());
    let step = step.ok_or_else(|| bad("it does not say its step".to_owned()))?;
    let file = safetensors::SafeTensors::deserialize(&bytes).map_err(|e| bad(e.to_string()))?;
    if file.len() != 2 * parameters.len() {
        let (found, wanted) = (file.len(), 2 * parameters.len());
        return Err(bad(format!("it holds {found} tensors, not {wanted}")));
    }
    for p in parameters.iter() {
        let read = |name: &str, like: &candle_core::Tensor| -> Result<candle_core::Tensor> {
            let view = file.tensor(name).map_err(|e| bad(format!("`{name}`: {e}")))?;
            if view.shape() != like.dims() || view.dtype() != safetensors::Dtype::F32 {
                return Err(bad(format!("`{name}` has another shape or type")));
            }
            let dtype = candle_core::DType::F32;
            let tensor = candle_core::Tensor::from_raw_buffer(
                view.data(),
                dtype,
                view.shape(),
                like.device(),
            );
            Ok(tensor?)
        };
        p.var.set(&read(&p.name, p.var.as_tensor())?)?;
        let moments = read(&format!("{MOMENTS}{}", p.name), &p.moments)?;
        p.moments.slice_set(&moments, 0, 0)?;
    }
    Ok(step)
}
