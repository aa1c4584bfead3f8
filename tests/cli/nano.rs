//! What the built-in model makes of the album that the demo draws, through the commands that
//! people use. Thresholds lie well below what was measured: 1.00 in the top 3, 0.93 of captions,
//! 1.00 of colours, 0.98 of yes and no, 0.90 of sides.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tinyfind::demo::{Picture, SEARCHES, album};
use tinyfind::train::scenes::{CaptionPlan, Kind, QuestionKind, Scene, questions};

use crate::env::{Env, Ran};

const INDEX: [&str; 2] = ["--index", "tinyfind-demo/index"];

/// Runs a command on the demo's index.
fn run(env: &Env, arguments: &[&str], stdin: &str) -> Ran {
    env.run_with(INDEX.iter().chain(arguments), stdin.as_bytes())
}

/// The lines of a command's stdout, each a JSON object.
fn objects(run: &Ran) -> Vec<Value> {
    run.stdout().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The pictures by the end of their path.
struct Album {
    pictures: Vec<Picture>,
    numbers: HashMap<PathBuf, usize>,
}

impl Album {
    fn new() -> Self {
        let pictures = album();
        let numbers = pictures.iter().enumerate().map(|(i, p)| (p.path.clone(), i)).collect();
        Self { pictures, numbers }
    }

    /// The picture that a line of JSON is about.
    fn picture(&self, line: &Value) -> &Picture {
        let path = line["path"].as_str().unwrap();
        let (_, inside) = path.split_once("tinyfind-demo/album/").unwrap();
        &self.pictures[self.numbers[Path::new(inside)]]
    }

    /// Paths of the pictures that `fits`, a line each.
    fn paths(&self, fits: impl Fn(&Scene) -> bool) -> String {
        let fitting = self.pictures.iter().filter(|picture| fits(&picture.scene));
        let path = |picture: &Picture| format!("tinyfind-demo/album/{}\n", picture.path.display());
        fitting.map(path).collect()
    }
}

/// Whether a caption names every thing of a scene with its colour.
fn names_everything(caption: &str, scene: &Scene) -> bool {
    scene
        .things
        .iter()
        .all(|thing| caption.contains(&format!("{} {}", thing.colour.name(), thing.kind.name())))
}

fn share(right: usize, all: usize) -> f64 {
    assert!(all >= 20, "only {all} cases");
    right as f64 / all as f64
}

#[test]
fn nano_finds_describes_and_answers_in_the_demo_album() {
    let env = Env::new();
    let demo = env.run("demo");
    assert_eq!(demo.code(), 0, "{}", demo.text());
    assert!(demo.stderr().contains("nano"), "{}", demo.text());
    let album = Album::new();

    // The searches of the demonstration.
    for search in &SEARCHES {
        let found = objects(&run(&env, &["search", "--json", "-t", "3", search.query], ""));
        let rank = found.iter().position(|hit| search.is_true_of(album.picture(hit)));
        assert!(rank.is_some(), "{}: {found:#?}", search.query);
    }

    // Pictures by a sentence that is true of one of them alone.
    let fits = |text: &tinyfind::train::scenes::Caption| {
        album.pictures.iter().filter(|picture| text.is_true_of(&picture.scene)).count()
    };
    let (mut asked, mut found) = (0, 0);
    for (number, picture) in album.pictures.iter().enumerate().step_by(5) {
        let caption = CaptionPlan::full(&picture.scene, number as u64).render(&picture.scene);
        if fits(&caption) != 1 {
            continue;
        }
        asked += 1;
        let query = caption.text.replace(['.', ','], "");
        let hits = objects(&run(&env, &["search", "--json", "-t", "3", &query], ""));
        found += usize::from(hits.iter().any(|hit| album.picture(hit).path == picture.path));
    }
    let top3 = share(found, asked);

    // Captions of pictures of one to three different things.
    let all = objects(&run(&env, &["search", "--json", "-t", "300", "path:album"], ""));
    assert_eq!(all.len(), 300);
    let few = all
        .iter()
        .map(|hit| (hit, &album.picture(hit).scene))
        .filter(|(_, scene)| (1..=3).contains(&scene.things.len()) && !scene.is_counted());
    let whole: Vec<bool> =
        few.map(|(hit, scene)| names_everything(hit["caption"].as_str().unwrap(), scene)).collect();
    let captions = share(whole.iter().filter(|&&right| right).count(), whole.len());

    // Answers from stored tokens.
    let (mut asked, mut right) = ([0; 2], [0; 2]);
    let mut count = |which: usize, is_right: bool| {
        asked[which] += 1;
        right[which] += usize::from(is_right);
    };
    for kind in [Kind::Car, Kind::Boat, Kind::Dog, Kind::Cat, Kind::Ball, Kind::Tree] {
        let name = kind.name();
        let one = album.paths(|scene| scene.count(kind) == 1);
        let question = format!("what color is the {name}?");
        for answer in objects(&run(&env, &["ask", "--json", "-", &question], &one)) {
            let scene = &album.picture(&answer).scene;
            let thing = scene.things.iter().find(|thing| thing.kind == kind).unwrap();
            count(0, answer["answer"] == thing.colour.name());
        }
        let question = format!("is there a {name}?");
        let without = album.paths(|scene| scene.count(kind) == 0);
        let some: Vec<&str> = one.lines().chain(without.lines().step_by(12)).collect();
        let some = some.join("\n");
        for answer in objects(&run(&env, &["ask", "--json", "-", &question], &some)) {
            let there = album.picture(&answer).scene.count(kind) > 0;
            count(1, answer["answer"] == if there { "yes" } else { "no" });
        }
    }
    let (colours, exists) = (share(right[0], asked[0]), share(right[1], asked[1]));

    // Whether one thing is left of another, above it, and so on.
    let (mut asked, mut right) = (0, 0);
    for (number, picture) in album.pictures.iter().enumerate() {
        let all = questions(&picture.scene, number as u64);
        let Some(question) = all.iter().find(|it| it.kind == QuestionKind::TrueFalse) else {
            continue;
        };
        let path = format!("tinyfind-demo/album/{}\n", picture.path.display());
        for answer in objects(&run(&env, &["ask", "--json", "-", &question.text], &path)) {
            asked += 1;
            right += usize::from(answer["answer"] == *question.answer);
        }
        if asked == 60 {
            break;
        }
    }
    let sides = share(right, asked);

    let measured = format!(
        "top 3 {top3:.3}, captions {captions:.3}, colours {colours:.3}, exists {exists:.3}, \
         sides {sides:.3}"
    );
    println!("{measured}");
    assert!(top3 >= 0.9 && captions >= 0.75 && colours >= 0.9 && exists >= 0.9, "{measured}");
    assert!(sides >= 0.8, "{measured}");
}

/// Measured on 2,000 scenes: 1.000, 1.000 and 0.995.
#[test]
fn nano_tells_swapped_colours_and_reversed_relations_from_the_truth() {
    let eval = Env::new().run("eval scenes --scenes 150 --json --quiet");
    assert_eq!(eval.code(), 0, "{}", eval.text());
    let figures = objects(&eval);
    let value = |name: &str| {
        let line = figures.iter().find(|line| line["figure"] == name);
        let line = line.unwrap_or_else(|| panic!("{name} is missing: {}", eval.text()));
        assert!(line["cases"].as_u64() >= Some(20), "{line}");
        line["value"].as_f64().unwrap()
    };
    let (swaps, relations) = (value("colour swap, ITM"), value("relation, ITM"));
    let all = value("AUC over all edits, ITM");
    let measured = format!("swaps {swaps:.3}, relations {relations:.3}, AUC {all:.3}");
    println!("{measured}");
    assert!(swaps >= 0.93 && relations >= 0.9 && all >= 0.96, "{measured}");
}
