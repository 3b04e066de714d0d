//! `tandem oracle`: the per-slot optimum, the policies without learning and a trained one, on the same fresh slots.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use mec::{ConstantPower, MecParams};
use policy::Policy;

use super::system::{SystemArgs, Users, print_settings};
use rl::evaluate::Score;
use rl::judgement::{Judgement, judge};
use rl::ship;
use rl::world_bench::{Shares, WorldScore, behind_closed_form, judge_worlds};

/// What `tandem oracle` takes.
///
/// Judges, on the same fresh slots: the per-slot optimum (full knowledge), the closed form (equal received power and the
/// exact ratios for it; knowing the mean quality, or the slot's own), always local, always offload, random, and the best
/// constant actions (one ratio and one power for all users and slots, in watts or as equal received power; searched on
/// 2,000 other slots). With `--variant backlog` whole episodes count, the per-slot optimum is only myopic, and two plans
/// come in: `clairvoyant-hN` knows the slots to come (an upper bound up to the search's precision), `lookahead` only
/// their distribution (a strong reference, no bound); both know the present slot fully. The horizon of a plan is doubled
/// until that brings less than 0.1 % of the mean reward. With a range of users, `--users any` for example, all of that for
/// each number of users after the other. Under the table stands a mean reward that nobody can pass (each user minimises alone
/// under common prices of spectrum, quality and energy), and how much of it the optimum found has.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    system: SystemArgs,
    /// Slots to judge on, each from a world of its own; with a backlog as many whole episodes as it takes [default: 2000; of each
    /// random world 40].
    #[arg(long)]
    draws: Option<usize>,
    /// Judge the policy in so many random worlds instead, whose settings lie anywhere in the sliders' ranges, with 1 users to
    /// the most of a range of --users, else as many as it is for; prints how its shares of the optimum are spread over them.
    #[arg(long, value_name = "N", requires = "policy", conflicts_with = "write_manifest")]
    worlds: Option<u64>,
    /// In each random world also search with the policy's own knowledge, which does not see the slot's quality (takes five times
    /// as long).
    #[arg(long, requires = "worlds")]
    informed: bool,
    /// Also search the optimum of each slot from many more starting points, ten times as long or more: what that finds beyond
    /// the usual search is what the usual search misses.
    #[arg(long, conflicts_with = "worlds")]
    thorough: bool,
    /// Seed of the slots.
    #[arg(long, default_value_t = 20_260_101)]
    seed: u64,
    /// A trained policy to judge beside the others.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Copy the policy into this folder and write its evaluation into the folder's manifest.json and golden.json.
    #[arg(long, value_name = "DIR", requires = "policy")]
    write_manifest: Option<PathBuf>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Print every setting of the system and stop.
    #[arg(long)]
    settings: bool,
}

