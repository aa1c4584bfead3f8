//! The hands that draw: what a style does to the pixels of a thing and of the backdrop.

use tiny_skia::Pixmap;

use super::{
    names::Style,
    painter::Layer,
    palette::{self, Paints, Rgb},
    random,
};

/// Whether every part has a line around it.
pub(super) fn has_rim(style: Style) -> bool {
    matches!(style, Style::Outlined | Style::Poster)
}

/// The colour of those lines: dark, but on a black thing light.
pub(super) fn rim(paints: &Paints) -> Rgb {
    if palette::luma(paints.main) < 50.0 { [214.0, 214.0, 218.0] } else { palette::BLACK }
}

/// Smooth noise with values from 0 to 1 and one bump for each unit of `x` and `y`, which are
/// not negative.
pub(super) fn noise(seed: u64, x: f32, y: f32) -> f32 {
    let at = |x: u64, y: u64| {
        let hash = random::mix(seed ^ random::mix((x << 32) | y).wrapping_add(seed));
        (hash >> 40) as f32 / 16_777_216.0
    };
    let (column, row) = (x as u64, y as u64);
    let (across, down) = (x - column as f32, y - row as f32);
    let (across, down) = (across * across * (3.0 - 2.0 * across), down * down * (3.0 - 2.0 * down));
    let above = at(column, row) * (1.0 - across) + at(column + 1, row) * across;
    let below = at(column, row + 1) * (1.0 - across) + at(column + 1, row + 1) * across;
    above * (1.0 - down) + below * down
}

/// Multiplies each covered pixel's colour by a factor of its place. Premultiplied bytes stay
/// within their alpha.
fn shade(pixels: &mut Pixmap, factor: impl Fn(f32, f32) -> f32) {
    let width = pixels.width() as usize;
    for (number, pixel) in pixels.data_mut().as_chunks_mut::<4>().0.iter_mut().enumerate() {
        if pixel[3] > 0 {
            let factor = factor((number % width) as f32, (number / width) as f32);
            let most = f32::from(pixel[3]);
            for channel in &mut pixel[..3] {
                *channel = (f32::from(*channel) * factor + 0.5).min(most) as u8;
            }
        }
    }
}

/// Gives the thing its style's surface. `side` is the shorter side of the picture.
pub(super) fn texture(style: Style, layer: &mut Layer, side: f32, seed: u64) {
    let (left, top) = (layer.left as f32, layer.top as f32);
    let (width, height) = (layer.pixels.width() as f32, layer.pixels.height() as f32);
    match style {
        Style::Flat | Style::Outlined | Style::Poster => {}
        Style::Shaded => {
            shade(&mut layer.pixels, |x, y| 1.16 - 0.44 * (x / width + y / height) / 2.0);
        }
        Style::Hatched => shade(&mut layer.pixels, |x, y| {
            let along = (x + left + y + top + 4.0 * side) * 30.0 / side;
            if along - along.floor() < 0.36 { 0.79 } else { 1.04 }
        }),
        Style::Crayon => {
            let fine = 56.0 / side;
            let place = |x: f32, y: f32| ((x + left + side) * fine, (y + top + side) * fine);
            shade(&mut layer.pixels, |x, y| {
                let (x, y) = place(x, y);
                0.84 + 0.26 * noise(seed, 0.5 * (x + y), 2.0 * (x + 1000.0 - y).abs())
            });
            fade(&mut layer.pixels, |x, y| {
                let (x, y) = place(x, y);
                if noise(seed ^ 2, x, y) < 0.24 { 0.62 } else { 1.0 }
            });
        }
        Style::Watercolour => {
            let inner = eroded(layer, side);
            let wide = layer.pixels.width() as usize;
            let coarse = 9.0 / side;
            shade(&mut layer.pixels, |x, y| {
                let edge = 1.0 - f32::from(inner[y as usize * wide + x as usize]) / 255.0;
                let pool = noise(seed, (x + left + side) * coarse, (y + top + side) * coarse);
                (0.94 + 0.26 * pool) * (1.0 - 0.24 * edge)
            });
            fade(&mut layer.pixels, |_, _| 0.93);
        }
        Style::Paper => {
            let fine = 40.0 / side;
            shade(&mut layer.pixels, |x, y| {
                0.93 + 0.12 * noise(seed, (x + left + side) * fine, (y + top + side) * fine)
            });
        }
    }
}

/// Makes each covered pixel less opaque by a factor of its place.
fn fade(pixels: &mut Pixmap, factor: impl Fn(f32, f32) -> f32) {
    let width = pixels.width() as usize;
    for (number, pixel) in pixels.data_mut().as_chunks_mut::<4>().0.iter_mut().enumerate() {
        if pixel[3] > 0 {
            let factor = factor((number % width) as f32, (number / width) as f32);
            for channel in pixel {
                *channel = (f32::from(*channel) * factor + 0.5) as u8;
            }
        }
    }
}

/// How far inside the thing each pixel lies: 0 at its edge, 255 from there on.
fn eroded(layer: &Layer, side: f32) -> Vec<u8> {
    let steps = ((0.012 * side).round() as u32).max(1);
    let (width, height) = (layer.pixels.width() as usize, layer.pixels.height() as usize);
    let mut plane = layer.coverage(0);
    for _ in 0..steps {
        let before = plane.clone();
        for y in 1..height.max(2) - 1 {
            for x in 1..width.max(2) - 1 {
                let here = y * width + x;
                plane[here] = before[here]
                    .min(before[here - 1])
                    .min(before[here + 1])
                    .min(before[here - width])
                    .min(before[here + width]);
            }
        }
    }
    plane
}

/// The white rim and the shadow of a thing cut out of paper.
pub(super) fn cut_out(layer: &Layer, canvas: &mut Pixmap, side: f32) {
    let rim = layer.coverage(((0.02 * side).round() as u32).max(1));
    let away = ((0.025 * side).round() as i32).max(1);
    layer.stain(canvas, &rim, (away, away), palette::BLACK, 0.4);
    layer.stain(canvas, &rim, (0, 0), palette::WHITE, 1.0);
}

/// What the style does to the backdrop.
pub(super) fn ground(style: Style, canvas: &mut Pixmap, seed: u64) {
    let side = canvas.width().min(canvas.height()) as f32;
    match style {
        Style::Flat | Style::Outlined | Style::Shaded | Style::Hatched => {}
        Style::Crayon => {
            let fine = 56.0 / side;
            shade(canvas, |x, y| {
                0.88 + 0.2 * noise(seed, fine * 0.5 * (x + y), fine * 2.0 * (x + 2.0 * side - y))
            });
        }
        Style::Poster => {
            for pixel in canvas.data_mut().as_chunks_mut::<4>().0 {
                for channel in &mut pixel[..3] {
                    let level = (f32::from(*channel) / 64.0 + 0.5).floor() * 64.0;
                    *channel = level.min(255.0) as u8;
                }
            }
        }
        Style::Watercolour => {
            let coarse = 7.0 / side;
            for pixel in canvas.data_mut().as_chunks_mut::<4>().0 {
                for channel in &mut pixel[..3] {
                    *channel = (f32::from(*channel) * 0.82 + 44.0) as u8;
                }
            }
            shade(canvas, |x, y| 0.88 + 0.2 * noise(seed, x * coarse, y * coarse));
        }
        Style::Paper => {
            let fine = 40.0 / side;
            shade(canvas, |x, y| 0.93 + 0.12 * noise(seed, x * fine, y * fine));
        }
    }
}
