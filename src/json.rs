//! Photos as JSON: keys that every command shares which prints photos, or reads what was printed.
//! They are part of the command line: they stay.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use jiff::civil::{Date, DateTime};
use serde::{Deserialize, Serialize};
use tinyfind_index::{PhotoMetadata, Taken, TakenSource};

/// A path in JSON: text, and the bytes themselves where they are not UTF-8.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JsonPath {
    /// The path, with U+FFFD for what is not UTF-8.
    path: String,
    /// Its bytes, where `path` cannot hold them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_bytes: Option<Vec<u8>>,
}

impl From<&Path> for JsonPath {
    fn from(path: &Path) -> Self {
        let bytes = path.as_os_str().as_encoded_bytes();
        Self {
            path: path.to_string_lossy().into_owned(),
            path_bytes: path.to_str().is_none().then(|| bytes.to_vec()),
        }
    }
}

impl From<JsonPath> for PathBuf {
    fn from(json: JsonPath) -> Self {
        match json.path_bytes {
            Some(bytes) => OsString::from_vec(bytes).into(),
            None => json.path.into(),
        }
    }
}

/// What the header of a photo says, in JSON. What is unknown is null.
#[derive(Debug, Serialize)]
pub struct JsonMetadata<'a> {
    title: Option<&'a str>,
    description: Option<&'a str>,
    keywords: &'a [String],
    place: Option<&'a str>,
    taken: Option<String>,
    taken_from: Option<TakenSource>,
    camera: Option<&'a str>,
    lens: Option<&'a str>,
    gps: Option<JsonPlace>,
    format: &'a str,
    width: u32,
    height: u32,
}

#[derive(Debug, Serialize)]
struct JsonPlace {
    latitude: f64,
    longitude: f64,
}

impl<'a> From<&'a PhotoMetadata> for JsonMetadata<'a> {
    fn from(metadata: &'a PhotoMetadata) -> Self {
        Self {
            title: metadata.title.as_deref(),
            description: metadata.description.as_deref(),
            keywords: &metadata.keywords,
            place: metadata.place.as_deref(),
            taken: metadata.taken.as_ref().map(date_and_time),
            taken_from: metadata.taken.as_ref().map(|taken| taken.source),
            camera: metadata.camera.as_deref(),
            lens: metadata.lens.as_deref(),
            gps: metadata.gps.map(|(latitude, longitude)| JsonPlace { latitude, longitude }),
            format: &metadata.format,
            width: metadata.width,
            height: metadata.height,
        }
    }
}

/// `2019-07-14T10:30:00`, with `+02:00` behind it where the photo tells its clock.
pub fn date_and_time(taken: &Taken) -> String {
    let epoch = Date::constant(1970, 1, 1).at(0, 0, 0, 0);
    let local = epoch.checked_add(SignedDuration::from_secs(taken.local_seconds));
    let mut text = match local {
        Ok(local) => local.strftime("%Y-%m-%dT%H:%M:%S").to_string(),
        Err(_) => DateTime::MAX.strftime("%Y-%m-%dT%H:%M:%S").to_string(),
    };
    if let Some(offset) = taken.offset_minutes {
        let (hours, minutes) = (offset.abs() / 60, offset.abs() % 60);
        let sign = if offset < 0 { '-' } else { '+' };
        let _ = write!(text, "{sign}{hours:02}:{minutes:02}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn a_path_survives_json_byte_for_byte() {
        for bytes in [b"/a/b.jpg".as_slice(), b"/a/\xff\x00b.jpg", "/a/ü".as_bytes()] {
            let path = Path::new(OsStr::from_bytes(bytes));
            let json = serde_json::to_string(&JsonPath::from(path)).unwrap();
            let back: JsonPath = serde_json::from_str(&json).unwrap();
            assert_eq!(PathBuf::from(back), path);
        }
    }

    #[test]
    fn a_date_is_told_with_the_offset_of_its_clock() {
        let taken = |local_seconds, offset_minutes| {
            date_and_time(&Taken { local_seconds, offset_minutes, source: TakenSource::Exif })
        };
        assert_eq!(taken(1_546_300_800, None), "2019-01-01T00:00:00");
        assert_eq!(taken(1_546_300_799, Some(120)), "2018-12-31T23:59:59+02:00");
        assert_eq!(taken(-1, Some(-570)), "1969-12-31T23:59:59-09:30");
    }
}