/// A part of the table with the worlds that belong to it, and a row with the reward that it is about.
type Part = (&'static str, fn(&WorldScore) -> bool);
type Row = (&'static str, fn(&WorldScore) -> f64);

impl Args {
    fn draws(&self) -> usize {
        self.draws.unwrap_or(if self.worlds.is_some() { 40 } else { 2000 })
    }
}

/// Judges a policy in random worlds and prints how its shares of the optimum are spread.
fn worlds_table(policy: &Policy, worlds: u64, args: &Args) -> Result<()> {
    let slots = args.draws();
    let users = match args.system.users {
        Users::UpTo(most) => 1..=most,
        Users::One(_) => policy.users(),
    };
    let (least, most) = users.clone().into_inner();
    policy.header().shape.check_users(least)?;
    policy.header().shape.check_users(most)?;
    let scores = judge_worlds(policy, users, worlds, slots, args.seed, args.informed, |index, _| {
        if (index + 1).is_multiple_of(50) {
            eprintln!("{} of {worlds} worlds", index + 1);
        }
    })?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&scores)?);
        return Ok(());
    }
    println!(
        "{worlds} random worlds of {least} to {most} users, {slots} fresh slots each, seed {}: shares of the optimum",
        args.seed
    );
    println!(
        "{:<34} {:<18} {:>6} {:>7} {:>7} {:>7} {:>7} {:>7}",
        "worlds", "", "count", "worst", "5 %", "25 %", "median", "mean"
    );
    let parts: [Part; 8] = [
        ("all", |_| true),
        ("where the last slot tells enough", WorldScore::is_known),
        ("few settings moved", |s| s.spread < 0.3),
        ("half of them moved", |s| (0.3..0.9).contains(&s.spread)),
        ("all of them moved", |s| s.spread > 0.9),
        ("1 to 3 users", |s| s.params.users <= 3),
        ("4 to 6 users", |s| (4..=6).contains(&s.params.users)),
        ("7 users or more", |s| s.params.users >= 7),
    ];
    for (name, part) in parts {
        let of = || scores.iter().filter(|score| part(score));
        let rows: [Row; 6] = [
            ("policy", |s| s.policy),
            ("policy / informed", |s| s.policy * s.optimum / s.informed.unwrap_or(f64::NAN)),
            ("candidates alone", |s| s.unlearned),
            ("informed optimum", |s| s.informed.unwrap_or(f64::NAN)),
            ("closed form", |s| s.closed_form),
            ("closed form, exact", |s| s.closed_form_exact),
        ];
        for (who, reward) in rows {
            let shares = Shares::of(of(), reward);
            if !shares.mean.is_finite() {
                continue;
            }
            println!(
                "{name:<34} {who:<18} {:>6} {:>7.4} {:>7.4} {:>7.4} {:>7.4} {:>7.4}",
                shares.worlds, shares.worst, shares.p05, shares.p25, shares.median, shares.mean
            );
        }
        println!("{name:<34} more than 2 % behind the closed form in {} worlds", behind_closed_form(of()));
    }
    Ok(())
}

/// Judges and prints.
///
/// # Errors
/// When a setting is out of range, or the policy cannot be read or is for another number of users.
pub fn run(args: Args) -> Result<()> {
    if args.settings {
        print_settings();
        return Ok(());
    }
    let params = args.system.params()?;
    ensure!(args.draws != Some(0), "--draws must be at least 1");
    let loaded = match &args.policy {
        None => None,
        Some(path) => {
            let bytes = std::fs::read(path).with_context(|| format!("{}", path.display()))?;
            let policy = Policy::load(&bytes, &Device::flex()).with_context(|| format!("{}", path.display()))?;
            Some((bytes, policy))
        }
    };
    let policy = loaded.as_ref().map(|(_, policy)| policy);
    if let (Some(worlds), Some(policy)) = (args.worlds, policy) {
        return worlds_table(policy, worlds, &args);
    }
    if let Some(policy) = policy {
        for users in args.system.users.counts() {
            policy.header().shape.check_users(users)?;
        }
        let (wanted, given) = (policy.users(), args.system.users.counts());
        let whole = args.write_manifest.is_none() || wanted == given;
        ensure!(
            whole,
            "--write-manifest judges a policy for every number of users that it is for: --users 1-{}",
            wanted.end()
        );
        // The manifest speaks of the defaults: a page has no other numbers to hold its policy against.
        ensure!(
            args.write_manifest.is_none() || params == MecParams::with_users(params.users),
            "--write-manifest judges at the default settings; leave out --size-mbit, --set, --f-mode and --variant"
        );
    }
    let mut judgements = Vec::new();
    for users in args.system.users.counts() {
        let judgement = judge(MecParams { users, ..params }, args.draws(), args.seed, policy, args.thorough)?;
        if !args.json {
            print(&judgement, &args)?;
        }
        judgements.push(judgement);
    }
    if let (Some(dir), Some((bytes, policy))) = (&args.write_manifest, &loaded) {
        let scores = judgements.iter().map(|judgement| judgement.shipped_scores(args.seed));
        let scores = scores.collect::<Option<Vec<_>>>().context("a score is missing")?;
        let samples: Vec<_> = judgements.iter().flat_map(|judgement| judgement.samples.clone()).collect();
        let shipped = ship::ship(dir, bytes, policy, &scores, &samples)?;
        for (users, ratio) in args.system.users.counts().zip(shipped.ratios) {
            eprintln!(
                "wrote {} into {}: K = {users}, {:.2} % of the optimum",
                shipped.file,
                dir.display(),
                100.0 * ratio
            );
        }
    }
    if args.json {
        let reports: Vec<_> = judgements.iter().map(|judgement| report(judgement, &args)).collect::<Result<_>>()?;
        let report = match (args.system.users, reports.as_slice()) {
            (Users::One(_), [only]) => serde_json::to_string_pretty(only)?,
            _ => serde_json::to_string_pretty(&reports)?,
        };
        println!("{report}");
    }
    Ok(())
}

