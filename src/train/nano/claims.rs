//! What the words of a sentence beside a picture are asked in training.
//!
//! One bit for a whole sentence does not lead to its false word: a network that may guess takes
//! the sentence for a bag of words. The drawing knows which words are false and which thing a
//! word names, so what binds a fact to its thing is asked step by step, each step one layer after
//! the one that it needs ([`loss`]): the name of a thing knows what the sentence states of it,
//! finds the thing, and judges; the queries, which ITM reads, see that one layer later.

use std::ops::Range;

use candle_core::{Module, Result, Tensor};

use super::heads::{HeadSpec, cross_entropy, hits};
use crate::{
    model::{layers::Linear, weights::Weights},
    train::scenes::{Caption, Colour, Fact, Relation, Scene},
};

/// Weight of what a sentence does not state.
const SILENT: f64 = 0.3;
/// Weight of a box.
const BOX: f64 = 2.0;
/// Weight of whether a word is false, asked of all words.
const TRUTH: f64 = 0.5;
/// Weight of what is asked before the last layer, but for judgements.
const EARLY: f64 = 0.5;
/// Outputs for a stated colour and a stated relation, each with one for none.
const STATED: [usize; 2] = [Colour::ALL.len() + 1, Relation::ALL.len() + 1];
/// Outputs for whether a word is false, and for colour and box of the thing that it names.
const FOUND: [usize; 3] = [2, Colour::ALL.len(), 4];
/// Outputs for whether a claim is false, for how the things stand to each other in truth, and for
/// the other thing's box.
const JUDGED: [usize; 3] = [2, Relation::ALL.len(), 4];

/// The heads of [`loss`], below `prefix`, for words of width `hidden`.
pub fn heads(prefix: &str, hidden: usize) -> Vec<HeadSpec> {
    let outputs = [
        ("stated", STATED.iter().sum()),
        ("found", FOUND.iter().sum()),
        ("word_before", FOUND.iter().sum()),
        ("claim_before", JUDGED.iter().sum()),
        ("word", FOUND.iter().sum()),
        ("claim", JUDGED.iter().sum()),
    ];
    outputs.map(|(name, outputs)| HeadSpec::linear(prefix, name, hidden, outputs)).to_vec()
}

/// A sentence beside a picture.
#[derive(Debug, Clone, Copy)]
pub struct Sentence<'a> {
    /// Number of the scene.
    pub picture: usize,
    /// What is said.
    pub caption: &'a Caption,
    /// Its words that are false; `None` where that is not known, and nothing is asked.
    pub wrong: Option<&'a [Range<usize>]>,
}

/// A loss with numbers to show.
#[derive(Debug)]
pub struct ClaimLoss {
    /// The scalar to minimise.
    pub total: Tensor,
    /// Percentage of stated colours that the names of things know half-way.
    pub stated: f32,
    /// Percentage of stated relations that they know there.
    pub relations: f32,
    /// Percentage of things whose name knows their colour beside a false one, a layer later.
    pub named: f32,
    /// Percentage of things whose name knows, beside a false relation, the true one.
    pub sides: f32,
    /// Percentage of things of which something false is claimed where their name tells.
    pub lies: f32,
    /// Percentage of the others where it tells nothing false.
    pub truths: f32,
}

