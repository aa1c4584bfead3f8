//! The files of one import: opened, measured, hashed and planned.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::blip2::{self, RetrievalLayout};
use super::checkpoint::Checkpoint;
use super::error::{ImportError, Result};
use super::phi::{self, PhiLayout};
use super::recipe::Plan;
use super::stage::{self, LoraUse, StageNames};
use super::vocabulary::{self, Vocabulary};
use super::{ImportOptions, ImportProgress, ImportSources, ImportStep, Lora, vit};
use crate::model::bundle::{Source, TensorSpec};
use crate::model::config::{
    Config, LanguageConfig, RetrievalConfig, VisionConfig, image_size_of_stage,
};

/// Most tokens that BLIP-2's image-text matching reads of a text.
const MAX_TEXT: usize = 32;
/// Side in pixels that BLIP-2 was pretrained with for retrieval.
const RETRIEVAL_SIZE: usize = 224;

/// The checkpoints that were given.
pub(super) struct Parts {
    vit: Option<Arc<Checkpoint>>,
    qformer: Option<Arc<Checkpoint>>,
    language: Option<Language>,
    retrieval: Option<(Arc<Checkpoint>, RetrievalLayout)>,
}

struct Language {
    phi: Arc<Checkpoint>,
    layout: PhiLayout,
    stage: Arc<Checkpoint>,
    names: StageNames,
}

/// The tokenizers of the parts that have one.
pub(super) struct Vocabularies {
    pub(super) phi: Option<Vocabulary>,
    pub(super) bert: Option<Vocabulary>,
}

impl Parts {
    /// Opens what was given and checks that it can make a model.
    pub(super) fn open(sources: &ImportSources) -> Result<Self> {
        let open = |path: &Option<PathBuf>| path.as_deref().map(Checkpoint::open).transpose();
        let language = match (&sources.phi, &sources.checkpoint) {
            (Some(phi), Some(stage)) => {
                if sources.qformer.is_none() {
                    return Err(ImportError::sources(
                        "captions need the Q-Former too (blip2_pretrained_flant5xxl.pth)",
                    ));
                }
                let (phi, stage) = (Checkpoint::open(phi)?, Checkpoint::open(stage)?);
                let (layout, names) = (PhiLayout::of(&phi)?, StageNames::of(&stage)?);
                Some(Language { phi, layout, stage, names })
            }
            (None, None) => None,
            (Some(_), None) => {
                return Err(ImportError::sources(
                    "Phi-2 needs a checkpoint of TinyGPT-V (TinyGPT-V_for_StageN.pth)",
                ));
            }
            (None, Some(_)) => {
                return Err(ImportError::sources("a checkpoint of TinyGPT-V needs Phi-2"));
            }
        };
        let retrieval = open(&sources.retrieval)?
            .map(|file| RetrievalLayout::of(&file).map(|layout| (file, layout)))
            .transpose()?;
        let parts = Self {
            vit: open(&sources.vit)?,
            qformer: open(&sources.qformer)?,
            language,
            retrieval,
        };
        if parts.vit.is_none() && parts.vit_inside().is_none() {
            return Err(ImportError::sources(
                "no file holds the visual encoder: give eva_vit_g.pth, or a retrieval model that \
                 contains it",
            ));
        }
        Ok(parts)
    }

    /// The retrieval file, where it holds a ViT.
    fn vit_inside(&self) -> Option<(&Arc<Checkpoint>, &'static str)> {
        let (file, layout) = self.retrieval.as_ref()?;
        layout.holds_vit(file).then(|| (file, layout.vit_positions()))
    }

    /// Sizes of all parts, from `dims` and from shapes.
    pub(super) fn config(
        &self,
        sources: &ImportSources,
        options: &ImportOptions,
    ) -> Result<Config> {
        let dims = &sources.dims;
        let from = self.vit.as_ref().map(|file| (file, "pos_embed")).or_else(|| self.vit_inside());
        let vision = match from {
            Some((file, positions)) => Some(dims.vision(train_size(file, positions)?)),
            None => None,
        };
        let captioner = match &self.qformer {
            Some(file) => {
                let [_, queries, _] = file.shape("query_tokens")?;
                Some(dims.qformer(queries, image_size_of_stage(sources.stage)))
            }
            None => None,
        };
        let retrieval = match &self.retrieval {
            Some((file, layout)) => {
                let [_, queries, _] = file.shape("query_tokens")?;
                let [vocabulary, _] = file.shape(layout.words())?;
                let [positions, _] = file.shape(layout.positions())?;
                let projection = match dims.proj {
                    Some(projection) => projection,
                    None => file.shape::<2>(&layout.text_projection(file))?[0],
                };
                let mut qformer = dims.qformer(queries, RETRIEVAL_SIZE);
                qformer.ln_vision_eps = layout.ln_vision_eps();
                Some(RetrievalConfig {
                    qformer,
                    vocabulary,
                    positions,
                    projection,
                    max_text: MAX_TEXT,
                })
            }
            None => None,
        };
        let language = match &self.language {
            Some(language) => Some(language.config(sources, options)?),
            None => None,
        };
        Ok(Config { vision, captioner, retrieval, language, stage: sources.stage })
    }

