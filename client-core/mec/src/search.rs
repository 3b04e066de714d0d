//! The search behind [`super::oracle`], which says how it goes.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::alpha::{Ratios, ServerLoad};
use super::cost;
use super::params::{MAX_USERS, Physics, db_to_ratio};
use super::slot::{SlotTotals, UserDecision, UserOutcome, UserSlot, evaluate};

/// How hard to search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OracleEffort {
    /// Narrow only the best few of the starting points: within 1e-4 of [`OracleEffort::Thorough`] nearly always.
    #[default]
    Usual,
    /// Narrow many starting points, and as many random ones.
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

/// Where a search begins: powers, and who may not offload at all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Start {
    power_w: [f64; MAX_USERS],
    kept_local: u32,
}

/// Powers with the best ratios for them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub(super) start: Start,
    alpha: [f64; MAX_USERS],
    cost_s: f64,
    energy_binds: bool,
}

/// First steps of a search from nothing, and where its halves end: below it the reward no longer changes in its sixth digit.
const COARSE_DB: (f64, f64) = (6.0, 0.7);
const FINE_DB: (f64, f64) = (0.7, 2e-3);
/// How much softer everybody is tried where energy binds.
const SOFTER_DB: [f64; 9] = [-2.0, -4.0, -7.0, -10.0, -15.0, -20.0, -30.0, -45.0, -60.0];
/// How much over the others each is tried.
const FAVOURED_DB: [f64; 2] = [4.0, 10.0];
/// Up to so many users all sets of them are tried.
const ALL_SETS: usize = 5;
/// Starting points that are narrowed coarsely, and how many of those finely.
const NARROWED: (usize, usize) = (8, 3);
/// Steps of one width go on as long as a sweep brings this share of the cost, and for so many sweeps.
const WORTH_IT: f64 = 1e-7;
const SWEEPS: usize = 12;
/// A user is let in again at these levels over the average received power.
const LET_IN_DB: [f64; 2] = [0.0, -10.0];

/// How powers are shaped before they are scaled.
#[derive(Clone, Copy, Debug)]
enum PowerShape {
    EqualReceived,
    EqualSent,
    /// Received power by the root of the task's size, which is best where rates are low.
    BySize,
}

const POWER_SHAPES: [PowerShape; 3] = [PowerShape::EqualReceived, PowerShape::EqualSent, PowerShape::BySize];

/// The best starting point of each kind: who sends, and who offloads nothing, a part or all.
#[derive(Clone, Debug, Default)]
struct Starts(BTreeMap<u128, Point>);

// Sets of users are the bits of a number.
const _: () = assert!(MAX_USERS == u32::BITS as usize);

impl Starts {
    fn add(&mut self, point: &Point) {
        // Six kinds a user.
        let mut kind = 0u128;
        for (power, alpha) in point.start.power_w.iter().zip(point.alpha) {
            let part = if alpha < 0.01 { 0 } else { 1 + u128::from(alpha > 0.99) };
            kind = 6 * kind + 3 * u128::from(*power > 0.0) + part;
        }
        let best = self.0.entry(kind).or_insert(*point);
        if point.cost_s < best.cost_s {
            *best = *point;
        }
    }
}

pub(super) struct Search<'a> {
    physics: &'a Physics,
    users: &'a [UserSlot],
    wait_s: f64,
    ratios: Ratios,
    pub(super) best: Point,
    rng: Xoshiro256PlusPlus,
}

impl<'a> Search<'a> {
    pub(super) fn new(physics: &'a Physics, users: &'a [UserSlot], load: ServerLoad) -> Self {
        Self {
            physics,
            users,
            wait_s: load.wait_s,
            ratios: Ratios::new(physics, users, load, true),
            best: Point {
                start: Start::default(),
                alpha: [0.0; MAX_USERS],
                cost_s: f64::INFINITY,
                energy_binds: false,
            },
            // Equal slots give equal answers.
            rng: Xoshiro256PlusPlus::seed_from_u64(1),
        }
    }

    pub(super) fn found(&self) -> Optimum {
        let decide = |k: usize| UserDecision {
            alpha: self.best.alpha[k],
            // Who offloads nothing needs no power, and others hear it.
            power_w: if self.best.alpha[k] > 0.0 { self.best.start.power_w[k] } else { 0.0 },
        };
        let decisions: Vec<UserDecision> = (0..self.users.len()).map(decide).collect();
        let mut outcomes = [UserOutcome::default(); MAX_USERS];
        let outcomes = &mut outcomes[..decisions.len()];
        let totals = evaluate(self.physics, self.users, self.wait_s, &decisions, outcomes);
        Optimum { decisions, totals }
    }

