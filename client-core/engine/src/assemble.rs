//! From a blueprint and a file's tensors to [`ModelWeights`]: the same way for GGUF and for safetensors, which differ in
//! the names of things and in the order of the rows of queries and keys.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use async_trait::async_trait;
use futures::FutureExt as _;

use super::config::{Blueprint, ModelConfig};
use super::error::EngineError;
use super::files::{Files, Listing, ReadAt};
use super::gguf::{GgmlType, Gguf, TensorInfo};
use super::names::{self, GGUF_NAMES, HF_NAMES, HF_NAMES_BOTH_SIDES, Names};
use super::parts::{BlockPart, BlockVectors, MatrixForm, Part, Weights};
use super::quant;
use super::safetensors::read::TensorFile;
use super::source::{Source, wrong_shape};
use super::weights::{LayerTraits, LayerWeights, Matrix, ModelWeights};

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

/// A model's tensors, read when they are asked for. [`ModelWeights`] is all of them together.
#[derive(Debug)]
pub struct WeightStream<S> {
    plan: Blueprint,
    names: &'static Names,
    source: S,
    /// What the source calls the tensors that it has, by their usual names.
    present: BTreeMap<String, String>,
    order: Option<RowOrder>,
}

/// What a matrix is called and how it has to be.
struct WantedTensor {
    name: String,
    rows: usize,
    cols: usize,
    order: Option<RowOrder>,
}

impl<'a, S: Source<'a>> WeightStream<S> {
    /// # Errors
    /// The source has a tensor that would not be used: it wants a computation that is not made here.
    pub(super) fn new(plan: Blueprint, names: &'static Names, source: S) -> Result<Self, EngineError> {
        let order = RowOrder { head_dim: plan.config.head_dim, rope_dim: plan.config.rope.dim };
        let usual = |name: &str| if plan.also_sees { names::of_text(name) } else { Some(name.to_owned()) };
        let present = source.names().into_iter().filter_map(|name| Some((usual(name)?, name.to_owned()))).collect();
        let stream = Self { order: plan.half_split.then_some(order), plan, names, source, present };
        let used = stream.used();
        let redundant = |name: &str| names.redundant.iter().any(|part| name.contains(part));
        match stream.present.iter().find(|(name, _)| !used.contains(*name) && !redundant(name)) {
            Some((_, name)) => Err(EngineError::Unsupported(format!(
                "tensor {name:?} belongs to a computation that this engine does not have"
            ))),
            None => Ok(stream),
        }
    }

