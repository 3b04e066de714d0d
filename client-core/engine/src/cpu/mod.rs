//! The CPU backend: the forward pass of the `kernels` crate, with a model's config and a sequence around it.
//!
//! Models of up to [`SMALL_MODEL`] parameters are held in single precision: exact, and their matrices are so small that
//! nothing is gained otherwise. Larger ones stay quantised; their activations are rounded to eight bits per block of 32.
//! The same arithmetic everywhere makes browser and server write the same text.
//!
//! In a browser this is the tier that always runs: simd128, one thread. Where the browser has relaxed SIMD or threads, the
//! worker runs the same crate as a module of its own instead (`js::kernels`). Natively it runs everything that the kernels
//! have fast tiles for ([`runs_here`]), on as many threads as [`set_threads`] says; the rest goes through candle, where the
//! `candle` feature is on.

#[cfg(not(target_arch = "wasm32"))]
pub mod memory;

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;
use cpu_kernels::cache::Cache;
use cpu_kernels::matrix::WrongSize;
use cpu_kernels::model::{Layer, Model, ModelShape, Sequences};

use super::assemble::at_once;
use super::backend::{Backend, Batch, Output, OutputKind, SHARING, Snapshot, SnapshotState, Span, Turn};
use super::config::{Activation, ModelConfig, Rotations};
use super::error::EngineError;
pub use cpu_kernels::matrix::portable_bytes as portable_matrix_bytes;

use super::parts::{BlockPart, BlockVectors, PIECE_BYTES, Part, Weights};
use super::preconditions::{check_input, check_row, check_rows_up_to, check_spans, check_turns};
use super::sampler::{SamplerParams, argmax};
use super::weights::ModelWeights;

/// Most parameters of a model that is held in single precision.
pub const SMALL_MODEL: u64 = 16_000_000;

/// Most sequences that are computed in one pass here.
pub const MAX_ROWS: usize = 256;

/// How matrices are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Dequantised.
    Singles,
    /// As the file has them, in the order in which they are multiplied.
    Stored,
    /// The same, for the tiles that every machine runs, and with a cache that every machine reads: what a page runs, and what
    /// other tiles are compared with.
    Portable,
}

impl Form {
    /// What suits the model's size.
    pub fn of(weights: &ModelWeights<'_>) -> Self {
        Self::of_size(weights.parameters())
    }

    /// What suits a model of so many parameters.
    pub fn of_size(parameters: u64) -> Self {
        if parameters <= SMALL_MODEL { Self::Singles } else { Self::Stored }
    }
}

/// Sets how many threads compute a pass together, and returns how many there are then. One at first.
#[cfg(not(target_arch = "wasm32"))]
pub fn set_threads(threads: usize) -> usize {
    cpu_kernels::pool::set_threads(threads)
}

/// Whether the kernels are what this model is best computed with here: it is small, or all of its matrices are of formats
/// that the kernels have fast tiles for on this machine. Without candle there is nothing else.
///
/// # Errors
/// As [`Weights::form`].
pub fn runs_here(weights: &dyn Weights) -> Result<bool, EngineError> {
    #[cfg(feature = "candle")]
    if Form::of_size(weights.totals()?.parameters) == Form::Stored {
        if cpu_kernels::native::isa().is_none() || weights.config().head_dim > cpu_kernels::layout::MAX_HEAD {
            return Ok(false);
        }
        for part in weights.parts() {
            let form = weights.form(part)?;
            if form.is_some_and(|form| !form.dtype.is_quantised()) {
                return Ok(false);
            }
        }
    }
    let _ = weights;
    Ok(true)
}

/// The backend that suits the model here: candle for what the kernels have no fast tiles for, where it was built in,
/// otherwise this one.
///
/// # Errors
/// A tensor contradicts its shape.
pub fn backend(weights: &ModelWeights<'_>) -> Result<Box<dyn Backend>, EngineError> {
    #[cfg(feature = "candle")]
    if !runs_here(weights)? {
        return Ok(Box::new(super::candle::CandleBackend::new(weights)?));
    }
    Ok(Box::new(CpuBackend::new(weights)?))
}

/// One sequence on the CPU.
pub struct CpuBackend {
    model: Arc<CpuModel>,
    /// One row.
    sequence: Sequences,
}

impl std::fmt::Debug for CpuBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CpuBackend").field("len", &self.sequence.len(0)).finish_non_exhaustive()
    }
}

/// Several sequences on the CPU.
#[derive(Debug)]
pub struct CpuBatch {
    model: Arc<CpuModel>,
    sequences: Sequences,
    capacity: usize,
}

#[derive(Debug)]
struct CpuModel {
    config: ModelConfig,
    rotations: Rotations,
    model: Model,
}

