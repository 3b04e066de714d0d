//! What the API answers when all is well.

use serde_json::{Value, json};

use super::{Server, Setup, chat, streamed};
use crate::host::{Host as _, Message, Prompt};

#[tokio::test]
async fn a_chat_in_one_piece() {
    let server = Server::start();
    let (status, body) = server.answer("/v1/chat/completions", &chat("count 3")).await;
    assert_eq!(status, 200);
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["model"], "full");
    assert!(body["id"].as_str().unwrap().starts_with("chatcmpl-"));
    let choice = &body["choices"][0];
    assert_eq!(choice["message"], json!({"role": "assistant", "content": "t0 t1 t2 "}));
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(body["usage"], json!({"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}));
    assert_eq!(body["timings"]["prompt_ms"], 500.0);
    assert!(body["timings"]["predicted_ms"].is_null(), "what is not known is not invented");
}

#[tokio::test]
async fn a_chat_token_by_token() {
    let server = Server::start();
    let mut request = streamed("count 3");
    request["max_tokens"] = json!(2);
    request["stream_options"] = json!({"include_usage": true});
    let events = server.events("/v1/chat/completions", &request).await;
    assert_eq!(events.last().unwrap(), "[DONE]");
    let chunks: Vec<Value> =
        events[..events.len() - 1].iter().map(|data| serde_json::from_str(data).unwrap()).collect();
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let text: Vec<&str> = chunks[1..3].iter().map(|c| c["choices"][0]["delta"]["content"].as_str().unwrap()).collect();
    assert_eq!(text, ["t0 ", "t1 "]);
    assert!(chunks[1]["choices"][0]["finish_reason"].is_null());
    assert_eq!(chunks[3]["choices"][0]["finish_reason"], "length");
    assert_eq!(chunks[3]["choices"][0]["delta"], json!({}));
    assert_eq!(chunks[4]["choices"], json!([]));
    assert_eq!(chunks[4]["usage"]["completion_tokens"], 2);
    assert_eq!(chunks.len(), 5);
    for chunk in &chunks[..4] {
        assert_eq!(chunk.get("usage"), Some(&Value::Null));
    }
    for chunk in &chunks {
        assert_eq!((&chunk["id"], &chunk["object"]), (&chunks[0]["id"], &json!("chat.completion.chunk")));
    }
}

#[tokio::test]
async fn without_being_asked_a_stream_has_no_usage() {
    let server = Server::start();
    let events = server.events("/v1/chat/completions", &streamed("count 1")).await;
    assert_eq!(events.len(), 4, "role, one token, the end, [DONE]: {events:?}");
    assert!(events.iter().all(|data| !data.contains("usage")));
}

#[tokio::test]
async fn plain_text_whole_and_streamed() {
    let server = Server::start();
    let (status, body) = server.answer("/v1/completions", &json!({"model": "full", "prompt": "count 2"})).await;
    assert_eq!((status, &body["object"]), (200, &json!("text_completion")));
    assert_eq!(body["choices"][0]["text"], "t0 t1 ");
    let events = server.events("/v1/completions", &json!({"prompt": ["count 2"], "stream": true})).await;
    let first: Value = serde_json::from_str(&events[0]).unwrap();
    assert_eq!(first["choices"][0]["text"], "t0 ");
    assert_eq!((events.len(), events[3].as_str()), (4, "[DONE]"));
}

#[tokio::test]
async fn the_host_hears_what_was_asked() {
    let server = Server::start();
    let request = json!({
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "It is"}],
        "max_completion_tokens": 9, "temperature": 0.5, "top_p": 0.25, "top_k": 7, "seed": 11, "stop": ["a", "b"],
    });
    assert_eq!(server.answer("/v1/chat/completions", &request).await.0, 200);
    let heard = server.host.last.lock().unwrap().clone().unwrap();
    let Prompt::Chat { messages, assistant_prefix } = heard.prompt else { panic!("a chat") };
    assert_eq!(messages[1], Message { role: "user".into(), content: "q".into() });
    assert_eq!((messages.len(), assistant_prefix.as_str()), (2, "It is"));
    let sampling = heard.sampling;
    assert_eq!((sampling.max_tokens, sampling.top_k, sampling.seed), (Some(9), 7, Some(11)));
    assert_eq!((sampling.temperature, sampling.top_p), (Some(0.5), Some(0.25)));
    assert_eq!(sampling.stop, ["a", "b"]);
}

