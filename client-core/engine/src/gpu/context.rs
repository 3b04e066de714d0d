//! A WebGPU device and what it has reported: the capabilities of its adapter, and faults, which WebGPU delivers outside of any
//! call and which would otherwise end in a panic.

use std::sync::{Arc, Mutex, PoisonError};

use futures::channel::oneshot;

use super::pace::PrefillTimes;
use super::tier::{self, KernelSet, KernelTest, SelfTestReport};
use crate::error::EngineError;
use crate::parts::Weights;

/// What the adapter says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterCaps {
    /// Name, where the browser tells it.
    pub name: String,
    /// Whether the "GPU" is a program on the CPU.
    pub software: bool,
    /// Largest storage buffer that a kernel can see, bytes.
    pub max_binding_bytes: u64,
    /// Half-precision arithmetic.
    pub shader_f16: bool,
    /// Exchange between the threads of a wave.
    pub subgroups: bool,
    /// Products of packed signed bytes. Where the GPU has no instruction for them, its driver's compiler or the browser's
    /// writes them out.
    pub packed: bool,
}

#[derive(Debug, Default)]
struct Fault {
    lost: Option<String>,
    refused: Option<String>,
}

/// A device with its queue. Cheap to clone.
#[derive(Debug, Clone)]
pub struct GpuContext {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) limits: wgpu::Limits,
    caps: AdapterCaps,
    driver: String,
    kernels: KernelSet,
    fault: Arc<Mutex<Fault>>,
}

