//! What a run has to do: the folders against the index, without opening a photo.

use std::collections::{BTreeSet, HashSet};
use std::iter::Peekable;
use std::path::{Path, PathBuf};

use tinyfind_index::{ContentHash, FileRecord, FileStamp, FileState, IndexWriter, WriteError};

use super::{IndexRequest, Planned, Summary};
use crate::crawl::{Crawled, ImageFile};

/// A file to be read.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) path: PathBuf,
    /// Size and time that the crawl saw.
    pub(super) stamp: FileStamp,
    pub(super) before: Before,
}

/// What the index knows of a file that is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    Nothing,
    Failed,
    Photo(ContentHash),
}

/// What a run has to do.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Files to read. Those that the index has no photo of come first: one of them may be
    /// the new place of a photo whose path holds something else now, and takes over its
    /// features before they go. Within that, in the byte order of their paths.
    pub(super) jobs: Vec<Job>,
    /// Files that need no reading to fail: no decoder knows their format.
    pub(super) unsupported: Vec<ImageFile>,
    /// Paths to forget, unless their content turns up elsewhere.
    pub(super) gone: BTreeSet<PathBuf>,
    /// Every content that the index holds.
    pub(super) known: HashSet<ContentHash>,
    unchanged: u64,
}

impl Plan {
    pub(super) fn counts(&self) -> Planned {
        let count = |wanted: fn(&Before) -> bool| {
            self.jobs.iter().filter(|job| wanted(&job.before)).count() as u64
        };
        Planned {
            new: count(|before| *before == Before::Nothing),
            changed: count(|before| matches!(before, Before::Photo(_))),
            retried: count(|before| *before == Before::Failed),
            gone: self.gone.len() as u64,
            unchanged: self.unchanged,
        }
    }
}

/// Compares a crawl with the index. Both are in the byte order of paths, so this is one walk
/// over the two. The summary has what is settled without doing anything.
pub(super) fn plan(
    writer: &IndexWriter,
    crawled: Crawled,
    request: &IndexRequest,
) -> Result<(Plan, Summary), WriteError> {
    let mut plan = Plan::default();
    let mut absent = Absent::new(&crawled);
    let mut summary = Summary { videos: crawled.videos, ..Summary::default() };
    let mut records = writer.files().peekable();
    for file in &crawled.files {
        let record = loop {
            let Some(next) = next_up_to(&mut records, &file.path)? else { break None };
            plan.note_content(&next.1);
            if next.0 == file.path {
                break Some(next.1);
            }
            plan.judge_missing(next.0, &crawled, &mut absent, request.prune);
        };
        if let Some(kind) = file.unreadable {
            *summary.unsupported.entry(kind).or_default() += 1;
        }
        plan.add(file, record, request.retry_failed, &mut summary);
    }
    for next in records {
        let (path, record) = next?;
        plan.note_content(&record);
        plan.judge_missing(path, &crawled, &mut absent, request.prune);
    }
    plan.jobs.sort_by_key(|job| matches!(job.before, Before::Photo(_)));
    plan.unchanged = summary.unchanged + summary.still_failed;
    summary.kept = absent.kept.into_iter().filter(|(_, photos)| *photos > 0).collect();
    summary.problems = crawled.problems;
    Ok((plan, summary))
}

/// The next record, if it does not come after `path`.
fn next_up_to(
    records: &mut Peekable<impl Iterator<Item = Result<(PathBuf, FileRecord), WriteError>>>,
    path: &Path,
) -> Result<Option<(PathBuf, FileRecord)>, WriteError> {
    let bytes = path.as_os_str().as_encoded_bytes();
    records
        .next_if(|next| match next {
            Ok((path, _)) => path.as_os_str().as_encoded_bytes() <= bytes,
            Err(_) => true,
        })
        .transpose()
}

impl Plan {
    fn note_content(&mut self, record: &FileRecord) {
        if let FileState::Indexed { hash, .. } = record.state {
            self.known.insert(hash);
        }
    }

    /// A file that is there, and what the index knows of it.
    fn add(
        &mut self,
        file: &ImageFile,
        record: Option<FileRecord>,
        retry_failed: bool,
        summary: &mut Summary,
    ) {
        let same_stamp = record.as_ref().is_some_and(|record| record.stamp == file.stamp);
        let state = record.map(|record| record.state);
        if file.unreadable.is_some() {
            if !same_stamp || !matches!(state, Some(FileState::Failed { .. })) {
                self.unsupported.push(file.clone());
            }
            return;
        }
        let before = match state {
            Some(FileState::Indexed { .. }) if same_stamp => {
                summary.unchanged += 1;
                return;
            }
            Some(FileState::Failed { .. }) if same_stamp && !retry_failed => {
                summary.still_failed += 1;
                return;
            }
            Some(FileState::Indexed { hash, .. }) => Before::Photo(hash),
            Some(FileState::Failed { .. }) => Before::Failed,
            None => Before::Nothing,
        };
        self.jobs.push(Job { path: file.path.clone(), stamp: file.stamp, before });
    }

    /// A file that the index knows and the crawl did not find.
    fn judge_missing(
        &mut self,
        path: PathBuf,
        crawled: &Crawled,
        absent: &mut Absent,
        prune: bool,
    ) {
        let under_absent = absent.root_of(&path);
        match under_absent {
            Some(_) if prune => {
                self.gone.insert(path);
            }
            Some(root) => absent.kept[root].1 += 1,
            None if crawled.vouches_for(&path) => {
                self.gone.insert(path);
            }
            None => {}
        }
    }
}

/// Roots where nothing is, perhaps because a disk is not mounted, and how much the index
/// holds of each.
struct Absent {
    kept: Vec<(PathBuf, u64)>,
}

impl Absent {
    fn new(crawled: &Crawled) -> Self {
        Self { kept: crawled.absent_roots().iter().map(|root| (root.clone(), 0)).collect() }
    }

    fn root_of(&self, path: &Path) -> Option<usize> {
        self.kept.iter().position(|(root, _)| path.starts_with(root))
    }
}
