//! World-model PPO, section V-C and Algorithm 1, readable from top to bottom; as printed and mended.
//!
//! It is PPO with a [world model](super::world_model) that does two things. It lends half of the critic's target, (36):
//! beside the real one-step target stands the one of the predicted reward and slot. And it adds to the actor's loss, (41):
//! from slots that it predicts well it imagines a few more under the policy, and what turns out better than the critic
//! thought is made likelier.
//!
//! What [`WmPpoConfig::default`] does is printed. Read closely, four things in it are odd, and [`WmPpoConfig::mended`]
//! mends each by a setting of its own, so that each can be judged alone:
//!
//! | printed | mended | setting |
//! | --- | --- | --- |
//! | one return G for all H imagined actions (41): later ones are praised for earlier rewards | the return from each slot on, with λ | `per_slot_returns`, `lambda` |
//! | weights in units of reward, so that η means something else in every system | normalised like advantages | `normalised` |
//! | only the posterior, which has seen the slot, is trained to decode it (35); imagination is made of the prior | the prior's guess is decoded and trained too | `model.prior_weight` |
//! | β = 1 presses all information out of z | β = 0.1 | `model.kl_weight` |
//!
//! (44) adds λ_wm·L_WM to the critic's loss; as the two share no parameters and Adam divides by the gradient's size, that
//! factor would change nothing, and the model is trained on (35) itself.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use client_core::mec::world::nth_seed;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

use super::Ending;
use super::config::TrainConfig;
use super::ppo::{
    ActorCritic, Batch, Credit, Imagined, Learner, Losses, PpoConfig, advantages, explained_variance, minibatches,
    normalise, scaled_rewards,
};
use super::rollout::Experience;
use super::run::{Run, TrainError, read_state, write_state};
use super::session::{Session, Update};
use super::world_model::{Latent, Memory, Observed, WorldModel, WorldModelConfig, r_squared};

/// Features stay within this in the simulator, so they do in imagination.
const FEATURE_LIMIT: f32 = 5.0;

/// Hyper-parameters of world-model PPO. The defaults are the paper's where it prints any; what it leaves open is marked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WmPpoConfig {
    /// λ_wm of (36): the model's share of the critic's target.
    pub target_weight: f32,
    /// H of (40): slots of an imagined stretch.
    pub horizon: usize,
    /// η of (41): the weight of what was imagined; 0 switches imagination off.
    pub imagination: f32,
    /// Share of a rollout's slots that imagination may begin in: those that the model predicts best (open).
    pub reliable_share: f32,
    /// Stretches that are imagined at a time (open).
    pub starts: usize,
    /// Whether each imagined action is weighed by the return from its own slot on, instead of by G.
    pub per_slot_returns: bool,
    /// λ of those returns.
    pub lambda: f32,
    /// Whether the weights of imagined actions are normalised.
    pub normalised: bool,
    /// Whether imagined actions enter by the clipped surrogate (32), and so may be used in every epoch of an update.
    /// Otherwise they enter by the logarithm of (41), and are imagined anew for every epoch.
    pub clipped: bool,
    /// Whether the critic learns from imagined returns too.
    pub critic: bool,
    /// The PPO underneath. Its `credit` is the real part of (36): one step.
    pub ppo: PpoConfig,
    /// The world model.
    pub model: WorldModelConfig,
}

impl Default for WmPpoConfig {
    fn default() -> Self {
        Self {
            target_weight: 0.5,
            horizon: 3,
            imagination: 0.3,
            reliable_share: 0.5,
            starts: 32,
            per_slot_returns: false,
            lambda: 1.0,
            normalised: false,
            clipped: false,
            critic: false,
            ppo: PpoConfig { credit: Credit::Td0, ..PpoConfig::default() },
            model: WorldModelConfig::default(),
        }
    }
}

impl WmPpoConfig {
    /// The printed form with its four oddities mended, and nothing else.
    pub fn mended() -> Self {
        let printed = Self::default();
        Self {
            per_slot_returns: true,
            normalised: true,
            model: WorldModelConfig { prior_weight: 1.0, kl_weight: 0.1, ..printed.model },
            ..printed
        }
    }

