//! What of a conversation still fits into the models' context, and what is left out when it does not.
//!
//! **The rule.** A quarter of the context is kept free for the answer, or the answer's own limit where that is less. Once a
//! question does not fit beside it any more, the oldest exchanges are left out, question and answer together, until what
//! goes along takes at most half of the context: not one exchange a question, since whatever is left out at the beginning
//! makes both sides read all of the rest again, and half a context lasts for a while. A question that does not fit even by
//! itself is refused; nothing of what a person writes is ever cut.

use crate::protocol::engine::ContextUse;

/// Part of the context that is kept free for an answer, at most.
const FOR_ANSWER: usize = 4;
/// What goes along after exchanges were left out takes at most one part in so many.
const AFTERWARDS: usize = 2;

/// What goes along of a conversation of `exchanges` in a context of `limit` tokens, with an answer of at most `answer`
/// tokens. `count` says what the question takes when that many of the oldest exchanges are left out.
///
/// # Errors
/// What `count` fails with.
pub fn fit<E>(
    exchanges: usize,
    limit: usize,
    answer: usize,
    mut count: impl FnMut(usize) -> Result<usize, E>,
) -> Result<ContextUse, E> {
    let room = limit - answer.min(limit / FOR_ANSWER);
    let all = count(0)?;
    if all <= room {
        return Ok(ContextUse { tokens: all, limit, left_out: 0, fits: true });
    }
    // Fewer exchanges take fewer tokens: the fewest that have to go are found by halving.
    let wanted = limit / AFTERWARDS;
    let (mut low, mut high) = (0, exchanges);
    while low < high {
        let middle = low.midpoint(high);
        if count(middle)? <= wanted { high = middle } else { low = middle + 1 }
    }
    let tokens = count(low)?;
    // A long question by itself may have all of the room.
    Ok(ContextUse { tokens, limit, left_out: low, fits: tokens <= room })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// A question of `question` tokens after exchanges of these tokens.
    fn used(exchanges: &[usize], question: usize, limit: usize, answer: usize) -> ContextUse {
        let count = |left_out: usize| Ok::<_, Infallible>(exchanges[left_out..].iter().sum::<usize>() + question);
        let Ok(used) = fit(exchanges.len(), limit, answer, count);
        used
    }

    #[test]
    fn the_oldest_go_until_half_is_free() {
        for (exchanges, question, limit, answer, tokens, left_out, fits) in [
            // A first question.
            (&[][..], 10, 100, 1000, 10, 0, true),
            // Three quarters may be taken, and no more.
            (&[30, 35], 10, 100, 1000, 75, 0, true),
            (&[30, 35], 11, 100, 1000, 46, 1, true),
            // An answer with a limit of its own needs no more than that.
            (&[30, 35], 25, 100, 10, 90, 0, true),
            (&[30, 35], 26, 100, 10, 26, 2, true),
            // As few as it takes.
            (&[40, 30, 20, 10], 10, 100, 1000, 40, 2, true),
            // A long question has all of the room to itself; a longer one is refused.
            (&[10, 10], 75, 100, 1000, 75, 2, true),
            (&[10, 10], 76, 100, 1000, 76, 2, false),
            (&[], 1, 0, 1000, 1, 0, false),
        ] {
            let expect = ContextUse { tokens, limit, left_out, fits };
            assert_eq!(used(exchanges, question, limit, answer), expect, "{exchanges:?} and {question} of {limit}");
        }
    }

    #[test]
    fn what_cannot_be_counted_is_told() {
        assert_eq!(fit(1, 10, 1, |_| Err("the template refuses it")), Err("the template refuses it"));
    }

    proptest! {
        #[test]
        fn what_fits_leaves_room_and_what_is_left_out_is_needed(
            exchanges in prop::collection::vec(1_usize..400, 0..30),
            question in 1_usize..600, limit in 8_usize..2048, answer in 1_usize..5000,
        ) {
            let now = used(&exchanges, question, limit, answer);
            let room = limit - answer.min(limit / FOR_ANSWER);
            prop_assert_eq!(now.fits, now.tokens <= room);
            if now.left_out > 0 {
                let one_more = exchanges[now.left_out - 1] + now.tokens;
                prop_assert!(one_more > limit / AFTERWARDS, "{now:?} could hold one exchange more");
            }
            if !now.fits {
                prop_assert_eq!(now.tokens, question, "all that is not the question went first");
            }
        }
    }
}
