//! What the API answers when the request is wrong or the model fails: always in OpenAI's shape.

use serde_json::{Value, json};

use super::{Server, chat, streamed};

fn assert_shape(answer: &Value) {
    let error = answer["error"].as_object().unwrap_or_else(|| panic!("{answer}"));
    assert!(!error["message"].as_str().unwrap().is_empty());
    assert!(error["type"].is_string() && error.contains_key("param") && error.contains_key("code"), "{answer}");
}

#[tokio::test]
async fn every_wrong_request_is_told_what_is_wrong() {
    let server = Server::start();
    let with = |field: &str, value: Value| {
        let mut body = chat("count 1");
        body[field] = value;
        body
    };
    let long = "x".repeat(5000);
    for (path, body, status, param, code) in [
        ("/v1/chat/completions", with("model", json!("other")), 404, json!("model"), json!("model_not_found")),
        ("/v1/chat/completions", with("n", json!(99)), 400, json!("n"), json!("invalid_value")),
        // Two slots and three places in the queue: more could never be taken.
        ("/v1/chat/completions", with("n", json!(6)), 400, json!("n"), json!("invalid_value")),
        ("/v1/chat/completions", with("min_p", json!(0.1)), 400, json!("min_p"), json!("unsupported_parameter")),
        ("/v1/chat/completions", with("min_p", json!("x")), 400, json!("min_p"), json!("invalid_type")),
        (
            "/v1/chat/completions",
            with("ignore_eos", json!(true)),
            400,
            json!("ignore_eos"),
            json!("unsupported_parameter"),
        ),
        (
            "/v1/chat/completions",
            with("temprature", json!(1)),
            400,
            json!("temprature"),
            json!("unsupported_parameter"),
        ),
        ("/v1/chat/completions", with("temperature", json!("hot")), 400, json!("temperature"), json!("invalid_type")),
        ("/v1/chat/completions", with("messages", json!("hi")), 400, json!("messages"), json!("invalid_type")),
        (
            "/v1/chat/completions",
            with("messages", json!([{"role": "king", "content": ""}])),
            400,
            json!("messages[0].role"),
            json!("invalid_type"),
        ),
        ("/v1/chat/completions", with("stop", json!(7)), 400, json!("stop"), json!("invalid_type")),
        ("/v1/chat/completions", with("max_tokens", json!(1.5)), 400, json!("max_tokens"), json!("invalid_type")),
        ("/v1/chat/completions", json!({}), 400, json!("messages"), json!("missing_required_parameter")),
        ("/v1/chat/completions", json!([]), 400, Value::Null, Value::Null),
        ("/v1/chat/completions", json!("text"), 400, Value::Null, Value::Null),
        ("/v1/chat/completions", chat("too long"), 400, Value::Null, json!("context_length_exceeded")),
        ("/v1/chat/completions", streamed("too long"), 400, Value::Null, json!("context_length_exceeded")),
        ("/v1/chat/completions", chat(&long), 413, Value::Null, json!("request_too_large")),
        ("/v1/chat/completions", chat("busy"), 503, Value::Null, json!("server_busy")),
        ("/v1/chat/completions", streamed("busy"), 503, Value::Null, json!("server_busy")),
        ("/v1/chat/completions", chat("break"), 502, Value::Null, json!("upstream_error")),
        ("/v1/chat/completions", chat("die"), 500, Value::Null, json!("engine_error")),
        ("/v1/completions", json!({"prompt": [1, "x"]}), 400, json!("prompt"), json!("invalid_type")),
        (
            "/v1/completions",
            json!({"prompt": "p", "messages": []}),
            400,
            json!("messages"),
            json!("unsupported_parameter"),
        ),
        ("/v1/completions", json!({}), 400, json!("prompt"), json!("missing_required_parameter")),
        ("/v1/embeddings", json!({"input": [[1, "a"]]}), 400, json!("input"), json!("invalid_type")),
        ("/v1/embeddings", json!({"input": [1, -2]}), 400, json!("input"), json!("invalid_type")),
        ("/v1/embeddings", json!({"input": [[1], []]}), 400, json!("input"), json!("invalid_value")),
        (
            "/v1/embeddings",
            json!({"input": [1, 2, 3, 4, 5, 6, 7, 8, 9]}),
            400,
            json!("input"),
            json!("context_length_exceeded"),
        ),
        ("/v1/embeddings", json!({"input": []}), 400, json!("input"), json!("invalid_value")),
        ("/v1/embeddings", json!({"input": ["a", "b", "c", "d"]}), 400, json!("input"), json!("invalid_value")),
        ("/v1/embeddings", json!({"input": ["a", ""]}), 400, json!("input"), json!("invalid_value")),
        ("/v1/embeddings", json!({"input": "a", "dimensions": 3}), 400, json!("dimensions"), json!("invalid_value")),
        (
            "/v1/embeddings",
            json!({"input": "a", "truncate": true}),
            400,
            json!("truncate"),
            json!("unsupported_parameter"),
        ),
        ("/v1/embeddings", json!({"input": "a", "model": "full"}), 404, json!("model"), json!("model_not_found")),
        (
            "/v1/embeddings",
            json!({"input": "a b c d e f g h i"}),
            400,
            json!("input"),
            json!("context_length_exceeded"),
        ),
        ("/v1/embeddings", json!({}), 400, Value::Null, Value::Null),
        ("/v1/audio/speech", json!({}), 404, Value::Null, json!("unknown_url")),
        ("/v1", json!({}), 404, Value::Null, json!("unknown_url")),
        ("/v1/", json!({}), 404, Value::Null, json!("unknown_url")),
        ("/api", json!({}), 404, Value::Null, json!("unknown_url")),
        ("/health/more", json!({}), 404, Value::Null, json!("unknown_url")),
        ("/api/nothing", json!({}), 404, Value::Null, json!("unknown_url")),
        ("/health", json!({}), 405, Value::Null, json!("method_not_supported")),
        ("/index.html", json!({}), 405, Value::Null, json!("method_not_supported")),
    ] {
        let (got, answer) = server.answer(path, &body).await;
        let shown = body.to_string();
        let shown = &shown[..shown.len().min(120)];
        assert_eq!(got, status, "{path} {shown}: {answer}");
        assert_shape(&answer);
        assert_eq!((&answer["error"]["param"], &answer["error"]["code"]), (&param, &code), "{path} {shown}: {answer}");
    }
}

