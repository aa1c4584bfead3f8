//! The fields of a document, and what makes a document of a row of the catalogue.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tantivy::schema::{
    BytesOptions, FAST, Field, INDEXED, IndexRecordOption, NumericOptions, STORED, STRING, Schema,
    TextFieldIndexing, TextOptions,
};
use tantivy::{Index, TantivyDocument};

use super::words;
use crate::document::{ContentHash, PhotoMetadata};
use crate::query::Orientation;

/// Names of the two analyzers in the schema on disk.
const EXACT: &str = "exact";
const STEM: &str = "stem";

/// Handles of the fields; their names stand in [`Fields::schema`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields {
    /// Raw bytes of the path: the key of a document.
    pub(super) path: Field,
    /// The path in lower case, as one term.
    pub(super) path_text: Field,
    pub(super) path_stem: Field,
    pub(super) path_exact: Field,
    pub(super) caption_stem: Field,
    pub(super) caption_exact: Field,
    /// Title, description, keywords and place.
    pub(super) notes_stem: Field,
    pub(super) notes_exact: Field,
    pub(super) camera: Field,
    pub(super) lens: Field,
    pub(super) format: Field,
    /// Number of the photo; a document without one is a failure.
    pub(super) doc: Field,
    pub(super) slot: Field,
    pub(super) taken: Field,
    pub(super) width: Field,
    pub(super) height: Field,
    pub(super) latitude: Field,
    pub(super) longitude: Field,
    /// JSON of [`Details`].
    pub(super) details: Field,
    /// [`Orientation::code`] of width and height.
    orientation: Field,
    /// The camera as one value, to be counted.
    camera_name: Field,
}

/// Fields at the end of the schema that a text index of an earlier version may lack: it can be read
/// all the same, as far as it says something.
const ADDED: usize = 2;

/// Columns are opened by name.
pub(super) const DOC: &str = "doc";
pub(super) const SLOT: &str = "slot";
pub(super) const TAKEN: &str = "taken";
pub(super) const WIDTH: &str = "width";
pub(super) const HEIGHT: &str = "height";
pub(super) const LATITUDE: &str = "latitude";
pub(super) const LONGITUDE: &str = "longitude";
pub(super) const ORIENTATION: &str = "orientation";
pub(super) const CAMERA_NAME: &str = "camera_name";

/// What a document keeps to be shown, not searched.
#[derive(Debug, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "nearly every document is a photo")]
pub(super) enum Details {
    Photo { hash: ContentHash, metadata: PhotoMetadata },
    Failed { reason: String },
}

/// What a document says of a photo.
pub(crate) struct PhotoText<'a> {
    pub(crate) doc: u64,
    pub(crate) slot: u64,
    pub(crate) hash: ContentHash,
    pub(crate) metadata: &'a PhotoMetadata,
    pub(crate) caption: Option<&'a str>,
}

fn words_of(analyzer: &str) -> TextOptions {
    let indexing = TextFieldIndexing::default()
        .set_tokenizer(analyzer)
        .set_index_option(IndexRecordOption::WithFreqsAndPositions);
    TextOptions::default().set_indexing_options(indexing)
}

impl Fields {
    /// The schema of a text index, and its fields.
    pub(super) fn schema() -> (Schema, Self) {
        let mut schema = Schema::builder();
        let column = NumericOptions::default() | FAST;
        let fields = Self {
            path: schema.add_bytes_field("path", BytesOptions::default() | INDEXED | STORED),
            path_text: schema.add_text_field("path_text", STRING),
            path_stem: schema.add_text_field("path_stem", words_of(STEM)),
            path_exact: schema.add_text_field("path_exact", words_of(EXACT)),
            caption_stem: schema.add_text_field("caption_stem", words_of(STEM) | STORED),
            caption_exact: schema.add_text_field("caption_exact", words_of(EXACT)),
            notes_stem: schema.add_text_field("notes_stem", words_of(STEM)),
            notes_exact: schema.add_text_field("notes_exact", words_of(EXACT)),
            camera: schema.add_text_field("camera", words_of(EXACT)),
            lens: schema.add_text_field("lens", words_of(EXACT)),
            format: schema.add_text_field("format", STRING),
            doc: schema.add_u64_field(DOC, column.clone() | INDEXED),
            slot: schema.add_u64_field(SLOT, column.clone()),
            taken: schema.add_i64_field(TAKEN, column.clone()),
            width: schema.add_u64_field(WIDTH, column.clone()),
            height: schema.add_u64_field(HEIGHT, column.clone()),
            latitude: schema.add_f64_field(LATITUDE, column.clone()),
            longitude: schema.add_f64_field(LONGITUDE, column.clone()),
            details: schema.add_text_field("details", STORED),
            // Later ones, see ADDED.
            orientation: schema.add_u64_field(ORIENTATION, column),
            camera_name: schema.add_text_field(CAMERA_NAME, TextOptions::default().set_fast("raw")),
        };
        (schema.build(), fields)
    }

