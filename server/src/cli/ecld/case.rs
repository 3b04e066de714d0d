//! `tandem ecld case`: the cases of a vectors file, computed.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use lm::ecld::case::Vectors;

/// What `tandem ecld case` takes.
///
/// Prints one JSON object a line for each case of the file, `id` and `result`, the latter in the shape of the case's
/// `expect`. A case that cannot be computed is named on standard error with the reason; the others are computed all the
/// same, and the exit status is not 0.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The vectors file: JSON with `models` and `cases`.
    #[arg(long)]
    pub vectors: PathBuf,
}

/// Reads, computes, prints.
///
/// # Errors
/// The file cannot be read, or a case cannot be computed.
pub fn run(args: Args) -> anyhow::Result<()> {
    let name = args.vectors.display();
    let text = std::fs::read_to_string(&args.vectors).with_context(|| format!("cannot read {name}"))?;
    let vectors = Vectors::parse(&text).with_context(|| format!("{name}"))?;
    let mut out = std::io::stdout().lock();
    let mut failed = 0;
    for case in vectors.cases() {
        match vectors.compute(case) {
            Ok(result) => writeln!(out, "{}", serde_json::json!({ "id": case.id, "result": result }))?,
            Err(error) => {
                failed += 1;
                eprintln!("{error}");
            }
        }
    }
    anyhow::ensure!(failed == 0, "{failed} of {} cases could not be computed", vectors.cases().len());
    Ok(())
}
