//! Answers in OpenAI's JSON: in one piece, or as server-sent events that end with `[DONE]`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::future::BoxFuture;
use futures::stream::{BoxStream, SelectAll, StreamExt as _};
use serde_json::{Value, json};

use super::tracked::Tracked;
use crate::host::{FinishReason, GenerationEvent, HostError, Summary};
use crate::http::error::ApiError;

/// Longest wait for the first event before the status is sent all the same: proxies give up on a server that says nothing
/// for long. What fails later is told in the stream.
const FIRST_WAIT: Duration = Duration::from_secs(2);
/// A comment goes out after so long a silence.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Longest answer that is put together in one piece, bytes.
const MAX_TEXT: usize = 16 << 20;
/// Most bytes of an answer's log probabilities, which a client that wants them whole makes us hold.
const MAX_SCORES: usize = 64 << 20;

/// Which of the two APIs is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Text,
}

/// The answers to one request under way, or why they could not begin.
pub type Opening = BoxFuture<'static, Result<Vec<Tracked>, HostError>>;

/// What all pieces of the answers to one request have in common.
#[derive(Clone, Debug)]
pub struct Answer {
    endpoint: Endpoint,
    id: String,
    created_unix_s: u64,
    model: String,
    /// Answers to each prompt.
    per_prompt: usize,
    /// What stands before each answer; empty without an echo.
    echo: Vec<String>,
    include_usage: bool,
}

/// One answer in one piece.
#[derive(Default)]
struct Whole {
    text: String,
    thought: String,
    scores: Value,
    summary: Option<Summary>,
}

impl Answer {
    /// New answers of this model.
    #[must_use]
    pub fn new(endpoint: Endpoint, model: String, per_prompt: usize, echo: Vec<String>, include_usage: bool) -> Self {
        let prefix = if endpoint == Endpoint::Chat { "chatcmpl" } else { "cmpl" };
        let id = format!("{prefix}-{:016x}", RandomState::new().hash_one(0u8));
        let created_unix_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self { endpoint, id, created_unix_s, model, per_prompt, echo, include_usage }
    }

    /// Waits for the whole answers.
    ///
    /// # Errors
    /// When the host cannot complete one of them.
    pub async fn whole(self, opening: Opening) -> Result<Response, ApiError> {
        let all = futures::future::try_join_all(opening.await?.into_iter().map(complete)).await?;
        let choices: Vec<Value> = all.iter().enumerate().map(|(index, whole)| self.choice(index, whole)).collect();
        let object = if self.endpoint == Endpoint::Chat { "chat.completion" } else { "text_completion" };
        let mut body = self.envelope(object, json!(choices));
        let summaries: Vec<Option<Summary>> = all.iter().map(|whole| whole.summary).collect();
        self.add_counts(&mut body, &summaries);
        Ok(Json(body).into_response())
    }

    fn choice(&self, index: usize, whole: &Whole) -> Value {
        let finish = whole.summary.map(|summary| reason(summary.finish));
        let mut choice = json!({ "index": index, "finish_reason": finish, "logprobs": whole.scores });
        match self.endpoint {
            Endpoint::Chat => {
                choice["message"] = json!({ "role": "assistant", "content": whole.text });
                if !whole.thought.is_empty() {
                    choice["message"]["reasoning_content"] = json!(whole.thought);
                }
            }
            Endpoint::Text => {
                let echo = self.echo.get(index).map_or("", String::as_str);
                choice["text"] = json!(format!("{echo}{}", whole.text));
            }
        }
        choice
    }

    /// Sends the answers token by token. For a moment the first event is awaited before the status is sent, so that a
    /// prompt that is too long is still a 400 and a full queue a 503.
    ///
    /// # Errors
    /// When the host fails before its first token, and soon.
    pub async fn stream(self, opening: Opening) -> Result<Response, ApiError> {
        let mut first: Begun = Box::pin(async move {
            let mut events = merged(opening.await?);
            let event = events.next().await;
            Ok((events, event))
        });
        let mut pieces = match tokio::time::timeout(FIRST_WAIT, &mut first).await {
            Ok(begun) => match begun? {
                (_, Some((_, GenerationEvent::Failed(error)))) => return Err(error.into()),
                (events, event) => Pieces::begun(self, events, event),
            },
            Err(_) => Pieces::waiting(self, first),
        };
        if matches!(pieces.source, Source::Opening(_)) {
            pieces.ready.push_back(Event::default().comment("waiting"));
        }
        let events = futures::stream::unfold(pieces, |mut pieces| async move {
            let event = pieces.next().await?;
            Some((Ok::<_, Infallible>(event), pieces))
        });
        let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
        // nginx would collect the whole answer first.
        let name = HeaderName::from_static("x-accel-buffering");
        response.headers_mut().insert(name, HeaderValue::from_static("no"));
        Ok(response)
    }

