//! A hub's files through the server, from hubs with the habits of real ones.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures::StreamExt as _;
use sha2::{Digest as _, Sha256};

use super::{Server, Setup, until};
use crate::hub::HubConfig;

const SIZE: usize = 700_000;
/// More than the sockets between server and client take in while nobody reads.
const BIG: usize = 64 << 20;

fn content() -> Vec<u8> {
    (0..SIZE).map(|i| (i * 31 % 251) as u8).collect()
}

fn big() -> Vec<u8> {
    (0..BIG).map(|i| (i * 37 % 249) as u8).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A hub: what it does depends on the file's name.
pub struct FakeHub {
    url: String,
    asked: Arc<AtomicUsize>,
    /// Lets the second half of a slow file go.
    gate: Arc<tokio::sync::Notify>,
}

#[derive(Clone)]
struct HubState {
    asked: Arc<AtomicUsize>,
    gate: Arc<tokio::sync::Notify>,
    other_host: String,
}

async fn file(
    State(hub): State<HubState>,
    Path((_, _, path)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    hub.asked.fetch_add(1, Ordering::SeqCst);
    let whole = content();
    let tag = |text: &str| [(header::ETAG, format!("\"{text}\""))];
    match path.as_str() {
        "good.gguf" | "other.gguf" => (tag(&sha256(&whole)), whole).into_response(),
        "big.gguf" => big().into_response(),
        "middle.gguf" => vec![7u8; 2 * SIZE].into_response(),
        "wrong.gguf" => (tag(&sha256(b"something else")), whole).into_response(),
        "short.gguf" => {
            let body = Body::from_stream(futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from(vec![1; 100]))]));
            ([(header::CONTENT_LENGTH, "200")], body).into_response()
        }
        "slow.gguf" => {
            let half = Bytes::from(whole[..SIZE / 2].to_vec());
            let rest = Bytes::from(whole[SIZE / 2..].to_vec());
            let gate = Arc::clone(&hub.gate);
            let first = futures::stream::once(async move { Ok::<_, std::io::Error>(half) });
            let second = futures::stream::once(async move {
                gate.notified().await;
                Ok(rest)
            });
            ([(header::CONTENT_LENGTH, SIZE.to_string())], Body::from_stream(first.chain(second))).into_response()
        }
        "promised.gguf" => {
            let never = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
            ([(header::CONTENT_LENGTH, SIZE.to_string())], never).into_response()
        }
        "hangs.gguf" => std::future::pending().await,
        // A great deal is promised, and a byte comes now and then.
        path if path.starts_with("trickle") => {
            let drops = futures::stream::unfold((), |()| async {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                Some((Ok::<_, std::io::Error>(Bytes::from_static(b"x")), ()))
            });
            ([(header::CONTENT_LENGTH, SIZE.to_string())], Body::from_stream(drops)).into_response()
        }
        "linked.gguf" => {
            let to = format!("{}/storage/blob", hub.other_host);
            let linked =
                [(header::LOCATION, to), ("x-linked-etag".parse().unwrap(), format!("\"{}\"", sha256(&whole)))];
            (StatusCode::FOUND, linked).into_response()
        }
        "away.gguf" => (StatusCode::FOUND, [(header::LOCATION, "http://203.0.113.7/blob")]).into_response(),
        "private.gguf" if headers.get(header::AUTHORIZATION).is_some_and(|key| key == "Bearer key") => {
            whole.into_response()
        }
        "private.gguf" => StatusCode::UNAUTHORIZED.into_response(),
        "broken.gguf" => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn blob(headers: HeaderMap) -> Response {
    if headers.contains_key(header::AUTHORIZATION) {
        return (StatusCode::BAD_REQUEST, "the key went too far").into_response();
    }
    content().into_response()
}

impl FakeHub {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(tokio::sync::Notify::new()));
        // The same program under another name stands for the hub's storage.
        let other_host = format!("http://localhost:{port}");
        let state = HubState { asked: Arc::clone(&asked), gate: Arc::clone(&gate), other_host };
        let router = Router::new()
            .route("/{organisation}/{repository}/resolve/main/{*path}", get(file))
            .route("/storage/blob", get(blob))
            .with_state(state);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url: format!("http://127.0.0.1:{port}"), asked, gate }
    }

    pub fn server(&self) -> Server {
        self.server_with(|config| config)
    }

    fn server_with(&self, change: impl FnOnce(HubConfig) -> HubConfig) -> Server {
        let config = HubConfig {
            base: self.url.clone(),
            hosts: vec!["localhost".to_owned()],
            token: Some("key".to_owned()),
            dir: PathBuf::new(),
            max_file_bytes: 1_000_000,
            max_cache_bytes: 10_000_000,
            silence: std::time::Duration::from_secs(20),
        };
        Server::with(Setup { hub: Some(change(config)), ..Setup::default() })
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn whole(server: &Server, path: &str) -> Option<Vec<u8>> {
    let response = server.get(path).send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    response.bytes().await.ok().map(|bytes| bytes.to_vec())
}

#[tokio::test]
async fn a_file_is_fetched_once_and_then_comes_from_the_cache() {
    let hub = FakeHub::start().await;
    let server = hub.server();
    let path = "/models/hub/org/repo/good.gguf";
    let first = server.get(path).send().await.unwrap();
    let tag = first.headers()["etag"].clone();
    assert_eq!(first.headers()["content-length"], SIZE.to_string().as_str());
    assert_eq!(first.bytes().await.unwrap(), content());
    let cached = server.folder.path().join("hub/org/repo/good.gguf");
    until("it is in the cache", async || cached.is_file()).await;
    let second =
        server.get(path).header("range", "bytes=100-199").header("if-range", tag.clone()).send().await.unwrap();
    assert_eq!((second.status().as_u16(), &second.headers()["etag"]), (206, &tag));
    assert_eq!(second.bytes().await.unwrap(), content()[100..200]);
    let head = server.client.head(format!("{}{path}", server.url)).send().await.unwrap();
    assert_eq!(head.headers()["content-length"], SIZE.to_string().as_str());
    assert_eq!(server.get(path).header("range", "bytes=900000-").send().await.unwrap().status(), 416);
    assert_eq!(hub.asked(), 1);
}

#[tokio::test]
async fn clients_share_a_download_and_read_it_while_it_arrives() {
    let hub = FakeHub::start().await;
    let server = hub.server();
    let path = "/models/hub/org/repo/slow.gguf";
    let early = server.get(path).header("range", "bytes=0-9").send().await.unwrap();
    assert_eq!(early.bytes().await.unwrap(), content()[..10], "before the rest is there");
    let late = server.get(path).header("range", format!("bytes={}-", SIZE - 10)).send();
    let all = whole(&server, path);
    let gate = Arc::clone(&hub.gate);
    let open = async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        gate.notify_one();
    };
    let (late, all, ()) = futures::join!(async { late.await.unwrap().bytes().await.unwrap() }, all, open);
    assert_eq!((late.as_ref(), all.unwrap() == content()), (&content()[SIZE - 10..], true));
    assert_eq!(hub.asked(), 1);
}

