//! Proximal policy optimisation, (31)–(33), readable from top to bottom; and the parts of it that world-model PPO shares.
//!
//! Details that matter, and where they come from: separate actor and critic with orthogonal weights and a head of gain 0.01
//! (cleanrl, "37 implementation details"); advantages normalised over the whole batch; clipped surrogate; gradient norm
//! clipped at 0.5; Adam with ε = 1e-5; time limits bootstrapped, not taken for ends.
//! Ours: Beta-distributed actions, whose exact entropy stands for the sampled one of (42); and minibatches of equal size,
//! since a last one of a few rows would move the networks as far as a full one.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use client_core::mec::WorldSnapshot;
use client_core::mec::world::nth_seed;
use client_core::policy::{Activation, ActorConfig};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

use super::Ending;
use super::beta::ActionBeta;
use super::config::TrainConfig;
use super::mlp::{Mlp, MlpState};
use super::nets::matrix;
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

/// Rows to learn from, one entry (or `inputs`, `actions` entries) each.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// States, `inputs` a row.
    pub features: Vec<f32>,
    /// Actions in [0, 1], `actions` a row.
    pub actions: Vec<f32>,
    /// Log-probability of the action when it was taken.
    pub old_log_prob: Vec<f32>,
    /// Advantages.
    pub advantage: Vec<f32>,
    /// The critic's targets.
    pub target: Vec<f32>,
}

impl Batch {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.target.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.target.is_empty()
    }

    /// Appends rows.
    pub fn extend(&mut self, more: Self) {
        self.features.extend(more.features);
        self.actions.extend(more.actions);
        self.old_log_prob.extend(more.old_log_prob);
        self.advantage.extend(more.advantage);
        self.target.extend(more.target);
    }

    /// Some of the rows.
    pub fn select(&self, chosen: &[usize]) -> Self {
        let pick = |values: &[f32]| -> Vec<f32> {
            let width = values.len() / self.len().max(1);
            chosen.iter().flat_map(|row| &values[row * width..(row + 1) * width]).copied().collect()
        };
        Self {
            features: pick(&self.features),
            actions: pick(&self.actions),
            old_log_prob: pick(&self.old_log_prob),
            advantage: pick(&self.advantage),
            target: pick(&self.target),
        }
    }
}

/// Rows that a world model imagined, and how they enter the loss.
#[derive(Clone, Debug)]
pub struct Imagined {
    /// The rows.
    pub batch: Batch,
    /// η of (41).
    pub weight: f32,
    /// By the clipped surrogate (32); else by the plain logarithm of (41), which ignores `old_log_prob`.
    pub clipped: bool,
    /// Whether the critic learns from them too.
    pub critic: bool,
}

impl Imagined {
    /// Some of the rows, entering alike.
    pub fn select(&self, chosen: &[usize]) -> Self {
        Self { batch: self.batch.select(chosen), ..*self }
    }
}

/// Sums over minibatches of what is logged.
#[derive(Default)]
pub struct Losses {
    value: f64,
    policy: f64,
    imagined: f64,
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
    pub fn named(&self, explained_variance: f64) -> BTreeMap<String, f64> {
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

    /// Mean of the imagination loss (41).
    pub fn imagination(&self) -> f64 {
        self.imagined / self.count
    }
}

/// The clipped surrogate of one row, (32), and its derivative by the log-probability; both to be ascended.
fn surrogate(log_ratio: f64, advantage: f64, clip: f64) -> (f64, f64) {
    let ratio = log_ratio.exp(); // (31)
    let (free, clipped) = (ratio * advantage, ratio.clamp(1.0 - clip, 1.0 + clip) * advantage);
    if free <= clipped { (free, free) } else { (clipped, 0.0) }
}

/// Actor and critic with their optimisers.
pub struct ActorCritic {
    /// π_θ: outputs the raw parameters of the actions' distributions, first ones first.
    pub actor: Mlp,
    /// V_φ.
    pub critic: Mlp,
    /// Sizes of the actor.
    pub shape: ActorConfig,
    device: Device,
}

impl ActorCritic {
    /// Fresh networks for K users.
    pub fn new(config: &PpoConfig, users: usize, rng: &mut Xoshiro256PlusPlus) -> Self {
        let shape =
            ActorConfig { hidden: config.hidden.clone(), activation: config.activation, ..ActorConfig::new(users) };
        let actor_layers = shape.layers();
        let mut critic_layers = actor_layers.clone();
        if let Some([_, outputs]) = critic_layers.last_mut() {
            *outputs = 1;
        }
        Self {
            actor: Mlp::new(&actor_layers, config.activation, 0.01, rng),
            critic: Mlp::new(&critic_layers, config.activation, 1.0, rng),
            shape,
            device: Device::flex(),
        }
    }

