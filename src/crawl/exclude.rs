//! Patterns of paths to leave out.

use std::path::{Path, PathBuf};

/// A pattern that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("exclude pattern `{pattern}`: {problem}")]
pub struct PatternError {
    /// The pattern as given.
    pub pattern: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// One pattern of `--exclude`, matched against a file or folder; what matches is left out,
/// with everything in it.
///
/// - `Screenshots`, `*.gif`, `IMG_00??.jpg`: a name, anywhere. `*` and `?` stand for any
///   characters and any one character of a name, `[abc]`, `[a-z]` and `[!a-z]` for one of some.
/// - `2019/*/raw`: names one below the other, anywhere. `**` stands for any folders.
/// - `/home/ada/Pictures/private`: one path from the root on, or all that match from there.
///
/// Letters must match in their case.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// Parts of the path, the root left out.
    parts: Vec<Part>,
    /// Whether the first part must be the first below the root.
    from_root: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// `**`: any number of folders, none too.
    Folders,
    /// One name.
    Name(Vec<Token>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Char(char),
    AnyChar,
    AnyChars,
    OneOf { ranges: Vec<(char, char)>, negated: bool },
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// When it is empty or a bracket is not closed.
    pub fn new(pattern: &str) -> Result<Self, PatternError> {
        let error = |problem| PatternError { pattern: pattern.into(), problem };
        let names = pattern.split('/').filter(|name| !name.is_empty() && *name != ".");
        let parts: Vec<Part> = names
            .map(|name| {
                if name == "**" {
                    return Ok(Part::Folders);
                }
                tokens(name).map(Part::Name).ok_or_else(|| error("a `[` without its `]`"))
            })
            .collect::<Result<_, _>>()?;
        if parts.iter().all(|part| *part == Part::Folders) {
            return Err(error("it names nothing"));
        }
        Ok(Self { parts, from_root: pattern.starts_with('/') })
    }

    /// Whether the pattern matches `path` itself. Folders above it are not looked at: the
    /// crawl does not enter a folder that matches.
    pub fn matches(&self, path: &Path) -> bool {
        let names: Vec<Vec<char>> =
            relative(path).iter().map(|name| name.to_string_lossy().chars().collect()).collect();
        if self.from_root {
            return match_parts(&self.parts, &names);
        }
        (0..names.len()).any(|start| match_parts(&self.parts, &names[start..]))
    }
}

/// The path without its root.
fn relative(path: &Path) -> PathBuf {
    path.components().filter(|part| matches!(part, std::path::Component::Normal(_))).collect()
}

/// The tokens of one name, or `None` where a bracket is not closed.
fn tokens(name: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' => Token::AnyChars,
            '?' => Token::AnyChar,
            '[' => one_of(&mut chars)?,
            c => Token::Char(c),
        });
    }
    Some(tokens)
}

/// The set that stands after a `[`, up to its `]`.
fn one_of(chars: &mut std::str::Chars<'_>) -> Option<Token> {
    let negated = chars.as_str().starts_with(['!', '^']);
    if negated {
        chars.next();
    }
    let mut ranges: Vec<(char, char)> = Vec::new();
    loop {
        match chars.next()? {
            // First in the set, a bracket means itself.
            ']' if !ranges.is_empty() => return Some(Token::OneOf { ranges, negated }),
            first => {
                let rest = chars.as_str();
                let range_end = rest.strip_prefix('-').and_then(|rest| rest.chars().next());
                match range_end.filter(|&end| end != ']') {
                    Some(end) => {
                        chars.next();
                        chars.next();
                        ranges.push((first, end));
                    }
                    None => ranges.push((first, first)),
                }
            }
        }
    }
}

fn match_parts(parts: &[Part], names: &[Vec<char>]) -> bool {
    match (parts.split_first(), names.split_first()) {
        (None, None) => true,
        (Some((Part::Folders, rest)), _) => {
            (0..=names.len()).any(|skipped| match_parts(rest, &names[skipped..]))
        }
        (Some((Part::Name(tokens), parts)), Some((name, names))) => {
            match_name(tokens, name) && match_parts(parts, names)
        }
        _ => false,
    }
}

/// Matches one name, in time proportional to pattern times name: only the last `*` is retried,
/// since an earlier one cannot do better.
fn match_name(tokens: &[Token], name: &[char]) -> bool {
    let (mut token, mut at) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while at < name.len() {
        match tokens.get(token) {
            Some(Token::AnyChars) => {
                retry = Some((token, at));
                token += 1;
            }
            Some(single) if single.matches(name[at]) => {
                token += 1;
                at += 1;
            }
            _ => {
                let Some((star, from)) = retry else { return false };
                retry = Some((star, from + 1));
                (token, at) = (star + 1, from + 1);
            }
        }
    }
    tokens[token..].iter().all(|token| *token == Token::AnyChars)
}

impl Token {
    fn matches(&self, c: char) -> bool {
        match self {
            Self::Char(expected) => c == *expected,
            Self::AnyChar | Self::AnyChars => true,
            Self::OneOf { ranges, negated } => {
                ranges.iter().any(|&(first, last)| (first..=last).contains(&c)) != *negated
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(Path::new(path))
    }

    #[test]
    fn a_name_matches_anywhere_but_only_whole() {
        assert!(matches("raw", "/photos/2019/raw"));
        assert!(!matches("raw", "/photos/2019/raw/a.jpg"));
        assert!(!matches("raw", "/photos/2019/straw"));
        assert!(!matches("raw", "/photos/RAW"));
    }

    #[test]
    fn wildcards_stay_within_a_name() {
        assert!(matches("*.gif", "/photos/a.b.gif"));
        assert!(matches("IMG_??.jpg", "/p/IMG_é9.jpg"));
        assert!(!matches("IMG_??.jpg", "/p/IMG_123.jpg"));
        assert!(matches("2019/*/raw", "/p/2019/may/raw"));
        assert!(!matches("2019/*/raw", "/p/2019/may/1/raw"));
        assert!(matches("2019/**/raw", "/p/2019/may/1/raw"));
        assert!(matches("2019/**/raw", "/p/2019/raw"));
        assert!(matches("a*b*c", "/aXbXbXc"));
        assert!(!matches("a*b*c", "/aXbXbX"));
    }

    #[test]
    fn a_path_from_the_root_matches_there_only() {
        assert!(matches("/home/ada/private/", "/home/ada/private"));
        assert!(!matches("/ada/private", "/home/ada/private"));
        assert!(matches("/**/private", "/home/ada/private"));
    }

    #[test]
    fn sets_match_one_character() {
        assert!(matches("[a-cx]?.jpg", "/b1.jpg"));
        assert!(!matches("[!a-c]?.jpg", "/b1.jpg"));
        assert!(matches("[]]a", "/]a"));
        assert!(matches("[a-]", "/-"));
        let error = Pattern::new("a[b").unwrap_err();
        assert_eq!(error.to_string(), "exclude pattern `a[b`: a `[` without its `]`");
    }

    #[test]
    fn a_pattern_that_names_nothing_is_refused() {
        for pattern in ["", "/", "./", "**", "/**"] {
            assert!(Pattern::new(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn many_stars_cost_no_more_than_a_few() {
        let pattern = format!("{}b", "*a".repeat(40));
        assert!(!matches(&pattern, &format!("/{}", "a".repeat(250))));
    }
}
