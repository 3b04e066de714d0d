//! A [`Blueprint`] from GGUF metadata, with the keys and defaults of llama.cpp.

use super::gemma::{self, Gemma};
use super::rope::yarn_magnitude;
use super::{
    Blueprint, LayerPlan, MAX_LAYERS, MAX_SIZE, ModelConfig, ModelTraits, Positions, RopeConfig, RopeScaling,
    checked_size, positive,
};
use crate::error::EngineError;
use crate::gguf::{Gguf, TensorInfo, Value};
use crate::quant;

/// SmolLM3: every block whose number (from 1) is a multiple of this has no positions. GGUF has no key for it.
const SMOLLM3_NOPE_STEP: usize = 4;

/// Keys of computations that this engine does not have; present with a value that changes something, they refuse the file.
const FOREIGN: [&str; 6] = [
    "expert_count",
    "embedding_scale",
    "residual_scale",
    "logit_scale",
    "attention.scale",
    "rope.scaling.yarn_log_multiplier",
];
/// Those that only Gemma 2 and 3 have: caps of scores and of logits, and how often a block sees all tokens.
const CAPS: [&str; 2] = ["attn_logit_softcapping", "final_logit_softcapping"];
const PATTERN: &str = "attention.sliding_window_pattern";
/// Gemma 3's alone: RoPE's base in blocks that see a window.
const LOCAL_BASE: &str = "rope.freq_base_swa";
/// Blocks of the Gemmas, by generation, whose scores are divided by the root of the width that a head would have without
/// a size of its own. GGUF has no key for it.
const DIVIDED_BY_WIDTH: [(Gemma, usize); 2] = [(Gemma::Two, 46), (Gemma::Three, 62)];

/// The tensor that holds what rotations are divided by.
const DIVISORS: &str = "rope_freqs.weight";

struct Keys<'g, 'a> {
    gguf: &'g Gguf<'a>,
    arch: &'a str,
}

