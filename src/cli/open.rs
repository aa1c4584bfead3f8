//! Opens the index and the model that a command works with, and says what to do where it cannot.

use std::sync::atomic::{AtomicBool, Ordering};

use tinyfind_index::{IndexReader, ModelSpec, OpenError};

use super::folders;
use super::globals::Globals;
use super::printer::Printer;
use super::report::{WithHint as _, hinted};
use crate::model::TinyGptV;
use crate::model::registry::{self, Location};
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

/// Where the model is that a command means: `--model`, else the installed or built-in one that
/// made the index (`made_by`), else the preferred one of those installed, else the built-in one.
pub(crate) fn find_model(
    globals: &Globals,
    made_by: Option<&ModelSpec>,
) -> anyhow::Result<Location> {
    if let (None, Some(spec)) = (&globals.model, made_by) {
        let installed = registry::installed()?.into_iter().map(|model| Location::File(model.path));
        for place in installed.chain([Location::BuiltIn]) {
            if place.open().is_ok_and(|bundle| bundle.fingerprint() == spec.fingerprint) {
                return Ok(place);
            }
        }
    }
    Ok(registry::resolve(globals.model.as_deref())?)
}

/// Opens the model that a command means, see [`find_model`], and says so where that is the
/// built-in one. Nothing but its header is read until a part of it is used.
pub(crate) fn open_model(
    globals: &Globals,
    made_by: Option<&ModelSpec>,
    printer: &mut Printer,
) -> anyhow::Result<Box<dyn Vlm>> {
    Ok(Box::new(open_bundle(globals, made_by, printer)?))
}

/// As [`open_model`], for those who want to know which parts the model has.
pub(crate) fn open_bundle(
    globals: &Globals,
    made_by: Option<&ModelSpec>,
    printer: &mut Printer,
) -> anyhow::Result<TinyGptV> {
    let place = find_model(globals, made_by)?;
    if place == Location::BuiltIn {
        tell_built_in(made_by, printer);
    }
    tracing::info!(model = %place, "opening the model");
    let device = globals
        .device
        .open()
        .hint(|| "`--device cpu` always works, `--device auto` takes what there is")?;
    let bundle = place
        .open()
        .hint(|| format!("`tinyfind model verify {place}` tells what is wrong with the file"))?;
    Ok(TinyGptV::of(bundle, &device))
}

/// Says what the built-in model is good for, and how to get another; once in a run of the program,
/// which may run several commands.
fn tell_built_in(made_by: Option<&ModelSpec>, printer: &mut Printer) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if TOLD.swap(true, Ordering::Relaxed) {
        return;
    }
    printer.note(&format!(
        "the built-in model `{}` knows drawn scenes only and takes a photo for one",
        registry::BUILT_IN
    ));
    let another_index = registry::installed().is_ok_and(|installed| !installed.is_empty());
    printer.hint(match (another_index, made_by) {
        (true, Some(_)) => {
            "it made this index; `tinyfind --index DIR index FOLDER` makes another one with the \
             model that you have installed"
        }
        (true, None) => "`--model NAME` takes one of those that `tinyfind model list` shows",
        (false, _) => "`tinyfind model pull` gets TinyGPT-V, which knows photos (about 9 GB)",
    });
}
