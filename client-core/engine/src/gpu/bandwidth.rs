//! The bandwidth of the card's memory, measured by copying: what decoding is compared with.

use super::context::GpuContext;
use crate::error::EngineError;

/// Copies of one measurement.
const COPIES: usize = 8;

/// Bytes per second that the card's memory moves, read and written bytes both counted: the best of `runs` runs that copy
/// `bytes` eight times. `clock` returns seconds.
///
/// # Errors
/// The device has no memory for two buffers of `bytes`, or its own errors.
pub async fn copy_bandwidth(
    gpu: &GpuContext,
    bytes: usize,
    runs: usize,
    clock: &dyn Fn() -> f64,
) -> Result<f64, EngineError> {
    let bytes = bytes.next_multiple_of(16).min(usize::try_from(gpu.limits.max_buffer_size).unwrap_or(usize::MAX) & !15);
    let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let make = async { Ok([gpu.buffer("copied", bytes, usage), gpu.buffer("copy", bytes, usage)]) };
    let [from, to] = gpu.guarded(make).await?;
    let mut best = 0f64;
    // The first run also pays for pages that are touched for the first time.
    for run in 0..=runs {
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for _ in 0..COPIES {
            encoder.copy_buffer_to_buffer(&from, 0, &to, 0, bytes as u64);
        }
        let commands = encoder.finish();
        gpu.settled().await?;
        let started = clock();
        gpu.queue.submit([commands]);
        gpu.settled().await?;
        let took = clock() - started;
        if run > 0 && took > 0.0 {
            best = best.max((2 * COPIES * bytes) as f64 / took);
        }
    }
    Ok(best)
}
