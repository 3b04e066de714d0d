//! Quantised matrices as the native tiles read them.
//!
//! Eight rows are a group, and of a group four codes of each row follow each other: 32 bytes, a vector, hold columns 4k to
//! 4k + 3 of all eight rows. Codes keep the bits that the format has (low nibbles, then planes of the remaining bits), and
//! scales stay what the file has: halves, or a half for 256 columns with bytes for 32 or 16 of them. So a weight takes 4.5
//! to 8.5 bits, as in the file, and a token reads no more memory than it has to.

use half::f16;

use crate::blocks::{BLOCK, GgmlType};
use crate::layout::GROUP;

/// Blocks of 32 columns that share a half-precision scale in the K formats.
pub const SUPER: usize = 8;

/// Bits of a code, by which the tiles differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bits {
    /// 0 to 15.
    Four,
    /// 0 to 31.
    Five,
    /// 0 to 63, one scale to 16 columns.
    Six,
    /// −128 to 127.
    Eight,
}

impl Bits {
    /// Bytes of the codes of a group and a block.
    pub const fn bytes(self) -> usize {
        GROUP
            * BLOCK
            * match self {
                Self::Four => 4,
                Self::Five => 5,
                Self::Six => 6,
                Self::Eight => 8,
            }
            / 8
    }

    /// Parts of a block with scales of their own.
    pub const fn parts(self) -> usize {
        if matches!(self, Self::Six) { 2 } else { 1 }
    }
}

/// Factors of codes, or minima. `len` of them are there: a group's eight side by side for every block, or for every part of
/// one.
#[derive(Debug, Clone, Default)]
pub struct Factors {
    /// Half precision, `[groups][blocks][8]`; with [`parts`](Self::parts) `[groups][⌈blocks / 8⌉][8]`.
    pub halves: Vec<u16>,
    /// What these are multiplied with, `[groups][blocks][parts of a block][8]`, or empty.
    pub parts: Vec<u8>,
}

/// A matrix of codes.
#[derive(Debug)]
pub struct Packed {
    /// How the file has it.
    pub format: GgmlType,
    /// What the codes are.
    pub bits: Bits,
    /// Blocks of a row.
    pub blocks: usize,
    /// `[groups][blocks][Bits::bytes]`.
    pub codes: Vec<u8>,
    /// What codes are multiplied with.
    pub scales: Factors,
    /// What is subtracted; no halves where nothing is.
    pub minima: Factors,
}

impl Packed {
    /// The bits of a quantised format's codes, or `None` of one that is not.
    pub const fn bits(format: GgmlType) -> Option<Bits> {
        match format {
            GgmlType::F32 | GgmlType::F16 | GgmlType::Bf16 => None,
            GgmlType::Q4_0 | GgmlType::Q4_1 | GgmlType::Q4K => Some(Bits::Four),
            GgmlType::Q5_0 | GgmlType::Q5_1 | GgmlType::Q5K => Some(Bits::Five),
            GgmlType::Q6K => Some(Bits::Six),
            GgmlType::Q8_0 => Some(Bits::Eight),
        }
    }

    /// Whether scales are a half for 256 columns times bytes.
    pub const fn is_super(format: GgmlType) -> bool {
        matches!(format, GgmlType::Q4K | GgmlType::Q5K | GgmlType::Q6K)
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        let of = |factors: &Factors| 2 * factors.halves.len() + factors.parts.len();
        self.codes.len() + of(&self.scales) + of(&self.minima)
    }

    /// The code at a column of a block, for row `row` of a group, as stored: [`GgmlType::offset`] is not taken off.
    fn code(&self, place: usize, row: usize, col: usize) -> i32 {
        let codes = &self.codes[place * self.bits.bytes()..][..self.bits.bytes()];
        let (k, at) = (col / 4, row * 4 + col % 4);
        if self.bits == Bits::Eight {
            return i32::from(codes[32 * k + at] as i8);
        }
        let low = codes[32 * (k % 4) + at] >> (4 * (k / 4)) & 15;
        let high = match self.bits {
            Bits::Five => codes[128 + at] >> k & 1,
            Bits::Six => codes[128 + 32 * (k / 4) + at] >> (2 * (k % 4)) & 3,
            _ => 0,
        };
        i32::from(low | high << 4)
    }

    /// A factor of row `row` of a group for a part of a block.
    fn factor(&self, of: &Factors, signed: bool, group: usize, block: usize, part: usize, row: usize) -> f32 {
        let half = |at: usize| of.halves.get(at).map_or(0.0, |bits| f16::from_bits(*bits).to_f32());
        if of.parts.is_empty() {
            return half((group * self.blocks + block) * GROUP + row);
        }
        let supers = self.blocks / SUPER;
        let byte = of.parts[((group * self.blocks + block) * self.bits.parts() + part) * GROUP + row];
        let byte = if signed { f32::from(byte as i8) } else { f32::from(byte) };
        half((group * supers + block / SUPER) * GROUP + row) * byte
    }

    /// Row number `row` in single precision into `out`, one to a column.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        let (group, row) = (row / GROUP, row % GROUP);
        let offset = i32::from(self.format.offset());
        for (block, out) in out.chunks_exact_mut(BLOCK).enumerate() {
            let minimum = self.factor(&self.minima, false, group, block, 0, row);
            for (col, y) in out.iter_mut().enumerate() {
                let part = if self.bits.parts() == 2 { col / 16 } else { 0 };
                let scale = self.factor(&self.scales, self.bits == Bits::Six, group, block, part, row);
                *y = scale * (self.code(group * self.blocks + block, row, col) - offset) as f32 - minimum;
            }
        }
    }
}
