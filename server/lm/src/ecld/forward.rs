//! The forward pass, block by block, with taps for what importance scores are made of.
//!
//! All sequences go through a block together: their rows lie one after the other, so that every matrix is read once for all of
//! them and multiplied in one piece. Only attention looks at one sequence at a time.

use std::ops::Range;

use rayon::prelude::*;

use super::error::EcldError;
use super::matmul::{View, multiply, project};
use super::real::{Real, greatest, sum, tanh};
use super::spec::{Block, Model, Pairing, Spec};

/// Rows of the output head that are computed at a time, at most.
const HEAD_ROWS: usize = 4096;
/// Logits that are held at a time.
const HELD_LOGITS: usize = 1 << 24;
/// Queries that are computed at a time.
const QUERIES: usize = 64;

/// Sees what passes through a block. All lists hold a row a token, of all sequences one after the other.
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
    let width = gain.len().max(1);
    let mut out = vec![R::default(); x.len()];
    out.par_chunks_exact_mut(width).zip(x.par_chunks_exact(width)).with_min_len(16).for_each(|(out, row)| {
        let square: f64 = row.iter().map(|v| v.wide() * v.wide()).sum::<f64>() / width as f64;
        let scale = 1.0 / (square + eps).sqrt();
        for ((out, v), g) in out.iter_mut().zip(row).zip(gain) {
            *out = R::of(v.wide() * scale * g.wide());
        }
    });
    out
}

fn add<R: Real>(x: &mut [R], y: &[R]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += *y;
    }
}

fn add_bias<R: Real>(x: &mut [R], bias: &[R]) {
    for row in x.chunks_exact_mut(bias.len().max(1)) {
        add(row, bias);
    }
}

fn capped<R: Real>(score: R, cap: Option<f64>) -> R {
    cap.map_or(score, |cap| R::of(cap) * tanh(score / R::of(cap)))
}

/// SiLU, or GELU in its form by tanh, of `gate`, times `up`.
fn gated<R: Real>(gate: &mut [R], up: &[R], gelu: bool) {
    let (half, one) = (R::of(0.5), R::of(1.0));
    let (inner, cube) = (R::of((2.0 / std::f64::consts::PI).sqrt()), R::of(0.044_715));
    gate.par_chunks_mut(4096).zip(up.par_chunks(4096)).for_each(|(gate, up)| {
        for (x, up) in gate.iter_mut().zip(up) {
            *x = if gelu {
                half * *x * (one + tanh(inner * (*x + cube * *x * *x * *x))) * *up
            } else {
                *x / (one + (-*x).exp()) * *up
            };
        }
    });
}

/// Sequences on their way through a model's blocks.
#[derive(Debug)]
pub struct Pass<'a> {
    spec: &'a Spec,
    /// Each sequence's rows.
    rows: Vec<Range<usize>>,
    /// Cosine and sine for every position and pair of each rotation.
    turns: Vec<Vec<(f64, f64)>>,
}

impl<'a> Pass<'a> {
    /// Of sequences of these lengths, tokens.
    pub fn new(spec: &'a Spec, lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut end = 0;
        let rows: Vec<Range<usize>> = lengths
            .into_iter()
            .map(|len| {
                end += len;
                end - len..end
            })
            .collect();
        let longest = rows.iter().map(Range::len).max().unwrap_or(0);
        let turns = spec.rotations.iter().map(|rotation| {
            let turn = |position: usize, frequency: &f64| {
                let angle = position as f64 * frequency;
                (angle.cos() * rotation.magnitude, angle.sin() * rotation.magnitude)
            };
            (0..longest).flat_map(|p| rotation.frequencies.iter().map(move |f| turn(p, f))).collect()
        });
        Self { spec, rows, turns: turns.collect() }
    }

    /// Each sequence's rows of what lies in a row a token.
    pub fn rows(&self) -> &[Range<usize>] {
        &self.rows
    }

    /// Rows of all sequences.
    pub fn tokens(&self) -> usize {
        self.rows.last().map_or(0, |rows| rows.end)
    }

