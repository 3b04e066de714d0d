//! What both builds with vectors share.

use std::arch::wasm32::*;

use super::{BlockStats, CENTRE, Columns, ROUND, Weights};
use crate::blocks::{BLOCK, IQ4_LEVELS};
use crate::layout::{Codes, GROUP};

/// Sums of `C` columns, a lane to each of the eight rows.
pub type Sums<const C: usize> = [[v128; 2]; C];

#[inline(always)]
pub fn load<T: bytemuck::NoUninit>(values: &[T]) -> v128 {
    bytemuck::pod_read_unaligned(bytemuck::cast_slice::<T, u8>(values))
}

#[inline(always)]
fn load_rows(values: &[f32; GROUP]) -> [v128; 2] {
    [load(&values[..4]), load(&values[4..])]
}

/// Adds up, over the blocks, the sums of codes that `sums` returns for one of the `SCALES` parts of a block that have
/// scales of their own, times these; minima are taken off.
#[inline(always)]
pub fn each_block<'a, X, const BYTES: usize, const SCALES: usize, const C: usize>(
    weights: &Weights<'a>,
    columns: &Columns<'a, C>,
    x: &'a [X],
    sums: impl Fn(usize, &'a [u8; BYTES], &'a X, &'a [BlockStats; C]) -> Sums<C>,
) -> [[f32; GROUP]; C] {
    let mut out = [[f32x4_splat(0.0); 2]; C];
    let codes = weights.codes.as_chunks::<BYTES>().0;
    let scales = weights.scales.as_chunks::<GROUP>().0.as_chunks::<SCALES>().0;
    for ((codes, scales), (x, stats)) in codes.iter().zip(scales).zip(x.iter().zip(columns.stats)) {
        for (part, scales) in scales.iter().enumerate() {
            let (sums, scales) = (sums(part, codes, x, stats), load_rows(scales));
            for c in 0..C {
                for r in 0..2 {
                    let scale = f32x4_mul(scales[r], f32x4_splat(stats[c].scale));
                    out[c][r] = f32x4_add(out[c][r], f32x4_mul(f32x4_convert_i32x4(sums[c][r]), scale));
                }
            }
        }
    }
    // After the products: rare formats pay for a second look at the sums of activations.
    for (stats, minima) in columns.stats.iter().zip(weights.minima.as_chunks::<GROUP>().0) {
        let minima = load_rows(minima);
        for c in 0..C {
            let sum = f32x4_splat(stats[c].sum() as f32 * stats[c].scale);
            for r in 0..2 {
                out[c][r] = f32x4_sub(out[c][r], f32x4_mul(minima[r], sum));
            }
        }
    }
    out.map(bytemuck::cast)
}

/// As [`each_block`], for codes whose scales are bytes times a single that `SHARED` blocks have in common, or that single
/// where there are no bytes; minima of [`Codes::Two`] are the bytes' upper halves times another.
#[inline(always)]
pub fn each_shared_block<'a, X, const BYTES: usize, const PARTS: usize, const SHARED: usize, const C: usize>(
    weights: &Weights<'a>,
    columns: &Columns<'a, C>,
    x: &'a [X],
    sums: impl Fn(usize, &'a [u8; BYTES], &'a X, &'a [BlockStats; C]) -> Sums<C>,
) -> [[f32; GROUP]; C] {
    const { assert!(PARTS == 1 || SHARED == Codes::Two.shared(), "parts have factors") }
    let with_minima = !weights.minima.is_empty();
    let mut out = [[f32x4_splat(0.0); 2]; C];
    let codes = weights.codes.as_chunks::<BYTES>().0;
    let units = weights.scales.as_chunks::<GROUP>().0;
    let factors = weights.factors.as_chunks::<GROUP>().0;
    for (block, (codes, (x, stats))) in codes.iter().zip(x.iter().zip(columns.stats)).enumerate() {
        let unit = load_rows(&units[block / SHARED]);
        for part in 0..PARTS {
            let sums = sums(part, codes, x, stats);
            let scales = match factors.get(PARTS * block + part) {
                Some(factors) if with_minima => times(unit, v128_and(eight(factors), u8x16_splat(15))),
                Some(factors) => times(unit, eight(factors)),
                None => unit,
            };
            for c in 0..C {
                for r in 0..2 {
                    let scale = f32x4_mul(scales[r], f32x4_splat(stats[c].scale));
                    out[c][r] = f32x4_add(out[c][r], f32x4_mul(f32x4_convert_i32x4(sums[c][r]), scale));
                }
            }
        }
    }
    if with_minima {
        let units = weights.minima.as_chunks::<GROUP>().0;
        for (block, (stats, factors)) in columns.stats.iter().zip(factors.as_chunks::<PARTS>().0).enumerate() {
            let unit = load_rows(&units[block / SHARED]);
            for (part, factors) in factors.iter().enumerate() {
                let minima = times(unit, u8x16_shr(eight(factors), 4));
                for c in 0..C {
                    let sum = f32x4_splat(f32::from(stats[c].halves[part]) * stats[c].scale);
                    for r in 0..2 {
                        out[c][r] = f32x4_sub(out[c][r], f32x4_mul(minima[r], sum));
                    }
                }
            }
        }
    }
    out.map(bytemuck::cast)
}

