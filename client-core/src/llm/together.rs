//! Several answers at the same time: each in a row of a [`Batch`], all of them a token longer with every pass over the
//! weights. Rows begin and end on their own; whoever waits takes the next free one.

use std::ops::ControlFlow;

use super::backend::{Batch, Draw, Turn, Want};
use super::continuation::Continuation;
use super::engine::YieldNow;
use super::error::EngineError;
use super::generate::{FinishReason, SamplingOptions, TokenEvent};
use super::tokenizer::Tokenizer;

/// See the module. Made by [`Engine::together`](super::Engine::together); it shares the engine's weights, not its
/// conversation.
pub struct Together {
    tokenizer: Tokenizer,
    batch: Box<dyn Batch>,
    rows: Vec<Option<Row>>,
    /// Tokens of a prompt that are computed between two looks at what else the thread has to do.
    chunk: usize,
    yield_now: Option<YieldNow>,
}

impl std::fmt::Debug for Together {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Together").field("rows", &self.rows).finish_non_exhaustive()
    }
}

/// An answer that is under way.
#[derive(Debug)]
struct Row {
    text: Continuation,
    /// Chosen, and not told yet.
    next: u32,
    on_device: bool,
}

impl Together {
    pub(super) fn new(tokenizer: Tokenizer, batch: Box<dyn Batch>, chunk: usize, yield_now: Option<YieldNow>) -> Self {
        let rows = (0..batch.rows()).map(|_| None).collect();
        Self { tokenizer, batch, rows, chunk: chunk.max(1), yield_now }
    }

    /// Most tokens, prompt and answer together, that a row holds.
    pub fn capacity(&self) -> usize {
        self.batch.capacity()
    }

    /// The first row in which nothing is written.
    pub fn free_row(&self) -> Option<usize> {
        self.rows.iter().position(Option::is_none)
    }

    /// Whether nothing is written.
    pub fn is_idle(&self) -> bool {
        self.rows.iter().all(Option::is_none)
    }

    /// Dispatches and submissions so far; all zero on the CPU.
    pub fn counters(&self) -> super::backend::Counters {
        self.batch.counters()
    }

    /// Tokens that `prompt` takes in a row.
    ///
    /// # Errors
    /// The tokenizer's.
    pub fn prompt_tokens(&self, prompt: &str) -> Result<usize, EngineError> {
        Ok(self.tokenizer.encode_prompt(prompt)?.len())
    }

    /// Reads a prompt into `row`, whatever was there; the first [`step`](Self::step) after it tells its first token.
    ///
    /// # Errors
    /// The prompt is empty or longer than a row, there is no such row, or the backend's. The row is free then, the others
    /// are as they were.
    pub async fn begin(&mut self, row: usize, prompt: &str, options: &SamplingOptions) -> Result<(), EngineError> {
        if let Some(place) = self.rows.get_mut(row) {
            *place = None;
        }
        let prompt = self.tokenizer.encode_prompt(prompt)?;
        if prompt.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        if prompt.len() > self.batch.capacity() {
            return Err(EngineError::PromptTooLong { tokens: prompt.len(), context: self.batch.capacity() });
        }
        let mut text = Continuation::new(&self.tokenizer, options, &prompt);
        self.batch.truncate(row, 0);
        let on_device = match self.batch.begin_choosing(row, text.sampler().params(), &prompt) {
            Ok(()) => true,
            Err(EngineError::NotOffered { .. }) => false,
            Err(error) => return Err(error),
        };
        let want = if on_device { Want::Choice(text.sampler().draw()) } else { text.want() };
        let (before, last) = prompt.split_at((prompt.len() - 1) / self.chunk * self.chunk);
        for chunk in before.chunks(self.chunk) {
            self.batch.forward(row, chunk, Want::Nothing).await?;
            if let Some(yield_now) = self.yield_now {
                yield_now().await;
            }
        }
        let next = text.choose(&self.batch.forward(row, last, want).await?)?;
        if let Some(place) = self.rows.get_mut(row) {
            *place = Some(Row { text, next, on_device });
        }
        Ok(())
    }

    /// Tells every row's next token and computes the one after it, all in one pass. `on_token` may end a row by breaking.
    /// Returns the rows that are over, with the reasons; they are free.
    ///
    /// # Errors
    /// The tokenizer's or the backend's; all rows are free then.
    pub async fn step(
        &mut self,
        on_token: &mut dyn FnMut(usize, TokenEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<(usize, FinishReason)>, EngineError> {
        let result = self.advance(on_token).await;
        if result.is_err() {
            self.rows.fill_with(|| None);
        }
        if let Some(yield_now) = self.yield_now {
            yield_now().await;
        }
        result
    }

    async fn advance(
        &mut self,
        on_token: &mut dyn FnMut(usize, TokenEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<(usize, FinishReason)>, EngineError> {
        let mut over = Vec::new();
        let (mut chosen_there, mut chosen_here) = (Vec::new(), Vec::new());
        for (number, place) in self.rows.iter_mut().enumerate() {
            let Some(row) = place else { continue };
            let full = self.batch.len(number) >= self.batch.capacity();
            let finish = match row.text.left() {
                0 => Some(FinishReason::Length),
                _ => row.text.take(row.next, full, &mut |event| on_token(number, event))?,
            };
            if let Some(finish) = finish {
                over.push((number, finish));
                *place = None;
                continue;
            }
            let draw = if row.on_device { row.text.sampler().draw() } else { Draw::default() };
            let turn = Turn { row: number, token: row.next, draw };
            if row.on_device { chosen_there.push(turn) } else { chosen_here.push(turn) }
        }
        if !chosen_there.is_empty() {
            let tokens = self.batch.step_choosing(&chosen_there).await?;
            for (turn, token) in chosen_there.iter().zip(tokens) {
                if let Some(Some(row)) = self.rows.get_mut(turn.row) {
                    row.next = token;
                }
            }
        }
        if !chosen_here.is_empty() {
            let logits = self.batch.step(&chosen_here).await?;
            for (turn, logits) in chosen_here.iter().zip(logits) {
                if let Some(Some(row)) = self.rows.get_mut(turn.row) {
                    row.next = row.text.choose_from(&logits);
                }
            }
        }
        Ok(over)
    }
}
