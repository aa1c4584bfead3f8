//! Set prediction on the queries: each says which thing it stands for, or that it stands for none.
//!
//! ITC, ITM and ITG alone leave hardly any pair of a colour and a kind in the queries; this loss
//! puts them there. Source: Carion et al., 2020 (DETR), but for the matching: there any query may
//! take any thing, and which takes which has to settle first. Here each query has a place of its
//! own in a grid over the picture and takes the thing that is nearest; what the queries say
//! decides only between neighbours. As there, a layer below the last is asked as well
//! ([`deep_set_loss`]): what is told apart early leaves the layers above time for the rest.

use candle_core::{D, DType, Module, Result, Tensor};

use super::{
    assignment::assign,
    heads::{HeadSpec, cross_entropy, hits},
};
use crate::{
    model::{
        layers::{Linear, Tap},
        weights::Weights,
    },
    train::scenes::{Colour, Kind, Scene, Setting, TimeOfDay, Weather},
};

/// Most things of a scene.
const MOST_THINGS: usize = 6;
/// Weight of the queries that stand for nothing: some 14 of 16, whose mean this multiplies.
const NOTHING: f64 = 1.0;
/// Weight of the boxes.
const BOX: f64 = 4.0;
/// Weight of the squared distance between a thing and a query's place: from 0.05 of the picture
/// off the middle between two places on, nothing that the queries say outweighs it.
const PLACE: f32 = 40.0;
/// Weight of what the mean query says of the whole.
const WHOLE: f64 = 0.3;
/// Weight of the set that is asked for below the last layer.
const EARLY: f64 = 0.5;
/// How many layers below the last that is: in the recipe's six, right after the second of three
/// looks at the picture.
const BELOW: usize = 3;

/// The heads of [`deep_set_loss`], below `prefix`, for queries of width `hidden`.
pub fn heads(prefix: &str, hidden: usize) -> Vec<HeadSpec> {
    let things = Kind::ALL.len() + 1 + Colour::ALL.len() + 4;
    let own = |prefix: &str| {
        let whole = HeadSpec::linear(prefix, "whole", hidden, wholes().iter().sum());
        [HeadSpec::linear(prefix, "set", hidden, things), whole]
    };
    [own(prefix), own(&format!("{prefix}.early"))].concat()
}

