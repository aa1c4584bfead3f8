//! `tinyfind eval` on a model with random weights: its figures mean nothing, but they are there,
//! and the same every time.

use serde_json::Value;
use tinyfind::model::bundle::WeightType;

use crate::env::{Env, Ran};
use crate::golden;

fn evaluate(flags: &str) -> Ran {
    let bundle = golden::bundle(3, WeightType::F32);
    let env = Env::new();
    let line = format!("--model {} eval scenes --scenes 3 {flags}", bundle.display());
    env.run(&line)
}

#[test]
fn every_figure_of_each_split_is_printed() {
    let run = evaluate("--split all --json");
    assert_eq!(run.code(), 0, "{}", run.text());
    let lines: Vec<Value> =
        run.stdout().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for split in ["test", "combinations", "style"] {
        for part in ["retrieval", "binding", "captions", "answers"] {
            let of = |line: &&Value| line["split"] == split && line["part"] == part;
            let count = lines.iter().filter(of).count();
            assert!(count >= 8, "{split}, {part}: {count}");
        }
    }
    for line in &lines {
        let value = line["value"].as_f64();
        assert_eq!(value.is_some(), line["cases"].as_u64() > Some(0), "{line}");
        assert!(value.is_none_or(|value| (0.0..=1.0).contains(&value)), "{line}");
    }
}

#[test]
fn a_person_gets_the_same_table_every_time_and_hears_how_far_it_has_come() {
    let run = evaluate("--split style");
    assert_eq!(run.code(), 0, "{}", run.text());
    let stdout = run.stdout();
    for words in ["split     style: scenes in a style", "text to image, R@1, ITC", "no question"] {
        assert!(stdout.contains(words), "{words} is missing in:\n{stdout}");
    }
    assert!(run.stderr().contains("looking: 3 of 3 (100 %)"), "{}", run.text());
    let quiet = evaluate("--split style --quiet");
    assert_eq!((quiet.stderr(), quiet.stdout()), (String::new(), stdout));
}
