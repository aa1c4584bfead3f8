//! Bytes to pixels, within limits.

use std::io::Cursor;

use image::{ColorType, DynamicImage, ImageDecoder, ImageError, ImageReader, Limits};

use super::{DecodeError, DecodedImage, format::Format, jpeg};

/// The most pixels of a JPEG in one scan, which is decoded row by row: a 16,320 x 10,000 photo.
const MAX_PIXELS_IN_ONE_SCAN: u64 = 170_000_000;

/// The most pixels of any other picture: its decoder holds more than the picture.
const MAX_PIXELS: u64 = 100_000_000;

/// The most memory that a decoder may ask for at once, in bytes. Decoders keep to it as far as
/// they can; the limits on pixels are what is relied on.
const MAX_ALLOCATION: u64 = 512 << 20;

/// What the head of a picture says before its pixels are decoded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    /// Width as stored, in pixels.
    pub(super) width: u32,
    /// Height as stored, in pixels.
    pub(super) height: u32,
    /// Bytes that decoding will hold at the same time, about.
    pub(super) memory: u64,
}

/// Reads the head of a picture and refuses what is cut or too large.
pub(super) fn measure(bytes: &[u8], format: Format) -> Result<Size, DecodeError> {
    let markers = (format == Format::Jpeg).then(|| jpeg::scan(bytes));
    if markers.is_some_and(|markers| !markers.complete) {
        return Err(DecodeError::Truncated { format });
    }
    let decoder = decoder(bytes, format)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    let in_one_scan = markers.is_some_and(|markers| !markers.progressive);
    let limit = if in_one_scan { MAX_PIXELS_IN_ONE_SCAN } else { MAX_PIXELS };
    if pixels > limit {
        return Err(DecodeError::TooManyPixels { width, height, limit });
    }
    // No Huffman code is shorter than one bit, and every block of 8 x 8 pixels needs one at
    // least: a shorter file is a header that promises what never follows.
    if markers.is_some_and(|markers| markers.huffman) && (bytes.len() as u64) < pixels / 512 {
        return Err(DecodeError::Truncated { format });
    }
    let widened = if decoder.color_type() == ColorType::Rgb8 { 0 } else { 3 * pixels };
    // Progressive JPEGs keep 16-bit coefficients of each channel; other formats their own
    // copy of the picture.
    let own = match markers {
        Some(markers) if !markers.progressive => 0,
        Some(_) => 6 * pixels,
        None => decoder.total_bytes(),
    };
    let memory = decoder.total_bytes() + widened + own + 2 * bytes.len() as u64;
    Ok(Size { width, height, memory })
}

/// Decodes the first picture of a file, as stored. Alpha is dropped, as the models' training
/// did it; 16-bit channels are scaled to 8; grey becomes three equal channels.
pub(super) fn decode(bytes: &[u8], format: Format) -> Result<DecodedImage, DecodeError> {
    let decoder = decoder(bytes, format)?;
    let image = DynamicImage::from_decoder(decoder).map_err(|error| damaged(error, format))?;
    let image = image.into_rgb8();
    let (width, height) = image.dimensions();
    Ok(DecodedImage { width, height, rgb: image.into_raw() })
}

fn decoder(bytes: &[u8], format: Format) -> Result<impl ImageDecoder + '_, DecodeError> {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_ALLOCATION);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format.decoder());
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|error| damaged(error, format))?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(DecodeError::Damaged { format, source: "a picture without pixels".into() });
    }
    Ok(decoder)
}

fn damaged(error: ImageError, format: Format) -> DecodeError {
    let cut =
        matches!(&error, ImageError::IoError(io) if io.kind() == std::io::ErrorKind::UnexpectedEof);
    if cut {
        return DecodeError::Truncated { format };
    }
    DecodeError::Damaged { format, source: Box::new(error) }
}