/// The loss of text states `(sentences, longest, hidden)`, `layers` after each layer but the
/// last one, `text` after that.
///
/// Three layers before the last a word is asked what its sentence states, one later which thing
/// it names, in the last two what is false.
///
/// # Errors
///
/// When there are fewer than four layers or shapes do not fit.
pub fn loss(
    w: &Weights,
    layers: &[Tensor],
    text: &Tensor,
    sentences: &[Sentence<'_>],
    scenes: &[Scene],
) -> Result<ClaimLoss> {
    let [.., half_way, later, before] = layers else {
        candle_core::bail!("{} layers are too few", layers.len() + 1)
    };
    let targets = Targets::of(sentences, scenes, text.dim(1)?);
    let (stated, colours, relations) = stated(&w.pp("stated"), half_way, &targets)?;
    let found = found(&w.pp("found"), later, &targets, false)?;
    let word_before = self::found(&w.pp("word_before"), before, &targets, true)?.0;
    let judged_before = judged(&w.pp("claim_before"), before, &targets)?.total;
    let word = self::found(&w.pp("word"), text, &targets, true)?.0;
    let judged = judged(&w.pp("claim"), text, &targets)?;
    let early = (((stated + &found.0)? + word_before)? * EARLY)?;
    Ok(ClaimLoss {
        total: (((early + word)? + judged_before)? + judged.total)?,
        stated: colours,
        relations,
        named: found.1,
        sides: judged.sides,
        lies: judged.lies,
        truths: judged.truths,
    })
}

/// What is asked at each word; `u32::MAX` where nothing is.
struct Targets {
    /// Which words are true, and which false.
    true_words: Vec<u32>,
    false_words: Vec<u32>,
    /// Colours and boxes of the things that are named, and the colours of those that are given a
    /// false one.
    own_colours: Vec<u32>,
    hidden_colours: Vec<u32>,
    own_boxes: Boxes,
    /// What is stated of them.
    colours: Vec<u32>,
    no_colours: Vec<u32>,
    relations: Vec<u32>,
    no_relations: Vec<u32>,
    /// Whether that is so.
    truths: Vec<u32>,
    lies: Vec<u32>,
    /// How they stand to those to which something relates them, and where these are.
    sides: Vec<u32>,
    hidden_sides: Vec<u32>,
    other_boxes: Boxes,
}

/// Boxes `(x, y, width, height)` at some places, in parts of the picture.
struct Boxes {
    values: Vec<f32>,
    mask: Vec<f32>,
}

impl Boxes {
    fn none(places: usize) -> Self {
        Self { values: vec![0.0; 4 * places], mask: vec![0.0; places] }
    }

    /// The box of a thing, if it is the only one of its kind: the name does not tell another.
    fn set(&mut self, at: usize, scene: &Scene, thing: usize) {
        let thing = &scene.things[thing];
        if scene.count(thing.kind) == 1 {
            let own = [thing.x, thing.y, thing.width, thing.height];
            self.values[4 * at..4 * at + 4].copy_from_slice(&own);
            self.mask[at] = 1.0;
        }
    }

    /// Mean error of `said`, `(places, 4)`.
    fn off(&self, said: &Tensor) -> Result<Tensor> {
        let places = self.mask.len();
        let count = 4.0 * f64::from(self.mask.iter().sum::<f32>().max(1.0));
        let tensor = |values: &[f32], width: usize| {
            Tensor::from_slice(values, (places, width), said.device())?.to_dtype(said.dtype())
        };
        let (values, mask) = (tensor(&self.values, 4)?, tensor(&self.mask, 1)?);
        (said - values)?.abs()?.broadcast_mul(&mask)?.sum_all()? / count
    }
}

impl Targets {
    /// For sentences of at most `longest` tokens, the first of which is no word.
    fn of(sentences: &[Sentence<'_>], scenes: &[Scene], longest: usize) -> Self {
        let places = sentences.len() * longest;
        let silent = || vec![u32::MAX; places];
        let mut targets = Self {
            true_words: silent(),
            false_words: silent(),
            own_colours: silent(),
            hidden_colours: silent(),
            own_boxes: Boxes::none(places),
            colours: silent(),
            no_colours: silent(),
            relations: silent(),
            no_relations: silent(),
            truths: silent(),
            lies: silent(),
            sides: silent(),
            hidden_sides: silent(),
            other_boxes: Boxes::none(places),
        };
        for (row, sentence) in sentences.iter().enumerate() {
            let Some(wrong) = sentence.wrong else { continue };
            let scene = &scenes[sentence.picture];
            let words = word_ranges(&sentence.caption.text);
            for (number, word) in words.iter().enumerate().take(longest - 1) {
                let at = row * longest + number + 1;
                if overlap(wrong, word) {
                    targets.false_words[at] = 1;
                    continue;
                }
                targets.true_words[at] = 0;
                let mention = sentence.caption.mentions.iter().find(|it| it.range == *word);
                if let Some(Fact::Kind(thing)) = mention.map(|it| it.fact)
                    && thing < scene.things.len()
                {
                    targets.ask(at, sentence.caption, wrong, scene, thing);
                }
            }
        }
        targets
    }

    /// Asks the word at `at`, the name of a thing, for all that concerns it.
    fn ask(
        &mut self,
        at: usize,
        caption: &Caption,
        wrong: &[Range<usize>],
        scene: &Scene,
        thing: usize,
    ) {
        let own = scene.things[thing].colour;
        self.own_colours[at] = own as u32;
        self.own_boxes.set(at, scene, thing);
        match caption.stated_colour(thing) {
            Some(colour) => self.colours[at] = colour as u32,
            None => self.no_colours[at] = Colour::ALL.len() as u32,
        }
        if caption.stated_colour(thing).is_some_and(|colour| colour != own) {
            self.hidden_colours[at] = own as u32;
        }
        let about = |fact: Fact| match fact {
            Fact::Kind(it) | Fact::Colour(it) | Fact::Count(it) | Fact::Size(it) => it == thing,
            Fact::Relation(a, b) => a == thing || b == thing,
            Fact::Setting | Fact::Time | Fact::Weather | Fact::Nothing => false,
        };
        let said: Vec<_> = caption.mentions.iter().filter(|it| about(it.fact)).collect();
        let is_related = said.iter().any(|it| matches!(it.fact, Fact::Relation(..)));
        match caption.stated_relation(thing) {
            Some((relation, other)) => {
                self.relations[at] = relation as u32;
                let side = scene.relation(thing, other);
                self.sides[at] = side.map_or(u32::MAX, |side| side as u32);
                if side != Some(relation) {
                    self.hidden_sides[at] = self.sides[at];
                }
                self.other_boxes.set(at, scene, other);
            }
            None if !is_related => self.no_relations[at] = Relation::ALL.len() as u32,
            None => {}
        }
        // Of two things of a kind the name does not tell which is meant.
        if scene.count(scene.things[thing].kind) == 1 || scene.is_counted() {
            if said.iter().any(|it| overlap(wrong, &it.range)) {
                self.lies[at] = 1;
            } else {
                self.truths[at] = 0;
            }
        }
    }
}

/// Whether one of `ranges` has a byte of `range`.
fn overlap(ranges: &[Range<usize>], range: &Range<usize>) -> bool {
    ranges.iter().any(|it| it.start < range.end && range.start < it.end)
}

/// The states of all words through a head, cut into its outputs, `(words, outputs)` each.
fn through<const N: usize>(
    head: &Weights,
    text: &Tensor,
    outputs: [usize; N],
) -> Result<[Tensor; N]> {
    let (rows, longest, hidden) = text.dims3()?;
    let flat = text.contiguous()?.reshape((rows * longest, hidden))?;
    let said = Linear::load(head, hidden, outputs.iter().sum())?.forward(&flat)?;
    let mut cut = outputs.map(|_| said.clone());
    let mut at = 0;
    for (part, width) in cut.iter_mut().zip(outputs) {
        *part = said.narrow(1, at, width)?.contiguous()?;
        at += width;
    }
    Ok(cut)
}

/// What is stated: the loss, and the percentages of colours and relations.
fn stated(head: &Weights, text: &Tensor, targets: &Targets) -> Result<(Tensor, f32, f32)> {
    let [colour, relation] = through(head, text, STATED)?;
    let said = (cross_entropy(&colour, &targets.colours)?
        + cross_entropy(&relation, &targets.relations)?)?;
    let silent = (cross_entropy(&colour, &targets.no_colours)?
        + cross_entropy(&relation, &targets.no_relations)?)?;
    let total = (said + (silent * SILENT)?)?;
    Ok((total, hits(&colour, &targets.colours)?, hits(&relation, &targets.relations)?))
}

/// Which thing a word names and, with `judge`, whether the word is false: the loss, and the
/// percentage of colours beside a false one.
fn found(head: &Weights, text: &Tensor, targets: &Targets, judge: bool) -> Result<(Tensor, f32)> {
    let [truth, colour, own_box] = through(head, text, FOUND)?;
    let mut total = cross_entropy(&colour, &targets.own_colours)?;
    total = (total + (targets.own_boxes.off(&own_box)? * BOX)?)?;
    if judge {
        let said = (cross_entropy(&truth, &targets.true_words)?
            + cross_entropy(&truth, &targets.false_words)?)?;
        total = (total + (said * TRUTH)?)?;
    }
    Ok((total, hits(&colour, &targets.hidden_colours)?))
}

struct Judged {
    total: Tensor,
    sides: f32,
    lies: f32,
    truths: f32,
}

/// What is false of a thing.
fn judged(head: &Weights, text: &Tensor, targets: &Targets) -> Result<Judged> {
    let [truth, side, other] = through(head, text, JUDGED)?;
    let said = (cross_entropy(&truth, &targets.truths)? + cross_entropy(&truth, &targets.lies)?)?;
    let seen = (cross_entropy(&side, &targets.sides)? + (targets.other_boxes.off(&other)? * BOX)?)?;
    Ok(Judged {
        total: (said + seen)?,
        sides: hits(&side, &targets.hidden_sides)?,
        lies: hits(&truth, &targets.lies)?,
        truths: hits(&truth, &targets.truths)?,
    })
}

/// The words and marks of `text`, each of which is one token of the closed vocabulary.
pub(super) fn word_ranges(text: &str) -> Vec<Range<usize>> {
    let mut words: Vec<Range<usize>> = Vec::new();
    let mut open = false;
    for (at, c) in text.char_indices() {
        if c.is_alphanumeric() {
            match words.last_mut() {
                Some(last) if open => last.end = at + c.len_utf8(),
                _ => words.push(at..at + c.len_utf8()),
            }
            open = true;
        } else {
            open = false;
            if !c.is_whitespace() {
                words.push(at..at + c.len_utf8());
            }
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::scenes::{CaptionPlan, EditKind, Split, edits};

    fn targets(scene: &Scene, caption: &Caption, wrong: &[Range<usize>]) -> Targets {
        let sentences = [Sentence { picture: 0, caption, wrong: Some(wrong) }];
        Targets::of(&sentences, std::slice::from_ref(scene), 64)
    }

    /// Places of the words that name each thing.
    fn names(caption: &Caption, thing: usize) -> Vec<usize> {
        let words = word_ranges(&caption.text);
        let own = caption.mentions.iter().filter(|it| it.fact == Fact::Kind(thing));
        own.map(|it| 1 + words.iter().position(|word| *word == it.range).unwrap()).collect()
    }

    fn pairs() -> impl Iterator<Item = Scene> {
        let scenes = (0..400).map(|index| Scene::generate(Split::Train, index));
        scenes.filter(|it| it.things.len() == 2 && it.things[0].kind != it.things[1].kind)
    }

    #[test]
    fn a_swapped_colour_is_a_lie_at_the_name_of_its_thing() {
        let mut seen = 0;
        for (seed, scene) in pairs().enumerate() {
            let plan = CaptionPlan::full(&scene, seed as u64);
            let caption = plan.render(&scene);
            let truth = targets(&scene, &caption, &[]);
            for edit in edits(&scene, &plan, seed as u64) {
                if edit.kind != EditKind::ColourSwap {
                    continue;
                }
                let swapped = targets(&scene, &edit.caption, &edit.changed);
                for thing in 0..2 {
                    for at in names(&edit.caption, thing) {
                        seen += 1;
                        let (own, other) = (&scene.things[thing], &scene.things[1 - thing]);
                        assert_eq!(truth.colours[at], own.colour as u32, "{}", caption.text);
                        assert_eq!((truth.truths[at], truth.lies[at]), (0, u32::MAX));
                        assert_eq!(swapped.colours[at], other.colour as u32);
                        assert_eq!((swapped.truths[at], swapped.lies[at]), (u32::MAX, 1));
                        // What it says of their places is true as before.
                        assert_eq!(truth.relations[at], swapped.relations[at]);
                    }
                }
            }
        }
        assert!(seen > 40, "{seen}");
    }

    #[test]
    fn each_of_two_things_has_its_own_side_of_a_relation() {
        let mut seen = 0;
        for (seed, scene) in pairs().enumerate() {
            let plan = CaptionPlan::full(&scene, seed as u64);
            let truth = targets(&scene, &plan.render(&scene), &[]);
            for edit in edits(&scene, &plan, seed as u64) {
                if edit.kind != EditKind::Relation {
                    continue;
                }
                let turned = targets(&scene, &edit.caption, &edit.changed);
                for thing in 0..2 {
                    let relation = scene.relation(thing, 1 - thing).unwrap();
                    for at in names(&plan.render(&scene), thing) {
                        seen += 1;
                        assert_eq!((truth.relations[at], truth.truths[at]), (relation as u32, 0));
                        assert_eq!(truth.other_boxes.values[4 * at], scene.things[1 - thing].x);
                        assert_eq!(truth.other_boxes.mask[at], 1.0);
                    }
                    for at in names(&edit.caption, thing) {
                        assert_eq!(turned.relations[at], relation.inverse() as u32);
                        assert_eq!(turned.hidden_sides[at], relation as u32);
                        assert_eq!(turned.lies[at], 1);
                    }
                }
            }
        }
        assert!(seen > 40, "{seen}");
    }

    #[test]
    fn nothing_is_asked_of_what_is_not_named_or_not_known() {
        let scene = pairs().next().unwrap();
        let caption = Caption { text: "a beach".to_owned(), mentions: Vec::new() };
        let silent = |targets: Targets| {
            let all = [targets.colours, targets.no_colours, targets.truths, targets.lies];
            all.concat().iter().all(|&it| it == u32::MAX)
        };
        assert!(silent(targets(&scene, &caption, &[])));
        let said = CaptionPlan::canonical(&scene).render(&scene);
        assert!(!silent(targets(&scene, &said, &[])));
        let sentence = Sentence { picture: 0, caption: &said, wrong: None };
        assert!(silent(Targets::of(&[sentence], &[scene], 64)));
    }

    #[test]
    fn words_and_marks_are_found() {
        let text = "a red car, and 2 cups.";
        let words: Vec<&str> = word_ranges(text).into_iter().map(|range| &text[range]).collect();
        assert_eq!(words, ["a", "red", "car", ",", "and", "2", "cups", "."]);
    }
}