    /// The distributions of one row's actions from the actor's output for it.
    fn distributions(raw: &[f32]) -> impl Iterator<Item = ActionBeta> + '_ {
        let (first, second) = raw.split_at(raw.len() / 2);
        first.iter().zip(second).map(|(a, b)| ActionBeta::new(*a, *b))
    }

    /// Actions drawn for states, a row a state.
    pub fn act(&self, features: Vec<f32>, rng: &mut Xoshiro256PlusPlus) -> Vec<f32> {
        let raw = self.actor.forward(matrix(features, self.shape.inputs(), &self.device));
        let per_row = raw.chunks_exact(2 * self.shape.actions());
        per_row.flat_map(Self::distributions).map(|beta| beta.sample(rng)).collect()
    }

    /// ln π_θ(a|s) of each row.
    pub fn log_probs(&self, features: &[f32], actions: &[f32]) -> Vec<f32> {
        let raw = self.actor.forward(matrix(features.to_vec(), self.shape.inputs(), &self.device));
        let per_row = raw.chunks_exact(2 * self.shape.actions()).zip(actions.chunks_exact(self.shape.actions()));
        let log_prob = |(raw, actions): (&[f32], &[f32])| {
            Self::distributions(raw).zip(actions).map(|(beta, x)| beta.log_prob(*x)).sum::<f64>() as f32
        };
        per_row.map(log_prob).collect()
    }

    /// V_φ(s) of each row.
    pub fn values(&self, features: &[f32]) -> Vec<f32> {
        self.critic.forward(matrix(features.to_vec(), self.shape.inputs(), &self.device))
    }

