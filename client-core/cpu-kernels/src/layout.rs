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

/// How codes lie and what multiplies them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codes {
    /// 0 to 15, two to a byte.
    Four,
    /// 0 to 63.
    Six,
    /// 0 to 63, one scale to 16 instead of 32.
    SixSplit,
    /// −128 to 127.
    Eight,
}

impl Codes {
    pub(crate) fn of(format: GgmlType) -> Self {
        match format {
            GgmlType::Q4_0 | GgmlType::Q4_1 | GgmlType::Q4K => Self::Four,
            GgmlType::Q6K => Self::SixSplit,
            GgmlType::Q5_0 | GgmlType::Q5_1 | GgmlType::Q5K => Self::Six,
            _ => Self::Eight,
        }
    }

    /// Bytes of the codes of one group and one block of columns.
    pub const fn bytes(self) -> usize {
        if matches!(self, Self::Four) { FOUR_BYTES } else { EIGHT_BYTES }
    }

    /// Scales of one group and one block of columns.
    pub const fn scales(self) -> usize {
        if matches!(self, Self::SixSplit) { 2 * GROUP } else { GROUP }
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
}
