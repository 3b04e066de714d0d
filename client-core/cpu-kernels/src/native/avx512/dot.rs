//! Packed matrices times activations, two groups of rows to a vector.
//!
//! `vpdpbusd` multiplies 64 unsigned bytes (weights: four codes of sixteen rows) by signed ones (activations: four codes of a
//! column, repeated), adds four neighbours up and adds that to 32 bits: nothing overflows on the way, so that codes need no
//! centre. They are made unsigned: those of eight bits, and levels, are moved up by 128. What a code is too large by times
//! the sum of a part's activations is what sums start from.
//!
//! As in the AVX2 tiles a few columns are multiplied straight from the packed codes ([`direct`]), and many share codes that
//! were unpacked once ([`Strip`]). A last group without a neighbour is the AVX2 tiles' affair. Operations in single precision
//! come in the portable order.

use std::arch::x86_64::*;

use crate::blocks::BLOCK;
use crate::layout::GROUP;
use crate::native::activations::{self, Block, HALVES, SCALE, WEIGHTED, WHOLE};
use crate::native::avx2::{ahead, dot as avx2};
use crate::native::codes::{EIGHT, FIVE, FOUR, LEVELS, ONE, SIX, THREE, TWO, parts, shared, vectors};
use crate::native::factors::{GroupFactors, HIGH, LOW, SIGNED};
use crate::native::packed::{Bits, Packed, place};

/// Rows of a vector: two groups.
const ROWS: usize = 2 * GROUP;
/// Products of two groups of rows with `C` columns.
type Out<const C: usize> = [[f32; ROWS]; C];

/// The products of a matrix's rows of some groups with all columns, as the AVX2 tiles' `products`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub fn products(
    packed: &Packed,
    groups: std::ops::Range<usize>,
    words: &[u32],
    m: usize,
    strips: (&mut Strip, &mut avx2::Strip),
    mut write: impl FnMut(usize, usize, &[f32; GROUP]),
) {
    let (strip, alone) = strips;
    let pairs = groups.start..groups.start + groups.len() / 2 * 2;
    match packed.bits {
        Bits::One => each::<ONE>(packed, pairs.clone(), words, m, strip, &mut write),
        Bits::Two => each::<TWO>(packed, pairs.clone(), words, m, strip, &mut write),
        Bits::Three => each::<THREE>(packed, pairs.clone(), words, m, strip, &mut write),
        Bits::Four => each::<FOUR>(packed, pairs.clone(), words, m, strip, &mut write),
        Bits::Five => each::<FIVE>(packed, pairs.clone(), words, m, strip, &mut write),
        Bits::Six => each::<SIX>(packed, pairs.clone(), words, m, strip, &mut write),
        Bits::Eight => each::<EIGHT>(packed, pairs.clone(), words, m, strip, &mut write),
        Bits::Levels => each::<LEVELS>(packed, pairs.clone(), words, m, strip, &mut write),
    }
    if pairs.end < groups.end {
        avx2::products(packed, pairs.end..groups.end, words, m, alone, write);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn each<const BITS: u8>(
    packed: &Packed,
    pairs: std::ops::Range<usize>,
    words: &[u32],
    m: usize,
    strip: &mut Strip,
    write: &mut impl FnMut(usize, usize, &[f32; GROUP]),
) {
    let cols = packed.blocks * BLOCK;
    for group in pairs.step_by(2) {
        if m <= activations::TILE {
            match m {
                1 => {
                    write_all(&direct::<BITS, 1>(packed, group, activations::columns(words, 0, cols)), 0, group, write);
                }
                2 => {
                    write_all(&direct::<BITS, 2>(packed, group, activations::columns(words, 0, cols)), 0, group, write);
                }
                3 => {
                    write_all(&direct::<BITS, 3>(packed, group, activations::columns(words, 0, cols)), 0, group, write);
                }
                4 => {
                    write_all(&direct::<BITS, 4>(packed, group, activations::columns(words, 0, cols)), 0, group, write);
                }
                _ => {}
            }
            continue;
        }
        strip.fill::<BITS>(packed, group);
        for first in (0..m).step_by(activations::TILE) {
            match m - first {
                1 => write_all(&strip.times::<BITS, 1>(activations::columns(words, first, cols)), first, group, write),
                2 => write_all(&strip.times::<BITS, 2>(activations::columns(words, first, cols)), first, group, write),
                3 => write_all(&strip.times::<BITS, 3>(activations::columns(words, first, cols)), first, group, write),
                _ => write_all(&strip.times::<BITS, 4>(activations::columns(words, first, cols)), first, group, write),
            }
        }
    }
}

#[inline(always)]
fn write_all<const C: usize>(
    out: &Out<C>,
    first: usize,
    group: usize,
    write: &mut impl FnMut(usize, usize, &[f32; GROUP]),
) {
    for (c, rows) in out.iter().enumerate() {
        for (r, sums) in rows.as_chunks().0.iter().enumerate() {
            write(first + c, group + r, sums);
        }
    }
}

/// 64 bytes as a vector.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn bytes(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: both are 64 bytes of which every value is one.
    #[allow(unsafe_code, reason = "bytemuck knows these vectors behind a feature only")]
    unsafe {
        std::mem::transmute(*bytes)
    }
}

/// Sixteen singles as a vector.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn singles(values: &[f32; ROWS]) -> __m512 {
    _mm512_castsi512_ps(bytes(bytemuck::cast_ref(values)))
}

