//! `POST /api/similarity`: eq. 26–27 on two answers to the same prompt.

use serde::{Deserialize, Serialize};

/// Two texts to compare.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimilarityRequest {
    /// The full model's answer, the reference.
    pub reference: String,
    /// The compact model's answer.
    pub candidate: String,
    /// Threshold γ of eq. 27 on the cosine, in −1..=1.
    #[serde(default = "default_threshold")]
    pub threshold: f64,
}

/// γ where the request names none; the paper leaves it open.
#[must_use]
pub fn default_threshold() -> f64 {
    0.6
}

/// What eq. 26–27 say of the candidate. Tokens are aligned by position; a token without a partner has similarity 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SimilarityResponse {
    /// Mean cosine over the aligned tokens (eq. 26).
    pub accuracy: f64,
    /// Share of tokens whose cosine is below the threshold (eq. 27).
    pub hallucination: f64,
    /// Cosine of each position.
    pub cosines: Vec<f64>,
    /// Which encoder embedded the tokens.
    pub encoder: String,
}
