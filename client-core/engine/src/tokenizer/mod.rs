//! Tokenizers: from GGUF metadata, or any `tokenizer.json`.
//!
//! | file | holds |
//! | --- | --- |
//! | `vocabulary.rs` | GGUF's lists of tokens, merges and scores, as a tokenizer |
//! | `schemes.rs` | how text is cut before byte-level BPE |
//!
//! Deliberately absent: GGUF's unigram ("t5") and word-piece ("bert") vocabularies, refused by name unless the file carries
//! `tokenizer.huggingface.json`.

mod schemes;
mod vocabulary;

use std::collections::BTreeSet;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::error::EngineError;
use super::gguf::{Gguf, Value};

/// Texts that end an assistant's turn in the chat formats in use; a token of this text ends generation.
const END_OF_TURN: [&str; 6] = ["<|im_end|>", "<|eot_id|>", "<|end|>", "<|endoftext|>", "<end_of_turn>", "</s>"];

/// Text to token ids and back, with what the model's file says about special tokens. A clone shares the vocabulary.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    add_eos: bool,
    stops: BTreeSet<u32>,
}

/// What a tokenizer is made of, wherever it came from.
struct Parts {
    inner: tokenizers::Tokenizer,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    add_eos: bool,
    stops: BTreeSet<u32>,
}

impl Tokenizer {
    /// Builds the tokenizer that a GGUF file describes.
    ///
    /// # Errors
    /// A kind of vocabulary or a scheme of cutting text that is not known, or lists that contradict each other (a merge of
    /// tokens that do not exist, a token twice, fewer scores than tokens).
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Self, EngineError> {
        let id = |key: &str| gguf.get(key).and_then(Value::as_u64).and_then(|v| u32::try_from(v).ok());
        let flag = |key: &str| gguf.get(key).and_then(Value::as_bool);
        let (inner, usual) = match gguf.get("tokenizer.huggingface.json").and_then(Value::as_str) {
            Some(json) => (parse_json(json.as_bytes())?, vocabulary::Usual::default()),
            None => vocabulary::from_gguf(gguf)?,
        };
        let mut stops = BTreeSet::new();
        stops.extend(id("tokenizer.ggml.eot_token_id"));
        stops.extend(id("tokenizer.ggml.eom_token_id"));
        Ok(Self::assemble(Parts {
            inner,
            bos: id("tokenizer.ggml.bos_token_id").or(usual.bos),
            eos: id("tokenizer.ggml.eos_token_id").or(usual.eos),
            add_bos: flag("tokenizer.ggml.add_bos_token").unwrap_or(usual.add_bos),
            add_eos: flag("tokenizer.ggml.add_eos_token").unwrap_or(false),
            stops,
        }))
    }

    /// Builds the tokenizer of a Hugging Face checkpoint from `tokenizer.json` and, when there is one,
    /// `tokenizer_config.json` (which names the special tokens).
    ///
    /// # Errors
    /// Malformed JSON.
    pub fn from_json(tokenizer_json: &[u8], tokenizer_config: Option<&[u8]>) -> Result<Self, EngineError> {
        let inner = parse_json(tokenizer_json)?;
        let config: serde_json::Value = match tokenizer_config {
            Some(json) => serde_json::from_slice(json)
                .map_err(|error| EngineError::Tokenizer(format!("tokenizer_config.json cannot be read: {error}")))?,
            None => serde_json::Value::Null,
        };
        // A special token is written as a text or as an object with the text inside.
        let special = |key: &str| {
            let value = config.get(key)?;
            inner.token_to_id(value.as_str().or_else(|| value.get("content")?.as_str())?)
        };
        let (bos, eos) = (special("bos_token"), special("eos_token"));
        // What the tokenizer itself puts around a text counts where the config says nothing.
        let around = inner.encode_fast("", true).map_err(|error| EngineError::Tokenizer(error.to_string()))?;
        let flag = |key: &str| config.get(key).and_then(serde_json::Value::as_bool);
        let add_bos = flag("add_bos_token").unwrap_or(bos.is_some() && around.get_ids().first() == bos.as_ref());
        let add_eos = flag("add_eos_token").unwrap_or(eos.is_some() && around.get_ids().last() == eos.as_ref());
        Ok(Self::assemble(Parts { inner, bos, eos, add_bos, add_eos, stops: BTreeSet::new() }))
    }

    fn assemble(parts: Parts) -> Self {
        let Parts { inner, bos, eos, add_bos, add_eos, mut stops } = parts;
        stops.extend(eos);
        stops.extend(END_OF_TURN.iter().filter_map(|text| inner.token_to_id(text)));
        Self { inner: Arc::new(inner), bos, eos, add_bos, add_eos, stops }
    }

    /// Lets these tokens end generation too.
    pub fn stop_at(&mut self, ids: impl IntoIterator<Item = u32>) {
        self.stops.extend(ids);
    }

