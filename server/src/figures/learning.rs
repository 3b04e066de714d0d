//! Fig. 8: reward over episodes, mean and 95 % interval over seeds, from the folders that training runs leave.
//!
//! Of a folder's `config.toml` only `algo`, `seed`, `mec` and the algorithm's `credit` are understood; any other setting
//! in which runs of one algorithm differ parts them into curves of their own, named by it. So an algorithm that comes
//! later needs nothing here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use client_core::mec::{MecParams, QosKnowledge, StaticPolicy, Variant};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::systems::Judging;
use super::{Figure, mean_and_half_width};
use crate::chart::{Level, Line, LineChart, Point};
use crate::rl::evaluate::{Bench, Judged};
use crate::rl::references::clairvoyant;
use crate::rl::run::TrainError;

/// Points of a curve, at most; an update that takes longer than a point makes them fewer.
const POINTS: f64 = 100.0;
/// Folders are looked for this deep under the given one.
const DEPTH: usize = 3;
/// Settings that say how long and how closely a run was watched, not what was trained.
const NOT_THE_METHOD: [&str; 5] = ["seed", "steps", "eval_every", "eval_slots", "checkpoint_every"];

/// A finished or unfinished training run.
#[derive(Debug)]
pub struct RunCurve {
    label: String,
    seed: i64,
    params: MecParams,
    /// Every setting but those of the system and of [`NOT_THE_METHOD`], by its dotted name.
    settings: BTreeMap<String, String>,
    /// Environment steps and mean reward of each update, exploration included.
    train: Vec<(f64, f64)>,
    /// The same of each evaluation of the mean action.
    eval: Vec<(f64, f64)>,
    last_ratio: Option<f64>,
}

#[derive(Deserialize)]
struct MetricsLine {
    global_step: u64,
    #[serde(rename = "charts/mean_reward")]
    mean_reward: f64,
    #[serde(rename = "eval/reward")]
    eval_reward: Option<f64>,
    #[serde(rename = "eval/ratio")]
    eval_ratio: Option<f64>,
}

/// The runs under a folder, in the order of their paths. A run without metrics is passed over.
///
/// # Errors
/// When a folder cannot be read, a configuration cannot be understood, or there is no run at all.
pub fn read_runs(dir: &Path) -> Result<Vec<RunCurve>, TrainError> {
    let mut folders = Vec::new();
    find_runs(dir, DEPTH, &mut folders)?;
    folders.sort();
    let mut runs = Vec::new();
    for folder in folders {
        runs.extend(RunCurve::read(&folder)?);
    }
    if runs.is_empty() {
        let problem = "there is no training run with a config.toml and a metrics.jsonl under it".to_owned();
        return Err(TrainError::Damaged { path: dir.to_owned(), problem });
    }
    Ok(runs)
}

fn find_runs(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), TrainError> {
    if dir.join("config.toml").is_file() {
        found.push(dir.to_owned());
        return Ok(());
    }
    let failed = |source| TrainError::File { path: dir.to_owned(), source };
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if depth > 0 && path.is_dir() {
            find_runs(&path, depth - 1, found)?;
        }
    }
    Ok(())
}

fn flatten(prefix: &str, table: &toml::Table, out: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            toml::Value::Table(table) => flatten(&key, table, out),
            value => {
                out.insert(key, value.to_string().trim_matches('"').to_owned());
            }
        }
    }
}

impl RunCurve {
    fn read(dir: &Path) -> Result<Option<Self>, TrainError> {
        let path = dir.join("config.toml");
        let text = std::fs::read_to_string(&path).map_err(|source| TrainError::File { path: path.clone(), source })?;
        let damaged = |problem: String| TrainError::Damaged { path: path.clone(), problem };
        let mut config: toml::Table = toml::from_str(&text).map_err(|e| damaged(e.to_string()))?;
        let system = config.remove("mec").ok_or_else(|| damaged("`mec` is missing".to_owned()))?;
        let params: MecParams = system.try_into().map_err(|e: toml::de::Error| damaged(e.to_string()))?;
        params.validate().map_err(|e| damaged(e.to_string()))?;
        let algo = config.get("algo").and_then(toml::Value::as_str);
        let algo = algo.ok_or_else(|| damaged("`algo` is missing".to_owned()))?.to_owned();
        let seed = config.get("seed").and_then(toml::Value::as_integer).unwrap_or_default();
        for key in NOT_THE_METHOD {
            config.remove(key);
        }
        let mut settings = BTreeMap::new();
        flatten("", &config, &mut settings);
        let label = match credit(&algo, &settings) {
            Some(credit) => format!("{algo} {credit}"),
            None => algo,
        };
        let (mut train, mut eval, mut last_ratio) = (Vec::new(), Vec::new(), None);
        let path = dir.join("metrics.jsonl");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(TrainError::File { path, source }),
        };
        // A line cut short by a crash, or being written just now, ends the curve.
        for line in text.lines().map_while(|line| serde_json::from_str::<MetricsLine>(line).ok()) {
            let step = line.global_step as f64;
            train.push((step, line.mean_reward));
            eval.extend(line.eval_reward.map(|reward| (step, reward)));
            last_ratio = line.eval_ratio.or(last_ratio);
        }
        if train.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self { label, seed, params, settings, train, eval, last_ratio }))
    }

    fn episodes(&self, points: &[(f64, f64)]) -> Vec<(f64, f64)> {
        points.iter().map(|(step, value)| (step / self.params.horizon as f64, *value)).collect()
    }
}