#[tokio::test]
async fn a_slow_reader_gets_all_of_a_file_while_others_make_room() {
    let hub = FakeHub::start().await;
    let limit = BIG as u64 + 1_000_000;
    let server = hub.server_with(|config| HubConfig { max_file_bytes: limit, max_cache_bytes: limit, ..config });
    let path = |name: &str| format!("/models/hub/org/repo/{name}");
    let cached = |name: &str| server.folder.path().join("hub/org/repo").join(name).is_file();
    assert!(whole(&server, &path("big.gguf")).await.unwrap() == big());
    until("it is in the cache", async || cached("big.gguf")).await;

    // Its beginning, and then nothing for a while. It is now what was asked for longest ago.
    let mut slow = server.get(&path("big.gguf")).send().await.unwrap();
    let mut read = slow.chunk().await.unwrap().unwrap().to_vec();
    assert_eq!(whole(&server, &path("good.gguf")).await.unwrap(), content());
    until("it is in the cache", async || cached("good.gguf")).await;

    // Room for another is made by what nobody reads, though it was asked for later.
    assert_eq!(whole(&server, &path("other.gguf")).await.unwrap(), content());
    until("it is in the cache", async || cached("other.gguf")).await;
    assert!(cached("big.gguf") && !cached("good.gguf"));
    // Where only the file that is being read could go, nothing goes.
    let (status, text) = refusal(&server, &path("middle.gguf")).await;
    assert!(status == 507 && cached("big.gguf") && cached("other.gguf"), "{status} {text}");

    while let Some(chunk) = slow.chunk().await.unwrap() {
        read.extend_from_slice(&chunk);
    }
    assert!(read == big(), "{} bytes of {BIG}", read.len());
    // Read to the end, it makes room like any other.
    let made = async || server.get(&path("middle.gguf")).send().await.unwrap().status() == 200;
    until("there is room", made).await;
    until("it has gone", async || !cached("big.gguf")).await;
}

