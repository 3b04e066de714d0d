//! The only calls of the `tokenizers` library that see outside data: what it panics at becomes an error, and a text at which
//! its regular expressions would give up is refused.
//!
//! fancy-regex counts the steps that it takes back and gives up after a million; the library then takes all that is left of
//! the text as one piece and says nothing. With the patterns of known schemes only a run of white space takes so many
//! steps; others are tried on the text first.
//!
//! In wasm32 nothing unwinds. There the checks of `json.rs` have to hold alone.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use fancy_regex::Regex;
use tokenizers::normalizer::Range;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::split::Split;
use tokenizers::tokenizer::pattern::Pattern;
use tokenizers::{
    Model as _, NormalizedString, Normalizer, NormalizerWrapper, OffsetType, Offsets, PreTokenizedString,
    PreTokenizer as _,
};

use super::cuts::{self, Bonds, Rule};
use super::schemes;
use crate::error::EngineError;

/// Longest run of white space that known patterns are given.
const MAX_RUN: usize = 250_000;
/// Longest text, bytes.
const MAX_TEXT: usize = 64 << 20;
/// Words between two questions whether anybody waits, where a text is not cut into pieces.
const WORDS: usize = 64;

/// How an error begins that was a panic.
const FAILED: &str = "the tokenizers library has failed ";

/// Whether `error` was a panic.
pub(super) fn is_panic(error: &EngineError) -> bool {
    matches!(error, EngineError::Tokenizer(problem) if problem.starts_with(FAILED))
}

/// What the library does in `work`, with a panic as an error.
pub(super) fn guarded<T>(what: &str, work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, EngineError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| EngineError::Tokenizer(error.to_string())),
        Err(_) => Err(EngineError::Tokenizer(format!("{FAILED}{what}; the tokenizer's file is probably damaged"))),
    }
}

/// How a tokenizer cuts texts: into pieces here, and into words by its regular expressions.
#[derive(Debug, Default)]
pub(super) struct Cutting {
    /// Whether there are regular expressions at all.
    pub any: bool,
    /// Those that are not known to need few steps.
    pub strange: Vec<Regex>,
    /// Where long texts may be cut.
    pub rule: Rule,
    /// What to make of a piece that is not the first, where the tokenizer puts something in front of a text: the same without.
    pub later: Option<NormalizerWrapper>,
    /// Made when a long text first comes.
    bonds: OnceLock<Bonds>,
}

impl Cutting {
    /// With the patterns of a known scheme, or none.
    pub(super) fn known(any: bool, rule: Rule, later: Option<NormalizerWrapper>) -> Self {
        Self { any, rule, later, ..Self::default() }
    }

    /// Takes a pattern in.
    ///
    /// # Errors
    /// It is no regular expression.
    pub(super) fn add(&mut self, pattern: &str) -> Result<(), EngineError> {
        self.any = true;
        if !schemes::is_known(pattern) {
            let regex = Regex::new(pattern);
            self.strange.push(regex.map_err(|error| EngineError::Tokenizer(format!("{pattern:?}: {error}")))?);
        }
        Ok(())
    }

    /// Refuses a text that would be cut wrong.
    fn check(&self, text: &str, stop: &dyn Fn() -> bool) -> Result<(), EngineError> {
        if text.len() > MAX_TEXT {
            return Err(EngineError::Tokenizer(format!("the text has more than {} MiB", MAX_TEXT >> 20)));
        }
        if self.any && text.len() > MAX_RUN {
            let mut run = 0;
            for letter in text.chars() {
                run = if letter.is_whitespace() { run + 1 } else { 0 };
                if run > MAX_RUN {
                    return Err(EngineError::Tokenizer(format!(
                        "the text has a run of more than {MAX_RUN} spaces or new lines; leave some of them out"
                    )));
                }
            }
        }
        for found in self.strange.iter().flat_map(|regex| regex.find_iter(text)) {
            match found {
                Err(error) => {
                    return Err(EngineError::Tokenizer(format!(
                        "the tokenizer's regular expression gives up at this text: {error}"
                    )));
                }
                Ok(_) if stop() => return Err(EngineError::Stopped),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// The first piece of a text, and the rest.
    fn piece<'t>(
        &self,
        tokenizer: &tokenizers::Tokenizer,
        text: &'t str,
        bytes: usize,
    ) -> Result<(&'t str, &'t str), EngineError> {
        if text.len() <= bytes || self.rule == Rule::Nowhere {
            return Ok((text, ""));
        }
        let bonds = self.bonds.get_or_init(|| Bonds::of(tokenizer, self.rule));
        self.rule.cut(bonds, text, bytes).and_then(|at| text.split_at_checked(at)).ok_or_else(|| {
            EngineError::Tokenizer(format!(
                "the text has a stretch of more than {} KiB that has no place to cut it, such as a space between two \
                 words; put some into it, or leave it out",
                cuts::LONGEST >> 10
            ))
        })
    }
}

/// A normalizer whose first text goes on after another one.
struct GoesOn<'n> {
    usual: &'n NormalizerWrapper,
    later: &'n NormalizerWrapper,
    begun: AtomicBool,
}

impl Normalizer for GoesOn<'_> {
    fn normalize(&self, text: &mut NormalizedString) -> tokenizers::Result<()> {
        let first = !self.begun.swap(true, Ordering::Relaxed);
        if first { self.later.normalize(text) } else { self.usual.normalize(text) }
    }
}