/// A vector as its bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn stored(vector: __m512i) -> [u8; 64] {
    // SAFETY: as in `bytes`.
    #[allow(unsafe_code, reason = "as in `bytes`")]
    unsafe {
        std::mem::transmute(vector)
    }
}

/// A vector as sixteen singles.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn stored_singles(vector: __m512) -> [f32; ROWS] {
    bytemuck::cast(stored(_mm512_castps_si512(vector)))
}

/// Two groups' vectors as one.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn both(low: &[u8; 32], high: &[u8; 32]) -> __m512i {
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(bytemuck::cast(*low)), bytemuck::cast(*high))
}

/// The same of factors.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn both_singles(factors: [__m256; 2]) -> __m512 {
    let low = _mm512_castsi256_si512(_mm256_castps_si256(factors[0]));
    _mm512_castsi512_ps(_mm512_inserti64x4::<1>(low, _mm256_castps_si256(factors[1])))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn splat(word: u32) -> __m512i {
    _mm512_set1_epi32(word as i32)
}

/// What a code, as [`unpack`] gives it, is larger by than what it stands for.
const fn above(bits: u8, offset: i8) -> i16 {
    match bits {
        EIGHT | LEVELS => 128,
        _ => offset as i16,
    }
}

/// Codes 4k to 4k + 3 of a block and two groups of rows, unsigned.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn unpack<const BITS: u8>(codes: &[&[[u8; 32]]; 2], k: usize) -> __m512i {
    match BITS {
        EIGHT => _mm512_xor_si512(both(&codes[0][k], &codes[1][k]), _mm512_set1_epi8(-128)),
        // Stored halved.
        ONE => plane::<1>(codes, 0, k, 1),
        TWO => plane::<2>(codes, 0, k, 0),
        THREE => _mm512_or_si512(plane::<2>(codes, 0, k, 0), plane::<1>(codes, 2, k, 2)),
        FIVE => _mm512_or_si512(plane::<4>(codes, 0, k, 0), plane::<1>(codes, 4, k, 4)),
        SIX => _mm512_or_si512(plane::<4>(codes, 0, k, 0), plane::<2>(codes, 4, k, 4)),
        LEVELS => {
            let levels = _mm512_broadcast_i32x4(bytemuck::cast(LEVELS_ABOVE));
            _mm512_shuffle_epi8(levels, plane::<4>(codes, 0, k, 0))
        }
        _ => plane::<4>(codes, 0, k, 0),
    }
}

/// The levels of the IQ4 types, moved up by 128.
const LEVELS_ABOVE: [u8; 16] = {
    let mut levels = [0; 16];
    let mut at = 0;
    while at < 16 {
        levels[at] = (crate::blocks::IQ4_LEVELS[at] as u8) ^ 0x80;
        at += 1;
    }
    levels
};

/// `N` bits of codes 4k to 4k + 3, from the plane of so many that begins with vector `first`, moved to bit `to`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn plane<const N: usize>(codes: &[&[[u8; 32]]; 2], first: usize, k: usize, to: usize) -> __m512i {
    let (vector, from) = place(N, k);
    let codes = both(&codes[0][first + vector], &codes[1][first + vector]);
    // What comes over from a neighbouring byte is masked.
    let moved = match from.checked_sub(to) {
        Some(right) => _mm512_srl_epi16(codes, _mm_cvtsi32_si128(right as i32)),
        None => _mm512_sll_epi16(codes, _mm_cvtsi32_si128((to - from) as i32)),
    };
    _mm512_and_si512(moved, _mm512_set1_epi8(((0xff >> (8 - N)) << to) as u8 as i8))
}

