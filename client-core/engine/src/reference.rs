//! The forward pass written down as simply as possible: single-precision values, sums in double precision, no
//! cache, no blocks. It is the oracle that the backends are tested against, and the place to read what they compute.
//!
//! Deliberately absent: speed.

use super::config::{Activation, ModelConfig, Rotations};
use super::weights::{LayerTraits, Matrix, ModelWeights};

/// A model with all weights dequantised to single precision.
#[derive(Debug)]
pub struct Reference {
    config: ModelConfig,
    embedding: Dense,
    layers: Vec<DenseLayer>,
    output_norm: Vec<f32>,
    head: Option<Dense>,
}

#[derive(Debug)]
struct DenseLayer {
    attn_norm: Vec<f32>,
    q: Dense,
    k: Dense,
    v: Dense,
    o: Dense,
    ffn_norm: Vec<f32>,
    gate: Dense,
    up: Dense,
    down: Dense,
    traits: LayerTraits,
}

/// A matrix `[rows, cols]`, row by row.
#[derive(Debug)]
struct Dense {
    values: Vec<f32>,
    cols: usize,
}

impl Dense {
    fn new(matrix: &Matrix<'_>) -> Self {
        Self { values: matrix.to_f32(), cols: matrix.cols }
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.cols..(row + 1) * self.cols]
    }

    fn apply(&self, x: &[f32]) -> Vec<f32> {
        self.values.chunks_exact(self.cols).map(|row| dot(row, x)).collect()
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() as f32
}

impl Reference {
    /// Dequantises all of `weights`.
    pub fn new(weights: &ModelWeights<'_>) -> Self {
        let layers = weights.layers.iter().map(|l| DenseLayer {
            attn_norm: l.attn_norm.clone(),
            q: Dense::new(&l.q),
            k: Dense::new(&l.k),
            v: Dense::new(&l.v),
            o: Dense::new(&l.o),
            ffn_norm: l.ffn_norm.clone(),
            gate: Dense::new(&l.gate),
            up: Dense::new(&l.up),
            down: Dense::new(&l.down),
            traits: l.traits.clone(),
        });
        Self {
            config: weights.config.clone(),
            embedding: Dense::new(&weights.embedding),
            layers: layers.collect(),
            output_norm: weights.output_norm.clone(),
            head: weights.output.as_ref().map(Dense::new),
        }
    }

    /// The final normalised hidden state at every position of `tokens`, each `[dim]`.
    ///
    /// # Panics
    /// A token is outside the vocabulary.
    pub fn hidden(&self, tokens: &[u32]) -> Vec<Vec<f32>> {
        let c = &self.config;
        let rotations = Rotations::of(c);
        let embedded = |&token: &u32| {
            let row = self.embedding.row(token as usize);
            row.iter().map(|v| v * c.traits.embedding_scale).collect()
        };
        let mut stream: Vec<Vec<f32>> = tokens.iter().map(embedded).collect();
        for layer in &self.layers {
            let (mut keys, mut values) = (Vec::new(), Vec::new());
            for (position, x) in stream.iter_mut().enumerate() {
                let mut rotation = Vec::new();
                rotations.at(position, &mut rotation);
                let normed = rms_norm(x, &layer.attn_norm, c.rms_eps);
                let traits = &layer.traits;
                let (mut q, mut k, mut v) = (layer.q.apply(&normed), layer.k.apply(&normed), layer.v.apply(&normed));
                if let Some(bias) = &traits.qkv_bias {
                    add(&mut q, &bias[..c.q_dim()]);
                    add(&mut k, &bias[c.q_dim()..c.q_dim() + c.kv_dim()]);
                    add(&mut v, &bias[c.q_dim() + c.kv_dim()..]);
                }
                if let Some(weight) = &traits.q_norm {
                    q = q.chunks_exact(c.head_dim).flat_map(|head| rms_norm(head, weight, c.rms_eps)).collect();
                }
                if let Some(weight) = &traits.k_norm {
                    k = k.chunks_exact(c.head_dim).flat_map(|head| rms_norm(head, weight, c.rms_eps)).collect();
                }
                if let Some(table) = traits.rope.table() {
                    let turns = &rotation[table * c.rope.dim..];
                    (q, k) = (rotate(q, c, turns), rotate(k, c, turns));
                }
                keys.push(k);
                values.push(v);
                let first = traits.first_seen(position);
                let heads = attend(&q, &keys[first..], &values[first..], c);
                let mixed = layer.o.apply(&heads);
                add(x, &post_norm(mixed, &traits.post_attn_norm, c));

                let normed = rms_norm(x, &layer.ffn_norm, c.rms_eps);
                let inner: Vec<f32> = layer
                    .gate
                    .apply(&normed)
                    .iter()
                    .zip(layer.up.apply(&normed))
                    .map(|(g, u)| activate(*g, c.traits.activation) * u)
                    .collect();
                let inner = layer.down.apply(&inner);
                add(x, &post_norm(inner, &traits.post_ffn_norm, c));
            }
        }
        stream.iter().map(|x| rms_norm(x, &self.output_norm, c.rms_eps)).collect()
    }

