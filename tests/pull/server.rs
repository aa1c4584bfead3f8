//! Web servers on this machine that play the hub, the host of its large files, and LAVIS's
//! bucket: three ports, hence three origins.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use sha1::{Digest as _, Sha1};
use sha2::Sha256;

/// The commit that `main` is at.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Who was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Host {
    /// Metadata and small files.
    Hub,
    /// Large files of the hub.
    Cdn,
    /// LAVIS's bucket.
    Bucket,
}

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) host: Host,
    pub(crate) method: String,
    pub(crate) path: String,
    /// First byte asked for, where a range was.
    pub(crate) from: Option<usize>,
    pub(crate) authorization: Option<String>,
}

/// What goes wrong with the next answer that carries a file's bytes.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The connection ends after so many bytes of the body.
    CutAfter(usize),
    /// This status instead, with these headers.
    Status(u16, &'static str),
    /// Other bytes of the same number.
    WrongBytes,
    /// The range is ignored: 200 and everything.
    IgnoreRange,
    /// Another part than asked for.
    WrongRange,
    /// A whole file with so many bytes more at its end.
    Longer(usize),
    /// Nothing for so long, then the connection ends.
    Silence(Duration),
}

/// A file that is served.
#[derive(Debug, Clone)]
struct Served {
    bytes: Arc<Vec<u8>>,
    /// Lies with the large files: the hub redirects, and names it by its SHA-256.
    large: bool,
    /// Entity tag, where it is not the one that follows from the bytes.
    etag: Option<String>,
    /// Headers of the bucket's hash.
    hashed: bool,
}

#[derive(Default)]
struct State {
    /// By path below the host: `owner/name/file`, `spaces/owner/name/file` or the bucket's file.
    hub: HashMap<String, Served>,
    bucket: HashMap<String, Served>,
    faults: HashMap<String, VecDeque<Fault>>,
    head_faults: HashMap<String, VecDeque<Fault>>,
    token: Option<String>,
    commit: String,
    seen: Vec<Seen>,
}

