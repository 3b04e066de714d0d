//! The innermost loops: four rows of a planar matrix times a few columns of activations.
//!
//! | build | eight-bit codes | four-bit codes |
//! | --- | --- | --- |
//! | simd128 | codes widened to sixteen bits once for all columns, `i32x4.dot_i16x8_s` | the same |
//! | relaxed SIMD | the same | `i16x8.relaxed_dot_i8x16_i7x16_s`: codes of 0 to 15 are seven-bit, activations keep eight bits, and eight products of at most 15 · 127 · 2 fit into sixteen bits |
//! | portable | plain loops | plain loops |
//!
//! All sums of codes are exact, so that the builds differ in nothing.

use crate::blocks::BLOCK;
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
pub use portable::{eight, eight_split, four};
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub use wasm::{eight, eight_split, four};

/// Whether activations are needed in eight bits beside sixteen.
pub const NARROW: bool = cfg!(all(target_arch = "wasm32", target_feature = "relaxed-simd"));

/// One group of rows of a [`Planar`](crate::matrix::Planar).
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    /// Whole blocks.
    pub codes: &'a [u8],
    /// Four to a block, or eight.
    pub scales: &'a [f32],
    /// Four to a block, or none.
    pub minima: &'a [f32],
    /// Taken from every code.
    pub offset: i32,
}

/// One column of activations.
#[derive(Debug, Clone, Copy)]
pub struct Column<'a> {
    /// Codes in sixteen bits.
    pub wide: &'a [[i16; BLOCK]],
    /// Codes in eight bits; empty unless [`NARROW`].
    pub codes: &'a [[i8; BLOCK]],
    /// One to a block.
    pub scales: &'a [f32],
    /// Sums of the codes of each block.
    pub sums: &'a [i32],
}

#[cfg(any(test, not(all(target_arch = "wasm32", target_feature = "simd128"))))]
#[cfg_attr(all(target_arch = "wasm32", target_feature = "simd128"), allow(dead_code))]
mod portable {
    use super::{Column, Weights};
    use crate::matrix::{EIGHT_BYTES, FOUR_BYTES, GROUP};

