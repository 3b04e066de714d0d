//! What policies are held against beside the optimum: the best constant action and, with a backlog, plans.

use mec::{BatchSlots, BatchTotals, ConstantAction, Lookahead, MecParams, UserDecision, UserSlot, Variant};
use policy::PolicyError;
use serde::Serialize;

use super::evaluate::{Bench, Judged, Score};

/// Doubling the horizon must bring more than this share of the mean reward to go on.
const LEAST_GAIN: f64 = 1e-3;
/// Slots on which the best constant action is searched.
const TRAINING_SLOTS: usize = 2000;
/// Slots that the look-ahead takes the distribution of slots from.
const LOOKAHEAD_SAMPLES: usize = 128;

/// The best constant action of each kind, by a search on slots of its own seed; judge it on others.
///
/// # Errors
/// None in practice: no learned policy is asked.
pub fn best_constants(params: MecParams, seed: u64) -> Result<[ConstantAction; 2], PolicyError> {
    let bench = Bench::new(params, TRAINING_SLOTS, seed);
    let physics = params.physics();
    // Where slots depend on the action, or are not what is seen of them, there is nothing to be saved.
    if matches!(params.variant, Variant::Backlog | Variant::Delayed) {
        return ConstantAction::best(&physics, |action| Ok(bench.score(Judged::Constant(action))?.reward));
    }
    // The slots do not depend on the action: take them once.
    let slots: Vec<Vec<UserSlot>> = bench.free_slots();
    let batch = BatchSlots::new(slots.iter().map(Vec::as_slice));
    let (mut decisions, mut totals) = (batch.decisions(), BatchTotals::default());
    let mut decision = vec![UserDecision::default(); params.users];
    ConstantAction::best(&physics, |action| {
        for (i, users) in slots.iter().enumerate() {
            action.decide(&physics, users, &mut decision);
            decisions.set(i, &decision);
        }
        batch.evaluate(&physics, &decisions, &mut totals);
        Ok(totals.reward.iter().map(|reward| f64::from(*reward)).sum::<f64>() / slots.len().max(1) as f64)
    })
}

/// Mean reward that a planner reached with a horizon.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct HorizonReward {
    /// Slots that were planned at once, the present one included.
    pub horizon: usize,
    /// Mean of (47).
    pub reward: f64,
}

/// What planning gives, and how the horizon was chosen.
#[derive(Clone, Debug)]
pub struct Planned {
    /// At the chosen horizon.
    pub score: Score,
    /// Every horizon that was tried.
    pub horizons: Vec<HorizonReward>,
}

/// Doubles the horizon until the mean reward grows by less than 0.1 %, or the episode is over.
fn until_converged(
    episode: usize,
    mut judge: impl FnMut(usize) -> Result<Score, PolicyError>,
) -> Result<Planned, PolicyError> {
    let mut horizon = 1;
    let mut score = judge(horizon)?;
    let mut horizons = vec![HorizonReward { horizon, reward: score.reward }];
    while horizon < episode {
        horizon = (2 * horizon).min(episode);
        let next = judge(horizon)?;
        horizons.push(HorizonReward { horizon, reward: next.reward });
        let gain = next.reward / score.reward - 1.0;
        if next.reward > score.reward {
            score = next;
        }
        // Two slots see so little of a queue that a small gain there says nothing.
        if gain < LEAST_GAIN && horizon > 2 {
            break;
        }
    }
    Ok(Planned { score, horizons })
}

/// The clairvoyant planner on the bench's episodes.
///
/// # Errors
/// None in practice: no learned policy is asked.
pub fn clairvoyant(bench: &Bench, params: &MecParams) -> Result<Planned, PolicyError> {
    let planners = bench.clairvoyants();
    until_converged(params.horizon, |horizon| bench.score(Judged::Clairvoyant(&planners, horizon)))
}

/// The planner that knows the distribution of slots, which it takes from slots of another seed.
///
/// # Errors
/// None in practice: no learned policy is asked.
pub fn lookahead(bench: &Bench, params: &MecParams, seed: u64) -> Result<Planned, PolicyError> {
    let mut planner = Lookahead::new(*params, LOOKAHEAD_SAMPLES, seed);
    until_converged(params.horizon, |horizon| {
        planner.set_horizon(horizon);
        bench.score(Judged::Lookahead(&planner))
    })
}

#[cfg(test)]
mod tests {
    use mec::ConstantPower;

    use super::*;

    #[test]
    fn the_best_constant_action_is_the_one_of_the_table_of_facts() {
        let params = MecParams::with_users(2);
        let [watts, received] = best_constants(params, 3).expect("constants");
        // 1.811 at α = 0.725, both at P_max; the tolerance is that of the draws. A little quieter is a little better: the
        // few slots with a weak user break the energy limit less.
        let bench = Bench::new(params, 4000, 5);
        let reward = |action| bench.score(Judged::Constant(action)).expect("score").reward;
        assert!((watts.alpha - 0.725).abs() < 0.04, "{watts:?}");
        let loud = ConstantAction { alpha: 0.725, power: ConstantPower::Watts(params.physics().p_max_w) };
        assert!((reward(loud) / 1.811 - 1.0).abs() < 0.02, "{}", reward(loud));
        assert!(reward(watts) > 0.999 * reward(loud), "{watts:?}: {} against {}", reward(watts), reward(loud));
        // Looking at the gains alone is worth something, and other ratios are worse.
        assert!(reward(received) > reward(watts), "{received:?}");
        for action in [watts, received] {
            for by in [-0.1, 0.1] {
                let other = ConstantAction { alpha: action.alpha + by, ..action };
                assert!(reward(other) < reward(action), "{other:?} against {action:?}");
            }
        }
    }

    #[test]
    fn foresight_pays_with_a_backlog_and_knowing_the_future_pays_most() {
        let params = MecParams { horizon: 60, ..MecParams::with_users(2).with_variant(Variant::Backlog) };
        let bench = Bench::new(params, 240, 8);
        let myopic = bench.score(Judged::Optimum).expect("score").reward;
        let clairvoyant = clairvoyant(&bench, &params).expect("plan");
        let lookahead = lookahead(&bench, &params, 9).expect("plan");
        // A horizon of one slot is no foresight.
        let blind = clairvoyant.horizons[0].reward;
        assert!((blind / myopic - 1.0).abs() < 0.01, "{blind} against {myopic}");
        assert!(lookahead.score.reward > 1.05 * myopic, "{} against {myopic}", lookahead.score.reward);
        assert!(clairvoyant.score.reward >= 0.999 * lookahead.score.reward, "{clairvoyant:?} {lookahead:?}");
        assert!(clairvoyant.horizons.len() > 2 && clairvoyant.score.slots == 240);
    }
}
