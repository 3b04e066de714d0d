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
//! | [`error`](mod@error) | why something about them could not be done |
//!
//! This file holds [`Runs`]: the queue, and the threads that train. A run's results live in a run folder
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

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use client::protocol::runs::{RunLimits, RunList, RunRequest, RunState, RunView, Training};
use tokio::sync::watch;

use rl::config::TrainConfig;
use rl::run::{CONFIG_FILE, CURVES_FILE, METRICS_FILE, POLICY_FILE, REFERENCES_FILE, Run};
use rl::stop::Stop;
use rl::{Ending, train};

pub mod cost;
pub mod error;
pub mod follow;
pub mod page;
pub mod request;
pub mod store;
pub mod tail;

#[cfg(test)]
pub(crate) mod tests;

pub use error::RunsError;
use page::{PageRequest, Pages};
use store::{Entry, Store, StoreError};
use tail::Tail;

/// Progress is written to the database at most so often; what is shown comes from memory.
const NOTE_EVERY: Duration = Duration::from_millis(500);

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

/// What those who follow a run are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunProgress {
    /// Its folder is in order and it learns.
    pub begun: bool,
    /// Updates that were logged since.
    pub updates: u64,
    /// It is over.
    pub over: bool,
}

/// A run that waits or learns.
struct ActiveRun {
    stop: Arc<Stop>,
    /// Whether a person told it to stop.
    stopped: bool,
    pulse: watch::Sender<RunProgress>,
    steps: u64,
    best_reward: Option<f64>,
    references: BTreeMap<String, f64>,
}

/// How a run ended.
#[derive(Clone, Debug)]
struct RunEnd {
    state: RunState,
    error: Option<String>,
    ended_ms: u64,
    /// Steps, best reward and references, where it learned.
    progress: Option<(u64, Option<f64>, BTreeMap<String, f64>)>,
}

impl RunEnd {
    fn write(&self, store: &Store, id: i64) -> Result<(), StoreError> {
        if let Some((steps, best_reward, references)) = &self.progress {
            store.note(id, *steps, *best_reward, references)?;
        }
        store.end(id, self.state, self.error.as_deref(), self.ended_ms)
    }

    fn show(&self, view: &mut RunView) {
        (view.state, view.ended_ms) = (self.state, Some(self.ended_ms));
        view.error.clone_from(&self.error);
        if let Some((steps, best_reward, references)) = &self.progress {
            (view.steps, view.best_reward) = (*steps, *best_reward);
            view.references.clone_from(references);
        }
    }
}

#[derive(Default)]
struct Queue {
    queue: VecDeque<i64>,
    live: BTreeMap<i64, ActiveRun>,
    /// Ends that the database could not take: the disk was full.
    unwritten: BTreeMap<i64, RunEnd>,
    /// Whether a thread tries to write those.
    trying: bool,
    running: usize,
    closing: bool,
}

