//! ggml's block formats with scales that are searched for: the same bytes as llama.cpp's encoders give, less squared error.
//!
//! The paper's minimisation over (a, b) inside the formats that users have. Codes given, scale and minimum are a
//! least-squares line; those given (rounded to half precision first, as the file holds them), the nearest code is best.
//! Each block starts from several ranges, the plain encoder's among them, so no block is worse than plain.
//!
//! | file | holds |
//! | --- | --- |
//! | `minima.rs` | super-blocks with scales and minima: Q4_K, Q2_K |
//! | `signed.rs` | super-blocks with signed scales: Q3_K |
//!
//! Deliberately absent: the types of 5 (but for `Q5_0`, where rows are too short for a K type) and 6 bits, IQ types but for
//! `IQ4_NL` (which stands in for the K types of 2 and 3 bits), and Q1_0, which is for models that were trained in it.

mod minima;
mod signed;

use engine::gguf::GgmlType;
use engine::quant::{self, IQ4_LEVELS};
use half::f16;
use rayon::prelude::*;

use super::error::EcldError;

/// Elements of a block that is no super-block, and of a sub-block of one.
const BLOCK: usize = 32;
/// Elements of a super-block.
const SUPER: usize = 256;
/// Rounds of one alternation.
const ROUNDS: usize = 12;
/// What either end of the range is shrunk to at the start.
const SHRUNK: [f64; 4] = [1.0, 0.9, 0.8, 0.7];

/// How scales are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// As ggml's reference encoders do: from the ends of the range.
    Plain,
    /// Of least squared error.
    Searched,
}

/// Whether there is an encoder for this type here.
pub fn can_write(dtype: GgmlType) -> bool {
    WRITTEN.contains(&dtype)
}

/// The types that there is an encoder for.
pub const WRITTEN: [GgmlType; 11] = {
    use GgmlType::{Bf16, F16, F32, Iq4Nl, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q8_0};
    [F32, F16, Bf16, Q8_0, Q5_0, Q4_0, Q4_1, Q4K, Iq4Nl, Q3K, Q2K]
};

/// `values`, whole rows, as `dtype`.
///
/// # Errors
/// They are not whole blocks, the type is not written here, a value is no number, or half precision cannot hold a scale.
pub fn encode(dtype: GgmlType, values: &[f32], fit: Fit) -> Result<Vec<u8>, EcldError> {
    let bytes = dtype.row_bytes(values.len()).filter(|_| can_write(dtype));
    let bytes = bytes
        .ok_or_else(|| EcldError::input(format!("{} values cannot be written as {}", values.len(), dtype.name())))?;
    if let Some(place) = values.iter().position(|value| !value.is_finite()) {
        let value = values.get(place).copied().map_or(f64::NAN, f64::from);
        return Err(EcldError::NotFinite { what: "the tensor".into(), value, place });
    }
    if dtype.block_len() == 1 {
        let largest = values.iter().fold(0f32, |most, value| most.max(value.abs()));
        if dtype == GgmlType::F16 && f16::from_f32(largest).is_infinite() {
            return Err(EcldError::HalfRange { value: f64::from(largest) });
        }
        return quant::quantize(dtype, values).ok_or_else(|| EcldError::input("the values cannot be written"));
    }
    let mut out = vec![0; bytes];
    let blocks = out.par_chunks_exact_mut(dtype.block_bytes()).zip(values.par_chunks_exact(dtype.block_len()));
    blocks.try_for_each(|(out, values)| block(dtype, values, fit, out))?;
    Ok(out)
}

/// Sum of the squared errors of `bytes` as an encoding of `values`, and the sum of the values' squares.
pub fn squared_error(dtype: GgmlType, values: &[f32], bytes: &[u8]) -> (f64, f64) {
    let mut read = vec![0.0; values.len()];
    if !quant::dequantize(dtype, bytes, &mut read) {
        return (f64::INFINITY, 0.0);
    }
    values.iter().zip(&read).fold((0.0, 0.0), |(error, power), (value, read)| {
        let (value, read) = (f64::from(*value), f64::from(*read));
        (error + (value - read) * (value - read), power + value * value)
    })
}

