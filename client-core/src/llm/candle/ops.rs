//! Everything of the forward pass that is not a product with weights. Sums run in eight lanes so that they vectorise.

use crate::llm::config::ModelConfig;
use crate::llm::weights::LayerTraits;

const LANES: usize = 8;

/// a · b.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
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
pub(super) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    for (x, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
        let scale = 1.0 / (dot(x, x) / weight.len() as f32 + eps).sqrt();
        for ((y, x), w) in out.iter_mut().zip(x).zip(weight) {
            *y = x * scale * w;
        }
    }
}

/// Adds `bias` to every row of `x`, `[m, bias.len()]`.
pub(super) fn add_rows(x: &mut [f32], bias: &[f32]) {
    for row in x.chunks_exact_mut(bias.len()) {
        add(row, bias);
    }
}

/// x += y.
pub(super) fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// Rotates neighbours (2i, 2i + 1) of the first `rope_dim` elements of every head. `x` is `[m, width]`, `rotation` holds
/// (cos, sin) pairs, `[m, rope_dim]`.
pub(super) fn rope(x: &mut [f32], head_dim: usize, width: usize, rope_dim: usize, rotation: &[f32]) {
    for (row, rotation) in x.chunks_exact_mut(width).zip(rotation.chunks_exact(rope_dim)) {
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

fn silu(x: f32) -> f32 {
    x / (1.0 + (-x).exp())
}

/// silu(gate) · up.
pub(super) fn swiglu(mut gate: Vec<f32>, up: &[f32]) -> Vec<f32> {
    for (g, u) in gate.iter_mut().zip(up) {
        *g = silu(*g) * u;
    }
    gate
}

/// silu(gate) · up for rows `[2·ffn]` that hold both; returns `[m, ffn]`.
pub(super) fn swiglu_stacked(rows: &[f32], ffn: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(rows.len() / 2);
    for row in rows.chunks_exact(2 * ffn) {
        let (gate, up) = row.split_at(ffn);
        out.extend(gate.iter().zip(up).map(|(g, u)| silu(*g) * u));
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
    let scale = 1.0 / (head_dim as f32).sqrt();
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
