//! Whether the rows of the catalogue agree with each other: invariant 6 of `DESIGN.md`.

use std::collections::HashMap;
use std::path::Path;

use super::{Catalog, ContentRow, PathEntry, decode, holder_key, holder_prefix, key};
use crate::document::{ContentHash, Counts, DocId};
use crate::error::StoreResult;

/// What was looked at, and what is wrong with it.
#[derive(Debug, Default)]
pub(crate) struct CatalogFindings {
    /// Paths, photos or not.
    pub(crate) paths: u64,
    /// Distinct contents of the photos.
    pub(crate) contents: u64,
    /// A line each.
    pub(crate) problems: Vec<String>,
}

impl Catalog {
    /// Reads every row and compares it with those that name it.
    ///
    /// # Errors
    ///
    /// When the store cannot be read or a row means nothing.
    pub(crate) fn check(&self) -> StoreResult<CatalogFindings> {
        let mut findings = CatalogFindings::default();
        let counts = self.check_paths(&mut findings)?;
        self.check_contents(&mut findings)?;
        let (state, rows) = (self.state(), |kind: u8| self.store.scan(&[kind]).count() as u64);
        if counts != state.counts {
            findings.note(format_args!("it holds {counts:?} and counts {:?}", state.counts));
        }
        let contents = findings.contents;
        if let Some(counted) = state.contents.filter(|counted| *counted != contents) {
            findings.note(format_args!("it holds {contents} contents and counts {counted}"));
        }
        // Every photo has one of each: more can only be of photos that are gone.
        for (what, kind) in [("numbers", key::DOC), ("holders", key::HOLDER)] {
            let found = rows(kind);
            if found != counts.photos {
                findings.note(format_args!("it holds {found} {what} of {} photos", counts.photos));
            }
        }
        Ok(findings)
    }

    fn check_paths(&self, findings: &mut CatalogFindings) -> StoreResult<Counts> {
        let mut counts = Counts::default();
        for entry in self.paths() {
            let (path, row) = entry?;
            findings.paths += 1;
            let PathEntry::Photo { doc, hash, .. } = row.entry else {
                counts.failed += 1;
                continue;
            };
            counts.photos += 1;
            if doc.0 >= self.state().next_doc || self.path_of(doc)?.as_deref() != Some(&path) {
                findings.note_photo(doc, &path, "cannot be found by its number");
            }
            if self.store.get(&holder_key(&hash, doc))?.is_none() {
                findings.note_photo(doc, &path, "cannot be found by its content");
            }
            match self.content(&hash)? {
                Some(content) => counts.captioned += u64::from(content.caption.is_some()),
                None => findings.note_photo(doc, &path, "has no content"),
            }
        }
        Ok(counts)
    }

    fn check_contents(&self, findings: &mut CatalogFindings) -> StoreResult<()> {
        let mut slots: HashMap<u64, ContentHash> = HashMap::new();
        let mut waiting = 0;
        for entry in self.store.scan(&[key::CONTENT]) {
            let (name, value) = entry?;
            let hash = self.hash(&name[1..])?;
            let row: ContentRow = decode(&self.store, &value)?;
            let ContentRow { slot, caption, .. } = &row;
            findings.contents += 1;
            let name = hash.to_hex();
            if self.state().gone.holds(*slot) {
                findings.note(format_args!("record {slot} of content {name} was given back"));
            }
            if *slot >= self.state().next_slot || slots.insert(*slot, hash).is_some() {
                findings.note(format_args!("record {slot} of content {name} is another's"));
            }
            if self.store.scan(&holder_prefix(&hash)).next().transpose()?.is_none() {
                findings.note(format_args!("no photo has the content {name}"));
            }
            waiting += u64::from(caption.is_none());
            let listed = self.store.get(&row.uncaptioned_key())?;
            let expected = caption.is_none().then(|| hash.0.to_vec());
            if listed != expected {
                findings.note(format_args!(
                    "the content {name} is {}listed as without a caption",
                    if listed.is_some() { "" } else { "not " }
                ));
            }
        }
        let listed = self.store.scan(&[key::UNCAPTIONED]).count() as u64;
        if listed != waiting {
            findings
                .note(format_args!("it lists {listed} contents without a caption of {waiting}"));
        }
        Ok(())
    }
}

impl CatalogFindings {
    fn note(&mut self, what: impl std::fmt::Display) {
        self.problems.push(what.to_string());
    }

    fn note_photo(&mut self, doc: DocId, path: &Path, what: &str) {
        self.note(format_args!("photo {} at `{}` {what}", doc.0, path.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::super::numbered_key;
    use super::*;
    use crate::IndexWriter;
    use crate::common::{features, photo, spec};

    /// An index of three photos of two contents, one captioned, and a failure.
    fn index(dir: &Path) {
        let mut writer = IndexWriter::open(dir, &spec()).unwrap();
        let first = writer.add(photo("/a", 1), features(1)).unwrap();
        writer.add_copy(photo("/b", 1), first).unwrap();
        writer.add(photo("/c", 2), features(2)).unwrap();
        writer.set_caption(first, "a dog").unwrap();
        writer.fail("/d".as_ref(), crate::common::stamp(1), "empty").unwrap();
        writer.commit().unwrap();
    }

    fn open(dir: &Path) -> Catalog {
        Catalog::open_existing(dir).unwrap().unwrap()
    }

    #[test]
    fn a_sound_catalogue_has_no_problems() {
        let dir = tempfile::tempdir().unwrap();
        index(dir.path());
        let findings = open(dir.path()).check().unwrap();
        assert_eq!((findings.paths, findings.contents), (4, 2));
        assert_eq!(findings.problems, [""; 0]);
    }

    #[test]
    fn every_row_that_is_missing_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        index(dir.path());
        let mut catalog = open(dir.path());
        let all: Vec<(Vec<u8>, Vec<u8>)> =
            catalog.store.scan(&[]).collect::<Result<_, _>>().unwrap();
        let mut tried = String::new();
        for (name, value) in all {
            // The state is read once, and what the last commit changed concerns recovery alone.
            if [key::STATE, key::CHANGED].contains(&name[0]) {
                continue;
            }
            catalog.store.delete(name.clone());
            let problems = catalog.check().unwrap().problems;
            assert!(!problems.is_empty(), "{:?}", String::from_utf8_lossy(&name));
            tried.push(char::from(name[0]));
            catalog.store.put(name, value);
        }
        assert_eq!(tried, "ccdddhhhppppu");
        assert_eq!(catalog.check().unwrap().problems, [""; 0]);
    }

    #[test]
    fn a_row_too_many_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        index(dir.path());
        let mut catalog = open(dir.path());
        let hash = ContentHash::of(b"nobody's");
        let slot = catalog.content(&crate::common::hash(2)).unwrap().unwrap().slot;
        let row =
            serde_json::to_vec(&ContentRow { slot, caption: None, first_slot: None }).unwrap();
        for (name, value) in [
            (numbered_key(key::DOC, 77), b"/nowhere".to_vec()),
            (holder_key(&hash, DocId(77)), Vec::new()),
            (numbered_key(key::UNCAPTIONED, 77), hash.0.to_vec()),
            (super::super::content_key(&hash), row),
        ] {
            assert!(catalog.store.get(&name).unwrap().is_none());
            catalog.store.put(name.clone(), value);
            let problems = catalog.check().unwrap().problems;
            assert!(!problems.is_empty(), "{:?}", String::from_utf8_lossy(&name));
            catalog.store.delete(name);
        }
    }
}
