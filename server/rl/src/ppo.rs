//! Proximal policy optimisation, (31)–(33), readable from top to bottom; the losses and a gradient step of its networks, which
//! world-model PPO shares, are in [`actor_critic`](super::actor_critic).
//!
//! Details that matter, and where they come from: separate actor and critic with orthogonal weights and a head of gain 0.01
//! (cleanrl, "37 implementation details"); advantages normalised over the whole batch; clipped surrogate; gradient norm
//! clipped at 0.5; Adam with ε = 1e-5; time limits bootstrapped, not taken for ends.
//! Ours: Beta-distributed actions, whose exact entropy stands for the sampled one of (42); and minibatches of equal size,
//! since a last one of a few rows would move the networks as far as a full one.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use mec::WorldSnapshot;
use mec::world::nth_seed;
use policy::Activation;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

use super::Ending;
use super::actor_critic::{ActorCritic, Batch, Losses};
use super::config::TrainConfig;
use super::mlp::MlpState;
use super::rollout::{Collector, Experience};
use super::run::{Progress, Run, TrainError, read_state, write_state};
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

/// Hyper-parameters of PPO. The defaults are the paper's, where it prints any; the tuned ones are in brackets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PpoConfig {
    /// Estimator of the advantage (bandit, except where decisions move the state).
    pub credit: Credit,
    /// Discount γ; [`Credit::Bandit`] takes 0.
    pub gamma: f32,
    /// λ of [`Credit::Gae`].
    pub gae_lambda: f32,
    /// Learning rate at the start. The paper prints 1e-5, with which nothing is learned in its 150 episodes; this is the
    /// usual one (1e-3: with Beta policies the updates are calm enough for it).
    pub learning_rate: f64,
    /// Whether the learning rate falls linearly to 0 (yes).
    pub anneal: bool,
    /// Steps of every environment in a rollout: the paper's whole episode (16).
    pub rollout_steps: usize,
    /// Passes over a rollout (4).
    pub epochs: usize,
    /// Rows of a gradient step at most (128).
    pub minibatch: usize,
    /// Clip range ε of (32) (0.2).
    pub clip: f32,
    /// Weight β_ent of the entropy, (42).
    pub entropy: f32,
    /// Largest norm of the gradient of a network.
    pub max_grad_norm: f32,
    /// Units of the two hidden layers of actor and critic.
    pub hidden: Vec<usize>,
    /// Nonlinearity.
    pub activation: Activation,
}

impl Default for PpoConfig {
    fn default() -> Self {
        Self {
            credit: Credit::Gae,
            gamma: 0.99,
            gae_lambda: 0.95,
            learning_rate: 3e-4,
            anneal: false,
            rollout_steps: 200,
            epochs: 10,
            minibatch: 64,
            clip: 0.1,
            entropy: 0.001,
            max_grad_norm: 0.5,
            hidden: vec![256, 256],
            activation: Activation::Tanh,
        }
    }
}

impl PpoConfig {
    /// What works. γ = 0 because in the paper's system no action moves the state: every slot is a problem of its own, and
    /// any longer credit only adds noise. Small minibatches: it is the number of steps that counts here, not the rows in
    /// them.
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