/// Sums of codes times activations of a part of a block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn sums<const BITS: u8, const C: usize>(
    part: usize,
    above: i16,
    codes: impl Fn(usize) -> __m512i,
    x: &Block<C>,
) -> [__m512i; C] {
    let mut sums = [_mm512_setzero_si512(); C];
    if above != 0 {
        let stored = if parts(BITS) == 2 { HALVES[part] } else { WHOLE };
        let less = _mm512_set1_epi16(-above);
        for c in 0..C {
            sums[c] = _mm512_madd_epi16(splat(x[stored][c]), less);
        }
    }
    let ks = if parts(BITS) == 2 { 4 * part..4 * part + 4 } else { 0..8 };
    for k in ks {
        let w = codes(k);
        for c in 0..C {
            sums[c] = _mm512_dpbusd_epi32(sums[c], w, splat(x[k][c]));
        }
    }
    sums
}

/// out + sums · (scale · the activations' scale), in the order of the portable tiles.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn scaled<const C: usize>(out: &mut [__m512; C], sums: &[__m512i; C], scales: __m512, x: &Block<C>) {
    for c in 0..C {
        let scale = _mm512_mul_ps(scales, _mm512_castsi512_ps(splat(x[SCALE][c])));
        out[c] = _mm512_add_ps(out[c], _mm512_mul_ps(_mm512_cvtepi32_ps(sums[c]), scale));
    }
}

/// out − minima · the sum of a part's activations, in the order of the portable tiles.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn less<const BITS: u8, const C: usize>(part: usize, out: &mut [__m512; C], minima: __m512, x: &Block<C>) {
    for c in 0..C {
        let sum = if parts(BITS) == 2 {
            let whole = _mm512_madd_epi16(splat(x[HALVES[part]][c]), _mm512_set1_epi16(1));
            _mm512_mul_ps(_mm512_cvtepi32_ps(whole), _mm512_castsi512_ps(splat(x[SCALE][c])))
        } else {
            _mm512_castsi512_ps(splat(x[WEIGHTED][c]))
        };
        out[c] = _mm512_sub_ps(out[c], _mm512_mul_ps(minima, sum));
    }
}

/// Scales of a part of a block and two groups.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn scale_at<const BITS: u8, const SUPERS: bool>(of: &[GroupFactors<'_>; 2], block: usize, part: usize) -> __m512 {
    let at = parts(BITS) * block + part;
    both_singles(match (SUPERS, BITS) {
        (true, TWO) => [of[0].super_at::<LOW>(block, at), of[1].super_at::<LOW>(block, at)],
        (true, _) => [of[0].super_at::<SIGNED>(block, at), of[1].super_at::<SIGNED>(block, at)],
        (false, _) => [of[0].half_at(block / shared(BITS)), of[1].half_at(block / shared(BITS))],
    })
}

/// The same of minima.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn minimum_at<const BITS: u8, const SUPERS: bool>(of: &[GroupFactors<'_>; 2], block: usize, part: usize) -> __m512 {
    let at = parts(BITS) * block + part;
    both_singles(match (SUPERS, BITS) {
        (true, TWO) => [of[0].super_at::<HIGH>(block, at), of[1].super_at::<HIGH>(block, at)],
        (true, _) => [of[0].super_at::<SIGNED>(block, block), of[1].super_at::<SIGNED>(block, block)],
        (false, _) => [of[0].half_at(block), of[1].half_at(block)],
    })
}

/// Two groups of rows times a few columns, from the packed codes.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn direct<const BITS: u8, const C: usize>(packed: &Packed, group: usize, x: &[Block<C>]) -> Out<C> {
    match packed.scales.parts.is_empty() {
        true => direct_of::<BITS, false, C>(packed, group, x),
        false => direct_of::<BITS, true, C>(packed, group, x),
    }
}

