//! The hub's cache on disk, shared with its other tools.
//!
//! ```text
//! HF_HUB_CACHE/models--OWNER--NAME/refs/main                  the commit that `main` was at
//! HF_HUB_CACHE/models--OWNER--NAME/blobs/ETAG                 bytes, once, named by their hash
//! HF_HUB_CACHE/models--OWNER--NAME/blobs/ETAG.incomplete      the part of them that has arrived
//! HF_HUB_CACHE/models--OWNER--NAME/snapshots/COMMIT/PATH      link to ../../blobs/ETAG
//! HF_HUB_CACHE/.locks/models--OWNER--NAME/ETAG.lock           held while that blob is written
//! ```
//!
//! Source: <https://huggingface.co/docs/huggingface_hub/guides/manage-cache>.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::HubError;
use super::manifest::RepoKind;

/// One repository's folder.
#[derive(Debug, Clone)]
pub(super) struct RepoCache {
    /// `HF_HUB_CACHE`.
    root: PathBuf,
    /// `models--OWNER--NAME`.
    folder: String,
}

impl RepoCache {
    pub(super) fn new(root: &Path, kind: RepoKind, repo: &str) -> Self {
        let kind = match kind {
            RepoKind::Model => "models",
            RepoKind::Space => "spaces",
        };
        Self { root: root.to_owned(), folder: format!("{kind}--{}", repo.replace('/', "--")) }
    }

    pub(super) fn dir(&self) -> PathBuf {
        self.root.join(&self.folder)
    }

    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.dir().join("blobs").join(etag)
    }

    pub(super) fn incomplete(&self, etag: &str) -> PathBuf {
        self.dir().join("blobs").join(format!("{etag}.incomplete"))
    }

    pub(super) fn lock(&self, etag: &str) -> PathBuf {
        self.root.join(".locks").join(&self.folder).join(format!("{etag}.lock"))
    }

    /// Where the file `path` of a commit is or will be.
    pub(super) fn snapshot(&self, commit: &str, path: &str) -> PathBuf {
        let commit = self.dir().join("snapshots").join(commit);
        path.split('/').fold(commit, |folder, name| folder.join(name))
    }

    /// The commit that `revision` was at when it was last looked up, or `revision` itself if it
    /// is a commit.
    pub(super) fn commit_of(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let text = fs::read_to_string(self.dir().join("refs").join(revision)).ok()?;
        let commit = text.trim();
        is_commit(commit).then(|| commit.to_owned())
    }

    /// Notes that `revision` is at `commit` now.
    pub(super) fn write_ref(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if revision == commit || self.commit_of(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.dir().join("refs").join(revision);
        create_parent(&path)?;
        // Other tools read this file at any time, so it is replaced whole.
        let fresh = sibling(&path, "new");
        fs::write(&fresh, commit).map_err(HubError::io(&fresh))?;
        fs::rename(&fresh, &path).map_err(HubError::io(&path))
    }

    /// Lets the file `path` of a commit be the blob `etag`, and returns where it is.
    pub(super) fn link(&self, commit: &str, path: &str, etag: &str) -> Result<PathBuf, HubError> {
        let pointer = self.snapshot(commit, path);
        let blob = self.blob(etag);
        if let (Ok(there), Ok(wanted)) = (pointer.canonicalize(), blob.canonicalize())
            && there == wanted
        {
            return Ok(pointer);
        }
        create_parent(&pointer)?;
        // snapshots/COMMIT/a/b is two folders and one for each `/` of its path below the
        // repository's folder.
        let up = "../".repeat(2 + path.matches('/').count());
        let fresh = sibling(&pointer, "new");
        place(&blob, Path::new(&format!("{up}blobs/{etag}")), &fresh)
            .map_err(HubError::io(&fresh))?;
        fs::rename(&fresh, &pointer).map_err(HubError::io(&pointer))?;
        Ok(pointer)
    }
}

/// Makes `at` stand for `blob`: a relative link, so that the cache can be moved as a whole.
#[cfg(unix)]
fn place(_blob: &Path, relative: &Path, at: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(relative, at)
}

