//! Manifest of the model files that the server hands out.

use serde::{Deserialize, Serialize};

/// `/models/manifest.json`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelManifest {
    /// Format version, 1.
    pub version: u32,
    /// One entry a model file.
    pub models: Vec<ModelEntry>,
}

/// One model file and what was measured of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelEntry {
    /// Stable id: `full` or `compact` for the embedded ones.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// File name relative to the manifest.
    pub file: String,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Lower-case hex SHA-256 of the file.
    pub sha256: String,
    /// Number of trained parameters.
    pub parameters: u64,
    /// `Q4_0`, `Q8_0`, …
    pub quantisation: String,
    /// Longest prompt plus answer, in tokens.
    pub context_length: u32,
    /// Numbers that the KV cache holds for a token, over all layers; 0 where the manifest does not say.
    #[serde(default)]
    pub cache_width: u32,
    /// Share of correct answers (eq. 23), each in 0..=1; all 0 where nobody measured it.
    pub accuracy: Accuracy,
    /// Share of unsupported sentences (eq. 24), in 0..=1; 0 where nobody measured it.
    pub hallucination: f64,
    /// SPDX id.
    pub licence: String,
    /// Seed of the corpus that it was trained and measured on.
    #[serde(default)]
    pub corpus_seed: u64,
    /// Whether the server's owner wants pages to load it by themselves, whatever its size.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub preferred: bool,
}

/// Accuracy, eq. 23, on held-out wordings and pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Questions that one fact answers.
    pub single_hop: f64,
    /// Questions that need two facts.
    pub two_hop: f64,
}
