//! simd128: sixteen-bit products.

use std::arch::wasm32::*;

use super::vector::{less_minima, load, scaled};
use super::{Columns, Kernel, Needs, Task, Weights};
use crate::matrix::{Codes, EIGHT_BYTES, FOUR_BYTES, GROUP};

#[inline(always)]
pub fn choose(codes: Codes, task: impl Task) {
    match codes {
        Codes::Four => task.run::<Four>(),
        Codes::Six => task.run::<Six>(),
        Codes::Eight => task.run::<Eight>(),
        Codes::SixSplit => task.run::<Split>(),
    }
}

/// What activations are needed as.
#[inline(always)]
#[cfg_attr(target_feature = "relaxed-simd", allow(dead_code))]
pub fn needs() -> Needs {
    Needs { wide: true, codes: false, folded: false }
}

struct Four;
struct Six;
struct Eight;
struct Split;

impl Kernel for Four {
    #[inline(always)]
    fn products<const G: usize, const C: usize>(w: [&Weights<'_>; G], x: &Columns<'_, C>) -> [[[f32; GROUP]; C]; G] {
        w.map(|w| four(w, x))
    }
}

impl Kernel for Six {
    #[inline(always)]
    fn products<const G: usize, const C: usize>(w: [&Weights<'_>; G], x: &Columns<'_, C>) -> [[[f32; GROUP]; C]; G] {
        w.map(|w| eight::<true, C>(w, x))
    }
}

impl Kernel for Eight {
    #[inline(always)]
    fn products<const G: usize, const C: usize>(w: [&Weights<'_>; G], x: &Columns<'_, C>) -> [[[f32; GROUP]; C]; G] {
        w.map(|w| eight::<false, C>(w, x))
    }
}

impl Kernel for Split {
    #[inline(always)]
    fn products<const G: usize, const C: usize>(w: [&Weights<'_>; G], x: &Columns<'_, C>) -> [[[f32; GROUP]; C]; G] {
        w.map(|w| split(w, x))
    }
}

/// Four sixteen-bit activations, twice.
#[inline(always)]
fn splat64(x: [i16; 4]) -> v128 {
    i64x2_splat(bytemuck::cast(x))
}

/// Lanes (a0 + a1, a2 + a3, b0 + b1, b2 + b3).
#[inline(always)]
fn pairs(a: v128, b: v128) -> v128 {
    i32x4_add(i32x4_shuffle::<0, 2, 4, 6>(a, b), i32x4_shuffle::<1, 3, 5, 7>(a, b))
}

#[inline(always)]
fn eight<const OFFSET: bool, const C: usize>(weights: &Weights<'_>, columns: &Columns<'_, C>) -> [[f32; GROUP]; C] {
    let mut out = [f32x4_splat(0.0); C];
    let (codes, scales) = (weights.codes.as_chunks::<EIGHT_BYTES>().0, weights.scales.as_chunks::<GROUP>().0);
    let offset = OFFSET.then(|| i8x16_splat(weights.offset));
    for ((codes, scales), (x, facts)) in codes.iter().zip(scales).zip(columns.wide.iter().zip(columns.facts)) {
        let sums = dots::<0, 8, C>(codes, offset, x);
        let scales = load(scales);
        for c in 0..C {
            out[c] = scaled(out[c], sums[c], scales, &facts[c]);
        }
    }
    less_minima(&mut out, weights, columns);
    out.map(bytemuck::cast)
}

#[inline(always)]
fn split<const C: usize>(weights: &Weights<'_>, columns: &Columns<'_, C>) -> [[f32; GROUP]; C] {
    let mut out = [f32x4_splat(0.0); C];
    let (codes, scales) = (weights.codes.as_chunks::<EIGHT_BYTES>().0, weights.scales.as_chunks::<8>().0);
    let offset = Some(i8x16_splat(weights.offset));
    for ((codes, scales), (x, facts)) in codes.iter().zip(scales).zip(columns.wide.iter().zip(columns.facts)) {
        let sums = [dots::<0, 4, C>(codes, offset, x), dots::<4, 8, C>(codes, offset, x)];
        for (sums, scales) in sums.iter().zip(scales.as_chunks::<GROUP>().0) {
            let scales = load(scales);
            for c in 0..C {
                out[c] = scaled(out[c], sums[c], scales, &facts[c]);
            }
        }
    }
    out.map(bytemuck::cast)
}

#[inline(always)]
fn four<const C: usize>(weights: &Weights<'_>, columns: &Columns<'_, C>) -> [[f32; GROUP]; C] {
    let mut out = [f32x4_splat(0.0); C];
    let (codes, scales) = (weights.codes.as_chunks::<FOUR_BYTES>().0, weights.scales.as_chunks::<GROUP>().0);
    let (fifteen, offset) = (u8x16_splat(15), i8x16_splat(weights.offset));
    for ((codes, scales), (x, facts)) in codes.iter().zip(scales).zip(columns.wide.iter().zip(columns.facts)) {
        let mut bytes = [0; EIGHT_BYTES];
        let (low, high) = bytes.split_at_mut(FOUR_BYTES);
        let places = low.as_chunks_mut::<16>().0.iter_mut().zip(high.as_chunks_mut::<16>().0);
        for ((low, high), codes) in places.zip(codes.as_chunks::<16>().0) {
            let both = load(codes);
            *low = bytemuck::cast(v128_and(both, fifteen));
            *high = bytemuck::cast(v128_and(u16x8_shr(both, 4), fifteen));
        }
        let sums = dots::<0, 8, C>(&bytes, Some(offset), x);
        let scales = load(scales);
        for c in 0..C {
            out[c] = scaled(out[c], sums[c], scales, &facts[c]);
        }
    }
    less_minima(&mut out, weights, columns);
    out.map(bytemuck::cast)
}

/// Eight-bit codes of four rows times `C` columns; widened once for all of them.
#[inline(always)]
fn dots<const FROM: usize, const TO: usize, const C: usize>(
    codes: &[u8; EIGHT_BYTES],
    offset: Option<v128>,
    x: &[[[i16; 4]; C]; 8],
) -> [v128; C] {
    let (mut low, mut high) = ([i32x4_splat(0); C], [i32x4_splat(0); C]);
    // Of constant length, so that the compiler unrolls as much as pays.
    for k in FROM..TO {
        let x = &x[k];
        let w = load(&codes[16 * k..16 * k + 16]);
        let w = offset.map_or(w, |offset| i8x16_sub(w, offset));
        let (w_low, w_high) = (i16x8_extend_low_i8x16(w), i16x8_extend_high_i8x16(w));
        for c in 0..C {
            let x = splat64(x[c]);
            low[c] = i32x4_add(low[c], i32x4_dot_i16x8(w_low, x));
            high[c] = i32x4_add(high[c], i32x4_dot_i16x8(w_high, x));
        }
    }
    std::array::from_fn(|c| pairs(low[c], high[c]))
}
