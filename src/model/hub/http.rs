//! Requests: redirects followed by hand, so that the token reaches the hub and nobody else.

use std::time::Duration;

use ureq::http::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, LOCATION, RANGE, RETRY_AFTER};
use ureq::http::{Method, Request, Response, StatusCode, Uri};
use ureq::{Agent, Body};

use super::error::{HubError, Trouble};
use super::settings::{Retry, Settings, Token};

/// More redirects than this lead nowhere.
const MOST_REDIRECTS: usize = 10;

/// What a host says about a file before it sends it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Commit that the revision is at: the hub only.
    pub(super) commit: Option<String>,
    /// Entity tag, without quotes.
    pub(super) etag: Option<String>,
    /// Size in bytes.
    pub(super) size: Option<u64>,
    /// CRC-32C in hexadecimal digits: Google's buckets only.
    pub(super) crc32c: Option<String>,
}

/// Asks the hosts.
pub(super) struct Client {
    agent: Agent,
    /// For this machine itself, which no proxy can reach.
    direct: Agent,
    trusted: Option<Origin>,
    token: Option<Token>,
}

impl Client {
    pub(super) fn new(settings: &Settings) -> Self {
        let silence = Some(settings.retry.silence);
        let configure = || {
            Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .user_agent(concat!("tinyfind/", env!("CARGO_PKG_VERSION")))
                .timeout_connect(silence)
                .timeout_recv_response(silence)
                .timeout_per_read(silence)
                .timeout_per_write(silence)
        };
        Self {
            agent: configure().build().into(),
            direct: configure().proxy(None).build().into(),
            trusted: Origin::of(&settings.endpoint),
            token: settings.token.clone(),
        }
    }

    /// Asks what `url` is, following redirects until everything is known or there are no more.
    pub(super) fn facts(&self, url: &str, commit_wanted: bool) -> Result<Facts, Trouble> {
        let mut facts = Facts::default();
        let mut at = url.to_owned();
        for _ in 0..=MOST_REDIRECTS {
            let answer = self.ask(&Method::HEAD, &at, None)?;
            let headers = answer.headers();
            facts.learn(headers, answer.status().is_success());
            let complete = facts.etag.is_some()
                && facts.size.is_some()
                && (facts.commit.is_some() || !commit_wanted);
            if answer.status().is_success() || complete {
                return Ok(facts);
            }
            at = next(&at, headers)?;
        }
        Err(too_many_redirects(url))
    }

    /// Asks for the bytes of `url` from `start` on. The answer is 200 with all of them, 206 with
    /// those from `start`, or 416.
    pub(super) fn get(&self, url: &str, start: u64) -> Result<Response<Body>, Trouble> {
        let mut at = url.to_owned();
        for _ in 0..=MOST_REDIRECTS {
            let answer = self.ask(&Method::GET, &at, Some(start))?;
            if !answer.status().is_redirection() {
                return Ok(answer);
            }
            at = next(&at, answer.headers())?;
        }
        Err(too_many_redirects(url))
    }

    /// One request; every answer that is neither bytes nor a redirect is an error.
    fn ask(
        &self,
        method: &Method,
        url: &str,
        start: Option<u64>,
    ) -> Result<Response<Body>, Trouble> {
        let origin = Origin::of(url).ok_or_else(|| HubError::Answer {
            url: url.to_owned(),
            what: "nothing: it is no address of a web server".to_owned(),
        })?;
        let with_token = self.token.as_ref().filter(|_| self.trusted.as_ref() == Some(&origin));
        let agent = if origin.is_this_machine() { &self.direct } else { &self.agent };

        let mut request =
            Request::builder().method(method).uri(url).header(ACCEPT_ENCODING, "identity");
        if let Some(start) = start.filter(|start| *start > 0) {
            request = request.header(RANGE, format!("bytes={start}-"));
        }
        if let Some(token) = with_token {
            request = request.header(AUTHORIZATION, token.header());
        }
        let request = request
            .body(())
            .map_err(|error| HubError::Answer { url: url.to_owned(), what: error.to_string() })?;
        let answer = agent.run(request).map_err(|error| match error {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl => {
                HubError::Answer { url: url.to_owned(), what: format!("nothing: {error}") }.into()
            }
            error => Trouble::passing(error),
        })?;
        judge(url, &answer, with_token.is_some())?;
        Ok(answer)
    }
}

