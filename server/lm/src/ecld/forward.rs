//! The forward pass, block by block, with taps for what importance scores are made of.

use rayon::prelude::*;

use super::error::EcldError;
use super::real::{Real, project};
use super::spec::{Block, Model, Pairing, Spec};

/// Rows of the output head that are computed at a time, at most.
const HEAD_ROWS: usize = 4096;
/// Logits that are held at a time.
const HELD_LOGITS: usize = 1 << 24;

/// Sees what passes through a block. All lists hold a row a token.
pub trait Tap<R> {
    /// A norm's output, gain included, `[n, dim]`: before attention and before the feed-forward net.
    fn normed(&mut self, _normed: &[R]) {}
    /// The heads' outputs before attention's way back, `[n, q_dim]`.
    fn heads(&mut self, _heads: &[R]) {}
    /// act(gate)·up, `[n, ffn]`.
    fn neurons(&mut self, _neurons: &[R]) {}
}

/// Sees nothing.
#[derive(Debug)]
pub struct NoTap;

impl<R> Tap<R> for NoTap {}

/// x / √(mean(x²) + ε) · gain, row by row.
pub fn rms_norm<R: Real>(x: &[R], gain: &[R], eps: f64) -> Vec<R> {
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks_exact(gain.len().max(1)) {
        let square: f64 = row.iter().map(|v| v.wide() * v.wide()).sum::<f64>() / gain.len() as f64;
        let scale = 1.0 / (square + eps).sqrt();
        out.extend(row.iter().zip(gain).map(|(v, g)| R::of(v.wide() * scale * g.wide())));
    }
    out
}

fn add<R: Real>(x: &mut [R], y: &[R]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x = R::of(x.wide() + y.wide());
    }
}

fn add_bias<R: Real>(x: &mut [R], bias: &[R]) {
    for row in x.chunks_exact_mut(bias.len().max(1)) {
        add(row, bias);
    }
}

/// Rotates every head of every row by its position.
fn rotate<R: Real>(x: &mut [R], spec: &Spec, rotation: usize, width: usize) {
    let Some(rotation) = spec.rotations.get(rotation) else { return };
    let pairs = rotation.frequencies.len();
    for (position, row) in x.chunks_exact_mut(width.max(1)).enumerate() {
        let turns: Vec<(f64, f64)> = rotation
            .frequencies
            .iter()
            .map(|f| {
                let angle = position as f64 * f;
                (angle.cos() * rotation.magnitude, angle.sin() * rotation.magnitude)
            })
            .collect();
        for head in row.chunks_exact_mut(spec.head_dim) {
            for (pair, (cos, sin)) in turns.iter().enumerate() {
                let (i, j) = match spec.pairing {
                    Pairing::Neighbours => (2 * pair, 2 * pair + 1),
                    Pairing::Halves => (pair, pair + pairs),
                };
                let (a, b) = (head[i].wide(), head[j].wide());
                head[i] = R::of(a * cos - b * sin);
                head[j] = R::of(b * cos + a * sin);
            }
        }
    }
}

fn capped(score: f64, cap: Option<f64>) -> f64 {
    cap.map_or(score, |cap| cap * (score / cap).tanh())
}

/// softmax(q·kᵀ·scale)·v for every head, causal: `q` `[n, q_dim]`, `k` and `v` `[n, kv_dim]`.
fn attend<R: Real>(spec: &Spec, window: Option<usize>, q: &[R], k: &[R], v: &[R]) -> Vec<R> {
    let (hd, q_dim, kv_dim) = (spec.head_dim, spec.q_dim(), spec.kv_dim());
    let mut out = vec![R::default(); q.len()];
    out.par_chunks_mut(q_dim.max(1)).zip(q.par_chunks_exact(q_dim.max(1))).enumerate().for_each(|(t, (out, q))| {
        let first = window.map_or(0, |window| (t + 1).saturating_sub(window));
        let heads = out.chunks_exact_mut(hd).zip(q.chunks_exact(hd)).enumerate();
        for (h, (out, q)) in heads {
            let from = h / spec.rep() * hd;
            let scores: Vec<f64> = (first..=t)
                .map(|u| {
                    let at = u * kv_dim + from;
                    capped(R::dot(q, &k[at..at + hd]).wide() * spec.score_scale, spec.score_cap)
                })
                .collect();
            let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
            let total: f64 = weights.iter().sum();
            let mut sums = vec![0.0; hd];
            for (u, weight) in (first..=t).zip(&weights) {
                for (sum, value) in sums.iter_mut().zip(&v[u * kv_dim + from..u * kv_dim + from + hd]) {
                    *sum += weight / total * value.wide();
                }
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = R::of(sum);
            }
        }
    });
    out
}

/// SiLU, or GELU in its form by tanh.
fn activate(x: f64, gelu: bool) -> f64 {
    if gelu {
        let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
        0.5 * x * (1.0 + inner.tanh())
    } else {
        x / (1.0 + (-x).exp())
    }
}

