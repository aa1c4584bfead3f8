//! `tinyfind demo` from nothing to the last answer. The model is a golden case's, with random
//! weights: what it says means nothing, so only the course of things is looked at.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tinyfind::demo::{PICTURES, album};
use tinyfind::model::bundle::WeightType;

use crate::env::{Env, Ran};
use crate::golden;

/// A home in which `--model tiny.gguf` is a small model.
fn home_with_model() -> Env {
    let env = Env::new();
    let bundle = golden::bundle(3, WeightType::F32);
    fs::copy(bundle, env.home().join("tiny.gguf")).unwrap();
    env
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// The lines of stderr that show a command.
fn commands(run: &Ran) -> Vec<String> {
    let stderr = run.stderr();
    stderr.lines().filter(|line| line.starts_with("$ ")).map(str::to_owned).collect()
}

#[test]
fn the_demo_explains_itself() {
    let run = Env::new().run("demo --help");
    let help = run.stdout();
    let own = help.split("\nGlobal options:").next().unwrap();
    insta::assert_snapshot!(own, @r"
    See tinyfind work, with an album that it draws itself

    Usage: tinyfind demo [OPTIONS] [DIR]

    Arguments:
      [DIR]  Folder for the album and its index: one that is empty or not there yet, or that of an
             earlier run [default: tinyfind-demo]

    Options:
      -h, --help  Print help
    ");
    let more = help.split("Draws 300 pictures").nth(1).unwrap();
    assert!(more.contains("Exit codes"), "{help}");
}

#[test]
fn without_a_model_nothing_is_drawn() {
    let env = Env::new();
    let run = env.run("--model nowhere.gguf demo");
    assert_eq!(run.code(), 2, "{}", run.text());
    assert!(run.stderr().starts_with("error: there is no bundle file `nowhere.gguf`"));
    assert_eq!(fs::read_dir(env.home()).unwrap().count(), 0);
}

#[test]
fn a_folder_with_other_things_is_refused() {
    let env = home_with_model();
    fs::create_dir(env.home().join("letters")).unwrap();
    fs::write(env.home().join("letters/one.txt"), "dear").unwrap();
    insta::assert_snapshot!(env.run("--model tiny.gguf demo letters").text(), @r"
    exit 2
    --- stdout
    --- stderr
    error: `letters` is not empty and holds no demonstration
    hint: name a folder that is empty or not there yet: `tinyfind demo DIR`
    ");
    assert_eq!(fs::read_dir(env.home().join("letters")).unwrap().count(), 1);
}

#[test]
fn a_demo_killed_while_it_draws_ends_like_one_never_killed() {
    let env = home_with_model();
    // An index that the environment names is the user's own.
    let own = env.home().join("own");
    let demo = || {
        let mut command = env.command(["--model", "tiny.gguf", "demo"]);
        command.env("TINYFIND_INDEX", &own).stdin(Stdio::null());
        command
    };
    let finish =
        |command: &mut Command| Ran { output: command.output().unwrap(), home: env.home() };
    let drawn = || files_below(&env.home().join("tinyfind-demo/album")).len();
    let mut child = demo().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while drawn() < 20 {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited for too long");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let left = drawn();
    assert!((20..PICTURES).contains(&left), "{left} pictures were drawn before it was killed");

    let run = finish(&mut demo());
    // Random captions may lack the words that a search asks for: then nothing is found.
    assert!(matches!(run.code(), 0 | 1), "{}", run.text());
    let told = format!("{} pictures drawn into `tinyfind-demo/album`", PICTURES - left);
    assert!(run.stderr().contains(&told), "{told} in {}", run.text());
    let album = album();
    for picture in album.iter().step_by(29).chain(&album[..5]) {
        let file = env.home().join("tinyfind-demo/album").join(&picture.path);
        assert_eq!(fs::read(file).unwrap(), picture.jpeg().unwrap());
    }
    assert_eq!(drawn(), PICTURES);
    assert!(!env.home().join("tinyfind-demo/drawing").exists());
    assert!(!own.exists());
    let shown = commands(&run);
    assert_eq!(
        shown[..4],
        [
            "$ tinyfind --model tiny.gguf --index tinyfind-demo/index index tinyfind-demo/album",
            "$ tinyfind --model tiny.gguf --index tinyfind-demo/index search -t 3 'a red car on a beach'",
            "$ tinyfind --model tiny.gguf --index tinyfind-demo/index search -t 3 'a \"cat\" in a kitchen -chair'",
            "$ tinyfind --model tiny.gguf --index tinyfind-demo/index search -t 3 'a boat camera:fuji on:2019-07'",
        ]
    );
    assert!(shown[4].ends_with("ask 1 'what color is the boat?'"), "{}", shown[4]);
    assert!(run.stderr().contains("300 added, 300 captioned"), "{}", run.text());
    // What the first search shows: three hits of two lines.
    let hits: Vec<String> = run.stdout().lines().map(str::to_owned).collect();
    assert!(hits.len() >= 6 && hits[0].starts_with("1  "), "{}", run.text());

    // The lines that were shown mean what was done.
    let again = env.run_with(
        ["--model", "tiny.gguf", "--index", "tinyfind-demo/index", "search", "-t", "3"]
            .into_iter()
            .chain(["a red car on a beach"]),
        b"",
    );
    assert!(run.stdout().starts_with(&again.stdout()), "{}\n{}", run.text(), again.text());

    // Again: nothing to draw and nothing to index, the same hits, and under -q only they.
    let second = finish(demo().arg("-q"));
    assert_eq!((second.code(), second.stderr().as_str()), (run.code(), ""));
    assert_eq!(second.stdout(), run.stdout());
}

#[test]
fn ctrl_c_while_the_album_is_indexed_ends_the_demo_and_loses_nothing() {
    let env = home_with_model();
    let stderr = env.home().join("stderr.txt");
    let mut command = env.command(["--model", "tiny.gguf", "--index", "mine", "demo", "d"]);
    command.stdout(Stdio::null()).stderr(fs::File::create(&stderr).unwrap());
    let mut child = command.spawn().unwrap();
    let told = || fs::read_to_string(&stderr).unwrap();
    let begun = Instant::now();
    while !told().contains("found: 300 new") {
        assert!(begun.elapsed() < Duration::from_secs(120), "waited for too long: {}", told());
        std::thread::sleep(Duration::from_millis(2));
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(child.wait().unwrap().code(), Some(2), "{}", told());
    assert!(told().contains("run the same command again"), "{}", told());
    assert!(!told().contains("search"), "{}", told());

    // The index that was asked for is the one that was made.
    assert!(env.home().join("mine").exists() && !env.home().join("d/index").exists());
    let run = env.run("--model tiny.gguf --index mine demo d");
    assert!(matches!(run.code(), 0 | 1), "{}", run.text());
    assert!(run.stderr().contains("300 pictures are in `d/album`"), "{}", run.text());
    let status = env.run("--index mine status --json").stdout();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!((&status["photos"], &status["captioned"]), (&300.into(), &300.into()));
}
