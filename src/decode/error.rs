//! Why a photo could not be read.

use std::{error::Error, io};

use super::format::{Format, Unreadable};

/// The longest reason, in characters.
const MAX_REASON: usize = 240;

/// Why a file gave no picture. [`DecodeError::reason`] says it in one line for a person.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The system refused to open or read it.
    #[error("cannot be read")]
    Io {
        /// What the system said.
        source: io::Error,
    },
    /// A folder, pipe, socket or device.
    #[error("is not a regular file")]
    NotAFile,
    /// No bytes, as an interrupted copy leaves behind.
    #[error("is empty")]
    Empty,
    /// It changed between the beginning and the end of reading.
    #[error("was being written while it was read; it is tried again next time")]
    Changed,
    /// More bytes than are read into memory.
    #[error("is {bytes} bytes long, more than the {limit} that are read")]
    TooLong {
        /// Its length.
        bytes: u64,
        /// The longest file that is read.
        limit: u64,
    },
    /// A picture or film in a format that has no decoder here.
    #[error("{kind}")]
    Unsupported {
        /// That format.
        kind: Unreadable,
    },
    /// Nothing that looks like a photo.
    #[error("is not a photo: {found}")]
    NotAPhoto {
        /// What its first bytes look like.
        found: &'static str,
    },
    /// More pixels than are decoded.
    #[error(
        "{width} x {height} pixels are more than the {} million that are read",
        limit / 1_000_000
    )]
    TooManyPixels {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The most pixels that are decoded.
        limit: u64,
    },
    /// The file ends in the middle of the picture.
    #[error("truncated {format}: the end of the picture is missing")]
    Truncated {
        /// Its format.
        format: Format,
    },
    /// The decoder met something that its format does not allow, or that it does not know.
    #[error("damaged or unusual {format}")]
    Damaged {
        /// Its format.
        format: Format,
        /// What the decoder said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The decoder itself failed: a fault of the program that a strange file brought to light.
    #[error("the {format} decoder failed on it")]
    Panicked {
        /// Its format.
        format: Format,
    },
}

impl DecodeError {
    /// The error and its causes in one line, to stand after the file's name.
    pub fn reason(&self) -> String {
        let mut reason = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Decoders often repeat their cause in their own message.
            if !reason.contains(text.trim_end_matches('.')) {
                reason = format!("{reason}: {text}");
            }
            cause = error.source();
        }
        let words: Vec<&str> = reason.split_whitespace().collect();
        words.join(" ").trim_end_matches('.').chars().take(MAX_REASON).collect()
    }

    /// Whether the same bytes may be readable another time: the fault is not the content's.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_and_repeats_nothing() {
        let source = io::Error::other("first\nline.").into();
        let error = DecodeError::Damaged { format: Format::Gif, source };
        assert_eq!(error.reason(), "damaged or unusual GIF: first line");
        let kind = DecodeError::Io { source: io::ErrorKind::PermissionDenied.into() };
        assert_eq!(kind.reason(), "cannot be read: permission denied");
    }
}