/// Bytes that a model's matrices take with the tiles that every machine runs, which are a page's: codes of five and six bits
/// take eight there, and scales are singles. Nothing is read.
///
/// # Errors
/// As [`Weights::form`], of any matrix.
pub fn portable_bytes(weights: &dyn Weights) -> Result<u64, EngineError> {
    let as_singles = Form::of_size(weights.totals()?.parameters) == Form::Singles;
    let mut bytes = 0;
    for part in weights.parts() {
        if let Some(form) = weights.form(part)? {
            bytes +=
                portable_matrix_bytes(form.dtype, form.rows, form.cols, as_singles).unwrap_or_else(|| form.bytes());
        }
    }
    Ok(bytes)
}

/// The sizes as the kernels want them.
pub fn shape(config: &ModelConfig) -> ModelShape {
    let traits = &config.traits;
    ModelShape {
        vocab: config.vocab,
        dim: config.dim,
        heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
        ffn: config.ffn,
        rope_dim: config.rope.dim,
        eps: config.rms_eps,
        tables: 1 + usize::from(traits.local_rope.is_some()),
        gelu: traits.activation == Activation::Gelu,
        embedding_scale: traits.embedding_scale,
        score_scale: config.score_scale(),
        score_cap: traits.score_cap.unwrap_or(0.0),
        logit_cap: traits.logit_cap.unwrap_or(0.0),
    }
}

fn refused(what: &str) -> EngineError {
    EngineError::Unsupported(format!("{what}, on the CPU"))
}

/// A matrix, piece by piece.
async fn matrix(
    weights: &dyn Weights,
    part: Part,
    form: Form,
) -> Result<Option<cpu_kernels::matrix::Matrix>, EngineError> {
    let wrong = |_| EngineError::Inconsistent("a matrix has the wrong number of bytes".into());
    let Some(stored) = weights.form(part)? else { return Ok(None) };
    let (dtype, rows, cols) = (stored.dtype, stored.rows, stored.cols);
    // Of a size that can be, what is missing is memory.
    let can_be = rows > 0 && portable_matrix_bytes(dtype, rows, cols, false).is_some();
    let not_made = |error| match can_be {
        true => EngineError::Cpu("there is no memory left for the model".into()),
        false => wrong(error),
    };
    let mut matrix = match form {
        Form::Portable => cpu_kernels::matrix::Matrix::zeros_portable(dtype, rows, cols, false),
        _ => cpu_kernels::matrix::Matrix::zeros(dtype, rows, cols, form == Form::Singles),
    }
    .map_err(not_made)?;
    for rows in stored.pieces(stored.row_bytes(), PIECE_BYTES) {
        let bytes = weights.rows(part, rows.clone()).await?;
        if bytes.len() != stored.row_bytes() * rows.len() {
            return Err(wrong(cpu_kernels::matrix::WrongSize));
        }
        matrix.put_rows(stored.dtype, rows.start, &bytes).map_err(wrong)?;
    }
    Ok(Some(matrix))
}

async fn layer(weights: &dyn Weights, at: usize, form: Form) -> Result<Layer, EngineError> {
    let BlockVectors { attn_norm, ffn_norm, traits } = weights.vectors(at).await?;
    let part = async |part: BlockPart| {
        let missing = || EngineError::Inconsistent("a matrix of the model is missing".into());
        matrix(weights, Part::Block(at, part), form).await?.ok_or_else(missing)
    };
    Ok(Layer {
        attn_norm,
        qkv: [part(BlockPart::Q).await?, part(BlockPart::K).await?, part(BlockPart::V).await?],
        o: part(BlockPart::O).await?,
        ffn_norm,
        gate_up: [part(BlockPart::Gate).await?, part(BlockPart::Up).await?],
        down: part(BlockPart::Down).await?,
        qkv_bias: traits.qkv_bias.unwrap_or_default(),
        q_norm: traits.q_norm.unwrap_or_default(),
        k_norm: traits.k_norm.unwrap_or_default(),
        post_attn_norm: traits.post_attn_norm.unwrap_or_default(),
        post_ffn_norm: traits.post_ffn_norm.unwrap_or_default(),
        rope: traits.rope.table(),
        window: traits.window,
    })
}

impl CpuBackend {
    /// Copies the weights into the form that suits the model's size.
    ///
    /// # Errors
    /// A tensor contradicts its shape, or heads are larger than the kernels take.
    pub fn new(weights: &ModelWeights<'_>) -> Result<Self, EngineError> {
        Self::with_form(weights, Form::of(weights))
    }

