//! `tandem train`: trains an offloading policy by reinforcement learning.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, anyhow, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use super::system::SystemArgs;
use crate::rl::config::{Algo, Preset, TrainConfig};
use crate::rl::ppo::Credit;
use crate::rl::run::Run;
use crate::rl::{Ending, train};

/// What `tandem train` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Algorithm.
    #[arg(long, value_enum, default_value_t = Algo::Ppo)]
    algo: Algo,
    #[command(flatten)]
    system: SystemArgs,
    /// Run folder; runs/ALGO-kK-seedS if left out.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with the run in the folder, with the configuration that it has; other flags are ignored.
    #[arg(long)]
    resume: bool,
    /// Seed of weights, worlds, exploration and minibatches.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Environment steps (slots) in all.
    #[arg(long, default_value_t = 100_000)]
    steps: u64,
    /// Cells simulated side by side; 32 for ppo and 1 for the others if left out.
    #[arg(long)]
    envs: Option<usize>,
    /// Where the hyper-parameters of td3, ddpg and sac start from.
    #[arg(long, value_enum, default_value_t = Preset::Paper)]
    preset: Preset,
    /// A hyper-parameter of the algorithm, as KEY=VALUE, `replay.batch=128` for example; may be repeated. The run folder's
    /// config.toml has them all.
    #[arg(long = "hyper", value_name = "KEY=VALUE")]
    hyper: Vec<String>,
    /// Learning rate of ppo at the start.
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Estimator of ppo's advantage.
    #[arg(long, value_enum)]
    credit: Option<Credit>,
    /// Weight of ppo's entropy.
    #[arg(long)]
    entropy: Option<f32>,
    /// Steps of every environment in a rollout of ppo.
    #[arg(long)]
    rollout_steps: Option<usize>,
    /// Rows of a gradient step of ppo.
    #[arg(long)]
    minibatch: Option<usize>,
    /// The policy's second action is the power in watts, as in the paper, instead of an offset from equal received power.
    #[arg(long)]
    linear_watts: bool,
}

/// Trains to the end or to Ctrl-C.
///
/// # Errors
/// When the folder cannot be used, or training breaks down.
pub fn run(args: Args) -> Result<()> {
    let params = args.system.params()?;
    let default_out = || PathBuf::from(format!("runs/{}-k{}-seed{}", args.algo.name(), params.users, args.seed));
    let out = args.out.clone().unwrap_or_else(default_out);
    let (mut run, config) = if args.resume {
        Run::resume(&out)?
    } else {
        let mut config = TrainConfig::new(params.users);
        (config.algo, config.seed, config.steps) = (args.algo, args.seed, args.steps);
        config.envs = args.envs.unwrap_or(args.algo.usual_envs());
        config.mec = params;
        config.take_preset(args.preset);
        if args.linear_watts {
            config.action_map = client_core::policy::ActionMap::LinearWatts;
        }
        let of_ppo = args.learning_rate.is_some() || args.credit.is_some() || args.entropy.is_some();
        let of_ppo = of_ppo || args.rollout_steps.is_some() || args.minibatch.is_some();
        ensure!(
            args.algo == Algo::Ppo || !of_ppo,
            "--learning-rate, --credit, --entropy, --rollout-steps and --minibatch are ppo's; take --hyper KEY=VALUE"
        );
        let ppo = &mut config.ppo;
        ppo.learning_rate = args.learning_rate.unwrap_or(ppo.learning_rate);
        ppo.credit = args.credit.unwrap_or(ppo.credit);
        ppo.entropy = args.entropy.unwrap_or(ppo.entropy);
        ppo.rollout_steps = args.rollout_steps.unwrap_or(ppo.rollout_steps);
        ppo.minibatch = args.minibatch.unwrap_or(ppo.minibatch);
        ensure!(ppo.rollout_steps > 0 && ppo.minibatch > 0, "--rollout-steps and --minibatch must be at least 1");
        for pair in &args.hyper {
            let (key, value) = pair.split_once('=').with_context(|| format!("--hyper {pair}: KEY=VALUE is wanted"))?;
            config.set_hyper(key, value).map_err(|e| anyhow!("--hyper {pair}: {e}"))?;
        }
        config.validate().map_err(|e| anyhow!(e))?;
        (Run::create(&out, &config)?, config)
    };

    let stop = Arc::new(AtomicBool::new(false));
    stop_on_ctrl_c(Arc::clone(&stop))?;
    let bar = ProgressBar::new(config.steps);
    let style = "{elapsed_precise} [{bar:40}] {pos}/{len} steps, {eta} left  {msg}";
    bar.set_style(ProgressStyle::with_template(style)?);
    bar.set_position(run.progress.steps);
    bar.reset_eta();
    let (shown, mut best) = (bar.clone(), run.progress.best_reward);
    let mut ratio = None;
    run.on_update = Box::new(move |metrics| {
        if let Some(reward) = metrics.eval_reward {
            best = Some(best.map_or(reward, |b: f64| b.max(reward)));
            ratio = metrics.eval_ratio;
        }
        let share = ratio.map_or(String::new(), |r| format!(", mean action {:.1} % of the optimum", 100.0 * r));
        shown.set_position(metrics.global_step);
        shown.set_message(format!("reward {:.4}{share}, {:.0} steps/s", metrics.mean_reward, metrics.steps_per_second));
    });
    let ending = train(&config, &mut run, &stop);
    bar.abandon();
    match ending? {
        Ending::Finished => println!("finished: {}", run.dir().join("policy.safetensors").display()),
        Ending::Stopped => println!("stopped; go on with: tandem train --resume --out {}", run.dir().display()),
    }
    if let Some(last) = run.history().iter().rev().find(|m| m.eval_reward.is_some()) {
        let (reward, ratio) = (last.eval_reward.unwrap_or_default(), last.eval_ratio.unwrap_or_default());
        println!("last evaluation: mean reward {reward:.4}, {:.2} % of the optimum", 100.0 * ratio);
    }
    println!("judge it on fresh slots: tandem oracle --users {} --draws 10000 --policy …", config.mec.users);
    Ok(())
}

/// The first Ctrl-C ends the run after the present update; the second one ends the process.
fn stop_on_ctrl_c(stop: Arc<AtomicBool>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("ctrl-c".to_owned()).spawn(move || {
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                eprintln!("\nstopping after this update; everything up to there is kept");
                stop.store(true, Ordering::Relaxed);
            }
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(130);
            }
        });
    })?;
    Ok(())
}