/// Makes `at` stand for `blob`. Symbolic links need a privilege on this system.
#[cfg(not(unix))]
fn place(blob: &Path, _relative: &Path, at: &Path) -> std::io::Result<()> {
    fs::hard_link(blob, at).or_else(|_| fs::copy(blob, at).map(drop))
}

/// The hash that names the blob behind a snapshot file; `None` where it is a plain file.
pub(super) fn etag_behind(pointer: &Path) -> Option<String> {
    let target = fs::read_link(pointer).ok()?;
    Some(target.file_name()?.to_str()?.to_owned())
}

/// Whether a text is a git commit, written out.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

pub(super) fn create_parent(path: &Path) -> Result<(), HubError> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(HubError::io(parent))
}

/// A name beside `path` that nobody else uses: no other process, and no other call in this one.
pub(super) fn sibling(path: &Path, what: &str) -> PathBuf {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".{name}.{}-{call}.{what}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn cache(dir: &Path) -> RepoCache {
        RepoCache::new(dir, RepoKind::Space, "owner/name")
    }

    #[test]
    fn folders_are_named_as_the_hub_names_them() {
        let of = |kind, repo| RepoCache::new(Path::new("/hub"), kind, repo).dir();
        let space = of(RepoKind::Space, "llizhx/TinyGPT-V");
        assert_eq!(space, Path::new("/hub/spaces--llizhx--TinyGPT-V"));
        let old = of(RepoKind::Model, "bert-base-uncased");
        assert_eq!(old, Path::new("/hub/models--bert-base-uncased"));
    }

    #[test]
    fn a_linked_file_reads_as_its_blob_and_survives_a_move_of_the_cache() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().join("here");
        let cache = cache(&here);
        create_parent(&cache.blob("abc")).unwrap();
        fs::write(cache.blob("abc"), "bytes").unwrap();
        let pointer = cache.link(COMMIT, "phi-2/config.json", "abc").unwrap();
        assert_eq!(fs::read_to_string(&pointer).unwrap(), "bytes");

        let there = dir.path().join("there");
        fs::rename(&here, &there).unwrap();
        let moved = there.join(pointer.strip_prefix(&here).unwrap());
        assert_eq!(fs::read_to_string(moved).unwrap(), "bytes");
    }

    #[test]
    fn two_downloads_at_once_note_a_revision_without_harm() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path());
        for round in 0..50_u64 {
            let commit = format!("{round:040x}");
            std::thread::scope(|scope| {
                let threads: Vec<_> =
                    (0..4).map(|_| scope.spawn(|| cache.write_ref("main", &commit))).collect();
                for thread in threads {
                    thread.join().unwrap().unwrap();
                }
            });
            assert_eq!(cache.commit_of("main"), Some(commit));
        }
    }

    #[test]
    fn linking_again_replaces_a_link_that_leads_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path());
        create_parent(&cache.blob("old")).unwrap();
        fs::write(cache.blob("old"), "old").unwrap();
        fs::write(cache.blob("new"), "new").unwrap();
        cache.link(COMMIT, "f", "old").unwrap();
        let pointer = cache.link(COMMIT, "f", "new").unwrap();
        assert_eq!(fs::read_to_string(pointer).unwrap(), "new");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_relative_and_names_the_hash() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path());
        create_parent(&cache.blob("abc")).unwrap();
        fs::write(cache.blob("abc"), "bytes").unwrap();
        let pointer = cache.link(COMMIT, "a/b/c", "abc").unwrap();
        assert_eq!(fs::read_link(&pointer).unwrap(), Path::new("../../../../blobs/abc"));
        assert_eq!(etag_behind(&pointer).as_deref(), Some("abc"));
    }

    #[test]
    fn a_revision_is_looked_up_in_refs_and_a_commit_stands_for_itself() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path());
        assert_eq!(cache.commit_of("main"), None);
        cache.write_ref("main", COMMIT).unwrap();
        assert_eq!(cache.commit_of("main").as_deref(), Some(COMMIT));
        assert_eq!(cache.commit_of(COMMIT).as_deref(), Some(COMMIT));
        fs::write(cache.dir().join("refs/main"), "../../etc").unwrap();
        assert_eq!(cache.commit_of("main"), None);
    }
}
