//! The job of a gated activation, for whichever instructions do it.

use crate::pool::Places;

/// The job of [`math::gated`](crate::math::gated): `act(gate) · up` for rows that hold both.
#[derive(Debug)]
pub struct Gated<'a> {
    pub(crate) rows: &'a [f32],
    pub(crate) ffn: usize,
    pub(crate) gelu: bool,
    pub(crate) out: Places<'a, f32>,
}

impl Gated<'_> {
    /// Rows of a piece: some microseconds.
    pub(crate) const ROWS: usize = 4;

    /// The rows of a piece, with their numbers.
    pub(crate) fn rows_of(&self, piece: usize) -> impl Iterator<Item = (usize, &[f32])> {
        self.rows.chunks_exact(2 * self.ffn).enumerate().skip(piece * Self::ROWS).take(Self::ROWS)
    }
}
