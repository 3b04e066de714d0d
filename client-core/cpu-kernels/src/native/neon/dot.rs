//! Packed matrices times activations.
//!
//! `sdot` multiplies sixteen signed bytes (weights: four codes of four rows) by sixteen others (activations: four codes of a
//! column, repeated), adds four neighbours up and adds that to 32 bits. Codes of up to six bits are signed bytes as they are;
//! what they are too large by times the sum of a part's activations is what sums start from.
//!
//! A few columns are multiplied straight from the packed codes ([`direct`]): that reads least memory. Many share codes that
//! were unpacked once, for two groups of rows ([`Strip`]); the activations of four columns lie in the lanes of one vector then,
//! of which the instruction takes one. Operations in single precision come in the portable order.

use std::arch::aarch64::*;
use std::arch::asm;

use super::unpack::unpack;
use super::{TWO, bytes, singles};
use crate::blocks::BLOCK;
use crate::layout::GROUP;
use crate::native::activations::{self, Block, HALVES, SCALE, TILE, WEIGHTED, WHOLE};
use crate::native::codes::{self, EIGHT, FIVE, FOUR, LEVELS, ONE, SIX, THREE, parts, shared, vectors};
use crate::native::factors::{GroupFactors, HIGH, LOW, SIGNED};
use crate::native::packed::{Bits, Packed};

/// Products of `R` groups of rows with `C` columns.
type Out<const R: usize, const C: usize> = [[[f32; GROUP]; R]; C];
/// The same while they are added up.
type Sums<T, const R: usize, const C: usize> = [[[T; TWO]; R]; C];

/// The products of a matrix's rows of some groups with all columns: `write(column, group, sums)` takes them, up to four
/// columns and two groups at a time. `words` are the activations of `m` columns.
#[target_feature(enable = "neon,dotprod,fp16")]
pub fn products(
    packed: &Packed,
    groups: std::ops::Range<usize>,
    words: &[u32],
    m: usize,
    strip: &mut Strip,
    mut write: impl FnMut(usize, usize, &[f32; GROUP]),
) {
    match packed.bits {
        Bits::One => each::<ONE>(packed, groups, words, m, strip, &mut write),
        Bits::Two => each::<{ codes::TWO }>(packed, groups, words, m, strip, &mut write),
        Bits::Three => each::<THREE>(packed, groups, words, m, strip, &mut write),
        Bits::Four => each::<FOUR>(packed, groups, words, m, strip, &mut write),
        Bits::Five => each::<FIVE>(packed, groups, words, m, strip, &mut write),
        Bits::Six => each::<SIX>(packed, groups, words, m, strip, &mut write),
        Bits::Eight => each::<EIGHT>(packed, groups, words, m, strip, &mut write),
        Bits::Levels => each::<LEVELS>(packed, groups, words, m, strip, &mut write),
    }
}

#[target_feature(enable = "neon,dotprod,fp16")]
fn each<const BITS: u8>(
    packed: &Packed,
    groups: std::ops::Range<usize>,
    words: &[u32],
    m: usize,
    strip: &mut Strip,
    write: &mut impl FnMut(usize, usize, &[f32; GROUP]),
) {
    for group in groups.clone().step_by(2) {
        match group + 1 < groups.end {
            true => rows::<BITS, 2>(packed, group, words, m, strip, write),
            false => rows::<BITS, 1>(packed, group, words, m, strip, write),
        }
    }
}

/// All columns of one or two groups of rows.
#[target_feature(enable = "neon,dotprod,fp16")]
fn rows<const BITS: u8, const R: usize>(
    packed: &Packed,
    group: usize,
    words: &[u32],
    m: usize,
    strip: &mut Strip,
    write: &mut impl FnMut(usize, usize, &[f32; GROUP]),
) {
    let cols = packed.blocks * BLOCK;
    match m {
        1 => write_all(&direct::<BITS, R, 1>(packed, group, activations::columns(words, 0, cols)), 0, group, write),
        2 => write_all(&direct::<BITS, R, 2>(packed, group, activations::columns(words, 0, cols)), 0, group, write),
        3 => write_all(&direct::<BITS, R, 3>(packed, group, activations::columns(words, 0, cols)), 0, group, write),
        TILE => {
            write_all(&direct::<BITS, R, TILE>(packed, group, activations::columns(words, 0, cols)), 0, group, write);
        }
        _ => {
            strip.fill::<BITS, R>(packed, group);
            for first in (0..m).step_by(TILE) {
                let x = (words, first, cols);
                match m - first {
                    1 => write_all(&strip.times::<BITS, R, 1>(columns(x)), first, group, write),
                    2 => write_all(&strip.times::<BITS, R, 2>(columns(x)), first, group, write),
                    3 => write_all(&strip.times::<BITS, R, 3>(columns(x)), first, group, write),
                    _ => write_all(&strip.times::<BITS, R, TILE>(columns(x)), first, group, write),
                }
            }
        }
    }
}