    /// The same form with tuned PPO's learning rate, annealing and clip range; its world model is not tuned.
    pub fn tuned(self) -> Self {
        let ppo = PpoConfig { learning_rate: 1e-3, clip: 0.2, anneal: true, ..self.ppo };
        Self { ppo, ..self }
    }

    /// What makes training impossible, in words.
    ///
    /// # Errors
    /// When a number is out of its range.
    pub fn validate(&self) -> Result<(), String> {
        self.ppo.validate()?;
        self.model.validate()?;
        for (name, share) in
            [("target_weight", self.target_weight), ("reliable_share", self.reliable_share), ("lambda", self.lambda)]
        {
            if !(0.0..=1.0).contains(&share) {
                return Err(format!("{name} must be from 0 to 1, but is {share}"));
            }
        }
        if !(self.imagination >= 0.0 && self.imagination.is_finite()) {
            return Err(format!("imagination must not be negative, but is {}", self.imagination));
        }
        if self.horizon == 0 || self.starts == 0 {
            return Err("horizon and starts must be at least 1; imagination = 0 switches imagination off".to_owned());
        }
        Ok(())
    }
}

/// What the model adds to [`Learner`].
struct Dreamer {
    model: WorldModel,
    memory: Memory,
    rng: Xoshiro256PlusPlus,
    /// h of every environment at the end of the last rollout.
    carry: Vec<f32>,
}

const STATE_FILE: &str = "dreamer.cbor";

impl Dreamer {
    fn open(config: &TrainConfig, inputs: usize, actions: usize, run: &Run) -> Result<Self, TrainError> {
        let wm = &config.wm_ppo;
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(nth_seed(config.seed, 3));
        let model = WorldModel::new(&wm.model, inputs, actions, &mut rng);
        if run.progress.update == 0 {
            return Ok(Self { model, memory: Memory::new(config.envs, wm.model.memory), rng, carry: Vec::new() });
        }
        let (memory, rng, carry) = read_state(&run.checkpoint_file(STATE_FILE))?;
        Ok(Self { model: model.restore(&run.checkpoint_file(""))?, memory, rng, carry })
    }

    fn save(&self, folder: &Path) -> Result<(), TrainError> {
        self.model.save(folder)?;
        write_state(&folder.join(STATE_FILE), &(&self.memory, &self.rng, &self.carry))
    }

    /// Imagines stretches under the present policy, from some of the `reliable` slots of a rollout.
    fn imagine(
        &mut self,
        config: &WmPpoConfig,
        agent: &ActorCritic,
        experience: &Experience,
        latent: &Latent,
        reliable: &mut [usize],
    ) -> Imagined {
        let inputs = agent.shape.inputs();
        let (starts, _) = reliable.partial_shuffle(&mut self.rng, config.starts);
        let mut latent = self.model.pick(latent, starts);
        let mut features: Vec<f32> =
            starts.iter().flat_map(|row| &experience.features[row * inputs..(row + 1) * inputs]).copied().collect();
        let mut batch = Batch::default();
        let (mut rewards, mut goes_on, mut values) = (Vec::new(), Vec::new(), vec![agent.values(&features)]);
        for _ in 0..config.horizon {
            let actions = agent.act(features.clone(), &mut self.rng);
            let dreamt = self.model.dream(&latent, &actions, &mut self.rng);
            if config.clipped {
                batch.old_log_prob.extend(agent.log_probs(&features, &actions));
            }
            batch.features.extend(features);
            batch.actions.extend(actions);
            features = dreamt.observation;
            features.iter_mut().for_each(|f| *f = f.clamp(-FEATURE_LIMIT, FEATURE_LIMIT));
            values.push(agent.values(&features));
            rewards.push(dreamt.reward);
            goes_on.push(dreamt.goes_on);
            latent = dreamt.latent;
        }
        let returns = imagined_returns(config, &rewards, &goes_on, &values);
        batch.advantage = returns.iter().flatten().zip(values.iter().flatten()).map(|(g, v)| g - v).collect();
        batch.target = returns.concat();
        if !config.clipped {
            batch.old_log_prob = vec![0.0; batch.target.len()];
        }
        if config.normalised {
            normalise(&mut batch.advantage);
        }
        Imagined { batch, weight: config.imagination, clipped: config.clipped, critic: config.critic }
    }
}

