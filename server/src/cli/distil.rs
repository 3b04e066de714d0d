//! `tandem distil`: a compact student learns from a trained teacher.

use lm::batch::Mix;
use lm::checkpoint;
use lm::ecld::file::Archive;
use lm::heal;
use lm::run_folder::{Cadence, RunFolder};
use lm::train::{Distil, TrainConfig};
use std::path::PathBuf;

use super::progress;
use super::train_lm::{DeviceKind, Size};

/// What `tandem distil` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run folder of the teacher (`tandem train-lm --out`).
    #[arg(long)]
    pub teacher: PathBuf,
    /// Run folder of the student. A run that is there is resumed.
    #[arg(long)]
    pub out: PathBuf,
    /// Size of the student.
    #[arg(long, value_enum, default_value = "compact")]
    pub size: Size,
    /// Begin with the weights of this GGUF file of the teacher's tokenizer instead of fresh ones.
    #[arg(long, conflicts_with = "size")]
    pub init: Option<PathBuf>,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "cpu")]
    pub device: DeviceKind,
    /// Weight of the soft part: L = (1-alpha)·CE + alpha·tau²·KL(teacher‖student).
    #[arg(long, default_value_t = 0.5)]
    pub alpha: f32,
    /// Temperature tau of both sides; the KL is scaled by tau².
    #[arg(long, default_value_t = 2.0)]
    pub tau: f32,
    /// Optimizer steps in all.
    #[arg(long, default_value_t = 1500)]
    pub steps: usize,
    /// Rows in a batch.
    #[arg(long, default_value_t = TrainConfig::default().rows)]
    pub rows: usize,
    /// Peak learning rate of the matrices.
    #[arg(long, default_value_t = 0.008)]
    pub lr: f64,
    /// Peak learning rate of the embedding and the norms.
    #[arg(long, default_value_t = 0.008)]
    pub embed_lr: f64,
    /// Share of the two-hop pairs that an epoch asks.
    #[arg(long, default_value_t = Mix::default().two_hop)]
    pub two_hop: f64,
    /// Share of the articles that an epoch tells.
    #[arg(long, default_value_t = Mix::default().articles)]
    pub articles: f64,
    /// Questions that the Atlas does not answer, as a share of all that an epoch asks besides.
    #[arg(long, default_value_t = Mix::default().unknown)]
    pub unknown: f64,
    /// Share of the steps in which the rate falls.
    #[arg(long, default_value_t = TrainConfig::default().decay)]
    pub decay: f64,
    /// Seed of weights and order.
    #[arg(long, default_value_t = 2)]
    pub seed: u64,
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

/// Distils to the end, or until Ctrl-C, which leaves a checkpoint.
///
/// # Errors
/// When a file cannot be read or written, or the loss becomes NaN or infinite.
pub fn run(args: Args) -> anyhow::Result<()> {
    let device = args.device.open()?;
    let teacher = checkpoint::load(&args.teacher.join("checkpoint.safetensors"), &device)?;
    let folder = RunFolder::create(&args.out)?;
    folder.take_tokenizer(&args.teacher)?;
    let (corpus, tokenizer) =
        folder.corpus_and_tokenizer(args.tables.as_deref(), teacher.meta.corpus_seed, teacher.meta.model.vocab)?;
    let config = TrainConfig {
        steps: args.steps,
        rows: args.rows,
        matrix_lr: args.lr,
        embed_lr: args.embed_lr,
        seed: args.seed,
        decay: args.decay,
        mix: Mix { two_hop: args.two_hop, articles: args.articles, unknown: args.unknown, ..Mix::default() },
        ..TrainConfig::default()
    };
    let start = args.init.as_deref().map(|file| heal::load(&Archive::open(file)?, &device)).transpose()?;
    let fresh = || args.size.config(teacher.meta.model.vocab);
    let model = start.as_ref().map_or_else(fresh, |start| start.config.clone());
    let trainer = folder.trainer(&model, start, config, &corpus, &tokenizer, &device)?;
    eprintln!("{} parameters learn from {}", model.parameters(), teacher.meta.model.parameters());
    let distil = Distil { teacher: teacher.model, alpha: args.alpha, temperature: args.tau };
    let cadence = Cadence { checkpoint: args.checkpoint_every, probe: args.probe_every };
    progress::train_from_scratch(&folder, trainer.with_teacher(distil), &corpus, &tokenizer, cadence, &device)
}
