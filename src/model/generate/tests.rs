use candle_core::{Device, Tensor};

use super::sampling::{argmax, penalize, softmax, warp};
use super::*;

/// A model whose next token depends on the last one only: row `i` of the table is its logits.
struct Markov {
    table: Vec<Vec<f32>>,
    rows: usize,
    widths: Vec<usize>,
}

impl Markov {
    fn new(table: &[[f32; 4]; 4]) -> Self {
        let table = table.iter().map(|row| row.to_vec()).collect();
        Self { table, rows: 0, widths: Vec::new() }
    }

    fn logits(&mut self, ids: &[u32]) -> Result<Tensor> {
        self.widths.push(ids.len());
        let rows: Vec<Vec<f32>> = ids.iter().map(|&id| self.table[id as usize].clone()).collect();
        Tensor::new(rows, &Device::Cpu)
    }
}

impl LanguageModel for Markov {
    /// The first value of a prompt is its last token.
    fn prefill(&mut self, prompts: &[Tensor]) -> Result<Tensor> {
        self.rows = prompts.len();
        let ids: Vec<u32> = prompts
            .iter()
            .map(|p| Ok(p.flatten_all()?.to_vec1::<f32>()?[0] as u32))
            .collect::<Result<_>>()?;
        self.logits(&ids)
    }

    fn step(&mut self, ids: &[u32]) -> Result<Tensor> {
        assert_eq!(ids.len(), self.rows);
        self.logits(ids)
    }

    fn select(&mut self, rows: &[usize]) -> Result<()> {
        assert!(rows.iter().all(|&row| row < self.rows));
        self.rows = rows.len();
        Ok(())
    }
}

const TABLE: [[f32; 4]; 4] =
    [[0.0, 2.0, 1.0, -1.0], [0.5, 0.0, 3.0, 2.9], [1.0, 0.9, 0.0, 0.8], [0.0, 0.0, 0.0, 4.0]];

fn prompt(id: u32) -> Tensor {
    Tensor::new(&[[id as f32]], &Device::Cpu).unwrap()
}

fn never(_: usize, _: &[u32]) -> bool {
    false
}

#[test]
fn greedy_takes_the_likeliest_token_and_ends_with_the_stop_token() {
    let decoding = Decoding::greedy(10, vec![2]);
    let ids = generate(&mut Markov::new(&TABLE), &[prompt(0)], &decoding, &mut never).unwrap();
    assert_eq!(ids, [[1, 2]]);
}

#[test]
fn finished_rows_leave_the_batch() {
    let mut model = Markov::new(&TABLE);
    let decoding = Decoding::greedy(4, vec![2]);
    let prompts = [prompt(0), prompt(3), prompt(1)];
    let ids = generate(&mut model, &prompts, &decoding, &mut never).unwrap();
    assert_eq!(ids, [vec![1, 2], vec![3, 3, 3, 3], vec![2]]);
    assert_eq!(model.widths, [3, 2, 1, 1]);
}

#[test]
fn a_caller_may_end_a_row() {
    let decoding = Decoding::greedy(9, vec![]);
    let mut two = |_: usize, ids: &[u32]| ids.len() == 2;
    let ids = generate(&mut Markov::new(&TABLE), &[prompt(3)], &decoding, &mut two).unwrap();
    assert_eq!(ids, [[3, 3]]);
}

#[test]
fn stop_tokens_are_barred_below_the_least_length() {
    let decoding = Decoding { min_new_tokens: 3, ..Decoding::greedy(4, vec![3]) };
    let ids = generate(&mut Markov::new(&TABLE), &[prompt(3)], &decoding, &mut never).unwrap();
    assert_eq!(ids[0][..3].iter().filter(|&&id| id == 3).count(), 0, "{ids:?}");
}

#[test]
fn a_batch_of_samples_equals_its_rows_alone() {
    let strategy = Strategy::Sample { temperature: 1.5, top_k: 3, top_p: 0.95, seed: 7 };
    let decoding = Decoding { strategy, ..Decoding::greedy(8, vec![]) };
    let prompts = [prompt(0), prompt(2), prompt(1)];
    let batch = generate(&mut Markov::new(&TABLE), &prompts, &decoding, &mut never).unwrap();
    for (ids, prompt) in batch.iter().zip(prompts) {
        let alone = generate(&mut Markov::new(&TABLE), &[prompt], &decoding, &mut never).unwrap();
        assert_eq!(&alone[0], ids);
    }
}

#[test]
fn the_penalty_lowers_positive_and_negative_scores_once_each() {
    let mut scores = [2.0, -2.0, 1.0, 4.0];
    penalize(&mut scores, &[0, 1, 0, 99], Some(3), 2.0);
    assert_eq!(scores, [1.0, -4.0, 1.0, 2.0]);
}