    /// The best ratios at the given powers. The best point so far is remembered.
    pub(super) fn evaluate_start(&mut self, start: Start) -> Point {
        self.set_uplinks(&start);
        let mut alpha = [0.0; MAX_USERS];
        let cost_s = self.ratios.solve(start.kept_local, &mut alpha);
        let point = Point { start, alpha, cost_s, energy_binds: self.ratios.energy_binds };
        if cost_s < self.best.cost_s {
            self.best = point;
        }
        point
    }

    fn set_uplinks(&mut self, start: &Start) {
        let count = self.users.len();
        let heard = |k: usize| start.power_w[k] * self.users[k].gain;
        for k in 0..count {
            let interference = (0..count).filter(|l| *l != k).map(heard).sum();
            let rate_bps = cost::rate_bps(self.physics, heard(k), interference);
            self.ratios.set_uplink(k, rate_bps, start.power_w[k]);
        }
    }

    /// Scales all powers until, at the given ratios, the energy or the loudest power meets its limit. `None` where no
    /// power does.
    fn tightened(&mut self, mut start: Start, alpha: &[f64; MAX_USERS]) -> Option<Start> {
        for _ in 0..4 {
            self.set_uplinks(&start);
            let (spare_j, taken_j) = self.ratios.uplink_energy_j(&alpha[..self.users.len()]);
            let top = start.power_w.iter().copied().fold(0.0, f64::max);
            let by = (spare_j / taken_j).min(self.physics.p_max_w / top);
            if !(by.is_finite() && by > 0.0) {
                return None;
            }
            start.power_w.iter_mut().for_each(|power| *power = (*power * by).min(self.physics.p_max_w));
        }
        Some(start)
    }

    /// Powers of a shape for the users in a set, the loudest at P_max.
    fn shaped(&self, shape: PowerShape, senders: u32) -> Start {
        let mut power_w = [0.0; MAX_USERS];
        for (k, user) in self.users.iter().enumerate().filter(|(k, _)| (senders >> k) & 1 == 1) {
            power_w[k] = match shape {
                PowerShape::EqualReceived => 1.0 / user.gain,
                PowerShape::EqualSent => 1.0,
                PowerShape::BySize => user.size_bits.sqrt() / user.gain,
            };
        }
        let mut start = Start { power_w, kept_local: 0 };
        self.scale_up(&mut start);
        start
    }

    /// Scales all powers until the loudest is at P_max.
    fn scale_up(&self, start: &mut Start) {
        let top = start.power_w.iter().copied().fold(0.0, f64::max);
        if top > 0.0 {
            let by = self.physics.p_max_w / top;
            start.power_w.iter_mut().for_each(|power| *power = (*power * by).min(self.physics.p_max_w));
        }
    }

    pub(super) fn run(&mut self, effort: OracleEffort) {
        let count = self.users.len();
        if count == 0 {
            return;
        }
        let mut starts = self.starts().0.into_values().collect::<Vec<Point>>();
        starts.sort_unstable_by(|a, b| a.cost_s.total_cmp(&b.cost_s));
        let (mut coarse, mut fine) = NARROWED;
        if effort == OracleEffort::Thorough {
            (coarse, fine) = (60, 20);
            for _ in 0..60 {
                let mut power_w = [0.0; MAX_USERS];
                for (power, user) in power_w.iter_mut().zip(self.users) {
                    if self.rng.random_bool(0.7) {
                        *power = db_to_ratio(self.rng.random_range(-20.0..20.0)) / user.gain;
                    }
                }
                let mut start = Start { power_w, kept_local: 0 };
                self.scale_up(&mut start);
                let point = self.evaluate_start(start);
                starts.insert(coarse.min(starts.len()), point);
            }
            coarse += 60;
        }
        starts.truncate(coarse);
        for point in &mut starts {
            *point = self.narrow(*point, COARSE_DB, 0);
        }
        starts.sort_unstable_by(|a, b| a.cost_s.total_cmp(&b.cost_s));
        starts.dedup_by(|a, b| (a.cost_s - b.cost_s).abs() < 1e-6 * b.cost_s);
        for point in starts.iter().take(fine) {
            self.narrow(*point, FINE_DB, 0);
        }
        self.flip_users();
        let directions = if effort == OracleEffort::Thorough { 20 } else { 3 } * count;
        self.narrow(self.best, FINE_DB, directions);
    }

