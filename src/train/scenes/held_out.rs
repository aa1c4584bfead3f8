//! What is kept out of training, so that a model's binding can be told from its memory.

use super::{
    graph::{Relation, Scene, Split},
    names::{Colour, Kind, Style},
    random,
};

/// Held-out combinations in a thousand.
const PER_MILLE: u64 = 80;

/// Whether things of this kind are never seen in this colour in training.
///
/// A fixed set of about 8 % of all pairs, chosen by a hash.
pub fn is_held_out_pair(kind: Kind, colour: Colour) -> bool {
    random::seed(&[0xC0, kind as u64, colour as u64]) % 1000 < PER_MILLE
}

/// Whether a thing of kind `a` is never seen in this relation to one of kind `b` in training.
///
/// A fixed set of about 8 % of all triples, chosen by a hash. "`a` left of `b`" and "`b` right
/// of `a`" are one triple.
pub fn is_held_out_triple(a: Kind, relation: Relation, b: Kind) -> bool {
    let (a, relation, b) = match relation {
        Relation::LeftOf | Relation::Above => (a, relation, b),
        Relation::RightOf | Relation::Below => (b, relation.inverse(), a),
    };
    random::seed(&[0xC1, a as u64, relation as u64, b as u64]) % 1000 < PER_MILLE
}

impl Scene {
    /// Whether it shows a pair or a triple that is never seen in training.
    pub fn has_held_out_combination(&self) -> bool {
        let pair = self.things.iter().any(|thing| is_held_out_pair(thing.kind, thing.colour));
        pair || (!self.is_counted() && self.has_held_out_triple())
    }

    fn has_held_out_triple(&self) -> bool {
        let count = self.things.len();
        (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b))).any(|(a, b)| {
            self.relation(a, b).is_some_and(|relation| {
                is_held_out_triple(self.things[a].kind, relation, self.things[b].kind)
            })
        })
    }
}

impl Split {
    /// Whether a scene may stand in this split.
    pub fn admits(self, scene: &Scene) -> bool {
        let (new_style, new_pair) =
            (scene.style == Style::HELD_OUT, scene.has_held_out_combination());
        match self {
            Self::Train | Self::Test => !new_style && !new_pair,
            Self::Combinations => !new_style && new_pair,
            Self::Style => new_style && !new_pair,
        }
    }
}
