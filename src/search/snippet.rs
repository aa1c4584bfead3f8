//! Where the words of a query stand in what people wrote into a photo.

use std::ops::Range;

use tinyfind_index::{IndexReader, PhotoMetadata, Term};

/// The longest snippet, in bytes about; a longer text is cut to what stands around the first
/// word that was found.
const LONGEST: usize = 160;
/// How much of it stands before that word, in bytes about.
const BEFORE: usize = 50;
/// Stands where something was cut off.
const CUT: &str = "…";

/// Which text of a photo a snippet was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NoteKind {
    /// Its title.
    Title,
    /// Its description.
    Description,
    /// One of its keywords.
    Keyword,
    /// The name of the place.
    Place,
}

/// A piece of what people wrote into a photo, with words of the query in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snippet {
    /// Where it stands.
    pub from: NoteKind,
    /// The text, or the part of it around the first of the words.
    pub text: String,
    /// Byte ranges of the words in it, ascending, disjoint.
    pub highlights: Vec<Range<usize>>,
}

/// The snippets of a photo: one for each text that holds one of `terms`.
pub(super) fn snippets(
    reader: &IndexReader,
    terms: &[Term],
    metadata: &PhotoMetadata,
) -> Vec<Snippet> {
    let PhotoMetadata { title, description, keywords, place, .. } = metadata;
    let texts = title.iter().map(|text| (NoteKind::Title, text));
    let texts = texts
        .chain(description.iter().map(|text| (NoteKind::Description, text)))
        .chain(keywords.iter().map(|text| (NoteKind::Keyword, text)))
        .chain(place.iter().map(|text| (NoteKind::Place, text)));
    texts
        .filter_map(|(from, text)| {
            let (text, highlights) = cut(text, &reader.highlight(terms, text))?;
            Some(Snippet { from, text, highlights })
        })
        .collect()
}

/// The part of `text` around the first of `found`, with what of them lies in it; none where
/// nothing was found.
fn cut(text: &str, found: &[Range<usize>]) -> Option<(String, Vec<Range<usize>>)> {
    let first = found.first()?;
    if text.len() <= LONGEST {
        return Some((text.to_owned(), found.to_vec()));
    }
    // From the beginning of a word on, to the end of one.
    let near = floor(text, first.start.saturating_sub(BEFORE));
    let start = match near {
        0 => 0,
        _ => text[near..first.start].find(' ').map_or(first.start, |space| near + space + 1),
    };
    let far = floor(text, start + LONGEST);
    let end = match text[start..far].rfind(' ') {
        Some(space) if far < text.len() => start + space,
        _ => far,
    };
    let end = end.max(first.end);
    let before = if start > 0 { CUT } else { "" };
    let after = if end < text.len() { CUT } else { "" };
    let moved = |range: &Range<usize>| {
        let shift = |at: usize| at - start + before.len();
        shift(range.start)..shift(range.end)
    };
    let inside = found.iter().filter(|range| range.end <= end).map(moved).collect();
    Some((format!("{before}{}{after}", &text[start..end]), inside))
}

/// The last border between characters of `text` up to the byte `at`.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_long_text_is_cut_to_words_around_the_first_match() {
        let text = format!("{}the red boat {}", "many words ".repeat(30), "go on ".repeat(40));
        let at = text.find("boat").unwrap();
        let (snippet, marked) = cut(&text, from_ref(&(at..at + 4))).unwrap();
        assert!(snippet.starts_with("…") && snippet.ends_with("…"), "{snippet}");
        assert!(snippet.contains("words the red boat go on"), "{snippet}");
        assert_eq!(&snippet[marked[0].clone()], "boat");
        assert!(snippet.len() <= LONGEST + 2 * CUT.len());
        let (snippet, marked) = cut("the boat", from_ref(&(4..8))).unwrap();
        assert_eq!((&*snippet, marked[0].clone()), ("the boat", 4..8));
        assert_eq!(cut("the boat", &[]), None);
    }

    proptest! {
        #[test]
        fn ranges_of_a_snippet_hold_what_was_found(
            text in "[aé ]{0,600}", at in 0_usize..600, length in 1_usize..300,
        ) {
            let start = floor(&text, at);
            let end = floor(&text, start + length);
            prop_assume!(start < end);
            let (snippet, marked) = cut(&text, &[start..end, text.len()..text.len()]).unwrap();
            prop_assert_eq!(&snippet[marked[0].clone()], &text[start..end]);
        }
    }
}
