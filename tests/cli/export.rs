//! `export` and `import-captions` as a person and a script meet them.

use std::process::Stdio;

use serde_json::Value;

use crate::env::Env;
use crate::journey::{home_with_photos, json, paths};

/// What the searches of a test find, in full.
fn answers(env: &Env, flags: &str) -> Vec<Value> {
    let queries = ["search --json green", "search --json --words-only a", "search --json path:png"];
    queries.iter().flat_map(|query| json(&env.run(&format!("{flags} {query}")))).collect()
}

#[test]
fn captions_survive_an_export_and_a_new_index_without_the_model() {
    let env = home_with_photos();
    env.run("-q index photos");
    let before = answers(&env, "");
    let run = env.run("export -o all.jsonl");
    insta::assert_snapshot!(run.text(), @r"
    exit 0
    --- stdout
    --- stderr
    exported 3 photos, 3 with a caption
    ");
    env.run("-q --index new index photos --no-caption");
    assert_ne!(answers(&env, "--index new"), before);
    let run = env.run("--index new --model none.gguf import-captions --dry-run all.jsonl");
    insta::assert_snapshot!(run.text(), @r"
    exit 0
    --- stdout
    --- stderr
    3 captions would be put back
    ");
    let run = env.run("--index new --model none.gguf import-captions all.jsonl");
    insta::assert_snapshot!(run.text(), @r"
    exit 0
    --- stdout
    --- stderr
    3 captions put back
    ");
    assert_eq!(answers(&env, "--index new"), before);
    assert_eq!(env.run("--index new doctor --device cpu").code(), 0);
    let run = env.run("--index new import-captions all.jsonl");
    insta::assert_snapshot!(run.text(), @r"
    exit 0
    --- stdout
    --- stderr
    0 captions put back, 3 there already
    ");
    // The index goes on with the captions it has.
    let run = env.run("--index new index photos");
    assert!(!run.stderr().contains("captioned"), "{}", run.text());
}

#[test]
fn an_export_tells_everything_to_scripts() {
    let env = home_with_photos();
    env.run("-q index photos");
    let run = env.run("-q export --failures --vectors=arrays");
    assert_eq!((run.code(), run.stderr()), (0, String::new()));
    let lines = json(&run);
    assert_eq!(lines.len(), 5);
    assert_eq!((&lines[0]["format"], &lines[0]["failed"]), (&"tinyfind-export".into(), &1.into()));
    let model = &lines[0]["model"];
    for photo in &lines[1..4] {
        let vectors = photo["vectors"].as_array().unwrap();
        assert_eq!(vectors.len() as u64, model["embedding_rows"].as_u64().unwrap());
        let mut keys: Vec<&str> = photo.as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected = [
            "path",
            "doc",
            "hash",
            "file_bytes",
            "caption",
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
            "picture_hash",
            "vectors",
        ];
        expected.sort_unstable();
        keys.sort_unstable();
        assert_eq!(keys, expected);
        let file = photo["path"].as_str().unwrap().replacen('~', &env.home().to_string_lossy(), 1);
        assert_eq!(photo["file_bytes"], std::fs::metadata(file).unwrap().len());
    }
    assert_eq!(lines[4]["failure"], "is not a photo: text");
    let base64 = json(&env.run("-q export --vectors"));
    let text = base64[1]["vectors"].as_str().unwrap();
    let bytes =
        model["embedding_rows"].as_u64().unwrap() * model["embedding_dim"].as_u64().unwrap() * 4;
    assert_eq!(text.len() as u64, bytes.div_ceil(3) * 4);
}

#[test]
fn an_export_goes_through_a_pipe_and_a_closed_pipe_is_fine() {
    let env = home_with_photos();
    env.run("-q index photos");
    env.run("-q --index new index photos --no-caption");
    let exported = env.run("-q export");
    let run = env.run_with(["--index", "new", "import-captions", "-"], &exported.output.stdout);
    assert_eq!(run.stderr(), "3 captions put back\n");
    assert_eq!(paths(&env.run("--index new search -f name:red")), ["~/photos/red.png"]);

    let mut child = env.command(["-q", "export"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn bad_lines_are_told_by_number_and_the_rest_is_done() {
    let env = home_with_photos();
    env.run("-q index photos");
    let exported = env.run("-q export").stdout();
    let mut lines: Vec<&str> = exported.lines().collect();
    lines.insert(2, "{\"caption\": \"x\"}");
    lines.insert(4, "nonsense");
    let unknown =
        format!("{{\"path\": \"/x/y.jpg\", \"caption\": \"x\", \"hash\": \"{:064x}\"}}", 7);
    lines.push(&unknown);
    std::fs::write(env.home().join("bad.jsonl"), lines.join("\n")).unwrap();
    env.run("-q --index new index photos --no-caption");
    let run = env.run("-v --index new import-captions bad.jsonl");
    insta::assert_snapshot!(run.text(), @r"
    exit 2
    --- stdout
    --- stderr
    error: line 3 cannot be used: it has no `hash`
    error: line 5 cannot be used: expected ident at line 1 column 2
    line 7: the index holds no `/x/y.jpg`
    3 captions put back, 1 of no photo of the index, 2 in lines that cannot be used
    ");
    let other = exported.replace("\"caption\":\"", "\"caption\":\"another ");
    std::fs::write(env.home().join("other.jsonl"), other).unwrap();
    let run = env.run("--index new import-captions other.jsonl");
    insta::assert_snapshot!(run.text(), @r"
    exit 0
    --- stdout
    --- stderr
    0 captions put back, 3 kept that are others
    hint: `--overwrite` replaces the captions that are others
    ");
    assert_eq!(env.run("--index new import-captions --overwrite other.jsonl").code(), 0);
    assert_eq!(json(&env.run("--index new search --json caption:another")).len(), 3);
}

#[test]
fn without_an_index_or_a_file_the_next_step_is_told() {
    let env = Env::new();
    for line in ["export", "import-captions all.jsonl"] {
        insta::allow_duplicates! {
            insta::assert_snapshot!(env.run(line).text(), @r"
            exit 2
            --- stdout
            --- stderr
            error: there is no index in `~/.local/share/tinyfind/index`
            hint: index your photos first: `tinyfind index FOLDER` (`--index DIR` names another index)
            ");
        }
    }
    assert!(!env.home().join(".local/share/tinyfind/index").exists());
    std::fs::create_dir(env.home().join("photos")).unwrap();
    env.run("-q index photos");
    let run = env.run("export");
    assert_eq!((run.code(), run.stdout().lines().count()), (1, 1), "{}", run.text());
    insta::assert_snapshot!(env.run("import-captions all.jsonl").text(), @r"
    exit 2
    --- stdout
    --- stderr
    error: cannot read `all.jsonl`
      caused by: No such file or directory (os error 2)
    ");
    let header = r#"{"format":"tinyfind-export","version":9,"written_by":"tinyfind 9.0.0"}"#;
    let run = env.run_with(["import-captions", "-"], header.as_bytes());
    insta::assert_snapshot!(run.text(), @r"
    exit 2
    --- stdout
    --- stderr
    error: the export was written by tinyfind 9.0.0 in version 9; this reads up to 1
    hint: update tinyfind
    ");
    let run = env.run_with(["import-captions", "-"], b"");
    assert_eq!((run.code(), run.stderr().as_str()), (1, "0 captions put back\n"));
    for line in ["export --vectors=xml", "export x", "import-captions", "export -o no/where.jsonl"]
    {
        assert_eq!(env.run(line).code(), 2, "{line}");
    }
}
