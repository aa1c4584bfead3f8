//! Where tantivy keeps its files, with fewer waits for the disk.
//!
//! tantivy flushes each file of a commit when it is written, about fifteen one after the other.
//! Nothing depends on them before `meta.json` names them, so here they are flushed together,
//! at once, just before that. What is durable after a commit is the same.
//!
//! The list of its files that tantivy writes again with each of them is not kept at all: it is
//! read off the folder, which nobody else writes to. A list that a loss of power left empty or
//! torn would keep everybody from opening the index.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use tantivy::directory::error::{
    DeleteError, LockError, OpenDirectoryError, OpenReadError, OpenWriteError,
};
use tantivy::directory::{
    AntiCallToken, Directory, DirectoryLock, FileHandle, INDEX_WRITER_LOCK, Lock, MmapDirectory,
    TerminatingWrite, WatchCallback, WatchHandle, WritePtr,
};

use crate::steps::{self, Step};

/// The file that publishes a commit.
pub(super) const META_FILE: &str = "meta.json";
/// Where tantivy thinks that the list of its files is.
const LIST_FILE: &str = ".managed.json";
/// Ends the names of files that are about to take the place of another.
pub(super) const DRAFT_SUFFIX: &str = ".new";

/// A folder of tantivy's files.
#[derive(Debug, Clone)]
pub(super) struct TextDirectory {
    mapped: MmapDirectory,
    folder: PathBuf,
    /// Files that are written but not durable yet.
    unsynced: Arc<Mutex<BTreeSet<PathBuf>>>,
    /// The file that could not be written first, and why: tantivy keeps the words at most.
    failure: Arc<Mutex<Option<(PathBuf, io::Error)>>>,
}

impl TextDirectory {
    pub(super) fn open(folder: &Path) -> Result<Self, OpenDirectoryError> {
        let mapped = MmapDirectory::open(folder)?;
        let (unsynced, failure) = (Arc::default(), Arc::default());
        Ok(Self { mapped, folder: folder.to_owned(), unsynced, failure })
    }

    /// What could not be written since this was asked last, if anything.
    pub(super) fn take_failure(&self) -> Option<(PathBuf, io::Error)> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Takes a step, and notes if it fails.
    fn take<T>(
        &self,
        step: Step,
        path: &Path,
        work: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        self.noted(path, steps::take(step, path, work))
    }

    fn noted<T>(&self, path: &Path, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            let code = error.raw_os_error().map(io::Error::from_raw_os_error);
            let copy = code.unwrap_or_else(|| error.kind().into());
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert_with(|| (path.to_owned(), copy));
        }
        result
    }

    fn unsynced(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        // Names are inserted and taken whole: a panic elsewhere left no half of one.
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_unsynced(&self, path: &Path) {
        self.unsynced().insert(path.to_owned());
    }

    /// Makes every file written so far durable, and their names.
    fn sync_all(&self) -> io::Result<()> {
        let files = std::mem::take(&mut *self.unsynced());
        // One journal commit of the file system serves all that wait for it together.
        thread::scope(|scope| {
            let syncs: Vec<_> = files
                .iter()
                .map(|file| scope.spawn(|| self.noted(file, sync_file(file))))
                .collect();
            syncs.into_iter().try_for_each(|sync| {
                sync.join().unwrap_or_else(|_| Err(io::Error::other("a flush failed")))
            })
        })?;
        self.sync_names()
    }

    /// What tantivy would have written into [`LIST_FILE`].
    fn list_of_files(&self) -> io::Result<Vec<u8>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            // Locks begin with a dot; a name that is no text is not tantivy's.
            files.extend(name.into_string().ok().filter(|name| !name.starts_with('.')));
        }
        Ok(serde_json::to_vec(&files)?)
    }

    /// Makes the names of the files durable.
    fn sync_names(&self) -> io::Result<()> {
        let sync = || File::open(&self.folder)?.sync_all();
        self.take(Step::SyncFolder, &self.folder, sync)
    }
}

