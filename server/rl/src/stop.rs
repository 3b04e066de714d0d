//! Telling a training run to stop, by a person or by a deadline.
//!
//! Whatever takes long asks between its steps (minibatches, worlds of an evaluation, gradient steps of a world model), so that
//! a run ends within about a second and a half however large its updates are. Small updates are finished first, up to
//! [`GRACE`], and the run ends with a checkpoint of this moment; a larger one is left unfinished, and resuming does it again
//! from the last checkpoint. Either way the resumed run is the one that was never stopped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::error::TrainError;

/// How long an update may go on after the run was told to stop.
pub const GRACE: Duration = Duration::from_millis(800);

/// How a training run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All steps were taken.
    Finished,
    /// It was told to stop; what the checkpoint holds is kept.
    Stopped,
}

/// The flag and the deadline of a run.
#[derive(Debug, Default)]
pub struct Stop {
    raised: Arc<AtomicBool>,
    deadline: OnceLock<Instant>,
    noticed: OnceLock<Instant>,
    /// Checks within updates that are still let pass before the run is left at once, whatever the clock says.
    #[cfg(test)]
    checks_left: Option<std::sync::atomic::AtomicI64>,
}

impl From<Arc<AtomicBool>> for Stop {
    /// A run that stops when a flag is raised which others look at, too.
    fn from(raised: Arc<AtomicBool>) -> Self {
        Self { raised, ..Self::default() }
    }
}

impl Stop {
    /// Leaves an update at its `checks`-th check from now.
    #[cfg(test)]
    pub fn after_checks(checks: i64) -> Self {
        Self { checks_left: Some(checks.into()), ..Self::default() }
    }

    /// Tells the run to stop.
    pub fn raise(&self) {
        self.raised.store(true, Ordering::Relaxed);
    }

    /// Tells the run to stop at a moment; the first one that is named counts.
    pub fn set_deadline(&self, at: Instant) {
        // A deadline that is there already stays.
        let _ = self.deadline.set(at);
    }

    /// Whether the deadline has passed.
    pub fn is_past_deadline(&self) -> bool {
        self.deadline.get().is_some_and(|at| Instant::now() >= *at)
    }

    /// Whether the run is to stop.
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Relaxed) || self.is_past_deadline()
    }

    /// For work that nothing is lost by leaving: set-up.
    ///
    /// # Errors
    /// [`TrainError::Stopped`] as soon as the run is to stop.
    pub fn check(&self) -> Result<(), TrainError> {
        if self.is_raised() { Err(TrainError::Stopped) } else { Ok(()) }
    }

    /// What an update is watched with.
    pub fn guard(&self, update: u64) -> UpdateGuard<'_> {
        UpdateGuard { update, stop: self }
    }
}

/// What leaves an update unfinished: the run is to stop, or a number is NaN or infinite.
#[derive(Clone, Copy, Debug)]
pub struct UpdateGuard<'a> {
    update: u64,
    stop: &'a Stop,
}

impl UpdateGuard<'_> {
    /// To be called between the steps of an update.
    ///
    /// # Errors
    /// [`TrainError::Stopped`] when the run is to stop and [`GRACE`] is over.
    pub fn check(&self) -> Result<(), TrainError> {
        #[cfg(test)]
        if self.stop.checks_left.as_ref().is_some_and(|left| left.fetch_sub(1, Ordering::Relaxed) <= 1) {
            return Err(TrainError::Stopped);
        }
        let is_over = self.stop.is_raised() && self.stop.noticed.get_or_init(Instant::now).elapsed() >= GRACE;
        if is_over { Err(TrainError::Stopped) } else { Ok(()) }
    }

    /// Ends the run when something was not finite.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`] with what it was.
    pub fn finite(&self, all_finite: bool, what: &'static str) -> Result<(), TrainError> {
        if all_finite { Ok(()) } else { Err(TrainError::NotFinite { update: self.update, what }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_and_a_deadline_both_stop_a_run() {
        let stop = Stop::default();
        assert!(stop.check().is_ok() && stop.guard(0).check().is_ok());
        stop.set_deadline(Instant::now());
        stop.set_deadline(Instant::now() + Duration::from_secs(3600));
        assert!(stop.is_raised() && stop.is_past_deadline() && stop.check().is_err());
        let stop = Stop::default();
        stop.raise();
        assert!(stop.is_raised() && !stop.is_past_deadline() && stop.check().is_err());
        assert!(stop.guard(0).check().is_ok(), "an update that is nearly done is finished");
        std::thread::sleep(GRACE);
        assert!(matches!(stop.guard(0).check(), Err(TrainError::Stopped)));
    }
}
