//! An index of each format, as the version that made it left it: read, searched and extended by
//! every later one.
//!
//! `TINYFIND_WRITE_GOLDEN=FILE cargo test --test golden` writes one of the newest format.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic as they may")]

mod common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::{features, files_of, hash, photo, spec, stamp, stored};
use tinyfind_index::{
    Circle, Clause, Counts, Failure, FileState, Filter, IndexReader, IndexWriter, NewPhoto,
    Orientation, PhotoMetadata, Taken, TakenSource, Term, check,
};

/// The newest format.
const NEWEST: u32 = 3;

/// Fewer zeros than this are not worth a run of their own.
const GAP: usize = 24;

/// The files below `dir` as one: of each its path, its length and the runs of bytes that are not
/// zero, with their offsets. sled's log is half a megabyte of zeros.
fn pack(dir: &Path) -> Vec<u8> {
    let mut packed = Vec::new();
    let mut put = |number: usize| packed.extend((number as u32).to_le_bytes());
    let mut chunks: Vec<Vec<u8>> = Vec::new();
    for file in files_of(dir) {
        let bytes = fs::read(&file).unwrap();
        let name = file.strip_prefix(dir).unwrap().as_os_str().as_bytes().to_vec();
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for at in (0..bytes.len()).filter(|at| bytes[*at] != 0) {
            match runs.last_mut() {
                Some((_, end)) if at < *end + GAP => *end = at + 1,
                _ => runs.push((at, at + 1)),
            }
        }
        put(name.len());
        put(bytes.len());
        put(runs.len());
        for (from, end) in &runs {
            put(*from);
            put(end - from);
        }
        chunks.push(name);
        chunks.extend(runs.iter().map(|(from, end)| bytes[*from..*end].to_vec()));
    }
    let mut whole = (packed.len() as u32).to_le_bytes().to_vec();
    whole.extend(packed);
    whole.extend(chunks.concat());
    whole
}

/// Undoes [`pack`] in `dir`.
fn unpack(packed: &[u8], dir: &Path) {
    let number = |at: usize| u32::from_le_bytes(packed[at..at + 4].try_into().unwrap()) as usize;
    let (mut at, head) = (4, 4 + number(0));
    let mut chunk = head;
    while at < head {
        let (name_bytes, bytes, runs) = (number(at), number(at + 4), number(at + 8));
        at += 12;
        let path = dir.join(OsStr::from_bytes(&packed[chunk..chunk + name_bytes]));
        chunk += name_bytes;
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = File::create(path).unwrap();
        file.set_len(bytes as u64).unwrap();
        for _ in 0..runs {
            let (offset, len) = (number(at), number(at + 4));
            file.write_all_at(&packed[chunk..chunk + len], offset as u64).unwrap();
            (at, chunk) = (at + 8, chunk + len);
        }
    }
    assert_eq!(chunk, packed.len());
}

fn odd() -> PathBuf {
    PathBuf::from(OsStr::from_bytes(b"/photos/caf\xe9.png"))
}

/// A photo with all that a header can say.
fn holiday() -> NewPhoto {
    let metadata = PhotoMetadata {
        width: 4000,
        height: 3000,
        format: "jpeg".to_owned(),
        taken: Some(Taken {
            local_seconds: 1_563_120_000,
            offset_minutes: Some(120),
            source: TakenSource::Exif,
        }),
        camera: Some("FUJIFILM X100V".to_owned()),
        lens: Some("23mm f/2".to_owned()),
        gps: Some((41.8902, 12.4922)),
        title: Some("Colosseum at noon".to_owned()),
        description: Some("The whole family in front of it".to_owned()),
        keywords: vec!["Rome".to_owned(), "Großmutter".to_owned()],
        place: Some("Celio, Rome, Italy".to_owned()),
        // What was added since has no place in the index that was kept.
        ..PhotoMetadata::default()
    };
    NewPhoto { metadata, ..photo("/photos/2019/rome/img_1.jpg", 1) }
}

