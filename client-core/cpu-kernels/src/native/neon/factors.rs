//! Scales and minima of a group of rows as vectors.

use std::arch::aarch64::*;

use super::{TWO, halves};
use crate::native::factors::{GroupFactors, HIGH, LOW};
use crate::native::packed::SUPER;

impl GroupFactors<'_> {
    /// The factors that are half number `at`.
    #[inline]
    #[target_feature(enable = "neon,dotprod,fp16")]
    pub fn half_at(&self, at: usize) -> [float32x4_t; TWO] {
        halves(&self.halves[at])
    }

    /// The factors of a part of a block whose bytes are number `at`.
    #[inline]
    #[target_feature(enable = "neon,dotprod,fp16")]
    pub fn super_at<const PART: u8>(&self, block: usize, at: usize) -> [float32x4_t; TWO] {
        let bytes: uint8x8_t = bytemuck::cast(self.parts[at]);
        let bytes = match PART {
            LOW => vand_u8(bytes, vdup_n_u8(15)),
            HIGH => vshr_n_u8::<4>(bytes),
            _ => bytes,
        };
        let words = vmovl_s8(vreinterpret_s8_u8(bytes));
        let whole = [vmovl_s16(vget_low_s16(words)), vmovl_s16(vget_high_s16(words))];
        let [low, high] = halves(&self.halves[block / SUPER]);
        [vmulq_f32(low, vcvtq_f32_s32(whole[0])), vmulq_f32(high, vcvtq_f32_s32(whole[1]))]
    }
}
