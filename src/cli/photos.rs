//! Photos that a command line names: by path, by paths on stdin, or by their rank in the last
//! search.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind::NotFound;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tinyfind_index::{IndexReader, OpenError};

use super::globals::Globals;
use super::last_search::{LastSearch, Remembered};
use super::printer::Printer;
use super::report::hinted;
use super::{folders, open};
use crate::ask::{Photo, Subject, open_photos};
use crate::decode::DecodeError;
use crate::vlm::Vlm;

/// A photo as a person named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// Rank in the last search, or place on the command line, from 1.
    pub(crate) rank: usize,
    /// The path to show.
    pub(crate) shown: PathBuf,
    subject: Subject,
}

impl From<Remembered> for Named {
    fn from(hit: Remembered) -> Self {
        let subject = Subject { seen: Some((hit.doc, hit.hash)), path: hit.path.clone() };
        Self { rank: hit.rank, shown: hit.path, subject }
    }
}

impl Named {
    /// The file at `path`, the `rank`th that was named.
    pub(crate) fn file(rank: usize, path: PathBuf) -> Self {
        // A folder that is not there any more may still be in the index.
        let crawled = folders::as_crawled(&path).unwrap_or_else(|_| path.clone());
        Self { rank, shown: path, subject: Subject { seen: None, path: crawled } }
    }

    /// Hit `word` of the last search, if it is a number, else the file `word`; and the folder of
    /// the index that may hold it: that which was searched, else `index`.
    pub(crate) fn hit_or_file(word: &OsStr, index: &Path) -> anyhow::Result<(Self, PathBuf)> {
        let Some(rank) = rank(word) else {
            return Ok((Self::file(1, word.into()), index.to_owned()));
        };
        let last = LastSearch::load()?;
        Ok((last.hit(rank)?.into(), last.index()))
    }

    /// What to look for.
    pub(crate) fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The files at `paths`; `-` stands for the paths on stdin, one a line, or each ended by a
    /// NUL byte if there is one.
    pub(crate) fn files(paths: &[PathBuf]) -> anyhow::Result<Vec<Self>> {
        let mut all: Vec<PathBuf> = Vec::new();
        for path in paths {
            if path == Path::new("-") {
                all.extend(paths_on_stdin()?);
            } else {
                all.push(path.clone());
            }
        }
        Ok((1..).zip(all).map(|(rank, path)| Self::file(rank, path)).collect())
    }
}

/// The rank that a word of digits only means.
fn rank(word: &OsStr) -> Option<usize> {
    let word = word.to_str()?;
    word.bytes().all(|byte| byte.is_ascii_digit()).then(|| word.parse().ok())?
}

fn paths_on_stdin() -> anyhow::Result<Vec<PathBuf>> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).context("cannot read paths from stdin")?;
    Ok(split_paths(&bytes))
}

/// Paths ended by NUL if there is any, else by line ends.
fn split_paths(bytes: &[u8]) -> Vec<PathBuf> {
    let end = if bytes.contains(&0) { 0 } else { b'\n' };
    let paths = bytes.split(|byte| *byte == end).filter(|path| !path.is_empty());
    paths.map(|path| OsString::from_vec(path.to_vec()).into()).collect()
}

/// The model, and the photos that could be opened with it.
pub(crate) struct Opened {
    pub(crate) vlm: Box<dyn Vlm>,
    pub(crate) photos: Vec<(Named, Photo)>,
    /// How many could not; the reasons have been printed.
    pub(crate) failed: usize,
}

/// Opens the photos, with the model of the index in `index` if that exists.
pub(crate) fn open_all(
    named: Vec<Named>,
    index: &Path,
    globals: &Globals,
    printer: &mut Printer,
) -> anyhow::Result<Opened> {
    let reader = match IndexReader::open(index) {
        Ok(reader) => Some(reader),
        Err(OpenError::Missing { .. }) => None,
        Err(error) => return Err(open::explain_open(error)),
    };
    let mut vlm = open::open_model(globals, reader.as_ref().map(IndexReader::spec), printer)?;
    let subjects: Vec<Subject> = named.iter().map(|it| it.subject.clone()).collect();
    let mut opened = Vec::with_capacity(named.len());
    let mut failed = 0;
    for (named, photo) in named.into_iter().zip(open_photos(reader.as_ref(), &mut *vlm, &subjects)?)
    {
        match photo {
            Ok(photo) => opened.push((named, photo)),
            Err(error) => {
                failed += 1;
                printer.error(&explain(&named, &error));
            }
        }
    }
    Ok(Opened { vlm, photos: opened, failed })
}

/// Why a photo could not be opened, and what to do about a hit that is gone.
fn explain(named: &Named, error: &DecodeError) -> anyhow::Error {
    let shown = named.shown.display();
    let is_gone = matches!(error, DecodeError::Io { source } if source.kind() == NotFound);
    if is_gone && named.subject.seen.is_some() {
        return gone(&named.shown);
    }
    anyhow::anyhow!("`{shown}` {}", error.reason())
}

/// That a hit of the last search is nowhere any more.
pub(crate) fn gone(shown: &Path) -> anyhow::Error {
    hinted(
        anyhow::anyhow!("`{}` is gone, and the index does not hold it any more", shown.display()),
        "search again: the hits are those of an earlier index",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_alone_are_a_rank() {
        assert_eq!(rank("2".as_ref()), Some(2));
        assert_eq!(rank("./2".as_ref()), None);
        assert_eq!(rank("2.jpg".as_ref()), None);
        assert_eq!(rank("".as_ref()), None);
        assert_eq!(rank("99999999999999999999999".as_ref()), None);
    }

    #[test]
    fn paths_are_split_at_line_ends_or_at_nul() {
        let paths = |bytes: &[u8]| -> Vec<String> {
            split_paths(bytes).iter().map(|path| path.display().to_string()).collect()
        };
        assert_eq!(paths(b"a b\nc\n"), ["a b", "c"]);
        assert_eq!(paths(b"a\nb\0c\0"), ["a\nb", "c"]);
        assert!(paths(b"").is_empty());
    }
}
