//! What an index should hold, kept in maps: the truth that it is compared with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tinyfind_index::{
    Counts, DocId, Failure, FileRecord, FileStamp, FileState, Filter, IndexReader, IndexWriter,
    check,
};

use super::{features, hash, noise, photo, stamp};

/// One change, in terms of few paths and contents, so that they meet often.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    Add {
        path: u8,
        content: u8,
    },
    AddCopy {
        path: u8,
        of: u8,
    },
    Rename {
        from: u8,
        to: u8,
    },
    Touch {
        path: u8,
    },
    Remove {
        path: u8,
    },
    Fail {
        path: u8,
    },
    Caption {
        path: u8,
    },
    Commit,
    Reopen,
    /// Gives back every segment that has an unused record; commits first.
    Compact,
}

#[derive(Debug, Clone, PartialEq)]
enum Entry {
    Photo { doc: DocId, content: u64 },
    Failed { reason: String },
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Content {
    /// When it came, counted over all contents.
    since: u64,
    caption: Option<String>,
}

/// The state that a list of operations leads to.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Model {
    files: BTreeMap<PathBuf, (i64, Entry)>,
    contents: BTreeMap<u64, Content>,
    next_doc: u64,
    next_content: u64,
    time: i64,
}

pub(crate) fn path(number: u8) -> PathBuf {
    PathBuf::from(format!("/photos/{}/{number}.jpg", number % 3))
}

impl Model {
    /// Applies `operation` to the model and, where there is one, to the writer: both say the
    /// same about numbers and unknown paths. `Commit`, `Reopen` and `Compact` change nothing.
    pub(crate) fn apply(&mut self, operation: &Operation, writer: Option<&mut IndexWriter>) {
        self.time += 1;
        match operation {
            Operation::Add { path: at, content } => {
                let doc = self.place(&path(*at), u64::from(*content));
                if let Some(writer) = writer {
                    let mut new = photo(path(*at), u64::from(*content));
                    new.stamp = stamp(self.time);
                    assert_eq!(writer.add(new, features(u64::from(*content))).unwrap(), doc);
                }
            }
            Operation::AddCopy { path: at, of } => {
                let Some((of, content)) = self.photo(&path(*of)) else { return };
                let doc = self.place(&path(*at), content);
                if let Some(writer) = writer {
                    let mut new = photo(path(*at), content);
                    new.stamp = stamp(self.time);
                    assert_eq!(writer.add_copy(new, of).unwrap(), doc);
                }
            }
            Operation::Rename { from, to } => {
                let (from, to) = (path(*from), path(*to));
                let found = self.files.remove(&from);
                if let Some(writer) = writer {
                    let renamed = writer.rename(&from, &to, stamp(self.time));
                    assert_eq!(renamed.is_ok(), found.is_some());
                }
                if let Some((_, entry)) = found {
                    self.files.insert(to, (self.time, entry));
                }
            }
            Operation::Touch { path: at } => {
                let found = self.files.get_mut(&path(*at));
                if let Some(writer) = writer {
                    let touched = writer.touch(&path(*at), stamp(self.time));
                    assert_eq!(touched.is_ok(), found.is_some());
                }
                if let Some((time, _)) = found {
                    *time = self.time;
                }
            }
            Operation::Remove { path: at } => {
                self.files.remove(&path(*at));
                if let Some(writer) = writer {
                    writer.remove(&path(*at)).unwrap();
                }
            }
            Operation::Fail { path: at } => {
                let reason = format!("cut off at {}", self.time);
                if let Some(writer) = writer {
                    writer.fail(&path(*at), stamp(self.time), &reason).unwrap();
                }
                self.files.insert(path(*at), (self.time, Entry::Failed { reason }));
            }
            Operation::Caption { path: at } => {
                let Some((doc, content)) = self.photo(&path(*at)) else { return };
                let caption = format!("the dog number {}", self.time);
                if let Some(writer) = writer {
                    writer.set_caption(doc, &caption).unwrap();
                }
                self.contents.entry(content).or_default().caption = Some(caption);
            }
            Operation::Commit | Operation::Reopen | Operation::Compact => {}
        }
        let held: Vec<u64> = self.photos().map(|(_, _, content)| content).collect();
        self.contents.retain(|content, _| held.contains(content));
    }

    /// The stamp of a path that is there.
    pub(crate) fn stamp(&self, number: u8) -> FileStamp {
        stamp(self.files[&path(number)].0)
    }