/// What the golden index of a format holds: a copy, a failure, captions, and three generations; in
/// the first format a gap, in later ones a segment that was given back, by one generation more.
fn make(dir: &Path) {
    let mut writer = IndexWriter::open(dir, &spec()).unwrap();
    let first = writer.add(holiday(), features(1)).unwrap();
    writer.add(photo("/photos/gone.jpg", 2), features(2)).unwrap();
    writer.add(photo(odd(), 3), features(3)).unwrap();
    writer.fail("/photos/broken.jpg".as_ref(), stamp(4), "is cut off").unwrap();
    writer.commit().unwrap();
    writer.set_caption(first, "An old woman running after a dog").unwrap();
    writer.add_copy(photo("/photos/copy.jpg", 1), first).unwrap();
    writer.commit().unwrap();
    writer.remove("/photos/gone.jpg".as_ref()).unwrap();
    writer.rename("/photos/copy.jpg".as_ref(), "/photos/again.jpg".as_ref(), stamp(9)).unwrap();
    assert_eq!(writer.commit().unwrap(), 3);
    assert_eq!(writer.compact(0.1, |_| true).unwrap().segments, 1);
}

/// The last generation of the golden index of a format, and its records that no photo uses.
fn generation_and_gaps(format: u32) -> (u64, u64) {
    if format == 1 { (3, 1) } else { (4, 0) }
}

/// Compares all that a search can be told.
fn assert_read(dir: &Path, format: u32) {
    let reader = IndexReader::open(dir).unwrap();
    let (generation, gaps) = generation_and_gaps(format);
    assert_eq!((reader.generation(), reader.spec()), (generation, &spec()));
    assert_eq!(reader.counts(), Counts { photos: 3, captioned: 2, failed: 1 });
    let first = stored(&reader, "/photos/2019/rome/img_1.jpg");
    assert_eq!((&first.metadata, first.hash), (&holiday().metadata, hash(1)));
    assert_eq!(first.caption.as_deref(), Some("An old woman running after a dog"));
    assert_eq!(stored(&reader, odd()).caption, None);
    let failure = Failure { path: "/photos/broken.jpg".into(), reason: "is cut off".to_owned() };
    assert_eq!(reader.failures().unwrap(), [failure]);

    let all = Filter::default();
    let by = |term: Term| -> Vec<_> { common::docs(&reader.by_words(&[term], &all, 9).unwrap()) };
    assert_eq!(by(Term::Word("runs".to_owned())).len(), 2);
    assert_eq!(by(Term::Phrase("grossmutter".to_owned())), [first.doc]);
    assert_eq!(by(Term::Word("gone".to_owned())), []);
    let only = |clause| Filter { require: vec![clause], exclude: vec![] };
    for clause in [
        Clause::Camera("x100v".to_owned()),
        Clause::Lens("23mm".to_owned()),
        Clause::Near(Circle { latitude: 41.89, longitude: 12.49, radius_in_metres: 5_000.0 }),
        Clause::Path("2019/rome".to_owned()),
    ] {
        assert_eq!(reader.by_filter(&only(clause.clone()), 9).unwrap(), [first.doc], "{clause:?}");
    }
    // In a text of the first version these follow from other columns.
    for (orientation, photos) in [(Orientation::Landscape, 3), (Orientation::Portrait, 0)] {
        let clause = Clause::Orientation(orientation);
        assert_eq!(reader.by_filter(&only(clause), 9).unwrap().len(), photos);
    }
    let query = features(3).embedding.row(2).to_vec();
    let found = reader.by_vector(&query, &all, 1).unwrap();
    assert_eq!(reader.photo(found[0].0).unwrap().unwrap().path, odd());
    assert!(found[0].1 > 0.99, "{}", found[0].1);
    let tokens = reader.visual_tokens(first.doc).unwrap();
    assert!((tokens.values[5] - features(1).visual_tokens.values[5]).abs() < 0.01);
    let report = reader.check().unwrap();
    assert_eq!((report.contents, report.unused_records), (2, gaps));
    assert_eq!(check(dir).unwrap().problems, [""; 0]);
}

