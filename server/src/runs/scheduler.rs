//! Which runs wait, which learn, and what is known of them before the database knows it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use client::protocol::runs::{RunState, RunView};
use rl::stop::Stop;
use tokio::sync::watch;

use super::store::{Store, StoreError};

/// What those who follow a run are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunProgress {
    /// Its folder is in order and it learns.
    pub begun: bool,
    /// Updates that were logged since.
    pub updates: u64,
    /// It is over.
    pub over: bool,
}

/// A run that waits or learns.
pub(super) struct ActiveRun {
    pub(super) stop: Arc<Stop>,
    /// Whether a person told it to stop.
    pub(super) stopped: bool,
    /// Why it was told to stop, where it takes too long.
    pub(super) too_long: Option<String>,
    pub(super) progress: watch::Sender<RunProgress>,
    pub(super) steps: u64,
    pub(super) best_reward: Option<f64>,
    pub(super) references: BTreeMap<String, f64>,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub(super) struct RunEnd {
    pub(super) state: RunState,
    pub(super) error: Option<String>,
    pub(super) ended_ms: u64,
    /// Steps, best reward and references, where it learned.
    pub(super) progress: Option<(u64, Option<f64>, BTreeMap<String, f64>)>,
}

impl RunEnd {
    /// Writes it into the list.
    pub(super) fn write(&self, store: &Store, id: i64) -> Result<(), StoreError> {
        if let Some((steps, best_reward, references)) = &self.progress {
            store.note(id, *steps, *best_reward, references)?;
        }
        store.end(id, self.state, self.error.as_deref(), self.ended_ms)
    }

    /// Puts it into a run as it is shown.
    pub(super) fn show(&self, view: &mut RunView) {
        (view.state, view.ended_ms) = (self.state, Some(self.ended_ms));
        view.error.clone_from(&self.error);
        if let Some((steps, best_reward, references)) = &self.progress {
            (view.steps, view.best_reward) = (*steps, *best_reward);
            view.references.clone_from(references);
        }
    }
}

/// Which runs wait and which learn.
#[derive(Default)]
pub(super) struct Scheduler {
    pub(super) queue: VecDeque<i64>,
    pub(super) active: BTreeMap<i64, ActiveRun>,
    /// Ends that the database could not take: the disk was full.
    pub(super) unwritten: BTreeMap<i64, RunEnd>,
    /// Whether a thread tries to write those.
    pub(super) trying: bool,
    pub(super) running: usize,
    pub(super) closing: bool,
}

impl Scheduler {
    /// Puts a run at the end of the queue.
    pub(super) fn enqueue(&mut self, id: i64) {
        let active = ActiveRun {
            stop: Arc::default(),
            stopped: false,
            too_long: None,
            progress: watch::Sender::new(RunProgress::default()),
            steps: 0,
            best_reward: None,
            references: BTreeMap::new(),
        };
        self.active.insert(id, active);
        self.queue.push_back(id);
    }

    /// It neither waits nor learns any more.
    pub(super) fn forget(&mut self, id: i64) {
        self.queue.retain(|waiting| *waiting != id);
        if let Some(active) = self.active.remove(&id) {
            active.progress.send_modify(|progress| progress.over = true);
        }
    }
}
