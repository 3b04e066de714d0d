//! `tandem train-lm`: trains a language model on the Atlas corpus from scratch.

use anyhow::Context as _;
use burn::tensor::Device;
use lm::checkpoint::{self, Meta};
use lm::model::LlamaConfig;
use lm::probe::Probe;
use lm::train::{TrainConfig, Trainer};
use lm::{batch, corpus, tables, tokenizer};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum DeviceKind {
    /// burn's flex backend on all cores.
    Cpu,
    /// A GPU through wgpu (cargo feature `wgpu`).
    Wgpu,
    /// An NVIDIA GPU (cargo feature `cuda`).
    Cuda,
}

impl DeviceKind {
    /// Opens the device.
    ///
    /// # Errors
    /// When this build has no such backend.
    pub fn open(self) -> anyhow::Result<Device> {
        match self {
            Self::Cpu => Ok(Device::flex()),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Ok(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
            #[cfg(feature = "cuda")]
            Self::Cuda => Ok(Device::cuda(0)),
            #[allow(unreachable_patterns)] // reachable unless both GPU features are on
            other => anyhow::bail!(
                "this build has no {other:?} backend: build with --features {}",
                format!("{other:?}").to_lowercase()
            ),
        }
    }
}

/// Sizes to choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Size {
    /// 256 wide, 6 blocks: about 5 M parameters.
    Full,
    /// 128 wide, 4 blocks: about 1 M parameters.
    Compact,
}

impl Size {
    /// Its configuration for a vocabulary.
    pub fn config(self, vocab: usize) -> LlamaConfig {
        match self {
            Self::Full => LlamaConfig::full(vocab),
            Self::Compact => LlamaConfig::compact(vocab),
        }
    }
}

/// What `tandem train-lm` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run folder: tokenizer.json, checkpoint.safetensors, log.jsonl. A run that is there is resumed.
    #[arg(long)]
    pub out: PathBuf,
    /// Size of the model.
    #[arg(long, value_enum, default_value = "full")]
    pub size: Size,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "cpu")]
    pub device: DeviceKind,
    /// Optimizer steps in all.
    #[arg(long, default_value_t = TrainConfig::default().steps)]
    pub steps: usize,
    /// Rows in a batch.
    #[arg(long, default_value_t = TrainConfig::default().rows)]
    pub rows: usize,
    /// Tokens in a row.
    #[arg(long, default_value_t = TrainConfig::default().len)]
    pub len: usize,
    /// Peak learning rate of the matrices.
    #[arg(long, default_value_t = TrainConfig::default().matrix_lr)]
    pub lr: f64,
    /// Peak learning rate of the embedding and the norms.
    #[arg(long, default_value_t = TrainConfig::default().embed_lr)]
    pub embed_lr: f64,
    /// Share of the steps in which the rate falls.
    #[arg(long, default_value_t = TrainConfig::default().decay)]
    pub decay: f64,
    /// Share of the two-hop pairs that an epoch asks.
    #[arg(long, default_value_t = batch::Mix::default().two_hop)]
    pub two_hop: f64,
    /// Share of the articles that an epoch tells.
    #[arg(long, default_value_t = batch::Mix::default().articles)]
    pub articles: f64,
    /// Loss weight of an article's tokens (an answer's have 1).
    #[arg(long, default_value_t = batch::Mix::default().article_weight)]
    pub article_weight: f32,
    /// Seed of weights and order.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Seed of the corpus.
    #[arg(long, default_value_t = 1)]
    pub corpus_seed: u64,
    /// Tokens in the vocabulary.
    #[arg(long, default_value_t = 2048)]
    pub vocab: usize,
    /// Steps between checkpoints.
    #[arg(long, default_value_t = 200)]
    pub checkpoint_every: usize,
    /// Steps between looks at the accuracy.
    #[arg(long, default_value_t = 100)]
    pub probe_every: usize,
    /// Fact tables to use in place of the embedded ones: a folder of .tsv files.
    #[arg(long)]
    pub tables: Option<PathBuf>,
}

/// The corpus and the tokenizer of a run folder; the tokenizer is trained and saved if it is not there yet.
///
/// # Errors
/// When a table is malformed or a file cannot be read or written.
pub fn corpus_and_tokenizer(
    out: &Path,
    tables_dir: Option<&Path>,
    corpus_seed: u64,
    vocab: usize,
) -> anyhow::Result<(corpus::Corpus, tokenizers::Tokenizer)> {
    let tables = match tables_dir {
        Some(dir) => tables::from_dir(dir)?,
        None => tables::embedded()?,
    };
    let corpus = corpus::generate(&tables, corpus_seed);
    let path = out.join("tokenizer.json");
    let t = if path.exists() {
        tokenizers::Tokenizer::from_file(&path).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?
    } else {
        let t = tokenizer::train(vocab, &batch::tokenizer_texts(&corpus))?;
        t.save(&path, false).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?;
        t
    };
    Ok((corpus, t))
}

