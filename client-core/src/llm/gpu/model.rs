//! A model on the GPU: its matrices in storage buffers and its pipelines, made once and shared by all sequences.

use std::collections::HashMap;

use super::context::GpuContext;
use super::pack::{Packed, pack, pack_vector};
use super::source::{self, Finish, Input, MANY, Product, UNITS_PER_GROUP, padded};
use crate::llm::config::ModelConfig;
use crate::llm::error::EngineError;
use crate::llm::weights::{LayerTraits, ModelWeights};

/// How a kernel uses a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Use {
    /// Nothing is bound at this number.
    Unused,
    Read,
    Write,
    Uniform,
}

const PLAIN: &[Use] = &[Use::Read, Use::Read, Use::Uniform, Use::Unused, Use::Write];
const NORM: &[Use] = &[Use::Read, Use::Read, Use::Uniform, Use::Read, Use::Write];
const QKV: &[Use] = &[Use::Read, Use::Read, Use::Uniform, Use::Read, Use::Write, Use::Write, Use::Write, Use::Read];
const EMBED: &[Use] = &[Use::Read, Use::Read, Use::Uniform, Use::Write];
const ATTENTION: &[Use] = &[Use::Read, Use::Read, Use::Uniform, Use::Read, Use::Write];
const SELECT: &[Use] = &[Use::Read, Use::Write, Use::Uniform];

/// A pipeline for one column and one for many, with the layout that both share.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    pub one: wgpu::ComputePipeline,
    pub many: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
    /// Workgroups along x.
    pub groups: u32,
    /// Columns of one workgroup of `many`.
    pub columns: u32,
}

/// A product with its matrix.
#[derive(Debug)]
pub(super) struct Linear {
    pub kernel: Kernel,
    pub weights: wgpu::Buffer,
}

/// One block of the model.
#[derive(Debug)]
pub(super) struct GpuLayer {
    pub attn_norm: wgpu::Buffer,
    pub qkv: Linear,
    pub o: Linear,
    pub ffn_norm: wgpu::Buffer,
    pub gate_up: Linear,
    pub down: Linear,
}

/// The model.
#[derive(Debug)]
pub(super) struct GpuModel {
    pub config: ModelConfig,
    pub frequencies: Vec<f32>,
    pub embed: Linear,
    pub layers: Vec<GpuLayer>,
    pub output_norm: wgpu::Buffer,
    pub head: Linear,
    pub attention: Kernel,
    pub select: Kernel,
}

impl GpuModel {
    /// Uploads the weights and compiles the kernels.
    ///
    /// # Errors
    /// A matrix larger than what the adapter lets a kernel see, or a shape that the kernels do not cover.
    pub(super) fn new(gpu: &GpuContext, weights: &ModelWeights<'_>) -> Result<Self, EngineError> {
        let config = weights.config.clone();
        if weights.layers.iter().any(|layer| layer.traits != LayerTraits::default()) || config.rope.magnitude != 1.0 {
            return Err(EngineError::Unsupported("a family other than Llama's, on the GPU".into()));
        }
        if !config.head_dim.is_multiple_of(2) {
            return Err(EngineError::Unsupported("heads with an odd number of elements, on the GPU".into()));
        }
        let mut maker = Maker { gpu, config: &config, layouts: HashMap::new(), pipelines: HashMap::new() };
        let dim = padded(config.dim);
        let mut layers = Vec::with_capacity(weights.layers.len());
        for layer in &weights.layers {
            let qkv = pack(&[&layer.q, &layer.k, &layer.v])?;
            let gate_up = pack(&[&layer.gate, &layer.up])?;
            layers.push(GpuLayer {
                attn_norm: maker.buffer("attn_norm", &pack_vector(&layer.attn_norm))?,
                qkv: maker.linear("qkv", &qkv, Input::Norm, Finish::Qkv, padded(config.q_dim()))?,
                o: maker.linear("o", &pack(&[&layer.o])?, Input::Plain, Finish::Add, dim)?,
                ffn_norm: maker.buffer("ffn_norm", &pack_vector(&layer.ffn_norm))?,
                gate_up: maker.linear("gate_up", &gate_up, Input::Norm, Finish::SwiGlu, padded(config.ffn))?,
                down: maker.linear("down", &pack(&[&layer.down])?, Input::Plain, Finish::Add, dim)?,
            });
        }
        let embedding = pack(&[&weights.embedding])?;
        let table = maker.buffer("embedding", &embedding.bytes)?;
        let head = match &weights.output {
            Some(output) => maker.linear("head", &pack(&[output])?, Input::Norm, Finish::Store, 0)?,
            None => maker.linear_over("head", table.clone(), &embedding, Input::Norm, Finish::Store, 0)?,
        };
        let embed = source::embed(embedding.dtype, embedding.blocks, embedding.scales);
        let embed = maker.kernel("embed", &embed, &embed, EMBED, embedding.blocks.div_ceil(64), 1)?;
        let attention = source::attention(&config);
        let attention = maker.kernel("attention", &attention, &attention, ATTENTION, config.heads, 1)?;
        let select = source::select(config.vocab);
        let select = maker.kernel("select", &select, &select, SELECT, 1, 1)?;
        Ok(Self {
            frequencies: config.rope.frequencies(),
            embed: Linear { kernel: embed, weights: table },
            layers,
            output_norm: maker.buffer("output_norm", &pack_vector(&weights.output_norm))?,
            head,
            attention,
            select,
            config,
        })
    }
}

