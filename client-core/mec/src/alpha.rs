//! The best offloading ratios of all users for given uplink rates, exactly.
//!
//! With rates and powers fixed, (29) makes a user's latency `max(a(1−α), cα + b)` with `a = φX/f`, `c = X/r + φX/F` and the
//! backlog `b`; energy (15), (21) and quality (28) are straight lines in α; and (48) pools all three. So the denominator
//! of (47) is a convex, piecewise linear function of the ratios, and its minimum a linear programme:
//! - Where the server serves each by himself, a user's latency falls by `a` a unit of α up to the balanced ratio
//!   `(a−b)/(a+c)` and rises by `c` after it: two bounded variables a user, one row for each limit that could bind.
//! - Where the server is shared by load ([`ServerShare::Load`]), everybody who offloads waits for everybody's work,
//!   `b = Σ αφX/F`: one more row a user.
//!
//! One thing is not convex: who offloads nothing does not wait. It matters where the wait is longer than all of the
//! task takes on the device. There the programme is solved with the line that joins "nothing" and "all", users who come out
//! at nothing are taken out of it, and it is solved again for the others. [`super::oracle`] tries other ways.

use super::params::{MAX_USERS, Physics, ServerShare};
use super::simplex::{Simplex, VARIABLES};
use super::slot::UserSlot;

/// What offloading meets at the server beside its speed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ServerLoad {
    /// Time before the server begins with this slot's work: the backlog.
    pub wait_s: f64,
    /// Seconds of latency that a second of the server's whole time F is worth, because later slots will wait for it; 0
    /// where the actions do not move the state.
    pub price: f64,
}

/// The three limits of (48).
const LIMITS: usize = 3;
const ENERGY: usize = 2;
/// A ratio below this is none.
const NO_RATIO: f64 = 1e-12;

/// What a user brings to the choice of the ratios.
#[derive(Clone, Copy, Debug, Default)]
struct Terms {
    size_bits: f64,
    /// Latency if all is local, φX/f.
    local_s: f64,
    /// What all of the task takes at the server, φX/F: its own part of F, or all of it where it is shared by load.
    server_s: f64,
    /// Latency if all is offloaded and nobody has to wait; without the server's part where that is shared by load.
    remote_s: f64,
    /// Price of the server's time for all of the task.
    work_price_s: f64,
    /// Energy if all is local.
    local_j: f64,
    /// Gain of accuracy, of (less) hallucination and of (less) energy from offloading all.
    gain: [f64; LIMITS],
}

/// How a user takes part in one solution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Offloads nothing and does not wait.
    Out,
    /// Offloads, and waits.
    In,
    /// Either, by the line between nothing and all.
    Either,
}

/// The ratios of one slot, for one choice of rates after the other.
#[derive(Clone, Debug)]
pub(super) struct Ratios {
    count: usize,
    shared_by_load: bool,
    wait_s: f64,
    omega: f64,
    /// Whether energy counts.
    energy: bool,
    terms: [Terms; MAX_USERS],
    /// What offloading has to bring: the gap to each limit if all stays local.
    need: [f64; LIMITS],
    simplex: Simplex,
    /// Whether the last solution had energy at its limit or over it.
    pub(super) energy_binds: bool,
}

impl Ratios {
    /// # Panics
    /// If there are more than [`MAX_USERS`] users.
    pub(super) fn new(physics: &Physics, users: &[UserSlot], load: ServerLoad, energy: bool) -> Self {
        let count = users.len();
        assert!(count <= MAX_USERS, "at most {MAX_USERS} users");
        let params = &physics.params;
        let mut terms = [Terms::default(); MAX_USERS];
        let pooled = count as f64;
        let mut need = [params.a_min * pooled, -params.h_max * pooled, -params.e_max_j * pooled];
        for (term, user) in terms.iter_mut().zip(users) {
            let quality = &user.quality;
            let cycles = params.cycles_per_bit * user.size_bits;
            let local_j = super::cost::local_energy_j(params, 0.0, user.size_bits);
            *term = Terms {
                size_bits: user.size_bits,
                local_s: cycles / params.device_hz,
                server_s: cycles / physics.server_hz_each,
                remote_s: f64::INFINITY,
                work_price_s: load.price * cycles / params.server_hz,
                local_j,
                gain: [
                    quality.accuracy_server - quality.accuracy_local,
                    quality.hallucination_local - quality.hallucination_server,
                    local_j,
                ],
            };
            need[0] -= quality.accuracy_local;
            need[1] += quality.hallucination_local;
            need[2] += local_j;
        }
        Self {
            count,
            shared_by_load: params.server_share == ServerShare::Load,
            wait_s: load.wait_s,
            omega: params.omega,
            energy,
            terms,
            need,
            simplex: Simplex::new(),
            energy_binds: false,
        }
    }

