//! `tinyfind duplicates-report`: photos that are there twice.

use std::io;

use clap::Args;
use serde::Serialize;
use tinyfind_index::TakenSource;

use super::globals::Globals;
use super::hits::{JsonPath, print_json};
use super::listing::{Form, Listing, print_path, score};
use super::printer::{FAINT, Printer, STRONG};
use super::{Outcome, open, similar, units};
use crate::duplicates::{DuplicateOptions, FARTHEST, Group, Kind, Member, Report, duplicates};
use crate::json::date_and_time;

/// List photos that are there twice, and which to keep; deletes nothing.
#[derive(Debug, Args)]
#[command(
    after_help = "Copies (exact) have the same bytes. Near duplicates look the same, stored anew,
resized, or a little brighter: the perceptual hashes of their pixels differ in
few bits, and their vectors agree. Cut, turned and mirrored pictures are others.
Each photo of a group is a duplicate of the one to keep, which has the most
pixels, then the most bytes, then the shortest file name. Groups with the most
bytes to spare come first.

With -f and -0 the paths of all but those to keep are printed: look at the report
before you give them to anything that deletes. Files that are gone, are links, or
hold other bytes than when they were indexed are left out.

JSON keys: kind (exact or near), spare_bytes, photos (keep, kind, distance, likeness,
  path, hash, bytes, format, width, height, taken, taken_from; path_bytes where the
  path is not UTF-8). distance is in bits of 64.

Examples:
  tinyfind duplicates-report
  tinyfind duplicates-report --json path:2019 | jq .spare_bytes
  tinyfind duplicates-report -0 --exact | xargs -0 gio trash

Exit codes: 0 something is there twice, 1 nothing is, 2 an error."
)]
pub(crate) struct DuplicatesArgs {
    /// Fields that photos must fit, as in `tinyfind search`
    #[arg(value_name = "FIELD")]
    fields: Vec<String>,

    #[command(flatten)]
    listing: Listing,

    /// List copies only
    #[arg(long, conflicts_with_all = ["distance", "likeness", "read_files"])]
    exact: bool,

    /// The most bits of 64 in which near duplicates may differ, 0 to 7
    #[arg(long, value_name = "BITS", default_value_t = FARTHEST)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=i64::from(FARTHEST)))]
    distance: u32,

    /// How alike the vectors of near duplicates must be, 0 to 1
    #[arg(long, value_name = "SCORE", default_value_t = DuplicateOptions::default().likeness)]
    #[arg(value_parser = score, allow_negative_numbers = true)]
    likeness: f32,

    /// Read the files of photos that were indexed before perceptual hashes were kept
    #[arg(long)]
    read_files: bool,
}

#[derive(Debug, Serialize)]
struct JsonGroup<'a> {
    kind: &'static str,
    spare_bytes: u64,
    photos: Vec<JsonMember<'a>>,
}

#[derive(Debug, Serialize)]
struct JsonMember<'a> {
    keep: bool,
    kind: Option<&'static str>,
    distance: Option<u32>,
    likeness: Option<f32>,
    #[serde(flatten)]
    path: JsonPath,
    hash: String,
    bytes: u64,
    format: &'a str,
    width: u32,
    height: u32,
    taken: Option<String>,
    taken_from: Option<TakenSource>,
}

impl<'a> JsonMember<'a> {
    fn new(member: &'a Member, keep: bool) -> Self {
        let metadata = &member.metadata;
        let (distance, likeness) = match member.kind {
            Kind::Near { distance, likeness } => (Some(distance), Some(likeness)),
            Kind::Exact => (None, None),
        };
        Self {
            keep,
            kind: (!keep).then(|| name(member.kind)),
            distance,
            likeness,
            path: member.path.as_path().into(),
            hash: member.hash.to_hex(),
            bytes: member.bytes,
            format: &metadata.format,
            width: metadata.width,
            height: metadata.height,
            taken: metadata.taken.as_ref().map(date_and_time),
            taken_from: metadata.taken.map(|taken| taken.source),
        }
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Exact => "exact",
        Kind::Near { .. } => "near",
    }
}