    /// From an answer to a similar problem.
    pub(super) fn run_near(&mut self, start: &Start) {
        let point = self.evaluate_start(*start);
        self.evaluate_start(Start::default());
        self.narrow(point, (0.25, FINE_DB.1), 0);
    }

    /// Evaluates powers of every shape for many sets of senders.
    fn starts(&mut self) -> Starts {
        let count = self.users.len();
        let everybody = u32::MAX >> (MAX_USERS - count);
        let mut found = Starts::default();
        found.add(&self.evaluate_start(Start::default()));
        for shape in POWER_SHAPES {
            if count <= ALL_SETS {
                for senders in 1..=everybody {
                    let plain = self.evaluate_shape(shape, senders, &mut found);
                    self.favour_each(shape, &plain, &mut found);
                }
                continue;
            }
            // Who is missed least falls silent, one after the other; and from silence, who brings most is let in.
            for from in [everybody, 0] {
                let mut senders = from;
                if from == everybody {
                    let plain = self.evaluate_shape(shape, senders, &mut found);
                    self.favour_each(shape, &plain, &mut found);
                }
                loop {
                    let mut least: Option<(Point, u32)> = None;
                    for k in (0..count).filter(|k| (senders ^ from) >> k & 1 == 0) {
                        let next = senders ^ (1 << k);
                        let point = self.evaluate_shape(shape, next, &mut found);
                        if next != 0 && least.is_none_or(|(least, _)| point.cost_s < least.cost_s) {
                            least = Some((point, next));
                        }
                    }
                    let Some((point, next)) = least else { break };
                    self.favour_each(shape, &point, &mut found);
                    senders = next;
                }
            }
        }
        found
    }

    /// Evaluates powers of a shape for some users, as loud as possible and, where energy binds, softer. Returns the best.
    fn evaluate_shape(&mut self, shape: PowerShape, senders: u32, found: &mut Starts) -> Point {
        let mut best = self.evaluate_start(self.shaped(shape, senders));
        found.add(&best);
        if best.energy_binds {
            let loud = best.start;
            for softer_db in SOFTER_DB {
                let mut softer = loud;
                let by = db_to_ratio(softer_db);
                softer.power_w.iter_mut().for_each(|power| *power *= by);
                let point = self.evaluate_start(softer);
                found.add(&point);
                if point.cost_s < best.cost_s {
                    best = point;
                }
            }
        }
        best
    }

    /// Evaluates the same powers with each sender in turn over the others: it decides whose quality is bought.
    fn favour_each(&mut self, shape: PowerShape, plain: &Point, found: &mut Starts) {
        let sending = plain.start.power_w.iter().filter(|power| **power > 0.0).count();
        if sending < 2 || matches!(shape, PowerShape::EqualSent) {
            return;
        }
        for k in 0..self.users.len() {
            for over_db in FAVOURED_DB {
                let mut start = plain.start;
                start.power_w[k] *= db_to_ratio(over_db);
                if start.power_w[k] == 0.0 {
                    break;
                }
                if !self.saves_energy(plain) || start.power_w[k] > self.physics.p_max_w {
                    self.scale_up(&mut start);
                }
                let point = self.evaluate_start(start);
                found.add(&point);
            }
        }
    }

