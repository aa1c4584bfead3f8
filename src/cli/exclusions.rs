//! `tinyfind search umbrella -night`: an excluded word looks like a row of short flags.
//!
//! Before the arguments are parsed, those of a verb with a query that begin with one dash and are
//! no flags get a mark for their dash, which [`unmark`] takes back when the query is put together.
//! `-f`, `-0v`, `-t5` are flags; `-night`, `-forest`, `-path:x` are not, because not all of
//! their letters are. Behind `--`, and inside a longer quoted query, nothing is a flag.

use std::ffi::{OsStr, OsString};

/// Stands for the dash of an excluded word: a character of the private use area.
const MARK: &str = "\u{e0d5}";

/// Verbs whose arguments are a query, or end in one.
const VERBS: [&str; 3] = ["search", "similar", "duplicates-report"];

/// The dash back in its place.
pub(super) fn unmark(argument: &str) -> String {
    match argument.strip_prefix(MARK) {
        Some(word) => format!("-{word}"),
        None => argument.to_owned(),
    }
}

/// `arguments` with the dashes of excluded words marked.
pub(super) fn mark(command: &clap::Command, arguments: Vec<OsString>) -> Vec<OsString> {
    let mut flags = Flags::of(command, None);
    let mut marked = Vec::with_capacity(arguments.len());
    let mut arguments = arguments.into_iter();
    marked.extend(arguments.next()); // the program
    let mut has_query = false;
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            marked.push(argument);
            break;
        }
        let kind = flags.kind(&argument);
        match kind {
            Kind::Word if !has_query => {
                let verb = command.find_subcommand(&argument);
                let verb = verb.filter(|verb| VERBS.contains(&verb.get_name()));
                marked.push(argument);
                if verb.is_none() {
                    break;
                }
                has_query = true;
                flags = Flags::of(command, verb);
            }
            Kind::Unknown if has_query => marked.push(mark_dash(&argument)),
            _ => marked.push(argument),
        }
        if kind == Kind::FlagBeforeValue {
            marked.extend(arguments.next());
        }
    }
    marked.extend(arguments);
    marked
}

fn mark_dash(argument: &OsStr) -> OsString {
    match argument.to_str().and_then(|text| text.strip_prefix('-')) {
        Some(word) => format!("{MARK}{word}").into(),
        None => argument.to_owned(), // not UTF-8: clap says so
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// Does not begin with a dash, or is nothing but one.
    Word,
    /// A flag, with its value if it takes one; unknown long flags too, which clap refuses.
    Flag,
    /// A flag whose value is the next argument.
    FlagBeforeValue,
    /// One dash, then something that is no row of flags.
    Unknown,
}

/// The flags of a verb and of the whole program.
struct Flags {
    /// Letter, and whether it takes a value.
    short: Vec<(char, bool)>,
    /// Name of each long flag that takes a value.
    long: Vec<String>,
}

impl Flags {
    fn of(command: &clap::Command, verb: Option<&clap::Command>) -> Self {
        let arguments =
            command.get_arguments().chain(verb.into_iter().flat_map(clap::Command::get_arguments));
        let mut flags = Self { short: vec![('h', false)], long: Vec::new() };
        for argument in arguments.filter(|it| !it.is_positional()) {
            let takes_value = argument.get_action().takes_values();
            flags.short.extend(argument.get_short().map(|letter| (letter, takes_value)));
            if takes_value {
                flags.long.extend(argument.get_long().map(str::to_owned));
            }
        }
        flags
    }

    fn kind(&self, argument: &OsStr) -> Kind {
        let text = argument.to_string_lossy();
        if let Some(name) = text.strip_prefix("--") {
            let waits = self.long.iter().any(|known| known == name);
            return if waits { Kind::FlagBeforeValue } else { Kind::Flag };
        }
        let letters = match text.strip_prefix('-') {
            None | Some("") => return Kind::Word,
            Some(letters) => letters,
        };
        for (at, letter) in letters.char_indices() {
            match self.short.iter().find(|(known, _)| *known == letter) {
                None => return Kind::Unknown,
                Some((_, false)) => {}
                Some((_, true)) => {
                    let value = &letters[at + letter.len_utf8()..];
                    let value = value.strip_prefix('=').unwrap_or(value);
                    // All short flags with a value want a number: `-train` is a word.
                    return match value {
                        "" => Kind::FlagBeforeValue,
                        _ if value.parse::<f64>().is_ok() => Kind::Flag,
                        _ => Kind::Unknown,
                    };
                }
            }
        }
        Kind::Flag
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn marked(line: &str) -> String {
        let arguments = line.split(' ').map(OsString::from).collect();
        let marked = mark(&super::super::Cli::command(), arguments);
        let marked: Vec<String> =
            marked.iter().map(|it| it.to_string_lossy().replace(MARK, "~")).collect();
        marked.join(" ")
    }

    #[test]
    fn an_excluded_word_is_marked_wherever_it_stands() {
        assert_eq!(marked("tinyfind search red -night -t 5"), "tinyfind search red ~night -t 5");
        assert_eq!(marked("tinyfind search -night red -f"), "tinyfind search ~night red -f");
        assert_eq!(
            marked("tinyfind -q --index d search -path:x"),
            "tinyfind -q --index d search ~path:x"
        );
    }

    #[test]
    fn words_that_begin_like_flags_are_words() {
        for word in ["forest", "train", "vase", "quay", "hat", "tö"] {
            let line = format!("tinyfind search red -{word}");
            assert_eq!(marked(&line), format!("tinyfind search red ~{word}"));
        }
    }

    #[test]
    fn flags_stay_flags() {
        for flags in [
            "-f",
            "-0",
            "-f0",
            "-t5",
            "-t=5",
            "-ft5",
            "-vv",
            "-q",
            "-h",
            "--json",
            "--nonsense",
            "-",
        ] {
            let line = format!("tinyfind search red {flags} blue");
            assert_eq!(marked(&line), line);
        }
    }

    #[test]
    fn every_verb_with_a_query_has_excluded_words() {
        assert_eq!(marked("tinyfind similar a.jpg -path:x"), "tinyfind similar a.jpg ~path:x");
        assert_eq!(marked("tinyfind similar -t 5 2 -night"), "tinyfind similar -t 5 2 ~night");
        for verb in ["duplicates-report", "duplicates"] {
            let line = |sign: &str| format!("tinyfind -q {verb} -f --exact {sign}path:x");
            assert_eq!(marked(&line("-")), line("~"));
        }
    }

    #[test]
    fn values_of_flags_and_what_follows_two_dashes_stay() {
        for line in [
            "tinyfind search --index -night red",
            "tinyfind search -t -5 red",
            "tinyfind search red -- -night",
            "tinyfind index -x folder",
            "tinyfind status -night",
        ] {
            assert_eq!(marked(line), line);
        }
    }

    #[test]
    fn unmark_restores_the_dash() {
        assert_eq!(unmark(&format!("{MARK}night")), "-night");
        assert_eq!(unmark("night"), "night");
    }
}
