//! Reading results back: a ring of staging buffers, each of which is asked for as soon as its call is submitted, so that
//! several calls can be under way.

use std::collections::VecDeque;

use futures::channel::oneshot;

use super::context::GpuContext;
use crate::error::EngineError;

/// A result that is on its way.
#[derive(Debug)]
struct Pending {
    staging: wgpu::Buffer,
    bytes: u64,
    submission: wgpu::SubmissionIndex,
    receiver: oneshot::Receiver<Result<(), wgpu::BufferAsyncError>>,
}

/// Staging buffers, those on their way oldest first.
#[derive(Debug, Default)]
pub(super) struct Readback {
    free: Vec<wgpu::Buffer>,
    pending: VecDeque<Pending>,
}

impl Readback {
    /// A staging buffer of at least `bytes`, to be handed back with [`await_result`](Self::await_result).
    pub(super) fn staging(&mut self, gpu: &GpuContext, bytes: u64) -> wgpu::Buffer {
        match self.free.iter().position(|buffer| buffer.size() >= bytes) {
            Some(at) => self.free.swap_remove(at),
            None => {
                // Too small ones would only pile up.
                self.free.clear();
                gpu.buffer("staging", bytes as usize, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST)
            }
        }
    }

    /// Begins the reading of what `submission` copies into `staging`.
    pub(super) fn begin(&mut self, staging: wgpu::Buffer, bytes: u64, submission: wgpu::SubmissionIndex) {
        let (sender, receiver) = oneshot::channel();
        staging.slice(..bytes).map_async(wgpu::MapMode::Read, move |result| {
            // Nobody listens any more when the caller lost interest.
            let _ = sender.send(result);
        });
        self.pending.push_back(Pending { staging, bytes, submission, receiver });
    }

    /// Waits for the oldest result.
    ///
    /// # Errors
    /// None is on its way, or the device's faults.
    pub(super) async fn next(&mut self, gpu: &GpuContext) -> Result<Vec<u8>, EngineError> {
        let failed = |what: &dyn std::fmt::Display| match gpu.check() {
            Err(cause) => cause,
            Ok(()) => EngineError::Gpu(format!("a result cannot be read: {what}")),
        };
        // Should the future be dropped here, the result stays in the queue and `clear` takes it out.
        let Some(oldest) = self.pending.front_mut() else { return Err(failed(&"none was asked for")) };
        let wait = wgpu::PollType::Wait { submission_index: Some(oldest.submission.clone()), timeout: None };
        // In a browser this does nothing: the event loop brings the answer.
        gpu.device.poll(wait).map_err(|error| failed(&error))?;
        let mapped = (&mut oldest.receiver).await.map_err(|error| failed(&error))?;
        mapped.map_err(|error| failed(&error))?;
        let data = oldest.staging.slice(..oldest.bytes).get_mapped_range().map_err(|error| failed(&error))?.to_vec();
        if let Some(done) = self.pending.pop_front() {
            done.staging.unmap();
            self.free.push(done.staging);
        }
        gpu.check()?;
        Ok(data)
    }

    /// Lets go of everything that is on its way.
    pub(super) fn clear(&mut self) {
        for pending in self.pending.drain(..) {
            pending.staging.unmap();
            self.free.push(pending.staging);
        }
    }

    /// How many results are on their way.
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }
}
