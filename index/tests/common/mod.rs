//! What the tests share: a small model, and photos whose features follow from their content.

#![allow(dead_code, reason = "every test file uses a part")]
#![allow(clippy::unwrap_used, reason = "a helper of tests may panic as they may")]

pub(crate) mod growing;
pub(crate) mod model;
pub(crate) mod vectors;

use std::fs;
use std::path::{Path, PathBuf};

use tinyfind_index::{
    ContentHash, DocId, Features, FileStamp, IndexReader, Matrix, ModelSpec, NewPhoto,
    PhotoMetadata, StoredPhoto,
};

/// A model small enough to write thousands of photos a second.
pub(crate) fn spec() -> ModelSpec {
    ModelSpec {
        name: "nano".to_owned(),
        fingerprint: "00112233445566778899".to_owned(),
        embedding_rows: 3,
        embedding_dim: 24,
        token_rows: 2,
        token_dim: 40,
    }
}

/// Numbers between -1 and 1 that follow from `seed`.
pub(crate) fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        // xorshift64 of Marsaglia, 2003.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

pub(crate) fn unit(mut values: Vec<f32>) -> Vec<f32> {
    let norm = values.iter().map(|v| v * v).sum::<f32>().sqrt();
    for value in &mut values {
        *value /= norm;
    }
    values
}

/// What the model makes of the content `content`.
pub(crate) fn features_of(spec: &ModelSpec, content: u64) -> Features {
    let rows = (0..spec.embedding_rows as u64)
        .flat_map(|row| unit(noise(content * 1000 + row + 1, spec.embedding_dim)));
    Features {
        embedding: Matrix::new(spec.embedding_rows, spec.embedding_dim, rows.collect()),
        visual_tokens: Matrix::new(
            spec.token_rows,
            spec.token_dim,
            noise(content + 77, spec.token_rows * spec.token_dim),
        ),
    }
}

pub(crate) fn features(content: u64) -> Features {
    features_of(&spec(), content)
}

pub(crate) fn hash(content: u64) -> ContentHash {
    ContentHash::of(&content.to_le_bytes())
}

pub(crate) fn stamp(time: i64) -> FileStamp {
    FileStamp { size: 1000, mtime_ns: time }
}

pub(crate) fn photo(path: impl Into<PathBuf>, content: u64) -> NewPhoto {
    let metadata = PhotoMetadata {
        width: 640,
        height: 480,
        format: "jpeg".to_owned(),
        ..PhotoMetadata::default()
    };
    NewPhoto { path: path.into(), stamp: stamp(1), hash: hash(content), metadata }
}

/// The photo at `path`, which must be there.
pub(crate) fn stored(reader: &IndexReader, path: impl AsRef<Path>) -> StoredPhoto {
    let doc = reader.find_path(path.as_ref()).unwrap().expect("a photo at the path");
    reader.photo(doc).unwrap().expect("a photo with the number")
}

/// Numbers only.
pub(crate) fn docs(scored: &[(DocId, f32)]) -> Vec<DocId> {
    scored.iter().map(|(doc, _)| *doc).collect()
}

/// Every problem that a check finds.
pub(crate) fn problems(dir: &Path) -> Vec<String> {
    IndexReader::open(dir).unwrap().check().unwrap().problems
}

/// A folder in memory where the system has one, for tests that make thousands of files.
pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Every file at and below `folder`.
pub(crate) fn files_of(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_of(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Copies a file or a folder over whatever is there.
pub(crate) fn copy(from: &Path, to: &Path) {
    if from.is_file() {
        fs::copy(from, to).unwrap();
        return;
    }
    if to.exists() {
        fs::remove_dir_all(to).unwrap();
    }
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        copy(&entry.path(), &to.join(entry.file_name()));
    }
}
