//! How numbers lie in memory, as what stores them and what multiplies them have agreed: rows in groups, codes in blocks,
//! heads padded to whole lanes. Below both, so that a product and its tiles need not know each other.

use crate::blocks::{BLOCK, GgmlType};

/// Lanes of a sum.
pub const LANES: usize = 8;

/// Keys of one step.
pub(crate) const KEYS: usize = 32;
/// Most queries of a tile.
pub(crate) const QUERIES: usize = 4;
/// Most elements of a head.
pub const MAX_HEAD: usize = 256;
/// A score that no key has.
pub(crate) const NONE: f32 = -1e30;

/// Elements of a padded head.
pub fn stride(head_dim: usize) -> usize {
    head_dim.next_multiple_of(LANES)
}

/// Copies `place` of `from` to the same place of `to`, which becomes as long as that needs; `None` where `from` is shorter.
pub(crate) fn copy_place<T: Copy + Default>(to: &mut Vec<T>, from: &[T], place: std::ops::Range<usize>) -> Option<()> {
    let from = from.get(place.clone())?;
    if to.len() < place.end {
        to.reserve_exact(place.end - to.len());
        to.resize(place.end, T::default());
    }
    to.get_mut(place)?.copy_from_slice(from);
    Some(())
}

/// What one layer's attention needs to know.
#[derive(Debug, Clone, Copy)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key heads.
    pub kv_heads: usize,
    /// Elements of a head, at most [`MAX_HEAD`].
    pub head_dim: usize,
    /// Tokens that a token sees, itself included.
    pub window: Option<usize>,
    /// What scores are multiplied with.
    pub scale: f32,
    /// c, where scores are held within ±c by c·tanh(score / c); 0 for none.
    pub cap: f32,
}

/// Rows of a group.
pub const GROUP: usize = 8;
/// Bytes of eight-bit codes of one group and one block of columns.
pub const EIGHT_BYTES: usize = GROUP * BLOCK;
/// Bytes of four-bit codes of one group and one block of columns.
pub const FOUR_BYTES: usize = GROUP * BLOCK / 2;
/// The same of three-bit codes.
pub const THREE_BYTES: usize = GROUP * BLOCK * 3 / 8;
/// The same of two-bit codes.
pub const TWO_BYTES: usize = GROUP * BLOCK / 4;
/// The same of one-bit codes.
pub const ONE_BYTES: usize = GROUP * BLOCK / 8;

/// How codes lie and what multiplies them.
///
/// Codes of fewer than eight bits lie in planes of one, two or four of their bits, low ones first: a plane of b bits takes
/// 32 · b bytes, of which each holds b bits of columns 4b apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codes {
    /// 0 or 2, stored as one bit; one scale to 128.
    One,
    /// 0 to 3, one scale and one minimum to 16.
    Two,
    /// 0 to 7, one scale to 16.
    Three,
    /// 0 to 15, two to a byte.
    Four,
    /// 0 to 63.
    Six,
    /// 0 to 63, one scale to 16 instead of 32.
    SixSplit,
    /// −128 to 127.
    Eight,
    /// Places among 16 levels of eight bits, stored like [`Four`](Self::Four).
    Levels,
    /// The same, with scales that are multiples of one for 256.
    LevelsSuper,
}

impl Codes {
    pub(crate) fn of(format: GgmlType) -> Self {
        match format {
            GgmlType::Q1_0 => Self::One,
            GgmlType::Q2K => Self::Two,
            GgmlType::Q3K => Self::Three,
            GgmlType::Q4_0 | GgmlType::Q4_1 | GgmlType::Q4K => Self::Four,
            GgmlType::Q6K => Self::SixSplit,
            GgmlType::Q5_0 | GgmlType::Q5_1 | GgmlType::Q5K => Self::Six,
            GgmlType::Iq4Nl => Self::Levels,
            GgmlType::Iq4Xs => Self::LevelsSuper,
            GgmlType::F32 | GgmlType::F16 | GgmlType::Bf16 | GgmlType::Q8_0 => Self::Eight,
        }
    }

