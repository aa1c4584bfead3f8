//! The floors of the crate: a file may use what lies on its own floor or below, never above.

#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

use std::fs;
use std::path::{Path, PathBuf};

/// Modules of the crate with their floors; [`floor_of`] matches the first path component.
const FLOORS: [(&str, u8); 16] = [
    ("crawl", 1),
    ("decode", 1),
    ("json", 1),
    ("vlm", 1),
    ("model", 2),
    ("indexer", 3),
    ("search", 3),
    ("ask", 3),
    ("similar", 3),
    ("duplicates", 3),
    ("export", 3),
    ("train", 3),
    ("eval", 3),
    ("demo", 3),
    ("cli", 4),
    ("main", 4),
];

/// Longest file without its tests; a longer one gives its reason in its `//!`.
const MOST_LINES: usize = 450;

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

fn floor_of(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

/// The crate modules that `text` names through `crate::`, comments left out.
fn modules_used(text: &str) -> Vec<String> {
    let code: Vec<&str> =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let mut used = Vec::new();
    for rest in code.join("\n").split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(list) => used.extend(first_names(list)),
            None => used.push(first_name(rest)),
        }
    }
    used
}

fn first_name(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first name of each item of a braced list, whose opening brace is left out.
fn first_names(list: &str) -> Vec<String> {
    let (mut depth, mut names, mut item) = (0, Vec::new(), String::new());
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(first_name(&item));
                item.clear();
                continue;
            }
            _ => {}
        }
        item.push(c);
    }
    names.push(first_name(&item));
    names
}

/// `text` up to the module of its tests; a file of tests declared elsewhere does not end it.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap()
}

#[test]
fn names_are_read_out_of_lists_over_lines() {
    let text = "use crate::{\n    cli::a,\n    model::{x, y},\n};\n// crate::no\ncrate::ask::b";
    assert_eq!(modules_used(text), ["cli", "model", "", "ask"]);
}

/// The floor of a file of `src/`, and the part of its text that is not tests.
fn source(path: &Path) -> (Option<u8>, String) {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let module = inside.components().next().unwrap().as_os_str().to_string_lossy();
    let text = fs::read_to_string(path).unwrap();
    let code = without_tests(&text).to_owned();
    (floor_of(module.trim_end_matches(".rs")), code)
}

#[test]
fn imports_point_downwards_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut breaches = Vec::new();
    for path in rust_files(&root) {
        let (Some(floor), code) = source(&path) else { continue };
        for used in modules_used(&code) {
            if floor_of(&used).is_some_and(|above| above > floor) {
                breaches.push(format!("{} uses {used}", path.display()));
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn every_module_stands_on_a_floor() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in fs::read_dir(root).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().trim_end_matches(".rs").to_owned();
        assert!(name == "lib" || floor_of(&name).is_some(), "give src/{name} a floor here");
    }
}

#[test]
fn the_index_crate_knows_no_model_no_pixels_and_no_terminal() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("index/Cargo.toml");
    let manifest = fs::read_to_string(manifest).unwrap();
    for crate_name in ["candle", "image =", "clap", "indicatif", "tinyfind ="] {
        assert!(!manifest.contains(crate_name), "index/Cargo.toml names {crate_name}");
    }
}

#[test]
fn back_ends_are_chosen_in_one_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for path in rust_files(&root) {
        let (_, code) = source(&path);
        let chosen = code.contains("cfg(feature") || code.contains("cfg(not(feature");
        assert!(!chosen || path.ends_with("model/device.rs"), "{}", path.display());
    }
}

#[test]
fn only_the_program_prints() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for path in rust_files(&root) {
        let (floor, code) = source(&path);
        if floor.is_some_and(|floor| floor < 4) {
            for call in ["println!", "eprintln!", "print!(", "process::exit"] {
                assert!(!code.contains(call), "{} calls {call}", path.display());
            }
        }
    }
}

#[test]
fn files_stay_short() {
    for folder in ["src", "index/src"] {
        for path in rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)) {
            let text = fs::read_to_string(&path).unwrap();
            if path.file_name().is_some_and(|name| name == "tests.rs") {
                continue;
            }
            let lines = without_tests(&text).lines().count();
            assert!(lines <= MOST_LINES, "{}: {lines} lines without tests", path.display());
        }
    }
}
