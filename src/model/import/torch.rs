//! What `torch.save` writes: a pickle that describes tensors, and their storages.
//!
//! Since torch 1.6 that is a zip archive with the entries `data.pkl` and `data/KEY`; before, the
//! pickles and storages simply followed each other. Only descriptions are read here; the tensors
//! stay in the file.
//!
//! Source: `PyTorch`'s `torch/serialization.py`, `_save` and `_legacy_save`.

use std::collections::HashMap;
use std::ops::Range;

use super::checkpoint::Entry;
use super::pickle::{self, Node, Storage, Tensor, Unpickled, Value};
use super::zip::Directory;

/// Descriptions of the largest published file take less than a tenth of this.
const MAX_PICKLE: usize = 16 << 20;

/// What a file of the old form begins with: protocol 2 and the number `0x1950a86a20f9469cfc6c`.
const OLD_MAGIC: [u8; 14] =
    [0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Finds the tensors in the whole file `bytes`: those of its entry `model` where it has one,
/// beside whatever a training run kept, else all of them.
///
/// # Errors
///
/// A sentence without the file's name.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<(String, Entry)>, String> {
    if bytes.starts_with(&OLD_MAGIC) {
        return read_old(bytes);
    }
    let directory = Directory::read(bytes)?;
    let is_pickle = |name: &&str| *name == "data.pkl" || name.ends_with("/data.pkl");
    let pickles: Vec<&str> = directory.names().filter(is_pickle).collect();
    let &[name] = pickles.as_slice() else {
        return Err("it is a zip file, but not one that torch.save wrote".to_owned());
    };
    let prefix = name.strip_suffix("data.pkl").unwrap_or_default();
    if let Some(order) = directory.get(&format!("{prefix}byteorder"))
        && &bytes[order] != b"little"
    {
        return Err("its numbers are not little-endian".to_owned());
    }
    let description = directory.get(name).map_or(&[][..], |range| &bytes[range]);
    if description.len() > MAX_PICKLE {
        return Err(format!("its pickle is {} bytes long", description.len()));
    }
    let unpickled = pickle::read(description)?;
    let mut found = Vec::new();
    for (name, tensor) in model_tensors(&unpickled)? {
        let storage = tensor.storage;
        let data = directory.get(&format!("{prefix}data/{}", storage.key));
        let data = data.ok_or_else(|| format!("the data of tensor `{name}` is not in it"))?;
        found.push((name.to_owned(), entry(name, tensor, data)?));
    }
    Ok(found)
}

/// Pickles of a magic number, a version, the machine, the object and the storages' keys, then
/// each storage with its length before it.
fn read_old(bytes: &[u8]) -> Result<Vec<(String, Entry)>, String> {
    let mut at = 0;
    let mut next = || {
        let rest = &bytes[at..];
        let unpickled = pickle::read(&rest[..rest.len().min(MAX_PICKLE)])?;
        at += unpickled.len;
        Ok::<_, String>(unpickled)
    };
    let (_magic, _version, _machine, object, keys) = (next()?, next()?, next()?, next()?, next()?);
    let mut sizes: HashMap<&str, Storage<'_>> = HashMap::new();
    for node in object.nodes() {
        if let &Node::Storage(storage) = node {
            sizes.insert(storage.key, storage);
        }
    }
    let Some(Node::List(keys)) = keys.node(keys.root) else {
        return Err("it has no list of storages".to_owned());
    };
    let mut data: HashMap<&str, Range<usize>> = HashMap::new();
    for key in keys {
        let Value::Text(key) = *key else {
            return Err("the key of a storage is no text".to_owned());
        };
        let storage = sizes.get(key).ok_or_else(|| format!("storage `{key}` is unknown"))?;
        let len = storage.len.checked_mul(storage.element.size());
        let range = len.and_then(|len| Some(at + 8..(at + 8).checked_add(len)?));
        let range = range.filter(|range| range.end <= bytes.len());
        let range = range.ok_or_else(|| format!("storage `{key}` is cut short"))?;
        if bytes[at..at + 8] != (storage.len as u64).to_le_bytes() {
            return Err(format!("storage `{key}` does not have the length it should have"));
        }
        at = range.end;
        data.insert(key, range);
    }
    let mut found = Vec::new();
    for (name, tensor) in model_tensors(&object)? {
        let data = data.get(tensor.storage.key).cloned();
        let data = data.ok_or_else(|| format!("the data of tensor `{name}` is not in it"))?;
        found.push((name.to_owned(), entry(name, tensor, data)?));
    }
    Ok(found)
}

