//! `tandem bench-serve`: what the server does under load, measured from outside.
//!
//! Starts a server of its own on a loopback address, with a folder of its own, and puts loads on it one after the other.
//! First clients that ask at the same time (`bench_clients.rs`): tokens a second, TTFT and TPOT. Then idle connections,
//! many who ask at once, followers of a training run, polls of the list of runs: how long `/health` takes meanwhile and how
//! much memory the server has. Every load is bounded in number and time. With `--url` another server is measured, ours or
//! not, by clients that ask.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use reqwest::StatusCode;
use reqwest::header::RETRY_AFTER;
use serde_json::{Value, json};

use super::bench_clients::{self, ClientArgs};

/// Longest time for one load.
const LONGEST: Duration = Duration::from_secs(120);
/// Between two looks at `/health` and memory.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long loads last that do not end by themselves.
const LAST: Duration = Duration::from_secs(10);

/// What `tandem bench-serve` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Clients that ask at the same time.
    #[command(flatten)]
    pub asking: ClientArgs,
    /// Measure clients that ask, and nothing else.
    #[arg(long)]
    pub clients_only: bool,
    /// What the server that is started for it takes besides, behind `--`: a model, slots, threads.
    #[arg(last = true, conflicts_with = "url", value_name = "OPTIONS OF SERVE")]
    pub serve: Vec<String>,
    /// Idle connections.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(0..=4000))]
    pub idle: u16,
    /// Those who ask at once.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub askers: u16,
    /// Followers of a training run.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub followers: u16,
    /// Training runs in the list that is polled.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub runs: u16,
}

struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(folder: &Path, options: &[String]) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program's own path")?;
        let mut child = Command::new(program)
            .args(["serve", "--listen", "127.0.0.1:0", "--train-queue", "300", "--train-kept", "300", "--data"])
            .arg(folder)
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("the server does not start")?;
        let mut line = String::new();
        let output = child.stdout.take().context("the server's output")?;
        BufReader::new(output).read_line(&mut line)?;
        let url = line.trim().strip_prefix("Tandem is ready at ").context("the server does not say where it is")?;
        Ok(Self { child, url: url.trim_end_matches('/').to_owned() })
    }

    /// Resident memory, MB; `None` where the system does not tell it.
    fn memory_mb(&self) -> Option<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let kb = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        kb.trim().trim_end_matches("kB").trim().parse::<f64>().ok().map(|kb| kb / 1000.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What was seen of the server during a load.
#[derive(Default)]
struct Seen {
    health_ms: Vec<f64>,
    failed: usize,
    most_mb: f64,
}

/// Runs the benchmark.
///
/// # Errors
/// When no server can be started, or it does not take what it is asked to.
pub fn run(args: Args) -> anyhow::Result<()> {
    rlimit::increase_nofile_limit(16_384).context("the limit of open files")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(&args))
}

