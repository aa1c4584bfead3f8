//! What is in a scene and where: the distribution that a model learns.

use super::{
    graph::{Pose, Scene, Split, Thing},
    held_out::is_held_out_pair,
    names::{Colour, Kind, Setting, Style, TimeOfDay, Weather},
    random::{self, Random},
};

/// Share of scenes with nothing in them.
const EMPTY: f32 = 0.025;
/// Share of scenes with two to six things of one kind in one colour.
const COUNTED: f32 = 0.20;
/// Of the scenes with two or three things: share with two things of one kind.
const SAME_KIND: f32 = 0.12;

/// See [`Scene::generate`]. Scenes are drawn until one may stand in the split.
pub(super) fn generate(split: Split, index: u64) -> Scene {
    let mut attempt = 0;
    loop {
        let name = [split as u64 + 1, index, attempt];
        let scene = sample(split, &mut Random::new(&name), random::seed(&name));
        if split.admits(&scene) {
            return scene;
        }
        attempt += 1;
    }
}

fn sample(split: Split, random: &mut Random, seed: u64) -> Scene {
    let setting = random.pick(Setting::ALL);
    let time = time_of_day(setting, random);
    let weather = weather(setting, random);
    let style = match split {
        Split::Style => Style::HELD_OUT,
        _ => loop {
            let style = random.pick(Style::ALL);
            if style != Style::HELD_OUT {
                break style;
            }
        },
    };
    let wanted = wanted(split, random);
    // Too much for the picture: the same again, smaller.
    let mut scale = 1.0;
    let things = loop {
        if let Some(things) = place(&wanted, scale, random) {
            break things;
        }
        scale *= 0.95;
    };
    Scene { setting, time, weather, style, things, seed }
}

fn time_of_day(setting: Setting, random: &mut Random) -> TimeOfDay {
    match (setting, random.unit()) {
        (Setting::NightSky, _) => TimeOfDay::Night,
        (setting, _) if setting.is_inside() => TimeOfDay::Day,
        (_, chance) if chance < 0.6 => TimeOfDay::Day,
        (_, chance) if chance < 0.8 => TimeOfDay::Sunset,
        _ => TimeOfDay::Night,
    }
}

fn weather(setting: Setting, random: &mut Random) -> Weather {
    let weather = match random.unit() {
        chance if chance < 0.58 => Weather::Clear,
        chance if chance < 0.72 => Weather::Rain,
        chance if chance < 0.86 => Weather::Snowfall,
        _ => Weather::Fog,
    };
    match (setting, weather) {
        (Setting::Room | Setting::Kitchen | Setting::NightSky, _)
        | (Setting::Snow, Weather::Rain)
        | (Setting::Beach | Setting::Desert, Weather::Snowfall) => Weather::Clear,
        _ => weather,
    }
}

/// The kinds and colours of a scene, before they have a place.
fn wanted(split: Split, random: &mut Random) -> Vec<(Kind, Colour)> {
    let chance = random.unit();
    // Half of the new combinations are sought at once, in the first thing; the others come by
    // drawing until a scene holds one.
    let first = if split == Split::Combinations && random.chance(0.5) {
        pair(random, is_held_out_pair)
    } else {
        known_pair(split, random)
    };
    if chance < EMPTY {
        return Vec::new();
    }
    if chance < EMPTY + COUNTED {
        return vec![first; 2 + random.below(5)];
    }
    let count = match random.unit() {
        chance if chance < 0.29 => 1,
        chance if chance < 0.66 => 2,
        _ => 3,
    };
    let mut wanted = vec![first];
    if count > 1 && random.chance(SAME_KIND) {
        let second = loop {
            let (_, colour) = known_pair(split, random);
            let known = split == Split::Combinations || !is_held_out_pair(first.0, colour);
            if colour != first.1 && known {
                break (first.0, colour);
            }
        };
        wanted.push(second);
    }
    while wanted.len() < count {
        let next = known_pair(split, random);
        if wanted.iter().all(|&(kind, _)| kind != next.0) {
            wanted.push(next);
        }
    }
    wanted
}

/// Any pair for the split of new combinations, else one that training may show.
fn known_pair(split: Split, random: &mut Random) -> (Kind, Colour) {
    pair(random, |kind, colour| split == Split::Combinations || !is_held_out_pair(kind, colour))
}

fn pair(random: &mut Random, fits: impl Fn(Kind, Colour) -> bool) -> (Kind, Colour) {
    loop {
        let (kind, colour) = (random.pick(Kind::ALL), random.pick(Colour::ALL));
        if fits(kind, colour) {
            return (kind, colour);
        }
    }
}

/// Gives each a size, a pose and a place apart from the others, or `None` when there was none.
fn place(wanted: &[(Kind, Colour)], scale: f32, random: &mut Random) -> Option<Vec<Thing>> {
    let (least, most) = if wanted.len() > 3 { (0.16, 0.26) } else { (0.24, 0.48) };
    let mut things: Vec<Thing> = Vec::new();
    for &(kind, colour) in wanted {
        let size = least + (most - least) * random.unit() * scale;
        let pose = Pose {
            turn: (random.normal() * 0.06).clamp(-0.16, 0.16),
            stretch: random.between(0.95, 1.05),
            mirrored: random.chance(0.5),
        };
        let thing = Thing::new(kind, colour, size, pose);
        // A few percent may stick out of the picture.
        let (across, down) = (0.48 * thing.width, 0.48 * thing.height);
        let placed = (0..30).find_map(|_| {
            let (x, y) = (random.between(across, 1.0 - across), random.between(down, 1.0 - down));
            things.iter().all(|other| apart(&thing, x, y, other)).then_some((x, y))
        });
        let (x, y) = placed?;
        things.push(Thing { x, y, ..thing });
    }
    Some(things)
}

/// Whether a thing at (x, y) leaves another alone. Shapes do not fill their boxes, so boxes may
/// touch.
fn apart(thing: &Thing, x: f32, y: f32, other: &Thing) -> bool {
    (x - other.x).abs() > 0.49 * (thing.width + other.width)
        || (y - other.y).abs() > 0.49 * (thing.height + other.height)
}
