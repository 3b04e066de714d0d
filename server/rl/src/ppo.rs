//! Proximal policy optimisation, (31)–(33), readable from top to bottom; the losses and a gradient step of its networks are in
//! [`actor_critic`](super::actor_critic), collecting and reporting in [`on_policy`](super::on_policy).
//!
//! Details that matter, and where they come from: separate actor and critic with orthogonal weights and a head of gain 0.01
//! (cleanrl, "37 implementation details"); advantages normalised over the whole batch; clipped surrogate; gradient norm
//! clipped at 0.5; Adam with ε = 1e-5; time limits bootstrapped, not taken for ends.
//! Ours: Beta-distributed actions, whose exact entropy stands for the sampled one of (42); and minibatches of equal size,
//! since a last one of a few rows would move the networks as far as a full one.

use std::collections::BTreeMap;

use policy::{Activation, Head};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

use super::actor_critic::{ActorCritic, Losses, Objective};
use super::error::TrainError;
use super::hyper::{activation, choice, hyper_parameters, layers, learning_rate, over_zero, switch, whole, within};
use super::on_policy::{self, Algorithm, Learner, Rollout};
use super::session::Job;
use super::settings::RunSettings;
use super::stats::{explained_variance, minibatches};
use super::stop::{Ending, UpdateGuard};

/// How advantages are estimated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Credit {
    /// γ = 0: the reward minus the value of the state, a contextual bandit.
    Bandit,
    /// One-step temporal difference.
    Td0,
    /// Generalised advantage estimation with λ.
    Gae,
}

hyper_parameters! {
    /// Hyper-parameters of PPO. The defaults are the paper's, where it prints any. It prints a learning rate of 1e-5, with
    /// which nothing is learned in its 150 episodes; the one here is the usual one.
    pub struct PpoConfig => {
        /// Estimator of the advantage: bandit (γ = 0: reward minus value), one-step temporal difference, or GAE with λ.
        credit: Credit = Credit::Gae => choice(&["bandit", "td0", "gae"]);
        /// Discount γ; the bandit estimator takes 0.
        gamma: f32 = 0.99 => within(0.0, 1.0);
        /// λ of generalised advantage estimation.
        gae_lambda: f32 = 0.95 => within(0.0, 1.0);
        /// Learning rate at the start.
        learning_rate: f64 = 3e-4 => learning_rate();
        /// Whether the learning rate falls linearly to 0.
        anneal: bool = false => switch();
        /// Steps of every environment in a rollout: the paper's whole episode.
        rollout_steps: usize = 200 => whole(1, 3200), "slots";
        /// Passes over a rollout.
        epochs: usize = 10 => whole(1, 160);
        /// Rows of a gradient step at most.
        minibatch: usize = 64 => whole(1, 65_536), "rows";
        /// Clip range ε of (32).
        clip: f32 = 0.1 => over_zero(10.0);
        /// Weight of the entropy, β_ent of (42).
        entropy: f32 = 0.001 => within(0.0, 1000.0);
        /// Largest norm of the gradient of a network.
        max_grad_norm: f32 = 0.5 => over_zero(1000.0);
        /// Units of the hidden layers of actor and critic.
        hidden: Vec<usize> = vec![256, 256] => layers(), "units";
        /// Nonlinearity.
        activation: Activation = Activation::Tanh => activation();
    }
}

impl PpoConfig {
    /// What works. γ = 0 because in the paper's system no action moves the state: every slot is a problem of its own, and
    /// any longer credit only adds noise. Small minibatches: it is the number of steps that counts here, not the rows in
    /// them. With Beta policies the updates are calm enough for a high learning rate.
    pub fn tuned() -> Self {
        Self {
            credit: Credit::Bandit,
            learning_rate: 1e-3,
            anneal: true,
            rollout_steps: 16,
            epochs: 4,
            minibatch: 128,
            clip: 0.2,
            ..Self::default()
        }
    }

    /// γ, as the estimator takes it.
    pub fn discount(&self) -> f32 {
        if self.credit == Credit::Bandit { 0.0 } else { self.gamma }
    }

    /// Learning rate of an update.
    pub fn rate(&self, update: u64, updates: u64) -> f64 {
        let left = 1.0 - update as f64 / updates.max(1) as f64;
        if self.anneal { self.learning_rate * left } else { self.learning_rate }
    }

    /// What a gradient step minimises.
    pub fn objective(&self) -> Objective {
        Objective { clip: self.clip, entropy: self.entropy, max_grad_norm: self.max_grad_norm }
    }

    /// Fresh networks for a run.
    pub fn networks(&self, settings: &RunSettings, rng: &mut Xoshiro256PlusPlus) -> ActorCritic {
        ActorCritic::new(settings.actor(&self.hidden, self.activation, Head::Beta), rng)
    }
}

