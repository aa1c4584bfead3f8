//! The stages of `nano`, in their order, with their numbers.

mod published;
mod stages;

use std::{collections::BTreeMap, path::Path};

use candle_core::{DType, Device, Tensor};

use super::{
    config,
    heads::HeadSpec,
    init::start,
    run::{Ended, Run, Stage, Trained, Watch},
    tokens, words,
};
use crate::{
    model::{
        bundle::{About, Bundle, BundleWriter, TensorSpec, WeightType, tensors_of},
        config::{Config, LanguageConfig, QFormerConfig, RetrievalConfig, VisionConfig},
        import::{
            encode::encode,
            random::{Tokenizers, write_random},
        },
        prompt::{BertTokenizer, PhiTokenizer},
        weights::Weights,
    },
    train::{AdamW, Parameters, Result, Schedule, Task},
};

/// Seed of every start of a weight.
const SEED: u64 = 20_261_122;
/// Shards of every stage.
const SHARDS: usize = 2;

/// Names of the stages, in their order.
pub const STAGES: [&str; 10] = [
    "vision",
    "queries",
    "matching",
    "short",
    "language",
    "relations",
    "warm-up",
    "pretraining",
    "instruction",
    "multi-task",
];

/// Whether the recipe came to its end, or to the stage that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It did.
    Finished,
    /// It was stopped; the same command continues it.
    Stopped,
}

/// Runs the recipe in the folder of `run`, up to the stage `until` or to its end; what is done
/// there already is not done again. What is trained then is written to `output`: a bundle of the
/// parts that were trained, in f16.
///
/// # Errors
///
/// When a step fails, a file cannot be read or written, or another run works in the folder.
pub fn run(
    run: &Run<'_>,
    until: Option<&str>,
    output: Option<&Path>,
    device: &Device,
    watch: &mut dyn Watch,
) -> Result<Outcome> {
    let _lock = run.lock()?;
    let mut recipe = Recipe::new(run, device)?;
    // A finished stage holds what the stages before it trained.
    let done = STAGES.iter().rposition(|stage| run.file(stage).exists()).unwrap_or(0);
    let first = done.min(STAGES.iter().position(|s| Some(*s) == until).unwrap_or(done));
    for stage in &STAGES[first..] {
        let stage = *stage;
        let outcome = match stage {
            "vision" => recipe.vision(watch)?,
            "queries" => recipe.queries(watch)?,
            "matching" => recipe.matching(watch)?,
            "short" => recipe.short(watch)?,
            "language" => recipe.language(watch)?,
            "relations" => recipe.relations(watch)?,
            "warm-up" => recipe.warm_up(watch)?,
            "pretraining" => recipe.pretraining(watch)?,
            "instruction" => recipe.instruction(watch)?,
            _ => recipe.multi_task(watch)?,
        };
        if outcome == Outcome::Stopped {
            return Ok(outcome);
        }
        if until == Some(stage) {
            break;
        }
    }
    if let Some(path) = output {
        recipe.write(path)?;
    }
    Ok(Outcome::Finished)
}

/// How fast and how long a stage learns.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Highest learning rate.
    rate: f64,
    /// Steps up to that.
    warmup: u64,
    /// Steps in all.
    steps: u64,
    /// Pictures of a shard.
    batch: usize,
}

