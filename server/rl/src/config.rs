//! The registry: every algorithm with its name, its presets and its hyper-parameters, and the configuration that names one of
//! them. Written as `config.toml` into a run's folder, and read back to resume it.
//!
//! This is the top of the crate, and the only file that knows them all: no algorithm knows another one's configuration.

use mec::{MecParams, Variant};
use policy::{ActionMap, Sees};
use serde::{Deserialize, Serialize};

use super::ddpg::{self, DdpgConfig};
use super::error::{ConfigError, TrainError};
use super::hyper::{HyperParameter, HyperParameters};
use super::ppo::{self, Credit, PpoConfig};
use super::ppo_lagrangian::{self, LagrangianConfig};
use super::run::Run;
use super::sac::{self, SacConfig};
use super::session::Job;
use super::set_ascent::{self, SetAscentConfig};
use super::set_dpg::{self, SetDpgConfig};
use super::settings::{RunConfig, RunSettings};
use super::stop::{Ending, Stop};
use super::td3::{self, Td3Config};
use super::wm_ppo::{self, WmPpoConfig};
use super::worlds::Worlds;

/// The algorithms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Algo {
    /// Proximal policy optimisation; --credit says how advantages are estimated.
    #[default]
    Ppo,
    /// PPO that holds every user's limits by Lagrange multipliers.
    PpoLagrangian,
    /// World-model PPO as the paper prints it.
    WmPpo,
    /// World-model PPO with its oddities mended.
    WmPpoMended,
    /// Twin delayed deep deterministic policy gradient.
    Td3,
    /// Deep deterministic policy gradient.
    Ddpg,
    /// Soft actor-critic.
    Sac,
    /// Deterministic policy gradient over sets: one policy for every number of users from 1 to that of the system.
    SetDpg,
    /// Ascent of the reward's own equations in random worlds: one policy for every number of users and every world.
    SetAscent,
}

impl Algo {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Ppo,
        Self::PpoLagrangian,
        Self::WmPpo,
        Self::WmPpoMended,
        Self::Td3,
        Self::Ddpg,
        Self::Sac,
        Self::SetDpg,
        Self::SetAscent,
    ];

    /// Whether it trains one policy for every number of users.
    pub fn is_set(self) -> bool {
        matches!(self, Self::SetDpg | Self::SetAscent)
    }

    /// The name in files and ids.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ppo => "ppo",
            Self::PpoLagrangian => "ppo-lagrangian",
            Self::WmPpo => "wm-ppo",
            Self::WmPpoMended => "wm-ppo-mended",
            Self::Td3 => "td3",
            Self::Ddpg => "ddpg",
            Self::Sac => "sac",
            Self::SetDpg => "set-dpg",
            Self::SetAscent => "set-ascent",
        }
    }

    /// The table of its hyper-parameters in `config.toml`.
    pub fn table(self) -> &'static str {
        match self {
            Self::PpoLagrangian => "ppo_lagrangian",
            Self::WmPpo | Self::WmPpoMended => "wm_ppo",
            Self::SetDpg => "set_dpg",
            Self::SetAscent => "set_ascent",
            other => other.name(),
        }
    }

    /// Its hyper-parameters in the order of their declaration; keys are those of [`TrainConfig::set_hyper`].
    pub fn hyper_parameters(self) -> Vec<HyperParameter> {
        match self {
            Self::Ppo => PpoConfig::list(),
            Self::PpoLagrangian => LagrangianConfig::list(),
            Self::WmPpo | Self::WmPpoMended => WmPpoConfig::list(),
            Self::Td3 => Td3Config::list(),
            Self::Ddpg => DdpgConfig::list(),
            Self::Sac => SacConfig::list(),
            Self::SetDpg => SetDpgConfig::list(),
            Self::SetAscent => SetAscentConfig::list(),
        }
    }
}

/// Where hyper-parameters begin, before a file or flags change them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// The paper's: one cell, episodes of 200 slots as rollouts, powers in watts. Where it prints nothing, or what it
    /// prints learns nothing (the learning rate), the fields' documentation says what stands there instead.
    #[default]
    Paper,
    /// What works.
    Tuned,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Paper, Self::Tuned];

    /// The name in requests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Paper => "paper",
            Self::Tuned => "tuned",
        }
    }
}