/// Makes buffers and pipelines; equal texts share a pipeline.
struct Maker<'m> {
    gpu: &'m GpuContext,
    config: &'m ModelConfig,
    layouts: HashMap<&'static [Use], wgpu::BindGroupLayout>,
    pipelines: HashMap<String, wgpu::ComputePipeline>,
}

impl Maker<'_> {
    fn buffer(&self, label: &str, bytes: &[u8]) -> Result<wgpu::Buffer, EngineError> {
        let limit = self.gpu.limits.max_storage_buffer_binding_size.min(self.gpu.limits.max_buffer_size);
        if bytes.len() as u64 > limit {
            return Err(EngineError::Unsupported(format!(
                "its {label} matrix takes {} MB, and this GPU lets a kernel see at most {} MB",
                bytes.len() / 1_000_000,
                limit / 1_000_000
            )));
        }
        let buffer = self.gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: bytes.len().max(16) as u64,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.gpu.queue.write_buffer(&buffer, 0, bytes);
        Ok(buffer)
    }

    fn linear(
        &mut self,
        label: &'static str,
        packed: &Packed,
        input: Input,
        finish: Finish,
        out_stride: usize,
    ) -> Result<Linear, EngineError> {
        let buffer = self.buffer(label, &packed.bytes)?;
        self.linear_over(label, buffer, packed, input, finish, out_stride)
    }

    fn linear_over(
        &mut self,
        label: &'static str,
        weights: wgpu::Buffer,
        packed: &Packed,
        input: Input,
        finish: Finish,
        out_stride: usize,
    ) -> Result<Linear, EngineError> {
        let Packed { dtype, rows, blocks, scales, .. } = *packed;
        let product = Product { dtype, rows, blocks, scales, input, finish, out_stride };
        let uses = match (input, finish) {
            (_, Finish::Qkv) => QKV,
            (Input::Norm, _) => NORM,
            (Input::Plain, _) => PLAIN,
        };
        let one = product.source(self.config, 1);
        let many = if finish == Finish::Store { one.clone() } else { product.source(self.config, MANY) };
        let groups = product.units().div_ceil(UNITS_PER_GROUP);
        Ok(Linear { kernel: self.kernel(label, &one, &many, uses, groups, MANY as u32)?, weights })
    }

    fn kernel(
        &mut self,
        label: &str,
        one: &str,
        many: &str,
        uses: &'static [Use],
        groups: usize,
        columns: u32,
    ) -> Result<Kernel, EngineError> {
        let limit = self.gpu.limits.max_compute_workgroups_per_dimension;
        let groups = u32::try_from(groups).ok().filter(|groups| *groups <= limit);
        let groups = groups.ok_or_else(|| EngineError::Unsupported(format!("the {label} matrix has too many rows")))?;
        let layout = self.layout(uses);
        Ok(Kernel {
            one: self.pipeline(label, one, &layout),
            many: self.pipeline(label, many, &layout),
            layout,
            groups,
            columns,
        })
    }

    fn layout(&mut self, uses: &'static [Use]) -> wgpu::BindGroupLayout {
        let device = &self.gpu.device;
        let make = || {
            let entries: Vec<_> = (0..).zip(uses).filter_map(|(binding, used)| layout_entry(binding, *used)).collect();
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries })
        };
        self.layouts.entry(uses).or_insert_with(make).clone()
    }

    fn pipeline(&mut self, label: &str, text: &str, layout: &wgpu::BindGroupLayout) -> wgpu::ComputePipeline {
        if let Some(pipeline) = self.pipelines.get(text) {
            return pipeline.clone();
        }
        let device = &self.gpu.device;
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(label),
            source: wgpu::ShaderSource::Wgsl(text.into()),
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(label),
            bind_group_layouts: &[Some(layout)],
            immediate_size: 0,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(label),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        self.pipelines.insert(text.to_owned(), pipeline.clone());
        pipeline
    }
}

fn layout_entry(binding: u32, used: Use) -> Option<wgpu::BindGroupLayoutEntry> {
    let ty = match used {
        Use::Unused => return None,
        Use::Read => wgpu::BufferBindingType::Storage { read_only: true },
        Use::Write => wgpu::BufferBindingType::Storage { read_only: false },
        Use::Uniform => wgpu::BufferBindingType::Uniform,
    };
    Some(wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    })
}

/// Binds `buffers` to a kernel; `None` where its layout leaves a number unused.
pub(super) fn bind(gpu: &GpuContext, kernel: &Kernel, buffers: &[Option<&wgpu::Buffer>]) -> wgpu::BindGroup {
    let entries: Vec<_> = (0..)
        .zip(buffers)
        .filter_map(|(binding, buffer)| {
            buffer.map(|buffer| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
        })
        .collect();
    gpu.device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout: &kernel.layout, entries: &entries })
}
