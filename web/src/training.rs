//! What the page knows of the training runs on the server: the list, the curves that are compared, and the form of the
//! next run. Pure: the browser's side is in `panels::train`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use client::protocol::runs::{AlgoView, MetricsLine, RunList, RunRequest, RunView};
use mec::{ServerShare, Variant};
use serde_json::Value;

use chart::plot::{Line, Plot, Stroke, smooth};

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
/// The hyper-parameter that has a slider of its own: the learning rate, the policy's where there are several.
#[must_use]
pub fn rate_key(algo: &AlgoView) -> Option<String> {
    const NAMES: [&str; 4] = ["learning_rate", "ppo.learning_rate", "actor_learning_rate", "actor_rate"];
    let is_number = |key: &&str| algo.hyper.get(*key).is_some_and(Value::is_f64);
    NAMES.into_iter().find(is_number).map(str::to_owned)
}

/// Key of the environment steps in a line of metrics.
const STEP: &str = "global_step";
/// Keys of the reward, exploring and evaluated.
const EXPLORED: &str = "charts/mean_reward";
const EVALUATED: &str = "eval/reward";
/// The reference that is the best there is.
const OPTIMUM: &str = "optimum";

/// Everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Training {
    /// What the server said last; `None` until it spoke.
    pub list: Option<RunList>,
    /// Why it cannot be reached, in plain words.
    pub problem: Option<String>,
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

/// The metrics of a run, column by column.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    steps: Vec<f64>,
    /// One entry a step; NaN where nothing was logged.
    columns: BTreeMap<String, Vec<f64>>,
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

    fn last(&self, key: &str) -> Option<f64> {
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

    /// All metrics that the shown runs have, but for the steps and the reward, which have places of their own.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        let keys = self.shown_curves().flat_map(|(_, curve)| curve.columns.keys());
        let keys: BTreeSet<&String> = keys.filter(|key| ![EXPLORED, EVALUATED].contains(&key.as_str())).collect();
        keys.into_iter().cloned().collect()
    }

    fn shown_curves(&self) -> impl Iterator<Item = (i64, &Curve)> {
        self.shown.iter().filter_map(|id| Some((*id, self.curves.get(id)?)))
    }

    fn name(&self, id: i64) -> String {
        self.run(id).map_or_else(|| format!("Run {id}"), run_name)
    }

    fn plot(&self, y_name: String, log_y: bool, lines: Vec<Line>, [width, height]: [f64; 2]) -> Plot {
        Plot { x_name: "environment steps".to_owned(), y_name, log_x: self.look.log_x, log_y, lines, width, height }
    }

    /// Reward over steps: exploring (smoothed) and evaluated, with what to compare with. `colour` gives the colour of a
    /// run's place, `level` that of the lines to compare with where only one run is shown.
    #[must_use]
    pub fn reward_plot(&self, size: [f64; 2], colour: impl Fn(usize) -> String, level: &str) -> Plot {
        let mut lines = Vec::new();
        let alone = self.shown.len() == 1;
        for (id, run) in self.shown.iter().filter_map(|id| Some((*id, self.run(*id)?))) {
            for (name, value) in &run.references {
                let colour = if alone { level.to_owned() } else { colour(self.colour(id)) };
                let stroke = if name == OPTIMUM { Stroke::Dashed } else { Stroke::Dotted };
                let name = format!("{}, {name}", self.name(id));
                lines.push(Line { name, colour, points: vec![(0.0, *value)], stroke });
            }
        }
        for (key, what, stroke) in
            [(EXPLORED, "while exploring", Stroke::Faint), (EVALUATED, "mean action, evaluated", Stroke::Bold)]
        {
            for (id, curve) in self.shown_curves() {
                let points = curve.points(key);
                let points = if stroke == Stroke::Faint { smooth(&points, self.look.smoothing) } else { points };
                let name = format!("{}, {what}", self.name(id));
                lines.push(Line { name, colour: colour(self.colour(id)), points, stroke });
            }
        }
        self.plot("mean reward of a slot".to_owned(), false, lines, size)
    }

    /// What a run is compared with, in words; each run is evaluated on slots of its own seed, so that these differ a little.
    #[must_use]
    pub fn levels(&self, id: i64) -> String {
        let references = self.run(id).map(|run| &run.references).into_iter().flatten();
        references.map(|(name, value)| format!(", {name} {value:.3}")).collect()
    }

    /// Any other metric over steps.
    #[must_use]
    pub fn key_plot(&self, key: &str, size: [f64; 2], colour: impl Fn(usize) -> String) -> Plot {
        let line = |(id, curve): (i64, &Curve)| Line {
            name: self.name(id),
            colour: colour(self.colour(id)),
            points: smooth(&curve.points(key), if key.starts_with("eval/") { 0.0 } else { self.look.smoothing }),
            stroke: Stroke::Bold,
        };
        self.plot(key_name(key), self.look.log_y, self.shown_curves().map(line).collect(), size)
    }

    /// The reward chart in a sentence or two.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = String::from("Mean reward over environment steps.");
        for (id, curve) in self.shown_curves() {
            let last = curve.last(EVALUATED).or_else(|| curve.last(EXPLORED));
            let best = self.run(id).and_then(|run| run.best_reward);
            // Writing to a String cannot fail.
            let _ =
                write!(text, " {}: last {}, best {}{}.", self.name(id), number(last), number(best), self.levels(id));
        }
        text
    }

    /// All metrics of the shown runs as CSV: a row a line of metrics, empty where nothing was logged.
    #[must_use]
    pub fn csv(&self) -> String {
        let keys: BTreeSet<&String> = self.shown_curves().flat_map(|(_, curve)| curve.columns.keys()).collect();
        let mut text = String::from("run,algo,users,seed,global_step");
        for key in &keys {
            let _ = write!(text, ",{key}");
        }
        text.push_str("\r\n");
        for (id, curve) in self.shown_curves() {
            let run = self.run(id);
            let algo = run.map_or("", RunView::algo);
            let config = |pointer: &str| {
                run.and_then(|run| run.config.pointer(pointer)).map_or_else(String::new, Value::to_string)
            };
            let (users, seed) = (config("/mec/users"), config("/seed"));
            for (row, step) in curve.steps.iter().enumerate() {
                let _ = write!(text, "{id},{algo},{users},{seed},{step}");
                for key in &keys {
                    let value = curve.columns.get(*key).and_then(|column| column.get(row)).filter(|v| v.is_finite());
                    let _ = write!(text, ",{}", value.map_or_else(String::new, f64::to_string));
                }
                text.push_str("\r\n");
            }
        }
        text
    }
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| crate::format::NA.to_owned(), |v| format!("{v:.3}"))
}

