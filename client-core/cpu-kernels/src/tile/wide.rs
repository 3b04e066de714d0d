//! simd128: sixteen-bit products of codes in [`Order::Pairs`].
//!
//! Codes are widened once for all columns. What is taken from every code is in what sums start from: −offset · Σ x.

use std::arch::wasm32::*;

use super::vector::{Sums, each_block, each_shared_block, levels, load};
use super::{BlockStats, Columns, Kernel, Task, Weights};
use crate::layout::{Codes, EIGHT_BYTES, FOUR_BYTES, GROUP, ONE_BYTES, Order, THREE_BYTES, TWO_BYTES};

/// How codes are to lie.
#[cfg_attr(target_feature = "relaxed-simd", allow(dead_code))]
pub fn order(_: Codes) -> Order {
    Order::Pairs
}

#[inline(always)]
pub fn choose(codes: Codes, _: Order, task: impl Task) {
    match codes {
        Codes::Four => task.run::<Four>(),
        Codes::Six => task.run::<Six>(),
        Codes::Eight => task.run::<Eight>(),
        Codes::SixSplit => task.run::<Split>(),
        Codes::One => task.run::<Low<1, ONE_BYTES, 1, 4>>(),
        Codes::Two => task.run::<Low<2, TWO_BYTES, 2, 8>>(),
        Codes::Three => task.run::<Low<3, THREE_BYTES, 2, 8>>(),
        Codes::Levels => task.run::<Levels<1>>(),
        Codes::LevelsSuper => task.run::<Levels<8>>(),
    }
}

struct Four;
struct Six;
struct Eight;
struct Split;

impl Kernel for Eight {
    #[inline(always)]
    fn products<const C: usize>(weights: &Weights<'_>, columns: &Columns<'_, C>) -> [[f32; GROUP]; C] {
        each_block::<_, EIGHT_BYTES, 1, C>(weights, columns, columns.wide, |_, codes, x, _| {
            let mut sums = [[i32x4_splat(0); 2]; C];
            // Of constant length, so that the compiler unrolls as much as pays.
            for k in 0..16 {
                add(&mut sums, codes_of_eight_bits(codes, k), x, k);
            }
            sums
        })
    }
}

impl Kernel for Six {
    #[inline(always)]
    fn products<const C: usize>(weights: &Weights<'_>, columns: &Columns<'_, C>) -> [[f32; GROUP]; C] {
        each_block::<_, EIGHT_BYTES, 1, C>(weights, columns, columns.wide, |_, codes, x, stats| {
            let mut sums = start(weights, stats, BlockStats::sum);
            for k in 0..16 {
                add(&mut sums, codes_of_eight_bits(codes, k), x, k);
            }
            sums
        })
    }
}

impl Kernel for Split {
    #[inline(always)]
    fn products<const C: usize>(weights: &Weights<'_>, columns: &Columns<'_, C>) -> [[f32; GROUP]; C] {
        each_block::<_, EIGHT_BYTES, 2, C>(weights, columns, columns.wide, |half, codes, x, stats| {
            let mut sums = start(weights, stats, |stats| stats.halves[half].into());
            for k in 8 * half..8 * half + 8 {
                add(&mut sums, codes_of_eight_bits(codes, k), x, k);
            }
            sums
        })
    }
}

impl Kernel for Four {
    #[inline(always)]
    fn products<const C: usize>(weights: &Weights<'_>, columns: &Columns<'_, C>) -> [[f32; GROUP]; C] {
        let fifteen = u8x16_splat(15);
        each_block::<_, FOUR_BYTES, 1, C>(weights, columns, columns.wide, |_, codes, x, stats| {
            let mut sums = start(weights, stats, BlockStats::sum);
            for k in 0..8 {
                let both = load(&codes[16 * k..16 * k + 16]);
                let (low, high) = (v128_and(both, fifteen), v128_and(u16x8_shr(both, 4), fifteen));
                for (at, w) in [(k, low), (8 + k, high)] {
                    add(&mut sums, [i16x8_extend_low_u8x16(w), i16x8_extend_high_u8x16(w)], x, at);
                }
            }
            sums
        })
    }
}

/// Codes of `BITS` bits, in `BYTES` to a block with `PARTS` scales, whose units `SHARED` blocks have in common.
struct Low<const BITS: usize, const BYTES: usize, const PARTS: usize, const SHARED: usize>;
/// Places among levels, with as many blocks to a scale's unit.
struct Levels<const SHARED: usize>;

