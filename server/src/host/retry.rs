//! When somebody who was refused should come back.

use std::time::Duration;

/// Longest and shortest advice, seconds.
const MOST_S: f64 = 30.0;
const LEAST_S: f64 = 1.0;
/// Weight of the newest piece of work in the mean.
const NEWEST: f64 = 0.1;

/// How long a piece of work takes, as an exponential moving average.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    mean_s: Option<f64>,
}

impl Pace {
    /// A piece of work is done.
    pub fn took(&mut self, time: Duration) {
        let time_s = time.as_secs_f64();
        self.mean_s = Some(self.mean_s.map_or(time_s, |mean_s| mean_s + NEWEST * (time_s - mean_s)));
    }

    /// Seconds after which to come back where `waiting` pieces of work stand before `slots` places: somewhere within the
    /// time that these need. Everybody gets another answer, or all who were refused together would come back together.
    #[must_use]
    pub fn retry_after_s(&self, waiting: usize, slots: usize) -> u64 {
        let drained_s = self.mean_s.unwrap_or(LEAST_S) * (waiting as f64 + 1.0) / slots.max(1) as f64;
        spread(drained_s)
    }
}

/// Somewhere between the first second and this one, which itself is bounded.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "clients have to be spread, and nothing repeats by this number")]
pub fn spread(longest_s: f64) -> u64 {
    let longest_s = longest_s.clamp(2.0 * LEAST_S, MOST_S);
    rand::random_range(LEAST_S..=longest_s).round() as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn those_refused_together_come_back_one_by_one_and_soon() {
        let mut pace = Pace::default();
        for _ in 0..50 {
            pace.took(Duration::from_millis(500));
        }
        // 32 half seconds on two slots: some eight seconds.
        let advice: BTreeSet<u64> = (0..500).map(|_| pace.retry_after_s(31, 2)).collect();
        assert_eq!(advice, (1..=8).collect());
        // Nothing is known yet, and much is known.
        assert!((0..100).all(|_| (1..=2).contains(&Pace::default().retry_after_s(0, 1))));
        pace.took(Duration::from_secs(100_000));
        assert!((0..100).all(|_| (1..=30).contains(&pace.retry_after_s(10_000, 1))));
    }
}
