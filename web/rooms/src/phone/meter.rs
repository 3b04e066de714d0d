//! What this phone measures of itself: tokens a second of both sides, times, and its counts. All times are the caller's, in ms.

use client::protocol::rooms::up::Telemetry;

/// Counts since the page was opened, and rates since they were last asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meter {
    device_tokens: u32,
    server_tokens: u32,
    since_ms: f64,
    /// Time to the first token of the last answer, seconds.
    pub ttft_s: Option<f64>,
    /// Time from question to last token of the last answer, seconds.
    pub latency_s: Option<f64>,
    /// Answers that were reported.
    pub answers: u32,
    /// Tokens of those answers that this phone wrote.
    pub all_device_tokens: u32,
    /// Tokens of those answers that the server wrote.
    pub all_server_tokens: u32,
}

impl Meter {
    /// A token has come.
    pub fn token(&mut self, by_device: bool) {
        *(if by_device { &mut self.device_tokens } else { &mut self.server_tokens }) += 1;
    }

    /// An answer is over.
    pub fn answered(&mut self, latency_s: f64, ttft_s: Option<f64>, device_tokens: u32, server_tokens: u32) {
        self.latency_s = Some(latency_s);
        self.ttft_s = ttft_s.or(self.ttft_s);
        self.answers += 1;
        self.all_device_tokens += device_tokens;
        self.all_server_tokens += server_tokens;
    }

    /// The slot's measurements: rates since the last call, 0 where nothing was written.
    pub fn slot(&mut self, now_ms: f64, computes: bool) -> Telemetry {
        let seconds = (now_ms - self.since_ms) / 1e3;
        let began = self.since_ms > 0.0 && seconds > 0.0;
        let rate = |tokens: u32| began.then(|| f64::from(tokens) / seconds);
        let telemetry = Telemetry {
            tokens_per_s: rate(self.device_tokens).filter(|_| computes),
            server_tokens_per_s: rate(self.server_tokens),
            ttft_s: self.ttft_s,
            ..Telemetry::default()
        };
        (self.device_tokens, self.server_tokens, self.since_ms) = (0, 0, now_ms);
        telemetry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_time_since_the_last_slot() {
        let mut meter = Meter::default();
        assert_eq!(meter.slot(1000.0, true).tokens_per_s, None, "nothing is known of the time before");
        (0..30).for_each(|_| meter.token(true));
        (0..5).for_each(|_| meter.token(false));
        let slot = meter.slot(1500.0, true);
        assert_eq!((slot.tokens_per_s, slot.server_tokens_per_s), (Some(60.0), Some(10.0)));
        let slot = meter.slot(2500.0, true);
        assert_eq!((slot.tokens_per_s, slot.server_tokens_per_s), (Some(0.0), Some(0.0)));
        assert_eq!(meter.slot(3500.0, false).tokens_per_s, None, "a phone without a model has no rate");
        // A clock that stands still divides nothing by nothing.
        assert_eq!(meter.slot(3500.0, true).tokens_per_s, None);
    }

    #[test]
    fn counts_add_up() {
        let mut meter = Meter::default();
        meter.answered(1.0, Some(0.2), 10, 5);
        meter.answered(2.0, None, 0, 7);
        assert_eq!((meter.answers, meter.all_device_tokens, meter.all_server_tokens), (2, 10, 12));
        assert_eq!((meter.latency_s, meter.ttft_s), (Some(2.0), Some(0.2)));
    }
}
