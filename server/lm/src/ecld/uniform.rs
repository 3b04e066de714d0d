//! The paper's uniform quantiser, eq. 12 and 13, and the minimisation of its squared error over (a, b).
//!
//! A group of weights becomes codes c in 0..2^q with values a + c·Δ, Δ = (b − a) / (2^q − 1). Rounding is half up, codes are
//! clamped (after the minimisation a and b are no longer the ends of the values), and where Δ is 0 every code is 0.
//!
//! The minimisation is not convex, since codes jump. It alternates between its two halves: codes given, (a, Δ) is a
//! least-squares line; (a, Δ) given, the nearest code is best. Neither step raises the error, so the result is a local
//! minimum, and several starting ranges keep it from being a bad one ([`Effort`]).

use half::f16;

use super::error::{EcldError, finite};

/// Most bits of a code.
pub const MAX_BITS: u32 = 16;
/// Rounds of one alternation; it ends sooner, when no code changes any more.
const MAX_ROUNDS: usize = 100;
/// Most assignments of codes that [`global_minimum`] looks through.
const MAX_ASSIGNMENTS: f64 = 2e6;

/// A line of levels: code c stands for a + c·Δ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    /// The value of code 0.
    pub a: f64,
    /// The distance of neighbouring levels; 0 where all values are one.
    pub delta: f64,
    /// q: there are 2^q codes.
    pub bits: u32,
}

/// How many ranges a minimisation starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// One: both ends shrunk to 0.8. For what is fitted again at every step of a training.
    Single,
    /// 16: either end shrunk to 1, 0.9, 0.8 and 0.7. Within about 3 % of the best, usually at it; for whole models.
    Quick,
    /// 416: ends from 1.05 down to 0.575, and the 16 with ends moved by shares of the range; and where a group is so small
    /// that all assignments of codes can be tried, those. For single groups.
    Thorough,
}

/// Weights as codes.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantised {
    /// The levels.
    pub grid: Grid,
    /// A code a weight.
    pub codes: Vec<u16>,
    /// What the codes stand for.
    pub values: Vec<f64>,
    /// Sum of the squared errors.
    pub sse: f64,
}

/// A stretch of a row with levels of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// The row.
    pub row: usize,
    /// First column.
    pub from: usize,
    /// Column after the last.
    pub to: usize,
    /// Its codes.
    pub quantised: Quantised,
}

impl Grid {
    /// The levels from `a` to `b`.
    ///
    /// # Errors
    /// An end is no number, `b` is below `a`, or the bits are not between 1 and 16.
    pub fn between(a: f64, b: f64, bits: u32) -> Result<Self, EcldError> {
        check_bits(bits)?;
        finite("a, b", &[a, b])?;
        if b < a {
            return Err(EcldError::input(format!("b = {b} is below a = {a}")));
        }
        Ok(Self { a, delta: (b - a) / f64::from(top_code(bits)), bits })
    }

    /// The value of the last code.
    pub fn b(&self) -> f64 {
        self.a + self.delta * f64::from(top_code(self.bits))
    }

    /// The code of a weight: the nearest level, of two as near the upper one.
    pub fn code(&self, weight: f64) -> u16 {
        if self.delta == 0.0 {
            return 0;
        }
        let place = (weight - self.a) / self.delta + 0.5;
        // Rounded towards zero, which is down from 0 on.
        place.clamp(0.0, f64::from(top_code(self.bits))) as u16
    }

    /// What a code stands for.
    pub fn value(&self, code: u16) -> f64 {
        self.a + self.delta * f64::from(code)
    }

    /// The same levels as a file can hold them: a and Δ rounded to half precision. Codes are chosen after this.
    ///
    /// # Errors
    /// [`EcldError::HalfRange`].
    pub fn to_half(self) -> Result<Self, EcldError> {
        Ok(Self { a: to_half(self.a)?, delta: to_half(self.delta)?, bits: self.bits })
    }

