//! `similar` and `duplicates-report` as a person and a script meet them.

use std::path::{Path, PathBuf};

use image::RgbImage;
use tinyfind::train::scenes::{Scene, Split};

use crate::env::{Env, Ran};
use crate::journey::{home_with_photos, json, paint};

/// A home with drawn pictures: two of one scene, the smaller in a folder of its own, and three
/// of others. The model is the one that is built in.
fn home_with_scenes() -> Env {
    let env = Env::new();
    draw(&env, "a.png", 1, 96);
    draw(&env, "small/b.png", 1, 64);
    for (name, scene) in [("c.png", 2), ("d.png", 3), ("e.png", 4)] {
        draw(&env, name, scene, 96);
    }
    let run = env.run("-q index photos --no-caption");
    assert_eq!(run.code(), 0, "{}", run.text());
    env
}

fn draw(env: &Env, name: &str, scene: u64, side: u32) -> PathBuf {
    let path = env.home().join("photos").join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let drawn = Scene::generate(Split::Test, scene).draw(side, side);
    RgbImage::from_raw(side, side, drawn.rgb).unwrap().save(&path).unwrap();
    path
}

fn lines(run: &Ran) -> Vec<String> {
    assert_eq!(run.code(), 0, "{}", run.text());
    run.stdout().lines().map(str::to_owned).collect()
}

