//! Relaxed SIMD: bytes times seven-bit bytes.
//!
//! `relaxed_dot` multiplies signed bytes by bytes of seven bits. Outside these ranges it may return different things on
//! different machines; all of the following stay inside, so that results are exact.
//!
//! - Codes of up to six bits are the seven-bit factor, activations the signed one. Their offset is in what sums start from:
//!   −offset · Σ x.
//! - Codes of full range are the signed factor and |x| the seven-bit one. Where x < 0 the code w has to change its sign:
//!   −w = ¬w + 1, of which ¬w is one instruction and Σ |x| over the negative x, known beforehand, is what sums start from.
//!
//! Products are added up by fours, in 32 bits. Machines with one instruction for all of this (AVX-VNNI, Arm's SDOT) are told
//! by what they return outside the ranges. On the others it is a sequence of five, and sixteen-bit products (`wide`) are
//! faster; only codes of up to four bits stay here, since eight of their products can be added up in sixteen bits.

use std::arch::wasm32::*;
use std::hint::black_box;
use std::sync::atomic::{AtomicU8, Ordering};

use super::vector::{Sums, each_block, each_shared_block, levels, load};
use super::{BlockStats, CENTRE, Columns, Kernel, SignMagnitude, Task, Weights, wide};
use crate::layout::{Codes, EIGHT_BYTES, FOUR_BYTES, GROUP, ONE_BYTES, Order, THREE_BYTES, TWO_BYTES};

/// Unknown (0), no (1) or yes (2).
static FUSED: AtomicU8 = AtomicU8::new(0);

pub fn fuse(choice: Option<bool>) {
    FUSED.store(choice.map_or(0, |fused| if fused { 2 } else { 1 }), Ordering::Relaxed);
}

#[inline(always)]
fn is_fused() -> bool {
    match FUSED.load(Ordering::Relaxed) {
        0 => {
            // −128 · 255 · 4 where sums have 32 bits, −128 · −1 · 4 where bytes are signed, −32768 · 2 where they are held
            // in sixteen bits on the way: two instructions, or more.
            let product = i32x4_relaxed_dot_i8x16_i7x16_add(
                i8x16_splat(black_box(-128)),
                i8x16_splat(black_box(-1)),
                i32x4_splat(0),
            );
            let fused = i32x4_extract_lane::<0>(product) != -65_536;
            fuse(Some(fused));
            fused
        }
        choice => choice == 2,
    }
}

/// How codes are to lie.
pub fn order(codes: Codes) -> Order {
    let is_low = matches!(codes, Codes::One | Codes::Two | Codes::Three | Codes::Four);
    if is_low || is_fused() { Order::Fours } else { Order::Pairs }
}

#[inline(always)]
pub fn choose(codes: Codes, order: Order, task: impl Task) {
    match (codes, order) {
        (_, Order::Pairs) => wide::choose(codes, order, task),
        (Codes::Four, Order::Fours) if is_fused() => task.run::<Four<true>>(),
        (Codes::Four, Order::Fours) => task.run::<Four<false>>(),
        (Codes::Six, Order::Fours) => task.run::<Six>(),
        (Codes::SixSplit, Order::Fours) => task.run::<Split>(),
        (Codes::Eight, Order::Fours) => task.run::<Eight>(),
        (Codes::Levels, Order::Fours) => task.run::<Levels<1>>(),
        (Codes::LevelsSuper, Order::Fours) => task.run::<Levels<8>>(),
        (Codes::One, Order::Fours) if is_fused() => task.run::<Low<1, ONE_BYTES, 1, 4, true>>(),
        (Codes::Two, Order::Fours) if is_fused() => task.run::<Low<2, TWO_BYTES, 2, 8, true>>(),
        (Codes::Three, Order::Fours) if is_fused() => task.run::<Low<3, THREE_BYTES, 2, 8, true>>(),
        (Codes::One, Order::Fours) => task.run::<Low<1, ONE_BYTES, 1, 4, false>>(),
        (Codes::Two, Order::Fours) => task.run::<Low<2, TWO_BYTES, 2, 8, false>>(),
        (Codes::Three, Order::Fours) => task.run::<Low<3, THREE_BYTES, 2, 8, false>>(),
    }
}

struct Four<const FUSED: bool>;
struct Six;
struct Split;
struct Eight;

/// sums + the products of signed bytes `a` and seven-bit bytes `b`, added up by fours.
#[inline(always)]
fn add(sums: v128, a: v128, b: v128) -> v128 {
    i32x4_relaxed_dot_i8x16_i7x16_add(a, b, sums)
}