    /// The codes of `weights`, and how far they are off.
    pub fn quantise(self, weights: &[f64]) -> Quantised {
        let codes: Vec<u16> = weights.iter().map(|weight| self.code(*weight)).collect();
        let values: Vec<f64> = codes.iter().map(|code| self.value(*code)).collect();
        let sse = weights.iter().zip(&values).map(|(w, v)| (w - v) * (w - v)).sum();
        Quantised { grid: self, codes, values, sse }
    }

    fn sse(&self, weights: &[f64]) -> f64 {
        weights.iter().map(|w| (w - self.value(self.code(*w))).powi(2)).sum()
    }
}

/// `value` rounded to half precision.
///
/// # Errors
/// [`EcldError::HalfRange`]: it would become infinite.
pub fn to_half(value: f64) -> Result<f64, EcldError> {
    let rounded = f16::from_f64(value).to_f64();
    if rounded.is_finite() { Ok(rounded) } else { Err(EcldError::HalfRange { value }) }
}

/// 2^q − 1.
fn top_code(bits: u32) -> u16 {
    u16::MAX >> (MAX_BITS - bits.clamp(1, MAX_BITS))
}

fn check_bits(bits: u32) -> Result<(), EcldError> {
    match bits {
        1..=MAX_BITS => Ok(()),
        _ => Err(EcldError::input(format!("{bits} bits; there must be between 1 and {MAX_BITS}"))),
    }
}

fn ends(weights: &[f64]) -> Result<(f64, f64), EcldError> {
    finite("the group of weights", weights)?;
    if weights.is_empty() {
        return Err(EcldError::input("there are no weights to quantise"));
    }
    Ok(weights.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), w| (low.min(*w), high.max(*w))))
}

/// Eq. 13 as it is printed: a and b are the least and the greatest weight.
///
/// # Errors
/// There is no weight, one is no number, or the bits are not between 1 and 16.
pub fn min_max(weights: &[f64], bits: u32) -> Result<Grid, EcldError> {
    let (a, b) = ends(weights)?;
    Grid::between(a, b, bits)
}

/// The (a, Δ) of least squared error that the search finds; never worse than [`min_max`].
///
/// # Errors
/// As [`min_max`].
pub fn minimised(weights: &[f64], bits: u32, effort: Effort) -> Result<Grid, EcldError> {
    let (low, high) = ends(weights)?;
    let mut best = Grid::between(low, high, bits)?;
    if best.delta == 0.0 {
        return Ok(best);
    }
    let mut least = best.sse(weights);
    let mut consider = |start: Grid| {
        let found = alternate(weights, start);
        let sse = found.sse(weights);
        if sse < least {
            (best, least) = (found, sse);
        }
    };
    if let Some((found, _)) = (effort == Effort::Thorough).then(|| exhaustive(weights, bits)).flatten() {
        consider(found);
    }
    let top = f64::from(top_code(bits));
    let grid = |a: f64, b: f64| Grid { a, delta: (b - a) / top, bits };
    let shrunk = [1.0, 0.9, 0.8, 0.7];
    match effort {
        Effort::Single => consider(grid(low * 0.8, high * 0.8)),
        Effort::Quick => {
            for (left, right) in pairs(&shrunk) {
                consider(grid(low * left, high * right));
            }
        }
        Effort::Thorough => {
            let factors: Vec<f64> = (0..20).map(|step| 1.05 - 0.025 * f64::from(step)).collect();
            for (left, right) in pairs(&factors) {
                consider(grid(low * left, high * right));
            }
            for (left, right) in pairs(&shrunk) {
                let range = high - low;
                consider(grid(low + (1.0 - left) * range, high - (1.0 - right) * range));
            }
        }
    }
    Ok(best)
}

fn pairs(factors: &[f64]) -> impl Iterator<Item = (f64, f64)> + '_ {
    factors.iter().flat_map(|left| factors.iter().map(|right| (*left, *right)))
}

