//! Tokenizers: from GGUF metadata, or any `tokenizer.json`.
//!
//! | file | holds |
//! | --- | --- |
//! | `vocabulary.rs` | GGUF's lists of tokens, merges and scores, as a tokenizer |
//! | `schemes.rs` | how text is cut before byte-level BPE |
//! | `json.rs`, `parts.rs`, `precompiled.rs` | `tokenizer.json`: its model, the parts around it, one part's binary table |
//! | `library.rs` | the calls of the `tokenizers` library, and what happens when it fails |
//! | `cuts.rs` | where long texts may be cut into pieces |
//! | `controls.rs` | where control tokens are in a text, and where they are not to be |
//! | `stream.rs` | tokens to text, one by one |
//!
//! Deliberately absent: GGUF's unigram ("t5") and word-piece ("bert") vocabularies, refused by name unless the file carries
//! `tokenizer.huggingface.json`.

mod controls;
mod cuts;
mod json;
mod library;
mod parts;
mod precompiled;
mod schemes;
mod search;
mod steps;
mod stream;
mod vocabulary;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use tokenizers::{AddedToken, AddedVocabulary};

use sha2::{Digest, Sha256};

use super::error::EngineError;
use super::gguf::{Gguf, Value};
pub(super) use controls::BREAK;
use controls::{Controls, HOLE};
use library::{Cutting, guarded};
pub use stream::TextStream;

/// Texts that end an assistant's turn in the chat formats in use; a token of this text ends generation.
const END_OF_TURN: [&str; 6] = ["<|im_end|>", "<|eot_id|>", "<|end|>", "<|endoftext|>", "<end_of_turn>", "</s>"];
/// Texts that nobody but a chat template writes; a token of this text is a control token whatever the file says. Not those
/// that are words of HTML as well.
const CONTROL_TEXTS: [&str; 14] = [
    "<|im_start|>",
    "<|im_end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|endoftext|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<|end|>",
    "<|user|>",
    "<|assistant|>",
];
/// Most tokens, and the largest id. The largest vocabularies in use have about 260,000.
const MAX_TOKENS: usize = 1 << 21;
/// Largest `tokenizer_config.json`, bytes.
const MAX_CONFIG: usize = 16 << 20;
/// Words of which the library keeps what they became: none. It keeps them for every thread apart and never lets go of them.
const CACHED_WORDS: usize = 0;
/// What a tokenizer is tried on before anybody relies on it: letters of all lengths, numbers, spaces, what becomes another.
const PROBE: &str = "Hi there,  it's 12:30\r\n\n  \u{FB01}\u{E9}\u{301}\u{6771}\u{4EAC} \u{1F980}!";

/// Text to token ids and back, with what the model's file says about special tokens. A clone shares the vocabulary.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    /// What it finds in texts that have no control tokens, made when a text first asks for it.
    plain: Arc<OnceLock<AddedVocabulary>>,
    cutting: Arc<Cutting>,
    controls: Arc<Controls>,
    doubles: Arc<BTreeMap<u32, u32>>,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    add_eos: bool,
    around: [Option<u32>; 2],
    stops: BTreeSet<u32>,
}

/// What a tokenizer is made of, wherever it came from.
struct Parts {
    inner: tokenizers::Tokenizer,
    cutting: Cutting,
    doubles: BTreeMap<u32, u32>,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    add_eos: bool,
    around: [Option<u32>; 2],
    stops: BTreeSet<u32>,
}

/// Nobody leaves.
fn never() -> bool {
    false
}

