//! The vision tower alone: what every patch and every thing shows, which the drawing knows.
//!
//! A tower that only learns to match whole sentences stays blind for shapes for a long time and
//! never keeps places. So each patch token is asked for the kind, the colour and the box of the
//! thing that covers it and for its own place, the mean of a thing's patches for the same, and
//! the class token for the setting, the time, the weather and the number of things.

use candle_core::{D, DType, IndexOp, Module, Result as TensorResult, Tensor};

use super::{
    heads::{HeadSpec, cross_entropy, hits},
    pictures::Pictures,
};
use crate::{
    model::{
        config::VisionConfig,
        eva_vit::EvaVit,
        layers::{LayerNorm, Linear},
        weights::Weights,
    },
    train::{
        Result, ShardLoss, Task,
        scenes::{Colour, Kind, Setting, Split, TimeOfDay, Weather},
    },
};

/// Most things of a scene.
const MOST_THINGS: usize = 6;
/// Weight of the patches that show no thing.
const NOTHING: f64 = 0.2;
/// Weights of the losses beside those of kinds.
const COLOUR: f64 = 0.5;
const BOX: f64 = 4.0;
const PLACE: f64 = 1.0;
const WHOLE: f64 = 0.2;

/// Prefix of the heads.
pub const HEADS: &str = "auxiliary.vision";

/// The heads that this stage adds, for a tower of `width`.
pub fn heads(width: usize) -> Vec<HeadSpec> {
    vec![
        HeadSpec::norm(HEADS, "norm", width),
        HeadSpec::linear(HEADS, "patch", width, Kind::ALL.len() + 1 + Colour::ALL.len() + 6),
        HeadSpec::linear(HEADS, "thing", width, Kind::ALL.len() + Colour::ALL.len() + 4),
        HeadSpec::linear(HEADS, "whole", width, wholes().iter().sum()),
    ]
}

/// Classes of what the class token says: setting, time, weather, number of things.
fn wholes() -> [usize; 4] {
    [Setting::ALL.len(), TimeOfDay::ALL.len(), Weather::ALL.len(), MOST_THINGS + 1]
}

/// Dense supervision of the tower.
#[derive(Debug)]
pub struct VisionTask {
    /// Sizes of the tower.
    pub config: VisionConfig,
    /// Pictures of a shard.
    pub batch: usize,
    /// Shards of a step.
    pub shards: usize,
    /// Number of the run's first picture.
    pub first: u64,
}

impl Task for VisionTask {
    fn loss(&self, weights: &Weights, step: u64, shard: usize) -> Result<ShardLoss> {
        let start = self.first + (step * self.shards as u64 + shard as u64) * self.batch as u64;
        let pictures = Pictures::draw(Split::Train, start, self.batch);
        let vit = EvaVit::load(&self.config, &weights.pp("vit"))?;
        let tokens = vit.forward(&pictures.pixels(weights.device(), weights.dtype())?)?;
        Ok(dense_loss(&self.config, weights, &tokens, &pictures)?)
    }
}

