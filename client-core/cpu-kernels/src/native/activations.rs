//! Activations in eight bits as the native tiles read them.
//!
//! Up to four columns are interleaved, word by word, so that one stream of memory serves a tile.

use crate::blocks::BLOCK;

/// Columns of a tile; the last tile may have fewer.
pub const TILE: usize = 4;
/// Words of a block and a column: see [`Block`].
pub const WORDS: usize = 14;

/// 32 activations of each of `C` columns: rows of one word to a column.
///
/// | rows | hold |
/// | --- | --- |
/// | 0 to 7 | four codes each, −127 to 127 |
/// | [`HALVES`] | for the first and the second sixteen codes: in two lanes of sixteen bits, the sum of the codes at 4k and 4k + 1, and of those at 4k + 2 and 4k + 3 |
/// | [`WHOLE`] | the same of all 32 |
/// | [`SCALE`] | single precision: value = scale · code |
/// | [`WEIGHTED`] | single precision: scale times the sum of all codes |
/// | [`SIXTEEN`] | sixteen times the sum of all codes |
pub type Block<const C: usize> = [[u32; C]; WORDS];

/// See [`Block`].
pub const HALVES: [usize; 2] = [8, 9];
/// See [`Block`].
pub const WHOLE: usize = 10;
/// See [`Block`].
pub const SCALE: usize = 11;
/// See [`Block`].
pub const WEIGHTED: usize = 12;
/// See [`Block`].
pub const SIXTEEN: usize = 13;

/// The columns of the tile that begins at column `first` of `m`.
pub const fn tile_width(first: usize, m: usize) -> usize {
    if m - first < TILE { m - first } else { TILE }
}

/// The blocks of the `C` columns from `first` on, of rows with `cols` elements.
#[inline(always)]
pub fn columns<const C: usize>(words: &[u32], first: usize, cols: usize) -> &[Block<C>] {
    let words = &words[first * (cols / BLOCK) * WORDS..][..C * (cols / BLOCK) * WORDS];
    words.as_chunks::<C>().0.as_chunks().0
}
