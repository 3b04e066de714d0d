//! Choosing the next token from the logits: greedy, or by temperature, min-p, top-k and top-p with a seed, with penalties on
//! repetition and with biases.
//!
//! What is done to the logits, in this order: the repetition penalty (CTRL, arXiv 1909.05858, eq. 11) for tokens of the
//! prompt and the text, presence and frequency penalties (OpenAI's formula) for tokens of the text, the bias, the
//! temperature, min-p, top-k, top-p. Log-probabilities are those of the model's own logits, before any of it.
//!
//! A draw walks over the candidates that are kept in an order that a GPU can follow without sorting the vocabulary: by
//! slices of [`SLICE`] ids, within a slice the likeliest first. So the same seed chooses the same tokens on all backends,
//! but for rounding.

use std::collections::{HashMap, HashSet};

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use super::error::EngineError;

/// A random number that decides one choice: 24 bits, a uniform number in [0, 1) that single precision holds exactly, so
/// that it means the same on every device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Draw(pub u32);

impl Draw {
    /// The number, in [0, 1).
    pub fn uniform(self) -> f32 {
        (self.0 & 0xff_ffff) as f32 / (1u32 << 24) as f32
    }
}

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

/// What a choice depends on that no device knows of: where there is any of it, all logits are fetched and chosen from here.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shaping {
    /// Only tokens at least this share as likely as the likeliest; 0 for all.
    pub min_p: f32,
    /// What the logits of tokens that are in the text (not in the prompt) lose; 0 for nothing.
    pub presence_penalty: f32,
    /// What they lose for each time that they are there.
    pub frequency_penalty: f32,
    /// What is added to the logits of tokens; minus infinity rules a token out.
    pub logit_bias: Vec<(u32, f32)>,
    /// How many of the likeliest tokens are told with each one chosen; `None` for no log-probabilities at all.
    pub top_logprobs: Option<usize>,
}

impl Shaping {
    /// Whether it changes and tells nothing.
    pub fn is_none(&self) -> bool {
        let idle = |value: f32| value == 0.0 || value.is_nan();
        (self.min_p.is_nan() || self.min_p <= 0.0)
            && idle(self.presence_penalty)
            && idle(self.frequency_penalty)
            && self.logit_bias.is_empty()
            && self.top_logprobs.is_none()
    }
}

/// How likely the model itself holds a chosen token and its likeliest ones, whatever was done to choose: natural
/// logarithms.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TokenLogprobs {
    /// Of the token.
    pub logprob: f32,
    /// Of as many of the likeliest as were asked for, likeliest first; equal ones by id.
    pub top: Vec<(u32, f32)>,
}

impl TokenLogprobs {
    /// Of token `id`, and the `count` likeliest.
    pub fn of(logits: &[f32], id: u32, count: usize) -> Self {
        let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|logit| f64::from(logit - top).exp()).sum();
        let logprob = |logit: f32| (f64::from(logit - top) - sum.ln()) as f32;
        Self {
            logprob: logits.get(id as usize).map_or(f32::NEG_INFINITY, |logit| logprob(*logit)),
            top: top_of(logits, count).into_iter().map(|(id, logit)| (id, logprob(logit))).collect(),
        }
    }
}

/// A seeded sampler: the same logits and seed give the same tokens on every backend.
#[derive(Debug, Clone)]
pub struct Sampler {
    params: SamplerParams,
    shaping: Shaping,
    rng: Xoshiro256PlusPlus,
    seen: HashSet<u32>,
    /// How often each token was chosen here.
    chosen: HashMap<u32, u32>,
}

impl Sampler {
    /// A sampler at the beginning of its random sequence.
    pub fn new(params: SamplerParams) -> Self {
        Self::shaped(params, Shaping::default())
    }

    /// As [`new`](Self::new), with more that a choice depends on.
    pub fn shaped(params: SamplerParams, shaping: Shaping) -> Self {
        let rng = Xoshiro256PlusPlus::seed_from_u64(params.seed);
        Self { params, shaping, rng, seen: HashSet::new(), chosen: HashMap::new() }
    }

