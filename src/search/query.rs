//! The query language: what a person types, read into words, quoted words, exclusions, fields and
//! photos.
//!
//! ```text
//! query       = alternative ("OR" alternative)*
//! alternative = part+
//! part        = ["-"] (field | quoted | word)    "-" excludes what follows it
//!             | "+" (quoted | photo)              a photo like this one
//!             | "-" photo                         a photo unlike this one
//! field       = name ":" (quoted | value)         see [`What`] for names and values
//! quoted      = '"' anything but '"' '"'          typographic quotes work too
//! photo       = a word with the extension of a photo's file
//! word        = any other run without spaces
//! ```
//!
//! `OR`, in capitals, binds looser than what stands side by side: `dog beach OR cat` finds dogs
//! on a beach, and cats. There are no parentheses.
//!
//! A word may hold a colon (`10:30`, `https://example.org`). But letters, a colon and letters
//! or digits (`iso:400`) are read as a field, and an unknown one is an error that names
//! the known fields: a mistyped filter that silently became a word would find the wrong photos.
//! In quotes anything is literal.

mod error;
mod parser;
mod period;
mod print;
#[cfg(test)]
mod tests;
mod values;

use std::ops::Range;
use std::path::Path;

use tinyfind_index::{Clause, Filter, Orientation, Term};

pub use self::error::{Problem, QueryError};
pub use self::period::Period;
pub use self::values::{Near, Size};
use crate::decode::{Format, by_extension};

/// Names of the fields.
const FIELDS: [&str; 15] = [
    "path",
    "name",
    "caption",
    "camera",
    "lens",
    "type",
    "width",
    "height",
    "orientation",
    "near",
    "after",
    "before",
    "on",
    "date",
    "image",
];

/// What a person looks for: photos that one of several alternatives finds.
///
/// Printed, it reads as itself: `query.to_string().parse() == Ok(query)`. Two queries are equal
/// when they ask for the same, however they were spaced.
#[derive(Debug, Clone)]
pub struct Query {
    text: String,
    alternatives: Vec<Alternative>,
}

impl PartialEq for Query {
    fn eq(&self, other: &Self) -> bool {
        self.alternatives == other.alternatives
    }
}

/// What stands between two `OR`: parts that hold together, in the order written.
#[derive(Debug, Clone, PartialEq)]
pub struct Alternative {
    parts: Vec<Part>,
}

/// One thing a photo must, may or must not have.
#[derive(Debug, Clone)]
pub struct Part {
    /// Whether photos that have it are left out; of an [`What::Image`], whether photos like it
    /// come later.
    pub exclude: bool,
    /// What it is.
    pub what: What,
    /// The bytes of the query that say so.
    pub at: Range<usize>,
}

impl PartialEq for Part {
    fn eq(&self, other: &Self) -> bool {
        (self.exclude, &self.what) == (other.exclude, &other.what)
    }
}

/// What a [`Part`] of a query names.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum What {
    /// A bare word: meant, or standing in caption, name or notes.
    Word(String),
    /// Quoted words, which must stand in caption, name or notes as they are.
    Quoted(String),
    /// A photo to look like: a file, or the end of the path of an indexed one.
    /// `+IMG_1.jpg`, `-IMG_1.jpg`, `image:"my photo.jpg"`.
    Image(String),
    /// `path:`: a piece of the path, in any case.
    Path(String),
    /// `name:`: a piece of the file's name, in any case.
    Name(String),
    /// `caption:`: a word, or quoted words, of the caption alone.
    Caption(Term),
    /// `camera:`: words of the camera's name.
    Camera(String),
    /// `lens:`: words of the lens's name.
    Lens(String),
    /// `type:`: the format, by one of its file extensions.
    Type(Format),
    /// `width:`: width in pixels.
    Width(Size),
    /// `height:`: height in pixels.
    Height(Size),
    /// `orientation:`: portrait, landscape or square.
    Orientation(Orientation),
    /// `near:`: taken within a distance of a place.
    Near(Near),
    /// `after:`: taken on that day, month or year, or later.
    After(Period),
    /// `before:`: taken before that day, month or year.
    Before(Period),
    /// `on:` or `date:`: taken on that day, or in that month or year.
    On(Period),
}

impl Query {
    /// The alternatives, in the order written: one at least.
    pub fn alternatives(&self) -> &[Alternative] {
        &self.alternatives
    }

    /// Whether it has fields only: nothing to rank photos by but their dates.
    pub fn is_filter(&self) -> bool {
        self.alternatives.iter().all(Alternative::is_filter)
    }

    /// Whether it has words or quoted words.
    pub fn has_words(&self) -> bool {
        self.alternatives.iter().any(|alternative| alternative.text().is_some())
    }

    /// The photos that it names, with their places in it.
    pub fn images(&self) -> impl Iterator<Item = (&str, &Part)> {
        self.alternatives.iter().flat_map(Alternative::images)
    }

    /// Reads a query that only lets photos through or not: fields, quoted words, and anything
    /// excluded but photos.
    ///
    /// # Errors
    ///
    /// As for any query, but that it may exclude only; and [`Problem::Ranks`] for a bare word and
    /// for a photo.
    pub fn of_fields(text: &str) -> Result<Self, QueryError> {
        let query = parser::read(text, true)?;
        let ranks = |part: &&Part| match part.what {
            What::Word(_) => !part.exclude,
            What::Image(_) => true,
            _ => false,
        };
        let parts = query.alternatives.iter().flat_map(Alternative::parts);
        if let Some(part) = parts.clone().find(ranks) {
            return Err(query.error(part.at.clone(), Problem::Ranks));
        }
        Ok(query)
    }

