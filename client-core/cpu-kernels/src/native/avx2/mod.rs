//! x86-64 with AVX2, FMA and F16C.
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
//! Every function here has `#[target_feature]` and is called behind [`isa`](super::isa) only; whoever calls one says so.

#![allow(clippy::needless_range_loop, reason = "loops over constant ranges index several arrays and are unrolled")]
#![allow(clippy::missing_safety_doc, reason = "said once above: the processor has to have the features, nothing else")]

pub mod attention;
pub mod dot;
mod factors;
pub mod math;
pub mod round;
mod unpack;

use std::arch::x86_64::*;

/// 32 bytes as a vector.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn bytes(bytes: &[u8; 32]) -> __m256i {
    bytemuck::cast(*bytes)
}

/// Eight singles as a vector.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn singles(values: &[f32; 8]) -> __m256 {
    bytemuck::cast(*values)
}

/// Eight halves as singles.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn halves(values: &[u16; 8]) -> __m256 {
    _mm256_cvtph_ps(bytemuck::cast(*values))
}

/// A word in all lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn splat(word: u32) -> __m256i {
    _mm256_set1_epi32(word as i32)
}

/// A single's bits as that single in all lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn splat_single(word: u32) -> __m256 {
    _mm256_castsi256_ps(splat(word))
}

/// Has memory bring what lies `vectors` further on than these codes: of the next two groups, what is here of these. Reading one
/// stretch of each of two neighbours in turn is not what the processor foresees by itself.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn ahead(codes: &[[u8; 32]], vectors: usize) {
    for at in (0..codes.len()).step_by(2) {
        let place = codes.as_ptr().wrapping_add(at + vectors).cast::<i8>();
        // Nothing is read: a place that does not exist is none that matters.
        _mm_prefetch::<_MM_HINT_T0>(place);
    }
}
