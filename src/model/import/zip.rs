//! The directory of a zip file whose entries are stored, not compressed: what `torch.save` writes.
//!
//! Files come from strangers: every offset and length is checked against the bytes that are
//! there. Errors are sentences without the file's name.
//!
//! Source: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 and 4.5.3 (zip64).

use std::collections::HashMap;
use std::ops::Range;

const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const END_64_LOCATOR: u32 = 0x0706_4b50;
const ENTRY: u32 = 0x0201_4b50;
const LOCAL: u32 = 0x0403_4b50;
const END_LEN: usize = 22;
const LOCATOR_LEN: usize = 20;
const MAX_COMMENT: usize = u16::MAX as usize;
const TRUNCATED: &str = "it is no complete zip file: its directory is missing (download it again)";

/// Where each entry's data lies in the file.
#[derive(Debug)]
pub(super) struct Directory {
    entries: HashMap<String, Range<usize>>,
}

impl Directory {
    /// Reads the directory of the whole file `bytes`.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let end = find_end(bytes)?;
        let (mut count, mut len, mut start) = (
            u64::from(u16_at(bytes, end + 10)?),
            u64::from(u32_at(bytes, end + 12)?),
            u64::from(u32_at(bytes, end + 16)?),
        );
        // Values that do not fit stand in the zip64 record, to which a locator before the
        // end points.
        if let Some(locator) = end.checked_sub(LOCATOR_LEN)
            && u32_at(bytes, locator)? == END_64_LOCATOR
        {
            let at = to_usize(u64_at(bytes, locator + 8)?)?;
            if u32_at(bytes, at)? != END_64 {
                return Err(TRUNCATED.to_owned());
            }
            count = u64_at(bytes, field(at, 32)?)?;
            len = u64_at(bytes, field(at, 40)?)?;
            start = u64_at(bytes, field(at, 48)?)?;
        }
        let (start, len) = (to_usize(start)?, to_usize(len)?);
        let directory = slice(bytes, start, len)?;
        let mut entries = HashMap::new();
        let mut at = 0;
        for _ in 0..count {
            let (name, data, next) = read_entry(bytes, directory, at)?;
            if entries.insert(name.to_owned(), data).is_some() {
                return Err(format!("its entry `{name}` appears twice"));
            }
            at = next;
        }
        Ok(Self { entries })
    }

    /// Where the data of the entry of that name lies.
    pub(super) fn get(&self, name: &str) -> Option<Range<usize>> {
        self.entries.get(name).cloned()
    }

    /// Names of all entries, in no order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }
}

fn find_end(bytes: &[u8]) -> Result<usize, String> {
    let last = bytes.len().checked_sub(END_LEN).ok_or(TRUNCATED)?;
    let first = last.saturating_sub(MAX_COMMENT);
    let is_end = |&at: &usize| {
        u32_at(bytes, at) == Ok(END)
            && u16_at(bytes, at + 20).is_ok_and(|comment| usize::from(comment) == last - at)
    };
    (first..=last).rev().find(is_end).ok_or_else(|| TRUNCATED.to_owned())
}

/// Name and data of the entry at `at` of the directory, and where the next one stands.
fn read_entry<'a>(
    bytes: &[u8],
    directory: &'a [u8],
    at: usize,
) -> Result<(&'a str, Range<usize>, usize), String> {
    let head = slice(directory, at, 46)?;
    if u32_at(head, 0)? != ENTRY {
        return Err("its zip directory is damaged".to_owned());
    }
    let name_len = usize::from(u16_at(head, 28)?);
    let extra_len = usize::from(u16_at(head, 30)?);
    let comment_len = usize::from(u16_at(head, 32)?);
    let name = std::str::from_utf8(slice(directory, at + 46, name_len)?)
        .map_err(|_| "a name in its zip directory is not UTF-8".to_owned())?;
    let extra = slice(directory, at + 46 + name_len, extra_len)?;
    let (flags, method) = (u16_at(head, 8)?, u16_at(head, 10)?);
    if method != 0 || flags & 1 == 1 {
        return Err(format!("its entry `{name}` is compressed or encrypted"));
    }
    let mut sizes = [
        u64::from(u32_at(head, 24)?), // uncompressed, as both sizes are equal
        u64::from(u32_at(head, 20)?),
        u64::from(u32_at(head, 42)?), // offset of the local header
    ];
    if sizes.contains(&u64::from(u32::MAX)) {
        widen(&mut sizes, extra)?;
    }
    let [size, stored, local] = sizes;
    if size != stored {
        return Err(format!("its entry `{name}` has two different sizes"));
    }
    let (size, local) = (to_usize(size)?, to_usize(local)?);
    // The local header repeats the name and has an extra field of another length, which
    // torch uses to align the data.
    let local_head = slice(bytes, local, 30)?;
    if u32_at(local_head, 0)? != LOCAL {
        return Err(format!("its entry `{name}` is not where the zip directory says"));
    }
    let skip = 30 + usize::from(u16_at(local_head, 26)?) + usize::from(u16_at(local_head, 28)?);
    let data = field(local, skip)?;
    slice(bytes, data, size)
        .map_err(|_| format!("its entry `{name}` is cut short (download it again)"))?;
    Ok((name, data..data + size, at + 46 + name_len + extra_len + comment_len))
}

