//! The album on disk: whole pictures or none, in a folder of its own.
//!
//! ```text
//! DIR/demo.json   says that the folder is a demonstration; locked by the process at work in it
//! DIR/drawing/    pictures that are being written; gone when all are drawn
//! DIR/album/      the pictures: a name stands only for a whole file
//! DIR/index/      the index of the album, made by whoever indexes it
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::album::Picture;
use super::error::DemoError;

/// Version of the album: its pictures and their names. Another one is another album.
const VERSION: u32 = 1;

/// Name of the file that makes a folder a demonstration.
const MARKER: &str = "demo.json";

/// Pictures that are drawn between two reports.
const AT_A_TIME: usize = 12;

/// What the marker says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    /// Always `tinyfind demo`.
    made_by: String,
    /// See [`VERSION`].
    version: u32,
}

/// A folder that holds a demonstration, and no other process is at work in it as long as this
/// lives.
#[derive(Debug)]
pub struct DemoFolder {
    root: PathBuf,
    /// Locked; the system unlocks it when this process ends, however it ends.
    _marker: File,
}

impl DemoFolder {
    /// Makes `root` the folder of a demonstration, or goes on with what an earlier run left there.
    ///
    /// # Errors
    ///
    /// When `root` is a file, holds anything else or the album of another version, when another
    /// process is at work in it, or when it cannot be read or written.
    pub fn open(root: &Path) -> Result<Self, DemoError> {
        let path = root.join(MARKER);
        match fs::read_dir(root) {
            Ok(mut entries) => {
                if entries.next().is_some() && !path.exists() {
                    return Err(DemoError::Foreign { path: root.to_owned() });
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(root).map_err(at(root))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(DemoError::Foreign { path: root.to_owned() });
            }
            Err(error) => return Err(at(root)(error)),
        }
        let mut marker = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(at(&path))?;
        match marker.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DemoError::Busy { path: root.to_owned() });
            }
            Err(TryLockError::Error(error)) => return Err(at(&path)(error)),
        }
        claim(&mut marker, root, &path)?;
        Ok(Self { root: root.to_owned(), _marker: marker })
    }

    /// Folder of the pictures.
    pub fn album(&self) -> PathBuf {
        self.root.join("album")
    }

    /// Folder for the index of the pictures.
    pub fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    /// Those of `pictures` that are not on disk yet.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read.
    pub fn missing<'a>(&self, pictures: &'a [Picture]) -> Result<Vec<&'a Picture>, DemoError> {
        let album = self.album();
        let mut missing = Vec::new();
        for picture in pictures {
            let path = album.join(&picture.path);
            if !path.try_exists().map_err(at(&path))? {
                missing.push(picture);
            }
        }
        Ok(missing)
    }

    /// Draws `pictures` on all cores and writes each as a whole; `drawn` hears now and then how
    /// many more are done. A process that is killed loses the few that it is at.
    ///
    /// # Errors
    ///
    /// When a file cannot be written; those that were drawn stay.
    pub fn draw(
        &self,
        pictures: &[&Picture],
        mut drawn: impl FnMut(usize),
    ) -> Result<(), DemoError> {
        let (album, drawing) = (self.album(), self.root.join("drawing"));
        fs::create_dir_all(&drawing).map_err(at(&drawing))?;
        for (some, number) in pictures.chunks(AT_A_TIME).zip(0..) {
            some.par_iter().zip(0..AT_A_TIME).try_for_each(|(picture, place)| {
                let new = drawing.join(format!("{number}-{place}.jpg"));
                write_whole(&new, &album.join(&picture.path), &picture.jpeg()?)
            })?;
            drawn(some.len());
        }
        fs::remove_dir_all(&drawing).map_err(at(&drawing))
    }
}

/// Writes the marker where it is empty, because nobody has written it yet or someone was stopped
/// at that; else reads it.
fn claim(marker: &mut File, root: &Path, path: &Path) -> Result<(), DemoError> {
    let ours = Marker { made_by: "tinyfind demo".to_owned(), version: VERSION };
    let mut text = String::new();
    let read = marker.read_to_string(&mut text);
    let foreign = || DemoError::Foreign { path: root.to_owned() };
    match read {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(foreign()),
        read => read.map_err(at(path))?,
    };
    if text.is_empty() {
        if fs::read_dir(root).map_err(at(root))?.count() > 1 {
            return Err(foreign());
        }
        let text = serde_json::to_vec(&ours).map_err(io::Error::from).map_err(at(path))?;
        return marker.write_all(&text).map_err(at(path));
    }
    match serde_json::from_str::<Marker>(&text) {
        Ok(found) if found == ours => Ok(()),
        Ok(found) if found.made_by == ours.made_by => {
            Err(DemoError::OtherVersion { path: root.to_owned() })
        }
        _ => Err(foreign()),
    }
}

/// Writes `bytes` to `new` and gives it the name `path`, in a folder that may not be there yet.
fn write_whole(new: &Path, path: &Path, bytes: &[u8]) -> Result<(), DemoError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(at(folder))?;
    }
    let write = || {
        let mut file = File::create(new)?;
        file.write_all(bytes)?;
        // A name must not outlive a power cut that its bytes do not.
        file.sync_data()
    };
    write().map_err(at(new))?;
    fs::rename(new, path).map_err(at(path))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> DemoError {
    let path = path.to_owned();
    |source| DemoError::Io { path, source }
}
