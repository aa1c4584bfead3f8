//! Whether the files of an index are still what it says.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use tinyfind_index::{ContentHash, StoredPhoto};

use super::Member;

/// What lies at the path of a photo now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Now {
    /// A file of the size that was indexed, as far as that is known.
    There {
        /// Its length.
        bytes: u64,
        /// Device and number: the same for two names of one file.
        file: (u64, u64),
    },
    /// A link to a file, which takes no space and of which nothing is lost with it.
    Link,
    /// A file of another size: not the photo that was indexed.
    Changed,
    /// Nothing that can be looked at.
    Gone,
}

/// Looks at the file of a photo without opening it.
pub(super) fn look(photo: &StoredPhoto) -> Now {
    match of(&photo.path) {
        Now::There { bytes, .. } if photo.metadata.file_bytes.is_some_and(|it| it != bytes) => {
            Now::Changed
        }
        now => now,
    }
}

/// Whether a member's file still holds the bytes that were indexed; reads it.
pub(super) fn is_as_indexed(member: &Member) -> bool {
    fs::read(&member.path).is_ok_and(|bytes| ContentHash::of(&bytes) == member.hash)
}

/// Length of the file at `path`.
pub(super) fn length(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| metadata.len())
}

fn of(path: &Path) -> Now {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => Now::Link,
        Ok(metadata) if metadata.is_file() => {
            Now::There { bytes: metadata.len(), file: (metadata.dev(), metadata.ino()) }
        }
        Ok(_) | Err(_) => Now::Gone,
    }
}
