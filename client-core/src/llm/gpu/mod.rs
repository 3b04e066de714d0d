//! The WebGPU backend: our own WGSL over wgpu. In a tab it runs on the browser's WebGPU, natively on Vulkan.
//!
//! | file | holds |
//! | --- | --- |
//! | `context.rs` | the device, the adapter's facts, and faults as errors |
//! | `pack.rs` | matrices in the order in which kernels read them, still quantised |
//! | `source.rs` | kernels put together from parts, with the model's sizes as constants |
//! | `model.rs` | buffers and pipelines of a model |
//! | `kernels/` | the WGSL: one kernel, or one interchangeable part of a kernel, to a file |
//!
//! A token takes one command buffer and one submission. A layer takes five dispatches:
//!
//! 1. RMSNorm · q, k, v · RoPE · into the cache (`matmul` + `input_norm` + `finish_qkv`)
//! 2. attention over the cache (`attention`)
//! 3. output projection, added to the residual stream (`matmul` + `input_plain` + `finish_add`)
//! 4. RMSNorm · gate, up · SwiGLU (`matmul` + `input_norm` + `finish_swiglu`)
//! 5. down, added to the residual stream (`matmul` + `input_plain` + `finish_add`)
//!
//! and three more come before and after: `embed`, the head, and `select`, so that a greedy token costs eight bytes of
//! reading back. Prompts go through the same kernels in chunks of [`CHUNK`] tokens.
//!
//! Deliberately absent: half-precision arithmetic, subgroups, a tiled product for long prompts, several sequences in one
//! dispatch, and encoding the next token while one runs.

mod context;
mod model;
mod pack;
mod source;

use std::sync::Arc;

use async_trait::async_trait;
use futures::channel::oneshot;

pub use self::context::{AdapterFacts, GpuContext};
use self::model::{GpuModel, Kernel, bind};
use self::source::padded;
use super::backend::{Backend, Counters, Output, Want, check_input};
use super::config::ModelConfig;
use super::error::EngineError;
use super::weights::ModelWeights;

/// Tokens of a prompt that one submission computes.
pub const CHUNK: usize = 64;
/// Most places that `select` fills.
const MAX_TOP_K: usize = 64;
/// Most bytes that a sequence's KV cache takes; longer contexts than fit are cut.
const MAX_CACHE_BYTES: u64 = 256 << 20;

/// What is read back after a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Nothing,
    Logits,
    /// The best tokens, this many.
    Chosen(usize),
}

/// A dispatch that is the same in every call but for the number of columns.
#[derive(Debug)]
struct Dispatch {
    kernel: Kernel,
    bindings: wgpu::BindGroup,
}

/// One sequence on the GPU.
#[derive(Debug)]
pub struct GpuBackend {
    gpu: GpuContext,
    model: Arc<GpuModel>,
    len: usize,
    capacity: usize,
    /// From the embedding to the last block.
    blocks: Vec<Dispatch>,
    head: Dispatch,
    select: Dispatch,
    call: wgpu::Buffer,
    tokens: wgpu::Buffer,
    rotation: wgpu::Buffer,
    logits: wgpu::Buffer,
    chosen: wgpu::Buffer,
    staging: wgpu::Buffer,
    /// Whether a read of `staging` was begun and not ended, because the caller lost interest.
    mapping: bool,
    counters: Counters,
}

impl GpuBackend {
    /// Uploads the weights and makes everything that a token needs.
    ///
    /// # Errors
    /// The model is larger than the adapter allows, or has a shape that the kernels do not cover; the device refuses
    /// something or has no memory.
    pub async fn new(gpu: &GpuContext, weights: &ModelWeights<'_>) -> Result<Self, EngineError> {
        let model = gpu.guarded(|| GpuModel::new(gpu, weights)).await?;
        let model = Arc::new(model);
        gpu.guarded(|| Self::over(gpu.clone(), Arc::clone(&model))).await
    }

