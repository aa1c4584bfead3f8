//! The bytes of a GGUF v3 file: a bounded reader and a streaming writer.
//!
//! Bundles come from strangers, so every count and length is checked against the bytes that
//! are there before anything is allocated. Only what a bundle holds is understood: text,
//! unsigned numbers and byte arrays are kept, other metadata is skipped.
//!
//! Source: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Seek, SeekFrom, Write},
};

use candle_core::quantized::GgmlDType;

#[cfg(target_endian = "big")]
compile_error!("bundles are little-endian and are read in place");

/// Alignment of every tensor's data, from the beginning of the file.
pub(crate) const ALIGNMENT: u64 = 32;

const MAGIC: &[u8; 4] = b"GGUF";
const VERSION: u32 = 3;
const MAX_DIMS: u32 = 4;
const MAX_NAME: u64 = 512;
const MAX_NESTING: u8 = 4;
const HASHES: &str = "tinyfind.tensor_hashes";

/// A metadata value that bundles use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// UTF-8 text.
    Text(String),
    /// Any unsigned number.
    Unsigned(u64),
    /// An array of `u8`.
    Bytes(Vec<u8>),
}

/// Where a tensor lies and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Full name.
    pub name: String,
    /// How its elements are stored.
    pub dtype: GgmlDType,
    /// Sizes, outermost first; of a quantised weight with the padding of its rows.
    pub shape: Vec<usize>,
    /// First byte of its data in the file.
    pub offset: u64,
    /// Length of its data in bytes.
    pub size: u64,
}

/// What stands before the tensor data.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) metadata: HashMap<String, Value>,
    pub(crate) tensors: Vec<TensorInfo>,
}

/// Length in bytes of `elements` values in `dtype`; `None` where they do not fill whole
/// blocks or the number overflows.
pub(crate) fn size_in_bytes(dtype: GgmlDType, shape: &[usize]) -> Option<u64> {
    let elements = shape.iter().try_fold(1_u64, |n, &d| n.checked_mul(d as u64))?;
    let block = dtype.block_size() as u64;
    if block > 1 && !(*shape.last()? as u64).is_multiple_of(block) {
        return None;
    }
    (elements / block).checked_mul(dtype.type_size() as u64)
}

/// The number that stands for `dtype` in a file.
fn dtype_number(dtype: GgmlDType) -> u32 {
    match dtype {
        GgmlDType::F32 => 0,
        GgmlDType::F16 => 1,
        GgmlDType::Q4_0 => 2,
        GgmlDType::Q4_1 => 3,
        GgmlDType::Q5_0 => 6,
        GgmlDType::Q5_1 => 7,
        GgmlDType::Q8_0 => 8,
        GgmlDType::Q8_1 => 9,
        GgmlDType::Q2K => 10,
        GgmlDType::Q3K => 11,
        GgmlDType::Q4K => 12,
        GgmlDType::Q5K => 13,
        GgmlDType::Q6K => 14,
        GgmlDType::Q8K => 15,
        GgmlDType::BF16 => 30,
    }
}

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

/// Metadata and tensors of a file to be written.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    metadata: Vec<(String, Value)>,
    tensors: Vec<TensorInfo>,
    data_len: u64,
}

impl Plan {
    pub(crate) fn set(&mut self, key: &str, value: Value) {
        self.metadata.push((key.to_owned(), value));
    }

    /// Adds a tensor after those declared before it; `false` where `shape` cannot be of `dtype`.
    #[must_use]
    pub(crate) fn declare(&mut self, name: &str, dtype: GgmlDType, shape: &[usize]) -> bool {
        let Some(size) = size_in_bytes(dtype, shape) else { return false };
        let offset = self.data_len;
        self.data_len = (offset + size).next_multiple_of(ALIGNMENT);
        let (name, shape) = (name.to_owned(), shape.to_vec());
        self.tensors.push(TensorInfo { name, dtype, shape, offset, size });
        true
    }

