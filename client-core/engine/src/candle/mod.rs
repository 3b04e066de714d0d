//! Large models natively: quantised products through candle, on all cores (AVX2, NEON). It rounds activations to eight
//! bits per block of 32. Nothing of this is in the page.
//!
//! | file | holds |
//! | --- | --- |
//! | `linear.rs` | one stored matrix times many activations |
//! | `ops.rs` | RMSNorm, RoPE, SwiGLU, GeGLU, attention over the cache |

mod linear;
mod ops;

use std::sync::Arc;

use async_trait::async_trait;

use self::linear::Linear;
use super::backend::{Backend, Output, OutputKind};
use super::config::{ModelConfig, Rotations};
use super::error::EngineError;
use super::preconditions::check_input;
use super::sampler::argmax;
use super::weights::{LayerTraits, ModelWeights};

/// The weights in the form in which they are multiplied; shared by all sequences.
#[derive(Debug)]
struct CandleModel {
    config: ModelConfig,
    rotations: Rotations,
    embedding: Linear,
    layers: Vec<CandleLayer>,
    output_norm: Vec<f32>,
    /// `None` when the embedding is also the head.
    head: Option<Linear>,
}

#[derive(Debug)]
struct CandleLayer {
    attn_norm: Vec<f32>,
    /// Queries, keys and values in one product, `[q_dim + 2·kv_dim, dim]`, when they are stored alike.
    qkv: Vec<Linear>,
    o: Linear,
    ffn_norm: Vec<f32>,
    /// Gate and up in one product, `[2·ffn, dim]`, when they are stored alike.
    gate_up: Vec<Linear>,
    down: Linear,
    traits: LayerTraits,
}

/// Keys and values of one layer, each `[tokens][kv_dim]`. Grows with the sequence, so an idle sequence is small.
#[derive(Debug, Clone, Default)]
struct LayerCache {
    k: Vec<f32>,
    v: Vec<f32>,
}

/// One sequence on the CPU, through candle.
#[derive(Debug)]
pub struct CandleBackend {
    model: Arc<CandleModel>,
    cache: Vec<LayerCache>,
    len: usize,
}

impl CandleBackend {
    /// Copies the weights.
    ///
    /// # Errors
    /// candle refuses a tensor (its rows are not whole blocks).
    pub fn new(weights: &ModelWeights<'_>) -> Result<Self, EngineError> {
        let config = weights.config.clone();
        let mut layers = Vec::with_capacity(weights.layers.len());
        for layer in &weights.layers {
            layers.push(CandleLayer {
                attn_norm: layer.attn_norm.clone(),
                qkv: Linear::stacked(&[&layer.q, &layer.k, &layer.v])?,
                o: Linear::new(&layer.o)?,
                ffn_norm: layer.ffn_norm.clone(),
                gate_up: Linear::stacked(&[&layer.gate, &layer.up])?,
                down: Linear::new(&layer.down)?,
                traits: layer.traits.clone(),
            });
        }
        let model = CandleModel {
            rotations: Rotations::of(&config),
            embedding: Linear::new(&weights.embedding)?,
            layers,
            output_norm: weights.output_norm.clone(),
            head: weights.output.as_ref().map(|output| Linear::new(output)).transpose()?,
            config,
        };
        Ok(Self::over(Arc::new(model)))
    }

    fn over(model: Arc<CandleModel>) -> Self {
        let cache = vec![LayerCache::default(); model.layers.len()];
        Self { model, cache, len: 0 }
    }

    /// The forward pass over `tokens` (m of them) at positions `len ..`; returns the residual stream `[m, dim]`.
    fn hidden(&mut self, tokens: &[u32]) -> Result<Vec<f32>, EngineError> {
        let model = Arc::clone(&self.model);
        let config = &model.config;
        let m = tokens.len();
        let (q_dim, kv_dim) = (config.q_dim(), config.kv_dim());
        let rotation = model.rotations.span(self.len, m);
        let mut x = model.embedding.rows(tokens)?; // [m, dim]
        ops::scale(&mut x, config.traits.embedding_scale);
        let mut normed = vec![0.0; m * config.dim];
        for (layer, cache) in model.layers.iter().zip(&mut self.cache) {
            ops::rms_norm(&x, &layer.attn_norm, config.rms_eps, &mut normed);
            let (mut q, mut k, mut v) = match layer.qkv.as_slice() {
                [one] => ops::split3(&one.apply(&normed, m)?, q_dim, kv_dim),
                [q, k, v] => (q.apply(&normed, m)?, k.apply(&normed, m)?, v.apply(&normed, m)?),
                _ => return Err(EngineError::Cpu("a block has no attention matrices".into())),
            };
            let traits = &layer.traits;
            if let Some(bias) = &traits.qkv_bias {
                let (q_bias, kv_bias) = bias.split_at(q_dim);
                let (k_bias, v_bias) = kv_bias.split_at(kv_dim);
                ops::add_rows(&mut q, q_bias);
                ops::add_rows(&mut k, k_bias);
                ops::add_rows(&mut v, v_bias);
            }
            for (heads, norm) in [(&mut q, &traits.q_norm), (&mut k, &traits.k_norm)] {
                if let Some(weight) = norm {
                    let raw = heads.clone();
                    ops::rms_norm(&raw, weight, config.rms_eps, heads);
                }
            }
            if let Some(table) = traits.rope.table() {
                let turns = ops::RopeTable { rotation: &rotation, width: model.rotations.width(), table };
                ops::rope(&mut q, config.head_dim, q_dim, config.rope.dim, turns);
                ops::rope(&mut k, config.head_dim, kv_dim, config.rope.dim, turns);
            }
            // Anything past `len` is left over from a call that failed.
            cache.k.truncate(self.len * kv_dim);
            cache.v.truncate(self.len * kv_dim);
            cache.k.extend_from_slice(&k);
            cache.v.extend_from_slice(&v);
            let heads = ops::attention(&q, &cache.k, &cache.v, self.len, config, traits); // [m, q_dim]
            let mixed = layer.o.apply(&heads, m)?;
            ops::add_normed(&mut x, mixed, traits.post_attn_norm.as_deref(), config.rms_eps);

            ops::rms_norm(&x, &layer.ffn_norm, config.rms_eps, &mut normed);
            let activation = config.traits.activation;
            let inner = match layer.gate_up.as_slice() {
                [one] => ops::gated_stacked(&one.apply(&normed, m)?, config.ffn, activation),
                [gate, up] => ops::gated(gate.apply(&normed, m)?, &up.apply(&normed, m)?, activation),
                _ => return Err(EngineError::Cpu("a block has no feed-forward matrices".into())),
            };
            let inner = layer.down.apply(&inner, m)?;
            ops::add_normed(&mut x, inner, traits.post_ffn_norm.as_deref(), config.rms_eps);
        }
        self.len += m;
        Ok(x)
    }

