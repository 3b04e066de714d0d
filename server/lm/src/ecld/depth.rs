//! The better score of blocks: how much the loss rises when one is left out.
//!
//! The loss counts only trained positions: over whole conversations a block may look harmful that costs a sixth of the right
//! answers. All candidates are computed side by side, block after block, so that a model that is larger than memory is read
//! once a round, and what lies before a left-out block is computed once for all of them.

use serde::{Deserialize, Serialize};

use super::error::EcldError;
use super::forward::{NoTap, block, nll};
use super::real::Real;
use super::spec::{Model, check_sequences};

/// A sequence of tokens and what is scored of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scored {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// For each of them, the token after it where that counts.
    pub targets: Vec<Option<u32>>,
}

impl Scored {
    /// Every next token counts.
    pub fn whole(tokens: Vec<u32>) -> Self {
        Self::after(tokens, 0)
    }

    /// Only tokens from place `first` on count: what comes before was never trained.
    pub fn after(tokens: Vec<u32>, first: usize) -> Self {
        let next = tokens.iter().skip(1).enumerate().map(|(i, token)| (i + 1 >= first).then_some(*token));
        let targets = next.chain([None]).take(tokens.len()).collect();
        Self { tokens, targets }
    }
}

/// What leaving out blocks costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rise {
    /// Mean −log p without any more blocks left out, nats a token.
    pub mean_nll: f64,
    /// By how much it rises without each block; `None` for one that is already out, or was not asked about.
    pub rise: Vec<Option<f64>>,
}

/// The loss without the blocks `removed`, and by how much it rises when one more of `candidates` goes.
///
/// # Errors
/// Nothing is scored, the sequences do not fit the model, it cannot be read, or `tick` says stop.
pub fn rise<R: Real>(
    model: &dyn Model<R>,
    sequences: &[Scored],
    removed: &[usize],
    candidates: &[usize],
    tick: &mut dyn FnMut() -> Result<(), EcldError>,
) -> Result<Rise, EcldError> {
    let spec = model.spec();
    check_sequences(spec, sequences.iter().map(|s| s.tokens.as_slice()))?;
    let mut base = sequences.iter().map(|s| model.embed(&s.tokens)).collect::<Result<Vec<_>, _>>()?;
    let mut without: Vec<Option<Vec<Vec<R>>>> = vec![None; spec.layers];
    for layer in (0..spec.layers).filter(|layer| !removed.contains(layer)) {
        let weights = model.block(layer)?;
        for streams in without.iter_mut().flatten() {
            for x in streams {
                block(spec, &weights, x, &mut NoTap);
            }
        }
        if candidates.contains(&layer) {
            without[layer] = Some(base.clone());
        }
        for x in &mut base {
            block(spec, &weights, x, &mut NoTap);
        }
        tick()?;
    }
    // One list of all, so that the output head is read once.
    let mut scored: Vec<(&[R], &[Option<u32>])> = Vec::new();
    for streams in std::iter::once(&base).chain(without.iter().flatten()) {
        scored.extend(streams.iter().zip(sequences).map(|(x, s)| (x.as_slice(), s.targets.as_slice())));
    }
    let all = nll(model, &scored)?;
    let mut means = Vec::new();
    for of_one in all.chunks(sequences.len()) {
        let (sum, n) = of_one.iter().flatten().fold((0.0, 0usize), |(sum, n), value| (sum + value, n + 1));
        if n == 0 {
            return Err(EcldError::input("no token of the calibration set is scored"));
        }
        means.push(sum / n as f64);
    }
    let mut means = means.into_iter();
    let mean_nll = means.next().unwrap_or(f64::NAN);
    let mut left_out =
        |streams: &Option<Vec<Vec<R>>>| streams.as_ref().and_then(|_| means.next()).map(|m| m - mean_nll);
    let all: Vec<Option<f64>> = without.iter().map(&mut left_out).collect();
    Ok(Rise { mean_nll, rise: all })
}

/// Blocks in the order in which they go: the cheapest, then the cheapest of what is left, `count` of them. `protected` stay.
///
/// # Errors
/// As [`rise`]; fewer than `count` blocks may go.
pub fn order<R: Real>(
    model: &dyn Model<R>,
    sequences: &[Scored],
    protected: &[usize],
    count: usize,
    tick: &mut dyn FnMut() -> Result<(), EcldError>,
) -> Result<Vec<(usize, f64)>, EcldError> {
    let mut gone: Vec<usize> = Vec::new();
    let mut order = Vec::new();
    for _ in 0..count {
        let candidates: Vec<usize> =
            (0..model.spec().layers).filter(|l| !protected.contains(l) && !gone.contains(l)).collect();
        let found = rise(model, sequences, &gone, &candidates, tick)?;
        let ranked = found.rise.iter().enumerate().filter_map(|(layer, rise)| Some((layer, (*rise)?)));
        let Some((layer, rise)) = ranked.min_by(|left, right| left.1.total_cmp(&right.1)) else {
            return Err(EcldError::input(format!(
                "{count} blocks cannot go: {} of {} are protected",
                protected.len(),
                model.spec().layers
            )));
        };
        gone.push(layer);
        order.push((layer, rise));
    }
    Ok(order)
}

/// The blocks that are never left out unless asked for: the first two and the last.
pub fn protected(layers: usize) -> Vec<usize> {
    let mut all = vec![0, 1, layers.saturating_sub(1)];
    all.retain(|layer| *layer < layers);
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_trained_is_scored() {
        let scored = Scored::after(vec![5, 6, 7, 8], 2);
        assert_eq!(scored.targets, [None, Some(7), Some(8), None]);
        assert_eq!(Scored::whole(vec![5, 6]).targets, [Some(6), None]);
        assert_eq!(Scored::whole(vec![]).targets, []);
        assert_eq!((protected(1), protected(2), protected(9)), (vec![0], vec![0, 1], vec![0, 1, 8]));
    }
}
