//! Tokens to text, one by one.

use super::Tokenizer;
use crate::error::EngineError;

/// Tokens of what comes before a text that its beginning is decoded with.
const CONTEXT: usize = 8;

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
    pub(super) fn new(tokenizer: Tokenizer) -> Self {
        Self { tokenizer, ids: Vec::new(), shown: 0, sent: 0 }
    }

    /// For what follows `before`, of which only the last tokens matter.
    pub(super) fn after(tokenizer: Tokenizer, before: &[u32]) -> Result<Self, EngineError> {
        let first = before.len().saturating_sub(CONTEXT);
        // Not from the middle of a character on, which would never become one.
        for begin in first..before.len() {
            let tail = before.get(begin..).unwrap_or_default();
            let text = tokenizer.decode(tail)?;
            if !text.is_empty() && !text.contains('\u{FFFD}') {
                return Ok(Self { tokenizer, ids: tail.to_vec(), shown: tail.len(), sent: text.len() });
            }
        }
        Ok(Self::new(tokenizer))
    }

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

/// The bytes of a token of a byte-level vocabulary, which writes each as a visible letter; `None` where a letter is none of
/// those.
pub(super) fn byte_level(token: &str) -> Option<Vec<u8>> {
    // GPT-2's table: what can be seen stands for itself, the others follow from 256 on.
    let visible = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let byte = |letter: char| {
        let code = u32::from(letter);
        match u8::try_from(code) {
            Ok(byte) => visible(byte).then_some(byte),
            Err(_) => (0..=255).filter(|byte| !visible(*byte)).nth(code.checked_sub(256)? as usize),
        }
    };
    token.chars().map(byte).collect()
}
