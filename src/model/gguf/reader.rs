//! Reads what stands before the data and believes nothing of it.

use std::collections::{HashMap, HashSet};

use candle_core::quantized::GgmlDType;

use super::{ALIGNMENT, Header, MAGIC, TensorInfo, VERSION, Value, dtype_number, size_in_bytes};

const MAX_DIMS: u32 = 4;
const MAX_NAME: u64 = 512;
const MAX_NESTING: u8 = 4;

/// Every type that a bundle may hold.
const DTYPES: [GgmlDType; 13] = [
    GgmlDType::F32,
    GgmlDType::F16,
    GgmlDType::BF16,
    GgmlDType::Q4_0,
    GgmlDType::Q4_1,
    GgmlDType::Q5_0,
    GgmlDType::Q5_1,
    GgmlDType::Q8_0,
    GgmlDType::Q2K,
    GgmlDType::Q3K,
    GgmlDType::Q4K,
    GgmlDType::Q5K,
    GgmlDType::Q6K,
];

/// A cursor over bytes from a stranger; errors are sentences without the file's name.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    fn take(&mut self, len: u64, what: &str) -> Result<&'a [u8], String> {
        if len > self.left() {
            return Err(format!(
                "{what} needs {len} bytes at offset {}, the file has {} left",
                self.at,
                self.left()
            ));
        }
        let slice = &self.bytes[self.at..self.at + len as usize];
        self.at += len as usize;
        Ok(slice)
    }

    fn u32(&mut self, what: &str) -> Result<u32, String> {
        let bytes = self.take(4, what)?;
        Ok(bytes.iter().rev().fold(0, |n, &b| n << 8 | u32::from(b)))
    }

    fn u64(&mut self, what: &str) -> Result<u64, String> {
        let bytes = self.take(8, what)?;
        Ok(bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)))
    }

    fn text(&mut self, limit: u64, what: &str) -> Result<&'a str, String> {
        let len = self.u64(what)?;
        if len > limit {
            return Err(format!("{what} is {len} bytes long, at most {limit} are allowed"));
        }
        std::str::from_utf8(self.take(len, what)?).map_err(|_| format!("{what} is not UTF-8"))
    }

    /// Reads one value of `kind`; `None` for one of a type that bundles do not use.
    fn value(&mut self, kind: u32, depth: u8, key: &str) -> Result<Option<Value>, String> {
        if let Some(width) = number_width(kind) {
            let bytes = self.take(width, key)?;
            let unsigned = matches!(kind, 0 | 2 | 4 | 10);
            let number = bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
            return Ok(unsigned.then_some(Value::Unsigned(number)));
        }
        match kind {
            8 => Ok(Some(Value::Text(self.text(u64::MAX, key)?.to_owned()))),
            9 => {
                let (item, count) = (self.u32(key)?, self.u64(key)?);
                if let Some(width) = number_width(item) {
                    let len = count.checked_mul(width).ok_or_else(|| too_long(key))?;
                    let bytes = self.take(len, key)?;
                    return Ok((item == 0).then(|| Value::Bytes(bytes.to_vec())));
                }
                if depth == MAX_NESTING {
                    return Err(format!("metadata `{key}` nests arrays too deeply"));
                }
                // Each item takes at least eight bytes, so a huge count fails early.
                for _ in 0..count {
                    self.value(item, depth + 1, key)?;
                }
                Ok(None)
            }
            _ => Err(format!("metadata `{key}` has the unknown type {kind}")),
        }
    }
}

fn too_long(key: &str) -> String {
    format!("metadata `{key}` is longer than any file")
}

/// Bytes of a number or boolean of metadata type `kind`.
fn number_width(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

/// Reads what stands before the tensor data of the whole file `bytes`.
///
/// # Errors
///
/// A sentence that says what is wrong, for a file that is no GGUF v3, is cut short, or
/// names a tensor twice, out of bounds or of a type or size it cannot have.
pub(crate) fn read_header(bytes: &[u8]) -> Result<Header, String> {
    let mut reader = Reader { bytes, at: 0 };
    if reader.take(4, "the file").ok() != Some(MAGIC.as_slice()) {
        return Err("this is not a GGUF file".to_owned());
    }
    let version = reader.u32("the version")?;
    if version != VERSION {
        return Err(format!("GGUF version {version} is not supported, only {VERSION} is"));
    }
    let n_tensors = reader.u64("the number of tensors")?;
    let n_values = reader.u64("the number of metadata values")?;
    let mut metadata = HashMap::new();
    for _ in 0..n_values {
        let key = reader.text(MAX_NAME, "a metadata key")?;
        let kind = reader.u32(key)?;
        if let Some(value) = reader.value(kind, 0, key)?
            && metadata.insert(key.to_owned(), value).is_some()
        {
            return Err(format!("metadata `{key}` appears twice"));
        }
    }
    let tensors = read_tensors(&mut reader, n_tensors)?;
    let alignment = match metadata.get("general.alignment") {
        Some(Value::Unsigned(n)) => *n,
        _ => ALIGNMENT,
    };
    if !alignment.is_multiple_of(ALIGNMENT) || !alignment.is_power_of_two() {
        return Err(format!("alignment {alignment} is not supported, only {ALIGNMENT} is"));
    }
    let data_start = (reader.at as u64).next_multiple_of(alignment);
    place(tensors, data_start, bytes.len() as u64).map(|tensors| Header { metadata, tensors })
}

fn read_tensors(reader: &mut Reader<'_>, count: u64) -> Result<Vec<TensorInfo>, String> {
    let mut tensors = Vec::new();
    let mut seen = HashSet::new();
    for _ in 0..count {
        let name = reader.text(MAX_NAME, "a tensor's name")?;
        if !seen.insert(name) {
            return Err(format!("tensor `{name}` appears twice"));
        }
        let n_dims = reader.u32(name)?;
        if n_dims > MAX_DIMS {
            return Err(format!("tensor `{name}` has {n_dims} dimensions"));
        }
        let mut shape = Vec::with_capacity(n_dims as usize);
        for _ in 0..n_dims {
            let dim = usize::try_from(reader.u64(name)?);
            shape.push(dim.map_err(|_| format!("tensor `{name}` is too large"))?);
        }
        shape.reverse(); // the file has the innermost size first
        let number = reader.u32(name)?;
        let dtype = DTYPES.into_iter().find(|&d| dtype_number(d) == number);
        let dtype = dtype.ok_or_else(|| format!("tensor `{name}` has unknown type {number}"))?;
        let size = size_in_bytes(dtype, &shape).ok_or_else(|| {
            format!("tensor `{name}` of shape {shape:?} cannot be of type {dtype:?}")
        })?;
        let offset = reader.u64(name)?;
        tensors.push(TensorInfo { name: name.to_owned(), dtype, shape, offset, size });
    }
    Ok(tensors)
}

/// Turns offsets within the data into offsets within the file of length `len`.
fn place(mut tensors: Vec<TensorInfo>, start: u64, len: u64) -> Result<Vec<TensorInfo>, String> {
    for tensor in &mut tensors {
        let TensorInfo { name, offset, size, .. } = tensor;
        if !offset.is_multiple_of(ALIGNMENT) {
            return Err(format!("the data of tensor `{name}` is not aligned"));
        }
        let end = offset.checked_add(start).and_then(|at| Some((at, at.checked_add(*size)?)));
        match end {
            Some((at, end)) if end <= len => *offset = at,
            _ => {
                return Err(format!(
                    "the data of tensor `{name}` ({size} bytes) lies beyond the end of the file"
                ));
            }
        }
    }
    Ok(tensors)
}
