//! What a training run is. Written as `config.toml` into its folder, and read back to resume it.

use client_core::mec::{MecParams, Variant};
use client_core::policy::ActionMap;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::ppo::{Credit, PpoConfig};
use super::wm_ppo::WmPpoConfig;

/// The algorithms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Algo {
    /// Proximal policy optimisation; --credit says how advantages are estimated.
    #[default]
    Ppo,
    /// World-model PPO as the paper prints it.
    WmPpo,
    /// World-model PPO with its oddities mended.
    WmPpoMended,
}

impl Algo {
    /// The name in files and ids.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ppo => "ppo",
            Self::WmPpo => "wm-ppo",
            Self::WmPpoMended => "wm-ppo-mended",
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

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct ConfigError(String);

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
    /// Evaluations without a better one after which the run ends; 0 is never.
    #[serde(default)]
    pub patience: u64,
    /// Updates between two checkpoints.
    pub checkpoint_every: u64,
    /// The simulated system.
    pub mec: MecParams,
    /// Hyper-parameters of [`Algo::Ppo`].
    #[serde(default)]
    pub ppo: PpoConfig,
    /// Hyper-parameters of [`Algo::WmPpo`] and [`Algo::WmPpoMended`].
    #[serde(default)]
    pub wm_ppo: WmPpoConfig,
}

impl TrainConfig {
    /// Tuned PPO for K users in the paper's system. The shipped policies for K other than 2 were trained with it and
    /// seed 1; the one for 2 with 64 environments, rollouts of 32 and minibatches of 512, 320,000 steps.
    pub fn new(users: usize) -> Self {
        Self::preset(Algo::Ppo, Preset::Tuned, MecParams::with_users(users))
    }

    /// A preset for an algorithm and a system.
    pub fn preset(algo: Algo, preset: Preset, mec: MecParams) -> Self {
        let tuned = preset == Preset::Tuned;
        let mut wm_ppo = if algo == Algo::WmPpoMended { WmPpoConfig::mended() } else { WmPpoConfig::default() };
        let mut ppo = if tuned { PpoConfig::tuned() } else { PpoConfig::default() };
        if tuned {
            wm_ppo = wm_ppo.tuned();
            if mec.variant == Variant::Backlog {
                // Only here does a decision cost later slots anything.
                (ppo.credit, ppo.gamma) = (Credit::Gae, 0.9);
            }
        }
        // World-model PPO works on whole episodes of one cell, tuned or not: it is about experience being dear.
        let one_cell = !tuned || algo != Algo::Ppo;
        Self {
            algo,
            seed: 1,
            steps: if one_cell { 30_000 } else { 100_000 },
            envs: if one_cell { 1 } else { 32 },
            action_map: if tuned { ActionMap::EqualReceived } else { ActionMap::LinearWatts },
            eval_every: 10,
            eval_slots: 2000,
            patience: 0,
            checkpoint_every: 25,
            mec,
            ppo,
            wm_ppo,
        }
    }

    /// The hyper-parameters of the PPO that the algorithm is or is built on.
    pub fn ppo_mut(&mut self) -> &mut PpoConfig {
        match self.algo {
            Algo::Ppo => &mut self.ppo,
            Algo::WmPpo | Algo::WmPpoMended => &mut self.wm_ppo.ppo,
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

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// When a number is out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let in_table = |table: &'static str| move |e: String| ConfigError(format!("{table}: {e}"));
        for (name, count) in [("steps", self.steps), ("envs", self.envs as u64), ("eval_slots", self.eval_slots as u64)]
        {
            if count == 0 {
                return Err(ConfigError(format!("{name} must be at least 1")));
            }
        }
        self.mec.validate().map_err(|e| ConfigError(e.to_string()))?;
        self.ppo.validate().map_err(in_table("ppo"))?;
        self.wm_ppo.validate().map_err(in_table("wm_ppo"))
    }
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
            ("[wm_ppo]\ntarget_weight = 2.0", "target_weight"),
            ("[wm_ppo]\nhorizon = 0", "horizon"),
            ("[wm_ppo.model]\nkl_weight = -1.0", "weights"),
            ("[mec]\nusers = 0", "users"),
        ] {
            let error = preset.changed_by(text).expect("config").validate().expect_err("refused").to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
