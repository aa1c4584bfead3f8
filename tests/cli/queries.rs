//! The query language as a person and a script meet it.

use tinyfind_index::{FileStamp, Filter, IndexReader, IndexWriter, NewPhoto, PhotoMetadata};

use crate::env::Env;
use crate::journey::{home_with_photos, json, paint, paths};

/// A home whose photos are indexed.
fn indexed() -> Env {
    let env = home_with_photos();
    env.run("-q index photos");
    env
}

#[test]
fn alternatives_and_fields_find_their_photos() {
    let env = indexed();
    let found = |query: &str| paths(&env.run_with(["search", "-f", query], b""));
    let (red, sea, green) =
        ("~/photos/red.png", "~/photos/sea.png", "~/photos/trip 2019/green.png");
    assert_eq!(found("name:red OR path:TRIP"), [red, green]);
    assert_eq!(found("name:trip OR name:sea"), [sea]);
    assert_eq!(found("width:9 height:<8 type:png -name:red"), [sea, green]);
    assert_eq!(found("orientation:landscape name:sea"), [sea]);
    for nothing in ["width:>9", "type:jpeg", "orientation:portrait", "near:51.5,-0.12,20000km"] {
        let run = env.run_with(["search", "-f", nothing], b"");
        assert_eq!((run.code(), run.stdout()), (1, String::new()), "{nothing}");
    }
}