impl Tokenizer {
    /// Builds the tokenizer that a GGUF file describes.
    ///
    /// # Errors
    /// A kind of vocabulary or a scheme of cutting text that is not known, or lists that contradict each other (a merge of
    /// tokens that do not exist, fewer scores than tokens, a special token that no token is).
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Self, EngineError> {
        let id = |key: &str| gguf.get(key).and_then(Value::as_u64).and_then(|v| u32::try_from(v).ok());
        let flag = |key: &str| gguf.get(key).and_then(Value::as_bool);
        let vocabulary::Loaded { tokenizer, cutting, usual, doubles } =
            match gguf.get("tokenizer.huggingface.json").and_then(Value::as_str) {
                Some(json) => {
                    let json::Loaded { tokenizer, cutting, .. } = json::parse(json.as_bytes(), &CONTROL_TEXTS)?;
                    let usual = vocabulary::Defaults::default();
                    vocabulary::Loaded { tokenizer, cutting, usual, doubles: BTreeMap::new() }
                }
                None => vocabulary::from_gguf(gguf)?,
            };
        let mut stops = BTreeSet::new();
        stops.extend(id("tokenizer.ggml.eot_token_id"));
        stops.extend(id("tokenizer.ggml.eom_token_id"));
        Self::assemble(Parts {
            inner: tokenizer,
            cutting,
            doubles,
            bos: id("tokenizer.ggml.bos_token_id").or(usual.bos),
            eos: id("tokenizer.ggml.eos_token_id").or(usual.eos),
            add_bos: flag("tokenizer.ggml.add_bos_token").unwrap_or(usual.add_bos),
            add_eos: flag("tokenizer.ggml.add_eos_token").unwrap_or(false),
            around: [None; 2],
            stops,
        })
    }

    /// Builds the tokenizer of a Hugging Face checkpoint from `tokenizer.json` and, when there is one,
    /// `tokenizer_config.json` (which names the special tokens). Padding and truncation that the file asks for are left out.
    ///
    /// # Errors
    /// Malformed JSON, or what `json.rs` does not let through.
    pub fn from_json(tokenizer_json: &[u8], tokenizer_config: Option<&[u8]>) -> Result<Self, EngineError> {
        let config: serde_json::Value = match tokenizer_config {
            Some(json) if json.len() > MAX_CONFIG => {
                let problem = format!("tokenizer_config.json has {} bytes, more than {MAX_CONFIG}", json.len());
                return Err(EngineError::Tokenizer(problem));
            }
            Some(json) => serde_json::from_slice(json)
                .map_err(|error| EngineError::Tokenizer(format!("tokenizer_config.json cannot be read: {error}")))?,
            None => serde_json::Value::Null,
        };
        // A special token is written as a text or as an object with the text inside.
        let special = |key: &str| {
            let value = config.get(key)?;
            value.as_str().or_else(|| value.get("content")?.as_str())
        };
        let named = [special("bos_token"), special("eos_token")];
        let control: Vec<&str> = CONTROL_TEXTS.iter().copied().chain(named.into_iter().flatten()).collect();
        let json::Loaded { tokenizer: inner, cutting, around } = json::parse(tokenizer_json, &control)?;
        let [bos, eos] = named.map(|text| inner.token_to_id(text?));
        // What the tokenizer itself puts around a text counts where the config says nothing.
        let flag = |key: &str| config.get(key).and_then(serde_json::Value::as_bool);
        let add_bos = flag("add_bos_token").unwrap_or(bos.is_some() && around[0] == bos);
        let add_eos = flag("add_eos_token").unwrap_or(eos.is_some() && around[1] == eos);
        let (doubles, stops) = (BTreeMap::new(), BTreeSet::new());
        Self::assemble(Parts { inner, cutting, doubles, bos, eos, add_bos, add_eos, around, stops })
    }

    fn assemble(parts: Parts) -> Result<Self, EngineError> {
        let Parts { inner, mut cutting, doubles, bos, eos, add_bos, add_eos, around, mut stops } = parts;
        cutting.follow(&inner)?;
        stops.extend(eos);
        stops.extend(END_OF_TURN.iter().filter_map(|text| inner.token_to_id(text)));
        let made = Self {
            controls: Arc::new(Controls::of(&inner)),
            inner: Arc::new(inner),
            plain: Arc::default(),
            cutting: Arc::new(cutting),
            doubles: Arc::new(doubles),
            bos,
            eos,
            add_bos,
            add_eos,
            around,
            stops,
        };
        // What fails at any text is found here rather than at the first question. Other errors are none yet: a vocabulary
        // need not have all these letters.
        match made.encode(PROBE).and_then(|ids| made.decode(&ids)) {
            Err(error) if library::is_panic(&error) => Err(error),
            _ => Ok(made),
        }
    }