/// The estimator of the advantage, where the algorithm has one: in its own table, or in PPO's if it is a kind of PPO.
fn credit<'a>(algo: &str, settings: &'a BTreeMap<String, String>) -> Option<&'a str> {
    let own = [format!("{algo}.credit"), format!("{}.credit", algo.replace('-', "_"))];
    let inherited = algo.contains("ppo").then(|| "ppo.credit".to_owned());
    own.iter().chain(&inherited).find_map(|key| settings.get(key)).map(String::as_str)
}

/// Runs of the same method on the same system.
struct Group<'a> {
    name: String,
    runs: Vec<&'a RunCurve>,
}

/// Parts runs into groups that differ in nothing but the seed, and names those of one label by what they differ in.
fn group<'a>(runs: &[&'a RunCurve]) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for run in runs {
        let same = |group: &&mut Group<'_>| {
            let first = group.runs[0];
            first.label == run.label && first.settings == run.settings
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.runs.push(run),
            None => groups.push(Group { name: run.label.clone(), runs: vec![run] }),
        }
    }
    let labels: BTreeSet<&str> = runs.iter().map(|run| run.label.as_str()).collect();
    for label in labels {
        let mut alike: Vec<&mut Group<'_>> = groups.iter_mut().filter(|group| group.name == label).collect();
        let keys: BTreeSet<&String> = alike.iter().flat_map(|group| group.runs[0].settings.keys()).collect();
        let values = |key: &str| alike.iter().map(|group| group.runs[0].settings.get(key)).collect::<BTreeSet<_>>();
        let differing: Vec<&String> = keys.into_iter().filter(|key| values(key).len() > 1).collect();
        for group in &mut alike {
            let settings = &group.runs[0].settings;
            for key in &differing {
                let short = key.rsplit('.').next().unwrap_or(key);
                let value = settings.get(*key).map_or("default", String::as_str);
                group.name += &format!(", {short} {value}");
            }
        }
    }
    groups
}

/// Means over equal stretches of episodes, then mean and interval over the runs; a stretch counts if every run was there.
fn average(curves: &[Vec<(f64, f64)>], width: f64) -> Vec<Point> {
    let bins = |curve: &Vec<(f64, f64)>| {
        let mut bins: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
        for (x, y) in curve {
            // An update's rollout lies before its step.
            let bin = bins.entry((x / width).ceil() as u64).or_default();
            (bin.0, bin.1) = (bin.0 + y, bin.1 + 1.0);
        }
        bins
    };
    let binned: Vec<_> = curves.iter().map(bins).collect();
    let Some(first) = binned.first() else { return Vec::new() };
    let points = first.keys().filter_map(|bin| {
        let values: Option<Vec<f64>> = binned.iter().map(|bins| bins.get(bin).map(|(sum, n)| sum / n)).collect();
        let (y, half_width) = mean_and_half_width(&values?);
        Some(Point { x: width * *bin as f64, y, half_width })
    });
    points.collect()
}

/// The least stretch of episodes that leaves no hole in any curve and no more than [`POINTS`] points.
fn stretch(curves: &[Vec<(f64, f64)>]) -> f64 {
    let end = curves.iter().flatten().map(|p| p.0).fold(0.0, f64::max);
    let gap = |curve: &Vec<(f64, f64)>| {
        let starts = std::iter::once(0.0).chain(curve.iter().map(|p| p.0));
        curve.iter().zip(starts).map(|(p, before)| p.0 - before).fold(0.0, f64::max)
    };
    curves.iter().map(gap).fold(end / POINTS, f64::max).max(f64::MIN_POSITIVE)
}

