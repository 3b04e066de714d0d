//! When a cut connection is tried again: soon at first, then rarely, and never all phones of a hall at once.

/// Longest time between two tries, ms.
const MOST_MS: f64 = 10_000.0;
/// About how long the first wait is, ms.
const FIRST_MS: f64 = 400.0;

/// Waiting times that double up to ten seconds, each drawn between half of it and all of it.
#[derive(Clone, Debug)]
pub struct Backoff {
    state: u64,
    failures: u32,
}

impl Backoff {
    /// The seed tells phones apart.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed, failures: 0 }
    }

    /// How long to wait after one more failure, ms.
    pub fn next_ms(&mut self) -> f64 {
        let full = (FIRST_MS * 2f64.powi(self.failures.min(10).cast_signed())).min(MOST_MS);
        self.failures += 1;
        full * (0.5 + 0.5 * self.uniform())
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last success.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// SplitMix64 (Steele, Lea, Flood 2014), as a number of 0..1.
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        #[expect(clippy::cast_precision_loss, reason = "53 bits")]
        let mantissa = (z >> 11) as f64;
        mantissa / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_ten_seconds_and_begin_again_after_a_success() {
        let mut backoff = Backoff::new(7);
        for full in [400.0, 800.0, 1600.0, 3200.0, 6400.0, 10_000.0, 10_000.0] {
            let wait = backoff.next_ms();
            assert!((full / 2.0..=full).contains(&wait), "{wait} of {full}");
        }
        assert_eq!(backoff.failures(), 7);
        backoff.reset();
        assert!(backoff.next_ms() <= 400.0);
        // No overflow in a night without a server.
        (0..100_000).for_each(|_| assert!(backoff.next_ms() <= MOST_MS));
    }

    #[test]
    fn a_hall_of_phones_is_spread_out() {
        let mut firsts: Vec<f64> = (0..500).map(|seed| Backoff::new(seed).next_ms()).collect();
        firsts.sort_by(f64::total_cmp);
        // 500 waits over 200 ms: every tenth of that holds a tenth of them, give or take.
        for tenth in 0..10 {
            let (from, to) = (200.0 + 20.0 * f64::from(tenth), 220.0 + 20.0 * f64::from(tenth));
            let count = firsts.iter().filter(|wait| (from..to).contains(*wait)).count();
            assert!((25..=80).contains(&count), "{count} waits in {from}..{to}");
        }
    }
}
