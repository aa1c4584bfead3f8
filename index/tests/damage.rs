//! Damaged files: an error that names the file and the cure, never a panic or a wrong answer.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic as they may")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::model::every_kind_of_file as index;
use common::{features, files_of, photo, spec};
use tinyfind_index::{
    Cure, Filter, IndexReader, IndexWriter, OpenError, SearchError, StoredPhoto, Term,
};

/// All that a reader can be asked, as far as it answers.
fn answers(dir: &Path) -> Result<Vec<String>, (PathBuf, String)> {
    let reader = IndexReader::open(dir).map_err(|error| match &error {
        OpenError::Corrupt { path, .. } => (path.clone(), error.to_string()),
        other => panic!("{other:?}"),
    })?;
    let all = Filter::default();
    let ask = || -> Result<Vec<String>, SearchError> {
        let query = features(2).embedding.row(0).to_vec();
        let found = reader.by_vector(&query, &all, 10)?;
        let words = [Term::Word("dog".to_owned()), Term::Phrase("number".to_owned())];
        let mut answers = vec![
            format!("{found:?}"),
            format!("{:?}", reader.by_words(&words, &all, 10)?),
            format!("{:?}", reader.by_filter(&all, 10)?),
            format!("{:?}", reader.failures()?),
        ];
        for (doc, _) in found {
            let photo: Option<StoredPhoto> = reader.photo(doc)?;
            answers.push(format!("{photo:?}"));
            answers.push(format!("{:?}", reader.visual_tokens(doc)?));
        }
        let report = reader.check()?;
        assert!(report.is_sound(), "found by nothing but the check: {:?}", report.problems);
        Ok(answers)
    };
    ask().map_err(|error| match &error {
        SearchError::Corrupt { path, .. } => (path.clone(), error.to_string()),
        other => panic!("{other:?}"),
    })
}

/// Files that readers depend on.
fn read_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = files_of(&dir.join("text"));
    files.extend(files_of(&dir.join("segments")));
    // Locks are empty.
    files.retain(|file| !file.file_name().unwrap().to_str().unwrap().starts_with('.'));
    files.push(dir.join("manifest.json"));
    files
}

/// Damages a file in every way of `damages`, asks, and restores it.
fn damage(
    dir: &Path,
    file: &Path,
    damages: impl Iterator<Item = Vec<u8>>,
    whole: &[u8],
    sound: &[String],
) {
    for damaged in damages {
        fs::write(file, &damaged).unwrap();
        match answers(dir) {
            // What does not matter may differ: spaces in JSON, records that nobody uses.
            Ok(found) => assert_eq!(found, sound, "{}", file.display()),
            Err((path, text)) => {
                assert!(path.starts_with(dir), "{} names {}", file.display(), path.display());
                assert!(text.contains("--rebuild") || text.contains("delete the index"), "{text}");
            }
        }
    }
    fs::write(file, whole).unwrap();
}

#[test]
fn a_damaged_file_gives_an_error_or_does_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    index(dir.path());
    let sound = answers(dir.path()).unwrap();
    for file in read_files(dir.path()) {
        let whole = fs::read(&file).unwrap();
        let len = whole.len();
        let cuts = [0, 1, len / 2, len.saturating_sub(1)].into_iter().map(|n| whole[..n].to_vec());
        // Every 13th byte: heads, bodies, footers.
        let flips = (0..len).step_by(13).map(|at| {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            flipped
        });
        damage(dir.path(), &file, cuts.chain(flips), &whole, &sound);
        assert_eq!(answers(dir.path()).unwrap(), sound);
    }
}

#[test]
fn a_missing_file_gives_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    index(dir.path());
    for file in read_files(dir.path()) {
        let whole = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        let error = IndexReader::open(dir.path()).unwrap_err();
        if file.ends_with("manifest.json") {
            assert!(matches!(error, OpenError::Missing { .. }), "{error}");
        } else {
            let name = file.file_name().unwrap().to_str().unwrap();
            assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
            assert!(error.to_string().contains(name), "{error} does not name {name}");
        }
        fs::write(&file, whole).unwrap();
    }
}

#[test]
fn a_flipped_bit_in_a_record_in_use_is_found() {
    let dir = tempfile::tempdir().unwrap();
    index(dir.path());
    for file in files_of(&dir.path().join("segments")) {
        let whole = fs::read(&file).unwrap();
        // The head and the first three records are in use.
        let used = 64 + (whole.len() - 64) / 4 * 3;
        for at in (0..used).step_by(7) {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            fs::write(&file, &flipped).unwrap();
            match IndexReader::open(dir.path()) {
                Ok(reader) => {
                    let problems = reader.check().unwrap().problems;
                    let name = file.file_name().unwrap().to_str().unwrap();
                    assert!(problems.iter().any(|problem| problem.contains(name)), "{problems:?}");
                }
                Err(error) => assert!(
                    matches!(error, OpenError::Corrupt { cure: Cure::StartAnew, .. }),
                    "{error}"
                ),
            }
        }
        fs::write(&file, whole).unwrap();
    }
}

