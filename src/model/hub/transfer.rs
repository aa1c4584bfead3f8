//! One file: fetched in as many attempts as it takes, checked, and only then given its name.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ureq::http::StatusCode;
use ureq::http::header::HeaderMap;

use super::cache::create_parent;
use super::digest::{Check, Hashing, feed};
use super::error::{HubError, Trouble};
use super::http::{Client, Patience, header};
use super::settings::Retry;
use super::{Progress, Step};

/// A download.
pub(super) struct Transfer<'a> {
    /// Name for messages.
    pub(super) name: &'a str,
    pub(super) url: &'a str,
    /// Size in bytes that the host promised.
    pub(super) size: u64,
    /// Hashes that the whole must have.
    pub(super) checks: &'a [Check],
    /// Where the bytes are gathered; what is there already is gone on from.
    pub(super) partial: PathBuf,
    /// Where the checked file goes.
    pub(super) done: PathBuf,
    /// Held meanwhile, so that two programs do not write the same bytes.
    pub(super) lock: PathBuf,
    /// The variable that moves this folder elsewhere.
    pub(super) variable: &'static str,
}

/// How long to wait between two looks at another program's lock.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// A program that holds a lock and writes nothing for so long is stuck.
const STUCK: Duration = Duration::from_secs(600);

impl Transfer<'_> {
    /// Bytes of this file that lie in [`Transfer::partial`].
    pub(super) fn arrived(&self) -> u64 {
        std::fs::metadata(&self.partial).map_or(0, |data| data.len()).min(self.size)
    }

    /// Fetches the file, unless another program does so meanwhile.
    pub(super) fn run(
        &self,
        client: &Client,
        retry: &Retry,
        progress: &mut Progress<'_>,
    ) -> Result<(), HubError> {
        create_parent(&self.partial)?;
        let _lock = self.lock(progress)?;
        if is_of_size(&self.done, self.size) {
            progress(Step::Arrived(self.size));
            return Ok(());
        }
        let mut partial = Partial::open(self)?;
        let mut went_on = partial.len > 0;
        loop {
            progress(Step::Arrived(partial.len));
            self.fill(&mut partial, client, retry, progress)?;
            match partial.finish() {
                Ok(()) => break,
                // What lay there from an earlier run may be what is wrong: once from the start.
                Err(HubError::WrongHash { .. }) if went_on => {
                    went_on = false;
                    let name = self.name;
                    progress(Step::Note(&format!("{name}: damaged, starting again")));
                    partial.restart()?;
                }
                Err(wrong) => {
                    std::fs::remove_file(&self.partial).map_err(HubError::io(&self.partial))?;
                    return Err(wrong);
                }
            }
        }
        drop(partial);
        std::fs::rename(&self.partial, &self.done).map_err(HubError::io(&self.done))
    }

    /// Waits for the lock as long as whoever holds it gets on.
    fn lock(&self, progress: &mut Progress<'_>) -> Result<Option<File>, HubError> {
        create_parent(&self.lock)?;
        let file = OpenOptions::new().create(true).append(true).open(&self.lock);
        let file = file.map_err(HubError::io(&self.lock))?;
        let mut seen = (self.arrived(), Instant::now());
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(TryLockError::WouldBlock) => {}
                // Some network file systems know no locks; there, one program at a time.
                Err(TryLockError::Error(error)) => {
                    tracing::warn!(lock = %self.lock.display(), %error, "no locks here");
                    return Ok(None);
                }
            }
            if !std::mem::replace(&mut told, true) {
                let note = format!("{}: waiting for another program's download", self.name);
                progress(Step::Note(&note));
            }
            let arrived = self.arrived();
            progress(Step::Arrived(arrived));
            if arrived != seen.0 {
                seen = (arrived, Instant::now());
            } else if seen.1.elapsed() > STUCK {
                let (name, lock) = (self.name.to_owned(), self.lock.clone());
                return Err(HubError::Busy { name, lock });
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Brings the partial file to its full length.
    fn fill(
        &self,
        partial: &mut Partial<'_>,
        client: &Client,
        retry: &Retry,
        progress: &mut Progress<'_>,
    ) -> Result<(), HubError> {
        let mut patience = Patience::new(retry);
        while partial.len < self.size {
            let Err(trouble) = self.attempt(partial, client, progress) else { continue };
            let (wait, what) = patience.after(trouble, self.url, partial.len)?;
            tracing::warn!(name = self.name, what, "an attempt failed");
            let seconds = wait.as_secs_f32();
            let note = format!("{}: {what}; trying again in {seconds:.0} s", self.name);
            progress(Step::Note(&note));
            std::thread::sleep(wait);
        }
        Ok(())
    }

    /// One request and as much of its answer as comes.
    fn attempt(
        &self,
        partial: &mut Partial<'_>,
        client: &Client,
        progress: &mut Progress<'_>,
    ) -> Result<(), Trouble> {
        let answer = client.get(self.url, partial.len)?;
        let (status, headers) = (answer.status(), answer.headers());
        match status {
            StatusCode::PARTIAL_CONTENT => {
                self.check_range(headers, partial.len)?;
            }
            // The range was not looked at, so this is the file from its beginning.
            StatusCode::OK => {
                let length = header(headers, "content-length").and_then(|l| l.parse().ok());
                if let Some(length) = length.filter(|length| *length != self.size) {
                    return Err(self.wrong_size(length).into());
                }
                partial.restart()?;
            }
            _ => {
                partial.restart()?;
                return Err(Trouble::passing(format!("the answer was {status}")));
            }
        }
        // One byte more than there should be is enough to see that it is another file.
        let mut body = answer.into_body().into_reader().take(self.size - partial.len + 1);
        let mut buffer = vec![0; 1 << 18];
        loop {
            let n = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Trouble::passing(error)),
            };
            if partial.len + n as u64 > self.size {
                let found = partial.len + n as u64;
                partial.restart()?;
                return Err(self.wrong_size(found).into());
            }
            partial.append(&buffer[..n])?;
            progress(Step::Arrived(partial.len));
        }
        if partial.len < self.size {
            return Err(Trouble::passing("the connection ended early"));
        }
        Ok(())
    }

    /// Whether a partial answer is the part asked for, of the file expected.
    fn check_range(&self, headers: &HeaderMap, start: u64) -> Result<(), Trouble> {
        let range = header(headers, "content-range").and_then(|range| {
            let (ends, size) = range.strip_prefix("bytes ")?.split_once('/')?;
            let first = ends.split_once('-')?.0.parse::<u64>().ok()?;
            Some((first, size.parse::<u64>().ok()))
        });
        match range {
            Some((_, Some(size))) if size != self.size => Err(self.wrong_size(size).into()),
            Some((first, _)) if first == start => Ok(()),
            _ => Err(HubError::Answer {
                url: self.url.to_owned(),
                what: format!("with another part than asked for (from byte {start})"),
            }
            .into()),
        }
    }

    fn wrong_size(&self, found: u64) -> HubError {
        HubError::WrongSize { name: self.name.to_owned(), expected: self.size.to_string(), found }
    }

    fn write_error(&self, source: std::io::Error, arrived: u64) -> HubError {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        let path = self.partial.clone();
        if matches!(source.kind(), StorageFull | QuotaExceeded) {
            let missing_in_bytes = self.size - arrived;
            return HubError::DiskFull { path, missing_in_bytes, variable: self.variable, source };
        }
        HubError::Io { path, source }
    }
}

