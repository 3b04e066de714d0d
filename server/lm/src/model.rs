//! The Llama architecture in burn: RMSNorm, interleaved rotary positions, grouped-query attention, SwiGLU, tied
//! embeddings.
//!
//! Weights lie as `[in, out]` (a row vector times a matrix); the GGUF writer transposes them. The rotary pairs are
//! neighbours `(2i, 2i+1)`, which is what llama.cpp's `llama` architecture expects: no permutation on export.

use burn::tensor::{Device, Distribution, Int, Tensor, TensorData, activation};
use serde::{Deserialize, Serialize};

/// Sizes of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LlamaConfig {
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// Width of the residual stream.
    pub dim: usize,
    /// Blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Channels of one head where they are not the width by the heads: after a cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_head_dim: Option<usize>,
    /// Width of the feed-forward part.
    pub ffn: usize,
    /// Longest context in tokens.
    pub context: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f32,
    /// Added under RMSNorm's root.
    pub rms_eps: f32,
}

impl LlamaConfig {
    /// The full model's sizes: about 3.5 M parameters.
    pub fn full(vocab: usize) -> Self {
        Self {
            vocab,
            dim: 256,
            layers: 4,
            heads: 8,
            kv_heads: 4,
            own_head_dim: None,
            ffn: 704,
            context: 512,
            rope_theta: 1e4,
            rms_eps: 1e-5,
        }
    }

    /// The compact student's sizes: about 0.7 M parameters.
    pub fn compact(vocab: usize) -> Self {
        Self { dim: 128, layers: 3, heads: 4, kv_heads: 2, ffn: 256, ..Self::full(vocab) }
    }

    /// Channels of one head.
    pub fn head_dim(&self) -> usize {
        self.own_head_dim.unwrap_or(self.dim / self.heads)
    }

    /// Width of all query heads together.
    pub fn q_dim(&self) -> usize {
        self.heads * self.head_dim()
    }

    /// Names (llama.cpp's) and shapes `[in, out]` of all weights, in the order in which [`Llama`] holds them. The
    /// embedding is `[vocab, dim]`, a norm `[1, dim]`.
    pub fn layout(&self) -> Vec<(String, [usize; 2])> {
        let (d, q, kv) = (self.dim, self.q_dim(), self.kv_heads * self.head_dim());
        let mut all = vec![("token_embd.weight".to_owned(), [self.vocab, d])];
        for l in 0..self.layers {
            for (part, shape) in [
                ("attn_norm", [1, d]),
                ("attn_q", [d, q]),
                ("attn_k", [d, kv]),
                ("attn_v", [d, kv]),
                ("attn_output", [q, d]),
                ("ffn_norm", [1, d]),
                ("ffn_gate", [d, self.ffn]),
                ("ffn_up", [d, self.ffn]),
                ("ffn_down", [self.ffn, d]),
            ] {
                all.push((format!("blk.{l}.{part}.weight"), shape));
            }
        }
        all.push(("output_norm.weight".to_owned(), [1, d]));
        all
    }

    /// Parameters, the tied embedding counted once.
    pub fn parameters(&self) -> usize {
        self.layout().iter().map(|(_, [a, b])| a * b).sum()
    }
}

/// Tensors in a block of [`LlamaConfig::layout`].
const PER_LAYER: usize = 9;

/// A model: its sizes and its weights, in the order of [`LlamaConfig::layout`].
#[derive(Debug, Clone)]
pub struct Llama {
    /// Sizes.
    pub config: LlamaConfig,
    /// Weights.
    pub weights: Vec<Tensor<2>>,
}

/// What depends only on a batch's shape `[rows, len]`: the rotary tables.
#[derive(Debug, Clone)]
pub struct Rope {
    shape: [usize; 2],
    /// `[head_dim, head_dim]`: maps neighbours `(x, y)` to `(-y, x)`.
    swap: Tensor<2>,
    /// Cosine and sine for queries, `[rows*len*heads, head_dim]`, times 1/sqrt(head_dim).
    q: (Tensor<2>, Tensor<2>),
    /// The same for keys, `[rows*len*kv_heads, head_dim]`, unscaled.
    k: (Tensor<2>, Tensor<2>),
}

impl Rope {
    /// Builds the tables for `rows` sequences of `len` tokens.
    pub fn new(config: &LlamaConfig, rows: usize, len: usize, device: &Device) -> Self {
        let hd = config.head_dim();
        let mut swap = vec![0f32; hd * hd];
        for i in (0..hd).step_by(2) {
            swap[(i + 1) * hd + i] = -1.0;
            swap[i * hd + i + 1] = 1.0;
        }
        let table = |heads: usize, scale: f32| {
            let n = rows * len * heads;
            let (mut cos, mut sin) = (Vec::with_capacity(n * hd), Vec::with_capacity(n * hd));
            for _ in 0..rows {
                for position in 0..len {
                    for _ in 0..heads {
                        for c in 0..hd {
                            let power = (c / 2 * 2) as f32 / hd as f32;
                            let angle = position as f32 / config.rope_theta.powf(power);
                            cos.push(angle.cos() * scale);
                            sin.push(angle.sin() * scale);
                        }
                    }
                }
            }
            let make = |v: Vec<f32>| Tensor::<2>::from_data(TensorData::new(v, [n, hd]), device);
            (make(cos), make(sin))
        };
        Self {
            shape: [rows, len],
            swap: Tensor::from_data(TensorData::new(swap, [hd, hd]), device),
            q: table(config.heads, (hd as f32).powf(-0.5)),
            k: table(config.kv_heads, 1.0),
        }
    }