    /// As [`new`](Self::new), of a checkpoint.
    fn new_hf(plan: Blueprint, source: S) -> Result<Self, EngineError> {
        let names = if plan.post_norms { &HF_NAMES_BOTH_SIDES } else { &HF_NAMES };
        Self::new(plan, names, source)
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
            if self.plan.post_norms {
                used.extend(names.post_norms.iter().map(|part| self.name(layer, part)));
            }
            used.extend(names.qkv.map(|part| self.bias_name(layer, part)));
        }
        used
    }

    /// What the source calls the tensor `name`.
    fn stored<'s>(&'s self, name: &'s str) -> &'s str {
        self.present.get(name).map_or(name, String::as_str)
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

    /// Makes the context no longer than `tokens`.
    pub fn limit_context(&mut self, tokens: usize) {
        let context = &mut self.plan.config.context;
        *context = (*context).min(tokens.max(1));
    }

    /// `None` for the head of a model whose head is its embedding.
    fn wanted(&self, part: Part) -> Result<Option<WantedTensor>, EngineError> {
        let (config, names) = (&self.plan.config, self.names);
        let (dim, q_dim, kv_dim) = (config.dim, config.q_dim(), config.kv_dim());
        let whole =
            |name: &str| WantedTensor { name: format!("{name}.weight"), rows: config.vocab, cols: dim, order: None };
        Ok(Some(match part {
            Part::Embedding => whole(names.embedding),
            Part::Output => {
                let wanted = whole(names.output);
                // Some files repeat a tied head; some configs do not say whether it is tied, and then the list of tensors
                // does.
                match self.plan.tied {
                    Some(true) => return Ok(None),
                    None if !self.present.contains_key(&wanted.name) => return Ok(None),
                    _ => wanted,
                }
            }
            Part::Block(layer, _) if layer >= config.layers => return Err(no_block(layer)),
            Part::Block(layer, part) => {
                let [q, k, v] = names.qkv;
                let (name, rows, cols, order) = match part {
                    BlockPart::Q => (q, q_dim, dim, self.order),
                    BlockPart::K => (k, kv_dim, dim, self.order),
                    BlockPart::V => (v, kv_dim, dim, None),
                    BlockPart::O => (names.o, dim, q_dim, None),
                    BlockPart::Gate => (names.gate, config.ffn, dim, None),
                    BlockPart::Up => (names.up, config.ffn, dim, None),
                    BlockPart::Down => (names.down, dim, config.ffn, None),
                };
                WantedTensor { name: self.name(layer, name), rows, cols, order }
            }
        }))
    }

    fn form_of(&self, wanted: &WantedTensor) -> Result<MatrixForm, EngineError> {
        let &WantedTensor { ref name, rows, cols, order } = wanted;
        let dtype = self.source.dtype(self.stored(name), rows, cols)?;
        match dtype.row_bytes(cols).is_some() && rows > 0 {
            true => Ok(MatrixForm { dtype, rows, cols, unit: order.map_or(1, |order| order.head_dim) }),
            false => Err(EngineError::Inconsistent(format!("the rows of {name:?} are not whole blocks"))),
        }
    }

    async fn rows_of(&self, wanted: &WantedTensor, rows: Range<usize>) -> Result<Cow<'a, [u8]>, EngineError> {
        let form = self.form_of(wanted)?;
        let bytes = self.source.rows(self.stored(&wanted.name), [wanted.rows, wanted.cols], rows.clone()).await?;
        if form.row_bytes().checked_mul(rows.len()) != Some(bytes.len()) {
            return Err(EngineError::Inconsistent(format!("{:?} came back with another length", wanted.name)));
        }
        // A row is whole blocks, so rows of stored bytes can be moved as they are.
        Ok(match wanted.order {
            Some(order) => Cow::Owned(order.neighbours(&bytes, form.row_bytes())),
            None => bytes,
        })
    }

    async fn matrix(&self, part: Part) -> Result<Option<Matrix<'a>>, EngineError> {
        let Some(wanted) = self.wanted(part)? else { return Ok(None) };
        let MatrixForm { dtype, rows, cols, .. } = self.form_of(&wanted)?;
        let bytes = self.rows_of(&wanted, 0..rows).await?;
        Ok(Some(Matrix { dtype, rows, cols, bytes }))
    }

    async fn last_norm(&self) -> Result<Vec<f32>, EngineError> {
        self.gains(&format!("{}.weight", self.names.output_norm), self.plan.config.dim).await
    }

    async fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, EngineError> {
        self.source.vector(self.stored(name), len).await
    }

    /// The gains of a norm.
    async fn gains(&self, name: &str, len: usize) -> Result<Vec<f32>, EngineError> {
        let mut gains = self.vector(name, len).await?;
        for gain in &mut gains {
            *gain += self.plan.gain_offset;
        }
        Ok(gains)
    }

    async fn block_vectors(&self, layer: usize) -> Result<BlockVectors, EngineError> {
        let (dim, names) = (self.plan.config.dim, self.names);
        let place = self.plan.layers.get(layer).copied().ok_or_else(|| no_block(layer))?;
        let attn_norm = self.gains(&self.name(layer, names.attn_norm), dim).await?;
        let ffn_norm = self.gains(&self.name(layer, names.ffn_norm), dim).await?;
        let [q_norm, k_norm] = names.head_norms;
        let post_norm = async |part| match self.plan.post_norms {
            true => self.gains(&self.name(layer, part), dim).await.map(Some),
            false => Ok(None),
        };
        let [post_attn_norm, post_ffn_norm] = names.post_norms;
        let traits = LayerTraits {
            qkv_bias: self.bias(layer).await?,
            q_norm: self.head_norm(layer, q_norm).await?,
            k_norm: self.head_norm(layer, k_norm).await?,
            post_attn_norm: post_norm(post_attn_norm).await?,
            post_ffn_norm: post_norm(post_ffn_norm).await?,
            rope: place.rope,
            window: place.window,
        };
        Ok(BlockVectors { attn_norm, ffn_norm, traits })
    }

    fn has_bias(&self, layer: usize) -> bool {
        self.plan.qkv_bias || self.names.qkv.iter().any(|part| self.present.contains_key(&self.bias_name(layer, part)))
    }

    async fn bias(&self, layer: usize) -> Result<Option<Vec<f32>>, EngineError> {
        if !self.has_bias(layer) {
            return Ok(None);
        }
        let config = &self.plan.config;
        let [q, k, v] = self.names.qkv.map(|part| self.bias_name(layer, part));
        let mut bias = self.arranged(self.vector(&q, config.q_dim()).await?);
        bias.extend(self.arranged(self.vector(&k, config.kv_dim()).await?));
        bias.extend(self.vector(&v, config.kv_dim()).await?);
        Ok(Some(bias))
    }

    async fn head_norm(&self, layer: usize, part: &str) -> Result<Option<Vec<f32>>, EngineError> {
        match self.plan.qk_norm {
            true => {
                let gains = self.gains(&self.name(layer, part), self.plan.config.head_dim).await?;
                Ok(Some(self.arranged(gains)))
            }
            false => Ok(None),
        }
    }

    /// A vector whose elements belong to rows of queries or keys, in the order of those.
    fn arranged(&self, values: Vec<f32>) -> Vec<f32> {
        match self.order {
            Some(order) => order.neighbours(&values, 1),
            None => values,
        }
    }

    async fn layer(&self, layer: usize) -> Result<LayerWeights<'a>, EngineError> {
        let matrix = async |part| {
            let matrix = self.matrix(Part::Block(layer, part)).await?;
            matrix.ok_or_else(|| no_block(layer))
        };
        let BlockVectors { attn_norm, ffn_norm, traits } = self.block_vectors(layer).await?;
        Ok(LayerWeights {
            attn_norm,
            q: matrix(BlockPart::Q).await?,
            k: matrix(BlockPart::K).await?,
            v: matrix(BlockPart::V).await?,
            o: matrix(BlockPart::O).await?,
            ffn_norm,
            gate: matrix(BlockPart::Gate).await?,
            up: matrix(BlockPart::Up).await?,
            down: matrix(BlockPart::Down).await?,
            traits,
        })
    }

    /// Everything.
    ///
    /// # Errors
    /// A tensor is missing, has another shape, or cannot be read.
    pub async fn collect(&self) -> Result<ModelWeights<'a>, EngineError> {
        let mut layers = Vec::new();
        // One block after the other: a file that says it has many fails at the first that is missing.
        for layer in 0..self.plan.config.layers {
            layers.push(self.layer(layer).await?);
        }
        let embedding = self.matrix(Part::Embedding).await?;
        let embedding = embedding.ok_or_else(|| EngineError::Inconsistent("there is no embedding".into()))?;
        let (output_norm, output) = (self.last_norm().await?, self.matrix(Part::Output).await?);
        Ok(ModelWeights { embedding, output_norm, layers, output, config: self.plan.config.clone() })
    }
}

