//! Task sizes: a chain over evenly spaced levels.

use rand::{Rng, RngExt};

use super::params::MecParams;

/// The size of a level, in bits.
pub fn size_bits(params: &MecParams, level: usize) -> f64 {
    let last = params.size_levels.max(1) - 1;
    let share = if last == 0 { 0.0 } else { level.min(last) as f64 / last as f64 };
    1e6 * (params.size_min_mbit + share * (params.size_max_mbit - params.size_min_mbit))
}

/// A first level: from the long-run frequencies of [`next_level`], ends half as often as the others.
pub fn draw_level(params: &MecParams, rng: &mut impl Rng) -> usize {
    let last = params.size_levels.max(1) - 1;
    if last == 0 {
        return 0;
    }
    // Rounding a uniform position gives each end half a bin.
    let position = rng.random::<f64>() * last as f64;
    (position.round() as usize).min(last)
}

/// The next level: the same with probability `size_stay`, else one up or down with equal chance. At either end both lead
/// inwards (reflection), so that in the long run the end sizes are half as frequent as the others.
pub fn next_level(params: &MecParams, level: usize, rng: &mut impl Rng) -> usize {
    let last = params.size_levels.max(1) - 1;
    let level = level.min(last);
    let draw: f64 = rng.random();
    let up = if level == 0 {
        true
    } else if level == last {
        false
    } else {
        draw < params.size_stay + (1.0 - params.size_stay) / 2.0
    };
    match (draw < params.size_stay || last == 0, up) {
        (true, _) => level,
        (false, true) => level + 1,
        (false, false) => level - 1,
    }
}
