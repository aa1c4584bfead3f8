//! The second half of stage 0: all losses of BLIP-2's first stage together, with set prediction
//! kept and with every word of a sentence told whether it is true.
//!
//! ITM alone does not learn to compare a sentence with a picture fact by fact: one bit for a
//! whole sentence is too little. So words are asked what they claim and whether it is so
//! ([`claims`]), and the set that the queries are asked for half-way up gives them something to
//! tell the words there.
//!
//! The tower rests from here on: the language model, which goes on from the same queries, sees
//! what it saw before.

use std::ops::Range;

use candle_core::{DType, Module, Result as TensorResult, Tensor};
use rand::{SeedableRng, rngs::StdRng};

use super::{
    claims::{self, Sentence},
    heads::{HeadSpec, hits},
    pictures::Pictures,
    queries::HEADS,
    set,
    words::{Said, Words},
};
use crate::{
    model::{
        config::{RetrievalConfig, VisionConfig},
        eva_vit::EvaVit,
        qformer::RetrievalQFormer,
        weights::Weights,
    },
    train::{
        Result, ShardLoss, Task,
        objectives::{Negatives, WordHead, contrastive, matching, next_words, temperature},
        scenes::{Caption, EditKind, Scene, Split},
    },
};

/// Weight of ITG.
const GENERATION: f64 = 0.3;

/// The heads that this stage adds.
pub fn heads(config: &RetrievalConfig) -> Vec<HeadSpec> {
    claims::heads(HEADS, config.qformer.hidden)
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
    /// What was falsified, if it was one fact.
    edit: Option<EditKind>,
}

/// The sentence of each picture that stands against the other pictures.
///
/// People look for photos with few words: every other one says something of its picture, unless
/// that is true of another picture too.
fn own<'a>(said: &'a [Said], scenes: &[Scene]) -> Vec<&'a Caption> {
    let choose = |(picture, said): (usize, &'a Said)| {
        let mut others = scenes.iter().enumerate().filter(|(i, _)| *i != picture);
        let alone = others.all(|(_, scene)| !said.second.is_true_of(scene));
        if picture.is_multiple_of(2) && alone { &said.second } else { &said.first }
    };
    said.iter().enumerate().map(choose).collect()
}

/// True sentences in two wordings, each with a fact wrong, the first one with several wrong, and
/// one of another picture, whose numbers `others` gives.
fn pairs<'a>(said: &'a [Said], own: &[&'a Caption], others: &[Option<u32>]) -> Vec<Pair<'a>> {
    let mut pairs = Vec::new();
    for (picture, (said, other)) in said.iter().zip(others).enumerate() {
        let mut push = |caption, wrong, label, edit| {
            pairs.push(Pair { picture, caption, wrong, label, edit });
        };
        push(&said.first, Some(&[][..]), 1, None);
        push(&said.second, Some(&[]), 1, None);
        for edit in said.edit.iter().chain(&said.second_edit) {
            push(&edit.caption, Some(&edit.changed), 0, Some(edit.kind));
        }
        if let Some(scrambled) = &said.scrambled {
            push(&scrambled.caption, Some(&scrambled.changed), 0, None);
        }
        if let Some(other) = other {
            push(own[*other as usize], None, 0, None);
        }
    }
    pairs
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
        let (queries, layers) = set::with_layers(|tap| qformer.query_tapped(&seen, tap))?;
        let (set, early) = set::deep_set_loss(&weights.pp(HEADS), &layers, &pictures.scenes)?;

        let said = self.words.said(&pictures.scenes, start);
        let ids = |captions: &[&Caption]| -> Vec<Vec<u32>> {
            captions.iter().map(|caption| self.words.ids(&caption.text)).collect()
        };
        let whole: Vec<&Caption> = said.iter().map(|said| &said.first).collect();
        let own = own(&said, &pictures.scenes);
        let edited: Vec<&Caption> =
            said.iter().filter_map(|said| said.edit.as_ref()).map(|edit| &edit.caption).collect();
        let all: Vec<&Caption> = own.iter().chain(&edited).copied().collect();
        let features = qformer.text_features(&ids(&all))?;
        let temperature = temperature(&w)?.clamp(0.01, 0.5)?;
        let images = qformer.project(&queries.hidden)?;
        let contrast = contrastive(&images, &features, &temperature, 0.0)?;

        let mut random = StdRng::seed_from_u64(start);
        let similarity = contrast.similarity.narrow(1, 0, own.len())?;
        let heat = temperature.detach().to_vec1::<f32>()?[0];
        let same = |picture: usize, text: usize| own[text].is_true_of(&pictures.scenes[picture]);
        let negatives = Negatives::draw(&similarity, heat, &same, &mut random)?;
        let pairs = pairs(&said, &own, &negatives.texts);
        let of: Vec<u32> = pairs.iter().map(|pair| pair.picture as u32).collect();
        let texts: Vec<&Caption> = pairs.iter().map(|pair| pair.caption).collect();
        let labels: Vec<u32> = pairs.iter().map(|pair| pair.label).collect();
        let texts = ids(&texts);
        let (judged, mut layers) =
            set::with_layers(|tap| qformer.pairs_tapped(&seen, &of, &texts, tap))?;
        // What the words are after each layer but the last.
        layers.pop();
        let count = self.retrieval.qformer.queries;
        let texts = layers.iter().map(|states| states.narrow(1, count, states.dim(1)? - count));
        let texts = texts.collect::<TensorResult<Vec<Tensor>>>()?;
        let matched = matching(&judged, &labels)?;
        let refused = |kind: EditKind| {
            let of = |p: &Pair<'_>| if p.edit == Some(kind) { 0 } else { u32::MAX };
            hits(&judged.logits, &pairs.iter().map(of).collect::<Vec<_>>())
        };
        let truths: Vec<u32> =
            labels.iter().map(|&label| if label == 1 { 1 } else { u32::MAX }).collect();
        let accepted = hits(&judged.logits, &truths)?;
        let sentences: Vec<Sentence<'_>> = pairs
            .iter()
            .map(|p| Sentence { picture: p.picture, caption: p.caption, wrong: p.wrong })
            .collect();
        let claims =
            claims::loss(&weights.pp(HEADS), &texts, &judged.text, &sentences, &pictures.scenes)?;

        let head = WordHead::load(&self.retrieval, &w)?;
        let all: Vec<u32> = (0..own.len() as u32).collect();
        let decode = self.retrieval.vocabulary as u32 - 1;
        let next = next_words(&qformer, &head, &queries, &all, &ids(&whole), decode, 0.0)?;

        let total = ((&set.total + &contrast.loss)? + &matched.loss)?;
        let total = ((total + &claims.total)? + (&next.loss * GENERATION)?)?;
        let value = |t: &Tensor| t.to_dtype(DType::F32)?.to_scalar::<f32>();
        let parts = vec![
            ("set", value(&set.total)?),
            ("pairs%", set.pairs),
            ("early%", early),
            ("itc", value(&contrast.loss)?),
            ("first%", 100.0 * contrast.text_accuracy),
            ("itm", value(&matched.loss)?),
            ("itm%", 100.0 * matched.accuracy),
            ("accepted%", accepted),
            ("swaps%", refused(EditKind::ColourSwap)?),
            ("turned%", refused(EditKind::Relation)?),
            ("stated%", claims.stated),
            ("relations%", claims.relations),
            ("named%", claims.named),
            ("sides%", claims.sides),
            ("lies%", claims.lies),
            ("truths%", claims.truths),
            ("itg", value(&next.loss)?),
        ];
        Ok(ShardLoss { total, parts })
    }
}
