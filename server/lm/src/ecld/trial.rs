//! A cut on trial: the model that a cut would leave, computed without a file being written; and the search over how a budget
//! is split between blocks and neurons, both ends of which are bad on every model that was tried.

use std::ops::Range;
use std::sync::Arc;

use serde::Serialize;

use super::cut::{Cut, Edit, Kind, apply};
use super::depth::{self, Scored};
use super::error::EcldError;
use super::memo::Memo;
use super::plan::{Decided, decide};
use super::real::Real;
use super::spec::{Block, Model, Spec};
use super::wishes::Wishes;

/// Shares of the budget that go in blocks, when they are searched.
pub const SHARES: [f64; 5] = [0.0, 0.2, 1.0 / 3.0, 0.5, 0.65];

/// What `cut` leaves of `inner`.
pub struct Trial<'a, R> {
    inner: &'a dyn Model<R>,
    cut: &'a Cut<'a>,
    spec: Spec,
    /// The original numbers of the blocks that stay.
    layers: Vec<usize>,
}

impl<R> std::fmt::Debug for Trial<'_, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trial").field("cut", &self.cut).finish_non_exhaustive()
    }
}

impl<'a, R: Real> Trial<'a, R> {
    /// `cut` is of the model in memory, whose gains are whole and whose embeddings are scaled: [`Cut::for_gemma`] is for files.
    pub fn new(inner: &'a dyn Model<R>, cut: &'a Cut<'a>) -> Self {
        let layers = (0..inner.spec().layers).filter(|layer| cut.layer(*layer).is_some()).collect();
        Self { inner, cut, spec: cut.spec(), layers }
    }

    fn edited(&self, kind: Kind, layer: Option<usize>, values: &[R], cols: usize) -> Vec<R> {
        match self.cut.edit(kind, layer) {
            Some(edit) => apply(&edit, values, cols, |edit: &Edit, value: R| R::of(edit.scaled(value.wide()))),
            None => Vec::new(),
        }
    }
}

impl<R: Real> Model<R> for Trial<'_, R> {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn block(&self, layer: usize) -> Result<Arc<Block<R>>, EcldError> {
        let old = self.layers.get(layer).ok_or_else(|| EcldError::input(format!("there is no block {layer}")))?;
        let (block, spec) = (self.inner.block(*old)?, self.inner.spec());
        let edited = |kind, values: &[R], cols| self.edited(kind, Some(*old), values, cols);
        Ok(Arc::new(Block {
            attn_norm: edited(Kind::Norm, &block.attn_norm, 1),
            q: edited(Kind::Query, &block.q, spec.dim),
            k: edited(Kind::KeyValue, &block.k, spec.dim),
            v: edited(Kind::KeyValue, &block.v, spec.dim),
            o: edited(Kind::AttentionOut, &block.o, spec.q_dim()),
            bias: block.bias.as_ref().map(|[q, k, v]| {
                let (k, v) = (edited(Kind::KeyValueBias, k, 1), edited(Kind::KeyValueBias, v, 1));
                [edited(Kind::QueryBias, q, 1), k, v]
            }),
            head_norms: block.head_norms.clone(),
            ffn_norm: edited(Kind::Norm, &block.ffn_norm, 1),
            gate: edited(Kind::Neuron, &block.gate, spec.dim),
            up: edited(Kind::Neuron, &block.up, spec.dim),
            down: edited(Kind::Down, &block.down, spec.ffn),
            post_norms: block.post_norms.as_ref().map(|[attn, ffn]| {
                let attn = edited(Kind::Norm, attn, 1);
                [attn, edited(Kind::Norm, ffn, 1)]
            }),
            rotation: block.rotation,
            window: block.window,
        }))
    }

    fn embed(&self, tokens: &[u32]) -> Result<Vec<R>, EcldError> {
        Ok(self.edited(Kind::Embedding, None, &self.inner.embed(tokens)?, self.inner.spec().dim))
    }

    fn output_norm(&self) -> Result<Vec<R>, EcldError> {
        Ok(self.edited(Kind::OutputNorm, None, &self.inner.output_norm()?, 1))
    }

    fn head(&self, rows: Range<usize>) -> Result<Vec<R>, EcldError> {
        Ok(self.edited(Kind::Output, None, &self.inner.head(rows)?, self.inner.spec().dim))
    }
}

/// One split of a budget.
#[derive(Debug, Clone, Serialize)]
pub struct Split {
    /// The share of the budget that went in blocks.
    pub depth_share: f64,
    /// Mean −log p of what is left, nats a token, before any healing.
    pub mean_nll: f64,
    /// What stays.
    #[serde(skip)]
    pub decided: Decided,
}

/// A budget, split each of these ways.
fn each(wishes: &Wishes, shares: &[f64]) -> Vec<Wishes> {
    shares.iter().map(|depth_share| Wishes { depth_share: *depth_share, ..wishes.clone() }).collect()
}

/// What [`search`] will tell its `tick`, about.
pub fn work(spec: &Spec, sequences: &[Scored], wishes: &Wishes, shares: &[f64]) -> u64 {
    let judged = depth::work(spec, sequences, &[], &[]) as f64 * (1.0 - wishes.total.unwrap_or(0.0));
    Memo::new(spec, sequences, wishes).work(spec, &each(wishes, shares)) + (judged * shares.len() as f64) as u64
}

/// Decides `wishes` once for each of `shares`, and measures what each leaves; the best first. Splits that cannot be made (a
/// budget of more neurons than there are) are left out. The order in which blocks go is found once for all of them.
///
/// # Errors
/// There is no budget, none of the splits can be made, or as [`decide`].
pub fn search<R: Real>(
    model: &dyn Model<R>,
    sequences: &[Scored],
    wishes: &Wishes,
    shares: &[f64],
    correct_norms: bool,
    tick: &mut dyn FnMut(u64) -> Result<(), EcldError>,
) -> Result<Vec<Split>, EcldError> {
    if wishes.total.is_none() {
        return Err(EcldError::input("splits are searched of a budget: give a target ratio or target bytes"));
    }
    let mut memo = Memo::new(model.spec(), sequences, wishes);
    let mut splits: Vec<Split> = Vec::new();
    let mut why = None;
    for wishes in each(wishes, shares) {
        let decided = match decide(model, &mut memo, &wishes, tick) {
            Ok(decided) => decided,
            Err(EcldError::Input(problem)) => {
                why = Some(problem);
                continue;
            }
            Err(error) => return Err(error),
        };
        // Of few blocks several shares are the same cut.
        if splits.iter().any(|split| split.decided.keep == decided.keep) {
            continue;
        }
        let cut = Cut::new(model.spec(), &decided.keep, correct_norms)?;
        let trial = Trial::new(model, &cut);
        let mean_nll = depth::rise(&trial, sequences, &[], &[], tick)?.mean_nll;
        splits.push(Split { depth_share: wishes.depth_share, mean_nll, decided });
    }
    splits.sort_by(|left, right| left.mean_nll.total_cmp(&right.mean_nll));
    match (splits.is_empty(), why) {
        (true, why) => Err(EcldError::Input(why.unwrap_or_else(|| "there is no split to try".into()))),
        (false, _) => Ok(splits),
    }
}
