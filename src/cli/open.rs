//! Opens the index and the model that a command works with, and says what to do where it cannot.

use std::path::PathBuf;

use tinyfind_index::{IndexReader, ModelSpec, OpenError};

use super::folders;
use super::globals::Globals;
use super::report::{WithHint as _, hinted};
use crate::model::bundle::Bundle;
use crate::model::{TinyGptV, registry};
use crate::search::FindError;
use crate::vlm::Vlm;

/// Opens the index for reading.
pub(crate) fn open_index(globals: &Globals) -> anyhow::Result<IndexReader> {
    let folder = folders::index(globals)?;
    IndexReader::open(&folder).map_err(explain_open)
}

/// `error` with the next step.
pub(crate) fn explain_open(error: OpenError) -> anyhow::Error {
    let hint = match &error {
        OpenError::Missing { .. } => {
            "index your photos first: `tinyfind index FOLDER` (`--index DIR` names another index)"
        }
        OpenError::Locked { .. } => {
            "wait until it is done; `tinyfind search` and `tinyfind status` work meanwhile"
        }
        OpenError::OtherModel { .. } => {
            "name the model that made the index with `--model`, or keep another index with \
             `--index DIR`"
        }
        OpenError::NewerFormat { .. } => "update tinyfind",
        _ => return error.into(),
    };
    hinted(error, hint)
}

/// `error` with the next step.
pub(crate) fn explain_find(error: FindError) -> anyhow::Error {
    match error {
        FindError::OtherModel { .. } => hinted(
            error,
            "name the model that made the index with `--model`, or index the photos with this \
             one into another folder: `tinyfind --index DIR index FOLDER`",
        ),
        _ => error.into(),
    }
}

/// The bundle file that a command means: `--model`, else the installed one that made the index
/// (`made_by`), else the preferred one of those installed.
pub(crate) fn find_model(
    globals: &Globals,
    made_by: Option<&ModelSpec>,
) -> anyhow::Result<PathBuf> {
    if let (None, Some(spec)) = (&globals.model, made_by) {
        for model in registry::installed()? {
            let bundle = Bundle::open(&model.path);
            if bundle.is_ok_and(|bundle| bundle.fingerprint() == spec.fingerprint) {
                return Ok(model.path);
            }
        }
    }
    Ok(registry::resolve(globals.model.as_deref())?)
}

/// Opens the model that a command means, see [`find_model`]. Nothing but its header is read
/// until a part of it is used.
pub(crate) fn open_model(
    globals: &Globals,
    made_by: Option<&ModelSpec>,
) -> anyhow::Result<Box<dyn Vlm>> {
    Ok(Box::new(open_bundle(globals, made_by)?))
}

/// As [`open_model`], for those who want to know which parts the model has.
pub(crate) fn open_bundle(
    globals: &Globals,
    made_by: Option<&ModelSpec>,
) -> anyhow::Result<TinyGptV> {
    let path = find_model(globals, made_by)?;
    tracing::info!(path = %path.display(), "opening the model");
    let device = globals
        .device
        .open()
        .hint(|| "`--device cpu` always works, `--device auto` takes what there is")?;
    TinyGptV::open(&path, &device).hint(|| {
        format!("`tinyfind model verify {}` tells what is wrong with the file", path.display())
    })
}
