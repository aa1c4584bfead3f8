//! Writing a query as it reads.

use std::fmt;

use tinyfind_index::Term;

use super::values::ORIENTATIONS;
use super::{Alternative, Part, Query, What, field_name, is_photo_name, is_quote};

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, alternative) in self.alternatives.iter().enumerate() {
            if i > 0 {
                f.write_str(" OR ")?;
            }
            alternative.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Alternative {
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
        if let What::Image(name) = &self.what {
            return write_image(f, self.exclude, name);
        }
        if self.exclude {
            f.write_str("-")?;
        }
        match &self.what {
            What::Word(word) => f.write_str(word),
            What::Quoted(words) => write_quoted(f, words),
            What::Image(name) => write_field(f, "image", name),
            What::Path(value) => write_field(f, "path", value),
            What::Name(value) => write_field(f, "name", value),
            What::Camera(value) => write_field(f, "camera", value),
            What::Lens(value) => write_field(f, "lens", value),
            What::Caption(Term::Word(word)) => write!(f, "caption:{word}"),
            What::Caption(Term::Phrase(words)) => {
                f.write_str("caption:")?;
                write_quoted(f, words)
            }
            What::Type(format) => write!(f, "type:{}", format.name()),
            What::Width(size) => write!(f, "width:{size}"),
            What::Height(size) => write!(f, "height:{size}"),
            What::Orientation(orientation) => {
                let known = ORIENTATIONS.iter().find(|(_, it)| it == orientation);
                write!(f, "orientation:{}", known.map_or("square", |(name, _)| name))
            }
            What::Near(near) => write!(f, "near:{near}"),
            What::After(period) => write!(f, "after:{period}"),
            What::Before(period) => write!(f, "before:{period}"),
            What::On(period) => write!(f, "on:{period}"),
        }
    }
}

/// A photo in the short form where that reads as one.
fn write_image(f: &mut fmt::Formatter<'_>, exclude: bool, name: &str) -> fmt::Result {
    let is_plain = is_photo_name(name) && !needs_quotes(name) && field_name(name).is_none();
    match (exclude, is_plain) {
        (true, true) => write!(f, "-{name}"),
        (false, true) => write!(f, "+{name}"),
        (false, false) => {
            f.write_str("+")?;
            write_quoted(f, name)
        }
        (true, false) => {
            f.write_str("-")?;
            write_field(f, "image", name)
        }
    }
}

fn write_field(f: &mut fmt::Formatter<'_>, name: &str, value: &str) -> fmt::Result {
    write!(f, "{name}:")?;
    if needs_quotes(value) { write_quoted(f, value) } else { f.write_str(value) }
}

fn needs_quotes(value: &str) -> bool {
    value.contains(|c: char| c.is_whitespace() || is_quote(c))
}

/// `words` in the quotes that it does not hold: no quoted text holds both kinds.
fn write_quoted(f: &mut fmt::Formatter<'_>, words: &str) -> fmt::Result {
    if words.contains('"') {
        write!(f, "\u{201c}{words}\u{201d}")
    } else {
        write!(f, "\"{words}\"")
    }
}
