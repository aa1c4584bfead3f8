//! Tests of edits and of the parser that judges captions.

use proptest::prelude::*;

use crate::train::scenes::{language::*, *};

/// Scenes with three plans each, and the edits of those.
fn edited() -> impl Iterator<Item = (Scene, Caption, Vec<Edit>)> {
    (0..2_000).flat_map(|index| {
        let scene = Scene::generate(Split::Train, index);
        let plans = [
            CaptionPlan::canonical(&scene),
            CaptionPlan::full(&scene, index),
            CaptionPlan::partial(&scene, index),
        ];
        plans.map(|plan| {
            let edits = edits(&scene, &plan, index);
            (scene.clone(), plan.render(&scene), edits)
        })
    })
}

#[test]
fn edits_are_false_in_the_words_they_point_at_and_nowhere_else() {
    let mut seen = [0; 6];
    for (scene, truth, edits) in edited() {
        for Edit { kind, caption, changed } in edits {
            seen[kind as usize] += 1;
            assert!(!caption.is_true_of(&scene), "{}: {scene:?}", caption.text);
            assert!(!changed.is_empty(), "{}", caption.text);
            // With the true words put back, it is the true caption, but for articles.
            let mut text = caption.text.clone();
            let pairs = caption.mentions.iter().zip(&truth.mentions);
            for (is, was) in pairs.rev().filter(|(is, _)| changed.contains(&is.range)) {
                assert_ne!(caption.text[is.range.clone()], truth.text[was.range.clone()]);
                text.replace_range(is.range.clone(), &truth.text[was.range.clone()]);
            }
            let plain = |text: &str| {
                let words = text.split(' ').filter(|it| !["a", "an", "the"].contains(it));
                words.collect::<Vec<_>>().join(" ")
            };
            assert_eq!(plain(&text), plain(&truth.text), "{kind:?}: {}", caption.text);
        }
    }
    assert!(seen.iter().all(|&count| count > 200), "{seen:?}");
}

#[test]
fn an_edit_changes_only_what_its_name_says() {
    for (_, _, edits) in edited() {
        for Edit { kind, caption, changed } in edits {
            for mention in caption.mentions.iter().filter(|it| changed.contains(&it.range)) {
                let fits = match kind {
                    EditKind::Colour | EditKind::ColourSwap => {
                        matches!(mention.fact, Fact::Colour(_))
                    }
                    EditKind::Kind => matches!(mention.fact, Fact::Kind(_)),
                    EditKind::Setting => mention.fact == Fact::Setting,
                    EditKind::Count => matches!(mention.fact, Fact::Count(_)),
                    EditKind::Relation => matches!(mention.fact, Fact::Relation(..)),
                };
                assert!(fits, "{kind:?} of {mention:?}: {}", caption.text);
            }
        }
    }
}

#[test]
fn whatever_can_be_edited_is() {
    let scene = super::scene(
        Setting::Beach,
        &[(Kind::Cup, Colour::Blue, 0.2, 0.5), (Kind::Apple, Colour::Red, 0.8, 0.5)],
    );
    let mut kinds: Vec<EditKind> = Vec::new();
    for seed in 0..40 {
        kinds
            .extend(edits(&scene, &CaptionPlan::full(&scene, seed), seed).iter().map(|it| it.kind));
    }
    for kind in EditKind::ALL.iter().filter(|&&it| it != EditKind::Count) {
        assert!(kinds.contains(kind), "{kind:?}");
    }
    assert!(!kinds.contains(&EditKind::Count));
}

#[test]
fn edits_of_training_scenes_name_nothing_that_is_held_out() {
    for (_, _, edits) in edited() {
        for edit in edits {
            let Some(said) = parse_caption(&edit.caption.text) else { continue };
            for (_, kind, colour) in said.things {
                assert!(!is_held_out_pair(kind, colour), "{}", edit.caption.text);
            }
        }
    }
}

