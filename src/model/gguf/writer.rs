//! Writes a file tensor by tensor.

use std::io::{self, Seek, SeekFrom, Write};

use candle_core::quantized::GgmlDType;

use super::{ALIGNMENT, HASHES, MAGIC, TensorInfo, VERSION, Value, dtype_number, size_in_bytes};

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
