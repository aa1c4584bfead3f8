//! Every number of a run, settled before it begins.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use candle_core::{DType, Device};

use super::{
    FineTuneError, Footprint, Length, Load, Request, Result, Validation,
    check::{check, check_output, default_peft, keeps, learns, trained},
    estimate::{Place as Where, footprint, free_memory},
    examples::{Examples, Pictures, Room, Wording},
    task::{Learning, Seen},
    tokens::time_to_look,
    write::weight_type,
};
use crate::{
    model::{
        bundle::{Bundle, WeightType, tensors_of},
        config::LanguageConfig,
        prompt::PhiTokenizer,
    },
    train::{
        AdamW, Parameters, Schedule, Task,
        data::{Bad, Data, hold_out},
        peft::Peft,
    },
};

/// Most bytes that batches are made large enough for.
const MOST_ACTIVATIONS: u64 = 10_000_000_000;
/// Most tokens of an answer in stages 1 to 3, and in stage 4, as published.
const ANSWER_TOKENS: [usize; 2] = [160, 500];
/// How often the data is gone over where nothing else is asked for. The published numbers of
/// steps belong to data sets of their own size.
const EPOCHS: f64 = 5.0;

/// A run that is ready to begin.
#[derive(Debug)]
pub struct Plan {
    /// What was asked for.
    pub request: Request,
    /// The model to begin with.
    pub bundle: Bundle,
    /// What the data file holds.
    pub data: Data,
    /// Records of the data that are left out, with those that this stage cannot use.
    pub bad: Vec<Bad>,
    /// The same for a validation file.
    pub bad_held: Vec<Bad>,
    /// Where it is trained.
    pub device: Device,
    /// The type that is computed in.
    pub dtype: DType,
    /// What is trained beside frozen weights.
    pub peft: Peft,
    /// Whether LoRA stays beside the weights in the result.
    pub keep: bool,
    /// Examples that are computed together.
    pub batch: usize,
    /// Batches of a step.
    pub shards: usize,
    /// The optimiser.
    pub adam: AdamW,
    pub(super) weight_type: WeightType,
    pub(super) wording: Wording,
    pub(super) learn: Examples,
    pub(super) held: Examples,
    pub(super) pictures: Pictures,
}

/// How long a run takes, as far as that can be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Time {
    /// To look at all pictures.
    pub looking: Option<Duration>,
    /// To train, validation left out.
    pub training: Option<Duration>,
    /// Why one of them is not known.
    pub unknown: Option<String>,
}

impl Plan {
    /// Reads the data and settles what `request` leaves open, for a run on `device`.
    ///
    /// # Errors
    ///
    /// When nothing can be learned from the data, the model lacks a part, or what was asked for
    /// cannot be.
    pub fn new(request: Request, device: &Device) -> Result<Self> {
        check(&request)?;
        check_output(&request)?;
        let number = request.stage.number().ok_or(FineTuneError::Stage(request.stage))?;
        let bundle = request.model.open()?;
        let missing = |part| FineTuneError::NoPart { model: bundle.name().to_owned(), part };
        bundle.config().vision.as_ref().ok_or_else(|| missing("vision"))?;
        let captioner = bundle.config().captioner.as_ref();
        let queries = captioner.ok_or_else(|| missing("captioning"))?.queries;
        let language = bundle.config().language.as_ref().ok_or_else(|| missing("language"))?;
        let json = bundle.phi_tokenizer().ok_or_else(|| missing("language"))?;
        let dtype = match (device.is_cpu(), request.dtype) {
            (true, None | Some(DType::F32)) => DType::F32,
            (false, None) => DType::BF16,
            (false, Some(dtype @ (DType::F32 | DType::BF16))) => dtype,
            (_, Some(dtype)) => return Err(FineTuneError::Dtype(dtype)),
        };
        let weight_type = weight_type(&bundle)?;
        let peft = request.peft.clone().unwrap_or_else(|| default_peft(request.stage, language));
        let keep = keeps(&peft, weight_type, &request)?;
        let wording = Wording {
            stage: number,
            prompts: request.prompts,
            room: Room {
                positions: language.max_positions,
                queries,
                answer: request.answer_tokens.unwrap_or(ANSWER_TOKENS[usize::from(number == 4)]),
            },
            tokenizer: PhiTokenizer::from_json(json)?,
        };
        let data = Data::read(&request.data, request.layout, request.images.as_deref())?;
        let mut bad = data.bad.clone();
        let mut bad_held = Vec::new();
        let (learn, held) = match &request.validation {
            Validation::Part(part) => hold_out(data.records.clone(), *part, request.seed),
            Validation::File(path) => {
                let other = Data::read(path, request.layout, request.images.as_deref())?;
                bad_held = other.bad;
                (data.records.clone(), other.records)
            }
        };
        let mut pictures = Pictures::default();
        let (learn, unusable) = Examples::new(learn, &wording, &mut pictures);
        bad.extend(unusable.into_iter().map(|(place, reason)| Bad { place, reason }));
        let (held, unusable) = Examples::new(held, &wording, &mut pictures);
        bad_held.extend(unusable.into_iter().map(|(place, reason)| Bad { place, reason }));
        if learn.list.is_empty() {
            let (count, first) = (data.records.len(), bad.pop());
            return Err(first.map_or(FineTuneError::NoPictures, |first| FineTuneError::Nothing {
                count,
                first,
            }));
        }
        let recipe = request.stage.published();
        let adam = AdamW {
            weight_decay: request.weight_decay.unwrap_or(recipe.adam.weight_decay),
            max_norm: request.clip.or(recipe.adam.max_norm),
            ..recipe.adam
        };
        let mut plan = Self {
            bundle,
            data,
            bad,
            bad_held,
            device: device.clone(),
            dtype,
            peft,
            keep,
            batch: 1,
            shards: 1,
            adam,
            weight_type,
            wording,
            learn,
            held,
            pictures,
            request,
        };
        (plan.batch, plan.shards) = plan.batches(recipe.batch);
        Ok(plan)
    }

