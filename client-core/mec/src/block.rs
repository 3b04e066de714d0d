//! Several cells stepped together, as a structure of arrays: each quantity of a user is an array over [`LANES`] cells, so
//! that the compiler computes several cells with every instruction.
//!
//! The equations are the same functions as in [`World`], in the same order and in `f64`, and every cell has its own random
//! stream: a block gives bit for bit what as many worlds give (see the tests), whoever shares the block. Random draws and
//! logarithms remain one after the other.

use rand_distr::{Distribution, StandardNormal};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::channel::{self, Position, Scatter};
use super::cost::{self, Violations};
use super::params::{MAX_USERS, MecParams, Physics, ServerShare, Variant};
use super::qos::{self, Quality};
use super::slot::{SlotTotals, UserDecision, UserOutcome};
use super::task;
use super::world::{SnapshotError, UserObservation, UserState, World, WorldSnapshot};

/// What one environment gave for a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepResult {
    /// The slot's sums, reward included.
    pub totals: SlotTotals,
    /// The time limit was reached: bootstrap from the next observation, then
    /// [`VecEnv::reset_truncated`](super::VecEnv::reset_truncated).
    pub truncated: bool,
}

/// Cells in a block.
pub const LANES: usize = 8;

/// One number for each cell of a block.
type Lanes = [f64; LANES];

/// A user of every cell. Lanes without a cell hold zeros, and what they compute is never looked at.
#[derive(Clone, Copy, Debug, Default)]
struct UserLanes {
    // State.
    position: [Position; LANES],
    goal: [Position; LANES],
    held: [bool; LANES],
    level: [usize; LANES],
    pinned_size_bits: [Option<f64>; LANES],
    scatter_re: Lanes,
    scatter_im: Lanes,
    difficulty: Lanes,
    // What drives it into the next slot.
    fresh_re: Lanes,
    fresh_im: Lanes,
    fresh_difficulty: Lanes,
    // The present slot, and what is seen of the last one.
    path_gain: Lanes,
    gain: Lanes,
    size_bits: Lanes,
    accuracy_local: Lanes,
    hallucination_local: Lanes,
    accuracy_server: Lanes,
    hallucination_server: Lanes,
    seen_gain: Lanes,
    seen_size_bits: Lanes,
    // What was decided in the last slot, and what it gave.
    alpha: Lanes,
    power_w: Lanes,
    received_w: Lanes,
    rate_bps: Lanes,
    local_s: Lanes,
    uplink_s: Lanes,
    server_s: Lanes,
    latency_s: Lanes,
    local_j: Lanes,
    uplink_j: Lanes,
    accuracy: Lanes,
    hallucination: Lanes,
    work_cycles: Lanes,
}

/// Up to [`LANES`] cells with the same parameters.
#[derive(Clone, Debug)]
pub struct CellBlock {
    physics: Physics,
    /// An entry a cell: of its own stream, and of the one that policies draw from.
    rngs: Vec<(Xoshiro256PlusPlus, Xoshiro256PlusPlus)>,
    users: Vec<UserLanes>,
    totals: [SlotTotals; LANES],
    backlog_s: Lanes,
    slot_index: [usize; LANES],
}

impl CellBlock {
    /// The cells that snapshots were taken of, at most [`LANES`]; `params` are the ones that they had then.
    ///
    /// # Errors
    /// When a cell has another number of users than the parameters.
    ///
    /// # Panics
    /// If there are more snapshots than lanes.
    pub fn restore(params: MecParams, snapshots: Vec<WorldSnapshot>) -> Result<Self, SnapshotError> {
        assert!(snapshots.len() <= LANES, "at most {LANES} cells");
        let mut block = Self {
            physics: params.physics(),
            rngs: Vec::with_capacity(snapshots.len()),
            users: vec![UserLanes::default(); params.users.min(MAX_USERS)],
            totals: [SlotTotals::default(); LANES],
            backlog_s: [0.0; LANES],
            slot_index: [0; LANES],
        };
        for (cell, snapshot) in snapshots.into_iter().enumerate() {
            snapshot.check(&params)?;
            block.rngs.push((snapshot.rng.clone(), snapshot.policy_rng.clone()));
            block.set(cell, &snapshot);
        }
        block.refresh();
        Ok(block)
    }

    /// Cells.
    pub fn len(&self) -> usize {
        self.rngs.len()
    }

