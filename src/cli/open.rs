//! Which model a command means.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Paths of the bundles (`*.gguf`) in `folder`, by name; none where the folder is missing.
pub(crate) fn bundles_in(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let cannot = || format!("cannot list the models in `{}`", folder.display());
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(cannot)?,
    };
    let mut bundles = Vec::new();
    for entry in entries {
        let path = entry.with_context(cannot)?.path();
        if path.extension().is_some_and(|extension| extension == "gguf") {
            bundles.push(path);
        }
    }
    bundles.sort();
    Ok(bundles)
}
