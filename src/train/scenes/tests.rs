//! Tests of the generator as a whole: what a training run stands on.

use super::{
    graph::Pose,
    held_out::{is_held_out_pair, is_held_out_triple},
    *,
};
use crate::decode::DecodedImage;

/// A scene with things of given kinds and colours at given places, drawn flat by day.
pub(super) fn scene(setting: Setting, things: &[(Kind, Colour, f32, f32)]) -> Scene {
    let pose = Pose { turn: 0.0, stretch: 1.0, mirrored: false };
    let things = things
        .iter()
        .map(|&(kind, colour, x, y)| Thing { x, y, ..Thing::new(kind, colour, 0.3, pose) })
        .collect();
    let (time, weather, style) = (TimeOfDay::Day, Weather::Clear, Style::Flat);
    Scene { setting, time, weather, style, things, seed: 7 }
}

fn pixel(picture: &DecodedImage, x: u32, y: u32) -> [i32; 3] {
    let at = 3 * (y * picture.width + x) as usize;
    [0, 1, 2].map(|channel| i32::from(picture.rgb[at + channel]))
}

#[test]
fn a_number_names_the_same_picture_for_ever() {
    let mut hash = blake3::Hasher::new();
    for split in [Split::Train, Split::Test, Split::Combinations, Split::Style] {
        for index in [0, 1, 2, 12_345] {
            let scene = Scene::generate(split, index);
            assert_eq!(scene, Scene::generate(split, index));
            hash.update(format!("{scene:?}").as_bytes());
        }
    }
    assert_eq!(&hash.finalize().to_hex()[..16], "2cdcdc49242d5001");
    let mut hash = blake3::Hasher::new();
    for index in 0..24 {
        hash.update(&Scene::generate(Split::Train, index).draw(112, 112).rgb);
    }
    // Elsewhere the drawing crate's vector instructions may round a byte otherwise.
    if cfg!(target_arch = "x86_64") {
        assert_eq!(&hash.finalize().to_hex()[..16], "5529f3cefd692c93");
    }
}

#[test]
fn splits_keep_what_they_promise() {
    for index in 0..5_000 {
        for split in [Split::Train, Split::Test] {
            let scene = Scene::generate(split, index);
            assert_ne!(scene.style, Style::HELD_OUT);
            assert!(!scene.has_held_out_combination(), "{scene:?}");
        }
        let scene = Scene::generate(Split::Combinations, index);
        assert_ne!(scene.style, Style::HELD_OUT);
        assert!(scene.has_held_out_combination(), "{scene:?}");
        let scene = Scene::generate(Split::Style, index);
        assert_eq!(scene.style, Style::HELD_OUT);
        assert!(!scene.has_held_out_combination(), "{scene:?}");
    }
}

#[test]
fn test_scenes_are_other_scenes() {
    let train: Vec<Scene> = (0..200).map(|it| Scene::generate(Split::Train, it)).collect();
    for index in 0..200 {
        assert!(!train.contains(&Scene::generate(Split::Test, index)));
    }
}

#[test]
fn held_out_sets_are_small_and_leave_every_kind_its_colours() {
    let mut pairs = 0;
    for &kind in Kind::ALL {
        let held = Colour::ALL.iter().filter(|&&it| is_held_out_pair(kind, it)).count();
        assert!(held <= 4, "{held} colours of {} are never seen", kind.name());
        pairs += held;
    }
    let pairs = pairs as f32 / (Kind::ALL.len() * Colour::ALL.len()) as f32;
    let (mut triples, mut all) = (0, 0);
    for &a in Kind::ALL {
        for &b in Kind::ALL {
            for &relation in Relation::ALL {
                let held = is_held_out_triple(a, relation, b);
                assert_eq!(held, is_held_out_triple(b, relation.inverse(), a));
                (triples, all) = (triples + usize::from(held), all + 1);
            }
        }
    }
    let triples = triples as f32 / all as f32;
    assert!((0.05..0.11).contains(&pairs) && (0.07..0.09).contains(&triples), "{pairs} {triples}");
}

#[test]
fn scenes_are_mixed_as_intended() {
    let scenes: Vec<Scene> = (0..4_000).map(|it| Scene::generate(Split::Train, it)).collect();
    let share = |is: &dyn Fn(&Scene) -> bool| {
        scenes.iter().filter(|scene| is(scene)).count() as f32 / scenes.len() as f32
    };
    let empty = share(&|it| it.things.is_empty());
    let counted = share(&Scene::is_counted);
    assert!((0.015..0.04).contains(&empty), "{empty}");
    assert!((0.17..0.25).contains(&counted), "{counted}");
    for many in 2..=6 {
        let many = share(&|it| it.is_counted() && it.things.len() == many);
        assert!((0.02..0.07).contains(&many), "{many}");
    }
    let two_colours =
        share(&|it| !it.is_counted() && it.things.iter().any(|a| it.count(a.kind) > 1));
    assert!((0.02..0.09).contains(&two_colours), "{two_colours}");
    for &kind in Kind::ALL {
        assert!(share(&|it| it.count(kind) > 0) > 0.015, "{}", kind.name());
    }
    for &setting in Setting::ALL {
        assert!(share(&|it| it.setting == setting) > 0.05, "{}", setting.name());
    }
    for &weather in Weather::ALL {
        assert!(share(&|it| it.weather == weather) > 0.05, "{}", weather.name());
    }
    assert!(share(&|it| it.time == TimeOfDay::Night) > 0.15);
    assert!(share(&|it| it.time == TimeOfDay::Sunset) > 0.1);
    for size in Size::ALL {
        assert!(share(&|it| it.things.iter().any(|a| a.size_word() == Some(*size))) > 0.1);
    }
}

