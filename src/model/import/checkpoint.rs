//! Published weights on disk: names and shapes now, values one tensor at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::{bf16, f16};
use memmap2::{Mmap, UncheckedAdvice};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::error::{ImportError, Result};
use super::pickle::Element;
use super::torch;

/// A tensor in a file; all of its elements are known to lie inside.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Which of the checkpoint's files.
    pub(super) file: usize,
    pub(super) element: Element,
    pub(super) shape: Vec<usize>,
    /// Distances in elements.
    pub(super) strides: Vec<usize>,
    /// Byte of the first element in the file.
    pub(super) start: usize,
}

/// One file, or several that an index joins.
#[derive(Debug)]
pub(super) struct Checkpoint {
    /// What messages name: the file, or the index of several.
    path: PathBuf,
    files: Vec<Mapped>,
    tensors: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Mapped {
    path: PathBuf,
    map: Mmap,
}

/// A tensor of some checkpoint.
#[derive(Debug, Clone)]
pub(super) struct TensorRef {
    checkpoint: Arc<Checkpoint>,
    name: String,
}

/// Names that a folder of weights may use, the best first.
const IN_FOLDER: [&str; 4] = [
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
];

impl Checkpoint {
    /// Opens a file of weights (zip or old torch, safetensors), an index of several, or the
    /// first of the usual names in a folder.
    pub(super) fn open(path: &Path) -> Result<Arc<Self>> {
        if path.is_dir() {
            let found = IN_FOLDER.iter().map(|name| path.join(name)).find(|file| file.is_file());
            let found = found.ok_or_else(|| {
                let what = format!("the folder holds none of {}", IN_FOLDER.join(", "));
                ImportError::format(path, what)
            })?;
            return Self::open(&found);
        }
        let files = match path.extension() {
            Some(extension) if extension == "json" => shards(path)?,
            _ => vec![path.to_owned()],
        };
        let mut opened =
            Self { path: path.to_owned(), files: Vec::new(), tensors: BTreeMap::new() };
        for file in files {
            opened.add(file)?;
        }
        Ok(Arc::new(opened))
    }

    fn add(&mut self, path: PathBuf) -> Result<()> {
        let file = File::open(&path).map_err(|e| ImportError::io(&path, e))?;
        if file.metadata().map_err(|e| ImportError::io(&path, e))?.len() == 0 {
            return Err(ImportError::format(&path, "the file is empty"));
        }
        #[expect(unsafe_code, reason = "files larger than memory are read in place")]
        // SAFETY: the map is read only and every access is bounded by its length. A file that
        // another program changes during an import gives wrong weights or ends the program; its
        // hash, taken first, then does not fit what was read.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| ImportError::io(&path, e))?;
        let is_safetensors = map.get(8) == Some(&b'{');
        let tensors = if is_safetensors { read_safetensors(&map) } else { torch::read(&map) };
        for (name, mut entry) in tensors.map_err(|what| ImportError::format(&path, what))? {
            entry.file = self.files.len();
            if self.tensors.insert(name.clone(), entry).is_some() {
                let what = format!("its tensor `{name}` appears twice");
                return Err(ImportError::format(&path, what));
            }
        }
        self.files.push(Mapped { path, map });
        Ok(())
    }

    /// What messages name.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The files behind it.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Sizes of the tensor `name`, which must be there and have `N` of them.
    pub(super) fn shape<const N: usize>(&self, name: &str) -> Result<[usize; N]> {
        let entry = self.tensors.get(name).ok_or_else(|| self.missing(name))?;
        entry.shape.as_slice().try_into().map_err(|_| ImportError::Value {
            tensor: name.to_owned(),
            path: self.file_of(name).to_owned(),
            what: format!("has the {} sizes {:?}, expected {N}", entry.shape.len(), entry.shape),
        })
    }

    /// The file that holds the tensor `name`.
    pub(super) fn file_of(&self, name: &str) -> &Path {
        let file = self.tensors.get(name).and_then(|entry| self.files.get(entry.file));
        file.map_or(&self.path, |file| &file.path)
    }

