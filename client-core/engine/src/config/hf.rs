//! A [`Blueprint`] from Hugging Face's `config.json`, with the defaults of the `transformers` classes.

use serde_json::{Map, Value};

use super::gemma::{self, Gemma};
use super::rope::yarn_magnitude;
use super::{
    Blueprint, LayerPlan, MAX_LAYERS, MAX_SIZE, ModelConfig, ModelTraits, Positions, RopeConfig, RopeScaling,
    checked_size, positive,
};
use crate::error::EngineError;

/// Largest `config.json`, bytes; those of real models stay below 10 KiB.
const MAX_CONFIG: usize = 1 << 20;

/// Fields of computations that this engine does not have, with the value at which they change nothing. Files that state them
/// under a type that it runs would load and compute nonsense.
const FOREIGN: [(&str, f64); 11] = [
    ("num_local_experts", 0.0),
    ("num_experts", 0.0),
    ("n_routed_experts", 0.0),
    ("num_experts_per_tok", 0.0),
    ("moe_intermediate_size", 0.0),
    ("embedding_multiplier", 1.0),
    ("residual_multiplier", 1.0),
    ("attention_multiplier", 1.0),
    ("logits_scaling", 1.0),
    ("logit_scale", 1.0),
    ("clip_qkv", 0.0),
];
/// Those that Gemma 2 has, and Gemma 3 may have.
const CAPS: [&str; 2] = ["attn_logit_softcapping", "final_logit_softcapping"];
/// Where weights are said to be quantised in a way of their own: transformers', an older one, and MLX's.
const QUANTISED: [&str; 3] = ["quantization_config", "compression_config", "quantization"];

fn inconsistent(message: String) -> EngineError {
    EngineError::Inconsistent(message)
}

struct Fields(Map<String, Value>);

impl Fields {
    /// A value that is there and not null.
    fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn size(&self, key: &str, default: Option<usize>, limit: u64) -> Result<usize, EngineError> {
        let value = match self.get(key) {
            Some(value) => value.as_u64(),
            None => default.map(|v| v as u64),
        };
        checked_size(key, value, limit)
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.get(key).and_then(Value::as_bool)
    }

    /// A positive number; what is not mentioned is the default, and null is none.
    fn number(&self, key: &str, default: Option<f64>) -> Result<Option<f32>, EngineError> {
        match self.0.get(key) {
            None => Ok(default.map(|value| value as f32)),
            Some(Value::Null) => Ok(None),
            Some(value) => positive(key, value.as_f64()).map(|value| Some(value as f32)),
        }
    }
}

impl Fields {
    /// Refuses what would be left out of the computation, by name and with what helps.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`].
    fn check_foreign(&self, has_caps: bool) -> Result<(), EngineError> {
        if let Some((field, value)) = QUANTISED.iter().find_map(|field| Some((field, self.get(field)?))) {
            let method = value.get("quant_method").and_then(Value::as_str).unwrap_or("of its own");
            return Err(EngineError::Unsupported(format!(
                "config.json has \"{field}\" ({method}): its weights are quantised in a way that this engine does not \
                 read; take the checkpoint that it was made from, or the model as a GGUF file"
            )));
        }
        let caps = CAPS.iter().filter(|_| !has_caps).map(|cap| (*cap, 0.0));
        for (field, neutral) in FOREIGN.into_iter().chain(caps) {
            if let Some(value) = self.get(field).filter(|value| value.as_f64() != Some(neutral)) {
                return Err(EngineError::Unsupported(format!(
                    "config.json has \"{field}\": {value}, a computation that this engine does not have{}",
                    if field.contains("experts") || field.contains("moe") {
                        " (a mixture of experts); take a model without experts"
                    } else {
                        ""
                    }
                )));
            }
        }
        Ok(())
    }
}

