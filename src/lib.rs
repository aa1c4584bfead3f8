//! tinyfind: semantic search for photo folders on your own machine.
//!
//! This page is the map of the crate. Bytes on disk are described in `index/DESIGN.md`, the
//! network in [`model`].
//!
//! # The idea
//!
//! One pass of a vision transformer over a photo feeds two Q-Formers. The *retrieval* Q-Former
//! (BLIP-2 stage 1) gives 32 vectors of 256 in one space with text, so a photo can be found by a
//! sentence at once. The *captioning* Q-Former (TinyGPT-V) gives 32 x 768 *visual tokens*, which
//! two projections carry into the language model. TinyGPT-V's own Q-Former has lost its text
//! side and cannot answer a text query; that is why there are two.
//!
//! Visual tokens are stored (about 25 KB a photo, int8). So captions are written later, in large
//! batches, and questions are answered at query time, without decoding the photo or running the
//! vision transformer again.
//!
//! # Floors
//!
//! Imports point downwards only; `tests/tidy.rs` reads them and fails on a breach.
//!
//! | floor | what | modules |
//! |---|---|---|
//! | 4 | the program: one verb a file, no work of its own | [`cli`], `main.rs` |
//! | 3 | the jobs | [`indexer`], [`search`], [`ask`], [`similar`], [`duplicates`], [`export`], [`train`], [`eval`], [`demo`] |
//! | 2 | the model on candle | [`model`] |
//! | 1 | folders to files to pixels; the contract with a model; photos as JSON | [`crawl`], [`decode`], [`vlm`], [`json`] |
//! | 0 | catalogue, text and vectors; no model, no pixels, no terminal | crate [`tinyfind_index`] |
//!
//! # The way of a photo
//!
//! ```text
//! path -> ImageFile {path, stamp} -> bytes -> ContentHash, EXIF, DecodedImage (upright)
//!      -> pixel values (B, 3, 224, 224) -> ViT (B, 257, 1408)
//!           -> retrieval Q-Former  -> embedding (B, 32, 256), rows of unit length
//!           -> captioning Q-Former -> visual tokens (B, 32, 768)
//!      -> one committed batch: the photo can be found by meaning         phase 1: embed
//! stored visual tokens -> projections (B, 32, 2560) -> Phi-2 -> caption
//!      -> one committed batch: the photo can be found by words           phase 2: caption
//! ```
//!
//! Decoding (CPU threads), the model (one thread) and the writer run at the same time, joined by
//! bounded channels: memory is bounded by the channels, and one bad file costs one line in the
//! list of failures. Equal content is computed once. A photo whose size and modification time
//! stand unchanged is not opened. The phases are apart because the vision part and the language
//! part of the full model need not be in memory together.
//!
//! # The way of a query
//!
//! ```text
//! 'red umbrella "Times Square" -night camera:fuji after:2019'
//!   -> quoted: literal words; bare: meaning and words; -x: exclude; field:value: filter;
//!      +a.jpg, -b.jpg: like and unlike a photo; OR: one of several alternatives
//!   -> text side of the retrieval Q-Former alone -> one vector (256), plus and minus the photos'
//!   -> candidates by words (BM25) and by meaning (greatest cosine over a photo's 32 vectors)
//!   -> reciprocal rank fusion; the top 5 is the head of the top 50
//!   -> Hit {rank, score, path, caption}
//! ```
//!
//! # Places left for what comes later
//!
//! Own CPU and GPU kernels stand behind [`model::layers`] and [`model::kernels`]; serving becomes
//! `src/serve/` (floor 4); the index keeps `coarse/` and `graph/` for its approximate first
//! stages.

pub mod crawl;
pub mod decode;
pub mod json;
pub mod vlm;

pub mod model;

pub mod ask;
pub mod demo;
pub mod duplicates;
pub mod eval;
pub mod export;
pub mod indexer;
pub mod search;
pub mod similar;
pub mod train;

pub mod cli;
