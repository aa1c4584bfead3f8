//! A picture of the album as the bytes of a photo: JPEG with an EXIF block.

use std::io::Cursor;

use exif::experimental::Writer;
use exif::{Field, In, Rational, Tag, Value};
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder as _, RgbImage, imageops};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tinyfind_index::Taken;

use super::album::{MILLISECONDS_OF_ARC, Picture};
use super::error::DemoError;

/// Pixels along each side of a picture: square, as the scenes of the training are.
pub const SIDE: u32 = 480;

/// Quality of the JPEG, of 100.
const QUALITY: u8 = 90;

impl Picture {
    /// The bytes of the file: a JPEG of [`SIDE`] pixels square, stored as `orientation` says,
    /// with an EXIF block. The same every time.
    ///
    /// # Errors
    ///
    /// When the EXIF block or the JPEG cannot be written, which no picture of the album gives
    /// reason for.
    pub fn jpeg(&self) -> Result<Vec<u8>, DemoError> {
        let drawn = self.scene.draw(SIDE, SIDE);
        let upright = RgbImage::from_raw(drawn.width, drawn.height, drawn.rgb).unwrap_or_default();
        // A file that is to be turned clockwise was turned counterclockwise before.
        let stored = match self.orientation {
            6 => imageops::rotate270(&upright),
            8 => imageops::rotate90(&upright),
            _ => upright,
        };
        let mut bytes = Vec::new();
        let mut encoder = JpegEncoder::new_with_quality(&mut bytes, QUALITY);
        encoder.set_exif_metadata(self.exif()?).map_err(image::ImageError::Unsupported)?;
        let (width, height) = stored.dimensions();
        encoder.encode(&stored, width, height, ExtendedColorType::Rgb8)?;
        Ok(bytes)
    }

    /// The EXIF block, without the marker of its segment.
    fn exif(&self) -> Result<Vec<u8>, DemoError> {
        let mut fields = vec![
            text(Tag::Make, self.camera.make),
            text(Tag::Model, self.camera.model),
            field(Tag::Orientation, Value::Short(vec![self.orientation])),
            text(Tag::Software, "tinyfind demo"),
            field(Tag::ExifVersion, Value::Undefined(b"0232".to_vec(), 0)),
            text(Tag::LensModel, self.camera.lens),
        ];
        fields.extend(dates(&self.taken));
        if let Some((latitude, longitude)) = self.place {
            fields.push(field(Tag::GPSVersionID, Value::Byte(vec![2, 3, 0, 0])));
            fields.push(text(Tag::GPSLatitudeRef, if latitude < 0.0 { "S" } else { "N" }));
            fields.push(field(Tag::GPSLatitude, degrees(latitude)));
            fields.push(text(Tag::GPSLongitudeRef, if longitude < 0.0 { "W" } else { "E" }));
            fields.push(field(Tag::GPSLongitude, degrees(longitude)));
        }
        let mut writer = Writer::new();
        for field in &fields {
            writer.push_field(field);
        }
        let mut block = Cursor::new(Vec::new());
        writer.write(&mut block, true)?;
        Ok(block.into_inner())
    }
}

fn field(tag: Tag, value: Value) -> Field {
    Field { tag, ifd_num: In::PRIMARY, value }
}

fn text(tag: Tag, text: &str) -> Field {
    field(tag, Value::Ascii(vec![text.as_bytes().to_vec()]))
}

/// The fields that say when a picture was taken, as the clock of the place showed it.
fn dates(taken: &Taken) -> Vec<Field> {
    let local = Timestamp::from_second(taken.local_seconds).unwrap_or_default();
    let local = local.to_zoned(TimeZone::UTC).strftime("%Y:%m:%d %H:%M:%S").to_string();
    let mut fields: Vec<Field> = [Tag::DateTime, Tag::DateTimeOriginal, Tag::DateTimeDigitized]
        .map(|tag| text(tag, &local))
        .into();
    if let Some(offset) = taken.offset_minutes {
        let sign = if offset < 0 { '-' } else { '+' };
        let offset = format!("{sign}{:02}:{:02}", offset.abs() / 60, offset.abs() % 60);
        fields.push(text(Tag::OffsetTimeOriginal, &offset));
    }
    fields
}

/// Degrees, minutes and seconds without their sign.
fn degrees(angle: f64) -> Value {
    let all = (angle.abs() * MILLISECONDS_OF_ARC).round() as u32;
    let part = |num, denom| Rational { num, denom };
    Value::Rational(vec![
        part(all / 3_600_000, 1),
        part(all / 60_000 % 60, 1),
        part(all % 60_000, 1000),
    ])
}
