//! PPO with Lagrange multipliers: the limits (30d)–(30f) held per user, instead of paid for as in (48).
//!
//! (48) adds up over users before it looks at a limit, so a user may stay below it as long as others stay above; and what
//! it asks for a violation is fixed. Here each limit has a multiplier λ_j, and a slot's reward becomes
//! `(r − Σ_j λ_j·c_j) / (1 + Σ_j λ_j)` with c_j the share of users that break limit j. After every rollout each
//! multiplier moves by dual ascent, `λ_j ← max(0, λ_j + rate·(mean c_j − allowed))`: it grows for as long as the limit is
//! broken too often, and so finds the price at which it no longer is (Ray, Achiam, Amodei 2019, "Benchmarking safe
//! exploration", section 5). The division keeps the critic's targets of one size while prices grow.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::checkpoint::{read_state, write_state};
use super::error::TrainError;
use super::hyper::{HyperParameters, below, hyper_parameters, over_zero, part};
use super::on_policy::{self, Algorithm, Learner, Rollout};
use super::ppo::{self, PpoConfig};
use super::run::Run;
use super::session::Job;
use super::stop::{Ending, UpdateGuard};

/// The limits, as their multipliers are named in the metrics.
const LIMITS: [&str; 3] = ["accuracy", "hallucination", "energy"];

hyper_parameters! {
    /// Hyper-parameters of PPO with multipliers.
    pub struct LagrangianConfig, fits LagrangianConfig::ppo_fits => {
        /// Share of users and slots that may break a limit. A policy that breaks one more often in its evaluation is never
        /// kept as the best while there is one that does not.
        allowed: f32 = 0.005 => below(0.0, 1.0);
        /// Step of the multipliers' dual ascent, per unit of the share of violations.
        rate: f32 = 0.5 => over_zero(1000.0);
        /// The PPO underneath.
        ppo: PpoConfig = PpoConfig::default() => part::<PpoConfig>();
    }
}

impl LagrangianConfig {
    /// Tuned PPO underneath.
    pub fn tuned() -> Self {
        Self { ppo: PpoConfig::tuned(), ..Self::default() }
    }

    fn ppo_fits(&self) -> Result<(), String> {
        self.ppo.fits_together()
    }
}

/// One multiplier a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Multipliers([f32; 3]);

impl Multipliers {
    /// Rewards less the price of what was broken.
    fn priced(self, rewards: &[f32], broken: &[[f32; 3]]) -> Vec<f32> {
        let whole = 1.0 + self.0.iter().sum::<f32>();
        let price = |broken: &[f32; 3]| -> f32 { self.0.iter().zip(broken).map(|(price, share)| price * share).sum() };
        rewards.iter().zip(broken).map(|(reward, broken)| (reward - price(broken)) / whole).collect()
    }

    /// Dual ascent on the mean shares of a rollout.
    fn ascend(&mut self, config: &LagrangianConfig, shares: [f32; 3]) {
        for (price, share) in self.0.iter_mut().zip(shares) {
            *price = (*price + config.rate * (share - config.allowed)).max(0.0);
        }
    }
}

fn mean_shares(broken: &[[f32; 3]]) -> [f32; 3] {
    let count = broken.len().max(1) as f32;
    [0, 1, 2].map(|limit| broken.iter().map(|row| row[limit]).sum::<f32>() / count)
}

const STATE_FILE: &str = "multipliers.cbor";

struct Lagrangian<'a> {
    config: &'a LagrangianConfig,
    multipliers: Multipliers,
}

impl<'a> Lagrangian<'a> {
    fn open(config: &'a LagrangianConfig, run: &Run) -> Result<Self, TrainError> {
        let fresh = run.progress.update == 0;
        let multipliers = if fresh { Multipliers::default() } else { read_state(&run.checkpoint_file(STATE_FILE))? };
        Ok(Self { config, multipliers })
    }
}

impl Algorithm for Lagrangian<'_> {
    fn rollout_steps(&self) -> usize {
        self.config.ppo.rollout_steps
    }

    fn rate(&self, update: u64, updates: u64) -> f64 {
        self.config.ppo.rate(update, updates)
    }

    fn allowed(&self) -> Option<f64> {
        Some(f64::from(self.config.allowed))
    }

    fn learn(
        &mut self,
        learner: &mut Learner,
        rollout: &Rollout,
        rate: f64,
        guard: UpdateGuard<'_>,
    ) -> Result<BTreeMap<String, f64>, TrainError> {
        let broken = &rollout.experience.broken;
        let priced = self.multipliers.priced(&rollout.rewards, broken);
        let mut losses = ppo::improve(&self.config.ppo, learner, rollout, &priced, rate, guard)?;
        let shares = mean_shares(broken);
        self.multipliers.ascend(self.config, shares);
        for ((limit, price), share) in LIMITS.iter().zip(self.multipliers.0).zip(shares) {
            losses.insert(format!("losses/multiplier_{limit}"), f64::from(price));
            losses.insert(format!("losses/broken_{limit}"), f64::from(share));
        }
        Ok(losses)
    }

    fn save(&self, folder: &Path) -> Result<(), TrainError> {
        write_state(&folder.join(STATE_FILE), &self.multipliers)
    }
}

/// Trains into a run folder, from its checkpoint if it has one.
///
/// # Errors
/// See [`crate::train`].
pub fn train(job: Job<'_>, config: &LagrangianConfig) -> Result<Ending, TrainError> {
    let settings = job.settings;
    on_policy::train(job, |rng| config.ppo.networks(settings, rng), |run| Lagrangian::open(config, run))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multipliers_price_what_is_broken_and_follow_it() {
        let config = LagrangianConfig { allowed: 0.1, rate: 2.0, ..LagrangianConfig::default() };
        let broken = [[0.5, 0.0, 0.0], [0.0, 1.0, 0.0]];
        let mut multipliers = Multipliers::default();
        assert_eq!(multipliers.priced(&[3.0, 4.0], &broken), [3.0, 4.0]);
        multipliers.ascend(&config, mean_shares(&broken));
        // 2·(0.25 − 0.1), 2·(0.5 − 0.1), never below 0
        let Multipliers([accuracy, hallucination, energy]) = multipliers;
        assert!((accuracy - 0.3).abs() < 1e-6 && (hallucination - 0.8).abs() < 1e-6 && energy == 0.0);
        let priced = multipliers.priced(&[3.0, 4.0], &broken);
        assert!((priced[0] - (3.0 - 0.15) / 2.1).abs() < 1e-6 && (priced[1] - (4.0 - 0.8) / 2.1).abs() < 1e-6);
        multipliers.ascend(&config, [0.0; 3]);
        assert!((multipliers.0[0] - 0.1).abs() < 1e-6, "a limit that is kept gets cheaper");
        multipliers.ascend(&config, [0.0; 3]);
        assert_eq!(multipliers.0[0], 0.0);
    }
}
