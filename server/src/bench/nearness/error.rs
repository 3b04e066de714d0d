//! Why nothing was compared.

use std::path::PathBuf;

use engine::EngineError;

/// Why nothing was compared.
#[derive(Debug, thiserror::Error)]
pub enum NearnessError {
    /// The engine's or the device's error.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Another engine's logits cannot be read.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// They are not those of these positions.
    #[error(
        "{path} has {found} bytes, not {wanted}: it is to hold {positions} positions of {vocab} logits each, as \
         --windows lists them"
    )]
    OtherSize {
        /// Which file.
        path: PathBuf,
        /// Its bytes.
        found: u64,
        /// What it is to have.
        wanted: u64,
        /// Of all windows.
        positions: usize,
        /// Logits of a position.
        vocab: usize,
    },
    /// The program has no GPU backend.
    #[error("this program was built without Vulkan; build it with --features vulkan")]
    NoVulkan,
}
