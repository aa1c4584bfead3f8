//! Bundles of any size with random weights, for benchmarks and tests.

use std::path::Path;

use candle_core::quantized::GgmlDType;

use super::encode::encode;
use crate::model::{
    bundle::{About, BundleError, BundleWriter, Role, TensorSpec, WeightType, tensors_of},
    config::Config,
};

/// Random values are drawn once and used again from ever new places: drawing 3.9 billion would
/// take longer than writing them. A prime, so that no two rows of a weight start alike.
const POOL: usize = 1_000_003;

/// What a random bundle holds besides its weights.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tokenizers<'a> {
    /// Text of Phi-2's `tokenizer.json`.
    pub phi: Option<&'a str>,
    /// Text of BERT's `vocab.txt`.
    pub bert: Option<&'a str>,
}

/// Writes a bundle of `config` whose weights are random but of a scale that keeps activations
/// finite: a linear layer's have a variance of one over its inputs, a norm's are near one.
///
/// The same arguments always give the same file. Memory stays at the largest tensor in f32.
///
/// # Errors
///
/// When the sizes of `config` do not fit each other or the file cannot be written.
pub fn write_random(
    config: &Config,
    weight_type: WeightType,
    seed: u64,
    path: &Path,
    tokenizers: Tokenizers<'_>,
) -> Result<(), BundleError> {
    let corrupt = |what| BundleError::Corrupt { path: path.to_owned(), what };
    config.check().map_err(corrupt)?;
    let mut fingerprint = blake3::Hasher::new();
    fingerprint.update(format!("random {seed} {weight_type} {config:?}").as_bytes());
    let about = About {
        name: "random".to_owned(),
        config: config.clone(),
        sources: Vec::new(),
        recipe: Vec::new(),
        training: Vec::new(),
        fingerprint: fingerprint.finalize().to_hex().to_string(),
        phi_tokenizer: tokenizers.phi.map(str::to_owned),
        bert_vocabulary: tokenizers.bert.map(str::to_owned),
        license: String::new(),
        licences: String::new(),
    };
    let specs = tensors_of(config);
    let mut writer = BundleWriter::create(path, &about, &specs, weight_type)?;
    let mut random = Random(seed);
    let pool: Vec<f32> = (0..POOL).map(|_| random.normal()).collect();
    for spec in &specs {
        let values = values_of(spec, &pool, &mut random);
        let (dtype, shape) = weight_type.storage(spec);
        let (cols, padded) = match (spec.shape.last(), shape.last()) {
            (Some(&cols), Some(&padded)) => (cols, padded),
            _ => (1, 1),
        };
        let data = encode(&values, cols, padded, dtype);
        writer.write(&data.map_err(|e| tensor_error(path, spec, dtype, &e))?)?;
    }
    writer.finish()
}

fn tensor_error(
    path: &Path,
    spec: &TensorSpec,
    dtype: GgmlDType,
    error: &candle_core::Error,
) -> BundleError {
    BundleError::Tensor {
        path: path.to_owned(),
        tensor: spec.name.clone(),
        what: format!("it cannot be stored as {dtype:?}: {error}"),
    }
}

fn values_of(spec: &TensorSpec, pool: &[f32], random: &mut Random) -> Vec<f32> {
    let inputs = spec.shape.last().copied().unwrap_or(1).max(1);
    let (mean, deviation) = match spec.role {
        Role::Linear | Role::Head | Role::Lora => (0.0, (inputs as f32).sqrt().recip()),
        Role::Norm => (1.0, 0.1),
        Role::Table | Role::Small => (0.0, 0.02),
    };
    let start = (random.next() % POOL as u64) as usize;
    let count = spec.shape.iter().product();
    let mut values = Vec::with_capacity(count);
    let mut from = start;
    while values.len() < count {
        let n = (count - values.len()).min(POOL - from);
        values.extend(pool[from..from + n].iter().map(|v| mean + deviation * v));
        from = 0;
    }
    values
}

/// Splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is far below 2^64.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// A number from about the standard normal distribution: the sum of twelve uniform ones.
    pub(crate) fn normal(&mut self) -> f32 {
        let sum: f32 = (0..12).map(|_| (self.next() >> 40) as f32 / (1 << 24) as f32).sum();
        sum - 6.0
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::model::{
        bundle::{Bundle, tests::small_config},
        weights::Stored,
    };

    #[test]
    fn the_same_seed_gives_the_same_file_and_another_seed_another() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, seed| {
            let path = folder.path().join(name);
            let config = small_config();
            write_random(&config, WeightType::Q8_0, seed, &path, Tokenizers::default()).unwrap();
            std::fs::read(path).unwrap()
        };
        assert!(write("a", 7) == write("b", 7));
        assert!(write("a", 7) != write("c", 8));
    }

    #[test]
    fn random_weights_have_the_promised_scale() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("random");
        write_random(&small_config(), WeightType::F32, 1, &path, Tokenizers::default()).unwrap();
        let weights = Bundle::open(&path).unwrap().weights(&Device::Cpu, DType::F32);
        let Stored::Dense(fc1) =
            weights.stored(200, 96, "language.model.layers.0.mlp.fc1.weight").unwrap()
        else {
            panic!("f32 is dense")
        };
        let variance = fc1.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
        assert!((variance * 96.0 - 1.0).abs() < 0.1, "{variance}");
    }
}
