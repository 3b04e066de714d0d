//! Native helper threads: how many, how they wait, and how callers share them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use super::shared;

/// Most threads that [`set_threads`] takes.
const MAX_THREADS: usize = 256;
/// Looks at unfinished pieces until the thread that waits for them yields its core: some tens of microseconds.
pub(super) const LOOKS: u32 = 2000;

/// Threads that have been started; they stay, parked where they are not asked for.
static STARTED: Mutex<u32> = Mutex::new(0);
/// Threads that compute a pass right now.
static CALLERS: AtomicU32 = AtomicU32::new(0);
static WAITING: (Mutex<()>, Condvar) = (Mutex::new(()), Condvar::new());

/// Sets how many threads compute together, that which asks for a pass included: 1 and more. Threads that the system refuses
/// are done without; what there are then is returned.
///
/// Callers that compute at the same time share them: with as many callers as threads, everybody computes alone.
pub fn set_threads(threads: usize) -> usize {
    let wanted = threads.clamp(1, MAX_THREADS) as u32 - 1;
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    while *started < wanted {
        let number = *started;
        let thread = std::thread::Builder::new().name(format!("kernels-{number}")).spawn(move || help(number));
        if thread.is_err() {
            break;
        }
        *started += 1;
    }
    let helpers = wanted.min(*started);
    shared::set_helpers(helpers);
    1 + helpers as usize
}

/// How many threads compute together.
pub fn threads() -> usize {
    1 + shared::helpers() as usize
}

fn help(number: u32) {
    loop {
        let seen = shared::help(number);
        let (lock, changed) = &WAITING;
        let mut guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
        while shared::signalled() == seen {
            guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        drop(guard);
        shared::unpark();
    }
}

/// Wakes all helpers, behind a change of the signal.
pub(super) fn wake_all() {
    let (lock, changed) = &WAITING;
    // A helper looks at the signal while it holds this: it either sees the change or is asleep by now.
    drop(lock.lock().unwrap_or_else(PoisonError::into_inner));
    changed.notify_all();
}

/// Milliseconds since some moment.
#[allow(
    clippy::disallowed_methods,
    reason = "how fast helpers are decides whether they help; what is computed stays the same"
)]
pub(super) fn now_ms() -> f64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64() * 1e3
}

/// How many helpers may take pieces of the next job: those that the other callers leave.
pub(super) fn helpers() -> u32 {
    let others = CALLERS.load(Ordering::Relaxed).saturating_sub(1);
    shared::helpers().saturating_sub(others)
}

/// Counts a thread as computing for as long as it lives.
#[derive(Debug)]
pub struct Caller(());

impl Caller {
    /// Another one.
    pub fn enter() -> Self {
        CALLERS.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        CALLERS.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::super::{Job, Work, run};
    use super::*;

    struct Count(Vec<AtomicUsize>);

    impl Job for Count {
        fn piece(&self, piece: usize) {
            self.0[piece].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Several callers with several helpers, whose number changes: every piece of every job is done, and once.
    #[test]
    fn every_piece_is_done_once() {
        std::thread::scope(|scope| {
            for caller in 0..3 {
                scope.spawn(move || {
                    for round in 0..600 {
                        let _caller = Caller::enter();
                        if caller == 0 && round % 200 == 0 {
                            assert_eq!(set_threads(2 + round / 200), 2 + round / 200);
                        }
                        let pieces = 1 + (round * 7 + caller) % 40;
                        let job = Count((0..pieces).map(|_| AtomicUsize::new(0)).collect());
                        run(&job, pieces, Work { columns: 1, products: 1000 });
                        assert!(job.0.iter().all(|times| times.load(Ordering::Relaxed) == 1));
                    }
                });
            }
        });
        assert!(threads() >= 2);
    }
}
