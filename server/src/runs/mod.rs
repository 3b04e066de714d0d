//! Training as a service: runs that are asked for over HTTP, wait for their turn, learn on threads of their own, and are
//! there again after a restart.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`request`] | what is asked for → a training configuration, within the server's limits |
//! | [`cost`] | how long such a configuration would compute |
//! | [`store`] | the list of runs in SQLite |
//! | [`page`] | that list as it is sent |
//! | [`follow`], [`tail`] | a run's metrics, those so far and then live; its file, read once for all |
//! | `scheduler` | which runs wait and which learn |
//! | `learn` | a run from its beginning to its end, on its own thread |
//! | [`error`](mod@error) | why something about them could not be done |
//!
//! This file holds [`Runs`]: what can be asked of them. A run's results live in a run folder
//! ([`rl::run`]) named by its number, beside the database:
//!
//! ```text
//! DIR/runs.sqlite     one row a run: configuration, state, times, progress
//!     1/ 2/ …         run folders
//! ```
//! At most [`RunLimits::concurrent`] runs learn at the same time, at most [`RunLimits::queue`] wait; further ones are
//! refused. Each learns in a thread pool of its own, so that neither the async runtime nor the language model's threads
//! ever wait for it.
//!
//! Deliberately absent: learning itself ([`rl`]) and HTTP ([`crate::http::runs`]).

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use client::protocol::runs::{RunLimits, RunList, RunRequest, RunState, RunView, Training};
use tokio::sync::watch;

use rl::run::{CURVES_FILE, METRICS_FILE, POLICY_FILE};

pub mod cost;
pub mod error;
pub mod follow;
mod learn;
pub mod page;
pub mod request;
mod scheduler;
pub mod store;
pub mod tail;

#[cfg(test)]
pub(crate) mod tests;

pub use error::RunsError;
use page::{PageRequest, Pages};
pub use scheduler::RunProgress;
use scheduler::Scheduler;
use store::{Entry, Store, StoreError};
use tail::Tail;

/// An end that could not be written to the database is written again after this long.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What a server does with runs.
#[derive(Clone, Debug)]
pub struct RunsConfig {
    /// Folder of the database and of the run folders.
    pub dir: PathBuf,
    /// What is refused.
    pub limits: RunLimits,
    /// Threads of a run.
    pub threads: usize,
    /// Why no runs are taken, when none are; those that are there are still shown.
    pub off: Option<String>,
}

struct Inner {
    config: RunsConfig,
    /// `None` before it could be opened and after the server has closed it. Locked after the scheduler, never before.
    store: Mutex<Option<Store>>,
    scheduler: Mutex<Scheduler>,
    /// Told whenever a run ends.
    ended: Condvar,
    pages: Pages,
    /// The metrics files that are followed.
    tails: Mutex<HashMap<i64, Weak<Tail>>>,
}

