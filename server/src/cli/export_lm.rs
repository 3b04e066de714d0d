//! `tandem export-lm`: writes a training checkpoint as a GGUF file.

use anyhow::Context as _;
use burn::tensor::Device;
use engine::gguf::GgmlType;
use lm::checkpoint;
use lm::export::{self, Scheme};
use std::path::PathBuf;

/// Storage of the matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Quantisation {
    /// Single precision.
    F32,
    /// Eight bits, blocks of 32.
    Q8_0,
    /// Four bits, blocks of 32; the embedding too.
    Q4_0,
    /// Four bits, the embedding with eight.
    Q4_0EmbeddingQ8_0,
}

impl Quantisation {
    /// What it means for each sort of tensor.
    pub fn scheme(self) -> Scheme {
        let (matrices, embedding) = match self {
            Self::F32 => (GgmlType::F32, GgmlType::F32),
            Self::Q8_0 => (GgmlType::Q8_0, GgmlType::Q8_0),
            Self::Q4_0 => (GgmlType::Q4_0, GgmlType::Q4_0),
            Self::Q4_0EmbeddingQ8_0 => (GgmlType::Q4_0, GgmlType::Q8_0),
        };
        Scheme { matrices, embedding }
    }
}

/// What `tandem export-lm` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run folder of `train-lm` or `distil`.
    #[arg(long)]
    pub run: PathBuf,
    /// The GGUF file to write.
    #[arg(long)]
    pub out: PathBuf,
    /// Storage of the matrices.
    #[arg(long, value_enum, default_value = "q8-0")]
    pub quantisation: Quantisation,
    /// Name inside the file.
    #[arg(long, default_value = "Atlas")]
    pub name: String,
}

/// Reads the checkpoint, quantises and writes.
///
/// # Errors
/// When a file cannot be read or written.
pub fn run(args: Args) -> anyhow::Result<()> {
    let c = checkpoint::load(&args.run.join("checkpoint.safetensors"), &Device::flex())?;
    let path = args.run.join("tokenizer.json");
    let t = tokenizers::Tokenizer::from_file(&path).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?;
    let bytes = export::gguf(&c.model, &t, &args.name, args.quantisation.scheme())?;
    std::fs::write(&args.out, &bytes).with_context(|| format!("cannot write {}", args.out.display()))?;
    println!(
        "{}: {} bytes, {} parameters, step {}",
        args.out.display(),
        bytes.len(),
        c.model.config.parameters(),
        c.meta.position.step
    );
    Ok(())
}
