//! The embed phase: reading threads, the model's thread, and this one, which writes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    num::NonZeroUsize,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tinyfind_index::{ContentHash, Features, FileStamp, NewPhoto, WriteError};

use super::plan::{Before, Job, Plan};
use super::read::{Contents, Memory, Outcome, Read, Readers, Window};
use super::{IndexError, Phase, Run};
use crate::crawl::Problem;
use crate::decode::DecodedImage;
use crate::vlm::{self, Vlm, VlmError};

/// How long the model waits for more photos to fill a batch.
const FILL: Duration = Duration::from_millis(100);

/// The most files of a batch, photos or not.
const MOST_STEPS: usize = 256;

/// Batches that may wait to be written.
const BATCHES_TO_WRITE: usize = 2;

/// The stamp of no file: what has it is read again by every run.
const NEVER: FileStamp = FileStamp { size: 0, mtime_ns: i64::MIN };

/// What is to be written for one job.
enum Step {
    Embedded { photo: Read, features: Features },
    Other(Outcome),
}

/// Steps by job, in the order of the jobs; or what stopped the model.
type Batch = vlm::Result<Vec<(usize, Step)>>;

/// What the writing side remembers over the whole phase.
#[derive(Default)]
struct Ledger {
    /// Paths to forget, less those whose content turned up elsewhere.
    gone: BTreeSet<PathBuf>,
    /// Contents that cannot be decoded, and why.
    failures: HashMap<ContentHash, String>,
    /// Jobs to do again: their content was in the index when they were read, and is no more.
    again: Vec<usize>,
    /// Those contents.
    lost: Vec<ContentHash>,
}

