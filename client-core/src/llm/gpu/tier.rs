//! Kernel sets: what goes beyond the baseline that every WebGPU adapter offers, each proved on the device before it is
//! used.
//!
//! A set's proof is a small model on the GPU against the oracle. What was found is data ([`Proof`]), so that a page can
//! keep it and prove every device and version once.

use serde::{Deserialize, Serialize};

use super::{GpuBackend, GpuContext};
use crate::llm::backend::{Backend, Output, Want};
use crate::llm::error::EngineError;
use crate::llm::gguf::GgmlType;
use crate::llm::reference::{Deviation, Reference};
use crate::llm::synthetic::{self, Family, Storage};

/// Changes whenever kernels do, so that proofs of older ones no longer count.
pub const KERNEL_VERSION: u32 = 3;

/// Largest difference of a logit from the oracle's, with single precision throughout.
const BOUND: f32 = 1e-3;
/// The same where prompts are computed in half precision: logits have a standard deviation of about 1.
const HALF_BOUND: f32 = 2e-2;

/// Which kernels beyond the baseline are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct KernelSet {
    /// Sums through subgroups instead of workgroup memory.
    pub subgroups: bool,
    /// Tiles of long prompts in half precision. Less exact: on only where a caller asks for it.
    pub half: bool,
}

impl KernelSet {
    /// Only what every adapter has.
    pub const BASELINE: Self = Self { subgroups: false, half: false };

    /// Names of the parts, for people.
    pub fn names(self) -> Vec<&'static str> {
        let parts = [(self.subgroups, "subgroups"), (self.half, "shader-f16")];
        parts.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect()
    }

    /// What both have.
    pub fn intersection(self, other: Self) -> Self {
        Self { subgroups: self.subgroups && other.subgroups, half: self.half && other.half }
    }
}

/// What the self-test found on a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The adapter's name and driver as it was.
    pub device: String,
    /// [`KERNEL_VERSION`] as it was.
    pub version: u32,
    /// Names of the parts that hold.
    pub passed: Vec<String>,
    /// Names of the parts that the adapter offers and that do not hold, with what was found.
    pub failed: Vec<(String, String)>,
}

impl Proof {
    /// Whether it says something about this device and these kernels.
    pub fn is_of(&self, gpu: &GpuContext) -> bool {
        self.version == KERNEL_VERSION && self.device == gpu.identity()
    }

    pub(super) fn allows(&self, name: &str) -> bool {
        self.passed.iter().any(|passed| passed == name)
    }
}

/// Tries every part that the adapter offers, each by itself over the baseline.
pub(super) async fn prove(gpu: &GpuContext, offered: KernelSet) -> Proof {
    let mut device = gpu.clone();
    let mut proof = Proof { device: gpu.identity(), version: KERNEL_VERSION, passed: Vec::new(), failed: Vec::new() };
    let parts = [
        (KernelSet { subgroups: true, ..KernelSet::BASELINE }, BOUND),
        (KernelSet { half: true, ..KernelSet::BASELINE }, HALF_BOUND),
    ];
    for (set, bound) in parts {
        if set.intersection(offered) != set {
            continue;
        }
        let name = set.names().concat();
        if device.check().is_err() {
            // What failed before took the device with it.
            match GpuContext::request().await {
                Ok(fresh) => device = fresh,
                Err(error) => {
                    proof.failed.push((name, error.to_string()));
                    continue;
                }
            }
        }
        let mut failure = None;
        // Rows short, longer and long enough for every number of lanes, and so many that groups take two units.
        for ffn in [96, 2048, 8192] {
            match deviation(&device, set, ffn).await {
                // Not a number is not within any bound.
                Ok(found) if found <= bound => {}
                Ok(found) => failure = Some(format!("a logit is {found:.1e} off, and at most {bound:.0e} is allowed")),
                Err(error) => failure = Some(error.to_string()),
            }
        }
        match failure {
            None => proof.passed.push(name),
            Some(why) => proof.failed.push((name, why)),
        }
    }
    proof
}

/// Largest difference of a logit, after a prompt of many columns, of a few, and of one, of a model of this inner width.
async fn deviation(gpu: &GpuContext, set: KernelSet, ffn: usize) -> Result<f32, EngineError> {
    let config = synthetic::config([50, 64, 1, 2, 1, ffn]);
    let storage = Storage { blocks: GgmlType::Q4_0, embedding: GgmlType::Q8_0, untied: false };
    let weights = synthetic::weights_like(Family::Qwen3, config, storage, 1)?;
    let tokens = synthetic::tokens(50, 15, 1);
    let oracle = Reference::new(&weights).logits(&tokens);
    let mut backend = GpuBackend::with_kernels(gpu, &weights, set).await?;
    let mut worst = 0f32;
    let mut at = 0;
    for columns in [11, 3, 1] {
        let chunk = tokens.get(at..at + columns).unwrap_or_default();
        at += columns;
        let expected = oracle.get(at - 1).map_or(&[][..], Vec::as_slice);
        let Output::Logits(found) = backend.forward(chunk, Want::Logits).await? else {
            return Err(EngineError::NotOffered { backend: "webgpu", what: "logits" });
        };
        let Deviation { max, .. } = Deviation::between(&found, expected);
        worst = if max.is_nan() { f32::INFINITY } else { worst.max(max) };
    }
    Ok(worst)
}
