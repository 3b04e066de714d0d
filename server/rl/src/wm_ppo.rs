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
//! [`WmPpoConfig::tuned`] is the mended form with the recurrent model replaced by an [ensemble](super::ensemble) that is
//! cheap enough to be trained on everything remembered, and imagines several times the slots that were lived through, from
//! all of the past: a rollout shows one cell, the memory shows them all. Imagined rows then enter like real ones.
//!
//! (44) adds λ_wm·L_WM to the critic's loss; as the two share no parameters and Adam divides by the gradient's size, that
//! factor would change nothing, and the model is trained on (35) itself.

use std::collections::BTreeMap;
use std::path::Path;

use mec::world::nth_seed;
use policy::Head;
use policy::spaces::FEATURE_LIMIT;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

use super::actor_critic::{ActorCritic, Batch, Imagined, Losses};
use super::checkpoint::{read_state, write_state};
use super::ensemble::{Ensemble, EnsembleConfig, Predicted};
use super::error::TrainError;
use super::hyper::{HyperParameters, choice, hyper_parameters, part, switch, whole, within};
use super::mlp::MlpState;
use super::on_policy::{self, Algorithm, Learner, Rollout};
use super::ppo::{Credit, PpoConfig, advantages};
use super::rollout::Experience;
use super::run::Run;
use super::sequence_buffer::SequenceBuffer;
use super::session::Job;
use super::settings::RunSettings;
use super::stats::{explained_variance, minibatches, normalise, r_squared};
use super::stop::{Ending, UpdateGuard};
use super::world_model::{Latent, ModelLosses, Observed, WorldModel, WorldModelConfig};

/// What imagines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Imaginer {
    /// The paper's recurrent state-space model, from slots of the present rollout.
    Recurrent,
    /// An [ensemble](super::ensemble) of perceptrons, from slots of all that is remembered.
    Ensemble,
}