/// Whether a file of that size is there.
pub(super) fn is_of_size(path: &Path, size: u64) -> bool {
    std::fs::metadata(path).is_ok_and(|data| data.is_file() && data.len() == size)
}

/// The part of a file that has arrived, and its hashes so far.
struct Partial<'a> {
    of: &'a Transfer<'a>,
    file: File,
    hashing: Hashing,
    len: u64,
}

impl<'a> Partial<'a> {
    /// Opens what is there, or nothing; hashes it, so that it need not be read again.
    fn open(of: &'a Transfer<'a>) -> Result<Self, HubError> {
        let options =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
        let mut file = options.open(&of.partial).map_err(HubError::io(&of.partial))?;
        let mut hashing = Hashing::new(of.checks, of.size);
        // One byte too many is enough to see that this is not the beginning of that file.
        let len = feed(&mut (&mut file).take(of.size + 1), &mut hashing)
            .map_err(HubError::io(&of.partial))?;
        let mut partial = Self { of, file, hashing, len };
        if len > of.size {
            partial.restart()?;
        }
        Ok(partial)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        if let Err(error) = self.file.write_all(bytes) {
            // Part of it may be written: the file must not be longer than what was hashed.
            let _ = self.file.set_len(self.len);
            return Err(self.of.write_error(error, self.len));
        }
        self.hashing.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Forgets everything that has arrived.
    fn restart(&mut self) -> Result<(), HubError> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(HubError::io(&self.of.partial))?;
        self.hashing = Hashing::new(self.of.checks, self.of.size);
        self.len = 0;
        Ok(())
    }

    /// Whether the complete file is the promised one, and safe on disk.
    fn finish(&mut self) -> Result<(), HubError> {
        let hashing =
            std::mem::replace(&mut self.hashing, Hashing::new(self.of.checks, self.of.size));
        hashing.finish(self.of.name)?;
        self.file.sync_all().map_err(|error| self.of.write_error(error, self.len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_with_what_is_missing_and_how_to_go_on() {
        let transfer = Transfer {
            name: "big.pth",
            url: "http://127.0.0.1:1/big.pth",
            size: 2_000_000_000,
            checks: &[],
            partial: PathBuf::from("/cache/big.incomplete"),
            done: PathBuf::from("/cache/big"),
            lock: PathBuf::from("/cache/big.lock"),
            variable: "HF_HOME",
        };
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let text = transfer.write_error(full, 500_000_000).to_string();
        assert!(text.contains("1.50 GB more are needed"), "{text}");
        assert!(text.contains("/cache/big.incomplete") && text.contains("HF_HOME"), "{text}");
        let other = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        assert!(matches!(transfer.write_error(other, 0), HubError::Io { .. }));
    }
}
