//! What every run has whatever its algorithm: the system, the budget, the seed and the evaluation. Algorithms take these and
//! their own hyper-parameters; which algorithms there are is known to [`config`](super::config) alone.

use mec::MecParams;
use policy::{ActionMap, Activation, ActorConfig, Head, Sees};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::ConfigError;
use super::hyper::{Declared, choice, hyper_parameters, whole};
use super::worlds::Worlds;

/// The simulated system, whose settings are declared in [`mec::settings`].
const SYSTEM: Declared = Declared::Part(Vec::new);

hyper_parameters! {
    /// What holds for a run of any algorithm.
    pub struct RunSettings, fits RunSettings::system_fits => {
        /// Seed of weights, worlds, exploration and minibatches.
        seed: u64 = 1 => whole(0, i64::MAX as u64);
        /// Environment steps in all.
        steps: u64 = 100_000 => whole(1, 1_000_000_000_000), "slots";
        /// Cells that are simulated side by side; with set-dpg of each number of users.
        envs: usize = 1 => whole(1, 65_536), "cells";
        /// What the policy's second action means: the power in watts, or its offset in dB from equal received power.
        action_map: ActionMap = ActionMap::EqualReceived => choice(&["received-10db", "linear-watts"]);
        /// Updates between two evaluations of the mean action.
        eval_every: u64 = 10 => whole(1, 100_000), "updates";
        /// Slots of such an evaluation, the same every time.
        eval_slots: usize = 2000 => whole(1, 20_000), "slots";
        /// Evaluations without a better one after which the run ends; 0 is never.
        patience: u64 = 0 => whole(0, 100_000), "evaluations";
        /// Updates between two checkpoints.
        checkpoint_every: u64 = 25 => whole(1, 100_000), "updates";
        /// Which systems are trained in: the run's own, or random ones, with rewards in units of what decisions without learning
        /// get there.
        worlds: Worlds = Worlds::Fixed => choice(&["random", "fixed"]);
        /// Slots after which a random system gives way to the next, in the middle of an episode; set-ascent draws one for each
        /// slot.
        world_slots: u64 = 20 => whole(1, 1_000_000), "slots";
        /// What a network for one number of users sees: the slot, or the slot and the system that it is in.
        sees: Sees = Sees::Slot => choice(&["slot", "world"]);
        /// The simulated system.
        mec: MecParams = MecParams::DEFAULT => SYSTEM;
    }
}

impl RunSettings {
    /// Sizes of a network for the run's number of users.
    pub fn actor(&self, hidden: &[usize], activation: Activation, head: Head) -> ActorConfig {
        ActorConfig { users: self.mec.users, sees: self.sees, hidden: hidden.to_vec(), activation, head }
    }

    fn system_fits(&self) -> Result<(), String> {
        self.mec.validate().map_err(|e| e.to_string())
    }
}

/// Everything that determines a run, as its folder keeps it.
pub trait RunConfig: Serialize + DeserializeOwned {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// When a number is out of its range.
    fn check(&self) -> Result<(), ConfigError>;
}
