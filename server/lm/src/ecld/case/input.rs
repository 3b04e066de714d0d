//! Models and inputs as vectors files have them.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::ecld::error::EcldError;
use crate::ecld::memory::{Extras, MemoryModel};
use crate::ecld::spec::{Pairing, Rotation, Spec};

/// Most of anything that a tiny model may have: refuses products that overflow.
const MAX_SIZE: usize = 1 << 16;

/// A number; JSON has no NaN, so files write `"NaN"`, `"Infinity"` and `"-Infinity"`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Number(pub f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let value = Value::deserialize(deserializer)?;
        let number = match &value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        number.map(Self).ok_or_else(|| D::Error::custom(format!("{value} is not a number")))
    }
}

/// The numbers of a list.
pub fn plain(numbers: &[Number]) -> Vec<f64> {
    numbers.iter().map(|number| number.0).collect()
}

/// A case's input as its kind has it.
pub fn read<T: DeserializeOwned>(input: &Value) -> Result<T, EcldError> {
    T::deserialize(input).map_err(|error| EcldError::input(format!("the input cannot be read: {error}")))
}

/// Sizes of a tiny model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigWire {
    pub vocab: usize,
    pub dim: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub ffn: usize,
    pub rope_theta: f64,
    pub rms_eps: f64,
    pub rope: RopeWire,
    #[serde(default)]
    pub tied: bool,
    #[serde(default)]
    pub bias: bool,
    #[serde(default)]
    pub qk_norm: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RopeWire {
    Interleaved,
    Half,
}

/// A tiny model: every weight is a whole number of 1/`unit`.
#[derive(Debug, Deserialize)]
pub struct ModelWire {
    pub config: ConfigWire,
    #[serde(default = "one")]
    unit: f64,
    weights: BTreeMap<String, Vec<Number>>,
}

fn one() -> f64 {
    1.0
}

impl ConfigWire {
    pub fn spec(&self) -> Result<Spec, EcldError> {
        let sizes = [self.vocab, self.dim, self.layers, self.heads, self.kv_heads, self.head_dim, self.ffn];
        if sizes.iter().any(|size| !(1..=MAX_SIZE).contains(size)) {
            return Err(EcldError::input(format!("a size is not between 1 and {MAX_SIZE}: {sizes:?}")));
        }
        if !self.heads.is_multiple_of(self.kv_heads) || !self.head_dim.is_multiple_of(2) {
            return Err(EcldError::input(format!(
                "{} query heads are no multiple of {} KV groups, or a head of {} is odd",
                self.heads, self.kv_heads, self.head_dim
            )));
        }
        if !(self.rope_theta > 0.0 && self.rms_eps >= 0.0 && self.rope_theta.is_finite() && self.rms_eps.is_finite()) {
            return Err(EcldError::input("rope_theta must be above 0, rms_eps at least 0"));
        }
        let frequency = |pair: usize| self.rope_theta.powf(-2.0 * pair as f64 / self.head_dim as f64);
        Ok(Spec {
            vocab: self.vocab,
            dim: self.dim,
            layers: self.layers,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            ffn: self.ffn,
            context: usize::MAX,
            rms_eps: self.rms_eps,
            pairing: match self.rope {
                RopeWire::Interleaved => Pairing::Neighbours,
                RopeWire::Half => Pairing::Halves,
            },
            rotations: vec![Rotation { frequencies: (0..self.head_dim / 2).map(frequency).collect(), magnitude: 1.0 }],
            score_scale: 1.0 / (self.head_dim as f64).sqrt(),
            score_cap: None,
            logit_cap: None,
            embedding_scale: 1.0,
            gelu: false,
        })
    }

    /// The config of a cut of the model with these sizes.
    pub fn cut(&self, spec: &Spec) -> Self {
        Self {
            dim: spec.dim,
            layers: spec.layers,
            heads: spec.heads,
            kv_heads: spec.kv_heads,
            ffn: spec.ffn,
            rms_eps: spec.rms_eps,
            ..self.clone()
        }
    }
}

impl ModelWire {
    pub fn model(&self) -> Result<MemoryModel, EcldError> {
        let ConfigWire { tied, bias, qk_norm, .. } = self.config;
        let list = |(name, values): (&String, &Vec<Number>)| {
            let name = name.strip_suffix(".weight").unwrap_or(name).to_owned();
            (name, values.iter().map(|value| value.0 / self.unit).collect())
        };
        MemoryModel::new(self.config.spec()?, Extras { tied, bias, qk_norm }, self.weights.iter().map(list).collect())
    }
}
