//! Which format a file has, by its name and by its first bytes.

use std::{fmt, path::Path};

use image::ImageFormat;

/// A format that is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Format {
    Jpeg,
    Png,
    Gif,
    WebP,
    Tiff,
    Bmp,
}

impl Format {
    /// The name that the index keeps: `jpeg`, `png`, `gif`, `webp`, `tiff` or `bmp`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Png => "png",
            Self::Gif => "gif",
            Self::WebP => "webp",
            Self::Tiff => "tiff",
            Self::Bmp => "bmp",
        }
    }

    pub(super) fn decoder(self) -> ImageFormat {
        match self {
            Self::Jpeg => ImageFormat::Jpeg,
            Self::Png => ImageFormat::Png,
            Self::Gif => ImageFormat::Gif,
            Self::WebP => ImageFormat::WebP,
            Self::Tiff => ImageFormat::Tiff,
            Self::Bmp => ImageFormat::Bmp,
        }
    }
}

impl fmt::Display for Format {
    /// The name that people write: `JPEG`, `WebP`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::Gif => "GIF",
            Self::WebP => "WebP",
            Self::Tiff => "TIFF",
            Self::Bmp => "BMP",
        })
    }
}

/// A format that people keep beside their photos and that has no decoder here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Unreadable {
    Heic,
    Avif,
    JpegXl,
    Jpeg2000,
    Raw,
    Video,
}

impl Unreadable {
    /// The name that people write, as it stands before `photos`: `HEIC`, `camera RAW`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Heic => "HEIC",
            Self::Avif => "AVIF",
            Self::JpegXl => "JPEG XL",
            Self::Jpeg2000 => "JPEG 2000",
            Self::Raw => "camera RAW",
            Self::Video => "video",
        }
    }

    /// Whether it holds a photo, not a film.
    pub fn is_photo(self) -> bool {
        self != Self::Video
    }
}

impl fmt::Display for Unreadable {
    /// What it is and what to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Video => f.write_str("is a video, and only photos are read"),
            photo => {
                write!(f, "{} photos are not read yet; convert it to JPEG", photo.name())
            }
        }
    }
}

/// What a file's extension promises, upper or lower case alike: `None` for names that are not
/// a photo's. Extensions lie, so [`sniff`] has the last word on what is decoded.
pub(crate) fn by_extension(path: &Path) -> Option<Result<Format, Unreadable>> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    Some(match extension.as_str() {
        "jpg" | "jpeg" | "jpe" | "jfif" | "jif" | "mpo" => Ok(Format::Jpeg),
        "png" | "apng" => Ok(Format::Png),
        "gif" => Ok(Format::Gif),
        "webp" => Ok(Format::WebP),
        "tif" | "tiff" => Ok(Format::Tiff),
        "bmp" | "dib" => Ok(Format::Bmp),
        "heic" | "heif" | "hif" => Err(Unreadable::Heic),
        "avif" => Err(Unreadable::Avif),
        "jxl" => Err(Unreadable::JpegXl),
        "jp2" | "j2k" | "jpf" | "jpx" => Err(Unreadable::Jpeg2000),
        "3fr" | "arw" | "cr2" | "cr3" | "crw" | "dcr" | "dng" | "erf" | "fff" | "gpr" | "iiq"
        | "k25" | "kdc" | "mef" | "mos" | "mrw" | "nef" | "nrw" | "orf" | "pef" | "raf" | "raw"
        | "rw2" | "rwl" | "sr2" | "srf" | "srw" | "x3f" => Err(Unreadable::Raw),
        "3gp" | "avi" | "m2ts" | "m4v" | "mkv" | "mov" | "mp4" | "mpeg" | "mpg" | "mts"
        | "webm" | "wmv" => Err(Unreadable::Video),
        _ => return None,
    })
}

/// What the first bytes of a file show it to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sniffed {
    Decodable(Format),
    Unreadable(Unreadable),
    /// Something else, described for a person.
    Other(&'static str),
}