/// The plans' mean rewards by horizon, as JSON.
fn horizons(judgement: &Judgement) -> Result<serde_json::Map<String, serde_json::Value>> {
    let each = judgement.horizons.iter();
    each.map(|(name, tried)| Ok(((*name).to_owned(), serde_json::to_value(tried)?))).collect()
}

fn report(judgement: &Judgement, args: &Args) -> Result<serde_json::Value> {
    let Judgement { params, scores, constants, bound, .. } = judgement;
    Ok(serde_json::json!({
        "users": params.users, "draws": args.draws(), "seed": args.seed, "params": params,
        "scores": scores, "constants": constants, "horizons": horizons(judgement)?, "reward_bound": bound,
    }))
}

fn print(judgement: &Judgement, args: &Args) -> Result<()> {
    print_table(judgement.params.users, args, &judgement.scores);
    if let (Some(bound), Some(best)) = (judgement.bound, judgement.scores.first()) {
        let share = 100.0 * best.reward / bound;
        println!("no decisions get more than {bound:.4} (relaxation); the optimum found is {share:.2} % of that");
    }
    for action in judgement.constants {
        match action.power {
            ConstantPower::Watts(watts) => println!("best-constant-watts: α = {:.4}, {watts:.4} W", action.alpha),
            ConstantPower::EqualReceived => println!("best-constant-received: α = {:.4}", action.alpha),
        }
    }
    for (plan, tried) in &horizons(judgement)? {
        println!("{plan}, mean reward by horizon: {tried}");
    }
    Ok(())
}

fn print_table(users: usize, args: &Args, scores: &[Score]) {
    println!("K = {users}, {} fresh slots, seed {}", args.draws(), args.seed);
    println!(
        "latency and energy are per user; pooled: share of slots that break a limit of (48); single: share of users that break one of (30d-f)"
    );
    println!(
        "{:<22} {:>8} {:>7} {:>7} | {:>8} {:>8} {:>8} | {:>8} | {:>7} {:>7} {:>7} | {:>7} {:>7} {:>7}",
        "",
        "reward",
        "± s.e.",
        "of opt.",
        "mean s",
        "median s",
        "p95 s",
        "energy J",
        "A pool",
        "H pool",
        "E pool",
        "A sgl",
        "H sgl",
        "E sgl"
    );
    let best = scores.first().map_or(f64::NAN, |s| s.reward);
    for s in scores {
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        println!(
            "{:<22} {:>8.4} {:>7.4} {:>7} | {:>8.4} {:>8.4} {:>8.4} | {:>8.4} | {:>7} {:>7} {:>7} | {:>7} {:>7} {:>7}",
            s.name,
            s.reward,
            s.reward_se,
            percent(s.reward / best),
            s.latency_mean_s,
            s.latency_median_s,
            s.latency_p95_s,
            s.energy_j,
            percent(s.slots_below_accuracy),
            percent(s.slots_over_hallucination),
            percent(s.slots_over_energy),
            percent(s.users_below_accuracy),
            percent(s.users_over_hallucination),
            percent(s.users_over_energy),
        );
    }
}
