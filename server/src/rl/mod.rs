//! Training and judging offloading policies.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`config`] | what a training run is: algorithm, system, budget; written beside its results |
//! | [`ppo`] | proximal policy optimisation, one file from top to bottom |
//! | [`beta`] | the Beta distribution of the actions: sampling, log-probability, entropy |
//! | [`nets`] | value networks, their first weights, Polyak averaging |
//! | [`rollout`] | stepping many simulated cells with a network and remembering what happened |
//! | [`evaluate`] | any policy, learned or not, on fresh slots: reward, latency, energy, broken limits |
//! | [`run`] | the run folder: configuration, metrics, curves, checkpoints, the best policy so far |
//! | [`session`] | what every algorithm does around its updates: evaluate, log, keep the best policy |
//! | [`curves`] | a small SVG of the learning curve |
//! | [`ship`] | putting a policy and its evaluation into the folder that the page downloads from |
//!
//! A further algorithm is a variant of [`config::Algo`] and a file with a `train` function like [`ppo::train`]: rollout,
//! evaluation, run folder and policy file are shared.
//!
//! Deliberately absent: the physics and the network, which page and server share through `client_core`, and any learning
//! from the optimum: policies see rewards only.

pub mod beta;
pub mod config;
pub mod curves;
pub mod evaluate;
pub mod nets;
pub mod ppo;
pub mod rollout;
pub mod run;
pub mod session;
pub mod ship;

use std::sync::atomic::AtomicBool;

/// How a training run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All steps were taken.
    Finished,
    /// The stop flag was raised; everything up to there is kept.
    Stopped,
}

/// Trains with the algorithm that the configuration names, into its run folder.
///
/// Raising `stop` ends the run after the present update with everything kept.
///
/// # Errors
/// When the folder cannot be written, a checkpoint cannot be read, or a loss stops being a number (the last good
/// checkpoint is kept).
pub fn train(config: &config::TrainConfig, run: &mut run::Run, stop: &AtomicBool) -> Result<Ending, run::TrainError> {
    match config.algo {
        config::Algo::Ppo => ppo::train(config, run, stop),
    }
}