/// Both halves in turn until no code changes.
fn alternate(weights: &[f64], mut grid: Grid) -> Grid {
    let n = weights.len() as f64;
    let mean = weights.iter().sum::<f64>() / n;
    let (mut codes, mut next) = (Vec::new(), Vec::with_capacity(weights.len()));
    for _ in 0..MAX_ROUNDS {
        // A start whose ends have crossed leads nowhere.
        if grid.delta <= 0.0 {
            return Grid { a: mean, delta: 0.0, bits: grid.bits };
        }
        next.clear();
        next.extend(weights.iter().map(|w| grid.code(*w)));
        if next == codes {
            break;
        }
        std::mem::swap(&mut codes, &mut next);
        let mean_code = codes.iter().map(|c| f64::from(*c)).sum::<f64>() / n;
        let (mut variance, mut covariance) = (0.0, 0.0);
        for (code, weight) in codes.iter().zip(weights) {
            let off = f64::from(*code) - mean_code;
            variance += off * off;
            covariance += off * (weight - mean);
        }
        let delta = if variance > 0.0 { covariance / variance } else { 0.0 };
        grid = Grid { a: mean - delta * mean_code, delta, bits: grid.bits };
    }
    grid
}

/// The least squared error that any (a, Δ) has; `None` where there are too many assignments of codes to try.
pub fn global_minimum(weights: &[f64], bits: u32) -> Option<f64> {
    exhaustive(weights, bits).map(|(_, error)| error)
}

/// The best line and its squared error, by trying every assignment of codes that rises with the weights (no other can be
/// best); `None` where there are too many of them.
fn exhaustive(weights: &[f64], bits: u32) -> Option<(Grid, f64)> {
    let (low, high) = ends(weights).ok()?;
    let top = usize::from(top_code(bits));
    // C(n + top, top) assignments.
    let n = weights.len();
    let mut count = 1.0;
    for i in 1..=top.min(n) {
        count *= (n + top + 1 - i) as f64 / i as f64;
        if count > MAX_ASSIGNMENTS {
            return None;
        }
    }
    if low == high {
        return Some((Grid { a: low, delta: 0.0, bits }, 0.0));
    }
    let mean = weights.iter().sum::<f64>() / n as f64;
    let mut sorted: Vec<f64> = weights.iter().map(|w| w - mean).collect();
    sorted.sort_by(f64::total_cmp);
    let total: f64 = sorted.iter().map(|w| w * w).sum();
    let mut search = Exhaustive { sorted, top, best: 0.0, line: (0.0, 0.0) };
    search.descend(0, 0, 0.0, 0.0, 0.0);
    let (delta, mean_code) = search.line;
    Some((Grid { a: mean - delta * mean_code, delta, bits }, (total - search.best).max(0.0)))
}

struct Exhaustive {
    /// Centred, ascending.
    sorted: Vec<f64>,
    top: usize,
    /// Greatest covariance² / variance: what a line explains of the total.
    best: f64,
    /// Δ and the mean code there.
    line: (f64, f64),
}

impl Exhaustive {
    /// Gives the weights from `first` on codes of at least `code`; the sums are those of codes, their squares, and their
    /// products with the weights so far.
    fn descend(&mut self, first: usize, code: usize, sum: f64, squares: f64, products: f64) {
        let n = self.sorted.len();
        if code == self.top {
            let (c, rest) = (code as f64, self.sorted.get(first..).unwrap_or_default());
            let many = rest.len() as f64;
            let (sum, squares) = (sum + c * many, squares + c * c * many);
            let products = products + c * rest.iter().sum::<f64>();
            let variance = squares - sum * sum / n as f64;
            if variance > 1e-9 && products * products / variance > self.best {
                self.best = products * products / variance;
                self.line = (products / variance, sum / n as f64);
            }
            return;
        }
        let (mut sum, mut squares, mut products) = (sum, squares, products);
        for end in first..=n {
            self.descend(end, code + 1, sum, squares, products);
            let c = code as f64;
            sum += c;
            squares += c * c;
            products += c * self.sorted.get(end).copied().unwrap_or(0.0);
        }
    }
}

