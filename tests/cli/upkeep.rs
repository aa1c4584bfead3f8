//! The index checked and mended, without its photos and its model.

use std::fs;
use std::path::{Path, PathBuf};

use crate::env::Env;
use crate::journey::{home_with_photos, json};

/// An index of three photos, one of which came twice and one of which is gone, and a failure.
/// Neither the photos nor the model are there any more.
fn home_with_an_index_alone() -> Env {
    let env = home_with_photos();
    fs::copy(env.home().join("photos/red.png"), env.home().join("photos/copy.png")).unwrap();
    assert_eq!(env.run("index photos").code(), 2);
    fs::remove_file(env.home().join("photos/sea.png")).unwrap();
    assert_eq!(env.run("index photos").code(), 0);
    fs::remove_dir_all(env.home().join("photos")).unwrap();
    fs::remove_dir_all(env.home().join(".local/share/tinyfind/models")).unwrap();
    env
}

fn index_of(env: &Env) -> PathBuf {
    env.home().join(".local/share/tinyfind/index")
}

fn files_of(folder: &Path) -> Vec<PathBuf> {
    let entries = walkdir::WalkDir::new(folder).into_iter().map(Result::unwrap);
    entries.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path).collect()
}

#[test]
fn a_sound_index_is_told_in_numbers() {
    let env = home_with_an_index_alone();
    insta::with_settings!({filters => [(r"generation \d+", "generation N")]}, {
        insta::assert_snapshot!(env.run("index --check").text(), @r"
        exit 0
        --- stdout
        text       3 photos, 3 captioned, 1 failed file (generation N)
        segments   3 records, 1 of them of photos that are gone
        catalogue  4 paths, 2 contents
        sound      every checksum and every reference that was looked at holds
        --- stderr
        ");
    });
    let run = env.run("index --check --json");
    let found = json(&run).remove(0);
    assert_eq!((run.code(), found["sound"].as_bool()), (0, Some(true)), "{}", run.text());
    let numbers = ["photos", "captioned", "failed", "contents", "unused_records"];
    assert_eq!(numbers.map(|key| found[key].as_u64().unwrap()), [3, 3, 1, 2, 1]);
    assert_eq!(found["catalog"]["state"], "checked");
    assert_eq!(found["catalog"]["paths"], 4);
    assert_eq!(found["catalog"]["is_ahead"], false);
    assert_eq!(found["problems"].as_array().unwrap().len(), 0);
}

#[test]
fn space_is_given_back_when_it_is_asked_for() {
    let env = home_with_an_index_alone();
    let before = env.run("search -f path:photos").text();
    insta::with_settings!({filters => [(r"back \d+\.\d kB", "back N kB")]}, {
        insta::assert_snapshot!(env.run("index --compact").text(), @r"
        exit 0
        --- stdout
        --- stderr
        gave back N kB of photos that left the index
        ");
    });
    assert_eq!(env.run("search -f path:photos").text(), before);
    let check = env.run("index --check");
    assert_eq!(check.code(), 0, "{}", check.text());
    assert!(check.stdout().contains("2 records, 0 of them of photos that are gone"));
    insta::assert_snapshot!(env.run("index --compact").text(), @r"
    exit 0
    --- stdout
    --- stderr
    there is next to nothing to give back
    ");
    let run = env.run("index --compact --json");
    let found = json(&run).remove(0);
    assert_eq!((run.code(), found["complete"].as_bool()), (0, Some(true)), "{}", run.text());
    assert_eq!(["segments", "moved", "freed_bytes"].map(|key| found[key].as_u64()), [Some(0); 3]);
    assert_eq!(found["problems"].as_array().unwrap().len(), 0);
}

#[test]
fn a_run_gives_back_by_itself_what_is_half_unused() {
    let env = home_with_photos();
    assert_eq!(env.run("index photos").code(), 2);
    let mut photos = files_of(&env.home().join("photos"));
    photos.sort();
    for photo in &photos[..photos.len() - 1] {
        fs::remove_file(photo).unwrap();
    }
    let run = env.run("index photos");
    assert!(run.stderr().contains("gave back "), "{}", run.text());
    let check = env.run("index --check");
    assert!(check.stdout().contains("1 record, 0 of them"), "{}", check.text());
    let run = env.run("index photos");
    assert!(!run.stderr().contains("gave back"), "{}", run.text());
}

#[test]
fn damage_is_found_and_the_text_written_anew_without_model_and_photos() {
    let env = home_with_an_index_alone();
    let answers = |env: &Env| env.run("search -f path:photos").text();
    let before = answers(&env);
    let store = files_of(&index_of(&env).join("text"));
    let store = store.iter().find(|file| file.extension().is_some_and(|it| it == "store")).unwrap();
    fs::write(store, "not a store").unwrap();
    for line in ["index --check", "index --check --json"] {
        let run = env.run(line);
        assert_eq!(run.code(), 2, "{}", run.text());
        let named = store.file_name().unwrap().to_str().unwrap();
        assert!(run.stdout().contains(named), "{}", run.text());
        assert!(run.stdout().contains("tinyfind index --rebuild"), "{}", run.text());
    }
    let run = env.run("index --rebuild");
    insta::with_settings!({filters => [(r"in \d+ s", "in N s")]}, {
        insta::assert_snapshot!(run.text(), @r"
        exit 0
        --- stdout
        --- stderr
        the text of 3 photos was written anew in N s
        ");
    });
    assert_eq!(env.run("index --check").code(), 0);
    assert_eq!(answers(&env), before);
    assert!(before.contains("copy.png"), "{before}");
}

#[test]
fn what_cannot_be_mended_is_told_with_the_cure() {
    let env = home_with_an_index_alone();
    let record = index_of(&env).join("segments/0.vectors.seg");
    let mut bytes = fs::read(&record).unwrap();
    bytes[150] ^= 1;
    fs::write(&record, bytes).unwrap();
    let run = env.run("index --check");
    assert_eq!(run.code(), 2, "{}", run.text());
    assert!(run.stdout().contains("0.vectors.seg` is damaged"), "{}", run.text());
    assert!(run.stdout().contains("delete the index folder and index"), "{}", run.text());
    assert!(run.stdout().ends_with("damaged    1 problem\n"), "{}", run.text());
}

#[test]
fn there_is_nothing_to_check_without_an_index() {
    let env = Env::new();
    for line in ["index --check", "index --compact", "index --rebuild"] {
        let run = env.run(line);
        assert_eq!(run.code(), 2, "{}", run.text());
        assert!(run.stderr().contains("there is no index in"), "{}", run.text());
        assert!(!index_of(&env).exists(), "{line} made something");
    }
    // A run needs to be told of what.
    for line in ["index", "index --json photos", "index --check photos", "index --compact --check"]
    {
        assert_eq!(env.run(line).code(), 2, "{line}");
    }
}
