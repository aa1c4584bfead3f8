//! Captions that are false in one fact: the hard negatives of matching.

use std::ops::Range;

use super::{Caption, CaptionPlan, Fact};
use crate::train::scenes::{
    Colour, Kind, Scene, Setting, is_held_out_pair, is_held_out_triple, random::Random,
};

/// Which fact an edit makes false.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EditKind {
    /// A thing has another colour.
    Colour,
    /// A thing is of another kind.
    Kind,
    /// It is somewhere else.
    Setting,
    /// There are more or fewer.
    Count,
    /// Two things of different kinds have exchanged their colours.
    ColourSwap,
    /// A relation is reversed.
    Relation,
}

impl EditKind {
    /// Every one, in the order of `as usize`.
    pub const ALL: &[Self] =
        &[Self::Colour, Self::Kind, Self::Setting, Self::Count, Self::ColourSwap, Self::Relation];
}

/// A caption that is false of the scene it was made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// What is false.
    pub kind: EditKind,
    /// The false caption: the words of the true one but for the fact.
    pub caption: Caption,
    /// Bytes of the caption's text that say it: whole words.
    pub changed: Vec<Range<usize>>,
}

/// Every edit of one fact that the plan's caption states: one for each colour, kind and relation,
/// each pair of colours, the setting and the count. All are false of the scene.
///
/// Where the scene shows no held-out combination, no edit names one, or a model would learn
/// that they are never true.
pub fn edits(scene: &Scene, plan: &CaptionPlan, seed: u64) -> Vec<Edit> {
    let truth = plan.render(scene);
    let editor = Editor { scene, plan, truth: &truth };
    let mut random = Random::new(&[0xED, seed]);
    let mut facts: Vec<Fact> = Vec::new();
    for mention in &truth.mentions {
        if !facts.contains(&mention.fact) {
            facts.push(mention.fact);
        }
    }
    let mut edits = Vec::new();
    for (number, &fact) in facts.iter().enumerate() {
        edits.extend(match fact {
            Fact::Colour(thing) => editor.colour(thing, &mut random),
            Fact::Kind(thing) => editor.kind(thing, &mut random),
            Fact::Setting => editor.setting(&mut random),
            Fact::Count(_) => editor.count(&mut random),
            Fact::Relation(a, b) => editor.relation(a, b),
            Fact::Size(_) | Fact::Time | Fact::Weather | Fact::Nothing => None,
        });
        if let Fact::Colour(a) = fact {
            edits.extend(facts[number + 1..].iter().filter_map(|other| match other {
                Fact::Colour(b) => editor.swap(a, *b),
                _ => None,
            }));
        }
    }
    edits
}

/// A caption that may be false in several facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scrambled {
    /// The false caption: the words of the true one but for colours and a relation.
    pub caption: Caption,
    /// Bytes of the caption's text that are false: whole words.
    pub changed: Vec<Range<usize>>,
}

/// The plan's caption with colours that its things have exchanged or got anew, and every other
/// time with a relation reversed. False of the scene, though not in every fact.
///
/// Of such captions a colour says nothing about the others, and that it is in the picture says
/// next to nothing about whether its thing has it: who judges them has to look at each thing.
///
/// `None` where several things are of one kind, where nothing can be changed, and under the rule
/// of [`edits`] about held-out combinations.
pub fn scrambled(scene: &Scene, plan: &CaptionPlan, seed: u64) -> Option<Scrambled> {
    if scene.things.iter().any(|thing| scene.count(thing.kind) > 1) {
        return None;
    }
    let truth = plan.render(scene);
    let editor = Editor { scene, plan, truth: &truth };
    let mut random = Random::new(&[0x5C, seed]);
    let own: Vec<Colour> = scene.things.iter().map(|thing| thing.colour).collect();
    let related = truth.mentions.iter().find_map(|mention| match mention.fact {
        Fact::Relation(a, b) => Some((a, b)),
        _ => None,
    });
    let related = related.filter(|&(a, b)| editor.may_reverse(a, b));
    (0..TRIES).find_map(|_| {
        let mut edited = scene.clone();
        let mut colours = own.clone();
        if random.chance(0.5) {
            random.shuffle(&mut colours);
        } else {
            for colour in &mut colours {
                if random.chance(0.5) {
                    let choice = if random.chance(0.6) { &own } else { Colour::ALL };
                    *colour = random.pick(choice);
                }
            }
        }
        for (thing, colour) in edited.things.iter_mut().zip(colours) {
            thing.colour = colour;
        }
        let reversed = related.filter(|_| random.chance(0.5));
        let (caption, changed) = editor.falsified(&edited, reversed)?;
        Some(Scrambled { caption, changed })
    })
}

/// Tries to find something false before it gives up.
const TRIES: usize = 40;

struct Editor<'a> {
    scene: &'a Scene,
    plan: &'a CaptionPlan,
    truth: &'a Caption,
}

