//! What a training run is. Written as `config.toml` into its folder, and read back to resume it.

use client_core::mec::MecParams;
use client_core::policy::ActionMap;
use serde::{Deserialize, Serialize};

use super::ddpg::DdpgConfig;
use super::ppo::PpoConfig;
use super::sac::SacConfig;
use super::td3::Td3Config;

/// The algorithms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Algo {
    /// Proximal policy optimisation.
    #[default]
    Ppo,
    /// Twin delayed deep deterministic policy gradient.
    Td3,
    /// Deep deterministic policy gradient.
    Ddpg,
    /// Soft actor-critic.
    Sac,
}

impl Algo {
    /// The name in files and ids.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ppo => "ppo",
            Self::Td3 => "td3",
            Self::Ddpg => "ddpg",
            Self::Sac => "sac",
        }
    }

    /// Cells that it is usually trained with: many for a rollout, one for a replay buffer.
    pub fn usual_envs(self) -> usize {
        match self {
            Self::Ppo => 32,
            Self::Td3 | Self::Ddpg | Self::Sac => 1,
        }
    }
}

/// Where hyper-parameters start from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Preset {
    /// The defaults: the values that are printed with the algorithm.
    #[default]
    Paper,
    /// What works on the default system.
    Tuned,
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
    /// Cells that are simulated side by side.
    pub envs: usize,
    /// What the policy's second action means.
    pub action_map: ActionMap,
    /// Updates between two evaluations of the mean action.
    pub eval_every: u64,
    /// Slots of such an evaluation, the same every time.
    pub eval_slots: usize,
    /// Updates between two checkpoints.
    pub checkpoint_every: u64,
    /// The simulated system.
    pub mec: MecParams,
    /// Hyper-parameters of [`Algo::Ppo`].
    pub ppo: PpoConfig,
    /// Hyper-parameters of [`Algo::Td3`].
    #[serde(default)]
    pub td3: Td3Config,
    /// Hyper-parameters of [`Algo::Ddpg`].
    #[serde(default)]
    pub ddpg: DdpgConfig,
    /// Hyper-parameters of [`Algo::Sac`].
    #[serde(default)]
    pub sac: SacConfig,
}

impl TrainConfig {
    /// Defaults for K users. The shipped policies for K other than 2 were trained with them and seed 1; the one for 2 with
    /// 64 environments, rollouts of 32 and minibatches of 512, 320,000 steps.
    pub fn new(users: usize) -> Self {
        Self {
            algo: Algo::Ppo,
            seed: 1,
            steps: 100_000,
            envs: 32,
            action_map: ActionMap::EqualReceived,
            eval_every: 10,
            eval_slots: 2000,
            checkpoint_every: 25,
            mec: MecParams::with_users(users),
            ppo: PpoConfig::default(),
            td3: Td3Config::default(),
            ddpg: DdpgConfig::default(),
            sac: SacConfig::default(),
        }
    }

    /// Takes the hyper-parameters of a preset.
    pub fn take_preset(&mut self, preset: Preset) {
        (self.td3, self.ddpg, self.sac) = match preset {
            Preset::Paper => (Td3Config::default(), DdpgConfig::default(), SacConfig::default()),
            Preset::Tuned => (Td3Config::tuned(), DdpgConfig::tuned(), SacConfig::tuned()),
        };
    }

    /// Sets a hyper-parameter of the algorithm from text, `replay.batch` and `128` for example; the keys are the fields of
    /// the algorithm's struct, the values are written as in TOML.
    ///
    /// # Errors
    /// When there is no such key, or the value is not of its kind, in words.
    pub fn set_hyper(&mut self, key: &str, value: &str) -> Result<(), String> {
        let algo = self.algo.name();
        let mut whole = toml::Table::try_from(&*self).map_err(|e| e.to_string())?;
        let mut entry = whole.get_mut(algo);
        for part in key.split('.') {
            entry = entry.and_then(|table| table.get_mut(part));
        }
        let entry = entry.ok_or_else(|| format!("{algo} has no hyper-parameter `{key}`"))?;
        let parsed = toml::from_str::<toml::Table>(&format!("value = {value}"));
        *entry = parsed.ok().and_then(|mut table| table.remove("value")).unwrap_or_else(|| value.into());
        *self = whole.try_into().map_err(|e| format!("{algo}'s {key} = {value}: {}", e.to_string().trim()))?;
        Ok(())
    }

    /// What makes training with the algorithm impossible, in words.
    ///
    /// # Errors
    /// When a hyper-parameter is out of its range.
    pub fn validate(&self) -> Result<(), String> {
        if self.envs == 0 || self.steps == 0 {
            return Err("envs and steps must be at least 1".to_owned());
        }
        match self.algo {
            Algo::Ppo => Ok(()),
            Algo::Td3 => self.td3.validate(),
            Algo::Ddpg => self.ddpg.validate(),
            Algo::Sac => self.sac.validate(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hyper_parameters_are_set_by_name_and_nonsense_is_refused() {
        let mut config = TrainConfig { algo: Algo::Td3, ..TrainConfig::new(2) };
        for (key, value) in [("gamma", "0"), ("replay.batch", "32"), ("hidden", "[8, 4]"), ("activation", "tanh")] {
            config.set_hyper(key, value).expect(key);
        }
        let td3 = &config.td3;
        assert_eq!((td3.gamma, td3.replay.batch, td3.hidden.as_slice()), (0.0, 32, [8, 4].as_slice()));
        assert_eq!(config.ddpg, DdpgConfig::default());
        let cases = [
            ("gama", "0", "td3 has no hyper-parameter `gama`"),
            ("replay.batch.more", "1", "no hyper-parameter"),
            ("gamma", "much", "gamma = much"),
            ("replay.batch", "-1", "replay.batch = -1"),
        ];
        for (key, value, said) in cases {
            let before = config.clone();
            let error = config.set_hyper(key, value).expect_err("refused");
            assert!(error.contains(said) && config == before, "{error}");
        }
        let cases = [
            ("gamma", "1", "gamma"),
            ("gamma", "nan", "gamma"),
            ("tau", "0", "tau"),
            ("actor_rate", "-1e-3", "learning rates"),
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
            let error = config.validate().expect_err("out of range");
            assert!(error.contains(said), "{error}");
        }
        config.validate().expect("fine");
    }
}
