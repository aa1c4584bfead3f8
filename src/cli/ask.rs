//! `tinyfind ask`: questions about photos.

use std::ffi::OsString;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use tinyfind_index::Matrix;

use super::globals::Globals;
use super::hits::{JsonPath, one_line, print_json};
use super::last_search::LastSearch;
use super::photos::{Named, Opened, open_all};
use super::printer::{Printer, STRONG};
use super::report::hinted;
use super::{Outcome, folders, positive};
use crate::ask::{Conversation, answer_each};

/// Ask about photos.
#[derive(Debug, Args)]
#[command(override_usage = "tinyfind ask [OPTIONS] <PHOTO> [QUESTION]...
       tinyfind ask [OPTIONS] --top <N> <QUESTION>...")]
#[command(after_help = "A number is a hit of the last search: write ./2 for a file named 2.
Without a question, questions are read from stdin, a line each, and every answer
remembers what was said before.

JSON keys: rank, path, question, answer (and path_bytes where the path is not UTF-8).

Examples:
  tinyfind ask 2 \"what is written on the sign?\"
  tinyfind ask photo.jpg
  tinyfind ask --top 5 \"is it raining?\"
  tinyfind search -f umbrella | tinyfind ask - \"what colour is the umbrella?\"")]
pub(crate) struct AskArgs {
    /// Ask about the best N hits of the last search, and print a table of answers
    #[arg(long, short, value_name = "N", value_parser = positive)]
    top: Option<NonZeroUsize>,

    /// Print one JSON object a line
    #[arg(long)]
    json: bool,

    /// Rank of a hit of the last search, path of a photo, or `-` for paths on stdin; then the
    /// question
    #[arg(value_name = "PHOTO|QUESTION")]
    words: Vec<OsString>,
}

#[derive(Debug, Serialize)]
struct JsonAnswer<'a> {
    rank: usize,
    #[serde(flatten)]
    path: JsonPath,
    question: &'a str,
    answer: &'a str,
}

pub(crate) fn run(
    args: &AskArgs,
    globals: &Globals,
    printer: &mut Printer,
) -> anyhow::Result<Outcome> {
    let wanted = Wanted::of(args, &folders::index(globals)?)?;
    if wanted.photos.is_empty() {
        printer.note("no photos to ask about");
        return Ok(Outcome::Nothing);
    }
    let opened = open_all(wanted.photos, &wanted.index, globals, printer)?;
    let failed = opened.failed;
    match wanted.question {
        Some(question) => {
            answer(opened, &question, wanted.as_table, args.json, printer)?;
        }
        None if opened.photos.is_empty() => printer.hint(
            "the photo comes before the question: `tinyfind ask 2 \"what is this?\"`, or a path in \
             place of the number",
        ),
        None => converse(opened, args.json, printer)?,
    }
    Ok(if failed > 0 { Outcome::Failed } else { Outcome::Done })
}

/// What the arguments mean.
#[derive(Debug)]
struct Wanted {
    photos: Vec<Named>,
    /// Folder of the index that may hold them.
    index: PathBuf,
    /// `None` for a conversation.
    question: Option<String>,
    /// Whether the answers are told apart by rank and path.
    as_table: bool,
}

impl Wanted {
    fn of(args: &AskArgs, index: &Path) -> anyhow::Result<Self> {
        if let Some(top) = args.top {
            let last = LastSearch::load()?;
            let question = join(&args.words)?;
            if question.is_none() {
                return Err(hinted(
                    anyhow::anyhow!("a question is missing: one conversation is about one photo"),
                    "`tinyfind ask --top 5 \"is it raining?\"`, or `tinyfind ask 2` to talk about \
                     hit 2",
                ));
            }
            let photos = last.best(top.get())?.into_iter().map(Named::from).collect();
            return Ok(Self { photos, index: last.index(), question, as_table: true });
        }
        let Some((photo, question)) = args.words.split_first() else {
            return Err(hinted(
                anyhow::anyhow!("about which photo?"),
                "`tinyfind ask 2` is about hit 2 of the last search, `tinyfind ask photo.jpg` \
                 about a file",
            ));
        };
        let question = join(question)?;
        if photo != "-" {
            let (photo, index) = Named::hit_or_file(photo, index)?;
            return Ok(Self { photos: vec![photo], index, question, as_table: false });
        }
        if question.is_none() {
            return Err(hinted(
                anyhow::anyhow!("a question is missing: stdin holds the paths"),
                "`... | tinyfind ask - \"is it raining?\"`",
            ));
        }
        let photos = Named::files(&[PathBuf::from(photo)])?;
        Ok(Self { photos, index: index.to_owned(), question, as_table: true })
    }
}