#[inline(always)]
fn columns<const C: usize>((words, first, cols): (&[u32], usize, usize)) -> &[Block<C>] {
    activations::columns(words, first, cols)
}

#[inline(always)]
fn write_all<const R: usize, const C: usize>(
    out: &Out<R, C>,
    first: usize,
    group: usize,
    write: &mut impl FnMut(usize, usize, &[f32; GROUP]),
) {
    for (c, out) in out.iter().enumerate() {
        for (r, sums) in out.iter().enumerate() {
            write(first + c, group + r, sums);
        }
    }
}

/// sum + four products of every lane of `w` with those of `x`. The intrinsic is not stable yet.
#[inline]
#[target_feature(enable = "neon,dotprod,fp16")]
fn dot(sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    let mut out = sum;
    // SAFETY: an instruction that works on registers, which this function's features have.
    #[allow(unsafe_code, reason = "assembly")]
    unsafe {
        asm!(
            "sdot {out:v}.4s, {w:v}.16b, {x:v}.16b",
            out = inout(vreg) out, w = in(vreg) w, x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    out
}

/// The same with one lane of `x` for all of `w`.
#[inline]
#[target_feature(enable = "neon,dotprod,fp16")]
fn dot_lane<const LANE: usize>(sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    let mut out = sum;
    // SAFETY: as in `dot`.
    #[allow(unsafe_code, reason = "assembly")]
    unsafe {
        asm!(
            "sdot {out:v}.4s, {w:v}.16b, {x:v}.4b[{lane}]",
            out = inout(vreg) out, w = in(vreg) w, x = in(vreg) x, lane = const LANE,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    out
}

/// The sum of the codes of a part that a word holds in two lanes of sixteen bits.
#[inline(always)]
fn total(word: u32) -> i32 {
    i32::from(word as i16) + (word as i32 >> 16)
}

/// The word in which the sums of a part's activations are.
const fn stored(bits: u8, part: usize) -> usize {
    if parts(bits) == 2 { HALVES[part] } else { WHOLE }
}

/// Sums of codes times activations of a part of a block.
#[inline]
#[target_feature(enable = "neon,dotprod,fp16")]
fn sums<const BITS: u8, const R: usize, const C: usize>(
    part: usize,
    offset: i8,
    codes: impl Fn(usize, usize) -> [int8x16_t; TWO],
    x: &Block<C>,
) -> Sums<int32x4_t, R, C> {
    let mut sums = [[[vdupq_n_s32(0); TWO]; R]; C];
    if !matches!(BITS, EIGHT | LEVELS) && offset != 0 {
        for c in 0..C {
            let start = vdupq_n_s32(-i32::from(offset) * total(x[stored(BITS, part)][c]));
            sums[c] = [[start; TWO]; R];
        }
    }
    let ks = if parts(BITS) == 2 { 4 * part..4 * part + 4 } else { 0..8 };
    for k in ks {
        let mut w = [[vdupq_n_s8(0); TWO]; R];
        for (r, w) in w.iter_mut().enumerate() {
            *w = codes(r, k);
        }
        if C == TILE {
            let x: int8x16_t = bytemuck::cast([x[k][0], x[k][1 % C], x[k][2 % C], x[k][3 % C]]);
            for r in 0..R {
                for h in 0..TWO {
                    sums[0][r][h] = dot_lane::<0>(sums[0][r][h], w[r][h], x);
                    sums[1 % C][r][h] = dot_lane::<1>(sums[1 % C][r][h], w[r][h], x);
                    sums[2 % C][r][h] = dot_lane::<2>(sums[2 % C][r][h], w[r][h], x);
                    sums[3 % C][r][h] = dot_lane::<3>(sums[3 % C][r][h], w[r][h], x);
                }
            }
            continue;
        }
        for c in 0..C {
            let x = vreinterpretq_s8_u32(vdupq_n_u32(x[k][c]));
            for r in 0..R {
                for h in 0..TWO {
                    sums[c][r][h] = dot(sums[c][r][h], w[r][h], x);
                }
            }
        }
    }
    sums
}

/// out + sums · (scale · the activations' scale), in the order of the portable tiles.
#[inline]
#[target_feature(enable = "neon,dotprod,fp16")]
fn scaled<const R: usize, const C: usize>(
    out: &mut Sums<float32x4_t, R, C>,
    sums: &Sums<int32x4_t, R, C>,
    scales: &[[float32x4_t; TWO]; R],
    x: &Block<C>,
) {
    for c in 0..C {
        let x_scale = vdupq_n_f32(f32::from_bits(x[SCALE][c]));
        for r in 0..R {
            for h in 0..TWO {
                let scale = vmulq_f32(scales[r][h], x_scale);
                out[c][r][h] = vaddq_f32(out[c][r][h], vmulq_f32(vcvtq_f32_s32(sums[c][r][h]), scale));
            }
        }
    }
}

/// out − minima · the sum of a part's activations, in the order of the portable tiles.
#[inline]
#[target_feature(enable = "neon,dotprod,fp16")]
fn less<const BITS: u8, const R: usize, const C: usize>(
    part: usize,
    out: &mut Sums<float32x4_t, R, C>,
    minima: &[[float32x4_t; TWO]; R],
    x: &Block<C>,
) {
    for c in 0..C {
        let sum = if parts(BITS) == 2 {
            total(x[HALVES[part]][c]) as f32 * f32::from_bits(x[SCALE][c])
        } else {
            f32::from_bits(x[WEIGHTED][c])
        };
        let sum = vdupq_n_f32(sum);
        for r in 0..R {
            for h in 0..TWO {
                out[c][r][h] = vsubq_f32(out[c][r][h], vmulq_f32(minima[r][h], sum));
            }
        }
    }
}

/// Groups of rows times a few columns, from the packed codes.
#[inline(never)]
#[target_feature(enable = "neon,dotprod,fp16")]
fn direct<const BITS: u8, const R: usize, const C: usize>(packed: &Packed, group: usize, x: &[Block<C>]) -> Out<R, C> {
    match packed.scales.parts.is_empty() {
        true => direct_of::<BITS, false, R, C>(packed, group, x),
        false => direct_of::<BITS, true, R, C>(packed, group, x),
    }
}

/// The same, compiled for scales with parts and for scales without.
#[inline]
#[target_feature(enable = "neon,dotprod,fp16")]
fn direct_of<const BITS: u8, const SUPERS: bool, const R: usize, const C: usize>(
    packed: &Packed,
    group: usize,
    x: &[Block<C>],
) -> Out<R, C> {
    let (vectors, parts) = const { (vectors(BITS), parts(BITS)) };
    let (blocks, offset) = (packed.blocks, packed.format.offset());
    let x = &x[..blocks];
    let mut codes: [&[[u8; 32]]; R] = [&[]; R];
    let mut scales = [GroupFactors::EMPTY; R];
    for r in 0..R {
        let size = blocks * vectors;
        codes[r] = &packed.codes.as_chunks().0[(group + r) * size..][..size];
        scales[r] = GroupFactors::scales(packed, group + r);
    }
    let mut out = [[[vdupq_n_f32(0.0); TWO]; R]; C];
    for (block, x) in x.iter().enumerate() {
        let mut of_block: [&[[u8; 32]]; R] = [&[]; R];
        for r in 0..R {
            of_block[r] = &codes[r][block * vectors..][..vectors];
        }
        for part in 0..parts {
            let sums = sums::<BITS, R, C>(part, offset, |r, k| unpack::<BITS>(of_block[r], k), x);
            let mut factors = [[vdupq_n_f32(0.0); TWO]; R];
            for r in 0..R {
                factors[r] = match (SUPERS, BITS) {
                    (true, codes::TWO) => scales[r].super_at::<LOW>(block, parts * block + part),
                    (true, _) => scales[r].super_at::<SIGNED>(block, parts * block + part),
                    (false, _) => scales[r].half_at(block / shared(BITS)),
                };
            }
            scaled(&mut out, &sums, &factors, x);
        }
    }
    if !packed.minima.halves.is_empty() {
        let mut minima = [GroupFactors::EMPTY; R];
        for r in 0..R {
            minima[r] = GroupFactors::minima(packed, group + r);
        }
        for (block, x) in x.iter().enumerate() {
            for part in 0..parts {
                let mut factors = [[vdupq_n_f32(0.0); TWO]; R];
                for r in 0..R {
                    factors[r] = match (SUPERS, BITS) {
                        (true, codes::TWO) => minima[r].super_at::<HIGH>(block, parts * block + part),
                        (true, _) => minima[r].super_at::<SIGNED>(block, block),
                        (false, _) => minima[r].half_at(block),
                    };
                }
                less::<BITS, R, C>(part, &mut out, &factors, x);
            }
        }
    }
    out.map(|out| out.map(bytemuck::cast))
}

/// Unpacked codes of one or two groups of rows, and their factors as singles.
#[derive(Debug, Default)]
pub struct Strip {
    offset: i8,
    /// `[blocks][8][R]` vectors.
    codes: Vec<[u8; 32]>,
    /// `[blocks][parts][R]` vectors.
    scales: Vec<[f32; GROUP]>,
    /// The same, or empty.
    minima: Vec<[f32; GROUP]>,
}

impl Strip {
    #[target_feature(enable = "neon,dotprod,fp16")]
    fn fill<const BITS: u8, const R: usize>(&mut self, packed: &Packed, group: usize) {
        let (blocks, size, parts) = (packed.blocks, packed.bits.bytes(), const { parts(BITS) });
        self.offset = packed.format.offset();
        self.codes.resize(blocks * 8 * R, [0; 32]);
        self.scales.resize(blocks * parts * R, [0.0; GROUP]);
        self.minima.resize(if packed.minima.halves.is_empty() { 0 } else { blocks * parts * R }, [0.0; GROUP]);
        for r in 0..R {
            let codes = &packed.codes[(group + r) * blocks * size..][..blocks * size];
            for (block, codes) in codes.chunks_exact(size).enumerate() {
                for k in 0..8 {
                    self.codes[(block * 8 + k) * R + r] = bytemuck::cast(unpack::<BITS>(codes.as_chunks().0, k));
                }
            }
            let all = [
                (&mut self.scales, GroupFactors::scales(packed, group + r), false),
                (&mut self.minima, GroupFactors::minima(packed, group + r), true),
            ];
            for (places, factors, is_high) in all {
                for (at, place) in places.iter_mut().skip(r).step_by(R).enumerate() {
                    *place = bytemuck::cast(match (factors.has_parts(), BITS) {
                        (true, codes::TWO) if is_high => factors.super_at::<HIGH>(at / parts, at),
                        (true, codes::TWO) => factors.super_at::<LOW>(at / parts, at),
                        (true, _) => factors.super_at::<SIGNED>(at / parts, at),
                        (false, _) => factors.half_at(at / shared(BITS)),
                    });
                }
            }
        }
    }

    /// Its rows times `C` columns.
    #[inline(never)]
    #[target_feature(enable = "neon,dotprod,fp16")]
    fn times<const BITS: u8, const R: usize, const C: usize>(&self, x: &[Block<C>]) -> Out<R, C> {
        let parts = const { parts(BITS) };
        let mut out = [[[vdupq_n_f32(0.0); TWO]; R]; C];
        let codes = self.codes.as_chunks::<R>().0.as_chunks::<8>().0;
        let scales = self.scales.as_chunks::<R>().0.chunks_exact(parts);
        for ((codes, scales), x) in codes.iter().zip(scales).zip(x) {
            for (part, scales) in scales.iter().enumerate() {
                let sums = sums::<BITS, R, C>(part, self.offset, |r, k| bytes(&codes[k][r]), x);
                scaled(&mut out, &sums, &all_singles(scales), x);
            }
        }
        for (minima, x) in self.minima.as_chunks::<R>().0.chunks_exact(parts).zip(x) {
            for (part, minima) in minima.iter().enumerate() {
                less::<BITS, R, C>(part, &mut out, &all_singles(minima), x);
            }
        }
        out.map(|out| out.map(bytemuck::cast))
    }
}

#[inline]
#[target_feature(enable = "neon,dotprod,fp16")]
fn all_singles<const R: usize>(values: &[[f32; GROUP]; R]) -> [[float32x4_t; TWO]; R] {
    let mut out = [[vdupq_n_f32(0.0); TWO]; R];
    for (out, values) in out.iter_mut().zip(values) {
        *out = singles(values);
    }
    out
}