impl Editor<'_> {
    /// The edit that says what is true of another scene, if that can be used.
    fn edit(
        &self,
        kind: EditKind,
        edited: &Scene,
        reversed: Option<(usize, usize)>,
    ) -> Option<Edit> {
        let (caption, changed) = self.falsified(edited, reversed)?;
        Some(Edit { kind, caption, changed })
    }

    /// What the plan says of another scene, with the words that are others than of this one, if
    /// that is false of this one and can be used.
    fn falsified(
        &self,
        edited: &Scene,
        reversed: Option<(usize, usize)>,
    ) -> Option<(Caption, Vec<Range<usize>>)> {
        let new = edited.has_held_out_combination() && !self.scene.has_held_out_combination();
        let caption = self.plan.render_reversed(edited, reversed);
        let twins = has_twins(edited) && !self.scene.is_counted();
        if new || twins || caption.is_true_of(self.scene) {
            return None;
        }
        let words = |of: &Caption, range: &Range<usize>| of.text[range.clone()].to_owned();
        let pairs = self.truth.mentions.iter().zip(&caption.mentions);
        let changed = pairs
            .filter(|(was, is)| words(self.truth, &was.range) != words(&caption, &is.range))
            .map(|(_, is)| is.range.clone())
            .collect();
        Some((caption, changed))
    }

    /// The edit after a change of the scene that finds what it wants within some tries.
    fn changed(&self, kind: EditKind, mut change: impl FnMut(&mut Scene)) -> Option<Edit> {
        (0..TRIES).find_map(|_| {
            let mut edited = self.scene.clone();
            change(&mut edited);
            self.edit(kind, &edited, None)
        })
    }

    fn colour(&self, thing: usize, random: &mut Random) -> Option<Edit> {
        let (was, counted) = (self.scene.things[thing].colour, self.scene.is_counted());
        self.changed(EditKind::Colour, |edited| {
            // The colour of another thing is the harder mistake to see.
            let other = random.pick(&self.scene.things.iter().collect::<Vec<_>>()).colour;
            let any = random.pick(Colour::ALL);
            let colour = if other != was && random.chance(0.4) { other } else { any };
            for (number, it) in edited.things.iter_mut().enumerate() {
                if counted || number == thing {
                    it.colour = colour;
                }
            }
        })
    }

    fn kind(&self, thing: usize, random: &mut Random) -> Option<Edit> {
        let counted = self.scene.is_counted();
        self.changed(EditKind::Kind, |edited| {
            let mut kind = random.pick(Kind::ALL);
            while self.scene.count(kind) > 0 {
                kind = random.pick(Kind::ALL);
            }
            for (number, it) in edited.things.iter_mut().enumerate() {
                if counted || number == thing {
                    it.kind = kind;
                }
            }
        })
    }

    fn setting(&self, random: &mut Random) -> Option<Edit> {
        self.changed(EditKind::Setting, |edited| edited.setting = random.pick(Setting::ALL))
    }

    fn count(&self, random: &mut Random) -> Option<Edit> {
        self.changed(EditKind::Count, |edited| {
            let first = edited.things[0].clone();
            edited.things.resize(2 + random.below(5), first);
        })
    }

    fn swap(&self, a: usize, b: usize) -> Option<Edit> {
        let mut edited = self.scene.clone();
        if edited.things[a].kind == edited.things[b].kind {
            return None;
        }
        let colour = edited.things[a].colour;
        edited.things[a].colour = edited.things[b].colour;
        edited.things[b].colour = colour;
        self.edit(EditKind::ColourSwap, &edited, None)
    }

    fn relation(&self, a: usize, b: usize) -> Option<Edit> {
        let may = self.may_reverse(a, b);
        may.then(|| self.edit(EditKind::Relation, self.scene, Some((a, b)))).flatten()
    }

    /// Whether there is a relation whose reverse may be named.
    fn may_reverse(&self, a: usize, b: usize) -> bool {
        let (one, other) = (&self.scene.things[a], &self.scene.things[b]);
        self.scene.relation(a, b).is_some_and(|relation| {
            let new = is_held_out_triple(one.kind, relation.inverse(), other.kind);
            !new || self.scene.has_held_out_combination()
        })
    }
}

/// Whether two things have the same kind and colour: "a red car and a red car" is not said.
fn has_twins(scene: &Scene) -> bool {
    let pairs: Vec<_> = scene.things.iter().map(|thing| (thing.kind, thing.colour)).collect();
    pairs.iter().enumerate().any(|(number, pair)| pairs[..number].contains(pair))
}

/// Whether a question or caption about this scene may name a pair that it does not show.
pub(super) fn may_name(scene: &Scene, kind: Kind, colour: Colour) -> bool {
    !is_held_out_pair(kind, colour) || scene.has_held_out_combination()
}
