//! Sentences about scenes: lower case, whole words with single spaces, `,` and `.` where natural.
//!
//! A [`CaptionPlan`] is a wording without facts. Rendered over a scene it says what is true of
//! that scene; rendered over the same scene with one fact changed it says the same with that one
//! fact false, in the same words but for those that carry it.

mod captions;
mod dialogue;
mod drills;
mod edits;
mod phrases;
mod questions;
mod statement;
#[cfg(test)]
mod tests;
mod truth;
mod vocabulary;

use std::ops::Range;

pub use captions::CaptionPlan;
pub use dialogue::dialogue;
pub use drills::{Drill, drills};
pub use edits::{Edit, EditKind, Scrambled, edits, scrambled};
pub use questions::{Question, QuestionKind, questions};
pub use statement::{Statement, parse_caption};
pub use vocabulary::corpus_words;

/// A caption with the place of each fact in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caption {
    /// The sentence or fragment.
    pub text: String,
    /// Its facts, in the order of the text. Ranges do not overlap.
    pub mentions: Vec<Mention>,
}

impl Caption {
    /// The text without a full stop at its end, to be said inside another sentence.
    pub fn clause(&self) -> &str {
        self.text.strip_suffix('.').unwrap_or(&self.text)
    }
}

/// A fact in a caption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mention {
    /// Bytes of the text: whole words.
    pub range: Range<usize>,
    /// What they say.
    pub fact: Fact,
}

/// What a few words of a caption are about. Numbers are places in [`super::Scene::things`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fact {
    /// What a thing is.
    Kind(usize),
    /// Its colour.
    Colour(usize),
    /// How many of it there are.
    Count(usize),
    /// How big it is.
    Size(usize),
    /// Where the scene is.
    Setting,
    /// Its light.
    Time,
    /// Its weather.
    Weather,
    /// Where the first thing is, seen from the second.
    Relation(usize, usize),
    /// That nothing is there.
    Nothing,
}
