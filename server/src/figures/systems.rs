//! Fig. 9 and 10: the policies that ship and the references, on the same fresh slots.

use std::path::Path;

use burn::tensor::Device;
use mec::world::nth_seed;
use mec::{MecParams, QosKnowledge, StaticPolicy};
use policy::{Policy, PolicyManifest};
use serde_json::json;

use super::Figure;
use chart::{BarChart, Bars, Estimate, Level, Line, LineChart, Point};
use rl::error::TrainError;
use rl::evaluate::{Bench, Judged, Score};
use rl::references::best_constants;

/// Half the width of a 95 % interval in standard errors, for thousands of slots.
const WIDTH_95: f64 = 1.96;

/// How policies are judged.
#[derive(Clone, Copy, Debug)]
pub struct Judging {
    /// Slots.
    pub draws: usize,
    /// Their seed.
    pub seed: u64,
}

/// The policies that ship, by id.
pub struct Shipped(Vec<(String, Policy)>);

impl Shipped {
    /// Reads the policies that the folder's manifest names.
    ///
    /// # Errors
    /// When the manifest or a policy cannot be read.
    pub fn read(dir: &Path) -> Result<Self, TrainError> {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read(&path).map_err(|source| TrainError::File { path, source })
        };
        let manifest = PolicyManifest::parse(&String::from_utf8_lossy(&read("manifest.json")?))?;
        let load = |file: &str| -> Result<Policy, TrainError> { Ok(Policy::load(&read(file)?, &Device::flex())?) };
        let single = manifest.policies.iter().map(|entry| (&entry.algo, &entry.file));
        let sets = manifest.sets.iter().map(|entry| (&entry.algo, &entry.file));
        let policies = single.chain(sets).map(|(algo, file)| Ok((algo.clone(), load(file)?)));
        Ok(Self(policies.collect::<Result<_, TrainError>>()?))
    }
}

/// Everybody's score on one system, in the order of the legends.
fn scores(params: MecParams, judging: Judging, shipped: &Shipped) -> Result<Vec<Score>, TrainError> {
    let bench = Bench::new(params, judging.draws, judging.seed);
    let mut scores = vec![bench.score(Judged::Optimum)?];
    scores.push(bench.score(Judged::Static(StaticPolicy::ClosedForm(QosKnowledge::Mean)))?);
    for (algo, policy) in shipped.0.iter().filter(|(_, policy)| policy.users().contains(&params.users)) {
        scores.push(Score { name: algo.clone(), ..bench.score(Judged::Learned(policy))? });
    }
    for action in best_constants(params, nth_seed(judging.seed, u64::MAX))? {
        scores.push(bench.score(Judged::Constant(action))?);
    }
    for policy in [StaticPolicy::AlwaysOffload, StaticPolicy::AlwaysLocal, StaticPolicy::Random] {
        scores.push(bench.score(Judged::Static(policy))?);
    }
    Ok(scores)
}

/// One line a policy over all systems; a policy that is not there for every system has a shorter line.
fn lines(rows: &[(f64, Vec<Score>)], value: impl Fn(&Score) -> (f64, f64), leave_out: &[&str]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for (x, scores) in rows {
        for score in scores.iter().filter(|score| !leave_out.contains(&score.name.as_str())) {
            let (y, se) = value(score);
            let point = Point { x: *x, y, half_width: WIDTH_95 * se };
            match lines.iter_mut().find(|line| line.name == score.name) {
                Some(line) => line.points.push(point),
                None => lines.push(Line { name: score.name.clone(), points: vec![point] }),
            }
        }
    }
    lines
}

fn rows_as_json(key: &str, rows: &[(f64, Vec<Score>)]) -> serde_json::Value {
    rows.iter().map(|(x, scores)| json!({ key: x, "scores": scores })).collect()
}

