//! Threads that read and decode files ahead of the model, in bounded memory.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::Sender;
use tinyfind_index::{ContentHash, FileStamp, PhotoMetadata};

use super::plan::{Before, Job};
use crate::decode::{DecodeError, DecodedImage, PhotoFile, picture_hash};

/// Memory that all decoders may hold together, in bytes, about; one photo may always be
/// decoded, whatever it takes.
const DECODE_MEMORY: u64 = 1 << 30;

/// Files longer than this have the memory for themselves before they are even read.
const LONG_FILE: u64 = 64 << 20;

/// What came of reading a file.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The content that the index has of this path.
    Same { stamp: FileStamp },
    /// A content that the index holds, or that a file earlier in this run has.
    Known { photo: Read },
    /// A content that must be computed.
    Fresh { photo: Read, image: DecodedImage },
    /// The content cannot be decoded.
    Failed { stamp: FileStamp, hash: Option<ContentHash>, reason: String },
    /// The file could not be read this time; what the index has of it may still be true.
    Unread { reason: String },
    /// The file was deleted after the crawl.
    Vanished,
}

/// A file that was read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) hash: ContentHash,
    pub(super) stamp: FileStamp,
    pub(super) metadata: PhotoMetadata,
}

/// What the reading threads share.
pub(super) struct Readers<'a> {
    pub(super) jobs: &'a [Job],
    pub(super) window: &'a Window<'a>,
    pub(super) contents: &'a Contents,
    pub(super) memory: &'a Memory,
    /// Side of the square that pictures are resized to, in pixels.
    pub(super) side: u32,
}

impl Readers<'_> {
    /// Reads jobs until there are no more or nobody wants them; what one reading thread does.
    pub(super) fn work(&self, outcomes: &Sender<(usize, Outcome)>) {
        let _closing = self.window.close_on_drop();
        while let Some(number) = self.window.take(self.jobs.len()) {
            let outcome = self.read(number, &self.jobs[number]);
            if outcomes.send((number, outcome)).is_err() {
                break;
            }
        }
    }

    fn read(&self, number: usize, job: &Job) -> Outcome {
        let held = if job.stamp.size > LONG_FILE { DECODE_MEMORY } else { job.stamp.size };
        let mut share = self.memory.take(held);
        let file = match PhotoFile::read(&job.path) {
            Ok(file) => file,
            Err(DecodeError::Io { source }) if source.kind() == io::ErrorKind::NotFound => {
                return Outcome::Vanished;
            }
            Err(error) if error.is_passing() => return Outcome::Unread { reason: error.reason() },
            Err(error) => {
                return Outcome::Failed { stamp: job.stamp, hash: None, reason: error.reason() };
            }
        };
        let (hash, stamp) = (file.hash(), file.stamp());
        if job.before == Before::Photo(hash) {
            return Outcome::Same { stamp };
        }
        let failed = |error: &DecodeError| Outcome::Failed {
            stamp,
            hash: Some(hash),
            reason: error.reason(),
        };
        let header = match file.header() {
            Ok(header) => header,
            Err(error) => return failed(&error),
        };
        let mut photo = Read { hash, stamp, metadata: header.metadata.clone() };
        if !self.contents.claim(hash, number) {
            return Outcome::Known { photo };
        }
        share.change_to(held + header.memory);
        match file.decode(&header, Some(self.side)) {
            Ok(image) => {
                photo.metadata.picture_hash = Some(picture_hash(&image));
                Outcome::Fresh { photo, image }
            }
            Err(error) => failed(&error),
        }
    }
}

/// Hands out the numbers of jobs, in order, and never runs far ahead of the first one that is
/// not done: what was read out of order has to wait for it in memory.
pub(super) struct Window<'a> {
    length: usize,
    cancel: &'a AtomicBool,
    state: Mutex<WindowState>,
    moved: Condvar,
}

#[derive(Default)]
struct WindowState {
    next: usize,
    done: usize,
    closed: bool,
}

impl<'a> Window<'a> {
    /// A window over `length` jobs that hands out no more once `cancel` is true.
    pub(super) fn new(length: usize, cancel: &'a AtomicBool) -> Self {
        Self { length, cancel, state: Mutex::default(), moved: Condvar::new() }
    }

    /// The number of the next of `jobs` jobs, as soon as it lies in the window.
    fn take(&self, jobs: usize) -> Option<usize> {
        let mut state = lock(&self.state);
        loop {
            if state.closed || state.next >= jobs || self.cancel.load(Ordering::Relaxed) {
                return None;
            }
            if state.next < state.done + self.length {
                state.next += 1;
                return Some(state.next - 1);
            }
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The first job that was not done is done.
    pub(super) fn advance(&self) {
        lock(&self.state).done += 1;
        self.moved.notify_all();
    }

    /// Hands out no more jobs once the guard is dropped: when a thread is done, or panics.
    pub(super) fn close_on_drop(&self) -> impl Drop + '_ {
        struct Closing<'a>(&'a Window<'a>);
        impl Drop for Closing<'_> {
            fn drop(&mut self) {
                lock(&self.0.state).closed = true;
                self.0.moved.notify_all();
            }
        }
        Closing(self)
    }
}

/// Which job computes which content.
pub(super) struct Contents {
    /// Number of the job that computes it; `None` for what the index holds.
    claims: Mutex<HashMap<ContentHash, Option<usize>>>,
}

