//! Matrices in the form in which kernels read them.
//!
//! A GGUF block begins with a half-precision scale, which leaves its codes at odd addresses. On the GPU the codes of all
//! blocks come first, in whole words, and the scales follow, two to a word: the same bytes, in an order that can be read
//! in vectors of four words. Unquantised rows are padded with zeros to whole blocks of 32.

use crate::llm::error::EngineError;
use crate::llm::gguf::GgmlType;
use crate::llm::quant::BLOCK;
use crate::llm::weights::Matrix;

/// A packed matrix, ready to be written into a storage buffer.
#[derive(Debug)]
pub(super) struct Packed {
    /// How the codes are stored: Q4_0, Q8_0 or F16; everything else becomes F32.
    pub dtype: GgmlType,
    /// Rows of all parts together.
    pub rows: usize,
    /// Blocks of a row.
    pub blocks: usize,
    /// Where the scales begin, in vectors of four words.
    pub scales: usize,
    /// Whole vectors of four words.
    pub bytes: Vec<u8>,
}

/// Packs `parts` under each other. Parts that are not all stored alike are packed as F32.
///
/// # Errors
/// The parts have different numbers of columns, or a matrix does not have the bytes that its shape asks for.
pub(super) fn pack(parts: &[&Matrix<'_>]) -> Result<Packed, EngineError> {
    let inconsistent = || EngineError::Inconsistent("matrices that belong together do not fit each other".into());
    let first = parts.first().ok_or_else(inconsistent)?;
    if parts.iter().any(|part| {
        part.cols != first.cols || part.dtype.row_bytes(part.cols).map(|b| b * part.rows) != Some(part.bytes.len())
    }) {
        return Err(inconsistent());
    }
    let alike = parts.iter().all(|part| part.dtype == first.dtype);
    let dtype = match first.dtype {
        kept @ (GgmlType::Q4_0 | GgmlType::Q8_0 | GgmlType::F16) if alike => kept,
        _ => GgmlType::F32,
    };
    let rows = parts.iter().map(|part| part.rows).sum::<usize>();
    let blocks = first.cols.div_ceil(BLOCK);
    let mut bytes = Vec::new();
    let mut scales = Vec::new();
    for part in parts {
        match dtype {
            GgmlType::Q4_0 | GgmlType::Q8_0 => {
                for block in part.bytes.chunks_exact(dtype.block_bytes()) {
                    let (scale, codes) = block.split_at(2);
                    scales.extend_from_slice(scale);
                    bytes.extend_from_slice(codes);
                }
            }
            GgmlType::F16 => {
                for row in part.bytes.chunks_exact(2 * part.cols) {
                    bytes.extend_from_slice(row);
                    bytes.resize(bytes.len() + 2 * (blocks * BLOCK - part.cols), 0);
                }
            }
            _ => {
                for row in part.to_f32().chunks_exact(part.cols) {
                    bytes.extend(row.iter().flat_map(|v| v.to_le_bytes()));
                    bytes.resize(bytes.len() + 4 * (blocks * BLOCK - part.cols), 0);
                }
            }
        }
    }
    bytes.resize(bytes.len().next_multiple_of(16), 0);
    let scales_at = bytes.len() / 16;
    bytes.extend_from_slice(&scales);
    bytes.resize(bytes.len().next_multiple_of(16), 0);
    Ok(Packed { dtype, rows, blocks, scales: scales_at, bytes })
}

/// A vector of activations or gains, padded with zeros to whole blocks.
pub(super) fn pack_vector(values: &[f32]) -> Vec<u8> {
    let mut bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    bytes.resize(4 * values.len().next_multiple_of(BLOCK), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_first_then_scales() {
        let values: Vec<f32> = (0..3 * 64).map(|i| i as f32).collect();
        let matrix = Matrix::encode(GgmlType::Q8_0, 3, 64, &values).unwrap();
        let packed = pack(&[&matrix]).unwrap();
        assert_eq!((packed.rows, packed.blocks, packed.scales), (3, 2, 6 * 32 / 16));
        assert_eq!(packed.bytes.len(), 6 * 32 + 16);
        for block in 0..6 {
            assert_eq!(packed.bytes[block * 32..][..32], matrix.bytes[block * 34 + 2..][..32]);
            assert_eq!(packed.bytes[192 + block * 2..][..2], matrix.bytes[block * 34..][..2]);
        }
    }

    #[test]
    fn odd_rows_are_padded_and_mixed_parts_become_singles() {
        let a = Matrix::encode(GgmlType::F32, 1, 33, &[1.0; 33]).unwrap();
        let b = Matrix::encode(GgmlType::F16, 2, 33, &[2.0; 66]).unwrap();
        let packed = pack(&[&a, &b]).unwrap();
        assert_eq!((packed.dtype, packed.rows, packed.blocks), (GgmlType::F32, 3, 2));
        let words: Vec<f32> = packed.bytes.as_chunks::<4>().0.iter().map(|w| f32::from_le_bytes(*w)).collect();
        assert_eq!((words[32], words[33], words[64], words[96], words[97]), (1.0, 0.0, 2.0, 2.0, 0.0));
        let wide = Matrix::encode(GgmlType::F32, 1, 34, &[1.0; 34]).unwrap();
        assert!(pack(&[&a, &wide]).is_err());
    }
}