    /// Copies the weights into a form of the caller's choice.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_form(weights: &ModelWeights<'_>, form: Form) -> Result<Self, EngineError> {
        at_once(Self::build(weights, form))
    }

    /// Reads the weights, piece by piece, into the form that suits the model's size. What reads them must not wait for
    /// anything but the system.
    ///
    /// # Errors
    /// As [`new`](Self::new), or they cannot be read.
    pub fn read(weights: &dyn Weights) -> Result<Self, EngineError> {
        Self::read_with_form(weights, Form::of_size(weights.totals()?.parameters))
    }

    /// As [`read`](Self::read), into a form of the caller's choice.
    ///
    /// # Errors
    /// As [`new`](Self::new), or they cannot be read.
    pub fn read_with_form(weights: &dyn Weights, form: Form) -> Result<Self, EngineError> {
        at_once(Self::build(weights, form))
    }

    /// Bytes that its matrices take.
    pub fn bytes(&self) -> usize {
        self.model.model.bytes()
    }

    /// Bytes that its keys and values take.
    pub fn cache_bytes(&self) -> usize {
        self.sequence.cache_bytes(0)
    }

    async fn build(weights: &dyn Weights, form: Form) -> Result<Self, EngineError> {
        let config = weights.config().clone();
        let missing = || EngineError::Inconsistent("the embedding is missing".into());
        let mut layers = Vec::with_capacity(config.layers);
        for at in 0..config.layers {
            layers.push(layer(weights, at, form).await?);
        }
        let head = matrix(weights, Part::Output, form).await?;
        let embedding = matrix(weights, Part::Embedding, form).await?.ok_or_else(missing)?;
        let model = Model::new(shape(&config), embedding, layers, weights.output_norm().await?, head)
            .map_err(|_| refused("heads of more than 256 elements"))?;
        let sequence = Sequences::new(&model, 1);
        let model = Arc::new(CpuModel { rotations: Rotations::of(&config), config, model });
        Ok(Self { model, sequence })
    }
}

#[async_trait(?Send)]
impl Backend for CpuBackend {
    fn config(&self) -> &ModelConfig {
        &self.model.config
    }

    fn name(&self) -> &'static str {
        "cpu"
    }

    fn len(&self) -> usize {
        self.sequence.len(0)
    }

    fn capacity(&self) -> usize {
        self.model.config.context
    }

    fn truncate(&mut self, len: usize) {
        self.sequence.truncate(0, len);
    }

    fn fork(&self) -> Result<Box<dyn Backend>, EngineError> {
        let sequence = Sequences::new(&self.model.model, 1);
        Ok(Box::new(Self { model: Arc::clone(&self.model), sequence }))
    }

    async fn batch(&self, rows: usize, capacity: usize) -> Result<Box<dyn Batch>, EngineError> {
        check_rows_up_to(rows, MAX_ROWS)?;
        let sequences = Sequences::new(&self.model.model, rows);
        Ok(Box::new(CpuBatch { model: Arc::clone(&self.model), sequences, capacity: capacity.min(self.capacity()) }))
    }

    async fn forward(&mut self, tokens: &[u32], want: OutputKind) -> Result<Output, EngineError> {
        let capacity = self.capacity();
        self.model.forward(&mut self.sequence, 0, capacity, tokens, want)
    }
}

impl CpuModel {
    /// Appends `tokens` to a row.
    fn forward(
        &self,
        sequences: &mut Sequences,
        row: usize,
        capacity: usize,
        tokens: &[u32],
        want: OutputKind,
    ) -> Result<Output, EngineError> {
        let Self { config, rotations, model } = self;
        check_input(config, sequences.len(row), capacity, tokens)?;
        let wanted = wanted(want)?;
        let rotation = rotations.span(sequences.len(row), tokens.len());
        sequences.forward(model, row, tokens, &rotation, wanted).map_err(refused_input)?;
        Ok(output(want, sequences.output()))
    }
}

