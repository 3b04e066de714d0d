//! Blocks of the file as runs of 32 codes.

use half::f16;

use super::{BLOCK, GgmlType};

/// 32 codes with their scales and minima. In Q2_K, Q3_K and Q6_K the two halves of 16 have some of their own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScaledRun {
    /// 0 and 2 (Q1_0), 0 to 3 (Q2_K), 0 to 7 (Q3_K), 0 to 15 (Q4, IQ4), 0 to 31 (Q5), 0 to 63 (Q6_K), −128 to 127 (Q8_0);
    /// [`GgmlType::offset`] is not yet taken from them, and [`GgmlType::levels`] not yet put in their place.
    pub codes: [i8; BLOCK],
    /// What scales and what minima are multiples of.
    pub units: [f32; 2],
    /// The scales of the first and the second 16 codes, in units.
    pub scales: [i8; 2],
    /// What is subtracted from every value of the first and the second 16, in units.
    pub minima: [u8; 2],
}

impl ScaledRun {
    /// A run whose units are its scale and its minimum.
    fn plain(codes: [i8; BLOCK], scale: f32, minimum: f32) -> Self {
        Self { codes, units: [scale, minimum], scales: [1; 2], minima: [1; 2] }
    }

    /// The scale of a half.
    pub fn scale(&self, half: usize) -> f32 {
        self.units[0] * f32::from(self.scales[half])
    }

    /// What is subtracted from every value of a half.
    pub fn minimum(&self, half: usize) -> f32 {
        self.units[1] * f32::from(self.minima[half])
    }
}

/// The 6-bit scale and minimum of sub-block `j` of Q4_K and Q5_K, from their twelve packed bytes.
pub(crate) fn scale_and_minimum(packed: &[u8; 12], j: usize) -> (u8, u8) {
    if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        let (low, high) = (packed[j + 4], (packed[j - 4] >> 6, packed[j] >> 6));
        ((low & 15) | (high.0 << 4), (low >> 4) | (high.1 << 4))
    }
}

/// The signed 6-bit scale number `i` of a block of Q3_K (one to 16 codes) or of IQ4_XS (one to 32).
pub(crate) fn six_bit_scale(format: GgmlType, block: &[u8], i: usize) -> i8 {
    let byte = |at: usize| block.get(at).copied().unwrap_or(0);
    let (low, high) = if format == GgmlType::Q3K {
        (byte(96 + i % 8) >> (4 * (i / 8)), byte(104 + i % 4) >> (2 * (i / 4)))
    } else {
        (byte(4 + i / 2) >> (4 * (i % 2)), byte(2 + i / 4) >> (2 * (i % 4)))
    };
    ((low & 15) | ((high & 3) << 4)) as i8 - 32
}

fn half_at(bytes: &[u8], at: usize) -> f32 {
    match bytes.get(at..at + 2) {
        Some(&[a, b]) => f16::from_le_bytes([a, b]).to_f32(),
        _ => 0.0,
    }
}

