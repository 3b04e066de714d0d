//! `tandem train`: trains an offloading policy by reinforcement learning.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use super::progress;
use super::system::{SystemArgs, Users};
use rl::config::{Algo, Preset, TrainConfig};
use rl::ppo::Credit;
use rl::run::Run;
use rl::{Ending, train};

/// What `tandem train` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Algorithm [default: ppo; set-dpg, the only one for it, when --users is a range].
    #[arg(long, value_enum)]
    algo: Option<Algo>,
    /// Hyper-parameters to begin from.
    #[arg(long, value_enum, default_value_t = Preset::Paper)]
    preset: Preset,
    /// TOML file with any fields of a run's config.toml; what it leaves out comes from the preset, and flags win over it
    /// (but not the system's flags over its [mec]).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    system: SystemArgs,
    /// Run folder; runs/ALGO-kK-seedS if left out (runs/set-dpg-k1-K-seedS for a range of users).
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with the run in the folder, with the configuration that it has; other flags are ignored.
    #[arg(long)]
    resume: bool,
    /// Seed of weights, worlds, exploration and minibatches [default: 1]
    #[arg(long)]
    seed: Option<u64>,
    /// Environment steps (slots) in all [default: the preset's].
    #[arg(long)]
    steps: Option<u64>,
    /// Cells simulated side by side [default: the preset's].
    #[arg(long)]
    envs: Option<usize>,
    /// End after this many evaluations in a row without a better one; 0 is never [default: 0].
    #[arg(long, value_name = "N")]
    patience: Option<u64>,
    /// A hyper-parameter of the algorithm as KEY=VALUE, `replay.batch=128` for example; may be repeated. The run folder's
    /// config.toml has them all.
    #[arg(long = "hyper", value_name = "KEY=VALUE")]
    hyper: Vec<String>,
    /// Learning rate at the start; this flag and the next five are for ppo and what is built on it.
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Estimator of the advantage.
    #[arg(long, value_enum)]
    credit: Option<Credit>,
    /// Weight of the entropy.
    #[arg(long)]
    entropy: Option<f32>,
    /// Steps of every environment in a rollout.
    #[arg(long)]
    rollout_steps: Option<usize>,
    /// Passes over a rollout.
    #[arg(long)]
    epochs: Option<usize>,
    /// Rows of a gradient step.
    #[arg(long)]
    minibatch: Option<usize>,
    /// The policy's second action is the power in watts, as in the paper, instead of an offset from equal received power.
    #[arg(long)]
    linear_watts: bool,
}

impl Args {
    fn algo(&self) -> Result<Algo> {
        match (self.algo, self.system.users) {
            (None | Some(Algo::SetDpg), Users::UpTo(_)) => Ok(Algo::SetDpg),
            (Some(Algo::SetDpg), Users::One(most)) => {
                bail!("set-dpg trains one policy for every number of users up to a largest one: --users 1-{most}")
            }
            (Some(algo), Users::UpTo(_)) => {
                bail!("{} trains a policy for one number of users; --algo set-dpg takes a range", algo.name())
            }
            (algo, Users::One(_)) => Ok(algo.unwrap_or_default()),
        }
    }

    /// The run folder.
    fn folder(&self, seed: u64) -> Result<PathBuf> {
        if let Some(out) = &self.out {
            return Ok(out.clone());
        }
        Ok(PathBuf::from(format!("runs/{}-k{}-seed{seed}", self.algo()?.name(), self.system.users)))
    }

    /// Preset, file and flags, in this order.
    fn train_config(&self) -> Result<TrainConfig> {
        let algo = self.algo()?;
        let mut config = TrainConfig::preset(algo, self.preset, self.system.params()?);
        if let Some(path) = &self.config {
            let text = std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
            config = config.changed_by(&text).with_context(|| format!("{}", path.display()))?;
            ensure!(
                config.algo == algo,
                "{} is for --algo {}, but --algo is {}",
                path.display(),
                config.algo.name(),
                algo.name()
            );
        }
        config.seed = self.seed.unwrap_or(config.seed);
        config.steps = self.steps.unwrap_or(config.steps);
        config.envs = self.envs.unwrap_or(config.envs);
        config.patience = self.patience.unwrap_or(config.patience);
        if self.linear_watts {
            config.action_map = policy::ActionMap::LinearWatts;
        }
        for pair in &self.hyper {
            let (key, value) = pair.split_once('=').with_context(|| format!("--hyper {pair}: KEY=VALUE is wanted"))?;
            config.set_hyper(key, value).with_context(|| format!("--hyper {pair}"))?;
        }
        let Some(ppo) = config.ppo_mut() else {
            let of_ppo = self.learning_rate.is_some() || self.credit.is_some() || self.entropy.is_some();
            let of_ppo = of_ppo || self.rollout_steps.is_some() || self.epochs.is_some() || self.minibatch.is_some();
            ensure!(!of_ppo, "{} takes its hyper-parameters by --hyper KEY=VALUE", config.algo.name());
            config.validate()?;
            return Ok(config);
        };
        ppo.learning_rate = self.learning_rate.unwrap_or(ppo.learning_rate);
        ppo.credit = self.credit.unwrap_or(ppo.credit);
        ppo.entropy = self.entropy.unwrap_or(ppo.entropy);
        ppo.rollout_steps = self.rollout_steps.unwrap_or(ppo.rollout_steps);
        ppo.epochs = self.epochs.unwrap_or(ppo.epochs);
        ppo.minibatch = self.minibatch.unwrap_or(ppo.minibatch);
        config.validate()?;
        Ok(config)
    }
}

/// Trains to the end or to Ctrl-C.
///
/// # Errors
/// When the folder cannot be used, or training breaks down.
pub fn run(args: Args) -> Result<()> {
    let (mut run, config) = if args.resume {
        Run::resume(&args.folder(args.seed.unwrap_or(1))?)?
    } else {
        let config = args.train_config()?;
        (Run::create(&args.folder(config.seed)?, &config)?, config)
    };

    let stop = progress::stop_on_ctrl_c("stopping after this update; everything up to there is kept")?;
    let bar = ProgressBar::new(config.steps);
    let style = "{elapsed_precise} [{bar:40}] {pos}/{len} steps, {eta} left  {msg}";
    bar.set_style(ProgressStyle::with_template(style)?);
    bar.set_position(run.progress.steps);
    bar.reset_eta();
    let shown = bar.clone();
    let mut ratio = None;
    run.on_update = Box::new(move |metrics| {
        ratio = metrics.eval_ratio.or(ratio);
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
    let users = if config.algo == Algo::SetDpg { Users::UpTo(config.mec.users) } else { Users::One(config.mec.users) };
    println!("judge it on fresh slots: tandem oracle --users {users} --draws 10000 --policy …");
    Ok(())
}