/// The form of the next run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Form {
    /// What will be asked for; hyper-parameters only where they differ from the algorithm's defaults.
    pub request: RunRequest,
}

impl Form {
    /// Brings the form within what a server offers.
    fn fit(&mut self, list: &RunList) {
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

    /// Sets a hyper-parameter from text; `false` when the text is no value of its kind.
    pub fn type_hyper(&mut self, algo: &AlgoView, key: &str, text: &str) -> bool {
        let text = text.trim();
        let value = match algo.hyper.get(key) {
            Some(Value::String(_)) => Some(Value::String(text.to_owned())),
            Some(Value::Array(_)) => {
                let numbers = text.split([',', ' ']).filter(|part| !part.is_empty());
                numbers
                    .map(|part| part.parse::<u64>().ok().map(Value::from))
                    .collect::<Option<Vec<_>>>()
                    .map(Value::Array)
            }
            Some(Value::Bool(_)) => text.parse::<bool>().ok().map(Value::Bool),
            // Whole numbers stay whole.
            Some(Value::Number(default)) if default.is_u64() => text.parse::<u64>().ok().map(Value::from),
            Some(Value::Null) if text.is_empty() => Some(Value::Null),
            _ => text.parse::<f64>().ok().filter(|v| v.is_finite()).map(|v| {
                if v.fract() == 0.0 && algo.hyper.get(key) == Some(&Value::Null) {
                    serde_json::from_str(text).unwrap_or_else(|_| Value::from(v))
                } else {
                    Value::from(v)
                }
            }),
        };
        let Some(value) = value else { return false };
        self.set_hyper(algo, key, value);
        true
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

#[cfg(test)]
mod tests {
    use client::protocol::runs::{RunLimits, RunState, Training as Offer};
    use serde_json::json;

    use super::*;

    fn algo() -> AlgoView {
        let hyper = json!({
            "learning_rate": 0.001, "epochs": 4, "credit": "bandit", "hidden": [256, 256], "anneal": true, "patience": null,
        });
        AlgoView {
            name: "ppo".into(),
            preset: "tuned".into(),
            envs: 32,
            hyper: hyper.as_object().cloned().unwrap_or_default(),
        }
    }

    fn run(id: i64, state: RunState) -> RunView {
        RunView {
            id,
            state,
            stopping: false,
            config: json!({"algo": "ppo", "seed": 4, "ppo": {"credit": "gae"}, "mec": {"users": 3, "variant": "backlog"}}),
            created_ms: 1,
            started_ms: None,
            ended_ms: None,
            steps: 0,
            total_steps: 100,
            best_reward: Some(1.5),
            references: [("optimum".to_owned(), 2.0), ("closed form".to_owned(), 1.9)].into(),
            error: None,
            has_policy: false,
            resumes: 0,
        }
    }

    fn list(runs: Vec<RunView>) -> RunList {
        RunList {
            training: Offer { off: None, algorithms: vec![algo()], limits: RunLimits::default() },
            runs,
            next: None,
        }
    }

    fn line(step: f64, values: &[(&str, f64)]) -> MetricsLine {
        let own = [(STEP, step), (EXPLORED, step / 100.0)];
        own.iter().chain(values).map(|(key, value)| ((*key).to_owned(), *value)).collect()
    }

    fn with_curves() -> Training {
        let mut training = Training::default();
        training.take_list(list(vec![run(2, RunState::Running), run(1, RunState::Stopped)]));
        training.toggle(1);
        let curve = training.curves.entry(2).or_default();
        curve.push(line(10.0, &[("losses/value_loss", 3.0)]), "0.1");
        curve.push(line(20.0, &[(EVALUATED, 1.25), ("losses/value_loss", 2.0)]), "0.2");
        training.curves.entry(1).or_default().push(line(10.0, &[]), "0.1");
        training
    }

    #[test]
    fn every_figure_is_in_the_reports() {
        let public = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../public");
        let pictures = FIGURES.iter().flat_map(|(name, _)| ["svg", "json"].map(|end| format!("reports/{name}.{end}")));
        for file in pictures.chain([REPORT.to_owned()]) {
            assert!(public.join(&file).is_file(), "{file}");
        }
    }

    #[test]
    fn lines_become_columns_that_keep_their_steps() {
        let training = with_curves();
        let curve = &training.curves[&2];
        assert_eq!((curve.len(), curve.last_id.as_str()), (2, "0.2"));
        assert_eq!(curve.points(EVALUATED), [(20.0, 1.25)]);
        assert_eq!(curve.points("losses/value_loss"), [(10.0, 3.0), (20.0, 2.0)]);
        assert_eq!(curve.points("nothing"), []);
        let mut again = curve.clone();
        again.push(line(20.0, &[]), "0.2");
        assert_eq!(again.len(), 2, "a line that comes twice counts once");
        again.push(line(20.0, &[]), "1.1");
        assert_eq!(again.len(), 3);
        assert_eq!(training.keys(), ["losses/value_loss"]);
    }

    #[test]
    fn the_first_list_shows_what_goes_on_and_later_ones_tell_what_changed() {
        let mut training = Training::default();
        let runs = || vec![run(3, RunState::Finished), run(2, RunState::Running), run(1, RunState::Stopped)];
        assert!(training.take_list(list(runs())).is_empty(), "nothing was known before");
        assert_eq!(training.shown, [2].into());
        let mut later = runs();
        later[1].state = RunState::Failed;
        later[1].error = Some("The disk is full.".into());
        let news = training.take_list(list(later));
        assert_eq!(news, ["Run 2: ppo gae, K = 3, backlog: failed. The disk is full."]);
        training.take_list(list(vec![run(3, RunState::Finished)]));
        assert!(training.shown.is_empty(), "a deleted run is not shown");
        training.take_run(run(4, RunState::Queued));
        assert_eq!(training.list.as_ref().map(|l| l.runs[0].id), Some(4));
    }

    #[test]
    fn only_so_many_runs_are_compared() {
        let mut training = Training::default();
        for id in 0..MOST_SHOWN as i64 {
            assert!(training.toggle(id));
        }
        assert!(!training.toggle(99));
        assert!(training.toggle(0) && training.toggle(99));
        assert_eq!(training.colour(99), MOST_SHOWN - 1);
    }

    #[test]
    fn charts_hold_every_shown_run_and_its_levels() {
        let training = with_curves();
        let plot = training.reward_plot([600.0, 300.0], |place| format!("c{place}"), "grey");
        let count = |stroke| plot.lines.iter().filter(|line| line.stroke == stroke).count();
        let counts = [Stroke::Dashed, Stroke::Dotted, Stroke::Faint, Stroke::Bold].map(count);
        assert_eq!(counts, [2, 2, 2, 2]);
        let plot = training.key_plot("losses/value_loss", [600.0, 300.0], |place| format!("c{place}"));
        assert_eq!(plot.lines.len(), 2);
        assert_eq!((plot.y_name.as_str(), plot.lines[1].points.len()), ("value loss", 2));
        let summary = training.summary();
        assert!(summary.contains("last 1.250, best 1.500, closed form 1.900, optimum 2.000"), "{summary}");
    }

    #[test]
    fn the_csv_has_a_row_a_line_and_a_column_a_metric() {
        let csv = with_curves().csv();
        let rows: Vec<Vec<&str>> = csv.trim_end().split("\r\n").map(|row| row.split(',').collect()).collect();
        let head = "run,algo,users,seed,global_step,charts/mean_reward,eval/reward,losses/value_loss";
        assert_eq!(rows[0].join(","), head);
        assert_eq!(rows[1], ["1", "ppo", "3", "4", "10", "0.1", "", ""]);
        assert_eq!(rows[3], ["2", "ppo", "3", "4", "20", "0.2", "1.25", "2"]);
        assert_eq!(rows.len(), 4);
    }

    #[test]
    fn hyper_parameters_are_sent_only_where_they_differ() {
        let (mut form, algo) = (Form::default(), algo());
        for (key, text, is_value, sent) in [
            ("epochs", "8", true, json!({"epochs": 8})),
            ("epochs", "4", true, json!({})),
            ("epochs", "1.5", false, json!({})),
            ("learning_rate", "0.01", true, json!({"learning_rate": 0.01})),
            ("learning_rate", "1e-3", true, json!({})),
            ("learning_rate", "fast", false, json!({})),
            ("credit", "gae", true, json!({"credit": "gae"})),
            ("credit", "bandit", true, json!({})),
            ("hidden", "32, 16", true, json!({"hidden": [32, 16]})),
            ("hidden", "256 256", true, json!({})),
            ("anneal", "maybe", false, json!({})),
            ("patience", "5", true, json!({"patience": 5})),
            ("patience", "", true, json!({})),
        ] {
            assert_eq!(form.type_hyper(&algo, key, text), is_value, "{key} = {text}");
            assert_eq!(Value::Object(form.request.hyper.clone()), sent, "{key} = {text}");
        }
        form.type_hyper(&algo, "epochs", "8");
        let other = AlgoView { name: "other".into(), preset: "paper".into(), envs: 1, hyper: serde_json::Map::new() };
        form.set_algo(&other);
        assert_eq!((form.request.algo.as_str(), form.request.hyper.len()), ("other", 0));
        assert_eq!(hyper_text(&json!([256, 64])), "256, 64");
        assert_eq!(hyper_text(&json!(f64::from(0.95_f32))), "0.95");
    }

    #[test]
    fn the_policys_learning_rate_has_the_slider() {
        for (hyper, expect) in [
            (json!({"learning_rate": 0.1, "model.learning_rate": 0.2}), Some("learning_rate")),
            (json!({"model.learning_rate": 0.1, "ppo.learning_rate": 0.2}), Some("ppo.learning_rate")),
            (json!({"actor_learning_rate": 0.1, "critic_learning_rate": 0.2}), Some("actor_learning_rate")),
            (json!({"actor_rate": 0.1, "critic_rate": 0.2}), Some("actor_rate")),
            (json!({"epochs": 3}), None),
        ] {
            let algo = AlgoView {
                name: "x".into(),
                preset: "tuned".into(),
                envs: 1,
                hyper: hyper.as_object().cloned().unwrap_or_default(),
            };
            assert_eq!(rate_key(&algo).as_deref(), expect);
        }
    }

    #[test]
    fn a_logarithmic_slider_there_and_back() {
        for value in [1e-5, 3e-4, 1e-3, 0.1] {
            let back = log_value(log_place(value, 1e-5, 0.1), 1e-5, 0.1);
            assert!((back / value - 1.0).abs() < 0.06, "{value}: {back}");
        }
        assert_eq!(log_value(0.0, 1e-5, 0.1), 1e-5);
        assert_eq!(log_value(LOG_PLACES, 1e3, 1e6), 1e6);
    }

    #[test]
    fn every_choice_of_the_simulator_is_offered() {
        assert_eq!(VARIANTS.map(|(v, _)| v), Variant::ALL);
        assert_eq!(SHARES.map(|(s, _)| s), ServerShare::ALL);
    }
}
