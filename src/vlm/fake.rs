//! A model that needs no weights: it sees colours and nothing else.

use std::{thread, time::Duration};

use tinyfind_index::{ContentHash, Features, Matrix, ModelSpec};

use super::{Question, Result, Vlm, VlmError};
use crate::decode::DecodedImage;

/// The colours it knows, by the names it uses for them.
const PALETTE: [(&str, [u8; 3]); 11] = [
    ("black", [0, 0, 0]),
    ("white", [255, 255, 255]),
    ("grey", [128, 128, 128]),
    ("red", [220, 20, 20]),
    ("orange", [250, 140, 10]),
    ("yellow", [250, 230, 30]),
    ("green", [30, 160, 40]),
    ("cyan", [40, 210, 220]),
    ("blue", [30, 50, 220]),
    ("purple", [130, 30, 160]),
    ("pink", [250, 130, 190]),
];

/// Length of an image-text vector.
const EMBEDDING_DIM: usize = 64;

/// The longest side, in pixels, that a visual token can tell.
const LONGEST_SIDE: f32 = 4096.0;

/// How often a [`FakeVlm`] was asked, and for how much.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// Calls of [`Vlm::embed_images`].
    pub embed_batches: usize,
    /// Pictures in them.
    pub embedded: usize,
    /// Calls of [`Vlm::caption`].
    pub caption_batches: usize,
    /// Photos in them.
    pub captioned: usize,
    /// Calls of [`Vlm::embed_queries`].
    pub query_batches: usize,
    /// Questions answered.
    pub answered: usize,
}

/// A small, deterministic stand-in for a model, for tests and demonstrations.
///
/// It counts the pixels of each colour of a small palette. A picture's first vector is the
/// sum of its colours' vectors, its second that of its strongest colour alone; a query's
/// vector is the sum of its words' vectors, so `red` finds red pictures. Visual tokens are the colour shares and
/// the picture's size, from which captions (`a red and blue picture, 32 x 32 pixels`) and
/// answers are made; they survive storage in 8 bits.
#[derive(Debug, Clone)]
pub struct FakeVlm {
    spec: ModelSpec,
    input_size: u32,
    embed_batch: usize,
    caption_batch: usize,
    delay: Duration,
    embeds_left: Option<usize>,
    captions_left: Option<usize>,
    calls: Calls,
}

impl FakeVlm {
    /// A model that looks at pictures of `input_size` by `input_size` pixels.
    pub fn new(input_size: u32) -> Self {
        Self {
            spec: ModelSpec {
                name: "fake".into(),
                fingerprint: ContentHash::of(b"tinyfind fake model 1").to_hex(),
                embedding_rows: 2,
                embedding_dim: EMBEDDING_DIM,
                token_rows: 2,
                token_dim: PALETTE.len(),
            },
            input_size,
            embed_batch: 4,
            caption_batch: 16,
            delay: Duration::ZERO,
            embeds_left: None,
            captions_left: None,
            calls: Calls::default(),
        }
    }

    /// The same, asking for batches of these sizes.
    #[must_use]
    pub fn with_batches(mut self, embed: usize, caption: usize) -> Self {
        (self.embed_batch, self.caption_batch) = (embed, caption);
        self
    }

    /// The same, taking this long for each batch of pictures or captions.
    #[must_use]
    pub fn with_delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// The same, refusing any batch after it has embedded this many pictures.
    #[must_use]
    pub fn failing_after_embedding(mut self, pictures: usize) -> Self {
        self.embeds_left = Some(pictures);
        self
    }

    /// The same, refusing any batch after it has captioned this many photos.
    #[must_use]
    pub fn failing_after_captioning(mut self, photos: usize) -> Self {
        self.captions_left = Some(photos);
        self
    }

    /// What it was asked so far.
    pub fn calls(&self) -> Calls {
        self.calls
    }
}

impl Default for FakeVlm {
    /// A model that looks at 32 by 32 pixels.
    fn default() -> Self {
        Self::new(32)
    }
}

impl Vlm for FakeVlm {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn input_size(&self) -> u32 {
        self.input_size
    }

    fn embed_batch(&self) -> usize {
        self.embed_batch
    }