/// How a group of runs ended: over seeds, the mean of the last tenth of the updates, and of the last evaluation.
#[derive(Serialize)]
struct Ending {
    name: String,
    seeds: Vec<i64>,
    episodes: f64,
    train_reward: f64,
    train_half_width: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    eval_reward: Option<f64>,
    eval_half_width: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    eval_ratio: Option<f64>,
}

impl Ending {
    fn of(group: &Group<'_>) -> Self {
        let runs = &group.runs;
        let last_tenth = |run: &&RunCurve| {
            let last = &run.train[run.train.len() - run.train.len().div_ceil(10)..];
            last.iter().map(|p| p.1).sum::<f64>() / last.len() as f64
        };
        let train: Vec<f64> = runs.iter().map(last_tenth).collect();
        let eval: Vec<f64> = runs.iter().filter_map(|run| run.eval.last().map(|p| p.1)).collect();
        let ratios: Vec<f64> = runs.iter().filter_map(|run| run.last_ratio).collect();
        let ((train_reward, train_half_width), (eval_reward, eval_half_width)) =
            (mean_and_half_width(&train), mean_and_half_width(&eval));
        let last_episode = |run: &&RunCurve| run.train.last().map_or(0.0, |p| p.0) / run.params.horizon as f64;
        Self {
            name: group.name.clone(),
            seeds: runs.iter().map(|run| run.seed).collect(),
            episodes: runs.iter().map(last_episode).fold(f64::INFINITY, f64::min),
            train_reward,
            train_half_width,
            eval_reward: (!eval.is_empty()).then_some(eval_reward),
            eval_half_width,
            eval_ratio: (!ratios.is_empty()).then(|| mean_and_half_width(&ratios).0),
        }
    }
}

