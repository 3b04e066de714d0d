//! Any policy in many random worlds: what it gets in each, beside the optimum and the policies without learning.

use std::ops::RangeInclusive;

use mec::{MecParams, QosKnowledge, StaticPolicy};
use policy::Policy;
use serde::Serialize;

use super::error::TrainError;
use super::evaluate::{Bench, Judged};
use super::worlds::{SPREADS, random_params};

/// Where a search that knows what a policy knows gets less of the optimum than this, the slot's hidden quality decides.
const KNOWN: f64 = 0.97;
/// How far a policy may be below the closed form before that counts, as a share of its reward.
const TOLERATED: f64 = 0.02;

/// Mean rewards (47) in one world, all on the same slots.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorldScore {
    /// The world.
    pub params: MecParams,
    /// The chance with which each of its settings was moved.
    pub spread: f64,
    /// Of the per-slot optimum, which sees the slot's hidden quality.
    pub optimum: f64,
    /// Of a search that knows what a policy knows, where that was asked for.
    pub informed: Option<f64>,
    /// Of the closed form.
    pub closed_form: f64,
    /// Of the closed form that sees the slot's quality.
    pub closed_form_exact: f64,
    /// Of all local, all offloaded at P_max, and random decisions.
    pub blind: [f64; 3],
    /// Of the policy's candidates that need no network.
    pub unlearned: f64,
    /// Of the trained policy.
    pub policy: f64,
}

impl WorldScore {
    /// Judges a policy in a world on so many fresh slots.
    ///
    /// # Errors
    /// When it is for another number of users.
    pub fn new(
        policy: &Policy,
        params: MecParams,
        spread: f64,
        slots: usize,
        seed: u64,
        informed: bool,
    ) -> Result<Self, TrainError> {
        let bench = Bench::new(params, slots, seed);
        let score = |judged: Judged<'_>| bench.score(judged).map(|score| score.reward);
        let blind = [StaticPolicy::AlwaysLocal, StaticPolicy::AlwaysOffload, StaticPolicy::Random];
        Ok(Self {
            params,
            spread,
            optimum: score(Judged::Optimum)?,
            informed: if informed { Some(score(Judged::Informed)?) } else { None },
            closed_form: score(Judged::Static(StaticPolicy::ClosedForm(QosKnowledge::Mean)))?,
            closed_form_exact: score(Judged::Static(StaticPolicy::ClosedForm(QosKnowledge::Exact)))?,
            blind: [
                score(Judged::Static(blind[0]))?,
                score(Judged::Static(blind[1]))?,
                score(Judged::Static(blind[2]))?,
            ],
            unlearned: score(Judged::Unlearned)?,
            policy: score(Judged::Learned(policy))?,
        })
    }

    /// Whether what was seen of the last slot is enough here to decide this one nearly as well as by seeing its quality; no if
    /// that was not measured.
    pub fn is_known(&self) -> bool {
        self.informed.is_some_and(|informed| informed >= KNOWN * self.optimum)
    }
}

/// Judges a policy in `worlds` random worlds, on `slots` fresh slots of each; `done` is told after each.
///
/// # Errors
/// When the policy's device fails.
pub fn judge_worlds(
    policy: &Policy,
    users: RangeInclusive<usize>,
    worlds: u64,
    slots: usize,
    seed: u64,
    informed: bool,
    mut done: impl FnMut(u64, &WorldScore),
) -> Result<Vec<WorldScore>, TrainError> {
    let mut scores = Vec::new();
    for index in 0..worlds {
        let params = random_params(users.clone(), seed, index);
        let spread = SPREADS[(index % SPREADS.len() as u64) as usize];
        let score =
            WorldScore::new(policy, params, spread, slots, mec::world::nth_seed(seed, worlds + index), informed)?;
        done(index, &score);
        scores.push(score);
    }
    Ok(scores)
}

/// How shares of the optimum are spread over worlds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Shares {
    /// Worlds.
    pub worlds: usize,
    /// Least of them.
    pub worst: f64,
    /// 5th percentile.
    pub p05: f64,
    /// 25th percentile.
    pub p25: f64,
    /// Median.
    pub median: f64,
    /// Mean.
    pub mean: f64,
}

impl Shares {
    /// Of some worlds, by what is to be held against the optimum.
    pub fn of<'a>(scores: impl Iterator<Item = &'a WorldScore>, reward: impl Fn(&WorldScore) -> f64) -> Self {
        let mut shares: Vec<f64> = scores.map(|score| reward(score) / score.optimum).collect();
        shares.sort_unstable_by(f64::total_cmp);
        let at = |place: f64| {
            let index = (shares.len().saturating_sub(1) as f64 * place).round() as usize;
            shares.get(index).copied().unwrap_or(f64::NAN)
        };
        let mean = shares.iter().sum::<f64>() / shares.len().max(1) as f64;
        Self { worlds: shares.len(), worst: at(0.0), p05: at(0.05), p25: at(0.25), median: at(0.5), mean }
    }
}

/// Worlds in which the policy gets less than the closed form by more than 2 %.
pub fn behind_closed_form<'a>(scores: impl Iterator<Item = &'a WorldScore>) -> usize {
    scores.filter(|score| score.policy < (1.0 - TOLERATED) * score.closed_form).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(policy: f64) -> WorldScore {
        WorldScore {
            params: MecParams::DEFAULT,
            spread: 0.5,
            optimum: 2.0,
            informed: None,
            closed_form: 1.0,
            closed_form_exact: 1.0,
            blind: [0.5, 1.0, 1.0],
            unlearned: 1.0,
            policy,
        }
    }

    #[test]
    fn shares_are_the_quantiles_of_rewards_over_the_optimums() {
        let scores: Vec<WorldScore> = (0..=100).map(|i| score(f64::from(i) / 50.0)).collect();
        let shares = Shares::of(scores.iter(), |score| score.policy);
        assert_eq!((shares.worlds, shares.worst, shares.p05, shares.median), (101, 0.0, 0.05, 0.5));
        assert!((shares.mean - 0.5).abs() < 1e-12);
        // Below 0.98 of the closed form's 1.0: rewards 0 to 0.96.
        assert_eq!(behind_closed_form(scores.iter()), 49);
        assert!(!score(1.0).is_known());
        assert!(WorldScore { informed: Some(1.95), ..score(1.0) }.is_known());
    }
}
