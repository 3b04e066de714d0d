//! ggml's block formats: dequantisation bit-exact to `dequantize_row_*`, quantisation to `quantize_row_*_ref`.
//!
//! A block of 32 begins with a half-precision scale d, in the `_1` types followed by a minimum m; the five-bit types then
//! have a word with every element's fifth bit. The nibbles come in 16 bytes, low ones for elements 0..16 and high ones for
//! 16..32. A value is d·(q − 8) in Q4_0, d·(q − 16) in Q5_0, d·q + m in the `_1` types, and d·q over signed bytes in Q8_0.
//!
//! A super-block of 256 (the K types) scales the scales: Q4_K and Q5_K hold eight 6-bit scales and minima under one d and
//! one dmin, for d·s·q − dmin·m; Q6_K holds sixteen 8-bit scales, for d·s·(q − 32).
//!
//! Deliberately absent: the 2-, 3- and IQ-types, which the reader refuses by name, and encoders for what this project does
//! not write (the five-bit, `_1` and K types).

use half::{bf16, f16};

use super::gguf::GgmlType;

/// Elements in a block of the types that are not K types.
pub const BLOCK: usize = 32;
/// Elements in a super-block of the K types.
pub const SUPER_BLOCK: usize = 256;

fn half(raw: [u8; 2]) -> f32 {
    f16::from_le_bytes(raw).to_f32()
}

/// The 32 codes of a block, each as `value` makes it: nibbles from `quants` (16 bytes), fifth bits from `high`.
fn nibbles(ys: &mut [f32; BLOCK], quants: &[u8; 16], high: u32, value: impl Fn(i32) -> f32) {
    let (front, back) = ys.split_at_mut(BLOCK / 2);
    for (j, ((y, z), q)) in front.iter_mut().zip(back).zip(quants).enumerate() {
        let fifth = |bit: usize| ((high >> bit) as i32 & 1) << 4;
        *y = value(i32::from(q & 15) | fifth(j));
        *z = value(i32::from(q >> 4) | fifth(j + 16));
    }
}

/// A Q4_K or Q5_K super-block. `head` is d, dmin and twelve bytes of packed scales; `high` has bit b of byte l set when
/// element l of block b has its fifth bit (all zero in Q4_K); `quants` are 128 bytes of nibbles, 32 for two blocks.
fn super_block(ys: &mut [f32; SUPER_BLOCK], head: &[u8], high: &[u8], quants: &[u8]) {
    let (Some(&[d0, d1, m0, m1]), Some(packed)) = (head.first_chunk::<4>(), head.last_chunk::<12>()) else { return };
    let (d, dmin) = (half([d0, d1]), half([m0, m1]));
    for (b, ys) in ys.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        let (scale, min) = six_bit_pair(packed, b);
        let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
        let quants = quants.chunks_exact(BLOCK).nth(b / 2).unwrap_or_default();
        for ((y, q), high) in ys.iter_mut().zip(quants).zip(high) {
            let low = if b % 2 == 0 { q & 15 } else { q >> 4 };
            *y = scale * f32::from(low | ((high >> b) & 1) << 4) - min;
        }
    }
}

/// Scale and minimum of block `b` of eight, six bits each: the first four lie in the low bits of bytes 0..4 and 4..8; the
/// others are split over the nibbles of bytes 8..12 and the high bits of bytes 0..8.
fn six_bit_pair(packed: &[u8; 12], b: usize) -> (u8, u8) {
    let [a, c, rest] = [0, 4, 8].map(|row| packed.get(row + b % 4).copied().unwrap_or_default());
    if b < 4 { (a & 63, c & 63) } else { (rest & 15 | (a >> 6) << 4, rest >> 4 | (c >> 6) << 4) }
}

/// A Q6_K super-block: 128 bytes of nibbles, 64 of upper bit pairs, 16 signed scales, d. Both halves of 128 elements are
/// four rows of 32; row r takes the nibbles of row r % 2 (low ones first) and bit pair r of the upper byte.
fn q6_k(ys: &mut [f32; SUPER_BLOCK], block: &[u8; 210]) {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (scales, d) = rest.split_at(16);
    let d = d.first_chunk::<2>().map_or(0.0, |raw| half(*raw));
    let halves = low.chunks_exact(64).zip(high.chunks_exact(32)).zip(scales.chunks_exact(8));
    for (ys, ((low, high), scales)) in ys.chunks_exact_mut(128).zip(halves) {
        for (r, ys) in ys.chunks_exact_mut(32).enumerate() {
            let low = low.chunks_exact(32).nth(r % 2).unwrap_or_default();
            for (l, ((y, low), high)) in ys.iter_mut().zip(low).zip(high).enumerate() {
                let nibble = if r < 2 { low & 15 } else { low >> 4 };
                let q = i32::from(nibble | ((high >> (2 * r)) & 3) << 4) - 32;
                let scale = scales.get(2 * r + l / 16).map_or(0, |s| *s as i8);
                *y = d * f32::from(scale) * q as f32;
            }
        }
    }
}

