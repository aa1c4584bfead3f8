//! `manifest.json`: which model made an index, how far it is, and where its text lies.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::document::ModelSpec;
use crate::error::{OpenError, StoreError, StoreResult};
use crate::files;

/// The format that this version writes, and the newest it reads.
pub(crate) const FORMAT: u32 = 3;

/// Name and version of this crate, for messages and the manifest.
pub(crate) const WRITTEN_BY: &str = concat!("tinyfind-index ", env!("CARGO_PKG_VERSION"));

/// Starts the last member of the file. What stands before it is what the checksum covers; this
/// holds for every format, so that a damaged file is never taken for a newer one.
const CHECKSUM: &str = ",\n  \"checksum\": \"";

/// What a manifest says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) format: u32,
    pub(crate) written_by: String,
    /// Number of the last commit; 0 for an index that has none.
    pub(crate) generation: u64,
    pub(crate) model: ModelSpec,
    /// Which subfolder of `text/` holds the text index; each rebuild takes a new one.
    pub(crate) text_epoch: u64,
}

/// The two members that no format may change.
#[derive(Deserialize)]
struct Envelope {
    format: u32,
    written_by: String,
}

impl Manifest {
    /// Where the manifest of the index in `dir` lies.
    pub(crate) fn path(dir: &Path) -> PathBuf {
        dir.join("manifest.json")
    }

    /// Reads the manifest of the index in `dir`.
    ///
    /// # Errors
    ///
    /// `Missing`, `NewerFormat`, `Corrupt` or `Io`.
    pub(crate) fn read(dir: &Path) -> Result<Self, OpenError> {
        let path = Self::path(dir);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Err(OpenError::Missing { dir: dir.to_owned() });
            }
            Err(source) => return Err(OpenError::Io { path, source }),
        };
        let damaged = |what: &str| OpenError::from(StoreError::rewritable(&path, what));

        let text = std::str::from_utf8(&bytes).map_err(|_| damaged("it is no text"))?;
        let (body, tail) = text.rsplit_once(CHECKSUM).ok_or_else(|| damaged("its end is gone"))?;
        let checksum = tail.strip_suffix("\"\n}\n").ok_or_else(|| damaged("its end is gone"))?;
        if checksum != blake3::hash(body.as_bytes()).to_hex().as_str() {
            return Err(damaged("its checksum does not match"));
        }
        let envelope: Envelope =
            serde_json::from_str(text).map_err(|error| damaged(&error.to_string()))?;
        if envelope.format > FORMAT {
            return Err(OpenError::NewerFormat {
                dir: dir.to_owned(),
                writer: envelope.written_by,
                found: envelope.format,
                newest: FORMAT,
            });
        }
        serde_json::from_str(text).map_err(|error| damaged(&error.to_string()))
    }

    /// Puts this manifest in the place of the one in `dir`, durably.
    pub(crate) fn write(&self, dir: &Path) -> StoreResult<()> {
        let path = Self::path(dir);
        let json = serde_json::to_string_pretty(self)
            .map_err(|error| StoreError::Io { path: path.clone(), source: error.into() })?;
        let body = json.trim_end_matches("\n}");
        let checksum = blake3::hash(body.as_bytes()).to_hex();
        files::replace(&path, format!("{body}{CHECKSUM}{checksum}\"\n}}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            format: FORMAT,
            written_by: WRITTEN_BY.to_owned(),
            generation: 7,
            model: ModelSpec {
                name: "nano".to_owned(),
                fingerprint: "00ff".to_owned(),
                embedding_rows: 2,
                embedding_dim: 4,
                token_rows: 2,
                token_dim: 8,
            },
            text_epoch: 1,
        }
    }

    #[test]
    fn a_manifest_reads_back_as_written() {
        let dir = tempfile::tempdir().unwrap();
        manifest().write(dir.path()).unwrap();
        assert_eq!(Manifest::read(dir.path()).unwrap(), manifest());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        manifest().write(dir.path()).unwrap();
        let path = Manifest::path(dir.path());
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            for damaged in [&flipped, &whole[..at].to_vec()] {
                std::fs::write(&path, damaged).unwrap();
                let error = Manifest::read(dir.path()).unwrap_err();
                assert!(matches!(error, OpenError::Corrupt { .. }), "byte {at}: {error}");
            }
        }
    }

    #[test]
    fn a_newer_format_is_refused_with_both_names() {
        let dir = tempfile::tempdir().unwrap();
        let newer =
            Manifest { format: 9, written_by: "tinyfind-index 4.0".to_owned(), ..manifest() };
        newer.write(dir.path()).unwrap();
        let error = Manifest::read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("tinyfind-index 4.0") && error.contains(WRITTEN_BY), "{error}");
    }
}
