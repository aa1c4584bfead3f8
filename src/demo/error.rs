//! Errors of the demonstration.

use std::path::PathBuf;

/// Why the album could not be drawn.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// The folder holds something that no demonstration put there.
    #[error("`{}` is not empty and holds no demonstration", path.display())]
    Foreign {
        /// That folder, or the file of that name.
        path: PathBuf,
    },
    /// The folder holds the album of another version of this program.
    #[error("`{}` holds the album of another version of tinyfind", path.display())]
    OtherVersion {
        /// That folder.
        path: PathBuf,
    },
    /// Another process works in the folder.
    #[error("another demonstration is at work in `{}`", path.display())]
    Busy {
        /// That folder.
        path: PathBuf,
    },
    /// A file or folder could not be read or written.
    #[error("cannot read or write `{}`", path.display())]
    Io {
        /// That file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The header of a picture could not be written.
    #[error("cannot write the EXIF block of a picture")]
    Exif(#[from] exif::Error),
    /// A picture could not be compressed.
    #[error("cannot write a picture as JPEG")]
    Jpeg(#[from] image::ImageError),
}
