//! Activations to eight bits: the portable rounding, bit for bit.

use std::arch::aarch64::*;

use crate::blocks::BLOCK;
use crate::native::activations::{self, Block, HALVES, SCALE, SIXTEEN, WEIGHTED, WHOLE, WORDS};
use crate::pool::Places;
use crate::tile::ROUND;

/// Rounds the tile of columns that begins at column `first` of `m`, and writes it to its place.
#[target_feature(enable = "neon,dotprod,fp16")]
pub fn tile(values: &[f32], first: usize, m: usize, cols: usize, words: &Places<'_, u32>) {
    match m - first {
        1 => columns::<1>(values, first, cols, words),
        2 => columns::<2>(values, first, cols, words),
        3 => columns::<3>(values, first, cols, words),
        _ => columns::<{ activations::TILE }>(values, first, cols, words),
    }
}

#[target_feature(enable = "neon,dotprod,fp16")]
fn columns<const C: usize>(values: &[f32], first: usize, cols: usize, words: &Places<'_, u32>) {
    let blocks = cols / BLOCK;
    for at in 0..blocks {
        let mut block: Block<C> = [[0; C]; WORDS];
        for c in 0..C {
            let column = column(&values[(first + c) * cols..][..cols].as_chunks().0[at]);
            for (words, word) in block.iter_mut().zip(column) {
                words[c] = word;
            }
        }
        words.write((first * blocks + at * C) * WORDS, block.as_flattened());
    }
}

/// The words of a block and one column.
#[inline]
#[target_feature(enable = "neon,dotprod,fp16")]
fn column(x: &[f32; BLOCK]) -> [u32; WORDS] {
    let x: [float32x4_t; 8] = bytemuck::cast(*x);
    // As whole numbers the bits of sizes are in their order, and NaN is above infinity: it makes the scale NaN.
    let mut most = vdupq_n_s32(0);
    for x in x {
        most = vmaxq_s32(most, vandq_s32(vreinterpretq_s32_f32(x), vdupq_n_s32(0x7fff_ffff)));
    }
    let largest = f32::from_bits(vmaxvq_s32(most) as u32);
    let inverse = vdupq_n_f32(if largest > 0.0 { 127.0 / largest } else { 0.0 });
    // The low sixteen bits.
    let code = |x: float32x4_t| vmovn_s32(vreinterpretq_s32_f32(vaddq_f32(vmulq_f32(x, inverse), vdupq_n_f32(ROUND))));
    let eight = |at: usize| vqmovn_s16(vcombine_s16(code(x[at]), code(x[at + 1])));
    let bytes = [vcombine_s8(eight(0), eight(2)), vcombine_s8(eight(4), eight(6))];

    // Lanes of sixteen bits: sums of the codes at 2i and 2i + 1. Even ones are 4k, 4k + 1; the first half is 0 to 15.
    let halves = [vpaddlq_s8(bytes[0]), vpaddlq_s8(bytes[1])];
    let sum = |pairs: int16x8_t| {
        let pairs = vreinterpret_s32_s16(vadd_s16(vget_low_s16(pairs), vget_high_s16(pairs)));
        let other = vrev64_s32(pairs);
        vget_lane_s32::<0>(vreinterpret_s32_s16(vadd_s16(vreinterpret_s16_s32(pairs), vreinterpret_s16_s32(other))))
    };
    let whole = sum(vaddq_s16(halves[0], halves[1]));
    let total = i32::from(whole as i16) + (whole >> 16);
    let scale = largest / 127.0;
    let codes: [u32; 8] = bytemuck::cast(bytes);
    let mut out = [0; WORDS];
    out[..8].copy_from_slice(&codes);
    for (at, half) in HALVES.into_iter().zip(halves) {
        out[at] = sum(half) as u32;
    }
    out[WHOLE] = whole as u32;
    out[SCALE] = scale.to_bits();
    out[WEIGHTED] = (total as f32 * scale).to_bits();
    out[SIXTEEN] = (16 * total) as u32;
    out
}
