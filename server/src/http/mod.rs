//! The HTTP server: page, models and policies as files, and an API in OpenAI's format.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`serve`] | `run(listener, shutdown)`: accepts connections until told to stop, then drains |
//! | [`connections`] | how many there may be, and for how long one may do nothing |
//! | [`guard`] | the names that are answered to, and the pages that may change something |
//! | [`router`](mod@router) | which address is answered by what; headers and counts for every answer |
//! | [`address`] | the parts of an address that stand for something |
//! | [`files`] | everything that is a file: ranges, compression, caching, content security policy |
//! | [`openai`] | `/v1/…` |
//! | [`runs`] | `/api/runs`: training runs |
//! | [`rooms`], [`rooms_socket`] | `/api/rooms`, `/ws/rooms`: live rooms |
//! | [`similarity`] | `/api/similarity`, eq. 26–27 |
//! | [`hub`] | `/models/hub/…`: a hub's files |
//! | [`catalogue`] | `/models/catalogue.json`, `/models/stored/…`: models from elsewhere that pages may have |
//! | [`model`] | `/api/model`: another model for this server |
//! | [`health`], [`metrics`] | `/health`, `/metrics` |
//! | [`json`], [`error`] | reading a JSON body; every error in OpenAI's shape |
//!
//! Deliberately absent: users and quotas, and keys but for the one that changes the model. The server is made for one classroom or
//! one desk; on the open internet it belongs behind a proxy that knows who may come in.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use catalogue::Offered;
use connections::ConnectionLimits;
use guard::Hosts;
use model::ModelSwitch;

use crate::host::{Embedder, Host, HostError};
use crate::hub::Hub;
use crate::rooms::Rooms;
use crate::runs::Runs;

pub mod address;
pub mod catalogue;
pub mod connections;
pub mod error;
pub mod files;
pub mod guard;
pub mod health;
pub mod hub;
pub mod json;
pub mod metrics;
pub mod model;
pub mod openai;
pub mod rooms;
pub mod rooms_socket;
pub mod router;
pub mod runs;
pub mod serve;
pub mod similarity;

#[cfg(test)]
mod tests;

/// What a server refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest body of a request, bytes.
    pub max_body_bytes: usize,
    /// Longest time in which a request's body has to arrive.
    pub body_time: Duration,
    /// Most texts in one request for embeddings.
    pub max_inputs: usize,
    /// Connections.
    pub connections: ConnectionLimits,
}

impl Default for Limits {
    fn default() -> Self {
        let body_time = Duration::from_secs(30);
        Self { max_body_bytes: 1 << 20, body_time, max_inputs: 256, connections: ConnectionLimits::default() }
    }
}

/// What a server is made of.
#[derive(Clone)]
pub struct Parts {
    /// Writes the answers.
    pub host: Arc<dyn Host>,
    /// Embeds texts, where there is something that can.
    pub embedder: Option<Arc<dyn Embedder>>,
    /// The page and the public files.
    pub files: files::Files,
    /// Training runs.
    pub runs: Runs,
    /// Live rooms.
    pub rooms: Rooms,
    /// A hub whose files are passed on.
    pub hub: Option<Hub>,
    /// Models from elsewhere.
    pub offered: Offered,
    /// Changes the model, where somebody may.
    pub switch: Option<ModelSwitch>,
    /// What is refused.
    pub limits: Limits,
    /// Names that are answered to.
    pub hosts: Hosts,
    /// Origins of pages on other servers that may use the API; `*` for all.
    pub cors_origins: Vec<String>,
}

/// Whether the server takes work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Yes.
    Running,
    /// Only what has begun is finished.
    Draining,
    /// What is still being written is cut off.
    Cut,
}

/// One running server's state, shared by all requests.
#[derive(Clone)]
pub struct App(Arc<Inner>);

struct Inner {
    parts: Parts,
    metrics: metrics::Metrics,
    phase: watch::Sender<Phase>,
}

impl App {
    /// Puts a server together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner { parts, metrics: metrics::Metrics::new(), phase: watch::Sender::new(Phase::Running) }))
    }

    /// Who writes the answers.
    #[must_use]
    pub fn host(&self) -> &Arc<dyn Host> {
        &self.0.parts.host
    }

    /// Who embeds texts.
    ///
    /// # Errors
    /// [`HostError::Invalid`] when nobody does.
    pub fn embedder(&self) -> Result<&Arc<dyn Embedder>, HostError> {
        let why = "This server has no encoder; start it with --encoder DIR.";
        self.0.parts.embedder.as_ref().ok_or_else(|| HostError::Invalid(why.into()))
    }

    /// The page and the public files.
    #[must_use]
    pub fn files(&self) -> &files::Files {
        &self.0.parts.files
    }

    /// Training runs.
    #[must_use]
    pub fn runs(&self) -> &Runs {
        &self.0.parts.runs
    }

    /// Live rooms.
    #[must_use]
    pub fn rooms(&self) -> &Rooms {
        &self.0.parts.rooms
    }

    /// The hub whose files are passed on.
    #[must_use]
    pub fn hub(&self) -> Option<&Hub> {
        self.0.parts.hub.as_ref()
    }

    /// Models from elsewhere that pages may have.
    #[must_use]
    pub fn offered(&self) -> &Offered {
        &self.0.parts.offered
    }

    /// What changes the model, where somebody may.
    #[must_use]
    pub fn switch(&self) -> Option<&ModelSwitch> {
        self.0.parts.switch.as_ref()
    }

    /// What is refused.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.0.parts.limits
    }

    /// The server's own measurements.
    #[must_use]
    pub fn metrics(&self) -> &metrics::Metrics {
        &self.0.metrics
    }

    /// Whether the server takes work, now and later.
    #[must_use]
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.0.phase.subscribe()
    }

    /// Goes on to a later phase.
    pub fn enter(&self, phase: Phase) {
        self.0.phase.send_if_modified(|now| {
            let is_later = phase > *now;
            *now = phase.max(*now);
            is_later
        });
    }
}
