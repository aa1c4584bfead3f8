//! The whole model behind one type: opens a bundle, loads each part when it is first needed.

mod language;
mod vlm;

use std::path::Path;

use candle_core::{DType, Device, Module, Result, Tensor};
use tinyfind_index::ModelSpec;

pub use language::Language;

use crate::decode::DecodedImage;
use crate::model::bundle::{Bundle, BundleError};
use crate::model::config::Config;
use crate::model::device::compute_dtype;
use crate::model::eva_vit::EvaVit;
use crate::model::pixels::pixel_values;
use crate::model::prompt::{BertTokenizer, PromptError};
use crate::model::qformer::{self, QFormer, RetrievalQFormer, TextTower};
use crate::model::weights::Weights;

/// Why a model could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The bundle cannot be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A tokenizer in the bundle is damaged.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The bundle was made without a part.
    #[error("`{model}` was made without its {part} part: import it again with {with}")]
    NoPart {
        /// Name of the model.
        model: String,
        /// What is missing.
        part: &'static str,
        /// Flags of `tinyfind model import` that bring it.
        with: &'static str,
    },
    /// A tensor does not fit or the device failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// Result of this module.
pub type ModelResult<T> = std::result::Result<T, ModelError>;

/// Flags of the import that bring each part.
const RETRIEVAL_FLAGS: &str = "--retrieval and --retrieval-vocab";

/// What the ViT makes of a batch of pictures.
#[derive(Debug, Clone)]
pub struct ImageEncoding {
    /// `(pictures, 257, 1408)` at the retrieval side's size, where the bundle has one.
    pub retrieval: Option<Tensor>,
    /// `(pictures, 257 | 1025, 1408)` at the captioning side's size, where the bundle has one;
    /// the same tensor where the sizes are the same.
    pub captioner: Option<Tensor>,
}

/// ViT and both Q-Formers.
#[derive(Debug)]
struct Vision {
    vit: EvaVit,
    captioner: Option<QFormer>,
    retrieval: Option<RetrievalQFormer>,
}

/// TinyGPT-V with BLIP-2 retrieval.
///
/// Opening reads the header of the bundle only. The vision part (ViT and Q-Formers), the text
/// side of retrieval and the language part are loaded when they are first needed; vision and
/// language give way to each other, because the full model's would not fit 8 GB together.
#[derive(Debug)]
pub struct TinyGptV {
    bundle: Bundle,
    weights: Weights,
    spec: ModelSpec,
    vision: Option<Vision>,
    text: Option<(BertTokenizer, TextTower)>,
    language: Option<Language>,
}

impl TinyGptV {
    /// Opens the bundle at `path` for `device`.
    ///
    /// # Errors
    ///
    /// When the file is no sound bundle.
    pub fn open(path: &Path, device: &Device) -> ModelResult<Self> {
        Ok(Self::of(Bundle::open(path)?, device))
    }

    /// The model of `bundle` on `device`; nothing is loaded yet.
    pub fn of(bundle: Bundle, device: &Device) -> Self {
        let weights = bundle.weights(device, compute_dtype(device, stored_dtype(&bundle)));
        let config = bundle.config();
        let (retrieval, captioner) = (config.retrieval.as_ref(), config.captioner.as_ref());
        let spec = ModelSpec {
            name: bundle.name().to_owned(),
            fingerprint: bundle.fingerprint().to_owned(),
            embedding_rows: retrieval.map_or(0, |r| r.qformer.queries),
            embedding_dim: retrieval.map_or(0, |r| r.projection),
            token_rows: captioner.map_or(0, |c| c.queries),
            token_dim: captioner.map_or(0, |c| c.hidden),
        };
        Self { bundle, weights, spec, vision: None, text: None, language: None }
    }

    /// The bundle.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Sizes of its parts.
    pub fn config(&self) -> &Config {
        self.bundle.config()
    }

