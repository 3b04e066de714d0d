//! From a blueprint and a file's tensors to [`ModelWeights`]: the same way for GGUF and for safetensors, which differ in
//! the names of things and in the order of the rows of queries and keys.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::config::Blueprint;
use super::error::EngineError;
use super::gguf::{Gguf, TensorInfo};
use super::quant;
use super::weights::{LayerTraits, LayerWeights, Matrix, ModelWeights};

/// What the parts are called. Those of a block follow `block` and its number; weights end in `.weight`, biases in `.bias`.
pub(super) struct Names {
    embedding: &'static str,
    output_norm: &'static str,
    output: &'static str,
    block: &'static str,
    attn_norm: &'static str,
    /// Queries, keys, values.
    qkv: [&'static str; 3],
    o: &'static str,
    /// Norms of query and key heads.
    head_norms: [&'static str; 2],
    ffn_norm: &'static str,
    gate: &'static str,
    up: &'static str,
    down: &'static str,
    /// Endings of tensors that hold nothing that the metadata does not say.
    redundant: &'static [&'static str],
}

pub(super) const GGUF_NAMES: Names = Names {
    embedding: "token_embd",
    output_norm: "output_norm",
    output: "output",
    block: "blk.",
    attn_norm: "attn_norm",
    qkv: ["attn_q", "attn_k", "attn_v"],
    o: "attn_output",
    head_norms: ["attn_q_norm", "attn_k_norm"],
    ffn_norm: "ffn_norm",
    gate: "ffn_gate",
    up: "ffn_up",
    down: "ffn_down",
    redundant: &["rope_freqs.weight", "attn_rot_embd", "rotary_emb.inv_freq"],
};

pub(super) const HF_NAMES: Names = Names {
    embedding: "model.embed_tokens",
    output_norm: "model.norm",
    output: "lm_head",
    block: "model.layers.",
    attn_norm: "input_layernorm",
    qkv: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    o: "self_attn.o_proj",
    head_norms: ["self_attn.q_norm", "self_attn.k_norm"],
    ffn_norm: "post_attention_layernorm",
    gate: "mlp.gate_proj",
    up: "mlp.up_proj",
    down: "mlp.down_proj",
    redundant: &["rotary_emb.inv_freq"],
};

/// A file's tensors.
pub(super) trait Source<'a> {
    /// All names.
    fn names(&self) -> Vec<&str>;

    /// The matrix `name` of `rows` outputs and `cols` inputs, its rows rearranged by `order` where one is given.
    ///
    /// # Errors
    /// It is missing, or has another shape.
    fn matrix(&self, name: &str, rows: usize, cols: usize, order: Option<&RowOrder>)
    -> Result<Matrix<'a>, EngineError>;

    /// The vector `name` in single precision.
    ///
    /// # Errors
    /// It is missing, or has another length.
    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, EngineError>;
}

/// Brings the elements of heads from the half-split order, where RoPE rotates i with i + dim/2, to neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowOrder {
    /// Elements of a head.
    pub head_dim: usize,
    /// How many of them are rotated; the others stay where they are, behind those.
    pub rope_dim: usize,
}

impl RowOrder {
    /// Moves row i of each head to place 2i and row i + rope_dim/2 to place 2i + 1. `values` is `[heads · head_dim,
    /// width]`: elements of any kind, `width` of them a row (bytes of a stored matrix, numbers of a vector with width 1).
    pub fn neighbours<T: Copy>(&self, values: &[T], width: usize) -> Vec<T> {
        let mut out = Vec::with_capacity(values.len());
        for head in values.chunks_exact((self.head_dim * width).max(1)) {
            let (rotated, rest) = head.split_at((self.rope_dim * width).min(head.len()));
            let (first, second) = rotated.split_at(rotated.len() / 2);
            for (a, b) in first.chunks_exact(width.max(1)).zip(second.chunks_exact(width.max(1))) {
                out.extend_from_slice(a);
                out.extend_from_slice(b);
            }
            out.extend_from_slice(rest);
        }
        out
    }
}

struct Assembly<'s, S> {
    names: &'static Names,
    source: &'s S,
    present: BTreeSet<String>,
    used: BTreeSet<String>,
    order: Option<RowOrder>,
}

