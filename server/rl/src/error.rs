//! Why a training run did not begin or ended early.

use std::path::{Path, PathBuf};

use policy::PolicyError;
use thiserror::Error;

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// Why a training run ended early or did not begin.
#[derive(Debug, Error)]
pub enum TrainError {
    /// The folder could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A run is there already, and resuming it was not asked for.
    #[error("{0} already holds a run; choose another folder, or go on with it by --resume")]
    Exists(PathBuf),
    /// A file of the run cannot be understood.
    #[error("{path} is damaged: {problem}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A hyper-parameter is out of its range.
    #[error("the run's configuration cannot be used: {0}")]
    Config(#[from] ConfigError),
    /// A loss or a gradient became NaN or infinite.
    #[error(
        "update {update} gave a {what} that is NaN or infinite; the last good checkpoint is kept, go on from it by --resume with a lower learning rate"
    )]
    NotFinite {
        /// Update in which it happened.
        update: u64,
        /// What was NaN or infinite.
        what: &'static str,
    },
    /// The run was told to stop in the middle of an update, which is left unfinished. [`crate::train`] turns this into
    /// [`Ending::Stopped`](crate::Ending::Stopped).
    #[error("the run was stopped")]
    Stopped,
    /// A policy could not be written or evaluated.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

impl TrainError {
    /// An error of the file system, with the path that it is about.
    pub fn at(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        |source| Self::File { path: path.to_owned(), source }
    }

    /// A file that cannot be understood, and why.
    pub fn damaged(path: &Path, problem: impl ToString) -> Self {
        Self::Damaged { path: path.to_owned(), problem: problem.to_string() }
    }
}