#[test]
fn things_lie_inside_and_apart() {
    for index in 0..2_000 {
        let scene = Scene::generate(Split::Train, index);
        for (number, a) in scene.things.iter().enumerate() {
            let sticks_out = (0.5 * a.width - a.x).max(a.x + 0.5 * a.width - 1.0);
            assert!(sticks_out <= 0.021 * a.width, "{a:?}");
            let sticks_out = (0.5 * a.height - a.y).max(a.y + 0.5 * a.height - 1.0);
            assert!(sticks_out <= 0.021 * a.height, "{a:?}");
            for b in &scene.things[..number] {
                let across = 0.5 * (a.width + b.width) - (a.x - b.x).abs();
                let down = 0.5 * (a.height + b.height) - (a.y - b.y).abs();
                let common = across.max(0.0) * down.max(0.0);
                let smaller = (a.width * a.height).min(b.width * b.height);
                assert!(common <= 0.04 * smaller, "{a:?} {b:?}");
            }
        }
    }
}

#[test]
fn relations_are_said_only_where_they_are_clear() {
    let of = |x: f32, y: f32| {
        let cup = (Kind::Cup, Colour::Red, 0.5, 0.5);
        scene(Setting::Beach, &[cup, (Kind::Car, Colour::Red, x, y)]).relation(1, 0)
    };
    assert_eq!(of(0.2, 0.5), Some(Relation::LeftOf));
    assert_eq!(of(0.8, 0.6), Some(Relation::RightOf));
    assert_eq!(of(0.5, 0.2), Some(Relation::Above));
    assert_eq!(of(0.4, 0.8), Some(Relation::Below));
    assert_eq!(of(0.2, 0.25), None, "neither axis dominates");
    assert_eq!(of(0.38, 0.5), None, "too near");
    for index in 0..500 {
        let scene = Scene::generate(Split::Train, index);
        for a in 0..scene.things.len() {
            for b in 0..scene.things.len() {
                let back = scene.relation(b, a).map(Relation::inverse);
                assert_eq!(scene.relation(a, b), back);
            }
        }
    }
}

#[test]
fn cells_belong_to_the_thing_that_covers_them() {
    let left = (Kind::Ball, Colour::Red, 0.25, 0.5);
    let scene = scene(Setting::Beach, &[left, (Kind::House, Colour::Blue, 0.75, 0.5)]);
    let owners = scene.owners(8);
    assert_eq!(owners.len(), 64);
    // Row 4 from the left: the ball's middle lies at column 2, the house's at column 6.
    assert_eq!(owners[4 * 8 + 1], Some(0));
    assert_eq!(owners[4 * 8 + 2], Some(0));
    assert_eq!(owners[4 * 8 + 6], Some(1));
    assert!(owners[..8].iter().all(Option::is_none), "{owners:?}");
}

#[test]
fn the_graph_says_where_the_drawing_is() {
    for index in 0..300 {
        let mut scene = Scene::generate(Split::Train, index);
        (scene.setting, scene.weather, scene.style) = (Setting::Room, Weather::Clear, Style::Flat);
        scene.things.truncate(1);
        let Some(thing) = scene.things.first().cloned() else { continue };
        let owners = scene.owners(64);
        let covered = || owners.iter().enumerate().filter(|(_, it)| it.is_some());
        let columns: Vec<usize> = covered().map(|(cell, _)| cell % 64).collect();
        let rows: Vec<usize> = covered().map(|(cell, _)| cell / 64).collect();
        for (cells, middle, extent) in
            [(columns, thing.x, thing.width), (rows, thing.y, thing.height)]
        {
            let first = *cells.iter().min().unwrap() as f32 / 64.0;
            let last = (*cells.iter().max().unwrap() + 1) as f32 / 64.0;
            let (from, to) = (middle - 0.5 * extent, middle + 0.5 * extent);
            assert!((first - from.max(0.0)).abs() < 0.045, "{thing:?}: {first} {from}");
            assert!((last - to.min(1.0)).abs() < 0.045, "{thing:?}: {last} {to}");
        }
    }
}