/// Names and tensors of the state dictionary.
fn model_tensors<'p, 'a>(
    unpickled: &'p Unpickled<'a>,
) -> Result<Vec<(&'a str, &'p Tensor<'a>)>, String> {
    let no_weights = || "it holds no weights by name".to_owned();
    let dict = |value| match unpickled.node(value) {
        Some(Node::Dict(items)) => Some(items),
        _ => None,
    };
    let top = dict(unpickled.root).ok_or_else(no_weights)?;
    let nested = top.iter().rev().find(|(key, _)| *key == Value::Text("model"));
    let items = nested.and_then(|(_, value)| dict(*value)).unwrap_or(top);
    let mut tensors = Vec::with_capacity(items.len());
    for (key, value) in items {
        let Value::Text(name) = *key else {
            return Err("one of its weights has no name".to_owned());
        };
        let Some(Node::Tensor(tensor)) = unpickled.node(*value) else {
            return Err(format!("its entry `{name}` is no tensor"));
        };
        tensors.push((name, tensor));
    }
    if tensors.is_empty() { Err(no_weights()) } else { Ok(tensors) }
}

/// Checks that all of a tensor's elements lie in its storage and that this lies in `data`.
fn entry(name: &str, tensor: &Tensor<'_>, data: Range<usize>) -> Result<Entry, String> {
    let Storage { element, len, .. } = tensor.storage;
    let outside = || format!("tensor `{name}` reaches beyond its data (download the file again)");
    let bytes = len.checked_mul(element.size()).ok_or_else(outside)?;
    if bytes > data.len() {
        return Err(outside());
    }
    let count = tensor.shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(d));
    let count = count.ok_or_else(outside)?;
    let last = tensor.shape.iter().zip(&tensor.strides).try_fold(tensor.offset, |at, (&d, &s)| {
        at.checked_add(d.saturating_sub(1).checked_mul(s)?)
    });
    if count > 0 && last.is_none_or(|last| last >= len) {
        return Err(outside());
    }
    // An empty tensor may claim to begin anywhere.
    let offset = if count == 0 { 0 } else { tensor.offset * element.size() };
    Ok(Entry {
        file: 0,
        element,
        shape: tensor.shape.clone(),
        strides: tensor.strides.clone(),
        start: data.start + offset,
    })
}

#[cfg(test)]
mod tests {
    use super::super::zip;
    use super::*;

