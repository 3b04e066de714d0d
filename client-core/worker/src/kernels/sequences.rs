//! Sequences over a model in the module's memory: one as a [`Backend`], several as a [`Batch`].

use std::rc::Rc;

use async_trait::async_trait;
use js_sys::{Float32Array, Uint32Array};

use super::{Kernels, RemoteModel, build};
use cpu_kernels::abi::{self, REFUSED};
use engine::backend::{Backend, Batch, Output, OutputKind, Turn};
use engine::config::{ModelConfig, Rotations};
use engine::cpu::{self, Form, Steps};
use engine::error::EngineError;
use engine::parts::Weights;
use engine::preconditions::{check_input, check_row, check_rows, check_turns};
use engine::sampler::SamplerParams;

/// Sequences of a model in a module's memory, by row.
#[derive(Debug)]
struct RemoteSequences {
    model: Rc<RemoteModel>,
    number: u32,
    lens: Vec<usize>,
    /// Most tokens of a row.
    capacity: usize,
    /// Where tokens and rotations go: address and bytes.
    scratch: (u32, u32),
}

impl Drop for RemoteSequences {
    fn drop(&mut self) {
        let _ = self.model.kernels.call("free_sequences", &[self.number]);
        let (start, bytes) = self.scratch;
        if bytes > 0 {
            let _ = self.model.kernels.call("release", &[start, bytes]);
        }
    }
}

impl RemoteSequences {
    fn new(model: Rc<RemoteModel>, rows: usize, capacity: usize) -> Result<Self, EngineError> {
        match model.kernels.call("sequences", &[model.number, rows as u32]).map_err(EngineError::Cpu)? {
            REFUSED => Err(EngineError::Cpu("the kernels refuse another sequence".into())),
            number => {
                let capacity = capacity.min(model.config.context);
                Ok(Self { model, number, lens: vec![0; rows], capacity, scratch: (0, 0) })
            }
        }
    }

    fn len(&self, row: usize) -> usize {
        self.lens.get(row).copied().unwrap_or(0)
    }

    fn truncate(&mut self, row: usize, len: usize) {
        if let Some(held) = self.lens.get_mut(row) {
            *held = len.min(*held);
            let _ = self.model.kernels.call("truncate", &[self.number, row as u32, *held as u32]);
        }
    }

    /// Space for `bytes`; kept from call to call.
    fn room(&mut self, bytes: u32) -> Result<u32, EngineError> {
        let (start, held) = self.scratch;
        if held >= bytes {
            return Ok(start);
        }
        let kernels = &self.model.kernels;
        if held > 0 {
            kernels.call("release", &[start, held]).map_err(EngineError::Cpu)?;
            self.scratch = (0, 0);
        }
        match kernels.call("allocate", &[bytes]).map_err(EngineError::Cpu)? {
            0 => Err(EngineError::Cpu("there is no memory left".into())),
            start => {
                self.scratch = (start, bytes);
                Ok(start)
            }
        }
    }

    /// Copies words and rotations into the module; returns their addresses.
    fn write(&mut self, words: &[u32], rotation: &[f32]) -> Result<(u32, u32), EngineError> {
        let (count, rotated) = (words.len() as u32, rotation.len() as u32);
        let start = self.room(4 * (count + rotated))?;
        let buffer = self.model.kernels.memory.buffer();
        Uint32Array::new_with_byte_offset_and_length(&buffer, start, count).copy_from(words);
        let turns = start + 4 * count;
        Float32Array::new_with_byte_offset_and_length(&buffer, turns, rotated).copy_from(rotation);
        Ok((start, turns))
    }

    /// What the last pass left.
    fn output(&self) -> Result<Vec<f32>, EngineError> {
        let kernels = &self.model.kernels;
        let at = kernels.call("output", &[self.number]).map_err(EngineError::Cpu)?;
        let len = kernels.call("output_len", &[self.number]).map_err(EngineError::Cpu)?;
        // The memory may have grown, and its buffer be another one now.
        Ok(Float32Array::new_with_byte_offset_and_length(&kernels.memory.buffer(), at, len).to_vec())
    }

    /// Appends `tokens` to a row.
    fn forward(&mut self, row: usize, tokens: &[u32], want: OutputKind) -> Result<Output, EngineError> {
        let model = Rc::clone(&self.model);
        let before = self.len(row);
        check_input(&model.config, before, self.capacity, tokens)?;
        let code = abi::want_code(cpu::wanted(want)?);
        let rotation = model.rotations.span(before, tokens.len());
        let (start, turns) = self.write(tokens, &rotation)?;
        let args = [self.number, row as u32, start, tokens.len() as u32, turns, rotation.len() as u32, code];
        if let Err(error) = model.kernels.accepted("forward", &args) {
            self.truncate(row, before);
            return Err(error);
        }
        if let Some(len) = self.lens.get_mut(row) {
            *len += tokens.len();
        }
        Ok(cpu::output(want, &self.output()?))
    }
}

