//! Image-text matching (ITM): pairs against hard negatives, which the contrast takes for pairs.

use candle_core::{DType, Result, Tensor};
use rand::{Rng, rngs::StdRng};

use super::entropy::{accuracy, cross_entropy};
use crate::model::qformer::Pairs;

/// What [`matching`] gives.
#[derive(Debug, Clone)]
pub struct Matching {
    /// Mean cross-entropy over the pairs.
    pub loss: Tensor,
    /// Part of the pairs that are judged right, 0 to 1.
    pub accuracy: f32,
}

impl Matching {
    /// The numbers by name, for a report.
    ///
    /// # Errors
    ///
    /// When the device failed.
    pub fn parts(&self) -> Result<Vec<(&'static str, f32)>> {
        Ok(vec![("itm", self.loss.to_scalar()?), ("itm right", self.accuracy)])
    }
}

/// Whether pairs match: `labels` says it of each, 1 for a match, 0 for none.
///
/// # Errors
///
/// When there are not as many labels as pairs, or one is neither.
pub fn matching(pairs: &Pairs, labels: &[u32]) -> Result<Matching> {
    Ok(Matching {
        loss: cross_entropy(&pairs.logits, labels, 0.0)?,
        accuracy: accuracy(&pairs.logits, labels)?,
    })
}

/// How likely each candidate is to be drawn as a hard negative.
///
/// `similarity` holds for each picture its cosines with all texts, text `i` being its own; they
/// are divided by `temperature`. `same` says of which other pairs `(picture, text)` the text is
/// true as well: those and the own pairs have no weight. Returns the weights of the texts for
/// each picture, and of the pictures for the own text of each; a row sums to 1, or to 0 where
/// nothing can be drawn.
pub fn sampling_weights(
    similarity: &[Vec<f32>],
    temperature: f32,
    same: &dyn Fn(usize, usize) -> bool,
) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let pictures = similarity.len();
    let barred = |picture: usize, text: usize| picture == text || same(picture, text);
    let texts = similarity.iter().enumerate().map(|(picture, row)| {
        let scores = row.iter().enumerate();
        softmax(scores.map(|(text, s)| (!barred(picture, text)).then_some(s / temperature)))
    });
    let images = (0..pictures).map(|text| {
        let scores = similarity.iter().enumerate();
        softmax(scores.map(|(picture, row)| {
            (!barred(picture, text)).then(|| row.get(text).map_or(0.0, |s| s / temperature))
        }))
    });
    (texts.collect(), images.collect())
}

/// Softmax of the scores that there are; the others get nothing.
fn softmax(scores: impl Iterator<Item = Option<f32>>) -> Vec<f64> {
    let scores: Vec<Option<f32>> = scores.collect();
    let top = scores.iter().flatten().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut weights: Vec<f64> =
        scores.iter().map(|s| s.map_or(0.0, |s| f64::from(s - top).exp())).collect();
    let sum: f64 = weights.iter().sum();
    if sum > 0.0 {
        for weight in &mut weights {
            *weight /= sum;
        }
    }
    weights
}

/// A wrong text for each picture and a wrong picture for each text of a batch of pairs; `None`
/// where the batch has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negatives {
    /// For each picture a text that is not its own.
    pub texts: Vec<Option<u32>>,
    /// For the own text of each picture another picture.
    pub pictures: Vec<Option<u32>>,
}

impl Negatives {
    /// Draws by [`sampling_weights`] from `similarity` `(pictures, texts)`; the same generator
    /// in the same state draws the same.
    ///
    /// # Errors
    ///
    /// When `similarity` is no matrix or not finite.
    pub fn draw(
        similarity: &Tensor,
        temperature: f32,
        same: &dyn Fn(usize, usize) -> bool,
        random: &mut StdRng,
    ) -> Result<Self> {
        let similarity = similarity.to_dtype(DType::F32)?.to_vec2::<f32>()?;
        if similarity.iter().flatten().any(|s| !(s / temperature).is_finite()) {
            candle_core::bail!("a similarity that is not finite at the temperature {temperature}");
        }
        let (texts, pictures) = sampling_weights(&similarity, temperature, same);
        let texts = texts.iter().map(|weights| draw(weights, random)).collect();
        Ok(Self { texts, pictures: pictures.iter().map(|weights| draw(weights, random)).collect() })
    }
}

