//! Matrices in the form in which kernels read them: still quantised, but in an order that can be read in vectors of four
//! words.
//!
//! A GGUF block mixes scales and codes, which leaves its codes at odd addresses. On the GPU the same bytes are in up to
//! four parts, one after the other: the low bits of all codes, what does not fit into them, the scales, and what
//! multiplies the scales. Codes of up to four bits, and the lower four of longer ones, are nibbles in the order of Q4_0:
//! a byte holds elements i and i + 16 of a block. Unquantised rows are padded with zeros to whole blocks of 32.

use half::f16;

use crate::llm::error::EngineError;
use crate::llm::gguf::GgmlType;
use crate::llm::quant::BLOCK;
use crate::llm::weights::Matrix;

/// Elements of a super-block of the K types.
const SUPER: usize = 256;
/// What scales are multiplied with when they are packed, if all of them can be: a kernel's conversion may flush
/// subnormal halves to zero, and scales of blocks of small weights are such.
const LIFT: f32 = 4096.0;

/// Where the parts of a packed matrix begin, in vectors of four words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Parts {
    /// The codes' upper bits.
    pub high: usize,
    /// The scales of blocks.
    pub scales: usize,
    /// The halves that multiply the scales of Q6_K.
    pub tops: usize,
}

/// A packed matrix, ready to be written into a storage buffer.
#[derive(Debug)]
pub(super) struct Packed {
    /// How it is stored: as in the file, or F32 where parts differ.
    pub dtype: GgmlType,
    /// Rows of all parts together.
    pub rows: usize,
    /// Blocks of 32 in a row.
    pub blocks: usize,
    /// Where its parts begin.
    pub parts: Parts,
    /// What a stored scale has to be multiplied with.
    pub scale_unit: f32,
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
    let dtype = if parts.iter().all(|part| part.dtype == first.dtype) { first.dtype } else { GgmlType::F32 };
    let mut streams = Streams::default();
    for part in parts {
        match dtype {
            GgmlType::F32 => streams.plain(&singles(part), part.cols, 4),
            GgmlType::F16 | GgmlType::Bf16 => streams.plain(&part.bytes, part.cols, 2),
            _ => part.bytes.chunks_exact(dtype.block_bytes()).for_each(|block| streams.block(dtype, block)),
        }
    }
    let scale_unit = streams.lift(dtype);
    let Streams { mut codes, high, scales, tops } = streams;
    let mut append = |part: &[u8]| {
        codes.resize(codes.len().next_multiple_of(16), 0);
        let at = codes.len() / 16;
        codes.extend_from_slice(part);
        at
    };
    let places = Parts { high: append(&high), scales: append(&scales), tops: append(&tops) };
    codes.resize(codes.len().next_multiple_of(16), 0);
    let rows = parts.iter().map(|part| part.rows).sum();
    Ok(Packed { dtype, rows, blocks: first.cols.div_ceil(BLOCK), parts: places, scale_unit, bytes: codes })
}

/// A vector of activations or gains, padded with zeros to whole blocks.
pub(super) fn pack_vector(values: &[f32]) -> Vec<u8> {
    let mut bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    bytes.resize(4 * values.len().next_multiple_of(BLOCK), 0);
    bytes
}

