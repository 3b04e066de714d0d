//! From a share of a prompt to a number of tokens.
//!
//! Nobody knows an answer's length before it is written. The server therefore writes ⌈share · expected⌉ tokens of a shared
//! prompt, where *expected* is a running mean over the answers that this page has seen end by themselves; the device goes
//! on from there until the model ends or the limit of the ask is reached. Rounding up means that a share above zero buys
//! at least one token of the better model. An answer that ends earlier than expected is simply done: then the server wrote
//! more than its share, and the next estimate is shorter.

/// Weight of a new answer in the running mean.
const WEIGHT: f64 = 0.2;
/// Expected length before any answer was seen. The questions of the shipped corpus are answered in 1 to 10 tokens.
const PRIOR_TOKENS: f64 = 6.0;

/// Running mean of answer lengths, in tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AnswerLength {
    mean_tokens: f64,
}

impl Default for AnswerLength {
    fn default() -> Self {
        Self { mean_tokens: PRIOR_TOKENS }
    }
}

impl AnswerLength {
    /// Learns from an answer of `tokens` tokens that was neither stopped nor cut.
    pub fn observe(&mut self, tokens: usize) {
        self.mean_tokens += WEIGHT * (tokens as f64 - self.mean_tokens);
    }

    /// Tokens that the server writes of a prompt with this share, at most `max_tokens`: 0 for none of it, `max_tokens`
    /// for all of it.
    #[must_use]
    pub fn server_tokens(&self, server_share: f64, max_tokens: usize) -> usize {
        if server_share >= 1.0 {
            return max_tokens;
        }
        if server_share <= 0.0 {
            return 0;
        }
        let expected = self.mean_tokens.clamp(1.0, max_tokens.max(1) as f64);
        // Float dust below a millionth of a token must not buy a token more.
        let tokens = (server_share * expected - 1e-6).ceil().max(1.0);
        (tokens as usize).min(max_tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_tokens() {
        let mut length = AnswerLength::default();
        for _ in 0..200 {
            length.observe(10);
        }
        for (share, max, expect) in
            [(0.0, 64, 0), (0.01, 64, 1), (0.3, 64, 3), (0.31, 64, 4), (0.99, 64, 10), (1.0, 64, 64), (0.5, 4, 2)]
        {
            assert_eq!(length.server_tokens(share, max), expect, "share {share} of at most {max}");
        }
        assert_eq!(length.server_tokens(0.5, 0), 0);
    }

    #[test]
    fn the_mean_follows_what_is_seen() {
        let mut length = AnswerLength::default();
        assert_eq!(length.server_tokens(0.999, 64), 6);
        for _ in 0..60 {
            length.observe(20);
        }
        assert_eq!(length.server_tokens(0.999, 64), 20);
    }
}
