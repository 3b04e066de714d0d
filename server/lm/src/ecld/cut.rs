//! What a mask does to each tensor (eq. 3, 5 and 7, physically): which rows and columns stay, what is multiplied, how blocks
//! are renumbered. One table for every family and both kinds of file; see [`names`](super::names) for what is what.
//!
//! head_dim is never cut: rotated pairs stay whole, and the order of rows that files differ in lies inside a head, so cutting
//! commutes with it.

use serde::{Deserialize, Serialize};

use super::error::EcldError;
use super::spec::Spec;

/// What stays, by the original model's numbers, ascending. `None`: everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// Blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<usize>>,
    /// FFN neurons of every original block, as many of each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neurons: Option<Vec<Vec<usize>>>,
    /// KV groups of every original block, as many of each; their query heads go with them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<Vec<usize>>>,
    /// Channels of the residual stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embed: Option<Vec<usize>>,
}

/// What a tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Token embedding or output head, `[vocab, dim]`.
    Embedding,
    /// The output head where it is not the embedding, `[vocab, dim]`.
    Output,
    /// RMSNorm over the residual stream, `[dim]`.
    Norm,
    /// The last of them, before the output head.
    OutputNorm,
    /// `[q_dim, dim]`.
    Query,
    /// `[kv_dim, dim]`, keys or values.
    KeyValue,
    /// `[q_dim]`.
    QueryBias,
    /// `[kv_dim]`.
    KeyValueBias,
    /// `[dim, q_dim]`.
    AttentionOut,
    /// `[head_dim]`, shared by all heads: untouched.
    HeadNorm,
    /// `[ffn, dim]`, gate or up.
    Neuron,
    /// `[dim, ffn]`.
    Down,
    /// Something that no mask touches.
    Other,
}

/// What happens to one tensor.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Edit {
    /// Rows (of a vector its elements) that stay; `None` for all.
    pub rows: Option<Vec<usize>>,
    /// Columns that stay; `None` for all.
    pub cols: Option<Vec<usize>>,
    /// Every element is multiplied with this, after `offset` is added and before it is taken away again.
    pub scale: f64,
    /// What stored gains are short of: 1 in Gemma's checkpoints.
    pub offset: f64,
}

impl Edit {
    /// Whether the tensor stays as it is.
    pub fn is_nothing(&self) -> bool {
        self.rows.is_none() && self.cols.is_none() && self.scale == 1.0
    }

    /// The shape of what was `shape`, rows first.
    pub fn shape(&self, shape: &[usize]) -> Vec<usize> {
        let mut shape = shape.to_vec();
        if let (Some(rows), Some(first)) = (&self.rows, shape.first_mut()) {
            *first = rows.len();
        }
        if let (Some(cols), Some(last)) = (&self.cols, shape.last_mut()) {
            *last = cols.len();
        }
        shape
    }

    /// One value after the multiplication.
    pub fn scaled(&self, value: f64) -> f64 {
        (value + self.offset) * self.scale - self.offset
    }
}

/// A cut of one model: what stays, checked, with all that follows from it.
#[derive(Debug, Clone)]
pub struct Cut<'a> {
    spec: &'a Spec,
    keep: &'a Keep,
    /// Whether gains make up for the narrower norm: W ⊙ M's norms divide by the old width.
    correct_norms: bool,
    /// Whether the model multiplies embeddings with the root of its width, which a cut changes (Gemma).
    scales_by_width: bool,
    /// See [`Edit::offset`].
    gain_offset: f64,
}

impl<'a> Cut<'a> {
    /// # Errors
    /// The lists do not fit the model, are not ascending, or keep nothing.
    pub fn new(spec: &'a Spec, keep: &'a Keep, correct_norms: bool) -> Result<Self, EcldError> {
        if let Some(layers) = &keep.layers {
            check("layers", layers, spec.layers)?;
        }
        if let Some(embed) = &keep.embed {
            check("embedding channels", embed, spec.dim)?;
        }
        for (name, lists, of) in [("neurons", &keep.neurons, spec.ffn), ("KV groups", &keep.groups, spec.kv_heads)] {
            let Some(lists) = lists else { continue };
            if lists.len() != spec.layers {
                return Err(EcldError::input(format!(
                    "{name} are listed for {} blocks, the model has {}",
                    lists.len(),
                    spec.layers
                )));
            }
            let size = lists.first().map_or(0, Vec::len);
            for list in lists {
                check(name, list, of)?;
                if list.len() != size {
                    return Err(EcldError::input(format!(
                        "blocks keep {size} and {} {name}: files hold one number",
                        list.len()
                    )));
                }
            }
        }
        Ok(Self { spec, keep, correct_norms, scales_by_width: false, gain_offset: 0.0 })
    }

    /// As Gemma's families want it: embeddings are multiplied with the root of the width, stored gains are short of
    /// `gain_offset`.
    #[must_use]
    pub fn for_gemma(mut self, gain_offset: f64) -> Self {
        self.scales_by_width = true;
        self.gain_offset = gain_offset;
        self
    }

    /// What stays.
    pub fn keep(&self) -> &Keep {
        self.keep
    }

    /// The new number of a block; `None` where it goes.
    pub fn layer(&self, layer: usize) -> Option<usize> {
        match &self.keep.layers {
            None => Some(layer),
            Some(layers) => layers.binary_search(&layer).ok(),
        }
    }

