//! Scales and minima of a group of rows as vectors.

use std::arch::x86_64::*;

use super::halves;
use crate::native::factors::{GroupFactors, HIGH, LOW};
use crate::native::packed::SUPER;

impl GroupFactors<'_> {
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
