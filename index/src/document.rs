//! What the index keeps of one photo.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Number of a photo in one index: given once, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DocId(pub u64);

/// BLAKE3 of a file's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContentHash(pub [u8; 32]);

impl ContentHash {
    /// Hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The 64 lower-case hexadecimal digits of the hash.
    pub fn to_hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }

    /// The hash of these 64 hexadecimal digits; none for any other text.
    pub fn from_hex(digits: &str) -> Option<Self> {
        blake3::Hash::from_hex(digits).ok().map(|hash| Self(*hash.as_bytes()))
    }
}

/// 64 bits of what a picture looks like: they stay nearly the same where it is stored anew,
/// resized, or made a little brighter, and differ in about half where it is another picture.
///
/// 0 stands for a picture without structure (a blank page, a black frame), which cannot be told
/// from another by such bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PictureHash(pub u64);

impl PictureHash {
    /// Whether the picture has no structure, so that distances say nothing.
    pub fn is_plain(self) -> bool {
        self.0 == 0
    }

    /// In how many of 64 bits two pictures differ.
    pub fn distance(self, other: Self) -> u32 {
        (self.0 ^ other.0).count_ones()
    }
}

/// What tells, without opening a file, that it did not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileStamp {
    /// Length in bytes.
    pub size: u64,
    /// Modification time, nanoseconds since 1970-01-01 UTC (negative before).
    pub mtime_ns: i64,
}

/// Where the date of a photo was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TakenSource {
    /// EXIF `DateTimeOriginal` or `DateTimeDigitized`: local time of the camera.
    Exif,
    /// GPS date and time of the EXIF block: UTC.
    Gps,
    /// The file's modification time, for want of anything better: UTC.
    Mtime,
}

/// When a photo was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Seconds since 1970-01-01 00:00:00 of the clock on the wall where the photo was taken.
    pub local_seconds: i64,
    /// Offset of that clock from UTC in minutes, where the photo says so.
    pub offset_minutes: Option<i16>,
    /// Where the date was read.
    pub source: TakenSource,
}

/// What a photo's header says of it. Records of earlier versions lack what was added since:
/// every addition has a default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PhotoMetadata {
    /// Width in pixels, upright.
    pub width: u32,
    /// Height in pixels, upright.
    pub height: u32,
    /// Format name in lower case: `jpeg`, `png`, ...
    pub format: String,
    /// When it was taken.
    pub taken: Option<Taken>,
    /// Maker and model of the camera, as one readable text.
    pub camera: Option<String>,
    /// Lens.
    pub lens: Option<String>,
    /// Latitude (-90 to 90, north positive) and longitude (-180 to 180, east positive), degrees.
    pub gps: Option<(f64, f64)>,
    /// Title that somebody gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What somebody wrote about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Keywords that somebody gave it, and names of the people in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keywords: Vec<String>,
    /// Name of the place, from the narrowest to the widest: `Soho, London, United Kingdom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Length of the file in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
    /// What the picture looks like, for finding near duplicates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture_hash: Option<PictureHash>,
}

impl PhotoMetadata {
    /// What people wrote into the file: title, description, keywords and place, in that order.
    pub fn notes(&self) -> impl Iterator<Item = &str> {
        let texts = [&self.title, &self.description].into_iter().flatten();
        texts.chain(&self.keywords).chain(&self.place).map(String::as_str)
    }
}

/// Rows of equal length, row-major: `rows` vectors of `dim` values.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Number of rows.
    pub rows: usize,
    /// Length of a row.
    pub dim: usize,
    /// `rows * dim` values.
    pub values: Vec<f32>,
}

impl Matrix {
    /// A matrix of `rows` by `dim`.
    ///
    /// # Panics
    ///
    /// When `values` does not hold `rows * dim` values.
    pub fn new(rows: usize, dim: usize, values: Vec<f32>) -> Self {
        assert_eq!(values.len(), rows * dim, "a matrix of {rows} x {dim}");
        Self { rows, dim, values }
    }

    /// Row `i`.
    ///
    /// # Panics
    ///
    /// When there is no row `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.dim..(i + 1) * self.dim]
    }
}

