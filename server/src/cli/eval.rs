//! `tandem eval`: measures a model file with the engine that users run.

use anyhow::Context as _;
use engine::Engine;
use engine::config::Blueprint;
use engine::gguf::Gguf;
use lm::evaluate::Share;
use lm::manifest::{self, Accuracy, ModelEntry};
use lm::{corpus, evaluate, tables};
use sha2::{Digest as _, Sha256};
use std::path::PathBuf;

/// What `tandem eval` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The GGUF file.
    #[arg(long)]
    pub model: PathBuf,
    /// Questions of each sort, and articles.
    #[arg(long, default_value_t = 1000)]
    pub limit: usize,
    /// Seed of the sample.
    #[arg(long, default_value_t = 11)]
    pub seed: u64,
    /// Seed of the corpus.
    #[arg(long, default_value_t = 1)]
    pub corpus_seed: u64,
    /// Fact tables to use in place of the embedded ones: a folder of .tsv files.
    #[arg(long)]
    pub tables: Option<PathBuf>,
    /// Print the first wrong answers too.
    #[arg(long)]
    pub show: bool,
    /// Write the result into this manifest (with --id).
    #[arg(long, requires = "id")]
    pub manifest: Option<PathBuf>,
    /// The model's id in the manifest: full or compact.
    #[arg(long)]
    pub id: Option<String>,
}

/// Evaluates and prints; a JSON line on standard output holds everything.
///
/// # Errors
/// When the model or a table cannot be read, or the engine fails.
pub fn run(args: Args) -> anyhow::Result<()> {
    let bytes = std::fs::read(&args.model).with_context(|| format!("cannot read {}", args.model.display()))?;
    let mut engine = Engine::from_gguf_cpu(&bytes)?;
    let info = engine.info();
    let config = Blueprint::from_gguf(&Gguf::parse(&bytes)?)?.config;
    let cache_width = 2 * config.layers * config.kv_dim();
    let tables = match &args.tables {
        Some(dir) => tables::from_dir(dir)?,
        None => tables::embedded()?,
    };
    let corpus = corpus::generate(&tables, args.corpus_seed);
    let bar = indicatif::ProgressBar::new(4 * args.limit as u64);
    let report = evaluate::evaluate(&mut engine, &corpus, args.limit, args.seed, &|| bar.inc(1))?;
    bar.finish_and_clear();
    let told = |value: Option<f64>| value.map_or_else(|| "n/a".to_owned(), |value| format!("{value:.4}"));
    eprintln!(
        "{}: single-hop {} ({}/{}), two-hop {} ({}/{}), hallucination {} ({}/{} sentences; {} without {} repeats, \
         {} articles empty), says of {} ({}/{}) questions outside the Atlas that it does not know, and of {}/{} inside",
        args.model.display(),
        told(report.single_hop.value()),
        report.single_hop.hits,
        report.single_hop.of,
        told(report.two_hop.value()),
        report.two_hop.hits,
        report.two_hop.of,
        told(report.hallucination.value()),
        report.hallucination.hits,
        report.hallucination.of,
        told(report.told.rate()),
        report.told.repeats,
        report.told.empty_articles,
        told(report.admitted.value()),
        report.admitted.hits,
        report.admitted.of,
        report.refused.hits,
        report.refused.of,
    );
    if args.show {
        for m in &report.misses {
            eprintln!("  {} -> {} (expected {})", m.question, m.response, m.expected.join(", "));
        }
        for s in &report.unsupported {
            eprintln!("  unsupported: {s}");
        }
    }
    println!(
        "{}",
        serde_json::json!({
            "model": args.model, "bytes": bytes.len(), "parameters": info.parameters, "quantisation": info.quantisation,
            "single_hop": report.single_hop, "two_hop": report.two_hop, "hallucination": report.hallucination,
            "hallucination_without_repeats": report.told.rate(), "told": report.told,
            "admitted": report.admitted, "refused": report.refused,
        })
    );
    if let (Some(path), Some(id)) = (&args.manifest, args.id) {
        let round = |share: Share| -> anyhow::Result<f64> {
            let value = share.value().context("nothing was measured that the manifest could say")?;
            Ok((value * 1e4).round() / 1e4)
        };
        let sha256 = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        manifest::upsert(
            path,
            ModelEntry {
                name: info.name,
                file: args.model.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
                bytes: bytes.len() as u64,
                sha256,
                parameters: info.parameters,
                quantisation: info.quantisation.to_owned(),
                context_length: u32::try_from(info.context)?,
                cache_width: u32::try_from(cache_width)?,
                accuracy: Accuracy { single_hop: round(report.single_hop)?, two_hop: round(report.two_hop)? },
                hallucination: round(report.hallucination)?,
                licence: "Apache-2.0".into(),
                corpus_seed: args.corpus_seed,
                preferred: false,
                id,
            },
        )?;
    }
    Ok(())
}
