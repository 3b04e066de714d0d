//! What every algorithm does around its updates: evaluate the policy on the same slots every time, log, keep the best
//! policy, and say when a checkpoint is due.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::tensor::Device;
use client_core::mec::world::nth_seed;
use client_core::mec::{QosKnowledge, StaticPolicy};
use client_core::policy::{Actor, ActorConfig, Policy, PolicyHeader, file};

use super::config::TrainConfig;
use super::evaluate::{Bench, Judged, Score};
use super::run::{Metrics, Progress, Run, TrainError};

/// What an update gave.
pub struct Update<'a> {
    /// Its policy, without gradients.
    pub actor: &'a Actor,
    /// Environment steps that it took.
    pub steps: u64,
    /// Mean reward of them, exploration included.
    pub mean_reward: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// The algorithm's own scalars, under `losses/…` keys.
    pub losses: BTreeMap<String, f64>,
}

/// What comes after an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// A checkpoint is due.
    pub checkpoint: bool,
    /// The stop flag was raised.
    pub stopped: bool,
}

/// A training run under way.
pub struct Session<'a> {
    config: &'a TrainConfig,
    /// The run folder.
    pub run: &'a mut Run,
    /// Where the run stands.
    pub progress: Progress,
    /// Updates in all; patience can end the run earlier.
    pub updates: u64,
    stop: &'a AtomicBool,
    actor_config: ActorConfig,
    bench: Bench,
    optimum: f64,
    begun: Instant,
    begun_at: u64,
}

impl<'a> Session<'a> {
    /// Goes on from where the run folder stands. An update takes `batch` environment steps.
    ///
    /// # Errors
    /// When the policies to compare with cannot be evaluated.
    pub fn open(
        config: &'a TrainConfig,
        run: &'a mut Run,
        stop: &'a AtomicBool,
        actor_config: ActorConfig,
        batch: u64,
    ) -> Result<Self, TrainError> {
        // The same evaluation slots however often the run was resumed.
        let bench = Bench::new(config.mec, config.eval_slots, nth_seed(config.seed, u64::MAX - 1));
        let optimum = bench.score(Judged::Optimum)?.reward;
        let closed_form = bench.score(Judged::Static(StaticPolicy::ClosedForm(QosKnowledge::Mean)))?.reward;
        run.references = vec![("optimum", optimum), ("closed form", closed_form)];
        let progress = run.progress.clone();
        let (begun, begun_at) = (Instant::now(), progress.steps);
        let mut updates = config.steps.div_ceil(batch.max(1));
        if config.patience > 0 && progress.stale_evaluations >= config.patience {
            updates = progress.update;
        }
        Ok(Self { config, run, progress, updates, stop, actor_config, bench, optimum, begun, begun_at })
    }

    /// Counts and logs an update; evaluates its policy if that is due, and keeps it if it is the best so far.
    ///
    /// # Errors
    /// When the folder cannot be written, or the policy is not made of numbers.
    pub fn finish_update(&mut self, update: Update<'_>) -> Result<Next, TrainError> {
        self.progress.update += 1;
        self.progress.steps += update.steps;
        let stopped = self.stop.load(Ordering::Relaxed);
        let update_number = self.progress.update;
        let due = |every: u64, updates: u64| {
            stopped || update_number >= updates || update_number.is_multiple_of(every.max(1))
        };
        let taken = (self.progress.steps - self.begun_at) as f64;
        let mut metrics = Metrics {
            global_step: self.progress.steps,
            mean_reward: update.mean_reward,
            learning_rate: update.learning_rate,
            steps_per_second: taken / self.begun.elapsed().as_secs_f64().max(1e-9),
            eval_reward: None,
            eval_ratio: None,
            losses: update.losses,
        };
        if due(self.config.eval_every, self.updates) {
            let score = self.evaluate(update.actor)?;
            (metrics.eval_reward, metrics.eval_ratio) = (Some(score.reward), Some(score.reward / self.optimum));
            let measured = [
                ("eval/latency_s", score.latency_mean_s),
                ("eval/accuracy", score.accuracy_mean),
                ("eval/hallucination", score.hallucination_mean),
                ("eval/energy_j", score.energy_j),
            ];
            metrics.losses.extend(measured.map(|(name, value)| (name.to_owned(), value)));
        }
        self.run.log(metrics)?;
        Ok(Next { checkpoint: due(self.config.checkpoint_every, self.updates), stopped })
    }

    fn evaluate(&mut self, actor: &Actor) -> Result<Score, TrainError> {
        let header = PolicyHeader {
            config: self.actor_config.clone(),
            action_map: self.config.action_map,
            algo: self.config.algo.name().to_owned(),
            seed: self.config.seed,
            steps: self.progress.steps,
        };
        let bytes = file::to_bytes(&header, actor)?;
        let policy = Policy::new(header, actor.clone(), &Device::flex());
        let score = self.bench.score(Judged::Learned(&policy))?;
        let reward = score.reward;
        if !reward.is_finite() {
            return Err(TrainError::NotANumber { update: self.progress.update, what: "reward" });
        }
        if self.progress.best_reward.is_none_or(|best| reward > best) {
            (self.progress.best_reward, self.progress.stale_evaluations) = (Some(reward), 0);
            self.run.keep_policy(&bytes)?;
        } else {
            self.progress.stale_evaluations += 1;
            if self.progress.stale_evaluations == self.config.patience {
                self.updates = self.progress.update;
            }
        }
        Ok(score)
    }
}
