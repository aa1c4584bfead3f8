//! Image-text vectors like those of a photo library, of any size, made up.
//!
//! Photos come in events of about 36, one after the other in time. An event has five things to
//! see, each near one of some hundred themes that the whole library shares, and each photo shows
//! them its own way. A row of a photo is one of its things, seen by a query that has a direction
//! of its own. The mean cosine of rows is 0.37 within a photo and 0.33 between photos, the
//! nearest photo of a row is at 0.9 and that of a text-like query at 0.73: what was measured
//! of real libraries lies near that (0.31 between photos, 0.92 and 0.77).

use super::noise;
use tinyfind_index::Matrix;

/// Vectors a photo.
pub(crate) const ROWS: usize = 32;
/// Values a vector.
pub(crate) const DIM: usize = 256;
/// Things to see in a photo.
const THINGS: u64 = 5;
/// Photos of an event, on average.
const EVENT: u64 = 36;

/// A direction that follows from `seed`, of about unit length.
fn direction(seed: u64, dim: usize) -> Vec<f32> {
    // A value between -1 and 1 has a mean square of a third.
    let scale = (3.0 / dim as f32).sqrt();
    noise(mixed(seed), dim).into_iter().map(|v| v * scale).collect()
}

/// The finaliser of `SplitMix64`: neighbours become strangers.
fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn sum(parts: &[(f32, &[f32])]) -> Vec<f32> {
    let mut sum = vec![0.0; parts[0].1.len()];
    for (weight, part) in parts {
        for (sum, value) in sum.iter_mut().zip(*part) {
            *sum += weight * value;
        }
    }
    super::unit(sum)
}

/// A library of `photos` photos.
pub(crate) struct Library {
    photos: u64,
    rows: usize,
    dim: usize,
    common: Vec<f32>,
    queries: Vec<Vec<f32>>,
    themes: Vec<Vec<f32>>,
}

impl Library {
    pub(crate) fn new(photos: u64) -> Self {
        Self::of_size(photos, ROWS, DIM)
    }

    /// The same with `rows` vectors of `dim` values a photo.
    pub(crate) fn of_size(photos: u64, rows: usize, dim: usize) -> Self {
        let themes = 200 + photos / 500;
        Self {
            photos,
            rows,
            dim,
            common: direction(1, dim),
            queries: (0..rows as u64).map(|row| direction(100 + row, dim)).collect(),
            themes: (0..themes).map(|theme| direction(1000 + theme, dim)).collect(),
        }
    }

    fn thing(&self, photo: u64, thing: u64) -> Vec<f32> {
        // Events differ in length: their borders are shifted by up to half of it.
        let event = (photo + mixed(photo / EVENT) % (EVENT / 2)) / EVENT;
        let of_event = (event * THINGS + thing) * 4 + 1_000_000_007;
        let theme = &self.themes[(mixed(of_event) % self.themes.len() as u64) as usize];
        let own = (photo * THINGS + thing) * 4 + 3_000_000_007_001;
        sum(&[
            (0.55, &self.common),
            (0.45, theme),
            (0.5, &direction(of_event + 1, self.dim)),
            (0.35, &direction(own, self.dim)),
        ])
    }

    /// The vectors of a photo.
    pub(crate) fn embedding(&self, photo: u64) -> Matrix {
        let things: Vec<Vec<f32>> = (0..THINGS).map(|thing| self.thing(photo, thing)).collect();
        let rows = (0..self.rows as u64).flat_map(|row| {
            let seed = 7_000_000_000_000 + photo * self.rows as u64 + row;
            let thing = &things[(mixed(seed ^ 0x55) % THINGS) as usize];
            sum(&[
                (1.0, thing),
                (0.3, &self.queries[row as usize]),
                (0.45, &direction(seed, self.dim)),
            ])
        });
        Matrix::new(self.rows, self.dim, rows.collect())
    }

    /// A query about something that some photo shows, as far from it as texts are.
    pub(crate) fn text_query(&self, number: u64) -> Vec<f32> {
        let photo = mixed(number + 17) % self.photos;
        let thing = self.thing(photo, mixed(number) % THINGS);
        sum(&[(1.0, &thing), (0.75, &direction(9_000_000_000_000 + number, self.dim))])
    }

    /// A query near a vector of some photo, as other photos of the same are.
    pub(crate) fn image_query(&self, number: u64) -> Vec<f32> {
        let photo = mixed(number + 71) % self.photos;
        let embedding = self.embedding(photo);
        let row = embedding.row((mixed(number) % self.rows as u64) as usize);
        sum(&[(1.0, row), (0.4, &direction(9_500_000_000_000 + number, self.dim))])
    }
}
