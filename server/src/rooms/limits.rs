//! Messages a second: a bucket of tokens that fills at a steady rate.

use client::protocol::rooms::MESSAGES_PER_SECOND;

/// How many messages somebody may still send.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    left: f64,
    filled_s: f64,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub fn full(now_s: f64) -> Self {
        Self { left: Self::most(), filled_s: now_s }
    }

    fn most() -> f64 {
        2.0 * f64::from(MESSAGES_PER_SECOND)
    }

    /// Takes one out; `false` when there is none.
    pub fn take(&mut self, now_s: f64) -> bool {
        let fresh = (now_s - self.filled_s).max(0.0) * f64::from(MESSAGES_PER_SECOND);
        self.left = (self.left + fresh).min(Self::most());
        self.filled_s = now_s;
        let has_one = self.left >= 1.0;
        if has_one {
            self.left -= 1.0;
        }
        has_one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_a_seconds_worth_at_once_and_then_the_rate() {
        let mut bucket = Bucket::full(100.0);
        let taken = (0..1000).filter(|_| bucket.take(100.0)).count();
        assert_eq!(taken, 2 * MESSAGES_PER_SECOND as usize);
        let taken = (0..1000).filter(|i| bucket.take(100.0 + f64::from(*i) / 100.0)).count();
        assert!(
            (10 * MESSAGES_PER_SECOND as usize - 1..=10 * MESSAGES_PER_SECOND as usize).contains(&taken),
            "{taken}"
        );
        // A clock that goes back gives nothing and breaks nothing.
        assert!(!bucket.take(0.0));
    }
}
