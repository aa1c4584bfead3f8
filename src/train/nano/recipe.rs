//! The stages of `nano`, in their order, with their numbers.

use std::{collections::BTreeMap, path::Path};

use candle_core::{DType, Device, Tensor};

use super::{
    config,
    heads::HeadSpec,
    init::start,
    language::{self, Diet, LanguageTask},
    matching::{self, MatchingTask},
    queries::{self, QueriesTask},
    run::{Ended, Run, Stage, Watch},
    tokens,
    vision::{self, VisionTask},
    words::{self, Words},
};
use crate::{
    model::{
        bundle::{Bundle, TensorSpec, WeightType, tensors_of},
        config::{Config, LanguageConfig, QFormerConfig, RetrievalConfig, VisionConfig},
        import::random::{Tokenizers, write_random},
        prompt::{BertTokenizer, PhiTokenizer},
        weights::Weights,
    },
    train::{AdamW, Parameters, Result, Schedule, Task, objectives::WordHead},
};

/// Seed of every start of a weight.
const SEED: u64 = 20_261_122;
/// Shards of every stage.
const SHARDS: usize = 2;

/// Names of the stages, in their order.
pub const STAGES: [&str; 6] = ["vision", "queries", "matching", "short", "language", "relations"];

/// Whether the recipe came to its end, or to the stage that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It did.
    Finished,
    /// It was stopped; the same command continues it.
    Stopped,
}

/// Runs the recipe in the folder of `run`, up to the stage `until` or to its end; what is done
/// there already is not done again.
///
/// # Errors
///
/// When a step fails or a file cannot be read or written.
pub fn run(
    run: &Run<'_>,
    until: Option<&str>,
    device: &Device,
    watch: &mut dyn Watch,
) -> Result<Outcome> {
    let mut recipe = Recipe::new(run, device)?;
    for stage in STAGES {
        let outcome = match stage {
            "vision" => recipe.vision(watch)?,
            "queries" => recipe.queries(watch)?,
            "matching" => recipe.matching(watch)?,
            "short" => recipe.short(watch)?,
            "language" => recipe.language(watch)?,
            _ => recipe.relations(watch)?,
        };
        if outcome == Outcome::Stopped || until == Some(stage) {
            return Ok(outcome);
        }
    }
    Ok(Outcome::Finished)
}

/// A run of the recipe, and what its stages have trained so far.
struct Recipe<'a> {
    run: &'a Run<'a>,
    config: Config,
    base: Weights,
    known: BTreeMap<String, Tensor>,
    phi: PhiTokenizer,
    bert: BertTokenizer,
}

impl<'a> Recipe<'a> {
    fn new(run: &'a Run<'a>, device: &Device) -> Result<Self> {
        let wrap = |e: crate::model::prompt::PromptError| candle_core::Error::wrap(e);
        let vocabulary = words::vocabulary();
        let tokenizer = tokens::train().map_err(candle_core::Error::msg)?;
        let phi = PhiTokenizer::from_json(&tokenizer).map_err(wrap)?;
        let bert = BertTokenizer::from_vocab(&vocabulary).map_err(wrap)?;
        let config = config::nano(vocabulary.lines().count(), phi.vocabulary_size());
        let path = run.folder.join("start.gguf");
        let tokenizers = Tokenizers { phi: Some(&tokenizer), bert: Some(&vocabulary) };
        let base = base(&config, &path, tokenizers, device)?;
        Ok(Self { run, config, base, known: BTreeMap::new(), phi, bert })
    }

    /// Sizes of the parts, all of which `nano` has.
    fn sizes(&self) -> Result<(&VisionConfig, &QFormerConfig, &RetrievalConfig, &LanguageConfig)> {
        let c = &self.config;
        match (&c.vision, &c.captioner, &c.retrieval, &c.language) {
            (Some(vision), Some(captioner), Some(retrieval), Some(language)) => {
                Ok((vision, captioner, retrieval, language))
            }
            _ => Err(candle_core::Error::msg("the configuration lacks a part").into()),
        }
    }

    fn vision(&mut self, watch: &mut dyn Watch) -> Result<Outcome> {
        let (vision, ..) = self.sizes()?;
        let task = VisionTask { config: vision.clone(), batch: 8, shards: SHARDS, first: 0 };
        let mut parameters = Parameters::new();
        self.add(&mut parameters, &self.specs("vit."), 1.0)?;
        self.add_heads(&mut parameters, &vision::heads(vision.width), 1.0)?;
        self.train("vision", task, parameters, (2e-3, 100, 20_000), watch)
    }

    fn queries(&mut self, watch: &mut dyn Watch) -> Result<Outcome> {
        let (vision, _, retrieval, _) = self.sizes()?;
        let task = QueriesTask {
            vision: vision.clone(),
            retrieval: retrieval.clone(),
            words: Words::new(self.bert.clone(), retrieval.max_text),
            batch: 16,
            shards: SHARDS,
            first: 1_000_000,
        };
        let mut parameters = self.tower(0.2)?;
        self.add(&mut parameters, &self.specs("retrieval."), 1.0)?;
        self.add_heads(&mut parameters, &queries::heads(retrieval), 1.0)?;
        self.train("queries", task, parameters, (1.5e-3, 200, 8000), watch)
    }

