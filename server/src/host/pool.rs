//! Threads that take jobs from one bounded queue, each by itself: the encoder's.

pub use super::queue::Job;
use super::queue::Queue;
use super::{HostError, Load};

/// N threads over one queue of jobs.
#[derive(Debug)]
pub struct Pool<J>(Queue<J>);

impl<J: Job> Pool<J> {
    /// Starts one thread for each of `workers`, with at most `capacity` jobs waiting.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start<W>(name: &str, workers: Vec<W>, capacity: usize) -> std::io::Result<Self>
    where
        W: FnMut(J) + Send + 'static,
    {
        let queue = Queue::new(workers.len(), capacity);
        let pool = Self(queue.clone());
        for (index, mut worker) in workers.into_iter().enumerate() {
            let queue = queue.clone();
            std::thread::Builder::new().name(format!("{name}-{index}")).spawn(move || {
                let _staff = queue.staff(1);
                while let Some((job, _place)) = queue.take() {
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
        self.0.submit(job)
    }

    /// How busy the pool is.
    #[must_use]
    pub fn load(&self) -> Load {
        self.0.load()
    }
}

impl<J> Drop for Pool<J> {
    /// Drops the waiting jobs and lets the threads end after the job that each has in hand.
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, mpsc};
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
