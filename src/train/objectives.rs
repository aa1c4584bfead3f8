//! What is minimised: the three losses of BLIP-2's first stage and that of the language model.
//!
//! Each is a pure function of networks and a batch. It returns the loss, a scalar through which
//! gradients pass, and the few numbers worth showing. Sources: LAVIS `blip2_qformer.py` (Li et
//! al., BLIP-2, 2023), TinyGPT-V `mini_gpt4.py`.
//!
//! ```text
//! ViT tokens -> see -> query -> project ------> contrastive   (ITC) -> similarities
//!                |       |                                              |
//!                |       +--- read, words ----> next_words    (ITG)     v
//!                +----------- pairs ----------> matching      (ITM) <- hard negatives
//! visual tokens -> projections -> Phi --------> answers, texts
//! ```

mod contrastive;
mod entropy;
mod generation;
mod language;
mod matching;
#[cfg(test)]
mod tests;

pub use contrastive::{Contrast, contrastive, temperature};
pub use entropy::{IGNORED, accuracy, cross_entropy};
pub use generation::{NextWords, WordHead, next_words};
pub use language::{Answers, Example, answers, texts};
pub use matching::{Matching, Negatives, Triples, matching, sampling_weights};

/// Label smoothing of ITC and ITG in LAVIS.
pub const LABEL_SMOOTHING: f64 = 0.1;
