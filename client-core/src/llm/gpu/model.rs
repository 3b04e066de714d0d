//! A model on the GPU: its matrices in storage buffers and its pipelines, made once and shared by all sequences.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use super::context::GpuContext;
use super::pack::{Packed, pack, pack_vector};
use super::source::{self, Columns, FEW, Finish, Input, Product, Qkv, SLICE, TILE_COLUMNS, padded};
use super::tier::KernelSet;
use crate::llm::config::ModelConfig;
use crate::llm::error::EngineError;
use crate::llm::weights::{LayerWeights, ModelWeights};

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
const QKV: &[Use] =
    &[Use::Read, Use::Read, Use::Uniform, Use::Read, Use::Write, Use::Write, Use::Write, Use::Read, Use::Read];
const HEAD_NORM: &[Use] =
    &[Use::Unused, Use::Unused, Use::Uniform, Use::Read, Use::Write, Use::Write, Use::Unused, Use::Read];
const EMBED: &[Use] = &[Use::Read, Use::Read, Use::Uniform, Use::Write];
const ATTENTION: &[Use] = &[Use::Read, Use::Read, Use::Uniform, Use::Read, Use::Write];
const PEAK: &[Use] = &[Use::Read, Use::Read, Use::Uniform, Use::Write];
const SORT: &[Use] = &[Use::Read, Use::Read, Use::Uniform, Use::Write, Use::Write];
const BEST: &[Use] = &[Use::Read, Use::Unused, Use::Uniform, Use::Write, Use::Write, Use::Write];
const CHOOSE: &[Use] = &[Use::Read, Use::Read, Use::Uniform, Use::Write, Use::Write, Use::Write];

/// A pipeline that is compiled when it is first used: a model has kernels for calls of all sizes, and many conversations
/// need few of them.
#[derive(Debug)]
pub(super) struct Lazy {
    label: &'static str,
    text: String,
    layout: wgpu::BindGroupLayout,
    pipeline: OnceLock<wgpu::ComputePipeline>,
}

impl Lazy {
    /// The pipeline. Should the device refuse it, that shows as a fault of the device.
    pub(super) fn get(&self, gpu: &GpuContext) -> &wgpu::ComputePipeline {
        self.pipeline.get_or_init(|| {
            let label = Some(self.label);
            let source = wgpu::ShaderSource::Wgsl(self.text.as_str().into());
            let module = gpu.device.create_shader_module(wgpu::ShaderModuleDescriptor { label, source });
            let layout = gpu.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label,
                bind_group_layouts: &[Some(&self.layout)],
                immediate_size: 0,
            });
            gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label,
                layout: Some(&layout),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                cache: None,
            })
        })
    }
}

/// A kernel for a number of columns.
#[derive(Debug, Clone)]
pub(super) struct Variant {
    pub pipeline: Arc<Lazy>,
    /// Workgroups along x.
    pub groups: u32,
    /// Columns of one workgroup.
    pub columns: u32,
}

/// A kernel with its variants, which share a layout.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    layout: wgpu::BindGroupLayout,
    one: Variant,
    few: Variant,
    many: Variant,
}

impl Kernel {
    /// The variant for a call of so many columns.
    pub(super) fn variant(&self, columns: u32) -> &Variant {
        match columns as usize {
            1 => &self.one,
            2..=FEW => &self.few,
            _ => &self.many,
        }
    }
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
    pub bias: wgpu::Buffer,
    /// The gains of queries' and keys' heads, where they are normalised.
    pub head_norm: Option<(Kernel, wgpu::Buffer)>,
    pub attention: Kernel,
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
    /// Whether KV caches are in half precision.
    pub half_cache: bool,
    /// Elements of a column of the queries' buffer.
    pub q_stride: usize,
    pub embed: Linear,
    pub layers: Vec<GpuLayer>,
    pub output_norm: wgpu::Buffer,
    pub head: Linear,
    /// The head for every column of a call.
    pub head_all: Linear,
    pub peak: Kernel,
    pub best: Kernel,
    pub sort: Kernel,
    pub choose: Kernel,
}

