//! What can go wrong while a model is compacted, in words for the person who asked for it.

use std::path::{Path, PathBuf};

use engine::EngineError;

/// Why a stage gave up. Nothing is left under the final name then.
#[derive(Debug, thiserror::Error)]
pub enum EcldError {
    /// A setting that makes no sense, or inputs that do not belong together.
    #[error("{0}")]
    Input(String),
    /// NaN or an infinity where a number has to be.
    #[error("{what} holds {value} at place {place}: it cannot be ranked or quantised")]
    NotFinite {
        /// Which list or tensor.
        what: String,
        /// NaN or an infinity.
        value: f64,
        /// Where, from 0.
        place: usize,
    },
    /// A scale or an offset that half precision cannot hold.
    #[error("{value} does not fit the half precision that scales are stored in")]
    HalfRange {
        /// The scale or offset.
        value: f64,
    },
    /// A case of a vectors file cannot be computed.
    #[error("case {id:?}: {problem}")]
    Case {
        /// The case's id.
        id: String,
        /// Why.
        problem: String,
    },
    /// A tensor of a file is not as it has to be.
    #[error("{}: tensor {tensor:?}: {problem}", .file.display())]
    Tensor {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong.
        problem: String,
    },
    /// A file as a whole is not as it has to be.
    #[error("{}: {problem}", .file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The file system refused.
    #[error("{}: {source}", .file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The engine refused a model.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Ctrl-C.
    #[error("stopped; nothing was written under the final name")]
    Stopped,
}

impl EcldError {
    /// An [`EcldError::Input`].
    pub fn input(problem: impl Into<String>) -> Self {
        Self::Input(problem.into())
    }

    /// An [`EcldError::Tensor`].
    pub fn tensor(file: &Path, tensor: &str, problem: impl ToString) -> Self {
        Self::Tensor { file: file.to_owned(), tensor: tensor.to_owned(), problem: problem.to_string() }
    }

    /// An [`EcldError::File`].
    pub fn file(file: &Path, problem: impl ToString) -> Self {
        Self::File { file: file.to_owned(), problem: problem.to_string() }
    }

    /// For `map_err` on what touches `file`.
    pub fn io(file: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let file = file.to_owned();
        |source| Self::Io { file, source }
    }
}

/// Refuses NaN and infinities.
///
/// # Errors
/// [`EcldError::NotFinite`] with the first place.
pub fn finite(what: &str, values: &[f64]) -> Result<(), EcldError> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(place) => {
            let value = values.get(place).copied().unwrap_or(f64::NAN);
            Err(EcldError::NotFinite { what: what.to_owned(), value, place })
        }
    }
}
