//! Where things lie: the index, the models, and what the last search found.
//!
//! The folders are those of the XDG base directory specification, on every system.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use etcetera::BaseStrategy as _;

use super::globals::Globals;

/// Folder of the index: `--index`, else `$XDG_DATA_HOME/tinyfind/index`; absolute.
pub(crate) fn index(globals: &Globals) -> anyhow::Result<PathBuf> {
    match &globals.index {
        Some(folder) => absolute(folder),
        None => Ok(data()?.join("index")),
    }
}

/// Where the last search is kept, for `ask 2`: `$XDG_STATE_HOME/tinyfind/last-search.json`.
pub(crate) fn last_search() -> anyhow::Result<PathBuf> {
    let base = xdg()?;
    let state = base.state_dir().unwrap_or_else(|| base.data_dir());
    Ok(state.join("tinyfind").join("last-search.json"))
}

fn data() -> anyhow::Result<PathBuf> {
    Ok(xdg()?.data_dir().join("tinyfind"))
}

fn xdg() -> anyhow::Result<etcetera::base_strategy::Xdg> {
    etcetera::base_strategy::Xdg::new()
        .context("cannot tell the home folder: `HOME` is not set; give `--index` and `--model`")
}

/// `path` from the root on, without looking at the disk.
pub(crate) fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("`{}` is no path", path.display()))
}

/// `path` as the crawl names it: from the root on, links of its folder resolved, so that one
/// photo has one name however a person came to its folder. The last part stays as it is.
pub(crate) fn as_crawled(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
        _ => path.canonicalize(),
    }
}