impl GpuModel {
    /// Uploads the weights and compiles the kernels.
    ///
    /// # Errors
    /// A matrix larger than what the adapter lets a kernel see, or a shape that the kernels do not cover.
    pub(super) fn new(
        gpu: &GpuContext,
        weights: &ModelWeights<'_>,
        set: KernelSet,
        half_cache: bool,
    ) -> Result<Self, EngineError> {
        let config = weights.config.clone();
        if !config.head_dim.is_multiple_of(2) {
            return Err(EngineError::Unsupported("heads with an odd number of elements, on the GPU".into()));
        }
        let mut maker = Maker { gpu, config: &config, set, layouts: HashMap::new(), pipelines: HashMap::new() };
        let mut layers = Vec::with_capacity(weights.layers.len());
        let mut q_stride = 0;
        for layer in &weights.layers {
            let qkv = Qkv::new(&layer.traits, half_cache);
            q_stride = q_stride.max(qkv.stride(&config));
            layers.push(maker.layer(layer, qkv)?);
        }
        let embedding = pack(&[&weights.embedding])?;
        let table = maker.buffer("embedding", &embedding.bytes)?;
        let (last, all) = (Finish::Last, Finish::Store);
        let (head, head_all) = match &weights.output {
            Some(output) => {
                let packed = pack(&[output])?;
                let head = maker.linear("head", &packed, Input::Norm, last, 0)?;
                let all = maker.linear_over("head", head.weights.clone(), &packed, Input::Norm, all, 0)?;
                (head, all)
            }
            None => (
                maker.linear_over("head", table.clone(), &embedding, Input::Norm, last, 0)?,
                maker.linear_over("head", table.clone(), &embedding, Input::Norm, all, 0)?,
            ),
        };
        let vocab = config.vocab;
        let halves = (2 * embedding.blocks).div_ceil(64);
        let embed = maker.kernel("embed", source::embed(&embedding), EMBED, halves)?;
        Ok(Self {
            frequencies: config.rope.frequencies(),
            half_cache,
            q_stride,
            embed: Linear { kernel: embed, weights: table },
            layers,
            output_norm: maker.buffer("output_norm", &pack_vector(&weights.output_norm))?,
            head,
            head_all,
            peak: maker.kernel("peak", source::peak(vocab), PEAK, vocab.div_ceil(SLICE))?,
            best: maker.kernel("best", source::best(vocab), BEST, 1)?,
            sort: maker.kernel("sort", source::sort(vocab), SORT, vocab.div_ceil(SLICE))?,
            choose: maker.kernel("choose", source::choose(vocab), CHOOSE, 1)?,
            config,
        })
    }

    /// Bytes of one position's keys (and of its values) in a block's cache.
    pub(super) fn position_bytes(&self) -> u64 {
        self.config.kv_dim() as u64 * if self.half_cache { 2 } else { 4 }
    }
}

/// Makes buffers and pipelines; equal texts share a pipeline.
struct Maker<'m> {
    gpu: &'m GpuContext,
    config: &'m ModelConfig,
    set: KernelSet,
    layouts: HashMap<&'static [Use], wgpu::BindGroupLayout>,
    pipelines: HashMap<String, Arc<Lazy>>,
}