/// The three servers; they end when this is dropped.
pub(crate) struct Servers {
    hub: SocketAddr,
    cdn: SocketAddr,
    bucket: SocketAddr,
    state: Arc<Mutex<State>>,
    ending: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Servers {
    pub(crate) fn start() -> Self {
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let listeners = [(Host::Hub, listen()), (Host::Cdn, listen()), (Host::Bucket, listen())];
        let [hub, cdn, bucket] = [0, 1, 2].map(|i: usize| listeners[i].1.local_addr().unwrap());
        let state = State { commit: COMMIT.to_owned(), ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let ending = Arc::new(AtomicBool::new(false));
        let threads = listeners.map(|(host, listener)| {
            let (state, ending) = (Arc::clone(&state), Arc::clone(&ending));
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    if ending.load(Ordering::SeqCst) {
                        return;
                    }
                    let state = Arc::clone(&state);
                    // A client that goes away in the middle is not this server's failure.
                    std::thread::spawn(move || drop(answer(host, stream.unwrap(), cdn, &state)));
                }
            })
        });
        Self { hub, cdn, bucket, state, ending, threads: threads.into() }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.hub)
    }

    pub(crate) fn lavis(&self) -> String {
        format!("http://{}/models/BLIP2", self.bucket)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Serves a file of a repository, `owner/name` or `spaces/owner/name`; a large one over the
    /// other host. Returns the tag that names it.
    pub(crate) fn put(&self, repo: &str, file: &str, bytes: &[u8], large: bool) -> String {
        let served = Served { bytes: Arc::new(bytes.to_vec()), large, etag: None, hashed: false };
        let tag = served.tag();
        self.state().hub.insert(format!("{repo}/{file}"), served);
        tag
    }

    /// Serves a file of the bucket, with its CRC-32C or without.
    pub(crate) fn put_in_bucket(&self, file: &str, bytes: &[u8], hashed: bool) {
        let served = Served { bytes: Arc::new(bytes.to_vec()), large: false, etag: None, hashed };
        self.state().bucket.insert(file.to_owned(), served);
    }

    /// Gives a file of the hub another tag than its hash.
    pub(crate) fn set_tag(&self, file: &str, tag: &str) {
        self.state().hub.get_mut(file).unwrap().etag = Some(tag.to_owned());
    }

    /// Lets the next answers with this file's bytes go wrong, in this order. The file is named
    /// as in `put`, or as in `put_in_bucket`.
    pub(crate) fn fail(&self, file: &str, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults.entry(file.to_owned()).or_default().extend(faults);
    }

    /// The same for the next answers that only describe this file.
    pub(crate) fn fail_head(&self, file: &str, faults: impl IntoIterator<Item = Fault>) {
        self.state().head_faults.entry(file.to_owned()).or_default().extend(faults);
    }

    /// Opens the hub to this token only.
    pub(crate) fn require_token(&self, token: &str) {
        self.state().token = Some(token.to_owned());
    }

    /// Moves `main` to another commit.
    pub(crate) fn set_commit(&self, commit: &str) {
        commit.clone_into(&mut self.state().commit);
    }

    /// Every request so far, forgotten afterwards.
    pub(crate) fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state().seen)
    }

    /// Requests so far that asked for bytes and not only about them.
    pub(crate) fn gets(&self) -> Vec<Seen> {
        self.state().seen.iter().filter(|seen| seen.method == "GET").cloned().collect()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        for address in [self.hub, self.cdn, self.bucket] {
            // Wakes the thread that waits for a connection.
            let _ = TcpStream::connect(address);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Served {
    fn tag(&self) -> String {
        self.etag
            .clone()
            .unwrap_or_else(|| if self.large { sha256(&self.bytes) } else { git_blob(&self.bytes) })
    }
}

/// Reads one request, answers it, and closes the connection.
fn answer(
    host: Host,
    stream: TcpStream,
    cdn: SocketAddr,
    state: &Mutex<State>,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream.try_clone()?).take(1 << 16);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let method = words.next().unwrap_or_default().to_owned();
    let path = words.next().unwrap_or_default().trim_start_matches('/').to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let from = headers
        .get("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let authorization = headers.get("authorization").cloned();
    let reply = {
        let mut state = state.lock().unwrap();
        let seen = Seen { host, method: method.clone(), path: path.clone(), from, authorization };
        state.seen.push(seen.clone());
        match host {
            Host::Hub => state.hub_reply(&seen, cdn),
            Host::Cdn => state.bytes_reply(&seen, |served| served.large, String::new()),
            Host::Bucket => state.bucket_reply(&seen),
        }
    };
    reply.send(stream, method == "HEAD")
}

/// An answer, and what goes wrong with it.
struct Reply {
    status: u16,
    headers: String,
    body: Vec<u8>,
    cut_after: Option<usize>,
    silence: Option<Duration>,
}

impl Reply {
    fn status(status: u16, headers: impl Into<String>) -> Self {
        let (headers, body) = (headers.into(), Vec::new());
        Self { status, headers, body, cut_after: None, silence: None }
    }

    fn send(self, mut stream: TcpStream, head: bool) -> std::io::Result<()> {
        if let Some(time) = self.silence {
            std::thread::sleep(time);
            return Ok(());
        }
        let length = self.body.len();
        let mut text = format!("HTTP/1.1 {} Status\r\n{}", self.status, self.headers);
        if !self.headers.to_ascii_lowercase().contains("content-length:") {
            let _ = write!(text, "content-length: {length}\r\n");
        }
        text.push_str("connection: close\r\n\r\n");
        stream.write_all(text.as_bytes())?;
        if !head {
            stream.write_all(&self.body[..self.cut_after.unwrap_or(length).min(length)])?;
        }
        stream.flush()?;
        // Closing with bytes unread would be a reset, which may overtake what was sent.
        stream.shutdown(std::net::Shutdown::Write)?;
        let _ = stream.read(&mut [0; 16]);
        Ok(())
    }
}

impl State {
    /// `[spaces/]owner/name/resolve/REVISION/FILE`, or the address that it redirects to.
    fn hub_reply(&mut self, seen: &Seen, cdn: SocketAddr) -> Reply {
        if let Some(token) = &self.token
            && seen.authorization.as_deref() != Some(&format!("Bearer {token}"))
        {
            return Reply::status(401, "x-error-message: who are you?\r\n");
        }
        let direct = seen.path.strip_prefix("api/resolve-cache/");
        let (repo, revision, file) = match direct.unwrap_or(&seen.path).split_once("/resolve/") {
            Some((repo, rest)) => match rest.split_once('/') {
                Some((revision, file)) => (repo, revision, file),
                None => return Reply::status(404, ""),
            },
            None => return Reply::status(404, ""),
        };
        let key = format!("{repo}/{file}");
        let known = self.hub.get(&key).cloned();
        let known = known.filter(|_| revision == "main" || revision == self.commit);
        let Some(served) = known else {
            return Reply::status(404, "x-error-message: no such entry\r\n");
        };
        if seen.method == "HEAD"
            && let Some(fault) = self.head_faults.get_mut(&key).and_then(VecDeque::pop_front)
        {
            return fault.reply();
        }
        let (commit, size, tag) = (self.commit.clone(), served.bytes.len(), served.tag());
        if served.large {
            // As the hub does it: the file is described on an answer that redirects, whose own
            // tag and length are another's.
            let headers = format!(
                "location: http://{cdn}/{key}\r\nx-repo-commit: {commit}\r\n\
                 x-linked-etag: \"{tag}\"\r\nx-linked-size: {size}\r\netag: \"redirect\"\r\n"
            );
            let mut reply = Reply::status(302, headers);
            reply.body = b"Found. Redirecting".to_vec();
            return reply;
        }
        if direct.is_none() {
            let location = format!("/api/resolve-cache/{repo}/resolve/{commit}/{file}");
            return Reply::status(307, format!("location: {location}\r\n"));
        }
        let headers = format!("x-repo-commit: {commit}\r\netag: \"{tag}\"\r\n");
        let seen = Seen { path: key, ..seen.clone() };
        self.bytes_reply(&seen, |served| !served.large, headers)
    }

    fn bucket_reply(&mut self, seen: &Seen) -> Reply {
        let Some(file) = seen.path.strip_prefix("models/BLIP2/") else {
            return Reply::status(404, "");
        };
        let Some(served) = self.bucket.get(file).cloned() else { return Reply::status(404, "") };
        if seen.method == "HEAD"
            && let Some(fault) = self.head_faults.get_mut(file).and_then(VecDeque::pop_front)
        {
            return fault.reply();
        }
        let mut headers = String::new();
        if served.hashed {
            let crc = base64(crc32c(&served.bytes).to_be_bytes());
            let tag = &sha256(&served.bytes)[..32];
            let _ = write!(headers, "etag: \"{tag}\"\r\n");
            let _ = write!(headers, "x-goog-hash: crc32c={crc}\r\nx-goog-hash: md5=unused==\r\n");
        }
        self.send(&served, file, seen, headers)
    }

    fn bytes_reply(
        &mut self,
        seen: &Seen,
        right_host: impl Fn(&Served) -> bool,
        headers: String,
    ) -> Reply {
        match self.hub.get(&seen.path).cloned().filter(right_host) {
            Some(served) => self.send(&served, &seen.path, seen, headers),
            None => Reply::status(404, ""),
        }
    }

    fn send(&mut self, served: &Served, key: &str, seen: &Seen, mut headers: String) -> Reply {
        let size = served.bytes.len();
        if seen.method == "HEAD" {
            let _ = write!(headers, "content-length: {size}\r\n");
            return Reply::status(200, headers);
        }
        let fault = self.faults.get_mut(key).and_then(VecDeque::pop_front);
        let mut reply = Reply::status(200, "");
        let mut from = seen.from;
        let mut bytes = served.bytes.to_vec();
        match fault {
            Some(Fault::CutAfter(n)) => reply.cut_after = Some(n),
            Some(Fault::WrongBytes) => bytes.iter_mut().for_each(|byte| *byte ^= 1),
            Some(Fault::IgnoreRange) => from = None,
            Some(Fault::WrongRange) => from = from.map(|from| from + 1),
            Some(Fault::Longer(n)) => {
                from = None;
                bytes.extend(std::iter::repeat_n(0, n));
            }
            Some(other) => return other.reply(),
            None => {}
        }
        match from {
            Some(from) if from < size => {
                reply.status = 206;
                let _ = write!(headers, "content-range: bytes {from}-{}/{size}\r\n", size - 1);
                bytes.drain(..from);
            }
            Some(_) => return Reply::status(416, format!("content-range: bytes */{size}\r\n")),
            None => {}
        }
        reply.headers = headers;
        reply.body = bytes;
        reply
    }
}

impl Fault {
    /// The answer of a fault that is a whole answer.
    fn reply(self) -> Reply {
        match self {
            Self::Status(status, headers) => Reply::status(status, headers),
            Self::Silence(time) => Reply { silence: Some(time), ..Reply::status(200, "") },
            other => panic!("{other:?} needs a file"),
        }
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn git_blob(bytes: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(format!("blob {}\0", bytes.len()));
    hash.update(bytes);
    hex(&hash.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// Bit by bit, from the definition.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82F6_3B78 } else { crc >> 1 };
        }
    }
    !crc
}

/// Four bytes in base 64.
fn base64(bytes: [u8; 4]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits = u64::from(u32::from_be_bytes(bytes)) << 4;
    let letters = (0..6).rev().map(|i| LETTERS[(bits >> (6 * i)) as usize & 63] as char);
    letters.chain("==".chars()).collect()
}
