//! Codes of a block as bytes.

use std::arch::x86_64::*;

use super::bytes;
use crate::blocks::IQ4_LEVELS;
use crate::native::codes::{EIGHT, FIVE, LEVELS, ONE, SIX, THREE, TWO};
use crate::native::packed::place;

/// What codes 4k to 4k + 3 of a block and all rows stand for, one to a byte, less an offset.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub fn unpack<const BITS: u8>(codes: &[[u8; 32]], k: usize) -> __m256i {
    match BITS {
        EIGHT => bytes(&codes[k]),
        // Stored halved.
        ONE => plane::<1>(codes, k, 1),
        TWO => plane::<2>(codes, k, 0),
        THREE => _mm256_or_si256(plane::<2>(codes, k, 0), plane::<1>(&codes[2..], k, 2)),
        FIVE => _mm256_or_si256(plane::<4>(codes, k, 0), plane::<1>(&codes[4..], k, 4)),
        SIX => _mm256_or_si256(plane::<4>(codes, k, 0), plane::<2>(&codes[4..], k, 4)),
        LEVELS => {
            let levels = _mm256_broadcastsi128_si256(bytemuck::cast(IQ4_LEVELS));
            _mm256_shuffle_epi8(levels, plane::<4>(codes, k, 0))
        }
        _ => plane::<4>(codes, k, 0),
    }
}

/// `N` bits of codes 4k to 4k + 3, from a plane of so many, moved to bit `to`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn plane<const N: usize>(codes: &[[u8; 32]], k: usize, to: usize) -> __m256i {
    let (vector, from) = place(N, k);
    let codes = bytes(&codes[vector]);
    // What comes over from a neighbouring byte is masked.
    let moved = match from.checked_sub(to) {
        Some(right) => _mm256_srl_epi16(codes, _mm_cvtsi32_si128(right as i32)),
        None => _mm256_sll_epi16(codes, _mm_cvtsi32_si128((to - from) as i32)),
    };
    _mm256_and_si256(moved, _mm256_set1_epi8(((0xff >> (8 - N)) << to) as u8 as i8))
}
