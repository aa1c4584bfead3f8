//! File to pixels: bytes, content hash, EXIF, and the picture itself, upright.
//!
//! Everything that is read here was written by someone else, and a library of a hundred
//! thousand photos holds every kind of broken file. So a file is opened without waiting for
//! it (a pipe would wait for ever) and must be a regular one; it is read once, into memory,
//! and must be the same before and after; its format is told by its first bytes; its size is
//! checked before a decoder allocates; and a decoder's panic is the failure of one photo.

mod error;
mod format;
mod iptc;
mod jpeg;
mod metadata;
mod notes;
mod orientation;
mod packets;
mod picture_hash;
mod pixels;
mod resize;
mod xmp;

use std::{
    fs::{File, Metadata, OpenOptions},
    io::Read,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::UNIX_EPOCH,
};

use tinyfind_index::{ContentHash, FileStamp, PhotoMetadata};

pub use error::DecodeError;
pub(crate) use format::by_extension;
pub use format::{Format, Unreadable};
pub use picture_hash::picture_hash;
pub use resize::resize_bicubic;

use format::{Sniffed, sniff};
use orientation::Orientation;

/// The longest file that is read, in bytes.
const MAX_BYTES: u64 = 512 << 20;

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

/// A photo, read and decoded.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// Hash of the file's bytes.
    pub hash: ContentHash,
    /// Size and time of the file whose bytes were read.
    pub stamp: FileStamp,
    /// What its header says.
    pub metadata: PhotoMetadata,
    /// The picture, upright.
    pub image: DecodedImage,
}

/// Reads and decodes one photo. With a `target`, the picture is resized to that many pixels
/// square by [`resize_bicubic`] (its shape is not kept, as the models have it); the metadata
/// hold its own size.
///
/// # Errors
///
/// When the file cannot be read, is not a photo, or is damaged.
pub fn decode_file(path: &Path, target: Option<u32>) -> Result<Decoded, DecodeError> {
    let file = PhotoFile::read(path)?;
    let header = file.header()?;
    let image = file.decode(&header, target)?;
    Ok(Decoded { hash: file.hash, stamp: file.stamp, metadata: header.metadata, image })
}

/// The bytes of a file, read whole: what follows needs the file no more.
#[derive(Debug)]
pub struct PhotoFile {
    bytes: Vec<u8>,
    hash: ContentHash,
    stamp: FileStamp,
}

/// What a photo says of itself before its pixels are decoded.
#[derive(Debug, Clone)]
pub struct Header {
    /// Metadata for the index, complete but for what the pixels tell.
    pub metadata: PhotoMetadata,
    /// Bytes of memory that [`PhotoFile::decode`] will need at the same time, about.
    pub memory: u64,
    format: Format,
    orientation: Orientation,
}

impl PhotoFile {
    /// Reads a file of at most 512 MiB and hashes it. Its format is not looked at.
    ///
    /// # Errors
    ///
    /// When it cannot be opened, is not a regular file, is empty or too long, or changes
    /// while it is read.
    pub fn read(path: &Path) -> Result<Self, DecodeError> {
        let (bytes, stamp) = read_stable(path)?;
        Ok(Self { hash: ContentHash::of(&bytes), bytes, stamp })
    }

    /// Hash of the file's bytes.
    pub fn hash(&self) -> ContentHash {
        self.hash
    }

    /// Size and time of the file as it was read.
    pub fn stamp(&self) -> FileStamp {
        self.stamp
    }

    /// Reads the header of the photo.
    ///
    /// # Errors
    ///
    /// When the file is not a photo, is cut, or has more pixels than are decoded.
    pub fn header(&self) -> Result<Header, DecodeError> {
        let format = match sniff(&self.bytes) {
            Sniffed::Decodable(format) => format,
            Sniffed::Unreadable(kind) => return Err(DecodeError::Unsupported { kind }),
            Sniffed::Other(found) => return Err(DecodeError::NotAPhoto { found }),
        };
        guarded(format, || {
            let size = pixels::measure(&self.bytes, format)?;
            let (orientation, mut metadata) = metadata::read(&self.bytes, format, self.stamp);
            (metadata.width, metadata.height) = orientation.upright_size(size.width, size.height);
            metadata.file_bytes = Some(self.bytes.len() as u64);
            Ok(Header { metadata, memory: size.memory, format, orientation })
        })
    }

