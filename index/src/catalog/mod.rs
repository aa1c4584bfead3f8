//! The ledger: every path, what became of it, and the content it holds. The source of truth.
//!
//! Changes are staged and visible at once; [`Catalog::apply`] makes them durable together.

mod check;
mod rows;
mod store;

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::document::{ContentHash, DocId, ModelSpec};
use crate::error::{OpenError, StoreError, StoreResult};
use crate::manifest::{FORMAT, WRITTEN_BY};
use crate::segments::SLOTS_PER_SEGMENT;
use rows::{
    ContentRow, Envelope, content_key, holder_key, holder_prefix, joined, key, numbered_key,
    path_key, path_of, split,
};
pub(crate) use rows::{PathEntry, PathRow, State};
use store::Store;

/// The first format in which the changed paths of a commit share rows.
const JOINED_CHANGES: u32 = 3;

/// The ledger.
pub(crate) struct Catalog {
    store: Store,
    /// As of now, staged changes included.
    state: State,
}

impl Catalog {
    /// Where the catalogue of the index in `dir` lies.
    pub(crate) fn folder(dir: &Path) -> PathBuf {
        dir.join("catalog")
    }

    /// Whether the index in `dir` has a catalogue, sound or not.
    pub(crate) fn exists(dir: &Path) -> bool {
        // The log of sled: without it there is nothing that could be read.
        Self::folder(dir).join("db").exists()
    }

    /// Opens the catalogue of the index in `dir`, if there is one that holds a commit.
    ///
    /// # Errors
    ///
    /// `NewerFormat`, `Corrupt` or `Io`.
    pub(crate) fn open_existing(dir: &Path) -> Result<Option<Self>, OpenError> {
        if !Self::exists(dir) {
            return Ok(None);
        }
        let store = Store::open(&Self::folder(dir))?;
        let state = read_state(dir, &store)?;
        Ok(state.map(|state| Self { store, state }))
    }

    /// Opens the catalogue of the index in `dir`, or makes an empty one with the state
    /// `fresh`.
    ///
    /// # Errors
    ///
    /// `NewerFormat`, `Corrupt` or `Io`.
    pub(crate) fn open(dir: &Path, fresh: State) -> Result<Self, OpenError> {
        let store = Store::open(&Self::folder(dir))?;
        let state = read_state(dir, &store)?.unwrap_or(fresh);
        Ok(Self { store, state })
    }

    /// The state as of now.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// The row of a path.
    pub(crate) fn path(&self, path: &Path) -> StoreResult<Option<PathRow>> {
        self.row(&path_key(key::PATH, path))
    }

    /// Whether the last commit holds a path, whatever is staged.
    pub(crate) fn held(&self, path: &Path) -> StoreResult<bool> {
        self.store.is_stored(&path_key(key::PATH, path))
    }

