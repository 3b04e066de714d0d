//! `tokenizer.json`, read so that hostile files end in an error.
//!
//! The library that computes with it panics, aborts or runs out of memory at what it does not expect. So only what is known
//! to be harmless reaches it: the model is built here from checked lists, every other part is looked through by name
//! (`parts.rs`) before the library parses it, and what this engine has no use for is never handed over:
//!
//! - padding, truncation and dropout: texts come one at a time, are never cut silently, and are the same every time;
//! - the post-processor, of which only the tokens at both ends are of interest, for the question whether a text begins with
//!   a beginning-of-sequence token.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::models::unigram::Unigram;
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::{AddedToken, ModelWrapper, Tokenizer};

use super::cuts::Rule;
use super::library::{Cutting, guarded};
use super::{CACHED_WORDS, MAX_TOKENS, parts};
use crate::error::EngineError;

/// Largest file, bytes. Those of vocabularies of 260,000 tokens have about 33 MB.
pub(super) const MAX_FILE: usize = 64 << 20;
/// Most merges.
const MAX_MERGES: usize = 1 << 22;
/// Longest token, bytes.
const MAX_TOKEN: usize = 1 << 12;
/// Longest token of a unigram model, bytes, and most of all tokens together: each byte is a node of a tree that is walked
/// through from every letter of a text. Real ones stay below 128, and below 4 MB.
const MAX_PIECE: usize = 256;
const MAX_PIECES: usize = 8 << 20;
/// Most tokens outside of the model, and most bytes of all of them together: the library keeps about 100 bytes for each of these,
/// in one piece. Real ones have some 10 kB.
pub(super) const MAX_ADDED: usize = 1 << 17;
pub(super) const MAX_ADDED_BYTES: usize = 1 << 20;
/// Longest word that a word-piece model cuts: it tries all ends from all beginnings.
const MAX_WORD: usize = 200;

/// A tokenizer, how it cuts texts, and which tokens it puts around one.
pub(super) struct Loaded {
    pub tokenizer: Tokenizer,
    pub cutting: Cutting,
    pub around: [Option<u32>; 2],
}

fn fail(message: impl fmt::Display) -> EngineError {
    EngineError::Tokenizer(format!("tokenizer.json: {message}"))
}

/// Reads the file. Tokens whose text is among `control` are control tokens, whatever the file says.
///
/// # Errors
/// It is not JSON of that form, is too large, or asks for what the library cannot be trusted with; by name.
pub(super) fn parse(bytes: &[u8], control: &[&str]) -> Result<Loaded, EngineError> {
    if bytes.len() > MAX_FILE {
        return Err(fail(format!("it has {} bytes, more than {MAX_FILE}", bytes.len())));
    }
    let file: File = serde_json::from_slice(bytes).map_err(fail)?;
    if let Some(version) = file.version.as_deref().filter(|version| *version != "1.0") {
        return Err(fail(format!("its version is {version:?}; only 1.0 is read")));
    }
    let model = file.model.ok_or_else(|| fail("it has no model"))?;
    let merges = model.is_plain();
    let model = model.build()?;
    let mut cutting = Cutting::default();
    let normalizer = parts::normalizer(file.normalizer.as_ref(), &mut cutting).map_err(fail)?;
    let pre_tokenizer = parts::pre_tokenizer(file.pre_tokenizer.as_ref(), &mut cutting).map_err(fail)?;
    cutting.rule = Rule::of(file.normalizer.as_ref(), file.pre_tokenizer.as_ref(), merges);
    if let (Rule::Pairs { .. }, Some(normalizer)) = (cutting.rule, &normalizer) {
        cutting.go_on_with(&parts::without_front(normalizer))?;
    }
    let decoder = parts::decoder(file.decoder.as_ref()).map_err(fail)?;
    let around = file.post_processor.as_ref().map_or([None; 2], around);
    let added: Vec<AddedToken> = file.added_tokens.unwrap_or_default().0;
    let added = added.into_iter().map(|token| {
        let special = token.special || control.contains(&token.content.as_str());
        // A control token is found in the text as it is written: what a normalizer makes of a text is no control token.
        let normalized = token.normalized && !special;
        token.special(special).normalized(normalized)
    });
    let tokenizer = guarded("at the file", || {
        let mut tokenizer = Tokenizer::new(model);
        tokenizer.with_normalizer(normalizer)?;
        tokenizer.with_pre_tokenizer(pre_tokenizer);
        tokenizer.with_decoder(decoder);
        tokenizer.add_tokens(added)?;
        Ok(tokenizer)
    })?;
    Ok(Loaded { tokenizer, cutting, around })
}