/// Runs `forward` and gives, with what that gives, the states after each layer of the Q-Former:
/// `(batch, positions, hidden)` each.
///
/// # Errors
///
/// As `forward`.
pub fn with_layers<T>(forward: impl FnOnce(&mut Tap<'_>) -> Result<T>) -> Result<(T, Vec<Tensor>)> {
    let mut layers = Vec::new();
    let mut keep = |name: &str, states: &Tensor| {
        let number = name.strip_prefix("qformer.layer").map(str::parse::<usize>);
        if let Some(Ok(_)) = number {
            layers.push(states.clone());
        }
    };
    let given = forward(&mut Tap::new(&mut keep))?;
    Ok((given, layers))
}

/// The loss of the queries after each layer ([`with_layers`]): of the last ones, and half as
/// strongly of those three layers below, or of the first where there are not so many. `total` is of
/// both, the numbers to show are those of the last; the second value is the percentage of pairs
/// that are right below.
///
/// # Errors
///
/// When shapes do not fit or there is no layer.
pub fn deep_set_loss(
    weights: &Weights,
    layers: &[Tensor],
    scenes: &[Scene],
) -> Result<(SetLoss, f32)> {
    let Some((last, below)) = layers.split_last() else { candle_core::bail!("no layer") };
    let early = below.len().checked_sub(BELOW).and_then(|at| below.get(at));
    let early = set_loss(&weights.pp("early"), early.unwrap_or(&layers[0]), scenes)?;
    let mut set = set_loss(weights, last, scenes)?;
    set.total = (set.total + (early.total * EARLY)?)?;
    Ok((set, early.pairs))
}

fn wholes() -> [usize; 3] {
    [Setting::ALL.len(), TimeOfDay::ALL.len(), Weather::ALL.len()]
}

/// A loss with numbers to show.
#[derive(Debug)]
pub struct SetLoss {
    /// The scalar to minimise.
    pub total: Tensor,
    /// Percentage of things whose query has kind and colour right.
    pub pairs: f32,
    /// Percentage of scenes in which every query says the right kind and colour, or nothing.
    pub exact: f32,
    /// Mean error of the boxes' numbers, in parts of the picture.
    pub off: f32,
    /// Percentage of settings said rightly.
    pub setting: f32,
    /// Queries `(picture, query, thing)` that were matched.
    pub matched: Vec<(usize, usize, usize)>,
}

/// The loss of queries `(pictures, queries, hidden)` that look at `scenes`.
///
/// # Errors
///
/// When shapes do not fit.
pub fn set_loss(weights: &Weights, queries: &Tensor, scenes: &[Scene]) -> Result<SetLoss> {
    let (kinds, colours) = (Kind::ALL.len(), Colour::ALL.len());
    let (pictures, places, hidden) = queries.dims3()?;
    let flat = queries.reshape((pictures * places, hidden))?;
    let seen = Linear::load(&weights.pp("set"), hidden, kinds + 1 + colours + 4)?.forward(&flat)?;
    let kind = seen.narrow(1, 0, kinds + 1)?.contiguous()?;
    let colour = seen.narrow(1, kinds + 1, colours)?.contiguous()?;
    let boxes = seen.narrow(1, kinds + 1 + colours, 4)?.contiguous()?;

    let matched = matching(&kind, &colour, scenes, places)?;
    let rows = pictures * places;
    let (mut own_kinds, mut no_kinds) = (vec![u32::MAX; rows], vec![kinds as u32; rows]);
    let mut own_colours = vec![u32::MAX; rows];
    let (mut own_boxes, mut mask) = (vec![0.0_f32; 4 * rows], vec![0.0_f32; rows]);
    for &(picture, query, thing) in &matched {
        let (row, own) = (picture * places + query, &scenes[picture].things[thing]);
        own_kinds[row] = own.kind as u32;
        no_kinds[row] = u32::MAX;
        own_colours[row] = own.colour as u32;
        own_boxes[4 * row..4 * row + 4].copy_from_slice(&[own.x, own.y, own.width, own.height]);
        mask[row] = 1.0;
    }
    let device = queries.device();
    let numbers = matched.len().max(1) as f64 * 4.0;
    let own_boxes = Tensor::from_vec(own_boxes, (rows, 4), device)?.to_dtype(boxes.dtype())?;
    let mask = Tensor::from_vec(mask, (rows, 1), device)?.to_dtype(boxes.dtype())?;
    let off = ((&boxes - own_boxes)?.abs()?.broadcast_mul(&mask)?.sum_all()? / numbers)?;
    let mut total = (cross_entropy(&kind, &own_kinds)? + cross_entropy(&colour, &own_colours)?)?;
    total = (total + (cross_entropy(&kind, &no_kinds)? * NOTHING)?)?;
    total = (total + (&off * BOX)?)?;

    let seen = Linear::load(&weights.pp("whole"), hidden, wholes().iter().sum())?
        .forward(&queries.mean(1)?)?;
    let (mut at, mut setting) = (0, 0.0);
    for (i, size) in wholes().into_iter().enumerate() {
        let logits = seen.narrow(D::Minus1, at, size)?.contiguous()?;
        let target = |s: &Scene| [s.setting as u32, s.time as u32, s.weather as u32][i];
        let targets: Vec<u32> = scenes.iter().map(target).collect();
        total = (total + (cross_entropy(&logits, &targets)? * WHOLE)?)?;
        if i == 0 {
            setting = hits(&logits, &targets)?;
        }
        at += size;
    }
    let (pairs, exact) = score(&kind, &colour, scenes, places, &matched)?;
    let off = off.to_dtype(DType::F32)?.to_scalar::<f32>()?;
    Ok(SetLoss { total, pairs, exact, off, setting, matched })
}

/// Where query `query` of `queries` looks: the middle of its cell of a square grid, row by row.
fn place(query: usize, queries: usize) -> (f32, f32) {
    let side = queries.isqrt().max(1);
    let middle = |cell: usize| (cell as f32 + 0.5) / side as f32;
    (middle(query % side), middle(query / side % side))
}

/// The cheapest matching of things and queries.
fn matching(
    kind: &Tensor,
    colour: &Tensor,
    scenes: &[Scene],
    places: usize,
) -> Result<Vec<(usize, usize, usize)>> {
    let softmax = |t: &Tensor| -> Result<Vec<Vec<f32>>> {
        candle_nn::ops::softmax_last_dim(&t.detach())?.to_dtype(DType::F32)?.to_vec2::<f32>()
    };
    let (kind, colour) = (softmax(kind)?, softmax(colour)?);
    let mut matched = Vec::new();
    for (picture, scene) in scenes.iter().enumerate() {
        let things = &scene.things[..scene.things.len().min(MOST_THINGS)];
        let mut cost = Vec::with_capacity(things.len() * places);
        for thing in things {
            for query in 0..places {
                let row = picture * places + query;
                let said = kind[row][thing.kind as usize] + colour[row][thing.colour as usize];
                let (x, y) = place(query, places);
                let off = (thing.x - x).powi(2) + (thing.y - y).powi(2);
                cost.push(PLACE * off - 0.5 * said);
            }
        }
        let assigned = assign(&cost, places);
        matched.extend(assigned.iter().enumerate().map(|(thing, &query)| (picture, query, thing)));
    }
    Ok(matched)
}

/// Percentages of right pairs and of wholly right scenes.
fn score(
    kind: &Tensor,
    colour: &Tensor,
    scenes: &[Scene],
    places: usize,
    matched: &[(usize, usize, usize)],
) -> Result<(f32, f32)> {
    let best = |t: &Tensor| t.detach().argmax(D::Minus1)?.to_vec1::<u32>();
    let (kind, colour) = (best(kind)?, best(colour)?);
    let mut wrong = vec![0_usize; scenes.len()];
    let mut nothing = vec![true; kind.len()];
    let mut right = 0;
    for &(picture, query, thing) in matched {
        let (row, own) = (picture * places + query, &scenes[picture].things[thing]);
        nothing[row] = false;
        let said = kind[row] == own.kind as u32 && colour[row] == own.colour as u32;
        right += usize::from(said);
        wrong[picture] += usize::from(!said);
    }
    for (row, _) in nothing.iter().enumerate().filter(|(_, nothing)| **nothing) {
        wrong[row / places] += usize::from(kind[row] != Kind::ALL.len() as u32);
    }
    let part = |n: usize, of: usize| 100.0 * n as f32 / of.max(1) as f32;
    let exact = wrong.iter().filter(|wrong| **wrong == 0).count();
    Ok((part(right, matched.len()), part(exact, scenes.len())))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::{
        model::{bundle::tests::small_config, gradcheck::Trained},
        train::{Parameters, scenes::Split},
    };

    #[test]
    fn a_layer_below_the_last_is_asked_too() {
        let scenes: Vec<Scene> = (0..3).map(|i| Scene::generate(Split::Train, i)).collect();
        let mut parameters = Parameters::new();
        for head in heads("own", 8) {
            head.add(&mut parameters, 1, &Device::Cpu).unwrap();
        }
        let base = Trained::random(&small_config(), |_| false).weights();
        let weights = base.training(parameters.tensors());
        let state = |value: f32| Tensor::full(value, (3, 16, 8), &Device::Cpu).unwrap();
        let total = |prefix: &str, value: f32| {
            let loss = set_loss(&weights.pp(prefix), &state(value), &scenes).unwrap();
            loss.total.to_scalar::<f32>().unwrap()
        };
        let deep = |values: &[f32]| {
            let layers: Vec<Tensor> = values.iter().copied().map(state).collect();
            let (set, _) = deep_set_loss(&weights.pp("own"), &layers, &scenes).unwrap();
            set.total.to_scalar::<f32>().unwrap()
        };
        let close = |got: f32, last: f32, early: f32| {
            let expected = total("own", last) + 0.5 * total("own.early", early);
            assert!((got - expected).abs() < 1e-4, "{got} {expected}");
        };
        close(deep(&[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), 0.6, 0.3);
        close(deep(&[0.1, 0.6]), 0.6, 0.1);
        close(deep(&[0.6]), 0.6, 0.6);
        assert!(deep_set_loss(&weights.pp("own"), &[], &scenes).is_err());
    }

    #[test]
    fn the_states_of_layers_come_in_their_order() {
        let one = |value: f32| Tensor::new(&[value], &Device::Cpu).unwrap();
        let (given, layers) = with_layers(|tap| {
            tap.see("ln_vision", &one(9.0));
            tap.see("qformer.layer0.self", &one(8.0));
            tap.see("qformer.layer0", &one(0.0));
            tap.see("qformer.layer1", &one(1.0));
            tap.see("qformer.last_hidden", &one(7.0));
            Ok(7)
        })
        .unwrap();
        let layers: Vec<f32> = layers.iter().map(|it| it.to_vec1::<f32>().unwrap()[0]).collect();
        assert_eq!((given, layers), (7, vec![0.0, 1.0]));
    }

    #[test]
    fn each_thing_is_taken_by_the_query_at_its_place() {
        assert_eq!(place(0, 16), (0.125, 0.125));
        assert_eq!(place(7, 16), (0.875, 0.375));
        let scenes: Vec<Scene> = (0..40).map(|i| Scene::generate(Split::Train, i)).collect();
        let silent = |n| Tensor::zeros((40 * 16, n), DType::F32, &Device::Cpu).unwrap();
        let (kind, colour) = (silent(Kind::ALL.len() + 1), silent(Colour::ALL.len()));
        let matched = matching(&kind, &colour, &scenes, 16).unwrap();
        let things: usize = scenes.iter().map(|s| s.things.len()).sum();
        assert_eq!(matched.len(), things);
        let near = matched.iter().filter(|(picture, query, thing)| {
            let (thing, (x, y)) = (&scenes[*picture].things[*thing], place(*query, 16));
            (thing.x - x).abs() <= 0.125 && (thing.y - y).abs() <= 0.125
        });
        // Some share a cell with another one.
        assert!(near.count() * 10 >= things * 9);
        let (_, exact) = score(&kind, &colour, &scenes, 16, &matched).unwrap();
        assert_eq!(exact, 0.0);
    }
}