/// A place drawn by weights that sum to 1 or to 0.
fn draw(weights: &[f64], random: &mut StdRng) -> Option<u32> {
    let mut left: f64 = random.random();
    let mut last = None;
    for (at, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        last = Some(at as u32); // what rounding leaves over goes to the last
        left -= weight;
        if left < 0.0 {
            break;
        }
    }
    last
}

/// Pairs to match, as [`RetrievalQFormer::pairs`](crate::model::qformer::RetrievalQFormer::pairs)
/// and [`matching`] take them: the true ones, then each text with a wrong picture, then each
/// picture with a wrong text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Triples {
    /// Picture of each pair.
    pub pictures: Vec<u32>,
    /// Text of each pair.
    pub texts: Vec<u32>,
    /// 1 for a match, 0 for none.
    pub labels: Vec<u32>,
}

impl Triples {
    /// The pairs of a batch with its negatives.
    pub fn new(negatives: &Negatives) -> Self {
        let mut made = Self::default();
        let own = || 0..negatives.texts.len() as u32;
        for i in own() {
            made.push(i, i, 1);
        }
        for (text, picture) in own().zip(&negatives.pictures) {
            if let Some(picture) = *picture {
                made.push(picture, text, 0);
            }
        }
        for (picture, text) in own().zip(&negatives.texts) {
            if let Some(text) = *text {
                made.push(picture, text, 0);
            }
        }
        made
    }

    /// Adds a pair.
    pub fn push(&mut self, picture: u32, text: u32, label: u32) {
        self.pictures.push(picture);
        self.texts.push(text);
        self.labels.push(label);
    }

    /// The ids of each pair's text among `ids`.
    ///
    /// # Errors
    ///
    /// When there is no such text.
    pub fn ids(&self, ids: &[Vec<u32>]) -> Result<Vec<Vec<u32>>> {
        let text = |&at: &u32| {
            ids.get(at as usize).cloned().ok_or_else(|| {
                candle_core::Error::msg(format!("there is no text {at} among {}", ids.len()))
            })
        };
        self.texts.iter().map(text).collect()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};
    use rand::SeedableRng;

    use super::*;

    const SIMILARITY: [[f32; 4]; 3] =
        [[0.9, 0.5, 0.1, 0.7], [0.4, 0.8, 0.6, 0.0], [0.3, 0.2, 0.7, 0.1]];

    fn never(_: usize, _: usize) -> bool {
        false
    }

    fn random(seed: u64) -> StdRng {
        StdRng::seed_from_u64(seed)
    }

    fn similarity() -> Tensor {
        Tensor::new(&SIMILARITY, &Device::Cpu).unwrap()
    }

    #[test]
    fn weights_are_a_softmax_without_the_own_pair() {
        let rows: Vec<Vec<f32>> = SIMILARITY.iter().map(|row| row.to_vec()).collect();
        let (texts, pictures) = sampling_weights(&rows, 0.5, &never);
        let exp = |s: f32| f64::from(s / 0.5).exp();
        assert_eq!(texts[0][0], 0.0);
        let sum = exp(0.5) + exp(0.1) + exp(0.7);
        assert!((texts[0][3] - exp(0.7) / sum).abs() < 1e-6);
        assert_eq!((pictures.len(), pictures[1][1]), (3, 0.0));
        let sum = exp(0.5) + exp(0.2);
        assert!((pictures[1][0] - exp(0.5) / sum).abs() < 1e-6);
        // A text that is true of another picture as well is not drawn for it.
        let (texts, pictures) = sampling_weights(&rows, 0.5, &|p, t| (p, t) == (0, 1));
        assert_eq!((texts[0][1], pictures[1][0]), (0.0, 0.0));
        assert!((pictures[1][2] - 1.0).abs() < 1e-12);
    }

