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
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use client::protocol::health::HostKind;
use futures::StreamExt as _;
use serde_json::{Value, json};

use super::{Server, until};
use crate::host::upstream::{UpstreamConfig, UpstreamHost};
use crate::host::{
    FinishReason, Generation, GenerationEvent, Host as _, HostError, Message, Prompt, Sampling, Summary,
};

fn config(url: &str) -> UpstreamConfig {
    UpstreamConfig {
        url: url.into(),
        model: None,
        api_key: Some("secret".into()),
        connect_timeout: Duration::from_secs(2),
        read_timeout: Duration::from_millis(500),
        slots: 4,
        queue: 4,
    }
}

fn upstream(url: &str) -> UpstreamHost {
    UpstreamHost::new(config(url)).unwrap()
}

fn ask(text: &str) -> Generation {
    let messages = vec![Message { role: "user".into(), content: text.into() }];
    let prompt = Prompt::Chat { messages, assistant_prefix: String::new() };
    let sampling = Sampling {
        max_tokens: Some(8),
        temperature: Some(0.7),
        top_k: 3,
        top_p: Some(0.1),
        seed: Some(9),
        stop: vec!["#".into()],
        ..Sampling::default()
    };
    Generation { prompt, sampling, counted: true, cache_salt: None }
}

async fn collect(host: &UpstreamHost, generation: Generation) -> Result<(Vec<String>, Summary), HostError> {
    let mut stream = host.generate(generation).await?;
    let mut pieces = Vec::new();
    while let Some(event) = stream.recv().await {
        match event {
            GenerationEvent::Text(piece) | GenerationEvent::Scored(piece, _) => pieces.push(piece),
            GenerationEvent::Reasoning(thought) => pieces.push(format!("({thought})")),
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
    assert!(
        matches!(&error, HostError::UpstreamBusy { retry_after_s: 4, message } if message.contains("busy")),
        "{error:?}"
    );
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
        slots: 4,
        queue: 4,
    };
    UpstreamHost::new(config).unwrap()
}

type Seen = Arc<Mutex<Vec<(HeaderMap, Value)>>>;

/// An engine with the habits of others: paths for model names, no usage, CR LF, comments, text in the last chunk.
async fn peculiar(answer: impl IntoResponse + Clone + Send + Sync + 'static) -> (String, Seen) {
    answering(move |_| answer.clone().into_response()).await
}

async fn answering(answer: impl Fn(&Value) -> Response + Clone + Send + Sync + 'static) -> (String, Seen) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&seen);
    let list = r#"{"data": [{"id": "/models/big.gguf", "meta": {"n_ctx_train": 4096, "n_params": 5}}]}"#;
    let router = Router::new().route("/api/v1/models", get(async move || list)).route(
        "/api/v1/chat/completions",
        post(async move |headers: HeaderMap, body: String| {
            let body: Value = serde_json::from_str(&body).unwrap();
            heard.lock().unwrap().push((headers, body.clone()));
            answer(&body)
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
        (400, r#"{"detail": "bad role"}"#, HostError::Invalid("bad role".into())),
        (
            422,
            r#"{"detail": [{"loc": ["body", "top_k"], "msg": "extra fields not permitted"}]}"#,
            HostError::Invalid("body.top_k: extra fields not permitted".into()),
        ),
        (400, r#"{"error": "no such voice"}"#, HostError::Invalid("no such voice".into())),
        (
            500,
            "boom\n2026 ERROR forged \u{1b}[2J",
            HostError::Upstream(r"500 Internal Server Error: boom 2026 ERROR forged \u{1b}[2J".into()),
        ),
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
async fn a_busy_engines_own_words_come_through() {
    let (url, _) =
        peculiar((StatusCode::TOO_MANY_REQUESTS, [("retry-after", "7")], r#"{"error": "queue of 9"}"#)).await;
    let error = collect(&upstream(&url), ask("q")).await.unwrap_err();
    assert_eq!(error, HostError::UpstreamBusy { message: "queue of 9".into(), retry_after_s: 7 });
    // Without a time, not all come back at once; with a silly one, not never.
    let (url, _) = peculiar((StatusCode::SERVICE_UNAVAILABLE, "slow down")).await;
    let host = upstream(&url);
    for _ in 0..20 {
        let error = collect(&host, ask("q")).await.unwrap_err();
        assert!(matches!(&error, HostError::UpstreamBusy { retry_after_s: 1..=5, .. }), "{error:?}");
    }
    let (url, _) = peculiar((StatusCode::TOO_MANY_REQUESTS, [("retry-after", "99999999")], "")).await;
    let error = collect(&upstream(&url), ask("q")).await.unwrap_err();
    assert!(matches!(&error, HostError::UpstreamBusy { retry_after_s: 600, .. }), "{error:?}");
}

const STOPPED: &str =
    "data: {\"choices\":[{\"delta\":{\"content\":\"ok\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

#[tokio::test]
async fn a_strict_engine_is_not_sent_what_it_refuses_twice() {
    let strict = |body: &Value| match body.get("stream_options") {
        Some(_) => {
            (StatusCode::UNPROCESSABLE_ENTITY, r#"{"detail": [{"loc": ["body", "stream_options"], "msg": "extra"}]}"#)
                .into_response()
        }
        None => STOPPED.into_response(),
    };
    let (url, seen) = answering(strict).await;
    let host = upstream(&url);
    for asked in [2, 3] {
        assert_eq!(collect(&host, ask("q")).await.unwrap().0, ["ok"]);
        assert_eq!(seen.lock().unwrap().len(), asked);
    }
    let plain = Generation { sampling: Sampling::default(), counted: false, ..ask("q") };
    collect(&host, plain).await.unwrap();
    let (_, body) = seen.lock().unwrap().pop().unwrap();
    let fields: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["messages", "model", "stream"], "nothing that was not asked for");
}

#[tokio::test]
async fn an_empty_finish_reason_and_a_cut_stream_are_no_end() {
    let begun = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"\"}]}\n\n";
    // Some engines leave the last blank line out, or the end behind the reason.
    let (last, _) = STOPPED.split_once("\n\n").unwrap();
    for (answer, whole) in [
        (begun.to_owned(), false),
        (format!("{begun}data: [DONE]\n\n"), false),
        (format!("{begun}{STOPPED}"), true),
        (format!("{begun}{}", STOPPED.trim_end()), true),
        (format!("{begun}{last}"), true),
        (format!("{begun}{last}\n"), true),
        (format!("{begun}{}", &last[..last.len() - 1]), false),
    ] {
        let (url, _) = peculiar((StatusCode::OK, answer.clone())).await;
        let got = collect(&upstream(&url), ask("q")).await;
        assert_eq!(got.is_ok(), whole, "{answer}: {got:?}");
    }
}

#[tokio::test]
async fn a_page_or_nothing_in_place_of_an_answer_is_called_that() {
    let page = ([("content-type", "text/html")], "<html>\n<p>Please log in\n</html>\n").into_response();
    let nothing = StatusCode::NO_CONTENT.into_response();
    for (answer, says) in [(page, "the content type is text/html"), (nothing, "it sent no answer")] {
        let (parts, body) = answer.into_parts();
        let bytes = axum::body::to_bytes(body, 1000).await.unwrap();
        let (url, _) = peculiar((parts.status, parts.headers, bytes)).await;
        let error = collect(&upstream(&url), ask("q")).await.unwrap_err();
        assert!(matches!(&error, HostError::Upstream(text) if text.contains(says)), "{error:?}");
    }
}

#[tokio::test]
async fn an_engine_that_does_not_stream_works_too() {
    let whole = r#"{"choices":[{"message":{"content":"Paris","reasoning_content":"hm"},"finish_reason":"length"}],
        "usage":{"prompt_tokens":4,"completion_tokens":2}}"#;
    let (url, _) = peculiar(([("content-type", "application/json; charset=utf-8")], whole)).await;
    let (pieces, summary) = collect(&upstream(&url), ask("q")).await.unwrap();
    assert_eq!((pieces.concat().as_str(), summary.finish), ("(hm)Paris", FinishReason::Length));
    assert_eq!((summary.prompt_tokens, summary.completion_tokens), (4, 2));
}

/// Whatever an engine calls its JSON; and once it has said why an answer ended, nothing that breaks takes it away.
#[tokio::test]
async fn complete_answers_are_not_lost() {
    let whole = r#"{"choices":[{"message":{"content":"Paris"},"finish_reason":"stop"}]}"#;
    for kind in ["text/plain", "text/json", "application/vnd.x+json", "text/event-stream", ""] {
        let (url, _) = peculiar(([("content-type", kind)], whole)).await;
        let (pieces, summary) = collect(&upstream(&url), ask("q")).await.unwrap();
        assert_eq!((pieces.concat().as_str(), summary.finish), ("Paris", FinishReason::Stop), "{kind}");
    }
    let (url, _) = peculiar(([("content-type", "application/json")], STOPPED)).await;
    assert_eq!(collect(&upstream(&url), ask("q")).await.unwrap().0, ["ok"], "events, whatever they are called");
    let after =
        STOPPED.replacen("data: [DONE]", "data: {\"choices\":[{\"delta\":{\"content\":\"more\"}}]}\n\ndata: [DONE]", 1);
    let (url, _) = peculiar((StatusCode::OK, after)).await;
    assert_eq!(collect(&upstream(&url), ask("q")).await.unwrap().0, ["ok"], "nothing comes after the end");
    let ended = "data: {\"choices\":[{\"delta\":{\"content\":\"Paris\"},\"finish_reason\":\"stop\"}]}\n\n";
    let then = |rest: futures::stream::BoxStream<'static, std::io::Result<Bytes>>| {
        let first = futures::stream::iter([Ok(Bytes::from_static(ended.as_bytes()))]);
        ([("content-type", "text/event-stream")], Body::from_stream(first.chain(rest))).into_response()
    };
    // Later, so that what came before has left.
    let breaks = move || {
        futures::stream::once(async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Err(std::io::Error::other("broken"))
        })
        .boxed()
    };
    let hangs = move || futures::stream::pending().boxed();
    for rest in [Box::new(breaks) as Box<dyn Fn() -> _ + Send + Sync>, Box::new(hangs)] {
        let rest = std::sync::Arc::new(rest);
        let (url, _) = answering(move |_| then(rest())).await;
        let (pieces, summary) = collect(&upstream(&url), ask("q")).await.unwrap();
        assert_eq!((pieces.concat().as_str(), summary.finish), ("Paris", FinishReason::Stop));
    }
}

#[tokio::test]
async fn a_prompt_does_not_leave_the_engines_origin() {
    let (thief, stolen) = peculiar((StatusCode::OK, STOPPED)).await;
    let away = thief.clone() + "/v1/chat/completions";
    let redirect = move |_: &Value| (StatusCode::TEMPORARY_REDIRECT, [("location", away.clone())], "").into_response();
    let (url, seen) = answering(redirect).await;
    let error = collect(&upstream(&url), ask("a secret")).await.unwrap_err();
    assert!(matches!(&error, HostError::Upstream(text) if text.contains("redirects")), "{error:?}");
    assert_eq!((seen.lock().unwrap().len(), stolen.lock().unwrap().len()), (1, 0));
}

/// A body that never ends.
fn endless(piece: &'static str) -> Body {
    let pieces = futures::stream::repeat_with(move || Ok::<_, std::io::Error>(Bytes::from(piece.repeat(1000))));
    Body::from_stream(pieces)
}

#[tokio::test]
async fn endless_errors_lists_and_answers_are_not_read_for_ever() {
    let started = std::time::Instant::now();
    let (url, _) = answering(|_| (StatusCode::INTERNAL_SERVER_ERROR, endless("error ")).into_response()).await;
    let error = collect(&upstream(&url), ask("q")).await.unwrap_err();
    assert!(matches!(&error, HostError::Upstream(text) if text.len() < 1000), "{error:?}");
    let json = [("content-type", "application/json")];
    let (url, _) = answering(move |_| (json, endless(" ")).into_response()).await;
    let error = collect(&upstream(&url), ask("q")).await.unwrap_err();
    assert!(matches!(&error, HostError::Upstream(text) if text.contains("longer than")), "{error:?}");
    // One event that does not end.
    let (url, _) = answering(|_| endless("data: x").into_response()).await;
    let error = collect(&upstream(&url), ask("q")).await.unwrap_err();
    assert!(matches!(&error, HostError::Upstream(text) if text.contains("longer than")), "{error:?}");
    let router = Router::new().route("/v1/models", get(async || endless("[").into_response()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let error = upstream(&url).discover().await.unwrap_err();
    assert!(matches!(&error, HostError::Upstream(text) if text.contains("longer than")), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[tokio::test]
async fn an_engine_gets_so_much_at_once_and_the_rest_waits_or_is_refused() {
    let engine = Server::start();
    let host = Arc::new(UpstreamHost::new(UpstreamConfig { slots: 2, queue: 3, ..config(&engine.url) }).unwrap());
    let endless = || {
        let mut endless = ask("forever");
        endless.sampling.max_tokens = None;
        endless
    };
    let mut running = Vec::new();
    for _ in 0..2 {
        let mut stream = host.generate(endless()).await.unwrap();
        assert!(stream.recv().await.is_some());
        running.push(stream);
    }
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let host = Arc::clone(&host);
            tokio::spawn(async move { collect(&host, ask("count 1")).await })
        })
        .collect();
    until("three wait", async || host.load().waiting == 3).await;
    assert_eq!((host.load().active, engine.host.load().active), (2, 2));
    let error = host.generate(ask("count 1")).await.unwrap_err();
    assert!(matches!(error, HostError::Busy { waiting: 3, retry_after_s: 1.. }), "{error:?}");
    // Who leaves the queue makes room in it.
    waiting[2].abort();
    until("two wait", async || host.load().waiting == 2).await;
    drop(running);
    for one in waiting.into_iter().take(2) {
        assert_eq!(one.await.unwrap().unwrap().0, ["t0 "]);
    }
    until("all is over", async || host.load().active == 0).await;
}

#[tokio::test]
async fn an_engine_that_hangs_does_not_hold_up_a_glance_at_it() {
    let hanging = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = upstream(&format!("http://{}", hanging.local_addr().unwrap()));
    let started = std::time::Instant::now();
    assert_eq!(host.model_now().await.id, "upstream");
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_real_llama_cpp_server_answers() {
    let Ok(url) = std::env::var("TANDEM_LLAMA_CPP_URL") else {
        eprintln!("skipped: TANDEM_LLAMA_CPP_URL is not set");
        return;
    };
    let wait = Duration::from_secs(60);
    let config = UpstreamConfig { api_key: None, connect_timeout: wait, read_timeout: wait, ..config(&url) };
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
