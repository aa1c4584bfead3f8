//! Wordings, and what they say of a scene.

use super::{Caption, Fact, Mention, phrases};
use crate::train::scenes::{Relation, Scene, Setting, Size, TimeOfDay, Weather, random::Random};

/// A stretch of a caption.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Piece {
    /// Words without a fact, or a sign.
    Say(&'static str),
    /// "a large red car"
    A { thing: usize, colour: bool, size: bool },
    /// "the red car"
    The { thing: usize, colour: bool },
    /// "three red cars"
    Many { number: bool, colour: bool },
    /// "red"
    Hue(usize),
    /// "on a beach"
    Place,
    /// "a beach", or "an empty beach"
    Scenery { empty: bool },
    /// "at sunset"
    Light,
    /// "in the rain"
    Air,
    /// "to the left of": as it was in the scene of the plan, where a scene says nothing else.
    Beside { a: usize, b: usize, relation: Relation, short: bool },
}

use Piece::{A, Air, Beside, Hue, Light, Many, Place, Say, Scenery, The};

/// A wording, chosen once, that can be rendered over any scene with the same things.
#[derive(Debug, Clone, PartialEq)]
pub struct CaptionPlan {
    pieces: Vec<Piece>,
}

/// "a red car", with its size where that is clear and `random` says so.
fn a(scene: &Scene, thing: usize, random: &mut Random) -> Piece {
    let size = scene.things[thing].size_word().is_some() && random.chance(0.3);
    A { thing, colour: true, size }
}

/// The pieces with ", " and " and " between them.
fn list(items: &[Piece]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (number, &item) in items.iter().enumerate() {
        if number > 0 {
            pieces.push(Say(if number + 1 == items.len() { "and" } else { "," }));
        }
        pieces.push(item);
    }
    pieces
}

impl CaptionPlan {
    /// The one wording that captions are trained and judged in: things from left to right, each
    /// with its colour, and the setting. "a red car, a blue cup and a green tree on a beach.",
    /// "three red cars in a city.", "an empty forest."
    pub fn canonical(scene: &Scene) -> Self {
        let mut pieces = if scene.things.is_empty() {
            vec![Scenery { empty: true }]
        } else if scene.is_counted() {
            vec![Many { number: true, colour: true }, Place]
        } else {
            let mut order: Vec<usize> = (0..scene.things.len()).collect();
            order.sort_by(|&a, &b| scene.things[a].x.total_cmp(&scene.things[b].x));
            let items: Vec<Piece> =
                order.iter().map(|&thing| A { thing, colour: true, size: false }).collect();
            let mut pieces = list(&items);
            pieces.push(Place);
            pieces
        };
        pieces.push(Say("."));
        Self { pieces }
    }

    /// A wording that names everything: each thing with its colour, and the setting; now and
    /// then also how things stand to each other, sizes, the time of day and the weather.
    pub fn full(scene: &Scene, seed: u64) -> Self {
        let mut random = Random::new(&[0xCA, seed]);
        let random = &mut random;
        let mut pieces = if scene.things.is_empty() {
            random
                .pick(&[
                    &[Scenery { empty: true }][..],
                    &[Say("a picture of"), Scenery { empty: true }],
                    &[Say("there is"), Scenery { empty: true }],
                ])
                .to_vec()
        } else if scene.is_counted() {
            everything(scene, &[Many { number: true, colour: true }], random)
        } else {
            let mut order: Vec<usize> = (0..scene.things.len()).collect();
            random.shuffle(&mut order);
            let chance = random.unit();
            if chance < 0.45 && order.len() > 1 {
                match related(scene, &order, random) {
                    Some(pieces) => pieces,
                    None => everything(scene, &things(scene, &order, random), random),
                }
            } else if chance < 0.6 && distinct_kinds(scene) {
                described(&order)
            } else {
                everything(scene, &things(scene, &order, random), random)
            }
        };
        if random.chance(0.25) && shows_time(scene) {
            pieces.push(Light);
        }
        if random.chance(0.4) && scene.weather != Weather::Clear {
            pieces.push(Air);
        }
        if random.chance(0.6) {
            pieces.push(Say("."));
        }
        Self { pieces }
    }