/// Replaces the values that are all ones by those of the zip64 field of `extra`.
fn widen(values: &mut [u64; 3], extra: &[u8]) -> Result<(), String> {
    let mut at = 0;
    while at + 4 <= extra.len() {
        let (id, len) = (u16_at(extra, at)?, usize::from(u16_at(extra, at + 2)?));
        let content = slice(extra, at + 4, len)?;
        if id == 1 {
            let mut from = 0;
            for value in values.iter_mut().filter(|v| **v == u64::from(u32::MAX)) {
                *value = u64_at(content, from)?;
                from += 8;
            }
            return Ok(());
        }
        at += 4 + len;
    }
    Ok(())
}

fn to_usize(n: u64) -> Result<usize, String> {
    usize::try_from(n).map_err(|_| TRUNCATED.to_owned())
}

fn field(at: usize, offset: usize) -> Result<usize, String> {
    at.checked_add(offset).ok_or_else(|| TRUNCATED.to_owned())
}

fn slice(bytes: &[u8], at: usize, len: usize) -> Result<&[u8], String> {
    let end = field(at, len)?;
    bytes.get(at..end).ok_or_else(|| TRUNCATED.to_owned())
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], String> {
    let found = slice(bytes, at, N)?.first_chunk().copied();
    found.ok_or_else(|| TRUNCATED.to_owned())
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, String> {
    number(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, String> {
    number(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, String> {
    number(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A zip file with these entries; `wide` writes every size and offset as zip64.
    pub(crate) fn stored(entries: &[(&str, &[u8])], wide: bool) -> Vec<u8> {
        let (mut out, mut directory) = (Vec::new(), Vec::new());
        for (name, data) in entries {
            let offset = out.len();
            let small = |n: usize| if wide { u32::MAX } else { n as u32 }.to_le_bytes();
            let mut extra = Vec::new();
            if wide {
                extra.extend([9, 9, 2, 0, 0, 0, 1, 0, 24, 0]);
                for n in [data.len(), data.len(), offset] {
                    extra.extend((n as u64).to_le_bytes());
                }
            }
            out.extend(LOCAL.to_le_bytes());
            out.extend([0; 22]);
            out.extend((name.len() as u16).to_le_bytes());
            out.extend([5, 0]);
            out.extend(name.as_bytes());
            out.extend(b"align");
            out.extend(*data);
            directory.extend(ENTRY.to_le_bytes());
            directory.extend([0; 16]);
            directory.extend(small(data.len()));
            directory.extend(small(data.len()));
            directory.extend((name.len() as u16).to_le_bytes());
            directory.extend((extra.len() as u16).to_le_bytes());
            directory.extend([0; 10]);
            directory.extend(small(offset));
            directory.extend(name.as_bytes());
            directory.extend(extra);
        }
        let (start, end) = (out.len(), out.len() + directory.len());
        out.extend(&directory);
        if wide {
            out.extend(END_64.to_le_bytes());
            out.extend([0; 28]);
            for n in [entries.len(), directory.len(), start] {
                out.extend((n as u64).to_le_bytes());
            }
            out.extend(END_64_LOCATOR.to_le_bytes());
            out.extend([0; 4]);
            out.extend((end as u64).to_le_bytes());
            out.extend([0; 4]);
        }
        out.extend(END.to_le_bytes());
        out.extend([0; 6]);
        out.extend((entries.len() as u16).to_le_bytes());
        out.extend((directory.len() as u32).to_le_bytes());
        out.extend(if wide { u32::MAX } else { start as u32 }.to_le_bytes());
        out.extend([0; 2]);
        out
    }

    #[test]
    fn entries_are_found_in_both_forms_of_directory() {
        for wide in [false, true] {
            let bytes = stored(&[("a/data.pkl", b"first"), ("a/data/0", b"second one")], wide);
            let directory = Directory::read(&bytes).unwrap();
            assert_eq!(&bytes[directory.get("a/data.pkl").unwrap()], b"first");
            assert_eq!(&bytes[directory.get("a/data/0").unwrap()], b"second one");
            assert_eq!(directory.get("a/data/1"), None);
            assert_eq!(directory.names().count(), 2);
        }
    }

    #[test]
    fn a_zip_cut_anywhere_or_changed_anywhere_is_refused_or_read_but_never_panics() {
        for wide in [false, true] {
            let bytes = stored(&[("a/data.pkl", b"first"), ("a/data/0", b"second one")], wide);
            for len in 0..bytes.len() {
                assert!(Directory::read(&bytes[..len]).is_err(), "{len} of {}", bytes.len());
            }
            for at in 0..bytes.len() {
                for value in [0, 1, 0x7f, 0xff] {
                    let mut changed = bytes.clone();
                    changed[at] = value;
                    if let Ok(directory) = Directory::read(&changed) {
                        let inside = |d: Range<usize>| d.end <= changed.len();
                        assert!(directory.entries.into_values().all(inside));
                    }
                }
            }
        }
    }

    #[test]
    fn two_entries_of_one_name_are_refused() {
        let bytes = stored(&[("a", b"1"), ("a", b"2")], false);
        assert!(Directory::read(&bytes).unwrap_err().contains("`a` appears twice"));
    }
}
