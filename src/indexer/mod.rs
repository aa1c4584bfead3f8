//! Folders of photos into an index: crawl, compare, embed, caption.
//!
//! A run first compares what lies in the folders with what the index knows (`plan`), by
//! path, size and modification time alone: what stands unchanged is not opened. Then it goes
//! through two phases:
//!
//! - *embed*: threads read and decode (`read`); one thread runs the model over batches
//!   (`embed`); this one writes. Channels of fixed length join them, so the device never
//!   waits for a decoder and memory stays bounded. Content that the index holds already, or
//!   that was met earlier in the run, is not computed again, and a photo that moved keeps its
//!   number and caption.
//! - *caption*: the model describes photos from their stored visual tokens, without opening
//!   them (`caption`).
//!
//! Both phases commit every few seconds, so a search sees how far they have come and a run
//! that is stopped, or killed, is taken up where it was. Photos enter the index in the order
//! of their paths, however many threads read them: what the index holds at the end does not
//! depend on how often it was stopped on the way.

mod caption;
mod embed;
mod plan;
mod read;

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use tinyfind_index::{IndexWriter, WriteError};

use crate::{
    crawl::{self, CrawlOptions, Pattern, Problem},
    decode::Unreadable,
    vlm::{Vlm, VlmError},
};

/// What is to be indexed, and how.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct IndexRequest {
    /// Folders and files.
    pub roots: Vec<PathBuf>,
    /// What to leave out; photos that match leave the index.
    pub exclude: Vec<Pattern>,
    /// Whether links are followed; roots always are.
    pub follow_links: bool,
    /// Leaves the caption phase for another time.
    pub no_caption: bool,
    /// Reads files again that could not be read before, even if they did not change.
    pub retry_failed: bool,
    /// Forgets the photos of roots that are missing or empty, which are kept otherwise: the
    /// disk that they lie on may not be mounted.
    pub prune: bool,
    /// Threads that read and decode; all cores if `None`.
    pub threads: Option<NonZeroUsize>,
}

impl IndexRequest {
    /// A request for these folders and files with nothing out of the ordinary.
    pub fn new(roots: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        Self { roots: roots.into_iter().map(Into::into).collect(), ..Self::default() }
    }
}

/// What a run did, in numbers of files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Photos that the index did not have.
    pub added: u64,
    /// Photos whose content changed.
    pub updated: u64,
    /// Of both, those whose content was there already, so that nothing was computed.
    pub copied: u64,
    /// Photos that were found under another path, with nothing computed.
    pub renamed: u64,
    /// Files that were written anew with the same content.
    pub touched: u64,
    /// Files that the index forgot because they are gone.
    pub removed: u64,
    /// Photos that stand as they were and were not opened.
    pub unchanged: u64,
    /// Files that could not be read in this run; the index lists them with the reason.
    pub failed: u64,
    /// Files that failed in an earlier run, did not change, and were not tried again.
    pub still_failed: u64,
    /// Photos that were given a caption.
    pub captioned: u64,
    /// Photos in formats that have no decoder here, by format, whether new or not.
    pub unsupported: BTreeMap<Unreadable, u64>,
    /// Videos, which are passed by.
    pub videos: u64,
    /// Folders and files that could not be looked at; the photos that the index has of them and
    /// below them stay as they were.
    pub problems: Vec<Problem>,
    /// Roots that are missing or empty although the index holds photos of them, with their
    /// number: they were kept.
    pub kept: Vec<(PathBuf, u64)>,
    /// Whether the run was told to stop before it was done.
    pub interrupted: bool,
}

/// Why a run ended early. What it had done until then is committed, unless the index itself
/// failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The model could not do its work.
    #[error("the model failed; what was done before is in the index")]
    Model {
        /// What the model said.
        source: VlmError,
    },
    /// The index could not be read or written.
    #[error("the index could not be written")]
    Write {
        /// What the index said.
        #[from]
        source: WriteError,
    },
}

/// One of the two phases of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Reading and embedding: counts files.
    Embed,
    /// Captioning: counts photos.
    Caption,
}

