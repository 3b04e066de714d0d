//! Hugging Face checkpoints: `config.json`, `tokenizer.json` and safetensors in one or many files, as bytes.
//!
//! | file | holds |
//! | --- | --- |
//! | `read.rs` | the reader of one file, which takes hostile ones |
//!
//! Hugging Face rotates element i of a head with element i + head_dim/2; this engine, like ggml, rotates neighbours. The
//! rows of queries and keys are reordered on the way, once.

mod read;

pub use read::{SafetensorsError, Storage, TensorFile, TensorView};

use super::assemble::{HF_NAMES, RowOrder, Source, WeightStream, wrong_shape};
use super::config::Blueprint;
use super::error::EngineError;
use super::gguf::GgmlType;
use super::quant;
use super::weights::{Matrix, ModelWeights};

/// Most files that an index may name. The largest open checkpoints have about 200.
const MAX_SHARDS: usize = 1024;

/// The files of a checkpoint.
#[derive(Debug, Clone)]
pub struct Checkpoint<'a> {
    /// `config.json`.
    pub config: &'a [u8],
    /// `tokenizer.json`.
    pub tokenizer: &'a [u8],
    /// `tokenizer_config.json`: names of the special tokens, and often the chat template.
    pub tokenizer_config: Option<&'a [u8]>,
    /// `chat_template.jinja`, where newer checkpoints keep the template.
    pub chat_template: Option<&'a [u8]>,
    /// `model.safetensors`, or all its shards.
    pub shards: Vec<&'a [u8]>,
    /// How matrices are to be stored; rows that are not whole blocks of it stay single precision.
    pub store_as: GgmlType,
}

impl Checkpoint<'_> {
    /// The chat template's source.
    ///
    /// # Errors
    /// It is not UTF-8, or `tokenizer_config.json` is not JSON.
    pub fn template(&self) -> Result<Option<String>, EngineError> {
        if let Some(bytes) = self.chat_template {
            let text = std::str::from_utf8(bytes).map_err(|error| EngineError::Template(error.to_string()))?;
            return Ok(Some(text.to_owned()));
        }
        let Some(json) = self.tokenizer_config else { return Ok(None) };
        let config: serde_json::Value = serde_json::from_slice(json)
            .map_err(|error| EngineError::Template(format!("tokenizer_config.json cannot be read: {error}")))?;
        Ok(config.get("chat_template").and_then(serde_json::Value::as_str).map(str::to_owned))
    }

    /// All tensors, in this engine's order and checked against the config. One tensor at a time is held in single
    /// precision while it is stored as `store_as`.
    ///
    /// # Errors
    /// A file is malformed, a tensor is missing, occurs in two shards, has another shape or a type other than F32, F16
    /// and BF16, or would not be used.
    pub fn weights(&self) -> Result<ModelWeights<'static>, EngineError> {
        let plan = Blueprint::from_hf_json(self.config)?;
        let mut shards: Vec<TensorFile<'_>> = Vec::with_capacity(self.shards.len());
        for bytes in &self.shards {
            let shard = TensorFile::parse(bytes)?;
            if let Some(name) = shard.names().find(|name| shards.iter().any(|other| other.tensor(name).is_some())) {
                return Err(EngineError::Inconsistent(format!("tensor {name:?} is in two of the files")));
            }
            shards.push(shard);
        }
        WeightStream::new(plan, &HF_NAMES, Shards { shards, store_as: self.store_as })?.collect()
    }
}

/// The files that `model.safetensors.index.json` says a checkpoint's tensors are in, each once, in order of name.
///
/// # Errors
/// The index is not JSON of that form, names more than 1024 files, or names a file outside the checkpoint's folder.
pub fn shard_names(index_json: &[u8]) -> Result<Vec<String>, EngineError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let bad = |problem: String| EngineError::Inconsistent(format!("model.safetensors.index.json {problem}"));
    let index: Index = serde_json::from_slice(index_json).map_err(|error| bad(format!("cannot be read: {error}")))?;
    let names: std::collections::BTreeSet<String> = index.weight_map.into_values().collect();
    if names.is_empty() || names.len() > MAX_SHARDS {
        return Err(bad(format!("names {} files; there must be between 1 and {MAX_SHARDS}", names.len())));
    }
    let plain = |name: &String| name.ends_with(".safetensors") && !name.contains(['/', '\\', ':']);
    match names.iter().find(|name| !plain(name)) {
        Some(name) => Err(bad(format!("names {name:?}, which is not a safetensors file in the same folder"))),
        None => Ok(names.into_iter().collect()),
    }
}

struct Shards<'a> {
    shards: Vec<TensorFile<'a>>,
    store_as: GgmlType,
}

impl Shards<'_> {
    fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, EngineError> {
        let view = self.shards.iter().find_map(|shard| shard.tensor(name));
        let view = view.ok_or_else(|| EngineError::Inconsistent(format!("tensor {name:?} is missing")))?;
        if view.shape != shape {
            return Err(wrong_shape(name, &view.shape, shape));
        }
        let Storage::Float(dtype) = view.storage else {
            return Err(EngineError::Unsupported(format!("tensor {name:?} is stored as {:?}", view.storage)));
        };
        // The reader has checked that the file holds this many.
        let mut out = vec![0.0; shape.iter().product()];
        if !quant::dequantize(dtype, view.bytes, &mut out) {
            return Err(EngineError::Inconsistent(format!("tensor {name:?} has the wrong number of bytes")));
        }
        Ok(out)
    }
}

impl Source<'static> for Shards<'_> {
    fn names(&self) -> Vec<&str> {
        self.shards.iter().flat_map(TensorFile::names).collect()
    }

    fn matrix(
        &self,
        name: &str,
        rows: usize,
        cols: usize,
        order: Option<&RowOrder>,
    ) -> Result<Matrix<'static>, EngineError> {
        let mut values = self.values(name, &[rows, cols])?;
        if let Some(order) = order {
            values = order.neighbours(&values, cols);
        }
        let dtype = if self.store_as.row_bytes(cols).is_some() { self.store_as } else { GgmlType::F32 };
        Matrix::encode(dtype, rows, cols, &values)
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, EngineError> {
        self.values(name, &[len])
    }
}

#[cfg(test)]
mod tests;