/// All runs of a server.
#[derive(Clone)]
pub struct Runs(Arc<Inner>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is guarded stays consistent between any two statements, also after a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

impl Runs {
    /// Opens the folder. Runs that the last server left running become interrupted; those that waited go on waiting.
    ///
    /// # Errors
    /// The folder cannot be written, another server uses it, or its database is damaged or of another version.
    pub fn open(config: RunsConfig) -> Result<Self, RunsError> {
        let store = Store::open(&config.dir)?;
        store.interrupt_running(now_ms())?;
        let waiting = store.queued()?;
        let takes_runs = config.off.is_none();
        let runs = Self::with(config, Some(store));
        if takes_runs {
            let mut scheduler = lock(&runs.0.scheduler);
            for id in waiting {
                scheduler.enqueue(id);
            }
            runs.start_next(&mut scheduler);
        }
        Ok(runs)
    }

    /// No runs at all, and why.
    #[must_use]
    pub fn none(why: impl Into<String>) -> Self {
        let off = Some(why.into());
        Self::with(RunsConfig { dir: PathBuf::new(), limits: RunLimits::default(), threads: 1, off }, None)
    }

    fn with(config: RunsConfig, store: Option<Store>) -> Self {
        let (scheduler, ended) = (Mutex::default(), Condvar::new());
        let (pages, tails) = (Pages::default(), Mutex::default());
        Self(Arc::new(Inner { config, store: Mutex::new(store), scheduler, ended, pages, tails }))
    }

    fn with_store<T>(&self, read: impl FnOnce(&Store) -> Result<T, StoreError>) -> Result<T, RunsError> {
        match &*lock(&self.0.store) {
            Some(store) => Ok(read(store)?),
            None => Err(self.0.config.off.clone().map_or(RunsError::Closing, RunsError::Off)),
        }
    }

    /// Folder of a run.
    fn folder(&self, id: i64) -> PathBuf {
        self.0.config.dir.join(id.to_string())
    }

    /// What can be trained here, and all runs.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn list(&self) -> Result<RunList, RunsError> {
        self.list_part(PageRequest { limit: usize::MAX, before: None })
    }

    /// The same, of a part of the runs.
    fn list_part(&self, which: PageRequest) -> Result<RunList, RunsError> {
        let RunsConfig { off, limits, .. } = &self.0.config;
        let training = Training { off: off.clone(), algorithms: request::algorithms(), limits: *limits };
        // One more than is shown tells whether there are more.
        let mut runs = match self.with_store(|store| store.list(which.limit.saturating_add(1), which.before)) {
            Ok(runs) => runs,
            Err(RunsError::Off(_)) => Vec::new(),
            Err(error) => return Err(error),
        };
        let more = runs.len() > which.limit;
        runs.truncate(which.limit);
        let next = if more { runs.last().map(|entry| entry.view.id) } else { None };
        Ok(RunList { training, runs: runs.into_iter().map(|entry| self.complete(entry.view)).collect(), next })
    }

    /// One run.
    ///
    /// # Errors
    /// There is none of that number.
    pub fn get(&self, id: i64) -> Result<RunView, RunsError> {
        self.entry(id).map(|entry| self.complete(entry.view))
    }

    fn entry(&self, id: i64) -> Result<Entry, RunsError> {
        self.with_store(|store| store.get(id))?.ok_or(RunsError::Unknown(id))
    }

    /// Adds what the database does not know.
    fn complete(&self, mut view: RunView) -> RunView {
        view.has_policy = self.folder(view.id).join(POLICY_FILE).is_file();
        let scheduler = lock(&self.0.scheduler);
        if let Some(ended) = scheduler.unwritten.get(&view.id) {
            ended.show(&mut view);
        } else if let Some(active) = scheduler.active.get(&view.id)
            && view.state == RunState::Running
        {
            (view.steps, view.best_reward) = (active.steps, active.best_reward);
            view.references.clone_from(&active.references);
            view.stopping = active.stop.is_raised();
        }
        view
    }

    /// Writes the ends that the database could not take before. What fails now is tried again later.
    fn write_ends(&self, scheduler: &mut Scheduler) -> Result<(), RunsError> {
        while let Some((id, ended)) = scheduler.unwritten.first_key_value() {
            let id = *id;
            self.with_store(|store| ended.write(store, id))?;
            scheduler.unwritten.remove(&id);
            self.0.pages.changed();
            tracing::info!(run = id, "the end of the run is noted now");
        }
        Ok(())
    }

    /// Tries until it is done, for as long as the service is there.
    fn keep_trying(&self, scheduler: &mut Scheduler) {
        if scheduler.trying {
            return;
        }
        let inner = Arc::downgrade(&self.0);
        let again = move || {
            loop {
                std::thread::sleep(AGAIN_AFTER);
                let Some(inner) = inner.upgrade() else { return };
                let runs = Self(inner);
                let mut scheduler = lock(&runs.0.scheduler);
                if runs.write_ends(&mut scheduler).is_ok() || scheduler.closing {
                    scheduler.trying = false;
                    return;
                }
            }
        };
        // Without a thread it is tried at the next change.
        scheduler.trying = std::thread::Builder::new().name("runs-again".to_owned()).spawn(again).is_ok();
    }

    fn check_open(&self, scheduler: &Scheduler) -> Result<(), RunsError> {
        if let Some(why) = &self.0.config.off {
            return Err(RunsError::Off(why.clone()));
        }
        if scheduler.closing { Err(RunsError::Closing) } else { Ok(()) }
    }

    fn check_room(&self, scheduler: &Scheduler) -> Result<(), RunsError> {
        let limits = &self.0.config.limits;
        // A run that can begin at once does not wait.
        if scheduler.running >= limits.concurrent && scheduler.queue.len() >= limits.queue {
            return Err(RunsError::QueueFull(scheduler.queue.len()));
        }
        Ok(())
    }

    /// Takes a new run.
    ///
    /// # Errors
    /// The server takes none, the request is wrong or over a limit, or the queue is full.
    pub fn create(&self, request: &RunRequest) -> Result<RunView, RunsError> {
        let id = {
            let limits = &self.0.config.limits;
            let mut scheduler = lock(&self.0.scheduler);
            self.check_open(&scheduler)?;
            let config = request::config(request, limits)?;
            self.check_room(&scheduler)?;
            let id = self.with_store(|store| {
                Ok(if store.count()? < limits.kept { Some(store.insert(&config, now_ms())?) } else { None })
            })?;
            let id = id.ok_or(RunsError::TooMany(limits.kept))?;
            scheduler.enqueue(id);
            self.0.pages.changed();
            self.start_next(&mut scheduler);
            id
        };
        self.get(id)
    }

    /// Ends a run within seconds, with a checkpoint of its last update (of the one before, where an update takes long); takes a
    /// waiting one out of the queue.
    ///
    /// # Errors
    /// It neither runs nor waits.
    pub fn stop(&self, id: i64) -> Result<RunView, RunsError> {
        {
            let state = self.get(id)?.state;
            let mut scheduler = lock(&self.0.scheduler);
            if scheduler.queue.contains(&id) {
                self.with_store(|store| store.end(id, RunState::Stopped, None, now_ms()))?;
                scheduler.forget(id);
                self.0.pages.changed();
            } else if let Some(active) = scheduler.active.get_mut(&id) {
                active.stopped = true;
                active.stop.raise();
                self.0.pages.changed();
            } else {
                return Err(RunsError::State { id, state, advice: "only a run that learns or waits can be stopped." });
            }
        }
        self.get(id)
    }

    /// Puts a run that ended early into the queue again; it goes on from its last checkpoint.
    ///
    /// # Errors
    /// The server takes no runs, it did not end early, or the queue is full.
    pub fn resume(&self, id: i64) -> Result<RunView, RunsError> {
        {
            let mut scheduler = lock(&self.0.scheduler);
            self.check_open(&scheduler)?;
            // What could not be noted before has to be, or the database would still say that the run runs.
            self.write_ends(&mut scheduler)?;
            let Entry { view, damaged } = self.entry(id)?;
            let state = view.state;
            if damaged {
                return Err(RunsError::State { id, state, advice: "its entry is damaged; delete it." });
            }
            if !state.can_resume() || scheduler.active.contains_key(&id) {
                return Err(RunsError::State { id, state, advice: "only a run that ended early can be resumed." });
            }
            self.check_room(&scheduler)?;
            self.with_store(|store| store.requeue(id))?;
            scheduler.enqueue(id);
            self.0.pages.changed();
            self.start_next(&mut scheduler);
        }
        self.get(id)
    }

    /// Removes a run and its files.
    ///
    /// # Errors
    /// It learns at present, or its folder cannot be removed.
    pub fn delete(&self, id: i64) -> Result<(), RunsError> {
        let state = self.get(id)?.state;
        let mut scheduler = lock(&self.0.scheduler);
        if scheduler.active.contains_key(&id) && !scheduler.queue.contains(&id) {
            return Err(RunsError::State { id, state, advice: "stop it first." });
        }
        scheduler.forget(id);
        let folder = self.folder(id);
        match std::fs::remove_dir_all(&folder) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(RunsError::File { path: folder, source });
            }
            _ => {}
        }
        // Its files were most of what it took; where the disk was full, there may be room now.
        self.with_store(|store| store.delete(id))?;
        scheduler.unwritten.remove(&id);
        self.0.pages.changed();
        Ok(())
    }

    /// The policy file of a run, opened, and its length: it may have megabytes, and a better one may take its place.
    ///
    /// # Errors
    /// There is no such run, or it was not evaluated yet.
    pub fn policy(&self, id: i64) -> Result<(File, u64), RunsError> {
        self.file(id, POLICY_FILE, "policy")
    }

    /// The picture of a run.
    ///
    /// # Errors
    /// There is no such run, or it was not evaluated yet.
    pub fn curves(&self, id: i64) -> Result<(File, u64), RunsError> {
        self.file(id, CURVES_FILE, "curves")
    }

    fn file(&self, id: i64, name: &str, what: &'static str) -> Result<(File, u64), RunsError> {
        self.get(id)?;
        let path = self.folder(id).join(name);
        let open = || -> std::io::Result<(File, u64)> {
            let file = File::open(&path)?;
            let length = file.metadata()?.len();
            Ok((file, length))
        };
        open().map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => RunsError::NotYet { id, what },
            _ => RunsError::File { path, source },
        })
    }

    /// Takes no more runs, and ends those that learn within seconds. They count as interrupted.
    pub fn begin_shutdown(&self) {
        let mut scheduler = lock(&self.0.scheduler);
        scheduler.closing = true;
        for active in scheduler.active.values() {
            active.stop.raise();
        }
    }

    /// Waits until the runs that learn have ended, at most so long, and closes the database. What could not end in time
    /// is found interrupted by the next server.
    pub fn finish_shutdown(&self, longest: Duration) {
        self.begin_shutdown();
        let scheduler = lock(&self.0.scheduler);
        let waited = self.0.ended.wait_timeout_while(scheduler, longest, |scheduler| scheduler.running > 0);
        let (mut scheduler, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.write_ends(&mut scheduler) {
            tracing::error!(%error, "the ends of some runs could not be noted");
        }
        drop(scheduler);
        lock(&self.0.store).take();
    }

    /// What those who follow a run are told; `None` when it neither waits nor learns.
    fn progress(&self, id: i64) -> Result<Option<watch::Receiver<RunProgress>>, RunsError> {
        self.entry(id)?;
        Ok(lock(&self.0.scheduler).active.get(&id).map(|active| active.progress.subscribe()))
    }

    /// The file of a run's metrics, the same for all who read it.
    fn tail(&self, id: i64, resumes: u32) -> Arc<Tail> {
        let mut tails = lock(&self.0.tails);
        tails.retain(|_, tail| tail.strong_count() > 0);
        match tails.get(&id).and_then(Weak::upgrade).filter(|tail| tail.resumes == resumes) {
            Some(tail) => tail,
            None => {
                let tail = Arc::new(Tail::new(self.folder(id).join(METRICS_FILE), resumes));
                tails.insert(id, Arc::downgrade(&tail));
                tail
            }
        }
    }
}