    /// Whether there is no cell.
    pub fn is_empty(&self) -> bool {
        self.rngs.is_empty()
    }

    /// Users in each cell.
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// The parameters in linear units.
    pub fn physics(&self) -> &Physics {
        &self.physics
    }

    /// Puts the cells into another system, from their present slot on: somebody moves a slider.
    ///
    /// # Panics
    /// If that has another number of users.
    pub fn set_params(&mut self, params: MecParams) {
        *self = Self::restore(params, self.snapshots().collect()).expect("as many users as before");
    }

    /// Puts a snapshot into a lane, but for its random streams and for what [`CellBlock::refresh`] recomputes.
    fn set(&mut self, cell: usize, snapshot: &WorldSnapshot) {
        for (k, user) in self.users.iter_mut().enumerate() {
            user.set_state(cell, &self.physics, &snapshot.states[k]);
            (user.seen_size_bits[cell], user.seen_gain[cell]) = snapshot.seen[k];
            (user.alpha[cell], user.power_w[cell]) = (snapshot.decisions[k].alpha, snapshot.decisions[k].power_w);
            user.set_outcome(cell, &snapshot.outcomes[k]);
        }
        self.totals[cell] = snapshot.totals;
        self.backlog_s[cell] = snapshot.backlog_s;
        self.slot_index[cell] = snapshot.slot_index;
    }

