//! Stepping many simulated cells and remembering what happened.
//!
//! Cells are stepped a [block](CellBlock) at a time: decisions from actions, the slot, what is seen of the next one. A block
//! needs nothing of the others and every cell has its own random stream, so that blocks may be spread over threads, and the
//! same seed gives the same experience on any number of them.

use mec::block::LANES;
use mec::world::nth_seed;
use mec::{
    CellBlock, MecParams, Physics, SnapshotError, StepResult, UserDecision, UserObservation, VecEnv, WorldSnapshot,
};
use policy::set::{self, SET_FEATURES_PER_USER};
use policy::spaces::ACTIONS_PER_USER;
use policy::{ActionMap, Sees};
use rayon::prelude::*;

use super::settings::RunSettings;
use super::worlds::{Worlds, random_params, share_of, unlearned_reward};

/// A stretch of experience, step after step, within a step environment after environment.
#[derive(Clone, Debug, Default)]
pub struct Experience {
    /// Network inputs, `inputs` a row.
    pub features: Vec<f32>,
    /// Actions in [0, 1], `actions` a row.
    pub actions: Vec<f32>,
    /// Rewards of (47), one a row; in random systems each as [`share_of`] has it.
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
enum Encoding {
    /// For networks of one number of users.
    Fixed(Sees),
    /// For networks of any number of users.
    Set,
}

impl Encoding {
    fn features_per_user(self) -> usize {
        match self {
            Self::Fixed(sees) => sees.features_per_user(),
            Self::Set => SET_FEATURES_PER_USER,
        }
    }

    /// Writes the features of one slot.
    fn write(self, physics: &Physics, seen: &[UserObservation], out: &mut [f32]) {
        match self {
            Self::Fixed(sees) => sees.features(physics, seen, out),
            Self::Set => set::features(physics, seen, out),
        }
    }
}

/// Random systems: each block of cells is in one of its own, and after so many slots in another. Nothing else begins anew with
/// it, as when somebody moves sliders.
struct RandomSystems {
    /// Gives number of users, variant and length of episodes.
    own: MecParams,
    seed: u64,
    slots: u64,
    /// Slots that each cell has lived through.
    lived: u64,
}

impl RandomSystems {
    fn params(&self, block: usize, blocks: usize) -> MecParams {
        let MecParams { users, variant, horizon, .. } = self.own;
        let index = self.lived / self.slots * blocks as u64 + block as u64;
        MecParams { variant, horizon, ..random_params(users..=users, self.seed, index) }
    }
}

/// From this number of users in all cells on, blocks are spread over rayon's threads. Below, waking a thread takes longer
/// than what it would do.
const SPREAD_FROM_USERS: usize = 256;

/// The environments and the buffers around them.
pub struct Collector {
    envs: VecEnv,
    action_map: ActionMap,
    encoding: Encoding,
    systems: Option<RandomSystems>,
    spread: bool,
    seen: Vec<UserObservation>,
    features: Vec<f32>,
    decisions: Vec<UserDecision>,
    results: Vec<StepResult>,
    /// [`unlearned_reward`] of each cell's present slot; empty unless systems are random.
    unlearned: Vec<f64>,
}

/// A block of cells with its part of every buffer.
struct Part<'a> {
    block: &'a mut CellBlock,
    actions: &'a [f32],
    seen: &'a mut [UserObservation],
    decisions: &'a mut [UserDecision],
    results: &'a mut [StepResult],
    /// Of the state in which the next decision is made.
    features: &'a mut [f32],
    /// Of the state after the slot, before a reset.
    next_features: &'a mut [f32],
    broken: &'a mut [[f32; 3]],
    unlearned: &'a mut [f64],
    /// The system that comes after the slot, where another one does.
    next_system: Option<MecParams>,
}

