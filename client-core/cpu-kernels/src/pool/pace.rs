//! Whether helpers help. On a machine that is busy with something else they do not: they take turns with the thread that
//! posts the jobs on one core, or lose their core in the middle of a piece, which is waited for.
//!
//! So the pace with helpers is compared with the pace alone. The first jobs are done alone, to know it, and now and then
//! some more, because compilers get better and machines change. Where helpers are no help for two windows of time they are
//! left alone, first for a moment, then, each time that they are no help again, for twice as long. Jobs of no column (weights
//! that are laid out), of one (a token), of a few (a batch) and of many (a prompt) are bound by different things and are judged
//! apart.

use super::Work;

/// Work that is measured at once, milliseconds: several turns of an operating system's scheduler.
const WINDOW_MS: f64 = 40.0;
/// The same for the pace alone, which nothing disturbs as much.
const ALONE_MS: f64 = 15.0;
/// Helpers that make less of a difference than a twentieth are not worth a core.
const HELP: f64 = 0.95;
/// First and longest rest of the helpers, milliseconds.
const RESTS_MS: [f64; 2] = [250.0, 8000.0];
/// How long helpers work at first, and at most, until the pace alone is looked at again, milliseconds.
const LOOKS_MS: [f64; 2] = [250.0, 8000.0];
/// Columns of the first three kinds of jobs.
const FEW: [usize; 3] = [0, 1, 8];

/// What is known of all kinds of jobs.
#[derive(Debug)]
pub struct Pace {
    kinds: [Kind; 4],
}

/// What is known of one kind of jobs.
#[derive(Debug, Clone, Copy)]
struct Kind {
    /// Milliseconds that a multiplication takes alone; not known at first.
    alone: Option<f64>,
    /// Multiplications and milliseconds of the window so far.
    window: [f64; 2],
    /// Whether the window is one without helpers.
    is_alone: bool,
    /// Milliseconds to be done alone.
    left_ms: f64,
    /// The next rest.
    rest_ms: f64,
    /// Milliseconds with helpers until the pace alone is looked at, and how many they will be next.
    until_look_ms: f64,
    look_ms: f64,
    /// Windows that helpers may be no help until they are left alone.
    patience: u32,
}

impl Kind {
    const NEW: Self = Self {
        alone: None,
        window: [0.0; 2],
        is_alone: true,
        left_ms: 0.0,
        rest_ms: RESTS_MS[0],
        until_look_ms: LOOKS_MS[0],
        look_ms: LOOKS_MS[0],
        patience: 2,
    };

    fn note(&mut self, products: f64, ms: f64) {
        let full_ms = if self.is_alone { ALONE_MS } else { WINDOW_MS };
        self.window = [self.window[0] + products, self.window[1] + ms];
        if self.is_alone {
            self.left_ms -= ms;
        } else {
            self.until_look_ms -= ms;
        }
        let [all, took_ms] = self.window;
        if took_ms < full_ms {
            return;
        }
        self.window = [0.0; 2];
        let pace = took_ms / all;
        if self.is_alone {
            // Down at once, because compiled code gets better; up slowly, because a moment's trouble is not the rule.
            self.alone = Some(self.alone.map_or(pace, |known| pace.min(known + (pace - known) / 4.0)));
            self.is_alone = self.left_ms > 0.0;
        } else if pace > HELP * self.alone.unwrap_or(f64::INFINITY) {
            self.patience = self.patience.saturating_sub(1);
            if self.patience == 0 {
                self.leave_alone(self.rest_ms);
                self.rest_ms = (2.0 * self.rest_ms).min(RESTS_MS[1]);
                // One window is enough to see that it was too early.
                self.patience = 1;
            }
        } else {
            self.patience = 2;
            self.rest_ms = (self.rest_ms / 2.0).max(RESTS_MS[0]);
            if self.until_look_ms <= 0.0 {
                self.leave_alone(ALONE_MS);
                self.look_ms = (2.0 * self.look_ms).min(LOOKS_MS[1]);
                self.until_look_ms = self.look_ms;
            }
        }
    }

    fn leave_alone(&mut self, ms: f64) {
        (self.is_alone, self.left_ms) = (true, ms);
    }
}

