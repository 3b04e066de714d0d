//! `tandem oracle`: the per-slot optimum, the policies without learning and a trained one, on the same fresh slots.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::Device;
use client_core::mec::world::nth_seed;
use client_core::mec::{ConstantPower, QosKnowledge, StaticPolicy, Variant};
use client_core::policy::Policy;

use super::system::{SystemArgs, print_settings};
use crate::rl::evaluate::{Bench, Judged, Score};
use crate::rl::references;
use crate::rl::ship::{self, Scores};

/// What `tandem oracle` takes.
///
/// Judges, on the same fresh slots: the per-slot optimum (full knowledge), the closed form (equal received power and the
/// exact ratios for it; knowing the mean quality, or the slot's own), always local, always offload, random, and the best
/// constant actions (one ratio and one power for all users and slots, in watts or as equal received power; searched on
/// 2,000 other slots). With `--variant backlog` whole episodes count, the per-slot optimum is only myopic, and two plans
/// come in: `clairvoyant-hN` knows the slots to come (an upper bound up to the search's precision), `lookahead` only
/// their distribution (a strong reference, no bound); both know the present slot fully. The horizon of a plan is doubled
/// until that brings less than 0.1 % of the mean reward.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    system: SystemArgs,
    /// Slots to judge on, each from a world of its own; with a backlog as many whole episodes as it takes.
    #[arg(long, default_value_t = 2000)]
    draws: usize,
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
    ensure!(args.draws > 0, "--draws must be at least 1");
    let loaded = match &args.policy {
        None => None,
        Some(path) => {
            let bytes = std::fs::read(path).with_context(|| format!("{}", path.display()))?;
            let policy = Policy::load(&bytes, &Device::flex()).with_context(|| format!("{}", path.display()))?;
            Some((bytes, policy))
        }
    };
    let bench = Bench::new(params, args.draws, args.seed);
    let statics = [
        StaticPolicy::ClosedForm(QosKnowledge::Mean),
        StaticPolicy::ClosedForm(QosKnowledge::Exact),
        StaticPolicy::AlwaysLocal,
        StaticPolicy::AlwaysOffload,
        StaticPolicy::Random,
    ];
    let mut scores = vec![bench.score(Judged::Optimum)?];
    for policy in statics {
        scores.push(bench.score(Judged::Static(policy))?);
    }
    if let Some((bytes, policy)) = &loaded {
        let (score, samples) = bench.score_and_keep(Judged::Learned(policy), ship::GOLDEN_CASES)?;
        scores.push(score);
        if let Some(dir) = &args.write_manifest {
            // The manifest speaks of the defaults: a page has no other numbers to hold its policy against.
            if params != client_core::mec::MecParams::with_users(params.users) {
                bail!(
                    "--write-manifest judges at the default settings; leave out --size-mbit, --set, --f-mode and --variant"
                );
            }
            let [optimum, closed_form, _, always_local, always_offload, random, policy_score] = scores.as_slice()
            else {
                bail!("a score is missing");
            };
            let scores = Scores {
                policy: policy_score,
                optimum,
                closed_form,
                always_local,
                always_offload,
                random,
                seed: args.seed,
            };
            let entry = ship::ship(dir, bytes, policy, &scores, &samples)?;
            eprintln!("wrote {} into {}: {:.2} % of the optimum", entry.file, dir.display(), 100.0 * entry.ratio);
        }
    }
    let constants = references::best_constants(params, nth_seed(args.seed, u64::MAX))?;
    for action in constants {
        scores.push(bench.score(Judged::Constant(action))?);
    }
    let mut horizons = serde_json::Map::new();
    if params.variant == Variant::Backlog {
        let seed = nth_seed(args.seed, u64::MAX - 1);
        let plans = [
            ("clairvoyant", references::clairvoyant(&bench, &params)?),
            ("lookahead", references::lookahead(&bench, &params, seed)?),
        ];
        // Best first: the table's shares are of its first line.
        for (name, planned) in plans.into_iter().rev() {
            horizons.insert(name.to_owned(), serde_json::to_value(&planned.horizons)?);
            scores.insert(0, planned.score);
        }
    }
    if args.json {
        let report = serde_json::json!({
            "users": params.users, "draws": args.draws, "seed": args.seed, "params": params, "scores": scores,
            "constants": constants, "horizons": horizons,
        });
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print_table(&args, &scores);
        for action in constants {
            match action.power {
                ConstantPower::Watts(watts) => println!("best-constant-watts: α = {:.4}, {watts:.4} W", action.alpha),
                ConstantPower::EqualReceived => println!("best-constant-received: α = {:.4}", action.alpha),
            }
        }
        for (plan, tried) in &horizons {
            println!("{plan}, mean reward by horizon: {tried}");
        }
    }
    Ok(())
}

fn print_table(args: &Args, scores: &[Score]) {
    println!("K = {}, {} fresh slots, seed {}", args.system.users, args.draws, args.seed);
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