impl Part<'_> {
    fn look(&mut self, encoding: Encoding) {
        self.block.observe(self.seen);
        let users = self.block.users();
        let width = users * encoding.features_per_user();
        for (seen, out) in self.seen.chunks(users).zip(self.features.chunks_mut(width)) {
            encoding.write(self.block.physics(), seen, out);
        }
        for (seen, out) in self.seen.chunks(users).zip(&mut *self.unlearned) {
            *out = unlearned_reward(self.block.physics(), seen);
        }
    }

    fn step(&mut self, action_map: ActionMap, encoding: Encoding) {
        let users = self.block.users();
        let rows = self.seen.chunks(users).zip(self.actions.chunks(users * ACTIONS_PER_USER));
        for ((seen, actions), out) in rows.zip(self.decisions.chunks_mut(users)) {
            action_map.decisions(self.block.physics(), seen, actions, out);
        }
        self.block.step(self.decisions, self.results);
        let params = &self.block.physics().params;
        for (cell, broken) in self.broken.iter_mut().enumerate() {
            for user in 0..users {
                let outcome = self.block.outcome(cell, user);
                for (share, one) in broken.iter_mut().zip(outcome.breaks(params)) {
                    *share += f32::from(u8::from(one)) / users as f32;
                }
            }
        }
        if let Some(params) = self.next_system {
            self.block.set_params(params);
        }
        self.look(encoding);
        self.next_features.copy_from_slice(self.features);
        if self.results.iter().any(|result| result.truncated) {
            self.block.reset_truncated();
            self.look(encoding);
        }
    }
}

impl Collector {
    /// A run's cells from a seed, for networks of one number of users.
    pub fn new(settings: &RunSettings, seed: u64) -> Self {
        Self::of_run(settings, seed, VecEnv::new(settings.mec, settings.envs, seed), 0)
    }

    /// Goes on from a [`Collector::snapshot`] that was taken after so many slots of each cell, with the same settings and seed.
    ///
    /// # Errors
    /// When a cell has another number of users than the settings.
    pub fn restore(
        settings: &RunSettings,
        seed: u64,
        snapshot: Vec<WorldSnapshot>,
        lived: u64,
    ) -> Result<Self, SnapshotError> {
        Ok(Self::of_run(settings, seed, VecEnv::restore(settings.mec, snapshot)?, lived))
    }

    fn of_run(settings: &RunSettings, seed: u64, mut envs: VecEnv, lived: u64) -> Self {
        let systems = (settings.worlds == Worlds::Random).then(|| RandomSystems {
            own: settings.mec,
            seed: nth_seed(seed, u64::MAX),
            slots: settings.world_slots,
            lived,
        });
        if let Some(systems) = &systems {
            let blocks = envs.blocks().len();
            for (index, block) in envs.blocks_mut().iter_mut().enumerate() {
                block.set_params(systems.params(index, blocks));
            }
        }
        Self::of(envs, settings.action_map, Encoding::Fixed(settings.sees), systems)
    }

    /// `envs` cells from a seed, for networks of any number of users.
    pub fn new_for_sets(params: MecParams, envs: usize, seed: u64, action_map: ActionMap) -> Self {
        Self::of(VecEnv::new(params, envs, seed), action_map, Encoding::Set, None)
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
        Ok(Self::of(VecEnv::restore(params, snapshot)?, action_map, Encoding::Set, None))
    }

    /// The cells' whole state, for a checkpoint.
    pub fn snapshot(&self) -> Vec<WorldSnapshot> {
        self.envs.snapshot()
    }

    fn of(envs: VecEnv, action_map: ActionMap, encoding: Encoding, systems: Option<RandomSystems>) -> Self {
        let rows = envs.len() * envs.users();
        let mut collector = Self {
            action_map,
            encoding,
            spread: rows >= SPREAD_FROM_USERS,
            seen: vec![UserObservation::default(); rows],
            features: vec![0.0; rows * encoding.features_per_user()],
            decisions: vec![UserDecision::default(); rows],
            results: vec![StepResult::default(); envs.len()],
            unlearned: if systems.is_some() { vec![0.0; envs.len()] } else { Vec::new() },
            systems,
            envs,
        };
        collector.in_parts(&[], &mut [], &mut [], &[], |part| part.look(encoding));
        collector
    }