fn block(dtype: GgmlType, values: &[f32], fit: Fit, out: &mut [u8]) -> Result<(), EcldError> {
    let wide: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
    match dtype {
        GgmlType::Q4_0 => scaled(&wide, Codes::Whole(-8.0, 7.0), fit, |d, codes| nibbles(out, &[d], codes, 8.0)),
        GgmlType::Iq4Nl => scaled(&wide, Codes::Levels, fit, |d, levels| {
            let places: Vec<f64> = levels.iter().map(|level| place_of(*level) as f64).collect();
            nibbles(out, &[d], &places, 0.0);
        }),
        GgmlType::Q5_0 => scaled(&wide, Codes::Whole(-16.0, 15.0), fit, |d, codes| {
            let (head, low) = out.split_at_mut(6);
            head[..2].copy_from_slice(&f16::from_f64(d).to_le_bytes());
            let mut high = 0u32;
            for (i, code) in codes.iter().enumerate() {
                let code = (code + 16.0) as u32;
                high |= (code >> 4) << i;
                low[i % 16] |= ((code & 15) as u8) << (i / 16 * 4);
            }
            head[2..].copy_from_slice(&high.to_le_bytes());
        }),
        GgmlType::Q8_0 => scaled(&wide, Codes::Whole(-127.0, 127.0), fit, |d, codes| {
            out[..2].copy_from_slice(&f16::from_f64(d).to_le_bytes());
            for (byte, code) in out[2..].iter_mut().zip(codes) {
                *byte = (*code as i8) as u8;
            }
        }),
        GgmlType::Q4_1 => {
            let line = offset_line(&wide, 15.0, fit, false)?;
            let codes: Vec<f64> = wide.iter().map(|w| line.code(*w)).collect();
            nibbles(out, &[line.delta, line.a], &codes, 0.0);
            Ok(())
        }
        GgmlType::Q2K => minima::two(&wide, fit, out),
        GgmlType::Q3K => signed::three(&wide, fit, out),
        _ => minima::four(&wide, fit, out),
    }
}

/// Scales in half precision, then 16 bytes: low nibbles the first half of the codes, high ones the second.
fn nibbles(out: &mut [u8], scales: &[f64], codes: &[f64], offset: f64) {
    let (head, low) = out.split_at_mut(2 * scales.len());
    for (place, scale) in head.as_chunks_mut::<2>().0.iter_mut().zip(scales) {
        *place = f16::from_f64(*scale).to_le_bytes();
    }
    let code = |i: usize| codes.get(i).map_or(0, |code| (code + offset) as u8);
    for (i, byte) in low.iter_mut().enumerate() {
        *byte = code(i) | (code(i + BLOCK / 2) << 4);
    }
}

fn half(value: f64) -> Result<f64, EcldError> {
    super::uniform::to_half(value)
}

fn nearest(value: f64, scale: f64, low: f64, high: f64) -> f64 {
    if scale == 0.0 { 0.0 } else { floor((value / scale + 0.5).clamp(low, high)) }
}

/// The greatest whole number that is not above `x`, which lies within an i32. Without SSE 4.1 the standard one is a call into
/// libm, and searches do little else.
fn floor(x: f64) -> f64 {
    let toward_zero = f64::from(x as i32);
    toward_zero - f64::from(u8::from(toward_zero > x))
}

/// What a code may stand for.
#[derive(Debug, Clone, Copy)]
enum Codes {
    /// Whole numbers from the first to the second.
    Whole(f64, f64),
    /// [`IQ4_LEVELS`].
    Levels,
}

impl Codes {
    /// The least and the largest.
    fn ends(self) -> (f64, f64) {
        match self {
            Self::Whole(low, high) => (low, high),
            Self::Levels => (f64::from(IQ4_LEVELS[0]), f64::from(IQ4_LEVELS[15])),
        }
    }

    /// The one that is nearest to a value in units of `scale`.
    fn nearest(self, value: f64, scale: f64) -> f64 {
        match self {
            Self::Whole(low, high) => nearest(value, scale, low, high),
            Self::Levels if scale == 0.0 => f64::from(IQ4_LEVELS[8]),
            Self::Levels => {
                let wanted = value / scale;
                f64::from(IQ4_LEVELS[BETWEEN.iter().map(|middle| usize::from(*middle < wanted)).sum::<usize>()])
            }
        }
    }
}

/// The middles between levels that follow each other.
const BETWEEN: [f64; 15] = {
    let (mut middles, mut at) = ([0.0; 15], 0);
    while at < middles.len() {
        middles[at] = (IQ4_LEVELS[at] as f64 + IQ4_LEVELS[at + 1] as f64) / 2.0;
        at += 1;
    }
    middles
};

/// The place of a level.
fn place_of(level: f64) -> usize {
    IQ4_LEVELS.iter().take_while(|known| f64::from(**known) < level).count()
}

