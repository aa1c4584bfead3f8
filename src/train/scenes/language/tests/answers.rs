//! Tests of questions, dialogues and the vocabulary. Questions are read word by word and answered
//! from the graph by code of its own.

use std::collections::{BTreeMap, BTreeSet};

use crate::train::scenes::{language::*, *};

fn asked() -> impl Iterator<Item = (Scene, Question)> {
    let splits = [Split::Train, Split::Combinations];
    let scenes = splits.into_iter().flat_map(|it| (0..3_000).map(move |index| (it, index)));
    scenes.flat_map(|(split, index)| {
        let scene = Scene::generate(split, index);
        questions(&scene, index).into_iter().map(move |question| (scene.clone(), question))
    })
}

/// The kinds and colours that a text names, in order.
fn named(text: &str) -> (Vec<Kind>, Vec<Colour>) {
    let words = || text.split([' ', '?', ':']);
    let kind =
        |word: &str| Kind::ALL.iter().copied().find(|it| it.name() == word || it.plural() == word);
    let colour = |word: &str| Colour::ALL.iter().copied().find(|it| it.name() == word);
    (words().filter_map(kind).collect(), words().filter_map(colour).collect())
}

fn relation_in(text: &str) -> Relation {
    match text {
        _ if text.contains("left of") => Relation::LeftOf,
        _ if text.contains("right of") => Relation::RightOf,
        _ if text.contains("above") => Relation::Above,
        _ => Relation::Below,
    }
}

/// The things of a kind, in a colour if one is named.
fn find(scene: &Scene, kind: Kind, colour: Option<Colour>) -> Vec<usize> {
    let things = scene.things.iter().enumerate();
    let fits = things.filter(|(_, it)| it.kind == kind && colour.is_none_or(|c| c == it.colour));
    fits.map(|(number, _)| number).collect()
}

/// Splits "the red car ... the cup" into what it names, each with its own colour.
fn definite(text: &str) -> Vec<(Kind, Option<Colour>)> {
    let parts = text.split("the ").skip(1);
    let read = parts.filter_map(|part| {
        let (kinds, colours) = named(part);
        Some((*kinds.first()?, colours.first().copied()))
    });
    read.collect()
}

#[test]
fn every_answer_is_right_and_the_only_one() {
    for (scene, question) in asked() {
        let (text, answer) = (question.text.as_str(), question.answer.as_str());
        let (kinds, colours) = named(text);
        let yes = answer == "yes";
        let right = match question.kind {
            QuestionKind::Colour => {
                let things = find(&scene, kinds[0], None);
                !things.is_empty()
                    && things.iter().all(|&it| scene.things[it].colour.name() == answer)
            }
            QuestionKind::Exists => yes != find(&scene, kinds[0], None).is_empty(),
            QuestionKind::ExistsColour => {
                yes != find(&scene, kinds[0], Some(colours[0])).is_empty()
            }
            QuestionKind::Count => {
                let count = match kinds.first() {
                    Some(&kind) => find(&scene, kind, colours.first().copied()).len(),
                    None => scene.things.len(),
                };
                ["zero", "one", "two", "three", "four", "five", "six"][count] == answer
            }
            QuestionKind::Relation => {
                let (kind, colour) = definite(text)[0];
                let of = find(&scene, kind, colour);
                assert_eq!(of.len(), 1, "{text}");
                let there = (0..scene.things.len())
                    .filter(|&it| scene.relation(it, of[0]) == Some(relation_in(text)));
                let there: Vec<&str> = there.map(|it| scene.things[it].kind.name()).collect();
                there == [answer]
            }
            QuestionKind::TrueFalse => {
                let named = definite(text);
                let [first, .., last] = named[..] else { panic!("{text}") };
                let (a, b) = (find(&scene, first.0, first.1), find(&scene, last.0, last.1));
                assert_eq!((a.len(), b.len()), (1, 1), "{text}");
                let relation = scene.relation(a[0], b[0]).unwrap();
                assert!(yes || relation == relation_in(text).inverse(), "{text}");
                yes == (relation == relation_in(text))
            }
            QuestionKind::What => {
                let things = scene.things.iter().filter(|it| it.colour == colours[0]);
                things.map(|it| it.kind.name()).collect::<Vec<_>>() == [answer]
            }
            QuestionKind::Setting => scene.setting.name() == answer,
            QuestionKind::Match => {
                let caption = text.split_once("show ").map_or("", |it| it.1).trim_end_matches('?');
                let shown = Statement::of(&scene);
                parse_caption(caption).is_none_or(|said| {
                    let there = said.things.iter().all(|it| shown.things.contains(it));
                    let nothing = said.things.is_empty() && !shown.things.is_empty();
                    yes == (there && !nothing && said.setting == shown.setting)
                })
            }
        };
        assert!(right, "{text} {answer}: {scene:?}");
    }
}

