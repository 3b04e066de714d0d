//! The catalogue over HTTP, and another model for a running server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::{Server, Setup, chat, streamed, until};
use crate::catalogue::store::Store;
use crate::host::local::{LocalConfig, LocalHost};
use crate::host::swap::Swap;
use crate::host::testing::{card, engine};
use crate::host::{Host, ModelCard};
use crate::http::model::{ModelSwitch, OpenError};

async fn catalogue(server: &Server) -> Value {
    server.get("/models/catalogue.json").send().await.unwrap().json().await.unwrap()
}

fn entry(catalogue: &Value, id: &str) -> Value {
    let models = catalogue["models"].as_array().unwrap();
    models.iter().find(|model| model["id"] == id).unwrap().clone()
}

#[tokio::test]
async fn pages_get_the_list_and_what_of_it_is_here() {
    let server = Server::with(Setup { device: Some("smollm2-135m"), ..Setup::default() });
    let before = catalogue(&server).await;
    assert_eq!((&before["version"], &before["device"]), (&json!(1), &json!("smollm2-135m")));
    let smol = entry(&before, "smollm2-135m");
    assert!(smol["address"].as_str().unwrap().starts_with("https://"), "{smol}");
    assert_eq!(entry(&before, "compact")["address"], "compact.gguf");
    // Its size, though not its content: a page checks that against the list.
    let bytes = smol["bytes"].as_u64().unwrap();
    let known = crate::catalogue::load(include_bytes!("../../../../public/models/catalogue.json"), &[]).unwrap();
    let place = format!("hub/{}", Store::name(known.find("smollm2").unwrap()));
    server.write(&place, b"GGUF and more");
    std::fs::File::options().write(true).open(server.folder.path().join(&place)).unwrap().set_len(bytes).unwrap();
    let address = entry(&catalogue(&server).await, "smollm2-135m")["address"].as_str().unwrap().to_owned();
    assert_eq!(address, "stored/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf");
    let part = server.get(&format!("/models/{address}")).header("range", "bytes=0-7").send().await.unwrap();
    assert_eq!(
        (part.status().as_u16(), part.headers()["content-range"].to_str().unwrap()),
        (206, &*format!("bytes 0-7/{bytes}"))
    );
    assert!(part.headers().contains_key("etag"));
    assert_eq!(part.bytes().await.unwrap(), "GGUF and");
    // Nothing else of the cache.
    server.write("hub/org/private/m.gguf", "secret");
    for path in [
        "stored/smollm2-135m/m.gguf",
        "stored/org/private/m.gguf",
        "stored/../hub/org/private/m.gguf",
        "stored/qwen3-0.6b/Qwen3-0.6B-Q8_0.gguf",
    ] {
        assert_eq!(server.get(&format!("/models/{path}")).send().await.unwrap().status(), 404, "{path}");
    }
}

fn host(name: &str, context: usize) -> LocalHost {
    let card = ModelCard { id: name.into(), context_length: Some(context), ..card() };
    LocalHost::start(engine(context), card, LocalConfig { slots: 2, queue: 4, prefix_bytes: 0 }).unwrap()
}

/// A server whose model `first` may be changed; `slow` raises the first flag and takes until the second is raised, `broken` cannot
/// be loaded.
fn changeable() -> (Server, Arc<AtomicBool>, Arc<AtomicBool>) {
    let swap = Arc::new(Swap::new(host("first", 4000)));
    let (begun, ready) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (raised, flag) = (Arc::clone(&begun), Arc::clone(&ready));
    let open = move |name: &str| match name {
        "slow" => {
            raised.store(true, Ordering::SeqCst);
            let start = std::time::Instant::now();
            while !flag.load(Ordering::SeqCst) && start.elapsed().as_secs() < 30 {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            Ok(host("slow", 64))
        }
        "second" => Ok(host("second", 64)),
        "broken" => Err(OpenError::Failed("broken.gguf: it is cut short.".into())),
        other => Err(OpenError::NotHere(format!("{other} is not on this machine; fetch it first."))),
    };
    let switch = ModelSwitch::new("key", Arc::clone(&swap), Box::new(open));
    let host: Arc<dyn Host> = swap;
    (Server::with(Setup { host: Some(host), switch: Some(switch), ..Setup::default() }), begun, ready)
}

fn short() -> Value {
    let mut body = chat("a");
    body["max_tokens"] = json!(2);
    body
}

async fn change(server: &Server, key: &str, model: &str) -> (u16, Value) {
    let request = server.post("/api/model", &json!({ "model": model })).header("authorization", key);
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn answers(server: &Server) -> String {
    let health: Value = server.get("/health").send().await.unwrap().json().await.unwrap();
    health["model"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn whoever_has_the_key_changes_the_model_and_streams_end_on_the_one_before() {
    let (server, begun, ready) = changeable();
    let mut body = streamed("hello");
    body["max_tokens"] = json!(3000);
    body["stream_options"] = json!({ "include_usage": true });
    let mut running = server.post("/v1/chat/completions", &body).send().await.unwrap();
    let mut text = running.chunk().await.unwrap().unwrap().to_vec();
    // While the next one is loaded, the first answers, and nobody loads a third.
    let slow = change(&server, "Bearer key", "slow");
    let meanwhile = async {
        until("it is being loaded", async || begun.load(Ordering::SeqCst)).await;
        assert_eq!(change(&server, "Bearer key", "second").await.0, 409);
        let (status, answer) = server.answer("/v1/chat/completions", &short()).await;
        assert_eq!((status, answer["model"].as_str()), (200, Some("first")));
        ready.store(true, Ordering::SeqCst);
    };
    let ((status, changed), ()) = futures::join!(slow, meanwhile);
    assert_eq!((status, &changed["id"], &changed["context_length"]), (200, &json!("slow"), &json!(64)));
    assert_eq!(answers(&server).await, "slow");
    let (status, answer) = server.answer("/v1/chat/completions", &short()).await;
    assert_eq!((status, answer["model"].as_str()), (200, Some("slow")));
    // What began before is written to its end, longer than the new one's context.
    while let Some(chunk) = running.chunk().await.unwrap() {
        text.extend_from_slice(&chunk);
    }
    let text = String::from_utf8(text).unwrap();
    assert!(text.trim_end().ends_with("[DONE]") && text.contains("\"completion_tokens\":3000"), "{text}");
}

#[tokio::test]
async fn what_cannot_be_changed_leaves_the_model_as_it_is() {
    let (server, ..) = changeable();
    for (key, model, status, said) in [
        ("Bearer wrong", "second", 401, "--admin-key"),
        ("Basic key", "second", 401, "--admin-key"),
        ("", "second", 401, "--admin-key"),
        ("Bearer key", "none", 404, "fetch it first"),
        ("Bearer key", "broken", 400, "cut short"),
    ] {
        let (found, answer) = change(&server, key, model).await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(found == status && message.contains(said), "{key} {model}: {found} {message}");
        assert_eq!(answers(&server).await, "first");
    }
    assert_eq!(change(&server, "bearer  key", "second").await.0, 200);
    assert_eq!(answers(&server).await, "second");
    let closed = Server::start();
    let (status, answer) = change(&closed, "Bearer key", "second").await;
    assert!(status == 403 && answer["error"]["message"].as_str().unwrap().contains("--admin-key"), "{answer}");
}