pub(crate) fn run(
    args: &DuplicatesArgs,
    globals: &Globals,
    printer: &mut Printer,
) -> anyhow::Result<Outcome> {
    let filter = similar::fields(&args.fields)?;
    let reader = open::open_index(globals)?;
    let options = DuplicateOptions {
        exact_only: args.exact,
        distance: args.distance,
        likeness: args.likeness,
        read_files: args.read_files,
    };
    let report = duplicates(&reader, &filter, options)?;
    for (number, group) in report.groups.iter().enumerate() {
        match args.listing.form() {
            Form::Text => print_group(printer, group, number > 0)?,
            Form::Json => print_group_as_json(printer, group)?,
            Form::Paths(end) => {
                for member in &group.others {
                    print_path(printer, &member.path, end)?;
                }
            }
        }
    }
    tell(&report, printer);
    Ok(if report.groups.is_empty() { Outcome::Nothing } else { Outcome::Done })
}

fn print_group_as_json(printer: &mut Printer, group: &Group) -> io::Result<()> {
    let photos = group.members().enumerate();
    let group = JsonGroup {
        kind: if group.is_exact() { "exact" } else { "near" },
        spare_bytes: group.spare_bytes(),
        photos: photos.map(|(place, member)| JsonMember::new(member, place == 0)).collect(),
    };
    print_json(printer, &group)
}

/// A line for each photo, in columns, behind an empty line if `apart`.
fn print_group(printer: &mut Printer, group: &Group, apart: bool) -> io::Result<()> {
    let rows: Vec<(&Member, [String; 3])> = group
        .members()
        .map(|member| {
            let metadata = &member.metadata;
            let date = metadata.taken.as_ref().map_or_else(|| "no date".to_owned(), date_and_time);
            let size = format!("{} x {}", metadata.width, metadata.height);
            (member, [units::bytes(member.bytes), size, date])
        })
        .collect();
    let width = |column: usize| rows.iter().map(|(_, it)| it[column].len()).max().unwrap_or(0);
    let (bytes_width, size_width, date_width) = (width(0), width(1), width(2));
    if apart {
        writeln!(printer.stdout())?;
    }
    for (place, (member, [bytes, size, date])) in rows.iter().enumerate() {
        let what = if place == 0 { "keep" } else { name(member.kind) };
        let what = format!("{what:<5}");
        let what = if place == 0 { printer.paint(STRONG, &what) } else { what };
        let facts = format!("{bytes:>bytes_width$}  {size:<size_width$}  {date:<date_width$}");
        let facts = printer.paint(FAINT, &facts);
        write!(printer.stdout(), "{what}  {facts}  ")?;
        printer.path(&member.path)?;
        writeln!(printer.stdout())?;
    }
    Ok(())
}

/// Says what it comes to, and what the report does not know.
fn tell(report: &Report, printer: &mut Printer) {
    let groups = report.groups.len() as u64;
    let others: usize = report.groups.iter().map(|group| group.others.len()).sum();
    let spare = report.groups.iter().map(Group::spare_bytes).sum();
    if groups == 0 {
        printer.note("nothing is there twice");
    } else {
        printer.note(&format!(
            "{}: {} beside those to keep, {}",
            units::counted(groups, "group", "groups"),
            units::counted(others as u64, "photo", "photos"),
            units::bytes(spare)
        ));
    }
    for (count, what) in [
        (report.gone, "because the file is gone"),
        (report.changed, "because the file has another size than when it was indexed"),
    ] {
        if count > 0 {
            let photos = units::counted(count, "photo was", "photos were");
            printer.note(&format!("{photos} left out {what}"));
        }
    }
    if report.gone + report.changed > 0 {
        printer.hint("`tinyfind index FOLDER` brings the index up to date");
    }
    if report.unhashed > 0 {
        let photos = units::counted(report.unhashed, "photo was", "photos were");
        printer.note(&format!(
            "{photos} indexed by an earlier version and compared by their bytes only"
        ));
        printer.hint("`--read-files` reads them, to find near duplicates among them as well");
    }
}
