//! What needs neither model nor index: flags, help, errors and the first steps.

use std::process::Stdio;

use crate::env::Env;

#[test]
fn without_an_index_each_command_names_the_next_step() {
    let env = Env::new();
    insta::assert_snapshot!(env.run("status").text(), @r"
    exit 1
    --- stdout
    --- stderr
    there is no index in `~/.local/share/tinyfind/index` yet
    hint: index your photos: `tinyfind index FOLDER`
    ");
    insta::assert_snapshot!(env.run("search umbrella").text(), @r"
    exit 2
    --- stdout
    --- stderr
    error: there is no index in `~/.local/share/tinyfind/index`
    hint: index your photos first: `tinyfind index FOLDER` (`--index DIR` names another index)
    ");
    insta::assert_snapshot!(env.run("failures").text(), @r"
    exit 2
    --- stdout
    --- stderr
    error: there is no index in `~/.local/share/tinyfind/index`
    hint: index your photos first: `tinyfind index FOLDER` (`--index DIR` names another index)
    ");
    insta::assert_snapshot!(env.run("ask 2 what?").text(), @r"
    exit 2
    --- stdout
    --- stderr
    error: there was no search yet
    hint: search first (`tinyfind search umbrella`), or name a photo by its path
    ");
    insta::assert_snapshot!(env.run("ask").text(), @r"
    exit 2
    --- stdout
    --- stderr
    error: about which photo?
    hint: `tinyfind ask 2` is about hit 2 of the last search, `tinyfind ask photo.jpg` about a file
    ");
}

#[test]
fn a_bad_query_is_marked_where_it_is_bad() {
    let env = Env::new();
    let search = |query: &str| env.run_with(["search", query], b"").text();
    insta::assert_snapshot!(search("red \"Times Square"), @r#"
    exit 2
    --- stdout
    --- stderr
    error: this quote is never closed
      red "Times Square
          ^
    hint: `tinyfind search --help` explains the query language
    "#);
    insta::assert_snapshot!(search("tree after:yesterday"), @r"
    exit 2
    --- stdout
    --- stderr
    error: `yesterday` is no date: write 2019, 2019-07 or 2019-07-14
      tree after:yesterday
                 ^^^^^^^^^
    hint: `tinyfind search --help` explains the query language
    ");
    insta::assert_snapshot!(search("-night"), @r"
    exit 2
    --- stdout
    --- stderr
    error: the query only excludes: add a word or a field to look for
      -night
      ^^^^^^
    hint: `tinyfind search --help` explains the query language
    ");
}

#[test]
fn an_excluded_word_is_no_flag() {
    let env = Env::new();
    let run = env.run("search -night -path:x");
    insta::assert_snapshot!(run.text(), @r"
    exit 2
    --- stdout
    --- stderr
    error: the query only excludes: add a word or a field to look for
      -night -path:x
      ^^^^^^^^^^^^^^
    hint: `tinyfind search --help` explains the query language
    ");
    let run = env.run("search -train");
    assert!(run.stderr().contains("  -train\n"), "{}", run.text());
}

#[test]
fn wrong_flags_are_refused_with_exit_code_2() {
    let env = Env::new();
    for line in [
        "",
        "frobnicate",
        "search",
        "search --nonsense x",
        "search -t 0 x",
        "search --min-score 1.5 x",
        "search --json -f x",
        "--device gpu status",
        "-v -q status",
        "completions klingon",
    ] {
        let run = env.run(line);
        assert_eq!(run.code(), 2, "{line}: {}", run.text());
        assert!(run.stdout().is_empty(), "{line}: {}", run.text());
        assert!(!run.stderr().is_empty(), "{line}");
    }
}

#[test]
fn help_goes_to_stdout() {
    let env = Env::new();
    for line in ["--help", "help", "search --help", "ask -h", "--version"] {
        let run = env.run(line);
        assert_eq!(run.code(), 0, "{line}");
        assert!(run.stderr().is_empty() && !run.stdout().is_empty(), "{}", run.text());
    }
}

#[test]
fn the_help_of_search_explains_the_query_language() {
    let help = Env::new().run("search --help").stdout();
    let words = [
        "after:2019",
        "camera:",
        "\"Times Square\"",
        "-night",
        " OR ",
        "near:51.5,-0.12,5km",
        "width:>4000",
        "+IMG_1.jpg",
        "path_bytes",
        "Exit codes",
    ];
    for word in words {
        assert!(help.contains(word), "{word} is missing in:\n{help}");
    }
}

#[test]
fn completions_are_made_for_every_shell() {
    let env = Env::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let run = env.run(&format!("completions {shell}"));
        assert_eq!(run.code(), 0, "{shell}");
        assert!(run.stdout().contains("failures"), "{shell} does not know a verb");
    }
}

#[test]
fn doctor_of_an_empty_home_tells_how_to_get_a_model() {
    let env = Env::new();
    let run = env.run("doctor --device cpu");
    assert_eq!(run.code(), 0);
    insta::with_settings!({filters => [
        (r"\d+ cores?", "N cores"),
        (r"[\d.]+ [kMGT]?B free", "N free"),
        (r"[\d.]+ MB", "N MB"),
    ]}, {
        insta::assert_snapshot!(run.stdout(), @r"
        device  ok    the CPU, N cores
        model   note  nano, which is built in and knows drawn scenes only, N MB
        index   note  none in `~/.local/share/tinyfind/index` yet
        disk    ok    N free in `~`
        next    get TinyGPT-V, which knows photos (about 9 GB): `tinyfind model pull`
        ");
    });
}

#[test]
fn quiet_leaves_errors_only() {
    let env = Env::new();
    assert_eq!(env.run("-q status").stderr(), "");
    assert!(env.run("-q failures").stderr().starts_with("error: "));
}

#[test]
fn color_is_asked_for_or_absent() {
    let env = Env::new();
    assert!(!env.run("failures").stderr().contains('\u{1b}'));
    assert!(env.run("--color always failures").stderr().contains('\u{1b}'));
}

#[test]
fn a_closed_pipe_is_no_error() {
    let env = Env::new();
    let mut command = env.command(["completions", "zsh"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_index_folder_comes_from_flag_then_variable_then_home() {
    let env = Env::new();
    let failing = |command: &mut std::process::Command| {
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    let named = failing(env.command(["--index", "here", "failures"]).env("TINYFIND_INDEX", "/v"));
    assert!(named.contains(&*env.home().join("here").to_string_lossy()), "{named}");
    let variable = failing(env.command(["failures"]).env("TINYFIND_INDEX", "/v"));
    assert!(variable.contains("`/v`"), "{variable}");
    let data = failing(env.command(["failures"]).env("XDG_DATA_HOME", "/data"));
    assert!(data.contains("`/data/tinyfind/index`"), "{data}");
}
