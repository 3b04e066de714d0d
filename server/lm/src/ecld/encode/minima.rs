//! Super-blocks of d·s·c − dmin·m: Q4_K, and Q2_K with half as many codes to a scale.

use half::f16;

use super::{BLOCK, EcldError, Fit, Line, SUPER, half, nearest, offset_line};

/// What the two types differ in.
#[derive(Debug, Clone, Copy)]
struct Kind {
    /// Codes that share a scale.
    width: usize,
    /// Largest code.
    top: f64,
    /// Largest scale and minimum, in units of d and dmin.
    top_scale: f64,
}

/// Scales and minima of a super-block's sub-blocks as the file holds them.
#[derive(Debug, Clone, Copy)]
struct Scales<const SUBS: usize> {
    kind: Kind,
    d: f64,
    least: f64,
    of: [(f64, f64); SUBS],
}

impl<const SUBS: usize> Scales<SUBS> {
    fn line(&self, sub: usize) -> Line {
        let (scale, minimum) = self.of[sub];
        Line { a: -self.least * minimum, delta: self.d * scale, top: self.kind.top }
    }

    fn sse(&self, w: &[f64]) -> f64 {
        w.chunks(self.kind.width).enumerate().map(|(sub, w)| self.line(sub).sse(w)).sum()
    }

    /// From wished-for lines: the largest of each takes the largest scale.
    fn of(kind: Kind, lines: &[Line; SUBS]) -> Result<Self, EcldError> {
        let most = |get: fn(&Line) -> f64| lines.iter().map(get).fold(0.0, f64::max);
        let (d, least) = (half(most(|l| l.delta) / kind.top_scale)?, half(most(|l| -l.a) / kind.top_scale)?);
        let mut of = [(0.0, 0.0); SUBS];
        for (place, line) in of.iter_mut().zip(lines) {
            *place = (nearest(line.delta, d, 0.0, kind.top_scale), nearest(-line.a, least, 0.0, kind.top_scale));
        }
        Ok(Self { kind, d, least, of })
    }

    /// Whole numbers one off, where that is better.
    fn nudged(mut self, w: &[f64]) -> Self {
        let top = self.kind.top_scale;
        for (sub, w) in w.chunks(self.kind.width).enumerate() {
            let (scale, minimum) = self.of[sub];
            let mut best = (self.line(sub).sse(w), (scale, minimum));
            for by in [-1.0, 0.0, 1.0] {
                for less in [-1.0, 0.0, 1.0] {
                    let tried = ((scale + by).clamp(0.0, top), (minimum + less).clamp(0.0, top));
                    self.of[sub] = tried;
                    let error = self.line(sub).sse(w);
                    if error < best.0 {
                        best = (error, tried);
                    }
                }
            }
            self.of[sub] = best.1;
        }
        self
    }

    /// d and dmin of least squared error for the codes and whole numbers that there are.
    fn refitted(self, w: &[f64]) -> Result<Self, EcldError> {
        let (mut xx, mut xy, mut yy, mut xw, mut yw) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (sub, w) in w.chunks(self.kind.width).enumerate() {
            let (line, (scale, minimum)) = (self.line(sub), self.of[sub]);
            for v in w {
                let (x, y) = (scale * line.code(*v), -minimum);
                xx += x * x;
                xy += x * y;
                yy += y * y;
                xw += x * v;
                yw += y * v;
            }
        }
        let determinant = xx * yy - xy * xy;
        if determinant <= 1e-9 * xx * yy {
            let d = if xx > 0.0 { (xw - self.least * xy) / xx } else { self.d };
            return Ok(Self { d: half(d.max(0.0))?, ..self });
        }
        let (d, least) = ((xw * yy - yw * xy) / determinant, (yw * xx - xw * xy) / determinant);
        if d <= 0.0 || least < 0.0 {
            return Ok(self);
        }
        Ok(Self { d: half(d)?, least: half(least)?, ..self })
    }

    /// The best that is found for these weights.
    fn found(kind: Kind, w: &[f64], fit: Fit) -> Result<Self, EcldError> {
        let scales_of = |fit: Fit| -> Result<Self, EcldError> {
            let mut lines = [Line { a: 0.0, delta: 0.0, top: kind.top }; SUBS];
            for (line, w) in lines.iter_mut().zip(w.chunks(kind.width)) {
                *line = offset_line(w, kind.top, fit, true)?;
            }
            Self::of(kind, &lines)
        };
        let mut best = scales_of(Fit::Plain)?;
        if fit == Fit::Searched {
            let mut least = best.sse(w);
            for start in [best, scales_of(Fit::Searched)?] {
                let mut tried = start.nudged(w);
                for _ in 0..4 {
                    let error = tried.sse(w);
                    if error < least {
                        (best, least) = (tried, error);
                    }
                    tried = tried.refitted(w)?.nudged(w);
                }
                let error = tried.sse(w);
                if error < least {
                    (best, least) = (tried, error);
                }
            }
        }
        Ok(best)
    }

    /// d and dmin, in half precision.
    fn units(&self) -> [[u8; 2]; 2] {
        [self.d, self.least].map(|unit| f16::from_f64(unit).to_le_bytes())
    }
}

/// Q4_K: eight scales and minima of six bits.
pub(super) fn four(w: &[f64], fit: Fit, out: &mut [u8]) -> Result<(), EcldError> {
    let best = Scales::<8>::found(Kind { width: BLOCK, top: 15.0, top_scale: 63.0 }, w, fit)?;
    out[..4].copy_from_slice(best.units().as_flattened());
    let packed = &mut out[4..16];
    for (j, (scale, minimum)) in best.of.into_iter().enumerate() {
        let (scale, minimum) = (scale as u8, minimum as u8);
        if j < 4 {
            packed[j] |= scale;
            packed[j + 4] |= minimum;
        } else {
            packed[j + 4] |= (scale & 15) | ((minimum & 15) << 4);
            packed[j - 4] |= (scale >> 4) << 6;
            packed[j] |= (minimum >> 4) << 6;
        }
    }
    let codes = &mut out[16..SUPER / 2 + 16];
    for (sub, w) in w.chunks(BLOCK).enumerate() {
        let line = best.line(sub);
        for (i, v) in w.iter().enumerate() {
            codes[sub / 2 * BLOCK + i] |= (line.code(*v) as u8) << (sub % 2 * 4);
        }
    }
    Ok(())
}

/// Q2_K: sixteen scales and minima of four bits.
pub(super) fn two(w: &[f64], fit: Fit, out: &mut [u8]) -> Result<(), EcldError> {
    let best = Scales::<16>::found(Kind { width: BLOCK / 2, top: 3.0, top_scale: 15.0 }, w, fit)?;
    for (byte, (scale, minimum)) in out.iter_mut().zip(best.of) {
        *byte = scale as u8 | ((minimum as u8) << 4);
    }
    for (i, v) in w.iter().enumerate() {
        // 128 elements to 32 bytes, 32 of them to each pair of bits.
        let (byte, pair) = (i / 128 * BLOCK + i % BLOCK, i % 128 / BLOCK);
        out[16 + byte] |= (best.line(i / (BLOCK / 2)).code(*v) as u8) << (2 * pair);
    }
    out[80..].copy_from_slice(best.units().as_flattened());
    Ok(())
}
