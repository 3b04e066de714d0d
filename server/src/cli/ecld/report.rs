//! `tandem ecld report`: a family of compact models of the shipped teacher, judged, as `ecld.md` with its figures.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use indicatif::{ProgressBar, ProgressStyle};
use lm::ecld::file::{Archive, write_atomically};
use lm::family::{Controls, Family, Settings, Watch, recipes};
use lm::heal::Lecture;
use lm::{corpus, tables};

use super::adapters::Adapters;
use super::distil::How;
use crate::cli::progress;
use crate::cli::train_lm::DeviceKind;
use crate::figures::Figure;
use crate::figures::compact::{Report, charts, text};

/// What `tandem ecld report` takes.
///
/// Makes and judges, in --work: the teacher quantised only; cut, not healed; cut and distilled; cut, distilled, with the
/// quantiser in the loop and quantised; and the controls that were asked for, with the same tokens. What is there is not made
/// again, and what is stopped goes on: the same command again. It takes as long as its trainings. With --lora-rank the deepest
/// cut is healed through adapters of low rank too, merged before it is quantised.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The teacher: a GGUF file that knows the Atlas corpus.
    #[arg(long, default_value = "public/models/full.gguf")]
    pub teacher: PathBuf,
    /// Folder in which files are made.
    #[arg(long, default_value = "target/ecld")]
    pub work: PathBuf,
    /// Folder that the report is written into.
    #[arg(short, long, default_value = "public/reports")]
    pub out: PathBuf,
    /// Shares of the parameters that are cut, percent.
    #[arg(long, value_delimiter = ',', default_value = "25,50", value_parser = clap::value_parser!(u32).range(1..90))]
    pub cuts: Vec<u32>,
    /// With the deepest student's shape from random weights.
    #[arg(long)]
    pub random_control: bool,
    /// With the whole teacher quantised to 2 bits in the loop, which takes twice as long as a student.
    #[arg(long)]
    pub trained_control: bool,
    /// With the whole teacher trained on with the same tokens.
    #[arg(long)]
    pub trained_on_control: bool,
    #[command(flatten)]
    pub adapters: Adapters,
    /// Trainings of the deepest cut, and of --trained-control, each with another seed.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=20))]
    pub trainings: u64,
    /// Steps with the quantiser in the loop, after --steps without.
    #[arg(long, default_value_t = 150)]
    pub loop_steps: usize,
    /// Questions of each sort, and articles.
    #[arg(long, default_value_t = 1000)]
    pub limit: usize,
    /// Seed of what is asked.
    #[arg(long, default_value_t = 11)]
    pub ask_seed: u64,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "cpu")]
    pub device: DeviceKind,
    /// A sentence for the report: where and when it was run.
    #[arg(long, default_value = "")]
    pub how: String,
    #[command(flatten)]
    pub learn: How,
}

/// A bar for each thing that is made.
struct Bars(ProgressBar);

impl Watch for Bars {
    fn begin(&self, what: &str, total: u64) {
        self.0.reset();
        self.0.set_length(total);
        self.0.set_message(what.to_owned());
    }

    fn advance(&self, by: u64) {
        self.0.inc(by);
    }

    fn note(&self, text: &str) {
        self.0.suspend(|| eprintln!("{text}"));
    }
}

/// Makes, judges, writes.
///
/// # Errors
/// The teacher cannot be read or does not know the corpus' tokens, a training fails, or a file cannot be written.
pub fn run(args: Args) -> anyhow::Result<()> {
    let device = args.device.open()?;
    std::fs::create_dir_all(&args.work)?;
    let teacher = Archive::open(&args.teacher)?;
    let words = Lecture::words(&teacher, &teacher)?;
    let corpus = corpus::generate(&tables::embedded()?, 1);
    let settings = Settings {
        healing: args.learn.options(),
        loop_steps: args.loop_steps,
        lora: args.adapters.sizes().unwrap_or_default(),
        limit: args.limit,
        seed: args.ask_seed,
    };
    let stop: Arc<AtomicBool> = progress::stop_on_ctrl_c("stopping; the same command goes on from here")?;
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} {per_sec} eta {eta} {msg}")?);
    let watch = Bars(bar);
    let family = Family {
        teacher: &teacher,
        work: &args.work,
        corpus: &corpus,
        words: &words,
        settings: &settings,
        device: &device,
        stop: &stop,
        watch: &watch,
    };
    let controls = Controls {
        random: args.random_control,
        trained: args.trained_control,
        trained_on: args.trained_on_control,
        lora: args.adapters.lora_rank.is_some(),
        draws: args.trainings,
    };
    let mut made = Vec::new();
    for recipe in recipes(&args.cuts, controls) {
        let one = family.make(&recipe)?;
        watch.note(&format!("{}: {} bytes, mean NLL {:.4}", recipe.id, one.judged.bytes, one.judged.mean_nll));
        made.push((recipe, one));
    }
    let report = Report::new(&family, made)?;
    watch.0.finish_and_clear();
    for (metric, stem, name) in [
        (0, "ecld-single", "Single-hop accuracy"),
        (1, "ecld-two", "Two-hop accuracy"),
        (2, "ecld-hallucination", "Hallucination"),
    ] {
        let chart = charts::quality_over_bytes(&report, metric, name);
        Figure::new(stem, chart.svg(), &chart)?.write(&args.out)?;
    }
    let chart = charts::efficiency(&report);
    Figure::new("ecld-fig6", chart.svg(), &chart)?.write(&args.out)?;
    let json = serde_json::to_string_pretty(&report)?;
    write_atomically(&args.out.join("ecld.json"), (json + "\n").as_bytes())?;
    let path = args.out.join("ecld.md");
    write_atomically(&path, text::markdown(&report, &args.how).as_bytes())?;
    println!("{}", path.display());
    Ok(())
}
