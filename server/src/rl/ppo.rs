//! Proximal policy optimisation, (31)–(33), readable from top to bottom.
//!
//! Details that matter, and where they come from: separate actor and critic with orthogonal weights and a head of gain 0.01
//! (cleanrl, "37 implementation details"); advantages normalised over the whole batch; clipped surrogate; gradient norm
//! clipped at 0.5; learning rate annealed to 0; Adam with ε = 1e-5; time limits bootstrapped, not taken for ends.
//! Ours: Beta-distributed actions in the equal-received-power map, many environments, and γ = 0 by default, because in the
//! paper's system no action moves the state: every slot is a problem of its own, and any longer credit only adds noise.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use burn::grad_clipping::GradientClippingConfig;
use burn::module::Module;
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::Device;
use client_core::mec::world::nth_seed;
use client_core::policy::{Activation, Actor, ActorConfig};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

use super::Ending;
use super::beta;
use super::config::TrainConfig;
use super::nets::{self, Critic, column, host, rows};
use super::rollout::{Collector, Experience};
use super::run::{Progress, Run, TrainError};
use super::session::{Session, Update};

/// How advantages are estimated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Credit {
    /// γ = 0: the reward minus the value of the state, a contextual bandit.
    Bandit,
    /// One-step temporal difference.
    Td0,
    /// Generalised advantage estimation with λ.
    Gae,
}

/// Hyper-parameters; the paper's values, where it prints any, in brackets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PpoConfig {
    /// Estimator of the advantage.
    pub credit: Credit,
    /// Discount γ (0.99); [`Credit::Bandit`] takes 0.
    pub gamma: f32,
    /// λ of [`Credit::Gae`].
    pub gae_lambda: f32,
    /// Learning rate at the start (1e-5, with which nothing is learned in the paper's 150 episodes). With Beta policies
    /// and γ = 0 the updates are so calm that 1e-3 is steady, and faster than the usual 3e-4.
    pub learning_rate: f64,
    /// Whether the learning rate falls linearly to 0.
    pub anneal: bool,
    /// Steps of every environment in a rollout.
    pub rollout_steps: usize,
    /// Passes over a rollout (10).
    pub epochs: usize,
    /// Rows of a gradient step. Small ones: it is the number of steps that counts here, not the rows in them.
    pub minibatch: usize,
    /// Clip range ε of (32) (0.1).
    pub clip: f32,
    /// Weight of the entropy (0.001).
    pub entropy: f32,
    /// Weight of the critic's loss.
    pub value: f32,
    /// Largest norm of a parameter's gradient.
    pub max_grad_norm: f32,
    /// Units of the two hidden layers of actor and critic (256, 256).
    pub hidden: Vec<usize>,
    /// Nonlinearity.
    pub activation: Activation,
}

impl Default for PpoConfig {
    fn default() -> Self {
        Self {
            credit: Credit::Bandit,
            gamma: 0.99,
            gae_lambda: 0.95,
            learning_rate: 1e-3,
            anneal: true,
            rollout_steps: 16,
            epochs: 4,
            minibatch: 128,
            clip: 0.2,
            entropy: 0.001,
            value: 0.5,
            max_grad_norm: 0.5,
            hidden: vec![256, 256],
            activation: Activation::Tanh,
        }
    }
}

#[derive(Module, Debug)]
struct Agent {
    actor: Actor,
    critic: Critic,
}

/// Advantages and the critic's targets, one of each a row. Rows are step after step, within a step environment after
/// environment.
fn advantages(
    config: &PpoConfig,
    envs: usize,
    rewards: &[f32],
    truncated: &[bool],
    values: &[f32],
    next_values: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let mut advantage = vec![0.0; rewards.len()];
    let gamma = if config.credit == Credit::Bandit { 0.0 } else { config.gamma };
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

fn mean_and_deviation(values: &[f32]) -> (f32, f32) {
    let count = values.len().max(1) as f32;
    let mean = values.iter().sum::<f32>() / count;
    let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / count;
    (mean, variance.sqrt())
}

/// Sums over minibatches of what is logged.
#[derive(Default)]
struct Losses {
    value: f64,
    policy: f64,
    entropy: f64,
    old_kl: f64,
    kl: f64,
    clipped: f64,
    count: f64,
}

impl Losses {
    /// Means, under cleanrl's keys: the critic's mean squared error, the clipped surrogate, the policy's entropy, the means
    /// of −ln ρ and of ρ − 1 − ln ρ, the share of ratios outside the clip range; and
    /// 1 − Var(target − value) / Var(target) from before the update.
    fn named(&self, explained_variance: f64) -> BTreeMap<String, f64> {
        let means = [
            ("losses/value_loss", self.value),
            ("losses/policy_loss", self.policy),
            ("losses/entropy", self.entropy),
            ("losses/old_approx_kl", self.old_kl),
            ("losses/approx_kl", self.kl),
            ("losses/clipfrac", self.clipped),
        ];
        let mut out: BTreeMap<_, _> =
            means.into_iter().map(|(name, sum)| (name.to_owned(), sum / self.count)).collect();
        out.insert("losses/explained_variance".to_owned(), explained_variance);
        out
    }
}

struct Learner<'a> {
    config: &'a PpoConfig,
    agent: Agent,
    optimiser: ModuleOptimizer,
    device: Device,
    plain: Device,
    rng: Xoshiro256PlusPlus,
    inputs: usize,
    actions: usize,
}

