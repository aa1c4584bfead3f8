//! `tinyfind similar`: photos that look like another one.

use std::ffi::OsString;
use std::path::Path;

use clap::Args;
use tinyfind_index::{Filter, IndexReader};

use super::globals::Globals;
use super::last_search::LastSearch;
use super::listing::HitArgs;
use super::photos::{Named, gone};
use super::printer::Printer;
use super::report::hinted;
use super::search::explain_query;
use super::{Outcome, exclusions, folders, open};
use crate::search::Query;
use crate::similar::{Original, SimilarError, find, similar};
use crate::vlm::Vlm;

/// Find photos that look like another one.
#[derive(Debug, Args)]
#[command(
    after_help = "PHOTO is a photo of the index, by its path or the end of it; a number, for a
hit of the last search (write ./2 for a file named 2); or any other file, which
the model looks at first. It is not listed itself; copies of it are, with score 1.
The hits are the new last search: `tinyfind ask 1` and `tinyfind similar 1` mean
the first of them.

Score: how alike the two photos are in all that the model sees in them, 0 to 1: the
  mean cosine of their image-text vectors. 1 is a copy.
JSON keys: those of `tinyfind search`; scores.meaning is the score.

Examples:
  tinyfind similar IMG_1.jpg
  tinyfind similar 2 after:2019 -path:trash
  tinyfind similar -0 -t 50 --min-score 0.8 beach.jpg | xargs -0 cp -t ~/beach

Exit codes: 0 something was found, 1 nothing was, 2 an error."
)]
pub(crate) struct SimilarArgs {
    /// The photo: a path, or the rank of a hit of the last search
    #[arg(value_name = "PHOTO")]
    photo: OsString,

    /// Fields that photos must fit, as in `tinyfind search`
    #[arg(value_name = "FIELD")]
    fields: Vec<String>,

    #[command(flatten)]
    found: HitArgs,
}

pub(crate) fn run(
    args: &SimilarArgs,
    globals: &Globals,
    printer: &mut Printer,
) -> anyhow::Result<Outcome> {
    let filter = fields(&args.fields)?;
    let photo = args.photo.to_str().map(exclusions::unmark).map_or(args.photo.clone(), Into::into);
    let (named, index) = Named::hit_or_file(&photo, &folders::index(globals)?)?;
    let reader = IndexReader::open(&index).map_err(open::explain_open)?;
    let original =
        find(&reader, named.subject(), Path::new(&photo)).map_err(|it| explain(&named, it))?;
    let mut vlm = match original {
        Original::Indexed(_) => None,
        Original::File(_) => Some(open::open_model(globals, reader.bound_to(), printer)?),
    };
    let vlm = vlm.as_mut().map(|vlm| &mut **vlm as &mut dyn Vlm);
    let HitArgs { top, min_score, listing } = &args.found;
    let hits = similar(&reader, vlm, &original, &filter, top.get(), *min_score)
        .map_err(|error| explain(&named, error))?;

    let query = format!("photos like {}", named.shown.display());
    if let Err(error) = LastSearch::new(&index, query, &hits).save() {
        printer.warn(&format!("`tinyfind ask` will not know these hits: {error:#}"));
    }
    listing.print(printer, &hits, false)?;
    if hits.is_empty() {
        printer.note("no photo found");
        return Ok(Outcome::Nothing);
    }
    Ok(Outcome::Done)
}

/// What fields behind the other arguments let through.
pub(super) fn fields(words: &[String]) -> anyhow::Result<Filter> {
    if words.is_empty() {
        return Ok(Filter::default());
    }
    let words: Vec<String> = words.iter().map(|word| exclusions::unmark(word)).collect();
    let query = Query::of_fields(&words.join(" ")).map_err(|error| explain_query(&error))?;
    Ok(query.filter())
}

/// `error` with the next step.
fn explain(named: &Named, error: SimilarError) -> anyhow::Error {
    match error {
        SimilarError::NoSuchPhoto { .. } if named.subject().seen.is_some() => gone(&named.shown),
        SimilarError::NoSuchPhoto { .. } => hinted(
            error,
            "name a file, a photo of the index by its path or the end of it, or a hit of the last \
             search by its number",
        ),
        SimilarError::Find(error) => open::explain_find(error),
        _ => error.into(),
    }
}
