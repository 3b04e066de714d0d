//! `tandem train-lm`: trains a language model on the Atlas corpus from scratch.

use burn::tensor::Device;
use lm::batch::Mix;
use lm::ecld::file::Archive;
use lm::heal;
use lm::model::LlamaConfig;
use lm::run_folder::{Cadence, RunFolder};
use lm::train::TrainConfig;
use std::path::PathBuf;

use super::progress;

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
    /// Begin with the weights of this GGUF file (and the tokenizer.json beside it) instead of fresh ones.
    #[arg(long, conflicts_with = "size")]
    pub init: Option<PathBuf>,
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
    #[arg(long, default_value_t = Mix::default().two_hop)]
    pub two_hop: f64,
    /// Share of the articles that an epoch tells.
    #[arg(long, default_value_t = Mix::default().articles)]
    pub articles: f64,
    /// Loss weight of an article's tokens (an answer's have 1).
    #[arg(long, default_value_t = Mix::default().article_weight)]
    pub article_weight: f32,
    /// Questions that the Atlas does not answer, as a share of all that an epoch asks besides.
    #[arg(long, default_value_t = Mix::default().unknown)]
    pub unknown: f64,
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

/// Trains to the end, or until Ctrl-C, which leaves a checkpoint.
///
/// # Errors
/// When a file cannot be read or written, or the loss becomes NaN or infinite.
pub fn run(args: Args) -> anyhow::Result<()> {
    let device = args.device.open()?;
    let folder = RunFolder::create(&args.out)?;
    let start = args.init.as_deref().map(|file| heal::load(&Archive::open(file)?, &device)).transpose()?;
    if let Some(file) = &args.init {
        folder.take_tokenizer(file.parent().unwrap_or(file))?;
    }
    let (corpus, tokenizer) = folder.corpus_and_tokenizer(args.tables.as_deref(), args.corpus_seed, args.vocab)?;
    let config = TrainConfig {
        steps: args.steps,
        rows: args.rows,
        len: args.len,
        matrix_lr: args.lr,
        embed_lr: args.embed_lr,
        decay: args.decay,
        seed: args.seed,
        mix: Mix {
            two_hop: args.two_hop,
            articles: args.articles,
            article_weight: args.article_weight,
            unknown: args.unknown,
            ..Mix::default()
        },
        ..TrainConfig::default()
    };
    let fresh = || args.size.config(tokenizer.get_vocab_size(true));
    let model = start.as_ref().map_or_else(fresh, |start| start.config.clone());
    let trainer = folder.trainer(&model, start, config, &corpus, &tokenizer, &device)?;
    eprintln!(
        "{} parameters; {} table facts, {} things to ask",
        model.parameters(),
        corpus.table_facts,
        corpus.facts.len()
    );
    let cadence = Cadence { checkpoint: args.checkpoint_every, probe: args.probe_every };
    progress::train_from_scratch(&folder, trainer, &corpus, &tokenizer, cadence, &device)
}
