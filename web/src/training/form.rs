//! The form of the next run.

use client::protocol::runs::{AlgoView, HyperKind, RunList, RunRequest};
use mec::{ServerShare, Variant};
use serde_json::Value;

/// The hyper-parameter that has a slider of its own: the learning rate, the policy's where there are several.
#[must_use]
pub fn rate_key(algo: &AlgoView) -> Option<String> {
    const NAMES: [&str; 4] = ["learning_rate", "ppo.learning_rate", "actor_learning_rate", "actor_rate"];
    let is_number = |key: &&str| algo.hyper.get(*key).is_some_and(Value::is_f64);
    NAMES.into_iter().find(is_number).map(str::to_owned)
}

/// The form of the next run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Form {
    /// What will be asked for; hyper-parameters only where they differ from the algorithm's defaults.
    pub request: RunRequest,
}

impl Form {
    /// Brings the form within what a server offers.
    pub(super) fn fit(&mut self, list: &RunList) {
        let (training, request) = (&list.training, &mut self.request);
        if !training.algorithms.iter().any(|algo| algo.name == request.algo && algo.preset == request.preset)
            && let Some(first) = training.algorithms.first()
        {
            request.algo.clone_from(&first.name);
            request.preset.clone_from(&first.preset);
        }
        request.users = request.users.clamp(1, training.limits.users);
        request.steps = request.steps.clamp(1, training.limits.steps);
    }

    /// Takes another algorithm or preset; hyper-parameters that it does not have are dropped.
    pub fn set_algo(&mut self, algo: &AlgoView) {
        self.request.algo.clone_from(&algo.name);
        self.request.preset.clone_from(&algo.preset);
        self.request.hyper.retain(|key, _| algo.hyper.contains_key(key));
    }

    /// The value of a hyper-parameter that is in force.
    #[must_use]
    pub fn hyper<'a>(&'a self, algo: &'a AlgoView, key: &str) -> Option<&'a Value> {
        self.request.hyper.get(key).or_else(|| algo.hyper.get(key))
    }

    /// Sets a hyper-parameter.
    pub fn set_hyper(&mut self, algo: &AlgoView, key: &str, value: Value) {
        if algo.hyper.get(key) == Some(&value) {
            self.request.hyper.remove(key);
        } else {
            self.request.hyper.insert(key.to_owned(), value);
        }
    }

    /// Sets a hyper-parameter from text; `false` when the text is no value of its kind. One that is out of its range is
    /// taken: it is shown as such, and the server refuses it.
    pub fn type_hyper(&mut self, algo: &AlgoView, key: &str, kind: &HyperKind, text: &str) -> bool {
        let Some(value) = parse(kind, text.trim()) else { return false };
        self.set_hyper(algo, key, value);
        true
    }
}

/// The value that a text stands for; `None` where it is none of this kind.
fn parse(kind: &HyperKind, text: &str) -> Option<Value> {
    match kind {
        // Whole numbers stay whole.
        HyperKind::Whole { .. } => text.parse::<u64>().ok().map(Value::from),
        HyperKind::Number { .. } => text.parse::<f64>().ok().filter(|value| value.is_finite()).map(Value::from),
        HyperKind::Switch => text.parse::<bool>().ok().map(Value::Bool),
        HyperKind::Choice { .. } => Some(Value::String(text.to_owned())),
        HyperKind::Layers { .. } => {
            let numbers = text.split([',', ' ']).filter(|part| !part.is_empty());
            let numbers: Option<Vec<_>> = numbers.map(|part| part.parse::<u64>().ok().map(Value::from)).collect();
            numbers.map(Value::Array)
        }
    }
}

/// A hyper-parameter as text.
#[must_use]
pub fn hyper_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        Value::Null => String::new(),
        // Numbers that were single precision before show the digits that were meant.
        Value::Number(number) if number.is_f64() => {
            #[expect(clippy::cast_possible_truncation, reason = "for people")]
            let short = number.as_f64().unwrap_or(0.0) as f32;
            short.to_string()
        }
        other => other.to_string(),
    }
}

/// A slider over powers of ten: 0..=`LOG_PLACES` between `low` and `high`.
pub const LOG_PLACES: f64 = 100.0;

/// The ends of a logarithmic slider for a number that is chosen by orders of magnitude: its range, or the upper five
/// orders of it where that begins at 0. `None` for other kinds.
#[must_use]
pub fn log_range(kind: &HyperKind) -> Option<(f64, f64)> {
    match *kind {
        HyperKind::Number { least, most, by_magnitude: true, .. } => Some((least.max(most * 1e-5), most)),
        _ => None,
    }
}

/// Where a logarithmic slider stands.
#[must_use]
pub fn log_place(value: f64, low: f64, high: f64) -> f64 {
    (LOG_PLACES * (value / low).ln() / (high / low).ln()).clamp(0.0, LOG_PLACES)
}

/// The value at a place, with two digits.
#[must_use]
pub fn log_value(place: f64, low: f64, high: f64) -> f64 {
    let value = low * (high / low).powf((place / LOG_PLACES).clamp(0.0, 1.0));
    format!("{value:.1e}").parse::<f64>().unwrap_or(value).clamp(low, high)
}

/// The ways of the state with what they mean.
pub const VARIANTS: [(Variant, &str); 5] = [
    (Variant::Paper, "paper: decisions do not move the state"),
    (Variant::Iid, "iid: no memory at all"),
    (Variant::Delayed, "delayed: sizes and gains are seen one slot late"),
    (Variant::Backlog, "backlog: unfinished work delays the next slot"),
    (Variant::Mobile, "mobile: users walk"),
];

/// The ways of sharing the server.
pub const SHARES: [(ServerShare, &str); 3] = [
    (ServerShare::Full, "each user gets all of F"),
    (ServerShare::Equal, "equal parts"),
    (ServerShare::Load, "in proportion to the load"),
];