/// The words as one question; `None` for none.
fn join(words: &[OsString]) -> anyhow::Result<Option<String>> {
    let words: Option<Vec<&str>> = words.iter().map(|word| word.to_str()).collect();
    let question = words.context("the question is not UTF-8")?.join(" ");
    Ok(Some(question).filter(|question| !question.trim().is_empty()))
}

/// Asks one question about every photo.
fn answer(
    opened: Opened,
    question: &str,
    as_table: bool,
    json: bool,
    printer: &mut Printer,
) -> anyhow::Result<()> {
    let Opened { mut vlm, photos, .. } = opened;
    let tokens: Vec<&Matrix> = photos.iter().map(|(_, photo)| &photo.visual_tokens).collect();
    let answers = answer_each(&mut *vlm, &tokens, question)?;
    let rows: Vec<(&Named, String)> =
        photos.iter().map(|(named, _)| named).zip(answers.iter().map(|it| one_line(it))).collect();
    if json {
        for (named, answer) in &rows {
            print_answer_as_json(named, question, answer, printer)?;
        }
    } else if as_table {
        print_table(&rows, printer)?;
    } else {
        for (_, answer) in &rows {
            writeln!(printer.stdout(), "{answer}")?;
        }
    }
    Ok(())
}

fn print_answer_as_json(
    named: &Named,
    question: &str,
    answer: &str,
    printer: &mut Printer,
) -> std::io::Result<()> {
    let path = named.shown.as_path().into();
    print_json(printer, &JsonAnswer { rank: named.rank, path, question, answer })
}

/// Widest column of answers; a longer answer pushes its path to the right.
const WIDEST_ANSWER: usize = 48;

/// `rank  answer  path`, in columns.
fn print_table(rows: &[(&Named, String)], printer: &mut Printer) -> std::io::Result<()> {
    let rank_width = rows.iter().map(|(named, _)| named.rank.to_string().len()).max().unwrap_or(1);
    let widths = rows.iter().map(|(_, answer)| answer.chars().count());
    let answer_width = widths.max().unwrap_or(0).min(WIDEST_ANSWER);
    for (named, answer) in rows {
        let rank = printer.paint(STRONG, &format!("{:>rank_width$}", named.rank));
        write!(printer.stdout(), "{rank}  {answer:answer_width$}  ")?;
        printer.path(&named.shown)?;
        writeln!(printer.stdout())?;
    }
    Ok(())
}

/// Answers questions about one photo until there are no more.
fn converse(opened: Opened, json: bool, printer: &mut Printer) -> anyhow::Result<()> {
    let Opened { mut vlm, photos, .. } = opened;
    let Some((named, photo)) = photos.into_iter().next() else { return Ok(()) };
    let is_talk = std::io::stdin().is_terminal();
    if is_talk {
        printer.note(&format!("about `{}`; Ctrl-D ends", named.shown.display()));
    }
    let mut conversation = Conversation::about(photo.visual_tokens);
    let mut line = String::new();
    loop {
        if is_talk {
            prompt();
        }
        line.clear();
        let read =
            std::io::stdin().lock().read_line(&mut line).context("cannot read a question")?;
        if read == 0 {
            if is_talk {
                printer.note("");
            }
            return Ok(());
        }
        let question = line.trim();
        if question.is_empty() {
            continue;
        }
        let answer = one_line(&conversation.ask(&mut *vlm, question)?);
        if json {
            print_answer_as_json(&named, question, &answer, printer)?;
        } else {
            writeln!(printer.stdout(), "{answer}")?;
        }
        // Whoever asks waits for the answer before asking on.
        printer.flush()?;
    }
}

fn prompt() {
    let mut stderr = std::io::stderr().lock();
    let _ = write!(stderr, "> ").and_then(|()| stderr.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_make_one_question() {
        let question = join(&["what".into(), "is it?".into()]).unwrap();
        assert_eq!(question.as_deref(), Some("what is it?"));
        assert_eq!(join(&[]).unwrap(), None);
        assert_eq!(join(&[" ".into()]).unwrap(), None);
    }
}
