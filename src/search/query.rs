//! The query language: what a person types, read into words, quoted words, exclusions and fields.
//!
//! ```text
//! query   = part (space part)*
//! part    = ["-"] (field | quoted | word)        "-" excludes what follows it
//! field   = name ":" (quoted | value)            name: path camera after before on date
//! quoted  = '"' anything but '"' '"'             typographic quotes work too
//! word    = any other run without spaces
//! ```
//!
//! A word may hold a colon (`10:30`, `https://example.org`). But letters, a colon and letters
//! or digits (`lens:50mm`) are read as a field, and an unknown one is an error that names
//! the known fields: a mistyped filter that silently became a word would find the wrong photos.
//! In quotes anything is literal.

use std::fmt;
use std::ops::Range;

use tinyfind_index::{Clause, Filter, Term};

use super::period::Period;

/// Names of the fields; `date` is another word for `on`.
const FIELDS: [&str; 6] = ["path", "camera", "after", "before", "on", "date"];

/// What a person looks for, in the order written.
///
/// Printed, it reads as itself: `query.to_string().parse() == Ok(query)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    parts: Vec<Part>,
}

/// One thing a photo must, may or must not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Whether photos that have it are left out.
    pub exclude: bool,
    /// What it is.
    pub what: What,
}

/// What a [`Part`] of a query names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A bare word: meant, or standing in caption or name.
    Word(String),
    /// Quoted words, which must stand in caption or name as they are.
    Quoted(String),
    /// A piece of the path, in any case.
    Path(String),
    /// Words of the camera's name.
    Camera(String),
    /// Taken on that day, month or year, or later.
    After(Period),
    /// Taken before that day, month or year.
    Before(Period),
    /// Taken on that day, or in that month or year.
    On(Period),
}

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
        "there is no field `{0}`; fields are path, camera, after, before, on and date \
         (to look for the words themselves, put them in quotes)"
    )]
    UnknownField(String),
    /// A field with nothing behind its colon.
    #[error("`{0}:` needs a value right behind the colon")]
    NoValue(&'static str),
    /// A date that is none.
    #[error("`{0}` is no date: write 2019, 2019-07 or 2019-07-14")]
    BadDate(String),
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

impl std::str::FromStr for Query {
    type Err = QueryError;

    fn from_str(text: &str) -> Result<Self, QueryError> {
        let mut parser = Parser { text, at: 0 };
        let mut parts = Vec::new();
        while let Some(part) = parser.part()? {
            parts.push(part);
        }
        let problem = match parts.iter().all(|part: &Part| part.exclude) {
            false => return Ok(Self { parts }),
            true if parts.is_empty() => Problem::Empty,
            true => Problem::OnlyExclusions,
        };
        let end = text.trim_end().len();
        let start = (text.len() - text.trim_start().len()).min(end);
        Err(QueryError { query: text.to_owned(), at: start..end, problem })
    }
}

impl Query {
    /// Its parts, in the order written; at least one does not exclude.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// What the words say together, for the meaning side: bare and quoted words in the order
    /// written, joined by spaces. `None` where the query holds fields only.
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
        let required = self.wanted().filter(|what| !matches!(what, What::Word(_)));
        let excluded = self.parts.iter().filter(|part| part.exclude).map(|part| &part.what);
        Filter {
            require: required.map(What::clause).collect(),
            exclude: excluded.map(What::clause).collect(),
        }
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

    fn clause(&self) -> Clause {
        match self {
            Self::Word(word) => Clause::Term(Term::Word(word.clone())),
            Self::Quoted(phrase) => Clause::Term(Term::Phrase(phrase.clone())),
            Self::Path(piece) => Clause::Path(piece.clone()),
            Self::Camera(words) => Clause::Camera(words.clone()),
            Self::After(period) => Clause::Taken { from: Some(period.begins()), until: None },
            Self::Before(period) => Clause::Taken { from: None, until: Some(period.begins()) },
            Self::On(period) => {
                Clause::Taken { from: Some(period.begins()), until: Some(period.ends()) }
            }
        }
    }
}

/// The character that closes a quote opened by `open`, if `open` opens one.
fn closing(open: char) -> Option<char> {
    match open {
        '"' => Some('"'),
        '\u{201c}' | '\u{201d}' => Some('\u{201d}'),
        _ => None,
    }
}

fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\u{201c}' | '\u{201d}')
}

