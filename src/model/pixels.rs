//! Pictures to pixel values: the one transform of training and inference.
//!
//! Resize to a square with Pillow's bicubic filter (the aspect ratio is lost, nothing is
//! cropped), then CLIP's mean and deviation per channel.

use candle_core::{DType, Device, Result, Tensor};
use rayon::prelude::*;

use crate::decode::{DecodedImage, resize_bicubic};

/// CLIP's channel means.
const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// CLIP's channel deviations.
const DEVIATION: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// Pixel values `(images, 3, size, size)` of type `dtype` on `device`.
///
/// A picture of another size than `size` x `size` is resized first.
///
/// # Errors
///
/// When the device has no room.
pub fn pixel_values(
    images: &[DecodedImage],
    size: usize,
    device: &Device,
    dtype: DType,
) -> Result<Tensor> {
    let side = size as u32;
    let planes: Vec<f32> = images
        .par_iter()
        .flat_map_iter(|image| {
            if (image.width, image.height) == (side, side) {
                normalized_planes(&image.rgb)
            } else {
                normalized_planes(&resize_bicubic(image, side, side).rgb)
            }
        })
        .collect();
    Tensor::from_vec(planes, (images.len(), 3, size, size), &Device::Cpu)?
        .to_device(device)?
        .to_dtype(dtype)
}

/// `(value / 255 - mean) / deviation`, channel by channel.
fn normalized_planes(rgb: &[u8]) -> Vec<f32> {
    let mut planes = Vec::with_capacity(rgb.len());
    for channel in 0..3 {
        let (mean, deviation) = (MEAN[channel], DEVIATION[channel]);
        planes.extend(
            rgb.iter()
                .skip(channel)
                .step_by(3)
                .map(|&value| (f32::from(value) / 255.0 - mean) / deviation),
        );
    }
    planes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_of_the_right_size_is_only_normalised() {
        let image = DecodedImage { width: 2, height: 1, rgb: vec![0, 255, 51, 255, 0, 102] };
        let square = DecodedImage { width: 2, height: 2, rgb: image.rgb.repeat(2) };
        let values = pixel_values(&[square], 2, &Device::Cpu, DType::F32).unwrap();
        assert_eq!(values.dims(), [1, 3, 2, 2]);
        let red = values.get(0).unwrap().get(0).unwrap().to_vec2::<f32>().unwrap();
        assert!((red[0][0] + 0.481_454_66 / 0.268_629_54).abs() < 1e-6);
        assert!((red[1][1] - (1.0 - 0.481_454_66) / 0.268_629_54).abs() < 1e-6);
    }

    #[test]
    fn a_batch_equals_its_pictures_one_by_one() {
        let a = DecodedImage { width: 5, height: 3, rgb: (0..45).collect() };
        let b = DecodedImage { width: 4, height: 7, rgb: (0..84).rev().collect() };
        let both = pixel_values(&[a.clone(), b.clone()], 6, &Device::Cpu, DType::F32).unwrap();
        for (i, image) in [a, b].into_iter().enumerate() {
            let alone = pixel_values(&[image], 6, &Device::Cpu, DType::F32).unwrap();
            let (x, y) = (both.get(i).unwrap(), alone.get(0).unwrap());
            assert_eq!(
                x.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
                y.flatten_all().unwrap().to_vec1::<f32>().unwrap()
            );
        }
    }
}