    /// What an index must know of it.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        self.weights.device()
    }

    /// Runs the ViT: once where both Q-Formers look at pictures of one size.
    ///
    /// # Errors
    ///
    /// When the bundle has no vision part or the device has no room.
    pub fn encode_image(&mut self, images: &[DecodedImage]) -> ModelResult<ImageEncoding> {
        self.load_vision()?;
        let config = self.bundle.config();
        let sizes = [
            config.retrieval.as_ref().map(|r| r.qformer.image_size),
            config.captioner.as_ref().map(|c| c.image_size),
        ];
        let vision = self.vision.as_ref().ok_or_else(|| self.no_vision())?;
        let encode = |size: usize| -> Result<Tensor> {
            vision.vit.forward(&pixel_values(images, size, self.device(), self.weights.dtype())?)
        };
        let retrieval = sizes[0].map(encode).transpose()?;
        let captioner = match sizes {
            [Some(a), Some(b)] if a == b => retrieval.clone(),
            _ => sizes[1].map(encode).transpose()?,
        };
        Ok(ImageEncoding { retrieval, captioner })
    }

    /// Image features `(pictures, 32, 256)`, f32, each vector of unit length.
    ///
    /// # Errors
    ///
    /// When the bundle has no retrieval part.
    pub fn image_features(&mut self, encoding: &ImageEncoding) -> ModelResult<Tensor> {
        let (side, vit) = self.retrieval_side(encoding)?;
        Ok(side.image_features(vit)?.to_dtype(DType::F32)?)
    }

    /// Visual tokens `(pictures, 32, 768)`, f32: the captioning Q-Former's output, before the
    /// projections.
    ///
    /// # Errors
    ///
    /// When the bundle has no captioning part.
    pub fn visual_tokens(&mut self, encoding: &ImageEncoding) -> ModelResult<Tensor> {
        self.load_vision()?;
        let missing = || self.no_part("captioning", "--qformer");
        let side = self.vision.as_ref().and_then(|v| v.captioner.as_ref()).ok_or_else(missing)?;
        let vit = encoding.captioner.as_ref().ok_or_else(missing)?;
        Ok(side.forward_image(vit)?.to_dtype(DType::F32)?)
    }

    /// Text features `(texts, 256)`, f32, each of unit length; loads the text side alone.
    ///
    /// # Errors
    ///
    /// When the bundle has no retrieval part.
    pub fn text_features(&mut self, texts: &[&str]) -> ModelResult<Tensor> {
        let ids = self.text_ids(texts)?;
        let (_, tower) = self.text.as_ref().ok_or_else(|| self.no_retrieval())?;
        Ok(tower.text_features(&ids)?.to_dtype(DType::F32)?)
    }

    /// Image-text similarity `(pictures, texts)`, -1 to 1: the greatest cosine over the queries.
    ///
    /// # Errors
    ///
    /// When the shapes are not those of [`Self::image_features`] and [`Self::text_features`].
    pub fn itc(&self, image_features: &Tensor, text_features: &Tensor) -> ModelResult<Tensor> {
        Ok(qformer::itc(image_features, text_features)?)
    }

    /// Image-text matching: logits `(pictures, texts, 2)`, f32, for no match and match.
    ///
    /// # Errors
    ///
    /// When the bundle has no retrieval part.
    pub fn itm(&mut self, encoding: &ImageEncoding, texts: &[&str]) -> ModelResult<Tensor> {
        let ids = self.text_ids(texts)?;
        let (side, vit) = self.retrieval_side(encoding)?;
        let logits: Vec<Tensor> = (0..vit.dim(0)?)
            .map(|picture| side.itm(&vit.narrow(0, picture, 1)?, &ids)?.to_dtype(DType::F32))
            .collect::<Result<_>>()?;
        Ok(Tensor::stack(&logits, 0)?)
    }

    /// The language part: projections, tokenizer and Phi-2; drops the vision part for it.
    ///
    /// # Errors
    ///
    /// When the bundle has none or the device has no room.
    pub fn language(&mut self) -> ModelResult<&Language> {
        if self.language.is_none() {
            self.vision = None;
            let missing = || self.no_part("language", "--phi and --checkpoint");
            let json = self.bundle.phi_tokenizer().ok_or_else(missing)?;
            let token_width =
                self.config().captioner.as_ref().map(|c| c.hidden).ok_or_else(missing)?;
            let weights = self.weights.pp("language");
            let loaded = Language::load(self.config(), token_width, json, &weights)?;
            self.language = Some(loaded.ok_or_else(missing)?);
        }
        self.language.as_ref().ok_or_else(|| self.no_part("language", "--phi"))
    }

    fn retrieval_side<'a>(
        &'a mut self,
        encoding: &'a ImageEncoding,
    ) -> ModelResult<(&'a RetrievalQFormer, &'a Tensor)> {
        self.load_vision()?;
        let side = self.vision.as_ref().and_then(|v| v.retrieval.as_ref());
        side.zip(encoding.retrieval.as_ref()).ok_or_else(|| self.no_retrieval())
    }

    /// Loads ViT and Q-Formers; drops the language part for them.
    fn load_vision(&mut self) -> ModelResult<()> {
        if self.vision.is_some() {
            return Ok(());
        }
        self.language = None;
        let config = self.bundle.config();
        let vision = config.vision.as_ref().ok_or_else(|| self.no_vision())?;
        let captioner = config
            .captioner
            .as_ref()
            .map(|captioner| QFormer::load(captioner, vision.width, &self.weights.pp("captioner")));
        let retrieval = config.retrieval.as_ref().map(|retrieval| {
            RetrievalQFormer::load(retrieval, vision.width, &self.weights.pp("retrieval"))
        });
        self.vision = Some(Vision {
            vit: EvaVit::load(vision, &self.weights.pp("vit"))?,
            captioner: captioner.transpose()?,
            retrieval: retrieval.transpose()?,
        });
        Ok(())
    }

    /// Ids of `texts`; loads the text side.
    fn text_ids(&mut self, texts: &[&str]) -> ModelResult<Vec<Vec<u32>>> {
        let config = self.bundle.config();
        let retrieval = config.retrieval.as_ref().ok_or_else(|| self.no_retrieval())?;
        if self.text.is_none() {
            let vocabulary = self.bundle.bert_vocabulary().ok_or_else(|| self.no_retrieval())?;
            let tokenizer = BertTokenizer::from_vocab(vocabulary)?;
            let tower = TextTower::load(retrieval, &self.weights.pp("retrieval"))?;
            self.text = Some((tokenizer, tower));
        }
        let (tokenizer, _) = self.text.as_ref().ok_or_else(|| self.no_retrieval())?;
        Ok(texts.iter().map(|text| tokenizer.encode(text, retrieval.max_text)).collect())
    }

    fn no_part(&self, part: &'static str, with: &'static str) -> ModelError {
        ModelError::NoPart { model: self.bundle.name().to_owned(), part, with }
    }

    fn no_vision(&self) -> ModelError {
        self.no_part("vision", "--vit")
    }

    fn no_retrieval(&self) -> ModelError {
        self.no_part("retrieval", RETRIEVAL_FLAGS)
    }
}

/// The type most of a bundle's weights are stored in; f32 for quantised ones.
fn stored_dtype(bundle: &Bundle) -> DType {
    use candle_core::quantized::GgmlDType;
    let mut bytes = [(DType::F32, 0_usize), (DType::F16, 0), (DType::BF16, 0)];
    for tensor in bundle.tensors() {
        let size: usize = tensor.shape.iter().product();
        let at = match tensor.dtype {
            GgmlDType::F16 => 1,
            GgmlDType::BF16 => 2,
            _ => 0,
        };
        bytes[at].1 += size;
    }
    bytes.iter().max_by_key(|(_, size)| *size).map_or(DType::F32, |(dtype, _)| *dtype)
}