    /// One gradient step of both networks on a minibatch. Returns whether losses and gradients were numbers.
    #[must_use]
    pub fn step(
        &mut self,
        config: &PpoConfig,
        real: &Batch,
        imagined: Option<&Imagined>,
        rate: f64,
        sums: &mut Losses,
    ) -> bool {
        let (inputs, actions) = (self.shape.inputs(), self.shape.actions());
        let real_count = real.len().max(1) as f64;
        let clip = f64::from(config.clip);

        // Actor: (38), (41) and (42).
        let mut features = real.features.clone();
        if let Some(imagined) = imagined {
            features.extend_from_slice(&imagined.batch.features);
        }
        let states = matrix(features, inputs, &self.device); // [batch, inputs]
        let (raw, tape) = self.actor.forward_taped(states.clone()); // [batch, 2·actions]
        let mut by_raw = vec![0.0; raw.len()];
        let (mut policy_loss, mut imagined_loss, mut entropy) = (0.0, 0.0, 0.0);
        for (row, (raw, by_raw)) in raw.chunks_exact(2 * actions).zip(by_raw.chunks_exact_mut(2 * actions)).enumerate()
        {
            let (source, at, extra) = match imagined {
                Some(imagined) if row >= real.len() => (&imagined.batch, row - real.len(), Some(imagined)),
                _ => (real, row, None),
            };
            let taken = &source.actions[at * actions..(at + 1) * actions];
            let mut terms = [Default::default(); client_core::mec::MAX_USERS * 2];
            let terms = &mut terms[..actions];
            for ((term, beta), x) in terms.iter_mut().zip(Self::distributions(raw)).zip(taken) {
                *term = beta.terms(*x);
            }
            let log_prob: f64 = terms.iter().map(|t| t.log_prob).sum();
            let (advantage, old) = (f64::from(source.advantage[at]), f64::from(source.old_log_prob[at]));
            // Derivatives of the loss by ln π and by the entropy.
            let (by_log_prob, by_entropy) = match extra {
                None => {
                    let log_ratio = log_prob - old;
                    let (value, slope) = surrogate(log_ratio, advantage, clip);
                    let ratio = log_ratio.exp();
                    policy_loss -= value / real_count;
                    entropy += terms.iter().map(|t| t.entropy).sum::<f64>() / real_count;
                    sums.old_kl -= log_ratio / real_count;
                    sums.kl += (ratio - 1.0 - log_ratio) / real_count;
                    sums.clipped += f64::from(u8::from((ratio - 1.0).abs() > clip)) / real_count;
                    (-slope / real_count, -f64::from(config.entropy) / real_count)
                }
                Some(extra) => {
                    let share = f64::from(extra.weight) / extra.batch.len().max(1) as f64;
                    let (value, slope) = if extra.clipped {
                        surrogate(log_prob - old, advantage, clip)
                    } else {
                        (advantage * log_prob, advantage)
                    };
                    imagined_loss -= share * value;
                    (-share * slope, 0.0)
                }
            };
            let (first, second) = by_raw.split_at_mut(actions);
            for ((term, a), b) in terms.iter().zip(first).zip(second) {
                *a = (by_log_prob * term.log_prob_by_raw.0 + by_entropy * term.entropy_by_raw.0) as f32;
                *b = (by_log_prob * term.log_prob_by_raw.1 + by_entropy * term.entropy_by_raw.1) as f32;
            }
        }

        // Critic: (33) or (37).
        let mut target = real.target.clone();
        let states = match imagined {
            Some(imagined) if imagined.critic => {
                target.extend_from_slice(&imagined.batch.target);
                states
            }
            Some(_) => matrix(real.features.clone(), inputs, &self.device),
            None => states,
        };
        let (values, critic_tape) = self.critic.forward_taped(states); // [batch, 1]
        let critic_count = target.len().max(1) as f32;
        let errors: Vec<f32> = values.iter().zip(&target).map(|(v, y)| v - y).collect();
        let value_loss = errors.iter().map(|e| f64::from(e * e)).sum::<f64>() / f64::from(critic_count);

        if !(policy_loss + imagined_loss + entropy + value_loss).is_finite() {
            return false;
        }
        sums.policy += policy_loss;
        sums.imagined += imagined_loss;
        sums.entropy += entropy;
        sums.value += value_loss;
        sums.count += 1.0;
        let by_value = errors.iter().map(|e| 2.0 * e / critic_count).collect();
        let of_actor = self.actor.backward(tape, by_raw);
        let of_critic = self.critic.backward(critic_tape, by_value);
        self.actor.descend(&of_actor, rate, config.max_grad_norm)
            && self.critic.descend(&of_critic, rate, config.max_grad_norm)
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
    fn the_surrogate_stops_where_the_ratio_has_moved_far_enough() {
        // (ratio, advantage) → value, slope with ε = 0.2
        for (ratio, advantage, value, slope) in [
            (1.0, 2.0, 2.0, 2.0),
            (1.1, 2.0, 2.2, 2.2),
            (1.5, 2.0, 2.4, 0.0),
            (0.5, 2.0, 1.0, 1.0),
            (1.5, -2.0, -3.0, -3.0),
            (0.5, -2.0, -1.6, 0.0),
        ] {
            let got = surrogate(f64::ln(ratio), advantage, 0.2);
            assert!((got.0 - value).abs() < 1e-12 && (got.1 - slope).abs() < 1e-12, "{ratio} {advantage}: {got:?}");
        }
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

    /// Rows of a made-up problem: the best action is a linear function of the state.
    fn bandit(agent: &ActorCritic, count: usize, rng: &mut Xoshiro256PlusPlus) -> (Batch, f32) {
        use rand::RngExt;
        let (inputs, actions) = (agent.shape.inputs(), agent.shape.actions());
        let features: Vec<f32> = (0..count * inputs).map(|_| 2.0 * rng.random::<f32>() - 1.0).collect();
        let taken = agent.act(features.clone(), rng);
        let miss = |(state, action): (&[f32], &[f32])| {
            let best = |i: usize| 0.5 + 0.3 * state[i];
            -action.iter().enumerate().map(|(i, a)| (a - best(i)).powi(2)).sum::<f32>()
        };
        let rewards: Vec<f32> = features.chunks(inputs).zip(taken.chunks(actions)).map(miss).collect();
        let mean = mean_and_deviation(&rewards).0;
        let mut advantage: Vec<f32> = rewards.iter().zip(agent.values(&features)).map(|(r, v)| r - v).collect();
        normalise(&mut advantage);
        let old_log_prob = agent.log_probs(&features, &taken);
        (Batch { features, actions: taken, old_log_prob, advantage, target: rewards }, mean)
    }

    #[test]
    fn the_networks_learn_a_bandit_that_depends_on_the_state() {
        let config = PpoConfig { hidden: vec![32, 32], learning_rate: 3e-3, clip: 0.2, ..PpoConfig::default() };
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(2);
        let mut agent = ActorCritic::new(&config, 1, &mut rng);
        let mut rewards = Vec::new();
        for _ in 0..60 {
            let (batch, reward) = bandit(&agent, 256, &mut rng);
            rewards.push(reward);
            let mut sums = Losses::default();
            for _ in 0..4 {
                for rows in minibatches(batch.len(), 64, &mut rng) {
                    assert!(agent.step(&config, &batch.select(&rows), None, config.learning_rate, &mut sums));
                }
            }
        }
        // Always the middle would miss by 2·(0.3²/3) = 0.06 on average.
        let (first, last) = (rewards[0], *rewards.last().expect("a reward"));
        assert!(first < -0.15 && last > -0.03, "{first} {last}");
    }

    #[test]
    fn imagined_rows_pull_the_actor_and_leave_the_critic_alone_unless_asked() {
        let config = PpoConfig { hidden: vec![8], entropy: 0.0, ..PpoConfig::default() };
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(3);
        let fresh = ActorCritic::new(&config, 1, &mut rng);
        let (mut real, _) = bandit(&fresh, 16, &mut rng);
        real.advantage.fill(0.0);
        real.target = fresh.values(&real.features);
        let (dream, _) = bandit(&fresh, 16, &mut rng);
        for (clipped, critic) in [(false, false), (true, true)] {
            let mut agent = ActorCritic {
                actor: fresh.actor.clone(),
                critic: fresh.critic.clone(),
                shape: fresh.shape.clone(),
                device: Device::flex(),
            };
            let imagined = Imagined { batch: dream.clone(), weight: 0.3, clipped, critic };
            let score = |agent: &ActorCritic| -> f32 {
                let now = agent.log_probs(&dream.features, &dream.actions);
                now.iter().zip(&dream.advantage).map(|(l, a)| l * a).sum()
            };
            let before = score(&agent);
            assert!(agent.step(&config, &real, Some(&imagined), 1e-3, &mut Losses::default()));
            assert!(score(&agent) > before, "{clipped} {critic}");
            let pairs = agent.values(&dream.features).into_iter().zip(fresh.values(&dream.features));
            let moved = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(if critic { moved > 1e-3 } else { moved < 1e-5 }, "{critic}: {moved}");
        }
    }
}
