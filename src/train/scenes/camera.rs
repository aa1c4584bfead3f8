//! What a camera does to a picture: light from one side, exposure, blur, noise, JPEG.

use image::{ExtendedColorType, ImageFormat, codecs::jpeg::JpegEncoder};
use tiny_skia::Pixmap;

use crate::decode::DecodedImage;

use super::{graph::Scene, painter::CAMERA, random::Random};

/// Share of pictures that are a little out of focus.
const BLURRED: f32 = 0.2;
/// Share of pictures with noise.
const NOISY: f32 = 0.3;
/// Share of pictures that were saved as JPEG before.
const COMPRESSED: f32 = 0.15;

/// Takes the picture of a finished painting.
pub(super) fn take(scene: &Scene, canvas: &Pixmap) -> DecodedImage {
    let mut random = Random::new(&[scene.seed, CAMERA]);
    let (width, height) = (canvas.width(), canvas.height());
    let exposure = random.between(0.92, 1.08);
    let (across, down) = (random.between(-0.08, 0.08), random.between(-0.08, 0.08));
    let deviation = if random.chance(NOISY) { random.between(3.0, 11.0) } else { 0.0 };
    let blurred = random.chance(BLURRED);
    let quality = random.chance(COMPRESSED).then(|| 35 + random.below(46) as u8);

    let (wide, high) = (width as f32, height as f32);
    let mut values: Vec<f32> = Vec::with_capacity((width * height * 3) as usize);
    for (y, row) in canvas.data().chunks_exact(4 * width as usize).enumerate() {
        let sideways = down * (2.0 * y as f32 / high - 1.0);
        for (x, pixel) in row.as_chunks::<4>().0.iter().enumerate() {
            let light = exposure * (1.0 + sideways + across * (2.0 * x as f32 / wide - 1.0));
            values.extend(pixel[..3].iter().map(|&it| f32::from(it) * light));
        }
    }
    if blurred {
        let radius = (((wide.min(high)) / 160.0).round() as usize).max(1);
        values = blur(&values, 3 * width as usize, radius);
    }
    if deviation > 0.0 {
        for value in &mut values {
            // Four 16-bit numbers of one draw: their sum is near enough to normal.
            let bits = random.next();
            let sum =
                (bits & 0xFFFF) + (bits >> 16 & 0xFFFF) + (bits >> 32 & 0xFFFF) + (bits >> 48);
            *value += (sum as f32 / 65_536.0 - 2.0) * 1.732 * deviation;
        }
    }
    let rgb: Vec<u8> = values.iter().map(|it| (it + 0.5).clamp(0.0, 255.0) as u8).collect();
    let picture = DecodedImage { width, height, rgb };
    quality.and_then(|quality| compress(&picture, quality)).unwrap_or(picture)
}

/// The mean over squares of `2 * radius + 1` pixels. The edge is repeated outwards.
fn blur(values: &[f32], row: usize, radius: usize) -> Vec<f32> {
    let (count, rows) = ((2 * radius + 1) as f32, values.len() / row);
    let mut down = vec![0.0; values.len()];
    for (y, out) in down.chunks_exact_mut(row).enumerate() {
        for from in y..=y + 2 * radius {
            let from = from.saturating_sub(radius).min(rows - 1) * row;
            add(out, &values[from..from + row]);
        }
    }
    let mut across = vec![0.0; values.len()];
    let mut wide = vec![0.0; row + 6 * radius];
    for (out, line) in across.chunks_exact_mut(row).zip(down.chunks_exact(row)) {
        wide[3 * radius..3 * radius + row].copy_from_slice(line);
        for pad in 0..3 * radius {
            wide[pad] = line[pad % 3];
            wide[3 * radius + row + pad] = line[row - 3 + pad % 3];
        }
        for from in 0..=2 * radius {
            add(out, &wide[3 * from..3 * from + row]);
        }
        for value in out {
            *value /= count * count;
        }
    }
    across
}

fn add(to: &mut [f32], other: &[f32]) {
    for (value, other) in to.iter_mut().zip(other) {
        *value += other;
    }
}

/// The picture with the traces of a JPEG file.
fn compress(picture: &DecodedImage, quality: u8) -> Option<DecodedImage> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality)
        .encode(&picture.rgb, picture.width, picture.height, ExtendedColorType::Rgb8)
        .ok()?;
    let rgb = image::load_from_memory_with_format(&bytes, ImageFormat::Jpeg).ok()?.into_rgb8();
    Some(DecodedImage { width: rgb.width(), height: rgb.height(), rgb: rgb.into_raw() })
}