#[inline(always)]
fn splat(x: [i8; 4]) -> v128 {
    i32x4_splat(bytemuck::cast(x))
}

/// Four codes of each of the eight rows, of columns 4k to 4k + 3.
#[inline(always)]
fn fours(codes: &[u8], k: usize) -> [v128; 2] {
    let codes = &codes[32 * k..32 * k + 32];
    [load(&codes[..16]), load(&codes[16..])]
}

/// Codes of full range.
impl Kernel for Eight {
    #[inline(always)]
    fn products<const C: usize>(weights: &Weights<'_>, columns: &Columns<'_, C>) -> [[f32; GROUP]; C] {
        each_block::<_, EIGHT_BYTES, 1, C>(weights, columns, columns.sign_magnitude, |_, codes, x, stats| {
            let mut sums: Sums<C> = std::array::from_fn(|c| [i32x4_splat(stats[c].negative); 2]);
            for (k, x) in x.iter().enumerate() {
                full(&mut sums, fours(codes, k), x);
            }
            sums
        })
    }
}

/// Places among levels, with as many blocks to a scale's unit.
struct Levels<const SHARED: usize>;

impl<const SHARED: usize> Kernel for Levels<SHARED> {
    #[inline(always)]
    fn products<const C: usize>(weights: &Weights<'_>, columns: &Columns<'_, C>) -> [[f32; GROUP]; C] {
        let (fifteen, levels) = (u8x16_splat(15), levels());
        let x = columns.sign_magnitude;
        each_shared_block::<_, FOUR_BYTES, 1, SHARED, C>(weights, columns, x, |_, codes, x, stats| {
            let mut sums: Sums<C> = std::array::from_fn(|c| [i32x4_splat(stats[c].negative); 2]);
            for k in 0..4 {
                let both = fours(codes, k);
                // Places are below 16, where relaxed swizzling is the same everywhere.
                let low = both.map(|both| i8x16_relaxed_swizzle(levels, v128_and(both, fifteen)));
                let high = both.map(|both| i8x16_relaxed_swizzle(levels, u8x16_shr(both, 4)));
                full(&mut sums, low, &x[k]);
                full(&mut sums, high, &x[4 + k]);
            }
            sums
        })
    }
}

/// sums + four codes of full range of each row times the activations of each column.
#[inline(always)]
fn full<const C: usize>(sums: &mut Sums<C>, w: [v128; 2], x: &[SignMagnitude; C]) {
    for c in 0..C {
        let [size, negative] = x[c].map(|bytes| i32x4_splat(bytemuck::cast(bytes)));
        for r in 0..2 {
            sums[c][r] = add(sums[c][r], v128_xor(w[r], negative), size);
        }
    }
}

/// Codes of `BITS` bits, one to three, in `BYTES` to a block with `PARTS` scales, whose units `SHARED` blocks have in
/// common. 16 products of at most 7 · 127 fit into sixteen bits.
struct Low<const BITS: usize, const BYTES: usize, const PARTS: usize, const SHARED: usize, const FUSED: bool>;

impl<const BITS: usize, const BYTES: usize, const PARTS: usize, const SHARED: usize, const FUSED: bool> Kernel
    for Low<BITS, BYTES, PARTS, SHARED, FUSED>
{
    #[inline(always)]
    fn products<const C: usize>(weights: &Weights<'_>, columns: &Columns<'_, C>) -> [[f32; GROUP]; C] {
        let offset = i32::from(weights.offset);
        each_shared_block::<_, BYTES, PARTS, SHARED, C>(weights, columns, columns.codes, |part, codes, x, stats| {
            let mut sums: Sums<C> = [[i32x4_splat(0); 2]; C];
            for k in 8 / PARTS * part..8 / PARTS * (part + 1) {
                let w = match BITS {
                    1 => bits::<1>(codes, k, 1),
                    2 => bits::<2>(codes, k, 0),
                    _ => {
                        let (low, high) = (bits::<2>(codes, k, 0), bits::<1>(&codes[TWO_BYTES..], k, 2));
                        [v128_or(low[0], high[0]), v128_or(low[1], high[1])]
                    }
                };
                for c in 0..C {
                    let x = splat(x[k][c]);
                    for r in 0..2 {
                        sums[c][r] = if FUSED {
                            add(sums[c][r], x, w[r])
                        } else {
                            i16x8_add(sums[c][r], i16x8_relaxed_dot_i8x16_i7x16(x, w[r]))
                        };
                    }
                }
            }
            for c in 0..C {
                let sum = if PARTS == 2 { stats[c].halves[part].into() } else { stats[c].sum() };
                let start = i32x4_splat(-offset * sum);
                sums[c] =
                    sums[c].map(|sums| i32x4_add(start, if FUSED { sums } else { i32x4_extadd_pairwise_i16x8(sums) }));
            }
            sums
        })
    }
}

