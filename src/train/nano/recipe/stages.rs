//! The stages that come before those of TinyGPT-V: vision, retrieval, the language model.

use super::{Outcome, Recipe, SHARDS};
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

impl Recipe<'_> {
    pub(super) fn vision(&mut self, watch: &mut dyn Watch) -> Result<Outcome> {
        let (vision, ..) = self.sizes()?;
        let task = VisionTask { config: vision.clone(), batch: 8, shards: SHARDS, first: 0 };
        let mut parameters = Parameters::new();
        self.add(&mut parameters, &self.specs("vit."), 1.0)?;
        self.add_heads(&mut parameters, &vision::heads(vision.width), 1.0)?;
        self.train("vision", task, parameters, (2e-3, 100, 20_000), watch)
    }

    pub(super) fn queries(&mut self, watch: &mut dyn Watch) -> Result<Outcome> {
        let (vision, _, retrieval, _) = self.sizes()?;
        let task = QueriesTask {
            vision: vision.clone(),
            retrieval: retrieval.clone(),
            words: Words::new(self.bert.clone(), retrieval.max_text),
            batch: 16,
            shards: SHARDS,
            first: 1_000_000,
        };
        let mut parameters = Parameters::new();
        self.add(&mut parameters, &self.specs("vit."), 0.1)?;
        self.add_heads(&mut parameters, &vision::heads(vision.width), 0.1)?;
        self.add(&mut parameters, &self.specs("retrieval."), 1.0)?;
        self.add_heads(&mut parameters, &queries::heads(retrieval), 1.0)?;
        self.train("queries", task, parameters, (1e-3, 200, 8000), watch)
    }

    pub(super) fn matching(&mut self, watch: &mut dyn Watch) -> Result<Outcome> {
        // The captioning Q-Former goes on from here as well: it begins as the image side of the
        // retrieval one.
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
        let (vision, _, retrieval, _) = self.sizes()?;
        let task = MatchingTask {
            vision: vision.clone(),
            retrieval: retrieval.clone(),
            words: Words::new(self.bert.clone(), retrieval.max_text),
            batch: 12,
            shards: SHARDS,
            first: 2_000_000,
        };
        let mut parameters = Parameters::new();
        self.add(&mut parameters, &self.specs("retrieval."), 1.0)?;
        self.add(&mut parameters, &WordHead::tensors(retrieval), 1.0)?;
        self.add_heads(&mut parameters, &queries::heads(retrieval), 1.0)?;
        self.add_heads(&mut parameters, &matching::heads(retrieval), 1.0)?;
        self.train("matching", task, parameters, (1e-3, 200, 3600), watch)
    }

    pub(super) fn short(&mut self, watch: &mut dyn Watch) -> Result<Outcome> {
        let diet = Diet {
            short: 1.0,
            questions: 6,
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
            hard: 1,
            drills: 0,
            dialogues: true,
            long_captions: false,
        };
        self.talk("language", diet, true, (1.5e-3, 3500), 4_000_000, watch)
    }

    pub(super) fn relations(&mut self, watch: &mut dyn Watch) -> Result<Outcome> {
        let diet = Diet {
            short: 0.4,
            questions: 6,
            hard: 4,
            drills: 4,
            dialogues: true,
            long_captions: false,
        };
        self.talk("relations", diet, true, (1e-3, 2600), 5_000_000, watch)
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
        let task = self.language_task(diet, queries, Peft::None, first);
        let mut parameters = Parameters::new();
        self.add(&mut parameters, &self.specs("language."), 1.0)?;
        if queries {
            self.add(&mut parameters, &self.specs("captioner."), 0.2)?;
            self.add_heads(&mut parameters, &language::heads(captioner.hidden), 0.2)?;
        }
        self.train(name, task, parameters, (rate, 200, steps), watch)
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
        let (tokenizer, shards) = (self.phi.clone(), SHARDS);
        LanguageTask { config, peft, tokenizer, diet, queries, batch: 8, shards, first }
    }
}
