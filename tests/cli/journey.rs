//! With a model: index, search, ask, and what goes wrong on the way. The model is a golden
//! case's, with random weights: what it says means nothing, but it says the same every time.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tinyfind::model::bundle::WeightType;
use tinyfind::model::import::{ImportOptions, ImportSources, Lora, import};

use crate::env::{Env, Ran};
use crate::golden;

/// A home with an installed model and a folder of pictures, one of them no picture.
pub(crate) fn home_with_photos() -> Env {
    let env = Env::new();
    install(&env, 3, "tiny");
    for (name, color) in [("red.png", [220, 20, 20]), ("sea.png", [20, 60, 220])] {
        paint(&env, name, color);
    }
    paint(&env, "trip 2019/green.png", [20, 200, 20]);
    std::fs::write(env.home().join("photos/broken.jpg"), "no photo").unwrap();
    env
}

fn install(env: &Env, stage: u8, name: &str) {
    let models = env.home().join(".local/share/tinyfind/models");
    std::fs::create_dir_all(&models).unwrap();
    let bundle = golden::bundle(stage, WeightType::F32);
    std::fs::copy(bundle, models.join(format!("{name}.gguf"))).unwrap();
}

pub(crate) fn paint(env: &Env, name: impl AsRef<OsStr>, color: [u8; 3]) -> PathBuf {
    let path = env.home().join("photos").join(name.as_ref());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let picture = image::RgbImage::from_pixel(9, 7, image::Rgb(color));
    picture.save_with_format(&path, image::ImageFormat::Png).unwrap();
    path
}

/// `text` without what differs from run to run.
fn steady(text: &str) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        // Rates and times.
        let line = line.split(" a second").next().unwrap().split(" a minute").next().unwrap();
        let cut = line.rfind(" in ").filter(|_| line.ends_with(" s"));
        let line = cut.map_or(line, |at| &line[..at]);
        let is_rate = line.starts_with("embedding") || line.starts_with("captioning");
        // A slow machine tells how far it is in between.
        if is_rate && !line.contains("(100 %)") {
            continue;
        }
        let cut = line.rfind(", ").filter(|_| is_rate);
        lines.push(cut.map_or(line, |at| &line[..at]).to_owned());
    }
    lines.join("\n") + "\n"
}

pub(crate) fn paths(run: &Ran) -> Vec<String> {
    let mut paths: Vec<String> = run.stdout().lines().map(str::to_owned).collect();
    paths.sort();
    paths
}

