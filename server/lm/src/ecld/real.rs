//! The two precisions that models are computed in: single for real ones, double for comparing with a reference.

use rayon::prelude::*;

/// A number that activations and weights are made of.
pub trait Real: Copy + Default + Send + Sync + std::fmt::Debug + 'static {
    /// The nearest one.
    fn of(value: f64) -> Self;
    /// Its value.
    fn wide(self) -> f64;
    /// Σ a·b over the shorter of both.
    fn dot(a: &[Self], b: &[Self]) -> Self;
}

/// Partial sums that a loop keeps apart: what lets the compiler compute them side by side.
const LANES: usize = 16;

macro_rules! real {
    ($kind:ty) => {
        impl Real for $kind {
            fn of(value: f64) -> Self {
                value as Self
            }

            fn wide(self) -> f64 {
                f64::from(self)
            }

            fn dot(a: &[Self], b: &[Self]) -> Self {
                let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
                let mut sums: [Self; LANES] = [0.0; LANES];
                for (a, b) in a.iter().zip(b) {
                    for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
                        *sum += a * b;
                    }
                }
                let rest: Self = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
                sums.iter().sum::<Self>() + rest
            }
        }
    };
}

real!(f32);
real!(f64);

/// x·Wᵀ: `x` `[n, cols]`, `weights` `[rows, cols]`, the result `[n, rows]`.
pub fn project<R: Real>(weights: &[R], x: &[R], cols: usize) -> Vec<R> {
    let cols = cols.max(1);
    let (rows, n) = (weights.len() / cols, x.len() / cols);
    // [rows, n]: a row of weights is read once for all tokens.
    let mut turned = vec![R::default(); rows * n];
    turned.par_chunks_mut(n.max(1)).zip(weights.par_chunks_exact(cols)).for_each(|(out, row)| {
        for (out, x) in out.iter_mut().zip(x.chunks_exact(cols)) {
            *out = R::dot(row, x);
        }
    });
    let mut out = Vec::with_capacity(rows * n);
    for token in 0..n {
        out.extend(turned.iter().skip(token).step_by(n));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_plain_loops() {
        let (rows, cols, n) = (5, 37, 3);
        let w: Vec<f64> = (0..rows * cols).map(|i| (i as f64 * 0.7).sin()).collect();
        let x: Vec<f64> = (0..n * cols).map(|i| (i as f64 * 0.3).cos()).collect();
        let out = project(&w, &x, cols);
        for t in 0..n {
            for r in 0..rows {
                let want: f64 = (0..cols).map(|c| w[r * cols + c] * x[t * cols + c]).sum();
                assert!((out[t * rows + r] - want).abs() < 1e-12, "{t} {r}");
            }
        }
    }
}
