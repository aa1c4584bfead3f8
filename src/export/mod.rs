//! All that an index knows, in lines of JSON that outlive it; and captions back from there.
//!
//! The first line is a [`Header`]: format, model, counts. Each line after it is a photo
//! (`Record`), by ascending number, or, where they are wanted, a file that could not be read.
//! Nothing is held in memory but the line that is written.
//!
//! Of what is exported only the captions cannot be had again quickly: they take the language
//! model a second or more each. [`restore()`] puts them back into an index of the same photos
//! without running it.

mod base64;
mod restore;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tinyfind_index::{Counts, Filter, IndexReader, Matrix, ModelSpec, SearchError, StoredPhoto};

pub use self::restore::{Fate, Match, RestoreError, RestoreOptions, Restored, restore};
use crate::json::{JsonMetadata, JsonPath};

/// What [`Header::format`] says.
pub const FORMAT: &str = "tinyfind-export";

/// Version of the format: it grows with any change that a reader of this one would misread.
pub const VERSION: u32 = 1;

/// The first line of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`] of whoever wrote it.
    pub version: u32,
    /// The program that wrote it, with its version.
    pub written_by: String,
    /// The model that made vectors and captions, with the shapes of what it makes.
    pub model: ModelSpec,
    /// Which commit of the index this is.
    pub generation: u64,
    /// How much it holds.
    #[serde(flatten)]
    pub counts: Counts,
}

/// How the image-text vectors of a photo are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vectors {
    /// All values, row by row, as little-endian 32-bit floats in base64 (RFC 4648).
    Base64,
    /// A list of rows, each a list of numbers.
    Arrays,
}

/// What to export.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExportOptions {
    /// The image-text vectors as well, this way.
    pub vectors: Option<Vectors>,
    /// The files that could not be read as well.
    pub failures: bool,
}

/// What was exported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exported {
    /// Photos.
    pub photos: u64,
    /// Photos with a caption.
    pub captioned: u64,
    /// Files that could not be read.
    pub failures: u64,
}

/// A photo, as a line.
#[derive(Debug, Serialize)]
struct Record<'a> {
    #[serde(flatten)]
    path: JsonPath,
    doc: u64,
    hash: String,
    file_bytes: Option<u64>,
    caption: Option<&'a str>,
    #[serde(flatten)]
    metadata: JsonMetadata<'a>,
    picture_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vectors: Option<JsonVectors>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum JsonVectors {
    Base64(String),
    Arrays(Vec<Vec<f32>>),
}

impl JsonVectors {
    fn new(matrix: &Matrix, how: Vectors) -> Self {
        match how {
            Vectors::Base64 => {
                let bytes: Vec<u8> =
                    matrix.values.iter().flat_map(|value| value.to_le_bytes()).collect();
                Self::Base64(base64::encode(&bytes))
            }
            Vectors::Arrays => {
                Self::Arrays((0..matrix.rows).map(|row| matrix.row(row).to_vec()).collect())
            }
        }
    }
}

/// A file that could not be read, as a line.
#[derive(Debug, Serialize)]
struct FailureRecord<'a> {
    #[serde(flatten)]
    path: JsonPath,
    failure: &'a str,
}

/// Why an index could not be exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The index could not be read.
    #[error("the index could not be read")]
    Index(#[from] SearchError),
    /// The lines could not be written.
    #[error(transparent)]
    Write(#[from] io::Error),
    /// A file could not be written.
    #[error("cannot write `{}`", path.display())]
    File {
        /// That file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Writes what `reader` has of every photo to `out`, a line each.
///
/// # Errors
///
/// When the index cannot be read or a line cannot be written.
pub fn export(
    reader: &IndexReader,
    options: ExportOptions,
    out: &mut dyn Write,
) -> Result<Exported, ExportError> {
    let header = Header {
        format: FORMAT.to_owned(),
        version: VERSION,
        written_by: concat!("tinyfind ", env!("CARGO_PKG_VERSION")).to_owned(),
        model: reader.spec().clone(),
        generation: reader.generation(),
        counts: reader.counts(),
    };
    write_line(out, &header)?;
    let mut exported = Exported::default();
    for photo in reader.photos(&Filter::default())? {
        let StoredPhoto { doc, path, hash, metadata, caption } = &photo?;
        let vectors = match options.vectors {
            Some(how) => Some(JsonVectors::new(&reader.embedding(*doc)?, how)),
            None => None,
        };
        let record = Record {
            path: path.as_path().into(),
            doc: doc.0,
            hash: hash.to_hex(),
            file_bytes: metadata.file_bytes,
            caption: caption.as_deref(),
            metadata: metadata.into(),
            picture_hash: metadata.picture_hash.map(|hash| format!("{:016x}", hash.0)),
            vectors,
        };
        write_line(out, &record)?;
        exported.photos += 1;
        exported.captioned += u64::from(caption.is_some());
    }
    if options.failures {
        for failure in reader.failures()? {
            let path = failure.path.as_path().into();
            write_line(out, &FailureRecord { path, failure: &failure.reason })?;
            exported.failures += 1;
        }
    }
    Ok(exported)
}

/// As [`export`], into a file that is there whole or, where something fails, not at all: what was
/// at `path` before stays until the last line is written.
///
/// # Errors
///
/// As [`export`], and when the file cannot be written.
pub fn export_to_file(
    reader: &IndexReader,
    options: ExportOptions,
    path: &Path,
) -> Result<Exported, ExportError> {
    let cannot = |source| ExportError::File { path: path.to_owned(), source };
    // A device or a pipe is written to, not replaced, and a link leads to its file.
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if fs::metadata(&real).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir()) {
        let file = File::options().write(true).open(path).map_err(cannot)?;
        let mut out = BufWriter::new(file);
        let exported = export(reader, options, &mut out)?;
        return out.flush().map_err(cannot).map(|()| exported);
    }
    let path = real.as_path();
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new.{}", std::process::id()));
    let new = path.with_file_name(name);
    let written = File::create(&new).map_err(cannot).and_then(|file| {
        let mut out = BufWriter::new(file);
        let exported = export(reader, options, &mut out).map_err(|error| match error {
            ExportError::Write(source) => cannot(source),
            error => error,
        })?;
        let file = out.into_inner().map_err(|error| cannot(error.into_error()))?;
        file.sync_all().map_err(cannot)?;
        fs::rename(&new, path).map_err(cannot)?;
        Ok(exported)
    });
    if written.is_err() {
        // It may not even be there.
        let _ = fs::remove_file(&new);
    }
    written
}

fn write_line(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    out.write_all(&line)
}
