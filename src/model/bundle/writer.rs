//! Writes a bundle that is there completely or not at all.

use std::collections::HashSet;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use super::{ARCHITECTURE, About, BUNDLE_VERSION, BundleError, TensorInfo, TensorSpec, WeightType};
use crate::model::gguf::{self, Value};

/// Writes a bundle tensor by tensor, so that memory stays at one tensor.
///
/// The bundle appears under its name when [`BundleWriter::finish`] returns, complete and on
/// the disk; until then, and when the writer is dropped, nothing is there.
#[derive(Debug)]
pub struct BundleWriter {
    body: gguf::Body<BufWriter<File>>,
    path: PathBuf,
    temporary: Temporary,
}

/// A file that goes away unless it is kept.
#[derive(Debug)]
struct Temporary(Option<PathBuf>);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = self.0.take()
            && let Err(error) = std::fs::remove_file(&path)
        {
            tracing::debug!(%error, path = %path.display(), "not removed");
        }
    }
}

impl BundleWriter {
    /// Starts a bundle at `path` that holds `specs`, stored as `weight_type` has it; their data
    /// is then expected in this order.
    ///
    /// # Errors
    ///
    /// When the file cannot be created, or a spec is named twice or cannot be stored so.
    pub fn create(
        path: &Path,
        about: &About,
        specs: &[TensorSpec],
        weight_type: WeightType,
    ) -> Result<Self, BundleError> {
        let mut plan = describe(about);
        let mut names = HashSet::new();
        for spec in specs {
            let (dtype, shape) = weight_type.storage(spec);
            if !names.insert(&spec.name) || !plan.declare(&spec.name, dtype, &shape) {
                return Err(BundleError::Tensor {
                    path: path.to_owned(),
                    tensor: spec.name.clone(),
                    what: format!("it cannot be declared as {dtype:?} of shape {shape:?}"),
                });
            }
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.partial", std::process::id()));
        let partial = path.with_file_name(name);
        let io = |source| BundleError::Io { path: partial.clone(), source };
        let file = File::create(&partial).map_err(io)?;
        let temporary = Temporary(Some(partial.clone()));
        let body = plan.write_header(BufWriter::with_capacity(1 << 20, file)).map_err(io)?;
        Ok(Self { body, path: path.to_owned(), temporary })
    }

    /// The tensor whose data comes next; `None` when all is written.
    pub fn next_tensor(&self) -> Option<&TensorInfo> {
        self.body.next()
    }

    /// Writes the data of [`BundleWriter::next_tensor`].
    ///
    /// # Errors
    ///
    /// When the data does not have the declared size or the disk is full.
    pub fn write(&mut self, data: &[u8]) -> Result<(), BundleError> {
        let written = self.body.write(data);
        written.map_err(|source| BundleError::Io { path: self.path.clone(), source })
    }

    /// Brings everything to the disk and gives the bundle its name, replacing an older one.
    ///
    /// # Errors
    ///
    /// When a declared tensor was not written, or the system refuses.
    pub fn finish(mut self) -> Result<(), BundleError> {
        let path = self.path;
        let io = |source| BundleError::Io { path: path.clone(), source };
        let out = self.body.finish().map_err(io)?;
        let file = out.into_inner().map_err(|e| io(e.into_error()))?;
        file.sync_all().map_err(io)?;
        if let Some(partial) = &self.temporary.0 {
            std::fs::rename(partial, &path).map_err(io)?;
        }
        self.temporary.0 = None;
        // Makes the new name durable, where folders can be opened at all.
        if let Some(folder) = path.parent()
            && let Ok(folder) =
                File::open(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
        {
            folder.sync_all().map_err(io)?;
        }
        Ok(())
    }
}

fn describe(about: &About) -> gguf::Plan {
    let json = |value: serde_json::Result<String>| {
        value.unwrap_or_else(|e| unreachable!("plain data has a JSON form: {e}"))
    };
    let mut plan = gguf::Plan::default();
    let mut set = |key: &str, text: &str| plan.set(key, Value::Text(text.to_owned()));
    set("general.architecture", ARCHITECTURE);
    set("general.name", &about.name);
    set("general.license", &about.license);
    set("tinyfind.config", &json(serde_json::to_string(&about.config)));
    set("tinyfind.sources", &json(serde_json::to_string(&about.sources)));
    if !about.recipe.is_empty() {
        set("tinyfind.recipe", &json(serde_json::to_string(&about.recipe)));
    }
    if !about.training.is_empty() {
        set("tinyfind.training", &json(serde_json::to_string(&about.training)));
    }
    set("tinyfind.fingerprint", &about.fingerprint);
    set("tinyfind.licences", &about.licences);
    if let Some(tokenizer) = &about.phi_tokenizer {
        set("tinyfind.tokenizer.phi", tokenizer);
    }
    if let Some(vocabulary) = &about.bert_vocabulary {
        set("tinyfind.tokenizer.bert", vocabulary);
    }
    plan.set("general.alignment", Value::Unsigned(gguf::ALIGNMENT));
    plan.set("tinyfind.bundle_version", Value::Unsigned(BUNDLE_VERSION));
    plan
}
