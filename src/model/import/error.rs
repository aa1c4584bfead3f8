//! Why an import failed.

use std::path::{Path, PathBuf};

use crate::model::bundle::BundleError;

/// Why published files could not be made into a bundle: names the file and the tensor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The files given do not make a model together.
    #[error("{what}")]
    Sources {
        /// What is missing or too much, and what to do.
        what: String,
    },
    /// The system refused.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// That file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not of a form that is known, or broken.
    #[error("`{}` cannot be used: {what}", path.display())]
    Format {
        /// That file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A tensor that the model needs is not there.
    #[error("tensor `{tensor}` is missing in `{}`", path.display())]
    Missing {
        /// Its name in that file.
        tensor: String,
        /// The file, or the index of several.
        path: PathBuf,
    },
    /// A tensor that the model does not know.
    #[error("tensor `{tensor}` in `{}` belongs to no part of the model", path.display())]
    Extra {
        /// Its name in that file.
        tensor: String,
        /// The file.
        path: PathBuf,
    },
    /// A tensor has another shape than the model's sizes say.
    #[error("tensor `{tensor}` in `{}` has shape {found:?}, expected {expected:?}", path.display())]
    Shape {
        /// Its name in that file.
        tensor: String,
        /// The file.
        path: PathBuf,
        /// Its shape.
        found: Vec<usize>,
        /// The shape it should have.
        expected: Vec<usize>,
    },
    /// A tensor holds what it must not.
    #[error("tensor `{tensor}` in `{}` {what}", path.display())]
    Value {
        /// Its name in that file.
        tensor: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The bundle could not be written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

impl ImportError {
    pub(super) fn sources(what: impl Into<String>) -> Self {
        Self::Sources { what: what.into() }
    }

    pub(super) fn format(path: &Path, what: impl Into<String>) -> Self {
        Self::Format { path: path.to_owned(), what: what.into() }
    }

    pub(super) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}

/// Result of this module.
pub(super) type Result<T> = std::result::Result<T, ImportError>;
