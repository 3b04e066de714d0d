//! The best decision of one slot, with full knowledge of channel, sizes and quality.
//!
//! For given powers the ratios are found exactly ([`super::alpha`]). Of the powers only the received ones matter, and of
//! those nearly only their ratios, noise being some 80 dB lower; so the search runs over each user's offset in dB from
//! equal received power, scaled until the first user meets P_max. It starts at equal received power and, to leave poor
//! local optima, at each user softer or louder and at several silenced, and narrows a pattern of steps. What the
//! exact ratios do not know (energy, a server shared by load, a backlog longer than a user needs to compute alone) is
//! handled by a second search over everything, on the true reward.
//!
//! Where the actions move the state, [`priced_optimum`] weighs the slot's reward against the server's time that it takes:
//! the step of which [`super::planner`] makes plans.

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::alpha::{ServerLoad, best_alphas};
use super::cost;
use super::params::{MAX_USERS, Physics, ServerShare, db_to_ratio};
use super::slot::{SlotTotals, UserDecision, UserOutcome, UserSlot, evaluate};

/// How hard to search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OracleEffort {
    /// Narrow only the best few of the starting points: within 1e-4 of [`OracleEffort::Thorough`] nearly always.
    #[default]
    Usual,
    /// Narrow every starting point.
    Thorough,
}

/// What the search found.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimum {
    /// The best decision found, one a user.
    pub decisions: Vec<UserDecision>,
    /// What it gives.
    pub totals: SlotTotals,
}

/// A step below this many dB no longer changes the reward in its sixth digit.
const FINEST_STEP_DB: f64 = 2e-3;
/// Starting points that are narrowed by [`OracleEffort::Usual`].
const NARROWED: usize = 8;
/// A user this far below the others is not heard.
const SILENT_DB: f64 = -45.0;
/// Offsets at which each user alone is tried: the reward has several local optima over them.
const SCAN_DB: [f64; 7] = [SILENT_DB, -30.0, -20.0, -10.0, 10.0, 20.0, 30.0];

/// Searches the best decision of a slot.
///
/// # Panics
/// If there are more than [`MAX_USERS`] users.
pub fn optimum(physics: &Physics, users: &[UserSlot], backlog_s: f64, effort: OracleEffort) -> Optimum {
    let mut search = Search::new(physics, users, ServerLoad { wait_s: backlog_s, price: 0.0 });
    search.run(effort);
    Optimum { decisions: search.best[..users.len()].to_vec(), totals: search.best_totals }
}

/// Received powers in dB over equal ones, one a user; what a search found, and where the next one may begin.
pub type OffsetsDb = [f64; MAX_USERS];

/// Searches the decision with the least `1/reward + price·work`, the work in seconds of the server's whole time. Begins
/// at `near` when a similar problem's offsets are known, which is ten times as fast as from nothing.
///
/// # Panics
/// If there are more than [`MAX_USERS`] users.
pub fn priced_optimum(
    physics: &Physics,
    users: &[UserSlot],
    load: ServerLoad,
    near: Option<&OffsetsDb>,
) -> (Optimum, OffsetsDb) {
    let mut search = Search::new(physics, users, load);
    match near {
        Some(offsets_db) => search.run_near(offsets_db),
        None => search.run(OracleEffort::Usual),
    }
    (Optimum { decisions: search.best[..users.len()].to_vec(), totals: search.best_totals }, search.best_offsets_db)
}

/// The best ratios at given offsets, and what they give.
///
/// # Panics
/// If there are more than [`MAX_USERS`] users.
pub fn at_offsets(physics: &Physics, users: &[UserSlot], load: ServerLoad, offsets_db: &OffsetsDb) -> SlotTotals {
    let mut search = Search::new(physics, users, load);
    search.try_offsets(offsets_db);
    search.best_totals
}