    /// Pattern search over the powers of those who send, with so many random directions beside the axes.
    fn narrow(&mut self, mut at: Point, (first_db, last_db): (f64, f64), directions: usize) -> Point {
        let count = self.users.len();
        let sending = at.start.power_w[..count].iter().filter(|power| **power > 0.0).count();
        if sending == 0 || (sending == 1 && !self.saves_energy(&at)) {
            return at;
        }
        let mut step_db = first_db;
        let mut sweeps = 0;
        while step_db > last_db {
            let before = at;
            let louder = db_to_ratio(step_db);
            if self.saves_energy(&at) {
                self.step(&mut at, |_| louder);
            }
            for k in 0..count {
                if at.start.power_w[k] > 0.0 {
                    self.step(&mut at, |l| if l == k { louder } else { 1.0 });
                }
            }
            if before.cost_s > at.cost_s {
                // As far again.
                let mut ratio = [1.0; MAX_USERS];
                for ((ratio, now), then) in ratio.iter_mut().zip(at.start.power_w).zip(before.start.power_w) {
                    *ratio = if then > 0.0 { now / then } else { 1.0 };
                }
                self.step(&mut at, |l| ratio[l]);
            }
            for _ in 0..directions {
                let mut ratio = [1.0; MAX_USERS];
                for ratio in &mut ratio[..count] {
                    *ratio = db_to_ratio(2.0 * step_db * self.rng.random_range(-1.0..1.0));
                }
                self.step(&mut at, |l| ratio[l]);
            }
            sweeps += 1;
            if at.cost_s >= before.cost_s * (1.0 - WORTH_IT) || sweeps == SWEEPS {
                (step_db, sweeps) = (0.5 * step_db, 0);
            }
        }
        at
    }

    /// Whether it may be better here not to be as loud as possible.
    fn saves_energy(&self, at: &Point) -> bool {
        at.energy_binds || at.start.power_w.iter().all(|power| *power < 0.999 * self.physics.p_max_w)
    }

    /// Multiplies powers by the ratios, or by their inverses, as long as that gets better.
    fn step(&mut self, at: &mut Point, ratio: impl Fn(usize) -> f64) {
        for forth in [true, false] {
            let mut moved = false;
            for _ in 0..4 {
                let mut next = at.start;
                for (k, power) in next.power_w.iter_mut().enumerate().take(self.users.len()) {
                    *power *= if forth { ratio(k) } else { 1.0 / ratio(k) };
                }
                let saves = self.saves_energy(at);
                if !saves || next.power_w.iter().any(|power| *power > self.physics.p_max_w) {
                    self.scale_up(&mut next);
                }
                let mut point = self.evaluate_start(next);
                if saves && point.cost_s >= at.cost_s {
                    // Along the limit of energy.
                    if let Some(tight) = self.tightened(next, &at.alpha) {
                        point = self.evaluate_start(tight);
                    }
                }
                if point.cost_s >= at.cost_s {
                    break;
                }
                (*at, moved) = (point, true);
            }
            if moved {
                return;
            }
        }
    }

    /// Silences users, lets them in again, takes them out of the queue or back into it, as long as it pays.
    fn flip_users(&mut self) {
        let count = self.users.len();
        for _ in 0..2 * count {
            let before = self.best;
            for k in 0..count {
                let now = self.best;
                let kept = (now.start.kept_local >> k) & 1 == 1;
                let mut tries = Vec::new();
                if now.start.power_w[k] > 0.0 {
                    let mut start = now.start;
                    start.power_w[k] = 0.0;
                    tries.push(start);
                }
                if now.start.power_w[k] > 0.0 {
                    for by_db in [-8.0, 8.0] {
                        let mut start = now.start;
                        start.power_w[k] *= db_to_ratio(by_db);
                        tries.push(start);
                    }
                }
                if self.ratios.may_wait_long() && !kept {
                    let mut start = now.start;
                    start.power_w[k] = 0.0;
                    start.kept_local |= 1 << k;
                    tries.push(start);
                }
                if now.start.power_w[k] == 0.0 || kept {
                    let heard = |l: usize| now.start.power_w[l] * self.users[l].gain;
                    let sending = (0..count).filter(|l| heard(*l) > 0.0).count();
                    let mut level = (0..count).map(heard).sum::<f64>() / sending.max(1) as f64;
                    if sending == 0 {
                        level = self.physics.p_max_w * self.users[k].gain;
                    }
                    for over_db in LET_IN_DB {
                        let mut start = now.start;
                        start.kept_local &= !(1 << k);
                        start.power_w[k] = db_to_ratio(over_db) * level / self.users[k].gain;
                        tries.push(start);
                    }
                }
                for mut start in tries {
                    if !self.saves_energy(&now) || start.power_w.iter().any(|p| *p > self.physics.p_max_w) {
                        self.scale_up(&mut start);
                    }
                    let point = self.evaluate_start(start);
                    let point = self.narrow(point, (3.0, COARSE_DB.1), 0);
                    if point.cost_s <= self.best.cost_s {
                        self.narrow(point, FINE_DB, 0);
                    }
                }
            }
            if self.best.cost_s >= before.cost_s * (1.0 - 1e-7) {
                break;
            }
        }
    }
}
