//! `tinyfind index`: folders of photos into the index.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Context as _;
use clap::{ArgGroup, Args};
use tinyfind_index::{IndexReader, IndexWriter, ModelSpec};

use super::globals::Globals;
use super::printer::Printer;
use super::progress::{Progress, Speaker};
use super::report::hinted;
use super::{Outcome, folders, open, positive, units, upkeep};
use crate::crawl::Pattern;
use crate::indexer::{self, IndexRequest, Phase, Planned, Reporter, Summary};

/// Look at photos once, so that they can be found.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
#[command(group = ArgGroup::new("upkeep").args(["check", "compact"]))]
#[command(after_help = "Photos can be found by what they show as soon as they are embedded, and by
words once they have a caption. Ctrl-C finishes the batch in flight; the same
command goes on from there. Files that did not change are not opened again.

Examples:
  tinyfind index ~/Photos
  tinyfind index ~/Photos /mnt/camera --exclude thumbnails --exclude '*.gif'
  tinyfind index --retry-failed ~/Photos
  tinyfind index --check
  tinyfind index --compact

JSON keys of --check: index, sound, generation, photos, captioned, failed, contents,
unused_records (null where the index cannot be opened), catalog (state: checked,
damaged or skipped; paths, contents, is_ahead; reason), problems.
JSON keys of --compact: index, complete, segments, moved, freed_bytes, problems.
Exit codes: 0 all is indexed or sound, 2 something failed or is damaged, or the run
was stopped.")]
pub(crate) struct IndexArgs {
    /// Folders and files to index
    #[arg(required_unless_present_any = ["check", "compact", "rebuild"], value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// Leave out files and folders whose name or path matches; photos that match leave the index
    #[arg(long, value_name = "PATTERN", value_parser = Pattern::new)]
    exclude: Vec<Pattern>,

    /// Try files again that failed before and did not change
    #[arg(long)]
    retry_failed: bool,

    /// Leave the captions for another run
    #[arg(long)]
    no_caption: bool,

    /// Follow links to files and folders
    #[arg(long)]
    follow_links: bool,

    /// Forget the photos of folders that are missing or empty, which are kept otherwise: their
    /// disk may not be mounted
    #[arg(long)]
    prune: bool,

    /// Write the text index anew from the catalogue; without PATH do nothing else, and need no
    /// model
    #[arg(long)]
    rebuild: bool,

    /// Look at no photo, but verify every checksum of the index and every reference from one
    /// part of it to another
    #[arg(long, conflicts_with_all = ["paths", "rebuild", "prune", "retry_failed"])]
    check: bool,

    /// Look at no photo, but give back the space of photos that left the index; a run does so by
    /// itself with parts of the index of which they are half
    #[arg(long, conflicts_with_all = ["paths", "rebuild", "prune", "retry_failed"])]
    compact: bool,

    /// Print what the check found, or what was given back, as one JSON object
    #[arg(long, requires = "upkeep")]
    json: bool,

    /// Threads that read photos [default: one for each core]
    #[arg(long, short = 'j', value_name = "N", value_parser = positive)]
    threads: Option<NonZeroUsize>,
}

pub(crate) fn run(
    args: &IndexArgs,
    globals: &Globals,
    printer: &mut Printer,
) -> anyhow::Result<Outcome> {
    let folder = folders::index(globals)?;
    if args.check {
        return upkeep::check(&folder, args.json, printer);
    }
    if args.compact {
        return upkeep::compact(&folder, args.json, globals, printer);
    }
    if args.rebuild && args.paths.is_empty() {
        return upkeep::rebuild(&folder, printer);
    }
    // The model of the index goes on with it, whichever else is installed.
    let made_by = IndexReader::open(&folder).ok().and_then(|reader| reader.bound_to().cloned());
    let mut vlm = open::open_bundle(globals, made_by.as_ref(), printer)?;
    check_parts(vlm.spec())?;
    let can_caption = vlm.config().language.is_some();
    let open_writer = if args.rebuild { IndexWriter::rebuild } else { IndexWriter::open };
    let mut writer = open_writer(&folder, vlm.spec()).map_err(open::explain_open)?;
    let request = IndexRequest {
        roots: args.paths.clone(),
        exclude: args.exclude.clone(),
        follow_links: args.follow_links,
        no_caption: args.no_caption || !can_caption,
        retry_failed: args.retry_failed,
        prune: args.prune,
        threads: args.threads,
    };
    let mut teller = Teller { progress: Progress::new(globals), failures: 0 };
    let cancel = cancel_on_signal(teller.progress.speaker().clone())?;
    let begun = Instant::now();
    let summary = indexer::run(&mut writer, &mut vlm, &request, &mut teller, &cancel);
    let Teller { mut progress, .. } = teller;
    progress.end();
    let summary = summary?;
    tell_what_was_done(&summary, begun, printer);
    let given_back =
        upkeep::give_back(&mut writer, upkeep::BY_ITSELF, &mut progress, &cancel, printer)?;
    drop(progress);
    tell_what_is_left(&summary, printer);
    if !can_caption && !args.no_caption {
        printer.note(&format!(
            "no captions were written: the model `{}` has no language part",
            vlm.spec().name
        ));
    }
    let failed = summary.failed > 0
        || !summary.problems.is_empty()
        || summary.interrupted
        || !given_back.problems.is_empty();
    Ok(if failed { Outcome::Failed } else { Outcome::Done })
}

