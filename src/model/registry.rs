//! Where installed models lie and what a name means.
//!
//! A model is one bundle file, `NAME.gguf`, in the models folder: `$TINYFIND_MODELS`, or
//! `tinyfind/models` in the user's data folder (`$XDG_DATA_HOME`, by default `~/.local/share`, on every system).
//! Every command finds its model here, and only here, from `--model BUNDLE|NAME` or from none.
//! Where nothing is installed that is [`BUILT_IN`], a small model inside the program.

mod built_in;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;

use super::bundle::{Bundle, BundleError};

/// Extension of a bundle file.
pub const EXTENSION: &str = "gguf";

/// Names that are taken, in this order, where no model is named and several are installed.
pub const PREFERRED: [&str; 2] = ["tinygpt-v-stage3", "tinygpt-v-stage4"];

/// Name of the model inside the program. It knows drawn scenes, see [`crate::train::scenes`], and
/// nothing else.
pub const BUILT_IN: &str = "nano";

/// Where a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// In this bundle file.
    File(PathBuf),
    /// Inside the program.
    BuiltIn,
}

impl Location {
    /// Opens the bundle.
    ///
    /// # Errors
    ///
    /// When it is no sound bundle.
    pub fn open(&self) -> Result<Bundle, BundleError> {
        match self {
            Self::File(path) => Bundle::open(path),
            Self::BuiltIn => built_in::bundle(),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::BuiltIn => write!(f, "{BUILT_IN}"),
        }
    }
}

/// Why a model could not be found: the message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The system names no home folder, so there is no data folder.
    #[error("no home folder is known: set TINYFIND_MODELS to the folder of models")]
    NoHome {
        /// What the system said.
        source: etcetera::HomeDirError,
    },
    /// No installed model bears that name.
    #[error(
        "no model `{name}` in `{}` ({}) and none but `nano` is built in: `tinyfind model pull` and `tinyfind model import` \
         install models, and `--model` also takes the path of a bundle file",
        dir.display(),
        list(installed)
    )]
    UnknownName {
        /// What was asked for.
        name: String,
        /// The models folder.
        dir: PathBuf,
        /// Names that are there.
        installed: Vec<String>,
    },
    /// A path that holds no file.
    #[error("there is no bundle file `{}`", path.display())]
    NoFile {
        /// That path.
        path: PathBuf,
    },
    /// A name that cannot be a file name in the models folder.
    #[error("`{name}` cannot be the name of a model: use letters, digits, `-`, `_` and `.`")]
    BadName {
        /// What was asked for.
        name: String,
    },
    /// The models folder cannot be read.
    #[error("cannot read the models folder `{}`", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "nothing is installed there".to_owned()
    } else {
        format!("installed: {}", names.join(", "))
    }
}

/// A bundle file of the models folder; it has not been opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Its name: the file name without `.gguf`.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub size_in_bytes: u64,
}

/// A models folder.
#[derive(Debug, Clone)]
pub struct Registry {
    dir: PathBuf,
}

impl Registry {
    /// The folder of this user: `$TINYFIND_MODELS`, else `tinyfind/models` in the data folder.
    ///
    /// # Errors
    ///
    /// When neither that variable nor a home folder is known.
    pub fn of_user() -> Result<Self, RegistryError> {
        Ok(Self::at(models_dir()?))
    }