    /// Decodes the picture, turns it upright and, with a `target`, resizes it to that many
    /// pixels square. `header` must be this file's.
    ///
    /// # Errors
    ///
    /// When the file is damaged.
    pub fn decode(
        &self,
        header: &Header,
        target: Option<u32>,
    ) -> Result<DecodedImage, DecodeError> {
        guarded(header.format, || {
            let stored = pixels::decode(&self.bytes, header.format)?;
            Ok(match target {
                Some(side) => resize::resize_upright(&stored, header.orientation, side, side),
                None => header.orientation.apply(stored),
            })
        })
    }
}

/// Runs a decoder; its panic is an error like any other.
fn guarded<T>(
    format: Format,
    work: impl FnOnce() -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(DecodeError::Panicked { format }))
}

/// Size and time of a file, from what the system says of it.
pub(crate) fn stamp(metadata: &Metadata) -> FileStamp {
    let nanoseconds = |duration: std::time::Duration| i64::try_from(duration.as_nanos());
    let mtime_ns = match metadata.modified().map(|time| time.duration_since(UNIX_EPOCH)) {
        Ok(Ok(after)) => nanoseconds(after).unwrap_or(i64::MAX),
        Ok(Err(before)) => nanoseconds(before.duration()).map_or(i64::MIN, |ns| -ns),
        // A file system without times: only the size can tell.
        Err(_) => 0,
    };
    FileStamp { size: metadata.len(), mtime_ns }
}

/// The bytes of a regular file that is the same before and after it is read.
fn read_stable(path: &Path) -> Result<(Vec<u8>, FileStamp), DecodeError> {
    let io = |source| DecodeError::Io { source };
    let file = open(path).map_err(io)?;
    let before = file.metadata().map_err(io)?;
    if !before.is_file() {
        return Err(DecodeError::NotAFile);
    }
    // Files of /proc are regular, empty and endless.
    if before.len() == 0 {
        return Err(DecodeError::Empty);
    }
    if before.len() > MAX_BYTES {
        return Err(DecodeError::TooLong { bytes: before.len(), limit: MAX_BYTES });
    }
    let mut bytes = Vec::with_capacity(before.len() as usize + 1);
    (&file).take(before.len() + 1).read_to_end(&mut bytes).map_err(io)?;
    let after = file.metadata().map_err(io)?;
    if stamp(&before) != stamp(&after) || bytes.len() as u64 != before.len() {
        return Err(DecodeError::Changed);
    }
    Ok((bytes, stamp(&before)))
}

