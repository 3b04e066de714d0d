//! Codes of a block as bytes.

use std::arch::aarch64::*;

use super::{TWO, bytes};
use crate::blocks::IQ4_LEVELS;
use crate::native::codes::{self, EIGHT, FIVE, LEVELS, ONE, SIX, THREE};
use crate::native::packed::place;

/// What codes 4k to 4k + 3 of a block and all rows stand for, one to a byte, less an offset.
#[inline]
#[target_feature(enable = "neon,dotprod,fp16")]
pub fn unpack<const BITS: u8>(codes: &[[u8; 32]], k: usize) -> [int8x16_t; TWO] {
    match BITS {
        EIGHT => bytes(&codes[k]),
        // Stored halved.
        ONE => plane::<1>(codes, k, 1),
        codes::TWO => plane::<2>(codes, k, 0),
        THREE => or(plane::<2>(codes, k, 0), plane::<1>(&codes[2..], k, 2)),
        FIVE => or(plane::<4>(codes, k, 0), plane::<1>(&codes[4..], k, 4)),
        SIX => or(plane::<4>(codes, k, 0), plane::<2>(&codes[4..], k, 4)),
        LEVELS => {
            let (levels, [low, high]) = (bytemuck::cast(IQ4_LEVELS), plane::<4>(codes, k, 0));
            [vqtbl1q_s8(levels, vreinterpretq_u8_s8(low)), vqtbl1q_s8(levels, vreinterpretq_u8_s8(high))]
        }
        _ => plane::<4>(codes, k, 0),
    }
}

#[inline]
#[target_feature(enable = "neon,dotprod,fp16")]
fn or(a: [int8x16_t; TWO], b: [int8x16_t; TWO]) -> [int8x16_t; TWO] {
    [vorrq_s8(a[0], b[0]), vorrq_s8(a[1], b[1])]
}

/// `N` bits of codes 4k to 4k + 3, from a plane of so many, moved to bit `to`.
#[inline]
#[target_feature(enable = "neon,dotprod,fp16")]
fn plane<const N: usize>(codes: &[[u8; 32]], k: usize, to: usize) -> [int8x16_t; TWO] {
    let (vector, from) = place(N, k);
    let left = vdupq_n_s8(to as i8 - from as i8);
    let mask = vdupq_n_u8(((0xff >> (8 - N)) << to) as u8);
    let moved = |codes: int8x16_t| vreinterpretq_s8_u8(vandq_u8(vshlq_u8(vreinterpretq_u8_s8(codes), left), mask));
    let [low, high] = bytes(&codes[vector]);
    [moved(low), moved(high)]
}
