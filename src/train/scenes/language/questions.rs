//! Questions about a scene, with their answers.

use super::{CaptionPlan, edits::edits, edits::may_name, phrases};
use crate::train::scenes::{
    Colour, Kind, Relation, Scene, Setting, is_held_out_triple, random::Random,
};

/// What a question asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuestionKind {
    /// What colour something has. Answer: a colour.
    Colour,
    /// Whether there is something. Answer: yes or no.
    Exists,
    /// Whether there is something in a colour. Answer: yes or no.
    ExistsColour,
    /// How many there are. Answer: zero to six.
    Count,
    /// What is left of something, or right, above, below. Answer: a kind.
    Relation,
    /// Whether one thing is left of another, and so on. Answer: yes or no.
    TrueFalse,
    /// What has a colour. Answer: a kind.
    What,
    /// Where it is. Answer: a setting.
    Setting,
    /// Whether a caption is true. Answer: yes or no; half of the captions are false in one fact.
    Match,
}

impl QuestionKind {
    /// Every one, in the order of `as usize`.
    pub const ALL: &[Self] = &[
        Self::Colour,
        Self::Exists,
        Self::ExistsColour,
        Self::Count,
        Self::Relation,
        Self::TrueFalse,
        Self::What,
        Self::Setting,
        Self::Match,
    ];

    /// The answer that is right most often when one has not seen the picture, about. Yes and no
    /// are equally common, and so are colours, kinds and settings.
    pub const fn guess(self) -> &'static str {
        match self {
            Self::Colour => "yellow",
            Self::Exists | Self::ExistsColour | Self::TrueFalse | Self::Match => "yes",
            Self::Count => "one",
            Self::Relation | Self::What => "car",
            Self::Setting => "desert",
        }
    }
}

/// A question with its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What it asks.
    pub kind: QuestionKind,
    /// "what color is the car?"
    pub text: String,
    /// "red"
    pub answer: String,
    /// The question so that it ends with the word that is asked about, and the answer follows at
    /// once: "what color is the car". The form in which answers are learned first.
    pub short: Option<String>,
    /// See [`QuestionKind::guess`].
    pub guess: &'static str,
}

/// Seven to nineteen questions about a scene with things in it, twelve or thirteen on average, and
/// fewer about an empty one. Only such as have one answer; yes and no are as frequent as each other over many scenes.
pub fn questions(scene: &Scene, seed: u64) -> Vec<Question> {
    let mut asker = Asker { scene, random: Random::new(&[0xA5, seed]), questions: Vec::new() };
    asker.colours();
    asker.existence();
    asker.colour_existence();
    asker.counts();
    asker.relations();
    asker.statements();
    asker.what();
    asker.setting();
    asker.matches(seed);
    asker.questions
}

/// Kinds of which a setting's backdrop or another kind may remind, so that "no" would be unfair.
fn looks_like(scene: &Scene, kind: Kind) -> bool {
    let shown = |other| scene.count(other) > 0;
    match (scene.setting, kind) {
        (Setting::Forest, Kind::Tree | Kind::Pine)
        | (Setting::City, Kind::House | Kind::Tower)
        | (Setting::NightSky, Kind::Star | Kind::Moon | Kind::Sun) => true,
        (_, Kind::Person) => shown(Kind::Runner) || shown(Kind::Dancer),
        (_, Kind::Tree) => shown(Kind::Pine),
        _ => false,
    }
}

/// The thing of a relation question for `of`, if just one thing could be meant.
pub(super) fn only_one(scene: &Scene, relation: Relation, of: usize) -> Option<usize> {
    let there = &scene.things[of];
    let on_that_side = |other: usize| {
        let (x, y) = (scene.things[other].x - there.x, scene.things[other].y - there.y);
        // Whatever lies a little to that side could be meant too.
        match relation {
            Relation::LeftOf => x < -0.05,
            Relation::RightOf => x > 0.05,
            Relation::Above => y < -0.05,
            Relation::Below => y > 0.05,
        }
    };
    let mut others = (0..scene.things.len()).filter(|&it| it != of && on_that_side(it));
    let only = others.next()?;
    let clear = scene.relation(only, of) == Some(relation) && others.next().is_none();
    (clear && !scene.is_counted()).then_some(only)
}

/// "the car", or where there are two "the red car".
pub(super) fn the(scene: &Scene, thing: usize) -> String {
    let thing = &scene.things[thing];
    if scene.count(thing.kind) == 1 {
        format!("the {}", thing.kind.name())
    } else {
        format!("the {} {}", thing.colour.name(), thing.kind.name())
    }
}

