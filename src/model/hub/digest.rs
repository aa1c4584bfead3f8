//! The hashes that the two hosts publish for their files.

use std::fmt;
use std::io::Read;
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::error::HubError;

/// A hash that a host promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-256 of the bytes: the hub's name for a large file.
    Sha256,
    /// SHA-1 of `blob SIZE\0` and the bytes: git's, and the hub's, name for a small file.
    GitBlob,
    /// CRC-32C (Castagnoli) of the bytes: what Google's buckets keep for every object.
    Crc32c,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha256 => "SHA-256",
            Self::GitBlob => "git hash",
            Self::Crc32c => "CRC-32C",
        })
    }
}

/// A hash, or the first digits of one, that a file must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) algorithm: Algorithm,
    /// Lower-case hexadecimal digits from the beginning of the hash.
    pub(super) digits: String,
}

impl Check {
    /// What the hub's entity tag promises: nothing if it is neither kind of hash.
    pub(super) fn of_etag(etag: &str) -> Option<Self> {
        if !etag.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let algorithm = match etag.len() {
            64 => Algorithm::Sha256,
            40 => Algorithm::GitBlob,
            _ => return None,
        };
        Some(Self { algorithm, digits: etag.to_ascii_lowercase() })
    }

    /// First digits of a SHA-256.
    pub(super) fn sha256(digits: &str) -> Self {
        Self { algorithm: Algorithm::Sha256, digits: digits.to_ascii_lowercase() }
    }

    /// Compares with the whole hash of the file `name`.
    pub(super) fn against(&self, name: &str, found: &str) -> Result<(), HubError> {
        if found.starts_with(&self.digits) {
            return Ok(());
        }
        Err(HubError::WrongHash {
            name: name.to_owned(),
            algorithm: self.algorithm,
            expected: self.digits.clone(),
            found: found.to_owned(),
        })
    }
}

enum State {
    Sha256(Sha256),
    GitBlob(Sha1),
    Crc32c(u32),
}

/// Hashes of a file as its bytes come in, one for each [`Check`].
pub(super) struct Hashing {
    states: Vec<(Check, State)>,
}

impl Hashing {
    /// Nothing has come yet of a file that will have `size` bytes.
    pub(super) fn new(checks: &[Check], size: u64) -> Self {
        let start = |algorithm| match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::GitBlob => {
                State::GitBlob(Sha1::new_with_prefix(format!("blob {size}\0").as_bytes()))
            }
            Algorithm::Crc32c => State::Crc32c(0),
        };
        Self { states: checks.iter().map(|c| (c.clone(), start(c.algorithm))).collect() }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        for (_, state) in &mut self.states {
            match state {
                State::Sha256(hash) => hash.update(bytes),
                State::GitBlob(hash) => hash.update(bytes),
                State::Crc32c(sum) => *sum = crc32c(*sum, bytes),
            }
        }
    }

    /// Whether the file `name`, now complete, is the promised one.
    pub(super) fn finish(self, name: &str) -> Result<(), HubError> {
        for (check, state) in self.states {
            let found = match state {
                State::Sha256(hash) => hex(&hash.finalize()),
                State::GitBlob(hash) => hex(&hash.finalize()),
                State::Crc32c(sum) => hex(&sum.to_be_bytes()),
            };
            check.against(name, &found)?;
        }
        Ok(())
    }
}

/// Reads the file at `path` to the end and compares it with `checks`.
pub(super) fn verify(path: &Path, name: &str, checks: &[Check]) -> Result<(), HubError> {
    let mut file = std::fs::File::open(path).map_err(HubError::io(path))?;
    let size = file.metadata().map_err(HubError::io(path))?.len();
    let mut hashing = Hashing::new(checks, size);
    feed(&mut file, &mut hashing).map_err(HubError::io(path))?;
    hashing.finish(name)
}

