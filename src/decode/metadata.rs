//! What a photo's EXIF block says of it, and what people wrote into it (`notes`).
//!
//! Such a block is data from strangers: any part may be missing, blank, out of range or cut, and
//! then that part alone is left out.

use std::io::Cursor;

use ::exif::{DateTime, Exif, Field, In, Reader, Tag, Value};
use tinyfind_index::{FileStamp, PhotoMetadata, Taken, TakenSource};

use super::{format::Format, notes, orientation::Orientation};

/// The longest text that is kept of a field, in characters.
const MAX_TEXT: usize = 120;

/// Digital dates before this year are a clock that was never set. (The first photo is of 1826.)
const FIRST_YEAR: u16 = 1826;

/// Orientation and metadata of the photo in `bytes`; width and height are left at 0.
///
/// The date is that of the exposure, else that of the digitisation, both local time; else the
/// GPS clock, in UTC; else the file's modification time.
pub(super) fn read(bytes: &[u8], format: Format, stamp: FileStamp) -> (Orientation, PhotoMetadata) {
    let exif = read_exif(bytes, format);
    let exif = exif.as_ref();
    let orientation = exif
        .and_then(|exif| exif.get_field(Tag::Orientation, In::PRIMARY))
        .and_then(|field| field.value.get_uint(0))
        .map_or(Orientation::UPRIGHT, Orientation::from_exif);
    let modified =
        Taken { local_seconds: seconds(stamp), offset_minutes: None, source: TakenSource::Mtime };
    let mut metadata = PhotoMetadata {
        format: format.name().into(),
        taken: Some(exif.and_then(taken).unwrap_or(modified)),
        camera: exif.and_then(camera),
        lens: exif.and_then(|exif| text(exif, Tag::LensModel)),
        gps: exif.and_then(position),
        ..PhotoMetadata::default()
    };
    notes::add(&mut metadata, bytes, format, exif);
    (orientation, metadata)
}

fn read_exif(bytes: &[u8], format: Format) -> Option<Exif> {
    if matches!(format, Format::Gif | Format::Bmp) {
        return None;
    }
    Reader::new()
        .continue_on_error(true)
        .read_from_container(&mut Cursor::new(bytes))
        .or_else(|error| {
            error.distill_partial_result(|errors| {
                tracing::debug!(?errors, "left out parts of an EXIF block");
            })
        })
        .ok()
}

/// Modification time in whole seconds.
fn seconds(stamp: FileStamp) -> i64 {
    stamp.mtime_ns.div_euclid(1_000_000_000)
}

fn taken(exif: &Exif) -> Option<Taken> {
    let local = |date, offset| {
        let local_seconds = date_time(&ascii(exif, date)?)?;
        let offset_minutes = ascii(exif, offset).and_then(|text| offset_minutes(&text));
        Some(Taken { local_seconds, offset_minutes, source: TakenSource::Exif })
    };
    local(Tag::DateTimeOriginal, Tag::OffsetTimeOriginal)
        .or_else(|| local(Tag::DateTimeDigitized, Tag::OffsetTimeDigitized))
        .or_else(|| gps_time(exif))
}

/// Seconds since 1970 of `YYYY:MM:DD HH:MM:SS`, if that is a date at all.
fn date_time(text: &[u8]) -> Option<i64> {
    let parsed = DateTime::from_ascii(text).ok()?;
    civil_seconds(
        (parsed.year, parsed.month, parsed.day),
        (parsed.hour, parsed.minute, parsed.second),
    )
}

fn civil_seconds(
    (year, month, day): (u16, u8, u8),
    (hour, minute, second): (u8, u8, u8),
) -> Option<i64> {
    if year < FIRST_YEAR {
        return None;
    }
    let small = |value: u8| i8::try_from(value).ok();
    let date = jiff::civil::Date::new(year.try_into().ok()?, small(month)?, small(day)?).ok()?;
    // A leap second has no place in a count of seconds.
    let time =
        jiff::civil::Time::new(small(hour)?, small(minute)?, small(second.min(59))?, 0).ok()?;
    let zoned = date.to_datetime(time).to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(zoned.timestamp().as_second())
}

