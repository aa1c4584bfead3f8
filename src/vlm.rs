//! The contract with a vision-language model: what the jobs need of one, in batches.
//!
//! Jobs (index, search, ask) know this trait only; [`crate::model`] implements it with
//! TinyGPT-V, tests with [`FakeVlm`].

mod fake;

use tinyfind_index::{Features, Matrix, ModelSpec};

use crate::decode::DecodedImage;

pub use fake::{Calls, FakeVlm};

/// Why a model could not do its work: the message names the part and the file or tensor.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct VlmError {
    message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl VlmError {
    /// An error with a message only.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }

    /// An error with the one that caused it.
    pub fn with_source(
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { message: message.into(), source: Some(source.into()) }
    }
}

/// Shorthand for results of a model.
pub type Result<T> = std::result::Result<T, VlmError>;

/// A question asked before, and what the model said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// What was asked.
    pub question: String,
    /// What was answered.
    pub answer: String,
}

/// One question about one photo.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The photo, as its stored visual tokens.
    pub visual_tokens: &'a Matrix,
    /// The conversation so far, oldest first.
    pub history: &'a [Turn],
    /// What is asked now.
    pub question: &'a str,
}

/// What the jobs need of a vision-language model.
///
/// A model loads each of its parts on first use and may drop one part to make room for
/// another, hence `&mut self`. Results come in the order of the input, one each.
pub trait Vlm: Send {
    /// Name, fingerprint and sizes; costs nothing.
    fn spec(&self) -> &ModelSpec;

    /// Side, in pixels, of the square that [`Vlm::embed_images`] looks at: the largest where
    /// there are several. Pictures already of that size are used as they are, so callers may
    /// shrink early (with [`crate::decode::resize_bicubic`]) to save memory; where there are
    /// several sizes the smaller picture is then made of the larger.
    fn input_size(&self) -> u32;

    /// How many photos a call of [`Vlm::embed_images`] should hold.
    fn embed_batch(&self) -> usize {
        4
    }

    /// How many photos a call of [`Vlm::caption`] should hold.
    fn caption_batch(&self) -> usize {
        16
    }

    /// Image-text vectors and visual tokens of each picture.
    ///
    /// # Errors
    ///
    /// When a part cannot be loaded or does not fit.
    fn embed_images(&mut self, images: &[DecodedImage]) -> Result<Vec<Features>>;

    /// Vector of each text in the space of the image vectors, of unit length.
    ///
    /// # Errors
    ///
    /// When a part cannot be loaded or does not fit.
    fn embed_queries(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>>;

    /// A caption for each photo, from its visual tokens.
    ///
    /// # Errors
    ///
    /// When a part cannot be loaded or does not fit.
    fn caption(&mut self, visual_tokens: &[&Matrix]) -> Result<Vec<String>>;

    /// An answer to each question.
    ///
    /// # Errors
    ///
    /// When a part cannot be loaded or does not fit.
    fn answer(&mut self, questions: &[Question<'_>]) -> Result<Vec<String>>;

    /// Probability, 0 to 1, that `statement` is true of each photo.
    ///
    /// # Errors
    ///
    /// When a part cannot be loaded or does not fit.
    fn match_probability(&mut self, visual_tokens: &[&Matrix], statement: &str)
    -> Result<Vec<f32>>;
}