#[tokio::test]
async fn what_is_damaged_is_neither_handed_on_whole_nor_kept() {
    let hub = FakeHub::start().await;
    let server = hub.server();
    for file in ["wrong.gguf", "short.gguf"] {
        let path = format!("/models/hub/org/repo/{file}");
        let response = server.get(&path).send().await.unwrap();
        // A hub that breaks off at once gives an error status, one that breaks off later a body without its end.
        let whole = response.status() == 200 && response.bytes().await.is_ok();
        assert!(!whole, "{file}");
        let folder = server.folder.path().join("hub/org/repo");
        let left = || std::fs::read_dir(&folder).map_or(0, |entries| entries.flatten().count());
        until("nothing is left", async || left() == 0).await;
    }
}

/// `/dev/full` takes no byte, as a full disk does.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_cuts_the_answer_and_the_next_one_is_whole() {
    let hub = FakeHub::start().await;
    let server = hub.server();
    let folder = server.folder.path().join("hub/org/repo");
    std::fs::create_dir_all(&folder).unwrap();
    let part = folder.join("good.gguf.part");
    std::os::unix::fs::symlink("/dev/full", &part).unwrap();
    // The connection may be cut before the head of the answer has come, or behind it.
    let is_whole = match server.get("/models/hub/org/repo/good.gguf").send().await {
        Ok(response) => response.status() == 200 && response.bytes().await.is_ok(),
        Err(_) => false,
    };
    assert!(!is_whole);
    until("nothing is left", async || part.symlink_metadata().is_err()).await;
    assert_eq!(whole(&server, "/models/hub/org/repo/good.gguf").await.unwrap(), content());
}

#[tokio::test]
async fn redirects_go_to_allowed_hosts_only_and_keys_stay_at_home() {
    let hub = FakeHub::start().await;
    let server = hub.server();
    assert_eq!(whole(&server, "/models/hub/org/repo/linked.gguf").await.unwrap(), content());
    let linked = server.get("/models/hub/org/repo/linked.gguf").send().await.unwrap();
    assert_eq!(linked.headers()["etag"], format!("\"{}\"", sha256(&content())).as_str());
    assert_eq!(whole(&server, "/models/hub/org/repo/private.gguf").await.unwrap(), content());
    let (status, text) = refusal(&server, "/models/hub/org/repo/away.gguf").await;
    assert!(status == 502 && text.contains("203.0.113.7"), "{status} {text}");
    let strict = hub.server_with(|config| HubConfig { hosts: Vec::new(), token: None, ..config });
    assert_eq!(refusal(&strict, "/models/hub/org/repo/linked.gguf").await.0, 502);
    assert_eq!(refusal(&strict, "/models/hub/org/repo/private.gguf").await.0, 404);
}

#[tokio::test]
async fn a_file_that_hangs_holds_up_nobody_else() {
    let hub = FakeHub::start().await;
    let silence = std::time::Duration::from_secs(3);
    let server = hub.server_with(|config| HubConfig { silence, ..config });
    let hanging = server.get("/models/hub/org/repo/hangs.gguf").send();
    let other = async {
        until("it is asked for", async || hub.asked() > 0).await;
        let asked = tokio::time::timeout(silence / 2, whole(&server, "/models/hub/org/repo/good.gguf")).await;
        asked.expect("it waits for the other file")
    };
    let (hanging, other) = futures::join!(hanging, other);
    assert_eq!(other.unwrap(), content());
    let hanging = hanging.unwrap();
    assert_eq!(hanging.status(), 502);
    assert!(hanging.text().await.unwrap().contains("in time"));
}

#[tokio::test]
async fn downloads_that_trickle_for_nobody_give_their_places_to_others() {
    let hub = FakeHub::start().await;
    let server = hub.server();
    let path = |n: usize| format!("/models/hub/org/repo/trickle{n}.gguf");
    // More than there are places; their clients leave at once, which is noticed a moment later.
    for n in 0..12 {
        until("there is a place", async || server.get(&path(n)).send().await.unwrap().status() == 200).await;
    }
    assert_eq!(whole(&server, "/models/hub/org/repo/good.gguf").await.unwrap(), content());
    // Somebody waits for each of these: now there really is no place.
    let mut waiting = Vec::new();
    let refused = async |waiting: &mut Vec<reqwest::Response>| {
        let response = server.get(&path(20 + waiting.len())).send().await.unwrap();
        match response.status().as_u16() {
            200 => waiting.push(response),
            status => return Some((status, response.headers()["retry-after"].clone())),
        }
        None
    };
    let (status, after) = loop {
        if let Some(refusal) = refused(&mut waiting).await {
            break refusal;
        }
        assert!(waiting.len() < 20);
    };
    assert!(status == 503 && waiting.len() >= 4 && after.to_str().unwrap().parse::<u64>().unwrap() >= 1, "{after:?}");
}

