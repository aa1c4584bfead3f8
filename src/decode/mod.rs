//! File to pixels: bytes, content hash, EXIF, and the picture itself, upright.

mod orientation;
mod resize;

pub use resize::resize_bicubic;

/// A picture as rows of RGB bytes, upright.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedImage {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `width * height * 3` bytes, row by row from the top left.
    pub rgb: Vec<u8>,
}
