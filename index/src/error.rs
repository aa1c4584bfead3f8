//! Why an index could not be opened, written or searched: one enum an operation.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::document::{DocId, ModelSpec};

/// What makes a damaged index whole again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cure {
    /// The part can be written anew from the rest: opening the index for writing does it.
    Rewrite,
    /// What was lost stands nowhere else: the folder must be deleted and made again.
    StartAnew,
}

impl fmt::Display for Cure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rewrite => "`tinyfind index --rebuild` writes it anew from the catalogue",
            Self::StartAnew => "delete the index folder and index the photos again",
        })
    }
}

/// Why an index could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no index in the folder.
    #[error("there is no index in `{}`", dir.display())]
    Missing {
        /// That folder.
        dir: PathBuf,
    },
    /// Another writer has the index open.
    #[error("`{}` is being written by {holder}", dir.display())]
    Locked {
        /// Folder of the index.
        dir: PathBuf,
        /// Who writes, such as `process 4711`.
        holder: String,
    },
    /// The index was made by another model.
    #[error(
        "`{}` was made by the model {}, which is not {}",
        dir.display(), describe(found), describe(expected)
    )]
    OtherModel {
        /// Folder of the index.
        dir: PathBuf,
        /// Model that made the index.
        found: Box<ModelSpec>,
        /// Model that was to extend it.
        expected: Box<ModelSpec>,
    },
    /// The index was written by a later version of this crate.
    #[error(
        "`{}` was written by {writer} in format {found}; {} reads formats up to {newest}",
        dir.display(), crate::manifest::WRITTEN_BY
    )]
    NewerFormat {
        /// Folder of the index.
        dir: PathBuf,
        /// Version that wrote it.
        writer: String,
        /// Its format.
        found: u32,
        /// The newest format that this version reads.
        newest: u32,
    },
    /// A file of the index is not what was written.
    #[error("`{}` is damaged: {what}; {cure}", path.display())]
    Corrupt {
        /// That file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// What to do.
        cure: Cure,
    },
    /// A file could not be read or written.
    #[error("cannot access `{}`", path.display())]
    Io {
        /// That file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a change could not be made or committed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The index knows no such path.
    #[error("the index holds no `{}`", path.display())]
    UnknownPath {
        /// That path.
        path: PathBuf,
    },
    /// The index knows no such photo.
    #[error("the index holds no photo {}", doc.0)]
    UnknownDoc {
        /// Its number.
        doc: DocId,
    },
    /// A copy was said to be of a photo whose content is another.
    #[error("`{}` is no copy of photo {}: their contents differ", path.display(), of.0)]
    OtherContent {
        /// Path of the copy.
        path: PathBuf,
        /// Photo that it was said to be a copy of.
        of: DocId,
    },
    /// Features have another shape than the model makes.
    #[error(
        "{what} of `{}` are {} x {} where the model makes {} x {}",
        path.display(), found.0, found.1, expected.0, expected.1
    )]
    Shape {
        /// Photo that they belong to.
        path: PathBuf,
        /// `image-text vectors` or `visual tokens`.
        what: &'static str,
        /// Rows and columns of the model.
        expected: (usize, usize),
        /// Rows and columns that were given.
        found: (usize, usize),
    },
    /// Features hold a value that is not a number or infinite.
    #[error("{what} of `{}` hold a value that is not finite", path.display())]
    NotFinite {
        /// Photo that they belong to.
        path: PathBuf,
        /// `image-text vectors` or `visual tokens`.
        what: &'static str,
    },
    /// An earlier commit of this writer broke off half-way.
    #[error("an earlier commit failed half-way; open the index again to recover it")]
    Interrupted,
    /// A file of the index is not what was written.
    #[error("`{}` is damaged: {what}; {cure}", path.display())]
    Corrupt {
        /// That file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// What to do.
        cure: Cure,
    },
    /// A file could not be read or written.
    #[error("cannot access `{}`", path.display())]
    Io {
        /// That file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a question to an index has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    /// The index knows no such photo.
    #[error("the index holds no photo {}", doc.0)]
    UnknownDoc {
        /// Its number.
        doc: DocId,
    },
    /// The query's vector has another length than the index's.
    #[error("the query has {found} dimensions, `{model}` has {expected}")]
    Dimension {
        /// Model that made the index.
        model: String,
        /// Dimension of its vectors.
        expected: usize,
        /// Dimension of the query.
        found: usize,
    },
    /// The query's vector points nowhere: it is zero or not finite.
    #[error("the query's vector is zero or not finite")]
    NoDirection,
    /// A file of the index is not what was written.
    #[error("`{}` is damaged: {what}; {cure}", path.display())]
    Corrupt {
        /// That file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// What to do.
        cure: Cure,
    },
    /// A file could not be read or written.
    #[error("cannot access `{}`", path.display())]
    Io {
        /// That file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What can go wrong with any file of an index; each public error has both.
#[derive(Debug)]
pub(crate) enum StoreError {
    Corrupt { path: PathBuf, what: String, cure: Cure },
    Io { path: PathBuf, source: io::Error },
}

impl StoreError {
    /// A part that the rest of the index can restore is damaged.
    pub(crate) fn rewritable(path: &Path, what: impl fmt::Display) -> Self {
        Self::Corrupt { path: path.to_owned(), what: what.to_string(), cure: Cure::Rewrite }
    }

    /// A part that nothing can restore is damaged.
    pub(crate) fn lost(path: &Path, what: impl fmt::Display) -> Self {
        Self::Corrupt { path: path.to_owned(), what: what.to_string(), cure: Cure::StartAnew }
    }

    /// Names the file that the system would not give.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

/// Shorthand for results of the parts below writer and reader.
pub(crate) type StoreResult<T> = Result<T, StoreError>;

macro_rules! from_store_error {
    ($($error:ident),*) => {$(
        impl From<StoreError> for $error {
            fn from(error: StoreError) -> Self {
                match error {
                    StoreError::Corrupt { path, what, cure } => Self::Corrupt { path, what, cure },
                    StoreError::Io { path, source } => Self::Io { path, source },
                }
            }
        }
    )*};
}
from_store_error!(OpenError, WriteError, SearchError);

/// Name, sizes and the head of the fingerprint: enough for a person to tell two models apart.
fn describe(spec: &ModelSpec) -> String {
    let fingerprint: String = spec.fingerprint.chars().take(12).collect();
    format!(
        "`{}` ({fingerprint}, {} x {} and {} x {})",
        spec.name, spec.embedding_rows, spec.embedding_dim, spec.token_rows, spec.token_dim
    )
}
