//! The WebGPU backend: our own WGSL over wgpu. In a tab it runs on the browser's WebGPU, natively on Vulkan.
//!
//! | file | holds |
//! | --- | --- |
//! | `context.rs` | the device, the adapter's capabilities, and faults as errors |
//! | `tier.rs` | kernel sets beyond the baseline, and the self-test that lets them in |
//! | `pace.rs` | whether packed products are faster on a device |
//! | `pack.rs` | matrices in the order in which kernels read them, still quantised |
//! | `source.rs` | kernels put together from parts, with the model's sizes as constants |
//! | `model.rs` | matrices and pipelines of a model, shared by its sequences |
//! | `sequence.rs` | buffers and dispatches of one sequence or of several, KV caches' snapshots |
//! | `batch.rs` | several sequences, a token each in one pass |
//! | `readback.rs` | results on their way back, several calls at a time |
//! | `profile.rs` | what every kernel of a call takes |
//! | `bandwidth.rs` | the memory's bandwidth, to compare with |
//! | `kernels/` | the WGSL: one kernel, or one interchangeable part of a kernel, to a file |
//!
//! A token takes one command buffer and one submission. A layer takes five dispatches, or six; with norms behind attention
//! and the feed-forward net (Gemma 2 and 3) two more:
//!
//! 1. RMSNorm · q, k, v · bias · RoPE · into the cache (`matmul` + `input_norm` + `finish_qkv`)
//! 2. only where heads are normalised: RMSNorm of heads · RoPE · into the cache (`head_norm`)
//! 3. attention over the cache (`attention`)
//! 4. output projection, added to the residual stream (`matmul` + `input_plain` + `finish_add`)
//! 5. RMSNorm · gate, up · SwiGLU or GeGLU (`matmul` + `input_norm` + `finish_gated`)
//! 6. down, added to the residual stream (`matmul` + `input_plain` + `finish_add`)
//!
//! Where 4 and 6 are normalised before they are added, which takes the whole row, they are kept instead (`finish_store`),
//! and each is followed by RMSNorm, added to the residual stream (`post_norm_add`).
//!
//! and four more come before and after: `embed`, the head, `peak` over slices of the logits and `best` over the slices (a
//! draw takes `sort` and `choose` instead). The last leaves the token on the device for the next call, so that calls are queued before their token is known, and
//! four bytes come back for each. Prompts go through the same kernels in chunks of [`CHUNK`] tokens, their products through
//! `matmul_tiled` from five columns on, or `matmul_packed`: activations as two bytes each, products of packed bytes, where
//! weights are quantised and the self-test found that to hold and to be faster.
//!
//! Sequences of a batch go through the same dispatches, one column each: products read the weights once for all of them, and
//! only the KV cache and the choice tell the columns apart (`common_call.wgsl`).
//!
//! Deliberately absent: activations in eight bits (too coarse for 1e-3 in the logits: packed products take sixteen), and
//! splitting attention over positions.

mod bandwidth;
mod batch;
mod context;
mod model;
mod pace;
mod pack;
mod profile;
mod readback;
mod sequence;
mod source;
mod tier;

use std::sync::Arc;

use async_trait::async_trait;

pub use self::bandwidth::copy_bandwidth;
pub use self::batch::GpuBatch;
pub use self::context::{AdapterCaps, GpuContext};
use self::model::GpuModel;
pub use self::pace::PrefillTimes;
pub use self::profile::KernelTime;
use self::profile::Stamps;
use self::readback::Readback;
use self::sequence::{ALL_COLUMNS, Ending, Feed, SavedCache, SequenceParams, Sequences};
use self::source::PLACES;
pub use self::tier::{KERNEL_VERSION, KernelSet, SelfTestReport};
use super::backend::{Backend, Batch, Counters, Draw, Output, OutputKind, Snapshot};
use super::config::ModelConfig;
use super::error::EngineError;
use super::parts::Weights;
use super::preconditions::{check_input, check_rows};
use super::sampler::SamplerParams;

/// Tokens of a prompt that one submission computes.
pub const CHUNK: usize = 128;
/// Up to this many bytes a KV cache for the whole context is in single precision; larger ones are in half precision.
const MAX_SINGLE_CACHE_BYTES: u64 = 64 << 20;
/// `choose.wgsl`'s modes.
const GREEDY: u32 = 1;
const LIST: u32 = 2;
const DRAW: u32 = 3;