async fn measure(args: &Args) -> anyhow::Result<()> {
    crate::tls::install_provider();
    if let Some(url) = &args.asking.url {
        return bench_clients::measure(url, &args.asking).await;
    }
    let folder = std::env::temp_dir().join(format!("tandem-bench-serve-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let server = Server::start(&folder, &args.serve)?;
    bench_clients::measure(&server.url, &args.asking).await?;
    if args.clients_only {
        drop(server);
        let _ = std::fs::remove_dir_all(&folder);
        return Ok(());
    }
    println!();
    println!("{:<52} {:>9} {:>9} {:>9} {:>7} {:>9}", "load", "p50 ms", "p99 ms", "max ms", "failed", "peak MB");
    let show = |load: &str, seen: Seen| {
        let [p50, p99, most] = [0.5, 0.99, 1.0].map(|share| bench_clients::percentile(&seen.health_ms, share));
        println!("{load:<52} {p50:>9.1} {p99:>9.1} {most:>9.1} {:>7} {:>9.0}", seen.failed, seen.most_mb);
    };

    show("nothing", watch(&server, tokio::time::sleep(Duration::from_secs(2))).await?);
    let idle = connections(&server.url, args.idle)?;
    show(&format!("{} idle connections", args.idle), watch(&server, tokio::time::sleep(Duration::from_secs(2))).await?);
    let asked = Asked::default();
    let seen = watch(&server, ask_all(&server.url, args.askers, &asked)).await?;
    let load = format!("{} idle, {} ask at once (and come back as told)", idle.len(), args.askers);
    show(&load, seen);
    println!("    {asked}");
    drop(idle);

    let id = start_run(&server.url, 1_000_000).await?;
    let lazy = follow(&server.url, id, args.followers / 2).await?;
    show(&format!("{} followers that read nothing", lazy.len()), watch(&server, tokio::time::sleep(LAST)).await?);
    drop(lazy);
    let eager = follow(&server.url, id, args.followers).await?;
    let count = eager.len();
    let read = async {
        let all = eager.into_iter().map(|mut response| async move {
            while let Ok(Ok(Some(_))) = tokio::time::timeout(LAST, response.chunk()).await {}
        });
        let _ = tokio::time::timeout(LAST, futures::future::join_all(all)).await;
    };
    show(&format!("{count} followers that read all"), watch(&server, read).await?);
    post(&format!("{}/api/runs/{id}/stop", server.url), &json!({})).await?;

    for _ in 1..args.runs {
        start_run(&server.url, 8).await?;
    }
    let polls = AtomicUsize::new(0);
    let seen = watch(&server, poll_list(&server.url, &polls)).await?;
    show(&format!("the list of {} runs, {} polls", args.runs, polls.load(Ordering::Relaxed)), seen);
    drop(server);
    let _ = std::fs::remove_dir_all(&folder);
    Ok(())
}

/// Looks at the server while a load is on it.
async fn watch(server: &Server, load: impl Future<Output = ()>) -> anyhow::Result<Seen> {
    let over = Arc::new(AtomicBool::new(false));
    let client = client()?;
    let mut seen = Seen::default();
    let looks = async {
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
    };
    let load = async {
        let _ = tokio::time::timeout(LONGEST, load).await;
        over.store(true, Ordering::Relaxed);
    };
    futures::join!(looks, load);
    Ok(seen)
}

pub(super) fn client() -> anyhow::Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().tls_certs_only(std::iter::empty()).build()?)
}

/// Connections that say nothing, held until they are dropped.
fn connections(url: &str, count: u16) -> anyhow::Result<Vec<TcpStream>> {
    let address = url.trim_start_matches("http://");
    (0..count).map(|_| TcpStream::connect(address).context("a connection")).collect()
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
    let ask = |n: u16| async move {
        let Ok(client) = client() else { return };
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

async fn post(url: &str, body: &Value) -> anyhow::Result<Value> {
    let response = client()?.post(url).json(body).send().await?;
    let status = response.status();
    let answer: Value = response.json().await?;
    anyhow::ensure!(status.is_success(), "{url}: {status}: {answer}");
    Ok(answer)
}

/// A run whose updates are tiny and many.
async fn start_run(url: &str, steps: u64) -> anyhow::Result<i64> {
    let body = json!({
        "users": 1, "envs": 2, "steps": steps,
        "hyper": { "rollout_steps": 4, "minibatch": 8, "epochs": 1, "hidden": [4], "eval_slots": 4, "eval_every": 100,
            "checkpoint_every": 100 },
    });
    post(&format!("{url}/api/runs"), &body).await?["id"].as_i64().context("a run without a number")
}

async fn follow(url: &str, id: i64, count: u16) -> anyhow::Result<Vec<reqwest::Response>> {
    let mut followers = Vec::new();
    for _ in 0..count {
        followers.push(client()?.get(format!("{url}/api/runs/{id}/metrics")).send().await?);
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