/// What a model makes of one photo's pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    /// Image-text vectors, each of unit length: 32 rows of 256 for BLIP-2.
    pub embedding: Matrix,
    /// Captioning Q-Former output: 32 rows of 768 for TinyGPT-V.
    pub visual_tokens: Matrix,
}

/// A photo to be added.
#[derive(Debug, Clone, PartialEq)]
pub struct NewPhoto {
    /// Where it lies.
    pub path: PathBuf,
    /// Size and time of the file.
    pub stamp: FileStamp,
    /// Hash of the file.
    pub hash: ContentHash,
    /// What its header says.
    pub metadata: PhotoMetadata,
}

/// What an index knows of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRecord {
    /// Size and time of the file when it was last looked at.
    pub stamp: FileStamp,
    /// What became of it.
    pub state: FileState,
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileState {
    /// It is a photo of the index.
    Indexed {
        /// Its number.
        doc: DocId,
        /// Hash of its content.
        hash: ContentHash,
        /// Whether its content has a caption yet.
        captioned: bool,
    },
    /// It could not be read.
    Failed {
        /// Why, for a person.
        reason: String,
    },
}

/// How much an index holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Photos, that is paths: copies count each.
    pub photos: u64,
    /// Photos that have a caption.
    pub captioned: u64,
    /// Paths that could not be read.
    pub failed: u64,
}

/// A photo as a hit shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredPhoto {
    /// Its number.
    pub doc: DocId,
    /// Where it lies.
    pub path: PathBuf,
    /// Hash of the file.
    pub hash: ContentHash,
    /// What its header says.
    pub metadata: PhotoMetadata,
    /// What it shows, once the model has said so.
    pub caption: Option<String>,
}

/// A file that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Where it lies.
    pub path: PathBuf,
    /// Why, for a person.
    pub reason: String,
}

/// The model that made an index: only the same one may read or extend it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSpec {
    /// Name a person knows it by, such as `tinygpt-v-stage3`.
    pub name: String,
    /// Hexadecimal hash that tells this bundle from any other.
    pub fingerprint: String,
    /// Vectors a photo.
    pub embedding_rows: usize,
    /// Length of each.
    pub embedding_dim: usize,
    /// Visual tokens a photo.
    pub token_rows: usize,
    /// Length of each.
    pub token_dim: usize,
}

impl ModelSpec {
    /// Whether an index of `other` may be read and extended by this model: the fingerprint
    /// and all sizes are the same. The name is for people only.
    pub fn is_compatible(&self, other: &Self) -> bool {
        Self { name: String::new(), ..self.clone() }
            == Self { name: String::new(), ..other.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_of_earlier_versions_are_read() {
        let json = r#"{"width":4,"height":3,"format":"jpeg","taken":null,"camera":null,"lens":"L","gps":[1.5,2.0]}"#;
        let metadata: PhotoMetadata = serde_json::from_str(json).unwrap();
        assert_eq!((metadata.width, metadata.lens.as_deref()), (4, Some("L")));
        assert_eq!(metadata.notes().count(), 0);
        assert_eq!((metadata.file_bytes, metadata.picture_hash), (None, None));
        assert_eq!(serde_json::to_string(&metadata).unwrap(), json);
    }

    #[test]
    fn a_hash_survives_its_digits() {
        let hash = ContentHash::of(b"x");
        assert_eq!(ContentHash::from_hex(&hash.to_hex()), Some(hash));
        for digits in ["", "12", &hash.to_hex()[1..], &hash.to_hex().replace('a', "g")] {
            assert_eq!(ContentHash::from_hex(digits), None, "{digits}");
        }
    }

    #[test]
    fn every_bit_of_a_picture_hash_is_kept_and_counted() {
        let metadata = PhotoMetadata {
            file_bytes: Some(7),
            picture_hash: Some(PictureHash(u64::MAX - 1)),
            ..PhotoMetadata::default()
        };
        let json = serde_json::to_string(&metadata).unwrap();
        assert_eq!(serde_json::from_str::<PhotoMetadata>(&json).unwrap(), metadata);
        assert_eq!(PictureHash(0b1011).distance(PictureHash(0b0001)), 2);
        assert_eq!(PictureHash(0).distance(PictureHash(u64::MAX)), 64);
    }
}
