//! `/v1/…` in OpenAI's format, so that any client of that API works here.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`request`] | the fields of a completion request and what is wrong with them |
//! | [`answer`] | an answer in one piece, or as server-sent events |
//! | [`tracked`] | one generation with its measurements; cuts it off when the server goes down |
//! | [`embeddings`], [`models`] | `/v1/embeddings`, `/v1/models` |
//!
//! Beyond OpenAI's API: `top_k`; a last message of role `assistant` is continued, not answered; `timings` beside `usage`.
//! Deliberately absent: tools, log probabilities, several choices, response formats. Asking for one is an error, not a
//! silent omission.

use axum::extract::State;
use axum::response::Response;

use super::error::ApiError;
use super::json::ApiJson;
use super::{App, Phase};
use crate::host::HostError;

pub mod answer;
pub mod embeddings;
pub mod models;
pub mod request;
pub mod tracked;

use answer::{Answer, Shape};
use request::CompletionRequest;
use tracked::Tracked;

/// `POST /v1/chat/completions`
///
/// # Errors
/// What is wrong with the request, or with the model before its first token.
pub async fn chat(State(app): State<App>, ApiJson(request): ApiJson<CompletionRequest>) -> Result<Response, ApiError> {
    complete(&app, request, Shape::Chat).await
}

/// `POST /v1/completions`
///
/// # Errors
/// As [`chat`].
pub async fn completions(
    State(app): State<App>,
    ApiJson(request): ApiJson<CompletionRequest>,
) -> Result<Response, ApiError> {
    complete(&app, request, Shape::Text).await
}

async fn complete(app: &App, request: CompletionRequest, shape: Shape) -> Result<Response, ApiError> {
    let model = app.host().model().await.id;
    models::check(request.model.as_deref(), std::slice::from_ref(&model))?;
    let (stream, include_usage) = (request.stream(), request.include_usage());
    let generation = request.into_generation(shape)?;
    if *app.phase().borrow() != Phase::Running {
        return Err(HostError::ShuttingDown.into());
    }
    let tracked = Tracked::start(app, generation).await?;
    let answer = Answer::new(shape, model);
    if stream { answer.stream(tracked, include_usage).await } else { answer.whole(tracked).await }
}
