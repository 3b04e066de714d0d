//! `tandem ecld quantise`: a GGUF file in fewer bits.

use std::path::PathBuf;

use anyhow::Context as _;
use engine::gguf::GgmlType;
use lm::ecld::encode::{Fit, WRITTEN};
use lm::ecld::file::Archive;
use lm::ecld::quantise::{self, Scheme};

use super::{Watch, report_path, write_json};

/// What `tandem ecld quantise` takes.
///
/// As llama.cpp's `llama-quantize INPUT OUTPUT TYPE`, with scales that are searched for: the same bytes, less squared error.
/// Rows that are no whole blocks of a K type become Q5_0 or, of the types of 2 and 3 bits, IQ4_NL, as there. The report
/// beside the output holds both errors.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The GGUF file: F32, F16 or BF16 is best, a quantised one is quantised again.
    pub model: PathBuf,
    /// The GGUF file to write.
    pub out: PathBuf,
    /// Q4_0, Q4_1, Q5_0, Q8_0, Q4_K, Q3_K, Q2_K, IQ4_NL, F16, BF16, F32; or uniform-BITS-GROUP (uniform-4-64): the paper's
    /// quantiser, whose values are written back as F32 to be compared (simulated: no file format has it).
    pub r#type: String,
    /// Type of the token embedding; by default the same.
    #[arg(long, value_parser = named)]
    pub token_embedding_type: Option<GgmlType>,
    /// Type of the output head, where it is not the embedding; by default the same.
    #[arg(long, value_parser = named)]
    pub output_tensor_type: Option<GgmlType>,
    /// Scales from the ends of the range, as llama.cpp's reference encoders take them, instead of searched ones.
    #[arg(long)]
    pub min_max: bool,
}

fn named(name: &str) -> anyhow::Result<GgmlType> {
    let wanted = name.to_ascii_uppercase();
    // llama.cpp's names of whole files.
    let wanted = match wanted.as_str() {
        "Q4_K_S" | "Q4_K_M" => "Q4_K",
        "Q3_K_S" | "Q3_K_M" | "Q3_K_L" => "Q3_K",
        "Q2_K_S" => "Q2_K",
        other => other,
    };
    let found = WRITTEN.into_iter().find(|dtype| dtype.name() == wanted);
    found.with_context(|| format!("no type {name} is written: there are {}", WRITTEN.map(GgmlType::name).join(", ")))
}

impl Args {
    fn scheme(&self) -> anyhow::Result<Scheme> {
        let fit = if self.min_max { Fit::Plain } else { Fit::Searched };
        if let Some(rest) = self.r#type.strip_prefix("uniform-") {
            let parts = rest.split_once('-').and_then(|(bits, group)| Some((bits.parse().ok()?, group.parse().ok()?)));
            let (bits, group) = parts.context("write uniform-BITS-GROUP, as uniform-4-64")?;
            anyhow::ensure!(
                (1..=8).contains(&bits) && group > 0,
                "between 1 and 8 bits, and a group of at least 1 weight"
            );
            return Ok(Scheme::Uniform { bits, group, fit });
        }
        let matrices = named(&self.r#type)?;
        Ok(Scheme::Blocks {
            matrices,
            embedding: self.token_embedding_type.unwrap_or(matrices),
            output: self.output_tensor_type.unwrap_or(matrices),
            fit,
        })
    }
}

/// Quantises and writes.
///
/// # Errors
/// The type is not known, the file cannot be read or written, or a weight is no number.
pub fn run(args: Args) -> anyhow::Result<()> {
    let scheme = args.scheme()?;
    let archive = Archive::open(&args.model)?;
    let watch = Watch::bytes(archive.tensor_bytes())?;
    let report = quantise::quantise(&archive, scheme, &args.out, &mut |by| watch.tick(by))?;
    watch.bar.finish_and_clear();
    let path = report_path(&args.out);
    write_json(&path, &serde_json::to_value(&report)?)?;
    for warning in &report.warnings {
        eprintln!("warning: {warning}");
    }
    let [before, after] = report.tensor_bytes;
    let simulated = if report.simulated { " (simulated)" } else { "" };
    println!(
        "{}: {before} -> {after} bytes of tensors, {:.3} bits a weight{simulated}",
        args.out.display(),
        report.bits_per_weight
    );
    println!("NMSE {:.4e} (min-max: {:.4e})", report.nmse, report.nmse_plain);
    println!("report: {}", path.display());
    Ok(())
}
