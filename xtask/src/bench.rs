//! `cargo xtask bench`: measurements. They print rates and ratios and judge nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result};

use crate::browser::Playwright;
use crate::shell::{self, command, step};
use crate::tools;

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Args {
    /// What to measure.
    #[arg(value_enum)]
    what: What,
    /// Use the page in dist/ as it is instead of building it again.
    #[arg(long)]
    keep_page: bool,
    /// `engine`: a model file to measure beside the shipped ones, instead of random weights of SmolLM2-135M's shape.
    #[arg(long, value_name = "FILE")]
    gguf: Option<PathBuf>,
    /// `engine`: measure wllama (from npm) on that file too, in turn.
    #[arg(long, requires = "gguf")]
    wllama: bool,
    /// `engine`: measure the larger model on WebGPU too. Without a GPU that takes many minutes and says nothing of GPUs.
    #[arg(long)]
    webgpu: bool,
    /// `engine`: compare two threads with one, and nothing else, while this command keeps so many CPU cores busy.
    #[arg(long, value_name = "CORES", value_parser = clap::value_parser!(u8).range(1..))]
    busy: Option<u8>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum What {
    /// Slots a second of the MEC simulator (criterion).
    Mec,
    /// Environment steps a second of the on-policy learners on one thread.
    Rl,
    /// Prefill and decode in headless Chromium, by the clock and by CPU seconds, TTFT, memory; time of a load and of a decision.
    Engine,
    /// A phone that joins a room over a slow line with a slow processor, in headless Chromium.
    Join,
}

/// Runs one bench.
pub fn run(args: &Args) -> Result<()> {
    match args.what {
        What::Mec => {
            step("Simulator");
            shell::run(command("cargo", &["bench", "-p", "mec", "--bench", "mec"]))
        }
        What::Rl => rl(),
        What::Engine => {
            let playwright = Playwright::prepare(args.keep_page)?;
            step("Engine, in headless Chromium");
            let mut env = Vec::new();
            if let Some(file) = &args.gguf {
                let file = fs::canonicalize(file).with_context(|| format!("{}", file.display()))?;
                env.push(("BENCH_GGUF", file.into_os_string()));
            }
            if args.wllama {
                env.push(("BENCH_WLLAMA", tools::ensure_wllama()?.into_os_string()));
            }
            if args.webgpu {
                env.push(("BENCH_GPU", "1".into()));
            }
            let mut options = in_browser(&["engine", "load", "models", "policy"]);
            // Held until the measurement is over.
            let _busy = args.busy.map(|cores| {
                options.extend(["--grep".to_owned(), "on a busy machine".to_owned()]);
                env.push(("BENCH_BUSY", cores.to_string().into()));
                Busy::new(cores)
            });
            playwright.run_with(&options, &env)
        }
        What::Join => {
            let playwright = Playwright::prepare(args.keep_page)?;
            step("A phone that joins, in headless Chromium");
            playwright.run_with(&in_browser(&["join"]), &[])
        }
    }
}

/// What Playwright takes to run these files of `tests/bench`.
fn in_browser(files: &[&str]) -> Vec<String> {
    let config = ["--config", "bench.config.mjs"].map(str::to_owned);
    config.into_iter().chain(files.iter().map(|file| format!("{file}.bench.mjs"))).collect()
}

/// Threads that do nothing as fast as they can, until it is dropped.
struct Busy {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Busy {
    fn new(cores: u8) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let spin = |_| {
            let over = Arc::clone(&over);
            std::thread::spawn(move || {
                let mut count = 0u64;
                while !over.load(Ordering::Relaxed) {
                    count = std::hint::black_box(count.wrapping_add(1));
                }
            })
        };
        let threads = (0..cores).map(spin).collect();
        Self { over, threads }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // One that panicked is over, too.
            let _ = thread.join();
        }
    }
}

/// Trainings to time: name, and what `tandem train` takes.
const TRAININGS: [(&str, &[&str]); 3] = [
    ("PPO, 1 environment, 10 epochs, minibatch 64, 2×256", &["--algo", "ppo", "--steps", "20000"]),
    (
        "PPO, 64 environments, 4 epochs, minibatch 512, 2×256",
        &[
            "--algo",
            "ppo",
            "--envs",
            "64",
            "--epochs",
            "4",
            "--minibatch",
            "512",
            "--rollout-steps",
            "32",
            "--steps",
            "102400",
        ],
    ),
    ("WM-PPO as printed, 1 environment", &["--algo", "wm-ppo", "--steps", "10000"]),
];

fn rl() -> Result<()> {
    step("Training, steps a second by the wall clock on one thread");
    shell::run(command("cargo", &["build", "--release", "--package", "tandem-server", "--bin", "tandem"]))?;
    let dir = Path::new("target/bench-rl");
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("{}", dir.display()))?;
    }
    fs::create_dir_all(dir)?;
    // Evaluating is no part of a step.
    let config = dir.join("bench.toml");
    fs::write(&config, "eval_every = 1000000\neval_slots = 1\ncheckpoint_every = 1000000\n")?;
    for (i, (name, args)) in TRAININGS.iter().enumerate() {
        let out = dir.join(i.to_string());
        let mut train = command("target/release/tandem", &["train", "--preset", "paper"]);
        train.arg("--config").arg(&config).arg("--out").arg(&out).args(*args).env("RAYON_NUM_THREADS", "1");
        shell::run(train)?;
        let lines = fs::read_to_string(out.join("metrics.jsonl"))?;
        let last: serde_json::Value = serde_json::from_str(lines.lines().last().context("no metrics")?)?;
        let rate = last["charts/SPS"].as_f64().context("no charts/SPS in the metrics")?;
        println!("{name}: {rate:.0} steps/s");
    }
    Ok(())
}