/// Every row in groups of `group`, of which a row's last may be shorter.
///
/// # Errors
/// As [`min_max`]; the group is empty.
pub fn rows<'a>(
    rows: impl IntoIterator<Item = &'a [f64]>,
    bits: u32,
    group: usize,
    mut grid: impl FnMut(&[f64], u32) -> Result<Grid, EcldError>,
) -> Result<Vec<Group>, EcldError> {
    if group == 0 {
        return Err(EcldError::input("a group has no weights"));
    }
    let mut groups = Vec::new();
    for (row, weights) in rows.into_iter().enumerate() {
        let mut from = 0;
        for part in weights.chunks(group) {
            let quantised = grid(part, bits)?.quantise(part);
            groups.push(Group { row, from, to: from + part.len(), quantised });
            from += part.len();
        }
    }
    Ok(groups)
}

/// Bits a weight, with a and Δ of every group in half precision.
pub fn bits_per_weight(bits: u32, groups: usize, weights: usize) -> f64 {
    f64::from(bits) + 32.0 * groups as f64 / weights.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(n: usize, seed: u64) -> Vec<f64> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
        };
        // Sums of four: heavier in the middle, as weights are.
        (0..n).map(|_| (next() + next() + next() + next()) * 0.1).collect()
    }

    #[test]
    fn codes_are_rounded_half_up_and_clamped() {
        let grid = Grid::between(0.0, 3.0, 2).unwrap();
        for (weight, code) in [(-1.0, 0), (0.49, 0), (0.5, 1), (1.5, 2), (2.4, 2), (9.0, 3)] {
            assert_eq!(grid.code(weight), code, "{weight}");
        }
        assert_eq!(Grid::between(1.0, 1.0, 8).unwrap().code(5.0), 0);
        assert_eq!(top_code(16), u16::MAX);
    }

    #[test]
    fn the_minimised_is_between_the_best_and_min_max() {
        for bits in [2, 3] {
            for seed in 0..6 {
                let w = weights(10, seed);
                let plain = min_max(&w, bits).unwrap().quantise(&w).sse;
                let quick = minimised(&w, bits, Effort::Quick).unwrap().quantise(&w).sse;
                let thorough = minimised(&w, bits, Effort::Thorough).unwrap().quantise(&w).sse;
                let best = global_minimum(&w, bits).unwrap();
                assert!(best <= thorough + 1e-12 && thorough <= quick && quick <= plain, "{bits} {seed}");
                assert!(thorough <= best * (1.0 + 1e-9), "{bits} {seed}: {thorough} {best}");
            }
        }
    }

    #[test]
    fn minimising_pays_more_the_fewer_the_bits() {
        let w = weights(64 * 40, 9);
        let gain = |bits| {
            let sum = |grid: &dyn Fn(&[f64]) -> Grid| w.chunks(64).map(|g| grid(g).quantise(g).sse).sum::<f64>();
            1.0 - sum(&|g| minimised(g, bits, Effort::Quick).unwrap()) / sum(&|g| min_max(g, bits).unwrap())
        };
        let (four, two) = (gain(4), gain(2));
        assert!(four > 0.05 && two > four, "{four} {two}");
    }

    #[test]
    fn what_cannot_be_quantised_is_refused() {
        for w in [vec![], vec![f64::NAN], vec![1.0, f64::INFINITY]] {
            assert!(min_max(&w, 4).is_err() && minimised(&w, 4, Effort::Quick).is_err(), "{w:?}");
        }
        for bits in [0, 17] {
            assert!(min_max(&[1.0, 2.0], bits).is_err());
        }
        assert!(min_max(&[0.0, 1e6], 1).unwrap().to_half().is_err());
        assert!(rows([&[1.0][..]], 4, 0, min_max).is_err());
    }
}
