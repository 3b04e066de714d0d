//! Buffers of one sequence or of several that are computed together (activations, KV caches, what is read back), and their
//! dispatches, made once and encoded for every call.

use std::any::Any;

use super::CHUNK;
use super::context::GpuContext;
use super::model::{GpuModel, Kernel, Linear, Norm, bind};
use super::profile::Stamps;
use super::source::{PLACES, SLICE, padded};
use crate::backend::{MAX_ROWS, SnapshotState};
use crate::error::EngineError;

/// Most bytes that the KV caches of a sequence, or of those in a batch together, take; longer contexts than fit are cut.
pub(super) const MAX_CACHE_BYTES: u64 = 256 << 20;
/// Columns for which all logits are computed at once.
pub(super) const ALL_COLUMNS: usize = 16;

/// A dispatch that is the same in every call but for the number of columns.
#[derive(Debug)]
struct Dispatch {
    kernel: Kernel,
    bindings: wgpu::BindGroup,
}

/// What follows the blocks in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Nothing,
    /// The logits of the last column.
    Logits,
    /// The logits of all columns.
    AllLogits,
    /// A choice among the best of every slice.
    Peak,
    /// A choice that needs all candidates in order.
    Sorted,
}

/// The parameters of one sequence in a call; see `common_call.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct SequenceParams {
    pub position: u32,
    pub row: u32,
    pub top_k: u32,
    pub mode: u32,
    pub temperature: f32,
    pub top_p: f32,
    pub penalty: f32,
    pub draw: f32,
}

/// What one call computes, as the kernels see it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct Call {
    columns: u32,
    apart: u32,
    capacity: u32,
    unused: u32,
    sequences: [SequenceParams; MAX_ROWS],
}