    /// What makes training impossible, in words.
    ///
    /// # Errors
    /// When a number is out of its range.
    pub fn validate(&self) -> Result<(), String> {
        let positive = |name: &str, fine: bool| if fine { Ok(()) } else { Err(format!("{name} must be over 0")) };
        let share = |name: &str, v: f32| {
            if (0.0..=1.0).contains(&v) { Ok(()) } else { Err(format!("{name} must be from 0 to 1, but is {v}")) }
        };
        share("gamma", self.gamma)?;
        share("gae_lambda", self.gae_lambda)?;
        positive("learning_rate", self.learning_rate > 0.0 && self.learning_rate.is_finite())?;
        positive("rollout_steps", self.rollout_steps > 0)?;
        positive("epochs", self.epochs > 0)?;
        positive("minibatch", self.minibatch > 0)?;
        positive("clip", self.clip > 0.0)?;
        positive("max_grad_norm", self.max_grad_norm > 0.0)?;
        positive("every layer of hidden", !self.hidden.is_empty() && self.hidden.iter().all(|units| *units > 0))?;
        if self.entropy >= 0.0 { Ok(()) } else { Err(format!("entropy must not be negative, but is {}", self.entropy)) }
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

/// Mean and standard deviation.
pub fn mean_and_deviation(values: &[f32]) -> (f32, f32) {
    let count = values.len().max(1) as f32;
    let mean = values.iter().sum::<f32>() / count;
    let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / count;
    (mean, variance.sqrt())
}

/// Shifts and scales to mean 0 and deviation 1.
pub fn normalise(values: &mut [f32]) {
    let (mean, deviation) = mean_and_deviation(values);
    values.iter_mut().for_each(|v| *v = (*v - mean) / (deviation + 1e-8));
}

/// 1 − Var(target − value) / Var(target).
pub fn explained_variance(target: &[f32], values: &[f32]) -> f64 {
    let residual: Vec<f32> = target.iter().zip(values).map(|(t, v)| t - v).collect();
    let variance = |values: &[f32]| f64::from(mean_and_deviation(values).1).powi(2);
    1.0 - variance(&residual) / variance(target).max(1e-12)
}

/// A pass over `count` rows in random order, in parts of equal size (or one apart) and of at most `most` rows.
pub fn minibatches(count: usize, most: usize, rng: &mut Xoshiro256PlusPlus) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(rng);
    let parts = count.div_ceil(most.max(1)).max(1);
    (0..parts).map(|i| order[i * count / parts..(i + 1) * count / parts].to_vec()).collect()
}

/// What both on-policy algorithms carry from update to update.
pub struct Learner {
    /// The networks.
    pub agent: ActorCritic,
    /// The environments.
    pub collector: Collector,
    /// Exploration and minibatches.
    pub rng: Xoshiro256PlusPlus,
}

/// [`Learner`] in a checkpoint.
#[derive(Serialize, Deserialize)]
struct LearnerState {
    actor: MlpState,
    critic: MlpState,
    rng: Xoshiro256PlusPlus,
    worlds: Vec<WorldSnapshot>,
}

const STATE_FILE: &str = "learner.cbor";

impl Learner {
    /// A fresh learner, or the one of the run's checkpoint if it has one.
    ///
    /// # Errors
    /// When the checkpoint cannot be read, or is not of this configuration.
    pub fn open(config: &TrainConfig, ppo: &PpoConfig, run: &Run) -> Result<Self, TrainError> {
        // Streams of their own for weights, exploration and worlds.
        let stream = |n: u64| nth_seed(config.seed, n);
        let mut weights = Xoshiro256PlusPlus::seed_from_u64(stream(0));
        let mut agent = ActorCritic::new(ppo, config.mec.users, &mut weights);
        if run.progress.update == 0 {
            let collector = Collector::new(config.mec, config.envs, stream(2), config.action_map);
            return Ok(Self { agent, collector, rng: Xoshiro256PlusPlus::seed_from_u64(stream(1)) });
        }
        let path = run.checkpoint_file(STATE_FILE);
        let state: LearnerState = read_state(&path)?;
        let damaged = |problem: String| TrainError::Damaged { path: path.clone(), problem };
        agent.actor.restore(state.actor).map_err(damaged)?;
        agent.critic.restore(state.critic).map_err(damaged)?;
        let collector = Collector::restore(config.mec, state.worlds, config.action_map);
        Ok(Self { agent, collector: collector.map_err(|e| damaged(e.to_string()))?, rng: state.rng })
    }

    /// Writes the learner into a checkpoint's folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, folder: &std::path::Path) -> Result<(), TrainError> {
        let state = LearnerState {
            actor: self.agent.actor.state(),
            critic: self.agent.critic.state(),
            rng: self.rng.clone(),
            worlds: self.collector.snapshot(),
        };
        write_state(&folder.join(STATE_FILE), &state)
    }

