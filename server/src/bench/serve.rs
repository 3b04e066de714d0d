//! What the server does under load, measured from outside.
//!
//! [`Server`] is one of its own on a loopback address, with a folder of its own. [`measure`] puts loads on it one after the
//! other: idle connections, many who ask at once, followers of a training run, polls of the list of runs. Tells for each
//! how long `/health` takes meanwhile and how much memory the server has. Every load is bounded in number and time.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use reqwest::header::RETRY_AFTER;
use serde_json::{Value, json};

use super::clients::{client, quantile};

/// Longest time for one load.
const LONGEST: Duration = Duration::from_secs(120);
/// Between two looks at `/health` and memory.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long loads last that do not end by themselves.
const LAST: Duration = Duration::from_secs(10);

/// How much of everything is put on the server.
#[derive(Debug, Clone, Copy)]
pub struct Loads {
    /// Idle connections.
    pub idle: u16,
    /// Those who ask at once.
    pub askers: u16,
    /// Followers of a training run.
    pub followers: u16,
    /// Training runs in the list that is polled.
    pub runs: u16,
}

/// Why nothing was measured, or not to the end.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was asked of it.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// The server's first line is another one.
    #[error("the server does not say where it is")]
    NoAddress,
    /// A request failed.
    #[error(transparent)]
    Request(#[from] reqwest::Error),
    /// The server does not take what it is asked to.
    #[error("{url}: {status}: {answer}")]
    Refused {
        /// What was asked.
        url: String,
        /// Its answer's status.
        status: StatusCode,
        /// Its answer.
        answer: Value,
    },
    /// Looking at the server failed.
    #[error("the thread that looks at /health panicked")]
    Watch,
    /// A run was begun and has no id.
    #[error("the server started a run without an id")]
    NoRun,
}

/// For `map_err`: the error of something that the system refused.
fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> LoadError {
    move |source| LoadError::System { what, source }
}

/// A server of its own, which ends with this value.
#[derive(Debug)]
pub struct Server {
    child: Child,
    program: PathBuf,
    folder: PathBuf,
    options: Vec<String>,
    url: String,
}

fn spawn(program: &Path, listen: &str, folder: &Path, options: &[String]) -> Result<Child, LoadError> {
    Command::new(program)
        .args(["serve", "--listen", listen, "--train-queue", "300", "--train-kept", "300", "--data"])
        .arg(folder)
        .args(options)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(system("the server does not start"))
}

