//! Many worlds at once, with episodes: what a learner drives.

use super::params::MecParams;
use super::slot::{SlotTotals, UserDecision};
use super::world::{SnapshotError, UserObservation, World, WorldSnapshot, nth_seed};

/// What one environment gave for a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepResult {
    /// The slot's sums, reward included.
    pub totals: SlotTotals,
    /// The time limit was reached: bootstrap from the next observation, then [`VecEnv::reset_truncated`].
    pub truncated: bool,
}

/// A row of independent worlds of the same K.
#[derive(Clone, Debug)]
pub struct VecEnv {
    worlds: Vec<World>,
    results: Vec<StepResult>,
    users: usize,
}

impl VecEnv {
    /// `count` worlds, each with its own stream derived from `seed`.
    ///
    /// # Panics
    /// If the parameters ask for more users than a world can hold.
    pub fn new(params: MecParams, count: usize, seed: u64) -> Self {
        let worlds = (0..count).map(|i| World::new(params, nth_seed(seed, i as u64))).collect();
        Self { worlds, results: vec![StepResult::default(); count], users: params.users }
    }

    /// What [`VecEnv::restore`] needs to go on from here.
    pub fn snapshot(&self) -> Vec<WorldSnapshot> {
        self.worlds.iter().map(World::snapshot).collect()
    }

    /// The worlds that a snapshot was taken of; `params` are the ones that they had then.
    ///
    /// # Errors
    /// When a world has another number of users than the parameters.
    pub fn restore(params: MecParams, snapshot: Vec<WorldSnapshot>) -> Result<Self, SnapshotError> {
        let worlds = snapshot.into_iter().map(|world| World::restore(params, world));
        let worlds = worlds.collect::<Result<Vec<_>, _>>()?;
        let results = vec![StepResult::default(); worlds.len()];
        Ok(Self { worlds, results, users: params.users })
    }

    /// Number of worlds.
    pub fn len(&self) -> usize {
        self.worlds.len()
    }

    /// Whether there is no world.
    pub fn is_empty(&self) -> bool {
        self.worlds.is_empty()
    }

    /// Users in each world.
    pub fn users(&self) -> usize {
        self.users
    }

    /// The worlds.
    pub fn worlds(&self) -> &[World] {
        &self.worlds
    }

    /// All observations, world after world: `out` holds `len()·users()` entries.
    ///
    /// # Panics
    /// If `out` has another length.
    pub fn observe(&self, out: &mut [UserObservation]) {
        assert_eq!(out.len(), self.worlds.len() * self.users, "one entry a user and world");
        for (world, entry) in self.worlds.iter().zip(out.chunks_mut(self.users.max(1))) {
            world.observe(entry);
        }
    }

    /// Carries out one decision a user and world, in the order of [`VecEnv::observe`].
    ///
    /// # Panics
    /// If `decisions` has another length.
    pub fn step(&mut self, decisions: &[UserDecision]) -> &[StepResult] {
        assert_eq!(decisions.len(), self.worlds.len() * self.users, "one decision a user and world");
        let chunks = decisions.chunks(self.users.max(1));
        for ((world, decision), result) in self.worlds.iter_mut().zip(chunks).zip(self.results.iter_mut()) {
            let totals = world.step(decision);
            *result = StepResult { totals, truncated: world.is_truncated() };
        }
        &self.results
    }

    /// Starts the next episode in every world whose time limit was reached.
    pub fn reset_truncated(&mut self) {
        for world in self.worlds.iter_mut().filter(|world| world.is_truncated()) {
            world.reset();
        }
    }
}