#[tokio::test]
async fn malformed_json_and_other_types() {
    let server = Server::start();
    let send = async |kind: &str, body: &'static str| {
        let request = server.client.post(format!("{}/v1/chat/completions", server.url)).header("content-type", kind);
        let response = request.body(body).send().await.unwrap();
        let status = response.status().as_u16();
        let answer: Value = response.json().await.unwrap();
        assert_shape(&answer);
        (status, answer["error"]["message"].as_str().unwrap().to_owned())
    };
    for body in ["", "{", "{\"messages\": [", "nonsense", "{} {}"] {
        let (status, message) = send("application/json", body).await;
        assert!(status == 400 && message.contains("not valid JSON"), "{body}: {status} {message}");
    }
    assert_eq!(send("text/plain", "{}").await.0, 415);
    assert_eq!(send("application/json; charset=utf-8", "{").await.0, 400);
    // An address that is no text is the address of nothing.
    for path in ["/v1/models/%ff", "/api/rooms/%ff", "/api/rooms/%ff/slots.csv", "/ws/rooms/%ff", "/api/runs/%ff"] {
        let answer = server.get(path).send().await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
        assert_shape(&answer.json().await.unwrap());
    }
    let wrong = server.get("/v1/chat/completions").send().await.unwrap();
    assert_eq!(wrong.status(), 405);
    assert_shape(&wrong.json().await.unwrap());
}

