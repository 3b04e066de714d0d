//! `cargo xtask control`: trains what public/reports/control.md speaks of, several seeds each, and draws Fig. 8 from it.
//!
//! Every run is a folder under target/control; a run that is finished is not repeated, one that was cut short goes on.
//! With `--steps` it is a rehearsal: the same runs, each cut to so many steps, in a folder of their own, so that the whole
//! of it can be tried in minutes; what it draws says nothing and stays out of public/reports.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, bail};

use crate::shell::{self, command, step};

/// Arguments of `cargo xtask control`.
#[derive(clap::Args)]
#[command(after_help = "All of it takes hours. `tandem figures --help` says what is drawn.")]
pub struct Args {
    /// Train and draw these groups only.
    #[arg(long, value_enum)]
    only: Vec<Group>,
    /// Train and judge the policy for every world only (one seed unless --seeds says more).
    #[arg(long, conflicts_with = "only")]
    worlds: bool,
    /// Seeds 1 to N of every method [default: 5; of the policy for every world 1].
    #[arg(long, value_name = "N")]
    seeds: Option<u32>,
    /// Runs side by side, each on one thread [default: the number of cores].
    #[arg(long)]
    jobs: Option<usize>,
    /// Folder for the figures [default: public/reports; of a rehearsal, the folder of its runs].
    #[arg(long)]
    out: Option<PathBuf>,
    /// Use target/release/tandem as it is instead of building it: a campaign that goes on should go on with what it began.
    #[arg(long)]
    keep_build: bool,
    /// Rehearse: cut every run to so many steps.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    steps: Option<u32>,
}

/// What is compared in one figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Group {
    /// Fig. 8: every algorithm with the hyper-parameters that the papers print, 150 episodes.
    Paper,
    /// Fig. 9a: PPO and WM-PPO with the printed hyper-parameters for K = 3 to 5 (K = 2 is in `paper`).
    Users,
    /// What works: tuned hyper-parameters, 100 episodes, K = 2 to 5.
    Tuned,
    /// The limits held per user: PPO with and without multipliers, K = 2 to 5.
    Limits,
    /// The system where today's decision hurts tomorrow.
    Backlog,
    /// The system that is seen one slot late.
    Delayed,
    /// One policy for every number of users from 1 to 10.
    Set,
    /// One policy for every number of users in every world.
    Worlds,
}

const GROUPS: [Group; 8] = [
    Group::Paper,
    Group::Users,
    Group::Tuned,
    Group::Limits,
    Group::Backlog,
    Group::Delayed,
    Group::Set,
    Group::Worlds,
];

/// Random worlds in which the policy for all of them is judged.
const WORLDS: &str = "400";

/// Name of a method and what `tandem train` takes for it.
type Method = (String, Vec<String>);

fn method(name: &str, args: &str) -> Method {
    (name.to_owned(), args.split_whitespace().map(str::to_owned).collect())
}