impl Blueprint {
    /// Reads the `config.json` of a checkpoint of type `llama`, `mistral`, `qwen2`, `qwen3`, `smollm3`, `gemma`, `gemma2`,
    /// `gemma3_text` or `gemma3`, of which only the part for text is taken.
    ///
    /// # Errors
    /// Malformed JSON, another model type, an impossible size, or a computation that this engine does not have; by name.
    pub fn from_hf_json(json: &[u8]) -> Result<Self, EngineError> {
        if json.len() > MAX_CONFIG {
            return Err(inconsistent(format!("config.json has {} bytes, more than {MAX_CONFIG}", json.len())));
        }
        let fields: Map<String, Value> = serde_json::from_slice(json)
            .map_err(|error| inconsistent(format!("config.json cannot be read: {error}")))?;
        let mut fields = Fields(fields);
        let name = fields.get("_name_or_path").and_then(Value::as_str).filter(|name| !name.is_empty());
        let name = name.map(str::to_owned);
        let kind = fields.get("model_type").and_then(Value::as_str).unwrap_or("(none)").to_owned();
        let kind = kind.as_str();
        let also_sees = kind == "gemma3";
        let gemma = Gemma::named(kind);
        let has_caps = gemma.is_some_and(Gemma::is_later);
        fields.check_foreign(has_caps)?;
        if also_sees {
            let Some(Value::Object(text)) = fields.0.remove("text_config") else {
                return Err(inconsistent("config.json has no text_config".into()));
            };
            fields = Fields(text);
            fields.check_foreign(has_caps)?;
        }
        if gemma.is_none() && !["llama", "mistral", "qwen2", "qwen3", "smollm3"].contains(&kind) {
            return Err(EngineError::Unsupported(format!(
                "model type {kind:?}; this engine runs llama, mistral, qwen2, qwen3, smollm3, gemma, gemma2, \
                 gemma3_text and gemma3"
            )));
        }
        let act = match gemma {
            None => fields.get("hidden_act"),
            Some(_) => fields.get("hidden_activation").or_else(|| fields.get("hidden_act")),
        };
        let known: &[&str] = match gemma {
            None => &["silu"],
            // The first one's files say "gelu" and mean the approximation.
            Some(Gemma::One) => &["gelu_pytorch_tanh", "gelu"],
            Some(_) => &["gelu_pytorch_tanh"],
        };
        if let Some(act) = act.filter(|act| !act.as_str().is_some_and(|act| known.contains(&act))) {
            return Err(EngineError::Unsupported(format!("the activation {act}")));
        }
        if fields.flag("use_bidirectional_attention") == Some(true) {
            return Err(EngineError::Unsupported("attention to later tokens".into()));
        }
        // Files of Gemma 3 leave out what their class has anyway.
        let usual = |size: usize| (gemma == Some(Gemma::Three)).then_some(size);
        let dim = fields.size("hidden_size", usual(2304), MAX_SIZE)?;
        let heads = fields.size("num_attention_heads", usual(8), MAX_SIZE)?;
        // The classes of Qwen3 and Gemma state a head size of their own; in the others it follows from the width.
        let head_dim = match gemma {
            Some(_) => 256,
            None if kind == "qwen3" => 128,
            None => dim / heads,
        };
        let head_dim = fields.size("head_dim", Some(head_dim), MAX_SIZE)?;
        let layers = fields.size("num_hidden_layers", usual(26), MAX_LAYERS)?;
        let context = fields.size("max_position_embeddings", usual(131_072), MAX_SIZE)?;
        let (rope, local_rope) = fields.ropes(kind, gemma, head_dim, context)?;
        let traits = match gemma {
            None => ModelTraits::default(),
            Some(gemma) => ModelTraits { local_rope, ..fields.gemma(gemma, dim)? },
        };
        let config = ModelConfig {
            name: name.unwrap_or_else(|| kind.to_owned()),
            vocab: fields.size("vocab_size", usual(262_208), MAX_SIZE)?,
            dim,
            layers,
            heads,
            kv_heads: fields.size("num_key_value_heads", usual(4).or(Some(heads)), MAX_SIZE)?,
            head_dim,
            ffn: fields.size("intermediate_size", usual(9216), MAX_SIZE)?,
            context,
            rms_eps: match fields.get("rms_norm_eps") {
                Some(eps) => eps.as_f64().unwrap_or(f64::NAN) as f32,
                None => 1e-6,
            },
            rope,
            traits,
        };
        Ok(Self {
            config: config.checked()?,
            layers: fields.plans(kind, gemma, layers)?,
            half_split: true,
            qk_norm: kind == "qwen3" || gemma == Some(Gemma::Three),
            post_norms: gemma.is_some_and(Gemma::is_later),
            gain_offset: if gemma.is_some() { 1.0 } else { 0.0 },
            qkv_bias: kind == "qwen2",
            tied: fields.flag("tie_word_embeddings").or(gemma.map(|_| true)),
            also_sees,
        })
    }
}

