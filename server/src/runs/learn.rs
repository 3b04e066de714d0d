//! Runs on their way: they begin when there is room, learn on threads of their own, and end.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::protocol::runs::RunState;
use rl::config::TrainConfig;
use rl::run::{CONFIG_FILE, REFERENCES_FILE, Run};
use rl::{Ending, train};

use super::cost::Meter;
use super::scheduler::{RunEnd, Scheduler};
use super::store::StoreError;
use super::{Runs, RunsError, lock, now_ms};

/// Progress is written to the database at most so often; what is shown comes from memory.
const NOTE_EVERY: Duration = Duration::from_millis(500);

impl Runs {
    /// Starts what may start.
    pub(super) fn start_next(&self, scheduler: &mut Scheduler) {
        while !scheduler.closing && scheduler.running < self.0.config.limits.concurrent {
            let Some(id) = scheduler.queue.pop_front() else { return };
            scheduler.running += 1;
            let runs = self.clone();
            let thread = std::thread::Builder::new().name(format!("run-{id}"));
            let begun = self
                .with_store(|store| store.begin(id, now_ms()))
                .map_err(|error| error.to_string())
                .and_then(|()| thread.spawn(move || runs.learn(id)).map_err(|error| error.to_string()));
            self.0.pages.changed();
            if let Err(error) = begun {
                self.over(scheduler, id, RunState::Failed, Some(error));
            }
        }
    }

    /// A run from its beginning to its end, on its own thread.
    fn learn(&self, id: i64) {
        let ending = catch_unwind(AssertUnwindSafe(|| self.train(id)));
        let mut scheduler = lock(&self.0.scheduler);
        let active = scheduler.active.get(&id);
        let too_long = active.and_then(|active| active.too_long.clone());
        let by_person = active.is_some_and(|active| active.stopped);
        let by_time = !scheduler.closing && active.is_some_and(|active| active.stop.is_past_deadline());
        let minutes = self.0.config.limits.minutes;
        let (state, error) = match ending {
            Ok(Ok(Ending::Stopped)) if by_person => (RunState::Stopped, None),
            Ok(Ok(Ending::Stopped)) if too_long.is_some() => (RunState::Failed, too_long),
            Ok(Ok(Ending::Stopped)) if by_time => {
                let why = format!("It learned for {minutes} minutes, the limit of this server; it can be resumed.");
                (RunState::Stopped, Some(why))
            }
            // The server goes down.
            Ok(Ok(Ending::Stopped)) => (RunState::Interrupted, None),
            Ok(Ok(_)) => (RunState::Finished, None),
            Ok(Err(error)) => (RunState::Failed, Some(error.to_string())),
            Err(_) => (RunState::Failed, Some("The training broke down; the server's log says where.".to_owned())),
        };
        self.over(&mut scheduler, id, state, error);
        self.start_next(&mut scheduler);
    }

    fn over(&self, scheduler: &mut Scheduler, id: i64, state: RunState, error: Option<String>) {
        if let Some(error) = &error {
            tracing::warn!(run = id, error, "a training run ended early");
        }
        let progress = scheduler
            .active
            .get(&id)
            .map(|active| (active.steps, active.best_reward, active.references.clone()))
            .filter(|p| p.0 > 0);
        let ended = RunEnd { state, error, ended_ms: now_ms(), progress };
        if let Err(error) = self.with_store(|store| ended.write(store, id)) {
            tracing::error!(run = id, %error, "the end of a run could not be noted; it is tried again");
            scheduler.unwritten.insert(id, ended);
            self.keep_trying(scheduler);
        }
        self.0.pages.changed();
        scheduler.running -= 1;
        scheduler.forget(id);
        self.0.ended.notify_all();
    }

    fn train(&self, id: i64) -> Result<Ending, RunsError> {
        let dir = self.folder(id);
        let (mut run, config) = if dir.join(CONFIG_FILE).is_file() {
            Run::resume(&dir)?
        } else {
            let config = self.get(id)?.config;
            let config: TrainConfig =
                serde_json::from_value(config).map_err(|error| StoreError::Damaged(error.to_string()))?;
            (Run::create(&dir, &config)?, config)
        };
        let stop = {
            let mut scheduler = lock(&self.0.scheduler);
            let Some(active) = scheduler.active.get_mut(&id) else { return Ok(Ending::Stopped) };
            (active.steps, active.best_reward) = (run.progress.steps, run.progress.best_reward);
            active.progress.send_modify(|progress| progress.begun = true);
            Arc::clone(&active.stop)
        };
        let longest = Duration::from_secs(self.0.config.limits.minutes.saturating_mul(60));
        if let Some(deadline) = Instant::now().checked_add(longest) {
            stop.set_deadline(deadline);
        }
        let (runs, mut noted) = (self.clone(), Instant::now());
        let mut meter = Meter::new(config.steps, &self.0.config.limits, noted);
        run.on_update = Box::new(move |metrics| {
            let mut scheduler = lock(&runs.0.scheduler);
            let Some(active) = scheduler.active.get_mut(&id) else { return };
            active.steps = metrics.global_step;
            if let Some(why) = meter.update(metrics.global_step, Instant::now()) {
                active.too_long.get_or_insert(why);
                active.stop.raise();
            }
            active.best_reward = metrics.best_reward.or(active.best_reward);
            if active.references.is_empty() {
                active.references = references(&runs.folder(id));
            }
            active.progress.send_modify(|progress| progress.updates += 1);
            runs.0.pages.progressed();
            if noted.elapsed() >= NOTE_EVERY {
                noted = Instant::now();
                let (steps, best) = (active.steps, active.best_reward);
                // What fails here fails again at the end, and is told then.
                let _ = runs.with_store(|store| store.note(id, steps, best, &active.references));
            }
        });
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(self.0.config.threads)
            .thread_name(move |index| format!("run-{id}-{index}"))
            .build()
            .map_err(|error| RunsError::File { path: dir.clone(), source: std::io::Error::other(error) })?;
        Ok(pool.install(|| train(&config, &mut run, &stop))?)
    }
}

fn references(dir: &Path) -> BTreeMap<String, f64> {
    let text = std::fs::read_to_string(dir.join(REFERENCES_FILE)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}
