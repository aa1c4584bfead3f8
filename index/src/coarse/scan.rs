//! The scan over codes: scores of the photos of a group, as fast as the processor can.

use super::{GROUP_SLOTS, LANES, REPRESENTATIVES, codes::CodedQuery};

/// Scores of the photos of one group.
pub(super) type Scores = [f32; GROUP_SLOTS];

/// Computes the scores of a group of the right length.
pub(super) type Kernel = fn(&CodedQuery, &[u8]) -> Scores;

/// The fastest kernel that this processor runs.
pub(super) fn fastest() -> Kernel {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        return avx2;
    }
    portable
}

/// Each lane's sum of table entries, its correction, and the best lane of each photo.
fn portable(query: &CodedQuery, group: &[u8]) -> Scores {
    let (bits, factors) = group.split_at(query.tables.len());
    let mut sums = [0_u16; LANES];
    let tables = query.tables.as_chunks::<16>().0;
    for (table, bytes) in tables.iter().zip(bits.as_chunks::<16>().0) {
        let (low, high) = sums.split_at_mut(16);
        for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
            *low += u16::from(table[usize::from(byte & 15)]);
            *high += u16::from(table[usize::from(byte >> 4)]);
        }
    }
    let mut best = [f32::NEG_INFINITY; GROUP_SLOTS];
    for (lane, factor) in factors.as_chunks::<2>().0.iter().enumerate() {
        let factor = f32::from(u16::from_le_bytes(*factor));
        let score = f32::from(sums[lane]).mul_add(query.scale, query.offset) * factor;
        let photo = &mut best[lane % GROUP_SLOTS];
        *photo = photo.max(score);
    }
    best
}

