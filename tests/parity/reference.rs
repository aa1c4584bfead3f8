//! What the reference computed, and the comparison with it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{DType, Device, Result, Tensor};

/// Largest difference against the tensor's own largest magnitude.
pub(crate) const TOLERANCE: f64 = 1e-4;

/// Tensors that this crate computed, by the names of the reference.
#[derive(Default)]
pub(crate) struct Computed(HashMap<String, Tensor>);

impl Computed {
    pub(crate) fn insert(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.0.insert(name.into(), tensor);
    }

    /// The tensor under `name`, of which `.firstN` and `.lastN` are slices along the tokens.
    fn get(&self, name: &str) -> Option<Result<Tensor>> {
        if let Some(tensor) = self.0.get(name) {
            return Some(Ok(tensor.clone()));
        }
        let (base, slice) = name.rsplit_once('.')?;
        let tensor = self.0.get(base)?;
        let tokens = tensor.dim(1).ok()?;
        let number = |word: &str| slice.strip_prefix(word)?.parse::<usize>().ok();
        if let Some(n) = number("first") {
            return Some(tensor.narrow(1, 0, n.min(tokens)));
        }
        let n = number("last")?.min(tokens);
        Some(tensor.narrow(1, tokens - n, n))
    }
}

/// Everything that went wrong and the worst that went right.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) compared: usize,
    pub(crate) worst: f64,
    pub(crate) worst_name: String,
    pub(crate) failures: Vec<String>,
}

impl Report {
    pub(crate) fn fail(&mut self, what: impl Into<String>) {
        self.failures.push(what.into());
    }

    /// Notes a relative error.
    pub(crate) fn note(&mut self, name: &str, error: f64) {
        self.compared += 1;
        if error > self.worst {
            (self.worst, self.worst_name) = (error, name.to_owned());
        }
        if error.is_nan() || error > TOLERANCE {
            self.fail(format!("{name} is off by {error:.1e}"));
        }
    }

    pub(crate) fn equal<T: PartialEq + std::fmt::Debug>(&mut self, name: &str, got: &T, want: &T) {
        self.compared += 1;
        if got != want {
            self.fail(format!("{name} is {got:?}, the reference has {want:?}"));
        }
    }

    pub(crate) fn near(&mut self, name: &str, got: &[f32], want: &[f64]) {
        if got.len() != want.len() {
            return self.fail(format!("{name}: {} values against {}", got.len(), want.len()));
        }
        let off = got.iter().zip(want).map(|(a, b)| (f64::from(*a) - b).abs());
        let scale = want.iter().fold(0.0_f64, |m, b| m.max(b.abs()));
        self.note(name, off.fold(0.0, f64::max) / scale);
    }

    /// Compares every tensor of a file; one that was not computed is a failure.
    pub(crate) fn compare_file(&mut self, path: &Path, prefix: &str, computed: &Computed) {
        let expected: BTreeMap<String, Tensor> =
            candle_core::safetensors::load(path, &Device::Cpu).unwrap().into_iter().collect();
        assert!(!expected.is_empty(), "{} holds nothing", path.display());
        for (name, expected) in &expected {
            match name.strip_prefix(prefix).and_then(|name| computed.get(name)) {
                None => self.fail(format!("nothing was computed for `{name}`")),
                Some(got) => self.compare(name, &got.unwrap(), expected),
            }
        }
    }

    pub(crate) fn compare(&mut self, name: &str, got: &Tensor, expected: &Tensor) {
        if got.dims() != expected.dims() {
            return self.fail(format!("{name}: {:?} against {:?}", got.dims(), expected.dims()));
        }
        if !expected.dtype().is_float() {
            let exact = |xs: &Tensor| {
                xs.to_dtype(DType::I64).unwrap().flatten_all().unwrap().to_vec1::<i64>().unwrap()
            };
            let (got, expected) = (exact(got), exact(expected));
            let differing = got.iter().zip(&expected).filter(|(a, b)| a != b).count();
            return self.equal(&format!("{name}: differing values"), &differing, &0);
        }
        self.note(name, relative_error(got, expected).unwrap());
    }
}

/// Greatest difference over the greatest magnitude of `expected`; of zeros, the difference.
pub(crate) fn relative_error(got: &Tensor, expected: &Tensor) -> Result<f64> {
    let greatest = |xs: &Tensor| xs.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>();
    let (got, expected) = (got.to_dtype(DType::F64)?, expected.to_dtype(DType::F64)?);
    // A NaN would vanish in the maximum.
    let finite = got.flatten_all()?.to_vec1::<f64>()?.iter().all(|x| x.is_finite());
    if !finite {
        return Ok(f64::NAN);
    }
    let scale = greatest(&expected)?;
    let off = greatest(&(got - expected)?)?;
    Ok(if scale > 0.0 { off / scale } else { off })
}