#[test]
fn top_k_keeps_equals_at_its_edge() {
    let mut scores = [1.0, 3.0, 1.0, 0.0];
    warp(&mut scores, 1.0, 2, 1.0);
    assert_eq!(scores, [1.0, 3.0, 1.0, f32::NEG_INFINITY]);
}

#[test]
fn top_p_keeps_the_fewest_tokens_that_reach_it_and_never_none() {
    let mut scores = [0.5_f32.ln(), 0.3_f32.ln(), 0.2_f32.ln()];
    warp(&mut scores, 1.0, 0, 0.75);
    assert!(scores[0] > -1.0 && scores[1] > -2.0 && scores[2] == f32::NEG_INFINITY);
    let mut scores = [0.0, 1.0];
    warp(&mut scores, 1.0, 0, 0.0);
    assert_eq!(scores, [f32::NEG_INFINITY, 1.0]);
}

#[test]
fn sampling_probabilities_sum_to_one() {
    let strategy = Strategy::Sample { temperature: 0.6, top_k: 3, top_p: 0.9, seed: 0 };
    let decoding = Decoding { strategy, repetition_penalty: 1.05, ..Decoding::greedy(1, vec![]) };
    let p = sampling_probabilities(&[1.0, 2.0, -1.0, 0.5], &[1], &decoding);
    assert!((p.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    assert_eq!(p[2], 0.0);
}

#[test]
fn beams_find_the_sequence_of_greatest_probability() {
    // All sequences of three tokens, by exhaustion.
    let log_probability = |ids: &[u32]| -> f64 {
        let mut last = 0_usize;
        let mut sum = 0.0;
        for &id in ids {
            sum += softmax(&TABLE[last])[id as usize].ln();
            last = id as usize;
        }
        sum
    };
    let all = (0..64_u32).map(|n| vec![n / 16, n / 4 % 4, n % 4]);
    let best = all.max_by(|a, b| log_probability(a).total_cmp(&log_probability(b))).unwrap();
    let strategy = Strategy::Beam { beams: 4, length_penalty: 1.0 };
    let decoding = Decoding { strategy, ..Decoding::greedy(3, vec![]) };
    let ids = generate(&mut Markov::new(&TABLE), &[prompt(0)], &decoding, &mut never).unwrap();
    assert_eq!(ids[0], best);
}

#[test]
fn beams_score_a_sequence_by_its_length_with_the_stop_token() {
    let score = |start: u32, ids: &[u32]| -> f64 {
        let path = std::iter::once(&start).chain(ids).zip(ids);
        let sum: f64 =
            path.map(|(&last, &id)| softmax(&TABLE[last as usize])[id as usize].ln()).sum();
        sum / ids.len() as f64
    };
    for (start, stop) in (0..4).flat_map(|start| (0..4).map(move |stop| (start, stop))) {
        // Every sequence that ends with the stop token or at three tokens, by exhaustion.
        let all = (0..64_u32).map(|n| vec![n / 16, n / 4 % 4, n % 4]).map(|mut ids| {
            let end = ids.iter().position(|&id| id == stop).map_or(3, |at| at + 1);
            ids.truncate(end);
            ids
        });
        let best = all.max_by(|a, b| score(start, a).total_cmp(&score(start, b))).unwrap();
        // So many beams that nothing is dropped.
        let strategy = Strategy::Beam { beams: 16, length_penalty: 1.0 };
        let decoding = Decoding { strategy, ..Decoding::greedy(3, vec![stop]) };
        let prompts = [prompt(start)];
        let ids = generate(&mut Markov::new(&TABLE), &prompts, &decoding, &mut never).unwrap();
        assert_eq!(ids[0], best, "from {start} to {stop}");
    }
}

#[test]
fn one_beam_is_greedy() {
    let strategy = Strategy::Beam { beams: 1, length_penalty: 1.0 };
    for start in 0..4 {
        let greedy = Decoding::greedy(5, vec![]);
        let beam = Decoding { strategy, ..greedy.clone() };
        let a = generate(&mut Markov::new(&TABLE), &[prompt(start)], &greedy, &mut never).unwrap();
        let b = generate(&mut Markov::new(&TABLE), &[prompt(start)], &beam, &mut never).unwrap();
        assert_eq!(a, b);
    }
}

#[test]
fn cross_entropy_is_the_mean_over_the_targets() {
    let even = vec![vec![0.0; 4]; 3];
    assert!((cross_entropy(&even, &[0, 1, 2]) - 4.0_f32.ln()).abs() < 1e-6);
    assert_eq!(argmax(&[1.0, 1.0]), 0);
}
