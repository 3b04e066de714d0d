//! `/v1/…` in OpenAI's format, so that any client of that API works here.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`request`] | the fields of a completion request and what is wrong with them |
//! | [`answer`] | an answer in one piece, or as server-sent events |
//! | [`tracked`] | one generation with its measurements; cuts it off when the server goes down |
//! | [`embeddings`], [`models`] | `/v1/embeddings`, `/v1/models` |
//!
//! Beyond OpenAI's API: `top_k`, `min_p`, `repetition_penalty`; a last message of role `assistant` is continued, not
//! answered (unless `continue_final_message` is false); `timings` beside `usage`.
//!
//! `cache_salt`, as vLLM has it: prompts that begin alike are computed once, whoever sends them, so how soon the first token
//! comes may tell a client what others have written. Requests with a salt share beginnings only with those that have the same.
//! Deliberately absent: tools, response formats, `suffix`. Asking for one is an error, not a silent omission.

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

use answer::{Answer, Endpoint};
use request::CompletionRequest;
use tracked::Tracked;

/// `POST /v1/chat/completions`
///
/// # Errors
/// What is wrong with the request, or with the model before its first token.
pub async fn chat(State(app): State<App>, ApiJson(request): ApiJson<CompletionRequest>) -> Result<Response, ApiError> {
    complete(&app, request, Endpoint::Chat).await
}

/// `POST /v1/completions`
///
/// # Errors
/// As [`chat`].
pub async fn completions(
    State(app): State<App>,
    ApiJson(request): ApiJson<CompletionRequest>,
) -> Result<Response, ApiError> {
    complete(&app, request, Endpoint::Text).await
}

async fn complete(app: &App, request: CompletionRequest, endpoint: Endpoint) -> Result<Response, ApiError> {
    let model = app.host().known_model().await?.id;
    models::check(request.model.as_deref(), std::slice::from_ref(&model))?;
    let (stream, include_usage) = (request.stream(), request.include_usage());
    let work = request.into_work(endpoint)?;
    if let Some(field) = work.answers.iter().find_map(|generation| app.host().lacks(generation)) {
        return Err(ApiError::unsupported(field, format!("'{field}' is not offered by this server's model.")));
    }
    // As many as can be written and wait at all: coming back later would not help.
    let (asked, load) = (work.answers.len(), app.host().load());
    let most = load.slots.saturating_add(load.capacity).max(1);
    if load.slots > 0 && asked > most {
        let field = if work.per_prompt > 1 { "n" } else { "prompt" };
        let why = format!("'{field}' asks for {asked} answers, and this server takes {most} at a time.");
        return Err(ApiError::field(field, "invalid_value", why));
    }
    if *app.phase().borrow() != Phase::Running {
        return Err(HostError::ShuttingDown.into());
    }
    let answer = Answer::new(endpoint, model, work.per_prompt, work.echo, include_usage);
    let app = app.clone();
    let opening = Box::pin(async move {
        // Each takes its place in the queue; where one finds none, none of them is answered.
        futures::future::try_join_all(work.answers.into_iter().map(|generation| Tracked::start(&app, generation))).await
    });
    if stream { answer.stream(opening).await } else { answer.whole(opening).await }
}