    /// Whether there may be users for whom a little offloading is worse than none.
    pub(super) fn may_wait_long(&self) -> bool {
        let terms = &self.terms[..self.count];
        let all = if self.shared_by_load { terms.iter().map(|t| t.server_s).sum() } else { 0.0 };
        terms.iter().any(|t| t.local_s < self.wait_s + all)
    }

    /// A user's rate, and the power that it takes.
    pub(super) fn set_uplink(&mut self, user: usize, rate_bps: f64, power_w: f64) {
        let term = &mut self.terms[user];
        let uplink_s = term.size_bits / rate_bps;
        term.remote_s = if self.shared_by_load { uplink_s } else { uplink_s + term.server_s };
        term.gain[ENERGY] = term.local_j - power_w * uplink_s;
    }

    /// How long everybody who offloads waits for others and the backlog.
    fn wait_of(&self, alpha: &[f64]) -> f64 {
        let work = || self.terms.iter().zip(alpha).map(|(term, ratio)| term.server_s * ratio).sum::<f64>();
        self.wait_s + if self.shared_by_load { work() } else { 0.0 }
    }

    /// The energy that uplinks may take at the given ratios, and what they take.
    pub(super) fn uplink_energy_j(&self, alpha: &[f64]) -> (f64, f64) {
        let (mut spare, mut taken) = (-self.need[ENERGY], 0.0);
        for (term, ratio) in self.terms.iter().zip(alpha) {
            spare += term.local_j * ratio;
            taken += (term.local_j - term.gain[ENERGY]) * ratio;
        }
        (spare, taken)
    }

    /// The denominator of (47) at the given ratios, and the price of their work.
    pub(super) fn cost_s(&self, alpha: &[f64]) -> f64 {
        let terms = &self.terms[..self.count];
        let wait_s = self.wait_of(alpha);
        let (mut cost, mut missing) = (0.0, self.need);
        for (term, &ratio) in terms.iter().zip(alpha) {
            let local_s = term.local_s * (1.0 - ratio);
            cost += if ratio > 0.0 { local_s.max(term.remote_s * ratio + wait_s) } else { local_s };
            cost += term.work_price_s * ratio;
            missing.iter_mut().zip(term.gain).for_each(|(missing, gain)| *missing -= gain * ratio);
        }
        if !self.energy {
            missing[ENERGY] = 0.0;
        }
        cost + self.omega * missing.iter().map(|m| m.max(0.0)).sum::<f64>()
    }

    /// Finds the best ratios and returns their [`Ratios::cost_s`]. Users in the set `kept` offload nothing.
    pub(super) fn solve(&mut self, kept: u32, alpha: &mut [f64; MAX_USERS]) -> f64 {
        let mut part = [Part::In; MAX_USERS];
        let mut unsure = false;
        for (k, part) in part.iter_mut().enumerate().take(self.count) {
            if (kept >> k) & 1 == 1 {
                *part = Part::Out;
            } else if !self.shared_by_load && self.terms[k].local_s <= self.wait_s {
                (*part, unsure) = (Part::Either, true);
            }
        }
        self.solve_parts(&part, alpha);
        let mut cost = self.cost_s(&alpha[..self.count]);
        // Who came out at nothing does not wait: what is best for the others without regard to them?
        while unsure || self.shared_by_load {
            let wait_s = self.wait_of(&alpha[..self.count]);
            let before = part;
            for ((part, alpha), term) in part.iter_mut().zip(alpha.iter()).zip(&self.terms).take(self.count) {
                // With a server shared by load the wait may have stopped just where it would touch this user.
                if *part != Part::Out && wait_s >= term.local_s * (1.0 - 1e-9) {
                    *part = if *alpha > NO_RATIO { Part::In } else { Part::Out };
                }
            }
            if part == before {
                break;
            }
            let mut next = *alpha;
            self.solve_parts(&part, &mut next);
            let next_cost = self.cost_s(&next[..self.count]);
            if next_cost >= cost {
                break;
            }
            (cost, *alpha) = (next_cost, next);
        }
        let energy: f64 = self.terms.iter().zip(alpha.iter()).take(self.count).map(|(t, a)| t.gain[ENERGY] * a).sum();
        let need = self.need[ENERGY];
        self.energy_binds = self.energy && energy <= need + 1e-9 * need.abs();
        cost
    }

