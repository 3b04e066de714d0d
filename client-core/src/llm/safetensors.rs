//! Hugging Face checkpoints of the Llama architecture: `config.json`, `tokenizer.json` and safetensors, as bytes.
//!
//! Hugging Face rotates element i of a head with element i + head_dim/2; this engine, like ggml, rotates neighbours. The
//! query and key rows are therefore reordered here, once.

use ::safetensors::{Dtype, SafeTensors};

use super::config::ModelConfig;
use super::error::EngineError;
use super::gguf::GgmlType;
use super::quant;
use super::weights::{LayerTraits, LayerWeights, Matrix, ModelWeights, wrong_shape};

/// The files of a checkpoint.
#[derive(Debug, Clone)]
pub struct Checkpoint<'a> {
    /// `config.json`.
    pub config: &'a [u8],
    /// `tokenizer.json`.
    pub tokenizer: &'a [u8],
    /// `tokenizer_config.json`: names of the special tokens, and often the chat template.
    pub tokenizer_config: Option<&'a [u8]>,
    /// `chat_template.jinja`, where newer checkpoints keep the template.
    pub chat_template: Option<&'a [u8]>,
    /// `model.safetensors`, or all its shards.
    pub shards: Vec<&'a [u8]>,
    /// How matrices are to be stored; rows that are not whole blocks of it stay single precision.
    pub store_as: GgmlType,
}

impl Checkpoint<'_> {
    /// The chat template's source.
    ///
    /// # Errors
    /// It is not UTF-8, or `tokenizer_config.json` is not JSON.
    pub fn template(&self) -> Result<Option<String>, EngineError> {
        if let Some(bytes) = self.chat_template {
            let text = std::str::from_utf8(bytes).map_err(|error| EngineError::Template(error.to_string()))?;
            return Ok(Some(text.to_owned()));
        }
        let Some(json) = self.tokenizer_config else { return Ok(None) };
        let config: serde_json::Value = serde_json::from_slice(json)
            .map_err(|error| EngineError::Template(format!("tokenizer_config.json cannot be read: {error}")))?;
        Ok(config.get("chat_template").and_then(serde_json::Value::as_str).map(str::to_owned))
    }

    /// All tensors, in this engine's order and checked against the config.
    ///
    /// # Errors
    /// A file is malformed, a tensor is missing, has another shape or a type other than F32, F16 and BF16.
    pub fn weights(&self) -> Result<ModelWeights<'static>, EngineError> {
        let config = ModelConfig::from_hf_json(self.config)?;
        let mut shards = Vec::with_capacity(self.shards.len());
        for bytes in &self.shards {
            let shard = SafeTensors::deserialize(bytes)
                .map_err(|error| EngineError::Inconsistent(format!("the safetensors file cannot be read: {error}")))?;
            shards.push(shard);
        }
        let tensors = Tensors { shards, store_as: self.store_as };
        let mut layers = Vec::new();
        for layer in 0..config.layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
            let matrix = |part: &str, rows, cols| tensors.matrix(&name(part), rows, cols, None);
            let rotated = |part: &str, rows| tensors.matrix(&name(part), rows, config.dim, Some(&config));
            layers.push(LayerWeights {
                attn_norm: tensors.values(&name("input_layernorm"), &[config.dim])?,
                q: rotated("self_attn.q_proj", config.q_dim())?,
                k: rotated("self_attn.k_proj", config.kv_dim())?,
                v: matrix("self_attn.v_proj", config.kv_dim(), config.dim)?,
                o: matrix("self_attn.o_proj", config.dim, config.q_dim())?,
                ffn_norm: tensors.values(&name("post_attention_layernorm"), &[config.dim])?,
                gate: matrix("mlp.gate_proj", config.ffn, config.dim)?,
                up: matrix("mlp.up_proj", config.ffn, config.dim)?,
                down: matrix("mlp.down_proj", config.dim, config.ffn)?,
                traits: LayerTraits::default(),
            });
        }
        let output = match tensors.has("lm_head.weight") {
            true => Some(tensors.matrix("lm_head.weight", config.vocab, config.dim, None)?),
            false => None,
        };
        Ok(ModelWeights {
            embedding: tensors.matrix("model.embed_tokens.weight", config.vocab, config.dim, None)?,
            output_norm: tensors.values("model.norm.weight", &[config.dim])?,
            layers,
            output,
            config,
        })
    }
}

struct Tensors<'a> {
    shards: Vec<SafeTensors<'a>>,
    store_as: GgmlType,
}

impl Tensors<'_> {
    fn has(&self, name: &str) -> bool {
        self.shards.iter().any(|shard| shard.tensor(name).is_ok())
    }

    fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, EngineError> {
        let view = self.shards.iter().find_map(|shard| shard.tensor(name).ok());
        let view = view.ok_or_else(|| EngineError::Inconsistent(format!("tensor {name:?} is missing")))?;
        if view.shape() != shape {
            return Err(wrong_shape(name, view.shape(), shape));
        }
        let dtype = match view.dtype() {
            Dtype::F32 => GgmlType::F32,
            Dtype::F16 => GgmlType::F16,
            Dtype::BF16 => GgmlType::Bf16,
            other => return Err(EngineError::Unsupported(format!("tensor {name:?} is stored as {other:?}"))),
        };
        let mut out = vec![0.0; shape.iter().product()];
        if !quant::dequantize(dtype, view.data(), &mut out) {
            return Err(EngineError::Inconsistent(format!("tensor {name:?} has the wrong number of bytes")));
        }
        Ok(out)
    }

    /// A matrix; `heads` is given when its rows are to be reordered for RoPE.
    fn matrix(
        &self,
        name: &str,
        rows: usize,
        cols: usize,
        heads: Option<&ModelConfig>,
    ) -> Result<Matrix<'static>, EngineError> {
        let mut values = self.values(name, &[rows, cols])?;
        if let Some(config) = heads {
            values = interleave_heads(&values, config.head_dim, cols);
        }
        let dtype = if self.store_as.row_bytes(cols).is_some() { self.store_as } else { GgmlType::F32 };
        Matrix::encode(dtype, rows, cols, &values)
    }
}

/// Moves row i of each head to place 2i and row i + head_dim/2 to place 2i + 1. `values` is `[heads · head_dim, cols]`.
pub fn interleave_heads(values: &[f32], head_dim: usize, cols: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for head in values.chunks_exact(head_dim * cols) {
        let (first, second) = head.split_at(head_dim / 2 * cols);
        for (a, b) in first.chunks_exact(cols).zip(second.chunks_exact(cols)) {
            out.extend_from_slice(a);
            out.extend_from_slice(b);
        }
    }
    out
}

#[cfg(test)]
#[path = "safetensors_tests.rs"]
mod tests;
