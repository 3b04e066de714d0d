//! Clients that leave, servers that go down, TLS.

use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use super::{Server, Setup, chat, streamed, until};
use crate::host::Host as _;
use crate::tls::Identity;

#[tokio::test]
async fn generation_stops_when_the_client_of_a_stream_leaves() {
    let server = Server::start();
    let mut response = server.post("/v1/chat/completions", &streamed("forever")).send().await.unwrap();
    for _ in 0..3 {
        response.chunk().await.unwrap().unwrap();
    }
    assert_eq!(server.metric("tandem_active_generations").await, 1.0);
    drop(response);
    until("the generation has stopped", async || server.host.load().active == 0).await;
    until("it is counted", async || server.metric("tandem_cancelled_generations_total").await == 1.0).await;
    assert_eq!(server.metric("tandem_active_generations").await, 0.0);
    assert!(server.metric("tandem_completion_tokens_total").await >= 1.0);
}

#[tokio::test]
async fn generation_stops_when_the_client_of_a_whole_answer_leaves() {
    let server = Server::start();
    let request = server.post("/v1/chat/completions", &chat("forever")).timeout(Duration::from_millis(100));
    let (asked, ()) = tokio::join!(request.send(), async {
        until("it has begun", async || server.host.load().active == 1).await;
    });
    assert!(asked.unwrap_err().is_timeout());
    until("the generation has stopped", async || server.host.load().active == 0).await;
}

#[tokio::test]
async fn going_down_finishes_what_has_begun() {
    let mut server = Server::start();
    let mut response = server.post("/v1/chat/completions", &streamed("slow")).send().await.unwrap();
    response.chunk().await.unwrap().unwrap();
    server.stop();
    let mut text = String::new();
    while let Some(bytes) = response.chunk().await.unwrap() {
        text += std::str::from_utf8(&bytes).unwrap();
    }
    assert!(text.contains("t2 ") && text.ends_with("data: [DONE]\n\n"), "{text}");
    (&mut server.task).await.unwrap().unwrap();
    assert!(server.get("/health").send().await.unwrap_err().is_connect());
}

#[tokio::test]
async fn going_down_takes_only_so_long() {
    let mut server = Server::with(Setup { drain: Duration::from_millis(100), ..Setup::default() });
    let response = server.post("/v1/chat/completions", &streamed("forever")).send().await.unwrap();
    let started = Instant::now();
    server.stop();
    let text = response.text().await.unwrap();
    let last = text.trim_end().rsplit("data: ").next().unwrap();
    let last: Value = serde_json::from_str(last).unwrap();
    assert_eq!(last["error"]["code"], "shutting_down");
    (&mut server.task).await.unwrap().unwrap();
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_the_server_up() {
    let mut server = Server::start();
    server.get("/health").send().await.unwrap().text().await.unwrap();
    let started = Instant::now();
    server.stop();
    (&mut server.task).await.unwrap().unwrap();
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test]
async fn the_same_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let identity = Identity::kept_or_new(folder.path(), &[], SystemTime::now()).unwrap();
    let root = reqwest::Certificate::from_pem(&identity.cert_pem).unwrap();
    let server = Server::with(Setup { identity: Some(identity), ..Setup::default() });
    assert_eq!(server.answer("/v1/chat/completions", &chat("count 1")).await.0, 200);
    assert_eq!(server.events("/v1/chat/completions", &streamed("count 2")).await.last().unwrap(), "[DONE]");
    // The certificate holds for this address for whoever trusts it, and for nobody else.
    let trusting = reqwest::Client::builder().no_proxy().tls_certs_only([root]).build().unwrap();
    assert_eq!(trusting.get(format!("{}/health", server.url)).send().await.unwrap().status(), 200);
    let wary = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    assert!(wary.get(format!("{}/health", server.url)).send().await.is_err());
}