/// The tokens that a post-processor puts in front of a text and behind it.
fn around(post_processor: &Value) -> [Option<u32>; 2] {
    let id = |value: Option<&Value>| value.and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
    let get = |key: &str| post_processor.get(key);
    match get("type").and_then(Value::as_str) {
        Some("TemplateProcessing") => {
            let pieces = get("single").and_then(Value::as_array);
            let ids = |piece: Option<&Value>| {
                let name = piece?.get("SpecialToken")?.get("id")?.as_str()?;
                get("special_tokens")?.get(name)?.get("ids")?.as_array()
            };
            [
                id(pieces.and_then(|pieces| ids(pieces.first())?.first())),
                id(pieces.and_then(|pieces| ids(pieces.last())?.last())),
            ]
        }
        Some("BertProcessing" | "RobertaProcessing") => {
            [id(get("cls").and_then(|pair| pair.get(1))), id(get("sep").and_then(|pair| pair.get(1)))]
        }
        // Depth is bounded by the parser of the file.
        Some("Sequence") => {
            let inner = get("processors").and_then(Value::as_array);
            let found = inner.into_iter().flatten().map(around);
            found.fold([None; 2], |[first, last], [front, back]| [first.or(front), last.or(back)])
        }
        _ => [None; 2],
    }
}

#[derive(Deserialize)]
struct File {
    version: Option<String>,
    added_tokens: Option<Added>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    decoder: Option<Value>,
    model: Option<Model>,
}

#[derive(Default)]
struct Added(Vec<AddedToken>);

impl<'de> Deserialize<'de> for Added {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Added;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of added tokens")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Added, A::Error> {
                let (mut tokens, mut bytes) = (Vec::new(), 0);
                while let Some(token) = list.next_element::<AddedToken>()? {
                    bytes += token.content.len();
                    if token.content.len() > MAX_TOKEN || tokens.len() >= MAX_ADDED || bytes > MAX_ADDED_BYTES {
                        return Err(A::Error::custom(format!(
                            "there are more than {MAX_ADDED} added tokens, or one of them has more than {MAX_TOKEN} bytes, or all of \
                             them more than {MAX_ADDED_BYTES}"
                        )));
                    }
                    tokens.push(token);
                }
                Ok(Added(tokens))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: Option<Tokens>,
    merges: Option<Merges>,
    unk_token: Option<String>,
    unk_id: Option<u64>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    fuse_unk: Option<bool>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
    max_input_chars_per_word: Option<usize>,
}

/// A vocabulary: texts with ids, or a list of texts with scores.
enum Tokens {
    Ids(Vocab),
    Scores(Vec<(String, f64)>),
}

fn too_many<E: serde::de::Error>() -> E {
    E::custom(format!("the vocabulary has more than {MAX_TOKENS} tokens, or one of more than {MAX_TOKEN} bytes"))
}