/// The powers that put each user `offsets_db` over equal received power, scaled so that the first meets P_max.
pub fn powers_from_offsets(
    physics: &Physics,
    gains: impl Iterator<Item = f64> + Clone,
    offsets_db: &[f64],
    out: &mut [f64],
) {
    let mut scale = f64::INFINITY;
    for ((power, gain), offset) in out.iter_mut().zip(gains).zip(offsets_db) {
        *power = db_to_ratio(*offset) / gain;
        scale = scale.min(physics.p_max_w / *power);
    }
    for power in out.iter_mut() {
        *power = (*power * scale).min(physics.p_max_w);
    }
}

struct Search<'a> {
    physics: &'a Physics,
    users: &'a [UserSlot],
    load: ServerLoad,
    /// Physics that the exact ratios are computed with: a server shared by load is taken as shared equally there.
    ratio_physics: Physics,
    best: [UserDecision; MAX_USERS],
    best_totals: SlotTotals,
    best_value: f64,
    best_offsets_db: OffsetsDb,
    /// Users who may not offload.
    kept_local: [bool; MAX_USERS],
    outcomes: [UserOutcome; MAX_USERS],
}

impl<'a> Search<'a> {
    fn new(physics: &'a Physics, users: &'a [UserSlot], load: ServerLoad) -> Self {
        assert!(users.len() <= MAX_USERS, "at most {MAX_USERS} users");
        let mut ratio_physics = *physics;
        if physics.params.server_share == ServerShare::Load {
            ratio_physics.server_hz_each /= users.len().max(1) as f64;
        }
        Self {
            physics,
            users,
            load,
            ratio_physics,
            best: [UserDecision::default(); MAX_USERS],
            best_totals: SlotTotals::default(),
            best_value: f64::NEG_INFINITY,
            best_offsets_db: [0.0; MAX_USERS],
            kept_local: [false; MAX_USERS],
            outcomes: [UserOutcome::default(); MAX_USERS],
        }
    }

    /// What is searched for the largest value of: the reward, and with a price the reward of a slot that costs that much
    /// more.
    fn value(&self, totals: &SlotTotals) -> f64 {
        let price = self.load.price / self.physics.params.server_hz;
        if price == 0.0 { totals.reward } else { 1.0 / (1.0 / totals.reward + price * totals.work_cycles) }
    }

    /// The true value of a decision, remembered if it is the best so far.
    fn try_decision(&mut self, decision: &[UserDecision; MAX_USERS]) -> f64 {
        let count = self.users.len();
        let outcomes = &mut self.outcomes[..count];
        let totals = evaluate(self.physics, self.users, self.load.wait_s, &decision[..count], outcomes);
        let value = self.value(&totals);
        if value > self.best_value {
            self.best_value = value;
            self.best_totals = totals;
            self.best = *decision;
        }
        value
    }

    /// The true value at the given offsets with the exact ratios for the rates that they give.
    fn try_offsets(&mut self, offsets_db: &OffsetsDb) -> f64 {
        let count = self.users.len();
        let mut power = [0.0; MAX_USERS];
        let gains = self.users.iter().map(|u| u.gain);
        powers_from_offsets(self.physics, gains, &offsets_db[..count], &mut power[..count]);
        for (power, kept) in power.iter_mut().zip(self.kept_local) {
            if kept {
                *power = 0.0;
            }
        }
        let mut rates = [0.0; MAX_USERS];
        for (k, rate) in rates.iter_mut().enumerate().take(count) {
            let heard = |l: usize| power[l] * self.users[l].gain;
            let interference = (0..count).filter(|l| *l != k).map(heard).sum();
            *rate = cost::rate_bps(self.physics, heard(k), interference);
            if self.kept_local[k] {
                // So hopeless that no ratio of this user is ever bought.
                *rate = 1e-6;
            }
        }
        let mut alpha = [0.0; MAX_USERS];
        best_alphas(&self.ratio_physics, self.users, &rates[..count], self.load, &mut alpha[..count]);
        if self.physics.params.server_share == ServerShare::Load {
            self.settle_load(&rates, &mut alpha);
        }
        let mut decision = [UserDecision::default(); MAX_USERS];
        for k in 0..count {
            let alpha = if self.kept_local[k] { 0.0 } else { alpha[k] };
            decision[k] = UserDecision { alpha, power_w: power[k] };
        }
        let before = self.best_value;
        let mut value = self.try_decision(&decision);
        if self.is_wait_long() {
            value = value.max(self.without_the_queue(decision, value));
        }
        if self.best_value > before {
            self.best_offsets_db = *offsets_db;
        }
        value
    }