impl Fields {
    /// What a Gemma of width `dim` does differently, but for positions.
    fn gemma(&self, gemma: Gemma, dim: usize) -> Result<ModelTraits, EngineError> {
        let mut traits = Gemma::traits(dim);
        if gemma.is_later() {
            let [of_scores, of_logits] = gemma.caps();
            traits.query_scalar = self.number("query_pre_attn_scalar", Some(256.0))?;
            traits.score_cap = self.number("attn_logit_softcapping", of_scores)?;
            traits.logit_cap = self.number("final_logit_softcapping", of_logits)?;
        }
        Ok(traits)
    }

    /// Positions, and those of blocks that see a window where they have others.
    fn ropes(
        &self,
        kind: &str,
        gemma: Option<Gemma>,
        head_dim: usize,
        context: usize,
    ) -> Result<(RopeConfig, Option<RopeConfig>), EngineError> {
        // Version 5 of transformers writes `rope_parameters`, which also holds the base; before it was `rope_scaling`.
        let empty = Map::new();
        let scaling = match self.get("rope_parameters").or_else(|| self.get("rope_scaling")) {
            Some(value) => value.as_object().ok_or_else(|| inconsistent("RoPE's scaling is not an object".into()))?,
            None => &empty,
        };
        if gemma != Some(Gemma::Three) {
            let usual = if kind == "smollm3" { 2_000_000.0 } else { 10_000.0 };
            return Ok((self.rope(scaling, "rope_theta", usual, head_dim, context)?, None));
        }
        // There it is an object for each of both kinds of blocks; before, what was said held for those that see all tokens.
        let of = |name: &str| scaling.get(name).and_then(Value::as_object);
        let main = of("full_attention").unwrap_or(if of("sliding_attention").is_some() { &empty } else { scaling });
        let local = of("sliding_attention").unwrap_or(&empty);
        let main = self.rope(main, "rope_theta", 1_000_000.0, head_dim, context)?;
        let local = self.rope(local, "rope_local_base_freq", gemma::LOCAL_BASE, head_dim, context)?;
        Ok((main, Some(local)))
    }

