//! The backends that are measured, each with what is measured of it alone.

use engine::backend::Backend;
use engine::weights::ModelWeights;
#[cfg(feature = "vulkan")]
use futures::executor::block_on;

#[cfg(feature = "vulkan")]
use super::decode::prefill;
use super::report::{BackendName, BenchError, Profile, Settings};

/// What is copied to measure the bandwidth: more than caches hold.
const COPY_BYTES: usize = 256 << 20;

/// A backend with the model on it.
pub(super) struct Loaded<'c> {
    pub(super) backend: Box<dyn Backend>,
    pub(super) device: String,
    pub(super) kernels: Vec<&'static str>,
    /// Measures the memory's bandwidth, bytes per second.
    pub(super) copy: Box<dyn Fn() -> Result<f64, BenchError> + 'c>,
    /// The model once more, with packed products or without.
    pub(super) pack: Box<Pack<'c>>,
    /// The model once more, for what its kernels take behind a prompt.
    pub(super) profile: Box<ProfileOf<'c>>,
}

pub(super) type Pack<'c> = dyn Fn(bool) -> Result<Box<dyn Backend>, BenchError> + 'c;
pub(super) type ProfileOf<'c> = dyn Fn(&[u32]) -> Result<Profile, BenchError> + 'c;

/// Puts the model onto the backend.
pub(super) fn load<'c>(
    settings: &Settings,
    weights: &'c ModelWeights<'_>,
    clock: &'c dyn Fn() -> f64,
) -> Result<Loaded<'c>, BenchError> {
    match settings.backend {
        BackendName::Cpu => Ok(Loaded {
            device: format!("CPU, {} threads", engine::cpu::set_threads(settings.threads)),
            backend: engine::cpu::backend(weights)?,
            kernels: Vec::new(),
            copy: Box::new(|| Ok(copy_on_cpu(clock))),
            pack: Box::new(|_| Err(BenchError::PackedOnCpu)),
            profile: Box::new(|_| Err(BenchError::ProfileOnCpu)),
        }),
        #[cfg(feature = "vulkan")]
        BackendName::Vulkan => {
            use engine::gpu::{GpuBackend, GpuContext, KernelSet, copy_bandwidth};
            // Tiles are of one kind.
            let wanted = KernelSet { half: settings.half, packed: !settings.half, ..KernelSet::EXACT };
            let self_test = async { GpuContext::request().await?.self_test(wanted, weights, None, clock).await };
            let (gpu, report) = block_on(self_test)?;
            for (part, why) in report.dropped() {
                eprintln!("{part} is left out: {why}");
            }
            if let Some(pace) = report.pace {
                eprintln!(
                    "self-test: a prompt through one block took {} us with packed 4x8, {} us in single precision",
                    pace.packed_us, pace.single_us
                );
            }
            report.check(weights)?;
            let set = gpu.kernels();
            let device = gpu.clone();
            let pack = move |packed: bool| {
                if packed && !device.caps().packed {
                    return Err(BenchError::NoPacked);
                }
                let set = KernelSet { half: false, packed, ..set };
                Ok(Box::new(block_on(GpuBackend::with_kernels(&device, weights, set))?) as Box<dyn Backend>)
            };
            let device = gpu.clone();
            let profile =
                move |prompt: &[u32]| profile_of(block_on(GpuBackend::with_kernels(&device, weights, set))?, prompt);
            Ok(Loaded {
                backend: Box::new(block_on(GpuBackend::with_kernels(&gpu, weights, set))?),
                device: gpu.caps().name.clone(),
                kernels: set.names(),
                copy: Box::new(move || Ok(block_on(copy_bandwidth(&gpu, COPY_BYTES, 3, clock))?)),
                pack: Box::new(pack),
                profile: Box::new(profile),
            })
        }
        #[cfg(not(feature = "vulkan"))]
        BackendName::Vulkan => Err(BenchError::NoVulkan),
    }
}

/// The kernels of a token behind the prompt and of the prompt: of three calls the one that takes the least, after one to
/// warm up.
#[cfg(feature = "vulkan")]
fn profile_of(mut backend: engine::gpu::GpuBackend, prompt: &[u32]) -> Result<Profile, BenchError> {
    use engine::gpu::GpuBackend;

    use super::report::KernelShare;

    let least = |backend: &mut GpuBackend, tokens: &[u32], after: usize| -> Result<Vec<KernelShare>, BenchError> {
        let mut best = Vec::new();
        let mut best_us = f64::INFINITY;
        for run in 0..4 {
            backend.truncate(after);
            let times = block_on(backend.profile(tokens))?;
            let shares: Vec<KernelShare> = times
                .iter()
                .map(|time| KernelShare { kernel: time.kernel, dispatches: time.dispatches, us: 1e6 * time.seconds })
                .collect();
            let us = shares.iter().map(|share| share.us).sum();
            if run > 0 && us < best_us {
                (best, best_us) = (shares, us);
            }
        }
        Ok(best)
    };
    let of_prompt = least(&mut backend, prompt, 0)?;
    // A profile goes through the prompt's first part only.
    prefill(&mut backend, prompt)?;
    Ok(Profile { prompt: of_prompt, token: least(&mut backend, &[0], prompt.len())? })
}

/// The best of three copies on one thread, read and written bytes both counted.
fn copy_on_cpu(clock: &dyn Fn() -> f64) -> f64 {
    let source = vec![1u8; COPY_BYTES];
    let mut target = vec![0u8; COPY_BYTES];
    let mut best = 0f64;
    for _ in 0..3 {
        let before = clock();
        target.copy_from_slice(std::hint::black_box(&source));
        std::hint::black_box(&mut target);
        best = best.max(2.0 * COPY_BYTES as f64 / (clock() - before));
    }
    best
}
