//! `tandem bench-tokens`: whether texts are cut as llama.cpp cuts them; see [`bench::tokens`](crate::bench::tokens).

use std::path::PathBuf;

use anyhow::Context as _;
use engine::Tokenizer;
use engine::gguf::Gguf;

use crate::bench::tokens::{Count, Report, compare, corpus};

/// What `tandem bench-tokens` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model, a GGUF file.
    gguf: PathBuf,
    /// Address of llama.cpp's server with the same file.
    #[arg(long, value_name = "URL")]
    beside: String,
    /// Strings, of all kinds in turn.
    #[arg(long, default_value_t = 2400, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    strings: u32,
    /// Seed of the strings.
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    seed: u64,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Runs the comparison.
///
/// # Errors
/// The file is no model, or the server does not answer as llama.cpp's does.
pub fn run(args: Args) -> anyhow::Result<()> {
    let bytes = std::fs::read(&args.gguf).with_context(|| format!("cannot read {}", args.gguf.display()))?;
    let gguf = Gguf::parse(&bytes).with_context(|| format!("{} is no model file", args.gguf.display()))?;
    let tokenizer = Tokenizer::from_gguf(&gguf)?;
    let strings = corpus(args.strings as usize, args.seed);
    crate::tls::install_provider();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bar = indicatif::ProgressBar::new(strings.len() as u64);
    let report = runtime.block_on(compare(&tokenizer, &args.beside, &strings, |done| bar.set_position(done as u64)));
    bar.finish_and_clear();
    let report = report?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", told(&report));
    }
    Ok(())
}

fn told(report: &Report) -> String {
    let row = |name: &str, count: &Count| {
        format!("{name:<16} {:>8} {:>8} {:>8}\n", count.strings, count.equal, count.refused)
    };
    let mut text = format!("{:<16} {:>8} {:>8} {:>8}\n", "kind", "strings", "equal", "refused");
    for (kind, count) in &report.kinds {
        text += &row(&format!("{kind:?}").to_lowercase(), count);
    }
    text += &row("all", &report.all());
    for difference in &report.differing {
        text += &format!("\n{:?}\n  ours   {:?}\n  theirs {:?}\n", difference.text, difference.ours, difference.theirs);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::tokens::{Difference, Kind};

    #[test]
    fn differences_are_shown_under_the_counts() {
        let report = Report {
            kinds: [
                (Kind::Cjk, Count { strings: 3, equal: 2, refused: 0 }),
                (Kind::Emoji, Count { strings: 3, equal: 2, refused: 1 }),
            ]
            .into(),
            differing: vec![Difference { text: "漢\n".into(), ours: vec![1], theirs: vec![2, 3] }],
        };
        let text = told(&report);
        for line in [
            "cjk                     3        2        0",
            "all                     6        4        1",
            "\"漢\\n\"",
            "  theirs [2, 3]",
        ] {
            assert!(text.lines().any(|it| it == line), "{line:?} is not in\n{text}");
        }
    }
}