/// Everything that determines a training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The algorithm.
    pub algo: Algo,
    /// Seed of weights, worlds, exploration and minibatches.
    pub seed: u64,
    /// Environment steps (slots) in all.
    pub steps: u64,
    /// Cells that are simulated side by side; with [`Algo::SetDpg`] of each number of users.
    pub envs: usize,
    /// What the policy's second action means.
    pub action_map: ActionMap,
    /// Updates between two evaluations of the mean action.
    pub eval_every: u64,
    /// Slots of such an evaluation, the same every time.
    pub eval_slots: usize,
    /// Evaluations without a better one after which the run ends; 0 is never.
    #[serde(default)]
    pub patience: u64,
    /// Updates between two checkpoints.
    pub checkpoint_every: u64,
    /// Which systems are trained in.
    #[serde(default)]
    pub worlds: Worlds,
    /// Slots after which a random system gives way to the next.
    #[serde(default = "world_slots")]
    pub world_slots: u64,
    /// What a network for one number of users sees.
    #[serde(default)]
    pub sees: Sees,
    /// The simulated system.
    pub mec: MecParams,
    /// Hyper-parameters of [`Algo::Ppo`].
    #[serde(default)]
    pub ppo: PpoConfig,
    /// Hyper-parameters of [`Algo::PpoLagrangian`].
    #[serde(default)]
    pub ppo_lagrangian: LagrangianConfig,
    /// Hyper-parameters of [`Algo::WmPpo`] and [`Algo::WmPpoMended`].
    #[serde(default)]
    pub wm_ppo: WmPpoConfig,
    /// Hyper-parameters of [`Algo::Td3`].
    #[serde(default)]
    pub td3: Td3Config,
    /// Hyper-parameters of [`Algo::Ddpg`].
    #[serde(default)]
    pub ddpg: DdpgConfig,
    /// Hyper-parameters of [`Algo::Sac`].
    #[serde(default)]
    pub sac: SacConfig,
    /// Hyper-parameters of [`Algo::SetDpg`].
    #[serde(default)]
    pub set_dpg: SetDpgConfig,
    /// Hyper-parameters of [`Algo::SetAscent`].
    #[serde(default)]
    pub set_ascent: SetAscentConfig,
}

fn world_slots() -> u64 {
    RunSettings::default().world_slots
}

impl TrainConfig {
    /// Tuned PPO for K users in the paper's system.
    pub fn new(users: usize) -> Self {
        Self::preset(Algo::Ppo, Preset::Tuned, MecParams::with_users(users))
    }

    /// A preset for an algorithm and a system.
    pub fn preset(algo: Algo, preset: Preset, mec: MecParams) -> Self {
        let is_set = algo.is_set();
        // The paper has no policy for any number of users.
        let tuned = preset == Preset::Tuned || is_set;
        // Only with a backlog does a decision cost later slots anything.
        let foresight = mec.variant == Variant::Backlog;
        let wm_ppo = match (algo, preset) {
            (Algo::WmPpoMended, Preset::Paper) => WmPpoConfig::mended(),
            (Algo::WmPpoMended, Preset::Tuned) => WmPpoConfig::tuned(foresight),
            (_, Preset::Paper) => WmPpoConfig::default(),
            (_, Preset::Tuned) => WmPpoConfig::default().with_tuned_ppo(),
        };
        let mut ppo = if tuned { PpoConfig::tuned() } else { PpoConfig::default() };
        let mut ppo_lagrangian = if tuned { LagrangianConfig::tuned() } else { LagrangianConfig::default() };
        if tuned && foresight {
            (ppo.credit, ppo.gamma) = (Credit::Gae, 0.9);
            ppo_lagrangian.ppo = ppo.clone();
        }
        // World-model PPO works on whole episodes of one cell, tuned or not: it is about experience being dear.
        let one_cell = !tuned || !matches!(algo, Algo::Ppo | Algo::PpoLagrangian);
        Self {
            algo,
            seed: 1,
            steps: if is_set {
                1_000_000
            } else if one_cell {
                30_000
            } else {
                100_000
            },
            envs: if is_set {
                4
            } else if one_cell {
                1
            } else {
                32
            },
            action_map: if tuned { ActionMap::EqualReceived } else { ActionMap::LinearWatts },
            eval_every: 10,
            eval_slots: 2000,
            patience: 0,
            checkpoint_every: 25,
            worlds: if algo == Algo::SetAscent { Worlds::Random } else { Worlds::Fixed },
            world_slots: world_slots(),
            sees: Sees::Slot,
            mec,
            ppo,
            ppo_lagrangian,
            wm_ppo,
            td3: if tuned { Td3Config::tuned() } else { Td3Config::default() },
            ddpg: if tuned { DdpgConfig::tuned() } else { DdpgConfig::default() },
            sac: if tuned { SacConfig::tuned() } else { SacConfig::default() },
            set_dpg: SetDpgConfig::default(),
            set_ascent: SetAscentConfig::default(),
        }
    }

