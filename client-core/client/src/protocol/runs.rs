//! `/api/runs`: training runs on the server.
//!
//! | address | what it does |
//! | --- | --- |
//! | `GET /api/runs` | [`RunList`]: what can be trained here, and the newest runs; `?limit=N&before=ID` for others |
//! | `POST /api/runs` | takes a [`RunRequest`], answers 201 with the new run's [`RunView`] |
//! | `GET /api/runs/hyper-parameters` | [`HyperParameters`]: what can be set of each algorithm, with ranges and help |
//! | `GET /api/runs/{id}` | [`RunView`] |
//! | `DELETE /api/runs/{id}` | removes a run that is not running, with its files |
//! | `POST /api/runs/{id}/stop`, `…/resume` | [`RunView`] |
//! | `GET /api/runs/{id}/metrics` | server-sent events, see below |
//! | `GET /api/runs/{id}/policy` | the best policy so far, safetensors |
//! | `GET /api/runs/{id}/curves.svg` | reward over steps as a picture |
//!
//! The stream of metrics has one plain event a line of the run's `metrics.jsonl` ([`MetricsLine`]), those so far and then
//! new ones as they are written, and ends with an event [`END_EVENT`] that holds the [`RunView`]. An id is `RESUMES.LINE`;
//! sent back as `Last-Event-ID`, the stream goes on after that line. When the run was resumed meanwhile, lines may have
//! been taken back: the stream then begins anew with an event [`RESET_EVENT`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use super::hyper::{HyperKind, HyperParameter};

use mec::{ServerShare, Variant};

/// Name of the last event of a stream of metrics.
pub const END_EVENT: &str = "end";
/// Name of the event after which a stream of metrics begins anew.
pub const RESET_EVENT: &str = "reset";

/// One line of metrics: numbers by name, `global_step`, `charts/…`, `losses/…`, `eval/…`.
pub type MetricsLine = BTreeMap<String, f64>;

/// `POST /api/runs`; what is left out has its default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunRequest {
    /// Algorithm, one of [`Training::algorithms`].
    pub algo: String,
    /// Where its hyper-parameters begin, one of the algorithm's presets.
    pub preset: String,
    /// Number of users K.
    pub users: usize,
    /// What the state does between slots.
    pub variant: Variant,
    /// All tasks of this size in Mbit; `None` for the mixed sizes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_mbit: Option<f64>,
    /// How the server is shared.
    pub f_mode: ServerShare,
    /// Other settings of the simulator by key ([`mec::settings::SETTINGS`]).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, f64>,
    /// Seed of weights, worlds, exploration and minibatches.
    pub seed: u64,
    /// Environment steps (slots) in all.
    pub steps: u64,
    /// Cells simulated side by side; `None` for the preset's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envs: Option<usize>,
    /// Hyper-parameters by name that differ from the preset's ([`AlgoView::hyper`]).
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub hyper: serde_json::Map<String, serde_json::Value>,
}

impl Default for RunRequest {
    fn default() -> Self {
        Self {
            algo: "ppo".to_owned(),
            preset: "tuned".to_owned(),
            users: 2,
            variant: Variant::default(),
            size_mbit: None,
            f_mode: ServerShare::default(),
            settings: BTreeMap::new(),
            seed: 1,
            steps: 100_000,
            envs: None,
            hyper: serde_json::Map::new(),
        }
    }
}

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// Waits for its turn.
    Queued,
    /// Learns.
    Running,
    /// Took all its steps.
    Finished,
    /// A person stopped it; can be resumed.
    Stopped,
    /// Ended by itself before its time; `error` says why.
    Failed,
    /// The server ended while it ran; can be resumed.
    Interrupted,
}

impl RunState {
    /// All states.
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Running, Self::Finished, Self::Stopped, Self::Failed, Self::Interrupted];

    /// The name in files and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }

    /// Whether it learns or will without anybody doing anything.
    #[must_use]
    pub fn is_active(self) -> bool {
        matches!(self, Self::Queued | Self::Running)
    }

    /// Whether it can be taken up again.
    #[must_use]
    pub fn can_resume(self) -> bool {
        matches!(self, Self::Stopped | Self::Failed | Self::Interrupted)
    }
}

