//! How good a model is: figures on drawn scenes of which everything is known.
//!
//! [`evaluate`] shows a [`Judge`] held-out scenes of a [`Split`] and compares what it says with
//! the scene graph. The judge that counts is [`ModelJudge`]: a bundle behind the same calls that
//! `tinyfind index`, `search` and `ask` make. Beside each [`Figure`] stands what is reached
//! without the picture and, for answers, without the question: a figure near those has learned
//! nothing, however high it is.
//!
//! | part | what is measured |
//! |---|---|
//! | retrieval | the right picture for a caption and the reverse, among up to 1,000; by ITC, and the first ten put in a new order by ITM |
//! | binding | the true caption above the same caption with one false fact: the words are there either way, only who has which colour and stands where differs |
//! | captions | whether what is said of a picture is all that is true of it, and nothing else |
//! | answers | questions by kind, right word for word |

mod answers;
mod binding;
mod captions;
mod figures;
mod judge;
mod retrieval;
mod scenes;
#[cfg(test)]
mod tests;

pub use figures::{Figure, Goal, Part, Unit};
pub use judge::{Judge, ModelJudge};
pub use scenes::{FIRST, GALLERY, Report, Reporter, evaluate};

use crate::train::scenes::Split;

/// The splits that no training sees, in the order in which they are reported.
pub const HELD_OUT: [Split; 3] = [Split::Test, Split::Combinations, Split::Style];
