//! The first half of stage 0: what the queries of the retrieval Q-Former hold, and one space for
//! pictures and sentences.
//!
//! Set prediction binds colours to kinds in the queries, ITC brings sentences beside them; the
//! tower goes on learning what its patches show.

use candle_core::{DType, Module, Tensor};

use super::{heads::HeadSpec, pictures::Pictures, set, vision, words::Words};
use crate::{
    model::{
        config::{RetrievalConfig, VisionConfig},
        eva_vit::EvaVit,
        qformer::RetrievalQFormer,
        weights::Weights,
    },
    train::{
        Result, ShardLoss, Task,
        objectives::{contrastive, temperature},
        scenes::Split,
    },
};

/// Prefix of the heads.
pub const HEADS: &str = "auxiliary.retrieval";
/// Weight of what the tower goes on being asked.
const DENSE: f64 = 0.3;

/// The heads that this stage adds.
pub fn heads(config: &RetrievalConfig) -> Vec<HeadSpec> {
    set::heads(HEADS, config.qformer.hidden)
}

/// Set prediction and ITC.
#[derive(Debug)]
pub struct QueriesTask {
    /// Sizes of the tower.
    pub vision: VisionConfig,
    /// Sizes of the retrieval Q-Former.
    pub retrieval: RetrievalConfig,
    /// Words of sentences.
    pub words: Words,
    /// Pictures of a shard.
    pub batch: usize,
    /// Shards of a step.
    pub shards: usize,
    /// Number of the run's first picture.
    pub first: u64,
}

impl Task for QueriesTask {
    fn loss(&self, weights: &Weights, step: u64, shard: usize) -> Result<ShardLoss> {
        let start = self.first + (step * self.shards as u64 + shard as u64) * self.batch as u64;
        let pictures = Pictures::draw(Split::Train, start, self.batch);
        let vit = EvaVit::load(&self.vision, &weights.pp("vit"))?;
        let pixels = pictures.pixels(weights.device(), weights.dtype())?;
        let tokens = vit.forward(&pixels)?;
        let dense = vision::dense_loss(&self.vision, weights, &tokens, &pictures)?;

        let w = weights.pp("retrieval");
        let qformer = RetrievalQFormer::load(&self.retrieval, self.vision.width, &w)?;
        let (queries, layers) = set::with_layers(|tap| qformer.forward_image_tapped(&tokens, tap))?;
        let (set, early) = set::deep_set_loss(&weights.pp(HEADS), &layers, &pictures.scenes)?;

        let said = self.words.said(&pictures.scenes, start);
        let own = said.iter().map(|said| &said.first);
        let edited = said.iter().filter_map(|said| said.edit.as_ref()).map(|edit| &edit.caption);
        let texts: Vec<Vec<u32>> =
            own.chain(edited).map(|caption| self.words.ids(&caption.text)).collect();
        let features = qformer.text_features(&texts)?;
        let temperature = temperature(&w)?.clamp(0.01, 0.5)?;
        let contrast = contrastive(&qformer.project(&queries)?, &features, &temperature, 0.0)?;

        let total = ((&set.total + &contrast.loss)? + (dense.total * DENSE)?)?;
        let value = |t: &Tensor| t.to_dtype(DType::F32)?.to_scalar::<f32>();
        let kind = dense.parts.iter().find(|(name, _)| *name == "kind%").map_or(0.0, |p| p.1);
        let parts = vec![
            ("set", value(&set.total)?),
            ("pairs%", set.pairs),
            ("early%", early),
            ("exact%", set.exact),
            ("box", set.off),
            ("setting%", set.setting),
            ("itc", value(&contrast.loss)?),
            ("first%", 100.0 * contrast.text_accuracy),
            ("tower%", kind),
        ];
        Ok(ShardLoss { total, parts })
    }
}
