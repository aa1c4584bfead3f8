//! Drawn scenes with everything that is true of them: what `nano` learns from.
//!
//! A [`Scene`] is a graph: a setting, a time of day, weather, a drawing style and up to six
//! [`Thing`]s with kind, colour, place and size. [`Scene::generate`] makes it from a split and a
//! number, [`Scene::draw`] paints it at any size, and the language ([`CaptionPlan`]) is read off
//! the graph, so every sentence is known to be true, and a sentence of an edited graph is known
//! to be false in exactly the words that the edit changed.
//!
//! Everything is a pure function of its arguments and the same on every machine: own small
//! random numbers, no logarithms and no trigonometry (which differ between systems), no maps in
//! random order. Only the drawing crate and the JPEG decoder, which have vector instructions for
//! some processors, may round a colour by one elsewhere.

mod backdrop;
mod camera;
mod drawings;
mod graph;
mod held_out;
mod language;
mod layout;
mod names;
mod painter;
mod palette;
pub(crate) mod random;
mod styles;
#[cfg(test)]
mod tests;

pub use graph::{Relation, Scene, Split, Thing};
pub use held_out::{is_held_out_pair, is_held_out_triple};
pub use language::{
    Caption, CaptionPlan, Drill, Edit, EditKind, Fact, Mention, Question, QuestionKind, Scrambled,
    Statement, corpus_words, dialogue, drills, edits, parse_caption, questions, scrambled,
};
pub use names::{Colour, Kind, Setting, Size, Style, TimeOfDay, Weather};
