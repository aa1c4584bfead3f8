//! What the environment says about downloads.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::HubError;

/// The hub, unless `HF_ENDPOINT` names another.
const HUB: &str = "https://huggingface.co";

/// The folder of BLIP-2's files in LAVIS's bucket, unless `TINYFIND_LAVIS_ENDPOINT` names another.
const LAVIS: &str =
    "https://storage.googleapis.com/sfr-vision-language-research/LAVIS/models/BLIP2";

/// A secret that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes the text without its white space; `None` if nothing is left, or if it holds
    /// something that cannot stand in a header.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let usable = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        usable.then(|| Self(text.to_owned()))
    }

    pub(super) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// How patient a download is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in a row that may bring nothing new.
    pub attempts: u32,
    /// Wait before the second attempt; it doubles with each further one.
    pub first_wait: Duration,
    /// The longest wait between two attempts, also where the host asks for more.
    pub longest_wait: Duration,
    /// Silence of the other side after which an attempt has failed.
    pub silence: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 6,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(30),
            silence: Duration::from_secs(30),
        }
    }
}

/// Hosts, folders and manners of downloads.
///
/// | variable | meaning |
/// |---|---|
/// | `HF_ENDPOINT` | address of the hub or of a mirror of it |
/// | `HF_HOME` | folder of everything of the hub, `~/.cache/huggingface` by default |
/// | `HF_HUB_CACHE` | folder of downloaded repositories, `$HF_HOME/hub` by default |
/// | `HF_TOKEN` | token sent to the hub, by default what `$HF_HOME/token` holds (`HF_TOKEN_PATH`) |
/// | `HF_HUB_DISABLE_IMPLICIT_TOKEN` | `1`: do not send a token |
/// | `HF_HUB_OFFLINE` | `1`: use what is here, never the network |
/// | `HF_HUB_DOWNLOAD_TIMEOUT` | seconds of silence after which an attempt has failed, 30 |
/// | `TINYFIND_LAVIS_ENDPOINT` | address of a folder with LAVIS's BLIP-2 files |
/// | `XDG_CACHE_HOME` | those files lie in `tinyfind/downloads` there, `~/.cache` by default |
///
/// Proxies (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`) are used except for this
/// machine itself. The hub's variables are those of its own tools:
/// <https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables>.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address of the hub, without a `/` at its end.
    pub endpoint: String,
    /// Address of the folder of LAVIS's files, without a `/` at its end.
    pub lavis: String,
    /// Folder of repositories, shared with other tools of the hub.
    pub hub_cache: PathBuf,
    /// Folder of LAVIS's files.
    pub downloads: PathBuf,
    /// Sent to the hub, and to no other host.
    pub token: Option<Token>,
    /// Whether the network must not be used.
    pub offline: bool,
    /// How patient to be.
    pub retry: Retry,
}

impl Settings {
    /// Reads the environment.
    ///
    /// # Errors
    ///
    /// When no home folder is known and the variables do not name every folder.
    pub fn of_user() -> Result<Self, HubError> {
        let variable = |name: &str| std::env::var_os(name);
        Self::read(&Environment { variable: &variable, home: etcetera::home_dir().ok() })
    }

    fn read(env: &Environment<'_>) -> Result<Self, HubError> {
        let caches = || env.folder("XDG_CACHE_HOME", || Ok(env.home()?.join(".cache")));
        let hub_home = env.folder("HF_HOME", || Ok(caches()?.join("huggingface")))?;
        let mut retry = Retry::default();
        let silence = env.text("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|text| text.parse().ok());
        if let Some(seconds) = silence.filter(|seconds| *seconds > 0) {
            retry.silence = Duration::from_secs(seconds);
        }
        Ok(Self {
            endpoint: env.address("HF_ENDPOINT", HUB),
            lavis: env.address("TINYFIND_LAVIS_ENDPOINT", LAVIS),
            hub_cache: env.folder("HF_HUB_CACHE", || Ok(hub_home.join("hub")))?,
            downloads: caches()?.join("tinyfind").join("downloads"),
            token: env.token(&hub_home)?,
            offline: env.switch("HF_HUB_OFFLINE"),
            retry,
        })
    }
}

/// Variables and the home folder.
struct Environment<'a> {
    variable: &'a dyn Fn(&str) -> Option<OsString>,
    home: Option<PathBuf>,
}