#[test]
fn photos_like_one_of_the_index_are_found_without_a_model() {
    let env = home_with_scenes();
    let found = lines(&env.run("--model none.gguf similar -f photos/a.png"));
    assert_eq!((found[0].as_str(), found.len()), ("~/photos/small/b.png", 4));
    assert!(!found.contains(&"~/photos/a.png".to_owned()));
    assert_eq!(lines(&env.run("similar -f -t 1 b.png")), ["~/photos/a.png"]);
    assert_eq!(lines(&env.run("similar -f a.png path:small")), ["~/photos/small/b.png"]);
    assert_eq!(lines(&env.run("similar -f a.png -path:small -name:c -name:d")), ["~/photos/e.png"]);
    assert_eq!(env.run("similar -0 -t 1 a.png").stdout(), "~/photos/small/b.png\0");

    let hits = json(&env.run("similar --json a.png"));
    assert_eq!(hits.len(), 4);
    for (rank, hit) in (1..).zip(&hits) {
        assert_eq!(
            (&hit["rank"], &hit["scores"]["words"]),
            (&rank.into(), &serde_json::Value::Null)
        );
        assert!(hit["scores"]["meaning"].is_number() && hit["caption"].is_null(), "{hit}");
    }
    let first = hits[0]["score"].as_f64().unwrap();
    assert!(first > 0.9 && first < 1.0 && first > hits[1]["score"].as_f64().unwrap(), "{hits:?}");
    let best = lines(&env.run(&format!("similar -f --min-score {} a.png", first - 0.01)));
    assert_eq!(best, ["~/photos/small/b.png"]);
    let run = env.run("similar --min-score 1 a.png");
    insta::assert_snapshot!(run.text(), @r"
    exit 1
    --- stdout
    --- stderr
    no photo found
    ");
}

#[test]
fn hits_can_be_numbers_and_files_are_looked_at() {
    let env = home_with_scenes();
    env.run("-q search path:small");
    assert_eq!(lines(&env.run("similar -f -t 1 1")), ["~/photos/a.png"]);
    // What it found is the last search now.
    assert_eq!(lines(&env.run("similar -f -t 1 1")), ["~/photos/small/b.png"]);
    let other = draw(&env, "../other.png", 3, 128);
    assert_eq!(lines(&env.run("-q similar -f -t 1 other.png")), ["~/photos/d.png"]);
    let run = env.run("similar -f -t 1 other.png");
    assert!(run.stderr().contains("`nano` knows drawn scenes only"), "{}", run.text());

    // A copy scores 1 and comes first, even before a larger picture of the same scene.
    std::fs::copy(&other, env.home().join("photos/d copy.png")).unwrap();
    env.run("-q index photos --no-caption");
    let hit = json(&env.run("-q similar --json -t 1 other.png")).remove(0);
    assert_eq!((&hit["path"], &hit["score"]), (&"~/photos/d copy.png".into(), &1.0.into()));

    // A photo that is there no more is known all the same; one that changed is looked at.
    std::fs::remove_file(env.home().join("photos/a.png")).unwrap();
    assert_eq!(lines(&env.run("similar -f -t 1 photos/a.png")), ["~/photos/small/b.png"]);
    draw(&env, "a.png", 4, 100);
    assert_eq!(lines(&env.run("-q similar -f -t 1 photos/a.png")), ["~/photos/e.png"]);
}

#[test]
fn what_is_no_photo_or_no_field_is_told_with_the_next_step() {
    let env = home_with_photos();
    insta::assert_snapshot!(env.run("similar a.jpg").text(), @r"
    exit 2
    --- stdout
    --- stderr
    error: there is no index in `~/.local/share/tinyfind/index`
    hint: index your photos first: `tinyfind index FOLDER` (`--index DIR` names another index)
    ");
    insta::assert_snapshot!(env.run("similar 3").text(), @r"
    exit 2
    --- stdout
    --- stderr
    error: there was no search yet
    hint: search first (`tinyfind search umbrella`), or name a photo by its path
    ");
    env.run("-q index photos --no-caption");
    insta::assert_snapshot!(env.run("similar nowhere.jpg").text(), @r"
    exit 2
    --- stdout
    --- stderr
    error: there is no photo `nowhere.jpg` here or in the index
    hint: name a file, a photo of the index by its path or the end of it, or a hit of the last search by its number
    ");
    insta::assert_snapshot!(env.run("similar photos/broken.jpg").text(), @r"
    exit 2
    --- stdout
    --- stderr
    error: `~/photos/broken.jpg` is not a photo: text
    ");
    insta::assert_snapshot!(env.run("similar photos/red.png path:trip umbrella").text(), @r"
    exit 2
    --- stdout
    --- stderr
    error: this would rank photos, and here only fields may stand, such as path:italy or after:2019 (a word that caption, name or notes must have stands in quotes)
      path:trip umbrella
                ^^^^^^^^
    hint: `tinyfind search --help` explains the query language
    ");
    paint(&env, "trip 2019/red.png", [200, 10, 10]);
    env.run("-q index photos --no-caption");
    insta::assert_snapshot!(env.run("similar red.png").text(), @r"
    exit 2
    --- stdout
    --- stderr
    error: several photos are called `red.png`: write more of the path, such as `photos/red.png`
    ");
    env.run("-q search path:sea");
    std::fs::remove_file(env.home().join("photos/sea.png")).unwrap();
    env.run("-q index photos --no-caption");
    insta::assert_snapshot!(env.run("similar 1").text(), @r"
    exit 2
    --- stdout
    --- stderr
    error: `~/photos/sea.png` is gone, and the index does not hold it any more
    hint: search again: the hits are those of an earlier index
    ");
    for line in ["similar", "similar --json -f a.png", "similar -t 0 a.png", "similar a.png iso:4"]
    {
        let run = env.run(line);
        assert_eq!((run.code(), run.stdout()), (2, String::new()), "{line}: {}", run.text());
    }
}

/// `text` without what differs from run to run: dates are those of the files.
fn undated(text: &str) -> String {
    let is_date = |word: &&str| word.len() == 19 && word.as_bytes()[10] == b'T';
    let words = text.split(' ').map(|word| if is_date(&word) { "DATE" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn what_is_there_twice_is_listed_with_the_one_to_keep() {
    let env = home_with_scenes();
    std::fs::copy(env.home().join("photos/c.png"), env.home().join("photos/c copy.png")).unwrap();
    env.run("-q index photos --no-caption");
    insta::with_settings!({filters => [(r"\d+ bytes|[\d.]+ kB", "SIZE")]}, {
        insta::assert_snapshot!(undated(&env.run("duplicates-report").text()), @r"
        exit 0
        --- stdout
        keep   SIZE  96 x 96  DATE  ~/photos/c.png
        exact  SIZE  96 x 96  DATE  ~/photos/c copy.png

        keep   SIZE  96 x 96  DATE  ~/photos/a.png
        near   SIZE  64 x 64  DATE  ~/photos/small/b.png
        --- stderr
        2 groups: 2 photos beside those to keep, SIZE
        ");
    });
    assert_eq!(
        lines(&env.run("duplicates-report -f")),
        ["~/photos/c copy.png", "~/photos/small/b.png"]
    );
    assert_eq!(env.run("duplicates -0 --exact").stdout(), "~/photos/c copy.png\0");
    assert_eq!(lines(&env.run("duplicates-report -f -name:c")), ["~/photos/small/b.png"]);

    let groups = json(&env.run("duplicates-report --json"));
    assert_eq!((&groups[0]["kind"], &groups[1]["kind"]), (&"exact".into(), &"near".into()));
    let size = |name: &str| std::fs::metadata(env.home().join("photos").join(name)).unwrap().len();
    assert_eq!(groups[1]["spare_bytes"], size("small/b.png"));
    let photos = groups[1]["photos"].as_array().unwrap();
    assert_eq!((&photos[0]["keep"], &photos[0]["path"]), (&true.into(), &"~/photos/a.png".into()));
    assert_eq!(photos[0]["bytes"], size("a.png"));
    let near = &photos[1];
    assert_eq!((&near["kind"], &near["width"]), (&"near".into(), &64.into()));
    assert!(near["distance"].as_u64().unwrap() <= 7 && near["likeness"].as_f64().unwrap() >= 0.98);
    let keys: Vec<&str> = near.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = [
        "keep",
        "kind",
        "distance",
        "likeness",
        "path",
        "hash",
        "bytes",
        "format",
        "width",
        "height",
        "taken",
        "taken_from",
    ];
    expected.sort_unstable();
    assert_eq!(keys, expected);

    // Files are only looked at: everything is still there.
    assert!(Path::new(&env.home()).join("photos/c copy.png").exists());
    let run = env.run("duplicates-report path:nowhere");
    insta::assert_snapshot!(run.text(), @r"
    exit 1
    --- stdout
    --- stderr
    nothing is there twice
    ");
    std::fs::remove_file(env.home().join("photos/c.png")).unwrap();
    insta::assert_snapshot!(env.run("duplicates-report --exact").text(), @r"
    exit 1
    --- stdout
    --- stderr
    nothing is there twice
    1 photo was left out because the file is gone
    hint: `tinyfind index FOLDER` brings the index up to date
    ");
}

#[test]
fn wrong_flags_of_the_report_are_refused() {
    let env = Env::new();
    for line in ["--distance 8", "--likeness 2", "--exact --distance 3", "--json -0", "umbrella"] {
        let run = env.run(&format!("duplicates-report {line}"));
        assert_eq!((run.code(), run.stdout()), (2, String::new()), "{line}: {}", run.text());
    }
    insta::assert_snapshot!(env.run("duplicates-report").text(), @r"
    exit 2
    --- stdout
    --- stderr
    error: there is no index in `~/.local/share/tinyfind/index`
    hint: index your photos first: `tinyfind index FOLDER` (`--index DIR` names another index)
    ");
}
