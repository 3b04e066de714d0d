//! From a blueprint and a file's tensors to [`ModelWeights`]: the same way for GGUF and for safetensors, which differ in
//! the names of things and in the order of the rows of queries and keys.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::config::{Blueprint, ModelConfig};
use super::error::EngineError;
use super::gguf::{Gguf, TensorInfo};
use super::quant;
use super::weights::{LayerTraits, LayerWeights, Matrix, ModelWeights};

/// What the parts are called. Those of a block follow `block` and its number; weights end in `.weight`, biases in `.bias`.
#[derive(Debug)]
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
pub trait Source<'a> {
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

/// A model's tensors, taken one block at a time: so a caller that hands each block on (to a GPU, say) never holds the whole
/// model. [`ModelWeights`] is all of them together.
#[derive(Debug)]
pub struct WeightStream<S> {
    plan: Blueprint,
    names: &'static Names,
    source: S,
    present: BTreeSet<String>,
    order: Option<RowOrder>,
}

impl<'a, S: Source<'a>> WeightStream<S> {
    /// # Errors
    /// The source has a tensor that would not be used: it wants a computation that is not made here.
    pub(super) fn new(plan: Blueprint, names: &'static Names, source: S) -> Result<Self, EngineError> {
        let order = RowOrder { head_dim: plan.config.head_dim, rope_dim: plan.config.rope.dim };
        let present = source.names().into_iter().map(str::to_owned).collect();
        let stream = Self { order: plan.half_split.then_some(order), plan, names, source, present };
        let used = stream.used();
        let redundant = |name: &String| names.redundant.iter().any(|part| name.contains(part));
        match stream.present.difference(&used).find(|name| !redundant(name)) {
            Some(name) => Err(EngineError::Unsupported(format!(
                "tensor {name:?} belongs to a computation that this engine does not have"
            ))),
            None => Ok(stream),
        }
    }

    /// Names of everything that is read.
    fn used(&self) -> BTreeSet<String> {
        let names = self.names;
        let mut used: BTreeSet<String> =
            [names.embedding, names.output_norm, names.output].map(|name| format!("{name}.weight")).into();
        for layer in 0..self.plan.config.layers {
            let block = [names.attn_norm, names.o, names.ffn_norm, names.gate, names.up, names.down];
            used.extend(block.iter().chain(&names.qkv).map(|part| self.name(layer, part)));
            if self.plan.qk_norm {
                used.extend(names.head_norms.iter().map(|part| self.name(layer, part)));
            }
            used.extend(names.qkv.map(|part| self.bias_name(layer, part)));
        }
        used
    }

    fn name(&self, layer: usize, part: &str) -> String {
        format!("{}{layer}.{part}.weight", self.names.block)
    }

    fn bias_name(&self, layer: usize, part: &str) -> String {
        format!("{}{layer}.{part}.bias", self.names.block)
    }

    /// The model's sizes.
    pub fn config(&self) -> &ModelConfig {
        &self.plan.config
    }

