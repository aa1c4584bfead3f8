//! Downloads of published weights, by the rules of the Hugging Face hub.
//!
//! A [`Recipe`] lists the files of a model, a [`Downloader`] brings them here. Files of the hub
//! lie in the cache that its other tools use, in the same layout, so what they fetched is found
//! and what we fetch serves them; the files of LAVIS's bucket lie in `tinyfind/downloads` in the
//! user's cache folder. [`Settings`] says which variables move them.
//!
//! What holds for every file:
//!
//! - The hosts are asked about all files before the first byte moves, so a missing file or a
//!   closed door is known at once and the total is known.
//! - All files of a repository come from one commit.
//! - Bytes gather in an `.incomplete` file. A broken transfer goes on from there, in the same run
//!   or a later one; a host that cannot go on sends the file from its beginning.
//! - A file gets its name only when its size and its hash are right: what the host promises and
//!   what is pinned in [`manifest`]. Wrong bytes are thrown away and fetched again by the next run.
//! - The token goes to the hub's own host, scheme and port, never along a redirect to another.
//! - Offline, nothing is asked; and where a host does not answer, what is here is used.
//!
//! Source: the hub's own documentation of its cache and its variables,
//! <https://huggingface.co/docs/huggingface_hub>.

mod cache;
mod digest;
mod error;
mod http;
pub mod manifest;
mod plan;
mod settings;
mod transfer;

use std::path::PathBuf;

pub use digest::Algorithm;
pub use error::{Bytes, HubError};
pub use manifest::{Origin, PUBLISHED, Recipe, RemoteFile, RepoKind, RetrievalFrom, Role, Size};
pub use settings::{Retry, Settings, Token};

use http::Client;
use plan::{Plan, Planner};

/// What a pull is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step<'a> {
    /// A host is asked about this file.
    Asking(&'a str),
    /// Every file is known now.
    Begin {
        /// Bytes of all files together.
        total_in_bytes: u64,
        /// Bytes of them that are here already.
        here_in_bytes: u64,
    },
    /// This file comes now.
    File(&'a str),
    /// Bytes that are here now, of the total. The number falls where a file starts again.
    Arrived(u64),
    /// Something that a person may want to know.
    Note(&'a str),
}

/// Told of every step of a pull.
pub type Progress<'a> = dyn FnMut(Step<'_>) + 'a;

/// A file of a recipe, on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalFile {
    /// What it is for.
    pub role: Role,
    /// Its path where it is published.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub size_in_bytes: u64,
    /// Whether this pull brought it; it was here before otherwise.
    pub fetched: bool,
    /// What has to go if it is removed; empty unless this pull brought it.
    occupies: Vec<PathBuf>,
}

/// The files of a recipe, on this machine, in the recipe's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalFiles {
    /// The files.
    pub files: Vec<LocalFile>,
}

impl LocalFiles {
    /// Where the files of a role are: the file, or, for Phi-2 and for a role of several files,
    /// the folder that holds them; `None` if the recipe has none.
    pub fn input(&self, role: Role) -> Option<PathBuf> {
        let mut of_role = self.files.iter().filter(|file| file.role == role);
        let first = of_role.next()?;
        if role == Role::Phi || of_role.next().is_some() {
            first.path.parent().map(PathBuf::from)
        } else {
            Some(first.path.clone())
        }
    }

    /// Bytes of all files.
    pub fn size_in_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_in_bytes).sum()
    }

    /// Bytes that this pull brought.
    pub fn fetched_in_bytes(&self) -> u64 {
        let fetched = self.files.iter().filter(|file| file.fetched);
        fetched.map(|file| file.size_in_bytes).sum()
    }

    /// Removes the files that this pull brought, and leaves those that were here before.
    ///
    /// # Errors
    ///
    /// When one of them cannot be removed.
    pub fn remove_fetched(&self) -> Result<(), HubError> {
        for path in self.files.iter().flat_map(|file| &file.occupies) {
            match std::fs::remove_file(path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(HubError::Io { path: path.clone(), source });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Brings published files here.
pub struct Downloader {
    settings: Settings,
    client: Client,
}

impl Downloader {
    /// With these hosts, folders and manners.
    pub fn new(settings: Settings) -> Self {
        let client = Client::new(&settings);
        Self { settings, client }
    }

    /// The settings in use.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Brings every file of `recipe` here, those that are here already excepted.
    ///
    /// Blocks until all is here; may be stopped at any time and called again.
    ///
    /// # Errors
    ///
    /// When a file cannot be had or is not the published one. What has arrived of it, and the
    /// files before it, stay.
    pub fn pull(
        &self,
        recipe: &Recipe,
        progress: &mut Progress<'_>,
    ) -> Result<LocalFiles, HubError> {
        recipe.check()?;
        let mut planner = Planner::new(&self.client, &self.settings);
        let mut plans = Vec::with_capacity(recipe.files.len());
        for file in &recipe.files {
            plans.push(planner.plan(file, progress)?);
        }
        // What of each file is here: another program may add to it meanwhile.
        let sizes = plans.iter().map(|plan| match plan {
            Plan::Here(local) => (local.size_in_bytes, local.size_in_bytes),
            Plan::Fetch(pending) => (pending.transfer().size, pending.transfer().arrived()),
        });
        let sizes: Vec<(u64, u64)> = sizes.collect();
        let total_in_bytes = sizes.iter().map(|(size, _)| size).sum();
        let here_in_bytes = sizes.iter().map(|(_, here)| here).sum();
        progress(Step::Begin { total_in_bytes, here_in_bytes });

        // Bytes of all files but the one that is coming.
        let mut others: u64 = here_in_bytes;
        let mut files = Vec::with_capacity(plans.len());
        for (plan, (size, here)) in plans.into_iter().zip(sizes) {
            let pending = match plan {
                Plan::Here(local) => {
                    files.push(local);
                    continue;
                }
                Plan::Fetch(pending) => pending,
            };
            others -= here;
            let transfer = pending.transfer();
            progress(Step::File(transfer.name));
            let mut of_file = |step: Step<'_>| match step {
                Step::Arrived(bytes) => progress(Step::Arrived(others + bytes)),
                other => progress(other),
            };
            transfer.run(&self.client, &self.settings.retry, &mut of_file)?;
            others += size;
            files.push(pending.finish()?);
        }
        Ok(LocalFiles { files })
    }
}
