//! Opening an index for writing: whatever a killed writer left is finished or undone.
//!
//! The catalogue decides. What the segments have beyond it is cut off, what the text lacks of
//! its last commit is written again, and a manifest or text index that is missing, damaged or
//! further behind is written anew. See `DESIGN.md` for why nothing else can happen.

use std::fs;
use std::path::{Path, PathBuf};

use crate::catalog::{Catalog, PathEntry, PathRow, State};
use crate::document::{Counts, ModelSpec};
use crate::error::{Cure, OpenError, StoreError, StoreResult};
use crate::files;
use crate::manifest::{FORMAT, Manifest, WRITTEN_BY};
use crate::segments::{Gone, SegmentWriter};
use crate::steps::{self, Step};
use crate::text::{self, PhotoText, Snapshot, TextWriter};

/// The parts of an index, at the same generation.
pub(crate) struct Recovered {
    pub(crate) spec: ModelSpec,
    /// As it stood on disk, if it was whole.
    pub(crate) manifest: Option<Manifest>,
    pub(crate) catalog: Catalog,
    pub(crate) segments: SegmentWriter,
    pub(crate) text: TextWriter,
    pub(crate) text_epoch: u64,
}

/// Opens the index in `dir`, whose lock is held; makes an empty one where there is none.
///
/// Without a `spec` the index has to be there and to name its model. One that never held a photo
/// becomes that of `spec`.
pub(crate) fn recover(
    dir: &Path,
    spec: Option<&ModelSpec>,
    rebuild: bool,
) -> Result<Recovered, OpenError> {
    let manifest = match Manifest::read(dir) {
        Ok(manifest) => Some(manifest),
        // The catalogue knows all that a manifest says.
        Err(OpenError::Missing { .. }) => None,
        Err(OpenError::Corrupt { what, .. }) => {
            tracing::warn!("the manifest of `{}` is written anew: {what}", dir.display());
            None
        }
        Err(error) => return Err(error),
    };
    let named = manifest.as_ref().map(|manifest| manifest.model.clone());
    let spec = match spec.cloned().or_else(|| named.clone()) {
        Some(spec) => spec,
        None => model_of_catalog(dir)?,
    };
    let fresh = State {
        format: FORMAT,
        written_by: WRITTEN_BY.to_owned(),
        model: spec.clone(),
        generation: 0,
        next_doc: 0,
        next_slot: 0,
        counts: Counts::default(),
        contents: Some(0),
        gone: Gone::default(),
    };
    let mut catalog = Catalog::open(dir, fresh)?;
    // While no record was ever committed, nothing depends on the model. A text of one folder is of
    // one model all the same: a reader may have read the manifest before, and the text after.
    let mut adopts = false;
    if catalog.state().next_slot == 0 {
        let before = named.as_ref().unwrap_or(&catalog.state().model);
        adopts = !before.is_compatible(&spec);
        catalog.adopt(&spec);
    } else {
        check_model(dir, &catalog.state().model, &spec)?;
        if let Some(named) = &named {
            check_model(dir, named, &spec)?;
        }
    }
    let generation = catalog.state().generation;
    let published = manifest.as_ref().map_or(0, |manifest| manifest.generation);
    if generation < published {
        let what = format!("it ends at commit {generation}, the manifest names {published}");
        return Err(StoreError::lost(&Catalog::folder(dir), what).into());
    }
    let State { next_slot, gone, .. } = catalog.state();
    let segments = SegmentWriter::open(dir, &spec, *next_slot, gone)?;

    let epoch = match &manifest {
        Some(manifest) => manifest.text_epoch,
        None => newest_epoch(dir)?,
    };
    let recovered = if rebuild || adopts { None } else { recover_text(dir, epoch, &catalog)? };
    let (text, text_epoch) = match recovered {
        Some(text) => (text, epoch),
        None => (rebuild_text(dir, epoch + 1, &catalog)?, epoch + 1),
    };
    Ok(Recovered { spec, manifest, catalog, segments, text, text_epoch })
}

/// The model that the catalogue names, for want of a manifest.
fn model_of_catalog(dir: &Path) -> Result<ModelSpec, OpenError> {
    let catalog = Catalog::open_existing(dir)?;
    let lost = || StoreError::lost(&Catalog::folder(dir), "it names no model");
    Ok(catalog.ok_or_else(lost)?.state().model.clone())
}

/// Refuses an index of another model.
fn check_model(dir: &Path, found: &ModelSpec, expected: &ModelSpec) -> Result<(), OpenError> {
    if found.is_compatible(expected) {
        return Ok(());
    }
    let (found, expected) = (Box::new(found.clone()), Box::new(expected.clone()));
    Err(OpenError::OtherModel { dir: dir.to_owned(), found, expected })
}

