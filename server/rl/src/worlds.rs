//! Random worlds to train and to judge policies in.

use mec::draw::draw_params;
use mec::world::nth_seed;
use mec::{MecParams, World};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// The chance of a setting to be moved, in turn: a few, half of them, all. The rest keeps its default.
pub const SPREADS: [f64; 3] = [0.15, 0.5, 1.0];

/// The `index`-th random system of a seed, for 1 to `most_users` users: its settings are drawn from the sliders' whole ranges,
/// see [`draw_params`]; the more of them, the larger `index` modulo 3.
pub fn random_params(most_users: usize, seed: u64, index: u64) -> MecParams {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(nth_seed(seed, index));
    let users = rng.random_range(1..=most_users.max(1));
    draw_params(users, SPREADS[(index % SPREADS.len() as u64) as usize], &mut rng)
}

/// A world of the `index`-th random system of a seed, at its first slot.
pub fn random_world(most_users: usize, seed: u64, index: u64) -> World {
    World::new(random_params(most_users, seed, index), nth_seed(seed, !index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_worlds_are_allowed_differ_and_come_again() {
        let params: Vec<MecParams> = (0..200).map(|index| random_params(10, 3, index)).collect();
        for (i, one) in params.iter().enumerate() {
            one.validate().expect("allowed");
            assert_eq!(*one, random_params(10, 3, i as u64));
            assert!(params[..i].iter().all(|other| other != one), "{i}");
        }
        let users: std::collections::BTreeSet<usize> = params.iter().map(|params| params.users).collect();
        assert_eq!(users, (1..=10).collect());
    }
}
