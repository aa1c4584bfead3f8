//! The Q-Formers: learned queries that look at the ViT's tokens, alone (captioning) or beside
//! a text (retrieval).
//!
//! A BERT whose even layers hold a cross-attention for the queries, and whose feed-forward part
//! exists twice: `_query` for the queries, plain for text. Source: LAVIS `Qformer.py`,
//! `blip2_qformer.py` and `blip2_image_text_matching.py`.

mod stack;
mod training;

use std::ops::Range;

use candle_core::{D, Module, Result, Tensor};

use crate::model::{
    config::{QFormerConfig, RetrievalConfig},
    kernels::Visible,
    layers::{LayerNorm, Linear, Tap},
    weights::{RowTable, Weights},
};
use stack::{Pass, Pictures, Stack};
pub use training::{Pairs, Queries, Seen};

/// Shortest length that a vector is divided by, as in torch's `normalize`.
const NORMALIZE_EPS: f64 = 1e-12;

/// Captioning side: queries only.
#[derive(Debug)]
pub struct QFormer {
    image: ImageSide,
    stack: Stack,
}

impl QFormer {
    /// Reads `ln_vision.*`, `query_tokens` and the query side of `Qformer.*` below `w`
    /// (`captioner` or `retrieval` in a bundle), for ViT tokens of width `encoder_width`.
    ///
    /// # Errors
    ///
    /// When a tensor is missing or of another shape.
    pub fn load(config: &QFormerConfig, encoder_width: usize, w: &Weights) -> Result<Self> {
        Ok(Self {
            image: ImageSide::load(config, encoder_width, w)?,
            stack: Stack::load(config, w, Some(encoder_width), false)?,
        })
    }

    /// Visual tokens `(batch, queries, hidden)` of ViT tokens `(batch, tokens, encoder_width)`.
    ///
    /// # Errors
    ///
    /// When the ViT tokens are of another width.
    pub fn forward_image(&self, vit: &Tensor) -> Result<Tensor> {
        self.forward_image_tapped(vit, &mut Tap::none())
    }

    /// As [`QFormer::forward_image`], showing `ln_vision`, `qformer.embeddings`,
    /// `qformer.layer0.{self,cross}` and so on, `qformer.layer0` and so on.
    ///
    /// # Errors
    ///
    /// As [`QFormer::forward_image`].
    pub fn forward_image_tapped(&self, vit: &Tensor, tap: &mut Tap<'_>) -> Result<Tensor> {
        self.image.forward(&self.stack, vit, tap)
    }
}

/// Retrieval, both sides: image features, text features, image-text matching.
#[derive(Debug)]
pub struct RetrievalQFormer {
    image: ImageSide,
    text: TextTower,
    vision_proj: Linear,
    itm_head: Linear,
}

impl RetrievalQFormer {
    /// Reads everything below `w` (`retrieval` in a bundle) but the word and position tables,
    /// which stay in the file, for ViT tokens of width `encoder_width`.
    ///
    /// # Errors
    ///
    /// When a tensor is missing or of another shape.
    pub fn load(config: &RetrievalConfig, encoder_width: usize, w: &Weights) -> Result<Self> {
        let hidden = config.qformer.hidden;
        Ok(Self {
            image: ImageSide::load(&config.qformer, encoder_width, w)?,
            text: TextTower::load_sides(config, w, Some(encoder_width))?,
            vision_proj: Linear::load(&w.pp("vision_proj"), hidden, config.projection)?,
            itm_head: Linear::load(&w.pp("itm_head"), hidden, 2)?,
        })
    }

    /// Queries `(batch, queries, hidden)` before they are projected.
    ///
    /// # Errors
    ///
    /// When the ViT tokens are of another width.
    pub fn forward_image_tapped(&self, vit: &Tensor, tap: &mut Tap<'_>) -> Result<Tensor> {
        self.image.forward(&self.text.stack, vit, tap)
    }

    /// Image features `(batch, queries, projection)` of ViT tokens
    /// `(batch, tokens, encoder_width)`: one vector of unit length for each query.
    ///
    /// # Errors
    ///
    /// When the ViT tokens are of another width.
    pub fn image_features(&self, vit: &Tensor) -> Result<Tensor> {
        self.project(&self.forward_image_tapped(vit, &mut Tap::none())?)
    }

