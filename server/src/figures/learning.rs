//! Fig. 8: reward over episodes, mean and 95 % interval over seeds, from the folders that training runs leave.
//!
//! Each run's policy is judged on the same fresh slots, and how a method compares with the others in speed is told by the
//! episodes that it needs to get where they end.
//!
//! Of a folder's `config.toml` only `algo`, `seed`, `mec` and the algorithm's `credit` are understood; any other setting
//! in which runs of one algorithm differ parts them into curves of their own, named by it. So an algorithm that comes
//! later needs nothing here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use mec::{MecParams, QosKnowledge, StaticPolicy, Variant};
use policy::Policy;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::systems::Judging;
use super::{Figure, mean_and_half_width};
use chart::{Level, Line, LineChart, Point};
use rl::error::TrainError;
use rl::evaluate::{Bench, Judged, Score};
use rl::references::clairvoyant;
use rl::run::POLICY_FILE;

/// Points of a curve, at most; an update that takes longer than a point makes them fewer.
const POINTS: f64 = 30.0;
/// Folders are looked for this deep under the given one.
const DEPTH: usize = 3;
/// Episodes whose mean must reach a level, for the level to count as reached: single ones are noisy.
const SUSTAINED: f64 = 5.0;
/// Settings that say how long and how closely a run was watched, not what was trained.
const NOT_THE_METHOD: [&str; 6] = ["seed", "steps", "patience", "eval_every", "eval_slots", "checkpoint_every"];

/// A finished or unfinished training run.
#[derive(Debug)]
pub struct RunCurve {
    label: String,
    seed: i64,
    params: MecParams,
    /// Every setting but those of the system, of other algorithms and of [`NOT_THE_METHOD`], by its dotted name.
    settings: BTreeMap<String, String>,
    /// Environment steps and mean reward of each update, exploration included.
    train: Vec<(f64, f64)>,
    /// The same of each evaluation of the mean action.
    eval: Vec<(f64, f64)>,
    last_ratio: Option<f64>,
    /// The best policy that the run left.
    policy: Option<Policy>,
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
        let own = own_table(&algo, &config);
        config.retain(|key, value| !value.is_table() || own.as_deref() == Some(key));
        let mut settings = BTreeMap::new();
        flatten("", &config, &mut settings);
        let credit = own.and_then(|own| settings.get(&format!("{own}.credit")).cloned());
        let label = match credit {
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
        let path = dir.join(POLICY_FILE);
        let policy = match std::fs::read(&path) {
            Ok(bytes) => Some(Policy::load(&bytes, &Device::flex())?),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(TrainError::File { path, source }),
        };
        Ok(Some(Self { label, seed, params, settings, train, eval, last_ratio, policy }))
    }

    fn episodes(&self, points: &[(f64, f64)]) -> Vec<(f64, f64)> {
        points.iter().map(|(step, value)| (step / self.params.horizon as f64, *value)).collect()
    }

    /// Mean exploring reward of the last tenth of the updates.
    fn last_tenth(&self) -> f64 {
        let last = &self.train[self.train.len() - self.train.len().div_ceil(10)..];
        last.iter().map(|p| p.1).sum::<f64>() / last.len() as f64
    }

    /// The episode by which the mean exploring reward of the last [`SUSTAINED`] episodes has first reached a level.
    fn reaches(&self, level: f64) -> Option<f64> {
        let episodes = self.episodes(&self.train);
        let reached = |(i, (episode, _)): (usize, &(f64, f64))| {
            let recent = episodes[..=i].iter().rev().take_while(|(earlier, _)| *earlier > episode - SUSTAINED);
            let (sum, count) = recent.fold((0.0, 0.0), |(sum, count), (_, reward)| (sum + reward, count + 1.0));
            (*episode >= SUSTAINED && sum / count >= level).then_some(*episode)
        };
        episodes.iter().enumerate().find_map(reached)
    }
}

