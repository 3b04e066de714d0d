//! The sizes of a decoder of the Llama kind, from GGUF metadata or from a Hugging Face `config.json`.

use serde::Deserialize;

use super::error::EngineError;
use super::gguf::{Gguf, Value};

/// Largest number of anything that a config may state; keeps every product of two inside 64 bits and refuses nonsense.
const MAX_SIZE: u64 = 1 << 24;
const MAX_LAYERS: u64 = 512;

/// Rotary position embedding (RoPE).
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// θ: the base of the geometric series of wavelengths.
    pub base: f32,
    /// How many elements of each head are rotated; even, at most the head's size.
    pub dim: usize,
    /// Per-pair divisors of the frequency (`rope_freqs.weight` of Llama 3.1), `dim / 2` of them; empty for none.
    pub freq_divisors: Vec<f32>,
    /// What cosines and sines are multiplied with: YaRN's attention factor, else 1.
    pub magnitude: f32,
}

impl RopeConfig {
    /// Angular frequencies of the pairs, `[dim / 2]`, radians per position.
    pub fn frequencies(&self) -> Vec<f32> {
        (0..self.dim / 2)
            .map(|i| {
                let frequency = f64::from(self.base).powf(-2.0 * i as f64 / self.dim as f64);
                (frequency / f64::from(self.freq_divisors.get(i).copied().unwrap_or(1.0))) as f32
            })
            .collect()
    }

    /// Cosines and sines at one position, times the magnitude, each `[dim / 2]`, appended pair by pair as (cos, sin) to `out`.
    pub fn rotation_at(&self, frequencies: &[f32], position: usize, out: &mut Vec<f32>) {
        for &frequency in frequencies {
            // The product is formed in single precision, as ggml does, so that long contexts agree with it.
            let angle = position as f32 * frequency;
            let (sin, cos) = f64::from(angle).sin_cos();
            out.extend([cos as f32 * self.magnitude, sin as f32 * self.magnitude]);
        }
    }
}

impl RopeConfig {
    /// The (cos, sin) pairs of `count` positions from `start`, `[count, dim]`.
    pub fn rotations(&self, frequencies: &[f32], start: usize, count: usize) -> Vec<f32> {
        let mut rotation = Vec::with_capacity(count * self.dim);
        for position in start..start + count {
            self.rotation_at(frequencies, position, &mut rotation);
        }
        rotation
    }
}