    /// The hyper-parameters of the PPO that the algorithm is or is built on; `None` for the off-policy ones.
    pub fn ppo_mut(&mut self) -> Option<&mut PpoConfig> {
        match self.algo {
            Algo::Ppo => Some(&mut self.ppo),
            Algo::PpoLagrangian => Some(&mut self.ppo_lagrangian.ppo),
            Algo::WmPpo | Algo::WmPpoMended => Some(&mut self.wm_ppo.ppo),
            Algo::Td3 | Algo::Ddpg | Algo::Sac | Algo::SetDpg | Algo::SetAscent => None,
        }
    }

    /// Changes what a TOML text names: any of the fields of `config.toml`, at any depth.
    ///
    /// # Errors
    /// When the text is not TOML, or names a field that is not there or a value that does not fit it.
    pub fn changed_by(&self, text: &str) -> Result<Self, ConfigError> {
        let changes: toml::Table = toml::from_str(text).map_err(|e| ConfigError(e.to_string()))?;
        let mut table = toml::Table::try_from(self).map_err(|e| ConfigError(e.to_string()))?;
        merge(&mut table, changes);
        table.try_into().map_err(|e: toml::de::Error| ConfigError(e.to_string()))
    }

    /// Sets a hyper-parameter of the algorithm from text, `replay.batch` and `128` for example; the keys are the fields of
    /// the algorithm's struct, the values are written as in TOML, words also without their quotes.
    ///
    /// # Errors
    /// When there is no such key, or the value is not of its kind.
    pub fn set_hyper(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        let changed = |value: &str| self.changed_by(&format!("[{}]\n{key} = {value}", self.algo.table()));
        *self = changed(value).or_else(|error| changed(&format!("\"{value}\"")).map_err(|_| error))?;
        Ok(())
    }

    /// What holds whatever the algorithm.
    pub fn settings(&self) -> RunSettings {
        let Self { seed, steps, envs, action_map, eval_every, eval_slots, patience, checkpoint_every, .. } = *self;
        let Self { worlds, world_slots, sees, mec, .. } = *self;
        RunSettings {
            seed,
            steps,
            envs,
            action_map,
            eval_every,
            eval_slots,
            patience,
            checkpoint_every,
            worlds,
            world_slots,
            sees,
            mec,
        }
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// When a number is out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let in_table = |table: &'static str| move |e: String| ConfigError(format!("{table}: {e}"));
        self.settings().validate().map_err(ConfigError)?;
        if self.algo == Algo::SetDpg && self.worlds == Worlds::Random {
            return Err(ConfigError(
                "worlds: set-dpg trains in the run's own system; set-ascent does in random ones".to_owned(),
            ));
        }
        if self.algo.is_set() && self.sees != Sees::Slot {
            return Err(ConfigError(format!("sees: {} has a view of its own, leave it at \"slot\"", self.algo.name())));
        }
        self.ppo.validate().map_err(in_table("ppo"))?;
        self.ppo_lagrangian.validate().map_err(in_table("ppo_lagrangian"))?;
        self.wm_ppo.validate().map_err(in_table("wm_ppo"))?;
        self.td3.validate().map_err(in_table("td3"))?;
        self.ddpg.validate().map_err(in_table("ddpg"))?;
        self.sac.validate().map_err(in_table("sac"))?;
        self.set_dpg.validate().map_err(in_table("set_dpg"))?;
        self.set_ascent.validate().map_err(in_table("set_ascent"))
    }

