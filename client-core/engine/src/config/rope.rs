//! Rotary position embedding (RoPE) and the ways in which checkpoints stretch it to longer contexts.

use std::f64::consts::PI;

use super::ModelConfig;

/// Rotary position embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// θ: the base of the geometric series of wavelengths.
    pub base: f32,
    /// How many elements of each head are rotated; even, at most the head's size.
    pub dim: usize,
    /// Per-pair divisors of the frequency, `dim / 2` of them; empty for none.
    pub freq_divisors: Vec<f32>,
    /// What cosines and sines are multiplied with: YaRN's attention factor, else 1.
    pub magnitude: f32,
}

/// How a block rotates queries and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Positions {
    /// Not at all: it has no positions (NoPE).
    None,
    /// By [`ModelConfig::rope`].
    Main,
    /// By [`ModelTraits::local_rope`](super::ModelTraits::local_rope).
    Local,
}

impl Positions {
    /// The place of its rotation among those of [`Rotations`].
    pub fn table(self) -> Option<usize> {
        match self {
            Self::None => None,
            Self::Main => Some(0),
            Self::Local => Some(1),
        }
    }
}

/// All rotations of a model's blocks, ready to be computed: the main one, then the local one where there is one.
#[derive(Debug, Clone)]
pub struct Rotations(Vec<(RopeConfig, Vec<f32>)>);

impl Rotations {
    /// Those of a model.
    pub fn of(config: &ModelConfig) -> Self {
        let ropes = std::iter::once(&config.rope).chain(&config.traits.local_rope);
        Self(ropes.map(|rope| (rope.clone(), rope.frequencies())).collect())
    }

    /// How many there are.
    pub fn tables(&self) -> usize {
        self.0.len()
    }

    /// Numbers for a position: [`tables`](Self::tables) times the rotated elements of a head.
    pub fn width(&self) -> usize {
        self.0.iter().map(|(rope, _)| rope.dim).sum()
    }

    /// Appends those of one position to `out`, one rotation after the other, each as [`RopeConfig::rotation_at`] has it.
    pub fn at(&self, position: usize, out: &mut Vec<f32>) {
        for (rope, frequencies) in &self.0 {
            rope.rotation_at(frequencies, position, out);
        }
    }

    /// Those of `count` positions from `start`, `[count, width]`.
    pub fn span(&self, start: usize, count: usize) -> Vec<f32> {
        let mut out = Vec::with_capacity(count * self.width());
        for position in start..start + count {
            self.at(position, &mut out);
        }
        out
    }
}

/// How a checkpoint stretches RoPE beyond the context it was trained with. Lengths are in tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All positions are divided by `factor`.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1: long wavelengths are divided, short ones kept, those between blended.
    Llama3 {
        /// The divisor of long wavelengths.
        factor: f64,
        /// Wavelengths above `original / low` are long.
        low: f64,
        /// Wavelengths below `original / high` are short.
        high: f64,
        /// The context before stretching.
        original: f64,
    },
    /// YaRN (Peng et al. 2023): as above with a ramp over the pair's index, and a correction of the attention's temperature.
    Yarn {
        /// The divisor of long wavelengths.
        factor: f64,
        /// The context before stretching.
        original: f64,
        /// Pairs that turn more often than this within the original context are kept.
        beta_fast: f64,
        /// Pairs that turn less often than this are divided.
        beta_slow: f64,
        /// Whether the ramp's ends are rounded outwards to whole pairs.
        truncate: bool,
        /// The factor of cosines and sines.
        magnitude: f64,
    },
}

/// YaRN's usual attention factor for a stretch by `factor`, with the weight `mscale` (1 where nothing else is said).
pub(super) fn yarn_magnitude(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
}

