//! From trained tensors to a bundle.

use std::{collections::BTreeMap, path::Path};

use candle_core::{DType, Device, Tensor, quantized::GgmlDType};

use super::{FineTuneError, Result};
use crate::{
    model::{
        bundle::{
            About, Bundle, BundleError, BundleWriter, Role, TensorSpec, Training, WeightType,
            is_quantised, tensors_of,
        },
        config::Config,
        import::encode::encode,
        weights::Weights,
    },
    train::{Parameters, peft::Peft},
};

/// How the weights of a bundle are stored: as those of its language part are.
///
/// # Errors
///
/// When it has no language part.
pub(super) fn weight_type(bundle: &Bundle) -> Result<WeightType> {
    let missing = || FineTuneError::NoPart { model: bundle.name().to_owned(), part: "language" };
    let stored = bundle.find("language.lm_head.weight").ok_or_else(missing)?;
    Ok(match stored.dtype {
        GgmlDType::F32 => WeightType::F32,
        GgmlDType::F16 => WeightType::F16,
        GgmlDType::BF16 => WeightType::Bf16,
        GgmlDType::Q4_0 => WeightType::Q4_0,
        GgmlDType::Q5_0 => WeightType::Q5_0,
        GgmlDType::Q4K => WeightType::Q4K,
        GgmlDType::Q5K => WeightType::Q5K,
        GgmlDType::Q6K => WeightType::Q6K,
        _ => WeightType::Q8_0,
    })
}

/// Whether weights of this type can be added to without losing what was learned.
pub(super) fn is_dense(weight_type: WeightType) -> bool {
    matches!(weight_type, WeightType::F32 | WeightType::F16 | WeightType::Bf16)
}

/// What the result is to be.
#[derive(Debug)]
pub(super) struct Made<'a> {
    pub(super) base: &'a Bundle,
    pub(super) name: &'a str,
    pub(super) stage: u8,
    pub(super) peft: &'a Peft,
    /// Whether the additions stay beside the weights.
    pub(super) keep: bool,
    pub(super) training: Training,
}

/// Writes the bundle: what was trained, with the additions merged or beside, and everything else
/// byte by byte as the base has it.
///
/// Trained matrices are never quantised: beside quantised ones they are f32. Of the small changes
/// of a fine-tuning a quantised weight would keep next to nothing.
///
/// # Errors
///
/// When the file cannot be written.
pub(super) fn write(path: &Path, made: &Made<'_>, parameters: &Parameters) -> Result<About> {
    let base = made.base;
    let weight_type = weight_type(base)?;
    let trained: BTreeMap<String, Tensor> = parameters
        .iter()
        .map(|p| Ok((p.name.clone(), p.var.as_tensor().detach().to_device(&Device::Cpu)?)))
        .collect::<candle_core::Result<_>>()?;
    let config = config_of(made);
    let mut specs = tensors_of(&config);
    specs.retain(|spec| {
        !spec.optional || base.find(&spec.name).is_some() || trained.contains_key(&spec.name)
    });
    for spec in &mut specs {
        let learned = trained.contains_key(&spec.name);
        if spec.role == Role::Linear && (learned || is_head(base, spec)) {
            spec.role = Role::Head;
        }
    }
    let mut training = base.about().training.clone();
    training.push(made.training.clone());
    let about = About {
        name: made.name.to_owned(),
        fingerprint: fingerprint(base, &config, &trained, made.keep),
        config,
        training,
        ..base.about().clone()
    };
    let weights = base.weights(&Device::Cpu, DType::F32);
    let mut writer = BundleWriter::create(path, &about, &specs, weight_type)?;
    for spec in &specs {
        let (dtype, shape) = weight_type.storage(spec);
        let new = value(made, &weights, &trained, spec)?;
        let stored = base.find(&spec.name);
        let data = match (new, stored) {
            (None, Some(stored)) if stored.dtype == dtype && stored.shape == shape => {
                writer.write(base.data(stored))?;
                base.release(stored);
                continue;
            }
            (Some(new), _) => new,
            (None, _) => weights.get_f32(spec.shape.as_slice(), &spec.name)?,
        };
        let values = data.flatten_all()?.to_vec1::<f32>()?;
        let broken = |what: String| BundleError::Tensor {
            path: path.to_owned(),
            tensor: spec.name.clone(),
            what,
        };
        if values.iter().any(|v| !v.is_finite()) {
            return Err(broken("it is not finite".to_owned()).into());
        }
        let (cols, padded) = match (spec.shape.last(), shape.last()) {
            (Some(&cols), Some(&padded)) => (cols, padded),
            _ => (1, 1),
        };
        let bytes = encode(&values, cols, padded, dtype).map_err(|e| broken(e.to_string()))?;
        writer.write(&bytes)?;
    }
    writer.finish()?;
    Ok(about)
}

/// Sizes of the result.
fn config_of(made: &Made<'_>) -> Config {
    let mut config = made.base.config().clone();
    config.stage = made.stage;
    if let (Some(language), Some(additions)) = (&mut config.language, made.peft.additions()) {
        let kept = made.keep.then_some((additions.rank, additions.scale()));
        (language.lora_rank, language.lora_scale) = (kept.map(|k| k.0), kept.map(|k| k.1));
    }
    config
}

/// Whether an earlier fine-tuning stored this matrix as it stores trained ones.
fn is_head(base: &Bundle, spec: &TensorSpec) -> bool {
    let quantised = |name: &str| base.find(name).is_some_and(|t| is_quantised(t.dtype));
    quantised("language.lm_head.weight") && !quantised(&spec.name)
}

/// What a tensor is now, f32 on the CPU; `None` where it is as the base has it.
fn value(
    made: &Made<'_>,
    weights: &Weights,
    trained: &BTreeMap<String, Tensor>,
    spec: &TensorSpec,
) -> Result<Option<Tensor>> {
    let get = |name: &str| trained.get(name).cloned();
    if !made.keep
        && let Some(language) = &made.base.config().language
        && let Some(merged) = made.peft.merged(language, weights, get, &spec.name)?
    {
        return Ok(Some(merged));
    }
    Ok(get(&spec.name))
}

/// Equal for equal weights: over the base, the sizes, and every trained number.
fn fingerprint(
    base: &Bundle,
    config: &Config,
    trained: &BTreeMap<String, Tensor>,
    keep: bool,
) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{} {config:?} {keep}\n", base.fingerprint()).as_bytes());
    for (name, tensor) in trained {
        hasher.update(name.as_bytes());
        let values = tensor.flatten_all().and_then(|t| t.to_vec1::<f32>()).unwrap_or_default();
        for chunk in values.chunks(1 << 14) {
            let bytes: Vec<u8> = chunk.iter().flat_map(|v| v.to_le_bytes()).collect();
            hasher.update(&bytes);
        }
    }
    hasher.finalize().to_hex().to_string()
}