    /// What [`CellBlock::restore`] needs to go on from here, a snapshot a cell.
    pub fn snapshots(&self) -> impl Iterator<Item = WorldSnapshot> + '_ {
        (0..self.len()).map(|cell| self.snapshot(cell))
    }

    fn snapshot(&self, cell: usize) -> WorldSnapshot {
        let (rng, policy_rng) = self.rngs[cell].clone();
        let users = || self.users.iter();
        WorldSnapshot {
            rng,
            policy_rng,
            states: users().map(|user| user.state(cell)).collect(),
            seen: users().map(|user| (user.seen_size_bits[cell], user.seen_gain[cell])).collect(),
            decisions: users().map(|user| user.decision(cell)).collect(),
            outcomes: users().map(|user| user.outcome(cell)).collect(),
            totals: self.totals[cell],
            backlog_s: self.backlog_s[cell],
            slot_index: self.slot_index[cell],
        }
    }

    /// All observations, cell after cell, `users()` entries each.
    ///
    /// # Panics
    /// If `out` has another length.
    pub fn observe(&self, out: &mut [UserObservation]) {
        assert_eq!(out.len(), self.len() * self.users(), "one entry a user and cell");
        let delayed = self.physics.params.variant == Variant::Delayed;
        let count = self.users().max(1);
        for (k, user) in self.users.iter().enumerate() {
            let (sizes, gains) =
                if delayed { (&user.seen_size_bits, &user.seen_gain) } else { (&user.size_bits, &user.gain) };
            for (cell, out) in out.iter_mut().skip(k).step_by(count).enumerate() {
                *out = UserObservation {
                    alpha: user.alpha[cell],
                    power_w: user.power_w[cell],
                    accuracy: user.accuracy[cell],
                    hallucination: user.hallucination[cell],
                    latency_s: user.latency_s[cell],
                    size_bits: sizes[cell],
                    gain: gains[cell],
                };
            }
        }
    }

    /// What the last slot gave a user of a cell.
    ///
    /// # Panics
    /// If there is no such cell or user.
    pub fn outcome(&self, cell: usize, user: usize) -> UserOutcome {
        self.users[user].outcome(cell)
    }

    /// Whether the last slot of a cell's episode was carried out.
    ///
    /// # Panics
    /// If there is no such cell.
    pub fn is_truncated(&self, cell: usize) -> bool {
        self.slot_index[cell] >= self.physics.params.horizon
    }

    /// Carries out one decision a user and cell, in the order of [`CellBlock::observe`], and moves every cell on to its
    /// next slot. Decisions are clamped to what is allowed. Writes an entry a cell.
    ///
    /// # Panics
    /// If a slice has another length.
    pub fn step(&mut self, decisions: &[UserDecision], results: &mut [StepResult]) {
        let (cells, count) = (self.len(), self.users());
        assert!(decisions.len() == cells * count && results.len() == cells, "one decision a user and cell");
        for (k, user) in self.users.iter_mut().enumerate() {
            for (cell, decision) in decisions.iter().skip(k).step_by(count.max(1)).enumerate() {
                let allowed = decision.clamped(self.physics.p_max_w);
                (user.alpha[cell], user.power_w[cell]) = (allowed.alpha, allowed.power_w);
            }
        }
        self.evaluate();
        let params = self.physics.params;
        if params.variant == Variant::Backlog {
            for (backlog_s, totals) in self.backlog_s.iter_mut().zip(&self.totals) {
                let work_s = totals.work_cycles / params.server_hz;
                *backlog_s = (*backlog_s + work_s - params.slot_s).max(0.0);
            }
        }
        if params.variant == Variant::Delayed {
            for user in &mut self.users {
                (user.seen_size_bits, user.seen_gain) = (user.size_bits, user.gain);
            }
        }
        self.advance();
        self.refresh();
        for (cell, result) in results.iter_mut().enumerate() {
            self.slot_index[cell] += 1;
            *result = StepResult { totals: self.totals[cell], truncated: self.is_truncated(cell) };
        }
    }

    /// [`super::slot::evaluate`] for every cell.
    // By index: one lane of a dozen arrays at a time reads worse as a dozen zipped iterators.
    #[allow(clippy::needless_range_loop)]
    fn evaluate(&mut self) {
        let (physics, cells) = (&self.physics, self.rngs.len());
        let (params, count) = (&physics.params, self.users.len());
        let mut work_sum: Lanes = [0.0; LANES];
        for user in &mut self.users {
            for i in 0..LANES {
                user.received_w[i] = user.power_w[i] * user.gain[i];
                user.work_cycles[i] = cost::server_work_cycles(params, user.alpha[i], user.size_bits[i]);
                work_sum[i] += user.work_cycles[i];
            }
        }
        let [mut latency_sum_s, mut energy_sum_j, mut accuracy_sum, mut hallucination_sum]: [Lanes; 4] =
            [[0.0; LANES]; 4];
        for k in 0..count {
            let mut interference_w: Lanes = [0.0; LANES];
            for (_, other) in self.users.iter().enumerate().filter(|(l, _)| *l != k) {
                for i in 0..LANES {
                    interference_w[i] += other.received_w[i];
                }
            }
            let user = &mut self.users[k];
            for i in 0..cells {
                user.rate_bps[i] = cost::rate_bps(physics, user.received_w[i], interference_w[i]);
            }
            for i in 0..LANES {
                let (alpha, bits) = (user.alpha[i], user.size_bits[i]);
                let work = if params.server_share == ServerShare::Load { work_sum[i] } else { user.work_cycles[i] };
                let wait_s = work / physics.server_hz_each + self.backlog_s[i];
                user.server_s[i] = if user.work_cycles[i] > 0.0 { wait_s } else { 0.0 };
                user.uplink_s[i] = cost::uplink_latency_s(alpha, bits, user.rate_bps[i]);
                user.local_s[i] = cost::local_latency_s(params, alpha, bits);
                user.latency_s[i] = cost::latency_s(user.local_s[i], user.uplink_s[i], user.server_s[i]);
                user.local_j[i] = cost::local_energy_j(params, alpha, bits);
                user.uplink_j[i] = user.power_w[i] * user.uplink_s[i]; // (21)
                user.accuracy[i] = qos::mixed(alpha, user.accuracy_local[i], user.accuracy_server[i]);
                user.hallucination[i] = qos::mixed(alpha, user.hallucination_local[i], user.hallucination_server[i]);
            }
            for i in 0..LANES {
                latency_sum_s[i] += user.latency_s[i];
                energy_sum_j[i] += user.local_j[i] + user.uplink_j[i];
                accuracy_sum[i] += user.accuracy[i];
                hallucination_sum[i] += user.hallucination[i];
            }
        }
        for i in 0..LANES {
            let violations = Violations::pooled(params, count, accuracy_sum[i], hallucination_sum[i], energy_sum_j[i]);
            let penalty = violations.total();
            self.totals[i] = SlotTotals {
                latency_sum_s: latency_sum_s[i],
                energy_sum_j: energy_sum_j[i],
                violations,
                penalty,
                reward: cost::reward(params, latency_sum_s[i], penalty),
                work_cycles: work_sum[i],
            };
        }
    }

    /// Moves the users' states on: first what is drawn, cell after cell and in the order of [`World`], then the rest.
    #[allow(clippy::needless_range_loop)]
    fn advance(&mut self) {
        let (physics, params) = (&self.physics, &self.physics.params);
        for (cell, (rng, _)) in self.rngs.iter_mut().enumerate() {
            for user in &mut self.users {
                user.draw(cell, physics, rng);
            }
        }
        if params.variant == Variant::Iid {
            return;
        }
        for user in &mut self.users {
            for i in 0..LANES {
                let scatter = Scatter { re: user.scatter_re[i], im: user.scatter_im[i] };
                let innovation = Scatter { re: user.fresh_re[i], im: user.fresh_im[i] };
                let next = scatter.next(params.fading_rho, innovation);
                (user.scatter_re[i], user.scatter_im[i]) = (next.re, next.im);
                user.difficulty[i] = qos::next_difficulty(params, user.difficulty[i], user.fresh_difficulty[i]);
            }
        }
    }

    /// Recomputes what follows from the users' states.
    #[allow(clippy::needless_range_loop)]
    fn refresh(&mut self) {
        let physics = &self.physics;
        for user in &mut self.users {
            for i in 0..LANES {
                let scatter = Scatter { re: user.scatter_re[i], im: user.scatter_im[i] };
                user.gain[i] = user.path_gain[i] * channel::rician_gain(physics, scatter);
                let quality = Quality::at_difficulty(&physics.params, user.difficulty[i]);
                user.accuracy_local[i] = quality.accuracy_local;
                user.hallucination_local[i] = quality.hallucination_local;
                user.accuracy_server[i] = quality.accuracy_server;
                user.hallucination_server[i] = quality.hallucination_server;
            }
        }
    }

    /// Starts the next episode in every cell whose time limit was reached.
    pub fn reset_truncated(&mut self) {
        let mut any = false;
        for cell in 0..self.len() {
            if self.is_truncated(cell) {
                // Once in an episode: a world knows how.
                if let Ok(mut world) = World::restore(self.physics.params, self.snapshot(cell)) {
                    world.reset();
                    let snapshot = world.snapshot();
                    self.rngs[cell].0 = snapshot.rng.clone();
                    self.set(cell, &snapshot);
                    any = true;
                }
            }
        }
        if any {
            self.refresh();
        }
    }
}