    /// A wording that names some of what is there: "a red car", "a beach at sunset".
    pub fn partial(scene: &Scene, seed: u64) -> Self {
        let mut random = Random::new(&[0xCB, seed]);
        let random = &mut random;
        let count = scene.things.len();
        let chance = random.unit();
        let pieces = if count == 0 || chance < 0.15 {
            let mut pieces = vec![Scenery { empty: count == 0 && random.chance(0.5) }];
            if shows_time(scene) && random.chance(0.7) {
                pieces.push(Light);
            }
            if scene.weather != Weather::Clear && random.chance(0.7) {
                pieces.push(Air);
            }
            pieces
        } else if scene.is_counted() {
            let many = Many { number: random.chance(0.7), colour: random.chance(0.7) };
            if random.chance(0.5) { vec![many, Place] } else { vec![many] }
        } else {
            let thing = random.below(count);
            let (colour, size) = (random.chance(0.75), random.chance(0.3));
            let size = size && scene.things[thing].size_word().is_some();
            let one = A { thing, colour, size };
            let other = (thing + 1 + random.below(count.max(2) - 1)) % count;
            match scene.relation(thing, other) {
                Some(relation) if chance < 0.45 => {
                    let other =
                        A { thing: other, colour: colour && random.chance(0.7), size: false };
                    vec![one, beside(thing, relation, other, random), other]
                }
                _ if chance < 0.6 && other != thing => {
                    list(&[one, A { thing: other, colour, size: false }])
                }
                _ if chance < 0.8 => vec![one, Place],
                _ => vec![one],
            }
        };
        Self { pieces }
    }

    /// The wording over a scene, which has the things of the scene of the plan, edited or not.
    pub fn render(&self, scene: &Scene) -> Caption {
        self.render_reversed(scene, None)
    }

    /// The same, but what is said of how two things stand to each other is reversed.
    pub(super) fn render_reversed(
        &self,
        scene: &Scene,
        reversed: Option<(usize, usize)>,
    ) -> Caption {
        let mut writer = Writer { reversed, ..Writer::default() };
        for &piece in &self.pieces {
            writer.piece(piece, scene);
        }
        Caption { text: writer.text, mentions: writer.mentions }
    }
}

/// Whether the time of day can be seen and is not said by the setting.
fn shows_time(scene: &Scene) -> bool {
    !scene.setting.is_inside()
        && scene.setting != Setting::NightSky
        && (scene.time != TimeOfDay::Day || scene.weather == Weather::Clear)
}

fn distinct_kinds(scene: &Scene) -> bool {
    scene.things.iter().all(|thing| scene.count(thing.kind) == 1)
}

fn things(scene: &Scene, order: &[usize], random: &mut Random) -> Vec<Piece> {
    order.iter().map(|&thing| a(scene, thing, random)).collect()
}

/// A list of things and the setting.
fn everything(scene: &Scene, items: &[Piece], random: &mut Random) -> Vec<Piece> {
    let there = Say(if scene.things.len() > 1 { "there are" } else { "there is" });
    let list = list(items);
    match random.below(6) {
        0 => [&[Say("a picture of")], &list[..], &[Place]].concat(),
        1 => [&[there], &list[..], &[Place]].concat(),
        2 => [&[Place, there], &list[..]].concat(),
        3 => [&[Scenery { empty: false }, Say("with")], &list[..]].concat(),
        _ => [&list[..], &[Place]].concat(),
    }
}

fn beside(a: usize, relation: Relation, b: Piece, random: &mut Random) -> Piece {
    let b = match b {
        A { thing, .. } | The { thing, .. } => thing,
        _ => a,
    };
    Beside { a, b, relation, short: random.chance(0.5) }
}