/// The format that a manifest names.
fn format_of(dir: &Path) -> u32 {
    let manifest = fs::read_to_string(dir.join("manifest.json")).unwrap();
    let line = manifest.lines().find_map(|line| line.trim().strip_prefix("\"format\": ")).unwrap();
    line.trim_end_matches(',').parse().unwrap()
}

/// Every index in the fixtures with its format.
fn golden_indexes() -> Vec<(u32, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut found: Vec<(u32, Vec<u8>)> = files_of(&folder)
        .into_iter()
        .map(|file| {
            let name = file.file_stem().unwrap().to_str().unwrap();
            let format = name.strip_prefix("format-").unwrap().parse().unwrap();
            (format, fs::read(file).unwrap())
        })
        .collect();
    found.sort_unstable();
    found
}

#[test]
fn an_index_of_every_format_is_read_and_extended() {
    let golden = golden_indexes();
    assert!(!golden.is_empty());
    for (format, packed) in golden {
        assert!(packed.len() < 300_000, "format {format} takes {} bytes", packed.len());
        let dir = tempfile::tempdir().unwrap();
        unpack(&packed, dir.path());
        // A reader first, before a writer could mend anything.
        assert_read(dir.path(), format);

        let mut writer = IndexWriter::open(dir.path(), &spec()).unwrap();
        let rows: Vec<_> = writer.files().collect::<Result<_, _>>().unwrap();
        let paths: Vec<&Path> = rows.iter().map(|(path, _)| path.as_path()).collect();
        let odd = odd();
        let expected = ["/photos/2019/rome/img_1.jpg", "/photos/again.jpg", "/photos/broken.jpg"];
        let mut expected: Vec<&Path> = expected.into_iter().map(Path::new).collect();
        expected.push(&odd);
        assert_eq!(paths, expected);
        assert_eq!(rows[1].1.stamp, stamp(9));
        assert!(matches!(rows[2].1.state, FileState::Failed { .. }));
        assert_eq!(writer.uncaptioned(9).unwrap().len(), 1);
        let copies = writer.find_content(&hash(1)).unwrap();
        assert_eq!(copies.len(), 2);
        // Numbers that were given are not given again.
        let new = writer.add(photo("/photos/new.jpg", 7), features(7)).unwrap();
        assert_eq!(new.0, 4);
        writer.set_caption(new, "a boat").unwrap();
        assert_eq!(writer.commit().unwrap(), generation_and_gaps(format).0 + 1);
        drop(writer);
        assert_eq!(format_of(dir.path()), NEWEST);
        let reader = IndexReader::open(dir.path()).unwrap();
        assert_eq!(stored(&reader, "/photos/new.jpg").caption.as_deref(), Some("a boat"));
        assert_eq!(check(dir.path()).unwrap().problems, [""; 0]);

        // What can be written anew says the same.
        let dir = tempfile::tempdir().unwrap();
        unpack(&packed, dir.path());
        drop(IndexWriter::restore(dir.path()).unwrap());
        assert_read(dir.path(), format);
        // Only a commit makes the newest format of it.
        assert_eq!(format_of(dir.path()), format);
        let cameras = IndexReader::open(dir.path()).unwrap().cameras().unwrap();
        assert_eq!(cameras, [("FUJIFILM X100V".to_owned(), 1)]);
    }
}

#[test]
fn the_format_that_is_written_has_its_golden_index() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    assert_read(dir.path(), NEWEST);
    let packed = pack(dir.path());
    if let Some(file) = std::env::var_os("TINYFIND_WRITE_GOLDEN") {
        fs::write(file, &packed).unwrap();
    }
    let again = tempfile::tempdir().unwrap();
    unpack(&packed, again.path());
    assert_eq!(pack(again.path()), packed);
    assert_eq!(format_of(dir.path()), NEWEST);
    let found: Vec<u32> = golden_indexes().into_iter().map(|(format, _)| format).collect();
    let expected: Vec<u32> = (1..=NEWEST).collect();
    assert_eq!(found, expected, "make a golden index of the newest, see the top of this file");
}
