//! Which records are learned from, and in which order.

use std::collections::BTreeSet;
use std::path::Path;

use super::Record;
use crate::model::import::random::Random;

/// `0..count` in a random order of its own for each `seed` and `epoch`.
///
/// Source: Fisher and Yates, as Durstenfeld wrote it (CACM 1964).
pub fn order(count: usize, seed: u64, epoch: u64) -> Vec<u32> {
    let mut random = Random(seed);
    // Epochs next to each other must not begin with nearly the same numbers.
    let mut random = Random(random.next() ^ epoch.wrapping_mul(0xa076_1d64_78bd_642f));
    let mut order: Vec<u32> = (0..count as u32).collect();
    for last in (1..count).rev() {
        let other = ((u128::from(random.next()) * (last as u128 + 1)) >> 64) as usize;
        order.swap(last, other);
    }
    order
}

/// Parts `records` into those to learn from and those held out: all records of about `part`,
/// 0 to 1, of the pictures, so that no picture is on both sides. At least one picture is held out
/// where `part` is above 0, and at least one is left to learn from.
pub fn hold_out(records: Vec<Record>, part: f64, seed: u64) -> (Vec<Record>, Vec<Record>) {
    let pictures: BTreeSet<&Path> = records.iter().map(|record| record.image.as_path()).collect();
    let count = pictures.len();
    if part <= 0.0 || count < 2 {
        return (records, Vec::new());
    }
    let wanted = ((part * count as f64).round() as usize).clamp(1, count - 1);
    let pictures: Vec<&Path> = pictures.into_iter().collect();
    let chosen = order(count, seed, u64::MAX).into_iter().take(wanted);
    let held: BTreeSet<_> = chosen.map(|at| pictures[at as usize].to_owned()).collect();
    records.into_iter().partition(|record| !held.contains(&record.image))
}