    fn place(&mut self, path: &Path, content: u64) -> DocId {
        let doc = DocId(self.next_doc);
        self.next_doc += 1;
        self.contents.entry(content).or_insert_with(|| {
            self.next_content += 1;
            Content { since: self.next_content, caption: None }
        });
        self.files.insert(path.to_owned(), (self.time, Entry::Photo { doc, content }));
        doc
    }

    fn photo(&self, path: &Path) -> Option<(DocId, u64)> {
        match self.files.get(path) {
            Some((_, Entry::Photo { doc, content })) => Some((*doc, *content)),
            _ => None,
        }
    }

    fn photos(&self) -> impl Iterator<Item = (&Path, DocId, u64)> {
        self.files.iter().filter_map(|(path, (_, entry))| match entry {
            Entry::Photo { doc, content } => Some((path.as_path(), *doc, *content)),
            Entry::Failed { .. } => None,
        })
    }

    fn caption(&self, content: u64) -> Option<&str> {
        self.contents[&content].caption.as_deref()
    }

    fn counts(&self) -> Counts {
        let photos = self.photos().count() as u64;
        let captioned =
            self.photos().filter(|(_, _, content)| self.caption(*content).is_some()).count() as u64;
        Counts { photos, captioned, failed: self.files.len() as u64 - photos }
    }

    /// Compares all that a writer says.
    pub(crate) fn assert_written(&self, writer: &IndexWriter) {
        let found: Vec<(PathBuf, FileRecord)> = writer.files().collect::<Result<_, _>>().unwrap();
        let expected: Vec<(PathBuf, FileRecord)> = self
            .files
            .iter()
            .map(|(path, (time, entry))| {
                let state = match entry {
                    Entry::Photo { doc, content } => FileState::Indexed {
                        doc: *doc,
                        hash: hash(*content),
                        captioned: self.caption(*content).is_some(),
                    },
                    Entry::Failed { reason } => FileState::Failed { reason: reason.clone() },
                };
                (path.clone(), FileRecord { stamp: stamp(*time), state })
            })
            .collect();
        assert_eq!(found, expected);
        assert_eq!(writer.counts(), self.counts());
        for content in self.contents.keys() {
            let mut holders: Vec<(DocId, PathBuf)> = self
                .photos()
                .filter(|(_, _, held)| held == content)
                .map(|(path, doc, _)| (doc, path.to_owned()))
                .collect();
            holders.sort();
            assert_eq!(writer.find_content(&hash(*content)).unwrap(), holders);
        }
        let mut waiting: Vec<(u64, u64)> = self
            .contents
            .iter()
            .filter(|(_, known)| known.caption.is_none())
            .map(|(content, known)| (known.since, *content))
            .collect();
        waiting.sort_unstable();
        let found = writer.uncaptioned(usize::MAX).unwrap();
        assert_eq!(found.len(), waiting.len());
        for ((doc, tokens), (_, content)) in found.iter().zip(&waiting) {
            let first = self.photos().filter(|photo| photo.2 == *content).map(|photo| photo.1);
            assert_eq!(Some(*doc), first.min());
            let expected = features(*content).visual_tokens;
            assert!((tokens.values[0] - expected.values[0]).abs() < 0.01);
        }
    }

    /// Compares all that a reader says, of an index without any damage.
    pub(crate) fn assert_read(&self, reader: &IndexReader) {
        assert_eq!(reader.check().unwrap().problems, [""; 0]);
        self.assert_answers(reader);
    }

    /// Compares all that a reader says.
    pub(crate) fn assert_answers(&self, reader: &IndexReader) {
        assert_eq!(reader.counts(), self.counts());
        for (path, doc, content) in self.photos() {
            assert_eq!(reader.find_path(path).unwrap(), Some(doc));
            let photo = reader.photo(doc).unwrap().expect("a photo with the number");
            assert_eq!((photo.path.as_path(), photo.hash), (path, hash(content)));
            assert_eq!(photo.caption.as_deref(), self.caption(content));
            let query = features(content).embedding;
            let best = reader.by_vector(query.row(1), &Filter::default(), 1).unwrap();
            let best = reader.photo(best[0].0).unwrap().expect("a photo with the number");
            assert_eq!(best.hash, hash(content));
        }
        let failures: Vec<Failure> = self
            .files
            .iter()
            .filter_map(|(path, (_, entry))| match entry {
                Entry::Failed { reason } => {
                    Some(Failure { path: path.clone(), reason: reason.clone() })
                }
                Entry::Photo { .. } => None,
            })
            .collect();
        assert_eq!(reader.failures().unwrap(), failures);
        assert_eq!(reader.by_filter(&Filter::default(), 1000).unwrap().len(), {
            self.photos().count()
        });
    }
}

