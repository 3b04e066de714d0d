//! What every algorithm does around its updates: evaluate the policy on the same slots every time, log, keep the best
//! policy, and say when a checkpoint is due.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use mec::world::nth_seed;
use mec::{MecParams, QosKnowledge, StaticPolicy};
use policy::{Network, NetworkShape, Policy, PolicyHeader, file};

use super::error::TrainError;
use super::evaluate::{Bench, Judged, Score};
use super::run::{Metrics, Progress, Run};
use super::settings::RunSettings;
use super::stop::Stop;
use super::worlds::{Trials, Worlds};

/// After so long a checkpoint is due whatever the number of updates: where updates take long, little is lost with one that is
/// left unfinished.
const CHECKPOINT_AFTER: Duration = Duration::from_secs(10);
/// But never more than this part of the time goes into writing checkpoints that nobody asked for.
const CHECKPOINT_SHARE: u32 = 20;

/// What an algorithm is given beside its own hyper-parameters.
pub struct Job<'a> {
    /// The algorithm's name, for the policy's header.
    pub algo: &'static str,
    /// System, budget, seed, evaluation.
    pub settings: &'a RunSettings,
    /// The run folder.
    pub run: &'a mut Run,
    /// When to end.
    pub stop: &'a Stop,
}

/// What an update gave.
pub struct Update<'a> {
    /// Its policy, without gradients.
    pub network: &'a Network,
    /// Environment steps that it took.
    pub steps: u64,
    /// Mean reward of them, exploration included; in a run for several numbers of users its [`Session::share`].
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
    /// The run is to stop before all updates are done.
    pub stopped: bool,
}

/// Evaluation slots of one number of users, and what there is to get on them.
struct EvalSet {
    users: usize,
    bench: Bench,
    optimum: f64,
    closed_form: f64,
}

/// A training run under way. Where it is for several numbers of users, whose rewards differ twentyfold, it logs them as
/// shares of what the optimum gets with as many users.
pub struct Session<'a> {
    algo: &'static str,
    settings: &'a RunSettings,
    /// The run folder.
    pub run: &'a mut Run,
    /// Where the run stands.
    pub progress: Progress,
    /// Updates in all; patience can end the run earlier.
    pub updates: u64,
    /// Share of users and slots that may break a limit; a policy that stays within it is better than any that does not.
    pub allowed: Option<f64>,
    /// What the best policy is chosen by, where it is not the reward in the run's own system.
    pub merit: Option<f64>,
    stop: &'a Stop,
    shape: NetworkShape,
    trials: Vec<EvalSet>,
    /// Where the best policy of a network for one number of users is chosen, where systems are random.
    random_trials: Option<Trials>,
    begun: Instant,
    begun_at: u64,
    /// When the last checkpoint was written, and how long that took.
    saved: (Instant, Duration),
}

impl<'a> Session<'a> {
    /// Goes on from where the run folder stands. An update takes `batch` environment steps.
    ///
    /// # Errors
    /// When the policies to compare with cannot be evaluated, or the run is to stop.
    pub fn open(job: Job<'a>, shape: NetworkShape, batch: u64) -> Result<Self, TrainError> {
        let Job { algo, settings, run, stop } = job;
        let counts = shape.users();
        let slots = settings.eval_slots.div_ceil(counts.clone().count());
        let mut trials = Vec::new();
        for users in counts {
            // The same evaluation slots however often the run was resumed.
            let params = MecParams { users, ..settings.mec };
            let bench = Bench::new(params, slots, nth_seed(settings.seed, u64::MAX - 1));
            let judge = |judged| bench.score_unless(judged, || stop.check());
            let optimum = judge(Judged::Optimum)?.reward;
            let closed_form = judge(Judged::Static(StaticPolicy::ClosedForm(QosKnowledge::Mean)))?.reward;
            trials.push(EvalSet { users, bench, optimum, closed_form });
        }
        run.references = match trials.as_slice() {
            [only] => vec![("optimum", only.optimum), ("closed form", only.closed_form)],
            several => {
                run.reward_unit = "share of the optimum's";
                let closed_form = several.iter().map(|trial| trial.closed_form / trial.optimum).sum::<f64>();
                vec![("optimum", 1.0), ("closed form", closed_form / several.len().max(1) as f64)]
            }
        };
        let progress = run.progress.clone();
        let (begun, begun_at) = (Instant::now(), progress.steps);
        let mut updates = settings.steps.div_ceil(batch.max(1));
        if settings.patience > 0 && progress.stale_evaluations >= settings.patience {
            updates = progress.update;
        }
        let saved = (begun, Duration::ZERO);
        let is_random = settings.worlds == Worlds::Random && matches!(shape, NetworkShape::Fixed(_));
        let random_trials = is_random.then(|| Trials::new(settings.mec.users, nth_seed(settings.seed, u64::MAX - 2)));
        Ok(Self {
            algo,
            settings,
            run,
            progress,
            updates,
            allowed: None,
            merit: None,
            stop,
            shape,
            trials,
            random_trials,
            begun,
            begun_at,
            saved,
        })
    }

