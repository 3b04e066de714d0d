//! What is measured, and what comes out.

use engine::EngineError;
use serde::Serialize;

/// What is measured, and on what.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Where to compute.
    pub backend: BackendName,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens to decode.
    pub tokens: usize,
    /// Threads that compute a pass together, on the CPU.
    pub threads: usize,
    /// Whether kernels may compute in half precision, where the device has it.
    pub half: bool,
    /// Whether the prompt is timed with packed 4x8-bit products and without, too.
    pub packed: bool,
    /// Whether every kernel is timed, too.
    pub profile: bool,
    /// Of the prompt.
    pub seed: u64,
}

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum BackendName {
    /// A GPU, through Vulkan.
    Vulkan,
    /// The CPU's kernels.
    Cpu,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The engine's or the device's error.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Prompt and answer are too long.
    #[error("{tokens} tokens do not fit into a KV cache of {capacity}")]
    TooLong {
        /// Tokens of both.
        tokens: usize,
        /// Tokens that the cache holds.
        capacity: usize,
    },
    /// The backend answered [`OutputKind::Argmax`](engine::backend::OutputKind::Argmax) with something else.
    #[error("the backend does not say which token is the likeliest")]
    NoArgmax,
    /// [`Settings::packed`] on the CPU.
    #[error("packed products are the GPU's; leave --packed out")]
    PackedOnCpu,
    /// [`Settings::packed`] on a device that has none.
    #[error("this device has no packed 4x8-bit products")]
    NoPacked,
    /// [`Settings::profile`] on the CPU.
    #[error("kernels are timed on a GPU; leave --profile out")]
    ProfileOnCpu,
    /// The program has no GPU backend.
    #[error("this program was built without Vulkan; build it with --features vulkan")]
    NoVulkan,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Its name.
    pub model: String,
    /// Where it was computed.
    pub device: String,
    /// Parts of the kernels beyond the baseline.
    pub kernels: Vec<&'static str>,
    /// Numbers in its matrices and vectors.
    pub parameters: u64,
    /// Seconds until the model was there, the self-test included.
    pub load_s: f64,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of the prompt, in one pass.
    pub prefill_tokens_per_s: f64,
    /// Without packed products and with them, where that was asked for.
    pub packed: Option<PackedPrefill>,
    /// Of one sequence.
    pub decode_tokens_per_s: f64,
    /// Of [`MAX_ROWS`](engine::backend::MAX_ROWS) sequences in one pass, all their tokens counted; `None` where the backend computes one at a time.
    pub together_tokens_per_s: Option<f64>,
    /// Bytes of weights and of the KV cache that a token reads.
    pub decode_bytes_per_token: u64,
    /// What decoding reads a second.
    pub decode_gb_per_s: f64,
    /// What a copy reads and writes a second.
    pub copy_gb_per_s: f64,
    /// The one as a share of the other.
    pub share_of_copy: f64,
    /// Kernels that a token starts.
    pub dispatches_per_token: f64,
    /// Command buffers that a token hands to the GPU.
    pub submits_per_token: f64,
    /// What every kernel takes, where that was asked for.
    pub profile: Option<Profile>,
}

/// What every kernel takes, alone in a pass.
#[derive(Debug, Serialize)]
pub struct Profile {
    /// Of a token behind the prompt.
    pub token: Vec<KernelShare>,
    /// Of the prompt's first part.
    pub prompt: Vec<KernelShare>,
}

/// All dispatches of a kernel in a call.
#[derive(Debug, Serialize)]
pub struct KernelShare {
    /// Its name.
    pub kernel: &'static str,
    /// How often a call has it.
    pub dispatches: u32,
    /// All of them together, microseconds.
    pub us: f64,
}

/// The same prompt with two kinds of products.
#[derive(Debug, Serialize)]
pub struct PackedPrefill {
    /// In single precision.
    pub single_tokens_per_s: f64,
    /// With packed products.
    pub packed_tokens_per_s: f64,
}
