//! The page asks the server itself, while there is no engine worker: before it is up, and where it does not start.
//!
//! Nothing is simulated here: there is no slot, no α and no log row, only the server's answers as they arrive.

use std::time::Duration;

use client::offload::openai::{ChatDecoder, ChatPiece, ChatRequest, Decoded};
use client::protocol::health::{Health, HealthStatus};
use client::protocol::worker::{AskOptions, Event, Origin, ServerHealth};
use leptos::prelude::set_timeout;
use leptos::task::spawn_local;
use web_sys::{AbortSignal, Response};

use crate::api::{self, Ask};
use crate::dom;

/// How often the server is asked how it is.
const HEALTH_EVERY: Duration = Duration::from_secs(10);

/// What an answer brings.
#[allow(clippy::large_enum_variant, reason = "it is passed on at once and never kept")]
pub enum ServerEvent {
    /// What a worker would have said.
    Event(Event),
    /// How fast the server wrote, by its own clock.
    Decoded(Decoded),
}

/// Answers questions after what was said earlier, one after the other; of each some may be written already, in the same order.
///
/// # Errors
/// What the server said, or that it said nothing.
pub async fn answer(
    ask: u64,
    questions: &[String],
    begun: &[String],
    options: &AskOptions,
    signal: &AbortSignal,
    mut tell: impl FnMut(ServerEvent),
) -> Result<(), String> {
    for (prompt, question) in questions.iter().enumerate() {
        let begun = begun.get(prompt).map_or("", String::as_str);
        let request = ChatRequest::of_question(&options.earlier, question, begun, &options.sampling);
        let body = serde_json::to_string(&request).map_err(|e| e.to_string())?;
        let sent = Ask { path: "v1/chat/completions", json: Some(&body), signal: Some(signal), ..Ask::default() };
        let response = api::send(sent).await?;
        read_stream(response, |piece| {
            tell(match piece {
                // Without a worker there is no record to put it into.
                ChatPiece::Read(_) => return,
                ChatPiece::Text(text) => ServerEvent::Event(Event::Token { ask, prompt, origin: Origin::Server, text }),
                ChatPiece::Decoded(decoded) => ServerEvent::Decoded(decoded),
                ChatPiece::Finish(finish) => ServerEvent::Event(Event::PromptDone { ask, prompt, finish }),
            });
        })
        .await?;
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
    decoder.rest().map_err(|e| e.to_string())?.into_iter().for_each(&mut take);
    if decoder.is_closed() || decoder.is_finished() { Ok(()) } else { Err("the connection was cut".into()) }
}

/// A file of the server as text; `None` where it is missing.
pub async fn file(path: &str) -> Option<String> {
    api::text(&api::send(Ask { path, ..Ask::default() }).await.ok()?).await.ok()
}

async fn health() -> Result<Health, String> {
    api::json(Ask { path: "health", ..Ask::default() }).await
}

/// Asks the server how it is, now and again, for as long as `tell` wants to hear it.
pub fn watch_health(mut tell: impl FnMut(ServerHealth) -> bool + 'static) {
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
        if tell(server) {
            set_timeout(move || watch_health(tell), HEALTH_EVERY);
        }
    });
}