    /// Does something with every block; the slices are the new ends of an [`Experience`]'s, and the systems that come next,
    /// empty where they are not needed.
    fn in_parts(
        &mut self,
        actions: &[f32],
        next_features: &mut [f32],
        broken: &mut [[f32; 3]],
        next_systems: &[MecParams],
        work: impl Fn(&mut Part<'_>) + Sync,
    ) {
        let rows = LANES * self.envs.users();
        let width = rows * self.encoding.features_per_user();
        let (mut actions, mut next_features) =
            (actions.chunks(rows * ACTIONS_PER_USER), next_features.chunks_mut(width));
        let (mut seen, mut decisions) = (self.seen.chunks_mut(rows), self.decisions.chunks_mut(rows));
        let (mut results, mut broken) = (self.results.chunks_mut(LANES), broken.chunks_mut(LANES));
        let mut features = self.features.chunks_mut(width);
        let (mut unlearned, mut next_systems) = (self.unlearned.chunks_mut(LANES), next_systems.iter());
        let part = |block| Part {
            block,
            actions: actions.next().unwrap_or_default(),
            seen: seen.next().unwrap_or_default(),
            decisions: decisions.next().unwrap_or_default(),
            results: results.next().unwrap_or_default(),
            features: features.next().unwrap_or_default(),
            next_features: next_features.next().unwrap_or_default(),
            broken: broken.next().unwrap_or_default(),
            unlearned: unlearned.next().unwrap_or_default(),
            next_system: next_systems.next().copied(),
        };
        let mut parts: Vec<Part<'_>> = self.envs.blocks_mut().iter_mut().map(part).collect();
        if self.spread {
            // No more pieces than threads: a block is too small a piece to hand over.
            let share = parts.len().div_ceil(rayon::current_num_threads());
            parts.par_chunks_mut(share.max(1)).for_each(|parts| parts.iter_mut().for_each(&work));
        } else {
            parts.iter_mut().for_each(work);
        }
    }

    /// Cells side by side.
    pub fn envs(&self) -> usize {
        self.envs.len()
    }

    /// Numbers in a row of features.
    pub fn inputs(&self) -> usize {
        self.envs.users() * self.encoding.features_per_user()
    }

    /// Numbers in a row of actions.
    pub fn actions(&self) -> usize {
        self.envs.users() * ACTIONS_PER_USER
    }

    /// Network inputs of the present slots, a row an environment.
    pub fn features(&self) -> &[f32] {
        &self.features
    }

    /// Steps every environment once with the given actions in [0, 1], a row an environment, and appends what happened to
    /// `out`. Where a time limit was reached the next episode begins.
    pub fn step(&mut self, actions: &[f32], out: &mut Experience) {
        out.features.extend_from_slice(&self.features);
        out.actions.extend_from_slice(actions);
        let (before, rows) = (out.next_features.len(), out.broken.len());
        out.next_features.resize(before + self.features.len(), 0.0);
        out.broken.resize(rows + self.envs.len(), [0.0; 3]);
        let (action_map, encoding) = (self.action_map, self.encoding);
        let (next_features, broken) = (&mut out.next_features[before..], &mut out.broken[rows..]);
        let mut next_systems = Vec::new();
        if let Some(systems) = &mut self.systems {
            systems.lived += 1;
            if systems.lived.is_multiple_of(systems.slots) {
                let blocks = self.envs.blocks().len();
                next_systems.extend((0..blocks).map(|block| systems.params(block, blocks)));
            }
        }
        let unlearned = self.unlearned.clone();
        let stepped = |part: &mut Part<'_>| part.step(action_map, encoding);
        self.in_parts(actions, next_features, broken, &next_systems, stepped);
        let rewards = self.results.iter().map(|result| result.totals.reward);
        match unlearned.as_slice() {
            [] => out.rewards.extend(rewards.map(|reward| reward as f32)),
            units => out.rewards.extend(units.iter().zip(rewards).map(|(unit, reward)| share_of(*unit, reward) as f32)),
        }
        out.truncated.extend(self.results.iter().map(|result| result.truncated));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mec::{ServerShare, Variant};
    use rand::{RngExt, SeedableRng};
    use rand_xoshiro::Xoshiro256PlusPlus;

    #[derive(Clone, Copy)]
    enum Cells {
        Own,
        Sets,
        Random,
    }

    /// Slots of many cells on a pool of threads, with a checkpoint under way.
    fn lived(threads: usize, variant: Variant, cells: Cells) -> Experience {
        let params = MecParams::with_users(4).with_variant(variant);
        let params = MecParams { horizon: 7, server_share: ServerShare::Load, ..params };
        let (envs, map) = (SPREAD_FROM_USERS / 4 + 3, ActionMap::EqualReceived);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("pool");
        pool.install(|| {
            let settings = RunSettings { mec: params, envs, action_map: map, world_slots: 5, ..RunSettings::default() };
            let settings = match cells {
                Cells::Random => RunSettings { worlds: Worlds::Random, sees: Sees::World, ..settings },
                Cells::Own | Cells::Sets => settings,
            };
            let mut collector = match cells {
                Cells::Sets => Collector::new_for_sets(params, envs, 3, map),
                Cells::Own | Cells::Random => Collector::new(&settings, 3),
            };
            assert!(collector.spread);
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(5);
            let mut out = Experience::default();
            for slot in 0..20 {
                if slot == 11 {
                    let snapshot = collector.snapshot();
                    collector = match cells {
                        Cells::Sets => Collector::restore_for_sets(params, snapshot, map),
                        Cells::Own | Cells::Random => Collector::restore(&settings, 3, snapshot, slot),
                    }
                    .expect("restored");
                }
                let actions: Vec<f32> = (0..envs * collector.actions()).map(|_| rng.random()).collect();
                collector.step(&actions, &mut out);
            }
            assert_eq!(out.rewards.len(), 20 * envs);
            out
        })
    }

    /// Whatever the systems' rewards are, what is learned from is of one size, and each system lasts as long as it is said.
    #[test]
    fn random_systems_change_under_way_and_their_rewards_are_alike() {
        let mec = MecParams::with_users(2);
        let settings = RunSettings {
            mec,
            envs: 40,
            worlds: Worlds::Random,
            world_slots: 7,
            sees: Sees::World,
            ..RunSettings::default()
        };
        let mut collector = Collector::new(&settings, 9);
        let now = |collector: &Collector| -> Vec<MecParams> {
            collector.envs.blocks().iter().map(|block| block.physics().params).collect()
        };
        let (mut before, mut experience) = (now(&collector), Experience::default());
        let middle = vec![0.5; collector.envs() * collector.actions()];
        for slot in 1..=30 {
            collector.step(&middle, &mut experience);
            let after = now(&collector);
            let changed = before.iter().zip(&after).filter(|(a, b)| a != b).count();
            assert_eq!(changed, if slot % 7 == 0 { after.len() } else { 0 }, "{slot}");
            assert!(after.iter().all(|params| params.users == 2 && params.horizon == mec.horizon));
            before = after;
        }
        let mean = experience.mean_reward();
        assert!(
            experience.rewards.iter().all(|share| (0.0..=2.0).contains(share)) && (0.05..0.95).contains(&mean),
            "{mean}"
        );
        // Without a system's change nothing of a slot differs from what the run's own gives.
        let own = RunSettings { worlds: Worlds::Fixed, ..settings };
        assert!(Collector::new(&own, 9).envs.blocks().iter().all(|block| block.physics().params == mec));
    }

    #[test]
    fn the_same_seed_gives_the_same_experience_on_any_number_of_threads() {
        for variant in Variant::ALL {
            for cells in [Cells::Own, Cells::Sets, Cells::Random] {
                let one = lived(1, variant, cells);
                for threads in [2, 3] {
                    let more = lived(threads, variant, cells);
                    assert_eq!(one.features, more.features, "{variant:?}");
                    assert_eq!(one.next_features, more.next_features);
                    assert_eq!((one.rewards.as_slice(), &one.broken), (more.rewards.as_slice(), &more.broken));
                    assert_eq!(one.truncated, more.truncated);
                }
                // Rows follow one another: what comes next is what the next decision sees, but for a time limit.
                let envs = one.rewards.len() / 20;
                let width = one.features.len() / one.rewards.len();
                for row in 0..one.rewards.len() - envs {
                    let next = &one.features[(row + envs) * width..(row + envs + 1) * width];
                    let told = &one.next_features[row * width..(row + 1) * width];
                    assert_eq!(next == told, !one.truncated[row], "{variant:?} {row}");
                }
            }
        }
    }
}
