//! What the model goes on after, and which of the texts in it may be control tokens.
//!
//! A control token (`<|im_end|>`, `<bos>`) ends a turn or begins one. Whoever can write it into a message can forge turns, so
//! control tokens come from the chat template alone: what reads like one in a message, in a role or in the part of the answer
//! that is already written is encoded as the plain text that it is. A prompt without a template is plain text too, unless
//! its author asks for control tokens ([`Prompt::with_control_tokens`]).
//!
//! How the two are told apart: before the template is rendered, what reads like a control token in a message is broken by a
//! mark, U+FDD0, which Unicode keeps free for a program's own use. The template passes it on like any letter. Where the
//! rendered text holds a mark, the control tokens that are found in spite of the marks are the template's: each is replaced
//! by a stand-in, the marks are taken out, the whole is encoded by a tokenizer that knows no control token, and the stand-ins
//! become the control tokens again. So the text around is cut exactly as it would be otherwise: encoding the pieces one by
//! one would cut differently where a message begins with a new line after the template's own. Most prompts hold no mark, and
//! are encoded as they are.
//!
//! What this does not see: a template that makes a control token's text of a message by itself, from capital letters say.

use super::error::EngineError;
use super::generate::ChatMessage;
use super::template::ChatTemplate;
use super::tokenizer::{BREAK, Tokenizer};

/// See the module. A `&str` or `String` becomes plain text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// What is written in it is text, whatever it reads like.
    Text(String),
    /// What reads like a control token is one, unless a mark breaks it.
    Marked(String),
    /// Encoded already.
    Tokens(Vec<u32>),
}

impl Prompt {
    /// A text in which what reads like a control token is one. For prompts of people who write the template's part
    /// themselves, never for what somebody else may have a hand in.
    pub fn with_control_tokens(text: &str) -> Self {
        Self(Kind::Marked(text.replace(BREAK, "\u{FFFD}")))
    }

    /// Token ids as they are; nothing is put in front of them.
    pub fn of_tokens(tokens: Vec<u32>) -> Self {
        Self(Kind::Tokens(tokens))
    }

    /// A conversation, with the part of the answer that is written already.
    ///
    /// # Errors
    /// The template refuses the messages.
    pub(super) fn of_chat(
        tokenizer: &Tokenizer,
        template: &ChatTemplate,
        messages: &[ChatMessage],
        assistant_prefix: &str,
    ) -> Result<Self, EngineError> {
        let broken = |text: &str| tokenizer.broken(text).into_owned();
        let harmless: Vec<ChatMessage> = messages
            .iter()
            .map(|message| ChatMessage { role: broken(&message.role), content: broken(&message.content) })
            .collect();
        let mut text = template.render(&harmless)?;
        text += &tokenizer.broken(assistant_prefix);
        Ok(Self(Kind::Marked(text)))
    }

    /// The token ids.
    ///
    /// # Errors
    /// The tokenizer's.
    pub fn tokens(&self, tokenizer: &Tokenizer) -> Result<Vec<u32>, EngineError> {
        self.tokens_until(tokenizer, &|| false)
    }

    /// The same, given up when `stop` says so. It is asked at every piece of a long text.
    ///
    /// # Errors
    /// [`EngineError::Stopped`] besides.
    pub fn tokens_until(
        &self,
        tokenizer: &Tokenizer,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Vec<u32>, EngineError> {
        match &self.0 {
            Kind::Text(text) => tokenizer.encode_text_until(text, stop),
            Kind::Marked(text) => tokenizer.encode_prompt_until(text, stop),
            Kind::Tokens(tokens) => Ok(tokens.clone()),
        }
    }
}

impl From<&Prompt> for Prompt {
    fn from(prompt: &Prompt) -> Self {
        prompt.clone()
    }
}

impl From<&str> for Prompt {
    fn from(text: &str) -> Self {
        Self(Kind::Text(text.to_owned()))
    }
}

impl From<&String> for Prompt {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<String> for Prompt {
    fn from(text: String) -> Self {
        Self(Kind::Text(text))
    }
}

#[cfg(test)]
#[path = "prompt_tests.rs"]
mod tests;
