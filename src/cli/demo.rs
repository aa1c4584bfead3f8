//! `tinyfind demo`: an album of drawn pictures, indexed and searched before one's eyes.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;

use super::globals::Globals;
use super::printer::{Printer, STRONG};
use super::progress::Progress;
use super::report::hinted;
use super::{Outcome, open, run_line, units};
use crate::demo::{DemoError, DemoFolder, PICTURES, QUESTION, SEARCHES, album};
use crate::model::registry::BUILT_IN;

/// See tinyfind work, with an album that it draws itself.
#[derive(Debug, Args)]
#[command(
    after_help = "Draws 300 pictures with folders, dates, places and cameras like those of a family's
photos, indexes them and shows three searches and a question. Nothing is downloaded
and none of your own photos is looked at. The same command goes on where it stopped,
and searches at once when all is there. Delete the folder when you are done.

Examples:
  tinyfind demo
  tinyfind demo /tmp/album

Exit codes: 0 everything was shown, 1 a search found nothing, 2 an error, or the run
was stopped."
)]
pub(crate) struct DemoArgs {
    /// Folder for the album and its index: one that is empty or not there yet, or that of an
    /// earlier run
    #[arg(value_name = "DIR", default_value = "tinyfind-demo")]
    dir: PathBuf,
}

/// Hits of each search that are shown.
const TOP: &str = "3";

pub(crate) fn run(
    args: &DemoArgs,
    globals: &Globals,
    printer: &mut Printer,
) -> anyhow::Result<Outcome> {
    let begun = Instant::now();
    let mut globals = globals.clone();
    // What the environment names is for the user's own photos.
    let model = globals.model.take().filter(|model| !is_only_of_environment(MODEL_VARIABLE, model));
    let model = model.unwrap_or_else(|| MODEL.into());
    globals.model = Some(model.clone());
    // Without a model there is nothing to draw for.
    open::open_bundle(&globals, None, printer)?;
    let folder = DemoFolder::open(&args.dir).map_err(explain)?;
    let index = globals.index.take();
    let index = index.filter(|index| !is_only_of_environment(INDEX_VARIABLE, index.as_os_str()));
    let index = index.unwrap_or_else(|| folder.index());
    let lines = Lines { model, index: index.clone() };
    globals.index = Some(index);

    draw(&folder, &globals, printer)?;
    let album = folder.album();
    let outcome = lines.run([OsStr::new("index"), album.as_os_str()], &globals, printer)?;
    if outcome != Outcome::Done {
        return Ok(outcome);
    }
    let mut all = Outcome::Done;
    let mut last = Outcome::Nothing;
    for search in &SEARCHES {
        printer.note(&format!("\n# {}", search.about));
        last = lines.run(["search", "-t", TOP, search.query], &globals, printer)?;
        if last != Outcome::Done {
            all = last;
        }
    }
    if last == Outcome::Done {
        printer.note("\n# a question about the first of them");
        last = lines.run(["ask", "1", QUESTION], &globals, printer)?;
        if last != Outcome::Done {
            all = last;
        }
    }
    printer.note(&format!("\nall of it in {}", units::duration(begun.elapsed())));
    tell_what_is_next(&lines, printer);
    Ok(all)
}

/// The model of the demonstration where none is named: the one that knows drawn scenes.
const MODEL: &str = BUILT_IN;

const MODEL_VARIABLE: &str = "TINYFIND_MODEL";
const INDEX_VARIABLE: &str = "TINYFIND_INDEX";

/// Whether `value` was not asked for but stands in an environment variable.
fn is_only_of_environment(variable: &str, value: &OsStr) -> bool {
    std::env::var_os(variable).is_some_and(|variable| variable == value)
}

fn explain(error: DemoError) -> anyhow::Error {
    let hint = match &error {
        DemoError::Foreign { .. } => {
            "name a folder that is empty or not there yet: `tinyfind demo DIR`"
        }
        DemoError::OtherVersion { .. } => "delete it, or name another folder: `tinyfind demo DIR`",
        DemoError::Busy { .. } => "wait until it is done, or name another folder",
        DemoError::Io { .. } => "name a folder that you may write: `tinyfind demo DIR`",
        _ => return error.into(),
    };
    hinted(error, hint)
}