/// The table with the algorithm's hyper-parameters: the longest that its name begins with.
fn own_table(algo: &str, config: &toml::Table) -> Option<String> {
    let algo = algo.replace('-', "_");
    let tables = config.iter().filter(|(key, value)| value.is_table() && algo.starts_with(key.as_str()));
    tables.map(|(key, _)| key.clone()).max_by_key(String::len)
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
        // Of two seeds t(1) = 12.7 makes a band that covers everything.
        let half_width = if binned.len() > 2 { half_width } else { 0.0 };
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

/// A mean over seeds with the half width of its 95 % interval.
#[derive(Serialize)]
struct OverSeeds {
    mean: f64,
    half_width: f64,
}

impl OverSeeds {
    fn of(values: &[f64]) -> Option<Self> {
        let (mean, half_width) = mean_and_half_width(values);
        (!values.is_empty()).then_some(Self { mean, half_width })
    }
}

/// What the policies of a group's runs achieve on the figure's slots.
#[derive(Serialize)]
struct OnFreshSlots {
    reward: OverSeeds,
    share_of_optimum: OverSeeds,
    latency_s: OverSeeds,
    latency_over_optimum: OverSeeds,
    users_below_accuracy: OverSeeds,
    users_over_hallucination: OverSeeds,
    users_over_energy: OverSeeds,
    slots_below_accuracy: OverSeeds,
    slots_over_hallucination: OverSeeds,
    slots_over_energy: OverSeeds,
}

impl OnFreshSlots {
    fn of(group: &Group<'_>, bench: &Bench, optimum: &Score) -> Result<Option<Self>, TrainError> {
        let policies = group.runs.iter().filter_map(|run| run.policy.as_ref());
        let scores: Vec<Score> =
            policies.map(|policy| Ok(bench.score(Judged::Learned(policy))?)).collect::<Result<_, TrainError>>()?;
        let over = |value: fn(&Score) -> f64| OverSeeds::of(&scores.iter().map(value).collect::<Vec<_>>());
        let relative = |value: fn(&Score) -> f64| {
            OverSeeds::of(&scores.iter().map(|score| value(score) / value(optimum)).collect::<Vec<_>>())
        };
        let all = || {
            Some(Self {
                reward: over(|s| s.reward)?,
                share_of_optimum: relative(|s| s.reward)?,
                latency_s: over(|s| s.latency_mean_s)?,
                latency_over_optimum: relative(|s| s.latency_mean_s)?,
                users_below_accuracy: over(|s| s.users_below_accuracy)?,
                users_over_hallucination: over(|s| s.users_over_hallucination)?,
                users_over_energy: over(|s| s.users_over_energy)?,
                slots_below_accuracy: over(|s| s.slots_below_accuracy)?,
                slots_over_hallucination: over(|s| s.slots_over_hallucination)?,
                slots_over_energy: over(|s| s.slots_over_energy)?,
            })
        };
        Ok(all())
    }
}

/// Episodes until a group's runs explore as well as another group does at its end.
#[derive(Serialize)]
struct Reached {
    /// Whose last tenth of updates is the level.
    level_of: String,
    level: f64,
    /// Of the runs that reached it, in the order of their folders.
    episodes: Vec<f64>,
    /// Runs that did not.
    never: usize,
}

/// How a group of runs ended, over seeds.
#[derive(Serialize)]
struct Ending {
    name: String,
    seeds: Vec<i64>,
    episodes: f64,
    /// Mean exploring reward of the last tenth of the updates.
    exploring_reward: Option<OverSeeds>,
    /// Mean reward of the mean action in the run's own last evaluation, and the same as a share of the optimum.
    last_evaluation: Option<OverSeeds>,
    last_evaluation_share: Option<OverSeeds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    best_policy_on_fresh_slots: Option<OnFreshSlots>,
    reaches: Vec<Reached>,
}

impl Ending {
    fn of(group: &Group<'_>, groups: &[Group<'_>], bench: &Bench, optimum: &Score) -> Result<Self, TrainError> {
        let runs = &group.runs;
        let last_tenths = |group: &Group<'_>| group.runs.iter().map(|run| run.last_tenth()).collect::<Vec<_>>();
        let evaluated: Vec<f64> = runs.iter().filter_map(|run| run.eval.last().map(|p| p.1)).collect();
        let ratios: Vec<f64> = runs.iter().filter_map(|run| run.last_ratio).collect();
        let last_episode = |run: &&RunCurve| run.train.last().map_or(0.0, |p| p.0) / run.params.horizon as f64;
        let reaches = groups.iter().map(|other| {
            let level = mean_and_half_width(&last_tenths(other)).0;
            let episodes: Vec<f64> = runs.iter().filter_map(|run| run.reaches(level)).collect();
            Reached { level_of: other.name.clone(), level, never: runs.len() - episodes.len(), episodes }
        });
        Ok(Self {
            name: group.name.clone(),
            seeds: runs.iter().map(|run| run.seed).collect(),
            episodes: runs.iter().map(last_episode).fold(f64::INFINITY, f64::min),
            exploring_reward: OverSeeds::of(&last_tenths(group)),
            last_evaluation: OverSeeds::of(&evaluated),
            last_evaluation_share: OverSeeds::of(&ratios),
            best_policy_on_fresh_slots: OnFreshSlots::of(group, bench, optimum)?,
            reaches: reaches.collect(),
        })
    }
}