impl Group {
    /// Name of its folder, and of its figure's files. The policy for any number of users has none: its rewards differ
    /// twentyfold from one number to the next, and `tandem oracle --users any --policy` says more.
    fn names(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Paper => ("paper", Some("fig8")),
            Self::Users => ("users", Some("fig8")),
            Self::Tuned => ("tuned", Some("fig8-tuned")),
            Self::Limits => ("limits", Some("limits")),
            Self::Backlog => ("backlog", Some("fig8")),
            Self::Delayed => ("delayed", Some("fig8")),
            Self::Set => ("set", None),
            Self::Worlds => ("worlds", None),
        }
    }

    fn methods(self) -> Vec<Method> {
        match self {
            Self::Paper => vec![
                method("ppo-gae", "--algo ppo"),
                method("ppo-td0", "--algo ppo --credit td0"),
                method("ppo-bandit", "--algo ppo --credit bandit"),
                method("wm-ppo", "--algo wm-ppo"),
                method("wm-ppo-mended", "--algo wm-ppo-mended"),
                method("td3", "--algo td3"),
                method("ddpg", "--algo ddpg"),
                method("sac", "--algo sac"),
            ],
            Self::Users => {
                let of = |users: u32, algo: &str| {
                    method(&format!("{algo}-k{users}"), &format!("--algo {algo} --users {users}"))
                };
                (3..=5).flat_map(|users| ["ppo", "wm-ppo"].map(|algo| of(users, algo))).collect()
            }
            Self::Tuned => {
                let of = |users: u32, algo: &str| {
                    let args = format!("--algo {algo} --preset tuned --users {users} --steps 20000");
                    method(&format!("{algo}-k{users}"), &args)
                };
                let two = ["ppo", "td3", "ddpg", "sac"].map(|algo| of(2, algo));
                two.into_iter().chain((3..=5).map(|users| of(users, "td3"))).collect()
            }
            Self::Limits => {
                let of = |users: u32, algo: &str| {
                    let args = format!("--algo {algo} --preset tuned --users {users} --steps 200000");
                    method(&format!("{algo}-k{users}"), &args)
                };
                (2..=5).flat_map(|users| ["ppo", "ppo-lagrangian"].map(|algo| of(users, algo))).collect()
            }
            Self::Backlog => with_memory(
                "backlog",
                &[
                    ("ppo-gae", "--credit gae --hyper gamma=0.95 --hyper gae_lambda=0.8"),
                    ("ppo-gae-slow", "--credit gae --hyper gamma=0.95 --learning-rate 3e-4"),
                    ("ppo-td0", "--credit td0 --hyper gamma=0.9"),
                    ("ppo-bandit", "--credit bandit"),
                ],
            ),
            Self::Delayed => with_memory(
                "delayed",
                &[
                    ("ppo-gae", "--credit gae --hyper gamma=0.9"),
                    ("ppo-td0", "--credit td0 --hyper gamma=0.9"),
                    ("ppo-bandit", "--credit bandit"),
                ],
            ),
            Self::Worlds => vec![method("set-ascent", "--worlds random --users 1-10 --steps 3000000")],
            Self::Set => vec![method("set-dpg", "--algo set-dpg --preset tuned --users 1-10 --steps 1000000")],
        }
    }
}

/// A method's arguments with another number of steps.
fn cut_to(args: &[String], steps: u32) -> Vec<String> {
    let named = args.iter().position(|arg| arg == "--steps");
    let kept = args.iter().enumerate().filter(|(i, _)| named.is_none_or(|at| *i != at && *i != at + 1));
    kept.map(|(_, arg)| arg.clone()).chain(["--steps".to_owned(), steps.to_string()]).collect()
}

/// Methods for a system in which it pays to look ahead or to remember: tuned world-model PPO, and model-free PPO as it did
/// best there, on the same slots of one cell.
fn with_memory(variant: &str, model_free: &[(&str, &str)]) -> Vec<Method> {
    let one_cell = "--steps 30000 --envs 1 --rollout-steps 200 --epochs 10 --minibatch 64";
    let of = |name: &str, args: &str| method(name, &format!("{args} --preset tuned --variant {variant}"));
    let model_free = model_free.iter().map(|(name, args)| of(name, &format!("--algo ppo {one_cell} {args}")));
    std::iter::once(of("wm-ppo-mended", "--algo wm-ppo-mended")).chain(model_free).collect()
}

