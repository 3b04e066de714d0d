//! Hugging Face checkpoints: `config.json`, `tokenizer.json` and safetensors in one or many files, as bytes.
//!
//! | file | holds |
//! | --- | --- |
//! | `read.rs` | the reader of one file, which takes hostile ones |
//!
//! Hugging Face rotates element i of a head with element i + head_dim/2; this engine, like ggml, rotates neighbours. The
//! rows of queries and keys are reordered on the way, once.

mod read;

pub use read::{SafetensorsError, Storage, TensorFile, TensorView, header_bytes};

use super::assemble::{WeightStream, at_once};
use super::error::EngineError;
use super::gguf::GgmlType;
use super::weights::ModelWeights;

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

    /// All tensors, in this engine's order and checked against the config. One matrix at a time is held in single
    /// precision while it is stored as `store_as`.
    ///
    /// # Errors
    /// A file is malformed, a tensor is missing, occurs in two shards, has another shape or a type other than F32, F16
    /// and BF16, or would not be used.
    pub fn weights(&self) -> Result<ModelWeights<'static>, EngineError> {
        let shards = self.shards.iter().map(|bytes| TensorFile::parse(bytes)).collect::<Result<Vec<_>, _>>()?;
        let files: &[&[u8]] = &self.shards;
        at_once(WeightStream::from_safetensors(self.config, &shards, files, self.store_as)?.collect())
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

#[cfg(test)]
mod tests;
