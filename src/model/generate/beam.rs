//! Beam search, step for step as transformers 4.36.2 does it (`BeamSearchScorer`,
//! `early_stopping=False`).

use candle_core::{Result, Tensor};

use super::{Decoding, LanguageModel, sampling};

/// A finished sequence with its score.
struct Hypothesis {
    score: f64,
    ids: Vec<u32>,
}

/// The best finished sequences, at most `most` of them.
struct Hypotheses {
    most: usize,
    length_penalty: f32,
    kept: Vec<Hypothesis>,
}

impl Hypotheses {
    fn worst(&self) -> f64 {
        self.kept.iter().map(|h| h.score).fold(f64::INFINITY, f64::min)
    }

    /// Keeps `ids` if it is among the best; its score is the sum over `scored^length_penalty`,
    /// in which the stop token counts.
    fn add(&mut self, ids: Vec<u32>, log_probability: f32, scored: usize) {
        let score = self.score(log_probability, scored);
        if self.kept.len() < self.most || score > self.worst() {
            self.kept.push(Hypothesis { score, ids });
            if self.kept.len() > self.most {
                let worst = self.worst();
                if let Some(at) = self.kept.iter().position(|h| h.score <= worst) {
                    self.kept.remove(at);
                }
            }
        }
    }

    /// Whether no sequence that goes on can still enter: even the best one, scored as if it ended
    /// now, is no better than the worst that is kept.
    fn is_done(&self, best_log_probability: f32, length: usize) -> bool {
        self.kept.len() >= self.most && self.worst() >= self.score(best_log_probability, length)
    }

    fn score(&self, log_probability: f32, length: usize) -> f64 {
        f64::from(log_probability) / (length as f64).powf(f64::from(self.length_penalty))
    }

    fn best(self) -> Vec<u32> {
        // Of equals the one that came last wins, as a stable ascending sort gives it.
        self.kept.into_iter().max_by(|a, b| a.score.total_cmp(&b.score)).map_or(vec![], |h| h.ids)
    }
}

/// The best sequence after `prompt`, one prompt of `(tokens, hidden)`.
pub(super) fn search(
    model: &mut dyn LanguageModel,
    prompt: &[Tensor],
    decoding: &Decoding,
    beams: usize,
    length_penalty: f32,
    is_finished: &mut dyn FnMut(&[u32]) -> bool,
) -> Result<Vec<u32>> {
    let mut finished = Hypotheses { most: beams, length_penalty, kept: Vec::new() };
    let mut rows: Vec<Vec<u32>> = vec![Vec::new(); beams];
    // All beams start equal, so only the first may propose.
    let mut totals: Vec<f32> = (0..beams).map(|i| if i == 0 { 0.0 } else { -1e9 }).collect();
    let mut logits = model.prefill(prompt)?;
    model.select(&vec![0; beams])?;
    logits = logits.repeat((beams, 1))?;
    for length in 1..=decoding.max_new_tokens {
        let mut candidates = Vec::new();
        for (beam, mut scores) in logits.to_vec2::<f32>()?.into_iter().enumerate() {
            sampling::log_softmax(&mut scores);
            decoding.process(&mut scores, &rows[beam]);
            let with_totals = scores
                .iter()
                .enumerate()
                .map(|(id, &score)| (score + totals[beam], beam, id as u32));
            candidates.extend(with_totals);
        }
        let wanted = (1 + decoding.stop_tokens.len()).max(2) * beams;
        let wanted = wanted.min(candidates.len());
        let by_score = |a: &(f32, usize, u32), b: &(f32, usize, u32)| {
            b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2)))
        };
        if wanted < candidates.len() {
            candidates.select_nth_unstable_by(wanted, by_score);
            candidates.truncate(wanted);
        }
        candidates.sort_by(by_score);
        let best = candidates.first().map_or(f32::NEG_INFINITY, |c| c.0);

        let mut next: Vec<(f32, usize, u32)> = Vec::with_capacity(beams);
        for (rank, &(total, beam, id)) in candidates.iter().enumerate() {
            let mut ids = rows[beam].clone();
            ids.push(id);
            let stops = decoding.stop_tokens.contains(&id);
            if stops || is_finished(&ids) {
                if rank < beams {
                    finished.add(ids, total, length);
                }
            } else {
                next.push((total, beam, id));
            }
            if next.len() == beams {
                break;
            }
        }
        if next.is_empty() {
            return Ok(finished.best());
        }
        rows = next
            .iter()
            .map(|&(_, beam, id)| rows[beam].iter().copied().chain([id]).collect())
            .collect();
        totals = next.iter().map(|n| n.0).collect();
        if finished.is_done(best, length) {
            return Ok(finished.best());
        }
        if length < decoding.max_new_tokens {
            model.select(&next.iter().map(|n| n.1).collect::<Vec<_>>())?;
            logits = model.step(&next.iter().map(|n| n.2).collect::<Vec<_>>())?;
        }
    }
    for (ids, &total) in rows.iter().zip(&totals) {
        finished.add(ids.clone(), total, ids.len());
    }
    Ok(finished.best())
}