/// A block of d·c with codes c.
fn scaled(w: &[f64], codes: Codes, fit: Fit, write: impl FnOnce(f64, &[f64])) -> Result<(), EcldError> {
    let (low, high) = codes.ends();
    // The value of largest magnitude, with its sign, takes the code of largest magnitude.
    let extreme = w.iter().fold(0f64, |most, v| if v.abs() > most.abs() { *v } else { most });
    let plain = half(if low < -high { extreme / low } else { extreme.abs() / high })?;
    let sse = |d: f64| w.iter().map(|v| (v - d * codes.nearest(*v, d)).powi(2)).sum::<f64>();
    let mut best = (sse(plain), plain);
    if fit == Fit::Searched && extreme != 0.0 {
        // More codes have less to gain.
        let steps = match codes {
            Codes::Whole(_, high) if high > 64.0 => 2,
            Codes::Whole(..) => 12,
            Codes::Levels => 6,
        };
        for sign in [1.0, -1.0] {
            for step in 0..steps {
                let mut d = sign * extreme / low * (1.06 - 0.03 * f64::from(step));
                for _ in 0..ROUNDS {
                    let (mut products, mut squares) = (0.0, 0.0);
                    for v in w {
                        let code = codes.nearest(*v, d);
                        products += v * code;
                        squares += code * code;
                    }
                    let next = if squares > 0.0 { products / squares } else { 0.0 };
                    if next == d || next == 0.0 {
                        break;
                    }
                    d = next;
                }
                let d = half(d)?;
                let error = sse(d);
                if error < best.0 {
                    best = (error, d);
                }
            }
        }
    }
    let codes: Vec<f64> = w.iter().map(|v| codes.nearest(*v, best.1)).collect();
    write(best.1, &codes);
    Ok(())
}

/// a + Δ·c with codes c from 0 to `top`.
#[derive(Debug, Clone, Copy)]
struct Line {
    a: f64,
    delta: f64,
    top: f64,
}

impl Line {
    fn code(&self, w: f64) -> f64 {
        nearest(w - self.a, self.delta, 0.0, self.top)
    }

    fn sse(&self, w: &[f64]) -> f64 {
        w.iter().map(|v| (v - self.a - self.delta * self.code(*v)).powi(2)).sum()
    }

    fn rounded(self) -> Result<Self, EcldError> {
        Ok(Self { a: half(self.a)?, delta: half(self.delta)?, ..self })
    }

    /// Both halves of the minimisation in turn. With `below`, a stays at most 0: a K type's minimum is subtracted.
    fn alternated(mut self, w: &[f64], below: bool) -> Self {
        let n = w.len() as f64;
        let mut last = [-1.0; BLOCK];
        for _ in 0..ROUNDS {
            let mut codes = [0.0; BLOCK];
            let (mut sum, mut squares, mut of_w, mut products) = (0.0, 0.0, 0.0, 0.0);
            for (code, v) in codes.iter_mut().zip(w) {
                *code = self.code(*v);
                sum += *code;
                squares += *code * *code;
                of_w += v;
                products += *code * v;
            }
            if codes == last {
                break;
            }
            last = codes;
            let spread = squares - sum * sum / n;
            if spread <= 0.0 {
                break;
            }
            let delta = (products - sum * of_w / n) / spread;
            let a = (of_w - delta * sum) / n;
            let (a, delta) = if below && a > 0.0 { (0.0, products / squares) } else { (a, delta) };
            if delta <= 0.0 {
                break;
            }
            self = Self { a, delta, ..self };
        }
        self
    }
}

