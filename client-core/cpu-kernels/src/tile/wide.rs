//! simd128: sixteen-bit products of codes in [`Order::Pairs`].
//!
//! Codes are widened once for all columns. What is taken from every code is in what sums start from: −offset · Σ x.

use std::arch::wasm32::*;

use super::vector::{Sums, each_block, load};
use super::{BlockStats, Columns, Kernel, Task, Weights};
use crate::layout::{Codes, EIGHT_BYTES, FOUR_BYTES, GROUP, Order};

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
