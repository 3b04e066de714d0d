//! The server as a black box: started in this process on a free port, asked over HTTP. The model behind it is a fake
//! whose answers the tests choose; the real ones are tested in [`crate::host`].

mod api;
mod connections;
mod errors;
mod fake;
mod files;
mod guard;
mod hub;
mod lifetime;
mod models;
mod rooms;
mod runs;
mod upstream;

use std::sync::Arc;
use std::time::{Duration, Instant};

use client::protocol::runs::RunLimits;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::catalogue::Offered;
use super::files::Files;
use super::guard::Hosts;
use super::model::ModelSwitch;
use super::{App, Limits, Parts, serve};
use crate::catalogue::store::Store;
use crate::host::Host;
use crate::hub::{Hub, HubConfig};
use crate::rooms::{Rooms, RoomsConfig, ServerNow};
use crate::runs::{Runs, RunsConfig};
use crate::tls::Identity;
use fake::{FakeEmbedder, FakeHost};

/// A running server and the folder that it serves.
struct Server {
    url: String,
    host: Arc<FakeHost>,
    client: reqwest::Client,
    shutdown: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<()>>,
    folder: tempfile::TempDir,
    rooms: Rooms,
}

/// What a test changes about a server.
struct Setup {
    identity: Option<Identity>,
    cors_origins: Vec<String>,
    drain: Duration,
    has_embedder: bool,
    /// Trains within these limits.
    training: Option<RunLimits>,
    /// Has live rooms, in this folder.
    rooms: Option<std::path::PathBuf>,
    /// Passes this hub's files on, from a cache in the server's own folder.
    hub: Option<HubConfig>,
    limits: Limits,
    /// Names beside those of this machine.
    names: Vec<String>,
    /// Another host than the fake one.
    host: Option<Arc<dyn Host>>,
    /// What changes that.
    switch: Option<ModelSwitch>,
    /// A model in the server's store, for pages to load by themselves.
    device: Option<&'static str>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            identity: None,
            cors_origins: Vec::new(),
            drain: Duration::from_secs(5),
            has_embedder: true,
            training: None,
            rooms: None,
            hub: None,
            limits: Limits { max_body_bytes: 4096, max_inputs: 3, ..Limits::default() },
            names: Vec::new(),
            host: None,
            switch: None,
            device: None,
        }
    }
}

impl Server {
    fn start() -> Self {
        Self::with(Setup::default())
    }

    fn with(setup: Setup) -> Self {
        crate::tls::install_provider();
        let folder = tempfile::tempdir().unwrap();
        for name in ["page", "public"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let files = Files::new(Some(folder.path().join("page")), Some(folder.path().join("public")));
        let host = Arc::new(FakeHost::default());
        let runs = match setup.training {
            Some(limits) => {
                let dir = folder.path().join("runs");
                Runs::open(RunsConfig { dir, limits, threads: 1, off: None }).unwrap()
            }
            None => Runs::none("it is not asked to."),
        };
        let rooms = match setup.rooms {
            Some(dir) => {
                let policy = concat!(env!("CARGO_MANIFEST_DIR"), "/../public/policies/set.safetensors");
                let policy = Some(std::fs::read(policy).unwrap());
                let server = || ServerNow { tokens_per_s: Some(50.0), active: 2, queue: 1 };
                Rooms::open(RoomsConfig { dir, policy, server: Box::new(server) }).unwrap()
            }
            None => Rooms::none("it is not asked to."),
        };
        let (ending, closing) = (runs.clone(), rooms.clone());
        let mut catalogue =
            crate::catalogue::load(include_bytes!("../../../../public/models/catalogue.json"), &[]).unwrap();
        catalogue.device = setup.device.map(str::to_owned);
        let offered = Offered { catalogue, store: Store::new(folder.path().join("hub")), own: None };
        let app = App::new(Parts {
            host: setup.host.unwrap_or_else(|| Arc::<FakeHost>::clone(&host) as _),
            embedder: setup.has_embedder.then(|| Arc::new(FakeEmbedder) as _),
            files,
            runs,
            rooms: rooms.clone(),
            hub: setup.hub.map(|config| Hub::new(HubConfig { dir: folder.path().join("hub"), ..config }).unwrap()),
            offered,
            switch: setup.switch,
            limits: setup.limits,
            hosts: Hosts::new(std::net::Ipv4Addr::LOCALHOST.into(), &setup.names),
            cors_origins: setup.cors_origins,
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let scheme = if setup.identity.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let (shutdown, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(serve::run(listener, setup.identity, app, setup.drain, async move {
            let _ = stopped.await;
            ending.begin_shutdown();
            closing.begin_shutdown();
        }));
        let client = reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true).build().unwrap();
        Self { url, host, client, shutdown: Some(shutdown), task, folder, rooms }
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.get(format!("{}{path}", self.url))
    }

    fn post(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        self.client.post(format!("{}{path}", self.url)).json(body)
    }

    async fn answer(&self, path: &str, body: &Value) -> (u16, Value) {
        let response = self.post(path, body).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// The data of all events of a stream.
    async fn events(&self, path: &str, body: &Value) -> Vec<String> {
        let response = self.post(path, body).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let text = response.text().await.unwrap();
        text.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).map(str::to_owned).collect()
    }

    /// What a request by hand is answered, until the server closes the connection.
    async fn by_hand(&self, request: &str) -> String {
        let mut socket = tokio::net::TcpStream::connect(self.url.strip_prefix("http://").unwrap()).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A connection that is cut off has said what it had to say.
        let _ = socket.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").send().await.unwrap().text().await.unwrap();
        let line = text.lines().find(|line| line.starts_with(name) && line[name.len()..].starts_with(' '));
        line.map_or(f64::NAN, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }

    fn stop(&mut self) {
        self.shutdown.take().unwrap().send(()).unwrap();
    }
}

/// One question of the user's.
fn chat(text: &str) -> Value {
    json!({ "messages": [{ "role": "user", "content": text }], "temperature": 0 })
}

fn streamed(text: &str) -> Value {
    let mut body = chat(text);
    body["stream"] = json!(true);
    body
}

/// Waits for something that another task is about to do.
async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !done().await {
        assert!(start.elapsed() < Duration::from_secs(10), "gave up waiting until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
