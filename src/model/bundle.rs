//! A model in one file: GGUF v3 with weights, configuration, tokenizers and provenance.
//!
//! | metadata | holds |
//! |---|---|
//! | `general.architecture` | `tinygptv` |
//! | `general.name`, `general.license` | what `tinyfind model list` shows |
//! | `tinyfind.bundle_version` | [`BUNDLE_VERSION`] |
//! | `tinyfind.config` | [`Config`] as JSON |
//! | `tinyfind.sources` | the published files it was made from: a list of [`Source`] as JSON |
//! | `tinyfind.recipe` | the stages that it was trained in from nothing: a list of [`RecipeStage`] as JSON; absent without one |
//! | `tinyfind.training` | the fine-tunings that followed: a list of [`Training`] as JSON; absent without one |
//! | `tinyfind.fingerprint` | hash over the sources and how they were converted |
//! | `tinyfind.tokenizer.phi` | text of Phi-2's `tokenizer.json` |
//! | `tinyfind.tokenizer.bert` | text of BERT's `vocab.txt`, `[DEC]` included |
//! | `tinyfind.licences` | licences of the sources |
//! | `tinyfind.tensor_hashes` | blake3 of each tensor's data, 32 bytes each |
//!
//! The tensors are those of [`tensors_of`]; quantised rows are padded with zeros to
//! [`ROW_MULTIPLE`] values. Tensor names may be longer than the 64 bytes that ggml's own
//! tools allow.

mod tensors;
#[cfg(test)]
pub(crate) mod tests;
mod verify;
mod writer;

use std::{
    collections::HashMap,
    fs::File,
    io,
    ops::Deref,
    path::{Path, PathBuf},
    sync::Arc,
};

use candle_core::{DType, Device};
use memmap2::{Advice, Mmap, UncheckedAdvice};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub(crate) use self::tensors::is_quantised;
pub use self::{
    tensors::{ROW_MULTIPLE, Role, TensorSpec, WeightType, tensors_of},
    verify::{BadTensor, Verification},
    writer::BundleWriter,
};
pub use crate::model::gguf::TensorInfo;
use crate::model::{
    config::Config,
    gguf::{self, Header, Value},
    weights::Weights,
};

/// Version of the metadata and tensor names that this code writes, and the newest it reads.
pub const BUNDLE_VERSION: u64 = 1;

const ARCHITECTURE: &str = "tinygptv";

/// Why a bundle could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The system refused.
    #[error("cannot access `{}`", path.display())]
    Io {
        /// That file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is something else, or broken.
    #[error("`{}` is not a bundle that can be read: {what}", path.display())]
    Corrupt {
        /// That file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The file was written by a later version of this program.
    #[error(
        "`{}` is a bundle of version {found}, this program reads up to {BUNDLE_VERSION}",
        path.display()
    )]
    Newer {
        /// That file.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// A tensor is not as the configuration says.
    #[error("tensor `{tensor}` of `{}`: {what}", path.display())]
    Tensor {
        /// The bundle.
        path: PathBuf,
        /// Full name of the tensor.
        tensor: String,
        /// What is wrong with it.
        what: String,
    },
}

/// A published file that a bundle was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Which part it gave: `vit`, `qformer`, `phi`, `checkpoint`, `retrieval` and so on.
    pub role: String,
    /// Its name without folders.
    pub file: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its blake3 hash in hexadecimal.
    pub blake3: String,
}

/// A fine-tuning that a bundle came out of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// Name of the model that it began with.
    pub base: String,
    /// Fingerprint of that model.
    pub base_fingerprint: String,
    /// Training stage, 1 to 4, whose recipe was followed.
    pub stage: u8,
    /// What was trained, in words: `LoRA of rank 64, projections and norms`.
    pub method: String,
    /// The file that was learned from.
    pub data: Source,
    /// Answers that were learned.
    pub examples: usize,
    /// Steps.
    pub steps: u64,
    /// Answers of a step.
    pub batch: usize,
    /// Highest learning rate.
    pub rate: f64,
    /// What random choices began with.
    pub seed: u64,
    /// Mean loss over the answers that were held out, in nats a token, at the end.
    pub validation_loss: Option<f64>,
    /// Version of tinyfind.
    pub version: String,
}

/// A stage of a recipe that trained a bundle from nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecipeStage {
    /// Its name.
    pub name: String,
    /// Steps.
    pub steps: u64,
    /// Pictures of a step.
    pub batch: usize,
    /// Highest learning rate.
    pub rate: f64,
    /// Version of tinyfind.
    pub version: String,
}

/// What a bundle says about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct About {
    /// Name to show.
    pub name: String,
    /// Sizes of the parts.
    pub config: Config,
    /// Files it was made from.
    pub sources: Vec<Source>,
    /// Stages that trained it from nothing, oldest first.
    pub recipe: Vec<RecipeStage>,
    /// Fine-tunings since then, oldest first.
    pub training: Vec<Training>,
    /// Hash over the sources and how they were converted, in hexadecimal.
    pub fingerprint: String,
    /// Phi-2's `tokenizer.json`, with a language part.
    pub phi_tokenizer: Option<String>,
    /// BERT's `vocab.txt`, with a retrieval part.
    pub bert_vocabulary: Option<String>,
    /// Licences in short, as SPDX expression.
    pub license: String,
    /// Licences in full.
    pub licences: String,
}