/// What is read back after a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reading {
    ending: Ending,
    bytes: u64,
}

/// One sequence on the GPU.
#[derive(Debug)]
pub struct GpuBackend {
    gpu: GpuContext,
    model: Arc<GpuModel>,
    sequence: Sequences,
    readback: Readback,
    len: usize,
    /// How tokens are chosen, once a caller has said it.
    choosing: Option<SamplerParams>,
    counters: Counters,
}

impl GpuBackend {
    /// Uploads the weights and makes everything that a token needs, with the kernels that have passed the self-test there, in
    /// single precision.
    ///
    /// # Errors
    /// The model is larger than the adapter allows, or has a shape that the kernels do not cover; the device refuses
    /// something or has no memory.
    pub async fn new(gpu: &GpuContext, weights: &dyn Weights) -> Result<Self, EngineError> {
        let set = KernelSet { half: false, ..gpu.kernels() };
        Self::with_kernels(gpu, weights, set).await
    }

    /// As [`new`](Self::new), with kernels of the caller's choice, tested or not.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub async fn with_kernels(gpu: &GpuContext, weights: &dyn Weights, set: KernelSet) -> Result<Self, EngineError> {
        let config = weights.config();
        let cache_bytes =
            (8 * config.layers as u64).saturating_mul(config.kv_dim() as u64).saturating_mul(config.context as u64);
        Self::with_cache(gpu, weights, set, cache_bytes > MAX_SINGLE_CACHE_BYTES).await
    }

    /// As [`with_kernels`](Self::with_kernels), and says whether the KV cache is in half precision.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub async fn with_cache(
        gpu: &GpuContext,
        weights: &dyn Weights,
        set: KernelSet,
        half_cache: bool,
    ) -> Result<Self, EngineError> {
        let model = Arc::new(gpu.guarded(GpuModel::new(gpu, weights, set, half_cache)).await?);
        gpu.guarded(async { Self::over(gpu.clone(), model) }).await
    }

    fn over(gpu: GpuContext, model: Arc<GpuModel>) -> Result<Self, EngineError> {
        let sequence = Sequences::new(&gpu, &model, 1, model.config.context)?;
        let readback = Readback::default();
        Ok(Self { gpu, model, sequence, readback, len: 0, choosing: None, counters: Counters::default() })
    }

    /// What every kernel takes in a call that appends `tokens`, at most [`CHUNK`], and chooses the likeliest next one.
    ///
    /// # Errors
    /// The device has no time stamps (in browsers they are not asked for); as [`Backend::forward`].
    pub async fn profile(&mut self, tokens: &[u32]) -> Result<Vec<KernelTime>, EngineError> {
        let most = self.sequence.most_dispatches();
        self.sequence.stamps = Some(Stamps::new(&self.gpu, most)?);
        let computed = self.forward(tokens.get(..CHUNK).unwrap_or(tokens), OutputKind::Argmax).await;
        let stamps = self.sequence.stamps.take();
        computed?;
        match stamps {
            Some(stamps) => stamps.read(&self.gpu).await,
            None => Ok(Vec::new()),
        }
    }

    /// Encodes and submits one chunk; its result is on its way afterwards.
    fn submit(&mut self, tokens: Option<&[u32]>, want: OutputKind) {
        let columns = tokens.map_or(1, <[u32]>::len);
        let reading = Reading::new(want, columns, self.choosing.as_ref(), self.model.config.vocab);
        let params = sequence_params(want, self.choosing.as_ref(), self.len, 0);
        let feed = tokens.map_or(Feed::Chosen, Feed::Chunk);
        let staging = match reading.bytes {
            0 => None,
            bytes => Some(self.readback.staging(&self.gpu, bytes)),
        };
        let target = staging.as_ref().map(|staging| (staging, reading.bytes));
        let (dispatches, submission) =
            self.sequence.submit(&self.gpu, &self.model, feed, &[params], reading.ending, target);
        self.counters.dispatches += dispatches;
        self.counters.submits += 1;
        if let Some(staging) = staging {
            self.readback.begin(staging, reading.bytes, submission);
        }
        self.len += columns;
    }

    async fn token(&mut self) -> Result<u32, EngineError> {
        token_in(&self.readback.next(&self.gpu).await?, self.model.config.vocab)
    }

    /// Waits for the results of `want`'s calls.
    async fn output(&mut self, want: OutputKind) -> Result<Output, EngineError> {
        let vocab = self.model.config.vocab;
        match want {
            OutputKind::Nothing | OutputKind::Hidden => Ok(Output::Nothing),
            OutputKind::AllLogits => {
                let mut all = Vec::new();
                while self.readback.len() > 0 {
                    all.extend(singles(&self.readback.next(&self.gpu).await?));
                }
                Ok(Output::AllLogits(all))
            }
            _ => output_in(want, &self.readback.next(&self.gpu).await?, vocab),
        }
    }
}

