//! `GET /health`: whether the server is up, what it runs and how busy it is.

use serde::{Deserialize, Serialize};

/// `/health`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Whether it takes new work.
    pub status: HealthStatus,
    /// Version of the server.
    pub version: String,
    /// Who writes the answers.
    pub host: HostKind,
    /// The model that writes them.
    pub model: HealthModel,
    /// Answers that can be written at the same time; 0 where the host does not say.
    pub slots: usize,
    /// Answers being written.
    pub active: usize,
    /// Requests waiting for a slot.
    pub waiting: usize,
    /// Requests that may wait before the server answers 503.
    pub queue: usize,
    /// What the server's own model does; `None` where an engine upstream computes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<HealthProgress>,
}

/// What the server's own model does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HealthProgress {
    /// Tokens written a second, all answers together, over the last ten seconds.
    pub tokens_per_s: f64,
    /// Prompts for whose beginnings something that was computed before was looked for.
    pub prefix_lookups: u64,
    /// Those of them for which something was found.
    pub prefix_hits: u64,
}

/// Whether the server takes new work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HealthStatus {
    /// Yes.
    Ok,
    /// It is going down and only finishes what it has begun.
    Draining,
}

/// Where the full model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostKind {
    /// In the server's own process.
    Local,
    /// In another engine behind the server.
    Upstream,
}

/// The full model, as far as the server knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthModel {
    /// What requests call it.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// Longest prompt plus answer, in tokens.
    pub context_length: Option<usize>,
    /// What its vocabulary is recognised by: models of the same one cut text into the same tokens. `None` where the server
    /// does not see it (an upstream engine).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<String>,
}
