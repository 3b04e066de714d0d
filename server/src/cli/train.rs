//! `tandem train`: trains an offloading policy by reinforcement learning.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::{Arg, ArgMatches, Command, FromArgMatches};
use indicatif::{ProgressBar, ProgressStyle};
use mec::MecParams;
use policy::Sees;
use rl::config::{Algo, Preset, TrainConfig};
use rl::hyper::{HyperParameter, HyperParameters};
use rl::ppo::PpoConfig;
use rl::run::Run;
use rl::settings::RunSettings;
use rl::stop::Stop;
use rl::worlds::Worlds;
use rl::{Ending, train};

use super::progress;
use super::system::{SystemArgs, Users};

/// What `tandem train` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Algorithm [default: ppo; set-dpg when --users is a range, set-ascent when --worlds is random besides].
    #[arg(long, value_enum)]
    algo: Option<Algo>,
    /// Systems to train in: `fixed`, the one that the other flags say, or `random`, with settings anywhere in the sliders' ranges.
    /// set-ascent draws one for every slot and is told which; others get the next one after --world-slots, in the middle of an
    /// episode, and are told with --sees world.
    #[arg(long, value_enum)]
    worlds: Option<Worlds>,
    /// Slots after which a random system gives way to the next [default: 20].
    #[arg(long, value_name = "N")]
    world_slots: Option<u64>,
    /// What a network for one number of users sees: `slot`, the state of (46), or `world`, the system that it is in as well
    /// [default: slot; world with --worlds random].
    #[arg(long, value_parser = sees)]
    sees: Option<Sees>,
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
    /// Begin with the weights of this policy instead of random ones; it may be for fewer users. set-ascent takes one of its own.
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    begin_with: Option<PathBuf>,
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
    /// A hyper-parameter of the algorithm as KEY=VALUE, `replay.batch=128` for example; may be repeated.
    /// --hyper-parameters lists them.
    #[arg(long = "hyper", value_name = "KEY=VALUE")]
    hyper: Vec<String>,
    /// List the hyper-parameters of the algorithm with their defaults, ranges and meaning, and train nothing.
    #[arg(long)]
    hyper_parameters: bool,
    #[command(flatten)]
    of_ppo: PpoFlags,
    /// The policy's second action is the power in watts, as in the paper, instead of an offset from equal received power.
    #[arg(long)]
    linear_watts: bool,
}

/// As the run's folder has it.
fn sees(text: &str) -> Result<Sees, String> {
    match text {
        "slot" => Ok(Sees::Slot),
        "world" => Ok(Sees::World),
        _ => Err("slot or world".to_owned()),
    }
}

/// A flag for each hyper-parameter of PPO, made of their declaration.
#[derive(Clone, Debug, Default)]
struct PpoFlags(Vec<(String, String)>);