/// The losses of the tokens `(batch, 1 + patches, width)` of `pictures`.
///
/// # Errors
///
/// When shapes do not fit.
pub fn dense_loss(
    config: &VisionConfig,
    weights: &Weights,
    tokens: &Tensor,
    pictures: &Pictures,
) -> TensorResult<ShardLoss> {
    let (kinds, colours) = (Kind::ALL.len(), Colour::ALL.len());
    let w = weights.pp(HEADS);
    let head = |name, outputs| Linear::load(&w.pp(name), config.width, outputs);
    let tokens = LayerNorm::load(&w.pp("norm"), config.width, 1e-5)?.forward(tokens)?;
    let (batch, all, width) = tokens.dims3()?;
    let patches = tokens.narrow(1, 1, all - 1)?.contiguous()?;
    let labels = Labels::new(pictures, ((all - 1) as f64).sqrt().round() as usize);

    // What each patch shows.
    let flat = patches.reshape((batch * (all - 1), width))?;
    let seen = head("patch", kinds + 1 + colours + 6)?.forward(&flat)?;
    let kind = seen.narrow(1, 0, kinds + 1)?.contiguous()?;
    let covered = cross_entropy(&kind, &labels.covered_kinds)?;
    let bare = cross_entropy(&kind, &labels.bare)?;
    let colour = seen.narrow(1, kinds + 1, colours)?.contiguous()?;
    let patch_colour = cross_entropy(&colour, &labels.patch_colours)?;
    let numbers = seen.narrow(1, kinds + 1 + colours, 6)?;
    let place = distance(&numbers.narrow(1, 0, 2)?, &labels.places, None)?;
    let patch_box = distance(&numbers.narrow(1, 2, 4)?, &labels.patch_boxes, Some(&labels.owned))?;

    // What each thing is.
    let device = tokens.device();
    let pool = Tensor::from_slice(&labels.pool, (batch, MOST_THINGS, all - 1), device)?;
    let things = pool.to_dtype(tokens.dtype())?.matmul(&patches)?;
    let things = things.reshape((batch * MOST_THINGS, width))?;
    let seen = head("thing", kinds + colours + 4)?.forward(&things)?;
    let kind = seen.narrow(1, 0, kinds)?.contiguous()?;
    let thing_kind = cross_entropy(&kind, &labels.thing_kinds)?;
    let colour = seen.narrow(1, kinds, colours)?.contiguous()?;
    let thing_colour = cross_entropy(&colour, &labels.thing_colours)?;
    let boxes = seen.narrow(1, kinds + colours, 4)?;
    let thing_box = distance(&boxes, &labels.thing_boxes, Some(&labels.things))?;

    // The whole.
    let sizes = wholes();
    let seen = head("whole", sizes.iter().sum())?.forward(&tokens.i((.., 0))?.contiguous()?)?;
    let mut at = 0;
    let mut wholes = Vec::new();
    for (size, targets) in sizes.into_iter().zip(&labels.wholes) {
        let logits = seen.narrow(D::Minus1, at, size)?.contiguous()?;
        wholes.push((cross_entropy(&logits, targets)?, hits(&logits, targets)?));
        at += size;
    }

    let mut total = ((&thing_kind + &covered)? + (bare * NOTHING)?)?;
    total = (total + ((&patch_colour + &thing_colour)? * COLOUR)?)?;
    total = (total + (((&patch_box + &thing_box)? * BOX)? + (&place * PLACE)?)?)?;
    for (loss, _) in &wholes {
        total = (total + (loss * WHOLE)?)?;
    }
    let value = |t: &Tensor| t.to_dtype(DType::F32)?.to_scalar::<f32>();
    let parts = vec![
        ("kind", value(&thing_kind)?),
        ("kind%", hits(&kind, &labels.thing_kinds)?),
        ("colour%", hits(&colour, &labels.thing_colours)?),
        ("box", value(&thing_box)?),
        ("place", value(&place)?),
        ("setting%", wholes[0].1),
        ("number%", wholes[3].1),
    ];
    Ok(ShardLoss { total, parts })
}

/// Mean absolute difference of `(rows, n)` numbers, over the rows whose mask is one.
fn distance(got: &Tensor, expected: &[f32], mask: Option<&[f32]>) -> TensorResult<Tensor> {
    let (rows, n) = got.dims2()?;
    let expected = Tensor::from_slice(expected, (rows, n), got.device())?.to_dtype(got.dtype())?;
    let off = (got - expected)?.abs()?;
    let Some(mask) = mask else { return off.mean_all() };
    let count = mask.iter().sum::<f32>().max(1.0) * n as f32;
    let mask = Tensor::from_slice(mask, (rows, 1), got.device())?.to_dtype(got.dtype())?;
    off.broadcast_mul(&mask)?.sum_all()? / f64::from(count)
}

/// What is right, as flat lists over the pictures.
struct Labels {
    /// Kind of the owner of each patch; ignored where it has none.
    covered_kinds: Vec<u32>,
    /// The class "nothing" where a patch has no owner; ignored elsewhere.
    bare: Vec<u32>,
    patch_colours: Vec<u32>,
    patch_boxes: Vec<f32>,
    owned: Vec<f32>,
    places: Vec<f32>,
    /// `(batch, MOST_THINGS, patches)`: the mean over a thing's patches.
    pool: Vec<f32>,
    thing_kinds: Vec<u32>,
    thing_colours: Vec<u32>,
    thing_boxes: Vec<f32>,
    things: Vec<f32>,
    wholes: [Vec<u32>; 4],
}