    fn solve_parts(&mut self, part: &[Part; MAX_USERS], alpha: &mut [f64; MAX_USERS]) {
        if self.shared_by_load { self.solve_shared(part, alpha) } else { self.solve_apart(part, alpha) }
    }

    /// Whether a limit could be broken at some ratios, and the size of its largest gain.
    fn could_bind(&self, limit: usize) -> Option<f64> {
        if self.omega == 0.0 || (limit == ENERGY && !self.energy) {
            return None;
        }
        let gains = || self.terms[..self.count].iter().map(|term| term.gain[limit]);
        let worst = self.need[limit] - gains().map(|gain| gain.min(0.0)).sum::<f64>();
        let scale = gains().fold(0.0, |top: f64, gain| top.max(gain.abs()));
        (worst > 0.0 && scale > 0.0).then_some(scale)
    }

    /// Rows for the limits: gains and what is missing meet the need. `entries` are the columns that are there already, each
    /// with its user, `at` the ratios that it begins at, and `first` the first variable that the rows may take.
    fn limits(&mut self, first: usize, entries: &[(usize, usize)], at: &[f64; MAX_USERS]) {
        let mut rows = [(0, 0.0, 0.0); LIMITS];
        let mut found = 0;
        for limit in 0..LIMITS {
            if let Some(scale) = self.could_bind(limit) {
                let given: f64 = self.terms.iter().zip(at).take(self.count).map(|(t, a)| t.gain[limit] * a).sum();
                rows[found] = (limit, scale, self.need[limit] - given);
                found += 1;
            }
        }
        let simplex = &mut self.simplex;
        // Outside the basis is the surplus where something is missing, and what is missing where nothing is.
        let mut columns = [0; LIMITS];
        for (i, &(_, scale, need)) in rows[..found].iter().enumerate() {
            let missing = need > 0.0;
            let cost = if missing { 0.0 } else { self.omega * scale };
            columns[i] = simplex.column(first + 2 * i + usize::from(missing), cost, f64::INFINITY);
        }
        for (i, &(limit, scale, need)) in rows[..found].iter().enumerate() {
            let missing = need > 0.0;
            let sign = if missing { 1.0 } else { -1.0 } / scale;
            let row = simplex.row(first + 2 * i + usize::from(!missing), need * sign);
            for &(column, user) in entries {
                let gain = self.terms[user].gain[limit] * sign;
                simplex.set(row, column, if simplex.is_flipped(column) { -gain } else { gain });
            }
            simplex.set(row, columns[i], -1.0);
            if missing {
                simplex.charge(row, self.omega * scale);
            }
        }
    }

