//! Why something about runs could not be done.

use std::path::PathBuf;

use client::protocol::runs::RunState;
use thiserror::Error;

use super::store::StoreError;
use rl::error::TrainError;

/// Why something about runs could not be done.
#[derive(Debug, Error)]
pub enum RunsError {
    /// This server does not train.
    #[error("This server takes no training runs: {0}")]
    Off(String),
    /// A field of the request.
    #[error("{message}")]
    Field {
        /// Which one.
        param: String,
        /// Machine-readable reason.
        code: &'static str,
        /// What is wrong with it and what would be right.
        message: String,
    },
    /// No such run.
    #[error("There is no run {0}; GET /api/runs lists them.")]
    Unknown(i64),
    /// The queue is full.
    #[error("{0} runs wait already; come back later, or stop one of them.")]
    QueueFull(usize),
    /// Too many runs are kept.
    #[error("{0} runs are kept, which is the limit; delete one first.")]
    TooMany(usize),
    /// The run is in a state in which this makes no sense.
    #[error("Run {id} is {}; {advice}", state.name())]
    State {
        /// Which run.
        id: i64,
        /// How it stands.
        state: RunState,
        /// What can be done instead.
        advice: &'static str,
    },
    /// The file is not there yet.
    #[error("Run {id} has no {what} yet; it appears with the first evaluation.")]
    NotYet {
        /// Which run.
        id: i64,
        /// Which file.
        what: &'static str,
    },
    /// The server is going down.
    #[error("The server is going down; try again when it is back.")]
    Closing,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A training could not begin or broke off.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A run's folder could not be used.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}
