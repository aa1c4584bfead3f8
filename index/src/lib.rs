//! Combined full-text and vector index of a photo library: crash-safe, incremental, readable
//! while it is written.
//!
//! An index is a folder. One [`IndexWriter`] changes it, any number of [`IndexReader`]s, in any
//! number of processes, search it meanwhile. The crate knows no model and no pixels: it is given
//! vectors, tokens and captions, and finds them again by words, by meaning and by filters.
//!
//! ```
//! use tinyfind_index::*;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! // What the model makes of a photo: here one vector of 4 and one token of 2.
//! let model = ModelSpec {
//!     name: "toy".into(),
//!     fingerprint: "c0ffee".into(),
//!     embedding_rows: 1,
//!     embedding_dim: 4,
//!     token_rows: 1,
//!     token_dim: 2,
//! };
//! let mut writer = IndexWriter::open(folder.path(), &model)?;
//! let photo = NewPhoto {
//!     path: "/photos/beach/rex.jpg".into(),
//!     stamp: FileStamp { size: 3, mtime_ns: 0 },
//!     hash: ContentHash::of(b"rex"),
//!     metadata: PhotoMetadata::default(),
//! };
//! let features = Features {
//!     embedding: Matrix::new(1, 4, vec![1.0, 0.0, 0.0, 0.0]),
//!     visual_tokens: Matrix::new(1, 2, vec![0.5, -0.5]),
//! };
//! let rex = writer.add(photo, features)?;
//! writer.set_caption(rex, "A dog running along the sea")?;
//! writer.commit()?;
//!
//! let reader = IndexReader::open(folder.path())?;
//! let words = [Term::Word("runs".into())];
//! let by_words = reader.by_words(&words, &Filter::default(), 10)?;
//! let on_the_beach = Filter { require: vec![Clause::Path("beach".into())], exclude: vec![] };
//! let by_vector = reader.by_vector(&[2.0, 0.0, 0.0, 0.0], &on_the_beach, 10)?;
//! assert_eq!((by_words[0].0, by_vector[0].0), (rex, rex));
//! assert!((by_vector[0].1 - 1.0).abs() < 0.01);
//!
//! let lists: Vec<Vec<DocId>> = [by_words, by_vector]
//!     .iter()
//!     .map(|list| list.iter().map(|(doc, _)| *doc).collect())
//!     .collect();
//! let best = reciprocal_rank_fusion(&[(1.0, &lists[0]), (1.0, &lists[1])])[0].0;
//! let hit = reader.photo(best)?.expect("a photo of this generation");
//! let caption = hit.caption.unwrap_or_default();
//! let marked: Vec<&str> =
//!     reader.highlight(&words, &caption).into_iter().map(|range| &caption[range]).collect();
//! assert_eq!(marked, ["running"]);
//! # Ok(())
//! # }
//! ```
//!
//! # Parts
//!
//! | part | file | what it is |
//! |---|---|---|
//! | manifest | `manifest.json` | model, format, generation; replaced whole |
//! | catalogue | `catalog/` | the ledger of paths and contents, in sled: the truth, with the segments |
//! | segments | `segments/` | vectors and visual tokens as int8 records, memory-mapped |
//! | coarse | `coarse/codes` | short codes of each photo: the first stage of a vector search in a large collection; a cache |
//! | text | `text/N/` | captions, names, filter fields, what a hit shows, in tantivy |
//! | lock | `lock` | one writer at a time |
//!
//! `index/DESIGN.md` has the bytes, the commit protocol and what follows after a crash.

// Tests of parts of the crate share helpers with those of the whole, which name it.
#[cfg(test)]
extern crate self as tinyfind_index;
#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod common;

mod catalog;
mod check;
mod coarse;
mod document;
mod error;
mod files;
mod fusion;
mod manifest;
mod nearest;
mod query;
mod reader;
mod recovery;
mod segments;
mod steps;
mod text;
mod top;
mod vectors;
mod writer;

pub use check::{CatalogCheck, IndexCheck, check};
pub use document::{
    ContentHash, Counts, DocId, Failure, Features, FileRecord, FileStamp, FileState, Matrix,
    ModelSpec, NewPhoto, PhotoMetadata, PictureHash, StoredPhoto, Taken, TakenSource,
};
pub use error::{Cure, OpenError, SearchError, WriteError};
pub use fusion::{RRF_K, reciprocal_rank_fusion};
pub use query::{Circle, Clause, Filter, Orientation, Pixels, Term};
pub use reader::{CheckReport, IndexReader};
pub use writer::{Compaction, IndexWriter};