    fn over(gpu: GpuContext, model: Arc<GpuModel>) -> Result<Self, EngineError> {
        let config = &model.config;
        let position_bytes = 4 * config.kv_dim() as u64;
        let fits = (MAX_CACHE_BYTES / (2 * config.layers as u64 * position_bytes))
            .min(gpu.limits.max_storage_buffer_binding_size / position_bytes);
        let capacity = config.context.min(usize::try_from(fits).unwrap_or(usize::MAX));
        if capacity == 0 {
            return Err(EngineError::Unsupported("its KV cache is larger than this GPU allows".into()));
        }
        let storage = wgpu::BufferUsages::STORAGE;
        let buffer = |label: &str, bytes: usize, usage: wgpu::BufferUsages| {
            gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size: bytes.max(16) as u64,
                usage,
                mapped_at_creation: false,
            })
        };
        // Activations, [CHUNK, padded width]; WebGPU fills new buffers with zeros, and the padding stays zero.
        let activation = |label: &str, width: usize| buffer(label, 4 * CHUNK * padded(width), storage);
        let x = activation("x", config.dim);
        let q = activation("q", config.q_dim());
        let mixed = activation("mixed", config.q_dim());
        let inner = activation("inner", config.ffn);
        let upload = storage | wgpu::BufferUsages::COPY_DST;
        let call = buffer("call", 16, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST);
        let tokens = buffer("tokens", 4 * CHUNK, upload);
        let rotation = buffer("rotation", 4 * CHUNK * config.rope.dim, upload);
        let logits = buffer("logits", 4 * config.vocab, storage | wgpu::BufferUsages::COPY_SRC);
        let chosen = buffer("chosen", 8 * MAX_TOP_K, storage | wgpu::BufferUsages::COPY_SRC);
        let staging = buffer(
            "staging",
            (4 * config.vocab).max(8 * MAX_TOP_K),
            wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        );

        let dispatch = |kernel: &Kernel, buffers: &[Option<&wgpu::Buffer>]| Dispatch {
            kernel: kernel.clone(),
            bindings: bind(&gpu, kernel, buffers),
        };
        let embed = &model.embed;
        let mut blocks = vec![dispatch(&embed.kernel, &[Some(&embed.weights), Some(&tokens), Some(&call), Some(&x)])];
        for layer in &model.layers {
            let cache = |label| buffer(label, capacity * position_bytes as usize, storage);
            let (keys, values) = (cache("keys"), cache("values"));
            let product = |linear: &model::Linear, input, gain, output, rest: &[&wgpu::Buffer]| {
                let mut buffers = vec![Some(&linear.weights), Some(input), Some(&call), gain, Some(output)];
                buffers.extend(rest.iter().map(|buffer| Some(*buffer)));
                dispatch(&linear.kernel, &buffers)
            };
            blocks.push(product(&layer.qkv, &x, Some(&layer.attn_norm), &q, &[&keys, &values, &rotation]));
            blocks.push(dispatch(&model.attention, &[Some(&q), Some(&keys), Some(&call), Some(&values), Some(&mixed)]));
            blocks.push(product(&layer.o, &mixed, None, &x, &[]));
            blocks.push(product(&layer.gate_up, &x, Some(&layer.ffn_norm), &inner, &[]));
            blocks.push(product(&layer.down, &inner, None, &x, &[]));
        }
        let head = &model.head;
        let head = dispatch(
            &head.kernel,
            &[Some(&head.weights), Some(&x), Some(&call), Some(&model.output_norm), Some(&logits)],
        );
        let select = dispatch(&model.select, &[Some(&logits), Some(&chosen), Some(&call)]);
        Ok(Self {
            len: 0,
            capacity,
            blocks,
            head,
            select,
            call,
            tokens,
            rotation,
            logits,
            chosen,
            staging,
            mapping: false,
            counters: Counters::default(),
            gpu,
            model,
        })
    }

    /// What `want` makes necessary to read.
    fn reading(&self, want: Want) -> Reading {
        match want {
            Want::Nothing | Want::Hidden => Reading::Nothing,
            Want::Argmax => Reading::Chosen(1),
            Want::TopK(k) if k <= MAX_TOP_K.min(self.model.config.vocab) => Reading::Chosen(k.max(1)),
            Want::TopK(_) | Want::Logits => Reading::Logits,
        }
    }

    /// Encodes and submits one chunk; what is to be read is copied to `staging`.
    fn submit(&mut self, tokens: &[u32], reading: Reading) {
        let config = &self.model.config;
        let mut rotation = Vec::with_capacity(tokens.len() * config.rope.dim);
        for position in self.len..self.len + tokens.len() {
            config.rope.rotation_at(&self.model.frequencies, position, &mut rotation);
        }
        let (read, top_k) = match reading {
            Reading::Nothing => (None, 0),
            Reading::Logits => (Some((&self.logits, 4 * config.vocab)), 0),
            Reading::Chosen(k) => (Some((&self.chosen, 8 * k)), k),
        };
        let call = [self.len as u32, tokens.len() as u32, top_k as u32, 0];
        let queue = &self.gpu.queue;
        queue.write_buffer(&self.call, 0, bytemuck::cast_slice(&call));
        queue.write_buffer(&self.tokens, 0, bytemuck::cast_slice(tokens));
        queue.write_buffer(&self.rotation, 0, bytemuck::cast_slice(&rotation));

        let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut dispatches = 0;
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            let mut run = |dispatch: &Dispatch, columns: u32| {
                let kernel = &dispatch.kernel;
                pass.set_pipeline(if columns == 1 { &kernel.one } else { &kernel.many });
                pass.set_bind_group(0, &dispatch.bindings, &[]);
                let rows = if columns == 1 { 1 } else { columns.div_ceil(kernel.columns) };
                pass.dispatch_workgroups(kernel.groups, rows, 1);
                dispatches += 1;
            };
            for dispatch in &self.blocks {
                run(dispatch, tokens.len() as u32);
            }
            if read.is_some() {
                run(&self.head, 1);
            }
            if top_k > 0 {
                run(&self.select, 1);
            }
        }
        if let Some((buffer, bytes)) = read {
            encoder.copy_buffer_to_buffer(buffer, 0, &self.staging, 0, bytes as u64);
        }
        queue.submit([encoder.finish()]);
        self.counters.dispatches += dispatches;
        self.counters.submits += 1;
    }

    /// Waits for the last submission and reads the beginning of `staging`.
    async fn read(&mut self, bytes: u64) -> Result<Vec<u8>, EngineError> {
        let (sender, receiver) = oneshot::channel();
        self.mapping = true;
        let slice = self.staging.slice(..bytes);
        slice.map_async(wgpu::MapMode::Read, move |result| {
            // Nobody listens any more when the caller lost interest.
            let _ = sender.send(result);
        });
        // In a browser this does nothing: the event loop brings the answer.
        let polled = self.gpu.device.poll(wgpu::PollType::wait_indefinitely());
        let failed = |what: &dyn std::fmt::Display| match self.gpu.check() {
            Err(cause) => cause,
            Ok(()) => EngineError::Gpu(format!("a result cannot be read: {what}")),
        };
        polled.map_err(|error| failed(&error))?;
        let mapped = receiver.await.map_err(|error| failed(&error))?;
        mapped.map_err(|error| failed(&error))?;
        let data = slice.get_mapped_range().map_err(|error| failed(&error))?.to_vec();
        self.staging.unmap();
        self.mapping = false;
        self.gpu.check()?;
        Ok(data)
    }

    /// Waits for the last submission and returns what `want` asks for.
    async fn output(&mut self, want: Want, reading: Reading) -> Result<Output, EngineError> {
        let bytes = match reading {
            Reading::Nothing => return Ok(Output::Nothing),
            Reading::Logits => self.read(4 * self.model.config.vocab as u64).await?,
            Reading::Chosen(k) => self.read(8 * k as u64).await?,
        };
        let words = bytes.as_chunks::<4>().0;
        if reading == Reading::Logits {
            return Ok(Output::Logits(words.iter().map(|word| f32::from_le_bytes(*word)).collect()));
        }
        let choices: Vec<(u32, f32)> = words
            .as_chunks::<2>()
            .0
            .iter()
            .map(|[id, logit]| (u32::from_le_bytes(*id), f32::from_le_bytes(*logit)))
            .collect();
        match choices.first() {
            Some(&(id, _)) if (id as usize) < self.model.config.vocab => Ok(match want {
                Want::Argmax => Output::Token(id),
                _ => Output::TopK(choices),
            }),
            _ => Err(EngineError::Gpu("the logits are not numbers".into())),
        }
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
        self.capacity
    }

    fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    fn fork(&self) -> Result<Box<dyn Backend>, EngineError> {
        self.gpu.check()?;
        Ok(Box::new(Self::over(self.gpu.clone(), Arc::clone(&self.model))?))
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    async fn forward(&mut self, tokens: &[u32], want: Want) -> Result<Output, EngineError> {
        self.gpu.check()?;
        check_input(self.config(), self.len, self.capacity, tokens)?;
        if want == Want::Hidden {
            return Err(EngineError::NotOffered { backend: self.name(), what: "hidden states" });
        }
        if std::mem::take(&mut self.mapping) {
            self.staging.unmap();
        }
        let before = self.len;
        let reading = self.reading(want);
        let chunks = tokens.len().div_ceil(CHUNK);
        for (i, chunk) in tokens.chunks(CHUNK).enumerate() {
            self.submit(chunk, if i + 1 == chunks { reading } else { Reading::Nothing });
            self.len += chunk.len();
        }
        let output = self.output(want, reading).await;
        if output.is_err() {
            self.len = before;
        }
        output
    }
}

#[cfg(test)]
mod tests;
