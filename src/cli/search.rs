//! `tinyfind search`: photos by what they show.

use clap::Args;
use tinyfind_index::{Clause, Filter, IndexReader};

use super::globals::Globals;
use super::last_search::LastSearch;
use super::listing::HitArgs;
use super::printer::Printer;
use super::report::hinted;
use super::{Outcome, exclusions, folders, open, units};
use crate::search::query::Problem;
use crate::search::{FindError, Pictures, Query, QueryError, SearchOptions, Weights, search};
use crate::vlm::Vlm;

/// Find photos by what they show.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = LANGUAGE)]
pub(crate) struct SearchArgs {
    /// What to look for; see `--help` for the query language
    #[arg(required = true, value_name = "QUERY")]
    query: Vec<String>,

    #[command(flatten)]
    found: HitArgs,

    /// Look for the words in captions, names and notes only; needs no model
    #[arg(long)]
    words_only: bool,

    /// How much words and meaning count: two numbers, 0 leaves a side out
    #[arg(long, value_name = "WORDS,MEANING", default_value = "1,1", hide_default_value = true)]
    #[arg(value_parser = weights, conflicts_with = "words_only")]
    weights: Weights,

    /// Tell for each photo its rank and score by words and by meaning
    #[arg(long, conflicts_with_all = ["filepath_only", "null"])]
    explain: bool,
}

const EXAMPLES: &str = "Examples:
  tinyfind search red umbrella in the rain
  tinyfind search 'umbrella \"Times Square\" -night camera:fuji after:2019'
  tinyfind search -0 -t 50 dog on a beach | xargs -0 cp -t ~/dogs

`tinyfind search --help` explains the query language, scores and JSON keys.";

const LANGUAGE: &str = "Query language:
  red umbrella         bare words: photos that show it, and those whose caption, file
                       name or notes say so, in any form (umbrella, umbrellas); notes
                       are title, description, keywords and place in the file
  \"Times Square\"       quoted words must stand in caption, name or notes as they are
  -night               leaves out photos whose caption, name or notes have the word;
                       so do -\"night sky\", -camera:fuji and -path:trash
  dog beach OR cat     photos of a dog on a beach, and photos of a cat: OR, in capitals,
                       binds looser than what stands side by side
  caption:dog          the word, or caption:\"two dogs\", in the caption alone
  path:holiday         the path contains it, in upper or lower case
  name:img_12          the file's name contains it
  camera:\"x-t3\"        words of the camera's maker and model
  lens:35mm            words of the lens's name
  on:2019-07-14        taken on that day; on:2019-07 and on:2019 (or date:...) mean
                       that month and year
  after:2019           taken in 2019 or later
  before:2019-07       taken before July 2019
  near:51.5,-0.12,5km  taken within 5 km of that latitude and longitude (m, km, mi)
  type:jpeg            the format: jpeg, png, gif, webp, tiff or bmp
  width:>4000          upright width in pixels; also >=, <, <= and exactly, and height:
  orientation:portrait higher than wide; also landscape and square
  +IMG_1.jpg           photos like this one, a file or a photo of the index; with words
                       beside it, like both; +\"my photo.jpg\" has spaces
  -IMG_2.jpg           photos unlike this one (or -image:\"my photo.jpg\"); to leave out
                       the word, put it in quotes: -\"IMG_2.jpg\"
  Only these fields exist: to look for a word like `iso:400`, put it in quotes.
  Fields alone (camera:fuji on:2019) list the newest photos first.
  Where words find nothing, those that no photo holds are taken for misspelt.
  Your shell eats quotes and `>`: put the whole query between '...' if it has any, or
  if an excluded word looks like flags (-f, -vq); or write it behind `--`.

Examples:
  tinyfind search red umbrella in the rain
  tinyfind search 'umbrella \"Times Square\" -night camera:fuji after:2019'
  tinyfind search 'sunset near:45.98,9.26,20km width:>4000 OR sunrise path:como'
  tinyfind search +IMG_1.jpg in the snow -IMG_2.jpg
  tinyfind search -0 -t 50 dog on a beach | xargs -0 cp -t ~/dogs
  tinyfind search --json after:2024-06 | jq -r .path

Score: 1 is first both by words and by meaning, 0.5 first by one of them. It tells
  the place in the ranking, not how well a photo fits. Hits of fields alone score 1.
  A photo of rank R by words adds WORDS / (60 + R), one of rank R by meaning
  MEANING / (60 + R), with the weights of `--weights`; `--explain` shows both.

JSON keys: rank, score, path, caption, matches (where words of the query stand in the
  caption: pairs of characters, the last not included), snippets (pieces of notes
  with such words: from, text, matches), title, description, keywords, place, taken
  (local time), taken_from (exif, gps or mtime), camera, lens, gps (latitude,
  longitude), format, width, height, scores (words: BM25, meaning: cosine), and with
  `--explain` explain (words, meaning and fields: rank, score, share). What is unknown
  is null. `path_bytes` is there only where the path is not UTF-8, and holds its bytes.

Exit codes: 0 something was found, 1 nothing was, 2 an error.";

/// Reads `WORDS,MEANING`.
fn weights(text: &str) -> Result<Weights, &'static str> {
    let number = |text: &str| text.parse().ok().filter(|it| (0.0..=1000.0_f32).contains(it));
    let weights = text.split_once(',').and_then(|(words, meaning)| {
        Some(Weights { words: number(words)?, meaning: number(meaning)? })
    });
    let weights = weights.filter(|it| it.words > 0.0 || it.meaning > 0.0);
    weights.ok_or("weights are two numbers from 0 to 1000, such as 2,1, and not both 0")
}