/// The library's own search for a pattern, which can be stopped between two matches: a pattern may take milliseconds for each
/// letter.
struct Watched<'a> {
    split: &'a Split,
    stop: &'a dyn Fn() -> bool,
}

impl Pattern for Watched<'_> {
    fn find_matches(&self, inside: &str) -> tokenizers::Result<Vec<(Offsets, bool)>> {
        let is_match = !self.split.invert;
        if inside.is_empty() {
            return Ok(vec![((0, 0), !is_match)]);
        }
        let (mut found, mut end) = (Vec::new(), 0);
        for (from, to) in self.split.regex.find_iter(inside) {
            if (self.stop)() {
                return Err("stopped".into());
            }
            if end != from {
                found.push(((end, from), !is_match));
            }
            found.push(((from, to), is_match));
            end = to;
        }
        if end != inside.len() {
            found.push(((end, inside.len()), !is_match));
        }
        Ok(found)
    }
}

/// Cuts a text into words, as the library does.
fn pre_tokenize(
    cut: &PreTokenizerWrapper,
    pieces: &mut PreTokenizedString,
    stop: &dyn Fn() -> bool,
) -> tokenizers::Result<()> {
    match cut {
        PreTokenizerWrapper::Sequence(all) => all.as_ref().iter().try_for_each(|cut| pre_tokenize(cut, pieces, stop)),
        PreTokenizerWrapper::Split(split) => {
            pieces.split(|_, text| text.split(Watched { split, stop }, split.behavior))
        }
        other => other.pre_tokenize(pieces),
    }
}

/// The token ids of `text`, without any that the file wants around it. `stop` is asked between pieces and says whether to give
/// up.
///
/// # Errors
/// The library's, the text cannot be cut, it has a letter for which there is no token, or `stop` said so.
pub(super) fn encode(
    tokenizer: &tokenizers::Tokenizer,
    cutting: &Cutting,
    text: &str,
    stop: &dyn Fn() -> bool,
) -> Result<Vec<u32>, EngineError> {
    encode_pieces(tokenizer, cutting, text, stop, cuts::PIECE)
}

/// As [`encode`], in pieces of about so many bytes.
pub(super) fn encode_pieces(
    tokenizer: &tokenizers::Tokenizer,
    cutting: &Cutting,
    text: &str,
    stop: &dyn Fn() -> bool,
    bytes: usize,
) -> Result<Vec<u32>, EngineError> {
    cutting.check(text, stop)?;
    let mut ids = Vec::new();
    let (mut rest, mut later) = (text, false);
    loop {
        if stop() {
            return Err(EngineError::Stopped);
        }
        let (piece, after) = cutting.piece(tokenizer, rest, bytes)?;
        ids.extend(encode_piece(tokenizer, cutting.later.as_ref().filter(|_| later), piece, stop)?);
        if after.is_empty() {
            return Ok(ids);
        }
        (rest, later) = (after, true);
    }
}

