//! What people and their programs wrote into a photo: title, description, keywords, place.
//!
//! Three kinds of block may hold them, and often several do: XMP, IPTC and EXIF. Where they
//! disagree the younger kind wins, in this order; keywords are put together. All of it is data
//! from strangers: texts are cut to a length, keywords to a number, and a block that makes no
//! sense is left out.

use ::exif::{Context, Exif, In, Tag, Value};
use tinyfind_index::PhotoMetadata;

use super::format::Format;
use super::{iptc, packets, xmp};

/// The longest description that is kept, in characters: about a page.
const MAX_DESCRIPTION: usize = 2000;
/// The longest title, keyword or place, in characters.
const MAX_LINE: usize = 200;
/// Most keywords that are kept.
const MAX_KEYWORDS: usize = 100;

/// What cameras write as a description of every photo, in upper case.
const CAMERA_DEFAULTS: [&str; 6] =
    ["SONY DSC", "EXIF_JPEG_PICTURE", "SAMSUNG", "DEFAULT", "UNTITLED", "CREATED WITH GIMP"];

/// What one block says; every text is one readable line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Notes {
    title: Option<String>,
    description: Option<String>,
    keywords: Vec<String>,
    place: Option<String>,
}

impl Notes {
    /// Sets the title, where there is none and `text` says something.
    pub(super) fn set_title(&mut self, text: &str) {
        set(&mut self.title, text, MAX_LINE);
    }

    /// Sets the description, where there is none and `text` says something.
    pub(super) fn set_description(&mut self, text: &str) {
        set(&mut self.description, text, MAX_DESCRIPTION);
    }

    /// Adds a keyword that is not there yet in any case.
    pub(super) fn add_keyword(&mut self, text: &str) {
        let Some(keyword) = line(text, MAX_LINE) else { return };
        let folded = keyword.to_lowercase();
        if self.keywords.len() < MAX_KEYWORDS
            && self.keywords.iter().all(|known| known.to_lowercase() != folded)
        {
            self.keywords.push(keyword);
        }
    }

    /// Sets the place, where there is none, to its parts from the narrowest to the widest;
    /// blank and repeated ones are left out.
    pub(super) fn set_place<'a>(&mut self, parts: impl IntoIterator<Item = &'a str>) {
        let mut names: Vec<String> = Vec::new();
        for name in parts.into_iter().filter_map(|part| line(part, MAX_LINE)) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        set(&mut self.place, &names.join(", "), MAX_LINE);
    }

    /// These, completed by what `other` says.
    fn or(mut self, other: Self) -> Self {
        self.title = self.title.or(other.title);
        self.description = self.description.or(other.description);
        self.place = self.place.or(other.place);
        for keyword in &other.keywords {
            self.add_keyword(keyword);
        }
        self
    }
}

fn set(field: &mut Option<String>, text: &str, most: usize) {
    if field.is_none() {
        *field = line(text, most);
    }
}