#[test]
fn questions_come_in_two_forms() {
    for (_, question) in asked() {
        let short = question.short.unwrap();
        assert!(question.text.ends_with('?') && !short.contains('?'), "{}", question.text);
        // The word that is asked about comes last, and the answer follows at once.
        let (kinds, colours) = named(short.split(' ').next_back().unwrap());
        match question.kind {
            QuestionKind::Colour | QuestionKind::Exists | QuestionKind::ExistsColour => {
                assert_eq!(kinds.len(), 1, "{short}");
            }
            QuestionKind::What => assert_eq!(colours.len(), 1, "{short}"),
            _ => {}
        }
    }
}

#[test]
fn guessing_does_not_pay() {
    let mut answers: BTreeMap<usize, BTreeMap<String, usize>> = BTreeMap::new();
    let (mut scenes, mut all) = (0, 0);
    for index in 0..8_000 {
        let scene = Scene::generate(Split::Train, index);
        let questions = questions(&scene, index);
        if !scene.things.is_empty() {
            assert!((7..=19).contains(&questions.len()), "{}", questions.len());
            (scenes, all) = (scenes + 1, all + questions.len());
        }
        for question in questions {
            assert_eq!(question.guess, question.kind.guess());
            let of_kind = answers.entry(question.kind as usize).or_default();
            *of_kind.entry(question.answer).or_default() += 1;
        }
    }
    let mean = all as f32 / scenes as f32;
    assert!((10.0..14.0).contains(&mean), "{mean} questions of a scene");
    for (&kind, answers) in &answers {
        let kind = QuestionKind::ALL[kind];
        let all: usize = answers.values().sum();
        let most = *answers.values().max().unwrap();
        let share = |count: usize| count as f32 / all as f32;
        if answers.contains_key("yes") {
            assert!((0.47..0.53).contains(&share(answers["yes"])), "{kind:?} {answers:?}");
        } else {
            assert!(answers[kind.guess()] * 4 >= most * 3, "{kind:?} {answers:?}");
        }
    }
    assert_eq!(answers.len(), QuestionKind::ALL.len());
    // A relation cannot be told from its words alone, nor a colour.
    let most = |kind: QuestionKind| {
        let answers = &answers[&(kind as usize)];
        *answers.values().max().unwrap() as f32 / answers.values().sum::<usize>() as f32
    };
    assert!(most(QuestionKind::Colour) < 0.13 && most(QuestionKind::Relation) < 0.05);
    assert!(most(QuestionKind::Count) < 0.35 && most(QuestionKind::Setting) < 0.11);
}

#[test]
fn dialogues_are_true_and_short() {
    for index in 0..3_000 {
        let scene = Scene::generate(Split::Train, index);
        let turns = dialogue(&scene, index);
        assert!((2..=4).contains(&turns.len()), "{turns:?}");
        let mut about = None;
        for (question, answer) in &turns {
            assert!(question.ends_with('?'), "{question}");
            let (kinds, colours) = named(question);
            if let Some(&kind) = kinds.first() {
                let things = find(&scene, kind, colours.first().copied());
                assert!(!things.is_empty(), "{turns:?}");
                about = things.first().copied();
            }
            let thing = about.map(|it| &scene.things[it]);
            let right = match question.as_str() {
                "what do you see?" | "what is in the picture?" => {
                    parse_caption(answer) == Some(Statement::of(&scene))
                }
                "what color is it?" | "what color are they?" => {
                    thing.map(|it| it.colour.name()) == Some(answer)
                }
                "where is it?" | "where are they?" | "where is this?" => {
                    answer.ends_with(scene.setting.name())
                }
                _ if question.starts_with("how many") => {
                    let count = ["zero", "one", "two", "three", "four", "five", "six"];
                    count[scene.things.len()] == answer
                }
                _ if question.starts_with("what is") => {
                    let there = (0..scene.things.len()).filter(|&it| {
                        scene.relation(it, about.unwrap()) == Some(relation_in(question))
                    });
                    there.map(|it| scene.things[it].kind.name()).collect::<Vec<_>>() == [answer]
                }
                _ => answer == "yes",
            };
            assert!(right, "{turns:?}: {scene:?}");
        }
    }
}

#[test]
fn the_vocabulary_is_closed_and_every_word_is_used() {
    let mut used: BTreeSet<String> = BTreeSet::new();
    let mut read = |text: &str| {
        assert!(!text.contains("  ") && text.trim() == text, "{text}");
        let words = text.split([' ', ',', '.', '?', ':']).filter(|it| !it.is_empty());
        used.extend(words.map(str::to_owned));
    };
    for index in 0..6_000 {
        let scene = Scene::generate(Split::Train, index);
        for plan in [
            CaptionPlan::canonical(&scene),
            CaptionPlan::full(&scene, index),
            CaptionPlan::partial(&scene, index),
        ] {
            read(&plan.render(&scene).text);
            for edit in edits(&scene, &plan, index) {
                read(&edit.caption.text);
            }
        }
        for question in questions(&scene, index) {
            for text in [&question.text, &question.answer, &question.short.unwrap()] {
                read(text);
            }
        }
        for (question, answer) in dialogue(&scene, index) {
            read(&question);
            read(&answer);
        }
    }
    let used: Vec<&str> = used.iter().map(String::as_str).collect();
    assert_eq!(used, corpus_words());
}
