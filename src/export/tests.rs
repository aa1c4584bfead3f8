use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use serde_json::Value;
use tinyfind_index::{ContentHash, IndexWriter};

use super::*;
use crate::search::testing::{BLUE, GREEN, Picture, RED, index};
use crate::vlm::{FakeVlm, Vlm as _};

fn pictures() -> Vec<Picture> {
    let mut pictures: Vec<Picture> = [("a", BLUE), ("b", RED), ("c", GREEN)]
        .map(|(name, color)| Picture::new(format!("/p/{name}.png"), color))
        .into();
    pictures.push(Picture::new(OsStr::from_bytes(b"/p/n\xffme.png"), RED));
    pictures
}

/// What was written, as text.
fn exported(reader: &IndexReader, options: ExportOptions) -> String {
    let mut out = Vec::new();
    export(reader, options, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// An index of the pictures, with captions if `captioned`, and its folder.
fn indexed(captioned: bool) -> (tempfile::TempDir, IndexReader) {
    let folder = tempfile::tempdir().unwrap();
    let reader = index(folder.path(), &pictures(), captioned);
    (folder, reader)
}

fn writer(folder: &Path) -> IndexWriter {
    IndexWriter::open(folder, FakeVlm::default().spec()).unwrap()
}

fn captions(folder: &Path) -> Vec<Option<String>> {
    let reader = IndexReader::open(folder).unwrap();
    let photos = reader.photos(&Filter::default()).unwrap();
    photos.map(|photo| photo.unwrap().caption).collect()
}

/// Puts captions back, and tells what became of each line.
fn put_back(folder: &Path, text: &str, options: RestoreOptions) -> (Restored, Vec<String>) {
    let mut told = Vec::new();
    let mut tell = |line, path: Option<PathBuf>, fate: Fate<'_>| {
        let name = path.and_then(|it| it.file_stem().map(|it| it.to_string_lossy().into_owned()));
        told.push(format!("{line} {} {fate:?}", name.unwrap_or_default()));
    };
    let restored = restore(&mut writer(folder), &mut text.as_bytes(), options, &mut tell).unwrap();
    (restored, told)
}

#[test]
fn an_export_is_a_header_and_a_line_a_photo() {
    let (_folder, reader) = indexed(true);
    let lines = objects(&exported(&reader, ExportOptions::default()));
    assert_eq!(lines.len(), 5);
    assert_eq!(lines[0]["format"], "tinyfind-export");
    assert_eq!((&lines[0]["version"], &lines[0]["photos"]), (&1.into(), &4.into()));
    assert_eq!(lines[0]["model"]["name"], "fake");
    let photo = &lines[1];
    assert_eq!((&photo["path"], &photo["doc"]), (&"/p/a.png".into(), &0.into()));
    assert_eq!(photo["hash"], ContentHash::of(&0_usize.to_le_bytes()).to_hex());
    assert_eq!(photo["camera"], "FUJIFILM X-T3");
    assert_eq!(photo["taken"], "1970-01-01T00:00:00");
    assert!(photo["caption"].as_str().unwrap().contains("blue"), "{photo}");
    assert!(photo["picture_hash"].is_null() && photo.get("vectors").is_none());
    assert_eq!(lines[4]["path_bytes"][4], 0xff);
}

#[test]
fn vectors_are_the_same_in_both_forms() {
    let (_folder, reader) = indexed(false);
    let with = |vectors| {
        objects(&exported(&reader, ExportOptions { vectors: Some(vectors), failures: false }))
    };
    let (texts, arrays) = (with(Vectors::Base64), with(Vectors::Arrays));
    for (number, (text, array)) in texts.iter().zip(&arrays).enumerate().skip(1) {
        let rows: Vec<Vec<f32>> = serde_json::from_value(array["vectors"].clone()).unwrap();
        let doc = tinyfind_index::DocId(number as u64 - 1);
        assert_eq!(rows.concat(), reader.embedding(doc).unwrap().values);
        let bytes: Vec<u8> = rows.concat().iter().flat_map(|it| it.to_le_bytes()).collect();
        assert_eq!(text["vectors"], base64::encode(&bytes));
    }
}

#[test]
fn failures_come_last_where_they_are_wanted() {
    let (folder, _) = indexed(true);
    let mut writer = writer(folder.path());
    let stamp = tinyfind_index::FileStamp { size: 1, mtime_ns: 1 };
    writer.fail(Path::new("/p/broken.jpg"), stamp, "is empty").unwrap();
    writer.commit().unwrap();
    let reader = IndexReader::open(folder.path()).unwrap();
    assert_eq!(objects(&exported(&reader, ExportOptions::default())).len(), 5);
    let text = exported(&reader, ExportOptions { vectors: None, failures: true });
    let last = objects(&text).pop().unwrap();
    assert_eq!(last, serde_json::json!({"path": "/p/broken.jpg", "failure": "is empty"}));
    // Whoever puts captions back has no use for it.
    drop(writer);
    let (restored, _) = put_back(folder.path(), &text, RestoreOptions::default());
    assert_eq!((restored.same, restored.bad, restored.without), (4, 0, 0));
}

#[test]
fn captions_come_back_by_content_wherever_the_photos_lie_now() {
    let (_old, reader) = indexed(true);
    let text = exported(&reader, ExportOptions::default());
    let folder = tempfile::tempdir().unwrap();
    let mut moved = pictures();
    for picture in &mut moved {
        picture.path = Path::new("/elsewhere").join(picture.path.file_name().unwrap());
    }
    drop(index(folder.path(), &moved, false));
    let dry = RestoreOptions { dry_run: true, ..RestoreOptions::default() };
    let (restored, _) = put_back(folder.path(), &text, dry);
    assert_eq!((restored.set, captions(folder.path())), (4, vec![None; 4]));
    let by_path = RestoreOptions { by: Match::Path, ..RestoreOptions::default() };
    let (restored, told) = put_back(folder.path(), &text, by_path);
    assert_eq!((restored.bad, restored.set), (4, 0), "{told:?}");

    let (restored, told) = put_back(folder.path(), &text, RestoreOptions::default());
    assert_eq!(told, ["2 a Set", "3 b Set", "4 c Set", "5 n\u{fffd}me Set"]);
    assert_eq!((restored.set, restored.model.as_deref()), (4, Some("fake")));
    let before: Vec<Option<String>> =
        reader.photos(&Filter::default()).unwrap().map(|it| it.unwrap().caption).collect();
    assert_eq!(captions(folder.path()), before);
    let (restored, _) = put_back(folder.path(), &text, RestoreOptions::default());
    assert_eq!((restored.set, restored.same), (0, 4));
}

#[test]
fn captions_come_back_by_path_and_length_where_the_content_changed() {
    let (folder, _reader) = indexed(false);
    let line = |path: &str, bytes: u64| {
        let line = serde_json::json!({
            "path": path, "hash": "00", "file_bytes": bytes, "caption": "by path"
        });
        format!("{line}\n")
    };
    let text = [line("/p/a.png", 1), line("/p/b.png", 2), line("/p/x.png", 1)].concat();
    let by_path = RestoreOptions { by: Match::Path, ..RestoreOptions::default() };
    let (_, told) = put_back(folder.path(), &text, by_path);
    assert_eq!(told, ["1 a Set", "2 b Unmatched", "3 x Unmatched"]);
    assert_eq!(captions(folder.path())[0].as_deref(), Some("by path"));
}

#[test]
fn a_caption_that_is_another_is_kept_unless_it_is_to_be_replaced() {
    let (folder, reader) = indexed(true);
    let own = captions(folder.path());
    let text = exported(&reader, ExportOptions::default()).replace("red", "crimson");
    let (restored, told) = put_back(folder.path(), &text, RestoreOptions::default());
    assert_eq!(told, ["2 a Same", "3 b Kept", "4 c Same", "5 n\u{fffd}me Kept"]);
    assert_eq!((restored.kept, captions(folder.path())), (2, own));
    let overwrite = RestoreOptions { overwrite: true, ..RestoreOptions::default() };
    let (restored, _) = put_back(folder.path(), &text, overwrite);
    assert_eq!((restored.set, restored.same), (2, 2));
    assert!(captions(folder.path())[1].as_ref().unwrap().contains("crimson"));
}

#[test]
fn a_line_that_cannot_be_used_is_told_and_the_others_are_read() {
    let (folder, reader) = indexed(false);
    let (_other, captioned) = indexed(true);
    let good = exported(&captioned, ExportOptions::default());
    let good: Vec<&str> = good.lines().collect();
    let unknown = ContentHash::of(b"unknown").to_hex();
    let text = [
        good[1].to_owned(),
        "{\"hash\": ".to_owned(),
        "[1, 2]".to_owned(),
        String::new(),
        good[0].to_owned(),
        "{\"caption\": \"x\"}".to_owned(),
        "{\"caption\": \"x\", \"hash\": \"12\"}".to_owned(),
        format!("{{\"caption\": \"x\", \"hash\": \"{unknown}\"}}"),
        format!("{{\"hash\": \"{unknown}\"}}"),
        format!("{{\"caption\": \"{}\"}}", "x".repeat(5 << 20)),
        good[2].to_owned(),
    ];
    let (restored, told) = put_back(folder.path(), &text.join("\n"), RestoreOptions::default());
    let told: Vec<&str> = told.iter().map(String::as_str).collect();
    let starts = [
        "1 a Set",
        "2  Bad(\"EOF while parsing",
        "3  Bad(\"invalid type",
        "5  Bad(\"a header stands in the first line only",
        "6  Bad(\"it has no `hash`",
        "7  Bad(\"its `hash` is not 64 hexadecimal digits",
        "8  Unmatched",
        "10  Bad(\"it is longer than 4 MiB",
        "11 b Set",
    ];
    assert_eq!(told.len(), starts.len(), "{told:#?}");
    for (told, start) in told.iter().zip(starts) {
        assert!(told.starts_with(start), "{told}, not {start}");
    }
    let counts = (restored.set, restored.bad, restored.unmatched, restored.without);
    assert_eq!(counts, (2, 6, 1, 1));
    drop(reader);
    assert_eq!(captions(folder.path()).iter().flatten().count(), 2);
}

#[test]
fn an_export_of_a_later_version_is_refused_before_anything_is_done() {
    let (folder, _reader) = indexed(false);
    let header = r#"{"format":"tinyfind-export","version":2,"written_by":"tinyfind 9"}"#;
    let mut lines = header.as_bytes();
    let error = restore(
        &mut writer(folder.path()),
        &mut lines,
        RestoreOptions::default(),
        &mut |_, _, _| (),
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the export was written by tinyfind 9 in version 2; this reads up to 1"
    );
}

#[test]
fn a_file_is_written_whole_or_not_at_all() {
    let (folder, reader) = indexed(true);
    let path = folder.path().join("out.jsonl");
    export_to_file(&reader, ExportOptions::default(), &path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, exported(&reader, ExportOptions::default()));
    let names = || -> Vec<String> {
        let entries = std::fs::read_dir(folder.path()).unwrap();
        entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect()
    };
    let before = names().len();
    let nowhere = folder.path().join("no/out.jsonl");
    let error = export_to_file(&reader, ExportOptions::default(), &nowhere).unwrap_err();
    assert!(error.to_string().starts_with("cannot write `"), "{error}");
    // A folder cannot be replaced by a file.
    let taken = folder.path().join("segments");
    assert!(export_to_file(&reader, ExportOptions::default(), &taken).is_err());
    assert_eq!(names().len(), before, "{:?}", names());
}
