//! One bit for each of at least 256 dimensions, and a query that is compared with such codes.
//!
//! A vector `x` of unit length is turned by a fixed random rotation `R`, after which no dimension
//! matters more than another, and keeps the signs `b = sign(R x)`. The estimate of a product with
//! a query is `<x, q> ≈ <b, R q> / <b, R x>`, whose error has no bias. Source: Gao and Long,
//! `RaBitQ`, SIGMOD 2024; the rotation is a randomised Hadamard transform, as in Ailon and
//! Chazelle, 2006.
//!
//! The query is not reduced to bits. Four dimensions of a code are a number from 0 to 15, and a
//! table of 16 bytes for each such four holds what they add to the product, so that a comparison
//! is one look-up for every four dimensions of 32 codes at once (André, Kermarrec and Le
//! Scouarnec, "Cache locality is not enough", VLDB 2015).

use super::{GROUP_SLOTS, LANES, representatives::representatives};
use crate::document::Matrix;
use crate::segments::unit_rows;

/// Scale of a correction `1 / <b, R x>`, which is 0 or between 1 and the root of the dimension.
const FACTOR_SCALE: f32 = 2048.0;

/// The least bits of a code. The more bits, the better an estimate: of `nano`'s vectors of 64 values,
/// over 20,000 drawn scenes, codes of 64 bits propose 97 % of the ten best, codes of 256 all of them.
const LEAST_BITS: usize = 256;

/// Dimensions after the rotation, each of which is a bit: a power of two.
pub(super) fn code_dim(dim: usize) -> usize {
    dim.next_power_of_two().max(LEAST_BITS)
}

/// Bytes of the codes of one group and of their corrections.
pub(super) fn group_bytes(dim: usize) -> usize {
    code_dim(dim) / 8 * LANES + 2 * LANES
}

/// Rounds of signs and transform.
const ROUNDS: u64 = 2;

/// The fixed rotation of vectors of one length.
#[derive(Debug)]
pub(super) struct Rotation {
    /// For each round a factor for each place: what the transform needs to keep lengths, with a
    /// random sign.
    factors: Vec<f32>,
}

impl Rotation {
    /// That of vectors of `dim` values.
    pub(super) fn new(dim: usize) -> Self {
        let size = code_dim(dim);
        let scale = (size as f32).sqrt().recip();
        let factor = |round: u64, at: u64| {
            // SplitMix64's finaliser: the signs are part of the format.
            let mut z = (at + 1 + round * 0x1_0000_0000).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            if (z >> 63) == 1 { -scale } else { scale }
        };
        let places = 0..size as u64;
        let rounds = (0..ROUNDS).flat_map(|round| places.clone().map(move |at| factor(round, at)));
        Self { factors: rounds.collect() }
    }

    /// `vector` with zeros up to the codes' dimension, turned: signs that follow from their
    /// places, then a Hadamard transform that keeps lengths, twice.
    fn turned(&self, vector: &[f32]) -> Vec<f32> {
        let mut values = vec![0.0; code_dim(vector.len())];
        values[..vector.len()].copy_from_slice(vector);
        debug_assert_eq!(self.factors.len(), ROUNDS as usize * values.len(), "another length");
        for factors in self.factors.chunks_exact(values.len()) {
            for (value, factor) in values.iter_mut().zip(factors) {
                *value *= factor;
            }
            let mut half = 1;
            while half < values.len() {
                for pair in values.chunks_exact_mut(2 * half) {
                    let (low, high) = pair.split_at_mut(half);
                    for (a, b) in low.iter_mut().zip(high) {
                        (*a, *b) = (*a + *b, *a - *b);
                    }
                }
                half *= 2;
            }
        }
        values
    }
}

/// Writes the codes of the photo at `place` of a group, whose vectors are `rows`, turned by the
/// rotation of their length.
pub(super) fn encode(
    rotation: &Rotation,
    rows: &[f32],
    dim: usize,
    place: usize,
    group: &mut [u8],
) {
    let codes = code_dim(dim) / 8 * LANES;
    let (bits, factors) = group.split_at_mut(codes);
    for (number, vector) in representatives(rows, dim).chunks_exact(dim).enumerate() {
        let lane = number * GROUP_SLOTS + place;
        let values = rotation.turned(vector);
        // Two look-ups share 32 bytes; in its 16 each byte has the lanes `i` and `i + 16`.
        let (byte, shift) = (lane % 16, lane / 16 * 4);
        for (look_up, four) in values.chunks_exact(4).enumerate() {
            let nibble = (0..4).fold(0, |all, bit| all | u8::from(four[bit] > 0.0) << bit);
            bits[look_up * 16 + byte] |= nibble << shift;
        }
        let sum: f32 = values.iter().map(|value| value.abs()).sum();
        let length: f32 = values.iter().map(|value| value * value).sum::<f32>().sqrt();
        let root = (values.len() as f32).sqrt();
        // <b, R x> with b of unit length; x may be zero, and is then like nothing.
        let product = sum / root / length.max(f32::MIN_POSITIVE);
        let factor = if length > 0.5 { FACTOR_SCALE / product } else { 0.0 };
        let factor = factor.round().min(f32::from(u16::MAX)) as u16;
        factors[2 * lane..2 * lane + 2].copy_from_slice(&factor.to_le_bytes());
    }
}

/// A query of unit length, as tables.
#[derive(Debug)]
pub(crate) struct CodedQuery {
    /// Sixteen bytes for every four dimensions: what each sign pattern adds.
    pub(super) tables: Vec<u8>,
    /// A sum of table bytes times this, plus `offset`, times a correction, is an estimate.
    pub(super) scale: f32,
    pub(super) offset: f32,
}

