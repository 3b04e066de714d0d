//! The innermost loops: four rows of a planar matrix times a few columns of activations.
//!
//! | build | eight-bit codes | four-bit codes |
//! | --- | --- | --- |
//! | simd128 | codes widened to sixteen bits once for all columns, `i32x4.dot_i16x8_s` | the same |
//! | relaxed SIMD | the same | `i16x8.relaxed_dot_i8x16_i7x16_s`: codes of 0 to 15 are seven-bit, activations keep eight bits, and eight products of at most 15 · 127 · 2 fit into sixteen bits |
//! | portable | plain loops | plain loops |
//!
//! All sums of codes are exact, so that the builds differ in nothing.

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
pub use portable::{eight, eight_split, four};
#[cfg(not(all(target_arch = "wasm32", target_feature = "relaxed-simd")))]
pub use twice::four_twice;
#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
pub use wasm::four_twice;
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

/// The activations of `C` columns, interleaved like the weights: four of the first column, four of the next, and so on,
/// so that one address serves them all.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'a, const C: usize> {
    /// Codes in sixteen bits.
    pub wide: &'a [[[[i16; 4]; C]; 8]],
    /// Codes in eight bits; empty unless [`NARROW`].
    pub codes: &'a [[[[i8; 4]; C]; 8]],
    /// One to a block and column.
    pub scales: &'a [[f32; C]],
    /// Sums of the codes of each block.
    pub sums: &'a [[i32; C]],
    /// −8 · the sums of the codes at 4k, 4k + 1 and at 4k + 2, 4k + 3 of each block: what four-bit codes with an offset
    /// start from.
    pub starts: &'a [[[i16; 2]; C]],
}

#[cfg(not(all(target_arch = "wasm32", target_feature = "relaxed-simd")))]
mod twice {
    use super::{Columns, Weights};
    use crate::matrix::GROUP;

    /// Four-bit codes of two groups.
    #[inline(always)]
    pub fn four_twice<const C: usize>(weights: [&Weights<'_>; 2], columns: &Columns<'_, C>) -> [[[f32; GROUP]; C]; 2] {
        weights.map(|weights| super::four(weights, columns))
    }
}

#[cfg(any(test, not(all(target_arch = "wasm32", target_feature = "simd128"))))]
#[cfg_attr(all(target_arch = "wasm32", target_feature = "simd128"), allow(dead_code))]
mod portable {
    use super::{Columns, Weights};
    use crate::matrix::{EIGHT_BYTES, FOUR_BYTES, GROUP};

    /// Eight-bit codes, one scale to 32.
    pub fn eight<const C: usize>(weights: &Weights<'_>, columns: &Columns<'_, C>) -> [[f32; GROUP]; C] {
        let mut out = [[0.0; GROUP]; C];
        for (block, codes) in weights.codes.as_chunks::<EIGHT_BYTES>().0.iter().enumerate() {
            let sums = dots(codes, &columns.wide[block]);
            finish(&mut out, &weights.scales[block * GROUP..], block, sums, columns);
        }
        less_minima(&mut out, weights, columns);
        out
    }

    /// Eight-bit codes, one scale to 16.
    pub fn eight_split<const C: usize>(weights: &Weights<'_>, columns: &Columns<'_, C>) -> [[f32; GROUP]; C] {
        let mut out = [[0.0; GROUP]; C];
        for (block, codes) in weights.codes.as_chunks::<EIGHT_BYTES>().0.iter().enumerate() {
            let scales = &weights.scales[block * 2 * GROUP..];
            let (low, high) = (&columns.wide[block][..4], &columns.wide[block][4..]);
            finish(&mut out, scales, block, dots(&codes[..64], low), columns);
            finish(&mut out, &scales[GROUP..], block, dots(&codes[64..], high), columns);
        }
        out
    }

    /// Four-bit codes.
    pub fn four<const C: usize>(weights: &Weights<'_>, columns: &Columns<'_, C>) -> [[f32; GROUP]; C] {
        let mut out = [[0.0; GROUP]; C];
        let offset = weights.offset as u8;
        for (block, codes) in weights.codes.as_chunks::<FOUR_BYTES>().0.iter().enumerate() {
            let mut bytes = [0; EIGHT_BYTES];
            let (low, high) = bytes.split_at_mut(FOUR_BYTES);
            for ((low, high), code) in low.iter_mut().zip(high).zip(codes) {
                (*low, *high) = ((code & 15).wrapping_sub(offset), (code >> 4).wrapping_sub(offset));
            }
            let sums = dots(&bytes, &columns.wide[block]);
            finish(&mut out, &weights.scales[block * GROUP..], block, sums, columns);
        }
        less_minima(&mut out, weights, columns);
        out
    }

