//! The CPU backend: the forward pass of the `kernels` crate, with a model's config and a sequence around it.
//!
//! Models of up to [`SMALL_MODEL`] parameters are held in single precision: exact, and their matrices are so small that
//! nothing is gained otherwise. Larger ones stay quantised; their activations are rounded to eight bits per block of 32.
//! The same arithmetic everywhere makes browser and server write the same text.
//!
//! In a browser this is the tier that always runs: simd128, one thread. Where the browser has relaxed SIMD or threads, the
//! worker runs the same crate as a module of its own instead (`js::kernels`). Natively, models that are too large for one
//! thread go through candle, where the `llm-candle` feature is on.

use std::sync::Arc;

use async_trait::async_trait;
use cpu_kernels::blocks::Format;
use cpu_kernels::model::{Layer, Model, Sequences, Shape};

use super::backend::{Backend, Batch, Output, Turn, Want};
use super::config::{Activation, ModelConfig, Rotations};
use super::error::EngineError;
use super::preconditions::{check_input, check_row, check_rows, check_turns};
use super::sampler::{SamplerParams, argmax};
use super::weights::{LayerWeights, Matrix, ModelWeights};

/// Most parameters of a model that is held in single precision.
pub const SMALL_MODEL: u64 = 16_000_000;

/// How matrices are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Dequantised.
    Singles,
    /// As the file has them, in the order in which they are multiplied.
    Stored,
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

/// The backend that suits the model here: candle's threads for large models where they were built in, otherwise this one.
///
/// # Errors
/// A tensor contradicts its shape.
pub fn backend(weights: &ModelWeights<'_>) -> Result<Box<dyn Backend>, EngineError> {
    #[cfg(feature = "candle")]
    if Form::of(weights) == Form::Stored {
        return Ok(Box::new(super::candle::CandleBackend::new(weights)?));
    }
    Ok(Box::new(CpuBackend::new(weights)?))
}

/// One sequence on the CPU.
#[derive(Debug)]
pub struct CpuBackend {
    model: Arc<CpuModel>,
    /// One row.
    sequence: Sequences,
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

/// The sizes as the kernels want them.
pub fn shape(config: &ModelConfig) -> Shape {
    let traits = &config.traits;
    Shape {
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

fn matrix(matrix: &Matrix<'_>, form: Form) -> Result<cpu_kernels::matrix::Matrix, EngineError> {
    let format = Format::from_id(matrix.dtype.id()).ok_or_else(|| refused(matrix.dtype.name()))?;
    cpu_kernels::matrix::Matrix::new(format, matrix.rows, matrix.cols, &matrix.bytes, form == Form::Singles)
        .map_err(|_| EngineError::Inconsistent("a matrix has the wrong number of bytes".into()))
}

fn layer(layer: &LayerWeights<'_>, form: Form) -> Result<Layer, EngineError> {
    let optional = |values: &Option<Vec<f32>>| values.clone().unwrap_or_default();
    let traits = &layer.traits;
    Ok(Layer {
        attn_norm: layer.attn_norm.clone(),
        qkv: [matrix(&layer.q, form)?, matrix(&layer.k, form)?, matrix(&layer.v, form)?],
        o: matrix(&layer.o, form)?,
        ffn_norm: layer.ffn_norm.clone(),
        gate_up: [matrix(&layer.gate, form)?, matrix(&layer.up, form)?],
        down: matrix(&layer.down, form)?,
        qkv_bias: optional(&traits.qkv_bias),
        q_norm: optional(&traits.q_norm),
        k_norm: optional(&traits.k_norm),
        post_attn_norm: optional(&traits.post_attn_norm),
        post_ffn_norm: optional(&traits.post_ffn_norm),
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
        let config = weights.config.clone();
        let layers = weights.layers.iter().map(|l| layer(l, form)).collect::<Result<_, _>>()?;
        let head = weights.output.as_ref().map(|output| matrix(output, form)).transpose()?;
        let embedding = matrix(&weights.embedding, form)?;
        let model = Model::new(shape(&config), embedding, layers, weights.output_norm.clone(), head)
            .map_err(|_| refused("heads of more than 256 elements"))?;
        let sequence = Sequences::new(&model, 1);
        Ok(Self { model: Arc::new(CpuModel { rotations: Rotations::of(&config), config, model }), sequence })
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
        Ok(Box::new(Self { model: Arc::clone(&self.model), sequence: Sequences::new(&self.model.model, 1) }))
    }

    async fn batch(&self, rows: usize, capacity: usize) -> Result<Box<dyn Batch>, EngineError> {
        check_rows(rows)?;
        let sequences = Sequences::new(&self.model.model, rows);
        Ok(Box::new(CpuBatch { model: Arc::clone(&self.model), sequences, capacity: capacity.min(self.capacity()) }))
    }

    async fn forward(&mut self, tokens: &[u32], want: Want) -> Result<Output, EngineError> {
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
        want: Want,
    ) -> Result<Output, EngineError> {
        let Self { config, rotations, model } = self;
        check_input(config, sequences.len(row), capacity, tokens)?;
        let wanted = wanted(want)?;
        let rotation = rotations.span(sequences.len(row), tokens.len());
        sequences
            .forward(model, row, tokens, &rotation, wanted)
            .map_err(|_| EngineError::Cpu("the input was refused".into()))?;
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

    async fn forward(&mut self, row: usize, tokens: &[u32], want: Want) -> Result<Output, EngineError> {
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
        self.sequences
            .step(model, &rows, &tokens, &rotation)
            .map_err(|_| EngineError::Cpu("the input was refused".into()))?;
        Ok(self.sequences.output().chunks(config.vocab).map(<[f32]>::to_vec).collect())
    }

    async fn step_choosing(&mut self, _: &[Turn]) -> Result<Vec<u32>, EngineError> {
        Err(not_chosen_here())
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
pub fn wanted(want: Want) -> Result<cpu_kernels::model::Want, EngineError> {
    Ok(match want {
        Want::Nothing => cpu_kernels::model::Want::Nothing,
        Want::Logits | Want::TopK(_) | Want::Argmax => cpu_kernels::model::Want::Last,
        Want::AllLogits => cpu_kernels::model::Want::Every,
        Want::Hidden => cpu_kernels::model::Want::Hidden,
        Want::Choice(_) => return Err(not_chosen_here()),
    })
}

/// What they left, as what was wanted.
pub fn output(want: Want, left: &[f32]) -> Output {
    match want {
        Want::Nothing | Want::Choice(_) => Output::Nothing,
        Want::Logits | Want::TopK(_) => Output::Logits(left.to_vec()),
        Want::AllLogits => Output::AllLogits(left.to_vec()),
        Want::Argmax => Output::Token(argmax(left)),
        Want::Hidden => Output::Hidden(left.to_vec()),
    }
}

#[cfg(test)]
mod tests;