impl<const BITS: usize, const BYTES: usize, const PARTS: usize, const SHARED: usize> Kernel
    for Low<BITS, BYTES, PARTS, SHARED>
{
    #[inline(always)]
    fn products<const C: usize>(weights: &Weights<'_>, columns: &Columns<'_, C>) -> [[f32; GROUP]; C] {
        each_shared_block::<_, BYTES, PARTS, SHARED, C>(weights, columns, columns.wide, |part, codes, x, stats| {
            let of = |stats: &BlockStats| if PARTS == 2 { stats.halves[part].into() } else { stats.sum() };
            let mut sums = start(weights, stats, of);
            for k in 16 / PARTS * part..16 / PARTS * (part + 1) {
                let w = match BITS {
                    1 => bits::<1>(codes, k, 1),
                    2 => bits::<2>(codes, k, 0),
                    _ => v128_or(bits::<2>(codes, k, 0), bits::<1>(&codes[TWO_BYTES..], k, 2)),
                };
                add(&mut sums, [i16x8_extend_low_u8x16(w), i16x8_extend_high_u8x16(w)], x, k);
            }
            sums
        })
    }
}

impl<const SHARED: usize> Kernel for Levels<SHARED> {
    #[inline(always)]
    fn products<const C: usize>(weights: &Weights<'_>, columns: &Columns<'_, C>) -> [[f32; GROUP]; C] {
        let (fifteen, levels) = (u8x16_splat(15), levels());
        each_shared_block::<_, FOUR_BYTES, 1, SHARED, C>(weights, columns, columns.wide, |_, codes, x, _| {
            let mut sums = [[i32x4_splat(0); 2]; C];
            for k in 0..8 {
                let both = load(&codes[16 * k..16 * k + 16]);
                let (low, high) = (v128_and(both, fifteen), u8x16_shr(both, 4));
                for (at, places) in [(k, low), (8 + k, high)] {
                    let w = i8x16_swizzle(levels, places);
                    add(&mut sums, [i16x8_extend_low_i8x16(w), i16x8_extend_high_i8x16(w)], x, at);
                }
            }
            sums
        })
    }
}

/// `BITS` bits of two codes of each of the eight rows, of columns 2k and 2k + 1, as bytes, from bit `to` on.
#[inline(always)]
fn bits<const BITS: usize>(plane: &[u8], k: usize, to: usize) -> v128 {
    // Four bits of pairs of columns to a byte of a plane of one bit, and so on.
    let (vector, from) = (k % (2 * BITS), k / (2 * BITS) * BITS);
    let codes = load(&plane[16 * vector..16 * vector + 16]);
    let moved = if from < to { i16x8_shl(codes, (to - from) as u32) } else { u16x8_shr(codes, (from - to) as u32) };
    v128_and(moved, u8x16_splat(((1 << BITS) - 1) << to))
}

/// What sums over codes start from that are `weights.offset` too large; `of` gives Σ x.
#[inline(always)]
fn start<const C: usize>(weights: &Weights<'_>, stats: &[BlockStats; C], of: impl Fn(&BlockStats) -> i32) -> Sums<C> {
    std::array::from_fn(|c| [i32x4_splat(-i32::from(weights.offset) * of(&stats[c])); 2])
}

/// Two codes of each of the eight rows, of columns 2k and 2k + 1.
#[inline(always)]
fn codes_of_eight_bits(codes: &[u8; EIGHT_BYTES], k: usize) -> [v128; 2] {
    let (halves, _) = codes[16 * k..16 * k + 16].as_chunks::<8>();
    [0, 1].map(|r| i16x8_extend_low_i8x16(i64x2(i64::from_le_bytes(bytemuck::cast(halves[r])), 0)))
}

/// sums + two codes of each row times the activations of each column at 2k and 2k + 1.
#[inline(always)]
fn add<const C: usize>(sums: &mut Sums<C>, w: [v128; 2], x: &[[[i16; 2]; C]; 16], k: usize) {
    for c in 0..C {
        let x = i32x4_splat(bytemuck::cast(x[k][c]));
        for r in 0..2 {
            sums[c][r] = i32x4_add(sums[c][r], i32x4_dot_i16x8(w[r], x));
        }
    }
}
