//! Which published files make a model: where they lie, how long they are, what their hashes
//! begin with.
//!
//! Nothing stands here that was not published. What is unknown is not pinned, and the host's own
//! size and hash are all that such a file is checked against:
//!
//! | file | pinned here | checked besides |
//! |---|---|---|
//! | `eva_vit_g.pth` | published as 2.03 GB | the bucket's size and CRC-32C |
//! | `blip2_pretrained_flant5xxl.pth` | 433,481,467 bytes | the bucket's size and CRC-32C |
//! | `phi-2/pytorch_model.bin` | 5,559,473,539 bytes, SHA-256 `039628734f71…` | the hub's whole SHA-256 |
//! | `phi-2/config.json` | 654 bytes | the hub's git hash |
//! | `phi-2/tokenizer.json` | published as 2.11 MB | the hub's hash |
//! | `TinyGPT-V_for_Stage3.pth` | 543,640,119 bytes, SHA-256 `a7b70bb29a82…` | the hub's whole SHA-256 |
//! | `TinyGPT-V_for_Stage4.pth` | 543,654,414 bytes, SHA-256 `c74973388674…` | the hub's whole SHA-256 |
//! | `blip2_pretrained.pth` | nothing: its size was never published | the bucket's size and CRC-32C |
//! | `blip2-itm-vit-g/model.safetensors` | published as 4.69 GB | the hub's whole SHA-256 |
//! | `bert-base-uncased/vocab.txt` | nothing | the hub's git hash |
//!
//! Only the beginnings of those three hashes are known here; together with the exact sizes they
//! tell a changed or damaged upload, and the rest of the hash comes from the hub.

use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use super::error::HubError;

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// EVA ViT-g.
    Vit,
    /// BLIP-2's Q-Former for captions, with its `ln_vision`.
    Qformer,
    /// Phi-2: weights, config and tokenizer, in one folder.
    Phi,
    /// TinyGPT-V's own checkpoint of a training stage.
    Checkpoint,
    /// BLIP-2's retrieval side: one `.pth` file, or a folder in the hub's layout.
    Retrieval,
    /// BERT's word list.
    RetrievalVocabulary,
}

/// What kind of repository of the hub: it decides its address and its folder in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RepoKind {
    /// Weights.
    Model,
    /// A demonstration program, which may hold weights too.
    Space,
}

/// Where a file is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A repository of the Hugging Face hub.
    Hub {
        /// Its kind.
        kind: RepoKind,
        /// Its name, `owner/name` or, for a few old ones, `name`.
        repo: String,
        /// Branch, tag or commit.
        #[serde(default = "main_branch")]
        revision: String,
    },
    /// The bucket of LAVIS, the authors of BLIP-2.
    Lavis,
}

fn main_branch() -> String {
    "main".to_owned()
}

/// The published size of a file, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Size {
    /// Known to the byte.
    Exact(u64),
    /// Known as a rounded number: both ends are allowed.
    Between {
        /// The least it can be.
        at_least: u64,
        /// The most it can be.
        at_most: u64,
    },
}

impl Size {
    /// Whether a file of `bytes` bytes may be the published one.
    pub fn allows(self, bytes: u64) -> bool {
        match self {
            Self::Exact(size) => bytes == size,
            Self::Between { at_least, at_most } => (at_least..=at_most).contains(&bytes),
        }
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(size) => write!(f, "{size}"),
            Self::Between { at_least, at_most } => write!(f, "{at_least} to {at_most}"),
        }
    }
}

/// A published file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteFile {
    /// What it is for.
    pub role: Role,
    /// Where it is published.
    pub from: Origin,
    /// Its path there, with `/` between folders.
    pub path: String,
    /// Its size, where that was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// Its SHA-256 in hexadecimal digits, or the first of them, where that was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// The files of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the model, and of its bundle.
    pub name: String,
    /// Training stage of the checkpoint, 1 to 4.
    pub stage: u8,
    /// The files.
    pub files: Vec<RemoteFile>,
    /// Sizes of the network that tensor shapes cannot tell; the published ones where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<serde_json::Value>,
}