    /// Lets these tokens end generation too.
    pub fn stop_at(&mut self, ids: impl IntoIterator<Item = u32>) {
        self.stops.extend(ids);
    }

    /// Refuses special tokens that a model of `vocab` tokens does not have: it would fail at every request.
    ///
    /// # Errors
    /// [`EngineError::Inconsistent`], with the token.
    pub fn check_ids(&self, vocab: usize) -> Result<(), EngineError> {
        let named = [("beginning-of-sequence", self.bos), ("end-of-sequence", self.eos)];
        let named = named.into_iter().filter_map(|(what, id)| Some((what, id?)));
        for (what, id) in named.chain(self.stops.iter().map(|id| ("end-of-answer", *id))) {
            if id as usize >= vocab {
                return Err(EngineError::Inconsistent(format!(
                    "the {what} token is {id}, but the model has only {vocab} tokens"
                )));
            }
        }
        Ok(())
    }

    /// Token ids of `text`. Control tokens written out in the text are recognised; none are added.
    ///
    /// # Errors
    /// The underlying tokenizer's.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, EngineError> {
        self.encode_until(text, &never)
    }

    fn encode_until(&self, text: &str, stop: &(dyn Fn() -> bool + Sync)) -> Result<Vec<u32>, EngineError> {
        library::encode(&self.inner, self.inner.get_added_vocabulary(), &self.cutting, text, stop)
    }

    /// Token ids of a prompt whose control tokens are a template's: as [`encode`](Self::encode), but what a mark breaks is
    /// text (see [`Prompt`](super::Prompt)), and with the beginning-of-sequence token in front when the file asks for one and
    /// the text does not have it already. No end of sequence follows: the prompt is to be continued.
    ///
    /// # Errors
    /// The underlying tokenizer's.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, EngineError> {
        self.encode_prompt_until(text, &never)
    }

    /// The same, given up when `stop` says so. It is asked at every piece of a long text.
    ///
    /// # Errors
    /// [`EngineError::Stopped`] besides.
    pub fn encode_prompt_until(&self, text: &str, stop: &(dyn Fn() -> bool + Sync)) -> Result<Vec<u32>, EngineError> {
        let ids = if text.contains(BREAK) {
            let (holed, controls) = self.controls.holed(text);
            self.encode_holed(&holed, &controls, stop)?
        } else {
            self.encode_until(text, stop)?
        };
        Ok(self.begun(ids))
    }

    /// Token ids of a plain text, in which nothing is a control token: with the beginning-of-sequence token in front when
    /// the file asks for one.
    ///
    /// # Errors
    /// The underlying tokenizer's.
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>, EngineError> {
        self.encode_text_until(text, &never)
    }

    /// The same, given up when `stop` says so. It is asked at every piece of a long text.
    ///
    /// # Errors
    /// [`EngineError::Stopped`] besides.
    pub fn encode_text_until(&self, text: &str, stop: &(dyn Fn() -> bool + Sync)) -> Result<Vec<u32>, EngineError> {
        let ids = if self.controls.touch(text) {
            self.encode_holed(&Controls::plain(text), &[], stop)?
        } else {
            self.encode_until(text, stop)?
        };
        Ok(self.begun(ids))
    }

    /// Token ids of a text that is whole: as [`encode_text`](Self::encode_text), with the end-of-sequence token behind when
    /// the file asks for one.
    ///
    /// # Errors
    /// The underlying tokenizer's.
    pub fn encode_whole(&self, text: &str) -> Result<Vec<u32>, EngineError> {
        self.encode_whole_until(text, &never)
    }

    /// The same, given up when `stop` says so. It is asked at every piece of a long text.
    ///
    /// # Errors
    /// [`EngineError::Stopped`] besides.
    pub fn encode_whole_until(&self, text: &str, stop: &(dyn Fn() -> bool + Sync)) -> Result<Vec<u32>, EngineError> {
        let mut ids = self.encode_text_until(text, stop)?;
        if let Some(eos) = self.eos
            && self.add_eos
            && ids.last() != Some(&eos)
        {
            ids.push(eos);
        }
        Ok(ids)
    }

    fn begun(&self, mut ids: Vec<u32>) -> Vec<u32> {
        if let Some(bos) = self.bos
            && self.add_bos
            && ids.first() != Some(&bos)
        {
            ids.insert(0, bos);
        }
        ids
    }

    /// A text in which stand-ins are in the places of `controls`, and nothing else is a control token.
    fn encode_holed(
        &self,
        text: &str,
        controls: &[u32],
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Vec<u32>, EngineError> {
        let model = self.inner.get_model();
        let plain = match self.plain.get() {
            Some(plain) => plain,
            None => {
                let mut plain = self.inner.get_added_vocabulary().clone();
                plain.set_encode_special_tokens(true);
                let hole = AddedToken::from(HOLE.to_string(), false).normalized(false);
                guarded("at the stand-in", || plain.add_tokens([hole], model, self.inner.get_normalizer()))?;
                self.plain.get_or_init(|| plain)
            }
        };
        let hole = plain.token_to_id(HOLE.encode_utf8(&mut [0; 4]), model);
        let mut controls = controls.iter().copied();
        let ids = library::encode(&self.inner, plain, &self.cutting, text, stop)?;
        Ok(ids.into_iter().filter_map(|id| if Some(id) == hole { controls.next() } else { Some(id) }).collect())
    }

    /// `text` with marks in the control tokens that it reads like; see [`Prompt`](super::Prompt).
    pub(super) fn broken<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.controls.broken(text)
    }

    /// The token that has the text of `id`: another one where the file has that text twice.
    fn first(&self, id: u32) -> u32 {
        self.doubles.get(&id).copied().unwrap_or(id)
    }

    /// The text of `ids`, without special tokens.
    ///
    /// # Errors
    /// The underlying tokenizer's.
    pub fn decode(&self, ids: &[u32]) -> Result<String, EngineError> {
        if self.doubles.is_empty() {
            return library::decode(&self.inner, ids, true);
        }
        library::decode(&self.inner, &ids.iter().map(|id| self.first(*id)).collect::<Vec<_>>(), true)
    }

    /// The text of one token as it would be shown: special tokens by name, part of a character as U+FFFD.
    pub fn token_text(&self, id: u32) -> String {
        library::decode(&self.inner, &[self.first(id)], false).unwrap_or_default()
    }

    /// The bytes of one token, also where they are a part of a character; those of the name for special tokens.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        let raw = self.inner.id_to_token(self.first(id)).unwrap_or_default();
        if self.control_text(id).is_some() {
            return raw.into_bytes();
        }
        let digits = raw.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>')).filter(|digits| digits.len() == 2);
        if let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            return vec![byte];
        }
        let text = self.token_text(id);
        let whole = || text.clone().into_bytes();
        if text.contains('\u{FFFD}') { stream::byte_level(&raw).unwrap_or_else(whole) } else { whole() }
    }

    /// The text of a control token; `None` for other tokens.
    pub fn control_text(&self, id: u32) -> Option<String> {
        let text = self.inner.id_to_token(self.first(id))?;
        self.inner.get_added_vocabulary().is_special_token(&text).then_some(text)
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

    /// What `tokenizer.json` puts in front of a text and behind it, whatever `tokenizer_config.json` says: `[CLS]` and `[SEP]`
    /// of a BERT.
    pub fn around(&self) -> [Option<u32>; 2] {
        self.around
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
        TextStream::new(self.clone())
    }

    /// As [`stream`](Self::stream), for what follows `before`: a first space that the text would begin with stays, as
    /// SentencePiece's decoder leaves out the space that its encoder puts in front of a text, and only that.
    ///
    /// # Errors
    /// The underlying tokenizer's.
    pub fn stream_after(&self, before: &[u32]) -> Result<TextStream, EngineError> {
        // Behind a control token a text begins anew.
        let begin = before.iter().rposition(|id| self.control_text(*id).is_some()).map_or(0, |at| at + 1);
        TextStream::after(self.clone(), before.get(begin..).unwrap_or_default())
    }
}

#[cfg(test)]
mod cut_tests;
#[cfg(test)]
mod tests;
