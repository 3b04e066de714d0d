//! A world that is calibrated to the machines at hand, against what asks take in fact: the engine as the device, `tandem serve`
//! as the server, over HTTP, both in this machine and at the same time. And whether the share of what real models write is α.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use client::calibrate::{apply, calibrate};
use client::cell::Cell;
use client::offload::length::AnswerLength;
use client::offload::local::EnginePort;
use client::offload::openai::{ChatDecoder, ChatRequest};
use client::offload::ports::{ChatStream, Clock, Transport, TransportError};
use client::offload::run::{Ask, run};
use client::offload::signal::StopFlag;
use client::protocol::similarity::{SimilarityRequest, SimilarityResponse};
use client::protocol::worker::{AskOptions, SlotRecord};
use client::protocol::world::{Decider, WorldSettings};
use engine::Engine;
use futures::StreamExt as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_xoshiro::Xoshiro256PlusPlus;

/// What the model may be off in the median.
const PROMISED: f64 = 0.2;
/// What |done − α| may be, for answers of five tokens and more.
const PROMISED_SHARE: f64 = 0.1;

/// A server of its own, which ends with the test.
struct Served {
    child: Child,
    url: String,
    http: reqwest::Client,
    _data: tempfile::TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn public() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../public")
}

impl Served {
    fn start(model: Option<&Path>) -> Self {
        tandem::tls::install_provider();
        let data = tempfile::tempdir().unwrap();
        std::fs::write(data.path().join("index.html"), "").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tandem"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--no-training", "--public"]).arg(public());
        command.arg("--page").arg(data.path()).arg("--data").arg(data.path());
        if let Some(model) = model {
            command.arg("--model").arg(model);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.map(Result::unwrap).find_map(|line| Some(line.split_once("ready at ")?.1.to_owned()));
        let url = ready.expect("a ready line");
        Self { child, url, http: reqwest::Client::new(), _data: data }
    }
}

#[async_trait(?Send)]
impl Transport for Served {
    async fn chat(&self, request: &ChatRequest) -> Result<ChatStream, TransportError> {
        let sent = self.http.post(format!("{}v1/chat/completions", self.url)).json(request).send().await;
        let reply = sent.map_err(|error| TransportError::Unreachable(error.to_string()))?;
        if !reply.status().is_success() {
            let status = reply.status().as_u16();
            return Err(TransportError::Refused { status, message: reply.text().await.unwrap_or_default() });
        }
        let mut decoder = ChatDecoder::default();
        let pieces = reply.bytes_stream().flat_map(move |bytes| {
            let pieces = match bytes {
                Ok(bytes) => {
                    decoder.push(&bytes).map_or_else(|error| vec![Err(error)], |new| new.into_iter().map(Ok).collect())
                }
                Err(error) => vec![Err(TransportError::Broken(error.to_string()))],
            };
            futures::stream::iter(pieces)
        });
        Ok(pieces.boxed_local())
    }

    async fn similarity(&self, _request: &SimilarityRequest) -> Result<SimilarityResponse, TransportError> {
        Err(TransportError::Unreachable("not asked for here".to_owned()))
    }
}

struct WallClock(Instant);

#[async_trait(?Send)]
impl Clock for WallClock {
    fn now_s(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }

    async fn sleep(&self, seconds: f64) {
        tokio::time::sleep(Duration::from_secs_f64(seconds.max(0.0))).await;
    }
}

/// A pair and what is asked of it.
struct Pair {
    engine: Engine,
    server: Served,
    clock: WallClock,
    length: AnswerLength,
    options: AskOptions,
}

impl Pair {
    fn new(device: &Path, server: Option<&Path>) -> Self {
        let mut engine = Engine::from_gguf_file(device).unwrap();
        // The server's words arrive on the thread that computes.
        engine.set_yield(|| Box::pin(tokio::task::yield_now()));
        let (clock, options) = (WallClock(Instant::now()), AskOptions::default());
        Self { engine, server: Served::start(server), clock, length: AnswerLength::default(), options }
    }

