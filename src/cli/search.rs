//! `tinyfind search`: photos by what they show.

use std::num::NonZeroUsize;

use clap::Args;
use tinyfind_index::IndexReader;

use super::globals::Globals;
use super::hits::{print_hits, print_hits_as_json};
use super::last_search::LastSearch;
use super::printer::Printer;
use super::report::hinted;
use super::{Outcome, exclusions, folders, open, positive};
use crate::search::{Query, QueryError, SearchOptions, search};
use crate::vlm::Vlm;

/// Find photos by what they show.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
#[command(after_help = EXAMPLES, after_long_help = LANGUAGE)]
pub(crate) struct SearchArgs {
    /// What to look for; see `--help` for the query language
    #[arg(required = true, value_name = "QUERY")]
    query: Vec<String>,

    /// How many photos to print at most
    #[arg(long, short, value_name = "N", default_value = "10", value_parser = positive)]
    top: NonZeroUsize,

    /// Print paths only, one a line
    #[arg(long, short = 'f')]
    filepath_only: bool,

    /// Print paths only, each ended by a NUL byte: for `xargs -0`
    #[arg(long, short = '0')]
    null: bool,

    /// Print one JSON object a line
    #[arg(long, conflicts_with_all = ["filepath_only", "null"])]
    json: bool,

    /// Leave out photos that score less, 0 to 1
    #[arg(long, value_name = "SCORE", default_value = "0", hide_default_value = true)]
    #[arg(value_parser = score, allow_negative_numbers = true)]
    min_score: f32,

    /// Look for the words in captions and names only; needs no model
    #[arg(long)]
    words_only: bool,
}

const EXAMPLES: &str = "Examples:
  tinyfind search red umbrella in the rain
  tinyfind search 'umbrella \"Times Square\" -night camera:fuji after:2019'
  tinyfind search -0 -t 50 dog on a beach | xargs -0 cp -t ~/dogs

`tinyfind search --help` explains the query language, scores and JSON keys.";

const LANGUAGE: &str = "Query language:
  red umbrella        bare words: photos that show it, and those whose caption or
                      file name says so, in any form (umbrella, umbrellas)
  \"Times Square\"      quoted words must stand in caption or file name as they are
  -night              leaves out photos whose caption or name has the word;
                      so do -\"night sky\", -camera:fuji and -path:trash
  path:holiday        the path contains it, in upper or lower case
  camera:\"x-t3\"       words of the camera's maker and model
  on:2019-07-14       taken on that day; on:2019-07 and on:2019 (or date:...) mean
                      that month and year
  after:2019          taken in 2019 or later
  before:2019-07      taken before July 2019
  Only these fields exist: to look for a word like `lens:50mm`, put it in quotes.
  Fields alone (camera:fuji on:2019) list the newest photos first.
  Your shell eats quotes: put the whole query between '...' if it has any, or if
  an excluded word looks like flags (-f, -vq); or write it behind `--`.

Examples:
  tinyfind search red umbrella in the rain
  tinyfind search 'umbrella \"Times Square\" -night camera:fuji after:2019'
  tinyfind search -0 -t 50 dog on a beach | xargs -0 cp -t ~/dogs
  tinyfind search --json after:2024-06 | jq -r .path

Score: 1 is first both by words and by meaning, 0.5 first by one of them. It tells
  the place in the ranking, not how well a photo fits. Hits of fields alone score 1.

JSON keys: rank, score, path, caption, taken (local time), taken_from (exif, gps or
  mtime), camera, gps (latitude, longitude), width, height, scores (words: BM25,
  meaning: cosine). What is unknown is null. `path_bytes` is there only where the
  path is not UTF-8, and holds its bytes.

Exit codes: 0 something was found, 1 nothing was, 2 an error.";

fn score(text: &str) -> Result<f32, &'static str> {
    match text.parse() {
        Ok(score) if (0.0..=1.0).contains(&score) => Ok(score),
        _ => Err("a score is a number from 0 to 1"),
    }
}

pub(crate) fn run(
    args: &SearchArgs,
    globals: &Globals,
    printer: &mut Printer,
) -> anyhow::Result<Outcome> {
    let words: Vec<String> = args.query.iter().map(|word| exclusions::unmark(word)).collect();
    let query: Query = words.join(" ").parse().map_err(|error| explain_query(&error))?;
    let reader = open::open_index(globals)?;
    let mut vlm = match query.text() {
        Some(_) if !args.words_only => Some(open::open_model(globals, Some(reader.spec()))?),
        _ => None,
    };
    let vlm = vlm.as_mut().map(|vlm| &mut **vlm as &mut dyn Vlm);
    let options = SearchOptions { top: args.top.get(), min_score: args.min_score };
    let hits = search(&reader, vlm, &query, options).map_err(open::explain_find)?;

    let kept = LastSearch::new(&folders::index(globals)?, query.to_string(), &hits).save();
    if let Err(error) = kept {
        printer.warn(&format!("`tinyfind ask` will not know these hits: {error:#}"));
    }
    if args.json {
        print_hits_as_json(printer, &hits)?;
    } else if args.filepath_only || args.null {
        let end: &[u8] = if args.null { b"\0" } else { b"\n" };
        for hit in &hits {
            printer.raw_path(&hit.path)?;
            printer.stdout().write_all(end)?;
        }
    } else {
        print_hits(printer, &hits)?;
    }
    if query.text().is_some() {
        tell_how_far(&reader, printer);
    }
    if hits.is_empty() {
        printer.note("no photo found");
        return Ok(Outcome::Nothing);
    }
    Ok(Outcome::Done)
}

/// Says what the search could not know yet.
fn tell_how_far(reader: &IndexReader, printer: &mut Printer) {
    let counts = reader.counts();
    let waiting = counts.photos.saturating_sub(counts.captioned);
    if waiting > 0 {
        printer.note(&format!(
            "{waiting} of {} photos have no caption yet: so far words find them by name only",
            counts.photos
        ));
    }
}

/// The error, the query with the place marked, and the way to the query language.
fn explain_query(error: &QueryError) -> anyhow::Error {
    let pointer = error.pointer().replace('\n', "\n  ");
    let message = format!("{error}\n  {pointer}");
    hinted(anyhow::anyhow!(message), "`tinyfind search --help` explains the query language")
}