/// Trains to the end, or until Ctrl-C, which leaves a checkpoint.
///
/// # Errors
/// When a file cannot be read or written, or the loss becomes no number.
pub fn run(args: Args) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let device = args.device.open()?;
    let (corpus, t) = corpus_and_tokenizer(&args.out, args.tables.as_deref(), args.corpus_seed, args.vocab)?;
    let config = TrainConfig {
        steps: args.steps,
        rows: args.rows,
        len: args.len,
        matrix_lr: args.lr,
        embed_lr: args.embed_lr,
        decay: args.decay,
        seed: args.seed,
        mix: batch::Mix {
            two_hop: args.two_hop,
            articles: args.articles,
            article_weight: args.article_weight,
            ..batch::Mix::default()
        },
        ..TrainConfig::default()
    };
    let checkpoint_path = args.out.join("checkpoint.safetensors");
    let model_config = args.size.config(t.get_vocab_size(true));
    let trainer = if checkpoint_path.exists() {
        let c = checkpoint::load(&checkpoint_path, &device)?;
        anyhow::ensure!(c.meta.model == model_config, "the run in {} has another size of model", args.out.display());
        anyhow::ensure!(c.meta.corpus_seed == args.corpus_seed, "the run in {} has another corpus", args.out.display());
        eprintln!("resuming at step {}", c.meta.position.step);
        Trainer::resume(c.model, c.state, c.meta.position, config, &corpus, &t, &device)
    } else {
        Trainer::new(&model_config, config, &corpus, &t, &device)
    };
    eprintln!(
        "{} parameters; {} table facts, {} things to ask",
        model_config.parameters(),
        corpus.table_facts,
        corpus.facts.len()
    );
    drive(
        trainer,
        &args.out,
        args.corpus_seed,
        args.checkpoint_every,
        args.probe_every,
        &Probe::new(&corpus, &t, 400, 7)?,
        &device,
    )
}

/// Runs a trainer to its last step with progress bar, log, checkpoints and accuracy, stopping cleanly on Ctrl-C.
///
/// # Errors
/// When a file cannot be written or a step fails.
pub fn drive(
    mut trainer: Trainer<'_>,
    out: &Path,
    corpus_seed: u64,
    checkpoint_every: usize,
    probe_every: usize,
    probe: &Probe,
    device: &Device,
) -> anyhow::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            flag.store(true, Ordering::Relaxed);
        }
    });
    let log_path = out.join("log.jsonl");
    let mut log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log_path)
        .with_context(|| format!("cannot write {}", log_path.display()))?;
    let bar = indicatif::ProgressBar::new(trainer.config.steps as u64);
    bar.set_style(indicatif::ProgressStyle::with_template("{wide_bar} {pos}/{len} {elapsed} eta {eta} {msg}")?);
    bar.set_position(trainer.position.step as u64);
    let checkpoint_path = out.join("checkpoint.safetensors");
    let save = |t: &Trainer<'_>| {
        let meta = Meta { model: t.model.config.clone(), train: t.config.clone(), position: t.position, corpus_seed };
        checkpoint::save(&checkpoint_path, &meta, &t.model, &t.state)
    };
    let (start, mut tokens) = (std::time::Instant::now(), 0usize);
    while trainer.position.step < trainer.config.steps && !stop.load(Ordering::Relaxed) {
        let report = trainer.step()?;
        tokens += report.tokens;
        let rate = tokens as f64 / start.elapsed().as_secs_f64();
        writeln!(
            log,
            "{}",
            serde_json::json!({
                "step": report.step, "epoch": report.epoch, "loss": report.loss, "lr": report.rate * trainer.config.matrix_lr,
                "tokens_per_s": rate, "seconds": report.seconds,
            })
        )?;
        bar.set_position(report.step as u64);
        bar.set_message(format!("loss {:.3} {rate:.0} tok/s", report.loss));
        let last = report.step == trainer.config.steps;
        if report.step % probe_every == 0 || last {
            let exact = probe.run(&trainer.model, device)?;
            writeln!(log, "{}", serde_json::json!({"step": report.step, "exact": exact}))?;
            bar.suspend(|| eprintln!(
                "step {} epoch {} loss {:.3} {rate:.0} tok/s; exact answers: seen wordings {:.3}, held-out wordings {:.3}, held-out pairs {:.3}",
                report.step, report.epoch, report.loss, exact.seen, exact.single_hop, exact.two_hop
            ));
        }
        if report.step % checkpoint_every == 0 || last {
            save(&trainer)?;
        }
    }
    if stop.load(Ordering::Relaxed) {
        save(&trainer)?;
        bar.abandon_with_message("stopped; the same command goes on from here");
    } else {
        bar.finish();
    }
    Ok(())
}
