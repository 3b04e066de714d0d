//! A model on the GPU: its matrices in storage buffers and its pipelines, made once and shared by all sequences.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use super::context::GpuContext;
use super::pack::{Layout, Packer, pack_vector};
use super::source::{self, Columns, FEW, Finish, Input, Product, Qkv, SLICE, TILE_COLUMNS, padded};
use super::tier::KernelSet;
use crate::config::{ModelConfig, Rotations};
use crate::error::EngineError;
use crate::parts::{BlockPart, MatrixForm, PIECE_BYTES, Part, Weights};

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
const POST_NORM: &[Use] = &[Use::Read, Use::Unused, Use::Unused, Use::Read, Use::Write];
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
    /// What it is called. Its pipelines may be another kernel's too, with the same text.
    pub label: &'static str,
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

/// A norm with its gains.
pub(super) type Norm = (Kernel, wgpu::Buffer);

/// One block of the model.
#[derive(Debug)]
pub(super) struct GpuLayer {
    pub attn_norm: wgpu::Buffer,
    pub qkv: Linear,
    pub bias: wgpu::Buffer,
    /// The gains of queries' and keys' heads, where they are normalised.
    pub head_norm: Option<Norm>,
    pub attention: Kernel,
    pub o: Linear,
    /// Of what attention gives, where that is normalised.
    pub post_attn_norm: Option<Norm>,
    pub ffn_norm: wgpu::Buffer,
    pub gate_up: Linear,
    pub down: Linear,
    pub post_ffn_norm: Option<Norm>,
}