    /// Every path in byte order.
    pub(crate) fn paths(&self) -> impl Iterator<Item = StoreResult<(PathBuf, PathRow)>> + '_ {
        self.store.scan(&[key::PATH]).map(|entry| {
            let (key, value) = entry?;
            Ok((path_of(key), decode(&self.store, &value)?))
        })
    }

    /// Where a photo lies.
    pub(crate) fn path_of(&self, doc: DocId) -> StoreResult<Option<PathBuf>> {
        let found = self.store.get(&numbered_key(key::DOC, doc.0))?;
        Ok(found.map(|path| PathBuf::from(OsString::from_vec(path))))
    }

    /// The row of a content.
    pub(crate) fn content(&self, hash: &ContentHash) -> StoreResult<Option<ContentRow>> {
        self.row(&content_key(hash))
    }

    /// The row of the content of a photo of this catalogue.
    pub(crate) fn content_of_photo(&self, hash: &ContentHash) -> StoreResult<ContentRow> {
        self.content(hash)?.ok_or_else(|| {
            StoreError::lost(self.store.path(), format_args!("no content {}", hash.to_hex()))
        })
    }

    /// Every photo of a content, by number.
    pub(crate) fn holders(&self, hash: &ContentHash) -> StoreResult<Vec<(DocId, PathBuf)>> {
        let mut holders = Vec::new();
        let prefix = holder_prefix(hash);
        for entry in self.store.scan(&prefix) {
            let doc = DocId(self.number(&entry?.0[prefix.len()..])?);
            let path = self.path_of(doc)?.ok_or_else(|| {
                StoreError::lost(self.store.path(), format_args!("photo {} has no path", doc.0))
            })?;
            holders.push((doc, path));
        }
        Ok(holders)
    }

    /// Slot and hash of up to `limit` contents without a caption, oldest first.
    pub(crate) fn uncaptioned(&self, limit: usize) -> StoreResult<Vec<(u64, ContentHash)>> {
        let entries = self.store.scan(&[key::UNCAPTIONED]).take(limit);
        entries
            .map(|entry| {
                let hash = self.hash(&entry?.1)?;
                Ok((self.content_of_photo(&hash)?.slot, hash))
            })
            .collect()
    }

    /// Slot and hash of every content, in no order of use.
    pub(crate) fn contents(&self) -> impl Iterator<Item = StoreResult<(u64, ContentHash)>> + '_ {
        /// What is asked of a row: captions are passed over.
        #[derive(Deserialize)]
        struct Place {
            slot: u64,
        }
        self.store.scan(&[key::CONTENT]).map(|entry| {
            let (key, value) = entry?;
            let Place { slot } = decode(&self.store, &value)?;
            Ok((slot, self.hash(&key[1..])?))
        })
    }

    /// Gives the next free [`DocId`] away.
    pub(crate) fn new_doc(&mut self) -> DocId {
        let doc = DocId(self.state.next_doc);
        self.state.next_doc += 1;
        doc
    }

    /// Gives the next free slot to a content that has no caption yet.
    pub(crate) fn new_content(&mut self, hash: &ContentHash) -> StoreResult<u64> {
        let slot = self.state.next_slot;
        self.state.next_slot += 1;
        self.state.contents = self.state.contents.map(|count| count + 1);
        let row = ContentRow { slot, caption: None, first_slot: None };
        self.store.put(row.uncaptioned_key(), hash.0.to_vec());
        self.put(content_key(hash), &row)?;
        Ok(slot)
    }

    /// Gives the next free slot to a content that has one, and returns it.
    pub(crate) fn move_content(&mut self, hash: &ContentHash) -> StoreResult<u64> {
        let mut row = self.content_of_photo(hash)?;
        if row.caption.is_none() {
            row.first_slot.get_or_insert(row.slot);
        }
        row.slot = self.state.next_slot;
        self.state.next_slot += 1;
        self.put(content_key(hash), &row)?;
        Ok(row.slot)
    }

    /// Gives back a segment of whose slots no content has one. If it is the last one, the next
    /// slot is in the segment after it.
    pub(crate) fn give_back(&mut self, segment: u64) {
        let end = (segment + 1) * SLOTS_PER_SEGMENT;
        self.state.next_slot = self.state.next_slot.max(end);
        self.state.gone.insert(segment);
    }

    /// Gives a content its caption.
    pub(crate) fn set_caption(&mut self, hash: &ContentHash, caption: &str) -> StoreResult<()> {
        let row = self.content_of_photo(hash)?;
        if row.caption.is_none() {
            self.state.counts.captioned += self.holders(hash)?.len() as u64;
            self.store.delete(row.uncaptioned_key());
        }
        let caption = Some(caption.to_owned());
        self.put(content_key(hash), &ContentRow { caption, first_slot: None, ..row })
    }

    /// Gives a path a row in the place of what it had, which is returned. The content of a
    /// photo must be there. A content that loses its last photo is forgotten.
    pub(crate) fn set_path(&mut self, path: &Path, row: &PathRow) -> StoreResult<()> {
        // The new holder comes first, so that a content that stays is not forgotten in between.
        let before = self.path(path)?;
        match &row.entry {
            PathEntry::Photo { doc, hash, .. } => {
                let captioned = self.content_of_photo(hash)?.caption.is_some();
                self.store.put(holder_key(hash, *doc), Vec::new());
                self.state.counts.photos += 1;
                self.state.counts.captioned += u64::from(captioned);
            }
            PathEntry::Failed { .. } => self.state.counts.failed += 1,
        }
        if let Some(before) = before {
            self.forget(&before.entry, row.entry.doc())?;
        }
        if let Some(doc) = row.entry.doc() {
            self.store.put(numbered_key(key::DOC, doc.0), path.as_os_str().as_bytes().to_vec());
        }
        self.put(path_key(key::PATH, path), row)
    }

    /// Removes a path; tells whether it was there.
    pub(crate) fn remove_path(&mut self, path: &Path) -> StoreResult<bool> {
        let Some(row) = self.path(path)? else { return Ok(false) };
        self.forget(&row.entry, None)?;
        self.store.delete(path_key(key::PATH, path));
        Ok(true)
    }

    /// Moves what a path holds to another path, in the place of what that one had.
    pub(crate) fn rename(&mut self, from: &Path, to: &Path, row: &PathRow) -> StoreResult<()> {
        self.set_path(to, row)?;
        // `from` and `to` share the DocId now: only the path and its count go.
        self.store.delete(path_key(key::PATH, from));
        match &row.entry {
            PathEntry::Photo { hash, .. } => {
                let captioned = self.content_of_photo(hash)?.caption.is_some();
                self.state.counts.photos -= 1;
                self.state.counts.captioned -= u64::from(captioned);
            }
            PathEntry::Failed { .. } => self.state.counts.failed -= 1,
        }
        Ok(())
    }

    /// Takes an entry out of the counts, and out of the indexes unless its photo is `kept`.
    fn forget(&mut self, entry: &PathEntry, kept: Option<DocId>) -> StoreResult<()> {
        let PathEntry::Photo { doc, hash, .. } = entry else {
            self.state.counts.failed -= 1;
            return Ok(());
        };
        let content = self.content_of_photo(hash)?;
        self.state.counts.photos -= 1;
        self.state.counts.captioned -= u64::from(content.caption.is_some());
        if kept == Some(*doc) {
            return Ok(());
        }
        self.store.delete(numbered_key(key::DOC, doc.0));
        self.store.delete(holder_key(hash, *doc));
        if self.store.scan(&holder_prefix(hash)).next().transpose()?.is_none() {
            self.store.delete(content_key(hash));
            self.store.delete(content.uncaptioned_key());
            self.state.contents = self.state.contents.map(|count| count.saturating_sub(1));
        }
        Ok(())
    }

    /// Makes an index without records that of another model. Where that is not committed, it is
    /// done again when the index is opened.
    pub(crate) fn adopt(&mut self, model: &ModelSpec) {
        self.state.model = model.clone();
    }

    /// The paths whose text the last commit changed.
    pub(crate) fn changed_by_last_commit(&self) -> StoreResult<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in self.store.scan(&[key::CHANGED]) {
            let (key, value) = entry?;
            if self.state.format < JOINED_CHANGES {
                paths.push(path_of(key));
                continue;
            }
            // The text can be written without it.
            let what = "a list of paths is cut off";
            let lost = || StoreError::rewritable(self.store.path(), what);
            paths.extend(split(&value).ok_or_else(lost)?);
        }
        Ok(paths)
    }

    /// Makes everything staged durable, all or nothing, as the next generation. `changed` are
    /// the paths whose text it changes.
    pub(crate) fn apply<'a>(
        &mut self,
        changed: impl Iterator<Item = &'a PathBuf>,
    ) -> StoreResult<()> {
        let before: StoreResult<Vec<Vec<u8>>> =
            self.store.scan(&[key::CHANGED]).map(|entry| Ok(entry?.0)).collect();
        for key in before? {
            self.store.delete(key);
        }
        for (key, paths) in joined(changed) {
            self.store.put(key, paths);
        }
        if self.state.contents.is_none() {
            let count = self.contents().try_fold(0, |count, it| it.map(|_| count + 1))?;
            self.state.contents = Some(count);
        }
        self.state.generation += 1;
        self.state.format = FORMAT;
        WRITTEN_BY.clone_into(&mut self.state.written_by);
        self.put(vec![key::STATE], &self.state.clone())?;
        self.store.apply()
    }

    fn row<T: DeserializeOwned>(&self, key: &[u8]) -> StoreResult<Option<T>> {
        self.store.get(key)?.map(|bytes| decode(&self.store, &bytes)).transpose()
    }

    fn put(&mut self, key: Vec<u8>, row: &impl Serialize) -> StoreResult<()> {
        let json = serde_json::to_vec(row)
            .map_err(|error| StoreError::io(self.store.path())(error.into()))?;
        self.store.put(key, json);
        Ok(())
    }

    fn hash(&self, bytes: &[u8]) -> StoreResult<ContentHash> {
        let bytes = bytes
            .try_into()
            .map_err(|_| StoreError::lost(self.store.path(), "a content hash has not 32 bytes"))?;
        Ok(ContentHash(bytes))
    }

    fn number(&self, bytes: &[u8]) -> StoreResult<u64> {
        let bytes = bytes.try_into();
        let bytes = bytes.map_err(|_| StoreError::lost(self.store.path(), "a key is too short"))?;
        Ok(u64::from_be_bytes(bytes))
    }
}