/// One sequence in a module's memory.
#[derive(Debug)]
pub struct RemoteBackend(RemoteSequences);

/// Several sequences in a module's memory.
#[derive(Debug)]
pub struct RemoteBatch(RemoteSequences);

impl RemoteBackend {
    /// Reads a model's weights piece by piece into the module's memory.
    ///
    /// # Errors
    /// The module has no memory left, or refuses a tensor; what `weights` reports.
    pub async fn new(kernels: &Rc<Kernels>, weights: &dyn Weights) -> Result<Self, EngineError> {
        let form = Form::of_size(weights.totals()?.parameters);
        Self::with_form(kernels, weights, form).await
    }

    /// As [`new`](Self::new), in a form of the caller's choice.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub async fn with_form(kernels: &Rc<Kernels>, weights: &dyn Weights, form: Form) -> Result<Self, EngineError> {
        let turn = kernels.building.lock().await;
        let built = build(kernels, weights, form).await;
        if built.is_err() {
            // Frees what was begun.
            let _ = kernels.call("free_model", &[REFUSED]);
        }
        drop(turn);
        let config = weights.config().clone();
        let rotations = Rotations::of(&config);
        let model = RemoteModel { kernels: Rc::clone(kernels), number: built?, config, rotations };
        Self::over(Rc::new(model))
    }

    fn over(model: Rc<RemoteModel>) -> Result<Self, EngineError> {
        let capacity = model.config.context;
        RemoteSequences::new(model, 1, capacity).map(Self)
    }
}

#[async_trait(?Send)]
impl Backend for RemoteBackend {
    fn config(&self) -> &ModelConfig {
        &self.0.model.config
    }

    fn name(&self) -> &'static str {
        "cpu"
    }

    fn len(&self) -> usize {
        self.0.len(0)
    }

    fn capacity(&self) -> usize {
        self.0.capacity
    }

    fn truncate(&mut self, len: usize) {
        self.0.truncate(0, len);
    }

    fn fork(&self) -> Result<Box<dyn Backend>, EngineError> {
        Ok(Box::new(Self::over(Rc::clone(&self.0.model))?))
    }

    async fn batch(&self, rows: usize, capacity: usize) -> Result<Box<dyn Batch>, EngineError> {
        check_rows(rows)?;
        Ok(Box::new(RemoteBatch(RemoteSequences::new(Rc::clone(&self.0.model), rows, capacity)?)))
    }

    async fn forward(&mut self, tokens: &[u32], want: OutputKind) -> Result<Output, EngineError> {
        self.0.forward(0, tokens, want)
    }
}

#[async_trait(?Send)]
impl Batch for RemoteBatch {
    fn rows(&self) -> usize {
        self.0.lens.len()
    }

    fn capacity(&self) -> usize {
        self.0.capacity
    }

    fn len(&self, row: usize) -> usize {
        self.0.len(row)
    }

    fn truncate(&mut self, row: usize, len: usize) {
        self.0.truncate(row, len);
    }

    async fn forward(&mut self, row: usize, tokens: &[u32], want: OutputKind) -> Result<Output, EngineError> {
        check_row(self.rows(), row)?;
        self.0.forward(row, tokens, want)
    }

    fn begin_choosing(&mut self, _: usize, _: &SamplerParams, _: &[u32]) -> Result<(), EngineError> {
        Err(cpu::not_chosen_here())
    }

    async fn step(&mut self, turns: &[Turn]) -> Result<Vec<Vec<f32>>, EngineError> {
        let model = Rc::clone(&self.0.model);
        check_turns(&model.config, self, turns)?;
        let Steps { mut rows, tokens, rotation } = Steps::new(&model.rotations, turns, |row| self.0.len(row));
        let count = rows.len() as u32;
        rows.extend(tokens);
        let (start, angles) = self.0.write(&rows, &rotation)?;
        let args = [self.0.number, start, start + 4 * count, count, angles, rotation.len() as u32];
        model.kernels.accepted("step", &args)?;
        for turn in turns {
            if let Some(len) = self.0.lens.get_mut(turn.row) {
                *len += 1;
            }
        }
        Ok(self.0.output()?.chunks(model.config.vocab).map(<[f32]>::to_vec).collect())
    }

    async fn step_choosing(&mut self, _: &[Turn]) -> Result<Vec<u32>, EngineError> {
        Err(cpu::not_chosen_here())
    }
}