/// The model.
#[derive(Debug)]
pub(super) struct GpuModel {
    pub config: ModelConfig,
    pub rotations: Rotations,
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
    /// Uploads the weights piece by piece and prepares the kernels.
    ///
    /// # Errors
    /// A matrix larger than what the adapter lets a kernel see, or a shape that the kernels do not cover; what `weights`
    /// reports.
    pub(super) async fn new(
        gpu: &GpuContext,
        weights: &dyn Weights,
        set: KernelSet,
        half_cache: bool,
    ) -> Result<Self, EngineError> {
        let config = weights.config().clone();
        if !config.head_dim.is_multiple_of(2) {
            return Err(EngineError::Unsupported("heads with an odd number of elements, on the GPU".into()));
        }
        let layouts = HashMap::new();
        let mut maker = Maker { gpu, config: &config, weights, set, layouts, pipelines: HashMap::new() };
        let mut layers = Vec::new();
        let mut q_stride = 0;
        for layer in 0..config.layers {
            let (layer, stride) = maker.layer(layer, half_cache).await?;
            q_stride = q_stride.max(stride);
            layers.push(layer);
            // What has been written is on the device before more is: else it would all pile up on the way.
            gpu.settled().await?;
        }
        let (embedding, table) = maker.upload("embedding", &[Part::Embedding]).await?;
        let (last, all) = (Finish::Last, Finish::Store);
        let (head, head_buffer) = match weights.form(Part::Output)? {
            Some(_) => maker.upload("head", &[Part::Output]).await?,
            None => (embedding, table.clone()),
        };
        let vocab = config.vocab;
        let head_all = maker.linear_over("head", head_buffer.clone(), &head, Input::Norm, all, vocab)?;
        let head = maker.linear_over("head", head_buffer, &head, Input::Norm, last, vocab)?;
        let halves = (2 * embedding.blocks).div_ceil(64);
        let embed = maker.kernel("embed", source::embed(&embedding, config.traits.embedding_scale), EMBED, halves)?;
        Ok(Self {
            rotations: Rotations::of(&config),
            half_cache,
            q_stride,
            embed: Linear { kernel: embed, weights: table },
            layers,
            output_norm: maker.buffer("output_norm", &pack_vector(&weights.output_norm().await?))?,
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
    weights: &'m dyn Weights,
    set: KernelSet,
    layouts: HashMap<&'static [Use], wgpu::BindGroupLayout>,
    pipelines: HashMap<String, Arc<Lazy>>,
}

impl Maker<'_> {
    /// A block, with the elements of a column of its queries' buffer.
    async fn layer(&mut self, layer: usize, half_cache: bool) -> Result<(GpuLayer, usize), EngineError> {
        let config = self.config;
        let dim = padded(config.dim);
        let vectors = self.weights.vectors(layer).await?;
        let traits = &vectors.traits;
        let qkv = Qkv::new(traits, half_cache);
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
        let attention = self.kernel("attention", attention, ATTENTION, config.heads)?;
        let of = |part| Part::Block(layer, part);
        let (q, k, v) = (of(BlockPart::Q), of(BlockPart::K), of(BlockPart::V));
        let stride = qkv.stride(config);
        let gate_up = [of(BlockPart::Gate), of(BlockPart::Up)];
        let post_attn_norm = self.post_norm(traits.post_attn_norm.as_deref())?;
        let post_ffn_norm = self.post_norm(traits.post_ffn_norm.as_deref())?;
        let back = |norm: &Option<Norm>| if norm.is_some() { Finish::Keep } else { Finish::Add };
        let made = GpuLayer {
            attn_norm: self.buffer("attn_norm", &pack_vector(&vectors.attn_norm))?,
            qkv: self.linear("qkv", &[q, k, v], Input::Norm, Finish::Qkv(qkv), stride).await?,
            bias: self.buffer("bias", &pack_vector(traits.qkv_bias.as_deref().unwrap_or_default()))?,
            head_norm,
            attention,
            o: self.linear("o", &[of(BlockPart::O)], Input::Plain, back(&post_attn_norm), dim).await?,
            post_attn_norm,
            ffn_norm: self.buffer("ffn_norm", &pack_vector(&vectors.ffn_norm))?,
            gate_up: self.linear("gate_up", &gate_up, Input::Norm, Finish::Gated, padded(config.ffn)).await?,
            down: self.linear("down", &[of(BlockPart::Down)], Input::Plain, back(&post_ffn_norm), dim).await?,
            post_ffn_norm,
        };
        Ok((made, stride))
    }

    fn post_norm(&mut self, gains: Option<&[f32]>) -> Result<Option<Norm>, EngineError> {
        let Some(gains) = gains else { return Ok(None) };
        let kernel = self.kernel("post_norm", source::post_norm_add(self.config), POST_NORM, 1)?;
        Ok(Some((kernel, self.buffer("post_norm", &pack_vector(gains))?)))
    }

    /// Matrices under each other in a buffer of their own. Not more than a piece of one is in memory at a time.
    async fn upload(&self, label: &str, parts: &[Part]) -> Result<(Layout, wgpu::Buffer), EngineError> {
        let forms = parts.iter().map(|part| self.weights.required(*part)).collect::<Result<Vec<_>, _>>()?;
        let layout = Packer::new(&forms, true)?.layout();
        let buffer = self.empty(label, layout.bytes)?;
        for lift in [true, false] {
            if let Some(layout) = self.write(&buffer, parts, &forms, lift).await? {
                return Ok((layout, buffer));
            }
        }
        Err(EngineError::Inconsistent(format!("the {label} matrix cannot be packed")))
    }

    /// `None` when scales cannot be lifted.
    async fn write(
        &self,
        buffer: &wgpu::Buffer,
        parts: &[Part],
        forms: &[MatrixForm],
        lift: bool,
    ) -> Result<Option<Layout>, EngineError> {
        let mut packer = Packer::new(forms, lift)?;
        let mut write = |at: u64, bytes: &[u8]| self.gpu.queue.write_buffer(buffer, at, bytes);
        for (part, form) in parts.iter().zip(forms) {
            for rows in form.pieces(packer.row_bytes(form), PIECE_BYTES) {
                let bytes = self.weights.rows(*part, rows).await?;
                if !packer.rows(form, &bytes, &mut write) {
                    return Ok(None);
                }
            }
        }
        packer.finish(&mut write);
        Ok(Some(packer.layout()))
    }

    fn buffer(&self, label: &str, bytes: &[u8]) -> Result<wgpu::Buffer, EngineError> {
        let buffer = self.empty(label, bytes.len() as u64)?;
        self.gpu.queue.write_buffer(&buffer, 0, bytes);
        Ok(buffer)
    }

    fn empty(&self, label: &str, bytes: u64) -> Result<wgpu::Buffer, EngineError> {
        let limit = self.gpu.limits.max_storage_buffer_binding_size.min(self.gpu.limits.max_buffer_size);
        if bytes > limit {
            return Err(EngineError::Unsupported(format!(
                "its {label} matrix takes {} MB, and this GPU lets a kernel see at most {} MB",
                bytes / 1_000_000,
                limit / 1_000_000
            )));
        }
        Ok(self.gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: bytes.max(16),
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        }))
    }

    async fn linear(
        &mut self,
        label: &'static str,
        parts: &[Part],
        input: Input,
        finish: Finish,
        out_stride: usize,
    ) -> Result<Linear, EngineError> {
        let (layout, buffer) = self.upload(label, parts).await?;
        self.linear_over(label, buffer, &layout, input, finish, out_stride)
    }

    fn linear_over(
        &mut self,
        label: &'static str,
        weights: wgpu::Buffer,
        packed: &Layout,
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
        Ok(Linear { kernel: Kernel { label, layout, one, few, many }, weights })
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
        Ok(Kernel { label, layout, one: variant.clone(), few: variant.clone(), many: variant })
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
