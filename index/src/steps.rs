//! The steps of a writer: all that it does to the disk.
//!
//! In a build without tests a step is its work and nothing more. In tests an observer sees the
//! folder before each step, as a writer killed there would leave it, and may let a step fail.

#[cfg(test)]
mod disk;
#[cfg(test)]
mod observer;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;

/// What a step does to its file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// Makes a folder.
    MakeFolder,
    /// Makes or opens a file.
    Create,
    /// Writes into a file.
    Write,
    /// Shortens a file.
    Cut,
    /// Makes the content of a file durable.
    SyncFile,
    /// Makes the names in a folder durable.
    SyncFolder,
    /// Gives a file the name that is said.
    Rename,
    /// Removes a file or a folder with all that is in it.
    Remove,
    /// Opens the store of the catalogue.
    Open,
    /// Hands a batch to the store of the catalogue.
    Apply,
    /// Has the store of the catalogue write it.
    Flush,
}

/// Does `work`, which is one `step` with what lies at `path`.
#[cfg(not(test))]
pub(crate) fn take<T>(
    _step: Step,
    _path: &Path,
    work: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    work()
}

#[cfg(test)]
pub(crate) use observer::take;

/// Writes `bytes` to the file at `path` by `write`, which is given bytes and how many of
/// `bytes` come before them.
pub(crate) fn write(
    path: &Path,
    bytes: &[u8],
    mut write: impl FnMut(&[u8], usize) -> io::Result<()>,
) -> io::Result<()> {
    // A process may be killed, and a disk be full, in the middle of a write.
    let halves = if cfg!(test) { bytes.len() / 2 } else { 0 };
    if halves > 0 {
        take(Step::Write, path, || write(&bytes[..halves], 0))?;
    }
    take(Step::Write, path, || write(&bytes[halves..], halves))
}
