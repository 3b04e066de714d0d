//! One continuation of a prompt while it is written: what is asked of the backend, what becomes of the token that it gives,
//! and when the text is over. Who computes, alone or together with others, does not matter here.

use std::ops::ControlFlow;

use super::backend::{Output, Want};
use super::error::EngineError;
use super::generate::{FinishReason, SamplingOptions, StopFilter, TokenEvent};
use super::sampler::{Sampler, SamplerParams};
use super::tokenizer::{TextStream, Tokenizer};

/// Up to this `top_k` the backend is asked for its candidates instead of for all logits.
const MAX_DEVICE_TOP_K: usize = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct Continuation {
    tokenizer: Tokenizer,
    sampler: Sampler,
    stream: TextStream,
    filter: StopFilter,
    max_tokens: usize,
    tokens: usize,
}

impl Continuation {
    /// Of a prompt of these tokens.
    pub(super) fn new(tokenizer: &Tokenizer, options: &SamplingOptions, prompt: &[u32]) -> Self {
        let mut sampler = Sampler::new(SamplerParams {
            temperature: options.temperature,
            top_k: options.top_k,
            top_p: options.top_p,
            repetition_penalty: options.repetition_penalty,
            seed: options.seed,
        });
        sampler.note(prompt);
        Self {
            tokenizer: tokenizer.clone(),
            sampler,
            stream: tokenizer.stream(),
            filter: StopFilter::new(&options.stop),
            max_tokens: options.max_tokens,
            tokens: 0,
        }
    }

    /// Tokens so far, the ending token not counted.
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Tokens that may still come.
    pub(super) fn left(&self) -> usize {
        self.max_tokens - self.tokens
    }

    /// How tokens are chosen, and the random numbers for it.
    pub(super) fn sampler(&mut self) -> &mut Sampler {
        &mut self.sampler
    }

    /// What a backend that leaves the choice to its caller has to return.
    pub(super) fn want(&self) -> Want {
        let params = self.sampler.params();
        match params.top_k {
            _ if params.penalises() => Want::Logits,
            _ if params.is_greedy() => Want::Argmax,
            k @ 1..=MAX_DEVICE_TOP_K => Want::TopK(k),
            _ => Want::Logits,
        }
    }

    /// The next token, from what a backend returned.
    ///
    /// # Errors
    /// It is nothing to choose from.
    pub(super) fn choose(&mut self, output: &Output) -> Result<u32, EngineError> {
        match output {
            Output::Token(id) => Ok(*id),
            Output::TopK(candidates) => Ok(self.sampler.choose_sorted(candidates)),
            Output::Logits(logits) => Ok(self.sampler.choose(logits)),
            Output::Nothing | Output::Hidden(_) | Output::AllLogits(_) => {
                Err(EngineError::NotOffered { backend: "loaded", what: "logits" })
            }
        }
    }

    /// The next token, from all logits.
    pub(super) fn choose_from(&mut self, logits: &[f32]) -> u32 {
        self.sampler.choose(logits)
    }

    /// Takes the token that was chosen, tells `on_token`, and returns why the text ends with it, if it does. `full` when
    /// the context holds no token after it.
    ///
    /// # Errors
    /// The tokenizer's.
    pub(super) fn take(
        &mut self,
        id: u32,
        full: bool,
        on_token: &mut dyn FnMut(TokenEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Option<FinishReason>, EngineError> {
        let index = self.tokens;
        if self.tokenizer.is_stop(id) {
            let rest = self.rest()?;
            let (mut text, hit) = self.filter.push(&rest);
            if !hit {
                text += &self.filter.finish();
            }
            if !text.is_empty() {
                // The answer is over whatever the listener says.
                let _ = on_token(TokenEvent { id, text: &text, index });
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
        let flow = on_token(TokenEvent { id, text: &text, index });
        Ok(match (hit, flow, last) {
            (true, ..) => Some(FinishReason::Stop),
            (_, ControlFlow::Break(()), _) => Some(FinishReason::Cancelled),
            (.., true) => Some(FinishReason::Length),
            _ => None,
        })
    }

    /// What the stream of text still holds.
    fn rest(&mut self) -> Result<String, EngineError> {
        std::mem::replace(&mut self.stream, self.tokenizer.stream()).finish()
    }
}