/// The return that weighs each imagined action: (40) for all of a stretch, or the λ-return from its slot on. The arguments
/// and the result have an entry a slot, with an entry a stretch in each; `values` has one slot more.
fn imagined_returns(
    config: &WmPpoConfig,
    rewards: &[Vec<f32>],
    goes_on: &[Vec<f32>],
    values: &[Vec<f32>],
) -> Vec<Vec<f32>> {
    let gamma = config.ppo.discount();
    // (40) is the λ-return of the first slot for λ = 1.
    let lambda = if config.per_slot_returns { config.lambda } else { 1.0 };
    let mut later = values.last().cloned().unwrap_or_default();
    let mut returns = Vec::with_capacity(rewards.len());
    for (slot, rewards) in rewards.iter().enumerate().rev() {
        for (i, later) in later.iter_mut().enumerate() {
            let next = (1.0 - lambda) * values[slot + 1][i] + lambda * *later;
            *later = rewards[i] + gamma * goes_on[slot][i] * next;
        }
        returns.push(later.clone());
    }
    returns.reverse();
    if !config.per_slot_returns
        && let Some(first) = returns.first().cloned()
    {
        returns.fill(first);
    }
    returns
}

/// The slots that the model predicted best, `share` of all.
fn reliable_slots(experience: &Experience, rewards: &[f32], told: &Observed, share: f32) -> Vec<usize> {
    let count = rewards.len();
    let inputs = experience.next_features.len() / count.max(1);
    let missed = |row: usize| -> f32 {
        let range = row * inputs..(row + 1) * inputs;
        let pairs = experience.next_features[range.clone()].iter().zip(&told.observation[range]);
        pairs.map(|(truth, guess)| (truth - guess).powi(2)).sum::<f32>() + (rewards[row] - told.reward[row]).powi(2)
    };
    let mut ranked: Vec<(f32, usize)> = (0..count).map(|row| (missed(row), row)).collect();
    ranked.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let kept = ((count as f32 * share).ceil() as usize).clamp(1, count.max(1));
    ranked.into_iter().take(kept).map(|(_, row)| row).collect()
}

