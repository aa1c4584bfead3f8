//! What a picture looks like, in 64 bits.
//!
//! The perceptual hash of Zauner's thesis (*Implementation and Benchmarking of Perceptual Image
//! Hash Functions*, 2010, section 3.2.1; `ph_dct_imagehash` of its library pHash): the brightness of the
//! picture at 32 x 32 pixels goes through a discrete cosine transform, of which the 8 x 8 lowest
//! frequencies without the constant ones are kept; a bit tells whether a coefficient lies above
//! their median. Storing a picture anew changes high frequencies, resizing it none of these,
//! and making it brighter, or adding contrast, all of them alike. What it does not survive is
//! cutting, turning and mirroring.
//!
//! Where the thesis blurs with a 7 x 7 mean before it picks pixels, the bicubic filter of
//! [`resize_bicubic`] takes all of them into account.

use std::f64::consts::{FRAC_PI_2, SQRT_2};

use tinyfind_index::PictureHash;

use super::{DecodedImage, resize_bicubic};

/// Pixels along each side of the picture that is transformed.
const SIDE: usize = 32;

/// Frequencies along each side that are kept: 1 to 8.
const KEPT: usize = 8;

/// A picture none of whose kept frequencies moves brightness by so much, of 255, has nothing to
/// be told by: what is left is the noise of its compression.
const LEAST_AMPLITUDE: f64 = 1.0;

/// The hash of an upright picture. Its shape does not count, so that a picture which was shrunk
/// to a square before, as models want it, has the hash of the original, give or take a bit.
///
/// Source: Zauner, *Implementation and Benchmarking of Perceptual Image Hash Functions*, 2010,
/// section 3.2.1.
///
/// # Panics
///
/// As [`resize_bicubic`].
pub fn picture_hash(image: &DecodedImage) -> PictureHash {
    let small = resize_bicubic(image, SIDE as u32, SIDE as u32);
    // Brightness as ITU-R BT.601 weighs it, which JPEG uses as well.
    let brightness: Vec<f64> = small
        .rgb
        .chunks_exact(3)
        .map(|rgb| {
            0.299 * f64::from(rgb[0]) + 0.587 * f64::from(rgb[1]) + 0.114 * f64::from(rgb[2])
        })
        .collect();
    let coefficients = low_frequencies(&brightness);
    if coefficients.iter().all(|coefficient| coefficient.abs() < LEAST_AMPLITUDE) {
        return PictureHash(0);
    }
    let mut sorted = coefficients;
    sorted.sort_unstable_by(f64::total_cmp);
    let median = f64::midpoint(sorted[KEPT * KEPT / 2 - 1], sorted[KEPT * KEPT / 2]);
    let bits = coefficients.iter().enumerate();
    PictureHash(bits.fold(0, |hash, (at, value)| hash | u64::from(*value > median) << at))
}