/// The state of the catalogue of the index in `dir`; none before the first commit.
fn read_state(dir: &Path, store: &Store) -> Result<Option<State>, OpenError> {
    let Some(bytes) = store.get(&[key::STATE])? else { return Ok(None) };
    let Envelope { format, written_by } = decode(store, &bytes)?;
    if format > FORMAT {
        return Err(OpenError::NewerFormat {
            dir: dir.to_owned(),
            writer: written_by,
            found: format,
            newest: FORMAT,
        });
    }
    Ok(Some(decode(store, &bytes)?))
}

fn decode<T: DeserializeOwned>(store: &Store, bytes: &[u8]) -> StoreResult<T> {
    serde_json::from_slice(bytes).map_err(|error| StoreError::lost(store.path(), error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::{features, photo, spec};
    use crate::error::Cure;
    use crate::{IndexWriter, check};

    #[test]
    fn a_catalogue_of_a_newer_format_is_refused_with_both_names() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = IndexWriter::open(dir.path(), &spec()).unwrap();
        writer.add(photo("/a", 1), features(1)).unwrap();
        writer.commit().unwrap();
        drop(writer);
        let mut catalog = Catalog::open_existing(dir.path()).unwrap().unwrap();
        assert_eq!(catalog.state().written_by, WRITTEN_BY);
        // As a later version would leave it: of what it says more, this one knows nothing.
        let later = br#"{"format":9,"written_by":"tinyfind-index 4.0","generation":"a1"}"#;
        catalog.store.put(vec![key::STATE], later.to_vec());
        catalog.store.apply().unwrap();
        drop(catalog);
        let errors = [
            IndexWriter::open(dir.path(), &spec()).unwrap_err(),
            IndexWriter::restore(dir.path()).unwrap_err(),
            check(dir.path()).unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(error, OpenError::NewerFormat { found: 9, .. }), "{error:?}");
            let text = error.to_string();
            assert!(text.contains("tinyfind-index 4.0") && text.contains(WRITTEN_BY), "{text}");
        }
    }

    #[test]
    fn changes_are_known_also_as_an_earlier_version_wrote_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = IndexWriter::open(dir.path(), &spec()).unwrap();
        for number in 1..=3 {
            writer.add(photo(format!("/{number}"), number), features(number)).unwrap();
        }
        writer.commit().unwrap();
        drop(writer);
        let paths: Vec<PathBuf> = ["/1", "/2", "/3"].into_iter().map(PathBuf::from).collect();
        let mut catalog = Catalog::open_existing(dir.path()).unwrap().unwrap();
        assert_eq!(catalog.changed_by_last_commit().unwrap(), paths);

        let (row, value) = joined(paths.iter()).next().unwrap();
        catalog.store.put(row.clone(), value[..value.len() - 1].to_vec());
        let error = catalog.changed_by_last_commit().unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { cure: Cure::Rewrite, .. }), "{error:?}");

        catalog.store.delete(row);
        for path in &paths {
            catalog.store.put(path_key(key::CHANGED, path), Vec::new());
        }
        catalog.state.format = 2;
        catalog.put(vec![key::STATE], &catalog.state.clone()).unwrap();
        catalog.store.apply().unwrap();
        drop(catalog);
        let mut catalog = Catalog::open_existing(dir.path()).unwrap().unwrap();
        assert_eq!(catalog.changed_by_last_commit().unwrap(), paths);
        catalog.apply(paths[..1].iter()).unwrap();
        assert_eq!(catalog.changed_by_last_commit().unwrap(), paths[..1]);
        assert_eq!(catalog.store.scan(&[key::CHANGED]).count(), 1);
        assert_eq!(catalog.state().format, FORMAT);
    }

    #[test]
    fn contents_are_counted_also_in_what_an_earlier_version_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = IndexWriter::open(dir.path(), &spec()).unwrap();
        for content in 0..SLOTS_PER_SEGMENT {
            writer.add(photo(format!("/{content}"), content), features(content)).unwrap();
            writer.add(photo(format!("/copy {content}"), content), features(content)).unwrap();
        }
        writer.commit().unwrap();
        // Contents 1 and 2 go with their copies, of content 3 one photo stays.
        for path in ["/1", "/copy 1", "/2", "/copy 2", "/3"] {
            writer.remove(Path::new(path)).unwrap();
        }
        writer.commit().unwrap();
        drop(writer);
        let living = SLOTS_PER_SEGMENT - 2;
        let mut catalog = Catalog::open_existing(dir.path()).unwrap().unwrap();
        assert_eq!(catalog.state().contents, Some(living));
        catalog.state.contents = None;
        catalog.put(vec![key::STATE], &catalog.state.clone()).unwrap();
        catalog.store.apply().unwrap();
        drop(catalog);
        let mut writer = IndexWriter::open(dir.path(), &spec()).unwrap();
        // A walk tells that two in sixteen are gaps.
        assert_eq!(writer.compact(0.2, |_| true).unwrap().found, 0);
        // The next commit counts, what it adds included.
        writer.add(photo("/new", 900), features(900)).unwrap();
        writer.commit().unwrap();
        drop(writer);
        let catalog = Catalog::open_existing(dir.path()).unwrap().unwrap();
        assert_eq!(catalog.state().contents, Some(living + 1));
        drop(catalog);
        assert_eq!(check(dir.path()).unwrap().problems, [""; 0]);
        let mut writer = IndexWriter::open(dir.path(), &spec()).unwrap();
        assert_eq!(writer.compact(0.1, |_| true).unwrap().found, 1);
    }
}
