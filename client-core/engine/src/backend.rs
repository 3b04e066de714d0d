//! What the engine asks of whatever computes: append tokens to a sequence and say what comes out at its end.

use std::any::Any;

use async_trait::async_trait;

use super::config::ModelConfig;
use super::error::EngineError;
use super::sampler::SamplerParams;

pub use super::sampler::Draw;

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
pub enum OutputKind {
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
    /// All logits at all positions of this call: what verifying a draft takes.
    AllLogits,
    /// The next token, chosen where the logits are, as [`Backend::begin_choosing`] has said.
    Choice(Draw),
}

/// What a forward pass returned.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// To [`OutputKind::Nothing`].
    Nothing,
    /// `[vocab]`.
    Logits(Vec<f32>),
    /// To [`OutputKind::Argmax`] and [`OutputKind::Choice`].
    Token(u32),
    /// Ids with logits, largest first; equal ones by id.
    TopK(Vec<(u32, f32)>),
    /// `[tokens][dim]`, flat.
    Hidden(Vec<f32>),
    /// `[tokens][vocab]`, flat.
    AllLogits(Vec<f32>),
}

/// A KV cache's content at one moment, kept where the cache is. It belongs to the model and device of the backend that
/// made it, or of that one's forks.
pub struct Snapshot {
    /// Tokens in it.
    pub len: usize,
    /// The backend's own form.
    pub state: Box<dyn SnapshotState>,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("len", &self.len).finish_non_exhaustive()
    }
}

/// What a backend keeps in a [`Snapshot`].
pub trait SnapshotState: MaybeSend {
    /// For the backend to recognise its own.
    fn as_any(&self) -> &dyn Any;

    /// Memory that it takes on the CPU; 0 where it lies elsewhere.
    fn bytes(&self) -> usize {
        0
    }
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

    /// Tokens of a prompt that are best computed at once.
    fn prefill_chunk(&self) -> usize {
        64
    }

    /// Forgets all tokens after the first `len`, and what was queued.
    fn truncate(&mut self, len: usize);

    /// A second sequence over the same weights, with an empty KV cache.
    ///
    /// # Errors
    /// There is no memory for another cache.
    fn fork(&self) -> Result<Box<dyn Backend>, EngineError>;

    /// `rows` more sequences over the same weights, whose next tokens are computed in one pass, each of at most `capacity`
    /// tokens.
    ///
    /// # Errors
    /// [`EngineError::NotOffered`], no rows or more than it can compute ([`MAX_ROWS`] of them it can), or there is no memory for
    /// their caches.
    async fn batch(&self, rows: usize, capacity: usize) -> Result<Box<dyn Batch>, EngineError> {
        let _ = (rows, capacity);
        Err(EngineError::NotOffered { backend: self.name(), what: BATCHES })
    }

    /// What has been done so far; all zero where there is no GPU.
    fn counters(&self) -> Counters {
        Counters::default()
    }

    /// Appends `tokens` to the sequence.
    ///
    /// # Errors
    /// A token outside the vocabulary, more tokens than the cache holds, or the device's own errors. After an error the
    /// cache holds what it held before.
    async fn forward(&mut self, tokens: &[u32], want: OutputKind) -> Result<Output, EngineError>;

    /// Says how tokens are chosen from here on, and which tokens (`seen`) count as repeated; those that are chosen are
    /// added. Then [`forward`](Self::forward) with [`OutputKind::Choice`] gives the first, and [`queue`](Self::queue) the next.
    ///
    /// # Errors
    /// [`EngineError::NotOffered`] where logits have to be fetched and the caller chooses.
    fn begin_choosing(&mut self, params: &SamplerParams, seen: &[u32]) -> Result<(), EngineError> {
        let _ = (params, seen);
        Err(EngineError::NotOffered { backend: self.name(), what: "choosing on the device" })
    }

    /// Appends the token that was chosen last, and chooses the next, without waiting for either. The sequence is longer
    /// at once; [`next_choice`](Self::next_choice) gives the tokens in order.
    ///
    /// # Errors
    /// As [`begin_choosing`](Self::begin_choosing) and [`forward`](Self::forward).
    fn queue(&mut self, draw: Draw) -> Result<(), EngineError> {
        let _ = draw;
        Err(EngineError::NotOffered { backend: self.name(), what: "queued steps" })
    }

    /// Waits for the oldest choice that was queued.
    ///
    /// # Errors
    /// Nothing was queued, or the device's own errors.
    async fn next_choice(&mut self) -> Result<u32, EngineError> {
        Err(EngineError::NotOffered { backend: self.name(), what: "queued steps" })
    }

    /// Keeps a copy of the KV cache.
    ///
    /// # Errors
    /// [`EngineError::NotOffered`], or there is no memory.
    fn snapshot(&mut self) -> Result<Snapshot, EngineError> {
        Err(EngineError::NotOffered { backend: self.name(), what: "snapshots of the KV cache" })
    }

    /// Brings the KV cache to what it was when `snapshot` was taken.
    ///
    /// # Errors
    /// [`EngineError::NotOffered`], or the snapshot is of another model or backend; the cache is as before.
    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), EngineError> {
        let _ = snapshot;
        Err(EngineError::NotOffered { backend: self.name(), what: "snapshots of the KV cache" })
    }
}

