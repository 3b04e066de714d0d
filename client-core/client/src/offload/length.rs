//! How long an answer will be, from the answers that these two models gave before.
//!
//! Nobody knows an answer's length before it is written. What is known is how long earlier ones were, and how much of this
//! one is written already. An [`Estimate`] has two numbers: what is to be expected, by which work is divided, and what the
//! answer will at least have, on which a side may rely while it writes ahead of the other. Both move while the answer is
//! written: earlier answers that were shorter than it is by now say nothing of it any more.

use std::collections::VecDeque;

/// Answers that are remembered; the oldest go first.
const KEPT: usize = 64;
/// With fewer answers than this, the shortest of them says nothing.
const ENOUGH: usize = 5;
/// Share of the shortest remembered answer that is relied on.
const MARGIN: f64 = 0.75;
/// Expected length before any answer was seen, tokens.
const PRIOR_TOKENS: f64 = 64.0;
/// What is relied on before enough answers were seen, tokens.
const LEAST_TOKENS: f64 = 5.0;
/// An answer that is longer than all before it is expected to go on for this share of what there is of it.
const GROWTH: f64 = 0.5;
/// How fast an answer counts for less the more its prompt differs in length: halved at a factor of e.
const LIKENESS: f64 = 1.0;

/// What is known of the length of an answer, in tokens, all that is written of it included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Mean.
    pub expected: f64,
    /// It will hardly be shorter; at most `expected`.
    pub low: f64,
}

/// Lengths of the answers that a pair of models gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AnswerLength {
    seen: VecDeque<Seen>,
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Seen {
    prompt_bytes: usize,
    tokens: usize,
    /// Whether it would have gone on.
    is_cut: bool,
}

/// What is expected in all of an answer of so many tokens that goes on, when nothing else is known.
fn going_on(tokens: usize) -> f64 {
    PRIOR_TOKENS.max((1.0 + GROWTH) * tokens as f64)
}

impl AnswerLength {
    /// Learns from an answer of `tokens` tokens, to a prompt of so many bytes, that ended by itself.
    pub fn observe(&mut self, prompt_bytes: usize, tokens: usize) {
        self.keep(Seen { prompt_bytes, tokens, is_cut: false });
    }

    /// Learns from one that was cut at a limit. To leave those out would make answers look shorter than they are: under a limit of
    /// 64 tokens only the few that end before it would count.
    pub fn observe_cut(&mut self, prompt_bytes: usize, tokens: usize) {
        self.keep(Seen { prompt_bytes, tokens, is_cut: true });
    }

    fn keep(&mut self, seen: Seen) {
        if self.seen.len() == KEPT {
            self.seen.pop_front();
        }
        self.seen.push_back(seen);
    }

    /// The same answers, without which prompt was answered by which: what a pair knows before it is asked something new.
    #[must_use]
    pub fn of_any_prompt(&self) -> Self {
        Self { seen: self.seen.iter().map(|&seen| Seen { prompt_bytes: 0, ..seen }).collect() }
    }

    /// How many answers it knows.
    #[must_use]
    pub fn answers(&self) -> usize {
        self.seen.len()
    }

