//! Photos as they are printed: for a person, and as JSON.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use jiff::civil::{Date, DateTime};
use serde::{Deserialize, Serialize};
use tinyfind_index::{PhotoMetadata, Taken, TakenSource};

use super::printer::{FAINT, MATCHED, Printer, STRONG};
use crate::search::Hit;

/// A path in JSON: text, and the bytes themselves where they are not UTF-8.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct JsonPath {
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

/// A hit as `search --json` prints it. The keys are part of the command line: they stay.
#[derive(Debug, Serialize)]
struct JsonHit<'a> {
    rank: usize,
    score: f32,
    #[serde(flatten)]
    path: JsonPath,
    caption: Option<&'a str>,
    taken: Option<String>,
    taken_from: Option<TakenSource>,
    camera: Option<&'a str>,
    gps: Option<JsonPlace>,
    width: u32,
    height: u32,
    scores: JsonScores,
}

#[derive(Debug, Serialize)]
struct JsonPlace {
    latitude: f64,
    longitude: f64,
}

#[derive(Debug, Serialize)]
struct JsonScores {
    words: Option<f32>,
    meaning: Option<f32>,
}

impl<'a> From<&'a Hit> for JsonHit<'a> {
    fn from(hit: &'a Hit) -> Self {
        let PhotoMetadata { width, height, taken, camera, gps, .. } = &hit.metadata;
        Self {
            rank: hit.rank,
            score: hit.score,
            path: hit.path.as_path().into(),
            caption: hit.caption.as_deref(),
            taken: taken.as_ref().map(date_and_time),
            taken_from: taken.as_ref().map(|taken| taken.source),
            camera: camera.as_deref(),
            gps: gps.map(|(latitude, longitude)| JsonPlace { latitude, longitude }),
            width: *width,
            height: *height,
            scores: JsonScores { words: hit.scores.words, meaning: hit.scores.meaning },
        }
    }
}

/// `value` as one line of JSON on stdout.
pub(crate) fn print_json(printer: &mut Printer, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_string(value)?;
    line.push('\n');
    printer.stdout().write_all(line.as_bytes())
}

/// Each hit as one line of JSON.
pub(crate) fn print_hits_as_json(printer: &mut Printer, hits: &[Hit]) -> io::Result<()> {
    hits.iter().try_for_each(|hit| print_json(printer, &JsonHit::from(hit)))
}

/// Each hit as `rank  score  path`, its caption below with the matched words marked.
pub(crate) fn print_hits(printer: &mut Printer, hits: &[Hit]) -> io::Result<()> {
    let width = hits.last().map_or(1, |hit| hit.rank.to_string().len());
    for hit in hits {
        let rank = printer.paint(STRONG, &format!("{:>width$}", hit.rank));
        let score = printer.paint(FAINT, &format!("{:.2}", hit.score));
        write!(printer.stdout(), "{rank}  {score}  ")?;
        printer.path(&hit.path)?;
        let caption = caption_line(printer, hit);
        writeln!(printer.stdout(), "\n{:width$}  {caption}", "")?;
    }
    Ok(())
}

fn caption_line(printer: &Printer, hit: &Hit) -> String {
    let Some(caption) = &hit.caption else {
        return printer.paint(FAINT, "(no caption yet)");
    };
    let caption = one_line(caption);
    let mut line = String::new();
    let mut done = 0;
    for range in &hit.highlights {
        let (Some(before), Some(word)) =
            (caption.get(done..range.start), caption.get(range.clone()))
        else {
            continue;
        };
        line.push_str(before);
        line.push_str(&printer.paint(MATCHED, word));
        done = range.end;
    }
    line.push_str(&caption[done..]);
    line
}

/// `text` with spaces for every control character, byte for byte: ranges of the one fit the
/// other, and nothing that a model wrote moves a cursor.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            // U+0080 to U+009F, which some terminals obey too, are two bytes long.
            line.extend(std::iter::repeat_n(' ', c.len_utf8()));
        } else {
            line.push(c);
        }
    }
    line
}

/// `2019-07-14T10:30:00`, with `+02:00` behind it where the photo tells its clock.
fn date_and_time(taken: &Taken) -> String {
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
    fn control_characters_become_spaces_of_their_length() {
        assert_eq!(one_line("a\x1b[1m\nü\u{9b}2Jb\x7f"), "a [1m ü  2Jb ");
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
