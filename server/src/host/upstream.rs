//! Another OpenAI-compatible engine writes the answers: vLLM, llama.cpp server, or a second Tandem.
//!
//! Every request goes out as a stream, also where our own client wants one answer in a piece: when that client leaves,
//! the connection to the engine is closed, and the engine stops. Events are read and written anew, not copied, so that
//! the engine's answer looks the same to a client whichever engine it is, and is counted in our metrics.
//!
//! Deliberately absent: retries (a half-written answer cannot be repeated unseen; a client that wants to retry knows
//! better) and balancing over several engines.

use std::time::Duration;

use async_trait::async_trait;
use client::offload::sse::SseParser;
use client::protocol::health::HostKind;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{OnceCell, mpsc};

use super::{
    FinishReason, Generation, GenerationEvent, GenerationStream, Host, HostError, Load, ModelCard, Prompt, Summary,
};

/// Events that may wait for a slow client before the engine is held back by TCP.
const EVENT_BUFFER: usize = 64;
/// How much of an engine's error text is passed on.
const MAX_ERROR_CHARS: usize = 400;

/// Where the engine is and how long to wait for it.
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// Base URL, with or without `/v1`.
    pub url: String,
    /// Model name to ask for; the first that the engine lists where none is given.
    pub model: Option<String>,
    /// Bearer token.
    pub api_key: Option<String>,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// Longest silence, the one before the first token included.
    pub read_timeout: Duration,
}

/// A [`Host`] that hands everything on.
#[derive(Debug)]
pub struct UpstreamHost {
    client: reqwest::Client,
    base: reqwest::Url,
    config: UpstreamConfig,
    discovered: OnceCell<ModelCard>,
    active: Arc<AtomicUsize>,
}

impl UpstreamHost {
    /// Prepares the connection; nothing is sent yet.
    ///
    /// # Errors
    /// [`HostError::Invalid`] when the URL is none, or TLS cannot be set up.
    pub fn new(config: UpstreamConfig) -> Result<Self, HostError> {
        let invalid = |why: String| HostError::Invalid(format!("upstream URL {:?}: {why}", config.url));
        // Parsed as it stands first: "http://" with a path behind it would be taken for a host of that name.
        reqwest::Url::parse(&config.url).map_err(|error| invalid(error.to_string()))?;
        let trimmed = config.url.trim_end_matches('/').trim_end_matches("/v1");
        let base = reqwest::Url::parse(&format!("{trimmed}/v1/")).map_err(|error| invalid(error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(invalid("it has to begin with http:// or https://".into()));
        }
        let mut builder = reqwest::Client::builder()
            .connect_timeout(config.connect_timeout)
            .read_timeout(config.read_timeout)
            .user_agent(concat!("tandem/", env!("CARGO_PKG_VERSION")));
        if base.scheme() == "http" {
            // No certificate is looked at; a machine without a certificate store can still reach a plain engine.
            builder = builder.tls_certs_only(std::iter::empty());
        }
        if matches!(base.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
            builder = builder.no_proxy();
        }
        crate::tls::install_provider();
        let client = builder.build().map_err(|error| invalid(chain(&error)))?;
        Ok(Self { client, base, config, discovered: OnceCell::new(), active: Arc::default() })
    }

    fn request(&self, method: reqwest::Method, path: &str) -> Result<reqwest::RequestBuilder, HostError> {
        let url = self.base.join(path).map_err(|error| HostError::Upstream(error.to_string()))?;
        let request = self.client.request(method, url);
        Ok(match &self.config.api_key {
            Some(key) => request.bearer_auth(key),
            None => request,
        })
    }

    /// Asks the engine which models it has, once it answers; the result is kept.
    ///
    /// # Errors
    /// When the engine does not answer or lists no model.
    pub async fn discover(&self) -> Result<ModelCard, HostError> {
        self.discovered
            .get_or_try_init(|| async {
                let response = self
                    .request(reqwest::Method::GET, "models")?
                    .timeout(self.config.connect_timeout)
                    .send()
                    .await
                    .map_err(|error| transport(&error))?;
                let wanted = self.config.model.as_deref();
                let list: Value = match checked(response).await {
                    Ok(response) => response.json().await.map_err(|error| transport(&error))?,
                    // An engine without such a list still answers to the name that it was started with.
                    Err(HostError::Upstream(_)) if wanted.is_some() => Value::Null,
                    Err(error) => return Err(error),
                };
                let models = list["data"].as_array().cloned().unwrap_or_default();
                let entry = match wanted {
                    Some(name) => models.iter().find(|model| model["id"] == name),
                    None => models.first(),
                };
                let id = match (entry.and_then(|model| model["id"].as_str()), wanted) {
                    (Some(id), _) => id.to_owned(),
                    // Some engines list one name and answer to another.
                    (None, Some(name)) => name.to_owned(),
                    (None, None) => return Err(HostError::Upstream("it lists no model; name one".into())),
                };
                // vLLM says `max_model_len`, Tandem `context_length`, llama.cpp `meta.n_ctx`; older ones of it only what
                // the model was trained for.
                let context_length = entry.and_then(|model| {
                    [
                        &model["max_model_len"],
                        &model["context_length"],
                        &model["meta"]["n_ctx"],
                        &model["meta"]["n_ctx_train"],
                    ]
                    .into_iter()
                    .find_map(Value::as_u64)
                });
                Ok(ModelCard {
                    // A path (llama.cpp's default name) is no name for people.
                    name: id.rsplit(['/', '\\']).next().unwrap_or(&id).to_owned(),
                    id,
                    context_length: context_length.and_then(|length| usize::try_from(length).ok()),
                    parameters: entry.and_then(|model| model["meta"]["n_params"].as_u64()),
                })
            })
            .await
            .cloned()
    }
}

#[async_trait]
impl Host for UpstreamHost {
    fn kind(&self) -> HostKind {
        HostKind::Upstream
    }