/// Makes a file durable; one that is gone needs nothing.
fn sync_file(path: &Path) -> io::Result<()> {
    steps::take(Step::SyncFile, path, || match File::open(path) {
        Ok(file) => file.sync_data(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    })
}

/// A file that is flushed later.
struct LaterFile {
    file: File,
    path: PathBuf,
    directory: TextDirectory,
}

impl Write for LaterFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = steps::write(&self.path, bytes, |bytes, _| self.file.write_all(bytes));
        self.directory.noted(&self.path, written)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl TerminatingWrite for LaterFile {
    fn terminate_ref(&mut self, _: AntiCallToken) -> io::Result<()> {
        self.flush()?;
        // Noted at its end as well: a commit may have flushed the first half of what a merge
        // was writing.
        self.directory.note_unsynced(&self.path);
        Ok(())
    }
}

impl Directory for TextDirectory {
    fn get_file_handle(&self, path: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        self.mapped.get_file_handle(path)
    }

    fn delete(&self, path: &Path) -> Result<(), DeleteError> {
        self.unsynced().remove(&self.folder.join(path));
        let delete = || Ok(self.mapped.delete(path));
        let deleted = steps::take(Step::Remove, &self.folder.join(path), delete);
        deleted.map_err(|error| DeleteError::IoError {
            io_error: Arc::new(error),
            filepath: path.to_owned(),
        })?
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenReadError> {
        self.mapped.exists(path)
    }

    fn open_write(&self, path: &Path) -> Result<WritePtr, OpenWriteError> {
        let target = self.folder.join(path);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        let file = self.take(Step::Create, &target, || options.open(&target));
        let file = file.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => OpenWriteError::FileAlreadyExists(path.to_owned()),
            _ => OpenWriteError::wrap_io_error(error, path.to_owned()),
        })?;
        self.note_unsynced(&target);
        Ok(BufWriter::new(Box::new(LaterFile { file, path: target, directory: self.clone() })))
    }

    fn atomic_read(&self, path: &Path) -> Result<Vec<u8>, OpenReadError> {
        if path == Path::new(LIST_FILE) {
            let list = self.list_of_files();
            return list.map_err(|error| OpenReadError::wrap_io_error(error, path.to_owned()));
        }
        self.mapped.atomic_read(path)
    }

    fn atomic_write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if path == Path::new(LIST_FILE) {
            return Ok(());
        }
        let publishes = path == Path::new(META_FILE);
        if publishes {
            self.sync_all()?;
        }
        let target = self.folder.join(path);
        let mut draft = target.clone().into_os_string();
        draft.push(DRAFT_SUFFIX);
        let draft = PathBuf::from(draft);
        let mut file = self.take(Step::Create, &draft, || File::create(&draft))?;
        let written = steps::write(&draft, bytes, |bytes, _| file.write_all(bytes));
        self.noted(&draft, written)?;
        if publishes {
            self.take(Step::SyncFile, &draft, || file.sync_all())?;
        }
        self.take(Step::Rename, &target, || fs::rename(&draft, &target))?;
        if publishes {
            return self.sync_names();
        }
        self.note_unsynced(&target);
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        // Names become durable with `meta.json`, before which they mean nothing.
        Ok(())
    }

    fn acquire_lock(&self, lock: &Lock) -> Result<DirectoryLock, LockError> {
        let path = self.folder.join(&lock.filepath);
        let opened = OpenOptions::new().write(true).create(true).truncate(false).open(path);
        let file = match opened {
            Ok(file) => file,
            // Readers may be allowed to read only. Unlocked, they can at worst miss a file that
            // a merge removes, and try again.
            Err(error)
                if lock.filepath != INDEX_WRITER_LOCK.filepath
                    && matches!(
                        error.kind(),
                        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                    ) =>
            {
                return Ok(DirectoryLock::from(Box::new(())));
            }
            Err(error) => return Err(LockError::wrap_io_error(error)),
        };
        if lock.is_blocking {
            file.lock().map_err(LockError::wrap_io_error)?;
        } else {
            file.try_lock().map_err(|_| LockError::LockBusy)?;
        }
        // Closing the file releases the lock.
        Ok(DirectoryLock::from(Box::new(file)))
    }

    fn watch(&self, callback: WatchCallback) -> tantivy::Result<WatchHandle> {
        self.mapped.watch(callback)
    }
}