    /// Tells of tokens that are in the text already; those that are chosen here are known.
    pub fn note(&mut self, tokens: &[u32]) {
        if self.params.penalises() {
            self.seen.extend(tokens);
        }
    }

    /// What no device knows of.
    pub fn shaping(&self) -> &Shaping {
        &self.shaping
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
        let shaped = self.shaped_logits(logits);
        self.choose_from(shaped.as_deref().unwrap_or(logits))
    }

    /// As [`choose`](Self::choose), with log-probabilities where they are asked for.
    ///
    /// # Errors
    /// [`EngineError::Numbers`]: there are no logits, one is NaN or infinite, or the bias rules out every token.
    /// A computation that has gone wrong must not look like an answer.
    pub fn choose_sound(&mut self, logits: &[f32]) -> Result<(u32, Option<TokenLogprobs>), EngineError> {
        let wrong = |what: &str| Err(EngineError::Numbers(what.to_owned()));
        // Minus infinity alone is a number here: it rules a token out.
        if logits.iter().any(|logit| logit.is_nan() || *logit == f32::INFINITY) {
            return wrong(
                "a logit is not a finite number; the model's weights are damaged, or its numbers are too large",
            );
        }
        if !logits.iter().any(|logit| logit.is_finite()) {
            return wrong("no logit is a finite number; the model's weights are damaged, or its numbers are too large");
        }
        let shaped = self.shaped_logits(logits);
        if shaped.as_ref().is_some_and(|shaped| !shaped.iter().any(|logit| logit.is_finite())) {
            return wrong("the logit bias rules out every token");
        }
        let id = self.choose_from(shaped.as_deref().unwrap_or(logits));
        Ok((id, self.shaping.top_logprobs.map(|count| TokenLogprobs::of(logits, id, count))))
    }

    fn choose_from(&mut self, logits: &[f32]) -> u32 {
        let id = if self.params.is_greedy() { argmax(logits) } else { self.sample(logits) };
        self.note(&[id]);
        if self.shaping.presence_penalty != 0.0 || self.shaping.frequency_penalty != 0.0 {
            *self.chosen.entry(id).or_default() += 1;
        }
        id
    }

    /// The logits with penalties and bias; `None` where there are none of these.
    fn shaped_logits(&self, logits: &[f32]) -> Option<Vec<f32>> {
        if !self.params.penalises() && self.chosen.is_empty() && self.shaping.logit_bias.is_empty() {
            return None;
        }
        let mut logits = logits.to_vec();
        let penalty = self.params.penalty();
        for &id in &self.seen {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
        let finite = |value: f32| if value.is_finite() { value } else { 0.0 };
        let (presence, frequency) = (finite(self.shaping.presence_penalty), finite(self.shaping.frequency_penalty));
        for (&id, &times) in &self.chosen {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit -= presence + frequency * times as f32;
            }
        }
        for &(id, bias) in &self.shaping.logit_bias {
            if let Some(logit) = logits.get_mut(id as usize)
                && (bias.is_finite() || bias == f32::NEG_INFINITY)
            {
                *logit += bias;
            }
        }
        Some(logits)
    }

    fn sample(&mut self, logits: &[f32]) -> u32 {
        let k = if self.params.top_k == 0 { logits.len() } else { self.params.top_k };
        let mut candidates = top_of(logits, k);
        let min_p = self.shaping.min_p;
        if let Some(&(_, top)) = candidates.first()
            && min_p > 0.0
        {
            // p ≥ min_p · p_top, with p ∝ exp(logit / temperature).
            let least = f64::from(top) + f64::from(self.params.temperature) * f64::from(min_p.min(1.0)).ln();
            let kept = candidates.partition_point(|(_, logit)| f64::from(*logit) >= least);
            candidates.truncate(kept.max(1));
        }
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

/// The `count` largest logits, largest first.
fn top_of(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    let mut candidates: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
    let count = count.min(candidates.len());
    if (1..candidates.len()).contains(&count) {
        candidates.select_nth_unstable_by(count - 1, by_logit);
    }
    candidates.truncate(count);
    candidates.sort_unstable_by(by_logit);
    candidates
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
#[path = "sampler_tests.rs"]
mod tests;