impl Pace {
    pub const fn new() -> Self {
        Self { kinds: [Kind::NEW; 4] }
    }

    fn kind(&mut self, work: Work) -> &mut Kind {
        &mut self.kinds[FEW.iter().filter(|few| work.columns > **few).count()]
    }

    /// Whether a job is to be done without helpers.
    pub fn is_alone(&mut self, work: Work) -> bool {
        self.kind(work).is_alone
    }

    /// Notes what a job took, done as [`is_alone`](Self::is_alone) said.
    pub fn note(&mut self, work: Work, ms: f64) {
        // Clocks may stand still or jump.
        if work.products > 0 && ms.is_finite() && ms >= 0.0 {
            self.kind(work).note(work.products as f64, ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds of a job of a token, alone and with helpers.
    struct Machine {
        alone_ms: f64,
        shared_ms: f64,
    }

    /// Goes through jobs of so many milliseconds together; returns what they would have taken alone, by what they took,
    /// and the part of the time that helpers worked.
    fn go(pace: &mut Pace, machine: &Machine, work: Work, for_ms: f64) -> [f64; 2] {
        let [mut took_ms, mut alone_ms, mut shared_ms] = [0.0; 3];
        while took_ms < for_ms {
            let is_alone = pace.is_alone(work);
            let ms = if is_alone { machine.alone_ms } else { machine.shared_ms };
            pace.note(work, ms);
            took_ms += ms;
            alone_ms += machine.alone_ms;
            shared_ms += if is_alone { 0.0 } else { ms };
        }
        [alone_ms / took_ms, shared_ms / took_ms]
    }

    const TOKEN: Work = Work { columns: 1, products: 900_000 };
    const PROMPT: Work = Work { columns: 128, products: 115_000_000 };
    const IDLE: Machine = Machine { alone_ms: 0.08, shared_ms: 0.05 };
    const BUSY: Machine = Machine { alone_ms: 0.08, shared_ms: 0.11 };

    #[test]
    fn helpers_that_help_work_nearly_always() {
        let mut pace = Pace::new();
        let [faster, shared] = go(&mut pace, &IDLE, TOKEN, 1000.0);
        assert!(faster > 1.55 && shared > 0.93, "{faster} {shared}");
        let [faster, shared] = go(&mut pace, &IDLE, TOKEN, 20_000.0);
        assert!(faster > 1.59 && shared > 0.99, "{faster} {shared}");
    }

    #[test]
    fn helpers_that_do_not_help_are_left_alone() {
        let mut pace = Pace::new();
        let [first, _] = go(&mut pace, &BUSY, TOKEN, 1000.0);
        assert!(first > 0.93, "{first}");
        let [later, shared] = go(&mut pace, &BUSY, TOKEN, 20_000.0);
        assert!(later > 0.99 && shared < 0.02, "{later} {shared}");
        // Another kind of jobs has to find out for itself.
        assert_eq!(pace.kind(PROMPT).alone, None);
        // The machine is idle again: that shows when the longest rest is over.
        let [_, shared] = go(&mut pace, &IDLE, TOKEN, 30_000.0);
        assert!(shared > 0.6 && !pace.is_alone(TOKEN), "{shared}");
    }

    /// The first jobs run in code that the browser compiled in a hurry.
    #[test]
    fn a_slow_beginning_is_forgotten() {
        let mut pace = Pace::new();
        go(&mut pace, &Machine { alone_ms: 0.8, shared_ms: 0.8 }, TOKEN, 10.0);
        go(&mut pace, &BUSY, TOKEN, 1000.0);
        let [later, _] = go(&mut pace, &BUSY, TOKEN, 5000.0);
        assert!(later > 0.97, "{later}");
    }

    #[test]
    fn clocks_that_stand_still_or_jump_do_no_harm() {
        let mut pace = Pace::new();
        for ms in [0.0, -1.0, f64::NAN, f64::INFINITY, 0.0] {
            pace.note(TOKEN, ms);
        }
        go(&mut pace, &IDLE, TOKEN, 100.0);
        assert!(!pace.is_alone(TOKEN));
        assert!(pace.is_alone(PROMPT), "nothing is known of it yet");
        pace.note(Work { products: 0, ..PROMPT }, 1e9);
        assert!(pace.is_alone(PROMPT));
    }
}