impl CodedQuery {
    /// Tables of the few vectors that stand for the rows of a photo; none for rows of zeros.
    pub(crate) fn of_rows(rows: &Matrix) -> Vec<Self> {
        let representatives = representatives(&unit_rows(rows).values, rows.dim);
        let all = representatives.chunks_exact(rows.dim.max(1));
        all.filter(|row| row.iter().any(|value| *value != 0.0)).map(Self::new).collect()
    }

    /// Tables of `query`, whose length must not be zero.
    pub(crate) fn new(query: &[f32]) -> Self {
        let norm = query.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt() as f32;
        let unit: Vec<f32> = query.iter().map(|v| v / norm).collect();
        let values = Rotation::new(unit.len()).turned(&unit);
        let root = (values.len() as f32).sqrt();
        let sums: Vec<[f32; 16]> = values
            .as_chunks::<4>()
            .0
            .iter()
            .map(|four| {
                std::array::from_fn(|pattern| {
                    let signed = |bit: usize| {
                        if pattern >> bit & 1 == 1 { four[bit] } else { -four[bit] }
                    };
                    (0..4).map(signed).sum::<f32>() / root
                })
            })
            .collect();
        // A pattern and its inverse add opposite numbers: the least is minus the greatest.
        let greatest = |sums: &[f32; 16]| sums.iter().copied().fold(0.0, f32::max);
        let widest = sums.iter().map(greatest).fold(f32::MIN_POSITIVE, f32::max);
        // All sums of bytes have to fit 16 bits.
        let most = (f32::from(u16::MAX) / sums.len() as f32).min(255.0).floor();
        let step = 2.0 * widest / most;
        let mut offset = 0.0;
        let mut tables = Vec::with_capacity(16 * sums.len());
        for sums in &sums {
            let least = -greatest(sums);
            offset += least;
            tables.extend(sums.map(|sum| ((sum - least) / step).round().min(most) as u8));
        }
        Self { tables, scale: step / FACTOR_SCALE, offset: offset / FACTOR_SCALE }
    }
}

/// The estimate for a lane of a group, as the scan computes it but one at a time.
#[cfg(test)]
pub(super) fn estimate(query: &CodedQuery, group: &[u8], lane: usize) -> f32 {
    let (bits, factors) = group.split_at(query.tables.len() / 16 * 16);
    let (byte, shift) = (lane % 16, lane / 16 * 4);
    let sum: u32 = (0..query.tables.len() / 16)
        .map(|at| {
            u32::from(query.tables[at * 16 + usize::from(bits[at * 16 + byte] >> shift & 15)])
        })
        .sum();
    let factor = f32::from(u16::from_le_bytes([factors[2 * lane], factors[2 * lane + 1]]));
    (sum as f32 * query.scale + query.offset) * factor
}

/// The lanes of the photo at `place` of a group.
#[cfg(test)]
pub(super) fn lanes_of(place: usize) -> impl Iterator<Item = usize> {
    (0..super::REPRESENTATIVES).map(move |number| number * GROUP_SLOTS + place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common;

    fn unit(seed: u64, dim: usize) -> Vec<f32> {
        common::unit(common::noise(seed, dim))
    }

    #[test]
    fn the_rotation_keeps_lengths_and_products() {
        for dim in [8, 64, 256] {
            let (a, b) = (unit(3, dim), unit(9, dim));
            let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            let rotation = Rotation::new(dim);
            let (c, d) = (rotation.turned(&a), rotation.turned(&b));
            assert!((product(&c, &c) - 1.0).abs() < 1e-5);
            assert!((product(&c, &d) - product(&a, &b)).abs() < 1e-5);
            assert!(c.iter().zip(&a).any(|(c, a)| (c - a).abs() > 1e-3));
        }
    }

    /// Mean and standard deviation of the errors of estimates for vectors of `dim`.
    fn errors(dim: usize) -> (f64, f64) {
        let (mut error, mut square) = (0.0_f64, 0.0_f64);
        let n = 400;
        for seed in 0..n {
            let (x, other) = (unit(seed, dim), unit(seed + 5000, dim));
            // Queries at all angles to the vector.
            let near = seed as f32 / n as f32;
            let query: Vec<f32> =
                x.iter().zip(&other).map(|(x, o)| near * x + (1.0 - near) * o).collect();
            let norm = query.iter().map(|v| v * v).sum::<f32>().sqrt();
            let truth: f32 = x.iter().zip(&query).map(|(a, b)| a * b).sum::<f32>() / norm;
            let mut group = vec![0; group_bytes(dim)];
            encode(&Rotation::new(dim), &x, dim, 2, &mut group);
            let coded = CodedQuery::new(&query);
            let best = lanes_of(2).map(|lane| estimate(&coded, &group, lane));
            let off = f64::from(best.fold(-1.0, f32::max) - truth);
            error += off;
            square += off * off;
        }
        (error / n as f64, (square / n as f64).sqrt())
    }

    #[test]
    fn an_estimate_is_near_the_product_and_without_bias() {
        for dim in [24, 64, 256] {
            let (error, deviation) = errors(dim);
            assert!(error.abs() < 0.01 && deviation < 0.06, "{dim}: {error} {deviation}");
        }
    }

    #[test]
    fn a_photo_of_zeros_is_like_nothing() {
        let mut group = vec![0; group_bytes(24)];
        encode(&Rotation::new(24), &[0.0; 72], 24, 0, &mut group);
        let coded = CodedQuery::new(&unit(1, 24));
        for lane in lanes_of(0) {
            assert_eq!(estimate(&coded, &group, lane), 0.0);
        }
    }
}
