//! Bicubic resizing, bit for bit as Pillow does it.
//!
//! The published models were trained on pictures that Pillow (`Image.resize(size, BICUBIC)`)
//! had resized, so this is part of the network's input and is held to exactness, not to looks.
//!
//! The method: a separable filter, first along rows, then along columns, with the picture
//! rounded to bytes in between. The kernel is Keys' cubic with `a = -0.5` (IEEE TASSP 29-6,
//! 1981), stretched by the reduction when shrinking. Weights are normalised, then rounded to
//! whole numbers of 1/2^22; sums are 32-bit integers. A direction that keeps its size is skipped.
//!
//! Photos are stored turned as the sensor saw them. Instead of turning millions of pixels and
//! then shrinking them, [`resize_upright`] lays the same weights over the stored picture, in
//! the order that the upright picture would have seen, and turns the small result: the bytes
//! are the same.

#![expect(clippy::inline_always, reason = "kernels are compiled anew for wider vector units")]

use std::borrow::Cow;

use super::{DecodedImage, orientation::Orientation};

/// Bytes a pixel.
const CHANNELS: usize = 3;

/// Fractional bits of a weight: 32 less 8 for the pixel and 2 for the sign and overshoot.
const PRECISION: u32 = 32 - 8 - 2;

/// Weights are split into two halves of this many low bits, because products of 16-bit
/// numbers are what every vector unit multiplies fastest.
const LOW_BITS: u32 = 11;

/// `image` resized to `width` by `height` pixels, without keeping its shape, exactly as
/// Pillow's `resize((width, height), BICUBIC)` does.
///
/// # Panics
///
/// When `width` or `height` is 0, or `image` is empty or does not hold the bytes it should.
pub fn resize_bicubic(image: &DecodedImage, width: u32, height: u32) -> DecodedImage {
    resize_upright(image, Orientation::UPRIGHT, width, height)
}

/// `stored` turned upright by `orientation`, then resized to `width` by `height` pixels: the
/// bytes of [`resize_bicubic`] over the turned picture, without turning it at full size.
///
/// # Panics
///
/// As [`resize_bicubic`].
pub(super) fn resize_upright(
    stored: &DecodedImage,
    orientation: Orientation,
    width: u32,
    height: u32,
) -> DecodedImage {
    let (stored_width, stored_height) = (stored.width as usize, stored.height as usize);
    assert_eq!(stored.rgb.len(), stored_width * stored_height * CHANNELS, "bytes of the picture");
    assert!(width > 0 && height > 0 && !stored.rgb.is_empty(), "an empty picture");
    // What the upright picture calls columns may be the stored picture's rows.
    let (columns, rows) = if orientation.swaps_axes() { (height, width) } else { (width, height) };
    let along_rows = Filter::new(stored_width, columns as usize, orientation.mirrors_columns());
    let along_columns = Filter::new(stored_height, rows as usize, orientation.mirrors_rows());

    let resized = if orientation.swaps_axes() {
        let tall = filter_columns(&stored.rgb, stored_width, along_columns.as_ref());
        filter_rows(&tall, stored_width, along_rows.as_ref()).into_owned()
    } else {
        let wide = filter_rows(&stored.rgb, stored_width, along_rows.as_ref());
        filter_columns(&wide, columns as usize, along_columns.as_ref()).into_owned()
    };
    orientation.apply(DecodedImage { width: columns, height: rows, rgb: resized })
}

/// The weights of one direction: which inputs make each output, and how much of each.
struct Filter {
    /// First input of each output.
    starts: Vec<usize>,
    /// Number of inputs of each output.
    lengths: Vec<usize>,
    /// `taps` weights an output, of which `lengths` are in use; the high part...
    high: Vec<i16>,
    /// ... and the low one: a weight is `high << LOW_BITS + low`.
    low: Vec<i16>,
    taps: usize,
}