    /// Whether the backlog is longer than some user needs to compute all of its task alone. Then a little offloading is
    /// worse than none, which the exact ratios do not know.
    fn is_wait_long(&self) -> bool {
        let params = &self.physics.params;
        self.users.iter().any(|u| self.load.wait_s > cost::local_latency_s(params, 0.0, u.size_bits))
    }

    /// Takes users out of the queue, one after the other, as long as it pays.
    fn without_the_queue(&mut self, mut decision: [UserDecision; MAX_USERS], mut value: f64) -> f64 {
        for k in 0..self.users.len() {
            let alpha = std::mem::take(&mut decision[k].alpha);
            let without = if alpha > 0.0 { self.try_decision(&decision) } else { value };
            if without > value {
                value = without;
            } else {
                decision[k].alpha = alpha;
            }
        }
        value
    }

    /// With a server shared by load everybody waits for everybody's work. Takes that wait as given, finds the best ratios,
    /// and repeats with the wait that they cause.
    fn settle_load(&self, rates_bps: &[f64; MAX_USERS], alpha: &mut [f64; MAX_USERS]) {
        let count = self.users.len();
        let params = &self.physics.params;
        // A wait S that does not depend on a user's own ratio is a rate lowered so that α·X/r' = α·X/r + S at the last α.
        for _ in 0..12 {
            let last = *alpha;
            let work = self.users.iter().zip(last).map(|(u, a)| cost::server_work_cycles(params, a, u.size_bits));
            let wait_s = work.sum::<f64>() / params.server_hz;
            let mut slowed = [0.0; MAX_USERS];
            for (k, user) in self.users.iter().enumerate() {
                // `best_alphas` adds its own share of the server, which is taken out of the wait here.
                let own_s = params.cycles_per_bit * user.size_bits / self.ratio_physics.server_hz_each;
                let extra_s = wait_s / last[k].max(0.05) - own_s;
                slowed[k] = user.size_bits / (user.size_bits / rates_bps[k] + extra_s).max(1e-9);
            }
            best_alphas(&self.ratio_physics, self.users, &slowed[..count], self.load, &mut alpha[..count]);
            for (new, old) in alpha.iter_mut().zip(last) {
                *new = 0.5 * (*new + old);
            }
        }
    }

    fn run(&mut self, effort: OracleEffort) {
        let count = self.users.len();
        if count == 0 {
            return;
        }
        self.run_powers(effort);
        if self.is_wait_long() {
            // Whom to keep out of the queue changes what the others' best powers are: up to four users all the ways, for
            // more each one alone and each one left alone.
            let everybody = (1u32 << count) - 1;
            let ways: Vec<u32> = if count <= 4 {
                (1..everybody).collect()
            } else {
                (0..count).flat_map(|k| [1 << k, everybody & !(1 << k)]).collect()
            };
            for way in ways {
                self.kept_local = std::array::from_fn(|k| (way >> k) & 1 == 1);
                self.run_powers(effort);
            }
            self.kept_local = [false; MAX_USERS];
        }
        let unknown_to_ratios = self.best_totals.violations.energy_j > 0.0
            || self.physics.params.server_share == ServerShare::Load
            || self.is_wait_long();
        if unknown_to_ratios {
            self.narrow_everything();
        }
    }

