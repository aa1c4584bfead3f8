//! The second half of stage 0: all losses of BLIP-2's first stage together, with set prediction
//! kept and with every word of a sentence told whether it is true.
//!
//! ITM alone does not learn to compare a sentence with a picture fact by fact: one bit for a
//! whole sentence is too little. The drawing knows which words an edit made false, and which
//! thing a word means, so each word of a pair is asked for both. The tower rests from here on:
//! the language model, which goes on from the same queries, sees what it saw before.

use std::ops::Range;

use candle_core::{DType, Module, Result as TensorResult, Tensor};
use rand::{SeedableRng, rngs::StdRng};

use super::{
    heads::{HeadSpec, cross_entropy, hits},
    pictures::Pictures,
    queries::HEADS,
    set,
    words::Words,
};
use crate::{
    model::{
        config::{RetrievalConfig, VisionConfig},
        eva_vit::EvaVit,
        layers::Linear,
        qformer::RetrievalQFormer,
        weights::Weights,
    },
    train::{
        Result, ShardLoss, Task,
        objectives::{Negatives, WordHead, contrastive, matching, next_words, temperature},
        scenes::{Caption, Colour, Fact, Scene, Split},
    },
};

/// Weight of the words.
const WORDS: f64 = 1.0;
/// Weight of ITG.
const GENERATION: f64 = 0.3;
/// Weight of a named thing's box.
const BOX: f64 = 2.0;

/// The heads that this stage adds.
pub fn heads(config: &RetrievalConfig) -> Vec<HeadSpec> {
    let outputs = 2 + Colour::ALL.len() + 4;
    vec![HeadSpec::linear(HEADS, "word", config.qformer.hidden, outputs)]
}

/// ITC, ITM and ITG with set prediction and words.
#[derive(Debug)]
pub struct MatchingTask {
    /// Sizes of the tower.
    pub vision: VisionConfig,
    /// Sizes of the retrieval Q-Former.
    pub retrieval: RetrievalConfig,
    /// Words of sentences.
    pub words: Words,
    /// Pictures of a shard.
    pub batch: usize,
    /// Shards of a step.
    pub shards: usize,
    /// Number of the run's first picture.
    pub first: u64,
}

/// A sentence with a picture.
struct Pair<'a> {
    picture: usize,
    caption: &'a Caption,
    /// Words of the caption that are false; `None` where that is not known.
    wrong: Option<&'a [Range<usize>]>,
    label: u32,
}

impl Task for MatchingTask {
    fn loss(&self, weights: &Weights, step: u64, shard: usize) -> Result<ShardLoss> {
        let start = self.first + (step * self.shards as u64 + shard as u64) * self.batch as u64;
        let pictures = Pictures::draw(Split::Train, start, self.batch);
        let vit = EvaVit::load(&self.vision, &weights.pp("vit"))?;
        let tokens = vit.forward(&pictures.pixels(weights.device(), weights.dtype())?)?;

        let w = weights.pp("retrieval");
        let qformer = RetrievalQFormer::load(&self.retrieval, self.vision.width, &w)?;
        let seen = qformer.see(&tokens)?;
        let queries = qformer.query(&seen)?;
        let set = set::set_loss(&weights.pp(HEADS), &queries.hidden, &pictures.scenes)?;

        let said = self.words.said(&pictures.scenes, start);
        let ids = |captions: &[&Caption]| -> Vec<Vec<u32>> {
            captions.iter().map(|caption| self.words.ids(&caption.text)).collect()
        };
        let whole: Vec<&Caption> = said.iter().map(|said| &said.first).collect();
        // People look for photos with few words: every other picture stands against a sentence
        // that says something of it, unless that is true of another picture too.
        let own: Vec<&Caption> = said
            .iter()
            .enumerate()
            .map(|(picture, said)| {
                let mut others = pictures.scenes.iter().enumerate().filter(|(i, _)| *i != picture);
                let alone = others.all(|(_, scene)| !said.second.is_true_of(scene));
                if picture.is_multiple_of(2) && alone { &said.second } else { &said.first }
            })
            .collect();
        let edited: Vec<&Caption> =
            said.iter().filter_map(|said| said.edit.as_ref()).map(|edit| &edit.caption).collect();
        let all: Vec<&Caption> = own.iter().chain(&edited).copied().collect();
        let features = qformer.text_features(&ids(&all))?;
        let temperature = temperature(&w)?.clamp(0.01, 0.5)?;
        let images = qformer.project(&queries.hidden)?;
        let contrast = contrastive(&images, &features, &temperature, 0.0)?;

        // True sentences in two wordings, each with a fact wrong, one of another picture.
        let mut random = StdRng::seed_from_u64(start);
        let similarity = contrast.similarity.narrow(1, 0, own.len())?;
        let heat = temperature.detach().to_vec1::<f32>()?[0];
        let same = |picture: usize, text: usize| own[text].is_true_of(&pictures.scenes[picture]);
        let negatives = Negatives::draw(&similarity, heat, &same, &mut random)?;
        let mut pairs = Vec::new();
        for (picture, said) in said.iter().enumerate() {
            let mut push = |caption, wrong, label| {
                pairs.push(Pair { picture, caption, wrong, label });
            };
            push(&said.first, Some(&[][..]), 1);
            push(&said.second, Some(&[]), 1);
            for edit in said.edit.iter().chain(&said.second_edit) {
                push(&edit.caption, Some(&edit.changed), 0);
            }
            if let Some(other) = negatives.texts[picture] {
                push(own[other as usize], None, 0);
            }
        }
        let of: Vec<u32> = pairs.iter().map(|pair| pair.picture as u32).collect();
        let texts: Vec<&Caption> = pairs.iter().map(|pair| pair.caption).collect();
        let labels: Vec<u32> = pairs.iter().map(|pair| pair.label).collect();
        let texts = ids(&texts);
        let judged = qformer.pairs(&seen, &of, &texts)?;
        let matched = matching(&judged, &labels)?;
        let edits: Vec<u32> = pairs
            .iter()
            .map(|p| if p.wrong.is_some_and(|w| !w.is_empty()) { 0 } else { u32::MAX })
            .collect();
        let words = word_loss(&weights.pp(HEADS), &judged.text, &pairs, &pictures.scenes)?;

        let head = WordHead::load(&self.retrieval, &w)?;
        let all: Vec<u32> = (0..own.len() as u32).collect();
        let decode = self.retrieval.vocabulary as u32 - 1;
        let next = next_words(&qformer, &head, &queries, &all, &ids(&whole), decode, 0.0)?;

        let total = ((&set.total + &contrast.loss)? + &matched.loss)?;
        let total = ((total + (&words.total * WORDS)?)? + (&next.loss * GENERATION)?)?;
        let value = |t: &Tensor| t.to_dtype(DType::F32)?.to_scalar::<f32>();
        let parts = vec![
            ("set", value(&set.total)?),
            ("pairs%", set.pairs),
            ("exact%", set.exact),
            ("itc", value(&contrast.loss)?),
            ("first%", 100.0 * contrast.text_accuracy),
            ("itm", value(&matched.loss)?),
            ("itm%", 100.0 * matched.accuracy),
            ("edits%", hits(&judged.logits, &edits)?),
            ("false%", words.found),
            ("named%", words.named),
            ("itg", value(&next.loss)?),
        ];
        Ok(ShardLoss { total, parts })
    }
}