#[test]
fn a_photo_is_part_of_a_query() {
    let env = indexed();
    let first = |query: &str| {
        let run = env.run_with(["search", "-f", "-t", "1", query], b"");
        assert_eq!(run.code(), 0, "{}", run.text());
        run.stdout()
    };
    assert_eq!(first("+photos/sea.png"), "~/photos/sea.png\n");
    assert_eq!(first("+green.png"), "~/photos/trip 2019/green.png\n");
    assert_eq!(first("+\"trip 2019/green.png\""), "~/photos/trip 2019/green.png\n");
    // A file that the index does not hold is looked at.
    let copy = paint(&env, "../elsewhere.png", [220, 20, 20]);
    assert_eq!(first(&format!("+{}", copy.display())), "~/photos/red.png\n");
    let last = env.run("search -f +photos/sea.png -red.png").stdout();
    assert_eq!(last.lines().count(), 3);
    assert_eq!(env.run("ask 1 what?").code(), 0);

    insta::assert_snapshot!(env.run("search something -photos/blue.png").text(), @r#"
    exit 2
    --- stdout
    --- stderr
    error: there is no photo `photos/blue.png` here or in the index (to leave out photos whose caption or path says so, put it in quotes: -"photos/blue.png")
      something -photos/blue.png
                ^^^^^^^^^^^^^^^^
    hint: `tinyfind search --help` explains the query language
    "#);
    insta::assert_snapshot!(env.run("search --words-only red +photos/sea.png").text(), @r"
    exit 2
    --- stdout
    --- stderr
    error: photos of a query are compared by meaning, which is left out here: leave out `--words-only`, or give meaning a weight
      red +photos/sea.png
          ^^^^^^^^^^^^^^^
    hint: `tinyfind search --help` explains the query language
    ");
    std::fs::write(env.home().join("broken.png"), "no photo").unwrap();
    let broken = env.run("search +broken.png");
    assert!(broken.stderr().contains("`broken.png` is not a photo"), "{}", broken.text());
}

#[test]
fn a_misspelt_word_is_told_with_the_one_that_was_shown() {
    let env = indexed();
    let run = env.run("search -f --words-only gren");
    insta::assert_snapshot!(run.text(), @r"
    exit 0
    --- stdout
    ~/photos/trip 2019/green.png
    --- stderr
    nothing holds `gren`; showing `green`
    ");
    let run = env.run("-q search -f --words-only gren");
    assert_eq!(run.stderr(), "");
}

#[test]
fn ranks_and_shares_are_explained() {
    let env = indexed();
    let hits = json(&env.run("search --json --explain green"));
    let named = hits.iter().find(|hit| hit["path"].as_str().unwrap().ends_with("green.png"));
    let explain = &named.unwrap()["explain"];
    assert_eq!(explain["words"]["rank"], 1);
    assert_eq!(explain["fields"], serde_json::Value::Null);
    for hit in &hits {
        let share = |side: &str| hit["explain"][side]["share"].as_f64().unwrap_or(0.0);
        let sum = share("words") + share("meaning");
        assert!((sum - hit["score"].as_f64().unwrap()).abs() < 1e-4, "{hit}");
    }
    let told = env.run("search --explain green").stdout();
    assert!(told.contains("words: rank 1, BM25 ") && told.contains("meaning: rank "), "{told}");
    assert!(env.run("search --explain name:red").stdout().contains("fields only: newest first"));

    // By words alone the photo of that name comes first and the others not at all.
    let words = paths(&env.run("search -f --weights 1,0 green"));
    assert_eq!(words, ["~/photos/trip 2019/green.png"]);
    let meaning = json(&env.run("search --json --weights 0,1 green"));
    assert!(meaning.iter().all(|hit| hit["scores"]["words"].is_null()));
    for line in ["--weights 0,0", "--weights 1", "--weights 1,-1", "--weights nan,1"] {
        assert_eq!(env.run(&format!("search {line} green")).code(), 2, "{line}");
    }
}

#[test]
fn matched_words_are_marked_in_color_and_told_to_scripts() {
    let env = indexed();
    // What the random model wrote is as good as any caption.
    let hits = json(&env.run("search --json name:red"));
    let caption = hits[0]["caption"].as_str().unwrap().to_owned();
    let words = caption.split(|c: char| !c.is_ascii_alphabetic());
    let Some(word) = words.max_by_key(|word| word.len()).filter(|word| !word.is_empty()) else {
        return;
    };
    let query = format!("caption:\"{word}\" name:red");
    let hit = json(&env.run_with(["search", "--json", &query], b"")).remove(0);
    let [from, to] = [0, 1].map(|end| hit["matches"][0][end].as_u64().unwrap() as usize);
    let marked: String = caption.chars().skip(from).take(to - from).collect();
    assert_eq!(marked.to_lowercase(), word.to_lowercase());

    let shown = |color: &str| env.run_with(["--color", color, "search", &query], b"").stdout();
    assert!(shown("always").contains(&format!("\u{1b}[1m\u{1b}[4m{marked}\u{1b}[0m")));
    assert!(!shown("auto").contains('\u{1b}') && !shown("never").contains('\u{1b}'));
}

#[test]
fn cameras_are_named_where_a_query_asks_for_one_that_took_nothing() {
    let env = home_with_photos();
    assert_eq!(env.run("index photos").code(), 2);
    assert!(!env.run("search camera:nikon").stderr().contains("hint"));
    let index = env.home().join(".local/share/tinyfind/index");
    let reader = IndexReader::open(&index).unwrap();
    let any = reader.by_filter(&Filter::default(), 1).unwrap()[0];
    let hash = reader.photo(any).unwrap().unwrap().hash;
    let mut writer = IndexWriter::open(&index, reader.spec()).unwrap();
    // Photos of seven cameras, 1,001 of the first.
    for (number, camera) in (0..1007).map(|number| (number, usize::max(number, 1000) - 1000)) {
        let metadata = PhotoMetadata {
            camera: Some(format!("ACME {camera}")),
            format: "jpeg".to_owned(),
            ..PhotoMetadata::default()
        };
        let (path, stamp) = (format!("/p/{number}.jpg").into(), FileStamp { size: 1, mtime_ns: 0 });
        writer.add_copy(NewPhoto { path, stamp, hash, metadata }, any).unwrap();
    }
    writer.commit().unwrap();
    drop(writer);
    insta::assert_snapshot!(env.run("search camera:nikon").text(), @r"
    exit 1
    --- stdout
    --- stderr
    no photo found
    hint: cameras in this index: ACME 0 (1,001), ACME 1 (1), ACME 2 (1), ACME 3 (1), ACME 4 (1), …
    ");
    // It is not the camera that is at fault, or there are none of it by wish.
    for query in ["camera:acme before:1970", "path:nowhere -camera:nikon", "path:nowhere"] {
        assert!(!env.run(&format!("search {query}")).stderr().contains("hint"), "{query}");
    }
}