/// One block over one sequence: the stream `x` `[n, dim]` goes in and comes out.
pub fn block<R: Real>(spec: &Spec, w: &Block<R>, x: &mut [R], tap: &mut dyn Tap<R>) {
    let (dim, q_dim, kv_dim) = (spec.dim, spec.q_dim(), spec.kv_dim());
    let normed = rms_norm(x, &w.attn_norm, spec.rms_eps);
    tap.normed(&normed);
    let mut q = project(&w.q, &normed, dim);
    let mut k = project(&w.k, &normed, dim);
    let mut v = project(&w.v, &normed, dim);
    if let Some(bias) = &w.bias {
        for (x, bias) in [&mut q, &mut k, &mut v].into_iter().zip(bias) {
            add_bias(x, bias);
        }
    }
    if let Some([of_q, of_k]) = &w.head_norms {
        (q, k) = (rms_norm(&q, of_q, spec.rms_eps), rms_norm(&k, of_k, spec.rms_eps));
    }
    if let Some(rotation) = w.rotation {
        rotate(&mut q, spec, rotation, q_dim);
        rotate(&mut k, spec, rotation, kv_dim);
    }
    let heads = attend(spec, w.window, &q, &k, &v);
    tap.heads(&heads);
    let mut mixed = project(&w.o, &heads, q_dim);
    if let Some([post, _]) = &w.post_norms {
        mixed = rms_norm(&mixed, post, spec.rms_eps);
    }
    add(x, &mixed);

    let normed = rms_norm(x, &w.ffn_norm, spec.rms_eps);
    tap.normed(&normed);
    let (gate, up) = (project(&w.gate, &normed, dim), project(&w.up, &normed, dim));
    let inner = gate.iter().zip(&up).map(|(g, u)| R::of(activate(g.wide(), spec.gelu) * u.wide()));
    let inner: Vec<R> = inner.collect();
    tap.neurons(&inner);
    let mut mixed = project(&w.down, &inner, spec.ffn);
    if let Some([_, post]) = &w.post_norms {
        mixed = rms_norm(&mixed, post, spec.rms_eps);
    }
    add(x, &mixed);
}

/// The logits at every position of `tokens`, a row a position.
///
/// # Errors
/// The model cannot be read.
pub fn logits<R: Real>(model: &dyn Model<R>, tokens: &[u32]) -> Result<Vec<Vec<f64>>, EcldError> {
    let spec = model.spec();
    let mut x = model.embed(tokens)?;
    for layer in 0..spec.layers {
        block(spec, model.block(layer)?.as_ref(), &mut x, &mut NoTap);
    }
    let hidden = rms_norm(&x, &model.output_norm()?, spec.rms_eps);
    let mut rows: Vec<Vec<f64>> = vec![Vec::with_capacity(spec.vocab); tokens.len()];
    for (first, end) in pieces(spec.vocab, tokens.len()) {
        let some = project(&model.head(first..end)?, &hidden, spec.dim);
        for (row, some) in rows.iter_mut().zip(some.chunks_exact(end - first)) {
            row.extend(some.iter().map(|z| capped(z.wide(), spec.logit_cap)));
        }
    }
    Ok(rows)
}

/// Rows of the head, as many at a time as `tokens` of them may take.
fn pieces(rows: usize, tokens: usize) -> impl Iterator<Item = (usize, usize)> {
    let step = (HELD_LOGITS / tokens.max(1)).clamp(64, HEAD_ROWS);
    (0..rows).step_by(step).map(move |first| (first, (first + step).min(rows)))
}

/// −log p of each of `targets` after the stream `x` `[n, dim]` that left the last block; only those positions are computed
/// whose target is there. The head is read in pieces, so its size does not matter.
///
/// # Errors
/// The model cannot be read.
pub fn nll<R: Real>(model: &dyn Model<R>, streams: &[(&[R], &[Option<u32>])]) -> Result<Vec<Vec<f64>>, EcldError> {
    let spec = model.spec();
    let gain = model.output_norm()?;
    // All scored positions of all streams in one list: the head is read once.
    let (mut hidden, mut targets) = (Vec::new(), Vec::new());
    for (x, wanted) in streams {
        for (row, target) in x.chunks_exact(spec.dim).zip(*wanted) {
            let Some(target) = target else { continue };
            hidden.extend(rms_norm(row, &gain, spec.rms_eps));
            targets.push(*target as usize);
        }
    }
    let mut sums: Vec<Sum> = targets.iter().map(|target| Sum { target: *target, ..Sum::default() }).collect();
    for (first, end) in pieces(spec.vocab, targets.len()) {
        let some = project(&model.head(first..end)?, &hidden, spec.dim);
        sums.par_iter_mut().zip(some.par_chunks_exact(end - first)).for_each(|(sum, some)| {
            sum.add(first, some.iter().map(|z| capped(z.wide(), spec.logit_cap)));
        });
    }
    let mut all = sums.iter().map(Sum::nll);
    Ok(streams.iter().map(|(_, wanted)| wanted.iter().flatten().filter_map(|_| all.next()).collect()).collect())
}

/// log Σ exp of logits that come in pieces, and the target's.
#[derive(Debug, Clone, Copy)]
struct Sum {
    top: f64,
    sum: f64,
    target: usize,
    own: f64,
}

impl Default for Sum {
    fn default() -> Self {
        Self { top: f64::NEG_INFINITY, sum: 0.0, target: 0, own: 0.0 }
    }
}

impl Sum {
    /// The logits of the tokens from `first` on.
    fn add(&mut self, first: usize, mut logits: impl Iterator<Item = f64> + Clone) {
        let top = logits.clone().fold(self.top, f64::max);
        self.sum = self.sum * (self.top - top).exp() + logits.clone().map(|z| (z - top).exp()).sum::<f64>();
        self.top = top;
        if let Some(own) = self.target.checked_sub(first).and_then(|at| logits.nth(at)) {
            self.own = own;
        }
    }

    fn nll(&self) -> f64 {
        self.top + self.sum.ln() - self.own
    }
}