/// The coefficients of frequencies 1 to 8 down and across, row by row, each as the amplitude of
/// its wave.
///
/// Of the transform of Ahmed, Natarajan and Rao (IEEE Transactions on Computers, 1974).
fn low_frequencies(pixels: &[f64]) -> [f64; KEPT * KEPT] {
    let mut wave = [[0.0; SIDE]; KEPT];
    for (frequency, wave) in (1_u8..).zip(&mut wave) {
        for (at, value) in (0_u8..).zip(wave) {
            let place = f64::from(2 * at + 1) / SIDE as f64;
            *value = (FRAC_PI_2 * f64::from(frequency) * place).cos() * SQRT_2 / SIDE as f64;
        }
    }
    let mut across = [[0.0; KEPT]; SIDE];
    for (row, sums) in pixels.chunks_exact(SIDE).zip(&mut across) {
        for (sum, wave) in sums.iter_mut().zip(&wave) {
            *sum = row.iter().zip(wave).map(|(pixel, wave)| pixel * wave).sum();
        }
    }
    let mut coefficients = [0.0; KEPT * KEPT];
    for (down, wave) in wave.iter().enumerate() {
        for column in 0..KEPT {
            // Twice, for a wave of amplitude 1 along both sides has a mean square of 1/4.
            coefficients[down * KEPT + column] =
                2.0 * across.iter().zip(wave).map(|(sums, wave)| sums[column] * wave).sum::<f64>();
        }
    }
    coefficients
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::path::{Path, PathBuf};

    use image::codecs::jpeg::JpegEncoder;
    use image::{ImageEncoder as _, RgbImage};

    use super::*;
    use crate::decode::decode_file;
    use crate::train::scenes::{Scene, Split};

    fn photos() -> Vec<(PathBuf, DecodedImage)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/photos/photos");
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let decode = |path: PathBuf| {
            let image = decode_file(&path, None).unwrap().image;
            (path, image)
        };
        paths.into_iter().map(decode).collect()
    }

    fn stored_as_jpeg(image: &DecodedImage, quality: u8) -> DecodedImage {
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, quality)
            .write_image(&image.rgb, image.width, image.height, image::ExtendedColorType::Rgb8)
            .unwrap();
        let decoded = image::load(Cursor::new(bytes), image::ImageFormat::Jpeg).unwrap();
        let decoded = decoded.into_rgb8();
        DecodedImage { width: image.width, height: image.height, rgb: decoded.into_raw() }
    }

    fn each_value(image: &DecodedImage, change: impl Fn(f64) -> f64) -> DecodedImage {
        let rgb = image.rgb.iter().map(|value| change(f64::from(*value)).clamp(0.0, 255.0) as u8);
        DecodedImage { rgb: rgb.collect(), ..*image }
    }

    fn resized(image: &DecodedImage, width: u32, height: u32) -> DecodedImage {
        resize_bicubic(image, width.max(1), height.max(1))
    }

    type Change = fn(&DecodedImage) -> DecodedImage;

    const CHANGES: [(&str, Change); 9] = [
        ("JPEG of quality 85", |image| stored_as_jpeg(image, 85)),
        ("JPEG of quality 40", |image| stored_as_jpeg(image, 40)),
        ("half as large", |image| resized(image, image.width / 2, image.height / 2)),
        ("a fifth as large", |image| resized(image, image.width / 5, image.height / 5)),
        ("half as large again", |image| resized(image, image.width * 3 / 2, image.height * 3 / 2)),
        ("a square of 224 pixels", |image| resized(image, 224, 224)),
        ("a square of 448 pixels", |image| resized(image, 448, 448)),
        ("a tenth brighter", |image| each_value(image, |value| value * 1.1)),
        ("a tenth darker, less contrast", |image| each_value(image, |value| value * 0.8 + 10.0)),
    ];

    #[test]
    fn a_photo_that_was_stored_anew_differs_in_few_bits_and_another_one_in_many() {
        let photos = photos();
        let hashes: Vec<PictureHash> =
            photos.iter().map(|(_, image)| picture_hash(image)).collect();
        for (name, change) in CHANGES {
            let mut worst = 0;
            for ((path, image), hash) in photos.iter().zip(&hashes) {
                let distance = hash.distance(picture_hash(&change(image)));
                worst = worst.max(distance);
                assert!(distance <= 6, "{name} of {}: {distance} bits", path.display());
            }
            println!("{name}: {worst} bits at most");
        }
        let mut nearest = 64;
        for (at, hash) in hashes.iter().enumerate() {
            for other in &hashes[..at] {
                nearest = nearest.min(hash.distance(*other));
            }
        }
        println!("different photos: {nearest} bits at least");
        assert!(nearest >= 16, "{nearest}");
    }

    #[test]
    fn a_picture_without_structure_has_no_hash() {
        for colour in [[0, 0, 0], [255, 255, 255], [20, 180, 90]] {
            let image = DecodedImage { width: 40, height: 30, rgb: colour.repeat(1200) };
            assert!(picture_hash(&image).is_plain(), "{colour:?}");
            assert!(picture_hash(&stored_as_jpeg(&image, 70)).is_plain(), "{colour:?} as JPEG");
        }
        let scene = Scene::generate(Split::Test, 3).draw(96, 64);
        assert!(!picture_hash(&scene).is_plain());
    }

    #[test]
    fn a_wave_is_measured_by_its_amplitude_at_its_frequency() {
        let wave = |frequency: f64, at: usize| {
            (FRAC_PI_2 * frequency * (2 * at + 1) as f64 / SIDE as f64).cos()
        };
        let pixels: Vec<f64> = (0..SIDE * SIDE)
            .map(|at| 100.0 + 7.0 * wave(3.0, at / SIDE) * wave(5.0, at % SIDE))
            .collect();
        for (at, value) in low_frequencies(&pixels).into_iter().enumerate() {
            let expected = if at == 2 * KEPT + 4 { 7.0 } else { 0.0 };
            assert!((value - expected).abs() < 1e-9, "coefficient {at}: {value}");
        }
    }

    #[test]
    fn half_of_the_bits_are_set_and_mirrored_pictures_are_others() {
        for number in 0..20 {
            let scene = Scene::generate(Split::Test, number).draw(64, 64);
            let hash = picture_hash(&scene);
            assert_eq!(hash.0.count_ones(), 32, "scene {number}");
            let picture = RgbImage::from_raw(64, 64, scene.rgb).unwrap();
            let mirrored = image::imageops::flip_horizontal(&picture).into_raw();
            let mirrored = picture_hash(&DecodedImage { width: 64, height: 64, rgb: mirrored });
            assert!(hash.distance(mirrored) > 12, "scene {number}");
        }
    }
}