/// Two figures for each system that was trained on: reward while exploring, and of the mean action. Named `fig8` for the
/// paper's system with two users, `fig8-VARIANT-kK` for others.
///
/// # Errors
/// When the references cannot be judged.
pub fn reward_over_episodes(runs: &[RunCurve], judging: Judging) -> Result<Vec<Figure>, TrainError> {
    let mut systems: Vec<(MecParams, Vec<&RunCurve>)> = Vec::new();
    for run in runs {
        match systems.iter_mut().find(|(params, _)| *params == run.params) {
            Some((_, runs)) => runs.push(run),
            None => systems.push((run.params, vec![run])),
        }
    }
    let mut figures: Vec<Figure> = Vec::new();
    for (params, runs) in systems {
        let bench = Bench::new(params, judging.draws, judging.seed);
        let mut references = vec![
            bench.score(Judged::Optimum)?,
            bench.score(Judged::Static(StaticPolicy::ClosedForm(QosKnowledge::Mean)))?,
        ];
        if params.variant == Variant::Backlog {
            references.push(clairvoyant(&bench, &params)?.score);
        }
        let levels = references.iter().map(|score| Level { name: score.name.clone(), value: score.reward });
        let levels: Vec<Level> = levels.collect();
        let groups = group(&runs);
        let endings: Vec<Ending> = groups.iter().map(Ending::of).collect();
        let mut stem = match (params.variant, params.users) {
            (Variant::Paper, 2) => "fig8".to_owned(),
            (variant, users) => format!("fig8-{}-k{users}", variant.name()),
        };
        // Systems may differ in other settings, too.
        let same_name =
            figures.iter().filter(|f| f.stem == stem || f.stem.starts_with(&format!("{stem}-system"))).count();
        if same_name > 0 {
            stem += &format!("-system{}", same_name + 1);
        }
        let system = format!("{}, K = {}", params.variant.name(), params.users);
        type Points = fn(&RunCurve) -> &[(f64, f64)];
        let exploring: Points = |run| &run.train;
        let mean_action: Points = |run| &run.eval;
        for (suffix, what, points) in [("", "while exploring", exploring), ("-eval", "of the mean action", mean_action)]
        {
            let curves = |group: &Group<'_>| group.runs.iter().map(|run| run.episodes(points(run))).collect::<Vec<_>>();
            let all: Vec<_> = groups.iter().flat_map(curves).collect();
            if all.iter().all(Vec::is_empty) {
                continue;
            }
            let width = stretch(&all);
            let lines = groups.iter().map(|group| {
                let count = group.runs.len();
                let name = format!("{} ({count} seed{})", group.name, if count == 1 { "" } else { "s" });
                Line { name, points: average(&curves(group), width) }
            });
            let chart = LineChart {
                title: format!("Fig. 8: mean reward {what} ({system})"),
                x_title: format!("episodes of {} slots", params.horizon),
                y_title: "mean reward of a slot (1/s)".to_owned(),
                lines: lines.collect(),
                levels: levels.clone(),
            };
            let data = json!({
                "figure": "8", "system": params, "draws_of_references": judging.draws, "seed": judging.seed,
                "references": references, "endings": endings, "chart": chart,
            });
            figures.push(Figure::new(&format!("{stem}{suffix}"), chart.svg(), data)?);
        }
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_run(dir: &Path, name: &str, config: &str, rewards: &[f64]) {
        let dir = dir.join(name);
        std::fs::create_dir_all(&dir).expect("folder");
        std::fs::write(dir.join("config.toml"), format!("{config}\n[mec]\nusers = 2\n")).expect("config");
        let line = |(i, reward): (usize, &f64)| {
            let eval = if i % 2 == 1 {
                format!(",\"eval/reward\":{},\"eval/ratio\":0.5", reward + 1.0)
            } else {
                String::new()
            };
            let step = 200 * (i + 1);
            format!("{{\"global_step\":{step},\"charts/mean_reward\":{reward},\"losses/any\":1{eval}}}\n")
        };
        let lines: String = rewards.iter().enumerate().map(line).collect();
        std::fs::write(dir.join("metrics.jsonl"), lines + "{\"global_st").expect("metrics");
    }

    #[test]
    fn curves_are_grouped_by_method_and_averaged_over_seeds() {
        let dir = tempfile::tempdir().expect("folder");
        let ppo = |seed: u64, rate: f64| {
            format!(
                "algo = \"ppo\"\nseed = {seed}\nsteps = {}\n[ppo]\ncredit = \"gae\"\nlearning_rate = {rate}",
                400 + seed
            )
        };
        write_run(dir.path(), "a", &ppo(1, 0.1), &[1.0, 2.0, 3.0, 4.0]);
        write_run(dir.path(), "b/deeper", &ppo(2, 0.1), &[3.0, 4.0, 5.0]);
        write_run(dir.path(), "c", &ppo(1, 0.2), &[0.0, 0.0]);
        write_run(dir.path(), "d", "algo = \"wm-ppo\"\nseed = 1\n[wm_ppo]\nx = 1", &[2.0, 2.0]);
        write_run(dir.path(), "e", "algo = \"sac\"\nseed = 1", &[]);
        let runs = read_runs(dir.path()).expect("runs");
        assert_eq!(runs.len(), 4, "a run without metrics has no curve");
        let groups = group(&runs.iter().collect::<Vec<_>>());
        let names: Vec<&str> = groups.iter().map(|g| g.name.as_str()).collect();
        assert_eq!(names, ["ppo gae, learning_rate 0.1", "ppo gae, learning_rate 0.2", "wm-ppo"]);
        let figures = reward_over_episodes(&runs, Judging { draws: 20, seed: 1 }).expect("figures");
        assert_eq!(figures.iter().map(|f| f.stem.as_str()).collect::<Vec<_>>(), ["fig8", "fig8-eval"]);
        let points = &figures[0].data["chart"]["lines"][0]["points"];
        // Two seeds: 1 and 3, 2 and 4, 3 and 5; the fourth episode has only one of them.
        let values: Vec<f64> = (0..3).map(|i| points[i]["y"].as_f64().expect("y")).collect();
        assert_eq!((values, points.as_array().map(Vec::len)), (vec![2.0, 3.0, 4.0], Some(3)));
        // Both differ by 2: standard error 1, t(1) = 12.706.
        assert!((points[0]["half_width"].as_f64().expect("width") - 12.706).abs() < 1e-9);
        assert_eq!(figures[0].data["endings"][0]["eval_reward"].as_f64(), Some(5.0), "4 + 1 and 4 + 1");
        assert!(figures[0].svg.contains("optimum") && figures[0].svg.contains("closed-form"));
    }

    #[test]
    fn what_is_no_run_is_refused_by_name() {
        let dir = tempfile::tempdir().expect("folder");
        let message = |dir: &Path| read_runs(dir).expect_err("refused").to_string();
        assert!(message(dir.path()).contains("no training run"));
        assert!(message(&dir.path().join("nowhere")).contains("nowhere"));
        write_run(dir.path(), "broken", "algo = 3", &[1.0]);
        assert!(message(dir.path()).contains("`algo` is missing"), "{}", message(dir.path()));
    }
}