/// A training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunView {
    /// Number of the run.
    pub id: i64,
    /// How it stands.
    pub state: RunState,
    /// Whether it was asked to stop, which it does within seconds.
    pub stopping: bool,
    /// Everything that determines it, as in its `config.toml`.
    pub config: serde_json::Value,
    /// When it was asked for, ms since 1970.
    pub created_ms: u64,
    /// When it last began to learn.
    pub started_ms: Option<u64>,
    /// When it last ended.
    pub ended_ms: Option<u64>,
    /// Environment steps so far.
    pub steps: u64,
    /// Environment steps in all.
    pub total_steps: u64,
    /// Best evaluation so far, mean reward (47).
    pub best_reward: Option<f64>,
    /// Mean rewards to compare with on the same slots by name (`optimum`, `closed form`); empty before the first update.
    pub references: BTreeMap<String, f64>,
    /// Why it failed, and what to do.
    pub error: Option<String>,
    /// Whether there is a policy to download.
    pub has_policy: bool,
    /// How often it was resumed.
    pub resumes: u32,
}

impl RunView {
    /// A text of the configuration, such as `algo`.
    #[must_use]
    pub fn text(&self, pointer: &str) -> Option<&str> {
        self.config.pointer(pointer).and_then(serde_json::Value::as_str)
    }

    /// The algorithm.
    #[must_use]
    pub fn algo(&self) -> &str {
        self.text("/algo").unwrap_or("?")
    }

    /// Number of users that it learns for.
    #[must_use]
    pub fn users(&self) -> Option<usize> {
        self.config.pointer("/mec/users")?.as_u64()?.try_into().ok()
    }
}

/// `GET /api/runs`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunList {
    /// What can be trained here.
    pub training: Training,
    /// Runs, newest first.
    pub runs: Vec<RunView>,
    /// What `before` has to be for the runs that come after these; `None` where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<i64>,
}

/// What can be trained on this server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// `None` when runs are taken; else why not, and what to do.
    pub off: Option<String>,
    /// The algorithms, once for each of their presets.
    pub algorithms: Vec<AlgoView>,
    /// What is refused.
    pub limits: RunLimits,
}

/// An algorithm with one of its presets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlgoView {
    /// Its name in requests.
    pub name: String,
    /// The preset's name.
    pub preset: String,
    /// Cells side by side.
    pub envs: usize,
    /// Its hyper-parameters as the preset has them for the default system; `model.hidden` is one of a part of it. (For
    /// some other variant a preset may begin elsewhere.)
    pub hyper: serde_json::Map<String, serde_json::Value>,
}

/// The hyper-parameters of every algorithm by its name, in the order in which they are best shown; those that hold for all
/// algorithms come last in each.
pub type HyperParameters = BTreeMap<String, Vec<HyperParameter>>;

/// What a server refuses to train, so that a public one cannot be made to compute without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunLimits {
    /// Most users K.
    pub users: usize,
    /// Most environment steps of a run.
    pub steps: u64,
    /// Most cells side by side.
    pub envs: usize,
    /// Longest time that a run learns before it is stopped, in minutes; it can be resumed.
    pub minutes: u64,
    /// Runs that learn at the same time; others wait.
    pub concurrent: usize,
    /// Runs that may wait before the server answers 503.
    pub queue: usize,
    /// Runs that are kept; a new one is refused until one is deleted.
    pub kept: usize,
}

impl Default for RunLimits {
    fn default() -> Self {
        Self { users: 10, steps: 1_000_000, envs: 256, minutes: 120, concurrent: 1, queue: 16, kept: 200 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_called_the_same_everywhere() {
        for state in RunState::ALL {
            assert_eq!(serde_json::to_value(state).expect("json"), state.name());
        }
    }

    #[test]
    fn an_empty_request_is_the_papers_system() {
        let request: RunRequest = serde_json::from_str("{}").expect("all fields have defaults");
        assert_eq!(request, RunRequest::default());
        assert!(serde_json::from_str::<RunRequest>(r#"{"stpes": 3}"#).is_err(), "a misspelt field is not passed over");
    }
}