    /// Token ids of `text`. Special tokens written out in the text are recognised; none are added.
    ///
    /// # Errors
    /// The underlying tokenizer's.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, EngineError> {
        let encoding =
            self.inner.encode_fast(text, false).map_err(|error| EngineError::Tokenizer(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Token ids of a prompt: as [`encode`](Self::encode), with the beginning-of-sequence token in front (and the end-of-
    /// sequence token behind) when the file asks for one and the text does not have it already.
    ///
    /// # Errors
    /// The underlying tokenizer's.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, EngineError> {
        let mut ids = self.encode(text)?;
        if let Some(bos) = self.bos
            && self.add_bos
            && ids.first() != Some(&bos)
        {
            ids.insert(0, bos);
        }
        if let Some(eos) = self.eos
            && self.add_eos
            && ids.last() != Some(&eos)
        {
            ids.push(eos);
        }
        Ok(ids)
    }

    /// The text of `ids`, without special tokens.
    ///
    /// # Errors
    /// The underlying tokenizer's.
    pub fn decode(&self, ids: &[u32]) -> Result<String, EngineError> {
        self.inner.decode(ids, true).map_err(|error| EngineError::Tokenizer(error.to_string()))
    }

    /// The text of one token as it would be shown: special tokens by name, part of a character as `�`.
    pub fn token_text(&self, id: u32) -> String {
        self.inner.decode(&[id], false).unwrap_or_default()
    }

    /// Number of tokens, special ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// What the vocabulary is recognised by, 16 hexadecimal digits: the same for all models whose ordinary tokens have the same
    /// ids, however a file pads the list and whatever special tokens it adds.
    pub fn fingerprint(&self) -> String {
        let added = self.inner.get_added_tokens_decoder();
        let vocabulary = self.inner.get_vocab(false);
        let padding = |token: &str| token.starts_with("[PAD") || token.starts_with("<unused");
        let mut tokens: Vec<(u32, String)> = vocabulary.into_iter().map(|(token, id)| (id, token)).collect();
        tokens.retain(|(id, token)| !added.contains_key(id) && !padding(token));
        tokens.sort_unstable();
        let mut hash = Sha256::new();
        for (id, token) in tokens {
            hash.update(id.to_le_bytes());
            hash.update((token.len() as u64).to_le_bytes());
            hash.update(token);
        }
        hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Beginning-of-sequence token.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// End-of-sequence token.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The text of a special token, as chat templates want it.
    pub fn special_text(&self, id: Option<u32>) -> String {
        id.and_then(|id| self.inner.id_to_token(id)).unwrap_or_default()
    }

    /// Whether this token ends an answer.
    pub fn is_stop(&self, id: u32) -> bool {
        self.stops.contains(&id)
    }

    /// A decoder that is fed token by token and returns text as soon as it is whole characters.
    pub fn stream(&self) -> TextStream {
        TextStream { tokenizer: self.clone(), ids: Vec::new(), shown: 0, sent: 0 }
    }
}

/// Turns a stream of tokens into a stream of text. See [`Tokenizer::stream`].
#[derive(Debug)]
pub struct TextStream {
    tokenizer: Tokenizer,
    /// The tokens whose text is not wholly sent, after those of the last text that was: a decoder may treat the first
    /// token of a text differently (a leading space) and needs all bytes of a character, so it never sees the new ones
    /// alone, nor a part of a character before them.
    ids: Vec<u32>,
    /// How many of `ids` have been sent.
    shown: usize,
    /// Bytes of the text of `ids` that have been sent.
    sent: usize,
}

impl TextStream {
    /// Adds a token; returns the text that has become complete, which may be empty.
    ///
    /// # Errors
    /// The underlying tokenizer's.
    pub fn push(&mut self, id: u32) -> Result<String, EngineError> {
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids)?;
        if text.ends_with('\u{FFFD}') {
            return Ok(String::new());
        }
        let fresh = text.get(self.sent..).unwrap_or_default().to_owned();
        if !fresh.is_empty() {
            self.ids.drain(..self.shown);
            self.shown = self.ids.len();
            self.sent = self.tokenizer.decode(&self.ids)?.len();
        }
        Ok(fresh)
    }

    /// What is left at the end: bytes that never became a character, as `�`.
    ///
    /// # Errors
    /// The underlying tokenizer's.
    pub fn finish(self) -> Result<String, EngineError> {
        let text = self.tokenizer.decode(&self.ids)?;
        Ok(text.get(self.sent..).unwrap_or_default().to_owned())
    }
}

fn parse_json(json: &[u8]) -> Result<tokenizers::Tokenizer, EngineError> {
    tokenizers::Tokenizer::from_bytes(json).map_err(|error| EngineError::Tokenizer(format!("tokenizer.json: {error}")))
}

#[cfg(test)]
mod tests;