    fn matching(&mut self, watch: &mut dyn Watch) -> Result<Outcome> {
        let (vision, _, retrieval, _) = self.sizes()?;
        let task = MatchingTask {
            vision: vision.clone(),
            retrieval: retrieval.clone(),
            words: Words::new(self.bert.clone(), retrieval.max_text),
            batch: 8,
            shards: SHARDS,
            first: 2_000_000,
        };
        let mut parameters = self.tower(0.2)?;
        self.add(&mut parameters, &self.specs("retrieval."), 1.0)?;
        self.add(&mut parameters, &WordHead::tensors(retrieval), 1.0)?;
        self.add_heads(&mut parameters, &queries::heads(retrieval), 1.0)?;
        self.add_heads(&mut parameters, &matching::heads(retrieval), 1.0)?;
        self.train("matching", task, parameters, (1e-3, 200, 15_000), watch)
    }

    fn short(&mut self, watch: &mut dyn Watch) -> Result<Outcome> {
        // The captioning Q-Former begins as the image side of the retrieval one.
        let own: Vec<String> = self.specs("captioner.").into_iter().map(|s| s.name).collect();
        for name in own {
            let of = name.replacen("captioner.", "retrieval.", 1);
            if let Some(value) = self.known.get(&of) {
                self.known.insert(name, value.clone());
            }
        }
        for name in ["set.weight", "set.bias", "whole.weight", "whole.bias"] {
            if let Some(value) = self.known.get(&format!("{}.{name}", queries::HEADS)) {
                self.known.insert(format!("{}.{name}", language::HEADS), value.clone());
            }
        }
        let diet = Diet { short: 1.0, questions: 6, hard: 1, dialogues: false };
        self.talk("short", diet, false, (1.5e-3, 4000), 3_000_000, watch)
    }

    fn language(&mut self, watch: &mut dyn Watch) -> Result<Outcome> {
        let diet = Diet { short: 0.3, questions: 7, hard: 1, dialogues: true };
        self.talk("language", diet, true, (1.5e-3, 10_000), 4_000_000, watch)
    }

    fn relations(&mut self, watch: &mut dyn Watch) -> Result<Outcome> {
        let diet = Diet { short: 0.15, questions: 7, hard: 3, dialogues: true };
        self.talk("relations", diet, true, (8e-4, 10_000), 5_000_000, watch)
    }

    fn talk(
        &mut self,
        name: &'static str,
        diet: Diet,
        queries: bool,
        (rate, steps): (f64, u64),
        first: u64,
        watch: &mut dyn Watch,
    ) -> Result<Outcome> {
        let (_, captioner, ..) = self.sizes()?;
        let task = LanguageTask {
            config: self.config.clone(),
            tokenizer: self.phi.clone(),
            diet,
            queries,
            batch: 8,
            shards: SHARDS,
            first,
        };
        let mut parameters = Parameters::new();
        self.add(&mut parameters, &self.specs("language."), 1.0)?;
        if queries {
            self.add(&mut parameters, &self.specs("captioner."), 0.2)?;
            self.add_heads(&mut parameters, &language::heads(captioner.hidden), 0.2)?;
        }
        self.train(name, task, parameters, (rate, 200, steps), watch)
    }

    /// The tower with its heads, at a part of the learning rate.
    fn tower(&self, rate: f64) -> Result<Parameters> {
        let (vision, ..) = self.sizes()?;
        let mut parameters = Parameters::new();
        self.add(&mut parameters, &self.specs("vit."), rate)?;
        self.add_heads(&mut parameters, &vision::heads(vision.width), rate)?;
        Ok(parameters)
    }

    /// The bundle's tensors whose names begin with `prefix`.
    fn specs(&self, prefix: &str) -> Vec<TensorSpec> {
        let all = tensors_of(&self.config).into_iter();
        all.filter(|spec| spec.name.starts_with(prefix)).collect()
    }

    /// Adds tensors, each as an earlier stage left it, else from its start.
    fn add(&self, parameters: &mut Parameters, specs: &[TensorSpec], rate: f64) -> Result<()> {
        let depth = self.config.vision.as_ref().map_or(1, |v| v.depth);
        for spec in specs {
            let value = match self.known.get(&spec.name) {
                Some(value) => value.clone(),
                None => start(spec, depth, SEED, self.base.device())?,
            };
            parameters.insert(spec.name.clone(), &value, rate)?;
        }
        Ok(())
    }

    fn add_heads(&self, parameters: &mut Parameters, heads: &[HeadSpec], rate: f64) -> Result<()> {
        let mut own = Parameters::new();
        for head in heads {
            head.add(&mut own, SEED, self.base.device())?;
        }
        for parameter in own.iter() {
            let start = parameter.var.as_tensor();
            let value = self.known.get(&parameter.name).unwrap_or(start);
            parameters.insert(parameter.name.clone(), value, rate)?;
        }
        Ok(())
    }

    fn train<T: Task>(
        &mut self,
        name: &'static str,
        task: T,
        parameters: Parameters,
        (rate, warmup, total): (f64, u64, u64),
        watch: &mut dyn Watch,
    ) -> Result<Outcome> {
        let stage = Stage {
            name,
            task,
            adam: AdamW { beta2: 0.98, max_norm: Some(1.0), ..AdamW::default() },
            schedule: Schedule { start: 0.0, peak: rate, end: 0.05 * rate, warmup, total },
            shards: SHARDS,
        };
        let weights = self.base.clone().training(self.known.clone());
        match self.run.stage(&stage, weights, parameters, watch)? {
            Ended::Done(trained) => {
                self.known.extend(trained);
                Ok(Outcome::Finished)
            }
            Ended::Stopped => Ok(Outcome::Stopped),
        }
    }
}

/// The weights of a random bundle of `config`, which a run needs for what it does not train.
fn base(
    config: &Config,
    path: &Path,
    tokenizers: Tokenizers<'_>,
    device: &Device,
) -> Result<Weights> {
    write_random(config, WeightType::F32, SEED, path, tokenizers)?;
    Ok(Bundle::open(path)?.weights(device, DType::F32))
}