/// What a run is about to do, in numbers of files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Planned {
    /// Files that the index does not know.
    pub new: u64,
    /// Files whose size or time changed.
    pub changed: u64,
    /// Files that failed before and are tried again.
    pub retried: u64,
    /// Files that are gone; some of them may be found again under another path.
    pub gone: u64,
    /// Files that stand as they were, those that failed before included.
    pub unchanged: u64,
}

/// Is told how a run goes, from the thread that called [`run`]. Every method may be left out.
pub trait Reporter {
    /// The crawl has found `files` files so far.
    fn crawling(&mut self, files: usize) {
        let _ = files;
    }

    /// The crawl is over and this is what comes next.
    fn planned(&mut self, planned: &Planned) {
        let _ = planned;
    }

    /// A phase begins that has `total` to do, and may turn out to have a little less.
    fn phase_started(&mut self, phase: Phase, total: u64) {
        let _ = (phase, total);
    }

    /// So much more of the phase is done.
    fn advanced(&mut self, phase: Phase, by: u64) {
        let _ = (phase, by);
    }

    /// A file could not be read, for this reason.
    fn failed(&mut self, path: &Path, reason: &str) {
        let _ = (path, reason);
    }

    /// Everything so far is durable and can be searched.
    fn committed(&mut self, generation: u64) {
        let _ = generation;
    }

    /// A phase is over, or was stopped.
    fn phase_ended(&mut self, phase: Phase) {
        let _ = phase;
    }
}

/// Tells nobody.
impl Reporter for () {}

/// Brings the index up to date with the folders of `request`.
///
/// Once `cancel` is true, the batch in flight is finished and committed, and the summary of
/// what was done says that the run was [interrupted](Summary::interrupted); another run goes
/// on from there.
///
/// # Errors
///
/// When the model or the index fails. A photo that cannot be read is no error: it is counted
/// in the summary, told to the reporter, and noted in the index with the reason.
pub fn run(
    writer: &mut IndexWriter,
    vlm: &mut dyn Vlm,
    request: &IndexRequest,
    reporter: &mut dyn Reporter,
    cancel: &AtomicBool,
) -> Result<Summary, IndexError> {
    let options =
        CrawlOptions { exclude: request.exclude.clone(), follow_links: request.follow_links };
    let crawled = crawl::crawl(&request.roots, &options, &mut |files| {
        reporter.crawling(files);
        !cancel.load(Ordering::Relaxed)
    });
    let Some(crawled) = crawled else {
        return Ok(Summary { interrupted: true, ..Summary::default() });
    };
    let (plan, summary) = plan::plan(writer, crawled, request)?;
    reporter.planned(&plan.counts());
    let mut run = Run { writer, reporter, cancel, summary, committed: Instant::now() };
    run.embed(vlm, plan, request.threads)?;
    if !request.no_caption && !run.summary.interrupted {
        run.caption(vlm)?;
    }
    Ok(run.summary)
}

/// A commit is due after so many changes...
const CHANGES_A_COMMIT: usize = 512;

/// ... or after so long. At most this much work is done again after a kill.
const COMMIT_EVERY: Duration = Duration::from_secs(5);

/// A run under way, on the thread that writes.
struct Run<'a> {
    writer: &'a mut IndexWriter,
    reporter: &'a mut dyn Reporter,
    cancel: &'a AtomicBool,
    summary: Summary,
    committed: Instant,
}

impl Run<'_> {
    fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    /// Commits what is pending.
    fn commit(&mut self) -> Result<(), IndexError> {
        if self.writer.pending() > 0 {
            let generation = self.writer.commit()?;
            self.reporter.committed(generation);
        }
        self.committed = Instant::now();
        Ok(())
    }

    /// Commits what is pending if it is time to.
    fn commit_if_due(&mut self) -> Result<(), IndexError> {
        if self.writer.pending() >= CHANGES_A_COMMIT || self.until_commit().is_zero() {
            self.commit()?;
        }
        Ok(())
    }

    /// How long the next commit may wait.
    fn until_commit(&self) -> Duration {
        COMMIT_EVERY.saturating_sub(self.committed.elapsed())
    }

    /// Commits what was done before the model failed, and hands the failure on.
    fn model_failed(&mut self, source: VlmError) -> IndexError {
        match self.commit() {
            Ok(()) => IndexError::Model { source },
            Err(error) => error,
        }
    }
}