impl UserLanes {
    fn set_state(&mut self, cell: usize, physics: &Physics, state: &UserState) {
        (self.position[cell], self.goal[cell], self.held[cell]) = (state.position, state.goal, state.held);
        (self.scatter_re[cell], self.scatter_im[cell]) = (state.scatter.re, state.scatter.im);
        self.pinned_size_bits[cell] = state.pinned_size_bits;
        self.difficulty[cell] = state.difficulty;
        self.path_gain[cell] = channel::path_gain(physics, channel::distance_m(physics, state.position));
        self.set_level(cell, &physics.params, state.level);
    }

    fn set_level(&mut self, cell: usize, params: &MecParams, level: usize) {
        self.level[cell] = level;
        self.size_bits[cell] = self.pinned_size_bits[cell].unwrap_or_else(|| task::size_bits(params, level));
    }

    fn state(&self, cell: usize) -> UserState {
        UserState {
            position: self.position[cell],
            goal: self.goal[cell],
            held: self.held[cell],
            scatter: Scatter { re: self.scatter_re[cell], im: self.scatter_im[cell] },
            level: self.level[cell],
            pinned_size_bits: self.pinned_size_bits[cell],
            difficulty: self.difficulty[cell],
        }
    }

    fn decision(&self, cell: usize) -> UserDecision {
        UserDecision { alpha: self.alpha[cell], power_w: self.power_w[cell] }
    }

    fn set_outcome(&mut self, cell: usize, outcome: &UserOutcome) {
        self.rate_bps[cell] = outcome.rate_bps;
        self.local_s[cell] = outcome.local_s;
        self.uplink_s[cell] = outcome.uplink_s;
        self.server_s[cell] = outcome.server_s;
        self.latency_s[cell] = outcome.latency_s;
        self.local_j[cell] = outcome.local_j;
        self.uplink_j[cell] = outcome.uplink_j;
        self.accuracy[cell] = outcome.accuracy;
        self.hallucination[cell] = outcome.hallucination;
        self.work_cycles[cell] = outcome.work_cycles;
    }

