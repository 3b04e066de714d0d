//! The page asks the server itself, while there is no engine worker: before it is up, and where it does not start.
//!
//! Nothing is simulated here: there is no slot, no α and no log row, only the server's answers as they arrive.

use std::time::Duration;

use client::offload::openai::{ChatDecoder, ChatPiece, ChatRequest, ChatTurn, StreamOptions};
use client::protocol::health::{Health, HealthStatus};
use client::protocol::worker::{AskOptions, Event, Origin, ServerHealth};
use leptos::prelude::*;
use leptos::task::spawn_local;
use web_sys::{AbortController, AbortSignal, Response};

use crate::api::{self, Ask};
use crate::ctx::Ctx;
use crate::dom;
use crate::run::Status;
use crate::state::Phase;

/// How often the server is asked how it is.
const HEALTH_EVERY: Duration = Duration::from_secs(10);

/// Answers a burst, one question after the other.
pub fn answer(ctx: Ctx, ask: u64, questions: Vec<String>, options: AskOptions) {
    let Ok(abort) = AbortController::new() else {
        return ctx.finish(ask, Status::Failed("This browser cannot ask the server. Update it.".into()));
    };
    ctx.abort.set_value(Some(abort.clone()));
    spawn_local(async move {
        let status = match all(ctx, ask, &questions, &options, &abort.signal()).await {
            Ok(()) => Status::Done,
            Err(_) if abort.signal().aborted() => Status::Stopped,
            Err(error) => {
                let message = format!("The server did not answer: {error}. Your questions are kept; try again.");
                ctx.receive(Event::Failed { ask: Some(ask), message: message.clone() });
                Status::Failed(message)
            }
        };
        ctx.abort.set_value(None);
        ctx.finish(ask, status);
    });
}

async fn all(
    ctx: Ctx,
    ask: u64,
    questions: &[String],
    options: &AskOptions,
    signal: &AbortSignal,
) -> Result<(), String> {
    for (prompt, question) in questions.iter().enumerate() {
        let request = ChatRequest {
            messages: vec![ChatTurn { role: "user", content: question.clone() }],
            max_tokens: options.max_tokens,
            temperature: options.temperature,
            top_p: options.top_p,
            top_k: options.top_k,
            seed: options.seed,
            stream: true,
            stream_options: StreamOptions { include_usage: true },
        };
        let body = serde_json::to_string(&request).map_err(|e| e.to_string())?;
        let sent = Ask { path: "v1/chat/completions", json: Some(&body), signal: Some(signal), ..Ask::default() };
        let response = api::send(sent).await?;
        read_stream(response, |piece| match piece {
            ChatPiece::Text(text) => ctx.receive(Event::Token { ask, prompt, origin: Origin::Server, text }),
            ChatPiece::Decoded(decoded) => ctx.state.update(|s| {
                if let Some(run) = s.run.as_mut().filter(|run| run.ask == ask) {
                    run.server_decoded += decoded;
                }
            }),
            ChatPiece::Finish(_) => {}
        })
        .await?;
        ctx.receive(Event::PromptDone { ask, prompt });
    }
    Ok(())
}

async fn read_stream(response: Response, mut take: impl FnMut(ChatPiece)) -> Result<(), String> {
    let mut decoder = ChatDecoder::default();
    api::read(response, |bytes| {
        decoder.push(bytes).map_err(|e| e.to_string())?.into_iter().for_each(&mut take);
        Ok(!decoder.is_closed())
    })
    .await?;
    if decoder.is_closed() || decoder.is_finished() { Ok(()) } else { Err("the connection was cut".into()) }
}

/// A file of the server as text; `None` where it is missing.
pub async fn file(path: &str) -> Option<String> {
    api::text(&api::send(Ask { path, ..Ask::default() }).await.ok()?).await.ok()
}

async fn health() -> Result<Health, String> {
    api::json(Ask { path: "health", ..Ask::default() }).await
}

/// Asks the server how it is, now and again, as long as no worker does that.
pub fn watch_health(ctx: Ctx) {
    spawn_local(async move {
        let before = dom::now_ms();
        let server = match health().await {
            Ok(health) => ServerHealth {
                up: health.status == HealthStatus::Ok,
                model: Some(health.model.name),
                rtt_ms: Some(dom::now_ms() - before),
                problem: (health.status != HealthStatus::Ok).then(|| "it is going down".to_owned()),
            },
            Err(problem) => ServerHealth { problem: Some(problem), ..ServerHealth::default() },
        };
        if ctx.state.with_untracked(|s| matches!(s.phase, Phase::Absent(_))) {
            ctx.receive(Event::Server { server });
            set_timeout(move || watch_health(ctx), HEALTH_EVERY);
        }
    });
}
