//! Choosing the next token from the logits: greedy, or by temperature, top-k and top-p with a seed, with a penalty on
//! repetition.
//!
//! A draw walks over the candidates that are kept in an order that a GPU can follow without sorting the vocabulary: by
//! slices of [`SLICE`] ids, within a slice the likeliest first. So the same seed chooses the same tokens on all backends,
//! but for rounding.

use std::collections::HashSet;

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use super::backend::Draw;

/// Ids of a slice of the vocabulary.
pub const SLICE: usize = 1024;

/// How to choose the next token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplerParams {
    /// 0 takes the likeliest token; larger is freer.
    pub temperature: f32,
    /// Only the k likeliest tokens; 0 for all.
    pub top_k: usize,
    /// Only the likeliest tokens whose probabilities add up to this; 1 for all.
    pub top_p: f32,
    /// What the logits of tokens that are in the text already are divided by where they are positive and multiplied with
    /// where they are negative; 1 for no penalty.
    pub repetition_penalty: f32,
    /// Seed of the choice.
    pub seed: u64,
}

impl SamplerParams {
    /// Whether the likeliest token is always taken, so that only its id has to be known.
    pub fn is_greedy(&self) -> bool {
        self.temperature.is_nan() || self.temperature <= 0.0 || self.top_k == 1
    }

    /// The penalty; 1 where what was asked for is not a positive number.
    pub fn penalty(&self) -> f32 {
        let sound = self.repetition_penalty.is_finite() && self.repetition_penalty > 0.0;
        if sound { self.repetition_penalty } else { 1.0 }
    }

    /// Whether a choice depends on which tokens were there before.
    pub fn penalises(&self) -> bool {
        self.penalty() != 1.0
    }
}

/// A seeded sampler: the same logits and seed give the same tokens on every backend.
#[derive(Debug, Clone)]
pub struct Sampler {
    params: SamplerParams,
    rng: Xoshiro256PlusPlus,
    seen: HashSet<u32>,
}

impl Sampler {
    /// A sampler at the beginning of its random sequence.
    pub fn new(params: SamplerParams) -> Self {
        Self { params, rng: Xoshiro256PlusPlus::seed_from_u64(params.seed), seen: HashSet::new() }
    }

    /// Tells of tokens that are in the text already; those that are chosen here are known.
    pub fn note(&mut self, tokens: &[u32]) {
        if self.params.penalises() {
            self.seen.extend(tokens);
        }
    }

    /// The random number of the next choice, for a backend that chooses by itself.
    pub fn draw(&mut self) -> Draw {
        Draw((self.rng.next_u64() >> 40) as u32)
    }

    /// The parameters.
    pub fn params(&self) -> &SamplerParams {
        &self.params
    }

    /// Chooses from all logits, `[vocab]`. An empty slice gives 0.
    pub fn choose(&mut self, logits: &[f32]) -> u32 {
        let penalised;
        let logits = if self.params.penalises() {
            penalised = self.penalised(logits);
            &penalised
        } else {
            logits
        };
        let id = if self.params.is_greedy() { argmax(logits) } else { self.sample(logits) };
        self.note(&[id]);
        id
    }

    fn penalised(&self, logits: &[f32]) -> Vec<f32> {
        let mut logits = logits.to_vec();
        let penalty = self.params.penalty();
        for &id in &self.seen {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
        logits
    }

    fn sample(&mut self, logits: &[f32]) -> u32 {
        let mut candidates: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
        let k = if self.params.top_k == 0 { candidates.len() } else { self.params.top_k.min(candidates.len()) };
        if (1..candidates.len()).contains(&k) {
            candidates.select_nth_unstable_by(k - 1, by_logit);
            candidates.truncate(k);
        }
        candidates.sort_unstable_by(by_logit);
        self.choose_sorted(&candidates)
    }

    /// Chooses among the top candidates, likeliest first, that a backend has already selected. No penalty is applied.
    pub fn choose_sorted(&mut self, candidates: &[(u32, f32)]) -> u32 {
        let Some(&(best, top)) = candidates.first() else { return 0 };
        if self.params.is_greedy() {
            return best;
        }
        let weight = |logit: f32| (f64::from(logit - top) / f64::from(self.params.temperature)).exp();
        let total: f64 = candidates.iter().map(|(_, logit)| weight(*logit)).sum();
        let mut kept = Vec::new();
        let mut mass = 0.0;
        for &(id, logit) in candidates {
            kept.push((id, logit, weight(logit)));
            mass += weight(logit);
            if mass >= f64::from(self.params.top_p) * total {
                break;
            }
        }
        // Stable: within a slice the likeliest stays first.
        kept.sort_by_key(|(id, ..)| *id as usize / SLICE);
        let mut goal = f64::from(self.draw().uniform()) * mass;
        for &(id, _, weight) in &kept {
            if goal < weight {
                return id;
            }
            goal -= weight;
        }
        best
    }
}

/// Larger logit first; equal ones by id, so that the order does not depend on the sort. NaN comes last.
fn by_logit(a: &(u32, f32), b: &(u32, f32)) -> std::cmp::Ordering {
    let key = |v: f32| if v.is_nan() { f32::NEG_INFINITY } else { v };
    key(b.1).total_cmp(&key(a.1)).then(a.0.cmp(&b.0))
}

/// The id of the largest logit; the first of equals.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = (0u32, f32::NEG_INFINITY);
    for (id, &logit) in (0..).zip(logits) {
        if logit > best.1 {
            best = (id, logit);
        }
    }
    best.0
}