#[tokio::test]
async fn several_answers_whole_and_streamed() {
    let server = Server::start();
    let ask = json!({"prompt": ["count 1", "count 2"], "n": 2, "echo": true, "best_of": 2});
    let (status, body) = server.answer("/v1/completions", &ask).await;
    assert_eq!(status, 200, "{body}");
    let texts: Vec<(u64, &str)> = body["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| (choice["index"].as_u64().unwrap(), choice["text"].as_str().unwrap()))
        .collect();
    assert_eq!(texts, [(0, "count 1t0 "), (1, "count 1t0 "), (2, "count 2t0 t1 "), (3, "count 2t0 t1 ")]);
    // Each prompt once, each answer.
    assert_eq!(body["usage"], json!({"prompt_tokens": 10, "completion_tokens": 6, "total_tokens": 16}));

    let mut ask = streamed("count 2");
    (ask["n"], ask["stream_options"]) = (json!(3), json!({"include_usage": true}));
    let events = server.events("/v1/chat/completions", &ask).await;
    let mut texts = vec![String::new(); 3];
    let mut ends = 0;
    for data in &events[..events.len() - 1] {
        let chunk: Value = serde_json::from_str(data).unwrap();
        for choice in chunk["choices"].as_array().unwrap() {
            texts[choice["index"].as_u64().unwrap() as usize] += choice["delta"]["content"].as_str().unwrap_or("");
            ends += usize::from(choice["finish_reason"] == "stop");
        }
    }
    assert_eq!((texts, ends), (vec!["t0 t1 ".to_owned(); 3], 3));
    assert_eq!(events.last().unwrap(), "[DONE]");
    let ids = server.answer("/v1/completions", &json!({"prompt": [7, 8, 9]})).await.1;
    assert_eq!(ids["choices"][0]["text"], "t0 t1 t2 ");
}

#[tokio::test]
async fn thoughts_and_log_probabilities_reach_the_client() {
    let server = Server::start();
    let (_, body) = server.answer("/v1/chat/completions", &chat("think")).await;
    let choice = &body["choices"][0];
    assert_eq!(choice["message"], json!({"role": "assistant", "content": "xt0 ", "reasoning_content": "hm"}));
    assert_eq!(choice["logprobs"]["content"][0]["logprob"], -0.5);
    let events = server.events("/v1/chat/completions", &streamed("think")).await;
    let chunks: Vec<Value> = events[1..3].iter().map(|data| serde_json::from_str(data).unwrap()).collect();
    assert_eq!(chunks[0]["choices"][0]["delta"]["reasoning_content"], "hm");
    assert_eq!(chunks[1]["choices"][0]["logprobs"]["content"][0]["token"], "t");
}

#[tokio::test]
async fn a_stream_says_something_before_a_late_first_token() {
    let server = Server::start();
    let mut response = server.post("/v1/chat/completions", &streamed("late")).send().await.unwrap();
    assert_eq!((response.status().as_u16(), server.host.load().active), (200, 1), "before the token");
    let first = response.chunk().await.unwrap().unwrap();
    assert!(first.starts_with(b":"), "{first:?}");
    let text = response.text().await.unwrap();
    assert!(text.contains("t0 ") && text.ends_with("data: [DONE]\n\n"), "{text}");
}

#[tokio::test]
async fn models_are_listed() {
    let server = Server::start();
    let list: Value = server.get("/v1/models").send().await.unwrap().json().await.unwrap();
    let ids: Vec<&str> = list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!((list["object"].as_str(), ids), (Some("list"), vec!["full", "fake-encoder"]));
    assert_eq!(list["data"][0]["context_length"], 64);
    let one: Value = server.get("/v1/models/full").send().await.unwrap().json().await.unwrap();
    assert_eq!(one, list["data"][0]);
    let response = server.get("/v1/models/org/other").send().await.unwrap();
    assert_eq!(response.status(), 404);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["code"], "model_not_found");
}

#[tokio::test]
async fn embeddings_as_numbers_and_as_base64() {
    let server = Server::start();
    let (status, body) = server.answer("/v1/embeddings", &json!({"input": ["abc", "aaaa bb"]})).await;
    assert_eq!((status, &body["model"]), (200, &json!("fake-encoder")));
    // "<s>" (3, 0) and "abc" (3, 1): mean (3, 0.5), scaled to length 1.
    let vector: Vec<f64> = serde_json::from_value(body["data"][0]["embedding"].clone()).unwrap();
    let norm = 9.25f64.sqrt();
    assert!((vector[0] - 3.0 / norm).abs() < 1e-6 && (vector[1] - 0.5 / norm).abs() < 1e-6, "{vector:?}");
    assert_eq!(body["data"][1]["index"], 1);
    assert_eq!(body["usage"], json!({"prompt_tokens": 5, "total_tokens": 5}));
    let request = json!({"input": "abc", "encoding_format": "base64", "model": "fake-encoder"});
    let (_, body) = server.answer("/v1/embeddings", &request).await;
    let bytes = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.decode(body["data"][0]["embedding"].as_str().unwrap()).unwrap()
    };
    let first = f32::from_le_bytes(bytes[..4].try_into().unwrap());
    assert_eq!((bytes.len(), first), (8, vector[0] as f32));
    // As an f32 is written, without digits that nobody computed.
    let text = server.post("/v1/embeddings", &json!({"input": "abc"})).send().await.unwrap().text().await.unwrap();
    assert!(text.contains(&format!("[{first},")), "{text}");
    let own = server.answer("/v1/embeddings", &json!({"input": "abc", "dimensions": 2.0, "user": "me"})).await;
    assert_eq!(own.0, 200, "{}", own.1);
    // A list of token ids is one input, a list of lists several; an id may be written as a float.
    for (input, inputs, tokens) in [(json!([3, 2.0]), 1, 3), (json!([[3, 2], [1]]), 2, 5)] {
        let (status, body) = server.answer("/v1/embeddings", &json!({"input": input})).await;
        let found = (status, body["data"].as_array().map_or(0, Vec::len), body["usage"]["prompt_tokens"].clone());
        assert_eq!(found, (200, inputs, json!(tokens)), "{input}: {body}");
    }
}

