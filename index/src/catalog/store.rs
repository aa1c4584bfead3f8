//! sled under a layer of changes that are not committed yet. The only file that knows sled.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::iter::Peekable;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{StoreError, StoreResult};
use crate::files;
use crate::steps::{self, Step};

/// Pages that sled keeps in memory: the catalogue is read path by path, once a run.
const CACHE_BYTES: u64 = 16 << 20;

/// sled lets go of its folder some time after it was closed. No other writer can have it: the
/// lock of the index is held.
const CLOSING: Duration = Duration::from_secs(5);

/// A key and its value.
type Entry = (Vec<u8>, Vec<u8>);

/// Keys and values in byte order of the keys, with changes that become durable together.
pub(super) struct Store {
    tree: sled::Db,
    /// What will be written by the next [`Store::apply`]; none deletes.
    staged: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    path: PathBuf,
}

impl Store {
    /// Opens or makes the store in the folder `path`.
    pub(super) fn open(path: &Path) -> StoreResult<Self> {
        let started = Instant::now();
        loop {
            // sled checks its log with assertions: damage may end in a panic.
            let open = || Ok(catch_unwind(AssertUnwindSafe(|| config(path).open())));
            let opened = steps::take(Step::Open, path, open)
                .map_err(StoreError::io(path))?
                .map_err(|_| StoreError::lost(path, "sled cannot make sense of it"))?;
            match opened {
                Ok(tree) => return Ok(Self { tree, staged: BTreeMap::new(), path: path.into() }),
                Err(error) if is_locked(&error) && started.elapsed() < CLOSING => {
                    thread::sleep(Duration::from_millis(10));
                }
                Err(error) => return Err(sled_error(path)(error)),
            }
        }
    }

    /// Where the store lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The value of `key`, staged changes included.
    pub(super) fn get(&self, key: &[u8]) -> StoreResult<Option<Vec<u8>>> {
        if let Some(staged) = self.staged.get(key) {
            return Ok(staged.clone());
        }
        let found = self.tree.get(key).map_err(sled_error(&self.path))?;
        Ok(found.map(|value| value.to_vec()))
    }

    /// Whether there is a `key`, staged changes left out.
    pub(super) fn is_stored(&self, key: &[u8]) -> StoreResult<bool> {
        self.tree.contains_key(key).map_err(sled_error(&self.path))
    }

    /// Stages `value` for `key`.
    pub(super) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.staged.insert(key, Some(value));
    }

    /// Stages the removal of `key`.
    pub(super) fn delete(&mut self, key: Vec<u8>) {
        self.staged.insert(key, None);
    }

    /// Every key that starts with `prefix`, ascending, staged changes included.
    pub(super) fn scan(&self, prefix: &[u8]) -> Scan<'_> {
        let from = (Bound::Included(prefix.to_vec()), Bound::Unbounded);
        Scan {
            stored: self.tree.scan_prefix(prefix).peekable(),
            staged: self.staged.range(from).peekable(),
            prefix: prefix.to_vec(),
            path: &self.path,
        }
    }

    /// Writes everything staged, all or nothing, durably.
    pub(super) fn apply(&mut self) -> StoreResult<()> {
        let mut batch = sled::Batch::default();
        for (key, value) in std::mem::take(&mut self.staged) {
            match value {
                Some(value) => batch.insert(key, value),
                // What came and went between two commits is not known there, and need not be said.
                None if !self.is_stored(&key)? => {}
                None => batch.remove(key),
            }
        }
        self.take(Step::Apply, || self.tree.apply_batch(batch))?;
        self.take(Step::Flush, || self.tree.flush().map(|_| ()))?;
        // On Linux sled hands its log to the disk with `sync_file_range`, which flushes neither the
        // size of the file nor the cache of the disk; values in files of their own it flushes
        // nowhere.
        files::sync_tree(&self.path)
    }

    fn take(&self, step: Step, work: impl FnOnce() -> sled::Result<()>) -> StoreResult<()> {
        steps::take(step, &self.path, || Ok(catch_unwind(AssertUnwindSafe(work))))
            .map_err(StoreError::io(&self.path))?
            .map_err(|_| StoreError::lost(&self.path, "sled cannot make sense of it"))?
            .map_err(sled_error(&self.path))
    }
}

/// What [`Store::scan`] returns: stored and staged keys, merged.
pub(super) struct Scan<'a> {
    stored: Peekable<sled::Iter>,
    staged: Peekable<btree_map::Range<'a, Vec<u8>, Option<Vec<u8>>>>,
    prefix: Vec<u8>,
    path: &'a Path,
}

impl Iterator for Scan<'_> {
    type Item = StoreResult<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let staged = self.staged.peek().filter(|(key, _)| key.starts_with(&self.prefix));
            let staged_first = match (self.stored.peek(), staged) {
                (None, None) => return None,
                (Some(Err(_)), _) | (Some(_), None) => false,
                (None, Some(_)) => true,
                (Some(Ok((stored, _))), Some((staged, _))) => {
                    let order = staged.as_slice().cmp(stored);
                    if order.is_eq() {
                        // The staged value replaces the stored one.
                        self.stored.next();
                    }
                    order.is_le()
                }
            };
            if !staged_first {
                let stored = self.stored.next()?.map_err(sled_error(self.path));
                return Some(stored.map(|(key, value)| (key.to_vec(), value.to_vec())));
            }
            if let Some((key, Some(value))) = self.staged.next() {
                return Some(Ok((key.clone(), value.clone())));
            }
        }
    }
}

/// Nothing is written but by [`Store::apply`], which flushes by itself.
fn config(path: &Path) -> sled::Config {
    sled::Config::new()
        .path(path)
        .mode(sled::Mode::LowSpace)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None)
}

/// Whether the folder is still in use.
fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().contains("could not acquire lock"))
}

/// Names the catalogue in an error of sled.
fn sled_error(path: &Path) -> impl FnOnce(sled::Error) -> StoreError + '_ {
    move |error| match error {
        sled::Error::Io(source) => StoreError::Io { path: path.to_owned(), source },
        other => StoreError::lost(path, other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(store: &Store, prefix: &[u8]) -> Vec<(String, String)> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        store.scan(prefix).map(|entry| entry.unwrap()).map(|(k, v)| (text(k), text(v))).collect()
    }

    #[test]
    fn a_scan_merges_stored_and_staged_keys_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        for key in ["pa", "pc", "pe", "q"] {
            store.put(key.into(), b"old".to_vec());
        }
        store.apply().unwrap();
        store.put("pb".into(), b"new".to_vec());
        store.put("pc".into(), b"new".to_vec());
        store.delete("pe".into());
        store.delete("pf".into());
        store.put("pz".into(), b"new".to_vec());
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let expected = [pair("pa", "old"), pair("pb", "new"), pair("pc", "new"), pair("pz", "new")];
        assert_eq!(keys(&store, b"p"), expected);
        assert_eq!(store.get(b"pe").unwrap(), None);
        store.apply().unwrap();
        assert_eq!(keys(&store, b"p"), expected);
    }

    #[test]
    fn what_was_not_applied_is_gone_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        store.put(b"a".to_vec(), b"1".to_vec());
        store.apply().unwrap();
        store.put(b"b".to_vec(), b"2".to_vec());
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(keys(&store, b""), [("a".to_owned(), "1".to_owned())]);
    }
}
