//! [`UpstreamHost`] against engines that speak OpenAI's API: another server of ours, and one with the habits of others.
//!
//! Against a real llama.cpp, which also shows that it reads our GGUF files:
//! ```text
//! pip install 'llama-cpp-python[server]'
//! python -m llama_cpp.server --model public/models/full.gguf --n_ctx 512 --port 8000
//! TANDEM_LLAMA_CPP_URL=http://127.0.0.1:8000 cargo test -p tandem-server llama_cpp
//! ```

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use client::protocol::health::HostKind;
use serde_json::{Value, json};

use super::{Server, until};
use crate::host::upstream::{UpstreamConfig, UpstreamHost};
use crate::host::{
    FinishReason, Generation, GenerationEvent, Host as _, HostError, Message, Prompt, Sampling, Summary,
};

fn upstream(url: &str) -> UpstreamHost {
    let (connect_timeout, read_timeout) = (Duration::from_secs(2), Duration::from_millis(500));
    let api_key = Some("secret".into());
    UpstreamHost::new(UpstreamConfig { url: url.into(), model: None, api_key, connect_timeout, read_timeout }).unwrap()
}

fn ask(text: &str) -> Generation {
    let messages = vec![Message { role: "user".into(), content: text.into() }];
    let prompt = Prompt::Chat { messages, assistant_prefix: String::new() };
    let sampling =
        Sampling { max_tokens: Some(8), temperature: 0.0, top_k: 3, top_p: 0.5, seed: 9, stop: vec!["#".into()] };
    Generation { prompt, sampling }
}

async fn collect(host: &UpstreamHost, generation: Generation) -> Result<(Vec<String>, Summary), HostError> {
    let mut stream = host.generate(generation).await?;
    let mut pieces = Vec::new();
    while let Some(event) = stream.recv().await {
        match event {
            GenerationEvent::Text(piece) => pieces.push(piece),
            GenerationEvent::Done(summary) => return Ok((pieces, summary)),
            GenerationEvent::Failed(error) => return Err(error),
        }
    }
    panic!("no last event");
}

#[tokio::test]
async fn answers_come_through_token_by_token() {
    let engine = Server::start();
    let host = upstream(&engine.url);
    assert_eq!(host.kind(), HostKind::Upstream);
    let card = host.model().await;
    assert_eq!((card.id.as_str(), card.context_length), ("full", Some(64)));
    let (pieces, summary) = collect(&host, ask("count 3")).await.unwrap();
    assert_eq!(pieces, ["t0 ", "t1 ", "t2 "]);
    assert_eq!((summary.prompt_tokens, summary.completion_tokens, summary.finish), (5, 3, FinishReason::Stop));
    let heard = engine.host.last.lock().unwrap().clone().unwrap();
    assert_eq!(heard, ask("count 3"), "nothing is lost on the way");
    let text = Generation { prompt: Prompt::Text("count 9".into()), ..ask("") };
    let (pieces, summary) = collect(&host, text.clone()).await.unwrap();
    assert_eq!((pieces.len(), summary.finish), (8, FinishReason::Length));
    assert_eq!(engine.host.last.lock().unwrap().clone().unwrap(), text);
}

#[tokio::test]
async fn errors_come_through_in_our_words() {
    let engine = Server::start();
    let host = upstream(&engine.url);
    let error = collect(&host, ask("too long")).await.unwrap_err();
    assert!(matches!(&error, HostError::ContextExceeded(text) if text.contains("99 tokens")), "{error:?}");
    let error = collect(&host, ask("busy")).await.unwrap_err();
    assert!(matches!(error, HostError::Busy { retry_after_s: 4, .. }), "{error:?}");
    for prompt in ["break", "die"] {
        let error = collect(&host, ask(prompt)).await.unwrap_err();
        assert!(matches!(error, HostError::Upstream(_)), "{error:?}");
    }
}

#[tokio::test]
async fn the_engine_stops_when_our_client_leaves() {
    let engine = Server::start();
    let host = upstream(&engine.url);
    let mut endless = ask("forever");
    endless.sampling.max_tokens = None;
    let mut stream = host.generate(endless).await.unwrap();
    assert!(stream.recv().await.is_some());
    assert_eq!((host.load().active, engine.host.load().active), (1, 1));
    drop(stream);
    until("the engine has stopped", async || engine.host.load().active == 0).await;
    until("we know it", async || host.load().active == 0).await;
}

#[tokio::test]
async fn an_engine_that_is_not_there_or_does_not_speak() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", closed.local_addr().unwrap());
    // It takes the connection into its backlog and never answers.
    let error = upstream_with_model(&url).generate(ask("x")).await.unwrap_err();
    assert!(matches!(error, HostError::TimedOut(_)), "{error:?}");
    drop(closed);
    let error = upstream(&url).generate(ask("x")).await.unwrap_err();
    assert!(matches!(error, HostError::Unreachable(_)), "{error:?}");
    assert!(!error.to_string().contains("secret"), "{error}");
    assert_eq!(upstream(&url).model().await.id, "upstream", "a name is shown all the same");
}