    /// Image features of what [`RetrievalQFormer::forward_image_tapped`] gives.
    ///
    /// # Errors
    ///
    /// When `queries` are of another width.
    pub fn project(&self, queries: &Tensor) -> Result<Tensor> {
        unit_rows(&self.vision_proj.forward(queries)?)
    }

    /// The text side.
    pub fn text(&self) -> &TextTower {
        &self.text
    }

    /// Text features; see [`TextTower::text_features`].
    ///
    /// # Errors
    ///
    /// As [`TextTower::text_features`].
    pub fn text_features(&self, ids: &[Vec<u32>]) -> Result<Tensor> {
        self.text.text_features(ids)
    }

    /// Image-text matching: logits `(pairs, 2)` for no match and match.
    ///
    /// `vit` is `(pairs, tokens, encoder_width)`, or `(1, ..)` for one picture and many texts;
    /// `ids` holds a text for each pair. The logits are the mean over the queries.
    ///
    /// # Errors
    ///
    /// When there are neither as many pictures as texts nor a single picture, or a text is
    /// empty or too long.
    pub fn itm(&self, vit: &Tensor, ids: &[Vec<u32>]) -> Result<Tensor> {
        self.itm_tapped(vit, ids, &mut Tap::none())
    }

    /// As [`RetrievalQFormer::itm`], showing `qformer.last_hidden`: queries, then text.
    ///
    /// # Errors
    ///
    /// As [`RetrievalQFormer::itm`].
    pub fn itm_tapped(&self, vit: &Tensor, ids: &[Vec<u32>], tap: &mut Tap<'_>) -> Result<Tensor> {
        let pictures = vit.dim(0)?;
        if pictures != 1 && pictures != ids.len() {
            candle_core::bail!("matching {pictures} pictures with {} texts", ids.len());
        }
        let encoded = self.image.norm.forward(vit)?;
        let xs = self.joint(Pictures::Tokens(&encoded), ids, tap)?;
        self.matched(&xs.narrow(1, 0, self.image.queries()?)?)
    }

    /// Queries and text together, `(pairs, queries + longest, hidden)`.
    fn joint(&self, pictures: Pictures<'_>, ids: &[Vec<u32>], tap: &mut Tap<'_>) -> Result<Tensor> {
        let queries = self.image.queries()?;
        let words = self.text.embed(ids)?;
        let tokens = self.image.query_tokens.repeat((ids.len(), 1, 1))?;
        let hidden = padding(ids, words.dim(1)?, queries);
        let pass = Pass { queries, pictures, visible: unpadded(&hidden), before: None };
        self.text.stack.forward(&Tensor::cat(&[&tokens, &words], 1)?, pass, tap)
    }

    /// Logits `(pairs, 2)` of the queries `(pairs, queries, hidden)` of a joint pass.
    fn matched(&self, queries: &Tensor) -> Result<Tensor> {
        self.itm_head.forward(queries)?.mean(1)
    }
}

/// Text side of the retrieval Q-Former: a BERT without cross-attention.
///
/// It reads nothing of the image side, and of the word table only the rows it needs.
#[derive(Debug)]
pub struct TextTower {
    words: RowTable,
    positions: RowTable,
    stack: Stack,
    proj: Linear,
}

impl TextTower {
    /// Reads the text side below `w` (`retrieval` in a bundle).
    ///
    /// # Errors
    ///
    /// When a tensor is missing or of another shape.
    pub fn load(config: &RetrievalConfig, w: &Weights) -> Result<Self> {
        Self::load_sides(config, w, None)
    }

    fn load_sides(
        config: &RetrievalConfig,
        w: &Weights,
        encoder_width: Option<usize>,
    ) -> Result<Self> {
        let hidden = config.qformer.hidden;
        let embeddings = w.pp("Qformer.bert.embeddings");
        Ok(Self {
            words: embeddings.rows(config.vocabulary, hidden, "word_embeddings.weight")?,
            positions: embeddings.rows(config.positions, hidden, "position_embeddings.weight")?,
            stack: Stack::load(&config.qformer, w, encoder_width, true)?,
            proj: Linear::load(&w.pp("text_proj"), hidden, config.projection)?,
        })
    }