/// Minutes east of UTC of `+HH:MM` or `-HH:MM`, at most 14 hours away, as clocks are.
fn offset_minutes(text: &[u8]) -> Option<i16> {
    let mut parsed = DateTime::from_ascii(b"2000:01:01 00:00:00").ok()?;
    parsed.parse_offset(text).ok()?;
    parsed.offset.filter(|minutes| minutes.abs() <= 14 * 60)
}

fn gps_time(exif: &Exif) -> Option<Taken> {
    let date = ascii(exif, Tag::GPSDateStamp)?;
    let date = DateTime::from_ascii(&[date.as_slice(), b" 00:00:00"].concat()).ok()?;
    let [hour, minute, second] = rationals(field(exif, Tag::GPSTimeStamp)?)?;
    let in_day = |value: f64| (0.0..=60.0).contains(&value).then_some(value as u8);
    let local_seconds = civil_seconds(
        (date.year, date.month, date.day),
        (in_day(hour)?, in_day(minute)?, in_day(second)?),
    )?;
    Some(Taken { local_seconds, offset_minutes: Some(0), source: TakenSource::Gps })
}

/// Latitude and longitude in degrees; none where the place is the origin of both, which is
/// what devices without a fix write.
fn position(exif: &Exif) -> Option<(f64, f64)> {
    let coordinate = |value, reference, positive: u8, negative: u8, limit: f64| {
        let [degrees, minutes, seconds] = rationals(field(exif, value)?)?;
        let size = degrees + minutes / 60.0 + seconds / 3600.0;
        let side = ascii(exif, reference)?.first()?.to_ascii_uppercase();
        let signed = match side {
            side if side == positive => size,
            side if side == negative => -size,
            _ => return None,
        };
        // A centimetre is as exact as anyone knows it, and reads better.
        (size <= limit).then_some((signed * 1e7).round() / 1e7)
    };
    let latitude = coordinate(Tag::GPSLatitude, Tag::GPSLatitudeRef, b'N', b'S', 90.0)?;
    let longitude = coordinate(Tag::GPSLongitude, Tag::GPSLongitudeRef, b'E', b'W', 180.0)?;
    (latitude != 0.0 || longitude != 0.0).then_some((latitude, longitude))
}

/// Three numbers that are none of them divided by zero.
fn rationals(field: &Field) -> Option<[f64; 3]> {
    let Value::Rational(values) = &field.value else { return None };
    let mut numbers = values.iter().map(|value| (value.denom != 0).then(|| value.to_f64()));
    Some([numbers.next()??, numbers.next()??, numbers.next()??])
}

/// Maker and model as one name. Models often begin with the maker's name, or with its first
/// word (`NIKON CORPORATION`, `NIKON D70`), and then the model says it all.
fn camera(exif: &Exif) -> Option<String> {
    join_camera(text(exif, Tag::Make), text(exif, Tag::Model))
}

fn join_camera(make: Option<String>, model: Option<String>) -> Option<String> {
    let (Some(make), Some(model)) = (&make, &model) else { return make.or(model) };
    let first = |text: &str| text.split_whitespace().next().map(str::to_lowercase);
    Some(if first(make) == first(model) { model.clone() } else { format!("{make} {model}") })
}

fn field(exif: &Exif, tag: Tag) -> Option<&Field> {
    exif.get_field(tag, In::PRIMARY)
}

/// The bytes of a text field, without the blanks and zeros around them.
fn ascii(exif: &Exif, tag: Tag) -> Option<Vec<u8>> {
    let Value::Ascii(parts) = &field(exif, tag)?.value else { return None };
    let text = parts.first()?;
    let blank = |byte: &u8| *byte == 0 || byte.is_ascii_whitespace();
    let start = text.iter().position(|byte| !blank(byte))?;
    let end = text.iter().rposition(|byte| !blank(byte))?;
    Some(text[start..=end].to_vec())
}

