//! Several answers at the same time: each in a row of a [`Batch`], all of them a token longer with every pass over the
//! weights. Rows begin and end on their own; whoever waits takes the next free one.

use std::ops::ControlFlow;

use super::backend::{Batch, Draw, OutputKind, Turn};
use super::continuation::Continuation;
use super::error::EngineError;
use super::generate::{FinishReason, SamplingOptions, TokenEvent};
use super::prompt::Prompt;
use super::tokenizer::Tokenizer;
use super::yielding::YieldNow;

/// Tokens that a row of several has room for even where that makes them larger than one sequence's cache together.
const MIN_ROW: usize = 512;

/// A text to be written in a row.
#[derive(Debug, Clone)]
pub struct Text {
    /// What [`Texts`] calls it.
    pub id: usize,
    /// What it goes on after.
    pub prompt: Prompt,
    /// How long and how freely.
    pub options: SamplingOptions,
}

/// Texts that wait for rows, and where their words go.
pub trait Texts {
    /// Hands out one that waits. More may come up later.
    fn next(&mut self) -> Option<Text>;

    /// The prompt was read; it has so many tokens.
    fn begun(&mut self, id: usize, prompt_tokens: usize) {
        let _ = (id, prompt_tokens);
    }

    /// A token was written. Breaking ends this text.
    fn token(&mut self, id: usize, token: TokenEvent<'_>) -> ControlFlow<()>;

    /// A text is over, or cannot be written here for a reason that lies with its prompt.
    fn over(&mut self, id: usize, result: Result<Ended, EngineError>);
}

/// How a row's text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Which row; it is free.
    pub row: usize,
    /// Why.
    pub finish: FinishReason,
    /// Tokens written, the ending token not counted.
    pub tokens: usize,
}

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

    /// Tokens that each of `rows` should hold where one sequence by itself holds `context`.
    pub fn row_of(context: usize, rows: usize) -> usize {
        (context / rows.max(1)).max(MIN_ROW).min(context)
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

    /// Writes texts until all are over and none waits. Those that begin later take the rows that have become free. One that
    /// a row does not hold with all that it may write is over at once ([`EngineError::PromptTooLong`]).
    ///
    /// # Errors
    /// The backend's; texts that were handed out and are not over are unfinished.
    pub async fn write(&mut self, texts: &mut dyn Texts) -> Result<(), EngineError> {
        let mut ids = vec![0; self.rows.len()];
        loop {
            // One prompt is read between two steps: the others go on meanwhile, and the first is not kept waiting for the
            // last.
            if let Some(row) = self.free_row()
                && let Some(text) = texts.next()
            {
                match self.read(row, &text).await {
                    Ok(tokens) => {
                        ids[row] = text.id;
                        texts.begun(text.id, tokens);
                    }
                    Err(error) if error.concerns_prompt() => texts.over(text.id, Err(error)),
                    Err(error) => return Err(error),
                }
            } else if self.is_idle() {
                return Ok(());
            }
            if !self.is_idle() {
                for ended in self.step(&mut |row, token| texts.token(ids[row], token)).await? {
                    texts.over(ids[ended.row], Ok(ended));
                }
            }
        }
    }

    /// Begins a text if its row holds all that may come of it; returns the tokens of its prompt.
    async fn read(&mut self, row: usize, text: &Text) -> Result<usize, EngineError> {
        let prompt = text.prompt.tokens(&self.tokenizer)?;
        let tokens = prompt.len().saturating_add(text.options.max_tokens);
        if tokens > self.capacity() {
            return Err(EngineError::PromptTooLong { tokens, context: self.capacity() });
        }
        self.begin_tokens(row, &prompt, &text.options).await?;
        Ok(prompt.len())
    }

    /// Reads a prompt into `row`, whatever was there; the first [`step`](Self::step) after it tells its first token.
    ///
    /// # Errors
    /// The prompt is empty or longer than a row, there is no such row, or the backend's. The row is free then, the others
    /// are as they were.
    pub async fn begin(
        &mut self,
        row: usize,
        prompt: impl Into<Prompt>,
        options: &SamplingOptions,
    ) -> Result<(), EngineError> {
        let prompt = prompt.into().tokens(&self.tokenizer)?;
        self.begin_tokens(row, &prompt, options).await
    }

    async fn begin_tokens(&mut self, row: usize, prompt: &[u32], options: &SamplingOptions) -> Result<(), EngineError> {
        if let Some(place) = self.rows.get_mut(row) {
            *place = None;
        }
        if prompt.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        if prompt.len() > self.batch.capacity() {
            return Err(EngineError::PromptTooLong { tokens: prompt.len(), context: self.batch.capacity() });
        }
        let mut text = Continuation::new(&self.tokenizer, options, prompt)?;
        self.batch.truncate(row, 0);
        let on_device = text.is_plain()
            && match self.batch.begin_choosing(row, text.sampler().params(), prompt) {
                Ok(()) => true,
                Err(EngineError::NotOffered { .. }) => false,
                Err(error) => return Err(error),
            };
        let want = if on_device { OutputKind::Choice(text.sampler().draw()) } else { OutputKind::Logits };
        let (before, last) = prompt.split_at((prompt.len() - 1) / self.chunk * self.chunk);
        for chunk in before.chunks(self.chunk) {
            self.batch.forward(row, chunk, OutputKind::Nothing).await?;
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
    /// Returns how those ended that are over.
    ///
    /// # Errors
    /// The tokenizer's or the backend's; all rows are free then.
    pub async fn step(
        &mut self,
        on_token: &mut dyn FnMut(usize, TokenEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<Ended>, EngineError> {
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
    ) -> Result<Vec<Ended>, EngineError> {
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
                over.push(Ended { row: number, finish, tokens: row.text.tokens() });
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
                    row.next = row.text.choose_from(&logits)?;
                }
            }
        }
        Ok(over)
    }
}