struct Parser<'a> {
    text: &'a str,
    /// Bytes read so far.
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn error<T>(&self, at: Range<usize>, problem: Problem) -> Result<T, QueryError> {
        Err(QueryError { query: self.text.to_owned(), at, problem })
    }

    fn part(&mut self) -> Result<Option<Part>, QueryError> {
        self.at += self.rest().len() - self.rest().trim_start().len();
        if self.rest().is_empty() {
            return Ok(None);
        }
        // A dash that stands alone is a dash.
        let excluded = self.rest().strip_prefix('-');
        let exclude =
            excluded.is_some_and(|it| !it.is_empty() && !it.starts_with(char::is_whitespace));
        self.at += usize::from(exclude);
        Ok(Some(Part { exclude, what: self.what()? }))
    }

    fn what(&mut self) -> Result<What, QueryError> {
        if let Some(quoted) = self.quoted()? {
            return Ok(What::Quoted(quoted));
        }
        let start = self.at;
        if let Some(name) = field_name(self.rest()) {
            self.at += name.len() + 1;
            return self.field(start, name);
        }
        Ok(What::Word(self.word()?))
    }

    /// The field `name`, which begins at `start`; its value comes next.
    fn field(&mut self, start: usize, name: &str) -> Result<What, QueryError> {
        let lower = name.to_ascii_lowercase();
        let Some(field) = FIELDS.into_iter().find(|known| *known == lower) else {
            let problem = Problem::UnknownField(name.to_owned());
            return self.error(start..start + name.len(), problem);
        };
        let value_start = self.at;
        let value = match self.quoted()? {
            Some(quoted) => quoted,
            None => self.word()?,
        };
        if value.is_empty() {
            return self.error(value_start..value_start, Problem::NoValue(field));
        }
        Ok(match field {
            "path" => What::Path(value),
            "camera" => What::Camera(value),
            _ => {
                let Some(period) = Period::parse(&value) else {
                    return self.error(value_start..self.at, Problem::BadDate(value));
                };
                match field {
                    "after" => What::After(period),
                    "before" => What::Before(period),
                    _ => What::On(period),
                }
            }
        })
    }

    /// What stands between quotes, if a quote opens here.
    fn quoted(&mut self) -> Result<Option<String>, QueryError> {
        let start = self.at;
        let Some((open, close)) =
            self.rest().chars().next().and_then(|open| Some((open, closing(open)?)))
        else {
            return Ok(None);
        };
        self.at += open.len_utf8();
        let Some(length) = self.rest().find(close) else {
            return self.error(start..self.at, Problem::UnclosedQuote);
        };
        let inside = &self.rest()[..length];
        self.at += length + close.len_utf8();
        if inside.trim().is_empty() {
            return self.error(start..self.at, Problem::EmptyQuotes);
        }
        if self.rest().starts_with(|c: char| !c.is_whitespace()) {
            return self.error(self.at..self.at, Problem::NoSpaceAfterQuote);
        }
        Ok(Some(inside.to_owned()))
    }

    /// Everything up to the next white space; a quote in it is an error.
    fn word(&mut self) -> Result<String, QueryError> {
        let start = self.at;
        let length = self.rest().find(char::is_whitespace).unwrap_or(self.rest().len());
        let word = &self.rest()[..length];
        if let Some((at, quote)) = word.char_indices().find(|(_, c)| is_quote(*c)) {
            let at = start + at;
            return self.error(at..at + quote.len_utf8(), Problem::QuoteInWord);
        }
        self.at += length;
        Ok(word.to_owned())
    }
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

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, part) in self.parts.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            part.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.exclude {
            f.write_str("-")?;
        }
        match &self.what {
            What::Word(word) => f.write_str(word),
            What::Quoted(words) => write_quoted(f, words),
            What::Path(value) => write_field(f, "path", value),
            What::Camera(value) => write_field(f, "camera", value),
            What::After(period) => write!(f, "after:{period}"),
            What::Before(period) => write!(f, "before:{period}"),
            What::On(period) => write!(f, "on:{period}"),
        }
    }
}

fn write_field(f: &mut fmt::Formatter<'_>, name: &str, value: &str) -> fmt::Result {
    write!(f, "{name}:")?;
    if value.contains(|c: char| c.is_whitespace() || is_quote(c)) {
        write_quoted(f, value)
    } else {
        f.write_str(value)
    }
}

