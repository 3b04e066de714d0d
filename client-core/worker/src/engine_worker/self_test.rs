//! The GPU's self-test: once per device, browser and version of the kernels, kept in the origin private file system.

use serde::{Deserialize, Serialize};

use super::{EngineWorker, tier};
use crate::opfs::OpfsStore;
use client::download::{FileStore, FileStoreError};
use client::offload::ports::Clock;
use client::offload::run::within;
use client::offload::signal::StopFlag;
use client::protocol::worker::{Event, ModelState, Tier};
use engine::EngineError;
use engine::gpu::{GpuContext, KernelSet, SelfTestReport};
use engine::parts::Weights;

/// Where reports are kept, and the file in it.
const FOLDER: &str = "proofs";
const FILE: &str = "webgpu.json";
/// More than any report has.
const MAX_BYTES: usize = 64 << 10;
/// A slow phone compiles a hundred shaders in this time; a driver that hangs takes longer.
const LIMIT_S: f64 = 120.0;

/// A report and what WebGPU does not tell of where it was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct StoredReport {
    /// The browser's name and version: it brings its own shader compiler.
    browser: String,
    #[serde(rename = "proof")]
    report: SelfTestReport,
}

impl EngineWorker {
    /// The device, with the kernels that passed the self-test there, after it has run for those that the model needs. The
    /// first time it takes seconds. An emulated GPU is taken as it is: it is the browser's own program, there is no driver
    /// to find out about, nobody gets it unasked, and the self-test would take it tens of seconds. A load that is stopped
    /// ends it after the kernel test that is under way; the next load goes on with the others.
    ///
    /// # Errors
    /// What the model needs has failed, the load was stopped, or the device does not answer or was lost.
    pub(super) async fn tested(
        &self,
        gpu: &GpuContext,
        weights: &dyn Weights,
        stop: &StopFlag,
    ) -> Result<GpuContext, EngineError> {
        if gpu.caps().software {
            return Ok(gpu.clone());
        }
        let browser = self.scope.navigator().user_agent().unwrap_or_default();
        let known = self.tested.borrow().clone();
        let known = match known {
            Some(report) => Some(report),
            None => kept().await.filter(|kept| kept.browser == browser).map(|kept| kept.report),
        };
        if known.as_ref().is_none_or(|known| !known.is_of(gpu)) {
            self.tell("Its kernels are tested on this GPU: once for a device, a browser and a version.");
        }
        let clock = || self.clock.now_s();
        let mut go_on = |found: &SelfTestReport, [over, total]: [u64; 2]| {
            *self.tested.borrow_mut() = Some(found.clone());
            self.loading_state(ModelState::Testing { over, total });
            !stop.is_stopped()
        };
        let testing = gpu.clone().self_test_while(KernelSet::EXACT, weights, known.clone(), &clock, &mut go_on);
        let tested = within(&self.clock, LIMIT_S, testing).await;
        let (gpu, report) = tested.ok_or_else(|| EngineError::SelfTest {
            what: "all kernels".to_owned(),
            found: format!("not finished after {LIMIT_S} s"),
        })??;
        if known.as_ref() != Some(&report) {
            for (part, found) in report.dropped() {
                self.notice(format!("The GPU is used without {part}, which failed the self-test: {found}."));
            }
            // Without storage, the next visit tries again.
            let _ = keep(&StoredReport { browser, report: report.clone() }).await;
        }
        *self.tested.borrow_mut() = Some(report.clone());
        self.loading_state(ModelState::Loading { read: 0, total: 0 });
        if stop.is_stopped() {
            return Err(EngineError::File("the load was stopped".to_owned()));
        }
        *self.gpu.borrow_mut() = Some(gpu.clone());
        report.check(weights)?;
        self.tell(&words(gpu.kernels(), &report));
        Ok(gpu)
    }

    /// Adds to why the GPU computes.
    fn tell(&self, more: &str) {
        if self.tier.borrow().tier == Tier::WebGpu {
            self.tier.borrow_mut().reason = format!("{} {more}", tier::why_gpu(self.choice.get()));
            self.emit(Event::Tier { tier: self.tier.borrow().clone() });
        }
    }
}

/// What the self-test found, in a sentence or two.
fn words(kernels: KernelSet, report: &SelfTestReport) -> String {
    let mut text = "Its kernels passed the self-test on this GPU".to_owned();
    for name in kernels.names() {
        text += &format!(", with {name}");
    }
    text.push('.');
    for (part, found) in report.dropped() {
        text += &format!(" Left out: {part} ({found}).");
    }
    if let Some(pace) = report.pace.filter(|pace| !pace.prefers_packed()) {
        let [packed_ms, single_ms] = [pace.packed_us, pace.single_us].map(|us| f64::from(us) / 1e3);
        text += &format!(
            " Without packed 4x8, which is no faster here than single precision ({packed_ms:.1} and {single_ms:.1} ms)."
        );
    }
    text
}

async fn kept() -> Option<StoredReport> {
    let bytes = OpfsStore::of(FOLDER).read(FILE, 0, MAX_BYTES).await.ok()?;
    serde_json::from_slice(&bytes).ok()
}

async fn keep(kept: &StoredReport) -> Result<(), FileStoreError> {
    let mut store = OpfsStore::of(FOLDER);
    let text = serde_json::to_vec(kept).map_err(|error| FileStoreError::Unavailable(error.to_string()))?;
    store.begin(FILE, 0).await?;
    store.append(&text)?;
    store.end();
    Ok(())
}
