//! Who is evaluated.

use rayon::prelude::*;
use tinyfind_index::{Features, Matrix};

use crate::decode::DecodedImage;
use crate::model::TinyGptV;
use crate::model::tinygptv::ImageEncoding;
use crate::train::scenes::{Caption, Question, Scene};
use crate::vlm::{self, Result, Vlm as _, VlmError};

/// Texts that are read at a time.
const TEXTS: usize = 64;

/// Somebody who looks at pictures and is asked about them.
///
/// Pictures are named by their number, in the order in which they were shown. Results come in
/// the order of what was asked, one each. Captions and questions come with what is known of
/// them, for judges that have no eyes; [`ModelJudge`] reads their text only.
pub trait Judge {
    /// Forgets the pictures that it saw before.
    fn begin(&mut self);

    /// Looks at the pictures of these scenes, which take the next numbers.
    ///
    /// # Errors
    ///
    /// Those of the model.
    fn look(&mut self, scenes: &[Scene]) -> Result<()>;

    /// Image-text similarity: a row for each caption, with a value for each picture. Greater is
    /// more alike.
    ///
    /// # Errors
    ///
    /// Those of the model.
    fn itc(&mut self, pictures: &[usize], captions: &[&Caption]) -> Result<Vec<Vec<f32>>>;

    /// Image-text matching of each pair. Greater is a better match; only the order counts.
    ///
    /// # Errors
    ///
    /// Those of the model.
    fn itm(&mut self, pairs: &[(usize, &Caption)]) -> Result<Vec<f32>>;

    /// Probability, 0 to 1, that the language model takes each caption for true of its picture.
    ///
    /// # Errors
    ///
    /// Those of the model.
    fn match_probability(&mut self, pairs: &[(usize, &Caption)]) -> Result<Vec<f32>>;

    /// A caption for each picture.
    ///
    /// # Errors
    ///
    /// Those of the model.
    fn caption(&mut self, pictures: &[usize]) -> Result<Vec<String>>;

    /// An answer to each question about its picture.
    ///
    /// # Errors
    ///
    /// Those of the model.
    fn answer(&mut self, questions: &[(usize, &Question)]) -> Result<Vec<String>>;
}

/// A bundle as its users meet it: pictures become features once, and everything but ITM, which
/// looks at the picture again, is told from those.
#[derive(Debug)]
pub struct ModelJudge<'a> {
    model: &'a mut TinyGptV,
    scenes: Vec<Scene>,
    features: Vec<Features>,
}

impl<'a> ModelJudge<'a> {
    /// A judge that saw nothing yet.
    pub fn new(model: &'a mut TinyGptV) -> Self {
        Self { model, scenes: Vec::new(), features: Vec::new() }
    }

    /// The pictures of scenes, as large as the model wants them.
    fn draw(&self, scenes: &[&Scene]) -> Vec<DecodedImage> {
        let side = self.model.input_size();
        scenes.par_iter().map(|scene| scene.draw(side, side)).collect()
    }

    fn features(&self, picture: usize) -> Result<&Features> {
        let missing = || VlmError::new(format!("picture {picture} was not looked at"));
        self.features.get(picture).ok_or_else(missing)
    }

    fn visual_tokens(&self, pictures: impl Iterator<Item = usize>) -> Result<Vec<Matrix>> {
        pictures.map(|picture| Ok(self.features(picture)?.visual_tokens.clone())).collect()
    }
}

/// The greatest cosine of a text's vector and a picture's, all of unit length.
fn similarity(embedding: &Matrix, text: &[f32]) -> f32 {
    let dot = |row: &[f32]| row.iter().zip(text).map(|(a, b)| a * b).sum::<f32>();
    (0..embedding.rows).map(|row| dot(embedding.row(row))).fold(f32::NEG_INFINITY, f32::max)
}

