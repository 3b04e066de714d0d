//! Everything of the forward pass that is not a product with weights. Sums run in eight lanes so that they vectorise.

use cpu_kernels::math::dot;
pub(super) use cpu_kernels::math::{add, rms_norm, scale};

use crate::config::{Activation, ModelConfig};
use crate::weights::LayerTraits;

/// Adds `bias` to every row of `x`, `[m, bias.len()]`.
pub(super) fn add_rows(x: &mut [f32], bias: &[f32]) {
    for row in x.chunks_exact_mut(bias.len()) {
        add(row, bias);
    }
}

/// x += y, each row of y normalised first where there is a weight for it.
pub(super) fn add_normed(x: &mut [f32], mut y: Vec<f32>, weight: Option<&[f32]>, eps: f32) {
    if let Some(weight) = weight {
        let raw = y.clone();
        rms_norm(&raw, weight, eps, &mut y);
    }
    add(x, &y);
}

/// cap · tanh(x / cap).
pub(super) fn capped(x: f32, cap: f32) -> f32 {
    cap * (x / cap).tanh()
}

/// One of the rotations of some positions.
#[derive(Debug, Clone, Copy)]
pub(super) struct RopeTable<'a> {
    /// (cos, sin) pairs, `[m, width]`.
    pub rotation: &'a [f32],
    /// Numbers of a position.
    pub width: usize,
    /// Which of a position's rotations.
    pub table: usize,
}

/// Rotates neighbours (2i, 2i + 1) of the first `rope_dim` elements of every head. `x` is `[m, width]`.
pub(super) fn rope(x: &mut [f32], head_dim: usize, width: usize, rope_dim: usize, turns: RopeTable<'_>) {
    for (row, rotation) in x.chunks_exact_mut(width).zip(turns.rotation.chunks_exact(turns.width)) {
        let rotation = &rotation[turns.table * rope_dim..][..rope_dim];
        for head in row.chunks_exact_mut(head_dim) {
            for (pair, turn) in head.as_chunks_mut::<2>().0.iter_mut().zip(rotation.as_chunks::<2>().0) {
                let ([a, b], [cos, sin]) = (*pair, *turn);
                *pair = [a * cos - b * sin, a * sin + b * cos];
            }
        }
    }
}

/// Cuts rows `[q_dim + 2·kv_dim]` into their three parts.
pub(super) fn split3(rows: &[f32], q_dim: usize, kv_dim: usize) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let m = rows.len() / (q_dim + 2 * kv_dim);
    let (mut q, mut k, mut v) =
        (Vec::with_capacity(m * q_dim), Vec::with_capacity(m * kv_dim), Vec::with_capacity(m * kv_dim));
    for row in rows.chunks_exact(q_dim + 2 * kv_dim) {
        let (q_part, kv) = row.split_at(q_dim);
        let (k_part, v_part) = kv.split_at(kv_dim);
        q.extend_from_slice(q_part);
        k.extend_from_slice(k_part);
        v.extend_from_slice(v_part);
    }
    (q, k, v)
}

fn activate(x: f32, activation: Activation) -> f32 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        // GELU by tanh, which is x · σ(√(8/π) · (x + 0.044715 · x³)).
        Activation::Gelu => x / (1.0 + (-x * (1.595_769_2 + 0.071_354_814 * x * x)).exp()),
    }
}

/// act(gate) · up.
pub(super) fn gated(mut gate: Vec<f32>, up: &[f32], activation: Activation) -> Vec<f32> {
    for (g, u) in gate.iter_mut().zip(up) {
        *g = activate(*g, activation) * u;
    }
    gate
}

/// act(gate) · up for rows `[2·ffn]` that hold both; returns `[m, ffn]`.
pub(super) fn gated_stacked(rows: &[f32], ffn: usize, activation: Activation) -> Vec<f32> {
    let mut out = Vec::with_capacity(rows.len() / 2);
    for row in rows.chunks_exact(2 * ffn) {
        let (gate, up) = row.split_at(ffn);
        out.extend(gate.iter().zip(up).map(|(g, u)| activate(*g, activation) * u));
    }
    out
}

/// Causal attention with grouped heads. `q` is `[m, q_dim]` at positions `start ..`; `k` and `v` are
/// `[start + m, kv_dim]`. Returns `[m, q_dim]`.
pub(super) fn attention(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    start: usize,
    config: &ModelConfig,
    traits: &LayerTraits,
) -> Vec<f32> {
    let (q_dim, kv_dim, head_dim) = (config.q_dim(), config.kv_dim(), config.head_dim);
    let group = config.heads / config.kv_heads;
    let scale = config.score_scale();
    let mut out = vec![0.0; q.len()];
    let mut scores = Vec::new();
    for (i, (q_row, out_row)) in q.chunks_exact(q_dim).zip(out.chunks_exact_mut(q_dim)).enumerate() {
        let (first, seen) = (traits.first_seen(start + i), start + i + 1);
        let (k, v) = (&k[first * kv_dim..seen * kv_dim], &v[first * kv_dim..seen * kv_dim]);
        for (h, (q_head, out_head)) in q_row.chunks_exact(head_dim).zip(out_row.chunks_exact_mut(head_dim)).enumerate()
        {
            let offset = (h / group) * head_dim;
            let head = offset..offset + head_dim;
            scores.clear();
            scores.extend(k.chunks_exact(kv_dim).map(|row| dot(q_head, &row[head.clone()]) * scale));
            if let Some(cap) = config.traits.score_cap {
                scores.iter_mut().for_each(|score| *score = capped(*score, cap));
            }
            let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut sum = 0.0;
            for score in &mut scores {
                *score = (*score - top).exp();
                sum += *score;
            }
            for (score, row) in scores.iter().zip(v.chunks_exact(kv_dim)) {
                let weight = score / sum;
                for (o, v) in out_head.iter_mut().zip(&row[head.clone()]) {
                    *o += weight * v;
                }
            }
        }
    }
    out
}