impl Learner<'_> {
    /// One gradient step on the rows `batch`.
    #[allow(clippy::too_many_arguments)]
    fn step(
        &mut self,
        experience: &Experience,
        batch: &[usize],
        old_log_prob: &[f32],
        advantage: &[f32],
        target: &[f32],
        rate: f64,
        sums: &mut Losses,
    ) -> bool {
        let pick = |values: &[f32], width: usize| -> Vec<f32> {
            batch.iter().flat_map(|row| values[row * width..(row + 1) * width].iter().copied()).collect()
        };
        let device = &self.device;
        let features = rows(&pick(&experience.features, self.inputs), self.inputs, device); // [batch, inputs]
        let actions = rows(&pick(&experience.actions, self.actions), self.actions, device); // [batch, actions]
        let old = column(&pick(old_log_prob, 1), device); // [batch]
        let advantage = column(&pick(advantage, 1), device); // [batch]
        let target = column(&pick(target, 1), device); // [batch]

        let parameters = self.agent.actor.forward(features.clone());
        let log_ratio = beta::log_prob(&parameters, &actions) - old;
        let ratio = log_ratio.clone().exp(); // (31)
        let clipped = ratio.clone().clamp(1.0 - self.config.clip, 1.0 + self.config.clip);
        let surrogate = (ratio.clone() * advantage.clone()).min_pair(clipped * advantage); // (32)
        let policy_loss = surrogate.mean().neg();
        let entropy = beta::entropy(&parameters).mean();
        let value = self.agent.critic.forward(features, self.config.activation);
        let error = value - target;
        let value_loss = (error.clone() * error).mean(); // (33)
        let loss = policy_loss.clone() + value_loss.clone().mul_scalar(self.config.value)
            - entropy.clone().mul_scalar(self.config.entropy);

        let total = loss.clone().into_scalar::<f32>();
        if !total.is_finite() {
            return false;
        }
        let log_ratios = host(log_ratio.inner());
        let count = log_ratios.len().max(1) as f64;
        for log in log_ratios.iter().map(|l| f64::from(*l)) {
            sums.old_kl += -log / count;
            sums.kl += (log.exp() - 1.0 - log) / count;
            sums.clipped += f64::from(u8::from((log.exp() - 1.0).abs() > f64::from(self.config.clip))) / count;
        }
        sums.value += f64::from(value_loss.into_scalar::<f32>());
        sums.policy += f64::from(policy_loss.into_scalar::<f32>());
        sums.entropy += f64::from(entropy.into_scalar::<f32>());
        sums.count += 1.0;

        let gradients = GradientsParams::from_grads(loss.backward(), &self.agent);
        self.agent = self.optimiser.step(rate, self.agent.clone(), gradients);
        true
    }

    /// Values of states, without gradients.
    fn values(&self, features: &[f32]) -> Vec<f32> {
        let critic = self.agent.critic.valid();
        host(critic.forward(rows(features, self.inputs, &self.plain), self.config.activation))
    }

    fn save(&self, run: &mut Run, progress: &Progress) -> Result<(), TrainError> {
        run.checkpoint(progress, |folder| {
            nets::save_module(&self.agent, &folder.join("agent.bpk"))?;
            nets::save_optimiser(&self.optimiser, &folder.join("optimiser.bpk"))
        })
    }
}