impl Environment<'_> {
    fn home(&self) -> Result<&Path, HubError> {
        self.home.as_deref().ok_or(HubError::NoHome)
    }

    fn text(&self, name: &str) -> Option<String> {
        let text = (self.variable)(name)?.into_string().ok()?.trim().to_owned();
        (!text.is_empty()).then_some(text)
    }

    /// Whether a variable holds what the hub's tools take for yes.
    fn switch(&self, name: &str) -> bool {
        let yes = |text: String| {
            matches!(text.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
        };
        self.text(name).is_some_and(yes)
    }

    fn address(&self, name: &str, default: &str) -> String {
        let address = self.text(name).unwrap_or_else(|| default.to_owned());
        address.trim_end_matches('/').to_owned()
    }

    /// The folder that a variable names, where `~` is the home folder.
    fn folder(
        &self,
        name: &str,
        default: impl FnOnce() -> Result<PathBuf, HubError>,
    ) -> Result<PathBuf, HubError> {
        let Some(value) = (self.variable)(name).filter(|value| !value.is_empty()) else {
            return default();
        };
        let path = PathBuf::from(value);
        match path.strip_prefix("~") {
            Ok(below) => Ok(self.home()?.join(below)),
            Err(_) => Ok(path),
        }
    }

    fn token(&self, hub_home: &Path) -> Result<Option<Token>, HubError> {
        if self.switch("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            return Ok(None);
        }
        if let Some(text) = self.text("HF_TOKEN") {
            return Ok(Token::new(&text));
        }
        let file = self.folder("HF_TOKEN_PATH", || Ok(hub_home.join("token")))?;
        Ok(std::fs::read_to_string(file).ok().and_then(|text| Token::new(&text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Settings {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let home = Some(PathBuf::from("/home/me"));
        Settings::read(&Environment { variable: &variable, home }).unwrap()
    }

    #[test]
    fn without_variables_the_hub_and_the_home_folder_are_used() {
        let settings = read(&[]);
        assert_eq!(settings.endpoint, "https://huggingface.co");
        assert_eq!(settings.hub_cache, Path::new("/home/me/.cache/huggingface/hub"));
        assert_eq!(settings.downloads, Path::new("/home/me/.cache/tinyfind/downloads"));
        assert!(!settings.offline);
        assert_eq!(settings.token, None);
    }

    #[test]
    fn hf_home_moves_the_cache_and_hf_hub_cache_moves_it_further() {
        let cache = |variables: &[(&str, &str)]| read(variables).hub_cache;
        assert_eq!(cache(&[("HF_HOME", "/big/hf")]), Path::new("/big/hf/hub"));
        assert_eq!(cache(&[("HF_HOME", "~/hf")]), Path::new("/home/me/hf/hub"));
        let both = [("HF_HOME", "/big/hf"), ("HF_HUB_CACHE", "/huge")];
        assert_eq!(cache(&both), Path::new("/huge"));
        let xdg = [("XDG_CACHE_HOME", "/c"), ("HF_HOME", "")];
        assert_eq!(cache(&xdg), Path::new("/c/huggingface/hub"));
    }

    #[test]
    fn addresses_lose_the_slash_at_their_end() {
        let settings = read(&[
            ("HF_ENDPOINT", "http://127.0.0.1:1/hub/"),
            ("TINYFIND_LAVIS_ENDPOINT", "http://127.0.0.1:1/blip2//"),
        ]);
        assert_eq!(settings.endpoint, "http://127.0.0.1:1/hub");
        assert_eq!(settings.lavis, "http://127.0.0.1:1/blip2");
    }

    #[test]
    fn offline_is_what_the_hub_takes_for_yes() {
        for (value, offline) in [("1", true), ("true", true), ("0", false), ("", false)] {
            assert_eq!(read(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
        }
    }

    #[test]
    fn the_token_comes_from_the_variable_then_from_the_file() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "hf_file\n").unwrap();
        let home = home.path().to_str().unwrap();
        let token = |more: (&str, &str)| read(&[("HF_HOME", home), more]).token;
        assert_eq!(token(("HF_TOKEN", " hf_variable\n")), Token::new("hf_variable"));
        assert_eq!(token(("HF_TOKEN", "")), Token::new("hf_file"));
        assert_eq!(token(("HF_TOKEN_PATH", "/nowhere")), None);
        assert_eq!(token(("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")), None);
    }

    #[test]
    fn a_token_is_not_printed_and_cannot_break_a_header() {
        let token = Token::new("hf_secret").unwrap();
        assert!(!format!("{token:?}").contains("secret"));
        assert_eq!(Token::new("a\r\nb: c"), None);
    }

    #[test]
    fn a_missing_home_is_an_error_only_where_it_is_needed() {
        let named = |name: &str| match name {
            "HF_HOME" | "XDG_CACHE_HOME" => Some(OsString::from("/x")),
            _ => None,
        };
        assert!(Settings::read(&Environment { variable: &named, home: None }).is_ok());
        let none = |_: &str| None;
        let missing = Settings::read(&Environment { variable: &none, home: None });
        assert!(matches!(missing, Err(HubError::NoHome)));
    }
}
