//! Where a call's time goes: every dispatch in a pass of its own, between two of the device's time stamps.

use super::context::GpuContext;
use crate::error::EngineError;

/// What the dispatches of one kernel take in a call. Passes of their own cost a little more than one pass for all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KernelTime {
    /// The kernel.
    pub kernel: &'static str,
    /// How often the call dispatches it.
    pub dispatches: u32,
    /// What all of them take together, seconds.
    pub seconds: f64,
}

/// Time stamps of one call.
#[derive(Debug)]
pub(super) struct Stamps {
    queries: wgpu::QuerySet,
    kernels: Vec<&'static str>,
    most: usize,
}

impl Stamps {
    /// For at most so many dispatches.
    ///
    /// # Errors
    /// The device has no time stamps.
    pub(super) fn new(gpu: &GpuContext, dispatches: usize) -> Result<Self, EngineError> {
        let most = dispatches.min(wgpu::QUERY_SET_MAX_QUERIES as usize / 2);
        if !gpu.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Err(EngineError::NotOffered { backend: "webgpu", what: "time stamps" });
        }
        let queries = gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("stamps"),
            ty: wgpu::QueryType::Timestamp,
            count: 2 * most as u32,
        });
        Ok(Self { queries, kernels: Vec::new(), most })
    }

    /// Where the next dispatch leaves its stamps; `None` where no more fit.
    pub(super) fn next(&mut self, kernel: &'static str) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        let at = 2 * self.kernels.len() as u32;
        if self.kernels.len() == self.most {
            return None;
        }
        self.kernels.push(kernel);
        Some(wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(at),
            end_of_pass_write_index: Some(at + 1),
        })
    }

    /// Reads the stamps after the call was submitted; kernels in the order of their first dispatch.
    ///
    /// # Errors
    /// The device's.
    pub(super) async fn read(self, gpu: &GpuContext) -> Result<Vec<KernelTime>, EngineError> {
        let count = 2 * self.kernels.len() as u32;
        let bytes = 8 * u64::from(count);
        let resolved =
            gpu.buffer("stamps", bytes as usize, wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC);
        let mut readback = super::Readback::default();
        let staging = readback.staging(gpu, bytes);
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.resolve_query_set(&self.queries, 0..count, &resolved, 0);
        encoder.copy_buffer_to_buffer(&resolved, 0, &staging, 0, bytes);
        readback.begin(staging, bytes, gpu.queue.submit([encoder.finish()]));
        let stamps = readback.next(gpu).await?;
        let tick_s = f64::from(gpu.queue.get_timestamp_period()) * 1e-9;
        let mut times: Vec<KernelTime> = Vec::new();
        for (kernel, [begin, end]) in self.kernels.iter().zip(stamps.as_chunks::<8>().0.as_chunks::<2>().0) {
            let ticks = u64::from_le_bytes(*end).saturating_sub(u64::from_le_bytes(*begin));
            let seconds = ticks as f64 * tick_s;
            match times.iter_mut().find(|time| time.kernel == *kernel) {
                Some(time) => (time.dispatches, time.seconds) = (time.dispatches + 1, time.seconds + seconds),
                None => times.push(KernelTime { kernel, dispatches: 1, seconds }),
            }
        }
        Ok(times)
    }
}
