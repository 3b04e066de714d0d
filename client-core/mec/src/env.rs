//! Many cells at once, with episodes: what a learner drives.

use super::block::{CellBlock, LANES, StepResult};
use super::params::{MecParams, Physics};
use super::slot::UserDecision;
use super::world::{SnapshotError, UserObservation, World, WorldSnapshot, nth_seed};

/// A row of independent cells of the same K, in [blocks](CellBlock) of [`LANES`]. Blocks share nothing, so that whoever
/// has threads may step them side by side ([`VecEnv::blocks_mut`]).
#[derive(Clone, Debug)]
pub struct VecEnv {
    physics: Physics,
    blocks: Vec<CellBlock>,
    results: Vec<StepResult>,
}

impl VecEnv {
    /// `count` cells, each with its own stream derived from `seed`.
    ///
    /// # Panics
    /// If the parameters ask for more users than a cell can hold.
    pub fn new(params: MecParams, count: usize, seed: u64) -> Self {
        let worlds = (0..count).map(|i| World::new(params, nth_seed(seed, i as u64)).snapshot());
        // Just taken of cells with these parameters.
        Self::restore(params, worlds.collect()).expect("snapshots of the same parameters")
    }

    /// What [`VecEnv::restore`] needs to go on from here.
    pub fn snapshot(&self) -> Vec<WorldSnapshot> {
        self.blocks.iter().flat_map(CellBlock::snapshots).collect()
    }

    /// The cells that a snapshot was taken of; `params` are the ones that they had then.
    ///
    /// # Errors
    /// When a cell has another number of users than the parameters.
    pub fn restore(params: MecParams, snapshot: Vec<WorldSnapshot>) -> Result<Self, SnapshotError> {
        let results = vec![StepResult::default(); snapshot.len()];
        let mut blocks = Vec::with_capacity(snapshot.len().div_ceil(LANES));
        let mut cells = snapshot.into_iter();
        while cells.len() > 0 {
            blocks.push(CellBlock::restore(params, cells.by_ref().take(LANES).collect())?);
        }
        Ok(Self { physics: params.physics(), blocks, results })
    }

    /// Number of cells.
    pub fn len(&self) -> usize {
        self.results.len()
    }

    /// Whether there is no cell.
    pub fn is_empty(&self) -> bool {
        self.results.is_empty()
    }

    /// Users in each cell.
    pub fn users(&self) -> usize {
        self.physics.params.users
    }

    /// The parameters that all cells began with, in linear units; see [`CellBlock::set_params`].
    pub fn physics(&self) -> &Physics {
        &self.physics
    }

    /// The cells, [`LANES`] in every block but the last.
    pub fn blocks(&self) -> &[CellBlock] {
        &self.blocks
    }

    /// [`VecEnv::blocks`], to be stepped one by one.
    pub fn blocks_mut(&mut self) -> &mut [CellBlock] {
        &mut self.blocks
    }

    /// All observations, cell after cell: `out` holds `len()·users()` entries.
    ///
    /// # Panics
    /// If `out` has another length.
    pub fn observe(&self, out: &mut [UserObservation]) {
        assert_eq!(out.len(), self.len() * self.users(), "one entry a user and cell");
        for (block, out) in self.blocks.iter().zip(out.chunks_mut((LANES * self.users()).max(1))) {
            block.observe(out);
        }
    }

    /// Carries out one decision a user and cell, in the order of [`VecEnv::observe`].
    ///
    /// # Panics
    /// If `decisions` has another length.
    pub fn step(&mut self, decisions: &[UserDecision]) -> &[StepResult] {
        let users = self.users();
        assert_eq!(decisions.len(), self.len() * users, "one decision a user and cell");
        let decisions = decisions.chunks((LANES * users).max(1));
        for ((block, decisions), results) in self.blocks.iter_mut().zip(decisions).zip(self.results.chunks_mut(LANES)) {
            block.step(decisions, results);
        }
        &self.results
    }

    /// Starts the next episode in every cell whose time limit was reached.
    pub fn reset_truncated(&mut self) {
        self.blocks.iter_mut().for_each(CellBlock::reset_truncated);
    }
}