    /// What `scaling` says, with the base that stands in the field `base` where it has none itself.
    fn rope(
        &self,
        scaling: &Map<String, Value>,
        base: &str,
        usual: f64,
        head_dim: usize,
        context: usize,
    ) -> Result<RopeConfig, EngineError> {
        if scaling.values().any(Value::is_object) {
            return Err(EngineError::Unsupported("RoPE parameters that differ between kinds of blocks".into()));
        }
        let number = |key: &str, default: Option<f64>| {
            let value = scaling.get(key).filter(|value| !value.is_null());
            positive(key, value.map_or(default, Value::as_f64))
        };
        let partial = scaling.get("partial_rotary_factor").or_else(|| self.get("partial_rotary_factor"));
        if partial.is_some_and(|share| share.as_f64() != Some(1.0)) {
            return Err(EngineError::Unsupported("heads that are rotated only in part".into()));
        }
        let stated = self.get(base).map_or(Some(usual), Value::as_f64);
        let base = number("rope_theta", stated)?;
        let original = || number("original_max_position_embeddings", Some(context as f64));
        let scaling_type = scaling.get("rope_type").or_else(|| scaling.get("type")).and_then(Value::as_str);
        let scaling = match scaling_type.unwrap_or("default") {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: number("factor", None)? },
            "llama3" => {
                let (low, high) = (number("low_freq_factor", None)?, number("high_freq_factor", None)?);
                if low >= high {
                    return Err(inconsistent("low_freq_factor is not below high_freq_factor".into()));
                }
                RopeScaling::Llama3 { factor: number("factor", None)?, low, high, original: original()? }
            }
            "yarn" => {
                let original = original()?;
                let factor = number("factor", Some(context as f64 / original))?;
                let weight = |key: &str| scaling.get(key).and_then(Value::as_f64).filter(|v| *v != 0.0);
                let usual = match (weight("mscale"), weight("mscale_all_dim")) {
                    (Some(one), Some(all)) => yarn_magnitude(factor, one) / yarn_magnitude(factor, all),
                    _ => yarn_magnitude(factor, 1.0),
                };
                RopeScaling::Yarn {
                    factor,
                    original,
                    beta_fast: number("beta_fast", Some(32.0))?,
                    beta_slow: number("beta_slow", Some(1.0))?,
                    truncate: scaling.get("truncate").and_then(Value::as_bool).unwrap_or(true),
                    magnitude: number("attention_factor", Some(usual))?,
                }
            }
            other => return Err(EngineError::Unsupported(format!("RoPE scaling {other:?}"))),
        };
        Ok(RopeConfig::new(base as f32, head_dim, scaling))
    }

    /// Which blocks have positions, and which see only a window.
    fn plans(&self, kind: &str, gemma: Option<Gemma>, layers: usize) -> Result<Vec<LayerPlan>, EngineError> {
        let list = |key: &str| -> Result<Option<&Vec<Value>>, EngineError> {
            let Some(value) = self.get(key) else { return Ok(None) };
            let list = value.as_array().filter(|list| list.len() >= layers);
            list.map(Some).ok_or_else(|| inconsistent(format!("{key} does not say something of every block")))
        };
        let nope = if kind == "smollm3" { list("no_rope_layers")? } else { None };
        let step = self.size("no_rope_layer_interval", Some(4), MAX_SIZE)?;
        let has_rope = |layer: usize| match (kind, nope) {
            ("smollm3", Some(list)) => list.get(layer).and_then(Value::as_u64) != Some(0),
            ("smollm3", None) => !(layer + 1).is_multiple_of(step),
            _ => true,
        };
        let later = gemma.filter(|gemma| gemma.is_later());
        // The classes of Mistral and Gemma have a window of 4096 where the file does not mention one; null means none.
        let in_use = match kind {
            "llama" | "gemma" => false,
            _ if kind == "mistral" || later.is_some() => {
                !self.0.contains_key("sliding_window") || self.get("sliding_window").is_some()
            }
            _ => self.flag("use_sliding_window") == Some(true) && self.get("sliding_window").is_some(),
        };
        let usual = Some(gemma::WINDOW);
        let window = if in_use { Some(self.size("sliding_window", usual, u64::from(u32::MAX))?) } else { None };
        let step = later.map(|gemma| self.size("sliding_window_pattern", Some(gemma.step()), MAX_SIZE)).transpose()?;
        let types = if kind == "mistral" { None } else { list("layer_types")? };
        let first_slid = self.get("max_window_layers").and_then(Value::as_u64).unwrap_or(28);
        let slides = |layer: usize| -> Result<bool, EngineError> {
            match types.and_then(|types| types.get(layer)) {
                Some(Value::String(name)) if name == "sliding_attention" => Ok(true),
                Some(Value::String(name)) if name == "full_attention" => Ok(false),
                Some(other) => Err(EngineError::Unsupported(format!("a block of the type {other}"))),
                None => Ok(match (kind, step) {
                    (_, Some(step)) => !(layer + 1).is_multiple_of(step),
                    ("mistral", _) => true,
                    ("smollm3", _) => !has_rope(layer),
                    _ => layer as u64 >= first_slid,
                }),
            }
        };
        let mut plans = Vec::with_capacity(layers);
        for layer in 0..layers {
            let slides = slides(layer)?;
            let rope = match gemma {
                Some(Gemma::Three) if slides => Positions::Local,
                _ if has_rope(layer) => Positions::Main,
                _ => Positions::None,
            };
            plans.push(LayerPlan { rope, window: window.filter(|_| slides) });
        }
        Ok(plans)
    }
}
