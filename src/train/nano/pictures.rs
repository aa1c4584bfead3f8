//! Scenes as the model sees them.

use candle_core::{DType, Device, Result, Tensor};

use super::config::IMAGE_SIZE;
use crate::{
    decode::DecodedImage,
    model::pixels::pixel_values,
    train::scenes::{Scene, Split},
};

/// Drawn scenes.
#[derive(Debug)]
pub struct Pictures {
    /// What they show.
    pub scenes: Vec<Scene>,
    /// How they look.
    pub images: Vec<DecodedImage>,
}

impl Pictures {
    /// The scenes `first..first + count` of `split`, drawn.
    pub fn draw(split: Split, first: u64, count: usize) -> Self {
        let scenes = (first..first + count as u64).map(|i| Scene::generate(split, i));
        Self::of(scenes.collect())
    }

    /// Draws `scenes`.
    pub fn of(scenes: Vec<Scene>) -> Self {
        let side = IMAGE_SIZE as u32;
        let images = scenes.iter().map(|scene| scene.draw(side, side)).collect();
        Self { scenes, images }
    }

    /// Pixel values `(pictures, 3, 112, 112)`.
    ///
    /// # Errors
    ///
    /// When the device has no room.
    pub fn pixels(&self, device: &Device, dtype: DType) -> Result<Tensor> {
        pixel_values(&self.images, IMAGE_SIZE, device, dtype)
    }
}