    /// Steps every environment `steps` times with sampled actions.
    pub fn collect(&mut self, steps: usize) -> Experience {
        let mut experience = Experience::default();
        for _ in 0..steps {
            let actions = self.agent.act(self.collector.features().to_vec(), &mut self.rng);
            self.collector.step(&actions, &mut experience);
        }
        experience
    }

    /// An update of both networks from a rollout and its rewards as they are to be learned; what [`Losses::named`] tells of
    /// it, or `None` if a loss or a gradient was no number.
    pub fn improve(
        &mut self,
        ppo: &PpoConfig,
        experience: &Experience,
        rewards: &[f32],
        rate: f64,
    ) -> Option<BTreeMap<String, f64>> {
        let values = self.agent.values(&experience.features);
        let next_values = match ppo.credit {
            Credit::Bandit => vec![0.0; rewards.len()],
            Credit::Td0 | Credit::Gae => self.agent.values(&experience.next_features),
        };
        let envs = self.collector.envs();
        let (advantage, target) = advantages(ppo, envs, rewards, &experience.truncated, &values, &next_values);
        let explained = explained_variance(&target, &values);
        let rollout = self.batch(experience, advantage, target);
        let mut sums = Losses::default();
        for _ in 0..ppo.epochs {
            for rows in minibatches(rollout.len(), ppo.minibatch, &mut self.rng) {
                if !self.agent.step(ppo, &rollout.select(&rows), None, rate, &mut sums) {
                    return None;
                }
            }
        }
        Some(sums.named(explained))
    }

    /// The rows of a rollout with its advantages, normalised, and targets.
    pub fn batch(&self, experience: &Experience, mut advantage: Vec<f32>, target: Vec<f32>) -> Batch {
        normalise(&mut advantage);
        Batch {
            features: experience.features.clone(),
            actions: experience.actions.clone(),
            old_log_prob: self.agent.log_probs(&experience.features, &experience.actions),
            advantage,
            target,
        }
    }
}

/// Rewards as the networks see them. They differ tenfold from K = 1 to K = 5; the critic should not have to, so they are
/// measured in deviations of the first rollout's.
pub fn scaled_rewards(progress: &mut Progress, rewards: &[f32]) -> Vec<f32> {
    if progress.reward_scale == 0.0 {
        progress.reward_scale = 1.0 / mean_and_deviation(rewards).1.max(1e-6);
    }
    rewards.iter().map(|r| r * progress.reward_scale).collect()
}

/// Trains into a run folder, from its checkpoint if it has one: on one thread a resumed run goes on as if it had never
/// stopped.
///
/// # Errors
/// See [`super::train`].
pub fn train(config: &TrainConfig, run: &mut Run, stop: &AtomicBool) -> Result<Ending, TrainError> {
    let ppo = &config.ppo;
    let mut learner = Learner::open(config, ppo, run)?;
    let batch = (config.envs * ppo.rollout_steps) as u64;
    let mut session = Session::open(config, run, stop, learner.agent.shape.clone().into(), batch)?;
    while session.progress.update < session.updates {
        let update = session.progress.update;
        let rate = ppo.rate(update, session.updates);

        let experience = learner.collect(ppo.rollout_steps);
        let rewards = scaled_rewards(&mut session.progress, &experience.rewards);

        let losses = learner.improve(ppo, &experience, &rewards, rate);
        let losses = losses.ok_or(TrainError::NotANumber { update, what: "loss or gradient" })?;
        let next = session.finish_update(Update {
            network: &learner.agent.actor.actor(&learner.agent.shape).into(),
            steps: batch,
            mean_reward: experience.mean_reward(),
            learning_rate: rate,
            losses,
        })?;
        if next.checkpoint {
            session.run.checkpoint(&session.progress, |folder| learner.save(folder))?;
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

    #[test]
    fn minibatches_are_even_and_cover_every_row_once() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        for (count, most, sizes) in [(200, 64, vec![50; 4]), (7, 3, vec![2, 2, 3]), (5, 64, vec![5])] {
            let parts = minibatches(count, most, &mut rng);
            assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), sizes);
            let mut all: Vec<usize> = parts.concat();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..count));
        }
    }
}