#[test]
fn whatever_its_colour_a_thing_stands_out() {
    for (setting, colour) in [
        (Setting::NightSky, Colour::Black),
        (Setting::Snow, Colour::White),
        (Setting::Field, Colour::Green),
        (Setting::Sea, Colour::Blue),
        (Setting::Road, Colour::Gray),
        (Setting::Kitchen, Colour::White),
    ] {
        for style in [Style::Flat, Style::Outlined, Style::Crayon, Style::Paper] {
            for &kind in Kind::ALL {
                let mut with = scene(setting, &[(kind, colour, 0.5, 0.6)]);
                with.style = style;
                let without = Scene { things: Vec::new(), ..with.clone() };
                let (with, without) = (with.draw(112, 112), without.draw(112, 112));
                let unlike = (0..112 * 112)
                    .filter(|at| {
                        let (a, b) =
                            (pixel(&with, at % 112, at / 112), pixel(&without, at % 112, at / 112));
                        (0..3).map(|it| (a[it] - b[it]).abs()).max() > Some(45)
                    })
                    .count();
                let name = kind.name();
                assert!(
                    unlike > 80,
                    "{unlike} pixels of {colour:?} {name} in {setting:?}, {style:?}"
                );
            }
        }
    }
}

#[test]
fn most_of_a_thing_has_its_colour() {
    for &kind in Kind::ALL {
        let draw = |colour| scene(Setting::Room, &[(kind, colour, 0.5, 0.5)]).draw(112, 112);
        let (red, blue) = (draw(Colour::Red), draw(Colour::Blue));
        let changed = red.rgb.chunks_exact(3).zip(blue.rgb.chunks_exact(3));
        let changed = changed.filter(|(a, b)| a[0].abs_diff(b[0]) > 50).count();
        let whole = scene(Setting::Room, &[(kind, Colour::Red, 0.5, 0.5)]).owners(112);
        let whole = whole.iter().filter(|it| it.is_some()).count();
        let share = changed as f32 / whole as f32;
        assert!(share > 0.4, "{share} of a {} has its colour", kind.name());
    }
}

#[test]
fn colours_stay_apart_in_every_light() {
    // The mean colour of a ball's lower half, where it has no mark, in all lights and styles.
    let mut seen: Vec<(Colour, [f32; 3])> = Vec::new();
    for index in 0..600 {
        let generated = Scene::generate(Split::Train, index);
        let colour = Colour::ALL[index as usize % Colour::ALL.len()];
        let mut scene = scene(generated.setting, &[(Kind::Heart, colour, 0.5, 0.5)]);
        (scene.time, scene.weather) = (generated.time, generated.weather);
        (scene.style, scene.seed) = (generated.style, generated.seed);
        let picture = scene.draw(112, 112);
        let spots = (52..60).flat_map(|x| (50..62).map(move |y| (x, y)));
        let mut sum = [0.0; 3];
        for (x, y) in spots {
            let pixel = pixel(&picture, x, y);
            sum = [0, 1, 2].map(|it| sum[it] + pixel[it] as f32 / 96.0);
        }
        seen.push((colour, sum));
    }
    // A colour is told by the nearest mean of all its examples.
    let mean = |of: Colour| {
        let of: Vec<[f32; 3]> = seen.iter().filter(|it| it.0 == of).map(|it| it.1).collect();
        [0, 1, 2].map(|it| of.iter().map(|rgb| rgb[it]).sum::<f32>() / of.len() as f32)
    };
    let means: Vec<[f32; 3]> = Colour::ALL.iter().map(|&it| mean(it)).collect();
    let mistaken = seen
        .iter()
        .filter(|(colour, rgb)| {
            let far = |mean: &[f32; 3]| (0..3).map(|it| (mean[it] - rgb[it]).powi(2)).sum::<f32>();
            let nearest =
                (0..means.len()).min_by(|&a, &b| far(&means[a]).total_cmp(&far(&means[b])));
            nearest != Some(*colour as usize)
        })
        .count();
    assert!(mistaken <= 12, "{mistaken} of 600");
}

#[test]
fn pictures_come_in_any_size() {
    let scene = Scene::generate(Split::Train, 3);
    for (width, height) in [(1, 1), (3, 200), (200, 100), (448, 448)] {
        let picture = scene.draw(width, height);
        assert_eq!((picture.width, picture.height), (width, height));
        assert_eq!(picture.rgb.len(), (width * height * 3) as usize);
    }
    assert!(scene.draw(0, 10).rgb.is_empty());
}

#[test]
fn names_are_words_of_their_own() {
    let mut words: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    words.extend(Colour::ALL.iter().map(|it| it.name()));
    words.extend(Setting::ALL.iter().map(|it| it.name()));
    let count = words.len();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), count);
    assert!(Kind::ALL.len() >= 40 && Colour::ALL.len() == 11 && Setting::ALL.len() == 12);
    for (number, &kind) in Kind::ALL.iter().enumerate() {
        assert_eq!(kind as usize, number);
        assert!(kind == Kind::Fish || kind.plural() != kind.name());
    }
}