fn no_block(layer: usize) -> EngineError {
    EngineError::Inconsistent(format!("there is no block {layer}"))
}

#[async_trait(?Send)]
impl<S: Source<'static>> Weights for WeightStream<S> {
    fn config(&self) -> &ModelConfig {
        &self.plan.config
    }

    fn form(&self, part: Part) -> Result<Option<MatrixForm>, EngineError> {
        self.wanted(part)?.map(|wanted| self.form_of(&wanted)).transpose()
    }

    async fn rows(&self, part: Part, rows: Range<usize>) -> Result<Cow<'_, [u8]>, EngineError> {
        let wanted = self.wanted(part)?.filter(|wanted| rows.end <= wanted.rows && !rows.is_empty());
        let wanted = wanted.ok_or_else(|| EngineError::Inconsistent("a matrix has no such rows".into()))?;
        self.rows_of(&wanted, rows).await
    }

    async fn output_norm(&self) -> Result<Vec<f32>, EngineError> {
        self.last_norm().await
    }

    async fn vectors(&self, layer: usize) -> Result<BlockVectors, EngineError> {
        self.block_vectors(layer).await
    }

    fn extras(&self) -> u64 {
        let config = &self.plan.config;
        let bias = (config.q_dim() + 2 * config.kv_dim()) as u64;
        let biases = (0..config.layers).filter(|layer| self.has_bias(*layer)).count() as u64;
        let heads = if self.plan.qk_norm { config.head_dim } else { 0 };
        let behind = if self.plan.post_norms { config.dim } else { 0 };
        bias * biases + (2 * config.layers * (heads + behind)) as u64
    }
}

/// The result of a future that waits for nothing, since all of its data is in memory.
pub(super) fn at_once<T>(work: impl Future<Output = Result<T, EngineError>>) -> Result<T, EngineError> {
    let waits = || Err(EngineError::Inconsistent("data in memory was waited for".into()));
    work.now_or_never().unwrap_or_else(waits)
}

impl<'a> ModelWeights<'a> {
    /// Takes the tensors of a GGUF file. Matrices borrow from the file, but for queries and keys whose rows have to be
    /// reordered.
    ///
    /// # Errors
    /// What [`Blueprint::from_gguf`] reports, a missing tensor, one of another shape, or one that would not be used.
    pub fn from_gguf(gguf: &Gguf<'a>) -> Result<Self, EngineError> {
        at_once(WeightStream::new(Blueprint::from_gguf(gguf)?, &GGUF_NAMES, gguf)?.collect())
    }
}

