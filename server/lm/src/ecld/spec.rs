//! A decoder's shape and tensors as the stages compute with them, whatever file or precision they come from.

use std::ops::Range;
use std::sync::Arc;

use engine::config::{Activation, Blueprint, ModelConfig, RopeConfig};

use super::error::EcldError;

/// Which elements of a head are rotated together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// 2i and 2i + 1.
    Neighbours,
    /// i and i + half of the rotated part.
    Halves,
}

/// One rotary embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotation {
    /// Radians a position, for every pair.
    pub frequencies: Vec<f64>,
    /// What cosines and sines are multiplied with.
    pub magnitude: f64,
}

/// Sizes, and what families differ in.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Tokens.
    pub vocab: usize,
    /// Width of the residual stream d.
    pub dim: usize,
    /// Blocks L.
    pub layers: usize,
    /// Query heads H.
    pub heads: usize,
    /// KV groups G; divides the heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// FFN neurons.
    pub ffn: usize,
    /// Longest sequence, tokens.
    pub context: usize,
    /// RMSNorm's ε.
    pub rms_eps: f64,
    /// Of the rotated elements.
    pub pairing: Pairing,
    /// Blocks name theirs by its place here.
    pub rotations: Vec<Rotation>,
    /// What attention scores are multiplied with.
    pub score_scale: f64,
    /// c·tanh(score / c), where there is one.
    pub score_cap: Option<f64>,
    /// The same of logits.
    pub logit_cap: Option<f64>,
    /// What embeddings are multiplied with.
    pub embedding_scale: f64,
    /// Whether the gate goes through GELU (its tanh form) instead of SiLU.
    pub gelu: bool,
}

impl Spec {
    /// Width of all query heads.
    pub fn q_dim(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key heads.
    pub fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// What `tokens` tokens cost in one block's matrices, million floating-point operations.
    pub fn block_work(&self, tokens: usize) -> u64 {
        let attention = 2 * self.dim * (self.q_dim() + self.kv_dim());
        mega(attention + 3 * self.dim * self.ffn, tokens)
    }

    /// What `vocab` logits of `tokens` tokens cost, million floating-point operations.
    pub fn head_work(&self, tokens: usize, vocab: usize) -> u64 {
        mega(self.dim * vocab, tokens)
    }

    /// Query heads of a KV group.
    pub fn rep(&self) -> usize {
        self.heads / self.kv_heads.max(1)
    }

    /// As the engine sees a model whose rows it hands out for rotating neighbours.
    pub fn of(plan: &Blueprint) -> Self {
        let c: &ModelConfig = &plan.config;
        let rotation = |rope: &RopeConfig| Rotation {
            frequencies: (0..rope.dim / 2)
                .map(|pair| {
                    let divisor = rope.freq_divisors.get(pair).copied().unwrap_or(1.0);
                    f64::from(rope.base).powf(-2.0 * pair as f64 / rope.dim as f64) / f64::from(divisor)
                })
                .collect(),
            magnitude: f64::from(rope.magnitude),
        };
        Self {
            vocab: c.vocab,
            dim: c.dim,
            layers: c.layers,
            heads: c.heads,
            kv_heads: c.kv_heads,
            head_dim: c.head_dim,
            ffn: c.ffn,
            context: c.context,
            rms_eps: f64::from(c.rms_eps),
            pairing: Pairing::Neighbours,
            rotations: std::iter::once(&c.rope).chain(&c.traits.local_rope).map(rotation).collect(),
            score_scale: f64::from(c.score_scale()),
            score_cap: c.traits.score_cap.map(f64::from),
            logit_cap: c.traits.logit_cap.map(f64::from),
            embedding_scale: f64::from(c.traits.embedding_scale),
            gelu: c.traits.activation == Activation::Gelu,
        }
    }
}

/// Two operations for each of `weights` and `tokens`, in millions, rounded up.
fn mega(weights: usize, tokens: usize) -> u64 {
    (2 * weights as u64 * tokens as u64).div_ceil(1_000_000)
}

/// The tensors of one block; matrices are `[out, in]`.
#[derive(Debug, Clone, Default)]
pub struct Block<R> {
    /// RMSNorm before attention, `[dim]`.
    pub attn_norm: Vec<R>,
    /// `[q_dim, dim]`.
    pub q: Vec<R>,
    /// `[kv_dim, dim]`.
    pub k: Vec<R>,
    /// `[kv_dim, dim]`.
    pub v: Vec<R>,
    /// `[dim, q_dim]`.
    pub o: Vec<R>,
    /// Added to queries, keys and values.
    pub bias: Option<[Vec<R>; 3]>,
    /// RMSNorm of query and key heads, `[head_dim]`.
    pub head_norms: Option<[Vec<R>; 2]>,
    /// RMSNorm before the feed-forward net, `[dim]`.
    pub ffn_norm: Vec<R>,
    /// `[ffn, dim]`.
    pub gate: Vec<R>,
    /// `[ffn, dim]`.
    pub up: Vec<R>,
    /// `[dim, ffn]`.
    pub down: Vec<R>,
    /// RMSNorm of what attention and the feed-forward net give, `[dim]`.
    pub post_norms: Option<[Vec<R>; 2]>,
    /// Its place in [`Spec::rotations`]; `None` for no positions.
    pub rotation: Option<usize>,
    /// Tokens that a token sees, itself included.
    pub window: Option<usize>,
}

/// A model whose blocks are handed out one at a time, so that one that is larger than memory can be worked on.
pub trait Model<R>: Sync {
    /// Its sizes.
    fn spec(&self) -> &Spec;

    /// One block.
    ///
    /// # Errors
    /// It cannot be read.
    fn block(&self, layer: usize) -> Result<Arc<Block<R>>, EcldError>;

    /// The scaled embeddings of `tokens`, `[tokens, dim]`.
    ///
    /// # Errors
    /// A token is outside the vocabulary, or the rows cannot be read.
    fn embed(&self, tokens: &[u32]) -> Result<Vec<R>, EcldError>;

    /// RMSNorm after the last block, `[dim]`.
    ///
    /// # Errors
    /// It cannot be read.
    fn output_norm(&self) -> Result<Vec<R>, EcldError>;

    /// These rows of the output head, `[rows, dim]`.
    ///
    /// # Errors
    /// They cannot be read.
    fn head(&self, rows: Range<usize>) -> Result<Vec<R>, EcldError>;
}

/// Refuses tokens that the model does not have, and sequences that are empty or longer than its context.
///
/// # Errors
/// [`EcldError::Input`] that names the sequence.
pub fn check_sequences<'a>(spec: &Spec, sequences: impl IntoIterator<Item = &'a [u32]>) -> Result<(), EcldError> {
    let mut any = false;
    for (number, sequence) in sequences.into_iter().enumerate() {
        any = true;
        if sequence.is_empty() || sequence.len() > spec.context {
            return Err(EcldError::input(format!(
                "sequence {number} has {} tokens; it must have between 1 and the context's {}",
                sequence.len(),
                spec.context
            )));
        }
        if let Some(token) = sequence.iter().find(|token| **token as usize >= spec.vocab) {
            return Err(EcldError::input(format!(
                "sequence {number} holds token {token}, outside the vocabulary of {}",
                spec.vocab
            )));
        }
    }
    if any { Ok(()) } else { Err(EcldError::input("there are no sequences to calibrate on")) }
}
