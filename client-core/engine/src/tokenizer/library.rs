//! The only calls of the `tokenizers` library that see outside data: what it panics at becomes an error, and a text at which
//! its regular expressions would give up is refused.
//!
//! fancy-regex counts the steps that it takes back and gives up after a million; the library then takes all that is left of
//! the text as one piece and says nothing. With the patterns of known schemes only a run of white space takes so many
//! steps; others are tried on the text first.
//!
//! In wasm32 nothing unwinds. There the checks of `json.rs` have to hold alone.

use std::panic::{AssertUnwindSafe, catch_unwind};

use fancy_regex::Regex;

use super::schemes;
use crate::error::EngineError;

/// Longest run of white space that known patterns are given.
const MAX_RUN: usize = 250_000;
/// Longest text, bytes: it takes some twenty times as much while it is encoded.
const MAX_TEXT: usize = 64 << 20;

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

/// The regular expressions with which a tokenizer cuts texts.
#[derive(Debug, Default)]
pub(super) struct SplitPatterns {
    /// Whether there are any at all.
    pub any: bool,
    /// Those that are not known to need few steps.
    pub strange: Vec<Regex>,
}

impl SplitPatterns {
    /// With the patterns of a known scheme, or none.
    pub(super) fn known(any: bool) -> Self {
        Self { any, strange: Vec::new() }
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
        for regex in &self.strange {
            if let Some(error) = regex.find_iter(text).find_map(Result::err) {
                return Err(EngineError::Tokenizer(format!(
                    "the tokenizer's regular expression gives up at this text: {error}"
                )));
            }
        }
        Ok(())
    }
}

/// The token ids of `text`, without any that the file wants around it.
///
/// # Errors
/// The library's, or the text cannot be cut.
pub(super) fn encode(
    tokenizer: &tokenizers::Tokenizer,
    cutting: &SplitPatterns,
    text: &str,
) -> Result<Vec<u32>, EngineError> {
    cutting.check(text)?;
    guarded("at a text", || tokenizer.encode_fast(text, false).map(|encoding| encoding.get_ids().to_vec()))
}

/// The text of `ids`.
///
/// # Errors
/// The library's.
pub(super) fn decode(tokenizer: &tokenizers::Tokenizer, ids: &[u32], skip: bool) -> Result<String, EngineError> {
    guarded("at tokens", || tokenizer.decode(ids, skip))
}
