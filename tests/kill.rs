//! `index` killed at random moments, then finished: the same answers as a run never killed.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

#[path = "common/golden.rs"]
mod golden;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Instant, SystemTime};

use tinyfind::model::bundle::WeightType;

/// Kills in one test run; `TINYFIND_KILLS` asks for more.
const KILLS: usize = 5;

const QUERIES: [&str; 4] = ["a red dog on the grass", "\"jpg\"", "two cats -png", "after:1990"];

fn tinyfind(model: &Path, index: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tinyfind"));
    command.arg("--model").arg(model).arg("--index").arg(index).args(arguments);
    command.env("XDG_STATE_HOME", index.with_extension("state")).stderr(Stdio::null());
    command
}

/// Answers of the finished index: status, failures and every query, as the program prints them.
fn answers(model: &Path, index: &Path) -> Vec<String> {
    let mut answers = Vec::new();
    let mut ask = |arguments: &[&str]| {
        let output = tinyfind(model, index, arguments).output().unwrap();
        answers.push(String::from_utf8(output.stdout).unwrap());
    };
    ask(&["failures"]);
    for query in QUERIES {
        ask(&["search", "-t", "100", query]);
    }
    answers
}

/// Generation, photos and captions of the index; zeros before the first commit.
fn committed(model: &Path, index: &Path) -> [u64; 3] {
    let status = tinyfind(model, index, &["status", "--json"]).output().unwrap();
    match status.status.code() {
        Some(0) => {
            let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
            ["generation", "photos", "captioned"].map(|key| status[key].as_u64().unwrap())
        }
        // No index yet.
        Some(1) => [0; 3],
        code => panic!("the index cannot be read: {code:?}"),
    }
}

#[test]
fn a_run_killed_again_and_again_ends_like_one_never_killed() {
    let model = golden::bundle(3, WeightType::F32);
    let folder = tempfile::tempdir().unwrap();
    let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/photos");
    let photos = photos.to_str().unwrap();
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));

    let start = Instant::now();
    // Broken photos are among them, so the run ends with 2.
    let code = tinyfind(&model, &whole, &["index", photos]).status().unwrap().code();
    assert!(matches!(code, Some(0 | 2)), "{code:?}");
    let whole_run = start.elapsed();

    let mut before = [0; 3];
    let kills = std::env::var("TINYFIND_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(KILLS);
    let mut random =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    for _ in 0..kills {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let moment = whole_run.mul_f64((random >> 32) as f64 / f64::from(u32::MAX));
        let mut child = tinyfind(&model, &killed, &["index", photos]).spawn().unwrap();
        sleep(moment);
        child.kill().unwrap();
        child.wait().unwrap();
        // What was committed can be read at once and stays; before the first commit there is
        // nothing.
        let now = committed(&model, &killed);
        assert!(now.iter().zip(&before).all(|(now, before)| now >= before), "{before:?} {now:?}");
        before = now;
    }
    let code = tinyfind(&model, &killed, &["index", photos]).status().unwrap().code();
    assert!(matches!(code, Some(0 | 2)), "{code:?}");

    let (a, b) = (answers(&model, &whole), answers(&model, &killed));
    for (whole, killed) in a.iter().zip(&b) {
        assert!(!whole.is_empty());
        assert_eq!(whole, killed);
    }
    let doctor = tinyfind(&model, &killed, &["doctor"]).output().unwrap();
    assert_eq!(doctor.status.code(), Some(0), "{}", String::from_utf8_lossy(&doctor.stdout));
    fs::remove_file(model).unwrap();
}
