//! Matrices in the form in which kernels read them: still quantised, but in an order that can be read in vectors of four
//! words.
//!
//! A GGUF block mixes scales and codes, which leaves its codes at odd addresses. On the GPU the same bytes are in up to
//! four parts, one after the other: the low bits of all codes, what does not fit into them, the scales, and what
//! multiplies the scales. Codes of four bits, and the lower four of longer ones, are nibbles in the order of Q4_0:
//! a byte holds elements i and i + 16 of a block. Codes of one and two bits, and upper bits, are in their natural order.
//! Unquantised rows are padded with zeros to whole blocks of 32.

use cpu_kernels::blocks;
use half::f16;

use crate::error::EngineError;
use crate::gguf::GgmlType;
use crate::parts::MatrixForm;
use crate::quant::{self, BLOCK};

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
    /// The halves that multiply the scales of Q2_K, Q3_K and Q6_K.
    pub tops: usize,
}

/// A packed matrix: how its storage buffer is to be read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Layout {
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
    /// Size of the buffer, whole vectors of four words.
    pub bytes: u64,
}

/// Bytes of a block's codes, upper bits, scales, and what multiplies the scales.
fn shares(dtype: GgmlType) -> [usize; 4] {
    match dtype {
        GgmlType::F32 => [4, 0, 0, 0],
        GgmlType::F16 | GgmlType::Bf16 => [2, 0, 0, 0],
        GgmlType::Q1_0 | GgmlType::Q4_0 | GgmlType::Iq4Nl => [16, 0, 2, 0],
        GgmlType::Q4_1 => [16, 0, 4, 0],
        GgmlType::Q5_0 => [16, 4, 2, 0],
        GgmlType::Q5_1 => [16, 4, 4, 0],
        GgmlType::Q8_0 => [32, 0, 2, 0],
        GgmlType::Q2K => [64, 0, 16, 4],
        GgmlType::Q3K => [64, 32, 16, 2],
        GgmlType::Iq4Xs => [128, 0, 8, 0],
        GgmlType::Q4K => [128, 0, 16, 0],
        GgmlType::Q5K => [128, 32, 16, 0],
        GgmlType::Q6K => [128, 64, 16, 2],
    }
}

/// Packs matrices under each other, piece by piece. Matrices that are not all stored alike are packed as F32.
#[derive(Debug)]
pub(super) struct Packer {
    layout: Layout,
    lift: bool,
    streams: Streams,
    /// Where the next bytes of each stream go.
    ends: [u64; 4],
}

impl Packer {
    /// For matrices of these forms. With `lift`, small scales are kept exact; see [`rows`](Self::rows).
    ///
    /// # Errors
    /// There are none, or they have different numbers of columns.
    pub(super) fn new(forms: &[MatrixForm], lift: bool) -> Result<Self, EngineError> {
        let first = forms.first().filter(|first| forms.iter().all(|form| form.cols == first.cols));
        let inconsistent = || EngineError::Inconsistent("matrices that belong together do not fit each other".into());
        let first = first.ok_or_else(inconsistent)?;
        let dtype = if forms.iter().all(|form| form.dtype == first.dtype) { first.dtype } else { GgmlType::F32 };
        let rows: usize = forms.iter().map(|form| form.rows).sum();
        let cols = if dtype.block_len() > 1 { first.cols } else { first.cols.next_multiple_of(BLOCK) };
        let blocks = rows as u64 * (cols / dtype.block_len()) as u64;
        let mut ends = [0; 4];
        let mut bytes = 0u64;
        for (end, share) in ends.iter_mut().zip(shares(dtype)) {
            *end = bytes;
            bytes = (bytes + blocks * share as u64).next_multiple_of(16);
        }
        let [_, high, scales, tops] = ends.map(|end| (end / 16) as usize);
        let (parts, blocks) = (Parts { high, scales, tops }, first.cols.div_ceil(BLOCK));
        let lift = lift && Streams::can_lift(dtype);
        let scale_unit = if lift { 1.0 / LIFT } else { 1.0 };
        let layout = Layout { dtype, rows, blocks, parts, scale_unit, bytes };
        Ok(Self { layout, lift, streams: Streams::default(), ends })
    }

    /// Of what comes out.
    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    /// Bytes that a stored row takes here, if that is more than in the file.
    pub(super) fn row_bytes(&self, form: &MatrixForm) -> usize {
        form.row_bytes().max(4 * form.cols * usize::from(self.layout.dtype == GgmlType::F32))
    }