impl<'a> Keys<'_, 'a> {
    fn raw(&self, key: &str) -> Option<&Value<'a>> {
        self.gguf.get(&format!("{}.{key}", self.arch))
    }

    /// A value; the number itself where it is written as a list with the same number for every block.
    fn get(&self, key: &str) -> Option<Value<'a>> {
        let value = self.raw(key)?;
        Some(value.single().unwrap_or_else(|| value.clone()))
    }

    fn size(&self, key: &str, default: Option<usize>, limit: u64) -> Result<usize, EngineError> {
        let value = match self.get(key) {
            Some(Value::Array(_)) => {
                return Err(EngineError::Unsupported(format!("{}.{key} is another for every block", self.arch)));
            }
            Some(value) => value.as_u64(),
            None => default.map(|v| v as u64),
        };
        checked_size(key, value, limit)
    }

    /// A positive number; one of another kind is an error, a missing one the default.
    fn number(&self, key: &str, default: Option<f64>) -> Result<f64, EngineError> {
        let value = match self.get(key) {
            Some(value) => value.as_f64(),
            None => default,
        };
        positive(key, value)
    }

    fn rope_scaling(&self, context: usize) -> Result<RopeScaling, EngineError> {
        let factor =
            || self.number("rope.scaling.factor", self.get("rope.scale_linear").and_then(|value| value.as_f64()));
        // llama.cpp takes a factor without a type as linear, and a factor of 0 as none.
        let stated = |key| self.get(key).and_then(|value| value.as_f64()).is_some_and(|v| v != 0.0);
        let default = if stated("rope.scaling.factor") || stated("rope.scale_linear") { "linear" } else { "none" };
        let kind = self.get("rope.scaling.type");
        match kind.as_ref().and_then(Value::as_str).unwrap_or(default) {
            "none" => Ok(RopeScaling::None),
            "linear" if default == "none" => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear { factor: factor()? }),
            "yarn" => {
                let factor = factor()?;
                if self.get("rope.scaling.yarn_ext_factor").is_some_and(|v| v.as_f64() != Some(1.0)) {
                    return Err(EngineError::Unsupported("YaRN with another extrapolation factor than 1".into()));
                }
                let attention = self.number("rope.scaling.attn_factor", Some(1.0))?
                    * self.number("rope.scaling.yarn_attn_factor", Some(1.0))?;
                Ok(RopeScaling::Yarn {
                    factor,
                    original: self.number("rope.scaling.original_context_length", Some(context as f64))?,
                    beta_fast: self.number("rope.scaling.yarn_beta_fast", Some(32.0))?,
                    beta_slow: self.number("rope.scaling.yarn_beta_slow", Some(1.0))?,
                    truncate: true,
                    magnitude: attention * yarn_magnitude(factor, 1.0),
                })
            }
            other => Err(EngineError::Unsupported(format!("RoPE scaling {other:?}"))),
        }
    }

    /// What a Gemma of this width, with so many heads and blocks, does differently.
    fn gemma(
        &self,
        gemma: Gemma,
        [dim, heads, layers]: [usize; 3],
        rotated: usize,
    ) -> Result<ModelTraits, EngineError> {
        let mut traits = Gemma::traits(dim);
        if DIVIDED_BY_WIDTH.contains(&(gemma, layers)) {
            traits.query_scalar = Some((dim / heads) as f32);
        }
        if gemma.is_later() {
            let cap = |key: &str, usual: Option<f64>| match self.get(key).map(|value| value.as_f64()) {
                None if usual.is_none() => Ok(None),
                // As in llama.cpp.
                Some(Some(0.0)) => Ok(None),
                _ => self.number(key, usual).map(|cap| Some(cap as f32)),
            };
            let [of_scores, of_logits] = gemma.caps();
            traits.score_cap = cap(CAPS[0], of_scores)?;
            traits.logit_cap = cap(CAPS[1], of_logits)?;
        }
        if gemma == Gemma::Three {
            let base = self.number(LOCAL_BASE, Some(gemma::LOCAL_BASE))? as f32;
            traits.local_rope = Some(RopeConfig::new(base, rotated, RopeScaling::None));
        }
        Ok(traits)
    }

    /// Which blocks of a Gemma see a window only: a list says so, or every so many-th does not.
    fn slides(&self, gemma: Gemma, layers: usize) -> Result<Vec<bool>, EngineError> {
        let Some(Value::Array(list)) = self.raw(PATTERN) else {
            let step = self.size(PATTERN, Some(gemma.step()), MAX_LAYERS)?;
            return Ok((1..=layers).map(|nth| !nth.is_multiple_of(step)).collect());
        };
        let list: Option<Vec<bool>> = list.iter().map(|value| value.as_bool()).collect();
        list.filter(|list| list.len() == layers).ok_or_else(|| {
            EngineError::Inconsistent(format!("{PATTERN:?} does not say true or false of each of the {layers} blocks"))
        })
    }

    /// The embedding, with `divisors` (Llama 3.1's `rope_freqs.weight`, made by the converter) worked in.
    fn rope(&self, head_dim: usize, context: usize, divisors: Option<&[u8]>) -> Result<RopeConfig, EngineError> {
        let dim = self.size("rope.dimension_count", Some(head_dim), MAX_SIZE)?;
        let base = self.number("rope.freq_base", Some(10_000.0))? as f32;
        let mut rope = RopeConfig::new(base, dim, self.rope_scaling(context)?);
        if let (Some(info), Some(bytes)) = (self.gguf.tensors().get(DIVISORS), divisors) {
            let mut divisors = vec![0.0; dim / 2];
            if info.elements() != dim / 2 || !quant::dequantize(info.dtype, bytes, &mut divisors) {
                return Err(EngineError::Inconsistent("\"rope_freqs.weight\" does not fit the heads".into()));
            }
            for (divisor, scaling) in divisors.iter_mut().zip(&rope.freq_divisors) {
                *divisor *= scaling;
            }
            rope.freq_divisors = divisors;
        }
        Ok(rope)
    }
}

