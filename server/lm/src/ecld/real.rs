//! The two precisions that models are computed in: single for real ones, double for comparing with a reference.

use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// A number that activations and weights are made of.
pub trait Real:
    Copy
    + Default
    + Send
    + Sync
    + std::fmt::Debug
    + PartialOrd
    + Add<Output = Self>
    + AddAssign
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + 'static
{
    /// The nearest one.
    fn of(value: f64) -> Self;
    /// Its value.
    fn wide(self) -> f64;
    /// e to the power of it.
    fn exp(self) -> Self;
}

impl Real for f64 {
    fn of(value: f64) -> Self {
        value
    }

    fn wide(self) -> f64 {
        self
    }

    fn exp(self) -> Self {
        Self::exp(self)
    }
}

/// 1.5 · 2²³: a single that is added to it is rounded to a whole number, which stands in its lowest bits.
const ROUNDS: f32 = 12_582_912.0;

impl Real for f32 {
    fn of(value: f64) -> Self {
        value as Self
    }

    fn wide(self) -> f64 {
        f64::from(self)
    }

    /// In straight lines without branches, so that a loop over many is computed side by side; within 2e-7 of the value.
    fn exp(self) -> Self {
        // ln 2 in two parts, the first of which multiplies whole numbers without an error.
        const HIGH: f32 = 0.693_359_4;
        const LOW: f32 = -2.121_944_4e-4;
        let x = self.clamp(-87.3, 88.3);
        let whole = x * std::f32::consts::LOG2_E + ROUNDS;
        let n = whole - ROUNDS;
        let r = x - n * HIGH - n * LOW;
        // Taylor's, with the last two terms fitted to |r| <= ln 2 / 2.
        let tail =
            ((((1.987_569_1e-4 * r + 1.398_2e-3) * r + 8.333_452e-3) * r + 4.166_579_6e-2) * r + 1.666_666_5e-1) * r;
        let power = (tail + 0.5) * r * r + r + 1.0;
        power * Self::from_bits((whole.to_bits() << 23).wrapping_add(127 << 23))
    }
}

/// Partial sums that a loop keeps apart: what lets the compiler compute them side by side.
const LANES: usize = 16;

/// Σ f(x).
pub fn sum<R: Real>(values: &[R], f: impl Fn(R) -> R) -> R {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut sums = [R::default(); LANES];
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += f(*value);
        }
    }
    let rest = rest.iter().fold(R::default(), |all, value| all + f(*value));
    sums.iter().fold(rest, |all, sum| all + *sum)
}

/// The greatest of them; minus infinity of none.
pub fn greatest<R: Real>(values: &[R]) -> R {
    let most = |a: R, b: R| if b > a { b } else { a };
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut tops = [R::of(f64::NEG_INFINITY); LANES];
    for chunk in chunks {
        for (top, value) in tops.iter_mut().zip(chunk) {
            *top = most(*top, *value);
        }
    }
    tops.iter().chain(rest).fold(R::of(f64::NEG_INFINITY), |all, value| most(all, *value))
}

/// tanh, by e to a power.
pub fn tanh<R: Real>(x: R) -> R {
    let one = R::of(1.0);
    one - R::of(2.0) / ((x + x).exp() + one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_e_in_single_precision() {
        for i in -8700..8800 {
            let x = i as f32 * 0.01;
            let (found, want) = (Real::exp(x), f64::from(x).exp());
            assert!((f64::from(found) / want - 1.0).abs() < 3e-7, "{x}: {found} {want}");
        }
        assert!(Real::exp(f32::NAN).is_nan());
        assert!(Real::exp(f32::NEG_INFINITY) < 1e-37 && Real::exp(-1e9f32) < 1e-37);
        assert!((tanh(0.5f64) - 0.5f64.tanh()).abs() < 1e-15 && (tanh(-40f32) + 1.0).abs() < 1e-6);
    }

    #[test]
    fn sums_and_tops_of_any_length() {
        for n in [0, 1, 15, 16, 17, 40] {
            let values: Vec<f64> = (0..n).map(|i| f64::from((i * 7) % 11) - 5.0).collect();
            assert_eq!(sum(&values, |v| v * v), values.iter().map(|v| v * v).sum::<f64>(), "{n}");
            assert_eq!(greatest(&values), values.iter().copied().fold(f64::NEG_INFINITY, f64::max), "{n}");
        }
    }
}