impl RopeConfig {
    /// The embedding of `dim` elements with base `base`, stretched as `scaling` says.
    pub fn new(base: f32, dim: usize, scaling: RopeScaling) -> Self {
        let theta = f64::from(base);
        let frequency = |pair: usize| theta.powf(-2.0 * pair as f64 / dim as f64);
        // The blend of a frequency that is kept by the share `kept` and divided by `factor` otherwise, as a divisor.
        let blend = |kept: f64, factor: f64| (1.0 / ((1.0 - kept) / factor + kept)) as f32;
        let pairs = 0..dim / 2;
        let (freq_divisors, magnitude) = match scaling {
            RopeScaling::None => (Vec::new(), 1.0),
            RopeScaling::Linear { factor } => (pairs.map(|_| factor as f32).collect(), 1.0),
            RopeScaling::Llama3 { factor, low, high, original } => {
                let divisor = |pair| {
                    let turns = original * frequency(pair) / (2.0 * PI);
                    blend(((turns - low) / (high - low)).clamp(0.0, 1.0), factor)
                };
                (pairs.map(divisor).collect(), 1.0)
            }
            RopeScaling::Yarn { factor, original, beta_fast, beta_slow, truncate, magnitude } => {
                // The (fractional) pair that turns `turns` times within the original context.
                let pair_of = |turns: f64| dim as f64 * (original / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
                let (first, last) = (pair_of(beta_fast), pair_of(beta_slow));
                let (first, last) = if truncate { (first.floor(), last.ceil()) } else { (first, last) };
                let (first, last) = (first.max(0.0), last.min(dim as f64 - 1.0));
                let width = if first == last { 1e-3 } else { last - first };
                let divisor = |pair| blend(1.0 - ((pair as f64 - first) / width).clamp(0.0, 1.0), factor);
                (pairs.map(divisor).collect(), magnitude as f32)
            }
        };
        Self { base, dim, freq_divisors, magnitude }
    }

    /// Angular frequencies of the pairs, `[dim / 2]`, radians per position.
    pub fn frequencies(&self) -> Vec<f32> {
        (0..self.dim / 2)
            .map(|i| {
                let frequency = f64::from(self.base).powf(-2.0 * i as f64 / self.dim as f64);
                (frequency / f64::from(self.freq_divisors.get(i).copied().unwrap_or(1.0))) as f32
            })
            .collect()
    }

    /// Cosines and sines at one position, times the magnitude, each `[dim / 2]`, appended pair by pair as (cos, sin) to `out`.
    pub fn rotation_at(&self, frequencies: &[f32], position: usize, out: &mut Vec<f32>) {
        for &frequency in frequencies {
            // The product is formed in single precision, as ggml does, so that long contexts agree with it.
            let angle = position as f32 * frequency;
            let (sin, cos) = f64::from(angle).sin_cos();
            out.extend([cos as f32 * self.magnitude, sin as f32 * self.magnitude]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotation_is_a_rotation() {
        let rope = RopeConfig { base: 10_000.0, dim: 8, freq_divisors: vec![1.0, 2.0, 4.0, 8.0], magnitude: 1.0 };
        let frequencies = rope.frequencies();
        let mut out = Vec::new();
        rope.rotation_at(&frequencies, 0, &mut out);
        assert_eq!(out, [1.0, 0.0].repeat(4));
        out.clear();
        rope.rotation_at(&frequencies, 3, &mut out);
        assert!((out[0] - 3f32.cos()).abs() < 1e-6 && (out[1] - 3f32.sin()).abs() < 1e-6);
        // Pair 1: base^(-2/8) = 0.1, divided by 2.
        assert!((out[2] - 0.15f32.cos()).abs() < 1e-6);
    }

    /// The ends of each ramp: the fastest pair is kept, the slowest divided, and divisors only grow in between.
    #[test]
    fn stretching_keeps_the_fast_and_divides_the_slow() {
        let llama3 = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192.0 };
        let (beta_fast, beta_slow, magnitude) = (32.0, 1.0, yarn_magnitude(8.0, 1.0));
        let yarn =
            |truncate| RopeScaling::Yarn { factor: 8.0, original: 8192.0, beta_fast, beta_slow, truncate, magnitude };
        for scaling in [llama3, yarn(true), yarn(false)] {
            let rope = RopeConfig::new(500_000.0, 128, scaling);
            let divisors = &rope.freq_divisors;
            assert_eq!((divisors.len(), divisors[0], divisors[63]), (64, 1.0, 8.0), "{scaling:?}");
            assert!(divisors.is_sorted() && divisors.iter().any(|d| *d > 1.1 && *d < 7.9), "{scaling:?}: {divisors:?}");
        }
        assert_eq!(RopeConfig::new(1e4, 8, RopeScaling::Linear { factor: 4.0 }).freq_divisors, [4.0; 4]);
        assert!((RopeConfig::new(1e4, 8, yarn(true)).magnitude - 1.207_944).abs() < 1e-5);
    }
}
