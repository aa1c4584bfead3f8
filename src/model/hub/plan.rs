//! What is here already and what must come: one decision for each file, before any byte moves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cache::{RepoCache, create_parent, etag_behind, is_commit, sibling};
use super::digest::{Algorithm, Check, verify};
use super::error::HubError;
use super::http::{Client, Facts, Patience, encode_path, hub_url};
use super::manifest::{Origin, RemoteFile, RepoKind};
use super::settings::Settings;
use super::transfer::{Transfer, is_of_size};
use super::{LocalFile, Progress, Step};

/// The hosts, for messages.
const HUB: &str = "the hub";
const BUCKET: &str = "LAVIS's bucket";

/// What to do about one file.
pub(super) enum Plan {
    /// Nothing: it is here.
    Here(LocalFile),
    /// Fetch it.
    Fetch(Box<Pending>),
}

/// A file that must come.
pub(super) struct Pending {
    file: RemoteFile,
    url: String,
    size: u64,
    checks: Vec<Check>,
    partial: PathBuf,
    done: PathBuf,
    lock: PathBuf,
    variable: &'static str,
    then: Then,
}

/// What makes a fetched file one that is found again.
enum Then {
    /// The link in the snapshot.
    Link { cache: RepoCache, commit: String, etag: String },
    /// The note beside it.
    Record { path: PathBuf, record: Record },
}

/// What was known of a bucket's file when it was fetched, written beside it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    url: String,
    etag: String,
    size: u64,
}

impl Pending {
    pub(super) fn transfer(&self) -> Transfer<'_> {
        Transfer {
            name: &self.file.path,
            url: &self.url,
            size: self.size,
            checks: &self.checks,
            partial: self.partial.clone(),
            done: self.done.clone(),
            lock: self.lock.clone(),
            variable: self.variable,
        }
    }

    /// Registers the file, which has been fetched and checked.
    pub(super) fn finish(self) -> Result<LocalFile, HubError> {
        let (path, mut occupies) = match &self.then {
            Then::Link { cache, commit, etag } => {
                let pointer = cache.link(commit, &self.file.path, etag)?;
                (pointer.clone(), vec![pointer])
            }
            Then::Record { path, record } => {
                write_record(path, record)?;
                (self.done.clone(), vec![path.clone()])
            }
        };
        occupies.push(self.done);
        let (role, size_in_bytes) = (self.file.role, self.size);
        Ok(LocalFile { role, name: self.file.path, path, size_in_bytes, fetched: true, occupies })
    }
}

