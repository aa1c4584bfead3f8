//! The bytes of a GGUF v3 file: a bounded reader and a streaming writer.
//!
//! Bundles come from strangers, so every count and length is checked against the bytes that
//! are there before anything is allocated. Only what a bundle holds is understood: text,
//! unsigned numbers and byte arrays are kept, other metadata is skipped.
//!
//! Source: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod reader;
mod writer;

use std::collections::HashMap;

use candle_core::quantized::GgmlDType;

pub(crate) use self::reader::read_header;
pub(crate) use self::writer::{Body, Plan};

#[cfg(target_endian = "big")]
compile_error!("bundles are little-endian and are read in place");

/// Alignment of every tensor's data, from the beginning of the file.
pub(crate) const ALIGNMENT: u64 = 32;

const MAGIC: &[u8; 4] = b"GGUF";
const VERSION: u32 = 3;
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

/// Hash of each tensor's data, in the order of the tensors; `None` where a file has none.
pub(crate) fn tensor_hashes(header: &Header) -> Option<Vec<blake3::Hash>> {
    let Some(Value::Bytes(bytes)) = header.metadata.get(HASHES) else { return None };
    let hashes = bytes.chunks(blake3::OUT_LEN).map(blake3::Hash::from_slice);
    let hashes: Vec<_> = hashes.collect::<Result<_, _>>().ok()?;
    (hashes.len() == header.tensors.len()).then_some(hashes)
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
