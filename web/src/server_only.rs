//! The page asks the server itself, while there is no engine worker: before it is up, and where it does not start.
//!
//! Nothing is simulated here: there is no slot, no α and no log row, only the server's answers as they arrive.

use std::time::Duration;

use client_core::protocol::health::{Health, HealthStatus};
use client_core::protocol::worker::{AskOptions, Event, Origin, ServerHealth};
use leptos::prelude::*;
use leptos::task::spawn_local;
use serde_json::json;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortController, AbortSignal, Headers, ReadableStreamDefaultReader, RequestInit, Response};

use crate::ctx::Ctx;
use crate::dom;
use crate::run::Status;
use crate::sse::{ErrorBody, Item, Reader};
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
    let model = health().await?.model.id;
    for (prompt, question) in questions.iter().enumerate() {
        let body = json!({
            "model": model,
            "messages": [{ "role": "user", "content": question }],
            "stream": true,
            "max_tokens": options.max_tokens,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "seed": options.seed,
        });
        let response = fetch("v1/chat/completions", Some(&body.to_string()), Some(signal)).await?;
        read_stream(response, |text| {
            ctx.receive(Event::Token { ask, prompt, origin: Origin::Server, text });
        })
        .await?;
        ctx.receive(Event::PromptDone { ask, prompt });
    }
    Ok(())
}

async fn read_stream(response: Response, mut token: impl FnMut(String)) -> Result<(), String> {
    let body = response.body().ok_or("its answer is empty")?;
    let stream: ReadableStreamDefaultReader = body.get_reader().unchecked_into();
    let decoder = web_sys::TextDecoder::new().map_err(|e| dom::error_text(&e))?;
    let more = web_sys::TextDecodeOptions::new();
    more.set_stream(true);
    let mut reader = Reader::default();
    loop {
        let chunk = JsFuture::from(stream.read()).await.map_err(|e| dom::error_text(&e))?;
        let field = |name: &str| js_sys::Reflect::get(&chunk, &JsValue::from_str(name)).unwrap_or(JsValue::UNDEFINED);
        if field("done").is_truthy() {
            return Err("the connection was cut".into());
        }
        let bytes: js_sys::Uint8Array = field("value").unchecked_into();
        let text = decoder.decode_with_js_u8_array_and_options(&bytes, &more).map_err(|e| dom::error_text(&e))?;
        for item in reader.push(&text) {
            match item {
                Item::Text(text) => token(text),
                Item::End => return Ok(()),
                Item::Error(message) => return Err(message),
            }
        }
    }
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
    let text = text(&response).await.unwrap_or_default();
    let told = serde_json::from_str::<ErrorBody>(&text).map(|body| body.error.message);
    Err(told.unwrap_or_else(|_| format!("it refused with status {}", response.status())))
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