/// The same, compiled for scales with parts and for scales without.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn direct_of<const BITS: u8, const SUPERS: bool, const C: usize>(
    packed: &Packed,
    group: usize,
    x: &[Block<C>],
) -> Out<C> {
    let (vectors, parts) = const { (vectors(BITS), parts(BITS)) };
    let (blocks, above) = (packed.blocks, above(BITS, packed.format.offset()));
    let x = &x[..blocks];
    let size = blocks * vectors;
    let codes: &[[u8; 32]] = &packed.codes.as_chunks().0[group * size..][..2 * size];
    let (low, high) = codes.split_at(size);
    let scales = [GroupFactors::scales(packed, group), GroupFactors::scales(packed, group + 1)];
    let mut out = [_mm512_setzero_ps(); C];
    for (block, x) in x.iter().enumerate() {
        let codes = [&low[block * vectors..][..vectors], &high[block * vectors..][..vectors]];
        for codes in codes {
            ahead(codes, 2 * size);
        }
        for part in 0..parts {
            let sums = sums::<BITS, C>(part, above, |k| unpack::<BITS>(&codes, k), x);
            scaled(&mut out, &sums, scale_at::<BITS, SUPERS>(&scales, block, part), x);
        }
    }
    if !packed.minima.halves.is_empty() {
        let minima = [GroupFactors::minima(packed, group), GroupFactors::minima(packed, group + 1)];
        for (block, x) in x.iter().enumerate() {
            for part in 0..parts {
                less::<BITS, C>(part, &mut out, minimum_at::<BITS, SUPERS>(&minima, block, part), x);
            }
        }
    }
    out.map(|out| stored_singles(out))
}

/// Unpacked codes of two groups of rows, and their factors as singles.
#[derive(Debug, Default)]
pub struct Strip {
    above: i16,
    /// `[blocks][8]` vectors.
    codes: Vec<[u8; 64]>,
    /// `[blocks][parts]` vectors.
    scales: Vec<[f32; ROWS]>,
    /// The same, or empty.
    minima: Vec<[f32; ROWS]>,
}

impl Strip {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
    fn fill<const BITS: u8>(&mut self, packed: &Packed, group: usize) {
        match packed.scales.parts.is_empty() {
            true => self.fill_of::<BITS, false>(packed, group),
            false => self.fill_of::<BITS, true>(packed, group),
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
    fn fill_of<const BITS: u8, const SUPERS: bool>(&mut self, packed: &Packed, group: usize) {
        let (vectors, parts) = const { (vectors(BITS), parts(BITS)) };
        let blocks = packed.blocks;
        self.above = above(BITS, packed.format.offset());
        self.codes.resize(blocks * 8, [0; 64]);
        self.scales.resize(blocks * parts, [0.0; ROWS]);
        self.minima.resize(if packed.minima.halves.is_empty() { 0 } else { blocks * parts }, [0.0; ROWS]);
        let size = blocks * vectors;
        let codes: &[[u8; 32]] = &packed.codes.as_chunks().0[group * size..][..2 * size];
        let (low, high) = codes.split_at(size);
        for (block, places) in self.codes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let codes = [&low[block * vectors..][..vectors], &high[block * vectors..][..vectors]];
            for (k, place) in places.iter_mut().enumerate() {
                *place = stored(unpack::<BITS>(&codes, k));
            }
        }
        let scales = [GroupFactors::scales(packed, group), GroupFactors::scales(packed, group + 1)];
        for (at, place) in self.scales.iter_mut().enumerate() {
            *place = stored_singles(scale_at::<BITS, SUPERS>(&scales, at / parts, at % parts));
        }
        let minima = [GroupFactors::minima(packed, group), GroupFactors::minima(packed, group + 1)];
        for (at, place) in self.minima.iter_mut().enumerate() {
            *place = stored_singles(minimum_at::<BITS, SUPERS>(&minima, at / parts, at % parts));
        }
    }

    /// Its rows times `C` columns.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
    fn times<const BITS: u8, const C: usize>(&self, x: &[Block<C>]) -> Out<C> {
        let parts = const { parts(BITS) };
        let mut out = [_mm512_setzero_ps(); C];
        let codes = self.codes.as_chunks::<8>().0;
        for ((codes, scales), x) in codes.iter().zip(self.scales.chunks_exact(parts)).zip(x) {
            for (part, scales) in scales.iter().enumerate() {
                let sums = sums::<BITS, C>(part, self.above, |k| bytes(&codes[k]), x);
                scaled(&mut out, &sums, singles(scales), x);
            }
        }
        for (minima, x) in self.minima.chunks_exact(parts).zip(x) {
            for (part, minima) in minima.iter().enumerate() {
                less::<BITS, C>(part, &mut out, singles(minima), x);
            }
        }
        out.map(|out| stored_singles(out))
    }
}