/// The first `most` characters of `text` as one line of readable characters; none where it says
/// nothing.
pub(super) fn line(text: &str, most: usize) -> Option<String> {
    let readable: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect();
    let words: Vec<&str> = readable.split_whitespace().collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// Completes `metadata` by what the photo in `bytes` says of itself.
pub(super) fn add(metadata: &mut PhotoMetadata, bytes: &[u8], format: Format, exif: Option<&Exif>) {
    let mut found = packets::find(bytes, format);
    if format == Format::Tiff
        && let Some(exif) = exif
    {
        found.xmp = raw(exif, 700);
        found.iptc = raw(exif, 33_723);
    }
    let xmp = found.xmp.and_then(|packet| xmp::read(&packet)).unwrap_or_default();
    let iptc = found.iptc.map(|block| iptc::read(&block)).unwrap_or_default();
    let notes = xmp.or(iptc).or(exif.map(of_exif).unwrap_or_default());
    metadata.title = notes.title;
    metadata.description = notes.description;
    metadata.keywords = notes.keywords;
    metadata.place = notes.place;
}

fn of_exif(exif: &Exif) -> Notes {
    let mut notes = Notes::default();
    let windows = |tag| raw(exif, tag).map(|bytes| utf16(&bytes)).unwrap_or_default();
    notes.set_title(&windows(0x9C9B));
    notes.set_description(&windows(0x9C9C));
    windows(0x9C9E).split(';').for_each(|keyword| notes.add_keyword(keyword));
    if let Some(Value::Ascii(parts)) = value(exif, Tag::ImageDescription)
        && let Some(text) = parts.first().map(|text| String::from_utf8_lossy(text))
        && !is_camera_default(&text)
    {
        notes.set_description(&text);
    }
    if let Some(Value::Undefined(bytes, _)) = value(exif, Tag::UserComment)
        && let Some((code, text)) = bytes.split_at_checked(8)
        && matches!(code, b"ASCII\0\0\0" | b"\0\0\0\0\0\0\0\0")
    {
        notes.set_description(&String::from_utf8_lossy(text));
    }
    notes
}

fn is_camera_default(text: &str) -> bool {
    let text = text.trim_matches(|c: char| c.is_whitespace() || c.is_control()).to_uppercase();
    text.ends_with("DIGITAL CAMERA") || CAMERA_DEFAULTS.contains(&&*text)
}

fn value(exif: &Exif, tag: Tag) -> Option<&Value> {
    Some(&exif.get_field(tag, In::PRIMARY)?.value)
}

/// The bytes of a field of the first picture, whatever kind of numbers they were written as.
fn raw(exif: &Exif, tag: u16) -> Option<Vec<u8>> {
    match value(exif, Tag(Context::Tiff, tag))? {
        Value::Byte(bytes) | Value::Undefined(bytes, _) => Some(bytes.clone()),
        Value::Long(words) if exif.little_endian() => {
            Some(words.iter().flat_map(|word| word.to_le_bytes()).collect())
        }
        Value::Long(words) => Some(words.iter().flat_map(|word| word.to_be_bytes()).collect()),
        _ => None,
    }
}

/// Text of Windows: UTF-16, little-endian, up to a zero.
fn utf16(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    char::decode_utf16(units.take_while(|unit| *unit != 0))
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_younger_kind_wins_and_keywords_come_together() {
        let (mut young, mut old) = (Notes::default(), Notes::default());
        young.set_title("Regatta");
        young.add_keyword("boat");
        old.set_title("IMG 12");
        old.set_place(["", "Como", "Como", "Italy\0"]);
        old.add_keyword("BOAT");
        old.add_keyword(" lake  como ");
        let notes = young.or(old);
        assert_eq!(notes.title.as_deref(), Some("Regatta"));
        assert_eq!(notes.place.as_deref(), Some("Como, Italy"));
        assert_eq!(notes.keywords, ["boat", "lake como"]);
    }

    #[test]
    fn texts_and_numbers_of_keywords_are_bounded() {
        let mut notes = Notes::default();
        notes.set_description(&"é ".repeat(9000));
        assert_eq!(notes.description.as_ref().unwrap().chars().count(), MAX_DESCRIPTION - 1);
        (0..500).for_each(|i| notes.add_keyword(&i.to_string()));
        assert_eq!(notes.keywords.len(), MAX_KEYWORDS);
        assert_eq!(line(" \n\0\u{9b}", 9), None);
    }

    #[test]
    fn what_cameras_write_into_every_photo_is_no_description() {
        for text in ["OLYMPUS DIGITAL CAMERA         ", "SONY DSC\0", "default"] {
            assert!(is_camera_default(text), "{text}");
        }
        assert!(!is_camera_default("my first digital camera, 1999"));
    }

    #[test]
    fn text_of_windows_ends_at_its_zero() {
        let bytes: Vec<u8> = "bär\0x".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(utf16(&bytes), "bär");
        assert_eq!(utf16(&[0, 0xD8, 7]), "\u{fffd}");
    }
}