    fn text(text: &str) -> Vec<u8> {
        [&[b'X'][..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
    }

    fn numbers(values: &[u8]) -> Vec<u8> {
        let items = values.iter().flat_map(|&n| [b'K', n]);
        [b'('].into_iter().chain(items).chain([b't']).collect()
    }

    /// `_rebuild_tensor_v2` of a float storage of `len` elements.
    fn tensor(key: &str, len: u8, offset: u8, shape: &[u8], strides: &[u8]) -> Vec<u8> {
        let mut out = b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec();
        out.extend(text("storage"));
        out.extend(b"ctorch\nFloatStorage\n");
        out.extend(text(key));
        out.extend(text("cpu"));
        out.extend([b'K', len, b't', b'Q', b'K', offset]);
        out.extend(numbers(shape));
        out.extend(numbers(strides));
        out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
        out
    }

    fn dict(items: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let items = items.iter().flat_map(|(key, value)| [text(key), value.clone()].concat());
        b"}(".iter().copied().chain(items).chain([b'u']).collect()
    }

    fn pickle(value: &[u8]) -> Vec<u8> {
        [b"\x80\x02", value, b"."].concat()
    }

    fn archive(value: &[u8], floats: usize) -> Vec<u8> {
        let data: Vec<u8> = (0..floats).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let description = pickle(value);
        let entries = [
            ("x/data.pkl", description.as_slice()),
            ("x/byteorder", b"little"),
            ("x/data/0", &data),
        ];
        zip::tests::stored(&entries, false)
    }

    #[test]
    fn a_flat_dictionary_gives_its_tensors_with_offset_and_strides() {
        let bytes = archive(&dict(&[("w", tensor("0", 12, 2, &[3, 2], &[1, 3]))]), 12);
        let found = read(&bytes).unwrap();
        let [(name, entry)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((name.as_str(), entry.element), ("w", pickle::Element::F32));
        assert_eq!((entry.shape.as_slice(), entry.strides.as_slice()), (&[3, 2][..], &[1, 3][..]));
        assert_eq!(bytes[entry.start..entry.start + 4], 2.0_f32.to_le_bytes());
    }

    #[test]
    fn only_the_model_counts_beside_what_training_kept() {
        let model = dict(&[("w", tensor("0", 4, 0, &[4], &[1]))]);
        let optimizer = dict(&[("state", tensor("missing", 9, 0, &[9], &[1]))]);
        let bytes = archive(&dict(&[("optimizer", optimizer), ("model", model)]), 4);
        let found = read(&bytes).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, "w");
    }

    #[test]
    fn names_that_would_run_code_are_refused_by_name() {
        for (module, name) in [("os", "system"), ("posix", "system"), ("builtins", "eval")] {
            let call = [format!("c{module}\n{name}\n(").as_bytes(), &text("true"), b"tR"].concat();
            let error = read(&archive(&dict(&[("w", call)]), 4)).unwrap_err();
            assert!(error.contains(&format!("`{module}.{name}`")), "{error}");
            let stack_global = [text(module), text(name), vec![0x93]].concat();
            let error = read(&archive(&dict(&[("w", stack_global)]), 4)).unwrap_err();
            assert!(error.contains(&format!("`{module}.{name}`")), "{error}");
        }
    }

    #[test]
    fn a_tensor_that_reaches_beyond_its_storage_is_refused_by_name() {
        for broken in [
            tensor("0", 4, 1, &[4], &[1]),
            tensor("0", 4, 0, &[2, 2], &[3, 1]),
            tensor("0", 5, 0, &[5], &[1]), // the entry holds four
            tensor("1", 4, 0, &[4], &[1]), // there is no such entry
        ] {
            let error = read(&archive(&dict(&[("broken.weight", broken)]), 4)).unwrap_err();
            assert!(error.contains("`broken.weight`"), "{error}");
        }
        assert!(read(&archive(&dict(&[("w", tensor("0", 4, 200, &[0], &[1]))]), 4)).is_ok());
    }

    #[test]
    fn what_is_no_tensor_is_refused_by_name() {
        let bytes = archive(&dict(&[("w", text("text"))]), 4);
        assert!(read(&bytes).unwrap_err().contains("`w` is no tensor"));
        assert!(read(&archive(&dict(&[]), 4)).unwrap_err().contains("no weights"));
        assert!(read(&archive(&text("text"), 4)).unwrap_err().contains("no weights"));
    }

    #[test]
    fn a_pickle_cut_or_changed_anywhere_is_refused_or_read_but_never_panics() {
        let whole = dict(&[
            ("a", tensor("0", 4, 0, &[2, 2], &[2, 1])),
            ("b", tensor("0", 4, 1, &[3], &[1])),
        ]);
        for len in 0..whole.len() {
            assert!(read(&archive(&whole[..len], 4)).is_err(), "{len} of {}", whole.len());
        }
        for at in 0..whole.len() {
            for value in 0..=255 {
                let mut changed = whole.clone();
                changed[at] = value;
                let bytes = archive(&changed, 4);
                for (name, entry) in read(&bytes).unwrap_or_default() {
                    let sizes = entry.shape.iter().zip(&entry.strides);
                    let last: usize = sizes.map(|(d, s)| d.saturating_sub(1) * s).sum();
                    let count = entry.shape.iter().product::<usize>().min(1);
                    let end = entry.start + (last + 1) * count * entry.element.size();
                    assert!(end <= bytes.len(), "`{name}` ends at {end}");
                }
            }
        }
    }

    #[test]
    fn files_from_before_torch_1_6_are_read_too() {
        let object = dict(&[("w", tensor("s", 4, 1, &[3], &[1]))]);
        let mut bytes = OLD_MAGIC.to_vec();
        bytes.push(b'.');
        bytes.extend(pickle(&[b'M', 0xe9, 3]));
        bytes.extend(pickle(&dict(&[("little_endian", vec![0x88])])));
        bytes.extend(pickle(&object));
        bytes.extend(pickle(&[&b"]("[..], &text("s"), b"e"].concat()));
        bytes.extend(4_u64.to_le_bytes());
        bytes.extend((0..4).flat_map(|i| (i as f32).to_le_bytes()));
        let found = read(&bytes).unwrap();
        assert_eq!(found[0].0, "w");
        let start = found[0].1.start;
        assert_eq!(bytes[start..start + 4], 1.0_f32.to_le_bytes());
        assert!(read(&bytes[..bytes.len() - 1]).unwrap_err().contains("cut short"));
    }
}
