//! What can go wrong with a download.

use std::fmt;
use std::path::PathBuf;

use super::digest::Algorithm;

/// Why a published file could not be had: the message names the file and says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The system names no home folder, so there is no cache folder.
    #[error("no home folder is known: set HF_HOME and XDG_CACHE_HOME to folders for downloads")]
    NoHome,
    /// A list of files that cannot be right.
    #[error("the list of files to pull is wrong: {what}")]
    Manifest {
        /// What is wrong with it.
        what: String,
    },
    /// The network may not be used and the file is not here.
    #[error(
        "HF_HUB_OFFLINE is set and `{name}` is not in `{}`: pull once without it, or put the \
         file there",
        searched.display()
    )]
    Offline {
        /// The file.
        name: String,
        /// Where it was looked for.
        searched: PathBuf,
    },
    /// The host has no such file.
    #[error("there is no file at {url}{}", reason(message.as_ref()))]
    NotFound {
        /// Address asked for.
        url: String,
        /// What the host said.
        message: Option<String>,
    },
    /// The host wants to know who asks.
    #[error(
        "{url} is not open to {}: {}",
        if *with_token { "the token in use" } else { "everybody" },
        if *with_token { "check HF_TOKEN" } else { "set HF_TOKEN to a token from your account there" }
    )]
    Unauthorized {
        /// Address asked for.
        url: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// The host knows who asks and still says no.
    #[error(
        "access to {url} is refused{}: where a licence must be accepted first, open its page in a \
         browser",
        reason(message.as_ref())
    )]
    Forbidden {
        /// Address asked for.
        url: String,
        /// What the host said.
        message: Option<String>,
    },
    /// Any other answer that trying again will not change.
    #[error("{url} answers {what}")]
    Answer {
        /// Address asked for.
        url: String,
        /// What is wrong with the answer.
        what: String,
    },
    /// Every attempt failed; what has arrived is kept.
    #[error(
        "{url} could not be read in {attempts} attempts; what has arrived is kept, so the same \
         command goes on from there"
    )]
    Unreachable {
        /// Address asked for.
        url: String,
        /// Attempts in a row that brought nothing new.
        attempts: u32,
        /// What happened at the last one.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file is not as long as the published one.
    #[error(
        "`{name}` has {found} bytes where {expected} are expected: it is not the published file"
    )]
    WrongSize {
        /// The file.
        name: String,
        /// The published size, as text.
        expected: String,
        /// The size found, in bytes.
        found: u64,
    },
    /// The bytes of a file are not the published ones.
    #[error(
        "`{name}` is damaged or not the published file: its {algorithm} is {found}, not \
         {expected}; it was not kept"
    )]
    WrongHash {
        /// The file.
        name: String,
        /// Which hash.
        algorithm: Algorithm,
        /// The hash, or its first digits, that was promised.
        expected: String,
        /// The hash of what arrived.
        found: String,
    },
    /// No room for the file.
    #[error(
        "no room left for `{}`: {} more are needed; make room, or set {variable} to a folder on \
         a larger disk, and run the same command again",
        path.display(),
        Bytes(*missing_in_bytes)
    )]
    DiskFull {
        /// The file being written.
        path: PathBuf,
        /// Bytes of it that are still to come.
        missing_in_bytes: u64,
        /// The variable that moves this download elsewhere.
        variable: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another program holds the file's lock and gets nowhere.
    #[error(
        "another program is downloading `{name}` and has got nowhere for a while: stop it, or \
         remove `{}`",
        lock.display()
    )]
    Busy {
        /// The file.
        name: String,
        /// The lock.
        lock: PathBuf,
    },
    /// A file could not be read or written.
    #[error("cannot use `{}`", path.display())]
    Io {
        /// That file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl HubError {
    /// An [`HubError::Io`] for `path`, to be used in `map_err`.
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

fn reason(message: Option<&String>) -> String {
    message.map(|text| format!(" ({text})")).unwrap_or_default()
}

/// A number of bytes as people read it: `543.6 MB`, in powers of 1000 as download pages do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0 as f64;
        match self.0 {
            0..1_000 => write!(f, "{} bytes", self.0),
            1_000..1_000_000 => write!(f, "{:.1} kB", value / 1e3),
            1_000_000..1_000_000_000 => write!(f, "{:.1} MB", value / 1e6),
            _ => write!(f, "{:.2} GB", value / 1e9),
        }
    }
}

/// What an attempt ended with.
pub(super) enum Trouble {
    /// The next attempt may go well.
    Passing {
        what: Box<dyn std::error::Error + Send + Sync>,
        /// How long the host asks to be left alone.
        wait: Option<std::time::Duration>,
    },
    /// The next attempt would end alike.
    Final(HubError),
}

impl Trouble {
    pub(super) fn passing(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Passing { what: what.into(), wait: None }
    }
}

impl From<HubError> for Trouble {
    fn from(error: HubError) -> Self {
        Self::Final(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_in_powers_of_a_thousand() {
        let text = |n| Bytes(n).to_string();
        assert_eq!(text(999), "999 bytes");
        assert_eq!(text(1_500), "1.5 kB");
        assert_eq!(text(543_640_119), "543.6 MB");
        assert_eq!(text(5_559_473_539), "5.56 GB");
    }
}
