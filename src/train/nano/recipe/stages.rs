//! The stages that come before those of TinyGPT-V: vision, retrieval, the language model.

use candle_core::Tensor;

use super::{Outcome, Pace, Recipe, SHARDS};
use crate::train::{
    Parameters, Peft, Result,
    nano::{
        language::{self, Diet, LanguageTask},
        matching::{self, MatchingTask},
        queries::{self, QueriesTask},
        run::Watch,
        vision::{self, VisionTask},
        words::Words,
    },
    objectives::WordHead,
};

/// Pictures of a shard where the language model learns.
pub(super) const LANGUAGE_BATCH: usize = 8;

impl Recipe<'_> {
    pub(super) fn vision(&mut self, watch: &mut dyn Watch) -> Result<Outcome> {
        let (vision, ..) = self.sizes()?;
        let pace = Pace { rate: 2e-3, warmup: 100, steps: 30_000, batch: 8 };
        let (config, batch) = (vision.clone(), pace.batch);
        let task = VisionTask { config, batch, shards: SHARDS, first: 0 };
        let mut parameters = Parameters::new();
        self.add(&mut parameters, &self.specs("vit."), 1.0)?;
        self.add_heads(&mut parameters, &vision::heads(vision.width), 1.0)?;
        self.train("vision", task, parameters, pace, watch)
    }

    pub(super) fn queries(&mut self, watch: &mut dyn Watch) -> Result<Outcome> {
        let (vision, _, retrieval, _) = self.sizes()?;
        let pace = Pace { rate: 1e-3, warmup: 200, steps: 12_000, batch: 16 };
        let task = QueriesTask {
            vision: vision.clone(),
            retrieval: retrieval.clone(),
            words: Words::new(self.bert.clone(), retrieval.max_text),
            batch: pace.batch,
            shards: SHARDS,
            first: 1_000_000,
        };
        let mut parameters = Parameters::new();
        self.add(&mut parameters, &self.specs("vit."), 0.1)?;
        self.add_heads(&mut parameters, &vision::heads(vision.width), 0.1)?;
        self.add(&mut parameters, &self.specs("retrieval."), 1.0)?;
        self.add_heads(&mut parameters, &queries::heads(retrieval), 1.0)?;
        self.train("queries", task, parameters, pace, watch)
    }

    pub(super) fn matching(&mut self, watch: &mut dyn Watch) -> Result<Outcome> {
        // The captioning Q-Former goes on from here as well: it begins as the image side of the
        // retrieval one.
        let own: Vec<String> = self.specs("captioner.").into_iter().map(|s| s.name).collect();
        for name in own {
            let of = name.replacen("captioner.", "retrieval.", 1);
            if let Some(value) = self.known.tensors.get(&of) {
                self.known.tensors.insert(name, value.clone());
            }
        }
        let heads = self.known.tensors.iter().filter_map(|(name, value)| {
            let below = name.strip_prefix(queries::HEADS)?;
            Some((format!("{}{below}", language::HEADS), value.clone()))
        });
        let heads: Vec<(String, Tensor)> = heads.collect();
        self.known.tensors.extend(heads);
        let (vision, _, retrieval, _) = self.sizes()?;
        let pace = Pace { rate: 1e-3, warmup: 200, steps: 4000, batch: 12 };
        let task = MatchingTask {
            vision: vision.clone(),
            retrieval: retrieval.clone(),
            words: Words::new(self.bert.clone(), retrieval.max_text),
            batch: pace.batch,
            shards: SHARDS,
            first: 2_000_000,
        };
        let mut parameters = Parameters::new();
        self.add(&mut parameters, &self.specs("retrieval."), 1.0)?;
        self.add(&mut parameters, &WordHead::tensors(retrieval), 1.0)?;
        self.add_heads(&mut parameters, &queries::heads(retrieval), 1.0)?;
        self.add_heads(&mut parameters, &matching::heads(retrieval), 1.0)?;
        self.train("matching", task, parameters, pace, watch)
    }

    pub(super) fn short(&mut self, watch: &mut dyn Watch) -> Result<Outcome> {
        let diet = Diet {
            short: 1.0,
            questions: 6,
            statements: 1,
            hard: 1,
            drills: 0,
            dialogues: false,
            long_captions: false,
        };
        self.talk("short", diet, false, (1.5e-3, 1800), 3_000_000, watch)
    }

    pub(super) fn language(&mut self, watch: &mut dyn Watch) -> Result<Outcome> {
        let diet = Diet {
            short: 0.3,
            questions: 7,
            statements: 1,
            hard: 1,
            drills: 0,
            dialogues: true,
            long_captions: false,
        };
        self.talk("language", diet, true, (1.5e-3, 3000), 4_000_000, watch)
    }

    pub(super) fn relations(&mut self, watch: &mut dyn Watch) -> Result<Outcome> {
        // The queries know their places by now: what is missing is the language model's alone.
        let diet = Diet {
            short: 0.4,
            questions: 5,
            statements: 1,
            hard: 8,
            drills: 5,
            dialogues: true,
            long_captions: false,
        };
        self.talk("relations", diet, false, (1e-3, 2500), 5_000_000, watch)
    }

    /// The whole language model, and with `queries` the captioning Q-Former.
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
        let pace = Pace { rate, warmup: 200, steps, batch: LANGUAGE_BATCH };
        let task = self.language_task(diet, queries, Peft::None, first);
        let mut parameters = Parameters::new();
        self.add(&mut parameters, &self.specs("language."), 1.0)?;
        if queries {
            self.add(&mut parameters, &self.specs("captioner."), 0.2)?;
            self.add_heads(&mut parameters, &language::heads(captioner.hidden), 0.2)?;
        }
        self.train(name, task, parameters, pace, watch)
    }

    pub(super) fn language_task(
        &self,
        diet: Diet,
        queries: bool,
        peft: Peft,
        first: u64,
    ) -> LanguageTask {
        let mut config = self.config.clone();
        config.language = config.language.map(|language| peft.adapt(&language));
        let (tokenizer, shards, batch) = (self.phi.clone(), SHARDS, LANGUAGE_BATCH);
        LanguageTask { config, peft, tokenizer, diet, queries, batch, shards, first }
    }
}
