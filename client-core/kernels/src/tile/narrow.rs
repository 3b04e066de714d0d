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
//! by what they return outside the ranges. On the others it is a sequence of five, and sixteen-bit products (`wide`) are as
//! fast; only four-bit codes stay here, since eight of their products can be added up in sixteen bits.

use std::arch::wasm32::*;
use std::hint::black_box;
use std::sync::atomic::{AtomicU8, Ordering};

use super::vector::{less_minima, load, scaled};
use super::{Columns, Facts, Kernel, Needs, Task, Weights, wide};
use crate::matrix::{Codes, EIGHT_BYTES, FOUR_BYTES, GROUP};

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

#[inline(always)]
pub fn choose(codes: Codes, task: impl Task) {
    match (codes, is_fused()) {
        (Codes::Four, false) => task.run::<Four<false>>(),
        (Codes::Four, true) => task.run::<Four<true>>(),
        (_, false) => wide::choose(codes, task),
        (Codes::Six, true) => task.run::<Six>(),
        (Codes::SixSplit, true) => task.run::<Split>(),
        (Codes::Eight, true) => task.run::<Eight>(),
    }
}

/// What activations are needed as.
#[inline(always)]
pub fn needs() -> Needs {
    let fused = is_fused();
    Needs { wide: !fused, codes: true, folded: fused }
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

type Sums<const G: usize, const C: usize> = [[v128; C]; G];

/// Codes of full range.
impl Kernel for Eight {
    #[inline(always)]
    fn products<const G: usize, const C: usize>(
        weights: [&Weights<'_>; G],
        columns: &Columns<'_, C>,
    ) -> [[[f32; GROUP]; C]; G] {
        each_block(weights, columns, columns.folded, |codes: [&[u8; EIGHT_BYTES]; G], x, facts: &[Facts; C]| {
            let mut sums: Sums<G, C> = [std::array::from_fn(|c| i32x4_splat(facts[c].negative)); G];
            for k in 0..8 {
                let w: [v128; G] = std::array::from_fn(|g| load(&codes[g][16 * k..16 * k + 16]));
                for c in 0..C {
                    let [size, negative] = x[k][c].map(|bytes| i32x4_splat(bytemuck::cast(bytes)));
                    for g in 0..G {
                        sums[g][c] = add(sums[g][c], v128_xor(w[g], negative), size);
                    }
                }
            }
            sums
        })
    }
}

/// Codes of six bits.
impl Kernel for Six {
    #[inline(always)]
    fn products<const G: usize, const C: usize>(
        weights: [&Weights<'_>; G],
        columns: &Columns<'_, C>,
    ) -> [[[f32; GROUP]; C]; G] {
        let offset = i32::from(weights[0].offset);
        each_block(weights, columns, columns.codes, |codes: [&[u8; EIGHT_BYTES]; G], x, facts: &[Facts; C]| {
            let mut sums: Sums<G, C> = [std::array::from_fn(|c| i32x4_splat(-offset * facts[c].sum())); G];
            for k in 0..8 {
                six(&mut sums, codes, x, k);
            }
            sums
        })
    }
}

/// sums + four codes of six bits of each row, at 4k, times four activations.
#[inline(always)]
fn six<const G: usize, const C: usize>(
    sums: &mut Sums<G, C>,
    codes: [&[u8; EIGHT_BYTES]; G],
    x: &[[[i8; 4]; C]; 8],
    k: usize,
) {
    let w: [v128; G] = std::array::from_fn(|g| load(&codes[g][16 * k..16 * k + 16]));
    for c in 0..C {
        let x = splat(x[k][c]);
        for g in 0..G {
            sums[g][c] = add(sums[g][c], x, w[g]);
        }
    }
}

/// Codes of six bits, one scale to 16.
impl Kernel for Split {
    #[inline(always)]
    fn products<const G: usize, const C: usize>(
        weights: [&Weights<'_>; G],
        columns: &Columns<'_, C>,
    ) -> [[[f32; GROUP]; C]; G] {
        let offset = i32::from(weights[0].offset);
        let mut out = [[f32x4_splat(0.0); C]; G];
        let blocks = columns.facts.len();
        let codes = weights.map(|weights| &weights.codes.as_chunks::<EIGHT_BYTES>().0[..blocks]);
        let scales = weights.map(|weights| &weights.scales.as_chunks::<{ 2 * GROUP }>().0[..blocks]);
        for (block, (x, facts)) in columns.codes.iter().zip(columns.facts).enumerate() {
            let codes: [&[u8; EIGHT_BYTES]; G] = std::array::from_fn(|g| &codes[g][block]);
            for half in 0..2 {
                let start = |c: usize| i32x4_splat(-offset * i32::from(facts[c].halves[half]));
                let mut sums: Sums<G, C> = [std::array::from_fn(start); G];
                for k in 4 * half..4 * half + 4 {
                    six(&mut sums, codes, x, k);
                }
                for g in 0..G {
                    let scales = load(&scales[g][block][half * GROUP..half * GROUP + GROUP]);
                    for c in 0..C {
                        out[g][c] = scaled(out[g][c], sums[g][c], scales, &facts[c]);
                    }
                }
            }
        }
        out.map(|out| out.map(bytemuck::cast))
    }
}

/// Four-bit codes. Eight products of at most 15 · 127 · 2 and what they start from fit into sixteen bits: they wrap around
/// on the way and end in range.
impl<const FUSED: bool> Kernel for Four<FUSED> {
    #[inline(always)]
    fn products<const G: usize, const C: usize>(
        weights: [&Weights<'_>; G],
        columns: &Columns<'_, C>,
    ) -> [[[f32; GROUP]; C]; G] {
        let fifteen = u8x16_splat(15);
        let offset = i16::from(weights[0].offset);
        each_block(weights, columns, columns.codes, |codes: [&[u8; FOUR_BYTES]; G], x, facts: &[Facts; C]| {
            let start = |c: usize| {
                let facts = &facts[c];
                if FUSED {
                    i32x4_splat(-i32::from(offset) * facts.sum())
                } else {
                    i32x4_splat(bytemuck::cast(facts.pairs.map(|sum| -offset * sum)))
                }
            };
            let mut sums: Sums<G, C> = [std::array::from_fn(start); G];
            for k in 0..4 {
                let both: [v128; G] = std::array::from_fn(|g| load(&codes[g][16 * k..16 * k + 16]));
                let low = both.map(|both| v128_and(both, fifteen));
                let high = both.map(|both| v128_and(u16x8_shr(both, 4), fifteen));
                for (at, w) in [(k, low), (4 + k, high)] {
                    for c in 0..C {
                        let x = splat(x[at][c]);
                        for g in 0..G {
                            sums[g][c] = if FUSED {
                                add(sums[g][c], x, w[g])
                            } else {
                                i16x8_add(sums[g][c], i16x8_relaxed_dot_i8x16_i7x16(x, w[g]))
                            };
                        }
                    }
                }
            }
            if FUSED { sums } else { sums.map(|sums| sums.map(|sums| i32x4_extadd_pairwise_i16x8(sums))) }
        })
    }
}

/// Adds up, over the blocks, the sums of codes that `sums` returns for one, times the scales; minima are taken off.
#[inline(always)]
fn each_block<'a, X, const BYTES: usize, const G: usize, const C: usize>(
    weights: [&Weights<'a>; G],
    columns: &Columns<'a, C>,
    x: &'a [X],
    sums: impl Fn([&'a [u8; BYTES]; G], &'a X, &'a [Facts; C]) -> Sums<G, C>,
) -> [[[f32; GROUP]; C]; G] {
    let mut out = [[f32x4_splat(0.0); C]; G];
    let blocks = columns.facts.len();
    let codes = weights.map(|weights| &weights.codes.as_chunks::<BYTES>().0[..blocks]);
    let scales = weights.map(|weights| &weights.scales.as_chunks::<GROUP>().0[..blocks]);
    for (block, (x, facts)) in x.iter().zip(columns.facts).enumerate() {
        let sums = sums(std::array::from_fn(|g| &codes[g][block]), x, facts);
        for g in 0..G {
            let scales = load(&scales[g][block]);
            for c in 0..C {
                out[g][c] = scaled(out[g][c], sums[g][c], scales, &facts[c]);
            }
        }
    }
    for (out, weights) in out.iter_mut().zip(weights) {
        less_minima(out, weights, columns);
    }
    out.map(|out| out.map(bytemuck::cast))
}
