//! The simulated uplink. The real network carries a prompt in no time; the modelled one takes b/r seconds for b bits at
//! rate r (eq. 20). Pacing makes that felt: a request leaves the page only when the last bit of its piece would have
//! arrived at the server.

/// A link of a fixed rate that carries one piece after the other. Times are seconds on the caller's clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Uplink {
    rate_bps: Option<f64>,
    free_at_s: f64,
}

impl Uplink {
    /// A link that is free from `now_s` on. A rate that is not above zero, or not finite, is no limit at all: the
    /// simulator never gives one (its floor is 1 kbit/s), and waiting for ever would help nobody.
    #[must_use]
    pub fn new(now_s: f64, rate_bps: f64) -> Self {
        Self { rate_bps: (rate_bps > 0.0 && rate_bps.is_finite()).then_some(rate_bps), free_at_s: now_s }
    }

    /// A link that carries everything at once: pacing is off.
    #[must_use]
    pub fn unpaced(now_s: f64) -> Self {
        Self { rate_bps: None, free_at_s: now_s }
    }

    /// Queues a piece of `bits` behind the earlier ones and returns when its last bit has arrived.
    pub fn arrival_s(&mut self, now_s: f64, bits: f64) -> f64 {
        let start_s = self.free_at_s.max(now_s);
        self.free_at_s = match self.rate_bps {
            Some(rate_bps) => start_s + bits.max(0.0) / rate_bps,
            None => start_s,
        };
        self.free_at_s
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pieces_queue_behind_each_other() {
        let mut uplink = Uplink::new(10.0, 1e6);
        assert_eq!(uplink.arrival_s(10.0, 5e5), 10.5);
        assert_eq!(uplink.arrival_s(10.0, 1e6), 11.5);
        // The link was idle from 11.5 to 20.
        assert_eq!(uplink.arrival_s(20.0, 1e6), 21.0);
    }

    #[test]
    fn no_pacing_means_no_waiting() {
        for mut uplink in [Uplink::unpaced(3.0), Uplink::new(3.0, 0.0), Uplink::new(3.0, f64::NAN)] {
            assert_eq!(uplink.arrival_s(3.0, 1e9), 3.0);
        }
    }

    proptest! {
        #[test]
        fn all_pieces_together_take_what_eq_20_says(
            pieces in prop::collection::vec(0.0_f64..1e6, 1..10), rate in 1e3_f64..1e8,
        ) {
            let mut uplink = Uplink::new(0.0, rate);
            let mut last = 0.0;
            for bits in &pieces {
                let arrival = uplink.arrival_s(0.0, *bits);
                prop_assert!(arrival >= last);
                last = arrival;
            }
            let expect = pieces.iter().sum::<f64>() / rate;
            prop_assert!((last - expect).abs() <= 1e-9 * expect.max(1.0));
        }
    }
}