    /// Trains with the algorithm that it names, without looking whether anything is out of its range.
    pub(crate) fn train(&self, run: &mut Run, stop: &Stop) -> Result<Ending, TrainError> {
        let settings = self.settings();
        let job = Job { algo: self.algo.name(), settings: &settings, run, stop };
        let ending = match self.algo {
            Algo::Ppo => ppo::train(job, &self.ppo),
            Algo::PpoLagrangian => ppo_lagrangian::train(job, &self.ppo_lagrangian),
            Algo::WmPpo | Algo::WmPpoMended => wm_ppo::train(job, &self.wm_ppo),
            Algo::Td3 => td3::train(job, &self.td3),
            Algo::Ddpg => ddpg::train(job, &self.ddpg),
            Algo::Sac => sac::train(job, &self.sac),
            Algo::SetDpg => set_dpg::train(job, &self.set_dpg),
            Algo::SetAscent => set_ascent::train(job, &self.set_ascent),
        };
        // Within an algorithm an update that is left unfinished is an error; for whoever asked for it, it is none.
        if matches!(ending, Err(TrainError::Stopped)) { Ok(Ending::Stopped) } else { ending }
    }
}

impl RunConfig for TrainConfig {
    fn check(&self) -> Result<(), ConfigError> {
        self.validate()
    }
}

/// Trains with the algorithm that the configuration names, into its run folder, from its checkpoint if it has one: on one
/// thread a resumed run goes on as if it had never stopped.
///
/// `stop` ends the run within about a second and a half: after the present update where that is small, else in the middle of
/// it, which is done again when the run is resumed.
///
/// # Errors
/// When a hyper-parameter is out of its range, the folder cannot be written, a checkpoint cannot be read, or a loss becomes
/// NaN or infinite (the last good checkpoint is kept).
pub fn train(config: &TrainConfig, run: &mut Run, stop: &Stop) -> Result<Ending, TrainError> {
    config.validate()?;
    config.train(run, stop)
}