/// Eight bytes in the lower half.
#[inline(always)]
fn eight(bytes: &[u8; GROUP]) -> v128 {
    i64x2(i64::from_le_bytes(*bytes), 0)
}

/// `unit` times the signed bytes in the lower half.
#[inline(always)]
fn times(unit: [v128; 2], bytes: v128) -> [v128; 2] {
    let words = i16x8_extend_low_i8x16(bytes);
    let whole = [i32x4_extend_low_i16x8(words), i32x4_extend_high_i16x8(words)];
    [0, 1].map(|r| f32x4_mul(unit[r], f32x4_convert_i32x4(whole[r])))
}

/// [`IQ4_LEVELS`] as a vector.
#[inline(always)]
pub fn levels() -> v128 {
    load(&IQ4_LEVELS)
}

/// 32 values rounded to eight bits: codes from −127 to 127, and what is known of them.
#[inline(always)]
pub fn rounded(x: &[f32; BLOCK]) -> ([i16; BLOCK], BlockStats) {
    let x: [v128; 8] = std::array::from_fn(|i| load(&x[4 * i..4 * i + 4]));
    let largest: [f32; 4] =
        bytemuck::cast(x.iter().fold(f32x4_splat(0.0), |largest, x| f32x4_pmax(largest, f32x4_abs(*x))));
    // `f32::max` is a call on wasm32; this is an instruction.
    let largest = largest.into_iter().fold(0.0, |a, b| if b > a { b } else { a });
    let inverse = f32x4_splat(if largest > 0.0 { 127.0 / largest } else { 0.0 });
    // The low sixteen bits.
    let whole = x.map(|x| i32x4_shr(i32x4_shl(f32x4_add(f32x4_mul(x, inverse), f32x4_splat(ROUND)), 16), 16));
    let codes: [v128; 4] = std::array::from_fn(|i| i16x8_narrow_i32x4(whole[2 * i], whole[2 * i + 1]));

    // Lanes 0 + 1, 2 + 3, 4 + 5 and 6 + 7 of what is added up.
    let sums = |a: v128, b: v128| i32x4_extadd_pairwise_i16x8(i16x8_add(a, b));
    let halves = [sums(codes[0], codes[1]), sums(codes[2], codes[3])];
    let [a, b, c, d]: [i32; 4] = bytemuck::cast(i32x4_add(halves[0], halves[1]));
    let halves = halves.map(|sums| bytemuck::cast::<_, [i32; 4]>(sums).iter().sum::<i32>() as i16);
    let below = codes.map(|codes| i16x8_max(i16x8_neg(codes), i16x8_splat(0)));
    let below: [i32; 4] = bytemuck::cast(i32x4_add(sums(below[0], below[1]), sums(below[2], below[3])));
    let centre = [a + c, b + d].map(|sum| (-i32::from(CENTRE) * sum) as i16);
    (bytemuck::cast(codes), BlockStats { scale: largest / 127.0, halves, centre, negative: below.iter().sum() })
}
