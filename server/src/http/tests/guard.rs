//! Who may ask: names of this server, and pages that may change something.

use serde_json::json;

use super::hub::FakeHub;
use super::{Server, Setup, chat};
use client::protocol::runs::RunLimits;

async fn status(server: &Server, method: &str, path: &str, headers: &[(&str, &str)]) -> u16 {
    let mut request = server.client.request(method.parse().unwrap(), format!("{}{path}", server.url));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if method == "POST" {
        request = request.json(&if path.starts_with("/v1") { chat("count 1") } else { json!({"steps": 0}) });
    }
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn another_sites_name_is_not_answered_to() {
    let names = vec!["tandem.example".to_owned()];
    let server = Server::with(Setup { names, training: Some(RunLimits::default()), ..Setup::default() });
    let port = server.url.rsplit(':').next().unwrap();
    for (host, allowed) in [
        (format!("localhost:{port}"), true),
        ("tandem.example".to_owned(), true),
        (format!("[::1]:{port}"), true),
        (format!("evil.example:{port}"), false),
        ("10.1.2.3".to_owned(), false),
        ("127.0.0.1.evil.example".to_owned(), false),
    ] {
        for (method, path) in [
            ("GET", "/"),
            ("GET", "/health"),
            ("GET", "/api/runs"),
            ("GET", "/api/runs/1/metrics"),
            ("POST", "/api/runs"),
            ("POST", "/api/runs/1/stop"),
            ("DELETE", "/api/runs/1"),
            ("POST", "/v1/chat/completions"),
        ] {
            // As after DNS rebinding: the page's own name everywhere.
            let origin = format!("http://{host}");
            let got = status(&server, method, path, &[("host", &host), ("origin", &origin)]).await;
            assert_eq!(got == 403, !allowed, "{method} {path} at {host}: {got}");
        }
    }
    let answer = server.get("/health").header("host", "evil.example").send().await.unwrap();
    let body: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(body["error"]["code"], "host_not_allowed");
    assert!(body["error"]["message"].as_str().unwrap().contains("--host"), "{body}");
    for (head, expect) in [
        ("GET /health HTTP/1.1\r\n", "HTTP/1.1 400"),
        ("GET /health HTTP/1.0\r\n", "HTTP/1.0 200"),
        ("GET http://evil.example/health HTTP/1.1\r\nhost: localhost\r\n", "HTTP/1.1 403"),
        ("GET /health HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n", "HTTP/1.1 400"),
    ] {
        let answer = server.by_hand(&format!("{head}connection: close\r\n\r\n")).await;
        assert!(answer.starts_with(expect), "{head}: {answer}");
    }
}

#[tokio::test]
async fn another_sites_page_changes_nothing() {
    let server = Server::with(Setup {
        cors_origins: vec!["https://page.example".to_owned()],
        training: Some(RunLimits::default()),
        ..Setup::default()
    });
    let own = server.url.clone();
    for (headers, allowed) in [
        (&[] as &[(&str, &str)], true),
        (&[("origin", own.as_str())], true),
        (&[("origin", own.as_str()), ("sec-fetch-site", "same-origin")], true),
        (&[("sec-fetch-site", "none")], true),
        (&[("origin", "https://page.example")], true),
        (&[("origin", "http://evil.example")], false),
        (&[("origin", "http://localhost:1")], false),
        (&[("origin", "null")], false),
        (&[("sec-fetch-site", "cross-site")], false),
        (&[("sec-fetch-site", "same-site")], false),
    ] {
        for (method, path) in [
            ("POST", "/v1/chat/completions"),
            ("POST", "/api/runs"),
            ("POST", "/api/runs/1/stop"),
            ("POST", "/api/runs/1/resume"),
            ("DELETE", "/api/runs/1"),
        ] {
            let got = status(&server, method, path, headers).await;
            assert_eq!(got == 403, !allowed, "{method} {path} {headers:?}: {got}");
        }
        assert_eq!(status(&server, "GET", "/health", headers).await, 200, "reading is what the browser itself forbids");
    }
}

/// HTTP/1.0 needs no Host, so a page's origin has nothing that it could be the same as.
#[tokio::test]
async fn without_a_host_no_page_changes_anything() {
    let server = Server::with(Setup { cors_origins: vec!["https://page.example".to_owned()], ..Setup::default() });
    let body = chat("count 1").to_string();
    let head = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    for (line, own) in [
        ("", true),
        ("sec-fetch-site: same-origin\r\n", true),
        ("origin: https://page.example\r\n", true),
        ("origin: http://evil.example\r\n", false),
        (&format!("origin: {}\r\n", server.url), false),
        ("origin: null\r\n", false),
        ("origin: http://\r\n", false),
        ("sec-fetch-site: cross-site\r\n", false),
    ] {
        let answer = server.by_hand(&format!("POST /v1/chat/completions HTTP/1.0\r\n{head}{line}\r\n{body}")).await;
        let expect = if own { "HTTP/1.0 200" } else { "HTTP/1.0 403" };
        assert!(answer.starts_with(expect), "{line:?}: {answer}");
        let answer = server.by_hand(&format!("GET /health HTTP/1.0\r\n{line}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.0 200"), "{line:?}: {answer}");
    }
}

#[tokio::test]
async fn another_sites_page_makes_nothing_be_downloaded() {
    let hub = FakeHub::start().await;
    let server = hub.server();
    let path = "/models/hub/org/repo/good.gguf";
    for headers in
        [&[("sec-fetch-site", "cross-site")][..], &[("origin", "http://evil.example")], &[("origin", "null")]]
    {
        assert_eq!(status(&server, "GET", path, headers).await, 403);
    }
    assert_eq!(hub.asked(), 0);
    assert_eq!(status(&server, "GET", path, &[("sec-fetch-site", "same-origin")]).await, 200);
}
