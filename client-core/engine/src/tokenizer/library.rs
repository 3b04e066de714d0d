//! The only calls of the `tokenizers` library that see outside data: what it panics at becomes an error, and a text at which
//! its regular expressions would give up is refused.
//!
//! fancy-regex counts the steps that it takes back and gives up after a million; the library then takes all that is left of
//! the text as one piece and says nothing. So patterns are searched for here ([`Search`](super::search::Search)), and one that
//! gives up is an error. With the patterns of known schemes only a run of white space takes so many steps, and is refused
//! before.
//!
//! In wasm32 nothing unwinds. There the checks of `json.rs` have to hold alone.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tokenizers::normalizer::Range;
use tokenizers::{AddedVocabulary, Model as _, NormalizedString, NormalizerWrapper, OffsetType};

use super::cuts::{self, Bonds, Rule};
use super::search::compiled;
use super::steps::{Cut, Step, normalized};
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
    /// Where long texts may be cut.
    pub rule: Rule,
    /// What a text is made into before it is cut.
    first: Option<Step>,
    /// What cuts it into words.
    cut: Option<Cut>,
    /// The same of a piece that is not the first, where the tokenizer puts something in front of a text: without that.
    later: Option<Step>,
    /// Made when a long text first comes.
    bonds: OnceLock<Bonds>,
}

impl Cutting {
    /// With the patterns of a known scheme, or none.
    pub(super) fn known(any: bool, rule: Rule) -> Self {
        Self { any, rule, ..Self::default() }
    }

    /// Has pieces that go on after another made into what `normalizer` makes of them.
    ///
    /// # Errors
    /// A pattern is no regular expression.
    pub(super) fn go_on_with(&mut self, normalizer: &NormalizerWrapper) -> Result<(), EngineError> {
        self.later = Some(Step::of(normalizer)?);
        Ok(())
    }

    /// Takes over how `tokenizer` normalizes and cuts.
    ///
    /// # Errors
    /// A pattern is no regular expression.
    pub(super) fn follow(&mut self, tokenizer: &tokenizers::Tokenizer) -> Result<(), EngineError> {
        self.first = tokenizer.get_normalizer().map(Step::of).transpose()?;
        self.cut = tokenizer.get_pre_tokenizer().map(Cut::of).transpose()?;
        Ok(())
    }

    /// Notes that a pattern cuts texts.
    ///
    /// # Errors
    /// It is no regular expression.
    pub(super) fn add(&mut self, pattern: &str) -> Result<(), EngineError> {
        self.any = true;
        compiled(pattern).map(drop)
    }

    /// Refuses a text that would be cut wrong.
    fn check(&self, text: &str) -> Result<(), EngineError> {
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

/// The token ids of `text`, without any that the file wants around it. `stop` is asked between pieces and says whether to give
/// up.
///
/// # Errors
/// The library's, the text cannot be cut, it has a letter for which there is no token, or `stop` said so.
pub(super) fn encode(
    tokenizer: &tokenizers::Tokenizer,
    added: &AddedVocabulary,
    cutting: &Cutting,
    text: &str,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<u32>, EngineError> {
    encode_pieces(tokenizer, added, cutting, text, stop, cuts::PIECE)
}

/// As [`encode`], in pieces of about so many bytes.
pub(super) fn encode_pieces(
    tokenizer: &tokenizers::Tokenizer,
    added: &AddedVocabulary,
    cutting: &Cutting,
    text: &str,
    stop: &(dyn Fn() -> bool + Sync),
    bytes: usize,
) -> Result<Vec<u32>, EngineError> {
    cutting.check(text)?;
    let mut ids = Vec::new();
    let (mut rest, mut later) = (text, false);
    loop {
        if stop() {
            return Err(EngineError::Stopped);
        }
        let (piece, after) = cutting.piece(tokenizer, rest, bytes)?;
        ids.extend(encode_piece(tokenizer, added, cutting, later, piece, stop)?);
        if after.is_empty() {
            return Ok(ids);
        }
        (rest, later) = (after, true);
    }
}

/// The same in one go: the library's own `encode_fast`, with a look at every word.
fn encode_piece(
    tokenizer: &tokenizers::Tokenizer,
    added: &AddedVocabulary,
    cutting: &Cutting,
    goes_on: bool,
    piece: &str,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<u32>, EngineError> {
    let (words, unknown) = (Cell::new(0usize), RefCell::new(None));
    let stopped = AtomicBool::new(false);
    let asked = || {
        let stops = stop();
        stopped.fetch_or(stops, Ordering::Relaxed);
        stops
    };
    let made = guarded("at a text", || {
        let mut pieces = match &cutting.first {
            Some(first) => {
                let later = cutting.later.as_ref().filter(|_| goes_on).unwrap_or(first);
                normalized(added, piece, first, later, &asked)?
            }
            None => added.extract_and_normalize(None::<&NormalizerWrapper>, piece),
        };
        if let Some(cut) = &cutting.cut {
            cut.run(&mut pieces, &asked)?;
        }
        let model = tokenizer.get_model();
        pieces.tokenize(|word| {
            words.set(words.get() + 1);
            if words.get().is_multiple_of(WORDS) && asked() {
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
        _ if stopped.into_inner() => Err(EngineError::Stopped),
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