impl Run<'_> {
    /// Reads, embeds and writes all that `plan` says, and forgets what is gone.
    pub(super) fn embed(
        &mut self,
        vlm: &mut dyn Vlm,
        plan: Plan,
        threads: Option<NonZeroUsize>,
    ) -> Result<(), IndexError> {
        self.reporter.phase_started(Phase::Embed, plan.jobs.len() as u64);
        let result = self.embed_all(vlm, plan, threads);
        self.reporter.phase_ended(Phase::Embed);
        result
    }

    fn embed_all(
        &mut self,
        vlm: &mut dyn Vlm,
        plan: Plan,
        threads: Option<NonZeroUsize>,
    ) -> Result<(), IndexError> {
        for file in plan.unsupported {
            if let Some(kind) = file.unreadable {
                self.writer.fail(&file.path, file.stamp, &kind.to_string())?;
            }
        }
        let threads = threads.or_else(|| thread::available_parallelism().ok());
        let threads = threads.map_or(1, NonZeroUsize::get);
        let contents = Contents::new(plan.known);
        let mut ledger = Ledger { gone: plan.gone, ..Ledger::default() };
        let mut jobs = plan.jobs;
        // A job that has to be done again is computed then, so twice is enough.
        for _ in 0..2 {
            if jobs.is_empty() {
                break;
            }
            if !self.embed_jobs(&mut *vlm, &jobs, threads, &contents, &mut ledger)? {
                self.summary.interrupted = true;
                return self.commit();
            }
            contents.settle(&std::mem::take(&mut ledger.lost));
            let again: HashSet<usize> = ledger.again.drain(..).collect();
            let mut number = 0..;
            jobs.retain(|_| number.next().is_some_and(|number| again.contains(&number)));
        }
        for path in ledger.gone {
            self.writer.remove(&path)?;
            self.summary.removed += 1;
        }
        self.commit()
    }

    /// One pass over `jobs`. Gives false where it was told to stop before the end.
    fn embed_jobs(
        &mut self,
        vlm: &mut dyn Vlm,
        jobs: &[Job],
        threads: usize,
        contents: &Contents,
        ledger: &mut Ledger,
    ) -> Result<bool, IndexError> {
        let batch = vlm.embed_batch().max(1);
        let length = 2 * batch + 4 * threads;
        let window = Window::new(length, self.cancel);
        let memory = Memory::new();
        let readers =
            Readers { jobs, window: &window, contents, memory: &memory, side: vlm.input_size() };
        // No job outside the window is under way, so nobody waits to send an outcome.
        let (outcomes, read) = bounded(length);
        let (batches, to_write) = bounded(BATCHES_TO_WRITE);
        let cancel = self.cancel;
        thread::scope(|scope| {
            for _ in 0..threads.min(jobs.len()) {
                let outcomes = outcomes.clone();
                scope.spawn(|| {
                    let outcomes = outcomes;
                    readers.work(&outcomes);
                });
            }
            drop(outcomes);
            let window = &window;
            scope.spawn(move || {
                let _closing = window.close_on_drop();
                embed_in_order(vlm, batch, &read, &batches, window, cancel);
            });
            // Dropped before the threads are waited for: whoever has more to say then may not
            // wait to be heard.
            let to_write = to_write;
            self.write(&to_write, jobs, ledger)
        })
    }

    /// Writes what comes from the model until there is no more; whether that was everything.
    fn write(
        &mut self,
        batches: &Receiver<Batch>,
        jobs: &[Job],
        ledger: &mut Ledger,
    ) -> Result<bool, IndexError> {
        let mut written = 0;
        loop {
            let batch = if self.writer.pending() > 0 {
                batches.recv_timeout(self.until_commit())
            } else {
                batches.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match batch {
                Ok(Ok(steps)) => {
                    for (number, step) in steps {
                        let redo = ledger.again.len();
                        self.write_step(number, &jobs[number], step, ledger)?;
                        written += 1;
                        if redo == ledger.again.len() {
                            self.reporter.advanced(Phase::Embed, 1);
                        }
                    }
                    self.commit_if_due()?;
                }
                Ok(Err(error)) => return Err(self.model_failed(error)),
                Err(RecvTimeoutError::Timeout) => self.commit()?,
                Err(RecvTimeoutError::Disconnected) => return Ok(written == jobs.len()),
            }
        }
    }

    fn write_step(
        &mut self,
        number: usize,
        job: &Job,
        step: Step,
        ledger: &mut Ledger,
    ) -> Result<(), IndexError> {
        match step {
            Step::Embedded { photo, features } => {
                let (hash, stamp) = (photo.hash, photo.stamp);
                match self.writer.add(new_photo(job, photo), features) {
                    Ok(_) => self.count_placed(job),
                    Err(error @ WriteError::NotFinite { .. }) => {
                        ledger.failures.insert(hash, error.to_string());
                        self.fail(job, stamp, &error.to_string())?;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Step::Other(Outcome::Known { photo } | Outcome::Fresh { photo, .. }) => {
                self.write_known(number, job, photo, ledger)?;
            }
            Step::Other(Outcome::Same { stamp }) => {
                self.writer.touch(&job.path, stamp)?;
                self.summary.touched += 1;
            }
            Step::Other(Outcome::Failed { stamp, hash, reason }) => {
                self.fail(job, stamp, &reason)?;
                ledger.failures.extend(hash.map(|hash| (hash, reason)));
            }
            Step::Other(Outcome::Unread { reason }) => {
                if matches!(job.before, Before::Photo(_)) {
                    // The photo that the index has of this path may still be there. It stays,
                    // so this is not one of the failures that the index lists.
                    self.summary.problems.push(Problem { path: job.path.clone(), reason });
                } else {
                    self.fail(job, NEVER, &reason)?;
                }
            }
            Step::Other(Outcome::Vanished) => {
                if job.before != Before::Nothing {
                    self.writer.remove(&job.path)?;
                    self.summary.removed += 1;
                }
            }
        }
        Ok(())
    }

    /// Writes a photo whose content the index holds: under its new path, or as a copy.
    fn write_known(
        &mut self,
        number: usize,
        job: &Job,
        mut photo: Read,
        ledger: &mut Ledger,
    ) -> Result<(), IndexError> {
        if let Some(reason) = ledger.failures.get(&photo.hash) {
            return self.fail(job, photo.stamp, reason);
        }
        let holders = self.writer.find_content(&photo.hash)?;
        let moved = holders.iter().map(|(_, path)| path).filter(|path| ledger.gone.contains(*path));
        if let Some(from) = moved.min()
            && !matches!(job.before, Before::Photo(_))
        {
            self.writer.rename(from, &job.path, photo.stamp)?;
            ledger.gone.remove(from);
            self.summary.renamed += 1;
        } else if let Some(&(original, _)) = holders.iter().min() {
            if photo.metadata.picture_hash.is_none() {
                // A copy was not decoded, but its original was.
                photo.metadata.picture_hash = self.writer.metadata(original)?.picture_hash;
            }
            self.writer.add_copy(new_photo(job, photo), original)?;
            self.count_placed(job);
            self.summary.copied += 1;
        } else {
            // The path that held it was given another content in the meantime.
            ledger.again.push(number);
            ledger.lost.push(photo.hash);
        }
        Ok(())
    }

    fn count_placed(&mut self, job: &Job) {
        match job.before {
            Before::Photo(_) => self.summary.updated += 1,
            Before::Nothing | Before::Failed => self.summary.added += 1,
        }
    }

    fn fail(&mut self, job: &Job, stamp: FileStamp, reason: &str) -> Result<(), IndexError> {
        self.writer.fail(&job.path, stamp, reason)?;
        self.summary.failed += 1;
        self.reporter.failed(&job.path, reason);
        Ok(())
    }
}

fn new_photo(job: &Job, photo: Read) -> NewPhoto {
    let Read { hash, stamp, metadata } = photo;
    NewPhoto { path: job.path.clone(), stamp, hash, metadata }
}

/// What the model's thread does: takes what was read, in the order of the jobs, and embeds
/// photos in batches of `most`.
fn embed_in_order(
    vlm: &mut dyn Vlm,
    most: usize,
    read: &Receiver<(usize, Outcome)>,
    batches: &Sender<Batch>,
    window: &Window<'_>,
    cancel: &AtomicBool,
) {
    let mut queue = Queue { read, window, waiting: BTreeMap::new(), next: 0 };
    let mut computed: HashSet<ContentHash> = HashSet::new();
    loop {
        let mut images = Vec::new();
        let mut steps = Vec::new();
        let mut deadline = None;
        while images.len() < most && steps.len() < MOST_STEPS {
            let Some((number, outcome)) = queue.take(deadline) else { break };
            deadline.get_or_insert_with(|| Instant::now() + FILL);
            match outcome {
                // Two files of the same content were read at the same time: the first is
                // computed, the other is its copy.
                Outcome::Fresh { photo, image } if computed.insert(photo.hash) => {
                    images.push(image);
                    steps.push((number, Pending::Image(photo)));
                }
                outcome => steps.push((number, Pending::Other(outcome))),
            }
        }
        if steps.is_empty() || cancel.load(Ordering::Relaxed) {
            return;
        }
        let batch = embed_batch(vlm, &images, steps);
        let failed = batch.is_err();
        if batches.send(batch).is_err() || failed {
            return;
        }
    }
}

/// A step that may still wait for the features of its image.
enum Pending {
    Image(Read),
    Other(Outcome),
}

fn embed_batch(vlm: &mut dyn Vlm, images: &[DecodedImage], steps: Vec<(usize, Pending)>) -> Batch {
    let features = if images.is_empty() { Vec::new() } else { vlm.embed_images(images)? };
    if features.len() != images.len() {
        let (got, wanted) = (features.len(), images.len());
        return Err(VlmError::new(format!("the model embedded {got} of {wanted} photos")));
    }
    let mut features = features.into_iter();
    let finished = steps.into_iter().filter_map(|(number, step)| {
        let step = match step {
            Pending::Image(photo) => Step::Embedded { photo, features: features.next()? },
            Pending::Other(outcome) => Step::Other(outcome),
        };
        Some((number, step))
    });
    Ok(finished.collect())
}

/// What was read, put back into the order of the jobs.
struct Queue<'a> {
    read: &'a Receiver<(usize, Outcome)>,
    window: &'a Window<'a>,
    waiting: BTreeMap<usize, Outcome>,
    next: usize,
}

impl Queue<'_> {
    /// The next outcome in order, or `None` if it does not come before `deadline`, or never.
    fn take(&mut self, deadline: Option<Instant>) -> Option<(usize, Outcome)> {
        loop {
            if let Some(outcome) = self.waiting.remove(&self.next) {
                self.next += 1;
                self.window.advance();
                return Some((self.next - 1, outcome));
            }
            let (number, outcome) = match deadline {
                Some(deadline) => self.read.recv_deadline(deadline).ok()?,
                None => self.read.recv().ok()?,
            };
            self.waiting.insert(number, outcome);
        }
    }
}
