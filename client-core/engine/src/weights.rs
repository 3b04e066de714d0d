//! A model's tensors, checked against its config: what every backend is built from, whatever file they came in.
//!
//! Matrices are `[rows, cols]` row-major: `rows` outputs, `cols` inputs, each row contiguous (ggml's `dims = [cols,
//! rows]`). Query and key rows are in ggml's order for architecture `llama`: RoPE rotates neighbours (2i, 2i + 1);
//! [`super::assemble`] reorders those of files that have them otherwise.

use std::borrow::Cow;

use super::config::{ModelConfig, Positions};
use super::error::EngineError;
use super::gguf::GgmlType;
use super::quant;

/// One matrix in its stored form.
#[derive(Debug, Clone)]
pub struct Matrix<'a> {
    /// How the elements are stored.
    pub dtype: GgmlType,
    /// Outputs.
    pub rows: usize,
    /// Inputs; whole blocks of `dtype`.
    pub cols: usize,
    /// `rows · row_bytes(cols)` bytes.
    pub bytes: Cow<'a, [u8]>,
}

impl Matrix<'_> {
    /// All elements, `[rows, cols]`.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.rows * self.cols];
        let fits = quant::dequantize(self.dtype, &self.bytes, &mut out);
        debug_assert!(fits, "matrices are checked when they are made");
        out
    }

    /// One row's elements, `[cols]`; `None` past the last row.
    pub fn row_f32(&self, row: usize) -> Option<Vec<f32>> {
        let row_bytes = self.dtype.row_bytes(self.cols)?;
        let start = row.checked_mul(row_bytes)?;
        let bytes = self.bytes.get(start..start.checked_add(row_bytes)?)?;
        let mut out = vec![0.0; self.cols];
        quant::dequantize(self.dtype, bytes, &mut out).then_some(out)
    }

    /// A matrix over `values`, encoded as `dtype`.
    ///
    /// # Errors
    /// The number of values is not `rows · cols`, or a row is not whole blocks.
    pub fn encode(dtype: GgmlType, rows: usize, cols: usize, values: &[f32]) -> Result<Matrix<'static>, EngineError> {
        let whole_rows = dtype.row_bytes(cols).is_some() && rows.checked_mul(cols) == Some(values.len());
        match quant::quantize(dtype, values).filter(|_| whole_rows) {
            Some(bytes) => Ok(Matrix { dtype, rows, cols, bytes: Cow::Owned(bytes) }),
            None => {
                Err(EngineError::Inconsistent(format!("{rows} × {cols} values cannot be stored as {}", dtype.name())))
            }
        }
    }
}

/// The tensors of one block.
#[derive(Debug, Clone)]
pub struct LayerWeights<'a> {
    /// RMSNorm before attention, `[dim]`.
    pub attn_norm: Vec<f32>,
    /// Queries, `[q_dim, dim]`.
    pub q: Matrix<'a>,
    /// Keys, `[kv_dim, dim]`.
    pub k: Matrix<'a>,
    /// Values, `[kv_dim, dim]`.
    pub v: Matrix<'a>,
    /// Attention's way back, `[dim, q_dim]`.
    pub o: Matrix<'a>,
    /// RMSNorm before the feed-forward net, `[dim]`.
    pub ffn_norm: Vec<f32>,
    /// The feed-forward net's gate, `[ffn, dim]`.
    pub gate: Matrix<'a>,
    /// Its other half, `[ffn, dim]`.
    pub up: Matrix<'a>,
    /// Its way back, `[dim, ffn]`.
    pub down: Matrix<'a>,
    /// What families differ in.
    pub traits: LayerTraits,
}

/// What the blocks of some families have beside those of Llama. Query and key parts are in the order of the matrices'
/// rows: RoPE rotates neighbours.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerTraits {
    /// Added to queries, keys and values, `[q_dim + 2·kv_dim]` (Qwen2).
    pub qkv_bias: Option<Vec<f32>>,
    /// RMSNorm of every query head before RoPE, `[head_dim]` (Qwen3, Gemma 3).
    pub q_norm: Option<Vec<f32>>,
    /// RMSNorm of every key head before RoPE, `[head_dim]` (Qwen3, Gemma 3).
    pub k_norm: Option<Vec<f32>>,
    /// RMSNorm of what attention gives, before it is added, `[dim]` (Gemma 2 and 3).
    pub post_attn_norm: Option<Vec<f32>>,
    /// RMSNorm of what the feed-forward net gives, before it is added, `[dim]` (Gemma 2 and 3).
    pub post_ffn_norm: Option<Vec<f32>>,
    /// How queries and keys are rotated; some of SmolLM3's blocks have no positions (NoPE).
    pub rope: Positions,
    /// A token sees itself and the `window − 1` tokens before it; `None` for all of them. At least 1 (Mistral,
    /// Gemma 2 and 3).
    pub window: Option<usize>,
}

impl Default for LayerTraits {
    /// Llama's: no biases, no norms inside attention, rotated, all tokens seen.
    fn default() -> Self {
        Self {
            qkv_bias: None,
            q_norm: None,
            k_norm: None,
            post_attn_norm: None,
            post_ffn_norm: None,
            rope: Positions::Main,
            window: None,
        }
    }
}

impl LayerTraits {
    /// Elements of its biases and norms.
    pub fn elements(&self) -> usize {
        let lists = [&self.qkv_bias, &self.q_norm, &self.k_norm, &self.post_attn_norm, &self.post_ffn_norm];
        lists.iter().map(|list| list.as_ref().map_or(0, Vec::len)).sum()
    }

    /// The first position that the token at `position` sees.
    pub fn first_seen(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }
}

/// All tensors of a model.
#[derive(Debug, Clone)]
pub struct ModelWeights<'a> {
    /// The sizes that all tensors have been checked against.
    pub config: ModelConfig,
    /// Token embedding, `[vocab, dim]`.
    pub embedding: Matrix<'a>,
    /// The blocks, first to last.
    pub layers: Vec<LayerWeights<'a>>,
    /// RMSNorm after the last block, `[dim]`.
    pub output_norm: Vec<f32>,
    /// Output head, `[vocab, dim]`; `None` when it is the embedding itself (tied).
    pub output: Option<Matrix<'a>>,
}

impl<'a> ModelWeights<'a> {
    /// The output head: its own matrix, or the embedding when they are tied.
    pub fn head(&self) -> &Matrix<'a> {
        self.output.as_ref().unwrap_or(&self.embedding)
    }

    fn matrices(&self) -> impl Iterator<Item = &Matrix<'a>> {
        let layers = self.layers.iter().flat_map(|l| [&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down]);
        layers.chain([&self.embedding]).chain(self.output.as_ref())
    }

    /// Number of parameters; a tied embedding counts once.
    pub fn parameters(&self) -> u64 {
        let matrices: u64 = self.matrices().map(|m| m.rows as u64 * m.cols as u64).sum();
        let extras: usize = self.layers.iter().map(|layer| layer.traits.elements()).sum();
        matrices + extras as u64 + (2 * self.config.layers as u64 + 1) * self.config.dim as u64
    }

    /// Bytes of all matrices as stored.
    pub fn bytes(&self) -> u64 {
        self.matrices().map(|m| m.bytes.len() as u64).sum()
    }

    /// The storage type of most of the blocks' bytes: what a model page calls its quantisation.
    pub fn quantisation(&self) -> &'static str {
        self.layers.first().map_or("none", |layer| layer.gate.dtype.name())
    }
}
