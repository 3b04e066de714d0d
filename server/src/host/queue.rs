//! A bounded queue of jobs before a number of places.
//!
//! It states its capacity; a job that finds it full is handed back at once. One whose client has left counts no more.
//! Whoever takes a job takes a place with it, which is given back however the job ends.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::retry::Pace;
use super::{HostError, Load};

/// Work to be done.
pub trait Job: Send + 'static {
    /// Whether nobody waits for it any more.
    fn is_abandoned(&self) -> bool;
}

/// See the module. Clones are the same queue.
#[derive(Debug)]
pub struct Queue<J>(Arc<Shared<J>>);

impl<J> Clone for Queue<J> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct Shared<J> {
    state: Mutex<State<J>>,
    changed: Condvar,
    places: usize,
    capacity: usize,
}

#[derive(Debug)]
struct State<J> {
    jobs: VecDeque<J>,
    /// Places in the queue for jobs that are being made ready.
    reserved: usize,
    active: usize,
    /// Places that somebody still works at.
    alive: usize,
    closed: bool,
    pace: Pace,
}

impl<J: Job> State<J> {
    /// Jobs that somebody waits for.
    fn waiting(&mut self) -> usize {
        self.jobs.retain(|job| !job.is_abandoned());
        self.jobs.len() + self.reserved
    }
}

impl<J> Queue<J> {
    /// Before `places` places, with at most `capacity` jobs waiting. Whoever works at some of the places says so with
    /// [`staff`](Self::staff).
    #[must_use]
    pub fn new(places: usize, capacity: usize) -> Self {
        let state = State {
            jobs: VecDeque::new(),
            reserved: 0,
            active: 0,
            alive: places,
            closed: false,
            pace: Pace::default(),
        };
        Self(Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), places, capacity }))
    }

    /// A thread that panicked held no half-made state: the queue goes on.
    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts `places` out when it is dropped.
    #[must_use]
    pub fn staff(&self, places: usize) -> Staff<J> {
        Staff(self.clone(), places)
    }

    /// The next job, waited for; `None` once the queue is closed.
    #[must_use]
    pub fn take(&self) -> Option<(J, Place<J>)> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(job) = state.jobs.pop_front() {
                return Some((job, self.place(&mut state)));
            }
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The next job if there is one.
    #[must_use]
    pub fn take_now(&self) -> Option<(J, Place<J>)> {
        let mut state = self.lock();
        let job = state.jobs.pop_front()?;
        Some((job, self.place(&mut state)))
    }

    fn place(&self, state: &mut State<J>) -> Place<J> {
        state.active += 1;
        Place(self.clone(), Instant::now())
    }

    /// Drops the waiting jobs; whoever takes jobs ends after those in hand.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.jobs.clear();
        drop(state);
        self.0.changed.notify_all();
    }
}

impl<J: Job> Queue<J> {
    /// A place in the queue for a job that is yet to be made ready.
    ///
    /// # Errors
    /// [`HostError::Busy`] when every place is taken and the queue is full; [`HostError::Engine`] when nobody works any more.
    pub fn reserve(&self) -> Result<Reservation<J>, HostError> {
        let mut state = self.lock();
        if state.closed {
            return Err(HostError::ShuttingDown);
        }
        if state.alive == 0 {
            return Err(failed());
        }
        let idle = state.alive.saturating_sub(state.active);
        let waiting = state.waiting();
        if waiting >= self.0.capacity + idle {
            return Err(HostError::Busy { waiting, retry_after_s: state.pace.retry_after_s(waiting, self.0.places) });
        }
        state.reserved += 1;
        Ok(Reservation { queue: self.clone(), is_open: true })
    }

    /// Queues a job.
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve).
    pub fn submit(&self, job: J) -> Result<(), HostError> {
        self.reserve()?.submit(job)
    }

    /// How busy the places are.
    #[must_use]
    pub fn load(&self) -> Load {
        let mut state = self.lock();
        let waiting = state.waiting();
        Load { slots: self.0.places, active: state.active, waiting, capacity: self.0.capacity }
    }
}

/// A place in the queue, given back when it is dropped.
#[derive(Debug)]
pub struct Reservation<J> {
    queue: Queue<J>,
    /// Whether no job was put into it.
    is_open: bool,
}

impl<J: Job> Reservation<J> {
    /// Puts the job into it.
    ///
    /// # Errors
    /// The queue has been closed, or nobody works any more.
    pub fn submit(mut self, job: J) -> Result<(), HostError> {
        let mut state = self.queue.lock();
        if state.closed {
            return Err(HostError::ShuttingDown);
        }
        if state.alive == 0 {
            return Err(failed());
        }
        state.reserved -= 1;
        state.jobs.push_back(job);
        drop(state);
        self.is_open = false;
        self.queue.0.changed.notify_one();
        Ok(())
    }
}

impl<J> Drop for Reservation<J> {
    fn drop(&mut self) {
        if self.is_open {
            self.queue.lock().reserved -= 1;
        }
    }
}

fn failed() -> HostError {
    HostError::Engine("all of its threads have failed; restart the server".into())
}

/// A place with a job; dropping it, a panic included, gives it back.
#[derive(Debug)]
pub struct Place<J>(Queue<J>, Instant);

impl<J> Drop for Place<J> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.active -= 1;
        state.pace.took(self.1.elapsed());
    }
}

/// Whoever works at some places.
#[derive(Debug)]
pub struct Staff<J>(Queue<J>, usize);

impl<J> Drop for Staff<J> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.alive -= self.1;
        if state.alive == 0 {
            // Nobody is left to take them: whoever waits for them has to hear of it.
            state.jobs.clear();
        }
    }
}
