//! `tandem bench-engine`: how fast the engine is on this machine; see [`bench::engine`](crate::bench::engine).

use anyhow::{Context, Result};
use engine::backend::MAX_ROWS;
use engine::gguf::Gguf;
use engine::weights::ModelWeights;

use crate::bench::engine::{
    BackendName, KernelShare, ModelSize, PackedPrefill, Profile, RandomBytes, Report, Settings, measure, random_weights,
};

/// What `tandem bench-engine` takes.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where to compute.
    #[arg(long, value_enum, default_value_t = BackendName::Vulkan)]
    backend: BackendName,
    /// Sizes of the model, whose weights are random, in Q4_0.
    #[arg(long, value_enum, default_value_t = ModelSize::Smollm2_135m)]
    shape: ModelSize,
    /// A model file instead of random weights.
    #[arg(long, conflicts_with = "shape")]
    gguf: Option<std::path::PathBuf>,
    /// Tokens of the prompt.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    prompt: u32,
    /// Tokens to decode.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    tokens: u32,
    /// Threads that compute a pass together; only with --backend cpu.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// Also take parts of the kernels that compute in half precision, where the device has it.
    #[arg(long)]
    half: bool,
    /// Also time the prompt with packed 4x8-bit products and without, whichever the self-test found faster.
    #[arg(long)]
    packed: bool,
    /// Also print what every kernel takes, for a token and for the prompt's first part; only with --backend vulkan.
    #[arg(long)]
    profile: bool,
    /// Seed of random weights and of the prompt.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

impl Args {
    fn settings(&self) -> Settings {
        Settings {
            backend: self.backend,
            prompt: self.prompt as usize,
            tokens: self.tokens as usize,
            threads: self.threads.into(),
            half: self.half,
            packed: self.packed,
            profile: self.profile,
            seed: self.seed,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// There is no such device, the model does not fit it, or the file is none.
pub fn run(args: Args) -> Result<()> {
    let settings = args.settings();
    let report = match &args.gguf {
        Some(path) => {
            let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            let gguf = Gguf::parse(&bytes).with_context(|| format!("{} is no model file", path.display()))?;
            measure(&settings, &ModelWeights::from_gguf(&gguf)?)?
        }
        None => {
            let bytes = RandomBytes::new(&args.shape.config().0, args.seed);
            measure(&settings, &random_weights(args.shape, &bytes))?
        }
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

fn print(report: &Report) {
    let kernels = if report.kernels.is_empty() { "baseline".to_owned() } else { report.kernels.join(", ") };
    println!("{} on {} ({kernels})", report.model, report.device);
    println!("  parameters            {:>12}", report.parameters);
    println!("  load                  {:>12.2} s", report.load_s);
    println!("  prefill ({:>4} tokens) {:>12.1} tokens/s", report.prompt_tokens, report.prefill_tokens_per_s);
    if let Some(PackedPrefill { single_tokens_per_s, packed_tokens_per_s }) = report.packed {
        println!("    single precision    {single_tokens_per_s:>12.1} tokens/s");
        println!("    packed 4x8          {packed_tokens_per_s:>12.1} tokens/s");
    }
    println!("  decode                {:>12.1} tokens/s", report.decode_tokens_per_s);
    if let Some(together) = report.together_tokens_per_s {
        println!("    {MAX_ROWS} together          {together:>12.1} tokens/s");
    }
    println!("  read for a token      {:>12.1} MB", report.decode_bytes_per_token as f64 / 1e6);
    println!("  decode reads          {:>12.2} GB/s", report.decode_gb_per_s);
    println!("  a copy moves          {:>12.2} GB/s", report.copy_gb_per_s);
    println!("  share of that         {:>12.1} %", 100.0 * report.share_of_copy);
    println!("  dispatches a token    {:>12.1}", report.dispatches_per_token);
    println!("  submits a token       {:>12.1}", report.submits_per_token);
    if let Some(Profile { token, prompt }) = &report.profile {
        for (what, shares) in [("a token", token), ("a prompt's first part", prompt)] {
            println!("  kernels of {what}, alone in a pass");
            for KernelShare { kernel, dispatches, us } in shares {
                println!(
                    "    {kernel:<12} {dispatches:>4} times {us:>10.1} us, {:>8.2} us each",
                    us / f64::from(*dispatches)
                );
            }
        }
    }
}
