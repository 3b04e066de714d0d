//! What several decisions about one model share: the order in which blocks go, and the scores of what they leave.

use std::ops::Range;
use std::sync::Arc;

use super::depth::{self, Order, Scored};
use super::error::EcldError;
use super::real::Real;
use super::score::{self, Options, Scores};
use super::select;
use super::spec::{Block, Model, Spec};
use super::wishes::{Amount, DepthBy, Wishes, split};

/// A model without some of its blocks.
struct Shallower<'a, R> {
    inner: &'a dyn Model<R>,
    spec: Spec,
    kept: &'a [usize],
}

impl<R: Real> Model<R> for Shallower<'_, R> {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn block(&self, layer: usize) -> Result<Arc<Block<R>>, EcldError> {
        let kept = self.kept.get(layer).ok_or_else(|| EcldError::input(format!("there is no block {layer}")))?;
        self.inner.block(*kept)
    }

    fn embed(&self, tokens: &[u32]) -> Result<Vec<R>, EcldError> {
        self.inner.embed(tokens)
    }

    fn output_norm(&self) -> Result<Vec<R>, EcldError> {
        self.inner.output_norm()
    }

    fn head(&self, rows: Range<usize>) -> Result<Vec<R>, EcldError> {
        self.inner.head(rows)
    }
}

/// What was found about a model on its way to a decision, for the next decisions about it.
#[derive(Debug)]
pub struct Memo<'a> {
    /// The calibration set.
    pub sequences: &'a [Scored],
    plain: Vec<Vec<u32>>,
    /// Of the blocks, by the rise of the loss.
    pub order: Order<'a>,
    /// Scores of the model that is left of these blocks.
    scores: Vec<(Vec<usize>, Scores)>,
}

impl<'a> Memo<'a> {
    /// On `sequences`, for decisions with the same protected blocks, options and tokens for the loss as `wishes`.
    pub fn new(spec: &Spec, sequences: &'a [Scored], wishes: &Wishes) -> Self {
        let protected = wishes.protected.clone().unwrap_or_else(|| depth::protected(spec.layers));
        let order = Order::new(depth::first(sequences, wishes.loss_tokens), protected);
        let plain = sequences.iter().map(|s| s.tokens.clone()).collect();
        Self { sequences, plain, order, scores: Vec::new() }
    }

    fn tokens(&self) -> usize {
        self.plain.iter().map(Vec::len).sum()
    }

    /// The scores of what these blocks make up.
    ///
    /// # Errors
    /// As [`score::scores`].
    pub fn scores<R: Real>(
        &mut self,
        model: &dyn Model<R>,
        layers: &[usize],
        options: Options,
        tick: &mut dyn FnMut(u64) -> Result<(), EcldError>,
    ) -> Result<Scores, EcldError> {
        if let Some((_, scores)) = self.scores.iter().find(|(of, _)| of == layers) {
            return Ok(scores.clone());
        }
        let shallower =
            Shallower { inner: model, spec: Spec { layers: layers.len(), ..model.spec().clone() }, kept: layers };
        let scores = score::scores(&shallower, &self.plain, options, tick)?;
        self.scores.push((layers.to_vec(), scores.clone()));
        Ok(scores)
    }

    /// What [`decide`](super::plan::decide) will tell its `tick` in all for these wishes, about: for a bar.
    pub fn work(&self, spec: &Spec, wishes: &[Wishes]) -> u64 {
        let mut all = 0;
        let mut counts: Vec<usize> = Vec::new();
        for wishes in wishes {
            let split = wishes.total.and_then(|total| split(spec, total, wishes.depth_share).ok());
            let depth = wishes.depth.or(split.and_then(|(depth, _)| depth));
            let mut gone = wishes.drop_layers.len();
            match (depth, wishes.depth_by) {
                (None, _) => {}
                (Some(Amount::Ratio(ratio)), by) => {
                    gone = select::count(spec.layers, ratio, 1).map_or(0, |kept| spec.layers - kept);
                    if by == DepthBy::Influence {
                        all += spec.block_work(self.tokens()) * spec.layers as u64;
                    }
                }
                (Some(Amount::Threshold(_)), DepthBy::Influence) => {
                    all += spec.block_work(self.tokens()) * spec.layers as u64;
                }
                (Some(Amount::Threshold(_)), DepthBy::Loss) => {
                    let every: Vec<usize> = (0..spec.layers).collect();
                    all += depth::work(spec, self.order.sequences(), &[], &every);
                }
            }
            if !counts.contains(&gone) {
                all += spec.block_work(self.tokens()) * (spec.layers - gone.min(spec.layers)) as u64;
                counts.push(gone);
            }
        }
        let deepest = counts.into_iter().max().unwrap_or(0);
        let by_loss = wishes.iter().any(|w| w.depth_by == DepthBy::Loss && w.drop_layers.is_empty());
        all + if by_loss { self.order.work(spec, deepest) } else { 0 }
    }
}