/// Draws what is not there yet.
fn draw(folder: &DemoFolder, globals: &Globals, printer: &mut Printer) -> anyhow::Result<()> {
    let begun = Instant::now();
    let pictures = album();
    let missing = folder.missing(&pictures)?;
    let shown = folder.album();
    if missing.is_empty() {
        printer.note(&format!("{PICTURES} pictures are in `{}`", shown.display()));
        return Ok(());
    }
    let mut progress = Progress::new(globals);
    let (total, there) = (pictures.len() as u64, (pictures.len() - missing.len()) as u64);
    progress.begin_at("drawing", total, there);
    folder.draw(&missing, |drawn| progress.advance(drawn as u64))?;
    drop(progress);
    let drawn = units::counted(missing.len() as u64, "picture", "pictures");
    let time = units::duration(begun.elapsed());
    printer.note(&format!("{drawn} drawn into `{}` in {time}", shown.display()));
    Ok(())
}

/// Command lines as a person would type them.
struct Lines {
    /// What `--model` says.
    model: OsString,
    /// What `--index` says.
    index: PathBuf,
}

impl Lines {
    /// Shows the line of `words`, and runs it.
    fn run<W: AsRef<OsStr>>(
        &self,
        words: impl IntoIterator<Item = W>,
        globals: &Globals,
        printer: &mut Printer,
    ) -> anyhow::Result<Outcome> {
        let line = self.line(words);
        let shown: Vec<String> = line.iter().map(|word| quoted(&word.to_string_lossy())).collect();
        let shown = printer.paint_note(STRONG, &format!("$ {}", shown.join(" ")));
        printer.note(&shown);
        run_line(line, globals, printer)
    }

    fn line<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Vec<OsString> {
        let words: Vec<OsString> = words.into_iter().map(|it| it.as_ref().to_owned()).collect();
        let mut line: Vec<OsString> = vec!["tinyfind".into()];
        // What is always there goes on with the index that it made.
        if self.model != MODEL || words.first().is_some_and(|verb| verb == "index") {
            line.extend(["--model".into(), self.model.clone()]);
        }
        line.extend(["--index".into(), self.index.clone().into_os_string()]);
        line.extend(words);
        line
    }
}

/// `word` as a shell reads it.
fn quoted(word: &str) -> String {
    let is_safe = |c: char| c.is_alphanumeric() || "-_./:,=+@%".contains(c);
    if !word.is_empty() && word.chars().all(is_safe) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn tell_what_is_next(lines: &Lines, printer: &mut Printer) {
    let words = lines.line(["search", "two dogs in the snow"]);
    let words: Vec<String> = words.iter().map(|word| quoted(&word.to_string_lossy())).collect();
    printer.hint(&format!("look for something else: `{}`", words.join(" ")));
    printer.hint(if lines.model == MODEL {
        "the model `nano` knows drawn pictures and nothing else: for photos get the published one \
         with `tinyfind model pull`, then `tinyfind index ~/Photos`"
    } else {
        "index your own photos: `tinyfind index ~/Photos`"
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell_where_they_must_be() {
        assert_eq!(quoted("tinyfind-demo/index"), "tinyfind-demo/index");
        assert_eq!(quoted("a red car"), "'a red car'");
        assert_eq!(quoted("Edith's"), r"'Edith'\''s'");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("~"), "'~'");
    }

    #[test]
    fn a_line_names_the_model_where_it_would_be_another_otherwise() {
        let shown = |model: &str, verb: &str| {
            let lines = Lines { model: model.into(), index: "d/index".into() };
            lines.line([verb, "x"]).join(OsStr::new(" ")).into_string().unwrap()
        };
        assert_eq!(shown("nano", "search"), "tinyfind --index d/index search x");
        assert_eq!(shown("nano", "index"), "tinyfind --model nano --index d/index index x");
        let named = "tinyfind --model my.gguf --index d/index search x";
        assert_eq!(shown("my.gguf", "search"), named);
    }
}