#[test]
fn opening_for_writing_restores_text_and_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let model = index(dir.path());
    let heal = |what: &str| {
        let writer = IndexWriter::open(dir.path(), &spec()).unwrap();
        model.assert_written(&writer);
        drop(writer);
        let reader = IndexReader::open(dir.path()).unwrap();
        assert_eq!(reader.generation(), 2, "{what}");
        model.assert_read(&reader);
    };
    let manifest = dir.path().join("manifest.json");
    fs::remove_file(&manifest).unwrap();
    heal("no manifest");
    fs::write(&manifest, "{").unwrap();
    heal("a broken manifest");
    fs::remove_dir_all(dir.path().join("text")).unwrap();
    heal("no text");
    for i in 0.. {
        // The names change with every rebuild.
        let files = files_of(&dir.path().join("text"));
        let Some(file) = files.get(i) else { break };
        let len = fs::metadata(file).unwrap().len();
        fs::File::options().write(true).open(file).unwrap().set_len(len / 2).unwrap();
        heal(&file.display().to_string());
    }
}

#[test]
fn a_lost_catalogue_is_an_error_and_not_an_empty_index() {
    let dir = tempfile::tempdir().unwrap();
    index(dir.path());
    fs::remove_dir_all(dir.path().join("catalog")).unwrap();
    let error = IndexWriter::open(dir.path(), &spec()).unwrap_err();
    assert!(matches!(error, OpenError::Corrupt { cure: Cure::StartAnew, .. }), "{error}");
    assert!(error.to_string().contains("catalog"), "{error}");
    // Searches go on.
    assert_eq!(IndexReader::open(dir.path()).unwrap().counts().photos, 4);
}

#[test]
fn lost_segments_are_an_error_for_reader_and_writer() {
    let dir = tempfile::tempdir().unwrap();
    index(dir.path());
    let file = dir.path().join("segments/0.vectors.seg");
    let len = fs::metadata(&file).unwrap().len();
    fs::File::options().write(true).open(&file).unwrap().set_len(len - 1).unwrap();
    let errors = [
        IndexReader::open(dir.path()).unwrap_err(),
        IndexWriter::open(dir.path(), &spec()).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, OpenError::Corrupt { cure: Cure::StartAnew, .. }), "{error}");
        assert!(error.to_string().contains("0.vectors.seg"), "{error}");
    }
}

#[test]
fn an_index_of_a_newer_format_is_refused_with_both_names() {
    let dir = tempfile::tempdir().unwrap();
    index(dir.path());
    // A manifest as a later version would write it: another number, and the same checksum rule.
    let manifest = dir.path().join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    let (body, _) = text.rsplit_once(",\n  \"checksum\"").unwrap();
    let body = body
        .replace("\"format\": 3", "\"format\": 9")
        .replace(concat!("tinyfind-index ", env!("CARGO_PKG_VERSION")), "tinyfind-index 9.0.0");
    let checksum = blake3::hash(body.as_bytes()).to_hex();
    fs::write(&manifest, format!("{body},\n  \"checksum\": \"{checksum}\"\n}}\n")).unwrap();
    let errors = [
        IndexReader::open(dir.path()).unwrap_err(),
        IndexWriter::open(dir.path(), &spec()).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, OpenError::NewerFormat { found: 9, .. }), "{error}");
        let text = error.to_string();
        let ours = concat!("tinyfind-index ", env!("CARGO_PKG_VERSION"));
        assert!(text.contains("tinyfind-index 9.0.0") && text.contains(ours), "{text}");
    }
}

#[test]
fn a_photo_whose_record_is_damaged_is_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = IndexWriter::open(dir.path(), &spec()).unwrap();
    let doc = writer.add(photo("/a", 1), features(1)).unwrap();
    writer.commit().unwrap();
    drop(writer);
    for name in ["0.vectors.seg", "0.tokens.seg"] {
        let file = dir.path().join("segments").join(name);
        let mut bytes = fs::read(&file).unwrap();
        bytes[150] ^= 4;
        fs::write(&file, bytes).unwrap();
    }
    let reader = IndexReader::open(dir.path()).unwrap();
    let query = features(1).embedding.row(0).to_vec();
    for error in [
        reader.by_vector(&query, &Filter::default(), 1).unwrap_err(),
        reader.verify(doc).unwrap_err(),
        reader.embedding(doc).unwrap_err(),
        reader.visual_tokens(doc).unwrap_err(),
    ] {
        assert!(matches!(error, SearchError::Corrupt { .. }), "{error}");
    }
    let unknown = reader.verify(tinyfind_index::DocId(77)).unwrap_err();
    assert!(matches!(unknown, SearchError::UnknownDoc { .. }), "{unknown}");
}
