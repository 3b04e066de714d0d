//! `tandem corpus`: writes the Atlas corpus as JSON lines.

use anyhow::Context as _;
use lm::batch::ARTICLE_FACTS;
use lm::corpus::{self, Hops};
use lm::tables;
use lm::unknown::ANSWER;
use rand::SeedableRng;
use std::io::Write as _;
use std::path::PathBuf;

/// What `tandem corpus` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder for articles.jsonl, train.jsonl, held_out.jsonl and unknown.jsonl; made if it is not there.
    #[arg(long)]
    pub out: PathBuf,
    /// Seed of everything that is random.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Fact tables to use in place of the embedded ones: a folder of .tsv files.
    #[arg(long)]
    pub tables: Option<PathBuf>,
}

/// Writes the corpus and prints its size.
///
/// # Errors
/// When a table is malformed or a file cannot be written.
pub fn run(args: Args) -> anyhow::Result<()> {
    let tables = match &args.tables {
        Some(dir) => tables::from_dir(dir)?,
        None => tables::embedded()?,
    };
    let corpus = corpus::generate(&tables, args.seed);
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let open = |name: &str| -> anyhow::Result<std::io::BufWriter<std::fs::File>> {
        let path = args.out.join(name);
        Ok(std::io::BufWriter::new(
            std::fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?,
        ))
    };
    let (mut train, mut held, mut articles) = (open("train.jsonl")?, open("held_out.jsonl")?, open("articles.jsonl")?);
    let mut counts = [0usize; 4];
    for fact in &corpus.facts {
        for (question, wording_held) in fact.wordings() {
            let out = fact.held_out || wording_held;
            let line = serde_json::json!({
                "key": fact.key, "hops": fact.hops, "question": question, "answer": fact.answer,
                "expect": fact.expect, "held_out_pair": fact.held_out, "held_out_wording": wording_held,
            });
            writeln!(if out { &mut held } else { &mut train }, "{line}")?;
            counts[usize::from(out) + if fact.hops == Hops::Two { 2 } else { 0 }] += 1;
        }
    }
    let mut rng = rand_xoshiro::Xoshiro256PlusPlus::seed_from_u64(args.seed);
    for article in &corpus.articles {
        let line = serde_json::json!({"key": article.key, "opening": article.opening, "text": article.tell(ARTICLE_FACTS, &mut rng)});
        writeln!(articles, "{line}")?;
    }
    let mut unknown = open("unknown.jsonl")?;
    for asked in &corpus.unknown {
        let line = serde_json::json!({
            "question": asked.question, "answer": ANSWER, "sort": asked.sort, "held_out": asked.held_out,
        });
        writeln!(unknown, "{line}")?;
    }
    for writer in [&mut train, &mut held, &mut articles, &mut unknown] {
        writer.flush()?;
    }
    let of = |hops: Hops| corpus.facts.iter().filter(|f| f.hops == hops).count();
    println!("{} tables, {} facts, {} articles", tables.len(), corpus.table_facts, corpus.articles.len());
    for t in &tables {
        println!("  {:<16} {:>4} entities {:>5} facts", t.name, t.rows.len(), t.facts());
    }
    println!(
        "single-hop: {} askable facts (questions back from a value included), {} training wordings, {} held out",
        of(Hops::Single),
        counts[0],
        counts[1]
    );
    println!(
        "two-hop: {} pairs ({} held out), {} training wordings, {} held out; {} ambiguous questions left out",
        of(Hops::Two),
        corpus.facts.iter().filter(|f| f.held_out).count(),
        counts[2],
        counts[3],
        corpus.ambiguous
    );
    let held = corpus.unknown.iter().filter(|asked| asked.held_out).count();
    println!("outside the Atlas: {} training questions, {held} held out", corpus.unknown.len() - held);
    Ok(())
}
