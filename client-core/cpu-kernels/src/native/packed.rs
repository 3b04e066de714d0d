//! Quantised matrices as the native tiles read them.
//!
//! Eight rows are a group, and of a group four codes of each row follow each other: 32 bytes, a vector, hold columns 4k to
//! 4k + 3 of all eight rows. Codes keep the bits that the format has, in planes of one, two or four bits of all codes
//! ([`Bits::planes`]), and scales stay what the file has: halves, or a half for 256 columns with bytes for 32 or 16 of them.
//! So a weight takes 1.1 to 8.5 bits, as in the file, and a token reads no more memory than it has to.

use half::f16;

use crate::blocks::{BLOCK, GgmlType};
use crate::layout::GROUP;

/// Blocks of 32 columns that share a half-precision scale in the K formats.
pub const SUPER: usize = 8;

/// Bits of a code, by which the tiles differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bits {
    /// 0 or 2, stored halved; one scale to 128 columns.
    One,
    /// 0 to 3, one scale and one minimum to 16 columns.
    Two,
    /// 0 to 7, one scale to 16 columns.
    Three,
    /// 0 to 15.
    Four,
    /// 0 to 31.
    Five,
    /// 0 to 63, one scale to 16 columns.
    Six,
    /// −128 to 127.
    Eight,
    /// Four-bit places among levels of eight bits.
    Levels,
}

impl Bits {
    /// What a code's bits are split into, low ones first: planes of so many bits of all codes of a block.
    ///
    /// A plane of b bits is b vectors; vector v has at bit b · t of its bytes the codes number k = v + b · t, if b is 4, and
    /// else k = 8 / b · v + t: codes of columns 4k to 4k + 3.
    pub const fn planes(self) -> &'static [usize] {
        match self {
            Self::One => &[1],
            Self::Two => &[2],
            Self::Three => &[2, 1],
            Self::Four | Self::Levels => &[4],
            Self::Five => &[4, 1],
            Self::Six => &[4, 2],
            Self::Eight => &[8],
        }
    }

    /// Bytes of the codes of a group and a block.
    pub const fn bytes(self) -> usize {
        GROUP
            * BLOCK
            * match self {
                Self::One => 1,
                Self::Two => 2,
                Self::Three => 3,
                Self::Four | Self::Levels => 4,
                Self::Five => 5,
                Self::Six => 6,
                Self::Eight => 8,
            }
            / 8
    }

    /// Parts of a block with scales of their own.
    pub const fn parts(self) -> usize {
        if matches!(self, Self::Two | Self::Three | Self::Six) { 2 } else { 1 }
    }
}

/// The vector of a plane of `bits` bits in which codes number `k` of a block are, and the bit from which on they are there.
pub const fn place(bits: usize, k: usize) -> (usize, usize) {
    match bits {
        4 => (k % 4, k / 4 * 4),
        8 => (k, 0),
        _ => (k * bits / 8, k * bits % 8),
    }
}

/// Factors of codes, or minima. `len` of them are there: a group's eight side by side for every block, or for every part of
/// one.
#[derive(Debug, Clone, Default)]
pub struct Factors {
    /// Half precision, `[groups][blocks / Packed::shared][8]`.
    pub halves: Vec<u16>,
    /// What these are multiplied with, `[groups][blocks][parts of a block][8]` signed bytes, or empty. In [`Bits::Two`] a
    /// scale's byte has the minimum's in its upper half.
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
    /// Blocks that share a half.
    pub shared: usize,
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
            GgmlType::Q1_0 => Some(Bits::One),
            GgmlType::Q2K => Some(Bits::Two),
            GgmlType::Q3K => Some(Bits::Three),
            GgmlType::Q4_0 | GgmlType::Q4_1 | GgmlType::Q4K => Some(Bits::Four),
            GgmlType::Q5_0 | GgmlType::Q5_1 | GgmlType::Q5K => Some(Bits::Five),
            GgmlType::Q6K => Some(Bits::Six),
            GgmlType::Q8_0 => Some(Bits::Eight),
            GgmlType::Iq4Nl | GgmlType::Iq4Xs => Some(Bits::Levels),
        }
    }

    /// Whether scales are a half for 256 columns times bytes.
    pub const fn is_super(format: GgmlType) -> bool {
        format.block_len() == SUPER * BLOCK
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        let of = |factors: &Factors| 2 * factors.halves.len() + factors.parts.len();
        self.codes.len() + of(&self.scales) + of(&self.minima)
    }

    /// What the code at a column of a block stands for, for row `row` of a group.
    fn level(&self, place: usize, row: usize, col: usize) -> i8 {
        let codes = &self.codes[place * self.bits.bytes()..][..self.bits.bytes()];
        let (mut first, mut low, mut code) = (0, 0, 0);
        for bits in self.bits.planes() {
            let (vector, from) = self::place(*bits, col / 4);
            let byte = codes[first + 32 * vector + row * 4 + col % 4];
            code |= (byte >> from & (0xff >> (8 - bits)) as u8) << low;
            (first, low) = (first + bits * BLOCK, low + bits);
        }
        match self.format.levels() {
            Some(levels) => levels[usize::from(code)],
            None if self.bits == Bits::One => 2 * code as i8 - self.format.offset(),
            None => code as i8 - self.format.offset(),
        }
    }

    /// The scale and the minimum of row `row` of a group for a part of a block.
    fn factors(&self, group: usize, block: usize, part: usize, row: usize) -> (f32, f32) {
        let above = (group * (self.blocks / self.shared) + block / self.shared) * GROUP + row;
        let half = |of: &Factors| of.halves.get(above).map_or(0.0, |bits| f16::from_bits(*bits).to_f32());
        let (scale, minimum) = (half(&self.scales), half(&self.minima));
        let at = |parts: usize| ((group * self.blocks + block) * parts + part) * GROUP + row;
        match self.scales.parts.get(at(self.bits.parts())) {
            None => (scale, minimum),
            Some(both) if self.bits == Bits::Two => (scale * f32::from(both & 15), minimum * f32::from(both >> 4)),
            Some(factor) => {
                let less = self.minima.parts.get(at(1)).copied().unwrap_or(0);
                (scale * f32::from(*factor as i8), minimum * f32::from(less))
            }
        }
    }

    /// Row number `row` in single precision into `out`, one to a column.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        let (group, row) = (row / GROUP, row % GROUP);
        for (block, out) in out.chunks_exact_mut(BLOCK).enumerate() {
            for (half, out) in out.chunks_exact_mut(16).enumerate() {
                let (scale, minimum) = self.factors(group, block, half * (self.bits.parts() - 1), row);
                for (col, y) in (16 * half..).zip(out) {
                    *y = scale * f32::from(self.level(group * self.blocks + block, row, col)) - minimum;
                }
            }
        }
    }
}
