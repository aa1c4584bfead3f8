//! Tests of the language against the graph.

mod answers;
mod falsehoods;

use super::*;
use crate::train::scenes::{Colour, Kind, Scene, Setting, Split, TimeOfDay, Weather, tests::scene};

fn canonical(scene: &Scene) -> String {
    CaptionPlan::canonical(scene).render(scene).text
}

#[test]
fn canonical_captions_go_from_left_to_right() {
    let mut scene = scene(
        Setting::Beach,
        &[
            (Kind::Cup, Colour::Blue, 0.5, 0.2),
            (Kind::Tree, Colour::Green, 0.8, 0.5),
            (Kind::Umbrella, Colour::Orange, 0.2, 0.8),
        ],
    );
    assert_eq!(canonical(&scene), "an orange umbrella, a blue cup and a green tree on a beach.");
    scene.setting = Setting::Snow;
    scene.things.truncate(1);
    assert_eq!(canonical(&scene), "a blue cup in the snow.");
    scene.things.push(scene.things[0].clone());
    scene.things.push(scene.things[0].clone());
    assert_eq!(canonical(&scene), "three blue cups in the snow.");
    scene.things.clear();
    assert_eq!(canonical(&scene), "empty snow.");
    scene.setting = Setting::Forest;
    assert_eq!(canonical(&scene), "an empty forest.");
}

#[test]
fn mentions_point_at_their_words() {
    let scene = scene(
        Setting::NightSky,
        &[(Kind::Cup, Colour::Blue, 0.2, 0.5), (Kind::Apple, Colour::Red, 0.8, 0.5)],
    );
    let caption = CaptionPlan::canonical(&scene).render(&scene);
    assert_eq!(caption.text, "a blue cup and a red apple in a night sky.");
    let facts: Vec<(&str, Fact)> =
        caption.mentions.iter().map(|it| (&caption.text[it.range.clone()], it.fact)).collect();
    assert_eq!(
        facts,
        [
            ("blue", Fact::Colour(0)),
            ("cup", Fact::Kind(0)),
            ("red", Fact::Colour(1)),
            ("apple", Fact::Kind(1)),
            ("in a night sky", Fact::Setting),
        ]
    );
}

/// All captions of some scenes of each split.
fn captions() -> impl Iterator<Item = (Scene, Caption)> {
    let splits = [Split::Train, Split::Combinations];
    let scenes = splits.into_iter().flat_map(|it| (0..1_500).map(move |index| (it, index)));
    scenes.flat_map(|(split, index)| {
        let scene = Scene::generate(split, index);
        let plans = [
            CaptionPlan::canonical(&scene),
            CaptionPlan::full(&scene, index),
            CaptionPlan::full(&scene, index + 1),
            CaptionPlan::partial(&scene, index),
            CaptionPlan::partial(&scene, index + 1),
        ];
        plans.map(|plan| (scene.clone(), plan.render(&scene)))
    })
}

#[test]
fn every_caption_is_true_and_well_written() {
    for (scene, caption) in captions() {
        let text = &caption.text;
        assert!(caption.is_true_of(&scene), "{text}: {scene:?}");
        let words = text.replace(", ", " ").replace(". ", " ");
        let words = words.strip_suffix('.').unwrap_or(&words);
        assert!(
            words
                .split(' ')
                .all(|word| !word.is_empty() && word.bytes().all(|it| it.is_ascii_lowercase())),
            "{text}"
        );
        let mut end = 0;
        for mention in &caption.mentions {
            assert!(end <= mention.range.start && mention.range.end <= text.len(), "{text}");
            end = mention.range.end;
            let around = (text[..mention.range.start].chars().last(), text[end..].chars().next());
            assert!(matches!(around.0, None | Some(' ')), "{text}");
            assert!(matches!(around.1, None | Some(' ' | ',' | '.')), "{text}");
        }
    }
}

#[test]
fn full_captions_name_everything() {
    for index in 0..2_000 {
        let scene = Scene::generate(Split::Train, index);
        let caption = CaptionPlan::full(&scene, index).render(&scene);
        let says = |fact| caption.mentions.iter().any(|it| it.fact == fact);
        assert!(says(Fact::Setting), "{}", caption.text);
        let things = if scene.is_counted() { 1 } else { scene.things.len() };
        for thing in 0..things {
            assert!(says(Fact::Kind(thing)) && says(Fact::Colour(thing)), "{}", caption.text);
        }
        assert_eq!(says(Fact::Count(0)), scene.is_counted(), "{}", caption.text);
    }
}

#[test]
fn captions_are_worded_in_many_ways() {
    let scene = Scene::generate(Split::Train, 2);
    let mut texts: Vec<String> =
        (0..100).map(|seed| CaptionPlan::full(&scene, seed).render(&scene).text).collect();
    texts.sort_unstable();
    texts.dedup();
    assert!(texts.len() > 20, "{texts:?}");
}

#[test]
fn a_changed_fact_makes_a_caption_false() {
    let truth = scene(
        Setting::Beach,
        &[(Kind::Cup, Colour::Blue, 0.2, 0.5), (Kind::Apple, Colour::Red, 0.8, 0.5)],
    );
    let edit = |change: &dyn Fn(&mut Scene)| {
        let mut edited = truth.clone();
        change(&mut edited);
        (0..200).any(|seed| CaptionPlan::full(&truth, seed).render(&edited).is_true_of(&truth))
    };
    assert!(edit(&|_| {}));
    assert!(!edit(&|it| it.things[0].colour = Colour::Red));
    assert!(!edit(&|it| it.things[1].kind = Kind::Cup));
    assert!(!edit(&|it| it.setting = Setting::Sea));
    assert!(!edit(&|it| {
        let (first, second) = (it.things[0].colour, it.things[1].colour);
        (it.things[0].colour, it.things[1].colour) = (second, first);
    }));
    let beside = (0..200).filter_map(|seed| {
        let plan = CaptionPlan::full(&truth, seed);
        let mut swapped = truth.clone();
        (swapped.things[0].x, swapped.things[1].x) = (truth.things[1].x, truth.things[0].x);
        let (was, is) = (plan.render(&truth), plan.render(&swapped));
        (was != is).then(|| is.is_true_of(&truth))
    });
    let beside: Vec<bool> = beside.collect();
    assert!(beside.len() > 20 && beside.iter().all(|it| !it), "{beside:?}");
}

#[test]
fn counts_and_weather_are_told_apart() {
    let mut truth = Scene::generate(Split::Train, 0);
    assert!(truth.is_counted(), "choose another number");
    (truth.time, truth.weather) = (TimeOfDay::Night, Weather::Rain);
    for seed in 0..100 {
        let caption = CaptionPlan::full(&truth, seed).render(&truth);
        let mut other = truth.clone();
        other.things.push(truth.things[0].clone());
        assert!(!caption.is_true_of(&other), "{}", caption.text);
        other = Scene { weather: Weather::Fog, ..truth.clone() };
        assert_eq!(caption.is_true_of(&other), !caption.text.contains("rain"));
        other = Scene { time: TimeOfDay::Sunset, ..truth.clone() };
        assert_eq!(caption.is_true_of(&other), !caption.text.contains("at night"));
    }
}
