//! One row of logits: penalties, warpers, and the choice of a token.

use rand::Rng;
use rand::rngs::StdRng;

/// Divides positive and multiplies negative scores of the tokens in `row` by `penalty`, each once.
///
/// Source: Keskar et al., CTRL, 2019, as transformers applies it.
pub(super) fn penalize(scores: &mut [f32], row: &[u32], also: Option<u32>, penalty: f32) {
    let mut seen: Vec<u32> = row.iter().copied().chain(also).collect();
    seen.sort_unstable();
    seen.dedup();
    for id in seen {
        if let Some(score) = scores.get_mut(id as usize) {
            *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
        }
    }
}

/// Temperature, top-k, top-p, in this order: scores of dropped tokens become minus infinity.
///
/// Equal scores at the edge of top-k all stay. At least one token stays.
pub(super) fn warp(scores: &mut [f32], temperature: f32, top_k: usize, top_p: f32) {
    for score in &mut *scores {
        *score /= temperature;
    }
    if top_k > 0 && top_k < scores.len() {
        let mut sorted = scores.to_vec();
        let (_, &mut edge, _) = sorted.select_nth_unstable_by(top_k - 1, |a, b| b.total_cmp(a));
        for score in &mut *scores {
            if *score < edge {
                *score = f32::NEG_INFINITY;
            }
        }
    }
    if top_p < 1.0 {
        let probabilities = softmax(scores);
        let mut order: Vec<usize> =
            (0..scores.len()).filter(|&id| probabilities[id] > 0.0).collect();
        // Least likely first, the later of two equals first: the sum that may go is cut there.
        order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a)));
        let mut below = 0.0;
        for &id in order.iter().take(order.len().saturating_sub(1)) {
            below += probabilities[id];
            if below > 1.0 - f64::from(top_p) {
                break;
            }
            scores[id] = f32::NEG_INFINITY;
        }
    }
}

/// Probabilities of `scores`, summed in f64.
pub(super) fn softmax(scores: &[f32]) -> Vec<f64> {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exps: Vec<f64> = scores.iter().map(|&s| f64::from(s - most).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.into_iter().map(|e| e / sum).collect()
}

/// Log-probabilities of `scores`.
pub(super) fn log_softmax(scores: &mut [f32]) {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = scores.iter().map(|&s| f64::from(s - most).exp()).sum();
    let shift = f64::from(most) + sum.ln();
    for score in scores {
        *score = (f64::from(*score) - shift) as f32;
    }
}

/// The id of the greatest score, the lowest of equals.
pub(super) fn argmax(scores: &[f32]) -> u32 {
    let mut best = 0;
    for (id, &score) in scores.iter().enumerate() {
        if score > scores[best] {
            best = id;
        }
    }
    best as u32
}

/// An id drawn by the probabilities of `scores`.
pub(super) fn draw(scores: &[f32], random: &mut StdRng) -> u32 {
    let probabilities = softmax(scores);
    let mut left: f64 = random.random();
    for (id, probability) in probabilities.iter().enumerate() {
        left -= probability;
        if left < 0.0 {
            return id as u32;
        }
    }
    // Rounding left a little over: the likeliest token takes it.
    argmax(scores)
}

/// Probabilities a token is drawn with after the row `generated`, for every token of `logits`.
///
/// `penalized_from_start` counts as generated. The result sums to 1.
pub fn sampling_probabilities(
    logits: &[f32],
    generated: &[u32],
    decoding: &super::Decoding,
) -> Vec<f32> {
    let mut scores = logits.to_vec();
    decoding.process(&mut scores, generated);
    if let super::Strategy::Sample { temperature, top_k, top_p, .. } = decoding.strategy {
        warp(&mut scores, temperature, top_k, top_p);
    }
    softmax(&scores).into_iter().map(|p| p as f32).collect()
}

/// Mean of minus the log-probability of `targets[i]` under `logits[i]`, in nats.
///
/// Zero for no targets.
///
/// # Panics
///
/// When there are fewer rows of logits than targets, or a target is no token of them.
pub fn cross_entropy(logits: &[Vec<f32>], targets: &[u32]) -> f32 {
    assert!(logits.len() >= targets.len(), "a row of logits a target");
    let sum: f64 = logits
        .iter()
        .zip(targets)
        .map(|(row, &target)| {
            let mut row = row.clone();
            log_softmax(&mut row);
            -f64::from(row[target as usize])
        })
        .sum();
    (sum / targets.len().max(1) as f64) as f32
}
