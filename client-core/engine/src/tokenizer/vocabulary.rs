//! GGUF's lists of tokens, merges, scores and kinds, as a tokenizer.
//!
//! Two kinds of vocabulary are in use: `gpt2` is byte-level BPE with its merges in order; `llama` is SentencePiece, whose
//! tokens have scores. llama.cpp merges the adjacent pair whose union has the highest score; that is BPE whose merges are all
//! pairs that make a token, ordered by that token's score, and so it is written down here.

use std::collections::BTreeMap;

use tokenizers::decoders::DecoderWrapper;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as DecoderSequence;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::{NormalizerWrapper, Prepend, Replace, Sequence as NormalizerSequence};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

use super::cuts::Rule;
use super::json::{MAX_ADDED, MAX_ADDED_BYTES};
use super::library::{Cutting, guarded};
use super::{CACHED_WORDS, CONTROL_TEXTS, MAX_TOKENS, schemes};
use crate::error::EngineError;
use crate::gguf::{ArrayView, Gguf, Value};

/// Longest token of a SentencePiece vocabulary, bytes: all its cuts are looked up. Real ones stay below 128.
const MAX_PIECE: usize = 512;
/// Most cuts of all tokens into two others, as multiples of their number, and how many more. Real ones have two to a token.
const MAX_CUTS: usize = 16;
const MORE_CUTS: usize = 1 << 16;
/// SentencePiece's sign for a space.
const SPACE: &str = "\u{2581}";

/// A tokenizer with all that is known of it besides.
pub(super) struct Loaded {
    pub tokenizer: Tokenizer,
    pub cutting: Cutting,
    pub usual: Defaults,
    /// Tokens that have the text of an earlier one, with that one.
    pub doubles: BTreeMap<u32, u32>,
}

/// What holds where a file says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Defaults {
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub add_bos: bool,
}

fn fail(message: impl Into<String>) -> EngineError {
    EngineError::Tokenizer(message.into())
}

fn library(error: impl std::fmt::Display) -> EngineError {
    EngineError::Tokenizer(error.to_string())
}

/// The tokenizer that the metadata describes.
///
/// # Errors
/// Another kind of vocabulary, a scheme that is not known, or lists that contradict each other.
pub(super) fn from_gguf(gguf: &Gguf<'_>) -> Result<Loaded, EngineError> {
    let kind = gguf.get("tokenizer.ggml.model").and_then(Value::as_str).unwrap_or("(none)");
    if !["gpt2", "llama"].contains(&kind) {
        return Err(EngineError::Unsupported(format!(
            "the file's tokenizer is of the kind {kind:?}; this engine reads byte-level BPE (\"gpt2\") and SentencePiece \
             (\"llama\")"
        )));
    }
    let tokens = strings(gguf, "tokenizer.ggml.tokens").ok_or_else(|| fail("the list of tokens is missing"))?;
    if tokens.len() > MAX_TOKENS {
        return Err(fail(format!("there are {} tokens, more than {MAX_TOKENS}", tokens.len())));
    }
    check_ids(gguf, tokens.len())?;
    let (mut vocab, mut doubles) = (Vocab::default(), BTreeMap::new());
    vocab.reserve(tokens.len());
    for (id, token) in tokens.iter().enumerate() {
        // Official files have some twice, as fillings; text is encoded as the first.
        match vocab.get(*token) {
            Some(first) => _ = doubles.insert(id as u32, *first),
            None => _ = vocab.insert((*token).to_owned(), id as u32),
        }
    }
    let (mut tokenizer, cutting, usual) =
        if kind == "gpt2" { byte_level(gguf, vocab)? } else { sentence_piece(gguf, tokens, vocab)? };
    add_special(&mut tokenizer, gguf, tokens, usual)?;
    Ok(Loaded { tokenizer, cutting, usual, doubles })
}

/// Refuses ids of special tokens that no token has: the model would be asked for them with every prompt.
fn check_ids(gguf: &Gguf<'_>, count: usize) -> Result<(), EngineError> {
    for key in ["bos", "eos", "eot", "eom", "unknown"] {
        let key = format!("tokenizer.ggml.{key}_token_id");
        if let Some(value) = gguf.get(&key)
            && value.as_u64().is_none_or(|id| id >= count as u64)
        {
            return Err(fail(format!("{key} is {value:?}, but there are {count} tokens")));
        }
    }
    Ok(())
}