    fn caption_batch(&self) -> usize {
        self.caption_batch
    }

    fn embed_images(&mut self, images: &[DecodedImage]) -> Result<Vec<Features>> {
        spend(&mut self.embeds_left, images.len())?;
        thread::sleep(self.delay);
        self.calls.embed_batches += 1;
        self.calls.embedded += images.len();
        Ok(images.iter().map(features).collect())
    }

    fn embed_queries(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        self.calls.query_batches += 1;
        Ok(texts
            .iter()
            .map(|text| {
                let mut sum = vec![0.0; EMBEDDING_DIM];
                for word in words(text) {
                    add(&mut sum, &word_vector(&word), 1.0);
                }
                unit(sum)
            })
            .collect())
    }

    fn caption(&mut self, visual_tokens: &[&Matrix]) -> Result<Vec<String>> {
        spend(&mut self.captions_left, visual_tokens.len())?;
        thread::sleep(self.delay);
        self.calls.caption_batches += 1;
        self.calls.captioned += visual_tokens.len();
        Ok(visual_tokens.iter().map(|tokens| caption(tokens)).collect())
    }

    fn answer(&mut self, questions: &[Question<'_>]) -> Result<Vec<String>> {
        self.calls.answered += questions.len();
        Ok(questions
            .iter()
            .map(|question| match named_share(question.visual_tokens, question.question) {
                Some(share) if share > 0.25 => "yes".into(),
                Some(_) => "no".into(),
                None => strongest(question.visual_tokens).0.into(),
            })
            .collect())
    }

    fn match_probability(
        &mut self,
        visual_tokens: &[&Matrix],
        statement: &str,
    ) -> Result<Vec<f32>> {
        Ok(visual_tokens
            .iter()
            .map(|tokens| named_share(tokens, statement).unwrap_or(0.5).clamp(0.0, 1.0))
            .collect())
    }
}

/// Takes `count` from a budget, or fails when it does not hold that much.
fn spend(left: &mut Option<usize>, count: usize) -> Result<()> {
    if let Some(left) = left {
        *left = left
            .checked_sub(count)
            .ok_or_else(|| VlmError::new("the fake model was told to fail here"))?;
    }
    Ok(())
}

/// Vectors and tokens of one picture.
fn features(image: &DecodedImage) -> Features {
    let mut counts = [0_usize; PALETTE.len()];
    for pixel in image.rgb.chunks_exact(3) {
        let distance = |colour: &[u8; 3]| -> i32 {
            colour.iter().zip(pixel).map(|(&a, &b)| (i32::from(a) - i32::from(b)).pow(2)).sum()
        };
        let nearest = (0..PALETTE.len()).min_by_key(|&i| distance(&PALETTE[i].1));
        counts[nearest.unwrap_or_default()] += 1;
    }
    let pixels = (image.rgb.len() / 3).max(1) as f32;
    let shares = counts.map(|count| count as f32 / pixels);

    let mut size = [0.0; PALETTE.len()];
    size[0] = image.width as f32 / LONGEST_SIDE;
    size[1] = image.height as f32 / LONGEST_SIDE;
    let visual_tokens = Matrix::new(2, PALETTE.len(), [shares, size].concat());

    let mut all = vec![0.0; EMBEDDING_DIM];
    for ((name, _), share) in PALETTE.iter().zip(shares) {
        add(&mut all, &word_vector(name), share);
    }
    let rows = [unit(all), unit(word_vector(strongest(&visual_tokens).0))];
    Features { embedding: Matrix::new(2, EMBEDDING_DIM, rows.concat()), visual_tokens }
}

/// The colour with the largest share, and the next one.
fn strongest(tokens: &Matrix) -> (&'static str, (&'static str, f32)) {
    let shares = tokens.row(0);
    let mut order: Vec<usize> = (0..PALETTE.len()).collect();
    order.sort_by(|&a, &b| shares[b].total_cmp(&shares[a]));
    (PALETTE[order[0]].0, (PALETTE[order[1]].0, shares[order[1]]))
}