/// Fig. 9a: mean latency over the number of users, mixed sizes.
///
/// # Errors
/// When a policy's device fails.
pub fn latency_over_users(judging: Judging, shipped: &Shipped) -> Result<Figure, TrainError> {
    let rows = (2..=5).map(|users| Ok((users as f64, scores(MecParams::with_users(users), judging, shipped)?)));
    let rows: Vec<_> = rows.collect::<Result<_, TrainError>>()?;
    let chart = LineChart {
        title: "Fig. 9a: mean latency over the number of users".to_owned(),
        x_title: "users K".to_owned(),
        y_title: "mean latency of a task (s)".to_owned(),
        // Random starves an uplink now and then: its mean latency is several times the others', and would flatten them.
        lines: lines(&rows, |s| (s.latency_mean_s, s.latency_se_s), &["random"]),
        levels: Vec::new(),
    };
    let data = json!({
        "figure": "9a", "draws": judging.draws, "seed": judging.seed, "not_drawn": ["random"],
        "systems": rows_as_json("users", &rows), "chart": chart,
    });
    Figure::new("fig9a", chart.svg(), data)
}

/// Fig. 9b: mean reward over the size of the tasks, K = 2. The policies that ship were trained on mixed sizes.
///
/// # Errors
/// When a policy's device fails.
pub fn reward_over_sizes(judging: Judging, shipped: &Shipped) -> Result<Figure, TrainError> {
    let rows = [1.0, 1.5, 2.0, 2.5].map(|size| {
        let params = MecParams::with_users(2).with_fixed_size(size);
        Ok((size, scores(params, judging, shipped)?))
    });
    let rows: Vec<_> = rows.into_iter().collect::<Result<_, TrainError>>()?;
    let chart = LineChart {
        title: "Fig. 9b: mean reward over the task size, K = 2".to_owned(),
        x_title: "task size (Mbit)".to_owned(),
        y_title: "mean reward of a slot (1/s)".to_owned(),
        lines: lines(&rows, |s| (s.reward, s.reward_se), &[]),
        levels: Vec::new(),
    };
    let data = json!({
        "figure": "9b", "draws": judging.draws, "seed": judging.seed,
        "systems": rows_as_json("size_mbit", &rows), "chart": chart,
    });
    Figure::new("fig9b", chart.svg(), data)
}

/// Fig. 10: accuracy and hallucination rate, dynamic policies against static ones, K = 2, mixed sizes.
///
/// # Errors
/// When a policy's device fails.
pub fn quality(judging: Judging, shipped: &Shipped) -> Result<Figure, TrainError> {
    let params = MecParams::with_users(2);
    let mut scores = scores(params, judging, shipped)?;
    // From the static extremes to the best that there is, as the paper's text goes.
    scores.reverse();
    let order = |name: &str| ["always-local", "always-offload"].iter().position(|n| *n == name).unwrap_or(2);
    scores.sort_by_key(|score| order(&score.name));
    let bars = |name: &str, value: fn(&Score) -> (f64, f64)| Bars {
        name: name.to_owned(),
        values: scores
            .iter()
            .map(|score| {
                let (value, se) = value(score);
                Estimate { value, half_width: WIDTH_95 * se }
            })
            .collect(),
    };
    let level = |name: &str, value: f64| Level { name: format!("{name} {value}"), value };
    let chart = BarChart {
        title: "Fig. 10: accuracy and hallucination rate, K = 2".to_owned(),
        y_title: "mean over users and slots".to_owned(),
        groups: scores.iter().map(|score| score.name.clone()).collect(),
        series: vec![
            bars("accuracy", |s| (s.accuracy_mean, s.accuracy_se)),
            bars("hallucination rate", |s| (s.hallucination_mean, s.hallucination_se)),
        ],
        levels: vec![level("least accuracy", params.a_min), level("most hallucination", params.h_max)],
    };
    let data = json!({
        "figure": "10", "draws": judging.draws, "seed": judging.seed, "scores": scores, "chart": chart,
    });
    Figure::new("fig10", chart.svg(), data)
}
