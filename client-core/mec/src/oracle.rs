//! The best decision of one slot, with full knowledge of channel, sizes and quality.
//!
//! For given powers the ratios are found exactly ([`super::alpha`]), energy included; what is left is a function of the
//! powers alone. It has a local optimum for nearly every set of users who send: a rate falls so fast with interference that
//! it often pays to silence somebody altogether (who then offloads at the rate floor, or nothing). With ratios and that set
//! given, latency and energy are convex in the logarithms of the powers, because 1/log(1+e^x) is log-convex in x and the
//! logarithm of the SINR is concave in those of the powers. So:
//! 1. Powers of every kind that is simple are evaluated for many sets of users who send: equal received power, all at P_max,
//!    received power by the root of the size, each of them also with one user over the others, and softer where energy
//!    binds.
//! 2. The best of each kind (who sends; who offloads nothing, a part, all) are compared, and the best kinds narrowed by a pattern of steps in dB. Where energy does not bind, all powers are scaled until the
//!    first meets P_max: louder together is never worse.
//!    Where it does, steps also lead along the limit.
//! 3. Around the best one, users are silenced and let in again, made louder and softer, taken out of the queue, one at a
//!    time, as long as it pays.
//! 4. Steps along random directions follow the ridges that the kinks of (29) and (48) leave.
//!
//! The powers of always-local, always-offload, the closed form and the constants are among the starting points, and their
//! ratios are no better than the exact ones, so none of them can beat what is found. That it is the best is not
//! proven: [`super::bound`] says how far it can be off, and the tests hold it against brute force.
//!
//! Where the actions move the state, [`priced_optimum`] weighs the slot's reward against the server's time that it takes:
//! the step of which [`super::planner`] makes plans.

use super::alpha::ServerLoad;
use super::params::{Physics, db_to_ratio};
use super::search::Search;
use super::slot::{SlotTotals, UserSlot};

pub use super::search::{Optimum, OracleEffort, Start};

/// Searches the best decision of a slot.
///
/// # Panics
/// If there are more than [`MAX_USERS`](super::MAX_USERS) users.
pub fn optimum(physics: &Physics, users: &[UserSlot], backlog_s: f64, effort: OracleEffort) -> Optimum {
    let mut search = Search::new(physics, users, ServerLoad { wait_s: backlog_s, price: 0.0 });
    search.run(effort);
    search.found()
}

/// Searches the decision with the least `1/reward + price·work`, the work in seconds of the server's whole time. Begins
/// at `near` when a similar problem's answer is known, which is ten times as fast as from nothing.
///
/// # Panics
/// If there are more than [`MAX_USERS`](super::MAX_USERS) users.
pub fn priced_optimum(
    physics: &Physics,
    users: &[UserSlot],
    load: ServerLoad,
    near: Option<&Start>,
) -> (Optimum, Start) {
    let mut search = Search::new(physics, users, load);
    match near {
        Some(start) => search.run_near(start),
        None => search.run(OracleEffort::Usual),
    }
    (search.found(), search.best.start)
}

/// The best ratios at given powers, and what they give.
///
/// # Panics
/// If there are more than [`MAX_USERS`](super::MAX_USERS) users.
pub fn at_start(physics: &Physics, users: &[UserSlot], load: ServerLoad, start: &Start) -> SlotTotals {
    let mut search = Search::new(physics, users, load);
    search.evaluate_start(*start);
    search.found().totals
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
