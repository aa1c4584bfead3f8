//! Vectors as bytes: quantisation to int8 and exact integer dot products.
//!
//! A row `v` is stored as `q` with `v ≈ scale * q`, `q` in -127..=127 and
//! `scale = max |v| / 127`. A query is widened to int16 once, so a product loses next to
//! nothing on the query's side, and every sum fits an `i32` whatever the processor: the fast
//! and the portable kernel give the same integer.

/// Rows are padded with zeros to a multiple of this many bytes: two AVX2 steps.
pub(crate) const ROW_ALIGNMENT: usize = 32;

/// Bytes that one stored row of `dim` values takes.
pub(crate) fn row_stride(dim: usize) -> usize {
    dim.next_multiple_of(ROW_ALIGNMENT)
}

/// Added to a number between plus and minus 2^22, it leaves the nearest integer in the lowest bits
/// of the sum: the compiler rounds many at once that way, which it cannot with a call for each.
const NEAREST: f32 = 12_582_912.0;

/// Quantises `values` into `row` (at least as long; the rest is left alone); returns the scale.
///
/// All values must be finite.
pub(crate) fn quantize(values: &[f32], row: &mut [u8]) -> f32 {
    let scale = largest(values) / 127.0;
    // A subnormal scale has no finite inverse; such a row is zero for every purpose.
    let inverse = if scale.is_normal() { scale.recip() } else { 0.0 };
    for (byte, value) in row.iter_mut().zip(values) {
        *byte = (value * inverse + NEAREST).to_bits() as u8;
    }
    if inverse == 0.0 { 0.0 } else { scale }
}

/// The largest magnitude; of eight numbers side by side, which the compiler keeps in registers.
fn largest(values: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 8];
    let (eights, rest) = values.as_chunks::<8>();
    for eight in eights {
        for (lane, value) in lanes.iter_mut().zip(eight) {
            *lane = lane.max(value.abs());
        }
    }
    lanes.iter().chain(rest).fold(0.0, |largest, value| largest.max(value.abs()))
}

/// What [`quantize`] stored.
pub(crate) fn dequantize(row: &[u8], scale: f32, values: &mut Vec<f32>) {
    values.extend(row.iter().map(|byte| f32::from(byte.cast_signed()) * scale));
}

/// A query of unit length, ready to be compared with stored rows.
#[derive(Debug)]
pub(crate) struct Query {
    values: Vec<i16>,
    scale: f32,
    dot: fn(&[i16], &[u8]) -> i32,
}

impl Query {
    /// Prepares `vector`, of any length but zero; `None` where it points nowhere.
    pub(crate) fn new(vector: &[f32]) -> Option<Self> {
        let norm = vector.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt() as f32;
        if !norm.is_normal() {
            return None;
        }
        let stride = row_stride(vector.len());
        // The sum of `stride` products of at most `127 * limit` has to fit an i32.
        let limit = (i32::MAX as usize / (127 * stride)).min(i16::MAX as usize) as f32;
        let largest = vector.iter().fold(0.0_f32, |largest, v| largest.max((v / norm).abs()));
        let scale = largest / limit;
        let mut values = vec![0_i16; stride];
        for (value, v) in values.iter_mut().zip(vector) {
            *value = (v / norm / scale).round() as i16;
        }
        Some(Self { values, scale, dot: fastest_dot() })
    }

    /// The largest cosine between the query and the rows of a photo.
    ///
    /// `rows` holds one row of [`row_stride`] bytes for each of `scales`.
    pub(crate) fn best_cosine(&self, scales: &[u8], rows: &[u8]) -> f32 {
        let scales = scales.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        let rows = rows.chunks_exact(self.values.len());
        scales
            .zip(rows)
            .map(|(scale, row)| (self.dot)(&self.values, row) as f32 * (scale * self.scale))
            .fold(-1.0, f32::max)
            .min(1.0)
    }
}

/// Sum of the products of a query and a row of the same length.
fn portable_dot(query: &[i16], row: &[u8]) -> i32 {
    query.iter().zip(row).map(|(q, r)| i32::from(*q) * i32::from(r.cast_signed())).sum()
}

/// The fastest kernel that this processor runs.
fn fastest_dot() -> fn(&[i16], &[u8]) -> i32 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        return avx2_dot;
    }
    portable_dot
}

