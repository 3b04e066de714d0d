//! What a run needs from outside. The browser worker implements these over the engine, fetch and timers; tests over
//! scripts and a simulated clock. Nothing here has to be `Send`: a worker is one thread.

use std::ops::ControlFlow;

use async_trait::async_trait;
use futures::stream::LocalBoxStream;

pub use super::fault::TransportError;
use super::openai::{ChatPiece, ChatRequest};
use crate::protocol::engine::{Finish, Read, Turn};
use crate::protocol::similarity::{SimilarityRequest, SimilarityResponse};
use crate::protocol::worker::AskOptions;

/// The compact model on this device.
#[async_trait(?Send)]
pub trait LocalEngine {
    /// Entropy in nats of the distribution of the first token of an answer to `prompt`, after what was said `earlier`.
    async fn entropy(&mut self, earlier: &[Turn], prompt: &str) -> Result<f32, LocalError>;

    /// Writes an answer to `prompt` that begins with `prefix` (already written, by whomever) and goes on for at most
    /// `max_tokens` tokens. Calls `on_token` once a token with the text that became whole with it (perhaps none), and
    /// stops within that token when it says so. Lets other tasks of the thread run between tokens. The prompt comes after
    /// what `options` say was said earlier.
    async fn generate(
        &mut self,
        prompt: &str,
        prefix: &str,
        max_tokens: usize,
        options: &AskOptions,
        on_token: &mut dyn for<'t> FnMut(&'t str) -> ControlFlow<()>,
    ) -> Result<Written, LocalError>;

    /// Answers `jobs` until there is none at the moment, one after the other unless the engine can do better. Errors that
    /// lie with one prompt are told to `jobs`.
    ///
    /// # Errors
    /// The engine could not go on; what was begun and is not done is unfinished.
    async fn answer_all(&mut self, jobs: &mut dyn Jobs, options: &AskOptions) -> Result<(), LocalError> {
        while let Some(job) = jobs.next() {
            answer_one(self, jobs, &job, options).await?;
        }
        Ok(())
    }

    /// Tries to go on after `error` (a lost GPU: onto the CPU) and says in plain words what changed; `Err` when
    /// nothing is left to try.
    async fn recover(&mut self, error: &LocalError) -> Result<String, LocalError>;
}

/// How writing an answer ended, and what was read before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Why it ended.
    pub finish: Finish,
    /// The prompt, with what of the answer was begun.
    pub read: Read,
}

/// A prompt for the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its number in the ask.
    pub prompt: usize,
    /// What is asked.
    pub text: String,
    /// The part of the answer that is written already, by whomever.
    pub prefix: String,
    /// How many tokens may still be written; at least 1.
    pub max_tokens: usize,
}

/// The prompts that an engine is to answer, and where its words go.
pub trait Jobs {
    /// How many [`next`](Self::next) would give now.
    fn waiting(&self) -> usize;

    /// Hands out a prompt that waits. More may come up later.
    fn next(&mut self) -> Option<Job>;

    /// A token was written; `text` is what became whole with it. Breaking ends this answer.
    fn token(&mut self, prompt: usize, text: &str) -> ControlFlow<()>;

    /// A prompt was read.
    fn read(&mut self, read: Read);

    /// A prompt's answer is over, or cannot be had for a reason that lies with the prompt.
    fn done(&mut self, prompt: usize, result: Result<Finish, LocalError>);
}

/// Answers one job by itself.
pub(super) async fn answer_one<E: LocalEngine + ?Sized>(
    engine: &mut E,
    jobs: &mut dyn Jobs,
    job: &Job,
    options: &AskOptions,
) -> Result<(), LocalError> {
    let mut on_token = |text: &str| jobs.token(job.prompt, text);
    match engine.generate(&job.text, &job.prefix, job.max_tokens, options, &mut on_token).await {
        Err(error) if !error.prompt_only => Err(error),
        result => {
            if let Ok(written) = &result {
                jobs.read(written.read);
            }
            jobs.done(job.prompt, result.map(|written| written.finish));
            Ok(())
        }
    }
}

/// The engine of this device could not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct LocalError {
    /// What happened, in plain words.
    pub message: String,
    /// Whether the fault lies with this one prompt (too long for the model), so that another may well be answered.
    pub prompt_only: bool,
}

impl LocalError {
    /// From anything that can be shown.
    pub fn new(message: impl ToString) -> Self {
        Self { message: message.to_string(), prompt_only: false }
    }

    /// A fault of the prompt's, not of the engine's.
    pub fn of_prompt(message: impl ToString) -> Self {
        Self { message: message.to_string(), prompt_only: true }
    }
}

/// Pieces of a streamed answer. Dropping the stream cancels the request.
pub type ChatStream = LocalBoxStream<'static, Result<ChatPiece, TransportError>>;

/// The way to the server.
#[async_trait(?Send)]
pub trait Transport {
    /// Starts a streamed chat completion. Dropping the future cancels the request.
    async fn chat(&self, request: &ChatRequest) -> Result<ChatStream, TransportError>;

    /// Compares two answers (eq. 26–27).
    async fn similarity(&self, request: &SimilarityRequest) -> Result<SimilarityResponse, TransportError>;
}

/// Time, passed in.
#[async_trait(?Send)]
pub trait Clock {
    /// Seconds since some fixed moment, never going back.
    fn now_s(&self) -> f64;

    /// Waits; a dropped future waits no more.
    async fn sleep(&self, seconds: f64);
}