/// Takes the tensors that `plan` describes.
///
/// # Errors
/// A tensor is missing, has another shape, or is one that this engine would not use: a file with such a tensor wants a
/// computation that is not made here.
pub(super) fn assemble<'a, S: Source<'a>>(
    plan: Blueprint,
    names: &'static Names,
    source: &S,
) -> Result<ModelWeights<'a>, EngineError> {
    let config = &plan.config;
    let order = RowOrder { head_dim: config.head_dim, rope_dim: config.rope.dim };
    let mut assembly = Assembly {
        names,
        source,
        present: source.names().into_iter().map(str::to_owned).collect(),
        used: BTreeSet::new(),
        order: plan.half_split.then_some(order),
    };
    let mut layers = Vec::new();
    for layer in 0..config.layers {
        layers.push(assembly.layer(&plan, layer)?);
    }
    let output = format!("{}.weight", names.output);
    // Some files repeat a tied head; some configs do not say whether it is tied, and then the list of tensors does.
    let output = match plan.tied {
        Some(true) => {
            assembly.used.insert(output);
            None
        }
        None if !assembly.present.contains(&output) => None,
        _ => Some(assembly.matrix(&output, config.vocab, config.dim, None)?),
    };
    let embedding = assembly.matrix(&format!("{}.weight", names.embedding), config.vocab, config.dim, None)?;
    let output_norm = assembly.vector(&format!("{}.weight", names.output_norm), config.dim)?;
    assembly.refuse_unused()?;
    Ok(ModelWeights { embedding, output_norm, layers, output, config: plan.config })
}

impl<'a, S: Source<'a>> Assembly<'_, S> {
    fn matrix(
        &mut self,
        name: &str,
        rows: usize,
        cols: usize,
        order: Option<RowOrder>,
    ) -> Result<Matrix<'a>, EngineError> {
        self.used.insert(name.to_owned());
        self.source.matrix(name, rows, cols, order.as_ref())
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, EngineError> {
        self.used.insert(name.to_owned());
        self.source.vector(name, len)
    }

    fn layer(&mut self, plan: &Blueprint, layer: usize) -> Result<LayerWeights<'a>, EngineError> {
        let (config, names, order) = (&plan.config, self.names, self.order);
        let name = |part: &str| format!("{}{layer}.{part}.weight", names.block);
        let (dim, q_dim, kv_dim) = (config.dim, config.q_dim(), config.kv_dim());
        let [q, k, v] = names.qkv;
        Ok(LayerWeights {
            attn_norm: self.vector(&name(names.attn_norm), dim)?,
            q: self.matrix(&name(q), q_dim, dim, order)?,
            k: self.matrix(&name(k), kv_dim, dim, order)?,
            v: self.matrix(&name(v), kv_dim, dim, None)?,
            o: self.matrix(&name(names.o), dim, q_dim, None)?,
            ffn_norm: self.vector(&name(names.ffn_norm), dim)?,
            gate: self.matrix(&name(names.gate), config.ffn, dim, None)?,
            up: self.matrix(&name(names.up), config.ffn, dim, None)?,
            down: self.matrix(&name(names.down), dim, config.ffn, None)?,
            traits: self.traits(plan, layer)?,
        })
    }

    fn traits(&mut self, plan: &Blueprint, layer: usize) -> Result<LayerTraits, EngineError> {
        let (config, names, order) = (&plan.config, self.names, self.order);
        let arrange = |values: Vec<f32>| match order {
            Some(order) => order.neighbours(&values, 1),
            None => values,
        };
        let biases = names.qkv.map(|part| format!("{}{layer}.{part}.bias", names.block));
        let mut qkv_bias = None;
        if plan.qkv_bias || biases.iter().any(|name| self.present.contains(name)) {
            let [q, k, v] = biases;
            let mut bias = arrange(self.vector(&q, config.q_dim())?);
            bias.extend(arrange(self.vector(&k, config.kv_dim())?));
            bias.extend(self.vector(&v, config.kv_dim())?);
            qkv_bias = Some(bias);
        }
        let mut norms = [None, None];
        if plan.qk_norm {
            for (norm, part) in norms.iter_mut().zip(names.head_norms) {
                *norm = Some(arrange(self.vector(&format!("{}{layer}.{part}.weight", names.block), config.head_dim)?));
            }
        }
        let [q_norm, k_norm] = norms;
        let place = plan.layers.get(layer).copied();
        let place = place.ok_or_else(|| EngineError::Inconsistent(format!("nothing is said of block {layer}")))?;
        Ok(LayerTraits { qkv_bias, q_norm, k_norm, rope: place.rope, window: place.window })
    }

    fn refuse_unused(&self) -> Result<(), EngineError> {
        let foreign = self
            .present
            .difference(&self.used)
            .find(|name| !self.names.redundant.iter().any(|ending| name.contains(ending)));
        match foreign {
            Some(name) => Err(EngineError::Unsupported(format!(
                "tensor {name:?} belongs to a computation that this engine does not have"
            ))),
            None => Ok(()),
        }
    }
}

