//! What can be wrong in a query, and where.

use std::ops::Range;

/// Why a query cannot be read, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct QueryError {
    /// The query as it was given.
    pub query: String,
    /// The bytes of the query that are wrong; empty, behind the last one, where something lacks.
    pub at: Range<usize>,
    /// What is wrong.
    pub problem: Problem,
}

/// What can be wrong in a query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Nothing but white space.
    #[error("the query is empty: say what to look for")]
    Empty,
    /// Everything is excluded by something, nothing looked for.
    #[error("the query only excludes: add a word or a field to look for")]
    OnlyExclusions,
    /// One side of `OR` is empty.
    #[error(
        "`OR` needs something to look for on both sides (to look for the word itself, put it in \
         quotes)"
    )]
    NothingBesideOr,
    /// A quote was opened and not closed.
    #[error("this quote is never closed")]
    UnclosedQuote,
    /// Two quotes with nothing between them.
    #[error("there is nothing between these quotes")]
    EmptyQuotes,
    /// A word that holds a quote.
    #[error("a quote must stand at the beginning of a word: put a space before it")]
    QuoteInWord,
    /// Something right behind a closing quote.
    #[error("put a space behind the closing quote")]
    NoSpaceAfterQuote,
    /// A field that is none.
    #[error(
        "there is no field `{0}`; fields are path, name, caption, camera, lens, type, width, \
         height, orientation, near, after, before, on and image (to look for the words \
         themselves, put them in quotes)"
    )]
    UnknownField(String),
    /// A field with nothing behind its colon.
    #[error("`{0}:` needs a value right behind the colon")]
    NoValue(&'static str),
    /// A date that is none.
    #[error("`{0}` is no date: write 2019, 2019-07 or 2019-07-14")]
    BadDate(String),
    /// A number of pixels that is none.
    #[error("`{0}` is no size: write a number of pixels: 4000, >4000, >=4000, <4000 or <=4000")]
    BadSize(String),
    /// A format that is not read.
    #[error("`{0}` is no format that is read: write jpeg, png, gif, webp, tiff or bmp")]
    BadType(String),
    /// An orientation that is none.
    #[error("`{0}` is no orientation: write portrait, landscape or square")]
    BadOrientation(String),
    /// A place that is none.
    #[error(
        "`{0}` is no place: write latitude, longitude and distance without spaces, such as \
         51.5,-0.12,5km (degrees, south and west negative; m, km or mi)"
    )]
    BadPlace(String),
    /// A plus before what is no photo.
    #[error(
        "`+` adds a photo, and `{0}` has no photo's extension (to look for the word itself, put \
         it in quotes, without the plus)"
    )]
    NotAPhoto(String),
    /// A photo that is nowhere.
    #[error(
        "there is no photo `{0}` here or in the index (to leave out photos whose caption or path \
         says so, put it in quotes: -\"{0}\")"
    )]
    NoSuchPhoto(String),
    /// A photo where meaning counts nothing.
    #[error(
        "photos of a query are compared by meaning, which is left out here: leave out \
         `--words-only`, or give meaning a weight"
    )]
    PhotoWithoutMeaning,
    /// Something that ranks photos where they are only to be let through or not.
    #[error(
        "this would rank photos, and here only fields may stand, such as path:italy or \
         after:2019 (a word that caption, name or notes must have stands in quotes)"
    )]
    Ranks,
    /// A name that several photos of the index have.
    #[error("several photos are called `{name}`: write more of the path, such as `{example}`")]
    ManyPhotos {
        /// What was written.
        name: String,
        /// End of the path of one of them.
        example: String,
    },
}

impl QueryError {
    /// The query, and below it carets under the place that is wrong: two lines.
    ///
    /// A character counts for one column, a control character is shown as a space.
    pub fn pointer(&self) -> String {
        let columns = |text: &str| text.chars().count();
        let shown: String =
            self.query.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let shown = shown.trim_end();
        let before = columns(&self.query[..self.at.start]);
        let width = columns(&self.query[self.at.clone()]).max(1);
        format!("{shown}\n{}{}", " ".repeat(before), "^".repeat(width))
    }
}
