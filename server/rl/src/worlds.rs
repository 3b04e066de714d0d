//! Random worlds to train and to judge policies in.

use std::ops::RangeInclusive;

use burn::tensor::Device;
use mec::draw::draw_params;
use mec::world::nth_seed;
use mec::{MecParams, Physics, UserDecision, UserObservation, World};
use policy::world::Outlook;
use policy::{Network, Policy, PolicyHeader};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

use super::error::TrainError;

/// Which systems are trained on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Worlds {
    /// Random ones, their settings drawn from the sliders' ranges.
    Random,
    /// The run's own.
    #[default]
    Fixed,
}

/// The chance of a setting to be moved, in turn: a few, half of them, all. The rest keeps its default.
pub const SPREADS: [f64; 3] = [0.15, 0.5, 1.0];

/// The `index`-th random system of a seed, for as many users as a range allows: its settings are drawn from the sliders' whole
/// ranges, see [`draw_params`]; the more of them, the larger `index` modulo 3.
///
/// # Panics
/// If the range is empty.
pub fn random_params(users: RangeInclusive<usize>, seed: u64, index: u64) -> MecParams {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(nth_seed(seed, index));
    let users = rng.random_range(users);
    draw_params(users, SPREADS[(index % SPREADS.len() as u64) as usize], &mut rng)
}

/// A world of the `index`-th random system of a seed, at its first slot.
pub fn random_world(users: RangeInclusive<usize>, seed: u64, index: u64) -> World {
    World::new(random_params(users, seed, index), nth_seed(seed, !index))
}

/// What the best decision without learning is believed to get in a slot: rewards of systems that differ by orders of magnitude
/// are measured in it.
pub fn unlearned_reward(physics: &Physics, seen: &[UserObservation]) -> f64 {
    let mut out = vec![UserDecision::default(); seen.len()];
    Outlook::new(physics, seen).decide(physics, std::iter::empty(), &mut out)
}

/// A reward in units of [`unlearned_reward`]. Bounded, so that no slot whose hidden quality was a surprise outweighs others.
pub fn share_of(unlearned: f64, reward: f64) -> f64 {
    (reward / unlearned.max(1e-300)).min(2.0)
}

/// Worlds of [`Trials`].
const TRIAL_WORLDS: u64 = 600;

/// Slots of random systems in which policies of one number of users are held against each other.
pub struct Trials {
    worlds: Vec<World>,
    /// [`unlearned_reward`] of each.
    unlearned: Vec<f64>,
}

impl Trials {
    /// Always the same ones of a seed.
    pub fn new(users: usize, seed: u64) -> Self {
        let worlds: Vec<World> = (0..TRIAL_WORLDS).map(|index| random_world(users..=users, seed, index)).collect();
        let unlearned = worlds.iter().map(|world| unlearned_reward(world.physics(), &world.observation())).collect();
        Self { worlds, unlearned }
    }

    /// The mean of what a policy gets, each slot's as [`share_of`] has it.
    ///
    /// # Errors
    /// When the policy's device fails.
    pub fn merit(&self, header: PolicyHeader, network: &Network) -> Result<f64, TrainError> {
        let policy = Policy::new(header, network.clone(), &Device::flex());
        let mut sum = 0.0;
        for (world, unlearned) in self.worlds.iter().zip(&self.unlearned) {
            let seen = world.observation();
            let decisions = futures::executor::block_on(policy.decide(world.physics(), &seen))?;
            sum += share_of(*unlearned, world.clone().step(&decisions).reward);
        }
        Ok(sum / self.worlds.len().max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_worlds_are_allowed_differ_and_come_again() {
        let params: Vec<MecParams> = (0..200).map(|index| random_params(1..=10, 3, index)).collect();
        for (i, one) in params.iter().enumerate() {
            one.validate().expect("allowed");
            assert_eq!(*one, random_params(1..=10, 3, i as u64));
            assert!(params[..i].iter().all(|other| other != one), "{i}");
        }
        let users: std::collections::BTreeSet<usize> = params.iter().map(|params| params.users).collect();
        assert_eq!(users, (1..=10).collect());
    }
}