    async fn model(&self) -> ModelCard {
        match self.discover().await {
            Ok(card) => card,
            Err(error) => {
                tracing::warn!(%error, "the upstream engine does not say which model it has");
                let id = self.config.model.clone().unwrap_or_else(|| "upstream".into());
                ModelCard { name: id.clone(), id, context_length: None, parameters: None }
            }
        }
    }

    fn load(&self) -> Load {
        Load { active: self.active.load(Ordering::Relaxed), ..Load::default() }
    }

    async fn generate(&self, generation: Generation) -> Result<GenerationStream, HostError> {
        let model = self.discover().await?.id;
        let (path, is_chat) = match generation.prompt {
            Prompt::Chat { .. } => ("chat/completions", true),
            Prompt::Text(_) => ("completions", false),
        };
        let guard = ActiveGuard::new(&self.active);
        let response = self
            .request(reqwest::Method::POST, path)?
            .json(&request_body(&model, generation))
            .send()
            .await
            .map_err(|error| transport(&error))?;
        let response = checked(response).await?;
        let (sender, receiver) = mpsc::channel(EVENT_BUFFER);
        tokio::spawn(async move {
            let _guard = guard;
            tokio::select! {
                // The client is gone: dropping the response closes the connection, and the engine stops.
                () = sender.closed() => {}
                () = relay(response, is_chat, &sender) => {}
            }
        });
        Ok(receiver)
    }
}

struct ActiveGuard(Arc<AtomicUsize>);

impl ActiveGuard {
    fn new(active: &Arc<AtomicUsize>) -> Self {
        active.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(active))
    }
}

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn request_body(model: &str, generation: Generation) -> Value {
    let sampling = generation.sampling;
    let mut body = json!({
        "model": model,
        "stream": true,
        "stream_options": { "include_usage": true },
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        // Engines want a signed 64-bit seed.
        "seed": sampling.seed & (i64::MAX as u64),
    });
    match generation.prompt {
        Prompt::Chat { messages, assistant_prefix } => {
            let mut turns: Vec<Value> =
                messages.into_iter().map(|turn| json!({ "role": turn.role, "content": turn.content })).collect();
            if !assistant_prefix.is_empty() {
                turns.push(json!({ "role": "assistant", "content": assistant_prefix }));
                // What vLLM wants to be told before it goes on with an answer; llama.cpp does so by itself.
                body["add_generation_prompt"] = json!(false);
                body["continue_final_message"] = json!(true);
            }
            body["messages"] = json!(turns);
        }
        Prompt::Text(text) => body["prompt"] = json!(text),
    }
    if let Some(max_tokens) = sampling.max_tokens {
        body["max_tokens"] = json!(max_tokens);
    }
    if sampling.top_k > 0 {
        body["top_k"] = json!(sampling.top_k);
    }
    if !sampling.stop.is_empty() {
        body["stop"] = json!(sampling.stop);
    }
    body
}