/// The same in one go: the library's own `encode_fast`, with a look at every word.
fn encode_piece(
    tokenizer: &tokenizers::Tokenizer,
    later: Option<&NormalizerWrapper>,
    piece: &str,
    stop: &dyn Fn() -> bool,
) -> Result<Vec<u32>, EngineError> {
    let (words, unknown) = (Cell::new(0usize), RefCell::new(None));
    let made = guarded("at a text", || {
        let added = tokenizer.get_added_vocabulary();
        let mut pieces = match (tokenizer.get_normalizer(), later) {
            (Some(usual), Some(later)) => {
                added.extract_and_normalize(Some(&GoesOn { usual, later, begun: AtomicBool::new(false) }), piece)
            }
            (usual, _) => added.extract_and_normalize(usual, piece),
        };
        if let Some(cut) = tokenizer.get_pre_tokenizer() {
            let asked = || {
                let stops = stop();
                if stops {
                    *unknown.borrow_mut() = Some(EngineError::Stopped);
                }
                stops
            };
            pre_tokenize(cut, &mut pieces, &asked)?;
        }
        let model = tokenizer.get_model();
        pieces.tokenize(|word| {
            words.set(words.get() + 1);
            if words.get().is_multiple_of(WORDS) && stop() {
                *unknown.borrow_mut() = Some(EngineError::Stopped);
                return Err("stopped".into());
            }
            let tokens = model.tokenize(word.get())?;
            // What has no token is left out without a word.
            if tokens.last().map_or(0, |token| token.offsets.1) < word.get().len() {
                *unknown.borrow_mut() = Some(no_token(model, word));
                return Err("a letter has no token".into());
            }
            Ok(tokens)
        })?;
        Ok(pieces.into_encoding(None, 0, OffsetType::None)?.get_ids().to_vec())
    });
    match unknown.into_inner() {
        Some(error) => Err(error),
        None => made,
    }
}

/// Says for which letter of `word` there is no token.
fn no_token(model: &tokenizers::ModelWrapper, word: &NormalizedString) -> EngineError {
    let is_lost = |letter: char| model.tokenize(letter.encode_utf8(&mut [0; 4])).is_ok_and(|tokens| tokens.is_empty());
    let lost = word.get().char_indices().find(|(_, letter)| is_lost(*letter));
    // As it was written, where bytes are written as other letters.
    let shown = lost.and_then(|(at, letter)| word.get_range_original(Range::Normalized(at..at + letter.len_utf8())));
    EngineError::Tokenizer(format!(
        "the model's vocabulary has no token for {:?}, and none for what is unknown; leave it out",
        shown.unwrap_or_else(|| word.get_original()).chars().take(8).collect::<String>()
    ))
}

/// The text of `ids`.
///
/// # Errors
/// The library's.
pub(super) fn decode(tokenizer: &tokenizers::Tokenizer, ids: &[u32], skip: bool) -> Result<String, EngineError> {
    guarded("at tokens", || tokenizer.decode(ids, skip))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEHAVIOURS: [&str; 5] = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"];

    fn split(pattern: &str, behaviour: &str, invert: bool) -> PreTokenizerWrapper {
        let split = serde_json::json!({
            "type": "Split", "pattern": { "Regex": pattern }, "behavior": behaviour, "invert": invert,
        });
        let spaces = serde_json::json!({ "type": "WhitespaceSplit" });
        let all = serde_json::json!({ "type": "Sequence", "pretokenizers": [split, spaces] });
        serde_json::from_value(all).unwrap()
    }

    fn words(pieces: &PreTokenizedString) -> Vec<(String, Offsets)> {
        let splits = pieces.get_splits(tokenizers::OffsetReferential::Original, tokenizers::OffsetType::Byte);
        splits.into_iter().map(|(word, offsets, _)| (word.to_owned(), offsets)).collect()
    }

    #[test]
    fn texts_are_cut_as_the_library_cuts_them() {
        for pattern in [r"\d+", r"a|b", r"\s+(?!\S)|\s+", r"x*", "é"] {
            for (behaviour, invert) in BEHAVIOURS.iter().flat_map(|behaviour| [(behaviour, false), (behaviour, true)]) {
                let cut = split(pattern, behaviour, invert);
                for text in ["", " ", "a", "12 ab  12é", "xxaxx b", "no match", "ééa1"] {
                    let (mut ours, mut theirs) = (PreTokenizedString::from(text), PreTokenizedString::from(text));
                    pre_tokenize(&cut, &mut ours, &|| false).unwrap();
                    cut.pre_tokenize(&mut theirs).unwrap();
                    assert_eq!(words(&ours), words(&theirs), "{pattern} {behaviour} {invert} {text:?}");
                }
            }
        }
    }

    #[test]
    fn a_pattern_can_be_stopped_within_a_text() {
        let cut = split("(?=(?:a|aa|(?!a)b){0,17}c)x|.", "Isolated", false);
        let (asked, text) = (Cell::new(0), "a".repeat(1000));
        let stop = || {
            asked.set(asked.get() + 1);
            asked.get() > 3
        };
        assert!(pre_tokenize(&cut, &mut PreTokenizedString::from(text.as_str()), &stop).is_err());
        assert_eq!(asked.get(), 4, "once a match, and no more after that");
    }
}
