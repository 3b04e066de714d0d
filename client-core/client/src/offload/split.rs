//! Which part of a task goes to the server.
//!
//! A task of X bits is a list of prompts; each prompt's part of X is in proportion to the tokens that its answer is expected
//! to have ([`super::length`]). α·X bits are offloaded: the prompts that the compact model is least sure of (highest entropy
//! of its first token) go first, until the bits are used up. The prompt on the boundary is shared.
//!
//! This is where a run begins. What is written in the end is held at α by [`super::run`], whatever the lengths.

use std::cmp::Ordering;

/// An offloading ratio α, always within 0..=1.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct OffloadRatio(f64);

impl OffloadRatio {
    /// Everything stays on the device.
    pub const NONE: Self = Self(0.0);
    /// Everything goes to the server.
    pub const ALL: Self = Self(1.0);

    /// The nearest ratio to `value`; NaN counts as 0.
    #[must_use]
    pub fn saturating(value: f64) -> Self {
        if value.is_nan() { Self::NONE } else { Self(value.clamp(0.0, 1.0)) }
    }

    /// The ratio as a number in 0..=1.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

/// One prompt of a task before it is split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PromptWeight {
    /// Tokens that its answer is expected to have; fewer than one count as one.
    pub tokens: f64,
    /// Entropy of the compact model's first token in nats; `None` where nobody computed it, which counts as the least.
    pub entropy: Option<f32>,
}

/// One prompt of a task after it is split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PromptShare {
    /// The prompt's part of X.
    pub bits: f64,
    /// Of those, the bits that go to the server.
    pub server_bits: f64,
    /// `server_bits / bits`: exactly 1 for a prompt that is offloaded whole, exactly 0 for one that stays.
    pub server_share: f64,
}

impl PromptShare {
    /// Whether both sides write a part of this prompt's answer.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.server_share > 0.0 && self.server_share < 1.0
    }
}

/// Splits a task of `size_bits` at ratio `alpha`. The result has one entry a prompt, in the order of `prompts`; at most
/// one of them is shared; `server_bits` add up to α·X.
#[must_use]
pub fn split(prompts: &[PromptWeight], size_bits: f64, alpha: OffloadRatio) -> Vec<PromptShare> {
    let weight = |prompt: &PromptWeight| prompt.tokens.max(1.0);
    let total: f64 = prompts.iter().map(weight).sum();
    let offloaded = alpha.get() * size_bits;

    let mut order: Vec<usize> = (0..prompts.len()).collect();
    order.sort_by(|&a, &b| harder_first(prompts[a].entropy, prompts[b].entropy).then(a.cmp(&b)));

    let mut shares = vec![PromptShare { bits: 0.0, server_bits: 0.0, server_share: 0.0 }; prompts.len()];
    // Cumulative sums: each prompt's part of the offloaded bits can only grow with α. The last one is X itself, whatever
    // rounding does to the sum in another order.
    let (mut tokens_before, mut bits_before) = (0.0, 0.0);
    let last = order.len().saturating_sub(1);
    for (place, index) in order.into_iter().enumerate() {
        tokens_before += weight(&prompts[index]);
        let bits_after = if place == last { size_bits } else { size_bits * (tokens_before / total) };
        let bits = bits_after - bits_before;
        let (server_bits, server_share) = if offloaded >= bits_after {
            (bits, 1.0)
        } else if offloaded <= bits_before {
            (0.0, 0.0)
        } else {
            (offloaded - bits_before, ((offloaded - bits_before) / bits).clamp(0.0, 1.0))
        };
        shares[index] = PromptShare { bits, server_bits, server_share };
        bits_before = bits_after;
    }
    shares
}

