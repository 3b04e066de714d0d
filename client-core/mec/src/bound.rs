//! A reward that no decision of a slot can pass: how far from the best the search of [`super::oracle`] can be at most.
//!
//! With `s_k` the share that user k's received power has of all that is received, noise included, (19) reads
//! `r_k = −B·log2(1 − s_k)`: rates depend on the shares alone, whose sum is less than 1, and `P_max` says
//! `Σ s + s_k·σ²/(P_max·h_k) ≤ 1` for each user. So users touch each other only through one budget of shares and the three
//! pooled limits of (48). With a price on each of the four, every user minimises alone over its share and ratio, and the sum
//! of the minima less what the prices are worth is below every cost (Lagrange duality), however the prices were found.
//! They are found by the ellipsoid method.
//!
//! What the bound gives away: power is counted as if nobody interfered, a server shared by load as if each had it alone,
//! mixtures of decisions count as decisions, and shares are taken by cells, each at its best corner.

use super::cost;
use super::params::{MAX_USERS, Physics, ServerShare};
use super::slot::UserSlot;

/// Prices: of the shares' budget, and of accuracy, hallucination and energy.
const PRICES: usize = 4;
const ENERGY: usize = 2;
/// Width of a cell, as a ratio of rates: while the prices are sought, and in the bound itself.
const COARSE: f64 = 1.1;
const FINE: f64 = 1.002;
/// Steps of the ellipsoid method; each takes about a fortieth of the error.
const STEPS: usize = 500;

/// What a user can do within a cell of shares.
#[derive(Clone, Copy, Debug)]
struct Cell {
    /// Its least share, with what P_max makes dearer of it.
    share: f64,
    /// Its least latency if all is offloaded.
    remote_s: f64,
    /// Its least energy of the uplink if all is offloaded.
    uplink_j: f64,
}

struct User {
    local_s: f64,
    local_j: f64,
    /// Gain of accuracy and of (less) hallucination from offloading all.
    gain: [f64; 2],
    cells: Vec<Cell>,
}

struct Dual {
    users: Vec<User>,
    need: [f64; PRICES - 1],
    wait_s: f64,
}

/// The upper bound of the slot's reward (47).
///
/// # Panics
/// If there are more than [`MAX_USERS`] users.
pub fn reward_bound(physics: &Physics, users: &[UserSlot], backlog_s: f64) -> f64 {
    assert!(users.len() <= MAX_USERS, "at most {MAX_USERS} users");
    if users.is_empty() {
        return f64::INFINITY;
    }
    let omega = physics.params.omega;
    let coarse = Dual::new(physics, users, backlog_s, COARSE);
    // Budget's price: at most what all costs if nobody sends.
    let silent_s: f64 = coarse.users.iter().map(|user| user.local_s).sum();
    let missing: f64 = coarse.need.iter().map(|need| need.max(0.0)).sum();
    let units = [silent_s + omega * missing, omega, omega, omega];
    let prices = maximise(units, |prices| coarse.value(prices));
    let bound_s = Dual::new(physics, users, backlog_s, FINE).value(&prices).0;
    // Latency alone is never negative; prices of 0 give that.
    if bound_s > 0.0 { 1.0 / bound_s } else { f64::INFINITY }
}

impl Dual {
    fn new(physics: &Physics, slots: &[UserSlot], wait_s: f64, width: f64) -> Self {
        let params = &physics.params;
        let count = slots.len() as f64;
        let mut need = [params.a_min * count, -params.h_max * count, -params.e_max_j * count];
        let mut users = Vec::with_capacity(slots.len());
        for slot in slots {
            let quality = &slot.quality;
            let cycles = params.cycles_per_bit * slot.size_bits;
            let hz = match params.server_share {
                ServerShare::Load => params.server_hz,
                ServerShare::Full | ServerShare::Equal => physics.server_hz_each,
            };
            let user = User {
                local_s: cost::local_latency_s(params, 0.0, slot.size_bits),
                local_j: cost::local_energy_j(params, 0.0, slot.size_bits),
                gain: [
                    quality.accuracy_server - quality.accuracy_local,
                    quality.hallucination_local - quality.hallucination_server,
                ],
                cells: cells(physics, slot, cycles / hz, count, width),
            };
            need[0] -= quality.accuracy_local;
            need[1] += quality.hallucination_local;
            need[ENERGY] += user.local_j;
            users.push(user);
        }
        Self { users, need, wait_s }
    }

