//! The demonstration: an album of drawn pictures, laid out like a folder of photos, with searches
//! of which it is known what they should find.
//!
//! The pictures are scenes of the generator that `nano` learns from
//! ([`crate::train::scenes`]), of a split that no training sees and with numbers that no
//! evaluation takes. [`album()`] says what is in the album: the outings of a family over nine
//! years, a folder each, and for each picture a scene that fits the place, a time that fits the
//! light, a camera of that year and, for some, a place on the map. [`DemoFolder`] puts it on
//! disk, a whole file at a time, and goes on where an earlier run stopped. [`SEARCHES`] are the
//! searches to show; a picture answers one when [`DemoSearch::is_true_of`] says so, which reads
//! scene, date and camera, not pixels.
//!
//! Everything is the same every time: a picture's bytes depend on nothing but its place in the
//! album.

mod album;
mod error;
mod folder;
mod photo;
mod searches;
#[cfg(test)]
mod tests;
mod trips;

pub use album::{PICTURES, Picture, album};
pub use error::DemoError;
pub use folder::DemoFolder;
pub use photo::SIDE;
pub use searches::{DemoSearch, QUESTION, SEARCHES};
pub use trips::Camera;