    /// How every tensor of `specs` is made; checks the names and shapes of every file.
    pub(super) fn plan(
        &self,
        sources: &ImportSources,
        options: &ImportOptions,
        config: &Config,
        specs: &[TensorSpec],
    ) -> Result<Plan> {
        let mut plan = Plan::default();
        if let (Some(file), Some(vision)) = (&self.vit, &config.vision) {
            vit::plan(file, vision, specs, &mut plan)?;
        }
        if let Some(file) = &self.qformer {
            blip2::plan_captioner(file, specs, &mut plan)?;
        }
        if let (Some((file, layout)), Some(vision)) = (&self.retrieval, &config.vision) {
            blip2::plan_retrieval(file, *layout, vision, specs, &mut plan)?;
        }
        if let (Some(language), Some(config)) = (&self.language, &config.language) {
            phi::plan(&language.phi, language.layout, config, specs, &mut plan)?;
            let lora = language.lora(sources, options);
            stage::plan(&language.stage, &language.names, lora, specs, &mut plan)?;
        }
        Ok(plan)
    }

    /// Reads every file once and says what it is.
    pub(super) fn hash(
        &self,
        vocabularies: &Vocabularies,
        progress: &mut dyn FnMut(ImportProgress<'_>),
    ) -> Result<Vec<Source>> {
        let mut files: Vec<(&str, &Path)> = Vec::new();
        let language = self.language.as_ref();
        for (role, checkpoint) in [
            ("vit", self.vit.as_ref()),
            ("qformer", self.qformer.as_ref()),
            ("phi", language.map(|l| &l.phi)),
            ("checkpoint", language.map(|l| &l.stage)),
            ("retrieval", self.retrieval.as_ref().map(|(file, _)| file)),
        ] {
            files.extend(checkpoint.into_iter().flat_map(|c| c.files()).map(|file| (role, file)));
        }
        for (role, vocabulary) in [
            ("phi-tokenizer", vocabularies.phi.as_ref()),
            ("retrieval-vocabulary", vocabularies.bert.as_ref()),
        ] {
            let paths = vocabulary.into_iter().flat_map(|v| &v.files);
            files.extend(paths.map(|path| (role, path.as_path())));
        }
        let mut total = 0;
        for (_, path) in &files {
            total += std::fs::metadata(path).map_err(|e| ImportError::io(path, e))?.len();
        }
        let mut done = 0;
        let mut hashed = Vec::new();
        for (role, path) in files {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let before = done;
            let blake3 = hash_file(path, &mut |bytes| {
                done += bytes;
                progress(ImportProgress { step: ImportStep::Hash, item: &file, done, total });
            });
            let blake3 = blake3.map_err(|e| ImportError::io(path, e))?;
            hashed.push(Source { role: role.to_owned(), file, size: done - before, blake3 });
        }
        Ok(hashed)
    }
}

/// The tokenizers that the parts need.
pub(super) fn vocabularies(sources: &ImportSources, config: &Config) -> Result<Vocabularies> {
    let phi = match (&config.language, &sources.phi) {
        (Some(language), Some(phi)) => {
            let beside = if phi.is_dir() { Some(phi.as_path()) } else { phi.parent() };
            let path = sources.phi_tokenizer.as_deref().or(beside).unwrap_or(phi);
            Some(vocabulary::phi(path, language.vocabulary)?)
        }
        _ => None,
    };
    let bert = match (&config.retrieval, &sources.retrieval) {
        (Some(retrieval), Some(file)) => {
            let inside = file.join("vocab.txt");
            let inside = inside.is_file().then_some(inside);
            let path = sources.retrieval_vocab.as_ref().or(inside.as_ref());
            let path = path
                .ok_or_else(|| ImportError::sources("a retrieval model needs BERT's vocab.txt"))?;
            Some(vocabulary::bert(path, retrieval.vocabulary)?)
        }
        _ => None,
    };
    Ok(Vocabularies { phi, bert })
}

fn hash_file(path: &Path, read: &mut dyn FnMut(u64)) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 4 << 20];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok(hasher.finalize().to_hex().to_string());
        }
        hasher.update(&buffer[..n]);
        read(n as u64);
    }
}

/// Side in pixels of the pictures for which there are positions: a class token and a square.
fn train_size(file: &Checkpoint, positions: &str) -> Result<usize> {
    let [_, tokens, _] = file.shape(positions)?;
    let side = tokens.saturating_sub(1).isqrt();
    if side == 0 || side * side + 1 != tokens {
        return Err(ImportError::Value {
            tensor: positions.to_owned(),
            path: file.file_of(positions).to_owned(),
            what: format!("has {tokens} positions, which are no square and one"),
        });
    }
    Ok(side * VisionConfig::vit_g().patch)
}

impl Language {
    fn config(&self, sources: &ImportSources, options: &ImportOptions) -> Result<LanguageConfig> {
        let [vocabulary, _] = self.phi.shape(self.layout.tokens())?;
        let mut config = sources.dims.language(vocabulary);
        if let Some(LoraUse { rank, scale, keep }) = self.lora(sources, options) {
            if rank == 0 || !scale.is_finite() {
                return Err(ImportError::sources("LoRA needs a rank above zero"));
            }
            if keep {
                config.lora_rank = Some(rank);
                config.lora_scale = Some(scale);
            }
        }
        Ok(config)
    }

    /// `None` only for stage 1 without it: it was trained without, every later stage with.
    fn lora(&self, sources: &ImportSources, options: &ImportOptions) -> Option<LoraUse> {
        let (rank, alpha) = sources.dims.lora;
        let keep = options.lora == Lora::Keep;
        let used = sources.stage != 1 || self.names.has_lora();
        used.then_some(LoraUse { rank, scale: alpha / rank.max(1) as f64, keep })
    }
}