impl Server {
    /// Starts it, with more options of `tandem serve`.
    ///
    /// # Errors
    /// The system refuses the process or its folder, or the server does not say where it is.
    pub fn start(options: &[String]) -> Result<Self, LoadError> {
        let program = std::env::current_exe().map_err(system("this program's own path"))?;
        let folder = std::env::temp_dir().join(format!("tandem-bench-serve-{}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(system("a folder for the server"))?;
        let child = spawn(&program, "127.0.0.1:0", &folder, options)?;
        let mut server = Self { child, program, folder, options: options.to_vec(), url: String::new() };
        server.url = server.announced()?;
        Ok(server)
    }

    /// Ends it as a power cut would, and starts it again at the same address with the same folder.
    ///
    /// # Errors
    /// The system refuses the process, or the server does not say where it is.
    pub fn kill_and_restart(&mut self) -> Result<(), LoadError> {
        self.child.kill().map_err(system("the server cannot be killed"))?;
        self.child.wait().map_err(system("the server does not end"))?;
        let address = self.url.rsplit('/').next().unwrap_or_default().to_owned();
        self.child = spawn(&self.program, &address, &self.folder, &self.options)?;
        self.announced().map(|_| ())
    }

    /// Waits for the line in which it says where it is.
    fn announced(&mut self) -> Result<String, LoadError> {
        let output = self.child.stdout.take().ok_or(LoadError::NoAddress)?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).map_err(system("the server's output"))?;
        let url = line.trim().strip_prefix("Tandem is ready at ").ok_or(LoadError::NoAddress)?;
        Ok(url.trim_end_matches('/').to_owned())
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Resident memory, MB; `None` where the system does not tell it.
    pub fn memory_mb(&self) -> Option<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let kb = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        kb.trim().trim_end_matches("kB").trim().parse::<f64>().ok().map(|kb| kb / 1000.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// What was seen of the server during a load.
#[derive(Debug, Default)]
pub struct Seen {
    /// How long `/health` took, milliseconds.
    pub health_ms: Vec<f64>,
    /// How often it did not answer.
    pub failed: usize,
    /// The most memory that the server had, MB; NaN where the system does not tell it.
    pub most_mb: f64,
}

impl Seen {
    /// The time below which this share of the answers came, milliseconds; NaN where none did.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        quantile(&self.health_ms, share)
    }
}

/// Measures one load after the other. `show` gets each with its name, and what else there is to say of it.
///
/// # Errors
/// The server does not take what it is asked to, or the system refuses connections.
pub async fn measure(
    server: &Server,
    loads: &Loads,
    show: &mut dyn FnMut(&str, &Seen, Option<String>),
) -> Result<(), LoadError> {
    crate::tls::install_provider();
    show("nothing", &watch(server, tokio::time::sleep(Duration::from_secs(2)))?, None);
    let idle = connections(&server.url, loads.idle)?;
    let seen = watch(server, tokio::time::sleep(Duration::from_secs(2)))?;
    show(&format!("{} idle connections", loads.idle), &seen, None);
    let asked = Asked::default();
    let seen = watch(server, ask_all(&server.url, loads.askers, &asked))?;
    let load = format!("{} idle, {} ask at once (and come back as told)", idle.len(), loads.askers);
    show(&load, &seen, Some(asked.to_string()));
    drop(idle);

    let id = start_run(&server.url, 1_000_000).await?;
    let lazy = follow(&server.url, id, loads.followers / 2).await?;
    let seen = watch(server, tokio::time::sleep(LAST))?;
    show(&format!("{} followers that read nothing", lazy.len()), &seen, None);
    drop(lazy);
    let eager = follow(&server.url, id, loads.followers).await?;
    let count = eager.len();
    let read = async {
        let all = eager.into_iter().map(|mut response| async move {
            while let Ok(Ok(Some(_))) = tokio::time::timeout(LAST, response.chunk()).await {}
        });
        let _ = tokio::time::timeout(LAST, futures::future::join_all(all)).await;
    };
    show(&format!("{count} followers that read all"), &watch(server, read)?, None);
    match post(&format!("{}/api/runs/{id}/stop", server.url), &json!({})).await {
        // A fast machine has finished it.
        Ok(_) | Err(LoadError::Refused { status: StatusCode::CONFLICT, .. }) => {}
        Err(error) => return Err(error),
    }

    for _ in 1..loads.runs {
        start_run(&server.url, 8).await?;
    }
    let polls = AtomicUsize::new(0);
    let seen = watch(server, poll_list(&server.url, &polls))?;
    let load = format!("the list of {} runs, {} polls", loads.runs, polls.load(Ordering::Relaxed));
    show(&load, &seen, None);
    Ok(())
}

/// Looks at the server while a load is on it, from a thread of its own: else what the load's clients compute would be
/// counted as the server's time.
fn watch(server: &Server, load: impl Future<Output = ()>) -> Result<Seen, LoadError> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let looks = scope.spawn(|| look(server, &over));
        let handle = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| {
            handle.block_on(async { drop(tokio::time::timeout(LONGEST, load).await) });
        });
        over.store(true, Ordering::Relaxed);
        looks.join().unwrap_or(Err(LoadError::Watch))
    })
}

fn look(server: &Server, over: &AtomicBool) -> Result<Seen, LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(system("a runtime to look from"))?.block_on(async {
        let client = client()?;
        let mut seen = Seen::default();
        while !over.load(Ordering::Relaxed) {
            let started = Instant::now();
            let answer = client.get(format!("{}/health", server.url)).timeout(Duration::from_secs(10)).send().await;
            match answer {
                Ok(response) if response.status().is_success() => {
                    seen.health_ms.push(started.elapsed().as_secs_f64() * 1e3);
                }
                _ => seen.failed += 1,
            }
            seen.most_mb = seen.most_mb.max(server.memory_mb().unwrap_or(f64::NAN));
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(seen)
    })
}

