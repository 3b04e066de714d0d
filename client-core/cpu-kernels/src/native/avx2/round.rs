//! Activations to eight bits: the portable rounding, bit for bit.

use std::arch::x86_64::*;

use super::{singles, splat_single};
use crate::blocks::BLOCK;
use crate::native::activations::{self, Block, HALVES, SCALE, SIXTEEN, WEIGHTED, WHOLE, WORDS};
use crate::pool::Places;
use crate::tile::ROUND;

/// Rounds the tile of columns that begins at column `first` of `m`, and writes it to its place.
#[target_feature(enable = "avx2,fma,f16c")]
pub fn tile(values: &[f32], first: usize, m: usize, cols: usize, words: &Places<'_, u32>) {
    match m - first {
        1 => columns::<1>(values, first, cols, words),
        2 => columns::<2>(values, first, cols, words),
        3 => columns::<3>(values, first, cols, words),
        _ => columns::<{ activations::TILE }>(values, first, cols, words),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn columns<const C: usize>(values: &[f32], first: usize, cols: usize, words: &Places<'_, u32>) {
    let blocks = cols / BLOCK;
    for at in 0..blocks {
        let mut x = [&[0.0; BLOCK]; C];
        for (c, x) in x.iter_mut().enumerate() {
            *x = &values[(first + c) * cols..][..cols].as_chunks().0[at];
        }
        words.write((first * blocks + at * C) * WORDS, block(x).as_flattened());
    }
}

/// Rounds a block of `C` columns.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub fn block<const C: usize>(x: [&[f32; BLOCK]; C]) -> Block<C> {
    let mut out = [[0; C]; WORDS];
    for (c, x) in x.into_iter().enumerate() {
        let column = column(x);
        for (out, word) in out.iter_mut().zip(column) {
            out[c] = word;
        }
    }
    out
}

/// The words of a block and one column.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn column(x: &[f32; BLOCK]) -> [u32; WORDS] {
    let eights = x.as_chunks::<8>().0;
    let x = [singles(&eights[0]), singles(&eights[1]), singles(&eights[2]), singles(&eights[3])];
    // As whole numbers the bits of sizes are in their order, and NaN is above infinity: it makes the scale NaN.
    let sizes = _mm256_set1_epi32(0x7fff_ffff);
    let size = |x: __m256| _mm256_and_si256(_mm256_castps_si256(x), sizes);
    let most = _mm256_max_epi32(_mm256_max_epi32(size(x[0]), size(x[1])), _mm256_max_epi32(size(x[2]), size(x[3])));
    let most = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256::<1>(most));
    let most = _mm_max_epi32(most, _mm_shuffle_epi32::<0b01_00_11_10>(most));
    let most = _mm_max_epi32(most, _mm_shuffle_epi32::<0b10_11_00_01>(most));
    let largest = f32::from_bits(_mm_cvtsi128_si32(most) as u32);
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    let inverse = splat_single(inverse.to_bits());
    let round = _mm256_set1_ps(ROUND);
    // The low sixteen bits, with their sign.
    let code = |x: __m256| {
        let rounded = _mm256_castps_si256(_mm256_add_ps(_mm256_mul_ps(x, inverse), round));
        _mm256_srai_epi32::<16>(_mm256_slli_epi32::<16>(rounded))
    };
    let codes = [code(x[0]), code(x[1]), code(x[2]), code(x[3])];
    // Packing works on halves of vectors: the order is mended at the end.
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let words = _mm256_packs_epi16(_mm256_packs_epi32(codes[0], codes[1]), _mm256_packs_epi32(codes[2], codes[3]));
    let bytes = _mm256_permutevar8x32_epi32(words, order);
    let codes: [u32; 8] = bytemuck::cast(bytes);

    // Lanes of sixteen bits: sums of the codes at 2i and 2i + 1. Even ones are 4k, 4k + 1; the first half is 0 to 15.
    let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
    let halves = [_mm256_castsi256_si128(pairs), _mm256_extracti128_si256::<1>(pairs)];
    let sum = |pairs: __m128i| {
        let pairs = _mm_add_epi16(pairs, _mm_shuffle_epi32::<0b01_00_11_10>(pairs));
        _mm_cvtsi128_si32(_mm_add_epi16(pairs, _mm_shuffle_epi32::<0b10_11_00_01>(pairs)))
    };
    let whole = sum(_mm_add_epi16(halves[0], halves[1]));
    let total = i32::from(whole as i16) + (whole >> 16);
    let scale = largest / 127.0;
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