/// Hands every run of 32 codes of a quantised block to `take`, in order. `block` has the format's size; unquantised
/// formats have no runs. Only Q8_0 has signed codes: the others' are six-bit at most, which multiply faster, with
/// [`GgmlType::offset`] left to whoever multiplies.
pub fn runs(format: GgmlType, block: &[u8], mut take: impl FnMut(ScaledRun)) {
    let mut codes = [0i8; BLOCK];
    let nibbles = |codes: &mut [i8; BLOCK], bytes: &[u8]| {
        for (i, byte) in bytes.iter().take(16).enumerate() {
            codes[i] = (byte & 15) as i8;
            codes[i + 16] = (byte >> 4) as i8;
        }
    };
    let fifth = |block: &[u8], at: usize| match block.get(at..at + 4) {
        Some(&[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]),
        _ => 0,
    };
    let tail = |at: usize| block.get(at..).unwrap_or_default();
    match format {
        GgmlType::F32 | GgmlType::F16 | GgmlType::Bf16 => {}
        GgmlType::Q1_0 => {
            for word in tail(2).as_chunks::<4>().0 {
                let word = u32::from_le_bytes(*word);
                for (i, code) in codes.iter_mut().enumerate() {
                    *code = ((word >> i & 1) << 1) as i8;
                }
                take(ScaledRun::plain(codes, half_at(block, 0), 0.0));
            }
        }
        GgmlType::Q4_0 | GgmlType::Q4_1 | GgmlType::Iq4Nl => {
            let with_minimum = format == GgmlType::Q4_1;
            nibbles(&mut codes, tail(if with_minimum { 4 } else { 2 }));
            let minimum = if with_minimum { -half_at(block, 2) } else { 0.0 };
            take(ScaledRun::plain(codes, half_at(block, 0), minimum));
        }
        GgmlType::Q5_0 | GgmlType::Q5_1 => {
            let with_minimum = format == GgmlType::Q5_1;
            let start = if with_minimum { 4 } else { 2 };
            nibbles(&mut codes, tail(start + 4));
            let high = fifth(block, start);
            for (i, code) in codes.iter_mut().enumerate() {
                *code |= ((high >> i & 1) << 4) as i8;
            }
            let minimum = if with_minimum { -half_at(block, 2) } else { 0.0 };
            take(ScaledRun::plain(codes, half_at(block, 0), minimum));
        }
        GgmlType::Q8_0 => {
            for (code, byte) in codes.iter_mut().zip(tail(2)) {
                *code = *byte as i8;
            }
            take(ScaledRun::plain(codes, half_at(block, 0), 0.0));
        }
        GgmlType::Q2K => {
            let units = [half_at(block, 80), half_at(block, 82)];
            for (j, both) in tail(0).as_chunks::<2>().0.iter().take(8).enumerate() {
                for (code, byte) in codes.iter_mut().zip(tail(16 + j / 4 * 32)) {
                    *code = (byte >> (2 * (j % 4)) & 3) as i8;
                }
                let (scales, minima) = (both.map(|both| (both & 15) as i8), both.map(|both| both >> 4));
                take(ScaledRun { codes, units, scales, minima });
            }
        }
        GgmlType::Q3K => {
            let units = [half_at(block, 108), 0.0];
            for j in 0..8 {
                for ((code, low), high) in codes.iter_mut().zip(tail(32 + j / 4 * 32)).zip(tail(0)) {
                    *code = ((low >> (2 * (j % 4)) & 3) | ((high >> j & 1) << 2)) as i8;
                }
                let scales = [0, 1].map(|part| six_bit_scale(format, block, 2 * j + part));
                take(ScaledRun { codes, units, scales, minima: [0; 2] });
            }
        }
        GgmlType::Q4K | GgmlType::Q5K => {
            let (d, least) = (half_at(block, 0), half_at(block, 2));
            let Some(packed) = block.get(4..16).and_then(|bytes| <&[u8; 12]>::try_from(bytes).ok()) else { return };
            let (high, low) = if format == GgmlType::Q5K { (tail(16), tail(48)) } else { (tail(0), tail(16)) };
            for j in 0..8 {
                let (scale, minimum) = scale_and_minimum(packed, j);
                for (i, code) in codes.iter_mut().enumerate() {
                    let byte = low.get(j / 2 * 32 + i).copied().unwrap_or(0);
                    *code = (if j % 2 == 0 { byte & 15 } else { byte >> 4 }) as i8;
                    if format == GgmlType::Q5K {
                        *code |= ((high.get(i).copied().unwrap_or(0) >> j & 1) << 4) as i8;
                    }
                }
                take(ScaledRun { codes, units: [d, least], scales: [scale as i8; 2], minima: [minimum; 2] });
            }
        }
        GgmlType::Q6K => {
            let d = half_at(block, 208);
            let byte = |at: usize| block.get(at).copied().unwrap_or(0);
            for j in 0..8 {
                // 128 elements to a half; its four runs take the low or the high nibbles of two stretches of 32 bytes.
                let (half, quarter) = (j / 4, j % 4);
                for (i, code) in codes.iter_mut().enumerate() {
                    let low = byte(half * 64 + quarter % 2 * 32 + i);
                    let low = if quarter < 2 { low & 15 } else { low >> 4 };
                    let high = byte(128 + half * 32 + i) >> (2 * quarter) & 3;
                    *code = (low | (high << 4)) as i8;
                }
                let scales = [0, 1].map(|part| byte(192 + 2 * j + part) as i8);
                take(ScaledRun { codes, units: [d, 0.0], scales, minima: [0; 2] });
            }
        }
        GgmlType::Iq4Xs => {
            let units = [half_at(block, 0), 0.0];
            for j in 0..8 {
                nibbles(&mut codes, tail(8 + 16 * j));
                take(ScaledRun { codes, units, scales: [six_bit_scale(format, block, j); 2], minima: [0; 2] });
            }
        }
    }
}