impl Labels {
    fn new(pictures: &Pictures, side: usize) -> Self {
        const IGNORED: u32 = u32::MAX;
        let (batch, patches) = (pictures.scenes.len(), side * side);
        let mut labels = Self {
            covered_kinds: vec![IGNORED; batch * patches],
            bare: vec![IGNORED; batch * patches],
            patch_colours: vec![IGNORED; batch * patches],
            patch_boxes: vec![0.0; 4 * batch * patches],
            owned: vec![0.0; batch * patches],
            places: Vec::with_capacity(2 * batch * patches),
            pool: vec![0.0; batch * MOST_THINGS * patches],
            thing_kinds: vec![IGNORED; batch * MOST_THINGS],
            thing_colours: vec![IGNORED; batch * MOST_THINGS],
            thing_boxes: vec![0.0; 4 * batch * MOST_THINGS],
            things: vec![0.0; batch * MOST_THINGS],
            wholes: Default::default(),
        };
        for (row, scene) in pictures.scenes.iter().enumerate() {
            let owners = scene.owners(side);
            for (patch, owner) in owners.iter().enumerate() {
                let at = row * patches + patch;
                let middle = |i: usize| (i as f32 + 0.5) / side as f32;
                labels.places.extend([middle(patch % side), middle(patch / side)]);
                let Some(thing) = owner.map(usize::from).filter(|&t| t < MOST_THINGS) else {
                    labels.bare[at] = Kind::ALL.len() as u32;
                    continue;
                };
                let own = &scene.things[thing];
                labels.covered_kinds[at] = own.kind as u32;
                labels.patch_colours[at] = own.colour as u32;
                labels.patch_boxes[4 * at..4 * at + 4]
                    .copy_from_slice(&[own.x, own.y, own.width, own.height]);
                labels.owned[at] = 1.0;
                labels.pool[(row * MOST_THINGS + thing) * patches + patch] = 1.0;
            }
            for (i, thing) in scene.things.iter().take(MOST_THINGS).enumerate() {
                let at = row * MOST_THINGS + i;
                let pool = &mut labels.pool[at * patches..(at + 1) * patches];
                let covered: f32 = pool.iter().sum();
                if covered == 0.0 {
                    continue;
                }
                for part in pool {
                    *part /= covered;
                }
                labels.thing_kinds[at] = thing.kind as u32;
                labels.thing_colours[at] = thing.colour as u32;
                labels.thing_boxes[4 * at..4 * at + 4].copy_from_slice(&[
                    thing.x,
                    thing.y,
                    thing.width,
                    thing.height,
                ]);
                labels.things[at] = 1.0;
            }
            let number = scene.things.len().min(MOST_THINGS) as u32;
            let whole = [scene.setting as u32, scene.time as u32, scene.weather as u32, number];
            for (list, value) in labels.wholes.iter_mut().zip(whole) {
                list.push(value);
            }
        }
        labels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_patch_and_every_thing_has_one_label() {
        let pictures = Pictures::draw(Split::Train, 40, 12);
        let labels = Labels::new(&pictures, 8);
        let known = |list: &[u32]| list.iter().filter(|&&label| label != u32::MAX).count();
        let covered = known(&labels.covered_kinds);
        assert_eq!(covered + known(&labels.bare), 12 * 64);
        assert_eq!(covered, known(&labels.patch_colours));
        assert_eq!(covered as f32, labels.owned.iter().sum::<f32>());
        let things: usize = pictures.scenes.iter().map(|scene| scene.things.len()).sum();
        let seen = known(&labels.thing_kinds);
        assert!(seen <= things && seen * 10 >= things * 9, "{seen} of {things}");
        for pool in labels.pool.chunks(64) {
            let sum: f32 = pool.iter().sum();
            assert!(sum == 0.0 || (sum - 1.0).abs() < 1e-5, "{sum}");
        }
        assert!(labels.wholes.iter().all(|list| list.len() == 12));
        assert_eq!(&labels.places[..4], [0.0625, 0.0625, 0.1875, 0.0625]);
    }

    #[test]
    fn distances_count_only_what_the_mask_lets_through() {
        let got = Tensor::new(&[[1.0_f32, 2.0], [5.0, 5.0]], &candle_core::Device::Cpu).unwrap();
        let mask = Some(&[1.0, 0.0][..]);
        let off = distance(&got, &[0.0, 4.0, 9.0, 9.0], mask).unwrap();
        assert_eq!(off.to_scalar::<f32>().unwrap(), 1.5);
        let all = distance(&got, &[0.0, 4.0, 9.0, 9.0], None).unwrap();
        assert_eq!(all.to_scalar::<f32>().unwrap(), 2.75);
    }
}
