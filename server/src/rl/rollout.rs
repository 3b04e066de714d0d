//! Stepping many simulated cells and remembering what happened.

use client_core::mec::{MecParams, Physics, SnapshotError, UserDecision, UserObservation, VecEnv, WorldSnapshot};
use client_core::policy::ActionMap;
use client_core::policy::set::{self, SET_FEATURES_PER_USER};
use client_core::policy::spaces::{self, ACTIONS_PER_USER, FEATURES_PER_USER};

/// A stretch of experience, step after step, within a step environment after environment.
#[derive(Clone, Debug, Default)]
pub struct Experience {
    /// Network inputs, `inputs` a row.
    pub features: Vec<f32>,
    /// Actions in [0, 1], `actions` a row.
    pub actions: Vec<f32>,
    /// Rewards of (47), one a row.
    pub rewards: Vec<f32>,
    /// Share of the users that broke their limit on accuracy, hallucination rate and energy, (30d)–(30f), a row each.
    pub broken: Vec<[f32; 3]>,
    /// Inputs of the state after each row (before a reset, if the time limit was reached there).
    pub next_features: Vec<f32>,
    /// Whether the time limit was reached after the row.
    pub truncated: Vec<bool>,
}

impl Experience {
    /// Mean of the rewards.
    pub fn mean_reward(&self) -> f64 {
        self.rewards.iter().map(|r| f64::from(*r)).sum::<f64>() / self.rewards.len().max(1) as f64
    }
}

/// What networks see of a slot.
#[derive(Clone, Copy)]
struct Encoding {
    features_per_user: usize,
    /// Writes the features of one slot.
    write: fn(&Physics, &[UserObservation], &mut [f32]),
}

/// For networks of one number of users.
const FIXED: Encoding = Encoding { features_per_user: FEATURES_PER_USER, write: spaces::features };
/// For networks of any number of users.
const SET: Encoding = Encoding { features_per_user: SET_FEATURES_PER_USER, write: set::features };

/// The environments and the buffers around them.
pub struct Collector {
    envs: VecEnv,
    action_map: ActionMap,
    encoding: Encoding,
    seen: Vec<UserObservation>,
    features: Vec<f32>,
    decisions: Vec<UserDecision>,
}

impl Collector {
    /// `envs` cells from a seed.
    pub fn new(params: MecParams, envs: usize, seed: u64, action_map: ActionMap) -> Self {
        Self::of(VecEnv::new(params, envs, seed), action_map, FIXED)
    }

    /// [`Collector::new`] for networks of any number of users.
    pub fn new_for_sets(params: MecParams, envs: usize, seed: u64, action_map: ActionMap) -> Self {
        Self::of(VecEnv::new(params, envs, seed), action_map, SET)
    }

    /// Goes on from a [`Collector::snapshot`] that was taken with the same parameters and action map.
    ///
    /// # Errors
    /// When a cell has another number of users than the parameters.
    pub fn restore(
        params: MecParams,
        snapshot: Vec<WorldSnapshot>,
        action_map: ActionMap,
    ) -> Result<Self, SnapshotError> {
        Ok(Self::of(VecEnv::restore(params, snapshot)?, action_map, FIXED))
    }

    /// [`Collector::restore`] for networks of any number of users.
    ///
    /// # Errors
    /// When a cell has another number of users than the parameters.
    pub fn restore_for_sets(
        params: MecParams,
        snapshot: Vec<WorldSnapshot>,
        action_map: ActionMap,
    ) -> Result<Self, SnapshotError> {
        Ok(Self::of(VecEnv::restore(params, snapshot)?, action_map, SET))
    }

    /// The cells' whole state, for a checkpoint.
    pub fn snapshot(&self) -> Vec<WorldSnapshot> {
        self.envs.snapshot()
    }

    fn of(envs: VecEnv, action_map: ActionMap, encoding: Encoding) -> Self {
        let rows = envs.len() * envs.users();
        let mut collector = Self {
            envs,
            action_map,
            encoding,
            seen: vec![UserObservation::default(); rows],
            features: vec![0.0; rows * encoding.features_per_user],
            decisions: vec![UserDecision::default(); rows],
        };
        collector.look();
        collector
    }

    /// Cells side by side.
    pub fn envs(&self) -> usize {
        self.envs.len()
    }

    /// Numbers in a row of features.
    pub fn inputs(&self) -> usize {
        self.envs.users() * self.encoding.features_per_user
    }

    /// Numbers in a row of actions.
    pub fn actions(&self) -> usize {
        self.envs.users() * ACTIONS_PER_USER
    }

    /// Network inputs of the present slots, a row an environment.
    pub fn features(&self) -> &[f32] {
        &self.features
    }

    fn look(&mut self) {
        self.envs.observe(&mut self.seen);
        // All worlds have the same parameters, so one set of physics normalises all.
        if let Some(world) = self.envs.worlds().first() {
            let users = self.envs.users();
            let width = users * self.encoding.features_per_user;
            for (seen, out) in self.seen.chunks(users).zip(self.features.chunks_mut(width)) {
                (self.encoding.write)(world.physics(), seen, out);
            }
        }
    }

    /// Steps every environment once with the given actions in [0, 1], a row an environment, and appends what happened to
    /// `out`. Where a time limit was reached the next episode begins.
    pub fn step(&mut self, actions: &[f32], out: &mut Experience) {
        let (actions_per_row, users) = (self.actions(), self.envs.users());
        let rows = self.envs.worlds().iter().zip(self.seen.chunks(users)).zip(actions.chunks(actions_per_row));
        for (((world, seen), actions), out) in rows.zip(self.decisions.chunks_mut(users)) {
            self.action_map.decisions(world.physics(), seen, actions, out);
        }
        out.features.extend_from_slice(&self.features);
        out.actions.extend_from_slice(actions);
        for result in self.envs.step(&self.decisions) {
            out.rewards.push(result.totals.reward as f32);
            out.truncated.push(result.truncated);
        }
        for world in self.envs.worlds() {
            let mut broken = [0.0; 3];
            for outcome in world.last_outcomes() {
                for (share, one) in broken.iter_mut().zip(outcome.breaks(world.params())) {
                    *share += f32::from(u8::from(one)) / users as f32;
                }
            }
            out.broken.push(broken);
        }
        self.look();
        out.next_features.extend_from_slice(&self.features);
        self.envs.reset_truncated();
        self.look();
    }
}
