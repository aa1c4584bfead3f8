//! The rows of the catalogue and their keys. `DESIGN.md` lists them.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::document::{ContentHash, Counts, DocId, FileStamp, ModelSpec, PhotoMetadata};
use crate::segments::Gone;

/// First bytes of the keys, one a kind of row. `DESIGN.md` lists what follows each.
pub(super) mod key {
    /// Path: [`super::PathRow`].
    pub(in crate::catalog) const PATH: u8 = b'p';
    /// `DocId`, big-endian: path.
    pub(in crate::catalog) const DOC: u8 = b'd';
    /// Content hash: [`super::ContentRow`].
    pub(in crate::catalog) const CONTENT: u8 = b'c';
    /// Content hash and `DocId`: nothing. One for each photo of a content.
    pub(in crate::catalog) const HOLDER: u8 = b'h';
    /// First slot, big-endian, of a content without a caption: content hash.
    pub(in crate::catalog) const UNCAPTIONED: u8 = b'u';
    /// Number, u32, big-endian: some of the paths whose text the last commit changed, as
    /// [`super::joined`]. Formats 1 and 2 had a row of each path, with nothing in it: a quarter of
    /// what a commit wrote.
    pub(in crate::catalog) const CHANGED: u8 = b'o';
    /// Nothing: [`super::State`].
    pub(in crate::catalog) const STATE: u8 = b'm';
}

/// What the catalogue says of the whole index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) format: u32,
    /// Name and version of the crate that wrote the last commit.
    #[serde(default)]
    pub(crate) written_by: String,
    pub(crate) model: ModelSpec,
    /// Number of the last commit.
    pub(crate) generation: u64,
    /// The [`DocId`] that the next photo gets.
    pub(crate) next_doc: u64,
    /// The slot that the next content gets; all below are in the segments that are not gone.
    pub(crate) next_slot: u64,
    pub(crate) counts: Counts,
    /// Distinct contents of the photos; none in what an earlier version wrote, which did not count
    /// them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) contents: Option<u64>,
    /// Segments that were given back.
    #[serde(default, skip_serializing_if = "Gone::is_empty")]
    pub(crate) gone: Gone,
}

/// The members of [`State`] that no format may change, so that a newer one can be named.
#[derive(Deserialize)]
pub(super) struct Envelope {
    pub(super) format: u32,
    #[serde(default)]
    pub(super) written_by: String,
}

/// What the catalogue says of one path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PathRow {
    pub(crate) stamp: FileStamp,
    pub(crate) entry: PathEntry,
}

/// What became of a path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "nearly every path is a photo")]
pub(crate) enum PathEntry {
    Photo { doc: DocId, hash: ContentHash, metadata: PhotoMetadata },
    Failed { reason: String },
}

impl PathEntry {
    /// Number of the photo, if it is one.
    pub(crate) fn doc(&self) -> Option<DocId> {
        match self {
            Self::Photo { doc, .. } => Some(*doc),
            Self::Failed { .. } => None,
        }
    }
}

/// What the catalogue says of one content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ContentRow {
    pub(crate) slot: u64,
    pub(crate) caption: Option<String>,
    /// The slot that it was given when it came, if its record lies in another one now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) first_slot: Option<u64>,
}

impl ContentRow {
    /// Key of the content among those without a caption, which come in the order in which they
    /// were added, wherever their records lie.
    pub(super) fn uncaptioned_key(&self) -> Vec<u8> {
        numbered_key(key::UNCAPTIONED, self.first_slot.unwrap_or(self.slot))
    }
}

pub(super) fn path_key(kind: u8, path: &Path) -> Vec<u8> {
    [&[kind], path.as_os_str().as_bytes()].concat()
}

pub(super) fn path_of(mut key: Vec<u8>) -> PathBuf {
    key.remove(0);
    PathBuf::from(OsString::from_vec(key))
}

/// A row of paths takes no more than this, unless one path does. sled keeps what has more than
/// 128 KB, leaves of its tree among it, in files of their own, and these are not flushed before the
/// log that names them: a loss of power could take them out of a commit.
const JOINED_BYTES: usize = 4096;

/// Keys and values of the rows of `paths`: one path behind the other, each with its length before
/// it, u32, big-endian.
pub(super) fn joined<'a>(
    paths: impl Iterator<Item = &'a PathBuf>,
) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    let mut rows: Vec<Vec<u8>> = Vec::new();
    for path in paths {
        let path = path.as_os_str().as_bytes();
        let bytes = 4 + path.len();
        if rows.last().is_none_or(|row| row.len() + bytes > JOINED_BYTES) {
            rows.push(Vec::new());
        }
        if let Some(row) = rows.last_mut() {
            row.extend((path.len() as u32).to_be_bytes());
            row.extend(path);
        }
    }
    let key = |number: u32| [&[key::CHANGED], number.to_be_bytes().as_slice()].concat();
    (0..).map(key).zip(rows)
}

/// The paths of a row of [`joined`]; none if it is not one.
pub(super) fn split(mut bytes: &[u8]) -> Option<Vec<PathBuf>> {
    let mut paths = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (path, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        paths.push(PathBuf::from(OsString::from_vec(path.to_vec())));
        bytes = rest;
    }
    bytes.is_empty().then_some(paths)
}

/// Big-endian, so that keys sort by number.
pub(super) fn numbered_key(kind: u8, number: u64) -> Vec<u8> {
    [&[kind], number.to_be_bytes().as_slice()].concat()
}

pub(super) fn content_key(hash: &ContentHash) -> Vec<u8> {
    [&[key::CONTENT], hash.0.as_slice()].concat()
}

pub(super) fn holder_prefix(hash: &ContentHash) -> Vec<u8> {
    [&[key::HOLDER], hash.0.as_slice()].concat()
}

pub(super) fn holder_key(hash: &ContentHash, doc: DocId) -> Vec<u8> {
    [&[key::HOLDER], hash.0.as_slice(), &doc.0.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn joined_paths_are_split_again(
            names in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..60),
            cut in any::<prop::sample::Index>(),
        ) {
            let paths: Vec<PathBuf> =
                names.into_iter().map(|name| PathBuf::from(OsString::from_vec(name))).collect();
            let rows: Vec<(Vec<u8>, Vec<u8>)> = joined(paths.iter()).collect();
            prop_assert!(rows.is_sorted());
            let back = rows.iter().flat_map(|(_, row)| split(row).unwrap());
            prop_assert_eq!(back.collect::<Vec<_>>(), paths);
            for (_, row) in rows {
                prop_assert!(row.len() <= JOINED_BYTES);
                let short = cut.index(row.len());
                if let Some(fewer) = split(&row[..short]) {
                    prop_assert!(split(&row).unwrap().starts_with(&fewer));
                }
            }
        }
    }
}