impl Filter {
    /// The filter from `input` to `output` pixels, or `None` where nothing changes. With
    /// `mirrored`, the one whose outputs are those of the mirrored input, in reverse.
    fn new(input: usize, output: usize, mirrored: bool) -> Option<Self> {
        if input == output {
            return None;
        }
        let scale = input as f64 / output as f64;
        let stretch = scale.max(1.0);
        let shrink = 1.0 / stretch;
        let support = 2.0 * stretch;
        let taps = support.ceil() as usize * 2 + 1;
        let mut filter = Self {
            starts: vec![0; output],
            lengths: vec![0; output],
            high: vec![0; output * taps],
            low: vec![0; output * taps],
            taps,
        };
        let mut weights = Vec::with_capacity(taps);
        for upright in 0..output {
            let centre = (upright as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let last = ((centre + support + 0.5) as usize).min(input);
            weights.clear();
            weights.extend((first..last).map(|x| cubic((x as f64 - centre + 0.5) * shrink)));
            filter.set(upright, first, &mut weights, if mirrored { Some(input) } else { None });
        }
        Some(filter)
    }

    /// Stores the weights of one output, normalised and rounded; those of a mirrored input,
    /// `mirrored_input` long, from the other end.
    fn set(
        &mut self,
        upright: usize,
        first: usize,
        weights: &mut [f64],
        mirrored_input: Option<usize>,
    ) {
        let sum: f64 = weights.iter().sum();
        let (output, start) = match mirrored_input {
            None => (upright, first),
            Some(input) => {
                weights.reverse();
                (self.starts.len() - 1 - upright, input - first - weights.len())
            }
        };
        self.starts[output] = start;
        self.lengths[output] = weights.len();
        for (tap, weight) in weights.iter().enumerate() {
            let scaled = weight / sum * f64::from(1_u32 << PRECISION);
            // `as` cuts towards zero, so this rounds half away from zero.
            let whole = (scaled + 0.5_f64.copysign(scaled)) as i32;
            let high = whole >> LOW_BITS;
            self.high[output * self.taps + tap] = high as i16;
            self.low[output * self.taps + tap] = (whole - (high << LOW_BITS)) as i16;
        }
    }

    fn outputs(&self) -> usize {
        self.starts.len()
    }

    /// First input, high and low weights of one output.
    fn output(&self, output: usize) -> (usize, &[i16], &[i16]) {
        let weights = output * self.taps..output * self.taps + self.lengths[output];
        (self.starts[output], &self.high[weights.clone()], &self.low[weights])
    }
}

/// Calls a kernel in the widest form that this processor has.
macro_rules! dispatch {
    ($kernel:ident, $avx2:ident, ($($argument:expr),*)) => {
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx2") {
                #[expect(unsafe_code, reason = "calls code built for a processor with AVX2")]
                // SAFETY: the processor was just asked.
                unsafe { $avx2($($argument),*) }
            } else {
                $kernel($($argument),*);
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        $kernel($($argument),*);
    };
}

/// Keys' cubic kernel with `a = -0.5`.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// A sum of weighted pixels as a byte. Sums of the halves may wrap; the whole never does.
#[inline(always)]
fn to_byte(high: i32, low: i32) -> u8 {
    let sum = (high << LOW_BITS).wrapping_add(low).wrapping_add(1 << (PRECISION - 1));
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// Runs a filter along each row of pixels, `width` long.
fn filter_rows<'a>(rgb: &'a [u8], width: usize, filter: Option<&Filter>) -> Cow<'a, [u8]> {
    let Some(filter) = filter else { return Cow::Borrowed(rgb) };
    let mut result = vec![0; rgb.len() / (width * CHANNELS) * filter.outputs() * CHANNELS];
    dispatch!(rows_kernel, rows_kernel_avx2, (rgb, width, filter, &mut result));
    Cow::Owned(result)
}

/// Runs a filter along each column of a picture `width` pixels wide.
fn filter_columns<'a>(rgb: &'a [u8], width: usize, filter: Option<&Filter>) -> Cow<'a, [u8]> {
    let Some(filter) = filter else { return Cow::Borrowed(rgb) };
    let mut result = vec![0; filter.outputs() * width * CHANNELS];
    dispatch!(columns_kernel, columns_kernel_avx2, (rgb, width, filter, &mut result));
    Cow::Owned(result)
}

#[inline(always)]
fn rows_kernel(rgb: &[u8], width: usize, filter: &Filter, result: &mut [u8]) {
    let mut planes = vec![0_i16; width * CHANNELS];
    let (red, rest) = planes.split_at_mut(width);
    let (green, blue) = rest.split_at_mut(width);
    let rows = rgb.chunks_exact(width * CHANNELS);
    for (row, out) in rows.zip(result.chunks_exact_mut(filter.outputs() * CHANNELS)) {
        for (((pixel, r), g), b) in
            row.chunks_exact(CHANNELS).zip(&mut *red).zip(&mut *green).zip(&mut *blue)
        {
            (*r, *g, *b) = (pixel[0].into(), pixel[1].into(), pixel[2].into());
        }
        for (output, pixel) in out.chunks_exact_mut(CHANNELS).enumerate() {
            let (start, high, low) = filter.output(output);
            for (value, plane) in pixel.iter_mut().zip([&*red, &*green, &*blue]) {
                let plane = &plane[start..start + high.len()];
                *value = to_byte(dot(plane, high), dot(plane, low));
            }
        }
    }
}

/// Sum of the products of two rows of equal length; may wrap.
#[inline(always)]
fn dot(a: &[i16], b: &[i16]) -> i32 {
    a.iter().zip(b).fold(0, |sum, (&a, &b)| sum.wrapping_add(i32::from(a) * i32::from(b)))
}