    /// Searches the powers, the ratios being exact for them.
    fn run_powers(&mut self, effort: OracleEffort) {
        let count = self.users.len();
        let mut starts: Vec<(f64, OffsetsDb)> = Vec::with_capacity((SCAN_DB.len() + 1) * count);
        let equal = [0.0; MAX_USERS];
        starts.push((self.try_offsets(&equal), equal));
        if count > 1 {
            let mut alone: Vec<(f64, usize)> = Vec::with_capacity(count);
            for k in 0..count {
                for offset in SCAN_DB {
                    let mut start = equal;
                    start[k] = offset;
                    let value = self.try_offsets(&start);
                    starts.push((value, start));
                    if offset == SILENT_DB {
                        alone.push((value, k));
                    }
                }
            }
            // With many users it pays to silence several: those who are missed least, one after the other.
            alone.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
            let mut start = equal;
            for (silenced, (_, k)) in alone.iter().enumerate() {
                start[*k] = SILENT_DB;
                if silenced > 0 {
                    starts.push((self.try_offsets(&start), start));
                }
            }
        }
        // Everybody local is a decision too: the one that a hopeless channel asks for.
        self.try_decision(&[UserDecision::default(); MAX_USERS]);
        starts.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        let narrowed = if effort == OracleEffort::Thorough { starts.len() } else { NARROWED };
        for (value, start) in starts.iter().take(narrowed) {
            if count > 1 {
                self.narrow_offsets(*start, *value, 4.0);
            }
        }
    }

    /// From offsets that were best for a similar problem.
    fn run_near(&mut self, offsets_db: &OffsetsDb) {
        let value = self.try_offsets(offsets_db);
        self.try_decision(&[UserDecision::default(); MAX_USERS]);
        if self.users.len() > 1 {
            self.narrow_offsets(*offsets_db, value, 0.25);
        }
    }

    /// Pattern search over the offsets.
    fn narrow_offsets(&mut self, mut at: OffsetsDb, mut value: f64, mut step: f64) {
        let count = self.users.len();
        while step > FINEST_STEP_DB {
            let mut moved = false;
            for k in 0..count {
                for signed in [step, -step] {
                    let mut next = at;
                    next[k] = (next[k] + signed).clamp(-60.0, 60.0);
                    let found = self.try_offsets(&next);
                    if found > value {
                        (at, value, moved) = (next, found, true);
                        break;
                    }
                }
            }
            if !moved {
                step *= 0.5;
            }
        }
    }

    /// Search over ratios and powers (in dB) together, along each axis and along random directions: the kinks of (29) and
    /// (48) leave ridges that no axis follows. The directions come from a fixed seed, so equal slots give equal answers.
    fn narrow_everything(&mut self) {
        let count = self.users.len();
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let mut step = 0.25;
        while step > 1e-5 {
            let before = self.best_value;
            for axis in 0..8 * count {
                let mut direction = [(0.0, 0.0); MAX_USERS];
                if axis < count {
                    direction[axis].0 = 1.0;
                } else if axis < 2 * count {
                    direction[axis - count].1 = 1.0;
                } else {
                    for user in &mut direction[..count] {
                        *user = (rng.random_range(-1.0..1.0), rng.random_range(-1.0..1.0));
                    }
                }
                for signed in [step, -step] {
                    // As far as it goes on getting better.
                    for stride in 1..=32 {
                        let reach = signed * f64::from(stride);
                        let mut next = self.best;
                        for (user, (ratio, power)) in next.iter_mut().zip(direction) {
                            user.alpha = (user.alpha + reach * ratio).clamp(0.0, 1.0);
                            let level = user.power_w * db_to_ratio(20.0 * reach * power);
                            user.power_w = level.min(self.physics.p_max_w);
                        }
                        let best = self.best_value;
                        if self.try_decision(&next) <= best {
                            break;
                        }
                    }
                }
            }
            if self.best_value <= before * (1.0 + 1e-9) {
                step *= 0.5;
            }
        }
    }
}
