//! ggml's block formats: dequantisation bit-exact to `dequantize_row_*`, quantisation to `quantize_row_*_ref`.
//!
//! A block of 32 begins with a half-precision scale d, in the `_1` types followed by a minimum m; the five-bit types then
//! have a word with every element's fifth bit. The nibbles come in 16 bytes, low ones for elements 0..16 and high ones for
//! 16..32. A value is d·(q − 8) in Q4_0, d·(q − 16) in Q5_0, d·q + m in the `_1` types, and d·q over signed bytes in Q8_0.
//!
//! A super-block of 256 (the K types) scales the scales: Q4_K and Q5_K hold eight 6-bit scales and minima under one d and
//! one dmin, for d·s·q − dmin·m; Q2_K holds sixteen of four bits. Q6_K and Q3_K hold sixteen signed scales of 8 and 6 bits,
//! for d·s·(q − 32) and d·s·(q − 4).
//!
//! In the IQ4 types a code is a place among 16 levels, for d·level, with a scale of its own in each block (IQ4_NL) or with
//! eight signed 6-bit scales in a super-block (IQ4_XS). Q1_0 has one d to 128 signs.
//!
//! Deliberately absent: the IQ types of fewer bits, which the reader refuses by name, and encoders for what this project
//! does not write (the five-bit, `_1`, K and IQ types and Q1_0).

use cpu_kernels::blocks;
pub use cpu_kernels::blocks::IQ4_LEVELS;
use half::{bf16, f16};

use super::gguf::GgmlType;

/// Elements in a block of the types that are not K types.
pub const BLOCK: usize = 32;

/// Dequantises whole rows. `bytes` holds `out.len()` elements of type `dtype`; returns `false`, with `out` in an
/// unspecified state, when the two lengths do not belong together.
#[must_use]
pub fn dequantize(dtype: GgmlType, bytes: &[u8], out: &mut [f32]) -> bool {
    if dtype.row_bytes(out.len()) != Some(bytes.len()) {
        return false;
    }
    // The kernels' crate knows the blocks: it repacks them, too.
    blocks::decode(dtype, bytes, out);
    true
}

/// Encodes `values` as `dtype`, rounding as ggml's reference code does. `None` when the length is not whole blocks, and for
/// the types that are only read: all but F32, F16, BF16, Q4_0 and Q8_0.
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
        GgmlType::Q8_0 => {
            for block in values.as_chunks::<BLOCK>().0 {
                let largest = block.iter().fold(0f32, |m, &v| m.max(v.abs()));
                let d = largest / 127.0;
                let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
                out.extend(f16::from_f32(d).to_le_bytes());
                out.extend(block.iter().map(|&v| ((v * inverse).round() as i8) as u8));
            }
        }
        GgmlType::Q4_1
        | GgmlType::Q5_0
        | GgmlType::Q5_1
        | GgmlType::Q2K
        | GgmlType::Q3K
        | GgmlType::Q4K
        | GgmlType::Q5K
        | GgmlType::Q6K
        | GgmlType::Iq4Nl
        | GgmlType::Iq4Xs
        | GgmlType::Q1_0 => return None,
    }
    Some(out)
}

#[cfg(test)]
#[path = "quant_tests.rs"]
mod tests;