/// `words` in the quotes that it does not hold: no quoted text holds both kinds.
fn write_quoted(f: &mut fmt::Formatter<'_>, words: &str) -> fmt::Result {
    if words.contains('"') {
        write!(f, "\u{201c}{words}\u{201d}")
    } else {
        write!(f, "\"{words}\"")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Query {
        text.parse().unwrap()
    }

    fn refused(text: &str) -> String {
        let error = text.parse::<Query>().unwrap_err();
        format!("{error}\n{}", error.pointer())
    }

    /// 2019-01-01 00:00:00, counted by `date -u`.
    const NEW_YEAR_2019: i64 = 1_546_300_800;

    fn taken(text: &str) -> (Option<i64>, Option<i64>) {
        match parse(text).filter().require.as_slice() {
            [Clause::Taken { from, until }] => (*from, *until),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_kind_of_part_is_read() {
        let query =
            parse(r#"red umbrella "Times Square" -night camera:fuji after:2019 -path:"a b""#);
        assert_eq!(query.text().as_deref(), Some("red umbrella Times Square"));
        let word = |text: &str| Term::Word(text.to_owned());
        let phrase = Term::Phrase("Times Square".to_owned());
        assert_eq!(query.terms(), [word("red"), word("umbrella"), phrase.clone()]);
        let filter = query.filter();
        assert_eq!(
            filter.require,
            [
                Clause::Term(phrase),
                Clause::Camera("fuji".to_owned()),
                Clause::Taken { from: Some(NEW_YEAR_2019), until: None },
            ]
        );
        assert_eq!(filter.exclude, [Clause::Term(word("night")), Clause::Path("a b".to_owned())]);
    }

    #[test]
    fn fields_alone_have_no_text() {
        let query = parse("camera:fuji -night");
        assert_eq!(query.text(), None);
        assert!(query.terms().is_empty());
    }

    #[test]
    fn after_and_before_part_the_time_between_them() {
        assert_eq!(taken("after:2019"), (Some(NEW_YEAR_2019), None));
        assert_eq!(taken("before:2019"), (None, Some(NEW_YEAR_2019)));
        assert_eq!(taken("after:2019-01-01").0, taken("before:2019-01").1);
    }

    #[test]
    fn field_names_come_in_any_case() {
        assert_eq!(parse("Camera:X-T3 DATE:2019"), parse("camera:X-T3 on:2019"));
    }

    #[test]
    fn a_colon_alone_makes_no_field() {
        for word in ["10:30", "https://example.org/a?b", "a:b", "std::fs", "so:", ":-)", "16:9"] {
            let parts = parse(word).parts().to_vec();
            assert_eq!(parts, [Part { exclude: false, what: What::Word(word.to_owned()) }]);
        }
    }

    #[test]
    fn a_dash_within_a_word_or_alone_excludes_nothing() {
        let filter = parse("x-ray - t-shirt").filter();
        assert!(filter.exclude.is_empty(), "{filter:?}");
    }

    #[test]
    fn typographic_quotes_are_quotes() {
        assert_eq!(parse("\u{201c}Times Square\u{201d}"), parse("\"Times Square\""));
        assert_eq!(parse("\u{201d}Times Square\u{201d}"), parse("\"Times Square\""));
    }

    #[test]
    fn errors_point_at_their_place() {
        insta::assert_snapshot!(refused(r#"red "Times Square"#), @r#"
        this quote is never closed
        red "Times Square
            ^
        "#);
        insta::assert_snapshot!(refused("tree after:2019-13-01"), @r"
        `2019-13-01` is no date: write 2019, 2019-07 or 2019-07-14
        tree after:2019-13-01
                   ^^^^^^^^^^
        ");
        insta::assert_snapshot!(refused("bäume camra:fuji"), @r"
        there is no field `camra`; fields are path, camera, after, before, on and date (to look for the words themselves, put them in quotes)
        bäume camra:fuji
              ^^^^^
        ");
        insta::assert_snapshot!(refused("tree path: holiday"), @r"
        `path:` needs a value right behind the colon
        tree path: holiday
                  ^
        ");
        insta::assert_snapshot!(refused("-night -path:x "), @r"
        the query only excludes: add a word or a field to look for
        -night -path:x
        ^^^^^^^^^^^^^^
        ");
    }

    #[test]
    fn every_problem_is_found() {
        let problem = |text: &str| text.parse::<Query>().unwrap_err().problem;
        assert_eq!(problem(" \t"), Problem::Empty);
        assert_eq!(problem("a \"\""), Problem::EmptyQuotes);
        assert_eq!(problem("a path:\" \""), Problem::EmptyQuotes);
        assert_eq!(problem("5\" nail"), Problem::QuoteInWord);
        assert_eq!(problem("\"a\"b"), Problem::NoSpaceAfterQuote);
        assert_eq!(problem("camera:\"a"), Problem::UnclosedQuote);
        assert_eq!(problem("-on:"), Problem::NoValue("on"));
        for date in ["19", "2019-7", "2019-02-29", "2019-00", "2019-01-01-01", "+019", "2019-"] {
            let found = problem(&format!("on:{date}"));
            assert_eq!(found, Problem::BadDate(date.to_owned()));
        }
    }

    proptest! {
        #[test]
        fn a_query_printed_reads_as_itself(text in r#"([-:" a\u{201c}\u{201d}]|path|on|2019|-0|ü){0,12}"#) {
            if let Ok(query) = text.parse::<Query>() {
                prop_assert_eq!(query.to_string().parse::<Query>(), Ok(query));
            }
        }

        #[test]
        fn any_text_is_read_or_refused_at_a_place_in_it(text in any::<String>()) {
            if let Err(error) = text.parse::<Query>() {
                prop_assert!(text.get(error.at.clone()).is_some());
                prop_assert_eq!(error.pointer().lines().count(), 2);
            }
        }
    }
}