    /// Counts and logs an update; evaluates its policy if that is due, and keeps it if it is the best so far.
    ///
    /// # Errors
    /// When the folder cannot be written, the policy's reward is NaN or infinite, or the run is to stop.
    pub fn finish_update(&mut self, update: Update<'_>) -> Result<Next, TrainError> {
        self.progress.update += 1;
        self.progress.steps += update.steps;
        let update_number = self.progress.update;
        let due = |every: u64, updates: u64| update_number >= updates || update_number.is_multiple_of(every.max(1));
        let taken = (self.progress.steps - self.begun_at) as f64;
        let mut metrics = Metrics {
            global_step: self.progress.steps,
            mean_reward: update.mean_reward,
            learning_rate: update.learning_rate,
            steps_per_second: taken / self.begun.elapsed().as_secs_f64().max(1e-9),
            eval_reward: None,
            eval_ratio: None,
            best_reward: None,
            losses: update.losses,
        };
        if due(self.settings.eval_every, self.updates) {
            let scores = self.evaluate(update.network)?;
            let shares = self.trials.iter().zip(&scores).map(|(trial, score)| score.reward / trial.optimum);
            let shares: Vec<f64> = shares.collect();
            let count = scores.len().max(1) as f64;
            let mean = |value: fn(&Score) -> f64| scores.iter().map(value).sum::<f64>() / count;
            let ratio = shares.iter().sum::<f64>() / count;
            let reward = if scores.len() > 1 { ratio } else { mean(|score| score.reward) };
            let below = mean(|score| score.users_below_accuracy);
            let over = mean(|score| score.users_over_hallucination);
            let spent = mean(|score| score.users_over_energy);
            if let Some(trials) = &self.random_trials {
                let merit = trials.merit(self.header(), update.network)?;
                self.merit = Some(merit);
                metrics.losses.insert("eval/share_of_unlearned".to_owned(), merit);
            }
            self.keep_if_best(update.network, reward, below.max(over).max(spent))?;
            (metrics.eval_reward, metrics.eval_ratio) = (Some(reward), Some(ratio));
            metrics.best_reward = self.progress.best_reward;
            let measured = [
                ("eval/latency_s", mean(|score| score.latency_mean_s)),
                ("eval/accuracy", mean(|score| score.accuracy_mean)),
                ("eval/hallucination", mean(|score| score.hallucination_mean)),
                ("eval/energy_j", mean(|score| score.energy_j)),
                ("eval/users_below_accuracy", below),
                ("eval/users_over_hallucination", over),
                ("eval/users_over_energy", spent),
            ];
            metrics.losses.extend(measured.map(|(name, value)| (name.to_owned(), value)));
            if scores.len() > 1 {
                let named = self.trials.iter().zip(shares);
                metrics.losses.extend(named.map(|(trial, share)| (format!("eval/ratio_k{}", trial.users), share)));
            }
        }
        self.run.log(metrics)?;
        // Never an evaluation out of turn: a run that was stopped is the one that was not, line by line.
        let stopped = self.stop.is_raised() && self.progress.update < self.updates;
        let (at, took) = self.saved;
        let overdue = at.elapsed() >= CHECKPOINT_AFTER.max(CHECKPOINT_SHARE * took);
        let checkpoint = stopped || overdue || due(self.settings.checkpoint_every, self.updates);
        Ok(Next { checkpoint, stopped })
    }

    /// Replaces the checkpoint by the files that `write` puts into the folder that it is given.
    ///
    /// # Errors
    /// When they cannot be written; the old checkpoint stays then.
    pub fn checkpoint(&mut self, write: impl FnOnce(&Path) -> Result<(), TrainError>) -> Result<(), TrainError> {
        let begun = Instant::now();
        self.run.checkpoint(&self.progress, write)?;
        self.saved = (Instant::now(), begun.elapsed());
        Ok(())
    }

    /// A mean reward with so many users as a share of the optimum's.
    pub fn share(&self, users: usize, reward: f64) -> f64 {
        let trial = self.trials.iter().find(|trial| trial.users == users);
        trial.map_or(f64::NAN, |trial| reward / trial.optimum)
    }

    fn header(&self) -> PolicyHeader {
        PolicyHeader {
            shape: self.shape.clone(),
            action_map: self.settings.action_map,
            algo: self.algo.to_owned(),
            seed: self.settings.seed,
            steps: self.progress.steps,
        }
    }

    fn evaluate(&self, network: &Network) -> Result<Vec<Score>, TrainError> {
        let policy = Policy::new(self.header(), network.clone(), &Device::flex());
        let guard = self.stop.guard(self.progress.update);
        let judge = |trial: &EvalSet| trial.bench.score_unless(Judged::Learned(&policy), || guard.check());
        self.trials.iter().map(judge).collect()
    }

    fn keep_if_best(&mut self, network: &Network, reward: f64, broken: f64) -> Result<(), TrainError> {
        let bytes = file::to_bytes(&self.header(), network)?;
        self.stop.guard(self.progress.update).finite(reward.is_finite(), "reward")?;
        // Rewards are never negative: below 0 lie the policies that break the limits, by how much they do.
        let breaks = self.allowed.is_some_and(|allowed| broken > allowed);
        let merit = if breaks { -broken } else { self.merit.unwrap_or(reward) };
        if self.progress.best_merit.or(self.progress.best_reward).is_none_or(|best| merit > best) {
            (self.progress.best_merit, self.progress.best_reward) = (Some(merit), Some(reward));
            self.progress.stale_evaluations = 0;
            self.run.keep_policy(&bytes)?;
        } else {
            self.progress.stale_evaluations += 1;
            if self.progress.stale_evaluations == self.settings.patience {
                self.updates = self.progress.update;
            }
        }
        Ok(())
    }
}
