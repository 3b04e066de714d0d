//! What may be asked of a cut, and how a budget is split.

use super::error::EcldError;
use super::score::Options;
use super::spec::Spec;

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
    /// Blocks that stay; `None` for those of [`protected`](super::depth::protected).
    pub protected: Option<Vec<usize>>,
    /// Neurons and channels are left in multiples of this.
    pub align: usize,
    /// How scores are made.
    pub options: Options,
    /// Calibration tokens that the rise of the loss is measured on, whole sequences; a pass for every second block adds up.
    pub loss_tokens: usize,
}

/// Tokens that the rise of the loss is measured on where nothing else is said: the order of blocks hardly changes from 200 on.
pub const LOSS_TOKENS: usize = 256;

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
            loss_tokens: LOSS_TOKENS,
        }
    }
}

/// How much goes in blocks and in neurons for the share `total` of all parameters.
///
/// # Errors
/// There is not as much in them.
pub fn split(spec: &Spec, total: f64, depth_share: f64) -> Result<(Option<Amount>, Option<Amount>), EcldError> {
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