fn strings<'g, 'a>(gguf: &'g Gguf<'a>, key: &str) -> Option<&'g [&'a str]> {
    gguf.get(key).and_then(Value::as_array).and_then(ArrayView::as_strs)
}

fn byte_level(gguf: &Gguf<'_>, vocab: Vocab) -> Result<(Tokenizer, Cutting, Defaults), EngineError> {
    let merges = strings(gguf, "tokenizer.ggml.merges").ok_or_else(|| fail("the list of merges is missing"))?;
    let mut pairs = Vec::with_capacity(merges.len());
    for merge in merges {
        // A token may begin with a space only as the sign for it, so the first space that is not the first byte parts them.
        let (left, right) = merge.split_once(' ').ok_or_else(|| fail(format!("merge {merge:?} is not two tokens")))?;
        let merged = format!("{left}{right}");
        if ![left, right, &merged].iter().all(|part| vocab.contains_key(*part)) {
            return Err(fail(format!("merge {merge:?} is of tokens that are not in the list")));
        }
        pairs.push((left.to_owned(), right.to_owned()));
    }
    let scheme = schemes::named(gguf.get("tokenizer.ggml.pre").and_then(Value::as_str).unwrap_or("default"))?;
    let bpe = BPE::builder().vocab_and_merges(vocab, pairs).ignore_merges(scheme.ignore_merges);
    let bpe = bpe.cache_capacity(CACHED_WORDS);
    let mut tokenizer = Tokenizer::new(guarded("at the vocabulary", || bpe.build())?);
    tokenizer.with_pre_tokenizer(Some(scheme.pre_tokenizer()?));
    tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
    let usual = Defaults { bos: None, eos: None, add_bos: scheme.add_bos };
    Ok((tokenizer, Cutting::known(true, Rule::Words), usual))
}

fn sentence_piece(
    gguf: &Gguf<'_>,
    tokens: &[&str],
    vocab: Vocab,
) -> Result<(Tokenizer, Cutting, Defaults), EngineError> {
    let scores = gguf.get("tokenizer.ggml.scores").and_then(Value::as_array);
    let scores: Vec<f64> = scores.map(|list| list.iter().filter_map(|v| v.as_f64()).collect()).unwrap_or_default();
    if scores.len() != tokens.len() || scores.iter().any(|score| score.is_nan()) {
        return Err(fail(format!("there are {} tokens with {} scores", tokens.len(), scores.len())));
    }
    let kinds = kinds(gguf, tokens.len());
    // There are hundreds of thousands: the token that a pair makes, and the two, by their ids.
    let mut pairs: Vec<[u32; 3]> = Vec::with_capacity(2 * tokens.len());
    for (id, (token, kind)) in tokens.iter().zip(&kinds).enumerate() {
        if token.len() > MAX_PIECE {
            return Err(fail(format!("token {id} has {} bytes, more than {MAX_PIECE}", token.len())));
        }
        // Control tokens and bytes are never made of others.
        if !matches!(kind, Kind::Normal | Kind::UserDefined) {
            continue;
        }
        for (cut, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(cut);
            if let (Some(left), Some(right)) = (vocab.get(left), vocab.get(right)) {
                if pairs.len() > MAX_CUTS * tokens.len() + MORE_CUTS {
                    return Err(fail("its tokens can be made of others in too many ways"));
                }
                pairs.push([id as u32, *left, *right]);
            }
        }
    }
    let score = |[made, ..]: &[u32; 3]| scores.get(*made as usize).copied().unwrap_or_default();
    pairs.sort_unstable_by(|a, b| (-score(a)).total_cmp(&-score(b)).then_with(|| a.cmp(b)));
    let text = |id: u32| tokens.get(id as usize).map_or_else(String::new, |token| (*token).to_owned());
    let merges = pairs.iter().map(|[_, left, right]| (text(*left), text(*right))).collect();
    drop(pairs);

    let id = |key: &str| gguf.get(key).and_then(Value::as_u64).and_then(|id| usize::try_from(id).ok());
    let unknown = tokens.get(id("tokenizer.ggml.unknown_token_id").unwrap_or(0));
    let mut bpe = BPE::builder().vocab_and_merges(vocab, merges).byte_fallback(true).cache_capacity(CACHED_WORDS);
    if let Some(unknown) = unknown {
        bpe = bpe.unk_token((*unknown).to_owned());
    }
    let mut tokenizer = Tokenizer::new(guarded("at the vocabulary", || bpe.build())?);

    let prefix = gguf.get("tokenizer.ggml.add_space_prefix").and_then(Value::as_bool).unwrap_or(true);
    let mut steps = Vec::new();
    if prefix {
        steps.push(NormalizerWrapper::Prepend(Prepend::new(SPACE.to_owned())));
    }
    let sign = NormalizerWrapper::Replace(Replace::new(" ", SPACE).map_err(library)?);
    steps.push(sign.clone());
    let mut cutting = Cutting::known(false, Rule::Pairs { sign: true, at_spaces: false });
    let normalizer = NormalizerWrapper::Sequence(NormalizerSequence::new(steps));
    cutting.go_on_with(&sign)?;
    tokenizer.with_normalizer(Some(normalizer)).map_err(library)?;
    let mut steps = vec![
        DecoderWrapper::Replace(Replace::new(SPACE, " ").map_err(library)?),
        DecoderWrapper::ByteFallback(ByteFallback::new()),
        DecoderWrapper::Fuse(Fuse::new()),
    ];
    if prefix {
        steps.push(DecoderWrapper::Strip(Strip::new(' ', 1, 0)));
    }
    tokenizer.with_decoder(Some(DecoderSequence::new(steps)));
    // llama.cpp's defaults for SentencePiece vocabularies.
    let usual = |id: u32| (tokens.len() > id as usize).then_some(id);
    Ok((tokenizer, cutting, Defaults { bos: usual(1), eos: usual(2), add_bos: true }))
}

