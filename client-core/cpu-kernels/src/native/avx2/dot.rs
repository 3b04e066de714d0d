//! Packed matrices times activations.
//!
//! `vpmaddubsw` multiplies 32 unsigned bytes (weights: four codes of eight rows) by signed ones (activations: four codes of
//! a column, repeated) and adds neighbours up in sixteen bits. It holds sums at ±32767; 63 · 127 · 2 does not get there,
//! nor does 128 · 127 · 2. Codes of up to six bits then stay in sixteen bits for as long as they have one scale: sums wrap
//! around on the way, but their codes' offset is in what they start from, and |code − offset| ≤ 2^(bits − 1) makes the
//! result fit: 16 · 127 · 16 for five bits and 32 columns, 32 · 127 · 8 for six and 16. Codes of eight bits are multiplied
//! as |w| · (x · sign w), and added up in 32 bits at once.
//!
//! A few columns are multiplied straight from the packed codes ([`direct`]): that reads least memory. Many share codes that
//! were unpacked once, for two groups of rows ([`Strip`]), so that every broadcast of activations serves two products.

use std::arch::x86_64::*;

use super::{bytes, halves, singles, splat, splat_single};
use crate::blocks::BLOCK;
use crate::layout::GROUP;
use crate::native::activations::{self, Block, HALVES, SCALE, SIXTEEN, WEIGHTED, WHOLE};
use crate::native::packed::{Bits, Factors, Packed, SUPER};

/// Products of `R` groups of rows with `C` columns.
type Out<const R: usize, const C: usize> = [[[f32; GROUP]; R]; C];

/// [`Bits`] as constants: functions are compiled for each.
const FOUR: u8 = 4;
const FIVE: u8 = 5;
const SIX: u8 = 6;
const EIGHT: u8 = 8;

/// What codes of fewer than eight bits are taken to be centred at while they are added up: sums of codes without an offset
/// get it back at the end. Four bits need no centre.
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
        Bits::Four => each::<FOUR>(packed, groups, words, m, strip, &mut write),
        Bits::Five => each::<FIVE>(packed, groups, words, m, strip, &mut write),
        Bits::Six => each::<SIX>(packed, groups, words, m, strip, &mut write),
        Bits::Eight => each::<EIGHT>(packed, groups, words, m, strip, &mut write),
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

/// Codes 4k to 4k + 3 of a block and all rows, one to a byte.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn unpack<const BITS: u8>(codes: &[[u8; 32]], k: usize) -> __m256i {
    let load = |at: usize| bytes(&codes[at]);
    if BITS == EIGHT {
        return load(k);
    }
    let both = load(k % 4);
    let low = if k < 4 { both } else { _mm256_srli_epi16::<4>(both) };
    let low = _mm256_and_si256(low, _mm256_set1_epi8(15));
    // Moves the other bits to bit 4 and 5; what comes over from a neighbouring byte is masked.
    let high = |plane: __m256i, from: usize, mask: i8| {
        let plane = match from {
            0..=4 => _mm256_sll_epi16(plane, _mm_cvtsi32_si128(4 - from as i32)),
            _ => _mm256_srl_epi16(plane, _mm_cvtsi32_si128(from as i32 - 4)),
        };
        _mm256_or_si256(low, _mm256_and_si256(plane, _mm256_set1_epi8(mask)))
    };
    match BITS {
        FIVE => high(load(4), k, 0x10),
        SIX => high(load(4 + k / 4), 2 * (k % 4), 0x30),
        _ => low,
    }
}

/// Sums of codes times activations of a part of a block, in 32 bits: `PART` of 2 for codes of six bits, else all.
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
    if BITS == EIGHT {
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
        let stored = if BITS == SIX { HALVES[part] } else { WHOLE };
        let shift = _mm_cvtsi32_si128(centre.trailing_zeros() as i32);
        for c in 0..C {
            let start = _mm256_sub_epi16(zero, _mm256_sll_epi16(splat(x[stored][c]), shift));
            sums[c] = [start; R];
        }
    }
    let ks = if BITS == SIX { 4 * part..4 * part + 4 } else { 0..8 };
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

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn less<const R: usize, const C: usize>(out: &mut [[__m256; R]; C], minima: &[__m256; R], x: &Block<C>) {
    for c in 0..C {
        let sum = splat_single(x[WEIGHTED][c]);
        for r in 0..R {
            out[c][r] = _mm256_sub_ps(out[c][r], _mm256_mul_ps(minima[r], sum));
        }
    }
}

/// The factors of one group, block by block.
#[derive(Clone, Copy)]
struct GroupFactors<'a> {
    halves: &'a [[u16; GROUP]],
    parts: &'a [[u8; GROUP]],
}

impl<'a> GroupFactors<'a> {
    fn new(factors: &'a Factors, group: usize, blocks: usize, parts: usize) -> Self {
        let (halves, bytes) = (factors.halves.as_chunks().0, factors.parts.as_chunks().0);
        if bytes.is_empty() {
            return Self { halves: halves.get(group * blocks..(group + 1) * blocks).unwrap_or_default(), parts: &[] };
        }
        let supers = blocks / SUPER;
        Self { halves: &halves[group * supers..][..supers], parts: &bytes[group * blocks * parts..][..blocks * parts] }
    }

    const EMPTY: Self = Self { halves: &[], parts: &[] };

    fn is_empty(&self) -> bool {
        self.halves.is_empty()
    }