/// Opens a file to read it, without waiting where it is a pipe that nobody writes to.
fn open(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Cursor, path::PathBuf};

    use image::{DynamicImage, ImageFormat, Luma, Rgba};

    use super::*;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/photos").join(name)
    }

    fn reason(path: &Path) -> String {
        decode_file(path, Some(32)).unwrap_err().reason()
    }

    /// `image` written to a file of `folder` under a name that tells nothing.
    fn write(folder: &Path, image: &DynamicImage, format: ImageFormat) -> PathBuf {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        let path = folder.join("photo");
        fs::write(&path, bytes.into_inner()).unwrap();
        path
    }

    #[test]
    fn broken_files_fail_with_a_reason_that_names_the_fault() {
        for (name, expected) in [
            ("empty.jpg", "is empty"),
            ("magic_only.jpg", "truncated JPEG: the end of the picture is missing"),
            ("truncated_half.jpg", "truncated JPEG: the end of the picture is missing"),
            ("no_end_marker.jpg", "truncated JPEG: the end of the picture is missing"),
            ("header_12000x12000.jpg", "truncated JPEG: the end of the picture is missing"),
            ("header_65500x65500.jpg", "65500 x 65500 pixels are more than the 170 million"),
            ("header_0x0.jpg", "damaged or unusual JPEG: "),
            ("header_2147483647.png", "damaged or unusual PNG: "),
            ("header_60000x60000.png", "60000 x 60000 pixels are more than the 100 million"),
            ("header_60000x60000.bmp", "60000 x 60000 pixels are more than the 100 million"),
            ("header_only.webp", "16383 x 16383 pixels are more than the 100 million"),
            ("heic_named.jpg", "HEIC photos are not read yet; convert it to JPEG"),
            ("text_named.jpg", "is not a photo: text"),
            ("page_named.jpg", "is not a photo: text"),
            ("drawing.svg", "is not a photo: text"),
            ("moz_testimgari.jpg", "damaged or unusual JPEG: "),
            ("moz_testorig12.jpg", "damaged or unusual JPEG: "),
            ("pngsuite_xd0n2c08.png", "damaged or unusual PNG: "),
            ("pngsuite_xhdn0g08.png", "damaged or unusual PNG: "),
            ("truncated_half.gif", "damaged or unusual GIF: "),
            ("truncated_half.tif", "truncated TIFF: the end of the picture is missing"),
            ("truncated_half.webp", "damaged or unusual WebP: "),
            ("hpredict cmyk.tiff", "damaged or unusual TIFF: "),
            ("Bad_reallybig.bmp", "damaged or unusual BMP: "),
            ("Bad_shortfile.bmp", "truncated BMP: the end of the picture is missing"),
        ] {
            let reason = reason(&fixture("malformed").join(name));
            assert!(reason.starts_with(expected), "{name}: {reason}");
            assert!(!reason.contains('\n'), "{name}: {reason}");
        }
    }

    #[test]
    fn every_format_gives_the_same_picture_whatever_its_name() {
        let expected = decode_file(&fixture("photos/skimage_coffee.png"), Some(32)).unwrap().image;
        for (name, format, tolerance) in [
            ("coffee.tif", "tiff", 0.0),
            ("coffee_lossless.webp", "webp", 0.0),
            ("coffee.webp", "webp", 4.0),
            ("coffee_named_png.png", "jpeg", 4.0),
            ("coffee_noext", "jpeg", 4.0),
            ("coffee_cmyk.jpg", "jpeg", 8.0),
            ("coffee.gif", "gif", 8.0),
            ("coffee.bmp", "bmp", 8.0),
        ] {
            let decoded = decode_file(&fixture("formats").join(name), Some(32)).unwrap();
            assert_eq!(decoded.metadata.format, format, "{name}");
            let difference = mean_difference(&decoded.image, &expected);
            assert!(difference <= tolerance, "{name} differs by {difference}");
        }
        for name in ["coffee.heic", "coffee.avif", "coffee.jp2", "orientation6_rotate_90_cw.jxl"] {
            let reason = reason(&fixture("formats").join(name));
            assert!(reason.ends_with("are not read yet; convert it to JPEG"), "{name}: {reason}");
        }
    }

    fn mean_difference(a: &DecodedImage, b: &DecodedImage) -> f64 {
        assert_eq!((a.width, a.height), (b.width, b.height));
        let sum: u64 = a.rgb.iter().zip(&b.rgb).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        sum as f64 / a.rgb.len() as f64
    }

    #[test]
    fn a_turned_photo_is_turned_back() {
        let barn = decode_file(&fixture("exif/barn_orient6.jpg"), None).unwrap();
        assert_eq!((barn.metadata.width, barn.metadata.height), (512, 768));
        assert_eq!((barn.image.width, barn.image.height), (512, 768));
        let lying = decode_file(&fixture("photos/kodak22.jpg"), None).unwrap().image;
        let upright = Orientation::from_exif(6).apply(lying);
        assert!(mean_difference(&barn.image, &upright) < 4.0);
        // An orientation of 9 means nothing.
        let caps = decode_file(&fixture("exif/caps_bad_orient.jpg"), None).unwrap();
        assert_eq!((caps.image.width, caps.image.height), (768, 512));
    }

    #[test]
    fn resizing_while_decoding_gives_the_bytes_of_resizing_after() {
        for name in ["exif/barn_orient6.jpg", "photos/kodak09.jpg"] {
            let whole = decode_file(&fixture(name), None).unwrap().image;
            let small = decode_file(&fixture(name), Some(48)).unwrap().image;
            assert_eq!(small, resize_bicubic(&whole, 48, 48), "{name}");
        }
    }

    #[test]
    fn alpha_is_dropped_and_16_bits_are_scaled() {
        let folder = tempfile::tempdir().unwrap();
        let clear = image::RgbaImage::from_pixel(3, 2, Rgba([200, 10, 30, 0]));
        let path = write(folder.path(), &clear.into(), ImageFormat::Png);
        assert_eq!(decode_file(&path, None).unwrap().image.rgb, [200, 10, 30].repeat(6));
        let grey = image::ImageBuffer::from_pixel(2, 2, Luma([0x8080_u16]));
        let path = write(folder.path(), &grey.into(), ImageFormat::Png);
        assert_eq!(decode_file(&path, None).unwrap().image.rgb, [0x80; 12]);
    }

    #[test]
    #[cfg(unix)]
    fn what_is_not_a_regular_file_is_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe.jpg");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert_eq!(reason(&pipe), "is not a regular file");
        let endless = folder.path().join("endless.jpg");
        std::os::unix::fs::symlink("/dev/zero", &endless).unwrap();
        assert_eq!(reason(&endless), "is not a regular file");
        assert_eq!(reason(folder.path()), "is not a regular file");
        let missing = PhotoFile::read(&folder.path().join("missing.jpg")).unwrap_err();
        assert!(missing.is_passing(), "{missing}");
    }

    #[test]
    fn a_stamp_tells_size_and_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old.jpg");
        fs::write(&path, b"12345").unwrap();
        let time = UNIX_EPOCH - std::time::Duration::from_millis(1500);
        File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        let expected = FileStamp { size: 5, mtime_ns: -1_500_000_000 };
        assert_eq!(stamp(&fs::metadata(&path).unwrap()), expected);
        assert_eq!(PhotoFile::read(&path).unwrap().stamp(), expected);
    }

    proptest::proptest! {
        #[test]
        fn a_header_of_any_bytes_gives_metadata_or_an_error_but_no_panic(
            changes in proptest::collection::vec((0_usize..1200, proptest::prelude::any::<u8>()), 1..40),
            name in proptest::sample::select(vec![
                "exif/chelsea_paris.jpg", "formats/coffee.tif", "formats/coffee.webp",
            ]),
        ) {
            let mut bytes = fs::read(fixture(name)).unwrap();
            for (at, value) in changes {
                bytes[at] = value;
            }
            let stamp = FileStamp { size: bytes.len() as u64, mtime_ns: 0 };
            let file = PhotoFile { hash: ContentHash::of(&bytes), bytes, stamp };
            match file.header() {
                Ok(header) => {
                    let PhotoMetadata { gps, taken, .. } = header.metadata;
                    let on_earth = |(latitude, longitude): (f64, f64)| {
                        latitude.abs() <= 90.0 && longitude.abs() <= 180.0
                    };
                    proptest::prop_assert!(gps.is_none_or(on_earth));
                    proptest::prop_assert!(taken.is_some());
                }
                Err(error) => {
                    let panicked = matches!(error, DecodeError::Panicked { .. });
                    proptest::prop_assert!(!panicked);
                    proptest::prop_assert!(!error.reason().is_empty());
                }
            }
        }
    }
}