/// Two figures for each system that was trained on: reward while exploring, and of the mean action. Called `name` for the
/// paper's system with two users, `NAME-VARIANT-kK` for others.
///
/// # Errors
/// When the references cannot be judged.
pub fn reward_over_episodes(name: &str, runs: &[RunCurve], judging: Judging) -> Result<Vec<Figure>, TrainError> {
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
        let endings = groups.iter().map(|group| Ending::of(group, &groups, &bench, &references[0]));
        let endings: Vec<Ending> = endings.collect::<Result<_, TrainError>>()?;
        let mut stem = match (params.variant, params.users) {
            (Variant::Paper, 2) => name.to_owned(),
            (variant, users) => format!("{name}-{}-k{users}", variant.name()),
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
                "algo = \"ppo\"\nseed = {seed}\nsteps = {}\n[ppo]\ncredit = \"gae\"\nlearning_rate = {rate}\n\
                 [sac]\nof_no_concern = {seed}",
                400 + seed
            )
        };
        write_run(dir.path(), "a", &ppo(1, 0.1), &[1.0, 2.0, 3.0, 4.0]);
        write_run(dir.path(), "b/deeper", &ppo(2, 0.1), &[3.0, 4.0, 5.0]);
        write_run(dir.path(), "c", &ppo(1, 0.2), &[0.0, 0.0]);
        write_run(
            dir.path(),
            "d",
            "algo = \"wm-ppo\"\nseed = 1\n[wm_ppo]\nx = 1\n[ppo]\ncredit = \"gae\"",
            &[2.0, 2.0],
        );
        write_run(dir.path(), "e", "algo = \"sac\"\nseed = 1", &[]);
        let runs = read_runs(dir.path()).expect("runs");
        assert_eq!(runs.len(), 4, "a run without metrics has no curve");
        let groups = group(&runs.iter().collect::<Vec<_>>());
        let names: Vec<&str> = groups.iter().map(|g| g.name.as_str()).collect();
        assert_eq!(names, ["ppo gae, learning_rate 0.1", "ppo gae, learning_rate 0.2", "wm-ppo"]);
        let figures = reward_over_episodes("fig8", &runs, Judging { draws: 20, seed: 1 }).expect("figures");
        assert_eq!(figures.iter().map(|f| f.stem.as_str()).collect::<Vec<_>>(), ["fig8", "fig8-eval"]);
        let points = &figures[0].data["chart"]["lines"][0]["points"];
        // Two seeds: 1 and 3, 2 and 4, 3 and 5; the fourth episode has only one of them.
        let values: Vec<f64> = (0..3).map(|i| points[i]["y"].as_f64().expect("y")).collect();
        assert_eq!((values, points.as_array().map(Vec::len)), (vec![2.0, 3.0, 4.0], Some(3)));
        assert_eq!(points[0]["half_width"].as_f64(), Some(0.0), "two seeds");
        // They end at 4 and at 5: standard error 0.5, t(1) = 12.706.
        let width = figures[0].data["endings"][0]["exploring_reward"]["half_width"].as_f64().expect("width");
        assert!((width - 6.353).abs() < 1e-9);
        let ending = &figures[0].data["endings"][0];
        assert_eq!(ending["last_evaluation"]["mean"].as_f64(), Some(5.0), "4 + 1 and 4 + 1");
        assert_eq!(ending["reaches"][1]["never"].as_u64(), Some(2), "nobody has five episodes");
        assert!(figures[0].svg.contains("optimum") && figures[0].svg.contains("closed-form"));
    }

    #[test]
    fn a_level_is_reached_when_five_episodes_are_there_on_average() {
        let dir = tempfile::tempdir().expect("folder");
        write_run(dir.path(), "a", "algo = \"ppo\"\nseed = 1", &[9.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let runs = read_runs(dir.path()).expect("runs");
        // Means of five from the fifth on: 1.8, 0.2, 0.6, 1.2, 2, 3.
        for (level, episode) in [(1.5, Some(5.0)), (2.0, Some(9.0)), (2.5, Some(10.0)), (3.5, None)] {
            assert_eq!(runs[0].reaches(level), episode, "{level}");
        }
        assert_eq!(runs[0].last_tenth(), 5.0);
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
