//! From f32 values to the bytes of a stored tensor.

use candle_core::{
    Device, Result, Tensor,
    quantized::{GgmlDType, QTensor},
};
use half::{bf16, f16, slice::HalfFloatSliceExt};
use rayon::prelude::*;

use crate::model::bundle::is_quantised;

/// Values converted by one thread at a time.
const CHUNK: usize = 1 << 18;

/// The bytes of `values`, rows of `cols` values each, as `dtype`.
///
/// Quantised rows are padded with zeros to `padded` values; other types must not be padded.
pub(crate) fn encode(
    values: &[f32],
    cols: usize,
    padded: usize,
    dtype: GgmlDType,
) -> Result<Vec<u8>> {
    match dtype {
        GgmlDType::F32 => {
            Ok(in_parts(values, |chunk| chunk.iter().flat_map(|v| v.to_le_bytes()).collect()))
        }
        GgmlDType::F16 => Ok(in_parts(values, |chunk| {
            let mut half = vec![f16::ZERO; chunk.len()];
            half.convert_from_f32_slice(chunk);
            half.into_iter().flat_map(f16::to_le_bytes).collect()
        })),
        GgmlDType::BF16 => Ok(in_parts(values, |chunk| {
            chunk.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect()
        })),
        _ => quantise(values, cols, padded, dtype),
    }
}

fn in_parts(values: &[f32], convert: impl Fn(&[f32]) -> Vec<u8> + Send + Sync) -> Vec<u8> {
    let parts: Vec<Vec<u8>> = values.par_chunks(CHUNK).map(convert).collect();
    parts.concat()
}

fn quantise(values: &[f32], cols: usize, padded: usize, dtype: GgmlDType) -> Result<Vec<u8>> {
    debug_assert!(is_quantised(dtype) && padded >= cols, "{dtype:?} {cols} {padded}");
    let rows_at_once = (CHUNK / padded.max(1)).max(1);
    let parts = values.par_chunks(rows_at_once * cols.max(1)).map(|rows| {
        let mut wide = vec![0.0; rows.len() / cols * padded];
        for (to, from) in wide.chunks_exact_mut(padded).zip(rows.chunks_exact(cols)) {
            to[..cols].copy_from_slice(from);
        }
        let wide = Tensor::from_vec(wide, (rows.len() / cols, padded), &Device::Cpu)?;
        Ok(QTensor::quantize(&wide, dtype)?.data()?.into_owned())
    });
    Ok(parts.collect::<Result<Vec<Vec<u8>>>>()?.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_chunks_give_the_bytes_of_one() {
        let values: Vec<f32> = (0..3 * CHUNK + 7).map(|i| (i as f32).sin()).collect();
        let bytes = encode(&values, values.len(), values.len(), GgmlDType::F32).unwrap();
        let whole: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert!(bytes == whole);
        let bytes = encode(&values, values.len(), values.len(), GgmlDType::F16).unwrap();
        let whole: Vec<u8> = values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
        assert!(bytes == whole);
    }

    #[test]
    fn quantised_rows_are_padded_each_on_its_own() {
        let (rows, cols) = (2000, 200);
        let values: Vec<f32> = (0..rows * cols).map(|i| (i as f32 * 0.1).cos()).collect();
        let bytes = encode(&values, cols, 256, GgmlDType::Q8_0).unwrap();
        assert_eq!(bytes.len(), rows * 256 / 32 * 34);
        let storage = candle_core::quantized::QStorage::from_data(
            bytes.into(),
            &Device::Cpu,
            GgmlDType::Q8_0,
        );
        let back = QTensor::new(storage.unwrap(), (rows, 256)).unwrap();
        let back = back.dequantize(&Device::Cpu).unwrap().to_vec2::<f32>().unwrap();
        for (row, original) in back.iter().zip(values.chunks(cols)) {
            assert!(row[cols..].iter().all(|&v| v == 0.0));
            let worst = row.iter().zip(original).map(|(a, b)| (a - b).abs());
            assert!(worst.fold(0.0, f32::max) < 0.01);
        }
    }
}
