//! Hugging Face checkpoints: `config.json`, `tokenizer.json` and safetensors in one or many files, as bytes.
//!
//! | file | holds |
//! | --- | --- |
//! | `read.rs` | the reader of one file, which takes hostile ones |
//! | `folder.rs` | which files of a folder are a checkpoint's, and which of them are missing |
//!
//! Hugging Face rotates element i of a head with element i + head_dim/2; this engine, like ggml, rotates neighbours. The
//! rows of queries and keys are reordered on the way, once.

mod folder;
pub(crate) mod read;

pub use folder::{
    CHAT_TEMPLATE, CONFIG, GENERATION_CONFIG, INDEX, Index, TOKENIZER, TOKENIZER_CONFIG, WEIGHTS, weight_files,
};
pub use read::{SafetensorsError, Storage, TensorFile, TensorView, header_bytes};

use serde_json::Value;

use super::assemble::{WeightStream, at_once};
use super::error::EngineError;
use super::gguf::GgmlType;
use super::weights::ModelWeights;

/// The files of a checkpoint that say how text becomes tokens and conversations become text.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokenizerFiles<'a> {
    /// `tokenizer.json`.
    pub tokenizer: &'a [u8],
    /// `tokenizer_config.json`: names of the special tokens, and often the chat template.
    pub tokenizer_config: Option<&'a [u8]>,
    /// `chat_template.jinja`, where newer checkpoints keep the template.
    pub chat_template: Option<&'a [u8]>,
    /// `generation_config.json`: which tokens end an answer.
    pub generation_config: Option<&'a [u8]>,
    /// `config.json`, which names them where the former does not.
    pub config: Option<&'a [u8]>,
}

/// The files of a checkpoint.
#[derive(Debug, Clone)]
pub struct Checkpoint<'a> {
    /// `config.json`.
    pub config: &'a [u8],
    /// What belongs to text.
    pub words: TokenizerFiles<'a>,
    /// `model.safetensors`, or all its shards.
    pub shards: Vec<&'a [u8]>,
    /// How matrices are to be stored; rows that are not whole blocks of it stay single precision.
    pub store_as: GgmlType,
}

fn json(name: &str, bytes: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("{name} cannot be read: {error}"))
}

impl TokenizerFiles<'_> {
    /// The chat template's source; of several the one that is called `default`.
    ///
    /// # Errors
    /// It is not UTF-8, or `tokenizer_config.json` is not JSON.
    pub fn template(&self) -> Result<Option<String>, EngineError> {
        if let Some(bytes) = self.chat_template {
            let text = std::str::from_utf8(bytes).map_err(|error| EngineError::Template(error.to_string()))?;
            return Ok(Some(text.to_owned()));
        }
        let Some(bytes) = self.tokenizer_config else { return Ok(None) };
        let config = json(TOKENIZER_CONFIG, bytes).map_err(EngineError::Template)?;
        let template = config.get("chat_template").and_then(|template| match template.as_array() {
            Some(named) => named.iter().find(|one| one["name"] == "default")?.get("template")?.as_str(),
            None => template.as_str(),
        });
        Ok(template.map(str::to_owned))
    }

    /// The tokens that end an answer: those of `generation_config.json`, or else those of `config.json`.
    ///
    /// # Errors
    /// The first that there is is not JSON, or names what is no token.
    pub fn stops(&self) -> Result<Vec<u32>, EngineError> {
        for (name, bytes) in [(GENERATION_CONFIG, self.generation_config), (CONFIG, self.config)] {
            let Some(bytes) = bytes else { continue };
            let config = json(name, bytes).map_err(EngineError::Tokenizer)?;
            let id = |value: &Value| {
                let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
                id.ok_or_else(|| EngineError::Tokenizer(format!("{name}: eos_token_id: {value} is no token")))
            };
            // A negative one stands for none.
            let is_any = |value: &&Value| value.as_i64().is_none_or(|id| id >= 0);
            // Models that also see have the part for text inside.
            let named = config.get("eos_token_id").filter(|value| !value.is_null());
            let stops: Vec<u32> = match named.or_else(|| config.pointer("/text_config/eos_token_id")) {
                Some(Value::Array(ids)) => ids.iter().filter(is_any).map(id).collect::<Result<_, _>>()?,
                Some(one) => Some(one).filter(is_any).map(id).transpose()?.into_iter().collect(),
                None => Vec::new(),
            };
            if !stops.is_empty() {
                return Ok(stops);
            }
        }
        Ok(Vec::new())
    }
}

impl Checkpoint<'_> {
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

#[cfg(test)]
mod tests;