/// Which tokens a call appends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Feed<'t> {
    /// These, at most [`CHUNK`], to the first sequence.
    Chunk(&'t [u32]),
    /// One to each sequence.
    Each(&'t [u32]),
    /// To each sequence the one that was chosen for it last.
    Chosen,
}

/// Buffers and dispatches.
#[derive(Debug)]
pub(super) struct Sequences {
    /// Tokens that each holds.
    pub capacity: usize,
    /// From the embedding to the last block.
    blocks: Vec<Dispatch>,
    /// Logits of the last column.
    head: Dispatch,
    /// Logits of a column of each of several sequences.
    heads: Dispatch,
    peak: Dispatch,
    best: Dispatch,
    sort: Dispatch,
    choose: Dispatch,
    /// The head for all columns with its result, made when it is first asked for.
    all: Option<(Dispatch, wgpu::Buffer)>,
    x: wgpu::Buffer,
    call: wgpu::Buffer,
    tokens: wgpu::Buffer,
    rotation: wgpu::Buffer,
    seen: wgpu::Buffer,
    logits: wgpu::Buffer,
    chosen: wgpu::Buffer,
    /// Keys and values of every block, `[rows][capacity][kv_dim]`.
    caches: Vec<wgpu::Buffer>,
    /// Where calls leave what they take, while they are profiled.
    pub stamps: Option<Stamps>,
}

/// Encodes dispatches, each for so many columns, into a pass.
fn encode(gpu: &GpuContext, pass: &mut wgpu::ComputePass<'_>, dispatches: &[(&Dispatch, u32)]) {
    for (dispatch, columns) in dispatches {
        let variant = dispatch.kernel.variant(*columns);
        pass.set_pipeline(variant.pipeline.get(gpu));
        pass.set_bind_group(0, &dispatch.bindings, &[]);
        pass.dispatch_workgroups(variant.groups, columns.div_ceil(variant.columns), 1);
    }
}

impl Sequences {
    /// So many sequences, of at most `capacity` tokens each.
    pub(super) fn new(gpu: &GpuContext, model: &GpuModel, rows: usize, capacity: usize) -> Result<Self, EngineError> {
        let config = &model.config;
        let position_bytes = rows as u64 * model.position_bytes();
        let fits = (MAX_CACHE_BYTES / (2 * config.layers as u64 * position_bytes))
            .min(gpu.limits.max_storage_buffer_binding_size / position_bytes);
        let capacity = capacity.min(usize::try_from(fits).unwrap_or(usize::MAX));
        if capacity == 0 {
            return Err(EngineError::Unsupported("its KV cache is larger than this GPU allows".into()));
        }
        let storage = wgpu::BufferUsages::STORAGE;
        let (upload, download) = (storage | wgpu::BufferUsages::COPY_DST, storage | wgpu::BufferUsages::COPY_SRC);
        let buffer = |label, bytes, usage| gpu.buffer(label, bytes, usage);
        // Activations, [CHUNK, padded width]; WebGPU fills new buffers with zeros, and the padding stays zero.
        let activation = |label, width: usize| buffer(label, 4 * CHUNK * padded(width), storage);
        let x = activation("x", config.dim);
        let q = activation("q", model.q_stride);
        let mixed = activation("mixed", config.q_dim());
        let inner = activation("inner", config.ffn);
        let behind = activation("behind", config.dim);
        let call = buffer("call", size_of::<Call>(), wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST);
        let tokens = buffer("tokens", 4 * (CHUNK + rows), upload);
        let rotation = buffer("rotation", 4 * CHUNK * model.rotations.width(), upload);
        let logits = buffer("logits", 4 * rows * config.vocab, download);
        let seen = buffer("seen", 4 * rows * config.vocab.div_ceil(32), upload);
        let candidates = rows * config.vocab.next_multiple_of(SLICE);
        let sorted = buffer("sorted", 8 * candidates, storage);
        let masses = buffer("masses", 4 * candidates, storage);
        let chosen = buffer("chosen", 8 * rows * PLACES, download);

        let dispatch = |kernel: &Kernel, buffers: &[Option<&wgpu::Buffer>]| Dispatch {
            kernel: kernel.clone(),
            bindings: bind(gpu, kernel, buffers),
        };
        let product = |linear: &Linear, input, gain, output, rest: &[&wgpu::Buffer]| {
            let mut buffers = vec![Some(&linear.weights), Some(input), Some(&call), gain, Some(output)];
            buffers.extend(rest.iter().map(|buffer| Some(*buffer)));
            dispatch(&linear.kernel, &buffers)
        };
        // The way back into the residual stream: at once, or by a norm.
        let back = |linear: &Linear, input, norm: &Option<Norm>| match norm {
            None => vec![product(linear, input, None, &x, &[])],
            Some((kernel, gains)) => {
                let added = dispatch(kernel, &[Some(&behind), None, None, Some(gains), Some(&x)]);
                vec![product(linear, input, None, &behind, &[]), added]
            }
        };
        let embed = &model.embed;
        let mut blocks = vec![dispatch(&embed.kernel, &[Some(&embed.weights), Some(&tokens), Some(&call), Some(&x)])];
        let mut caches = Vec::with_capacity(2 * config.layers);
        for layer in &model.layers {
            let cache = |label| {
                let usage = download | wgpu::BufferUsages::COPY_DST;
                buffer(label, capacity * position_bytes as usize, usage)
            };
            let (keys, values) = (cache("keys"), cache("values"));
            let rest = [&keys, &values, &rotation, &layer.bias];
            blocks.push(product(&layer.qkv, &x, Some(&layer.attn_norm), &q, &rest));
            if let Some((kernel, gains)) = &layer.head_norm {
                let buffers = [None, None, Some(&call), Some(gains), Some(&q), Some(&keys), None, Some(&rotation)];
                blocks.push(dispatch(kernel, &buffers));
            }
            blocks.push(dispatch(&layer.attention, &[Some(&q), Some(&keys), Some(&call), Some(&values), Some(&mixed)]));
            blocks.extend(back(&layer.o, &mixed, &layer.post_attn_norm));
            blocks.push(product(&layer.gate_up, &x, Some(&layer.ffn_norm), &inner, &[]));
            blocks.extend(back(&layer.down, &inner, &layer.post_ffn_norm));
            caches.extend([keys, values]);
        }
        Ok(Self {
            capacity,
            blocks,
            head: product(&model.head, &x, Some(&model.output_norm), &logits, &[]),
            heads: product(&model.head_all, &x, Some(&model.output_norm), &logits, &[]),
            peak: dispatch(&model.peak, &[Some(&logits), Some(&seen), Some(&call), Some(&sorted)]),
            best: dispatch(&model.best, &[Some(&sorted), None, Some(&call), Some(&chosen), Some(&tokens), Some(&seen)]),
            sort: dispatch(&model.sort, &[Some(&logits), Some(&seen), Some(&call), Some(&sorted), Some(&masses)]),
            choose: dispatch(
                &model.choose,
                &[Some(&sorted), Some(&masses), Some(&call), Some(&chosen), Some(&tokens), Some(&seen)],
            ),
            all: None,
            x,
            call,
            tokens,
            rotation,
            seen,
            logits,
            chosen,
            caches,
            stamps: None,
        })
    }

    /// Most dispatches of a call.
    pub(super) fn most_dispatches(&self) -> usize {
        self.blocks.len() + 3
    }

    /// Encodes and submits one call, with parameters for each sequence that takes part. The first `bytes` of the result are
    /// copied to `staging`. Returns the number of dispatches and what to wait for.
    pub(super) fn submit(
        &mut self,
        gpu: &GpuContext,
        model: &GpuModel,
        feed: Feed<'_>,
        sequences: &[SequenceParams],
        ending: Ending,
        staging: Option<(&wgpu::Buffer, u64)>,
    ) -> (u64, wgpu::SubmissionIndex) {
        let (columns, apart) = match feed {
            Feed::Chunk(tokens) => (tokens.len(), 0),
            Feed::Each(_) | Feed::Chosen => (sequences.len(), 1),
        };
        let mut call =
            Call { columns: columns as u32, apart, capacity: self.capacity as u32, ..bytemuck::Zeroable::zeroed() };
        call.sequences.iter_mut().zip(sequences).for_each(|(place, params)| *place = *params);
        let mut rotation = Vec::with_capacity(columns * model.rotations.width());
        let mut rotate = |position: u32| model.rotations.at(position as usize, &mut rotation);
        let queue = &gpu.queue;
        match (feed, sequences) {
            (Feed::Chunk(tokens), [params, ..]) => {
                (params.position..).take(columns).for_each(&mut rotate);
                queue.write_buffer(&self.tokens, 0, bytemuck::cast_slice(tokens));
            }
            _ => sequences.iter().for_each(|params| rotate(params.position)),
        }
        if let Feed::Each(tokens) = feed {
            for (token, params) in tokens.iter().zip(sequences) {
                let place = 4 * (CHUNK as u64 + u64::from(params.row));
                queue.write_buffer(&self.tokens, place, &token.to_le_bytes());
            }
        }
        queue.write_buffer(&self.call, 0, bytemuck::bytes_of(&call));
        queue.write_buffer(&self.rotation, 0, bytemuck::cast_slice(&rotation));
        if ending == Ending::AllLogits {
            self.make_all(gpu, model);
        }
        // Sequences whose next token is asked for.
        let ends = if apart == 1 { call.columns } else { 1 };
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut run: Vec<_> = self.blocks.iter().map(|dispatch| (dispatch, call.columns)).collect();
        match (ending, &self.all) {
            (Ending::Nothing, _) => {}
            (Ending::AllLogits, Some((head, _))) => run.push((head, call.columns)),
            _ if ends > 1 => run.push((&self.heads, ends)),
            _ => run.push((&self.head, 1)),
        }
        match ending {
            Ending::Peak => run.extend([(&self.peak, ends), (&self.best, ends)]),
            Ending::Sorted => run.extend([(&self.sort, ends), (&self.choose, ends)]),
            _ => {}
        }
        match &mut self.stamps {
            None => encode(gpu, &mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()), &run),
            Some(stamps) => {
                for dispatch in &run {
                    let timestamp_writes = stamps.next(dispatch.0.kernel.label);
                    let descriptor = wgpu::ComputePassDescriptor { timestamp_writes, ..Default::default() };
                    encode(gpu, &mut encoder.begin_compute_pass(&descriptor), std::slice::from_ref(dispatch));
                }
            }
        }
        if let Some((staging, bytes)) = staging {
            let source = match (ending, &self.all) {
                (Ending::Peak | Ending::Sorted, _) => &self.chosen,
                (Ending::AllLogits, Some((_, logits))) => logits,
                _ => &self.logits,
            };
            encoder.copy_buffer_to_buffer(source, 0, staging, 0, bytes);
        }
        (run.len() as u64, queue.submit([encoder.finish()]))
    }

    fn make_all(&mut self, gpu: &GpuContext, model: &GpuModel) {
        let (call, x) = (&self.call, &self.x);
        self.all.get_or_insert_with(|| {
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
            let logits = gpu.buffer("all logits", 4 * ALL_COLUMNS * model.config.vocab, usage);
            let Linear { kernel, weights } = &model.head_all;
            let buffers = [Some(weights), Some(x), Some(call), Some(&model.output_norm), Some(&logits)];
            (Dispatch { kernel: kernel.clone(), bindings: bind(gpu, kernel, &buffers) }, logits)
        });
    }

    /// Replaces the set of tokens that are in a row's text already.
    pub(super) fn set_seen(&self, gpu: &GpuContext, vocab: usize, row: usize, seen: &[u32]) {
        let mut words = vec![0u32; vocab.div_ceil(32)];
        for &id in seen {
            if let Some(word) = words.get_mut(id as usize / 32) {
                *word |= 1 << (id % 32);
            }
        }
        gpu.queue.write_buffer(&self.seen, 4 * (row * words.len()) as u64, bytemuck::cast_slice(&words));
    }

    /// Copies the first `len` positions of all caches: of one sequence, or of the first.
    pub(super) fn save(&self, gpu: &GpuContext, position_bytes: u64, len: usize) -> SavedCache {
        let bytes = len as u64 * position_bytes;
        let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut save = |cache| {
            let copy = gpu.buffer("snapshot", bytes as usize, usage);
            encoder.copy_buffer_to_buffer(cache, 0, &copy, 0, bytes);
            copy
        };
        let copies = self.caches.iter().map(&mut save).collect();
        gpu.queue.submit([encoder.finish()]);
        SavedCache { gpu: gpu.clone(), copies, bytes, position_bytes }
    }

    /// Puts saved positions back.
    ///
    /// # Errors
    /// They are of another model or device.
    pub(super) fn load(&self, gpu: &GpuContext, position_bytes: u64, saved: &SavedCache) -> Result<(), EngineError> {
        let capacity = self.capacity as u64 * position_bytes;
        if !saved.gpu.is(gpu)
            || saved.position_bytes != position_bytes
            || saved.copies.len() != self.caches.len()
            || saved.bytes > capacity
        {
            return Err(EngineError::Inconsistent("the saved KV cache is of another model or device".into()));
        }
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for (copy, cache) in saved.copies.iter().zip(&self.caches) {
            encoder.copy_buffer_to_buffer(copy, 0, cache, 0, saved.bytes);
        }
        gpu.queue.submit([encoder.finish()]);
        Ok(())
    }
}

/// A KV cache's positions, saved on the GPU.
#[derive(Debug)]
pub(super) struct SavedCache {
    gpu: GpuContext,
    copies: Vec<wgpu::Buffer>,
    bytes: u64,
    position_bytes: u64,
}

impl SnapshotState for SavedCache {
    fn as_any(&self) -> &dyn Any {
        self
    }
}