/// Dequantises whole rows. `bytes` holds `out.len()` elements of type `dtype`; returns `false`, with `out` in an
/// unspecified state, when the two lengths do not belong together.
#[must_use]
pub fn dequantize(dtype: GgmlType, bytes: &[u8], out: &mut [f32]) -> bool {
    if dtype.row_bytes(out.len()) != Some(bytes.len()) {
        return false;
    }
    match dtype {
        GgmlType::F32 => {
            for (y, raw) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *y = f32::from_le_bytes(*raw);
            }
        }
        GgmlType::F16 => {
            for (y, raw) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *y = f16::from_le_bytes(*raw).to_f32();
            }
        }
        GgmlType::Bf16 => {
            for (y, raw) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *y = bf16::from_le_bytes(*raw).to_f32();
            }
        }
        GgmlType::Q4_0 => {
            for (ys, block) in out.as_chunks_mut::<BLOCK>().0.iter_mut().zip(bytes.as_chunks::<18>().0) {
                let [d0, d1, quants @ ..] = block;
                let d = half([*d0, *d1]);
                nibbles(ys, quants, 0, |q| (q - 8) as f32 * d);
            }
        }
        GgmlType::Q4_1 => {
            for (ys, block) in out.as_chunks_mut::<BLOCK>().0.iter_mut().zip(bytes.as_chunks::<20>().0) {
                let [d0, d1, m0, m1, quants @ ..] = block;
                let (d, m) = (half([*d0, *d1]), half([*m0, *m1]));
                nibbles(ys, quants, 0, |q| q as f32 * d + m);
            }
        }
        GgmlType::Q5_0 => {
            for (ys, block) in out.as_chunks_mut::<BLOCK>().0.iter_mut().zip(bytes.as_chunks::<22>().0) {
                let [d0, d1, h0, h1, h2, h3, quants @ ..] = block;
                let d = half([*d0, *d1]);
                nibbles(ys, quants, u32::from_le_bytes([*h0, *h1, *h2, *h3]), |q| (q - 16) as f32 * d);
            }
        }
        GgmlType::Q5_1 => {
            for (ys, block) in out.as_chunks_mut::<BLOCK>().0.iter_mut().zip(bytes.as_chunks::<24>().0) {
                let [d0, d1, m0, m1, h0, h1, h2, h3, quants @ ..] = block;
                let (d, m) = (half([*d0, *d1]), half([*m0, *m1]));
                nibbles(ys, quants, u32::from_le_bytes([*h0, *h1, *h2, *h3]), |q| q as f32 * d + m);
            }
        }
        GgmlType::Q4K => {
            for (ys, block) in out.as_chunks_mut::<SUPER_BLOCK>().0.iter_mut().zip(bytes.as_chunks::<144>().0) {
                let (head, quants) = block.split_at(16);
                super_block(ys, head, &[0; 32], quants);
            }
        }
        GgmlType::Q5K => {
            for (ys, block) in out.as_chunks_mut::<SUPER_BLOCK>().0.iter_mut().zip(bytes.as_chunks::<176>().0) {
                let (head, rest) = block.split_at(16);
                let (high, quants) = rest.split_at(32);
                super_block(ys, head, high, quants);
            }
        }
        GgmlType::Q6K => {
            for (ys, block) in out.as_chunks_mut::<SUPER_BLOCK>().0.iter_mut().zip(bytes.as_chunks::<210>().0) {
                q6_k(ys, block);
            }
        }
        GgmlType::Q8_0 => {
            for (ys, block) in out.as_chunks_mut::<BLOCK>().0.iter_mut().zip(bytes.as_chunks::<34>().0) {
                let [d0, d1, quants @ ..] = block;
                let d = half([*d0, *d1]);
                for (y, q) in ys.iter_mut().zip(quants) {
                    *y = f32::from(*q as i8) * d;
                }
            }
        }
    }
    true
}

/// Encodes `values` as `dtype`, rounding as ggml's reference code does. `None` when the length is not whole blocks, and for
/// the types that are only read: Q4_1, Q5_0, Q5_1 and the K types.
pub fn quantize(dtype: GgmlType, values: &[f32]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(dtype.row_bytes(values.len())?);
    match dtype {
        GgmlType::F32 => out.extend(values.iter().flat_map(|v| v.to_le_bytes())),
        GgmlType::F16 => out.extend(values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes())),
        GgmlType::Bf16 => out.extend(values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes())),
        GgmlType::Q4_0 => {
            for block in values.as_chunks::<BLOCK>().0 {
                // The value of largest magnitude, with its sign, becomes −8: the only code without a positive twin.
                let extreme = block.iter().fold(0f32, |m, &v| if v.abs() > m.abs() { v } else { m });
                let d = extreme / -8.0;
                let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
                let code = |v: f32| ((v * inverse + 8.5) as u8).min(15);
                out.extend(f16::from_f32(d).to_le_bytes());
                let (low, high) = block.split_at(BLOCK / 2);
                out.extend(low.iter().zip(high).map(|(&lo, &hi)| code(lo) | (code(hi) << 4)));
            }
        }
        GgmlType::Q4_1 | GgmlType::Q5_0 | GgmlType::Q5_1 | GgmlType::Q4K | GgmlType::Q5K | GgmlType::Q6K => {
            return None;
        }
        GgmlType::Q8_0 => {
            for block in values.as_chunks::<BLOCK>().0 {
                let largest = block.iter().fold(0f32, |m, &v| m.max(v.abs()));
                let d = largest / 127.0;
                let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
                out.extend(f16::from_f32(d).to_le_bytes());
                out.extend(block.iter().map(|&v| ((v * inverse).round() as i8) as u8));
            }
        }
    }
    Some(out)
}

#[cfg(test)]
#[path = "quant_tests.rs"]
mod tests;