    /// The batch shape that the tables are for.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn rotate(&self, x: Tensor<2>, (cos, sin): &(Tensor<2>, Tensor<2>)) -> Tensor<2> {
        let turned = x.clone().matmul(self.swap.clone());
        x * cos.clone() + turned * sin.clone()
    }
}

impl Llama {
    /// Fresh weights: N(0, 0.02²) for the embedding, N(0, 1/in) for matrices (those that write to the residual stream
    /// divided by sqrt(2·layers)), ones for norms.
    pub fn init(config: &LlamaConfig, seed: u64, device: &Device) -> Self {
        device.seed(seed);
        let weights = config
            .layout()
            .into_iter()
            .map(|(name, shape)| {
                if name.contains("norm") {
                    return Tensor::ones(shape, device);
                }
                let std = if name.starts_with("token_embd") {
                    0.02
                } else {
                    let base = (shape[0] as f64).powf(-0.5);
                    let writes = name.contains("attn_output") || name.contains("ffn_down");
                    if writes { base / (2.0 * config.layers as f64).sqrt() } else { base }
                };
                Tensor::random(shape, Distribution::Normal(0.0, std), device)
            })
            .collect();
        Self { config: config.clone(), weights }
    }

    /// The same weights, each a leaf that collects a gradient.
    pub fn tracked(&self) -> Self {
        Self {
            config: self.config.clone(),
            weights: self.weights.iter().map(|w| w.clone().autodiff().require_grad()).collect(),
        }
    }

    /// Final hidden states `[rows*len, dim]`, normalised, of `tokens` `[rows, len]`. `mask` `[rows, 1, rep*len, len]`
    /// (rep = heads/kv_heads) is added to the attention scores.
    pub fn hidden(&self, tokens: Tensor<2, Int>, mask: &Tensor<4>, rope: &Rope) -> Tensor<2> {
        let c = &self.config;
        let [rows, len] = tokens.dims();
        let (hd, rep) = (c.head_dim(), c.heads / c.kv_heads);
        let n = rows * len;
        let mut x = self.weights[0].clone().select(0, tokens.reshape([n]));
        for l in 0..c.layers {
            let w = &self.weights[1 + l * PER_LAYER..1 + (l + 1) * PER_LAYER];
            let h = rms_norm(x.clone(), &w[0], c.rms_eps);
            let q = rope.rotate(h.clone().matmul(w[1].clone()).reshape([n * c.heads, hd]), &rope.q);
            let k = rope.rotate(h.clone().matmul(w[2].clone()).reshape([n * c.kv_heads, hd]), &rope.k);
            let v = h.matmul(w[3].clone());
            // The query heads that share a key head are stacked along the sequence: no copy of keys or values.
            let q = q.reshape([rows, len, c.heads, hd]).swap_dims(1, 2).reshape([rows, c.kv_heads, rep * len, hd]);
            let k = k.reshape([rows, len, c.kv_heads, hd]).swap_dims(1, 2);
            let v = v.reshape([rows, len, c.kv_heads, hd]).swap_dims(1, 2);
            let scores = q.matmul(k.swap_dims(2, 3)) + mask.clone();
            let out = activation::softmax(scores, 3).matmul(v);
            let out = out.reshape([rows, c.heads, len, hd]).swap_dims(1, 2).reshape([n, c.q_dim()]);
            x = x + out.matmul(w[4].clone());
            let h = rms_norm(x.clone(), &w[5], c.rms_eps);
            let gate = activation::silu(h.clone().matmul(w[6].clone()));
            x = x + (gate * h.matmul(w[7].clone())).matmul(w[8].clone());
        }
        let last = self.weights.len() - 1;
        rms_norm(x, &self.weights[last], c.rms_eps)
    }

    /// Logits `[n, vocab]` of hidden states `[n, dim]` through the tied embedding.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        hidden.matmul(self.weights[0].clone().swap_dims(0, 1))
    }
}

/// x / sqrt(mean(x²) + eps) · w, row by row; x `[n, d]`, w `[1, d]`.
fn rms_norm(x: Tensor<2>, w: &Tensor<2>, eps: f32) -> Tensor<2> {
    let scale = (x.clone() * x.clone()).mean_dim(1).add_scalar(eps).sqrt().recip();
    x * scale * w.clone()
}

/// The additive mask for rows of packed documents: a token sees itself and earlier tokens of its own document.
/// `segments` `[rows*len]` numbers the documents within a row; the result is `[rows, 1, rep*len, len]`.
pub fn mask(segments: &[u16], rows: usize, len: usize, rep: usize, device: &Device) -> Tensor<4> {
    // exp(-70) vanishes in single precision, and unlike -1e9 it keeps the C library's exp on its fast path.
    let mut data = vec![-70f32; rows * rep * len * len];
    for (row, seg) in segments.chunks_exact(len).enumerate() {
        for r in 0..rep {
            for (i, own) in seg.iter().enumerate() {
                let line = ((row * rep + r) * len + i) * len;
                let first = seg.iter().position(|s| s == own).unwrap_or(i);
                data[line + first..=line + i].fill(0.0);
            }
        }
    }
    Tensor::from_data(TensorData::new(data, [rows, 1, rep * len, len]), device)
}
