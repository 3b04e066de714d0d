//! The best offloading ratios of all users for given uplink rates, exactly.
//!
//! With the rates fixed, (29) makes a user's latency `max(a(1−α), cα)` with `a = φX/f` and `c = X/r + φX/F`, and (48)
//! pools the users' quality, so the denominator of (47) is a convex, piecewise linear function of the ratios. It is
//! minimised through the prices of the two quality limits, each between 0 and ω: for given prices a user's best ratio is
//! one of 0, `a/(a+c)` and 1, and lowering a price sheds quality in the order of its cost, as in a fractional knapsack.
//! A backlog `b` delays whoever offloads, `max(a(1−α), cα + b)`, and a price on the server's time makes `c` dearer: the
//! problem keeps its form. Energy, a server shared by load ([`ServerShare::Load`](super::ServerShare)) and that nobody
//! waits who offloads nothing (which matters once `b > a`) are not in this function: see the search in
//! [`super::oracle`].

use super::params::{MAX_USERS, Physics};
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

/// What a user brings to the choice of the ratios.
#[derive(Clone, Copy, Debug, Default)]
struct Terms {
    /// Latency if all is local, φX/f.
    local_s: f64,
    /// Latency if all is offloaded and nobody has to wait, X/r + φX/F.
    remote_s: f64,
    /// Where local and remote latency meet.
    balanced: f64,
    /// Price of the server's time for all of the task.
    work_price_s: f64,
    /// Gain of accuracy and of (less) hallucination from offloading all.
    gain: [f64; 2],
}

impl Terms {
    /// The minimiser of `max(a(1−α), cα + b) + (w − s)·α`, w being the price of the work.
    fn best(&self, subsidy: f64) -> f64 {
        let subsidy = subsidy - self.work_price_s;
        if subsidy < -self.local_s {
            0.0
        } else if subsidy <= self.remote_s {
            self.balanced
        } else {
            1.0
        }
    }
}

/// Best ratios for given rates. Writes one ratio a user into `alpha`.
///
/// # Panics
/// If the slices differ in length or hold more than [`MAX_USERS`] users.
pub fn best_alphas(physics: &Physics, users: &[UserSlot], rates_bps: &[f64], load: ServerLoad, alpha: &mut [f64]) {
    let count = users.len();
    assert!(count <= MAX_USERS && rates_bps.len() == count && alpha.len() == count, "one entry a user in each slice");
    let params = &physics.params;
    let mut terms = [Terms::default(); MAX_USERS];
    // What offloading has to bring: the gap to both limits if all stays local.
    let mut need = [params.a_min * count as f64, -params.h_max * count as f64];
    for ((term, user), rate) in terms.iter_mut().zip(users).zip(rates_bps) {
        let quality = &user.quality;
        let cycles = params.cycles_per_bit * user.size_bits;
        let local_s = cycles / params.device_hz;
        let remote_s = user.size_bits / rate + cycles / physics.server_hz_each;
        *term = Terms {
            local_s,
            remote_s,
            balanced: ((local_s - load.wait_s) / (local_s + remote_s)).max(0.0),
            work_price_s: load.price * cycles / params.server_hz,
            gain: [
                quality.accuracy_server - quality.accuracy_local,
                quality.hallucination_local - quality.hallucination_server,
            ],
        };
        need[0] -= quality.accuracy_local;
        need[1] += quality.hallucination_local;
    }
    let terms = &terms[..count];
    let omega = params.omega;
    let gained = |alpha: &[f64], limit: usize| -> f64 { terms.iter().zip(alpha).map(|(t, a)| t.gain[limit] * a).sum() };

    // Price of accuracy 0: the usual case, hallucination being the tighter limit at the defaults.
    buy(terms, 1, need[1], 0.0, omega, alpha);
    if gained(alpha, 0) >= need[0] {
        return;
    }
    let mut low = [0.0; MAX_USERS];
    let mut high = [0.0; MAX_USERS];
    low[..count].copy_from_slice(alpha);
    buy(terms, 1, need[1], omega, omega, alpha);
    high[..count].copy_from_slice(alpha);
    if gained(alpha, 0) <= need[0] {
        return;
    }
    // Both limits bind: bisect the price of accuracy, which buys more accuracy the higher it is.
    let (mut price_low, mut price_high) = (0.0, omega);
    for _ in 0..60 {
        let price = 0.5 * (price_low + price_high);
        buy(terms, 1, need[1], price, omega, alpha);
        if gained(alpha, 0) >= need[0] {
            price_high = price;
            high[..count].copy_from_slice(alpha);
        } else {
            price_low = price;
            low[..count].copy_from_slice(alpha);
        }
    }
    // At the right price both ends are best, and so is every mixture: take the one that meets the limit exactly.
    let (bought_low, bought_high) = (gained(&low[..count], 0), gained(&high[..count], 0));
    let share = if bought_high > bought_low { (need[0] - bought_low) / (bought_high - bought_low) } else { 1.0 };
    for ((out, l), h) in alpha.iter_mut().zip(&low).zip(&high) {
        *out = (l + share.clamp(0.0, 1.0) * (h - l)).clamp(0.0, 1.0);
    }
}

/// Buys `need` of one limit as cheaply as possible at a price of at most `omega`, the other limit's price being given.
fn buy(terms: &[Terms], limit: usize, need: f64, other_price: f64, omega: f64, alpha: &mut [f64]) {
    let mut bought = 0.0;
    for (out, term) in alpha.iter_mut().zip(terms) {
        *out = term.best(other_price * term.gain[1 - limit]);
        bought += term.gain[limit] * *out;
    }
    if bought >= need {
        return;
    }
    // Every price at which some user changes its mind: (price, user, new ratio).
    let mut turns = [(f64::INFINITY, 0usize, 0.0); 2 * MAX_USERS];
    let mut found = 0;
    for (k, term) in terms.iter().enumerate() {
        let gain = term.gain[limit];
        if gain == 0.0 {
            continue;
        }
        let given = other_price * term.gain[1 - limit] - term.work_price_s;
        let balanced = term.balanced;
        // Rising subsidies move the ratio 0 → balanced → 1; a negative gain makes the subsidy fall with the price.
        let steps = if gain > 0.0 {
            [(-term.local_s, balanced), (term.remote_s, 1.0)]
        } else {
            [(term.remote_s, balanced), (-term.local_s, 0.0)]
        };
        for (threshold, ratio) in steps {
            let price = (threshold - given) / gain;
            if price >= 0.0 && price <= omega {
                turns[found] = (price, k, ratio);
                found += 1;
            }
        }
    }
    let turns = &mut turns[..found];
    turns.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    for &(_, k, ratio) in turns.iter() {
        let gain = terms[k].gain[limit];
        let step = gain * (ratio - alpha[k]);
        if step <= 0.0 {
            continue;
        }
        if bought + step >= need {
            alpha[k] += (need - bought) / gain;
            return;
        }
        bought += step;
        alpha[k] = ratio;
    }
}