impl Contents {
    /// The contents that the index holds.
    pub(super) fn new(known: impl IntoIterator<Item = ContentHash>) -> Self {
        let claims = known.into_iter().map(|hash| (hash, None)).collect();
        Self { claims: Mutex::new(claims) }
    }

    /// Whether job `number` has to compute `hash`: nobody before it does.
    fn claim(&self, hash: ContentHash, number: usize) -> bool {
        match lock(&self.claims).entry(hash) {
            Entry::Vacant(entry) => {
                entry.insert(Some(number));
                true
            }
            // A later job was faster. Both compute it, and the model sees the first.
            Entry::Occupied(mut entry) if entry.get().is_some_and(|other| other > number) => {
                entry.insert(Some(number));
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    /// All that was claimed is in the index now, apart from `lost`, which is not after all.
    pub(super) fn settle(&self, lost: &[ContentHash]) {
        let mut claims = lock(&self.claims);
        claims.values_mut().for_each(|claim| *claim = None);
        for hash in lost {
            claims.remove(hash);
        }
    }
}

/// Memory that decoders share.
pub(super) struct Memory {
    free: Mutex<u64>,
    freed: Condvar,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self { free: Mutex::new(DECODE_MEMORY), freed: Condvar::new() }
    }

    /// Waits for so many bytes, or for all there are where that is less.
    fn take(&self, bytes: u64) -> Share<'_> {
        let bytes = bytes.min(DECODE_MEMORY);
        let mut free = lock(&self.free);
        while *free < bytes {
            free = self.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= bytes;
        Share { memory: self, bytes }
    }
}

/// Memory in use by one decoder.
struct Share<'a> {
    memory: &'a Memory,
    bytes: u64,
}

impl Share<'_> {
    /// Gives back what it has and waits for another amount. (Waiting for more while holding
    /// some could have two threads wait for each other.)
    fn change_to(&mut self, bytes: u64) {
        if bytes.min(DECODE_MEMORY) > self.bytes {
            self.release();
            let mut share = self.memory.take(bytes);
            self.bytes = std::mem::take(&mut share.bytes);
        }
    }

    fn release(&mut self) {
        *lock(&self.memory.free) += std::mem::take(&mut self.bytes);
        self.memory.freed.notify_all();
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.release();
    }
}

/// The value of a mutex. Nothing in this file panics while it holds one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_window_hands_out_no_more_than_its_length_ahead() {
        let cancel = AtomicBool::new(false);
        let window = Window::new(2, &cancel);
        assert_eq!((window.take(9), window.take(9)), (Some(0), Some(1)));
        thread::scope(|scope| {
            let third = scope.spawn(|| window.take(9));
            thread::sleep(Duration::from_millis(20));
            assert!(!third.is_finished());
            window.advance();
            assert_eq!(third.join().unwrap(), Some(2));
            // Whoever waits is told when there is nothing more to come.
            let fourth = scope.spawn(|| window.take(9));
            thread::sleep(Duration::from_millis(20));
            drop(window.close_on_drop());
            assert_eq!(fourth.join().unwrap(), None);
        });
    }

    #[test]
    fn the_window_ends_with_the_jobs_and_on_cancel() {
        let cancel = AtomicBool::new(false);
        let window = Window::new(5, &cancel);
        assert_eq!((window.take(1), window.take(1)), (Some(0), None));
        cancel.store(true, Ordering::Relaxed);
        assert_eq!(window.take(9), None);
    }

    #[test]
    fn the_first_job_with_a_content_computes_it() {
        let hash = |byte| ContentHash([byte; 32]);
        let contents = Contents::new([hash(1)]);
        assert!(!contents.claim(hash(1), 0), "the index holds it");
        assert!(contents.claim(hash(2), 7));
        assert!(!contents.claim(hash(2), 8));
        assert!(contents.claim(hash(2), 3), "a later job was only faster");
        assert!(!contents.claim(hash(2), 7));
        contents.settle(&[hash(1)]);
        assert!(contents.claim(hash(1), 0), "it was lost");
        assert!(!contents.claim(hash(2), 0), "it was computed");
    }

    #[test]
    fn decoders_share_memory_and_never_block_each_other_for_good() {
        let memory = Memory::new();
        let in_use = Mutex::new((0_u64, 0_u64));
        let change = |by: i64| {
            let mut in_use = in_use.lock().unwrap();
            in_use.0 = in_use.0.checked_add_signed(by).unwrap();
            in_use.1 = in_use.1.max(in_use.0);
        };
        thread::scope(|scope| {
            for thread in 0..8_u64 {
                let (memory, change) = (&memory, &change);
                scope.spawn(move || {
                    for round in 0..200_u64 {
                        let mut share = memory.take(DECODE_MEMORY / 10 * ((thread + round) % 3));
                        share.change_to(DECODE_MEMORY / 7 * ((thread * round) % 16));
                        change(share.bytes as i64);
                        thread::yield_now();
                        change(-(share.bytes as i64));
                    }
                });
            }
        });
        let most = in_use.lock().unwrap().1;
        assert!(most <= DECODE_MEMORY && most > DECODE_MEMORY / 2, "{most}");
        assert_eq!(*lock(&memory.free), DECODE_MEMORY);
    }
}
