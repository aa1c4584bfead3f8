//! Whether an index is sound: all that can be checked without changing it.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::catalog::{Catalog, PathEntry};
use crate::error::{Cure, OpenError, SearchError, StoreError, StoreResult};
use crate::files::WriterLock;
use crate::manifest::Manifest;
use crate::reader::{CheckReport, IndexReader};

/// What [`check`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexCheck {
    /// What readers see: every checksum of text and segments, and the references between them.
    /// None where no reader can be opened, which is a problem.
    pub seen: Option<CheckReport>,
    /// The catalogue, and whether the text agrees with it.
    pub catalog: CatalogCheck,
    /// All that is wrong, one line each; empty for a sound index.
    pub problems: Vec<String>,
}

impl IndexCheck {
    /// Whether nothing is wrong with what was checked.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }
}

/// What became of the catalogue in a [`check`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CatalogCheck {
    /// Its rows were compared with each other and with the text.
    Checked {
        /// Paths, photos or not.
        paths: u64,
        /// Distinct contents of the photos.
        contents: u64,
        /// Whether a killed writer left a commit that the next one finishes: sound, and not yet
        /// compared with the text.
        is_ahead: bool,
    },
    /// It could not be read to its end, which is a problem.
    Damaged,
    /// It was not looked at, for this reason: only one process may open it, and must be allowed
    /// to write.
    Skipped {
        /// Why, for a person.
        reason: String,
    },
}

/// Verifies every checksum of the index in `dir` and every reference from one part to another;
/// reads all of it and changes nothing in it.
///
/// While it runs no writer can open the index; readers go on.
///
/// # Errors
///
/// [`OpenError::Missing`], [`OpenError::NewerFormat`], or when a file cannot be read; damage
/// stands in the result.
pub fn check(dir: &Path) -> Result<IndexCheck, OpenError> {
    let has_manifest = Manifest::path(dir).exists();
    if !has_manifest && !Catalog::exists(dir) {
        return Err(OpenError::Missing { dir: dir.to_owned() });
    }
    // Held to the end, so that both parts are of the same moment.
    let lock = match WriterLock::take(dir) {
        Ok(lock) => Ok(lock),
        Err(OpenError::Locked { holder, .. }) => Err(format!("{holder} is writing the index")),
        Err(OpenError::Io { source, .. })
            if matches!(
                source.kind(),
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            Err("nothing may be written in the folder of the index".to_owned())
        }
        Err(error) => return Err(error),
    };

    let mut problems = Vec::new();
    let reader = match IndexReader::open(dir) {
        Ok(reader) => Some(reader),
        Err(OpenError::Missing { .. }) => {
            let missing = StoreError::rewritable(&Manifest::path(dir), "it is missing");
            problems.push(OpenError::from(missing).to_string());
            None
        }
        Err(error @ OpenError::Corrupt { .. }) => {
            problems.push(error.to_string());
            None
        }
        Err(error) => return Err(error),
    };
    let mut seen = None;
    if let Some(reader) = &reader {
        let report = reader.check().map_err(open_error)?;
        problems.extend_from_slice(&report.problems);
        seen = Some(report);
    }
    let catalog = match &lock {
        Err(reason) => CatalogCheck::Skipped { reason: reason.clone() },
        Ok(_) => match check_catalog(dir, reader.as_ref(), &mut problems) {
            Ok(checked) => checked,
            Err(error @ OpenError::Corrupt { .. }) => {
                problems.push(error.to_string());
                CatalogCheck::Damaged
            }
            Err(error) => return Err(error),
        },
    };
    drop(lock);
    Ok(IndexCheck { seen, catalog, problems })
}

/// A reader fails to read for the reasons for which it fails to open.
fn open_error(error: SearchError) -> OpenError {
    match error {
        SearchError::Corrupt { path, what, cure } => OpenError::Corrupt { path, what, cure },
        SearchError::Io { path, source } => OpenError::Io { path, source },
        other => OpenError::Io { path: PathBuf::new(), source: std::io::Error::other(other) },
    }
}

/// Checks the catalogue of the index in `dir`, whose lock is held.
fn check_catalog(
    dir: &Path,
    reader: Option<&IndexReader>,
    problems: &mut Vec<String>,
) -> Result<CatalogCheck, OpenError> {
    let folder = Catalog::folder(dir);
    let Some(catalog) = Catalog::open_existing(dir)? else {
        if reader.is_some_and(|reader| reader.generation() == 0) {
            // The first commit has yet to come.
            return Ok(CatalogCheck::Checked { paths: 0, contents: 0, is_ahead: false });
        }
        return Err(StoreError::lost(&folder, "it is missing or empty").into());
    };
    let findings = catalog.check()?;
    let inside = |what| OpenError::from(StoreError::lost(&folder, what)).to_string();
    problems.extend(findings.problems.into_iter().map(inside));
    let mut is_ahead = false;
    if let Some(reader) = reader {
        let (ours, theirs) = (catalog.state().generation, reader.generation());
        is_ahead = ours == theirs + 1;
        if !is_ahead && ours != theirs {
            let what = format!("it is at commit {ours}, the text at {theirs}");
            let cure = if ours < theirs { Cure::StartAnew } else { Cure::Rewrite };
            problems.push(OpenError::Corrupt { path: folder, what, cure }.to_string());
        } else if !is_ahead {
            if catalog.state().gone != *reader.gone() {
                let what = "it says otherwise than the catalogue which segments there are";
                let error = StoreError::rewritable(&dir.join("text"), what);
                problems.push(OpenError::from(error).to_string());
            }
            compare(dir, &catalog, reader, problems)?;
        }
    }
    Ok(CatalogCheck::Checked { paths: findings.paths, contents: findings.contents, is_ahead })
}

/// Compares every path of the catalogue with what the text, of the same generation, says of it.
fn compare(
    dir: &Path,
    catalog: &Catalog,
    reader: &IndexReader,
    problems: &mut Vec<String>,
) -> StoreResult<()> {
    let text = dir.join("text");
    let mut note = |path: &Path, what: &str| {
        let what = format!("it says otherwise than the catalogue {what} `{}`", path.display());
        problems.push(OpenError::from(StoreError::rewritable(&text, what)).to_string());
    };
    // Damage that keeps a document from being read is in the report of the reader.
    let failures = reader.failures().unwrap_or_default();
    let mut failures: BTreeMap<PathBuf, String> =
        failures.into_iter().map(|failure| (failure.path, failure.reason)).collect();
    for entry in catalog.paths() {
        let (path, row) = entry?;
        match row.entry {
            PathEntry::Failed { reason } => {
                if failures.remove(&path) != Some(reason) {
                    note(&path, "why it could not read");
                }
            }
            PathEntry::Photo { doc, hash, metadata } => {
                let Some(content) = catalog.content(&hash)? else { continue };
                let Ok(Some(photo)) = reader.photo(doc) else {
                    note(&path, "where to find");
                    continue;
                };
                let is_same = (&photo.path, photo.hash, &photo.metadata, &photo.caption)
                    == (&path, hash, &metadata, &content.caption);
                if !is_same || reader.slot(doc).ok() != Some(content.slot) {
                    note(&path, "about");
                }
            }
        }
    }
    for path in failures.keys() {
        note(path, "whether there is");
    }
    Ok(())
}