impl<'a> ModelWeights<'a> {
    /// Takes the tensors of a GGUF file. Matrices borrow from the file, but for queries and keys whose rows have to be
    /// reordered.
    ///
    /// # Errors
    /// What [`Blueprint::from_gguf`] reports, a missing tensor, one of another shape, or one that would not be used.
    pub fn from_gguf(gguf: &Gguf<'a>) -> Result<Self, EngineError> {
        assemble(Blueprint::from_gguf(gguf)?, &GGUF_NAMES, gguf)
    }
}

impl<'a> Source<'a> for Gguf<'a> {
    fn names(&self) -> Vec<&str> {
        self.tensors().keys().copied().collect()
    }

    fn matrix(
        &self,
        name: &str,
        rows: usize,
        cols: usize,
        order: Option<&RowOrder>,
    ) -> Result<Matrix<'a>, EngineError> {
        let (info, bytes) = find(self, name)?;
        if info.dims != [cols, rows] {
            return Err(wrong_shape(name, &info.dims, &[cols, rows]));
        }
        // A row is whole blocks, so rows of stored bytes can be moved as they are.
        let bytes = match order {
            Some(order) => Cow::Owned(order.neighbours(bytes, bytes.len() / rows)),
            None => Cow::Borrowed(bytes),
        };
        Ok(Matrix { dtype: info.dtype, rows, cols, bytes })
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, EngineError> {
        let (info, bytes) = find(self, name)?;
        let mut out = vec![0.0; info.elements().min(len)];
        if info.dims != [len] || !quant::dequantize(info.dtype, bytes, &mut out) {
            return Err(wrong_shape(name, &info.dims, &[len]));
        }
        Ok(out)
    }
}

fn find<'f, 'a>(gguf: &'f Gguf<'a>, name: &str) -> Result<(&'f TensorInfo, &'a [u8]), EngineError> {
    gguf.tensor(name).ok_or_else(|| EngineError::Inconsistent(format!("tensor {name:?} is missing")))
}

pub(super) fn wrong_shape(name: &str, found: &[usize], expected: &[usize]) -> EngineError {
    EngineError::Inconsistent(format!(
        "tensor {name:?} has the shape {found:?}, but the model's sizes ask for {expected:?}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::config::RopeConfig;

    #[test]
    fn heads_are_interleaved() {
        // Two heads of four rows with one column: 0 1 2 3 | 4 5 6 7.
        let rows: Vec<u8> = (0..8).collect();
        assert_eq!(RowOrder { head_dim: 4, rope_dim: 4 }.neighbours(&rows, 1), [0, 2, 1, 3, 4, 6, 5, 7]);
        // One head of four rows with two columns, of which only the first two rows are rotated.
        assert_eq!(RowOrder { head_dim: 4, rope_dim: 2 }.neighbours(&rows, 2), rows);
        assert_eq!(RowOrder { head_dim: 8, rope_dim: 4 }.neighbours(&rows, 1), [0, 2, 1, 3, 4, 5, 6, 7]);
    }

    /// The score of a rotated query and key is the same in both conventions, at any distance.
    #[test]
    fn both_conventions_give_the_same_scores() {
        let rope = RopeConfig { base: 100.0, dim: 8, freq_divisors: vec![], magnitude: 1.0 };
        let (q, k): (Vec<f32>, Vec<f32>) = (0..8).map(|i| ((i as f32).sin(), (i as f32 * 1.7).cos())).unzip();
        let angles = |position| {
            let mut out = Vec::new();
            rope.rotation_at(&rope.frequencies(), position, &mut out);
            out
        };
        let half_split = |x: &[f32], position| {
            let turn = angles(position);
            let mut out = x.to_vec();
            for i in 0..4 {
                let (cos, sin) = (turn[2 * i], turn[2 * i + 1]);
                out[i] = x[i] * cos - x[i + 4] * sin;
                out[i + 4] = x[i + 4] * cos + x[i] * sin;
            }
            out
        };
        let neighbours = |x: &[f32], position| {
            let turn = angles(position);
            let mut out = RowOrder { head_dim: 8, rope_dim: 8 }.neighbours(x, 1);
            for i in 0..4 {
                let (cos, sin) = (turn[2 * i], turn[2 * i + 1]);
                let (a, b) = (out[2 * i], out[2 * i + 1]);
                out[2 * i] = a * cos - b * sin;
                out[2 * i + 1] = a * sin + b * cos;
            }
            out
        };
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        for distance in [0, 1, 7, 100] {
            let theirs = dot(&half_split(&q, 5 + distance), &half_split(&k, 5));
            let ours = dot(&neighbours(&q, 5 + distance), &neighbours(&k, 5));
            assert!((theirs - ours).abs() < 1e-5, "distance {distance}: {theirs} and {ours}");
        }
    }
}
