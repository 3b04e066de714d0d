//! What is known of a slot's quality before it is decided.
//!
//! A policy sees α and the effective accuracy and hallucination rate of the last slot, and knows both models' lines. The
//! difficulty of that slot follows from them, and that of this one is `u' = ρu + √(1−ρ²)·e` (see [`mec::qos`]): a normal
//! distribution, clipped. Nothing else that a policy has seen tells more, since the process is Markov.

use mec::params::{MAX_USERS, MecParams, Physics, Variant};
use mec::{Quality, UserDecision, UserObservation, UserOutcome, UserSlot, evaluate};

/// Nodes and weights of the Gauss-Hermite rules for a standard normal variable.
const THREE: [(f64, f64); 3] = [(0.0, 2.0 / 3.0), (1.732_050_8, 1.0 / 6.0), (-1.732_050_8, 1.0 / 6.0)];
const FIVE: [(f64, f64); 5] = [
    (0.0, 8.0 / 15.0),
    (1.355_626, 0.222_075_9),
    (-1.355_626, 0.222_075_9),
    (2.856_970, 0.011_257_4),
    (-2.856_970, 0.011_257_4),
];
/// A difference below this is rounding.
const ROUNDING: f64 = 1e-7;
/// Difficulties that are tried where quality was clipped to [0, 1] and several explain what was seen.
const TRIED: usize = 64;
/// Distance of their neighbours, as a share of the largest difficulty.
const STEP: f64 = 2.0 / TRIED as f64;

/// A slot's users as they are expected, and how far from that their quality may lie.
#[derive(Clone, Debug)]
pub struct Belief {
    count: usize,
    users: [UserSlot; MAX_USERS],
    /// Standard deviations, with the sign of the change as difficulty grows.
    spread: [Quality; MAX_USERS],
}

impl Belief {
    /// # Panics
    /// If there are more than [`MAX_USERS`] users.
    pub fn new(physics: &Physics, seen: &[UserObservation]) -> Self {
        let count = seen.len();
        assert!(count <= MAX_USERS, "at most {MAX_USERS} users");
        let (mut users, mut spread) = ([UserSlot::default(); MAX_USERS], [Quality::default(); MAX_USERS]);
        for ((user, spread), seen) in users.iter_mut().zip(&mut spread).zip(seen) {
            let quality;
            (quality, *spread) = expected(&physics.params, difficulty(&physics.params, seen));
            *user = UserSlot { gain: seen.gain, size_bits: seen.size_bits, quality };
        }
        Self { count, users, spread }
    }

    /// The users as they are expected.
    pub fn users(&self) -> &[UserSlot] {
        &self.users[..self.count]
    }

    /// The spread of each user's quality.
    pub fn spread(&self) -> &[Quality] {
        &self.spread[..self.count]
    }

    /// The users with a quality that is worse than expected by `margin` standard deviations of what a slot's users have
    /// together.
    pub fn with_margin(&self, margin: f64) -> [UserSlot; MAX_USERS] {
        let mut users = self.users;
        let by = margin / (self.count.max(1) as f64).sqrt();
        for (user, spread) in users.iter_mut().zip(&self.spread).take(self.count) {
            let quality = &mut user.quality;
            quality.accuracy_local -= by * spread.accuracy_local.abs();
            quality.accuracy_server -= by * spread.accuracy_server.abs();
            quality.hallucination_local += by * spread.hallucination_local.abs();
            quality.hallucination_server += by * spread.hallucination_server.abs();
        }
        users
    }

