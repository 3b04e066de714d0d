//! What the page knows of the training runs on the server. Pure: the browser's side is in `panels::train`.
//!
//! | file | holds |
//! | --- | --- |
//! | this one | the list of runs, and which of them are shown |
//! | `curve.rs` | the metrics of a run |
//! | `charts.rs` | plots, summary and CSV of the shown runs |
//! | `form.rs` | the form of the next run |

use std::collections::{BTreeMap, BTreeSet};

use client::protocol::runs::{HyperParameter, HyperParameters, RunList, RunView};
use mec::Variant;

mod charts;
mod curve;
mod form;
#[cfg(test)]
mod tests;

pub use curve::{Curve, key_name};
pub use form::{Form, LOG_PLACES, SHARES, VARIANTS, hyper_text, log_place, log_range, log_value, rate_key};

/// The figures among the reports: name of the files, and what is drawn.
pub const FIGURES: [(&str, &str); 7] = [
    ("fig8", "Fig. 8: reward over episodes, every algorithm as printed"),
    ("fig8-tuned", "Reward over episodes, tuned"),
    ("fig9a", "Fig. 9a: latency over the number of users"),
    ("fig9b", "Fig. 9b: reward over the task size"),
    ("fig10", "Fig. 10: accuracy and hallucination rate"),
    ("fig8-backlog-k2", "Reward over episodes where the server’s queue carries over"),
    ("fig8-delayed-k2", "Reward over episodes where the channel is seen a slot late"),
];
/// What they say of the paper's claims.
pub const REPORT: &str = "reports/control.md";
/// Runs whose curves are shown at the same time; as many as there are colours.
pub const MOST_SHOWN: usize = 6;
/// Everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Training {
    /// What the server said last; `None` until it spoke.
    pub list: Option<RunList>,
    /// Why it cannot be reached, in plain words.
    pub problem: Option<String>,
    /// What can be set of each algorithm, as it is declared there; empty until the server told.
    pub declared: HyperParameters,
    /// The next run.
    pub form: Form,
    /// Curves of the runs that were shown.
    pub curves: BTreeMap<i64, Curve>,
    /// Runs whose curves are shown.
    pub shown: BTreeSet<i64>,
    /// How they are shown.
    pub look: ChartOptions,
}

/// How curves are shown.
#[derive(Clone, Debug, PartialEq)]
pub struct ChartOptions {
    /// Weight of the moving average, 0 is off.
    pub smoothing: f64,
    /// Logarithmic steps.
    pub log_x: bool,
    /// Logarithmic values, in all charts but the reward's.
    pub log_y: bool,
    /// What the smaller charts show.
    pub keys: [String; 2],
}

impl Default for ChartOptions {
    fn default() -> Self {
        let keys = ["eval/latency_s".to_owned(), "losses/value_loss".to_owned()];
        Self { smoothing: 0.6, log_x: false, log_y: false, keys }
    }
}

/// Name of a run in lists and legends.
#[must_use]
pub fn run_name(run: &RunView) -> String {
    let algo = run.text(&format!("/{}/credit", run.algo())).map_or(String::new(), |credit| format!(" {credit}"));
    let users = run.users().map_or(String::new(), |k| format!(", K = {k}"));
    let variant = run.text("/mec/variant").filter(|v| *v != Variant::default().name());
    let variant = variant.map_or(String::new(), |v| format!(", {v}"));
    format!("Run {}: {}{algo}{users}{variant}", run.id, run.algo())
}

impl Training {
    /// What can be set of an algorithm, in the order in which it is best shown.
    #[must_use]
    pub fn declared(&self, algo: &str) -> &[HyperParameter] {
        self.declared.get(algo).map(Vec::as_slice).unwrap_or_default()
    }

    /// The run of a number.
    #[must_use]
    pub fn run(&self, id: i64) -> Option<&RunView> {
        self.list.as_ref()?.runs.iter().find(|run| run.id == id)
    }

    /// Why no run can be started, if so.
    #[must_use]
    pub fn off(&self) -> Option<String> {
        match (&self.problem, &self.list) {
            (Some(problem), _) => Some(format!("The server cannot be reached: {problem}. Runs go on there meanwhile.")),
            (None, None) => Some("Asking the server what can be trained …".to_owned()),
            (None, Some(list)) => {
                list.training.off.as_ref().map(|why| format!("This server takes no training runs: {why}"))
            }
        }
    }

    /// Takes in the server's list. Returns what changed about runs that were known, in sentences for screen readers.
    pub fn take_list(&mut self, list: RunList) -> Vec<String> {
        self.problem = None;
        let mut news = Vec::new();
        for run in &list.runs {
            if self.run(run.id).is_some_and(|before| before.state != run.state) {
                let why = run.error.as_ref().map_or(String::new(), |error| format!(" {error}"));
                news.push(format!("{}: {}.{why}", run_name(run), run.state.name()));
            }
        }
        let exists = |id: &i64| list.runs.iter().any(|run| run.id == *id);
        self.shown.retain(exists);
        self.curves.retain(|id, _| exists(id));
        if self.list.is_none() {
            self.form.fit(&list);
            // Who comes (back) sees what goes on, else what was last.
            let active = list.runs.iter().find(|run| run.state.is_active());
            self.shown.extend(active.or(list.runs.first()).map(|run| run.id));
        }
        self.list = Some(list);
        news
    }

    /// Puts one run's news into the list.
    pub fn take_run(&mut self, run: RunView) -> Vec<String> {
        let Some(mut list) = self.list.clone() else { return Vec::new() };
        match list.runs.iter_mut().find(|known| known.id == run.id) {
            Some(known) => *known = run,
            None => list.runs.insert(0, run),
        }
        self.take_list(list)
    }

    /// Shows or hides a run's curves; `false` when there is no room.
    pub fn toggle(&mut self, id: i64) -> bool {
        if self.shown.remove(&id) {
            return true;
        }
        if self.shown.len() >= MOST_SHOWN {
            return false;
        }
        self.shown.insert(id)
    }

    /// The colour of a shown run: its place among them.
    #[must_use]
    pub fn colour(&self, id: i64) -> usize {
        self.shown.iter().position(|shown| *shown == id).unwrap_or(0)
    }
}