fn merge(into: &mut toml::Table, changes: toml::Table) {
    for (key, change) in changes {
        match (into.get_mut(&key), change) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => merge(old, new),
            (_, change) => {
                into.insert(key, change);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hyper::HyperKind;

    #[test]
    fn every_hyper_parameter_is_declared_with_its_range_and_every_preset_is_within_them() {
        for algo in Algo::ALL {
            let list = algo.hyper_parameters();
            for preset in Preset::ALL {
                for variant in Variant::ALL {
                    let mec = MecParams::with_users(10).with_variant(variant);
                    let checked = TrainConfig::preset(algo, preset, mec).validate();
                    assert!(checked.is_ok(), "{}: {checked:?}", algo.name());
                }
                let config = TrainConfig::preset(algo, preset, MecParams::DEFAULT);
                let table = toml::Table::try_from(&config).expect("a table");
                // What config.toml holds of the algorithm is what is declared, neither less nor more.
                let mut keys = Vec::new();
                for (key, value) in table[algo.table()].as_table().expect("its table") {
                    match value {
                        toml::Value::Table(inner) => keys.extend(inner.keys().map(|name| format!("{key}.{name}"))),
                        _ => keys.push(key.clone()),
                    }
                }
                let mut declared: Vec<&String> = list.iter().map(|p| &p.key).collect();
                keys.sort_unstable();
                declared.sort_unstable();
                assert!(keys.iter().eq(declared), "{}: {keys:?}", algo.name());
            }
            for parameter in list {
                let HyperParameter { key, help, kind, .. } = parameter;
                assert!(help.len() > 5 && help.ends_with('.'), "{}: {key}: {help}", algo.name());
                // Every name that is offered is one that is understood.
                if let HyperKind::Choice { names } = kind {
                    for name in names {
                        TrainConfig::preset(algo, Preset::Tuned, MecParams::DEFAULT)
                            .set_hyper(&key, &name)
                            .expect(&name);
                    }
                }
            }
        }
        for parameter in RunSettings::list() {
            assert!(parameter.help.ends_with('.'), "{parameter:?}");
        }
    }

    #[test]
    fn algorithms_and_presets_are_called_the_same_everywhere() {
        for algo in Algo::ALL {
            assert_eq!(serde_json::to_value(algo).expect("json"), algo.name());
        }
        for preset in Preset::ALL {
            assert_eq!(serde_json::to_value(preset).expect("json"), preset.name());
        }
        use clap::ValueEnum as _;
        assert_eq!((Algo::value_variants(), Preset::value_variants()), (&Algo::ALL[..], &Preset::ALL[..]));
    }

    #[test]
    fn a_file_changes_what_it_names_and_nothing_else() {
        let preset = TrainConfig::preset(Algo::WmPpo, Preset::Paper, MecParams::with_users(2));
        let changed = preset.changed_by("seed = 7\n[wm_ppo]\nhorizon = 5\n[wm_ppo.ppo]\nclip = 0.3\n").expect("config");
        let mut want = preset.clone();
        (want.seed, want.wm_ppo.horizon, want.wm_ppo.ppo.clip) = (7, 5, 0.3);
        assert_eq!(changed, want);
        assert_eq!(preset.changed_by("").expect("config"), preset);
        for (text, said) in
            [("sed = 7", "sed"), ("[ppo]\nclipp = 1.0", "clipp"), ("seed = \"x\"", "seed"), ("[", "TOML")]
        {
            let error = preset.changed_by(text).expect_err("refused").to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn nonsense_is_refused_in_words() {
        let preset = TrainConfig::preset(Algo::WmPpo, Preset::Paper, MecParams::with_users(2));
        assert!(preset.validate().is_ok());
        for (text, said) in [
            ("steps = 0", "steps"),
            ("envs = 0", "envs"),
            ("[ppo]\ngae_lambda = -0.5", "gae_lambda"),
            ("[ppo]\nlearning_rate = nan", "learning_rate"),
            ("[ppo]\nhidden = []", "hidden"),
            ("[ppo_lagrangian]\nallowed = 1.0", "allowed"),
            ("[ppo_lagrangian]\nrate = -1.0", "rate"),
            ("[wm_ppo]\ntarget_weight = 2.0", "target_weight"),
            ("[wm_ppo]\nhorizon = 0", "horizon"),
            ("[wm_ppo]\nrounds = 0", "rounds"),
            ("[wm_ppo.ensemble]\nmembers = 0", "ensemble.members"),
            ("[wm_ppo.ensemble]\nhidden = [8, 0]", "ensemble.hidden"),
            ("[wm_ppo.ensemble]\nlearning_rate = -1.0", "ensemble.learning_rate"),
            ("[wm_ppo.model]\nkl_weight = -1.0", "model.kl_weight"),
            ("[mec]\nusers = 0", "users"),
            ("world_slots = 0", "world_slots"),
        ] {
            let error = preset.changed_by(text).expect("config").validate().expect_err("refused").to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
        let system = MecParams::with_users(2);
        for (algo, text, said) in [
            (Algo::SetDpg, "worlds = \"random\"", "set-ascent"),
            (Algo::SetDpg, "sees = \"world\"", "view of its own"),
            (Algo::SetAscent, "sees = \"world\"", "view of its own"),
        ] {
            let config = TrainConfig::preset(algo, Preset::Tuned, system).changed_by(text).expect("config");
            let error = config.validate().expect_err("refused").to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
        let random = TrainConfig { worlds: Worlds::Random, sees: Sees::World, ..TrainConfig::new(2) };
        random.validate().expect("allowed");
    }

    #[test]
    fn hyper_parameters_are_set_by_name_and_nonsense_is_refused() {
        let mut config = TrainConfig::preset(Algo::Td3, Preset::Paper, MecParams::with_users(2));
        for (key, value) in [("gamma", "0"), ("replay.batch", "32"), ("hidden", "[8, 4]"), ("activation", "tanh")] {
            config.set_hyper(key, value).expect(key);
        }
        let td3 = &config.td3;
        assert_eq!((td3.gamma, td3.replay.batch, td3.hidden.as_slice()), (0.0, 32, [8, 4].as_slice()));
        assert_eq!(config.ddpg, DdpgConfig::default());
        let cases = [
            ("gama", "0", "gama"),
            ("replay.batch.more", "1", "map"),
            ("gamma", "much", "much"),
            ("replay.batch", "-1", "-1"),
        ];
        for (key, value, said) in cases {
            let before = config.clone();
            let error = config.set_hyper(key, value).expect_err("refused").to_string();
            assert!(error.contains(said) && config == before, "{error}");
        }
        let cases = [
            ("gamma", "1", "gamma"),
            ("gamma", "nan", "gamma"),
            ("tau", "0", "tau"),
            ("actor_rate", "-1e-3", "actor_rate"),
            ("hidden", "[0]", "hidden"),
            ("exploration", "-0.1", "exploration"),
            ("policy_delay", "0", "policy_delay"),
            ("replay.batch", "0", "replay.batch"),
            ("replay.capacity", "10", "replay.capacity"),
            ("replay.updates_per_step", "0", "updates_per_step"),
        ];
        for (key, value, said) in cases {
            let mut config = config.clone();
            config.set_hyper(key, value).expect(key);
            let error = config.validate().expect_err("out of range").to_string();
            assert!(error.contains(said), "{error}");
        }
        config.validate().expect("fine");
    }
}