    /// Interleaved rows times interleaved activations.
    fn dots<const C: usize>(codes: &[u8], x: &[[[i16; 4]; C]]) -> [[i32; GROUP]; C] {
        let mut sums = [[0; GROUP]; C];
        for (codes, x) in codes.as_chunks::<16>().0.iter().zip(x) {
            for (sums, x) in sums.iter_mut().zip(x) {
                for (sum, codes) in sums.iter_mut().zip(codes.as_chunks::<4>().0) {
                    *sum += codes.iter().zip(x).map(|(w, x)| i32::from(*w as i8) * i32::from(*x)).sum::<i32>();
                }
            }
        }
        sums
    }

    fn finish<const C: usize>(
        out: &mut [[f32; GROUP]; C],
        scales: &[f32],
        block: usize,
        sums: [[i32; GROUP]; C],
        columns: &Columns<'_, C>,
    ) {
        for ((out, sums), d) in out.iter_mut().zip(sums).zip(columns.scales[block]) {
            for ((y, sum), scale) in out.iter_mut().zip(sums).zip(scales) {
                *y += sum as f32 * (scale * d);
            }
        }
    }

    fn less_minima<const C: usize>(out: &mut [[f32; GROUP]; C], weights: &Weights<'_>, columns: &Columns<'_, C>) {
        for (block, minima) in weights.minima.as_chunks::<GROUP>().0.iter().enumerate() {
            for (c, out) in out.iter_mut().enumerate() {
                let sum = columns.sums[block][c] as f32 * columns.scales[block][c];
                for (y, minimum) in out.iter_mut().zip(minima) {
                    *y -= minimum * sum;
                }
            }
        }
    }
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm {
    use std::arch::wasm32::*;

    use super::{Columns, Weights};
    use crate::matrix::{EIGHT_BYTES, FOUR_BYTES, GROUP};

    #[inline(always)]
    fn load<T: bytemuck::NoUninit>(values: &[T]) -> v128 {
        bytemuck::pod_read_unaligned(bytemuck::cast_slice::<T, u8>(values))
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
    fn scaled(out: v128, sums: v128, scales: v128, d: f32) -> v128 {
        f32x4_add(out, f32x4_mul(f32x4_convert_i32x4(sums), f32x4_mul(scales, f32x4_splat(d))))
    }

    /// out − minima · (Σ codes · d), after the products: rare formats pay for a second look at the sums.
    #[inline(always)]
    fn less_minima<const C: usize>(out: &mut [v128; C], weights: &Weights<'_>, columns: &Columns<'_, C>) {
        for (block, minima) in weights.minima.as_chunks::<GROUP>().0.iter().enumerate() {
            let minima = load(minima);
            for (c, out) in out.iter_mut().enumerate() {
                let sum = columns.sums[block][c] as f32 * columns.scales[block][c];
                *out = f32x4_sub(*out, f32x4_mul(minima, f32x4_splat(sum)));
            }
        }
    }

    /// Eight-bit codes, one scale to 32.
    #[inline(always)]
    pub fn eight<const C: usize>(weights: &Weights<'_>, columns: &Columns<'_, C>) -> [[f32; GROUP]; C] {
        let mut out = [f32x4_splat(0.0); C];
        let (codes, scales) = (weights.codes.as_chunks::<EIGHT_BYTES>().0, weights.scales.as_chunks::<GROUP>().0);
        for ((codes, scales), (x, d)) in codes.iter().zip(scales).zip(columns.wide.iter().zip(columns.scales)) {
            let sums = dots(codes, x);
            let scales = load(scales);
            for c in 0..C {
                out[c] = scaled(out[c], sums[c], scales, d[c]);
            }
        }
        less_minima(&mut out, weights, columns);
        out.map(bytemuck::cast)
    }

    /// Eight-bit codes, one scale to 16.
    #[inline(always)]
    pub fn eight_split<const C: usize>(weights: &Weights<'_>, columns: &Columns<'_, C>) -> [[f32; GROUP]; C] {
        let mut out = [f32x4_splat(0.0); C];
        let (codes, scales) = (weights.codes.as_chunks::<EIGHT_BYTES>().0, weights.scales.as_chunks::<8>().0);
        for ((codes, scales), (x, d)) in codes.iter().zip(scales).zip(columns.wide.iter().zip(columns.scales)) {
            let sums = [dots(&codes[..64], &x[..4]), dots(&codes[64..], &x[4..])];
            for (sums, scales) in sums.iter().zip(scales.as_chunks::<GROUP>().0) {
                let scales = load(scales);
                for c in 0..C {
                    out[c] = scaled(out[c], sums[c], scales, d[c]);
                }
            }
        }
        out.map(bytemuck::cast)
    }

    /// Eight-bit codes of four rows times `C` columns; widened once for all of them.
    #[inline(always)]
    fn dots<const C: usize>(codes: &[u8], x: &[[[i16; 4]; C]]) -> [v128; C] {
        let (mut low, mut high) = ([i32x4_splat(0); C], [i32x4_splat(0); C]);
        for (codes, x) in codes.as_chunks::<16>().0.iter().zip(x) {
            let w = load(codes);
            let (w_low, w_high) = (i16x8_extend_low_i8x16(w), i16x8_extend_high_i8x16(w));
            for c in 0..C {
                let x = splat64(x[c]);
                low[c] = i32x4_add(low[c], i32x4_dot_i16x8(w_low, x));
                high[c] = i32x4_add(high[c], i32x4_dot_i16x8(w_high, x));
            }
        }
        std::array::from_fn(|c| pairs(low[c], high[c]))
    }

    /// Four-bit codes.
    #[cfg(not(target_feature = "relaxed-simd"))]
    #[inline(always)]
    pub fn four<const C: usize>(weights: &Weights<'_>, columns: &Columns<'_, C>) -> [[f32; GROUP]; C] {
        let mut out = [f32x4_splat(0.0); C];
        let (codes, scales) = (weights.codes.as_chunks::<FOUR_BYTES>().0, weights.scales.as_chunks::<GROUP>().0);
        let (fifteen, offset) = (u8x16_splat(15), i8x16_splat(weights.offset as i8));
        for ((codes, scales), (x, d)) in codes.iter().zip(scales).zip(columns.wide.iter().zip(columns.scales)) {
            let mut bytes = [0; EIGHT_BYTES];
            let (low, high) = bytes.split_at_mut(FOUR_BYTES);
            let places = low.as_chunks_mut::<16>().0.iter_mut().zip(high.as_chunks_mut::<16>().0);
            for ((low, high), codes) in places.zip(codes.as_chunks::<16>().0) {
                let both = load(codes);
                *low = bytemuck::cast(i8x16_sub(v128_and(both, fifteen), offset));
                *high = bytemuck::cast(i8x16_sub(v128_and(u16x8_shr(both, 4), fifteen), offset));
            }
            let sums = dots(&bytes, x);
            let scales = load(scales);
            for c in 0..C {
                out[c] = scaled(out[c], sums[c], scales, d[c]);
            }
        }
        less_minima(&mut out, weights, columns);
        out.map(bytemuck::cast)
    }

    /// Four-bit codes. The offset is in what the sums start from; they wrap around on the way and end in range.
    #[cfg(target_feature = "relaxed-simd")]
    #[inline(always)]
    pub fn four<const C: usize>(weights: &Weights<'_>, columns: &Columns<'_, C>) -> [[f32; GROUP]; C] {
        let [out] = fours([weights], columns);
        out
    }

    /// Four-bit codes of two groups: eight rows share each look at the activations.
    #[cfg(target_feature = "relaxed-simd")]
    #[inline(always)]
    pub fn four_twice<const C: usize>(weights: [&Weights<'_>; 2], columns: &Columns<'_, C>) -> [[[f32; GROUP]; C]; 2] {
        fours(weights, columns)
    }

    #[cfg(target_feature = "relaxed-simd")]
    #[inline(always)]
    fn fours<const G: usize, const C: usize>(
        weights: [&Weights<'_>; G],
        columns: &Columns<'_, C>,
    ) -> [[[f32; GROUP]; C]; G] {
        let mut out = [[f32x4_splat(0.0); C]; G];
        let blocks = columns.scales.len();
        let codes = weights.map(|weights| &weights.codes.as_chunks::<FOUR_BYTES>().0[..blocks]);
        let scales = weights.map(|weights| &weights.scales.as_chunks::<GROUP>().0[..blocks]);
        let fifteen = u8x16_splat(15);
        let has_offset = i32x4_splat(if weights[0].offset == 0 { 0 } else { -1 });
        let x = columns.codes.iter().zip(columns.scales.iter().zip(columns.starts));
        for (block, (x, (d, starts))) in x.enumerate() {
            let starts: [v128; C] =
                std::array::from_fn(|c| v128_and(i32x4_splat(bytemuck::cast(starts[c])), has_offset));
            let mut sums = [starts; G];
            for k in 0..4 {
                let both: [v128; G] = std::array::from_fn(|g| load(&codes[g][block][16 * k..16 * k + 16]));
                let low = both.map(|both| v128_and(both, fifteen));
                let high = both.map(|both| v128_and(u16x8_shr(both, 4), fifteen));
                for (at, w) in [(k, low), (4 + k, high)] {
                    for c in 0..C {
                        let x = i32x4_splat(bytemuck::cast(x[at][c]));
                        for g in 0..G {
                            sums[g][c] = i16x8_add(sums[g][c], i16x8_relaxed_dot_i8x16_i7x16(x, w[g]));
                        }
                    }
                }
            }
            for g in 0..G {
                let scales = load(&scales[g][block]);
                for c in 0..C {
                    out[g][c] = scaled(out[g][c], i32x4_extadd_pairwise_i16x8(sums[g][c]), scales, d[c]);
                }
            }
        }
        for (out, weights) in out.iter_mut().zip(weights) {
            less_minima(out, weights, columns);
        }
        out.map(|out| out.map(bytemuck::cast))
    }
}