    /// Eight-bit codes, one scale to 32.
    pub fn eight<const C: usize>(weights: &Weights<'_>, columns: &[Column<'_>; C]) -> [[f32; GROUP]; C] {
        let mut out = [[0.0; GROUP]; C];
        for (block, codes) in weights.codes.as_chunks::<EIGHT_BYTES>().0.iter().enumerate() {
            for (out, column) in out.iter_mut().zip(columns) {
                let sums = dots(codes, &column.wide[block]);
                finish(out, weights, &weights.scales[block * GROUP..], block, sums, column);
            }
        }
        out
    }

    /// Eight-bit codes, one scale to 16.
    pub fn eight_split<const C: usize>(weights: &Weights<'_>, columns: &[Column<'_>; C]) -> [[f32; GROUP]; C] {
        let mut out = [[0.0; GROUP]; C];
        for (block, codes) in weights.codes.as_chunks::<EIGHT_BYTES>().0.iter().enumerate() {
            let scales = &weights.scales[block * 2 * GROUP..];
            for (out, column) in out.iter_mut().zip(columns) {
                let (x, d) = (&column.wide[block], column.scales[block]);
                let halves = [dots(&codes[..64], &x[..16]), dots(&codes[64..], &x[16..])];
                for (r, y) in out.iter_mut().enumerate() {
                    *y += (halves[0][r] as f32 * scales[r] + halves[1][r] as f32 * scales[GROUP + r]) * d;
                }
            }
        }
        out
    }

    /// Four-bit codes.
    pub fn four<const C: usize>(weights: &Weights<'_>, columns: &[Column<'_>; C]) -> [[f32; GROUP]; C] {
        let mut out = [[0.0; GROUP]; C];
        for (block, codes) in weights.codes.as_chunks::<FOUR_BYTES>().0.iter().enumerate() {
            let (low, high) = (codes.map(|byte| byte & 15), codes.map(|byte| byte >> 4));
            for (out, column) in out.iter_mut().zip(columns) {
                let x = &column.wide[block];
                let (mut sums, more) = (dots(&low, &x[..16]), dots(&high, &x[16..]));
                for (sum, more) in sums.iter_mut().zip(more) {
                    *sum += more - weights.offset * column.sums[block];
                }
                finish(out, weights, &weights.scales[block * GROUP..], block, sums, column);
            }
        }
        out
    }

    /// Interleaved rows times activations.
    fn dots(codes: &[u8], x: &[i16]) -> [i32; GROUP] {
        let mut sums = [0; GROUP];
        for (codes, x) in codes.as_chunks::<16>().0.iter().zip(x.as_chunks::<4>().0) {
            for (sum, codes) in sums.iter_mut().zip(codes.as_chunks::<4>().0) {
                *sum += codes.iter().zip(x).map(|(w, x)| i32::from(*w as i8) * i32::from(*x)).sum::<i32>();
            }
        }
        sums
    }

    fn finish(
        out: &mut [f32; GROUP],
        weights: &Weights<'_>,
        scales: &[f32],
        block: usize,
        sums: [i32; GROUP],
        column: &Column<'_>,
    ) {
        let d = column.scales[block];
        for (r, y) in out.iter_mut().enumerate() {
            *y += sums[r] as f32 * (scales[r] * d);
            if let Some(minimum) = weights.minima.get(block * GROUP + r) {
                *y -= minimum * (column.sums[block] as f32 * d);
            }
        }
    }
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm {
    use std::arch::wasm32::*;

    use super::{BLOCK, Column, Weights};
    use crate::matrix::{EIGHT_BYTES, FOUR_BYTES, GROUP};

    #[inline(always)]
    fn load<T: bytemuck::NoUninit>(values: &[T]) -> v128 {
        bytemuck::pod_read_unaligned(bytemuck::cast_slice::<T, u8>(values))
    }

    /// Four sixteen-bit activations, twice.
    #[inline(always)]
    fn splat64(x: &[i16; BLOCK], at: usize) -> v128 {
        let four: [i16; 4] = [x[at], x[at + 1], x[at + 2], x[at + 3]];
        i64x2_splat(bytemuck::cast(four))
    }

    /// Lanes (a0 + a1, a2 + a3, b0 + b1, b2 + b3).
    #[inline(always)]
    fn pairs(a: v128, b: v128) -> v128 {
        i32x4_add(i32x4_shuffle::<0, 2, 4, 6>(a, b), i32x4_shuffle::<1, 3, 5, 7>(a, b))
    }

    #[inline(always)]
    fn store<const C: usize>(sums: [v128; C]) -> [[f32; GROUP]; C] {
        sums.map(bytemuck::cast)
    }

    /// out += sums · scales · d − minima · (Σ codes · d).
    #[inline(always)]
    fn finish(out: v128, sums: v128, scales: v128, weights: &Weights<'_>, column: &Column<'_>, block: usize) -> v128 {
        let d = column.scales[block];
        let out = f32x4_add(out, f32x4_mul(f32x4_convert_i32x4(sums), f32x4_mul(scales, f32x4_splat(d))));
        match weights.minima.get(block * GROUP..block * GROUP + GROUP) {
            Some(minima) => f32x4_sub(out, f32x4_mul(load(minima), f32x4_splat(column.sums[block] as f32 * d))),
            None => out,
        }
    }

    /// Eight-bit codes, one scale to 32.
    #[inline(always)]
    pub fn eight<const C: usize>(weights: &Weights<'_>, columns: &[Column<'_>; C]) -> [[f32; GROUP]; C] {
        let mut out = [f32x4_splat(0.0); C];
        let blocks = weights.codes.as_chunks::<EIGHT_BYTES>().0.iter().zip(weights.scales.as_chunks::<GROUP>().0);
        for (block, (codes, scales)) in blocks.enumerate() {
            let (mut low, mut high) = ([i32x4_splat(0); C], [i32x4_splat(0); C]);
            let x: [&[i16; BLOCK]; C] = std::array::from_fn(|c| &columns[c].wide[block]);
            for k in 0..8 {
                let w = load(&codes[16 * k..16 * k + 16]);
                let (w_low, w_high) = (i16x8_extend_low_i8x16(w), i16x8_extend_high_i8x16(w));
                for c in 0..C {
                    let x = splat64(x[c], 4 * k);
                    low[c] = i32x4_add(low[c], i32x4_dot_i16x8(w_low, x));
                    high[c] = i32x4_add(high[c], i32x4_dot_i16x8(w_high, x));
                }
            }
            let scales = load(scales);
            for c in 0..C {
                out[c] = finish(out[c], pairs(low[c], high[c]), scales, weights, &columns[c], block);
            }
        }
        store(out)
    }

    /// Eight-bit codes, one scale to 16.
    #[inline(always)]
    pub fn eight_split<const C: usize>(weights: &Weights<'_>, columns: &[Column<'_>; C]) -> [[f32; GROUP]; C] {
        let mut out = [f32x4_splat(0.0); C];
        let halves = weights.codes.as_chunks::<64>().0.iter().zip(weights.scales.as_chunks::<GROUP>().0);
        for (half, (codes, scales)) in halves.enumerate() {
            let block = half / 2;
            let (mut low, mut high) = ([i32x4_splat(0); C], [i32x4_splat(0); C]);
            let x: [&[i16; BLOCK]; C] = std::array::from_fn(|c| &columns[c].wide[block]);
            for k in 0..4 {
                let w = load(&codes[16 * k..16 * k + 16]);
                let (w_low, w_high) = (i16x8_extend_low_i8x16(w), i16x8_extend_high_i8x16(w));
                for c in 0..C {
                    let x = splat64(x[c], 16 * (half % 2) + 4 * k);
                    low[c] = i32x4_add(low[c], i32x4_dot_i16x8(w_low, x));
                    high[c] = i32x4_add(high[c], i32x4_dot_i16x8(w_high, x));
                }
            }
            let scales = load(scales);
            for c in 0..C {
                out[c] = finish(out[c], pairs(low[c], high[c]), scales, weights, &columns[c], block);
            }
        }
        store(out)
    }

    /// Four-bit codes.
    #[cfg(not(target_feature = "relaxed-simd"))]
    #[inline(always)]
    pub fn four<const C: usize>(weights: &Weights<'_>, columns: &[Column<'_>; C]) -> [[f32; GROUP]; C] {
        let mut out = [f32x4_splat(0.0); C];
        let blocks = weights.codes.as_chunks::<FOUR_BYTES>().0.iter().zip(weights.scales.as_chunks::<GROUP>().0);
        for (block, (codes, scales)) in blocks.enumerate() {
            let (mut low, mut high) = ([i32x4_splat(0); C], [i32x4_splat(0); C]);
            let x: [&[i16; BLOCK]; C] = std::array::from_fn(|c| &columns[c].wide[block]);
            for k in 0..4 {
                let both = load(&codes[16 * k..16 * k + 16]);
                for (at, w) in [(0, v128_and(both, u8x16_splat(15))), (16, u8x16_shr(both, 4))] {
                    let (w_low, w_high) = (u16x8_extend_low_u8x16(w), u16x8_extend_high_u8x16(w));
                    for c in 0..C {
                        let x = splat64(x[c], at + 4 * k);
                        low[c] = i32x4_add(low[c], i32x4_dot_i16x8(w_low, x));
                        high[c] = i32x4_add(high[c], i32x4_dot_i16x8(w_high, x));
                    }
                }
            }
            let scales = load(scales);
            for c in 0..C {
                let taken = i32x4_splat(weights.offset * columns[c].sums[block]);
                let sums = i32x4_sub(pairs(low[c], high[c]), taken);
                out[c] = finish(out[c], sums, scales, weights, &columns[c], block);
            }
        }
        store(out)
    }

    /// Four-bit codes.
    #[cfg(target_feature = "relaxed-simd")]
    #[inline(always)]
    pub fn four<const C: usize>(weights: &Weights<'_>, columns: &[Column<'_>; C]) -> [[f32; GROUP]; C] {
        let mut out = [f32x4_splat(0.0); C];
        let blocks = weights.codes.as_chunks::<FOUR_BYTES>().0.iter().zip(weights.scales.as_chunks::<GROUP>().0);
        for (block, (codes, scales)) in blocks.enumerate() {
            let mut sums = [i16x8_splat(0); C];
            let x: [&[i8; BLOCK]; C] = std::array::from_fn(|c| &columns[c].codes[block]);
            for k in 0..4 {
                let both = load(&codes[16 * k..16 * k + 16]);
                for (at, w) in [(0, v128_and(both, u8x16_splat(15))), (16, u8x16_shr(both, 4))] {
                    for c in 0..C {
                        let at = at + 4 * k;
                        let four = [x[c][at], x[c][at + 1], x[c][at + 2], x[c][at + 3]];
                        let x = i32x4_splat(bytemuck::cast(four));
                        sums[c] = i16x8_add(sums[c], i16x8_relaxed_dot_i8x16_i7x16(x, w));
                    }
                }
            }
            let scales = load(scales);
            for c in 0..C {
                let taken = i32x4_splat(weights.offset * columns[c].sums[block]);
                let sums = i32x4_sub(i32x4_extadd_pairwise_i16x8(sums[c]), taken);
                out[c] = finish(out[c], sums, scales, weights, &columns[c], block);
            }
        }
        store(out)
    }
}