struct Inner {
    config: RunsConfig,
    /// `None` before it could be opened and after the server has closed it. Locked after the desk, never before.
    store: Mutex<Option<Store>>,
    desk: Mutex<Queue>,
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
            let mut desk = lock(&runs.0.desk);
            for id in waiting {
                desk.enqueue(id);
            }
            runs.start_next(&mut desk);
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
        let (desk, ended) = (Mutex::default(), Condvar::new());
        let (pages, tails) = (Pages::default(), Mutex::default());
        Self(Arc::new(Inner { config, store: Mutex::new(store), desk, ended, pages, tails }))
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
        let desk = lock(&self.0.desk);
        if let Some(ended) = desk.unwritten.get(&view.id) {
            ended.show(&mut view);
        } else if let Some(live) = desk.live.get(&view.id)
            && view.state == RunState::Running
        {
            (view.steps, view.best_reward) = (live.steps, live.best_reward);
            view.references.clone_from(&live.references);
            view.stopping = live.stop.is_raised();
        }
        view
    }

    /// Writes the ends that the database could not take before. What fails now is tried again later.
    fn write_ends(&self, desk: &mut Queue) -> Result<(), RunsError> {
        while let Some((id, ended)) = desk.unwritten.first_key_value() {
            let id = *id;
            self.with_store(|store| ended.write(store, id))?;
            desk.unwritten.remove(&id);
            self.0.pages.changed();
            tracing::info!(run = id, "the end of the run is noted now");
        }
        Ok(())
    }

    /// Tries until it is done, for as long as the service is there.
    fn keep_trying(&self, desk: &mut Queue) {
        if desk.trying {
            return;
        }
        let inner = Arc::downgrade(&self.0);
        let again = move || {
            loop {
                std::thread::sleep(AGAIN_AFTER);
                let Some(inner) = inner.upgrade() else { return };
                let runs = Self(inner);
                let mut desk = lock(&runs.0.desk);
                if runs.write_ends(&mut desk).is_ok() || desk.closing {
                    desk.trying = false;
                    return;
                }
            }
        };
        // Without a thread it is tried at the next change.
        desk.trying = std::thread::Builder::new().name("runs-again".to_owned()).spawn(again).is_ok();
    }

    fn check_open(&self, desk: &Queue) -> Result<(), RunsError> {
        if let Some(why) = &self.0.config.off {
            return Err(RunsError::Off(why.clone()));
        }
        if desk.closing { Err(RunsError::Closing) } else { Ok(()) }
    }

    fn check_room(&self, desk: &Queue) -> Result<(), RunsError> {
        let limits = &self.0.config.limits;
        // A run that can begin at once does not wait.
        if desk.running >= limits.concurrent && desk.queue.len() >= limits.queue {
            return Err(RunsError::QueueFull(desk.queue.len()));
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
            let mut desk = lock(&self.0.desk);
            self.check_open(&desk)?;
            let config = request::config(request, limits)?;
            self.check_room(&desk)?;
            let id = self.with_store(|store| {
                Ok(if store.count()? < limits.kept { Some(store.insert(&config, now_ms())?) } else { None })
            })?;
            let id = id.ok_or(RunsError::TooMany(limits.kept))?;
            desk.enqueue(id);
            self.0.pages.changed();
            self.start_next(&mut desk);
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
            let mut desk = lock(&self.0.desk);
            if desk.queue.contains(&id) {
                self.with_store(|store| store.end(id, RunState::Stopped, None, now_ms()))?;
                desk.forget(id);
                self.0.pages.changed();
            } else if let Some(live) = desk.live.get_mut(&id) {
                live.stopped = true;
                live.stop.raise();
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
            let mut desk = lock(&self.0.desk);
            self.check_open(&desk)?;
            // What could not be noted before has to be, or the database would still say that the run runs.
            self.write_ends(&mut desk)?;
            let Entry { view, damaged } = self.entry(id)?;
            let state = view.state;
            if damaged {
                return Err(RunsError::State { id, state, advice: "its entry is damaged; delete it." });
            }
            if !state.can_resume() || desk.live.contains_key(&id) {
                return Err(RunsError::State { id, state, advice: "only a run that ended early can be resumed." });
            }
            self.check_room(&desk)?;
            self.with_store(|store| store.requeue(id))?;
            desk.enqueue(id);
            self.0.pages.changed();
            self.start_next(&mut desk);
        }
        self.get(id)
    }

    /// Removes a run and its files.
    ///
    /// # Errors
    /// It learns at present, or its folder cannot be removed.
    pub fn delete(&self, id: i64) -> Result<(), RunsError> {
        let state = self.get(id)?.state;
        let mut desk = lock(&self.0.desk);
        if desk.live.contains_key(&id) && !desk.queue.contains(&id) {
            return Err(RunsError::State { id, state, advice: "stop it first." });
        }
        desk.forget(id);
        let folder = self.folder(id);
        match std::fs::remove_dir_all(&folder) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(RunsError::File { path: folder, source });
            }
            _ => {}
        }
        // Its files were most of what it took; where the disk was full, there may be room now.
        self.with_store(|store| store.delete(id))?;
        desk.unwritten.remove(&id);
        self.0.pages.changed();
        Ok(())
    }

    /// The policy file of a run.
    ///
    /// # Errors
    /// There is no such run, or it was not evaluated yet.
    pub fn policy(&self, id: i64) -> Result<Vec<u8>, RunsError> {
        self.file(id, POLICY_FILE, "policy")
    }

    /// The picture of a run.
    ///
    /// # Errors
    /// There is no such run, or it was not evaluated yet.
    pub fn curves(&self, id: i64) -> Result<Vec<u8>, RunsError> {
        self.file(id, CURVES_FILE, "curves")
    }

    fn file(&self, id: i64, name: &str, what: &'static str) -> Result<Vec<u8>, RunsError> {
        self.get(id)?;
        let path = self.folder(id).join(name);
        std::fs::read(&path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => RunsError::NotYet { id, what },
            _ => RunsError::File { path, source },
        })
    }

    /// Takes no more runs, and ends those that learn within seconds. They count as interrupted.
    pub fn begin_shutdown(&self) {
        let mut desk = lock(&self.0.desk);
        desk.closing = true;
        for live in desk.live.values() {
            live.stop.raise();
        }
    }

    /// Waits until the runs that learn have ended, at most so long, and closes the database. What could not end in time
    /// is found interrupted by the next server.
    pub fn finish_shutdown(&self, longest: Duration) {
        self.begin_shutdown();
        let desk = lock(&self.0.desk);
        let waited = self.0.ended.wait_timeout_while(desk, longest, |desk| desk.running > 0);
        let (mut desk, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.write_ends(&mut desk) {
            tracing::error!(%error, "the ends of some runs could not be noted");
        }
        drop(desk);
        lock(&self.0.store).take();
    }

    /// Starts what may start.
    fn start_next(&self, desk: &mut Queue) {
        while !desk.closing && desk.running < self.0.config.limits.concurrent {
            let Some(id) = desk.queue.pop_front() else { return };
            desk.running += 1;
            let runs = self.clone();
            let thread = std::thread::Builder::new().name(format!("run-{id}"));
            let begun = self
                .with_store(|store| store.begin(id, now_ms()))
                .map_err(|error| error.to_string())
                .and_then(|()| thread.spawn(move || runs.learn(id)).map_err(|error| error.to_string()));
            self.0.pages.changed();
            if let Err(error) = begun {
                self.over(desk, id, RunState::Failed, Some(error));
            }
        }
    }

    /// A run from its beginning to its end, on its own thread.
    fn learn(&self, id: i64) {
        let ending = catch_unwind(AssertUnwindSafe(|| self.train(id)));
        let mut desk = lock(&self.0.desk);
        let live = desk.live.get(&id);
        let by_person = live.is_some_and(|live| live.stopped);
        let by_time = !desk.closing && live.is_some_and(|live| live.stop.is_past_deadline());
        let minutes = self.0.config.limits.minutes;
        let (state, error) = match ending {
            Ok(Ok(Ending::Stopped)) if by_person => (RunState::Stopped, None),
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
        self.over(&mut desk, id, state, error);
        self.start_next(&mut desk);
    }

    fn over(&self, desk: &mut Queue, id: i64, state: RunState, error: Option<String>) {
        if let Some(error) = &error {
            tracing::warn!(run = id, error, "a training run ended early");
        }
        let progress =
            desk.live.get(&id).map(|live| (live.steps, live.best_reward, live.references.clone())).filter(|p| p.0 > 0);
        let ended = RunEnd { state, error, ended_ms: now_ms(), progress };
        if let Err(error) = self.with_store(|store| ended.write(store, id)) {
            tracing::error!(run = id, %error, "the end of a run could not be noted; it is tried again");
            desk.unwritten.insert(id, ended);
            self.keep_trying(desk);
        }
        self.0.pages.changed();
        desk.running -= 1;
        desk.forget(id);
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
            let mut desk = lock(&self.0.desk);
            let Some(live) = desk.live.get_mut(&id) else { return Ok(Ending::Stopped) };
            (live.steps, live.best_reward) = (run.progress.steps, run.progress.best_reward);
            live.pulse.send_modify(|pulse| pulse.begun = true);
            Arc::clone(&live.stop)
        };
        let longest = Duration::from_secs(self.0.config.limits.minutes.saturating_mul(60));
        if let Some(deadline) = Instant::now().checked_add(longest) {
            stop.set_deadline(deadline);
        }
        let (runs, mut noted) = (self.clone(), Instant::now());
        run.on_update = Box::new(move |metrics| {
            let mut desk = lock(&runs.0.desk);
            let Some(live) = desk.live.get_mut(&id) else { return };
            live.steps = metrics.global_step;
            live.best_reward = metrics.best_reward.or(live.best_reward);
            if live.references.is_empty() {
                live.references = references(&runs.folder(id));
            }
            live.pulse.send_modify(|pulse| pulse.updates += 1);
            runs.0.pages.progressed();
            if noted.elapsed() >= NOTE_EVERY {
                noted = Instant::now();
                let (steps, best) = (live.steps, live.best_reward);
                // What fails here fails again at the end, and is told then.
                let _ = runs.with_store(|store| store.note(id, steps, best, &live.references));
            }
        });
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(self.0.config.threads)
            .thread_name(move |index| format!("run-{id}-{index}"))
            .build()
            .map_err(|error| RunsError::File { path: dir.clone(), source: std::io::Error::other(error) })?;
        Ok(pool.install(|| train(&config, &mut run, &stop))?)
    }

    /// What those who follow a run are told; `None` when it neither waits nor learns.
    fn pulse(&self, id: i64) -> Result<Option<watch::Receiver<RunProgress>>, RunsError> {
        self.entry(id)?;
        Ok(lock(&self.0.desk).live.get(&id).map(|live| live.pulse.subscribe()))
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

impl Queue {
    fn enqueue(&mut self, id: i64) {
        let live = ActiveRun {
            stop: Arc::default(),
            stopped: false,
            pulse: watch::Sender::new(RunProgress::default()),
            steps: 0,
            best_reward: None,
            references: BTreeMap::new(),
        };
        self.live.insert(id, live);
        self.queue.push_back(id);
    }

    /// It neither waits nor learns any more.
    fn forget(&mut self, id: i64) {
        self.queue.retain(|waiting| *waiting != id);
        if let Some(live) = self.live.remove(&id) {
            live.pulse.send_modify(|pulse| pulse.over = true);
        }
    }
}

fn references(dir: &Path) -> BTreeMap<String, f64> {
    let text = std::fs::read_to_string(dir.join(REFERENCES_FILE)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}