#[tokio::test]
async fn similarity_token_by_token() {
    let server = Server::start();
    let compare = async |reference: &str, candidate: &str, threshold: f64| {
        let body = json!({"reference": reference, "candidate": candidate, "threshold": threshold});
        server.answer("/api/similarity", &body).await
    };
    let (status, same) = compare("one two", "one two", 0.6).await;
    assert_eq!((status, &same["hallucination"], &same["encoder"]), (200, &json!(0.0), &json!("fake-encoder")));
    assert!((same["accuracy"].as_f64().unwrap() - 1.0).abs() < 1e-9);
    // The token that the tokenizer adds is no part of the comparison: two words, two cosines.
    assert_eq!(same["cosines"].as_array().unwrap().len(), 2);
    // (3, 2) against (3, 0): 3/√13. The second word has no partner.
    let (_, other) = compare("one two", "tzz", 0.9).await;
    let cosines: Vec<f64> = serde_json::from_value(other["cosines"].clone()).unwrap();
    assert!((cosines[0] - 3.0 / 13f64.sqrt()).abs() < 1e-6 && cosines[1] == 0.0, "{cosines:?}");
    assert_eq!(other["hallucination"], 1.0);
    let (_, empty) = compare("one", " ", 0.6).await;
    assert_eq!((&empty["accuracy"], &empty["hallucination"]), (&json!(0.0), &json!(1.0)));
    for (body, param) in [
        (json!({"reference": "", "candidate": ""}), json!("reference")),
        (json!({"reference": "a", "candidate": "b", "threshold": 2}), json!("threshold")),
        (json!({"reference": "a"}), Value::Null),
        (json!({"reference": "a", "candidate": 3}), json!("candidate")),
        (json!({"reference": "a", "candidate": "b", "treshold": 0.5}), json!("treshold")),
    ] {
        let (status, answer) = server.answer("/api/similarity", &body).await;
        assert_eq!((status, &answer["error"]["param"]), (400, &param), "{body}");
    }
}

#[tokio::test]
async fn without_an_encoder_the_rest_works() {
    let server = Server::with(Setup { has_embedder: false, ..Setup::default() });
    for (path, body) in
        [("/v1/embeddings", json!({"input": "a"})), ("/api/similarity", json!({"reference": "a", "candidate": "a"}))]
    {
        let (status, answer) = server.answer(path, &body).await;
        assert_eq!(status, 400);
        assert!(answer["error"]["message"].as_str().unwrap().contains("--encoder"), "{answer}");
    }
    assert_eq!(server.answer("/v1/chat/completions", &chat("count 1")).await.0, 200);
}

#[tokio::test]
async fn health_and_metrics() {
    let server = Server::start();
    let response = server.get("/health").send().await.unwrap();
    assert_eq!(response.headers()["cache-control"], "no-store");
    let health: client::protocol::health::Health = response.json().await.unwrap();
    assert_eq!((health.model.name.as_str(), health.model.context_length), ("Full", Some(64)));
    assert_eq!((health.slots, health.active, health.queue), (2, 0, 3));
    let progress = health.progress.unwrap();
    assert_eq!((progress.tokens_per_s, progress.prefix_lookups, progress.prefix_hits), (2.5, 3, 1));
    server.answer("/v1/chat/completions", &chat("count 3")).await;
    server.answer("/v1/chat/completions", &chat("busy")).await;
    server.get("/nothing/here").send().await.unwrap();
    assert_eq!(server.metric("tandem_completion_tokens_total").await, 3.0);
    assert_eq!(server.metric("tandem_prompt_tokens_total").await, 5.0);
    assert_eq!(server.metric("tandem_time_to_first_token_seconds_count").await, 1.0);
    assert_eq!(server.metric("tandem_generation_seconds_bucket{le=\"60\"}").await, 1.0);
    assert_eq!(server.metric("tandem_active_generations").await, 0.0);
    assert_eq!(server.metric("tandem_queue_depth").await, 0.0);
    for (name, value) in [
        ("tandem_tokens_per_second", 2.5),
        ("tandem_prefix_lookups_total", 3.0),
        ("tandem_prefix_hits_total", 1.0),
        ("tandem_prefix_tokens_total", 40.0),
        ("tandem_prefix_bytes", 1000.0),
    ] {
        assert_eq!(server.metric(name).await, value, "{name}");
    }
    for (route, status) in [("/v1/chat/completions", 200), ("/v1/chat/completions", 503), ("files", 404)] {
        let name = format!("tandem_requests_total{{route=\"{route}\",status=\"{status}\"}}");
        assert_eq!(server.metric(&name).await, 1.0, "{name}");
    }
}