/// Advantages and the critic's targets, one of each a row. Rows are step after step, within a step environment after
/// environment.
pub fn advantages(
    config: &PpoConfig,
    envs: usize,
    rewards: &[f32],
    truncated: &[bool],
    values: &[f32],
    next_values: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let mut advantage = vec![0.0; rewards.len()];
    let gamma = config.discount();
    let lambda = if config.credit == Credit::Gae { config.gae_lambda } else { 0.0 };
    for row in (0..rewards.len()).rev() {
        let delta = rewards[row] + gamma * next_values[row] - values[row];
        // A time limit ends the trace but not the value of what would have come.
        let follows = row + envs < rewards.len() && !truncated[row];
        let later = if follows { advantage[row + envs] } else { 0.0 };
        advantage[row] = delta + gamma * lambda * later;
    }
    let targets = advantage.iter().zip(values).map(|(a, v)| a + v).collect();
    (advantage, targets)
}

/// An update of both networks from a rollout and its rewards as they are to be learned. Returns what [`Losses::named`] tells
/// of it.
///
/// # Errors
/// When a loss or a gradient is NaN or infinite, or the run is to stop.
pub fn improve(
    ppo: &PpoConfig,
    learner: &mut Learner,
    rollout: &Rollout,
    rewards: &[f32],
    rate: f64,
    guard: UpdateGuard<'_>,
) -> Result<BTreeMap<String, f64>, TrainError> {
    let experience = &rollout.experience;
    let values = learner.agent.values(&experience.features, guard)?;
    let next_values = match ppo.credit {
        Credit::Bandit => vec![0.0; rewards.len()],
        Credit::Td0 | Credit::Gae => learner.agent.values(&experience.next_features, guard)?,
    };
    let envs = learner.collector.envs();
    let (advantage, target) = advantages(ppo, envs, rewards, &experience.truncated, &values, &next_values);
    let explained = explained_variance(&target, &values);
    let rows = learner.batch(experience, advantage, target, guard)?;
    let mut sums = Losses::default();
    for _ in 0..ppo.epochs {
        for minibatch in minibatches(rows.len(), ppo.minibatch, &mut learner.rng) {
            guard.check()?;
            let finite = learner.agent.step(&ppo.objective(), &rows.select(&minibatch), None, rate, &mut sums);
            guard.finite(finite, "loss or gradient")?;
        }
    }
    Ok(sums.named(explained))
}

struct Ppo<'a>(&'a PpoConfig);

impl Algorithm for Ppo<'_> {
    fn rollout_steps(&self) -> usize {
        self.0.rollout_steps
    }

    fn rate(&self, update: u64, updates: u64) -> f64 {
        self.0.rate(update, updates)
    }

    fn learn(
        &mut self,
        learner: &mut Learner,
        rollout: &Rollout,
        rate: f64,
        guard: UpdateGuard<'_>,
    ) -> Result<BTreeMap<String, f64>, TrainError> {
        improve(self.0, learner, rollout, &rollout.rewards, rate, guard)
    }
}

/// Trains into a run folder, from its checkpoint if it has one.
///
/// # Errors
/// See [`crate::train`].
pub fn train(job: Job<'_>, config: &PpoConfig) -> Result<Ending, TrainError> {
    let settings = job.settings;
    on_policy::train(job, |rng| config.networks(settings, rng), |_| Ok(Ppo(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advantages_by_hand() {
        // Two environments, three steps; the first one's time limit falls after its second step.
        let rewards = [1.0, 10.0, 2.0, 20.0, 3.0, 30.0];
        let truncated = [false, false, true, false, false, false];
        let (values, next_values) = ([0.5; 6], [1.0; 6]);
        let of = |credit, gae_lambda| {
            let config = PpoConfig { credit, gamma: 0.5, gae_lambda, ..PpoConfig::default() };
            advantages(&config, 2, &rewards, &truncated, &values, &next_values)
        };
        let (bandit, targets) = of(Credit::Bandit, 0.9);
        assert_eq!(bandit, [0.5, 9.5, 1.5, 19.5, 2.5, 29.5]);
        assert_eq!(targets, rewards);
        let deltas = [1.0, 10.0, 2.0, 20.0, 3.0, 30.0]; // reward + 0.5·1 − 0.5
        assert_eq!(of(Credit::Td0, 0.9).0, deltas);
        assert_eq!(of(Credit::Gae, 0.0).0, deltas);
        // γλ = 0.25: the trace runs backwards within an environment and stops at the time limit.
        let last = 20.0 + 0.25 * 30.0;
        assert_eq!(of(Credit::Gae, 0.5).0, [1.0 + 0.25 * 2.0, 10.0 + 0.25 * last, 2.0, last, 3.0, 30.0]);
    }
}