#[inline(always)]
fn columns_kernel(rgb: &[u8], width: usize, filter: &Filter, result: &mut [u8]) {
    let stride = width * CHANNELS;
    let mut high_sums = vec![0_i32; stride];
    let mut low_sums = vec![0_i32; stride];
    for (output, out) in result.chunks_exact_mut(stride).enumerate() {
        let (start, high, low) = filter.output(output);
        high_sums.fill(0);
        low_sums.fill(0);
        let rows = rgb[start * stride..].chunks_exact(stride);
        for ((row, &high), &low) in rows.zip(high).zip(low) {
            for ((&value, high_sum), low_sum) in row.iter().zip(&mut high_sums).zip(&mut low_sums) {
                *high_sum = high_sum.wrapping_add(i32::from(value) * i32::from(high));
                *low_sum = low_sum.wrapping_add(i32::from(value) * i32::from(low));
            }
        }
        for ((value, &high), &low) in out.iter_mut().zip(&high_sums).zip(&low_sums) {
            *value = to_byte(high, low);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn rows_kernel_avx2(rgb: &[u8], width: usize, filter: &Filter, result: &mut [u8]) {
    rows_kernel(rgb, width, filter, result);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn columns_kernel_avx2(rgb: &[u8], width: usize, filter: &Filter, result: &mut [u8]) {
    columns_kernel(rgb, width, filter, result);
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use proptest::prelude::*;
    use safetensors::SafeTensors;

    use super::*;

    fn picture(width: u32, height: u32, seed: u64) -> DecodedImage {
        let mut state = seed | 1;
        let rgb = (0..width as usize * height as usize * CHANNELS)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        DecodedImage { width, height, rgb }
    }

    #[test]
    fn every_golden_picture_is_resized_to_the_bytes_that_pillow_made() {
        let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/goldens");
        let mut compared = 0;
        for case in fs::read_dir(goldens).unwrap() {
            for file in fs::read_dir(case.unwrap().path()).into_iter().flatten() {
                let file = file.unwrap().path();
                if file.extension().is_none_or(|extension| extension != "safetensors") {
                    continue;
                }
                let bytes = fs::read(&file).unwrap();
                let tensors = SafeTensors::deserialize(&bytes).unwrap();
                let mut names = tensors.names().into_iter();
                let Some(name) = names.find(|name| name.ends_with("image_u8_hwc")) else {
                    continue;
                };
                let golden = tensors.tensor(name).unwrap();
                let (height, width) = (golden.shape()[0] as u32, golden.shape()[1] as u32);
                let photo = image::open(file.with_file_name("image.png")).unwrap().into_rgb8();
                let photo = DecodedImage {
                    width: photo.width(),
                    height: photo.height(),
                    rgb: photo.into_raw(),
                };
                let resized = resize_bicubic(&photo, width, height);
                assert!(resized.rgb == golden.data(), "{} of {}", name, file.display());
                compared += 1;
            }
        }
        assert!(compared >= 4, "only {compared} golden pictures were found");
    }

    #[test]
    fn a_picture_of_the_right_size_is_left_as_it_is() {
        let photo = picture(7, 5, 3);
        assert_eq!(resize_bicubic(&photo, 7, 5), photo);
    }

    #[test]
    fn the_vector_kernels_agree_with_the_plain_ones() {
        let photo = picture(203, 57, 9);
        let filter = Filter::new(203, 31, false).unwrap();
        let mut plain = vec![0; 31 * 57 * CHANNELS];
        rows_kernel(&photo.rgb, 203, &filter, &mut plain);
        assert_eq!(filter_rows(&photo.rgb, 203, Some(&filter)), plain);
        let filter = Filter::new(57, 90, true).unwrap();
        let mut plain = vec![0; 203 * 90 * CHANNELS];
        columns_kernel(&photo.rgb, 203, &filter, &mut plain);
        assert_eq!(filter_columns(&photo.rgb, 203, Some(&filter)), plain);
    }

    proptest! {
        #[test]
        fn turning_after_the_resize_gives_the_bytes_of_turning_before(
            stored in (1_u32..70, 1_u32..70, any::<u64>()),
            size in (1_u32..60, 1_u32..60),
            exif in 1_u32..=8,
        ) {
            let stored = picture(stored.0, stored.1, stored.2);
            let orientation = Orientation::from_exif(exif);
            let upright = orientation.apply(stored.clone());
            prop_assert_eq!(
                resize_upright(&stored, orientation, size.0, size.1),
                resize_bicubic(&upright, size.0, size.1)
            );
        }

        #[test]
        fn a_plain_picture_stays_plain(
            colour in any::<[u8; 3]>(),
            from in (1_u32..90, 1_u32..90),
            to in (1_u32..90, 1_u32..90),
        ) {
            let rgb = colour.repeat((from.0 * from.1) as usize);
            let photo = DecodedImage { width: from.0, height: from.1, rgb };
            let resized = resize_bicubic(&photo, to.0, to.1);
            prop_assert_eq!(resized.rgb, colour.repeat((to.0 * to.1) as usize));
        }
    }
}
