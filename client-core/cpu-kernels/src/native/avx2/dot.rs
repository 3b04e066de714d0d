//! Packed matrices times activations.
//!
//! `vpmaddubsw` multiplies 32 unsigned bytes (weights: four codes of eight rows) by signed ones (activations: four codes of
//! a column, repeated) and adds neighbours up in sixteen bits. It holds sums at ±32767; 63 · 127 · 2 does not get there,
//! nor does 128 · 127 · 2. Codes of up to six bits then stay in sixteen bits for as long as they have one scale: sums wrap
//! around on the way, but their codes' offset is in what they start from, and |code − offset| ≤ 2^(bits − 1) makes the
//! result fit: 16 · 127 · 16 for five bits and 32 columns, 32 · 127 · 8 for six and 16. Codes of eight bits, and levels, are
//! multiplied as |w| · (x · sign w), and added up in 32 bits at once.
//!
//! A few columns are multiplied straight from the packed codes ([`direct`]): that reads least memory. Many share codes that
//! were unpacked once, for two groups of rows ([`Strip`]), so that every broadcast of activations serves two products.

use std::arch::x86_64::*;

use super::unpack::unpack;
use super::{ahead, bytes, singles, splat, splat_single};
use crate::blocks::BLOCK;
use crate::layout::GROUP;
use crate::native::activations::{self, Block, HALVES, SCALE, SIXTEEN, WEIGHTED, WHOLE};
use crate::native::codes::{EIGHT, FIVE, FOUR, LEVELS, ONE, SIX, THREE, TWO, parts, shared, vectors};
use crate::native::factors::{GroupFactors, HIGH, LOW, SIGNED};
use crate::native::packed::{Bits, Packed};

/// Products of `R` groups of rows with `C` columns.
type Out<const R: usize, const C: usize> = [[[f32; GROUP]; R]; C];

/// What codes of fewer than eight bits are taken to be centred at while they are added up: sums of codes without an offset
/// get it back at the end. Four bits and fewer need no centre.
const fn centre(bits: u8, offset: i8) -> i32 {
    match bits {
        FIVE => 16,
        SIX => 32,
        _ => offset as i32,
    }
}