/// Trains into a run folder, from its checkpoint if it has one.
///
/// A resumed run continues with the same weights, optimiser and counters, in fresh worlds.
///
/// # Errors
/// See [`super::train`].
pub fn train(config: &TrainConfig, run: &mut Run, stop: &AtomicBool) -> Result<Ending, TrainError> {
    let ppo = &config.ppo;
    let plain = Device::flex();
    let device = Device::flex().autodiff();
    // Streams of their own for weights, worlds, exploration and evaluation; a resumed run must not live through the same
    // worlds again.
    let stream = |n: u64| nth_seed(config.seed, n + 16 * run.progress.update);
    device.seed(stream(0));
    plain.seed(stream(0));
    let actor_config =
        ActorConfig { hidden: ppo.hidden.clone(), activation: ppo.activation, ..ActorConfig::new(config.mec.users) };
    let agent = Agent {
        actor: actor_config.init(&device),
        critic: Critic::orthogonal(actor_config.inputs(), &ppo.hidden, &device),
    };
    let optimiser = AdamConfig::new()
        .with_epsilon(1e-5)
        .with_grad_clipping(Some(GradientClippingConfig::Norm(ppo.max_grad_norm)))
        .init();
    let mut learner = Learner {
        config: ppo,
        agent,
        optimiser,
        device,
        plain: plain.clone(),
        rng: Xoshiro256PlusPlus::seed_from_u64(stream(1)),
        inputs: actor_config.inputs(),
        actions: actor_config.actions(),
    };
    if run.progress.update > 0 {
        learner.agent = nets::load_module(learner.agent, &run.checkpoint_file("agent.bpk"))?;
        learner.optimiser = nets::load_optimiser(learner.optimiser, &run.checkpoint_file("optimiser.bpk"))?;
    }
    let mut collector = Collector::new(config.mec, config.envs, stream(2), config.action_map);

    let batch = (config.envs * ppo.rollout_steps) as u64;
    let mut session = Session::open(config, run, stop, actor_config, batch)?;
    while session.progress.update < session.updates {
        let progress = &mut session.progress;
        let left = 1.0 - progress.update as f64 / session.updates as f64;
        let rate = if ppo.anneal { ppo.learning_rate * left } else { ppo.learning_rate };

        // Experience.
        let actor = learner.agent.actor.valid();
        let experience = collector.collect(&actor, ppo.rollout_steps, &plain, &mut learner.rng);
        if progress.reward_scale == 0.0 {
            // Rewards differ tenfold from K = 1 to K = 5; the critic should not have to.
            progress.reward_scale = 1.0 / mean_and_deviation(&experience.rewards).1.max(1e-6);
        }
        let rewards: Vec<f32> = experience.rewards.iter().map(|r| r * progress.reward_scale).collect();

        // Advantages.
        let values = learner.values(&experience.features);
        let next_values = match ppo.credit {
            Credit::Bandit => vec![0.0; rewards.len()],
            Credit::Td0 | Credit::Gae => learner.values(&experience.next_features),
        };
        let (mut advantage, target) =
            advantages(ppo, config.envs, &rewards, &experience.truncated, &values, &next_values);
        let (mean, deviation) = mean_and_deviation(&advantage);
        advantage.iter_mut().for_each(|a| *a = (*a - mean) / (deviation + 1e-8));
        let residual: Vec<f32> = target.iter().zip(&values).map(|(t, v)| t - v).collect();
        let target_variance = f64::from(mean_and_deviation(&target).1).powi(2);
        let explained_variance = 1.0 - f64::from(mean_and_deviation(&residual).1).powi(2) / target_variance.max(1e-12);
        let features = rows(&experience.features, learner.inputs, &plain);
        let actions = rows(&experience.actions, learner.actions, &plain);
        let old_log_prob = host(beta::log_prob(&actor.forward(features), &actions));

        // Gradient steps.
        let mut sums = Losses::default();
        let mut order: Vec<usize> = (0..rewards.len()).collect();
        for _ in 0..ppo.epochs {
            order.shuffle(&mut learner.rng);
            for rows in order.chunks(ppo.minibatch.max(1)) {
                if !learner.step(&experience, rows, &old_log_prob, &advantage, &target, rate, &mut sums) {
                    return Err(TrainError::NotANumber { update: progress.update, what: "loss" });
                }
            }
        }

        let actor = learner.agent.actor.valid();
        let next = session.finish_update(Update {
            actor: &actor,
            steps: batch,
            mean_reward: experience.mean_reward(),
            learning_rate: rate,
            losses: sums.named(explained_variance),
        })?;
        if next.checkpoint {
            learner.save(session.run, &session.progress)?;
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
