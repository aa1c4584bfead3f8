//! Reading a query.

use std::ops::Range;
use std::path::Path;

use tinyfind_index::Term;

use super::values::{Near, ORIENTATIONS, Size};
use super::{
    Alternative, FIELDS, Part, Period, Problem, Query, QueryError, What, field_name, is_photo_name,
    is_quote,
};
use crate::decode::by_extension;

/// What stands between two alternatives.
const OR: &str = "OR";

impl std::str::FromStr for Query {
    type Err = QueryError;

    fn from_str(text: &str) -> Result<Self, QueryError> {
        read(text, false)
    }
}

/// Reads a query, which `may_only_exclude`, or has to look for something.
pub(super) fn read(text: &str, may_only_exclude: bool) -> Result<Query, QueryError> {
    let mut parser = Parser { text, at: 0, may_only_exclude };
    let mut alternatives = Vec::new();
    let mut parts = Vec::new();
    let mut last_or = None;
    loop {
        parser.skip_space();
        let start = parser.at;
        if parser.takes_or() {
            let or = start..parser.at;
            if parts.is_empty() {
                return parser.error(or, Problem::NothingBesideOr);
            }
            alternatives.push(parser.alternative(std::mem::take(&mut parts))?);
            last_or = Some(or);
        } else if parser.rest().is_empty() {
            break;
        } else {
            parts.push(parser.part()?);
        }
    }
    match last_or {
        Some(or) if parts.is_empty() => return parser.error(or, Problem::NothingBesideOr),
        None if parts.is_empty() => {
            let end = text.trim_end().len();
            return parser.error(end..end, Problem::Empty);
        }
        _ => alternatives.push(parser.alternative(parts)?),
    }
    Ok(Query { text: text.to_owned(), alternatives })
}

/// The character that closes a quote opened by `open`, if `open` opens one.
fn closing(open: char) -> Option<char> {
    match open {
        '"' => Some('"'),
        '\u{201c}' | '\u{201d}' => Some('\u{201d}'),
        _ => None,
    }
}

struct Parser<'a> {
    text: &'a str,
    /// Bytes read so far.
    at: usize,
    /// Whether an alternative may have nothing that it looks for.
    may_only_exclude: bool,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn error<T>(&self, at: Range<usize>, problem: Problem) -> Result<T, QueryError> {
        Err(QueryError { query: self.text.to_owned(), at, problem })
    }

    fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// Reads `OR`, if it comes next as a word.
    fn takes_or(&mut self) -> bool {
        let behind = self.rest().strip_prefix(OR);
        let is_or = behind.is_some_and(|it| it.is_empty() || it.starts_with(char::is_whitespace));
        self.at += if is_or { OR.len() } else { 0 };
        is_or
    }

    /// `parts`, of which there must be one, as an alternative.
    fn alternative(&self, parts: Vec<Part>) -> Result<Alternative, QueryError> {
        if !self.may_only_exclude && parts.iter().all(|part| part.exclude) {
            let start = parts.first().map_or(0, |part| part.at.start);
            let end = parts.last().map_or(start, |part| part.at.end);
            return self.error(start..end, Problem::OnlyExclusions);
        }
        Ok(Alternative { parts })
    }

    fn part(&mut self) -> Result<Part, QueryError> {
        let start = self.at;
        // A sign that stands alone is a word.
        let is_sign = |rest: &str| !rest.is_empty() && !rest.starts_with(char::is_whitespace);
        let exclude = self.rest().strip_prefix('-').is_some_and(is_sign);
        let add = self.rest().strip_prefix('+').is_some_and(is_sign);
        self.at += usize::from(exclude || add);
        let what = if add { self.added_photo()? } else { self.what(exclude)? };
        Ok(Part { exclude, what, at: start..self.at })
    }

    /// The photo behind a plus.
    fn added_photo(&mut self) -> Result<What, QueryError> {
        if let Some(quoted) = self.quoted()? {
            return Ok(What::Image(quoted));
        }
        let start = self.at;
        let name = self.word()?;
        if is_photo_name(&name) {
            return Ok(What::Image(name));
        }
        self.error(start - 1..self.at, Problem::NotAPhoto(name))
    }

    fn what(&mut self, exclude: bool) -> Result<What, QueryError> {
        if let Some(quoted) = self.quoted()? {
            return Ok(What::Quoted(quoted));
        }
        let start = self.at;
        if let Some(name) = field_name(self.rest()) {
            self.at += name.len() + 1;
            return self.field(start, name);
        }
        let word = self.word()?;
        Ok(if exclude && is_photo_name(&word) { What::Image(word) } else { What::Word(word) })
    }

    /// The field `name`, which begins at `start`; its value comes next.
    fn field(&mut self, start: usize, name: &str) -> Result<What, QueryError> {
        let lower = name.to_ascii_lowercase();
        let Some(field) = FIELDS.into_iter().find(|known| *known == lower) else {
            let problem = Problem::UnknownField(name.to_owned());
            return self.error(start..start + name.len(), problem);
        };
        let value_start = self.at;
        let quoted = self.quoted()?;
        let is_quoted = quoted.is_some();
        let value = match quoted {
            Some(quoted) => quoted,
            None => self.word()?,
        };
        if value.is_empty() {
            return self.error(value_start..value_start, Problem::NoValue(field));
        }
        let what = match field {
            "path" => Ok(What::Path(value)),
            "name" => Ok(What::Name(value)),
            "image" => Ok(What::Image(value)),
            "camera" => Ok(What::Camera(value)),
            "lens" => Ok(What::Lens(value)),
            "caption" if is_quoted => Ok(What::Caption(Term::Phrase(value))),
            "caption" => Ok(What::Caption(Term::Word(value))),
            "type" => format(&value),
            "width" => Size::parse(&value).map(What::Width).ok_or(Problem::BadSize(value)),
            "height" => Size::parse(&value).map(What::Height).ok_or(Problem::BadSize(value)),
            "orientation" => ORIENTATIONS
                .into_iter()
                .find(|(name, _)| value.eq_ignore_ascii_case(name))
                .map(|(_, orientation)| What::Orientation(orientation))
                .ok_or(Problem::BadOrientation(value)),
            "near" => Near::parse(&value).map(What::Near).ok_or(Problem::BadPlace(value)),
            "after" => Period::parse(&value).map(What::After).ok_or(Problem::BadDate(value)),
            "before" => Period::parse(&value).map(What::Before).ok_or(Problem::BadDate(value)),
            _ => Period::parse(&value).map(What::On).ok_or(Problem::BadDate(value)),
        };
        what.or_else(|problem| self.error(value_start..self.at, problem))
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

/// The format whose files have the extension `value`.
fn format(value: &str) -> Result<What, Problem> {
    let is_extension = value.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let name = format!("photo.{value}");
    match by_extension(Path::new(&name)).filter(|_| is_extension) {
        Some(Ok(format)) => Ok(What::Type(format)),
        _ => Err(Problem::BadType(value.to_owned())),
    }
}
