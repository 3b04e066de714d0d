//! The page asks the server itself, while there is no engine worker: before it is up, and where it does not start.
//!
//! Nothing is simulated here: there is no slot, no α and no log row, only the server's answers as they arrive.

use std::time::Duration;

use client_core::offload::openai::{ChatDecoder, ChatPiece, ChatRequest, ChatTurn, StreamOptions, error_message};
use client_core::protocol::health::{Health, HealthStatus};
use client_core::protocol::worker::{AskOptions, Event, Origin, ServerHealth};
use leptos::prelude::*;
use leptos::task::spawn_local;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortController, AbortSignal, Headers, ReadableStreamDefaultReader, RequestInit, Response};

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
        let response = fetch("v1/chat/completions", Some(&body), Some(signal)).await?;
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
    let body = response.body().ok_or("its answer is empty")?;
    let stream: ReadableStreamDefaultReader = body.get_reader().unchecked_into();
    let mut decoder = ChatDecoder::default();
    while !decoder.is_closed() {
        let chunk = JsFuture::from(stream.read()).await.map_err(|e| dom::error_text(&e))?;
        let field = |name: &str| js_sys::Reflect::get(&chunk, &JsValue::from_str(name)).unwrap_or(JsValue::UNDEFINED);
        if field("done").is_truthy() {
            return if decoder.is_finished() { Ok(()) } else { Err("the connection was cut".into()) };
        }
        let bytes: js_sys::Uint8Array = field("value").unchecked_into();
        decoder.push(&bytes.to_vec()).map_err(|e| e.to_string())?.into_iter().for_each(&mut take);
    }
    Ok(())
}

async fn fetch(path: &str, post: Option<&str>, signal: Option<&AbortSignal>) -> Result<Response, String> {
    let init = RequestInit::new();
    init.set_signal(signal);
    if let Some(body) = post {
        let headers = Headers::new().map_err(|e| dom::error_text(&e))?;
        headers.set("content-type", "application/json").map_err(|e| dom::error_text(&e))?;
        init.set_method("POST");
        init.set_headers_headers(&headers);
        init.set_body(&JsValue::from_str(body));
    }
    let url = format!("{}{path}", dom::base_url());
    let response =
        JsFuture::from(window().fetch_with_str_and_init(&url, &init)).await.map_err(|e| dom::error_text(&e))?;
    let response: Response = response.unchecked_into();
    if response.ok() {
        return Ok(response);
    }
    let told = error_message(&text(&response).await.unwrap_or_default());
    let status = response.status();
    Err(if told.is_empty() {
        format!("it refused with status {status}")
    } else {
        format!("it refused ({status}): {told}")
    })
}

async fn text(response: &Response) -> Result<String, String> {
    let promise = response.text().map_err(|e| dom::error_text(&e))?;
    let value = JsFuture::from(promise).await.map_err(|e| dom::error_text(&e))?;
    Ok(value.as_string().unwrap_or_default())
}

/// A file of the server as text; `None` where it is missing.
pub async fn file(path: &str) -> Option<String> {
    text(&fetch(path, None, None).await.ok()?).await.ok()
}

async fn health() -> Result<Health, String> {
    let response = fetch("health", None, None).await?;
    serde_json::from_str(&text(&response).await?).map_err(|e| format!("its health report is unreadable ({e})"))
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