/// An open bundle. Opening reads the metadata only; cheap to clone.
#[derive(Debug, Clone)]
pub struct Bundle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    bytes: Bytes,
    about: About,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
    hashes: Option<Vec<blake3::Hash>>,
}

/// Where a bundle's bytes lie.
#[derive(Debug)]
enum Bytes {
    /// In a file.
    Mapped(Mmap),
    /// In the program.
    BuiltIn(&'static [u8]),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::BuiltIn(bytes) => bytes,
        }
    }
}

impl Bundle {
    /// Opens a bundle and checks that every tensor of its configuration is declared, with its
    /// shape and inside the file; the data itself is looked at by [`Bundle::verify`].
    ///
    /// The file is mapped into memory: it must not be cut short while it is in use.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is no bundle, is newer than this program, or lacks
    /// something.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        let io = |source| BundleError::Io { path: path.to_owned(), source };
        let corrupt = |what| BundleError::Corrupt { path: path.to_owned(), what };
        let file = File::open(path).map_err(io)?;
        if file.metadata().map_err(io)?.len() == 0 {
            return Err(corrupt("the file is empty".to_owned()));
        }
        #[expect(unsafe_code, reason = "weights are used where they lie in the file")]
        // SAFETY: the map is read only. Bundles are replaced by renaming, never rewritten in
        // place, so the bytes do not change under a reader; cutting a file short while it is
        // open ends the program, which is documented.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Self::read(path, Bytes::Mapped(map))
    }

    /// As [`Bundle::open`], of the bytes of a bundle that are part of the program, which begin
    /// at a multiple of 32 as a page does; `name` stands where the path of a file would.
    ///
    /// # Errors
    ///
    /// When the bytes are no bundle, or lack something.
    pub fn built_in(name: &str, bytes: &'static [u8]) -> Result<Self, BundleError> {
        Self::read(Path::new(name), Bytes::BuiltIn(bytes))
    }

    fn read(path: &Path, bytes: Bytes) -> Result<Self, BundleError> {
        let corrupt = |what| BundleError::Corrupt { path: path.to_owned(), what };
        let header = gguf::read_header(&bytes).map_err(corrupt)?;
        if text(&header, "general.architecture").map_err(corrupt)? != ARCHITECTURE {
            return Err(corrupt(format!("its architecture is not `{ARCHITECTURE}`")));
        }
        match header.metadata.get("tinyfind.bundle_version") {
            Some(&Value::Unsigned(found)) if found > BUNDLE_VERSION => {
                return Err(BundleError::Newer { path: path.to_owned(), found });
            }
            Some(Value::Unsigned(_)) => {}
            _ => return Err(corrupt("it has no `tinyfind.bundle_version`".to_owned())),
        }
        let about = read_about(&header).map_err(corrupt)?;
        let hashes = gguf::tensor_hashes(&header);
        let tensors = header.tensors;
        let by_name = tensors.iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect();
        let inner = Inner { path: path.to_owned(), bytes, about, tensors, by_name, hashes };
        inner.check_tensors()?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Where it was opened; the name of a built-in one.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Everything it says about itself.
    pub fn about(&self) -> &About {
        &self.inner.about
    }

    /// Sizes of its parts.
    pub fn config(&self) -> &Config {
        &self.inner.about.config
    }

    /// Name to show.
    pub fn name(&self) -> &str {
        &self.inner.about.name
    }

    /// Hash over the published files it was made from and how they were converted: equal
    /// fingerprints mean equal weights.
    pub fn fingerprint(&self) -> &str {
        &self.inner.about.fingerprint
    }

    /// Files it was made from.
    pub fn sources(&self) -> &[Source] {
        &self.inner.about.sources
    }

    /// Text of Phi-2's `tokenizer.json`; `None` without a language part.
    pub fn phi_tokenizer(&self) -> Option<&str> {
        self.inner.about.phi_tokenizer.as_deref()
    }

    /// Text of BERT's `vocab.txt`, `[DEC]` last; `None` without a retrieval part.
    pub fn bert_vocabulary(&self) -> Option<&str> {
        self.inner.about.bert_vocabulary.as_deref()
    }

    /// Its tensors, in the order of the file.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.inner.tensors.iter()
    }

    /// Length of the file in bytes.
    pub fn size_in_bytes(&self) -> u64 {
        self.inner.bytes.len() as u64
    }

    /// Access to the weights for computing in `dtype` on `device`; reads nothing yet.
    pub fn weights(&self, device: &Device, dtype: DType) -> Weights {
        Weights::new(self.clone(), device.clone(), dtype)
    }

    /// The tensor of that full name.
    pub(crate) fn find(&self, name: &str) -> Option<&TensorInfo> {
        self.inner.by_name.get(name).map(|&i| &self.inner.tensors[i])
    }

    /// A tensor's data, as it lies in the file.
    pub(crate) fn data(&self, tensor: &TensorInfo) -> &[u8] {
        &self.inner.bytes[tensor.offset as usize..(tensor.offset + tensor.size) as usize]
    }

    /// Tells the system that a tensor is wanted soon, so that a disk reads it in one go instead
    /// of page by page.
    pub(crate) fn fetch(&self, tensor: &TensorInfo) {
        let Bytes::Mapped(map) = &self.inner.bytes else { return };
        let (from, length) = (tensor.offset as usize, tensor.size as usize);
        // Only advice: without it reading takes longer.
        if let Err(error) = map.advise_range(Advice::WillNeed, from, length) {
            tracing::debug!(%error, tensor = tensor.name, "pages were not fetched ahead");
        }
    }

    /// Lets the system forget the pages of a tensor that was copied elsewhere, so that they do
    /// not count as memory in use; reading them again brings them back.
    pub(crate) fn release(&self, tensor: &TensorInfo) {
        let Bytes::Mapped(map) = &self.inner.bytes else { return };
        #[expect(unsafe_code, reason = "memmap2 has no safe way to drop clean pages")]
        // SAFETY: the map is read only and backed by a file, so dropped pages come back with
        // the same content when they are touched again.
        let dropped = unsafe {
            map.unchecked_advise_range(
                UncheckedAdvice::DontNeed,
                tensor.offset as usize,
                tensor.size as usize,
            )
        };
        // Only advice: without it more memory stays in use.
        if let Err(error) = dropped {
            tracing::debug!(%error, tensor = tensor.name, "pages were not dropped");
        }
    }
}