impl clap::Args for PpoFlags {
    fn augment_args(command: Command) -> Command {
        PpoConfig::list().into_iter().fold(command, |command, HyperParameter { key, help, unit, kind }| {
            let unit = if unit.is_empty() { String::new() } else { format!("{unit}; ") };
            let help = format!("{help} [{unit}{}]", kind.wanted());
            // Names of flags live as long as the process, which makes them once.
            let long: &'static str = Box::leak(key.replace('_', "-").into_boxed_str());
            let heading = "Hyper-parameters of ppo and of what is built on it";
            command.arg(Arg::new(long).long(long).value_name("VALUE").help(help).help_heading(heading))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for PpoFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |parameter: HyperParameter| {
            let value = matches.get_one::<String>(&parameter.key.replace('_', "-"))?;
            Some((parameter.key, value.clone()))
        };
        Ok(Self(PpoConfig::list().into_iter().filter_map(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Prints what can be set of an algorithm: its own hyper-parameters, then what holds for all.
fn print_hyper_parameters(algo: Algo, preset: Preset) -> Result<()> {
    let config = toml::Table::try_from(TrainConfig::preset(algo, preset, MecParams::DEFAULT))?;
    let print = |parameters: Vec<HyperParameter>, table: &toml::Table| {
        for HyperParameter { key, help, unit, kind } in parameters {
            let mut names = key.split('.');
            let first = names.next().and_then(|name| table.get(name));
            let value = names.fold(first, |at, name| at?.get(name));
            let value = value.map_or(String::new(), ToString::to_string);
            let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
            println!("{key} = {value}{unit}  ({})\n    {help}", kind.wanted());
        }
    };
    let empty = toml::Table::new();
    print(algo.hyper_parameters(), config.get(algo.table()).and_then(toml::Value::as_table).unwrap_or(&empty));
    println!("\nIn the file of --config, for every algorithm:");
    let common = RunSettings::list().into_iter().filter(|parameter| config.contains_key(&parameter.key));
    print(common.collect(), &config);
    Ok(())
}

impl Args {
    fn algo(&self) -> Result<Algo> {
        match (self.algo, self.system.users) {
            (None, Users::UpTo(_)) if self.worlds == Some(Worlds::Random) => Ok(Algo::SetAscent),
            (Some(Algo::SetAscent), Users::UpTo(_)) => Ok(Algo::SetAscent),
            (None | Some(Algo::SetDpg), Users::UpTo(_)) => Ok(Algo::SetDpg),
            (Some(algo @ (Algo::SetDpg | Algo::SetAscent)), Users::One(most)) => {
                bail!(
                    "{} trains one policy for every number of users up to a largest one: --users 1-{most}",
                    algo.name()
                )
            }
            (Some(algo), Users::UpTo(_)) => {
                bail!(
                    "{} trains a policy for one number of users; --algo set-dpg and set-ascent take a range",
                    algo.name()
                )
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

    /// The policy to begin with.
    fn begin(&self, config: &TrainConfig) -> Result<Option<Vec<u8>>> {
        let Some(path) = &self.begin_with else { return Ok(None) };
        let algo = config.algo;
        ensure!(
            algo == Algo::SetAscent,
            "--begin-with: {} begins with random weights; set-ascent does not",
            algo.name()
        );
        let bytes = std::fs::read(path).with_context(|| format!("{}", path.display()))?;
        Ok(Some(bytes))
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
        config.worlds = self.worlds.unwrap_or(config.worlds);
        config.world_slots = self.world_slots.unwrap_or(config.world_slots);
        if self.worlds == Some(Worlds::Random) && !algo.is_set() {
            config.sees = Sees::World;
        }
        config.sees = self.sees.unwrap_or(config.sees);
        if self.linear_watts {
            config.action_map = policy::ActionMap::LinearWatts;
        }
        for pair in &self.hyper {
            let (key, value) = pair.split_once('=').with_context(|| format!("--hyper {pair}: KEY=VALUE is wanted"))?;
            config.set_hyper(key, value).with_context(|| format!("--hyper {pair}"))?;
        }
        let is_ppo = config.algo == Algo::Ppo;
        let has_ppo = config.ppo_mut().is_some();
        for (key, value) in &self.of_ppo.0 {
            let flag = key.replace('_', "-");
            ensure!(has_ppo, "--{flag}: {} takes its hyper-parameters by --hyper KEY=VALUE", config.algo.name());
            let key = if is_ppo { key.clone() } else { format!("ppo.{key}") };
            config.set_hyper(&key, value).with_context(|| format!("--{flag} {value}"))?;
        }
        config.validate()?;
        Ok(config)
    }
}

/// Trains to the end or to Ctrl-C.
///
/// # Errors
/// When the folder cannot be used, or training breaks down.
pub fn run(args: Args) -> Result<()> {
    if args.hyper_parameters {
        return print_hyper_parameters(args.algo()?, args.preset);
    }
    let (mut run, config) = if args.resume {
        Run::resume(&args.folder(args.seed.unwrap_or(1))?)?
    } else {
        let config = args.train_config()?;
        let begin = args.begin(&config)?;
        let run = Run::create(&args.folder(config.seed)?, &config)?;
        if let Some(bytes) = begin {
            run.begin_with(&bytes)?;
        }
        (run, config)
    };

    let stop = Stop::from(progress::stop_on_ctrl_c("stopping; what the last checkpoint holds is kept")?);
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
    if let Some(last) = run.evaluated() {
        let (reward, ratio) = (last.eval_reward.unwrap_or_default(), last.eval_ratio.unwrap_or_default());
        println!("last evaluation: mean reward {reward:.4}, {:.2} % of the optimum", 100.0 * ratio);
    }
    let users = if config.algo.is_set() { Users::UpTo(config.mec.users) } else { Users::One(config.mec.users) };
    println!("judge it on fresh slots: tandem oracle --users {users} --draws 10000 --policy …");
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct ParsedArgs {
        #[command(flatten)]
        args: Args,
    }

    fn config(line: &str) -> Result<TrainConfig> {
        ParsedArgs::try_parse_from(std::iter::once("train").chain(line.split(' ')))?.args.train_config()
    }

    #[test]
    fn every_hyper_parameter_of_ppo_is_a_flag_of_whatever_is_built_on_it() {
        let line = "--credit gae --gamma 0.5 --learning-rate 1e-4 --rollout-steps 7 --epochs 3 --minibatch 9 --entropy 0 \
                    --hidden [8,4] --anneal false --activation relu";
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        for algo in ["ppo", "ppo-lagrangian", "wm-ppo", "wm-ppo-mended"] {
            let mut config = config(&format!("--algo {algo} --preset tuned {line}")).expect(algo);
            let ppo = config.ppo_mut().expect("built on ppo");
            assert_eq!((ppo.gamma, ppo.learning_rate, ppo.rollout_steps, ppo.anneal), (0.5, 1e-4, 7, false), "{algo}");
            assert_eq!((ppo.epochs, ppo.minibatch, ppo.hidden.as_slice()), (3, 9, &[8, 4][..]), "{algo}");
        }
        let flags = PpoConfig::list().into_iter().map(|parameter| parameter.key.replace('_', "-"));
        let command = <PpoFlags as clap::Args>::augment_args(Command::new("train"));
        let known: Vec<_> = command.get_arguments().filter_map(Arg::get_long).map(str::to_owned).collect();
        assert_eq!(flags.collect::<Vec<_>>(), known);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_flag_and_the_range() {
        for (line, said) in [
            ("--algo td3 --epochs 3", "--hyper KEY=VALUE"),
            ("--epochs 0", "epochs must be a whole number between 1 and"),
            ("--epochs many", "--epochs many"),
            ("--credit magic", "--credit magic"),
            ("--gamma 1.5", "gamma must be"),
            ("--hyper epochs", "KEY=VALUE"),
            ("--hyper replay.batch=3", "replay"),
        ] {
            let error = format!("{:#}", config(line).expect_err(line));
            assert!(error.contains(said), "{line}: {error}");
        }
    }
}
