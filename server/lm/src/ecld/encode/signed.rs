//! Super-blocks of d·s·c with signed scales and codes: Q3_K.

use half::f16;

use super::{BLOCK, Codes, EcldError, Fit, half, nearest, scaled};

/// Codes that share a scale.
const WIDTH: usize = 16;
/// What a code may be.
const CODES: Codes = Codes::Whole(-4.0, 3.0);
/// What a scale may be, in units of d.
const SCALES: [f64; 2] = [-32.0, 31.0];

/// Scales of a super-block's sub-blocks as the file holds them.
#[derive(Debug, Clone, Copy)]
struct Signed {
    d: f64,
    of: [f64; 16],
}

impl Signed {
    fn code(&self, sub: usize, v: f64) -> f64 {
        CODES.nearest(v, self.d * self.of[sub])
    }

    fn sub_sse(&self, sub: usize, w: &[f64]) -> f64 {
        w.iter().map(|v| (v - self.d * self.of[sub] * self.code(sub, *v)).powi(2)).sum()
    }

    fn sse(&self, w: &[f64]) -> f64 {
        w.chunks(WIDTH).enumerate().map(|(sub, w)| self.sub_sse(sub, w)).sum()
    }

    /// From wished-for scales: the one of largest magnitude takes −32, which has no positive twin.
    fn of(wished: [f64; 16]) -> Result<Self, EcldError> {
        let extreme = wished.iter().fold(0f64, |most, s| if s.abs() > most.abs() { *s } else { most });
        let d = half(extreme / SCALES[0])?;
        Ok(Self { d, of: wished.map(|wished| nearest(wished, d, SCALES[0], SCALES[1])) })
    }

    /// Whole numbers one off, where that is better.
    fn nudged(mut self, w: &[f64]) -> Self {
        for (sub, w) in w.chunks(WIDTH).enumerate() {
            let scale = self.of[sub];
            let mut best = (self.sub_sse(sub, w), scale);
            for by in [-1.0, 1.0] {
                self.of[sub] = (scale + by).clamp(SCALES[0], SCALES[1]);
                let error = self.sub_sse(sub, w);
                if error < best.0 {
                    best = (error, self.of[sub]);
                }
            }
            self.of[sub] = best.1;
        }
        self
    }

    /// d of least squared error for the codes and scales that there are.
    fn refitted(self, w: &[f64]) -> Result<Self, EcldError> {
        let (mut products, mut squares) = (0.0, 0.0);
        for (sub, w) in w.chunks(WIDTH).enumerate() {
            for v in w {
                let x = self.of[sub] * self.code(sub, *v);
                products += x * v;
                squares += x * x;
            }
        }
        Ok(if squares > 0.0 { Self { d: half(products / squares)?, ..self } } else { self })
    }
}

/// Q3_K: sixteen signed scales of six bits.
pub(super) fn three(w: &[f64], fit: Fit, out: &mut [u8]) -> Result<(), EcldError> {
    let scales_of = |fit: Fit| -> Result<Signed, EcldError> {
        let mut wished = [0.0; 16];
        for (wished, w) in wished.iter_mut().zip(w.chunks(WIDTH)) {
            scaled(w, CODES, fit, |d, _| *wished = d)?;
        }
        Signed::of(wished)
    };
    let mut best = scales_of(Fit::Plain)?;
    if fit == Fit::Searched {
        let mut least = best.sse(w);
        for start in [best, scales_of(Fit::Searched)?] {
            let mut tried = start;
            for _ in 0..5 {
                tried = tried.nudged(w);
                let error = tried.sse(w);
                if error < least {
                    (best, least) = (tried, error);
                }
                tried = tried.refitted(w)?;
            }
        }
    }
    for (i, v) in w.iter().enumerate() {
        // 128 elements to 32 bytes, 32 of them to each pair of bits; the third bits of 32 to a bit of 32 bytes.
        let (byte, pair) = (i / 128 * BLOCK + i % BLOCK, i % 128 / BLOCK);
        let code = (best.code(i / WIDTH, *v) + 4.0) as u8;
        out[i % BLOCK] |= (code >> 2) << (i / BLOCK);
        out[32 + byte] |= (code & 3) << (2 * pair);
    }
    for (i, scale) in best.of.iter().enumerate() {
        let scale = (scale + 32.0) as u8;
        out[96 + i % 8] |= (scale & 15) << (i / 8 * 4);
        out[104 + i % 4] |= (scale >> 4) << (i / 4 * 2);
    }
    out[108..].copy_from_slice(&f16::from_f64(best.d).to_le_bytes());
    Ok(())
}
