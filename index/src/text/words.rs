//! How text becomes words, the same for captions, paths and queries.
//!
//! A word is a run of letters or a run of digits, lower-case and without accents, so that
//! `IMG_2019Paris.jpg` is `img 2019 paris jpg`. Scripts that write no spaces give one word a
//! character, and a query of several such characters is looked for as a phrase.

use std::ops::Range;

use tantivy::tokenizer::{
    AsciiFoldingFilter, Language, LowerCaser, Stemmer, TextAnalyzer, Token, TokenStream, Tokenizer,
};

use crate::query::Term;

/// Splits a text into words; see the module.
#[derive(Debug, Clone, Copy, Default)]
struct WordTokenizer;

/// Words found so far ahead of time: captions and paths are short.
#[derive(Debug)]
struct WordStream {
    words: std::vec::IntoIter<Token>,
    token: Token,
}

impl Tokenizer for WordTokenizer {
    type TokenStream<'a> = WordStream;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> Self::TokenStream<'a> {
        WordStream { words: split(text).into_iter(), token: Token::default() }
    }
}

impl TokenStream for WordStream {
    fn advance(&mut self) -> bool {
        let next = self.words.next();
        next.map(|token| self.token = token).is_some()
    }

    fn token(&self) -> &Token {
        &self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        &mut self.token
    }
}

/// What a character is to a word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Digit,
    /// A word of its own.
    Whole,
    /// A combining accent: part of the word, but not written down.
    Accent,
    Gap,
}

impl Class {
    fn of(c: char) -> Self {
        match u32::from(c) {
            0x0300..=0x036F => Self::Accent,
            // Kana, then CJK ideographs with their extensions and compatibility forms.
            0x3040..=0x30FF
            | 0x3400..=0x4DBF
            | 0x4E00..=0x9FFF
            | 0xF900..=0xFAFF
            | 0x20000..=0x3FFFF => Self::Whole,
            _ if c.is_numeric() => Self::Digit,
            _ if c.is_alphabetic() => Self::Letter,
            _ => Self::Gap,
        }
    }
}

fn split(text: &str) -> Vec<Token> {
    let mut words: Vec<Token> = Vec::new();
    // The class of the word being read; `Gap` where there is none.
    let mut current = Class::Gap;
    for (at, c) in text.char_indices() {
        let end = at + c.len_utf8();
        let class = Class::of(c);
        match (class, words.last_mut()) {
            (Class::Gap, _) => current = Class::Gap,
            (Class::Accent, Some(word)) if current != Class::Gap => word.offset_to = end,
            (Class::Accent, _) => {}
            (_, Some(word)) if class == current && class != Class::Whole => {
                word.offset_to = end;
                word.text.push(c);
            }
            _ => {
                words.push(Token {
                    offset_from: at,
                    offset_to: end,
                    position: words.len(),
                    text: c.to_string(),
                    position_length: 1,
                });
                current = class;
            }
        }
    }
    words
}

/// Words as they stand: lower-case, without accents.
pub(super) fn exact_analyzer() -> TextAnalyzer {
    TextAnalyzer::builder(WordTokenizer).filter(LowerCaser).filter(AsciiFoldingFilter).build()
}

/// [`exact_analyzer`], then the English stem of each word.
pub(super) fn stem_analyzer() -> TextAnalyzer {
    TextAnalyzer::builder(WordTokenizer)
        .filter(LowerCaser)
        .filter(AsciiFoldingFilter)
        .filter(Stemmer::new(Language::English))
        .build()
}

/// The words of `text` with their byte ranges.
fn analyze(mut analyzer: TextAnalyzer, text: &str) -> Vec<(Range<usize>, String)> {
    let mut words = Vec::new();
    let mut stream = analyzer.token_stream(text);
    stream.process(&mut |token| {
        words.push((token.offset_from..token.offset_to, token.text.clone()));
    });
    words
}

/// The words of `text` as they stand.
pub(super) fn exact_words(text: &str) -> Vec<String> {
    analyze(exact_analyzer(), text).into_iter().map(|(_, word)| word).collect()
}

/// The stems of the words of `text`.
pub(super) fn stems(text: &str) -> Vec<String> {
    analyze(stem_analyzer(), text).into_iter().map(|(_, word)| word).collect()
}

/// Byte ranges of `text` that match one of `terms`, ascending and disjoint.
pub(super) fn highlight(terms: &[Term], text: &str) -> Vec<Range<usize>> {
    let exact = analyze(exact_analyzer(), text);
    let stemmed = analyze(stem_analyzer(), text);
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for term in terms {
        let (wanted, words) = match term {
            Term::Word(word) => (stems(word), &stemmed),
            Term::Phrase(phrase) => (exact_words(phrase), &exact),
        };
        if wanted.is_empty() {
            continue;
        }
        for window in words.windows(wanted.len()) {
            if window.iter().map(|(_, word)| word).eq(&wanted) {
                ranges.push(window[0].0.start..window[window.len() - 1].0.end);
            }
        }
    }
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    let mut disjoint: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match disjoint.last_mut() {
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            _ => disjoint.push(range),
        }
    }
    disjoint
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_fall_into_words() {
        assert_eq!(exact_words("/x/IMG_2019Paris.JPG"), ["x", "img", "2019", "paris", "jpg"]);
    }

    #[test]
    fn accents_do_not_count_however_they_are_written() {
        assert_eq!(exact_words("Zürich café"), ["zurich", "cafe"]);
        assert_eq!(exact_words("Zu\u{308}rich cafe\u{301}"), ["zurich", "cafe"]);
    }

    #[test]
    fn a_script_without_spaces_gives_a_word_a_character() {
        assert_eq!(exact_words("東京2020"), ["東", "京", "2020"]);
    }

    #[test]
    fn forms_of_a_word_share_a_stem() {
        assert_eq!(stems("Running runs"), ["run", "run"]);
    }

    #[test]
    fn highlight_marks_forms_of_words_and_exact_phrases() {
        let text = "A dog runs on the sandy beach, dogs everywhere";
        let marked = |terms: &[Term]| -> Vec<&str> {
            highlight(terms, text).into_iter().map(|range| &text[range]).collect()
        };
        assert_eq!(marked(&[Term::Word("DOG".into())]), ["dog", "dogs"]);
        assert_eq!(marked(&[Term::Phrase("dog".into())]), ["dog"]);
        assert_eq!(marked(&[Term::Phrase("sandy beach".into())]), ["sandy beach"]);
        assert_eq!(marked(&[Term::Phrase("beach sandy".into())]), [""; 0]);
        assert_eq!(
            marked(&[Term::Word("beach".into()), Term::Phrase("the sandy beach".into())]),
            ["the sandy beach"]
        );
        assert_eq!(marked(&[Term::Word("?!".into())]), [""; 0]);
    }

    #[test]
    fn ranges_of_highlight_lie_on_characters() {
        let text = "İstanbul e\u{301}té 東京";
        for word in ["istanbul", "ete", "東京", "京"] {
            for range in highlight(&[Term::Word(word.into())], text) {
                assert!(text.get(range).is_some());
            }
        }
        let ete = highlight(&[Term::Word("été".into())], text);
        assert_eq!(&text[ete[0].clone()], "e\u{301}té");
    }
}