pub(crate) fn run(
    args: &SearchArgs,
    globals: &Globals,
    printer: &mut Printer,
) -> anyhow::Result<Outcome> {
    let words: Vec<String> = args.query.iter().map(|word| exclusions::unmark(word)).collect();
    let query: Query = words.join(" ").parse().map_err(|error| explain_query(&error))?;
    let reader = open::open_index(globals)?;
    let pictures = Pictures::find(&reader, &query, folders::as_crawled).map_err(explain_find)?;
    let weights = if args.words_only { WORDS_ONLY } else { args.weights };
    check_sides(&query, weights)?;
    let asks_model = weights.meaning > 0.0 && (query.has_words() || pictures.need_model());
    let mut vlm = if asks_model {
        Some(open::open_model(globals, reader.bound_to(), printer)?)
    } else {
        None
    };
    let vlm = vlm.as_mut().map(|vlm| &mut **vlm as &mut dyn Vlm);
    let HitArgs { top, min_score, listing } = &args.found;
    let options = SearchOptions { top: top.get(), min_score: *min_score, weights };
    let found = search(&reader, vlm, &query, &pictures, options).map_err(explain_find)?;
    let hits = &found.hits;

    let kept = LastSearch::new(&folders::index(globals)?, query.to_string(), hits).save();
    if let Err(error) = kept {
        printer.warn(&format!("`tinyfind ask` will not know these hits: {error:#}"));
    }
    for (word, nearest) in &found.respelt {
        printer.note(&format!("nothing holds `{word}`; showing `{nearest}`"));
    }
    listing.print(printer, hits, args.explain)?;
    if query.has_words() {
        tell_how_far(&reader, printer);
    }
    if hits.is_empty() {
        printer.note("no photo found");
        tell_cameras(&reader, &query, printer)?;
        return Ok(Outcome::Nothing);
    }
    Ok(Outcome::Done)
}

/// What `--words-only` means.
const WORDS_ONLY: Weights = Weights { words: 1.0, meaning: 0.0 };

/// Refuses a query that the sides with weight cannot answer: nothing would be found.
fn check_sides(query: &Query, weights: Weights) -> anyhow::Result<()> {
    if weights.meaning == 0.0
        && let Some((_, part)) = query.images().next()
    {
        let error = query.error(part.at.clone(), Problem::PhotoWithoutMeaning);
        return Err(explain_query(&error));
    }
    Ok(())
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

/// Most cameras that are named where a query asks for one that took nothing.
const CAMERAS_TOLD: usize = 5;

/// Names the cameras that took the most photos, if the query asks for one that took none.
fn tell_cameras(reader: &IndexReader, query: &Query, printer: &mut Printer) -> anyhow::Result<()> {
    for camera in query.cameras() {
        let took = Filter { require: vec![Clause::Camera(camera.to_owned())], exclude: vec![] };
        if !reader.by_filter(&took, 1)?.is_empty() {
            continue;
        }
        let cameras = reader.cameras()?;
        let told: Vec<String> = cameras
            .iter()
            .take(CAMERAS_TOLD)
            .map(|(name, photos)| format!("{name} ({})", units::count(*photos)))
            .collect();
        if !told.is_empty() {
            let more = if cameras.len() > told.len() { ", …" } else { "" };
            printer.hint(&format!("cameras in this index: {}{more}", told.join(", ")));
        }
        break;
    }
    Ok(())
}

/// `error` with the next step.
fn explain_find(error: FindError) -> anyhow::Error {
    match error {
        FindError::Query(error) => explain_query(&error),
        error => open::explain_find(error),
    }
}

/// The error, the query with the place marked, and the way to the query language.
pub(super) fn explain_query(error: &QueryError) -> anyhow::Error {
    let pointer = error.pointer().replace('\n', "\n  ");
    let message = format!("{error}\n  {pointer}");
    hinted(anyhow::anyhow!(message), "`tinyfind search --help` explains the query language")
}