    /// The mean reward (47) of a decision by this belief, what it breaks of (48) taken as normal.
    pub fn reward(&self, physics: &Physics, decisions: &[UserDecision]) -> f64 {
        let params = &physics.params;
        let mut outcomes = [UserOutcome::default(); MAX_USERS];
        let outcomes = &mut outcomes[..self.count];
        let totals = evaluate(physics, self.users(), 0.0, decisions, outcomes);
        let count = self.count as f64;
        let (mut missing, mut excess) = (params.a_min * count, -params.h_max * count);
        let (mut accuracy_2, mut hallucination_2, mut both) = (0.0, 0.0, 0.0);
        for ((outcome, spread), decision) in outcomes.iter().zip(&self.spread).zip(decisions) {
            missing -= outcome.accuracy;
            excess += outcome.hallucination;
            let accuracy = spread.accuracy(decision.alpha);
            let hallucination = spread.hallucination(decision.alpha);
            accuracy_2 += accuracy * accuracy;
            hallucination_2 += hallucination * hallucination;
            both += accuracy * hallucination;
        }
        let fixed_s = totals.latency_sum_s + params.omega * totals.violations.energy_j;
        let (accuracy, hallucination) = (accuracy_2.sqrt(), hallucination_2.sqrt().copysign(both));
        let at = |z: f64| {
            let broken = (missing - accuracy * z).max(0.0) + (excess + hallucination * z).max(0.0);
            1.0 / (fixed_s + params.omega * broken)
        };
        if accuracy + hallucination.abs() < ROUNDING {
            return at(0.0);
        }
        FIVE.iter().map(|(z, weight)| weight * at(*z)).sum()
    }
}

/// Mean and deviation of this slot's difficulty.
fn difficulty(params: &MecParams, seen: &UserObservation) -> (f64, f64) {
    let rho = params.difficulty_rho;
    match last_difficulty(params, seen) {
        Some(last) if params.variant != Variant::Iid => (rho * last, (1.0 - rho * rho).max(0.0).sqrt()),
        _ => (0.0, 1.0),
    }
}

/// The difficulty of the last slot; `None` if nothing tells of it.
fn last_difficulty(params: &MecParams, seen: &UserObservation) -> Option<f64> {
    let alpha = seen.alpha.clamp(0.0, 1.0);
    let line = |local: f64, server: f64| alpha * server + (1.0 - alpha) * local;
    let slopes = [
        line(params.accuracy_local_slope, params.accuracy_server_slope),
        line(params.hallucination_local_slope, params.hallucination_server_slope),
    ];
    let bases = [
        line(params.accuracy_local, params.accuracy_server),
        line(params.hallucination_local, params.hallucination_server),
    ];
    let square = slopes[0] * slopes[0] + slopes[1] * slopes[1];
    if !(seen.accuracy.is_finite() && seen.hallucination.is_finite()) {
        return None;
    }
    let clip = params.difficulty_clip;
    let error = |difficulty: f64| {
        let quality = Quality::at_difficulty(params, difficulty);
        (quality.accuracy(alpha) - seen.accuracy).abs() + (quality.hallucination(alpha) - seen.hallucination).abs()
    };
    let mut straight = 0.0;
    if square > ROUNDING * ROUNDING {
        let gaps = [seen.accuracy - bases[0], seen.hallucination - bases[1]];
        straight = ((gaps[0] * slopes[0] + gaps[1] * slopes[1]) / square).clamp(-clip, clip);
        if error(straight) < ROUNDING {
            return Some(straight);
        }
    }
    // Somewhere quality was clipped: of those that explain best what was seen, the middle.
    let tried = (0..=TRIED).map(|i| clip * (2.0 * i as f64 / TRIED as f64 - 1.0)).chain([straight]);
    let least = tried.clone().map(error).fold(f64::INFINITY, f64::min);
    let (sum, found) =
        tried.clone().filter(|u| error(*u) <= least + ROUNDING).fold((0.0, 0), |(sum, found), u| (sum + u, found + 1));
    if found > 2 {
        return (found < TRIED).then(|| sum / found as f64);
    }
    // A single place: the error falls towards it from both sides.
    let (mut low, mut high) = (sum / found.max(1) as f64 - STEP * clip, sum / found.max(1) as f64 + STEP * clip);
    for _ in 0..48 {
        let third = (high - low) / 3.0;
        if error(low + third) < error(high - third) { high -= third } else { low += third }
    }
    Some(((low + high) / 2.0).clamp(-clip, clip))
}

