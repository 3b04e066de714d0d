//! What blocks become on the GPU against what they are on the CPU, whose decoders are checked against ggml's.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use super::*;
use crate::gpu::pack::{Layout, Packer};
use crate::gpu::readback::Readback;
use crate::gpu::source;
use crate::parts::MatrixForm;
use crate::quant;

/// Every half of every block, decoded.
const DECODE: &str = "
@group(0) @binding(0) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> result: array<vec4<f32>>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (4u * id.x >= arrayLength(&result)) {
        return;
    }
    let v = value_of(coded(id.x / 2u, id.x % 2u));
    result[4u * id.x] = v.a;
    result[4u * id.x + 1u] = v.b;
    result[4u * id.x + 2u] = v.c;
    result[4u * id.x + 3u] = v.d;
}
";

fn decoded(gpu: &GpuContext, layout: &Layout, bytes: &[u8]) -> Vec<f32> {
    let text = source::loader(layout.dtype, layout.blocks, layout.parts, layout.scale_unit) + DECODE;
    let module = gpu.device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl(text.into()),
    });
    let pipeline = gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    });
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
    let weights = gpu.buffer("weights", bytes.len(), usage);
    gpu.queue.write_buffer(&weights, 0, bytes);
    let size = layout.rows * layout.blocks * 32 * 4;
    let result = gpu.buffer("result", size, usage);
    let group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[
            wgpu::BindGroupEntry { binding: 0, resource: weights.as_entire_binding() },
            wgpu::BindGroupEntry { binding: 1, resource: result.as_entire_binding() },
        ],
    });
    let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups((2 * layout.rows * layout.blocks).div_ceil(64) as u32, 1, 1);
    }
    let mut readback = Readback::default();
    let staging = readback.staging(gpu, size as u64);
    encoder.copy_buffer_to_buffer(&result, 0, &staging, 0, size as u64);
    let submission = gpu.queue.submit([encoder.finish()]);
    readback.begin(staging, size as u64, submission);
    let read = block_on(readback.next(gpu)).unwrap();
    read.as_chunks::<4>().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect()
}

/// Any bits are codes; halves are of both signs and all sizes below 2, subnormal ones included.
fn random_blocks(dtype: GgmlType, rows: usize, cols: usize, rng: &mut Xoshiro256PlusPlus) -> Vec<u8> {
    let mut bytes = vec![0u8; rows * dtype.row_bytes(cols).unwrap()];
    rng.fill_bytes(&mut bytes);
    for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
        for at in dtype.halves() {
            block[at + 1] &= 0xBF;
        }
        if dtype == GgmlType::F32 {
            block[3] &= 0xBF;
        }
    }
    bytes
}

/// The same numbers, but where a product has more digits than a single (Q6_K) or an offset is added before a minimum (the
/// types of four and five bits with minima): there within a millionth of the largest.
#[test]
fn blocks_are_what_they_are_on_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(51);
    for dtype in GgmlType::ALL {
        for (rows, blocks) in [(1, 1), (3, 5), (7, 2)] {
            let cols = blocks * dtype.block_len().max(32);
            let bytes = random_blocks(dtype, rows, cols, &mut rng);
            let mut expect = vec![0.0; rows * cols];
            assert!(quant::dequantize(dtype, &bytes, &mut expect));
            let form = MatrixForm { dtype, rows, cols, unit: 1 };
            let mut packer = Packer::new(&[form], true).unwrap();
            let layout = packer.layout();
            let mut packed = vec![0; layout.bytes as usize];
            let mut write = |at: u64, part: &[u8]| packed[at as usize..][..part.len()].copy_from_slice(part);
            assert!(packer.rows(&form, &bytes, &mut write), "{dtype:?} cannot be lifted");
            packer.finish(&mut write);
            let found = decoded(&gpu, &layout, &packed);
            let rounded =
                matches!(dtype, GgmlType::Q4_1 | GgmlType::Q5_1 | GgmlType::Q4K | GgmlType::Q5K | GgmlType::Q6K);
            let largest = expect.iter().fold(0f32, |most, value| most.max(value.abs()));
            for (i, (found, expect)) in found.iter().zip(&expect).enumerate() {
                let same = found == expect || rounded && (found - expect).abs() <= 1e-6 * largest;
                assert!(same, "{dtype:?} {rows}x{cols}, element {i}: {found} instead of {expect}");
            }
        }
    }
}