/// Feeds everything that `reader` still holds to `hashing`; returns how many bytes that was.
pub(super) fn feed(reader: &mut impl Read, hashing: &mut Hashing) -> std::io::Result<u64> {
    let mut buffer = vec![0; 1 << 18];
    let mut total = 0;
    loop {
        let n = match reader.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        hashing.update(&buffer[..n]);
        total += n as u64;
    }
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Remainders for eight bytes at a time ("slicing by 8"), of the reversed polynomial 0x82F63B78.
const CRC_TABLES: [[u32; 256]; 8] = {
    let mut tables = [[0; 256]; 8];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82F6_3B78 } else { crc >> 1 };
            bit += 1;
        }
        tables[0][i] = crc;
        i += 1;
    }
    let mut t = 1;
    while t < 8 {
        let mut i = 0;
        while i < 256 {
            let before = tables[t - 1][i];
            tables[t][i] = (before >> 8) ^ tables[0][(before & 0xFF) as usize];
            i += 1;
        }
        t += 1;
    }
    tables
};

/// CRC-32C of what had the sum `sum` and then of `bytes`; the sum of nothing is 0.
fn crc32c(sum: u32, bytes: &[u8]) -> u32 {
    let mut crc = !sum;
    let mut words = bytes.chunks_exact(8);
    for word in words.by_ref() {
        let first = crc ^ u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        let ahead = |table: usize, byte: u8| CRC_TABLES[table][byte as usize];
        let [a, b, c, d] = first.to_le_bytes();
        crc = ahead(7, a)
            ^ ahead(6, b)
            ^ ahead(5, c)
            ^ ahead(4, d)
            ^ ahead(3, word[4])
            ^ ahead(2, word[5])
            ^ ahead(1, word[6])
            ^ ahead(0, word[7]);
    }
    for &byte in words.remainder() {
        crc = (crc >> 8) ^ CRC_TABLES[0][((crc ^ u32::from(byte)) & 0xFF) as usize];
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(algorithm: Algorithm, pieces: &[&[u8]]) -> String {
        let size = pieces.iter().map(|p| p.len() as u64).sum();
        let wrong = Check { algorithm, digits: "-".to_owned() };
        let mut hashing = Hashing::new(&[wrong], size);
        for piece in pieces {
            hashing.update(piece);
        }
        match hashing.finish("file") {
            Err(HubError::WrongHash { found, .. }) => found,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn hashes_are_those_of_their_standards() {
        // FIPS 180-4, "abc"; `printf abc | git hash-object --stdin`; RFC 3720, B.4 and the
        // check value of the CRC catalogue.
        let sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(found(Algorithm::Sha256, &[b"abc"]), sha);
        let git = "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f";
        assert_eq!(found(Algorithm::GitBlob, &[b"abc"]), git);
        assert_eq!(found(Algorithm::Crc32c, &[b"123456789"]), "e3069283");
        assert_eq!(found(Algorithm::Crc32c, &[&[0; 32]]), "8a9136aa");
        let ascending: Vec<u8> = (0..32).collect();
        assert_eq!(found(Algorithm::Crc32c, &[&ascending]), "46dd794e");
    }

    #[test]
    fn a_hash_does_not_depend_on_how_the_bytes_arrive() {
        let bytes: Vec<u8> = (0..999_u32).map(|i| (i * 7) as u8).collect();
        for algorithm in [Algorithm::Sha256, Algorithm::GitBlob, Algorithm::Crc32c] {
            let whole = found(algorithm, &[&bytes]);
            for cut in [0, 1, 7, 8, 9, 500, 998] {
                assert_eq!(found(algorithm, &[&bytes[..cut], &bytes[cut..]]), whole);
            }
        }
    }

    #[test]
    fn a_pinned_beginning_accepts_the_hash_and_refuses_others() {
        assert!(Check::sha256("BA7816BF8F01").against("f", "ba7816bf8f01cfea").is_ok());
        assert!(Check::sha256("ba7816bf8f02").against("f", "ba7816bf8f01cfea").is_err());
    }

    #[test]
    fn an_entity_tag_is_a_hash_only_if_it_looks_like_one() {
        let algorithm = |etag: &str| Check::of_etag(etag).map(|check| check.algorithm);
        assert_eq!(algorithm(&"a".repeat(64)), Some(Algorithm::Sha256));
        assert_eq!(algorithm(&"0".repeat(40)), Some(Algorithm::GitBlob));
        assert_eq!(algorithm(&"z".repeat(40)), None);
        assert_eq!(algorithm("d41d8cd98f00b204e9800998ecf8427e-3"), None);
    }
}