/// Turns the engine's events into ours until either side ends.
async fn relay(mut response: reqwest::Response, is_chat: bool, sender: &mpsc::Sender<GenerationEvent>) {
    let mut reader = SseParser::default();
    let mut answer = Answer::new(is_chat);
    loop {
        let last = match response.chunk().await {
            Ok(Some(bytes)) => match reader.push(&bytes) {
                Ok(events) => {
                    let mut last = None;
                    for event in events {
                        match answer.take(&event.data) {
                            Step::Text(text) => {
                                if sender.send(GenerationEvent::Text(text)).await.is_err() {
                                    return;
                                }
                            }
                            Step::Nothing => {}
                            Step::End(event) => {
                                last = Some(event);
                                break;
                            }
                        }
                    }
                    last
                }
                Err(error) => Some(GenerationEvent::Failed(HostError::Upstream(error.to_string()))),
            },
            Ok(None) => Some(answer.end_of_stream()),
            Err(error) => Some(GenerationEvent::Failed(transport(&error))),
        };
        if let Some(event) = last {
            // Nobody listens any more where this fails.
            let _ = sender.send(event).await;
            return;
        }
    }
}

enum Step {
    Text(String),
    Nothing,
    End(GenerationEvent),
}

/// One answer as the engine streams it.
struct Answer {
    is_chat: bool,
    pieces: usize,
    finish: Option<FinishReason>,
    usage: Option<(usize, usize)>,
}

impl Answer {
    fn new(is_chat: bool) -> Self {
        Self { is_chat, pieces: 0, finish: None, usage: None }
    }

    fn take(&mut self, data: &str) -> Step {
        if data.trim() == "[DONE]" {
            return Step::End(self.end_of_stream());
        }
        let Ok(chunk) = serde_json::from_str::<Value>(data) else {
            return Step::End(GenerationEvent::Failed(HostError::Upstream(
                "it sent something that is not JSON".into(),
            )));
        };
        if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
            let message = error["message"].as_str().map_or_else(|| error.to_string(), str::to_owned);
            return Step::End(GenerationEvent::Failed(HostError::Upstream(shorten(&message))));
        }
        let tokens = |name: &str| chunk["usage"][name].as_u64().and_then(|count| usize::try_from(count).ok());
        if let (Some(prompt), Some(completion)) = (tokens("prompt_tokens"), tokens("completion_tokens")) {
            self.usage = Some((prompt, completion));
        }
        let choice = &chunk["choices"][0];
        match choice["finish_reason"].as_str() {
            Some("length") => self.finish = Some(FinishReason::Length),
            Some(_) => self.finish = Some(FinishReason::Stop),
            None => {}
        }
        let text = if self.is_chat { &choice["delta"]["content"] } else { &choice["text"] };
        match text.as_str().filter(|text| !text.is_empty()) {
            Some(text) => {
                self.pieces += 1;
                Step::Text(text.to_owned())
            }
            None => Step::Nothing,
        }
    }

    /// An answer without a finish reason was cut off on the way.
    fn end_of_stream(&self) -> GenerationEvent {
        let Some(finish) = self.finish else {
            return GenerationEvent::Failed(HostError::Upstream("it broke off in the middle of the answer".into()));
        };
        // Engines that count nothing send about one piece a token.
        let (prompt_tokens, completion_tokens) = self.usage.unwrap_or((0, self.pieces));
        let summary = Summary { finish, prompt_tokens, completion_tokens, prefill_s: None, decode_s: None };
        GenerationEvent::Done(summary)
    }
}

/// Passes a success on; turns the engine's own error into ours.
async fn checked(response: reqwest::Response) -> Result<reqwest::Response, HostError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let retry_after_s = response
        .headers()
        .get(reqwest::header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .unwrap_or(1);
    let text = response.text().await.unwrap_or_default();
    let body: Value = serde_json::from_str(&text).unwrap_or_default();
    let error = body.get("error").unwrap_or(&body);
    let message = error["message"].as_str().or_else(|| body["detail"].as_str()).unwrap_or(&text);
    let message =
        shorten(if message.trim().is_empty() { status.canonical_reason().unwrap_or("no reason") } else { message });
    let is_context = error["code"] == "context_length_exceeded" || error["type"] == "exceed_context_size_error";
    Err(match status.as_u16() {
        429 | 503 => HostError::Busy { waiting: 0, retry_after_s },
        // Our own key or the model's name is wrong: the person at the server has to act, not the client.
        401 | 403 | 404 => HostError::Upstream(format!("{status}: {message}")),
        400..=499 if is_context => match (error["n_prompt_tokens"].as_u64(), error["n_ctx"].as_u64()) {
            (Some(tokens), Some(context)) => {
                HostError::PromptTooLong { tokens: tokens as usize, context: context as usize }
            }
            _ => HostError::ContextExceeded(message),
        },
        400..=499 => HostError::Invalid(message),
        _ => HostError::Upstream(format!("{status}: {message}")),
    })
}

