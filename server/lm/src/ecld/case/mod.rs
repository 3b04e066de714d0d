//! Cases of a vectors file, computed: what a reference's numbers are checked against.
//!
//! | file | holds |
//! | --- | --- |
//! | `input.rs` | models and inputs as the files have them |
//! | `quantiser.rs` | `quantise_min_max`, `quantise_fixed`, `quantise_minimised`, `quantise_matrix`, `quantise_error` |
//! | `models.rs` | `logits`, `scores`, `layer_by_loss`, `keep_ratio`, `keep_threshold`, `prune` |
//! | `measures.rs` | `distil`, `accuracy`, `hallucination`, `efficiency`, `efficiency_edge` |
//!
//! Everything is computed in double precision. A result has the fields of the case's `expect`, and for the minimised
//! quantiser those of ours besides.

mod input;
mod measures;
mod models;
mod quantiser;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::error::EcldError;
use input::ModelWire;

/// A vectors file.
#[derive(Debug, Deserialize)]
pub struct Vectors {
    #[serde(default)]
    models: BTreeMap<String, ModelWire>,
    cases: Vec<Case>,
}

/// One case.
#[derive(Debug, Deserialize)]
pub struct Case {
    /// Its name.
    pub id: String,
    /// Which computation.
    pub kind: String,
    /// What it is of.
    #[serde(default)]
    pub input: Value,
    /// What a reference found, where the file says.
    #[serde(default)]
    pub expect: Value,
}

impl Vectors {
    /// Reads a file's text.
    ///
    /// # Errors
    /// It is not JSON of that form; says where.
    pub fn parse(json: &str) -> Result<Self, EcldError> {
        serde_json::from_str(json).map_err(|error| EcldError::input(format!("this is no vectors file: {error}")))
    }

    /// Its cases.
    pub fn cases(&self) -> &[Case] {
        &self.cases
    }

    /// The result of one case, in the shape of its `expect`.
    ///
    /// # Errors
    /// [`EcldError::Case`]: the input is not as its kind has it, or cannot be computed.
    pub fn compute(&self, case: &Case) -> Result<Value, EcldError> {
        let input = &case.input;
        let result = match case.kind.as_str() {
            "quantise_min_max" => quantiser::min_max(input),
            "quantise_fixed" => quantiser::fixed(input),
            "quantise_minimised" => quantiser::minimised(input),
            "quantise_matrix" => quantiser::matrix(input),
            "quantise_error" => quantiser::error(input),
            "logits" => models::logits(self, input),
            "scores" => models::scores(self, input),
            "layer_by_loss" => models::layer_by_loss(self, input),
            "keep_ratio" => models::keep_ratio(input),
            "keep_threshold" => models::keep_threshold(input),
            "prune" => models::prune(self, input),
            "distil" => measures::distil(input),
            "accuracy" => measures::accuracy(input),
            "hallucination" => measures::hallucination(input),
            "efficiency" => measures::efficiency(input),
            "efficiency_edge" => measures::efficiency_edge(input),
            other => Err(EcldError::input(format!("the kind {other:?} is not known"))),
        };
        result.map_err(|problem| EcldError::Case { id: case.id.clone(), problem: problem.to_string() })
    }

    fn model(&self, name: &str) -> Result<&ModelWire, EcldError> {
        self.models.get(name).ok_or_else(|| EcldError::input(format!("there is no model {name:?} in the file")))
    }
}
