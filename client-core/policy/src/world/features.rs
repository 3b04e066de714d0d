//! What the network sees of a slot. No number has a unit: what decides is which of two times is longer, how far a limit is
//! and what missing it costs in units of the time at stake, never how many seconds that is. That unit of time is what a user
//! costs by the closed form in this slot.

use mec::params::{Physics, ServerShare};

use super::proposal::Outlook;
use crate::spaces::feature;

/// Network inputs a user.
pub const WORLD_FEATURES_PER_USER: usize = 24;

/// The number of users enters as its logarithm; centre and width over 1 to 10.
const LN_USERS: (f64, f64) = (1.5, 0.75);
/// Middle and width of ln SNR when a user sends alone: from noise as loud as the signal to the paper's 80 dB.
const LN_SNR: (f64, f64) = (9.0, 9.0);

/// Writes the network's input for one slot, [`WORLD_FEATURES_PER_USER`] numbers a user, user after user.
///
/// # Panics
/// If `out` is not as long as that.
pub fn features(physics: &Physics, outlook: &Outlook, out: &mut [f32]) {
    let users = outlook.belief().users();
    assert_eq!(out.len(), users.len() * WORLD_FEATURES_PER_USER, "{WORLD_FEATURES_PER_USER} features a user");
    let params = &physics.params;
    let count = users.len().max(1) as f64;
    let mean = |of: &dyn Fn(usize) -> f64| (0..users.len()).map(of).sum::<f64>() / count;
    let local_j = |k: usize| mec::cost::local_energy_j(params, 0.0, users[k].size_bits);
    let mean_bits = mean(&|k| users[k].size_bits);
    let unit_s = outlook.unit_s();
    // A gap to a limit, as the time that it costs.
    let cost = |gap: f64| (params.omega * gap / unit_s).asinh() / 2.0;
    let time = |seconds: f64| (seconds / unit_s).ln() / 3.0;
    let of_cell = [
        cost(mean(&|k| params.a_min - users[k].quality.accuracy_local)),
        cost(mean(&|k| users[k].quality.hallucination_local - params.h_max)),
        cost(mean(&local_j) - params.e_max_j),
        cost(mean(&|k| params.a_min - users[k].quality.accuracy_server)),
        cost(mean(&|k| users[k].quality.hallucination_server - params.h_max)),
        (count.ln() - LN_USERS.0) / LN_USERS.1,
        if params.server_share == ServerShare::Load { 1.0 } else { -1.0 },
        2.0 * outlook.latency_share() - 1.0,
    ];
    for (k, out) in out.chunks_exact_mut(WORLD_FEATURES_PER_USER).enumerate() {
        let (user, spread, uplink) = (&users[k], &outlook.belief().spread()[k], outlook.uplink(k));
        let quality = &user.quality;
        let cycles = params.cycles_per_bit * user.size_bits;
        let uplink_s = user.size_bits / uplink.equal_bps;
        let own = [
            time(cycles / params.device_hz),
            time(uplink_s),
            time(cycles / physics.server_hz_each),
            time(user.size_bits / uplink.alone_bps),
            ((physics.p_max_w * user.gain / physics.noise_w).ln() - LN_SNR.0) / LN_SNR.1,
            uplink.over_weakest_db / 10.0,
            (user.size_bits / mean_bits).ln(),
            2.0 * outlook.closed_alpha(k) - 1.0,
            cost(quality.accuracy_server - quality.accuracy_local),
            cost(quality.hallucination_local - quality.hallucination_server),
            cost(local_j(k) - uplink.equal_w * uplink_s),
            cost(spread.accuracy_local),
            cost(spread.hallucination_local),
            (local_j(k) / params.e_max_j).ln() / 3.0,
            (uplink.equal_w * uplink_s / params.e_max_j).ln() / 3.0,
            (uplink.equal_bps / params.rate_floor_bps).ln() / 5.0,
        ];
        for (out, value) in out.iter_mut().zip(own.into_iter().chain(of_cell)) {
            *out = feature(value, (0.0, 1.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mec::draw::draw_params;
    use mec::{MecParams, World};

    fn of(world: &World) -> Vec<f32> {
        let seen = world.observation();
        let mut out = vec![0.0; seen.len() * WORLD_FEATURES_PER_USER];
        features(world.physics(), &Outlook::new(world.physics(), &seen), &mut out);
        out
    }

    #[test]
    fn features_are_bounded_in_every_world() {
        let mut state = 1u64;
        for users in 1..=10 {
            for seed in 0..30 {
                state = mec::world::nth_seed(state, seed);
                let params = draw_params(users, 1.0, &mut mec_rng(state));
                assert!(of(&World::new(params, seed)).iter().all(|v| v.is_finite() && v.abs() <= 5.0), "{params:?}");
            }
        }
    }

    #[test]
    fn a_world_whose_units_are_others_looks_the_same() {
        // Twice as fast in everything, and a second's violation weighs half as much: the same decisions.
        let slow = MecParams::with_users(3);
        let fast = MecParams {
            device_hz: 2.0 * slow.device_hz,
            server_hz: 2.0 * slow.server_hz,
            bandwidth_hz: 2.0 * slow.bandwidth_hz,
            rate_floor_bps: 2.0 * slow.rate_floor_bps,
            kappa_comp: slow.kappa_comp / 4.0,
            omega: slow.omega / 2.0,
            ..slow
        };
        let (slow, fast) = (of(&World::new(slow, 5)), of(&World::new(fast, 5)));
        for (k, (slow, fast)) in slow.iter().zip(&fast).enumerate() {
            // Energy spent on the uplink is less when it is shorter: those two features are of joules.
            let of_joules = [10, 14].contains(&(k % WORLD_FEATURES_PER_USER));
            assert!(of_joules || (slow - fast).abs() < 1e-4, "feature {}: {slow} {fast}", k % WORLD_FEATURES_PER_USER);
        }
    }

    fn mec_rng(seed: u64) -> rand_xoshiro::Xoshiro256PlusPlus {
        use rand::SeedableRng;
        rand_xoshiro::Xoshiro256PlusPlus::seed_from_u64(seed)
    }
}