    /// Token embedding, `[vocab, dim]`.
    ///
    /// # Errors
    /// It is missing, has another shape, or cannot be read; so with all that follow.
    pub fn embedding(&self) -> Result<Matrix<'a>, EngineError> {
        let config = &self.plan.config;
        self.source.matrix(&format!("{}.weight", self.names.embedding), config.vocab, config.dim, None)
    }

    /// RMSNorm after the last block, `[dim]`.
    ///
    /// # Errors
    /// As [`embedding`](Self::embedding).
    pub fn output_norm(&self) -> Result<Vec<f32>, EngineError> {
        self.source.vector(&format!("{}.weight", self.names.output_norm), self.plan.config.dim)
    }

    /// Output head, `[vocab, dim]`; `None` when it is the embedding.
    ///
    /// # Errors
    /// As [`embedding`](Self::embedding).
    pub fn output(&self) -> Result<Option<Matrix<'a>>, EngineError> {
        let (config, name) = (&self.plan.config, format!("{}.weight", self.names.output));
        // Some files repeat a tied head; some configs do not say whether it is tied, and then the list of tensors does.
        match self.plan.tied {
            Some(true) => Ok(None),
            None if !self.present.contains(&name) => Ok(None),
            _ => self.source.matrix(&name, config.vocab, config.dim, None).map(Some),
        }
    }

    /// The tensors of block `layer`, counted from 0.
    ///
    /// # Errors
    /// As [`embedding`](Self::embedding); also when there is no such block.
    pub fn layer(&self, layer: usize) -> Result<LayerWeights<'a>, EngineError> {
        let (config, names) = (&self.plan.config, self.names);
        let (dim, q_dim, kv_dim) = (config.dim, config.q_dim(), config.kv_dim());
        let matrix = |part: &str, rows, cols, order: Option<&RowOrder>| {
            self.source.matrix(&self.name(layer, part), rows, cols, order)
        };
        let vector = |part: &str| self.source.vector(&self.name(layer, part), dim);
        let [q, k, v] = names.qkv;
        Ok(LayerWeights {
            attn_norm: vector(names.attn_norm)?,
            q: matrix(q, q_dim, dim, self.order.as_ref())?,
            k: matrix(k, kv_dim, dim, self.order.as_ref())?,
            v: matrix(v, kv_dim, dim, None)?,
            o: matrix(names.o, dim, q_dim, None)?,
            ffn_norm: vector(names.ffn_norm)?,
            gate: matrix(names.gate, config.ffn, dim, None)?,
            up: matrix(names.up, config.ffn, dim, None)?,
            down: matrix(names.down, dim, config.ffn, None)?,
            traits: self.traits(layer)?,
        })
    }

    fn traits(&self, layer: usize) -> Result<LayerTraits, EngineError> {
        let (config, names) = (&self.plan.config, self.names);
        let arranged = |name: &str, len| -> Result<Vec<f32>, EngineError> {
            let values = self.source.vector(name, len)?;
            Ok(self.order.map_or_else(|| values.clone(), |order| order.neighbours(&values, 1)))
        };
        let [q, k, v] = names.qkv.map(|part| self.bias_name(layer, part));
        let mut qkv_bias = None;
        if self.plan.qkv_bias || [&q, &k, &v].into_iter().any(|name| self.present.contains(name)) {
            let mut bias = arranged(&q, config.q_dim())?;
            bias.extend(arranged(&k, config.kv_dim())?);
            bias.extend(self.source.vector(&v, config.kv_dim())?);
            qkv_bias = Some(bias);
        }
        let norm = |part: &str| match self.plan.qk_norm {
            true => arranged(&self.name(layer, part), config.head_dim).map(Some),
            false => Ok(None),
        };
        let [q_norm, k_norm] = names.head_norms;
        let place = self.plan.layers.get(layer).copied();
        let place = place.ok_or_else(|| EngineError::Inconsistent(format!("there is no block {layer}")))?;
        let (q_norm, k_norm) = (norm(q_norm)?, norm(k_norm)?);
        Ok(LayerTraits { qkv_bias, q_norm, k_norm, rope: place.rope, window: place.window })
    }

    /// Everything.
    ///
    /// # Errors
    /// As [`embedding`](Self::embedding).
    pub fn collect(self) -> Result<ModelWeights<'a>, EngineError> {
        // One block after the other: a file that says it has many fails at the first that is missing.
        let layers = (0..self.plan.config.layers).map(|layer| self.layer(layer)).collect::<Result<Vec<_>, _>>()?;
        let (embedding, output_norm, output) = (self.embedding()?, self.output_norm()?, self.output()?);
        Ok(ModelWeights { embedding, output_norm, layers, output, config: self.plan.config })
    }
}

impl<'a> ModelWeights<'a> {
    /// Takes the tensors of a GGUF file. Matrices borrow from the file, but for queries and keys whose rows have to be
    /// reordered.
    ///
    /// # Errors
    /// What [`Blueprint::from_gguf`] reports, a missing tensor, one of another shape, or one that would not be used.
    pub fn from_gguf(gguf: &Gguf<'a>) -> Result<Self, EngineError> {
        WeightStream::new(Blueprint::from_gguf(gguf)?, &GGUF_NAMES, gguf)?.collect()
    }
}

