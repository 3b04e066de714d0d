//! `tandem ecld distil`: a pruned model learns from the one that it was cut from.

use std::path::PathBuf;

use lm::batch::Mix;
use lm::ecld::file::Archive;
use lm::heal::{Course, Lecture, Options};
use lm::probe::Probe;
use lm::run_folder::Cadence;
use lm::train::TrainConfig;
use lm::{corpus, tables};

use super::adapters::Adapters;
use crate::cli::progress;
use crate::cli::train_lm::DeviceKind;

/// What `tandem ecld distil` takes.
///
/// L = (1-alpha)·CE + alpha·tau²·KL(teacher ‖ student) over answers and articles of the Atlas corpus. The teacher's most likely
/// tokens are computed once an epoch and kept on disk (--record), for all students that learn from the same documents. A run
/// that is there is resumed to the same curve; at its end DIR holds student.gguf in single precision: quantise that.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The pruned GGUF file.
    pub student: PathBuf,
    /// The GGUF file that it learns from; of the same vocabulary.
    #[arg(long)]
    pub teacher: PathBuf,
    /// Folder of the run: run.json, checkpoint.safetensors, log.jsonl, student.gguf.
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
    /// Folder of what the teacher said; by default within the run's. Give several students one.
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "cpu")]
    pub device: DeviceKind,
    #[command(flatten)]
    pub how: How,
    /// Round matrices on their way through the model (straight-through): Q4_0, Q4_1, Q5_0, Q8_0, Q4_K, uniform-BITS-GROUP.
    #[arg(long, value_name = "TYPE")]
    pub quantiser_in_loop: Option<String>,
    /// Begin from random weights of the same sizes: the control that tells what the inherited ones are worth.
    #[arg(long)]
    pub random: bool,
    #[command(flatten)]
    pub adapters: Adapters,
    /// Write adapters as a file of their own instead of merging them. --quantiser-in-loop then rounds the frozen weights, once, as
    /// the quantised file holds them that the adapters go with.
    #[arg(long, requires = "lora_rank")]
    pub lora_keep: bool,
    /// Steps between checkpoints.
    #[arg(long, default_value_t = 100)]
    pub checkpoint_every: usize,
    /// Steps between looks at the accuracy; 0 for none but the last.
    #[arg(long, default_value_t = 200)]
    pub probe_every: usize,
    /// Seed of the corpus.
    #[arg(long, default_value_t = 1)]
    pub corpus_seed: u64,
    /// Fact tables to use in place of the embedded ones: a folder of .tsv files.
    #[arg(long)]
    pub tables: Option<PathBuf>,
}

/// How a student learns.
#[derive(Debug, Clone, clap::Args)]
pub struct How {
    /// Weight of the soft part.
    #[arg(long, default_value_t = 0.7)]
    pub alpha: f32,
    /// Temperature tau of both sides.
    #[arg(long, default_value_t = 1.0)]
    pub tau: f32,
    /// The teacher's most likely tokens that are kept a position; all others count as one.
    #[arg(long, default_value_t = 16)]
    pub top_k: usize,
    /// Optimizer steps in all.
    #[arg(long, default_value_t = 600)]
    pub steps: usize,
    /// Rows in a batch.
    #[arg(long, default_value_t = TrainConfig::default().rows)]
    pub rows: usize,
    /// Tokens in a row; longer documents are cut.
    #[arg(long, default_value_t = TrainConfig::default().len)]
    pub len: usize,
    /// Peak learning rate of the matrices.
    #[arg(long, default_value_t = 0.004)]
    pub lr: f64,
    /// Peak learning rate of the embedding and the norms.
    #[arg(long, default_value_t = 0.004)]
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
    /// Questions that the Atlas does not answer, as a share of all that an epoch asks besides.
    #[arg(long, default_value_t = Mix::default().unknown)]
    pub unknown: f64,
    /// Epochs after which the same documents come again: so many are recorded.
    #[arg(long, default_value_t = 12)]
    pub pool: u64,
    /// Seed of the order, and of random weights.
    #[arg(long, default_value_t = 3)]
    pub seed: u64,
}

impl How {
    /// As the library has them, without a quantiser in the loop and from the file's weights.
    pub fn options(&self) -> Options {
        Options {
            train: TrainConfig {
                steps: self.steps,
                rows: self.rows,
                len: self.len,
                matrix_lr: self.lr,
                embed_lr: self.embed_lr,
                warmup: 20.min(self.steps),
                decay: self.decay,
                seed: self.seed,
                mix: Mix { two_hop: self.two_hop, articles: self.articles, unknown: self.unknown, ..Mix::default() },
                pool: Some(self.pool),
            },
            alpha: self.alpha,
            tau: self.tau,
            top_k: self.top_k,
            in_loop: None,
            random: false,
            lora: None,
            keep_adapters: false,
        }
    }
}

/// Distils to the end, or until Ctrl-C, which leaves a checkpoint.
///
/// # Errors
/// A file cannot be read or written, student and teacher do not belong together, or the loss becomes no number.
pub fn run(args: Args) -> anyhow::Result<()> {
    let device = args.device.open()?;
    let (student, teacher) = (Archive::open(&args.student)?, Archive::open(&args.teacher)?);
    let words = Lecture::words(&student, &teacher)?;
    let tables = match &args.tables {
        Some(folder) => tables::from_dir(folder)?,
        None => tables::embedded()?,
    };
    let corpus = corpus::generate(&tables, args.corpus_seed);
    let options = Options {
        in_loop: args.quantiser_in_loop.clone(),
        random: args.random,
        lora: args.adapters.sizes(),
        keep_adapters: args.lora_keep,
        ..args.how.options()
    };
    let record = args.record.clone().unwrap_or_else(|| args.out.join("record"));
    let lecture = Lecture {
        student: &student,
        teacher: &teacher,
        corpus: &corpus,
        words: &words,
        options: &options,
        record: &record,
    };
    let stop = progress::stop_on_ctrl_c("stopping after this step; a checkpoint is written")?;
    let bar = progress::training_bar(options.train.steps)?;
    let reading = bar.clone();
    let tell = Box::new(move |read: usize, of: usize| {
        reading.set_message(format!("the teacher reads the epoch's documents: {read} of {of}"));
        reading.tick();
    });
    let Course { folder, trainer } = lecture.course(&args.out, &device, &stop, tell)?;
    let learning = trainer.lora.as_ref().map_or_else(|| trainer.model.config.parameters(), lm::lora::Lora::parameters);
    eprintln!("{learning} of {} parameters learn from {}", trainer.model.config.parameters(), teacher.parameters());
    let probe = Probe::new(&corpus, &words, 400, 7)?;
    let cadence = Cadence { checkpoint: args.checkpoint_every, probe: args.probe_every };
    let trained = progress::train(&folder, trainer, &probe, cadence, &device, (&bar, &stop))?;
    eprintln!(
        "{} tokens in {:.0} s, the teacher's reading included: {:.0} tokens/s",
        trained.tokens,
        trained.seconds,
        trained.rate()
    );
    if trained.finished {
        let file = Course::finish(&student, &folder, &options, &args.out, &device)?;
        println!("{}", file.display());
    }
    Ok(())
}