/// [`portable`] for processors with AVX2 and FMA; only [`fastest`] may hand it out.
#[cfg(target_arch = "x86_64")]
fn avx2(query: &CodedQuery, group: &[u8]) -> Scores {
    use std::arch::x86_64::{
        __m128i, __m256i, _mm_add_epi16, _mm_loadu_si128, _mm_max_ps, _mm_storeu_ps,
        _mm_unpackhi_epi16, _mm_unpacklo_epi16, _mm256_add_epi16, _mm256_and_si256,
        _mm256_castps256_ps128, _mm256_castsi256_si128, _mm256_cvtepi32_ps, _mm256_cvtepu16_epi32,
        _mm256_extractf128_ps, _mm256_extracti128_si256, _mm256_fmadd_ps, _mm256_loadu_si256,
        _mm256_max_ps, _mm256_mul_ps, _mm256_set1_epi8, _mm256_set1_ps, _mm256_setzero_si256,
        _mm256_shuffle_epi8, _mm256_slli_epi16, _mm256_srli_epi16, _mm256_sub_epi16,
    };

    #[expect(unsafe_code, reason = "vector loads take pointers")]
    #[expect(clippy::cast_ptr_alignment, reason = "loads and stores need no alignment")]
    #[target_feature(enable = "avx2,fma")]
    fn kernel(query: &CodedQuery, group: &[u8]) -> Scores {
        let (bits, factors) = group.split_at(query.tables.len());
        let low_nibbles = _mm256_set1_epi8(15);
        // Of the lower and the upper sixteen lanes: the sums of both bytes of a word, the upper one
        // counted 256 times and without carry, and those of the upper one.
        let mut sums = [_mm256_setzero_si256(); 4];
        let tables = query.tables.as_chunks::<32>().0;
        for (table, bytes) in tables.iter().zip(bits.as_chunks::<32>().0) {
            // SAFETY: each load reads exactly the 32 bytes of one array.
            let (table, bytes) = unsafe {
                (
                    _mm256_loadu_si256(table.as_ptr().cast::<__m256i>()),
                    _mm256_loadu_si256(bytes.as_ptr().cast::<__m256i>()),
                )
            };
            let low = _mm256_shuffle_epi8(table, _mm256_and_si256(bytes, low_nibbles));
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), low_nibbles);
            let high = _mm256_shuffle_epi8(table, high);
            sums[0] = _mm256_add_epi16(sums[0], low);
            sums[1] = _mm256_add_epi16(sums[1], _mm256_srli_epi16::<8>(low));
            sums[2] = _mm256_add_epi16(sums[2], high);
            sums[3] = _mm256_add_epi16(sums[3], _mm256_srli_epi16::<8>(high));
        }
        // What is left without the upper bytes are the sums of the lower ones: even lanes, odd lanes.
        for pair in sums.as_chunks_mut::<2>().0 {
            pair[0] = _mm256_sub_epi16(pair[0], _mm256_slli_epi16::<8>(pair[1]));
        }
        // Two look-ups stand in the halves of a register: together they are a lane's sum.
        let sums = sums.map(|sum| {
            let upper = _mm256_extracti128_si256::<1>(sum);
            _mm_add_epi16(_mm256_castsi256_si128(sum), upper)
        });
        let (scale, offset) = (_mm256_set1_ps(query.scale), _mm256_set1_ps(query.offset));
        let mut best = _mm256_set1_ps(f32::NEG_INFINITY);
        // Even and odd lanes, back in the order of the lanes, eight at a time.
        let halves = [(sums[0], sums[1]), (sums[2], sums[3])];
        let ordered = halves
            .map(|(even, odd)| [_mm_unpacklo_epi16(even, odd), _mm_unpackhi_epi16(even, odd)]);
        let eights = factors.as_chunks::<16>().0;
        for (sum, factor) in ordered.as_flattened().iter().zip(eights) {
            // SAFETY: the load reads exactly the 16 bytes of one array.
            let factor = unsafe { _mm_loadu_si128(factor.as_ptr().cast::<__m128i>()) };
            let sum = _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(*sum));
            let factor = _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(factor));
            let score = _mm256_mul_ps(_mm256_fmadd_ps(sum, scale, offset), factor);
            best = _mm256_max_ps(best, score);
        }
        // Lanes are ordered by representative, then photo: the halves have the same photos.
        let best = _mm_max_ps(_mm256_castps256_ps128(best), _mm256_extractf128_ps::<1>(best));
        let mut scores = [0.0; GROUP_SLOTS];
        // SAFETY: `scores` has exactly the four values that are written.
        unsafe { _mm_storeu_ps(scores.as_mut_ptr(), best) };
        scores
    }

    const { assert!(GROUP_SLOTS == 4 && REPRESENTATIVES == 8, "the kernel's registers") };
    #[expect(unsafe_code, reason = "the kernel needs a processor with AVX2 and FMA")]
    // SAFETY: `fastest` hands this function out only where both were detected.
    unsafe {
        kernel(query, group)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::coarse::codes::{Rotation, encode, estimate, group_bytes, lanes_of};

    proptest! {
        #[test]
        fn all_kernels_agree(
            dim in prop::sample::select(vec![5_usize, 24, 64, 256, 300]),
            seed in prop::collection::vec(-1.0_f32..1.0, 900),
        ) {
            let mut group = vec![0; group_bytes(dim)];
            for place in 0..GROUP_SLOTS {
                let mut rows = seed[place * 7..place * 7 + dim * 2].to_vec();
                for row in rows.chunks_exact_mut(dim) {
                    let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
                    prop_assume!(norm > 0.1);
                    for value in row {
                        *value /= norm;
                    }
                }
                encode(&Rotation::new(dim), &rows, dim, place, &mut group);
            }
            let query = CodedQuery::new(&seed[900 - dim..]);
            let (fast, slow) = (fastest()(&query, &group), portable(&query, &group));
            for place in 0..GROUP_SLOTS {
                let single = lanes_of(place).map(|lane| estimate(&query, &group, lane));
                let single = single.fold(f32::NEG_INFINITY, f32::max);
                prop_assert!((fast[place] - slow[place]).abs() < 1e-5, "{:?} {:?}", fast, slow);
                prop_assert!((fast[place] - single).abs() < 1e-5, "{:?} {}", fast, single);
            }
        }
    }
}