impl Reading {
    /// What `want` makes necessary, for calls of so many columns.
    fn new(want: OutputKind, columns: usize, choosing: Option<&SamplerParams>, vocab: usize) -> Self {
        let all = 4 * vocab as u64;
        let (ending, bytes) = match want {
            OutputKind::Nothing | OutputKind::Hidden => (Ending::Nothing, 0),
            OutputKind::Argmax => (Ending::Peak, 4),
            OutputKind::TopK(k) if is_list(k, vocab) => (Ending::Sorted, 8 * k.max(1) as u64),
            OutputKind::TopK(_) | OutputKind::Logits => (Ending::Logits, all),
            OutputKind::AllLogits => (Ending::AllLogits, all * columns as u64),
            OutputKind::Choice(_) => match choosing {
                Some(params) if !params.is_greedy() => (Ending::Sorted, 4),
                _ => (Ending::Peak, 4),
            },
        };
        Self { ending, bytes }
    }
}

/// Whether the device puts the k best in order; of more than it has places for, the caller gets all logits.
fn is_list(k: usize, vocab: usize) -> bool {
    k <= PLACES.min(vocab)
}

/// The parameters of a sequence of `len` tokens.
fn sequence_params(want: OutputKind, choosing: Option<&SamplerParams>, len: usize, row: usize) -> SequenceParams {
    let plain = SequenceParams {
        position: len as u32,
        row: row as u32,
        mode: GREEDY,
        temperature: 1.0,
        top_p: 1.0,
        penalty: 1.0,
        ..SequenceParams::default()
    };
    match (want, choosing) {
        (OutputKind::TopK(k), _) => SequenceParams { mode: LIST, top_k: k.max(1) as u32, ..plain },
        (OutputKind::Choice(draw), Some(params)) => SequenceParams {
            mode: if params.is_greedy() { GREEDY } else { DRAW },
            top_k: u32::try_from(params.top_k).unwrap_or(0),
            temperature: params.temperature.max(1e-6),
            top_p: params.top_p,
            penalty: params.penalty(),
            draw: draw.uniform(),
            ..plain
        },
        _ => plain,
    }
}

