//! From wishes ("a third of the neurons", "60 % of the bytes") to what stays: scores are taken, blocks go first, neurons are
//! scored again on what is left.

use std::ops::Range;
use std::sync::Arc;

use serde::Serialize;

use super::cut::Keep;
use super::depth::{self, Rise, Scored};
use super::error::EcldError;
use super::real::Real;
use super::score::{self, Options, Scores};
use super::select;
use super::spec::{Block, Model, Spec};

/// How much of one axis goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amount {
    /// This share, 0 to 1.
    Ratio(f64),
    /// What scores less than this, in units of the axis' mean score.
    Threshold(f64),
}

/// How blocks are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DepthBy {
    /// By the rise of the loss without them, scored again after every one that goes.
    Loss,
    /// By block influence, once: cheap.
    Influence,
}

/// What is wished for.
#[derive(Debug, Clone)]
pub struct Wishes {
    /// Blocks.
    pub depth: Option<Amount>,
    /// These blocks, whatever they score.
    pub drop_layers: Vec<usize>,
    /// FFN neurons.
    pub neurons: Option<Amount>,
    /// KV groups with their query heads.
    pub groups: Option<Amount>,
    /// Channels of the residual stream.
    pub embed: Option<Amount>,
    /// This share of the parameters, in blocks and neurons.
    pub total: Option<f64>,
    /// The share of `total` that goes in blocks.
    pub depth_share: f64,
    /// How blocks are chosen.
    pub depth_by: DepthBy,
    /// Blocks that stay; `None` for the first two and the last.
    pub protected: Option<Vec<usize>>,
    /// Neurons and channels are left in multiples of this.
    pub align: usize,
    /// How scores are made.
    pub options: Options,
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            depth: None,
            drop_layers: Vec::new(),
            neurons: None,
            groups: None,
            embed: None,
            total: None,
            depth_share: 1.0 / 3.0,
            depth_by: DepthBy::Loss,
            protected: None,
            align: 32,
            options: Options::default(),
        }
    }
}

/// What was decided, and why.
#[derive(Debug, Clone, Serialize)]
pub struct Decided {
    /// What stays.
    pub keep: Keep,
    /// Scores, those of neurons on what the missing blocks leave.
    pub scores: Scores,
    /// Blocks that went, with the rise of the loss that each cost, nats a token, where that was measured.
    pub dropped: Vec<(usize, Option<f64>)>,
    /// What whoever asked should know.
    pub warnings: Vec<String>,
}

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

/// Decides what stays of `model`, on `sequences`. `tick` is called after every block that was computed, and may stop it.
///
/// # Errors
/// A wish leaves nothing or cannot be met in multiples of the alignment, scores are no numbers, or the model cannot be read.
pub fn decide<R: Real>(
    model: &dyn Model<R>,
    sequences: &[Scored],
    wishes: &Wishes,
    tick: &mut dyn FnMut() -> Result<(), EcldError>,
) -> Result<Decided, EcldError> {
    let spec = model.spec();
    let (depth, neurons) = match wishes.total {
        Some(total) => split(spec, total, wishes.depth_share)?,
        None => (None, None),
    };
    let (depth, neurons) = (wishes.depth.or(depth), wishes.neurons.or(neurons));
    let plain: Vec<Vec<u32>> = sequences.iter().map(|s| s.tokens.clone()).collect();
    let mut warnings = Vec::new();

    let (layers, dropped) = blocks(model, sequences, &plain, wishes, depth, tick)?;
    let shallower = Shallower { inner: model, spec: Spec { layers: layers.len(), ..spec.clone() }, kept: &layers };
    let scores = score::scores(&shallower, &plain, wishes.options, tick)?;
    let mut keep = Keep::default();
    if layers.len() < spec.layers {
        keep.layers = Some(layers.clone());
    }
    // Lists are by the original's numbers; what goes with its block is not asked about.
    let spread = |lists: Vec<Vec<usize>>| -> Vec<Vec<usize>> {
        let size = lists.first().map_or(0, Vec::len);
        let mut all = vec![(0..size).collect::<Vec<usize>>(); spec.layers];
        for (list, layer) in lists.into_iter().zip(&layers) {
            if let Some(place) = all.get_mut(*layer) {
                *place = list;
            }
        }
        all
    };
    if let Some(amount) = neurons {
        let lists = each("neurons", &scores.neuron, amount, wishes.align, spec.ffn, &mut warnings)?;
        keep.neurons = Some(spread(lists));
    }
    if let Some(amount) = wishes.groups {
        if spec.kv_heads < 2 {
            return Err(EcldError::input("the model has one KV group: none of it can go"));
        }
        if spec.kv_heads < 4 {
            warnings.push(format!(
                "with {} KV groups the smallest step is 1/{} of the attention: neurons give the same bytes for less",
                spec.kv_heads, spec.kv_heads
            ));
        }
        keep.groups = Some(spread(each("KV groups", &scores.group, amount, 1, spec.kv_heads, &mut warnings)?));
    }
    if let Some(amount) = wishes.embed {
        let lists = [scores.embed.clone()];
        let lists = each("channels", &lists, amount, wishes.align, spec.dim, &mut warnings)?;
        keep.embed = lists.into_iter().next();
    }
    Ok(Decided { keep, scores, dropped, warnings })
}

/// A block that goes, and what it costs where that was measured.
type Gone = (usize, Option<f64>);