impl Inner {
    fn check_tensors(&self) -> Result<(), BundleError> {
        let depths = self.about.config.vision.iter().map(|v| v.depth);
        let layers = self.about.config.language.iter().map(|l| l.layers);
        if depths.chain(layers).sum::<usize>() > self.tensors.len() {
            let what = "it has fewer tensors than its configuration has layers".to_owned();
            return Err(BundleError::Corrupt { path: self.path.clone(), what });
        }
        for spec in tensors_of(&self.about.config) {
            let found = self.by_name.get(&spec.name).map(|&i| &self.tensors[i]);
            let what = match found {
                None if spec.optional => continue,
                None => "it is missing".to_owned(),
                Some(tensor) if fits(tensor, &spec) => continue,
                Some(tensor) => {
                    format!("its shape is {:?}, expected {:?}", tensor.shape, spec.shape)
                }
            };
            return Err(BundleError::Tensor { path: self.path.clone(), tensor: spec.name, what });
        }
        Ok(())
    }
}

/// Whether a stored tensor has the shape of `spec`, the padding of quantised rows aside.
fn fits(tensor: &TensorInfo, spec: &TensorSpec) -> bool {
    match (spec.role, is_quantised(tensor.dtype), spec.shape.as_slice()) {
        (Role::Linear, true, &[rows, cols]) => {
            tensor.shape == [rows, cols.next_multiple_of(ROW_MULTIPLE)]
        }
        (_, quantised, shape) => !quantised && tensor.shape == shape,
    }
}

fn text<'a>(header: &'a Header, key: &str) -> Result<&'a str, String> {
    match header.metadata.get(key) {
        Some(Value::Text(text)) => Ok(text),
        _ => Err(format!("it has no `{key}`")),
    }
}

/// A list that is absent where it would be empty.
fn list<T: DeserializeOwned>(header: &Header, key: &str) -> Result<Vec<T>, String> {
    match header.metadata.get(key) {
        Some(Value::Text(text)) => {
            serde_json::from_str(text).map_err(|e| format!("its `{key}` cannot be understood: {e}"))
        }
        _ => Ok(Vec::new()),
    }
}

fn read_about(header: &Header) -> Result<About, String> {
    let owned = |key| text(header, key).map(str::to_owned);
    let config: Config = serde_json::from_str(text(header, "tinyfind.config")?)
        .map_err(|e| format!("its `tinyfind.config` cannot be understood: {e}"))?;
    config.check()?;
    let sources = serde_json::from_str(text(header, "tinyfind.sources")?)
        .map_err(|e| format!("its `tinyfind.sources` cannot be understood: {e}"))?;
    let (recipe, training) = (list(header, "tinyfind.recipe")?, list(header, "tinyfind.training")?);
    Ok(About {
        name: owned("general.name")?,
        config,
        sources,
        recipe,
        training,
        fingerprint: owned("tinyfind.fingerprint")?,
        phi_tokenizer: owned("tinyfind.tokenizer.phi").ok(),
        bert_vocabulary: owned("tinyfind.tokenizer.bert").ok(),
        license: owned("general.license").unwrap_or_default(),
        licences: owned("tinyfind.licences").unwrap_or_default(),
    })
}
