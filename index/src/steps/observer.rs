//! Who watches the steps of which folder.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::Step;

/// Sees every step below a folder. Steps of several threads come one after the other.
pub(super) trait Observer: Send {
    /// A step is about to be taken; an error is what it fails with.
    fn before(&mut self, step: Step, path: &Path) -> io::Result<()>;

    /// It was taken.
    fn after(&mut self, step: Step, path: &Path) {
        let _ = (step, path);
    }
}

type Shared = Arc<Mutex<dyn Observer>>;

/// Folders with their observers: tests run side by side.
static OBSERVERS: Mutex<Vec<(PathBuf, Shared)>> = Mutex::new(Vec::new());

/// An observer at work, until dropped.
pub(super) struct Watch {
    folder: PathBuf,
}

impl Watch {
    /// Shows `observer` the steps at and below `folder`.
    pub(super) fn over(folder: &Path, observer: Shared) -> Self {
        let mut observers = OBSERVERS.lock().unwrap_or_else(PoisonError::into_inner);
        observers.push((folder.to_owned(), observer));
        Self { folder: folder.to_owned() }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut observers = OBSERVERS.lock().unwrap_or_else(PoisonError::into_inner);
        observers.retain(|(folder, _)| *folder != self.folder);
    }
}

/// See [`take`](super::take) of a build without tests.
pub(crate) fn take<T>(
    step: Step,
    path: &Path,
    work: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let observer = {
        let observers = OBSERVERS.lock().unwrap_or_else(PoisonError::into_inner);
        observers.iter().find(|(folder, _)| path.starts_with(folder)).map(|it| Arc::clone(&it.1))
    };
    let Some(observer) = observer else { return work() };
    let mut observer = observer.lock().unwrap_or_else(PoisonError::into_inner);
    observer.before(step, path)?;
    let done = work();
    observer.after(step, path);
    done
}