pub(crate) fn json(run: &Ran) -> Vec<Value> {
    run.stdout().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn photos_are_indexed_found_and_asked_about() {
    let env = home_with_photos();
    let run = env.run("index photos");
    insta::assert_snapshot!(steady(&run.text()), @r"
    exit 2
    --- stdout
    --- stderr
    found: 4 new
    failed: `~/photos/broken.jpg` is not a photo: text
    embedding: 4 of 4 (100 %)
    captioning: 3 of 3 (100 %)
    3 added, 3 captioned, 1 failed
    hint: `tinyfind failures` lists what failed, and why
    ");

    // Nothing changed, so nothing is done, and nothing failed this time.
    let run = env.run("index photos");
    insta::assert_snapshot!(steady(&run.text()), @r"
    exit 0
    --- stdout
    --- stderr
    found: 4 unchanged
    3 unchanged
    1 file failed before (`--retry-failed` tries them again)
    ");

    let run = env.run("search -f --top 2 red picture");
    assert_eq!((run.code(), run.stdout().lines().count()), (0, 2), "{}", run.text());
    let all = paths(&env.run("search -f a red picture"));
    assert_eq!(all, ["~/photos/red.png", "~/photos/sea.png", "~/photos/trip 2019/green.png"]);
    assert_eq!(paths(&env.run("search -f picture path:TRIP")), ["~/photos/trip 2019/green.png"]);
    assert_eq!(paths(&env.run("search -f picture -sea -path:trip")), ["~/photos/red.png"]);
    let run = env.run("search path:nowhere");
    insta::assert_snapshot!(run.text(), @r"
    exit 1
    --- stdout
    --- stderr
    no photo found
    ");

    let run = env.run("ask 1 what is this?");
    insta::assert_snapshot!(run.text(), @r"
    exit 2
    --- stdout
    --- stderr
    error: the last search, for `path:nowhere`, found nothing
    hint: search for something else first, or name a photo by its path
    ");

    env.run("search path:sea");
    let answer = env.run("ask 1 what is this?");
    assert_eq!((answer.code(), answer.stdout().lines().count()), (0, 1), "{}", answer.text());
    let same = env.run("ask photos/sea.png what is this?");
    assert_eq!(same.stdout(), answer.stdout());
    let run = env.run("ask 2 what is this?");
    insta::assert_snapshot!(run.text(), @r"
    exit 2
    --- stdout
    --- stderr
    error: the last search, for `path:sea`, has no hit 2
    hint: it found 1 photo; search again with a greater `--top` for more, and write `./2` for a file of that name
    ");

    let run = env.run("failures");
    insta::assert_snapshot!(run.text(), @r"
    exit 0
    --- stdout
    ~/photos/broken.jpg
       is not a photo: text
    --- stderr
    ");
    assert_eq!(env.run("doctor --device cpu").code(), 0);
}

#[test]
fn hits_are_told_to_scripts_in_full() {
    let env = home_with_photos();
    env.run("-q index photos");
    let hits = json(&env.run("search --json green"));
    assert_eq!(hits.len(), 3);
    for (rank, hit) in (1..).zip(&hits) {
        let keys: Vec<&str> = hit.as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected = [
            "rank",
            "score",
            "path",
            "caption",
            "matches",
            "snippets",
            "title",
            "description",
            "keywords",
            "place",
            "taken",
            "taken_from",
            "camera",
            "lens",
            "gps",
            "format",
            "width",
            "height",
            "scores",
        ];
        expected.sort_unstable();
        assert_eq!(keys, expected);
        assert_eq!(
            (&hit["rank"], &hit["width"], &hit["height"]),
            (&rank.into(), &9.into(), &7.into())
        );
        assert!(hit["score"].as_f64().unwrap() <= 1.0 && hit["scores"]["meaning"].is_number());
        assert!(hit["caption"].is_string());
    }
    // The file name says green, so words find it too.
    let named = hits.iter().find(|hit| hit["path"].as_str().unwrap().ends_with("green.png"));
    assert!(named.unwrap()["scores"]["words"].as_f64().unwrap() > 0.0);

    let status = json(&env.run("status --json")).remove(0);
    for (key, count) in [("photos", 3), ("captioned", 3), ("failed", 1)] {
        assert_eq!(status[key], count, "{key} in {status}");
    }
    assert!(status["bytes"].as_u64().unwrap() > 1000 && status["generation"].as_u64() >= Some(1));
    let failure = json(&env.run("failures --json")).remove(0);
    assert_eq!(failure["path"], "~/photos/broken.jpg");
    let answers = json(&env.run("ask --json --top 2 is it green?"));
    assert_eq!(answers.len(), 2);
    assert_eq!(answers[1]["rank"], 2);
    assert_eq!(answers[1]["question"], "is it green?");
}

#[test]
fn a_smaller_top_is_the_head_of_a_greater_one() {
    let env = home_with_photos();
    for i in 0..5_u8 {
        paint(&env, format!("{i}.png"), [i * 50, 255 - i * 40, i * 20]);
    }
    env.run("-q index photos");
    let all = env.run("search -f -t 50 something green").stdout();
    assert_eq!(all.lines().count(), 8);
    let five = env.run("search -f -t 5 something green").stdout();
    assert!(all.starts_with(&five) && five.lines().count() == 5, "{five}\n{all}");
}

#[test]
fn a_name_that_is_not_utf_8_goes_through_every_pipe() {
    let env = home_with_photos();
    let path = paint(&env, OsStr::from_bytes(b"n\xffme\n.png"), [9, 9, 9]);
    env.run("-q index photos");
    let found = env.run("search -0 path:me");
    let mut expected = path.as_os_str().as_bytes().to_vec();
    expected.push(0);
    assert_eq!(found.output.stdout, expected);
    let hit = json(&env.run("search --json path:me")).remove(0);
    let bytes: Vec<u8> = serde_json::from_value(hit["path_bytes"].clone()).unwrap();
    assert_eq!(bytes, path.as_os_str().as_bytes());

    let piped = env.run_with(["ask", "-", "what is it?"], &found.output.stdout);
    assert_eq!(piped.code(), 0, "{}", piped.text());
    let expected = [b"  ", path.as_os_str().as_bytes(), b"\n"].concat();
    assert!(piped.output.stdout.ends_with(&expected), "{}", piped.text());
    assert_eq!(env.run("ask 1 what?").code(), 0);
}

#[test]
fn a_conversation_is_a_line_for_a_line() {
    let env = home_with_photos();
    let run = env.run_with(["ask", "photos/red.png"], b"what is it?\n\n  why?  \n");
    assert_eq!((run.code(), run.stdout().lines().count()), (0, 2), "{}", run.text());
    let first = env.run("ask photos/red.png what is it?").stdout();
    assert!(run.stdout().starts_with(&first), "{first}\n{}", run.stdout());
    let alone = env.run("ask photos/red.png why?").stdout();
    assert_ne!(run.stdout(), format!("{first}{alone}"), "the second answer knows the first");
}

#[test]
fn captions_are_written_for_files_that_are_not_indexed() {
    let env = home_with_photos();
    let one = env.run("caption photos/red.png");
    assert_eq!((one.code(), one.stdout().lines().count()), (0, 1), "{}", one.text());
    let several = env.run("caption photos/red.png photos/broken.jpg photos/sea.png");
    assert_eq!(several.code(), 2);
    assert_eq!(several.stderr(), "error: `photos/broken.jpg` is not a photo: text\n");
    let lines: Vec<String> = several.stdout().lines().map(str::to_owned).collect();
    assert_eq!(lines[0], format!("photos/red.png: {}", one.stdout().trim_end_matches('\n')));
    assert!(lines[1].starts_with("photos/sea.png: "));

    env.run("-q index photos");
    assert_eq!(env.run("caption photos/red.png").stdout(), one.stdout());
    let hit = json(&env.run("search --json path:red.png")).remove(0);
    let caption = hit["caption"].as_str().unwrap().replace(|c: char| c.is_ascii_control(), " ");
    assert_eq!(caption.trim(), one.stdout().trim());
}

#[test]
fn a_photo_is_answered_after_its_file_is_gone() {
    let env = home_with_photos();
    env.run("-q index photos");
    let before = env.run("ask photos/sea.png what is it?");
    std::fs::remove_file(env.home().join("photos/sea.png")).unwrap();
    assert_eq!(env.run("ask photos/sea.png what is it?").stdout(), before.stdout());
    let run = env.run_with(["ask", "what is it?"], b"");
    insta::assert_snapshot!(run.text(), @r#"
    exit 2
    --- stdout
    --- stderr
    error: `what is it?` cannot be read: No such file or directory (os error 2)
    hint: the photo comes before the question: `tinyfind ask 2 "what is this?"`, or a path in place of the number
    "#);
}

#[test]
fn an_index_works_with_the_model_that_made_it_and_refuses_others() {
    let env = home_with_photos();
    env.run("-q index photos");
    // Preferred by its name, but the index was made by the other one.
    install(&env, 4, "tinygpt-v-stage3");
    assert_eq!(env.run("search red").code(), 0);
    assert_eq!(env.run("index photos").code(), 0);
    let search = env.run("--model tinygpt-v-stage3 search red");
    let index = env.run("--model tinygpt-v-stage3 index photos");
    for refused in [&search, &index] {
        assert_eq!(refused.code(), 2, "{}", refused.text());
        assert!(refused.stdout().is_empty());
        assert!(refused.stderr().contains("hint: "), "{}", refused.text());
    }
    assert_eq!(env.run("--model tinygpt-v-stage3 search --words-only red").code(), 0);
    assert_eq!(env.run("--model tinygpt-v-stage3 search path:red").code(), 0);
}

#[test]
fn without_a_model_the_built_in_one_is_used_and_says_what_it_knows() {
    let env = Env::new();
    paint(&env, "red.png", [220, 20, 20]);
    let run = env.run("index photos");
    assert_eq!(run.code(), 0, "{}", run.text());
    for word in ["`nano` knows drawn scenes only", "tinyfind model pull"] {
        assert_eq!(run.stderr().matches(word).count(), 1, "{word} in {}", run.text());
    }
    assert!(!env.run("-q index photos").stderr().contains("nano"));
    // The index goes on with the model that made it, and says so.
    install(&env, 3, "tinygpt-v-stage3");
    let run = env.run("index photos");
    assert_eq!(run.code(), 0, "{}", run.text());
    assert!(run.stderr().contains("it made this index"), "{}", run.text());
}

#[test]
fn an_index_without_a_photo_is_of_the_model_that_comes_next() {
    let env = Env::new();
    std::fs::create_dir(env.home().join("photos")).unwrap();
    assert_eq!(env.run("index photos").code(), 0);
    assert!(env.run("status").stdout().contains("that of the first photo"));
    assert!(env.run("status --json").stdout().contains("\"model\":null"));
    install(&env, 3, "tinygpt-v-stage3");
    // Nothing is found in it, by whichever model.
    assert_eq!(env.run("search red").code(), 1);
    paint(&env, "red.png", [220, 20, 20]);
    let run = env.run("index photos");
    assert_eq!(run.code(), 0, "{}", run.text());
    assert!(!run.stderr().contains("nano"), "{}", run.text());
    assert!(env.run("status").stdout().contains("tinygpt-v-stage3"));
    assert_eq!(env.run("search red").code(), 0);
}

#[test]
fn a_model_without_retrieval_is_refused_before_it_makes_an_index() {
    let env = Env::new();
    std::fs::create_dir(env.home().join("photos")).unwrap();
    let sources = ImportSources { retrieval: None, retrieval_vocab: None, ..golden::sources(3) };
    let options = ImportOptions { weight_type: WeightType::F32, lora: Lora::Merge, name: None };
    import(&sources, &options, &env.home().join("half.gguf"), &mut |_| ()).unwrap();
    let run = env.run("--model half.gguf index photos");
    insta::assert_snapshot!(run.text(), @r"
    exit 2
    --- stdout
    --- stderr
    error: the model `tinygpt-v-stage3` has no retrieval part and cannot index
    hint: import it again with `--retrieval` and `--retrieval-vocab`, or name another with `--model`
    ");
    assert!(!env.home().join(".local/share/tinyfind/index").exists());
}

#[test]
fn a_model_without_language_indexes_without_captions() {
    let env = Env::new();
    paint(&env, "red.png", [220, 20, 20]);
    let sources = ImportSources { phi: None, checkpoint: None, ..golden::sources(3) };
    let options = ImportOptions { weight_type: WeightType::F32, lora: Lora::Merge, name: None };
    import(&sources, &options, &env.home().join("mute.gguf"), &mut |_| ()).unwrap();
    let run = env.run("--model mute.gguf index photos");
    insta::assert_snapshot!(steady(&run.text()), @r"
    exit 0
    --- stdout
    --- stderr
    found: 1 new
    embedding: 1 of 1 (100 %)
    1 added
    no captions were written: the model `blip2-retrieval` has no language part
    ");
    assert_eq!(env.run("--model mute.gguf search -f red").stdout(), "~/photos/red.png\n");
}

#[test]
fn a_hit_is_never_another_photo_after_the_index_was_made_anew() {
    let env = home_with_photos();
    env.run("-q index photos");
    env.run("search path:sea");
    let sea = env.run("ask --json 1 what is it?").stdout();
    std::fs::rename(env.home().join("photos/sea.png"), env.home().join("photos/a.png")).unwrap();
    env.run("-q index photos");
    assert_eq!(env.run("ask --json 1 what is it?").stdout(), sea, "it was moved");

    // Now the numbers mean other photos.
    std::fs::remove_dir_all(env.home().join(".local/share/tinyfind/index")).unwrap();
    std::fs::remove_file(env.home().join("photos/a.png")).unwrap();
    paint(&env, "0.png", [1, 2, 3]);
    env.run("-q index photos");
    insta::assert_snapshot!(env.run("ask 1 what is it?").text(), @r"
    exit 2
    --- stdout
    --- stderr
    error: `~/photos/sea.png` is gone, and the index does not hold it any more
    hint: search again: the hits are those of an earlier index
    ");
}

#[test]
fn a_photo_that_cannot_be_read_now_is_kept_and_told_with_the_reason() {
    let env = Env::new();
    install(&env, 3, "tiny");
    let path = paint(&env, "red.png", [220, 20, 20]);
    env.run("-q index photos");
    paint(&env, "red.png", [20, 20, 220]);
    let touched = Command::new("touch").args(["-d", "2001-01-01"]).arg(&path).status().unwrap();
    let locked = Command::new("chmod").arg("0").arg(&path).status().unwrap();
    assert!(touched.success() && locked.success());
    if std::fs::read(&path).is_ok() {
        return; // Root reads everything.
    }
    let run = env.run("index photos");
    insta::assert_snapshot!(steady(&run.text()), @r"
    exit 2
    --- stdout
    --- stderr
    found: 1 changed
    embedding: 1 of 1 (100 %)
    no photos
    warning: `~/photos/red.png` cannot be read: Permission denied (os error 13)
    ");
    assert_eq!(env.run("search -f path:red").stdout(), "~/photos/red.png\n");
}

#[test]
fn a_missing_folder_is_told_and_fails_the_run() {
    let env = home_with_photos();
    env.run("-q index photos");
    let run = env.run("index photos/trip nowhere");
    assert_eq!(run.code(), 2);
    assert!(run.stderr().contains("`~/nowhere` cannot be read"), "{}", run.text());
}

#[test]
fn ctrl_c_keeps_what_was_done_and_the_same_command_goes_on() {
    let env = home_with_photos();
    for i in 0..60_u8 {
        paint(&env, format!("{i}.png"), [i * 4, 255 - i * 3, i]);
    }
    let mut command = env.command(["index", "photos", "-j", "1"]);
    let stderr = env.home().join("stderr.txt");
    command.stderr(std::fs::File::create(&stderr).unwrap());
    let mut child = command.spawn().unwrap();
    let told = || std::fs::read_to_string(&stderr).unwrap();
    wait_for(|| told().contains("found: "));
    // A second writer is refused while the first one works; a reader is not.
    let second = env.run("index photos");
    let is_locked = second.stderr().contains("is being written by process");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let status = child.wait().unwrap();
    assert!(is_locked, "{}", second.text());
    assert_eq!(status.code(), Some(2), "{}", told());
    assert!(told().contains("Ctrl-C again stops at once"), "{}", told());
    assert!(told().contains("run the same command again"), "{}", told());

    env.run("-q index photos");
    let status = json(&env.run("status --json")).remove(0);
    assert_eq!((&status["photos"], &status["captioned"]), (&63.into(), &63.into()));
}

fn wait_for(mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited for too long");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_search_goes_on_while_another_process_writes() {
    let env = home_with_photos();
    env.run("-q index photos");
    let index = env.home().join(".local/share/tinyfind/index");
    let spec = tinyfind_index::IndexReader::open(&index).unwrap().spec().clone();
    let writer = tinyfind_index::IndexWriter::open(&index, &spec).unwrap();
    for line in ["search red", "status", "failures", "ask photos/red.png what?", "doctor"] {
        assert_eq!(env.run(line).code(), 0, "{line}");
    }
    let refused = env.run("index photos");
    assert!(refused.stderr().contains("hint: wait until it is done"), "{}", refused.text());
    drop(writer);
    assert_eq!(env.run("index photos").code(), 0);
}

#[test]
fn the_last_search_is_kept_in_the_state_folder() {
    let env = home_with_photos();
    env.run("-q index photos");
    let state: OsString = env.home().join("state").into();
    let mut command = env.command(["search", "path:red"]);
    assert!(command.env("XDG_STATE_HOME", &state).output().unwrap().status.success());
    assert!(env.home().join("state/tinyfind/last-search.json").exists());
    assert_eq!(env.run("ask 1 what?").code(), 2, "another state folder knows nothing of it");
    let mut command = env.command(["ask", "1", "what?"]);
    assert!(command.env("XDG_STATE_HOME", &state).output().unwrap().status.success());
}