    /// Length of an answer of which `written` tokens are there and that goes on for at least one more, at most `limit` in
    /// all. Answers to prompts of about the same length count most.
    #[must_use]
    pub fn estimate(&self, prompt_bytes: usize, written: usize, limit: usize) -> Estimate {
        let (limit, next) = (limit.max(written + 1) as f64, (written + 1) as f64);
        let (mut weights, mut sum, mut shortest, mut longer) = (0.0, 0.0, f64::INFINITY, 0);
        for &Seen { prompt_bytes: bytes, tokens, is_cut } in &self.seen {
            shortest = shortest.min(tokens as f64);
            let in_all = match is_cut {
                true => going_on(tokens.max(written)).min(limit),
                false if tokens > written => tokens as f64,
                false => continue,
            };
            let apart = (prompt_bytes.max(1) as f64 / bytes.max(1) as f64).ln().abs();
            let weight = 1.0 / (1.0 + LIKENESS * apart);
            weights += weight;
            sum += weight * in_all;
            longer += 1;
        }
        let expected = match longer {
            0 if self.seen.is_empty() => going_on(written),
            0 => (1.0 + GROWTH) * written as f64,
            _ => sum / weights,
        };
        let low = match self.seen.len() {
            0..ENOUGH => LEAST_TOKENS,
            _ => MARGIN * shortest,
        };
        let expected = expected.clamp(next, limit);
        Estimate { expected, low: low.clamp(next, limit).min(expected) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(lengths: &[usize]) -> AnswerLength {
        let mut length = AnswerLength::default();
        lengths.iter().for_each(|&tokens| length.observe(40, tokens));
        length
    }

    #[test]
    fn before_any_answer_little_is_relied_on() {
        let none = AnswerLength::default();
        for (written, limit, expected, low) in [
            (0, 4096, 64.0, 5.0),
            (20, 4096, 64.0, 21.0),
            (100, 4096, 150.0, 101.0),
            (0, 8, 8.0, 5.0),
            (0, 3, 3.0, 3.0),
        ] {
            assert_eq!(none.estimate(40, written, limit), Estimate { expected, low }, "{written} of at most {limit}");
        }
    }

    #[test]
    fn what_was_seen_is_expected_and_three_quarters_of_the_shortest_relied_on() {
        let length = after(&[100, 120, 140, 160, 180]);
        for (written, expected, low) in [
            (0, 140.0, 75.0),
            (90, 140.0, 91.0),
            // Answers of 100 tokens are out of question by now.
            (110, 150.0, 111.0),
            // Longer than all before.
            (200, 300.0, 201.0),
        ] {
            assert_eq!(length.estimate(40, written, 4096), Estimate { expected, low }, "{written}");
        }
        assert_eq!(after(&[100; 4]).estimate(40, 0, 4096).low, 5.0, "four are not enough");
    }

    /// Three answers that a limit of 64 tokens cut and one that ended at 38: not 38 are expected.
    #[test]
    fn answers_that_were_cut_are_at_least_as_long() {
        let mut length = after(&[38]);
        (0..3).for_each(|_| length.observe_cut(40, 64));
        for (written, limit, expected) in [
            (0, 64, (38.0 + 3.0 * 64.0) / 4.0),
            (40, 64, 64.0),
            (0, 4096, (38.0 + 3.0 * 96.0) / 4.0),
            (100, 4096, 150.0),
        ] {
            assert_eq!(length.estimate(40, written, limit).expected, expected, "{written} of at most {limit}");
        }
        let mut short = AnswerLength::default();
        short.observe_cut(40, 4);
        assert_eq!(short.estimate(40, 0, 4096), Estimate { expected: 64.0, low: 5.0 }, "a limit of 4 says nothing");
    }

    #[test]
    fn prompts_of_like_length_count_most_and_old_answers_are_forgotten() {
        let mut length = AnswerLength::default();
        for _ in 0..10 {
            length.observe(20, 10);
            length.observe(2000, 300);
        }
        let short = length.estimate(20, 0, 4096).expected;
        let long = length.estimate(2000, 0, 4096).expected;
        assert!(short < 70.0 && long > 240.0, "{short} {long}");
        let any = length.of_any_prompt();
        for bytes in [20, 2000] {
            let Estimate { expected, low } = any.estimate(bytes, 0, 4096);
            assert!((expected - 155.0).abs() < 1e-9 && low == 7.5, "{bytes}: {expected} {low}");
        }
        (0..KEPT).for_each(|_| length.observe(20, 30));
        assert_eq!((length.answers(), length.estimate(2000, 0, 4096).expected), (KEPT, 30.0));
    }
}