    /// The factors of a part of a block whose bytes are number `at`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn super_at(&self, signed: bool, block: usize, at: usize) -> __m256 {
        let bytes = _mm_set_epi64x(0, i64::from_le_bytes(self.parts[at]));
        let whole = if signed { _mm256_cvtepi8_epi32(bytes) } else { _mm256_cvtepu8_epi32(bytes) };
        _mm256_mul_ps(halves(&self.halves[block / SUPER]), _mm256_cvtepi32_ps(whole))
    }

    /// The factors of a part of a block, of which there are `PARTS`; bytes are signed where there are two.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn at<const PARTS: usize>(&self, block: usize, part: usize) -> __m256 {
        if self.parts.is_empty() {
            return halves(&self.halves[block]);
        }
        self.super_at(PARTS == 2, block, PARTS * block + part)
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
    let vectors = const { if BITS == EIGHT { 8 } else { BITS as usize } };
    let parts = const { if BITS == SIX { 2 } else { 1 } };
    let (blocks, offset) = (packed.blocks, packed.format.offset());
    let x = &x[..blocks];
    let mut codes: [&[[u8; 32]]; R] = [&[]; R];
    let mut scales = [GroupFactors::EMPTY; R];
    for r in 0..R {
        let size = blocks * vectors;
        codes[r] = &packed.codes.as_chunks().0[(group + r) * size..][..size];
        scales[r] = GroupFactors::new(&packed.scales, group + r, blocks, parts);
    }
    let mut out = [[_mm256_setzero_ps(); R]; C];
    for (block, x) in x.iter().enumerate() {
        let mut of_block: [&[[u8; 32]]; R] = [&[]; R];
        for r in 0..R {
            of_block[r] = &codes[r][block * vectors..][..vectors];
        }
        for part in 0..parts {
            let sums = sums::<BITS, R, C>(part, offset, |r, k| unpack::<BITS>(of_block[r], k), x);
            let mut factors = [_mm256_setzero_ps(); R];
            for r in 0..R {
                factors[r] = match SUPERS {
                    true => scales[r].super_at(BITS == SIX, block, parts * block + part),
                    false => halves(&scales[r].halves[block]),
                };
            }
            scaled(&mut out, &sums, &factors, x);
        }
    }
    if !packed.minima.halves.is_empty() {
        for r in 0..R {
            let minima = GroupFactors::new(&packed.minima, group + r, blocks, 1);
            for (block, x) in x.iter().enumerate() {
                let minimum = match SUPERS {
                    true => minima.super_at(false, block, block),
                    false => halves(&minima.halves[block]),
                };
                for c in 0..C {
                    let sum = splat_single(x[WEIGHTED][c]);
                    out[c][r] = _mm256_sub_ps(out[c][r], _mm256_mul_ps(minimum, sum));
                }
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
    /// `[blocks][R]` vectors, or empty.
    minima: Vec<[f32; GROUP]>,
}

impl Strip {
    #[target_feature(enable = "avx2,fma,f16c")]
    fn fill<const BITS: u8, const R: usize>(&mut self, packed: &Packed, group: usize) {
        let (blocks, size, parts) = (packed.blocks, packed.bits.bytes(), packed.bits.parts());
        self.offset = packed.format.offset();
        self.codes.resize(blocks * 8 * R, [0; 32]);
        self.scales.resize(blocks * parts * R, [0.0; GROUP]);
        for r in 0..R {
            let codes = &packed.codes[(group + r) * blocks * size..][..blocks * size];
            let scales = GroupFactors::new(&packed.scales, group + r, blocks, parts);
            for (block, codes) in codes.chunks_exact(size).enumerate() {
                for k in 0..8 {
                    self.codes[(block * 8 + k) * R + r] = bytemuck::cast(unpack::<BITS>(codes.as_chunks().0, k));
                }
                for part in 0..parts {
                    let scales = if BITS == SIX { scales.at::<2>(block, part) } else { scales.at::<1>(block, part) };
                    self.scales[(block * parts + part) * R + r] = bytemuck::cast(scales);
                }
            }
            let minima = GroupFactors::new(&packed.minima, group + r, blocks, 1);
            if minima.is_empty() {
                self.minima.clear();
            } else {
                self.minima.resize(blocks * R, [0.0; GROUP]);
                for block in 0..blocks {
                    self.minima[block * R + r] = bytemuck::cast(minima.at::<1>(block, 0));
                }
            }
        }
    }

    /// Its rows times `C` columns.
    #[inline(never)]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn times<const BITS: u8, const R: usize, const C: usize>(&self, x: &[Block<C>]) -> Out<R, C> {
        let parts = if BITS == SIX { 2 } else { 1 };
        let mut out = [[_mm256_setzero_ps(); R]; C];
        let codes = self.codes.as_chunks::<R>().0.as_chunks::<8>().0;
        let scales = self.scales.as_chunks::<R>().0.chunks_exact(parts);
        for ((codes, scales), x) in codes.iter().zip(scales).zip(x) {
            for (part, scales) in scales.iter().enumerate() {
                let sums = sums::<BITS, R, C>(part, self.offset, |r, k| bytes(&codes[k][r]), x);
                scaled(&mut out, &sums, &vectors(scales), x);
            }
        }
        for (minima, x) in self.minima.as_chunks::<R>().0.iter().zip(x) {
            less(&mut out, &vectors(minima), x);
        }
        out.map(|out| out.map(bytemuck::cast))
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn vectors<const R: usize>(values: &[[f32; GROUP]; R]) -> [__m256; R] {
    let mut out = [_mm256_setzero_ps(); R];
    for (out, values) in out.iter_mut().zip(values) {
        *out = singles(values);
    }
    out
}