    /// Writes what stands before the data; [`Body`] takes the data, tensor by tensor.
    pub(crate) fn write_header<W: Write + Seek>(mut self, mut out: W) -> io::Result<Body<W>> {
        // Filled in when the last tensor is written; its length is known now.
        self.set(HASHES, Value::Bytes(vec![0; self.tensors.len() * blake3::OUT_LEN]));
        let mut head = Vec::new();
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(&VERSION.to_le_bytes());
        head.extend_from_slice(&(self.tensors.len() as u64).to_le_bytes());
        head.extend_from_slice(&(self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            push_text(&mut head, key);
            match value {
                Value::Text(text) => {
                    head.extend_from_slice(&8_u32.to_le_bytes());
                    push_text(&mut head, text);
                }
                Value::Unsigned(n) => {
                    head.extend_from_slice(&10_u32.to_le_bytes());
                    head.extend_from_slice(&n.to_le_bytes());
                }
                Value::Bytes(bytes) => {
                    head.extend_from_slice(&9_u32.to_le_bytes());
                    head.extend_from_slice(&0_u32.to_le_bytes());
                    head.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
                    head.extend_from_slice(bytes);
                }
            }
        }
        let hashes_at = (head.len() - self.tensors.len() * blake3::OUT_LEN) as u64;
        for tensor in &self.tensors {
            push_text(&mut head, &tensor.name);
            head.extend_from_slice(&(tensor.shape.len() as u32).to_le_bytes());
            for &dim in tensor.shape.iter().rev() {
                head.extend_from_slice(&(dim as u64).to_le_bytes());
            }
            head.extend_from_slice(&dtype_number(tensor.dtype).to_le_bytes());
            head.extend_from_slice(&tensor.offset.to_le_bytes());
        }
        head.resize(head.len().next_multiple_of(ALIGNMENT as usize), 0);
        out.write_all(&head)?;
        Ok(Body { out, tensors: self.tensors, hashes: Vec::new(), hashes_at })
    }
}

/// Hash of each tensor's data, in the order of the tensors; `None` where a file has none.
pub(crate) fn tensor_hashes(header: &Header) -> Option<Vec<blake3::Hash>> {
    let Some(Value::Bytes(bytes)) = header.metadata.get(HASHES) else { return None };
    let hashes = bytes.chunks(blake3::OUT_LEN).map(blake3::Hash::from_slice);
    let hashes: Vec<_> = hashes.collect::<Result<_, _>>().ok()?;
    (hashes.len() == header.tensors.len()).then_some(hashes)
}

/// A file whose header is written.
#[derive(Debug)]
pub(crate) struct Body<W> {
    out: W,
    tensors: Vec<TensorInfo>,
    hashes: Vec<u8>,
    hashes_at: u64,
}

impl<W: Write + Seek> Body<W> {
    /// The tensor whose data comes next.
    pub(crate) fn next(&self) -> Option<&TensorInfo> {
        self.tensors.get(self.hashes.len() / blake3::OUT_LEN)
    }

    /// Writes the data of [`Body::next`], which must be `size` bytes long.
    pub(crate) fn write(&mut self, data: &[u8]) -> io::Result<()> {
        let size = self.next().map(|t| t.size);
        if size != Some(data.len() as u64) {
            return Err(io::Error::other(format!(
                "{} bytes of data where {size:?} were declared",
                data.len()
            )));
        }
        self.hashes.extend_from_slice(blake3::hash(data).as_bytes());
        self.out.write_all(data)?;
        let padding = (data.len() as u64).next_multiple_of(ALIGNMENT) - data.len() as u64;
        self.out.write_all(&[0; ALIGNMENT as usize][..padding as usize])
    }

    /// Writes the hashes and hands the file back; an error where data is missing.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        if let Some(missing) = self.next() {
            return Err(io::Error::other(format!("tensor `{}` was not written", missing.name)));
        }
        self.out.seek(SeekFrom::Start(self.hashes_at))?;
        self.out.write_all(&self.hashes)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn sample() -> Vec<u8> {
        let mut plan = Plan::default();
        plan.set("general.name", Value::Text("sample".to_owned()));
        plan.set("general.alignment", Value::Unsigned(ALIGNMENT));
        assert!(plan.declare("a", GgmlDType::F32, &[3]));
        assert!(plan.declare("b", GgmlDType::Q8_0, &[2, 64]));
        let mut body = plan.write_header(Cursor::new(Vec::new())).unwrap();
        body.write(&[1; 12]).unwrap();
        body.write(&[2; 2 * 2 * 34]).unwrap();
        body.finish().unwrap().into_inner()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let bytes = sample();
        let header = read_header(&bytes).unwrap();
        assert_eq!(header.metadata["general.name"], Value::Text("sample".to_owned()));
        let [a, b] = header.tensors.as_slice() else { panic!("{:?}", header.tensors) };
        assert_eq!((a.name.as_str(), a.shape.as_slice(), a.size), ("a", [3].as_slice(), 12));
        assert_eq!((b.dtype, b.shape.as_slice()), (GgmlDType::Q8_0, [2, 64].as_slice()));
        let data = &bytes[b.offset as usize..(b.offset + b.size) as usize];
        assert_eq!(data, [2; 136]);
        assert_eq!(tensor_hashes(&header).unwrap()[1], blake3::hash(data));
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let bytes = sample();
        let end = read_header(&bytes).unwrap().tensors[1].offset as usize + 136;
        for len in 0..end {
            assert!(read_header(&bytes[..len]).is_err(), "{len} of {} bytes", bytes.len());
        }
    }

    #[test]
    fn a_file_with_any_byte_changed_is_read_or_refused_but_never_panics() {
        let bytes = sample();
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                if let Ok(header) = read_header(&changed) {
                    for tensor in header.tensors {
                        assert!(tensor.offset + tensor.size <= changed.len() as u64);
                    }
                }
            }
        }
    }

    #[test]
    fn counts_larger_than_the_file_allocate_nothing() {
        let mut bytes = sample();
        bytes[8..24].fill(0xff);
        bytes[15] = 0x7f; // n_tensors = i64::MAX, n_values = u64::MAX
        assert!(read_header(&bytes).is_err());
    }

    #[test]
    fn data_must_come_in_the_declared_sizes_and_completely() {
        let mut plan = Plan::default();
        assert!(plan.declare("a", GgmlDType::F32, &[3]));
        assert!(!plan.declare("b", GgmlDType::Q8_0, &[2, 33]));
        let mut body = plan.write_header(Cursor::new(Vec::new())).unwrap();
        assert!(body.write(&[0; 11]).is_err());
        assert!(body.finish().unwrap_err().to_string().contains("`a` was not written"));
    }
}
