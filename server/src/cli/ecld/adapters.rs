//! Options of adapters of low rank, and `tandem ecld merge`.

use std::path::PathBuf;

use burn::tensor::Device;
use lm::ecld::file::Archive;
use lm::{heal, lora};

/// Sizes of adapters.
#[derive(Debug, Clone, clap::Args)]
pub struct Adapters {
    /// Train only adapters of this rank (LoRA), with the weights frozen.
    #[arg(long, value_name = "RANK")]
    pub lora_rank: Option<usize>,
    /// What adapters count: alpha / rank.
    #[arg(long, value_name = "ALPHA", default_value_t = lora::Adapters::default().alpha)]
    pub lora_alpha: f32,
    /// Matrices of every block that have one.
    #[arg(long, value_name = "NAME,NAME…", value_delimiter = ',', default_value = "q,k,v,o,gate,up,down")]
    pub lora_targets: Vec<lora::Target>,
}

impl Adapters {
    /// As the library has them; `None` without a rank.
    pub fn sizes(&self) -> Option<lora::Adapters> {
        let rank = self.lora_rank?;
        let mut targets = self.lora_targets.clone();
        targets.sort_unstable();
        targets.dedup();
        Some(lora::Adapters { rank, alpha: self.lora_alpha, targets })
    }
}

/// What `tandem ecld merge` takes.
///
/// The adapter is a GGUF file in llama.cpp's layout, as `tandem ecld distil --lora-keep` writes it. The merged model is in single
/// precision: quantise it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The GGUF file that the adapter was trained on.
    pub model: PathBuf,
    /// The adapter.
    pub adapter: PathBuf,
    /// The GGUF file to write.
    #[arg(short, long)]
    pub out: PathBuf,
}

/// Merges and writes.
///
/// # Errors
/// A file cannot be read or written, or the adapter is another model's.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let base = Archive::open(&args.model)?;
    let adapters = heal::merge(&base, &args.adapter, &args.out, &Device::flex())?;
    eprintln!("rank {}, alpha {}, {} matrices of every block", adapters.rank, adapters.alpha, adapters.targets.len());
    println!("{}", args.out.display());
    Ok(())
}