    fn outcome(&self, cell: usize) -> UserOutcome {
        UserOutcome {
            rate_bps: self.rate_bps[cell],
            local_s: self.local_s[cell],
            uplink_s: self.uplink_s[cell],
            server_s: self.server_s[cell],
            latency_s: self.latency_s[cell],
            local_j: self.local_j[cell],
            uplink_j: self.uplink_j[cell],
            accuracy: self.accuracy[cell],
            hallucination: self.hallucination[cell],
            work_cycles: self.work_cycles[cell],
        }
    }

    /// Everything random between two slots, in the order in which [`World`] draws it.
    fn draw(&mut self, cell: usize, physics: &Physics, rng: &mut Xoshiro256PlusPlus) {
        let params = &physics.params;
        if params.variant == Variant::Iid {
            if !self.held[cell] {
                self.position[cell] = Position::draw(params.radius_m, rng);
                let distance_m = channel::distance_m(physics, self.position[cell]);
                self.path_gain[cell] = channel::path_gain(physics, distance_m);
            }
            let scatter = Scatter::draw(rng);
            (self.scatter_re[cell], self.scatter_im[cell]) = (scatter.re, scatter.im);
            self.set_level(cell, params, task::draw_level(params, rng));
            self.difficulty[cell] = qos::draw_difficulty(params, rng);
            return;
        }
        let innovation = Scatter::draw(rng);
        (self.fresh_re[cell], self.fresh_im[cell]) = (innovation.re, innovation.im);
        let level = task::next_level(params, self.level[cell], rng);
        if level != self.level[cell] {
            self.set_level(cell, params, level);
        }
        self.fresh_difficulty[cell] = StandardNormal.sample(rng);
        if params.variant == Variant::Mobile && !self.held[cell] {
            let position = self.position[cell].towards(self.goal[cell], params.speed_m_s * params.slot_s);
            self.position[cell] = position;
            self.path_gain[cell] = channel::path_gain(physics, channel::distance_m(physics, position));
            if position == self.goal[cell] {
                self.goal[cell] = Position::draw(params.radius_m, rng);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VecEnv;
    use crate::world::nth_seed;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn blocks_give_bit_for_bit_what_worlds_give() {
        for variant in Variant::ALL {
            for (users, share) in [(1, ServerShare::Full), (2, ServerShare::Load), (10, ServerShare::Equal)] {
                // Two blocks, the second one not full; episodes that end under way.
                let (cells, params) = (LANES + 3, MecParams::with_users(users).with_variant(variant));
                let params = MecParams { horizon: 9, server_share: share, speed_m_s: 20.0, ..params };
                let mut worlds: Vec<World> = (0..cells).map(|i| World::new(params, nth_seed(7, i as u64))).collect();
                let mut envs = VecEnv::new(params, cells, 7);
                let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
                let mut seen = vec![UserObservation::default(); cells * users];
                for slot in 0..40 {
                    let mut draw = || {
                        // Beyond the limits too, and exactly all local.
                        let alpha = if rng.random::<f64>() < 0.2 { 0.0 } else { rng.random_range(-0.2..1.2) };
                        UserDecision { alpha, power_w: rng.random_range(-0.1..2.5) }
                    };
                    let decisions: Vec<UserDecision> = (0..cells * users).map(|_| draw()).collect();
                    let results = envs.step(&decisions).to_vec();
                    for ((world, decisions), result) in worlds.iter_mut().zip(decisions.chunks(users)).zip(results) {
                        assert_eq!(world.step(decisions), result.totals, "{variant:?} {users} {slot}");
                        assert_eq!(world.is_truncated(), result.truncated);
                        if result.truncated {
                            world.reset();
                        }
                    }
                    envs.reset_truncated();
                    envs.observe(&mut seen);
                    let expected: Vec<_> = worlds.iter().flat_map(World::observation).collect();
                    assert_eq!(seen, expected, "{variant:?} {users} {slot}");
                    for (i, world) in worlds.iter().enumerate() {
                        let block = &envs.blocks()[i / LANES];
                        let outcomes: Vec<_> = (0..users).map(|k| block.outcome(i % LANES, k)).collect();
                        assert_eq!(outcomes, world.last_outcomes());
                    }
                }
            }
        }
    }
}