impl Judge for ModelJudge<'_> {
    fn begin(&mut self) {
        self.scenes.clear();
        self.features.clear();
    }

    fn look(&mut self, scenes: &[Scene]) -> Result<()> {
        for batch in scenes.chunks(self.model.embed_batch().max(1)) {
            let pictures = self.draw(&batch.iter().collect::<Vec<_>>());
            self.features.extend(self.model.embed_images(&pictures)?);
        }
        self.scenes.extend_from_slice(scenes);
        Ok(())
    }

    fn itc(&mut self, pictures: &[usize], captions: &[&Caption]) -> Result<Vec<Vec<f32>>> {
        let texts: Vec<&str> = captions.iter().map(|caption| caption.text.as_str()).collect();
        let mut vectors = Vec::with_capacity(texts.len());
        for batch in texts.chunks(TEXTS) {
            vectors.extend(self.model.embed_queries(batch)?);
        }
        let looked_at = pictures
            .iter()
            .map(|&picture| Ok(&self.features(picture)?.embedding))
            .collect::<Result<Vec<&Matrix>>>()?;
        let row = |text: &Vec<f32>| looked_at.iter().map(|seen| similarity(seen, text)).collect();
        Ok(vectors.par_iter().map(row).collect())
    }

    fn itm(&mut self, pairs: &[(usize, &Caption)]) -> Result<Vec<f32>> {
        let mut scores = Vec::with_capacity(pairs.len());
        let groups: Vec<&[(usize, &Caption)]> = pairs.chunk_by(|a, b| a.0 == b.0).collect();
        for batch in groups.chunks(self.model.embed_batch().max(1)) {
            let scenes = batch
                .iter()
                .map(|group| {
                    let missing = || VlmError::new("a picture was not looked at");
                    self.scenes.get(group[0].0).ok_or_else(missing)
                })
                .collect::<Result<Vec<&Scene>>>()?;
            let pictures = self.draw(&scenes);
            let encoding = self.model.encode_image(&pictures)?;
            for (row, group) in batch.iter().enumerate() {
                let retrieval = encoding.retrieval.as_ref();
                let retrieval = retrieval.map(|vit| vit.narrow(0, row, 1)).transpose()?;
                let one = ImageEncoding { retrieval, captioner: None };
                for texts in group.chunks(TEXTS) {
                    scores.extend(match_logits(self.model, &one, texts)?);
                }
            }
        }
        Ok(scores)
    }

    fn match_probability(&mut self, pairs: &[(usize, &Caption)]) -> Result<Vec<f32>> {
        let mut probabilities = Vec::with_capacity(pairs.len());
        for batch in pairs.chunks(self.model.caption_batch().max(1)) {
            let tokens = self.visual_tokens(batch.iter().map(|pair| pair.0))?;
            let statements: Vec<&str> =
                batch.iter().map(|(_, caption)| caption.text.as_str()).collect();
            let tokens: Vec<&Matrix> = tokens.iter().collect();
            probabilities.extend(self.model.match_probabilities(&tokens, &statements)?);
        }
        Ok(probabilities)
    }

    fn caption(&mut self, pictures: &[usize]) -> Result<Vec<String>> {
        let mut captions = Vec::with_capacity(pictures.len());
        for batch in pictures.chunks(self.model.caption_batch().max(1)) {
            let tokens = self.visual_tokens(batch.iter().copied())?;
            captions.extend(self.model.caption(&tokens.iter().collect::<Vec<_>>())?);
        }
        Ok(captions)
    }

    fn answer(&mut self, questions: &[(usize, &Question)]) -> Result<Vec<String>> {
        let mut answers = Vec::with_capacity(questions.len());
        for batch in questions.chunks(self.model.caption_batch().max(1)) {
            let tokens = self.visual_tokens(batch.iter().map(|question| question.0))?;
            let asked: Vec<vlm::Question<'_>> = batch
                .iter()
                .zip(&tokens)
                .map(|((_, question), visual_tokens)| vlm::Question {
                    visual_tokens,
                    history: &[],
                    question: &question.text,
                })
                .collect();
            answers.extend(self.model.answer(&asked)?);
        }
        Ok(answers)
    }
}

/// The logit of a match above that of none, for each text and the one picture of `encoding`.
fn match_logits(
    model: &mut TinyGptV,
    encoding: &ImageEncoding,
    texts: &[(usize, &Caption)],
) -> Result<Vec<f32>> {
    let texts: Vec<&str> = texts.iter().map(|(_, caption)| caption.text.as_str()).collect();
    let logits = model.itm(encoding, &texts)?.get(0)?.to_vec2::<f32>()?;
    Ok(logits.iter().map(|pair| pair[1] - pair[0]).collect())
}