/// The products of a matrix's rows of some groups with all columns: `write(column, group, sums)` takes them, up to four
/// columns and two groups at a time. `words` are the activations of `m` columns.
#[target_feature(enable = "avx2,fma,f16c")]
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
        Bits::Two => each::<TWO>(packed, groups, words, m, strip, &mut write),
        Bits::Three => each::<THREE>(packed, groups, words, m, strip, &mut write),
        Bits::Four => each::<FOUR>(packed, groups, words, m, strip, &mut write),
        Bits::Five => each::<FIVE>(packed, groups, words, m, strip, &mut write),
        Bits::Six => each::<SIX>(packed, groups, words, m, strip, &mut write),
        Bits::Eight => each::<EIGHT>(packed, groups, words, m, strip, &mut write),
        Bits::Levels => each::<LEVELS>(packed, groups, words, m, strip, &mut write),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn each<const BITS: u8>(
    packed: &Packed,
    groups: std::ops::Range<usize>,
    words: &[u32],
    m: usize,
    strip: &mut Strip,
    write: &mut impl FnMut(usize, usize, &[f32; GROUP]),
) {
    let cols = packed.blocks * BLOCK;
    if m <= activations::TILE {
        let mut group = groups.start;
        // Two groups share what a column's activations take to be spread.
        while m == 1 && group + 1 < groups.end {
            write_all(&direct::<BITS, 2, 1>(packed, group, activations::columns(words, 0, cols)), 0, group, write);
            group += 2;
        }
        for group in group..groups.end {
            match m {
                1 => write_all(
                    &direct::<BITS, 1, 1>(packed, group, activations::columns(words, 0, cols)),
                    0,
                    group,
                    write,
                ),
                2 => write_all(
                    &direct::<BITS, 1, 2>(packed, group, activations::columns(words, 0, cols)),
                    0,
                    group,
                    write,
                ),
                3 => write_all(
                    &direct::<BITS, 1, 3>(packed, group, activations::columns(words, 0, cols)),
                    0,
                    group,
                    write,
                ),
                4 => write_all(
                    &direct::<BITS, 1, 4>(packed, group, activations::columns(words, 0, cols)),
                    0,
                    group,
                    write,
                ),
                _ => {}
            }
        }
        return;
    }
    for group in groups.clone().step_by(2) {
        if group + 1 < groups.end {
            strip_products::<BITS, 2>(packed, group, words, m, strip, write);
        } else {
            strip_products::<BITS, 1>(packed, group, words, m, strip, write);
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn strip_products<const BITS: u8, const R: usize>(
    packed: &Packed,
    group: usize,
    words: &[u32],
    m: usize,
    strip: &mut Strip,
    write: &mut impl FnMut(usize, usize, &[f32; GROUP]),
) {
    strip.fill::<BITS, R>(packed, group);
    let cols = packed.blocks * BLOCK;
    for first in (0..m).step_by(activations::TILE) {
        match m - first {
            1 => write_all(&strip.times::<BITS, R, 1>(activations::columns(words, first, cols)), first, group, write),
            2 => write_all(&strip.times::<BITS, R, 2>(activations::columns(words, first, cols)), first, group, write),
            3 => write_all(&strip.times::<BITS, R, 3>(activations::columns(words, first, cols)), first, group, write),
            _ => write_all(&strip.times::<BITS, R, 4>(activations::columns(words, first, cols)), first, group, write),
        }
    }
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

/// Sums of codes times activations of a part of a block, in 32 bits.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sums<const BITS: u8, const R: usize, const C: usize>(
    part: usize,
    offset: i8,
    codes: impl Fn(usize, usize) -> __m256i,
    x: &Block<C>,
) -> [[__m256i; R]; C] {
    let zero = _mm256_setzero_si256();
    let ones = _mm256_set1_epi16(1);
    if matches!(BITS, EIGHT | LEVELS) {
        let mut sums = [[zero; R]; C];
        for k in 0..8 {
            let mut w = [zero; R];
            for (r, w) in w.iter_mut().enumerate() {
                *w = codes(r, k);
            }
            for c in 0..C {
                let x = splat(x[k][c]);
                for r in 0..R {
                    let product = _mm256_maddubs_epi16(_mm256_abs_epi8(w[r]), _mm256_sign_epi8(x, w[r]));
                    sums[c][r] = _mm256_add_epi32(sums[c][r], _mm256_madd_epi16(product, ones));
                }
            }
        }
        return sums;
    }
    let centre = centre(BITS, offset);
    let mut sums = [[zero; R]; C];
    if centre != 0 {
        let stored = if parts(BITS) == 2 { HALVES[part] } else { WHOLE };
        let shift = _mm_cvtsi32_si128(centre.trailing_zeros() as i32);
        for c in 0..C {
            let start = _mm256_sub_epi16(zero, _mm256_sll_epi16(splat(x[stored][c]), shift));
            sums[c] = [start; R];
        }
    }
    let ks = if parts(BITS) == 2 { 4 * part..4 * part + 4 } else { 0..8 };
    for k in ks {
        let mut w = [zero; R];
        for (r, w) in w.iter_mut().enumerate() {
            *w = codes(r, k);
        }
        for c in 0..C {
            let x = splat(x[k][c]);
            for r in 0..R {
                sums[c][r] = _mm256_add_epi16(sums[c][r], _mm256_maddubs_epi16(w[r], x));
            }
        }
    }
    for c in 0..C {
        for r in 0..R {
            sums[c][r] = _mm256_madd_epi16(sums[c][r], ones);
            if BITS == FIVE && offset == 0 {
                sums[c][r] = _mm256_add_epi32(sums[c][r], splat(x[SIXTEEN][c]));
            }
        }
    }
    sums
}

/// out + sums · (scale · the activations' scale), in the order of the portable tiles.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn scaled<const R: usize, const C: usize>(
    out: &mut [[__m256; R]; C],
    sums: &[[__m256i; R]; C],
    scales: &[__m256; R],
    x: &Block<C>,
) {
    for c in 0..C {
        let x_scale = splat_single(x[SCALE][c]);
        for r in 0..R {
            let scale = _mm256_mul_ps(scales[r], x_scale);
            out[c][r] = _mm256_add_ps(out[c][r], _mm256_mul_ps(_mm256_cvtepi32_ps(sums[c][r]), scale));
        }
    }
}

/// out − minima · the sum of a part's activations, in the order of the portable tiles.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn less<const BITS: u8, const R: usize, const C: usize>(
    part: usize,
    out: &mut [[__m256; R]; C],
    minima: &[__m256; R],
    x: &Block<C>,
) {
    for c in 0..C {
        let sum = if parts(BITS) == 2 {
            let whole = _mm256_madd_epi16(splat(x[HALVES[part]][c]), _mm256_set1_epi16(1));
            _mm256_mul_ps(_mm256_cvtepi32_ps(whole), splat_single(x[SCALE][c]))
        } else {
            splat_single(x[WEIGHTED][c])
        };
        for r in 0..R {
            out[c][r] = _mm256_sub_ps(out[c][r], _mm256_mul_ps(minima[r], sum));
        }
    }
}

/// Groups of rows times a few columns, from the packed codes.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
fn direct<const BITS: u8, const R: usize, const C: usize>(packed: &Packed, group: usize, x: &[Block<C>]) -> Out<R, C> {
    match packed.scales.parts.is_empty() {
        true => direct_of::<BITS, false, R, C>(packed, group, x),
        false => direct_of::<BITS, true, R, C>(packed, group, x),
    }
}

/// The same, compiled for scales with parts and for scales without.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
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
    let mut out = [[_mm256_setzero_ps(); R]; C];
    for (block, x) in x.iter().enumerate() {
        let mut of_block: [&[[u8; 32]]; R] = [&[]; R];
        for r in 0..R {
            of_block[r] = &codes[r][block * vectors..][..vectors];
            ahead(of_block[r], R * blocks * vectors);
        }
        for part in 0..parts {
            let sums = sums::<BITS, R, C>(part, offset, |r, k| unpack::<BITS>(of_block[r], k), x);
            let mut factors = [_mm256_setzero_ps(); R];
            for r in 0..R {
                factors[r] = match (SUPERS, BITS) {
                    (true, TWO) => scales[r].super_at::<LOW>(block, parts * block + part),
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
                let mut factors = [_mm256_setzero_ps(); R];
                for r in 0..R {
                    factors[r] = match (SUPERS, BITS) {
                        (true, TWO) => minima[r].super_at::<HIGH>(block, parts * block + part),
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
    #[target_feature(enable = "avx2,fma,f16c")]
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
                        (true, TWO) if is_high => factors.super_at::<HIGH>(at / parts, at),
                        (true, TWO) => factors.super_at::<LOW>(at / parts, at),
                        (true, _) => factors.super_at::<SIGNED>(at / parts, at),
                        (false, _) => factors.half_at(at / shared(BITS)),
                    });
                }
            }
        }
    }

    /// Its rows times `C` columns.
    #[inline(never)]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn times<const BITS: u8, const R: usize, const C: usize>(&self, x: &[Block<C>]) -> Out<R, C> {
        let parts = const { parts(BITS) };
        let mut out = [[_mm256_setzero_ps(); R]; C];
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
#[target_feature(enable = "avx2,fma,f16c")]
fn all_singles<const R: usize>(values: &[[f32; GROUP]; R]) -> [__m256; R] {
    let mut out = [_mm256_setzero_ps(); R];
    for (out, values) in out.iter_mut().zip(values) {
        *out = singles(values);
    }
    out
}
