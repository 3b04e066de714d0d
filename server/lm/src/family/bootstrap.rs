//! 95 % intervals by the bootstrap: facts (or articles) are drawn with replacement, so that what belongs together stays
//! together; of two variants the same ones are drawn, since both were asked the same.

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use rayon::prelude::*;
use serde::Serialize;

/// Resamples.
pub const DRAWS: usize = 10_000;

/// A fact's questions, or an article's sentences: hits of so many.
pub type Unit = [u32; 2];

/// A value with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// Of all units.
    pub value: f64,
    /// The 2.5 % quantile of the resamples.
    pub low: f64,
    /// The 97.5 % quantile.
    pub high: f64,
}

impl Interval {
    /// Whether all of it lies on one side of 0.
    pub fn excludes_zero(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

/// Hits of all, by units; `None` where there is nothing.
pub fn rate(units: &[Unit], draws: usize, seed: u64) -> Option<Interval> {
    resampled(units.len(), draws, seed, &|drawn| share(units, drawn))
}

/// `left`'s rate minus `right`'s, of the same units in the same order; `None` where they are not as many, or nothing.
pub fn difference(left: &[Unit], right: &[Unit], draws: usize, seed: u64) -> Option<Interval> {
    if left.len() != right.len() {
        return None;
    }
    resampled(left.len(), draws, seed, &|drawn| Some(share(left, drawn)? - share(right, drawn)?))
}

/// Hits of all, of the units that were drawn.
fn share(units: &[Unit], drawn: &[u32]) -> Option<f64> {
    let (mut hits, mut of) = (0u64, 0u64);
    for [h, n] in drawn.iter().filter_map(|unit| units.get(*unit as usize)) {
        hits += u64::from(*h);
        of += u64::from(*n);
    }
    (of > 0).then(|| hits as f64 / of as f64)
}

/// A statistic of `units` things with its interval by drawing them anew; `None` where it is none of all of them.
pub(super) fn resampled(
    units: usize,
    draws: usize,
    seed: u64,
    statistic: &(dyn Fn(&[u32]) -> Option<f64> + Sync),
) -> Option<Interval> {
    let all: Vec<u32> = (0..u32::try_from(units).ok()?).collect();
    let value = statistic(&all)?;
    let one = |draw: usize| {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed.wrapping_add(draw as u64));
        let drawn: Vec<u32> = (0..units).map(|_| rng.random_range(0..all.len() as u32)).collect();
        statistic(&drawn)
    };
    let mut values: Vec<f64> = (0..draws).into_par_iter().filter_map(one).collect();
    values.sort_unstable_by(f64::total_cmp);
    let quantile = |q: f64| {
        let place = (q * (values.len().saturating_sub(1)) as f64).round() as usize;
        values.get(place).copied().unwrap_or(value)
    };
    Some(Interval { value, low: quantile(0.025), high: quantile(0.975) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_share_is_the_binomials() {
        let units: Vec<Unit> = (0..400).map(|i| [u32::from(i % 4 == 0), 1]).collect();
        let found = rate(&units, 4000, 1).unwrap();
        // 1.96 √(0.25 · 0.75 / 400) = 0.0424.
        assert_eq!(found.value, 0.25);
        assert!((found.low - 0.2076).abs() < 0.006 && (found.high - 0.2924).abs() < 0.006, "{found:?}");
        assert_eq!(rate(&units, 4000, 1), Some(found), "the same seed, the same interval");
        assert_eq!(rate(&[[0, 0]], 100, 1), None);
        assert_eq!(rate(&[], 100, 1), None);
    }

    #[test]
    fn what_is_paired_is_told_apart_sooner() {
        // 3 of 300 facts differ, all in one direction.
        let left: Vec<Unit> = (0..300).map(|i| [u32::from(i % 2 == 0 || i % 100 == 1), 1]).collect();
        let right: Vec<Unit> = (0..300).map(|i| [u32::from(i % 2 == 0), 1]).collect();
        let paired = difference(&left, &right, 4000, 2).unwrap();
        assert!((paired.value - 0.01).abs() < 1e-12 && paired.low >= 0.0 && paired.high < 0.03, "{paired:?}");
        let same = difference(&left, &left, 1000, 2).unwrap();
        assert_eq!((same.low, same.high, same.excludes_zero()), (0.0, 0.0, false));
        assert_eq!(difference(&left, &right[1..], 10, 2), None);
    }
}