    /// Whether a text index with the fields `found` can be read: its fields are the first of
    /// [`Fields::schema`].
    pub(super) fn can_read(found: &Schema) -> bool {
        let ours = Self::schema().0;
        let count = found.fields().count();
        let same = found.fields().zip(ours.fields()).all(|((_, found), (_, ours))| found == ours);
        same && (ours.fields().count() - ADDED..=ours.fields().count()).contains(&count)
    }

    /// Tells an index how to analyze the fields.
    pub(super) fn register_analyzers(index: &Index) {
        index.tokenizers().register(EXACT, words::exact_analyzer());
        index.tokenizers().register(STEM, words::stem_analyzer());
    }

    /// The document of a photo.
    pub(super) fn photo(
        &self,
        path: &Path,
        photo: &PhotoText<'_>,
    ) -> serde_json::Result<TantivyDocument> {
        let metadata = photo.metadata.clone();
        let details = Details::Photo { hash: photo.hash, metadata };
        let text = path.to_string_lossy();
        let mut document = TantivyDocument::default();
        document.add_bytes(self.path, path.as_os_str().as_bytes());
        document.add_text(self.path_text, folded_path(path));
        document.add_text(self.path_stem, &text);
        document.add_text(self.path_exact, &text);
        if let Some(caption) = photo.caption {
            document.add_text(self.caption_stem, caption);
            document.add_text(self.caption_exact, caption);
        }
        for note in photo.metadata.notes() {
            document.add_text(self.notes_stem, note);
            document.add_text(self.notes_exact, note);
        }
        if let Some(camera) = &photo.metadata.camera {
            document.add_text(self.camera, camera);
            document.add_text(self.camera_name, camera);
        }
        if let Some(lens) = &photo.metadata.lens {
            document.add_text(self.lens, lens);
        }
        document.add_text(self.format, &photo.metadata.format);
        document.add_u64(self.doc, photo.doc);
        document.add_u64(self.slot, photo.slot);
        if let Some(taken) = photo.metadata.taken {
            document.add_i64(self.taken, taken.local_seconds);
        }
        document.add_u64(self.width, photo.metadata.width.into());
        document.add_u64(self.height, photo.metadata.height.into());
        let orientation = Orientation::of(photo.metadata.width, photo.metadata.height);
        document.add_u64(self.orientation, orientation.code());
        if let Some((latitude, longitude)) = photo.metadata.gps {
            document.add_f64(self.latitude, latitude);
            document.add_f64(self.longitude, longitude);
        }
        document.add_text(self.details, serde_json::to_string(&details)?);
        Ok(document)
    }

    /// The document of a file that could not be read.
    pub(super) fn failure(&self, path: &Path, reason: &str) -> serde_json::Result<TantivyDocument> {
        let details = Details::Failed { reason: reason.to_owned() };
        let mut document = TantivyDocument::default();
        document.add_bytes(self.path, path.as_os_str().as_bytes());
        document.add_text(self.details, serde_json::to_string(&details)?);
        Ok(document)
    }
}

/// A path as [`Clause::Path`](crate::Clause::Path) compares it.
pub(super) fn folded_path(path: &Path) -> String {
    path.to_string_lossy().to_lowercase()
}
