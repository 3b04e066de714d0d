//! `tandem ecld`: compact models from any checkpoint. One file a step.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use lm::ecld::EcldError;
use lm::ecld::calibration::{self, Limits};
use lm::ecld::depth::Scored;
use lm::ecld::file::{Archive, write_atomically};
use lm::ecld::score::{Aggregate, Options};
use lm::{corpus, tables};

use super::progress::stop_on_ctrl_c;

mod adapters;
mod case;
mod distil;
mod prune;
mod quantise;
mod report;
mod score;

/// What `tandem ecld` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    step: Step,
}

#[derive(Debug, Subcommand)]
enum Step {
    /// Score blocks, neurons, heads and channels on a calibration set (eq. 1).
    Score(score::Args),
    /// Cut what scores least out of a model: a physically smaller file (eq. 2-7).
    Prune(Box<prune::Args>),
    /// Let a pruned model learn from the one that it was cut from (eq. 8-11).
    Distil(Box<distil::Args>),
    /// Merge an adapter of low rank (LoRA) into the model that it was trained on.
    Merge(adapters::Args),
    /// Quantise a GGUF file with scales of least squared error (eq. 12 and 13).
    Quantise(quantise::Args),
    /// Make and judge a family of compact models of the shipped teacher, with controls: public/reports/ecld.md.
    Report(Box<report::Args>),
    /// Compute the cases of a vectors file: check us against a reference of your own.
    Case(case::Args),
}

/// Runs the chosen step.
///
/// # Errors
/// Whatever it could not do; the error names the file and, where it is one's fault, the tensor.
pub fn run(args: Args) -> anyhow::Result<()> {
    match args.step {
        Step::Score(args) => score::run(args),
        Step::Prune(args) => prune::run(*args),
        Step::Distil(args) => distil::run(*args),
        Step::Merge(args) => adapters::run(&args),
        Step::Quantise(args) => quantise::run(args),
        Step::Report(args) => report::run(*args),
        Step::Case(args) => case::run(args),
    }
}

/// What scores are taken on, and how.
#[derive(Debug, clap::Args)]
struct Calibration {
    /// Calibration text: .jsonl with `prompt` and `answer` (only answers count) or `text`, else plain text with passages
    /// between empty lines. Without it, questions and articles of the Atlas corpus.
    #[arg(long)]
    calibration: Option<std::path::PathBuf>,
    /// Calibration tokens in all.
    #[arg(long, default_value_t = 2048)]
    tokens: usize,
    /// Those of them that the rise of the loss without a block is measured on, which takes a pass for every second block.
    #[arg(long, default_value_t = lm::ecld::wishes::LOSS_TOKENS)]
    loss_tokens: usize,
    /// Longest sequence, tokens; what is longer is cut.
    #[arg(long, default_value_t = 384)]
    length: usize,
    /// Seed of the Atlas sample.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Aggregation within a sequence: mean_abs, mean, l2, rms, var, sum, max.
    #[arg(long, default_value = "l2", value_parser = aggregate)]
    seq: Aggregate,
    /// Aggregation over sequences.
    #[arg(long, default_value = "l2", value_parser = aggregate)]
    batch: Aggregate,
    /// From the heads of a KV group to the group.
    #[arg(long, default_value = "sum", value_parser = aggregate)]
    group: Aggregate,
    /// Do not multiply a neuron's score with the norm of its down column.
    #[arg(long)]
    plain_neurons: bool,
    /// Memory for decoded blocks, GB; a larger model is read again for every pass.
    #[arg(long, default_value_t = 4.0)]
    memory_gb: f64,
}

fn aggregate(name: &str) -> Result<Aggregate, EcldError> {
    Aggregate::named(name)
}

impl Calibration {
    fn options(&self) -> Options {
        Options { seq: self.seq, batch: self.batch, group: self.group, times_down: !self.plain_neurons }
    }

    fn memory_bytes(&self) -> u64 {
        (self.memory_gb.max(0.0) * 1e9) as u64
    }

    fn sequences(&self, archive: &Archive) -> anyhow::Result<Vec<Scored>> {
        let words = calibration::words(archive)?;
        let limits = Limits { length: self.length.min(archive.plan.config.context), tokens: self.tokens };
        Ok(match &self.calibration {
            Some(path) => calibration::from_file(&words, path, limits)?,
            None => {
                let corpus = corpus::generate(&tables::embedded()?, 1);
                calibration::atlas(&words, &corpus, self.seed, limits)?
            }
        })
    }
}

/// A progress bar that Ctrl-C ends.
struct Watch {
    bar: ProgressBar,
    stop: Arc<AtomicBool>,
}

impl Watch {
    /// Of bytes.
    fn bytes(all: u64) -> anyhow::Result<Self> {
        Self::with(ProgressBar::new(all), "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} eta {eta} {msg}")
    }

    /// Of so many million floating-point operations.
    fn work(all: u64) -> anyhow::Result<Self> {
        Self::with(ProgressBar::new(all), "{wide_bar} {percent} % {rate} {elapsed} eta {eta} {msg}")
    }

    fn with(bar: ProgressBar, template: &str) -> anyhow::Result<Self> {
        let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            // A bar that cannot be drawn is no reason to stop.
            let _ = write!(out, "{:.0} GFLOP/s", state.per_sec() / 1e3);
        };
        bar.set_style(ProgressStyle::with_template(template)?.with_key("rate", rate));
        Ok(Self { bar, stop: stop_on_ctrl_c("stopping; nothing is left under the final name")? })
    }

    fn tick(&self, by: u64) -> Result<(), EcldError> {
        self.bar.inc(by);
        if self.stop.load(Ordering::Relaxed) { Err(EcldError::Stopped) } else { Ok(()) }
    }
}

/// Writes a report as JSON.
fn write_json(path: &Path, value: &serde_json::Value) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value).context("the report cannot be written as JSON")?;
    write_atomically(path, (text + "\n").as_bytes())?;
    Ok(())
}

/// Where the report on `out` goes: beside it.
fn report_path(out: &Path) -> std::path::PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".json");
    name.into()
}