/// Whether an answer can be used: bytes, a redirect, or a range that lies outside the file.
fn judge(url: &str, answer: &Response<Body>, with_token: bool) -> Result<(), Trouble> {
    let status = answer.status();
    let url = || url.to_owned();
    let message = || header(answer.headers(), "x-error-message").map(str::to_owned);
    Err(match status {
        StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
            return Ok(());
        }
        _ if status.is_redirection() => return Ok(()),
        StatusCode::UNAUTHORIZED => HubError::Unauthorized { url: url(), with_token }.into(),
        StatusCode::FORBIDDEN => HubError::Forbidden { url: url(), message: message() }.into(),
        StatusCode::NOT_FOUND | StatusCode::GONE => {
            HubError::NotFound { url: url(), message: message() }.into()
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            later(status, answer.headers())
        }
        _ if status.is_server_error() => later(status, answer.headers()),
        _ => HubError::Answer { url: url(), what: format!("with {status}") }.into(),
    })
}

fn later(status: StatusCode, headers: &HeaderMap) -> Trouble {
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Trouble::Passing {
        what: format!("the answer was {status}").into(),
        wait: seconds.map(Duration::from_secs),
    }
}

fn too_many_redirects(url: &str) -> Trouble {
    HubError::Answer { url: url.to_owned(), what: "with redirects without end".to_owned() }.into()
}

/// Where a redirect leads.
fn next(url: &str, headers: &HeaderMap) -> Result<String, Trouble> {
    let wrong = |what: &str| HubError::Answer { url: url.to_owned(), what: what.to_owned() };
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let target = location.and_then(|location| join(url, location));
    let target = target.ok_or_else(|| wrong("with a redirect to no address"))?;
    if url.starts_with("https:") && !target.starts_with("https:") {
        return Err(wrong("with a redirect that gives up encryption").into());
    }
    Ok(target)
}

impl Facts {
    /// Takes what the headers of one answer say. The hub describes the file itself in
    /// `x-linked-*` on an answer that redirects; any other header there describes the redirect.
    fn learn(&mut self, headers: &HeaderMap, is_the_file: bool) {
        let own = |name| header(headers, name).filter(|_| is_the_file);
        let tag = |text: &str| text.trim_start_matches("W/").trim_matches('"').to_owned();
        if self.commit.is_none() {
            self.commit = header(headers, "x-repo-commit").map(str::to_owned);
        }
        if self.etag.is_none() {
            self.etag = header(headers, "x-linked-etag").or_else(|| own("etag")).map(tag);
        }
        if self.size.is_none() {
            let size = header(headers, "x-linked-size").or_else(|| own("content-length"));
            self.size = size.and_then(|text| text.parse().ok());
        }
        if self.crc32c.is_none() && is_the_file {
            let hashes = headers.get_all("x-goog-hash").iter();
            self.crc32c = hashes
                .filter_map(|value| value.to_str().ok())
                .flat_map(|value| value.split(','))
                .find_map(|part| part.trim().strip_prefix("crc32c="))
                .and_then(four_bytes);
        }
    }
}

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// Hexadecimal digits of four bytes in base 64, which are six letters and `==`.
fn four_bytes(text: &str) -> Option<String> {
    let mut bits: u64 = 0;
    let letters = text.trim_end_matches('=').as_bytes();
    if letters.len() != 6 {
        return None;
    }
    for &letter in letters {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u64::from(value);
    }
    // 36 bits hold 32 and four that are zero.
    Some(format!("{:08x}", (bits >> 4) as u32))
}

/// Scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    fn of(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let scheme = uri.scheme_str()?.to_owned();
        let usual = match scheme.as_str() {
            "https" => 443,
            "http" => 80,
            _ => return None,
        };
        let authority = uri.authority()?;
        // A name before an `@` is how an address pretends to be another.
        if authority.as_str().contains('@') {
            return None;
        }
        let host = authority.host().to_ascii_lowercase();
        Some(Self { scheme, host, port: authority.port_u16().unwrap_or(usual) })
    }

    fn is_this_machine(&self) -> bool {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    }
}

/// The address that `location` means in an answer of `base`.
///
/// Source: RFC 3986, section 5.2, without `..`, which no host of ours sends.
fn join(base: &str, location: &str) -> Option<String> {
    let (scheme, rest) = base.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next()?;
    let target = if Origin::of(location).is_some() {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{host}{location}")
    } else if location.contains(':') || location.is_empty() {
        return None;
    } else {
        let path = rest[host.len()..].split(['?', '#']).next()?;
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{host}{folder}/{location}")
    };
    Origin::of(&target).map(|_| target)
}

/// Writes a name so that it can stand in an address; `/` becomes `%2F`.
fn encode(name: &str) -> String {
    use std::fmt::Write as _;
    name.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(byte as char);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

/// [`encode`] for every name of a path.
pub(super) fn encode_path(path: &str) -> String {
    path.split('/').map(encode).collect::<Vec<_>>().join("/")
}

/// Address of a file of the hub.
pub(super) fn hub_url(
    endpoint: &str,
    kind: super::manifest::RepoKind,
    repo: &str,
    revision: &str,
    path: &str,
) -> String {
    let kind = match kind {
        super::manifest::RepoKind::Model => "",
        super::manifest::RepoKind::Space => "spaces/",
    };
    let (repo, revision) = (encode_path(repo), encode(revision));
    format!("{endpoint}/{kind}{repo}/resolve/{revision}/{}", encode_path(path))
}

/// Counts attempts in a row that brought nothing new.
pub(super) struct Patience<'a> {
    retry: &'a Retry,
    failures: u32,
    best: u64,
}

/// So much new makes an attempt a good one.
const WORTH_COUNTING: u64 = 1 << 20;

impl<'a> Patience<'a> {
    pub(super) fn new(retry: &'a Retry) -> Self {
        Self { retry, failures: 0, best: 0 }
    }