/// Knows its model from the command line, so that the list is asked for with the short timeout only.
fn upstream_with_model(url: &str) -> UpstreamHost {
    let wait = Duration::from_millis(300);
    let config = UpstreamConfig {
        url: url.into(),
        model: Some("m".into()),
        api_key: None,
        connect_timeout: wait,
        read_timeout: wait,
    };
    UpstreamHost::new(config).unwrap()
}

/// An engine with the habits of others: paths for model names, no usage, CR LF, comments, text in the last chunk.
async fn peculiar(answer: (StatusCode, &'static str)) -> (String, Arc<Mutex<Vec<(HeaderMap, Value)>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&seen);
    let list = r#"{"data": [{"id": "/models/big.gguf", "meta": {"n_ctx_train": 4096, "n_params": 5}}]}"#;
    let router = Router::new().route("/api/v1/models", get(async move || list)).route(
        "/api/v1/chat/completions",
        post(async move |headers: HeaderMap, body: String| {
            heard.lock().unwrap().push((headers, serde_json::from_str(&body).unwrap()));
            answer.into_response()
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/api", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, seen)
}

#[tokio::test]
async fn other_engines_habits() {
    let stream = ": hello\r\n\r\ndata: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":null}}]}\r\n\r\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"Pa\"}}]}\r\n\r\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"ris\"},\"finish_reason\":\"stop\"}]}\r\n\r\n";
    let (url, seen) = peculiar((StatusCode::OK, stream)).await;
    let host = upstream(&url);
    let card = host.model().await;
    assert_eq!((card.id.as_str(), card.name.as_str()), ("/models/big.gguf", "big.gguf"));
    assert_eq!((card.context_length, card.parameters), (Some(4096), Some(5)));
    let (pieces, summary) = collect(&host, ask("q")).await.unwrap();
    assert_eq!((pieces.concat().as_str(), summary.completion_tokens), ("Paris", 2));
    let (headers, body) = seen.lock().unwrap()[0].clone();
    assert_eq!(headers["authorization"], "Bearer secret");
    assert_eq!((&body["model"], &body["stream"]), (&json!("/models/big.gguf"), &json!(true)));
}

#[tokio::test]
async fn other_engines_errors() {
    for (status, body, expect) in [
        (401, r#"{"error": {"message": "no key"}}"#, HostError::Upstream("401 Unauthorized: no key".into())),
        (429, "slow down", HostError::Busy { waiting: 0, retry_after_s: 1 }),
        (400, r#"{"detail": "bad role"}"#, HostError::Invalid("bad role".into())),
        (500, "", HostError::Upstream("500 Internal Server Error: Internal Server Error".into())),
        (
            400,
            r#"{"error": {"type": "exceed_context_size_error", "message": "m", "n_prompt_tokens": 9, "n_ctx": 8}}"#,
            HostError::PromptTooLong { tokens: 9, context: 8 },
        ),
    ] {
        let (url, _) = peculiar((StatusCode::from_u16(status).unwrap(), body)).await;
        assert_eq!(collect(&upstream(&url), ask("q")).await.unwrap_err(), expect, "{status} {body}");
    }
}

#[tokio::test]
async fn a_real_llama_cpp_server_answers() {
    let Ok(url) = std::env::var("TANDEM_LLAMA_CPP_URL") else {
        eprintln!("skipped: TANDEM_LLAMA_CPP_URL is not set");
        return;
    };
    let wait = Duration::from_secs(60);
    let config = UpstreamConfig { url, model: None, api_key: None, connect_timeout: wait, read_timeout: wait };
    let host = UpstreamHost::new(config).unwrap();
    let (pieces, summary) = collect(&host, ask("What is the capital of France?")).await.unwrap();
    eprintln!("{:?}: {:?} {summary:?}", host.model().await, pieces);
    assert!(!pieces.concat().is_empty());
    let text = Generation { prompt: Prompt::Text("Paris is".into()), ..ask("") };
    assert!(collect(&host, text).await.unwrap().1.completion_tokens > 0);
    // The same seed and prompt, the same answer.
    let again = collect(&host, ask("What is the capital of France?")).await.unwrap();
    assert_eq!(again.0.concat(), pieces.concat());
    let mut stream = host
        .generate(Generation { sampling: Sampling { max_tokens: Some(500), ..ask("").sampling }, ..ask("Hi") })
        .await
        .unwrap();
    assert!(stream.recv().await.is_some());
    drop(stream);
    until("the request is over", async || host.load().active == 0).await;
}