/// Sequences that every backend with [`Batch`] computes in one pass: as many columns as the kernels for single tokens take at
/// once.
pub const MAX_ROWS: usize = 4;
/// What a backend without [`Batch`] does not offer.
pub const BATCHES: &str = "several sequences in one pass";

/// One row's next token in a step of a [`Batch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Whose.
    pub row: usize,
    /// The token that is appended.
    pub token: u32,
    /// What decides the choice of the one after it, where the device chooses.
    pub draw: Draw,
}

/// Tokens that a pass appends to one row of a [`Batch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span<'a> {
    /// Whose.
    pub row: usize,
    /// A part of a prompt, or the token that was chosen last.
    pub tokens: &'a [u32],
    /// Whether the logits after the last of them are wanted.
    pub logits: bool,
}

/// What a [`Batch`] whose rows cannot be shared does not offer.
pub const SHARING: &str = "keeping and sharing the beginnings of sequences";

/// Several sequences over the same weights. A step appends a token to some of them in one pass, which reads the weights
/// once for all: where reading bounds a token, and it nearly always does, the others are nearly free.
#[async_trait(?Send)]
pub trait Batch: MaybeSend {
    /// How many sequences there are.
    fn rows(&self) -> usize;

    /// Most tokens that a row can hold.
    fn capacity(&self) -> usize;

    /// Tokens in a row.
    fn len(&self, row: usize) -> usize;

    /// Whether all rows are empty.
    fn is_empty(&self) -> bool {
        (0..self.rows()).all(|row| self.len(row) == 0)
    }

    /// Forgets all tokens of a row after the first `len`.
    fn truncate(&mut self, row: usize, len: usize);

    /// Dispatches and submissions so far; all zero where there is no GPU.
    fn counters(&self) -> Counters {
        Counters::default()
    }

    /// Appends a prompt's tokens to a row, as [`Backend::forward`].
    ///
    /// # Errors
    /// As there, or there is no such row.
    async fn forward(&mut self, row: usize, tokens: &[u32], want: OutputKind) -> Result<Output, EngineError>;

    /// As [`Backend::begin_choosing`], for one row. Then [`forward`](Self::forward) takes [`OutputKind::Choice`], and
    /// [`step_choosing`](Self::step_choosing) goes on.
    ///
    /// # Errors
    /// As there, or there is no such row.
    fn begin_choosing(&mut self, row: usize, params: &SamplerParams, seen: &[u32]) -> Result<(), EngineError>;

    /// Appends a token to each of some rows, which ascend, and returns the logits after each.
    ///
    /// # Errors
    /// No turns, rows that do not ascend or do not exist, a row that is full, a token outside the vocabulary, or the
    /// device's own errors. After an error the rows are as they were.
    async fn step(&mut self, turns: &[Turn]) -> Result<Vec<Vec<f32>>, EngineError>;

    /// As [`step`](Self::step), and the device chooses the token after each.
    ///
    /// # Errors
    /// As there; [`EngineError::NotOffered`] where logits have to be fetched and the caller chooses.
    async fn step_choosing(&mut self, turns: &[Turn]) -> Result<Vec<u32>, EngineError>;

    /// Appends tokens to some rows, in one pass where the backend can, and returns the logits that the spans want, in their
    /// order. `stop` is asked now and then, where the backend asks at all.
    ///
    /// # Errors
    /// No spans, an empty one, a row that comes up twice or does not exist, more tokens than a row holds, a token outside the
    /// vocabulary, [`EngineError::Stopped`] when `stop` said so, or the device's own errors. After an error the rows are as they
    /// were.
    async fn append(&mut self, spans: &[Span<'_>], stop: &dyn Fn() -> bool) -> Result<Vec<Vec<f32>>, EngineError> {
        let before: Vec<usize> = spans.iter().map(|span| self.len(span.row)).collect();
        let mut wanted = Vec::new();
        for span in spans {
            let want = if span.logits { OutputKind::Logits } else { OutputKind::Nothing };
            let result =
                if stop() { Err(EngineError::Stopped) } else { self.forward(span.row, span.tokens, want).await };
            match result {
                Ok(Output::Logits(logits)) => wanted.push(logits),
                Ok(_) => {}
                Err(error) => {
                    for (span, len) in spans.iter().zip(before) {
                        self.truncate(span.row, len);
                    }
                    return Err(error);
                }
            }
        }
        Ok(wanted)
    }

    /// Takes a row's KV cache out; the row is empty then.
    ///
    /// # Errors
    /// [`EngineError::NotOffered`], or there is no such row.
    fn take(&mut self, row: usize) -> Result<Snapshot, EngineError> {
        let _ = row;
        Err(EngineError::NotOffered { backend: "this", what: SHARING })
    }

    /// Makes a row longer, up to `len` tokens, with the next ones of `from`, which was taken from a row of this model and begins
    /// with the same tokens as this row.
    ///
    /// # Errors
    /// [`EngineError::NotOffered`], there is no such row, or `from` is shorter or of another model.
    fn extend(&mut self, row: usize, from: &Snapshot, len: usize) -> Result<(), EngineError> {
        let _ = (row, from, len);
        Err(EngineError::NotOffered { backend: "this", what: SHARING })
    }

    /// As [`extend`](Self::extend), with the tokens of another row.
    ///
    /// # Errors
    /// As there.
    fn share(&mut self, from: usize, row: usize, len: usize) -> Result<(), EngineError> {
        let _ = (from, row, len);
        Err(EngineError::NotOffered { backend: "this", what: SHARING })
    }
}