    fn piece(&self, index: usize, mut choice: Value, finish: Option<FinishReason>) -> Event {
        choice["index"] = json!(index);
        choice["finish_reason"] = json!(finish.map(reason));
        let object = if self.endpoint == Endpoint::Chat { "chat.completion.chunk" } else { "text_completion" };
        let mut body = self.envelope(object, json!([choice]));
        if self.include_usage {
            body["usage"] = Value::Null;
        }
        data(&body)
    }

    fn text(&self, index: usize, text: &str, scores: Option<Value>) -> Event {
        let mut choice = match self.endpoint {
            Endpoint::Chat => json!({ "delta": { "content": text } }),
            Endpoint::Text => json!({ "text": text }),
        };
        if let Some(scores) = scores {
            choice["logprobs"] = scores;
        }
        self.piece(index, choice, None)
    }

    fn counts(&self, summaries: &[Option<Summary>]) -> Event {
        let object = if self.endpoint == Endpoint::Chat { "chat.completion.chunk" } else { "text_completion" };
        let mut body = self.envelope(object, json!([]));
        self.add_counts(&mut body, summaries);
        data(&body)
    }

    /// A prompt counts once, however many answers it gets.
    fn add_counts(&self, body: &mut Value, summaries: &[Option<Summary>]) {
        let of = |index: usize| summaries.get(index).copied().flatten();
        let prompts = (0..summaries.len()).step_by(self.per_prompt.max(1));
        let prompt_tokens: usize = prompts.filter_map(of).map(|summary| summary.prompt_tokens).sum();
        let completion_tokens: usize = summaries.iter().flatten().map(|summary| summary.completion_tokens).sum();
        body["usage"] = json!({
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        });
        // Said only where all of it is known.
        let cached = (0..summaries.len()).step_by(self.per_prompt.max(1)).map(|index| of(index)?.cached_tokens);
        if let Some(cached) = cached.sum::<Option<usize>>() {
            body["usage"]["prompt_tokens_details"] = json!({ "cached_tokens": cached });
        }
        if let [Some(summary)] = summaries {
            body["timings"] = timings(summary);
        }
    }

    fn envelope(&self, object: &str, choices: Value) -> Value {
        json!({
            "id": self.id, "object": object, "created": self.created_unix_s, "model": self.model, "choices": choices,
        })
    }
}

async fn complete(mut tracked: Tracked) -> Result<Whole, HostError> {
    let (mut whole, mut scored) = (Whole::default(), 0);
    while let Some(event) = tracked.next().await {
        match event {
            GenerationEvent::Text(piece) => whole.text.push_str(&piece),
            GenerationEvent::Scored(piece, scores) => {
                whole.text.push_str(&piece);
                scored += values(&scores) * size_of::<Value>();
                append(&mut whole.scores, scores);
            }
            GenerationEvent::Reasoning(piece) => whole.thought.push_str(&piece),
            GenerationEvent::Failed(error) => return Err(error),
            GenerationEvent::Done(summary) => {
                whole.summary = Some(summary);
                return Ok(whole);
            }
        }
        if whole.text.len() + whole.thought.len() > MAX_TEXT {
            return Err(HostError::Upstream(format!("its answer is longer than {MAX_TEXT} bytes")));
        }
        if scored > MAX_SCORES {
            return Err(HostError::Upstream(format!(
                "its log probabilities take more than {MAX_SCORES} bytes; ask for fewer of them, or for a stream"
            )));
        }
    }
    Err(HostError::Engine("it ended without an answer".into()))
}

