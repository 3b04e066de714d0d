//! ggml's block formats: dequantisation bit-exact to `dequantize_row_*`, quantisation to `quantize_row_*_ref`.
//!
//! A Q4_0 block is 18 bytes: a half-precision scale d, then 16 bytes whose low nibbles are elements 0..16 and whose high
//! nibbles are elements 16..32, each value being d·(q − 8). A Q8_0 block is 34 bytes: d, then 32 signed bytes, d·q.
//!
//! Deliberately absent: K-quants and the other legacy types; the reader refuses them by name.

use half::{bf16, f16};

use super::gguf::GgmlType;

/// Elements in a Q4_0 or Q8_0 block.
pub const BLOCK: usize = 32;

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
                let d = f16::from_le_bytes([*d0, *d1]).to_f32();
                let (low, high) = ys.split_at_mut(BLOCK / 2);
                for ((lo, hi), q) in low.iter_mut().zip(high).zip(quants) {
                    *lo = (i32::from(q & 15) - 8) as f32 * d;
                    *hi = (i32::from(q >> 4) - 8) as f32 * d;
                }
            }
        }
        GgmlType::Q4_1 | GgmlType::Q5_0 | GgmlType::Q5_1 | GgmlType::Q4K | GgmlType::Q5K | GgmlType::Q6K => {
            return false;
        }
        GgmlType::Q8_0 => {
            for (ys, block) in out.as_chunks_mut::<BLOCK>().0.iter_mut().zip(bytes.as_chunks::<34>().0) {
                let [d0, d1, quants @ ..] = block;
                let d = f16::from_le_bytes([*d0, *d1]).to_f32();
                for (y, q) in ys.iter_mut().zip(quants) {
                    *y = f32::from(*q as i8) * d;
                }
            }
        }
    }
    true
}

/// Encodes `values` as `dtype`, rounding as ggml's reference code does. `None` when the length is not whole blocks.
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
mod tests {
    use super::*;

    #[test]
    fn q4_0_block_by_hand() {
        // d = 0.5; byte 0 holds code 0 (−8) below and code 15 (+7) above.
        let mut block = vec![0u8; 18];
        block[..2].copy_from_slice(&f16::from_f32(0.5).to_le_bytes());
        block[2] = 0xF0;
        block[17] = 0x8C;
        let mut out = [0f32; 32];
        assert!(dequantize(GgmlType::Q4_0, &block, &mut out));
        assert_eq!((out[0], out[16]), (-4.0, 3.5));
        assert_eq!((out[15], out[31]), (2.0, 0.0));
    }

    #[test]
    fn q8_0_block_by_hand() {
        let mut block = vec![0u8; 34];
        block[..2].copy_from_slice(&f16::from_f32(0.25).to_le_bytes());
        block[2] = 0x80;
        block[33] = 127;
        let mut out = [0f32; 32];
        assert!(dequantize(GgmlType::Q8_0, &block, &mut out));
        assert_eq!((out[0], out[1], out[31]), (-32.0, 0.0, 31.75));
    }

    #[test]
    fn lengths_that_do_not_belong_together_are_refused() {
        for dtype in [GgmlType::Q4_0, GgmlType::Q8_0, GgmlType::F16, GgmlType::F32] {
            assert!(!dequantize(dtype, &[0; 19], &mut [0.0; 32]), "{dtype:?}");
        }
        assert!(quantize(GgmlType::Q4_0, &[0.0; 31]).is_none());
    }

    #[test]
    fn round_trip_stays_within_half_a_step() {
        let values: Vec<f32> = (0..256).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.013).collect();
        for (dtype, steps) in [(GgmlType::Q8_0, 127.0), (GgmlType::Q4_0, 8.0)] {
            let coded = quantize(dtype, &values).expect("whole blocks");
            let mut back = vec![0.0; values.len()];
            assert!(dequantize(dtype, &coded, &mut back));
            for (block, decoded) in values.chunks(BLOCK).zip(back.chunks(BLOCK)) {
                let largest = block.iter().fold(0f32, |m, v| m.max(v.abs()));
                // Q4_0 clips the side opposite to the extreme by up to a whole step; half-precision scales add 0.1 %.
                let bound = largest / steps * if dtype == GgmlType::Q4_0 { 1.02 } else { 0.51 } + largest * 1e-3;
                for (a, b) in block.iter().zip(decoded) {
                    assert!((a - b).abs() <= bound, "{dtype:?}: {a} became {b}");
                }
            }
        }
    }

    /// candle's port of ggml is the second opinion.
    #[cfg(feature = "llm-cpu")]
    #[test]
    fn agrees_with_candle_bit_for_bit() {
        use candle_core::quantized::{GgmlDType, QTensor};
        use candle_core::{Device, Tensor};
        let values: Vec<f32> = (0..4096u32)
            .map(|i| (f64::from(i.wrapping_mul(2_654_435_761) >> 8) / f64::from(1 << 24) - 0.5) as f32)
            .collect();
        let tensor = Tensor::from_slice(&values, (64, 64), &Device::Cpu).unwrap();
        for (ours, theirs) in [(GgmlType::Q4_0, GgmlDType::Q4_0), (GgmlType::Q8_0, GgmlDType::Q8_0)] {
            let q = QTensor::quantize(&tensor, theirs).unwrap();
            let bytes = q.data().unwrap();
            assert_eq!(quantize(ours, &values).unwrap(), bytes.as_ref(), "{ours:?} codes");
            let mut out = vec![0.0; values.len()];
            assert!(dequantize(ours, &bytes, &mut out));
            let expect = q.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(out.iter().zip(&expect).all(|(a, b)| a.to_bits() == b.to_bits()), "{ours:?} values");
        }
    }
}