/// [`portable_dot`] for processors with AVX2; only [`fastest_dot`] may hand it out.
#[cfg(target_arch = "x86_64")]
fn avx2_dot(query: &[i16], row: &[u8]) -> i32 {
    use std::arch::x86_64::{
        __m128i, __m256i, _mm_loadu_si128, _mm256_add_epi32, _mm256_cvtepi8_epi16,
        _mm256_loadu_si256, _mm256_madd_epi16, _mm256_setzero_si256, _mm256_storeu_si256,
    };

    #[target_feature(enable = "avx2")]
    #[expect(clippy::cast_ptr_alignment, reason = "loads and store need no alignment")]
    fn kernel(query: &[i16], row: &[u8]) -> i32 {
        let mut sums = _mm256_setzero_si256();
        for (query, row) in query.as_chunks::<16>().0.iter().zip(row.as_chunks::<16>().0) {
            #[expect(unsafe_code, reason = "vector loads take pointers")]
            // SAFETY: each load reads exactly the 32 and 16 bytes of one array.
            let (query, row) = unsafe {
                (
                    _mm256_loadu_si256(query.as_ptr().cast::<__m256i>()),
                    _mm_loadu_si128(row.as_ptr().cast::<__m128i>()),
                )
            };
            sums = _mm256_add_epi32(sums, _mm256_madd_epi16(query, _mm256_cvtepi8_epi16(row)));
        }
        let mut lanes = [0_i32; 8];
        #[expect(unsafe_code, reason = "a vector store takes a pointer")]
        // SAFETY: `lanes` has exactly the 32 bytes that are written.
        unsafe {
            _mm256_storeu_si256(lanes.as_mut_ptr().cast::<__m256i>(), sums);
        }
        lanes.iter().sum()
    }

    #[expect(unsafe_code, reason = "the kernel needs a processor with AVX2")]
    // SAFETY: `fastest_dot` hands this function out only where AVX2 was detected.
    unsafe {
        kernel(query, row)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unit(values: &[f32]) -> Vec<f32> {
        let norm = values.iter().map(|v| v * v).sum::<f32>().sqrt();
        values.iter().map(|v| v / norm).collect()
    }

    proptest! {
        #[test]
        fn both_kernels_give_the_same_integer(
            pairs in prop::collection::vec((any::<i16>(), any::<i8>()), 1..300)
        ) {
            let stride = row_stride(pairs.len());
            let limit = (i32::MAX as usize / (127 * stride)).min(32767) as i32;
            let (mut query, mut row) = (vec![0_i16; stride], vec![0_u8; stride]);
            for (i, (q, r)) in pairs.into_iter().enumerate() {
                query[i] = i32::from(q).clamp(-limit, limit) as i16;
                row[i] = r.max(-127).cast_unsigned();
            }
            prop_assert_eq!(fastest_dot()(&query, &row), portable_dot(&query, &row));
        }

        #[test]
        fn a_score_is_within_a_hundredth_of_the_cosine(
            query in prop::collection::vec(-1.0_f32..1.0, 256),
            row in prop::collection::vec(-1.0_f32..1.0, 256),
        ) {
            prop_assume!(query.iter().any(|v| v.abs() > 0.1) && row.iter().any(|v| v.abs() > 0.1));
            let row = unit(&row);
            let mut bytes = vec![0; row_stride(row.len())];
            let scale = quantize(&row, &mut bytes);
            let score = Query::new(&query).unwrap().best_cosine(&scale.to_le_bytes(), &bytes);
            let cosine: f32 = unit(&query).iter().zip(&row).map(|(a, b)| a * b).sum();
            prop_assert!((score - cosine).abs() < 1e-2, "{} against {}", score, cosine);
        }
    }

    proptest! {
        #[test]
        fn every_value_becomes_the_nearest_multiple_of_the_scale(
            values in prop::collection::vec(-1e3_f32..1e3, 1..60),
            shift in -30_i32..30,
        ) {
            let values: Vec<f32> = values.iter().map(|v| v * 2.0_f32.powi(shift)).collect();
            let mut row = vec![0; values.len()];
            let scale = quantize(&values, &mut row);
            let mut back = Vec::new();
            dequantize(&row, scale, &mut back);
            let largest = values.iter().fold(0.0_f32, |largest, v| largest.max(v.abs()));
            prop_assert_eq!(scale, largest / 127.0);
            for (value, back) in values.iter().zip(back) {
                prop_assert!((value - back).abs() <= scale * 0.500_01, "{} {}", value, back);
            }
            prop_assert!(row.iter().all(|byte| byte.cast_signed() > i8::MIN));
        }
    }

    #[test]
    fn the_largest_sums_do_not_overflow() {
        for dim in [1, 256, 768, 5000, 70_000] {
            let query = Query::new(&vec![1.0; dim]).unwrap();
            let mut row = vec![0; row_stride(dim)];
            let scale = quantize(&unit(&vec![1.0; dim]), &mut row);
            let score = query.best_cosine(&scale.to_le_bytes(), &row);
            assert!((score - 1.0).abs() < 1e-2, "{dim}: {score}");
        }
    }

    #[test]
    fn a_row_of_zeros_scores_zero_and_a_query_of_zeros_is_none() {
        let mut row = vec![7; 32];
        assert_eq!(quantize(&[0.0; 32], &mut row).to_bits(), 0);
        assert_eq!(row, [0; 32]);
        let query = Query::new(&[1.0; 32]).unwrap();
        assert_eq!(query.best_cosine(&0.0_f32.to_le_bytes(), &row).to_bits(), 0);
        assert!(Query::new(&[0.0; 8]).is_none());
        assert!(Query::new(&[f32::NAN; 8]).is_none());
        assert!(Query::new(&[f32::INFINITY; 8]).is_none());
    }

    #[test]
    fn the_best_row_of_a_photo_counts() {
        let mut rows = vec![0; 64];
        let mut scales = Vec::new();
        for (i, row) in [[1.0, 0.0], [0.6, 0.8]].iter().enumerate() {
            scales.extend(quantize(row, &mut rows[32 * i..32 * (i + 1)]).to_le_bytes());
        }
        let score = Query::new(&[0.0, 2.0]).unwrap().best_cosine(&scales, &rows);
        assert!((score - 0.8).abs() < 1e-2, "{score}");
    }
}
