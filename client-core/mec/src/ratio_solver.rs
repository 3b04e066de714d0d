//! From powers to whole decisions: the exact best ratios for powers that somebody else chose.
//!
//! It is the inner step of the search of [`super::oracle`]; whoever has learned which powers are good needs nothing else of it.

use super::alpha::{Ratios, ServerLoad};
use super::cost;
use super::params::{MAX_USERS, Physics};
use super::slot::{UserDecision, UserSlot};

/// The users of one slot, whose powers are tried one after the other.
#[derive(Clone, Debug)]
pub struct RatioSolver<'a> {
    physics: &'a Physics,
    users: &'a [UserSlot],
    ratios: Ratios,
}

impl<'a> RatioSolver<'a> {
    /// Of a slot whose quality is `users`' and whose server is busy with earlier work for `backlog_s`.
    ///
    /// # Panics
    /// If there are more than [`MAX_USERS`] users.
    pub fn new(physics: &'a Physics, users: &'a [UserSlot], backlog_s: f64) -> Self {
        let load = ServerLoad { wait_s: backlog_s, price: 0.0 };
        Self { physics, users, ratios: Ratios::new(physics, users, load, true) }
    }

    /// The best ratios at the given powers, one a user, energy included, into `out` beside the powers. Returns the
    /// denominator of (47), in seconds.
    ///
    /// # Panics
    /// If the slices do not hold one entry a user.
    pub fn decide(&mut self, power_w: &[f64], out: &mut [UserDecision]) -> f64 {
        let count = self.users.len();
        assert!(power_w.len() == count && out.len() == count, "one entry a user in each slice");
        for k in 0..count {
            let heard = |l: usize| power_w[l] * self.users[l].gain;
            let interference = (0..count).filter(|l| *l != k).map(heard).sum();
            let rate_bps = cost::rate_bps(self.physics, heard(k), interference);
            self.ratios.set_uplink(k, rate_bps, power_w[k]);
        }
        let mut alpha = [0.0; MAX_USERS];
        let cost_s = self.ratios.solve(0, &mut alpha);
        for ((decision, alpha), power_w) in out.iter_mut().zip(alpha).zip(power_w) {
            *decision = UserDecision { alpha, power_w: *power_w };
        }
        cost_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::draw_params;
    use crate::oracle::{OracleEffort, optimum};
    use crate::{UserOutcome, World, evaluate};
    use rand::SeedableRng;
    use rand_xoshiro::Xoshiro256PlusPlus;

    #[test]
    fn at_the_optimums_powers_it_is_the_optimum_and_its_cost_is_the_slots() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(5);
        for users in 1..=6 {
            for spread in [0.0, 0.3, 1.0] {
                let world = World::new(draw_params(users, spread, &mut rng), 3);
                let (physics, slots) = (world.physics(), world.slots());
                let best = optimum(physics, slots, 0.0, OracleEffort::Usual);
                let powers: Vec<f64> = best.decisions.iter().map(|d| d.power_w).collect();
                let mut found = vec![UserDecision::default(); users];
                let cost_s = RatioSolver::new(physics, slots, 0.0).decide(&powers, &mut found);
                let mut out = vec![UserOutcome::default(); users];
                let reward = evaluate(physics, slots, 0.0, &found, &mut out).reward;
                assert!((1.0 / cost_s / reward - 1.0).abs() < 1e-6, "K {users}: {cost_s} s, reward {reward}");
                // The search may keep somebody from waiting whom the programme lets wait.
                assert!(reward > 0.9 * best.totals.reward, "K {users}: {reward} of {}", best.totals.reward);
            }
        }
    }
}