/// Trains into a run folder, from its checkpoint if it has one: on one thread a resumed run goes on as if it had never
/// stopped.
///
/// # Errors
/// See [`super::train`].
pub fn train(config: &TrainConfig, run: &mut Run, stop: &AtomicBool) -> Result<Ending, TrainError> {
    let wm = &config.wm_ppo;
    let ppo = &wm.ppo;
    let mut learner = Learner::open(config, ppo, run)?;
    let (inputs, actions) = (learner.agent.shape.inputs(), learner.agent.shape.actions());
    let mut dreamer = Dreamer::open(config, inputs, actions, run)?;
    let batch = (config.envs * ppo.rollout_steps) as u64;
    let mut session = Session::open(config, run, stop, learner.agent.shape.clone(), batch)?;
    while session.progress.update < session.updates {
        let update = session.progress.update;
        let rate = ppo.rate(update, session.updates);
        let not_a_number = |what| TrainError::NotANumber { update, what };

        // (1) Trajectory collection.
        let experience = learner.collect(ppo.rollout_steps);
        let rewards = scaled_rewards(&mut session.progress, &experience.rewards);

        // (2) World-model update; judged before on slots that it has not learned from.
        let judged = dreamer.model.observe(&experience, config.envs, &mut dreamer.carry.clone());
        dreamer.memory.add(&experience, &rewards);
        let model_losses = dreamer.model.train(&dreamer.memory, &mut dreamer.rng).map_err(not_a_number)?;
        let told = dreamer.model.observe(&experience, config.envs, &mut dreamer.carry);

        // (3) Targets, (36).
        let values = learner.agent.values(&experience.features);
        let next_values = learner.agent.values(&experience.next_features);
        let (_, real) = advantages(ppo, config.envs, &rewards, &experience.truncated, &values, &next_values);
        let imagined_values = learner.agent.values(&told.observation);
        let predicted = told.reward.iter().zip(&imagined_values).map(|(r, v)| r + ppo.discount() * v);
        let mixed = real.iter().zip(predicted).map(|(real, model)| real + wm.target_weight * (model - real));
        let target: Vec<f32> = mixed.collect();
        let advantage = target.iter().zip(&values).map(|(y, v)| y - v).collect();
        let explained = explained_variance(&target, &values);
        let rollout = learner.batch(&experience, advantage, target);

        // (4) Actor and critic.
        let mut reliable = reliable_slots(&experience, &rewards, &told, wm.reliable_share);
        let mut imagined: Option<Imagined> = None;
        let mut sums = Losses::default();
        for _ in 0..ppo.epochs {
            if wm.imagination > 0.0 && !(wm.clipped && imagined.is_some()) {
                imagined = Some(dreamer.imagine(wm, &learner.agent, &experience, &told.latent, &mut reliable));
            }
            let parts = minibatches(rollout.len(), ppo.minibatch, &mut learner.rng);
            // As many parts of what was imagined as of what was lived through.
            let dreams = imagined.as_ref().map(|imagined| {
                let rows = imagined.batch.len();
                (imagined, minibatches(rows, rows.div_ceil(parts.len()), &mut learner.rng))
            });
            for (i, rows) in parts.iter().enumerate() {
                let dream = dreams.as_ref().and_then(|(imagined, parts)| Some(imagined.select(parts.get(i)?)));
                if !learner.agent.step(ppo, &rollout.select(rows), dream.as_ref(), rate, &mut sums) {
                    return Err(not_a_number("loss or gradient"));
                }
            }
        }

        let mut losses = sums.named(explained);
        losses.insert("losses/imagination".to_owned(), sums.imagination());
        losses.insert("losses/model_reward_r2".to_owned(), r_squared(&rewards, &judged.reward, 1));
        losses.insert(
            "losses/model_observation_r2".to_owned(),
            r_squared(&experience.next_features, &judged.observation, inputs),
        );
        if let Some(model) = model_losses {
            losses.insert("losses/model_reconstruction".to_owned(), model.reconstruction);
            losses.insert("losses/model_reward".to_owned(), model.reward);
            losses.insert("losses/model_kl".to_owned(), model.kl);
        }
        let next = session.finish_update(Update {
            actor: &learner.agent.actor.actor(&learner.agent.shape),
            steps: batch,
            mean_reward: experience.mean_reward(),
            learning_rate: rate,
            losses,
        })?;
        if next.checkpoint {
            session.run.checkpoint(&session.progress, |folder| {
                learner.save(folder)?;
                dreamer.save(folder)
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
    fn imagined_returns_by_hand() {
        // One stretch of two slots, γ = 0.5, values 8 and 4 after the first and the second slot.
        let config = |per_slot_returns, lambda| {
            let ppo = PpoConfig { gamma: 0.5, ..WmPpoConfig::default().ppo };
            WmPpoConfig { per_slot_returns, lambda, ppo, ..WmPpoConfig::default() }
        };
        let (rewards, values) = ([vec![1.0], vec![2.0]], [vec![100.0], vec![8.0], vec![4.0]]);
        let of = |config: &WmPpoConfig, goes_on: f32| {
            imagined_returns(config, &rewards, &[vec![goes_on], vec![1.0]], &values).concat()
        };
        // (40): 1 + 0.5·2 + 0.25·4, for both slots.
        assert_eq!(of(&config(false, 0.3), 1.0), [3.0, 3.0]);
        assert_eq!(of(&config(true, 1.0), 1.0), [3.0, 4.0]);
        assert_eq!(of(&config(true, 0.0), 1.0), [1.0 + 0.5 * 8.0, 4.0]);
        assert_eq!(of(&config(true, 0.5), 1.0), [1.0 + 0.5 * (0.5 * 8.0 + 0.5 * 4.0), 4.0]);
        assert_eq!(of(&config(true, 1.0), 0.0), [1.0, 4.0]);
    }
}