/// A text field for a person: one line, of readable characters.
fn text(exif: &Exif, tag: Tag) -> Option<String> {
    let bytes = ascii(exif, tag)?;
    notes::line(&String::from_utf8_lossy(&bytes), MAX_TEXT)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    const STAMP: FileStamp = FileStamp { size: 1, mtime_ns: -1_500_000_000 };

    fn fixture(name: &str) -> PhotoMetadata {
        let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/photos");
        let bytes = fs::read(photos.join(name)).unwrap();
        read(&bytes, Format::Jpeg, STAMP).1
    }

    fn exif(local_seconds: i64, offset_minutes: Option<i16>) -> Taken {
        Taken { local_seconds, offset_minutes, source: TakenSource::Exif }
    }

    #[test]
    fn dates_keep_the_local_time_and_the_offset_apart() {
        // 2023-07-14 22:15:30 +02:00, 2024-02-29 08:00:00 -03:00, 2021-10-10 10:10:10 +05:45.
        assert_eq!(
            fixture("exif/chelsea_paris.jpg").taken.unwrap(),
            exif(1_689_372_930, Some(120))
        );
        assert_eq!(
            fixture("exif/coffee_santiago.jpg").taken.unwrap(),
            exif(1_709_193_600, Some(-180))
        );
        assert_eq!(fixture("exif/barn_orient6.jpg").taken.unwrap(), exif(1_633_860_610, Some(345)));
        // 1999-12-31 23:59:59, nobody knows where.
        assert_eq!(fixture("exif/astronaut_no_offset.jpg").taken.unwrap(), exif(946_684_799, None));
    }

    #[test]
    fn a_blank_date_gives_way_to_the_modification_time() {
        let taken = fixture("exif/parrots_null_island.jpg").taken.unwrap();
        assert_eq!((taken.local_seconds, taken.source), (-2, TakenSource::Mtime));
    }

    #[test]
    fn places_lie_in_the_quadrant_that_their_letters_say() {
        assert_eq!(fixture("exif/chelsea_paris.jpg").gps, Some((48.858_222, 2.2945)));
        assert_eq!(fixture("exif/coffee_santiago.jpg").gps, Some((-33.4489, -70.6693)));
        assert_eq!(fixture("exif/island_dateline.jpg").gps, Some((-16.5, -179.99)));
        assert_eq!(fixture("exif/parrots_null_island.jpg").gps, None);
    }

    #[test]
    fn a_camera_is_named_once() {
        let join = |make: &str, model: &str| join_camera(Some(make.into()), Some(model.into()));
        assert_eq!(join("NIKON CORPORATION", "NIKON D70").unwrap(), "NIKON D70");
        assert_eq!(join("Canon", "Canon EOS 5D").unwrap(), "Canon EOS 5D");
        assert_eq!(join("Apple", "iPhone 6").unwrap(), "Apple iPhone 6");
        assert_eq!(join_camera(None, Some("X100".into())).unwrap(), "X100");
        assert_eq!(fixture("exif/chelsea_paris.jpg").camera.unwrap(), "TestCam T1");
    }

    #[test]
    fn what_people_wrote_is_read_beside_exif() {
        let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/photos");
        let bytes = fs::read(photos.join("exif/chelsea_paris.jpg")).unwrap();
        let segment = |marker: u8, inside: &[u8]| {
            let length = u16::try_from(inside.len() + 2).unwrap().to_be_bytes();
            [&[0xFF, marker], length.as_slice(), inside].concat()
        };
        let xmp = b"http://ns.adobe.com/xap/1.0/\0<r:RDF \
            xmlns:r=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\"><r:Description \
            xmlns:d=\"http://purl.org/dc/elements/1.1/\" d:title=\"A cat\"/></r:RDF>";
        let iptc = b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x10\
            \x1C\x02\x19\0\x03cat\x1C\x02\x5A\0\x03Ulm";
        let annotated =
            [&bytes[..2], &segment(0xE1, xmp), &segment(0xED, iptc), &bytes[2..]].concat();
        let plain = read(&bytes, Format::Jpeg, STAMP).1;
        let expected = PhotoMetadata {
            title: Some("A cat".to_owned()),
            keywords: vec!["cat".to_owned()],
            place: Some("Ulm".to_owned()),
            ..plain
        };
        assert_eq!(read(&annotated, Format::Jpeg, STAMP).1, expected);
        assert!(expected.camera.is_some() && expected.gps.is_some());
    }

    #[test]
    fn dates_that_are_none_are_left_out() {
        for text in ["0000:00:00 00:00:00", "2020:13:01 00:00:00", "2021:02:29 00:00:00", "    "] {
            assert_eq!(date_time(text.as_bytes()), None, "{text}");
        }
        assert_eq!(offset_minutes(b"+15:00"), None);
        assert_eq!(offset_minutes(b"-03:30"), Some(-210));
    }
}
