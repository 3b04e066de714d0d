//! `public/models/manifest.json`: what each shipped file is and what it was measured to be worth.

use serde::{Deserialize, Serialize};
use std::path::Path;

/// The file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Of this format.
    pub version: u32,
    /// In the order in which they are offered.
    pub models: Vec<Entry>,
}

/// One model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// `full` or `compact`.
    pub id: String,
    /// For people.
    pub name: String,
    /// File name beside the manifest.
    pub file: String,
    /// Size.
    pub bytes: u64,
    /// SHA-256 of the file, lower-case hexadecimal.
    pub sha256: String,
    /// Parameters, the tied embedding counted once.
    pub parameters: u64,
    /// Storage of most matrices, e.g. `Q4_0`.
    pub quantisation: String,
    /// Longest context, tokens.
    pub context_length: usize,
    /// Numbers that the KV cache holds for a token, over all layers.
    #[serde(default)]
    pub cache_width: usize,
    /// Eq. 23 on held-out questions.
    pub accuracy: Accuracy,
    /// Eq. 24.
    pub hallucination: f64,
    /// SPDX.
    pub licence: String,
    /// Seed of the corpus that it was trained and measured on.
    pub corpus_seed: u64,
}

/// Eq. 23, apart by the number of facts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// One fact, held-out wordings.
    pub single_hop: f64,
    /// Two facts, held-out pairs.
    pub two_hop: f64,
}

/// Why a manifest cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// File system.
    #[error("cannot access {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Not in this format.
    #[error("{path} is no manifest: {source}")]
    Json {
        /// The file.
        path: String,
        /// Why.
        source: serde_json::Error,
    },
}

/// Puts `entry` into the manifest at `path`, in place of one with the same id; makes the file if there is none.
///
/// # Errors
/// When the file cannot be read, understood or written.
pub fn upsert(path: &Path, entry: Entry) -> Result<Manifest, ManifestError> {
    let name = || path.display().to_string();
    let mut manifest = match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| ManifestError::Json { path: name(), source })?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Manifest { version: 1, models: Vec::new() },
        Err(source) => return Err(ManifestError::Io { path: name(), source }),
    };
    match manifest.models.iter_mut().find(|m| m.id == entry.id) {
        Some(old) => *old = entry,
        None => manifest.models.push(entry),
    }
    let text =
        serde_json::to_string_pretty(&manifest).map_err(|source| ManifestError::Json { path: name(), source })?;
    std::fs::write(path, text + "\n").map_err(|source| ManifestError::Io { path: name(), source })?;
    Ok(manifest)
}
