//! `public/models/manifest.json`: what each shipped file is and what it was measured to be worth.

use std::path::Path;

pub use client::protocol::manifest::{Accuracy, ModelEntry, ModelManifest};

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
pub fn upsert(path: &Path, entry: ModelEntry) -> Result<ModelManifest, ManifestError> {
    let name = || path.display().to_string();
    let mut manifest: ModelManifest = match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| ManifestError::Json { path: name(), source })?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => ModelManifest { version: 1, models: Vec::new() },
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