/// Connections that say nothing, held until they are dropped.
fn connections(url: &str, count: u16) -> Result<Vec<TcpStream>, LoadError> {
    let address = url.trim_start_matches("http://");
    (0..count).map(|_| TcpStream::connect(address).map_err(system("a connection"))).collect()
}

/// How those who asked fared.
#[derive(Default)]
struct Asked {
    answered: AtomicUsize,
    refused: AtomicUsize,
    failed: AtomicUsize,
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [answered, refused, failed] =
            [&self.answered, &self.refused, &self.failed].map(|count| count.load(Ordering::Relaxed));
        write!(f, "{answered} answered, {refused} told to come back later, {failed} failed")
    }
}

async fn ask_all(url: &str, count: u16, asked: &Asked) {
    let Ok(client) = client() else { return };
    let client = &client;
    let ask = |n: u16| async move {
        let body = json!({ "messages": [{ "role": "user", "content": format!("Question {n}: where is the Atlas?") }],
            "max_tokens": 32, "temperature": 0, "seed": n });
        let deadline = Instant::now() + LONGEST;
        while Instant::now() < deadline {
            let sent = client.post(format!("{url}/v1/chat/completions")).json(&body).send().await;
            let Ok(response) = sent else {
                asked.failed.fetch_add(1, Ordering::Relaxed);
                return;
            };
            let after_s = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            let status = response.status();
            let arrived = response.bytes().await.is_ok();
            if status == StatusCode::SERVICE_UNAVAILABLE {
                asked.refused.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(after_s.unwrap_or(1))).await;
                continue;
            }
            let fared = if status == StatusCode::OK && arrived { &asked.answered } else { &asked.failed };
            fared.fetch_add(1, Ordering::Relaxed);
            return;
        }
    };
    futures::future::join_all((0..count).map(ask)).await;
}

async fn post(url: &str, body: &Value) -> Result<Value, LoadError> {
    let response = client()?.post(url).json(body).send().await?;
    let status = response.status();
    let answer: Value = response.json().await?;
    match status.is_success() {
        true => Ok(answer),
        false => Err(LoadError::Refused { url: url.to_owned(), status, answer }),
    }
}

/// A run whose updates are tiny and many.
async fn start_run(url: &str, steps: u64) -> Result<i64, LoadError> {
    let body = json!({
        "users": 1, "envs": 2, "steps": steps,
        "hyper": { "rollout_steps": 4, "minibatch": 8, "epochs": 1, "hidden": [4], "eval_slots": 4, "eval_every": 100,
            "checkpoint_every": 100 },
    });
    post(&format!("{url}/api/runs"), &body).await?["id"].as_i64().ok_or(LoadError::NoRun)
}

async fn follow(url: &str, id: i64, count: u16) -> Result<Vec<reqwest::Response>, LoadError> {
    let client = client()?;
    let mut followers = Vec::new();
    for _ in 0..count {
        followers.push(client.get(format!("{url}/api/runs/{id}/metrics")).send().await?);
    }
    Ok(followers)
}

/// 200 polls a second.
async fn poll_list(url: &str, polls: &AtomicUsize) {
    let Ok(client) = client() else { return };
    let started = Instant::now();
    let mut due = tokio::time::interval(Duration::from_millis(5));
    let mut under_way = Vec::new();
    while started.elapsed() < LAST {
        due.tick().await;
        let request = client.get(format!("{url}/api/runs")).timeout(LONGEST).send();
        under_way.push(tokio::spawn(async move {
            if let Ok(response) = request.await {
                let _ = response.bytes().await;
            }
        }));
        polls.fetch_add(1, Ordering::Relaxed);
    }
    futures::future::join_all(under_way).await;
}