    /// Examples of a batch and batches of a step: as many in all as the recipe has, unless
    /// something else was asked for, and as many together as there is room for.
    fn batches(&self, published: usize) -> (usize, usize) {
        let wanted = published.min(self.learn.list.len());
        match (self.request.batch, self.request.accumulate) {
            (Some(batch), accumulate) => (batch, accumulate.unwrap_or(1)),
            (None, Some(accumulate)) => ((wanted / accumulate).max(1), accumulate),
            (None, None) => {
                let fits = |batch: &usize| {
                    let load = Load { batch: *batch, shards: 1, ..self.load() };
                    self.footprint_of(load).activations <= MOST_ACTIVATIONS
                };
                let divisors = (1..=wanted).rev().filter(|n| wanted.is_multiple_of(*n));
                let batch = divisors.into_iter().find(fits).unwrap_or(1);
                (batch, wanted / batch)
            }
        }
    }

    /// Answers to learn, and answers held out.
    pub fn examples(&self) -> (usize, usize) {
        (self.learn.list.len(), self.held.list.len())
    }

    /// Pictures, each counted once.
    pub fn picture_count(&self) -> usize {
        self.pictures.paths.len()
    }

    /// Answers that are longer than what is learned of one.
    pub fn cut(&self) -> usize {
        self.learn.cut
    }

    /// Numbers that are trained.
    pub fn trained(&self) -> u64 {
        trained(self.bundle.config(), self.request.stage, &self.peft)
    }

    /// The learning rates of a run over `examples` answers.
    pub fn schedule(&self, examples: usize) -> Schedule {
        let published = self.request.stage.published().schedule;
        let of_step = (self.batch * self.shards) as f64;
        let total = match self.request.length.unwrap_or(Length::Epochs(EPOCHS)) {
            Length::Steps(steps) => steps,
            Length::Epochs(epochs) => (epochs * examples as f64 / of_step).ceil() as u64,
        };
        let total = total.max(1);
        let peak = self.request.rate.unwrap_or(published.peak);
        Schedule {
            start: published.start.min(peak),
            peak,
            end: published.end * peak / published.peak,
            // A short run must not end before the rate has risen.
            warmup: self.request.warmup.unwrap_or(published.warmup.min(total / 10)),
            total,
        }
    }

    fn load(&self) -> Load {
        let most = |of: fn(&super::examples::Example) -> u32| {
            self.learn.list.iter().map(of).max().unwrap_or(0) as usize
        };
        Load {
            trained: self.trained(),
            batch: self.batch,
            shards: self.shards,
            tokens: most(|e| e.tokens),
            learned: most(|e| e.learned),
        }
    }