/// Mean and signed deviation of both models' quality.
fn expected(params: &MecParams, (mean, deviation): (f64, f64)) -> (Quality, Quality) {
    let clip = params.difficulty_clip;
    let at = |z: f64| Quality::at_difficulty(params, (mean + deviation * z).clamp(-clip, clip));
    let nodes = THREE.map(|(z, weight)| (at(z), weight));
    let whole = |of: fn(&Quality) -> f64| {
        let middle: f64 = nodes.iter().map(|(quality, weight)| weight * of(quality)).sum();
        let slope = (of(&nodes[1].0) - of(&nodes[2].0)) / (THREE[1].0 - THREE[2].0);
        (middle, slope)
    };
    let (accuracy_local, accuracy_local_by) = whole(|q| q.accuracy_local);
    let (accuracy_server, accuracy_server_by) = whole(|q| q.accuracy_server);
    let (hallucination_local, hallucination_local_by) = whole(|q| q.hallucination_local);
    let (hallucination_server, hallucination_server_by) = whole(|q| q.hallucination_server);
    (
        Quality { accuracy_local, hallucination_local, accuracy_server, hallucination_server },
        Quality {
            accuracy_local: accuracy_local_by,
            hallucination_local: hallucination_local_by,
            accuracy_server: accuracy_server_by,
            hallucination_server: hallucination_server_by,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use mec::{StaticPolicy, World};

    #[test]
    fn the_last_slots_difficulty_is_found_from_what_it_gave() {
        let steep =
            MecParams { accuracy_local_slope: -0.4, hallucination_local_slope: 0.3, ..MecParams::with_users(4) };
        for params in [MecParams::with_users(4), steep] {
            let mut world = World::new(params, 3);
            let mut off = 0;
            for _ in 0..200 {
                let difficulties: Vec<f64> = world.users().map(|user| user.difficulty).collect();
                let decision = world.decide(StaticPolicy::Random);
                world.step(&decision);
                for (seen, difficulty) in world.observation().iter().zip(difficulties) {
                    let found = last_difficulty(&params, seen).expect("the lines are not flat");
                    off += usize::from((found - difficulty).abs() > 1e-6);
                }
            }
            // Steep lines leave [0, 1]; where both models' do, only a range is known.
            assert!(off <= if params == steep { 16 } else { 0 }, "{off} of 800");
        }
    }

    #[test]
    fn flat_lines_tell_nothing_and_leave_nothing_open() {
        let flat = MecParams {
            accuracy_local_slope: 0.0,
            hallucination_local_slope: 0.0,
            accuracy_server_slope: 0.0,
            hallucination_server_slope: 0.0,
            ..MecParams::with_users(2)
        };
        let world = World::new(flat, 1);
        let belief = Belief::new(world.physics(), &world.observation());
        for (user, slot) in belief.users().iter().zip(world.slots()) {
            assert!((user.quality.accuracy_local - slot.quality.accuracy_local).abs() < 1e-12);
        }
        let decisions = [UserDecision { alpha: 0.6, power_w: 1.0 }; 2];
        let reward = world.evaluate(&decisions).0.reward;
        assert!((belief.reward(world.physics(), &decisions) / reward - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_believed_reward_is_the_mean_over_what_comes() {
        // Many worlds that looked the same in their last slot: difficulty is all that differs.
        let params = MecParams { difficulty_rho: 0.6, ..MecParams::with_users(3) };
        let decisions = [UserDecision { alpha: 0.62, power_w: 1.0 }; 3];
        let (mut believed, mut got) = (0.0, 0.0);
        for seed in 0..4000 {
            let world = World::new(params, seed);
            believed += Belief::new(world.physics(), &world.observation()).reward(world.physics(), &decisions);
            got += world.evaluate(&decisions).0.reward;
        }
        assert!((believed / got - 1.0).abs() < 0.01, "{believed} {got}");
    }
}
