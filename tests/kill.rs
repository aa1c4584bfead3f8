//! `index` killed at random moments, then finished: the same answers as a run never killed.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

#[path = "common/golden.rs"]
mod golden;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use tinyfind::model::bundle::WeightType;

/// Kills in one test run; `TINYFIND_KILLS` asks for more, `TINYFIND_SEED` for those of a run
/// before.
const KILLS: u64 = 200;

/// Rounds that are tried for each kill that is wanted: far more than chance asks for.
const ROUNDS_A_KILL: u64 = 20;

/// Rounds that are tried however few kills are wanted.
const LEAST_ROUNDS: u64 = 100;

/// So many album-and-index pairs are worked on side by side.
const ALBUMS: u64 = 4;

const QUERIES: [&str; 4] = ["a red dog on the grass", "\"png\"", "two cats -jpg", "after:1990"];

/// Steps of a linear congruential generator: a test that fails can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        // Knuth, MMIX; the high bits are the better ones.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Photos that change between the runs, and the index of them.
struct Album {
    model: PathBuf,
    photos: PathBuf,
    index: PathBuf,
    random: Random,
    /// Photos made so far.
    made: u64,
}

impl Album {
    fn new(model: &Path, folder: &Path, seed: u64) -> Self {
        let photos = folder.join("photos");
        fs::create_dir_all(&photos).unwrap();
        let index = folder.join("index");
        let model = model.to_owned();
        let mut album = Self { model, photos, index, random: Random(seed), made: 0 };
        for _ in 0..6 {
            album.paint();
        }
        album
    }

    fn tinyfind(&self, index: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tinyfind"));
        command.arg("--model").arg(&self.model).arg("--index").arg(index).args(arguments);
        command.env("XDG_STATE_HOME", index.with_extension("state")).stderr(Stdio::null());
        command
    }

    fn paint(&mut self) {
        let color = [0; 3].map(|_: u8| self.random.below(256) as u8);
        let picture = image::RgbImage::from_pixel(8, 8, image::Rgb(color));
        picture.save(self.photos.join(format!("{:03}.png", self.made))).unwrap();
        self.made += 1;
    }

    /// One of the files.
    fn any(&mut self) -> PathBuf {
        let entries = fs::read_dir(&self.photos).unwrap();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let at = self.random.below(files.len() as u64);
        files.swap_remove(at as usize)
    }

    /// Changes what is to be indexed: new, gone, moved, copied, changed and broken files.
    fn change(&mut self) {
        self.paint();
        // The album stays small, so that a run does.
        while fs::read_dir(&self.photos).unwrap().count() > 30 {
            fs::remove_file(self.any()).unwrap();
        }
        let file = self.any();
        let other = self.photos.join(format!("{:03}.png", self.made));
        self.made += 1;
        match self.random.below(6) {
            0 => fs::rename(file, other).unwrap(),
            1 => drop(fs::copy(file, other).unwrap()),
            2 => fs::write(other.with_extension("jpg"), "no photo").unwrap(),
            3 => fs::write(file, "no photo any more").unwrap(),
            _ => fs::remove_file(file).unwrap(),
        }
    }

    /// Brings the index up to date, without a kill.
    fn finish(&self, index: &Path) {
        let photos = self.photos.to_str().unwrap();
        let code = self.tinyfind(index, &["index", photos]).status().unwrap().code();
        // Broken files end a run with 2; what is in the index is looked at below.
        assert!(matches!(code, Some(0 | 2)), "{code:?}");
    }

    /// Starts a run and kills it after `patience`; tells whether it was still running.
    fn kill(&self, patience: Duration) -> bool {
        let photos = self.photos.to_str().unwrap();
        let mut child = self.tinyfind(&self.index, &["index", photos]).spawn().unwrap();
        thread::sleep(patience);
        let is_running = child.try_wait().unwrap().is_none();
        child.kill().unwrap();
        child.wait().unwrap();
        is_running
    }

    /// What `index --check` says, and that it finds nothing wrong.
    fn check(&self, what: &str) -> Value {
        let checked = self.tinyfind(&self.index, &["index", "--check", "--json"]).output().unwrap();
        let text = String::from_utf8_lossy(&checked.stdout);
        assert_eq!(checked.status.code(), Some(0), "{what}: {text}");
        let checked: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(checked["catalog"]["state"], "checked", "{what}: {text}");
        checked
    }

