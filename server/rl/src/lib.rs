//! Training and judging offloading policies.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`config`] | the registry: every algorithm with its presets, and what a training run is; written beside its results |
//! | [`ppo`] | proximal policy optimisation, one file from top to bottom |
//! | [`ppo_lagrangian`] | the same, holding every user's limits by Lagrange multipliers |
//! | [`wm_ppo`] | world-model PPO, the paper's and a mended form |
//! | [`on_policy`] | the loop that those three share: collect a rollout, learn from it, report |
//! | [`actor_critic`] | their networks' losses, and a gradient step of both |
//! | [`td3`], [`ddpg`], [`sac`] | the off-policy algorithms, one file each from top to bottom |
//! | [`off_policy`] | the loop that those three share: explore, remember, learn, report |
//! | [`set_dpg`] | one policy for any number of users, trained on cells of every size |
//! | [`set_ascent`] | one policy for any number of users in every world, by ascent of the reward itself |
//! | [`set_net`] | its networks, with their gradients written out |
//! | [`replay`] | what off-policy algorithms learn from: the transitions of the past |
//! | [`world_model`], [`rssm`] | the recurrent state-space model that world-model PPO imagines with, and its networks |
//! | [`ensemble`] | the cheaper model of the tuned form: an ensemble of perceptrons |
//! | [`sequence_buffer`] | the slots of the past that world models learn from |
//! | [`mlp`] | perceptrons with their gradients and their optimiser written out |
//! | [`beta`] | the Beta distribution of the actions: sampling, log-probability, entropy, derivatives |
//! | [`nets`] | value networks, their first weights, Polyak averaging |
//! | [`stats`] | deviations, normalisation, explained variance, minibatches |
//! | [`rollout`] | stepping many simulated cells with a network and remembering what happened |
//! | [`worlds`] | random worlds to train and to judge in |
//! | [`world_bench`] | any policy in many random worlds: its share of the optimum in each |
//! | [`evaluate`] | any policy, learned or not, on fresh slots: reward, latency, energy, broken limits |
//! | [`references`] | what policies are held against: the best constant action, plans |
//! | [`judgement`] | all of them on the same fresh slots, a trained policy beside them |
//! | [`hyper`] | how a hyper-parameter is declared: once, with key, range, unit, default and help |
//! | [`settings`] | what every run has whatever its algorithm: system, budget, seed, evaluation |
//! | [`session`] | what every algorithm does around its updates: evaluate, log, keep the best policy |
//! | [`stop`] | telling a run to stop, and what leaves an update unfinished |
//! | [`work`] | what a run asks of a machine, estimated from its hyper-parameters |
//! | [`curve`] | a run's curve in a bounded number of points |
//! | [`run`] | the run folder: configuration, metrics, curves, checkpoints, the best policy so far |
//! | [`checkpoint`] | files that are there completely or not at all |
//! | [`tensorboard`] | a run's metrics as TensorBoard reads them |
//! | [`ship`] | putting a policy and its evaluation into the folder that the page downloads from |
//! | [`error`](mod@error) | why a run did not begin or ended early |
//!
//! Imports point one way: [`config`] at the top knows every algorithm; an algorithm knows its loop, its networks and its own
//! hyper-parameters; loops know [`session`], and that [`run`] and [`evaluate`]. `cargo xtask circles` holds to it.
//!
//! A further algorithm is a file with its `hyper_parameters!` and a `train` function like [`ppo::train`], and a variant of
//! [`config::Algo`]: rollout, evaluation, run folder and policy file are shared, and flags, API and form follow from the
//! declaration.
//!
//! Deliberately absent: the physics (`mec`) and the network that page and server share (`policy`), and any learning from the
//! optimum: policies see rewards only (one of them, [`set_ascent`], the reward's own equations).

pub mod actor_critic;
pub mod beta;
pub mod checkpoint;
pub mod config;
pub mod curve;
pub mod ddpg;
pub mod ensemble;
pub mod error;
pub mod evaluate;
pub mod hyper;
pub mod judgement;
pub mod mlp;
pub mod nets;
pub mod off_policy;
pub mod on_policy;
pub mod ppo;
pub mod ppo_lagrangian;
pub mod references;
pub mod replay;
pub mod rollout;
pub mod rssm;
pub mod run;
pub mod sac;
pub mod sequence_buffer;
pub mod session;
pub mod set_ascent;
pub mod set_dpg;
pub mod set_net;
pub mod settings;
pub mod ship;
pub mod stats;
pub mod stop;
pub mod td3;
pub mod tensorboard;
pub mod wm_ppo;
pub mod work;
pub mod world_bench;
pub mod world_model;
pub mod worlds;

pub use config::train;
pub use stop::Ending;

#[cfg(test)]
mod tests;
