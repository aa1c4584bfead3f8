//! What the last search found, so that `ask 2` knows what 2 is.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tinyfind_index::{ContentHash, DocId};

use super::hits::JsonPath;
use super::report::hinted;
use super::{folders, units};
use crate::search::Hit;

/// A search and its hits.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LastSearch {
    /// Folder of the index that was searched.
    index: JsonPath,
    /// What was looked for.
    pub(crate) query: String,
    /// What was found, best first.
    hits: Vec<LastHit>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct LastHit {
    rank: usize,
    doc: DocId,
    hash: ContentHash,
    #[serde(flatten)]
    path: JsonPath,
}

/// A hit of the last search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remembered {
    /// Its place in that search.
    pub(crate) rank: usize,
    /// Its number in the index that was searched.
    pub(crate) doc: DocId,
    /// Its content then.
    pub(crate) hash: ContentHash,
    /// Where it lay.
    pub(crate) path: PathBuf,
}

impl LastSearch {
    /// Of the search for `query` in the index `index`.
    pub(crate) fn new(index: &Path, query: String, hits: &[Hit]) -> Self {
        let keep = |hit: &Hit| LastHit {
            rank: hit.rank,
            doc: hit.doc,
            hash: hit.hash,
            path: hit.path.as_path().into(),
        };
        Self { index: index.into(), query, hits: hits.iter().map(keep).collect() }
    }

    /// Keeps it for the next command, in place of what was kept.
    pub(crate) fn save(&self) -> anyhow::Result<()> {
        let path = folders::last_search()?;
        let cannot = || format!("cannot write `{}`", path.display());
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(cannot)?;
        }
        // Replaced whole: a search in another terminal never reads half a file.
        let new = path.with_extension(format!("json.{}", std::process::id()));
        std::fs::write(&new, serde_json::to_vec(self)?).with_context(cannot)?;
        std::fs::rename(&new, &path).with_context(cannot)
    }

    /// The last one that was kept.
    pub(crate) fn load() -> anyhow::Result<Self> {
        let path = folders::last_search()?;
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(hinted(
                    anyhow::anyhow!("there was no search yet"),
                    "search first (`tinyfind search umbrella`), or name a photo by its path",
                ));
            }
            Err(error) => {
                let cannot = format!("cannot read `{}`", path.display());
                return Err(anyhow::Error::from(error).context(cannot));
            }
        };
        serde_json::from_slice(&bytes)
            .with_context(|| format!("`{}` is not what a search wrote", path.display()))
            .map_err(|error| hinted(error, "search again: that writes it anew"))
    }

    /// Folder of the index that was searched.
    pub(crate) fn index(&self) -> PathBuf {
        self.index.clone().into()
    }

    /// The best `top` hits.
    pub(crate) fn best(&self, top: usize) -> anyhow::Result<Vec<Remembered>> {
        if self.hits.is_empty() {
            return Err(hinted(
                anyhow::anyhow!("the last search, for `{}`, found nothing", self.query),
                "search for something else first, or name a photo by its path",
            ));
        }
        Ok(self.hits.iter().take(top).map(Remembered::from).collect())
    }

    /// The hit of that rank.
    pub(crate) fn hit(&self, rank: usize) -> anyhow::Result<Remembered> {
        let hits = self.best(usize::MAX)?;
        let last = hits.len();
        hits.into_iter().find(|hit| hit.rank == rank).ok_or_else(|| {
            hinted(
                anyhow::anyhow!("the last search, for `{}`, has no hit {rank}", self.query),
                format!(
                    "it found {}; search again with a greater `--top` for more, and write \
                     `./{rank}` for a file of that name",
                    units::counted(last as u64, "photo", "photos")
                ),
            )
        })
    }
}

impl From<&LastHit> for Remembered {
    fn from(hit: &LastHit) -> Self {
        Self { rank: hit.rank, doc: hit.doc, hash: hit.hash, path: hit.path.clone().into() }
    }
}