/// Highest entropy first; an unknown or undefined one last.
fn harder_first(a: Option<f32>, b: Option<f32>) -> Ordering {
    let key = |entropy: Option<f32>| entropy.filter(|value| !value.is_nan()).unwrap_or(f32::NEG_INFINITY);
    key(b).total_cmp(&key(a))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prompts(of: &[(u16, Option<f32>)]) -> Vec<PromptWeight> {
        of.iter().map(|&(tokens, entropy)| PromptWeight { tokens: tokens.into(), entropy }).collect()
    }

    fn server_shares(of: &[(u16, Option<f32>)], alpha: f64) -> Vec<f64> {
        split(&prompts(of), 1e6, OffloadRatio::saturating(alpha)).iter().map(|share| share.server_share).collect()
    }

    #[test]
    fn offloads_the_hardest_first_and_shares_the_boundary() {
        let burst = [(10, Some(0.1)), (10, Some(2.0)), (20, Some(0.5))];
        for (alpha, expect) in [
            (0.0, [0.0, 0.0, 0.0]),
            (0.125, [0.0, 0.5, 0.0]),
            (0.25, [0.0, 1.0, 0.0]),
            (0.5, [0.0, 1.0, 0.5]),
            (0.75, [0.0, 1.0, 1.0]),
            (0.875, [0.5, 1.0, 1.0]),
            (1.0, [1.0, 1.0, 1.0]),
        ] {
            assert_eq!(server_shares(&burst, alpha), expect, "α = {alpha}");
        }
    }

    #[test]
    fn one_prompt_takes_the_ratio_itself() {
        for alpha in [0.0, 0.3, 1.0] {
            assert_eq!(server_shares(&[(17, None)], alpha), [alpha]);
        }
    }

    #[test]
    fn unknown_entropies_come_last_and_keep_the_order_of_the_ask() {
        assert_eq!(server_shares(&[(1, None), (1, Some(0.0)), (1, None), (1, None)], 0.5), [1.0, 1.0, 0.0, 0.0]);
        assert_eq!(server_shares(&[(1, Some(f32::NAN)), (1, Some(0.0))], 0.5), [0.0, 1.0]);
    }

    #[test]
    fn nothing_to_split_and_ratios_out_of_range() {
        assert!(split(&[], 1e6, OffloadRatio::ALL).is_empty());
        assert_eq!(OffloadRatio::saturating(f64::NAN), OffloadRatio::NONE);
        assert_eq!(OffloadRatio::saturating(-3.0), OffloadRatio::NONE);
        assert_eq!(OffloadRatio::saturating(f64::INFINITY), OffloadRatio::ALL);
    }

    fn any_prompts() -> impl Strategy<Value = Vec<PromptWeight>> {
        prop::collection::vec((0.0_f64..400.0, prop::option::of(0.0_f32..8.0)), 1..12)
            .prop_map(|of| of.into_iter().map(|(tokens, entropy)| PromptWeight { tokens, entropy }).collect())
    }

    proptest! {
        #[test]
        fn server_bits_add_up_to_alpha_x(prompts in any_prompts(), size in 1.0_f64..1e7, alpha in 0.0_f64..=1.0) {
            let shares = split(&prompts, size, OffloadRatio::saturating(alpha));
            let (bits, server): (f64, f64) =
                shares.iter().fold((0.0, 0.0), |sum, share| (sum.0 + share.bits, sum.1 + share.server_bits));
            prop_assert!((bits - size).abs() <= 1e-12 * size);
            prop_assert!((server - alpha * size).abs() <= 1e-12 * size);
            prop_assert!(shares.iter().filter(|share| share.is_shared()).count() <= 1);
        }

        #[test]
        fn no_prompt_loses_bits_when_alpha_grows(
            prompts in any_prompts(), a in 0.0_f64..=1.0, b in 0.0_f64..=1.0,
        ) {
            let (low, high) = if a < b { (a, b) } else { (b, a) };
            let less = split(&prompts, 1e6, OffloadRatio::saturating(low));
            let more = split(&prompts, 1e6, OffloadRatio::saturating(high));
            for (less, more) in less.iter().zip(&more) {
                prop_assert!(less.server_bits <= more.server_bits);
                prop_assert!(less.server_share <= more.server_share);
                prop_assert_eq!(less.bits, more.bits);
            }
        }

        #[test]
        fn a_harder_prompt_never_has_the_smaller_share(prompts in any_prompts(), alpha in 0.0_f64..=1.0) {
            let shares = split(&prompts, 1e6, OffloadRatio::saturating(alpha));
            for (a, share_a) in prompts.iter().zip(&shares) {
                for (b, share_b) in prompts.iter().zip(&shares) {
                    if a.entropy.unwrap_or(-1.0) > b.entropy.unwrap_or(-1.0) {
                        prop_assert!(share_a.server_share >= share_b.server_share);
                    }
                }
            }
        }

        #[test]
        fn the_ends_are_exact(prompts in any_prompts()) {
            for (alpha, expect) in [(OffloadRatio::NONE, 0.0), (OffloadRatio::ALL, 1.0)] {
                for share in split(&prompts, 1.7e6, alpha) {
                    prop_assert_eq!(share.server_share, expect);
                }
            }
        }
    }
}