    pub(super) fn missing(&self, name: &str) -> ImportError {
        ImportError::Missing { tensor: name.to_owned(), path: self.path.clone() }
    }
}

/// The files that an index names, in the order of their names, all beside it.
fn shards(index: &Path) -> Result<Vec<PathBuf>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = std::fs::read_to_string(index).map_err(|e| ImportError::io(index, e))?;
    let parsed: Index = serde_json::from_str(&text)
        .map_err(|e| ImportError::format(index, format!("it is no index of weights: {e}")))?;
    let names: BTreeSet<String> = parsed.weight_map.into_values().collect();
    let mut files = Vec::new();
    for name in names {
        if Path::new(&name).file_name() != Some(name.as_ref()) {
            let what = format!("it names `{name}`, which is not a file beside it");
            return Err(ImportError::format(index, what));
        }
        files.push(index.with_file_name(name));
    }
    Ok(files)
}

fn read_safetensors(bytes: &[u8]) -> std::result::Result<Vec<(String, Entry)>, String> {
    let broken = |e| format!("it is no complete safetensors file: {e}");
    // Checks that the data lies in the file and that each tensor's has the length of its shape.
    SafeTensors::deserialize(bytes).map_err(broken)?;
    let (header, metadata) = SafeTensors::read_metadata(bytes).map_err(broken)?;
    let mut found = Vec::new();
    for (name, info) in metadata.tensors() {
        let element = match info.dtype {
            Dtype::F32 => Element::F32,
            Dtype::F16 => Element::F16,
            Dtype::BF16 => Element::Bf16,
            Dtype::F64 => Element::F64,
            Dtype::I64 => Element::I64,
            Dtype::I32 => Element::I32,
            other => return Err(format!("tensor `{name}` is of type {other:?}")),
        };
        let mut strides = vec![1; info.shape.len()];
        for i in (1..strides.len()).rev() {
            strides[i - 1] = strides[i] * info.shape[i];
        }
        // Eight bytes of length, the header, the data.
        let start = 8 + header + info.data_offsets.0;
        found.push((name, Entry { file: 0, element, shape: info.shape.clone(), strides, start }));
    }
    Ok(found)
}

impl Mapped {
    /// Lets the system forget pages that are not needed again.
    fn release(&self, start: usize, len: usize) {
        #[expect(unsafe_code, reason = "memmap2 has no safe way to drop clean pages")]
        // SAFETY: the map is read only and backed by a file, so dropped pages come back with
        // the same content when they are touched again.
        let dropped = unsafe {
            self.map.unchecked_advise_range(
                UncheckedAdvice::DontNeed,
                start,
                len.min(self.map.len() - start),
            )
        };
        // Only advice: without it more memory stays in use.
        if let Err(error) = dropped {
            tracing::debug!(%error, "pages were not dropped");
        }
    }
}

impl TensorRef {
    pub(super) fn new(checkpoint: &Arc<Checkpoint>, name: &str) -> Self {
        Self { checkpoint: Arc::clone(checkpoint), name: name.to_owned() }
    }

    fn entry(&self) -> Result<&Entry> {
        let entry = self.checkpoint.tensors.get(&self.name);
        entry.ok_or_else(|| self.checkpoint.missing(&self.name))
    }

    /// An error about this tensor.
    pub(super) fn error(&self, what: impl Into<String>) -> ImportError {
        let path = self.checkpoint.file_of(&self.name).to_owned();
        ImportError::Value { tensor: self.name.clone(), path, what: what.into() }
    }

    /// Checks that it is made of floats and has this shape.
    pub(super) fn check(&self, expected: &[usize]) -> Result<()> {
        let entry = self.entry()?;
        if entry.shape != expected {
            return Err(ImportError::Shape {
                tensor: self.name.clone(),
                path: self.checkpoint.file_of(&self.name).to_owned(),
                found: entry.shape.clone(),
                expected: expected.to_vec(),
            });
        }
        match entry.element {
            Element::F32 | Element::F16 | Element::Bf16 | Element::F64 => Ok(()),
            other => Err(self.error(format!("is of type {other:?}, not a float"))),
        }
    }

    /// Its values in row-major order.
    pub(super) fn read(&self) -> Result<Vec<f32>> {
        let entry = self.entry()?;
        let file = &self.checkpoint.files[entry.file];
        let bytes = &file.map[entry.start..];
        let values = match entry.element {
            Element::F32 => gather(bytes, entry, f32::from_le_bytes),
            Element::F16 => gather(bytes, entry, |b| f16::from_le_bytes(b).to_f32()),
            Element::Bf16 => gather(bytes, entry, |b| bf16::from_le_bytes(b).to_f32()),
            Element::F64 => gather(bytes, entry, |b| f64::from_le_bytes(b) as f32),
            other => return Err(self.error(format!("is of type {other:?}, not a float"))),
        };
        file.release(entry.start, values.len() * entry.element.size());
        if values.iter().all(|v| v.is_finite()) {
            return Ok(values);
        }
        Err(self.error("holds values that are not finite (download the file again)"))
    }
}