    /// Rotates every head of every row by its position.
    fn rotate<R: Real>(&self, x: &mut [R], rotation: usize, width: usize) {
        let (Some(turns), Some(of)) = (self.turns.get(rotation), self.spec.rotations.get(rotation)) else { return };
        let pairs = of.frequencies.len();
        if pairs == 0 {
            return;
        }
        for rows in &self.rows {
            let rows = &mut x[rows.start * width..rows.end * width];
            rows.par_chunks_exact_mut(width).zip(turns.par_chunks_exact(pairs)).with_min_len(16).for_each(
                |(row, turns)| {
                    for head in row.chunks_exact_mut(self.spec.head_dim) {
                        for (pair, (cos, sin)) in turns.iter().enumerate() {
                            let (i, j) = match self.spec.pairing {
                                Pairing::Neighbours => (2 * pair, 2 * pair + 1),
                                Pairing::Halves => (pair, pair + pairs),
                            };
                            let (a, b) = (head[i].wide(), head[j].wide());
                            head[i] = R::of(a * cos - b * sin);
                            head[j] = R::of(b * cos + a * sin);
                        }
                    }
                },
            );
        }
    }

    /// softmax(q·kᵀ·scale)·v for every head, causal: `q` `[n, q_dim]`, `k` and `v` `[n, kv_dim]`.
    fn attend<R: Real>(&self, window: Option<usize>, q: &[R], k: &[R], v: &[R]) -> Vec<R> {
        let q_dim = self.spec.q_dim();
        let mut out = vec![R::default(); q.len()];
        let mut rest = out.as_mut_slice();
        let mut pieces = Vec::new();
        for rows in &self.rows {
            for first in rows.clone().step_by(QUERIES) {
                let queries = first..(first + QUERIES).min(rows.end);
                let (piece, after) = rest.split_at_mut(queries.len() * q_dim);
                pieces.push((rows.start, queries, piece));
                rest = after;
            }
        }
        pieces
            .into_par_iter()
            .for_each(|(start, queries, out)| self.attend_piece(window, start, queries, [q, k, v], out));
        out
    }

    /// Some `queries` of the sequence that begins at row `start`; `out` `[queries, q_dim]`.
    fn attend_piece<R: Real>(
        &self,
        window: Option<usize>,
        start: usize,
        queries: Range<usize>,
        [q, k, v]: [&[R]; 3],
        out: &mut [R],
    ) {
        let spec = self.spec;
        let (hd, q_dim, kv_dim) = (spec.head_dim, spec.q_dim(), spec.kv_dim());
        let (m, seen) = (queries.len(), queries.end - start);
        let mut scores = vec![R::default(); m * seen];
        for h in 0..spec.heads {
            let from = start * kv_dim + h / spec.rep() * hd;
            let q = View::new(&q[queries.start * q_dim + h * hd..], [m, hd], q_dim);
            multiply(&mut scores, seen, q, View::new(&k[from..], [seen, hd], kv_dim).turned(), false);
            for (i, row) in scores.chunks_exact_mut(seen).enumerate() {
                let t = queries.start - start + i;
                let first = window.map_or(0, |window| (t + 1).saturating_sub(window));
                let (before, rest) = row.split_at_mut(first);
                let (row, after) = rest.split_at_mut(t + 1 - first);
                before.fill(R::default());
                after.fill(R::default());
                softmax(row, R::of(spec.score_scale), spec.score_cap);
            }
            let v = View::new(&v[from..], [seen, hd], kv_dim);
            multiply(&mut out[h * hd..], q_dim, View::new(&scores, [m, seen], seen), v, false);
        }
    }

    /// One block: the streams `x` `[n, dim]` go in and come out.
    pub fn block<R: Real>(&self, w: &Block<R>, x: &mut [R], tap: &mut dyn Tap<R>) {
        let spec = self.spec;
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
            self.rotate(&mut q, rotation, q_dim);
            self.rotate(&mut k, rotation, kv_dim);
        }
        let heads = self.attend(w.window, &q, &k, &v);
        tap.heads(&heads);
        let mut mixed = project(&w.o, &heads, q_dim);
        if let Some([post, _]) = &w.post_norms {
            mixed = rms_norm(&mixed, post, spec.rms_eps);
        }
        add(x, &mixed);

        let normed = rms_norm(x, &w.ffn_norm, spec.rms_eps);
        tap.normed(&normed);
        let mut inner = project(&w.gate, &normed, dim);
        gated(&mut inner, &project(&w.up, &normed, dim), spec.gelu);
        tap.neurons(&inner);
        let mut mixed = project(&w.down, &inner, spec.ffn);
        if let Some([_, post]) = &w.post_norms {
            mixed = rms_norm(&mixed, post, spec.rms_eps);
        }
        add(x, &mixed);
    }
}

