//! Combined full-text and vector index of a photo library.

mod document;

pub use document::{
    ContentHash, DocId, Features, FileStamp, Matrix, ModelSpec, PhotoMetadata, Taken, TakenSource,
};