    /// What an index that is up to date says of every photo and every failure. Numbers, and the
    /// order of equals that follows from them, depend on the way to it.
    fn answers(&self, index: &Path) -> BTreeSet<String> {
        let mut answers = BTreeSet::new();
        let mut ask = |arguments: &[&str]| {
            let output = self.tinyfind(index, arguments).output().unwrap();
            for line in String::from_utf8(output.stdout).unwrap().lines() {
                let found: Value = serde_json::from_str(line).unwrap();
                let told = ["path", "caption", "reason"].map(|key| &found[key]);
                answers.insert(format!("{}: {told:?}", arguments[0]));
            }
        };
        ask(&["failures", "--json"]);
        for query in QUERIES {
            ask(&["search", "--json", "-t", "1000", query]);
        }
        answers
    }

    /// Kills runs until `kills` were running when it struck, and compares the end with an index
    /// that was made at once. Returns how many were not, and how many had committed something.
    fn kill_again_and_again(&mut self, kills: u64) -> [u64; 2] {
        self.finish(&self.index.clone());
        let start = Instant::now();
        self.change();
        self.finish(&self.index.clone());
        let mut whole_run = start.elapsed();
        let (mut killed, mut too_late, mut committed) = (0, 0, 0);
        let mut before = self.check("before any kill");
        // Kills before the first commit of a run are the most and prove the least.
        let mut rounds = 0;
        while killed < kills || 10 * committed < kills {
            rounds += 1;
            assert!(
                rounds <= ROUNDS_A_KILL * kills + LEAST_ROUNDS,
                "no end after {rounds} rounds: {killed} kills of {kills} struck a run, {too_late} \
                 came too late, {committed} runs had committed something; a run was last thought \
                 to take {whole_run:?}"
            );
            self.change();
            let moment = whole_run.mul_f64(self.random.below(1000) as f64 / 1000.0);
            if self.kill(moment) {
                killed += 1;
                // Runs take longer than was thought: their ends are to be met as well.
                if moment > whole_run.mul_f64(0.8) {
                    whole_run = whole_run.mul_f64(1.15);
                }
            } else {
                too_late += 1;
                whole_run = whole_run.mul_f64(0.9);
            }
            let now = self.check(&format!("kill {killed} after {moment:?}"));
            // What was committed stays; the generation tells how much that is.
            let generation = |check: &Value| check["generation"].as_u64().unwrap();
            assert!(generation(&now) >= generation(&before), "{before} {now}");
            committed += u64::from(generation(&now) > generation(&before));
            if generation(&now) == generation(&before) {
                for key in ["photos", "captioned", "failed", "contents"] {
                    assert_eq!(now[key], before[key], "{before} {now}");
                }
            }
            before = now;
        }
        self.finish(&self.index.clone());
        self.check("after the last run");
        let whole = self.index.with_extension("whole");
        self.finish(&whole);
        let (expected, found) = (self.answers(&whole), self.answers(&self.index));
        assert!(found.len() > 10, "the album has photos: {found:?}");
        assert_eq!(expected, found);
        [too_late, committed]
    }
}

#[test]
fn runs_killed_again_and_again_end_like_one_never_killed() {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse().ok());
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
    let seed: u64 = number("TINYFIND_SEED").unwrap_or_else(|| now() as u64);
    let kills = number("TINYFIND_KILLS").unwrap_or(KILLS);
    println!("TINYFIND_SEED={seed}");
    let model = golden::bundle(3, WeightType::F32);
    let folder = tempfile::tempdir().unwrap();
    let counts: Vec<[u64; 2]> = thread::scope(|scope| {
        let albums: Vec<_> = (0..ALBUMS)
            .map(|number| {
                let (model, folder) = (&model, folder.path().join(number.to_string()));
                scope.spawn(move || {
                    let mut album = Album::new(model, &folder, seed.wrapping_add(number));
                    album.kill_again_and_again(kills.div_ceil(ALBUMS))
                })
            })
            .collect();
        albums.into_iter().map(|album| album.join().expect("see TINYFIND_SEED above")).collect()
    });
    let [too_late, committed] = [0, 1].map(|at| counts.iter().map(|count| count[at]).sum::<u64>());
    println!(
        "{kills} kills; {too_late} runs had ended before, {committed} had committed something"
    );
    fs::remove_file(model).unwrap();
}