    /// Text features `(texts, projection)`, each of unit length, of texts as ids with `[CLS]`
    /// and `[SEP]`. Texts of different lengths may stand together.
    ///
    /// # Errors
    ///
    /// When there is no text, or one is empty or longer than the position table.
    pub fn text_features(&self, ids: &[Vec<u32>]) -> Result<Tensor> {
        self.text_features_tapped(ids, &mut Tap::none())
    }

    /// As [`TextTower::text_features`], showing `qformer.last_hidden`.
    ///
    /// # Errors
    ///
    /// As [`TextTower::text_features`].
    pub fn text_features_tapped(&self, ids: &[Vec<u32>], tap: &mut Tap<'_>) -> Result<Tensor> {
        let xs = self.embed(ids)?;
        let hidden = padding(ids, xs.dim(1)?, 0);
        let pass = Pass { visible: unpadded(&hidden), ..Pass::default() };
        let xs = self.stack.forward(&xs, pass, tap)?;
        let first = xs.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?;
        unit_rows(&self.proj.forward(&first)?)
    }

    /// Word and position vectors `(texts, longest, hidden)`, before the norm; short texts are
    /// padded on the right.
    fn embed(&self, ids: &[Vec<u32>]) -> Result<Tensor> {
        let longest = ids.iter().map(Vec::len).max().unwrap_or(0);
        if ids.iter().any(Vec::is_empty) || longest == 0 {
            candle_core::bail!("a text without tokens has no features");
        }
        let padded: Vec<u32> = ids
            .iter()
            .flat_map(|ids| ids.iter().copied().chain(std::iter::repeat(0)).take(longest))
            .collect();
        let places: Vec<u32> = (0..longest as u32).collect();
        let words = self.words.gather(&padded)?.reshape((ids.len(), longest, self.words.dim()))?;
        words.broadcast_add(&self.positions.gather(&places)?)
    }
}

/// Similarity `(images, texts)` of image features `(images, queries, n)` and text features
/// `(texts, n)`: the greatest cosine over the queries.
///
/// # Errors
///
/// When the shapes do not fit.
pub fn itc(image_features: &Tensor, text_features: &Tensor) -> Result<Tensor> {
    let (images, queries, n) = image_features.dims3()?;
    let flat = image_features.reshape((images * queries, n))?;
    flat.matmul(&text_features.t()?)?.reshape((images, queries, ()))?.max(1)
}

/// The places of the padding behind each text, `before` places standing before the texts.
fn padding(ids: &[Vec<u32>], longest: usize, before: usize) -> Vec<Range<usize>> {
    ids.iter().map(|ids| before + ids.len()..before + longest).collect()
}

/// Everything but the padding `hidden`.
fn unpadded(hidden: &[Range<usize>]) -> Visible<'_> {
    let padded = hidden.iter().any(|range| !range.is_empty());
    Visible { causal: false, hidden: padded.then_some(hidden) }
}

/// Divides each vector of the last dimension by its length.
fn unit_rows(xs: &Tensor) -> Result<Tensor> {
    let length = xs.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?.maximum(NORMALIZE_EPS)?;
    xs.broadcast_div(&length)
}

/// What stands between the ViT and the queries.
#[derive(Debug)]
struct ImageSide {
    norm: LayerNorm,
    /// `(1, queries, hidden)`.
    query_tokens: Tensor,
}

impl ImageSide {
    fn load(config: &QFormerConfig, encoder_width: usize, w: &Weights) -> Result<Self> {
        Ok(Self {
            norm: LayerNorm::load(&w.pp("ln_vision"), encoder_width, config.ln_vision_eps)?,
            query_tokens: w.get((1, config.queries, config.hidden), "query_tokens")?,
        })
    }

    fn forward(&self, stack: &Stack, vit: &Tensor, tap: &mut Tap<'_>) -> Result<Tensor> {
        let encoded = self.norm.forward(vit)?;
        tap.see("ln_vision", &encoded);
        let tokens = self.query_tokens.repeat((vit.dim(0)?, 1, 1))?;
        let pictures = Pictures::Tokens(&encoded);
        let pass = Pass { queries: self.queries()?, pictures, ..Pass::default() };
        stack.forward(&tokens, pass, tap)
    }

    fn queries(&self) -> Result<usize> {
        self.query_tokens.dim(1)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, IndexOp};