    /// Packs the next rows, which are of a matrix of this form, and hands what is ready to `write` with its place in the
    /// buffer: at multiples of four bytes. `false` when a scale cannot be lifted: all has to be packed anew, without.
    #[must_use]
    pub(super) fn rows(&mut self, form: &MatrixForm, bytes: &[u8], write: &mut dyn FnMut(u64, &[u8])) -> bool {
        let dtype = self.layout.dtype;
        let before = (self.streams.scales.len(), self.streams.tops.len());
        match dtype {
            GgmlType::F32 if form.dtype != dtype => {
                let mut values = vec![0.0; bytes.len() / form.row_bytes().max(1) * form.cols];
                let fits = quant::dequantize(form.dtype, bytes, &mut values);
                debug_assert!(fits, "pieces are whole rows");
                let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                self.streams.plain(&bytes, form.cols, 4);
            }
            GgmlType::F32 => self.streams.plain(bytes, form.cols, 4),
            GgmlType::F16 | GgmlType::Bf16 => self.streams.plain(bytes, form.cols, 2),
            _ => bytes.chunks_exact(dtype.block_bytes()).for_each(|block| self.streams.block(dtype, block)),
        }
        if self.lift && !self.streams.lift(dtype, before) {
            return false;
        }
        self.hand_over(write);
        true
    }

    /// Hands over what is left, after the last rows.
    pub(super) fn finish(&mut self, write: &mut dyn FnMut(u64, &[u8])) {
        for stream in self.streams.all() {
            stream.resize(stream.len().next_multiple_of(4), 0);
        }
        self.hand_over(write);
    }

    fn hand_over(&mut self, write: &mut dyn FnMut(u64, &[u8])) {
        for (stream, end) in self.streams.all().into_iter().zip(&mut self.ends) {
            let ready = stream.len() / 4 * 4;
            if let Some(part) = stream.get(..ready).filter(|part| !part.is_empty()) {
                write(*end, part);
            }
            *end += ready as u64;
            stream.drain(..ready);
        }
    }
}