/// A run of the recipe, and what its stages have trained so far.
struct Recipe<'a> {
    run: &'a Run<'a>,
    config: Config,
    base: Weights,
    known: Trained,
    phi: PhiTokenizer,
    bert: BertTokenizer,
    tokenizer: String,
    vocabulary: String,
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
        let known = Trained::default();
        Ok(Self { run, config, base, known, phi, bert, tokenizer, vocabulary })
    }

    /// Writes the bundle of the parts that are trained so far.
    fn write(&self, path: &Path) -> Result<()> {
        let trained = |prefix: &str| self.known.tensors.keys().any(|name| name.starts_with(prefix));
        let mut config = self.config.clone();
        config.retrieval = config.retrieval.filter(|_| trained("retrieval."));
        config.captioner = config.captioner.filter(|_| trained("captioner."));
        config.language = config.language.filter(|_| trained("language."));
        let about = About {
            name: "nano".to_owned(),
            sources: Vec::new(),
            recipe: self.known.stages.clone(),
            training: Vec::new(),
            fingerprint: fingerprint(&config, &self.known.tensors)?,
            phi_tokenizer: config.language.as_ref().map(|_| self.tokenizer.clone()),
            bert_vocabulary: config.retrieval.as_ref().map(|_| self.vocabulary.clone()),
            license: "MIT OR Apache-2.0".to_owned(),
            licences: "Made by the tinyfind project from drawings of its own.".to_owned(),
            config,
        };
        let specs = tensors_of(&about.config);
        let mut writer = BundleWriter::create(path, &about, &specs, WeightType::F16)?;
        for spec in &specs {
            let (dtype, _) = WeightType::F16.storage(spec);
            let missing = || candle_core::Error::msg(format!("`{}` was not trained", spec.name));
            let values = self.known.tensors.get(&spec.name).ok_or_else(missing)?;
            let values = values.flatten_all()?.to_vec1::<f32>()?;
            writer.write(&encode(&values, values.len(), values.len(), dtype)?)?;
        }
        Ok(writer.finish()?)
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

    /// The bundle's tensors whose names begin with `prefix`.
    fn specs(&self, prefix: &str) -> Vec<TensorSpec> {
        let all = tensors_of(&self.config).into_iter();
        all.filter(|spec| spec.name.starts_with(prefix)).collect()
    }

    /// Adds tensors, each as an earlier stage left it, else from its start.
    fn add(&self, parameters: &mut Parameters, specs: &[TensorSpec], rate: f64) -> Result<()> {
        let depth = self.config.vision.as_ref().map_or(1, |v| v.depth);
        for spec in specs {
            let value = match self.known.tensors.get(&spec.name) {
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
            let value = self.known.tensors.get(&parameter.name).unwrap_or(start);
            parameters.insert(parameter.name.clone(), value, rate)?;
        }
        Ok(())
    }

    fn train<T: Task>(
        &mut self,
        name: &'static str,
        task: T,
        parameters: Parameters,
        pace: Pace,
        watch: &mut dyn Watch,
    ) -> Result<Outcome> {
        let Pace { rate, warmup, steps: total, batch } = pace;
        let stage = Stage {
            name,
            task,
            adam: AdamW { beta2: 0.98, max_norm: Some(1.0), ..AdamW::default() },
            schedule: Schedule { start: 0.0, peak: rate, end: 0.05 * rate, warmup, total },
            shards: SHARDS,
            batch: batch * SHARDS,
        };
        let weights = self.base.clone().training(self.known.tensors.clone());
        match self.run.stage(&stage, weights, parameters, &self.known, watch)? {
            Ended::Done(known) => {
                self.known = known;
                Ok(Outcome::Finished)
            }
            Ended::Stopped => Ok(Outcome::Stopped),
        }
    }
}

/// Equal for equal weights of equal sizes.
fn fingerprint(config: &Config, known: &BTreeMap<String, Tensor>) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("nano {config:?}").as_bytes());
    for (name, tensor) in known.iter().filter(|(name, _)| !name.starts_with("auxiliary.")) {
        hasher.update(name.as_bytes());
        for value in tensor.flatten_all()?.to_vec1::<f32>()? {
            hasher.update(&value.to_le_bytes());
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::{
        model::{TinyGptV, bundle::RecipeStage},
        train::{Measure, StepReport, nano::run::write, scenes::Split},
    };

    #[derive(Default)]
    struct Seen(Vec<String>);

    impl Watch for Seen {
        fn step(&mut self, stage: &str, _: u64, _: &StepReport) {
            panic!("{stage} was done");
        }

        fn measured(&mut self, stage: &str, _: &Measure) {
            panic!("{stage} was done");
        }

        fn done(&mut self, stage: &str, _: &Path) {
            self.0.push(stage.to_owned());
        }
    }

    #[test]
    fn what_was_trained_becomes_a_bundle_of_its_parts() {
        let folder = tempfile::tempdir().unwrap();
        let stop = AtomicBool::new(false);
        let own = Run { folder: folder.path().to_owned(), stop: &stop };
        let recipe = Recipe::new(&own, &Device::Cpu).unwrap();
        let mut parameters = Parameters::new();
        for part in ["vit.", "retrieval."] {
            recipe.add(&mut parameters, &recipe.specs(part), 1.0).unwrap();
        }
        let stage = |name: &str, steps, batch, rate| {
            let (name, version) = (name.to_owned(), "0.0.9".to_owned());
            RecipeStage { name, steps, batch, rate, version }
        };
        let stages = vec![stage("vision", 30_000, 16, 2e-3), stage("queries", 12_000, 32, 1e-3)];
        let mut trained = Trained { tensors: parameters.tensors().into_iter().collect(), stages };
        write(&own.file("queries"), &trained).unwrap();

        let output = folder.path().join("nano.gguf");
        let mut seen = Seen::default();
        let done = run(&own, Some("queries"), Some(&output), &Device::Cpu, &mut seen).unwrap();
        assert_eq!((done, seen.0), (Outcome::Finished, vec!["queries".to_owned()]));
        assert_eq!(Bundle::open(&output).unwrap().about().recipe, trained.stages);
        let mut model = TinyGptV::open(&output, &Device::Cpu).unwrap();
        assert!(model.config().language.is_none() && model.config().captioner.is_none());
        let texts = model.text_features(&["a red car on a beach", "two cups."]).unwrap();
        assert_eq!(texts.dims(), [2, 64]);
        let pictures = super::super::pictures::Pictures::draw(Split::Test, 0, 2);
        let encoding = model.encode_image(&pictures.images).unwrap();
        assert_eq!(model.image_features(&encoding).unwrap().dims(), [2, 16, 64]);
        let size = std::fs::metadata(&output).unwrap().len();
        assert!((3_000_000..8_000_000).contains(&size), "{size}");

        let lock = own.lock().unwrap();
        let error = run(&own, Some("queries"), None, &Device::Cpu, &mut Seen::default());
        assert!(error.unwrap_err().to_string().contains("another run trains in"));
        drop(lock);

        trained.stages[1].steps = 8000;
        write(&own.file("queries"), &trained).unwrap();
        let error = run(&own, Some("queries"), None, &Device::Cpu, &mut Seen::default());
        let error = error.unwrap_err().to_string();
        assert!(error.contains("0.0.9 made it with other settings"), "{error}");
    }
}