    fn footprint_of(&self, load: Load) -> Footprint {
        let is_cpu = self.device.is_cpu();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let together = if is_cpu { cores } else { 1 };
        let place = Where { is_cpu, dtype: self.dtype, together };
        footprint(self.bundle.config(), self.weight_type, load, place)
    }

    /// What the run takes of memory.
    pub fn footprint(&self) -> Footprint {
        self.footprint_of(self.load())
    }

    /// Sizes of the language part with what is added to it.
    pub(super) fn language(&self) -> Result<LanguageConfig> {
        let model = || self.bundle.name().to_owned();
        let language = self.bundle.config().language.as_ref();
        let language =
            language.ok_or_else(|| FineTuneError::NoPart { model: model(), part: "language" })?;
        Ok(self.peft.adapt(language))
    }

    /// The task of learning `learn`.
    pub(super) fn learning<'a>(
        &'a self,
        learn: &'a Examples,
        seen: Seen<'a>,
    ) -> Result<Learning<'a>> {
        Ok(Learning {
            config: self.language()?,
            token_width: self.bundle.config().captioner.as_ref().map_or(0, |c| c.hidden),
            wording: &self.wording,
            examples: learn,
            seen,
            peft: &self.peft,
            batch: self.batch,
            shards: self.shards,
            seed: self.request.seed,
            order: Mutex::new(None),
        })
    }

    /// The tensors that are trained, as they start.
    pub(super) fn parameters(&self) -> Result<Parameters> {
        let weights = self.bundle.weights(&self.device, self.dtype);
        let mut parameters = Parameters::new();
        for spec in tensors_of(self.bundle.config()) {
            if learns(self.request.stage, &spec.name) {
                let value = weights.get_f32(spec.shape.as_slice(), &spec.name)?;
                parameters.insert(spec.name, &value, 1.0)?;
            }
        }
        if let Some(language) = &self.bundle.config().language {
            for (name, value) in self.peft.start(language, &weights, self.request.seed)? {
                parameters.insert(name, &value, 1.0)?;
            }
        }
        Ok(parameters)
    }

    /// Takes the time of one picture and of one answer, forward and backward, where the machine
    /// has room for that.
    ///
    /// # Errors
    ///
    /// When the bundle cannot be read.
    pub fn time(&self) -> Result<Time> {
        let mut time = Time { looking: None, training: None, unknown: None };
        let one = Load { batch: 1, shards: 1, ..self.load() };
        let need = self.footprint_of(one).total();
        if self.device.is_cpu()
            && let Some(free) = free_memory()
            && free < need
        {
            let gigabytes = |bytes: u64| bytes as f64 / 1e9;
            time.unknown = Some(format!(
                "one answer alone takes {:.1} GB of memory, and {:.1} GB are free",
                gigabytes(need),
                gigabytes(free)
            ));
            return Ok(time);
        }
        match time_to_look(&self.bundle, &self.device, &self.pictures.paths) {
            Ok(one) => time.looking = Some(one * self.picture_count() as u32),
            Err(error) => time.unknown = Some(error.to_string()),
        }
        match self.time_of_answer() {
            Ok(one) => {
                let steps = self.schedule(self.learn.list.len()).total;
                let answers = steps * (self.batch * self.shards) as u64;
                time.training = Some(one.mul_f64(answers as f64));
            }
            Err(error) => time.unknown = Some(error.to_string()),
        }
        Ok(time)
    }

    /// Time of one answer of usual length, once everything is loaded.
    fn time_of_answer(&self) -> Result<Duration> {
        let captioner = self.bundle.config().captioner.as_ref();
        let (queries, width) = captioner.map_or((1, 1), |c| (c.queries, c.hidden));
        let task = Learning {
            batch: 1,
            shards: 1,
            ..self.learning(&self.learn, Seen::Blank { queries, width })?
        };
        let parameters = self.parameters()?;
        let weights = self.bundle.weights(&self.device, self.dtype);
        let weights = weights.training(parameters.tensors());
        let once = |step| -> Result<()> {
            task.loss(&weights, step, 0)?.total.backward()?;
            Ok(self.device.synchronize()?)
        };
        once(0)?;
        let begun = Instant::now();
        once(1)?;
        Ok(begun.elapsed())
    }
}