/// Entropy of the softmax of `logits`, nats: the model's own uncertainty about the next token.
pub fn entropy(logits: &[f32]) -> f32 {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (mut sum, mut weighted) = (0f64, 0f64);
    for &logit in logits {
        let shifted = f64::from(logit - top);
        let weight = shifted.exp();
        sum += weight;
        weighted += weight * shifted;
    }
    // H = ln Σe^s − Σ s·e^s / Σe^s.
    (sum.ln() - weighted / sum).max(0.0) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(temperature: f32, top_k: usize, top_p: f32) -> SamplerParams {
        SamplerParams { temperature, top_k, top_p, repetition_penalty: 1.0, seed: 7 }
    }

    #[test]
    fn greedy_takes_the_first_largest() {
        assert_eq!(Sampler::new(params(0.0, 0, 1.0)).choose(&[1.0, 3.0, 3.0, f32::NAN]), 1);
        assert_eq!(Sampler::new(params(f32::NAN, 0, 1.0)).choose(&[1.0, 0.0]), 0);
        assert_eq!(Sampler::new(params(1.0, 0, 1.0)).choose(&[]), 0);
    }

    /// Drawn frequencies against the probabilities computed by hand, at five standard deviations.
    #[test]
    fn frequencies_follow_the_distribution() {
        let logits = [2.0f32, 1.0, 0.0, -1.0];
        for (p, allowed) in [
            (params(1.0, 0, 1.0), 4),
            (params(0.5, 0, 1.0), 4),
            (params(1.0, 2, 1.0), 2),
            // softmax is 0.644, 0.237, 0.087, 0.032: two tokens reach 0.8.
            (params(1.0, 0, 0.8), 2),
            (params(2.0, 3, 0.9), 3),
        ] {
            let weights: Vec<f64> = logits[..allowed].iter().map(|l| f64::from(l / p.temperature).exp()).collect();
            let total: f64 = weights.iter().sum();
            let mut sampler = Sampler::new(p);
            let draws = 40_000;
            let mut counts = [0u32; 4];
            for _ in 0..draws {
                counts[sampler.choose(&logits) as usize] += 1;
            }
            for (id, &count) in counts.iter().enumerate() {
                let expect = weights.get(id).map_or(0.0, |w| w / total);
                let deviation = (expect * (1.0 - expect) / f64::from(draws)).sqrt();
                let got = f64::from(count) / f64::from(draws);
                assert!((got - expect).abs() <= 5.0 * deviation, "{p:?}: token {id} {got} instead of {expect}");
            }
        }
    }

    #[test]
    fn the_seed_decides() {
        let draw = |seed| {
            let mut sampler = Sampler::new(SamplerParams { seed, ..params(1.0, 0, 1.0) });
            (0..32).map(|_| sampler.choose(&[0.0; 16])).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    /// Positive logits shrink, negative ones grow, also of tokens that the sampler chose itself.
    #[test]
    fn repetition_is_penalised() {
        let penalty = |repetition_penalty| SamplerParams { repetition_penalty, ..params(0.0, 0, 1.0) };
        let mut sampler = Sampler::new(penalty(2.0));
        sampler.note(&[0]);
        let logits = [3.0, 2.0, 1.6, -1.0];
        assert_eq!([(); 3].map(|()| sampler.choose(&logits)), [1, 2, 0]);
        let mut sampler = Sampler::new(penalty(2.0));
        sampler.note(&[0]);
        assert_eq!(sampler.choose(&[-1.0, -1.5]), 1);
        for odd in [1.0, 0.0, -3.0, f32::NAN] {
            let mut sampler = Sampler::new(penalty(odd));
            sampler.note(&[0]);
            assert_eq!(sampler.choose(&logits), 0, "{odd}");
        }
    }

    #[test]
    fn entropy_of_known_distributions() {
        assert!((entropy(&[0.5; 8]) - 8f32.ln()).abs() < 1e-6);
        assert!(entropy(&[100.0, 0.0, 0.0]) < 1e-6);
        // p = (3/4, 1/4).
        let expect = 0.75 * (4f32 / 3.0).ln() + 0.25 * 4f32.ln();
        assert!((entropy(&[3f32.ln(), 0.0]) - expect).abs() < 1e-6);
    }
}