impl Maker<'_> {
    fn layer(&mut self, layer: &LayerWeights<'_>, qkv: Qkv) -> Result<GpuLayer, EngineError> {
        let config = self.config;
        let dim = padded(config.dim);
        let traits = &layer.traits;
        let packed = pack(&[&layer.q, &layer.k, &layer.v])?;
        let gate_up = pack(&[&layer.gate, &layer.up])?;
        let head_norm = if qkv.head_norm() {
            let ones = vec![1.0; config.head_dim];
            let gains = [traits.q_norm.as_ref(), traits.k_norm.as_ref()].map(|gain| gain.unwrap_or(&ones).as_slice());
            let text = source::head_norm(config, qkv);
            let kernel = self.kernel("head_norm", text, HEAD_NORM, config.heads + config.kv_heads)?;
            Some((kernel, self.buffer("head_norm", &pack_vector(&gains.concat()))?))
        } else {
            None
        };
        let attention = source::attention(config, qkv, traits.window);
        Ok(GpuLayer {
            attn_norm: self.buffer("attn_norm", &pack_vector(&layer.attn_norm))?,
            qkv: self.linear("qkv", &packed, Input::Norm, Finish::Qkv(qkv), qkv.stride(config))?,
            bias: self.buffer("bias", &pack_vector(traits.qkv_bias.as_deref().unwrap_or_default()))?,
            head_norm,
            attention: self.kernel("attention", attention, ATTENTION, config.heads)?,
            o: self.linear("o", &pack(&[&layer.o])?, Input::Plain, Finish::Add, dim)?,
            ffn_norm: self.buffer("ffn_norm", &pack_vector(&layer.ffn_norm))?,
            gate_up: self.linear("gate_up", &gate_up, Input::Norm, Finish::SwiGlu, padded(config.ffn))?,
            down: self.linear("down", &pack(&[&layer.down])?, Input::Plain, Finish::Add, dim)?,
        })
    }

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
        let product = Product::new(packed, input, finish, out_stride);
        let uses = match (input, finish) {
            (_, Finish::Qkv(_)) => QKV,
            (Input::Norm, _) => NORM,
            (Input::Plain, _) => PLAIN,
        };
        let layout = self.layout(uses);
        let mut variant = |columns: Columns| -> Result<Variant, EngineError> {
            let count = match columns {
                Columns::One => 1,
                Columns::Few => FEW,
                Columns::Tiled => TILE_COLUMNS,
            };
            Ok(Variant {
                groups: self.groups(label, product.groups(columns))?,
                pipeline: self.pipeline(label, product.source(self.config, columns, self.set), &layout),
                columns: count as u32,
            })
        };
        let one = variant(Columns::One)?;
        // The last column's logits are one column, however many the call has.
        let (few, many) = match finish {
            Finish::Last => (one.clone(), one.clone()),
            _ => (variant(Columns::Few)?, variant(Columns::Tiled)?),
        };
        Ok(Linear { kernel: Kernel { layout, one, few, many }, weights })
    }

    /// A kernel that computes every column in workgroups of its own.
    fn kernel(
        &mut self,
        label: &'static str,
        text: String,
        uses: &'static [Use],
        groups: usize,
    ) -> Result<Kernel, EngineError> {
        let layout = self.layout(uses);
        let groups = self.groups(label, groups)?;
        let variant = Variant { pipeline: self.pipeline(label, text, &layout), groups, columns: 1 };
        Ok(Kernel { layout, one: variant.clone(), few: variant.clone(), many: variant })
    }

    fn groups(&self, label: &str, groups: usize) -> Result<u32, EngineError> {
        let limit = self.gpu.limits.max_compute_workgroups_per_dimension;
        let groups = u32::try_from(groups).ok().filter(|groups| *groups <= limit);
        groups.ok_or_else(|| EngineError::Unsupported(format!("the {label} matrix has too many rows")))
    }

    fn layout(&mut self, uses: &'static [Use]) -> wgpu::BindGroupLayout {
        let device = &self.gpu.device;
        let make = || {
            let entries: Vec<_> = (0..).zip(uses).filter_map(|(binding, used)| layout_entry(binding, *used)).collect();
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries })
        };
        self.layouts.entry(uses).or_insert_with(make).clone()
    }

    fn pipeline(&mut self, label: &'static str, text: String, layout: &wgpu::BindGroupLayout) -> Arc<Lazy> {
        let make = |text: &String| {
            Arc::new(Lazy { label, text: text.clone(), layout: layout.clone(), pipeline: OnceLock::new() })
        };
        let made = self.pipelines.get(&text).cloned().unwrap_or_else(|| make(&text));
        self.pipelines.entry(text).or_insert(made).clone()
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
