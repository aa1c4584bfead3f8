//! An index of plain coloured pictures, made with [`FakeVlm`].

use std::path::{Path, PathBuf};

use tinyfind_index::{
    ContentHash, FileStamp, IndexReader, IndexWriter, NewPhoto, PhotoMetadata, Taken, TakenSource,
};

use crate::decode::DecodedImage;
use crate::vlm::{FakeVlm, Vlm as _};

/// A picture of one colour, to be indexed.
pub(crate) struct Picture {
    pub(crate) path: PathBuf,
    pub(crate) color: [u8; 3],
    /// Days after 1970-01-01 on which it was taken.
    pub(crate) day: i64,
    pub(crate) camera: &'static str,
    pub(crate) description: Option<&'static str>,
    /// Hash of the file, where there is one.
    pub(crate) hash: Option<ContentHash>,
}

pub(crate) const RED: [u8; 3] = [220, 20, 20];
pub(crate) const BLUE: [u8; 3] = [30, 50, 220];
pub(crate) const GREEN: [u8; 3] = [30, 160, 40];

impl Picture {
    pub(crate) fn new(path: impl Into<PathBuf>, color: [u8; 3]) -> Self {
        Self {
            path: path.into(),
            color,
            day: 0,
            camera: "FUJIFILM X-T3",
            description: None,
            hash: None,
        }
    }
}

/// Indexes `pictures` into `folder`, with captions if `captioned`, and opens the index.
pub(crate) fn index(folder: &Path, pictures: &[Picture], captioned: bool) -> IndexReader {
    let mut vlm = FakeVlm::default();
    let mut writer = IndexWriter::open(folder, vlm.spec()).unwrap();
    for (i, picture) in pictures.iter().enumerate() {
        let image = DecodedImage { width: 4, height: 4, rgb: picture.color.repeat(16) };
        let features = vlm.embed_images(&[image]).unwrap().remove(0);
        let tokens = features.visual_tokens.clone();
        let hash = picture.hash.unwrap_or_else(|| ContentHash::of(&i.to_le_bytes()));
        let taken = Taken {
            local_seconds: picture.day * 86_400,
            offset_minutes: None,
            source: TakenSource::Exif,
        };
        let metadata = PhotoMetadata {
            width: 4,
            height: 4,
            format: "png".to_owned(),
            taken: Some(taken),
            camera: Some(picture.camera.to_owned()),
            description: picture.description.map(str::to_owned),
            ..PhotoMetadata::default()
        };
        let stamp = FileStamp { size: 1, mtime_ns: 1 };
        let photo = NewPhoto { path: picture.path.clone(), stamp, hash, metadata };
        let doc = writer.add(photo, features).unwrap();
        if captioned {
            let caption = vlm.caption(&[&tokens]).unwrap().remove(0);
            writer.set_caption(doc, &caption).unwrap();
        }
    }
    writer.commit().unwrap();
    drop(writer);
    IndexReader::open(folder).unwrap()
}