/// Trains and draws.
pub fn run(args: &Args) -> Result<()> {
    let only = if args.worlds { &vec![Group::Worlds] } else { &args.only };
    let groups: Vec<Group> = GROUPS.into_iter().filter(|g| only.is_empty() || only.contains(g)).collect();
    if !args.keep_build {
        step("tandem, release build");
        shell::run(command("cargo", &["build", "--release", "--package", "tandem-server", "--bin", "tandem"]))?;
    }
    let cores = thread::available_parallelism().map_or(1, usize::from);
    // Runs of other lengths are other runs.
    let (root, reports) = match args.steps {
        Some(steps) => {
            let root = Path::new("target/control-rehearsal").join(steps.to_string());
            let reports = root.join("reports");
            (root, reports)
        }
        None => (PathBuf::from("target/control"), PathBuf::from("public/reports")),
    };
    let out = args.out.as_ref().unwrap_or(&reports);
    for group in groups {
        let (folder, figure) = group.names();
        let dir = root.join(folder);
        fs::create_dir_all(&dir).with_context(|| format!("{}", dir.display()))?;
        let mut methods = group.methods();
        if let Some(steps) = args.steps {
            methods.iter_mut().for_each(|(_, args)| *args = cut_to(args, steps));
        }
        let seeds = args.seeds.unwrap_or(if group == Group::Worlds { 1 } else { 5 });
        let runs = (1..=seeds).flat_map(|seed| methods.iter().map(move |(name, args)| (name, args, seed)));
        let mut runs: Vec<_> = runs.collect();
        step(&format!("{folder}: {} runs", runs.len()));
        runs.reverse();
        let queue = Mutex::new(runs);
        thread::scope(|scope| {
            let work = || -> Result<()> {
                loop {
                    let next = queue.lock().ok().and_then(|mut queue| queue.pop());
                    let Some((name, args, seed)) = next else { return Ok(()) };
                    train(&dir.join(format!("{name}-s{seed}")), args, seed)?;
                }
            };
            let workers: Vec<_> = (0..args.jobs.unwrap_or(cores).max(1)).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| match worker.join() {
                Ok(result) => result,
                Err(_) => bail!("a worker panicked"),
            })
        })?;
        if group == Group::Worlds {
            judge_worlds(&dir, out)?;
        }
        let Some(figure) = figure else { continue };
        let mut draw = command("target/release/tandem", &["figures", "--only-runs", "--name", figure, "--runs"]);
        draw.arg(&dir).arg("--out").arg(out);
        shell::run(draw)?;
    }
    Ok(())
}

/// Judges the first seed's policy in random worlds and draws it over every slider.
fn judge_worlds(dir: &Path, out: &Path) -> Result<()> {
    let policy = dir.join("set-ascent-s1/policy.safetensors");
    let tandem = |args: &[&str]| command("target/release/tandem", args);
    step(&format!("{WORLDS} random worlds"));
    let mut oracle = tandem(&["oracle", "--users", "any", "--worlds", WORLDS, "--policy"]);
    oracle.arg(&policy);
    shell::run(oracle)?;
    step("every slider");
    let mut figures = tandem(&["figures", "--draws", "400", "--sliders"]);
    figures.arg(&policy).arg("--out").arg(out.join("worlds"));
    shell::run(figures)
}

/// Whether a run has taken all the steps that its configuration asks for.
fn is_finished(run: &Path) -> bool {
    let read = |file: &str| fs::read_to_string(run.join(file)).unwrap_or_default();
    let steps = read("config.toml").lines().find_map(|line| line.strip_prefix("steps = ")?.parse::<u64>().ok());
    let last =
        read("metrics.jsonl").lines().last().and_then(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let taken = last.and_then(|line| line["global_step"].as_u64());
    matches!((steps, taken), (Some(steps), Some(taken)) if taken >= steps)
}

fn train(out: &Path, args: &[String], seed: u32) -> Result<()> {
    if is_finished(out) {
        return Ok(());
    }
    let mut train = command("target/release/tandem", &["train", "--out"]);
    train.arg(out).env("RAYON_NUM_THREADS", "1");
    if out.join("checkpoint").is_dir() {
        train.arg("--resume");
    } else {
        // Cut short before its first checkpoint: nothing to go on from.
        if out.exists() {
            fs::remove_dir_all(out).with_context(|| format!("{}", out.display()))?;
        }
        train.args(args).args(["--seed", &seed.to_string()]);
    }
    let log = out.with_extension("log");
    let file = fs::File::create(&log).with_context(|| format!("{}", log.display()))?;
    train.stdout(file.try_clone()?).stderr(file);
    let status = train.status().context("target/release/tandem")?;
    if !status.success() {
        bail!("{} ended with {status}; see {}", out.display(), log.display());
    }
    println!("  {}", out.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rehearsal_changes_the_number_of_steps_and_nothing_else() {
        for (_, args) in GROUPS.into_iter().flat_map(Group::methods) {
            let cut = cut_to(&args, 7);
            assert_eq!(cut.iter().filter(|arg| *arg == "--steps").count(), 1, "{cut:?}");
            assert_eq!(cut[cut.len() - 2..], ["--steps", "7"]);
            let rest = |args: &[String]| -> Vec<String> {
                let mut args = args.to_vec();
                if let Some(at) = args.iter().position(|arg| arg == "--steps") {
                    args.drain(at..at + 2);
                }
                args
            };
            assert_eq!(rest(&cut), rest(&args));
        }
    }
}