    use super::*;
    use crate::model::{
        bundle::{Bundle, WeightType, tests::small_config},
        import::random::{Tokenizers, write_random},
    };

    pub(super) fn weights() -> (RetrievalConfig, Weights) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("random.gguf");
        let config = small_config();
        write_random(&config, WeightType::F32, 3, &path, Tokenizers::default()).unwrap();
        let weights = Bundle::open(&path).unwrap().weights(&Device::Cpu, DType::F32);
        (config.retrieval.unwrap(), weights.pp("retrieval"))
    }

    pub(super) fn vit(batch: usize) -> Tensor {
        let values: Vec<f32> = (0..batch * 257 * 48).map(|i| (i as f32 * 0.37).sin()).collect();
        Tensor::from_vec(values, (batch, 257, 48), &Device::Cpu).unwrap()
    }

    pub(super) fn off(left: &Tensor, right: &Tensor) -> f32 {
        let difference = (left - right).unwrap().abs().unwrap().flatten_all().unwrap();
        difference.max(0).unwrap().to_scalar::<f32>().unwrap()
    }

    #[test]
    fn texts_in_a_batch_have_the_features_they_have_alone() {
        let (config, w) = weights();
        let tower = TextTower::load(&config, &w).unwrap();
        let texts = [vec![2, 5, 3], vec![2, 9, 8, 7, 40, 3], vec![2, 3]];
        let together = tower.text_features(&texts).unwrap();
        for (row, text) in texts.iter().enumerate() {
            let alone = tower.text_features(std::slice::from_ref(text)).unwrap();
            assert!(off(&together.i(row..=row).unwrap(), &alone) < 1e-6);
            let length = alone.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            assert!((length - 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn the_text_tower_alone_equals_the_text_side_of_the_whole() {
        let (config, w) = weights();
        let (tower, whole) = (
            TextTower::load(&config, &w).unwrap(),
            RetrievalQFormer::load(&config, 48, &w).unwrap(),
        );
        let texts = [vec![2, 5, 3], vec![2, 9, 3]];
        let (a, b) = (tower.text_features(&texts).unwrap(), whole.text_features(&texts).unwrap());
        assert!(off(&a, &b) < f32::EPSILON);
        assert!(tower.stack.layers.iter().all(|l| l.cross.is_none() && l.query.is_none()));
    }

    #[test]
    fn pairs_in_a_batch_match_as_they_do_alone() {
        let (config, w) = weights();
        let qformer = RetrievalQFormer::load(&config, 48, &w).unwrap();
        let texts = [vec![2, 5, 3], vec![2, 9, 8, 7, 40, 3]];
        let pictures = vit(2);
        let together = qformer.itm(&pictures, &texts).unwrap();
        let one_picture = qformer.itm(&pictures.i(1..2).unwrap(), &texts).unwrap();
        for (row, text) in texts.iter().enumerate() {
            let text = std::slice::from_ref(text);
            let alone = qformer.itm(&pictures.i(row..=row).unwrap(), text).unwrap();
            assert!(off(&together.i(row..=row).unwrap(), &alone) < 1e-5);
            let alone = qformer.itm(&pictures.i(1..2).unwrap(), text).unwrap();
            assert!(off(&one_picture.i(row..=row).unwrap(), &alone) < 1e-5);
        }
        assert!(qformer.itm(&vit(3), &texts).is_err());
    }

    #[test]
    fn similarity_is_the_greatest_over_the_queries() {
        let image = Tensor::new(&[[[1.0_f32, 0.0], [0.6, 0.8]]], &Device::Cpu).unwrap();
        let text = Tensor::new(&[[0.0_f32, 1.0], [1.0, 0.0]], &Device::Cpu).unwrap();
        assert_eq!(itc(&image, &text).unwrap().to_vec2::<f32>().unwrap(), [[0.8, 1.0]]);
    }

    #[test]
    fn a_text_without_tokens_is_refused() {
        let (config, w) = weights();
        let tower = TextTower::load(&config, &w).unwrap();
        assert!(tower.text_features(&[vec![2, 3], vec![]]).is_err());
        assert!(tower.text_features(&[]).is_err());
        assert!(tower.text_features(&[vec![1; 65]]).is_err());
    }
}