/// How many values there are in a value.
fn values(value: &Value) -> usize {
    1 + match value {
        Value::Array(all) => all.iter().map(values).sum(),
        Value::Object(all) => all.values().map(values).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// Log probabilities come as lists by name, of one piece or of all.
fn append(all: &mut Value, more: Value) {
    match (all, more) {
        (Value::Object(all), Value::Object(more)) => {
            for (name, more) in more {
                match (all.get_mut(&name), more) {
                    (Some(Value::Array(all)), Value::Array(mut more)) => all.append(&mut more),
                    (_, more) => drop(all.insert(name, more)),
                }
            }
        }
        (all, more) => *all = more,
    }
}

/// The events of several answers, each with its answer's number.
type Merged = SelectAll<BoxStream<'static, (usize, GenerationEvent)>>;
type Begun = BoxFuture<'static, Result<(Merged, Option<(usize, GenerationEvent)>), HostError>>;

fn merged(answers: Vec<Tracked>) -> Merged {
    let events = |(index, tracked): (usize, Tracked)| {
        futures::stream::unfold(tracked, move |mut tracked| async move {
            let event = tracked.next().await?;
            Some(((index, event), tracked))
        })
        .boxed()
    };
    futures::stream::select_all(answers.into_iter().enumerate().map(events))
}

enum Source {
    Opening(Begun),
    Running(Merged),
    Ended,
}

/// A stream of events as it is sent.
struct Pieces {
    answer: Answer,
    source: Source,
    ready: VecDeque<Event>,
    summaries: Vec<Option<Summary>>,
}

impl Pieces {
    fn waiting(answer: Answer, first: Begun) -> Self {
        Self { answer, source: Source::Opening(first), ready: VecDeque::new(), summaries: Vec::new() }
    }

    fn begun(answer: Answer, events: Merged, event: Option<(usize, GenerationEvent)>) -> Self {
        let mut pieces = Self { answer, source: Source::Ended, ready: VecDeque::new(), summaries: Vec::new() };
        pieces.begin(events, event);
        pieces
    }

    fn begin(&mut self, events: Merged, event: Option<(usize, GenerationEvent)>) {
        self.summaries = vec![None; events.len()];
        self.source = Source::Running(events);
        for index in 0..self.summaries.len() {
            if self.answer.endpoint == Endpoint::Chat {
                let role = json!({ "delta": { "role": "assistant", "content": "" } });
                self.ready.push_back(self.answer.piece(index, role, None));
            }
            if let Some(echo) = self.answer.echo.get(index) {
                self.ready.push_back(self.answer.text(index, echo, None));
            }
        }
        match event {
            Some((index, event)) => self.take(index, event),
            None => self.fail(HostError::Engine("it ended without an answer".into())),
        }
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            match &mut self.source {
                Source::Ended => return None,
                Source::Opening(first) => match first.await {
                    Ok((events, event)) => self.begin(events, event),
                    Err(error) => self.fail(error),
                },
                Source::Running(events) => match events.next().await {
                    Some((index, event)) => self.take(index, event),
                    None => self.source = Source::Ended,
                },
            }
        }
    }

    fn take(&mut self, index: usize, event: GenerationEvent) {
        let answer = &self.answer;
        let piece = match event {
            GenerationEvent::Text(text) => answer.text(index, &text, None),
            GenerationEvent::Scored(text, scores) => answer.text(index, &text, Some(scores)),
            GenerationEvent::Reasoning(text) if answer.endpoint == Endpoint::Chat => {
                answer.piece(index, json!({ "delta": { "reasoning_content": text } }), None)
            }
            GenerationEvent::Reasoning(_) => return,
            GenerationEvent::Failed(error) => return self.fail(error),
            GenerationEvent::Done(summary) => {
                let last =
                    if answer.endpoint == Endpoint::Chat { json!({ "delta": {} }) } else { json!({ "text": "" }) };
                if let Some(place) = self.summaries.get_mut(index) {
                    *place = Some(summary);
                }
                answer.piece(index, last, Some(summary.finish))
            }
        };
        self.ready.push_back(piece);
        if self.summaries.iter().all(Option::is_some) {
            if self.answer.include_usage {
                self.ready.push_back(self.answer.counts(&self.summaries));
            }
            self.ready.push_back(Event::default().data("[DONE]"));
            self.source = Source::Ended;
        }
    }

    /// Too late for a status. Clients of OpenAI's know an `error` in the stream, and miss the `[DONE]`.
    fn fail(&mut self, error: HostError) {
        self.ready.push_back(data(&ApiError::from(error).body()));
        self.source = Source::Ended;
    }
}

fn data(body: &Value) -> Event {
    Event::default().data(body.to_string())
}

fn reason(finish: FinishReason) -> &'static str {
    match finish {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::Filtered => "content_filter",
    }
}

/// The model's own times, without queue and network, under llama.cpp's names.
fn timings(summary: &Summary) -> Value {
    let ms = |seconds: Option<f64>| seconds.map(|seconds| seconds * 1e3);
    json!({
        "prompt_n": summary.prompt_tokens, "prompt_ms": ms(summary.prefill_s),
        "predicted_n": summary.completion_tokens, "predicted_ms": ms(summary.decode_s),
    })
}
