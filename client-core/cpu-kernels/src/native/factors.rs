//! Scales and minima of a group of rows, where they lie; the tiles of each set of instructions make numbers of them.

use crate::layout::GROUP;

use super::packed::{Bits, Packed};

/// A part is a signed byte.
pub const SIGNED: u8 = 0;
/// A part is the lower half of a byte.
pub const LOW: u8 = 1;
/// A part is the upper half of a byte.
pub const HIGH: u8 = 2;

/// The factors of one group, block by block.
#[derive(Clone, Copy)]
pub struct GroupFactors<'a> {
    pub(super) halves: &'a [[u16; GROUP]],
    pub(super) parts: &'a [[u8; GROUP]],
}

impl<'a> GroupFactors<'a> {
    /// Of no group.
    pub const EMPTY: Self = Self { halves: &[], parts: &[] };

    /// What codes are multiplied with.
    pub fn scales(packed: &'a Packed, group: usize) -> Self {
        Self::new(&packed.scales.halves, &packed.scales.parts, packed.bits.parts(), packed, group)
    }

    /// What is subtracted; nothing where there are no minima.
    pub fn minima(packed: &'a Packed, group: usize) -> Self {
        let of = &packed.minima;
        match packed.bits {
            _ if of.halves.is_empty() => Self::EMPTY,
            // A byte with the scale.
            Bits::Two => Self::new(&of.halves, &packed.scales.parts, packed.bits.parts(), packed, group),
            _ => Self::new(&of.halves, &of.parts, 1, packed, group),
        }
    }

    fn new(halves: &'a [u16], bytes: &'a [u8], parts: usize, packed: &Packed, group: usize) -> Self {
        let (above, parts) = (packed.blocks / packed.shared, packed.blocks * parts);
        Self {
            halves: &halves.as_chunks().0[group * above..][..above],
            parts: bytes.as_chunks().0.get(group * parts..(group + 1) * parts).unwrap_or_default(),
        }
    }

    /// Whether factors are halves times bytes.
    pub fn has_parts(&self) -> bool {
        !self.parts.is_empty()
    }
}