/// Things by how they stand to each other: "a red car is left of a blue cup on a beach", for a
/// third thing also where it is. `None` where no relation is clear.
fn related(scene: &Scene, order: &[usize], random: &mut Random) -> Option<Vec<Piece>> {
    let pairs = || order.iter().flat_map(|&a| order.iter().map(move |&b| (a, b)));
    let (one, other, relation) = pairs().find_map(|(a, b)| Some((a, b, scene.relation(a, b)?)))?;
    let (first, second) = (a(scene, one, random), a(scene, other, random));
    let mut pieces = vec![first];
    if random.chance(0.5) {
        pieces.push(Say("is"));
    }
    pieces.extend([beside(one, relation, second, random), second]);
    if let Some(&third) = order.iter().find(|&&thing| thing != one && thing != other) {
        let last = a(scene, third, random);
        let to = [one, other].into_iter().find_map(|to| Some((to, scene.relation(third, to)?)));
        pieces.extend([Say("and"), last]);
        if let Some((to, relation)) = to.filter(|_| random.chance(0.7)) {
            let the = The { thing: to, colour: true };
            pieces.extend([beside(third, relation, the, random), the]);
        }
    }
    pieces.push(Place);
    Some(pieces)
}

/// What there is, and then its colours: "a car and a cup on a beach. the car is red and the cup
/// is blue".
fn described(order: &[usize]) -> Vec<Piece> {
    let items: Vec<Piece> =
        order.iter().map(|&thing| A { thing, colour: false, size: false }).collect();
    let mut pieces = list(&items);
    pieces.extend([Place, Say(".")]);
    for (number, &thing) in order.iter().enumerate() {
        if number > 0 {
            pieces.push(Say(if number + 1 == order.len() { "and" } else { "," }));
        }
        pieces.extend([The { thing, colour: false }, Say("is"), Hue(thing)]);
    }
    pieces
}

/// Puts words behind each other and notes where the facts are.
#[derive(Default)]
struct Writer {
    text: String,
    mentions: Vec<Mention>,
    reversed: Option<(usize, usize)>,
}

impl Writer {
    fn say(&mut self, words: &str) {
        if !self.text.is_empty() && !words.starts_with([',', '.']) {
            self.text.push(' ');
        }
        self.text.push_str(words);
    }

    fn state(&mut self, words: &str, fact: Fact) {
        self.say(words);
        let end = self.text.len();
        self.mentions.push(Mention { range: end - words.len()..end, fact });
    }

    fn piece(&mut self, piece: Piece, scene: &Scene) {
        match piece {
            Say(words) => self.say(words),
            A { thing, colour, size } => {
                let size = scene.things[thing].size_word().filter(|_| size);
                self.noun(thing, colour, size.map(Size::name), None, scene);
            }
            The { thing, colour } => self.noun(thing, colour, None, Some("the"), scene),
            Many { number, colour } => {
                let first = &scene.things[0];
                if number {
                    self.state(phrases::NUMBERS[scene.things.len()], Fact::Count(0));
                }
                if colour {
                    self.state(first.colour.name(), Fact::Colour(0));
                }
                self.state(first.kind.plural(), Fact::Kind(0));
            }
            Hue(thing) => self.state(scene.things[thing].colour.name(), Fact::Colour(thing)),
            Place => self.state(phrases::place(scene.setting), Fact::Setting),
            Scenery { empty } => {
                let name = scene.setting.name();
                if let Some(article) = phrases::scenery_article(scene.setting, empty) {
                    self.say(article);
                }
                if empty {
                    self.state("empty", Fact::Nothing);
                }
                self.state(name, Fact::Setting);
            }
            Light => self.state(phrases::time(scene.time), Fact::Time),
            Air => self.state(phrases::weather(scene.weather), Fact::Weather),
            Beside { a, b, relation, short } => {
                let relation = scene.relation(a, b).unwrap_or(relation);
                let turned = self.reversed == Some((a, b));
                let relation = if turned { relation.inverse() } else { relation };
                self.state(phrases::relation(relation, short), Fact::Relation(a, b));
            }
        }
    }

    fn noun(
        &mut self,
        thing: usize,
        colour: bool,
        size: Option<&str>,
        article: Option<&str>,
        scene: &Scene,
    ) {
        let (kind, hue) = (scene.things[thing].kind.name(), scene.things[thing].colour.name());
        let next = size.unwrap_or(if colour { hue } else { kind });
        self.say(article.unwrap_or_else(|| phrases::article(next)));
        if let Some(size) = size {
            self.state(size, Fact::Size(thing));
        }
        if colour {
            self.state(hue, Fact::Colour(thing));
        }
        self.state(kind, Fact::Kind(thing));
    }
}