/// Who provides the retrieval side of a published model. The numbers are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RetrievalFrom {
    /// `blip2_pretrained.pth`, about 0.8 GB, which leaves out the ViT that is downloaded anyway.
    #[default]
    Lavis,
    /// `Salesforce/blip2-itm-vit-g`, 4.69 GB, ViT included.
    Hub,
}

/// Names that [`Recipe::published`] knows, the default first.
pub const PUBLISHED: [&str; 2] = ["tinygpt-v-stage3", "tinygpt-v-stage4"];

impl Recipe {
    /// The published model of that name, one of [`PUBLISHED`].
    pub fn published(name: &str, retrieval: RetrievalFrom) -> Option<Self> {
        // Sizes and hash beginnings as the hub's file lists of both repositories show them.
        let (stage, checkpoint) = match name {
            "tinygpt-v-stage3" => {
                (3, stage_file("TinyGPT-V_for_Stage3.pth", 543_640_119, "a7b70bb29a82"))
            }
            // The file of 2024-01-19. An earlier one of the same name had 1,805,910,138 bytes.
            "tinygpt-v-stage4" => {
                (4, stage_file("TinyGPT-V_for_Stage4.pth", 543_654_414, "c74973388674"))
            }
            _ => return None,
        };
        let mut files = vec![
            lavis(Role::Vit, "eva_vit_g.pth", Some(about(2_025_000_000, 2_035_000_000))),
            // The size as LAVIS's users report it.
            lavis(Role::Qformer, "blip2_pretrained_flant5xxl.pth", Some(Size::Exact(433_481_467))),
            phi("config.json", Some(Size::Exact(654)), None),
            phi("tokenizer.json", Some(about(2_105_000, 2_115_000)), None),
            phi("pytorch_model.bin", Some(Size::Exact(5_559_473_539)), Some("039628734f71")),
            checkpoint,
        ];
        match retrieval {
            RetrievalFrom::Lavis => {
                files.push(lavis(Role::Retrieval, "blip2_pretrained.pth", None));
            }
            RetrievalFrom::Hub => {
                let repo = "Salesforce/blip2-itm-vit-g";
                let size = Some(about(4_685_000_000, 4_695_000_000));
                files.push(hub(Role::Retrieval, RepoKind::Model, repo, "config.json", None));
                files.push(hub(Role::Retrieval, RepoKind::Model, repo, "model.safetensors", size));
            }
        }
        files.push(hub(
            Role::RetrievalVocabulary,
            RepoKind::Model,
            "bert-base-uncased",
            "vocab.txt",
            None,
        ));
        Some(Self { name: name.to_owned(), stage, files, config: None })
    }

    /// Reads a recipe from JSON, the form in which this type is written, and checks it.
    ///
    /// # Errors
    ///
    /// When it is not JSON of that form, or names paths that no cache may hold.
    pub fn from_json(text: &str) -> Result<Self, HubError> {
        let recipe: Self = serde_json::from_str(text)
            .map_err(|error| HubError::Manifest { what: error.to_string() })?;
        recipe.check()?;
        Ok(recipe)
    }

    /// Whether every path stays inside its folder and every role's files lie together.
    pub(super) fn check(&self) -> Result<(), HubError> {
        let wrong = |what: String| Err(HubError::Manifest { what });
        let mut places = std::collections::BTreeMap::new();
        for file in &self.files {
            let path = &file.path;
            if !is_plain_path(path) {
                return wrong(format!("`{path}` is not a path inside a repository"));
            }
            if let Origin::Hub { repo, revision, .. } = &file.from
                && !(is_plain_path(repo) && repo.split('/').count() <= 2 && is_plain_path(revision))
            {
                return wrong(format!("`{repo}` at `{revision}` is not a repository of the hub"));
            }
            let digits = file.sha256.as_deref().unwrap_or("0");
            if !(1..=64).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return wrong(format!("`{digits}` is not the beginning of a SHA-256 (`{path}`)"));
            }
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let place = places.entry(file.role).or_insert((&file.from, folder));
            if *place != (&file.from, folder) {
                return wrong(format!("`{path}` lies apart from the other files of its role"));
            }
        }
        Ok(())
    }
}