fn offset_line(w: &[f64], top: f64, fit: Fit, below: bool) -> Result<Line, EcldError> {
    let (low, high) = w.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)));
    let low = if below { low.min(0.0) } else { low };
    let line = |a: f64, b: f64| Line { a, delta: (b - a) / top, top };
    let mut best = line(low, high.max(low)).rounded()?;
    if fit == Fit::Plain || best.delta == 0.0 {
        return Ok(best);
    }
    let mut least = best.sse(w);
    for left in SHRUNK {
        for right in SHRUNK {
            let (a, b) = (low * left, high * right);
            if b <= a {
                continue;
            }
            let found = line(a, b).alternated(w, below).rounded()?;
            let error = found.sse(w);
            if error < least {
                (best, least) = (found, error);
            }
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_are_the_standard_ones() {
        for step in -4000..4000 {
            for off in [-1e-13, 0.0, 1e-17, 0.3] {
                let x = f64::from(step) / 16.0 + off;
                assert_eq!(floor(x), x.floor(), "{x}");
            }
        }
    }
    use rand::{RngExt, SeedableRng};
    use rand_xoshiro::Xoshiro256PlusPlus;

    const TYPES: [GgmlType; 8] = [
        GgmlType::Q4_0,
        GgmlType::Q4_1,
        GgmlType::Q5_0,
        GgmlType::Q8_0,
        GgmlType::Q4K,
        GgmlType::Q3K,
        GgmlType::Q2K,
        GgmlType::Iq4Nl,
    ];

    /// Weights as different matrices have them: even, heavy in the middle, with outliers, all of one sign, nothing.
    fn weights(kind: usize, n: usize, seed: u64) -> Vec<f32> {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        (0..n)
            .map(|i| {
                let mut even = || rng.random_range(-1.0f32..1.0);
                let heavy = even() + even() + even() + even();
                match kind {
                    0 => even(),
                    1 => heavy * 0.02,
                    2 if i % 97 == 5 => heavy,
                    2 => heavy * 0.03,
                    3 => 0.1 + 0.01 * heavy,
                    _ => 0.0,
                }
            })
            .collect()
    }

    #[test]
    fn the_search_never_loses_to_the_plain_writer() {
        for dtype in TYPES {
            let (mut sums, blocks) = ([0.0; 2], 12);
            for kind in 0..5 {
                let w = weights(kind, SUPER * blocks, 7 + kind as u64);
                for block in w.chunks(dtype.block_len()) {
                    let error = |fit| squared_error(dtype, block, &encode(dtype, block, fit).unwrap()).0;
                    let (plain, searched) = (error(Fit::Plain), error(Fit::Searched));
                    assert!(searched <= plain * (1.0 + 1e-5) + 1e-12, "{dtype:?} {kind}: {searched} after {plain}");
                    if kind == 1 {
                        sums[0] += plain;
                        sums[1] += searched;
                    }
                }
            }
            let gain = 1.0 - sums[1] / sums[0];
            // 16 levels that are closer together where weights are many leave less to find.
            let least = match dtype {
                GgmlType::Q8_0 => 0.0,
                GgmlType::Iq4Nl => 0.02,
                _ => 0.04,
            };
            assert!(gain >= least, "{dtype:?} gains {gain}");
        }
    }

    /// What is written is read as what was meant: fewer bits are further off, none further than they have to be.
    #[test]
    fn fewer_bits_are_further_off() {
        let w = weights(1, SUPER * 40, 3);
        let nmse = |dtype| {
            let (error, power) = squared_error(dtype, &w, &encode(dtype, &w, Fit::Searched).unwrap());
            error / power
        };
        // Of weights whose distribution is near a normal one.
        for (dtype, least, most) in [
            (GgmlType::Q2K, 0.04, 0.11),
            (GgmlType::Q3K, 0.012, 0.04),
            (GgmlType::Q4K, 0.003, 0.008),
            (GgmlType::Iq4Nl, 0.003, 0.008),
        ] {
            let found = nmse(dtype);
            assert!((least..most).contains(&found), "{dtype:?}: {found}");
        }
    }

    /// ggml's own encoders, where the engine has them: the search is no worse than those either.
    #[test]
    fn the_search_never_loses_to_the_engines_writer() {
        for dtype in [GgmlType::Q4_0, GgmlType::Q8_0] {
            for kind in 0..5 {
                let w = weights(kind, SUPER * 8, 70 + kind as u64);
                let theirs = squared_error(dtype, &w, &quant::quantize(dtype, &w).unwrap()).0;
                let ours = squared_error(dtype, &w, &encode(dtype, &w, Fit::Searched).unwrap()).0;
                assert!(ours <= theirs * (1.0 + 1e-5) + 1e-12, "{dtype:?} {kind}: {ours} {theirs}");
            }
        }
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        for dtype in TYPES {
            let n = dtype.block_len();
            assert!(encode(dtype, &vec![0.0; n - 1], Fit::Searched).is_err(), "{dtype:?}");
            for bad in [f32::NAN, f32::INFINITY, 1e30] {
                let mut w = vec![0.5; n];
                w[3] = bad;
                assert!(encode(dtype, &w, Fit::Searched).is_err(), "{dtype:?} {bad}");
            }
        }
        assert!(encode(GgmlType::F16, &[1e6], Fit::Plain).is_err());
        assert!(encode(GgmlType::Q6K, &[0.0; SUPER], Fit::Plain).is_err());
        assert_eq!(encode(GgmlType::F32, &[1.5], Fit::Plain).unwrap(), 1.5f32.to_le_bytes());
    }
}