#[tokio::test]
async fn a_body_without_a_length_is_limited_too() {
    let server = Server::start();
    let pieces = futures::stream::iter((0..10).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1000])));
    let response = server
        .client
        .post(format!("{}/v1/completions", server.url))
        .header("content-type", "application/json")
        .body(reqwest::Body::wrap_stream(pieces))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 413);
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back() {
    let server = Server::start();
    let response = server.post("/v1/chat/completions", &chat("busy")).send().await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (503, &"4".parse().unwrap()));
}

#[tokio::test]
async fn a_stream_that_breaks_says_so_and_is_not_done() {
    let server = Server::start();
    for (prompt, code) in [("break", "upstream_error"), ("die", "engine_error")] {
        let events = server.events("/v1/chat/completions", &streamed(prompt)).await;
        // Role, two tokens, the error.
        assert_eq!(events.len(), 4, "{events:?}");
        let last: Value = serde_json::from_str(&events[3]).unwrap();
        assert_shape(&last);
        assert_eq!(last["error"]["code"], code);
    }
}

#[tokio::test]
async fn what_an_address_takes_is_said() {
    let server = Server::start();
    for (method, path, status, allow) in [
        ("GET", "/v1/chat/completions", 405, Some("POST")),
        ("PUT", "/v1/models", 405, Some("GET,HEAD")),
        ("DELETE", "/api/runs", 405, Some("GET,HEAD,POST")),
        ("PATCH", "/health", 405, Some("GET,HEAD")),
        ("POST", "/index.html", 405, Some("GET,HEAD")),
        ("GET", "/v1/nothing", 404, None),
        ("OPTIONS", "/v1/nothing", 404, None),
    ] {
        let request = server.client.request(method.parse().unwrap(), format!("{}{path}", server.url));
        let response = request.send().await.unwrap();
        let sorted = |text: &str| {
            let mut all: Vec<String> = text.split(',').map(|one| one.trim().to_owned()).collect();
            all.sort_unstable();
            all.join(",")
        };
        let got = response.headers().get("allow").map(|value| sorted(value.to_str().unwrap()));
        assert_eq!((response.status().as_u16(), got.as_deref()), (status, allow), "{method} {path}");
        assert_shape(&response.json().await.unwrap());
    }
}

#[tokio::test]
async fn slashes_too_many_are_passed_over() {
    let server = Server::start();
    for path in ["/v1/models/", "//v1/models", "/v1//models", "//v1///models//", "/health/", "//api/runs/?limit=3"] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let answer = server.by_hand(&request).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    let (status, _) = server.answer("//v1/chat/completions/", &chat("count 1")).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn half_a_character_and_a_whole_number_with_a_point_are_taken() {
    let server = Server::start();
    let body = r#"{"messages": [{"role": "user", "content": "count 3\ud83d"}], "max_tokens": 16.0}"#;
    let request = server.client.post(format!("{}/v1/chat/completions", server.url));
    let response = request.header("content-type", "application/json").body(body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let heard = server.host.last.lock().unwrap().clone().unwrap();
    assert_eq!(heard.sampling.max_tokens, Some(16));
    let crate::host::Prompt::Chat { messages, .. } = heard.prompt else { panic!("a chat") };
    assert_eq!(messages[0].content, "count 3\u{fffd}");
}

/// A compressed body would be read as it is, and its fields be said to be wrong.
#[tokio::test]
async fn compressed_bodies_are_refused_as_such() {
    let server = Server::start();
    for path in ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/api/similarity"] {
        for (coding, refused) in [("gzip", true), ("br", true), ("deflate, gzip", true), ("IDENTITY", false)] {
            let request = server.post(path, &json!({"input": "a"})).header("content-encoding", coding);
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            let body: Value = answer.json().await.unwrap();
            assert_eq!(status == 415, refused, "{path} {coding}: {status} {body}");
            let says = body["error"]["message"].as_str().unwrap_or_default();
            assert_eq!(says.contains("Content-Encoding"), refused, "{path} {coding}: {body}");
        }
    }
}