hyper_parameters! {
    /// Hyper-parameters of world-model PPO. The defaults are the paper's where it prints any; what it leaves open is marked.
    pub struct WmPpoConfig, fits WmPpoConfig::parts_fit => {
        /// The model's share of the critic's target, λ_wm of (36).
        target_weight: f32 = 0.5 => within(0.0, 1.0);
        /// Slots of an imagined stretch, H of (40).
        horizon: usize = 3 => whole(1, 128), "slots";
        /// Weight of what was imagined, η of (41); 0 switches imagination off.
        imagination: f32 = 0.3 => within(0.0, 1000.0);
        /// What imagines: the paper's recurrent model, or an ensemble of perceptrons.
        imaginer: Imaginer = Imaginer::Recurrent => choice(&["recurrent", "ensemble"]);
        /// How often an update passes over rollout and imagination, `ppo.epochs` times each, with stretches imagined anew.
        rounds: usize = 1 => whole(1, 64);
        /// Share of a rollout's slots that imagination may begin in: those that the recurrent model predicts best (open).
        reliable_share: f32 = 0.5 => within(0.0, 1.0);
        /// Trajectories that are imagined at a time (open).
        starts: usize = 32 => whole(1, 16_384);
        /// Whether each imagined action is weighed by the return from its own slot on, instead of by that of the first.
        per_slot_returns: bool = false => switch();
        /// λ of those returns.
        lambda: f32 = 1.0 => within(0.0, 1.0);
        /// Whether the weights of imagined actions are normalised.
        normalised: bool = false => switch();
        /// Whether imagined actions enter by the clipped surrogate (32), and so may be used in every epoch of an update.
        /// Otherwise they enter by the logarithm of (41), and are imagined anew for every epoch.
        clipped: bool = false => switch();
        /// Whether the critic learns from imagined returns too.
        critic: bool = false => switch();
        /// The PPO underneath. Its `credit` is the real part of (36): one step.
        ppo: PpoConfig = PpoConfig { credit: Credit::Td0, ..PpoConfig::default() } => part::<PpoConfig>();
        /// The recurrent world model.
        model: WorldModelConfig = WorldModelConfig::default() => part::<WorldModelConfig>();
        /// The ensemble.
        ensemble: EnsembleConfig = EnsembleConfig::default() => part::<EnsembleConfig>();
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

    /// The same form with tuned PPO's learning rate, annealing and clip range.
    pub fn with_tuned_ppo(self) -> Self {
        let ppo = PpoConfig { learning_rate: 1e-3, clip: 0.2, anneal: true, ..self.ppo };
        Self { ppo, ..self }
    }

    /// What works: the mended form, imagining by the ensemble, from all that is remembered, many more slots than it lives
    /// through. With `foresight` (where actions move the state) stretches are long and so is the discount; without, a
    /// slot is a problem of its own, and imagination tries other actions in it.
    pub fn tuned(foresight: bool) -> Self {
        let mended = Self::mended().with_tuned_ppo();
        let (credit, gamma) = if foresight { (Credit::Gae, 0.97) } else { (Credit::Bandit, mended.ppo.gamma) };
        Self {
            target_weight: 0.0,
            horizon: if foresight { 8 } else { 1 },
            imagination: 3.0,
            imaginer: Imaginer::Ensemble,
            rounds: 4,
            starts: if foresight { 256 } else { 1024 },
            lambda: 0.95,
            clipped: true,
            critic: true,
            ppo: PpoConfig { credit, gamma, epochs: 3, minibatch: 256, ..mended.ppo },
            ..mended
        }
    }

    fn parts_fit(&self) -> Result<(), String> {
        self.ppo.fits_together()?;
        self.model.fits_together()?;
        self.ensemble.fits_together()
    }
}

/// The world model.
enum Model {
    Recurrent {
        model: Box<WorldModel>,
        /// h of every environment at the end of the last rollout.
        carry: Vec<f32>,
    },
    Ensemble(Ensemble),
}

/// What the model predicts of a rollout, a row a slot.
struct Prediction {
    /// ô of the slot after, one step ahead.
    observation: Vec<f32>,
    /// r̂
    reward: Vec<f32>,
    /// The recurrent model's state in which each decision was made.
    latent: Option<Latent>,
}

/// Trajectories that are being imagined, a row of everything a stretch, an entry of `rewards` and `goes_on` a slot and one
/// more of `values`.
#[derive(Default)]
struct Trajectories {
    batch: Batch,
    rewards: Vec<Vec<f32>>,
    goes_on: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
}

impl Trajectories {
    /// Decides the next slot: remembers what was seen and done, and returns the actions.
    fn decide(
        &mut self,
        clipped: bool,
        agent: &ActorCritic,
        features: Vec<f32>,
        rng: &mut Xoshiro256PlusPlus,
        guard: UpdateGuard<'_>,
    ) -> Result<Vec<f32>, TrainError> {
        guard.check()?;
        let actions = agent.act(features.clone(), rng);
        if clipped {
            self.batch.old_log_prob.extend(agent.log_probs(&features, &actions, guard)?);
        }
        self.batch.features.extend(features);
        self.batch.actions.extend_from_slice(&actions);
        Ok(actions)
    }

    /// The rows to learn from, the first slot of all stretches first.
    fn finish(mut self, config: &WmPpoConfig) -> Batch {
        let returns = imagined_returns(config, &self.rewards, &self.goes_on, &self.values);
        let pairs = returns.iter().flatten().zip(self.values.iter().flatten());
        self.batch.advantage = pairs.map(|(g, v)| g - v).collect();
        self.batch.target = returns.concat();
        if !config.clipped {
            self.batch.old_log_prob = vec![0.0; self.batch.target.len()];
        }
        self.batch
    }
}

/// What the model adds to [`Learner`].
struct Dreamer {
    model: Model,
    memory: SequenceBuffer,
    rng: Xoshiro256PlusPlus,
}

/// [`Dreamer`] in a checkpoint, without the recurrent model, which writes files of its own.
#[derive(Serialize, Deserialize)]
struct DreamerState {
    memory: SequenceBuffer,
    rng: Xoshiro256PlusPlus,
    carry: Vec<f32>,
    ensemble: Vec<MlpState>,
}

const STATE_FILE: &str = "dreamer.cbor";

impl Dreamer {
    fn open(wm: &WmPpoConfig, settings: &RunSettings, run: &Run) -> Result<Self, TrainError> {
        let shape = settings.actor(&[], wm.ppo.activation, Head::Beta);
        let (inputs, actions) = (shape.inputs(), shape.actions());
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(nth_seed(settings.seed, 3));
        let (mut model, capacity) = match wm.imaginer {
            Imaginer::Recurrent => {
                let model = Box::new(WorldModel::new(&wm.model, inputs, actions, &mut rng));
                (Model::Recurrent { model, carry: Vec::new() }, wm.model.memory)
            }
            Imaginer::Ensemble => {
                (Model::Ensemble(Ensemble::new(&wm.ensemble, inputs, actions, &mut rng)), wm.ensemble.memory)
            }
        };
        if run.progress.update == 0 {
            return Ok(Self { model, memory: SequenceBuffer::new(settings.envs, capacity), rng });
        }
        let path = run.checkpoint_file(STATE_FILE);
        let state: DreamerState = read_state(&path)?;
        model = match model {
            Model::Recurrent { model, .. } => {
                Model::Recurrent { model: Box::new(model.restore(&run.checkpoint_file(""))?), carry: state.carry }
            }
            Model::Ensemble(mut ensemble) => {
                ensemble.restore(state.ensemble).map_err(|problem| TrainError::damaged(&path, problem))?;
                Model::Ensemble(ensemble)
            }
        };
        Ok(Self { model, memory: state.memory, rng: state.rng })
    }

    fn save(&self, folder: &Path) -> Result<(), TrainError> {
        let (carry, ensemble) = match &self.model {
            Model::Recurrent { model, carry } => {
                model.save(folder)?;
                (carry.clone(), Vec::new())
            }
            Model::Ensemble(ensemble) => (Vec::new(), ensemble.state()),
        };
        let state = DreamerState { memory: self.memory.clone(), rng: self.rng.clone(), carry, ensemble };
        write_state(&folder.join(STATE_FILE), &state)
    }

    /// What the model predicts of a rollout, and the recurrent one's h after it.
    fn observe(
        &self,
        experience: &Experience,
        envs: usize,
        guard: UpdateGuard<'_>,
    ) -> Result<(Prediction, Vec<f32>), TrainError> {
        Ok(match &self.model {
            Model::Recurrent { model, carry } => {
                let mut carry = carry.clone();
                let Observed { latent, observation, reward } = model.observe(experience, envs, &mut carry, guard)?;
                (Prediction { observation, reward, latent: Some(latent) }, carry)
            }
            Model::Ensemble(ensemble) => {
                let Predicted { observation, reward } = ensemble.observe(experience, envs);
                (Prediction { observation, reward, latent: None }, Vec::new())
            }
        })
    }

    fn train(&mut self, guard: UpdateGuard<'_>) -> Result<Option<ModelLosses>, TrainError> {
        match &mut self.model {
            Model::Recurrent { model, .. } => model.train(&self.memory, &mut self.rng, guard),
            Model::Ensemble(ensemble) => ensemble.train(&self.memory, &mut self.rng, guard),
        }
    }

    /// Imagines stretches under the present policy.
    fn imagine(
        &mut self,
        config: &WmPpoConfig,
        agent: &ActorCritic,
        experience: &Experience,
        predicted: &Prediction,
        reliable: &mut [usize],
        guard: UpdateGuard<'_>,
    ) -> Result<Imagined, TrainError> {
        let rng = &mut self.rng;
        let mut batch = Batch::default();
        match (&self.model, &predicted.latent) {
            (Model::Ensemble(ensemble), _) => {
                for member in 0..ensemble.members() {
                    let count = config.starts.div_ceil(ensemble.members());
                    let mut places = self.memory.places(count, config.horizon, rng);
                    if places.is_empty() {
                        // Nothing that long is remembered yet.
                        continue;
                    }
                    let mut windows = ensemble.windows(&self.memory, &places);
                    let mut stretches = Trajectories::default();
                    for _ in 0..config.horizon {
                        let features = ensemble.present(&windows);
                        stretches.values.push(agent.values(&features, guard)?);
                        let actions = stretches.decide(config.clipped, agent, features, rng, guard)?;
                        let rewards = ensemble.relive(member, &self.memory, &places, &mut windows, &actions);
                        stretches.goes_on.push(vec![1.0; rewards.len()]);
                        stretches.rewards.push(rewards);
                        places.iter_mut().for_each(|place| *place = place.later(1));
                    }
                    stretches.values.push(agent.values(&ensemble.present(&windows), guard)?);
                    batch.extend(stretches.finish(config));
                }
            }
            (Model::Recurrent { model, .. }, Some(latent)) => {
                let inputs = agent.shape.inputs();
                let (starts, _) = reliable.partial_shuffle(rng, config.starts);
                let mut latent = model.pick(latent, starts);
                let seen = starts.iter().flat_map(|row| &experience.features[row * inputs..(row + 1) * inputs]);
                let mut features: Vec<f32> = seen.copied().collect();
                let mut stretches =
                    Trajectories { values: vec![agent.values(&features, guard)?], ..Trajectories::default() };
                for _ in 0..config.horizon {
                    let actions = stretches.decide(config.clipped, agent, features, rng, guard)?;
                    let dreamt = model.dream(&latent, &actions, rng);
                    features = dreamt.observation;
                    features.iter_mut().for_each(|f| *f = f.clamp(-FEATURE_LIMIT, FEATURE_LIMIT));
                    stretches.values.push(agent.values(&features, guard)?);
                    stretches.rewards.push(dreamt.reward);
                    stretches.goes_on.push(dreamt.goes_on);
                    latent = dreamt.latent;
                }
                batch = stretches.finish(config);
            }
            (Model::Recurrent { .. }, None) => {}
        }
        if config.normalised {
            normalise(&mut batch.advantage);
        }
        Ok(Imagined { batch, weight: config.imagination, clipped: config.clipped, critic: config.critic })
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
fn reliable_slots(experience: &Experience, rewards: &[f32], predicted: &Prediction, share: f32) -> Vec<usize> {
    let count = rewards.len();
    let inputs = experience.next_features.len() / count.max(1);
    let missed = |row: usize| -> f32 {
        let range = row * inputs..(row + 1) * inputs;
        let pairs = experience.next_features[range.clone()].iter().zip(&predicted.observation[range]);
        pairs.map(|(truth, guess)| (truth - guess).powi(2)).sum::<f32>()
            + (rewards[row] - predicted.reward[row]).powi(2)
    };
    let mut ranked: Vec<(f32, usize)> = (0..count).map(|row| (missed(row), row)).collect();
    ranked.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let kept = ((count as f32 * share).ceil() as usize).clamp(1, count.max(1));
    ranked.into_iter().take(kept).map(|(_, row)| row).collect()
}

struct WmPpo<'a> {
    config: &'a WmPpoConfig,
    dreamer: Dreamer,
}

impl Algorithm for WmPpo<'_> {
    fn rollout_steps(&self) -> usize {
        self.config.ppo.rollout_steps
    }

    fn rate(&self, update: u64, updates: u64) -> f64 {
        self.config.ppo.rate(update, updates)
    }

    fn learn(
        &mut self,
        learner: &mut Learner,
        rollout: &Rollout,
        rate: f64,
        guard: UpdateGuard<'_>,
    ) -> Result<BTreeMap<String, f64>, TrainError> {
        let Self { config: wm, dreamer } = self;
        let (ppo, envs) = (&wm.ppo, learner.collector.envs());
        // (1) Trajectory collection.
        let Rollout { experience, rewards } = rollout;

        // (2) World-model update; judged before on slots that it has not learned from.
        let (judged, _) = dreamer.observe(experience, envs, guard)?;
        dreamer.memory.add(experience, rewards);
        let model_losses = dreamer.train(guard)?;
        let (predicted, now) = dreamer.observe(experience, envs, guard)?;
        if let Model::Recurrent { carry, .. } = &mut dreamer.model {
            *carry = now;
        }

        // (3) Targets, (36).
        let values = learner.agent.values(&experience.features, guard)?;
        let next_values = learner.agent.values(&experience.next_features, guard)?;
        let (_, real) = advantages(ppo, envs, rewards, &experience.truncated, &values, &next_values);
        let imagined_values = learner.agent.values(&predicted.observation, guard)?;
        let of_model = predicted.reward.iter().zip(&imagined_values).map(|(r, v)| r + ppo.discount() * v);
        let mixed = real.iter().zip(of_model).map(|(real, model)| real + wm.target_weight * (model - real));
        let target: Vec<f32> = mixed.collect();
        let advantage = target.iter().zip(&values).map(|(y, v)| y - v).collect();
        let explained = explained_variance(&target, &values);
        let real = learner.batch(experience, advantage, target, guard)?;

        // (4) Actor and critic.
        let mut reliable = reliable_slots(experience, rewards, &predicted, wm.reliable_share);
        let mut imagined: Option<Imagined> = None;
        let mut sums = Losses::default();
        for pass in 0..wm.rounds * ppo.epochs {
            // What enters by the clipped surrogate may be passed over several times.
            if wm.imagination > 0.0 && !(wm.clipped && pass % ppo.epochs > 0) {
                imagined = Some(dreamer.imagine(wm, &learner.agent, experience, &predicted, &mut reliable, guard)?);
            }
            let dreamt = imagined.as_ref().map_or(0, |imagined| imagined.batch.len());
            // As many parts of what was imagined as of what was lived through.
            let most = match wm.imaginer {
                Imaginer::Recurrent => ppo.minibatch,
                Imaginer::Ensemble => real.len().div_ceil((real.len() + dreamt).div_ceil(ppo.minibatch)),
            };
            let parts = minibatches(real.len(), most, &mut learner.rng);
            let dreams = imagined
                .as_ref()
                .map(|imagined| (imagined, minibatches(dreamt, dreamt.div_ceil(parts.len()), &mut learner.rng)));
            for (i, rows) in parts.iter().enumerate() {
                guard.check()?;
                let dream = dreams.as_ref().and_then(|(imagined, parts)| Some(imagined.select(parts.get(i)?)));
                let objective = ppo.objective();
                let finite = learner.agent.step(&objective, &real.select(rows), dream.as_ref(), rate, &mut sums);
                guard.finite(finite, "loss or gradient")?;
            }
        }

        let mut losses = sums.named(explained);
        losses.insert("losses/imagination".to_owned(), sums.imagination());
        let inputs = learner.agent.shape.inputs();
        let explains = [
            ("losses/model_reward_r2", r_squared(rewards, &judged.reward, 1)),
            ("losses/model_observation_r2", r_squared(&experience.next_features, &judged.observation, inputs)),
        ];
        losses.extend(explains.into_iter().filter_map(|(name, share)| Some((name.to_owned(), share?))));
        if let Some(model) = model_losses {
            losses.insert("losses/model_reconstruction".to_owned(), model.reconstruction);
            losses.insert("losses/model_reward".to_owned(), model.reward);
            losses.insert("losses/model_kl".to_owned(), model.kl);
        }
        Ok(losses)
    }

    fn save(&self, folder: &Path) -> Result<(), TrainError> {
        self.dreamer.save(folder)
    }
}

/// Trains into a run folder, from its checkpoint if it has one.
///
/// # Errors
/// See [`crate::train`].
pub fn train(job: Job<'_>, config: &WmPpoConfig) -> Result<Ending, TrainError> {
    let settings = job.settings;
    on_policy::train(
        job,
        |rng| config.ppo.networks(settings, rng),
        |run| Ok(WmPpo { config, dreamer: Dreamer::open(config, settings, run)? }),
    )
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
