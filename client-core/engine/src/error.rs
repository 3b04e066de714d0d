//! What can go wrong in the engine, in words that can be shown to a person.

use super::gguf::GgufError;
use super::safetensors::read::SafetensorsError;

/// An error of the engine. The engine never panics on outside data, and a lost GPU is an error like any other.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    // No sources: what prints an error's causes one after the other would say the same twice.
    /// The file is damaged or is not GGUF.
    #[error("the model file cannot be read: {0}")]
    Gguf(GgufError),
    /// The file is damaged or is not safetensors.
    #[error("the model file cannot be read: {0}")]
    Safetensors(SafetensorsError),
    /// The browser does not hand out the file (any more), or its reading was stopped.
    #[error("{0}")]
    File(String),
    /// Files of a checkpoint are missing; says which, and what to do.
    #[error("{0}")]
    Incomplete(String),
    /// The file is sound but describes a model that this engine does not run.
    #[error("this model is not supported: {0}")]
    Unsupported(String),
    /// The file's parts contradict each other: a tensor is missing or has another shape than the metadata says.
    #[error("the model file is inconsistent: {0}")]
    Inconsistent(String),
    /// The tokenizer in the file could not be built, or a text could not be tokenised.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The chat template in the file could not be compiled or rendered.
    #[error("chat template: {0}")]
    Template(String),
    /// Prompt and model's context do not fit.
    #[error("the prompt has {tokens} tokens, but the model's context holds {context}; shorten the prompt")]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens that the context holds.
        context: usize,
    },
    /// There is nothing to answer.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// A token id outside the vocabulary.
    #[error("token {id} is outside the vocabulary of {vocab}")]
    TokenRange {
        /// The id.
        id: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// There is less memory than the model takes.
    #[error(
        "the model does not fit into memory: it takes {}, of which {} are its weights, {} the KV cache of a conversation of \
         {context} tokens and {} scratch; {} are available. A shorter context or a model of fewer bytes takes less",
        gigabytes(*needed),
        gigabytes(*weights),
        gigabytes(*cache),
        gigabytes(*scratch),
        gigabytes(*available)
    )]
    NoMemory {
        /// All that it takes, bytes.
        needed: u64,
        /// What there is.
        available: u64,
        /// Of its weights.
        weights: u64,
        /// Tokens of a conversation.
        context: usize,
        /// Of its keys and values.
        cache: u64,
        /// To compute in.
        scratch: u64,
    },
    /// The backend cannot answer this kind of request.
    #[error("the {backend} backend does not offer {what}")]
    NotOffered {
        /// Name of the backend.
        backend: &'static str,
        /// What was asked for.
        what: &'static str,
    },
    /// The computation gave NaN or infinity, or nothing is left to choose from.
    #[error("no token can be chosen: {0}")]
    Numbers(String),
    /// A computation on the CPU failed.
    #[error("computation on the CPU failed: {0}")]
    Cpu(String),
    /// Whoever asked has left: see `Batch::append` and `ChatTemplate::stop_when`.
    #[error("stopped, since nobody waits for the answer")]
    Stopped,
    /// There is no GPU that WebGPU (natively: Vulkan) can use.
    #[error("the GPU refused: there is no WebGPU adapter: {0}")]
    NoAdapter(String),
    /// WebGPU refused a request or reported a fault.
    #[error("the GPU refused: {0}")]
    Gpu(String),
    /// The GPU computes something else than it should.
    #[error("the GPU's self-test failed ({what}: {found})")]
    SelfTest {
        /// Which kernels.
        what: String,
        /// What was found.
        found: String,
    },
    /// The GPU went away (driver reset, tab in the background, device unplugged). The conversation is not lost: load the
    /// model again, on the GPU or on the CPU.
    #[error("the GPU was lost: {0}")]
    DeviceLost(String),
}

/// Bytes as a person reads them.
fn gigabytes(bytes: u64) -> String {
    match bytes {
        ..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

impl From<GgufError> for EngineError {
    fn from(error: GgufError) -> Self {
        Self::Gguf(error)
    }
}

impl From<SafetensorsError> for EngineError {
    fn from(error: SafetensorsError) -> Self {
        Self::Safetensors(error)
    }
}

impl EngineError {
    /// Whether the fault lies with the prompt, so that another may well be answered.
    #[must_use]
    pub fn concerns_prompt(&self) -> bool {
        matches!(self, Self::PromptTooLong { .. } | Self::EmptyPrompt | Self::Template(_) | Self::Tokenizer(_))
    }
}