/// Reads the elements of `N` bytes at the strides of `entry`; `bytes` begin at the first.
fn gather<const N: usize>(bytes: &[u8], entry: &Entry, widen: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let (elements, _) = bytes.as_chunks::<N>();
    let count: usize = entry.shape.iter().product();
    let mut expected = 1;
    let contiguous = entry.shape.iter().zip(&entry.strides).rev().all(|(&size, &stride)| {
        let fits = size == 1 || stride == expected;
        expected *= size;
        fits
    });
    if contiguous {
        return elements.iter().take(count).map(|&b| widen(b)).collect();
    }
    let mut values = Vec::with_capacity(count);
    let mut index = vec![0; entry.shape.len()];
    for _ in 0..count {
        let at: usize = index.iter().zip(&entry.strides).map(|(i, s)| i * s).sum();
        values.push(widen(elements[at]));
        for (i, &size) in index.iter_mut().zip(&entry.shape).rev() {
            *i += 1;
            if *i < size {
                break;
            }
            *i = 0;
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::TensorView;

    use super::*;

    fn entry(shape: &[usize], strides: &[usize]) -> Entry {
        let (shape, strides) = (shape.to_vec(), strides.to_vec());
        Entry { file: 0, element: Element::I16, shape, strides, start: 0 }
    }

    fn gathered(shape: &[usize], strides: &[usize]) -> Vec<i32> {
        let bytes: Vec<u8> = (0..24_i16).flat_map(i16::to_le_bytes).collect();
        let values = gather(&bytes, &entry(shape, strides), |b| i16::from_le_bytes(b).into());
        values.into_iter().map(|v| v as i32).collect()
    }

    #[test]
    fn values_come_in_row_major_order_whatever_the_strides() {
        assert_eq!(gathered(&[2, 3], &[3, 1]), [0, 1, 2, 3, 4, 5]);
        assert_eq!(gathered(&[3, 2], &[1, 3]), [0, 3, 1, 4, 2, 5], "a transposed matrix");
        assert_eq!(gathered(&[2, 2], &[12, 5]), [0, 5, 12, 17], "a slice of a larger one");
        assert_eq!(gathered(&[2, 3], &[0, 1]), [0, 1, 2, 0, 1, 2], "a repeated row");
        assert_eq!(gathered(&[2, 1, 2], &[2, 99, 1]), [0, 1, 2, 3], "one of a kind has any stride");
        assert_eq!(gathered(&[], &[]), [0]);
        assert!(gathered(&[0, 3], &[3, 1]).is_empty());
    }

    #[test]
    fn every_float_type_is_widened_and_integers_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("types.safetensors");
        let halves: Vec<u8> =
            [1.5, -2.0].into_iter().flat_map(|v| f16::from_f32(v).to_le_bytes()).collect();
        let brains: Vec<u8> =
            [1.5, -2.0].into_iter().flat_map(|v| bf16::from_f32(v).to_le_bytes()).collect();
        let doubles: Vec<u8> = [1.5_f64, -2.0].into_iter().flat_map(f64::to_le_bytes).collect();
        let integers: Vec<u8> = [1_i64, -2].into_iter().flat_map(i64::to_le_bytes).collect();
        let views = [
            ("f16", Dtype::F16, &halves),
            ("bf16", Dtype::BF16, &brains),
            ("f64", Dtype::F64, &doubles),
            ("i64", Dtype::I64, &integers),
        ]
        .map(|(name, dtype, data)| (name, TensorView::new(dtype, vec![2], data).unwrap()));
        safetensors::serialize_to_file(views, None, &path).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        for name in ["f16", "bf16", "f64"] {
            let tensor = TensorRef::new(&checkpoint, name);
            tensor.check(&[2]).unwrap();
            assert_eq!(tensor.read().unwrap(), [1.5, -2.0], "{name}");
        }
        let error = TensorRef::new(&checkpoint, "i64").check(&[2]).unwrap_err().to_string();
        assert!(error.contains("`i64`") && error.contains("not a float"), "{error}");
    }

    #[test]
    fn a_folder_without_weights_is_refused_with_the_names_that_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("model.safetensors, pytorch_model.bin.index.json"), "{error}");
    }
}