/// A vector of activations or gains, padded with zeros to whole blocks.
pub(super) fn pack_vector(values: &[f32]) -> Vec<u8> {
    let mut bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    bytes.resize(4 * values.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// The parts while they are filled.
#[derive(Debug, Default)]
struct Streams {
    codes: Vec<u8>,
    high: Vec<u8>,
    scales: Vec<u8>,
    tops: Vec<u8>,
}

impl Streams {
    fn all(&mut self) -> [&mut Vec<u8>; 4] {
        [&mut self.codes, &mut self.high, &mut self.scales, &mut self.tops]
    }

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
            GgmlType::Q1_0 | GgmlType::Q4_0 | GgmlType::Iq4Nl | GgmlType::Q8_0 => {
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
            GgmlType::Iq4Xs => {
                let (scales, codes) = block.split_at(8);
                self.scales.extend_from_slice(scales);
                self.codes.extend_from_slice(codes);
            }
            GgmlType::Q2K | GgmlType::Q3K => {
                // In the order of the file's elements, whatever order its bits are in.
                blocks::runs(dtype, block, |run| {
                    for half in run.codes.as_chunks::<16>().0 {
                        let word = half.iter().rev().fold(0u32, |word, code| (word << 2) | (*code as u32 & 3));
                        self.codes.extend_from_slice(&word.to_le_bytes());
                    }
                    if dtype == GgmlType::Q3K {
                        let word = run.codes.iter().rev().fold(0u32, |word, code| (word << 1) | (*code as u32 >> 2));
                        self.high.extend_from_slice(&word.to_le_bytes());
                        self.scales.extend(run.scales.map(|scale| scale as u8));
                    }
                });
                if dtype == GgmlType::Q2K {
                    self.scales.extend_from_slice(&block[..16]);
                    self.tops.extend_from_slice(&block[80..]);
                } else {
                    self.tops.extend_from_slice(&block[108..]);
                }
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

    /// Whether a type has scales in half precision.
    fn can_lift(dtype: GgmlType) -> bool {
        dtype.block_len() > 1
    }

    /// Multiplies the scales behind the first `before` (bytes of scales and of tops) with [`LIFT`], unless one of them
    /// would not be finite.
    #[must_use]
    fn lift(&mut self, dtype: GgmlType, before: (usize, usize)) -> bool {
        // Where halves are: in every such many bytes, the first so many.
        let (halves, skip, period, count) = match dtype {
            GgmlType::Q1_0 | GgmlType::Q4_0 | GgmlType::Iq4Nl | GgmlType::Q5_0 | GgmlType::Q8_0 => {
                (&mut self.scales, before.0, 2, 1)
            }
            GgmlType::Iq4Xs => (&mut self.scales, before.0, 8, 1),
            GgmlType::Q4_1 | GgmlType::Q5_1 => (&mut self.scales, before.0, 4, 2),
            GgmlType::Q4K | GgmlType::Q5K => (&mut self.scales, before.0, 16, 2),
            GgmlType::Q3K | GgmlType::Q6K => (&mut self.tops, before.1, 2, 1),
            GgmlType::Q2K => (&mut self.tops, before.1, 4, 2),
            GgmlType::F32 | GgmlType::F16 | GgmlType::Bf16 => return true,
        };
        let Some(fresh) = halves.get_mut(skip..) else { return true };
        for period in fresh.chunks_exact_mut(period) {
            for half in period.as_chunks_mut::<2>().0.iter_mut().take(count) {
                let lifted = f16::from_f32(f16::from_le_bytes(*half).to_f32() * LIFT);
                if !lifted.is_finite() {
                    return false;
                }
                *half = lifted.to_le_bytes();
            }
        }
        true
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
    use crate::weights::Matrix;

    /// The buffer, packed in pieces of so many rows.
    fn packed(parts: &[&Matrix<'_>], step: usize) -> Result<(Layout, Vec<u8>), EngineError> {
        let form = |m: &&Matrix<'_>| MatrixForm { dtype: m.dtype, rows: m.rows, cols: m.cols, unit: 1 };
        let forms: Vec<_> = parts.iter().map(form).collect();
        for lift in [true, false] {
            let mut packer = Packer::new(&forms, lift)?;
            let layout = packer.layout();
            let mut out = vec![0; layout.bytes as usize];
            let mut write = |at: u64, part: &[u8]| {
                assert!(at.is_multiple_of(4) && part.len().is_multiple_of(4));
                out[at as usize..][..part.len()].copy_from_slice(part);
            };
            let all = parts.iter().zip(&forms).all(|(part, form)| {
                part.bytes.chunks(step * form.row_bytes()).all(|piece| packer.rows(form, piece, &mut write))
            });
            if all {
                packer.finish(&mut write);
                return Ok((layout, out));
            }
        }
        panic!("neither with lifted scales nor without")
    }

    #[test]
    fn codes_first_then_scales() {
        let values: Vec<f32> = (0..3 * 64).map(|i| i as f32).collect();
        let matrix = Matrix::encode(GgmlType::Q8_0, 3, 64, &values).unwrap();
        let (layout, bytes) = packed(&[&matrix], 3).unwrap();
        assert_eq!((layout.rows, layout.blocks, layout.parts.scales), (3, 2, 6 * 32 / 16));
        assert_eq!(bytes.len(), 6 * 32 + 16);
        for block in 0..6 {
            assert_eq!(bytes[block * 32..][..32], matrix.bytes[block * 34 + 2..][..32]);
            let scale = |bytes: &[u8]| f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
            let found = scale(&bytes[192 + block * 2..]) * layout.scale_unit;
            assert_eq!(found, scale(&matrix.bytes[block * 34..]));
        }
    }

    #[test]
    fn pieces_give_what_the_whole_gives() {
        for dtype in [GgmlType::F32, GgmlType::F16, GgmlType::Q4_0, GgmlType::Q8_0, GgmlType::Q4_1, GgmlType::Q5_0] {
            let bytes = |rows: usize| -> Vec<u8> {
                // Finite halves in any place.
                (0..rows * dtype.row_bytes(32).unwrap()).map(|i| (i * 7 % 31) as u8).collect()
            };
            let matrix = |rows| Matrix { dtype, rows, cols: 32, bytes: bytes(rows).into() };
            let (a, b) = (matrix(5), matrix(2));
            let whole = packed(&[&a, &b], 5).unwrap();
            for step in [1, 2, 3] {
                assert_eq!(packed(&[&a, &b], step).unwrap(), whole, "{dtype:?} by {step}");
            }
        }
        for dtype in GgmlType::ALL.into_iter().filter(|dtype| dtype.block_len() > 32) {
            let bytes: Vec<u8> = (0..3 * dtype.row_bytes(256).unwrap()).map(|i| (i * 11 % 37) as u8).collect();
            let matrix = Matrix { dtype, rows: 3, cols: 256, bytes: bytes.into() };
            assert_eq!(packed(&[&matrix], 1).unwrap(), packed(&[&matrix], 3).unwrap(), "{dtype:?}");
        }
    }

    #[test]
    fn scales_that_cannot_be_lifted_stay() {
        let mut values = vec![1e-4; 64];
        let small = Matrix::encode(GgmlType::Q8_0, 2, 32, &values).unwrap();
        let (layout, bytes) = packed(&[&small], 1).unwrap();
        assert!(layout.scale_unit < 1.0 && f16::from_le_bytes([bytes[64], bytes[65]]).is_normal());
        // Found only in the second piece: then none is.
        values[32..].fill(3e4);
        let large = Matrix::encode(GgmlType::Q8_0, 2, 32, &values).unwrap();
        let (layout, bytes) = packed(&[&large], 1).unwrap();
        assert_eq!((layout.scale_unit, &bytes[64..66]), (1.0, &large.bytes[..2]));
    }

    #[test]
    fn odd_rows_are_padded_and_mixed_parts_become_singles() {
        let a = Matrix::encode(GgmlType::F32, 1, 33, &[1.0; 33]).unwrap();
        let b = Matrix::encode(GgmlType::F16, 2, 33, &[2.0; 66]).unwrap();
        let (layout, bytes) = packed(&[&a, &b], 1).unwrap();
        assert_eq!((layout.dtype, layout.rows, layout.blocks), (GgmlType::F32, 3, 2));
        let words: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|w| f32::from_le_bytes(*w)).collect();
        assert_eq!((words[32], words[33], words[64], words[96], words[97]), (1.0, 0.0, 2.0, 2.0, 0.0));
        let wide = Matrix::encode(GgmlType::F32, 1, 34, &[1.0; 34]).unwrap();
        assert!(packed(&[&a, &wide], 1).is_err());
    }
}
