//! An answer in OpenAI's JSON: in one piece, or as server-sent events that end with `[DONE]`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::hash::{BuildHasher as _, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::tracked::Tracked;
use crate::host::{FinishReason, GenerationEvent, HostError, Summary};
use crate::http::error::ApiError;

/// Which of the two APIs is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Text,
}

/// What all pieces of one answer have in common.
#[derive(Clone, Debug)]
pub struct Answer {
    shape: Shape,
    id: String,
    created_unix_s: u64,
    model: String,
}

impl Answer {
    /// A new answer of this model.
    #[must_use]
    pub fn new(shape: Shape, model: String) -> Self {
        let prefix = if shape == Shape::Chat { "chatcmpl" } else { "cmpl" };
        let id = format!("{prefix}-{:016x}", RandomState::new().hash_one(0u8));
        let created_unix_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self { shape, id, created_unix_s, model }
    }

    /// Waits for the whole answer.
    ///
    /// # Errors
    /// When the host cannot complete it.
    pub async fn whole(self, mut tracked: Tracked) -> Result<Response, ApiError> {
        let mut text = String::new();
        while let Some(event) = tracked.next().await {
            match event {
                GenerationEvent::Text(piece) => text.push_str(&piece),
                GenerationEvent::Failed(error) => return Err(error.into()),
                GenerationEvent::Done(summary) => return Ok(Json(self.complete(&text, &summary)).into_response()),
            }
        }
        Err(HostError::Engine("it ended without an answer".into()).into())
    }

    fn complete(&self, text: &str, summary: &Summary) -> Value {
        let mut choice = json!({ "index": 0, "finish_reason": reason(summary.finish), "logprobs": null });
        let object = match self.shape {
            Shape::Chat => {
                choice["message"] = json!({ "role": "assistant", "content": text });
                "chat.completion"
            }
            Shape::Text => {
                choice["text"] = json!(text);
                "text_completion"
            }
        };
        let mut body = self.envelope(object, json!([choice]));
        body["usage"] = usage(summary);
        body["timings"] = timings(summary);
        body
    }

    /// Sends the answer token by token. The first event is awaited before the status is sent, so that a prompt that is
    /// too long is still a 400 and a full queue a 503.
    ///
    /// # Errors
    /// When the host fails before its first token.
    pub async fn stream(self, mut tracked: Tracked, include_usage: bool) -> Result<Response, ApiError> {
        let first = match tracked.next().await {
            Some(GenerationEvent::Failed(error)) => return Err(error.into()),
            Some(event) => event,
            None => return Err(HostError::Engine("it ended without an answer".into()).into()),
        };
        let mut ready = VecDeque::new();
        if self.shape == Shape::Chat {
            ready.push_back(self.piece(json!({ "delta": { "role": "assistant", "content": "" } }), None));
        }
        self.render(first, include_usage, &mut ready);
        let state = (self, tracked, ready);
        let events = futures::stream::unfold(state, move |(answer, mut tracked, mut ready)| async move {
            while ready.is_empty() {
                // Nothing after the last event: the stream ends.
                let event = tracked.next().await?;
                answer.render(event, include_usage, &mut ready);
            }
            let data = ready.pop_front()?;
            Some((Ok::<_, Infallible>(Event::default().data(data)), (answer, tracked, ready)))
        });
        let mut response = Sse::new(events).keep_alive(KeepAlive::default()).into_response();
        // nginx would collect the whole answer first.
        let name = HeaderName::from_static("x-accel-buffering");
        response.headers_mut().insert(name, HeaderValue::from_static("no"));
        Ok(response)
    }

    fn render(&self, event: GenerationEvent, include_usage: bool, out: &mut VecDeque<String>) {
        match event {
            GenerationEvent::Text(text) if self.shape == Shape::Chat => {
                out.push_back(self.piece(json!({ "delta": { "content": text } }), None));
            }
            GenerationEvent::Text(text) => out.push_back(self.piece(json!({ "text": text }), None)),
            GenerationEvent::Done(summary) => {
                let last = if self.shape == Shape::Chat { json!({ "delta": {} }) } else { json!({ "text": "" }) };
                out.push_back(self.piece(last, Some(summary.finish)));
                if include_usage {
                    let mut body = self.envelope(self.chunk_object(), json!([]));
                    body["usage"] = usage(&summary);
                    body["timings"] = timings(&summary);
                    out.push_back(body.to_string());
                }
                out.push_back("[DONE]".into());
            }
            // Too late for a status. Clients of OpenAI's know an `error` in the stream, and miss the `[DONE]`.
            GenerationEvent::Failed(error) => out.push_back(ApiError::from(error).body().to_string()),
        }
    }

    fn piece(&self, mut choice: Value, finish: Option<FinishReason>) -> String {
        choice["index"] = json!(0);
        choice["finish_reason"] = json!(finish.map(reason));
        self.envelope(self.chunk_object(), json!([choice])).to_string()
    }

    fn chunk_object(&self) -> &'static str {
        match self.shape {
            Shape::Chat => "chat.completion.chunk",
            Shape::Text => "text_completion",
        }
    }

    fn envelope(&self, object: &str, choices: Value) -> Value {
        json!({
            "id": self.id, "object": object, "created": self.created_unix_s, "model": self.model, "choices": choices,
        })
    }
}

fn reason(finish: FinishReason) -> &'static str {
    match finish {
        // One that was cancelled has nobody left to tell.
        FinishReason::Stop | FinishReason::Cancelled => "stop",
        FinishReason::Length => "length",
    }
}

fn usage(summary: &Summary) -> Value {
    json!({
        "prompt_tokens": summary.prompt_tokens,
        "completion_tokens": summary.completion_tokens,
        "total_tokens": summary.prompt_tokens + summary.completion_tokens,
    })
}

/// The model's own times, without queue and network, under llama.cpp's names.
fn timings(summary: &Summary) -> Value {
    let ms = |seconds: Option<f64>| seconds.map(|seconds| seconds * 1e3);
    json!({
        "prompt_n": summary.prompt_tokens, "prompt_ms": ms(summary.prefill_s),
        "predicted_n": summary.completion_tokens, "predicted_ms": ms(summary.decode_s),
    })
}