impl<'de> Deserialize<'de> for Tokens {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Tokens;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("tokens with ids, or a list of tokens with scores")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tokens, A::Error> {
                let mut vocab = Vocab::default();
                while let Some((token, id)) = map.next_entry::<String, u64>()? {
                    if token.len() > MAX_TOKEN || vocab.len() >= MAX_TOKENS {
                        return Err(too_many());
                    }
                    let id = u32::try_from(id).ok().filter(|id| (*id as usize) < MAX_TOKENS);
                    let id =
                        id.ok_or_else(|| A::Error::custom(format!("token {token:?} has an id that is too large")))?;
                    vocab.insert(token, id);
                }
                Ok(Tokens::Ids(vocab))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tokens, A::Error> {
                let mut scores: Vec<(String, f64)> = Vec::new();
                while let Some((token, score)) = list.next_element::<(String, f64)>()? {
                    if token.len() > MAX_TOKEN || scores.len() >= MAX_TOKENS {
                        return Err(too_many());
                    }
                    scores.push((token, score));
                }
                Ok(Tokens::Scores(scores))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

struct Merges(Vec<(String, String)>);

/// `"a b"`, or `["a", "b"]` in newer files.
struct Merge(String, String);

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Merge;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a merge of two tokens")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Merge, E> {
                match text.split_once(' ') {
                    Some((left, right)) if !right.contains(' ') => Ok(Merge(left.to_owned(), right.to_owned())),
                    _ => Err(E::custom(format!("the merge {text:?} is not of two tokens"))),
                }
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Merge, A::Error> {
                match (list.next_element()?, list.next_element()?, list.next_element::<IgnoredAny>()?) {
                    (Some(left), Some(right), None) => Ok(Merge(left, right)),
                    _ => Err(A::Error::custom("a merge is not of two tokens")),
                }
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for Merges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Merges;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of merges")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Merges, A::Error> {
                let mut merges = Vec::new();
                // Old files begin with the version of their format.
                while let Some(Merge(left, right)) = list.next_element()? {
                    if merges.len() >= MAX_MERGES {
                        return Err(A::Error::custom(format!("there are more than {MAX_MERGES} merges")));
                    }
                    if !left.starts_with("#version") {
                        merges.push((left, right));
                    }
                }
                Ok(Merges(merges))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

impl Model {
    /// Whether merges alone decide what a word becomes.
    fn is_plain(&self) -> bool {
        let is_empty = |text: &Option<String>| text.as_ref().is_none_or(String::is_empty);
        matches!(self.kind.as_deref(), None | Some("BPE"))
            && self.merges.is_some()
            && is_empty(&self.continuing_subword_prefix)
            && is_empty(&self.end_of_word_suffix)
            && self.ignore_merges != Some(true)
    }

    fn build(self) -> Result<ModelWrapper, EngineError> {
        let vocab = self.vocab.ok_or_else(|| fail("the model has no vocabulary"))?;
        let usual = match &vocab {
            Tokens::Scores(_) => "Unigram",
            Tokens::Ids(_) if self.merges.is_some() => "BPE",
            Tokens::Ids(_) if self.max_input_chars_per_word.is_some() => "WordPiece",
            Tokens::Ids(_) => "WordLevel",
        };
        let kind = self.kind.unwrap_or_else(|| usual.to_owned());
        // The library puts them to every letter, and asks nobody meanwhile.
        for (name, affix) in [("prefix", &self.continuing_subword_prefix), ("suffix", &self.end_of_word_suffix)] {
            if affix.as_ref().is_some_and(|affix| affix.len() > MAX_PIECE) {
                return Err(fail(format!("the {name} of parts of words has more than {MAX_PIECE} bytes")));
            }
        }
        let unknown = |default: &str| self.unk_token.clone().unwrap_or_else(|| default.to_owned());
        match (kind.as_str(), vocab) {
            ("BPE", Tokens::Ids(vocab)) => {
                let merges = self.merges.map(|merges| merges.0).unwrap_or_default();
                let prefix = self.continuing_subword_prefix.filter(|prefix| !prefix.is_empty());
                check_merges(&vocab, &merges, prefix.as_deref().unwrap_or_default())?;
                let mut bpe = BPE::builder().vocab_and_merges(vocab, merges).cache_capacity(CACHED_WORDS);
                bpe = bpe.fuse_unk(self.fuse_unk == Some(true)).byte_fallback(self.byte_fallback == Some(true));
                bpe = bpe.ignore_merges(self.ignore_merges == Some(true));
                if let Some(unknown) = self.unk_token {
                    bpe = bpe.unk_token(unknown);
                }
                if let Some(prefix) = prefix {
                    bpe = bpe.continuing_subword_prefix(prefix);
                }
                if let Some(suffix) = self.end_of_word_suffix {
                    bpe = bpe.end_of_word_suffix(suffix);
                }
                Ok(ModelWrapper::BPE(guarded("at the vocabulary", || bpe.build())?))
            }
            ("WordPiece", Tokens::Ids(vocab)) => {
                let word = self.max_input_chars_per_word.unwrap_or(100);
                if word > MAX_WORD {
                    return Err(fail(format!("words of {word} letters are cut, more than {MAX_WORD}")));
                }
                let model = WordPiece::builder().vocab(vocab).unk_token(unknown("[UNK]"));
                let prefix = self.continuing_subword_prefix.clone().unwrap_or_else(|| "##".to_owned());
                let model = model.continuing_subword_prefix(prefix).max_input_chars_per_word(word);
                Ok(ModelWrapper::WordPiece(guarded("at the vocabulary", || model.build())?))
            }
            ("WordLevel", Tokens::Ids(vocab)) => {
                let model = WordLevel::builder().vocab(vocab).unk_token(unknown("<unk>"));
                Ok(ModelWrapper::WordLevel(guarded("at the vocabulary", || model.build())?))
            }
            ("Unigram", Tokens::Scores(scores)) => {
                let bytes: usize = scores.iter().map(|(token, _)| token.len()).sum();
                if bytes > MAX_PIECES || scores.iter().any(|(token, _)| token.len() > MAX_PIECE) {
                    return Err(fail(format!(
                        "a token has more than {MAX_PIECE} bytes, or all have more than {MAX_PIECES} together"
                    )));
                }
                let unknown = self.unk_id.map(usize::try_from).transpose().map_err(fail)?;
                let fallback = self.byte_fallback == Some(true);
                let mut model = guarded("at the vocabulary", || Unigram::from(scores, unknown, fallback))?;
                model.resize_cache(CACHED_WORDS);
                Ok(ModelWrapper::Unigram(model))
            }
            (kind, _) => Err(EngineError::Unsupported(format!(
                "tokenizer.json has a model of the type {kind:?}; this engine reads BPE, WordPiece, WordLevel and Unigram, \
                 each with its own form of vocabulary"
            ))),
        }
    }
}

/// Every merge is of two tokens whose union is a token. The library joins them in a buffer of the longest token's size,
/// without a look at whether the right one has the prefix that it cuts off.
fn check_merges(vocab: &Vocab, merges: &[(String, String)], prefix: &str) -> Result<(), EngineError> {
    let mut merged = String::new();
    for (left, right) in merges {
        let rest = right.strip_prefix(prefix);
        let known = vocab.contains_key(left) && vocab.contains_key(right);
        let sound = known
            && rest.is_some_and(|rest| {
                merged.clear();
                merged.push_str(left);
                merged.push_str(rest);
                vocab.contains_key(&merged)
            });
        if !sound {
            let shown = |text: &str| text.chars().take(40).collect::<String>();
            return Err(fail(format!(
                "the merge of {:?} and {:?} is not of tokens of the vocabulary that make another",
                shown(left),
                shown(right)
            )));
        }
    }
    Ok(())
}