    #[test]
    fn draws_follow_the_weights_and_the_seed() {
        let mut random = random(5);
        let (mut counts, n) = ([0_u32; 4], 20_000);
        for _ in 0..n {
            let drawn = Negatives::draw(&similarity(), 0.5, &never, &mut random).unwrap();
            counts[drawn.texts[0].unwrap() as usize] += 1;
            assert!(drawn.pictures.iter().zip(0..).all(|(p, own)| *p != Some(own)));
        }
        let rows: Vec<Vec<f32>> = SIMILARITY.iter().map(|row| row.to_vec()).collect();
        let (texts, _) = sampling_weights(&rows, 0.5, &never);
        for (count, weight) in counts.iter().zip(&texts[0]) {
            let part = f64::from(*count) / f64::from(n);
            assert!((part - weight).abs() < 0.015, "{part} {weight}");
        }
        let drawn =
            |seed| Negatives::draw(&similarity(), 0.5, &never, &mut self::random(seed)).unwrap();
        assert_eq!(drawn(1), drawn(1));
        assert!((2..20).any(|seed| drawn(seed) != drawn(1)));
    }

    #[test]
    fn the_only_pair_of_a_batch_has_no_negatives() {
        let one = Tensor::new(&[[0.5_f32]], &Device::Cpu).unwrap();
        let drawn = Negatives::draw(&one, 0.1, &never, &mut random(1)).unwrap();
        assert_eq!(drawn, Negatives { texts: vec![None], pictures: vec![None] });
        let expected = Triples { pictures: vec![0], texts: vec![0], labels: vec![1] };
        assert_eq!(Triples::new(&drawn), expected);
        let bad = Tensor::new(&[[f32::NAN]], &Device::Cpu).unwrap();
        assert!(Negatives::draw(&bad, 0.1, &never, &mut random(1)).is_err());
    }

    #[test]
    fn pairs_come_before_their_negatives() {
        let negatives =
            Negatives { texts: vec![Some(2), Some(0)], pictures: vec![Some(1), Some(0)] };
        let triples = Triples::new(&negatives);
        assert_eq!(triples.pictures, [0, 1, 1, 0, 0, 1]);
        assert_eq!(triples.texts, [0, 1, 0, 1, 2, 0]);
        assert_eq!(triples.labels, [1, 1, 0, 0, 0, 0]);
        let ids = triples.ids(&[vec![7], vec![8], vec![9]]).unwrap();
        assert_eq!(ids.concat(), [7, 8, 7, 8, 9, 7]);
        assert!(triples.ids(&[vec![7]]).is_err());
    }

    #[test]
    fn the_loss_falls_with_the_right_logits() {
        let logits = Var::new(&[[0.0_f32, 2.0], [1.0, 0.0], [0.0, 1.0]], &Device::Cpu).unwrap();
        let states = logits.zeros_like().unwrap();
        let pairs =
            Pairs { logits: logits.as_tensor().clone(), queries: states.clone(), text: states };
        let made = matching(&pairs, &[1, 0, 0]).unwrap();
        let loss = |right: f32, wrong: f32| (1.0 + (wrong - right).exp()).ln();
        let expected = (loss(2.0, 0.0) + loss(1.0, 0.0) + loss(0.0, 1.0)) / 3.0;
        assert!((made.loss.to_scalar::<f32>().unwrap() - expected).abs() < 1e-6);
        assert!((made.accuracy - 2.0 / 3.0).abs() < 1e-6);
        assert!(made.loss.backward().unwrap().get(&logits).is_some());
    }
}