/// A share of unused records that a segment with a single one has.
pub(crate) const ANY: f64 = 1e-6;

/// Any operation, on few paths and contents.
pub(crate) fn operation() -> impl Strategy<Value = Operation> {
    let path = || 0..8_u8;
    prop_oneof![
        6 => (path(), 0..5_u8).prop_map(|(path, content)| Operation::Add { path, content }),
        3 => (path(), path()).prop_map(|(path, of)| Operation::AddCopy { path, of }),
        3 => (path(), path()).prop_map(|(from, to)| Operation::Rename { from, to }),
        1 => path().prop_map(|path| Operation::Touch { path }),
        3 => path().prop_map(|path| Operation::Remove { path }),
        2 => path().prop_map(|path| Operation::Fail { path }),
        4 => path().prop_map(|path| Operation::Caption { path }),
        3 => Just(Operation::Commit),
        1 => Just(Operation::Reopen),
        2 => Just(Operation::Compact),
    ]
}

/// Has a new index in `dir` do `operations`, and compares it with the model on the way.
pub(crate) fn assert_kept(dir: &Path, operations: &[Operation]) {
    let spec = super::spec();
    let mut writer = IndexWriter::open(dir, &spec).unwrap();
    let (mut model, mut committed) = (Model::default(), Model::default());
    for operation in operations {
        model.apply(operation, Some(&mut writer));
        match operation {
            Operation::Commit | Operation::Compact => {
                if let Operation::Commit = operation {
                    writer.commit().unwrap();
                } else {
                    let done = writer.compact(ANY, |_| true).unwrap();
                    assert_eq!(done.segments, done.found);
                    let reader = IndexReader::open(dir).unwrap();
                    assert_eq!(reader.check().unwrap().unused_records, 0);
                }
                committed = model.clone();
                committed.assert_read(&IndexReader::open(dir).unwrap());
            }
            Operation::Reopen => {
                drop(writer);
                writer = IndexWriter::open(dir, &spec).unwrap();
                model = committed.clone();
            }
            _ => {}
        }
        model.assert_written(&writer);
    }
    writer.commit().unwrap();
    drop(writer);
    model.assert_read(&IndexReader::open(dir).unwrap());
    model.assert_written(&IndexWriter::open(dir, &spec).unwrap());
    assert_eq!(check(dir).unwrap().problems, [""; 0]);
    let rebuilt = IndexWriter::rebuild(dir, &spec).unwrap();
    model.assert_written(&rebuilt);
    model.assert_read(&IndexReader::open(dir).unwrap());
}

/// What the commit `generation` changes: always something.
pub(crate) fn operations(generation: u64) -> Vec<Operation> {
    let picks = noise(generation + 3, 24);
    let pick = |i: usize, below: u8| (picks[i].midpoint(1.0) * f32::from(below)) as u8 % below;
    let mut operations: Vec<Operation> = (0..8)
        .map(|i| {
            let (path, other) = (pick(3 * i, 20), pick(3 * i + 1, 20));
            match pick(3 * i + 2, 9) {
                0 => Operation::Remove { path },
                1 => Operation::Rename { from: path, to: other },
                2 => Operation::AddCopy { path, of: other },
                3 => Operation::Fail { path },
                4 | 5 => Operation::Caption { path },
                _ => Operation::Add { path, content: other },
            }
        })
        .collect();
    operations.push(Operation::Add { path: 30, content: pick(0, 20) });
    operations
}

/// The state after a number of commits.
pub(crate) fn model_at(generation: u64) -> Model {
    let mut model = Model::default();
    for operation in (1..=generation).flat_map(operations) {
        model.apply(&operation, None);
    }
    model
}

/// An index of a few photos, some changed later, so that it has every kind of file.
pub(crate) fn every_kind_of_file(dir: &Path) -> Model {
    let mut writer = IndexWriter::open(dir, &super::spec()).unwrap();
    let mut model = Model::default();
    let add = |path, content| Operation::Add { path, content };
    for operation in [
        add(0, 0),
        add(1, 1),
        add(2, 2),
        add(3, 3),
        Operation::Commit,
        Operation::Caption { path: 1 },
        Operation::Caption { path: 2 },
        Operation::Fail { path: 5 },
        Operation::Remove { path: 3 },
        Operation::AddCopy { path: 6, of: 1 },
        Operation::Commit,
    ] {
        model.apply(&operation, Some(&mut writer));
        if let Operation::Commit = operation {
            writer.commit().unwrap();
        }
    }
    model
}
