//! The loop that PPO and what is built on it share: collect a rollout, learn from it, report.

use std::collections::BTreeMap;
use std::path::Path;

use mec::WorldSnapshot;
use mec::world::nth_seed;
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

use super::actor_critic::{ActorCritic, Batch};
use super::checkpoint::{read_state, write_state};
use super::error::TrainError;
use super::mlp::MlpState;
use super::rollout::{Collector, Experience};
use super::run::{Progress, Run};
use super::session::{Job, Session, Update};
use super::settings::RunSettings;
use super::stats::{normalise, reward_scale};
use super::stop::{Ending, UpdateGuard};

/// An algorithm, as the loop sees it.
pub trait Algorithm {
    /// Steps of every environment in a rollout.
    fn rollout_steps(&self) -> usize;

    /// Learning rate of an update.
    fn rate(&self, update: u64, updates: u64) -> f64;

    /// Share of users and slots that may break a limit, if policies that break more are worse than any that do not.
    fn allowed(&self) -> Option<f64> {
        None
    }

    /// Learns from a rollout, whose rewards are scaled. Returns what is logged of it, under `losses/…` keys.
    ///
    /// # Errors
    /// When a loss or a gradient is NaN or infinite, or the run is to stop.
    fn learn(
        &mut self,
        learner: &mut Learner,
        rollout: &Rollout,
        rate: f64,
        guard: UpdateGuard<'_>,
    ) -> Result<BTreeMap<String, f64>, TrainError>;

    /// Writes what the algorithm remembers beside the learner into the folder of a checkpoint.
    ///
    /// # Errors
    /// When it cannot be written.
    fn save(&self, _folder: &Path) -> Result<(), TrainError> {
        Ok(())
    }
}

/// What was lived through in an update, and the rewards as they are to be learned.
pub struct Rollout {
    /// Rows step after step, within a step environment after environment.
    pub experience: Experience,
    /// Its rewards, scaled by [`reward_scale`].
    pub rewards: Vec<f32>,
}

/// What every on-policy algorithm carries from update to update.
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
    /// A fresh learner, or the one of the run's checkpoint if it has one. `create` makes the networks.
    fn open(
        settings: &RunSettings,
        run: &Run,
        create: impl FnOnce(&mut Xoshiro256PlusPlus) -> ActorCritic,
    ) -> Result<Self, TrainError> {
        // Streams of their own for weights, exploration and worlds.
        let stream = |n: u64| nth_seed(settings.seed, n);
        let mut agent = create(&mut Xoshiro256PlusPlus::seed_from_u64(stream(0)));
        if run.progress.update == 0 {
            let collector = Collector::new(settings, stream(2));
            return Ok(Self { agent, collector, rng: Xoshiro256PlusPlus::seed_from_u64(stream(1)) });
        }
        let path = run.checkpoint_file(STATE_FILE);
        let state: LearnerState = read_state(&path)?;
        let damaged = |problem: String| TrainError::damaged(&path, problem);
        agent.actor.restore(state.actor).map_err(damaged)?;
        agent.critic.restore(state.critic).map_err(damaged)?;
        let lived = run.progress.steps / settings.envs as u64;
        let collector = Collector::restore(settings, stream(2), state.worlds, lived);
        Ok(Self { agent, collector: collector.map_err(|e| damaged(e.to_string()))?, rng: state.rng })
    }

    fn save(&self, folder: &Path) -> Result<(), TrainError> {
        let state = LearnerState {
            actor: self.agent.actor.state(),
            critic: self.agent.critic.state(),
            rng: self.rng.clone(),
            worlds: self.collector.snapshot(),
        };
        write_state(&folder.join(STATE_FILE), &state)
    }

    /// Steps every environment `steps` times with sampled actions.
    fn collect(&mut self, steps: usize, guard: UpdateGuard<'_>) -> Result<Experience, TrainError> {
        let mut experience = Experience::default();
        for _ in 0..steps {
            guard.check()?;
            let actions = self.agent.act(self.collector.features().to_vec(), &mut self.rng);
            self.collector.step(&actions, &mut experience);
        }
        Ok(experience)
    }

    /// The rows of a rollout with its advantages, normalised, and targets.
    ///
    /// # Errors
    /// When the run is to stop.
    pub fn batch(
        &self,
        experience: &Experience,
        mut advantage: Vec<f32>,
        target: Vec<f32>,
        guard: UpdateGuard<'_>,
    ) -> Result<Batch, TrainError> {
        normalise(&mut advantage);
        Ok(Batch {
            features: experience.features.clone(),
            actions: experience.actions.clone(),
            old_log_prob: self.agent.log_probs(&experience.features, &experience.actions, guard)?,
            advantage,
            target,
        })
    }
}

/// Rewards as the networks see them: measured in deviations of the first rollout's.
fn scaled_rewards(progress: &mut Progress, rewards: &[f32]) -> Vec<f32> {
    if progress.reward_scale == 0.0 {
        progress.reward_scale = reward_scale(rewards);
    }
    rewards.iter().map(|r| r * progress.reward_scale).collect()
}

/// Trains into a run folder, from its checkpoint if it has one: on one thread a resumed run goes on as if it had never
/// stopped.
///
/// `create` makes the networks, `open` what the algorithm remembers beside them, from the checkpoint if the run has one.
///
/// # Errors
/// See [`crate::train`].
pub fn train<A: Algorithm>(
    job: Job<'_>,
    create: impl FnOnce(&mut Xoshiro256PlusPlus) -> ActorCritic,
    open: impl FnOnce(&Run) -> Result<A, TrainError>,
) -> Result<Ending, TrainError> {
    let stop = job.stop;
    let mut learner = Learner::open(job.settings, job.run, create)?;
    let mut algorithm = open(job.run)?;
    let steps = algorithm.rollout_steps();
    let batch = (job.settings.envs * steps) as u64;
    let mut session = Session::open(job, learner.agent.shape.clone().into(), batch)?;
    session.allowed = algorithm.allowed();
    while session.progress.update < session.updates {
        let update = session.progress.update;
        let guard = stop.guard(update);
        let rate = algorithm.rate(update, session.updates);

        let experience = learner.collect(steps, guard)?;
        let rewards = scaled_rewards(&mut session.progress, &experience.rewards);
        let rollout = Rollout { experience, rewards };
        let losses = algorithm.learn(&mut learner, &rollout, rate, guard)?;

        let next = session.finish_update(Update {
            network: &learner.agent.actor.actor(&learner.agent.shape).into(),
            steps: batch,
            mean_reward: rollout.experience.mean_reward(),
            learning_rate: rate,
            losses,
        })?;
        if next.checkpoint {
            session.checkpoint(|folder| {
                learner.save(folder)?;
                algorithm.save(folder)
            })?;
        }
        if next.stopped {
            return Ok(Ending::Stopped);
        }
    }
    Ok(Ending::Finished)
}