#[tokio::test]
async fn a_download_that_brings_nothing_for_nobody_ends() {
    let hub = FakeHub::start().await;
    let silence = std::time::Duration::from_millis(200);
    let server = hub.server_with(|config| HubConfig { silence, ..config });
    drop(server.get("/models/hub/org/repo/trickle.gguf").send().await.unwrap());
    let part = server.folder.path().join("hub/org/repo/trickle.gguf.part");
    until("it has ended", async || !part.exists()).await;
}

#[tokio::test]
async fn what_is_only_promised_removes_nothing() {
    let hub = FakeHub::start().await;
    let limit = SIZE as u64 + 1000;
    let server = hub.server_with(|config| HubConfig { max_cache_bytes: limit, ..config });
    assert_eq!(whole(&server, "/models/hub/org/repo/good.gguf").await.unwrap(), content());
    let cached = server.folder.path().join("hub/org/repo/good.gguf");
    until("it is in the cache", async || cached.is_file()).await;
    // It would need the room of the good one, and nothing of it comes.
    let mut slow = None;
    until("the good one is at rest", async || {
        let response = server.get("/models/hub/org/repo/promised.gguf").send().await.unwrap();
        let taken = response.status() == 200;
        slow = Some(response);
        taken
    })
    .await;
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert!(cached.is_file());
    drop(slow);
}

#[tokio::test]
async fn half_a_file_that_a_killed_server_left_takes_no_room() {
    let hub = FakeHub::start().await;
    let config = |dir: PathBuf| HubConfig {
        base: hub.url.clone(),
        hosts: Vec::new(),
        token: None,
        dir,
        max_file_bytes: 1000,
        max_cache_bytes: 1000,
        silence: std::time::Duration::from_secs(1),
    };
    let folder = tempfile::tempdir().unwrap();
    let part = folder.path().join("org/repo/m.gguf.part");
    std::fs::create_dir_all(part.parent().unwrap()).unwrap();
    std::fs::write(&part, [0; 900]).unwrap();
    std::fs::write(folder.path().join("org/repo/kept.gguf"), [0; 100]).unwrap();
    let _hub = crate::hub::Hub::new(config(folder.path().to_owned())).unwrap();
    assert!(!part.exists() && folder.path().join("org/repo/kept.gguf").exists());
}

async fn refusal(server: &Server, path: &str) -> (u16, String) {
    let response = server.get(path).send().await.unwrap();
    let status = response.status().as_u16();
    let body: serde_json::Value = response.json().await.unwrap();
    (status, body["error"]["message"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn refusals() {
    let hub = FakeHub::start().await;
    let server = hub.server();
    for (path, status, told) in [
        ("/models/hub/org/repo/none.gguf", 404, "no file org/repo/none.gguf"),
        ("/models/hub/org/repo/run.py", 404, "Only model files"),
        ("/models/hub/org/.hidden/m.gguf", 404, "Only model files"),
        ("/models/hub/org/repo/broken.gguf", 502, "500"),
    ] {
        let (found, text) = refusal(&server, path).await;
        assert!(found == status && text.contains(told), "{path}: {found} {text}");
    }
    let small = hub.server_with(|config| HubConfig { max_file_bytes: 1000, ..config });
    let (status, text) = refusal(&small, "/models/hub/org/repo/good.gguf").await;
    assert!(status == 403 && text.contains("1000"), "{text}");
    let full = hub.server_with(|config| HubConfig { max_cache_bytes: 1000, ..config });
    assert_eq!(refusal(&full, "/models/hub/org/repo/good.gguf").await.0, 507);
    let none = Server::start();
    let (status, text) = refusal(&none, "/models/hub/org/repo/good.gguf").await;
    assert!(status == 404 && text.contains("--hub"), "{text}");
    let gone = hub.server_with(|config| HubConfig { base: "http://127.0.0.1:9".to_owned(), ..config });
    assert_eq!(refusal(&gone, "/models/hub/org/repo/good.gguf").await.0, 502);
}
