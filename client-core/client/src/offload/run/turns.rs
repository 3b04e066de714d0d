//! Who may write: the rule by which the server's share of all tokens of an ask comes out at α, however long the answers
//! turn out to be.
//!
//! **What is counted.** Tokens of answers that were written in this ask: `done = server's tokens / all tokens`. Prompts are
//! not counted: eq. 14 and 22 count work in proportion to the task, reading a token costs a small part of writing one, and
//! a prompt whose answer changes hands is read by both. What was begun in an earlier ask is not counted either.
//!
//! **The rule.** Let S and D be what server and device have written, L what there will be at least when all answers are
//! over and E what is expected ([`Estimate`](crate::offload::length::Estimate)). A side whose part of the work is a (α for
//! the server, 1 − α for the device) may write one more token while
//!
//! ```text
//! its own tokens + 1 ≤ min(a·E + ½, max((a + TOLERANCE)·L, a·L + ½))
//! ```
//!
//! The first bound divides what is expected; the second keeps the share right should the answers end as early as they may.
//! With L, E ≥ S + D + 1 the two sides' bounds add up to at least S + D + 2, so one of them may always write: no
//! knowledge of lengths is needed for the result, only for writing more before the answer changes hands. An answer of
//! unknown length changes hands about 2·log(length)/log(2) times at α = ½; one whose length is known, once.
//!
//! **Short answers.** In a burst, an answer that is expected to have fewer than [`SHORT_TOKENS`] is one side's from its
//! beginning to its end: a change of hands takes longer than the tokens that it would bring nearer to α, and the burst's other
//! answers even it out. A question by itself is shared however short its answer is.

use crate::protocol::worker::Origin;

/// How far the share may be off while an answer could end at any token. Less than what is promised (0.1): an engine behind
/// the server may send two tokens in one piece, and a character that is not whole holds a side up for a token.
pub(super) const TOLERANCE: f64 = 0.08;

/// A turn is not begun for less than this share of what is written, unless the other side has less: each change of hands
/// costs a round trip, and reading.
const WORTH: f64 = 0.1;
/// Nor for less than this many tokens.
const WORTH_TOKENS: f64 = 2.0;
/// Fewer tokens than this are a short answer.
pub(super) const SHORT_TOKENS: f64 = 5.0;
/// Float dust below a millionth of a token must not cost a token.
pub(super) const DUST: f64 = 1e-6;

/// What is known of an ask's tokens at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tally {
    /// The server's part of the work.
    pub(super) alpha: f64,
    /// Tokens of the server's.
    pub(super) server: usize,
    /// Tokens of the device's.
    pub(super) device: usize,
    /// Tokens of all answers at least.
    pub(super) low: f64,
    /// Tokens of all answers, expected.
    pub(super) expected: f64,
}

impl Tally {
    /// Tokens that this side could write now if the other writes nothing meanwhile, at most `most`.
    pub(super) fn turn(&self, side: Origin, most: usize) -> usize {
        let (share, own) = match side {
            Origin::Server => (self.alpha, self.server),
            Origin::Device => (1.0 - self.alpha, self.device),
        };
        let written = self.server + self.device;
        (0..most)
            .take_while(|&more| {
                let then = (written + more + 1) as f64;
                let (low, expected) = (self.low.max(then), self.expected.max(then));
                let bound = (share * expected + 0.5).min(((share + TOLERANCE) * low).max(share * low + 0.5));
                // The ends are exact: nothing at all of a side that has no part of the work.
                share > 0.0 && (own + more + 1) as f64 <= bound + DUST
            })
            .count()
    }

    /// Whether it may write one more token.
    pub(super) fn may_go_on(&self, side: Origin) -> bool {
        self.turn(side, 1) > 0
    }

    /// Whether it should begin to write, beside `held` others that it writes already. The two sides never both wait.
    pub(super) fn should_begin(&self, side: Origin, held: usize) -> bool {
        let worth = (WORTH * self.low.max((self.server + self.device) as f64)).max(WORTH_TOKENS).ceil();
        let enough = worth as usize * (held + 1);
        if self.turn(side, enough) >= enough {
            return true;
        }
        let other = if side == Origin::Server { Origin::Device } else { Origin::Server };
        let [own, others] = [side, other].map(|side| self.turn(side, enough));
        held == 0 && own > 0 && (own > others || (own == others && side == Origin::Server))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tally(alpha: f64, server: usize, device: usize, low: f64, expected: f64) -> Tally {
        Tally { alpha, server, device, low, expected }
    }

    #[test]
    fn turns_by_hand() {
        for (tally, server, device) in [
            // Known to be 100 tokens: each its part.
            (tally(0.7, 0, 0, 100.0, 100.0), 70, 30),
            (tally(0.7, 70, 0, 100.0, 100.0), 0, 30),
            // It may end at 40: no more than 0.78 of those.
            (tally(0.7, 0, 0, 40.0, 100.0), 31, 15),
            // It may end at any token.
            (tally(0.5, 0, 0, 1.0, 64.0), 1, 1),
            (tally(0.5, 50, 50, 101.0, 150.0), 19, 19),
            // The ends.
            (tally(0.0, 0, 0, 5.0, 64.0), 0, 80),
            (tally(1.0, 0, 0, 5.0, 64.0), 80, 0),
        ] {
            let turns = [Origin::Server, Origin::Device].map(|side| tally.turn(side, 80));
            assert_eq!(turns, [server, device], "{tally:?}");
        }
    }

    proptest! {
        #[test]
        fn one_side_may_always_write_and_one_should_begin(
            alpha in 0.0_f64..=1.0, server in 0_usize..600, device in 0_usize..600, more in 1.0_f64..300.0, further in 0.0_f64..300.0,
        ) {
            let low = (server + device) as f64 + more;
            let tally = tally(alpha, server, device, low, low + further);
            prop_assert!(tally.may_go_on(Origin::Server) || tally.may_go_on(Origin::Device));
            prop_assert!(tally.should_begin(Origin::Server, 0) || tally.should_begin(Origin::Device, 0));
        }

        #[test]
        fn whatever_ends_when_the_share_is_right(alpha in 0.0_f64..=1.0, first in any::<bool>()) {
            // One answer that may end at any token, written by whoever may, as long as it may.
            let mut side = if first { Origin::Server } else { Origin::Device };
            let (mut server, mut device) = (0_usize, 0_usize);
            for written in 1..=500_usize {
                let now = tally(alpha, server, device, written as f64, (written as f64).max(64.0));
                if !now.may_go_on(side) {
                    side = if side == Origin::Server { Origin::Device } else { Origin::Server };
                }
                match side {
                    Origin::Server => server += 1,
                    Origin::Device => device += 1,
                }
                if written >= 5 {
                    let done = server as f64 / written as f64;
                    prop_assert!((done - alpha).abs() <= 0.1 + 1e-6, "{} of {} at α = {}", server, written, alpha);
                }
            }
        }
    }
}
