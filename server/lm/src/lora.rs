//! LoRA: frozen matrices learn through products of low rank, W + (α/r)·A·B, which are merged into them afterwards or kept.
//!
//! Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021), section 4.1: A begins random, B at zero, so that the
//! model begins as it was. Shapes are those of [`model`](crate::model): W `[in, out]`, A `[in, rank]`, B `[rank, out]`.

use std::str::FromStr;

use burn::tensor::{Device, Distribution, Tensor};
use serde::{Deserialize, Serialize};

use crate::model::{Llama, LlamaConfig};

/// A matrix of every block that learns through an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values.
    V,
    /// Attention's way back.
    O,
    /// The FFN's gate.
    Gate,
    /// The FFN's way up.
    Up,
    /// The FFN's way down.
    Down,
}

impl Target {
    /// All of them, by their names and by what files call them.
    pub const ALL: [(&'static str, &'static str, Self); 7] = [
        ("q", "attn_q", Self::Q),
        ("k", "attn_k", Self::K),
        ("v", "attn_v", Self::V),
        ("o", "attn_output", Self::O),
        ("gate", "ffn_gate", Self::Gate),
        ("up", "ffn_up", Self::Up),
        ("down", "ffn_down", Self::Down),
    ];
}

impl FromStr for Target {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.iter().find(|(known, _, _)| *known == name).map(|(_, _, target)| *target);
        found.ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|(name, _, _)| *name).collect();
            format!("no matrix is called {name:?}: there are {}", names.join(", "))
        })
    }
}

/// Sizes of adapters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Adapters {
    /// r.
    pub rank: usize,
    /// α: products count α/r.
    pub alpha: f32,
    /// Which matrices have one.
    pub targets: Vec<Target>,
}

impl Default for Adapters {
    fn default() -> Self {
        Self { rank: 16, alpha: 32.0, targets: Target::ALL.iter().map(|(_, _, target)| *target).collect() }
    }
}

impl Adapters {
    /// What products are multiplied with.
    pub fn scale(&self) -> f32 {
        self.alpha / self.rank.max(1) as f32
    }

    /// Whether the weight of this name has an adapter.
    fn has(&self, name: &str) -> bool {
        let part = name.strip_prefix("blk.").and_then(|rest| rest.split('.').nth(1)).unwrap_or_default();
        Target::ALL.iter().any(|(_, filed, target)| *filed == part && self.targets.contains(target))
    }

    /// Names and shapes `[in, out]` of the weights of `config` that have one, with their places.
    pub fn of<'a>(&'a self, config: &LlamaConfig) -> impl Iterator<Item = (usize, String, [usize; 2])> + 'a {
        let all = config.layout().into_iter().enumerate();
        all.filter(|(_, (name, _))| self.has(name)).map(|(place, (name, shape))| (place, name, shape))
    }
}

/// One adapter with its optimizer's moments.
#[derive(Debug, Clone)]
pub struct Pair {
    /// A `[in, rank]`.
    pub a: Tensor<2>,
    /// B `[rank, out]`.
    pub b: Tensor<2>,
    /// AdamW's first and second moments, of A and of B.
    pub moments: [Option<(Tensor<2>, Tensor<2>)>; 2],
}

/// The adapters of a model.
#[derive(Debug, Clone)]
pub struct Lora {
    /// Their sizes.
    pub settings: Adapters,
    /// In the order of the model's weights; `None` for one without.
    pub pairs: Vec<Option<Pair>>,
}

impl Lora {
    /// Fresh ones: A ~ N(0, 1/in), B = 0.
    pub fn fresh(settings: Adapters, config: &LlamaConfig, seed: u64, device: &Device) -> Self {
        device.seed(seed);
        let mut pairs = vec![None; config.layout().len()];
        for (place, _, [inputs, outputs]) in settings.of(config) {
            let normal = Distribution::Normal(0.0, (inputs as f64).powf(-0.5));
            let a = Tensor::random([inputs, settings.rank], normal, device);
            let b = Tensor::zeros([settings.rank, outputs], device);
            if let Some(pair) = pairs.get_mut(place) {
                *pair = Some(Pair { a, b, moments: [None, None] });
            }
        }
        Self { settings, pairs }
    }

    /// Parameters that learn.
    pub fn parameters(&self) -> usize {
        self.pairs
            .iter()
            .flatten()
            .map(|pair| pair.a.dims().iter().product::<usize>() + pair.b.dims().iter().product::<usize>())
            .sum()
    }

    /// The pair of the weight at `place`.
    pub fn pair(&self, place: usize) -> Option<&Pair> {
        self.pairs.get(place).and_then(Option::as_ref)
    }

    /// W + (α/r)·A·B.
    pub fn add(&self, weight: Tensor<2>, a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
        weight + a.matmul(b).mul_scalar(self.settings.scale())
    }

    /// `model` with the products added.
    pub fn merged(&self, model: &Llama) -> Llama {
        let mut merged = model.clone();
        for (weight, pair) in merged.weights.iter_mut().zip(&self.pairs) {
            if let Some(pair) = pair {
                *weight = self.add(weight.clone(), pair.a.clone(), pair.b.clone());
            }
        }
        merged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_names() {
        for (name, filed, target) in Target::ALL {
            assert_eq!(name.parse::<Target>(), Ok(target));
            let adapters = Adapters { targets: vec![target], ..Adapters::default() };
            assert!(adapters.has(&format!("blk.11.{filed}.weight")) && !adapters.has("token_embd.weight"));
        }
        assert!("embed".parse::<Target>().unwrap_err().contains("gate"));
    }
}