    fn logits(&self, x: &[f32]) -> Result<Vec<f32>, EngineError> {
        let config = &self.model.config;
        let last = x.get(x.len() - config.dim..).unwrap_or(x);
        let mut normed = vec![0.0; config.dim];
        ops::rms_norm(last, &self.model.output_norm, config.rms_eps, &mut normed);
        let mut logits = self.model.head.as_ref().unwrap_or(&self.model.embedding).apply(&normed, 1)?;
        if let Some(cap) = config.traits.logit_cap {
            logits.iter_mut().for_each(|logit| *logit = ops::capped(*logit, cap));
        }
        Ok(logits)
    }
}

#[async_trait(?Send)]
impl Backend for CandleBackend {
    fn config(&self) -> &ModelConfig {
        &self.model.config
    }

    fn name(&self) -> &'static str {
        "cpu"
    }

    fn len(&self) -> usize {
        self.len
    }

    fn capacity(&self) -> usize {
        self.model.config.context
    }

    fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    fn fork(&self) -> Result<Box<dyn Backend>, EngineError> {
        Ok(Box::new(Self::over(Arc::clone(&self.model))))
    }

    async fn forward(&mut self, tokens: &[u32], want: OutputKind) -> Result<Output, EngineError> {
        check_input(self.config(), self.len, self.capacity(), tokens)?;
        let before = self.len;
        let x = self.hidden(tokens)?;
        let output = match want {
            OutputKind::Nothing => Ok(Output::Nothing),
            OutputKind::Logits | OutputKind::TopK(_) => self.logits(&x).map(Output::Logits),
            OutputKind::Argmax => self.logits(&x).map(|logits| Output::Token(argmax(&logits))),
            OutputKind::AllLogits => {
                Err(EngineError::NotOffered { backend: self.name(), what: "logits of every position" })
            }
            OutputKind::Choice(_) => {
                Err(EngineError::NotOffered { backend: self.name(), what: "choosing on the device" })
            }
            OutputKind::Hidden => {
                let mut normed = vec![0.0; x.len()];
                ops::rms_norm(&x, &self.model.output_norm, self.model.config.rms_eps, &mut normed);
                Ok(Output::Hidden(normed))
            }
        };
        if output.is_err() {
            self.len = before;
        }
        output
    }
}

#[cfg(test)]
mod tests {
    use pollster::block_on;

    use super::*;
    use crate::gguf::GgmlType;
    use crate::reference::{Deviation, Reference};
    use crate::synthetic::{self, Family, Storage};

    /// candle quantises activations to eight bits: 2 % of the logits' spread; singles leave no excuse.
    #[test]
    fn models_stay_within_the_bound() {
        for (family, blocks, bound) in [
            (Family::Llama, GgmlType::Q8_0, 2e-2),
            (Family::Qwen2, GgmlType::Q4_0, 2e-2),
            (Family::Qwen3, GgmlType::F32, 1e-4),
            (Family::SmolLm3, GgmlType::F16, 1e-4),
            (Family::Mistral(6), GgmlType::F32, 1e-4),
            (Family::Gemma, GgmlType::F32, 1e-4),
            (Family::Gemma2(6), GgmlType::F32, 1e-4),
            (Family::Gemma3(6), GgmlType::F16, 1e-4),
        ] {
            let storage = Storage { blocks, embedding: blocks, untied: false };
            let config = synthetic::config([300, 96, 5, 3, 3, 160]);
            let weights = synthetic::weights_like(family, config, storage, 5).unwrap();
            let tokens = synthetic::tokens(300, 40, 11);
            let expect = Reference::new(&weights).logits(&tokens);
            let mut backend = CandleBackend::new(&weights).unwrap();
            block_on(backend.forward(&tokens[..17], OutputKind::Nothing)).unwrap();
            let Output::Logits(found) = block_on(backend.forward(&tokens[17..], OutputKind::Logits)).unwrap() else {
                panic!()
            };
            let deviation = Deviation::between(&found, &expect[39]);
            assert!(deviation.median_share <= bound && deviation.same_choice, "{family:?} {blocks:?}: {deviation:?}");
        }
    }
}
