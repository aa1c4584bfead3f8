//! The stages of TinyGPT-V, on what the stages before them left.

use super::{Outcome, Pace, Recipe, SEED, stages::LANGUAGE_BATCH};
use crate::{
    model::config::LanguageConfig,
    train::{
        Parameters, Peft, Result, Stage,
        nano::{language::Diet, run::Watch},
    },
};

impl Recipe<'_> {
    /// Stage 1.
    pub(super) fn warm_up(&mut self, watch: &mut dyn Watch) -> Result<Outcome> {
        let of = Stage::WarmUp;
        self.published("warm-up", of, Diet::CAPTIONS, (3e-4, 100), 6_000_000, watch)
    }

    /// Stage 2.
    pub(super) fn pretraining(&mut self, watch: &mut dyn Watch) -> Result<Outcome> {
        let of = Stage::Pretraining;
        self.published("pretraining", of, Diet::CAPTIONS, (3e-4, 200), 7_000_000, watch)
    }

    /// Stage 3: its captions are those that the model shall write, and answers go with them.
    pub(super) fn instruction(&mut self, watch: &mut dyn Watch) -> Result<Outcome> {
        let diet = Diet {
            short: 0.0,
            questions: 6,
            statements: 1,
            hard: 4,
            drills: 0,
            dialogues: true,
            long_captions: false,
        };
        let of = Stage::Instruction;
        self.published("instruction", of, diet, (5e-4, 400), 8_000_000, watch)
    }

    /// Stage 4: hard questions and statements more often, and what leads to them kept.
    pub(super) fn multi_task(&mut self, watch: &mut dyn Watch) -> Result<Outcome> {
        let diet = Diet {
            short: 0.1,
            questions: 6,
            statements: 3,
            hard: 6,
            drills: 2,
            dialogues: true,
            long_captions: false,
        };
        let of = Stage::MultiTask;
        self.published("multi-task", of, diet, (5e-4, 1500), 9_000_000, watch)
    }

    /// A stage of TinyGPT-V: it trains what that stage trains, with its low-rank additions, which
    /// then become part of the weights. Data, rates and length are `nano`'s own.
    fn published(
        &mut self,
        name: &'static str,
        stage: Stage,
        diet: Diet,
        (rate, steps): (f64, u64),
        first: u64,
        watch: &mut dyn Watch,
    ) -> Result<Outcome> {
        let (.., language) = self.sizes()?;
        let (language, peft) = (language.clone(), stage.published().peft);
        let weights = self.base.clone().training(self.known.tensors.clone());
        let mut learned = self.specs("language.");
        learned.retain(|spec| stage.trains(&spec.name));
        let mut parameters = Parameters::new();
        self.add(&mut parameters, &learned, 1.0)?;
        for (name, start) in peft.start(&language, &weights, SEED)? {
            parameters.insert(name, &start, 1.0)?;
        }
        let task = self.language_task(diet, false, peft.clone(), first);
        let pace = Pace { rate, warmup: 50, steps, batch: LANGUAGE_BATCH };
        let outcome = self.train(name, task, parameters, pace, watch)?;
        if outcome == Outcome::Finished {
            self.merge(&peft, &language)?;
        }
        Ok(outcome)
    }

    /// Makes low-rank additions part of the weights.
    fn merge(&mut self, peft: &Peft, language: &LanguageConfig) -> Result<()> {
        let find = |name: &str| self.known.tensors.get(name).cloned();
        let mut merged = Vec::new();
        for spec in self.specs("language.") {
            let weight = peft.merged(language, &self.base, find, &spec.name)?;
            merged.extend(weight.map(|weight| (spec.name, weight)));
        }
        self.known.tensors.extend(merged);
        self.known.tensors.retain(|name, _| !name.contains(".lora_"));
        Ok(())
    }
}