/// What a token is for; llama.cpp's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    /// 2: unknown; 3: control.
    Special,
    UserDefined,
    /// 5: unused; 6: a byte.
    Other,
}

/// The kinds of the first `count` tokens; those of which nothing is said are normal.
fn kinds(gguf: &Gguf<'_>, count: usize) -> Vec<Kind> {
    let list = gguf.get("tokenizer.ggml.token_type").and_then(Value::as_array);
    let mut kinds: Vec<Kind> = list
        .iter()
        .flat_map(|list| ArrayView::iter(list))
        .take(count)
        .map(|kind| match kind.as_u64() {
            Some(2 | 3) => Kind::Special,
            Some(4) => Kind::UserDefined,
            Some(5 | 6) => Kind::Other,
            _ => Kind::Normal,
        })
        .collect();
    kinds.resize(count, Kind::Normal);
    kinds
}

/// Adds what is found in a text before anything is cut: control tokens, among them those that end a turn whatever kind the
/// file says they are, and tokens that users have defined.
fn add_special(
    tokenizer: &mut Tokenizer,
    gguf: &Gguf<'_>,
    tokens: &[&str],
    usual: Defaults,
) -> Result<(), EngineError> {
    let mut kinds = kinds(gguf, tokens.len());
    let named = ["bos", "eos", "eot", "eom"].map(|key| gguf.get(&format!("tokenizer.ggml.{key}_token_id")));
    let named = named.into_iter().flatten().filter_map(Value::as_u64);
    for id in named.chain([usual.bos, usual.eos].into_iter().flatten().map(u64::from)) {
        if let Some(kind) = usize::try_from(id).ok().and_then(|id| kinds.get_mut(id)) {
            *kind = Kind::Special;
        }
    }
    for (token, kind) in tokens.iter().zip(&mut kinds) {
        if CONTROL_TEXTS.contains(token) {
            *kind = Kind::Special;
        }
    }
    let added = tokens.iter().zip(&kinds).filter(|(_, kind)| matches!(kind, Kind::Special | Kind::UserDefined));
    let (count, bytes) = added.fold((0, 0), |(count, bytes), (token, _)| (count + 1, bytes + token.len()));
    if count > MAX_ADDED || bytes > MAX_ADDED_BYTES {
        return Err(fail(format!(
            "there are {count} control and user-defined tokens of {bytes} bytes, more than {MAX_ADDED} or {MAX_ADDED_BYTES}"
        )));
    }
    let of = |wanted: Kind, special: bool| -> Vec<AddedToken> {
        let chosen = tokens.iter().zip(&kinds).filter(|(token, kind)| **kind == wanted && !token.is_empty());
        chosen.map(|(token, _)| AddedToken::from(*token, special).normalized(false)).collect()
    };
    guarded("at the special tokens", || {
        tokenizer.add_special_tokens(of(Kind::Special, true))?;
        tokenizer.add_tokens(of(Kind::UserDefined, false))
    })?;
    Ok(())
}