fn caption(tokens: &Matrix) -> String {
    let (first, (second, share)) = strongest(tokens);
    let colours = if share > 0.2 { format!("{first} and {second}") } else { first.into() };
    let pixels = |i: usize| (tokens.row(1)[i] * LONGEST_SIDE).round();
    let article = if first.starts_with('o') { "an" } else { "a" };
    format!("{article} {colours} picture, {} x {} pixels", pixels(0), pixels(1))
}

/// Share of the picture that has a colour named in `text`, or `None` where none is named.
fn named_share(tokens: &Matrix, text: &str) -> Option<f32> {
    let named: Vec<f32> = words(text)
        .filter_map(|word| PALETTE.iter().position(|(name, _)| *name == word))
        .map(|i| tokens.row(0)[i])
        .collect();
    (!named.is_empty()).then(|| named.iter().sum())
}

fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
}

/// A vector of numbers between -1 and 1 that every word has for itself.
fn word_vector(word: &str) -> Vec<f32> {
    let signs = ContentHash::of(word.as_bytes()).0;
    (0..EMBEDDING_DIM)
        .map(|i| f32::from(signs[i % 32].rotate_left((i / 32) as u32) as i8) / 128.0)
        .collect()
}

fn add(sum: &mut [f32], vector: &[f32], weight: f32) {
    for (sum, value) in sum.iter_mut().zip(vector) {
        *sum += weight * value;
    }
}

/// The vector at unit length; the first axis where it has none.
fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length < 1e-6 {
        vector.fill(0.0);
        vector[0] = 1.0;
    } else {
        for value in &mut vector {
            *value /= length;
        }
    }
    vector
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(colour: [u8; 3]) -> DecodedImage {
        DecodedImage { width: 8, height: 6, rgb: colour.repeat(48) }
    }

    #[test]
    fn a_word_finds_the_picture_of_its_colour() {
        let mut model = FakeVlm::default();
        let pictures = [plain([200, 10, 10]), plain([10, 20, 200]), plain([20, 150, 30])];
        let features = model.embed_images(&pictures).unwrap();
        let query = &model.embed_queries(&["a blue thing"]).unwrap()[0];
        let score = |features: &Features| -> f32 {
            (0..features.embedding.rows)
                .map(|row| features.embedding.row(row).iter().zip(query).map(|(a, b)| a * b).sum())
                .fold(f32::MIN, f32::max)
        };
        assert!(score(&features[1]) > score(&features[0]) + 0.1);
        assert!(score(&features[1]) > score(&features[2]) + 0.1);
    }

    #[test]
    fn captions_and_answers_name_the_colour_and_the_size() {
        let mut model = FakeVlm::default();
        let features = model.embed_images(&[plain([240, 225, 20])]).unwrap();
        let tokens = &features[0].visual_tokens;
        assert_eq!(model.caption(&[tokens]).unwrap(), ["a yellow picture, 8 x 6 pixels"]);
        let ask = |question| Question { visual_tokens: tokens, history: &[], question };
        let questions = ["What colour is it?", "Is it yellow?", "Is it red?"].map(ask);
        assert_eq!(model.answer(&questions).unwrap(), ["yellow", "yes", "no"]);
        assert_eq!(model.match_probability(&[tokens], "yellow").unwrap(), [1.0]);
        assert_eq!(
            model.calls(),
            Calls {
                embed_batches: 1,
                embedded: 1,
                caption_batches: 1,
                captioned: 1,
                answered: 3,
                ..Calls::default()
            }
        );
    }

    #[test]
    fn vectors_have_unit_length_and_the_sizes_of_the_spec() {
        let mut model = FakeVlm::default();
        let features = model.embed_images(&[plain([1, 2, 3])]).unwrap().remove(0);
        let spec = model.spec();
        assert_eq!(features.embedding.rows, spec.embedding_rows);
        assert_eq!(features.embedding.dim, spec.embedding_dim);
        assert_eq!(features.visual_tokens.rows, spec.token_rows);
        assert_eq!(features.visual_tokens.dim, spec.token_dim);
        for row in 0..features.embedding.rows {
            let square: f32 = features.embedding.row(row).iter().map(|value| value * value).sum();
            assert!((square - 1.0).abs() < 1e-5);
        }
    }
}