    /// The logits at every position of `tokens`, each `[vocab]`.
    ///
    /// # Panics
    /// A token is outside the vocabulary.
    pub fn logits(&self, tokens: &[u32]) -> Vec<Vec<f32>> {
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        let capped = |logit: f32| capped(logit, self.config.traits.logit_cap);
        self.hidden(tokens).iter().map(|x| head.apply(x).into_iter().map(capped).collect()).collect()
    }
}

fn activate(x: f32, activation: Activation) -> f32 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Gelu => {
            let x = f64::from(x);
            let inside = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            (0.5 * x * (1.0 + inside.tanh())) as f32
        }
    }
}

/// c·tanh(x / c).
fn capped(x: f32, cap: Option<f32>) -> f32 {
    match cap.map(f64::from) {
        Some(cap) => (cap * (f64::from(x) / cap).tanh()) as f32,
        None => x,
    }
}

fn post_norm(x: Vec<f32>, weight: &Option<Vec<f32>>, c: &ModelConfig) -> Vec<f32> {
    match weight {
        Some(weight) => rms_norm(&x, weight, c.rms_eps),
        None => x,
    }
}

fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let mean_square = dot(x, x) / x.len() as f32;
    let scale = 1.0 / (mean_square + eps).sqrt();
    x.iter().zip(weight).map(|(x, w)| x * scale * w).collect()
}

fn rotate(mut x: Vec<f32>, c: &ModelConfig, rotation: &[f32]) -> Vec<f32> {
    for head in x.chunks_exact_mut(c.head_dim) {
        for pair in 0..c.rope.dim / 2 {
            let (cos, sin) = (rotation[2 * pair], rotation[2 * pair + 1]);
            let (a, b) = (head[2 * pair], head[2 * pair + 1]);
            head[2 * pair] = a * cos - b * sin;
            head[2 * pair + 1] = a * sin + b * cos;
        }
    }
    x
}

/// softmax(q·kᵀ · scale)·v, scores capped where the model does so, for every query head; `keys` and `values` are `[positions][kv_dim]`.
fn attend(q: &[f32], keys: &[Vec<f32>], values: &[Vec<f32>], c: &ModelConfig) -> Vec<f32> {
    let mut out = Vec::with_capacity(q.len());
    for (h, q) in q.chunks_exact(c.head_dim).enumerate() {
        let start = h / (c.heads / c.kv_heads) * c.head_dim;
        let head = start..start + c.head_dim;
        let score = |k: &Vec<f32>| capped(dot(q, &k[head.clone()]) * c.score_scale(), c.traits.score_cap);
        let scores: Vec<f32> = keys.iter().map(score).collect();
        let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f64> = scores.iter().map(|s| f64::from(s - top).exp()).collect();
        let total: f64 = weights.iter().sum();
        for i in head {
            let sum: f64 = weights.iter().zip(values).map(|(w, v)| w * f64::from(v[i])).sum();
            out.push((sum / total) as f32);
        }
    }
    out
}

fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// How far a backend's logits are from the oracle's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Deviation {
    /// Largest absolute difference.
    pub max: f32,
    /// Median absolute difference, as a share of the standard deviation of the oracle's logits.
    pub median_share: f32,
    /// Whether the likeliest token is the same, or the oracle's top two are closer than the difference found.
    pub same_choice: bool,
}

impl Deviation {
    /// Compares `found` with the oracle's `expected`, both `[vocab]`.
    pub fn between(found: &[f32], expected: &[f32]) -> Self {
        let mut distances: Vec<f32> = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).collect();
        distances.sort_by(f32::total_cmp);
        // NaN sorts last, and so shows up as the largest.
        let max = distances.last().copied().unwrap_or(f32::NAN);
        let median = distances.get(distances.len() / 2).copied().unwrap_or(f32::NAN);
        let n = expected.len().max(1) as f64;
        let mean = expected.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let variance = expected.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n;
        let (ours, theirs) = (super::sampler::argmax(found) as usize, super::sampler::argmax(expected) as usize);
        let gap = expected.get(theirs).zip(expected.get(ours)).map_or(f32::NAN, |(a, b)| a - b);
        Self {
            max,
            median_share: median / variance.sqrt() as f32,
            same_choice: found.len() == expected.len() && (ours == theirs || gap <= 2.0 * max),
        }
    }
}