    /// Bits of the planes that the codes lie in.
    pub(crate) const fn planes(self) -> Planes {
        Planes(match self {
            Self::One => &[1],
            Self::Two => &[2],
            Self::Three => &[2, 1],
            Self::Four | Self::Levels | Self::LevelsSuper => &[4],
            Self::Six | Self::SixSplit | Self::Eight => &[8],
        })
    }

    /// Bytes of the codes of one group and one block of columns.
    pub const fn bytes(self) -> usize {
        match self {
            Self::One => ONE_BYTES,
            Self::Two => TWO_BYTES,
            Self::Three => THREE_BYTES,
            Self::Four | Self::Levels | Self::LevelsSuper => FOUR_BYTES,
            Self::Six | Self::SixSplit | Self::Eight => EIGHT_BYTES,
        }
    }

    /// Parts of a block that have scales of their own.
    pub const fn parts(self) -> usize {
        if matches!(self, Self::Two | Self::Three | Self::SixSplit) { 2 } else { 1 }
    }

    /// Blocks that share a single, and a minimum where there is one.
    pub const fn shared(self) -> usize {
        match self {
            Self::One => 4,
            Self::Two | Self::Three | Self::LevelsSuper => 8,
            _ => 1,
        }
    }

    /// Whether scales are bytes times that single. Of [`Two`](Self::Two) a byte's upper half is for the minimum.
    pub const fn has_factors(self) -> bool {
        matches!(self, Self::Two | Self::Three | Self::LevelsSuper)
    }
}

/// The bits of planes: where the codes of a group of rows are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planes(&'static [usize]);

impl Planes {
    /// Puts a code into the bytes of a block.
    pub(crate) fn put(self, order: Order, row: usize, col: usize, mut code: u8, bytes: &mut [u8]) {
        let mut first = 0;
        for bits in self.0 {
            let mask = (0xff >> (8 - bits)) as u8;
            let (byte, shift) = (&mut bytes[first + order.place(row, col % (4 * bits))], col / (4 * bits) * bits);
            *byte = (*byte & !(mask << shift)) | ((code & mask) << shift);
            code = code.checked_shr(*bits as u32).unwrap_or(0);
            first += bits * BLOCK;
        }
    }

    /// What [`put`](Self::put) put there.
    pub(crate) fn get(self, order: Order, row: usize, col: usize, bytes: &[u8]) -> u8 {
        let (mut first, mut low, mut code) = (0, 0, 0);
        for bits in self.0 {
            let byte = bytes[first + order.place(row, col % (4 * bits))];
            code |= (byte >> (col / (4 * bits) * bits) & (0xff >> (8 - bits)) as u8) << low;
            low += bits;
            first += bits * BLOCK;
        }
        code
    }
}

/// Puts bytes of row `row` of a group into `to`, `RUN` of each row in turn.
#[inline(always)]
fn in_runs<const RUN: usize, const N: usize>(row: usize, from: &[u8; N], to: &mut [u8]) {
    for (from, to) in from.as_chunks::<RUN>().0.iter().zip(to.chunks_exact_mut(RUN * GROUP)) {
        to[row * RUN..][..RUN].copy_from_slice(from);
    }
}

/// How the codes of a group of rows lie in a block: what the kernels multiply best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Two codes of each row in turn, for products of sixteen bits: `[columns / 2][8][2]`.
    Pairs,
    /// Four codes of each row in turn, for products of bytes: `[columns / 4][8][4]`.
    Fours,
}

impl Order {
    /// The byte of column `col` of row `row`.
    pub(crate) const fn place(self, row: usize, col: usize) -> usize {
        let run = if matches!(self, Self::Pairs) { 2 } else { 4 };
        col / run * run * GROUP + row * run + col % run
    }

    /// Puts the bytes of columns 0 to N − 1 of row `row` where [`place`](Self::place) has them.
    #[inline(always)]
    pub(crate) fn put<const N: usize>(self, row: usize, from: &[u8; N], to: &mut [u8]) {
        match self {
            Self::Pairs => in_runs::<2, N>(row, from, to),
            Self::Fours => in_runs::<4, N>(row, from, to),
        }
    }
}
