//! The better score of blocks: how much the loss rises when one is left out.
//!
//! The loss counts only trained positions: over whole conversations a block may look harmful that costs a sixth of the right
//! answers. All candidates are computed side by side, block after block, so that a model that is larger than memory is read
//! once a round, and what lies before a left-out block is computed once for all of them.

use serde::{Deserialize, Serialize};

use super::error::EcldError;
use super::forward::{NoTap, Pass, nll};
use super::real::Real;
use super::spec::{Model, Spec, check_sequences};

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

/// The first of `sequences`, whole ones, until there are `tokens` tokens.
pub fn first(sequences: &[Scored], tokens: usize) -> &[Scored] {
    let mut seen = 0;
    let enough = sequences.iter().position(|scored| {
        seen += scored.tokens.len();
        seen >= tokens
    });
    enough.and_then(|last| sequences.get(..=last)).unwrap_or(sequences)
}

/// What [`rise`] will tell its `tick`, million floating-point operations.
pub fn work(spec: &Spec, sequences: &[Scored], removed: &[usize], candidates: &[usize]) -> u64 {
    let tokens: usize = sequences.iter().map(|s| s.tokens.len()).sum();
    let scored: usize = sequences.iter().map(|s| s.targets.iter().flatten().count()).sum();
    let (mut live, mut blocks) = (1, 0);
    for layer in (0..spec.layers).filter(|layer| !removed.contains(layer)) {
        blocks += live;
        live += usize::from(candidates.contains(&layer));
    }
    blocks as u64 * spec.block_work(tokens) + spec.head_work(live * scored, spec.vocab)
}

/// The loss without the blocks `removed`, and by how much it rises when one more of `candidates` goes. `tick` hears of the
/// work that was done since the last time, million floating-point operations, and may stop it.
///
/// # Errors
/// Nothing is scored, the sequences do not fit the model, it cannot be read, or `tick` says stop.
pub fn rise<R: Real>(
    model: &dyn Model<R>,
    sequences: &[Scored],
    removed: &[usize],
    candidates: &[usize],
    tick: &mut dyn FnMut(u64) -> Result<(), EcldError>,
) -> Result<Rise, EcldError> {
    let spec = model.spec();
    check_sequences(spec, sequences.iter().map(|s| s.tokens.as_slice()))?;
    let tokens: Vec<u32> = sequences.iter().flat_map(|s| s.tokens.iter().copied()).collect();
    let targets: Vec<Option<u32>> = sequences.iter().flat_map(|s| s.targets.iter().copied()).collect();
    if targets.iter().flatten().next().is_none() {
        return Err(EcldError::input("no token of the calibration set is scored"));
    }
    let pass = Pass::new(spec, sequences.iter().map(|s| s.tokens.len()));
    let work = spec.block_work(tokens.len());
    let mut base = model.embed(&tokens)?;
    let mut without: Vec<Option<Vec<R>>> = vec![None; spec.layers];
    for layer in (0..spec.layers).filter(|layer| !removed.contains(layer)) {
        let weights = model.block(layer)?;
        for x in without.iter_mut().flatten() {
            pass.block(&weights, x, &mut NoTap);
            tick(work)?;
        }
        if let Some(place) = without.get_mut(layer).filter(|_| candidates.contains(&layer)) {
            *place = Some(base.clone());
        }
        pass.block(&weights, &mut base, &mut NoTap);
        tick(work)?;
    }
    // One list of all, so that the output head is read once.
    let streams: Vec<&[R]> = std::iter::once(&base).chain(without.iter().flatten()).map(Vec::as_slice).collect();
    let all = nll(model, &streams, &targets, tick)?;
    let mut means = all.iter().map(|values| values.iter().sum::<f64>() / values.len().max(1) as f64);
    let mean_nll = means.next().unwrap_or(f64::NAN);
    let rise = without.iter().map(|stream| stream.as_ref().and_then(|_| means.next()).map(|mean| mean - mean_nll));
    Ok(Rise { mean_nll, rise: rise.collect() })
}

/// Blocks in the order in which they go: the cheapest, then the cheapest of what is left, each with the rise of the loss that
/// it costs. What was found is kept, so that a longer order goes on from a shorter one.
#[derive(Debug, Clone)]
pub struct Order<'a> {
    sequences: &'a [Scored],
    protected: Vec<usize>,
    gone: Vec<(usize, f64)>,
}

impl<'a> Order<'a> {
    /// On `sequences`; `protected` blocks stay.
    pub fn new(sequences: &'a [Scored], protected: Vec<usize>) -> Self {
        Self { sequences, protected, gone: Vec::new() }
    }

    /// What the loss is measured on.
    pub fn sequences(&self) -> &'a [Scored] {
        self.sequences
    }

    fn candidates(&self, layers: usize, gone: &[usize]) -> Vec<usize> {
        (0..layers).filter(|l| !self.protected.contains(l) && !gone.contains(l)).collect()
    }

    /// What finding the first `count` will tell its `tick`, as far as it can be known: which blocks go decides it too.
    pub fn work(&self, spec: &Spec, count: usize) -> u64 {
        let mut gone: Vec<usize> = self.gone.iter().map(|(layer, _)| *layer).collect();
        let mut all = 0;
        for _ in gone.len()..count {
            let candidates = self.candidates(spec.layers, &gone);
            all += work(spec, self.sequences, &gone, &candidates);
            gone.extend(candidates.get(candidates.len() / 2));
        }
        all
    }

    /// The first `count`.
    ///
    /// # Errors
    /// As [`rise`]; fewer than `count` blocks may go.
    pub fn take<R: Real>(
        &mut self,
        model: &dyn Model<R>,
        count: usize,
        tick: &mut dyn FnMut(u64) -> Result<(), EcldError>,
    ) -> Result<&[(usize, f64)], EcldError> {
        let layers = model.spec().layers;
        while self.gone.len() < count {
            let gone: Vec<usize> = self.gone.iter().map(|(layer, _)| *layer).collect();
            let found = rise(model, self.sequences, &gone, &self.candidates(layers, &gone), tick)?;
            let ranked = found.rise.iter().enumerate().filter_map(|(layer, rise)| Some((layer, (*rise)?)));
            let Some(next) = ranked.min_by(|left, right| left.1.total_cmp(&right.1)) else {
                return Err(EcldError::input(format!(
                    "{count} blocks cannot go: {} of {layers} are protected",
                    self.protected.len()
                )));
            };
            self.gone.push(next);
        }
        Ok(self.gone.get(..count).unwrap_or_default())
    }
}

/// The blocks that are never left out unless asked for: the first two and the last. Of fewer than eight only the first and the
/// last: of the shipped model's four the second is the one that is missed least.
pub fn protected(layers: usize) -> Vec<usize> {
    let first = if layers < 8 { 1 } else { 2 };
    let mut all: Vec<usize> = (0..first.min(layers)).chain(layers.checked_sub(1)).collect();
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
        assert_eq!(protected(4), [0, 3]);
        let sequences = [Scored::whole(vec![1; 5]), Scored::whole(vec![1; 5]), Scored::whole(vec![1; 5])];
        assert_eq!([0, 5, 6, 15, 99].map(|tokens| first(&sequences, tokens).len()), [1, 1, 2, 3, 3]);
    }
}