/// The shape of a decoder of the Llama kind (Llama, Mistral, Qwen, SmolLM). All sizes are at least 1.
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
    /// Width of the SwiGLU's inside.
    pub ffn: usize,
    /// Longest sequence the model was made for, tokens.
    pub context: usize,
    /// ε of RMSNorm.
    pub rms_eps: f32,
    /// Positions.
    pub rope: RopeConfig,
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

    /// Reads the metadata of architecture `llama`. The vocabulary's size comes from the embedding tensor.
    ///
    /// # Errors
    /// Another architecture, a missing or impossible size, or a RoPE scaling that is not supported.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Self, EngineError> {
        let arch = gguf.get("general.architecture").and_then(Value::as_str).unwrap_or("(none)");
        if arch != "llama" {
            return Err(EngineError::Unsupported(format!(
                "the file's architecture is {arch:?}; this engine runs \"llama\""
            )));
        }
        let size = |key: &str, default: Option<u64>, limit: u64| -> Result<usize, EngineError> {
            let value = match gguf.get(&format!("llama.{key}")) {
                Some(value) => value.as_u64(),
                None => default,
            };
            checked_size(key, value, limit)
        };
        let float = |key: &str, default: f64| match gguf.get(&format!("llama.{key}")) {
            Some(value) => value.as_f64().unwrap_or(f64::NAN),
            None => default,
        };
        if let Some(kind) = gguf.get("llama.rope.scaling.type").and_then(Value::as_str)
            && kind != "none"
        {
            return Err(EngineError::Unsupported(format!("RoPE scaling {kind:?}")));
        }
        let dim = size("embedding_length", None, MAX_SIZE)?;
        let heads = size("attention.head_count", None, MAX_SIZE)?;
        let head_dim = size("attention.key_length", Some((dim / heads) as u64), MAX_SIZE)?;
        if size("attention.value_length", Some(head_dim as u64), MAX_SIZE)? != head_dim {
            return Err(EngineError::Unsupported("keys and values of different sizes".into()));
        }
        let vocab = match gguf.tensors().get("token_embd.weight").map(|info| info.dims.as_slice()) {
            Some(&[_, rows]) => rows,
            _ => return Err(EngineError::Inconsistent("there is no matrix \"token_embd.weight\"".into())),
        };
        let rope_dim = size("rope.dimension_count", Some(head_dim as u64), MAX_SIZE)?;
        let freq_divisors = match gguf.tensor("rope_freqs.weight") {
            Some((info, bytes)) => {
                let mut divisors = vec![0.0; info.elements()];
                if !super::quant::dequantize(info.dtype, bytes, &mut divisors) || divisors.len() != rope_dim / 2 {
                    return Err(EngineError::Inconsistent("\"rope_freqs.weight\" does not fit the heads".into()));
                }
                divisors
            }
            None => Vec::new(),
        };
        Self {
            name: gguf.get("general.name").and_then(Value::as_str).unwrap_or("unnamed").to_owned(),
            vocab,
            dim,
            layers: size("block_count", None, MAX_LAYERS)?,
            heads,
            kv_heads: size("attention.head_count_kv", Some(heads as u64), MAX_SIZE)?,
            head_dim,
            ffn: size("feed_forward_length", None, MAX_SIZE)?,
            context: size("context_length", None, MAX_SIZE)?,
            rms_eps: float("attention.layer_norm_rms_epsilon", 1e-5) as f32,
            rope: RopeConfig {
                base: float("rope.freq_base", 10_000.0) as f32,
                dim: rope_dim,
                freq_divisors,
                magnitude: 1.0,
            },
        }
        .checked()
    }

    /// Reads the `config.json` of a Hugging Face checkpoint of type `llama`.
    ///
    /// # Errors
    /// Malformed JSON, another model type, an impossible size, or a RoPE scaling that is not supported.
    pub fn from_hf_json(json: &[u8]) -> Result<Self, EngineError> {
        let hf: HfConfig = serde_json::from_slice(json)
            .map_err(|error| EngineError::Inconsistent(format!("config.json cannot be read: {error}")))?;
        if hf.model_type != "llama" {
            return Err(EngineError::Unsupported(format!(
                "model type {:?}; this engine runs \"llama\"",
                hf.model_type
            )));
        }
        let scaling = hf.rope_scaling.as_ref().or(hf.rope_parameters.as_ref());
        let kind = scaling.and_then(|s| s.get("rope_type").or_else(|| s.get("type"))).and_then(|v| v.as_str());
        if let Some(kind) = kind.filter(|kind| *kind != "default") {
            return Err(EngineError::Unsupported(format!("RoPE scaling {kind:?}")));
        }
        // transformers 5 moved the base into `rope_parameters`.
        let base = hf.rope_theta.or_else(|| hf.rope_parameters.as_ref()?.get("rope_theta")?.as_f64());
        let size = |key: &str, value: u64| checked_size(key, Some(value), MAX_SIZE);
        let dim = size("hidden_size", hf.hidden_size)?;
        let heads = size("num_attention_heads", hf.num_attention_heads)?;
        let head_dim = size("head_dim", hf.head_dim.unwrap_or((dim / heads) as u64))?;
        Self {
            name: hf.name_or_path.filter(|name| !name.is_empty()).unwrap_or_else(|| "llama".into()),
            vocab: size("vocab_size", hf.vocab_size)?,
            dim,
            layers: checked_size("num_hidden_layers", Some(hf.num_hidden_layers), MAX_LAYERS)?,
            heads,
            kv_heads: size("num_key_value_heads", hf.num_key_value_heads.unwrap_or(heads as u64))?,
            head_dim,
            ffn: size("intermediate_size", hf.intermediate_size)?,
            context: size("max_position_embeddings", hf.max_position_embeddings)?,
            rms_eps: hf.rms_norm_eps as f32,
            rope: RopeConfig {
                base: base.unwrap_or(10_000.0) as f32,
                dim: head_dim,
                freq_divisors: Vec::new(),
                magnitude: 1.0,
            },
        }
        .checked()
    }

    /// Refuses sizes that do not go together.
    ///
    /// # Errors
    /// Says which.
    pub fn checked(self) -> Result<Self, EngineError> {
        let problem = if !self.heads.is_multiple_of(self.kv_heads) {
            "the number of query heads is not a multiple of the number of key heads"
        } else if !self.rope.dim.is_multiple_of(2) || self.rope.dim > self.head_dim {
            "the rotated part of a head is odd or larger than the head"
        } else if !(self.rms_eps.is_finite()
            && self.rms_eps >= 0.0
            && self.rope.base.is_finite()
            && self.rope.base > 0.0)
        {
            "RMSNorm's epsilon or RoPE's base is not a sensible number"
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

#[derive(Deserialize)]
struct HfConfig {
    model_type: String,
    #[serde(rename = "_name_or_path")]
    name_or_path: Option<String>,
    vocab_size: u64,
    hidden_size: u64,
    num_hidden_layers: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    intermediate_size: u64,
    max_position_embeddings: u64,
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<serde_json::Value>,
    rope_parameters: Option<serde_json::Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const HF: &str = r#"{"model_type":"llama","vocab_size":2048,"hidden_size":256,"num_hidden_layers":6,
        "num_attention_heads":8,"num_key_value_heads":4,"intermediate_size":704,"max_position_embeddings":512,
        "rms_norm_eps":1e-5,"rope_theta":10000.0}"#;

    #[test]
    fn reads_a_hugging_face_config() {
        let config = ModelConfig::from_hf_json(HF.as_bytes()).unwrap();
        assert_eq!((config.dim, config.head_dim, config.kv_dim(), config.ffn), (256, 32, 128, 704));
        assert_eq!(config.rope.frequencies().len(), 16);
    }

    #[test]
    fn refuses_what_it_cannot_run() {
        for (from, to, expect) in [
            ("\"llama\"", "\"mamba\"", "mamba"),
            ("\"num_attention_heads\":8", "\"num_attention_heads\":0", "num_attention_heads"),
            ("\"num_key_value_heads\":4", "\"num_key_value_heads\":3", "multiple"),
            ("\"rope_theta\":10000.0", "\"rope_scaling\":{\"rope_type\":\"yarn\"}", "yarn"),
            ("\"num_hidden_layers\":6", "\"num_hidden_layers\":100000", "num_hidden_layers"),
            ("\"hidden_size\":256", "\"hidden_size\":-1", "config.json"),
        ] {
            let error = ModelConfig::from_hf_json(HF.replace(from, to).as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expect), "{to}: {error}");
        }
    }

    #[test]
    fn rotation_is_a_rotation() {
        let rope = RopeConfig { base: 10_000.0, dim: 8, freq_divisors: vec![1.0, 2.0, 4.0, 8.0], magnitude: 1.0 };
        let frequencies = rope.frequencies();
        let mut out = Vec::new();
        rope.rotation_at(&frequencies, 0, &mut out);
        assert_eq!(out, [1.0, 0.0].repeat(4));
        out.clear();
        rope.rotation_at(&frequencies, 3, &mut out);
        assert!((out[0] - 3f32.cos()).abs() < 1e-6 && (out[1] - 3f32.sin()).abs() < 1e-6);
        // Pair 1: base^(-2/8) = 0.1, divided by 2.
        assert!((out[2] - 0.15f32.cos()).abs() < 1e-6);
    }
}