impl<R: ReadAt> WeightStream<Files<R>> {
    /// The tensors of the GGUF file whose header is `gguf` ([`Gguf::parse_header`]); `read` reads the file.
    ///
    /// # Errors
    /// As [`ModelWeights::from_gguf`], but for what is found when a tensor is read.
    pub async fn from_gguf(gguf: &Gguf<'_>, read: R) -> Result<Self, EngineError> {
        let divisors = match Blueprint::divisors(gguf) {
            Some(info) => Some(read.read(0, info.start, info.len).await?),
            None => None,
        };
        let plan = Blueprint::from_gguf_header(gguf, divisors.as_deref())?;
        Self::new(plan, &GGUF_NAMES, Files::of_gguf(gguf, read))
    }

    /// The tensors of the checkpoint whose `config.json` is `config` and whose files have these headers; `read` reads
    /// them, in the same order.
    ///
    /// # Errors
    /// What [`Blueprint::from_hf_json`] reports, a tensor in two files, or one that would not be used.
    pub fn from_safetensors(
        config: &[u8],
        headers: &[TensorFile<'_>],
        read: R,
        store_as: GgmlType,
    ) -> Result<Self, EngineError> {
        let files = Files::of_safetensors(headers, read, store_as)?;
        Self::new_hf(Blueprint::from_hf_json(config)?, files)
    }

    /// Bytes of the matrices where they lie: what will be read of them.
    ///
    /// # Errors
    /// As [`Weights::form`], of any matrix.
    pub fn bytes_to_read(&self) -> Result<u64, EngineError> {
        let mut bytes = 0;
        for part in self.parts() {
            if let Some(WantedTensor { name, rows, cols, .. }) = self.wanted(part)? {
                bytes += self.source.stored_bytes(self.stored(&name), [rows, cols])?;
            }
        }
        Ok(bytes)
    }
}

impl WeightStream<Listing> {
    /// What a checkpoint will be whose `config.json` is `config` and whose tensors have these names. None can be read.
    ///
    /// # Errors
    /// As [`WeightStream::from_safetensors`], but for what only the files' headers tell.
    pub fn from_names(config: &[u8], names: BTreeSet<String>, store_as: GgmlType) -> Result<Self, EngineError> {
        Self::new_hf(Blueprint::from_hf_json(config)?, Listing { names, store_as })
    }
}

/// The whole file is in memory: matrices borrow from it.
#[async_trait(?Send)]
impl<'a> Source<'a> for &Gguf<'a> {
    fn names(&self) -> Vec<&str> {
        self.tensors().keys().copied().collect()
    }

    fn dtype(&self, name: &str, rows: usize, cols: usize) -> Result<GgmlType, EngineError> {
        Ok(listed(self, name, &[cols, rows])?.dtype)
    }

    async fn rows(&self, name: &str, shape: [usize; 2], rows: Range<usize>) -> Result<Cow<'a, [u8]>, EngineError> {
        let [all, cols] = shape;
        let bytes = in_memory(self, name, &[cols, all])?;
        let row_bytes = bytes.len() / all.max(1);
        let part = bytes.get(rows.start.saturating_mul(row_bytes)..rows.end.saturating_mul(row_bytes));
        part.map(Cow::Borrowed).ok_or_else(|| EngineError::Inconsistent(format!("{name:?} has no such rows")))
    }

    async fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, EngineError> {
        let (info, bytes) = (listed(self, name, &[len])?, in_memory(self, name, &[len])?);
        let mut out = vec![0.0; len];
        match quant::dequantize(info.dtype, bytes, &mut out) {
            true => Ok(out),
            false => Err(wrong_shape(name, &info.dims, &[len])),
        }
    }
}

fn in_memory<'a>(gguf: &Gguf<'a>, name: &str, dims: &[usize]) -> Result<&'a [u8], EngineError> {
    let bytes = gguf.data(listed(gguf, name, dims)?);
    bytes.ok_or_else(|| EngineError::Inconsistent(format!("{name:?} is not in memory")))
}

fn listed<'f>(gguf: &'f Gguf<'_>, name: &str, dims: &[usize]) -> Result<&'f TensorInfo, EngineError> {
    let info = gguf.tensors().get(name);
    let info = info.ok_or_else(|| EngineError::Inconsistent(format!("tensor {name:?} is missing")))?;
    if info.dims == dims { Ok(info) } else { Err(wrong_shape(name, &info.dims, dims)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RopeConfig;

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
