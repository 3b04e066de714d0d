//! AArch64 with NEON's dot products and half precision.
//!
//! | module | holds |
//! | --- | --- |
//! | [`attention`] | causal attention over a cache in half precision |
//! | [`dot`] | packed matrices times activations |
//! | `factors` | scales and minima of a group of rows as vectors |
//! | [`math`] | exponentials, SwiGLU, GeGLU |
//! | [`round`] | activations to eight bits |
//! | `unpack` | codes of a block as bytes |
//!
//! The loops are those of `avx2` once more: a body that is compiled for other features cannot be shared without a call in its
//! innermost loop, and the registers hold other tiles.
//!
//! What lies in memory in eights takes two vectors here, of rows 0 to 3 and 4 to 7. Every function here has
//! `#[target_feature]` and is called behind [`isa`](super::isa) only; whoever calls one says so.

#![allow(clippy::needless_range_loop, reason = "loops over constant ranges index several arrays and are unrolled")]
#![allow(clippy::missing_safety_doc, reason = "said once above: the processor has to have the features, nothing else")]

pub mod attention;
pub mod dot;
mod factors;
pub mod math;
pub mod round;
mod unpack;

use std::arch::aarch64::*;

/// Vectors that hold an eight.
const TWO: usize = 2;

/// 32 bytes as two vectors.
#[inline]
#[target_feature(enable = "neon,dotprod,fp16")]
fn bytes(bytes: &[u8; 32]) -> [int8x16_t; TWO] {
    bytemuck::cast(*bytes)
}

/// Eight singles as two vectors.
#[inline]
#[target_feature(enable = "neon,dotprod,fp16")]
fn singles(values: &[f32; 8]) -> [float32x4_t; TWO] {
    bytemuck::cast(*values)
}

/// Eight halves as singles.
#[inline]
#[target_feature(enable = "neon,dotprod,fp16")]
fn halves(values: &[u16; 8]) -> [float32x4_t; TWO] {
    let [low, high]: [uint16x4_t; TWO] = bytemuck::cast(*values);
    [vcvt_f32_f16(vreinterpret_f16_u16(low)), vcvt_f32_f16(vreinterpret_f16_u16(high))]
}
