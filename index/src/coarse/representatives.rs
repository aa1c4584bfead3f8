//! Which few vectors stand for the many of a photo.
//!
//! The Q-Former's queries look at different things of a photo, several at the same one. Rows
//! that point the same way are put together, and the mean of each cluster stands for its rows:
//! what a query finds in one of them it finds, nearly, in their mean.

use super::REPRESENTATIVES;

/// Rounds of assigning rows and moving means: later ones change next to nothing.
const ROUNDS: usize = 3;

/// [`REPRESENTATIVES`] vectors of unit length (or zero, where all rows are) for `rows`, which
/// are `dim` values each and of unit length or zero. Fewer rows than that are repeated.
///
/// Spherical k-means (Dhillon and Modha, 2001) from farthest-first centres (Gonzalez, 1985). It
/// looks at products of rows alone until the end, so it costs one matrix of `rows * rows`.
pub(super) fn representatives(rows: &[f32], dim: usize) -> Vec<f32> {
    let n = rows.len() / dim.max(1);
    let row = |i: usize| &rows[i * dim..(i + 1) * dim];
    if n <= REPRESENTATIVES {
        return (0..REPRESENTATIVES).flat_map(|i| row(i % n.max(1))).copied().collect();
    }
    let mut gram = vec![0.0_f32; n * n];
    for i in 0..n {
        for j in 0..=i {
            let product = dot(row(i), row(j));
            gram[i * n + j] = product;
            gram[j * n + i] = product;
        }
    }
    let clusters = clusters(&gram, n);
    let mut means = vec![0.0_f32; REPRESENTATIVES * dim];
    for (cluster, mean) in means.chunks_exact_mut(dim).enumerate() {
        for i in (0..n).filter(|i| clusters[*i] == cluster) {
            for (sum, value) in mean.iter_mut().zip(row(i)) {
                *sum += value;
            }
        }
        let norm = dot(mean, mean).sqrt();
        if norm.is_normal() {
            for value in mean {
                *value /= norm;
            }
        }
    }
    means
}

/// The cluster of each row.
fn clusters(gram: &[f32], n: usize) -> Vec<usize> {
    let mut clusters = vec![0; n];
    let mut nearest: Vec<f32> = gram[..n].to_vec();
    for cluster in 1..REPRESENTATIVES {
        // The row that is least like every centre so far becomes the next one.
        let mut centre = 0;
        for i in 1..n {
            if nearest[i] < nearest[centre] {
                centre = i;
            }
        }
        for i in 0..n {
            let product = gram[centre * n + i];
            if product > nearest[i] {
                (nearest[i], clusters[i]) = (product, cluster);
            }
        }
        // Equal rows are their own centres, which no product exceeds.
        clusters[centre] = cluster;
        nearest[centre] = f32::INFINITY;
    }
    let mut sums = vec![0.0_f32; n * REPRESENTATIVES];
    for _ in 0..ROUNDS {
        // Products of each row with the sum of each cluster, then the lengths of those sums.
        sums.fill(0.0);
        for i in 0..n {
            for j in 0..n {
                sums[i * REPRESENTATIVES + clusters[j]] += gram[i * n + j];
            }
        }
        let mut squares = [0.0_f32; REPRESENTATIVES];
        for i in 0..n {
            squares[clusters[i]] += sums[i * REPRESENTATIVES + clusters[i]];
        }
        let inverse = squares.map(|square| if square > 0.0 { square.sqrt().recip() } else { 0.0 });
        let mut moved = false;
        for i in 0..n {
            let own = &sums[i * REPRESENTATIVES..(i + 1) * REPRESENTATIVES];
            let mut best = clusters[i];
            for cluster in 0..REPRESENTATIVES {
                if own[cluster] * inverse[cluster] > own[best] * inverse[best] {
                    best = cluster;
                }
            }
            moved |= std::mem::replace(&mut clusters[i], best) != best;
        }
        if !moved {
            break;
        }
    }
    clusters
}

/// In eight sums, which the compiler keeps in one register.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (heads, others) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0_f32; 8];
    for (a, b) in heads.0.iter().zip(others.0) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    let rest: f32 = heads.1.iter().zip(others.1).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Row `i` points along axis `axes[i]`, a little off.
    fn rows(axes: &[usize], dim: usize) -> Vec<f32> {
        let mut rows = Vec::new();
        for (i, axis) in axes.iter().enumerate() {
            let mut row = vec![0.0; dim];
            row[*axis] = 1.0;
            row[dim - 1 - i % 4] += 0.1;
            let norm = dot(&row, &row).sqrt();
            rows.extend(row.iter().map(|v| v / norm));
        }
        rows
    }

    #[test]
    fn each_direction_has_its_representative() {
        let axes: Vec<usize> = (0..32).map(|i| i * 7 % 8).collect();
        let found = representatives(&rows(&axes, 40), 40);
        assert_eq!(found.len(), REPRESENTATIVES * 40);
        for axis in 0..8 {
            let best = found.chunks_exact(40).map(|mean| mean[axis]).fold(-1.0, f32::max);
            assert!(best > 0.98, "axis {axis}: {best}");
        }
    }

    #[test]
    fn few_rows_stand_for_themselves() {
        let three = rows(&[0, 1, 2], 24);
        let found = representatives(&three, 24);
        assert_eq!(found.len(), REPRESENTATIVES * 24);
        assert_eq!(&found[..72], &three[..]);
        assert_eq!(&found[72..96], &three[..24]);
    }

    proptest! {
        #[test]
        fn means_are_of_unit_length_or_zero(
            values in prop::collection::vec(-1.0_f32..1.0, 20 * 16)
        ) {
            let mut rows = values;
            rows.chunks_exact_mut(16).for_each(bring_to_unit_length);
            for mean in representatives(&rows, 16).chunks_exact(16) {
                let norm = dot(mean, mean).sqrt();
                prop_assert!((norm - 1.0).abs() < 1e-4 || norm == 0.0, "{}", norm);
            }
        }
    }

    fn bring_to_unit_length(row: &mut [f32]) {
        let norm = dot(row, row).sqrt();
        if norm.is_normal() {
            for value in row {
                *value /= norm;
            }
        }
    }

    #[test]
    fn rows_without_order_are_near_one_of_the_means() {
        let mut rows = crate::common::noise(5, 32 * 64);
        rows.chunks_exact_mut(64).for_each(bring_to_unit_length);
        let means = representatives(&rows, 64);
        let best = |row: &[f32]| means.chunks_exact(64).map(|m| dot(m, row)).fold(-1.0, f32::max);
        let mean = rows.chunks_exact(64).map(best).sum::<f32>() / 32.0;
        // Four rows that have nothing in common are at 0.5 to their mean.
        assert!(mean > 0.45, "{mean}");
    }

    #[test]
    fn equal_rows_and_rows_of_zeros_do_no_harm() {
        let equal = rows(&[3; 32], 40);
        assert!(representatives(&equal, 40).iter().all(|v| v.is_finite()));
        assert!(representatives(&vec![0.0; 32 * 40], 40).iter().all(|v| *v == 0.0));
    }
}