/// What words say.
struct WordLoss {
    total: Tensor,
    /// Percentage of false words that are taken for false.
    found: f32,
    /// Percentage of things whose name says their colour.
    named: f32,
}

/// The losses of the text states `(pairs, longest, hidden)`: whether each word is false, and at
/// the name of a thing its colour and box.
fn word_loss(
    w: &Weights,
    text: &Tensor,
    pairs: &[Pair<'_>],
    scenes: &[Scene],
) -> TensorResult<WordLoss> {
    let (rows, longest, hidden) = text.dims3()?;
    let colours = Colour::ALL.len();
    let flat = text.contiguous()?.reshape((rows * longest, hidden))?;
    let said = Linear::load(&w.pp("word"), hidden, 2 + colours + 4)?.forward(&flat)?;
    let places = rows * longest;
    let (mut truths, mut lies) = (vec![u32::MAX; places], vec![u32::MAX; places]);
    let (mut own_colours, mut boxes) = (vec![u32::MAX; places], vec![0.0_f32; 4 * places]);
    let mut mask = vec![0.0_f32; places];
    for (row, pair) in pairs.iter().enumerate() {
        let Some(wrong) = pair.wrong else { continue };
        let overlaps = |word: &Range<usize>| {
            wrong.iter().any(|range| range.start < word.end && word.start < range.end)
        };
        let scene = &scenes[pair.picture];
        for (at, word) in word_ranges(&pair.caption.text).iter().enumerate() {
            let place = row * longest + at + 1;
            if at + 1 >= longest {
                break;
            }
            if overlaps(word) {
                lies[place] = 1;
                continue;
            }
            truths[place] = 0;
            let named = pair.caption.mentions.iter().find(|m| m.range == *word);
            let Some(Fact::Kind(thing)) = named.map(|m| m.fact) else { continue };
            let Some(own) = scene.things.get(thing) else { continue };
            own_colours[place] = own.colour as u32;
            if scene.count(own.kind) == 1 {
                boxes[4 * place..4 * place + 4]
                    .copy_from_slice(&[own.x, own.y, own.width, own.height]);
                mask[place] = 1.0;
            }
        }
    }
    let judged = said.narrow(1, 0, 2)?.contiguous()?;
    let colour = said.narrow(1, 2, colours)?.contiguous()?;
    let place = said.narrow(1, 2 + colours, 4)?;
    let boxes = Tensor::from_vec(boxes, (places, 4), w.device())?.to_dtype(place.dtype())?;
    let count = 4.0 * f64::from(mask.iter().sum::<f32>().max(1.0));
    let mask = Tensor::from_vec(mask, (places, 1), w.device())?.to_dtype(place.dtype())?;
    let off = ((place - boxes)?.abs()?.broadcast_mul(&mask)?.sum_all()? / count)?;
    let truth = (cross_entropy(&judged, &truths)? + cross_entropy(&judged, &lies)?)?;
    let total = ((truth * 0.5)? + cross_entropy(&colour, &own_colours)?)?;
    Ok(WordLoss {
        total: (total + (off * BOX)?)?,
        found: hits(&judged, &lies)?,
        named: hits(&colour, &own_colours)?,
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

    #[test]
    fn words_and_marks_are_found() {
        let text = "a red car, and 2 cups.";
        let words: Vec<&str> = word_ranges(text).into_iter().map(|range| &text[range]).collect();
        assert_eq!(words, ["a", "red", "car", ",", "and", "2", "cups", "."]);
    }
}
