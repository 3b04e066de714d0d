//! Tokenizers: byte-level BPE from GGUF metadata, or any `tokenizer.json`.
//!
//! Deliberately absent: SentencePiece models inside GGUF (`tokenizer.ggml.model = "llama"`); such files are refused with
//! a message that says so, unless they carry `tokenizer.huggingface.json`.

use std::collections::BTreeSet;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

use super::error::EngineError;
use super::gguf::{ArrayView, Gguf, Value};

/// Texts that end an assistant's turn in the chat formats in use; a token of this text ends generation.
const END_OF_TURN: [&str; 6] = ["<|im_end|>", "<|eot_id|>", "<|end|>", "<|endoftext|>", "<end_of_turn>", "</s>"];

/// Text to token ids and back, with what the model's file says about special tokens.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    stops: BTreeSet<u32>,
}

impl Tokenizer {
    /// Builds the tokenizer that a GGUF file describes.
    ///
    /// # Errors
    /// Another tokenizer model than byte-level BPE, a pre-tokenizer that is not known, or lists that contradict each
    /// other (a merge of tokens that do not exist, ids past the end).
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Self, EngineError> {
        let id = |key: &str| gguf.get(key).and_then(Value::as_u64).and_then(|v| u32::try_from(v).ok());
        let inner = match gguf.get("tokenizer.huggingface.json").and_then(Value::as_str) {
            Some(json) => parse_json(json.as_bytes())?,
            None => byte_level_bpe(gguf)?,
        };
        let mut extra = BTreeSet::new();
        extra.extend(id("tokenizer.ggml.eot_token_id"));
        let add_bos = gguf.get("tokenizer.ggml.add_bos_token").and_then(Value::as_bool).unwrap_or(false);
        Ok(Self::assemble(inner, id("tokenizer.ggml.bos_token_id"), id("tokenizer.ggml.eos_token_id"), add_bos, extra))
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
        let add_bos = config.get("add_bos_token").and_then(serde_json::Value::as_bool).unwrap_or(false);
        Ok(Self::assemble(inner, bos, eos, add_bos, BTreeSet::new()))
    }

    fn assemble(
        inner: tokenizers::Tokenizer,
        bos: Option<u32>,
        eos: Option<u32>,
        add_bos: bool,
        mut stops: BTreeSet<u32>,
    ) -> Self {
        stops.extend(eos);
        stops.extend(END_OF_TURN.iter().filter_map(|text| inner.token_to_id(text)));
        Self { inner, bos, eos, add_bos, stops }
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

    /// Token ids of a prompt: as [`encode`](Self::encode), with the beginning-of-sequence token in front when the model
    /// wants one and the text does not have it already.
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
    pub fn stream(&self) -> TextStream<'_> {
        TextStream { tokenizer: self, ids: Vec::new(), sent: 0 }
    }
}

/// Turns a stream of tokens into a stream of text. See [`Tokenizer::stream`].
#[derive(Debug)]
pub struct TextStream<'t> {
    tokenizer: &'t Tokenizer,
    /// The tokens whose text is not wholly sent, after one or more that are: a decoder may treat the first token of a
    /// text differently (a leading space), so it never sees the new ones alone.
    ids: Vec<u32>,
    /// Bytes of the text of `ids` that have been sent.
    sent: usize,
}

impl TextStream<'_> {
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
            self.ids = vec![id];
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

fn byte_level_bpe(gguf: &Gguf<'_>) -> Result<tokenizers::Tokenizer, EngineError> {
    let fail = |message: String| EngineError::Tokenizer(message);
    let kind = gguf.get("tokenizer.ggml.model").and_then(Value::as_str).unwrap_or("(none)");
    if kind != "gpt2" {
        return Err(EngineError::Unsupported(format!(
            "the file's tokenizer is of the kind {kind:?}; this engine reads byte-level BPE (\"gpt2\")"
        )));
    }
    let strings = |key: &str| gguf.get(key).and_then(Value::as_array).and_then(ArrayView::as_strs);
    let tokens = strings("tokenizer.ggml.tokens").ok_or_else(|| fail("the list of tokens is missing".into()))?;
    let merges = strings("tokenizer.ggml.merges").ok_or_else(|| fail("the list of merges is missing".into()))?;

    let mut vocab = Vocab::default();
    for (id, token) in tokens.iter().enumerate() {
        let id = u32::try_from(id).map_err(|_| fail("there are too many tokens".into()))?;
        if vocab.insert((*token).to_owned(), id).is_some() {
            return Err(fail(format!("token {token:?} occurs twice")));
        }
    }
    let mut pairs = Vec::with_capacity(merges.len());
    for merge in merges {
        let (left, right) = merge.split_once(' ').ok_or_else(|| fail(format!("merge {merge:?} is not two tokens")))?;
        let merged = format!("{left}{right}");
        if ![left, right, &merged].iter().all(|part| vocab.contains_key(*part)) {
            return Err(fail(format!("merge {merge:?} is of tokens that are not in the list")));
        }
        pairs.push((left.to_owned(), right.to_owned()));
    }
    let bpe = BPE::builder().vocab_and_merges(vocab, pairs).build().map_err(|error| fail(error.to_string()))?;

    let pre = gguf.get("tokenizer.ggml.pre").and_then(Value::as_str).unwrap_or("default");
    let mut tokenizer = tokenizers::Tokenizer::new(bpe);
    tokenizer.with_pre_tokenizer(Some(pre_tokenizer(pre)?));
    tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));

    let kinds = gguf.get("tokenizer.ggml.token_type").and_then(Value::as_array);
    let mut special = Vec::new();
    let mut user_defined = Vec::new();
    for (token, kind) in tokens.iter().zip(kinds.iter().flat_map(|list| ArrayView::iter(list))) {
        // llama.cpp's numbers: 3 is a control token, 4 one that the user defined.
        match kind.as_u64() {
            Some(3) => special.push(AddedToken::from(*token, true).normalized(false)),
            Some(4) => user_defined.push(AddedToken::from(*token, false).normalized(false)),
            _ => {}
        }
    }
    tokenizer.add_special_tokens(special).map_err(|error| fail(error.to_string()))?;
    tokenizer.add_tokens(user_defined).map_err(|error| fail(error.to_string()))?;
    Ok(tokenizer)
}

/// How text is cut before BPE, by llama.cpp's name of the scheme.
fn pre_tokenizer(name: &str) -> Result<PreTokenizerWrapper, EngineError> {
    const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let split = |pattern: &str| {
        Split::new(SplitPattern::Regex(pattern.to_owned()), SplitDelimiterBehavior::Isolated, false)
            .map(PreTokenizerWrapper::Split)
            .map_err(|error| EngineError::Tokenizer(error.to_string()))
    };
    let bytes_only = PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, false));
    let gpt2 = PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true));
    Ok(match name {
        "default" | "gpt-2" | "gpt2" => gpt2,
        "llama-bpe" | "llama3" | "llama-v3" => {
            PreTokenizerWrapper::Sequence(Sequence::new(vec![split(LLAMA3)?, bytes_only]))
        }
        "qwen2" => PreTokenizerWrapper::Sequence(Sequence::new(vec![split(QWEN2)?, bytes_only])),
        "smollm" => PreTokenizerWrapper::Sequence(Sequence::new(vec![split(r"\p{N}")?, gpt2])),
        _ => {
            return Err(EngineError::Unsupported(format!(
                "the tokenizer cuts text by the scheme {name:?}, which is not known"
            )));
        }
    })
}

#[cfg(test)]
#[path = "tokenizer_tests.rs"]
pub(crate) mod tests;