    /// The folder `dir`, which need not exist.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a model of that name lies or would lie.
    ///
    /// # Errors
    ///
    /// When the name cannot be a file name here.
    pub fn path_of(&self, name: &str) -> Result<PathBuf, RegistryError> {
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            return Err(RegistryError::BadName { name: name.to_owned() });
        }
        Ok(self.dir.join(format!("{name}.{EXTENSION}")))
    }

    /// Every bundle file of the folder, by name; none where the folder does not exist.
    ///
    /// # Errors
    ///
    /// When the folder is there and cannot be read.
    pub fn installed(&self) -> Result<Vec<Installed>, RegistryError> {
        let io = |source| RegistryError::Io { path: self.dir.clone(), source };
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(io(source)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(io)?.path();
            let Some(name) = bundle_name(&path) else { continue };
            // A link to a bundle elsewhere counts; one that leads nowhere does not.
            let Ok(data) = std::fs::metadata(&path) else { continue };
            if data.is_file() {
                found.push(Installed { name, path, size_in_bytes: data.len() });
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// The model that `--model NAME|BUNDLE` means.
    ///
    /// What holds a path separator or ends in `.gguf` is a path. Anything else is the name of
    /// an installed model, or, where none bears it, a file of that name or [`BUILT_IN`].
    ///
    /// # Errors
    ///
    /// When there is no such file or model.
    pub fn resolve(&self, name_or_path: &OsStr) -> Result<Location, RegistryError> {
        let path = Path::new(name_or_path);
        if is_path(name_or_path) {
            return if path.is_file() {
                Ok(Location::File(path.to_owned()))
            } else {
                Err(RegistryError::NoFile { path: path.to_owned() })
            };
        }
        let name = name_or_path.to_string_lossy();
        let named = self.path_of(&name);
        match named {
            Ok(named) if named.is_file() => return Ok(Location::File(named)),
            _ if path.is_file() => return Ok(Location::File(path.to_owned())),
            _ if name == BUILT_IN => return Ok(Location::BuiltIn),
            Err(bad_name) => return Err(bad_name),
            Ok(_) => {}
        }
        Err(RegistryError::UnknownName {
            name: name.into_owned(),
            dir: self.dir.clone(),
            installed: self.installed()?.into_iter().map(|m| m.name).collect(),
        })
    }

    /// The model of a command that names none: the first of [`PREFERRED`] that is installed,
    /// else the first by name, else the built-in one.
    ///
    /// # Errors
    ///
    /// When the folder is there and cannot be read.
    pub fn default_model(&self) -> Result<Location, RegistryError> {
        let installed = self.installed()?;
        let preferred =
            PREFERRED.iter().find_map(|name| installed.iter().find(|model| model.name == *name));
        let model = preferred.or(installed.first());
        Ok(model.map_or(Location::BuiltIn, |model| Location::File(model.path.clone())))
    }
}

/// The models folder of this user.
///
/// # Errors
///
/// When neither `TINYFIND_MODELS` nor a home folder is known.
pub fn models_dir() -> Result<PathBuf, RegistryError> {
    let data = || {
        etcetera::base_strategy::Xdg::new()
            .map(|base| base.data_dir())
            .map_err(|source| RegistryError::NoHome { source })
    };
    models_dir_from(std::env::var_os("TINYFIND_MODELS"), data)
}

fn models_dir_from(
    variable: Option<OsString>,
    data: impl FnOnce() -> Result<PathBuf, RegistryError>,
) -> Result<PathBuf, RegistryError> {
    match variable.filter(|value| !value.is_empty()) {
        Some(dir) => Ok(dir.into()),
        None => Ok(data()?.join("tinyfind").join("models")),
    }
}

/// [`Registry::resolve`] in the user's models folder; [`Registry::default_model`] for `None`.
///
/// # Errors
///
/// When there is no such model; the message says how to get one.
pub fn resolve(name_or_path: Option<&OsStr>) -> Result<Location, RegistryError> {
    match name_or_path {
        // A path needs no models folder, so neither does it need a home.
        Some(path) if is_path(path) => Registry::at("").resolve(path),
        Some(name) => Registry::of_user()?.resolve(name),
        None => Registry::of_user()?.default_model(),
    }
}

/// [`Registry::installed`] of the user's models folder.
///
/// # Errors
///
/// When the folder cannot be read, or no home folder is known.
pub fn installed() -> Result<Vec<Installed>, RegistryError> {
    Registry::of_user()?.installed()
}

fn is_path(text: &OsStr) -> bool {
    let path = Path::new(text);
    path.components().count() != 1 || path.file_name() != Some(text) || bundle_name(path).is_some()
}

/// The name of the model in a bundle file's path, if its extension is [`EXTENSION`].
fn bundle_name(path: &Path) -> Option<String> {
    let extension = path.extension()?;
    if !extension.eq_ignore_ascii_case(EXTENSION) {
        return None;
    }
    Some(path.file_stem()?.to_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> (tempfile::TempDir, Registry) {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(dir.path().join(name), b"12345").unwrap();
        }
        let registry = Registry::at(dir.path());
        (dir, registry)
    }

    #[test]
    fn the_variable_names_the_folder_and_the_data_folder_is_the_default() {
        let data = || Ok(PathBuf::from("/data"));
        assert_eq!(models_dir_from(Some("/m".into()), data).unwrap(), Path::new("/m"));
        let default = Path::new("/data/tinyfind/models");
        assert_eq!(models_dir_from(Some("".into()), data).unwrap(), default);
        assert_eq!(models_dir_from(None, data).unwrap(), default);
    }

    #[test]
    fn installed_lists_bundles_by_name_and_nothing_else() {
        let (_dir, registry) = folder(&["b.gguf", "a.gguf", "a.gguf.partial", "notes.txt"]);
        let found = registry.installed().unwrap();
        let names: Vec<_> = found.iter().map(|m| (m.name.as_str(), m.size_in_bytes)).collect();
        assert_eq!(names, [("a", 5), ("b", 5)]);
    }

    #[test]
    fn a_missing_folder_holds_no_models() {
        let registry = Registry::at("/nowhere/at/all");
        assert!(registry.installed().unwrap().is_empty());
        assert_eq!(registry.default_model().unwrap(), Location::BuiltIn);
    }

    #[test]
    fn a_name_means_the_file_in_the_folder() {
        let (dir, registry) = folder(&["mine.gguf"]);
        let expected = Location::File(dir.path().join("mine.gguf"));
        assert_eq!(registry.resolve("mine".as_ref()).unwrap(), expected);
    }

    #[test]
    fn the_built_in_model_has_a_name_that_an_installed_one_takes_over() {
        let (dir, registry) = folder(&["mine.gguf"]);
        assert_eq!(registry.resolve(BUILT_IN.as_ref()).unwrap(), Location::BuiltIn);
        let own = dir.path().join("nano.gguf");
        std::fs::write(&own, b"1").unwrap();
        assert_eq!(registry.resolve(BUILT_IN.as_ref()).unwrap(), Location::File(own));
    }

    #[test]
    fn a_path_means_the_file_at_that_path() {
        let (dir, registry) = folder(&["mine.gguf"]);
        let elsewhere = dir.path().join("sub.GGUF");
        std::fs::write(&elsewhere, b"1").unwrap();
        let expected = Location::File(elsewhere.clone());
        assert_eq!(registry.resolve(elsewhere.as_ref()).unwrap(), expected);
        let gone = dir.path().join("gone.gguf");
        assert!(matches!(registry.resolve(gone.as_ref()), Err(RegistryError::NoFile { .. })));
    }

    #[test]
    fn whatever_is_more_than_a_file_name_is_a_path() {
        let path = |text: &str| is_path(text.as_ref());
        assert!(path("./mine") && path("a/b") && path("mine.gguf") && path("..") && path(""));
        assert!(!path("mine") && !path("tinygpt-v-stage3") && !path("v1.5"));
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_names_that_are_there() {
        let (_dir, registry) = folder(&["one.gguf", "two.gguf"]);
        let message = registry.resolve("three".as_ref()).unwrap_err().to_string();
        assert!(message.contains("`three`") && message.contains("one, two"), "{message}");
    }

    #[test]
    fn a_name_cannot_leave_the_folder() {
        let (_dir, registry) = folder(&[]);
        for name in ["", "..", ".hidden", "a/b", "a b"] {
            let refused = registry.path_of(name);
            assert!(matches!(refused, Err(RegistryError::BadName { .. })), "{name}");
        }
    }

    #[test]
    fn the_default_is_stage_3_then_stage_4_then_the_first_by_name() {
        let of = |names: &[&str]| {
            let (_dir, registry) = folder(names);
            let Location::File(path) = registry.default_model().unwrap() else { panic!() };
            path.file_stem().unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!(of(&["a.gguf", "tinygpt-v-stage3.gguf"]), "tinygpt-v-stage3");
        assert_eq!(of(&["a.gguf", "tinygpt-v-stage4.gguf"]), "tinygpt-v-stage4");
        assert_eq!(of(&["tinygpt-v-stage4.gguf", "tinygpt-v-stage3.gguf"]), "tinygpt-v-stage3");
        assert_eq!(of(&["z.gguf", "b.gguf"]), "b");
    }
}
