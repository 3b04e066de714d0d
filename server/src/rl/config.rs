//! What a training run is. Written as `config.toml` into its folder, and read back to resume it.

use client_core::mec::MecParams;
use client_core::policy::ActionMap;
use serde::{Deserialize, Serialize};

use super::ppo::PpoConfig;

/// The algorithms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Algo {
    /// Proximal policy optimisation.
    #[default]
    Ppo,
}

impl Algo {
    /// The name in files and ids.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ppo => "ppo",
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
        }
    }
}