/// Tells a file's format by its first bytes; an extension is not asked.
pub(super) fn sniff(bytes: &[u8]) -> Sniffed {
    use Sniffed::{Decodable, Other, Unreadable as No};
    match bytes {
        [0xFF, 0xD8, 0xFF, ..] => Decodable(Format::Jpeg),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => Decodable(Format::Png),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Decodable(Format::Gif),
        [b'R', b'I', b'F', b'F', _, _, _, _, kind @ ..] => match kind {
            [b'W', b'E', b'B', b'P', ..] => Decodable(Format::WebP),
            [b'A', b'V', b'I', b' ', ..] => No(Unreadable::Video),
            _ => Other("an unknown RIFF file"),
        },
        [b'I', b'I', 42, 0, _, _, _, _, b'C', b'R', ..]
        | [b'I', b'I', b'U', 0, ..]
        | [b'I', b'I', b'R', b'O' | b'S', ..]
        | [b'F', b'U', b'J', b'I', b'F', b'I', b'L', b'M', ..] => No(Unreadable::Raw),
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Decodable(Format::Tiff),
        [b'B', b'M', _, _, _, _, 0, 0, 0, 0, ..] => Decodable(Format::Bmp),
        [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..] => match brand {
            [b'a', b'v', b'i', b'f' | b's', ..] => No(Unreadable::Avif),
            [b'c', b'r', b'x', ..] => No(Unreadable::Raw),
            [b'h', b'e', ..] | [b'm' | b'M', b'i' | b's', b'f', b'1', ..] => No(Unreadable::Heic),
            _ => No(Unreadable::Video),
        },
        [0xFF, 0x0A, ..] | [0, 0, 0, 12, b'J', b'X', b'L', b' ', ..] => No(Unreadable::JpegXl),
        [0, 0, 0, 12, b'j', b'P', b' ', b' ', ..] | [0xFF, 0x4F, 0xFF, 0x51, ..] => {
            No(Unreadable::Jpeg2000)
        }
        [0x1A, 0x45, 0xDF, 0xA3, ..] => No(Unreadable::Video),
        [b'8', b'B', b'P', b'S', ..] => Other("a Photoshop document"),
        [b'%', b'P', b'D', b'F', ..] => Other("a PDF document"),
        [b'P', b'K', 3 | 5, _, ..] => Other("a ZIP archive"),
        _ if is_text(bytes) => Other("text"),
        _ => Other("its first bytes are of no known picture format"),
    }
}

/// Whether a file begins like text: HTML error pages saved as photos, SVG, notes.
fn is_text(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(256)];
    let head = match std::str::from_utf8(head) {
        Ok(text) => text,
        // A character may be cut in two at the end of what was looked at.
        Err(error) if error.valid_up_to() + 4 > head.len() && head.len() > 4 => {
            std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !head.is_empty() && !head.chars().any(|c| c.is_control() && !c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_known_in_upper_and_lower_case() {
        assert_eq!(by_extension(Path::new("a/IMG_1.JPG")), Some(Ok(Format::Jpeg)));
        assert_eq!(by_extension(Path::new("x.Heic")), Some(Err(Unreadable::Heic)));
        assert_eq!(by_extension(Path::new("x.CR3")), Some(Err(Unreadable::Raw)));
        assert_eq!(by_extension(Path::new("notes.txt")), None);
        assert_eq!(by_extension(Path::new("jpg")), None);
    }

    #[test]
    fn first_bytes_tell_the_format_whatever_the_name() {
        let cases: [(&[u8], Sniffed); 10] = [
            (b"\xFF\xD8\xFF\xE0", Sniffed::Decodable(Format::Jpeg)),
            (b"\0\0\0\x18ftypheic\0\0", Sniffed::Unreadable(Unreadable::Heic)),
            (b"\0\0\0\x18ftypmif1\0\0", Sniffed::Unreadable(Unreadable::Heic)),
            (b"\0\0\0\x18ftypavif\0\0", Sniffed::Unreadable(Unreadable::Avif)),
            (b"\0\0\0\x18ftypqt  \0\0", Sniffed::Unreadable(Unreadable::Video)),
            (b"II*\0\x10\0\0\0CR\x02\0", Sniffed::Unreadable(Unreadable::Raw)),
            (b"MM\0*\0\0\0\x08", Sniffed::Decodable(Format::Tiff)),
            (b"\0\0\0\x0CJXL \r\n\x87\n", Sniffed::Unreadable(Unreadable::JpegXl)),
            (b"<!DOCTYPE html>", Sniffed::Other("text")),
            (b"%PDF-1.7", Sniffed::Other("a PDF document")),
        ];
        for (bytes, expected) in cases {
            assert_eq!(sniff(bytes), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn reasons_say_what_to_do() {
        assert_eq!(
            Unreadable::Heic.to_string(),
            "HEIC photos are not read yet; convert it to JPEG"
        );
    }
}