/// Reads tensors' bytes from wherever the file is: a part of a blob, a storage handle.
pub trait TensorData {
    /// The bytes of one tensor of the file.
    ///
    /// # Errors
    /// They cannot be read.
    fn bytes(&self, info: &TensorInfo) -> Result<Vec<u8>, EngineError>;
}

impl TensorData for Gguf<'_> {
    fn bytes(&self, info: &TensorInfo) -> Result<Vec<u8>, EngineError> {
        self.data(info).map(<[u8]>::to_vec).ok_or_else(|| EngineError::Inconsistent("a tensor is not in memory".into()))
    }
}

impl<F: Fn(u64, usize) -> Result<Vec<u8>, EngineError>> TensorData for F {
    fn bytes(&self, info: &TensorInfo) -> Result<Vec<u8>, EngineError> {
        let bytes = self(info.start, info.len)?;
        match bytes.len() == info.len {
            true => Ok(bytes),
            false => Err(EngineError::Inconsistent("a part of the model file came back with another length".into())),
        }
    }
}

/// A GGUF file of which the header is in memory and the tensors' data elsewhere.
#[derive(Debug)]
pub struct GgufParts<'g, 'a, D> {
    gguf: &'g Gguf<'a>,
    data: D,
}

impl<'g, 'a, D: TensorData> WeightStream<GgufParts<'g, 'a, D>> {
    /// The tensors of the file whose header is `gguf` ([`Gguf::parse_header`]), read through `data` when they are asked
    /// for: a function of first byte and length, or another [`TensorData`].
    ///
    /// # Errors
    /// As [`ModelWeights::from_gguf`].
    pub fn from_gguf_header(gguf: &'g Gguf<'a>, data: D) -> Result<Self, EngineError> {
        Self::new(Blueprint::from_gguf_header(gguf, &data)?, &GGUF_NAMES, GgufParts { gguf, data })
    }
}

/// The whole file is in memory: matrices borrow from it.
impl<'a> Source<'a> for &Gguf<'a> {
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
        let info = listed(self, name, &[cols, rows])?;
        let bytes = self.data(info).ok_or_else(|| EngineError::Inconsistent(format!("{name:?} is not in memory")))?;
        // A row is whole blocks, so rows of stored bytes can be moved as they are.
        let bytes = match order {
            Some(order) => Cow::Owned(order.neighbours(bytes, bytes.len() / rows)),
            None => Cow::Borrowed(bytes),
        };
        Ok(Matrix { dtype: info.dtype, rows, cols, bytes })
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, EngineError> {
        stored_vector(self, *self, name, len)
    }
}

impl<D: TensorData> Source<'static> for GgufParts<'_, '_, D> {
    fn names(&self) -> Vec<&str> {
        self.gguf.tensors().keys().copied().collect()
    }

    fn matrix(
        &self,
        name: &str,
        rows: usize,
        cols: usize,
        order: Option<&RowOrder>,
    ) -> Result<Matrix<'static>, EngineError> {
        let info = listed(self.gguf, name, &[cols, rows])?;
        let mut bytes = self.data.bytes(info)?;
        if let Some(order) = order {
            bytes = order.neighbours(&bytes, bytes.len() / rows);
        }
        Ok(Matrix { dtype: info.dtype, rows, cols, bytes: Cow::Owned(bytes) })
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, EngineError> {
        stored_vector(self.gguf, &self.data, name, len)
    }
}

fn stored_vector(gguf: &Gguf<'_>, data: &impl TensorData, name: &str, len: usize) -> Result<Vec<f32>, EngineError> {
    let info = listed(gguf, name, &[len])?;
    let mut out = vec![0.0; len];
    match quant::dequantize(info.dtype, &data.bytes(info)?, &mut out) {
        true => Ok(out),
        false => Err(wrong_shape(name, &info.dims, &[len])),
    }
}

fn listed<'f>(gguf: &'f Gguf<'_>, name: &str, dims: &[usize]) -> Result<&'f TensorInfo, EngineError> {
    let info = gguf.tensors().get(name);
    let info = info.ok_or_else(|| EngineError::Inconsistent(format!("tensor {name:?} is missing")))?;
    if info.dims == dims { Ok(info) } else { Err(wrong_shape(name, &info.dims, dims)) }
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