    /// What lets a photo through that one of the alternatives lets through.
    pub fn filter(&self) -> Filter {
        match self.alternatives() {
            [only] => only.filter(),
            several => {
                let filters = several.iter().map(Alternative::filter).collect();
                Filter { require: vec![Clause::Any(filters)], exclude: Vec::new() }
            }
        }
    }

    /// What to mark in a caption or in notes: words, quoted words, and those of `caption:`.
    pub fn marked(&self) -> Vec<Term> {
        self.alternatives.iter().flat_map(Alternative::marked).collect()
    }

    /// The values of `camera:` fields that photos are to have.
    pub fn cameras(&self) -> impl Iterator<Item = &str> {
        self.alternatives.iter().flat_map(Alternative::wanted).filter_map(|what| match what {
            What::Camera(words) => Some(words.as_str()),
            _ => None,
        })
    }

    /// That something is wrong at `at`, which must be bytes of this query.
    pub fn error(&self, at: Range<usize>, problem: Problem) -> QueryError {
        QueryError { query: self.text.clone(), at, problem }
    }
}

impl Alternative {
    /// Its parts, in the order written: one at least, which does not exclude unless the query is
    /// one [of fields](Query::of_fields).
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Whether it has fields only.
    pub fn is_filter(&self) -> bool {
        self.text().is_none() && self.images().next().is_none()
    }

    /// What the words say together, for the meaning side: bare and quoted words in the order
    /// written, joined by spaces. `None` where there are none.
    pub fn text(&self) -> Option<String> {
        let words: Vec<&str> = self.wanted().filter_map(What::text).collect();
        (!words.is_empty()).then(|| words.join(" "))
    }

    /// The words for the text index, in the order written.
    pub fn terms(&self) -> Vec<Term> {
        self.wanted().filter_map(What::term).collect()
    }

    /// What a photo must have (quoted words, fields) and must not have (everything excluded).
    pub fn filter(&self) -> Filter {
        let clauses = |exclude| {
            let parts = self.parts.iter().filter(move |part| part.exclude == exclude);
            // A bare word ranks, and decides nothing unless it is excluded.
            let parts = parts.filter(move |part| exclude || !matches!(part.what, What::Word(_)));
            parts.filter_map(|part| part.what.clause()).collect()
        };
        Filter { require: clauses(false), exclude: clauses(true) }
    }

    /// The photos that it names, with their places in the query.
    pub fn images(&self) -> impl Iterator<Item = (&str, &Part)> {
        self.parts.iter().filter_map(|part| match &part.what {
            What::Image(name) => Some((name.as_str(), part)),
            _ => None,
        })
    }

    fn marked(&self) -> impl Iterator<Item = Term> {
        self.wanted().filter_map(|what| match what {
            What::Caption(term) => Some(term.clone()),
            what => what.term(),
        })
    }

    fn wanted(&self) -> impl Iterator<Item = &What> {
        self.parts.iter().filter(|part| !part.exclude).map(|part| &part.what)
    }
}

impl What {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Word(text) | Self::Quoted(text) => Some(text),
            _ => None,
        }
    }

    fn term(&self) -> Option<Term> {
        match self {
            Self::Word(word) => Some(Term::Word(word.clone())),
            Self::Quoted(phrase) => Some(Term::Phrase(phrase.clone())),
            _ => None,
        }
    }

    /// What the index must look at; nothing for a photo, which only ranks.
    fn clause(&self) -> Option<Clause> {
        Some(match self {
            Self::Image(_) => return None,
            Self::Word(word) => Clause::Term(Term::Word(word.clone())),
            Self::Quoted(phrase) => Clause::Term(Term::Phrase(phrase.clone())),
            Self::Path(piece) => Clause::Path(piece.clone()),
            Self::Name(piece) => Clause::Name(piece.clone()),
            Self::Caption(term) => Clause::Caption(term.clone()),
            Self::Camera(words) => Clause::Camera(words.clone()),
            Self::Lens(words) => Clause::Lens(words.clone()),
            Self::Type(format) => Clause::Format(format.name().to_owned()),
            Self::Width(size) => Clause::Width(size.pixels()),
            Self::Height(size) => Clause::Height(size.pixels()),
            Self::Orientation(orientation) => Clause::Orientation(*orientation),
            Self::Near(near) => Clause::Near(near.circle()),
            Self::After(period) => Clause::Taken { from: Some(period.begins()), until: None },
            Self::Before(period) => Clause::Taken { from: None, until: Some(period.begins()) },
            Self::On(period) => {
                Clause::Taken { from: Some(period.begins()), until: Some(period.ends()) }
            }
        })
    }
}

/// Whether `name` has the extension of a photo's file.
fn is_photo_name(name: &str) -> bool {
    match by_extension(Path::new(name)) {
        Some(Ok(_)) => true,
        Some(Err(unreadable)) => unreadable.is_photo(),
        None => false,
    }
}

fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\u{201c}' | '\u{201d}')
}

/// The name of the field that `text` begins with: two ASCII letters or more before a colon.
///
/// A colon with something else behind it than a value (`https://`, `std::fs`, `:` and the end)
/// makes no field of an unknown name, but still one of a known name.
fn field_name(text: &str) -> Option<&str> {
    let (name, value) = text.split_once(':')?;
    if name.len() < 2 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return None;
    }
    let is_known = FIELDS.iter().any(|known| known.eq_ignore_ascii_case(name));
    let is_value = value.starts_with(|c: char| c.is_alphanumeric() || is_quote(c));
    (is_known || is_value).then_some(name)
}