/// Refuses a model that cannot index before it leaves an index that no other may go on with.
fn check_parts(spec: &ModelSpec) -> anyhow::Result<()> {
    let (missing, flags) = match (spec.embedding_dim, spec.token_dim) {
        (0, _) => ("retrieval", "`--retrieval` and `--retrieval-vocab`"),
        (_, 0) => ("captioning", "`--qformer`"),
        _ => return Ok(()),
    };
    Err(hinted(
        anyhow::anyhow!("the model `{}` has no {missing} part and cannot index", spec.name),
        format!("import it again with {flags}, or name another with `--model`"),
    ))
}

/// A flag that the first Ctrl-C (or SIGTERM) sets; the second ends the program.
pub(super) fn cancel_on_signal(speaker: Speaker) -> anyhow::Result<Arc<AtomicBool>> {
    let cancel = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&cancel);
    let on_signal = move || {
        if flag.swap(true, Ordering::Relaxed) {
            #[expect(clippy::exit, reason = "asked for twice; what is committed is safe")]
            std::process::exit(130);
        }
        speaker.say("stopping after the batch in flight; Ctrl-C again stops at once");
    };
    ctrlc::set_handler(on_signal).context("cannot listen for Ctrl-C")?;
    Ok(cancel)
}

/// Most failures that are told while the job runs; the rest is told by `tinyfind failures`.
const FAILURES_TOLD: u64 = 20;

/// Shows how the job goes.
struct Teller {
    progress: Progress,
    failures: u64,
}

impl Reporter for Teller {
    fn crawling(&mut self, files: usize) {
        if files == 0 {
            self.progress.begin("looking", None);
        }
        self.progress.at(files as u64);
    }

    fn planned(&mut self, planned: &Planned) {
        self.progress.end();
        let mut parts = Vec::new();
        for (count, what) in [
            (planned.new, "new"),
            (planned.changed, "changed"),
            (planned.retried, "to try again"),
            (planned.gone, "gone"),
            (planned.unchanged, "unchanged"),
        ] {
            if count > 0 {
                parts.push(format!("{} {what}", units::count(count)));
            }
        }
        if !parts.is_empty() {
            self.progress.speaker().say(&format!("found: {}", parts.join(", ")));
        }
    }

    fn phase_started(&mut self, phase: Phase, total: u64) {
        let name = match phase {
            Phase::Embed => "embedding",
            Phase::Caption => "captioning",
        };
        self.progress.begin(name, Some(total));
    }

    fn advanced(&mut self, _phase: Phase, by: u64) {
        self.progress.advance(by);
    }

    fn failed(&mut self, path: &Path, reason: &str) {
        self.failures += 1;
        let speaker = self.progress.speaker();
        if self.failures <= FAILURES_TOLD {
            speaker.say(&format!("failed: `{}` {reason}", path.display()));
        }
        if self.failures == FAILURES_TOLD {
            speaker.say("further failures are not told here");
        }
    }

    fn phase_ended(&mut self, _phase: Phase) {
        self.progress.end();
    }
}

/// One line of numbers.
fn tell_what_was_done(summary: &Summary, begun: Instant, printer: &mut Printer) {
    let mut parts = Vec::new();
    for (count, what) in [
        (summary.added, "added"),
        (summary.updated, "updated"),
        (summary.renamed, "moved"),
        (summary.removed, "removed"),
        (summary.unchanged + summary.touched, "unchanged"),
        (summary.captioned, "captioned"),
        (summary.failed, "failed"),
    ] {
        if count > 0 {
            parts.push(format!("{} {what}", units::count(count)));
        }
    }
    if parts.is_empty() {
        parts.push("no photos".to_owned());
    }
    let time = units::duration(begun.elapsed());
    printer.note(&format!("{} in {time}", parts.join(", ")));
}

/// Everything that keeps the folders from being indexed in full, and the next step.
fn tell_what_is_left(summary: &Summary, printer: &mut Printer) {
    for (kind, count) in &summary.unsupported {
        let one = format!("{} photo was", kind.name());
        let many = format!("{} photos were", kind.name());
        let photos = units::counted(*count, &one, &many);
        printer.note(&format!("{photos} left out; convert to JPEG what you want to find"));
    }
    if summary.videos > 0 {
        let videos = units::counted(summary.videos, "video was", "videos were");
        printer.note(&format!("{videos} passed by"));
    }
    for problem in &summary.problems {
        printer.warn(&format!("`{}` {}", problem.path.display(), problem.reason));
    }
    for (root, count) in &summary.kept {
        let photos = units::counted(*count, "photo", "photos");
        printer.warn(&format!(
            "`{}` is missing or empty; the {photos} that the index holds of it were kept \
             (`--prune` forgets them)",
            root.display()
        ));
    }
    if summary.failed > 0 {
        printer.hint("`tinyfind failures` lists what failed, and why");
    } else if summary.still_failed > 0 {
        let files = units::counted(summary.still_failed, "file", "files");
        printer.note(&format!("{files} failed before (`--retry-failed` tries them again)"));
    }
    if summary.interrupted {
        printer.hint("stopped; run the same command again to go on from here");
    }
}