fn shorten(message: &str) -> String {
    match message.char_indices().nth(MAX_ERROR_CHARS) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}

fn transport(error: &reqwest::Error) -> HostError {
    // The URL may hold a password.
    let text = chain(error);
    if error.is_timeout() {
        HostError::TimedOut(text)
    } else if error.is_connect() || error.is_request() {
        HostError::Unreachable(text)
    } else {
        HostError::Upstream(text)
    }
}

/// An error with its causes, in one line and without the URL.
fn chain(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut source = std::error::Error::source(error);
    if source.is_none() {
        return "the request failed".into();
    }
    while let Some(cause) = source {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling() -> crate::host::Sampling {
        crate::host::Sampling {
            max_tokens: None,
            temperature: 0.5,
            top_k: 0,
            top_p: 1.0,
            seed: u64::MAX,
            stop: Vec::new(),
        }
    }

    #[test]
    fn base_urls_with_and_without_v1() {
        for url in ["http://127.0.0.1:9", "http://127.0.0.1:9/", "http://127.0.0.1:9/v1", "http://127.0.0.1:9/v1/"] {
            assert_eq!(upstream(url).unwrap().base.as_str(), "http://127.0.0.1:9/v1/");
        }
        assert_eq!(upstream("http://h/api/v1").unwrap().base.as_str(), "http://h/api/v1/");
        for url in ["", "127.0.0.1:9", "ftp://h", "http://"] {
            assert!(matches!(upstream(url), Err(HostError::Invalid(_))), "{url}");
        }
    }

    fn upstream(url: &str) -> Result<UpstreamHost, HostError> {
        let wait = Duration::from_secs(1);
        let config =
            UpstreamConfig { url: url.into(), model: None, api_key: None, connect_timeout: wait, read_timeout: wait };
        UpstreamHost::new(config)
    }

    #[test]
    fn the_request_says_what_was_asked_and_no_more() {
        let text = request_body("m", Generation { prompt: Prompt::Text("p".into()), sampling: sampling() });
        assert_eq!(text["prompt"], "p");
        assert_eq!(text["seed"], i64::MAX);
        for absent in ["max_tokens", "top_k", "stop", "messages", "continue_final_message"] {
            assert!(text.get(absent).is_none(), "{absent}");
        }
        let user = crate::host::Message { role: "user".into(), content: "q".into() };
        let chat = Prompt::Chat { messages: vec![user], assistant_prefix: "so".into() };
        let body = request_body("m", Generation { prompt: chat, sampling: sampling() });
        assert_eq!(body["messages"][1], json!({"role": "assistant", "content": "so"}));
        assert_eq!(body["continue_final_message"], true);
    }

    #[test]
    fn an_answer_without_a_finish_reason_was_cut_off() {
        let mut answer = Answer::new(true);
        assert!(matches!(answer.take(r#"{"choices":[{"delta":{"content":"a"}}]}"#), Step::Text(text) if text == "a"));
        assert!(matches!(answer.end_of_stream(), GenerationEvent::Failed(HostError::Upstream(_))));
        answer.take(r#"{"choices":[{"delta":{},"finish_reason":"length"}]}"#);
        let GenerationEvent::Done(summary) = answer.end_of_stream() else { panic!("it is complete") };
        assert_eq!((summary.finish, summary.completion_tokens), (FinishReason::Length, 1));
        answer.take(r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":9}}"#);
        let Step::End(GenerationEvent::Done(summary)) = answer.take("[DONE]") else { panic!("it is complete") };
        assert_eq!((summary.prompt_tokens, summary.completion_tokens), (5, 9));
    }

    #[test]
    fn an_error_in_the_stream_is_an_error() {
        for (data, says) in [("not json", "not JSON"), (r#"{"error":{"message":"boom"}}"#, "boom")] {
            let Step::End(GenerationEvent::Failed(error)) = Answer::new(true).take(data) else { panic!("{data}") };
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn long_errors_are_cut_at_a_character() {
        assert_eq!(shorten(&"é".repeat(MAX_ERROR_CHARS + 1)).chars().count(), MAX_ERROR_CHARS + 1);
        assert_eq!(shorten("short"), "short");
    }
}
