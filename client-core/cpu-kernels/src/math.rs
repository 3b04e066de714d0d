//! What is neither a product with weights nor attention. Sums run in eight lanes so that they vectorise.

use crate::glu::Gated;
use crate::layout::LANES;
use crate::pool::{self, Job, Places, Work};
use crate::simd::F4;

/// a · b.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    lanes.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

/// RMSNorm of every row of `x`, `[m, dim]`, into `out`: y = x / sqrt(mean(x²) + ε) · weight.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    for (x, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
        let scale = 1.0 / (dot(x, x) / weight.len() as f32 + eps).sqrt();
        for ((y, x), w) in out.iter_mut().zip(x).zip(weight) {
            *y = x * scale * w;
        }
    }
}

/// RMSNorm of `row` in place.
pub fn rms_norm_in_place(row: &mut [f32], weight: &[f32], eps: f32) {
    let scale = 1.0 / (dot(row, row) / weight.len() as f32 + eps).sqrt();
    for (x, w) in row.iter_mut().zip(weight) {
        *x *= scale * w;
    }
}

/// x += y.
pub fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// Rotates neighbours (2i, 2i + 1) of the first elements of a head by the (cos, sin) pairs of `rotation`.
pub fn rope(head: &mut [f32], rotation: &[f32]) {
    for (pair, turn) in head.as_chunks_mut::<2>().0.iter_mut().zip(rotation.as_chunks::<2>().0) {
        let ([a, b], [cos, sin]) = (*pair, *turn);
        *pair = [a * cos - b * sin, a * sin + b * cos];
    }
}

/// x · factor.
pub fn scale(x: &mut [f32], factor: f32) {
    if factor != 1.0 {
        for x in x {
            *x *= factor;
        }
    }
}

/// RMSNorm of every row in place, or nothing where `weight` is empty.
pub fn rms_norm_rows(rows: &mut [f32], weight: &[f32], eps: f32) {
    if !weight.is_empty() {
        for row in rows.chunks_exact_mut(weight.len()) {
            rms_norm_in_place(row, weight, eps);
        }
    }
}

/// cap · tanh(x / cap), or nothing where the cap is 0.
pub fn cap(x: &mut [f32], cap: f32) {
    if cap != 0.0 {
        for x in x {
            [*x, ..] = F4::splat(*x).capped(cap).array();
        }
    }
}

/// x · σ(x).
fn silu(x: F4) -> F4 {
    x / ((F4::splat(0.0) - x).exp() + F4::splat(1.0))
}

/// GELU by tanh, which is x · σ(√(8/π) · (x + 0.044715 · x³)).
fn gelu(x: F4) -> F4 {
    let inside = x * (F4::splat(1.595_769_2) + F4::splat(0.071_354_814) * x * x);
    x / ((F4::splat(0.0) - inside).exp() + F4::splat(1.0))
}

/// silu(gate) · up, or gelu(gate) · up, for rows `[2·ffn]` that hold both, into `out`, `[m, ffn]`.
pub fn gated(rows: &[f32], ffn: usize, gelu: bool, out: &mut [f32]) {
    let m = out.len() / ffn.max(1);
    let job = Gated { rows, ffn, gelu, out: Places::new(out) };
    pool::run(&job, m.div_ceil(Gated::ROWS), Work { columns: m, products: 0 });
}

/// A piece of the job, four elements at a time.
#[inline(always)]
fn piece_by(job: &Gated<'_>, piece: usize, activation: impl Fn(F4) -> F4) {
    let ffn = job.ffn;
    for (i, row) in job.rows_of(piece) {
        let (gate, up) = row.split_at(ffn);
        let (gates, ups) = (gate.as_chunks::<4>(), up.as_chunks::<4>());
        for (at, (g, u)) in gates.0.iter().zip(ups.0).enumerate() {
            job.out.write(i * ffn + 4 * at, &(activation(F4::load(g)) * F4::load(u)).array());
        }
        for (at, (g, u)) in gates.1.iter().zip(ups.1).enumerate() {
            let y = activation(F4::splat(*g)).array()[0] * u;
            job.out.write(i * ffn + 4 * gates.0.len() + at, &[y]);
        }
    }
}

impl Job for Gated<'_> {
    fn piece(&self, piece: usize) {
        #[cfg(not(target_arch = "wasm32"))]
        if crate::native::gated(self, piece) {
            return;
        }
        match self.gelu {
            true => piece_by(self, piece, gelu),
            false => piece_by(self, piece, silu),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine's own instructions compute what the portable ones do, to the bit.
    #[test]
    fn gates_have_the_portable_bits() {
        for (m, ffn) in [(1, 1), (3, 7), (5, 32), (9, 45)] {
            let sizes = [0.0, 0.1, 1.0, 5.0, 30.0, 100.0, 1e20];
            let rows: Vec<f32> = (0..2 * m * ffn).map(|at| sizes[at % 7] * (at as f32 * 0.7).sin()).collect();
            for gelu_wanted in [false, true] {
                let [mut found, mut expect] = [vec![f32::NAN; m * ffn], vec![f32::NAN; m * ffn]];
                gated(&rows, ffn, gelu_wanted, &mut found);
                let job = Gated { rows: &rows, ffn, gelu: gelu_wanted, out: Places::new(&mut expect) };
                for piece in 0..m.div_ceil(Gated::ROWS) {
                    match gelu_wanted {
                        true => piece_by(&job, piece, gelu),
                        false => piece_by(&job, piece, silu),
                    }
                }
                let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&found), bits(&expect), "{m} {ffn} {gelu_wanted}");
            }
        }
    }
}