/// `BITS` bits of four codes of each of the eight rows, of columns 4k to 4k + 3, as bytes, from bit `to` on.
#[inline(always)]
fn bits<const BITS: usize>(plane: &[u8], k: usize, to: usize) -> [v128; 2] {
    let from = k / BITS * BITS;
    fours(plane, k % BITS).map(|codes| {
        let moved = if from < to { i16x8_shl(codes, (to - from) as u32) } else { u16x8_shr(codes, (from - to) as u32) };
        v128_and(moved, u8x16_splat(((1 << BITS) - 1) << to))
    })
}

/// Codes of six bits.
impl Kernel for Six {
    #[inline(always)]
    fn products<const C: usize>(weights: &Weights<'_>, columns: &Columns<'_, C>) -> [[f32; GROUP]; C] {
        let offset = i32::from(weights.offset);
        each_block::<_, EIGHT_BYTES, 1, C>(weights, columns, columns.codes, |_, codes, x, stats| {
            let mut sums = std::array::from_fn(|c| [i32x4_splat(-offset * stats[c].sum()); 2]);
            for k in 0..8 {
                six(&mut sums, fours(codes, k), x, k);
            }
            sums
        })
    }
}

/// Codes of six bits, one scale to 16.
impl Kernel for Split {
    #[inline(always)]
    fn products<const C: usize>(weights: &Weights<'_>, columns: &Columns<'_, C>) -> [[f32; GROUP]; C] {
        let offset = i32::from(weights.offset);
        each_block::<_, EIGHT_BYTES, 2, C>(weights, columns, columns.codes, |half, codes, x, stats| {
            let start = |c: usize| [i32x4_splat(-offset * i32::from(stats[c].halves[half])); 2];
            let mut sums = std::array::from_fn(start);
            for k in 4 * half..4 * half + 4 {
                six(&mut sums, fours(codes, k), x, k);
            }
            sums
        })
    }
}

/// sums + four codes of six bits of each row times the activations of each column at 4k to 4k + 3.
#[inline(always)]
fn six<const C: usize>(sums: &mut Sums<C>, w: [v128; 2], x: &[[[i8; 4]; C]; 8], k: usize) {
    for c in 0..C {
        let x = splat(x[k][c]);
        for r in 0..2 {
            sums[c][r] = add(sums[c][r], x, w[r]);
        }
    }
}

/// Four-bit codes, from which 8 is taken or nothing. Eight products of at most 15 · 127 · 2 and what they start from fit
/// into sixteen bits: they wrap around on the way and end in range.
impl<const FUSED: bool> Kernel for Four<FUSED> {
    #[inline(always)]
    fn products<const C: usize>(weights: &Weights<'_>, columns: &Columns<'_, C>) -> [[f32; GROUP]; C] {
        let fifteen = u8x16_splat(15);
        let centred = weights.offset == CENTRE;
        debug_assert!(centred || weights.offset == 0);
        each_block::<_, FOUR_BYTES, 1, C>(weights, columns, columns.codes, |_, codes, x, stats: &[BlockStats; C]| {
            let start = |c: usize| match stats[c] {
                _ if !centred => [i32x4_splat(0); 2],
                stats if FUSED => [i32x4_splat(-i32::from(CENTRE) * stats.sum()); 2],
                stats => [i32x4_splat(bytemuck::cast(stats.centre)); 2],
            };
            let mut sums: Sums<C> = std::array::from_fn(start);
            for k in 0..4 {
                let both = fours(codes, k);
                let low = both.map(|both| v128_and(both, fifteen));
                let high = both.map(|both| v128_and(u16x8_shr(both, 4), fifteen));
                for (at, w) in [(k, low), (4 + k, high)] {
                    for c in 0..C {
                        let x = splat(x[at][c]);
                        for r in 0..2 {
                            sums[c][r] = if FUSED {
                                add(sums[c][r], x, w[r])
                            } else {
                                i16x8_add(sums[c][r], i16x8_relaxed_dot_i8x16_i7x16(x, w[r]))
                            };
                        }
                    }
                }
            }
            if FUSED { sums } else { sums.map(|sums| sums.map(|sums| i32x4_extadd_pairwise_i16x8(sums))) }
        })
    }
}