/// Whether a path, written with `/`, has only names in it: nothing that could lead elsewhere.
pub(super) fn is_plain_path(path: &str) -> bool {
    let plain = |name: &str| {
        let mut parts = Path::new(name).components();
        !name.contains(['\\', '\0', ':'])
            && matches!(parts.next(), Some(Component::Normal(part)) if part == name)
            && parts.next().is_none()
    };
    path.split('/').all(plain)
}

fn about(at_least: u64, at_most: u64) -> Size {
    Size::Between { at_least, at_most }
}

fn lavis(role: Role, path: &str, size: Option<Size>) -> RemoteFile {
    RemoteFile { role, from: Origin::Lavis, path: path.to_owned(), size, sha256: None }
}

fn hub(role: Role, kind: RepoKind, repo: &str, path: &str, size: Option<Size>) -> RemoteFile {
    let from = Origin::Hub { kind, repo: repo.to_owned(), revision: main_branch() };
    RemoteFile { role, from, path: path.to_owned(), size, sha256: None }
}

fn phi(file: &str, size: Option<Size>, sha256: Option<&str>) -> RemoteFile {
    let path = format!("phi-2/{file}");
    let found = hub(Role::Phi, RepoKind::Space, "llizhx/TinyGPT-V", &path, size);
    RemoteFile { sha256: sha256.map(str::to_owned), ..found }
}

fn stage_file(file: &str, size: u64, sha256: &str) -> RemoteFile {
    let repo = "Tyrannosaurus/TinyGPT-V";
    let found = hub(Role::Checkpoint, RepoKind::Model, repo, file, Some(Size::Exact(size)));
    RemoteFile { sha256: Some(sha256.to_owned()), ..found }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_published_model_passes_its_own_check_and_survives_json() {
        for name in PUBLISHED {
            for retrieval in [RetrievalFrom::Lavis, RetrievalFrom::Hub] {
                let recipe = Recipe::published(name, retrieval).unwrap();
                let text = serde_json::to_string(&recipe).unwrap();
                assert_eq!(Recipe::from_json(&text).unwrap(), recipe);
            }
        }
        assert_eq!(Recipe::published("gpt-5", RetrievalFrom::Lavis), None);
    }

    #[test]
    fn a_recipe_names_every_part_of_a_model() {
        let recipe = Recipe::published(PUBLISHED[0], RetrievalFrom::Lavis).unwrap();
        let mut roles: Vec<_> = recipe.files.iter().map(|file| file.role).collect();
        roles.sort();
        roles.dedup();
        let all = [
            Role::Vit,
            Role::Qformer,
            Role::Phi,
            Role::Checkpoint,
            Role::Retrieval,
            Role::RetrievalVocabulary,
        ];
        assert_eq!(roles, all);
    }

    #[test]
    fn a_rounded_size_allows_what_rounds_to_it() {
        let size = about(2_025_000_000, 2_035_000_000);
        assert!(size.allows(2_025_177_856));
        assert!(!size.allows(1_971_000_000));
        assert!(!Size::Exact(654).allows(655));
    }

    #[test]
    fn a_recipe_from_outside_cannot_lead_out_of_the_cache() {
        let with = |path: &str, repo: &str| {
            let file = format!(
                r#"{{"role": "vit", "path": "{path}",
                    "from": {{"hub": {{"kind": "model", "repo": "{repo}"}}}}}}"#
            );
            Recipe::from_json(&format!(r#"{{"name": "x", "stage": 3, "files": [{file}]}}"#))
        };
        assert!(with("a/b.bin", "me/mine").is_ok());
        for path in ["../b", "a/../b", "/b", "", "a//b", ".", "c:b", "a/."] {
            assert!(with(path, "me/mine").is_err(), "{path}");
        }
        for repo in ["a/b/c", "..", "", "/a"] {
            assert!(with("b", repo).is_err(), "{repo}");
        }
    }

    #[test]
    fn files_of_one_role_must_share_a_folder() {
        let mut recipe = Recipe::published(PUBLISHED[0], RetrievalFrom::Lavis).unwrap();
        recipe.files.push(phi("../elsewhere.json", None, None));
        assert!(recipe.check().is_err());
        recipe.files.pop();
        let mut stray = phi("x.json", None, None);
        "other/x.json".clone_into(&mut stray.path);
        recipe.files.push(stray);
        assert!(recipe.check().unwrap_err().to_string().contains("other/x.json"));
    }
}