/// The newest text index there is, for an index whose manifest is lost; 0 without any.
fn newest_epoch(dir: &Path) -> StoreResult<u64> {
    let parent = dir.join("text");
    if !parent.is_dir() {
        return Ok(0);
    }
    Ok(files::numbered_entries(&parent)?.last().map_or(0, |(epoch, _)| *epoch))
}

/// The text index of the catalogue's generation: as it is, or with the commit that it lacks.
/// None if it has to be written anew.
fn recover_text(dir: &Path, epoch: u64, catalog: &Catalog) -> StoreResult<Option<TextWriter>> {
    let folder = text::folder(dir, epoch);
    let generation = catalog.state().generation;
    let recovered = TextWriter::open(&folder).and_then(|(mut text, snapshot)| {
        let found = snapshot.generation;
        if found + 1 == generation {
            let changed = catalog.changed_by_last_commit()?;
            write_text(&mut text, catalog, changed.iter())?;
        } else if found != generation {
            let what = format!("it is at commit {found}, the catalogue at {generation}");
            return Err(StoreError::rewritable(&folder, what));
        }
        Ok(text)
    });
    match recovered {
        Ok(text) => Ok(Some(text)),
        Err(StoreError::Corrupt { path, what, cure: Cure::Rewrite }) => {
            if generation > 0 {
                tracing::warn!("the text index is written anew: `{}`: {what}", path.display());
            }
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// A text index of everything in the catalogue.
fn rebuild_text(dir: &Path, epoch: u64, catalog: &Catalog) -> StoreResult<TextWriter> {
    files::make_folder(&dir.join("text"))?;
    let mut text = TextWriter::create(&text::folder(dir, epoch))?;
    for entry in catalog.paths() {
        let (path, row) = entry?;
        add_text(&mut text, catalog, &path, &row)?;
    }
    text.commit(&snapshot(catalog))?;
    Ok(text)
}

/// Brings the text of `changed` to what the catalogue says, as its generation.
pub(crate) fn write_text<'a>(
    text: &mut TextWriter,
    catalog: &Catalog,
    changed: impl Iterator<Item = &'a PathBuf>,
) -> StoreResult<()> {
    for path in changed {
        text.remove(path)?;
        stage_path(text, catalog, path)?;
    }
    text.commit(&snapshot(catalog))
}

/// Prepares the text of `changed` as the catalogue, of which nothing is committed yet, has it;
/// nobody sees it before a commit.
pub(crate) fn stage_text<'a>(
    text: &mut TextWriter,
    catalog: &Catalog,
    changed: impl Iterator<Item = &'a PathBuf>,
) -> StoreResult<()> {
    for path in changed {
        // The text holds what the catalogue held before. To look in vain for what is to be removed
        // takes the longer the more segments there are, and most paths are new.
        if catalog.held(path)? {
            text.remove(path)?;
        }
        stage_path(text, catalog, path)?;
    }
    Ok(())
}

fn stage_path(text: &mut TextWriter, catalog: &Catalog, path: &Path) -> StoreResult<()> {
    match catalog.path(path)? {
        Some(row) => add_text(text, catalog, path, &row),
        None => Ok(()),
    }
}

fn add_text(
    text: &mut TextWriter,
    catalog: &Catalog,
    path: &Path,
    row: &PathRow,
) -> StoreResult<()> {
    match &row.entry {
        PathEntry::Photo { doc, hash, metadata } => {
            let content = catalog.content_of_photo(hash)?;
            let caption = content.caption.as_deref();
            let (doc, slot, hash) = (doc.0, content.slot, *hash);
            text.add_photo(path, &PhotoText { doc, slot, hash, metadata, caption })
        }
        PathEntry::Failed { reason } => text.add_failure(path, reason),
    }
}

/// What the text says of the catalogue's generation.
pub(crate) fn snapshot(catalog: &Catalog) -> Snapshot {
    let State { generation, next_slot, next_doc, counts, gone, .. } = catalog.state().clone();
    Snapshot { generation, slots: next_slot, next_doc, counts, gone }
}

/// Removes the text indexes that the one of `epoch` took the place of. Readers that have one
/// open keep it; one that is about to open it reads the manifest again.
pub(crate) fn drop_other_epochs(dir: &Path, epoch: u64) -> StoreResult<()> {
    for (other, path) in files::numbered_entries(&dir.join("text"))? {
        if other != epoch {
            // Whatever bears a number here would take the place of a text index to come.
            let remove =
                || if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            steps::take(Step::Remove, &path, remove).map_err(StoreError::io(&path))?;
        }
    }
    Ok(())
}
