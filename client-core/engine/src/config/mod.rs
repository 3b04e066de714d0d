//! The sizes of a decoder of the Llama kind, and what its family does differently, from a file's own metadata.
//!
//! | file | holds |
//! | --- | --- |
//! | `gguf.rs` | GGUF metadata |
//! | `hf.rs` | Hugging Face's `config.json` |
//! | `gemma.rs` | what both take as given of Gemma's generations |
//! | `rope.rs` | positions and their scaling |
//!
//! Deliberately absent: mixtures of experts, layer norms with a mean, parallel blocks, images. A file that asks for one of
//! them is refused by name.

mod gemma;
mod gguf;
mod hf;
mod rope;

pub use rope::{Positions, RopeConfig, RopeScaling, Rotations};

use super::error::EngineError;

/// Largest number of anything that a config may state; keeps every product of two inside 64 bits and refuses nonsense.
const MAX_SIZE: u64 = 1 << 24;
const MAX_LAYERS: u64 = 512;

/// The shape of a decoder of the Llama kind (Llama, Mistral, Qwen, SmolLM, Gemma). All sizes are at least 1.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Name from the file, for people.
    pub name: String,
    /// Number of tokens V.
    pub vocab: usize,
    /// Width of the residual stream d.
    pub dim: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Width of the feed-forward net's inside.
    pub ffn: usize,
    /// Longest sequence the model was made for, tokens.
    pub context: usize,
    /// ε of RMSNorm.
    pub rms_eps: f32,
    /// Positions.
    pub rope: RopeConfig,
    /// What families differ in.
    pub traits: ModelTraits,
}

/// What a feed-forward net's gate goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x · σ(x): SwiGLU.
    Silu,
    /// GELU in its approximation by tanh: GeGLU (Gemma).
    Gelu,
}

/// What a family does differently in all blocks or outside of them.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelTraits {
    /// Of the gate.
    pub activation: Activation,
    /// What embeddings are multiplied with.
    pub embedding_scale: f32,
    /// What scores are divided by the root of, where it is not the head's size (the largest Gemmas).
    pub query_scalar: Option<f32>,
    /// c, where scores are held within ±c by c·tanh(score / c) (Gemma 2).
    pub score_cap: Option<f32>,
    /// The same for logits (Gemma 2).
    pub logit_cap: Option<f32>,
    /// Positions of blocks that have others than [`ModelConfig::rope`] (Gemma 3). As many elements are rotated.
    pub local_rope: Option<RopeConfig>,
}

impl Default for ModelTraits {
    /// Llama's.
    fn default() -> Self {
        Self {
            activation: Activation::Silu,
            embedding_scale: 1.0,
            query_scalar: None,
            score_cap: None,
            logit_cap: None,
            local_rope: None,
        }
    }
}

/// What one block does with positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerPlan {
    /// How queries and keys are rotated.
    pub rope: Positions,
    /// How many tokens a token sees, itself included; `None` for all before it.
    pub window: Option<usize>,
}

/// A model as its metadata describes it: the sizes, and what to look for among the tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct Blueprint {
    /// The sizes.
    pub config: ModelConfig,
    /// Block by block, `config.layers` of them.
    pub layers: Vec<LayerPlan>,
    /// Whether the file's rows of queries and keys are in the order for rotating element i of a head with element
    /// i + dim/2 (Hugging Face, and "NEOX" families in GGUF) instead of neighbours.
    pub half_split: bool,
    /// Whether every query and key head is normalised (Qwen3, Gemma 3).
    pub qk_norm: bool,
    /// Whether what attention and the feed-forward net give is normalised before it is added (Gemma 2 and 3).
    pub post_norms: bool,
    /// What stored gains of norms are short of: 1 in Gemma's checkpoints.
    pub gain_offset: f32,
    /// Whether queries, keys and values must have biases (Qwen2); elsewhere they may.
    pub qkv_bias: bool,
    /// Whether the output head is the embedding; `None` when the file's list of tensors decides.
    pub tied: Option<bool>,
    /// Whether the file is of a model that also sees (Gemma 3 from 4 B on), of which this is the part for text.
    pub also_sees: bool,
}

impl ModelConfig {
    /// Width of all query heads together.
    pub fn q_dim(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key heads (and of all value heads) together.
    pub fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// What scores are multiplied with.
    pub fn score_scale(&self) -> f32 {
        1.0 / self.traits.query_scalar.unwrap_or(self.head_dim as f32).sqrt()
    }

    /// Refuses sizes that do not go together.
    ///
    /// # Errors
    /// Says which.
    pub fn checked(self) -> Result<Self, EngineError> {
        let sensible = |value: f32| value.is_finite() && value > 0.0;
        let traits = &self.traits;
        let factors = [Some(traits.embedding_scale), traits.query_scalar, traits.score_cap, traits.logit_cap];
        let ropes = || [Some(&self.rope), traits.local_rope.as_ref()].into_iter().flatten();
        let problem = if self.kv_heads == 0 || !self.heads.is_multiple_of(self.kv_heads) {
            "the number of query heads is not a multiple of the number of key heads"
        } else if !self.rope.dim.is_multiple_of(2) || self.rope.dim > self.head_dim {
            "the rotated part of a head is odd or larger than the head"
        } else if !(self.rms_eps.is_finite() && self.rms_eps >= 0.0 && ropes().all(|rope| sensible(rope.base))) {
            "RMSNorm's epsilon or RoPE's base is not a sensible number"
        } else if !ropes().all(|rope| sensible(rope.magnitude) && rope.freq_divisors.iter().all(|v| sensible(*v))) {
            "RoPE's scaling does not give sensible numbers"
        } else if !ropes().all(|rope| rope.freq_divisors.is_empty() || rope.freq_divisors.len() == rope.dim / 2) {
            "RoPE's divisors do not fit the heads"
        } else if ropes().any(|rope| rope.dim != self.rope.dim) {
            "blocks differ in how much of a head is rotated"
        } else if !factors.into_iter().flatten().all(sensible) {
            "a scale or cap is not a positive number"
        } else if self.heads.saturating_mul(self.head_dim) as u64 > MAX_SIZE {
            "the heads are too large"
        } else {
            return Ok(self);
        };
        Err(EngineError::Inconsistent(problem.into()))
    }
}

fn checked_size(key: &str, value: Option<u64>, limit: u64) -> Result<usize, EngineError> {
    match value {
        Some(value) if value >= 1 && value <= limit => Ok(value as usize),
        Some(value) => Err(EngineError::Inconsistent(format!("{key} is {value}; it must be between 1 and {limit}"))),
        None => Err(EngineError::Inconsistent(format!("{key} is missing or is not a whole number"))),
    }
}

/// A factor, length or turn count of RoPE's scaling: a positive number.
fn positive(key: &str, value: Option<f64>) -> Result<f64, EngineError> {
    match value {
        Some(value) if value.is_finite() && value > 0.0 => Ok(value),
        Some(value) => Err(EngineError::Inconsistent(format!("{key} is {value}; it must be a positive number"))),
        None => Err(EngineError::Inconsistent(format!("{key} is missing or is not a number"))),
    }
}

#[cfg(test)]
mod tests;
