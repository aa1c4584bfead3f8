//! `tinyfind caption`: what photos show, in a sentence.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::globals::Globals;
use super::hits::{JsonPath, one_line, print_json};
use super::photos::{Named, Opened, open_all};
use super::printer::Printer;
use super::{Outcome, folders};
use crate::ask::{Photo, caption_each};

/// Say what photos show.
#[derive(Debug, Args)]
#[command(after_help = "One photo's caption is printed alone, of several each behind its path.
A photo of the index keeps the caption it has there; nothing is added to the index.

JSON keys: path, caption (and path_bytes where the path is not UTF-8).

Examples:
  tinyfind caption photo.jpg
  tinyfind search -f beach | tinyfind caption -")]
pub(crate) struct CaptionArgs {
    /// Photos; `-` reads paths from stdin
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct JsonCaption<'a> {
    #[serde(flatten)]
    path: JsonPath,
    caption: &'a str,
}

pub(crate) fn run(
    args: &CaptionArgs,
    globals: &Globals,
    printer: &mut Printer,
) -> anyhow::Result<Outcome> {
    let named = Named::files(&args.files)?;
    let several = named.len() > 1;
    if named.is_empty() {
        return Ok(Outcome::Nothing);
    }
    let opened = open_all(named, &folders::index(globals)?, globals, printer)?;
    let Opened { mut vlm, photos, failed } = opened;
    let looked_at: Vec<&Photo> = photos.iter().map(|(_, photo)| photo).collect();
    let captions = caption_each(&mut *vlm, &looked_at)?;
    for ((named, _), caption) in photos.iter().zip(&captions) {
        if args.json {
            let path = named.shown.as_path().into();
            print_json(printer, &JsonCaption { path, caption })?;
            continue;
        }
        if several {
            printer.path(&named.shown)?;
            write!(printer.stdout(), ": ")?;
        }
        writeln!(printer.stdout(), "{}", one_line(caption))?;
    }
    Ok(if failed > 0 { Outcome::Failed } else { Outcome::Done })
}