proptest! {
    #[test]
    fn canonical_captions_read_back(index in 0_u64..1_000_000, seed in 0_u64..1000) {
        for split in [Split::Test, Split::Combinations] {
            let scene = Scene::generate(split, index);
            let plan = CaptionPlan::canonical(&scene);
            let truth = Statement::of(&scene);
            let text = plan.render(&scene).text;
            prop_assert_eq!(parse_caption(&text), Some(truth.clone()));
            prop_assert_eq!(parse_caption(text.strip_suffix('.').unwrap()), Some(truth.clone()));
            for edit in edits(&scene, &plan, seed) {
                let said = parse_caption(&edit.caption.text);
                prop_assert!(said.is_some() && said.as_ref() != Some(&truth), "{}", edit.caption.text);
            }
        }
    }

    #[test]
    fn no_text_makes_the_parser_fail(text in "[a-z ,.é]{0,60}") {
        if let Some(said) = parse_caption(&text) {
            prop_assert!(said.things.len() <= 60);
        }
    }
}

#[test]
fn the_parser_is_strict() {
    for text in [
        "",
        ".",
        "a red car",
        "a red car in",
        "an red car in a city.",
        "a orange car in a city.",
        "red car in a city.",
        "a car in a city.",
        "a red cars in a city.",
        "three red car in a city.",
        "one red cars in a city.",
        "a red car, a blue cup in a city.",
        "a red car and a blue cup and a pink cup in a city.",
        "a red car  in a city.",
        "a red car in a city..",
        "a red car in a beach.",
        "an empty snow.",
        "a empty forest.",
        "empty forest.",
        "A red car in a city.",
    ] {
        assert_eq!(parse_caption(text), None, "{text}");
    }
    let both = parse_caption("a red car and two blue cups in a city").unwrap();
    assert_eq!(both.things, [(1, Kind::Car, Colour::Red), (2, Kind::Cup, Colour::Blue)]);
    assert_eq!(both.setting, Setting::City);
    assert!(parse_caption("an empty sea.").unwrap().things.is_empty());
}

#[test]
fn scrambled_captions_are_false_where_they_say_and_mix_true_with_false() {
    let (mut seen, mut half, mut turned, mut swapped, mut given_up) = (0, 0, 0, 0, 0);
    for index in 0..2_000 {
        let scene = Scene::generate(Split::Train, index);
        let plan = CaptionPlan::full(&scene, index);
        let Some(Scrambled { caption, changed }) = scrambled(&scene, &plan, index) else {
            // A lone thing may keep its colour however often it is tried.
            let alike = scene.things.iter().any(|thing| scene.count(thing.kind) > 1);
            given_up += usize::from(!alike && !scene.things.is_empty());
            continue;
        };
        seen += 1;
        assert!(!changed.is_empty() && !caption.is_true_of(&scene), "{}", caption.text);
        let mut colours = 0;
        for mention in &caption.mentions {
            let wrong = changed.contains(&mention.range);
            match mention.fact {
                Fact::Colour(thing) => {
                    let own = scene.things[thing].colour;
                    assert_eq!(wrong, caption.stated_colour(thing) != Some(own));
                    colours += usize::from(wrong);
                    swapped += usize::from(
                        wrong
                            && scene.things.iter().any(|it| {
                                it.colour != own && Some(it.colour) == caption.stated_colour(thing)
                            }),
                    );
                }
                Fact::Relation(..) => turned += usize::from(wrong),
                _ => assert!(!wrong, "{mention:?}: {}", caption.text),
            }
        }
        let stated = caption.mentions.iter().filter(|it| matches!(it.fact, Fact::Colour(_)));
        half += usize::from(colours > 0 && colours < stated.count());
        assert!(!has_new_combination(&scene, &caption), "{}", caption.text);
    }
    assert!(given_up * 50 < seen, "{given_up} of {seen}");
    assert!(
        seen > 1_000 && half > 200 && turned > 100 && swapped > 600,
        "{seen} {half} {turned} {swapped}"
    );
}

/// Whether a caption about a scene without held-out pairs names one.
fn has_new_combination(scene: &Scene, caption: &Caption) -> bool {
    !scene.has_held_out_combination()
        && scene.things.iter().enumerate().any(|(thing, it)| {
            caption.stated_colour(thing).is_some_and(|colour| is_held_out_pair(it.kind, colour))
        })
}
