//! From wishes ("a third of the neurons", "60 % of the bytes") to what stays: scores are taken, blocks go first, neurons are
//! scored again on what is left.

use serde::Serialize;

use super::cut::Keep;
use super::depth::{self, Rise};
use super::error::EcldError;
use super::memo::Memo;
use super::real::Real;
use super::score::Scores;
use super::select;
use super::spec::Model;
use super::wishes::{Amount, DepthBy, Wishes, split};

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

/// Decides what stays of `model`. `tick` hears of the work that was done since the last time, million floating-point
/// operations, and may stop it.
///
/// # Errors
/// A wish leaves nothing or cannot be met in multiples of the alignment, scores are no numbers, or the model cannot be read.
pub fn decide<R: Real>(
    model: &dyn Model<R>,
    memo: &mut Memo<'_>,
    wishes: &Wishes,
    tick: &mut dyn FnMut(u64) -> Result<(), EcldError>,
) -> Result<Decided, EcldError> {
    let spec = model.spec();
    let (depth, neurons) = match wishes.total {
        Some(total) => split(spec, total, wishes.depth_share)?,
        None => (None, None),
    };
    let (depth, neurons) = (wishes.depth.or(depth), wishes.neurons.or(neurons));
    let mut warnings = Vec::new();

    let (layers, dropped) = blocks(model, memo, wishes, depth, tick)?;
    let scores = memo.scores(model, &layers, wishes.options, tick)?;
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
    memo: &mut Memo<'_>,
    wishes: &Wishes,
    depth: Option<Amount>,
    tick: &mut dyn FnMut(u64) -> Result<(), EcldError>,
) -> Result<(Vec<usize>, Vec<Gone>), EcldError> {
    let n = model.spec().layers;
    if let Some(layer) = wishes.drop_layers.iter().find(|layer| **layer >= n) {
        return Err(EcldError::input(format!("there is no block {layer}: they are numbered from 0 to {}", n - 1)));
    }
    let mut gone: Vec<Gone> = wishes.drop_layers.iter().map(|layer| (*layer, None)).collect();
    let protected = wishes.protected.clone().unwrap_or_else(|| depth::protected(n));
    let every: Vec<usize> = (0..n).collect();
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
                    let order = memo.order.take(model, more, tick)?;
                    gone = order.iter().map(|(layer, rise)| (*layer, Some(*rise))).collect();
                }
                DepthBy::Loss => {}
                DepthBy::Influence => {
                    let scores = memo.scores(model, &every, wishes.options, tick)?.layer;
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
                DepthBy::Influence => memo.scores(model, &every, wishes.options, tick)?.layer,
                DepthBy::Loss => {
                    let some = depth::first(memo.sequences, wishes.loss_tokens);
                    let Rise { rise, .. } = depth::rise(model, some, &[], &every, tick)?;
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
