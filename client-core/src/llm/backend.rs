//! What the engine asks of whatever computes: append tokens to a sequence and say what comes out at its end.

use async_trait::async_trait;

use super::config::ModelConfig;
use super::error::EngineError;

/// `Send` natively, where engines move between threads; nothing in a browser, where WebGPU objects stay on theirs.
#[cfg(not(target_arch = "wasm32"))]
pub trait MaybeSend: Send {}
#[cfg(not(target_arch = "wasm32"))]
impl<T: Send> MaybeSend for T {}
/// `Send` natively, where engines move between threads; nothing in a browser, where WebGPU objects stay on theirs.
#[cfg(target_arch = "wasm32")]
pub trait MaybeSend {}
#[cfg(target_arch = "wasm32")]
impl<T> MaybeSend for T {}

/// What a forward pass is to return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Nothing: only fill the KV cache.
    Nothing,
    /// All logits at the last position.
    Logits,
    /// The id of the largest logit at the last position; the first of equals.
    Argmax,
    /// The k largest logits at the last position. A backend may return [`Output::Logits`] instead.
    TopK(usize),
    /// The final normalised hidden states at all positions of this call.
    Hidden,
}

/// What a forward pass returned.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// To [`Want::Nothing`].
    Nothing,
    /// `[vocab]`.
    Logits(Vec<f32>),
    /// To [`Want::Argmax`].
    Token(u32),
    /// Ids with logits, largest first; equal ones by id.
    TopK(Vec<(u32, f32)>),
    /// `[tokens][dim]`, flat.
    Hidden(Vec<f32>),
}

/// What a backend has done since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Kernels that were started on the GPU.
    pub dispatches: u64,
    /// Command buffers that were handed to the GPU.
    pub submits: u64,
}

/// One sequence on one device: weights, a KV cache, and the forward pass.
#[async_trait(?Send)]
pub trait Backend: MaybeSend {
    /// The model's sizes.
    fn config(&self) -> &ModelConfig;

    /// Which backend this is, for people: `"cpu"`, `"webgpu"`.
    fn name(&self) -> &'static str;

    /// Tokens in the KV cache.
    fn len(&self) -> usize;

    /// Whether the KV cache is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Most tokens that the KV cache can hold.
    fn capacity(&self) -> usize;

    /// Forgets all tokens after the first `len`.
    fn truncate(&mut self, len: usize);

    /// A second sequence over the same weights, with an empty KV cache.
    ///
    /// # Errors
    /// There is no memory for another cache.
    fn fork(&self) -> Result<Box<dyn Backend>, EngineError>;

    /// What has been done so far; all zero where there is no GPU.
    fn counters(&self) -> Counters {
        Counters::default()
    }

    /// Appends `tokens` to the sequence.
    ///
    /// # Errors
    /// A token outside the vocabulary, more tokens than the cache holds, or the device's own errors. After an error the
    /// cache holds what it held before.
    async fn forward(&mut self, tokens: &[u32], want: Want) -> Result<Output, EngineError>;
}

/// The checks that every backend makes before it computes.
pub(crate) fn check_input(
    config: &ModelConfig,
    len: usize,
    capacity: usize,
    tokens: &[u32],
) -> Result<(), EngineError> {
    if tokens.is_empty() {
        return Err(EngineError::EmptyPrompt);
    }
    if let Some(&id) = tokens.iter().find(|id| **id as usize >= config.vocab) {
        return Err(EngineError::TokenRange { id, vocab: config.vocab });
    }
    let total = len + tokens.len();
    if total > capacity {
        return Err(EngineError::PromptTooLong { tokens: total, context: capacity });
    }
    Ok(())
}