fn singles(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

/// The token that was chosen, at the beginning of what was read.
fn token_in(bytes: &[u8], vocab: usize) -> Result<u32, EngineError> {
    let id = bytes.first_chunk::<4>().map(|id| u32::from_le_bytes(*id));
    id.filter(|id| (*id as usize) < vocab).ok_or_else(|| EngineError::Gpu("the logits are not numbers".into()))
}

/// What was read, as what was wanted of one column.
fn output_in(want: OutputKind, bytes: &[u8], vocab: usize) -> Result<Output, EngineError> {
    match want {
        OutputKind::Argmax | OutputKind::Choice(_) => Ok(Output::Token(token_in(bytes, vocab)?)),
        OutputKind::TopK(k) if is_list(k, vocab) => {
            let pairs = bytes.as_chunks::<4>().0.as_chunks::<2>().0;
            let choices: Vec<(u32, f32)> =
                pairs.iter().map(|[id, logit]| (u32::from_le_bytes(*id), f32::from_le_bytes(*logit))).collect();
            if choices.iter().any(|(id, _)| *id as usize >= vocab) {
                return Err(EngineError::Gpu("the logits are not numbers".into()));
            }
            Ok(Output::TopK(choices))
        }
        _ => Ok(Output::Logits(singles(bytes))),
    }
}

/// What the trait's methods do. Each of those proves everything that it calls anew, that wgpu's types may go to another thread
/// above all, which takes the compiler a quarter of a minute a method; here it is proved once.
impl GpuBackend {
    async fn new_batch(&self, rows: usize, capacity: usize) -> Result<Box<dyn Batch>, EngineError> {
        check_rows(rows)?;
        self.gpu.check()?;
        let (model, capacity) = (Arc::clone(&self.model), capacity.min(self.capacity()));
        // Memory that is not to be had is no fault of the device's.
        let made = self.gpu.guarded(async { GpuBatch::new(self.gpu.clone(), model, rows, capacity) }).await?;
        Ok(Box::new(made))
    }

    async fn extend(&mut self, tokens: &[u32], want: OutputKind) -> Result<Output, EngineError> {
        self.gpu.check()?;
        check_input(self.config(), self.len, self.capacity(), tokens)?;
        if want == OutputKind::Hidden {
            return Err(EngineError::NotOffered { backend: self.name(), what: "hidden states" });
        }
        self.readback.clear();
        let before = self.len;
        let chunk = if want == OutputKind::AllLogits { ALL_COLUMNS } else { CHUNK };
        let chunks = tokens.len().div_ceil(chunk);
        for (i, tokens) in tokens.chunks(chunk).enumerate() {
            let last = i + 1 == chunks || want == OutputKind::AllLogits;
            self.submit(Some(tokens), if last { want } else { OutputKind::Nothing });
        }
        let output = self.output(want).await;
        if output.is_err() {
            self.truncate(before);
        }
        output
    }
}

#[async_trait(?Send)]
impl Backend for GpuBackend {
    fn config(&self) -> &ModelConfig {
        &self.model.config
    }

    fn name(&self) -> &'static str {
        "webgpu"
    }

    fn len(&self) -> usize {
        self.len
    }

    fn capacity(&self) -> usize {
        self.sequence.capacity
    }

    fn prefill_chunk(&self) -> usize {
        CHUNK
    }

    fn truncate(&mut self, len: usize) {
        self.readback.clear();
        self.len = self.len.min(len);
    }

    fn fork(&self) -> Result<Box<dyn Backend>, EngineError> {
        self.gpu.check()?;
        Ok(Box::new(Self::over(self.gpu.clone(), Arc::clone(&self.model))?))
    }

    async fn batch(&self, rows: usize, capacity: usize) -> Result<Box<dyn Batch>, EngineError> {
        self.new_batch(rows, capacity).await
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    async fn forward(&mut self, tokens: &[u32], want: OutputKind) -> Result<Output, EngineError> {
        self.extend(tokens, want).await
    }

    fn begin_choosing(&mut self, params: &SamplerParams, seen: &[u32]) -> Result<(), EngineError> {
        self.gpu.check()?;
        self.readback.clear();
        self.choosing = Some(*params);
        self.sequence.set_seen(&self.gpu, self.model.config.vocab, 0, seen);
        Ok(())
    }

    fn queue(&mut self, draw: Draw) -> Result<(), EngineError> {
        self.gpu.check()?;
        if self.len == 0 || self.choosing.is_none() {
            return Err(EngineError::EmptyPrompt);
        }
        if self.len >= self.capacity() {
            return Err(EngineError::PromptTooLong { tokens: self.len + 1, context: self.capacity() });
        }
        self.submit(None, OutputKind::Choice(draw));
        Ok(())
    }

    async fn next_choice(&mut self) -> Result<u32, EngineError> {
        self.token().await
    }

    fn snapshot(&mut self) -> Result<Snapshot, EngineError> {
        self.gpu.check()?;
        let saved = self.sequence.save(&self.gpu, self.model.position_bytes(), self.len);
        Ok(Snapshot { len: self.len, state: Box::new(saved) })
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), EngineError> {
        self.gpu.check()?;
        let Some(saved) = snapshot.state.as_any().downcast_ref::<SavedCache>() else {
            return Err(EngineError::Inconsistent("the saved KV cache is of another backend".into()));
        };
        self.readback.clear();
        self.sequence.load(&self.gpu, self.model.position_bytes(), saved)?;
        self.len = snapshot.len;
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
