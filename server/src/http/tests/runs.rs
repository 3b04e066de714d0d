//! Training runs over HTTP.

use burn::tensor::Device;
use client::offload::sse::{SseEvent, SseParser};
use client::protocol::runs::{MetricsLine, RunLimits, RunList, RunRequest, RunState, RunView};
use policy::Policy;
use serde_json::{Value, json};

use super::{Server, Setup, until};
use crate::runs::tests::tiny;

fn server() -> Server {
    Server::with(Setup { training: Some(RunLimits { queue: 1, ..RunLimits::default() }), ..Setup::default() })
}

async fn start(server: &Server, steps: u64) -> i64 {
    let (status, run) = server.answer("/api/runs", &json!(tiny(steps))).await;
    assert_eq!(status, 201, "{run}");
    run["id"].as_i64().unwrap()
}

async fn view(server: &Server, id: i64) -> RunView {
    server.get(&format!("/api/runs/{id}")).send().await.unwrap().json().await.unwrap()
}

async fn until_state(server: &Server, id: i64, state: RunState) {
    until(state.name(), async || view(server, id).await.state == state).await;
}

/// The events of a stream of metrics to its end.
async fn stream(server: &Server, id: i64, after: Option<&str>) -> Vec<SseEvent> {
    let mut request = server.get(&format!("/api/runs/{id}/metrics"));
    if let Some(after) = after {
        request = request.header("last-event-id", after);
    }
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    SseParser::default().push(&response.bytes().await.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_from_its_request_to_its_policy() {
    let server = server();
    let id = start(&server, 80).await;
    // Asked for while it learns, or before, or after: the same stream.
    let events = stream(&server, id, None).await;
    let (last, lines) = events.split_last().unwrap();
    let ids: Vec<&str> = lines.iter().map(|event| event.id.as_str()).collect();
    assert_eq!(ids, (1..=10).map(|n| format!("0.{n}")).collect::<Vec<_>>());
    for (n, event) in lines.iter().enumerate() {
        let line: MetricsLine = serde_json::from_str(&event.data).unwrap();
        assert_eq!(line["global_step"], 8.0 * (n as f64 + 1.0));
        for key in ["charts/mean_reward", "eval/reward", "eval/latency_s", "eval/accuracy", "eval/hallucination"] {
            assert!(line[key] > 0.0, "{key}: {line:?}");
        }
        assert!(line.keys().any(|key| key.starts_with("losses/")));
    }
    assert_eq!(last.event, "end");
    let ended: RunView = serde_json::from_str(&last.data).unwrap();
    assert_eq!((ended.id, ended.state, ended.steps), (id, RunState::Finished, 80));

    // Again from a place, from the end, and from a place before a resume.
    let again = stream(&server, id, Some("0.7")).await;
    assert_eq!(again[..], events[7..]);
    assert_eq!(stream(&server, id, Some("0.10")).await.len(), 1);
    let other = stream(&server, id, Some("3.2")).await;
    assert_eq!((other[0].event.as_str(), &other[1..]), ("reset", &events[..]));
    assert_eq!(stream(&server, id, Some("nonsense")).await, events);

    let response = server.get(&format!("/api/runs/{id}/policy")).send().await.unwrap();
    assert!(response.content_length().is_some_and(|length| length > 0), "a client sees how much there is to come");
    assert!(response.headers()["content-disposition"].to_str().unwrap().contains("safetensors"));
    let policy = Policy::load(&response.bytes().await.unwrap(), &Device::flex()).unwrap();
    assert_eq!(policy.users(), 1..=1);
    let curves = server.get(&format!("/api/runs/{id}/curves.svg")).send().await.unwrap();
    assert_eq!(curves.headers()["content-type"], "image/svg+xml");
    assert!(curves.text().await.unwrap().starts_with("<svg"));

    let list: Value = server.get("/api/runs").send().await.unwrap().json().await.unwrap();
    assert_eq!(list["training"]["off"], Value::Null);
    assert_eq!(list["training"]["algorithms"][0]["name"], "ppo");
    assert_eq!(list["runs"][0]["id"], id);
    let url = format!("{}/api/runs/{id}", server.url);
    assert_eq!(server.client.delete(&url).send().await.unwrap().status(), 204);
    assert_eq!(server.client.delete(&url).send().await.unwrap().status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_stream_grows_and_ends_when_the_run_is_stopped() {
    let server = server();
    let id = start(&server, 1_000_000).await;
    let mut response = server.get(&format!("/api/runs/{id}/metrics")).send().await.unwrap();
    let mut parser = SseParser::default();
    let mut lines = 0;
    while lines < 5 {
        lines += parser.push(&response.chunk().await.unwrap().unwrap()).unwrap().len();
    }
    assert_eq!(view(&server, id).await.state, RunState::Running);
    let (status, _) = server.answer(&format!("/api/runs/{id}/stop"), &json!({})).await;
    assert_eq!(status, 200);
    let mut last = SseEvent::default();
    while let Some(bytes) = response.chunk().await.unwrap() {
        if let Some(event) = parser.push(&bytes).unwrap().pop() {
            last = event;
        }
    }
    assert_eq!((last.event.as_str(), view(&server, id).await.state), ("end", RunState::Stopped));
    let before = view(&server, id).await;
    let (status, _) = server.answer(&format!("/api/runs/{id}/resume"), &json!({})).await;
    assert_eq!(status, 200);
    until("it goes on", async || view(&server, id).await.steps > before.steps).await;
    server.answer(&format!("/api/runs/{id}/stop"), &json!({})).await;
    until_state(&server, id, RunState::Stopped).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn going_down_ends_runs_and_streams() {
    let mut server = server();
    let id = start(&server, 1_000_000).await;
    let mut response = server.get(&format!("/api/runs/{id}/metrics")).send().await.unwrap();
    response.chunk().await.unwrap().unwrap();
    server.stop();
    while response.chunk().await.unwrap().is_some() {}
    (&mut server.task).await.unwrap().unwrap();
    let checkpoint = server.folder.path().join(format!("runs/{id}/checkpoint"));
    until("there is a checkpoint", async || checkpoint.exists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_explained() {
    let server = server();
    let finished = start(&server, 8).await;
    until_state(&server, finished, RunState::Finished).await;
    let running = start(&server, 1_000_000).await;
    let queued = start(&server, 1_000_000).await;
    let (at, running_at) = (format!("/api/runs/{finished}"), format!("/api/runs/{running}"));
    for (method, path, body, status, code) in [
        ("POST", "/api/runs", json!({"algo": "magic"}), 400, json!("unknown_algorithm")),
        ("POST", "/api/runs", json!({"users": 0}), 400, json!("out_of_range")),
        ("POST", "/api/runs", json!({}), 503, json!("queue_full")),
        ("POST", "/api/runs", json!({"variant": "magic"}), 400, json!("invalid_type")),
        ("GET", "/api/runs/99", Value::Null, 404, json!("run_not_found")),
        ("GET", "/api/runs/99/metrics", Value::Null, 404, json!("run_not_found")),
        ("GET", "/api/runs/one", Value::Null, 404, json!("unknown_url")),
        ("GET", "/api/runs/1/magic", Value::Null, 404, json!("unknown_url")),
        ("POST", at.as_str(), json!({}), 405, json!("method_not_supported")),
        ("POST", &format!("{at}/stop"), json!({}), 409, json!("wrong_state")),
        ("POST", &format!("{at}/resume"), json!({}), 409, json!("wrong_state")),
        ("DELETE", running_at.as_str(), Value::Null, 409, json!("wrong_state")),
        ("GET", &format!("/api/runs/{queued}/policy"), Value::Null, 404, json!("not_there_yet")),
        ("GET", &format!("/api/runs/{queued}/curves.svg"), Value::Null, 404, json!("not_there_yet")),
    ] {
        let request = server.client.request(method.parse().unwrap(), format!("{}{path}", server.url));
        let request = if body.is_null() { request } else { request.json(&body) };
        let response = request.send().await.unwrap();
        let (got, retry) = (response.status(), response.headers().get("retry-after").cloned());
        let answer: Value = response.json().await.unwrap();
        assert_eq!((got.as_u16(), &answer["error"]["code"]), (status, &code), "{method} {path} {body}: {answer}");
        assert!(!answer["error"]["message"].as_str().unwrap().is_empty());
        assert_eq!(retry.is_some(), got == 503, "{method} {path}");
    }
    let (status, answer) = server.answer("/api/runs", &json!({"stpes": 0})).await;
    assert!(status == 400 && answer["error"]["message"].as_str().unwrap().contains("stpes"), "{answer}");
    // What another site's page can make a browser send without asking.
    let stop = server.client.post(format!("{}{running_at}/stop", server.url)).header("sec-fetch-site", "cross-site");
    assert_eq!(stop.send().await.unwrap().status(), 403);
    for id in [queued, running] {
        let stop = server.client.post(format!("{}/api/runs/{id}/stop", server.url));
        assert_eq!(stop.send().await.unwrap().status(), 200);
    }
    until_state(&server, running, RunState::Stopped).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_comes_in_pages_and_only_where_it_has_changed() {
    let server = server();
    for _ in 0..3 {
        let id = start(&server, 8).await;
        until_state(&server, id, RunState::Finished).await;
    }
    let page = async |query: &str| {
        let list: RunList = server.get(&format!("/api/runs{query}")).send().await.unwrap().json().await.unwrap();
        (list.runs.iter().map(|run| run.id).collect::<Vec<_>>(), list.next)
    };
    assert_eq!(page("").await, (vec![3, 2, 1], None));
    assert_eq!(page("?limit=2").await, (vec![3, 2], Some(2)));
    assert_eq!(page("?limit=2&before=2").await, (vec![1], None));
    for query in ["?limit=0", "?limit=100000", "?limit=x", "?since=3"] {
        assert_eq!(server.get(&format!("/api/runs{query}")).send().await.unwrap().status(), 400, "{query}");
    }
    let first = server.get("/api/runs").header("accept-encoding", "gzip").send().await.unwrap();
    assert_eq!(first.headers()["content-encoding"], "gzip");
    let tag = first.headers()["etag"].clone();
    let again = || server.get("/api/runs").header("accept-encoding", "gzip").header("if-none-match", &tag).send();
    assert_eq!(again().await.unwrap().status(), 304);
    assert_eq!(server.client.delete(format!("{}/api/runs/2", server.url)).send().await.unwrap().status(), 204);
    assert_eq!(again().await.unwrap().status(), 200);
    assert_eq!(page("").await.0, [3, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_of_a_run_are_those_that_were_written() {
    let server = server();
    let list = server.get("/api/runs").send().await.unwrap().text().await.unwrap();
    assert!(list.contains("\"clip\":0.2") && list.contains("\"gae_lambda\":0.95"), "{list}");
    assert!(!list.contains("000001") && !list.contains("99999"), "{list}");
    let mut request = json!(tiny(8));
    (request["hyper"]["clip"], request["steps"], request["users"]) = (json!(0.1), json!(8.0), json!(1.0));
    let (status, run) = server.answer("/api/runs", &request).await;
    assert_eq!(status, 201, "{run}");
    assert_eq!(run["config"]["ppo"]["clip"].to_string(), "0.1");
    until_state(&server, run["id"].as_i64().unwrap(), RunState::Finished).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_costs_too_much_in_all_is_refused() {
    let server = server();
    let heavy = json!({"users": 10, "envs": 256,
        "hyper": {"hidden": [1024, 1024, 1024, 1024], "epochs": 64, "rollout_steps": 256}});
    let (status, answer) = server.answer("/api/runs", &heavy).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("too_costly")), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_followers_get_every_line_and_those_that_read_nothing_cost_little() {
    let server = server();
    let id = start(&server, 1_000_000).await;
    let mut lazy = Vec::new();
    for _ in 0..40 {
        lazy.push(server.get(&format!("/api/runs/{id}/metrics")).send().await.unwrap());
    }
    let mut eager = server.get(&format!("/api/runs/{id}/metrics")).send().await.unwrap();
    let mut parser = SseParser::default();
    let mut lines: Vec<u64> = Vec::new();
    while lines.len() < 500 {
        let bytes = eager.chunk().await.unwrap().unwrap();
        let ids = parser.push(&bytes).unwrap().into_iter().map(|event| event.id[2..].parse::<u64>().unwrap());
        lines.extend(ids);
    }
    assert_eq!(lines, (1..=lines.len() as u64).collect::<Vec<_>>());
    let (status, _) = server.answer(&format!("/api/runs/{id}/stop"), &json!({})).await;
    assert_eq!(status, 200);
    until_state(&server, id, RunState::Stopped).await;
    // Late as they are, nothing is lost for them.
    for response in lazy.into_iter().take(2) {
        let events = SseParser::default().push(&response.bytes().await.unwrap()).unwrap();
        let (last, lines) = events.split_last().unwrap();
        assert_eq!(last.event, "end");
        assert!(lines.iter().enumerate().all(|(n, event)| event.id == format!("0.{}", n + 1)));
    }
}

#[tokio::test]
async fn a_server_that_does_not_train_says_so() {
    let server = Server::start();
    let list: Value = server.get("/api/runs").send().await.unwrap().json().await.unwrap();
    assert_eq!((&list["training"]["off"], &list["runs"]), (&json!("it is not asked to."), &json!([])));
    let (status, answer) = server.answer("/api/runs", &json!({})).await;
    assert_eq!((status, &answer["error"]["code"]), (403, &json!("training_off")));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_algorithm_that_the_form_offers_is_taken_and_learns() {
    let server = server();
    let list: RunList = server.get("/api/runs").send().await.unwrap().json().await.unwrap();
    assert!(list.training.algorithms.len() >= 16, "eight algorithms, each with two presets");
    for algo in list.training.algorithms {
        // What the form sends: its defaults with the algorithm, and the hyper-parameters that were changed. Here those make
        // networks small and begin learning early.
        let steps = 1200;
        let mut request =
            RunRequest { algo: algo.name.clone(), preset: algo.preset.clone(), steps, ..RunRequest::default() };
        for (key, value) in &algo.hyper {
            let changed = match key.rsplit('.').next() {
                _ if value.is_array() => json!([8]),
                Some("eval_slots" | "warm_up") => json!(40),
                Some("eval_every") => json!(100),
                _ => continue,
            };
            request.hyper.insert(key.clone(), changed);
        }
        let name = format!("{} {}", algo.name, algo.preset);
        let (status, run) = server.answer("/api/runs", &json!(request)).await;
        assert_eq!(status, 201, "{name}: {run}");
        let id = run["id"].as_i64().unwrap();
        let events = stream(&server, id, None).await;
        let (last, lines) = events.split_last().unwrap();
        let ended: RunView = serde_json::from_str(&last.data).unwrap();
        assert_eq!(ended.state, RunState::Finished, "{name}: {:?}", ended.error);
        assert!(ended.steps >= steps, "{name}: {}", ended.steps);
        let line: MetricsLine = serde_json::from_str(&lines.last().unwrap().data).unwrap();
        assert!(line["charts/mean_reward"] > 0.0 && line["eval/reward"] > 0.0, "{name}: {line:?}");
        assert!(line.keys().any(|key| key.starts_with("losses/")), "{name}: {line:?}");
        let response = server.get(&format!("/api/runs/{id}/policy")).send().await.unwrap();
        let policy = Policy::load(&response.bytes().await.unwrap(), &Device::flex()).unwrap();
        assert!(policy.users().contains(&2), "{name}: {:?}", policy.users());
    }
}
