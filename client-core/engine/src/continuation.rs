//! One continuation of a prompt while it is written: what is asked of the backend, what becomes of the token that it gives,
//! and when the text is over. Who computes, alone or together with others, does not matter here.

use std::ops::ControlFlow;

use super::backend::Output;
use super::error::EngineError;
use super::generate::{FinishReason, SamplingOptions, StopFilter, TokenEvent};
use super::sampler::{Sampler, TokenLogprobs};
use super::tokenizer::{TextStream, Tokenizer};

/// See the module.
#[derive(Debug)]
pub struct Continuation {
    tokenizer: Tokenizer,
    sampler: Sampler,
    stream: TextStream,
    filter: StopFilter,
    stop_tokens: Vec<u32>,
    ignore_eos: bool,
    max_tokens: usize,
    tokens: usize,
    /// Of the token that was chosen last and is not told yet.
    logprobs: Option<TokenLogprobs>,
}

impl Continuation {
    /// Of a prompt of these tokens.
    ///
    /// # Errors
    /// The tokenizer's.
    pub fn new(tokenizer: &Tokenizer, options: &SamplingOptions, prompt: &[u32]) -> Result<Self, EngineError> {
        let mut sampler = Sampler::shaped(options.params(), options.shaping());
        sampler.note(prompt);
        Ok(Self {
            tokenizer: tokenizer.clone(),
            sampler,
            stream: tokenizer.stream_after(prompt)?,
            filter: StopFilter::new(&options.stop),
            stop_tokens: options.stop_tokens.clone(),
            ignore_eos: options.ignore_eos,
            max_tokens: options.max_tokens,
            tokens: 0,
            logprobs: None,
        })
    }

    /// Whether a device may choose: what it cannot be told changes and tells nothing.
    pub fn is_plain(&self) -> bool {
        self.sampler.shaping().is_none()
    }

    /// Tokens so far, the ending token not counted.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Tokens that may still come.
    pub fn left(&self) -> usize {
        self.max_tokens - self.tokens
    }

    /// How tokens are chosen, and the random numbers for it.
    pub fn sampler(&mut self) -> &mut Sampler {
        &mut self.sampler
    }

    /// The next token, from what a backend returned.
    ///
    /// # Errors
    /// It is nothing to choose from, or not numbers.
    pub fn choose(&mut self, output: &Output) -> Result<u32, EngineError> {
        match output {
            Output::Token(id) => Ok(*id),
            Output::Logits(logits) => self.choose_from(logits),
            Output::TopK(_) | Output::Nothing | Output::Hidden(_) | Output::AllLogits(_) => {
                Err(EngineError::NotOffered { backend: "loaded", what: "logits" })
            }
        }
    }

    /// The next token, from all logits.
    ///
    /// # Errors
    /// They are not numbers.
    pub fn choose_from(&mut self, logits: &[f32]) -> Result<u32, EngineError> {
        let (id, logprobs) = self.sampler.choose_sound(logits)?;
        self.logprobs = logprobs;
        Ok(id)
    }

    /// Takes the token that was chosen, tells `on_token`, and returns why the text ends with it, if it does. `full` when
    /// the context holds no token after it.
    ///
    /// # Errors
    /// The tokenizer's.
    pub fn take(
        &mut self,
        id: u32,
        full: bool,
        on_token: &mut dyn FnMut(TokenEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Option<FinishReason>, EngineError> {
        let index = self.tokens;
        let logprobs = self.logprobs.take();
        if self.ends(id) {
            let rest = self.rest()?;
            let (mut text, hit) = self.filter.push(&rest);
            if !hit {
                text += &self.filter.finish();
            }
            if !text.is_empty() {
                // The answer is over whatever the listener says.
                let _ = on_token(TokenEvent { id, text: &text, index, logprobs: None });
            }
            return Ok(Some(FinishReason::Stop));
        }
        // The text of a control token is never shown, but somebody may want to stop at it.
        if let Some(control) = self.tokenizer.control_text(id)
            && let Some(text) = self.filter.control(&control)
        {
            if !text.is_empty() {
                let _ = on_token(TokenEvent { id, text: &text, index, logprobs: None });
            }
            return Ok(Some(FinishReason::Stop));
        }
        self.tokens += 1;
        let last = self.tokens >= self.max_tokens || full;
        let mut fresh = self.stream.push(id)?;
        if last {
            fresh += &self.rest()?;
        }
        let (mut text, hit) = self.filter.push(&fresh);
        if last && !hit {
            text += &self.filter.finish();
        }
        let flow = on_token(TokenEvent { id, text: &text, index, logprobs: logprobs.as_ref() });
        Ok(match (hit, flow, last) {
            (true, ..) => Some(FinishReason::Stop),
            (_, ControlFlow::Break(()), _) => Some(FinishReason::Cancelled),
            (.., true) => Some(FinishReason::Length),
            _ => None,
        })
    }

    /// Whether the answer is over with this token.
    fn ends(&self, id: u32) -> bool {
        self.stop_tokens.contains(&id) || (!self.ignore_eos && self.tokenizer.is_stop(id))
    }

    /// What the stream of text still holds.
    fn rest(&mut self) -> Result<String, EngineError> {
        std::mem::replace(&mut self.stream, self.tokenizer.stream()).finish()
    }
}
