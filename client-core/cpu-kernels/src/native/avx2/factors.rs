//! Scales and minima of a group of rows.

use std::arch::x86_64::*;

use super::halves;
use crate::layout::GROUP;
use crate::native::packed::{Bits, Packed, SUPER};

/// A part is a signed byte.
pub const SIGNED: u8 = 0;
/// A part is the lower half of a byte.
pub const LOW: u8 = 1;
/// A part is the upper half of a byte.
pub const HIGH: u8 = 2;

/// The factors of one group, block by block.
#[derive(Clone, Copy)]
pub struct GroupFactors<'a> {
    halves: &'a [[u16; GROUP]],
    parts: &'a [[u8; GROUP]],
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

    /// The factors that are half number `at`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub fn half_at(&self, at: usize) -> __m256 {
        halves(&self.halves[at])
    }

    /// The factors of a part of a block whose bytes are number `at`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub fn super_at<const PART: u8>(&self, block: usize, at: usize) -> __m256 {
        let bytes = _mm_set_epi64x(0, i64::from_le_bytes(self.parts[at]));
        let bytes = match PART {
            LOW => _mm_and_si128(bytes, _mm_set1_epi8(15)),
            HIGH => _mm_and_si128(_mm_srli_epi16::<4>(bytes), _mm_set1_epi8(15)),
            _ => bytes,
        };
        let whole = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
        _mm256_mul_ps(halves(&self.halves[block / SUPER]), whole)
    }
}