/// exp(scale · score − greatest) / Σ of them, in place.
fn softmax<R: Real>(row: &mut [R], scale: R, cap: Option<f64>) {
    for score in &mut *row {
        *score = *score * scale;
    }
    if cap.is_some() {
        for score in &mut *row {
            *score = capped(*score, cap);
        }
    }
    let top = greatest(row);
    for score in &mut *row {
        *score = (*score - top).exp();
    }
    let share = R::of(1.0) / sum(row, |v| v);
    for score in &mut *row {
        *score = *score * share;
    }
}

/// The logits at every position of `tokens`, a row a position.
///
/// # Errors
/// The model cannot be read.
pub fn logits<R: Real>(model: &dyn Model<R>, tokens: &[u32]) -> Result<Vec<Vec<f64>>, EcldError> {
    let spec = model.spec();
    let mut x = model.embed(tokens)?;
    let pass = Pass::new(spec, [tokens.len()]);
    for layer in 0..spec.layers {
        pass.block(model.block(layer)?.as_ref(), &mut x, &mut NoTap);
    }
    let hidden = rms_norm(&x, &model.output_norm()?, spec.rms_eps);
    let mut rows: Vec<Vec<f64>> = vec![Vec::with_capacity(spec.vocab); tokens.len()];
    for (first, end) in pieces(spec.vocab, tokens.len()) {
        let some = project(&model.head(first..end)?, &hidden, spec.dim);
        for (row, some) in rows.iter_mut().zip(some.chunks_exact(end - first)) {
            row.extend(some.iter().map(|z| capped(*z, spec.logit_cap).wide()));
        }
    }
    Ok(rows)
}

/// Rows of the head, as many at a time as `tokens` of them may take.
fn pieces(rows: usize, tokens: usize) -> impl Iterator<Item = (usize, usize)> {
    let step = (HELD_LOGITS / tokens.max(1)).clamp(64, HEAD_ROWS);
    (0..rows).step_by(step).map(move |first| (first, (first + step).min(rows)))
}

/// −log p of each target after streams that left the last block: `streams` holds lists of rows `[n, dim]`, and what comes after
/// each row where that counts. Only those rows are computed. The head is read in pieces, once for all lists, so its size does
/// not matter. `tick` hears of the work ([`Spec::head_work`]).
///
/// # Errors
/// The model cannot be read, or `tick` says stop.
pub fn nll<R: Real>(
    model: &dyn Model<R>,
    streams: &[&[R]],
    wanted: &[Option<u32>],
    tick: &mut dyn FnMut(u64) -> Result<(), EcldError>,
) -> Result<Vec<Vec<f64>>, EcldError> {
    let spec = model.spec();
    let gain = model.output_norm()?;
    let scored: Vec<(usize, usize)> =
        wanted.iter().enumerate().filter_map(|(row, target)| Some((row, (*target)? as usize))).collect();
    let mut hidden = Vec::with_capacity(streams.len() * scored.len() * spec.dim);
    for x in streams {
        for (row, _) in &scored {
            hidden.extend_from_slice(x.get(row * spec.dim..(row + 1) * spec.dim).unwrap_or_default());
        }
    }
    let hidden = rms_norm(&hidden, &gain, spec.rms_eps);
    let rows = streams.len() * scored.len();
    let targets = scored.iter().map(|(_, target)| *target).cycle().take(rows);
    let mut sums: Vec<Sum> = targets.map(|target| Sum { target, ..Sum::default() }).collect();
    for (first, end) in pieces(spec.vocab, rows) {
        let mut some = project(&model.head(first..end)?, &hidden, spec.dim);
        sums.par_iter_mut().zip(some.par_chunks_exact_mut(end - first)).with_min_len(16).for_each(|(sum, some)| {
            if spec.logit_cap.is_some() {
                for z in &mut *some {
                    *z = capped(*z, spec.logit_cap);
                }
            }
            sum.add(first, some);
        });
        tick(spec.head_work(rows, end - first))?;
    }
    Ok(sums.chunks(scored.len().max(1)).map(|sums| sums.iter().map(Sum::nll).collect()).collect())
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
    fn add<R: Real>(&mut self, first: usize, logits: &[R]) {
        let here = greatest(logits);
        let top = self.top.max(here.wide());
        // Short runs in the model's own precision, their sum in double.
        let more: f64 = logits.chunks(1024).map(|some| sum(some, |z| (z - here).exp()).wide()).sum();
        self.sum = self.sum * (self.top - top).exp() + more * (here.wide() - top).exp();
        self.top = top;
        if let Some(own) = self.target.checked_sub(first).and_then(|at| logits.get(at)) {
            self.own = own.wide();
        }
    }

    fn nll(&self) -> f64 {
        self.top + self.sum.ln() - self.own
    }
}