impl GpuContext {
    /// Asks the browser (natively: Vulkan) for a device with all the limits that the adapter has. Kernels are those of
    /// the baseline until a [report](Self::self_test) says more.
    ///
    /// # Errors
    /// There is no WebGPU, no adapter, or the adapter gives no device; the text says which.
    pub async fn request() -> Result<Self, EngineError> {
        let refused = |what: &str, error: &dyn std::fmt::Display| EngineError::Gpu(format!("{what}: {error}"));
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let options = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..Default::default()
        };
        let adapter = instance.request_adapter(&options).await;
        let adapter = adapter.map_err(|error| EngineError::NoAdapter(error.to_string()))?;
        let limits = adapter.limits();
        let mut wanted = wgpu::Features::SHADER_F16 | wgpu::Features::SUBGROUP;
        // For profiles, which only native programs make.
        wanted.set(wgpu::Features::TIMESTAMP_QUERY, cfg!(not(target_arch = "wasm32")));
        let features = adapter.features() & wanted;
        let info = adapter.get_info();
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("tandem engine"),
            required_features: features,
            required_limits: limits.clone(),
            ..Default::default()
        };
        let device = adapter.request_device(&descriptor).await;
        let (device, queue) = device.map_err(|error| refused("the adapter gives no device", &error))?;

        let fault = Arc::new(Mutex::new(Fault::default()));
        let on_error = Arc::clone(&fault);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            let mut fault = on_error.lock().unwrap_or_else(PoisonError::into_inner);
            // The first one is the cause; the rest are consequences.
            fault.refused.get_or_insert_with(|| error.to_string());
        }));
        let on_loss = Arc::clone(&fault);
        device.set_device_lost_callback(move |reason, message| {
            let mut fault = on_loss.lock().unwrap_or_else(PoisonError::into_inner);
            fault.lost.get_or_insert_with(|| format!("{reason:?}: {message}"));
        });
        let driver = format!("{} {} {:x}:{:x}", info.driver, info.driver_info, info.vendor, info.device);
        let caps = AdapterCaps {
            software: info.device_type == wgpu::DeviceType::Cpu
                || ["swiftshader", "llvmpipe"].iter().any(|name| info.name.to_lowercase().contains(name)),
            name: if info.name.is_empty() { info.driver } else { info.name },
            max_binding_bytes: limits.max_storage_buffer_binding_size,
            shader_f16: features.contains(wgpu::Features::SHADER_F16),
            subgroups: features.contains(wgpu::Features::SUBGROUP),
            packed: instance.wgsl_language_features().contains(wgpu::WgslLanguageFeatures::Packed4x8IntegerDotProduct),
        };
        Ok(Self { device, queue, limits, caps, driver, kernels: KernelSet::BASELINE, fault })
    }

    /// This device, or another one where a test took it away, after the self-test of the kernels that a model needs and of
    /// those of `parts` that the adapter offers. What `known` tells of this device and these kernels is not tried again;
    /// keep what comes back for the next time.
    ///
    /// Parts that fail are left out, and so are packed products where they are not faster, by `clock`, which returns
    /// seconds. Whether the rest computes the model as it should, [`SelfTestReport::check`] says.
    ///
    /// # Errors
    /// The device is lost and there is no other; the model's own errors.
    pub async fn self_test(
        self,
        parts: KernelSet,
        weights: &dyn Weights,
        known: Option<SelfTestReport>,
        clock: &dyn Fn() -> f64,
    ) -> Result<(Self, SelfTestReport), EngineError> {
        self.self_test_while(parts, weights, known, clock, &mut |_, _| true).await
    }

    /// As [`GpuContext::self_test`]; before every kernel test `go_on` gets what has been found so far, how many of the
    /// tests that are necessary are over and how many there are. The self-test ends early where it says no. What was not
    /// tried counts as failed for the parts, and is tried by the next self-test that is given this one's report.
    ///
    /// # Errors
    /// As [`GpuContext::self_test`].
    pub async fn self_test_while(
        self,
        parts: KernelSet,
        weights: &dyn Weights,
        known: Option<SelfTestReport>,
        clock: &dyn Fn() -> f64,
        go_on: &mut dyn FnMut(&SelfTestReport, [u64; 2]) -> bool,
    ) -> Result<(Self, SelfTestReport), EngineError> {
        let AdapterCaps { subgroups, shader_f16: half, packed, .. } = self.caps;
        let offered = KernelSet { subgroups, half, packed };
        let mut report = known.filter(|report| report.is_of(&self)).unwrap_or_else(|| SelfTestReport::of(&self));
        let mut gpu = self;
        let mut kernel_tests = tier::kernel_tests(weights, parts.intersection(offered))?;
        kernel_tests.retain(|test| !report.tells_of(*test));
        for (over, test) in kernel_tests.iter().copied().enumerate() {
            if !go_on(&report, [over, kernel_tests.len()].map(|count| count as u64)) {
                break;
            }
            let mut outcome = test.run(&gpu).await;
            if test == KernelTest::Packed && outcome.is_ok() {
                outcome = PrefillTimes::measure(&gpu, clock)
                    .await
                    .map(|pace| report.pace = Some(pace))
                    .map_err(|e| e.to_string());
            }
            report.note(test, outcome);
            if gpu.check().is_err() {
                gpu = Self::request().await?;
            }
        }
        gpu.kernels = report.kernels().intersection(offered);
        Ok((gpu, report))
    }

    /// What the adapter says about itself.
    pub fn caps(&self) -> &AdapterCaps {
        &self.caps
    }

    /// Which parts of the kernels have passed the self-test on this device. Half precision is less exact: a caller may
    /// leave it out.
    pub fn kernels(&self) -> KernelSet {
        self.kernels
    }

    /// What a report is tied to: adapter and driver, as far as they are told.
    pub fn identity(&self) -> String {
        format!("{} / {}", self.caps.name, self.driver)
    }

    /// Ends the device on purpose: everything on it is gone, as after a driver reset. For tests of what follows.
    pub fn destroy(&self) {
        self.device.destroy();
    }

    /// Whether both are handles of one device.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.fault, &other.fault)
    }

    pub(super) fn buffer(&self, label: &str, bytes: usize, usage: wgpu::BufferUsages) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: bytes.max(16) as u64,
            usage,
            mapped_at_creation: false,
        })
    }

    /// The fault that has been reported since the device was made, if any.
    pub(super) fn check(&self) -> Result<(), EngineError> {
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        match (&fault.lost, &fault.refused) {
            (Some(lost), _) => Err(EngineError::DeviceLost(lost.clone())),
            (None, Some(refused)) => Err(EngineError::Gpu(refused.clone())),
            (None, None) => Ok(()),
        }
    }

    /// Waits until everything that was written or submitted is done.
    ///
    /// # Errors
    /// The device's faults.
    pub(super) async fn settled(&self) -> Result<(), EngineError> {
        let failed = |error: &dyn std::fmt::Display| match self.check() {
            Err(cause) => cause,
            Ok(()) => EngineError::Gpu(error.to_string()),
        };
        let (sender, receiver) = oneshot::channel();
        let submission = self.queue.submit([]);
        self.queue.on_submitted_work_done(move || {
            // Nobody listens any more when the caller lost interest.
            let _ = sender.send(());
        });
        let wait = wgpu::PollType::Wait { submission_index: Some(submission), timeout: None };
        // In a browser this does nothing: the event loop brings the answer.
        self.device.poll(wait).map_err(|error| failed(&error))?;
        receiver.await.map_err(|error| failed(&error))?;
        self.check()
    }

    /// Does `make` and returns its result unless the device refused something in it.
    pub(super) async fn guarded<T>(
        &self,
        make: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let made = make.await;
        let (validation, memory) = (validation.pop(), memory.pop());
        if let Some(error) = validation.await {
            return Err(EngineError::Gpu(error.to_string()));
        }
        if let Some(error) = memory.await {
            return Err(EngineError::Gpu(format!("out of memory: {error}")));
        }
        self.check()?;
        made
    }
}