    /// After an attempt that failed when `arrived` bytes were there: how long to wait before
    /// the next, or the error to end with. A file that comes at all comes in finitely many
    /// attempts, since only bytes beyond the furthest point so far start the count again.
    pub(super) fn after(
        &mut self,
        trouble: Trouble,
        url: &str,
        arrived: u64,
    ) -> Result<(Duration, String), HubError> {
        let (what, wait) = match trouble {
            Trouble::Final(error) => return Err(error),
            Trouble::Passing { what, wait } => (what, wait),
        };
        if arrived >= self.best + WORTH_COUNTING {
            self.best = arrived;
            self.failures = 0;
        }
        self.failures += 1;
        if self.failures >= self.retry.attempts {
            return Err(HubError::Unreachable {
                url: url.to_owned(),
                attempts: self.failures,
                source: what,
            });
        }
        let doubled = self.retry.first_wait.saturating_mul(1 << (self.failures - 1).min(16));
        let wait = wait.unwrap_or(doubled).max(self.retry.first_wait).min(self.retry.longest_wait);
        Ok((wait, what.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::RepoKind;
    use super::*;

    #[test]
    fn addresses_are_those_of_the_hub() {
        let url = |kind, repo, revision, path| hub_url("https://h", kind, repo, revision, path);
        assert_eq!(
            url(RepoKind::Model, "o/n", "main", "a.bin"),
            "https://h/o/n/resolve/main/a.bin"
        );
        assert_eq!(
            url(RepoKind::Space, "o/n", "refs/pr/1", "a b/c.bin"),
            "https://h/spaces/o/n/resolve/refs%2Fpr%2F1/a%20b/c.bin"
        );
    }

    #[test]
    fn a_redirect_is_read_against_the_address_it_came_from() {
        let base = "https://h:8/a/b?q=1/2";
        let to = |location| join(base, location);
        assert_eq!(to("http://x/y").as_deref(), Some("http://x/y"));
        assert_eq!(to("//x/y").as_deref(), Some("https://x/y"));
        assert_eq!(to("/y?z").as_deref(), Some("https://h:8/y?z"));
        assert_eq!(to("y").as_deref(), Some("https://h:8/a/y"));
        for nowhere in ["", "file:///etc/passwd", "https://hub@evil/"] {
            assert_eq!(to(nowhere), None, "{nowhere}");
        }
    }

    #[test]
    fn a_redirect_may_not_give_up_encryption() {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, "http://cdn/x".parse().unwrap());
        assert!(next("https://h/a", &headers).is_err());
        assert!(next("http://h/a", &headers).is_ok());
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same = |a, b| Origin::of(a).unwrap() == Origin::of(b).unwrap();
        assert!(same("https://H.co/a", "https://h.co:443/b"));
        assert!(!same("https://h.co/", "http://h.co/"));
        assert!(!same("https://h.co/", "https://h.co:444/"));
        assert!(!same("https://h.co/", "https://cdn.h.co/"));
        assert!(Origin::of("ftp://h/").is_none());
        assert!(Origin::of("http://127.0.0.1:9/").unwrap().is_this_machine());
        assert!(Origin::of("http://[::1]:9/").unwrap().is_this_machine());
        assert!(!Origin::of("http://h.co/").unwrap().is_this_machine());
    }

    #[test]
    fn facts_come_from_linked_headers_on_a_redirect_and_from_plain_ones_on_the_file() {
        let mut facts = Facts::default();
        let mut headers = HeaderMap::new();
        headers.insert("etag", "\"of-the-redirect\"".parse().unwrap());
        headers.insert("content-length", "99".parse().unwrap());
        facts.learn(&headers, false);
        assert_eq!(facts, Facts::default());
        headers.insert("x-linked-etag", "\"abc\"".parse().unwrap());
        headers.insert("x-linked-size", "7".parse().unwrap());
        facts.learn(&headers, false);
        assert_eq!((facts.etag.as_deref(), facts.size), (Some("abc"), Some(7)));

        let mut plain = Facts::default();
        let mut headers = HeaderMap::new();
        headers.insert("etag", "W/\"tag\"".parse().unwrap());
        headers.insert("content-length", "5".parse().unwrap());
        headers.append("x-goog-hash", "crc32c=4waSgw==".parse().unwrap());
        headers.append("x-goog-hash", "md5=XrY7u+Ae7tCTyyK7j1rNww==".parse().unwrap());
        plain.learn(&headers, true);
        assert_eq!((plain.etag.as_deref(), plain.size), (Some("tag"), Some(5)));
        // The check value of CRC-32C, 0xE3069283, in base 64.
        assert_eq!(plain.crc32c.as_deref(), Some("e3069283"));
    }

    #[test]
    fn patience_ends_unless_new_bytes_arrive() {
        let retry = Retry { attempts: 3, ..Retry::default() };
        let mut patience = Patience::new(&retry);
        let mut fail = |arrived| patience.after(Trouble::passing("broken"), "u", arrived);
        assert_eq!(fail(0).unwrap().0, Duration::from_secs(1));
        assert_eq!(fail(0).unwrap().0, Duration::from_secs(2));
        assert_eq!(fail(WORTH_COUNTING).unwrap().0, Duration::from_secs(1));
        assert!(fail(WORTH_COUNTING).is_ok());
        assert!(matches!(fail(WORTH_COUNTING + 1), Err(HubError::Unreachable { .. })));
    }

    #[test]
    fn a_host_that_asks_for_time_gets_it_up_to_a_limit() {
        let retry = Retry::default();
        let mut patience = Patience::new(&retry);
        let mut asks = |seconds| {
            let wait = Some(Duration::from_secs(seconds));
            patience.after(Trouble::Passing { what: "busy".into(), wait }, "u", 0).unwrap().0
        };
        assert_eq!(asks(7), Duration::from_secs(7));
        assert_eq!(asks(3600), retry.longest_wait);
        assert_eq!(asks(0), retry.first_wait);
    }
}
