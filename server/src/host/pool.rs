//! Threads that take jobs from one bounded queue.
//!
//! Decoding a model is minutes of plain computation: it runs on threads of its own, never on the async runtime's. The
//! queue states its capacity; a job that finds it full is handed back at once. One whose client has left counts no more.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::retry::Pace;
use super::{HostError, Load};

/// Work for a thread.
pub trait Job: Send + 'static {
    /// Whether nobody waits for it any more.
    fn is_abandoned(&self) -> bool;
}

/// N threads over one queue of jobs.
#[derive(Debug)]
pub struct Pool<J> {
    shared: Arc<Shared<J>>,
    slots: usize,
}

#[derive(Debug)]
struct Shared<J> {
    state: Mutex<State<J>>,
    changed: Condvar,
    capacity: usize,
}

#[derive(Debug)]
struct State<J> {
    jobs: VecDeque<J>,
    active: usize,
    /// Threads that are alive; falls when one panics.
    alive: usize,
    closed: bool,
    pace: Pace,
}

impl<J: Job> State<J> {
    /// Jobs that somebody waits for.
    fn waiting(&mut self) -> usize {
        self.jobs.retain(|job| !job.is_abandoned());
        self.jobs.len()
    }
}

impl<J> Shared<J> {
    /// A thread that panicked held no half-made state: the queue goes on.
    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job; `None` once the pool is closed.
    fn take(&self) -> Option<J> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(job) = state.jobs.pop_front() {
                state.active += 1;
                return Some(job);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Counts a thread out however it ends.
struct Alive<J>(Arc<Shared<J>>);

impl<J> Drop for Alive<J> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.alive -= 1;
        if state.alive == 0 {
            // Nobody is left to take them: whoever waits for them has to hear of it.
            state.jobs.clear();
        }
    }
}

/// Counts a job out however it ends, a panic included.
struct Active<J>(Arc<Shared<J>>, Instant);

impl<J> Drop for Active<J> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.active -= 1;
        state.pace.took(self.1.elapsed());
    }
}

impl<J: Job> Pool<J> {
    /// Starts one thread for each of `workers`, with at most `capacity` jobs waiting.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start<W>(name: &str, workers: Vec<W>, capacity: usize) -> std::io::Result<Self>
    where
        W: FnMut(J) + Send + 'static,
    {
        let slots = workers.len();
        let state = State { jobs: VecDeque::new(), active: 0, alive: slots, closed: false, pace: Pace::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), capacity });
        let pool = Self { shared: Arc::clone(&shared), slots };
        for (index, mut worker) in workers.into_iter().enumerate() {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(format!("{name}-{index}")).spawn(move || {
                let _alive = Alive(Arc::clone(&shared));
                while let Some(job) = shared.take() {
                    let _active = Active(Arc::clone(&shared), Instant::now());
                    worker(job);
                }
            })?;
        }
        Ok(pool)
    }

    /// Queues a job.
    ///
    /// # Errors
    /// [`HostError::Busy`] when every thread works and the queue is full; [`HostError::Engine`] when no thread is left.
    pub fn submit(&self, job: J) -> Result<(), HostError> {
        let mut state = self.shared.lock();
        if state.closed {
            return Err(HostError::ShuttingDown);
        }
        if state.alive == 0 {
            return Err(HostError::Engine("all of its threads have failed; restart the server".into()));
        }
        let idle = state.alive.saturating_sub(state.active);
        let waiting = state.waiting();
        if waiting >= self.shared.capacity + idle {
            return Err(HostError::Busy { waiting, retry_after_s: state.pace.retry_after_s(waiting, self.slots) });
        }
        state.jobs.push_back(job);
        drop(state);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// How busy the pool is.
    #[must_use]
    pub fn load(&self) -> Load {
        let mut state = self.shared.lock();
        let waiting = state.waiting();
        Load { slots: self.slots, active: state.active, waiting, capacity: self.shared.capacity }
    }
}

impl<J> Drop for Pool<J> {
    /// Drops the waiting jobs and lets the threads end after the job that each has in hand.
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        state.jobs.clear();
        drop(state);
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use super::*;

    impl Job for u32 {
        fn is_abandoned(&self) -> bool {
            *self == GONE
        }
    }

    impl Job for mpsc::Sender<()> {
        fn is_abandoned(&self) -> bool {
            false
        }
    }

    /// Nobody waits for this one.
    const GONE: u32 = 99;

    fn until(mut done: impl FnMut() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < Duration::from_secs(10), "gave up waiting");
            std::thread::yield_now();
        }
    }

    #[test]
    fn fills_slots_then_the_queue_then_refuses() {
        let (release, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let gate = Arc::clone(&gate);
                move |_: u32| gate.lock().unwrap().recv().unwrap()
            })
            .collect();
        let pool = Pool::start("test", workers, 1).unwrap();
        for job in 0..3 {
            pool.submit(job).unwrap();
        }
        until(|| pool.load().active == 2);
        assert_eq!(pool.load(), Load { slots: 2, active: 2, waiting: 1, capacity: 1 });
        assert!(matches!(pool.submit(3), Err(HostError::Busy { waiting: 1, .. })));
        release.send(()).unwrap();
        until(|| pool.load().waiting == 0);
        pool.submit(4).unwrap();
        for _ in 0..3 {
            release.send(()).unwrap();
        }
        until(|| pool.load().active == 0 && pool.load().waiting == 0);
    }

    #[test]
    fn who_has_left_the_queue_is_not_counted_and_gives_its_place_to_others() {
        let (release, gate) = mpsc::channel::<()>();
        let pool = Pool::start("test", vec![move |_: u32| gate.recv().unwrap_or(())], 1).unwrap();
        pool.submit(0).unwrap();
        until(|| pool.load().active == 1);
        for _ in 0..3 {
            pool.submit(GONE).unwrap();
            assert_eq!(pool.load().waiting, 0);
        }
        pool.submit(1).unwrap();
        assert!(matches!(pool.submit(2), Err(HostError::Busy { waiting: 1, .. })));
        drop(release);
    }

    #[test]
    fn without_a_queue_an_idle_slot_still_takes_work() {
        let (sender, received) = mpsc::channel();
        let pool = Pool::start("test", vec![move |job: u32| sender.send(job).unwrap()], 0).unwrap();
        pool.submit(7).unwrap();
        assert_eq!(received.recv().unwrap(), 7);
    }

    #[test]
    fn a_panicking_worker_is_counted_out() {
        let pool = Pool::start("test", vec![|_: u32| panic!("expected by the test")], 4).unwrap();
        pool.submit(1).unwrap();
        until(|| matches!(pool.submit(1), Err(HostError::Engine(_))));
        assert_eq!(pool.load().active, 0);
    }

    #[test]
    fn dropping_the_pool_drops_the_waiting_jobs() {
        let (started, is_started) = mpsc::channel();
        let (release, gate) = mpsc::channel::<()>();
        let worker = move |_job: mpsc::Sender<()>| {
            started.send(()).unwrap();
            let _ = gate.recv();
        };
        let pool = Pool::start("test", vec![worker], 4).unwrap();
        let (job, _running) = mpsc::channel();
        pool.submit(job).unwrap();
        is_started.recv().unwrap();
        let (job, waiting) = mpsc::channel();
        pool.submit(job).unwrap();
        drop(pool);
        assert!(waiting.recv().is_err(), "the waiting job's sender is gone");
        drop(release);
    }
}