    /// The dual function and a supergradient of it.
    fn value(&self, prices: &[f64; PRICES]) -> (f64, [f64; PRICES]) {
        let [budget, accuracy, hallucination, energy] = *prices;
        let mut value = -budget;
        let mut slope = [-1.0, 0.0, 0.0, 0.0];
        for (limit, need) in self.need.iter().enumerate() {
            value += prices[limit + 1] * need;
            slope[limit + 1] = *need;
        }
        for user in &self.users {
            let subsidy = accuracy * user.gain[0] + hallucination * user.gain[1] + energy * user.local_j;
            let mut least = (user.local_s, 0.0, 0.0, 0.0);
            for cell in &user.cells {
                let subsidy = subsidy - energy * cell.uplink_j;
                let share_s = budget * cell.share;
                // The minimum over the ratio is at one of its ends or where local and remote latency meet.
                let all = cell.remote_s + self.wait_s - subsidy + share_s;
                if all < least.0 {
                    least = (all, 1.0, cell.share, cell.uplink_j);
                }
                if user.local_s > self.wait_s {
                    let ratio = (user.local_s - self.wait_s) / (user.local_s + cell.remote_s);
                    let balanced = user.local_s * (1.0 - ratio) - subsidy * ratio + share_s;
                    if balanced < least.0 {
                        least = (balanced, ratio, cell.share, cell.uplink_j);
                    }
                }
            }
            let (cost, ratio, share, uplink_j) = least;
            value += cost;
            slope[0] += share;
            slope[1] -= user.gain[0] * ratio;
            slope[2] -= user.gain[1] * ratio;
            slope[3] -= (user.local_j - uplink_j) * ratio;
        }
        (value, slope)
    }
}

/// A user's cells from no share at all to what it gets alone at P_max.
fn cells(physics: &Physics, slot: &UserSlot, server_s: f64, users: f64, width: f64) -> Vec<Cell> {
    let params = &physics.params;
    let noise_over_gain_w = physics.noise_w / slot.gain;
    let over_full_power = noise_over_gain_w / physics.p_max_w;
    let remote_s = |rate_bps: f64| slot.size_bits / rate_bps + server_s;
    // In natural units of rate: r = B/ln 2 · nats, nats = −ln(1 − s).
    let bps = params.bandwidth_hz / std::f64::consts::LN_2;
    let top = (1.0 / over_full_power).ln_1p();
    let floor = params.rate_floor_bps / bps;
    // Up to the floor a share brings nothing, so none is the best of them.
    let mut cells = vec![Cell { share: 0.0, remote_s: remote_s(params.rate_floor_bps), uplink_j: 0.0 }];
    let mut low = floor;
    while low < top {
        let high = (low * width).min(top);
        let share = -(-low).exp_m1();
        // The least power for the share is that without anybody else, σ²/h·s/(1−s).
        let power_w = noise_over_gain_w * low.exp_m1();
        cells.push(Cell {
            share: share * (1.0 + over_full_power / users),
            remote_s: remote_s(bps * high),
            // Energy p·X/r grows with the share: at the low end.
            uplink_j: power_w * slot.size_bits / (bps * low),
        });
        low = high;
    }
    cells
}

/// Maximises a concave function over the box from 0 to `units` by the ellipsoid method. Returns where it was largest.
fn maximise(units: [f64; PRICES], value: impl Fn(&[f64; PRICES]) -> (f64, [f64; PRICES])) -> [f64; PRICES] {
    const N: f64 = PRICES as f64;
    // The ball around the unit box.
    let mut centre = [0.5; PRICES];
    let mut shape = [[0.0; PRICES]; PRICES];
    for (i, row) in shape.iter_mut().enumerate() {
        row[i] = N / 4.0;
    }
    let mut best = (f64::NEG_INFINITY, [0.0; PRICES]);
    for _ in 0..STEPS {
        // Which half to keep: of the box if the centre is outside it, else of the function.
        let outside = centre.iter().position(|x| !(0.0..=1.0).contains(x));
        let mut cut = [0.0; PRICES];
        let mut depth = 0.0;
        if let Some(i) = outside {
            cut[i] = if centre[i] < 0.0 { 1.0 } else { -1.0 };
        } else {
            let prices: [f64; PRICES] = std::array::from_fn(|i| units[i] * centre[i]);
            let (found, slope) = value(&prices);
            if found > best.0 {
                best = (found, prices);
            }
            cut = std::array::from_fn(|i| units[i] * slope[i]);
            depth = best.0 - found;
        }
        let along: [f64; PRICES] = std::array::from_fn(|i| (0..PRICES).map(|j| shape[i][j] * cut[j]).sum());
        let length = along.iter().zip(cut).map(|(a, c)| a * c).sum::<f64>().sqrt();
        if !(length > 1e-300 && length.is_finite()) {
            break;
        }
        let deep = (depth / length).min(0.999);
        let step = (1.0 + N * deep) / (N + 1.0);
        let shrink = N * N / (N * N - 1.0) * (1.0 - deep * deep);
        let flatten = 2.0 * (1.0 + N * deep) / ((N + 1.0) * (1.0 + deep));
        for i in 0..PRICES {
            centre[i] += step * along[i] / length;
            for j in 0..PRICES {
                shape[i][j] = shrink * (shape[i][j] - flatten * along[i] * along[j] / (length * length));
            }
        }
    }
    best.1
}
