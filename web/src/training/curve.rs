//! The metrics of a run.

use std::collections::BTreeMap;

use client::protocol::runs::MetricsLine;

/// Key of the environment steps in a line of metrics.
pub(super) const STEP: &str = "global_step";
/// The metrics of a run, column by column.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    pub(super) steps: Vec<f64>,
    /// One entry a step; NaN where nothing was logged.
    pub(super) columns: BTreeMap<String, Vec<f64>>,
    /// Id of the last event, to go on after it.
    pub last_id: String,
}

impl Curve {
    /// Adds a line of metrics; one that is here already is passed over.
    pub fn push(&mut self, line: MetricsLine, id: &str) {
        // RESUMES.LINE
        let place =
            |id: &str| id.split_once('.').and_then(|(a, b)| Some((a.parse::<u64>().ok()?, b.parse::<u64>().ok()?)));
        if place(&self.last_id).zip(place(id)).is_some_and(|(last, this)| this <= last) {
            return;
        }
        let rows = self.steps.len();
        self.steps.push(line.get(STEP).copied().unwrap_or(f64::NAN));
        for (key, value) in line.into_iter().filter(|(key, _)| key != STEP) {
            let column = self.columns.entry(key).or_default();
            column.resize(rows, f64::NAN);
            column.push(value);
        }
        id.clone_into(&mut self.last_id);
    }

    /// Number of lines.
    #[must_use]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether nothing was logged yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// What was logged of a key, (steps, value).
    #[must_use]
    pub fn points(&self, key: &str) -> Vec<(f64, f64)> {
        let column = self.columns.get(key).map(Vec::as_slice).unwrap_or_default();
        self.steps.iter().copied().zip(column.iter().copied()).filter(|(_, y)| y.is_finite()).collect()
    }

    /// The last value of a key.
    pub(super) fn last(&self, key: &str) -> Option<f64> {
        self.points(key).last().map(|(_, y)| *y)
    }
}

/// What a person reads of a metric.
#[must_use]
pub fn key_name(key: &str) -> String {
    match key {
        "eval/ratio" => "Share of the optimum, evaluated".to_owned(),
        "eval/latency_s" => "Mean latency, evaluated (s)".to_owned(),
        "eval/accuracy" => "Mean accuracy, evaluated".to_owned(),
        "eval/hallucination" => "Mean hallucination, evaluated".to_owned(),
        "eval/energy_j" => "Mean energy, evaluated (J)".to_owned(),
        "charts/learning_rate" => "Learning rate".to_owned(),
        "charts/SPS" => "Environment steps per second".to_owned(),
        _ => {
            let (group, name) = key.split_once('/').unwrap_or(("", key));
            let name = name.replace('_', " ");
            if group == "losses" || group.is_empty() { name } else { format!("{group}: {name}") }
        }
    }
}