fn singles(matrix: &Matrix<'_>) -> Vec<u8> {
    matrix.to_f32().iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// The parts while they are filled.
#[derive(Default)]
struct Streams {
    codes: Vec<u8>,
    high: Vec<u8>,
    scales: Vec<u8>,
    tops: Vec<u8>,
}

impl Streams {
    /// Rows of `cols` elements of `size` bytes.
    fn plain(&mut self, bytes: &[u8], cols: usize, size: usize) {
        let padding = size * (cols.next_multiple_of(BLOCK) - cols);
        for row in bytes.chunks_exact(size * cols) {
            self.codes.extend_from_slice(row);
            self.codes.resize(self.codes.len() + padding, 0);
        }
    }

    /// One block as stored in the file. A slice of another length than the type's blocks adds nothing.
    fn block(&mut self, dtype: GgmlType, block: &[u8]) {
        match dtype {
            GgmlType::Q4_0 | GgmlType::Q8_0 => {
                let (scale, codes) = block.split_at(2);
                self.scales.extend_from_slice(scale);
                self.codes.extend_from_slice(codes);
            }
            GgmlType::Q4_1 => {
                let (scale, codes) = block.split_at(4);
                self.scales.extend_from_slice(scale);
                self.codes.extend_from_slice(codes);
            }
            GgmlType::Q5_0 | GgmlType::Q5_1 => {
                let (scale, rest) = block.split_at(if dtype == GgmlType::Q5_0 { 2 } else { 4 });
                let (high, codes) = rest.split_at(4);
                self.scales.extend_from_slice(scale);
                self.high.extend_from_slice(high);
                self.codes.extend_from_slice(codes);
            }
            GgmlType::Q4K => {
                let (scales, quants) = block.split_at(16);
                self.scales.extend_from_slice(scales);
                let mut codes = [0; SUPER];
                low_nibbles_first(quants, 32, &mut codes);
                self.super_block(&codes);
            }
            GgmlType::Q5K => {
                let (scales, rest) = block.split_at(16);
                let (fifths, quants) = rest.split_at(32);
                self.scales.extend_from_slice(scales);
                let mut codes = [0; SUPER];
                low_nibbles_first(quants, 32, &mut codes);
                for (i, code) in codes.iter_mut().enumerate() {
                    *code |= ((fifths[i % 32] >> (i / 32)) & 1) << 4;
                }
                self.super_block(&codes);
                for block in codes.as_chunks::<BLOCK>().0 {
                    let word = block.iter().rev().fold(0u32, |word, code| (word << 1) | u32::from(code >> 4));
                    self.high.extend_from_slice(&word.to_le_bytes());
                }
            }
            GgmlType::Q6K => {
                let (quants, rest) = block.split_at(128);
                let (upper, rest) = rest.split_at(64);
                let (scales, top) = rest.split_at(16);
                self.scales.extend_from_slice(scales);
                self.tops.extend_from_slice(top);
                let mut codes = [0; SUPER];
                low_nibbles_first(quants, 64, &mut codes);
                for (i, code) in codes.iter_mut().enumerate() {
                    *code |= ((upper[i / 128 * 32 + i % 32] >> (2 * (i % 128 / 32))) & 3) << 4;
                }
                self.super_block(&codes);
                for half in codes.as_chunks::<16>().0 {
                    let word = half.iter().rev().fold(0u32, |word, code| (word << 2) | u32::from(code >> 4));
                    self.high.extend_from_slice(&word.to_le_bytes());
                }
            }
            GgmlType::F32 | GgmlType::F16 | GgmlType::Bf16 => {}
        }
    }

    /// The lower four bits of codes in their natural order.
    fn super_block(&mut self, codes: &[u8; SUPER]) {
        for block in codes.as_chunks::<BLOCK>().0 {
            let (low, high) = block.split_at(BLOCK / 2);
            self.codes.extend(low.iter().zip(high).map(|(low, high)| (low & 15) | (high << 4)));
        }
    }

    /// Multiplies all scales with [`LIFT`] where that keeps them finite; returns the factor that undoes it.
    fn lift(&mut self, dtype: GgmlType) -> f32 {
        // Where halves are: in every such many bytes, the first so many.
        let (halves, period) = match dtype {
            GgmlType::Q4_0 | GgmlType::Q5_0 | GgmlType::Q8_0 => (&mut self.scales, 2),
            GgmlType::Q4_1 | GgmlType::Q5_1 => (&mut self.scales, 4),
            GgmlType::Q4K | GgmlType::Q5K => (&mut self.scales, 16),
            GgmlType::Q6K => (&mut self.tops, 2),
            GgmlType::F32 | GgmlType::F16 | GgmlType::Bf16 => return 1.0,
        };
        let lifted = |half: [u8; 2]| f16::from_f32(f16::from_le_bytes(half).to_f32() * LIFT);
        let all = |period: &[u8]| period.as_chunks::<2>().0.iter().take(2).all(|half| lifted(*half).is_finite());
        if !halves.chunks_exact(period).all(all) {
            return 1.0;
        }
        for period in halves.chunks_exact_mut(period) {
            for half in period.as_chunks_mut::<2>().0.iter_mut().take(2) {
                *half = lifted(*half).to_le_bytes();
            }
        }
        1.0 / LIFT
    }
}

/// Codes whose nibbles are stored in runs of `run` bytes: the low ones are `run` elements, the high ones the next.
fn low_nibbles_first(quants: &[u8], run: usize, codes: &mut [u8; SUPER]) {
    for (bytes, codes) in quants.chunks_exact(run).zip(codes.chunks_exact_mut(2 * run)) {
        let (low, high) = codes.split_at_mut(run);
        for ((byte, low), high) in bytes.iter().zip(low).zip(high) {
            *low = byte & 15;
            *high = byte >> 4;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_first_then_scales() {
        let values: Vec<f32> = (0..3 * 64).map(|i| i as f32).collect();
        let matrix = Matrix::encode(GgmlType::Q8_0, 3, 64, &values).unwrap();
        let packed = pack(&[&matrix]).unwrap();
        assert_eq!((packed.rows, packed.blocks, packed.parts.scales), (3, 2, 6 * 32 / 16));
        assert_eq!(packed.bytes.len(), 6 * 32 + 16);
        for block in 0..6 {
            assert_eq!(packed.bytes[block * 32..][..32], matrix.bytes[block * 34 + 2..][..32]);
            let scale = |bytes: &[u8]| f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
            let found = scale(&packed.bytes[192 + block * 2..]) * packed.scale_unit;
            assert_eq!(found, scale(&matrix.bytes[block * 34..]));
        }
    }

    #[test]
    fn scales_that_cannot_be_lifted_stay() {
        let large = Matrix::encode(GgmlType::Q8_0, 1, 32, &[3e4; 32]).unwrap();
        assert_eq!(pack(&[&large]).unwrap().scale_unit, 1.0);
        let small = Matrix::encode(GgmlType::Q8_0, 1, 32, &[1e-4; 32]).unwrap();
        let packed = pack(&[&small]).unwrap();
        let scale = f16::from_le_bytes([packed.bytes[32], packed.bytes[33]]);
        assert!(packed.scale_unit < 1.0 && scale.is_normal());
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
