//! What the tests of the jobs and of the program share: a folder of small photos made in code,
//! an index beside it, and the program with a home of its own.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::AtomicBool,
    time::{Duration, SystemTime},
};

use image::{Rgb, RgbImage};
use tempfile::TempDir;
use tinyfind::{
    indexer::{self, IndexRequest, Reporter, Summary},
    vlm::{FakeVlm, Vlm as _},
};
use tinyfind_index::{
    ContentHash, DocId, FileRecord, Filter, IndexReader, IndexWriter, PhotoMetadata,
};

pub const RED: [u8; 3] = [220, 20, 20];
pub const GREEN: [u8; 3] = [30, 160, 40];
pub const BLUE: [u8; 3] = [30, 50, 220];
pub const YELLOW: [u8; 3] = [250, 230, 30];

/// A folder of photos and an index, gone when dropped.
pub struct TestEnv {
    folder: TempDir,
    root: PathBuf,
}

impl TestEnv {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir(root.join("photos")).unwrap();
        Self { folder, root }
    }

    /// The folder that everything lies in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of the photos.
    pub fn photos(&self) -> PathBuf {
        self.root.join("photos")
    }

    /// The folder of the index.
    pub fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.photos().join(name)
    }

    /// Writes bytes under the photos, folders included.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Writes a PNG of one colour; photos of different `seed` differ in their bytes.
    pub fn photo(&self, name: &str, colour: [u8; 3], seed: u32) -> PathBuf {
        self.write(name, &png(colour, seed))
    }

    /// Copies a file, or a folder with all that is in it, of `tests/fixtures/photos`.
    pub fn copy_fixture(&self, name: &str) {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/photos");
        copy(&fixtures.join(name), &self.path(name));
    }

    pub fn request(&self) -> IndexRequest {
        IndexRequest::new([self.photos()])
    }

    /// Indexes the photos with a fresh model; gives the summary and the model's calls.
    pub fn run(&self) -> (Summary, tinyfind::vlm::Calls) {
        self.run_with(&self.request(), FakeVlm::default(), &mut ())
    }

    pub fn run_with(
        &self,
        request: &IndexRequest,
        mut vlm: FakeVlm,
        reporter: &mut dyn Reporter,
    ) -> (Summary, tinyfind::vlm::Calls) {
        let mut writer = IndexWriter::open(&self.index(), vlm.spec()).unwrap();
        let cancel = AtomicBool::new(false);
        let summary = indexer::run(&mut writer, &mut vlm, request, reporter, &cancel).unwrap();
        (summary, vlm.calls())
    }

    /// What a reader sees of every photo, by path relative to the photos. Panics where the
    /// index is not sound.
    pub fn contents(&self) -> BTreeMap<PathBuf, Seen> {
        let reader = self.reader();
        assert_eq!(reader.check().unwrap().problems, [""; 0]);
        let docs = reader.by_filter(&Filter::default(), usize::MAX).unwrap();
        let seen = docs.into_iter().map(|doc| {
            let photo = reader.photo(doc).unwrap().unwrap();
            let path = photo.path.strip_prefix(self.photos()).unwrap_or(&photo.path).to_owned();
            let seen = Seen {
                doc,
                hash: photo.hash,
                metadata: photo.metadata,
                caption: photo.caption,
                embedding: reader.embedding(doc).unwrap().values,
                visual_tokens: reader.visual_tokens(doc).unwrap().values,
            };
            (path, seen)
        });
        seen.collect()
    }

    pub fn reader(&self) -> IndexReader {
        IndexReader::open(&self.index()).unwrap()
    }

    /// Reasons by path relative to the photos.
    pub fn failures(&self) -> BTreeMap<PathBuf, String> {
        let failures = self.reader().failures().unwrap().into_iter();
        failures
            .map(|failure| {
                let path = failure.path.strip_prefix(self.photos()).unwrap_or(&failure.path);
                (path.to_owned(), failure.reason)
            })
            .collect()
    }

    /// What the writer's ledger has of a photo.
    pub fn record(&self, name: &str) -> Option<FileRecord> {
        let writer = IndexWriter::open(&self.index(), FakeVlm::default().spec()).unwrap();
        writer.lookup(&self.path(name)).unwrap()
    }

    /// The program, with a home and folders of its own below [`TestEnv::root`].
    pub fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tinyfind"));
        command.current_dir(&self.root).env_clear().env("HOME", self.root.join("home"));
        for (name, folder) in [
            ("XDG_DATA_HOME", "data"),
            ("XDG_CONFIG_HOME", "config"),
            ("XDG_STATE_HOME", "state"),
            ("XDG_CACHE_HOME", "cache"),
        ] {
            command.env(name, self.root.join("home").join(folder));
        }
        command
    }
}

/// One photo, as a reader sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub doc: DocId,
    pub hash: ContentHash,
    pub metadata: PhotoMetadata,
    pub caption: Option<String>,
    pub embedding: Vec<f32>,
    pub visual_tokens: Vec<f32>,
}

/// The bytes of a PNG of 20 x 12 pixels of one colour, but for the first, which is `seed`.
pub fn png(colour: [u8; 3], seed: u32) -> Vec<u8> {
    let mut picture = RgbImage::from_pixel(20, 12, Rgb(colour));
    let [_, red, green, blue] = seed.to_be_bytes();
    picture.put_pixel(0, 0, Rgb([red, green, blue]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Sets the modification time of a file to so many seconds after 2001-09-09.
pub fn set_time(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + seconds);
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        for entry in fs::read_dir(from).unwrap() {
            let name = entry.unwrap().file_name();
            copy(&from.join(&name), &to.join(&name));
        }
    } else {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }
}