    /// Answers a burst in the present slot of a cell, α being what the cell says or what is given.
    async fn ask(&mut self, cell: &mut Cell, prompts: Vec<String>, alpha: Option<f64>) -> SlotRecord {
        let most = self.options.sampling.max_tokens;
        let tokens = prompts.iter().map(|prompt| self.length.estimate(prompt.len(), 0, most).expected).sum();
        let mut planned = cell.clone();
        planned.expect_tokens(tokens);
        let (_, decisions) = planned.decide(None);
        let alpha = alpha.unwrap_or(decisions[0].alpha);
        let (slot, decisions) = planned.slot(decisions, alpha);
        let ask = Ask { id: 1, prompts, begun: Vec::new(), options: self.options.clone() };
        let started_s = self.clock.now_s();
        let now = || self.clock.now_s();
        let mut port = EnginePort { engine: &mut self.engine, clock: &now };
        let stop = StopFlag::default();
        let (server, clock, length) = (&self.server, &self.clock, &mut self.length);
        let done = run(&ask, &slot, started_s, Some(&mut port), server, clock, length, &stop, &|_| ()).await;
        cell.step(&decisions);
        done.record.unwrap()
    }

    /// A cell like the two machines.
    async fn calibrated(&mut self, prompts: &[String]) -> Cell {
        let now = || self.clock.now_s();
        let mut port = EnginePort { engine: &mut self.engine, clock: &now };
        let stop = StopFlag::default();
        let measured = calibrate(prompts, &mut port, &self.server, &self.clock, &mut self.length, &stop).await.unwrap();
        let mut world = WorldSettings { users: 2, seed: 7, decider: Decider::ClosedForm, ..WorldSettings::default() };
        apply(&measured, &mut world);
        println!("{measured:?}\n{:?}, {:?} Mbit for {:?}", world.values, world.size_mbit, world.calibrated);
        let cell = Cell::open(world, None);
        assert!(cell.refused().is_empty(), "{:?}", cell.refused());
        cell
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What the shipped models can be asked.
fn atlas_question(rng: &mut Xoshiro256PlusPlus) -> String {
    const COUNTRIES: [&str; 10] =
        ["Kenya", "France", "Japan", "Peru", "Chile", "Norway", "Egypt", "India", "Canada", "Italy"];
    const ELEMENTS: [&str; 6] = ["gold", "helium", "iron", "oxygen", "silver", "neon"];
    let country = COUNTRIES[rng.random_range(0..COUNTRIES.len())];
    let element = ELEMENTS[rng.random_range(0..ELEMENTS.len())];
    match rng.random_range(0..4) {
        0 => format!("What is the capital of {country}?"),
        1 => format!("What is the currency of {country}?"),
        2 => format!("Which continent is {country} in?"),
        _ => format!("Which symbol does {element} have?"),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Thirty asks; returns how far the modelled latency was off, in the median.
async fn thirty(pair: &mut Pair, cell: &mut Cell, mut burst: impl FnMut() -> Vec<String>, asks: usize) -> f64 {
    println!("prompts  tokens  α plan  done  turns  waited  modelled  measured  off");
    let mut off = Vec::new();
    for _ in 0..asks {
        let record = pair.ask(cell, burst(), None).await;
        let (modelled, measured) = (record.model_latency_s, record.measured_latency_s);
        off.push((modelled - measured).abs() / measured);
        println!(
            "{:>7} {:>7}  {:.2}    {:.2} {:>5}  {:>6.3}  {modelled:>8.3}  {measured:>8.3}  {:+.0} %   local {:.3}/{:.3} uplink {:.3}/{:.3} server {:.3}/{:.3}",
            record.prompts,
            record.device_tokens + record.server_tokens,
            record.alpha,
            record.done_alpha.unwrap_or_default(),
            record.handovers,
            record.handover_s,
            100.0 * (modelled / measured - 1.0),
            record.model_local_s,
            record.measured_local_s.unwrap_or_default(),
            record.model_uplink_s,
            record.measured_uplink_s.unwrap_or_default(),
            record.model_server_s,
            record.measured_server_s.unwrap_or_default(),
        );
    }
    let median = median(off);
    println!("median off: {:.1} %", 100.0 * median);
    median
}

#[test]
#[ignore = "measures wall-clock time: six calibrations on an idle machine were 10 to 15 % off on 2026-12-01, 12 in the median of all asks"]
fn a_calibrated_world_takes_as_long_as_the_shipped_pair() {
    runtime().block_on(async {
        let mut pair = Pair::new(&public().join("models/compact.gguf"), None);
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(5);
        let mut burst = || {
            let prompts = rng.random_range(3..=6);
            (0..prompts).map(|_| atlas_question(&mut rng)).collect::<Vec<_>>()
        };
        // Other tests load this machine as they come and go: what was measured then is measured anew.
        let mut off = f64::INFINITY;
        for attempt in 0..4 {
            let mut cell = pair.calibrated(&burst()).await;
            off = thirty(&mut pair, &mut cell, &mut burst, 30).await;
            println!("attempt {attempt}");
            if off <= PROMISED {
                break;
            }
        }
        assert!(off <= PROMISED, "{off}");
    });
}

/// A pair of one's own: `TANDEM_DEVICE_MODEL`, `TANDEM_SERVER_MODEL` (GGUF files).
#[test]
#[ignore = "needs two models of one's own and minutes"]
fn a_calibrated_world_takes_as_long_as_a_real_pair() {
    let model = |name: &str| PathBuf::from(std::env::var(name).unwrap_or_else(|_| panic!("set {name} to a GGUF file")));
    let asks = std::env::var("TANDEM_ASKS").map_or(30, |asks| asks.parse().unwrap());
    let most = std::env::var("TANDEM_TOKENS").map_or(64, |tokens| tokens.parse().unwrap());
    runtime().block_on(async {
        let mut pair = Pair::new(&model("TANDEM_DEVICE_MODEL"), Some(&model("TANDEM_SERVER_MODEL")));
        pair.options.sampling.max_tokens = most;
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(5);
        const TOPICS: [&str; 8] = ["rivers", "hash maps", "the moon", "sorting", "bread", "Rust", "whales", "clouds"];
        let mut burst = |prompts: usize| {
            let mut topic = || TOPICS[rng.random_range(0..TOPICS.len())];
            (0..prompts).map(|_| format!("Say something about {} and {}.", topic(), topic())).collect::<Vec<_>>()
        };
        let mut cell = pair.calibrated(&burst(3)).await;
        thirty(&mut pair, &mut cell, || burst(3), asks).await;
        println!("One prompt, α given:");
        for alpha in [0.3, 0.5, 0.69, 0.9] {
            let record = pair.ask(&mut cell, burst(1), Some(alpha)).await;
            let (tokens, done) = (record.device_tokens + record.server_tokens, record.done_alpha.unwrap());
            println!(
                "{tokens} tokens, α {alpha:.2} → {done:.2}, {} turns, {:.2} s waited of {:.2} s (device {:.2}, server {:.2})",
                record.handovers,
                record.handover_s,
                record.measured_latency_s,
                record.measured_local_s.unwrap_or_default(),
                record.measured_server_s.unwrap_or_default(),
            );
            assert!(tokens < 5 || (done - alpha).abs() <= PROMISED_SHARE, "{done} at α = {alpha}");
        }
    });
}

/// What a real pair writes is shared by α too: bursts and single questions over HTTP.
#[test]
fn the_shipped_pair_writes_its_shares() {
    runtime().block_on(async {
        let mut pair = Pair::new(&public().join("models/compact.gguf"), None);
        pair.options.pacing = false;
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(11);
        let mut cell = Cell::open(WorldSettings { users: 2, seed: 7, ..WorldSettings::default() }, None);
        println!("prompts  tokens  α plan  done  turns  waited");
        for round in 0..24 {
            let prompts = (0..[1, 2, 4][round % 3]).map(|_| atlas_question(&mut rng)).collect();
            let alpha = [0.25, 0.5, 0.69, 0.85][round % 4];
            let record = pair.ask(&mut cell, prompts, Some(alpha)).await;
            let (tokens, done) = (record.device_tokens + record.server_tokens, record.done_alpha.unwrap());
            println!(
                "{:>7} {tokens:>7}  {alpha:.2}    {done:.2} {:>5}  {:.3}",
                record.prompts, record.handovers, record.handover_s
            );
            // Answers of fewer than five tokens cannot be shared by tenths.
            assert!(tokens < 5 * record.prompts || (done - alpha).abs() <= PROMISED_SHARE, "{record:?}");
        }
    });
}
