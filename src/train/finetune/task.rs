//! The loss of a step: answers about a batch of pictures.

use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Tensor};

use super::{
    examples::{Example, Examples, Wording},
    tokens::TokenCache,
};
use crate::{
    model::{
        config::LanguageConfig, import::random::Random, phi::Phi, projection::Projection,
        weights::Weights,
    },
    train::{
        Result, ShardLoss, Task, TrainError,
        data::order,
        objectives::{Answers, Example as Learned, answers},
        peft::Peft,
    },
};

/// Where the visual tokens of pictures come from.
#[derive(Debug)]
pub(super) enum Seen<'a> {
    /// From the file, by the record of each picture.
    Cache { cache: &'a TokenCache, slots: &'a [Option<u64>] },
    /// Made up, of this shape: to take the time.
    Blank { queries: usize, width: usize },
}

impl Seen<'_> {
    /// `(pictures, queries, width)` in f32.
    fn tokens(&self, pictures: &[u32], weights: &Weights) -> Result<Tensor> {
        match self {
            Self::Cache { cache, slots } => {
                let slot = |picture: &u32| {
                    slots.get(*picture as usize).copied().flatten().ok_or_else(|| {
                        candle_core::Error::msg(format!("picture {picture} was not looked at"))
                    })
                };
                let slots: Vec<u64> =
                    pictures.iter().map(slot).collect::<candle_core::Result<_>>()?;
                cache.tokens(&slots, weights.device())
            }
            Self::Blank { queries, width } => {
                let shape = (pictures.len(), *queries, *width);
                Ok(Tensor::ones(shape, DType::F32, weights.device())?)
            }
        }
    }
}

/// The task of a fine-tuning.
#[derive(Debug)]
pub(super) struct Learning<'a> {
    /// Sizes of the language part, with the additions.
    pub(super) config: LanguageConfig,
    /// Width of a visual token.
    pub(super) token_width: usize,
    pub(super) wording: &'a Wording,
    pub(super) examples: &'a Examples,
    pub(super) seen: Seen<'a>,
    pub(super) peft: &'a Peft,
    /// Examples of a shard.
    pub(super) batch: usize,
    /// Shards of a step.
    pub(super) shards: usize,
    pub(super) seed: u64,
    /// The order of the epoch that was used last.
    pub(super) order: Mutex<Option<(u64, Vec<u32>)>>,
}

impl Learning<'_> {
    /// The example at `place` of the endless row of epochs, each in an order of its own, and a
    /// number to draw its request with.
    fn example(&self, place: u64) -> (Example, u64) {
        let count = self.examples.list.len();
        let (epoch, at) = (place / count as u64, (place % count as u64) as usize);
        let mut known = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref().is_none_or(|(of, _)| *of != epoch) {
            *known = Some((epoch, order(count, self.seed, epoch)));
        }
        let chosen = known.as_ref().map_or(0, |(_, order)| order[at] as usize);
        (self.examples.list[chosen], self.draw(place))
    }

    /// A number of its own for each `of`.
    fn draw(&self, of: u64) -> u64 {
        let mut random = Random(self.seed ^ of.wrapping_mul(0xd6e8_feb8_6659_fd93));
        random.next();
        random.next()
    }

    /// The networks, with dropout where a `seed` for it is given.
    fn networks(&self, weights: &Weights, dropout: Option<u64>) -> Result<(Projection, Phi)> {
        let language = weights.pp("language");
        let projection = Projection::load(&self.config, self.token_width, &language)?;
        let phi = Phi::load(&self.config, &language)?;
        Ok((
            projection,
            match dropout.and_then(|seed| self.peft.dropout(seed)) {
                Some(dropout) => phi.with_dropout(dropout),
                None => phi,
            },
        ))
    }

    fn answers(
        &self,
        (projection, phi): &(Projection, Phi),
        weights: &Weights,
        examples: &Examples,
        chosen: &[(Example, u64)],
    ) -> Result<Answers> {
        let mut pictures: Vec<u32> = chosen.iter().map(|(e, _)| e.picture).collect();
        pictures.sort_unstable();
        pictures.dedup();
        let ids = chosen
            .iter()
            .map(|(example, draw)| {
                self.wording
                    .ids(examples.exchanges(example), example.exchange as usize, *draw)
                    .map_err(|reason| TrainError::from(candle_core::Error::msg(reason)))
            })
            .collect::<Result<Vec<_>>>()?;
        let learned: Vec<Learned<'_>> = chosen
            .iter()
            .zip(&ids)
            .map(|((example, _), ids)| Learned {
                picture: pictures.partition_point(|p| *p < example.picture) as u32,
                prompt: &ids.prompt,
                answer: &ids.answer,
            })
            .collect();
        let tokens = self.seen.tokens(&pictures, weights)?;
        Ok(answers(phi, projection, &tokens, &learned, self.wording.bos())?)
    }

    /// Mean loss over the tokens that are learned in all of `examples`, without dropout.
    pub(super) fn mean_loss(&self, weights: &Weights, examples: &Examples) -> Result<f64> {
        let networks = self.networks(weights, None)?;
        let (mut sum, mut tokens) = (0.0, 0);
        for chunk in examples.list.chunks(self.batch) {
            let chosen: Vec<_> = chunk.iter().map(|example| (*example, 0)).collect();
            let answers = self.answers(&networks, weights, examples, &chosen)?;
            sum += f64::from(answers.loss.to_scalar::<f32>()?) * answers.tokens as f64;
            tokens += answers.tokens;
        }
        Ok(sum / tokens.max(1) as f64)
    }
}

impl Task for Learning<'_> {
    fn loss(&self, weights: &Weights, step: u64, shard: usize) -> Result<ShardLoss> {
        let part = step * self.shards as u64 + shard as u64;
        let first = part * self.batch as u64;
        let chosen: Vec<_> =
            (first..first + self.batch as u64).map(|place| self.example(place)).collect();
        let networks = self.networks(weights, Some(self.draw(!part)))?;
        let answers = self.answers(&networks, weights, self.examples, &chosen)?;
        Ok(ShardLoss { parts: vec![("right", answers.accuracy)], total: answers.loss })
    }
}