#[async_trait(?Send)]
impl Batch for CpuBatch {
    fn rows(&self) -> usize {
        self.sequences.rows()
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn len(&self, row: usize) -> usize {
        self.sequences.len(row)
    }

    fn truncate(&mut self, row: usize, len: usize) {
        self.sequences.truncate(row, len);
    }

    async fn forward(&mut self, row: usize, tokens: &[u32], want: OutputKind) -> Result<Output, EngineError> {
        check_row(self.rows(), row)?;
        self.model.forward(&mut self.sequences, row, self.capacity, tokens, want)
    }

    fn begin_choosing(&mut self, _: usize, _: &SamplerParams, _: &[u32]) -> Result<(), EngineError> {
        Err(not_chosen_here())
    }

    async fn step(&mut self, turns: &[Turn]) -> Result<Vec<Vec<f32>>, EngineError> {
        let CpuModel { config, rotations, model } = &*self.model;
        check_turns(config, self, turns)?;
        let Steps { rows, tokens, rotation } = Steps::new(rotations, turns, |row| self.sequences.len(row));
        self.sequences.step(model, &rows, &tokens, &rotation).map_err(refused_input)?;
        Ok(self.sequences.output().chunks(config.vocab).map(<[f32]>::to_vec).collect())
    }

    async fn step_choosing(&mut self, _: &[Turn]) -> Result<Vec<u32>, EngineError> {
        Err(not_chosen_here())
    }

    async fn append(&mut self, spans: &[Span<'_>], stop: &dyn Fn() -> bool) -> Result<Vec<Vec<f32>>, EngineError> {
        let CpuModel { config, rotations, model } = &*self.model;
        check_spans(config, self, spans)?;
        let (mut tokens, mut rotation) = (Vec::new(), Vec::new());
        for span in spans {
            tokens.extend_from_slice(span.tokens);
            rotation.extend(rotations.span(self.sequences.len(span.row), span.tokens.len()));
        }
        let parts: Vec<_> = spans
            .iter()
            .map(|span| cpu_kernels::model::Span { row: span.row, count: span.tokens.len(), logits: span.logits })
            .collect();
        if !self.sequences.append(model, &parts, &tokens, &rotation, stop).map_err(refused_input)? {
            return Err(EngineError::Stopped);
        }
        Ok(self.sequences.output().chunks(config.vocab).map(<[f32]>::to_vec).collect())
    }

    fn take(&mut self, row: usize) -> Result<Snapshot, EngineError> {
        let cache = self.sequences.take(row).ok_or_else(|| refused_input(WrongSize))?;
        Ok(Snapshot { len: cache.len(), state: Box::new(Kept { cache, model: Arc::clone(&self.model) }) })
    }

    fn extend(&mut self, row: usize, from: &Snapshot, len: usize) -> Result<(), EngineError> {
        let kept = from.state.as_any().downcast_ref::<Kept>().filter(|kept| Arc::ptr_eq(&kept.model, &self.model));
        let kept = kept.ok_or(EngineError::NotOffered { backend: "cpu", what: SHARING })?;
        self.sequences.extend(row, &kept.cache, len).map_err(refused_input)
    }

    fn share(&mut self, from: usize, row: usize, len: usize) -> Result<(), EngineError> {
        self.sequences.share(from, row, len).map_err(refused_input)
    }
}

fn refused_input(_: WrongSize) -> EngineError {
    EngineError::Cpu("the input was refused".into())
}

/// A KV cache that was taken out of a row.
#[derive(Debug)]
struct Kept {
    cache: Cache,
    /// Whose keys and values these are.
    model: Arc<CpuModel>,
}

impl SnapshotState for Kept {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn bytes(&self) -> usize {
        self.cache.bytes()
    }
}

/// A step's turns as the kernels want them.
pub struct Steps {
    /// The sequence of each turn.
    pub rows: Vec<u32>,
    /// The token of each turn.
    pub tokens: Vec<u32>,
    /// `[rows, tables, rope_dim]`.
    pub rotation: Vec<f32>,
}

impl Steps {
    /// `len` tells the tokens in a row.
    pub fn new(rotations: &Rotations, turns: &[Turn], len: impl Fn(usize) -> usize) -> Self {
        let mut rotation = Vec::with_capacity(turns.len() * rotations.width());
        for turn in turns {
            rotations.at(len(turn.row), &mut rotation);
        }
        let rows = turns.iter().map(|turn| turn.row as u32).collect();
        Self { rows, tokens: turns.iter().map(|turn| turn.token).collect(), rotation }
    }
}

/// Choosing is the caller's here.
pub fn not_chosen_here() -> EngineError {
    EngineError::NotOffered { backend: "cpu", what: "choosing on the device" }
}

/// What the kernels have to leave for `want`.
///
/// # Errors
/// Tokens are not chosen here.
pub fn wanted(want: OutputKind) -> Result<cpu_kernels::model::OutputKind, EngineError> {
    Ok(match want {
        OutputKind::Nothing => cpu_kernels::model::OutputKind::Nothing,
        OutputKind::Logits | OutputKind::TopK(_) | OutputKind::Argmax => cpu_kernels::model::OutputKind::Last,
        OutputKind::AllLogits => cpu_kernels::model::OutputKind::Every,
        OutputKind::Hidden => cpu_kernels::model::OutputKind::Hidden,
        OutputKind::Choice(_) => return Err(not_chosen_here()),
    })
}

/// What they left, as what was wanted.
pub fn output(want: OutputKind, left: &[f32]) -> Output {
    match want {
        OutputKind::Nothing | OutputKind::Choice(_) => Output::Nothing,
        OutputKind::Logits | OutputKind::TopK(_) => Output::Logits(left.to_vec()),
        OutputKind::AllLogits => Output::AllLogits(left.to_vec()),
        OutputKind::Argmax => Output::Token(argmax(left)),
        OutputKind::Hidden => Output::Hidden(left.to_vec()),
    }
}

#[cfg(test)]
mod tests;