    /// Each user's ratio as two bounded variables: up to the balanced one, and beyond.
    fn solve_apart(&mut self, part: &[Part; MAX_USERS], alpha: &mut [f64; MAX_USERS]) {
        let mut entries = [(0, 0); 2 * MAX_USERS];
        let mut found = 0;
        let mut at = [0.0; MAX_USERS];
        let constant = self.terms[..self.count].iter().map(|term| term.local_s).sum();
        self.simplex.clear(constant);
        for k in 0..self.count {
            let Terms { local_s, remote_s, work_price_s, .. } = self.terms[k];
            let wait_s = self.wait_s;
            if part[k] == Part::Out {
                continue;
            }
            let mut balanced = 0.0;
            let mut beyond = remote_s + work_price_s;
            if local_s > wait_s {
                balanced = (local_s - wait_s) / (local_s + remote_s);
                let cost = work_price_s - local_s;
                let column = self.simplex.column(2 * k, cost, balanced);
                entries[found] = (column, k);
                found += 1;
                if cost < 0.0 {
                    self.simplex.start_at_upper(column);
                    at[k] = balanced;
                }
            } else if part[k] == Part::Either {
                beyond += wait_s - local_s;
            }
            let column = self.simplex.column(2 * k + 1, beyond, 1.0 - balanced);
            entries[found] = (column, k);
            found += 1;
        }
        self.limits(2 * MAX_USERS, &entries[..found], &at);
        self.simplex.minimise();
        let mut values = [0.0; 2 * MAX_USERS];
        self.simplex.values(&mut values);
        for (alpha, value) in alpha.iter_mut().zip(values.as_chunks::<2>().0).take(self.count) {
            *alpha = (value[0] + value[1]).clamp(0.0, 1.0);
        }
    }

    /// A row for each user who offloads: the time over the local one, `z ≥ cα + Σ αφX/F + b − a(1−α)`.
    fn solve_shared(&mut self, part: &[Part; MAX_USERS], alpha: &mut [f64; MAX_USERS]) {
        let mut entries = [(0, 0); 2 * MAX_USERS];
        let mut found = 0;
        let constant = self.terms[..self.count].iter().map(|term| term.local_s).sum();
        self.simplex.clear(constant);
        let taking = |k: &usize| part[*k] != Part::Out;
        for k in (0..self.count).filter(taking) {
            let term = &self.terms[k];
            let column = self.simplex.column(k, term.work_price_s - term.local_s, 1.0);
            entries[found] = (column, k);
            found += 1;
        }
        let entries = &entries[..found];
        let mut over = [0; MAX_USERS];
        for k in (0..self.count).filter(taking) {
            // All local is where it begins: `z` is 0 and outside, or the wait beyond the local latency and inside.
            let waits = self.wait_s > self.terms[k].local_s;
            let variable = if waits { 2 * MAX_USERS + k } else { MAX_USERS + k };
            over[k] = self.simplex.column(variable, if waits { 0.0 } else { 1.0 }, f64::INFINITY);
        }
        self.limits(3 * MAX_USERS, entries, &[0.0; MAX_USERS]);
        for k in (0..self.count).filter(taking) {
            let term = &self.terms[k];
            let spare_s = term.local_s - self.wait_s;
            let waits = spare_s < 0.0;
            let sign = if waits { -1.0 } else { 1.0 };
            let variable = if waits { MAX_USERS + k } else { 2 * MAX_USERS + k };
            let row = self.simplex.row(variable, spare_s * sign);
            for &(column, other) in entries {
                let own_s = if other == k { term.remote_s + term.local_s } else { 0.0 };
                self.simplex.set(row, column, sign * (own_s + self.terms[other].server_s));
            }
            self.simplex.set(row, over[k], -1.0);
            if waits {
                self.simplex.charge(row, 1.0);
            }
        }
        self.simplex.minimise();
        let mut values = [0.0; VARIABLES];
        self.simplex.values(&mut values);
        for (k, (alpha, value)) in alpha.iter_mut().zip(values).enumerate().take(self.count) {
            *alpha = if part[k] == Part::Out { 0.0 } else { value.clamp(0.0, 1.0) };
        }
    }
}

/// Best ratios for given rates, energy and that a server may be shared by load left out. Writes one ratio a user into `alpha`.
///
/// # Panics
/// If the slices differ in length or hold more than [`MAX_USERS`] users.
pub fn best_alphas(physics: &Physics, users: &[UserSlot], rates_bps: &[f64], load: ServerLoad, alpha: &mut [f64]) {
    let count = users.len();
    assert!(count <= MAX_USERS && rates_bps.len() == count && alpha.len() == count, "one entry a user in each slice");
    let mut ratios = Ratios::new(physics, users, load, false);
    ratios.shared_by_load = false;
    for (user, rate_bps) in rates_bps.iter().enumerate() {
        ratios.set_uplink(user, *rate_bps, 0.0);
    }
    let mut found = [0.0; MAX_USERS];
    ratios.solve(0, &mut found);
    alpha.copy_from_slice(&found[..count]);
}