    /// √(d / d′); 1 where the width stays.
    pub fn width_ratio(&self) -> f64 {
        match &self.keep.embed {
            Some(embed) => (self.spec.dim as f64 / embed.len() as f64).sqrt(),
            None => 1.0,
        }
    }

    /// Sizes of the cut model; its ε is corrected with the gains.
    pub fn spec(&self) -> Spec {
        let mut spec = self.spec.clone();
        if let Some(layers) = &self.keep.layers {
            spec.layers = layers.len();
        }
        if let Some(neurons) = self.keep.neurons.as_ref().and_then(|lists| lists.first()) {
            spec.ffn = neurons.len();
        }
        if let Some(groups) = self.keep.groups.as_ref().and_then(|lists| lists.first()) {
            (spec.heads, spec.kv_heads) = (groups.len() * self.spec.rep(), groups.len());
        }
        if let Some(embed) = &self.keep.embed {
            spec.dim = embed.len();
            if self.correct_norms {
                spec.rms_eps *= self.width_ratio().powi(2);
            }
            if self.scales_by_width {
                spec.embedding_scale = (spec.dim as f64).sqrt();
            }
        }
        spec
    }

    /// What happens to a tensor of this kind, of the original block `layer` where it belongs to one; `None` where it goes.
    pub fn edit(&self, kind: Kind, layer: Option<usize>) -> Option<Edit> {
        if let Some(layer) = layer {
            self.layer(layer)?;
        }
        let of = |lists: &Option<Vec<Vec<usize>>>| lists.as_ref()?.get(layer?).cloned();
        let hd = self.spec.head_dim;
        let (groups, neurons) = (of(&self.keep.groups), of(&self.keep.neurons));
        let queries = groups.as_ref().map(|groups| spread(groups, hd * self.spec.rep()));
        let keys = groups.as_ref().map(|groups| spread(groups, hd));
        let embed = self.keep.embed.clone();
        let (rows, cols) = match kind {
            Kind::Embedding | Kind::Output => (None, embed),
            Kind::Norm | Kind::OutputNorm => (embed, None),
            Kind::Query => (queries, embed),
            Kind::KeyValue => (keys, embed),
            Kind::QueryBias => (queries, None),
            Kind::KeyValueBias => (keys, None),
            Kind::AttentionOut => (embed, queries),
            Kind::Neuron => (neurons, embed),
            Kind::Down => (embed, neurons),
            Kind::HeadNorm | Kind::Other => (None, None),
        };
        let ratio = self.width_ratio();
        let mut scale = match kind {
            Kind::Norm | Kind::OutputNorm if self.correct_norms => ratio,
            _ => 1.0,
        };
        if self.scales_by_width {
            match kind {
                // The factor √d of the input becomes √d′.
                Kind::Embedding => scale *= ratio,
                // The tied head has the same larger embedding.
                Kind::OutputNorm => scale /= ratio,
                _ => {}
            }
        }
        // The product of a number with its reciprocal may be off by a bit.
        if (scale - 1.0).abs() < 1e-15 {
            scale = 1.0;
        }
        let offset = if matches!(kind, Kind::Norm | Kind::OutputNorm) { self.gain_offset } else { 0.0 };
        Some(Edit { rows, cols, scale, offset })
    }
}

/// Runs of `width` elements for each of `groups`.
fn spread(groups: &[usize], width: usize) -> Vec<usize> {
    groups.iter().flat_map(|group| group * width..(group + 1) * width).collect()
}

fn check(what: &str, kept: &[usize], of: usize) -> Result<(), EcldError> {
    let ascending = kept.windows(2).all(|pair| pair[0] < pair[1]);
    match kept.last() {
        None => Err(EcldError::input(format!("none of the {what} would stay"))),
        Some(last) if *last >= of => {
            Err(EcldError::input(format!("{what}: there is no number {last}, only {of} of them")))
        }
        Some(_) if !ascending => Err(EcldError::input(format!("{what}: the list is not ascending"))),
        Some(_) => Ok(()),
    }
}

/// `values` `[rows, cols]` after `edit`.
pub fn apply<T: Copy>(edit: &Edit, values: &[T], cols: usize, scaled: impl Fn(&Edit, T) -> T) -> Vec<T> {
    let mut out = Vec::new();
    let mut take = |row: &[T]| {
        let kept = |value: &T| scaled(edit, *value);
        match &edit.cols {
            None => out.extend(row.iter().map(kept)),
            Some(columns) => out.extend(columns.iter().filter_map(|c| row.get(*c)).map(kept)),
        }
    };
    let cols = cols.max(1);
    match &edit.rows {
        None => values.chunks_exact(cols).for_each(&mut take),
        Some(rows) => rows.iter().filter_map(|r| values.get(r * cols..(r + 1) * cols)).for_each(&mut take),
    }
    out
}

/// W ⊙ M of `values` `[rows, cols]`: what [`apply`] would take away is 0 in its place.
pub fn zeroed(edit: Option<&Edit>, values: &[f64], cols: usize) -> Vec<f64> {
    let Some(edit) = edit else { return vec![0.0; values.len()] };
    let kept = |list: &Option<Vec<usize>>, i: usize| list.as_ref().is_none_or(|list| list.binary_search(&i).is_ok());
    let place = |i: usize| (i / cols.max(1), i % cols.max(1));
    let masked = |(i, value): (usize, &f64)| {
        let (row, col) = place(i);
        if kept(&edit.rows, row) && kept(&edit.cols, col) { *value } else { 0.0 }
    };
    values.iter().enumerate().map(masked).collect()
}
