//! What is drawn, said and saved of the shown runs.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use chart::plot::{Line, Plot, Stroke, smooth};
use client::protocol::runs::RunView;
use serde_json::Value;

use super::curve::{Curve, key_name};
use super::{Training, run_name};

/// Keys of the reward, exploring and evaluated.
pub(super) const EXPLORED: &str = "charts/mean_reward";
pub(super) const EVALUATED: &str = "eval/reward";
/// The reference that is the best there is.
const OPTIMUM: &str = "optimum";

impl Training {
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
