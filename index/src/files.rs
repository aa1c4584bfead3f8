//! Files that are replaced whole, and the lock that keeps writers apart.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{OpenError, StoreError, StoreResult};
use crate::steps::{self, Step};

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(dir: &Path) -> StoreResult<()> {
    // Only Unix lets a folder be opened and flushed; elsewhere renames are durable by themselves.
    if cfg!(unix) {
        let sync = || File::open(dir).and_then(|folder| folder.sync_all());
        steps::take(Step::SyncFolder, dir, sync).map_err(StoreError::io(dir))?;
    }
    Ok(())
}

/// Makes every file below a folder durable, and their names. Those that vanish meanwhile need
/// nothing.
pub(crate) fn sync_tree(dir: &Path) -> StoreResult<()> {
    for entry in fs::read_dir(dir).map_err(StoreError::io(dir))? {
        let path = entry.map_err(StoreError::io(dir))?.path();
        if path.is_dir() {
            sync_tree(&path)?;
            continue;
        }
        let sync = || File::open(&path).and_then(|file| file.sync_all());
        match steps::take(Step::SyncFile, &path, sync) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(StoreError::io(&path)(error));
            }
            _ => {}
        }
    }
    sync_folder(dir)
}

/// Makes a folder and its parents; its own name is durable afterwards.
pub(crate) fn make_folder(dir: &Path) -> StoreResult<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let make = || fs::create_dir_all(dir);
    steps::take(Step::MakeFolder, dir, make).map_err(StoreError::io(dir))?;
    dir.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), sync_folder)
}

/// Puts `bytes` in the place of `path`: a reader sees the old file or the new one, whole, and
/// so does the next start after a loss of power.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> StoreResult<()> {
    let draft = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = steps::take(Step::Create, &draft, || File::create(&draft))?;
        steps::write(&draft, bytes, |bytes, _| file.write_all(bytes))?;
        steps::take(Step::SyncFile, &draft, || file.sync_all())?;
        steps::take(Step::Rename, path, || fs::rename(&draft, path))
    };
    write().map_err(StoreError::io(path))?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// The right to write an index, held until dropped.
///
/// The system releases it when the process ends, however it ends, so a killed writer blocks
/// nobody. The file's content only tells the others whom to wait for.
#[derive(Debug)]
pub(crate) struct WriterLock {
    file: File,
}

impl WriterLock {
    /// Takes the lock of the index in `dir`.
    pub(crate) fn take(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(StoreError::io(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::Locked { dir: dir.to_owned(), holder: holder(&mut file) });
            }
            Err(TryLockError::Error(source)) => return Err(OpenError::Io { path, source }),
        }
        let mut lock = Self { file };
        lock.sign().map_err(StoreError::io(&path))?;
        Ok(lock)
    }

    fn sign(&mut self) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        write!(self.file, "process {}", std::process::id())
    }
}

impl Drop for WriterLock {
    fn drop(&mut self) {
        // Nobody is to be named who no longer writes; a failure here would mislead, not harm.
        let _ = self.file.set_len(0);
        let _ = self.file.unlock();
    }
}

/// What the holder of a lock wrote into it.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    // 64 bytes hold "process" and any number; more is not ours.
    let read = file.take(64).read_to_string(&mut text);
    match read {
        Ok(_) if text.starts_with("process ") => text,
        _ => "another process".to_owned(),
    }
}

/// Names of the entries of a folder that are whole numbers, ascending.
pub(crate) fn numbered_entries(dir: &Path) -> StoreResult<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(StoreError::io(dir))? {
        let entry = entry.map_err(StoreError::io(dir))?;
        if let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            found.push((number, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_writer_is_told_who_holds_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let first = WriterLock::take(dir.path()).unwrap();
        let refused = WriterLock::take(dir.path()).unwrap_err();
        assert!(refused.to_string().contains(&format!("process {}", std::process::id())));
        drop(first);
        WriterLock::take(dir.path()).unwrap();
    }

    #[test]
    fn replacing_leaves_nothing_beside_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifest.json");
        for text in ["one", "two"] {
            replace(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