/// "a red car"
fn one(colour: Colour, kind: Kind) -> String {
    format!("{} {} {}", phrases::article(colour.name()), colour.name(), kind.name())
}

struct Asker<'a> {
    scene: &'a Scene,
    random: Random,
    questions: Vec<Question>,
}

impl Asker<'_> {
    /// Asks in one of the forms; the first is the short one.
    fn ask(&mut self, kind: QuestionKind, forms: &[String], answer: &str) {
        let text = if self.random.chance(0.5) {
            &forms[0]
        } else {
            self.random.pick(&forms.iter().collect::<Vec<_>>())
        };
        self.questions.push(Question {
            kind,
            text: format!("{text}?"),
            answer: answer.to_owned(),
            short: Some(forms[0].clone()),
            guess: kind.guess(),
        });
    }

    fn yes_or_no(&mut self, kind: QuestionKind, forms: &[String], yes: bool) {
        self.ask(kind, forms, if yes { "yes" } else { "no" });
    }

    /// The things in random order.
    fn order(&mut self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.scene.things.len()).collect();
        self.random.shuffle(&mut order);
        order
    }

    fn colours(&mut self) {
        if self.scene.is_counted() {
            let (kind, colour) = (self.scene.things[0].kind, self.scene.things[0].colour);
            let forms = [
                format!("what color are the {}", kind.plural()),
                format!("what is the color of the {}", kind.plural()),
            ];
            self.ask(QuestionKind::Colour, &forms, colour.name());
            return;
        }
        for thing in self.order() {
            let (kind, colour) = (self.scene.things[thing].kind, self.scene.things[thing].colour);
            if self.scene.count(kind) == 1 {
                let forms = [
                    format!("what color is the {}", kind.name()),
                    format!("what is the color of the {}", kind.name()),
                    format!("which color does the {} have", kind.name()),
                ];
                self.ask(QuestionKind::Colour, &forms, colour.name());
            }
        }
    }

    /// A kind that is not there and that nothing there looks like.
    fn absent(&mut self) -> Kind {
        loop {
            let kind = self.random.pick(Kind::ALL);
            if self.scene.count(kind) == 0 && !looks_like(self.scene, kind) {
                return kind;
            }
        }
    }

    fn existence(&mut self) {
        let absent = self.absent();
        let shown = self.order().first().map(|&thing| self.scene.things[thing].kind);
        for (kind, yes) in shown.map(|kind| (kind, true)).into_iter().chain([(absent, false)]) {
            let forms = [
                format!("is there {} {}", phrases::article(kind.name()), kind.name()),
                format!("can you see {} {}", phrases::article(kind.name()), kind.name()),
                format!("are there any {}", kind.plural()),
            ];
            self.yes_or_no(QuestionKind::Exists, &forms, yes);
        }
    }

    fn colour_existence(&mut self) {
        let Some(&thing) = self.order().first() else { return };
        let thing = (self.scene.things[thing].kind, self.scene.things[thing].colour);
        let forms = |(kind, colour): (Kind, Colour)| {
            [
                format!("is there {}", one(colour, kind)),
                format!("can you see {}", one(colour, kind)),
                format!("are there any {} {}", colour.name(), kind.plural()),
            ]
        };
        self.yes_or_no(QuestionKind::ExistsColour, &forms(thing), true);
        let wrong = self.wrong_pair();
        self.yes_or_no(QuestionKind::ExistsColour, &forms(wrong), false);
    }

    /// A kind and a colour that are not there together: often one or both are there apart.
    fn wrong_pair(&mut self) -> (Kind, Colour) {
        loop {
            let (a, b) = (
                self.random.below(self.scene.things.len()),
                self.random.below(self.scene.things.len()),
            );
            let (a, b) = (&self.scene.things[a], &self.scene.things[b]);
            let (kind, colour) = match self.random.below(8) {
                0..4 => (
                    a.kind,
                    if a.colour == b.colour { self.random.pick(Colour::ALL) } else { b.colour },
                ),
                4 | 5 => (a.kind, self.random.pick(Colour::ALL)),
                6 => (self.absent(), a.colour),
                _ => (self.absent(), self.random.pick(Colour::ALL)),
            };
            let shown = self.scene.things.iter().any(|it| (it.kind, it.colour) == (kind, colour));
            if !shown && may_name(self.scene, kind, colour) {
                return (kind, colour);
            }
        }
    }

    fn counts(&mut self) {
        let forms = |kind: Kind| {
            [
                format!("how many {}", kind.plural()),
                format!("how many {} are there", kind.plural()),
                format!("how many {} do you see", kind.plural()),
            ]
        };
        if let Some(&thing) = self.order().first() {
            let (kind, colour) = (self.scene.things[thing].kind, self.scene.things[thing].colour);
            let count = self.scene.count(kind);
            // Ones are the rule: they are asked for less often than other numbers.
            if count > 1 || self.random.chance(0.4) {
                self.ask(QuestionKind::Count, &forms(kind), phrases::NUMBERS[count]);
            }
            if self.scene.is_counted() {
                let forms = [
                    format!("how many {} {}", colour.name(), kind.plural()),
                    format!("how many {} {} are there", colour.name(), kind.plural()),
                ];
                self.ask(QuestionKind::Count, &forms, phrases::NUMBERS[count]);
            }
        }
        let forms_of_all =
            ["how many things", "how many things are there", "how many things do you see"];
        if self.random.chance(0.5) {
            let forms = forms_of_all.map(str::to_owned);
            self.ask(QuestionKind::Count, &forms, phrases::NUMBERS[self.scene.things.len()]);
        }
        if self.random.chance(0.12) {
            let absent = self.absent();
            self.ask(QuestionKind::Count, &forms(absent), phrases::NUMBERS[0]);
        }
    }

    fn relations(&mut self) {
        let mut asked = 0;
        for of in self.order() {
            let mut relations = Relation::ALL.to_vec();
            self.random.shuffle(&mut relations);
            for relation in relations {
                let Some(found) = only_one(self.scene, relation, of) else { continue };
                if asked < 2 {
                    let answer = self.scene.things[found].kind.name();
                    let the = the(self.scene, of);
                    let forms = [true, false].map(|short| {
                        format!("what is {} {the}", phrases::relation(relation, short))
                    });
                    self.ask(QuestionKind::Relation, &forms, answer);
                    asked += 1;
                }
            }
        }
    }

    fn statements(&mut self) {
        if self.scene.is_counted() {
            return;
        }
        let order = self.order();
        let pairs = order.iter().flat_map(|&a| order.iter().map(move |&b| (a, b)));
        let clear = pairs.filter_map(|(a, b)| Some((a, b, self.scene.relation(a, b)?)));
        let clear: Vec<(usize, usize, Relation)> = clear.take(2).collect();
        for (a, b, relation) in clear {
            let yes = self.random.chance(0.5);
            let said = if yes { relation } else { relation.inverse() };
            let (one, other) = (self.scene.things[a].kind, self.scene.things[b].kind);
            // Where the opposite may not be said, the truth is not either: else yes would be the
            // better guess.
            let new = is_held_out_triple(one, relation.inverse(), other);
            if new && !self.scene.has_held_out_combination() {
                continue;
            }
            let (one, other) = (the(self.scene, a), the(self.scene, b));
            let forms = [true, false]
                .map(|short| format!("is {one} {} {other}", phrases::relation(said, short)));
            self.yes_or_no(QuestionKind::TrueFalse, &forms, yes);
        }
    }

    fn what(&mut self) {
        if self.scene.is_counted() {
            return;
        }
        let mut asked = 0;
        for thing in self.order() {
            let colour = self.scene.things[thing].colour;
            let alone = self.scene.things.iter().filter(|it| it.colour == colour).count() == 1;
            if alone && asked < 2 {
                let forms = [
                    format!("what is {}", colour.name()),
                    format!("which thing is {}", colour.name()),
                ];
                self.ask(QuestionKind::What, &forms, self.scene.things[thing].kind.name());
                asked += 1;
            }
        }
    }

    fn setting(&mut self) {
        let forms = ["where is this", "what place is this", "where are we"].map(str::to_owned);
        self.ask(QuestionKind::Setting, &forms, self.scene.setting.name());
    }

    fn matches(&mut self, seed: u64) {
        for round in 0..2 {
            let seed = seed.wrapping_mul(2).wrapping_add(round);
            let (plan, opening) = match self.random.below(4) {
                0 | 1 => (CaptionPlan::canonical(self.scene), "does the picture show"),
                2 => (CaptionPlan::partial(self.scene, seed), "does the picture show"),
                _ => (CaptionPlan::full(self.scene, seed), "is this true:"),
            };
            let edits = edits(self.scene, &plan, seed);
            let Some(edit) = edits.get(self.random.below(edits.len().max(1))) else { continue };
            let truth = plan.render(self.scene);
            let yes = self.random.chance(0.5);
            let caption = if yes { &truth } else { &edit.caption };
            let question = format!("{opening} {}", caption.clause());
            self.yes_or_no(QuestionKind::Match, &[question], yes);
        }
    }
}