/// Plans the files of one pull.
pub(super) struct Planner<'a> {
    client: &'a Client,
    settings: &'a Settings,
    /// Commit of each repository and revision: all of its files come from that one.
    commits: BTreeMap<(RepoKind, String, String), String>,
    /// Hosts that did not answer while the file was here: they are not asked again.
    silent: BTreeSet<&'static str>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(client: &'a Client, settings: &'a Settings) -> Self {
        Self { client, settings, commits: BTreeMap::new(), silent: BTreeSet::new() }
    }

    pub(super) fn plan(
        &mut self,
        file: &RemoteFile,
        progress: &mut Progress<'_>,
    ) -> Result<Plan, HubError> {
        match &file.from {
            Origin::Hub { kind, repo, revision } => {
                self.plan_hub(file, *kind, repo, revision, progress)
            }
            Origin::Lavis => self.plan_lavis(file, progress),
        }
    }

    fn plan_hub(
        &mut self,
        file: &RemoteFile,
        kind: RepoKind,
        repo: &str,
        revision: &str,
        progress: &mut Progress<'_>,
    ) -> Result<Plan, HubError> {
        let cache = RepoCache::new(&self.settings.hub_cache, kind, repo);
        let key = (kind, repo.to_owned(), revision.to_owned());
        let known = self.commits.get(&key).cloned();
        let at = known.as_deref().unwrap_or(revision);
        let url = hub_url(&self.settings.endpoint, kind, repo, at, &file.path);

        let cached = || cached_in_snapshot(file, &cache, at);
        let question = Question { host: HUB, url: &url, name: &file.path, searched: &cache.dir() };
        let facts = match self.ask(&question, cached, progress)? {
            Answer::Here(local) => return Ok(Plan::Here(local)),
            Answer::Facts(facts) => facts,
        };
        let lacks = |what: &str| HubError::Answer {
            url: url.clone(),
            what: format!("without {what}, so it is no hub for models"),
        };
        let commit =
            facts.commit.filter(|text| is_commit(text)).ok_or_else(|| lacks("a commit"))?;
        // The tag becomes a file name.
        let etag = facts.etag.filter(|tag| is_plain_tag(tag)).ok_or_else(|| lacks("a tag"))?;
        let size = facts.size.ok_or_else(|| lacks("a size"))?;
        let checks = checks(file, size, Check::of_etag(&etag))?;
        cache.write_ref(revision, &commit)?;
        self.commits.insert(key, commit.clone());

        let blob = cache.blob(&etag);
        let pointer = cache.snapshot(&commit, &file.path);
        let path = if is_of_size(&blob, size) {
            Some(cache.link(&commit, &file.path, &etag)?)
        } else {
            // A plain file instead of a link is how caches without links look.
            (etag_behind(&pointer).is_none() && is_of_size(&pointer, size)).then_some(pointer)
        };
        if let Some(path) = path {
            return Ok(Plan::Here(here(file, path, size)));
        }
        Ok(Plan::Fetch(Box::new(Pending {
            file: file.clone(),
            url: hub_url(&self.settings.endpoint, kind, repo, &commit, &file.path),
            size,
            checks,
            partial: cache.incomplete(&etag),
            done: blob,
            lock: cache.lock(&etag),
            variable: "HF_HOME",
            then: Then::Link { cache, commit, etag },
        })))
    }

    fn plan_lavis(
        &mut self,
        file: &RemoteFile,
        progress: &mut Progress<'_>,
    ) -> Result<Plan, HubError> {
        let url = format!("{}/{}", self.settings.lavis, encode_path(&file.path));
        let folder = self.settings.downloads.join("blip2");
        let done = file.path.split('/').fold(folder.clone(), |folder, name| folder.join(name));
        let record_path = beside(&done, "origin.json");
        let old: Option<Record> =
            fs::read_to_string(&record_path).ok().and_then(|text| serde_json::from_str(&text).ok());

        let cached = || cached_download(file, &done, old.as_ref());
        let question = Question { host: BUCKET, url: &url, name: &file.path, searched: &folder };
        let facts = match self.ask(&question, cached, progress)? {
            Answer::Here(local) => return Ok(Plan::Here(local)),
            Answer::Facts(facts) => facts,
        };
        let size = facts.size.ok_or_else(|| HubError::Answer {
            url: url.clone(),
            what: "without the size of the file".to_owned(),
        })?;
        let crc = facts.crc32c.map(|digits| Check { algorithm: Algorithm::Crc32c, digits });
        let checks = checks(file, size, crc)?;
        // A mirror without tags still tells two files of different sizes apart.
        let etag = facts.etag.filter(|tag| is_plain_tag(tag)).unwrap_or(format!("size-{size}"));
        let record = Record { url: url.clone(), etag, size };

        if is_of_size(&done, size) {
            let known = old.as_ref().is_some_and(|o| o.etag == record.etag && o.size == size);
            if known || adopt(file, &done, &checks, old.is_some(), progress)? {
                if !known {
                    write_record(&record_path, &record)?;
                }
                return Ok(Plan::Here(here(file, done, size)));
            }
            fs::remove_file(&done).map_err(HubError::io(&done))?;
        }
        Ok(Plan::Fetch(Box::new(Pending {
            file: file.clone(),
            url,
            size,
            checks,
            partial: beside(&done, &format!("{}.incomplete", record.etag)),
            lock: beside(&done, "lock"),
            done,
            variable: "XDG_CACHE_HOME",
            then: Then::Record { path: record_path, record },
        })))
    }

    /// What the host says of a file; what is here where it may not or does not answer.
    fn ask(
        &mut self,
        question: &Question<'_>,
        cached: impl Fn() -> Result<Option<LocalFile>, HubError>,
        progress: &mut Progress<'_>,
    ) -> Result<Answer, HubError> {
        let Question { host, url, name, searched } = *question;
        if self.settings.offline || self.silent.contains(host) {
            if let Some(local) = cached()? {
                return Ok(Answer::Here(local));
            }
            if self.settings.offline {
                let (name, searched) = (name.to_owned(), searched.to_owned());
                return Err(HubError::Offline { name, searched });
            }
        }
        progress(Step::Asking(name));
        let mut patience = Patience::new(&self.settings.retry);
        loop {
            let trouble = match self.client.facts(url, host == HUB) {
                Ok(facts) => return Ok(Answer::Facts(facts)),
                Err(trouble) => trouble,
            };
            match patience.after(trouble, url, 0) {
                Ok((wait, what)) => {
                    let seconds = wait.as_secs_f32();
                    progress(Step::Note(&format!(
                        "{name}: {what}; asking again in {seconds:.0} s"
                    )));
                    std::thread::sleep(wait);
                }
                Err(error @ HubError::Unreachable { .. }) => {
                    let Some(local) = cached()? else { return Err(error) };
                    self.silent.insert(host);
                    progress(Step::Note(&format!("{host} does not answer: using what is here")));
                    return Ok(Answer::Here(local));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether a file of the right size, put there by someone else or fetched when the host had
/// another, is the host's: by its hash, or, without one, only if nothing speaks against it.
fn adopt(
    file: &RemoteFile,
    path: &Path,
    checks: &[Check],
    was_another: bool,
    progress: &mut Progress<'_>,
) -> Result<bool, HubError> {
    if checks.is_empty() {
        return Ok(!was_another);
    }
    progress(Step::Note(&format!("{}: found, checking it", file.path)));
    match verify(path, &file.path, checks) {
        Ok(()) => Ok(true),
        Err(HubError::WrongHash { .. }) => Ok(false),
        Err(other) => Err(other),
    }
}

/// What is asked of which host.
struct Question<'a> {
    host: &'static str,
    url: &'a str,
    /// The file, for messages.
    name: &'a str,
    /// The folder where it may be.
    searched: &'a Path,
}

enum Answer {
    Here(LocalFile),
    Facts(Facts),
}

/// The hashes to check: the host's, and the pinned one where the host's does not contain it.
///
/// Fails at once where the host's size or hash contradicts what was published.
fn checks(file: &RemoteFile, size: u64, host: Option<Check>) -> Result<Vec<Check>, HubError> {
    check_size(file, size)?;
    let mut checks: Vec<Check> = host.into_iter().collect();
    if let Some(digits) = &file.sha256 {
        match checks.iter().find(|check| check.algorithm == Algorithm::Sha256) {
            Some(of_host) => Check::sha256(digits).against(&file.path, &of_host.digits)?,
            None => checks.push(Check::sha256(digits)),
        }
    }
    Ok(checks)
}

fn check_size(file: &RemoteFile, found: u64) -> Result<(), HubError> {
    match file.size.filter(|size| !size.allows(found)) {
        None => Ok(()),
        Some(size) => {
            let (name, expected) = (file.path.clone(), size.to_string());
            Err(HubError::WrongSize { name, expected, found })
        }
    }
}

/// A file of the commit that the revision was at when it was last looked up.
///
/// Its bytes were checked when they came, and its link names their hash, which is compared with
/// the pinned one; a plain file is read for that.
fn cached_in_snapshot(
    file: &RemoteFile,
    cache: &RepoCache,
    revision: &str,
) -> Result<Option<LocalFile>, HubError> {
    let Some(commit) = cache.commit_of(revision) else { return Ok(None) };
    let path = cache.snapshot(&commit, &file.path);
    let Ok(data) = fs::metadata(&path) else { return Ok(None) };
    check_size(file, data.len())?;
    if let Some(digits) = &file.sha256 {
        let pinned = Check::sha256(digits);
        let named = etag_behind(&path).and_then(|etag| Check::of_etag(&etag));
        match named.filter(|check| check.algorithm == Algorithm::Sha256) {
            Some(named) => pinned.against(&file.path, &named.digits)?,
            None => verify(&path, &file.path, &[pinned])?,
        }
    }
    Ok(Some(here(file, path, data.len())))
}

/// A file of the downloads folder: as long as it was when it came, or as published.
fn cached_download(
    file: &RemoteFile,
    path: &Path,
    record: Option<&Record>,
) -> Result<Option<LocalFile>, HubError> {
    let Ok(data) = fs::metadata(path) else { return Ok(None) };
    let size = data.len();
    check_size(file, size)?;
    if let Some(record) = record.filter(|record| record.size != size) {
        let (name, expected) = (file.path.clone(), record.size.to_string());
        return Err(HubError::WrongSize { name, expected, found: size });
    }
    if let Some(digits) = &file.sha256 {
        verify(path, &file.path, &[Check::sha256(digits)])?;
    }
    Ok(Some(here(file, path.to_owned(), size)))
}

fn here(file: &RemoteFile, path: PathBuf, size_in_bytes: u64) -> LocalFile {
    let (role, name) = (file.role, file.path.clone());
    LocalFile { role, name, path, size_in_bytes, fetched: false, occupies: Vec::new() }
}

/// Whether a tag can be a file name.
fn is_plain_tag(tag: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    (1..=128).contains(&tag.len()) && tag.bytes().all(plain)
}

fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(extension);
    path.with_file_name(name)
}

fn write_record(path: &Path, record: &Record) -> Result<(), HubError> {
    create_parent(path)?;
    let text = serde_json::to_string_pretty(record)
        .map_err(|error| HubError::Io { path: path.to_owned(), source: error.into() })?;
    let fresh = sibling(path, "new");
    fs::write(&fresh, text).map_err(HubError::io(&fresh))?;
    fs::rename(&fresh, path).map_err(HubError::io(path))
}
