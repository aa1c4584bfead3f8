//! One's own pictures and words to learn from.
//!
//! Three layouts are read, told apart by what they hold:
//!
//! | layout | holds |
//! |---|---|
//! | [`Layout::Lines`] | JSONL: `{"image", "caption"}` or `{"image", "question", "answer"}` a line |
//! | [`Layout::Align`] | MiniGPT-4's `cc_sbu_align`: `{"annotations": [{"image_id", "caption"}]}` beside a folder `image/` of `ID.jpg` |
//! | [`Layout::List`] | `LLaVA`: a JSON list of `{"image", "conversations": [{"from": "human" or "gpt", "value"}]}` |
//!
//! Each of the three kinds of record is understood in lines and in lists. Files come from many
//! hands, so a record that cannot be learned from is named and left out, and only a file without
//! a single good one is an error.

mod layout;
mod record;
mod split;

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

pub use split::{hold_out, order};

/// Why a file gives nothing to learn from.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// That file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file as a whole is in none of the layouts.
    #[error("`{}` is no data that can be learned from: {what}", path.display())]
    Layout {
        /// That file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Every record is bad.
    #[error("all {count} records of `{}` are bad; {first}", path.display())]
    AllBad {
        /// The file.
        path: PathBuf,
        /// How many there are.
        count: usize,
        /// The first of them and what is wrong with it.
        first: Bad,
    },
    /// There is no record.
    #[error("`{}` holds no records", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The word is no layout.
    #[error("`{0}` is no layout of data: use jsonl, align or llava")]
    Unknown(String),
}

/// How records lie in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A JSON object a line.
    Lines,
    /// MiniGPT-4's `filter_cap.json` beside a folder `image/`.
    Align,
    /// A JSON list of objects, as `LLaVA` has it.
    List,
}

impl Layout {
    /// The word that a person writes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lines => "jsonl",
            Self::Align => "align",
            Self::List => "llava",
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Layout {
    type Err = DataError;

    fn from_str(word: &str) -> Result<Self, DataError> {
        [Self::Lines, Self::Align, Self::List]
            .into_iter()
            .find(|layout| layout.name() == word)
            .ok_or_else(|| DataError::Unknown(word.to_owned()))
    }
}

/// Where a record stands in its file, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A line.
    Line(usize),
    /// An entry of a list.
    Entry(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(at) => write!(f, "line {at}"),
            Self::Entry(at) => write!(f, "record {at}"),
        }
    }
}

/// One thing to say about a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// What is asked; `None` for a caption.
    pub question: Option<String>,
    /// What is to be said.
    pub answer: String,
}

/// A picture and what is said about it: one exchange, or a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it stands.
    pub place: Place,
    /// The picture, an existing file.
    pub image: PathBuf,
    /// What is said, in its order; never nothing.
    pub exchanges: Vec<Exchange>,
}

/// A record that is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bad {
    /// Where it stands.
    pub place: Place,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.reason)
    }
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// The file that was read: for a folder in MiniGPT-4's layout the one within it.
    pub path: PathBuf,
    /// How it is laid out.
    pub layout: Layout,
    /// Its length in bytes.
    pub size: u64,
    /// Its blake3 hash in hexadecimal.
    pub blake3: String,
    /// The records that can be learned from, in the order of the file.
    pub records: Vec<Record>,
    /// The records that are left out, in the order of the file.
    pub bad: Vec<Bad>,
}

impl Data {
    /// Reads `path`: a file, or a folder in MiniGPT-4's layout. The layout is told by the content
    /// where `layout` does not say it. Paths of pictures are relative to `images` where it is
    /// given, else to the file (in MiniGPT-4's layout to its folder `image/`).
    ///
    /// Pictures must exist; whether they can be decoded is found out later.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is in no known layout, or holds no good record.
    pub fn read(
        path: &Path,
        layout: Option<Layout>,
        images: Option<&Path>,
    ) -> Result<Self, DataError> {
        let path = if path.is_dir() { path.join("filter_cap.json") } else { path.to_owned() };
        let bytes =
            std::fs::read(&path).map_err(|source| DataError::Io { path: path.clone(), source })?;
        let (size, blake3) = (bytes.len() as u64, blake3::hash(&bytes).to_hex().to_string());
        let found = layout::parse(bytes, layout)
            .map_err(|what| DataError::Layout { path: path.clone(), what })?;
        let beside = path.parent().unwrap_or(Path::new(""));
        let folder = match (images, found.layout) {
            (Some(images), _) => images.to_owned(),
            (None, Layout::Align) => beside.join("image"),
            (None, _) => beside.to_owned(),
        };
        let (mut records, mut bad) = (Vec::new(), Vec::new());
        for (place, item) in found.items {
            let parsed = item.and_then(|item| record::read(&item, &folder, found.layout));
            match parsed {
                Ok(parsed) => records.extend(parsed.into_iter().map(|(image, exchanges)| Record {
                    place,
                    image,
                    exchanges,
                })),
                Err(reason) => bad.push(Bad { place, reason }),
            }
        }
        if records.is_empty() {
            let count = bad.len();
            return Err(match bad.into_iter().next() {
                Some(first) => DataError::AllBad { path, count, first },
                None => DataError::Empty { path },
            });
        }
        Ok(Self { path, layout: found.layout, size, blake3, records, bad })
    }

    /// Exchanges of all records.
    pub fn exchanges(&self) -> usize {
        self.records.iter().map(|record| record.exchanges.len()).sum()
    }
}

#[cfg(test)]
mod tests;