/// Which blocks stay, and what each that goes costs.
fn blocks<R: Real>(
    model: &dyn Model<R>,
    sequences: &[Scored],
    plain: &[Vec<u32>],
    wishes: &Wishes,
    depth: Option<Amount>,
    tick: &mut dyn FnMut() -> Result<(), EcldError>,
) -> Result<(Vec<usize>, Vec<Gone>), EcldError> {
    let n = model.spec().layers;
    if let Some(layer) = wishes.drop_layers.iter().find(|layer| **layer >= n) {
        return Err(EcldError::input(format!("there is no block {layer}: they are numbered from 0 to {}", n - 1)));
    }
    let mut gone: Vec<Gone> = wishes.drop_layers.iter().map(|layer| (*layer, None)).collect();
    let protected = wishes.protected.clone().unwrap_or_else(|| depth::protected(n));
    match depth {
        None => {}
        Some(Amount::Ratio(ratio)) => {
            let count = n - select::count(n, ratio, 1)?;
            let more = count.saturating_sub(gone.len());
            match wishes.depth_by {
                DepthBy::Loss if more > 0 => {
                    if !gone.is_empty() {
                        return Err(EcldError::input("give either blocks to drop or a share of them, not both"));
                    }
                    let order = depth::order(model, sequences, &protected, more, tick)?;
                    gone = order.into_iter().map(|(layer, rise)| (layer, Some(rise))).collect();
                }
                DepthBy::Loss => {}
                DepthBy::Influence => {
                    let scores = score::scores(model, plain, wishes.options, tick)?.layer;
                    let mut order: Vec<(usize, f64)> = scores.into_iter().enumerate().collect();
                    order.retain(|(l, _)| !protected.contains(l) && !gone.iter().any(|(g, _)| g == l));
                    // Of equals the lower index stays.
                    order.sort_by(|left, right| left.1.total_cmp(&right.1).then(right.0.cmp(&left.0)));
                    if order.len() < more {
                        return Err(EcldError::input(format!("only {} blocks are not protected", order.len())));
                    }
                    gone.extend(order.into_iter().take(more).map(|(layer, _)| (layer, None)));
                }
            }
        }
        Some(Amount::Threshold(theta)) => {
            let scores: Vec<f64> = match wishes.depth_by {
                DepthBy::Influence => score::scores(model, plain, wishes.options, tick)?.layer,
                DepthBy::Loss => {
                    let all: Vec<usize> = (0..n).collect();
                    let Rise { rise, .. } = depth::rise(model, sequences, &[], &all, tick)?;
                    rise.into_iter().map(|rise| rise.unwrap_or(f64::INFINITY)).collect()
                }
            };
            let kept = select::by_threshold(&scores, theta, true)?;
            let goes = (0..n).filter(|l| !kept.contains(l) && !protected.contains(l));
            gone.extend(goes.map(|layer| (layer, None)).collect::<Vec<_>>());
        }
    }
    let layers: Vec<usize> = (0..n).filter(|layer| !gone.iter().any(|(g, _)| g == layer)).collect();
    match layers.is_empty() {
        true => Err(EcldError::input("no block would stay")),
        false => Ok((layers, gone)),
    }
}

/// What stays of each list, as many of each.
fn each(
    what: &str,
    lists: &[Vec<f64>],
    amount: Amount,
    align: usize,
    n: usize,
    warnings: &mut Vec<String>,
) -> Result<Vec<Vec<usize>>, EcldError> {
    let kept = match amount {
        Amount::Ratio(ratio) => select::count(n, ratio, align)?,
        Amount::Threshold(theta) => {
            // Files hold one number: the mean over the blocks.
            let sum = lists.iter().map(|list| select::by_threshold(list, theta, true).map(|kept| kept.len()));
            let sum = sum.sum::<Result<usize, EcldError>>()?;
            let share = sum as f64 / lists.len().max(1) as f64 / n as f64;
            select::count(n, (1.0 - share).max(0.0), align)?
        }
    };
    if !kept.is_multiple_of(align) && kept < n {
        return Err(EcldError::input(format!(
            "{what}: {kept} of {n} is no multiple of {align}; choose another --align"
        )));
    }
    if lists.iter().any(|list| select::all_equal(list)) {
        warnings.push(format!("{what}: all scores of a block are equal, so indices decide"));
    }
    lists.iter().map(|list| select::best(list, kept)).collect()
}

/// How much goes in blocks and in neurons for the share `total` of all parameters.
fn split(spec: &Spec, total: f64, depth_share: f64) -> Result<(Option<Amount>, Option<Amount>), EcldError> {
    if !(0.0..1.0).contains(&total) || !(0.0..=1.0).contains(&depth_share) {
        return Err(EcldError::input(format!("{total} of the parameters cannot go, {depth_share} of that in blocks")));
    }
    let attention = 2 * spec.dim * (spec.q_dim() + spec.kv_dim());
    let ffn = 3 * spec.dim * spec.ffn;
    let block = (attention + ffn) as f64;
    let all = block * spec.layers as f64 + (spec.vocab * spec.dim) as f64;
    let blocks = (total * all * depth_share / block + 0.5).floor().min(spec.layers as f64 - 1.0);
    let left = (total * all - blocks * block).max(0.0) / (ffn as f64 * (spec.layers as f64 - blocks));
    if left >= 1.0 {
        return Err(EcldError::input(format!(
            "{:.0} % of the parameters are more than blocks and neurons have: give more of it to the blocks (--depth-share), \
             or cut channels too",
            100.0 * total
        )));
    }
    let depth = (blocks > 0.0).then(|| Amount::Ratio(blocks / spec.layers as f64));
    Ok((depth, (left > 0.0).then_some(Amount::Ratio(left))))
}
