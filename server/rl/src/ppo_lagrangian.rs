//! PPO with Lagrange multipliers: the limits (30d)–(30f) held per user, instead of paid for as in (48).
//!
//! (48) adds up over users before it looks at a limit, so a user may stay below it as long as others stay above; and what
//! it asks for a violation is fixed. Here each limit has a multiplier λ_j, and a slot's reward becomes
//! `(r − Σ_j λ_j·c_j) / (1 + Σ_j λ_j)` with c_j the share of users that break limit j. After every rollout each
//! multiplier moves by dual ascent, `λ_j ← max(0, λ_j + rate·(mean c_j − allowed))`: it grows for as long as the limit is
//! broken too often, and so finds the price at which it no longer is (Ray, Achiam, Amodei 2019, "Benchmarking safe
//! exploration", section 5). The division keeps the critic's targets of one size while prices grow.

use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

use super::Ending;
use super::config::TrainConfig;
use super::ppo::{Learner, PpoConfig, scaled_rewards};
use super::run::{Run, TrainError, read_state, write_state};
use super::session::{Session, Update};

/// The limits, as their multipliers are named in the metrics.
const LIMITS: [&str; 3] = ["accuracy", "hallucination", "energy"];

/// Hyper-parameters of PPO with multipliers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LagrangianConfig {
    /// Share of users and slots that may break a limit. A policy that breaks one more often in its evaluation is never
    /// kept as the best while there is one that does not.
    pub allowed: f32,
    /// Step of the multipliers' dual ascent, per unit of the share of violations.
    pub rate: f32,
    /// The PPO underneath.
    pub ppo: PpoConfig,
}

impl Default for LagrangianConfig {
    fn default() -> Self {
        Self { allowed: 0.005, rate: 0.5, ppo: PpoConfig::default() }
    }
}

impl LagrangianConfig {
    /// Tuned PPO underneath.
    pub fn tuned() -> Self {
        Self { ppo: PpoConfig::tuned(), ..Self::default() }
    }

    /// What makes training impossible, in words.
    ///
    /// # Errors
    /// When a number is out of its range.
    pub fn validate(&self) -> Result<(), String> {
        self.ppo.validate()?;
        if !(0.0..1.0).contains(&self.allowed) {
            return Err(format!("allowed must be in 0..1, but is {}", self.allowed));
        }
        if self.rate > 0.0 && self.rate.is_finite() {
            Ok(())
        } else {
            Err(format!("rate must be over 0, but is {}", self.rate))
        }
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

/// Trains into a run folder, from its checkpoint if it has one: on one thread a resumed run goes on as if it had never
/// stopped.
///
/// # Errors
/// See [`super::train`].
pub fn train(config: &TrainConfig, run: &mut Run, stop: &AtomicBool) -> Result<Ending, TrainError> {
    let lagrangian = &config.ppo_lagrangian;
    let ppo = &lagrangian.ppo;
    let mut learner = Learner::open(config, ppo, run)?;
    let mut multipliers =
        if run.progress.update == 0 { Multipliers::default() } else { read_state(&run.checkpoint_file(STATE_FILE))? };
    let batch = (config.envs * ppo.rollout_steps) as u64;
    let mut session = Session::open(config, run, stop, learner.agent.shape.clone().into(), batch)?;
    session.allowed = Some(f64::from(lagrangian.allowed));
    while session.progress.update < session.updates {
        let update = session.progress.update;
        let rate = ppo.rate(update, session.updates);

        let experience = learner.collect(ppo.rollout_steps);
        let rewards = scaled_rewards(&mut session.progress, &experience.rewards);
        let priced = multipliers.priced(&rewards, &experience.broken);

        let losses = learner.improve(ppo, &experience, &priced, rate);
        let mut losses = losses.ok_or(TrainError::NotANumber { update, what: "loss or gradient" })?;
        let shares = mean_shares(&experience.broken);
        multipliers.ascend(lagrangian, shares);

        for ((limit, price), share) in LIMITS.iter().zip(multipliers.0).zip(shares) {
            losses.insert(format!("losses/multiplier_{limit}"), f64::from(price));
            losses.insert(format!("losses/broken_{limit}"), f64::from(share));
        }
        let next = session.finish_update(Update {
            network: &learner.agent.actor.actor(&learner.agent.shape).into(),
            steps: batch,
            mean_reward: experience.mean_reward(),
            learning_rate: rate,
            losses,
        })?;
        if next.checkpoint {
            session.run.checkpoint(&session.progress, |folder| {
                learner.save(folder)?;
                write_state(&folder.join(STATE_FILE), &multipliers)
            })?;
        }
        if next.stopped {
            return Ok(Ending::Stopped);
        }
    }
    Ok(Ending::Finished)
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