impl Blueprint {
    /// Reads the metadata of a model of architecture `llama` (which Mistral and SmolLM2 also call themselves), `qwen2`,
    /// `qwen3`, `smollm3`, `gemma`, `gemma2` or `gemma3`. The vocabulary's size comes from the embedding tensor.
    ///
    /// # Errors
    /// Another architecture, a missing or impossible size, or a computation that this engine does not have; by name.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Self, EngineError> {
        let divisors = match Self::divisors(gguf) {
            None => None,
            Some(info) => {
                let missing = || EngineError::Inconsistent(format!("{DIVISORS:?} is not in memory"));
                Some(gguf.data(info).ok_or_else(missing)?)
            }
        };
        Self::from_gguf_header(gguf, divisors)
    }

    /// The tensor whose bytes [`from_gguf_header`](Self::from_gguf_header) needs.
    pub fn divisors<'g>(gguf: &'g Gguf<'_>) -> Option<&'g TensorInfo> {
        gguf.tensors().get(DIVISORS)
    }

    /// As [`from_gguf`](Self::from_gguf), for a file of which only the header is in memory, and what
    /// [`divisors`](Self::divisors) names. Without those bytes everything is right but the positions: enough for a model
    /// that is only weighed.
    ///
    /// # Errors
    /// The same.
    pub fn from_gguf_header(gguf: &Gguf<'_>, divisors: Option<&[u8]>) -> Result<Self, EngineError> {
        let arch = gguf.get("general.architecture").and_then(Value::as_str).unwrap_or("(none)");
        let gemma = Gemma::named(arch).filter(|_| arch != "gemma3_text");
        if gemma.is_none() && !["llama", "qwen2", "qwen3", "smollm3"].contains(&arch) {
            return Err(EngineError::Unsupported(format!(
                "the file's architecture is {arch:?}; this engine runs \"llama\" (also Mistral and SmolLM2), \"qwen2\", \
                 \"qwen3\", \"smollm3\", \"gemma\", \"gemma2\" and \"gemma3\""
            )));
        }
        let keys = Keys { gguf, arch };
        let later = gemma.filter(|gemma| gemma.is_later());
        let foreign = FOREIGN.iter().chain(CAPS.iter().chain([&PATTERN]).filter(|_| later.is_none()));
        for key in foreign.chain([&LOCAL_BASE].into_iter().filter(|_| gemma != Some(Gemma::Three))) {
            if keys.get(key).is_some_and(|value| value.as_f64() != Some(0.0)) {
                return Err(EngineError::Unsupported(format!("{arch}.{key}")));
            }
        }
        if keys.get("attention.causal").and_then(|value| value.as_bool()) == Some(false) {
            return Err(EngineError::Unsupported("attention to later tokens".into()));
        }
        let dim = keys.size("embedding_length", None, MAX_SIZE)?;
        let heads = keys.size("attention.head_count", None, MAX_SIZE)?;
        let head_dim = keys.size("attention.key_length", Some(dim / heads), MAX_SIZE)?;
        if keys.size("attention.value_length", Some(head_dim), MAX_SIZE)? != head_dim {
            return Err(EngineError::Unsupported("keys and values of different sizes".into()));
        }
        let vocab = match gguf.tensors().get("token_embd.weight").map(|info| info.dims.as_slice()) {
            Some(&[_, rows]) => checked_size("the number of tokens", Some(rows as u64), MAX_SIZE)?,
            _ => return Err(EngineError::Inconsistent("there is no matrix \"token_embd.weight\"".into())),
        };
        let layers = keys.size("block_count", None, MAX_LAYERS)?;
        let context = keys.size("context_length", None, MAX_SIZE)?;
        let window = match keys.get("attention.sliding_window") {
            Some(value) if value.as_u64() != Some(0) => {
                Some(checked_size("attention.sliding_window", value.as_u64(), u64::from(u32::MAX))?)
            }
            None if gemma == Some(Gemma::Two) => Some(gemma::WINDOW),
            _ => None,
        };
        let slides = later.map(|gemma| keys.slides(gemma, layers)).transpose()?;
        let plan = |layer: usize| {
            let window = window.filter(|_| slides.as_ref().is_none_or(|slides| slides[layer]));
            let rope = match gemma {
                Some(Gemma::Three) if window.is_some() => Positions::Local,
                None if arch == "smollm3" && (layer + 1).is_multiple_of(SMOLLM3_NOPE_STEP) => Positions::None,
                _ => Positions::Main,
            };
            LayerPlan { rope, window }
        };
        let rope = keys.rope(head_dim, context, divisors)?;
        let traits = match gemma {
            None => ModelTraits::default(),
            Some(gemma) => keys.gemma(gemma, [dim, heads, layers], rope.dim)?,
        };
        let config = ModelConfig {
            name: gguf.get("general.name").and_then(Value::as_str).unwrap_or("unnamed").to_owned(),
            vocab,
            dim,
            layers,
            heads,
            kv_heads: keys.size("attention.head_count_kv", Some(heads), MAX_SIZE)?,
            head_dim,
            ffn: keys.size("feed_forward_length", None, MAX_SIZE)?,
            context,
            rms_eps: match keys.get("attention.layer_norm_rms_epsilon") {
                Some(value) => value.as_f64().unwrap_or(f64::NAN) as f32,
                None => 1e-5,
            },
            rope,
            traits,
        };
        Ok(Self {
            config: config.checked()?,
            layers: (0..layers).map(plan).collect(),
            // Converters reorder the rows of `llama` and `smollm3` for neighbours, and leave Qwen's and Gemma's as they were.
            half_split: gemma.is_some() || arch.starts_with("qwen"),
            qk_norm: arch == "qwen3" || gemma == Some(Gemma::Three),
            post_norms: later.is_some(),
            // They also complete Gemma's gains.
            gain_offset: 0.0,
            qkv_bias: arch == "qwen2",
            tied: None,
            also_sees: false,
        })
    }
}
